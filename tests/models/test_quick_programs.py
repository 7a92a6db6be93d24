"""What is enclosed in floats of a program contains what Arb's balls enclose, and verdicts are the same by either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.arithmetic.quick_numbers import choices
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


def enclosed_both_ways(native: Any, data: Any) -> tuple[Any, Any]:
    """The enclosure in floats, if there is one, and Arb's."""
    posed = native.posed(data, None, "float64")
    referee = Referee(Case.of(posed.problem, posed.data, posed.params, "float64", "mean"))
    budgets = {name: np.full(np.shape(each), 1e-12) for name, each in referee.budgets(by_hand=False).items()}
    at = referee.problem, referee.params, referee.features, referee.targets, referee.weights
    return enclose_quickly(*at, budgets=budgets), enclose(*at, budgets=budgets)


def test_ties_of_windows_that_are_alike_are_no_matter() -> None:
    from gdcompare_torch import from_module

    torch = pytest.importorskip("torch")
    nn, images = torch.nn, np.zeros((2, 1, 8, 8))
    images[:, :, 3:6, 3:6] = np.random.default_rng(0).normal(size=(2, 1, 3, 3))  # blank around, as scanned digits are
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 1))
    with torch.no_grad():
        for i, value in enumerate(net.parameters()):
            value.copy_(torch.tensor(np.random.default_rng(i).normal(size=tuple(value.shape))))
        net[0].bias.fill_(0.3)  # so that the blank windows are not rectified
    native = from_module(net, nn.MSELoss(), name="model")

    quick, exact = enclosed_both_ways(native, (images, np.ones((2, 1))))

    assert exact.kinks
    assert quick is not None
    assert [*map(str, quick.kinks)] == [*map(str, exact.kinks)]
    for name, truth in exact.gradient.items():
        both = zip(quick.gradient[name].balls.ravel(), truth.balls.ravel(), strict=True)
        assert all(outer.overlaps(inner) for outer, inner in both)


@pytest.mark.parametrize(
    "function",
    [
        lambda torch, z: torch.maximum(z, 2 * z),  # another slope on either side
        lambda torch, z: torch.maximum(z, -z) + torch.maximum(-z, z),  # the first of both, or the last, gives 0
        lambda torch, z: torch.where(z > 0, 1.0 + z, z),  # a jump
    ],
    ids=["a kink", "two that cancel", "a jump"],
)
def test_ties_that_matter_are_left_to_arb(function: Callable[..., Any]) -> None:
    from gdcompare_torch import from_function

    torch = pytest.importorskip("torch")
    native = from_function(lambda p, x, y: function(torch, x @ p["w"]) - y, {"w": np.zeros(2)})

    quick, _ = enclosed_both_ways(native, (np.eye(2), np.zeros(2)))

    assert quick is None


def test_the_choices_differ_and_choose_one_that_may_be_it() -> None:
    possible = np.random.default_rng(0).random((50, 4)) < 0.6
    possible[:, 0] |= ~possible.any(axis=1)

    chosen = [way(possible) for way in choices()]

    assert all((each <= possible).all() and (each.sum(axis=1) == 1).all() for each in chosen)
    assert len({each.tobytes() for each in chosen}) == len(chosen) == 4
