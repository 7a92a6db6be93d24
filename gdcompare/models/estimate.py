"""How far apart rounding alone may take two models: an estimate, and the judgement by it.

There is no formula here, so no proven truth: the models judge each other. How far apart rounding alone may take them is
ESTIMATED. Every model is run again on inputs and parameters moved by one unit in the last place, up or down at random;
with s the largest change that this makes in an element, in either of two models, over all draws,

    budget = 16 max(s, root mean square of s over the array) + 8 u max |array|

where u is the unit roundoff. The first term follows how the models amplify rounding. The mean in it, and the second
term, are there so that an element that happened not to move is not given 0, nor one that is small because it is
rounding. Zeros stay where they are, and so do features and targets that are whole numbers: they may be labels or
tokens.

What rounds inside a model, and no input moves, is not seen so: a logsumexp of numbers near -1e4, a variance as the
difference of two large means, 1 - tanh^2 in the flat part. Where models differ by little, therefore, they run once more
in the other precision, and s is no less than what that changes, times the ratio of the unit roundoffs from float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Precision, unit_roundoff
from gdcompare.models.comparison import LOSS, ROWS
from gdcompare.models.sides import Key, Point
from gdcompare.referee import verdict
from gdcompare.referee.diagnosis import cause_of
from gdcompare.referee.evidence import Evidence
from gdcompare.referee.verdict import Allowance, Entry, Floats, Known, detectable_faults

DRAWS = 4
SAFETY = 16.0
FLOOR = 8.0
BUDGET = f"estimated, not proven: {SAFETY:g} times what one unit in the last place of the inputs changes, {DRAWS} draws"

EITHER = "of two that differ, either may be at fault"

_SHARE = 1e-3
"""What is detectable is stated for elements of at least this share of the largest; smaller ones are mostly rounding."""


class Measured(NamedTuple):
    """An array, and how far each element moves when the inputs do."""

    value: Floats
    spread: Floats


Found: TypeAlias = "dict[str, dict[Key, Measured]]"
"""What each model says."""


# The budget, and the judgement


def measure(run: Callable[[Point], dict[Key, NDArray[Any]]], point: Point) -> dict[Key, Measured]:
    """Run once as it is, and a few times on moved inputs."""
    with np.errstate(all="ignore"):
        values = {key: np.asarray(value, dtype=np.float64) for key, value in run(point).items()}
        spreads = {key: np.zeros(value.shape) for key, value in values.items()}
        for draw in range(DRAWS):
            for key, value in run(point.moved(draw)).items():
                spreads[key] = np.maximum(spreads[key], np.abs(value - values[key]))  # NaN stays NaN
    return {key: Measured(value, spreads[key]) for key, value in values.items()}


def measured_inside(run: Callable[[Point], dict[Key, NDArray[Any]]], point: Point, of: Mapping[Key, Measured]) -> Any:
    """Return the same, moved by no less than what rounds inside the model, as the other precision shows it."""
    other: Precision = "float32" if point.dtype == "float64" else "float64"
    share = min(1.0, unit_roundoff(point.dtype) / unit_roundoff(other))
    with np.errstate(all="ignore"):
        values = run(point.in_dtype(other))
        off = {key: share * np.abs(values[key].astype(np.float64) - each.value) for key, each in of.items()}
    return {
        key: each._replace(spread=np.fmax(each.spread, np.where(np.isfinite(off[key]), off[key], 0.0)))
        for key, each in of.items()
    }


def by_little(entries: Sequence[Entry], found: Found, dtype: Precision) -> bool:
    """Whether all that differs does so by little, as rounding may where numbers cancel."""
    most = 100 * math.sqrt(np.finfo(dtype).eps)
    wrong = {(entry.law, entry.parameter) for entry in entries if entry.verdict == "wrong"}
    source, *others = found.values()

    def apart(key: Key) -> bool:
        largest = np.max(np.abs(source[key].value), initial=0.0)
        theirs = [each[key].value for each in others if key in each]
        return not all(np.all(np.abs(value - source[key].value) <= most * largest) for value in theirs)

    with np.errstate(invalid="ignore"):
        return bool(wrong) and not any(map(apart, wrong))


def _budget(one: Measured, other: Measured, dtype: Precision) -> Floats:
    """16 max(s, root mean square of s) + 8 u max |array|."""
    spread = np.maximum(one.spread, other.spread)
    spread = np.where(np.isnan(spread), math.inf, spread)
    mean = np.sqrt(np.mean(spread**2))
    largest = np.max(np.maximum(np.abs(one.value), np.abs(other.value)))
    budget = SAFETY * np.maximum(spread, mean) + FLOOR * unit_roundoff(dtype) * largest
    return np.asarray(budget)


def agreeing(one: Measured, other: Measured, dtype: Precision) -> bool:
    """Whether two arrays are the same to within their budget."""
    one, other = _without_equal_infinities(one, other)
    if not (np.isfinite(one.value).all() and np.isfinite(other.value).all()):
        return False
    return bool((np.abs(one.value - other.value) <= _budget(one, other, dtype)).all())


def judged_arrays(found: Found, dtype: Precision, point: Point | None) -> list[Entry]:
    """Return an entry for each array and each model but the one that the others are measured by."""
    source = next(iter(found))
    entries = []
    for key in found[source]:
        measured = {name: arrays[key] for name, arrays in found.items()}
        for entry in judged_array(key, measured, dtype):
            if entry.verdict == "wrong" and point is not None:
                truth = measured[_reference(measured, dtype)[0]]
                why = _why(key, truth, measured[entry.implementation], found, dtype, point)
                entry = replace(entry, cause=f"{why}; {entry.cause}" if why else entry.cause)
            entries.append(entry)
    return entries


def judged_array(key: Key, measured: Mapping[str, Measured], dtype: Precision) -> list[Entry]:
    """Return the entries of one array: what each model but the reference says of it."""
    law, name = key
    reference, blame = _reference(measured, dtype)
    entries = []
    for model in measured:
        if model == reference:
            continue
        truth, each = _without_equal_infinities(measured[reference], measured[model])
        budget = _budget(truth, each, dtype)
        entry = verdict.compare(
            model, name, each.value, Known(truth.value), Allowance(budget, grade="sampled"), dtype, law
        )
        if not (np.isfinite(truth.value).all() and np.isfinite(each.value).all()):
            entry = _not_finite(entry, reference, truth.value, each.value)
        size = np.abs(truth.value)
        known = np.where((size > budget) & (size >= _SHARE * np.max(size)), truth.value, 0.0)
        faults = detectable_faults(known, budget)
        largest, median = (float(np.max(faults)), float(np.median(faults))) if faults.size else (math.nan, math.nan)
        entry = replace(entry, detectable=largest, detectable_in_half=median)
        entries.append(entry if entry.verdict != "wrong" or entry.cause else replace(entry, cause=blame))
    return entries


def _reference(measured: Mapping[str, Measured], dtype: Precision) -> tuple[str, str]:
    """Return whom the others are measured by, and what it means to differ from it."""
    names = list(measured)
    if len(names) == 2:
        return names[0], EITHER
    for size in range(len(names), len(names) // 2, -1):
        for group in combinations(names, size):
            pairs = combinations(group, 2)
            if all(agreeing(measured[one], measured[other], dtype) for one, other in pairs):
                return group[0], f"the odd one out: {' and '.join(group)} agree"
    return names[0], "no majority agrees, any may be at fault"


def _without_equal_infinities(one: Measured, other: Measured) -> tuple[Measured, Measured]:
    """Return both with 0 where they are the same infinity, as masks are."""
    same = np.isinf(one.value) & (one.value == other.value)
    if not same.any():
        return one, other
    blank = (Measured(np.where(same, 0.0, each.value), np.where(same, 0.0, each.spread)) for each in (one, other))
    return next(blank), next(blank)


def _not_finite(entry: Entry, reference: str, truth: Floats, value: Floats) -> Entry:
    """An entry with NaN or infinity in it: nobody agrees on that."""
    broken = value if not np.isfinite(value).all() else truth
    name = entry.implementation if broken is value else reference
    worst = tuple(int(i) for i in np.argwhere(~np.isfinite(broken))[0])
    both = not np.isfinite(truth[worst]) and not np.isfinite(value[worst])
    cause = f"{f'both {reference} and {entry.implementation} have' if both else f'{name} has'} {broken[worst]} there"
    return replace(
        entry, verdict="wrong", worst_index=worst, actual=float(value[worst]), expected=float(truth[worst]), cause=cause
    )


def _why(key: Key, truth: Measured, actual: Measured, found: Found, dtype: Precision, point: Point) -> str:
    """Return the common mistake that explains a gradient; for per-sample gradients, which samples are off."""
    law, name = key
    if name == LOSS or not (np.isfinite(truth.value).all() and np.isfinite(actual.value).all()):
        return ""
    budget = _budget(truth, actual, dtype)
    if law == ROWS:
        wrong = np.asarray(np.abs(actual.value - truth.value) > budget).reshape(len(truth.value), -1)
        places = np.flatnonzero(np.any(wrong, axis=1)).tolist()
        some = ", ".join(map(str, places[:3])) + ", ..." * (len(places) > 3)
        return f"in {len(places)} of {len(truth.value)} samples: {some}"
    n = len(point.features)
    rows = [arrays[ROWS, name].value for arrays in found.values() if (ROWS, name) in arrays]
    every_row = rows[0] if rows and len(rows[0]) == n else None
    value = point.params[name].astype(np.float64)
    return cause_of(Evidence(actual.value, truth.value, budget, dtype, n, parameter=value, per_sample=every_row))


def unmoved(outputs: Mapping[Key, NDArray[Any]]) -> dict[Key, Measured]:
    """Return arrays as measured ones that no input moves."""
    values = {key: np.asarray(value, dtype=np.float64) for key, value in outputs.items()}
    return {key: Measured(value, np.zeros(value.shape)) for key, value in values.items()}


def share_apart(measured: Mapping[Key, Measured], source: Mapping[Key, Measured]) -> float:
    """Return the largest difference, as a share of its array's largest magnitude."""
    shares = [0.0]
    for key in source:
        largest = float(np.max(np.abs(source[key].value)))
        if key[1] != LOSS and largest:
            shares.append(float(np.max(np.abs(measured[key].value - source[key].value))) / largest)
    return max(shares)
