"""What the frameworks' own engines compute: right programs agree, and each planted fault is found and named."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.distributed import Step, judge

pytestmark = pytest.mark.thorough

HERE = Path(__file__).parent
TRANSPOSED = (
    "(by a collective, or by the transpose of one: of a loss summed over the ranks, or of parameters that they share)"
)
OF_THE_LOSS = (
    "(the transpose of a sum over ranks is that sum again, and the loss was summed before it was differentiated)"
)
GIVEN = "; the reduction is right, and what {} gave to it is not"
UNSYNCHRONISED = "not synchronised: each rank has the gradient of its own shard"
FIRST_ALONE = "synchronised at the first micro-batch alone: the later ones are each rank's own"


def ran(script: str, folder: Path, **environment: str) -> dict[str, Any]:
    """Run the scenarios of a script in processes of their own, and return what their ranks hold."""
    out = folder / "held"
    command = [sys.executable, "-W", "ignore", str(HERE / script), str(out)]
    ended = subprocess.run(  # noqa: S603 - a script beside this one
        command, capture_output=True, text=True, timeout=500, check=False, env=os.environ | environment
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = pickle.loads(out.read_bytes())  # noqa: S301 - written a moment ago
    return found


def causes(report: gdc.Report, law: str) -> set[str]:
    """Return why what is wrong is wrong."""
    return {entry.cause for entry in report.entries if entry.law.startswith(law) and entry.verdict == "wrong"}


# torch.distributed: three processes on gloo


@pytest.fixture(scope="module")
def torch_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("torch", reason="these ranks are torch's")
    return ran("torch_ranks.py", tmp_path_factory.mktemp("torch"))


def judged_torch(held: dict[str, Any], name: str) -> gdc.Report:
    """Judge what the ranks of a scenario hold."""
    from gdcompare_torch import from_module
    from torch.nn.functional import mse_loss as torch_loss

    from tests.distributed import torch_ranks as t

    features, targets = t.FEATURES.numpy(), t.TARGETS.numpy()
    accumulated = name in ("accumulated", "around backward", "flag after forward")
    before = {key: value.numpy() for key, value in t.network(7).state_dict().items()}
    given = {key: value for key, value in held[name].items() if key != "local" or value[0]}
    return judge(
        from_module(t.network(), torch_loss),
        (features[:12], targets[:12]),
        shards=t.UNEQUAL if "weighted" in name else t.MICRO if accumulated else t.EQUAL,
        factors=[t.weight(rank) for rank in range(t.RANKS)] if name.endswith("weighted") and "un" not in name else None,
        previous=Step(before, (features[12:], targets[12:]))
        if "stale" in name
        else Step(data=(features[12:], targets[12:]))
        if name == "not zeroed"
        else None,
        **given,
    )


@pytest.mark.parametrize("name", ["right", "weighted", "accumulated", "sharded", "sharded, weighted"])
def test_a_right_torch_program_agrees(name: str, torch_ranks: dict[str, Any]) -> None:
    report = judged_torch(torch_ranks, name)

    assert report.verdict == "agree"
    assert all(entry.digits >= 10 for entry in report.entries)


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "summed": f"summed over the 3 ranks where it should be averaged: 3 times too large {TRANSPOSED}",
        "averaged twice": "averaged twice: divided by the 3 ranks once more" + GIVEN.format("all ranks"),
        "unweighted": "averaged over the ranks without weights, and the shards have 6, 3 and 3 rows",
        "stale rows": "rank 1's shard is stale: its gradient is that of the previous step's rows"
        + GIVEN.format("rank 1"),
        "stale parameters": "rank 1's shard is stale: its gradient is that at the previous step's parameters"
        + GIVEN.format("rank 1"),
        "not zeroed": "added to the previous step's gradient, which was not set to zero" + GIVEN.format("all ranks"),
        "a rank at zero": "rank 2's shard is missing, and the mean is taken as if it were there"
        + GIVEN.format("rank 2"),
        "another group": "rank 2's shard is missing",
        "the same rows": "rank 1 gives the gradient of the rows of rank 0: its own are not there"
        + GIVEN.format("rank 1"),
        "flag after forward": FIRST_ALONE,
        "sharded, undivided": f"summed over the 3 ranks where it should be averaged: 3 times too large {TRANSPOSED}",
        "sharded, averaged twice": "averaged twice: divided by the 3 ranks once more",
        "sharded, unweighted": "averaged over the ranks without weights, and the shards have 6, 3 and 3 rows",
        "sharded, the same rows": "rank 1 gives the gradient of the rows of rank 0: its own are not there",
    }.items(),
)
def test_a_fault_in_a_torch_program_has_its_name(name: str, words: str, torch_ranks: dict[str, Any]) -> None:
    report = judged_torch(torch_ranks, name)

    assert causes(report, "reduced") == {words}
    wrong = {entry.parameter for entry in report.entries if entry.verdict == "wrong" and "reduced" in entry.law}
    assert wrong == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_no_sync_around_the_backward_pass_alone_is_named(torch_ranks: dict[str, Any]) -> None:
    report = judged_torch(torch_ranks, "around backward")

    (cause,) = causes(report, "reduced")
    assert cause.startswith("reduced 2 times in this step, where once is due: at each micro-batch.")
    assert cause.endswith("It is the forward pass that heeds it")
    assert causes(report, "own shard") == {
        "the micro-batches before the last are reduced already: synchronised at each of them"
    }


def test_a_backward_pass_that_never_synchronises_is_named(torch_ranks: dict[str, Any]) -> None:
    assert causes(judged_torch(torch_ranks, "never"), "reduced") == {
        UNSYNCHRONISED,
        "not reduced in this step: is synchronisation switched off around the last forward pass?",
    }


# JAX: four devices in one process


@pytest.fixture(scope="module")
def jax_devices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("jax", reason="these devices are JAX's")
    flags = "--xla_force_host_platform_device_count=4"
    return ran("jax_devices.py", tmp_path_factory.mktemp("jax"), XLA_FLAGS=flags, JAX_PLATFORMS="cpu")


def judged_jax(held: dict[str, Any], name: str) -> gdc.Report:
    """Judge what the devices of a scenario hold."""
    from gdcompare_jax import from_function

    from tests.distributed import jax_devices as j

    shards: Any = j.MICRO if "micro-batch" in name else j.EQUAL
    features, targets = j.X[j.NOW], j.Y[j.NOW]
    if "two axes" in name:
        shards = [slice(0, 6), slice(6, 12)]
    if name in ("right, padded", "unweighted"):
        rows, ends = np.concatenate(j.UNEQUAL), np.cumsum([0, *j.KEPT])
        features, targets = features[rows], targets[rows]
        shards = [slice(start, start + size) for start, size in zip(ends, j.KEPT, strict=False)]
    model = from_function(j.loss, j.start())
    return judge(model, (features, targets), shards=shards, previous=Step(j.start(7)), **held[name])


@pytest.mark.parametrize(
    "name",
    [
        "right",
        "right, of the mean loss",
        "right, by the compiler",
        "right, in pieces",
        "right, on two axes",
        "right, padded",
    ],
)
def test_a_right_jax_program_agrees(name: str, jax_devices: dict[str, Any]) -> None:
    report = judged_jax(jax_devices, name)

    assert report.verdict == "agree"
    assert all(entry.digits >= 10 for entry in report.entries)


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "summed": f"summed over the 4 ranks where it should be averaged: 4 times too large {TRANSPOSED}",
        "averaged twice": "averaged twice: divided by the 4 ranks once more",
        "unweighted": "averaged over the ranks without weights, and the shards have 3, 1, 2 and 3 rows",
        "stale": "rank 1's shard is stale: its gradient is that at the previous step's parameters"
        + GIVEN.format("rank 1"),
        "dropped": "rank 2's shard is missing, and the mean is taken as if it were there" + GIVEN.format("rank 2"),
        "not synchronised": UNSYNCHRONISED,
        "first micro-batch": FIRST_ALONE,
        "micro-batches unweighted": "the means over micro-batches of unequal size are averaged without weights"
        + GIVEN.format("all ranks"),
        "transposed": f"summed over the 4 ranks where it should be averaged: 4 times too large {TRANSPOSED}"
        + GIVEN.format("all ranks"),
        "transposed, not synchronised": "not synchronised, and 4 times too large: each rank has that of its own shard "
        + OF_THE_LOSS,
        "mean transposed, not synchronised": UNSYNCHRONISED,
        "shared parameters": f"summed over the 4 ranks where it should be averaged: 4 times too large {TRANSPOSED}",
        "shared parameters, summed": "4^2 = 16 times too large: summed over the 4 ranks twice over",
    }.items(),
)
def test_a_fault_in_a_jax_program_has_its_name(name: str, words: str, jax_devices: dict[str, Any]) -> None:
    assert causes(judged_jax(jax_devices, name), "reduced") == {words}
