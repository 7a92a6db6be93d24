"""What each rank holds of a gradient: whole arrays, or pieces of them, checked and laid side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.referee.due import as_array
from gdcompare.table import count
from gdcompare.words import did_you_mean

Floats: TypeAlias = NDArray[np.float64]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


@final
@dataclass(frozen=True, eq=False, repr=False)
class Piece:
    """A part of an array: its values, and the index of the whole at which they begin.

    >>> piece = Piece(np.array([3.0, 4.0]), (2,))
    >>> piece.region
    (slice(2, 4, None),)
    """

    values: Any
    """An array."""
    start: tuple[int, ...]
    """An index for each axis."""

    @property
    def region(self) -> tuple[slice, ...]:
        """Where the whole has these values."""
        return tuple(slice(a, a + size) for a, size in zip(self.start, np.shape(self.values), strict=True))

    def __repr__(self) -> str:
        return f"Piece({np.shape(self.values)} at {tuple(self.start)})"


@final
@dataclass(frozen=True, eq=False)
class Holding:
    """The gradients that the ranks hold: `{name: pieces}` of each rank, of parameters of these shapes."""

    ranks: Sequence[Mapping[str, Sequence[Piece]]]
    shapes: Shapes

    @cached_property
    def alike(self) -> bool:
        """Whether all ranks hold the same pieces with the same bits."""
        first, *others = (
            [(each.start, each.values) for pieces in rank.values() for each in pieces] for rank in self.ranks
        )
        return all(
            len(first) == len(other)
            and all(
                a[0] == b[0] and np.array_equal(a[1], b[1], equal_nan=True) for a, b in zip(first, other, strict=True)
            )
            for other in others
        )

    def whole(self, rank: int) -> dict[str, NDArray[Any]]:
        """Return the arrays that a rank holds as a whole."""
        return {name: pieces[0].values for name, pieces in self.ranks[rank].items() if self._is_whole(name, pieces)}

    def _is_whole(self, name: str, pieces: Sequence[Piece]) -> bool:
        return len(pieces) == 1 and pieces[0].values.shape == self.shapes[name]

    def numbers(self, rank: int, names: Sequence[str]) -> Floats:
        """Return what a rank holds of these parameters, in a row in float64; NaN is what it does not hold.

        What is held as NaN is infinity here: no gradient is either.
        """
        flat = []
        for name in names:
            array = np.full(self.shapes[name], np.nan)
            for piece in self.ranks[rank][name]:
                array[piece.region] = np.where(np.isnan(piece.values), np.inf, piece.values)
            flat.append(array.ravel())
        return np.concatenate(flat)


def holding(what: str, given: Any, count_of_ranks: int, shapes: Shapes, dtype: str) -> Holding:
    """Return what the ranks hold, or raise a ValueError that names the rank at fault.

    `given` is `{name: gradient}` of all ranks at once, or a list of such, or `{rank: such}`; a gradient is an array of
    the parameter's shape, a `Piece` of it, or a list of pieces.

    >>> shapes = {"w": (2,), "b": ()}
    >>> holding("reduced", {"w": np.zeros(2), "b": 0.0}, 2, shapes, "float64").alike
    True
    >>> holding("local", {0: {"w": np.zeros(2), "b": 0.0}}, 2, shapes, "float64")
    Traceback (most recent call last):
    ...
    ValueError: local: nothing is given of rank 1; there are 2 shards, one for each of the ranks 0 to 1
    """
    by_rank = _by_rank(what, given, count_of_ranks)
    ranks = [_of_rank(f"{what}: rank {rank}", by_rank[rank], shapes, dtype) for rank in range(count_of_ranks)]
    for name, shape in shapes.items():
        covered = np.zeros(shape, dtype=bool)
        for rank in ranks:
            for piece in rank[name]:
                covered[piece.region] = True
        if not covered.all():
            where = [int(i) for i in np.argwhere(~covered)[0]]
            raise ValueError(f"{what}: no rank holds element {where} of {name!r}: a rank's piece is missing")
    return Holding(ranks, shapes)


def _by_rank(what: str, given: Any, ranks: int) -> dict[int, Any]:
    if isinstance(given, Mapping) and given and all(isinstance(key, str) for key in given):
        return dict.fromkeys(range(ranks), given)
    if isinstance(given, Mapping):
        found = dict(given)
    elif isinstance(given, Sequence) and not isinstance(given, str):
        found = dict(enumerate(given))
    else:
        raise TypeError(
            f"{what} is {{name: gradient}}, or such of each rank, {{rank: {{...}}}}, not {type(given).__name__}"
        )
    there = f"there are {count(ranks, 'shard')}, one for each of the ranks 0 to {ranks - 1}"
    if missing := [str(rank) for rank in range(ranks) if rank not in found]:
        raise ValueError(f"{what}: nothing is given of rank{'s' * (len(missing) > 1)} {', '.join(missing)}; {there}")
    if unknown := [key for key in found if key not in range(ranks)]:
        raise ValueError(f"{what}: {unknown[0]!r} is no rank; {there}")
    return found


def _of_rank(who: str, given: Any, shapes: Shapes, dtype: str) -> dict[str, list[Piece]]:
    if not isinstance(given, Mapping):
        raise TypeError(f"{who} gives {type(given).__name__}, where {{name: gradient}} is due")
    has = f"the parameters are {', '.join(shapes)}"
    if unknown := [name for name in given if name not in shapes]:
        raise ValueError(
            f"{who} gives a gradient of {unknown[0]!r}, which is no parameter; {has}"
            f"{did_you_mean(str(unknown[0]), shapes)}"
        )
    if missing := [name for name in shapes if name not in given or given[name] is None]:
        raise ValueError(f"{who} gives no gradient of {missing[0]!r}; {has}. If it is not used there, give zeros")
    return {name: _pieces(who, name, given[name], shape, dtype) for name, shape in shapes.items()}


def _pieces(who: str, name: str, given: Any, shape: tuple[int, ...], dtype: str) -> list[Piece]:
    several = isinstance(given, Piece) or (isinstance(given, list) and all(isinstance(each, Piece) for each in given))
    pieces = [given] if isinstance(given, Piece) else given if several else [Piece(given, (0,) * len(shape))]
    found = []
    for each in pieces:
        values = as_array(each.values, dtype)
        if values.dtype != np.dtype(dtype):
            raise ValueError(
                f"{who} gives {name!r} in {values.dtype}, and {dtype} is to be judged: "
                f"dtype={str(values.dtype)!r}, if all ranks have that"
            )
        if not several and values.shape != shape:
            raise ValueError(f"{who} gives {name!r} in shape {values.shape}; the parameter has {shape}")
        piece = Piece(values, tuple(map(int, each.start)))
        fits = len(piece.start) == values.ndim == len(shape)
        if not fits or any(part.start < 0 or part.stop > size for part, size in zip(piece.region, shape, strict=True)):
            raise ValueError(
                f"{who} gives a piece {values.shape} of {name!r} at {piece.start}, beyond its shape {shape}"
            )
        if values.size:
            found.append(piece)
    return found
