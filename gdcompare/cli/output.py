"""What a command shows, writes and exits with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from gdcompare.writing import write_text

if TYPE_CHECKING:
    from rich.console import Console

    from gdcompare.referee.attainable import AttainableDigits
    from gdcompare.referee.verdict import Report


EXIT_CODES = {"agree": 0, "proved": 0, "wrong": 1, "inconclusive": 3, "undecided": 3}
BAD_INPUT = 2
BUG = 4
INTERRUPTED = 130
BROKEN_PIPE = 141

_STDOUT = "gdcompare.stdout"


def leave(code: int) -> NoReturn:
    """End the command with this exit code. A SystemExit is never ours: see `door`."""
    click.get_current_context().exit(code)


def note(done: str) -> None:
    """Remember what is done, to be said if Ctrl-C is pressed."""
    finished = click.get_current_context().find_object(list)
    if finished is not None:
        finished.append(done)


def finish(report: Report, json_path: str | None, digits: AttainableDigits | None = None) -> NoReturn:
    """Show the report, and the digits if they are asked for; write them, and exit with the verdict."""
    write_json(json_path, report.to_dict() | ({} if digits is None else {"digits": digits.to_dict()["entries"]}))
    show(report, json_path)
    if digits is not None:
        show(digits, json_path)
    leave(BUG if raised(report) else EXIT_CODES[report.verdict])


def raised(report: Report) -> bool:
    """Whether somebody's function raised an error, and so has no gradient to be wrong."""
    return any(entry.cause.startswith("it raised ") for entry in report.entries if entry.verdict == "wrong")


def show(report: Report | AttainableDigits, json_path: str | None) -> None:
    """Show the report: heading, tables, what is wrong and why."""
    console = console_for(json_path)
    for part in report.shown():
        console.print(part, soft_wrap=isinstance(part, str))


def console_for(json_path: str | None) -> Console:
    """Return where tables go: stdout, or stderr when stdout carries the JSON; it shows names as they are, no markup."""
    from rich.console import Console

    return Console(stderr=json_path == "-", highlight=False, markup=False, emoji=False)


def keep_stdout_for_json(context: click.Context) -> None:
    """Send to stderr what anybody prints until the command ends, the code that it calls, too."""
    context.meta[_STDOUT] = context.with_resource(_own_stdout())
    context.with_resource(redirect_stdout(sys.stderr))


@contextmanager
def _own_stdout() -> Iterator[IO[str]]:
    """Give stdout as it is; what C code, or another process, writes to it meanwhile goes to stderr."""
    try:
        out, err = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):  # in a test, they are no files
        yield sys.stdout
        return
    sys.stdout.flush()
    own = os.dup(out)
    os.dup2(err, out)
    try:
        with os.fdopen(own, "w", encoding="utf-8", closefd=False) as file:
            yield file
    finally:
        os.dup2(own, out)
        os.close(own)


def write_json(path: str | None, results: Mapping[str, Any]) -> None:
    """Write the results to a file, or to stdout for `-`; nothing without a path."""
    from gdcompare.referee.verdict import plain

    if path is None:
        return
    text = json.dumps(plain(results), indent=2, allow_nan=False) + "\n"
    if path == "-":
        click.echo(text, nl=False, file=click.get_current_context().meta[_STDOUT])
    else:
        write_text(path, text)
