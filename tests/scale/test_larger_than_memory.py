"""Parquet larger than the memory of its processes: the same bits by one, and by several of which one dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MEBIBYTE = 2**20
ROWS, COLUMNS, FILES = 800_000, 20, 4
LIMIT = 400 * MEBIBYTE
"""Bytes of private memory (RLIMIT_DATA); the rows are 537 MB."""

DESCENT = """
import os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
import psutil
import gdcompare as gdc

workers = int(sys.argv[1]) or None
killed = []

def kill_one(progress):
    if workers and not killed:
        children = psutil.Process().children(recursive=True)
        mine = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
        killed.append(mine[-1].pid)
        os.kill(killed[0], signal.SIGKILL)

data = gdc.datasets.blocks("rows", target="y")
path = gdc.descend("linear-regression", data, "numpy", epochs=3, workers=workers, chunk=1, callback=kill_one)
assert bool(killed) == bool(workers)
print(path.steps, path.history.losses.tobytes().hex(), path.parameters["theta_1"].tobytes().hex())
"""

WHOLE = """
import resource, sys
import pyarrow.parquet
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
import gdcompare as gdc
parts = [gdc.datasets.read(f"rows/{i}.parquet", "y") for i in range(4)]
"""


def output(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603 - our own


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="limits private memory as Linux does")
def test_parquet_larger_than_the_memory_of_each_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for module in ("distributed", "psutil"):
        pytest.importorskip(module, reason="needs the extra 'dask'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("rows").mkdir()
    generator = np.random.default_rng(0)
    names = [*(f"x{i}" for i in range(COLUMNS)), "y"]
    for file in range(FILES):
        table = arrow.table({name: generator.integers(0, 50, ROWS) / 7 for name in names})
        parquet.write_table(table, f"rows/{file}.parquet", row_group_size=100_000)
    assert FILES * ROWS * len(names) * 8 > LIMIT

    alone, together, whole = output(DESCENT, 0, LIMIT), output(DESCENT, 2, LIMIT), output(WHOLE, 0, LIMIT)

    assert alone.returncode == 0, alone.stderr
    assert together.returncode == 0, together.stderr
    assert alone.stdout == together.stdout
    assert alone.stdout.startswith("3 ")
    assert whole.returncode != 0  # the limit is one
