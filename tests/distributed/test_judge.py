"""Gradients of several ranks, played in one process: what is right agrees, and each fault has its name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.distributed import Piece, Step
from tests.distributed.world import EQUAL, MICRO, UNEQUAL, Gradient, World, added, mean

TRANSPOSED = (
    "(by a collective, or by the transpose of one: of a loss summed over the ranks, or of parameters that they share)"
)
THOROUGH = pytest.mark.thorough


def shares(world: World) -> list[float]:
    sizes = [len(rows) for rows in world.shards]
    return [size / sum(sizes) for size in sizes]


def causes(report: gdc.Report, law: str) -> set[str]:
    return {entry.cause for entry in report.entries if entry.law.startswith(law)}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shards", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_right_gradients_agree(shards: Any, dtype: str) -> None:
    world = World(shards, "tanh-network", dtype=dtype)
    own = world.own()

    report = world.judge(local=own, reduced=added(own, shares(world)))

    assert report.verdict == "agree"
    assert all(entry.digits > 2 for entry in report.entries)
    assert {entry.law for entry in report.entries} == {"own shard", "reduced"}


def test_weights_before_a_mean_over_ranks_agree_where_they_are_stated() -> None:
    world = World(UNEQUAL)
    factors = [3 * share for share in shares(world)]
    own = [added([each], [factor]) for each, factor in zip(world.own(), factors, strict=True)]

    assert world.judge(local=own, reduced=mean(own), factors=factors).verdict == "agree"
    unstated = world.judge(local=own, reduced=mean(own))
    assert causes(unstated, "reduced") == {""}
    assert "weighted by the shard's share of all rows, for a mean over ranks: what `factors` are for" in causes(
        unstated, "own"
    )


def test_accumulated_micro_batches_agree() -> None:
    world = World(MICRO)
    own = [mean([world.gradient(part) for part in rank]) for rank in MICRO]

    assert world.judge(local=own, reduced=mean(own), reductions=1).verdict == "agree"


def test_sums_over_the_rows_are_judged_as_sums() -> None:
    world = World(UNEQUAL)
    own = [added([each], [len(rows)]) for each, rows in zip(world.own(), UNEQUAL, strict=True)]

    assert world.judge(local=own, reduced=added(own), reduction="sum").verdict == "agree"
    averaged = world.judge(local=own, reduced=mean(own), reduction="sum")
    assert causes(averaged, "reduced") == {"averaged over the 3 ranks where it should be summed"}


def test_rows_of_a_rank_may_be_weighted() -> None:
    world = World(UNEQUAL)
    weights = np.arange(1.0, 10.0)
    world.data = gdc.Dataset(world.data.features, world.data.targets, weights=weights)
    own, parts = world.own(), [weights[rows].sum() / weights.sum() for rows in UNEQUAL]

    assert world.judge(local=own, reduced=added(own, parts)).verdict == "agree"
    unweighted = world.judge(local=own, reduced=added(own, shares(world)))
    assert unweighted.verdict == "wrong"
    assert causes(unweighted, "own") == {""}


@THOROUGH
def test_ranks_at_a_kink_agree() -> None:
    world = World(EQUAL, "relu-network")
    world.params = {name: np.where(value > 0, 0.0, value) for name, value in world.params.items()}
    own = world.own()

    assert world.judge(local=own, reduced=mean(own)).verdict != "wrong"


def others(rows: Any) -> Any:
    """Return the same but for rank 1, which takes the rows of rank 0."""
    return [rows[0], rows[0], *rows[2:]]


Fault = Callable[[list[Gradient], list[float]], Any]

FAULTS: dict[str, tuple[Any, Fault, str]] = {
    "summed": (
        EQUAL,
        lambda own, _: added(own),
        f"summed over the 3 ranks where it should be averaged: 3 times too large {TRANSPOSED}",
    ),
    "summed twice": (
        EQUAL,
        lambda own, _: added(own, divisor=1 / 3),
        "3^2 = 9 times too large: summed over the 3 ranks twice over; or a sum over the 9 rows where the mean belongs",
    ),
    "averaged twice": (EQUAL, lambda own, _: added(own, divisor=9), "averaged twice: divided by the 3 ranks once more"),
    "unweighted": (
        UNEQUAL,
        lambda own, _: mean(own),
        "averaged over the ranks without weights, and the shards have 4, 2 and 3 rows",
    ),
    "summed, unweighted": (
        UNEQUAL,
        lambda own, _: added(own),
        "summed over the ranks, neither averaged nor weighted; the shards have 4, 2 and 3 rows",
    ),
    "averaged twice, unweighted": (
        UNEQUAL,
        lambda own, _: added(own, divisor=9),
        "averaged twice, and without weights: divided by the 3 ranks once more",
    ),
    "dropped": (EQUAL, lambda own, _: mean(own[:2]), "rank 2's shard is missing"),
    "dropped, weighted": (
        UNEQUAL,
        lambda own, w: added(own[1:], w[1:], divisor=1 - w[0]),
        "rank 0's shard is missing",
    ),
    "dropped, and counted": (
        EQUAL,
        lambda own, _: added(own[1:], divisor=3),
        "rank 0's shard is missing, and the mean is taken as if it were there",
    ),
    "two dropped": (
        EQUAL,
        lambda own, _: own[1],
        "only rank 1's shard counts: the shards of ranks 0 and 2 are missing",
    ),
    "not synchronised": (EQUAL, lambda own, _: own, "not synchronised: each rank has the gradient of its own shard"),
    "its share": (
        UNEQUAL,
        lambda own, w: [added([each], [share]) for each, share in zip(own, w, strict=True)],
        "not synchronised: each rank has the share of its own shard, and no sum is taken",
    ),
    "another's rows": (
        UNEQUAL,
        lambda own, w: added(others(own), w),
        "rank 1 gives the gradient of the rows of rank 0: its own are not there",
    ),
    "twice": (EQUAL, lambda own, _: added([*own, own[1]], divisor=4), "rank 1's shard is counted twice"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_reduction_has_its_name(fault: str) -> None:
    shards, spoil, words = FAULTS[fault]
    world = World(shards)
    own = world.own()

    report = world.judge(local=own, reduced=spoil(own, shares(world)))

    assert report.verdict == "wrong"
    assert causes(report, "own shard") == {""}
    assert causes(report, "reduced") == {words}


def test_one_parameter_alone_may_be_left_out_of_the_reduction() -> None:
    world = World(EQUAL, "tanh-network")
    own = world.own()
    right = mean(own)
    reduced = [right | {"biases_0": each["biases_0"]} for each in own]

    report = world.judge(reduced=reduced)

    assert {entry.parameter for entry in report.entries if entry.verdict == "wrong"} == {"biases_0"}
    assert causes(report, "reduced") == {"", "not synchronised: each rank has the gradient of its own shard"}


def test_a_divisor_that_is_the_number_of_elements_is_named() -> None:
    world = World(EQUAL, "tanh-network")
    reduced = {name: np.asarray(3 * value / np.size(value)) for name, value in mean(world.own()).items()}

    found = {entry.parameter: entry.cause for entry in world.judge(reduced=reduced).entries}

    assert found["weights_0"] == "divided by the 12 elements, where the 3 ranks belong"
    assert found["biases_2"].startswith("summed over the 3 ranks")


@pytest.mark.parametrize(
    "kind", ["step", pytest.param("parameters", marks=THOROUGH), pytest.param("rows", marks=THOROUGH)]
)
def test_a_stale_rank_is_named(kind: str) -> None:
    world, before = World(UNEQUAL), World(UNEQUAL, seed=1)
    at: dict[str, Any] = {"params": before.params} if kind != "rows" else {}
    at |= {"data": before.data} if kind != "parameters" else {}
    own, old = world.own(), world.own(**at)
    mixed = [own[0], old[1], own[2]]
    words = {
        "parameters": "at the previous step's parameters",
        "rows": "of the previous step's rows",
        "step": "of the previous step: of its rows, at its parameters",
    }

    report = world.judge(local=mixed, reduced=added(mixed, shares(world)), previous=Step(**at))

    assert {each for each in causes(report, "own shard") if each} == {f"stale: the gradient {words[kind]}"}
    assert causes(report, "reduced") == {
        f"rank 1's shard is stale: its gradient is that {words[kind]}; the reduction is right, and what rank 1 gave to "
        "it is not"
    }
    everywhere = world.judge(reduced=added(old, shares(world)), previous=Step(**at))
    assert causes(everywhere, "reduced") == {f"all shards are stale: the gradient {words[kind]}"}


def test_a_gradient_that_was_not_set_to_zero_is_named() -> None:
    world, before = World(EQUAL), World(EQUAL, seed=1)
    own = [added(pair) for pair in zip(world.own(), world.own(data=before.data, params=before.params), strict=True)]

    report = world.judge(local=own, reduced=mean(own), previous=Step(before.params, before.data))

    words = "added to the previous step's gradient, which was not set to zero"
    assert causes(report, "own shard") == {words}
    assert causes(report, "reduced") == {f"{words}; the reduction is right, and what all ranks gave to it is not"}


def test_without_the_previous_step_a_stale_rank_is_wrong_all_the_same() -> None:
    world = World(EQUAL)
    own, old = world.own(), world.own(params=World(EQUAL, seed=1).params)
    mixed = [own[0], old[1], own[2]]

    report = world.judge(local=mixed, reduced=mean(mixed))

    assert {entry.implementation for entry in report.entries if entry.verdict == "wrong"} == {"rank 1", "all 3 ranks"}
    assert all("previous=Step(...) would let a stale shard be known" in each for each in causes(report, "own") if each)
    assert all(each.startswith("the reduction is right, and what rank 1 gave") for each in causes(report, "reduced"))


OWN_FAULTS: dict[str, tuple[Callable[[list[Gradient]], list[Gradient]], str]] = {
    "another's rows": (others, "the gradient of the rows of rank 0, and not of its own"),
    "reduced": (lambda own: [mean(own)] * 3, "it is reduced already: the gradient of all rows"),
    "times the ranks": (lambda own: [added([g], [3]) for g in own], "3 times too large, as often as there are ranks"),
    "divided": (lambda own: [added([g], divisor=3) for g in own], "divided by the 3 ranks already"),
    "zero": (lambda own: [own[0], added([own[1]], [0]), own[2]], "zero: the rank's rows do not count"),
}


@pytest.mark.parametrize("fault", OWN_FAULTS)
def test_a_fault_of_a_ranks_own_gradient_has_its_name(fault: str) -> None:
    spoil, words = OWN_FAULTS[fault]
    world = World(EQUAL)

    report = world.judge(local=spoil(world.own()))

    assert {each for each in causes(report, "own shard") if each} == {words}


def micro(world: World) -> list[list[Gradient]]:
    """Return what each micro-batch adds to its rank's gradient."""
    return [[added([world.gradient(part)], divisor=2) for part in rank] for rank in world.shards]


def test_faults_of_accumulation_have_their_names() -> None:
    world = World(MICRO)
    parts = micro(world)
    first = mean([rank[0] for rank in parts])
    last = mean([rank[1] for rank in parts])

    synchronised_first = world.judge(reduced=[added([first, rank[1]]) for rank in parts])
    overwritten = world.judge(reduced=last)
    summed = world.judge(reduced=mean([added(rank, [2, 2]) for rank in parts]))

    assert causes(synchronised_first, "reduced") == {
        "synchronised at the first micro-batch alone: the later ones are each rank's own"
    }
    assert causes(overwritten, "reduced") == {
        "only the last micro-batch of each rank counts: it took the place of those before it"
    }
    assert "the means over the micro-batches are summed: not divided by their number" in next(
        iter(causes(summed, "reduced"))
    )


def test_more_reductions_than_one_are_named_though_the_gradient_agrees() -> None:
    world = World(MICRO)
    parts = micro(world)
    first = mean([rank[0] for rank in parts])
    given = [added([first, rank[1]]) for rank in parts]

    report = world.judge(local=given, reduced=mean(given), reductions=[2, 2])

    assert {entry.parameter for entry in report.entries if entry.law == "reduced" and entry.verdict == "wrong"} == {
        "reductions"
    }
    assert "around the backward pass alone? It is the forward pass that heeds it" in report.entries[-1].cause
    assert causes(report, "own shard") == {
        "the micro-batches before the last are reduced already: synchronised at each of them"
    }
    never = world.judge(reduced=mean([added(rank) for rank in parts]), reductions=[1, 0])
    assert [(e.implementation, e.cause) for e in never.entries if e.verdict == "wrong"] == [
        ("rank 1", "not reduced in this step: is synchronisation switched off around the last forward pass?")
    ]


def pieces(gradient: Gradient, rank: int) -> dict[str, Any]:
    """Return a rank's part of two: the first half of each array, or the rest; of a scalar all, on rank 0."""
    found: dict[str, Any] = {}
    for name, value in gradient.items():
        if np.ndim(value) == 0:
            found[name] = Piece(value, ()) if rank == 0 else []
            continue
        cut = len(value) // 2
        start = (0 if rank == 0 else cut, *(0 for _ in value.shape[1:]))
        found[name] = Piece(value[:cut] if rank == 0 else value[cut:], start)
    return found


@THOROUGH
def test_pieces_are_judged_where_they_belong() -> None:
    world = World([[0, 1, 2], [3, 4, 5]], "tanh-network")
    own = world.own()
    right = mean(own)

    agreeing = world.judge(reduced=[pieces(right, rank) for rank in range(2)])
    unreduced = world.judge(reduced=[pieces(own[rank], rank) for rank in range(2)])
    off = {name: value.copy() for name, value in right.items()}
    off["weights_0"][2, 1] *= 1 + 1e-6
    spoilt = world.judge(reduced=[pieces(off, rank) for rank in range(2)])

    assert agreeing.verdict == "agree"
    assert causes(unreduced, "reduced") == {"not synchronised: each rank has the gradient of its own shard"}
    (wrong,) = [entry for entry in spoilt.entries if entry.verdict == "wrong"]
    assert (wrong.implementation, wrong.law, wrong.worst_index) == ("rank 1", "reduced [1:3, 0:4]", (2, 1))


def test_ranks_whose_last_bits_differ_are_told() -> None:
    world = World(EQUAL)
    right = mean(world.own())
    near = {name: np.nextafter(value, np.inf) for name, value in right.items()}

    report = world.judge(reduced=[right, right, near])

    assert report.verdict == "agree"
    assert {entry.implementation for entry in report.entries if entry.cause} == {"rank 2"}
    assert "not the bits of rank 0" in report.entries[-1].cause


def test_what_is_not_finite_is_wrong_and_no_mistake_between_ranks() -> None:
    world = World(EQUAL)
    right = mean(world.own())

    report = world.judge(reduced=right | {"theta_1": np.array([np.nan, 0, 0])})

    (wrong,) = [entry for entry in report.entries if entry.verdict == "wrong"]
    assert wrong.parameter == "theta_1"
    assert wrong.cause.startswith("no mistake between ranks explains it; nan in 1 of 3 elements")


def test_a_flipped_sign_is_named_as_for_one_machine() -> None:
    world = World(EQUAL)

    report = world.judge(reduced=added(world.own(), divisor=-3))

    assert causes(report, "reduced") == {"no mistake between ranks explains it; the sign is flipped"}


def test_a_clipped_gradient_is_named_as_for_one_machine() -> None:
    world = World(EQUAL)
    right = mean(world.own())
    norm = np.sqrt(sum(np.sum(value**2) for value in right.values()))

    report = world.judge(reduced={name: value * 0.25 / norm for name, value in right.items()})

    (cause,) = causes(report, "reduced")
    assert cause.startswith("no mistake between ranks explains it; one factor 0.")
    assert cause.endswith("over all parameters; the norm is 0.25: clipped?")


def test_the_report_says_ranks_and_shards_and_each_cause_once() -> None:
    world = World(UNEQUAL)

    text = str(world.judge(reduced=mean(world.own())))

    assert "3 ranks of 4, 2 and 3 rows" in text
    assert text.count("averaged over the ranks without weights") == 1
    assert "all 3 ranks: theta_0 and 1 other: averaged" in text


@pytest.mark.soundness
@pytest.mark.parametrize("problem", ["tanh-network", "linear-regression", "logistic-regression", "huber-regression"])
def test_no_right_program_is_called_wrong(problem: str) -> None:
    for seed in range(150):
        random = np.random.default_rng(seed)
        ranks = int(random.integers(2, 6))
        ends = np.cumsum([0, *random.integers(1, 9, ranks)])
        world = World([list(range(a, b)) for a, b in pairwise(ends)], problem, seed)
        world.dtype = "float32" if seed % 2 else "float64"
        world.data = gdc.Dataset(10.0 ** random.uniform(-3, 3) * world.data.features, world.data.targets > 0)
        own = world.own()
        factors = [ranks * share for share in shares(world)]
        weighted = [added([each], [factor]) for each, factor in zip(own, factors, strict=True)]

        for report in (
            world.judge(local=own, reduced=added(own, shares(world))),
            world.judge(local=weighted, reduced=mean(weighted), factors=factors),
        ):
            assert report.verdict != "wrong", (seed, report.explanation())
