"""Measure reading rows in blocks: rates and peak memory of a gradient over files, beside bare readings of the same.

    python -m benchmarks.reading FOLDER --rows 1e7

It writes rows x 20 features in float64 to FOLDER, as .npy files and, a fifth of them, as Parquet in groups of 65,536
rows and in one group; files that are there already are used again. Each figure is from a process of its own, the best
of three passes: seconds, and CPU seconds, which other work on the machine touches less. "cold" drops the file's pages
from the operating system's cache first; a machine below may have them still.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

import gdcompare as gdc
from gdcompare.registry import as_backend, as_problem
from gdcompare.scale.sums import Here, Sums
from gdcompare.table import table

COLUMNS, CHUNK, PASSES = 20, 65_536, 3
NAMES = [*(f"x{i}" for i in range(COLUMNS)), "y"]


def write(folder: Path, rows: int) -> None:
    """Write the files that are not there yet; one that is found whole is one that was renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"x.npy": (rows, COLUMNS), "y.npy": (rows,)}
    if not all((folder / name).exists() for name in names):
        x, y = (np.lib.format.open_memmap(folder / f"{n}.part", "w+", np.float64, shape) for n, shape in names.items())
        generator = np.random.default_rng(0)
        for begin in range(0, rows, CHUNK):
            drawn = generator.standard_normal((min(CHUNK, rows - begin), COLUMNS))
            x[begin : begin + CHUNK], y[begin : begin + CHUNK] = drawn, drawn.sum(axis=1)
        for name in names:
            (folder / f"{name}.part").rename(folder / name)
    import pyarrow as arrow
    from pyarrow import parquet

    x, y = (np.load(folder / name, mmap_mode="r")[: rows // 5] for name in names)
    columns = [np.ascontiguousarray(each) for each in (*x.T, y)]
    for name, group in {"groups.parquet": CHUNK, "one-group.parquet": len(y)}.items():
        if not (folder / name).exists():
            made = arrow.table(columns, names=NAMES)
            parquet.write_table(made, folder / f"{name}.part", row_group_size=group, use_dictionary=False)
            (folder / f"{name}.part").rename(folder / name)


def measured(paths: list[Path], what: str) -> tuple[float, float, float]:
    """Return seconds, CPU seconds, and MiB of peak memory above imports, of a pass over files."""
    if paths[0].suffix == ".parquet":
        import pyarrow.parquet  # noqa: F401 - before the memory is looked at
    before = _peak()
    run = _passes(paths, what.removesuffix(", cold"))
    best = float("inf"), float("inf")
    for _ in range(PASSES):
        if what.endswith("cold"):
            _drop(paths)
        begun, cpu = time.perf_counter(), time.process_time()
        run()
        best = min(best, (time.perf_counter() - begun, time.process_time() - cpu))
    return *best, _peak() - before


def _passes(paths: list[Path], what: str) -> Callable[[], object]:
    if what == "bytes":
        return lambda: _read_bytes(paths)
    if what == "columns":
        return lambda: _decode(paths[0])
    target = str(paths[1]) if len(paths) > 1 else "y"
    data = gdc.datasets.blocks(paths[0], target)
    if what == "blocks":
        return lambda: _read_blocks(data)
    sums = Sums(as_problem("linear-regression"), as_backend("numpy"), data)
    params = {"theta_0": np.array(0.1), "theta_1": np.full(COLUMNS, 0.1)}
    return lambda: Here(sums).total(params)


def _read_bytes(paths: list[Path]) -> None:
    buffer = bytearray(2**20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _read_blocks(data: gdc.Blocks) -> None:
    for index in range(data.count):
        data.arrays(index)


def _decode(path: Path) -> None:
    from pyarrow import parquet

    for _ in parquet.ParquetFile(path).iter_batches():
        pass


def _drop(paths: list[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _peak() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--rows", type=float, default=1e7, show_default=True)
@click.option("--one", nargs=2, hidden=True, help="Measure this alone, here: files and what is done with them.")
def main(folder: Path, rows: float, one: tuple[str, str] | None) -> None:
    """Write the files, measure each reading in a process of its own, and print the table."""
    if one is not None:
        click.echo(" ".join(map(str, measured([folder / name for name in one[0].split("+")], one[1]))))
        return
    write(folder, int(rows))
    arrays, found = "x.npy+y.npy", []
    asked = [(arrays, what) for what in ("bytes", "gradient", "bytes, cold", "gradient, cold")]
    for name in ("groups.parquet", "one-group.parquet"):
        asked += [(name, what) for what in ("bytes, cold", "columns", "blocks", "gradient", "gradient, cold")]
    for files, what in asked:
        command = [sys.executable, "-m", "benchmarks.reading", str(folder), "--one", files, what]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this file
        wall, cpu, peak = map(float, done.stdout.split())
        size = int(rows if files == arrays else rows // 5) * len(NAMES) * 8 / 1e9
        found.append((files, what, f"{wall:.2f} s", f"{cpu:.2f} s", f"{size / cpu:.2f} GB/s", f"{peak:.0f} MiB"))
    click.echo(table("", ["files", "reading", "time", "CPU", "numbers by CPU", "peak"], found, left=2))


if __name__ == "__main__":
    main()
