"""Time everything that docs/performance.md is about, and write its tables and plots.

    python -m benchmarks.performance                  all of it, in some eight minutes; Ctrl-C, and --resume goes on
    python -m benchmarks.performance --quick          as few blocks as there may be, to look at
    python -m benchmarks.performance --only Opacus    the contests in whose title or names that is, anew
    python -m benchmarks.performance --draw           times nothing: writes the page from what is kept

Every contest is a race in a process of its own, on one thread. What was measured is kept in results.json beside the
plots; the blocks of a run that was interrupted are in run.json.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import gdcompare as gdc
from gdcompare.timing.alone import Alone, alone
from gdcompare.timing.environment import environment, only_run, unfit, versions
from gdcompare.timing.failure import Failure
from gdcompare.timing.fresh import ProcessFailedError
from gdcompare.timing.intervals import Interval, bonferroni, sign_interval
from gdcompare.timing.replicates import race_in_process
from gdcompare.timing.result import Race
from gdcompare.timing.runs import Run, differing, load
from gdcompare.writing import write_text

from .contests import CONTESTS, FASTER_OF, Contest, Target
from .page import write

Results = dict[str, Any]

PEERS = ("opacus", "backpack-for-pytorch", "optax", "scikit-learn", "torch", "jax", "jaxlib")


def measured(contest: Contest, before: Race | None, seconds: float, quick: bool, told: Any) -> Race:
    """Hold the race of a contest, or go on with it."""
    return race_in_process(
        "benchmarks.contests:contest",
        {"title": contest.title},
        threads=1,
        before=before,
        seconds=0.0 if quick else seconds,
        precision=0.02,
        turn=2e-4 if quick else 1e-3,
        progress=told,
    )


def measured_alone(contest: Contest, target: Target) -> Alone | Failure:
    """Start a contender of a contest in a fresh process, where nothing is compiled yet."""
    with _nothing_compiled():
        arguments = {"title": contest.title, "name": target.ours[0]}
        return alone("benchmarks.contests:contender", arguments, threads=1, limit=300)


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """Give torch's compiler, in processes that are started now, an empty folder for what it keeps from run to run."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


# From a run to what the page says


def results_of(run: Run, quick: bool) -> Results:
    """Return what is kept of a run: of each contest the times, what was said of the answers, and its targets."""
    found = {title: _contest(CONTESTS[title], run) for title in CONTESTS if run.race(title) is not None}
    return {"environment": run.environment, "begun": run.begun[:10], "quick": quick, "contests": found}


def _contest(contest: Contest, run: Run) -> Results:
    section = run.sections[contest.title]
    race = section.races[0]
    names = sorted(race.names, key=lambda name: race.time(name).median)
    noise = race.noise()
    return {
        "unit": contest.unit,
        "kind": contest.kind,
        "ours": list(contest.ours),
        "flops": contest.flops,
        "moved": contest.moved,
        "rates": {
            name: [what, of / min(race.times(name))] for name, (what, of) in contest.rates.items() if name in names
        },
        "blocks": len(race.blocks),
        "rows": {
            name: {
                "seconds": _short(race.time(name), contest.per_call),
                "ratio": _short(race.ratio(name, names[0])) if name != names[0] else [1.0, 1.0, 1.0],
                "figures": {key: _digits(value) for key, value in race.figures.get(name, {}).items()},
                "judged": race.judged.get(name, ""),
            }
            for name in names
        },
        "failures": {name: str(failure) for name, failure in race.failures.items()},
        "control": _short(noise) if noise else None,
        "warnings": race.warnings(),
        "targets": [_target(each, contest, race, section.alone) for each in contest.targets],
    }


def _target(target: Target, contest: Contest, race: Race, alone: Any) -> Results:
    """Return what was reached: the figure's interval; none where somebody has no time."""
    ours, theirs = _fastest(target.ours, race), _fastest(FASTER_OF.get(target.theirs, (target.theirs,)), race)
    found: list[float] | None = None
    if target.kind in ("first", "memory"):
        measured = alone.get(target.ours[0])
        ours = target.ours[0]
        if isinstance(measured, Alone):
            value = measured.first if target.kind == "first" else measured.peak_above_inputs / contest.data
            found = [_digits(value)] * 3
    elif ours and target.kind == "seconds":
        found = _short(race.time(ours))
    elif ours and theirs and target.kind == "ratio":
        found = _short(race.ratio(ours, theirs))
    elif ours and theirs:
        level = bonferroni(race.level, race.comparisons)
        found = _short(sign_interval(race.times(ours) - race.times(theirs), level))
    return {
        "ours": ours or " or ".join(target.ours),
        "theirs": theirs or target.theirs,
        "kind": target.kind,
        "at most": target.at_most,
        "found": found,
        "why": target.why,
    }


def _fastest(names: Sequence[str], race: Race) -> str:
    there = [name for name in names if name in race.names]
    return min(there, key=lambda name: race.time(name).median, default="")


def _short(interval: Interval, parts: int = 1) -> list[float]:
    return [_digits(each / parts) for each in (interval.low, interval.median, interval.high)]


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


# The command


def _here() -> dict[str, Any]:
    """Return the environment, with what the backends and the peers say of themselves."""
    there = [name for name in ("numpy", "torch", "jax") if name in gdc.backend_names()]
    found = environment({name: getattr(gdc.load_backend(name), "environment", dict)() for name in there})
    return found | {"peers": versions(PEERS)}


@click.command(help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    "))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("docs/performance"), show_default=True)
@click.option("--seconds", default=6.0, show_default=True, help="For each contest, unless it is known to 2 % before.")
@click.option("--quick", is_flag=True, help="As few and as short turns as there may be.")
@click.option("--resume", is_flag=True, help="Go on with run.json.")
@click.option("--only", metavar="WORD", help="Time these contests anew, and keep the others.")
@click.option("--draw", is_flag=True, help="Time nothing.")
def main(output: Path, seconds: float, quick: bool, resume: bool, only: str | None, draw: bool) -> None:
    """Time, and write the page."""
    kept, results = output / "run.json", output / "results.json"
    if draw:
        _written(json.loads(results.read_text(encoding="utf-8")), output)
        return
    here = _here()
    run = Run(here)
    if resume and kept.exists():
        run = load(kept)
        if other := differing(run.environment, here):
            raise click.ClickException(f"{kept} is a run of other conditions: {other[0]}")
    before: Results = {}
    if only is not None and results.exists():
        before = json.loads(results.read_text(encoding="utf-8"))
        if other := differing(before["environment"], here):
            raise click.ClickException(f"{results} is of other conditions, so all has to be timed: {other[0]}")
    asked = [each for each in CONTESTS.values() if only is None or _is_meant(only, each)]
    if not asked:
        raise click.UsageError(f"--only {only!r} is in the title or the names of no contest")
    output.mkdir(parents=True, exist_ok=True)
    for line in unfit(here):
        click.echo(f"! {line}", err=True)
    with only_run() as warning:
        if warning:
            click.echo(f"! {warning}", err=True)
        for number, contest in enumerate(asked, 1):
            click.echo(f"[{number}/{len(asked)}] {contest.title}", err=True)
            run = _timed(contest, run, kept, seconds, quick)
    found = results_of(run, quick or before.get("quick", False))
    known = before.get("contests", {}) | found["contests"]
    found["contests"] = {title: known[title] for title in CONTESTS if title in known}
    found["environment"]["state"]["load at the end"] = environment()["state"]["load"]
    write_text(results, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    _written(found, output)


def _is_meant(word: str, contest: Contest) -> bool:
    return any(word.lower() in each.lower() for each in (contest.title, *contest.entries))


def _timed(contest: Contest, run: Run, kept: Path, seconds: float, quick: bool) -> Run:
    """Return the run with this contest, which is saved while it is held."""
    before = run.race(contest.title)
    found = run

    def told(race: Race, left: float) -> None:
        nonlocal found
        found = run.with_race(contest.title, race)
        found.save(kept)
        if sys.stderr.isatty():
            click.echo(f"\r    {len(race.blocks)} blocks, {left:.0f} s left  ", nl=False, err=True)

    if before is None or before.ended in ("", "interrupted"):
        try:
            race = measured(contest, before, seconds, quick, told)
        except ProcessFailedError as error:
            raise click.ClickException(f"{contest.title}: {error.failure}; --resume goes on") from error
        found = run.with_race(contest.title, race)
        found.save(kept)
        start = "\r" if sys.stderr.isatty() else ""
        click.echo(f"{start}    {len(race.blocks)} blocks in {race.seconds:.0f} s: {race.ended}  ", err=True)
        if race.ended == "interrupted":
            raise click.ClickException("interrupted: --resume goes on")
    there = found.sections[contest.title].alone
    for target in contest.targets:
        if target.kind in ("first", "memory") and target.ours[0] not in there:
            click.echo(f"    {target.ours[0]}, alone", err=True)
            found = found.with_alone(contest.title, target.ours[0], measured_alone(contest, target))
            found.save(kept)
    return found


def _written(found: Results, output: Path) -> None:
    for path in write(found, output):
        click.echo(path, err=True)


if __name__ == "__main__":
    main()
