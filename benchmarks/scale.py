"""Measure what several processes gain, and say from that, on paper, what a cluster takes for rows that fit no machine.

    python -m benchmarks.scale                       10^7 rows of 20 features, in some minutes and 4 GB of memory
    python -m benchmarks.scale --rows 1e5 --quick    to look at

Measured on this machine: the rate of one worker over rows that it holds, two against one in one run, what a step costs
besides the rows, and from how many rows a worker two are quicker than none. The rest is simulated: its assumptions are
printed with it.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from gdcompare.data.blocks import Blocks, InMemory
from gdcompare.registry import as_backend, as_problem
from gdcompare.scale.cluster import workers_for
from gdcompare.scale.sums import Here, Sums, Workers
from gdcompare.table import Table

FIRST = {"theta_0": np.array(0.5)}


@dataclass(frozen=True)
class Measured:
    """Seconds, all of them: of a step, or of a row."""

    a_row: float
    """By one worker that holds it."""
    a_call: float
    """A step of one worker less its work: once a step, whatever its size."""
    another: float
    """More for each further worker, at the scheduler, which passes calls on one after the other."""


@dataclass(frozen=True)
class Network:
    """What is assumed of it: a star, at whose centre is the scheduler."""

    bytes_a_second: float = 1.25e9
    round_trip: float = 2e-4


@dataclass(frozen=True)
class Step:
    """What a step takes of a cluster."""

    workers: int
    seconds: float
    share: float
    """Of the time that work takes, in which the rows are."""
    down: float
    """Bytes from the scheduler, to all."""
    up: float
    held: float
    """Bytes of rows that a worker holds."""


NODES = 12
"""Of the tree, that a worker sends at most: shares are cut at 32 for each worker (`shares.unit_for`)."""


def step_of(rows: float, features: int, workers: int, measured: Measured, network: Network) -> Step:
    """Return what a full gradient over so many rows takes, by the model that `ASSUMED` puts in words.

    >>> step_of(1e9, 20, 1, Measured(1e-8, 0.0, 0.0), Network()).seconds
    10.0...
    """
    numbers = features + 1
    work = rows / workers * measured.a_row
    down, up = 8.0 * numbers * workers, 8.0 * (numbers + 2) * NODES * workers
    calls = measured.a_call + measured.another * (workers - 1) + network.round_trip
    seconds = work + calls + (down + up) / network.bytes_a_second
    return Step(workers, seconds, work / seconds, down, up, 8.0 * numbers * rows / workers)


def most_useful(rows: float, measured: Measured) -> int:
    """Return how many workers make a step quickest: w with rows a_row / w^2 = another, by `step_of` without bytes.

    >>> most_useful(1e8, Measured(1e-8, 0.0, 1e-4))
    100
    """
    return max(1, round(math.sqrt(rows * measured.a_row / measured.another))) if measured.another else int(rows)


ASSUMED = (
    "linear regression, float64, data in place: a worker is a core as fast as this machine's, and holds its rows",
    "cores of one machine do not share the memory's bandwidth: they do here, and two gain what is measured above",
    "what a step costs besides grows with the workers as measured here, up to as many as were measured",
    f"parameters go down once, at most {NODES} nodes of the tree come up, through one scheduler of 10 Gbit/s, 0.2 ms",
    "nobody dies; the shares are equal to a thirtieth",
)


# Measured


def timed(work: Workers, params: dict[str, Any], steps: int) -> list[float]:
    """Return the seconds of some steps, after a first one, in which rows are read."""
    work.total(params)
    found = []
    for _ in range(steps):
        begun = time.perf_counter()
        work.total(params)
        found.append(time.perf_counter() - begun)
    return found


def sums_of(rows: int, features: int, backend: str) -> tuple[Sums, dict[str, Any]]:
    generator = np.random.default_rng(0)
    data = Blocks(InMemory(generator.standard_normal((rows, features)), generator.standard_normal(rows)))
    params = FIRST | {"theta_1": generator.standard_normal(features)}
    return Sums(as_problem("linear-regression"), as_backend(backend), data), params


def interleaved(sums: Sums, params: dict[str, Any], counts: Sequence[int], steps: int, times: int) -> dict[int, float]:
    """Return the quickest step by each number of workers, 0 for none; each is started anew several times, in turn."""
    found: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(times):
        for count in counts:
            with workers_for(sums, count or None) as work:
                found[count] += timed(work, params, steps)
    return {count: min(each) for count, each in found.items()}


def overheads(backend: str, steps: int) -> dict[int, tuple[float, float]]:
    """Return what a step takes in which there is next to nothing to do: the quickest and the median, by workers.

    There are as many of them as processors, at most: more would wait for each other.
    """
    found = {}
    for count in (each for each in (1, 2, 4, 8, 16) if each <= max(2, os.cpu_count() or 1)):
        sums, params = sums_of(4096 * count, 20, backend)
        with workers_for(sums, count) as work:
            seconds = timed(work, params, steps)
        alone = min(timed(Here(sums), params, 20)) / count
        found[count] = min(seconds) - alone, statistics.median(seconds) - alone
    return found


def crossing(sizes: Sequence[int], by: dict[int, dict[int, float]]) -> int | None:
    """Return the least of the sizes from which on two are quicker than none.

    >>> crossing([10, 20, 30], {10: {0: 1, 2: 3}, 20: {0: 2, 2: 1.5}, 30: {0: 3, 2: 2}})
    20
    """
    found = None
    for size in sorted(sizes, reverse=True):
        if by[size][2] >= by[size][0]:
            break
        found = size
    return found


def _bytes(number: float) -> str:
    units = ["B", "kB", "MB", "GB", "TB"]
    while number >= 1000 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f"{number:.3g} {units[0]}"


def simulated(rows: float, features: int, measured: Measured, network: Network, counts: Sequence[int]) -> Table:
    lines = []
    for count in counts:
        step = step_of(rows, features, count, measured, network)
        words = f"{count:,}", f"{step.seconds:.3g}", f"{step.share:.0%}", _bytes(step.down), _bytes(step.up)
        lines.append((*words, _bytes(step.held)))
    columns = "workers", "s a step", "of it rows", "down", "up", "held by each"
    return Table(f"{rows:.0e} rows of {features}, simulated", columns, tuple(lines))


@click.command(help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    "))
@click.option("--rows", default=1e7, show_default=True, help="Of the run in which two workers are set against one.")
@click.option("--features", default=20, show_default=True)
@click.option("--backend", default="numpy", show_default=True)
@click.option("--times", default=3, show_default=True, help="How often workers are started anew for each figure.")
@click.option("--quick", is_flag=True, help="Few steps, once.")
def main(rows: float, features: int, backend: str, times: int, quick: bool) -> None:
    """Measure, simulate, and print."""
    steps, times = (3, 1) if quick else (10, times)
    click.echo(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n")

    few = overheads(backend, 20 if quick else 300)
    lines = tuple((str(count), f"{1e3 * least:.2f}", f"{1e3 * half:.2f}") for count, (least, half) in few.items())
    click.echo(Table("A step of which the rows are next to nothing", ("workers", "ms at least", "median"), lines))

    sizes = [4096 * 2**k for k in range(1, 6 if quick else 9)]
    by = {}
    for size in sizes:
        sums, params = sums_of(size, features, backend)
        by[size] = interleaved(sums, params, (0, 2), steps, times)
    pairs = tuple((f"{size:,}", f"{1e3 * each[0]:.2f}", f"{1e3 * each[2]:.2f}") for size, each in by.items())
    click.echo(Table("\nWhere two workers begin to pay", ("rows", "none, ms", "two, ms"), pairs))
    least = crossing(sizes, by)
    click.echo(f"from {least // 2:,} rows a worker on" if least else "nowhere up to here")

    sums, params = sums_of(int(rows), features, backend)
    one_two = interleaved(sums, params, (1, 2), steps, times)
    ratio = one_two[1] / one_two[2]
    click.echo(f"\n{rows:.0e} rows: one worker {one_two[1]:.3f} s, two {one_two[2]:.3f} s, {ratio:.2f} times one")
    click.echo(f"one worker: {rows / one_two[1]:.3g} rows/s, {_bytes(8 * (features + 1) * rows / one_two[1])}/s\n")

    (one, _), *_, (most, _) = few.values()
    counted = list(few)
    measured = Measured(one_two[1] / rows, max(0.0, one), max(0.0, (most - one) / (counted[-1] - counted[0])))
    for many, counts in ((1e9, (1, 10, 100, 1000)), (1e12, (100, 1000, 10_000, 100_000))):
        click.echo(simulated(many, features, measured, Network(), counts))
        click.echo(f"quickest with about {most_useful(many, measured):,} workers\n")
    click.echo("Assumed:")
    for each in ASSUMED:
        click.echo(f"- {each}")


if __name__ == "__main__":
    main()
