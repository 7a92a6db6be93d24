"""Parquet: a file as one table, and the rows of files batch after batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np

from gdcompare.data.blocks import Arrays
from gdcompare.data.extras import optional
from gdcompare.data.npy import identity_of
from gdcompare.data.parts import InParts
from gdcompare.data.room import refuse_what_does_not_fit
from gdcompare.data.tables import Parted, bad_cell, chosen_columns, not_really, parted, refuse_non_finite
from gdcompare.progress import said_if_long

BUFFER = 2**17
"""Bytes of a column that are fetched at a time, so that a group of rows of any size is read in flat memory."""
DECODED = 2**21
"""Numbers that are decoded at a time, of 65,536 rows at most: fewer are slower, more take memory."""


def read_parquet(path: Path, target: str | None, weights: str | None) -> Parted:
    """Return the features, targets and weights in a file, read whole."""
    with _opened(path) as file:
        # Arrow's table, and our matrix of it.
        refuse_what_does_not_fit(path, 16 * file.metadata.num_rows * file.metadata.num_columns)
        table = _told(path, file.read)  # read_table would add a column for a folder named like year=2020
    chosen = chosen_columns(path, table.column_names, target, weights)
    matrix, double = np.empty(table.shape), optional("pyarrow", "pyarrow", "reading .parquet").float64()
    for index, name in enumerate(table.column_names if len(table) else ()):
        column = table.column(index)
        if not column.null_count and not _is_numeric(column.type):
            raise bad_cell(path, repr(column[0].as_py()), "row 0", name)
        matrix[:, index] = _numbers(path, name, column, 0, double).to_numpy()
        refuse_non_finite(path, name, matrix[:, index])
    return parted(matrix, chosen)


@final
class ParquetFiles(InParts):
    """The rows of files with the same columns, each by its name in whatever order; a part is a group of rows.

    All files are opened once for their columns and numbers of rows; numbers are read when they are asked for.
    """

    def __init__(self, paths: list[Path], target: str | None, weights: str | None, name: str) -> None:
        self._paths = paths
        self._groups: list[tuple[int, int, int]] = []  # file, group, its first row in the file
        self._counted: list[int] = []
        lengths = []
        with said_if_long(f"counting the rows of {name}"):
            for number, path in enumerate(paths):
                with _opened(path) as file:
                    columns = self._same_columns(path, file)
                    if not number:
                        chosen = chosen_columns(path, columns, target, weights)
                    self._counted.append(file.metadata.num_rows)
                    first = 0
                    for group in range(file.metadata.num_row_groups):
                        if rows := file.metadata.row_group(group).num_rows:
                            self._groups.append((number, group, first))
                            lengths.append(rows)
                            first += rows
        self._targets, *self._weights = (self._columns[each] for each in chosen)
        self._features = [each for i, each in enumerate(self._columns) if i not in chosen]
        self._finite: dict[int, int] = {}
        """By file, before which row all numbers are known to be finite."""
        super().__init__(lengths, f"the rows of {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_paths": [each.absolute() for each in self._paths]}

    def _same_columns(self, path: Path, file: Any) -> list[str]:
        """Return the names of a file's columns, if they hold numbers and are those of the first file."""
        schema = _told(path, lambda: file.schema_arrow)
        columns: list[str] = schema.names
        if path == self._paths[0]:
            self._columns = columns
        elif sorted(columns) != sorted(self._columns):
            lacks = ", ".join(sorted(set(self._columns) - set(columns))) or "none"
            has = ", ".join(sorted(set(columns) - set(self._columns))) or "none"
            raise ValueError(
                f"the columns of {path.name!r} are not those of {self._paths[0].name!r}: it lacks {lacks}, and has "
                f"beside them {has}; files of one folder hold the same columns"
            )
        for field in schema:
            if not _is_numeric(field.type):
                raise ValueError(
                    f"{path.name!r} holds {field.type} in column {field.name!r}; every cell must be a finite number: "
                    "encode it, or drop the column"
                )
        return columns

    def pieces(self, part: int, rows: int) -> Iterator[Arrays]:
        """Yield the rows from a group on, batch after batch, a file after the other."""
        number, group, row = self._groups[part]
        yield from self._rows_of(number, group, row, rows)
        for following in range(number + 1, len(self._paths)):
            yield from self._rows_of(following, 0, 0, rows)

    def _rows_of(self, number: int, group: int, row: int, rows: int) -> Iterator[Arrays]:
        path = self._paths[number]
        with _opened(path) as file:
            if file.metadata.num_rows != self._counted[number]:
                raise ValueError(
                    f"{path.name!r} was changed while it was read: it has {file.metadata.num_rows} rows, and had "
                    f"{self._counted[number]} when they were counted"
                )
            groups = range(group, file.metadata.num_row_groups)
            size = max(1, min(65536, DECODED // len(self._columns)))
            batches = _told(path, lambda: file.iter_batches(size, row_groups=groups))
            while (batch := _told(path, lambda: next(batches, None))) is not None:
                for piece in (batch.slice(first, rows) for first in range(0, len(batch), rows)):
                    arrays = self._arrays(path, piece, row)
                    if row + len(piece) > (finite := self._finite.get(number, 0)):  # not looked through yet
                        self._refuse_non_finite(path, arrays, row)
                        if row <= finite:
                            self._finite[number] = row + len(piece)
                    yield arrays
                    row += len(piece)

    def _arrays(self, path: Path, batch: Any, row: int) -> Arrays:
        arrow = optional("pyarrow", "pyarrow", "reading .parquet")
        names, count = [*self._features, self._targets, *self._weights], len(self._features)
        places, double = {name: place for place, name in enumerate(batch.schema.names)}, arrow.float64()
        columns = [_numbers(path, name, batch.column(places[name]), row, double) for name in names]
        target, *weights = (each.to_numpy() for each in columns[count:])
        table = arrow.RecordBatch.from_arrays(columns[:count], self._features)
        return table.to_tensor(row_major=True).to_numpy(), target, weights[0] if weights else None

    def _refuse_non_finite(self, path: Path, arrays: Arrays, row: int) -> None:
        names = [self._features, [self._targets], self._weights]
        for columns, values in zip(names, arrays, strict=True):
            if values is None or np.isfinite(values).all():
                continue
            for name, column in zip(columns, values.reshape(len(values), -1).T, strict=True):
                refuse_non_finite(path, name, column, row)

    def identity(self) -> str:
        """Return places, sizes, times of change, and which columns are which."""
        return "; ".join([*map(identity_of, self._paths), str(self._features), self._targets, *self._weights])


def _opened(path: Path) -> Any:
    parquet = optional("pyarrow.parquet", "pyarrow", "reading .parquet")
    return _told(path, lambda: parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER))


def _told(path: Path, read: Any) -> Any:
    """Return what reading gives; what a damaged file makes of it names the file."""
    arrow = optional("pyarrow", "pyarrow", "reading .parquet")
    try:
        return read()
    except FileNotFoundError:
        raise LookupError(f"there is no file {str(path)!r}") from None
    except MemoryError:
        raise
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise not_really(path, str(error)) from None


def _is_numeric(kind: Any) -> bool:
    types = optional("pyarrow", "pyarrow", "reading .parquet").types
    return any(is_kind(kind) for is_kind in (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean))


def _numbers(path: Path, name: str, column: Any, first: int, double: Any) -> Any:
    """Return a column of numbers in float64, finite or not; `first` is the row of the file that it begins with."""
    if column.null_count:
        raise bad_cell(path, "a null", f"row {first + column.is_null().to_numpy(False).argmax()}", name)
    return column if column.type == double else column.cast(double, safe=False)  # not safe: rounds integers over 2^53
