"""Arb balls as a number system: what comes out contains the exact result, and every kink on the way is noted.

A comparison that the balls cannot decide, a tie for the largest, and an equality that holds exactly, each of numbers
that depend on a parameter, say nothing of the derivative there: they are noted, and who asks for a derivative looks
beside the point (`referee.limits`), where they are decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from flint import arb
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.function import Constant, Function
from gdcompare.arithmetic.functions import Tabled
from gdcompare.arithmetic.numbers import Numbers, formula_line

Balls = NDArray[np.object_]

ZERO, ONE, HALF = arb(0), arb(1), arb(0.5)
BETWEEN = ZERO.union(ONE)  # [0, 1]; the radius of a ball has 30 bits, so that a hull is wider by about 1e-9 of itself
LEFT_OUT = arb(0)  # the cotangent of a branch that was not taken; known by identity

OPPOSITES: dict[np.ufunc, np.ufunc] = {
    np.less: np.greater_equal,
    np.less_equal: np.greater,
    np.greater: np.less_equal,
    np.greater_equal: np.less,
    np.equal: np.not_equal,
    np.not_equal: np.equal,
}


def elementwise(function: Callable[..., Any], inputs: int = 1) -> Callable[..., Any]:
    """Return a function of balls as one of arrays of them."""
    array_function: Callable[..., Any] = np.frompyfunc(function, inputs, 1)
    return array_function


def power(x: Any, y: Any) -> Any:
    """Return the ball x^y; a whole y of modest size by products, because Arb's own finds nothing where x may be 0."""
    n = int(y.unique_fmpz()) if y.is_exact() and y.is_integer() and abs(y) <= 1024 else None
    if n is None or x.mid() != 0:
        return x**y
    product = math.prod([x] * abs(n), start=ONE)
    return ONE / product if n < 0 else product


WITH_EQUALS = {np.equal, np.less_equal, np.greater_equal}
_identical = elementwise(lambda a, b: bool(a.mid() == b.mid() and a.rad() == b.rad()), 2)
_unless_0 = elementwise(lambda g, x: LEFT_OUT if x == 0 else g, 2)
_lower, _larger = elementwise(arb.lower), np.frompyfunc(arb.max, 2, 1)


@final
@dataclass(frozen=True, eq=False)
class Kink:
    """Where the loss bends or jumps: the operation, the indices (k, ndim) in the array that it saw, and its line."""

    operation: str
    indices: NDArray[np.intp]
    line: str = ""

    def __str__(self) -> str:
        return f"{self.operation} ({self.line})"


@final
class BallNumbers(Tabled, Numbers):
    """Arrays of balls, at the working precision of flint's context.

    `choose` decides what is undecided by the name of the operation, instead of noting a kink: a condition holds (1) or
    fails (0); of those that tie for the largest it is the first (1), the last (0), or they share alike (1/2). `beside`
    a generic point that is near another, what is exactly 0 is so all around.
    """

    def __init__(self, choose: Callable[[str], Any] | None = None, *, beside: bool = False) -> None:
        self.choose, self.beside = choose, beside
        self.chosen = False  # has a choice been made?
        self.kinks: list[Kink] = []
        self.decisions: list[NDArray[Any]] = []
        """In order: of each comparison 1, -1 or, where undecided or equal, 0; of each maximum, which may be it."""
        self.watched: list[str] | None = None
        """If it is a list: the operations that have no value or no slope, as they come."""

    exp, expm1, log, log1p = map(elementwise, (arb.exp, arb.expm1, arb.log, arb.log1p))
    sqrt, sin, cos, tanh = map(elementwise, (arb.sqrt, arb.sin, arb.cos, arb.tanh))
    sinh, cosh, sign = map(elementwise, (arb.sinh, arb.cosh, arb.sgn))
    pow = elementwise(power, 2)

    where = elementwise(lambda c, a, b: a if c == 1 else b if c == 0 else a.union(b), 3)
    leave_out = elementwise(lambda c, g: g if c == 1 else LEFT_OUT if c == 0 else g * BETWEEN, 2)
    chain = elementwise(lambda g, slope: g if g is LEFT_OUT else g * slope, 2)
    plus = elementwise(lambda a, b: a if a is LEFT_OUT and b is LEFT_OUT else a + b, 2)

    # A number less itself, as of pairs of rows, is 0; a condition that is undecided is no number.
    difference = elementwise(lambda a, b: ZERO if a is b and a is not BETWEEN and a.is_finite() else a - b, 2)

    # The larger + log(1 + exp(-|a - b|)): it neither overflows nor loses a small sum.
    logaddexp = elementwise(lambda a, b: a + (b - a).exp().log1p() if a > b else b + (a - b).exp().log1p(), 2)

    def asarray(self, values: Any) -> Balls:
        """Every float is an exact ball."""
        return as_balls(values)

    def tabled(self, function: Function, x: Balls) -> Balls:
        """Arb's, whose own arithmetic in floats may overflow on the way."""
        with np.errstate(all="ignore"):
            return boxed(elementwise(function.ball)(x))

    def number(self, each: Constant) -> Balls:
        """Arb's."""
        return boxed(each.ball())

    def rearrange(self, function: Callable[..., Any], *arrays: Balls) -> Any:
        """As it is."""
        return function(*arrays)

    def scatter(self, x: Balls, index: Any, shape: tuple[int, ...]) -> Balls:
        """Among what was left out."""
        array = np.full(shape, LEFT_OUT, dtype=object)
        array[index] = x
        return array

    def constant(self, cotangent: Balls, x: Balls) -> Balls:
        """Leave out what depends on x = 0 beside a point: it is so all around."""
        if not self.beside or not any(ball == 0 for ball in x.ravel()):
            return cotangent
        return boxed(_unless_0(cotangent, x))

    def sum(self, x: Balls, axis: tuple[int, ...]) -> Balls:
        """Balls add up."""
        return np.asarray(np.sum(x, axis=axis, keepdims=True))

    def max(self, x: Balls, kind: str = "max") -> Balls:
        """The hull of what the largest may be."""
        del kind
        return boxed(_larger.reduce(x, axis=-1))

    def share_of_max(self, x: Balls, kind: str) -> Balls:
        """1 if no other can be as large, 0 if another is surely larger, else [0, 1] and a kink."""
        at_least = _larger.reduce(_lower(x), axis=-1, keepdims=True)
        possible = ~np.less(x, at_least).astype(bool)
        count = np.sum(possible, axis=-1, keepdims=True)
        self.decisions.append(possible)
        tied = possible & (count > 1)
        if self.choose is None:
            self._note(kind, tied.any(axis=-1))
            return boxed(np.where(tied, BETWEEN, np.where(possible, ONE, ZERO)))
        self.chosen |= bool(tied.any())
        choice = self.choose(kind)
        if choice == HALF:
            return boxed(np.where(possible, ONE, ZERO) / count.astype(object))
        rank = np.cumsum(possible, axis=-1)
        return boxed(np.where(possible & (rank == (1 if choice == ONE else count)), ONE, ZERO))

    def compare(self, relation: np.ufunc, x: Balls, y: Balls, kink: bool) -> Balls:
        """1 or 0 where the balls decide, else [0, 1]. Where x = y, a decided condition is a kink, too."""
        holds, fails = relation(x, y).astype(bool), OPPOSITES[relation](x, y).astype(bool)
        if self.choose is not None:  # beside a point, numbers in one and the same ball are one number
            one = _identical(x, y).astype(bool) & ~holds & ~fails
            holds, fails = (holds | one, fails) if relation in WITH_EQUALS else (holds, fails | one)
        undecided, equal = ~holds & ~fails, np.equal(x, y).astype(bool)
        self.decisions.append(np.where(equal, 0, holds.astype(np.int8) - fails))
        choice = BETWEEN
        if self.choose is not None:
            self.chosen |= bool(undecided.any())
            choice = self.choose(relation.__name__)
        elif kink:
            self._note(relation.__name__, undecided | equal)
        return boxed(np.where(undecided, choice, np.where(holds, ONE, ZERO)))

    def any_of(self, *formulas: Callable[[], Balls]) -> Balls:
        """The first: all enclose the same number."""
        return boxed(formulas[0]())

    def logaddexp_slope(self, x: Balls, y: Balls, value: Balls) -> Balls:
        """exp(d) / (1 + exp(d)) with d = x - y if d < 0, else 1 / (1 + exp(-d))."""
        del value
        return boxed(elementwise(lambda d: d.exp() / (1 + d.exp()) if d < 0 else 1 / (1 + (-d).exp()))(x - y))

    def divide_slope(self, x: Balls, y: Balls, value: Balls) -> Balls:
        """-(x / y) / y."""
        del x
        return boxed(-value / y)

    def expm1_slope(self, x: Balls, value: Balls) -> Balls:
        """exp(x), which does not cancel."""
        del value
        return boxed(self.exp(x))

    def tanh_slope(self, x: Balls, value: Balls) -> Balls:
        """1 / cosh(x)^2, which does not cancel."""
        del value
        return boxed(elementwise(lambda ball: ball.sech() ** 2)(x))

    def _note(self, operation: str, places: NDArray[np.bool_]) -> None:
        if places.any():
            self.kinks.append(kink_at(operation, places))


def kink_at(operation: str, places: NDArray[np.bool_]) -> Kink:
    """Return the kink of an operation at these places, the hidden axis first, in the formula that is evaluated."""
    indices = np.argwhere(places)
    return Kink(operation, indices if len(places) > 1 else indices[:, 1:], formula_line())


def as_balls(values: ArrayLike) -> Balls:
    """Return an array of balls: exact ones of floats, or the balls themselves."""
    array = np.asarray(values)
    return array if array.dtype == object else boxed(elementwise(arb)(array.astype(np.float64)))


def boxed(values: Any) -> Balls:
    """Return an object array, also of a single ball, which NumPy hands out bare."""
    array = np.empty(np.shape(values), dtype=object)
    array[...] = values
    return array


def upwards(x: Any) -> float:
    """Return the smallest float that is not below an exact ball; infinity for NaN."""
    near = float(x)
    return math.inf if x.is_nan() else near if arb(near) >= x else math.nextafter(near, math.inf)
