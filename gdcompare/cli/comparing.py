"""The command `compare`."""

from __future__ import annotations

import click

import gdcompare as gdc
import gdcompare.cli.completing as completing
from gdcompare import data as datasets
from gdcompare.cli.options import dtype_option, json_option, plot_option, refuse_overwriting
from gdcompare.cli.output import EXIT_CODES, INTERRUPTED, leave, note, show, write_json
from gdcompare.descent import rules
from gdcompare.own_files import from_file, made_by


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="FILE.py:ONE FILE.py:OTHER ...")
@click.option(
    "--data",
    "data_name",
    shell_complete=completing.data,
    help="A built-in name, a .csv, .npz or .parquet file, or FILE.py:NAME.",
)
@click.option("--target", help="The target's column or array, for files.")
@click.option("--layers", metavar="FILE.py:NAME", help="Which layers correspond, as for `gdcompare.compare`.")
@click.option("--steps", type=int, help="Go through so many steps of a training, too.")
@click.option(
    "--rule",
    default="sgd",
    show_default=True,
    shell_complete=completing.update_rules,
    help=f"{', '.join(rules.RULES)}.",
)
@click.option("--learning-rate", type=float, default=0.01, show_default=True)
@click.option("--batch-size", type=int, help="Rows a step. Default: the full batch.")
@click.option("--resync/--drift", default=True, show_default=True, help="Begin each step at ONE's parameters, or not.")
@dtype_option
@json_option
@plot_option("the arrays, the layers and the steps")
def compare(
    models: tuple[str, ...],
    data_name: str | None,
    target: str | None,
    layers: str | None,
    steps: int | None,
    rule: str,
    learning_rate: float,
    batch_size: int | None,
    resync: bool,
    dtype: str,
    json_path: str | None,
    plot: str | None,
) -> None:
    """Compare native models, ONE being the source of values: losses, gradients, layers, and the steps of a training.

    Each is a native model in a file, made by from_module, from_function or from_functions, or a function that returns
    one. Without --data they run on the noisy line. A model whose program can be read is judged by the truth of that,
    and the truths are set beside each other; one whose cannot is compared with the others by an estimate.
    """
    refuse_overwriting()
    if target is not None and (data_name is None or ".py:" in data_name):
        raise click.UsageError("--target goes with --data FILE")
    found = [made_by(name) for name in models]
    if data_name is not None and ".py:" in data_name:
        data = made_by(data_name)
    else:
        data = datasets.noisy_line() if data_name is None else datasets.load(data_name, target)
    report = gdc.compare(found, data, layers=None if layers is None else from_file(layers), dtype=dtype)
    show(report, json_path)
    note(f"the comparison at one point: {report.verdict}")
    reports: list[gdc.Report] = [report]
    results, training = report.to_dict(), None
    if steps is not None:
        chosen = rules.load(rule, learning_rate)
        training = gdc.compare_training(found, data, steps, chosen, batch_size, resync, dtype=dtype)
        show(training, json_path)
        reports.append(training)
        results |= {"training": training.to_dict()}
    write_json(json_path, results)
    if plot is not None:
        from gdcompare.report import look, posters

        look.write(posters.of_comparison(report, training), plot)
    interrupted = any(each.context.get("steps_done", steps) != steps for each in reports)
    leave(INTERRUPTED if interrupted else EXIT_CODES[gdc.Report.merged(reports).verdict])
