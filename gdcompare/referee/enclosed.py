"""Arrays of true numbers in balls `mid ± rad`, and the distance of somebody's numbers from them.

Where a loss bends the truth is a set: of the limits of the gradient from the sides that it has, the pieces, and of what
lies between them. It is one set for all elements together, no product of intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
from flint import arb, ctx
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.balls import ZERO, Balls, boxed, elementwise, upwards
from gdcompare.arithmetic.quick_balls import QuickBalls, balls_from_quick, quick_from_balls
from gdcompare.arithmetic.quick_distance import bounds_of_distance
from gdcompare.referee.hull import mixture

Floats = NDArray[np.float64]

RELATIVE, ABSOLUTE = arb((1, -80)), arb((1, -1100))
SLACK = 2.0**-40
"""The share of its width by which a hull is taken wider: weights are found in floats."""


@final
@dataclass(frozen=True, eq=False)
class Pieces:
    """The limits of an array from several sides, (m, *shape), and the value that each belongs to, (m,).

    What lies between two of one value is as right as they are; between sides of different values the loss jumps.
    """

    balls: Balls
    values: NDArray[np.intp]

    @cached_property
    def mid(self) -> Floats:
        """The middle of each, to the nearest float64."""
        return middles(self.balls)

    @cached_property
    def width(self) -> Floats:
        """How far apart they are, element by element."""
        return np.asarray(np.max(self.mid, axis=0) - np.min(self.mid, axis=0))


@final
@dataclass(frozen=True, eq=False)
class Enclosed:
    """An array of true numbers, each known to lie in its ball.

    >>> from gdcompare.arithmetic.balls import as_balls
    >>> third = Enclosed(as_balls([2.0, 1.0]) / as_balls([1.0, 3.0]), np.zeros(2, dtype=bool))
    >>> third.mid.tolist(), third.rad.tolist()
    ([2.0, 0.3333333333333333], [0.0, 5.551115123125783e-17])
    """

    known: Balls | QuickBalls
    kinks: NDArray[np.bool_]
    """Where the ball holds one-sided derivatives and what lies between them, and the truth is a set."""
    pieces: Pieces | None = None
    """The one-sided derivatives, if several are known."""
    by_row: bool = False
    """Whether the sets of the rows have nothing to do with each other."""
    unsure: NDArray[np.bool_] | None = None
    """Where there are sides of which nothing is known: what is outside of the rest is not known to be wrong."""
    reason: str = ""
    """Why the truth is a set, or unknown, if it is not for a kink."""
    spread: Floats | None = None
    """The width of the sets, if the balls are not them but what is nearest to somebody's numbers."""

    @cached_property
    def balls(self) -> Balls:
        """The balls, as Arb's."""
        return balls_from_quick(self.known) if isinstance(self.known, QuickBalls) else self.known

    @cached_property
    def quick(self) -> QuickBalls:
        """The balls, or others that contain them, in floats."""
        return self.known if isinstance(self.known, QuickBalls) else quick_from_balls(self.known)

    @cached_property
    def mid(self) -> Floats:
        """The middle of each ball, to the nearest float64; NaN where nothing is known."""
        if isinstance(self.known, QuickBalls):
            return np.where(np.isfinite(self.known.rad), self.known.high, np.nan)
        return middles(self.known)

    @cached_property
    def rad(self) -> Floats:
        """The radius around the exact middle (not around `mid`, which is rounded), upwards; infinity if unknown."""
        if isinstance(self.known, QuickBalls):
            return self.known.rad
        return _floats(lambda ball: upwards(ball.rad()), self.known)

    @cached_property
    def magnitude(self) -> Floats:
        """An upper bound of the absolute value; infinity where nothing is known."""
        return _floats(lambda ball: upwards(ball.abs_upper()), self.balls)

    @cached_property
    def width(self) -> Floats:
        """The width of the set of truths, element by element: 0 but at kinks; infinity where some are unknown."""
        if self.spread is not None:
            return self.spread
        width = 2 * np.where(self.kinks, self.rad, 0.0)  # elsewhere rad may be too large to be doubled
        return width if self.unsure is None else np.where(self.unsure, np.inf, width)

    def distance(self, actual: ArrayLike) -> tuple[Floats, Floats]:
        """Return proven bounds (lower, upper) on |actual - truth|, element by element.

        At a kink it is the distance to the nearest member of the set, 0 for a member, or from the ball where the pieces
        are not known. What is not finite is infinitely far from what is.

        >>> from gdcompare.arithmetic.balls import as_balls
        >>> third = Enclosed(as_balls([1.0]) / as_balls([3.0]), np.zeros(1, dtype=bool))
        >>> lower, upper = third.distance([0.5])
        >>> bool(lower[0] <= 1 / 6 <= upper[0]), float(upper[0] - lower[0]) < 1e-15
        (True, True)
        """
        numbers = np.asarray(actual, dtype=np.float64)
        if self.pieces is not None:
            nearest = self.beside_rows(numbers) if self.by_row else self._beside(numbers)
            return nearest.distance(numbers)
        lower, upper = self._distance(numbers)
        if self.unsure is None:
            return lower, upper
        outside = self.unsure & (lower > 0)
        return np.where(outside, 0.0, lower), np.where(outside, np.inf, upper)

    def _distance(self, actual: Floats) -> tuple[Floats, Floats]:
        """Return bounds of the distance from the balls, by floats, or by Arb what is beyond their range."""
        quick = self.quick
        with np.errstate(all="ignore"):
            nearest, farthest = bounds_of_distance(actual, quick)
            lower = np.maximum(nearest[0], 0.0)
            upper = np.maximum(np.where(self.kinks, nearest[1], farthest[1]), 0.0)
        within = np.isfinite(upper) & (np.abs(quick.high) < 2.0**1000) & (np.abs(actual) < 2.0**1000)
        if not within.all():
            with ctx.workprec(128), np.errstate(all="ignore"):  # a distance may exceed the largest float
                gaps = np.frompyfunc(_gap, 3, 2)(actual, np.where(within, ZERO, self.balls), self.kinks)
            least, most = (np.asarray(gap, dtype=np.float64) for gap in gaps)
            return np.where(within, lower, least), np.where(within, upper, most)
        return lower, upper

    def _beside(self, actual: Floats) -> Enclosed:
        """Return the nearest members of the set."""
        return beside({"": self}, {"": self.pieces}, {"": actual}, {})[""] if self.pieces else self

    def beside_rows(self, actual: Floats) -> Enclosed:
        """Return the nearest members of the sets of the rows."""
        nearest = replace(self, pieces=None, by_row=False, spread=self.width)
        for i in np.flatnonzero(self.kinks.reshape(len(self.kinks), -1).any(axis=1)) if self.pieces else ():
            pieces = Pieces(self.pieces.balls[:, i], self.pieces.values) if self.pieces else None
            unsure = None if self.unsure is None else np.asarray(self.unsure[i])
            row = Enclosed(boxed(self.balls[i]), np.asarray(self.kinks[i]), pieces, unsure=unsure)
            nearest = nearest.with_row(int(i), row._beside(np.asarray(actual[i])))
        return nearest

    def with_row(self, i: int, row: Enclosed) -> Enclosed:
        """Return the same with another row."""
        balls, kinks, width = self.balls.copy(), self.kinks.copy(), self.width.copy()
        balls[i], kinks[i], width[i] = row.balls[()], row.kinks, row.width  # [()]: a ball, not an array of one
        return replace(self, known=balls, kinks=kinks, spread=width)

    def to_text(self) -> list[Any]:
        """Return nested lists of the balls as exact text, `mid +/- rad`, each an integer times a power of 2.

        >>> from gdcompare.arithmetic.balls import as_balls
        >>> Enclosed(as_balls([0.75]), np.zeros(1, dtype=bool)).to_text()
        ['0x3p-2 +/- 0x0p0']
        """
        text: list[Any] = text_of(self.balls)
        return text

    @classmethod
    def from_text(cls, text: Any, kinks: NDArray[np.bool_]) -> Enclosed:
        """Return balls that contain those written by `to_text`, their radii at most 1e-8 larger."""
        return cls(balls_from(text), kinks)


def beside(
    truths: Mapping[str, Enclosed],
    pieces: Mapping[str, Pieces],
    actual: Mapping[str, Floats],
    budgets: Mapping[str, Floats],
) -> dict[str, Enclosed]:
    """Return the truths, and at kinks those members of the sets that are nearest to what somebody has.

    The arrays have their pieces in common: the k-th of each is from the same side, and a member of the set of all
    arrays is one mixture of sides, whose weights are found in floats and applied exactly.
    """
    allowed = {name: np.broadcast_to(budgets.get(name, 0.0), pieces[name].width.shape) for name in actual}
    places = {
        name: truths[name].kinks & np.isfinite(actual[name]) & np.isfinite(budget) for name, budget in allowed.items()
    }
    values = next(iter(pieces.values())).values
    sides = np.concatenate([pieces[name].mid[:, place] for name, place in places.items()], axis=1)
    target = np.concatenate([actual[name][place] for name, place in places.items()])
    width = np.max(sides, axis=0) - np.min(sides, axis=0)
    room = np.concatenate([allowed[name][place] for name, place in places.items()]) + SLACK * width + 1e-300
    weights = np.zeros(len(values))
    least = math.inf
    for value in np.unique(values):
        same = values == value
        found = mixture(sides[same], target, room)
        off = float(np.max(np.abs(found @ sides[same] - target) / room, initial=0.0))
        if off < least:
            least, weights = off, np.zeros(len(values))
            weights[same] = found
    return {name: _replaced(truth, _mixed(truth, pieces.get(name), weights)) for name, truth in truths.items()}


def enclosed_parts(
    truths: Mapping[str, Enclosed], parts: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Enclosed]:
    """Return what is true of parts of arrays, which a function takes from arrays of any kind: `{name: array}`.

    >>> from gdcompare.arithmetic.balls import as_balls
    >>> pair = {"x": Enclosed(as_balls([1.0, 2.0]), np.array([False, False]))}
    >>> enclosed_parts(pair, lambda arrays: {"first of x": arrays["x"][:1]})["first of x"].mid.tolist()
    [1.0]
    """

    def of_each(function: Callable[[Enclosed], Any]) -> dict[str, Any]:
        return parts({name: function(truth) for name, truth in truths.items()})

    balls, kinks = of_each(lambda truth: truth.balls), of_each(lambda truth: truth.kinks)
    unsure = of_each(lambda truth: ~truth.kinks & False if truth.unsure is None else truth.unsure)
    reason = next((truth.reason for truth in truths.values() if truth.reason), "")
    values = next((truth.pieces.values for truth in truths.values() if truth.pieces is not None), np.zeros(0, np.intp))
    sides = [
        of_each(lambda truth, k=k: truth.balls if truth.pieces is None else truth.pieces.balls[k])  # type: ignore[misc]
        for k in range(len(values))
    ]
    bent = [name for name in balls if kinks[name].any()]
    pieces = {name: Pieces(boxed(np.stack([side[name] for side in sides])), values) for name in bent}
    return {
        name: Enclosed(
            balls[name],
            kinks[name],
            pieces.get(name),
            unsure=unsure[name] if unsure[name].any() else None,
            reason=reason,
        )
        for name in balls
    }


def _replaced(truth: Enclosed, balls: Balls) -> Enclosed:
    return Enclosed(balls, truth.kinks, unsure=truth.unsure, reason=truth.reason, spread=truth.width)


def _mixed(truth: Enclosed, pieces: Pieces | None, weights: Floats) -> Balls:
    """Return the mixture at kinks, wider by the slack; else the balls as they are."""
    if pieces is None or not truth.kinks.any():
        return truth.balls
    with ctx.workprec(256):
        shares = [arb(float(weight)) for weight in weights]
        total = sum(shares, arb(0))
        sides = [(share / total, side) for share, side in zip(shares, pieces.balls, strict=True) if share != 0]
        mixture_of = sum((side * share for share, side in sides[1:]), sides[0][1] * sides[0][0])
        slack = elementwise(lambda width: arb(0, float(width) * SLACK))(pieces.width)
        return boxed(np.where(truth.kinks, mixture_of + slack, truth.balls))


def wide(balls: Balls, budget: ArrayLike) -> NDArray[np.bool_]:
    """Say where the radius is not negligible: beside 2^-20 of the budget, or 2^-80 of the size, or 2^-1100.

    If a budget is smaller than 2^-80 of the size, it is what counts. What is not known is wide beside any.
    """
    narrow = elementwise(lambda ball: bool(ball.rad() <= abs(ball.mid()) * RELATIVE))
    tiny = elementwise(lambda ball: bool(ball.rad() <= ABSOLUTE))
    rad, allowed = _floats(lambda ball: upwards(ball.rad()), balls), np.asarray(budget, dtype=np.float64)
    enough = np.asarray(narrow(balls), dtype=bool) & ((allowed == 0) | (rad <= allowed))
    return np.asarray(
        ~(enough | np.asarray(tiny(balls), dtype=bool) | ((rad <= allowed * 2.0**-20) & np.isfinite(rad)))
    )


def text_of(balls: Balls) -> Any:
    """Return nested lists of balls as text."""
    return boxed(elementwise(_text)(balls)).tolist()


def balls_from(text: Any) -> Balls:
    """Return balls that contain those of the text."""
    return boxed(elementwise(_ball)(np.asarray(text, dtype=object)))


def middles(balls: Balls) -> Floats:
    """Return the middle of each ball, to the nearest float64; NaN where nothing is known."""
    return _floats(lambda ball: float(ball.mid()) if ball.is_finite() else math.nan, balls)


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
    return max(0.0, _downwards(nearest.lower())), max(0.0, upwards(farthest.upper()))


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
