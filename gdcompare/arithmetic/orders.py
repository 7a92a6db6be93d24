"""Special functions that have an order, over any number system; the order is a constant, one number or an array.

Each different order is a function of its own (`special`). By the order itself nobody differentiates: what would need
that derivative is not known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gdcompare.arithmetic.function import UNKNOWN_ORDER, Function, unknown
from gdcompare.arithmetic.integrals import exponential_integral_of, share_of_beta_of
from gdcompare.arithmetic.special import bessel_of, lower_gamma_of, scaled_bessel_of, upper_gamma_of, zeta_of
from gdcompare.arithmetic.whole import changing_as, exact_floats, on_tape

MOST_ORDERS = 64
_UNKNOWN = unknown(UNKNOWN_ORDER)


def zeta(xp: Any, s: Any, x: Any) -> Any:
    """sum over k >= 0 of (x + k)^-s, of a constant s > 1: Hurwitz' zeta function."""
    return _by_order(xp, zeta_of, [s], x, "zeta")


def polygamma(xp: Any, n: Any, x: Any) -> Any:
    """The derivative of digamma of order n, a constant: (-1)^(n + 1) n! zeta(n + 1, x)."""
    n, x = xp.asarray(n), xp.asarray(x)
    orders, _ = exact_floats(n.value)
    of_zeta, factor = orders + 1, np.vectorize(_factor, otypes=[np.float64])(orders)
    order = on_tape(xp, x, np.where(orders == 0, 2.0, of_zeta))
    found = on_tape(xp, x, factor) * _with_slope_of(xp, n, _by_order(xp, zeta_of, [order], x, "polygamma"))
    return xp.where(on_tape(xp, x, (orders == 0) * 1.0), xp.digamma(x), found) if (orders == 0).any() else found


def _factor(n: float) -> float:
    return (-1.0) ** (n + 1) * math.factorial(int(n)) if 0 <= n <= 170 and n == int(n) else math.nan


def igamma(xp: Any, a: Any, x: Any) -> Any:
    """The integral from 0 to x of t^(a - 1) exp(-t) / Gamma(a), of a constant a > 0."""
    return _by_order(xp, lower_gamma_of, [a], x, "igamma")


def igammac(xp: Any, a: Any, x: Any) -> Any:
    """1 - igamma(a, x)."""
    return _by_order(xp, upper_gamma_of, [a], x, "igammac")


def betainc(xp: Any, a: Any, b: Any, x: Any) -> Any:
    """The integral from 0 to x of t^(a - 1) (1 - t)^(b - 1) / B(a, b), of constants a, b > 0."""
    return _by_order(xp, share_of_beta_of, [a, b], x, "betainc")


def expint(xp: Any, n: Any, x: Any) -> Any:
    """The integral from 1 of exp(-x t) / t^n, of a constant n, and x > 0."""
    return _by_order(xp, exponential_integral_of, [n], x, "expint")


def i1(xp: Any, x: Any) -> Any:
    """The modified Bessel function of order 1."""
    x = xp.asarray(x)
    return x * xp.tabled(bessel_of(1), x)


def i0e(xp: Any, x: Any) -> Any:
    """exp(-|x|) i0(x)."""
    return xp.tabled(scaled_bessel_of(0), xp.abs(x))


def i1e(xp: Any, x: Any) -> Any:
    """exp(-|x|) i1(x)."""
    x = xp.asarray(x)
    return x * xp.tabled(scaled_bessel_of(1), xp.abs(x))


def _by_order(xp: Any, family: Callable[..., Function], orders: Sequence[Any], x: Any, name: str) -> Any:
    """Return each order's own function of x, and nothing known of those whose orders are not."""
    *orders, x = xp.broadcast_arrays(*orders, x)
    floats, known = zip(*(exact_floats(each.value) for each in orders), strict=True)
    each_its = np.stack(np.broadcast_arrays(*floats), axis=-1)
    different = np.unique(each_its.reshape(-1, len(orders)), axis=0)
    if any(order.tracked and not each.all() for order, each in zip(orders, known, strict=True)):
        return xp.tabled(_UNKNOWN, sum(orders, x))  # about a parameter that is no single number nobody knows it
    if not all(each.all() for each in known) or len(different) > MOST_ORDERS:
        raise TypeError(f"{name} wants an order that is a constant, and at most {MOST_ORDERS} different ones")
    found = xp.tabled(family(*different[0].tolist()), x)
    for each in different[1:]:
        here = (each_its == each).all(axis=-1) * 1.0
        found = xp.where(on_tape(xp, x, here), xp.tabled(family(*each.tolist()), x), found)
    for order in orders:
        found = _with_slope_of(xp, order, found)
    return found


def _with_slope_of(xp: Any, order: Any, found: Any) -> Any:
    """Return the same numbers, whose derivative by the order is not known."""
    if not order.tracked:
        return found
    nothing = xp.numbers.asarray(np.full((1,) * found.value.ndim, np.nan))
    moved = order.value * nothing  # with the order the slopes move, too

    def moving(value: Any) -> Any:
        return changing_as(value, value, moved)

    return xp.record(moving(found.value), (found, moving), (order, lambda g: moving(g * nothing)))
