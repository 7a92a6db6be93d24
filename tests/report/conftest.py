"""What pictures are drawn of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import gdcompare as gdc

pytest.importorskip("matplotlib", reason="no picture without Matplotlib: pip install 'gdcompare[plot]'")

pictures: Any = gdc.pictures  # what the artists of its figures hold has any type

LINE = "linear-regression"
POINT: Mapping[str, Any] = {"theta_0": 1.0, "theta_1": [0.0]}


@pytest.fixture(scope="module")
def data() -> gdc.Dataset:
    return gdc.datasets.noisy_line()


@pytest.fixture(scope="module")
def fits(data: gdc.Dataset) -> dict[str, gdc.Descent]:
    rule = gdc.rules.sgd(0.1)
    return {
        "full batch": gdc.descend(LINE, data, "numpy", rule, epochs=60),
        "mini-batches of 2": gdc.descend(LINE, data, "numpy", rule, epochs=3, batch_size=2),
        "stochastic": gdc.descend(LINE, data, "numpy", rule, epochs=2, batch_size=1),
    }


@pytest.fixture(scope="module")
def diverging(data: gdc.Dataset) -> gdc.Descent:
    return gdc.descend(LINE, data, "numpy", gdc.rules.sgd(3.0), epochs=400)


@pytest.fixture(scope="module")
def report(data: gdc.Dataset) -> gdc.Report:
    def half(params: Any, features: Any, targets: Any) -> Any:
        residuals = params["theta_0"] + features @ params["theta_1"] - targets
        return (residuals**2).mean(), {"theta_0": residuals.mean(), "theta_1": 2 * residuals @ features / len(targets)}

    return gdc.verify(LINE, data, POINT, backends=["numpy"], implementations={"half": half})
