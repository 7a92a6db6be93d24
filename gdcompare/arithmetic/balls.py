"""Arb balls as a number system: what comes out contains the exact result, and every kink on the way is noted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from flint import arb
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.numbers import Numbers

Balls = NDArray[np.object_]

ZERO, ONE = arb(0), arb(1)
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


_lower, _larger = elementwise(arb.lower), np.frompyfunc(arb.max, 2, 1)


@final
@dataclass(frozen=True, eq=False)
class Kink:
    """Where the loss bends: the operation, and the indices (k, ndim) in the array that it saw."""

    operation: str
    indices: NDArray[np.intp]


@final
class BallNumbers(Numbers):
    """Arrays of balls, at the working precision of flint's context."""

    def __init__(self, flip_edges: bool = False) -> None:
        self.flip_edges = flip_edges  # decide the conditions that sit exactly on their edge the other way
        self.on_edge = False  # was there one?
        self.kinks: list[Kink] = []

    exp, expm1, log, log1p = map(elementwise, (arb.exp, arb.expm1, arb.log, arb.log1p))
    sqrt, sin, cos, tanh = map(elementwise, (arb.sqrt, arb.sin, arb.cos, arb.tanh))
    sinh, cosh, sign = map(elementwise, (arb.sinh, arb.cosh, arb.sgn))
    pow = elementwise(power, 2)

    where = elementwise(lambda c, a, b: a if c == 1 else b if c == 0 else a.union(b), 3)
    leave_out = elementwise(lambda c, g: g if c == 1 else LEFT_OUT if c == 0 else g * BETWEEN, 2)
    chain = elementwise(lambda g, slope: g if g is LEFT_OUT else g * slope, 2)
    plus = elementwise(lambda a, b: a if a is LEFT_OUT and b is LEFT_OUT else a + b, 2)

    # The larger + log(1 + exp(-|a - b|)): it neither overflows nor loses a small sum.
    logaddexp = elementwise(lambda a, b: a + (b - a).exp().log1p() if a > b else b + (a - b).exp().log1p(), 2)

    def asarray(self, values: Any) -> Balls:
        """Every float is an exact ball."""
        return as_balls(values)

    def rearrange(self, function: Callable[..., Any], *arrays: Balls) -> Any:
        """As it is."""
        return function(*arrays)

    def scatter(self, x: Balls, index: Any, shape: tuple[int, ...]) -> Balls:
        """Among what was left out."""
        array = np.full(shape, LEFT_OUT, dtype=object)
        array[index] = x
        return array

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
        tied = possible & (np.sum(possible, axis=-1, keepdims=True) > 1)
        self._note(kind, tied.any(axis=-1))
        return boxed(np.where(tied, BETWEEN, np.where(possible, ONE, ZERO)))

    def compare(self, relation: np.ufunc, x: Balls, y: Balls, kink: bool) -> Balls:
        """1 or 0 where the balls decide, else [0, 1]. On its edge, x = y, a decided condition is a kink, too."""
        holds, fails = relation(x, y).astype(bool), OPPOSITES[relation](x, y).astype(bool)
        undecided = ~holds & ~fails
        edge = np.equal(x, y).astype(bool) & (kink and relation not in (np.equal, np.not_equal))
        self._note(relation.__name__, (undecided & kink) | edge)
        self.on_edge |= bool(edge.any())
        return boxed(np.where(undecided, BETWEEN, np.where(holds ^ (edge & self.flip_edges), ONE, ZERO)))

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
            indices = np.argwhere(places)
            self.kinks.append(Kink(operation, indices if len(places) > 1 else indices[:, 1:]))


def as_balls(values: ArrayLike) -> Balls:
    """Return an array of balls: exact ones of floats, or the balls themselves."""
    array = np.asarray(values)
    return array if array.dtype == object else boxed(elementwise(arb)(array.astype(np.float64)))


def boxed(values: Any) -> Balls:
    """Return an object array, also of a single ball, which NumPy hands out bare."""
    array = np.empty(np.shape(values), dtype=object)
    array[...] = values
    return array
