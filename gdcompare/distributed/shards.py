"""Which rows each rank takes, in one batch or in micro-batches: checked, with what each of them weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset

Floats: TypeAlias = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class Shards:
    """The rows of each rank's micro-batches; made by `Shards.of`.

    >>> data = Dataset([[1.0], [2.0], [3.0]], [4.0, 5.0, 6.0])
    >>> shards = Shards.of([[0, 1], [2]], data)
    >>> shards.weights.tolist(), shards.sizes()
    ([2.0, 1.0], '2 and 1 rows')
    >>> Shards.of([[0, 1], [1, 2]], data)
    Traceback (most recent call last):
    ...
    ValueError: shards: row 1 is in rank 0's and in rank 1's; give each once, if a sampler repeats them
    """

    micro: tuple[tuple[tuple[int, ...], ...], ...]
    """By rank, then by micro-batch: one, if there is no accumulation."""
    data: Dataset

    @classmethod
    def of(cls, given: Sequence[Any], data: Dataset, what: str = "shards", *, whole: bool = True) -> Shards:
        """Return the shards, or raise a ValueError: if rows overlap, do not exist, or if `whole` are missing."""
        if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray) or not len(given):
            raise ValueError(
                f"{what} are the rows of each rank, [[0, 1], [2, 3]], or of its micro-batches, not {given!r}"
            )
        micro = tuple(_micro_batches(f"{what}: rank {rank}", each, len(data)) for rank, each in enumerate(given))
        shards = cls(micro, data)
        owner: dict[int, int] = {}
        for rank in range(len(micro)):
            for row in shards.rows(rank):
                if row in owner:
                    twice = (
                        f"twice in rank {rank}'s"
                        if owner[row] == rank
                        else f"in rank {owner[row]}'s and in rank {rank}'s"
                    )
                    raise ValueError(f"{what}: row {row} is {twice}; give each once, if a sampler repeats them")
                owner[row] = rank
        if whole and (missing := [row for row in range(len(data)) if row not in owner]):
            named = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
            raise ValueError(
                f"{what}: row {named} of {len(data)} is in no rank's shard: give all, or the data of this step alone"
            )
        for rank, parts in enumerate(micro):
            for each in parts:
                if data.weights is not None and not data.weights[list(each)].any():
                    raise ValueError(f"{what}: all rows of rank {rank}'s shard, or of a micro-batch of it, weigh 0")
        return shards

    def rows(self, rank: int) -> list[int]:
        """Return a rank's rows."""
        return [row for part in self.micro[rank] for row in part]

    def __len__(self) -> int:
        return len(self.micro)

    @property
    def accumulated(self) -> bool:
        """Whether there are micro-batches."""
        return any(len(parts) > 1 for parts in self.micro)

    def weight(self, rows: Sequence[int]) -> float:
        """Return the number of these rows, or the sum of their weights."""
        return float(len(rows)) if self.data.weights is None else float(np.sum(self.data.weights[list(rows)]))

    @property
    def weights(self) -> Floats:
        """What each shard weighs, by rank."""
        return np.array([self.weight(self.rows(rank)) for rank in range(len(self))])

    def sizes(self) -> str:
        """Return in words how large the shards are."""
        sizes = [len(self.rows(rank)) for rank in range(len(self))]
        if len(set(sizes)) == 1:
            return f"{sizes[0]} row{'s' * (sizes[0] != 1)} each"
        return f"{', '.join(map(str, sizes[:-1]))} and {sizes[-1]} rows"


def _micro_batches(who: str, given: Any, n: int) -> tuple[tuple[int, ...], ...]:
    """Return a rank's rows, by micro-batch: `[0, 1]`, a slice, a range, or a list of such."""
    nested = (
        isinstance(given, list | tuple) and given and not all(np.ndim(each) == 0 and _is_row(each) for each in given)
    )
    parts = tuple(_rows(who, each, n) for each in (given if nested else [given]))
    if not all(parts):
        raise ValueError(f"{who} has no rows, or an empty micro-batch: leave it out")
    return parts


def _is_row(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)


def _rows(who: str, given: Any, n: int) -> tuple[int, ...]:
    if isinstance(given, slice):
        return tuple(range(n)[given])
    rows = list(given) if isinstance(given, list | tuple | range | np.ndarray) else [given]
    for row in rows:
        if not _is_row(row):
            raise ValueError(f"{who} has {row!r}, which is no row; rows are whole numbers, slices or ranges")
        if not 0 <= row < n:
            raise ValueError(f"{who} has row {row}, and the data have the rows 0 to {n - 1}")
    return tuple(int(row) for row in rows)
