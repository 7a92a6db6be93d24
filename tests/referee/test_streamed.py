"""Verdicts on data in blocks are those on the same rows in memory, and name the block or the sum that is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.backend import Precision
from gdcompare.case import Case
from gdcompare.data.blocks import Arrays, Blocks, InMemory
from gdcompare.referee.blockwise import Block
from gdcompare.referee.point import Referee
from gdcompare.referee.streamed import verify_blocks
from gdcompare.referee.summed import Part, Summed
from gdcompare.referee.verdict import LOSS, Report
from gdcompare.scale.sums import Here
from tests.deep_formulas import FORMULAS
from tests.faulty_sums import (
    Fault,
    Faulty,
    Leaves,
    full_blocks,
    in_float32,
    means_of_means,
    twice,
    undivided,
    without_a_row,
    without_blocks,
)
from tests.formulas import Network

RNG = np.random.default_rng(0)
FEATURES, TARGETS, WEIGHTS = RNG.standard_normal((50, 3)), RNG.standard_normal(50), RNG.uniform(0.5, 2, 50)
AT = {"theta_0": 0.3, "theta_1": [0.1, 0.2, -0.3]}
MEAN, SUM = "linear-regression", "theta_1"


def in_blocks(rows: int = 7, weights: NDArray[Any] | None = None) -> Blocks:
    return Blocks(InMemory(FEATURES, TARGETS, weights), rows=rows)


def cause(report: Report, parameter: str = "theta_1") -> str:
    return next(entry.cause for entry in report.entries if entry.parameter == parameter)


def summed(case: Case, blocks: Blocks) -> Summed:
    """Return what is known of all rows, for programs of the loss."""
    shapes = {LOSS: (), **{name: value.shape for name, value in case.params.items()}}
    found = Summed(shapes, blocks.count, case.dtype, case.reduction)
    for index in range(blocks.count):
        block = Block(case, blocks, index)
        referee = block.referee("sum")
        allowed = referee.allowances(by_hand=False)
        part = Part(referee.truths, allowed, allowed, referee.magnitudes, referee.weights, len(block.data))
        found.add(index, part)
    return found


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_backend_agrees_on_blocks_as_in_memory(
    backend_name: str, dtype: str, weights: NDArray[Any] | None, reduction: str
) -> None:
    whole = gdc.Dataset(FEATURES, TARGETS, weights=weights)
    how: dict[str, Any] = {"backends": [backend_name], "dtype": dtype, "reduction": reduction}

    report = gdc.verify("linear-regression", in_blocks(weights=weights), AT, **how)

    in_memory = gdc.verify("linear-regression", whole, AT, **how)
    report.assert_agree()
    in_memory.assert_agree()
    expected = {entry.parameter: entry for entry in in_memory.entries}
    assert {entry.parameter for entry in report.entries} == set(expected)
    for entry in report.entries:
        assert entry.resolved == expected[entry.parameter].resolved
        assert (entry.grade, entry.digits > 0) == (expected[entry.parameter].grade, True)
        if entry.worst_index == expected[entry.parameter].worst_index:
            assert entry.expected == expected[entry.parameter].expected


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rows", [1, 7, 50, 64])
def test_truths_are_those_of_all_rows_at_once(weights: NDArray[Any] | None, reduction: str, rows: int) -> None:
    case = Case.of("poisson-regression", (FEATURES, np.round(TARGETS**2)), AT, reduction=reduction, weights=weights)
    blocks = Blocks(InMemory(FEATURES, np.round(TARGETS**2), weights), rows=rows)

    found = summed(case, blocks).truths

    for name, truth in Referee(case).truths.items():
        for one, other in zip(found[name].balls.ravel(), truth.balls.ravel(), strict=True):
            assert one.overlaps(other)
            assert float(one.rad()) <= 2.0**-90 * abs(float(other))


@pytest.mark.thorough
def test_the_budget_grows_with_a_block_and_the_depth_of_the_tree() -> None:
    rng = np.random.default_rng(1)
    features, targets = rng.standard_normal((120, 2)), rng.standard_normal(120)
    case = Case.of("linear-regression", (features, targets), {"theta_0": 0.3, "theta_1": [0.1, 0.2]})

    at_once = Referee(case).allowances(by_hand=False)
    by_10 = summed(case, Blocks(InMemory(features, targets), rows=10)).allowances()
    by_1 = summed(case, Blocks(InMemory(features, targets), rows=1)).allowances()

    for name in case.params:
        assert np.all(by_10[name].budget < at_once[name].budget / 5)
        assert np.all(by_1[name].budget < by_10[name].budget / 1.2)  # 7 additions, not 4 after 10


def test_nothing_is_allowed_where_nothing_is_rounded() -> None:
    lattice = gdc.datasets.integer_lattice(samples=16)
    blocks = Blocks(InMemory(lattice.features, lattice.targets), rows=4)

    report = gdc.verify("linear-regression", blocks, {"theta_0": 1, "theta_1": [2, -1, 3]}, backends=["numpy"])

    report.assert_agree()
    assert all(entry.error_ulps == 0 and entry.detectable < 1e-300 for entry in report.entries)


@pytest.mark.thorough_on("autograd", "jax", "torch")
def test_blocks_and_rows_of_weight_0_count_for_nothing(backend_name: str) -> None:
    weights = WEIGHTS.copy()
    weights[:14] = weights[20:28] = weights[-3:] = 0.0

    report = gdc.verify(
        "linear-regression", in_blocks(weights=weights), AT, backends=[backend_name], implementations={"mine": mine}
    )

    report.assert_agree()
    expected, _ = gdc.value_and_grad(
        "linear-regression", gdc.Dataset(FEATURES, TARGETS, weights=weights), AT, backend_name
    )
    assert report.entries[0].expected == pytest.approx(expected, rel=1e-14)


def test_the_report_says_how_functions_were_called_and_how_many_blocks_there_are() -> None:
    report = gdc.verify("linear-regression", in_blocks(), AT, backends=["numpy"], implementations={"mine": mine})

    first = str(report).splitlines()[0]
    assert "n = 50, d = 3, 8 blocks of 7 rows" in first
    assert "functions called block by block, their means weighted by their rows" in first
    assert report.context["blocks"] == 8


def test_a_function_may_return_no_loss() -> None:
    def gradient_alone(params: Any, features: Any, targets: Any) -> tuple[None, dict[str, Any]]:
        return None, mine(params, features, targets)[1]

    report = gdc.verify("linear-regression", in_blocks(), AT, backends=[], implementations={"mine": gradient_alone})

    report.assert_agree()
    assert [entry.parameter for entry in report.entries] == ["theta_0", "theta_1"]


def test_an_approximation_that_is_off_is_said_to_be_one() -> None:
    blocks = Blocks(InMemory(FEATURES, np.round(TARGETS**2)), rows=7)

    report = gdc.verify("poisson-regression", blocks, AT, backends=["finite-differences"])

    assert report.verdict == "wrong"
    assert "in all 8 blocks" in cause(report)
    assert "an approximation by" in cause(report)


def test_sums_too_large_for_float64_are_inconclusive_and_said_to_be() -> None:
    features = FEATURES.copy()
    features[30] *= 1e160

    report = gdc.verify("linear-regression", Blocks(InMemory(features, TARGETS), rows=7), AT, backends=["numpy"])

    assert report.verdict == "inconclusive"
    assert cause(report, "loss") == "a sum over a block is larger than float64 holds"


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_the_worst_case_is_blind_rounding_is_sampled_block_by_block(dtype: Precision) -> None:
    pytest.importorskip("autograd", reason="it has no derivation by hand")
    data, params = FORMULAS["attention, 2 layers"].drawn(np.random.default_rng(0), 1.0)
    problem, blocks = FORMULAS["attention, 2 layers"].problem, Blocks(InMemory(data.features, data.targets), rows=3)
    how: dict[str, Any] = {"backends": ["autograd"], "dtype": dtype}

    report = gdc.verify(problem, blocks, params, **how)
    proven = gdc.verify(problem, blocks, params, proven_only=True, **how)

    report.assert_agree()
    assert "sampled" in {entry.grade for entry in report.entries}
    assert {entry.grade for entry in proven.entries} == {"proven"}
    assert proven.verdict == ("inconclusive" if dtype == "float32" else "agree")


# Where the loss bends.


FLAT = {"inner": np.zeros((1, 1)), "offsets": np.zeros(1), "outer": np.array([1.0]), "shift": 0.25}
BENT = gdc.Dataset(np.round(FEATURES[:6, :1]), TARGETS[:6])
RELU = Network("relu", 1)


@pytest.mark.thorough_on("autograd", "jax", "torch")
def test_kinks_in_blocks_are_sets(backend_name: str) -> None:
    blocks = Blocks(InMemory(BENT.features, BENT.targets), rows=4)

    report = gdc.verify(RELU, blocks, FLAT, backends=[backend_name])

    report.assert_agree()
    assert any("a kink" in entry.cause for entry in report.entries)
    assert report.context["kinks"][0].startswith("block 0 (rows 0 to 3): maximum at 4 places")


@pytest.mark.thorough
def test_what_no_side_of_a_kink_has_is_wrong() -> None:
    blocks = Blocks(InMemory(BENT.features, BENT.targets), rows=4)

    def beyond(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
        loss, gradient = gdc.value_and_grad(RELU, (features, targets), params, "numpy")
        return loss, gradient | {"inner": gradient["inner"] + 100.0}

    report = gdc.verify(RELU, blocks, FLAT, backends=[], implementations={"beyond": beyond})

    assert {entry.verdict for entry in report.entries if entry.parameter == "inner"} == {"wrong"}


# Functions that are wrong.


def mine(params: Any, features: Any, targets: Any, weights: Any = None) -> tuple[Any, dict[str, Any]]:
    """Return a right answer, by hand."""
    shares = np.full(len(targets), 1 / len(targets)) if weights is None else weights / weights.sum()
    r = params["theta_0"] + features @ params["theta_1"] - targets
    return shares @ r**2, {"theta_0": 2 * shares @ r, "theta_1": 2 * (shares * r) @ features}


def flipped(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
    loss, gradient = mine(params, features, targets)
    return loss, gradient | {"theta_1": -gradient["theta_1"]}


def summing(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
    loss, gradient = mine(params, features, targets)
    return loss, gradient | {"theta_1": len(targets) * gradient["theta_1"]}


def off_in_one(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
    loss, gradient = mine(params, features, targets)
    here = targets[0] == TARGETS[21]
    return loss, gradient | {"theta_1": gradient["theta_1"] * (1 + 8e-15 * here)}


def off_in_the_last(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
    loss, gradient = mine(params, features, targets)
    return loss, gradient | {"theta_1": gradient["theta_1"] / (7 / len(targets))}


def raising(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
    if len(targets) < 7:
        raise ZeroDivisionError("a short batch")
    return mine(params, features, targets)


def narrowing(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
    loss, gradient = mine(params, features, targets)
    return loss, gradient | {"theta_1": gradient["theta_1"][: len(targets) - 4]}


def single(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
    loss, gradient = mine(params, features, targets)
    return loss, gradient | {"theta_1": gradient["theta_1"].astype(np.float32)}


def scribbling(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
    found = mine(params, features, targets)
    features[:] = 0.0
    return found


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (flipped, "wrong in all 8 blocks, most in block 4 (rows 28 to 34): the sign is flipped"),
        (
            summing,
            "wrong in 7 of 8 blocks, most in block 4 (rows 28 to 34): a factor n = 7: a sum where a mean",
        ),
        (off_in_one, "wrong in 1 of 8 blocks, most in block 3 (rows 21 to 27), whose sum this is: "),
        (off_in_the_last, "wrong in 1 of 8 blocks, most in block 7 (row 49): "),
        (raising, "block 7 (row 49): it raised ZeroDivisionError: a short batch"),
        (narrowing, "block 7 (row 49): shape (0,) where (3,) belongs"),
        (single, "block 0 (rows 0 to 6): dtype float32 where float64 belongs"),
        (scribbling, "block 0 (rows 0 to 6): it changed its inputs: features"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_functions_that_are_wrong_are_told_in_which_block(function: Any, said: str) -> None:
    report = gdc.verify("linear-regression", in_blocks(), AT, backends=[], implementations={"mine": function})

    assert report.verdict == "wrong"
    assert any(said in entry.cause for entry in report.entries), [entry.cause for entry in report.entries]


@pytest.mark.thorough
def test_a_block_that_is_wrong_is_wrong_however_little_it_matters_to_all() -> None:
    many = np.concatenate([FEATURES] * 16), np.concatenate([TARGETS] * 16)
    blocks = Blocks(InMemory(*many), rows=50)
    calls = []

    def rarely(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
        calls.append(0)
        loss, gradient = mine(params, features, targets)
        return loss, gradient | {"theta_1": gradient["theta_1"] * (1 + 2e-13 * (len(calls) == 10))}

    entry = gdc.verify("linear-regression", blocks, AT, backends=[], implementations={"mine": rarely}).entries[2]

    assert entry.verdict == "wrong"
    assert entry.cause.endswith("not deterministic: asked again it is right")


def test_a_function_that_differs_between_its_calls_is_told_so() -> None:
    calls = []

    def differing(params: Any, features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
        calls.append(0)
        loss, gradient = mine(params, features, targets)
        return loss, gradient | {"theta_1": gradient["theta_1"] * (1 + 2e-16 * (len(calls) % 2))}

    report = gdc.verify("linear-regression", in_blocks(), AT, backends=[], implementations={"mine": differing})

    assert report.verdict == "agree"
    assert cause(report) == "block 0 (rows 0 to 6): not deterministic: two calls differ, within the budget"


@pytest.mark.thorough
def test_a_tolerance_is_for_all_rows() -> None:
    how: dict[str, Any] = {"backends": [], "implementations": {"mine": off_in_one}}

    assert gdc.verify("linear-regression", in_blocks(), AT, rtol=1e-9, **how).verdict == "agree"
    assert gdc.verify("linear-regression", in_blocks(), AT, rtol=1e-18, **how).verdict == "wrong"


# Sums that are wrong, of blocks that are right.

FAULTS = [
    (without_blocks(2), "block 2 (rows 14 to 20) is left out, in the divisor, too"),
    (without_blocks(2, divisor=False), "block 2 (rows 14 to 20) is left out"),
    (without_blocks(2, 3, 4), "blocks 2 to 4 (rows 14 to 34) are left out, in the divisor, too"),
    (without_blocks(2, 3, 4, divisor=False), "blocks 2 to 4 (rows 14 to 34) are left out"),
    (twice, "block 3 (rows 21 to 27) is taken twice, in the divisor, too"),
    (means_of_means, "the mean of the means of 8 blocks, whatever they weigh"),
    (full_blocks, "divided by 8 x 7 rows: the last block has fewer"),
    (undivided, "a sum where a mean belongs"),
    (in_float32, "of what adds up, as sums in float32 are"),
    (without_a_row, "row 17 is left out, in the divisor, too"),
]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_sums_that_are_wrong_are_found_and_named(weights: NDArray[Any] | None, fault: Fault, said: str) -> None:
    blocks = in_blocks(weights=weights)

    report = verify_blocks(
        "linear-regression", blocks, AT, backends=["numpy"], workers=lambda sums: Faulty(fault, sums)
    )

    assert [entry.verdict for entry in report.entries if entry.parameter == "theta_1"] == ["wrong"]
    assert cause(report).startswith("each block is right by itself, and their sum is not: ")
    assert said in cause(report)


def test_workers_that_do_as_this_process_does_agree() -> None:
    verify_blocks("linear-regression", in_blocks(), AT, backends=["numpy"], workers=Here).assert_agree()


def test_a_mean_in_place_of_a_sum_is_named() -> None:
    def mean(leaves: Leaves, *_: Any) -> Any:
        return sum(leaves) / 50

    report = verify_blocks(
        "linear-regression", in_blocks(), AT, backends=["numpy"], reduction="sum",
        workers=lambda sums: Faulty(mean, sums),
    )  # fmt: skip

    assert cause(report).endswith("a mean where a sum belongs")


# What is not done.


@pytest.mark.parametrize("derivative", ["jvp", "hvp", "hessian"])
def test_other_derivatives_are_refused_with_a_way_out(derivative: str) -> None:
    with pytest.raises(ValueError, match=rf"not derivative='{derivative}'; give rows .* data\.block\(0\)"):
        gdc.verify("linear-regression", in_blocks(), AT, derivative=derivative)


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="the weights of 'data' are all zero"):
        gdc.verify("linear-regression", in_blocks(weights=np.zeros(50)), AT, backends=["numpy"])


def test_a_row_that_is_no_number_is_named() -> None:
    features = FEATURES.copy()
    features[33, 1] = np.nan

    with pytest.raises(ValueError, match=r"row 5, column 1.*from row 28 on"):
        gdc.verify("linear-regression", Blocks(InMemory(features, TARGETS), rows=7), AT, backends=["numpy"])


def test_each_block_is_read_once() -> None:
    reads: list[int] = []

    class Counted:
        rows = 50

        def read(self, begin: int, end: int) -> Arrays:
            reads.append(begin)
            return FEATURES[begin:end], TARGETS[begin:end], None

        def identity(self) -> str:
            return "counted"

    blocks = Blocks(Counted(), rows=7)
    reads.clear()
    gdc.verify("linear-regression", blocks, AT, backends=["numpy"], implementations={"mine": mine})

    assert reads == list(range(0, 50, 7))
