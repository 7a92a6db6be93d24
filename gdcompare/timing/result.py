"""What a race found: the times by block, what may be said of them, and who has no time and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.table import count
from gdcompare.timing.blocks import Block
from gdcompare.timing.failure import Failure
from gdcompare.timing.intervals import (
    LEAST,
    Interval,
    Ranking,
    bonferroni,
    least_number,
    ranking,
    ratio_interval,
    sign_interval,
)

UNEQUAL_THREADS = 1.25
"""How many times more processors than another a contender may keep busy before it is said."""

UNEVEN = 1.1
"""How many times longer than its least turn a contender's middle turn may take before it is said."""


@dataclass(frozen=True, repr=False)
class Race:
    """Times of contenders that ran against each other, block by block; what is computed from them is computed here."""

    contenders: tuple[str, ...]
    """Everyone who started, in the order given."""

    control: str
    """Of whom there was a twin in every block: the first."""

    facts: Mapping[str, Mapping[str, Any]]
    """Of each contender: what makes its work what it is."""

    reference: str | None
    """Against whom all are compared; None for whoever is fastest."""

    level: float
    """The probability with which all its comparisons hold together."""

    seed: int
    turn: float

    calls: Mapping[str, int] = field(default_factory=dict)
    """How many calls each contender makes in a turn."""

    blocks: tuple[Block, ...] = ()
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """Of whoever has no time: why."""

    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of each contender: what its judge measured, the worse of before and after."""

    judged: Mapping[str, str] = field(default_factory=dict)
    """Of each contender: what its judge said of the right answer, if anything."""

    seconds: float = 0.0
    """How long it all took, over all sittings."""

    ended: str = ""
    """"precise", "time" or "interrupted"; "nobody left" where none is right; nothing while it runs."""

    def __repr__(self) -> str:
        winner = self.ranking().winner if self.names and self.blocks else None
        parts = [
            count(len(self.names), "contender"),
            *([f"{len(self.failures)} without a time"] if self.failures else []),
            count(len(self.blocks), "block"),
            f"{winner!r} is fastest" if winner else "no winner shown",
        ]
        return f"Race({', '.join(parts)})"

    @property
    def names(self) -> tuple[str, ...]:
        """Whoever has a time."""
        return tuple(name for name in self.contenders if name not in self.failures)

    @property
    def twin(self) -> str:
        """The name of the control's twin."""
        return f"{self.control}, again"

    def times(self, name: str) -> NDArray[np.float64]:
        """Return the seconds of an undisturbed call in each block, (blocks,). Raises KeyError for who has no time."""
        if name in self.failures:
            raise KeyError(f"{name!r} has no time: {self.failures[name]}")
        return np.array([block.times[name] for block in self.blocks])

    def time(self, name: str) -> Interval:
        """Return the median seconds a call took, with its interval."""
        return sign_interval(self.times(name), self.level)

    def turns(self, name: str) -> NDArray[np.float64]:
        """Return the seconds a call took in each turn, (blocks * rounds,): all that was measured."""
        return np.array([each for block in self.blocks for each in block.seconds[name]])

    def unevenness(self, name: str) -> float:
        """Return how many times longer the middle turn in a block took than the least: 1 on an idle machine."""
        return float(np.median([block.unevenness[name] for block in self.blocks]))

    @property
    def comparisons(self) -> int:
        """How many comparisons must hold together: with the reference, or of all pairs where the data choose it."""
        rivals = len(self.names) - 1
        return max(1, rivals if self.reference in self.names else rivals * (rivals + 1) // 2)

    @property
    def least_blocks(self) -> int:
        """How many blocks it takes at least: 12, or as many as there must be for an interval at this level."""
        return max(LEAST, least_number(bonferroni(self.level, self.comparisons)))

    def ratio(self, name: str, against: str | None = None) -> Interval:
        """Return how many times longer `name` took than `against`, the base if not given; corrected for all rivals."""
        level = bonferroni(self.level, self.comparisons)
        return ratio_interval(self.times(name), self.times(against or self.base), level)

    @property
    def base(self) -> str:
        """The reference, if there is one and it has a time; otherwise the leader."""
        return self.reference if self.reference in self.names else self.ranking().leader

    def ranking(self) -> Ranking:
        """Return who leads, and whether that is shown. Raises ValueError if nobody has a time."""
        if not (self.names and self.blocks):
            raise ValueError("nobody has a time")
        return ranking({name: self.times(name) for name in self.names}, self.level)

    def noise(self) -> Interval | None:
        """Return the ratio of the control's twin to the control, which differ in nothing; None if it has no time."""
        if self.control in self.failures or not self.blocks:
            return None
        twin = [block.times[self.twin] for block in self.blocks]
        return ratio_interval(twin, self.times(self.control), self.level)

    def nothing(self) -> Interval:
        """Return the seconds of a call that does nothing, which are in every other time."""
        return sign_interval([block.nothing for block in self.blocks], self.level)

    def threads(self, name: str) -> float:
        """Return how many processors the contender kept busy: processor seconds per second, median over the blocks."""
        return float(np.median([block.processor[name] for block in self.blocks]))

    def half_width(self) -> float:
        """Return the half-width of the widest ratio: 0.02 if all are known to 2 %; infinite before there are enough.

        Where there is only one contender, it is that of its time.
        """
        if len(self.blocks) < self.least_blocks:
            return math.inf
        if len(self.names) == 1:
            return self.time(self.names[0]).half_width
        base = self.base
        return max((self.ratio(name, base).half_width for name in self.names if name != base), default=0.0)

    def warnings(self) -> list[str]:
        """Return what makes these times less than they seem."""
        if not self.blocks:
            return []
        return [
            *self._unfair_threads(),
            *self._restless(),
            *self._uneven(),
            *self._unjudged(),
            *self._without_reference(),
        ]

    def _without_reference(self) -> Sequence[str]:
        if self.reference not in self.failures:
            return []
        return [f"{self.reference} has no time, so all are compared with the fastest"]

    def _unfair_threads(self) -> Sequence[str]:
        busy = {name: self.threads(name) for name in self.names}
        if not busy or max(busy.values()) <= UNEQUAL_THREADS * max(1.0, min(busy.values())):
            return []
        listed = ", ".join(f"{name} {each:.2f}" for name, each in busy.items())
        return [f"not on equal threads: processors kept busy are {listed}"]

    def _restless(self) -> Sequence[str]:
        noise = self.noise()
        if noise is None or not noise.resolved:
            return []
        return [f"{self.control} differs from itself by a factor of {noise}: no difference of that size means anything"]

    def _uneven(self) -> Sequence[str]:
        found = {name: self.unevenness(name) for name in self.names}
        least = min(found.values(), default=1.0)
        told = []
        if least > UNEVEN:
            told = [f"the machine is busy: even the calmest contender's middle turn takes {least:.2f} times its least"]
        return [
            *told,
            *(
                f"{name} is uneven by itself: its middle turn takes {each:.2f} times its least, another's {least:.2f}"
                for name, each in found.items()
                if each > UNEVEN * least
            ),
        ]

    def _unjudged(self) -> Sequence[str]:
        names = [name for name in self.names if self.judged.get(name) == "not judged"]
        return [f"nobody judged the answers of {', '.join(names)}"] if names else []
