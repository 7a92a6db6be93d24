"""The hypotheses: what a common mistake would make of the true gradient, and the words for it.

Each is a generator of (the gradient that the mistake would give, the words), the most specific first; which of them fit
is not said here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import unit_roundoff
from gdcompare.referee.evidence import Evidence, Floats, rounding_in, slack_of
from gdcompare.referee.in_floats import MOST_ROWS
from gdcompare.referee.selection import families, window_words, windows

Hypotheses: TypeAlias = Iterator[tuple[Floats, str]]

_MOST_NUMBERS = 10_000_000
_MOST_DIFFERENCES = 64
_MOST_TELLING = 32


def exact(evidence: Evidence) -> Hypotheses:
    """No number in them is fitted."""
    truth, parameter = evidence.truth, evidence.parameter
    yield from _formats(evidence)
    yield from _differences(evidence)
    yield np.zeros_like(truth), "zero in every element"
    yield -truth, "the sign is flipped"
    if evidence.unweighted is not None:
        yield evidence.unweighted, "the weights are ignored"
    if evidence.diagonal:
        yield 2 * truth, "twice the diagonal"
    if parameter is not None and parameter.shape == truth.shape and parameter.any():
        yield parameter * truth, "the gradient times the parameter: a derivative by its logarithm?"
    for factor, words in _factors(evidence):
        yield factor * truth, words
    yield from _rearranged(truth)


def _formats(evidence: Evidence) -> Hypotheses:
    """Every value is one of a smaller format, and as far off as rounding to it, or computing in it, may be.

    What is left of large numbers that cancel has few digits, too, but is off by their rounding only.
    """
    actual, truth, dtype = evidence.actual, evidence.truth, evidence.dtype
    tiny = float(np.finfo(dtype).smallest_normal)
    wrong = np.abs(actual - truth) > evidence.budget
    if (np.abs(truth[wrong]) < tiny).all() and not actual[wrong].any():
        yield actual, f"flushed to zero: the true values are subnormal, below {tiny:.2g}"
    error = np.abs(actual - truth)
    for name, bits, smallest in (("bfloat16", 8, 2.0**-133), ("float16", 11, 2.0**-24), ("float32", 24, 2.0**-149)):
        if name == dtype or not actual.any() or not np.array_equal(actual, _rounded_to(name, actual)):
            continue  # zeros are of every format
        u = 2.0**-bits
        computed = evidence.budget * (u / unit_roundoff(dtype))
        if name != "float32":
            computed = np.minimum(computed, np.max(np.abs(truth)) / 16)  # that of a coarse format allows anything
        if (error <= np.maximum(computed, 2 * u * np.abs(truth) + smallest)).all() and not rounding_in(evidence):
            yield actual, f"{name} inside {dtype}: every value is a {name} and is as far off as {name} may be"
            return


def _rounded_to(name: str, values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32 if name == "bfloat16" else name)
    if name != "bfloat16":
        return narrow.astype(np.float64)
    bits = narrow.view(np.uint32)  # bfloat16 is the first half of float32, nearest-even
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


def _factors(evidence: Evidence) -> Iterator[tuple[float, str]]:
    """Yield the factors that mistakes make, with their words."""
    n, mean = evidence.n, evidence.reduction == "mean"
    summed, averaged = (
        (": a sum where a mean belongs", ": divided by {} twice") if mean else ("", ": a mean where a sum belongs")
    )
    if evidence.weights is not None:
        total = float(np.sum(evidence.weights))
        if mean:
            yield total / n, f"a factor sum w / n = {total:g}/{n}: divided by n where the sum of the weights belongs"
        yield total, f"a factor sum w = {total:g}{summed}"
        yield 1 / total, f"a factor 1/sum w = 1/{total:g}{averaged.format('sum w')}"
    yield n, f"a factor n = {n}{summed}"
    yield 1 / n, f"a factor 1/n = 1/{n}{averaged.format('n')}"
    if n > 1:
        yield n / (n - 1), f"a factor n/(n-1) = {n}/{n - 1}: divided by n - 1"
        yield (n - 1) / n, f"a factor (n-1)/n = {n - 1}/{n}: divided by n + 1, or a sample short"
        yield n / (n + 1), f"a factor n/(n+1) = {n}/{n + 1}: divided by n + 1"
    for factor, words in ((2.0, "2"), (0.5, "1/2"), (-2.0, "-2"), (-0.5, "-1/2")):
        yield factor, f"a constant factor {words} in {all_of(evidence.truth)}"


def _rearranged(truth: Floats) -> Hypotheses:
    """The same numbers elsewhere, or sums of them."""
    if truth.ndim == 2 and truth.shape[0] == truth.shape[1]:
        yield truth.T, "transposed"
    half = truth.ndim // 2
    if truth.ndim and truth.ndim % 2 == 0 and truth.shape[:half] == truth.shape[half:]:
        side = math.prod(truth.shape[:half])
        diagonal = (np.eye(side) * truth.reshape(side, side)).reshape(truth.shape)
        yield truth + diagonal, "twice the diagonal"
        yield diagonal, "only the diagonal is there"
        yield truth - diagonal, "the diagonal is missing"
    for axis in range(truth.ndim):
        for shift in (1, -1):
            yield np.roll(truth, shift, axis), f"shifted by one along axis {axis}"
        yield np.flip(truth, axis), f"reversed along axis {axis}"
    for axis in range(truth.ndim):
        total = np.broadcast_to(np.sum(truth, axis, keepdims=True), truth.shape)
        yield total, f"the sum over axis {axis} in every place of it"
        yield total / truth.shape[axis], f"the mean over axis {axis} in every place of it"


def selected(evidence: Evidence) -> Hypotheses:
    """Mistakes about which samples count, and how much: those of them that come near, at the element that is most off.

    There are many of them. Where one would come near by chance, because few elements tell them apart, none is named.
    """
    rows, n = evidence.per_sample, evidence.n
    if rows is None or not 1 < len(rows) <= MOST_ROWS or rows.size > _MOST_NUMBERS:
        return
    flat = rows.reshape(len(rows), -1)
    counts = np.ones(n) if evidence.weights is None else evidence.weights * (n / np.sum(evidence.weights))
    slack = slack_of(evidence, evidence.actual).ravel()
    error = np.abs(evidence.actual - evidence.truth).ravel()
    by_chance = _by_chance(flat, slack, error)
    place = int(np.argmax(error / np.maximum(slack, np.finfo(np.float64).tiny)))

    def near(column: Floats) -> NDArray[np.bool_]:
        return np.asarray(np.abs(column - evidence.actual.flat[place]) <= 2 * slack[place])

    for values, words in families(flat, counts, evidence.reduction == "mean"):
        if len(values) * by_chance < 1e-3:
            for i in np.flatnonzero(near(values[:, place])):
                yield values[i].reshape(evidence.truth.shape), words(int(i))
    if n * n * by_chance < 1e-3:
        for start, stop in windows(flat[:, place], counts, near)[:10]:
            total = flat[start:stop].sum(axis=0).reshape(evidence.truth.shape)
            yield total / n, window_words(start, stop, n)
            yield total / np.sum(counts[start:stop]), window_words(start, stop, n)


def _by_chance(rows: Floats, slack: Floats, error: Floats) -> float:
    """Return how likely it is that sums of some rows come near, at every element that is off.

    Where the rows are multiples of a few, so are their sums, and no more than those few elements tell them apart.
    """
    ratios = np.where(error > slack, slack / np.maximum(error, np.finfo(np.float64).tiny), 1.0)
    telling = np.argsort(ratios)[:_MOST_TELLING]
    return float(np.prod(ratios[telling][: np.linalg.matrix_rank(rows[:, telling])]))


def fitted(evidence: Evidence) -> Hypotheses:
    """Mistakes with an unknown number in them, estimated from the element that shows it best."""
    actual, truth, parameter = evidence.actual, evidence.truth, evidence.parameter
    if truth.size > 1 and np.count_nonzero(truth) > 1:
        factor = best_factor(actual, truth, evidence.budget)
        yield factor * truth, f"a constant factor {number(factor)} in {all_of(truth)}"
        offset = float(np.median(actual - truth))
        yield truth + offset, f"a constant {offset:.6g} is added to {all_of(truth)}"
    if parameter is not None and parameter.shape == truth.shape and np.count_nonzero(parameter) > 1:
        decay = best_decay(actual, truth, evidence.budget, parameter)
        yield truth + decay * parameter, f"an extra term {decay:.6g} times the parameter: weight decay?"


def _differences(evidence: Evidence) -> Hypotheses:
    """(L(x + h) - L(x)) / h or (L(x + h) - L(x - h)) / 2h: a whole number of units in the last place of L over a width.

    A few of those units are L's own rounding. Without it a difference is the mean of the derivative between its ends,
    which Simpson's rule takes from three places.
    """
    x, actual, floats = evidence.parameter, evidence.actual, evidence.floats
    if x is None or floats is None or x.shape != actual.shape or not 0 < x.size <= _MOST_DIFFERENCES:
        return
    unit = float(np.spacing(np.abs(evidence.loss).astype(evidence.dtype)))
    error = np.abs(actual - evidence.truth)
    seen = error > evidence.budget
    single = evidence.dtype == "float64" and np.array_equal(actual, actual.astype(np.float32))
    narrow = single and actual.size > 2  # they are multiples of a unit anyway
    if not (math.isfinite(unit) and unit > 0) or narrow or np.array_equal(actual, evidence.truth.astype(np.float32)):
        return

    def fit(start: Floats, stop: Floats, noise: Floats) -> bool:
        """Whether each element is the mean slope from start to stop; the first that is not ends it."""
        for i in np.ndindex(x.shape):
            first, middle, last = (
                floats.slope(evidence.name, i, float(step)) for step in (start[i], (start[i] + stop[i]) / 2, stop[i])
            )
            if not abs(actual[i] - (first + 4 * middle + last) / 6) <= noise[i]:
                return False
        return True

    for kind, behind in (("forward", 0.0), ("central", 1.0)):
        named: list[float] = []
        for h in _steps(x, evidence.dtype):
            width, size = (1 + behind) * h, float(np.median(h))
            units = actual * width / unit
            fuzzy = 1e-6 + 8 * unit_roundoff(evidence.dtype) * np.abs(units)
            if (h == 0).any() or (fuzzy > 0.01).any() or (np.abs(units - np.round(units)) > fuzzy).any():
                continue
            if not (np.round(units).any() and (seen & (error > fuzzy * unit / width)).any()):
                continue  # zeros are whole for any step, and so is what is right but for less than a unit
            if any(abs(size / each - round(size / each)) < 1e-3 for each in named):
                continue  # a multiple of a step that fits, fits too
            if fit(-behind * h, h, 8 * unit / width + evidence.budget):
                named.append(size)
        if named:
            yield actual, f"{kind} differences with h near {' or '.join(f'{size:.2g}' for size in named)}"
            return


def _steps(x: Floats, dtype: str) -> Iterator[Floats]:
    """Yield the usual steps, the smallest first: as they are, or by the size of x; exact, or as x + h - x has them."""
    eps = float(np.finfo(dtype).eps)
    root = math.sqrt(eps)
    for step in sorted((root, eps ** (1 / 3), 1e-8, 1.5e-8, 1e-7, 1e-6, 3e-6, 1e-5, 1e-4, 1e-3)):
        if step > root / 10:
            for h in (np.full(x.shape, step), step * np.abs(x), step * np.maximum(1.0, np.abs(x))):
                yield h
                yield (x + h) - x


def best_factor(actual: Floats, truth: Floats, budget: Floats) -> float:
    """Return actual / truth where the rounding matters least."""
    best = np.argmax(np.where(truth == 0, 0.0, np.abs(truth) / np.maximum(budget, 2.0**-53 * np.abs(truth) + 1e-300)))
    return float(actual.flat[best] / truth.flat[best])


def best_decay(actual: Floats, truth: Floats, budget: Floats, parameter: Floats) -> float:
    """Return (actual - truth) / parameter where the rounding matters least."""
    best = np.argmax(np.abs(parameter) / (budget + 2.0**-53 * np.abs(actual) + np.finfo(np.float64).tiny))
    return float((actual - truth).flat[best] / parameter.flat[best])


# Words.


def number(value: float, digits: int = 6) -> str:
    """Return a factor to so many digits; one that would print as 1, by how much it is not.

    >>> number(0.25), number(1 + 2.5e-9), number(-1 + 1e-7), number(1.00000001, 10)
    ('0.25', '1 + 2.5e-09', '-(1 - 1e-07)', '1.00000001')
    """
    off = abs(value) - 1
    if off == 0 or abs(off) >= 50 * 10.0**-digits:
        return f"{value:.{digits}g}"
    near = f"1 {'+' if off > 0 else '-'} {abs(off):.2g}"
    return near if value > 0 else f"-({near})"


def all_of(values: NDArray[Any]) -> str:
    """Name all elements of an array."""
    return "the value" if values.size == 1 else f"all {values.size} elements"
