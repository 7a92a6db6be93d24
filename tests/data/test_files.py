"""Files come back as they were written, or are refused by name."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from gdcompare import Dataset, datasets
from tests.refusal import refusal

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TABLES = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6), elements=FINITE)
FILES = settings(max_examples=50, deadline=None)  # a disk may be slow
WAY_OUT = "every cell must be a finite number: encode it, fill it, or drop its row or column"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


# Files come back as they were written


def split(table: NDArray[np.float64], target: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.delete(table, target, axis=1), table[:, target]


def assert_same_bits(data: Dataset, table: NDArray[np.float64], target: int) -> None:
    features, targets = split(table, target)
    assert data.features.tobytes() == features.tobytes()
    assert data.targets.tobytes() == targets.tobytes()
    assert data.features.shape == features.shape


@FILES
@given(table=TABLES, choice=st.data())
def test_a_csv_file_comes_back_bit_for_bit(folder: Path, table: NDArray[np.float64], choice: st.DataObject) -> None:
    target = choice.draw(st.integers(0, table.shape[1] - 1))
    path = folder / "table.csv"
    header = [f"column {index}" for index in range(table.shape[1])]
    path.write_text("\n".join(",".join(cells) for cells in [header, *([repr(v) for v in r] for r in table.tolist())]))

    data = datasets.read(path, target=f"column {target}")

    assert_same_bits(data, table, target)


@FILES
@given(table=TABLES, choice=st.data())
def test_a_parquet_file_comes_back_bit_for_bit(folder: Path, table: NDArray[np.float64], choice: st.DataObject) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow reads and writes .parquet")
    target = choice.draw(st.integers(0, table.shape[1] - 1))
    columns = {f"column {index}": column for index, column in enumerate(table.T)}
    path = write_parquet(folder / "table.parquet", arrow.table(columns))

    data = datasets.read(path, target=f"column {target}")

    assert_same_bits(data, table, target)


@FILES
@given(table=TABLES, names=st.sampled_from([("features", "targets"), ("X", "y")]))
def test_an_npz_file_comes_back_bit_for_bit(folder: Path, table: NDArray[np.float64], names: tuple[str, str]) -> None:
    features, targets = split(table, 0)
    path = folder / "table.npz"
    content: dict[str, Any] = {names[0]: features, names[1]: targets, "note": np.array("left alone")}
    np.savez(path, **content)

    data = datasets.read(path)

    assert_same_bits(data, table, 0)


def test_all_other_arrays_of_an_npz_file_are_features(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, price=[1.0, 2.0], area=np.array([3, 4], np.uint8), pair=np.array([[5, 6], [7, 8]], np.float32))

    data = datasets.read(path, target="price")

    assert data.features.tolist() == [[3, 5, 6], [4, 7, 8]]
    assert data.targets.tolist() == [1, 2]


def test_an_npz_file_may_hold_several_targets_for_each_row(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, X=[1.0, 2.0], y=[[1, 2, 3], [4, 5, 6]])

    data = datasets.read(path)

    assert (data.features.shape, data.targets.shape) == ((2, 1), (2, 3))


@pytest.mark.parametrize("name", ["target", "targets"])
def test_a_column_named_target_needs_no_naming(name: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"{name},y\n1,2\n")

    data = datasets.read(path)

    assert (data.targets.tolist(), data.features.tolist()) == ([1], [[2]])


def test_a_csv_file_may_come_from_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "TABLE.CSV"
    path.write_bytes(b'\xef\xbb\xbf"area, in m2", rent \r\n\r\n 30 , "500"\r\n6e1, -9.5\r\n\r\n')

    data = datasets.read(path, target="area, in m2")

    assert (data.targets.tolist(), data.features.tolist()) == ([30, 60], [[500], [-9.5]])


def test_parquet_numbers_of_every_kind_are_rounded_to_float64(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow reads and writes .parquet")
    columns = {
        "integer": arrow.array([2**53 + 1, -1], arrow.int64()),
        "unsigned": arrow.array([2**64 - 1, 0], arrow.uint64()),
        "half": arrow.array(np.array([0.5, 2], np.float16)),
        "single": arrow.array([0.25, 1.5], arrow.float32()),
        "decimal": arrow.array([Decimal("1.25"), Decimal("2.50")]),
        "target": arrow.array([True, False]),
    }
    path = write_parquet(tmp_path / "table.parquet", arrow.table(columns))

    data = datasets.read(path)

    assert data.features.tolist() == [[2.0**53, 2.0**64, 0.5, 0.25, 1.25], [-1, 0, 2, 1.5, 2.5]]
    assert data.targets.tolist() == [1, 0]


def test_a_folder_that_looks_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow reads and writes .parquet")
    (tmp_path / "year=2020").mkdir()
    path = write_parquet(tmp_path / "year=2020" / "table.parquet", arrow.table({"a": [1.0], "target": [2.0]}))

    data = datasets.read(path)

    assert data.features.shape == (1, 1)


def write_parquet(path: Path, table: Any) -> Path:
    pytest.importorskip("pyarrow.parquet", reason="pyarrow reads and writes .parquet").write_table(table, path)
    return path


# Bad files are refused by name

BAD_CSV = {
    "empty": (b"", ValueError, "'bad.csv' is empty"),
    "blank": (b"\n\n", ValueError, "'bad.csv' is empty"),
    "header only": (b"a,y\n", ValueError, "'bad.csv' has no rows"),
    "bytes that are not text": (
        b"PAR1\xff\xfe",
        ValueError,
        "'bad.csv' is not a .csv file: it is not text in UTF-8; save it as such",
    ),
    "semicolons": (
        b"x;y\n1;2",
        ValueError,
        "the first line of 'bad.csv' is parted by ';', 'x;y': write it with commas",
    ),
    "no names": (
        b"1.5,2\n3,4",
        ValueError,
        "the first line of 'bad.csv' holds numbers, 1.5, 2: name the columns there",
    ),
    "zero bytes": (b"PK\x03\x04\x00\x00", ValueError, "'bad.csv' is not a .csv file: it holds zero bytes"),
    "open quote": (b'a,y\n1,"2\n', ValueError, "line 2 of 'bad.csv' is not CSV: unexpected end of data"),
    "short row": (b"a,b,y\n1,2,3\n\n4,5\n", ValueError, "line 4 of 'bad.csv' should have 3 cells, not 2"),
    "long row": (b"a,y\n1,2,3\n", ValueError, "line 2 of 'bad.csv' should have 2 cells, not 3"),
    "no such target": (
        b"a,b\n1,2\n",
        LookupError,
        "there is no column 'y' in 'bad.csv'; --target may be: a, b",
    ),
    "target alone": (b"y\n1\n", ValueError, "'bad.csv' holds nothing but the target 'y'; features are needed too"),
    "same name twice": (b"a,y, a\n1,2,3\n", ValueError, "'bad.csv' has two columns 'a'; rename or drop one"),
    "no name": (
        b",a,y\n0,1,2\n",
        ValueError,
        "column 0 of 'bad.csv' has no name; name it, or drop it (index=False, if pandas wrote it)",
    ),
    "text": (
        b"a,sex,y\n1,0,3\n\n4,M,6\n",
        ValueError,
        f"'bad.csv' holds 'M' in row 1 (line 4), column 'sex'; {WAY_OUT}",
    ),
    "text in the target": (
        b"a,y\n1,high\n",
        ValueError,
        f"'bad.csv' holds 'high' in row 0 (line 2), column 'y'; {WAY_OUT}",
    ),
    "label like a number": (
        b"a,y\n2019_01,1\n",
        ValueError,
        f"'bad.csv' holds '2019_01' in row 0 (line 2), column 'a'; {WAY_OUT}",
    ),
    "missing cell": (b"a,y\n1,2\n,4\n", ValueError, f"'bad.csv' holds '' in row 1 (line 3), column 'a'; {WAY_OUT}"),
    "nan": (b"a,y\n1,NaN\n", ValueError, f"'bad.csv' holds 'NaN' in row 0 (line 2), column 'y'; {WAY_OUT}"),
    "infinity": (b"a,y\n-inf,1\n", ValueError, f"'bad.csv' holds '-inf' in row 0 (line 2), column 'a'; {WAY_OUT}"),
    "too large": (b"a,y\n1e999,1\n", ValueError, f"'bad.csv' holds '1e999' in row 0 (line 2), column 'a'; {WAY_OUT}"),
}


@pytest.mark.parametrize(("content", "error", "message"), BAD_CSV.values(), ids=BAD_CSV.keys())
def test_a_bad_csv_file_is_refused(content: bytes, error: type[Exception], message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)

    with refusal(error, message):
        datasets.read(path, target="y")


@pytest.mark.parametrize("header", ["a,y", "target,targets"])
def test_a_csv_file_without_one_clear_target_lists_its_columns(header: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(header + "\n1,2\n")

    with refusal(LookupError, f"no target was named in 'table.csv'; --target may be: {header.replace(',', ', ')}"):
        datasets.read(path)


ONE, TWO = np.ones(1), np.ones(2)
BAD_NPZ: dict[str, tuple[dict[str, Any], str | None, type[Exception], str]] = {
    "no pair": (
        {"features": TWO, "y": TWO},
        None,
        LookupError,
        "no target was named in 'bad.npz'; --target may be: features, y",
    ),
    "no arrays": (
        {},
        None,
        LookupError,
        "no target was named in 'bad.npz'; --target may be: nothing, it is empty",
    ),
    "no such target": ({"X": TWO}, "y", LookupError, "there is no array 'y' in 'bad.npz'; --target may be: X"),
    "target alone": (
        {"y": TWO},
        "y",
        ValueError,
        "'bad.npz' holds nothing but the target 'y'; features are needed too",
    ),
    "different lengths": (
        {"X": ONE, "y": TWO},
        None,
        ValueError,
        "the arrays of 'bad.npz' differ in their number of rows: 1 in 'X', 2 in 'y'",
    ),
    "no rows": ({"X": TWO[:0], "y": TWO[:0]}, None, ValueError, "'bad.npz' has no rows"),
    "no columns": (
        {"X": np.ones((2, 0)), "y": TWO},
        None,
        ValueError,
        "the data are empty: features have shape (2, 0)",
    ),
    "a scalar": (
        {"X": TWO, "y": np.array(1.0)},
        None,
        ValueError,
        "array 'y' of 'bad.npz' has shape (); it must be (n,) or (n, d)",
    ),
    "text": (
        {"X": np.array(["a", "b"]), "y": TWO},
        None,
        ValueError,
        "array 'X' of 'bad.npz' has type <U1; it must hold real numbers",
    ),
    "complex numbers": (
        {"X": TWO + 1j, "y": TWO},
        None,
        ValueError,
        "array 'X' of 'bad.npz' has type complex128; it must hold real numbers",
    ),
    "objects": (
        {"X": np.array([1, None]), "y": TWO},
        None,
        ValueError,
        "array 'X' of 'bad.npz' cannot be read: Object arrays cannot be loaded when allow_pickle=False",
    ),
    "nan": (
        {"X": np.array([[1, 2], [3, np.nan]]), "y": TWO},
        None,
        ValueError,
        f"'bad.npz' holds nan in row 1, column 'X[:, 1]'; {WAY_OUT}",
    ),
    "infinity": (
        {"X": TWO, "y": np.array([1, -np.inf])},
        None,
        ValueError,
        f"'bad.npz' holds -inf in row 1, column 'y'; {WAY_OUT}",
    ),
}


@pytest.mark.parametrize(("content", "target", "error", "message"), BAD_NPZ.values(), ids=BAD_NPZ.keys())
def test_a_bad_npz_file_is_refused(
    content: dict[str, Any], target: str | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **content)

    with refusal(error, message):
        datasets.read(path, target)


@pytest.mark.parametrize("content", [b"", b"a,y\n1,2\n", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "one array"])
def test_what_is_no_archive_is_refused_as_npz(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)

    with refusal(ValueError, "'bad.npz' is not a .npz file: it is no archive made by numpy.savez"):
        datasets.read(path)


def test_a_damaged_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, X=np.full(100, 7.0), y=np.ones(100))
    content = path.read_bytes()
    path.write_bytes(content.replace(np.full(2, 7.0).tobytes(), np.full(2, 8.0).tobytes(), 1))

    with refusal(ValueError, "array 'X' of 'bad.npz' cannot be read: Bad CRC-32 for file 'X.npy'"):
        datasets.read(path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, X=ONE, y=ONE)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"KP\x01\x02"))

    with pytest.raises(ValueError, match=r"^'bad\.npz' is not a \.npz file: "):
        datasets.read(path)


BAD_PARQUET: dict[str, tuple[dict[str, list[Any]], str | None, type[Exception], str]] = {
    "no rows": ({"a": [], "y": []}, "y", ValueError, "'bad.parquet' has no rows"),
    "no target named": (
        {"a": [1.0], "y": [1.0]},
        None,
        LookupError,
        "no target was named in 'bad.parquet'; --target may be: a, y",
    ),
    "no such target": (
        {"a": [1.0], "b": [1.0]},
        "y",
        LookupError,
        "there is no column 'y' in 'bad.parquet'; --target may be: a, b",
    ),
    "target alone": (
        {"y": [1.0]},
        "y",
        ValueError,
        "'bad.parquet' holds nothing but the target 'y'; features are needed too",
    ),
    "text": (
        {"sex": ["M", "F"], "y": [1, 2]},
        "y",
        ValueError,
        f"'bad.parquet' holds 'M' in row 0, column 'sex'; {WAY_OUT}",
    ),
    "null": (
        {"a": [1, None], "y": [1, 2]},
        "y",
        ValueError,
        f"'bad.parquet' holds a null in row 1, column 'a'; {WAY_OUT}",
    ),
    "nan": (
        {"a": [1.0, 2.0], "y": [1.0, float("nan")]},
        "y",
        ValueError,
        f"'bad.parquet' holds nan in row 1, column 'y'; {WAY_OUT}",
    ),
    "index of pandas": (
        {"a": [1], "y": [1], "__index_level_0__": [0]},
        "y",
        ValueError,
        "column 2 of 'bad.parquet' has no name; name it, or drop it (index=False, if pandas wrote it)",
    ),
}


@pytest.mark.parametrize(("content", "target", "error", "message"), BAD_PARQUET.values(), ids=BAD_PARQUET.keys())
def test_a_bad_parquet_file_is_refused(
    content: dict[str, list[Any]], target: str | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow reads and writes .parquet")
    path = write_parquet(tmp_path / "bad.parquet", arrow.table(content))

    with refusal(error, message):
        datasets.read(path, target)


def test_a_parquet_file_with_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow reads and writes .parquet")
    columns = [arrow.array([1.0])] * 3
    path = write_parquet(tmp_path / "bad.parquet", arrow.Table.from_arrays(columns, names=["a", "y", "a"]))

    with refusal(ValueError, "'bad.parquet' has two columns 'a'; rename or drop one"):
        datasets.read(path, target="y")


@pytest.mark.parametrize("content", [b"", b"a,y\n1,2\n", b"PAR1 and no more PAR1"], ids=["empty", "text", "damaged"])
def test_what_is_no_parquet_is_refused_as_parquet(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow reads and writes .parquet")
    path = tmp_path / "bad.parquet"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"^'bad\.parquet' is not a \.parquet file: "):
        datasets.read(path)


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.parquet"
    path.touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with refusal(ImportError, "reading .parquet needs 'pyarrow': pip install 'gdcompare[data]'"):
        datasets.read(path)
