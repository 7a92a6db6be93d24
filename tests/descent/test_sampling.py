"""Every row once an epoch, the same rows for every backend, whatever way the stream is taken."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdcompare.descent.sampling import RowStream, checked_batch_size, steps_per_epoch

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def rows_and_batch(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 40))
    return n, draw(st.integers(1, n))


@given(rows_and_batch(), SEEDS, st.integers(1, 4))
def test_every_epoch_has_every_row_once(size: tuple[int, int], seed: int, epochs: int) -> None:
    n, b = size
    steps = steps_per_epoch(n, b)

    rows, weights = RowStream(n, b, seed).take(epochs * steps)

    real = np.ones(rows.shape) if weights is None else weights
    for epoch in range(epochs):
        place = slice(epoch * steps, (epoch + 1) * steps)
        assert sorted(rows[place][real[place] == 1]) == list(range(n))


@given(rows_and_batch(), SEEDS, st.integers(1, 4))
def test_weights_mark_the_padding_of_the_last_batch_and_nothing_else(
    size: tuple[int, int], seed: int, epochs: int
) -> None:
    n, b = size
    steps = steps_per_epoch(n, b)
    last = n - (steps - 1) * b
    epoch_weights = np.ones((steps, b))
    epoch_weights[-1, last:] = 0

    rows, weights = RowStream(n, b, seed).take(epochs * steps)

    assert rows.shape == (epochs * steps, b)
    if last == b:
        assert weights is None
    else:
        assert weights is not None
        np.testing.assert_array_equal(weights, np.tile(epoch_weights, (epochs, 1)), strict=True)


@given(rows_and_batch(), SEEDS, st.lists(st.integers(0, 25), max_size=8))
def test_the_stream_does_not_depend_on_how_it_is_taken_in_pieces(
    size: tuple[int, int], seed: int, pieces: list[int]
) -> None:
    n, b = size
    stream = RowStream(n, b, seed)

    taken = [stream.take(steps) for steps in pieces]

    rows, weights = RowStream(n, b, seed).take(sum(pieces))
    np.testing.assert_array_equal(np.concatenate([np.empty((0, b)), *(piece for piece, _ in taken)]), rows)
    if weights is None:
        assert all(piece is None for _, piece in taken)
    else:
        expected = np.split(weights, np.cumsum(pieces))[: len(pieces)]
        for (_, piece), part in zip(taken, expected, strict=True):
            np.testing.assert_array_equal(piece, part, strict=True)


def test_the_stream_of_seed_0_is_pinned() -> None:
    rows, weights = RowStream(5, batch_size=2, seed=0).take(6)

    assert rows.tolist() == [[2, 4], [3, 0], [1, 1], [4, 1], [2, 0], [3, 3]]
    assert weights is not None
    assert weights.tolist() == [[1, 1], [1, 1], [1, 0]] * 2


def test_a_seed_repeats_and_another_differs() -> None:
    one, again, other = (RowStream(100, 10, seed).take(10)[0] for seed in (1, 1, 2))

    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_epochs_are_shuffled_afresh() -> None:
    rows, _ = RowStream(100, 100, seed=0).take(2)

    assert not np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], np.arange(100))


def test_over_many_epochs_every_row_comes_first_equally_often() -> None:
    epochs = 6000

    rows, _ = RowStream(6, 6, seed=3).take(epochs)

    # A count is binomial(6000, 1/6): standard deviation 29, so that 5 of them are 145.
    assert np.abs(np.bincount(rows[:, 0]) - epochs / 6).max() < 145


def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is what is watched

    RowStream(10, 3, seed=0).take(50)

    np.testing.assert_equal(np.random.get_state(legacy=False), before)  # noqa: NPY002


@pytest.mark.parametrize(("n", "b", "steps"), [(40, None, 1), (40, 40, 1), (40, 39, 2), (40, 1, 40), (1, 1, 1)])
def test_steps_per_epoch_counts_the_ragged_batch(n: int, b: int | None, steps: int) -> None:
    assert steps_per_epoch(n, b) == steps


@pytest.mark.parametrize("wrong", [0, -1, 41, 2.0, True, False, "2", float("nan"), [2]])
def test_a_batch_size_that_makes_no_sense_is_refused(wrong: Any) -> None:
    message = f"batch size must be a whole number from 1 to the 40 rows, not {wrong!r}"

    for refuses in (checked_batch_size, steps_per_epoch, lambda n, b: RowStream(n, b, seed=0)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            refuses(40, wrong)


def test_a_numpy_whole_number_is_a_batch_size() -> None:
    assert checked_batch_size(40, np.int32(7)) == 7  # type: ignore[arg-type]  # users have them
