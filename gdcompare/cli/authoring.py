"""Commands for authors of problems and backends: `new` and `check-backend`."""

from __future__ import annotations

import sys
from functools import partial

import click

import gdcompare.cli.completing as completing
from gdcompare.cli.options import OUTPUT, json_option, refuse_overwriting
from gdcompare.cli.output import console_for, leave, write_json


@click.command("check-backend")
@click.argument("backend", shell_complete=completing.backends)
@json_option
def check_backend(backend: str, json_path: str | None) -> None:
    """Check that BACKEND, a name or file.py:Class, does what a backend has to do; say how to mend what it does not.

    Exit code 0 if every check holds, else 1.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    from gdcompare.authoring.conformance import check_backend as check
    from gdcompare.table import table

    refuse_overwriting()
    console = console_for(json_path)
    bar = partial(
        track,
        description=escape(backend),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    found = check(backend, watch=bar)
    console.print(table("", ["check", "outcome"], [(each.check, each.says) for each in found.outcomes], left=2))
    for each in found.outcomes:
        if each.says == "fails":
            console.print(f"{each.check}: {each.finding}\n  mend: {each.mend}")
    for words in found.refused.values():
        console.print(words)
    console.print(f"{found.backend}: {'conforms' if found else 'does not conform'}")
    write_json(json_path, found.to_dict())
    leave(0 if found else 1)


@click.command()
@click.argument("file", type=OUTPUT, metavar="FILE.py")
@click.option("--force", is_flag=True, help="Overwrite FILE.py.")
def new(file: str, force: bool) -> None:
    """Write a problem of your own to FILE.py: a commented starting point that runs as it is."""
    from gdcompare.authoring.scaffold import write_problem

    name = write_problem(file, force)
    click.echo(f"{file} holds {name}, a Poisson regression. Make it yours, and then:")
    for command, what in {
        "verify": "is the gradient right?",
        "laws": "are those of samples and batches?",
        "descend": "does it descend alike on every backend?",
    }.items():
        click.echo(f"  gdcompare {f'{command} {file}':<32} {what}")
    click.echo("Your own data go with --data FILE.csv --target COLUMN.")
