"""The command `descend`."""

from __future__ import annotations

from typing import Any

import click

import gdcompare.cli.completing as completing
from gdcompare.cli.options import Subject, about_a_problem, given_parameters, in_blocks, plot_option
from gdcompare.cli.output import INTERRUPTED, console_for, leave, write_json
from gdcompare.descent import rules
from gdcompare.descent.record import Descent
from gdcompare.descent.sampling import steps_per_epoch
from gdcompare.registry import refuse_nobody


@click.command()
@about_a_problem
@in_blocks
@click.option(
    "--rule",
    default="sgd",
    show_default=True,
    shell_complete=completing.update_rules,
    help=f"{', '.join(rules.RULES)}.",
)
@click.option("--learning-rate", type=float, default=0.01, show_default=True)
@click.option(
    "--schedule",
    default="constant",
    show_default=True,
    shell_complete=completing.schedules,
    help="constant, inverse-time or cosine.",
)
@click.option("--batch-size", type=int, help="Rows a step; 1 is stochastic. Default: the full batch.")
@click.option("--epochs", type=int, default=100, show_default=True, help="Passes over the data.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of the rows.")
@click.option(
    "--start",
    multiple=True,
    metavar="NAME=V[,V...]",
    help="Where to start. Default: the problem's choice.",
)
@click.option("--target-loss", type=float, help="Stop at this loss, averaged over an epoch.")
@click.option("--gradient-norm", type=float, help="Stop at this norm of the gradient.")
@click.option("--loss-change", type=float, help="Stop when the loss falls no faster for --patience epochs.")
@click.option("--patience", type=int, default=5, show_default=True)
@click.option("--history-every", type=int, default=1, show_default=True, help="Keep every k-th step in the JSON.")
@click.option("--checkpoint", metavar="DIR", help="Keep there, every ten seconds or so, where each descent stands.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, to the same last bit.")
@plot_option("the paths", moving=True)
@click.option("--axes", metavar="ONE,OTHER", help="With --plot: the two to see, as theta_0,theta_1[0].")
def descend(
    subject: Subject,
    rule: str,
    learning_rate: float,
    schedule: str,
    start: tuple[str, ...],
    plot: str | None,
    axes: str | None,
    **settings: Any,
) -> None:
    """Minimise PROBLEM by gradient descent on every backend, and show how far apart their paths ever are."""
    from gdcompare.report.demonstration import descents

    refuse_nobody(subject.problem, subject.backends)
    if settings["resume"] and settings["checkpoint"] is None:
        raise click.UsageError("--resume needs the checkpoint to go on from: --checkpoint DIR")
    if plot is not None and subject.blocks is not None:
        raise click.UsageError("--plot draws rows that fit the memory, not blocks of them; --json has the paths")
    if axes is not None:
        _check_axes(axes, plot, subject)
    name, data = type(subject.problem).__name__, subject.rows
    steps = settings["epochs"] * steps_per_epoch(len(data), settings["batch_size"])
    chosen = rules.load(rule, rules.load_schedule(schedule, learning_rate, steps))
    title = f"{name} on {data.name}: {rule}, {_pace(settings['batch_size'])}"
    how = {"rule": chosen, "start": given_parameters(start, subject), **settings}
    results, found = descents(console_for(subject.json_path), title, subject.problem, data, subject.backends, **how)
    stated = {"problem": name, "data": data.name, "rule": rule, "dtype": subject.dtype}
    write_json(subject.json_path, stated | results)
    if plot is not None:
        _draw(subject, found, axes, title, plot)
    if "interrupted" in (each["stop_reason"] for each in results["backends"].values()):
        leave(INTERRUPTED)


def _check_axes(axes: str, plot: str | None, subject: Subject) -> None:
    from gdcompare.arithmetic.formula_check import checked_shapes
    from gdcompare.report.planes import chosen_elements

    if plot is None:
        raise click.UsageError("--axes goes with --plot FILE")
    chosen_elements(axes, checked_shapes(subject.problem, subject.data))


def _draw(subject: Subject, found: dict[str, Descent], axes: str | None, title: str, path: str) -> None:
    from gdcompare.report import look, posters
    from gdcompare.report.animation import animate

    if path.lower().endswith(look.MOVING):
        animate(subject.problem, subject.data, found, path, axes)
    else:
        look.write(posters.of_descents(subject.problem, subject.data, found, axes, title), path)


def _pace(batch_size: int | None) -> str:
    return {None: "full batch", 1: "stochastic"}.get(batch_size, f"mini-batches of {batch_size}")
