"""A run: everything that was timed at one time on one machine, kept in a file that pytest-benchmark reads as well."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gdcompare.table import count
from gdcompare.timing.alone import Alone
from gdcompare.timing.environment import Environment
from gdcompare.timing.failure import Failure
from gdcompare.timing.record import alone_as_json, alone_from_json, race_as_json, race_from_json
from gdcompare.timing.replicates import Replicates
from gdcompare.timing.result import Race
from gdcompare.words import one_line
from gdcompare.writing import write_text

FORMAT = 1
_OURS = "gdcompare timing"
"""Where in the file what we read is; everything else there is for other readers."""


class RunError(ValueError):
    """A file that is no run, in one line."""


@dataclass(frozen=True)
class Section:
    """The races of one table, one for each process, and what was measured of its contenders alone."""

    races: tuple[Race, ...] = ()
    alone: Mapping[str, Alone | Failure] = field(default_factory=dict)

    @property
    def replicates(self) -> Replicates:
        """The races together."""
        return Replicates(self.races)


@dataclass(frozen=True, repr=False)
class Run:
    """Sections by title, and what their times must be read with."""

    environment: Environment
    sections: Mapping[str, Section] = field(default_factory=dict)
    begun: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def __repr__(self) -> str:
        races = sum(len(section.races) for section in self.sections.values())
        return f"Run({count(len(self.sections), 'table')}, {count(races, 'race')}, begun {self.begun})"

    def race(self, title: str, process: int = 0) -> Race | None:
        """Return the race of that process, if there is one: finished, or to go on with (`Race.ended`)."""
        races = self.sections[title].races if title in self.sections else ()
        return races[process] if process < len(races) else None

    def with_race(self, title: str, race: Race, process: int = 0) -> Run:
        """Return the run with this race in place of the one of that process, if there was one."""
        section = self.sections.get(title, Section())
        races = (*section.races[:process], race, *section.races[process + 1 :])
        return replace(self, sections={**self.sections, title: replace(section, races=races)})

    def with_sections(self, sections: Mapping[str, Section], order: Sequence[str] = ()) -> Run:
        """Return the run with these in place of those of the same titles; titles in this order, then the others."""
        every = {**self.sections, **sections}
        first = {title: every[title] for title in order if title in every}
        return replace(self, sections={**first, **every})

    def with_alone(self, title: str, name: str, alone: Alone | Failure) -> Run:
        """Return the run with what a contender took alone."""
        section = self.sections.get(title, Section())
        return replace(self, sections={**self.sections, title: replace(section, alone={**section.alone, name: alone})})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all. Raises OSError, as `open` does.

        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Run({"machine": {}}).save(Path(folder) / "run.json")
        ...     load(Path(folder) / "run.json").environment
        {'machine': {}}
        """
        write_text(path, json.dumps(self.as_json()) + "\n")

    def as_json(self) -> dict[str, Any]:
        """Return the run as pytest-benchmark has it, with what is ours beside."""
        sections = {
            title: {
                "races": [race_as_json(race) for race in section.races],
                "alone": {name: alone_as_json(each) for name, each in section.alone.items()},
            }
            for title, section in self.sections.items()
        }
        return {
            "machine_info": _machine_info(self.environment),
            "commit_info": {},
            "benchmarks": [
                row
                for title, section in self.sections.items()
                for race in section.races[:1]
                for row in _rows(title, race)
            ],
            "datetime": self.begun,
            "version": _PYTEST_BENCHMARK,
            _OURS: {"format": FORMAT, "environment": self.environment, "sections": sections},
        }


def load(path: str | os.PathLike[str]) -> Run:
    """Return the run in a file. Raises RunError, in one line, for a file that is damaged or holds something else."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {str(path)!r}: {one_line(getattr(error, 'strerror', None) or error)}") from error
    try:
        whole = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RunError(f"{str(path)!r} is no JSON, or a part of it is lost: {one_line(error)}") from error
    return run_from(whole, str(path))


def run_from(whole: Any, path: str = "what was sent") -> Run:
    """Return the run that `Run.as_json` gave, which was at `path`. Raises RunError as `load` does.

    >>> run_from(Run({"machine": {}}).as_json()).environment
    {'machine': {}}
    """
    if not isinstance(whole, dict) or _OURS not in whole:
        raise RunError(f"{path!r} is not a run saved by gdcompare")
    ours = whole[_OURS]
    try:
        if ours["format"] != FORMAT:
            raise RunError(f"{path!r} has format {ours['format']}; this version reads {FORMAT}")
        sections = {str(title): _section(each) for title, each in ours["sections"].items()}
        return Run(dict(ours["environment"]), sections, str(whole["datetime"]))
    except RunError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RunError(f"{path!r} is damaged: {one_line(f'{type(error).__name__}: {error}')}") from error


def merged(runs: Sequence[Run]) -> Run:
    """Return runs of the same work as one, whose processes stand side by side.

    Raises ValueError where their machine, versions or threads differ, or a section is of other work.
    """
    first, *others = runs
    for other in others:
        if differences := differing(first.environment, other.environment):
            raise ValueError(f"cannot join runs of other conditions: {'; '.join(differences)}")
        for title, section in other.sections.items():
            mine = first.sections.get(title, Section())
            both = Section((*mine.races, *section.races), {**mine.alone, **section.alone})
            if both.races:
                _ = both.replicates  # raises where the work differs
            first = replace(first, sections={**first.sections, title: both})
    return first


def differing(one: Environment, other: Environment) -> list[str]:
    """Return what two environments must share and do not, a line each.

    >>> differing({"versions": {"numpy": "2.1"}}, {"versions": {"numpy": "2.4"}})
    ['versions: numpy 2.1 and 2.4']
    >>> differing({"machine": {"memory": 16_790_003_712}}, {"machine": {"memory": 16_789_995_520}})  # of the same make
    []
    """
    told = []
    for part in ("machine", "versions", "frameworks", "threads"):
        mine, yours = one.get(part, {}), other.get(part, {})
        told += [
            f"{part}: {name} {mine.get(name)} and {yours.get(name)}"
            for name in sorted({*mine, *yours})
            if not _alike(name, mine.get(name), yours.get(name))
        ]
    return told


def _alike(name: str, mine: Any, yours: Any) -> bool:
    """Whether two entries are the same; of memory, what the system keeps for itself differs from boot to boot."""
    if name == "memory" and mine and yours:
        return bool(abs(mine - yours) <= 0.01 * max(mine, yours))
    return bool(mine == yours)


def _section(value: Mapping[str, Any]) -> Section:
    races = tuple(race_from_json(each) for each in value["races"])
    section = Section(races, {str(name): alone_from_json(each) for name, each in value["alone"].items()})
    if races:
        _ = section.replicates  # raises where they are of other work
    return section


# As pytest-benchmark has it

_PYTEST_BENCHMARK = "5.3.1"
"""Whose format the rest of the file has."""


def _machine_info(found: Environment) -> dict[str, Any]:
    machine = found.get("machine", {})
    return {
        "node": "",
        "processor": machine.get("processor", ""),
        "machine": machine.get("architecture", ""),
        "system": machine.get("system", ""),
        "python_version": found.get("versions", {}).get("python", ""),
        "cpu": {"brand_raw": machine.get("processor", ""), "count": machine.get("processors")},
        "versions": found.get("versions", {}),
    }


def _rows(title: str, race: Race) -> list[dict[str, Any]]:
    if not race.blocks:
        return []
    return [
        {
            "group": title,
            "name": name,
            "fullname": f"{title}::{name}",
            "params": None,
            "param": None,
            "extra_info": {"contender": name, "figures": dict(race.figures.get(name, {})), **race.facts.get(name, {})},
            "options": {"timer": "perf_counter", "rounds": len(race.blocks), "warmup": 2},
            "stats": _statistics(race, name),
        }
        for name in race.names
    ]


def _statistics(race: Race, name: str) -> dict[str, Any]:
    """Return what pytest-benchmark computes of its rounds, of ours: the times by block."""
    data = np.sort(race.times(name))
    n, mean = len(data), float(np.mean(data))
    deviation = float(np.std(data, ddof=1)) if n > 1 else 0.0
    q1, middle, q3 = (float(each) for each in np.quantile(data, [0.25, 0.5, 0.75]))
    inside = data[(data >= q1 - 1.5 * (q3 - q1)) & (data <= q3 + 1.5 * (q3 - q1))]
    outliers = {"iqr": n - len(inside), "stddev": int(np.sum(np.abs(data - mean) > deviation))}
    return {
        "min": float(data[0]),
        "max": float(data[-1]),
        "mean": mean,
        "stddev": deviation,
        "rounds": n,
        "median": middle,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outliers["iqr"],
        "stddev_outliers": outliers["stddev"],
        "outliers": f"{outliers['stddev']};{outliers['iqr']}",
        "ld15iqr": float(inside[0]),
        "hd15iqr": float(inside[-1]),
        "ops": 1 / mean,
        "total": math.fsum(data),
        "iterations": race.calls[name],
        "data": race.times(name).tolist(),
    }
