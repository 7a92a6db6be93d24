"""The command `report`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from gdcompare.cli.options import (
    PAGE,
    Subject,
    about_a_problem,
    at_option,
    given_parameters,
    implementation_option,
    named_functions,
    settings_of,
)
from gdcompare.cli.output import BUG, EXIT_CODES, INTERRUPTED, console_for, leave, note, raised, write_json
from gdcompare.descent import rules
from gdcompare.writing import write_text

if TYPE_CHECKING:
    from gdcompare.report.page import Page
    from gdcompare.timing.runs import Run
    from gdcompare.timing.work import Work


@click.command()
@about_a_problem
@at_option
@implementation_option
@click.option(
    "-o", "--output", type=PAGE, default="report.html", show_default=True, metavar="FILE.html", help="The page."
)
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Of each descent.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Of the mini-batches. Default: 8, or a quarter of all.")
@click.option("--learning-rate", type=float, default=0.01, show_default=True, help="Of the descents, by sgd.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the order of the rows.")
@click.option("--axes", metavar="ONE,OTHER", help="The two parameters to see, as theta_0,theta_1[0].")
@click.option("--timing/--no-timing", default=True, show_default=True, help="Time the gradients, briefly.")
@click.option("--time", "seconds", type=float, default=2.0, show_default=True, help="Seconds for the timing, at most.")
@click.option(
    "--from",
    "files",
    multiple=True,
    metavar="FILE.json",
    help="Take this from what verify, laws or bench wrote with --json; repeatable.",
)
def report(
    subject: Subject,
    at: tuple[str, ...],
    implementations: tuple[str, ...],
    output: str,
    steps: int,
    batch_size: int | None,
    learning_rate: float,
    seed: int,
    axes: str | None,
    timing: bool,
    seconds: float,
    files: tuple[str, ...],
) -> None:
    """Write all that is to be seen of PROBLEM's gradients on one page, which needs nothing else and no network.

    Verdicts, laws, digits, times, pictures, and a surface to move on: full batch, mini-batches and single samples, on
    every backend, with the samples' gradients at each step.
    """
    from gdcompare.report.page import report_page, require

    require()
    if not 0 < seconds < float("inf"):
        raise click.UsageError(f"--time must be a number above 0, not {seconds}")
    taken = _taken(files)
    works, why_none = _work(subject) if timing and "timing" not in taken else (None, "")
    page = report_page(
        subject.problem,
        subject.data,
        given_parameters(at, subject),
        backends=subject.backends,
        implementations={name: function for name, (function, _) in named_functions(implementations).items()},
        dtype=subject.dtype,
        rule=rules.sgd(learning_rate),
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        axes=axes,
        **taken,
    )
    note(f"the verdict: {page.verdict}")
    page = replace(page, command=_command(), missing=(*page.missing, *([why_none] if why_none else [])))
    if works is not None and not page.interrupted:
        page = _timed(page, works, seconds)
    html = page.html()
    write_text(output, html)
    results = {"report": page.report, "laws": page.laws, "digits": page.digits}
    write_json(subject.json_path, {name: each and each.to_dict() for name, each in results.items()})
    console = console_for(subject.json_path)
    console.print(page.report.explanation(), soft_wrap=True)
    if page.laws is not None:
        console.print(f"laws: {page.laws.explanation()}", soft_wrap=True)
    console.print(f"{output}: {len(html.encode()) / 1e6:.2f} MB", soft_wrap=True)
    leave(INTERRUPTED if page.interrupted else BUG if raised(page.report) else EXIT_CODES[page.verdict])


def _taken(files: Sequence[str]) -> dict[str, Any]:
    """Return what the files hold: a report, laws, or a timing."""
    from gdcompare.report.saved import saved
    from gdcompare.timing.runs import Run

    taken: dict[str, Any] = {}
    for path in files:
        found = saved(path)
        kind = "timing" if isinstance(found, Run) else "laws" if any(it.law for it in found.entries) else "report"
        if kind in taken:
            raise click.UsageError(f"--from {path!r} is the second file of its kind; the page has room for one")
        taken[kind] = found
    return taken


def _work(subject: Subject) -> tuple[Work | None, str]:
    """Return what is to be timed, or why nothing can be."""
    from gdcompare.timing.work import Work

    given = click.get_current_context().params
    if subject.data.weights is not None:
        return None, "no timing: a benchmark takes no weights"
    work = Work(
        given["problem"],
        dtype=subject.dtype,
        device=subject.device,
        data=given["data_name"],
        target=given["target"],
        standardise=given["standardise"],
        settings=settings_of(given["settings"]),
        backends=subject.backend_names or tuple(each.name for each in subject.backends),
    )
    _ = work.title  # bad input is refused here
    return work, ""


def _timed(page: Page, work: Work, seconds: float) -> Page:
    from gdcompare.timing.bench import Pace, bench
    from gdcompare.timing.environment import environment
    from gdcompare.timing.runs import Run

    described = {each.name: each.environment() for each in page.backends if hasattr(each, "environment")}

    def saved(run: Run) -> None:
        nonlocal page
        page = replace(page, timing=run)

    try:
        bench(
            [work],
            Pace(seconds, alone=False),
            Run(environment(described)),
            saved=saved,
            watch=lambda _: None,
            shown=lambda run, _: saved(run),
        )
    except KeyboardInterrupt:
        return replace(page, interrupted=True)
    return page


def _command() -> str:
    """Return the command line that makes this page again, with what was left to its default."""
    context = click.get_current_context()
    words = ["gdcompare", "report"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(value, bool):
            options = parameter.opts if value else parameter.secondary_opts
            words += options[-1:] if value or parameter.secondary_opts else []
        elif value is not None and parameter.name not in ("json_path", "help"):
            for each in value if isinstance(value, tuple) else [value]:
                words += [parameter.opts[-1], os.fspath(each) if isinstance(each, os.PathLike) else str(each)]
    return shlex.join(words)
