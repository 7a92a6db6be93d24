"""Conventions at kinks: every backend's is in the hull of the one-sided derivatives, and a NaN is not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.referee.conventions import KINKS, ONE_ROW, AtKink, Convention, convention, conventions, what_each_gives

UNTAKEN, INFINITE = "where(x > 0, sqrt(x), x) at -1", "sqrt(x) at 0"
TOGETHER = "max(x, 0) + log1p(exp(-abs(x))) at 0"
BENDING = [operation for operation in KINKS if operation not in (UNTAKEN, INFINITE, TOGETHER)]


@pytest.mark.parametrize("operation", BENDING)
def test_every_backends_convention_is_a_right_derivative(backend: gdc.Backend[Any], operation: str) -> None:
    assert convention(operation, backend).inside is True


@pytest.mark.parametrize("operation", BENDING)
def test_the_report_agrees_with_the_table(backend: gdc.Backend[Any], operation: str) -> None:
    report = gdc.verify(AtKink(operation), ONE_ROW, {"x": KINKS[operation].at}, backends=[backend], dtype=backend.dtype)

    report.assert_agree()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("operation", "hull"),
    [
        ("max(x, 0) at 0", ((0, 1),)),
        ("where(x > 0, x, 0) at 0", ((0, 1),)),
        ("abs(x) at 0", ((-1, 1),)),
        ("max(a, b), a = b", ((0, 1), (0, 1))),
        ("min(a, b), a = b", ((0, 1), (0, 1))),
        ("max of (1, 1, 0)", ((0, 1), (0, 1), (0, 0))),
        ("clip(x, 0, 1) at 0", ((0, 1),)),
        ("clip(x, 0, 1) at 1", ((0, 1),)),
        ("sign(x) at 0", ((0, 0),)),
        (TOGETHER, ((0.5, 0.5),)),
        (INFINITE, ((-math.inf, math.inf),)),
        (UNTAKEN, ((1, 1),)),
    ],
)
def test_the_hull_spans_the_one_sided_derivatives(operation: str, hull: tuple[tuple[float, float], ...]) -> None:
    assert convention(operation, gdc.load_backend("numpy")).hull == hull


# Measured with torch 2.13 and jax 0.10.
@pytest.mark.parametrize(
    ("name", "operation", "derivative"),
    [
        ("torch", "max(x, 0) at 0", (0.5,)),
        ("torch", "abs(x) at 0", (0.0,)),
        ("torch", "max(a, b), a = b", (0.5, 0.5)),
        ("torch", "max of (1, 1, 0)", (0.5, 0.5, 0.0)),
        ("torch", "clip(x, 0, 1) at 0", (1.0,)),
        ("torch", "clip(x, 0, 1) at 1", (1.0,)),
        ("jax", "max(x, 0) at 0", (0.5,)),
        ("jax", "max(a, b), a = b", (0.5, 0.5)),
        ("jax", "max of (1, 1, 0)", (0.5, 0.5, 0.0)),
        ("jax", "clip(x, 0, 1) at 0", (0.5,)),
        ("jax", "clip(x, 0, 1) at 1", (0.5,)),
        ("numpy", "max(x, 0) at 0", (0.0,)),
        ("numpy", "max(a, b), a = b", (1.0, 0.0)),
        ("numpy", "max of (1, 1, 0)", (1.0, 0.0, 0.0)),
        ("numpy", "clip(x, 0, 1) at 1", (1.0,)),
    ],
)
def test_the_known_conventions(name: str, operation: str, derivative: tuple[float, ...]) -> None:
    pytest.importorskip(name, reason=f"the convention is {name}'s")

    assert convention(operation, gdc.load_backend(name)).derivative == derivative


def test_a_nan_in_the_branch_that_is_not_taken_spoils_most_automatic_gradients(backend: gdc.Backend[Any]) -> None:
    found = convention(UNTAKEN, backend)

    assert math.isnan(found.derivative[0]) or found.derivative == (1.0,)
    assert found.inside is not math.isnan(found.derivative[0])  # the slope at sqrt(-1) has no part in the budget
    assert found.inside or not backend.by_hand


def test_of_an_infinite_slope_nothing_is_claimed(backend: gdc.Backend[Any]) -> None:
    found = convention(INFINITE, backend)

    assert found.inside is None
    assert found.derivative == (math.inf,)


def test_of_two_ties_that_belong_together_a_convention_for_each_may_be_wrong() -> None:
    """jax 0.10 has a half for the maximum, and 1 for abs: 1/2 - 1/2, where the slope is 1/2."""
    pytest.importorskip("jax", reason="the convention is JAX's")

    assert convention(TOGETHER, gdc.load_backend("numpy")).inside is True
    found = convention(TOGETHER, gdc.load_backend("jax"))
    assert (found.derivative, found.inside) == ((0.0,), False)


def test_what_lies_outside_the_hull_is_wrong() -> None:
    def steep(params: Any, features: Any, targets: Any) -> Any:
        return None, {"x": np.array([1.001])}

    report = gdc.verify(AtKink("max(x, 0) at 0"), ONE_ROW, {"x": [0.0]}, backends=[], implementations={"": steep})

    assert report.verdict == "wrong"


@pytest.mark.thorough
def test_the_table_has_a_row_for_each_operation_and_a_column_for_each_backend() -> None:
    columns, rows = what_each_gives(conventions())

    assert columns == ["operation", "right", *gdc.backend_names()]
    assert [row[0] for row in rows] == [*KINKS]
    assert {len(row) for row in rows} == {len(columns)}


def test_the_table_marks_what_is_wrong_and_what_is_unknown() -> None:
    given = [
        Convention("f", "a", (math.nan,), ((0.0, 1.0),), False),
        Convention("f", "b", (0.5, 0.25), ((0.0, 1.0),), True),
        Convention("g", "a", (math.inf,), ((-math.inf, math.inf),), None),
    ]

    _, rows = what_each_gives(given)

    assert rows == [["f", "[0, 1]", "nan wrong", "0.5, 0.25"], ["g", "unknown", "inf ?", "-"]]
