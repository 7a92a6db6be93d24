"""Rows in files take the same memory however many there are, and less than 300 MiB."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gdcompare.data import room

FEW, MANY, COLUMNS = 100_000, 2_000_000, 20
MEBIBYTE = 2**20

GRADIENT = """
import sys
from pathlib import Path
import numpy as np
import gdcompare as gdc
gdc.value_and_grad, gdc.datasets, gdc.load_backend("numpy")
if "parquet" in sys.argv[1]:
    import pyarrow.parquet

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

before = peak()
data = gdc.datasets.blocks(*sys.argv[1:3])
params = {"theta_0": np.array(0.1), "theta_1": np.full(20, 0.1)}
for _ in range(2):
    gdc.value_and_grad("linear-regression", data, params, "numpy")
print(len(data), peak() - before)
"""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603 - our own


def npy(folder: Path, rows: int) -> tuple[str, str]:
    generator = np.random.default_rng(0)
    features = np.lib.format.open_memmap(folder / f"x{rows}.npy", "w+", np.float64, (rows, COLUMNS))
    for begin in range(0, rows, FEW):
        features[begin : begin + FEW] = generator.standard_normal((FEW, COLUMNS))
    np.save(folder / f"y{rows}.npy", generator.standard_normal(rows))
    return str(folder / f"x{rows}.npy"), str(folder / f"y{rows}.npy")


def npy_table(folder: Path, rows: int) -> tuple[str, str]:
    table = np.lib.format.open_memmap(folder / f"{rows}.npy", "w+", np.float64, (rows, COLUMNS + 1))
    for begin in range(0, rows, FEW):
        table[begin : begin + FEW] = np.random.default_rng(begin).standard_normal((FEW, COLUMNS + 1))
    return str(folder / f"{rows}.npy"), "20"


def parquet(folder: Path, rows: int) -> tuple[str, str]:
    """One group of all rows: none of its columns fits beside the others."""
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    files = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    generator = np.random.default_rng(0)
    names = [*(f"x{i}" for i in range(COLUMNS)), "y"]
    table = arrow.table({name: generator.standard_normal(rows) for name in names})
    files.write_table(table, folder / f"{rows}.parquet", row_group_size=rows, use_dictionary=False)
    return str(folder / f"{rows}.parquet"), "y"


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="reads peaks as Linux tells them")
@pytest.mark.parametrize("keep", [npy, npy_table, parquet])
def test_peak_memory_does_not_grow_with_the_rows(keep: Callable[[Path, int], tuple[str, str]], tmp_path: Path) -> None:
    results = [run(GRADIENT, *keep(tmp_path, rows)) for rows in (FEW, MANY)]

    assert [each.stderr for each in results] == ["", ""]
    (few, of_few), (many, of_many) = (map(int, each.stdout.split()) for each in results)
    assert (few, many) == (FEW, MANY)
    assert of_many < 300 * MEBIBYTE
    assert of_many - of_few < MANY * (COLUMNS + 1) * 8 / 4  # a quarter of the rows


LIMITED = """
import resource, sys
from pathlib import Path
import pyarrow.parquet
from gdcompare import datasets
taken = int(Path("/proc/self/statm").read_text().split()[int(sys.argv[3])]) * resource.getpagesize()
resource.setrlimit(getattr(resource, sys.argv[2]), (taken + 300 * 2**20,) * 2)
datasets.read(sys.argv[1], "y")
"""


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize(("limit", "of_pages"), [("RLIMIT_DATA", 5), ("RLIMIT_AS", 0)])
def test_a_limit_on_the_process_is_known_before_a_file_is_read(limit: str, of_pages: int, tmp_path: Path) -> None:
    path, _ = parquet(tmp_path, MANY)

    result = run(LIMITED, path, limit, of_pages)

    assert result.returncode == 1
    assert "of memory to be read whole" in result.stderr.splitlines()[-1]
    assert "gdcompare.datasets.blocks" in result.stderr.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_memory_that_is_left_is_known() -> None:
    left = room.available_memory()

    assert left is not None
    assert left > 2**20
