"""Balls in floats: a double word in the middle, a float for the radius.

They enclose as Arb's balls do, to about 100 bits instead of as many as one likes, and arrays of them are as quick as
NumPy. What they cannot say they leave to Arb: a radius is infinite where a number is not known, or a function not
defined. An infinity that was given, as by a mask, is itself. The functions of arrays of them are `quick_numbers`.

    x + y     rad_x + rad_y                          and what the word is off by: `double_word` says how much
    x y       |x| rad_y + |y| rad_x + rad_x rad_y
    x / y     (rad_x + |x / y| rad_y) / (|y| - rad_y)
    f(x)      rad_x times the steepest slope within

Radii are computed in floats. They are sums and products of numbers >= 0, and one part in 2^20 is added to each for all
that is rounded in it. Functions that are seldom needed are Arb's, number by number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from gdcompare.arithmetic import double_word as words
from gdcompare.arithmetic.balls import Balls, boxed, elementwise, upwards
from gdcompare.arithmetic.word_matrices import product_of_matrices

Floats = NDArray[np.float64]

SLACK = 1 + 2.0**-20
PRECISION = 106  # the bits of a double word

_FAR = 350.0  # from here on tanh is 1 to 2^-1000


class UndecidedError(Exception):
    """A condition or a largest number that these balls do not decide, or that is a kink."""


@final
@dataclass(frozen=True, eq=False)
class QuickBalls:
    """An array of balls: exact numbers in high + low ± rad."""

    high: Floats
    low: Floats
    rad: Floats

    __array_ufunc__ = None  # NumPy's arrays and scalars leave their operators to us

    shape = property(lambda self: self.high.shape)
    ndim = property(lambda self: self.high.ndim)
    size = property(lambda self: self.high.size)
    word = property(lambda self: (self.high, self.low))

    @property
    def least(self) -> Floats:
        """A lower bound of the absolute values; below 0 where it is not known from 0."""
        return np.asarray(np.abs(self.high) * (1 - 2.0**-50) - self.rad * SLACK)

    def __getitem__(self, key: Any) -> QuickBalls:
        return each_part(lambda part: part[key], self)

    def __neg__(self) -> QuickBalls:
        return QuickBalls(-self.high, -self.low, self.rad)

    def __add__(self, other: Any) -> QuickBalls:
        other = as_quick_balls(other)
        high, low = words.add(self.word, other.word)
        rounded = (self.low != 0) | (other.low != 0)
        total = known(high, low, self.rad + other.rad + words.SUM * rounded * np.abs(high))
        return total if np.isfinite(high).all() else _beside_infinity(total, self, other)

    def __sub__(self, other: Any) -> QuickBalls:
        return self + -as_quick_balls(other)

    def __mul__(self, other: Any) -> QuickBalls:
        """Of floats it is exact, far from underflow; and 0 is 0."""
        other = as_quick_balls(other)
        high, low = words.multiply(self.word, other.word)
        size, nothing = np.abs(high), is_zero(self) | is_zero(other)
        exact: Any = _is_scale(self) or _is_scale(other) or ((self.low == 0) & (other.low == 0))
        lost = ((self.low != 0) | (other.low != 0)) & (np.abs(low) < 2.0**-960)
        exact = exact & (size > 2.0**-900) & ~lost
        carried = np.abs(self.high) * other.rad + self.rad * (np.abs(other.high) + other.rad)
        rounded = np.where(exact, 0.0, words.PRODUCT * size)
        tiny = np.where(nothing | (exact & (self.rad + other.rad == 0)), 0.0, words.UNDERFLOW)
        return known(high, low, carried + rounded + tiny)

    def __matmul__(self, other: QuickBalls) -> QuickBalls:
        self, other = _numbers(self), _numbers(other)
        parts = product_of_matrices((self.high, self.low, self.rad), (other.high, other.low, other.rad))
        return known(*parts)

    def __truediv__(self, other: Any) -> QuickBalls:
        other = as_quick_balls(other)
        high, low = words.divide(self.word, other.word)
        least, size = other.least, np.abs(high)
        carried = (self.rad + size * other.rad) / least
        rounded = words.QUOTIENT * size + words.UNDERFLOW * (1 + 1 / least)
        if _is_scale(other):
            rounded = np.where((size > 2.0**-900) & (self.rad == 0), 0.0, rounded)
        nothing = is_zero(self) & (least > 0)
        return known(
            np.where(nothing, 0.0, high),
            np.where(nothing, 0.0, low),
            np.where(nothing, 0.0, np.where(least > 0, carried + rounded, np.inf)),
        )

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> QuickBalls:
        result: QuickBalls = -self + other
        return result

    def __rtruediv__(self, other: Any) -> QuickBalls:
        return QuickBalls.__truediv__(as_quick_balls(other), self)


def as_quick_balls(values: Any) -> QuickBalls:
    """Return exact balls of floats, infinities among them, or the balls themselves. NaN is not known."""
    if isinstance(values, QuickBalls):
        return values
    high = np.asarray(values, dtype=np.float64)
    zeros = np.broadcast_to(0.0, high.shape)
    if (unknown := np.isnan(high)).any():
        return QuickBalls(np.where(unknown, 0.0, high), zeros, np.where(unknown, np.inf, 0.0))
    return QuickBalls(high, zeros, zeros)


def quick_from_balls(balls: Balls) -> QuickBalls:
    """Return quick balls that contain Arb's.

    >>> from gdcompare.arithmetic.balls import as_balls
    >>> third = quick_from_balls(as_balls([1.0]) / as_balls([3.0]))
    >>> float(third.high[0]), bool(third.rad[0] < 1e-16)
    (0.3333333333333333, True)
    """
    with ctx.workprec(256):
        high, low, rad = np.frompyfunc(_parts, 1, 3)(balls)
    return QuickBalls(*(np.asarray(part, dtype=np.float64) for part in (high, low, rad)))


def balls_from_quick(x: QuickBalls) -> Balls:
    """Return Arb's balls that contain these; NaN where nothing is known.

    >>> balls_from_quick(as_quick_balls([0.5]) / 4.0)[0].contains(0.125)
    True
    """
    with ctx.workprec(256):
        return boxed(elementwise(_ball, 3)(x.high, x.low, x.rad))


def _parts(ball: Any) -> tuple[float, float, float]:
    high = float(ball.mid()) if ball.is_finite() else math.inf
    if not math.isfinite(high):
        return 0.0, 0.0, math.inf
    rest = ball - arb(high)
    low = float(rest.mid())
    return high, low, upwards((rest - arb(low)).abs_upper())


def _ball(high: float, low: float, rad: float) -> Any:
    return arb(high) + arb(low) + arb(0, rad) if math.isfinite(rad) else arb.nan()


def each_part(function: Callable[..., Any], *arrays: QuickBalls) -> QuickBalls:
    """Do the same with each part."""
    high, low, rad = (function(*parts) for parts in zip(*((x.high, x.low, x.rad) for x in arrays), strict=True))
    return QuickBalls(high, low, rad)


def known(high: Any, low: Any, rad: Any) -> QuickBalls:
    """Return balls whose radii have their slack; a number that is not one is not known."""
    rad = rad * SLACK
    unknown = ~np.isfinite(high + low + rad)
    if unknown.any():
        high, low = (np.where(unknown, 0.0, part) for part in (high, low))
        rad = np.where(unknown, np.inf, rad)
    return QuickBalls(high, low, rad)


def _numbers(x: QuickBalls) -> QuickBalls:
    """Return the same, what is infinite unknown."""
    return x if np.isfinite(x.high).all() else known(x.high, x.low, x.rad)


def _beside_infinity(total: QuickBalls, *terms: QuickBalls) -> QuickBalls:
    """Return the sum of two, infinite where one of them is, and the other a number."""
    infinite = [np.where(np.isinf(x.high), x.high, 0.0) for x in terms]
    either = (infinite[0] != 0) ^ (infinite[1] != 0)
    known = either & np.isfinite(terms[0].rad) & np.isfinite(terms[1].rad)
    high = np.where(known, infinite[0] + infinite[1], total.high)
    return QuickBalls(high, np.where(known, 0.0, total.low), np.where(known, 0.0, total.rad))


def is_zero(x: QuickBalls) -> Any:
    """Say which are an exact 0."""
    return (x.high == 0) & (x.rad == 0)


def _is_scale(x: QuickBalls) -> bool:
    """Say whether it is one exact power of 2, or its negative, which scales without rounding."""
    return x.size == 1 and not x.rad.any() and not x.low.any() and bool(np.all(np.abs(np.frexp(x.high)[0]) == 0.5))
