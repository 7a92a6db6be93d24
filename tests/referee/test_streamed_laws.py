"""The batch laws on data in blocks hold for right backends, and name the block and the rows that break them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gdcompare_numpy import NumpyBackend
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.data.blocks import Blocks, InMemory
from gdcompare.referee import streamed_laws
from gdcompare.referee.verdict import Report
from gdcompare.scale import connection
from gdcompare.scale.connection import ClusterError
from tests.scale.small_cluster import threads

RNG = np.random.default_rng(0)
FEATURES, TARGETS, WEIGHTS = RNG.standard_normal((50, 3)), RNG.standard_normal(50), RNG.uniform(0.5, 2, 50)
WEIGHTS[:14] = WEIGHTS[20] = 0.0
AT = {"theta_0": 0.3, "theta_1": [0.1, 0.2, -0.3]}
ROWS, MEANS, SUMS = "mean of per-sample gradients", "weighted mean of the blocks", "sum = n x mean"


def in_blocks(weights: NDArray[Any] | None = None) -> Blocks:
    return Blocks(InMemory(FEATURES, TARGETS, weights), rows=7)


def verdicts(report: Report) -> dict[tuple[str, str], str]:
    return {(entry.law, entry.parameter): entry.verdict for entry in report.entries}


@pytest.mark.thorough_on("autograd", "jax")
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_laws_hold_for_every_backend(backend_name: str, dtype: str, weights: NDArray[Any] | None) -> None:
    report = gdc.check_batch_laws("linear-regression", in_blocks(weights), AT, backend_name, dtype=dtype)

    report.assert_agree()
    assert list(dict.fromkeys(entry.law for entry in report.entries)) == [ROWS, MEANS, SUMS]
    assert "permutation" in report.entries[0].cause
    assert all(entry.digits >= (12 if dtype == "float64" else 4) for entry in report.entries)


def test_truths_are_those_of_all_rows() -> None:
    report = gdc.check_batch_laws("linear-regression", in_blocks(WEIGHTS), AT, "numpy")

    whole = gdc.Dataset(FEATURES, TARGETS, weights=WEIGHTS)
    _, gradient = gdc.value_and_grad("linear-regression", whole, AT, "numpy")
    for entry in report.entries:
        factor = WEIGHTS.sum() if entry.law == SUMS else 1.0
        assert entry.worst_index is not None
        assert entry.expected == pytest.approx(factor * gradient[entry.parameter][entry.worst_index], rel=1e-13)


def test_laws_hold_to_the_last_bit_on_integer_lattices() -> None:
    lattice = gdc.datasets.integer_lattice(samples=16)
    blocks = Blocks(InMemory(lattice.features, lattice.targets), rows=4)

    report = gdc.check_batch_laws("linear-regression", blocks, {"theta_0": 1, "theta_1": [2, -1, 3]}, "numpy")

    report.assert_agree()
    assert all(entry.error_ulps == 0 and entry.detectable < 1e-300 for entry in report.entries)


def mean(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
    r = params["theta_0"] + features @ params["theta_1"] - targets
    return np.mean(r**2), {"theta_0": 2 * np.mean(r), "theta_1": 2 * r @ features / len(r)}


def rows(params: Any, features: Any, targets: Any) -> dict[str, Any]:
    r = params["theta_0"] + features @ params["theta_1"] - targets
    return {"theta_0": 2 * r, "theta_1": 2 * r[:, None] * features}


def test_a_row_that_is_wrong_is_named_by_its_number_among_all() -> None:
    def spoilt(params: Any, features: Any, targets: Any) -> dict[str, Any]:
        found = rows(params, features, targets)
        found["theta_1"][targets == TARGETS[24]] *= 1.5
        return found

    report = gdc.check_batch_laws("linear-regression", in_blocks(), AT, mean, per_sample=spoilt)

    assert verdicts(report) == {
        (ROWS, "theta_0"): "agree",
        (ROWS, "theta_1"): "wrong",
        (MEANS, "theta_0"): "agree",
        (MEANS, "theta_1"): "agree",
    }
    said = "wrong in 1 of 8 blocks, most in block 3 (rows 21 to 27): wrong in 1 of 7 samples: 24 (a constant factor 1.5"
    assert report.entries[1].cause.startswith(said)


def test_a_short_last_block_that_is_divided_as_a_full_one_is_named() -> None:
    def full(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
        loss, gradient = mean(params, features, targets)
        return loss, {name: each * (len(targets) / 7) for name, each in gradient.items()}

    report = gdc.check_batch_laws("linear-regression", in_blocks(), AT, full)

    assert verdicts(report) == {(MEANS, "theta_0"): "wrong", (MEANS, "theta_1"): "wrong"}
    assert report.entries[1].cause == "wrong in 1 of 8 blocks, most in block 7 (row 49): 0.1428571429 times the truth"


def test_what_is_no_gradient_is_said_with_its_block() -> None:
    def narrow(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
        loss, gradient = mean(params, features, targets)
        return loss, gradient | {"theta_1": gradient["theta_1"][: len(targets) - 4]}

    report = gdc.check_batch_laws("linear-regression", in_blocks(), AT, narrow)

    assert report.verdict == "wrong"
    assert report.entries[0].cause.startswith("block 7 (row 49): shape (0,) where (3,) belongs")


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="the weights of 'data' are all zero"):
        gdc.check_batch_laws("linear-regression", in_blocks(np.zeros(50)), AT, "numpy")


# By workers


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with threads(2) as found:
        yield found


@pytest.fixture
def shares(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks a share, four in all, and two workers."""
    monkeypatch.setattr(streamed_laws, "TOGETHER", 14)
    monkeypatch.setattr(connection, "connected", lambda *_: client)
    monkeypatch.setattr(client, "close", lambda timeout: None)


@pytest.mark.thorough
@pytest.mark.usefixtures("shares")
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_the_laws_that_workers_check_are_those_of_one_process(weights: NDArray[Any] | None) -> None:
    here = gdc.check_batch_laws("linear-regression", in_blocks(weights), AT, "numpy")
    there = gdc.check_batch_laws("linear-regression", in_blocks(weights), AT, "numpy", scheduler="tcp://x:1")

    assert there.to_json() == here.to_json()
    assert there.verdict == "agree"


@pytest.mark.thorough
@pytest.mark.usefixtures("shares")
def test_workers_read_files_where_they_lie(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", FEATURES)
    np.save(tmp_path / "y.npy", TARGETS)
    files = gdc.datasets.blocks(tmp_path / "x.npy", tmp_path / "y.npy", rows=7)

    gdc.check_batch_laws("linear-regression", files, AT, "numpy", scheduler="tcp://x:1").assert_agree()


@pytest.mark.thorough
@pytest.mark.usefixtures("shares")
def test_what_is_wrong_in_a_share_is_named_as_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = NumpyBackend.value_and_grad

    def spoilt(self: Any, problem: Any, reduction: Any = "mean") -> Any:
        right = compute(self, problem, reduction)

        def function(params: Any, features: Any, targets: Any, *weights: Any) -> Any:
            loss, gradient = right(params, features, targets, *weights)
            return loss, {name: each * (1 + (features[0, 0] == FEATURES[35, 0])) for name, each in gradient.items()}

        return function

    monkeypatch.setattr(NumpyBackend, "value_and_grad", spoilt)
    here = gdc.check_batch_laws("linear-regression", in_blocks(), AT, "numpy")
    there = gdc.check_batch_laws("linear-regression", in_blocks(), AT, "numpy", scheduler="tcp://x:1")

    assert there.to_json() == here.to_json()
    assert any("wrong in 1 of 8 blocks, most in block 5 (rows 35 to 41): 2 times" in e.cause for e in there.entries)


@pytest.mark.thorough
@pytest.mark.usefixtures("shares")
def test_rows_that_a_problem_cannot_take_are_said_as_in_one_process() -> None:
    labels = np.zeros(50)
    labels[33] = 0.5
    rows = Blocks(InMemory(FEATURES, labels), rows=7)
    with pytest.raises(ValueError, match="row") as here:
        gdc.check_batch_laws("logistic-regression", rows, AT, "numpy")
    with pytest.raises(ValueError, match="row") as there:
        gdc.check_batch_laws("logistic-regression", rows, AT, "numpy", scheduler="tcp://x:1")

    assert str(there.value) == str(here.value)


@pytest.mark.usefixtures("shares")
def test_what_workers_could_not_check_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(streamed_laws, "_share", fails)

    with pytest.raises(ClusterError, match=r"^rows 0 to 13 of 'data': on worker \S+ MemoryError: no more$"):
        gdc.check_batch_laws("linear-regression", in_blocks(), AT, "numpy", scheduler="tcp://x:1")


def test_shares_join_to_the_last_bit_where_nothing_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_laws, "TOGETHER", 4)
    test_laws_hold_to_the_last_bit_on_integer_lattices()


@pytest.mark.usefixtures("shares")
def test_rows_in_memory_are_cut_into_blocks_for_workers() -> None:
    report = gdc.check_batch_laws(
        "linear-regression", gdc.Dataset(FEATURES, TARGETS), AT, "numpy", scheduler="tcp://x:1"
    )

    report.assert_agree()
    assert "as the data are in blocks" in report.entries[0].cause
