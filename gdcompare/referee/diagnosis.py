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
from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import unit_roundoff
from gdcompare.referee.evidence import CLEAR, Evidence, fits, rounding_in, slack_of
from gdcompare.referee.hypotheses import all_of, best_decay, best_factor, exact, fitted, number, selected
from gdcompare.referee.structure import structure_of
from gdcompare.referee.verdict import Entry

_MOST_NAMED = 3

CALLS_DIFFER = "two calls differ"

UNEXPLAINED = "no common mistake explains it; "


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
        for tier in (exact, selected, fitted):
            fitting = dict.fromkeys(words for hypothesis, words in tier(evidence) if fits(evidence, hypothesis))
            if fitting:
                return "; or ".join(list(fitting)[:_MOST_NAMED])
        slack = slack_of(evidence, evidence.actual)
        structure = partial(structure_of, evidence.actual, evidence.truth, slack, evidence.parameter)
        return rounding_in(evidence) or structure() or _place(evidence)


def cause_of_all(evidence: Mapping[str, Evidence]) -> str:
    """Return what the whole gradient has in common over all parameters together; empty if nothing.

        actual = c truth for one c        the gradient is clipped, or scaled as a whole
        |actual| = 1, 2, 0.5, ...         and |truth| is larger: it was clipped, perhaps in parts
        actual = min(max(truth, -c), c)   each value was clipped by itself
        actual = truth + c parameter      all parameters decay

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
    known = [np.zeros(each.truth.shape) if each.parameter is None else each.parameter for each in evidence.values()]
    parameter = np.concatenate([np.ravel(each) for each in known])
    whole = Evidence(actual, truth, budget, first.dtype, first.n, reduction=first.reduction, weights=first.weights)
    if actual.size < 2 or not truth.any() or any(fits(whole, hypothesis) for hypothesis, _ in exact(whole)):
        return ""
    largest = float(np.max(np.abs(actual)))
    held = np.clip(truth, -largest, largest)
    if np.count_nonzero(held - truth) > 1 and fits(whole, held):
        return f"no value is beyond {largest:.6g}, and those that were are there: clipped value by value?"
    if fits(whole, np.sign(truth)):
        return "each value is the sign of the true one"
    norm, before = float(np.linalg.norm(actual)), float(np.linalg.norm(truth))
    digits, round_norm = max(1e-9, 64 * unit_roundoff(first.dtype)) * norm, float(f"{norm:.2g}")
    short = round_norm - norm  # some divide by norm + 1e-6
    at_once = abs(short) <= digits or abs(short - 1e-6 * norm / before) <= digits
    in_parts = -digits <= short <= 1e-6 + digits and norm > 1e-3 and round_norm == float(f"{norm:.0e}")
    less = norm < (1 - 1e-4) * before and np.any(actual * 2.0**20 % 1)  # the norms of whole numbers are often round
    factor = best_factor(actual, truth, budget)
    if len(evidence) > 1 and fits(whole, factor * truth):
        clipped = f"; the norm is {round_norm:g}: clipped?" if less and (at_once or in_parts) else ""
        unit = "; the norm is 1: divided by the norm?" if norm > before and abs(norm - 1) <= 2 * digits else ""
        return f"one factor {number(factor)} over all parameters{clipped or unit}"
    if most := _norm_of_each(evidence):
        return f"the norm of each parameter's gradient is {most:g} at most: clipped one by one?"
    if len(evidence) > 1 and np.count_nonzero(parameter) > 1:
        decay = best_decay(actual, truth, budget, parameter)
        if fits(whole, truth + decay * parameter):
            return f"an extra term {decay:.6g} times each parameter: weight decay?"
    if less and in_parts:  # without a factor only the roundest are no chance
        return f"the norm of all parameters together is {round_norm:g}: clipped, perhaps in parts?"
    return ""


def _norm_of_each(evidence: Mapping[str, Evidence]) -> float:
    """Return the round norm of all arrays that are too small by a factor, two or more of them; 0 if there is none."""
    norms = []
    for each in evidence.values():
        if (np.abs(each.actual - each.truth) <= each.budget).all():
            continue
        factor = best_factor(each.actual, each.truth, each.budget)
        if not 0 < factor < 1 or not fits(each, factor * each.truth):
            return 0.0
        norms.append(float(np.linalg.norm(each.actual)))
    most = float(f"{max(norms, default=0.0):.2g}")
    return most if len(norms) > 1 and all(abs(norm / most - 1) < 1e-4 for norm in norms) else 0.0


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
    flipped = wrong & (np.abs(actual + truth) <= np.minimum(slack_of(evidence, actual), error / CLEAR))
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
        return f"{UNEXPLAINED}{all_of(wrong)} are off{by}"
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
