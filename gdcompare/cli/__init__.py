"""The command line: `gdcompare`, and its subcommands.

Exit codes: 0 agree, 1 wrong, 2 usage or bad input, 3 inconclusive, 4 a bug in somebody's own code, whose traceback is
shown; 130 interrupted by Ctrl-C, 141 nobody reads the output.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import gdcompare as gdc
from gdcompare.cli.auditing import audit
from gdcompare.cli.authoring import check_backend, new
from gdcompare.cli.benching import bench
from gdcompare.cli.comparing import compare
from gdcompare.cli.descending import descend
from gdcompare.cli.door import Door, end_when_interrupted
from gdcompare.cli.explaining import explain, prove
from gdcompare.cli.judging import check_certificate, laws, mutate, verify
from gdcompare.cli.looking import list_
from gdcompare.cli.options import json_option, plot_option
from gdcompare.cli.output import EXIT_CODES, INTERRUPTED, console_for, leave, note, write_json
from gdcompare.cli.reporting import report
from gdcompare.registry import own_this_process

if TYPE_CHECKING:
    from gdcompare.report.demonstration import Demonstration


def main() -> None:
    """Run the command line of this process."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called: what is said goes nowhere
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as the process
        getattr(sys, name).reconfigure(errors="backslashreplace")  # any name can be shown
    done: list[str] = []
    end_when_interrupted(done)
    own_this_process()
    code = commands.main(obj=done, standalone_mode=False)
    if code == INTERRUPTED:
        os._exit(code)  # what was interrupted may not end well
    sys.exit(code)


@click.group(
    cls=Door,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 agree, 1 wrong, 2 usage or bad input, 3 inconclusive, 4 a bug in somebody's own code (its "
    "traceback is shown), 130 interrupted.",
)
@click.version_option(gdc.__version__, prog_name="gdcompare")
@json_option
@plot_option("the descents, the samples' gradients and the verdict", moving=True)
@click.pass_context
def commands(context: click.Context, json_path: str | None, plot: str | None) -> None:
    """One gradient descent, several ways to differentiate it, and the proof that they agree.

    Without a command: the main job on the seed's line, 40 noisy samples. The gradient by every backend, the mean of the
    per-sample gradients, then full-batch, mini-batch and stochastic descent.
    """
    if context.invoked_subcommand is not None:
        for option, given in (("--json", json_path), ("--plot", plot)):
            if given is not None:
                command = f"gdcompare {context.invoked_subcommand} ... {option}"
                raise click.UsageError(f"{option} goes after the command: {command}")
        return
    from gdcompare.registry import how_to_get_more
    from gdcompare.report.demonstration import demonstrate

    console = console_for(json_path)
    shown = demonstrate(console)
    note("the demonstration")
    write_json(json_path, shown.plain)
    if plot is not None:
        _draw(shown, plot)
    if more := how_to_get_more():
        click.echo(more, err=True)
    stops = (
        each["stop_reason"] for part in shown.plain.values() if "backends" in part for each in part["backends"].values()
    )
    leave(INTERRUPTED if "interrupted" in stops else EXIT_CODES[shown.report.verdict])


def _draw(shown: Demonstration, path: str) -> None:
    from gdcompare.report import look, posters
    from gdcompare.report.animation import animate

    problem, data = shown.about
    if path.lower().endswith(look.MOVING):
        animate(problem, data, posters.kinds_of(shown), path)
    else:
        look.write(posters.of_demonstration(shown), path)


for _command in (
    audit,
    bench,
    check_backend,
    check_certificate,
    compare,
    descend,
    explain,
    laws,
    list_,
    mutate,
    new,
    prove,
    report,
    verify,
):
    commands.add_command(_command)
