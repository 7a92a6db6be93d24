"""A descent on data in blocks: the path of the same rows in memory, and the same bits however it is cut into pieces."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gdcompare as gdc
from gdcompare.data.blocks import Arrays, Blocks, InMemory
from gdcompare.descent.sampling import BlockStream, steps_per_epoch
from gdcompare.registry import as_problem

RNG = np.random.default_rng(0)
FEATURES, TARGETS = RNG.standard_normal((53, 3)), RNG.standard_normal(53)
WEIGHTS = RNG.integers(1, 4, 53).astype(float)


def blocks(weights: np.ndarray | None = None, rows: int = 8) -> Blocks:
    return Blocks(InMemory(FEATURES, TARGETS, weights), rows=rows)


def bits(descent: gdc.Descent) -> list[bytes]:
    found = [descent.history.losses, *descent.parameters.values(), *descent.history.parameters.values()]
    return [each.tobytes() for each in found]


@pytest.mark.thorough
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_full_steps_are_those_on_all_rows(backend_name: str, weights: np.ndarray | None) -> None:
    def path(data: Any) -> gdc.Descent:
        return gdc.descend("linear-regression", data, backend_name, gdc.rules.momentum(0.1), epochs=30)

    streamed = path(blocks(weights))
    whole = path(gdc.Dataset(FEATURES, TARGETS, weights=weights))

    assert (streamed.steps, streamed.rows) == (30, 53)
    np.testing.assert_allclose(streamed.history.losses, whole.history.losses, rtol=1e-12)
    for name, each in whole.history.parameters.items():
        np.testing.assert_allclose(streamed.history.parameters[name], each, rtol=1e-10, atol=1e-13)


def test_batches_meet_each_row_once_an_epoch(backend_name: str) -> None:
    # At rate 0 the losses of an epoch's batches are those of its rows.
    still = gdc.descend("linear-regression", blocks(), backend_name, gdc.rules.sgd(0.0), batch_size=1, epochs=2)
    start = as_problem("linear-regression").start(gdc.Dataset(FEATURES, TARGETS))
    alone = [
        gdc.value_and_grad("linear-regression", ([x], [y]), start, "numpy")[0]
        for x, y in zip(FEATURES, TARGETS, strict=True)
    ]

    first, second = np.split(still.history.losses, 2)
    np.testing.assert_allclose(np.sort(first), np.sort(alone), rtol=1e-12)
    np.testing.assert_allclose(np.sort(second), np.sort(alone), rtol=1e-12)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("batch_size", [None, 7])
def test_chunks_and_a_pause_change_no_bit(tmp_path: Path, batch_size: int | None) -> None:
    def descent(**how: Any) -> gdc.Descent:
        rule = gdc.rules.adam(0.1)
        return gdc.descend("linear-regression", blocks(), "numpy", rule, batch_size=batch_size, epochs=9, **how)

    stops = iter([False, True])
    paused = descent(chunk=2, checkpoint=tmp_path, callback=lambda _: next(stops))
    resumed = descent(chunk=3, checkpoint=tmp_path, resume=True)

    assert paused.stop_reason == "callback"
    assert bits(resumed) == bits(descent())


def test_a_resumed_descent_is_on_the_same_rows(tmp_path: Path) -> None:
    gdc.descend("linear-regression", blocks(), "numpy", epochs=2, checkpoint=tmp_path)
    other = FEATURES.copy()
    other[50] += 1

    data = Blocks(InMemory(other, TARGETS), rows=8)
    with pytest.raises(ValueError, match="is of another descent: data was"):
        gdc.descend("linear-regression", data, "numpy", epochs=2, checkpoint=tmp_path, resume=True)


def test_an_interrupted_pass_leaves_the_steps_before_it() -> None:
    class Interrupted:
        rows = 53
        asked = 0

        def read(self, begin: int, end: int) -> Arrays:
            self.asked += 1
            if self.asked > 20:
                raise KeyboardInterrupt
            return FEATURES[begin:end], TARGETS[begin:end], None

        def identity(self) -> str:
            return "rows that end"

    descent = gdc.descend("linear-regression", Blocks(Interrupted(), rows=8), "numpy", epochs=9, chunk=9)

    assert (descent.stop_reason, descent.steps) == ("interrupted", 2)


def test_a_full_gradient_is_that_of_all_rows(backend_name: str) -> None:
    params = {"theta_0": 0.5, "theta_1": [1.0, 2.0, 3.0]}
    for reduction in ("mean", "sum"):
        loss, gradient = gdc.value_and_grad("linear-regression", blocks(), params, backend_name, reduction=reduction)
        due_loss, due = gdc.value_and_grad(
            "linear-regression", (FEATURES, TARGETS), params, backend_name, reduction=reduction
        )
        assert loss == pytest.approx(due_loss, rel=1e-13)
        np.testing.assert_allclose(gradient["theta_1"], due["theta_1"], rtol=1e-12)


@given(
    n=st.integers(1, 90),
    block=st.integers(1, 100),
    seed=st.integers(0, 3),
    pieces=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    data=st.data(),
)
def test_the_stream_depends_on_no_pieces_and_holds_each_row_once(
    n: int, block: int, seed: int, pieces: list[int], data: st.DataObject
) -> None:
    batch = data.draw(st.integers(1, n))
    epoch = steps_per_epoch(n, batch)
    rows, weights = BlockStream(n, batch, seed, block).take(3 * epoch)
    stream = BlockStream(n, batch, seed, block)
    parts = [stream.take(each)[0] for each in pieces]
    skipped = BlockStream(n, batch, seed, block)
    skipped.skip(epoch)

    assert np.array_equal(np.concatenate(parts)[: 3 * epoch], rows[: sum(pieces)])
    assert np.array_equal(skipped.take(epoch)[0], rows[epoch : 2 * epoch])
    counted = np.ones(rows.shape) if weights is None else weights
    for each in range(3):
        now = slice(each * epoch, (each + 1) * epoch)
        assert sorted(rows[now][counted[now] > 0]) == list(range(n))


def test_a_batch_has_rows_of_few_blocks() -> None:
    rows, _ = BlockStream(10_000, 100, 0, 1000).take(100)

    assert max(len(set(batch // 1000)) for batch in rows) == 1
    assert len({tuple(sorted(batch)) for batch in rows}) == 100


def test_what_is_not_for_blocks_says_so() -> None:
    params = {"theta_0": 0.5, "theta_1": [1.0, 2.0, 3.0]}
    with pytest.raises(ValueError, match=r"data in blocks are for value_and_grad, descend.*data\.block\(0\)"):
        gdc.per_sample_grad("linear-regression", blocks(), params, "numpy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="come with the blocks"):
        gdc.value_and_grad("linear-regression", blocks(), params, "numpy", weights=np.ones(53))
    data = blocks(np.where(np.arange(53) == 40, 0, WEIGHTS))
    with pytest.raises(ValueError, match=r"row \d+ has weight 0"):
        gdc.descend("linear-regression", data, "numpy", batch_size=4, epochs=1)


class Failing:
    """Rows whose file is gone after some reads."""

    def __init__(self, most: int | None = None) -> None:
        self._source, self._most, self.reads = InMemory(FEATURES, TARGETS), most, 0

    @property
    def rows(self) -> int:
        return self._source.rows

    def read(self, begin: int, end: int) -> Arrays:
        if self.reads == self._most:
            raise OSError("the file is gone")
        self.reads += 1
        return self._source.read(begin, end)

    def identity(self) -> str:
        return "rows"


@pytest.mark.parametrize("done", [0, 1, 9])
def test_steps_before_rows_that_cannot_be_read_are_not_lost(tmp_path: Path, done: int) -> None:
    def path(source: Failing, **options: Any) -> gdc.Descent:
        return gdc.descend("linear-regression", Blocks(source, rows=8), "numpy", epochs=20, **options)

    due = path(whole := Failing())
    a_step = (whole.reads - 1) // 20
    with pytest.raises((OSError, ValueError), match="the file is gone"):
        path(Failing(1 + done * a_step + 3), checkpoint=tmp_path)

    resumed = path(rest := Failing(), checkpoint=tmp_path, resume=True)

    assert bits(resumed) == bits(due)
    assert rest.reads == 1 + (20 - done) * a_step
