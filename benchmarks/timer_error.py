"""How often the timer itself is wrong, on this machine: contenders that are equal, and slow-downs that were planted.

    python -m benchmarks.timer_error                       the tables of docs/timing.md, in some ten minutes
    python -m benchmarks.timer_error --races 20 --pairs 3  a first look

Each contender computes products of the same two vectors; a planted one computes 1, 2, 5 or 10 % more of them, so that
the truth is known. What is called slower or faster among equals is a false alarm. The same is asked of the usual way,
all turns of one and then all of the other; of the comparison of two runs, in processes of their own; and of work that
is the same, but has vectors of its own: they lie elsewhere in memory, and that alone can make a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import click
import numpy as np

from gdcompare.table import Table, table
from gdcompare.timing.blocks import Clock, Work
from gdcompare.timing.comparison import compared
from gdcompare.timing.contender import Contender, unjudged
from gdcompare.timing.environment import environment, unfit
from gdcompare.timing.intervals import Interval, bonferroni, sign_interval
from gdcompare.timing.race import race
from gdcompare.timing.replicates import race_in_process
from gdcompare.timing.result import Race
from gdcompare.timing.runs import Run

PRODUCTS = 200
SHARED = np.ones(2000), np.ones(2000)
PLANTED = (0, 1, 2, 5, 10)
"""Percent."""


def products(percent: int, vectors: tuple[Any, Any] = SHARED) -> Callable[[], Any]:
    """Return work that is so many percent more than that of 0."""
    x, y = vectors
    times = range(PRODUCTS * (100 + percent) // 100)

    def run() -> Any:
        for _ in times:
            answer = x @ y
        return answer

    return run


def contenders(percent: int = 0) -> list[Contender]:
    """Return the work, and the same with so much planted."""
    return [Contender("as it was", products(0), unjudged), Contender("as it is", products(percent), unjudged)]


def one_after_another(percent: int, turns: int) -> Interval:
    """Return the ratio as one usually measures it: all turns of one, all turns of the other, and their medians."""
    samples = []
    for contender in contenders(percent):
        work = Work(contender.call, None, Clock())
        work.turn(1)
        calls = max(1, round(0.001 / work.turn(1)[0]))
        samples.append(sign_interval([work.turn(calls)[0] / calls for _ in range(turns)], bonferroni(0.95, 2)))
    then, now = samples
    return Interval(now.low / then.high, now.median / then.median, now.high / then.low, turns, 0.95)


def row(way: str, percent: int, ratios: list[Interval]) -> tuple[str, ...]:
    """Return how often that was noticed, and how well the truth was told."""
    truth = 1 + percent / 100
    slower, faster = (np.mean([test(each) for each in ratios]) for test in (_is_slower, _is_faster))
    covered = np.mean([not each.excludes(truth) for each in ratios])
    off = np.quantile([abs(each.median / truth - 1) for each in ratios], 0.95)
    width = np.median([each.half_width for each in ratios])
    cells = (f"{slower:.0%}", f"{faster:.0%}", f"{covered:.0%}", f"{off:.2%}", f"{width:.2%}")
    return (way, f"{percent} %", *cells)


def _is_slower(ratio: Interval) -> bool:
    return ratio.low > 1


def _is_faster(ratio: Interval) -> bool:
    return ratio.high < 1


def of_races(races: int, precision: float, seconds: float) -> Table:
    """Return the table of one process: the race, its control, and one after another."""
    rows, control = [], []

    def held(seed: int, runners: list[Contender]) -> Race:
        return race(runners, precision=precision, seconds=seconds, seed=seed, reference="as it was")

    for percent in PLANTED:
        found = [held(seed, contenders(percent)) for seed in range(races)]
        control += [noise for each in found if (noise := each.noise())]
        rows.append(row("race", percent, [each.ratio("as it is") for each in found]))
        turns = int(np.median([len(each.turns("as it is")) for each in found]))
        rows.append(row("one, then the other", percent, [one_after_another(percent, turns) for _ in range(races)]))
    rows.append(row("A/A control", 0, control))
    elsewhere = []
    for seed in range(races):
        vectors = [np.ones(2000 + 2 * seed)[2 * seed :] for _ in range(2)]
        mover = Contender("as it is", products(0, (vectors[0], vectors[1])), unjudged)
        elsewhere.append(held(seed, [contenders()[0], mover]).ratio("as it is"))
    rows.append(row("race, other memory", 0, elsewhere))
    title = f"{races} races each, to {precision:.1%} or {seconds:g} s"
    return table(
        title,
        ("", "planted", "slower", "faster", "covered", "95 % within", "half-width"),
        sorted(rows, key=lambda each: each[0]),
        2,
    )


def of_runs(pairs: int, at_least: float, precision: float, seconds: float) -> Table:
    """Return how often a gate fails that compares two runs."""
    hold = partial(
        race_in_process, "benchmarks.timer_error:contenders", precision=precision, seconds=seconds, threads=1
    )
    rows: list[tuple[str, ...]] = []
    for processes in (1, 3):
        for percent in (0, 5, 10):
            verdicts: dict[str, list[str]] = {"as it is": [], "against another": []}
            for pair in range(pairs):
                old, new = (
                    _run(hold({"percent": each}, seed=seed) for seed in range(pair, pair + processes))
                    for each in (0, percent)
                )
                for way, against in zip(verdicts, (None, "as it was"), strict=True):
                    changes = compared(old, new, at_least=at_least, against=against).changes
                    verdicts[way].append(next(each.verdict for each in changes if each.name == "as it is"))
            for way, found in verdicts.items():
                told = (f"{found.count(each) / pairs:.0%}" for each in ("slower", "unchanged", "unresolved", "faster"))
                rows.append((way, str(processes), f"{percent} %", *told))
    title = f"{pairs} pairs of runs each, a gate at {at_least:.0%}"
    columns = ("time", "processes", "planted", "slower", "unchanged", "unresolved", "faster")
    return table(title, columns, sorted(rows, key=lambda each: (each[0], each[1])), left=3)


def _run(races: Iterable[Race]) -> Run:
    run = Run(environment())
    for process, each in enumerate(races):
        run = run.with_race("products", each, process)
    return run


@click.command(help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    "))
@click.option("--races", default=100, show_default=True, help="How many races of each kind; 0 for none.")
@click.option("--pairs", default=10, show_default=True, help="How many pairs of runs of each kind.")
@click.option("--seconds", default=2.0, show_default=True, help="The longest that a race may take.")
def main(races: int, pairs: int, seconds: float) -> None:
    """Print the tables."""
    found = environment()
    machine, state = found["machine"], found["state"]
    click.echo(f"{machine['processor']}, {machine['processors']} processors, load {state['load']:.1f}")
    for line in unfit(found):
        click.echo(f"! {line}")
    for precision in (0.02, 0.005) if races else ():
        click.echo(f"\n{of_races(races, precision, seconds)}")
    click.echo(f"\n{of_runs(pairs, 0.05, 0.01, seconds)}")
    click.echo(f"load {environment()['state']['load']:.1f} at the end")


if __name__ == "__main__":
    main()
