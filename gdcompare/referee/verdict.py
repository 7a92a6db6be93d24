"""Agree, wrong or inconclusive: the judgement of one gradient, element by element, and the report of many.

For each element, with the truth in [mid - rad, mid + rad] and B the budget, the rounding error that a correct program
may make at this dtype:

    agree           |actual - truth| <= B for the truth, wherever in its enclosure it lies
    wrong           |actual - truth| >  B, likewise; NaN or infinity, if B is finite; wrong dtype, shape or names
    inconclusive    neither is proven: the enclosure is too wide, or the budget is not finite

At a kink the truth is a set, of the one-sided derivatives and what lies between them, and what is within B of a member
in every element agrees.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Verdict: TypeAlias = Literal["agree", "wrong", "inconclusive"]
Floats: TypeAlias = NDArray[np.float64]


class Truth(Protocol):
    """What the referee knows of one array of true values."""

    @property
    def mid(self) -> Floats:
        """The middle of each enclosure, to the nearest float64."""

    @property
    def kinks(self) -> NDArray[np.bool_]:
        """Where the truth is a set: of one-sided derivatives, and what lies between them."""

    @property
    def width(self) -> Floats:
        """The width of these sets, and 0 elsewhere."""

    @property
    def reason(self) -> str:
        """Why the truth is a set, or unknown, if it is not for a kink."""

    def distance(self, actual: NDArray[Any]) -> tuple[Floats, Floats]:
        """Return proven bounds (lower, upper) on |actual - truth|."""


@dataclass(frozen=True, eq=False)
class Known:
    """A truth known to within an error, in float64; 0 if none is given."""

    mid: Floats
    error: Floats | float = 0.0

    @property
    def kinks(self) -> NDArray[np.bool_]:
        """None."""
        return np.zeros(self.mid.shape, dtype=bool)

    @property
    def width(self) -> Floats:
        """0."""
        return np.zeros(self.mid.shape)

    @property
    def reason(self) -> str:
        """None."""
        return ""

    def distance(self, actual: NDArray[Any]) -> tuple[Floats, Floats]:
        """The distance from the middle, less and more the error."""
        off = np.abs(actual - self.mid)
        return np.maximum(off - self.error, 0.0), off + self.error


@dataclass(frozen=True)
class Entry:
    """The judgement of one array: one parameter's gradient by one implementation."""

    implementation: str
    parameter: str
    verdict: Verdict
    worst_index: tuple[int, ...] | None = None
    """The element that uses most of its budget; None if the array could not be compared."""
    actual: float = math.nan
    """What the implementation says there."""
    expected: float = math.nan
    """The truth there, to the nearest float64."""
    error_ulps: float = math.nan
    """|actual - truth| there, in units in the last place of the truth in the dtype under test."""
    budget_fraction: float = math.nan
    """|actual - truth| / budget there: at most 1 agrees."""
    detectable: float = math.nan
    """The smallest relative fault that would have been caught in any element whose truth is not 0."""
    cause: str = ""
    """What explains the error, with its evidence."""
    law: str = ""
    """The batch law that was checked, if it was one; in a comparison of models, what kind of array it is."""


@dataclass(frozen=True)
class Report:
    """The judgement of several implementations, law by law or parameter by parameter.

    It is true when all agree. `context` holds what the results depend on: problem, data, sizes, dtype, versions.
    """

    entries: tuple[Entry, ...]
    context: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def merged(cls, reports: Sequence[Report]) -> Report:
        """Return one report with the entries of all, in the context of the first."""
        return cls(tuple(entry for report in reports for entry in report.entries), reports[0].context)

    @property
    def verdict(self) -> Verdict:
        """Wrong if any entry is wrong; else inconclusive if any is; else agree."""
        found = {entry.verdict for entry in self.entries}
        return "wrong" if "wrong" in found else "inconclusive" if "inconclusive" in found else "agree"

    def __bool__(self) -> bool:
        return self.verdict == "agree"

    def assert_agree(self) -> None:
        """Raise an AssertionError that names every entry that does not agree, its worst element and the cause."""
        __tracebackhide__ = True
        if not self:
            raise AssertionError(self.explanation())

    def explanation(self) -> str:
        """Return, in lines, what does not agree, by how much and why; or that all agree, and what would be caught."""
        bad = [entry for entry in self.entries if entry.verdict != "agree"]
        where = " on ".join(str(self.context[key]) for key in ("problem", "data") if key in self.context)
        if not bad:
            caught = max((entry.detectable for entry in self.entries if not math.isnan(entry.detectable)), default=0.0)
            return f"all {len(self.entries)} comparisons agree; a relative fault of {caught:.1e} would have been caught"
        lines = [f"{len(bad)} of {len(self.entries)} comparisons do not agree{' for ' + where if where else ''}:"]
        return "\n".join([*lines, *(f"  {_sentence(entry)}" for entry in bad)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        return {"verdict": self.verdict, "context": dict(self.context), "entries": [asdict(e) for e in self.entries]}

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as JSON; NaN and infinity, which JSON lacks, are the strings "nan" and "inf"."""
        return json.dumps(plain(self.to_dict()), indent=indent, allow_nan=False)


def judge(implementation: str, parameter: str, actual: Any, truth: Truth, budget: Floats, dtype: str) -> Entry:
    """Return the entry of one array; its kind is checked first.

    `budget` has the shape of the truth and is in absolute terms.
    """
    array = np.asarray(actual)
    if array.dtype != np.dtype(dtype):
        return _refused(implementation, parameter, f"dtype {array.dtype} where {dtype} belongs")
    if array.shape != truth.mid.shape:
        return _refused(implementation, parameter, f"shape {array.shape} where {truth.mid.shape} belongs")

    return compare(implementation, parameter, array, truth, budget, dtype)


def compare(
    implementation: str, parameter: str, array: NDArray[Any], truth: Truth, budget: Floats, dtype: str, law: str = ""
) -> Entry:
    """Return the entry of an array of the right shape; ulps are those of `dtype`, whatever the array's own."""
    lower, upper = truth.distance(array)
    error = np.where(truth.kinks & np.isfinite(upper), lower, upper)
    fractions = _fraction(error, budget)
    # Where the budget is infinite, so may be what a correct program of the formula computes.
    surely_wrong = (lower > budget) | (~np.isfinite(array) & np.isfinite(truth.mid) & np.isfinite(budget))
    agrees = (error <= budget) & np.isfinite(budget) & ~surely_wrong
    verdict: Verdict = "wrong" if surely_wrong.any() else "agree" if agrees.all() else "inconclusive"
    place = np.unravel_index(int(np.argmax(np.where(np.isnan(fractions), np.inf, fractions))), fractions.shape)
    worst = tuple(int(i) for i in place)
    expected = float(truth.mid[worst])
    return Entry(
        implementation,
        parameter,
        verdict,
        worst,
        float(array[worst]),
        expected,
        float(error[worst]) / ulp(expected, dtype),
        float(fractions[worst]),
        detectable_fault(_without_zeros(truth, budget), budget, truth.width),
        _undecided(verdict, truth, budget),
        law,
    )


def detectable_fault(truth: Floats, budget: Floats, width: Floats | float = 0.0) -> float:
    """Return the smallest relative fault that is caught in every element, however its rounding fell.

    A correct value may lie a budget away on either side, and anywhere in a set of that width, so a fault of
    (W + 2 B) / |truth| cannot hide; the largest of these over the elements whose truth is not 0. NaN if there is none.
    Some member of a set is at least half as large as it is wide, and counts.

    >>> detectable_fault(np.array([1.0, -4.0, 0.0]), np.array([1e-16, 1e-16, 1e-16]))
    2e-16
    >>> detectable_fault(np.array([2.0, 4.0]), np.array([0.0, 0.0]), np.array([0.0, 1.0]))
    0.25
    >>> detectable_fault(np.array([np.inf]), np.array([np.inf]))  # the truth exceeds the largest float
    inf
    """
    size = np.maximum(np.abs(truth), np.asarray(width) / 2)
    some = size != 0
    with np.errstate(all="ignore"):
        faults = np.where(np.isinf(budget) | np.isinf(width), np.inf, (width + 2 * budget) / size)
    return float(np.max(faults[some])) if some.any() else math.nan


def _without_zeros(truth: Truth, budget: Floats) -> Floats:
    """Return the middles, and 0 for what is not known from 0: the middle of such a ball says nothing of its size."""
    doubtful = (truth.mid != 0) & (np.abs(truth.mid) < budget)
    if not doubtful.any():
        return truth.mid
    lower, _ = truth.distance(np.zeros(truth.mid.shape))
    return np.where(doubtful & (lower == 0), 0.0, truth.mid)


def ulp(value: float, dtype: str) -> float:
    """Return the distance from |value| to the next larger float of that dtype.

    >>> ulp(1.0, "float32") == 2.0**-23
    True
    """
    kind = np.dtype(dtype).type
    with np.errstate(over="ignore"):
        spacing = float(np.spacing(min(abs(kind(value)), np.finfo(kind).max)))
    return spacing if math.isfinite(spacing) else math.nan


def _fraction(error: Floats, budget: Floats) -> Floats:
    """Return error / budget, where 0/0 is 0 and an infinite budget leaves nothing proven (NaN)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        fraction = np.where(error == 0, 0.0, error / budget)
    return np.where(np.isfinite(budget), fraction, np.nan)


def _undecided(verdict: Verdict, truth: Truth, budget: Floats) -> str:
    if verdict == "inconclusive":
        over = "" if np.isfinite(budget).all() else "the budget is not finite: overflow"
        return truth.reason or over or "the enclosure is too wide"
    if verdict == "agree" and truth.kinks.any():
        return truth.reason or "a kink: inside the hull of the one-sided derivatives"
    return ""


def _refused(implementation: str, parameter: str, cause: str) -> Entry:
    return Entry(implementation, parameter, "wrong", cause=cause)


def judge_all(
    implementation: str,
    actual: Mapping[str, Any],
    truths: Mapping[str, Truth],
    budgets: Mapping[str, Floats],
    dtype: str,
) -> list[Entry]:
    """Return an entry for each parameter: those of the truth, and any that should not be there."""
    entries = []
    for name, truth in truths.items():
        if name in actual:
            entries.append(judge(implementation, name, actual[name], truth, budgets[name], dtype))
        else:
            entries.append(_refused(implementation, name, "missing"))
    return entries + [_refused(implementation, str(name), "no such parameter") for name in actual if name not in truths]


def _sentence(entry: Entry) -> str:
    head = f"{entry.implementation}: {f'{entry.law}: ' if entry.law else ''}{entry.parameter}"
    because = f"; {entry.cause}" if entry.cause else ""
    if entry.worst_index is None:
        return f"{head} is {entry.verdict}{because}"
    index = f"[{', '.join(map(str, entry.worst_index))}]" if entry.worst_index else ""
    return (
        f"{head}{index} is {entry.verdict}: actual {entry.actual!r}, expected {entry.expected!r}, "
        f"{entry.error_ulps:.3g} ulp, {entry.budget_fraction:.3g} times the budget{because}"
    )


def plain(value: Any) -> Any:
    """Return the value as JSON can hold it: plain numbers and lists, NaN and infinity as strings.

    >>> plain({"a": np.float32(0.5), "b": (1, math.inf), "c": np.arange(2)})
    {'a': 0.5, 'b': [1, 'inf'], 'c': [0, 1]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    return value
