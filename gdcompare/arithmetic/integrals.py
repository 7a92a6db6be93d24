"""Integrals as functions of one variable, each beside its derivative: exponential ones, scaled errors, shares of beta.

    Ei(x) = -integral from -x of exp(-t) / t                                    d/dx = exp(x) / x
    E_n(x) = integral from 1 of exp(-x t) / t^n, of x > 0                       d/dx = -E_{n - 1}
    erfcx(x) = exp(x^2) erfc(x)                                                 d/dx = 2 x erfcx(x) - 2 / sqrt(pi)
    dawsn(x) = exp(-x^2) integral from 0 to x of exp(t^2)                       d/dx = 1 - 2 x dawsn(x)
    I_x(a, b) = integral from 0 to x of b_ab(t)                                 d/dx = b_ab(x)
    b_ab(t) = t^(a - 1) (1 - t)^(b - 1) / B(a, b)

The slopes are those of frameworks: where they cancel, these lose the digits that their budget says.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from flint import arb

from gdcompare.arithmetic.function import Function, by_arb, constant, nearest, within


@cache
def exponential_integral_of(n: float) -> Function:
    """Return E_n of x > 0, for any order."""

    def ball(x: Any) -> Any:
        return x.expint(arb(n)) if x > 0 else arb.nan()

    def steepest(x: Any) -> Any:
        return within(x.low > 0, exponential_integral_of(n - 1).floats(x.low))

    slope = lambda numbers, x, _y: -numbers.tabled(exponential_integral_of(n - 1), x)  # noqa: E731 - as in the table
    return Function(  # 38 / 12 of E_2, 12 / 12 of the others
        f"expint({n:g}, x)", slope, ball, by_arb(ball), f"expint({n!r}, x)", steepest, ulps=32.0,
        inside=_logarithm if n == 1 else _nothing,
    )  # fmt: skip


def _nothing(_x: Any) -> Any:
    return 0.0


def _logarithm(x: Any) -> Any:
    """Return the terms of a series up to 2, which begins with log |x|."""
    with np.errstate(all="ignore"):
        return np.where((np.abs(x) > 0) & (np.abs(x) <= 2), np.abs(np.log(np.abs(x))) + 1, 0.0)


def _steepest_ei(x: Any) -> Any:
    at = np.maximum(*(np.exp(each) / np.abs(each) for each in (x.low, x.high)))  # no larger one in between
    return within((x.low > 0) | (x.high < 0), at)


def _steepest_erfcx(x: Any) -> Any:
    """It falls, ever less: |f'| <= 1 / (sqrt(pi) x^2) for x > 0."""
    above, below = np.maximum(x.low, 1e-150), np.minimum(x.low, 0.0)
    steep = 2 * np.abs(below) * _erfcx_of(below) + 1.13
    return np.where(x.low > 0, np.minimum(1.13, 0.5642 / above**2), steep)


_erfcx_of = by_arb(lambda ball: (ball * ball).exp() * ball.erfc())
_dawsn_of = by_arb(lambda ball: _dawsn(ball))


def _dawsn(ball: Any) -> Any:
    return (-(ball * ball)).exp() * ball.erfi() * arb.pi().sqrt() / 2


@cache
def share_of_beta_of(a: float, b: float) -> Function:
    """Return I_x(a, b) of x in [0, 1], for a, b > 0: JAX and torch add up a continued fraction times its density.

    Their slope is exp((b - 1) log(1 - x) + (a - 1) log(x) - log B(a, b)), whose exponent rounds.
    """
    beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b) if a > 0 and b > 0 else math.nan

    def ball(x: Any) -> Any:
        return x.beta_lower(a, b, 1) if a > 0 and b > 0 and 0 <= x <= 1 else arb.nan()

    def density(numbers: Any, x: Any, _y: Any) -> Any:
        def of_order(order: float) -> Any:
            return numbers.lgamma(numbers.asarray(np.full((1,) * x.ndim, order)))

        exponent = of_order(a + b) - (of_order(a) + of_order(b))
        if b != 1:
            exponent = exponent + (b - 1) * numbers.log1p(-x)
        if a != 1:
            exponent = exponent + (a - 1) * numbers.log(x)
        return numbers.exp(exponent) + 0 * x

    def of_float(x: Any) -> Any:
        return np.exp((b - 1) * np.log1p(-x) + (a - 1) * np.log(x) - beta)

    def steepest(x: Any) -> Any:
        with np.errstate(all="ignore"):
            middle = min(max((a - 1) / (a + b - 2), 0.0), 1.0) if a + b != 2 else 0.5
            at = [np.clip(each, 1e-300, 1 - 2.0**-53) for each in (x.low, x.high, np.clip(middle, x.low, x.high))]
            return within((x.low > 0) & (x.high < 1), np.maximum.reduce([of_float(each) for each in at]))

    def exponents(x: Any) -> Any:
        with np.errstate(all="ignore"):
            sizes = a * np.abs(np.log(x)) + b * np.abs(np.log1p(-x)) + abs(beta) + 1
            terms = sizes * of_float(x) * x * (1 - x) * (1 / a + 1 / b)
        return np.where(np.isfinite(terms), terms, 0.0)

    return Function(  # JAX up to 180 / 1900, where the fraction is long
        f"betainc({a:g}, {b:g}, x)", density, ball, by_arb(ball), f"betainc_regularized({a!r}, {b!r}, 0, x)", steepest,
        ulps=128.0, inside=exponents,
    )  # fmt: skip


INTEGRALS = (
    Function(  # 5.5 / 11 of itself and the terms
        "expi", lambda numbers, x, _y: numbers.exp(x) / x,
        lambda ball: ball.ei() if ball != 0 else arb.nan(), by_arb(lambda ball: ball.ei()), "Ei(x)", _steepest_ei,
        ulps=12.0, inside=_logarithm,
    ),
    Function(  # 32 / 33, by the square that rounds; JAX's erfc in float32 is 0 beyond 9.2
        "erfcx", lambda numbers, x, y: 2 * x * y - constant(numbers, "2 / root pi", x),
        lambda ball: (ball * ball).exp() * ball.erfc(), _erfcx_of, "exp(x**2)*erfc(x)", _steepest_erfcx,
        ulps=8.0, more_ulps=lambda size, _dtype: np.minimum(size, 27.0) ** 2,
    ),
    Function(  # 4.2 / 4.2
        "dawsn", lambda _numbers, x, y: 1 - 2 * x * y, _dawsn, _dawsn_of, "sqrt(pi)/2*exp(-x**2)*erfi(x)",
        lambda x: np.minimum(1.0, 1 / np.maximum(nearest(x), 1e-150) ** 2), ulps=8.0,
    ),
)  # fmt: skip
