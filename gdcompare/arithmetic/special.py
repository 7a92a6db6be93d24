"""Special functions of one variable, each beside its derivative: error, gamma and Bessel functions, and their orders.

Those of an order are families: one function for each order, which is a constant.

    zeta(s, x) = sum over k >= 0 of (x + k)^-s                        d/dx = -s zeta(s + 1, x)
    B_n(x) = I_n(x) / x^n, I_n the modified Bessel function           d/dx = x B_{n + 1}
    S_n(x) = exp(-x) B_n(x)                                           d/dx = x S_{n + 1} - S_n
    C_k(x) = 0F1(k + 3/2, -(pi x)^2 / 4), where C_0 = sinc            d/dx = -pi^2 x / (2 k + 3) C_{k + 1}
    P(a, x) = integral from 0 to x of t^(a - 1) exp(-t) / Gamma(a)    d/dx = x^(a - 1) exp(-x) / Gamma(a)

The last four have no pole, so that they are known at 0 and in every ball around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from flint import arb

from gdcompare.arithmetic.function import Function, by_arb, constant, nearest, of_floats, within

# The gamma function and its derivatives.


def _lgamma(x: float) -> float:
    return math.lgamma(x) if 0 < x < math.inf else x if x == math.inf else math.nan


def _digamma(ball: Any) -> Any:
    return ball.digamma() if ball > 0 else arb.nan()


def _trigamma(ball: Any) -> Any:
    return arb(2).zeta(ball) if ball > 0 else arb.nan()


def _tetragamma(ball: Any) -> Any:
    return -2 * arb(3).zeta(ball) if ball > 0 else arb.nan()


_digamma_of, _trigamma_of, _tetragamma_of = map(by_arb, (_digamma, _trigamma, _tetragamma))
_gamma_terms = of_floats(lambda x: 2 * (1 + abs(math.log(x)) * (1 + x)) if 0 < x < math.inf else 0.0)
_digamma_terms = of_floats(lambda x: 1 + abs(math.log(x)) + 1 / x if 0 < x < math.inf else 0.0)


@cache
def zeta_of(s: float) -> Function:
    """Return Hurwitz' zeta function of x > 0, for an order s > 1."""

    def ball(x: Any) -> Any:
        return arb(s).zeta(x) if x > 0 and s > 1 else arb.nan()

    def steepest(x: Any) -> Any:
        return within(x.low > 0, s * zeta_of(s + 1).floats(x.low))

    slope = lambda numbers, x, _y: -s * numbers.tabled(zeta_of(s + 1), x)  # noqa: E731 - as in the table
    return Function(  # 6.4 / 8.3
        f"zeta({s:g}, x)", slope, ball, by_arb(ball), f"zeta({s!r}, x)", steepest, ulps=16.0
    )


@cache
def lower_gamma_of(a: float) -> Function:
    """Return the share of Gamma(a) that lies below x >= 0, for a > 0."""
    return _share_of_gamma(a, "lower")


@cache
def upper_gamma_of(a: float) -> Function:
    """Return the share of Gamma(a) that lies above x >= 0, for a > 0."""
    return _share_of_gamma(a, "upper")


def _share_of_gamma(a: float, side: str) -> Function:
    """JAX and torch add up a series, or a continued fraction, times x^a exp(-x) / Gamma(a + 1), whose exponent rounds.

    So the function is off by ulps of 1 + its own exponents times the density.
    """
    log_gamma = _lgamma(a)
    sign = 1.0 if side == "lower" else -1.0

    def ball(x: Any) -> Any:
        function = x.gamma_lower if side == "lower" else x.gamma_upper
        return function(a, regularized=1) if x >= 0 and a > 0 else arb.nan()

    def density(numbers: Any, x: Any, _y: Any) -> Any:
        of_order = numbers.lgamma(numbers.asarray(np.full((1,) * x.ndim, a)))  # by the framework, which rounds it
        exponent = (a - 1) * numbers.log(x) - x - of_order
        return sign * numbers.exp(exponent)

    def of_float(x: Any) -> Any:
        return np.exp((a - 1) * np.log(x) - x - log_gamma)

    def steepest(x: Any) -> Any:
        top = np.clip(max(a - 1, 0.0), x.low, x.high)
        return within(x.low > 0, np.maximum.reduce([of_float(at) for at in (x.low, x.high, np.maximum(top, 1e-300))]))

    def exponents(x: Any) -> Any:
        with np.errstate(all="ignore"):
            terms = (a * np.abs(np.log(x)) + x + abs(log_gamma) + 1) * of_float(x) * x * (1 + 1 / a)
        return np.where(np.isfinite(terms), terms, 0.0)

    expression = f"lowergamma({a!r}, x)" if side == "lower" else f"uppergamma({a!r}, x)"
    name = f"igamma({a:g}, x)" if side == "lower" else f"igammac({a:g}, x)"
    return Function(
        name, density, ball, by_arb(ball), f"{expression}/gamma({a!r})", steepest, ulps=16.0, inside=exponents
    )


# Bessel functions.


@cache
def bessel_of(n: int) -> Function:
    """Return B_n = I_n(x) / x^n, which is even, and grows with |x|."""

    def ball(x: Any) -> Any:
        return (x * x / 4).hypgeom_0f1(n + 1) / (2**n * math.factorial(n))

    def steepest(x: Any) -> Any:
        return x.size * bessel_of(n + 1).floats(x.size)

    slope = lambda numbers, x, _y: x * numbers.tabled(bessel_of(n + 1), x)  # noqa: E731 - as in the table
    name = "i0" if n == 0 else f"I_{n}(x)/x^{n}"
    return Function(  # 5.2 / 5.6 of i0, 11.9 / 8.7 of i1 / x, but JAX rounds the exponent of exp(|x|)
        name, slope, ball, by_arb(ball), f"besseli({n}, x)/x**{n}", steepest, 8.0, lambda size, _dtype: size
    )


@cache
def scaled_bessel_of(n: int) -> Function:
    """Return S_n = exp(-x) I_n(x) / x^n, of x >= 0, where it falls."""

    def ball(x: Any) -> Any:
        return (-x).exp() * (x * x / 4).hypgeom_0f1(n + 1) / (2**n * math.factorial(n))

    floats = by_arb(ball)
    slope = lambda numbers, x, y: x * numbers.tabled(scaled_bessel_of(n + 1), x) - y  # noqa: E731 - as in the table
    name = f"exp(-x) I_{n}(x)/x^{n}"
    symbol = f"exp(-x)*besseli({n}, x)/x**{n}"
    return Function(name, slope, ball, floats, symbol, lambda x: floats(x.low), 12.0)  # 4.6 / 5.6; n = 1: 13.7 / 9.8


# sin(pi x) / (pi x).


@cache
def sinc_of(k: int) -> Function:
    """Return C_k, no larger than 1."""

    def ball(x: Any) -> Any:
        return x.sinc_pi() if k == 0 else (-((arb.pi() * x) ** 2) / 4).hypgeom_0f1(k + arb(1.5))

    def slope(numbers: Any, x: Any, _y: Any) -> Any:
        """Frameworks have (cos(pi x) - sinc(x)) / x, which cancels near 0, and there 0."""
        pi = constant(numbers, "pi", x)

        def whole() -> Any:
            return -(pi * pi / (2.0 * k + 3.0)) * (x * numbers.tabled(sinc_of(k + 1), x))

        def apart() -> Any:
            zero, zeros = numbers.asarray(0.0), numbers.asarray(np.zeros(x.shape))
            nothing = numbers.compare(np.equal, x, zero, False)
            divisor = numbers.where(nothing, numbers.asarray(np.ones(x.shape)), x)
            turned = pi * x
            quotient = (turned * numbers.cos(turned) - numbers.sin(turned)) / (turned * divisor)
            return numbers.where(nothing, zeros, quotient)

        return numbers.any_of(whole, apart) if k == 0 else whole()

    def steepest(x: Any) -> Any:
        return np.minimum(math.pi**2 * x.size / (2 * k + 3), 1.4)

    name = "sinc" if k == 0 else f"C_{k}(x)"
    symbol = "sinc(pi*x)" if k == 0 else f"hyper([], [{2 * k + 3}/2], -pi**2*x**2/4)"
    return Function(  # the argument pi x rounds
        name, slope, ball, by_arb(ball), symbol, steepest, 4.0, inside=lambda x: np.where(x == 0, 0.0, 1.0)
    )


def _erf_inv(ball: Any) -> Any:
    return ball.erfinv() if abs(ball) < 1 else arb.nan()


_inverse = by_arb(_erf_inv)


def _condition_of_inverse(x: Any) -> Any:
    """Return x f'(x) / f(x), which is 1 at 0."""
    y = _inverse(x)
    return np.where(x == 0, 1.0, 0.887 * np.exp(y * y) * x / np.where(x == 0, 1.0, y))


_half_root_pi: Callable[[Any, Any], Any] = lambda numbers, x: 1 / constant(numbers, "2 / root pi", x)  # noqa: E731

SPECIAL = (
    Function(  # 3.7 / 1.2
        "erf", lambda numbers, x, _y: constant(numbers, "2 / root pi", x) * numbers.exp(-(x * x)),
        arb.erf, of_floats(math.erf), "erf(x)", lambda x: 1.13 * np.exp(-(nearest(x) ** 2)),
    ),
    Function(  # 1.5 / 1.4, but XLA rounds the square in exp(-x^2), and takes 1 - erf(x) up to 1
        "erfc", lambda numbers, x, _y: -(constant(numbers, "2 / root pi", x) * numbers.exp(-(x * x))),
        arb.erfc, of_floats(math.erfc), "erfc(x)", lambda x: 1.13 * np.exp(-(nearest(x) ** 2)),
        ulps=12.0, more_ulps=lambda size, _dtype: np.minimum(size, 40.0) ** 2 / 2,
    ),
    Function(  # torch 1.0 / 1.0; JAX 88 / 77,000 near 1, because it rounds the square in 1 - x^2
        "erf_inv", lambda numbers, x, y: _half_root_pi(numbers, x) * numbers.exp(y * y), _erf_inv, _inverse,
        "erfinv(x)", lambda x: within(x.size < 1, 0.887 * np.exp(_inverse(np.minimum(x.size, 1.0)) ** 2)), ulps=8.0,
        more_ulps=lambda size, _dtype: _condition_of_inverse(np.minimum(size, 1.0)),
    ),
    Function(  # torch 1.1 of itself; XLA adds up terms that cancel, by up to 18 of 1 + |log x| (1 + x)
        "lgamma", lambda numbers, x, _y: numbers.digamma(x),
        lambda ball: ball.lgamma() if ball > 0 else arb.nan(), of_floats(_lgamma), "loggamma(x)",
        lambda x: within(x.low > 0, np.maximum(np.abs(_digamma_of(x.low)), np.abs(_digamma_of(x.high)))),
        ulps=8.0, inside=_gamma_terms,
    ),
    Function(  # up to 7.2 of 1 + |log x| + 1 / x
        "digamma", lambda numbers, x, _y: numbers.trigamma(x), _digamma, _digamma_of, "digamma(x)",
        lambda x: within(x.low > 0, _trigamma_of(x.low)), ulps=8.0, inside=_digamma_terms,
    ),
    Function(  # not measured: only second derivatives of lgamma have it, and first ones of digamma
        "trigamma", lambda numbers, x, _y: numbers.tetragamma(x), _trigamma, _trigamma_of, "polygamma(1, x)",
        lambda x: within(x.low > 0, -_tetragamma_of(x.low)), ulps=64.0,
    ),
    Function(  # likewise
        "tetragamma", lambda numbers, x, _y: 6 * numbers.tabled(zeta_of(4.0), x), _tetragamma, _tetragamma_of,
        "polygamma(2, x)", lambda x: within(x.low > 0, 7 / np.minimum(x.low, 1) ** 4), ulps=64.0,
    ),
    bessel_of(0),
    sinc_of(0),
)  # fmt: skip
