"""What is sent to workers, and what stays behind."""

import numpy as np
import pytest

from gdcompare import datasets, load_problem
from gdcompare.registry import as_backend
from gdcompare.scale.parcel import packed, stays, unpacked


def test_rows_in_memory_stay_behind_also_where_their_targets_are_made_one_hot() -> None:
    pytest.importorskip("cloudpickle", reason="sending needs the extra 'dask'")
    problem = load_problem("softmax-regression")
    rows = datasets.suited_blocks(problem, datasets.blocks(np.ones((10_000, 5)), np.arange(10_000) % 3))

    sent = packed(problem, as_backend("numpy"), rows)

    assert stays(rows)
    assert len(sent) < 10_000
    assert unpacked(sent).blocks.rows == rows.rows
