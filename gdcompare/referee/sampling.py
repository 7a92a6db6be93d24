"""The second grade of evidence: how far rounding does carry correct programs, sampled.

The formula runs on numbers that are rounded at random (`sampled`), and what the draws miss the truth by says how large
rounding is there:

    deviation   d_i, the root mean square over the draws of (draw - truth)
    floor       a tenth of its root mean square over the array, because few draws may happen to lie close together; but
                no more than 3 max(d_i, c |t_i|), c the median of d_j / |t_j|, for an element that is small, and moves
                little, since its inputs are small
    allowance   `K` times the larger

The worst case, which `budget` proves, grows with every operation of a deep program; the deviation does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.dual import Dual, DualNumbers, directional_derivatives, hessian_vector_products
from gdcompare.arithmetic.numbers import Floats as PlainNumbers
from gdcompare.arithmetic.sampled import DRAWS, Sampled, SampledNumbers, root_mean_square
from gdcompare.arithmetic.tape import Tape, Variable, per_sample_gradients, recorded_loss
from gdcompare.backend import Reduction, scaled_rows
from gdcompare.problem import Problem
from gdcompare.referee.budget import (
    exact_inputs,
    formula_along,
    formula_on_tape,
    gradient_of_formula,
    product_formula,
)

Floats = NDArray[np.float64]

K = 12.0
"""Fixed once, for everybody, by soundness runs: in 16,715 cases of 1,194,741 elements (numpy, torch, jax; problems of
the library, tanh and relu networks of 2 to 20 layers, the tests' formulas, all at random points; both dtypes) the
largest |error| of a right gradient was 3.8 deviations, and 57 elements exceeded 2. One sum overflowed on the way, but
in no draw: since then a sum counts as infinite if the sizes of its terms add up to more than the largest number.
"""

FLOOR, OWN = 0.1, 3.0

_ROWS, _MANY_ROWS, _MANY_NUMBERS = 64, 1024, 2**21
"""Memory stays flat: so many rows are computed at once, each by itself, with draws and without; so many numbers."""


def deviation_of(draws: Floats, distance: Callable[[Floats], Floats]) -> Floats:
    """Return the deviation of the draws, (draws, *shape), from the truth, whose distance from each is given."""
    deviation = root_mean_square(distance(draws), axis=0)
    return np.where(np.isfinite(deviation), deviation, np.inf)


def allowance_of(deviation: Floats, size: Floats) -> Floats:
    """Return K deviations for elements whose truths have that size, none of them taken for less than the floor."""
    finite = deviation[np.isfinite(deviation)]
    floor = np.full(deviation.shape, FLOOR * root_mean_square(finite) if finite.size else 0.0)
    known, typical = typical_share(deviation, size)
    floor = np.where(known, np.minimum(floor, OWN * np.maximum(deviation, typical * size)), floor)
    return np.asarray(np.maximum(K * np.maximum(deviation, floor), np.finfo(np.float64).smallest_subnormal))


def typical_share(deviation: Floats, size: Floats) -> tuple[NDArray[np.bool_], float]:
    """Return which elements have both a deviation and a size, and the median of d_j / |t_j| over them.

    >>> typical_share(np.array([0.0, 1e-7, 3e-7, 2e-7]), np.array([5.0, 1.0, 1.0, 0.0]))
    (array([False,  True,  True, False]), 2e-07)
    """
    known = (size > 0) & np.isfinite(size) & (deviation > 0) & np.isfinite(deviation)
    return known, float(np.median(deviation[known] / size[known])) if known.any() else 0.0


# The draws: each function returns what programs of the formula compute, the draws along the first axis.


def draws_of_loss(
    problem: Problem,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    dtype: str,
    weights: Any = None,
    reduction: Reduction = "mean",
    numbers: SampledNumbers | None = None,
    make: Callable[..., SampledNumbers] = SampledNumbers,
) -> tuple[Floats, dict[str, Floats]]:
    """Of the loss, (draws,), and its gradient, `{name: (draws, *shape)}`, where the loss is differentiated."""
    params, features, targets, weights = exact_inputs(dtype, params, features, targets, weights)

    def run(numbers: SampledNumbers) -> tuple[Floats, dict[str, Floats]]:
        tape = Tape(numbers)
        leaves = {name: tape.leaf(value) for name, value in params.items()}
        loss = recorded_loss(problem, tape, leaves, features, targets, weights, reduction)
        tape.walk_back(loss)
        return _drawn(loss.value), {name: _drawn(tape.gradient(leaf)) for name, leaf in leaves.items()}

    with np.errstate(all="ignore"):
        return _in_parts(run, dtype, features.size, make) if numbers is None else run(numbers)


def draws_of_formula(
    problem: Problem,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    dtype: str,
    weights: Any = None,
    reduction: Reduction = "mean",
) -> tuple[Floats, dict[str, Floats]]:
    """Of the same by the hand-derived formulas."""

    def run(numbers: SampledNumbers) -> tuple[Floats, dict[str, Floats]]:
        tape, arguments, shares = formula_on_tape(numbers, dtype, params, features, targets, weights)
        loss, gradient = gradient_of_formula(problem, tape, arguments, shares, reduction)
        found = {name: _drawn(tape.asarray(each).value) for name, each in gradient.items()}
        return _drawn(tape.asarray(loss).value), found

    with np.errstate(all="ignore"):
        return _in_parts(run, dtype, np.size(features))


def _in_parts(
    run: Callable[[SampledNumbers], tuple[Floats, dict[str, Floats]]],
    dtype: str,
    size: int,
    make: Callable[..., SampledNumbers] = SampledNumbers,
) -> tuple[Floats, dict[str, Floats]]:
    """Draw all at once, or a few after a few where the data are large."""
    draws = min(DRAWS, max(4, _MANY_NUMBERS // max(size, 1)))
    parts = [run(make(dtype, min(draws, DRAWS - first), first=first)) for first in range(0, DRAWS, draws)]
    losses, gradients = zip(*parts, strict=True)
    return np.concatenate(losses), {name: np.concatenate([each[name] for each in gradients]) for name in gradients[0]}


def row_draws_of_loss(
    problem: Problem,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    dtype: str,
    weights: Any = None,
    reduction: Reduction = "mean",
) -> dict[str, Floats]:
    """Of the per-sample gradients, `{name: (draws, n, *shape)}`, where the loss of each row is differentiated."""
    with np.errstate(all="ignore"):
        params, features, targets, weights = exact_inputs(dtype, params, features, targets, weights)
        blocks: dict[str, list[Floats]] = {name: [] for name in params}
        for start in range(0, len(features), _ROWS):
            rows, goals = (
                np.repeat(each[start : start + _ROWS], DRAWS, axis=0)  # each row's draws beside each other
                for each in (features, targets)
            )
            numbers = SampledNumbers(dtype, rows=len(rows) // DRAWS)
            for name, each in per_sample_gradients(problem, numbers, params, rows, goals).items():
                drawn = np.broadcast_to(each.value, (len(rows), *each.shape[1:]))
                blocks[name].append(np.moveaxis(drawn.reshape(-1, DRAWS, *each.shape[1:]), 0, 1))
        found = {name: np.concatenate(each, axis=1) for name, each in blocks.items()}
        if weights is None:
            return found
        numbers = SampledNumbers(dtype)
        tape = Tape(numbers)
        on_tape = {name: Variable(tape, Sampled(each, False, numbers)) for name, each in found.items()}
        scaled = scaled_rows(tape, on_tape, tape.asarray(weights), reduction)
        return {name: _drawn(each.value) for name, each in scaled.items()}


def row_draws_of_formula(
    problem: Problem,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    dtype: str,
    weights: Any = None,
    reduction: Reduction = "mean",
) -> dict[str, Floats]:
    """Of the same by the hand-derived formula."""
    with np.errstate(all="ignore"):
        numbers = SampledNumbers(dtype)
        tape, arguments, shares = formula_on_tape(numbers, dtype, params, features, targets, weights)
        rows = scaled_rows(tape, problem.per_sample_gradients(tape, *arguments), shares, reduction)
        return {name: _drawn(tape.asarray(each).value) for name, each in rows.items()}


def draws_of_loss_along(
    problem: Problem,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    directions: Mapping[str, Any],
    dtype: str,
    weights: Any = None,
    reduction: Reduction = "mean",
) -> tuple[Floats, Floats]:
    """Of the loss, (draws,), and its derivatives along p directions, (draws, p), in forward mode."""
    loss, _ = draws_of_loss(problem, params, features, targets, dtype, weights, reduction)
    with np.errstate(all="ignore"):
        arrays, rows, goals, shares = exact_inputs(dtype, params, features, targets, weights)
        along = [
            directional_derivatives(problem, SampledNumbers(dtype), arrays, rows, goals, each, shares, reduction)[1]
            for each in _one_by_one(directions, dtype)
        ]
        return loss, np.stack([_drawn(each) for each in along], axis=1)


def draws_of_formula_along(
    problem: Problem,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    directions: Mapping[str, Any],
    dtype: str,
    weights: Any = None,
    reduction: Reduction = "mean",
) -> tuple[Floats, Floats]:
    """Of the same by the hand-derived gradient times one direction, (draws, 1)."""
    with np.errstate(all="ignore"):
        tape, arguments, shares = formula_on_tape(SampledNumbers(dtype), dtype, params, features, targets, weights)
        loss, derivative = formula_along(problem, tape, arguments, shares, reduction, directions, dtype)
        return _drawn(loss.value), _drawn(derivative.value)[:, None]


def draws_of_products(
    problem: Problem,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    directions: Mapping[str, Any],
    dtype: str,
    weights: Any = None,
    reduction: Reduction = "mean",
) -> dict[str, Floats]:
    """Of Hessian-vector products along p directions, `{name: (draws, p, *shape)}`."""
    with np.errstate(all="ignore"):
        arrays, rows, goals, shares = exact_inputs(dtype, params, features, targets, weights)
        found = [
            hessian_vector_products(problem, SampledNumbers(dtype), arrays, rows, goals, each, shares, reduction)
            for each in _one_by_one(directions, dtype)
        ]
        return {name: np.stack([_drawn(each[name]) for each in found], axis=1) for name in params}


def draws_of_product_formula(
    problem: Problem,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    directions: Mapping[str, Any],
    dtype: str,
    weights: Any = None,
    reduction: Reduction = "mean",
) -> dict[str, Floats]:
    """Of the hand-derived products; with weights that is the formula for each row, and nothing is drawn for it."""
    p = len(next(iter(directions.values())))
    if weights is not None:
        return {name: np.full((1, p, *np.shape(value)), np.inf) for name, value in params.items()}
    found = []
    with np.errstate(all="ignore"):
        for i in range(p):
            tape, arguments, _ = formula_on_tape(SampledNumbers(dtype), dtype, params, features, targets, None)
            one = {name: np.asarray(each)[i : i + 1] for name, each in directions.items()}
            products = product_formula(problem, tape, arguments, reduction, one, dtype)
            found.append({name: _drawn(each.value) for name, each in products.items()})
    return {name: np.stack([each[name] for each in found], axis=1) for name in params}


def _drawn(sampled: Sampled) -> Floats:
    """Return an array of draws, also of what no draw has touched."""
    numbers = sampled.numbers
    return np.broadcast_to(sampled.value, (numbers.draws, *sampled.shape[1:]))


def _one_by_one(directions: Mapping[str, Any], dtype: str) -> Iterator[dict[str, Floats]]:
    """Yield each of the directions, a copy for each draw."""
    for i in range(len(next(iter(directions.values())))):
        copies = {name: np.asarray(each, dtype=dtype)[i] for name, each in directions.items()}
        yield {name: np.broadcast_to(each, (DRAWS, *each.shape)) for name, each in copies.items()}


# The size of what adds up: an element may be small because its terms cancel, and is then no less certain.


def magnitudes(
    problem: Problem,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    weights: Any = None,
    reduction: Reduction = "mean",
    direction: Mapping[str, Any] | None = None,
) -> tuple[Floats, dict[str, Floats]]:
    """Return the mean, or sum, of |l_i| and of |dl_i / dparameter|, or of the Hessian of l_i times a direction.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> params, features, targets = {"theta_0": 1.0, "theta_1": [0.0]}, [[1.0], [3.0]], [0.0, 2.0]
    >>> loss, gradient = magnitudes(LinearRegression(), params, features, targets)  # of the residuals 1 and -1
    >>> float(loss), float(gradient["theta_0"])  # whose mean is 0
    (1.0, 2.0)
    """
    own = np.ones(len(features)) if weights is None else np.asarray(weights, dtype=np.float64)
    totals: dict[str, Any] = {}
    losses: Any = 0.0
    with np.errstate(all="ignore"):
        size = sum(np.size(value) for value in params.values())
        step = min(_MANY_ROWS, max(1, _MANY_NUMBERS // size))
        for start in range(0, len(own), step):
            here = slice(start, start + step)
            rows, goals = (np.asarray(each, dtype=np.float64)[here] for each in (features, targets))
            of_rows, gradients = _row_by_row(problem, params, rows, goals, direction)
            losses = losses + own[here] @ np.abs(of_rows)
            for name, each in gradients.items():
                totals[name] = totals.get(name, 0.0) + np.tensordot(own[here], np.abs(each), axes=1)
        share = 1 / np.sum(own) if reduction == "mean" else 1.0
        return np.asarray(share * losses), {name: np.asarray(share * total) for name, total in totals.items()}


def _row_by_row(
    problem: Problem, params: Mapping[str, Any], features: Floats, targets: Floats, direction: Mapping[str, Any] | None
) -> tuple[Floats, dict[str, Floats]]:
    """Return l_i, (n,), and its gradient or Hessian times the direction, `{name: (n, *shape)}`."""
    n, duals = len(features), DualNumbers(PlainNumbers())
    tape = Tape(PlainNumbers() if direction is None else duals)
    leaves = {name: tape.leaf(value) for name, value in params.items()}
    rows, goals = (Variable(tape, tape.numbers.asarray(each)[:, None]) for each in (features, targets))
    if direction is not None:
        for name, leaf in leaves.items():
            leaf.value = Dual(duals, leaf.value.value, np.asarray(direction[name], dtype=np.float64)[None])
    losses = problem.per_sample_losses(tape, leaves, rows, goals)
    tape.walk_back(losses)
    found = {name: tape.gradient(leaf, n) for name, leaf in leaves.items()}
    if direction is None:
        return np.broadcast_to(losses.value, (n, 1))[:, 0], found
    return np.broadcast_to(losses.value.value, (n, 1))[:, 0], {
        name: np.broadcast_to(each.along(n), (n, *each.shape[1:])) for name, each in found.items()
    }
