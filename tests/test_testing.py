"""The oracle for test suites passes what is right, refuses whatever is wrong, and says which element and why."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gdcompare import Backend, Dataset, Problem, datasets, load_backend, load_problem
from gdcompare.problem import check_parameters
from gdcompare.testing import FAULTS, GradientError, assert_gradients_agree, by_hand, mutate

from .formulas import few_rows
from .planes import Planes

Gradient = dict[str, Any]

N = 7
AT: Gradient = {"slopes": [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [-2.0, 1.0, 0.125]], "intercepts": [1.0, -0.5, 0.25]}


def square() -> Dataset:
    """As many features as targets, so that a transposed gradient has the right shape."""
    generator = np.random.default_rng(3)
    return Dataset(generator.normal(size=(N, 3)), generator.normal(size=(N, 3)), name="square")


def right(dtype: str = "float64") -> Gradient:
    """The gradient by hand, from data and parameters rounded to the dtype."""
    data = square()
    params = {name: value.astype(dtype) for name, value in check_parameters(Planes(), data, AT).items()}
    return by_hand(Planes())(params, data.features.astype(dtype), data.targets.astype(dtype))[1]


def element(gradient: Gradient, change: Callable[[Any], Any]) -> Gradient:
    """Change one of the nine slopes."""
    slopes = gradient["slopes"].copy()
    slopes[2, 1] = change(slopes[2, 1])
    return gradient | {"slopes": slopes}


def every(change: Callable[[Any], Any]) -> Callable[[Gradient], Gradient]:
    return lambda gradient: {name: change(each) for name, each in gradient.items()}


SPOILERS: dict[str, Callable[[Gradient], Gradient]] = {
    "flipped sign": every(lambda each: -each),
    "flipped sign of one element": lambda gradient: element(gradient, lambda value: -value),
    "factor 2": every(lambda each: 2 * each),
    "sum for mean": every(lambda each: N * each),
    "n - 1 for n": every(lambda each: each * each.dtype.type(N / (N - 1))),
    "transposed": lambda gradient: gradient | {"slopes": gradient["slopes"].T},
    "NaN": lambda gradient: element(gradient, lambda _: np.nan),
    "infinity": lambda gradient: element(gradient, lambda _: np.inf),
    "an extra axis": every(lambda each: each[None]),
    "a lost axis": lambda gradient: gradient | {"slopes": gradient["slopes"].ravel()},
    "zeros": every(np.zeros_like),
    "a missing parameter": lambda gradient: {"slopes": gradient["slopes"]},
    "an extra parameter": lambda gradient: gradient | {"bias": gradient["intercepts"]},
    "no parameter": lambda gradient: {},
    "another dtype": every(lambda each: each.astype("float32" if each.dtype == "float64" else "float64")),
    "a wider dtype": every(lambda each: each.astype("longdouble")),
    "Python objects": every(lambda each: each.astype(object)),
}
ONLY_IN_FLOAT64: dict[str, Callable[[Gradient], Gradient]] = {
    "float32 in float64": every(lambda each: each.astype("float32").astype("float64")),
    "one element off by 1e-9": lambda gradient: element(gradient, lambda value: value * (1 + 1e-9)),
    "one element off by 1e-13": lambda gradient: element(gradient, lambda value: value * (1 + 1e-13)),
}
CASES = [(name, dtype) for dtype in ("float32", "float64") for name in SPOILERS]
CASES += [(name, "float64") for name in ONLY_IN_FLOAT64]


@pytest.mark.parametrize(("name", "dtype"), CASES)
@pytest.mark.parametrize("as_function", [True, False], ids=["function", "arrays"])
def test_the_oracle_rejects(name: str, dtype: str, as_function: bool) -> None:
    spoilt = (SPOILERS | ONLY_IN_FLOAT64)[name](right(dtype))

    with pytest.raises(AssertionError):
        assert_gradients_agree((lambda *_: (None, spoilt)) if as_function else spoilt, Planes(), square(), AT, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_gradients_pass_as_function_and_as_arrays(dtype: str) -> None:
    for candidate in (right(dtype), lambda *_: (None, right(dtype)), by_hand(Planes())):
        report = assert_gradients_agree(candidate, Planes(), square(), AT, dtype)

        assert report.verdict == "agree"
        assert report.context["dtype"] == dtype


def test_right_gradients_of_every_problem_pass_at_drawn_parameters(problem: Problem, dtype: str) -> None:
    assert_gradients_agree(by_hand(problem), problem, few_rows(problem), dtype=dtype)


def test_a_backend_is_judged_at_its_own_dtype(backend: Backend[Any]) -> None:
    report = assert_gradients_agree(backend, "linear-regression", datasets.noisy_line())

    assert {entry.implementation for entry in report.entries} == {backend.name}
    assert report.context["dtype"] == backend.dtype


def test_a_backend_is_not_judged_at_another_dtype() -> None:
    with pytest.raises(ValueError, match="computes in float32, but dtype='float64' is to be judged"):
        assert_gradients_agree(load_backend("numpy", "float32"), "linear-regression", "noisy-line", dtype="float64")


def test_names_stand_for_backend_problem_and_data() -> None:
    assert assert_gradients_agree("numpy", "linear-regression", "noisy-line").verdict == "agree"


def test_a_wrong_loss_is_refused_and_no_loss_is_not_judged() -> None:
    def doubled(params: Any, features: Any, targets: Any) -> Any:
        loss, gradient = by_hand(Planes())(params, features, targets)
        return 2 * loss, gradient

    with pytest.raises(GradientError, match=r"doubled: loss is wrong: .*a constant factor 2 in the value$"):
        assert_gradients_agree(doubled, Planes(), square(), AT)
    report = assert_gradients_agree(right(), Planes(), square(), AT)

    assert {entry.parameter for entry in report.entries} == {"slopes", "intercepts"}


def test_the_message_names_the_element_both_values_and_the_cause() -> None:
    spoilt = SPOILERS["flipped sign of one element"](right())
    value = float(right()["slopes"][2, 1])

    with pytest.raises(GradientError) as caught:
        assert_gradients_agree(spoilt, Planes(), square(), AT)

    (wrong,) = [entry for entry in caught.value.report.entries if entry.verdict == "wrong"]
    first, second = str(caught.value).splitlines()
    assert wrong.expected == pytest.approx(value, rel=1e-14)
    assert first == "1 of 2 comparisons do not agree for Planes on square:"
    assert f"the given arrays: slopes[2, 1] is wrong: actual {-value!r}, expected {wrong.expected!r}, " in second
    assert second.endswith("; the sign is flipped in 1 of 9 elements ((2, 1))")


def test_a_tolerance_takes_the_budgets_place_and_the_report_says_what_it_costs() -> None:
    spoilt = ONLY_IN_FLOAT64["one element off by 1e-9"](right())

    report = assert_gradients_agree(spoilt, Planes(), square(), AT, rtol=1e-8)

    assert all(entry.detectable >= 2e-8 for entry in report.entries)
    with pytest.raises(GradientError):
        assert_gradients_agree(spoilt, Planes(), square(), AT, rtol=1e-10)


def test_what_cannot_be_decided_does_not_pass() -> None:
    overflowing = Dataset([[1e200, 1e200]], [1.0])  # 1e400 - 1e400, where the truth is 0
    params: Gradient = {"theta_0": 0.0, "theta_1": [1e200, -1e200]}
    truth: Gradient = {"theta_0": -2.0, "theta_1": [-2e200, -2e200]}

    with pytest.raises(GradientError, match=r"theta_0 is inconclusive: .*the budget is not finite"):
        assert_gradients_agree(truth, "linear-regression", overflowing, params)


def test_an_error_inside_the_function_is_the_cause_of_ours() -> None:
    def broken(params: Any, features: Any, targets: Any) -> Any:
        return params["no such name"]

    with pytest.raises(GradientError, match="it raised KeyError: 'no such name'") as caught:
        assert_gradients_agree(broken, Planes(), square(), AT)

    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__cause__.__traceback__ is not None


@pytest.mark.parametrize("returned", [{"slopes": 0, "intercepts": 0}, [0.0, {}], (0.0, [1.0]), None])
def test_a_function_that_returns_something_else_is_told_what_to_return(returned: Any) -> None:
    message = f"it must return (loss, {{name: gradient}}), not {type(returned).__name__}"

    with pytest.raises(GradientError, match=re.escape(message)):
        assert_gradients_agree(lambda *_: returned, Planes(), square(), AT)


def test_arrays_without_their_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^gradients already computed need the params at which they were$"):
        assert_gradients_agree(right(), Planes(), square())


def test_the_error_can_be_sent_to_another_process() -> None:
    with pytest.raises(GradientError) as caught:
        assert_gradients_agree({}, Planes(), square(), AT)

    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own

    assert str(copy) == str(caught.value)


@pytest.mark.thorough
def test_no_planted_fault_survives_the_oracle_and_a_careless_check_lets_some_live() -> None:
    problem, data = load_problem("linear-regression"), datasets.integer_lattice()
    params = {"theta_0": np.array(2.0), "theta_1": np.array([1.0, -3.0, 2.0])}

    def careless(implementation: Any) -> bool:
        _, gradient = implementation(params, data.features, data.targets)
        _, truth = by_hand(problem)(params, data.features, data.targets)
        return all(np.allclose(gradient[name], truth[name]) for name in truth)

    def referee(implementation: Any) -> None:
        assert_gradients_agree(implementation, problem, data, params)

    point = (params, data.features, data.targets)

    assert mutate(referee, by_hand(problem), *point).survived == ()
    assert {"one component times 1 + 1e-6", "an extra axis"} <= set(mutate(careless, by_hand(problem), *point).survived)
    assert set(mutate(referee, by_hand(problem), *point).killed) <= set(FAULTS)


@pytest.mark.thorough
def test_the_door_opens_without_a_test_runner() -> None:
    code = "import sys, gdcompare.testing; print(sorted({'pytest', 'hypothesis', '_pytest'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - ours

    assert done.stdout.strip() == "[]"


def test_sums_over_the_rows_agree_where_sums_are_due_and_nowhere_else() -> None:
    data = Dataset([[1.0], [3.0]], [2.0, 4.0], weights=[1.0, 3.0])

    def summed(params: Any, features: Any, targets: Any, weights: Any) -> Any:
        residuals = weights * (params["theta_0"] + features @ params["theta_1"] - targets)
        return None, {"theta_0": 2 * residuals.sum(), "theta_1": 2 * residuals @ features}

    assert assert_gradients_agree(summed, "linear-regression", data, reduction="sum")
    with pytest.raises(GradientError, match="a factor sum w = 4: a sum where a mean belongs"):
        assert_gradients_agree(summed, "linear-regression", data)
