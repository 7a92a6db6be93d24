"""The classical checks beside the enclosure: what each notices, what it misses, and who is at fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.arithmetic.analytic import AnalyticNumpy
from gdcompare.authoring.faults import FAULTS, Implementation, by_hand
from gdcompare.case import Case
from gdcompare.problem import drawn_parameters
from gdcompare.referee import classical
from gdcompare.referee.classical import METHODS, extrapolated
from gdcompare.referee.methods import MethodOutcome, all_methods, what_each_says
from gdcompare.referee.point import Referee

LINEAR = gdc.load_problem("linear-regression")
LOGISTIC = gdc.load_problem("logistic-regression")
OF_ITS_OWN_LOSS = {"central differences", "extrapolated differences", "Taylor remainder"}


def plane(n: int = 24, d: int = 3) -> gdc.Dataset:
    generator = np.random.default_rng(0)
    return gdc.Dataset(generator.normal(size=(n, d)), generator.normal(size=n), name="plane")


def outcomes(
    implementation: Any,
    problem: gdc.Problem = LINEAR,
    data: gdc.Dataset | None = None,
    params: Mapping[str, Any] | None = None,
    dtype: str = "float64",
) -> dict[str, MethodOutcome]:
    data = plane() if data is None else data
    params = drawn_parameters(problem, data) if params is None else params
    return {each.method: each for each in all_methods(problem, data, params, implementation, dtype)}


def faulty(fault: str, problem: gdc.Problem = LINEAR) -> Implementation:
    return FAULTS[fault](by_hand(problem))


def spoiled(spoil: Callable[[NDArray[Any]], NDArray[Any]]) -> Implementation:
    """Every array of the right gradient, spoiled."""

    def implementation(params: Any, features: Any, targets: Any) -> Any:
        loss, gradient = by_hand(LINEAR)(params, features, targets)
        return loss, {name: spoil(each) for name, each in gradient.items()}

    return implementation


def native(found: Mapping[str, MethodOutcome]) -> list[str]:
    return [name for name in found if name not in {*METHODS, "allclose", "enclosure"}]


def at_fault(found: Mapping[str, MethodOutcome]) -> set[str]:
    return {name for name, outcome in found.items() if outcome.at_fault}


@pytest.mark.thorough
def test_in_float64_every_method_agrees_with_every_backend(backend_name: str, linear_model: gdc.Problem) -> None:
    found = outcomes(backend_name, linear_model, gdc.datasets.example(linear_model))

    assert {outcome.says for outcome in found.values()} <= {"agree", "inconclusive"}
    assert not at_fault(found)
    assert [*found][: len(METHODS)] == [*METHODS]
    assert [*found][-1] == "enclosure"


@pytest.mark.thorough
@pytest.mark.feature("gradient checkers")
def test_the_frameworks_bring_their_own_checkers(backend_name: str) -> None:
    backend = gdc.load_backend(backend_name)

    found = native(outcomes(backend))

    assert sum(backend_name in name for name in found) >= 2


def test_every_method_refuses_a_flipped_sign() -> None:
    found = outcomes(faulty("flipped sign"))

    assert {outcome.says for outcome in found.values()} <= {"wrong"}
    assert not at_fault(found)


def test_every_method_refuses_a_missing_parameter_and_a_crash() -> None:
    def crashing(params: Any, features: Any, targets: Any) -> Any:
        raise RuntimeError("out of luck")

    for implementation in (faulty("a parameter missing"), crashing):
        assert {outcome.says for outcome in outcomes(implementation).values()} <= {"wrong"}


def test_a_component_off_by_a_ten_thousandth_passes_the_checks_with_loose_defaults() -> None:
    found = outcomes(faulty("one component times 1 + 1e-4"))

    assert found["enclosure"].says == "wrong"
    assert found["central differences"].says == "agree"
    assert "1.0e-04 of it" in found["central differences"].why
    assert {name for name in native(found) if "torch" in name} <= at_fault(found)
    assert found["extrapolated differences"].says == found["complex step"].says == "wrong"
    assert "theta_1" in found["enclosure"].note


def test_a_component_off_by_a_billionth_passes_all_but_the_extrapolation_and_the_enclosure() -> None:
    found = outcomes(faulty("one component times 1 + 1e-9"))

    assert {name for name, outcome in found.items() if outcome.says == "wrong"} == {
        "extrapolated differences",
        "enclosure",
    }


def test_a_gradient_of_a_ten_millionth_replaced_by_zero_passes_every_absolute_tolerance() -> None:
    data = gdc.Dataset([[1.0], [-1.0], [2.0]], [1.0, 1.0, 1.0])
    near = {"theta_0": 1.0 + 5e-8, "theta_1": [0.0]}  # dL/dtheta_0 = 2 * 5e-8

    found = outcomes(spoiled(np.zeros_like), LINEAR, data, near)

    assert found["enclosure"].says == "wrong"
    assert {"central differences", "complex step", *native(found)} <= at_fault(found)
    assert found["dot product"].says == "wrong"  # it is relative


def test_the_remainder_of_a_gradient_off_by_a_percent_falls_at_order_one() -> None:
    right = outcomes(by_hand(LINEAR))["Taylor remainder"]
    wrong = outcomes(spoiled(lambda gradient: 1.01 * gradient))["Taylor remainder"]

    assert right.figure == pytest.approx(2.0, abs=0.05)
    assert wrong.figure == pytest.approx(1.0, abs=0.1)
    assert (right.says, wrong.says) == ("agree", "wrong")


@final
@dataclass(frozen=True)
class Mean(gdc.Problem):
    """l_i = x_i . slopes, a linear loss."""

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return {"slopes": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return features @ params["slopes"]

    def per_sample_gradients(self, xp: Any, params: Any, features: Any, targets: Any) -> dict[str, Any]:
        return {"slopes": features}

    def value_and_gradient(self, xp: Any, params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
        return xp.mean(features @ params["slopes"]), {"slopes": xp.mean(features, axis=0)}


def test_of_a_linear_loss_the_remainder_says_nothing() -> None:
    right, wrong = outcomes(by_hand(Mean()), Mean()), outcomes(faulty("factor 2", Mean()), Mean())

    assert right["Taylor remainder"].says == "inconclusive"
    assert wrong["Taylor remainder"].says == "wrong"
    assert right["central differences"].says == right["complex step"].says == "agree"


def test_in_float32_a_right_gradient_fails_the_checks_with_a_fixed_step() -> None:
    found = outcomes(by_hand(LINEAR), dtype="float32")

    assert found["enclosure"].says == "agree"
    assert {"central differences", *(name for name in native(found) if "torch" in name)} <= at_fault(found)
    assert "the gradient is right, to" in found["central differences"].why
    assert found["extrapolated differences"].says == "inconclusive"


def test_a_loss_and_a_gradient_that_are_wrong_together_pass_the_checks_of_the_implementations_own_loss() -> None:
    found = outcomes(faulty("dropped last sample"))

    assert found["enclosure"].says == "wrong"
    assert at_fault(found) == {*OF_ITS_OWN_LOSS, *native(found)}
    assert all("the loss is wrong, too" in found[name].why for name in at_fault(found))


def test_an_extra_axis_goes_unseen_by_what_looks_at_numbers_only() -> None:
    found = outcomes(faulty("an extra axis"))

    assert {*METHODS, "allclose"} <= at_fault(found)
    assert "shape (1,) where () belongs" in found["dot product"].why


def test_a_changed_input_goes_unseen_and_is_said_to() -> None:
    def greedy(params: Any, features: Any, targets: Any) -> Any:
        result = by_hand(LINEAR)(params, features, targets)
        targets += 0.25
        return result

    found = outcomes(greedy)

    assert found["complex step"].why == "it does not see: it changed its inputs: targets"


def test_an_implementation_without_a_loss_is_checked_against_the_formulas() -> None:
    def lossless(params: Any, features: Any, targets: Any) -> Any:
        return None, by_hand(LINEAR)(params, features, targets)[1]

    found = outcomes(lossless)

    assert {outcome.says for outcome in found.values()} == {"agree"}


def test_a_method_that_cannot_run_is_inconclusive_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "MOST_COMPONENTS", 3)

    found = outcomes(by_hand(LINEAR))

    assert found["complex step"].says == "inconclusive"
    assert found["complex step"].note == "cannot run: 4 components are too many to go one by one"
    assert found["dot product"].says == "agree"


def test_a_gradient_of_another_shape_that_does_not_broadcast_is_refused() -> None:
    found = outcomes(
        spoiled(lambda gradient: gradient if gradient.ndim == 0 else gradient.reshape(2, 2)), data=plane(d=4)
    )

    assert found["allclose"].says == "wrong"


def test_one_flipped_entry_of_ten_thousand_passes_the_fast_mode() -> None:
    torch = pytest.importorskip("torch", reason="the fast mode is torch's")
    implementation = faulty("flipped sign of one component")
    data = gdc.Dataset(np.random.default_rng(0).uniform(0.5, 1.5, size=(2, 10_000)), [1.0, 1.0])
    params = {"theta_0": 0.0, "theta_1": np.zeros(10_000)}
    point = Referee(Case.of(LINEAR, data, params)).point
    before = torch.get_rng_state()

    fast = next(c for c in gdc.load_backend("torch").native_checks(LINEAR, *point, implementation) if "fast" in c.name)  # type: ignore[attr-defined]  # optional

    fast.run()
    assert not gdc.verify(LINEAR, data, params, backends=[], implementations={"": implementation})
    assert torch.equal(torch.get_rng_state(), before)


def test_the_extrapolation_knows_its_error() -> None:
    value, error = extrapolated(lambda h: ((math.sin(1 + h) - math.sin(1 - h)) / (2 * h), 1e-16 / h), 0.5)

    assert abs(value - math.cos(1)) <= error < 1e-12


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (lambda xp, x: xp.abs(x), -1.0),
        (lambda xp, x: xp.sign(x) * x, -1.0),
        (lambda xp, x: xp.logaddexp(0 * x, x), 1 / (1 + math.exp(0.5))),
        (lambda xp, x: xp.logaddexp(x, 2 * x), 1 + 1 / (1 + math.exp(0.5))),
        (lambda xp, x: xp.vecdot(xp.stack([x, x]), xp.stack([x, x])), -2.0),
        (lambda xp, x: xp.maximum(x, 0 * x), 0.0),
        (lambda xp, x: xp.where(x < 0, x * x, x), -1.0),
        (lambda xp, x: xp.tanh(x), 1 / math.cosh(0.5) ** 2),
    ],
)
def test_a_complex_step_takes_the_slope_at_minus_one_half(function: Callable[..., Any], slope: float) -> None:
    found = function(AnalyticNumpy(), np.asarray(-0.5 + 1e-40j)).imag / 1e-40

    assert found == pytest.approx(slope, rel=1e-14)


def test_rows_say_who_is_at_fault() -> None:
    rows = what_each_says([MethodOutcome("a", "agree", math.nan, "rule", at_fault=True, why="too loose")])

    assert rows == [("a", "agree", "-", "AT FAULT: too loose")]
