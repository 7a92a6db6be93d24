"""What a worker needs to know, as bytes: problem, backend and blocks, so that they arrive where no file of ours lies.

A backend goes by its name, dtype and device, and is loaded there. What comes from a file of somebody's own goes with
its source, by value; what is installed goes by its name. Rows in this process's memory stay behind: they are asked for.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Backend
from gdcompare.data.blocks import Arrays, Blocks, InMemory
from gdcompare.data.classes import InColumn, OneHot
from gdcompare.data.extras import optional
from gdcompare.own_files import is_own
from gdcompare.problem import Problem
from gdcompare.registry import load_backend
from gdcompare.scale.shares import Ranges, joined

LARGE = 1 << 24
"""Bytes of a source from which on it has the rows in it, whatever it is, and stays behind."""


class Unpacked(NamedTuple):
    """What was sent."""

    problem: Problem
    backend: Backend[Any]
    blocks: Blocks


def packed(problem: Problem, backend: Backend[Any], blocks: Blocks) -> bytes:
    """Return them as bytes; a ValueError that says what cannot be sent.

    >>> from gdcompare.registry import as_backend, as_problem
    >>> rows = Blocks(InMemory([[1.0], [3.0]], [2.0, 4.0]), rows=1)
    >>> sent = unpacked(packed(as_problem("linear-regression"), as_backend("numpy"), rows))
    >>> sent.problem, sent.backend, sent.blocks
    (LinearRegression(), NumpyBackend(dtype='float64', device=None), Blocks('data', 2 rows in 2 blocks of 1, 1 feature))
    """
    data = f"the data {blocks.name!r}"
    rowless = copy.copy(blocks)
    rowless.source = Pieces(len(blocks))
    parts = {
        "the problem": problem,
        "the backend": _by_name(backend),
        data: rowless if stays(blocks) else blocks,
    }
    with _own_modules_by_value() as pickler:
        sent = [_dumped(pickler, what, part) for what, part in parts.items()]
        if len(sent[-1]) > LARGE:
            sent[-1] = _dumped(pickler, data, rowless)
        return pickler.dumps(sent)  # type: ignore[no-any-return]


def _dumped(pickler: Any, what: str, part: Any) -> bytes:
    try:
        return pickler.dumps(part)  # type: ignore[no-any-return]
    except Exception as error:  # whatever somebody's own classes raise
        raise ValueError(f"{what} cannot be sent to workers: {error}") from error


def unpacked(parcel: bytes) -> Unpacked:
    """Return what was packed; a ValueError where something that it needs is not installed here."""
    pickler = optional("cloudpickle", "dask", "computing as a worker", "dask")
    try:
        problem, backend, blocks = (pickler.loads(each) for each in pickler.loads(parcel))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"what was sent needs something that is not installed there: {error}") from error
    return Unpacked(problem, load_backend(**backend) if isinstance(backend, dict) else backend, blocks)


def stays(blocks: Blocks) -> bool:
    """Whether the rows lie in the memory of this process, and are sent piece by piece to who asks."""
    source = blocks.source
    while isinstance(source, OneHot | InColumn):
        source = source.source
    return isinstance(source, InMemory)


def _by_name(backend: Backend[Any]) -> dict[str, Any] | Backend[Any]:
    """Return what `load_backend` makes this backend of, elsewhere; itself, if it is none of those that have a name."""
    named: dict[str, Any] = {"name": backend.name, "dtype": backend.dtype, "device": getattr(backend, "device", None)}
    try:
        return named if load_backend(**named) == backend else backend
    except (LookupError, ValueError, ImportError, TypeError):
        return backend


@contextmanager
def _own_modules_by_value() -> Iterator[Any]:
    """Give cloudpickle, which takes what is from files of somebody's own apart rather than say where they lie."""
    pickler = optional("cloudpickle", "dask", "sending work to processes", "dask")
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if is_own(name) and module.__name__ not in pickler.list_registry_pickle_by_value():
                pickler.register_pickle_by_value(module)
                stack.callback(pickler.unregister_pickle_by_value, module)
        yield pickler


@final
class Pieces:
    """Rows that were sent here, of all those of a process elsewhere: a `Source` of what there is.

    >>> pieces = Pieces(4)
    >>> pieces.put(2, (np.array([[5.0], [6.0]]), np.array([0.0, 1.0]), None))
    >>> pieces.lacking(((1, 4),)), pieces.read(3, 4)[0].tolist()
    (((1, 2),), [[6.0]])
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._pieces: dict[int, Arrays] = {}

    def put(self, begin: int, arrays: Arrays) -> None:
        """Take up rows, the first of which has that number."""
        self._pieces[begin] = arrays

    def keep(self, rows: Ranges) -> None:
        """Forget pieces that have none of these rows."""
        self._pieces = {
            begin: arrays
            for begin, arrays in self._pieces.items()
            if any(begin < last and first < begin + len(arrays[1]) for first, last in rows)
        }

    def lacking(self, rows: Ranges) -> Ranges:
        """Return those that are not here."""
        here = joined((begin, begin + len(arrays[1])) for begin, arrays in self._pieces.items())
        gaps = []
        for begin, end in rows:
            for first, last in here:
                if begin < first < end:
                    gaps.append((begin, first))
                if first < end and begin < last:
                    begin = last
            if begin < end:
                gaps.append((begin, end))
        return tuple(gaps)

    def read(self, begin: int, end: int) -> Arrays:
        """Return the rows from `begin` to before `end`."""
        for first, arrays in self._pieces.items():
            if first <= begin and end <= first + len(arrays[1]):
                features, targets, weights = (_rows(each, begin - first, end - first) for each in arrays)
                assert features is not None
                assert targets is not None
                return features, targets, weights
        raise ValueError(f"rows {begin} to {end - 1} were not sent here")

    def identity(self) -> str:
        """Return what tells these rows from others: nothing does, here."""
        return f"rows of another process, {self.rows}"


def _rows(array: NDArray[Any] | None, begin: int, end: int) -> NDArray[Any] | None:
    return None if array is None else array[begin:end]


def in_pieces(blocks: Blocks, rows: Ranges, size: int) -> Iterator[tuple[int, Arrays]]:
    """Yield these rows, as blocks have them, some whole blocks of at most so many bytes at a time, or one."""
    first = blocks.first
    of_a_row = sum(each.nbytes for each in (first.features, first.targets, first.weights) if each is not None)
    many = max(1, int(size * len(first) / max(1, of_a_row)) // blocks.rows) * blocks.rows
    for begin, end in rows:
        for start in range(begin, end, many):
            arrays = blocks.source.read(start, min(start + many, end))
            yield start, tuple(None if each is None else np.ascontiguousarray(each) for each in arrays)  # type: ignore[misc]
