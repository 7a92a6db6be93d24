"""Rows that come in pieces of any sizes, one after the other: blocks are put together of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from threading import Lock
from typing import Any

import numpy as np

from gdcompare.data.blocks import Arrays


class InParts(ABC):
    """A source of rows in parts of known lengths, any of which reading may begin with.

    A reading that goes on where the one before ended takes up what that left over of its last piece. One that jumps
    begins with the part that has its first row.
    """

    def __init__(self, lengths: Sequence[int], of: str) -> None:
        self._ends = list(accumulate(lengths))
        self._of = of
        self.rows = self._ends[-1] if self._ends else 0
        self._begin_again()

    def _begin_again(self) -> None:
        self._pieces: Iterator[Arrays] | None = None
        self._held: Arrays | None = None
        self._at = 0
        """The row that `_held` begins with, or, without it, the next piece."""
        self._one_at_a_time = Lock()

    @abstractmethod
    def pieces(self, part: int, rows: int) -> Iterator[Arrays]:
        """Yield all rows from the beginning of a part on, piece by piece; pieces of so many rows suit best."""

    @abstractmethod
    def identity(self) -> str:
        """Return what tells these rows from others."""

    def read(self, begin: int, end: int) -> Arrays:
        """Return the rows from `begin` to before `end`."""
        found: list[Arrays] = []
        with self._one_at_a_time:
            row = begin
            while row < end:
                piece = self._piece_with(row, end - begin)
                offset = row - self._at
                taken = min(len(piece[1]) - offset, end - row)
                found.append(_cut(piece, offset, offset + taken))
                row += taken
        if len(found) == 1:
            return found[0]
        features, targets, weights = zip(*found, strict=True)
        if len({each.shape[1:] for each in features}) > 1 or len({each is None for each in weights}) > 1:
            shapes = [each.shape for each in features]
            raise ValueError(f"{self._of} differ in their columns, or in having weights, from row {begin} on: {shapes}")
        return (
            np.concatenate(features),
            np.concatenate(targets),
            None if weights[0] is None else np.concatenate(weights),
        )

    def _piece_with(self, row: int, rows: int) -> Arrays:
        part = bisect_right(self._ends, row)
        first = self._ends[part - 1] if part else 0
        if self._pieces is None or not (self._at <= row and first <= self._next):
            self._pieces, self._held, self._at = self.pieces(part, rows), None, first
        try:
            while self._held is None or row >= self._next:
                self._held, self._at = None, self._next
                self._held = next(self._pieces)
        except StopIteration:
            self._pieces = None
            raise ValueError(f"{self._of} end at row {self._at}: when counted, there were {self.rows}") from None
        except BaseException:  # a generator that has raised once would now end
            self._pieces = None
            raise
        return self._held

    @property
    def _next(self) -> int:
        """The row that the next piece begins with."""
        return self._at + (0 if self._held is None else len(self._held[1]))

    def __getstate__(self) -> dict[str, Any]:
        here = ("_pieces", "_held", "_at", "_one_at_a_time")
        return {name: value for name, value in self.__dict__.items() if name not in here}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_again()


def _cut(piece: Arrays, begin: int, end: int) -> Arrays:
    features, targets, weights = piece
    return features[begin:end], targets[begin:end], None if weights is None else weights[begin:end]
