"""Rows in .npy files, mapped a window at a time: nothing is copied, and memory stays flat."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.data.blocks import Arrays

WINDOW = 2**24
"""Bytes that are mapped at a time: a smaller window is mapped more often, a larger one holds more memory."""


def identity_of(path: Path) -> str:
    """Return what tells a file from others without reading it: its place, size and time of change."""
    about = path.stat()
    return f"{path.resolve()} of {about.st_size} bytes, changed {about.st_mtime_ns}"


class _Window(NamedTuple):
    begin: int
    end: int
    numbers: mmap.mmap
    """Bytes `begin` to before `end` of the file; unmapped when no array looks into it any more."""


@final
class NpyFile:
    """The rows of an array that `numpy.save` has written: real numbers, (n,) or (n, d), row after row.

    What it gives looks into the file; the operating system reads it, and forgets it when no array is left that does.
    A process that takes it over by pickle opens the file for itself.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "x.npy"), np.arange(6.0).reshape(3, 2))
    ...     NpyFile(Path(folder, "x.npy")).read(1, 2).tolist()
    [[2.0, 3.0]]
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise LookupError(f"there is no file {str(path)!r}")
        self.path = path
        self.shape, self.dtype, self._begin = _header(path)
        self._row = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        self._size = self._begin + self.shape[0] * self._row
        self._descriptor: int | None = None
        self._window: _Window | None = None
        self._expected = 0
        with path.open("rb") as file:
            self._check_size(os.fstat(file.fileno()).st_size)

    def read(self, begin: int, end: int) -> NDArray[Any]:
        """Return the rows from `begin` to before `end`, which cannot be written to."""
        first, last = self._begin + begin * self._row, self._begin + end * self._row
        window = self._window
        if window is None or not window.begin <= first <= last <= window.end:
            window = self._window = self._mapped(first, last)
        else:
            self._check_size(os.fstat(self._opened()).st_size)
        self._expected = last
        rows = np.frombuffer(window.numbers, self.dtype, (last - first) // self.dtype.itemsize, first - window.begin)
        return rows.reshape(end - begin, *self.shape[1:])

    def _mapped(self, first: int, last: int) -> _Window:
        """Return a window that begins with these bytes; where they follow what was read last, it is fetched ahead."""
        descriptor = self._opened()
        self._check_size(os.fstat(descriptor).st_size)
        begin = first - first % mmap.ALLOCATIONGRANULARITY
        end = min(max(last, begin + WINDOW), self._size)
        numbers = mmap.mmap(descriptor, end - begin, access=mmap.ACCESS_READ, offset=begin)
        if first == self._expected and hasattr(mmap, "MADV_WILLNEED"):
            numbers.madvise(mmap.MADV_WILLNEED)
        return _Window(begin, end, numbers)

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY)
        return self._descriptor

    def _check_size(self, size: int) -> None:
        """Refuse a file that ends too soon: to look beyond its end would end the process."""
        if size < self._size:
            has = max(0, size - self._begin) // self._row if self._row else 0
            raise ValueError(
                f"{self.path.name!r} is cut short: of the {self.shape[0]} rows that its header promises it has {has}; "
                "copy or write it anew"
            )

    def __getstate__(self) -> dict[str, Any]:
        elsewhere = {"path": self.path.absolute()}  # another process may be in another folder
        return self.__dict__ | {"_descriptor": None, "_window": None, "_expected": 0} | elsewhere

    def __del__(self) -> None:
        if self.__dict__.get("_descriptor") is not None:
            os.close(self.__dict__["_descriptor"])


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, type and where the numbers begin; a ValueError that says why the file will not do."""
    formats = np.lib.format
    with path.open("rb") as file:
        try:
            version = formats.read_magic(file)
            read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
            shape, by_columns, dtype = read(file)
        except Exception as error:  # whatever a damaged file makes of NumPy
            raise ValueError(f"{path.name!r} is not a .npy file: {error}") from None
        begin = file.tell()
    if dtype.kind not in "biuf":
        raise ValueError(f"{path.name!r} has type {dtype}; it must hold real numbers")
    if len(shape) not in (1, 2):
        raise ValueError(f"{path.name!r} has shape {shape}; it must be (n,) or (n, d)")
    if by_columns and len(shape) == 2 and 1 not in shape:
        raise ValueError(
            f"{path.name!r} is stored column by column, so that no block of rows can be read by itself: "
            "write it anew, numpy.save(path, numpy.ascontiguousarray(array))"
        )
    return shape, dtype, begin


@final
class NpyFiles:
    """Features, targets and weights, each in a .npy file.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     x, y = Path(folder, "x.npy"), Path(folder, "y.npy")
    ...     np.save(x, [[1.0], [2.0], [3.0]])
    ...     np.save(y, [4.0, 5.0, 6.0])
    ...     NpyFiles(x, y).read(1, 3)[1].tolist()
    [5.0, 6.0]
    """

    def __init__(self, features: Path, targets: Path, weights: Path | None = None) -> None:
        self._files = [NpyFile(each) for each in (features, targets, weights) if each is not None]
        lengths = {str(each.path): each.shape[0] for each in self._files}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{length} in {Path(path).name!r}" for path, length in lengths.items())
            raise ValueError(f"the files differ in their number of rows: {said}")
        self.rows: int = self._files[0].shape[0]

    def read(self, begin: int, end: int) -> Arrays:
        """Return the rows from `begin` to before `end`."""
        features, targets, *weights = (each.read(begin, end) for each in self._files)
        return features, targets, weights[0] if weights else None

    def identity(self) -> str:
        """Return places, sizes and times of change."""
        return "; ".join(identity_of(each.path) for each in self._files)


@final
class NpyTable:
    """A .npy file (n, columns), one column of which holds the targets, and another, if it is named, the weights.

    Columns count from 0, or from -1 backwards, as in NumPy.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     table = Path(folder, "table.npy")
    ...     np.save(table, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    ...     [each.tolist() for each in NpyTable(table, target=-1).read(0, 2)[:2]]
    [[[1.0, 2.0], [4.0, 5.0]], [3.0, 6.0]]
    """

    def __init__(self, path: Path, target: int, weights: int | None = None) -> None:
        self._file = NpyFile(path)
        if len(self._file.shape) != 2:
            raise ValueError(
                f"{path.name!r} has shape {self._file.shape} and no columns: its targets are another .npy file's"
            )
        width = self._file.shape[1]
        chosen = [each for each in (target, weights) if each is not None]
        for column in chosen:
            if not -width <= column < width:
                raise LookupError(f"{path.name!r} has no column {column}: they count from 0 to {width - 1}")
        self._chosen = [column % width for column in chosen]
        if len(set(self._chosen)) < len(chosen):
            raise LookupError(f"column {target} of {path.name!r} holds targets or weights, not both")
        self._others = np.setdiff1d(np.arange(width), self._chosen)
        if not len(self._others):
            raise ValueError(f"{path.name!r} holds nothing but column {target}, the targets; features are needed too")
        self.rows = self._file.shape[0]

    def read(self, begin: int, end: int) -> Arrays:
        """Return the rows from `begin` to before `end`."""
        table = self._file.read(begin, end)
        target, *weights = (np.ascontiguousarray(table[:, column]) for column in self._chosen)
        return np.take(table, self._others, axis=1), target, weights[0] if weights else None

    def identity(self) -> str:
        """Return place, size, time of change, and which columns are which."""
        return f"{identity_of(self._file.path)}; {self._chosen}"
