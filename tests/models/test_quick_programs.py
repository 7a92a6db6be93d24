"""What is enclosed in floats of a program contains what Arb's balls enclose, and verdicts are the same by either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.case import Case
from gdcompare.referee import enclosure, point
from gdcompare.referee.enclosure import enclose, enclose_quickly
from gdcompare.referee.point import Referee
from tests.models.zoo import jax_zoo, torch_zoo

pytest.importorskip("torch", reason="reads the programs of torch")
for module in ("jax", "equinox", "flax", "optax"):
    pytest.importorskip(module, reason="reads the programs of JAX")

ZOO = {("torch", name): case for name, case in torch_zoo().items()} | {
    ("jax", name): case for name, case in jax_zoo().items()
}
QUICK = {("torch", "block, mask -inf"), ("torch", "cnn"), ("torch", "block, finite mask")}
"""Which must be enclosed in floats."""
ALWAYS = {("torch", "block, mask -inf"), ("torch", "cnn")}

CASES = [
    pytest.param(name, case, id=": ".join(name), marks=[] if name in ALWAYS else [pytest.mark.thorough])
    for name, case in ZOO.items()
]


@pytest.fixture(autouse=True)
def _few_numbers_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclosure, "FEW", 0)


@pytest.mark.covering
@pytest.mark.parametrize(("name", "make"), CASES)
def test_it_contains_the_truth_of_a_program(name: tuple[str, str], make: Callable[[], Any]) -> None:
    native, data = make()
    posed = native.posed(data, None, "float64")
    referee = Referee(Case.of(posed.problem, posed.data, posed.params, "float64", "mean"))
    budgets = referee.budgets(by_hand=False)
    point_of_it = referee.problem, referee.params, referee.features, referee.targets, referee.weights

    quick = enclose_quickly(*point_of_it, budgets=budgets)

    if quick is None:
        assert name not in QUICK
        return
    exact = enclose(*point_of_it, budgets=budgets, precision=512)
    for key, truth in {"loss": exact.loss, **exact.gradient}.items():
        found = quick.loss if key == "loss" else quick.gradient[key]
        assert not truth.kinks.any()
        assert np.all(found.rad <= 2.0**-20 * budgets[key])
        for outer, inner in zip(found.balls.ravel(), truth.balls.ravel(), strict=True):
            assert outer.contains(inner) or (outer.overlaps(inner) and inner.rad() <= 1e-60)


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(QUICK))
def test_the_verdict_is_the_same_as_by_arb(name: tuple[str, str], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    native, data = ZOO[name]()

    def negated(*at: Any) -> Any:
        loss, gradient = native.value_and_grad(*at)
        return loss, {key: -each for key, each in gradient.items()}

    quick = gdc.verify(native, data, implementations={"negated": negated}, dtype=dtype)
    monkeypatch.setattr(point, "enclose_quickly", lambda *_, **__: None)
    by_arb = gdc.verify(native, data, implementations={"negated": negated}, dtype=dtype)

    assert quick.context["kinks"] == by_arb.context["kinks"]
    for one, other in zip(quick.entries, by_arb.entries, strict=True):
        assert (one.implementation, one.parameter, one.verdict, one.grade, one.expected) == (
            other.implementation, other.parameter, other.verdict, other.grade, other.expected,
        )  # fmt: skip
