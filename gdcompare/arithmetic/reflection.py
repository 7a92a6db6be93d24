"""The logarithm of the gamma function and its derivatives, in programs: below 0, between the poles, by those above."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gdcompare.arithmetic.program import Place, UnsaidError

MOST_STEPS = 64


def lgamma(xp: Any, x: Any) -> Any:
    """Return log |Gamma(x)|; below 0 it is log(pi / |sin(pi x)|) - log Gamma(1 - x)."""
    below = _below(x)
    if not below.any():
        return xp.lgamma(x)
    turned, pi = xp.where(below, x, 0.5), xp.number("pi")
    reflected = xp.log(xp.divide(pi, xp.abs(xp.sin(xp.multiply(pi, turned))))) - xp.lgamma(xp.subtract(1.0, turned))
    return xp.where(below, reflected, xp.lgamma(xp.where(below, 1.0, x)))


def digamma(xp: Any, x: Any) -> Any:
    """Return psi(x); below 0 it is psi(1 - x) - pi / tan(pi x)."""
    below = _below(x)
    if not below.any():
        return xp.digamma(x)
    turned, pi = xp.where(below, x, 0.5), xp.number("pi")
    reflected = xp.digamma(xp.subtract(1.0, turned)) - xp.divide(pi, xp.tan(xp.multiply(pi, turned)))
    return xp.where(below, reflected, xp.digamma(xp.where(below, 1.0, x)))


def polygamma(xp: Any, n: Any, x: Any) -> Any:
    """Return psi_n(x); below 0 by steps of 1, psi_n(x) = psi_n(x + 1) - (-1)^n n! x^-(n + 1)."""
    orders = np.unique(_value(n))
    below = _below(x)
    if not below.any():
        return xp.polygamma(n, x)
    if len(orders) != 1:
        raise UnsaidError("it is asked for several orders at once, below 0")
    order = float(orders[0])
    if order == 0:
        return digamma(xp, x)
    steps = int(np.floor(-np.min(_value(x)))) + 1
    if steps > MOST_STEPS:
        raise UnsaidError(f"it is asked for a number below -{MOST_STEPS}")
    under, factor = xp.where(below, x, 0.5), float((-1) ** int(order) * math.factorial(int(order)))
    moved = xp.polygamma(order, xp.add(under, float(steps)))
    for j in range(steps):
        moved = xp.subtract(moved, xp.divide(factor, xp.pow(xp.add(under, float(j)), order + 1)))
    return xp.where(below, moved, xp.polygamma(order, xp.where(below, 1.0, x)))


def _below(x: Any) -> Any:
    """Return where numbers are below 0. Raises UnsaidError at a pole."""
    value = _value(x)
    poles = value[(value <= 0) & (value == np.floor(value)) & np.isfinite(value)]
    if poles.size:
        raise UnsaidError(
            f"it is asked at {poles.flat[0]:g}, a pole of the gamma function: keep x off it before, as in "
            "lgamma(where(x > 0, x, 1))"
        )
    return value < 0


def _value(x: Any) -> Any:
    return np.asarray(x.value if isinstance(x, Place) else x, dtype=np.float64)
