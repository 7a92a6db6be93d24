"""Inputs from practice: for each, who is right and who is wrong, through the whole of `verify`.

Most were reported as bugs of frameworks or of their checkers: torch#2298, #31110, #37154; jax#1052, #6811, #21723.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.problem import Problem


class Loss(Problem):
    """Losses as a function, with parameters of given shapes."""

    def __init__(self, losses: Callable[..., Any], params: dict[str, Any]) -> None:
        self.losses, self.shapes = losses, {name: np.shape(value) for name, value in params.items()}

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return self.shapes

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return self.losses(xp, params, features, targets)


class Case(NamedTuple):
    losses: Callable[..., Any]
    params: dict[str, Any]
    said: list[tuple[Any, str]]
    """Gradients by the first parameter, and the verdict that each deserves."""
    features: Any = ((1.0,),)
    targets: Any = (0.0,)


rows = np.random.default_rng(7)
FEATURES = rows.standard_normal((40, 3))
LABELS = (rows.random(40) > 0.5).astype(float)
TRUE = ((0.5 - LABELS)[:, None] * FEATURES).mean(axis=0)


def stable_cross_entropy(xp: Any, p: Any, x: Any, y: Any) -> Any:
    z = x @ p["w"]
    return xp.maximum(z, xp.zeros_like(z)) - z * y + xp.log1p(xp.exp(-xp.abs(z)))


def masked(mask: float) -> Callable[..., Any]:
    return lambda xp, p, x, y: xp.logaddexp(p["w"], p["w"] + mask) * x[:, 0]


def box_cox(xp: Any, p: Any, x: Any, y: Any) -> Any:
    return xp.where(p["l"] == 0, xp.log(x[:, 0]), (x[:, 0] ** p["l"] - 1) / p["l"])


def relu(xp: Any, p: Any, x: Any, y: Any) -> Any:
    z = p["w"] * x[:, 0]
    return xp.where(z >= 0, z, 0 * z)


CASES: dict[str, Case] = {
    "kinks that cancel": Case(
        stable_cross_entropy,
        {"w": np.zeros(3)},
        [
            (TRUE, "agree"),
            (-TRUE, "wrong"),
            (0 * TRUE, "wrong"),
            (TRUE / 2, "wrong"),
            (2 * TRUE, "wrong"),
            ([0.1, -0.1, 0.2], "wrong"),
            ((0.5 * FEATURES).mean(axis=0), "wrong"),
        ],
        FEATURES,
        LABELS,
    ),
    "the tail of tanh": Case(
        lambda xp, p, x, y: xp.tanh(p["w"]) * x[:, 0], {"w": 20.0}, [(0.0, "inconclusive"), (1.0, "wrong")]
    ),
    "the tail of expm1": Case(
        lambda xp, p, x, y: xp.expm1(p["w"]) * x[:, 0], {"w": -40.0}, [(0.0, "inconclusive"), (1.0, "wrong")]
    ),
    "norm squared at 0": Case(
        lambda xp, p, x, y: xp.sqrt(xp.sum(p["w"] ** 2)) ** 2 * x[:, 0],
        {"w": [0.0, 0.0]},
        [([0.0, 0.0], "agree"), ([np.nan, np.nan], "wrong"), ([1.0, 7.0], "wrong")],
    ),
    "norm to the fourth at 0": Case(
        lambda xp, p, x, y: xp.sqrt(xp.sum(p["w"] ** 2)) ** 4 * x[:, 0],
        {"w": [0.0, 0.0]},
        [([0.0, 0.0], "agree"), ([np.nan, np.nan], "wrong"), ([1.0, 7.0], "wrong")],
    ),
    "the root of a fourth power at 0": Case(
        lambda xp, p, x, y: (xp.sqrt(p["w"] ** 4) + (p["w"] ** 4) ** 0.5) * x[:, 0],
        {"w": 0.0},
        [(0.0, "agree"), (1.0, "wrong"), (np.nan, "wrong")],
    ),
    "a power of the root of a distance at 0": Case(
        lambda xp, p, x, y: xp.sqrt(xp.abs(p["w"])) ** 4 * x[:, 0],
        {"w": 0.0},
        [(0.0, "agree"), (1.0, "wrong"), (np.nan, "wrong")],
    ),
    "powers from 0 on, at 0": Case(
        lambda xp, p, x, y: sum(p["w"] ** k for k in range(4)) * x[:, 0],
        {"w": 0.0},
        [(1.0, "agree"), (0.0, "wrong"), (np.nan, "wrong")],
    ),
    "the root of a square at 0": Case(
        lambda xp, p, x, y: ((p["w"] ** 2) ** 0.5) * x[:, 0],
        {"w": 0.0},
        [(0.0, "agree"), (1.0, "agree"), (-1.0, "agree"), (1.5, "wrong"), (np.nan, "wrong")],
    ),
    "the untaken branch": Case(
        lambda xp, p, x, y: xp.where(p["w"] >= 0, p["w"], xp.sqrt(-p["w"])) * x[:, 0],
        {"w": 1.0},
        [(1.0, "agree"), (np.nan, "wrong"), (0.5, "wrong")],
    ),
    "a mask of -1000": Case(masked(-1000.0), {"w": 0.5}, [(1.0, "agree"), (0.5, "wrong")]),
    "a mask of -1e9": Case(masked(-1e9), {"w": 0.5}, [(1.0, "agree"), (0.5, "wrong")]),
    "a mask of the smallest number": Case(
        masked(float(np.finfo(float).min)), {"w": 0.5}, [(1.0, "agree"), (0.5, "wrong")]
    ),
    "Box and Cox at 0": Case(
        box_cox, {"l": 0.0}, [(math.log(2.5) ** 2 / 2, "agree"), (0.0, "wrong"), (np.nan, "wrong")], [[2.5]]
    ),
    "expm1(z) / z at 0": Case(
        lambda xp, p, x, y: xp.where(p["z"] == 0, 1.0 + 0 * p["z"], xp.expm1(p["z"]) / p["z"]) * x[:, 0],
        {"z": 0.0},
        [(0.5, "agree"), (0.0, "wrong")],
    ),
    "ties that need not go together": Case(
        relu,
        {"w": 0.0},
        [(0.5, "agree"), (-0.5, "agree"), (0.0, "agree"), (0.6, "wrong")],
        [[1.0], [-1.0]],
        [0.0, 0.0],
    ),
    "truncation": Case(
        lambda xp, p, x, y: xp.astype(xp.astype(3 * p["w"], xp.int64), xp.float64) * p["w"] * x[:, 0],
        {"w": 1.1},
        [(3.0, "agree"), (6.6, "wrong")],
    ),
    "a slope that is known beside one that is not": Case(
        lambda xp, p, x, y: (p["k"] * xp.where(p["w"] > 0, xp.log(p["w"]), 0 * p["w"]) + p["k"]) * x[:, 0],
        {"k": 2.0, "w": 0.0},
        [(1.0, "agree"), (777.0, "wrong")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_gradient_gets_the_verdict_that_it_deserves(name: str) -> None:
    case = CASES[name]
    parameter = next(iter(case.params))
    given = {
        f"{i}": (lambda *_, g=gradient: (None, {parameter: np.array(g)})) for i, (gradient, _) in enumerate(case.said)
    }

    report = gdc.verify(
        Loss(case.losses, case.params),
        gdc.Dataset(case.features, case.targets),
        case.params,
        backends=[],
        implementations=given,
    )

    found = {entry.implementation: entry.verdict for entry in report.entries if entry.parameter == parameter}
    assert [found[f"{i}"] for i in range(len(case.said))] == [verdict for _, verdict in case.said], report.explanation()
    for entry in report.entries:
        if entry.verdict == "agree" and entry.parameter == parameter:
            assert entry.resolved[0] == entry.resolved[1]


def test_a_jump_is_told_from_a_kink() -> None:
    def threshold(xp: Any, p: Any, x: Any, y: Any) -> Any:
        z = p["w"] * x[:, 0]
        return xp.where(z >= 20, z, xp.log1p(xp.exp(z)))

    report = gdc.verify(
        Loss(threshold, {"w": 20.0}),
        gdc.Dataset([[1.0]], [0.0]),
        {"w": 20.0},
        backends=[],
        implementations={"mine": lambda *_: (None, {"w": np.array(1.0)})},
    )

    assert "a jump of the value at greater_equal" in report.entries[0].cause


WHY: dict[str, tuple[Callable[[Any, Any], Any], float, str]] = {
    "a root": (lambda xp, w: xp.sqrt(w), 0.0, "the derivative has no bound on a side of the point: sqrt "),
    "0/0": (lambda xp, w: xp.sin(w) / w, 0.0, "the budget is not finite: a division by what may be 0 "),
    "0 log 0": (lambda xp, w: w * xp.log(w), 0.0, "the derivative has no bound on a side of the point: log "),
    "a logarithm": (lambda xp, w: xp.log(w - 1), 0.0, "the formula is defined on no side of the point: log "),
}


@pytest.mark.parametrize(("function", "point", "words"), WHY.values(), ids=WHY)
def test_where_nothing_is_known_the_operation_and_its_line_are_named(
    function: Callable[[Any, Any], Any], point: float, words: str, dtype: str
) -> None:
    report = gdc.verify(
        Loss(lambda xp, p, x, y: function(xp, p["w"]) * x[:, 0], {"w": point}),
        gdc.Dataset([[1.0]], [0.0]),
        {"w": point},
        backends=[],
        implementations={"mine": lambda *_: (None, {"w": np.array(1.0, dtype=dtype)})},
        dtype=dtype,
    )

    assert report.verdict == "inconclusive"
    assert report.entries[0].cause.startswith(f"{words}(test_from_practice.py:")


def test_a_sum_of_nothing_but_rounding_is_cancellation_and_no_underflow(dtype: str) -> None:
    """log cosh x as |x| + log1p(exp(-2 |x|)), at 0: its slope is 1 - 1."""
    report = gdc.verify(
        Loss(lambda xp, p, x, y: (xp.abs(p["w"]) + xp.log1p(xp.exp(-2 * xp.abs(p["w"])))) * x[:, 0], {"w": 0.0}),
        gdc.Dataset([[1.0]], [0.0]),
        {"w": 0.0},
        backends=[],
        implementations={"mine": lambda *_: (None, {"w": np.array(0.0, dtype=dtype)})},
        dtype=dtype,
    )

    assert report.entries[0].expected == 0.0
    words = r"not resolved: cancellation: of the terms of a sum on the way back from .* \(test_from_practice.py:\d+\)"
    assert re.match(words, report.entries[0].cause)


def test_where_all_truths_are_0_there_is_no_power_to_speak_of() -> None:
    report = gdc.verify(
        Loss(lambda xp, p, x, y: (p["w"] * 0 + 1) * x[:, 0], {"w": 1.0}),
        gdc.Dataset([[1.0]], [0.0]),
        {"w": 1.0},
        backends=[],
        implementations={"mine": lambda *_: (None, {"w": np.array(0.0)})},
    )

    assert report.verdict == "agree"
    assert "no power: all truths are 0" in report.explanation()
