"""The command line: `gdcompare`, and its subcommands.

Exit codes: 0 agree, 1 wrong, 2 usage or bad input, 3 inconclusive.
"""

from __future__ import annotations

import sys
import traceback

import click

import gdcompare as gdc
from gdcompare.cli.authoring import check_backend, new
from gdcompare.cli.comparing import compare
from gdcompare.cli.descending import descend
from gdcompare.cli.judging import check_certificate, laws, mutate, verify
from gdcompare.cli.looking import explain, list_
from gdcompare.cli.options import json_option
from gdcompare.cli.output import BAD_INPUT, EXIT_CODES, console_for, write_json


def main() -> None:
    """Run the command line; what the suite's own checks refuse becomes one line and exit code 2."""
    try:
        commands(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except (ValueError, LookupError, TypeError, ImportError, OSError) as error:
        if not _raised_by_us(error):
            raise
        click.echo(f"error: {error.args[0] if isinstance(error, LookupError) else error}", err=True)
        sys.exit(BAD_INPUT)


def _raised_by_us(error: BaseException) -> bool:
    """Whether the suite itself raised it, rather than a framework or somebody's formula, whose bug should be seen."""
    if isinstance(error, IndexError | KeyError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("gdcompare")


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gdc.__version__, prog_name="gdcompare")
@json_option
@click.pass_context
def commands(context: click.Context, json_path: str | None) -> None:
    """One gradient descent, several ways to differentiate it, and the proof that they agree.

    Without a command: the main job on the seed's line, 40 noisy samples. The gradient by every backend, the mean of the
    per-sample gradients, then full-batch, mini-batch and stochastic descent.
    """
    if context.invoked_subcommand is None:
        from gdcompare.report.demonstration import demonstrate

        console = console_for(json_path)
        report, results = demonstrate(console)
        write_json(json_path, results)
        sys.exit(EXIT_CODES[report.verdict])


for _command in (check_backend, check_certificate, compare, descend, explain, laws, list_, mutate, new, verify):
    commands.add_command(_command)
