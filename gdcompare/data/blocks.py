"""Data in blocks of rows: read when they are asked for, so that they need not fit the memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.problem import Dataset
from gdcompare.table import count

ROWS = 4096
"""Rows in a block: some hundred kilobytes, which stay in a processor's cache while they are worked on."""

Arrays: TypeAlias = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]
"""Features (b, d), targets (b,) or (b, k), and weights (b,) if there are any."""


class Source(Protocol):
    """Where rows come from. It can be sent to another process, which then reads by itself."""

    @property
    def rows(self) -> int:
        """How many there are."""

    def read(self, begin: int, end: int) -> Arrays:
        """Return the rows from `begin` to before `end`, in any type of real numbers; what it returns is not changed.

        It is quick where one reading begins at the end of the one before.
        """

    def identity(self) -> str:
        """Return what tells these rows from others, without reading all of them where that can be avoided."""


@final
class Blocks:
    """Rows in blocks of a fixed size; the last may be shorter.

    The size belongs to the data: sums over all rows add up blocks in a fixed order, and are the same, to the last bit,
    whoever works out which block.

    >>> data = Blocks(InMemory([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0]), name="a line", rows=2)
    >>> data, data.count
    (Blocks('a line', 3 rows in 2 blocks of 2, 1 feature), 2)
    >>> data.block(1).features.tolist()
    [[2.0]]
    """

    def __init__(self, source: Source, name: str = "data", rows: int = ROWS) -> None:
        if isinstance(rows, bool) or not isinstance(rows, int | np.integer) or rows < 1:
            raise ValueError(f"rows of a block must be a whole number, 1 or above, not {rows!r}")
        if source.rows < 1:
            raise ValueError(f"{name!r} has no rows")
        self.source, self.name, self.rows = source, name, int(rows)
        self._checked = np.zeros(self.count, dtype=bool)
        self._form = _form(self.first)

    @cached_property
    def first(self) -> Dataset:
        """The first block."""
        return self.block(0)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs, which reads, and checks, by itself."""
        return {name: self.__dict__[name] for name in ("source", "name", "rows", "_form")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._checked = np.zeros(self.count, dtype=bool)

    def __len__(self) -> int:
        return self.source.rows

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return -(-len(self) // self.rows)

    @property
    def weighted(self) -> bool:
        """Whether the rows have weights."""
        return self._form[2]

    def bounds(self, index: int) -> tuple[int, int]:
        """Return the first row of a block, and the one after its last."""
        return index * self.rows, min((index + 1) * self.rows, len(self))

    def arrays(self, index: int) -> Arrays:
        """Return a block as it comes from its source; when it is read for the first time, it is checked."""
        begin, end = self.bounds(index)
        if not self._checked[index]:
            block = self.block(index)
            return block.features, block.targets, block.weights
        features, targets, weights = self.source.read(begin, end)
        return features if features.ndim == 2 else features[:, None], targets, weights

    def block(self, index: int) -> Dataset:
        """Return a block, in float64, as `Dataset` checks it; errors name its place."""
        begin, end = self.bounds(index)
        features, targets, weights = self.source.read(begin, end)
        name = self.name if self.count == 1 else f"{self.name} from row {begin} on"
        nothing = weights is not None and not np.any(weights)  # as a block may count for, and all of them may not
        try:
            block = Dataset(features, targets, name, np.ones(len(targets)) if nothing else weights)
        except ValueError as error:
            raise ValueError(f"{error} (rows of {self.name!r} from row {begin} on)") from None
        if index and (form := _form(block)) != self._form:
            raise ValueError(
                f"{self.name!r} from row {begin} on has rows of another form, {form}, than before, {self._form}"
            )
        if nothing:
            object.__setattr__(block, "weights", np.zeros(len(block)))
        self._checked[index] = True
        return block

    def take(self, rows: NDArray[np.intp]) -> Arrays:
        """Return these rows, by their numbers, in this order; each block that has any is read once."""
        taken: list[NDArray[Any]] = []
        for index in np.unique(rows // self.rows):
            here = rows // self.rows == index
            columns = [each for each in self.arrays(int(index)) if each is not None]
            if not taken:
                taken = [np.empty((len(rows), *each.shape[1:]), dtype=np.float64) for each in columns]
            for whole, each in zip(taken, columns, strict=True):
                whole[here] = each[rows[here] - index * self.rows]
        features, targets, *weights = taken
        return features, targets, weights[0] if weights else None

    def __iter__(self) -> Iterator[Dataset]:
        return map(self.block, range(self.count))

    def identity(self) -> str:
        """Return what tells these data from others: their source, and the size of their blocks."""
        return f"{self.source.identity()}, {len(self)} rows in blocks of {self.rows}"

    def __repr__(self) -> str:
        blocks = f"{count(self.count, 'block')} of {self.rows}"
        weighted = ", weighted" if self.weighted else ""
        features = count(self._form[0][0], "feature")
        return f"Blocks({self.name!r}, {count(len(self), 'row')} in {blocks}, {features}{weighted})"


def _form(block: Dataset) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Return what all blocks have in common: the shape of a row of features and of targets, and having weights."""
    return block.features.shape[1:], block.targets.shape[1:], block.weights is not None


@final
class InMemory:
    """Arrays, or anything of their shape of which rows can be cut and made arrays.

    >>> source = InMemory([[1.0], [2.0]], [3.0, 4.0])
    >>> source.rows, source.read(1, 2)[1].tolist()
    (2, [4.0])
    """

    def __init__(self, features: Any, targets: Any, weights: Any = None) -> None:
        def sliced(values: ArrayLike) -> Any:
            return values if hasattr(values, "shape") else np.asarray(values)

        self.features, self.targets = sliced(features), sliced(targets)
        self.weights = None if weights is None else sliced(weights)
        for each in (self.features, self.targets, self.weights):
            if each is not None and not each.shape:
                raise ValueError(f"features, targets and weights are arrays, a row for each sample, not {each!r}")
        lengths = {len(each) for each in (self.features, self.targets, self.weights) if each is not None}
        if len(lengths) > 1:
            raise ValueError(f"features, targets and weights differ in their number of rows: {sorted(lengths)}")

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.features)

    def read(self, begin: int, end: int) -> Arrays:
        """Return the rows from `begin` to before `end`."""
        parts = (
            None if each is None else np.asarray(each[begin:end])
            for each in (self.features, self.targets, self.weights)
        )
        features, targets, weights = parts
        assert features is not None
        assert targets is not None
        return features, targets, weights

    def identity(self) -> str:
        """Return a digest of all numbers, but for arrays that lie in files: place, size, and time of change."""
        return "; ".join(_identity(each) for each in (self.features, self.targets, self.weights) if each is not None)


def _identity(values: Any) -> str:
    place = getattr(values, "filename", None) or getattr(getattr(values, "file", None), "filename", None)
    if isinstance(place, str | os.PathLike) and Path(place).is_file():  # as of numpy.memmap and of h5py
        about = Path(place).stat()
        within = getattr(values, "name", None) or getattr(values, "offset", 0)
        ends = _digest((values[:1], values[-1:]))  # what is cut of a file's array does not say where
        form = f"{within}, {values.dtype}, {values.shape}, {ends}"
        return f"{Path(place).resolve()} of {about.st_size} bytes, changed {about.st_mtime_ns}: {form}"
    return _digest(values[begin : begin + ROWS] for begin in range(0, len(values), ROWS))


def _digest(pieces: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for each in pieces:
        rows = np.ascontiguousarray(each)
        digest.update(f"{rows.dtype}{rows.shape}".encode())
        digest.update(rows.data)
    return digest.hexdigest()
