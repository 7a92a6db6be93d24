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


@pytest.mark.soundness
@pytest.mark.parametrize("make", [pytest.param(case, id=": ".join(name)) for name, case in ZOO.items()])
def test_a_right_gradient_is_never_called_wrong(make: Callable[[], Any], dtype: str) -> None:
    native, (features, targets) = make()
    seen: Counter[str] = Counter()
    largest = 0.0
    for seed in range(POINTS):
        generator = np.random.default_rng(seed)
        scale, size = 10.0 ** generator.uniform(-1.5, 0.5, 2)
        params = {
            name: value + scale * generator.standard_normal(value.shape) for name, value in native.parameters.items()
        }
        moved = features if features.dtype.kind in "iu" else features * size + 0.1 * generator.standard_normal()

        report = gdc.verify(native, (moved, targets), params, dtype=dtype)

        seen.update(f"{each.grade} {each.verdict}" for each in report.entries)
        sampled = [each.budget_fraction for each in report.entries if each.grade == "sampled"]
        largest = max([largest, *(each for each in sampled if each == each)])
        assert report.verdict != "wrong", f"seed {seed}: {report.explanation()}"
    print(f"{dict(seen)}; sampled: at most {largest:.2g} of the allowance")  # noqa: T201 - the report
    assert seen["proven agree"] + seen["sampled agree"] > 0.5 * seen.total()
