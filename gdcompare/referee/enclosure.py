"""The truth: proven enclosures of the exact loss and its gradient, in Arb balls.

A ball `mid ± rad` contains the exact number, whatever was rounded on the way. The loss formula runs over NumPy arrays
of balls, from the exact float inputs, through the reverse pass of `reverse`; the precision doubles until every radius
is negligible. A formula's constants are the floats that Python makes of them.

At a kink (relu at 0, a tie for the largest, |x| at 0, the edge of a clip or of a condition) the derivative is a set:
the limits of the gradients beside the point, and what lies between them (`limits`). So it is, though often of one
member, wherever the formula at the point hangs on an equality, or is 0/0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from flint import ctx
from numpy.typing import ArrayLike

from gdcompare.arithmetic.balls import BallNumbers, Kink, boxed
from gdcompare.arithmetic.dual import directional_derivatives, hessian_vector_products
from gdcompare.arithmetic.quick_balls import PRECISION, QuickBalls, UndecidedError, as_quick_balls
from gdcompare.arithmetic.quick_numbers import QuickNumbers, choices, joined
from gdcompare.arithmetic.tape import per_sample_gradients, value_and_gradient
from gdcompare.backend import Reduction
from gdcompare.problem import Problem
from gdcompare.referee.enclosed import Enclosed, Floats, wide
from gdcompare.referee.limits import Compute, Sides

__all__ = ["Enclosed", "Enclosure", "enclose", "enclose_along", "enclose_products", "enclose_quickly", "enclose_rows"]

LOSS = "loss"

FEW = 4000
"""With so many products or less, of rows with parameters, Arb is done before NumPy has begun."""


@final
@dataclass(frozen=True, eq=False)
class Enclosure:
    """The truth about a loss and its gradient."""

    loss: Enclosed
    gradient: dict[str, Enclosed]
    precision: int
    """The bits at which the search ended."""
    narrow: bool
    """Whether every radius is negligible; if not, some truth is a hull, or unknown at the precision allowed."""
    kinks: tuple[Kink, ...]
    sides: Sides | None = None
    """Where the formula at the point does not say the derivative: the limits from its sides."""

    def over(self, weights: ArrayLike) -> Enclosure:
        """Return the truth about the mean, of that about a sum without sides; one number is the sum of all weights."""
        total = QuickNumbers().sum(as_quick_balls(np.ravel(weights)), (-1,))[0]
        with np.errstate(all="ignore"):
            means = {name: replace(each, known=each.quick / total) for name, each in self.gradient.items()}
            return replace(self, loss=replace(self.loss, known=self.loss.quick / total), gradient=means)


def enclose(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    *,
    budgets: Mapping[str, ArrayLike] | None = None,
    precision: int = 128,
    limit: int = 4096,
) -> Enclosure:
    """Return the proven loss and gradient of the mean or sum over rows, weighted or not, at these exact floats.

    A radius is negligible beside 2^-20 of the element's budget, 2^-80 of its size, or 2^-1100, which no float can see.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> params, features, targets = {"theta_0": 1.0, "theta_1": [0.0]}, [[1.0], [3.0]], [2.0, 4.0]
    >>> truth = enclose(LinearRegression(), params, features, targets)
    >>> truth.gradient["theta_1"].mid.tolist(), truth.gradient["theta_1"].rad.tolist(), truth.narrow
    ([-10.0], [0.0], True)
    """

    def compute(numbers: BallNumbers, at: Mapping[str, Any]) -> list[Any]:
        loss, gradient = value_and_gradient(problem, numbers, at, features, targets, weights, reduction)
        return [loss, *gradient.values()]

    allowed = {name: (budgets or {}).get(name, 0.0) for name in (LOSS, *params)}
    truths, precision, sides = _search(compute, params, allowed, precision, limit, has_loss=True)
    narrow = not any(wide(truths[name].balls, budget).any() for name, budget in allowed.items())
    loss = truths.pop(LOSS)
    return Enclosure(loss, truths, precision, narrow, () if sides is None else sides.kinks, sides)


def enclose_quickly(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    *,
    budgets: Mapping[str, ArrayLike],
) -> Enclosure | None:
    """Return the same by balls in floats, if these are narrow enough; None where Arb is needed, or is as quick.

    It is where a radius is not negligible beside 2^-20 of the budget, or the formula hangs on what is undecided, or
    equal, or infinite. What is the same whichever is chosen of those that tie, the first, the last or by chance, is so
    from all sides: a gradient is linear in each share. So it is in a blank corner of an image, where windows are alike.
    """
    if len(np.asarray(features)) * sum(np.size(each) for each in params.values()) <= FEW:
        return None
    allowed = {name: 2.0**-20 * np.asarray(each, dtype=np.float64) for name, each in budgets.items()}

    def found(numbers: QuickNumbers) -> dict[str, QuickBalls] | None:
        try:
            with np.errstate(all="ignore"):
                loss, gradient = value_and_gradient(problem, numbers, params, features, targets, weights, reduction)
        except UndecidedError:
            return None
        return {LOSS: loss, **gradient}

    def narrow(balls: Mapping[str, QuickBalls]) -> bool:
        return all(bool((np.isfinite(x.high + x.rad) & (x.rad <= allowed[name])).all()) for name, x in balls.items())

    numbers = QuickNumbers()
    balls = found(numbers)
    if balls is None or (numbers.kinks and not narrow(balls)):
        ways = [QuickNumbers(choose) for choose in choices()]
        chosen, numbers = [found(each) for each in ways], ways[0]
        if all(each is not None and narrow(each) for each in chosen):
            balls = {name: joined([each[name] for each in chosen if each]) for name in chosen[0] or {}}
    if balls is None or not narrow(balls):
        return None
    truths = {name: Enclosed(each, np.zeros(each.shape, dtype=bool)) for name, each in balls.items()}
    return Enclosure(truths.pop(LOSS), truths, PRECISION, True, tuple(numbers.kinks))


def enclose_rows(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    *,
    budgets: Mapping[str, ArrayLike] | None = None,
    precision: int = 128,
    limit: int = 4096,
) -> dict[str, Enclosed]:
    """Return the proven per-sample gradients, `{name: (n, *shape)}`, scaled by the weights."""

    def compute(numbers: BallNumbers, at: Mapping[str, Any]) -> list[Any]:
        return list(per_sample_gradients(problem, numbers, at, features, targets, weights, reduction).values())

    allowed = {name: (budgets or {}).get(name, 0.0) for name in params}
    return _search(compute, params, allowed, precision, limit, by_row=True)[0]


def enclose_along(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    directions: Mapping[str, ArrayLike],
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    *,
    budgets: Mapping[str, ArrayLike] | None = None,
    precision: int = 128,
    limit: int = 4096,
) -> tuple[Enclosed, Enclosed]:
    """Return the proven loss, (), and its derivative along each of p directions `{name: (p, *shape)}`, (p,)."""

    def compute(numbers: BallNumbers, at: Mapping[str, Any]) -> list[Any]:
        return list(directional_derivatives(problem, numbers, at, features, targets, directions, weights, reduction))

    allowed = {name: (budgets or {}).get(name, 0.0) for name in (LOSS, "derivative")}
    truths, _, _ = _search(
        compute, params, allowed, precision, limit, has_loss=True, directions=_one_by_one(directions)
    )
    return truths[LOSS], truths["derivative"]


def enclose_products(
    problem: Problem,
    params: Mapping[str, ArrayLike],
    features: ArrayLike,
    targets: ArrayLike,
    directions: Mapping[str, ArrayLike],
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    *,
    budgets: Mapping[str, ArrayLike] | None = None,
    precision: int = 128,
    limit: int = 4096,
) -> dict[str, Enclosed]:
    """Return the proven Hessian-vector products along each of p directions, `{name: (p, *shape)}`.

    At a kink they are the one-sided second derivatives, and what lies between them. Where the gradient jumps it has no
    derivative, and what a program makes of its conventions for the gradient is not known to be wrong.
    """

    def compute(numbers: BallNumbers, at: Mapping[str, Any]) -> list[Any]:
        arguments = (at, features, targets, directions, weights, reduction)
        return list(hessian_vector_products(problem, numbers, *arguments).values())

    allowed = {name: (budgets or {}).get(name, 0.0) for name in params}
    products, _, sides = _search(compute, params, allowed, precision, limit)
    if sides is None or sides.certain:
        return products
    first = enclose(problem, params, features, targets, weights, reduction, precision=precision, limit=limit).gradient
    reason = f"the gradient bends or jumps, and has no one derivative: {sides.places}"
    for name, truth in products.items():
        jumps = np.broadcast_to(first[name].kinks, truth.kinks.shape) | truth.kinks  # nobody asks for more sides
        if jumps.any():
            unsure = jumps if truth.unsure is None else jumps | truth.unsure
            products[name] = replace(truth, unsure=unsure, reason=truth.reason or reason)
    return products


def _one_by_one(directions: Mapping[str, ArrayLike]) -> list[dict[str, Any]]:
    """Return the directions that share a first axis as directions of their own."""
    count = len(np.asarray(next(iter(directions.values()))))
    return [{name: np.asarray(each)[i] for name, each in directions.items()} for i in range(count)]


def _search(
    compute: Compute,
    params: Mapping[str, ArrayLike],
    allowed: Mapping[str, ArrayLike],
    precision: int,
    limit: int,
    **how: Any,
) -> tuple[dict[str, Enclosed], int, Sides | None]:
    """Double the precision until all radii are negligible; if they do not shrink, look beside the point.

    That is also where the loss bends, or hangs on an equality.
    """
    before: list[Floats] = []
    sides = None
    while True:
        with ctx.workprec(precision):
            numbers = BallNumbers()
            balls = [boxed(each) for each in compute(numbers, params)]
        some = [wide(each, budget) for each, budget in zip(balls, allowed.values(), strict=True)]
        radii = [np.where(here, Enclosed(each, here).rad, 0.0) for each, here in zip(balls, some, strict=True)]
        enough = not any(here.any() for here in some)
        stuck = bool(before) and all(np.all(now >= old / 2) for now, old in zip(radii, before, strict=True))
        lost = any(not np.isfinite(each).all() for each in radii)
        if (numbers.kinks and enough) or (stuck and sides is None and (numbers.kinks or lost)):
            sides = Sides(compute, params, tuple(allowed.values()), tuple(allowed), **how)
            if sides.certain or sides.found or numbers.kinks:
                return sides.truths(), precision, sides
        if enough or precision * 2 > limit:
            if sides is not None:
                return sides.truths(), precision, sides
            nowhere = (np.zeros(each.shape, dtype=bool) for each in balls)
            truths = dict(zip(allowed, map(Enclosed, balls, nowhere), strict=True))
            return truths, precision, None
        precision, before = precision * 2, radii
