"""Rows of Dask's arrays and dataframes, computed chunk by chunk when they are asked for."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np

from gdcompare.data.blocks import Arrays
from gdcompare.data.extras import optional
from gdcompare.data.parts import InParts
from gdcompare.data.tables import chosen_columns, parted
from gdcompare.progress import said_if_long


def is_lazy(found: Any) -> bool:
    """Whether it is one of Dask's collections, whose numbers are not there yet."""
    return callable(getattr(found, "__dask_graph__", None))


@final
class DaskArrays(InParts):
    """Features (n, d), targets (n,) or (n, k), and weights (n,), cut as the features are into chunks of rows.

    Lengths of chunks that nobody knows are counted first. Arrays beside Dask's are cut likewise.
    """

    def __init__(self, features: Any, targets: Any, weights: Any, name: str) -> None:
        array = optional("dask.array", "dask", "reading Dask arrays", "dask")
        given = {"features": features, "targets": targets, "weights": weights}
        arrays = {what: _counted(each, f"{what} of {name}") for what, each in given.items() if each is not None}
        rows = {what: each.shape[0] for what, each in arrays.items()}
        if len(set(rows.values())) > 1:
            raise ValueError(
                f"features, targets and weights differ in their number of rows: {sorted(set(rows.values()))}"
            )
        first = next(each for each in arrays.values() if is_lazy(each))
        lengths = tuple(length for length in map(int, first.chunks[0]) if length)
        whole = [each if is_lazy(each) else array.from_array(np.asarray(each)) for each in arrays.values()]
        self._arrays = [each.rechunk({0: lengths, **dict.fromkeys(range(1, each.ndim), -1)}) for each in whole]
        self._number = len(lengths)
        self._identity = "; ".join(each.name for each in whole)
        super().__init__(lengths, f"the chunks of {name!r}")

    def pieces(self, part: int, rows: int) -> Iterator[Arrays]:  # noqa: ARG002 - a chunk is one piece
        """Yield chunk after chunk."""
        for index in range(part, self._number):
            features, targets, *weights = _computed(*(each.blocks[index] for each in self._arrays))
            yield features, targets, weights[0] if weights else None

    def identity(self) -> str:
        """Return Dask's names: equal graphs over equal inputs have the same."""
        return self._identity


@final
class DaskFrame(InParts):
    """The rows of a dataframe, one column of which holds the targets; its partitions are counted first."""

    def __init__(self, frame: Any, target: str | None, weights: str | None, name: str) -> None:
        self._frame, self._name = frame, name
        self._chosen = chosen_columns(Path(name), [str(each) for each in frame.columns], target, weights)
        for column, kind in frame.dtypes.items():
            if getattr(kind, "kind", "O") not in "biuf":
                raise ValueError(
                    f"{name!r} holds {kind} in column {column!r}; every cell must be a finite number: encode it, or "
                    "drop the column"
                )
        with said_if_long(f"counting the rows of {name}"):
            counted = [int(each) for each in _computed(frame.map_partitions(len))[0]]
        self._kept = [index for index, length in enumerate(counted) if length]
        super().__init__([counted[index] for index in self._kept], f"the partitions of {name!r}")

    def pieces(self, part: int, rows: int) -> Iterator[Arrays]:  # noqa: ARG002 - a partition is one piece
        """Yield partition after partition."""
        for index in self._kept[part:]:
            (found,) = _computed(self._frame.partitions[index])
            try:
                matrix = np.ascontiguousarray(found.to_numpy(dtype=np.float64))
            except (TypeError, ValueError) as error:
                raise ValueError(f"partition {index} of {self._name!r} holds what is no number: {error}") from None
            yield parted(matrix, self._chosen)

    def identity(self) -> str:
        """Return Dask's name of the frame, and which columns are which."""
        return f"{self._frame._name}; {self._chosen}"


def _counted(array: Any, name: str) -> Any:
    """Return an array that knows its number of rows."""
    if is_lazy(array) and math.isnan(array.shape[0]):
        with said_if_long(f"counting the {name}"):
            return array.compute_chunk_sizes()
    return array if hasattr(array, "shape") else np.asarray(array)


def _computed(*collections: Any) -> tuple[Any, ...]:
    """Return what collections hold; on a worker, in its own thread: it would wait for itself."""
    dask = optional("dask", "dask", "reading what Dask computes", "dask")
    if not _on_a_worker():
        return dask.compute(*collections)  # type: ignore[no-any-return]
    if sys.modules["distributed"].futures_of(collections):
        raise ValueError(
            "a worker cannot compute what was persisted on its cluster: give the collection as it was before "
            "persist(), or write it to Parquet"
        )
    return dask.compute(*collections, scheduler="synchronous")  # type: ignore[no-any-return]


def _on_a_worker() -> bool:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True
