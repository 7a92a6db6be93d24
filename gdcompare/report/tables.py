"""Tables for a terminal: 80 columns, and nothing that only colour says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from gdcompare.referee.verdict import Entry, Report

SAMPLED = "*"
"""Marks digits whose evidence is sampled rounding, not the worst case."""


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Table:
    """Return a table whose first `left` columns are text, flush left, and the others numbers, flush right."""
    made = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def verdicts(report: Report) -> Table:
    """Return the report's entries, one a row: the worst element, its error in ulps, its share of the budget.

    Digits with a star are checked by sampled rounding.
    """
    lawful = any(entry.law for entry in report.entries)
    rows = []
    for entry in report.entries:
        where = [entry.implementation, *([entry.law] if lawful else []), entry.parameter + _index(entry), entry.verdict]
        error = [] if lawful else [number(entry.error_ulps, "{:.3g}")]
        power = [] if lawful else [number(entry.detectable, "{:.0e}")]
        power.append(f"{entry.digits}{SAMPLED if entry.grade == 'sampled' else ''}")
        rows.append([*where, *error, number(entry.budget_fraction, "{:.2g}"), *power])
    columns = ["backend", "law", "parameter", "verdict", "of budget", "digits"]
    if not lawful:
        columns = ["implemen-\ntation", "parameter", "verdict", "ulps", "of\nbudget", "detect-\nable", "digits"]
    return table("", columns, rows, left=4 if lawful else 3)


def comparisons(entries: Iterable[Entry]) -> Table:
    """Return what models say of each array, one a row: the loss and gradients, of all rows or of each, or of steps."""
    rows = []
    for entry in entries:
        where = [entry.implementation, f"{entry.law}: " * bool(entry.law) + entry.parameter, entry.verdict]
        rows.append([*where, number(entry.budget_fraction, "{:.2g}"), number(entry.detectable, "{:.0e}")])
    return table("", ["model", "array", "verdict", "of budget", "detectable"], rows, left=3)


def layers(entries: Iterable[Entry]) -> Table:
    """Return the layers, one a row: whether their values and their cotangents agree, and their share of the budget."""
    found: dict[tuple[str, str], dict[str, Entry]] = {}
    for entry in entries:
        found.setdefault((entry.implementation, entry.parameter), {})[entry.law] = entry
    rows = []
    for where, laws in found.items():
        both = [laws[law] for law in ("forward", "backward") if law in laws]
        rows.append([*where, *(f"{each.verdict} {number(each.budget_fraction, '{:.2g}')}" for each in both)])
    return table("", ["model", "layer", "forward", "backward"], rows, left=4)


def causes(report: Report) -> list[str]:
    """Return a line for each entry that has a cause, or that does not agree."""
    return [
        f"{entry.implementation}: {entry.parameter}{_index(entry)}: {entry.cause or entry.verdict}"
        + (f"; actual {entry.actual!r}, expected {entry.expected!r}" if entry.worst_index is not None else "")
        for entry in report.entries
        if entry.cause or entry.verdict != "agree"
    ]


def number(value: float, form: str = "{:.6g}") -> str:
    """Return the number in that form, or a dash for none.

    >>> number(0.25), number(float("nan"))
    ('0.25', '-')
    """
    return "-" if math.isnan(value) else form.format(value)


def vector(values: Iterable[float], most: int = 2) -> str:
    """Return the first few numbers, and how many there are if that is not all.

    >>> vector([1.0, 2.5]), vector(range(10))
    ('1, 2.5', '0, 1, ... (10)')
    """
    listed = list(values)
    shown = ", ".join(f"{value:.5g}" for value in listed[:most])
    return shown if len(listed) <= most else f"{shown}, ... ({len(listed)})"


def _index(entry: Entry) -> str:
    return f"[{', '.join(map(str, entry.worst_index))}]" if entry.worst_index else ""
