"""Dual numbers: right for every function of the tape, over every number system, along many directions at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flint import arb, ctx

from gdcompare import Problem
from gdcompare.arithmetic.balls import BallNumbers, as_balls
from gdcompare.arithmetic.dual import directional_derivatives, hessian_vector_products
from gdcompare.arithmetic.numbers import Floats
from gdcompare.arithmetic.rounded import RoundedNumbers
from gdcompare.arithmetic.tape import value_and_gradient
from tests.arithmetic.test_tape import GOALS, POINT, ROWS
from tests.formulas import FUNCTIONS, PROBLEMS, Formula, drawn, some_weights

DIRECTIONS = {"a": np.array([[1.0, -2.0, 3.0], [0.0, 1.0, 0.0]]), "b": np.array([[0.5, 1.0, -1.0], [0.0, 0.0, 0.0]])}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_along_a_direction_are_limits_of_difference_quotients(name: str) -> None:
    """In 256 bits, with steps of 2^-60, central differences are right to more than 25 digits."""
    problem, step = Formula(FUNCTIONS[name]), arb((1, -60))

    with ctx.workprec(256):
        _, along = directional_derivatives(problem, BallNumbers(), POINT, ROWS, GOALS, DIRECTIONS)
        products = hessian_vector_products(problem, BallNumbers(), POINT, ROWS, GOALS, DIRECTIONS)

        for i in range(2):
            up, down = (
                value_and_gradient(
                    problem,
                    BallNumbers(),
                    {key: as_balls(POINT[key]) + as_balls(DIRECTIONS[key][i]) * way for key in POINT},
                    ROWS,
                    GOALS,
                )
                for way in (step, -step)
            )
            assert abs((up[0] - down[0]) / (2 * step) - along[i]) < arb("1e-25")
            for key in POINT:
                quotients = (up[1][key] - down[1][key]) / (2 * step)
                assert (abs(quotients - products[key][i]) < arb("1e-25")).all(), key


@pytest.mark.parametrize("name", FUNCTIONS)
def test_floats_and_rounded_numbers_are_near_the_balls(name: str) -> None:
    problem = Formula(FUNCTIONS[name])

    floats = hessian_vector_products(problem, Floats(), POINT, ROWS, GOALS, DIRECTIONS)
    with np.errstate(all="ignore"):
        rounded = hessian_vector_products(problem, RoundedNumbers("float64"), POINT, ROWS, GOALS, DIRECTIONS)
    with ctx.workprec(256):
        balls = hessian_vector_products(problem, BallNumbers(), POINT, ROWS, GOALS, DIRECTIONS)

    for key, exact in balls.items():
        truth = exact.astype(float)
        np.testing.assert_allclose(floats[key], truth, rtol=1e-11, atol=1e-12)
        assert (np.abs(rounded[key].value - truth) <= rounded[key].spread + 1e-15 * np.abs(truth)).all()
        if name not in ("equal", "not_equal"):  # whether x = x is not known of a rounded x
            assert (rounded[key].error <= 1e-12 * (1 + np.abs(truth))).all()
        assert (np.abs(floats[key] - truth) <= rounded[key].error + 1e-300).all()


@pytest.mark.parametrize("weighted", [False, True], ids=["mean", "weighted"])
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_the_directional_derivative_is_the_gradient_times_the_direction(problem: Problem, weighted: bool) -> None:
    generator = np.random.default_rng(3)
    point = drawn(problem, generator)
    weights = some_weights(generator, 7) if weighted else None
    directions = {key: generator.normal(size=(3, *value.shape)) for key, value in point[0].items()}

    loss, along = directional_derivatives(problem, Floats(), *point, directions, weights)

    expected, gradient = value_and_gradient(problem, Floats(), *point, weights)
    assert float(loss) == float(expected)
    products = [np.tensordot(directions[key], gradient[key], gradient[key].ndim) for key in gradient]
    np.testing.assert_allclose(along, sum(products), rtol=1e-12)


@pytest.mark.parametrize("numbers", [Floats(), BallNumbers()], ids=["floats", "balls"])
def test_nothing_depends_twice_on_the_branch_that_was_not_taken(numbers: Any) -> None:
    """Neither the logarithm nor the root has a slope at 0, but the loss does not take that branch there."""
    problem = Formula(lambda xp, x, y: xp.where(x > 0, xp.log(xp.sqrt(x)), y * y))
    point = {"a": np.array([1.0, 0.0, 4.0]), "b": np.ones(3)}
    along = {key: np.ones((1, 3)) for key in point}

    with np.errstate(divide="ignore", invalid="ignore"):
        products = hessian_vector_products(problem, numbers, point, np.ones((1, 3)), GOALS, along)

    assert products["a"].astype(float).tolist() == [[-0.5, 0.0, -3 / 32]]  # 1, 2 and 3 times -1 / (2 x^2)
    assert products["b"].astype(float).tolist() == [[0.0, 4.0, 0.0]]


@pytest.mark.parametrize("numbers", [Floats(), BallNumbers()], ids=["floats", "balls"])
def test_a_power_is_differentiated_by_base_and_exponent_where_the_exponent_is_0(numbers: Any) -> None:
    """d2 x^y / dx dy = x^(y - 1) (1 + y log x) is 1 / x there, on either side of the diagonal."""
    problem = Formula(lambda xp, x, y: x**y)
    point = {"a": np.full(3, 2.0), "b": np.zeros(3)}
    by_a, by_b = ({key: np.full((1, 3), float(key == name)) for key in point} for name in point)

    mixed = [
        hessian_vector_products(problem, numbers, point, np.ones((1, 3)), GOALS, along)[other]
        for along, other in ((by_a, "b"), (by_b, "a"))
    ]

    for found in mixed:
        np.testing.assert_allclose(found.astype(float), [[0.5, 1.0, 1.5]], rtol=1e-15)  # 1, 2 and 3 times 1 / x


def test_what_depends_on_no_parameter_has_the_derivative_zero() -> None:
    problem = Formula(lambda xp, x, y: x)

    products = hessian_vector_products(problem, Floats(), POINT, ROWS, GOALS, DIRECTIONS)

    assert {key: value.tolist() for key, value in products.items()} == dict.fromkeys("ab", [[0.0] * 3] * 2)
