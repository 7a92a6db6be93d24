"""Data of any size, made of the rows and columns that a problem has: what it takes, and what is true of it, is known.

Rows are repeated, so the mean over n of them is a weighted mean over the few that differ, and its truth costs no more
to prove at n = 10^6 than at 40. Repeated columns are shifted by a row for each repetition, so that no two are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gdcompare.problem import Dataset


@dataclass(frozen=True)
class Sized:
    """n rows, and the rows of which they are copies: row i is row `i % len(distinct)`."""

    data: Dataset
    distinct: Dataset
    """Without weights."""

    @property
    def copies(self) -> int:
        """How often a row occurs at most."""
        return -(-len(self.data) // len(self.distinct))

    @property
    def counted(self) -> Dataset:
        """The distinct rows; weighted by how often they occur if that is not alike for all."""
        n, each = len(self.data), len(self.distinct)
        if n % each == 0:
            return self.distinct
        counts = np.bincount(np.arange(n) % each, minlength=each)
        return Dataset(self.distinct.features, self.distinct.targets, self.distinct.name, counts)


def sized(data: Dataset, rows: int | None = None, features: int | None = None) -> Sized:
    """Return so many rows of so many features; None for as many as there are.

    Features that are repeated r times are divided by sqrt(r), so that what a linear model makes of them stays as large;
    whole numbers stay as they are.

    >>> few = Dataset([[1.0], [2.0], [4.0]], [0.0, 1.0, 0.0])
    >>> found = sized(few, rows=7, features=2)
    >>> found.data.targets.tolist(), found.distinct.features.tolist(), found.copies
    ([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [[1.0, 4.0], [2.0, 1.0], [4.0, 2.0]], 3)
    """
    n = len(data) if rows is None else rows
    distinct = data if n >= len(data) else data.rows(np.arange(n))
    if features is not None and features != data.features.shape[1]:
        distinct = Dataset(_widened(distinct, features), distinct.targets, f"{data.name}, {features} features")
    which = np.arange(n) % len(distinct)
    whole = distinct if n == len(distinct) else distinct.rows(which)
    return Sized(whole, distinct)


def _widened(data: Dataset, d: int) -> np.ndarray:
    own = data.features
    repeats = -(-d // own.shape[1])
    columns = np.concatenate([np.roll(own, repeat, axis=0) for repeat in range(repeats)], axis=1)[:, :d]
    whole = bool((own == np.rint(own)).all())
    return columns if whole else columns / np.sqrt(repeats)
