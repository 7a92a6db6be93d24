"""What is no table of numbers in blocks: each is refused, by its name, with the way out."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gdcompare import datasets, load_problem
from gdcompare.data import room
from gdcompare.data.blocks import Blocks, InMemory
from gdcompare.data.npy import NpyFile

X, Y = np.arange(40.0).reshape(20, 2), np.arange(20.0)


def saved(path: Path, values: Any) -> Path:
    np.save(path, values)
    return path


def written(path: Path, group: Any = 4, **columns: Any) -> Path:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    parquet.write_table(arrow.table(columns), path, row_group_size=group)
    return path


def shortened(path: Path, by: int) -> Path:
    path.write_bytes(path.read_bytes()[:-by])
    return path


NPY: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "missing": (lambda p: p / "x.npy", LookupError, r"there is no file '.*x\.npy'"),
    "no array": (lambda p: (p / "x.npy").write_bytes(b"hello") and p / "x.npy", ValueError, r"'x\.npy' is not a \.npy"),
    "empty": (lambda p: (p / "x.npy").write_bytes(b"") or p / "x.npy", ValueError, r"'x\.npy' is not a \.npy file"),
    "cut": (lambda p: shortened(saved(p / "x.npy", X), 1), ValueError, r"'x\.npy' is cut short.* 20 rows .* has 19"),
    "cut in its header": (lambda p: shortened(saved(p / "x.npy", X), 340), ValueError, r"'x\.npy' is not a \.npy"),
    "strings": (lambda p: saved(p / "x.npy", np.array([["a"]] * 20)), ValueError, r"'x\.npy' has type <U1"),
    "complex": (lambda p: saved(p / "x.npy", X * 1j), ValueError, r"'x\.npy' has type complex128"),
    "objects": (lambda p: saved(p / "x.npy", X.astype(object)), ValueError, r"'x\.npy' has type object"),
    "three axes": (lambda p: saved(p / "x.npy", X[:, None]), ValueError, r"'x\.npy' has shape \(20, 1, 2\)"),
    "by columns": (lambda p: saved(p / "x.npy", np.asfortranarray(X)), ValueError, r"'x\.npy' is stored column by"),
    "fewer": (lambda p: saved(p / "x.npy", X[1:]), ValueError, r"differ .*: 19 in 'x\.npy', 20 in 'y\.npy'"),
    "no rows": (lambda p: saved(p / "x.npy", X[:0]), ValueError, r"differ .*: 0 in 'x\.npy', 20 in 'y\.npy'"),
}


@pytest.mark.parametrize("name", NPY)
def test_npy_files_that_will_not_do_are_named(name: str, tmp_path: Path) -> None:
    make, error, said = NPY[name]

    with pytest.raises(error, match=said):
        datasets.blocks(make(tmp_path), saved(tmp_path / "y.npy", Y))


@pytest.mark.parametrize(
    ("target", "weights", "error", "said"),
    [
        (None, None, ValueError, r"name the targets of 'x\.npy' .*, either as columns, by their numbers, or as \.npy"),
        (1, "w.npy", ValueError, "either as columns"),
        ("y.npy", 1, ValueError, "either as columns"),
        (True, None, ValueError, "either as columns"),
        (2, None, LookupError, r"'x\.npy' has no column 2: they count from 0 to 1"),
        ("-3", None, LookupError, r"'x\.npy' has no column -3"),
        (1, -1, LookupError, r"column 1 of 'x\.npy' holds targets or weights, not both"),
        (0, 1, ValueError, r"'x\.npy' holds nothing but column 0"),
    ],
)
def test_columns_of_npy_files_are_checked(
    target: Any, weights: Any, error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        datasets.blocks(saved(tmp_path / "x.npy", X), target, weights)


def test_a_vector_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'y\.npy' has shape \(20,\) and no columns"):
        datasets.blocks(saved(tmp_path / "y.npy", Y), 0)


def test_a_file_that_is_cut_while_it_is_read_ends_no_process(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", np.zeros((10_000, 2)))
    file = NpyFile(path)
    file.read(0, 100)
    shortened(path, 100_000)

    for again in (file, pickle.loads(pickle.dumps(file))):  # noqa: S301 - ours
        with pytest.raises(ValueError, match=r"'x\.npy' is cut short: of the 10000 rows"):
            again.read(9000, 9100)


def test_nobody_writes_into_a_file(tmp_path: Path) -> None:
    features = datasets.blocks(saved(tmp_path / "x.npy", X), saved(tmp_path / "y.npy", Y)).arrays(0)[0]

    with pytest.raises(ValueError, match="read-only"):
        features[0, 0] = 1


NUMBERS = {"a": [1.0] * 10, "y": [2.0] * 10}
PARQUET: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no Parquet": (lambda p: p.write_bytes(b"hello"), r"'b\.parquet' is not a \.parquet file"),
    "empty": (lambda p: p.write_bytes(b""), r"'b\.parquet' is not a \.parquet file"),
    "cut": (lambda p: shortened(written(p, **NUMBERS), 10), r"'b\.parquet' is not a \.parquet file"),
    "a column more": (lambda p: written(p, b=[1.0], **{k: v[:1] for k, v in NUMBERS.items()}),
                      r"columns of 'b\.parquet' are not those of 'a\.parquet': it lacks none, and has beside them b"),
    "a column less": (lambda p: written(p, y=[1.0]),
                      r"columns of 'b\.parquet' are not those of 'a\.parquet': it lacks a, and has beside them none"),
    "strings": (lambda p: written(p, a=["1"] * 2, y=[1.0] * 2), r"'b\.parquet' holds string in column 'a'"),
    "dates": (lambda p: written(p, a=np.zeros(2, "datetime64[s]"), y=[1.0] * 2), r"'b\.parquet' holds timestamp"),
    "a null": (lambda p: written(p, a=[1.0] * 5 + [None], y=[1.0] * 6),
               r"'b\.parquet' holds a null in row 5, column 'a'"),
    "nan": (lambda p: written(p, a=[1.0] * 6, y=[1.0] * 5 + [np.nan]), r"'b\.parquet' holds nan in row 5, column 'y'"),
    "infinite weight": (lambda p: written(p, a=[np.inf] * 2, y=[1.0] * 2), r"'b\.parquet' holds inf in row 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARQUET)
def test_a_file_that_will_not_do_is_named_among_a_folder_of_them(name: str, tmp_path: Path) -> None:
    make, said = PARQUET[name]
    for good in "ac":
        written(tmp_path / f"{good}.parquet", **NUMBERS)
    make(tmp_path / "b.parquet")

    with pytest.raises(ValueError, match=said):
        list(datasets.blocks(tmp_path, "y", rows=3))


def test_a_damaged_page_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", 1000, a=np.random.default_rng(0).random(3000), y=np.zeros(3000))
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"'a\.parquet' is not a \.parquet file"):
        list(datasets.blocks(path, "y", rows=500))


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", **NUMBERS)
    blocks = datasets.blocks(path, "y", rows=3)
    written(path, a=[1.0] * 7, y=[1.0] * 7)

    with pytest.raises(ValueError, match=r"'a\.parquet' was changed while it was read: it has 7 rows, and had 10"):
        pickle.loads(pickle.dumps(blocks)).block(3)  # noqa: S301 - ours
    path.unlink()
    with pytest.raises(LookupError, match=r"there is no file '.*a\.parquet'"):
        pickle.loads(pickle.dumps(blocks)).block(3)  # noqa: S301 - ours


def test_a_folder_without_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"no \.parquet file in the folder"):
        datasets.blocks(tmp_path)


@pytest.mark.parametrize(
    ("target", "weights", "said"),
    [(None, None, "no target was named"), ("z", None, "there is no column 'z'"), ("y", "y", "no column 'y' for the w")],
)
def test_columns_of_parquet_go_by_the_rules_of_files(
    target: str | None, weights: str | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(LookupError, match=said):
        datasets.blocks(written(tmp_path / "a.parquet", **NUMBERS), target, weights)


def test_an_index_of_dask_is_no_feature(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", __null_dask_index__=[0, 1], a=[1.0, 2.0], y=[1.0, 2.0])

    with pytest.raises(ValueError, match=r"column 0 of 'a\.parquet' has no name.*write_index=False"):
        datasets.blocks(path, "y")


Piece = tuple[NDArray[Any], ...]
PIECE = np.ones((2, 1)), np.ones(2)
LISTS: dict[str, tuple[Any, str]] = {
    "a generator": ((PIECE for _ in range(2)), "'data' can be gone through only once: give the function that makes it"),
    "an iterator": (iter([PIECE]), "can be gone through only once"),
    "no pairs": ([np.ones((2, 2))], r"block 0 of 'data' is ndarray, not \(features, targets\)"),
    "four": ([PIECE, (*PIECE, PIECE[1], PIECE[1])], "block 1 of 'data' is tuple, not"),
    "ragged": ([([[1], [1, 2]], [1, 2])], "block 0 of 'data' holds what is no array"),
    "scalars": ([(1.0, 2.0)], "block 0 of 'data' holds what is no array"),
    "uneven": ([(PIECE[0], np.ones(3))], r"arrays of block 0 of 'data' differ in their number of rows: \[2, 3\]"),
    "other columns": ([PIECE, (np.ones((2, 2)), np.ones(2))], "block 1 of 'data' has rows of another form"),
    "other weights": ([PIECE, (*PIECE, np.ones(2))], "block 1 of 'data' has rows of another form"),
    "none": ([], "'data' has no rows"),
    "a number": (3, "no rows come from int"),
    "an array": (np.ones(3), "need their targets"),
    "one alone": ((np.ones(3),), r"a tuple of data is \(features, targets\)"),
}


@pytest.mark.parametrize("name", LISTS)
def test_pieces_that_will_not_do_are_named(name: str) -> None:
    data, said = LISTS[name]

    with pytest.raises(ValueError, match=said):
        datasets.blocks(data)


class Changing:
    """Gives other pieces each time, as what shuffles or draws anew does."""

    def __init__(self, first: list[Piece], later: list[Piece]) -> None:
        self._passes = chain([first], repeat(later))

    def __iter__(self) -> Iterator[Piece]:
        return iter(next(self._passes))


OTHER = np.full((2, 1), 5.0), np.ones(2)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ([PIECE], "block 1 of 'data' is not that of the first pass, which gave 2"),
        ([PIECE, PIECE, PIECE], "block 2 of 'data' is not that of the first pass"),
        ([PIECE, (PIECE[0][:1], PIECE[1][:1])], "block 1 of 'data' is not that of the first pass"),
        ([PIECE, OTHER], "block 1 of 'data' is not that of the first pass.*shuffle nothing"),
        ([OTHER, PIECE], "block 0 of 'data' is not that of the first pass"),
    ],
)
def test_a_pass_that_gives_other_pieces_is_found(second: list[Piece], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(datasets.blocks(Changing([PIECE, PIECE], second), rows=3))


def test_what_has_targets_takes_no_others() -> None:
    data = datasets.noisy_line()
    for given in (data, Blocks(InMemory(X, Y)), (X, Y)):
        with pytest.raises(ValueError, match=r"of its own|and no more"):
            datasets.blocks(given, Y)
    with pytest.raises(ValueError, match="weights need targets"):
        datasets.blocks([PIECE], weights=Y)


def test_columns_of_an_array_have_no_names() -> None:
    with pytest.raises(ValueError, match="are arrays, a row for each sample, not array\\('y'"):
        datasets.blocks(X, "y")


def test_classes_are_numbered_over_all_blocks() -> None:
    problem, targets = load_problem("softmax-regression"), np.array([1.0, 1, 0, 0, 2, 2, 1])
    data = datasets.blocks(np.ones((7, 1)), targets, rows=2)

    for found in (datasets.suited_blocks(problem, data), datasets.suited_blocks(problem, data, classes=3)):
        assert np.array_equal(np.concatenate([each.targets for each in found]), np.eye(3)[targets.astype(int)])
        assert np.array_equal(found.arrays(3)[1], [[0, 1, 0]])
        assert found.identity() != data.identity()


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([0, 1, 1, 3], "in row 3 of 'data' 3 stands for class 2"),
        ([1, 2, 1, 3], "in row 0 of 'data' 1 stands for class 0"),
        ([0, 0, 0.5, 1], "in row 2 of 'data' 0.5 stands for class 1"),
        ([0, -1, 0, 1], "in row 1 of 'data' -1 stands for class 0"),
    ],
)
def test_classes_with_a_gap_are_named(targets: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        datasets.suited_blocks(load_problem("softmax-regression"), datasets.blocks(np.ones((4, 1)), targets, rows=1))


@pytest.mark.parametrize("wrong", [3.0, -1.0, 0.5])
def test_a_target_beyond_the_classes_is_found_when_it_is_read(wrong: float) -> None:
    data = datasets.blocks(np.ones((4, 1)), [0, 1, 2, wrong], rows=2)
    found = datasets.suited_blocks(load_problem("softmax-regression"), data, classes=3)

    with pytest.raises(ValueError, match=f"target {wrong:g} in row 3 is none of the classes 0 to 2"):
        found.block(1)


def test_a_file_that_does_not_fit_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"a.parquet": written(tmp_path / "a.parquet", **NUMBERS), "a.npz": tmp_path / "a.npz"}
    np.savez(files["a.npz"], features=X, targets=Y)
    assert all(len(datasets.read(path, target)) for path, target in zip(files.values(), ("y", None), strict=True))
    monkeypatch.setattr(room, "_of_machine", lambda: 100)

    with pytest.raises(ValueError, match=r"'a\.parquet' needs .* MiB of memory .*: read it in blocks .*--block-rows"):
        datasets.read(files["a.parquet"], "y")
    with pytest.raises(
        ValueError, match=r"'a\.npz' needs .* MiB of memory .*: write its arrays as \.npy files, .* blocks"
    ):
        datasets.read(files["a.npz"])


def test_npy_files_and_folders_are_read_in_blocks(tmp_path: Path) -> None:
    for path in (saved(tmp_path / "x.npy", X), tmp_path):
        with pytest.raises(ValueError, match=r"is read in blocks of rows: gdcompare\.datasets\.blocks"):
            datasets.read(path)


def test_what_a_group_of_processes_may_fill_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    assert room._of_group() is None

    for name, text in {"max": "1000", "current": "700", "stat": "anon 400\nfile 300\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)

    assert room._of_group() == 600
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "none")
    assert room.available_memory() == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert room._of_group() is None
