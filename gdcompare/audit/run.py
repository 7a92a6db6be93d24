"""An audit as a whole: operation after operation in a process of its own, so that what crashes or hangs is a row.

What is known is handed out after every operation, to be saved: an interrupted audit goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gdcompare.audit.judging import DTYPES, judged
from gdcompare.audit.results import FINDINGS, Audit, Outcome, Row, row_from
from gdcompare.audit.subject import AuditsOperations, Operation
from gdcompare.referee.verdict import plain
from gdcompare.registry import load_backend, packages_of
from gdcompare.scale.connection import ClusterError
from gdcompare.scale.spread import Raised, spread_over, stop_sign, tell
from gdcompare.timing.fresh import ProcessFailedError, in_fresh_process, report
from gdcompare.timing.threads import variables
from gdcompare.words import did_you_mean

SECONDS = 60.0
"""For each operation; what is not done then is left out, and said."""

TOGETHER = 8
"""Operations that a worker judges at a time, at most: its process takes seconds to begin."""


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
        hint = f"; near it: {', '.join(near)}" if near else did_you_mean(missing[0], found)
        raise LookupError(f"{framework} has no operation {missing[0]!r}{hint}")
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
    workers: int | None = None,
    scheduler: str | None = None,
) -> Audit:
    """Judge the differentiable operations of a framework against the proven truth of each, and return what was found.

    `names` are the operations, none for all; `routes` those asked for, none for all. What `before` holds is not judged
    again. `saved` is given the audit after every operation, and `watch` where it stands. With `workers`, so many new
    processes of this machine share the operations; with `scheduler`, the workers of the Dask cluster at that address.

    Raises LookupError and ValueError as `operations_of` does, and ClusterError for no cluster, before any work; and
    ClusterError at the end for operations that no worker could judge.
    """
    every = [each.name for each in operations_of(framework, names)]
    environment: dict[str, str] = getattr(load_backend(framework), "environment", dict)()
    known = Audit(framework, environment=environment) if before is None else before  # one with findings is false
    todo = [name for name in every if name not in known.outcomes]
    asked = {"framework": framework, "dtypes": list(dtypes), "routes": list(routes), "seconds": seconds}

    def heard(message: Mapping[str, Any]) -> None:
        nonlocal known
        if "outcome" in message:
            rows = map(row_from, message["rows"])
            known = known.with_operation(message["operation"], Outcome(**message["outcome"]), rows)
            saved(known)
        done = sum(name in known.outcomes for name in every)
        watch(Stage(done, len(every), f"{message['operation']}: {known!r}"))

    if workers is None and scheduler is None:
        _judged_in_processes(asked, todo, heard, threads=1)
    elif todo:
        try:
            _judged_by_workers(asked, todo, heard, workers, scheduler)
        finally:
            known = known.in_order(every)
            saved(known)
    return known


def _judged_by_workers(
    asked: Mapping[str, Any],
    names: Sequence[str],
    heard: Callable[[Mapping[str, Any]], object],
    workers: int | None,
    scheduler: str | None,
) -> None:
    """Have operations judged by workers, some at a time, and hear of each."""
    with spread_over(workers, scheduler, packages_of(asked["framework"]), most=len(names)) as cluster:
        some = min(TOGETHER, -(-len(names) // (2 * max(1, cluster.places))))
        cells = {
            f"{part[0]} to {part[-1]}": (str(Path.cwd()), asked, part)
            for part in (list(names[at : at + some]) for at in range(0, len(names), some))
        }

        def done(_: str, messages: Sequence[Mapping[str, Any]]) -> None:
            for message in messages:
                heard(message)

        failures = cluster.do(_cell, cells, done, lambda _, name: heard({"operation": name}))
    if failures:
        raise ClusterError("; ".join(f"operations {name}: {words}" for name, words in failures.items()))


def _cell(folder: str, asked: Mapping[str, Any], names: list[str]) -> list[Mapping[str, Any]] | Raised:
    """Be called on a worker: judge operations, and return what is to be heard of those that were come to."""
    if not Path(folder).is_dir():
        return Raised(f"there is no folder {folder!r}")
    messages: list[Mapping[str, Any]] = []

    def heard(message: Mapping[str, Any]) -> None:
        if "outcome" in message:
            messages.append(message)
        else:
            tell(message["operation"])

    try:
        _judged_in_processes(
            asked, names, heard, stop=stop_sign(), folder=folder, environment=os.environ | variables(1)
        )
    except ProcessFailedError as error:
        return Raised(error.failure.words)
    except KeyboardInterrupt:
        pass  # nobody waits for more
    return messages


def _judged_in_processes(
    asked: Mapping[str, Any], names: Sequence[str], heard: Callable[[Mapping[str, Any]], object], **process: Any
) -> None:
    """Have operations judged, one after the other, in a process that begins anew when one ends it; and hear of each."""
    todo, doing = list(names), list[str]()

    def taken(message: Mapping[str, Any]) -> None:
        doing[:] = [message["operation"]]
        if "outcome" in message:
            todo.remove(message["operation"])
        heard(message)

    while todo:
        doing.clear()
        try:
            arguments = {**asked, "names": list(todo)}
            in_fresh_process("gdcompare.audit.run:serve", arguments, heard=taken, **process)
        except ProcessFailedError as error:
            if not doing or doing[0] not in todo:
                raise  # it did not come to any operation
            late = f"signal {int(getattr(signal, 'SIGALRM', 0))}" in str(error)
            after = f"it took more than {_hard(asked['seconds']):g} s"
            why = after if late else f"the process died: {error.failure.words}"
            row = Row(doing[0], "", "", "", "raises", reason=why)
            taken({"operation": row.operation, "outcome": asdict(Outcome(False, why)), "rows": [asdict(row)]})


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
