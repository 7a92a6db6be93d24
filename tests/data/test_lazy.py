"""What Dask computes, read by its own workers: they do not wait for themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gdcompare import datasets

X, Y = np.arange(2000.0).reshape(1000, 2), np.arange(1000.0)


ON_A_WORKER = """
import dask.array
import numpy as np
from distributed import Client, LocalCluster
from gdcompare import datasets

def summed(rows):
    return float(sum(rows.arrays(index)[0].sum() for index in range(rows.count)))

if __name__ == "__main__":  # workers begin by reading this file
    x, y = dask.array.arange(2000.0).reshape(1000, 2).rechunk((100, 2)), dask.array.arange(1000.0, chunks=100)
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        print(client.submit(summed, datasets.blocks(x, y, rows=64)).result(timeout=60))
        persisted = datasets.blocks(x.persist(), y.persist(), rows=64)
        print(summed(persisted))
        try:
            client.submit(summed, persisted).result(timeout=60)
        except ValueError as error:
            print(error)
"""


@pytest.mark.thorough
def test_a_worker_computes_by_itself_and_refuses_what_only_its_cluster_has(tmp_path: Path) -> None:
    for module in ("dask.array", "distributed"):
        pytest.importorskip(module, reason="workers need the extra 'dask'")
    script = tmp_path / "on_a_worker.py"
    script.write_text(ON_A_WORKER, encoding="utf-8")

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200, check=False)  # noqa: S603 - ours

    lazy, persisted, refused = done.stdout.splitlines()
    assert float(lazy) == float(persisted) == np.arange(2000).sum(), done.stderr
    assert refused.startswith("a worker cannot compute what was persisted on its cluster")


@pytest.mark.thorough
def test_rows_of_dask_arrays_must_be_as_many() -> None:
    array = pytest.importorskip("dask.array", reason="Dask arrays need dask")
    with pytest.raises(ValueError, match=r"differ in their number of rows: \[999, 1000\]"):
        datasets.blocks(array.from_array(X, chunks=100), Y[1:])


@pytest.mark.thorough
def test_a_dataframe_of_dask_with_strings_is_refused() -> None:
    frames = pytest.importorskip("dask.dataframe", reason="Dask dataframes need dask and pandas")
    pandas = pytest.importorskip("pandas", reason="Dask dataframes need dask and pandas")
    table = pandas.DataFrame({"a": ["x", "z"], "y": [1.0, 2.0]})

    with pytest.raises(ValueError, match=r"'data' holds .* in column 'a'; every cell must be a finite number"):
        datasets.blocks(frames.from_pandas(table, npartitions=1), "y")
    with pytest.raises(LookupError, match="there is no column 'z'"):
        datasets.blocks(frames.from_pandas(table, npartitions=1), "z")


@pytest.mark.thorough
def test_a_null_in_a_dataframe_is_found_when_it_is_read() -> None:
    frames = pytest.importorskip("dask.dataframe", reason="Dask dataframes need dask and pandas")
    pandas = pytest.importorskip("pandas", reason="Dask dataframes need dask and pandas")
    table = pandas.DataFrame({"a": [1.0, None, 3.0], "y": [1.0, 2.0, 3.0]})

    with pytest.raises(ValueError, match="features hold nan in row 1, column 0"):
        datasets.blocks(frames.from_pandas(table, npartitions=2), "y")
