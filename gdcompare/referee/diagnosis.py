"""Why a gradient is wrong: every explanation that fits it to the rounding, the most specific first, with its evidence.

Each hypothesis turns the true gradient into the one that a common mistake would give. It fits if it leaves no element
more than a few budgets off, and far less than there was to explain: what is as small as rounding explains nothing.

The hypotheses come in tiers, and the first tier in which any fits has the word:

    exact       a number format, finite differences, a sign, a factor, a transposition, ...: no number in them is fitted
    selection   which samples count, and how much: from the per-sample gradients
    fitted      a factor, an added constant or term, estimated from the values
    rounding    nothing of these, and the error is no larger than another algorithm's rounding
    structure   what the error's elements have in common
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Reduction, unit_roundoff
from gdcompare.referee.in_floats import InFloats
from gdcompare.referee.selection import families, window_words, windows
from gdcompare.referee.structure import structure_of
from gdcompare.referee.verdict import Entry

Floats = NDArray[np.float64]

_FEW = 8
"""A hypothesis fits within this many budgets: the mistaken program rounds in its own way."""

_CLEAR = 30
"""A hypothesis that fits leaves an error so many times smaller than the one that it explains."""

_ALGORITHM = 64
"""An error of at most so many roundings of what is behind an element, and sqrt(n) more, may be another algorithm's."""

_MOST_NAMED = 3
_MOST_ROWS = 2000
"""With more rows than this, single samples are not suspected one by one."""
_MOST_NUMBERS = 10_000_000
_MOST_DIFFERENCES = 64

CALLS_DIFFER = "two calls differ"


@dataclass(frozen=True)
class Evidence:
    """What is known about one wrong array of one parameter, all in float64."""

    actual: Floats
    truth: Floats
    budget: Floats
    dtype: str
    n: int
    parameter: Floats | None = None
    """The parameter's value, of the shape of its gradient."""
    per_sample: Floats | None = None
    """The true per-sample gradients, (n, *shape); their mean is the truth."""
    reduction: Reduction = "mean"
    """What the truth is of."""
    weights: Floats | None = None
    """The samples' weights, (n,), if they have any."""
    unweighted: Floats | None = None
    """What the truth would be without them."""
    diagonal: bool = False
    """Whether this is the diagonal of a Hessian's block."""
    scale: float = 0.0
    """The largest of all truths beside this one, of the same derivative."""
    loss: float = math.nan
    """The true loss."""
    name: str = ""
    floats: InFloats | None = None
    """Where more can be asked for, by this name."""


def cause_of(evidence: Evidence) -> str:
    """Return the causes in words, or where the error sits if no hypothesis fits.

    >>> truth = np.array([1.0, -2.0, 3.0])
    >>> rows = np.stack([0.5 * truth, 1.5 * truth])
    >>> cause_of(Evidence(-truth, truth, 1e-15 * abs(truth), "float64", n=2))
    'the sign is flipped'
    >>> cause_of(Evidence(0.25 * truth, truth, 1e-15 * abs(truth), "float64", n=2, per_sample=rows))
    'sample 1 is left out'
    >>> cause_of(Evidence(2 * truth, truth, 1e-15 * abs(truth), "float64", n=2)).split("; or ")
    ['a factor n = 2: a sum where a mean belongs', 'a factor n/(n-1) = 2/1: divided by n - 1', 'a constant factor 2 in \
all 3 elements']
    """
    broken = ~np.isfinite(evidence.actual)
    if broken.any():
        kind = "nan" if np.isnan(evidence.actual).any() else "infinity"
        return f"{kind} in {_of(broken)}: overflow or 0/0 in the formula"
    with np.errstate(all="ignore"):
        for tier in (_exact, _selected, _fitted):
            fitting = dict.fromkeys(words for hypothesis, words in tier(evidence) if _fits(evidence, hypothesis))
            if fitting:
                return "; or ".join(list(fitting)[:_MOST_NAMED])
        return _rounding(evidence) or _structure(evidence) or _place(evidence)


def cause_of_all(evidence: Mapping[str, Evidence]) -> str:
    """Return what the whole gradient has in common over all parameters together; empty if nothing.

        actual = c truth for one c        the gradient is clipped, or scaled as a whole
        |actual| = 1, 2, 0.5, ...         and |truth| is larger: it was clipped, perhaps in parts

    >>> truth = {"a": np.array([3.0, 4.0]), "b": np.array(12.0)}
    >>> each = {name: Evidence(g / 13, g, 1e-15 * g, "float64", n=40) for name, g in truth.items()}
    >>> cause_of_all(each)
    'one factor 0.0769231 over all parameters; the norm is 1: clipped?'
    """
    if not evidence or not all(np.isfinite(each.actual).all() for each in evidence.values()):
        return ""
    first = next(iter(evidence.values()))
    actual, truth, budget = (
        np.concatenate([np.ravel(getattr(each, part)) for each in evidence.values()])
        for part in ("actual", "truth", "budget")
    )
    whole = Evidence(actual, truth, budget, first.dtype, first.n, reduction=first.reduction, weights=first.weights)
    if actual.size < 2 or not truth.any() or any(_fits(whole, hypothesis) for hypothesis, _ in _exact(whole)):
        return ""
    norm, before = float(np.linalg.norm(actual)), float(np.linalg.norm(truth))
    digits = max(2e-6, 64 * unit_roundoff(first.dtype))  # some divide by norm + 1e-6
    round_norm = float(f"{norm:.2g}")
    clipped = norm < (1 - 1e-4) * before and abs(norm - round_norm) <= digits * norm
    factor = _best_factor(actual, truth, budget)
    if len(evidence) > 1 and _fits(whole, factor * truth):
        return f"one factor {number(factor)} over all parameters" + f"; the norm is {round_norm:g}: clipped?" * clipped
    return f"the norm of all parameters together is {round_norm:g}: clipped, perhaps in parts?" if clipped else ""


# The tiers.


def _exact(evidence: Evidence) -> Iterator[tuple[Floats, str]]:
    """Yield (the gradient that the mistake would give, the words for it), the most specific first."""
    truth, parameter = evidence.truth, evidence.parameter
    yield from _formats(evidence)
    yield from _differences(evidence)
    yield np.zeros_like(truth), "zero in every element"
    yield -truth, "the sign is flipped"
    if evidence.unweighted is not None:
        yield evidence.unweighted, "the weights are ignored"
    if evidence.diagonal:
        yield 2 * truth, "twice the diagonal"
    if parameter is not None and parameter.shape == truth.shape:
        yield parameter * truth, "the gradient times the parameter: a derivative by its logarithm?"
    for factor, words in _factors(evidence):
        yield factor * truth, words
    yield from _rearranged(truth)


def _formats(evidence: Evidence) -> Iterator[tuple[Floats, str]]:
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
        if name == dtype or not np.array_equal(actual, _rounded_to(name, actual)):
            continue
        u = 2.0**-bits
        computed = evidence.budget * (u / unit_roundoff(dtype))
        if name != "float32":
            computed = np.minimum(computed, np.max(np.abs(truth)) / 16)  # that of a coarse format allows anything
        if (error <= np.maximum(computed, 2 * u * np.abs(truth) + smallest)).all() and not _rounding(evidence):
            yield actual, f"{name} inside {dtype}: every value is a {name} and is as far off as {name} may be"
            return


def _rounded_to(name: str, values: Floats) -> Floats:
    if name != "bfloat16":
        return values.astype(name).astype(np.float64)
    bits = values.astype(np.float32).view(np.uint32)  # bfloat16 is the first half of float32, nearest-even
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
        yield factor, f"a constant factor {words} in {_all(evidence.truth)}"


def _rearranged(truth: Floats) -> Iterator[tuple[Floats, str]]:
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


def _selected(evidence: Evidence) -> Iterator[tuple[Floats, str]]:
    """Mistakes about which samples count, and how much: those of them that come near, at the element that is most off.

    There are many of them. Where one would come near by chance, because few elements tell them apart, none is named.
    """
    rows, n = evidence.per_sample, evidence.n
    if rows is None or not 1 < len(rows) <= _MOST_ROWS or rows.size > _MOST_NUMBERS:
        return
    flat = rows.reshape(len(rows), -1)
    counts = np.ones(n) if evidence.weights is None else evidence.weights * (n / np.sum(evidence.weights))
    slack = _slack(evidence, evidence.actual).ravel()
    error = np.abs(evidence.actual - evidence.truth).ravel()
    by_chance = float(np.exp(np.sum(np.log(np.minimum(1.0, slack[error > slack] / error[error > slack])))))
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


def _fitted(evidence: Evidence) -> Iterator[tuple[Floats, str]]:
    """Mistakes with an unknown number in them, estimated from the element that shows it best."""
    actual, truth, parameter = evidence.actual, evidence.truth, evidence.parameter
    if truth.size > 1 and np.count_nonzero(truth) > 1:
        factor = _best_factor(actual, truth, evidence.budget)
        yield factor * truth, f"a constant factor {number(factor)} in {_all(truth)}"
        offset = float(np.median(actual - truth))
        yield truth + offset, f"a constant {offset:.6g} is added to {_all(truth)}"
    if parameter is not None and parameter.shape == truth.shape and np.count_nonzero(parameter) > 1:
        best = np.argmax(np.abs(parameter))
        decay = float((actual - truth).flat[best] / parameter.flat[best])
        yield truth + decay * parameter, f"an extra term {decay:.6g} times the parameter: weight decay?"


def _differences(evidence: Evidence) -> Iterator[tuple[Floats, str]]:
    """(L(x + h) - L(x)) / h, which is a whole number of units in the last place of L, over h.

    What is left of it is L's own rounding, a few of those units; the derivative half a step on is as good as the
    difference itself.
    """
    x, actual, floats = evidence.parameter, evidence.actual, evidence.floats
    if x is None or floats is None or x.shape != actual.shape or not 0 < x.size <= _MOST_DIFFERENCES:
        return
    unit = float(np.spacing(np.abs(evidence.loss).astype(evidence.dtype)))
    seen = np.abs(actual - evidence.truth) > evidence.budget
    if not (math.isfinite(unit) and unit > 0) or np.array_equal(actual, evidence.truth.astype(np.float32)):
        return
    named: list[float] = []
    for h in _steps(x, evidence.dtype):
        units, size = actual * h / unit, float(np.median(h))
        fuzzy = 1e-6 + 4 * unit_roundoff(evidence.dtype) * np.abs(units)
        if (h == 0).any() or (fuzzy > 0.01).any() or (np.abs(units - np.round(units)) > fuzzy).any():
            continue
        if any(abs(size / each - round(size / each)) < 1e-3 for each in named):
            continue  # a multiple of a step that fits, fits too
        halfway = [floats.slope(evidence.name, i, float(h[i]) / 2) for i in np.ndindex(x.shape)]
        noise = 8 * unit / h + evidence.budget
        if seen.any() and (np.abs(actual - np.reshape(halfway, x.shape)) <= noise).all():
            named.append(size)
    if named:
        yield actual, f"forward differences with h near {' or '.join(f'{size:.2g}' for size in named)}"


def _steps(x: Floats, dtype: str) -> Iterator[Floats]:
    """Yield the usual steps, the smallest first: as they are, or by the size of x; exact, or as x + h - x has them."""
    root = math.sqrt(float(np.finfo(dtype).eps))
    for step in sorted((root, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)):
        if step > root / 10:
            for h in (np.full(x.shape, step), step * np.abs(x), step * np.maximum(1.0, np.abs(x))):
                yield h
                yield (x + h) - x


def _rounding(evidence: Evidence) -> str:
    """Whether the error is as small as another algorithm's rounding may be, with the evidence.

    Behind an element are the per-sample gradients, of which it may be a small difference, the largest element beside
    it, and the inputs, whose last place nobody knows. An element that is 0 has the size of the others.
    """
    actual, truth, u = evidence.actual, evidence.truth, unit_roundoff(evidence.dtype)
    behind = np.full(truth.shape, np.max(np.abs(truth), initial=0.0))
    behind = np.where(truth == 0, np.maximum(behind, evidence.scale), behind)
    if evidence.per_sample is not None:
        behind = np.maximum(behind, np.mean(np.abs(evidence.per_sample), axis=0))
    moved = None if evidence.floats is None else evidence.floats.moved.get(evidence.name)
    unit = u * behind if moved is None else np.maximum(u * behind, moved)
    wrong = np.abs(actual - truth) > evidence.budget
    times = float(np.max(np.abs(actual - truth)[wrong] / unit[wrong], initial=0.0))
    if not 0 < times <= _ALGORITHM + math.sqrt(evidence.n):
        return ""
    return (
        f"rounding-sized: another algorithm? the error is at most {times:.2g} times what one unit in the last place of "
        "the inputs, or of the terms behind the value, makes of it"
    )


def _structure(evidence: Evidence) -> str:
    return structure_of(evidence.actual, evidence.truth, _slack(evidence, evidence.actual), evidence.parameter)


# Whether a hypothesis fits.


def _slack(evidence: Evidence, hypothesis: Floats) -> Floats:
    """Return how far off a program with such a mistake may be: a few budgets, and our own rounding here."""
    scale = np.maximum(1.0, np.abs(hypothesis) / np.where(evidence.truth == 0, np.inf, np.abs(evidence.truth)))
    size = np.maximum(np.abs(hypothesis), np.abs(evidence.truth))
    if evidence.per_sample is not None:
        size = np.maximum(size, math.sqrt(evidence.n) * np.mean(np.abs(evidence.per_sample), axis=0))
    return np.asarray(_FEW * (evidence.budget * scale + 2.0**-53 * size))


def _fits(evidence: Evidence, hypothesis: Floats) -> bool:
    """Whether the hypothesis leaves nothing but rounding, and much less than there was without it."""
    with np.errstate(all="ignore"):
        slack = _slack(evidence, hypothesis)
        error, left = np.abs(evidence.actual - evidence.truth), np.abs(evidence.actual - hypothesis)
        told_apart = np.abs(evidence.truth - hypothesis) > evidence.budget
        clear = _CLEAR * np.max(left / slack) <= np.max(error / slack)
        if np.array_equal(hypothesis, evidence.actual):
            return bool((error > evidence.budget).any())
    return bool((left <= slack).all() and told_apart.any() and clear)


def _best_factor(actual: Floats, truth: Floats, budget: Floats) -> float:
    """Return actual / truth where the rounding matters least."""
    best = np.argmax(np.where(truth == 0, 0.0, np.abs(truth) / np.maximum(budget, 2.0**-53 * np.abs(truth) + 1e-300)))
    return float(actual.flat[best] / truth.flat[best])


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


def _place(evidence: Evidence) -> str:
    """Say which elements are wrong, and what they have in common."""
    actual, truth = evidence.actual, evidence.truth
    error = np.abs(actual - truth)
    wrong = error > evidence.budget
    tiny = float(np.finfo(evidence.dtype).smallest_normal)
    if (error[wrong] < tiny).all():
        return f"off by less than the smallest normal number, {tiny:.2g}: subnormal numbers flushed to zero on the way?"
    zero = wrong & (actual == 0)
    if zero.any() and (zero == wrong).all() and wrong.size > 1:
        return f"zero in {_of(wrong)}: a missing term?"
    flipped = wrong & (np.abs(actual + truth) <= np.minimum(_FEW * evidence.budget, error / _CLEAR))
    if flipped.any() and (flipped == wrong).all() and wrong.size > 1:
        return f"the sign is flipped in {_of(wrong)}"
    far = float(np.max(error[wrong] / np.abs(truth[wrong]), initial=0.0))
    by = f", by {far:.1g} of {'itself' if wrong.size == 1 else 'themselves'} at most" if far < 1e-3 else ""
    if wrong.size == 1:
        if not truth.any():
            return f"{actual.flat[0]:.6g} where 0 belongs"
        return (
            f"off by {far:.1g} of itself" if by else f"off by a factor {number(float(actual.flat[0] / truth.flat[0]))}"
        )
    if wrong.all():
        return f"no common mistake explains it; {_all(wrong)} are off{by}"
    apart = next(
        (axis for axis in range(wrong.ndim) if wrong.ndim > 1 and (np.sum(~wrong, axis=axis) == 1).all()), None
    )
    if apart is not None:
        return f"off in {_of(wrong)}: all but one along axis {apart}, for each index of the others{by}"
    return f"off in {_of(wrong)}{by}; the others agree"


def _of(where: NDArray[np.bool_]) -> str:
    """Name the marked elements: the first few, and how many of how many."""
    if where.ndim == 0:
        return "the value"
    places = [str(tuple(int(i) for i in place) if where.ndim > 1 else int(place[0])) for place in np.argwhere(where)]
    named = ", ".join(places[:3]) + (", ..." if len(places) > 3 else "")
    return f"{len(places)} of {where.size} elements ({named})"


def _all(values: NDArray[Any]) -> str:
    return "the value" if values.size == 1 else f"all {values.size} elements"


def kind_of_failure(entry: Entry) -> str:
    """Return in what way an entry is wrong, without its numbers: a value, two calls that differ, a shape, a crash.

    >>> kind_of_failure(Entry("mine", "w", "wrong", cause="it raised KeyError: 'w'"))
    'it raised KeyError'
    """
    if "two calls" in entry.cause or "second call" in entry.cause:
        return CALLS_DIFFER  # an earlier call may have left it wrong everywhere; a new program shows only this
    if entry.worst_index is not None:
        return "value" if math.isfinite(entry.actual) else "not finite"
    return " ".join(re.findall("[a-zA-Z]+", entry.cause.partition(":")[0]))
