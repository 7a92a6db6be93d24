"""Data of your own, in a .csv, .npz or .parquet file: full tables of finite numbers.

Only .parquet needs pyarrow.
"""

from __future__ import annotations

import csv
import math
import os
import zipfile
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.data.extras import optional
from gdcompare.problem import Dataset

_Arrays = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]
"""Features, targets, and weights if there are any."""


def read(path: str | os.PathLike[str], target: str | None = None, weights: str | None = None) -> Dataset:
    """Return the data in a .csv, .npz or .parquet file: `target` names the targets, all else are features.

    `weights` names the column or array of the samples' weights, if there is one; it is then no feature.

    Tables, .csv and .parquet, hold a column for each feature. Without `target`, the one column named `target` or
    `targets` is taken, scikit-learn's word and ours; `y` is not, because it may as well be a coordinate.

    Archives, .npz, hold arrays (n,) or (n, d). Without `target`, `features` and `targets` are taken, or else `X` and
    `y`, and other arrays are left alone; with it, all other arrays stand side by side as features.

    A .csv is UTF-8 text with commas and a first line of names. Every number is rounded to float64; rows count from 0.
    Only .parquet needs pyarrow.

    Raises LookupError for a missing file or target, ValueError for anything that is not a full table of finite numbers,
    ImportError if pyarrow is needed and not installed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     rents = Path(folder) / "rents.csv"
    ...     _ = rents.write_text("area,rooms,rent" + chr(10) + "30,1,500" + chr(10) + "60,2,900")
    ...     read(rents, target="rent")
    Dataset('rents.csv', 2 rows, 2 features)
    """
    file = Path(path)
    ending = file.suffix.lower()
    if ending == ".py":
        raise ValueError(f"{str(file)!r} is code: say which of its names is meant, {file}:NAME")
    if ending not in READERS:
        raise ValueError(f"unknown file ending {ending!r} in {str(file)!r}; known: {', '.join(READERS)}")
    if not file.is_file():
        raise LookupError(f"there is no file {str(file)!r}")
    features, targets, shares = READERS[ending](file, target, weights)
    if not len(targets):
        raise ValueError(f"{file.name!r} has no rows")
    return Dataset(features, targets, file.name, shares)


def _read_csv(path: Path, target: str | None, weights: str | None) -> _Arrays:
    rows = _csv_rows(path)
    _, header = next(rows, (0, []))
    if not header:
        raise ValueError(f"{path.name!r} is empty")
    if "\0" in "".join(header):
        raise _not_really(path, "it holds zero bytes")
    columns = [name.strip() for name in header]
    width = len(columns)
    chosen = _chosen_columns(path, columns, target, weights)
    values = array("d")
    for line, cells in rows:
        if len(cells) != width:
            raise ValueError(f"line {line} of {path.name!r} should have {width} cells, not {len(cells)}")
        try:
            for cell in cells:
                values.append(_finite_number(cell))
        except ValueError:
            row, index = divmod(len(values), width)
            raise _bad_cell(path, repr(cells[index]), f"row {row} (line {line})", columns[index]) from None
    matrix = np.asarray(values).reshape(-1, width)
    return _parted(matrix, chosen)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each row, the header included; a blank line is no row."""
    with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel writes a byte order mark
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            for cells in filter(None, reader):
                yield reader.line_num, cells
        except UnicodeDecodeError:
            raise _not_really(path, "it is not text in UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num} of {path.name!r} is not CSV: {error}") from None


def _finite_number(cell: str) -> float:
    number = float(cell)
    if "_" in cell or not math.isfinite(number):  # Python reads 2019_01 as 201901; in a table it is a label
        raise ValueError
    return number


def _read_parquet(path: Path, target: str | None, weights: str | None) -> _Arrays:
    arrow = optional("pyarrow", "pyarrow", "reading .parquet")
    parquet = optional("pyarrow.parquet", "pyarrow", "reading .parquet")
    with path.open("rb") as file:
        try:
            table = parquet.ParquetFile(file).read()  # read_table would add a column for a folder named like year=2020
            columns = table.column_names
        except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _not_really(path, str(error)) from None
    chosen = _chosen_columns(path, columns, target, weights)
    numeric = (arrow.types.is_integer, arrow.types.is_floating, arrow.types.is_decimal, arrow.types.is_boolean)
    matrix = np.empty(table.shape)
    for index, name in enumerate(columns if len(table) else ()):
        column = table.column(index)
        if column.null_count:
            raise _bad_cell(path, "a null", f"row {column.is_null().to_numpy().argmax()}", name)
        if not any(is_kind(column.type) for is_kind in numeric):
            raise _bad_cell(path, repr(column[0].as_py()), "row 0", name)
        matrix[:, index] = column.cast(arrow.float64(), safe=False).to_numpy()  # not safe: rounds integers over 2^53
        _refuse_non_finite(path, name, matrix[:, index])
    return _parted(matrix, chosen)


def _parted(matrix: NDArray[np.float64], chosen: list[int]) -> _Arrays:
    """Return the features, the target and, if a second column is chosen, the weights."""
    target, *weights = (matrix[:, index].copy() for index in chosen)
    return np.delete(matrix, chosen, axis=1), target, weights[0] if weights else None


def _chosen_columns(path: Path, columns: list[str], target: str | None, weights: str | None) -> list[int]:
    """Return which column of a table is the target, and which the weights, once every column has a name of its own."""
    for index, column in enumerate(columns):
        if not column or column.startswith("__index_level_"):
            raise ValueError(
                f"column {index} of {path.name!r} has no name; name it, or drop it (index=False, if pandas wrote it)"
            )
        if columns.index(column) < index:
            raise ValueError(f"{path.name!r} has two columns {column!r}; rename or drop one")
    wanted = ("target", "targets") if target is None else (target,)
    found = [index for index, column in enumerate(columns) if column in wanted]
    if len(found) != 1:
        raise _no_target(path, "column", columns, target)
    if weights is not None:
        found.append(columns.index(_known_weights(path, "column", columns, target, weights)))
    if len(columns) == len(found):
        raise _no_features(path, columns[found[0]])
    return found


def _known_weights(path: Path, kind: str, known: list[str], target: str | None, weights: str) -> str:
    if weights not in known or weights == target:
        raise LookupError(f"{path.name!r} has no {kind} {weights!r} for the weights; it has: {', '.join(known)}")
    return weights


def _read_npz(path: Path, target: str | None, weights: str | None) -> _Arrays:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise _not_really(path, "it is no archive made by numpy.savez")
        file.seek(0)
        try:
            opened = np.load(file, allow_pickle=False)
        except Exception as error:  # whatever a damaged file makes of NumPy
            raise _not_really(path, str(error)) from None
        try:
            with opened as archive:
                feature_names, target_name = _choose_arrays(path, archive.files, target)
                targets, shares = _array(path, archive, target_name), None
                if weights is not None:
                    shares = _array(path, archive, _known_weights(path, "array", archive.files, target_name, weights))
                    feature_names = [name for name in feature_names if name != weights]
                if not feature_names:
                    raise _no_features(path, target_name)
                blocks = {name: _array(path, archive, name) for name in feature_names}
        except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
            raise _not_really(path, str(error)) from None
    for name, block in blocks.items():
        if len(block) != len(targets):
            lengths = f"{len(block)} in {name!r}, {len(targets)} in {target_name!r}"
            raise ValueError(f"the arrays of {path.name!r} differ in their number of rows: {lengths}")
    return np.column_stack(list(blocks.values())), targets, shares


def _choose_arrays(path: Path, known: list[str], target: str | None) -> tuple[list[str], str]:
    """Return the names of the features and of the targets in an archive."""
    if target is None:
        for features, targets in (("features", "targets"), ("X", "y")):
            if features in known and targets in known:
                return [features], targets
    if target is None or target not in known:
        raise _no_target(path, "array", known, target)
    if len(known) == 1:
        raise _no_features(path, target)
    return [name for name in known if name != target], target


def _array(path: Path, archive: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float64]:
    try:
        values = np.asarray(archive[name])
    except Exception as error:  # whatever a damaged file makes of NumPy, a header that claims terabytes among it
        raise ValueError(f"array {name!r} of {path.name!r} cannot be read: {error}") from None
    if values.dtype.kind not in "biuf":
        raise ValueError(f"array {name!r} of {path.name!r} has type {values.dtype}; it must hold real numbers")
    if values.ndim not in (1, 2):
        raise ValueError(f"array {name!r} of {path.name!r} has shape {values.shape}; it must be (n,) or (n, d)")
    checked = values.astype(np.float64, copy=False)
    if checked.ndim == 1:
        _refuse_non_finite(path, name, checked)
    else:
        for index, column in enumerate(checked.T):
            _refuse_non_finite(path, f"{name}[:, {index}]", column)
    return checked


def _refuse_non_finite(path: Path, column: str, values: NDArray[np.float64]) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise _bad_cell(path, str(values[bad[0]]), f"row {bad[0]}", column)


def _bad_cell(path: Path, what: str, row: str, column: str) -> ValueError:
    return ValueError(
        f"{path.name!r} holds {what} in {row}, column {column!r}; every cell must be a finite number: "
        "encode it, fill it, or drop its row or column"
    )


def _not_really(path: Path, why: str) -> ValueError:
    return ValueError(f"{path.name!r} is not a {path.suffix.lower()} file: {why}")


def _no_features(path: Path, target: str) -> ValueError:
    return ValueError(f"{path.name!r} holds nothing but the target {target!r}; features are needed too")


def _no_target(path: Path, kind: str, known: list[str], target: str | None) -> LookupError:
    problem = "no target was named" if target is None else f"there is no {kind} {target!r}"
    return LookupError(f"{problem} in {path.name!r}; --target may be: {', '.join(known) or 'nothing, it is empty'}")


READERS = {".csv": _read_csv, ".npz": _read_npz, ".parquet": _read_parquet}
