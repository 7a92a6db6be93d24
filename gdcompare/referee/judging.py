"""One implementation, called twice at one point, before the referee: what it says, and why it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gdcompare.progress import said_if_long
from gdcompare.referee.along import RefereeAlong
from gdcompare.referee.due import ExitError, NotDueError, as_array, as_due, as_number, no_exit, what_it_raised
from gdcompare.referee.enclosed import Enclosed
from gdcompare.referee.explained import explained
from gdcompare.referee.point import Implementation, Reference
from gdcompare.referee.verdict import LOSS, Allowance, Entry, Floats, budgets_of, judge_all


def judged(
    referee: Reference,
    name: str,
    implementation: Implementation,
    allowed: Mapping[str, Floats | Allowance],
    may_raise: bool,
) -> list[Entry]:
    """Call the implementation twice, judge what it says, and find the cause of what is wrong."""
    if (fits := getattr(implementation, "fits", None)) is not None:  # a native model's
        fits(referee.params)  # raises where that is not possible: nobody's gradient is at fault
    calls: list[dict[str, Any]] = []
    for _ in range(2):
        point = referee.point
        try:
            with said_if_long(f"{name}: computing, or compiling"), no_exit():
                found = implementation(*point)
            loss, gradient = as_due(found, (None, {}), "(loss, {name: gradient})")
            call = {str(key): as_array(value, referee.dtype) for key, value in gradient.items()}
            if loss is not None:
                call = {LOSS: as_number(loss, referee.dtype), **call}
        except NotDueError as error:
            return [Entry(name, LOSS, "wrong", cause=str(error))]
        except Exception as error:
            if not may_raise or isinstance(error, ExitError):
                raise
            return [Entry(name, LOSS, "wrong", cause=what_it_raised(error))]
        if changed := changed_inputs(referee, point):
            return [Entry(name, LOSS, "wrong", cause=f"it changed its inputs: {', '.join(changed)}")]
        calls.append(call)
    judgements: list[dict[str, Entry]] = []
    allowances, budgets = dict(allowed), budgets_of(allowed)
    known: dict[str, Enclosed] = {}
    for call in calls:
        if judgements and _same(call, calls[0]) and not _any_kinks(known):
            judgements.append(judgements[0])  # the second call gave the same bits
            continue
        truths = dict(referee.towards(call, budgets))
        if isinstance(referee, RefereeAlong):
            truths, allowances = referee.judged_by(calls[0], allowed)
        if LOSS not in calls[0]:
            truths.pop(LOSS, None)
        known = known or truths
        entries = judge_all(name, call, truths, allowances, referee.dtype)
        judgements.append({entry.parameter: entry for entry in entries})
    first, again = judgements
    absent = Entry(name, "", "wrong", cause="missing")
    every = list(first | again)
    one, two = ([found.get(key, replace(absent, parameter=key)) for key in every] for found in (first, again))
    entries = explained(referee, known, one, two, calls, allowances)
    gradients = [entry for entry in entries if entry.parameter != LOSS]
    if all(entry.worst_index is not None for entry in entries) and any(e.verdict == "wrong" for e in gradients):
        rule = referee.convention(calls[0], budgets)
        entries = [replace(each, cause=rule) if rule and each.verdict == "wrong" else each for each in entries]
    if set(referee.truths) <= {LOSS, *known}:
        return entries
    blocks = f"{len(referee.truths)} block{'s' * (len(referee.truths) > 1)}"
    partly = f"of {blocks}, only what is given is judged: {', '.join(known)}"
    return [replace(entries[0], cause=f"{entries[0].cause}; {partly}".removeprefix("; ")), *entries[1:]]


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two calls gave the same arrays, bit for bit."""
    return one.keys() == other.keys() and all(
        each.dtype == other[name].dtype and each.shape == other[name].shape and each.tobytes() == other[name].tobytes()
        for name, each in one.items()
    )


def _any_kinks(truths: Mapping[str, Enclosed]) -> bool:
    """Whether any truth is a set, of which more may be seen when it is asked for again."""
    return any(truth.kinks.any() for truth in truths.values())


def changed_inputs(referee: Reference, point: tuple[Any, ...]) -> list[str]:
    """Name the arrays of a point that an implementation was given, and changed."""
    before, after = _by_name(referee.point), _by_name(point)
    return [key[-1] for key, value in before.items() if key not in after or not np.array_equal(value, after[key])]


def _by_name(point: tuple[Any, ...]) -> dict[tuple[str, ...], Any]:
    """Name the arrays of a point: (params, features, targets), and a direction or weights if any."""
    params, features, targets, *others = point
    arrays: dict[tuple[str, ...], Any] = {("parameter", name): value for name, value in params.items()}
    arrays |= {("features",): features, ("targets",): targets}
    for each in others:
        along = isinstance(each, Mapping)
        arrays |= {("", f"direction {name!r}"): v for name, v in each.items()} if along else {("weights",): each}
    return arrays
