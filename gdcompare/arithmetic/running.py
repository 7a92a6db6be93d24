"""Running totals along an axis: of sums, products, largest and smallest numbers, and sums of exponentials."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np


def cumulative_sum(
    xp: Any, x: Any, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    """x_1 + ... + x_i, in whatever order: a product with a matrix of ones above the diagonal."""
    del dtype
    x = xp.asarray(x)
    axis = _only(x, axis)
    n = x.shape[axis]
    above = xp.asarray(np.triu(np.ones((n, n + include_initial)), int(include_initial)))
    return xp.moveaxis(xp.moveaxis(x, axis, -1) @ above, -1, axis)


def cumulative_prod(
    xp: Any, x: Any, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    """y_i = x_1 x_2 ... x_i: dL/dx_i = y_{i - 1} r_i with r_i = g_i + x_{i + 1} r_{i + 1}.

    Torch has sum_{j >= i} g_j y_j / x_i where x_i is not 0.
    """
    del dtype
    x, numbers, times = xp.asarray(x), xp.numbers, xp.numbers.chain
    axis = _only(x, axis)
    factors = xp.moveaxis(x, axis, -1)
    n = factors.shape[-1]
    each = [factors.value[..., i] for i in range(n)]
    products = list(accumulate(each, operator.mul))

    def stacked(parts: list[Any]) -> Any:
        hidden = max(part.shape[0] for part in parts)
        even = [xp.broadcast(part, (hidden, *factors.shape[:-1])) for part in parts]
        return numbers.rearrange(lambda *some: np.stack(some, axis=-1), *even)

    value = stacked(products)

    def by_recurrence(g: Any) -> Any:
        rest = [g[..., n - 1]]
        for i in range(n - 2, -1, -1):
            rest.append(g[..., i] + times(rest[-1], each[i + 1]))
        return stacked([times(one, products[i - 1]) if i else one for i, one in enumerate(rest[::-1])])

    def divided(g: Any) -> Any:
        zero = numbers.compare(np.equal, factors.value, numbers.asarray(0.0), False)
        below = numbers.asarray(np.tri(n)[None])
        return numbers.where(zero, by_recurrence(g), (times(g, value)[..., None, :] @ below)[..., 0, :] / factors.value)

    result = xp.record(value, (factors, lambda g: numbers.any_of(lambda: by_recurrence(g), lambda: divided(g))))
    if include_initial:
        result = xp.concat([xp.ones((*factors.shape[:-1], 1)), result], axis=-1)
    return xp.moveaxis(result, -1, axis)


def _only(x: Any, axis: int | None) -> int:
    if axis is None and x.ndim != 1:
        raise TypeError(f"a running total wants an axis, of an array of {x.ndim} dimensions")
    return (axis or 0) % int(x.ndim)


def cumulative_max(xp: Any, x: Any, *, axis: int | None = None) -> Any:
    """The largest of x_1, ..., x_i."""
    return _in_turn(xp, x, axis, partial(xp.maximum, kind="cumulative_max"))


def cumulative_min(xp: Any, x: Any, *, axis: int | None = None) -> Any:
    """The smallest of x_1, ..., x_i."""
    return _in_turn(xp, x, axis, partial(xp.minimum, kind="cumulative_min"))


def cumulative_logsumexp(xp: Any, x: Any, *, axis: int | None = None) -> Any:
    """log(exp(x_1) + ... + exp(x_i))."""
    return _in_turn(xp, x, axis, xp.logaddexp)


def _in_turn(xp: Any, x: Any, axis: int | None, function: Callable[[Any, Any], Any]) -> Any:
    """Return y_i = f(y_{i - 1}, x_i): no element meets itself, so that none ties with itself."""
    x = xp.asarray(x)
    axis = _only(x, axis)
    return xp.stack(list(accumulate(xp.unstack(x, axis=axis), function)), axis=axis) if x.shape[axis] else x
