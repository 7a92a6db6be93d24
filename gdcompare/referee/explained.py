"""From what was judged to what is known of it: the evidence for each wrong entry, and its cause."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.referee.along import RefereeAlong
from gdcompare.referee.diagnosis import cause_of, cause_of_all
from gdcompare.referee.enclosure import Enclosed
from gdcompare.referee.evidence import Evidence
from gdcompare.referee.in_floats import InFloats
from gdcompare.referee.point import Referee, Reference
from gdcompare.referee.verdict import LOSS, Allowance, Entry, Floats, budgets_of

BY_ITSELF = "; the derivation cancels so much that its own rounding may be as large: write it otherwise"

VAGUE = ("a constant factor", "no common mistake", "off ")
"""How causes begin that what all parameters have in common says better."""


def explained(
    referee: Reference,
    truths: Mapping[str, Enclosed],
    first: Sequence[Entry],
    again: Sequence[Entry],
    calls: Sequence[Mapping[str, Any]],
    allowed: Mapping[str, Floats | Allowance],
) -> list[Entry]:
    """Return the worse of two calls' entries of an implementation, each with its cause."""
    known = _Known(referee, truths, budgets_of(allowed), InFloats(referee))
    entries = [
        _of_two(known, one, two, [call.get(one.parameter) for call in calls])
        for one, two in zip(first, again, strict=True)
    ]
    return [_by_itself(each, allowed.get(each.parameter)) for each in _of_all(known, entries, calls[0])]


@dataclass(frozen=True, eq=False)
class _Known:
    """What an implementation was judged by."""

    referee: Reference
    truths: Mapping[str, Enclosed]
    budgets: Mapping[str, Floats]
    floats: InFloats

    def evidence(self, name: str, value: NDArray[Any]) -> Evidence:
        """Return all that is known of one array."""
        referee, truths, weights = self.referee, self.truths, self.referee.weights
        unweighted = referee.unweighted.truths if isinstance(referee, Referee) and weights is not None else {}
        sizes = [float(np.max(np.abs(truth.mid), initial=0.0)) for key, truth in truths.items() if key != LOSS]
        return Evidence(
            actual=value.astype(np.float64),
            truth=truths[name].mid,
            budget=self.budgets[name],
            dtype=referee.dtype,
            n=len(referee.features),
            parameter=None if name == LOSS or name not in referee.params else referee.params[name].astype(np.float64),
            per_sample=self.floats.rows.get(name),
            reduction=referee.reduction,
            weights=None if weights is None else weights.astype(np.float64),
            unweighted=unweighted[name].mid if name in unweighted else None,
            diagonal=name not in referee.truths,
            scale=max(sizes, default=0.0),
            loss=float(referee.truths[LOSS].mid) if LOSS in referee.truths else math.nan,
            name=name,
            floats=self.floats,
        )


def _of_two(known: _Known, one: Entry, two: Entry, values: list[Any]) -> Entry:
    """Return the worse of two calls' entries, with its cause."""
    name = one.parameter
    kinds = [None if value is None else (np.asarray(value).dtype, np.shape(value)) for value in values]
    if kinds[0] != kinds[1]:
        words = " and ".join("nothing" if kind is None else f"{kind[0]} {kind[1]}" for kind in kinds)
        return replace(one, verdict="wrong", cause=f"not deterministic: two calls return {words}")
    if one.worst_index is None or two.worst_index is None or name not in known.budgets:
        return one
    repeats = np.array_equal(values[0], values[1], equal_nan=True)
    if one.verdict != "wrong" and not repeats:
        if two.verdict != "wrong":
            return replace(one, cause="not deterministic: two calls differ, within the budget")
        twice = np.abs(values[1] - 2.0 * known.truths[name].mid) <= 4 * known.budgets[name]
        stale = "stale accumulation: the second call returns the sum of both"
        return replace(two, cause=stale if twice.all() else "not deterministic: a second call differs")
    if one.verdict != "wrong":
        return one
    cause = cause_of(known.evidence(name, values[0]))
    return replace(one, cause=cause + ("" if repeats else "; and not deterministic: two calls differ"))


def _by_itself(entry: Entry, allowed: Floats | Allowance | None) -> Entry:
    """Say so where the derivation's own rounding would explain an error that is too large for a good formula."""
    own = allowed.own if isinstance(allowed, Allowance) and entry.verdict == "wrong" else None
    if own is None or entry.worst_index is None or abs(entry.actual - entry.expected) > own[entry.worst_index]:
        return entry
    return replace(entry, cause=entry.cause + BY_ITSELF)


def _of_all(known: _Known, entries: list[Entry], call: Mapping[str, Any]) -> list[Entry]:
    """Say what the whole gradient has in common, where that explains more than each parameter by itself."""
    wrong = {entry.parameter for entry in entries if entry.verdict == "wrong" and entry.parameter != LOSS}
    compared = {entry.parameter for entry in entries if entry.worst_index is not None and entry.parameter != LOSS}
    if isinstance(known.referee, RefereeAlong) or not wrong or compared != set(known.referee.params):
        return entries
    common = cause_of_all({name: known.evidence(name, np.asarray(call[name])) for name in compared})
    if not common:
        return entries
    return [
        replace(entry, cause=common) if entry.parameter in wrong and entry.cause.startswith(VAGUE) else entry
        for entry in entries
    ]
