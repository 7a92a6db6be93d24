"""An audit as a whole: operation after operation in a process of its own, so that what crashes or hangs is a row.

What is known is handed out after every operation, to be saved: an interrupted audit goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import io
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gdcompare.audit.judging import DTYPES, judged
from gdcompare.audit.results import FINDINGS, Audit, Outcome, Row, row_from
from gdcompare.audit.subject import AuditsOperations, Operation
from gdcompare.referee.verdict import plain
from gdcompare.registry import load_backend
from gdcompare.timing.fresh import ProcessFailedError, in_fresh_process, report

SECONDS = 60.0
"""For each operation; what is not done then is left out, and said."""


@dataclass(frozen=True)
class Stage:
    """Where an audit stands."""

    done: int
    of: int
    doing: str


def operations_of(framework: str, names: Sequence[str] = ()) -> list[Operation]:
    """Return the operations of a framework's backend, all or those of these names.

    Raises LookupError for names that it has not, ValueError for a backend that has no operations to audit.
    """
    backend: Any = load_backend(framework)
    if not hasattr(backend, "operations"):
        raise ValueError(f"backend {framework!r} has no operations to audit: it does not say which its framework has")
    offers: AuditsOperations = backend
    found = {each.name: each for each in offers.operations()}
    if missing := [name for name in names if name not in found]:
        near = [each for each in found if any(name.split(".")[-1] in each for name in missing)][:8]
        raise LookupError(f"{framework} has no operation {missing[0]!r}; near it: {', '.join(near) or 'nothing'}")
    return [found[name] for name in names] if names else list(found.values())


def audit(
    framework: str,
    names: Sequence[str] = (),
    *,
    dtypes: Sequence[str] = DTYPES,
    routes: Sequence[str] = (),
    seconds: float = SECONDS,
    before: Audit | None = None,
    saved: Callable[[Audit], object] = lambda _: None,
    watch: Callable[[Stage], object] = lambda _: None,
) -> Audit:
    """Judge the differentiable operations of a framework against the proven truth of each, and return what was found.

    `names` are the operations, none for all; `routes` those asked for, none for all. What `before` holds is not judged
    again. `saved` is given the audit after every operation, and `watch` where it stands.

    Raises LookupError and ValueError as `operations_of` does, before any work.
    """
    every = [each.name for each in operations_of(framework, names)]
    environment: dict[str, str] = getattr(load_backend(framework), "environment", dict)()
    known = Audit(framework, environment=environment) if before is None else before  # one with findings is false
    todo = [name for name in every if name not in known.outcomes]
    doing: list[str] = []

    def heard(message: dict[str, Any]) -> None:
        nonlocal known
        doing[:] = [message["operation"]]
        if "outcome" in message:
            rows = map(row_from, message["rows"])
            known = known.with_operation(message["operation"], Outcome(**message["outcome"]), rows)
            todo.remove(message["operation"])
            saved(known)
        done = len(every) - len(todo)
        watch(Stage(done, len(every), f"{message['operation']}: {known!r}"))

    while todo:
        doing.clear()
        arguments = {
            "framework": framework,
            "names": list(todo),
            "dtypes": list(dtypes),
            "routes": list(routes),
            "seconds": seconds,
        }
        try:
            in_fresh_process("gdcompare.audit.run:serve", arguments, threads=1, heard=heard)
        except ProcessFailedError as error:
            if not doing or doing[0] not in todo:
                raise  # it did not come to any operation
            name = doing[0]
            late = f"signal {int(getattr(signal, 'SIGALRM', 0))}" in str(error)
            why = f"it took more than {_hard(seconds):g} s" if late else f"the process died: {error.failure.words}"
            row = Row(name, "", "", "", "raises", reason=why)
            known = known.with_operation(name, Outcome(False, why), [row])
            todo.remove(name)
            saved(known)
    return known


def _hard(seconds: float) -> float:
    """Return after how many seconds an operation that does not come back is ended."""
    return 3 * seconds + 30


def serve(framework: str, names: Sequence[str], dtypes: Sequence[str], routes: Sequence[str], seconds: float) -> None:
    """Be the process: judge these operations, and report each; whoever does not come back is ended by an alarm."""
    operations = operations_of(framework, names)
    for operation in operations:
        report({"operation": operation.name})
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even inside of what never returns
            signal.setitimer(signal.ITIMER_REAL, _hard(seconds))
        until = time.monotonic() + seconds
        outcome, rows = judged(operation, dtypes, routes, partial(_is_late, until))
        rows = [with_script_run(row) for row in rows]
        message = {"operation": operation.name, "outcome": asdict(outcome), "rows": [asdict(row) for row in rows]}
        report(plain(message))
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _is_late(until: float) -> bool:
    return time.monotonic() > until


def with_script_run(row: Row) -> Row:
    """Return the row, its script run: whether that found the same.

    >>> row = Row("f", "", "", "", "lost", found=0.0, expected=1.0, script="print('found 0x0p+0 true 0x1p+0')")
    >>> with_script_run(row).shown, with_script_run(replace(row, found=0.5)).shown
    (True, False)
    """
    if not row.script:
        if row.status in FINDINGS:
            return replace(row, status="undecided", shown=False, reason=f"{row.reason}; no script shows it")
        return row
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), np.errstate(all="ignore"):
            exec(compile(row.script, "<script>", "exec"), {"__name__": "script"})  # noqa: S102 - our own lines
        found = float.fromhex(said.getvalue().split("found ")[-1].split()[0])
    except Exception as error:
        return replace(
            row, shown=False, reason=f"{row.reason}; its script fails: {type(error).__name__}: {error}"[:300]
        )
    same = found == row.found or (math.isnan(found) and math.isnan(row.found))
    shown = same or abs(found - row.found) <= 1e-3 * abs(row.found - row.expected)
    if not shown:
        why = f"its script finds {found!r}: it is the loss around the operation that fails, or chance"
        return replace(row, status="undecided", shown=False, reason=f"{row.reason}; {why}")
    return replace(row, shown=True)
