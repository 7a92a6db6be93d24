"""The command `bench`."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import gdcompare as gdc
import gdcompare.cli.completing as completing
from gdcompare.cli.options import (
    OUTPUT,
    SHARE,
    SIZES,
    backend_option,
    device_option,
    dtype_option,
    implementation_option,
    json_option,
    named_functions,
    refuse_overwriting,
    refuse_twice,
    settings_of,
)
from gdcompare.cli.output import BUG, EXIT_CODES, console_for, leave, note, write_json
from gdcompare.own_files import made_by
from gdcompare.registry import backends_for, refuse_nobody
from gdcompare.writing import write_text

if TYPE_CHECKING:
    from rich.console import Console

    from gdcompare.timing.bench import Stage
    from gdcompare.timing.runs import Run
    from gdcompare.timing.work import Work


@click.command()
@click.argument("problem", required=False, shell_complete=completing.problems)
@click.option("--sizes", type=SIZES, metavar="N,N,...", help="Rows, as 40,1e3,1e5. Default: those of the data.")
@click.option("--features", type=click.IntRange(min=1), help="Features. Default: those of the data.")
@click.option(
    "--what", default="gradient", show_default=True, help="loss, gradient, per-sample, descent, hvp; or several."
)
@click.option("--data", "data_name", shell_complete=completing.data, help="As for `verify`; rows and columns repeat.")
@click.option("--target", help="The target's column or array, for files.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of PROBLEM, as degree=3.")
@click.option("--standardise", is_flag=True, help="Bring each feature to mean 0, standard deviation 1.")
@backend_option
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    help="Time this variant of the backends that have it, too, as compiled; `all` for all; repeatable.",
)
@implementation_option
@click.option(
    "--model", "models", multiple=True, metavar="NAME=FILE.py:MODEL", help="Time a native model, too; repeatable."
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Of a descent. Default: the full batch.")
@click.option("--learning-rate", type=float, default=0.01, show_default=True, help="Of a descent.")
@dtype_option
@device_option
@click.option("--time", "seconds", type=float, default=5.0, show_default=True, help="Seconds for each table, at most.")
@click.option(
    "--precision", type=SHARE, default="2%", show_default=True, help="Stop when all ratios are known so well."
)
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Repeat in so many processes."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Processors for everybody.")
@click.option("--limit", type=float, default=120.0, show_default=True, help="Seconds for a contender by itself.")
@click.option("--scheduler", metavar="ADDRESS", help="Time on the machines of a Dask cluster, as tcp://host:8786.")
@click.option("--alone/--no-alone", default=True, show_default=True, help="Measure first calls and memory.")
@json_option
@click.option("--resume", is_flag=True, help="Go on with the run in the file of --json.")
@click.option("--plot", type=OUTPUT, metavar="FILE.svg|png|pdf", help="Draw the times.")
@click.option("--markdown", type=OUTPUT, metavar="FILE", help="Write the tables for a README.")
@click.option("--latex", type=OUTPUT, metavar="FILE", help="Write the tables for a paper.")
@click.option("--compare", nargs=2, type=click.Path(), metavar="OLD NEW", help="Time nothing; compare two runs.")
@click.option("--at-least", type=SHARE, default="5%", show_default=True, help="With --compare: what counts as slower.")
@click.option("--against", help="With --compare: divide all times by those of this contender.")
def bench(
    problem: str | None,
    compare: tuple[str, str] | None,
    at_least: float,
    against: str | None,
    json_path: str | None,
    resume: bool,
    plot: str | None,
    markdown: str | None,
    latex: str | None,
    seconds: float,
    precision: float,
    processes: int,
    threads: int,
    limit: float,
    scheduler: str | None,
    alone: bool,
    **asked: Any,
) -> None:
    """Time every way to compute the same gradient of PROBLEM, fairly: each is judged before its time is believed.

    Exit code 1 if an answer was wrong, 3 if no digit of one could be checked, 4 if one raised. With --compare OLD NEW
    it is 1 if anything is shown to have become slower by --at-least, and 3 if nothing can be compared.
    """
    refuse_overwriting()
    if compare is not None:
        if problem is not None:
            raise click.UsageError(f"--compare times nothing: it goes without PROBLEM {problem!r}")
        _compare(*compare, at_least, against, json_path)
    if problem is None:
        raise click.UsageError("Missing argument 'PROBLEM'.")
    if against is not None:
        raise click.UsageError("--against goes with --compare")
    for name, value in {"--time": seconds, "--limit": limit, "--learning-rate": asked["learning_rate"]}.items():
        if not 0 < value < math.inf:
            raise click.UsageError(f"{name} must be a number above 0, not {value}")
    if resume and json_path in (None, "-"):
        raise click.UsageError("--resume goes with --json FILE")
    if plot is not None:
        from gdcompare.report.look import checked_format

        checked_format(plot)
    works = _works(problem, threads=threads, **asked)
    from gdcompare.timing.bench import Pace
    from gdcompare.timing.bench import bench as held
    from gdcompare.timing.elsewhere import bench_elsewhere
    from gdcompare.timing.environment import only_run
    from gdcompare.timing.runs import load

    run = load(json_path) if resume and json_path is not None and Path(json_path).exists() else None
    if scheduler is None:
        run = _begun(works[0], run, json_path)
    console = console_for(json_path)

    def saved(found: Run) -> None:
        nonlocal run
        run = found
        if json_path not in (None, "-"):
            found.save(json_path)

    pace = Pace(seconds, precision, processes, threads, limit, alone)
    wanted = [work.title for work in works if work.what != "loss" or "loss" in asked["what"].split(",")]
    shown = partial(_show, console, wanted)
    with only_run() if scheduler is None else contextlib.nullcontext() as warning, _bar() as watch:
        if warning:
            _tell(warning)
        if json_path not in (None, "-"):
            note(f"what {json_path!r} holds; --resume goes on with it")
        try:
            if scheduler is not None:
                run = bench_elsewhere(works, pace, run, scheduler, saved=saved, watch=watch, shown=shown, told=_tell)
            elif run is not None:
                run = held(works, pace, run, saved=saved, watch=watch, shown=shown)
        finally:  # also what there is after Ctrl-C
            if run is not None:
                _write(run, wanted, json_path, plot, markdown, latex)
    assert run is not None
    leave(_exit_code(run, [work.title for work in works]))


def _begun(work: Work, before: Run | None, path: str | None) -> Run:
    """Return a run on this machine, that before if it can go on here; and say what makes the machine less than fit."""
    from gdcompare.timing.environment import unfit
    from gdcompare.timing.runs import Run, differing
    from gdcompare.timing.threads import checked_threads

    checked_threads(work.threads)
    here = work.environment()
    if before is not None and (other := differing(before.environment, here)):
        raise click.UsageError(f"{path!r} is a run of other conditions, and cannot go on here: {other[0]}")
    for words in unfit(here):
        _tell(words)
    return before or Run(here)


def _tell(words: str) -> None:
    click.echo(f"note: {words}", err=True)


def _works(
    problem: str,
    sizes: tuple[int, ...] | None,
    features: int | None,
    what: str,
    data_name: str | None,
    settings: tuple[str, ...],
    backends: tuple[str, ...],
    variants: tuple[str, ...],
    implementations: tuple[str, ...],
    models: tuple[str, ...],
    **others: Any,
) -> list[Work]:
    """Return the pieces of work, all that is named looked at before any of them begins."""
    from gdcompare.gradients import derivative_function, offers
    from gdcompare.timing.environment import environment
    from gdcompare.timing.work import KINDS, Work

    kinds = what.split(",")
    for kind in kinds:
        if kind not in KINDS:
            raise click.UsageError(f"--what {kind!r} is none of {', '.join(KINDS)}")
    if others["target"] is not None and data_name is None:
        raise click.UsageError("--target goes with --data FILE")
    refuse_twice("--backend", backends)
    refuse_twice("--variant", variants)
    found = gdc.load_problem(problem, **settings_of(settings))
    dtype, device = others["dtype"], others["device"]
    loaded = backends_for(found, backends or None, dtype, device)
    names = list(backends) or [each.name for each in loaded]
    names += [each for each in _variants(names, variants, dtype, device) if each not in names]
    own = {name: origin for name, (_, origin) in named_functions(implementations).items()}
    native = _models(models)
    refuse_nobody(found, [*names, *own, *native])
    for name in [*own, *native]:
        if name in names or (name in own and name in native):
            raise click.UsageError(f"two contenders are called {name!r}: give each a name of its own")
    needed = [*(["loss"] if {"gradient", "per-sample", "hvp"} & {*kinds} and "loss" not in kinds else []), *kinds]
    able = {
        each: [name for name in names if offers(gdc.load_backend(name, dtype, device), found, each)]
        for each in ("gradient", "hvp")
    }
    if "hvp" in kinds:
        if not able["hvp"]:
            derivative_function(loaded[0], found, "hvp")  # says who has it
        for name in names:
            if name not in able["hvp"]:
                _tell(f"{name} has no hvp of {type(found).__name__}")
    works = [
        Work(
            problem,
            kind,
            size,
            features,
            data=data_name,
            settings=settings_of(settings),
            backends=tuple(able["hvp"] if kind == "hvp" else able["gradient"]),
            implementations=own,
            models=native,
            **others,
        )
        for size, kind in product(sizes or (None,), needed)
    ]
    free = environment()["state"]["available"]
    for work in works:
        work.refuse_too_large(free)
    for work in works:
        _ = work.title  # bad input is refused here
    return works


def _variants(names: Sequence[str], asked: Sequence[str], dtype: str, device: str | None) -> list[str]:
    """Return the variants asked for, of those backends that have them, each loaded once to see whether it can be."""
    known = {name: gdc.variant_names(name)[1:] for name in names if "[" not in name}
    found = []
    for each in asked:
        of = [
            f"{name}[{one}]" for name, ones in known.items() for one in ones if each in (one, "all", f"{name}[{one}]")
        ]
        if not of:
            there = ", ".join(f"{name}[{one}]" for name, ones in known.items() for one in ones) or "none"
            raise click.UsageError(f"--variant {each!r} is none of these backends; they have: {there}")
        for name in of:
            try:
                gdc.load_backend(name, dtype, device)
            except ValueError as error:
                if each != "all":
                    raise
                _tell(f"left out: {error}")
                continue
            found.append(name)
    return list(dict.fromkeys(found))


def _models(settings: Sequence[str]) -> dict[str, str]:
    """Read NAME=FILE.py:MODEL settings."""
    from gdcompare.models.native import Native

    refuse_twice("--model", [setting.partition("=")[0] for setting in settings])
    found = {}
    for setting in settings:
        name, equals, origin = setting.partition("=")
        if not (name and equals and origin):
            raise click.UsageError(f"--model {setting!r} is not of the form NAME=FILE.py:MODEL")
        if not isinstance(made_by(origin), Native):
            raise click.UsageError(f"{origin!r} is no native model: make one by from_module, from_function(s)")
        found[name] = origin
    return found


@contextlib.contextmanager
def _bar() -> Iterator[Any]:
    """Give what shows where a benchmark stands, on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = BarColumn(20), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def watch(stage: Stage) -> None:
            bar.update(task, total=stage.of, completed=stage.done, description=stage.doing)

        yield watch


def _show(console: Console, wanted: Sequence[str], run: Run, title: str) -> None:
    """Show the table of a work that is complete; losses that nobody asked for are seen in the ratios to them."""
    from gdcompare.report.timings import shown, timings_of

    if title in wanted:
        for found in timings_of(run, [title]):
            console.print(shown(found))
            for words in found.notes:
                console.print(words, soft_wrap=True)
            console.print()
    note(title)


def _write(
    run: Run, titles: Sequence[str], json_path: str | None, plot: str | None, markdown: str | None, latex: str | None
) -> None:
    from gdcompare.report import timings

    if json_path == "-":
        write_json("-", run.as_json())
    if markdown is not None:
        write_text(markdown, timings.markdown(run, titles))
    if latex is not None:
        write_text(latex, timings.latex(run, titles))
    if plot is not None and any(each.timed for each in timings.timings_of(run, titles)):
        from gdcompare.report.timing_plots import plot as drawn

        drawn(run, plot, titles)


def _exit_code(run: Run, titles: Sequence[str]) -> int:
    """Return 1 if anybody was wrong, 4 if anybody raised, 3 if no digit of anybody could be checked; else 0."""
    from gdcompare.report.timings import timings_of

    rows = [row for each in timings_of(run, titles) for row in each.rows]
    kinds = {row.failure.kind for row in rows if row.failure is not None}
    if kinds & {"wrong", "unfinished"}:
        return EXIT_CODES["wrong"]
    if "error" in kinds:
        return BUG
    return EXIT_CODES["inconclusive" if any(row.remark.startswith("inconclusive") for row in rows) else "agree"]


def _compare(old: str, new: str, at_least: float, against: str | None, json_path: str | None) -> None:
    """Compare two runs, and leave."""
    from dataclasses import asdict

    from gdcompare.table import table
    from gdcompare.timing.comparison import compared
    from gdcompare.timing.runs import load

    found = compared(load(old), load(new), at_least=at_least, against=against)
    console = console_for(json_path)
    for section in dict.fromkeys(change.section for change in found.changes):
        rows = [
            (change.name, change.verdict, "" if change.ratio is None else f"{change.ratio.median:.3f}", change.words)
            for change in found.changes
            if change.section == section
        ]
        console.print(table(section, ["", "verdict", "new / old", "that is"], rows, left=2))
    for words in found.notes:
        console.print(words, soft_wrap=True)
    comparable = [change for change in found.changes if change.verdict != "not comparable"]
    slower = sum(change.verdict == "slower" for change in comparable)
    console.print(
        f"{slower} of {len(comparable)} became slower by {at_least:.3g} or more"
        if comparable
        else "nothing of the two runs can be compared"
    )
    write_json(json_path, asdict(found))
    leave(EXIT_CODES["wrong" if slower else "agree" if comparable else "inconclusive"])
