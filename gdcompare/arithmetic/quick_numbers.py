"""The number system of quick balls: what a formula does over arrays of them.

What is undecided or equal, at a kink or beside one, raises `UndecidedError`. A tie for the largest is a ball that holds
every share of it. Where choices are made instead, each tie is somebody's: what is the same by any choice is so from all
sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from gdcompare.arithmetic import double_word as words
from gdcompare.arithmetic.axes import along_last
from gdcompare.arithmetic.balls import BallNumbers, Kink, boxed, elementwise, kink_at
from gdcompare.arithmetic.double_word import Word
from gdcompare.arithmetic.function import Constant, Function
from gdcompare.arithmetic.functions import Tabled
from gdcompare.arithmetic.numbers import Numbers
from gdcompare.arithmetic.quick_balls import (
    SLACK,
    QuickBalls,
    UndecidedError,
    as_quick_balls,
    balls_from_quick,
    each_part,
    is_zero,
    known,
    quick_from_balls,
)

_FAR = 350.0  # from here on tanh is 1 to 2^-1000


@final
class QuickNumbers(Tabled, Numbers):
    """Arrays of quick balls. NumPy may warn of overflow and of what is not defined: call it inside `np.errstate`.

    `choose` is given which may be the largest, (..., k), in a tie, and returns one of them, or a condition that hangs
    on equals, (..., 2): that it holds, or not.
    """

    def __init__(self, choose: Callable[[NDArray[np.bool_]], NDArray[np.bool_]] | None = None) -> None:
        self.choose = choose
        self.kinks: list[Kink] = []
        self._powers: dict[int, tuple[QuickBalls, QuickBalls]] = {}  # with the value, so that no other takes its id

    def asarray(self, values: Any) -> QuickBalls:
        """Every finite float is an exact ball."""
        return as_quick_balls(values)

    def tabled(self, function: Function, x: QuickBalls) -> QuickBalls:
        """Arb's."""
        return _by_arb(function.ball, x)

    def number(self, each: Constant) -> QuickBalls:
        """Arb's."""
        with ctx.workprec(128):
            return quick_from_balls(boxed(each.ball()))

    def rearrange(self, function: Callable[..., Any], *arrays: QuickBalls) -> QuickBalls:
        """Each part alike."""
        return each_part(function, *arrays)

    def scatter(self, x: QuickBalls, index: Any, shape: tuple[int, ...]) -> QuickBalls:
        """Into zeros."""

        def place(part: Any) -> Any:
            zeros = np.zeros(shape)
            zeros[index] = part
            return zeros

        return each_part(place, x)

    def sum(self, x: QuickBalls, axis: tuple[int, ...]) -> QuickBalls:
        """One half to the other, and so on: each term is rounded as often as there are halves, and once more if odd."""
        count = math.prod(x.shape[i] for i in axis)
        if not count:
            shape = tuple(1 if i - x.ndim in axis else length for i, length in enumerate(x.shape))
            return as_quick_balls(np.zeros(shape))
        front = each_part(lambda part: np.moveaxis(part, axis, range(len(axis))), x)
        rest = front.shape[len(axis) :]
        high, low, rad = (np.reshape(part, (count, *rest)) for part in (front.high, front.low, front.rad))
        sizes, carried, roundings = np.abs(high).sum(axis=0), rad.sum(axis=0), np.zeros(rest)
        while len(high) > 1:
            half = len(high) // 2
            halves = (high[:half], low[:half]), (high[half : 2 * half], low[half : 2 * half])
            odd = high[2 * half :], low[2 * half :]
            roundings += (low != 0).any(axis=0)
            total = words.add(*halves)
            if len(odd[0]):
                roundings += (low[-1] != 0) | (total[1][0] != 0)
                first = words.add((total[0][:1], total[1][:1]), odd)
                total = np.concatenate([first[0], total[0][1:]]), np.concatenate([first[1], total[1][1:]])
            high, low = total
        whole = known(high[0], low[0], carried + roundings * words.SUM * sizes)
        return each_part(lambda part: np.expand_dims(part, axis), whole)

    # Ties and conditions.

    def max(self, x: QuickBalls, kind: str = "max") -> QuickBalls:
        """The largest, if it is known which, or if all that may be it are one number."""
        del kind
        largest, possible = _possibly_largest(x)
        top = each_part(lambda part: np.take_along_axis(part, largest, -1), x)
        several = along_last(np.add, possible.astype(np.intp)) > 1
        if self.choose is not None:
            reach = along_last(np.maximum, np.where(possible & several, _most(top - x), 0.0))
            return known(top.high, top.low, np.maximum(top.rad, reach))[..., 0]
        if not np.all(~(possible & several) | _identical(x, top)):
            raise UndecidedError
        return top[..., 0]

    def share_of_max(self, x: QuickBalls, kind: str) -> QuickBalls:
        """1 for the largest, 0 for the others; in a tie [0, 1]: a gradient that is known yet is so from all sides."""
        _, possible = _possibly_largest(x)
        tied = possible & (along_last(np.add, possible.astype(np.intp)) > 1)
        share = possible.astype(np.float64)
        if not tied.any():
            return as_quick_balls(share)
        self.kinks.append(kink_at(kind, tied.any(axis=-1)))
        if self.choose is not None:
            return as_quick_balls(np.where(tied.any(axis=-1, keepdims=True), self.choose(possible), share))
        half = np.where(tied, 0.5, 0.0)
        return QuickBalls(share - half, np.zeros(share.shape), half)

    def compare(self, relation: np.ufunc, x: QuickBalls, y: QuickBalls, kink: bool) -> QuickBalls:
        """1 or 0, if all are decided, and no condition that depends on a parameter is of equals; or as is chosen."""
        apart = x - y
        equal = (apart.high == 0) & (apart.rad == 0)
        undecided = ~equal & ~(apart.least > 0) | (equal & kink)
        holds = np.asarray(relation(apart.high, 0.0))
        if undecided.any():
            if self.choose is None or relation in (np.equal, np.not_equal):  # neither holds beside the point
                raise UndecidedError
            if kink:
                self.kinks.append(kink_at(relation.__name__, undecided))
            holds = np.where(undecided, self.choose(np.ones((*holds.shape, 2), dtype=bool))[..., 0], holds)
        return as_quick_balls(holds.astype(np.float64))

    def where(self, condition: QuickBalls, x: QuickBalls, y: QuickBalls) -> QuickBalls:
        """One of the two."""
        holds = _decided(condition)
        return each_part(lambda a, b: np.where(holds, a, b), x, y)

    def leave_out(self, condition: QuickBalls, cotangent: QuickBalls) -> QuickBalls:
        """The cotangent, or an exact 0."""
        holds = _decided(condition)
        return each_part(lambda part: np.where(holds, part, 0.0), cotangent)

    def chain(self, cotangent: QuickBalls, slope: QuickBalls) -> QuickBalls:
        """The product. An exact 0 beside what is unknown is unknown, whether it was left out or not: Arb can tell."""
        return cotangent * slope

    def plus(self, x: QuickBalls, y: QuickBalls) -> QuickBalls:
        """The sum."""
        return x + y

    def any_of(self, *formulas: Callable[[], QuickBalls]) -> QuickBalls:
        """The first: all enclose the same number."""
        return formulas[0]()

    # Functions.

    def exp(self, x: QuickBalls) -> QuickBalls:
        """Steepest on the right. Below exp(-700) it is 0 ± 2^-1000, and of -infinity 0."""
        high, low = words.exp((np.maximum(x.high, -words.LARGEST_EXPONENT), x.low))
        carried = high * _steps(x.rad)
        vanishes = x.high + x.rad < -words.LARGEST_EXPONENT
        beyond = np.where(vanishes, np.where(x.high == -np.inf, 0.0, 2.0**-1000), np.inf)
        rad = np.where(_held(x), carried + words.EXP * high + words.UNDERFLOW, beyond)
        return known(np.where(vanishes, 0.0, high), np.where(vanishes, 0.0, low), rad)

    def expm1(self, x: QuickBalls) -> QuickBalls:
        """Steepest on the right."""
        high, low = words.expm1(x.word)
        carried = np.abs(1 + high) * _steps(x.rad) + 2.0**-50 * x.rad
        rounded = words.EXPM1 * np.abs(high) + np.where(x.high == 0, 0.0, words.UNDERFLOW)
        return known(high, low, np.where(_held(x), carried + rounded, np.inf))

    def log(self, x: QuickBalls) -> QuickBalls:
        """Steepest on the left."""
        return _by_word(words.log, words.LOG, x, (x.high > 0) & (x.least > 0), lambda: 1 / x.least)

    def log1p(self, x: QuickBalls) -> QuickBalls:
        """Steepest on the left."""
        least = (x + 1.0).least
        return _by_word(words.log1p, words.LOG1P, x, (x.high > -1) & (least > 0), lambda: 1 / least)

    def sqrt(self, x: QuickBalls) -> QuickBalls:
        """Steepest on the left."""
        defined = (x.high > 0) & (x.least > 0)
        return _by_word(words.square_root, words.ROOT, x, defined, lambda: 1 / np.sqrt(x.least))

    def tanh(self, x: QuickBalls) -> QuickBalls:
        """-t / (2 + t) with t = expm1(-2 |x|), and the sign of x."""
        (size, sign), far = _unsigned(x), _is_far(x)
        t = self.expm1(-2.0 * _unless(far, size, _FAR))
        return _blurred(sign * (-t / (2.0 + t)), far)

    def tanh_slope(self, x: QuickBalls, value: QuickBalls) -> QuickBalls:
        """(1 - t) (1 + t), which in a tail keeps fewer digits than 1 / cosh(x)^2, but more than any program."""
        del x
        return (1.0 - value) * (1.0 + value)

    def sinh(self, x: QuickBalls) -> QuickBalls:
        """(t + t / (1 + t)) / 2 with t = expm1(|x|), and the sign of x."""
        size, sign = _unsigned(x)
        t = self.expm1(size)
        return sign * (0.5 * (t + t / (1.0 + t)))

    def cosh(self, x: QuickBalls) -> QuickBalls:
        """(e + 1 / e) / 2 with e = exp(x)."""
        e = self.exp(x)
        return 0.5 * (e + 1.0 / e)

    def sin(self, x: QuickBalls) -> QuickBalls:
        """Arb's."""
        return _by_arb(arb.sin, x)

    def cos(self, x: QuickBalls) -> QuickBalls:
        """Arb's."""
        return _by_arb(arb.cos, x)

    def sign(self, x: QuickBalls) -> QuickBalls:
        """Known where x is known from 0."""
        if not ((x.least > 0) | is_zero(x)).all():
            raise UndecidedError
        return as_quick_balls(np.sign(x.high))

    def pow(self, x: QuickBalls, y: QuickBalls) -> QuickBalls:
        """By products for one whole exponent of modest size, else Arb's."""
        n = y.high.flat[0] if y.size else 0.0
        if not (abs(n) <= 64 and n == np.rint(n) and np.all((y.high == n) & (y.low == 0) & (y.rad == 0))):
            x, y = (
                each_part(lambda part: np.broadcast_to(part, np.broadcast_shapes(x.shape, y.shape)), z) for z in (x, y)
            )
            return _by_arb(BallNumbers.pow, x, y)
        power = as_quick_balls(np.ones(np.broadcast_shapes(x.shape, y.shape)))
        for _ in range(int(abs(n))):
            power = power * x
        return 1.0 / power if n < 0 else power

    def logaddexp(self, x: QuickBalls, y: QuickBalls) -> QuickBalls:
        """The larger + log1p(exp(-|d|)), d = x - y; the middles say which is the larger, and it is right for either."""
        d = x - y
        larger = each_part(lambda a, b: np.where(d.high < 0, b, a), x, y)
        power = self.exp(-_unsigned(d)[0])
        result = larger + self.log1p(power)
        self._powers[id(result)] = result, power
        return result

    def logaddexp_slope(self, x: QuickBalls, y: QuickBalls, value: QuickBalls) -> QuickBalls:
        """e / (1 + e) where the middle of d is below 0, else 1 / (1 + e), with the value's own e = exp(-|d|)."""
        _, power = self._powers[id(value)]
        below = (x - y).high < 0
        top = each_part(lambda part, one: np.where(below, part, one), power, as_quick_balls(np.ones(power.shape)))
        return top / (1.0 + power)

    def divide_slope(self, x: QuickBalls, y: QuickBalls, value: QuickBalls) -> QuickBalls:
        """-(x / y) / y."""
        del x
        return -value / y

    def expm1_slope(self, x: QuickBalls, value: QuickBalls) -> QuickBalls:
        """exp(x), which does not cancel."""
        del value
        return self.exp(x)


def choices() -> Iterator[Callable[[NDArray[np.bool_]], NDArray[np.bool_]]]:
    """Yield ways to choose one of those that tie: the first, the last, and twice by chance.

    >>> [way(np.array([False, True, True])).tolist() for way in choices()][:2]
    [[False, True, False], [False, False, True]]
    """
    generator = np.random.default_rng(0)

    def by(rank: Callable[..., Any]) -> Callable[[NDArray[np.bool_]], NDArray[np.bool_]]:
        def choose(possible: NDArray[np.bool_]) -> NDArray[np.bool_]:
            order = np.where(possible, rank(possible.shape), -np.inf)
            return np.asarray(possible & (order == along_last(np.maximum, order)))

        return choose

    yield from (by(lambda shape: -np.arange(shape[-1])), by(lambda shape: np.arange(shape[-1])))
    yield from (by(generator.random), by(generator.random))


def joined(balls: Sequence[QuickBalls]) -> QuickBalls:
    """Return balls that contain all of these, around the first."""
    first = balls[0]
    return known(first.high, first.low, first.rad + np.max([_most(x - first) for x in balls], axis=0))


def _most(x: QuickBalls) -> Any:
    """Return no less than |x|."""
    return (np.abs(x.high) + np.abs(x.low)) * SLACK + x.rad


def _is_far(x: QuickBalls) -> Any:
    """Say where tanh is 1 or -1, and its slope 0, to 2^-1000."""
    return x.least > _FAR


def _unsigned(x: QuickBalls) -> tuple[QuickBalls, QuickBalls]:
    """Return s x and s, where s is 1 or -1 and s x has its middle at 0 or above."""
    sign = np.where(x.high < 0, -1.0, 1.0)
    return QuickBalls(sign * x.high, sign * x.low, x.rad), as_quick_balls(sign)


def _unless(where: Any, x: QuickBalls, value: float) -> QuickBalls:
    """Return an exact value there, else x."""
    return QuickBalls(np.where(where, value, x.high), np.where(where, 0.0, x.low), np.where(where, 0.0, x.rad))


def _blurred(x: QuickBalls, where: Any) -> QuickBalls:
    return QuickBalls(x.high, x.low, np.where(where, x.rad + 2.0**-1000, x.rad))


def _held(x: QuickBalls) -> Any:
    return (np.abs(x.high) <= words.LARGEST_EXPONENT) & (x.rad <= 1)


def _steps(rad: Any) -> Any:
    """Return no less than exp(rad) - 1, for rad <= 1."""
    return rad * (1 + rad)


def _by_word(
    function: Callable[[Word], Word], bound: float, x: QuickBalls, defined: Any, slope: Callable[[], Any]
) -> QuickBalls:
    """Return f(x), which is within a bound of itself, and no steeper than the slope."""
    high, low = function(x.word)
    carried = np.where(x.rad == 0, 0.0, x.rad * slope() + words.UNDERFLOW)
    rounded = bound * np.abs(high) + np.where(high == 0, 0.0, words.UNDERFLOW)
    return known(high, low, np.where(defined & np.isfinite(x.high), carried + rounded, np.inf))


def _by_arb(function: Callable[..., Any], *arguments: QuickBalls) -> QuickBalls:
    with ctx.workprec(128):
        results = elementwise(function, len(arguments))(*map(balls_from_quick, arguments))
    return quick_from_balls(boxed(results))


def _decided(condition: QuickBalls) -> Any:
    """Say where a condition holds, if it is 1 or 0 everywhere."""
    if condition.rad.any() or not ((condition.high == 0) | (condition.high == 1)).all():
        raise UndecidedError
    return condition.high == 1


def _possibly_largest(x: QuickBalls) -> tuple[Any, Any]:
    """Return where the largest middle is along the last axis, and all places that may have the largest number."""
    high = along_last(np.maximum, x.high)
    largest = np.argmax(np.where(x.high == high, x.low, -np.inf), axis=-1)[..., None]
    top = each_part(lambda part: np.take_along_axis(part, largest, -1), x)
    behind = top - x
    least = (x.high == -np.inf) & (top.high > -np.inf) & np.isfinite(top.rad)
    return largest, ~((behind.high > 0) & (behind.least > 0)) & ~least


def _identical(x: QuickBalls, y: QuickBalls) -> Any:
    apart = x - y
    return (apart.high == 0) & (apart.rad == 0)
