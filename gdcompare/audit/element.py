"""One element of a derivative, by what is known of it: its status, its digits, and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.audit.known import Derivatives, digits
from gdcompare.audit.results import ORDER, Status
from gdcompare.referee.verdict import RESOLUTION, Allowance, unresolved

Floats = NDArray[np.float64]

MARGIN = 1.0
"""So many digits less than there could be, and they are lost."""
WIDE = 1e-3
"""A truth that is known to no more than this share of its size is not known."""
FAR = 1e3
"""Within so many budgets, nothing is called wrong: the framework's formula may be another, and round more."""
BLURRED = 100.0
"""A box of so many times what the derivative moves at points inside tells nothing: it is as wide as the arithmetic."""
SEEN = 3.0
"""With fewer right digits than these, none was checked."""


@dataclass(frozen=True)
class Found:
    """The judgement of one element at one point."""

    status: Status
    correct: float = math.nan
    attainable: float = math.nan
    found: float = math.nan
    expected: float = math.nan
    budgets: float = math.nan
    reason: str = ""
    argument: str = ""
    index: tuple[int, ...] = ()
    allowed: Callable[[], float] | None = None
    """Counts the attainable digits, where nobody has yet."""

    @property
    def rank(self) -> tuple[int, int, bool, float]:
        """Worst first: by status, then by whole digits missing, or by digits, then what vanished.

        >>> factor, vanished = (Found("lost", 0.0, 15.8, found, 1e-16) for found in (2e-16, 0.0))
        >>> vanished.rank < factor.rank < Found("lost", 8.0, 15.8, 1.0, 1.0 + 1e-8).rank
        True
        """
        missing = self.attainable - self.correct
        worse = -missing if not math.isnan(missing) else 0.0 if math.isnan(self.correct) else self.correct - 99.0
        return ORDER.index(self.status), round(worse), not (self.found == 0 != self.expected), worse


def elements(
    known: Derivatives, name: str, actual: Floats, lane: int, *, among: NDArray[np.intp] | None = None
) -> list[Found]:
    """Return the judgement of each element of an array, in order.

    `lane` is where it stands among equal ones. `among` are the places of a row whose elements are judged, where they
    have nothing to do with each other; without it, all.
    """
    apart = among is not None
    truth, allowance = known.towards({name: actual})[name], known.allowances[name]
    finite = np.finfo(known.known.dtype)
    lower, upper = truth.distance(actual)
    size = np.abs(truth.mid)
    found = []
    for index in np.ndindex(actual.shape) if among is None else ((int(i),) for i in among):
        at = (lane,) if apart or actual.shape == (1,) else index
        figures: dict[str, Any] = {
            "found": float(actual[index]),
            "expected": float(truth.mid[index]),
            "argument": name,
            "index": at,
        }
        if truth.unsure is not None and truth.unsure[index]:
            why = "a branch or a kink, beside which the derivative is not known on every side"
            found.append(Found("convention" if np.isfinite(actual[index]) else "undecided", reason=why, **figures))
        elif truth.kinks[index]:
            found.append(replace(_at_kink(float(actual[index]), truth, lower, allowance, index), **figures))
        elif not np.isfinite(truth.rad[index]) and not np.isinf(truth.mid[index]):
            nowhere = not np.isfinite(actual[index])
            why = "outside of the domain, or a pole" if nowhere else "the truth is not known: its ball is unbounded"
            found.append(Found("no truth" if nowhere else "undecided", reason=why, **figures))
        elif truth.rad[index] > WIDE * truth.magnitude[index] and truth.magnitude[index] > finite.tiny:
            found.append(Found("undecided", reason="the enclosure of the truth is too wide", **figures))
        elif size[index] > finite.max:
            same = np.isinf(actual[index]) and (actual[index] > 0) == (truth.mid[index] > 0)
            status: Status = "right" if same else "undecided"
            found.append(Found(status, reason="the truth exceeds the largest number", **figures))
        elif size[index] < finite.tiny and truth.magnitude[index] > 0:
            close = abs(actual[index]) <= finite.tiny
            why = "the truth is below the smallest normal number" + ("" if close else ", and what is found is not")
            found.append(Found("no truth" if close else "undecided", reason=why, **figures))
        else:
            found.append(_number(known, name, index, lower, upper, size, allowance, figures, apart))
    return found


def _at_kink(actual: float, truth: Any, lower: Floats, allowance: Allowance, index: tuple[int, ...]) -> Found:
    """Judge what is found at a kink: any finite number is a convention; NaN, where all sides are finite, has no digit.

    It is never wrong: some frameworks say NaN on purpose.
    """
    if math.isnan(actual) and math.isfinite(truth.mid[index]) and math.isfinite(truth.rad[index]):
        return Found("lost", 0.0, reason="NaN at a kink, where the derivatives from all sides are finite")
    inside = lower[index] <= allowance.budget[index]
    return Found("convention", reason="a kink" if inside else "a kink, and outside of the derivatives from its sides")


def _number(
    known: Derivatives,
    name: str,
    index: tuple[int, ...],
    lower: Floats,
    upper: Floats,
    size: Floats,
    allowance: Allowance,
    figures: dict[str, Any],
    apart: bool,
) -> Found:
    """Judge a number whose truth is an ordinary one, or 0."""
    u, actual, true = known.known.u, figures["found"], float(size[index])
    budget, error = float(allowance.budget[index]), float(upper[index]) if math.isfinite(actual) else math.inf
    with np.errstate(all="ignore"):
        fraction = float(np.float64(error) / budget) if budget > 0 else (0.0 if error == 0 else math.inf)

    def allowed() -> float:
        moved = known.moved[name][index]
        if true == 0:
            return -math.log10(u) if moved == 0 else 0.0
        return float(digits(np.asarray(moved + u * true), size[index], u))

    correct = float(digits(np.asarray(error), size[index], u))
    of = {**figures, "correct": correct, "budgets": fraction}
    bounded = math.isfinite(budget)
    resolved = bounded and budget <= RESOLUTION * true if apart else allowance.resolved[index]
    if error <= budget and bounded and resolved:
        return Found("right", allowed=allowed, **of)
    beside = 1.0 if apart else max(1.0, float(np.max(size, where=np.isfinite(size), initial=0.0)))
    if true == 0 and math.isfinite(actual) and abs(actual) <= math.sqrt(u) * beside:
        if actual == 0:
            return Found("right", attainable=allowed(), **of)
        return Found("undecided", reason="the truth is 0, and what is found is rounding beside the others", **of)
    attainable = of["attainable"] = allowed()
    beyond = bounded and (lower[index] > budget or not math.isfinite(actual))
    box = known.box[name]
    with np.errstate(all="ignore"):
        reach = box.distance(np.full(box.mid.shape, actual if math.isfinite(actual) else 0.0))[0][index]
    most = box.magnitude[index]
    outside = math.isfinite(most) and (not math.isfinite(actual) or reach > 2 * u * most)
    moved = float(known.moved[name][index]) + u * true
    blurred = not box.rad[index] <= BLURRED * moved and error > 10 * moved and math.isfinite(moved)
    if (outside or blurred) and (attainable - correct > MARGIN or not math.isfinite(actual)):
        if error <= 2 * float(known.near[name][index]):
            return Found("undecided", reason="so near, the derivative bends, jumps or turns by as much", **of)
        if known.known.subnormal(index if apart else None):
            why = "arguments below the smallest normal number, which may count as 0"
            return Found("lost", reason=why, **of)
        far = fraction >= FAR and attainable - correct >= SEEN and true > 0
        if beyond and (far or not math.isfinite(actual)):
            return Found("wrong", reason=f"{fraction:.3g} budgets from the truth", **of)
        why = "" if outside else ", by points among them, not proven"
        return Found("lost", reason=f"no arguments that round to these have this derivative{why}", **of)
    if beyond:
        return Found("undecided", reason=f"{fraction:.3g} budgets off, and within a digit of what is attainable", **of)
    if correct >= SEEN and attainable - correct <= MARGIN:
        return Found("right", reason="by the rounding of its inputs: the budget shows fewer digits", **of)
    if not bounded:
        return Found("undecided", reason="the budget is not finite", **of)
    here = np.zeros(allowance.budget.shape, dtype=bool)
    here[index] = True
    why = "its inputs allow no digit" if attainable < SEEN else unresolved(here, allowance.why(here))
    return Found("undecided", reason=why, **of)
