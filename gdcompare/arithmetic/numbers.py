"""What the tape asks of a number system, and the plain one, floats."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.axes import along_last
from gdcompare.arithmetic.function import Constant, Function
from gdcompare.arithmetic.functions import Tabled

Array = NDArray[np.float64]

HERE = str(Path(__file__).parent)


class Numbers(Protocol):
    """A number system: few functions on arrays that offer `+ - * / @`, unary `-`, indexing, `shape` and `ndim`.

    Besides these it has the functions in `functions.SLOPES`, by name. Axes are negative. A condition is an array of
    numbers too: 1 where it holds, 0 where not, and what lies between where it is undecided.
    """

    def asarray(self, values: Any) -> Any:
        """Take numbers in."""

    def rearrange(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """Apply a NumPy function that moves numbers and does not look at them."""

    def scatter(self, x: Any, index: Any, shape: tuple[int, ...]) -> Any:
        """Return zeros of that shape with x in the places of the index."""

    def sum(self, x: Any, axis: tuple[int, ...]) -> Any:
        """Return the sum, keeping the axes with length 1."""

    def max(self, x: Any, kind: str = "max") -> Any:
        """Return the largest along the last axis; `kind` names the function that asks."""

    def share_of_max(self, x: Any, kind: str) -> Any:
        """Return the derivative of `max` by each entry: 1 for the largest, else 0; in a tie each is in [0, 1]."""

    def compare(self, relation: np.ufunc, x: Any, y: Any, kink: bool) -> Any:
        """Return the condition `relation(x, y)`; `kink` says that it depends on the parameters."""

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        """Return x where the condition holds, else y."""

    def leave_out(self, condition: Any, cotangent: Any) -> Any:
        """Return the cotangent where the condition holds, and 0 elsewhere: nothing depends on what was left out."""

    def chain(self, cotangent: Any, slope: Any) -> Any:
        """Return the product; what was left out stays 0, even beside an infinite slope."""

    def plus(self, x: Any, y: Any) -> Any:
        """Return x + y; what was left out of both stays left out."""

    def any_of(self, *formulas: Callable[[], Any]) -> Any:
        """Return what these formulas for the same number say, of which a program may use any: the first is best."""

    def pow(self, x: Any, y: Any) -> Any:
        """Return x^y."""

    def logaddexp(self, x: Any, y: Any) -> Any:
        """Return log(exp(x) + exp(y))."""

    def log(self, x: Any) -> Any:
        """Return log(x); the other functions of one variable look alike, and are called by name."""

    def tabled(self, function: Function, x: Any) -> Any:
        """Return a function of one variable, as its table has it."""

    def number(self, each: Constant) -> Any:
        """Return a constant that no float is, without axes."""

    # Slopes for which several formulas are in use: a number system may choose one, or cover them all.

    def logaddexp_slope(self, x: Any, y: Any, value: Any) -> Any:
        """Return 1 / (1 + exp(y - x)) = exp(x - value), given value = logaddexp(x, y)."""

    def divide_slope(self, x: Any, y: Any, value: Any) -> Any:
        """Return -x / y^2, given value = x / y."""

    def expm1_slope(self, x: Any, value: Any) -> Any:
        """Return exp(x), given value = expm1(x)."""

    def tanh_slope(self, x: Any, value: Any) -> Any:
        """Return 1 - tanh(x)^2, given value = tanh(x)."""


@final
class Floats(Tabled, Numbers):
    """NumPy's float64; a tie for the largest is shared equally."""

    exp, expm1, log1p, sqrt = np.exp, np.expm1, np.log1p, np.sqrt
    sin, cos, sinh, cosh, tanh, sign = np.sin, np.cos, np.sinh, np.cosh, np.tanh, np.sign

    def asarray(self, values: Any) -> Array:
        """As float64."""
        return np.asarray(values, dtype=np.float64)

    def tabled(self, function: Function, x: Array) -> Array:
        """In float64."""
        return np.asarray(function.floats(x))

    def rearrange(self, function: Callable[..., Any], *arrays: Array) -> Any:
        """As it is."""
        return function(*arrays)

    def scatter(self, x: Array, index: Any, shape: tuple[int, ...]) -> Array:
        """Into zeros."""
        zeros = np.zeros(shape)
        zeros[index] = x
        return zeros

    def sum(self, x: Array, axis: tuple[int, ...]) -> Array:
        """NumPy's."""
        return np.asarray(np.sum(x, axis=axis, keepdims=True))

    def max(self, x: Array, kind: str = "max") -> Array:
        """NumPy's."""
        del kind
        return np.asarray(along_last(np.maximum, x)[..., 0])

    def share_of_max(self, x: Array, kind: str) -> Array:
        """1/k for each of k equals."""
        del kind
        largest = x == along_last(np.maximum, x)
        return np.asarray(largest / along_last(np.add, largest.astype(np.float64)))

    def compare(self, relation: np.ufunc, x: Array, y: Array, kink: bool) -> Array:
        """Always decided."""
        del kink
        return np.asarray(relation(x, y), dtype=np.float64)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        """NumPy's."""
        return np.where(condition, x, y)

    def leave_out(self, condition: Array, cotangent: Array) -> Array:
        """By choice, not by product."""
        return np.where(condition, cotangent, 0.0)

    def chain(self, cotangent: Array, slope: Array) -> Array:
        """0 stays 0."""
        return np.where(cotangent == 0, 0.0, cotangent * slope)

    def plus(self, x: Array, y: Array) -> Array:
        """NumPy's."""
        return np.asarray(x + y)

    def any_of(self, *formulas: Callable[[], Array]) -> Array:
        """The first."""
        return formulas[0]()

    def pow(self, x: Array, y: Array) -> Array:
        """NumPy's."""
        return np.asarray(np.power(x, y))

    def log(self, x: Array) -> Array:
        """NumPy's."""
        return np.asarray(np.log(x))

    def logaddexp(self, x: Array, y: Array) -> Array:
        """NumPy's."""
        return np.asarray(np.logaddexp(x, y))

    def logaddexp_slope(self, x: Array, y: Array, value: Array) -> Array:
        """exp(x - value)."""
        del y
        return np.exp(x - value)

    def divide_slope(self, x: Array, y: Array, value: Array) -> Array:
        """-(x / y) / y."""
        del x
        return np.asarray(-value / y)

    def expm1_slope(self, x: Array, value: Array) -> Array:
        """exp(x)."""
        del value
        return np.asarray(np.exp(x))

    def tanh_slope(self, x: Array, value: Array) -> Array:
        """(1 - t)(1 + t)."""
        del x
        return np.asarray((1 - value) * (1 + value))


def formula_line() -> str:
    """Return the file and the line of the formula that is being evaluated, like `hinge.py:31`, or `the way back`.

    >>> formula_line()[:9]
    '<doctest '
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
        if frame.f_code.co_name == "walk_back":
            return "the way back"
        if frame.f_code.co_name == "values" and "step" in frame.f_locals:  # of a program
            return str(frame.f_locals["step"].line) or "no line of yours"
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def all_known(numbers: Any) -> bool:
    """Whether every number of an array of balls is bounded."""
    return all(ball.is_finite() for ball in numbers.ravel())


def vanishes(part: Any) -> bool:
    """Say whether an array is 0 everywhere; copies of one number are looked at once."""
    return not (part.flat[0] if part.size and not any(part.strides) else part.any())
