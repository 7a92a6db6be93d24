"""Commands that show why: `explain` and `prove`."""

from __future__ import annotations

import inspect
import sys
import textwrap
from dataclasses import asdict
from functools import partial

import click

import gdcompare as gdc
import gdcompare.cli.completing as completing
from gdcompare.cli.options import (
    backend_option,
    device_option,
    dtype_option,
    json_option,
    loaded_backends,
    refuse_overwriting,
    settings_of,
)
from gdcompare.cli.output import EXIT_CODES, INTERRUPTED, console_for, leave, note, show, write_json


@click.command()
@click.argument("topic", type=click.Choice(["methods", "kinks"]))
@backend_option
@dtype_option
@device_option
@json_option
def explain(topic: str, backends: tuple[str, ...], dtype: str, device: str | None, json_path: str | None) -> None:
    """Explain the classical checks of a gradient, or the conventions of the backends where a loss bends."""
    from gdcompare.referee.classical import METHODS
    from gdcompare.referee.conventions import conventions, what_each_gives
    from gdcompare.table import table

    console = console_for(json_path)
    if topic == "methods":
        texts = {name: inspect.getdoc(check) or "" for name, check in METHODS.items()}
        for name, text in texts.items():
            console.print(f"{name}\n{textwrap.indent(text, '  ')}\n", soft_wrap=True)
        write_json(json_path, texts)
        return
    given = conventions(loaded_backends(backends, dtype, device), dtype)
    columns, rows = what_each_gives(given)
    console.print(table("", columns, rows, left=2))
    console.print("right: the hull of the one-sided derivatives, element by element; ?: not known to be right or wrong")
    write_json(json_path, {"conventions": [asdict(each) for each in given]})


@click.command()
@click.argument("problem", shell_complete=completing.problems)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of PROBLEM, as degree=3.")
@click.option("--samples", type=int, default=3, show_default=True, help="For so many samples.")
@click.option("--features", type=int, help="For so many features. Default: 2, or the first number that PROBLEM takes.")
@click.option("--outputs", type=int, help="For so many columns of targets (n, k). Default: 2.")
@click.option("--limit", type=float, default=10.0, show_default=True, help="Seconds for each component.")
@click.option("--latex", is_flag=True, help="Also print the formulas, and what is wrong with them, in LaTeX.")
@json_option
def prove(
    problem: str,
    settings: tuple[str, ...],
    samples: int,
    features: int | None,
    outputs: int | None,
    limit: float,
    latex: bool,
    json_path: str | None,
) -> None:
    """Prove on symbols that what PROBLEM has derived by hand is the derivative of its loss.

    Its formulas run as they are, with a symbol for each number, and are subtracted from what SymPy derives. Exit code 0
    if all the differences are proved to be 0, 1 if one is proved not to be, 3 if one is undecided.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    refuse_overwriting()
    bar = partial(
        track,
        description=escape(problem),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    found = gdc.load_problem(problem, **settings_of(settings))
    proof = gdc.prove(found, samples=samples, features=features, outputs=outputs, seconds=limit, watch=bar)
    note(f"the proof: {proof.verdict}")
    show(proof, json_path)
    if latex:
        console_for(json_path).print(f"\n{proof.latex}", soft_wrap=True)
    write_json(json_path, proof.to_dict())
    leave(INTERRUPTED if proof.interrupted else EXIT_CODES[proof.verdict])
