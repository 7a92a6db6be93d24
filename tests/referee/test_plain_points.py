"""Where the truth is plain, the budget is finite: right gradients agree there, and NaN is wrong.

A slope may be infinite on the way (a root at 0, a logarithm of the branch that was not taken), or a mask be -inf: what
is multiplied by an exact 0, or left out, has no part in the budget. Where it is infinite, the reason is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.arithmetic.rounded import RoundedNumbers
from gdcompare.backend import unit_roundoff
from gdcompare.referee.budget import budget_of_loss, budget_of_products, why_unbounded
from gdcompare.referee.verdict import Known, judge
from tests.formulas import Formula

Function = Callable[[Any, Any, Any], Any]
LOGISTIC = 1 / (1 + np.exp(-1.0))


def first(x: Any) -> Any:
    return x[:, :1]


def masked(xp: Any, x: Any, mask: float) -> Any:
    return x + xp.asarray([0.0, 0.0, mask], dtype=x.dtype)


def log_sum_exp(xp: Any, z: Any) -> Any:
    top = xp.max(z, axis=1, keepdims=True)
    return top + xp.log(xp.sum(xp.exp(z - top), axis=1, keepdims=True))


def softmax(xp: Any, z: Any) -> Any:
    powers = xp.exp(z - xp.max(z, axis=1, keepdims=True))
    return first(powers / xp.sum(powers, axis=1, keepdims=True))


def distances(xp: Any, x: Any) -> Any:
    apart = x[:, :, None] - x[:, None, :]
    return xp.sqrt(apart * apart)


# The formula of a and b, the values of a and b, and the gradients by a and b.
PLAIN: dict[str, tuple[Function, list[float], list[float], list[float], list[float]]] = {
    "sum x^k, k = 0..3, at 0": (
        lambda xp, x, y: sum(x**k for k in range(4)), [0, 0, 0], [1, 1, 1], [1, 2, 3], [0, 0, 0]),
    "0^b by b": (lambda xp, x, y: 0.0**y, [1, 1, 1], [1.5, 2, 3], [0, 0, 0], [0, 0, 0]),
    "norm^2 at 0": (lambda xp, x, y: xp.sqrt(xp.sum(x * x, axis=1)) ** 2, [0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]),
    "(x^2)^0.5 at 0": (lambda xp, x, y: (x**2) ** 0.5, [0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]),
    "0 log 0 by the double where": (
        lambda xp, x, y: xp.where(x > 0, x * xp.log(xp.where(x > 0, x, xp.ones_like(x))), y),
        [0, 1, 1], [1, 1, 1], [0, 2, 3], [1, 0, 0]),
    "the root that was not taken": (
        lambda xp, x, y: xp.where(x >= 0, x, xp.sqrt(-x)), [1, 4, 1], [1, 1, 1], [1, 2, 3], [0, 0, 0]),
    "the power that was not taken": (
        lambda xp, x, y: xp.where(x > 0, x, xp.exp(1000 * x)), [1, 4, 1], [1, 1, 1], [1, 2, 3], [0, 0, 0]),
    "coincident points": (lambda xp, x, y: distances(xp, x), [1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]),
    "coincident points, squared": (
        lambda xp, x, y: distances(xp, x) ** 2, [1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]),
}  # fmt: skip
MASKS = {"-1000": -1000.0, "-1e9": -1e9, "finfo.min": float(np.finfo(np.float32).min), "-inf": -np.inf}
for _name, _mask in MASKS.items():
    PLAIN[f"logaddexp, mask {_name}"] = (
        lambda xp, x, y, m=_mask: xp.logaddexp(x, x + m), [1, 2, 3], [1, 1, 1], [1, 2, 3], [0, 0, 0])  # type: ignore[misc]  # fmt: skip
    PLAIN[f"logsumexp, mask {_name}"] = (
        lambda xp, x, y, m=_mask: log_sum_exp(xp, masked(xp, x, m)),  # type: ignore[misc]
        [1, 0, 3], [1, 1, 1], [LOGISTIC, 1 - LOGISTIC, 0], [0, 0, 0])  # fmt: skip
    PLAIN[f"softmax, mask {_name}"] = (
        lambda xp, x, y, m=_mask: softmax(xp, xp.where(xp.asarray([1.0, 1.0, 0.0]) > 0, x, xp.full_like(x, m))),  # type: ignore[misc]
        [1, 0, 3], [1, 1, 1], [LOGISTIC * (1 - LOGISTIC), -LOGISTIC * (1 - LOGISTIC), 0], [0, 0, 0])  # fmt: skip


@pytest.mark.parametrize(("function", "a", "b", "by_a", "by_b"), PLAIN.values(), ids=PLAIN)
def test_the_budget_is_finite_the_truth_agrees_and_nan_is_wrong(
    function: Function, a: list[float], b: list[float], by_a: list[float], by_b: list[float], dtype: str
) -> None:
    params = {"a": np.array(a, dtype=dtype), "b": np.array(b, dtype=dtype)}

    loss, budget = budget_of_loss(Formula(function), params, np.ones((1, 3), dtype), np.zeros(1, dtype), dtype)

    assert np.isfinite(loss)
    for name, truth in (("a", by_a), ("b", by_b)):
        known = Known(np.array(truth, dtype=np.float64))
        verdicts = [
            judge("", name, np.array(wrong, dtype=dtype), known, budget[name], dtype).verdict
            for wrong in (truth, np.full(3, np.nan), np.array(truth) + 1e-3)
        ]
        assert verdicts == ["agree", "wrong", "wrong"]
        assert (budget[name] <= 200 * unit_roundoff(dtype)).all()


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_second_derivatives_behind_a_mask_have_a_budget(mask: float, dtype: str) -> None:
    problem = Formula(lambda xp, x, y: log_sum_exp(xp, masked(xp, x, mask)))
    params = {"a": np.array([1, 0, 3], dtype=dtype), "b": np.ones(3, dtype)}
    along = {name: np.ones((1, 3), dtype) for name in params}

    budget = budget_of_products(problem, params, np.ones((1, 3), dtype), np.zeros(1, dtype), along, dtype)

    assert (budget["a"] < 400 * unit_roundoff(dtype)).all()


UNBOUNDED: dict[str, tuple[Function, float, str]] = {
    "an overflow": (lambda xp, x, y: xp.exp(x), 1000.0, "exp may overflow"),
    "a root": (lambda xp, x, y: xp.sqrt(x * x - 0.3 * x), 0.3, "sqrt of what may be 0 or less"),
    "a logarithm": (lambda xp, x, y: xp.log(x - 0.3), 0.3, "log of what may be 0 or less"),
    "a quotient": (lambda xp, x, y: 1 / (x - 0.3), 0.3, "a division by what may be 0"),
    "a cube": (lambda xp, x, y: x * x * x, 1e200, "a product may overflow"),
    "a subnormal divisor": (lambda xp, x, y: y / (x * 1e-30), 1e-290, "a division by what may be flushed to 0"),
}


@pytest.mark.parametrize(("function", "a", "reason"), UNBOUNDED.values(), ids=UNBOUNDED)
def test_where_the_budget_is_infinite_the_operation_is_named(function: Function, a: float, reason: str) -> None:
    point = {"a": np.full(3, a), "b": np.ones(3)}, np.ones((1, 3)), np.zeros(1)

    _, budget = budget_of_loss(Formula(function), *point, "float64")

    assert budget["a"][0] == np.inf
    assert re.fullmatch(
        rf"{reason} \(test_plain_points\.py:\d+\)", why_unbounded(Formula(function), *point, "float64")[0]
    )


def test_an_infinity_of_known_sign_is_exact_and_one_of_unknown_sign_is_not() -> None:
    numbers = RoundedNumbers("float64")
    mask, zero, one = (numbers.asarray(np.array([x])) for x in (-np.inf, 0.0, 1.0))

    with np.errstate(all="ignore"):
        moved, power, quotient = mask + 0.1 * one, numbers.exp(mask), one / zero

    assert moved.value[0] == -np.inf
    assert moved.exact[0]
    assert power.value[0] == power.error[0] == power.spread[0] == 0
    assert quotient.error[0] == quotient.spread[0] == np.inf


def test_an_overflow_beside_an_exact_0_is_an_overflow() -> None:
    """0 exp(1000) is NaN in every program: no bound, and no branch that was not taken."""
    problem = Formula(lambda xp, x, y: 0 * xp.exp(x))
    point = {"a": np.full(3, 1000.0), "b": np.ones(3)}, np.ones((1, 3)), np.zeros(1)

    loss, budget = budget_of_loss(problem, *point, "float64")

    assert loss == budget["a"][0] == np.inf


@pytest.mark.parametrize("proven_only", [False, True])
def test_what_overflows_on_the_way_to_a_finite_truth_is_no_mistake(proven_only: bool) -> None:
    """The square of a distance overflows in a component so narrow that its share is 0, and its slope 0 infinity."""
    problem = gdc.load_problem("gaussian-mixture", components=2)
    params = {
        "logits": np.zeros(2),
        "means": np.array([[0.0], [1.0]]),
        "log_diagonals": np.array([[0.0], [700.0]]),
    }

    def overflowing(params: Any, features: Any, targets: Any) -> Any:
        return None, {name: np.full(value.shape, np.nan) for name, value in params.items()}

    report = gdc.verify(
        problem,
        gdc.Dataset(np.array([[2.0], [3.0]]), np.zeros(2)),
        params,
        backends=[],
        implementations={"it": overflowing},
        proven_only=proven_only,
    )

    assert report.verdict == "inconclusive"
    assert "a product may overflow (gaussian_mixture.py:" in report.entries[0].cause
