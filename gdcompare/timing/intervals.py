"""What a handful of noisy ratios allow to be said: medians, with intervals that hold for noise of any shape.

No resampling, no seed, no assumption of symmetry: the interval of a median between two order statistics is a fact about
coins (Thompson 1936; David and Nagaraja, Order Statistics, 7.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST = 12
"""Blocks that are timed at least: enough for an interval even where fifty comparisons must hold together."""


@dataclass(frozen=True)
class Interval:
    """A median of n, and the interval that holds the true one with probability `level` at least."""

    low: float
    median: float
    high: float
    n: int
    level: float
    ties: int = 0
    """Of ratios: how many are exactly 1, because the clock told no difference."""

    def excludes(self, value: float) -> bool:
        """Return whether the true median is shown to be another than this."""
        return not self.low <= value <= self.high

    @property
    def resolved(self) -> bool:
        """Of a ratio: whether a difference is shown, in either direction."""
        return self.excludes(1.0)

    @property
    def half_width(self) -> float:
        """How narrow it is: 0.02 for one that reaches from 2 % below its middle to 2 % above."""
        return math.sqrt(self.high / self.low) - 1 if 0 < self.low < math.inf else math.inf

    @property
    def noticeable(self) -> float:
        """The relative difference that such an interval would have shown with probability `level` at least.

        An interval that holds the true ratio r, and is no wider than the way from 1 to r, cannot hold 1 as well.
        """
        return self.high / self.low - 1 if 0 < self.low < math.inf else math.inf

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.low:.4g} to {self.high:.4g})"


def rank(n: int, level: float) -> int:
    """Return the largest k for which the k-th smallest of n and the k-th largest enclose the median at that level.

    The true median lies below the k-th smallest if fewer than k of n fall below it: P(Bin(n, 1/2) < k), and the same
    above. 0 if n are too few for any k.

    >>> [rank(n, 0.95) for n in (5, 6, 8, 20)]
    [0, 1, 1, 6]
    """
    tails = accumulate(math.comb(n, k) for k in range(n // 2 + 1))  # 2^n P(Bin(n, 1/2) <= k)
    return sum(2 * tail <= (1 - level) * 2**n for tail in tails)


def least_number(level: float) -> int:
    """Return the smallest n for which there is an interval at all.

    >>> least_number(0.95), least_number(0.99)
    (6, 8)
    """
    return next(n for n in range(1, 2000) if rank(n, level))


def sign_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the median of independent values, and its interval by the sign test: exact for any continuous noise.

    From too few values for the level, it reaches from -inf to inf.

    >>> sign_interval([3, 1, 4, 1.5, 9, 2.6])
    Interval(low=1.0, median=2.8, high=9.0, n=6, level=0.95, ties=0)
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    k = rank(n, level)
    low, high = (float(ordered[k - 1]), float(ordered[n - k])) if k else (-math.inf, math.inf)
    return Interval(low, float(np.median(ordered)), high, n, level)


def ratio_interval(times: ArrayLike, against: ArrayLike, level: float = 0.95) -> Interval:
    """Return how many times longer one took than the other, from times that were taken in pairs.

    It is the interval of the median of the logarithms of the ratios: so a / b and b / a say the same.

    >>> print(ratio_interval([2.0, 2.2, 2.1, 1.9, 2.0, 2.4, 2.1, 2.0], [1.0] * 8))
    2.049 (1.9 to 2.4)
    """
    logs = np.log(np.asarray(times, np.float64)) - np.log(np.asarray(against, np.float64))
    found = sign_interval(logs, level)
    low, median, high = (float(each) for each in np.exp((found.low, found.median, found.high)))
    return Interval(low, median, high, found.n, level, int(np.sum(logs == 0)))


def bonferroni(level: float, comparisons: int) -> float:
    """Return the level of each of so many comparisons, for all of them together to hold at `level`.

    >>> round(bonferroni(0.95, 5), 6)
    0.99
    """
    return 1 - (1 - level) / max(1, comparisons)


@dataclass(frozen=True)
class Ranking:
    """Who is fastest, if anybody is shown to be."""

    leader: str
    """The one with the smallest median time."""

    runner_up: str | None
    """Of the others, the one whose lag behind the leader is shown least."""

    lead: Interval | None
    """How many times longer the runner-up took than the leader."""

    unresolved: tuple[str, ...]
    """Those from whom the leader is not told apart. That is not to say that they are equally fast."""

    @property
    def winner(self) -> str | None:
        """The leader, if its lead over everybody is shown; otherwise nobody."""
        return None if self.unresolved else self.leader


def ranking(times: Mapping[str, Sequence[float] | NDArray[np.float64]], level: float = 0.95) -> Ranking:
    """Return who leads, from times by block, and whether the lead over the runner-up is more than noise.

    If all are equally fast, somebody is called the winner with probability 1 - level at most: for that, one would have
    to be resolved from k - 1 others at once, each at 1 - (1 - level) / (k - 1).

    >>> ranking({"a": [1.0] * 10, "b": [2.0] * 10, "c": [1.1] * 10}).winner
    'a'
    """
    leader = min(times, key=lambda name: float(np.median(times[name])))
    each = bonferroni(level, len(times) - 1)
    lags = {name: ratio_interval(values, times[leader], each) for name, values in times.items() if name != leader}
    runner_up = min(lags, key=lambda name: (lags[name].low, lags[name].median), default=None)
    unresolved = tuple(name for name, lag in lags.items() if lag.low <= 1)
    return Ranking(leader, runner_up, lags[runner_up] if runner_up else None, unresolved)
