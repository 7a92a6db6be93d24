"""The same race in several processes: what differs between them, apart from what differs within one.

The blocks of one process share its memory layout, its hashes and its compiled code: with respect to these they are one
observation, however many there are. So what is said of the work itself must hold in every process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gdcompare.timing.contender import Contender
from gdcompare.timing.fresh import in_fresh_process, named, report
from gdcompare.timing.intervals import Interval, ratio_interval, sign_interval
from gdcompare.timing.race import Progress, race
from gdcompare.timing.record import race_as_json, race_from_json
from gdcompare.timing.result import Race

EVERY = 1.0
"""Seconds between two reports of a race in another process, at least."""


def race_in_process(
    factory: str,
    arguments: Mapping[str, Any],
    *,
    threads: int | None = None,
    limit: float | None = None,
    before: Race | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Race:
    """Return `race(factory(**arguments), **settings)`, held in a fresh process on so many threads.

    `factory` is "module:function" or "path/to/file.py:function", and makes the contenders there. `progress` is called
    about once a second. Raises what `race` raises as ProcessFailedError, whose `failure` says it.
    """
    request = {
        "factory": factory,
        "arguments": dict(arguments),
        "settings": settings,
        "before": None if before is None else race_as_json(before),
    }

    def heard(value: Any) -> None:
        if progress is not None:
            progress(race_from_json(value["race"]), value["left"])

    return race_from_json(in_fresh_process(f"{__name__}:held", request, threads=threads, limit=limit, heard=heard))


def held(factory: str, arguments: Mapping[str, Any], settings: Mapping[str, Any], before: Any) -> dict[str, Any]:
    """Hold the race in this process, and report on the way."""
    contenders: Sequence[Contender] = named(factory)(**arguments)
    last = time.monotonic()

    def progress(found: Race, left: float) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            report({"race": race_as_json(found), "left": left})
            last = time.monotonic()

    earlier = None if before is None else race_from_json(before)
    return race_as_json(race(contenders, before=earlier, progress=progress, **settings))


@dataclass(frozen=True)
class Replicates:
    """Races of the same contenders, each in a process of its own; one is enough, but says nothing of others."""

    races: tuple[Race, ...]

    def __post_init__(self) -> None:
        first = self.races[0]
        for each in self.races[1:]:
            if each.contenders != first.contenders or each.facts != first.facts:
                raise ValueError(
                    f"cannot join races of other work: {', '.join(first.contenders)} and {', '.join(each.contenders)}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Whoever has a time in every process."""
        return tuple(name for name in self.races[0].names if all(name in race.names for race in self.races))

    @property
    def base(self) -> str:
        """Against whom all are compared: the reference, or whoever is fastest in most processes."""
        bases = [race.base for race in self.races]
        return max(bases, key=bases.count)

    def ratio(self, name: str, against: str | None = None) -> Interval:
        """Return how many times longer `name` took: the middle process, and an interval around those of all."""
        return _around([race.ratio(name, against or self.base) for race in self.races])

    def time(self, name: str) -> Interval:
        """Return the seconds of a call: the middle process, and an interval around those of all."""
        return _around([race.time(name) for race in self.races])

    def at(self, name: str, against: str | None, level: float) -> Interval:
        """Return the time, or its ratio to another's, at a level of one's own choice, around all processes."""
        return _around(
            [
                sign_interval(race.times(name), level)
                if against is None
                else ratio_interval(race.times(name), race.times(against), level)
                for race in self.races
            ]
        )

    def between(self, name: str, against: str | None = None) -> float:
        """Return the spread between processes: half of the range of their ratios; 0.02 is 2 % to either side."""
        medians = [race.ratio(name, against or self.base).median for race in self.races]
        return float((max(medians) / min(medians)) ** 0.5 - 1)

    def within(self, name: str, against: str | None = None) -> float:
        """Return the spread within a process: the half-width of its interval, in the middle process."""
        widths = sorted(race.ratio(name, against or self.base).half_width for race in self.races)
        return widths[len(widths) // 2]

    def winner(self) -> str | None:
        """Return who is shown to be fastest in every process, or nobody."""
        winners = {race.ranking().winner for race in self.races}
        return winners.pop() if len(winners) == 1 else None

    def warnings(self) -> list[str]:
        """Return what makes these times less than they seem, each thing once."""
        told = dict.fromkeys(each for race in self.races for each in race.warnings())
        base = self.base
        for name in self.names:
            between, within = self.between(name, base), self.within(name, base)
            if name != base and between > 2 * within:
                told[
                    f"{name}: processes differ by {between:.1%} to either side, blocks within one by {within:.1%}: "
                    "only the former says how far the ratio can be trusted"
                ] = None
        return list(told)


def _around(intervals: Sequence[Interval]) -> Interval:
    middle = sorted(intervals, key=lambda each: each.median)[len(intervals) // 2]
    return Interval(
        min(each.low for each in intervals),
        middle.median,
        max(each.high for each in intervals),
        sum(each.n for each in intervals),
        middle.level,
        sum(each.ties for each in intervals),
    )
