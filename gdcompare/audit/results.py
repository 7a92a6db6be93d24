"""What an audit found: a row for each operation, region, dtype and route, the worst first, kept in a file.

* wrong: beyond what rounding may do to the operation's own formula, and digits lost that the inputs allow
* lost: digits lost that the inputs allow, as a program may that rounds on the way of another formula
* raises: the framework has no derivative here, though the operation has one; or it crashed, or hung
* undecided: neither; the reason is said
* convention: a kink, where the derivative is a set, and what a framework takes of it is its own choice
* right: digits were checked, and are right
* no truth: outside of the operation's domain, at a pole, or where the truth is below what floats can say
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from gdcompare.referee.verdict import plain
from gdcompare.table import Part, as_html, as_text, count, number, table
from gdcompare.writing import write_text

FORMAT = 1

Status: TypeAlias = Literal["wrong", "lost", "raises", "undecided", "convention", "right", "no truth"]
ORDER: tuple[Status, ...] = get_args(Status)
FINDINGS: tuple[Status, ...] = ("wrong", "lost")


@dataclass(frozen=True)
class Row:
    """What one route gave in one region: its worst element."""

    operation: str
    region: str
    dtype: str
    route: str
    status: Status
    correct: float = math.nan
    """Decimal digits of the worst element that are right."""
    attainable: float = math.nan
    """Those that its inputs allow."""
    found: float = math.nan
    expected: float = math.nan
    budgets: float = math.nan
    """|found - expected| in budgets."""
    argument: str = ""
    at: str = ""
    """The arguments there, in words."""
    reason: str = ""
    script: str = ""
    """Lines that show it; of what is wrong or lost."""
    shown: bool | None = None
    """Whether the script was run and found the same; None if there is none, or it was not run."""
    points: Mapping[str, int] = field(default_factory=dict)
    """How many points of the region have which status."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What no two rows have in common."""
        return self.operation, self.region, self.dtype, self.route

    @property
    def rank(self) -> tuple[int, float, str]:
        """By which rows are sorted: worst first."""
        missing = self.attainable - self.correct
        return ORDER.index(self.status), -(0.0 if math.isnan(missing) else missing), self.operation


@dataclass(frozen=True)
class Outcome:
    """How far an operation was judged."""

    judged: bool
    reason: str = ""
    """Why not, or why only in part."""
    seconds: float = 0.0


@dataclass(frozen=True, repr=False)
class Audit:
    """The rows of a framework's operations; true if nothing is wrong, lost or raised and anything is right.

    >>> row = Row("tanh", "tails", "float64", "reverse", "lost", 0.0, 14.4, 0.0, 1.7e-17, at="x = 20")
    >>> Audit("some framework", (row,), {"tanh": Outcome(True)})
    Audit(some framework: 1 operation, 1 judged, 0 wrong, 1 lost)
    """

    framework: str
    rows: tuple[Row, ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        statuses = {row.status for row in self.rows}
        return "right" in statuses and not statuses & {*FINDINGS, "raises"}

    def __repr__(self) -> str:
        judged = sum(each.judged for each in self.outcomes.values())
        found = {name: len({row.operation for row in self.of(name)}) for name in FINDINGS}
        listed = ", ".join(f"{of} {name}" for name, of in found.items())
        return f"Audit({self.framework}: {count(len(self.outcomes), 'operation')}, {judged} judged, {listed})"

    def of(self, *statuses: str) -> list[Row]:
        """Return the rows of these statuses, or all, worst first."""
        return sorted((row for row in self.rows if not statuses or row.status in statuses), key=lambda row: row.rank)

    def with_operation(self, name: str, outcome: Outcome, rows: Iterable[Row]) -> Audit:
        """Return the audit with what was found of an operation."""
        kept = tuple(row for row in self.rows if row.operation != name)
        return replace(self, rows=(*kept, *rows), outcomes={**self.outcomes, name: outcome})

    def in_order(self, names: Sequence[str]) -> Audit:
        """Return the audit with its operations in this order, then the others, whichever came first."""
        outcomes = {name: self.outcomes[name] for name in names if name in self.outcomes}
        place = {name: number for number, name in enumerate({**outcomes, **self.outcomes})}
        rows = sorted(self.rows, key=lambda row: place[row.operation])
        return replace(self, rows=tuple(rows), outcomes={**outcomes, **self.outcomes})

    def with_rows(self, rows: Iterable[Row]) -> Audit:
        """Return the audit with these in place of the rows of the same keys."""
        new = {row.key: row for row in rows}
        return replace(self, rows=tuple(new.get(row.key, row) for row in self.rows))

    def shown(self, most: int | None = None) -> list[Part]:
        """Return what is shown of it: the findings, what is not decided, and the shares."""
        found = self.of(*FINDINGS, "raises")
        parts: list[Part] = [f"Operations of {self.framework}, against the proven truth of each"]
        if found:
            parts.append(table("", COLUMNS, map(cells, found[:most]), left=4))
            if most is not None and len(found) > most:
                parts.append(f"and {count(len(found) - most, 'row')} more: --json, --html")
        return [*parts, *self.closing()]

    def closing(self) -> list[str]:
        """Return lines that say how much was judged, and how."""
        judged = [name for name, each in self.outcomes.items() if each.judged]
        tally = {status: sum(row.points.get(status, 0) for row in self.rows) for status in ORDER}
        points = ", ".join(f"{found} {status}" for status, found in tally.items() if found)
        share, others = len(judged) / max(1, len(self.outcomes)), len(judged) < len(self.outcomes)
        return [
            f"{len(judged)} of {count(len(self.outcomes), 'operation')} judged ({share:.0%})"
            f"{', the others have reasons' if others else ''}",
            f"points: {points or 'none'}",
        ]

    def reasons(self) -> dict[str, list[str]]:
        """Return why operations were not judged, and which."""
        found: dict[str, list[str]] = {}
        for name, each in self.outcomes.items():
            if not each.judged:
                found.setdefault(each.reason, []).append(name)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def __str__(self) -> str:
        return as_text(self.shown(40))

    def _repr_html_(self) -> str:
        return as_html(self.shown(40))

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON: the rows worst first."""
        return {
            "format": FORMAT,
            "framework": self.framework,
            "environment": dict(self.environment),
            "outcomes": {name: asdict(each) for name, each in self.outcomes.items()},
            "rows": [asdict(row) for row in self.of()],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all."""
        write_text(path, json.dumps(plain(self.to_dict()), indent=1, allow_nan=False) + "\n")


COLUMNS = ("operation", "route", "at", "", "found", "true", "digits")


def cells(row: Row) -> Sequence[str]:
    """Return a row as it is shown."""
    missing = math.isnan(row.found) and row.status not in FINDINGS
    return (
        row.operation,
        f"{row.route}, {row.dtype}",
        row.reason if row.status == "raises" else row.at,
        row.status,
        "-" if missing else f"{row.found:.4g}",
        number(row.expected, "{:.4g}"),
        f"{number(row.correct, '{:.1f}')} of {number(row.attainable, '{:.1f}')}",
    )


def load(path: str | os.PathLike[str]) -> Audit:
    """Return an audit from its file. Raises ValueError for what is none, OSError as `open` does."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no audit: {error}") from error
    if not isinstance(found, Mapping) or found.get("format") != FORMAT or "outcomes" not in found:
        raise ValueError(f"{str(path)!r} is no audit: it has no operations of format {FORMAT}")
    return Audit(
        found["framework"],
        tuple(map(row_from, found["rows"])),
        {name: Outcome(**each) for name, each in found["outcomes"].items()},
        found["environment"],
    )


def row_from(values: Mapping[str, Any]) -> Row:
    """Return a row from plain values, in which numbers that JSON lacks are strings."""
    figures = ("correct", "attainable", "found", "expected", "budgets")
    plainly: dict[str, Any] = {name: float(each) if name in figures else each for name, each in values.items()}
    return Row(**plainly)
