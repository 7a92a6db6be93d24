"""What makes no sense is refused before any work, in words that name the rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.distributed import Piece, Step, judge

DATA = ([[1.0], [2.0], [4.0], [5.0]], [1.0, 3.0, 2.0, 7.0])
AT = {"theta_0": 0.5, "theta_1": [1.0]}
SHARDS = [[0, 1], [2, 3]]
GRADIENT = {"theta_0": np.array(1.0), "theta_1": np.ones(1)}


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        ([[0, 1], [1, 2, 3]], "row 1 is in rank 0's and in rank 1's; give each once"),
        ([[0, 0, 1], [2, 3]], "row 0 is twice in rank 0's"),
        ([[0], [2, 3]], "row 1 of 4 is in no rank's shard"),
        ([[0, 1], [2, 4]], "rank 1 has row 4, and the data have the rows 0 to 3"),
        ([[0, 1], [2, -1]], "rank 1 has row -1"),
        ([[0, 1, 2, 3], []], "rank 1 has no rows"),
        ([[0, 1], [[2], []]], "rank 1 has no rows, or an empty micro-batch"),
        ([[0, 1], [2.5, 3]], "rank 1 has 2.5, which is no row"),
        ([], "shards are the rows of each rank"),
        ("0,1", "shards are the rows of each rank"),
    ],
)
def test_shards_that_are_none(shards: Any, words: str) -> None:
    with pytest.raises(ValueError, match="shards") as refused:
        judge("linear-regression", DATA, AT, shards=shards, reduced=GRADIENT)

    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("reduced", "words"),
    [
        ({0: GRADIENT}, "reduced: nothing is given of rank 1; there are 2 shards, one for each of the ranks 0 to 1"),
        ([GRADIENT] * 3, "reduced: 2 is no rank"),
        ([GRADIENT, {"theta_0": 1.0}], "reduced: rank 1 gives no gradient of 'theta_1'"),
        ([GRADIENT, GRADIENT | {"theta_2": 1.0}], "rank 1 gives a gradient of 'theta_2', which is no parameter"),
        ([GRADIENT, GRADIENT | {"theta_0": None}], "rank 1 gives no gradient of 'theta_0'"),
        (
            [GRADIENT, GRADIENT | {"theta_1": np.ones(2)}],
            "rank 1 gives 'theta_1' in shape (2,); the parameter has (1,)",
        ),
        ([GRADIENT, GRADIENT | {"theta_1": np.ones(1, np.float32)}], "rank 1 gives 'theta_1' in float32, and float64"),
        ([GRADIENT, GRADIENT | {"theta_1": Piece(np.ones(1), (1,))}], "a piece (1,) of 'theta_1' at (1,), beyond"),
        ([GRADIENT | {"theta_1": []}] * 2, "reduced: no rank holds element [0] of 'theta_1'"),
    ],
)
def test_gradients_that_are_none(reduced: Any, words: str) -> None:
    with pytest.raises(ValueError, match="reduced") as refused:
        judge("linear-regression", DATA, AT, shards=SHARDS, reduced=reduced)

    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reduced": None}, "give what the ranks have after the reduction"),
        ({"factors": [1.0]}, "factors are 2 positive numbers"),
        ({"factors": [1.0, 0.0]}, "factors are 2 positive numbers"),
        ({"reductions": [1, 1, 1]}, "reductions are a number, or 2"),
        ({"previous": Step()}, "give its params, its data or its shards"),
        ({"previous": Step(shards=[[0], [1], [2]])}, "the previous step's shards are 3, and this one's 2"),
        ({"previous": Step(params={"theta_0": 1.0})}, "theta_1"),
        ({"dtype": "float16"}, "float16"),
        ({"reduction": "median"}, "median"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        judge("linear-regression", DATA, AT, **{"shards": SHARDS, "reduced": GRADIENT, **options})

    assert words in str(refused.value)


def test_a_gradient_that_is_no_mapping() -> None:
    with pytest.raises(TypeError, match=r"reduced is \{name: gradient\}"):
        judge("linear-regression", DATA, AT, shards=SHARDS, reduced=3.0)
    with pytest.raises(TypeError, match="rank 1 gives ndarray"):
        judge("linear-regression", DATA, AT, shards=SHARDS, reduced=[GRADIENT, np.ones(1)])


def test_rows_that_weigh_nothing_together() -> None:
    data = gdc.Dataset(*DATA, weights=[1, 1, 0, 0])

    with pytest.raises(ValueError, match="all rows of rank 1's shard"):
        judge("linear-regression", data, AT, shards=SHARDS, reduced=GRADIENT)


def test_a_local_gradient_that_was_never_seen_says_nothing() -> None:
    report = judge("linear-regression", DATA, AT, shards=SHARDS, reduced=GRADIENT, local=[{}, {}])

    assert {entry.law for entry in report.entries} == {"reduced"}
    with pytest.raises(ValueError, match="give what the ranks have"):
        judge("linear-regression", DATA, AT, shards=SHARDS, local={0: {}, 1: {}})
    with pytest.raises(ValueError, match="local: rank 1 gives no gradient"):
        judge("linear-regression", DATA, AT, shards=SHARDS, local=[GRADIENT, {}])
