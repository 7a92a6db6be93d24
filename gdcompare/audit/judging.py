"""One operation before the referee: every example, region, dtype and route; whatever fails is a row with its reason."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.program import Program, ProgramError
from gdcompare.audit import pointwise
from gdcompare.audit.collected import Collected, Region, called, refused, said
from gdcompare.audit.element import Found, elements
from gdcompare.audit.known import Derivatives, Known
from gdcompare.audit.regions import direction_at, dyadic, scaled
from gdcompare.audit.results import FINDINGS, ORDER, Outcome, Row
from gdcompare.audit.subject import Arrays, Asked, Example, Formula, Operation, Route
from gdcompare.referee.verdict import LOSS
from gdcompare.words import one_line

Floats = NDArray[np.float64]

DTYPES = ("float64", "float32")
ON_AN_ORDER = ("zeros", "ties")
"""Where all numbers are equal: whatever order a program took elsewhere gives the same values."""
LARGEST = 1200
"""An example of more numbers is left out: its derivatives are known sooner of a smaller one."""


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
        return Outcome(False, f"its examples cannot be made: {said(error)}"), []
    for dtype, (place, example) in itertools.product(dtypes, enumerate(examples)):
        if late():
            reasons.append(f"out of time: {dtype} and other examples are left out" if rows else "out of time")
            continue
        try:
            rows += _example(operation, example, dtype, routes, late, moved=place == 0)
        except ProgramError as error:
            reasons.append(_short(str(error)))
        except Exception as error:  # whatever the referee cannot do with an operation
            reasons.append(said(error))
    decided = any(row.points.keys() & {"wrong", "lost", "convention", "right"} for row in rows)
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
    operation: Operation,
    example: Example,
    dtype: str,
    routes: Sequence[str],
    late: Callable[[], bool],
    moved: bool,
) -> list[Row]:
    size = sum(np.size(each) for each in example.arguments.values())
    if size > LARGEST:
        raise ProgramError(f"an example of {size} numbers, and at most {LARGEST} are judged")
    chosen = {name: route for name, route in example.routes.items() if (name in routes if routes else route.usual)}
    collected = Collected()
    if operation.elementwise == len(example.arguments) and size == operation.elementwise:
        pointwise.collect(example, dtype, chosen, collected, late)
    else:
        _collect(example, dtype, chosen, collected, late, moved)
    return [_row(operation, example, region, dtype, name, each) for (region, name), each in collected.items()]


def _collect(
    example: Example,
    dtype: str,
    routes: Mapping[str, Route],
    collected: Collected,
    late: Callable[[], bool],
    moved: bool,
) -> None:
    """Judge an example of arrays, as it is and, of an operation's first one, `moved`."""
    first: Formula | None = None
    for where, arguments in scaled(example.arguments, dtype):
        if late() or (where and not moved):
            return
        region, here, doubt = where or example.region, read_at_of(arguments, dtype), ""
        if first is None:
            cotangents = dyadic((1, example.outputs(arguments)))
            first = formula = example.formula(here, cotangents.astype(dtype))
        else:
            formula, doubt = _read_anew(example, here, cotangents.astype(dtype), first)
        try:
            known = Known(formula, arguments, cotangents, dtype)
        except Exception as error:
            for name in routes:
                collected.add(region, name, Found("undecided", reason=said(error)), "", None)
            continue
        if where and (why := _unconfirmed(known, example.routes, here, cotangents.astype(dtype))):
            for name in routes:
                collected.add(region, name, Found("undecided", reason=why), "", None)
            continue
        for name, route in routes.items():
            asked = _asked(name, route, arguments, cotangents, dtype)
            try:
                answer = called(route, asked.arguments, asked.cotangents, asked.direction)
            except Exception as error:
                collected.add(region, name, refused(example, region, error), "", asked)
                continue
            try:
                direction = (
                    None if asked.direction is None else {k: v.astype(float) for k, v in asked.direction.items()}
                )
                founds = _worst(known.of(route.derivative, direction), answer)
            except Exception as error:  # an enclosure that nobody can compute
                founds = [Found("undecided", reason=said(error))]
            for each in (_doubted(found, where, doubt) for found in founds):
                collected.add(region, name, each, _at(region, arguments, each), asked)


def read_at_of(arguments: Arrays, dtype: str) -> Arrays:
    """Return the arguments in the dtype."""
    return {name: np.asarray(each, dtype) for name, each in arguments.items()}


def _read_anew(example: Example, arguments: Arrays, cotangents: Floats, first: Formula) -> tuple[Formula, str]:
    """Return the formula as it is read here, for orders and fills differ; or that read before, and why none can be."""
    try:
        return example.formula(arguments, cotangents), ""
    except Exception as error:
        return first, f"its program was read at other arguments, and cannot be at these: {_short(str(error))}"


def _doubted(found: Found, region: str, doubt: str) -> Found:
    """Return what was found; undecided, if it is a finding, or stands on an order, by a program read elsewhere."""
    if doubt and found.status != "raises" and (found.status in FINDINGS or region in ON_AN_ORDER):
        return Found("undecided", reason=doubt, argument=found.argument)
    return found


def _unconfirmed(known: Known, routes: Mapping[str, Route], arguments: Arrays, cotangents: Floats) -> str:
    """Say why nothing shows that a program is what the framework computes here; "" if its value does.

    What was written down, and not read, says what the operation is, and is only refused where the values differ.
    """
    is_read = isinstance(known.formula, Program)
    value = next((each for each in routes.values() if each.derivative == "gradient"), None)
    if value is None:
        return "no route gives a value, by which its program could be confirmed" * is_read
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found = float(value.function(dict(arguments), cotangents, np.zeros((1, 1), cotangents.dtype))[0])
        except Exception as error:
            return f"its program cannot be confirmed: the framework has no value here: {said(error)}" * is_read
    truth = known.referee.truths[LOSS]
    mid, rad = float(truth.mid), float(truth.rad)
    if not (math.isfinite(found) and math.isfinite(mid) and math.isfinite(rad)):
        what = f"the framework's value here is {found:.6g}, and its own {mid:.6g} within {rad:.2g}"
        return f"its program cannot be confirmed: {what}" * is_read
    if abs(found - mid) > 0.01 * max(abs(mid), abs(found)) + rad:
        return f"its program gives {mid:.6g} here, where the framework has {found:.6g}"
    return ""


def _asked(name: str, route: Route, arguments: Arrays, cotangents: Floats, dtype: str) -> Asked:
    direction = None
    if route.derivative != "gradient":
        direction = {key: direction_at(each, i).astype(dtype) for i, (key, each) in enumerate(arguments.items())}
    given = {key: np.asarray(each, dtype) for key, each in arguments.items()}
    return Asked(name, given, cotangents.astype(dtype), direction, "", ())


def _worst(known: Derivatives, answer: Mapping[str, NDArray[Any]]) -> list[Found]:
    """Return the judgement of each array: of its worst element."""
    worst = []
    for name, truth in known.towards(answer).items():
        if name not in answer:
            worst.append(Found("raises", reason="it returned none", argument=name))
            continue
        actual = np.asarray(answer[name])
        if actual.shape != truth.mid.shape:
            why = f"a derivative of shape {actual.shape}, where {truth.mid.shape} belongs"
            worst.append(Found("wrong", 0.0, reason=why, argument=name))
            continue
        worst.append(min(elements(known, name, actual.astype(np.float64), 0), key=lambda found: found.rank))
    return worst


def _row(operation: Operation, example: Example, region: str, dtype: str, route: str, each: Region) -> Row:
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


def _short(words: str) -> str:
    """Return what a reader says, without the name and the advice, which are the same for all."""
    _, _, rest = words.partition("cannot be read: ")
    return one_line((rest or words).split(". Write that part")[0])[:240]
