"""Commands that show why: `explain` and `prove`."""

from __future__ import annotations

import inspect
import sys
import textwrap
from dataclasses import asdict
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

import gdcompare as gdc
import gdcompare.cli.completing as completing
from gdcompare.cli.options import (
    OUTPUT,
    Subject,
    about_a_problem,
    at_option,
    given_parameters,
    json_option,
    loaded_backends,
    refuse_overwriting,
    settings_of,
)
from gdcompare.cli.output import EXIT_CODES, INTERRUPTED, console_for, leave, note, write_json
from gdcompare.writing import write_text


def _methods(backends: tuple[str, ...], dtype: str, device: str | None, json_path: str | None) -> None:
    """Explain the classical checks of a gradient."""
    from gdcompare.referee.classical import METHODS

    del backends, dtype, device
    console = console_for(json_path)
    texts = {name: inspect.getdoc(check) or "" for name, check in METHODS.items()}
    for name, text in texts.items():
        console.print(f"{name}\n{textwrap.indent(text, '  ')}\n", soft_wrap=True)
    write_json(json_path, texts)


def _kinks(backends: tuple[str, ...], dtype: str, device: str | None, json_path: str | None) -> None:
    """Explain what the backends take where a loss bends."""
    from gdcompare.referee.conventions import conventions, what_each_gives
    from gdcompare.table import table

    console = console_for(json_path)
    given = conventions(loaded_backends(backends, dtype, device), dtype)
    columns, rows = what_each_gives(given)
    console.print(table("", columns, rows, left=2))
    console.print("right: the hull of the one-sided derivatives, element by element; ?: not known to be right or wrong")
    write_json(json_path, {"conventions": [asdict(each) for each in given]})


TOPICS = {"methods": _methods, "kinks": _kinks}
OF_A_TOPIC = ("backends", "dtype", "device", "json_path")


class _Explain(click.Command):
    """A command whose argument is a problem, or the name of a topic."""

    def invoke(self, ctx: click.Context) -> Any:
        topic = TOPICS.get(ctx.params["problem"])
        if topic is None:
            return super().invoke(ctx)
        for parameter in self.params:
            name = parameter.name or ""
            if name not in (*OF_A_TOPIC, "problem") and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"{parameter.opts[0]} goes with a PROBLEM, not with {ctx.params['problem']!r}", ctx
                )
        refuse_overwriting()
        return topic(*(ctx.params[name] for name in OF_A_TOPIC))


@click.command(cls=_Explain)
@about_a_problem
@at_option
@click.option("--html", "html_path", type=OUTPUT, metavar="FILE", help="Also write it as one page of HTML.")
def explain(subject: Subject, at: tuple[str, ...], html_path: str | None) -> None:
    """Work out one gradient of PROBLEM in every way, step by step, on three samples.

    The loss, the derivation by hand, the referee's tape, and the graph or program of each framework that can show it:
    the same intermediate derivative has the same letter in all of them. The samples are the first three of --data, or
    PROBLEM's own with short decimals.

    In place of PROBLEM, `methods` explains the classical checks of a gradient, and `kinks` what each backend takes
    where a loss bends.
    """
    given = given_parameters(at, subject)
    chosen = subject.backends if subject.backend_names or subject.device else None
    found = gdc.walk_through(
        subject.problem, subject.data if subject.has_data else None, given, backends=chosen, dtype=subject.dtype
    )
    console = console_for(subject.json_path)
    for part in found.shown():
        console.print(part, soft_wrap=isinstance(part, str) and "\n" in part)  # code as it is
    if html_path is not None:
        write_text(html_path, found.html())
    write_json(subject.json_path, found.to_dict())


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
    console = console_for(json_path)
    for part in proof.shown():
        console.print(part)
    if latex:
        console.print(f"\n{proof.latex}", soft_wrap=True)
    write_json(json_path, proof.to_dict())
    leave(INTERRUPTED if proof.interrupted else EXIT_CODES[proof.verdict])
