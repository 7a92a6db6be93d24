"""Why a gradient is wrong: the explanation that fits it to the rounding, with its evidence.

Each hypothesis turns the true gradient into the one that a common mistake would give. The first that fits every element
within a few budgets is the cause.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Reduction, unit_roundoff
from gdcompare.referee.verdict import Entry

Floats = NDArray[np.float64]

_FEW = 8
"""A hypothesis fits within this many budgets: the mistaken program rounds in its own way."""

CALLS_DIFFER = "two calls differ"

_MOST_ROWS = 2000
"""With more rows than this, single samples are not suspected one by one."""


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
    weight: float | None = None
    """The sum of the weights, if there are any."""
    unweighted: Floats | None = None
    """What the truth would be without them."""


def cause_of(evidence: Evidence) -> str:
    """Return the cause in words, or where the error sits if no hypothesis fits.

    >>> truth = np.array([1.0, -2.0, 3.0])
    >>> rows = np.stack([0.5 * truth, 1.5 * truth])
    >>> cause_of(Evidence(-truth, truth, 1e-15 * abs(truth), "float64", n=2))
    'the sign is flipped'
    >>> cause_of(Evidence(0.25 * truth, truth, 1e-15 * abs(truth), "float64", n=2, per_sample=rows))
    'sample 1 is left out'
    """
    broken = ~np.isfinite(evidence.actual)
    if broken.any():
        kind = "nan" if np.isnan(evidence.actual).any() else "infinity"
        return f"{kind} in {_of(broken)}: overflow or 0/0 in the formula"
    for hypothesis, words in _hypotheses(evidence):
        if _fits(evidence, hypothesis):
            return words
    return _place(evidence)


def _hypotheses(evidence: Evidence) -> Iterator[tuple[Floats, str]]:
    """Yield (the gradient that the mistake would give, the words for it), the likeliest first."""
    truth, rows = evidence.truth, evidence.per_sample
    if evidence.dtype == "float64" and np.array_equal(evidence.actual, evidence.actual.astype(np.float32)):
        allowance = evidence.budget * (unit_roundoff("float32") / unit_roundoff("float64"))
        if (np.abs(evidence.actual - truth) <= allowance).all():
            words = "float32 inside float64: every value is a float32 and is as far off as float32 may be"
            yield evidence.actual, words
    yield np.zeros_like(truth), "zero in every element"
    yield -truth, "the sign is flipped"
    if evidence.unweighted is not None:
        yield evidence.unweighted, "the weights are ignored"
    for factor, words in _factors(evidence).items():
        yield factor * truth, words.format(elements=_all(truth))
    for axes, words in _rearranged(truth):
        yield axes, words
    if rows is not None and len(rows) <= _MOST_ROWS:
        yield from _from_rows(rows)
    yield from _fitted(evidence)


def _factors(evidence: Evidence) -> dict[float, str]:
    """Return the factors that mistakes make, with their words."""
    n, mean = evidence.n, evidence.reduction == "mean"
    total, name = (float(n), "n") if evidence.weight is None else (evidence.weight, "sum w")
    factors = {
        total: f"a factor {name} = {total:g}: a sum where a mean belongs" if mean else f"a factor {name} = {total:g}",
        1 / total: f"a factor 1/{name} = 1/{total:g}: "
        + (f"divided by {name} twice" if mean else "a mean where a sum belongs"),
    }
    if evidence.weight is not None and mean:
        factors[total / n] = f"a factor sum w / n = {total:g}/{n}: divided by n where the sum of the weights belongs"
    factors |= {
        2.0: "a constant factor 2 in {elements}",
        0.5: "a constant factor 1/2 in {elements}",
        -2.0: "a constant factor -2 in {elements}",
        -0.5: "a constant factor -1/2 in {elements}",
    }
    if n > 1:
        factors.setdefault(n / (n - 1), f"a factor n/(n-1) = {n}/{n - 1}: divided by n - 1")
        factors.setdefault((n - 1) / n, f"a factor (n-1)/n = {n - 1}/{n}: divided by n + 1, or a sample short")
    factors.setdefault(n / (n + 1), f"a factor n/(n+1) = {n}/{n + 1}: divided by n + 1")
    return factors


def _rearranged(truth: Floats) -> Iterator[tuple[Floats, str]]:
    if truth.ndim == 2 and truth.shape[0] == truth.shape[1]:
        yield truth.T, "transposed"
    for axis in range(truth.ndim):
        for shift in (1, -1):
            yield np.roll(truth, shift, axis), f"shifted by one along axis {axis}"
        yield np.flip(truth, axis), f"reversed along axis {axis}"


def _from_rows(rows: Floats) -> Iterator[tuple[Floats, str]]:
    """Mistakes about which samples count: one left out, one counted twice, the last ones dropped."""
    n, total = len(rows), rows.sum(axis=0)
    if n > 1:
        without = total - rows  # (n, *shape): the sum without each sample
        for i in range(n):
            yield without[i] / n, f"sample {i} is left out"
            yield without[i] / (n - 1), f"sample {i} is left out, and the mean taken over n - 1"
            yield (total + rows[i]) / n, f"sample {i} is counted twice"
            yield (total + rows[i]) / (n + 1), f"sample {i} is counted twice, and the mean taken over n + 1"
        first = np.cumsum(rows, axis=0)
        for kept in range(1, n - 1):
            yield first[kept - 1] / n, f"the last {n - kept} samples are dropped: a ragged last batch?"
            yield first[kept - 1] / kept, f"the last {n - kept} samples are dropped: a ragged last batch?"
            doubled = total + (total - first[kept - 1])
            yield doubled / n, f"the last {n - kept} samples are counted twice: a ragged last batch?"


def _fitted(evidence: Evidence) -> Iterator[tuple[Floats, str]]:
    """Mistakes with an unknown number in them, estimated from the element that shows it best."""
    actual, truth, parameter = evidence.actual, evidence.truth, evidence.parameter
    if truth.size > 1 and np.count_nonzero(truth) > 1:
        best = np.argmax(np.abs(truth))
        factor = float(actual.flat[best] / truth.flat[best])
        yield factor * truth, f"a constant factor {factor:.6g} in {_all(truth)}"
        offset = float(np.median(actual - truth))
        yield truth + offset, f"a constant {offset:.6g} is added to {_all(truth)}"
    if parameter is not None and np.count_nonzero(parameter) > 1:
        best = np.argmax(np.abs(parameter))
        decay = float((actual - truth).flat[best] / parameter.flat[best])
        yield truth + decay * parameter, f"an extra term {decay:.6g} times the parameter: weight decay?"


def _fits(evidence: Evidence, hypothesis: Floats) -> bool:
    """Whether the actual values are the hypothesis to the rounding, and the truth is told apart from it."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scale = np.maximum(1.0, np.abs(hypothesis) / np.where(evidence.truth == 0, np.inf, np.abs(evidence.truth)))
        few = _FEW * evidence.budget * scale
        explained = np.abs(evidence.actual - hypothesis) <= few
        told_apart = np.abs(evidence.truth - hypothesis) > evidence.budget
    return bool(explained.all() and told_apart.any())


def _place(evidence: Evidence) -> str:
    """Say which elements are wrong, and what they have in common."""
    wrong = np.abs(evidence.actual - evidence.truth) > evidence.budget
    if wrong.all() and wrong.size > 1:
        return f"no common mistake explains it; {_all(wrong)} are off"
    zero = wrong & (evidence.actual == 0)
    if zero.any() and (zero == wrong).all():
        return f"zero in {_of(wrong)}: a missing term?"
    flipped = wrong & (np.abs(evidence.actual + evidence.truth) <= _FEW * evidence.budget)
    if flipped.any() and (flipped == wrong).all():
        return f"the sign is flipped in {_of(wrong)}"
    if wrong.size == 1:
        ratio = float(evidence.actual.flat[0] / evidence.truth.flat[0]) if evidence.truth.any() else np.inf
        return f"off by a factor {ratio:.6g}"
    return f"off in {_of(wrong)}; the others agree"


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
