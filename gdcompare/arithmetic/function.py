"""A function of one variable, with all that any number system asks of it, and the constants in its formulas.

Bounds of rounding are in ulps, and were measured against Arb in float32 and float64, as `rounded.ULPS` has it; the
figures beside the functions are in u, half an ulp. Where the value is near 0, but not what is added up on the way, the
errors are of that size `inside`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from flint import arb, ctx

Slope = Callable[[Any, Any, Any], Any]


class Constant(NamedTuple):
    """A number that no float is, in each of its forms."""

    near: float
    ball: Callable[[], Any]
    symbol: str


CONSTANTS = {
    "log 2": Constant(math.log(2), lambda: arb(2).log(), "log(2)"),
    "log 10": Constant(math.log(10), lambda: arb(10).log(), "log(10)"),
    "pi": Constant(math.pi, arb.pi, "pi"),
    "pi / 2": Constant(math.pi / 2, lambda: arb.pi() / 2, "pi/2"),
    "2 / root pi": Constant(2 / math.sqrt(math.pi), lambda: 2 / arb.pi().sqrt(), "2/sqrt(pi)"),
}


def constant(numbers: Any, name: str, like: Any) -> Any:
    """Return the constant with as many axes as an array."""
    return numbers.number(CONSTANTS[name])[(None,) * like.ndim]


@final
@dataclass(frozen=True)
class Function:
    """What the number systems know of a function of one variable."""

    name: str
    slope: Slope
    """f'(x), given the number system, x and f(x)."""
    ball: Callable[[Any], Any]
    floats: Callable[[Any], Any]
    symbol: str
    """SymPy's expression in x."""
    steepest: Callable[[Any], Any]
    """The largest |f'| within reach of a number with a bound; infinity outside of the domain."""
    ulps: float = 4.0
    more_ulps: Callable[[Any, Any], Any] = lambda _x, _dtype: 0.0
    """Given the largest |x| and the dtype."""
    inside: Callable[[Any], Any] = lambda _x: 0.0
    """Given floats."""


def of_floats(function: Callable[[float], float]) -> Callable[[Any], Any]:
    """Return a function of one float as one of arrays."""
    return np.vectorize(function, otypes=[np.float64])


def by_arb(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function of balls as one of floats."""

    def of_array(x: Any) -> Any:
        with ctx.workprec(96):
            return np.vectorize(lambda each: float(function(arb(each)).mid()), otypes=[np.float64])(x)

    return of_array


def nearest(x: Any) -> Any:
    """Return the smallest |x| within reach."""
    return np.maximum(x.inner(x.reach), 0.0)


def within(inside: Any, bound: Any) -> Any:
    """Return the bound there, and infinity elsewhere."""
    return np.where(inside, bound, np.inf)


def unknown(name: str) -> Function:
    """Return a function of whose value, slope and all further derivatives nobody knows anything."""
    found: Function = Function(
        name,
        slope=lambda numbers, x, _y: numbers.tabled(found, x),
        ball=lambda _x: arb.nan(),
        floats=lambda x: np.full(np.shape(x), np.nan),
        symbol="nan",
        steepest=lambda x: np.full(x.shape, np.inf),
    )
    return found


UNKNOWN_PLACE = "an element whose place rounding may move"
UNKNOWN_ORDER = "a function whose order is no constant"
_NOWHERE = unknown(UNKNOWN_PLACE)


def nobody_knows(numbers: Any, ndim: int) -> Any:
    """Return what has no value in any number system, and infinite spread and error where these are told.

    >>> from gdcompare.arithmetic.balls import BallNumbers
    >>> nobody_knows(BallNumbers(), 1).item()
    nan
    """
    found = numbers.tabled(_NOWHERE, numbers.asarray(np.zeros((1,) * ndim)))
    if not hasattr(found, "tangent"):
        return found
    return type(found)(numbers, found.value, nobody_knows(numbers.base, ndim))  # nor how it changes
