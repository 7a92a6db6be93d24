"""The command `audit`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import gdcompare.cli.completing as completing
from gdcompare.cli.options import OUTPUT, json_option, refuse_overwriting, refuse_twice, shared_among_workers
from gdcompare.cli.output import EXIT_CODES, console_for, leave, note, write_json
from gdcompare.writing import write_text

if TYPE_CHECKING:
    from gdcompare.audit.results import Audit
    from gdcompare.audit.run import Stage

SHOWN = 40
"""How many findings the terminal shows."""


@click.command()
@click.argument("framework", shell_complete=completing.backends)
@click.option("--operation", "names", multiple=True, metavar="NAME", help="Only this operation; repeatable.")
@click.option(
    "--dtype", "dtypes", multiple=True, type=click.Choice(["float64", "float32"]), help="Only this one. Default: both."
)
@click.option("--route", "routes", multiple=True, metavar="NAME", help="Only this way to a derivative; repeatable.")
@click.option(
    "--limit", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True,
    help="Seconds for an operation; what is left then is left out, and said.",
)  # fmt: skip
@shared_among_workers("operations")
@json_option
@click.option("--resume", is_flag=True, help="Go on with the audit in the file of --json.")
@click.option("--html", "html_path", type=OUTPUT, metavar="FILE", help="Write everything as one page.")
@click.option("--markdown", type=OUTPUT, metavar="FILE", help="Write the findings, with their scripts, for a README.")
def audit(
    framework: str,
    names: tuple[str, ...],
    dtypes: tuple[str, ...],
    routes: tuple[str, ...],
    limit: float,
    workers: int | None,
    scheduler: str | None,
    json_path: str | None,
    resume: bool,
    html_path: str | None,
    markdown: str | None,
) -> None:
    """Judge the differentiable operations of FRAMEWORK at ordinary and boundary points, by the proven truth of each.

    Forward and reverse, first and second order, in both dtypes: digits correct and digits attainable, worst first.
    What is wrong or lost comes with a script that shows it. Kinks and conventions are never called wrong.

    Exit code 1 if anything is wrong or lost, 3 if nothing could be judged.
    """
    refuse_overwriting()
    for option, values in (("--operation", names), ("--dtype", dtypes), ("--route", routes)):
        refuse_twice(option, values)
    if resume and json_path in (None, "-"):
        raise click.UsageError("--resume goes with --json FILE")
    from gdcompare.audit.judging import DTYPES
    from gdcompare.audit.results import Audit, load
    from gdcompare.audit.run import audit as held
    from gdcompare.registry import load_backend

    before = None
    if resume and json_path is not None and Path(json_path).exists():
        before = load(json_path)
        environment: dict[str, str] = getattr(load_backend(framework), "environment", dict)()
        if (before.framework, dict(before.environment)) != (framework, environment):
            raise click.UsageError(
                f"{json_path!r} is an audit of {before.framework} in another environment, and cannot go on here"
            )
    found = Audit(framework) if before is None else before

    def saved(known: Audit) -> None:
        nonlocal found
        found = known
        if json_path not in (None, "-"):
            known.save(json_path)

    console = console_for(json_path)
    with _bar() as watch:
        if json_path not in (None, "-"):
            note(f"what {json_path!r} holds; --resume goes on with it")
        try:
            found = held(
                framework, names, dtypes=dtypes or DTYPES, routes=routes, seconds=limit, before=before, saved=saved,
                watch=watch, workers=workers, scheduler=scheduler,
            )  # fmt: skip
        finally:  # also what there is after Ctrl-C
            _write(found, json_path, html_path, markdown)
    for part in found.shown(SHOWN):
        console.print(part, soft_wrap=isinstance(part, str))
    leave(_exit_code(found))


@contextlib.contextmanager
def _bar() -> Iterator[Any]:
    """Give what shows where an audit stands, on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def watch(stage: Stage) -> None:
            bar.update(task, total=stage.of, completed=stage.done, description=stage.doing)

        yield watch


def _write(found: Audit, json_path: str | None, html_path: str | None, markdown: str | None) -> None:
    from gdcompare.audit.page import as_markdown, as_page

    if json_path == "-":
        write_json("-", found.to_dict())
    if html_path is not None:
        write_text(html_path, as_page(found))
    if markdown is not None:
        write_text(markdown, as_markdown(found))


def _exit_code(found: Audit) -> int:
    """Return 1 if anything is wrong or lost, 3 if nothing was judged; else 0."""
    if found.of("wrong", "lost"):
        return EXIT_CODES["wrong"]
    return EXIT_CODES["agree" if found.of("right") else "inconclusive"]
