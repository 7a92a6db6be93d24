"""Functions of one variable, each beside its derivative, over any number system.

Those of `SLOPES` alone are written out in each number system. The others stand in `FUNCTIONS`, with all that any number
system asks for: `Tabled` finds them by name.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from flint import arb

from gdcompare.arithmetic.function import Constant, Function, Slope, constant, nearest, within
from gdcompare.arithmetic.integrals import INTEGRALS
from gdcompare.arithmetic.special import SPECIAL


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


def _cube_root(ball: Any) -> Any:
    return ball.root(3) if ball >= 0 else -(-ball).root(3) if ball < 0 else ball.sgn() * ball.abs_upper().root(3)


def logistic(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)), also far out."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1 + small)


def _off_1(x: Any) -> Any:
    """Return 1 - x^2 at the largest |x| within reach, which is below 0 outside of [-1, 1]."""
    return (1 - x.size) * (1 + x.size)


def _steepest_tan(x: Any) -> Any:
    same = np.rint(x.low / math.pi) == np.rint(x.high / math.pi)
    return within(same, 1 + np.maximum(np.tan(x.low) ** 2, np.tan(x.high) ** 2))


def _atanh_ulps(size: Any, dtype: Any) -> Any:
    """Half the difference of logarithms, as XLA has it: see `RoundedNumbers.log1p`."""
    return np.where((dtype == np.float64) & (size > 0.28) & (size < 0.43), 100.0, 0.0)


FUNCTIONS = {
    each.name: each
    for each in (
        Function(  # 2.4 / 1.0
            "tan", lambda _numbers, _x, y: 1 + y * y, arb.tan, np.tan, "tan(x)", _steepest_tan
        ),
        Function(  # 4.4 / 1.6
            "asin", lambda numbers, x, _y: 1 / numbers.sqrt(1 - x * x), arb.asin, np.arcsin, "asin(x)",
            lambda x: within(x.size < 1, np.sqrt(1 / _off_1(x))),
        ),
        Function(  # 2.2 / 1.8
            "acos", lambda numbers, x, _y: -(1 / numbers.sqrt(1 - x * x)), arb.acos, np.arccos, "acos(x)",
            lambda x: within(x.size < 1, np.sqrt(1 / _off_1(x))),
        ),
        Function(  # 2.5 / 1.1
            "atan", lambda _numbers, x, _y: 1 / (1 + x * x), arb.atan, np.arctan, "atan(x)",
            lambda x: 1 / (1 + nearest(x) ** 2),
        ),
        Function(  # 3.7 / 3.0
            "asinh", lambda numbers, x, _y: 1 / numbers.sqrt(1 + x * x), arb.asinh, np.arcsinh, "asinh(x)",
            lambda x: 1 / np.sqrt(1 + nearest(x) ** 2),
        ),
        Function(  # 4.3 / 3.5
            "acosh",
            lambda numbers, x, _y: numbers.any_of(
                lambda: 1 / numbers.sqrt((x - 1) * (x + 1)), lambda: 1 / numbers.sqrt(x * x - 1)
            ),
            arb.acosh, np.arccosh, "acosh(x)", lambda x: within(x.low > 1, 1 / np.sqrt((x.low - 1) * (x.low + 1))),
        ),
        Function(  # 2.5 / 1.5, but XLA's float64 reaches 145 beside 0.42
            "atanh",
            lambda numbers, x, _y: numbers.any_of(lambda: 1 / ((1 - x) * (1 + x)), lambda: 1 / (1 - x * x)),
            arb.atanh, np.arctanh, "atanh(x)", lambda x: within(x.size < 1, 1 / _off_1(x)), more_ulps=_atanh_ulps,
        ),
        Function(  # 2.4 / 1.7
            "log2",
            lambda numbers, x, _y: numbers.any_of(
                lambda: 1 / (x * constant(numbers, "log 2", x)), lambda: (1 / constant(numbers, "log 2", x)) / x
            ),
            lambda ball: ball.log() / arb(2).log(), np.log2, "log(x)/log(2)",
            lambda x: within(x.low > 0, 1.45 / x.low),
        ),
        Function(  # 3.3 / 2.0
            "log10",
            lambda numbers, x, _y: numbers.any_of(
                lambda: 1 / (x * constant(numbers, "log 10", x)), lambda: (1 / constant(numbers, "log 10", x)) / x
            ),
            lambda ball: ball.log() / arb(10).log(), np.log10, "log(x)/log(10)",
            lambda x: within(x.low > 0, 0.44 / x.low),
        ),
        Function(  # 1.7 / 1.1, but XLA takes exp(x log 2), and rounds the argument
            "exp2", lambda numbers, x, y: y * constant(numbers, "log 2", x), lambda ball: arb(2) ** ball, np.exp2,
            "2**x", lambda x: 0.7 * np.exp2(x.high), more_ulps=lambda size, _dtype: size,
        ),
        Function(  # 2.4 / 1.5
            "rsqrt",
            lambda numbers, x, y: numbers.any_of(lambda: -0.5 * (y / x), lambda: -0.5 * (y * y * y)),
            arb.rsqrt, lambda x: 1 / np.sqrt(x), "1/sqrt(x)", lambda x: within(x.low > 0, 0.5 * np.abs(x.low) ** -1.5),
        ),
        Function(  # 2.5 / 4.0
            "cbrt",
            lambda numbers, x, y: numbers.any_of(lambda: y / (3 * x), lambda: (y / x) / 3),
            _cube_root, np.cbrt, "sign(x)*Abs(x)**(1/3)", lambda x: 1 / (3 * np.cbrt(nearest(x)) ** 2),
        ),
        Function(  # 2.7 / 2.5
            "sigmoid",
            lambda numbers, x, y: numbers.any_of(lambda: y * numbers.sigmoid(-x), lambda: y * (1 - y)),
            lambda ball: 1 / (1 + (-ball).exp()) if ball > 0 else ball.exp() / (1 + ball.exp()),
            logistic, "1/(1 + exp(-x))", lambda x: logistic(nearest(x)) * logistic(-nearest(x)),
        ),
        *SPECIAL,
        *INTEGRALS,
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
