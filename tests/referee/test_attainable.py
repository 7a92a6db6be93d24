"""The digits that the inputs allow, beside those that are correct: scalar cases told apart, and no false alarm."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.authoring.faults import by_hand
from gdcompare.referee.attainable import Digits
from tests.formulas import few_rows

ONE = gdc.Dataset([[1.0]], [0.0])
Slope = Callable[[Any], Any]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def of_scalar(formula: Callable[[Any, Any], Any], x: float, slope: Slope, dtype: str = "float64") -> Digits:
    """Return the digits of one number, computed as the derivative of a function of one number."""

    def mine(params: Any, *_: Any) -> Any:
        return None, {"x": np.asarray(slope(params["x"]), dtype=dtype)}

    problem = gdc.Operation(formula, x=())
    digits = gdc.attainable_digits(problem, ONE, {"x": x}, dtype, backends=[], implementations={"mine": mine})
    return digits.entries[0]


# As frameworks differentiate them, with what is lost; "" if nothing is.
CASES: dict[str, tuple[Callable[[Any, Any], Any], float, Slope, str]] = {
    "tanh at 9": (lambda xp, x: xp.tanh(x), 9.0, lambda x: 1 - np.tanh(x) ** 2, "slope of tanh"),
    "tanh at 20": (lambda xp, x: xp.tanh(x), 20.0, lambda x: 1 - np.tanh(x) ** 2, "slope of tanh"),
    "sigmoid at 40": (
        lambda xp, x: 1 / (1 + xp.exp(-x)),
        40.0,
        lambda x: sigmoid(x) * (1 - sigmoid(x)),
        "it has another of its own",
    ),
    "sigmoid at 40, by tanh": (
        lambda xp, x: 0.5 * (1 + xp.tanh(x / 2)),
        40.0,
        lambda x: sigmoid(x) * (1 - sigmoid(x)),
        "slope of tanh",
    ),
    "expm1 at -40": (lambda xp, x: xp.expm1(x), -40.0, lambda x: np.expm1(x) + 1, "slope of expm1"),
    "sin at 1e8": (lambda xp, x: xp.sin(x), 1e8, np.cos, ""),
    "exp at 40": (lambda xp, x: xp.exp(x), 40.0, np.exp, ""),
    "tanh at 0.5": (lambda xp, x: xp.tanh(x), 0.5, lambda x: 1 - np.tanh(x) ** 2, ""),
    "log at 1e-9": (lambda xp, x: xp.log(x), 1e-9, lambda x: 1 / x, ""),
    "tanh at 20, by cosh": (lambda xp, x: xp.tanh(x), 20.0, lambda x: np.cosh(x) ** -2.0, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_formula_loses_is_told_from_what_the_input_never_had(case: str) -> None:
    formula, x, slope, lost = CASES[case]

    digits = of_scalar(formula, x, slope)

    assert bool(digits.lost) == bool(lost), digits
    assert lost in digits.lost
    assert digits.beyond == (case == "sigmoid at 40")
    assert not lost or digits.grade == "proven"


def test_the_condition_of_the_slope_is_what_is_attainable() -> None:
    sine = of_scalar(lambda xp, x: xp.sin(x), 1e8, np.cos)

    half_a_unit = np.spacing(1e8) / 2
    assert sine.attainable == pytest.approx(-math.log10(half_a_unit * abs(math.tan(1e8))), abs=0.01)
    assert sine.correct > 15


@pytest.mark.parametrize("digits", [12, 9, 3])
def test_as_many_digits_as_are_wrong_are_missing(digits: int) -> None:
    off = of_scalar(lambda xp, x: xp.exp(x), 1.0, lambda x: np.exp(x) * (1 + 10.0**-digits))

    assert off.correct == pytest.approx(digits, abs=0.01)
    assert off.lost.endswith("or is wrong")


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -math.e])
def test_what_is_nothing_like_the_truth_has_no_digit(value: float) -> None:
    digits = of_scalar(lambda xp, x: xp.exp(x), 1.0, lambda _: value)

    assert digits.correct == 0
    assert digits.lost


def test_whole_numbers_among_the_data_are_exact_and_parameters_are_not() -> None:
    def attainable(feature: float) -> float:
        data = gdc.Dataset([[feature], [feature + 1]], [0.0, 0.0])  # at 0 the gradient is x (p x - y) = -x y
        point = {"theta_0": 0.0, "theta_1": [2.0**-60]}
        problem = gdc.load_problem("linear-regression")
        return gdc.attainable_digits(problem, data, point, backends=["numpy"]).entries[1].attainable

    assert attainable(0.3) < attainable(2.0) < -math.log10(2.0**-53)


def test_a_kink_and_what_underflows_have_no_digits_to_count() -> None:
    kink = of_scalar(lambda xp, x: xp.abs(x), 0.0, lambda x: 0.3)
    subnormal = of_scalar(lambda xp, x: xp.exp(x), -100.0, lambda x: 0.0, dtype="float32")

    assert (kink.index, kink.lost, subnormal.index, subnormal.lost) == (None, "", None, "")


def test_right_gradients_lose_nothing(linear_model: gdc.Problem, dtype: str) -> None:
    digits = gdc.attainable_digits(linear_model, few_rows(linear_model), dtype=dtype, backends=["numpy"])

    assert digits.lost == ()
    assert all(each.correct > (4 if dtype == "float32" else 12) for each in digits.entries)


def test_a_long_sum_may_be_added_up_in_any_order() -> None:
    generator = np.random.default_rng(0)
    data = gdc.Dataset(generator.normal(size=(1000, 1)), generator.normal(size=1000))
    problem = gdc.load_problem("linear-regression")

    def one_by_one(params: Any, features: Any, targets: Any) -> Any:
        residuals = params["theta_0"] + features @ params["theta_1"] - targets
        total, slope = np.float32(0), np.zeros(1, np.float32)
        for residual, row in zip(residuals, features, strict=True):
            total, slope = total + residual, slope + residual * row
        return None, {"theta_0": 2 * total / np.float32(1000), "theta_1": 2 * slope / np.float32(1000)}

    digits = gdc.attainable_digits(
        problem, data, dtype="float32", backends=["numpy"], implementations={"one by one": one_by_one}
    )

    assert [each.lost for each in digits.entries] == ["", "", "", ""]
    assert all(4 < each.correct < 8 for each in digits.entries)


def test_the_element_that_lost_most_is_named() -> None:
    problem = gdc.load_problem("softmax-regression")

    def one_off(*point: Any) -> Any:
        loss, gradient = by_hand(problem)(*point)
        gradient["theta_1"][1, 2] *= 1 + 1e-6
        return loss, gradient

    digits = gdc.attainable_digits(problem, few_rows(problem), backends=[], implementations={"one off": one_off})

    assert [(each.parameter, each.index) for each in digits.lost] == [("theta_1", (1, 2))]
    assert digits.lost[0].correct == pytest.approx(6, abs=0.01)


def test_the_table_says_what_was_lost_and_escapes_names() -> None:
    def mine(params: Any, *_: Any) -> Any:
        return None, {"x": 1 - np.tanh(params["x"]) ** 2}

    tanh = gdc.Operation(lambda xp, x: xp.tanh(x), x=())
    digits = gdc.attainable_digits(tanh, ONE, {"x": 9.0}, backends=[], implementations={"<mine>": mine})

    assert repr(digits) == "AttainableDigits(1 of 1 array lost digits, Operation on data)"
    assert re.search(r"<mine> +x +by the formula +[89]\.\d +14\.7\n", str(digits))
    assert "<mine>: x: a tail: the slope of tanh at " in str(digits)
    assert "&lt;mine&gt;" in digits._repr_html_()


def test_a_wrong_gradient_is_not_said_to_be_lost_by_the_formula() -> None:
    flipped = of_scalar(lambda xp, x: xp.exp(x), 1.0, lambda x: -np.exp(x))

    assert repr(flipped) == "Digits(mine: x, 0.0 of 15.7 digits, lost beyond the formula)"


def test_what_raises_is_not_passed_over() -> None:
    def broken(params: Any, *_: Any) -> Any:
        return params["no such name"]

    with pytest.raises(KeyError, match="no such name"):
        gdc.attainable_digits("linear-regression", backends=[], implementations={"broken": broken})


def test_what_does_not_fit_has_no_digits() -> None:
    for found in ((None, {}), (None, {"x": np.zeros(2)}), 3):
        digits = gdc.attainable_digits(
            gdc.Operation(lambda xp, x: xp.exp(x), x=()),
            ONE,
            {"x": 1.0},
            backends=[],
            implementations={"odd": lambda *_, found=found: found},
        )
        assert [(each.index, each.lost) for each in digits.entries] == [(None, "")]
