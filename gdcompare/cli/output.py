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
    from gdcompare.report.tables import causes, verdicts

    console = console_for(json_path)
    context: Mapping[str, Any] = report.context
    sizes = f"n = {context['n']}, d = {context['d']}{', weighted' if context.get('weighted') else ''}"
    reduction = ", the sum over the samples" if context.get("reduction") == "sum" else ""
    what = f", {context['derivative']}" if context.get("derivative", "gradient") != "gradient" else ""
    head = f"{context['problem']} on {context['data']}: {sizes}, {context['dtype']}{reduction}{what}"
    console.print(head, highlight=False)
    console.print(verdicts(report))
    for line in causes(report):
        console.print(line, highlight=False)
    console.print(report.explanation() if report else f"verdict: {report.verdict}", highlight=False)
    write_json(json_path, report.to_dict())
    sys.exit(EXIT_CODES[report.verdict])


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
