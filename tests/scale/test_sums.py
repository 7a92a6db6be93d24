"""Sums over blocks are the gradients of all rows, the same to the last bit by whoever works out which."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gdcompare as gdc
from gdcompare.data.blocks import Blocks, InMemory
from gdcompare.registry import as_backend, as_problem
from gdcompare.scale.sums import Here, Sums
from gdcompare.scale.tree import Tree

RNG = np.random.default_rng(0)
FEATURES, TARGETS = RNG.standard_normal((50, 3)), RNG.standard_normal(50)
WEIGHTS = RNG.integers(0, 3, 50).astype(float)
PARAMS = {"theta_0": np.array(0.5), "theta_1": np.array([0.1, -0.2, 0.3])}


def sums(backend: str, rows: int, weights: np.ndarray | None = None, dtype: str = "float64") -> Sums:
    blocks = Blocks(InMemory(FEATURES, TARGETS, weights), rows=rows)
    return Sums(as_problem("linear-regression"), as_backend(backend, dtype), blocks)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("rows", [1, 7, 50, 64])
def test_means_are_those_of_all_rows(backend_name: str, rows: int, weights: np.ndarray | None) -> None:
    ours = sums(backend_name, rows, weights)
    loss, gradient = ours.reduced(PARAMS, Here(ours).total(PARAMS))

    due_loss, due = gdc.value_and_grad(
        "linear-regression", gdc.Dataset(FEATURES, TARGETS, weights=weights), PARAMS, "numpy"
    )
    assert loss == pytest.approx(due_loss, rel=1e-13)
    for name, each in due.items():
        np.testing.assert_allclose(gradient[name], each, rtol=1e-12)


@given(st.lists(st.integers(0, 2), min_size=8, max_size=8))
def test_any_shares_give_the_same_bits(whose: list[int]) -> None:
    ours = sums("numpy", 7)
    tree = Tree(ours.blocks.count)
    for worker in range(3):
        tree.join(ours.nodes(PARAMS, [i for i, each in enumerate(whose) if each == worker]))

    assert tree.total.tobytes() == Here(ours).total(PARAMS).tobytes()


def test_targets_are_checked_in_every_block() -> None:
    labels = (TARGETS > 0).astype(float)
    labels[33] = 0.5
    ours = Sums(as_problem("logistic-regression"), as_backend("numpy"), Blocks(InMemory(FEATURES, labels), rows=10))

    with pytest.raises(ValueError, match=r"row 3 of 'data from row 30 on' has 0\.5"):
        Here(ours).total(PARAMS)


def test_numbers_too_large_for_the_dtype_are_refused() -> None:
    features = FEATURES.copy()
    features[33, 0] = 1e39
    ours = Sums(
        as_problem("linear-regression"), as_backend("numpy", "float32"), Blocks(InMemory(features, TARGETS), rows=10)
    )

    with pytest.raises(ValueError, match="too large for float32"):
        Here(ours).total(PARAMS)


def test_the_bits_do_not_depend_on_how_rows_lie_in_memory(backend_name: str) -> None:
    def steps(features: np.ndarray) -> list[bytes]:
        blocks = Blocks(InMemory(features, np.tile(TARGETS, 20)), rows=400)
        ours = Sums(as_problem("linear-regression"), as_backend(backend_name), blocks)
        return [Here(ours).total(PARAMS).tobytes() for _ in range(2)]  # checked the first time, then as they come

    rows = np.tile(FEATURES, (20, 1))
    assert steps(np.asfortranarray(rows)) == steps(rows) == steps(np.repeat(rows, 2, axis=1)[:, ::2])


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    torch = pytest.importorskip("torch")
    rows = np.tile(FEATURES, (200, 1))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            blocks = Blocks(InMemory(rows, np.tile(TARGETS, 200)), rows=10_000)
            ours = Sums(as_problem("linear-regression"), as_backend("torch"), blocks)
            found.append(Here(ours).total(PARAMS).tobytes())
            assert torch.get_num_threads() == threads  # as it was
    finally:
        torch.set_num_threads(before)

    assert len(set(found)) == 1


def test_what_is_kept_is_not_read_again() -> None:
    ours = sums("numpy", 7)
    due = Here(ours).total(PARAMS).tobytes()
    keeping = Sums(ours.problem, ours.backend, ours.blocks, lambda index, arrays: arrays if index != 3 else None)
    Here(keeping).total(PARAMS)
    read = []
    keeping.arrays = lambda index: read.append(index) or ours.arrays(index)  # type: ignore[method-assign,func-returns-value]

    assert Here(keeping).total(PARAMS).tobytes() == due
    assert read == [3]
    keeping.forget(lambda index: index != 5)
    assert Here(keeping).total(PARAMS).tobytes() == due
    assert read == [3, 3, 5]
