"""Pieces of work, one after the other: each contender alone in a process, then all that are sound against each other.

Everything runs in fresh processes, on equal threads, so that a contender that dies takes nobody with it. What is known
is handed out after every second or so, to be saved: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gdcompare.registry import backend_class
from gdcompare.timing.alone import Alone, alone
from gdcompare.timing.failure import Failure
from gdcompare.timing.fresh import ProcessFailedError
from gdcompare.timing.replicates import race_in_process
from gdcompare.timing.result import Race
from gdcompare.timing.runs import Run, Section
from gdcompare.timing.work import Work

ENDED = ("precise", "time", "nobody left")
"""How a race ends that need not go on."""


@dataclass(frozen=True)
class Pace:
    """How long, how precisely, and on what to time."""

    seconds: float = 5.0
    """Of each race, if the precision is not reached before."""
    precision: float = 0.02
    processes: int = 1
    """In how many processes each race is held."""
    threads: int = 1
    limit: float = 120.0
    """Seconds that a contender alone may take, with all that it imports and compiles."""
    alone: bool = True
    """Whether first calls and memory are measured."""

    @property
    def longest(self) -> float:
        """Seconds that one call may take: a race has a dozen blocks at least, in each of which everybody has many."""
        return max(0.2, self.seconds / 5)


@dataclass(frozen=True)
class Stage:
    """Where a benchmark stands."""

    done: float
    """How much of all there is to do."""
    of: int
    doing: str


def bench(
    works: Sequence[Work],
    pace: Pace,
    before: Run,
    *,
    saved: Callable[[Run], object],
    watch: Callable[[Stage], object],
    shown: Callable[[Run, str], object],
) -> Run:
    """Do what `before` lacks of the works, and return the run with all of it.

    `saved` is given what there is, again and again; `watch`, where it stands; `shown`, the run and the title of each
    work that is complete. Raises KeyboardInterrupt after what there was has been saved.
    """
    run, number = before, 0
    steps = [(work, steps_of(work, pace)) for work in works]
    of = sum(count for _, count in steps)
    for work, count in steps:
        title = work.title
        for place, name in enumerate(_apart(work, pace)):
            watch(Stage(number + place, of, f"{work.short}: {name} by itself"))
            if title not in run.sections or name not in run.sections[title].alone:
                run = run.with_alone(title, name, _alone(work, name, pace))
                saved(run)
        for process in range(pace.processes):
            begun = number + count - pace.processes + process
            watch(Stage(begun, of, f"{work.short}: preparing"))
            run = _raced(run, work, process, pace, saved, partial(_within, watch, begun, of))
        number += count
        shown(run, title)
    watch(Stage(of, of, "done"))
    return run


def lacks(run: Run, work: Work, pace: Pace) -> bool:
    """Whether a run lacks anything of a work."""
    section = run.sections.get(work.title, Section())
    if any(name not in section.alone for name in _apart(work, pace)):
        return True
    races = [run.race(work.title, process) for process in range(pace.processes)]
    return bool(_sound(run, work)) and any(race is None or race.ended not in ENDED for race in races)


def steps_of(work: Work, pace: Pace) -> int:
    """Return in how many steps a work is done."""
    return len(_apart(work, pace)) + pace.processes


def _sound(run: Run, work: Work) -> list[str]:
    """Return the names of those that did not fail alone."""
    alone = run.sections.get(work.title, Section()).alone
    return [name for name in work.names if not isinstance(alone.get(name), Failure)]


def _within(watch: Callable[[Stage], object], begun: int, of: int, part: float, words: str) -> None:
    watch(Stage(begun + part, of, words))


def _apart(work: Work, pace: Pace) -> list[str]:
    """Return the names of those that are measured by themselves; losses are timed for the sake of ratios alone."""
    return work.names if pace.alone and work.what != "loss" else []


def _alone(work: Work, name: str, pace: Pace) -> Alone | Failure:
    imports = ["gdcompare.timing.work"]
    if name in work.backends and ".py" not in name:
        imports.append(backend_class(name).__module__.partition(".")[0])
    arguments = {"name": name, **work.to_dict()}
    return alone("gdcompare.timing.work:contender", arguments, imports=imports, threads=pace.threads, limit=pace.limit)


def _raced(
    run: Run,
    work: Work,
    process: int,
    pace: Pace,
    saved: Callable[[Run], object],
    watch: Callable[[float, str], object],
) -> Run:
    """Hold one race, or go on with it, among those that did not fail alone."""
    title, earlier = work.title, run.race(work.title, process)
    if earlier is not None and earlier.ended in ENDED:
        return run
    names = _sound(run, work)
    if not names:
        return run

    def progress(race: Race, left: float) -> None:
        saved(run.with_race(title, race, process))
        blocks = f"{len(race.blocks)} blocks, about {left:.0f} s left"
        watch(race.seconds / (race.seconds + left) if race.seconds else 0.0, f"{work.short}: {blocks}")

    try:
        race = race_in_process(
            "gdcompare.timing.work:contenders",
            {"names": names, **work.to_dict()},
            threads=pace.threads,
            before=earlier,
            progress=progress,
            precision=pace.precision,
            seconds=pace.seconds,
            longest=pace.longest,
            seed=process,
        )
    except ProcessFailedError as error:
        race = _nobody(work, names, error.failure, process)
    run = run.with_race(title, race, process)
    saved(run)
    if race.ended == "interrupted":
        raise KeyboardInterrupt
    return run


def _nobody(work: Work, names: Sequence[str], failure: Failure, seed: int) -> Race:
    """Return the race of a process that died: nobody has a time."""
    facts: Mapping[str, Any] = dict.fromkeys(names, work.facts)
    failures = dict.fromkeys(names, failure)
    return Race(tuple(names), names[0], facts, None, 0.95, seed, 0.0, failures=failures, ended="nobody left")
