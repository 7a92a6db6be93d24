"""Two runs: what became slower, if anything is shown to have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gdcompare.timing.intervals import Interval, bonferroni
from gdcompare.timing.replicates import Replicates
from gdcompare.timing.runs import Run, differing

Verdict: TypeAlias = Literal["slower", "faster", "unchanged", "unresolved", "not comparable"]


@dataclass(frozen=True)
class Change:
    """One contender in one section, in the new run and in the old one."""

    section: str
    name: str
    verdict: Verdict
    """slower: by `at_least`, at the least, and so is the whole interval. faster: the same the other way. unchanged:
    neither, and the interval excludes both. unresolved: the interval reaches into what would be slower or faster."""

    ratio: Interval | None
    """How many times longer it takes now; None where that cannot be said."""

    words: str = ""


@dataclass(frozen=True)
class Comparison:
    """All changes between two runs. What makes a gate fail is `slower`, and nothing else."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    """What makes the two less than comparable."""

    at_least: float
    level: float

    @property
    def slower(self) -> bool:
        """Whether anything is shown to be slower, by the size asked for."""
        return any(change.verdict == "slower" for change in self.changes)


def compared(
    old: Run, new: Run, *, at_least: float = 0.05, against: str | None = None, level: float = 0.95
) -> Comparison:
    """Return what changed from one run to the other: a verdict needs a size, and an interval that excludes less.

    Times of two runs are not pairs, so the interval of their ratio is put together from those of both, each at half of
    what may go wrong. All verdicts hold together with probability `level`: corrected for how many there are. Where a
    run has several processes, its interval is that around all of them; where it has one, what differs between processes
    is not in it, and a note says so.

    With `against`, a contender of both runs, every time is first divided by its: what the machine does to all alike is
    then no change. Without, times are compared as they are, which asks for the same machine in the same state.

    Runs of other machines, versions or threads are not compared, and neither are contenders of other work (sizes).
    Raises ValueError for a size or a level that is none.
    """
    if not at_least >= 0:
        raise ValueError(f"at_least must not be negative, not {at_least}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    differences = differing(old.environment, new.environment)
    titles = [title for title in new.sections if title in old.sections]
    pairs = [(title, name) for title in titles for name in _names(old, new, title) if name != against]
    each = bonferroni(level, len(pairs))
    changes = []
    for title, name in pairs:
        before, after = old.sections[title].replicates, new.sections[title].replicates
        if differences:
            changes.append(Change(title, name, "not comparable", None, differences[0]))
        else:
            changes.append(_change(title, name, before, after, at_least, against, each))
    return Comparison(tuple(changes), (*differences, *_notes(old, new, titles)), at_least, level)


def _names(old: Run, new: Run, title: str) -> list[str]:
    if not (old.sections[title].races and new.sections[title].races):
        return []
    there = old.sections[title].races[0].contenders
    return [name for name in new.sections[title].races[0].contenders if name in there]


def _change(
    title: str, name: str, before: Replicates, after: Replicates, at_least: float, against: str | None, level: float
) -> Change:
    for when, races in (("old", before), ("new", after)):
        for needed in filter(None, (name, against)):
            if needed not in races.names:
                failure = next((race.failures[needed] for race in races.races if needed in race.failures), "not in it")
                return Change(title, name, "not comparable", None, f"{needed} has no time in the {when} run: {failure}")
    facts = [races.races[0].facts.get(name, {}) for races in (before, after)]
    if facts[0] != facts[1]:
        other = sorted(key for key in {*facts[0], *facts[1]} if facts[0].get(key) != facts[1].get(key))
        words = ", ".join(f"{key} {facts[0].get(key)} and {facts[1].get(key)}" for key in other)
        return Change(title, name, "not comparable", None, f"other work: {words}")
    then, now = (races.at(name, against, bonferroni(level, 2)) for races in (before, after))
    if then.low <= 0 or now.low <= 0:
        return Change(
            title,
            name,
            "unresolved",
            None,
            f"{min(then.n, now.n)} blocks are too few for that many comparisons: give the races more time",
        )
    ratio = Interval(now.low / then.high, now.median / then.median, now.high / then.low, min(then.n, now.n), level)
    return Change(title, name, *_said(ratio, at_least))


def _said(ratio: Interval, at_least: float) -> tuple[Verdict, Interval, str]:
    """Return the verdict, and what could have been noticed."""
    size = 1 + at_least
    if ratio.low > size:
        return "slower", ratio, f"slower by {ratio.low - 1:.1%} at least"
    if ratio.high < 1 / size:
        return "faster", ratio, f"faster by {1 / ratio.high - 1:.1%} at least"
    if 1 / size <= ratio.low and ratio.high <= size:
        return "unchanged", ratio, f"no change of {at_least:.1%}"
    side = "slower" if ratio.low > 1 else "faster" if ratio.high < 1 else ""
    noticed = (1 + ratio.noticeable) * size - 1
    words = f"a slow-down of {noticed:.1%} would have been noticed"
    return "unresolved", ratio, f"{side}, but not shown to be by {at_least:.1%}; {words}" if side else words


def _notes(old: Run, new: Run, titles: list[str]) -> Iterator[str]:
    for title in [*old.sections, *new.sections]:
        if title not in titles:
            yield f"{title}: only in the {'old' if title in old.sections else 'new'} run"
    for when, run in (("old", old), ("new", new)):
        if any(len(run.sections[title].races) == 1 for title in titles):
            yield f"the {when} run has one process: what differs from one process to the next is not in its intervals"
    for title in titles:
        races = old.sections[title].races[:1] + new.sections[title].races[:1]
        if len(races) == 2 and all(race.blocks for race in races):
            then, now = (race.nothing() for race in races)
            if then.low > now.high or now.low > then.high:
                words = f"a call that does nothing took {then.median:.3g} s then and takes {now.median:.3g} s now"
                yield f"{title}: the machine itself changed: {words}"
