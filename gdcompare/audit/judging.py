"""One operation before the referee: every example, region, dtype and route; whatever fails is a row with its reason."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.program import ProgramError
from gdcompare.audit.known import Derivatives, Known, digits
from gdcompare.audit.regions import dyadic, elementwise_points, scaled
from gdcompare.audit.results import FINDINGS, ORDER, Outcome, Row, Status
from gdcompare.audit.subject import Arrays, Asked, Example, Operation, Route
from gdcompare.referee.verdict import Allowance, unresolved
from gdcompare.words import one_line

Floats = NDArray[np.float64]

LANES = 16
"""So many equal numbers an elementwise operation is given at once: as many as its widest instructions take."""
MARGIN = 1.0
"""So many digits less than there could be, and they are lost."""
SEEN = 3.0
"""With fewer right digits than these, none was checked."""
DTYPES = ("float64", "float32")
LARGEST = 1200
"""An example of more numbers is left out: its derivatives are known sooner of a smaller one."""


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
    def rank(self) -> tuple[int, float]:
        """Worst first: by status, then by digits missing, then by digits."""
        missing = self.attainable - self.correct
        worse = -missing if not math.isnan(missing) else 0.0 if math.isnan(self.correct) else self.correct - 99.0
        return ORDER.index(self.status), worse


@dataclass
class _Region:
    """What is collected of one row."""

    points: dict[str, int] = field(default_factory=dict)
    worst: Found | None = None
    at: str = ""
    asked: Asked | None = None

    def add(self, found: Found, at: str, asked: Asked | None) -> None:
        self.points[found.status] = self.points.get(found.status, 0) + 1
        if self.worst is None or found.rank < self.worst.rank:
            self.worst, self.at, self.asked = found, at, asked


def judged(
    operation: Operation,
    dtypes: Sequence[str] = DTYPES,
    routes: Sequence[str] = (),
    late: Callable[[], bool] = lambda: False,
) -> tuple[Outcome, list[Row]]:
    """Return how far an operation was judged, and its rows; `routes` are those asked for, none for all.

    Once it is `late`, points that are left are left out, and that is said.
    """
    begun = time.monotonic()
    if operation.unsuited:
        return Outcome(False, operation.unsuited), []
    rows: list[Row] = []
    reasons: list[str] = []
    try:
        examples = list(operation.examples())
    except Exception as error:
        return Outcome(False, f"its examples cannot be made: {_said(error)}"), []
    for dtype, example in itertools.product(dtypes, examples):
        if late():
            reasons.append(f"out of time: {dtype} and other examples are left out" if rows else "out of time")
            continue
        try:
            rows += _example(operation, example, dtype, routes, late)
        except ProgramError as error:
            reasons.append(_short(str(error)))
        except Exception as error:  # whatever the referee cannot do with an operation
            reasons.append(_said(error))
    decided = any(row.status not in ("undecided", "no truth") for row in rows)
    reason = "; ".join(dict.fromkeys(reasons))
    if not examples:
        reason = "no example has an argument of real numbers that is differentiated"
    if rows and not decided:
        reason = reason or rows[0].reason
    seconds = round(time.monotonic() - begun, 2)
    return Outcome(decided, reason, seconds), _distinct(rows)


def _distinct(rows: list[Row]) -> list[Row]:
    """Return the rows with the worst of several examples of one region."""
    found: dict[Any, Row] = {}
    for row in rows:
        before = found.get(row.key)
        if before is not None:
            points = {each: before.points.get(each, 0) + row.points.get(each, 0) for each in ORDER}
            worst = min(before, row, key=lambda one: one.rank)
            row = Row(**{**vars(worst), "points": {each: count for each, count in points.items() if count}})
        found[row.key] = row
    return list(found.values())


def _example(
    operation: Operation, example: Example, dtype: str, routes: Sequence[str], late: Callable[[], bool]
) -> list[Row]:
    size = sum(np.size(each) for each in example.arguments.values())
    if size > LARGEST:
        raise ProgramError(f"an example of {size} numbers, and at most {LARGEST} are judged")
    chosen = {name: route for name, route in example.routes.items() if not routes or name in routes}
    collected: dict[tuple[str, str], _Region] = {}
    elementwise = operation.elementwise == len(example.arguments) and size == operation.elementwise
    points = _elementwise_points(example, dtype) if elementwise else _scaled_points(example, dtype)
    formula = None
    for region, arguments in points:
        if late():
            break
        if formula is None:  # read once, where the framework's own value is sure, and run at all points
            m = example.outputs(arguments)
            cotangents = dyadic((1, m))
            read_at = {name: np.asarray(each, dtype) for name, each in arguments.items()}
            formula = example.formula(read_at, cotangents.astype(dtype))
        try:
            known: Known | None = Known(formula, arguments, cotangents, dtype)
            why = ""
        except Exception as error:
            known, why = None, _said(error)
        for name, route in chosen.items():
            row = collected.setdefault((region, name), _Region())
            if known is None:
                row.add(Found("undecided", reason=why), "", None)
                continue
            boundary = region not in (example.region, "ordinary")
            asked, founds = _point(known, boundary, name, route, arguments, cotangents, elementwise)
            for each in founds:
                row.add(each, _at(region, arguments, each), asked)
    return [_row(operation, example, region, dtype, name, each) for (region, name), each in collected.items()]


def _elementwise_points(example: Example, dtype: str) -> Iterator[tuple[str, dict[str, Floats]]]:
    names = [*example.arguments]
    for region, numbers in elementwise_points(len(names), dtype):
        yield region, {name: np.array([each]) for name, each in zip(names, numbers, strict=True)}


def _scaled_points(example: Example, dtype: str) -> Iterator[tuple[str, dict[str, Floats]]]:
    for moved, arguments in scaled(example.arguments, dtype):
        yield moved or example.region, arguments


def _point(
    known: Known, at_boundary: bool, name: str, route: Route, arguments: Arrays, cotangents: Floats, elementwise: bool
) -> tuple[Asked, list[Found]]:
    """Return what is asked of a route at a point, and the judgement of what it says: the worst of all elements."""
    direction = None
    if route.derivative != "gradient":
        direction = {key: dyadic(np.shape(each), i) for i, (key, each) in enumerate(arguments.items())}
    dtype = np.dtype(known.dtype)
    lanes = LANES if elementwise and route.derivative != "jvp" else 1

    def wide(arrays: Arrays | None) -> dict[str, NDArray[Any]] | None:
        return (
            None
            if arrays is None
            else {
                key: np.repeat(each, lanes).astype(dtype) if lanes > 1 else np.asarray(each, dtype)
                for key, each in arrays.items()
            }
        )

    given, along = wide(arguments), wide(direction)
    cotangent = np.repeat(cotangents, lanes, axis=1).astype(dtype) if lanes > 1 else cotangents.astype(dtype)
    asked = Asked(name, given or {}, cotangent, along, "", ())
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            answer = _called(route, given or {}, cotangent, along)
    except Exception as error:
        if at_boundary:
            return asked, [Found("no truth", reason=f"the framework refuses these arguments: {_said(error)}")]
        return asked, [Found("raises", reason=_said(error))]
    try:
        one_number = elementwise and len(arguments) == 1 and route.derivative == "jvp"
        kind = "gradient" if one_number else route.derivative  # along 1, they are the same
        if one_number:
            answer = {name: answer["derivative"].reshape(1) for name in arguments}
        return asked, _elements(known.of(kind, None if one_number else direction), answer, lanes)
    except Exception as error:  # an enclosure that nobody can compute
        return asked, [Found("undecided", reason=_said(error))]


def _called(route: Route, arguments: Arrays, cotangents: Floats, direction: Arrays | None) -> dict[str, NDArray[Any]]:
    targets = np.zeros((1, 1), cotangents.dtype)
    data = (dict(arguments), cotangents, targets)
    if route.derivative == "gradient":
        return {key: np.asarray(each) for key, each in route.function(*data)[1].items()}
    if route.derivative == "jvp":
        return {"derivative": np.asarray(route.function(*data, direction)[1])}
    return {key: np.asarray(each) for key, each in route.function(*data, direction).items()}


def _elements(known: Derivatives, answer: Mapping[str, NDArray[Any]], lanes: int) -> list[Found]:
    """Return the judgement of each array: of its worst element."""
    founds = []
    for lane in {0, lanes - 1}:  # the first goes through wide instructions, the last perhaps through the narrow rest
        one = {name: each.reshape(lanes)[lane : lane + 1] if lanes > 1 else each for name, each in answer.items()}
        towards = known.towards(one)
        for name, truth in towards.items():
            if name not in one:
                founds.append(Found("raises", reason="it returned none", argument=name))
                continue
            actual = np.asarray(one[name])
            if actual.shape != truth.mid.shape:
                why = f"a derivative of shape {actual.shape}, where {truth.mid.shape} belongs"
                founds.append(Found("wrong", 0.0, reason=why, argument=name))
                continue
            founds += _array(known, name, actual.astype(np.float64), lane)
    best: dict[str, Found] = {}
    for each in founds:
        if each.argument not in best or each.rank < best[each.argument].rank:
            best[each.argument] = each
    return list(best.values())


def _array(known: Derivatives, name: str, actual: Floats, lane: int) -> list[Found]:
    truth, allowance = known.towards({name: actual})[name], known.allowances[name]
    finite = np.finfo(known.known.dtype)
    lower, upper = truth.distance(actual)
    size = np.abs(truth.mid)
    found = []
    for index in np.ndindex(actual.shape):
        at = (lane,) if actual.shape == (1,) else index
        figures: dict[str, Any] = {
            "found": float(actual[index]),
            "expected": float(truth.mid[index]),
            "argument": name,
            "index": at,
        }
        if truth.kinks[index]:
            found.append(replace(_at_kink(float(actual[index]), truth, lower, allowance, index), **figures))
        elif not np.isfinite(truth.rad[index]) and not np.isinf(truth.mid[index]):
            nowhere = not np.isfinite(actual[index])
            why = "outside of the domain, or a pole" if nowhere else "the truth is not known: its ball is unbounded"
            found.append(Found("no truth" if nowhere else "undecided", reason=why, **figures))
        elif size[index] > finite.max:
            status: Status = "right" if actual[index] == truth.mid[index] or np.isinf(actual[index]) else "undecided"
            found.append(Found(status, reason="the truth exceeds the largest number", **figures))
        elif size[index] < finite.tiny and truth.magnitude[index] > 0:
            close = abs(actual[index]) <= finite.tiny
            why = "the truth is below the smallest normal number" + ("" if close else ", and what is found is not")
            found.append(Found("no truth" if close else "undecided", reason=why, **figures))
        else:
            found.append(_number(known, name, index, lower, upper, size, allowance, figures))
    return found


def _at_kink(actual: float, truth: Any, lower: Floats, allowance: Allowance, index: tuple[int, ...]) -> Found:
    """Judge what is found at a kink: any finite number is a convention; NaN is none where all sides are finite."""
    sure = truth.unsure is None or not truth.unsure[index]
    if math.isnan(actual) and sure and math.isfinite(truth.mid[index]) and math.isfinite(truth.rad[index]):
        return Found("wrong", 0.0, reason="NaN at a kink, where the derivatives from all sides are finite")
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
    if error <= budget and bounded and allowance.resolved[index]:
        return Found("right", allowed=allowed, **of)
    if true == 0 and math.isfinite(actual) and abs(actual) <= math.sqrt(u) * max(1.0, float(np.max(size))):
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
    if outside and (attainable - correct > MARGIN or not math.isfinite(actual)):
        if known.known.subnormal:
            why = "arguments below the smallest normal number, which may count as 0"
            return Found("lost", reason=why, **of)
        if beyond and (attainable - correct >= SEEN or not math.isfinite(actual)):
            return Found("wrong", reason=f"{fraction:.3g} budgets from the truth", **of)
        return Found("lost", reason="no arguments that round to these have this derivative", **of)
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


def _row(operation: Operation, example: Example, region: str, dtype: str, route: str, each: _Region) -> Row:
    worst = each.worst or Found("undecided", reason="no point")
    if worst.allowed is not None:
        worst = replace(worst, attainable=worst.allowed(), allowed=None)
    script = ""
    if worst.status in FINDINGS and each.asked is not None:
        script = whole_script(example, each.asked._replace(argument=worst.argument, place=worst.index), worst)
    return Row(
        operation.name,
        region,
        dtype,
        route,
        worst.status,
        worst.correct,
        worst.attainable,
        worst.found,
        worst.expected,
        worst.budgets,
        worst.argument,
        each.at,
        worst.reason,
        script,
        None,
        each.points,
    )


def whole_script(example: Example, asked: Asked, found: Found) -> str:
    """Return the lines that bind `found`, and those that show the truth beside it."""
    lines = example.script(asked)
    if not lines:
        return ""
    return f'{lines.rstrip()}\nprint("found", float(found).hex(), "true", "{found.expected.hex()}")\n'


def _at(region: str, arguments: Arrays, found: Found) -> str:
    """Say where a point is: its numbers, if they are few."""
    if sum(np.size(each) for each in arguments.values()) <= 4:
        each = {name: ", ".join(f"{number:.6g}" for number in np.ravel(value)) for name, value in arguments.items()}
        return ", ".join(f"{name} = {numbers}" for name, numbers in each.items())
    place = f"[{', '.join(map(str, found.index))}]" if found.index else ""
    return f"{found.argument}{place}, {region}"


def _said(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:240]


def _short(words: str) -> str:
    """Return what a reader says, without the name and the advice, which are the same for all."""
    _, _, rest = words.partition("cannot be read: ")
    return one_line((rest or words).split(". Write that part")[0])[:240]
