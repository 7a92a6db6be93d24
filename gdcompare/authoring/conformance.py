"""What a backend has to do, check by check, and how to mend what it does not.

For whoever writes one: `check_backend` takes a name, a `file.py:Class`, a class or a backend, and each check that fails
says in a line what is amiss and in another how to mend it. A check that raises has failed; nothing stops the others.

Most checks run on small whole numbers and 4 rows, where every sum is exact whatever its order: they compare bit by bit.
The last two bring in the referee and the batch laws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from gdcompare.authoring.conformance_checks import CHECKS, Bench, UnmetError
from gdcompare.backend import Backend, Precision
from gdcompare.registry import backend_maker, problem_names
from gdcompare.table import count

Says: TypeAlias = Literal["holds", "fails", "not run"]


@dataclass(frozen=True)
class Outcome:
    """What one check says of a backend."""

    check: str
    """What should hold."""
    says: Says
    finding: str = ""
    """What was seen instead, or why it was not run."""
    mend: str = ""
    """How to mend it."""


@dataclass(frozen=True)
class Conformance:
    """The outcomes of all checks; true if all hold."""

    backend: str
    outcomes: tuple[Outcome, ...]
    refused: Mapping[Precision, str]
    """The dtypes that the backend refuses, and in what words; in these nothing was checked."""

    def __bool__(self) -> bool:
        return all(outcome.says == "holds" for outcome in self.outcomes)

    def __repr__(self) -> str:
        holding = sum(outcome.says == "holds" for outcome in self.outcomes)
        return f"Conformance({self.backend}: {holding} of {count(len(self.outcomes), 'check')} hold)"

    def __str__(self) -> str:
        failed = [outcome for outcome in self.outcomes if outcome.says == "fails"]
        lines = [f"{each.check} fails: {each.finding}\n  mend: {each.mend}" for each in failed]
        return "\n".join([f"{self.backend}: {len(failed)} of {len(self.outcomes)} checks fail", *lines])

    @property
    def failing(self) -> list[str]:
        """The names of the checks that fail."""
        return [outcome.check for outcome in self.outcomes if outcome.says == "fails"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        return dataclasses.asdict(self) | {"conforms": bool(self)}


def check_backend(
    backend: str | type | Backend[Any],
    *,
    problems: Sequence[str] | None = None,
    watch: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> Conformance:
    """Check that a backend does what the seam promises, in every dtype that it has.

    `backend` is a registered name, `"path/to/file.py:Class"`, a class, or a backend, whose other settings are kept.
    The referee judges the gradients of these `problems`; None means all that are registered. `watch` is handed the list
    of all runs and returns an iterable over it: a progress bar.

    Raises LookupError for an unknown name, BackendUnavailableError where the framework is missing.

    >>> found = check_backend("numpy", problems=["linear-regression"])
    >>> bool(found), found.failing
    (True, [])
    """
    make, title = _maker(backend)
    refused: dict[Precision, str] = {}
    benches: list[Bench] = []
    members = CHECKS[0]
    try:
        for dtype in get_args(Precision):
            try:
                benches.append(Bench(make, dtype, make(dtype=dtype), backend if isinstance(backend, str) else None))
            except ValueError as error:
                refused[dtype] = str(error)
        finding = "" if benches else f"it refuses every dtype: {'; '.join(refused.values())}"
    except Exception as error:
        finding = _told(error)
    if finding:
        rest = [Outcome(each.name, "not run", f"needs: {members.name}") for each in CHECKS[1:]]
        return Conformance(title, (Outcome(members.name, "fails", finding, members.mend), *rest), refused)

    chosen = problem_names() if problems is None else problems
    runs = [(check, bench, subject) for check in CHECKS for bench in benches for subject in check.subjects(chosen)]
    findings: dict[str, dict[str, set[str]]] = {check.name: {} for check in CHECKS}  # what was seen, in which dtypes
    not_run: dict[str, str] = {}
    for check, bench, subject in watch(runs):
        lacking = [name for name in check.needs if findings[name] or name in not_run]
        if lacking:
            not_run[check.name] = f"needs: {', '.join(lacking)}"
            continue
        try:
            check.run(bench, *([] if subject is None else [subject]))
        except Exception as error:
            findings[check.name].setdefault(_told(error), set()).add(bench.dtype)
    outcomes = [
        Outcome(check.name, "fails", _joined(findings[check.name], len(benches)), check.mend)
        if findings[check.name]
        else Outcome(check.name, "not run" if check.name in not_run else "holds", not_run.get(check.name, ""))
        for check in CHECKS
    ]
    return Conformance(title, tuple(outcomes), refused)


def _maker(backend: str | type | Backend[Any]) -> tuple[Callable[..., Any], str]:
    """Return what makes the backend at a dtype or device, and what to call it."""
    if isinstance(backend, str):
        return backend_maker(backend), backend
    if isinstance(backend, type):
        return backend, backend.__name__
    title = str(getattr(backend, "name", type(backend).__name__))
    return partial(dataclasses.replace, backend) if dataclasses.is_dataclass(backend) else type(backend), title


def _joined(findings: Mapping[str, set[str]], dtypes: int) -> str:
    return "; ".join(
        words if len(seen) == dtypes else f"{words} ({', '.join(sorted(seen))})" for words, seen in findings.items()
    )


def _told(error: Exception) -> str:
    words = str(error).strip()
    return (
        words if isinstance(error, UnmetError) else f"it raised {type(error).__name__}: {words.partition(chr(10))[0]}"
    )
