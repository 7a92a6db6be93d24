"""Agree, wrong or inconclusive: the judgement of one gradient, element by element, and the report of many.

For each element, with the truth in [mid - rad, mid + rad], B the allowance, the rounding error that a correct program
may make at this dtype, and S its scale, the larger of |truth| and the mean magnitude of the per-sample gradients that
it is the mean of (or the size of the terms whose sum it is by chance a small one of: `allowance.size_of_terms`):

    resolved        B <= S / 1000: digits were checked; in programs that round to half precision B <= 64 u S, u that of
                    the narrowest format, at most S / 10, in an array of which some element shows a factor of 2
    agree           |actual - truth| <= B for the truth, wherever in its enclosure it lies, and resolved
    wrong           |actual - truth| >  B, likewise; NaN or infinity, if B is finite; wrong dtype, shape or names
    inconclusive    neither: the enclosure is too wide, the allowance is not finite, or it is too large to see digits

An array agrees if all its elements do, and is wrong if any is. Its evidence has a grade: `proven` where every B is the
worst case (no program that only rounds can do this), `sampled` where some B is `sampling.K` deviations of rounding.

At a kink the truth is a set, of the one-sided derivatives and what lies between them, and what is within B of a member
in every element agrees.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.precision import NARROW
from gdcompare.referee.shown import causes, entry_in_a_line, heading, one_line, verdict_table
from gdcompare.table import Part, as_html, as_text

Verdict: TypeAlias = Literal["agree", "wrong", "inconclusive"]
Grade: TypeAlias = Literal["proven", "sampled"]
Floats: TypeAlias = NDArray[np.float64]

LOSS = "loss"
"""The loss's own name among the parameters."""

RESOLUTION = 1e-3
"""An element whose allowance is no more than this share of its scale is resolved."""

COARSEST = 0.1
"""And where operations round to half precision, no more than 64 u, or this: one digit must be seen."""

NOTHING = 1e-320
"""An allowance of no more than this allows nothing: such an element is resolved whatever its scale."""


APART = 100
"""What is detectable is also said of half of the elements, where it is so many times less than of all."""


def resolution_of(narrowest: str) -> float:
    """Return what share counts as resolved in a program whose operations round to that dtype; "" for none narrower.

    >>> resolution_of(""), resolution_of("bfloat16"), resolution_of("float16") == 2.0**-5
    (0.001, 0.1, True)
    """
    return min(COARSEST, 64 * NARROW[narrowest].u) if narrowest in NARROW else RESOLUTION


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


@dataclass(frozen=True, eq=False)
class Allowance:
    """How far a correct program may be off, element by element, and whether that leaves any digit to check."""

    budget: Floats
    """In absolute terms, of the shape of the truth."""
    scale: Floats | None = None
    """What the elements are measured by; None where they are to be judged by their budget alone."""
    grade: Grade = "proven"
    why: Callable[[NDArray[np.bool_]], str] = lambda _: ""
    """Says why those elements are not resolved."""
    own: Floats | None = None
    """What the derivation would allow itself, where that is more than it is given."""
    resolution: float = RESOLUTION
    """The largest share of its scale that the allowance of a resolved element may be."""
    tolerance: bool = False
    """Whether somebody asked for just this: what is within it agrees, resolved or not, and the digits are its price."""

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """Where digits can be checked."""
        if self.scale is None:
            return np.ones(self.budget.shape, dtype=bool)
        enough = (self.budget <= self.resolution * self.scale) & np.isfinite(self.budget)
        return np.asarray(enough | (self.budget <= NOTHING))

    def digits(self, truth: Floats, dtype: str) -> int:
        """Return how many decimal digits were checked in each resolved element: floor(-log10(B / S)), for the worst.

        No more than the dtype has, and 0 if none is resolved. Where nobody says what the scale is, it is the largest
        truth's.

        >>> Allowance(np.array([2e-6, 1e-2, 0.0]), np.array([1.0, 1.0, 0.0])).digits(np.ones(3), "float64")
        5
        """
        scale = np.full(self.budget.shape, np.abs(truth).max(initial=0.0)) if self.scale is None else self.scale
        seen = self.resolved & np.isfinite(self.budget)
        if not seen.any():
            return 0
        with np.errstate(all="ignore"):
            shares = np.where(self.budget <= NOTHING, 0.0, self.budget / scale)[seen]
        worst = float(np.max(np.where(np.isnan(shares), 1.0, shares)))
        return math.floor(-math.log10(min(max(worst, float(np.finfo(dtype).eps) / 2), 1.0)))


def budgets_of(allowed: Mapping[str, Floats | Allowance]) -> dict[str, Floats]:
    """Return what is allowed of each array as plain budgets."""
    return {name: each.budget if isinstance(each, Allowance) else each for name, each in allowed.items()}


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
    """The smallest relative fault that would have been caught in any element whose truth is not 0, however small."""
    cause: str = ""
    """What explains the error, with its evidence."""
    law: str = ""
    """The batch law that was checked, if it was one; in a comparison of models, what kind of array it is."""
    digits: int = 0
    """How many decimal digits were checked, in the resolved element that shows fewest."""
    grade: Grade = "proven"
    """Whether every allowance is the worst case, or some are sampled."""
    resolved: tuple[int, int] = (0, 0)
    """In how many elements digits could be checked, and of how many."""
    detectable_in_half: float = math.nan
    """The smallest relative fault that would have been caught in half of the elements whose truth is not 0."""

    def __repr__(self) -> str:
        return entry_in_a_line(self)


@dataclass(frozen=True, repr=False)
class Report:
    """The judgement of several implementations, law by law or parameter by parameter.

    It is true when all agree. `context` holds what the results depend on: problem, data, sizes, dtype, versions.

    >>> report = Report((judge("mine", "w", np.array([1.0]), Known(np.array([1.0])), np.array([1e-15]), "float64"),))
    >>> report
    Report(agree, 1 entry)
    >>> print(report)
     backend  parameter  verdict  ulps  of budget  detectable  digits
     ----------------------------------------------------------------
     mine     w[0]       agree       0          0       2e-15      15
    <BLANKLINE>
    all 1 comparisons agree; a relative fault of 2.0e-15 would have been caught; 15 digits checked
    >>> report.entries[0]
    Entry(agree, mine: w[0], 0 ulps, 0 of budget)
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

    def shown(self) -> list[Part]:
        """Return what is shown of it: a heading, tables, and lines to close with."""
        closing = self.summary() if self else f"verdict: {self.verdict}"
        return [heading(self.context), verdict_table(self.entries), *causes(self.entries), closing]

    def __repr__(self) -> str:
        return one_line(type(self).__name__, self.verdict, len(self.entries), self.context)

    def __str__(self) -> str:
        return as_text(self.shown())

    def _repr_html_(self) -> str:
        return as_html(self.shown())

    def assert_agree(self) -> None:
        """Raise an AssertionError that names every entry that does not agree, its worst element and the cause."""
        __tracebackhide__ = True
        if not self:
            raise AssertionError(self.summary())

    def explanation(self) -> str:
        """Return, in lines, what does not agree, by how much and why; or that all agree, and what would be caught.

        What is to be noted of those that agree, as the table notes it, follows.
        """
        notes = causes(entry for entry in self.entries if entry.verdict == "agree")
        return "\n".join([self.summary(), *(f"  {note}" for note in notes)])

    def summary(self) -> str:
        """Return the same without the notes."""
        bad = [entry for entry in self.entries if entry.verdict != "agree"]
        where = " on ".join(str(self.context[key]) for key in ("problem", "data") if key in self.context)
        if not bad:
            return f"all {len(self.entries)} comparisons agree; {self._power()}"
        lines = [f"{len(bad)} of {len(self.entries)} comparisons do not agree{' for ' + where if where else ''}:"]
        return "\n".join([*lines, *(f"  {_sentence(entry)}" for entry in bad)])

    def _power(self) -> str:
        """Say what would have been caught, in the comparison that sees least."""
        some = [entry for entry in self.entries if not math.isnan(entry.detectable)]
        if not some:
            return "no power: all truths are 0"
        every, half = max(entry.detectable for entry in some), max(entry.detectable_in_half for entry in some)
        apart = f" in every element, of {half:.1e} in half of each array" if every > APART * half else ""
        sampled = any(entry.grade == "sampled" for entry in self.entries)
        digits = min(entry.digits for entry in self.entries)
        return (
            f"a relative fault of {every:.1e} would have been caught{apart}; "
            f"{digits} digits checked{' (* sampled, not proven)' if sampled else ''}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        return {"verdict": self.verdict, "context": dict(self.context), "entries": [asdict(e) for e in self.entries]}

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as JSON; NaN and infinity, which JSON lacks, are the strings "nan" and "inf"."""
        return json.dumps(plain(self.to_dict()), indent=indent, allow_nan=False)


def judge(
    implementation: str, parameter: str, actual: Any, truth: Truth, allowed: Floats | Allowance, dtype: str
) -> Entry:
    """Return the entry of one array; its kind is checked first.

    What is `allowed` has the shape of the truth and is in absolute terms.
    """
    array = np.asarray(actual)
    if array.dtype != np.dtype(dtype):
        return _refused(implementation, parameter, f"dtype {array.dtype} where {dtype} belongs")
    if array.shape != truth.mid.shape:
        return _refused(implementation, parameter, f"shape {array.shape} where {truth.mid.shape} belongs")

    return compare(implementation, parameter, array, truth, allowed, dtype)


def compare(
    implementation: str,
    parameter: str,
    array: NDArray[Any],
    truth: Truth,
    allowed: Floats | Allowance,
    dtype: str,
    law: str = "",
) -> Entry:
    """Return the entry of an array of the right shape; ulps are those of `dtype`, whatever the array's own."""
    allowance = allowed if isinstance(allowed, Allowance) else Allowance(allowed)
    if allowance.resolution > RESOLUTION and not _shows_a_factor(truth, allowance.budget):
        allowance = replace(allowance, resolution=0.0)
    budget, resolved = allowance.budget, allowance.resolved
    faults = detectable_faults(_without_zeros(truth, budget), budget, truth.width)
    lower, upper = truth.distance(array)
    error = np.where(truth.kinks & np.isfinite(upper), lower, upper)
    fractions = _fraction(error, budget)
    # Where the budget is infinite, so may be what a correct program of the formula computes.
    surely_wrong = (lower > budget) | (~np.isfinite(array) & np.isfinite(truth.mid) & np.isfinite(budget))
    agrees = (error <= budget) & np.isfinite(budget) & ~surely_wrong
    verdict: Verdict = "wrong" if surely_wrong.any() else "inconclusive"
    if (agrees & (resolved | allowance.tolerance)).all() and verdict != "wrong":
        verdict = "agree"
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
        float(np.max(faults, initial=0.0)) if faults.size else math.nan,
        _undecided(verdict, truth, allowance, agrees),
        law,
        allowance.digits(truth.mid, dtype),
        allowance.grade,
        (int(np.count_nonzero(resolved)), resolved.size),
        float(np.median(faults)) if faults.size else math.nan,
    )


def _shows_a_factor(truth: Truth, budget: Floats) -> bool:
    """Whether some element would show a factor of 2 or 1/2: where little is resolved, an array must, or nothing is."""
    return bool((4 * budget <= np.maximum(np.abs(truth.mid), 4 * NOTHING)).any())


def detectable_faults(truth: Floats, budget: Floats, width: Floats | float = 0.0) -> Floats:
    """Return, for each element whose truth is not 0, the smallest relative fault caught, however its rounding fell.

    A correct value may lie a budget away on either side, and anywhere in a set of that width, so a fault of
    (W + 2 B) / |truth| cannot hide. Some member of a set is at least half as large as it is wide, and counts.

    >>> detectable_faults(np.array([1.0, -4.0, 0.0]), np.array([1e-16, 1e-16, 1e-16]))
    array([2.e-16, 5.e-17])
    >>> detectable_faults(np.array([2.0, 4.0]), np.array([0.0, 0.0]), np.array([0.0, 1.0]))
    array([0.  , 0.25])
    >>> detectable_faults(np.array([np.inf]), np.array([np.inf]))  # the truth exceeds the largest float
    array([inf])
    """
    size = np.maximum(np.abs(truth), np.asarray(width) / 2)
    with np.errstate(all="ignore"):
        faults = np.where(np.isinf(budget) | np.isinf(width), np.inf, (width + 2 * budget) / size)
    return np.asarray(faults[size != 0])


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


def _undecided(verdict: Verdict, truth: Truth, allowance: Allowance, agrees: NDArray[np.bool_]) -> str:
    """Say why nothing is decided; or of what agrees at a kink, or beyond what was asked for, that it does."""
    if verdict == "inconclusive":
        if truth.reason:
            return truth.reason
        if np.isnan(truth.mid).any():
            return "the truth is not known: its enclosure is unbounded"
        if not (bounded := np.isfinite(allowance.budget)).all():
            return f"the budget is not finite: {allowance.why(~bounded) or 'overflow, or a division by 0'}"
        if not agrees.all():
            return "the enclosure is too wide"
        blind = ~allowance.resolved
        return unresolved(blind, allowance.why(blind))
    if verdict == "agree" and (truth.kinks.any() or np.isinf(truth.width).any()):
        return truth.reason or "a kink: inside the hull of the one-sided derivatives"
    if verdict == "agree" and not allowance.resolved.all():
        return f"within the tolerance, which is too wide: {unresolved(~allowance.resolved)}"
    return ""


def unresolved(blind: NDArray[np.bool_], why: str = "") -> str:
    """Say how many elements are not resolved, and why.

    >>> unresolved(np.array([True, False, True]), "underflow")
    '2 of 3 elements not resolved: underflow'
    """
    count = int(np.count_nonzero(blind))
    which = "not resolved" if blind.size == 1 else f"{count} of {blind.size} elements not resolved"
    return f"{which}: {why}" if why else which


def _refused(implementation: str, parameter: str, cause: str) -> Entry:
    return Entry(implementation, parameter, "wrong", cause=cause)


def judge_all(
    implementation: str,
    actual: Mapping[str, Any],
    truths: Mapping[str, Truth],
    allowed: Mapping[str, Floats | Allowance],
    dtype: str,
) -> list[Entry]:
    """Return an entry for each parameter: those of the truth, and any that should not be there."""
    entries = []
    for name, truth in truths.items():
        if name in actual:
            entries.append(judge(implementation, name, actual[name], truth, allowed[name], dtype))
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
