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

from gdcompare.data.parquet import read_parquet
from gdcompare.data.room import refuse_what_does_not_fit
from gdcompare.data.tables import (
    Parted,
    bad_cell,
    chosen_columns,
    known_weights,
    no_features,
    no_target,
    not_really,
    parted,
    refuse_non_finite,
)
from gdcompare.problem import Dataset


def read(path: str | os.PathLike[str], target: str | None = None, weights: str | None = None) -> Dataset:
    """Return the data in a .csv, .npz or .parquet file: `target` names the targets, all else are features.

    `weights` names the column or array of the samples' weights, if there is one; it is then no feature.

    Tables, .csv and .parquet, hold a column for each feature. Without `target`, the one column named `target` or
    `targets` is taken, scikit-learn's word and ours; `y` is not, because it may as well be a coordinate.

    Archives, .npz, hold arrays (n,) or (n, d). Without `target`, `features` and `targets` are taken, or else `X` and
    `y`, and other arrays are left alone; with it, all other arrays stand side by side as features.

    A .csv is UTF-8 text with commas and a first line of names. Every number is rounded to float64; rows count from 0.
    Only .parquet needs pyarrow.

    Files are read whole; `blocks` reads what does not fit the memory.

    Raises LookupError for a missing file or target, ValueError for anything that is not a full table of finite numbers
    and for what needs more memory than is left, ImportError if pyarrow is needed and not installed.

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
    if ending == ".npy" or file.is_dir():
        raise ValueError(
            f"{str(file)!r} is read in blocks of rows: gdcompare.datasets.blocks(...), on the command line by what has "
            "--block-rows"
        )
    if ending not in READERS:
        raise ValueError(f"unknown file ending {ending!r} in {str(file)!r}; known: {', '.join(READERS)}")
    if not file.is_file():
        raise LookupError(f"there is no file {str(file)!r}")
    features, targets, shares = READERS[ending](file, target, weights)
    if not len(targets):
        raise ValueError(f"{file.name!r} has no rows")
    return Dataset(features, targets, file.name, shares)


def _read_csv(path: Path, target: str | None, weights: str | None) -> Parted:
    rows = _csv_rows(path)
    _, header = next(rows, (0, []))
    if not header:
        raise ValueError(f"{path.name!r} is empty")
    if "\0" in "".join(header):
        raise not_really(path, "it holds zero bytes")
    columns = [name.strip() for name in header]
    _refuse_no_header(path, columns)
    width = len(columns)
    chosen = chosen_columns(path, columns, target, weights)
    values = array("d")
    for line, cells in rows:
        if len(cells) != width:
            raise ValueError(f"line {line} of {path.name!r} should have {width} cells, not {len(cells)}")
        try:
            for cell in cells:
                values.append(_finite_number(cell))
        except ValueError:
            row, index = divmod(len(values), width)
            raise bad_cell(path, repr(cells[index]), f"row {row} (line {line})", columns[index]) from None
    matrix = np.asarray(values).reshape(-1, width)
    return parted(matrix, chosen)


def _refuse_no_header(path: Path, columns: list[str]) -> None:
    """Raise a ValueError for a first line that is not parted by commas, or holds numbers and no names."""
    first = columns[0]
    if len(columns) == 1 and (other := next((each for each in ";\t|" if each in first), None)):
        raise ValueError(f"the first line of {path.name!r} is parted by {other!r}, {first!r}: write it with commas")
    try:
        numbers = [float(name) for name in columns]
    except ValueError:
        return
    if not all(number.is_integer() for number in numbers):
        raise ValueError(
            f"the first line of {path.name!r} holds numbers, {', '.join(columns[:3])}: name the columns there"
        )


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each row, the header included; a blank line is no row."""
    with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel writes a byte order mark
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            for cells in filter(None, reader):
                yield reader.line_num, cells
        except UnicodeDecodeError:
            raise not_really(path, "it is not text in UTF-8; save it as such") from None
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num} of {path.name!r} is not CSV: {error}") from None


def _finite_number(cell: str) -> float:
    number = float(cell)
    if "_" in cell or not math.isfinite(number):  # Python reads 2019_01 as 201901; in a table it is a label
        raise ValueError
    return number


def _read_npz(path: Path, target: str | None, weights: str | None) -> Parted:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise not_really(path, "it is no archive made by numpy.savez")
        file.seek(0)
        try:
            opened = np.load(file, allow_pickle=False)
        except Exception as error:  # whatever a damaged file makes of NumPy
            raise not_really(path, str(error)) from None
        try:
            with opened as archive:
                feature_names, target_name = _choose_arrays(path, archive.files, target)
                needed = 2 * sum(each.file_size for each in archive.zip.infolist())
                way_out = "write its arrays as .npy files, which gdcompare.datasets.blocks reads in blocks of rows"
                refuse_what_does_not_fit(path, needed, way_out)
                targets, shares = _array(path, archive, target_name), None
                if weights is not None:
                    shares = _array(path, archive, known_weights(path, "array", archive.files, target_name, weights))
                    feature_names = [name for name in feature_names if name != weights]
                if not feature_names:
                    raise no_features(path, target_name)
                blocks = {name: _array(path, archive, name) for name in feature_names}
        except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
            raise not_really(path, str(error)) from None
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
        raise no_target(path, "array", known, target)
    if len(known) == 1:
        raise no_features(path, target)
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
        refuse_non_finite(path, name, checked)
    else:
        for index, column in enumerate(checked.T):
            refuse_non_finite(path, f"{name}[:, {index}]", column)
    return checked


READERS = {".csv": _read_csv, ".npz": _read_npz, ".parquet": read_parquet}
