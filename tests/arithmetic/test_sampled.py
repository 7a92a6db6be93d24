"""Sampled rounding: what is exact stays so, what is rounded moves as it does, and right programs lie within that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.arithmetic.sampled import DRAWS, Sampled, SampledNumbers
from gdcompare.arithmetic.tape import Tape
from gdcompare.backend import Backend, unit_roundoff
from gdcompare.case import Case
from gdcompare.problem import drawn_parameters
from gdcompare.referee.enclosure import enclose_products
from gdcompare.referee.point import Referee
from gdcompare.referee.sampling import (
    K,
    allowance_of,
    deviation_of,
    draws_of_formula,
    draws_of_loss,
    draws_of_products,
    row_draws_of_loss,
)
from tests.formulas import FUNCTIONS, Formula, few_rows

GENERIC = np.random.default_rng(5).uniform(1.0, 2.0, (1, 400))


def numbers(values: Any, dtype: str = "float64") -> Sampled:
    return SampledNumbers(dtype).asarray(np.asarray(values, dtype=dtype).astype(dtype))


def deviation(sampled: Sampled, truth: Any) -> float:
    """Return the root mean square of the relative deviations."""
    return float(np.sqrt(np.mean((sampled.value / truth - 1) ** 2)))


EXACT: dict[str, Callable[[Sampled], Sampled]] = {
    "small integers added": lambda x: x + 3,
    "small integers multiplied": lambda x: x * 3 - x,
    "a product of integer matrices": lambda x: x[..., None] @ x[:, None, :],
    "a sum of integers": lambda x: x.numbers.sum(x, (-1,)),
    "negation": lambda x: -x,
    "halves": lambda x: x * 0.5 / 4,
    "a comparison": lambda x: x.numbers.compare(np.less, x, x + 1, True),
    "the largest": lambda x: x.numbers.max(x),
    "tanh of 0": lambda x: x.numbers.tanh(x * 0),
}


@pytest.mark.parametrize("operation", EXACT.values(), ids=EXACT)
def test_what_is_exact_is_not_perturbed(operation: Callable[[Sampled], Sampled], dtype: str) -> None:
    result = operation(numbers([[1.0, 2.0, 3.0]], dtype))

    assert np.ptp(result.value, axis=0).max() == 0


INEXACT: dict[str, Callable[[Sampled], Sampled]] = {
    "sum": lambda x: x + 0.7,
    "product": lambda x: x * x,
    "quotient": lambda x: 1 / x,
    "exp": lambda x: x.numbers.exp(x),
    "a constant of Python's": lambda x: x.numbers.asarray(0.1)[None, None],
}


@pytest.mark.parametrize("operation", INEXACT.values(), ids=INEXACT)
def test_what_is_rounded_moves_by_the_unit_roundoff(operation: Callable[[Sampled], Sampled], dtype: str) -> None:
    x = numbers(GENERIC, dtype)

    result = operation(x)

    middle = np.mean(result.value, axis=0, keepdims=True)
    assert 0.3 < deviation(result, middle) / unit_roundoff(dtype) < 20
    assert len(result.value) == DRAWS


def test_adding_an_exact_0_and_multiplying_by_a_power_of_2_leave_a_perturbed_number_alone() -> None:
    x = numbers(GENERIC) * numbers(GENERIC)

    assert np.array_equal((x + 0.0).value, x.value)
    assert np.array_equal((x * 0.25).value, 0.25 * x.value)
    assert not np.array_equal((x + 1.0).value, x.value + 1.0)


def test_the_same_call_gives_the_same_figures() -> None:
    problem = gdc.load_problem("logistic-regression")
    data = few_rows(problem)
    point = problem, drawn_parameters(problem, data), data.features, data.targets, "float32"

    (one, _), (other, _) = draws_of_loss(*point), draws_of_loss(*point)

    assert np.array_equal(one, other)
    assert np.ptp(one) > 0


def test_a_long_sum_of_equal_signs_may_be_off_as_much_as_numpy_is() -> None:
    column = np.full((10_000, 2), 0.1, dtype=np.float32)
    error = abs(float(column.sum(axis=0)[0]) - 10_000 * float(column[0, 0]))

    summed = SampledNumbers("float32").sum(numbers(column.T[None], "float32"), (-1,))

    off = np.sqrt(np.mean((summed.value[:, 0, 0] - 10_000 * float(column[0, 0])) ** 2))
    assert error > 3 * 100 * unit_roundoff("float32") * 1000  # three times sqrt(n) u sum |terms|
    assert error < K * off < 2 * error


def test_a_function_may_be_off_to_the_same_side_for_all_its_arguments() -> None:
    x = numbers(GENERIC)

    mean = np.mean(x.numbers.exp(x).value, axis=-1)

    assert np.std(mean) / np.mean(mean) > 2 * unit_roundoff("float64")  # far more than independent draws leave of it


def test_what_rounding_may_turn_is_turned_both_ways() -> None:
    tape = SampledNumbers("float64")
    third = tape.asarray(GENERIC) * (1 / tape.asarray(GENERIC))  # 1, but for rounding

    near = tape.compare(np.less, third, tape.asarray(1.0), True)
    far = tape.compare(np.less, third, tape.asarray(1.5), True)

    assert 0.3 < near.value.mean() < 0.7
    assert far.value.tolist() == np.ones((1, GENERIC.size)).tolist()


def test_of_those_that_may_be_the_largest_any_one_is() -> None:
    tape = SampledNumbers("float64")
    one = tape.asarray(GENERIC) * (1 / tape.asarray(GENERIC))
    pairs = tape.rearrange(lambda *parts: np.stack(np.broadcast_arrays(*parts), axis=-1), one, one + 1e-17)

    shares = tape.share_of_max(pairs, "max").value

    assert np.all(shares.sum(axis=-1) == 1)
    assert 0.3 < shares[..., 0].mean() < 0.7


def test_what_leaves_the_range_of_the_dtype_is_flushed_or_unknown() -> None:
    with np.errstate(over="ignore"):
        small, large = (numbers([[x]], "float32") * numbers([[x]], "float32") for x in (1e-22, 1e25))

    assert np.ptp(small.value) > np.finfo(np.float32).tiny
    assert np.isnan(large.value).all()


def test_a_quotient_by_what_may_be_flushed_to_0_is_unknown(dtype: str) -> None:
    tiny = float(np.finfo(dtype).tiny)
    x = numbers([[1.0, 2.0, 1.0]], dtype) * tiny / (numbers([[tiny, 2.0**5 * tiny, 1.0]], dtype) * 0.9)

    assert np.isnan(x.value[:, 0]).all()
    assert np.isfinite(x.value[:, 1:]).all()


def test_a_program_whose_divisor_is_flushed_on_the_way_back_is_not_wrong() -> None:
    """a^12 / a^10: its slope has a^20, which is 0 in float32, though the slope is 2 a."""
    operation = gdc.Operation(lambda xp, a: (a**3) ** 4 / (a**2) ** 5, a=())
    infinite = {"mine": lambda *_: (None, {"a": np.array(-np.inf, dtype=np.float32)})}

    report = gdc.verify(
        operation, gdc.Dataset([[1.0]], [0.0]), {"a": 8.9e-4}, backends=[], implementations=infinite, dtype="float32"
    )

    assert report.verdict == "inconclusive"


def test_a_sum_that_overflows_in_some_order_is_unknown() -> None:
    large = numbers([[3e38, 3e38, -3e38]], "float32")

    assert np.isnan(large.numbers.sum(large, (-1,)).value).all()
    assert np.isfinite((large * 0.25).numbers.sum(large * 0.25, (-1,)).value).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_overflows_is_unknown_from_there_on_but_an_infinity_that_was_given_is_not(dtype: str) -> None:
    """exp(-x^2) is 0 for every x that is large enough, and its slope was 0 times infinity in whatever overflowed."""
    with np.errstate(all="ignore"):
        tape = SampledNumbers(dtype)
        large, mask = tape.asarray(np.full((1, 2), 1e30 if dtype == "float32" else 1e200)), tape.asarray(-np.inf)
        square = large * large

        vanished = tape.exp(-square)
        masked = tape.exp(large + mask)
        pole = 1 / (large - large)

        assert np.isnan(vanished.value).all()
        assert np.isnan(tape.chain(tape.asarray(0.0), square).value).all()
        assert np.isnan((large.numbers.sum(square, (-1,))).value).all()
        assert (masked.value == 0).all()
        assert np.isinf(pole.value).all()
        assert (tape.chain(tape.asarray(0.0), pole).value == 0).all()


def test_each_of_several_formulas_has_its_draws() -> None:
    tape = SampledNumbers("float64")
    x = tape.asarray(GENERIC) * tape.asarray(GENERIC)

    found = tape.any_of(lambda: x + 100, lambda: x + 200)

    assert np.array_equal(found.value[::2].round(-2), np.full_like(found.value[::2], 100))
    assert np.array_equal(found.value[1::2].round(-2), np.full_like(found.value[1::2], 200))


def missed(draws: NDArray[np.float64], truth: Any) -> NDArray[np.float64]:
    return allowance_of(deviation_of(draws, lambda drawn: np.abs(drawn - truth.mid)), np.abs(truth.mid))


@pytest.mark.parametrize("exponent", [-980, -600, 600, 900])
def test_the_allowance_grows_and_shrinks_with_the_draws(exponent: int) -> None:
    draws = np.random.default_rng(0).normal(size=(16, 5))

    size = np.abs(draws[0])
    scaled = allowance_of(deviation_of(np.ldexp(draws, exponent), np.abs), np.ldexp(size, exponent))

    assert np.array_equal(scaled, np.ldexp(allowance_of(deviation_of(draws, np.abs), size), exponent))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_array_function_is_known_and_agrees_with_the_truth(name: str) -> None:
    problem = Formula(FUNCTIONS[name])
    data = gdc.Dataset(np.linspace(0.5, 1.9, 12).reshape(4, 3), np.ones(4))
    referee = Referee(Case.of(problem, data, {"a": [0.9, 0.7, 0.5], "b": [0.6, 0.8, 1.0]}))

    loss, gradient = draws_of_loss(problem, referee.params, data.features, data.targets, "float64")

    for key, draws in {"loss": loss, **gradient}.items():
        truth = referee.truths[key]
        off = np.abs(draws - truth.mid) - np.where(truth.kinks, truth.rad, 0.0)
        assert np.all(off <= 1e-12 * (1 + np.abs(truth.mid)))


@pytest.mark.parametrize("name", ["divide", "pow", "expm1", "logaddexp", "tanh", "maximum", "where"])
def test_second_derivatives_are_drawn_around_the_truth(name: str) -> None:
    problem, data = Formula(FUNCTIONS[name]), gdc.Dataset(np.linspace(0.5, 1.9, 12).reshape(4, 3), np.ones(4))
    point = problem, {"a": np.array([0.9, 0.7, 0.5]), "b": np.array([0.6, 0.8, 1.0])}, data.features, data.targets
    along = {"a": np.array([[1.0, -2.0, 0.5]]), "b": np.array([[0.25, 1.0, -1.0]])}

    draws, truths = draws_of_products(*point, along, "float32"), enclose_products(*point, along)

    for key, truth in truths.items():
        largest = np.max(np.abs(truth.mid)) + 1
        assert np.all(np.abs(draws[key] - truth.mid) <= 3e-5 * largest)
        assert name in ("maximum", "where") or np.ptp(draws[key]) > 0


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["tanh-network", "gaussian-mixture"])
def test_right_programs_lie_within_a_few_deviations_and_wrong_ones_do_not(name: str, backend: Backend[Any]) -> None:
    problem = gdc.load_problem(name)
    data = few_rows(problem)
    referee = Referee(Case.of(problem, data, drawn_parameters(problem, data), backend.dtype))
    draws_of = draws_of_formula if getattr(backend, "by_hand", False) else draws_of_loss
    _, draws = draws_of(problem, referee.params, referee.features, referee.targets, backend.dtype)

    _, gradient = referee.backend_implementation(backend)(*referee.point)

    for key, each in gradient.items():
        truth = referee.truths[key]
        allowed = missed(draws[key], truth)
        assert np.all(truth.distance(each)[1] <= allowed / 2)
        wrong = each * (1 + 1e-3)
        assert np.any(truth.distance(wrong)[0] > allowed)


def test_rows_side_by_side_are_drawn_as_each_alone() -> None:
    problem = gdc.load_problem("tanh-network")
    data = few_rows(problem)
    referee = Referee(Case.of(problem, data, drawn_parameters(problem, data), "float32"))

    draws = row_draws_of_loss(problem, referee.params, referee.features, referee.targets, "float32")

    for name, each in draws.items():
        truth = referee.row_truths[name].mid
        assert each.shape == (DRAWS, *truth.shape)
        assert np.all(np.abs(each - truth) <= 1e-4 * np.max(np.abs(truth)))
        assert np.ptp(each, axis=0).max() > 0


def test_a_mask_of_the_smallest_number_leaves_an_exact_0() -> None:
    tape = Tape(SampledNumbers("float32"))
    x = tape.leaf(np.array([0.3, 0.7], dtype=np.float32))

    powers = tape.exp(x + np.array([0.0, np.finfo(np.float32).min], dtype=np.float32))

    assert np.all(powers.value.value[:, 1] == 0)
    assert np.isfinite(powers.value.value).all()
