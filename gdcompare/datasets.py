r"""Data to differentiate over: the seed's noisy line, four real sets, small integers, and your own files.

Importing this module needs NumPy alone, and nothing here touches the network; scikit-learn and pyarrow come with
`pip install 'gdcompare[data]'` and are imported by the functions that need them.
"""

from __future__ import annotations

import csv
import importlib
import math
import os
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset, Problem

_Arrays = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]
"""Features, targets, and weights if there are any."""


def noisy_line(samples: int = 40, seed: int = 45, slope: float = 3.0, intercept: float = 4.0) -> Dataset:
    """Points scattered about a line; with the defaults, the data of the seed notebook, bit for bit.

        x_i ~ uniform(-1, 1),   y_i = slope x_i + intercept + eps_i,   eps_i ~ normal(0, 1)

    All x are drawn before all eps. Features (samples, 1), targets (samples,). NumPy froze the stream of `RandomState`
    (NEP 19), so the bits stay the same from version to version; its global generator is not touched.

    Raises ValueError unless there is at least one sample.

    >>> noisy_line()
    Dataset('noisy-line', 40 rows, 1 feature)
    >>> float(noisy_line().features[0, 0])
    0.9780230269512002
    """
    _check_count("samples", samples)
    generator = np.random.RandomState(seed)
    x = generator.uniform(-1, 1, samples)
    noise = generator.randn(samples)
    return Dataset(x[:, None], slope * x + intercept + noise, name="noisy-line")


def diabetes(standardised: bool = True) -> Dataset:
    """Ten measurements of 442 diabetes patients, and how far the disease went in a year: a regression.

    Features (442, 10), targets (442,) from 25 to 346, as published. Features are standardised (see `standardise`), so
    that a learning rate of 0.01 descends; `standardised=False` gives them as measured: years, mmHg, mg/dl, with blood
    serum near 190 beside ratios near 4. scikit-learn's own scaling, to column length 1 rather than deviation 1, is
    not used: it makes every slope sqrt(442) = 21 times flatter.

    Raises ImportError if scikit-learn, which bundles the data, is not installed.

    Source: Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, Annals of Statistics 32(2), 2004.

    >>> diabetes()
    Dataset('diabetes', 442 rows, 10 features)
    """
    return _bundled("diabetes", standardised, "load_diabetes", scaled=False)


def breast_cancer(standardised: bool = True) -> Dataset:
    """Thirty measurements of the cell nuclei in 569 tumours, labelled 0 malignant or 1 benign: a classification.

    Features (569, 30), targets (569,). Features are standardised (see `standardise`); `standardised=False` gives them
    as measured, from thousandths (errors of smoothness) to thousands (areas).

    Raises ImportError if scikit-learn, which bundles the data, is not installed.

    Source: Wolberg, Mangasarian, Street and Street, Breast Cancer Wisconsin (Diagnostic), UCI, 1995.

    >>> breast_cancer()
    Dataset('breast-cancer', 569 rows, 30 features)
    """
    return _bundled("breast-cancer", standardised, "load_breast_cancer")


def digits() -> Dataset:
    """Handwritten digits, 8 x 8 pixels each: a classification into ten, for which `one_hot` makes targets (n, 10).

    Features (1797, 64), pixels row by row, from 0 to 1 in steps of 1/16, which floats hold exactly; targets (1797,),
    the digit. Not standardised: some pixels in the corners are 0 in every row, and others nearly so.

    Raises ImportError if scikit-learn, which bundles the data, is not installed.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test set).

    >>> digits()
    Dataset('digits', 1797 rows, 64 features)
    """
    measured = _bundled("digits", False, "load_digits")
    return Dataset(measured.features / 16, measured.targets, name=measured.name)


def wine(standardised: bool = True) -> Dataset:
    """Thirteen chemical measurements of 178 wines from three growers: a classification into three (see `one_hot`).

    Features (178, 13), targets (178,), the grower, 0, 1 or 2. Features are standardised (see `standardise`);
    `standardised=False` gives them as measured, from tenths (phenols) to a thousand (proline).

    Raises ImportError if scikit-learn, which bundles the data, is not installed.

    Source: Aeberhard and Forina, Wine, UCI, 1992.

    >>> wine()
    Dataset('wine', 178 rows, 13 features)
    """
    return _bundled("wine", standardised, "load_wine")


def integer_lattice(
    samples: int = 32, features: int = 3, seed: int = 0, largest: int = 4, labels: bool = False
) -> Dataset:
    """Small whole numbers, so that least squares has no rounding, not even in float32, in whatever order it adds.

        x_ij, y_i ~ uniform{-largest, ..., largest};   with labels, y_i ~ uniform{0, 1}

    float32 holds every whole number up to 2^24. With n samples, d features, and parameters that are whole numbers up to
    m = largest, a residual is at most R = m (d m + 2), and every partial sum of n terms r^2 or 2 r x is at most n R^2.
    While n R^2 <= 2^24 nothing is rounded, and dividing by n is exact because n is a power of two. Any two correct
    programs then agree in every bit.

    Features (samples, features), targets (samples,). Raises ValueError where the sizes break that promise.

    >>> integer_lattice(samples=2, features=3).features.tolist()
    [[3.0, 1.0, 0.0], [-2.0, -2.0, -4.0]]
    >>> integer_lattice(samples=40)
    Traceback (most recent call last):
    ...
    ValueError: samples must be a power of two, so that dividing by it is exact; not 40: take 32 or 64
    """
    for what, value in {"samples": samples, "features": features, "largest": largest}.items():
        _check_count(what, value)
    below = 2 ** (int(samples).bit_length() - 1)
    if samples != below:
        way_out = f"take {below} or {2 * below}"
        raise ValueError(f"samples must be a power of two, so that dividing by it is exact; not {samples}: {way_out}")
    bound = int(samples) * (int(largest) * (int(features) * int(largest) + 2)) ** 2
    if bound > 2**24:
        raise ValueError(
            f"sums may reach {bound}, and float32 is exact only up to {2**24}; take fewer samples or features, "
            "or a smaller largest"
        )
    generator = np.random.default_rng(seed)
    x = generator.integers(-largest, largest, (samples, features), endpoint=True)
    y = generator.integers(0, 2, samples) if labels else generator.integers(-largest, largest, samples, endpoint=True)
    return Dataset(x, y, name="integer-lattice")


def standardise(data: Dataset) -> Dataset:
    """Shift and scale each feature to mean 0 and standard deviation 1; a constant feature becomes 0.

        z_ij = (x_ij - mean_j) / deviation_j,   deviation_j^2 = 1/n sum_i (x_ij - mean_j)^2        n, not n - 1

    Targets and name stay; the given data are not changed.

    >>> standardise(Dataset([[1.0, 7.0], [3.0, 7.0]], [0.0, 1.0])).features.tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    _, exponents = np.frexp(np.abs(data.features).max(axis=0))
    centred = np.ldexp(data.features, -exponents)  # a power of two rounds nothing; squares stay in range
    for _ in range(2):  # a mean far from 0 is itself rounded; what is left of it goes in the second pass
        centred = centred - centred.mean(axis=0)
    varies = (data.features != data.features[0]).any(axis=0)
    deviations = np.where(varies, centred.std(axis=0), 1.0)
    return Dataset(np.where(varies, centred / deviations, 0.0), data.targets, data.name, data.weights)


def one_hot(data: Dataset) -> Dataset:
    """Turn targets that number k classes, 0 to k - 1, into (n, k): 1 in the column of the class, 0 elsewhere.

    Raises ValueError, naming the row, unless the targets are (n,), whole, and leave out no class.

    >>> one_hot(Dataset([[5.0], [6.0], [7.0]], [0, 2, 1])).targets.tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    >>> one_hot(Dataset([[5.0], [6.0]], [0, 2], name="gap"))
    Traceback (most recent call last):
    ...
    ValueError: classes must be numbered 0, 1, 2, ..., none left out, but in row 1 of 'gap' 2 stands for class 1
    """
    if data.targets.ndim != 1:
        raise ValueError(f"classes to make one-hot must have shape (n,), but {data.name!r} has {data.targets.shape}")
    found, classes = np.unique(data.targets, return_inverse=True)
    wrong = np.flatnonzero(found != np.arange(len(found)))
    if len(wrong):
        row = int(np.argmax(classes == wrong[0]))
        raise ValueError(
            f"classes must be numbered 0, 1, 2, ..., none left out, but in row {row} of {data.name!r} "
            f"{found[wrong[0]]:g} stands for class {wrong[0]}"
        )
    return Dataset(data.features, np.eye(len(found))[classes], data.name, data.weights)


def suited(problem: Problem, data: Dataset) -> Dataset:
    """Return the data as the problem takes them: with targets (n, k) where it wants those and the data have (n,).

    If it restricts the values of targets, they number its classes, and become one-hot; else they are one column.

    >>> from gdcompare.problems.softmax_regression import SoftmaxRegression
    >>> suited(SoftmaxRegression(), Dataset([[5.0], [6.0]], [0, 1])).targets.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if problem.target_dimensions == 1 or data.targets.ndim == 2:
        return data
    if problem.target_values is not None:
        return one_hot(data)
    return Dataset(data.features, data.targets[:, None], data.name, data.weights)


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
    return sorted(_BUILT_IN)


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
or a .csv, .npz or .parquet file
    """
    name = os.fspath(name_or_path)
    if name in _BUILT_IN:
        if target is not None:
            raise ValueError(f"{name!r} is built in and has its own targets; target={target!r} is for files")
        if weights is not None:
            raise ValueError(f"{name!r} is built in and has no weights; weights={weights!r} is for files")
        return _BUILT_IN[name]()
    path = Path(name)
    if path.suffix.lower() in _READERS or path.is_file():
        return read(path, target, weights)
    *endings, last = _READERS
    raise LookupError(f"unknown data {name!r}; known: {', '.join(names())}; or a {', '.join(endings)} or {last} file")


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
    if ending not in _READERS:
        raise ValueError(f"unknown file ending {ending!r} in {str(file)!r}; known: {', '.join(_READERS)}")
    if not file.is_file():
        raise LookupError(f"there is no file {str(file)!r}")
    features, targets, shares = _READERS[ending](file, target, weights)
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
    arrow = _optional("pyarrow", "pyarrow", "reading .parquet")
    parquet = _optional("pyarrow.parquet", "pyarrow", "reading .parquet")
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
            with np.load(file, allow_pickle=False) as archive:
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
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
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


def _bundled(name: str, standardised: bool, loader: str, **options: bool) -> Dataset:
    bundled = _optional("sklearn.datasets", "scikit-learn", f"data set {name!r}")
    features, targets = getattr(bundled, loader)(return_X_y=True, **options)
    data = Dataset(features, targets, name=name)
    return standardise(data) if standardised else data


def _optional(module: str, package: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(f"{purpose} needs {package!r}: pip install 'gdcompare[data]'", name=error.name) from error


def _check_count(what: str, value: int) -> None:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{what} must be a whole number, 1 or more; not {value!r}")


_READERS = {".csv": _read_csv, ".npz": _read_npz, ".parquet": _read_parquet}
_BUILT_IN: dict[str, Callable[[], Dataset]] = {
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "digits": digits,
    "integer-lattice": integer_lattice,
    "noisy-line": noisy_line,
    "wine": wine,
}
