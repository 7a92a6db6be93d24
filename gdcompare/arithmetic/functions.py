"""Functions of one variable, each beside its derivative, over any number system.

Those of `SLOPES` alone are written out in each number system. The others stand in `FUNCTIONS`, with all that any number
system asks for: `Tabled` finds them by name.

Bounds of rounding are in ulps, and were measured against Arb in float32 and float64, as `rounded.ULPS` has it; the
figures here are in u, half an ulp. Where the value is near 0, but not what is added up on the way, the errors are of
that size `inside`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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


class Tabled:
    """Finds a function by its name in the table; a number system says in `tabled` what it makes of it."""

    def __getattr__(self, name: str) -> Any:
        if name not in FUNCTIONS:
            raise AttributeError(name)
        return partial(self.tabled, FUNCTIONS[name])

    def tabled(self, function: Function, x: Any) -> Any:
        """Return f(x)."""
        raise NotImplementedError

    def number(self, each: Constant) -> Any:
        """Return a constant without axes."""
        return self.asarray(each.near)


def _of_floats(function: Callable[[float], float]) -> Callable[[Any], Any]:
    return np.vectorize(function, otypes=[np.float64])


def _by_arb(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function of balls as one of floats."""

    def of_floats(x: Any) -> Any:
        with ctx.workprec(96):
            return np.vectorize(lambda each: float(function(arb(each)).mid()), otypes=[np.float64])(x)

    return of_floats


def _lgamma(x: float) -> float:
    return math.lgamma(x) if 0 < x < math.inf else x if x == math.inf else math.nan


def _digamma(ball: Any) -> Any:
    return ball.digamma() if ball > 0 else arb.nan()


def _trigamma(ball: Any) -> Any:
    return arb(2).zeta(ball) if ball > 0 else arb.nan()


def _tetragamma(ball: Any) -> Any:
    return -2 * arb(3).zeta(ball) if ball > 0 else arb.nan()


def _cube_root(ball: Any) -> Any:
    return ball.root(3) if ball >= 0 else -(-ball).root(3) if ball < 0 else ball.sgn() * ball.abs_upper().root(3)


def logistic(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)), also far out."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1 + small)


def _nearest(x: Any) -> Any:
    """Return the smallest |x| within reach."""
    return np.maximum(x.inner(x.reach), 0.0)


def _where(inside: Any, bound: Any) -> Any:
    return np.where(inside, bound, np.inf)


def _off_1(x: Any) -> Any:
    """Return 1 - x^2 at the largest |x| within reach, which is below 0 outside of [-1, 1]."""
    return (1 - x.size) * (1 + x.size)


def _steepest_tan(x: Any) -> Any:
    same = np.rint(x.low / math.pi) == np.rint(x.high / math.pi)
    return _where(same, 1 + np.maximum(np.tan(x.low) ** 2, np.tan(x.high) ** 2))


def _atanh_ulps(size: Any, dtype: Any) -> Any:
    """Half the difference of logarithms, as XLA has it: see `RoundedNumbers.log1p`."""
    return np.where((dtype == np.float64) & (size > 0.28) & (size < 0.43), 100.0, 0.0)


def _no_slope(_numbers: Any, _x: Any, _y: Any) -> Any:
    raise TypeError("the referee has no fourth derivative of lgamma")


_digamma_of, _trigamma_of, _tetragamma_of = map(_by_arb, (_digamma, _trigamma, _tetragamma))
_gamma_terms = _of_floats(lambda x: 2 * (1 + abs(math.log(x)) * (1 + x)) if 0 < x < math.inf else 0.0)
_digamma_terms = _of_floats(lambda x: 1 + abs(math.log(x)) + 1 / x if 0 < x < math.inf else 0.0)

FUNCTIONS = {
    each.name: each
    for each in (
        Function(  # 2.4 / 1.0
            "tan", lambda _numbers, _x, y: 1 + y * y, arb.tan, np.tan, "tan(x)", _steepest_tan
        ),
        Function(  # 4.4 / 1.6
            "asin", lambda numbers, x, _y: 1 / numbers.sqrt(1 - x * x), arb.asin, np.arcsin, "asin(x)",
            lambda x: _where(x.size < 1, np.sqrt(1 / _off_1(x))),
        ),
        Function(  # 2.2 / 1.8
            "acos", lambda numbers, x, _y: -(1 / numbers.sqrt(1 - x * x)), arb.acos, np.arccos, "acos(x)",
            lambda x: _where(x.size < 1, np.sqrt(1 / _off_1(x))),
        ),
        Function(  # 2.5 / 1.1
            "atan", lambda _numbers, x, _y: 1 / (1 + x * x), arb.atan, np.arctan, "atan(x)",
            lambda x: 1 / (1 + _nearest(x) ** 2),
        ),
        Function(  # 3.7 / 3.0
            "asinh", lambda numbers, x, _y: 1 / numbers.sqrt(1 + x * x), arb.asinh, np.arcsinh, "asinh(x)",
            lambda x: 1 / np.sqrt(1 + _nearest(x) ** 2),
        ),
        Function(  # 4.3 / 3.5
            "acosh",
            lambda numbers, x, _y: numbers.any_of(
                lambda: 1 / numbers.sqrt((x - 1) * (x + 1)), lambda: 1 / numbers.sqrt(x * x - 1)
            ),
            arb.acosh, np.arccosh, "acosh(x)", lambda x: _where(x.low > 1, 1 / np.sqrt((x.low - 1) * (x.low + 1))),
        ),
        Function(  # 2.5 / 1.5, but XLA's float64 reaches 145 beside 0.42
            "atanh",
            lambda numbers, x, _y: numbers.any_of(lambda: 1 / ((1 - x) * (1 + x)), lambda: 1 / (1 - x * x)),
            arb.atanh, np.arctanh, "atanh(x)", lambda x: _where(x.size < 1, 1 / _off_1(x)), more_ulps=_atanh_ulps,
        ),
        Function(  # 2.4 / 1.7
            "log2",
            lambda numbers, x, _y: numbers.any_of(
                lambda: 1 / (x * constant(numbers, "log 2", x)), lambda: (1 / constant(numbers, "log 2", x)) / x
            ),
            lambda ball: ball.log() / arb(2).log(), np.log2, "log(x)/log(2)",
            lambda x: _where(x.low > 0, 1.45 / x.low),
        ),
        Function(  # 3.3 / 2.0
            "log10",
            lambda numbers, x, _y: numbers.any_of(
                lambda: 1 / (x * constant(numbers, "log 10", x)), lambda: (1 / constant(numbers, "log 10", x)) / x
            ),
            lambda ball: ball.log() / arb(10).log(), np.log10, "log(x)/log(10)",
            lambda x: _where(x.low > 0, 0.44 / x.low),
        ),
        Function(  # 1.7 / 1.1, but XLA takes exp(x log 2), and rounds the argument
            "exp2", lambda numbers, x, y: y * constant(numbers, "log 2", x), lambda ball: arb(2) ** ball, np.exp2,
            "2**x", lambda x: 0.7 * np.exp2(x.high), more_ulps=lambda size, _dtype: size,
        ),
        Function(  # 2.4 / 1.5
            "rsqrt",
            lambda numbers, x, y: numbers.any_of(lambda: -0.5 * (y / x), lambda: -0.5 * (y * y * y)),
            arb.rsqrt, lambda x: 1 / np.sqrt(x), "1/sqrt(x)", lambda x: _where(x.low > 0, 0.5 * np.abs(x.low) ** -1.5),
        ),
        Function(  # 2.5 / 4.0
            "cbrt",
            lambda numbers, x, y: numbers.any_of(lambda: y / (3 * x), lambda: (y / x) / 3),
            _cube_root, np.cbrt, "sign(x)*Abs(x)**(1/3)", lambda x: 1 / (3 * np.cbrt(_nearest(x)) ** 2),
        ),
        Function(  # 3.7 / 1.2
            "erf", lambda numbers, x, _y: constant(numbers, "2 / root pi", x) * numbers.exp(-(x * x)),
            arb.erf, _of_floats(math.erf), "erf(x)", lambda x: 1.13 * np.exp(-(_nearest(x) ** 2)),
        ),
        Function(  # 1.5 / 1.4, but XLA rounds the square in exp(-x^2), and takes 1 - erf(x) up to 1
            "erfc", lambda numbers, x, _y: -(constant(numbers, "2 / root pi", x) * numbers.exp(-(x * x))),
            arb.erfc, _of_floats(math.erfc), "erfc(x)", lambda x: 1.13 * np.exp(-(_nearest(x) ** 2)),
            ulps=12.0, more_ulps=lambda size, _dtype: np.minimum(size, 40.0) ** 2 / 2,
        ),
        Function(  # torch 1.1 of itself; XLA adds up terms that cancel, by up to 18 of 1 + |log x| (1 + x)
            "lgamma", lambda numbers, x, _y: numbers.digamma(x),
            lambda ball: ball.lgamma() if ball > 0 else arb.nan(), _of_floats(_lgamma), "loggamma(x)",
            lambda x: _where(x.low > 0, np.maximum(np.abs(_digamma_of(x.low)), np.abs(_digamma_of(x.high)))),
            ulps=8.0, inside=_gamma_terms,
        ),
        Function(  # up to 7.2 of 1 + |log x| + 1 / x
            "digamma", lambda numbers, x, _y: numbers.trigamma(x), _digamma, _digamma_of, "digamma(x)",
            lambda x: _where(x.low > 0, _trigamma_of(x.low)), ulps=8.0, inside=_digamma_terms,
        ),
        Function(  # not measured: only second derivatives of lgamma have it, and first ones of digamma
            "trigamma", lambda numbers, x, _y: numbers.tetragamma(x), _trigamma, _trigamma_of, "polygamma(1, x)",
            lambda x: _where(x.low > 0, -_tetragamma_of(x.low)), ulps=64.0,
        ),
        Function(  # likewise
            "tetragamma", _no_slope, _tetragamma, _tetragamma_of, "polygamma(2, x)",
            lambda x: _where(x.low > 0, 7 / np.minimum(x.low, 1) ** 4), ulps=64.0,
        ),
        Function(  # 2.7 / 2.5
            "sigmoid",
            lambda numbers, x, y: numbers.any_of(lambda: y * numbers.sigmoid(-x), lambda: y * (1 - y)),
            lambda ball: 1 / (1 + (-ball).exp()) if ball > 0 else ball.exp() / (1 + ball.exp()),
            logistic, "1/(1 + exp(-x))", lambda x: logistic(_nearest(x)) * logistic(-_nearest(x)),
        ),
    )
}  # fmt: skip

# f: f'(x), given the number system, x and y = f(x).
SLOPES: dict[str, Slope] = {
    "exp": lambda _numbers, _x, y: y,
    "expm1": lambda numbers, x, y: numbers.expm1_slope(x, y),
    "log": lambda _numbers, x, _y: 1 / x,
    "log1p": lambda _numbers, x, _y: 1 / (1 + x),
    "sqrt": lambda _numbers, _x, y: 0.5 / y,
    "sin": lambda numbers, x, _y: numbers.cos(x),
    "cos": lambda numbers, x, _y: -numbers.sin(x),
    "sinh": lambda numbers, x, _y: numbers.cosh(x),
    "cosh": lambda numbers, x, _y: numbers.sinh(x),
    "tanh": lambda numbers, x, y: numbers.tanh_slope(x, y),
    "sign": lambda _numbers, _x, y: 0 * y,
} | {name: function.slope for name, function in FUNCTIONS.items()}
