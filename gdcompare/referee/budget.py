"""The allowance: how far rounding may carry a correct program, element by element.

The formula runs once more on numbers that carry an error bound (`rounded`), with the unit roundoff of the dtype under
test. An automatic differentiator gets the budget of the differentiated loss, a derivation by hand that of its own
formula. Inputs count as exact in the dtype: they are rounded to it first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.dual import directional_derivatives, hessian_vector_products
from gdcompare.arithmetic.numbers import Numbers
from gdcompare.arithmetic.rounded import Rounded, RoundedNumbers
from gdcompare.arithmetic.tape import Tape, Variable, per_sample_gradients, value_and_gradient
from gdcompare.backend import Reduction, scaled_rows
from gdcompare.problem import Problem

Floats = NDArray[np.float64]


def budget_of_loss(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    dtype: str,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> tuple[Floats, dict[str, Floats]]:
    """Return what the loss and its gradient may be off by in a program that differentiates the loss formula.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> params, features, targets = {"theta_0": 0.1, "theta_1": [0.7]}, [[1.0], [3.0]], [2.0, 4.0]
    >>> loss, gradient = budget_of_loss(LinearRegression(), params, features, targets, "float64")
    >>> print(f"{loss:.1e} {gradient['theta_1'][0]:.1e}")
    2.0e-15 4.5e-15
    >>> params = {"theta_0": 1.0, "theta_1": [2.0]}  # small integers and two rows: nothing is ever rounded
    >>> loss, gradient = budget_of_loss(LinearRegression(), params, features, targets, "float64")
    >>> bool(loss < 1e-323), bool(gradient["theta_1"][0] < 1e-323)
    (True, True)
    """
    with np.errstate(all="ignore"):
        arguments = exact_inputs(dtype, params, features, targets, weights)
        loss, gradient = value_and_gradient(problem, RoundedNumbers(dtype), *arguments, reduction)
    return _budget(loss), {name: _budget(each) for name, each in gradient.items()}


def why_unbounded(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    dtype: str,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    directions: Mapping[str, ArrayLike] | None = None,
) -> tuple[str, ...]:
    """Return why errors on the way to the gradient, or to products along directions, have no bound; the first first.

    Ask where a budget is infinite: what is left out of a gradient may be among the reasons, too.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> params, features, targets = {"theta_0": 0.0, "theta_1": [1e30]}, [[1e30]], [0.0]
    >>> (why,) = why_unbounded(LinearRegression(), params, features, targets, "float32")
    >>> why.split(":")[0]  # and the line
    'a product may overflow (linear_regression.py'
    """
    numbers = RoundedNumbers(dtype)
    with np.errstate(all="ignore"):
        *point, shares = exact_inputs(dtype, params, features, targets, weights)
        if directions is None:
            arguments = (*point, shares, reduction)
            value_and_gradient(problem, numbers, *arguments)
        else:
            along = {name: np.asarray(each, dtype=dtype) for name, each in directions.items()}
            arguments = (*point, along, shares, reduction)
            hessian_vector_products(problem, numbers, *arguments)
    return tuple(numbers.unbounded)


def row_budgets_of_loss(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    dtype: str,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Floats]:
    """Return the same for per-sample gradients, `{name: (n, *shape)}`, scaled by the weights."""
    with np.errstate(all="ignore"):
        arguments = exact_inputs(dtype, params, features, targets, weights)
        gradients = per_sample_gradients(problem, RoundedNumbers(dtype), *arguments, reduction)
    return {name: _budget(each) for name, each in gradients.items()}


def budget_of_formula(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    dtype: str,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> tuple[Floats, dict[str, Floats]]:
    """Return what the loss and its gradient may be off by in a program of the problem's hand-derived formulas.

    Without weights that is `value_and_gradient`, times n for the sum; with weights, the weighted per-sample formulas.
    """
    with np.errstate(all="ignore"):
        tape, arguments, shares = formula_on_tape(RoundedNumbers(dtype), dtype, params, features, targets, weights)
        loss, gradient = gradient_of_formula(problem, tape, arguments, shares, reduction)
    loss, gradient = tape.asarray(loss), {name: tape.asarray(each) for name, each in gradient.items()}
    return _budget(loss.value[0]), {name: _budget(each.value[0]) for name, each in gradient.items()}


def gradient_of_formula(
    problem: Problem, tape: Tape, arguments: tuple[Any, Any, Any], shares: Any, reduction: Reduction
) -> tuple[Variable, dict[str, Variable]]:
    """Return the loss and the gradient of the hand-derived formulas, on the tape."""
    if shares is None:
        loss, gradient = problem.value_and_gradient(tape, *arguments)
        n = arguments[1].shape[0]
        return (loss, gradient) if reduction == "mean" else (n * loss, {key: n * g for key, g in gradient.items()})
    shares = shares / tape.sum(shares) if reduction == "mean" else shares  # w_i / sum w, or w_i
    rows = problem.per_sample_gradients(tape, *arguments)
    gradient = {name: tape.tensordot(shares, each, axes=1) for name, each in rows.items()}
    return shares @ problem.per_sample_losses(tape, *arguments), gradient


def budget_of_loss_along(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    directions: Mapping[str, ArrayLike],
    dtype: str,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> tuple[Floats, Floats]:
    """Return what the loss, (), and its derivatives along p directions, (p,), may be off by in forward mode."""
    with np.errstate(all="ignore"):
        *point, shares = exact_inputs(dtype, params, features, targets, weights)
        along = {name: np.asarray(each, dtype=dtype) for name, each in directions.items()}
        arguments = (*point, along, shares, reduction)
        loss, derivatives = directional_derivatives(problem, RoundedNumbers(dtype), *arguments)
    return _budget(loss), _budget(derivatives)


def budget_of_formula_along(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    directions: Mapping[str, ArrayLike],
    dtype: str,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> tuple[Floats, Floats]:
    """Return the same for the hand-derived gradient times the directions, summed in any order."""
    with np.errstate(all="ignore"):
        tape, arguments, shares = formula_on_tape(RoundedNumbers(dtype), dtype, params, features, targets, weights)
        loss, derivatives = formula_along(problem, tape, arguments, shares, reduction, directions, dtype)
    return _budget(loss.value[0]), _budget(derivatives.value)


def formula_along(
    problem: Problem,
    tape: Tape,
    arguments: tuple[Any, Any, Any],
    shares: Any,
    reduction: Reduction,
    directions: Mapping[str, ArrayLike],
    dtype: str,
) -> tuple[Variable, Variable]:
    """Return the loss and the hand-derived gradient times the directions, on the tape."""
    loss, gradient = gradient_of_formula(problem, tape, arguments, shares, reduction)
    terms = [each * on_tape(tape, directions[name], dtype) for name, each in gradient.items()]
    return loss, tape.sum(tape.concat([tape.reshape(each, (each.size,)) for each in terms]))


def budget_of_products(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    directions: Mapping[str, ArrayLike],
    dtype: str,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Floats]:
    """Return what Hessian-vector products along p directions, `{name: (p, *shape)}`, may be off by.

    It covers the gradient's derivative in forward mode, over reverse mode: the order in which frameworks advise it.
    """
    with np.errstate(all="ignore"):
        *point, shares = exact_inputs(dtype, params, features, targets, weights)
        along = {name: np.asarray(each, dtype=dtype) for name, each in directions.items()}
        arguments = (*point, along, shares, reduction)
        products = hessian_vector_products(problem, RoundedNumbers(dtype), *arguments)
    return {name: _budget(each) for name, each in products.items()}


def budget_of_product_formula(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    directions: Mapping[str, ArrayLike],
    dtype: str,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Floats]:
    """Return the same for the hand-derived `hessian_vector_product`; with weights, for that of the rows one by one."""
    p, n = np.shape(next(iter(directions.values())))[0], np.shape(features)[0]
    with np.errstate(all="ignore"):
        tape, (arrays, rows, goals), shares = formula_on_tape(
            RoundedNumbers(dtype), dtype, params, features, targets, weights
        )
        if shares is None:
            scaled = product_formula(problem, tape, (arrays, rows, goals), reduction, directions, dtype)
            return {name: np.broadcast_to(_budget(each.value), (p, *each.shape)) for name, each in scaled.items()}
        shares = shares / tape.sum(shares) if reduction == "mean" else shares  # w_i / sum w, or w_i
        rows, goals = (
            on_tape(tape, np.asarray(each)[:, None], dtype) for each in (features, targets)
        )  # each by itself
        budgets = []
        for i in range(p):
            along = {name: on_tape(tape, np.asarray(each)[i : i + 1], dtype) for name, each in directions.items()}
            found = problem.hessian_vector_product(tape, arrays, rows, goals, along)
            copies = {name: Variable(tape, _copies(tape, each, n)[None]) for name, each in found.items()}
            totals = {name: tape.tensordot(shares, each, axes=1) for name, each in copies.items()}
            budgets.append({name: _budget(each.value[0]) for name, each in totals.items()})
    return {name: np.stack([budget[name] for budget in budgets]) for name in arrays}


def product_formula(
    problem: Problem,
    tape: Tape,
    arguments: tuple[Any, Any, Any],
    reduction: Reduction,
    directions: Mapping[str, ArrayLike],
    dtype: str,
) -> dict[str, Variable]:
    """Return the hand-derived products with the directions, without weights, on the tape."""
    along = {name: on_tape(tape, each, dtype) for name, each in directions.items()}
    products = problem.hessian_vector_product(tape, *arguments, along)
    n = arguments[1].shape[0]
    return products if reduction == "mean" else {name: n * each for name, each in products.items()}


def on_tape(tape: Tape, values: Any, dtype: str) -> Variable:
    """Return numbers of the dtype on the tape, whose first axis is the hidden one."""
    return Variable(tape, tape.numbers.asarray(np.asarray(values, dtype=dtype)))


def _copies(tape: Tape, x: Variable, n: int) -> Any:
    """Return copies of a value along the hidden axis."""
    return tape.numbers.rearrange(lambda part: np.broadcast_to(part, (n, *x.shape)), x.value)


def row_budgets_of_formula(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    dtype: str,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Floats]:
    """Return the same for the per-sample formula, `{name: (n, *shape)}`, scaled by the weights."""
    with np.errstate(all="ignore"):
        tape, arguments, shares = formula_on_tape(RoundedNumbers(dtype), dtype, params, features, targets, weights)
        rows = scaled_rows(tape, problem.per_sample_gradients(tape, *arguments), shares, reduction)
    return {name: _budget(tape.asarray(each).value[0]) for name, each in rows.items()}


def exact_inputs(
    dtype: str, params: Mapping[str, ArrayLike], features: ArrayLike, targets: ArrayLike, weights: ArrayLike | None
) -> tuple[dict[str, Any], Any, Any, Any]:
    """Return the inputs as arrays of the dtype."""
    arrays = {name: np.asarray(value, dtype=dtype) for name, value in params.items()}
    rows, goals, shares = (None if x is None else np.asarray(x, dtype=dtype) for x in (features, targets, weights))
    return arrays, rows, goals, shares


def formula_on_tape(numbers: Numbers, dtype: str, *inputs: Any) -> tuple[Tape, tuple[Any, Any, Any], Any]:
    """Return a tape, the inputs of a formula on it, and the weights."""
    tape = Tape(numbers)
    params, *others = exact_inputs(dtype, *inputs)
    features, targets, weights = (None if each is None else tape.asarray(each) for each in others)
    return tape, ({name: tape.asarray(value) for name, value in params.items()}, features, targets), weights


def _budget(result: Rounded) -> Floats:
    """Return the error, and no less than the smallest float: the truth, if it is 0, may be known only to be smaller."""
    return np.asarray(np.maximum(result.error, np.finfo(np.float64).smallest_subnormal))
