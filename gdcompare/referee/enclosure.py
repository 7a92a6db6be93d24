"""The truth: proven enclosures of the exact loss and its gradient, in Arb balls.

A ball `mid ± rad` contains the exact number, whatever was rounded on the way. The loss formula runs over NumPy arrays
of balls, from the exact float inputs, through the reverse pass of `reverse`; the precision doubles until every radius
is negligible. A formula's constants are the floats that Python makes of them.

At a kink (relu at 0, a tie for the largest, |x| at 0, the edge of a clip or of a condition) the derivative is a set.
Its enclosure is the hull of the one-sided derivatives, and any number inside is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from flint import arb, ctx
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.balls import BallNumbers, Balls, Kink, boxed, elementwise
from gdcompare.arithmetic.dual import directional_derivatives, hessian_vector_products
from gdcompare.arithmetic.tape import per_sample_gradients, value_and_gradient
from gdcompare.backend import Reduction
from gdcompare.problem import Problem

Floats = NDArray[np.float64]

RELATIVE, ABSOLUTE = arb((1, -80)), arb((1, -1100))


@final
@dataclass(frozen=True, eq=False)
class Enclosed:
    """An array of true numbers, each known to lie in its ball.

    >>> from gdcompare.arithmetic.balls import as_balls
    >>> third = Enclosed(as_balls([2.0, 1.0]) / as_balls([1.0, 3.0]), np.zeros(2, dtype=bool))
    >>> third.mid.tolist(), third.rad.tolist()
    ([2.0, 0.3333333333333333], [0.0, 5.551115123125783e-17])
    """

    balls: Balls
    kinks: NDArray[np.bool_]
    """Where the ball is the hull of one-sided derivatives, and every number in it is right."""

    @cached_property
    def mid(self) -> Floats:
        """The middle of each ball, to the nearest float64; NaN where nothing is known."""
        return _floats(lambda ball: float(ball.mid()) if ball.is_finite() else math.nan, self.balls)

    @cached_property
    def rad(self) -> Floats:
        """The radius around the exact middle (not around `mid`, which is rounded), upwards; infinity if unknown."""
        return _floats(lambda ball: _upwards(ball.rad()), self.balls)

    @cached_property
    def magnitude(self) -> Floats:
        """An upper bound of the absolute value; infinity where nothing is known."""
        return _floats(lambda ball: _upwards(ball.abs_upper()), self.balls)

    def distance(self, actual: ArrayLike) -> tuple[Floats, Floats]:
        """Return proven bounds (lower, upper) on |actual - truth|, element by element.

        At a kink it is the distance to the hull, 0 inside. What is not finite is infinitely far from what is.

        >>> from gdcompare.arithmetic.balls import as_balls
        >>> third = Enclosed(as_balls([1.0]) / as_balls([3.0]), np.zeros(1, dtype=bool))
        >>> lower, upper = third.distance([0.5])
        >>> bool(lower[0] <= 1 / 6 <= upper[0]), float(upper[0] - lower[0]) < 1e-15
        (True, True)
        """
        with ctx.workprec(128), np.errstate(all="ignore"):  # a distance may exceed the largest float
            gaps = np.frompyfunc(_gap, 3, 2)(np.asarray(actual, dtype=np.float64), self.balls, self.kinks)
        return np.asarray(gaps[0], dtype=np.float64), np.asarray(gaps[1], dtype=np.float64)

    def to_text(self) -> list[Any]:
        """Return nested lists of the balls as exact text, `mid +/- rad`, each an integer times a power of 2.

        >>> from gdcompare.arithmetic.balls import as_balls
        >>> Enclosed(as_balls([0.75]), np.zeros(1, dtype=bool)).to_text()
        ['0x3p-2 +/- 0x0p0']
        """
        text: list[Any] = boxed(elementwise(_text)(self.balls)).tolist()
        return text

    @classmethod
    def from_text(cls, text: Any, kinks: NDArray[np.bool_]) -> Enclosed:
        """Return balls that contain those written by `to_text`, their radii at most 1e-8 larger."""
        return cls(boxed(elementwise(_ball)(np.asarray(text, dtype=object))), kinks)


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

    def compute(numbers: BallNumbers) -> list[Any]:
        loss, gradient = value_and_gradient(problem, numbers, params, features, targets, weights, reduction)
        return [loss, *gradient.values()]

    allowed = [(budgets or {}).get(name, 0.0) for name in ("loss", *params)]
    (loss, *gradient), precision, kinks = _search(compute, allowed, precision, limit)
    narrow = not any(_wide(each.balls, budget).any() for each, budget in zip((loss, *gradient), allowed, strict=True))
    return Enclosure(loss, dict(zip(params, gradient, strict=True)), precision, narrow, kinks)


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

    def compute(numbers: BallNumbers) -> list[Any]:
        rows = per_sample_gradients(problem, numbers, params, features, targets, weights, reduction)
        return list(rows.values())

    allowed = [(budgets or {}).get(name, 0.0) for name in params]
    return dict(zip(params, _search(compute, allowed, precision, limit)[0], strict=True))


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

    def compute(numbers: BallNumbers) -> list[Any]:
        return list(
            directional_derivatives(problem, numbers, params, features, targets, directions, weights, reduction)
        )

    allowed = [0.0, (budgets or {}).get("derivative", 0.0)]
    loss, derivatives = _search(compute, allowed, precision, limit)[0]
    return loss, derivatives


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

    At a kink they are hulls of one-sided second derivatives; the jump of the first, which is no number, is not in them.
    """

    def compute(numbers: BallNumbers) -> list[Any]:
        arguments = (params, features, targets, directions, weights, reduction)
        return list(hessian_vector_products(problem, numbers, *arguments).values())

    allowed = [(budgets or {}).get(name, 0.0) for name in params]
    return dict(zip(params, _search(compute, allowed, precision, limit)[0], strict=True))


def _search(
    compute: Callable[[BallNumbers], list[Any]], allowed: list[ArrayLike], precision: int, limit: int
) -> tuple[list[Enclosed], int, tuple[Kink, ...]]:
    """Double the precision until all radii are negligible, or are those of kinks, which do not shrink."""
    before: list[Balls] = []
    while True:
        balls, kinks = _at_precision(compute, precision)
        wide = [_wide(each, budget) for each, budget in zip(balls, allowed, strict=True)]
        radii = [np.where(some, Enclosed(each, some).rad, 0.0) for each, some in zip(balls, wide, strict=True)]
        stuck = bool(kinks and before) and all(np.all(now >= old / 2) for now, old in zip(radii, before, strict=True))
        if stuck or precision * 2 > limit or not any(some.any() for some in wide):
            hulls = [some & bool(kinks) for some in wide]
            return [Enclosed(each, hull) for each, hull in zip(balls, hulls, strict=True)], precision, kinks
        precision, before = precision * 2, radii


def _at_precision(compute: Callable[[BallNumbers], list[Any]], bits: int) -> tuple[list[Balls], tuple[Kink, ...]]:
    """Compute; if a condition sits exactly on its edge, again with all such on the other side, for the hull."""
    with ctx.workprec(bits):
        numbers = BallNumbers()
        balls = [boxed(each) for each in compute(numbers)]
        if numbers.on_edge:
            others = [boxed(each) for each in compute(BallNumbers(flip_edges=True))]
            balls = [boxed(elementwise(arb.union, 2)(one, other)) for one, other in zip(balls, others, strict=True)]
    return balls, tuple(numbers.kinks)


def _wide(balls: Balls, budget: ArrayLike) -> NDArray[np.bool_]:
    """Where the radius is not negligible."""
    narrow = elementwise(lambda ball: bool(ball.rad() <= abs(ball.mid()) * RELATIVE or ball.rad() <= ABSOLUTE))
    rad = _floats(lambda ball: _upwards(ball.rad()), balls)
    return ~(np.asarray(narrow(balls), dtype=bool) | (rad <= np.asarray(budget, dtype=np.float64) * 2.0**-20))


def _floats(function: Callable[[Any], float], balls: Balls) -> Floats:
    with np.errstate(all="ignore"):  # a ball may exceed the largest float
        return np.asarray(elementwise(function)(balls), dtype=np.float64)


def _gap(actual: float, ball: Any, kink: bool) -> tuple[float, float]:
    """Return bounds of |actual - truth|, or at a kink of the distance to the ball."""
    if not ball.is_finite():
        return 0.0, math.inf
    if not math.isfinite(actual):
        return math.inf, math.inf
    center = abs(arb(actual) - ball.mid())
    nearest = center - ball.rad()
    farthest = nearest if kink else center + ball.rad()
    return max(0.0, _downwards(nearest.lower())), max(0.0, _upwards(farthest.upper()))


def _upwards(x: Any) -> float:
    """Return the smallest float that is not below an exact ball; infinity for NaN."""
    near = float(x)
    return math.inf if x.is_nan() else near if arb(near) >= x else math.nextafter(near, math.inf)


def _downwards(x: Any) -> float:
    near = float(x)
    return near if arb(near) <= x else math.nextafter(near, -math.inf)


def _text(ball: Any) -> str:
    """Return one ball as exact text."""
    if not ball.is_finite():
        return "unknown"
    (m, e), (r, f) = ball.mid().man_exp(), ball.rad().man_exp()
    return f"{int(m):#x}p{int(e)} +/- {int(r):#x}p{int(f)}"


def _ball(text: str) -> Any:
    if text == "unknown":
        return arb.nan()
    mid, rad = ((int(m, 16), int(e)) for m, e in (each.split("p") for each in text.split(" +/- ")))
    return arb(mid, rad)
