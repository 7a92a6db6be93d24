"""What a command shows, writes and exits with."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from gdcompare.referee.verdict import Report


EXIT_CODES = {"agree": 0, "wrong": 1, "inconclusive": 3}
BAD_INPUT = 2


def finish(report: Report, json_path: str | None) -> None:
    """Show the report, write it, and exit with its verdict."""
    show(console_for(json_path), report)
    write_json(json_path, report.to_dict())
    sys.exit(EXIT_CODES[report.verdict])


def show(console: Console, report: Report) -> None:
    """Show the report: heading, tables, what is wrong and why."""
    for part in report.shown():
        console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))


def console_for(json_path: str | None) -> Console:
    """Return where tables go: stdout, or stderr when stdout carries the JSON."""
    from rich.console import Console

    return Console(stderr=json_path == "-", highlight=False)


def write_json(path: str | None, results: Mapping[str, Any]) -> None:
    """Write the results to a file, or to stdout for `-`; nothing without a path."""
    from gdcompare.referee.verdict import plain

    if path is None:
        return
    text = json.dumps(plain(results), indent=2, allow_nan=False) + "\n"
    if path == "-":
        click.echo(text, nl=False)
    else:
        Path(path).write_text(text, encoding="utf-8")
