"""Targets as a problem wants them, block by block: one-hot, or in a column."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from gdcompare.data.blocks import Arrays, Blocks, Source
from gdcompare.progress import progress_bar

_MOST_CLASSES = 100_000


def counted_classes(data: Blocks) -> int:
    """Return how many classes targets number, 0 to k - 1, none left out; all blocks are read for it.

    Raises ValueError, naming the row, unless they are (n,) and do.

    >>> from gdcompare.data.blocks import InMemory
    >>> counted_classes(Blocks(InMemory(np.zeros((3, 1)), [2, 0, 1]), rows=2))
    3
    """
    first_row: dict[float, int] = {}
    with progress_bar(len(data), None, "counting classes", "rows") as advance:
        for index in range(data.count):
            targets = np.asarray(data.arrays(index)[1])
            found, rows = np.unique(targets, return_index=True)
            for value, row in zip(found.tolist(), rows.tolist(), strict=True):
                first_row.setdefault(float(value), data.bounds(index)[0] + row)
            if len(first_row) > _MOST_CLASSES:
                raise ValueError(
                    f"the targets of {data.name!r} have more than {_MOST_CLASSES} values: they are no classes"
                )
            advance(len(targets))
    for number, value in enumerate(sorted(first_row)):
        if value != number:
            raise ValueError(
                f"classes must be numbered 0, 1, 2, ..., none left out, but in row {first_row[value]} of {data.name!r} "
                f"{value:g} stands for class {number}"
            )
    return len(first_row)


@final
class OneHot:
    """Targets that number k classes, 0 to k - 1, as (n, k): 1 in the column of the class.

    >>> from gdcompare.data.blocks import InMemory
    >>> OneHot(InMemory([[5.0], [6.0]], [1, 0]), 2).read(0, 1)[1].tolist()
    [[0.0, 1.0]]
    """

    def __init__(self, source: Source, classes: int) -> None:
        self.source, self._classes = source, classes

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.source.rows

    def read(self, begin: int, end: int) -> Arrays:
        """Return the rows from `begin` to before `end`."""
        features, targets, weights = self.source.read(begin, end)
        classes = np.asarray(targets)
        number = self._numbers(classes)
        wrong = np.flatnonzero(number != classes)
        if len(wrong):
            raise ValueError(
                f"target {classes[wrong[0]]:g} in row {begin + wrong[0]} is none of the classes 0 to "
                f"{self._classes - 1}"
            )
        return features, np.eye(self._classes)[number], weights

    def _numbers(self, classes: NDArray[np.generic]) -> NDArray[np.intp]:
        """Return the nearest class to each target: another number unless it is one."""
        return np.clip(np.nan_to_num(classes.astype(np.float64)), 0, self._classes - 1).astype(np.intp)

    def identity(self) -> str:
        """Return that of the rows, and how many classes there are."""
        return f"{self.source.identity()}, {self._classes} classes"


@final
class InColumn:
    """Targets (n,) as (n, 1).

    >>> from gdcompare.data.blocks import InMemory
    >>> InColumn(InMemory([[5.0], [6.0]], [1, 0])).read(0, 1)[1].tolist()
    [[1]]
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.source.rows

    def read(self, begin: int, end: int) -> Arrays:
        """Return the rows from `begin` to before `end`."""
        features, targets, weights = self.source.read(begin, end)
        return features, np.asarray(targets)[:, None], weights

    def identity(self) -> str:
        """Return that of the rows."""
        return self.source.identity()
