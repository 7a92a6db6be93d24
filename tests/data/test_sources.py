"""Rows are the same wherever they come from, in whatever blocks, and in whatever order these are asked for."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare import datasets
from gdcompare.data.blocks import Blocks, InMemory

Args = tuple[Any, ...]
Rows = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def cut(rows: Rows, size: int) -> list[Rows]:
    """Return the rows in pieces of about a size: by turns of it, one more, and one."""
    pieces, begin, turn = [], 0, 0
    while begin < len(rows[1]):
        end = begin + (size, size + 1, 1)[turn % 3]
        pieces.append(tuple(each[begin:end] for each in rows))
        begin, turn = end, turn + 1
    return pieces  # type: ignore[return-value]


def npy_files(folder: Path, rows: Rows, size: int) -> Args:
    paths = [folder / f"{name}.npy" for name in ("x", "y", "w")]
    for path, each in zip(paths, rows, strict=True):
        np.save(path, each)
    return tuple(paths)


def npy_table(folder: Path, rows: Rows, size: int) -> Args:
    x, y, w = rows
    np.save(folder / "table.npy", np.column_stack([w, x, y]))
    return str(folder / "table.npy"), "-1", 0


def table(rows: Rows, turned: bool = False) -> Any:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    x, y, w = rows
    columns = {f"x{i}": each for i, each in enumerate(x.T)} | {"y": y, "w": w}
    if turned:
        columns = dict(reversed(columns.items()))
    return arrow.table({name: arrow.array(np.ascontiguousarray(each)) for name, each in columns.items()})


def parquet_file(folder: Path, rows: Rows, size: int) -> Args:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    parquet.write_table(table(rows), folder / "rows.parquet", row_group_size=size)
    return folder / "rows.parquet", "y", "w"


def parquet_folder(folder: Path, rows: Rows, size: int) -> Args:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    (folder / "parts").mkdir()
    pieces = cut(rows, 4 * size)
    for number, piece in enumerate(pieces):  # columns in another order, in every second file: they go by their names
        columns = table(piece, bool(number % 2))
        parquet.write_table(columns, folder / "parts" / f"{number:04}.parquet", row_group_size=size)
    return folder / "parts", "y", "w"


def dask_arrays(folder: Path, rows: Rows, size: int) -> Args:
    array = pytest.importorskip("dask.array", reason="Dask arrays need dask")
    x, y, w = rows
    return array.from_array(x, chunks=(size, 1)), array.from_array(y, chunks=size + 1), w


def dask_arrays_uncounted(folder: Path, rows: Rows, size: int) -> Args:
    array = pytest.importorskip("dask.array", reason="Dask arrays need dask")
    x, y, w = (array.from_array(each, chunks=(size, *each.shape[1:])) for each in rows)
    return x[y > -np.inf], y[y > -np.inf], w[y > -np.inf]


def dask_frame(folder: Path, rows: Rows, size: int) -> Args:
    frames = pytest.importorskip("dask.dataframe", reason="Dask dataframes need dask and pandas")
    return frames.from_pandas(table(rows).to_pandas(), chunksize=size, sort=False), "y", "w"


def frame(folder: Path, rows: Rows, size: int) -> Args:
    frames = pytest.importorskip("pandas", reason="dataframes in memory need pandas")
    x, y, w = rows
    return frames.DataFrame({"w": w, "a": x[:, 0], "y": y, "b": x[:, 1]}), "y", "w"


def memory_map(folder: Path, rows: Rows, size: int) -> Args:
    return tuple(np.load(path, mmap_mode="r") for path in npy_files(folder, rows, size))


class Sliced:
    """What h5py and zarr have in common: a shape, a type, and rows that can be cut."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values, self.shape, self.dtype = values, values.shape, values.dtype

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        return self._values[rows]


def of_other_libraries(folder: Path, rows: Rows, size: int) -> Args:
    return tuple(map(Sliced, rows))


def in_memory(folder: Path, rows: Rows, size: int) -> Args:
    return (rows,)


def pieces_in_a_list(folder: Path, rows: Rows, size: int) -> Args:
    return (cut(rows, size),)


class Made:
    """A function that makes pieces anew, and can be sent elsewhere."""

    def __init__(self, rows: Rows, size: int) -> None:
        self._rows, self._size = rows, size

    def __call__(self) -> Iterator[list[Any]]:
        yield from map(list, cut(self._rows, self._size))  # lists, as loaders of batches give


def pieces_of_a_function(folder: Path, rows: Rows, size: int) -> Args:
    return (Made(rows, size),)


QUICK: list[Callable[[Path, Rows, int], Args]] = [
    npy_files,
    npy_table,
    parquet_file,
    parquet_folder,
    memory_map,
    of_other_libraries,
    in_memory,
    pieces_in_a_list,
    pieces_of_a_function,
]
SLOW = [frame, dask_arrays, dask_arrays_uncounted, dask_frame]


@pytest.fixture(
    params=[*QUICK, *(pytest.param(each, marks=pytest.mark.thorough) for each in SLOW)],
    ids=lambda each: each.__name__,
)
def kept(request: pytest.FixtureRequest) -> Callable[[Path, Rows, int], Args]:
    """Each way to keep rows; it returns what `datasets.blocks` is asked for."""
    found: Callable[[Path, Rows, int], Args] = request.param
    return found


def opened(args: Args, rows: int = 4096) -> Blocks:
    data, target, weights = (*args, None, None)[:3]
    return datasets.blocks(data, target, weights, rows)


def some_rows(count: int) -> Rows:
    drawn = np.random.default_rng(count)
    return drawn.standard_normal((count, 2)), drawn.standard_normal(count), drawn.uniform(0.5, 2, count)


def assert_same(blocks: Blocks, rows: Rows, order: list[int]) -> None:
    for index in order:
        begin, end = blocks.bounds(index)
        for found, wanted in zip(blocks.arrays(index), rows, strict=True):
            assert found is not None
            assert np.array_equal(found, wanted[begin:end])
            assert found.shape == wanted[begin:end].shape


@given(data=st.data())
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_of_any_source_hold_the_rows(kept: Callable[[Path, Rows, int], Args], data: st.DataObject) -> None:
    count, size = data.draw(st.integers(1, 40), "rows"), data.draw(st.integers(1, 15), "rows of a piece")
    length = data.draw(st.integers(1, 45), "rows of a block")
    rows = some_rows(count)
    with tempfile.TemporaryDirectory() as folder:
        blocks = opened(kept(Path(folder), rows, size), length)
        order = data.draw(st.lists(st.integers(0, blocks.count - 1), max_size=6), "first")

        assert len(blocks) == count
        assert blocks.weighted
        assert_same(blocks, rows, [*order, *range(blocks.count), *reversed(range(blocks.count))])


def test_a_source_reads_by_itself_in_another_process(kept: Callable[[Path, Rows, int], Args], tmp_path: Path) -> None:
    rows = some_rows(1000)
    blocks = opened(kept(tmp_path, rows, 64), 100)
    assert_same(blocks, rows, [3, 4])

    there = pickle.loads(pickle.dumps(blocks))  # noqa: S301 - ours

    assert repr(there) == repr(blocks)
    if kept is not memory_map:  # it is sent as its numbers, and is no file any more
        assert there.identity() == blocks.identity()
    assert_same(there, rows, list(range(10)))


def test_files_are_sent_as_their_paths(tmp_path: Path) -> None:
    for keep in (npy_files, npy_table, parquet_file, parquet_folder):
        (tmp_path / keep.__name__).mkdir()
        blocks = opened(keep(tmp_path / keep.__name__, some_rows(5000), 500))

        assert len(pickle.dumps(blocks)) < 3000


@pytest.mark.parametrize("keep", [npy_files, npy_table, parquet_file, parquet_folder])
def test_files_are_found_from_another_folder(keep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(200)
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(opened(keep(Path(), rows, 50), 100))

    monkeypatch.chdir("/")
    assert_same(pickle.loads(sent), rows, [1, 0])  # noqa: S301 - ours


def test_equal_rows_are_one_and_others_are_not(kept: Callable[[Path, Rows, int], Args], tmp_path: Path) -> None:
    rows = some_rows(100)
    other = rows[0].copy(), *rows[1:]
    other[0][0, 0] += 1
    (tmp_path / "other").mkdir()
    (tmp_path / "one").mkdir()

    one = kept(tmp_path / "one", rows, 30)

    assert opened(one).identity() == opened(one).identity()
    assert opened(one).identity() != opened(one, 7).identity()
    assert opened(one).identity() != opened(kept(tmp_path / "other", other, 30)).identity()


def test_a_cut_of_a_mapped_file_is_not_another(tmp_path: Path) -> None:
    x, y, _ = memory_map(tmp_path, some_rows(100), 1)

    first, second = (datasets.blocks(x[each], y[each]) for each in (slice(50), slice(50, 100)))

    assert first.identity() != second.identity()


@pytest.mark.parametrize("kind", ["float32", "float16", ">f8", "int8", "uint64", "bool"])
def test_npy_files_hold_any_real_numbers(kind: str, tmp_path: Path) -> None:
    x, y, _ = some_rows(50)
    wanted = np.round(x * 3).clip(0).astype(kind)
    np.save(tmp_path / "x.npy", wanted)
    np.save(tmp_path / "y.npy", y)

    blocks = datasets.blocks(tmp_path / "x.npy", tmp_path / "y.npy", rows=7)

    assert np.array_equal(np.concatenate([each.features for each in blocks]), wanted.astype(np.float64))
    assert np.array_equal(np.concatenate([blocks.arrays(i)[0] for i in range(blocks.count)]), wanted)


def test_parquet_holds_any_real_numbers(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    columns = {
        "a": arrow.array([1, 2, 3], arrow.int8()),
        "b": arrow.array([True, False, True]),
        "c": arrow.array([0.5, 1.5, 2.5], arrow.float32()),
        "d": arrow.array([2**53 + 1, 0, 1], arrow.int64()),
        "y": arrow.array([1.0, 2.0, 3.0]),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "mixed.parquet")

    found = datasets.blocks(tmp_path / "mixed.parquet", "y", rows=2)

    assert np.array_equal(np.concatenate([each.features for each in found]), datasets.read(
        tmp_path / "mixed.parquet", "y"
    ).features)  # fmt: skip


def test_one_column_of_features_is_a_matrix_each_time() -> None:
    blocks = datasets.blocks(np.arange(5.0), np.arange(5.0), rows=2)

    assert [blocks.arrays(1)[0].shape for _ in range(2)] == [(2, 1), (2, 1)]


def test_windows_of_a_file_leave_no_row_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdcompare.data.npy.WINDOW", 4096)
    rows = some_rows(5000)
    blocks = opened(npy_files(tmp_path, rows, 1), 77)

    assert_same(blocks, rows, [*range(blocks.count), 0, 40, 3])
    assert_same(opened(npy_files(tmp_path, rows, 1), 2000), rows, [0, 1, 2])


def test_sums_have_the_same_bits_wherever_the_rows_lie(kept: Callable[[Path, Rows, int], Args], tmp_path: Path) -> None:
    rows = some_rows(1000)
    params = {"theta_0": np.array(0.1), "theta_1": np.array([0.2, -0.3])}

    found, wanted = (
        gdc.value_and_grad("linear-regression", blocks, params, "numpy")
        for blocks in (opened(kept(tmp_path, rows, 77), 100), Blocks(InMemory(*rows), rows=100))
    )

    assert found[0].hex() == wanted[0].hex()
    assert {name: each.tobytes() for name, each in found[1].items()} == {
        name: each.tobytes() for name, each in wanted[1].items()
    }
