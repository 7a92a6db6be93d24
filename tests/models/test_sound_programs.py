"""Right gradients of programs of all kinds, at random points and sizes, are never called wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from tests.models.zoo import jax_zoo, torch_zoo

pytest.importorskip("torch", reason="reads the programs of torch")
for module in ("jax", "equinox", "flax", "optax"):
    pytest.importorskip(module, reason="reads the programs of JAX")

ZOO = {("torch", name): case for name, case in torch_zoo().items()} | {
    ("jax", name): case for name, case in jax_zoo().items()
}
POINTS = 100
"""How many points each program is judged at, in each dtype: about 100,000 verdicts of arrays together."""


def verdict_at(native: Any, data: Any, seed: int, dtype: str) -> gdc.Report:
    """Judge at a random point, of a random size."""
    features, targets = data
    generator = np.random.default_rng(seed)
    scale, size = 10.0 ** generator.uniform(-1.5, 0.5, 2)
    params = {name: value + scale * generator.standard_normal(value.shape) for name, value in native.parameters.items()}
    moved = features if features.dtype.kind in "iu" else features * size + 0.1 * generator.standard_normal()
    return gdc.verify(native, (moved, targets), params, dtype=dtype)


@pytest.mark.soundness
@pytest.mark.parametrize("make", [pytest.param(case, id=": ".join(name)) for name, case in ZOO.items()])
def test_a_right_gradient_is_never_called_wrong(make: Callable[[], Any], dtype: str) -> None:
    native, data = make()
    seen: Counter[str] = Counter()
    largest = 0.0
    for seed in range(POINTS):
        report = verdict_at(native, data, seed, dtype)

        seen.update(f"{each.grade} {each.verdict}" for each in report.entries)
        sampled = [each.budget_fraction for each in report.entries if each.grade == "sampled"]
        largest = max([largest, *(each for each in sampled if each == each)])
        assert report.verdict != "wrong", f"seed {seed}: {report.explanation()}"
    print(f"{dict(seen)}; sampled: at most {largest:.2g} of the allowance")  # noqa: T201 - the report
    assert seen["proven agree"] + seen["sampled agree"] > 0.5 * seen.total()


@pytest.mark.parametrize(
    ("name", "seed", "dtype"),
    [
        ("batch norm, training", 10, "float32"),  # its kernel takes no mean from what is 0 but for the mean's rounding
        ("batch norm, training", 25, "float64"),
        ("binary cross entropy of shares", 82, "float32"),  # shares that are 1 in float32
        ("gaussian", 82, "float32"),  # variances that are clamped without being recorded
    ],
)
def test_a_right_gradient_is_right_where_a_kernel_rounds_in_its_own_way(name: str, seed: int, dtype: str) -> None:
    native, data = ZOO["torch", name]()

    assert verdict_at(native, data, seed, dtype).verdict != "wrong"
