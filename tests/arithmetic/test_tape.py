"""The reverse pass: right for every function it knows, over every number system, one gradient per row as well."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx

from gdcompare import Problem
from gdcompare.arithmetic.balls import BallNumbers, as_balls
from gdcompare.arithmetic.numbers import Floats
from gdcompare.arithmetic.tape import Tape, Variable, per_sample_gradients, value_and_gradient
from tests.formulas import FUNCTIONS, PROBLEMS, Formula, drawn, some_weights
from tests.vocabulary import VOCABULARY

POINT = {"a": np.array([0.7, 1.1, 0.6]), "b": np.array([0.9, 0.8, 1.2])}
ROWS = np.array([[1.0, 1.5, 0.75], [0.5, 1.25, 1.5]])
GOALS = np.array([0.0, 1.0])


def known_functions() -> set[str]:
    with pytest.raises(AttributeError) as error:
        Tape(Floats()).nothing  # noqa: B018 - to be told what there is
    return set(re.findall(r"\w+", str(error.value).split("it knows:")[1]))


def test_an_unknown_function_is_named_beside_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"referee has no xp\.nothing; it knows: abs, acos, .*, zeros, zeros_like"):
        Tape(Floats()).nothing(0.0)


def test_every_known_function_has_its_formula_in_these_tests() -> None:
    assert known_functions() == set(FUNCTIONS) | set(VOCABULARY)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_derivative_is_the_limit_of_difference_quotients(name: str) -> None:
    """In 256 bits, with steps of 2^-60, central differences are right to more than 25 digits."""
    problem, step = Formula(FUNCTIONS[name]), arb((1, -60))

    with ctx.workprec(256):
        _, gradient = value_and_gradient(problem, BallNumbers(), POINT, ROWS, GOALS)

        for parameter, slopes in gradient.items():
            direction = as_balls(np.array([1.0, -2.0, 3.0]))
            up, down = (
                value_and_gradient(problem, BallNumbers(), POINT | {parameter: moved}, ROWS, GOALS)[0]
                for moved in (as_balls(POINT[parameter]) + direction * way for way in (step, -step))
            )
            assert abs((up - down) / (2 * step) - slopes @ direction) < arb("1e-25"), parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_floats_and_balls_give_the_same_derivative(name: str) -> None:
    problem = Formula(FUNCTIONS[name])

    loss, gradient = value_and_gradient(problem, Floats(), POINT, ROWS, GOALS)
    with ctx.workprec(256):
        ball, enclosures = value_and_gradient(problem, BallNumbers(), POINT, ROWS, GOALS)

    assert float(loss) == pytest.approx(float(ball), rel=1e-13)
    for parameter, slopes in gradient.items():
        np.testing.assert_allclose(slopes, enclosures[parameter].astype(float), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_mean_of_the_per_sample_gradients_is_the_gradient(name: str) -> None:
    problem = Formula(FUNCTIONS[name])

    rows = per_sample_gradients(problem, Floats(), POINT, ROWS, GOALS)
    _, gradient = value_and_gradient(problem, Floats(), POINT, ROWS, GOALS)

    for parameter, slopes in gradient.items():
        assert rows[parameter].shape == (2, 3)
        np.testing.assert_allclose(rows[parameter].mean(axis=0), slopes, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_derivations_by_hand_agree_with_the_chain_rule(problem: Problem) -> None:
    generator = np.random.default_rng(3)
    point, weights = drawn(problem, generator), some_weights(generator, 7)

    loss, gradient = value_and_gradient(problem, Floats(), *point)
    rows = per_sample_gradients(problem, Floats(), *point)
    weighted_loss, weighted = value_and_gradient(problem, Floats(), *point, weights)
    weighted_rows = per_sample_gradients(problem, Floats(), *point, weights)

    loss_by_hand, by_hand = problem.value_and_gradient(np, *point)
    losses, rows_by_hand = problem.per_sample_losses(np, *point), problem.per_sample_gradients(np, *point)
    close(loss, loss_by_hand)
    close(weighted_loss, weights @ losses / weights.sum())
    for name in gradient:
        close(gradient[name], by_hand[name])
        close(rows[name], rows_by_hand[name])
        close(weighted[name], np.tensordot(weights, rows_by_hand[name], axes=1) / weights.sum())
        close(np.mean(weighted_rows[name], axis=0), weighted[name])


def test_a_parameter_that_the_loss_does_not_use_has_the_gradient_zero() -> None:
    problem = Formula(lambda xp, x, y: x * x)

    _, gradient = value_and_gradient(problem, Floats(), POINT, ROWS, GOALS)
    rows = per_sample_gradients(problem, BallNumbers(), POINT, ROWS, GOALS)

    assert gradient["b"].tolist() == [0.0, 0.0, 0.0]
    assert rows["b"].shape == (2, 3)
    assert (rows["b"] == 0).all()


@pytest.mark.parametrize("numbers", [Floats(), BallNumbers()], ids=["floats", "balls"])
def test_nothing_depends_on_the_branch_that_was_not_taken(numbers: Any) -> None:
    """log has no slope at 0, but the loss does not take that branch there; frameworks make 0 x infinity = NaN of it."""
    problem = Formula(lambda xp, x, y: xp.where(x > 0, xp.sqrt(x), y))
    point = {"a": np.array([1.0, 0.0, 4.0]), "b": np.ones(3)}

    with np.errstate(divide="ignore", invalid="ignore"):
        _, gradient = value_and_gradient(problem, numbers, point, np.ones((1, 3)), GOALS)

    assert gradient["a"].astype(float).tolist() == [0.5, 0.0, 0.75]  # 1, 2 and 3 times the slope
    assert gradient["b"].astype(float).tolist() == [0.0, 2.0, 0.0]


def test_operators_take_numpy_arrays_and_numbers_on_either_side() -> None:
    tape = Tape(Floats())
    x = tape.asarray([1.0, 2.0])

    results = [
        np.array([3.0, 4.0]) - x,
        1 / x,
        2**x,
        x @ np.array([1.0, 1.0]),
        np.eye(2) @ x,
        x & (x > 1),
        -x,
        abs(-x),
    ]

    expected = [[2, 2], [1, 0.5], [2, 4], 3, [1, 2], [0, 2], [-1, -2], [1, 2]]
    assert [result.value[0].tolist() for result in results] == expected
    assert all(isinstance(result, Variable) for result in results)


def test_a_formula_may_not_branch_on_a_value() -> None:
    with pytest.raises(TypeError, match=r"may not branch on the value of an array; use xp\.where"):
        bool(Tape(Floats()).asarray(1.0) > 0)


@pytest.mark.parametrize(
    "function",
    [np.exp, np.sum, np.mean, np.asarray, np.zeros_like, lambda x: np.add(x, 1), lambda x: np.where(x > 0, x, 0)],
    ids=["exp", "sum", "mean", "asarray", "zeros_like", "add", "where"],
)
def test_the_functions_of_numpy_refuse_what_is_on_the_tape(function: Any) -> None:
    with pytest.raises(TypeError):
        function(Tape(Floats()).asarray([1.0, 2.0]))


def test_a_formula_may_not_change_an_array_in_place() -> None:
    x = Tape(Floats()).asarray([1.0, 2.0])

    with pytest.raises(TypeError, match="in place"):
        x += 1
    with pytest.raises(TypeError, match="in place"):
        x[0] = 1
    assert x.value.tolist() == [[1.0, 2.0]]


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_way_to_differentiate_what_is_normalized_is_the_derivative(which: int) -> None:
    class Chosen(Floats):  # type: ignore[misc]  # final for those who would compute otherwise
        def any_of(self, *formulas: Any) -> Any:
            return formulas[which]()

    rng = np.random.default_rng(0)
    values, weights = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))
    gradients = []
    for tape in (Tape(Chosen()), Tape(Floats())):
        x = tape.leaf(values)
        if isinstance(tape.numbers, Chosen):
            normal = tape.normalized(x, 0.1, axis=(0, 2))
        else:
            off = x - tape.mean(x, axis=(0, 2), keepdims=True)
            normal = off / tape.sqrt(tape.mean(off * off, axis=(0, 2), keepdims=True) + 0.1)
        tape.walk_back(tape.sum(normal * weights))
        gradients.append(tape.gradient(x))

    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)
