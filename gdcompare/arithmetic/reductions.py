"""Array functions along axes: products, spreads, orders, and sums of exponentials.

Orders are made of comparisons and of the larger and smaller of two, so that a tie is noted as it is for `max`. Indices
are whole numbers that depend on nothing: they jump where two numbers change places.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.axes import Axis, axes_of, kept, with_axes_last
from gdcompare.arithmetic.whole import as_condition, changing_as, known_whole, on_tape

# Products and spreads.


def prod(xp: Any, x: Any, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """The product: d prod x_i = sum_i (prod of the others) dx_i, which is prod x / x_i where x_i is not 0."""
    del dtype
    x, numbers, times = xp.asarray(x), xp.numbers, xp.numbers.chain
    factors = with_axes_last(xp, x, axis)
    n = factors.shape[-1]
    if n == 0:
        return kept(xp, xp.ones(factors.shape[:-1]), x, axis) if keepdims else xp.ones(factors.shape[:-1])
    each = [factors.value[..., i] for i in range(n)]
    before, after = [each[0]], [each[-1]]
    for one, other in zip(each[1:], each[-2::-1], strict=True):
        before.append(before[-1] * one)
        after.append(other * after[-1])
    after.reverse()
    value = before[-1]

    def of_others(g: Any) -> Any:
        one = numbers.asarray(np.ones(value.shape))
        others = [(before[i - 1] if i else one) * (after[i + 1] if i < n - 1 else one) for i in range(n)]
        return times(g[..., None], numbers.rearrange(lambda *parts: np.stack(parts, axis=-1), *others))

    def divided(g: Any) -> Any:
        zero = numbers.compare(np.equal, factors.value, numbers.asarray(0.0), False)
        return numbers.where(zero, of_others(g), times(g[..., None], value[..., None]) / factors.value)

    result = xp.record(value, (factors, lambda g: numbers.any_of(lambda: of_others(g), lambda: divided(g))))
    return kept(xp, result, x, axis) if keepdims else result


def var(xp: Any, x: Any, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """sum (x_i - m)^2 / (n - correction), m the mean: d = sum 2 (x_i - m) dx_i / (n - correction).

    Whoever differentiates m, too, takes from these slopes their mean, which is 0 but for the rounding of m.
    """
    x, numbers, times = xp.asarray(x), xp.numbers, xp.numbers.chain
    axes = axes_of(axis, x.ndim)
    n = math.prod(x.shape[i] for i in axes)
    off = x.value - numbers.sum(x.value, axes) / float(n)
    value = numbers.sum(off * off, axes) / (n - correction)

    def directly(g: Any) -> Any:
        return times(g, off) * 2.0 / (n - correction)

    def with_the_mean(g: Any) -> Any:
        slopes = directly(g)
        return slopes - numbers.sum(slopes, axes) / float(n)

    result = xp.record(value, (x, lambda g: numbers.any_of(lambda: directly(g), lambda: with_the_mean(g))))
    return result if keepdims else xp.squeeze(result, axes)


def std(xp: Any, x: Any, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """The root of the variance."""
    return xp.sqrt(xp.var(x, axis=axis, correction=correction, keepdims=keepdims))


def normalized(xp: Any, x: Any, eps: float, *, axis: Axis = None) -> Any:
    """(x_i - m) / r, m the mean and r = sqrt(eps + mean of (x_j - m)^2).

    With y the value, d y_i / d x_j g_i = (g_j - mean(g) - y_j mean(g y)) / r. That holds for the exact m alone: whoever
    takes the mean from all of this, as a differentiation step by step does, is off by less where m has been rounded.
    """
    x, numbers, times = xp.asarray(x), xp.numbers, xp.numbers.chain
    axes = axes_of(axis, x.ndim)
    n = float(math.prod(x.shape[i] for i in axes))

    def mean(values: Any) -> Any:
        return numbers.sum(values, axes) / n

    off = x.value - mean(x.value)
    squared = mean(off * off) + numbers.asarray(eps)
    root = numbers.sqrt(squared)
    value = xp.rounded(off / root)

    def step_by_step(g: Any) -> Any:
        slopes = times(g, 1.0 / root) - off * mean(times(g, off)) / (squared * root)
        return slopes - mean(slopes)

    def at_once(g: Any) -> Any:
        return (g - mean(g) - off * mean(times(g, off)) / squared) / root

    def by_values(g: Any) -> Any:
        return (g - mean(g) - value * mean(times(g, value))) / root

    pullback = lambda g: numbers.any_of(lambda: step_by_step(g), lambda: at_once(g), lambda: by_values(g))  # noqa: E731
    return xp.record(value, (x, pullback), kept=True)


# Conditions.


def conditions(xp: Any, x: Any) -> Any:
    """Return 1 where x is not 0, and a condition as it is."""
    x = xp.asarray(x)
    return x if x.condition else xp.not_equal(x, 0.0)


def all(xp: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:  # noqa: A001 - the standard's name
    """1 if none is 0."""
    return as_condition(xp.min(conditions(xp, x), axis=axis, keepdims=keepdims))


def any(xp: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:  # noqa: A001 - the standard's name
    """1 if one is not 0."""
    return as_condition(xp.max(conditions(xp, x), axis=axis, keepdims=keepdims))


def count_nonzero(xp: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """How many are not 0."""
    count = xp.sum(conditions(xp, x), axis=axis, keepdims=keepdims)
    count.whole = True
    return count


# Orders.


def argsort(xp: Any, x: Any, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """Which element comes first, second, ...; of equals the one that stands first."""
    del stable
    x = xp.asarray(x)
    return xp.moveaxis(_order(xp, xp.moveaxis(x, axis, -1), descending), -1, axis)


def argmax(xp: Any, x: Any, *, axis: int | None = None, keepdims: bool = False, descending: bool = True) -> Any:
    """Where the largest is; of equals the first."""
    x = xp.asarray(x)
    first = xp.index(_order(xp, with_axes_last(xp, x, axis), descending), (..., 0))
    return kept(xp, first, x, axis) if keepdims else first


def argmin(xp: Any, x: Any, *, axis: int | None = None, keepdims: bool = False) -> Any:
    """Where the smallest is; of equals the first."""
    return argmax(xp, x, axis=axis, keepdims=keepdims, descending=False)


def _order(xp: Any, x: Any, descending: bool) -> Any:
    """Return which comes first, second, ... along the last axis; of lines with an undecided pair nobody knows.

    Each pair is compared once, and a tie is a jump. What hangs on that is no decision of its own.
    """
    n = x.shape[-1]
    later, earlier = np.tril_indices(n, -1)
    one, other = (xp.index(x, (..., places)) for places in (earlier, later))
    first = xp.greater_equal(one, other) if descending else xp.less_equal(one, other)
    ranks = xp.scatter_add(xp.zeros(x.shape), (..., later), first)
    ranks, known = known_whole(xp.scatter_add(ranks, (..., earlier), 1 - first).value)
    order = np.where(known.all(axis=-1, keepdims=True), np.argsort(ranks, axis=-1), np.nan)
    return _whole(on_tape(xp, x, order))


def _whole(x: Any) -> Any:
    x.whole = True
    return x


def sort(xp: Any, x: Any, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """In order, by Batcher's network of pairs of which the smaller comes first."""
    del stable
    x = xp.moveaxis(xp.asarray(x), axis, -1)
    for low, high in _rounds(x.shape[-1]):
        rest = np.setdiff1d(np.arange(x.shape[-1]), [low, high])
        one, other = xp.index(x, (..., low)), xp.index(x, (..., high))
        small, large = -xp.maximum(-one, -other, kind="sort"), xp.maximum(other, one, kind="sort")  # equal ones stay
        kept = [xp.index(x, (..., rest))] if rest.size else []
        joined = xp.concat([small, large, *kept], axis=-1)
        x = xp.index(joined, (..., np.argsort(np.concatenate([low, high, rest]))))
    return xp.moveaxis(xp.flip(x, axis=-1) if descending else x, -1, axis)


def _rounds(n: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the pairs of Batcher's odd-even merge sort, those at once that have no element in common.

    >>> [(low.tolist(), high.tolist()) for low, high in _rounds(3)]
    [([0], [1]), ([0], [2]), ([1], [2])]
    """
    run = 1
    while run < n:
        step = run
        while step >= 1:
            starts = np.arange(step % run, n - step, 2 * step)
            low = (starts[:, None] + np.arange(step)).ravel()
            low = low[(low + step < n) & (low // (2 * run) == (low + step) // (2 * run))]
            if low.size:
                yield low, low + step
            step //= 2
        run *= 2


def topk(xp: Any, x: Any, k: int, *, axis: int = -1, largest: bool = True) -> tuple[Any, Any]:
    """Return the k largest in order, or the smallest, and where they are."""
    x = xp.asarray(x)
    key = (*[slice(None)] * (axis % x.ndim), slice(k))
    first = sort(xp, x, axis=axis, descending=largest), argsort(xp, x, axis=axis, descending=largest)
    values, places = (xp.index(each, key) for each in first)
    return values, _whole(places)


def quantile(xp: Any, x: Any, q: float, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """The number below which the share q lies: between two elements, in proportion."""
    x = xp.asarray(x)
    ordered = sort(xp, with_axes_last(xp, x, axis))
    place = q * (ordered.shape[-1] - 1)
    low, share = math.floor(place), place - math.floor(place)
    below, above = xp.index(ordered, (..., low)), xp.index(ordered, (..., min(low + 1, ordered.shape[-1] - 1)))
    between = below if share == 0 else (below + above) / 2 if share == 0.5 else below + share * (above - below)
    return kept(xp, between, x, axis) if keepdims else between


def median(xp: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """The middle element, or the mean of both."""
    return quantile(xp, x, 0.5, axis=axis, keepdims=keepdims)


def searchsorted(xp: Any, x1: Any, x2: Any, *, side: str = "left", sorter: Any = None) -> Any:
    """How many elements of the ordered x1 come before each of x2: "left" counts those below, "right" equal ones too."""
    x1, x2 = xp.asarray(x1), xp.asarray(x2)
    x1 = x1 if sorter is None else xp.take(x1, sorter, axis=0)
    before = xp.less if side == "left" else xp.less_equal
    return _whole(xp.sum(before(x1, xp.expand_dims(x2, axis=-1)), axis=-1))


# Sums of exponentials: the largest is taken out, so that none overflows.


def stop_gradient(xp: Any, x: Any) -> Any:
    """Return x as a constant, by which nobody differentiates."""
    x = xp.asarray(x)
    constant = type(x)(xp, changing_as(x.value))
    constant.stopped = x.tracked or x.stopped
    return constant


def straight_through(xp: Any, value: Any, x: Any) -> Any:
    """Return a value that is differentiated as if it were x."""
    value, x = xp.asarray(value), xp.asarray(x)
    result = xp.record(changing_as(value.value, x.value), (x, lambda g: g), kept=True)
    result.stopped = True
    return result


def _shifted(xp: Any, x: Any, axis: Axis) -> tuple[Any, Any, Any]:
    """Return the axes, the largest m, a constant since it makes no difference, and exp(x - m)."""
    numbers, axes = xp.numbers, axes_of(axis, x.ndim)
    largest = xp.max(stop_gradient(xp, x), axis=axes, keepdims=True).value
    return axes, largest, numbers.exp(x.value - largest)


def logsumexp(xp: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """log sum exp(x_i), whose slope exp(x_i) / sum exp(x_j) is exp(x_i - value) in torch."""
    x, numbers, times = xp.asarray(x), xp.numbers, xp.numbers.chain
    axes, largest, powers = _shifted(xp, x, axis)
    total = numbers.sum(powers, axes)
    value = xp.rounded(largest + numbers.log(total))

    def pullback(g: Any) -> Any:
        return numbers.any_of(
            lambda: times(g, powers / total),
            lambda: times(g, numbers.exp(x.value - value)),
            lambda: times(g / total, powers),
        )

    result = xp.record(value, (x, pullback), kept=True)
    return result if keepdims else xp.squeeze(result, axes)


def softmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    """s_i = exp(x_i) / sum exp(x_j): ds_i = s_i (dx_i - sum s_j dx_j)."""
    x, numbers, times = xp.asarray(x), xp.numbers, xp.numbers.chain
    axes, _, powers = _shifted(xp, x, axis)
    total = numbers.sum(powers, axes)
    value = xp.rounded(powers / total)

    def pullback(g: Any) -> Any:
        return numbers.any_of(
            lambda: times(g - numbers.sum(times(g, value), axes), value),
            lambda: times(g, value) - value * numbers.sum(times(g, value), axes),
            lambda: times(g / total - numbers.sum(times(g, powers / (total * total)), axes), powers),
        )

    return xp.record(value, (x, pullback), kept=True)


def log_softmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    """x_i - log sum exp(x_j): d = dx_i - sum s_j dx_j, where s_j is exp of the value in torch."""
    x, numbers = xp.asarray(x), xp.numbers
    axes, largest, powers = _shifted(xp, x, axis)
    total = numbers.sum(powers, axes)
    value = xp.rounded((x.value - largest) - numbers.log(total))

    def pullback(g: Any) -> Any:
        return numbers.any_of(
            lambda: g - (powers / total) * numbers.sum(g, axes),
            lambda: g - numbers.exp(value) * numbers.sum(g, axes),
            lambda: g - powers * (numbers.sum(g, axes) / total),
        )

    return xp.record(value, (x, pullback), kept=True)
