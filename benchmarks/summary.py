"""The ratios and findings that the terminal shows after the tables of times, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gdcompare.timing.intervals import Interval
from gdcompare.timing.record import race_as_json
from gdcompare.timing.result import Race


@dataclass
class Summary:
    """Collects races and findings of one run."""

    races: dict[str, Race] = field(default_factory=dict)
    promises: dict[str, Mapping[str, float]] = field(default_factory=dict)
    findings: dict[str, list[str]] = field(default_factory=dict)

    def add(self, section: str, race: Race, promised: Mapping[str, float]) -> None:
        """Note a race of ours against others, to some of whom we promised that ours takes at most so many times theirs.

        A section that has a race already gets the next one under the name of its reference.
        """
        title = section if section not in self.races else f"{section}, {race.base}"
        self.races[title] = race
        self.promises[title] = promised

    def find(self, section: str, line: str) -> None:
        """Note a finding that is no ratio."""
        self.findings.setdefault(section, []).append(line)

    def as_json(self) -> dict[str, Any]:
        return {section: race_as_json(race) for section, race in self.races.items()}

    def lines(self) -> Iterator[str]:
        """Everything noted, section by section."""
        if self.races:
            yield ""
            yield " ratios: first / second, 1 = as fast, intervals of 95 % for all of a section ".center(80, "-")
            yield f"{'':<34}{'first':>8}{'ratio':>8}  interval"
        for section, race in self.races.items():
            yield section
            yield from self._of_race(race, self.promises[section])
            yield from (f"  ! {warning}" for warning in race.warnings())
        for section, lines in self.findings.items():
            yield section
            yield from (f"  {line}" for line in lines)

    def _of_race(self, race: Race, promised: Mapping[str, float]) -> Iterator[str]:
        ours = race.base
        for name in race.names:
            if name != ours:
                ratio = race.ratio(ours, name)
                yield _line(f"{ours} / {name}", race.time(ours).median, ratio, verdict(ratio, promised.get(name)))
        if (noise := race.noise()) is not None:
            yield _line(f"{race.control} / itself", race.time(race.control).median, noise, "")


def _line(what: str, seconds: float, ratio: Interval, verdict: str) -> str:
    span = f"{_number(ratio.low)} .. {_number(ratio.high)}"
    return f"  {what:<32}{_duration(seconds):>8}{_number(ratio.median):>8}  {span:<15}{verdict}".rstrip()


def verdict(ratio: Interval, at_most: float | None) -> str:
    """Return whether a promise is shown to be kept or broken; without a promise, whether a difference is shown."""
    if at_most is None:
        return "" if ratio.resolved else "not resolved"
    kept = "<=" if ratio.high <= at_most else "over" if ratio.low > at_most else "about"
    return f"{kept} {at_most:g}"


def _number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
