"""Rows in blocks: what is read, what is refused, and where it says it stands."""

import numpy as np
import pytest

from gdcompare.data.blocks import Blocks, InMemory

RNG = np.random.default_rng(0)
FEATURES, TARGETS = RNG.standard_normal((23, 3)), RNG.standard_normal(23)


@pytest.mark.parametrize("rows", [1, 4, 23, 100])
def test_blocks_hold_every_row_once_in_order(rows: int) -> None:
    blocks = Blocks(InMemory(FEATURES, TARGETS), rows=rows)

    assert np.array_equal(np.concatenate([each.features for each in blocks]), FEATURES)
    assert np.array_equal(np.concatenate([each.targets for each in blocks]), TARGETS)
    assert all(len(block) == rows for block in list(blocks)[:-1])


def test_rows_are_taken_by_their_numbers() -> None:
    chosen = np.array([22, 0, 5, 4, 5])
    features, targets, weights = Blocks(InMemory(FEATURES, TARGETS), rows=4).take(chosen)

    assert np.array_equal(features, FEATURES[chosen])
    assert np.array_equal(targets, TARGETS[chosen])
    assert weights is None


def test_a_bad_row_is_named_by_its_block() -> None:
    bad = FEATURES.copy()
    bad[9, 1] = np.nan
    blocks = Blocks(InMemory(bad, TARGETS), name="mine", rows=4)

    with pytest.raises(ValueError, match=r"features hold nan in row 1, column 1.*rows of 'mine' from row 8 on"):
        list(blocks)


def test_a_block_may_count_for_nothing() -> None:
    weights = np.ones(23)
    weights[4:8] = 0
    blocks = Blocks(InMemory(FEATURES, TARGETS, weights), rows=4)

    assert [float(block.weights.sum()) for block in blocks if block.weights is not None] == [4, 0, 4, 4, 4, 3]


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_weights_are_checked_in_every_block(bad: float) -> None:
    weights = np.ones(23)
    weights[9] = bad

    with pytest.raises(ValueError, match=r"weights must be finite, none negative.*from row 8 on"):
        list(Blocks(InMemory(FEATURES, TARGETS, weights), rows=4))


def test_what_cannot_be_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number, 1 or above, not 0"):
        Blocks(InMemory(FEATURES, TARGETS), rows=0)
    with pytest.raises(ValueError, match=r"differ in their number of rows: \[22, 23\]"):
        InMemory(FEATURES, TARGETS[:-1])
    with pytest.raises(ValueError, match="has no rows"):
        Blocks(InMemory(FEATURES[:0], TARGETS[:0]))
