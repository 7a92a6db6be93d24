"""Which data: a built-in set by its name, a file by its path, or what a problem runs on when none are named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.data.blocks import ROWS, Blocks, InMemory, Source
from gdcompare.data.builtin import BUILT_IN, noisy_line
from gdcompare.data.files import READERS, read
from gdcompare.data.iterated import Iterated
from gdcompare.data.lazy import DaskArrays, DaskFrame, is_lazy
from gdcompare.data.npy import NpyFiles, NpyTable
from gdcompare.data.parquet import ParquetFiles
from gdcompare.data.prepare import suited
from gdcompare.data.tables import chosen_columns, parted
from gdcompare.problem import Dataset, Problem
from gdcompare.words import did_you_mean


def example(problem: Problem) -> Dataset:
    """Return data that the problem can run on when none are named: its own example, or else the seed's noisy line.

    If the problem wants labels, the line's targets become its largest value above their median, its smallest below.

    >>> from gdcompare.problems.logistic_regression import LogisticRegression
    >>> example(LogisticRegression())
    Dataset('noisy-line, above the median or not', 40 rows, 1 feature)
    """
    if (own := problem.example()) is not None:
        return own
    line = noisy_line()
    if problem.target_values is None:
        return suited(problem, line)
    above = line.targets > np.median(line.targets)
    labels = np.where(above, max(problem.target_values), min(problem.target_values))
    return suited(problem, Dataset(line.features, labels, name=f"{line.name}, above the median or not"))


def names() -> list[str]:
    """Return the names of the built-in data sets, in alphabetical order; imports nothing.

    >>> names()
    ['breast-cancer', 'diabetes', 'digits', 'integer-lattice', 'noisy-line', 'wine']
    """
    return sorted(BUILT_IN)


def load(name_or_path: str | os.PathLike[str], target: str | None = None, weights: str | None = None) -> Dataset:
    """Return a built-in data set by its name, or the data in a file (see `read`).

    Raises LookupError for what is neither, ValueError for `target` or `weights` beside a built-in name, and what `read`
    raises.

    >>> load("noisy-line")
    Dataset('noisy-line', 40 rows, 1 feature)
    >>> load("noisy-lime")
    Traceback (most recent call last):
    ...
    LookupError: unknown data 'noisy-lime'; known: breast-cancer, diabetes, digits, integer-lattice, noisy-line, wine; \
or a .csv, .npz or .parquet file; did you mean 'noisy-line'?
    """
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        if target is not None:
            raise ValueError(f"{name!r} is built in and has its own targets; target={target!r} is for files")
        if weights is not None:
            raise ValueError(f"{name!r} is built in and has no weights; weights={weights!r} is for files")
        return BUILT_IN[name]()
    path = Path(name)
    if path.suffix.lower() in READERS or path.is_file():
        return read(path, target, weights)
    *endings, last = READERS
    known = f"{', '.join(names())}; or a {', '.join(endings)} or {last} file{did_you_mean(name, names())}"
    raise LookupError(f"unknown data {name!r}; known: {known}")


def comes_in_blocks(name_or_path: str | os.PathLike[str] | None) -> bool:
    """Whether data of that name are read in blocks without being asked to: .npy files, and folders of .parquet files.

    >>> comes_in_blocks("features.npy"), comes_in_blocks("noisy-line")
    (True, False)
    """
    return name_or_path is not None and (Path(name_or_path).suffix.lower() == ".npy" or Path(name_or_path).is_dir())


def blocks(data: Any, target: Any = None, weights: Any = None, rows: int = ROWS, name: str | None = None) -> Blocks:
    """Return data in blocks of so many rows, read when they are needed: they need not fit the memory.

    | `data` | `target`, `weights` |
    |---|---|
    | the path of a .npy file, (n, d) | paths of .npy files, (n,) or (n, k), and (n,) |
    | the path of a .npy file, (n, columns) | numbers of columns, from 0 on or from -1 back |
    | the path of a .parquet file, or of a folder of them, in the order of their names | columns, as in `read` |
    | a dataframe, of Dask or in memory | columns, as in `read` |
    | an array of which rows can be cut, as of NumPy, Dask, h5py or zarr | arrays of the same kind |
    | (features, targets), (features, targets, weights), a Dataset, a name or file that `load` knows | as in `load` |
    | an iterable that begins anew each time, such as a list, or a function that returns an iterator, of blocks \
(features, targets[, weights]) of any sizes | - |

    Files are opened by whoever reads them, so that other processes read by themselves where they find them. Weights in
    `Dataset`'s sense. Raises LookupError for what is missing, ValueError for what is no full table of numbers, naming
    file and row: of what it has not read yet, when it is read.

    >>> blocks((np.zeros((10, 2)), np.ones(10)), rows=4)
    Blocks('data', 10 rows in 3 blocks of 4, 2 features)
    >>> blocks([(np.zeros((3, 1)), np.ones(3)), (np.zeros((4, 1)), np.ones(4))], rows=5)
    Blocks('data', 7 rows in 2 blocks of 5, 1 feature)
    """
    if isinstance(data, Blocks):
        if target is not None or weights is not None:
            raise ValueError(f"{data.name!r} is in blocks already, with targets and weights of its own")
        return Blocks(data.source, name or data.name, rows)
    if isinstance(data, str | os.PathLike):
        source, found = _source_at(os.fspath(data), target, weights)
        return Blocks(source, name or found, rows)
    known = name or getattr(data, "name", None)
    name = known if isinstance(known, str) else "data"
    return Blocks(_source_of(data, target, weights, name), name, rows)


def _source_of(data: Any, target: Any, weights: Any, name: str) -> Source:
    """Return where the rows of a value come from."""
    if isinstance(data, Dataset):
        if target is not None or weights is not None:
            raise ValueError(f"{name!r} is a Dataset, with targets and weights of its own")
        return InMemory(data.features, data.targets, data.weights)
    if is_lazy(data) and hasattr(data, "columns"):
        return DaskFrame(data, target, weights, name)
    if hasattr(data, "columns") and hasattr(data, "to_numpy"):
        chosen = chosen_columns(Path(name), [str(each) for each in data.columns], target, weights)
        return InMemory(*parted(_numbers_of(data, name), chosen))
    if isinstance(data, tuple):
        if len(data) not in (2, 3) or target is not None or weights is not None:
            raise ValueError("a tuple of data is (features, targets) or (features, targets, weights), and no more")
        data, target, weights = (*data, None)[:3]
    if target is not None:
        chunked = any(map(is_lazy, (data, target, weights)))
        return DaskArrays(data, target, weights, name) if chunked else InMemory(data, target, weights)
    if weights is not None:
        raise ValueError("weights need targets beside them: blocks(features, targets, weights)")
    if hasattr(data, "shape"):
        raise ValueError("features in an array need their targets: blocks(features, targets)")
    if not hasattr(data, "__iter__") and not callable(data):
        raise ValueError(
            f"no rows come from {type(data).__name__}: see gdcompare.datasets.blocks for what they come from"
        )
    return Iterated(data, name)


def _numbers_of(frame: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.ascontiguousarray(frame.to_numpy(dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name!r} holds what is no number: {error}; encode it, or drop its row or column") from None


def _source_at(path: str, target: Any, weights: Any) -> tuple[Source, str]:
    """Return where the rows of a name or path come from, and their name."""
    where = Path(path)
    if where.suffix.lower() == ".npy":
        return _npy(where, target, weights), where.name
    if where.is_dir():
        files = sorted(each for each in where.glob("*.parquet") if each.is_file())
        if not files:
            raise LookupError(f"there is no .parquet file in the folder {path!r}")
        return ParquetFiles(files, target, weights, where.name), where.name
    if where.suffix.lower() == ".parquet" and where.is_file():
        return ParquetFiles([where], target, weights, where.name), where.name
    whole = load(path, target, weights)
    return InMemory(whole.features, whole.targets, whole.weights), whole.name


def _npy(path: Path, target: Any, weights: Any) -> Source:
    numbers = [_column_number(each) for each in (target, weights)]
    if numbers[0] is not None and (numbers[1] is not None or weights is None):
        return NpyTable(path, numbers[0], numbers[1])
    if (
        not isinstance(target, str | os.PathLike)
        or not isinstance(weights, str | os.PathLike | None)
        or any(each is not None for each in numbers)
    ):
        raise ValueError(
            f"name the targets of {path.name!r} (target, --target), and its weights if it has any, either as columns, "
            f"by their numbers, or as .npy files beside it: not {target!r} and {weights!r}"
        )
    return NpyFiles(path, Path(target), None if weights is None else Path(weights))


def _column_number(which: Any) -> int | None:
    """Return a column's number, also as it is written on a command line; None if it is none."""
    if isinstance(which, str) and which.removeprefix("-").isdecimal():
        return int(which)
    return int(which) if isinstance(which, int | np.integer) and not isinstance(which, bool) else None
