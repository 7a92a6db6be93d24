"""The referee refereed on data in blocks: no right sum is called wrong, and no planted fault right.

`pytest -m soundness tests/referee/test_streamed_power.py -s` prints the figures of docs/scale.md.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare import BackendUnavailableError
from gdcompare.backend import Precision
from gdcompare.data.blocks import Blocks, InMemory
from gdcompare.referee.streamed import verify_blocks
from gdcompare.referee.verdict import Entry
from gdcompare.registry import registered_backends
from gdcompare.scale.sums import Here, Sums
from tests.faulty_sums import (
    Fault,
    Faulty,
    full_blocks,
    in_float32,
    means_of_means,
    twice,
    undivided,
    without_a_row,
    without_blocks,
)

CASES = 40
"""For each problem, each at a point, with sizes, weights and blocks of its own."""


def say(figures: str) -> None:
    print(f"\n{figures}")  # noqa: T201 - that is what the run is for


def installed() -> list[str]:
    found = []
    for name in registered_backends():
        try:
            gdc.load_backend(name)
        except BackendUnavailableError:
            continue
        found.append(name)
    return found


def drawn(problem: gdc.Problem, generator: np.random.Generator, most: int) -> tuple[Blocks, gdc.Dataset]:
    """Return some rows of the problem's own data, repeated and scaled, in blocks and in memory."""
    example = gdc.datasets.example(problem)
    rows = generator.integers(0, len(example), int(generator.integers(1, most)))
    features, targets = example.features[rows], example.targets[rows]
    if problem.target_dimensions == 1 and problem.target_values is None and problem.least_target == -math.inf:
        features = features * 10.0 ** generator.integers(-2, 2)
        targets = targets * 10.0 ** generator.integers(-2, 2)
    weights = generator.integers(0, 3, len(rows)) * 0.3 if generator.random() < 0.5 else None
    weights = weights if weights is not None and weights.any() else None
    size = int(generator.integers(1, len(rows) + 2))
    return Blocks(InMemory(features, targets, weights), rows=size), gdc.Dataset(features, targets, weights=weights)


def points(problem: gdc.Problem, data: gdc.Dataset, generator: np.random.Generator) -> dict[str, Any] | None:
    """Return where to judge: somewhere, at the start, or at whole numbers, where losses bend."""
    kind = generator.integers(3)
    if kind == 0:
        return None
    start = problem.start(data)
    return (
        start
        if kind == 1
        else {name: np.round(value + generator.normal(size=np.shape(value))) for name, value in start.items()}
    )


@pytest.mark.soundness
@pytest.mark.parametrize("name", gdc.problem_names())
def test_no_right_sum_is_called_wrong(name: str) -> None:
    problem, names = gdc.load_problem(name), installed()
    verdicts: Counter[str] = Counter()
    largest = dict.fromkeys(("proven", "sampled"), 0.0)
    for at in range(CASES):
        generator = np.random.default_rng([at, len(name)])
        blocks, data = drawn(problem, generator, 60)
        dtype = ("float32", "float64")[at % 2]
        few = names if at < 4 else [each for each in names if each != "jax"]  # which compiles for every shape
        how: dict[str, Any] = {"backends": few, "dtype": dtype, "reduction": ("mean", "sum")[at // 2 % 2]}
        params = points(problem, data, generator)
        with np.errstate(all="ignore"):  # at widths of 0, say
            whole = gdc.verify(problem, data, params, **how)

            report = gdc.verify(problem, blocks, params, **how)

        for entry, other in zip(report.entries, whole.entries, strict=True):
            assert entry.verdict != "wrong", (at, entry, entry.cause)
            assert other.verdict != "wrong"
            verdicts[f"{entry.verdict} where it was {other.verdict}"] += 1
            if entry.verdict == "agree":
                largest[entry.grade] = max(largest[entry.grade], entry.budget_fraction)
    shares = ", ".join(f"{share:.2g} of what is {grade}" for grade, share in largest.items())
    say(f"{name}: {dict(verdicts)}; at most {shares}")
    assert verdicts["agree where it was agree"] > 0.9 * verdicts.total()


FAULTS: dict[str, Fault] = {
    "a dropped row": without_a_row,
    "a dropped block": without_blocks(2),
    "a dropped block, divisor kept": without_blocks(2, divisor=False),
    "a doubled block": twice,
    "unweighted blocks": means_of_means,
    "a full last block": full_blocks,
    "no divisor": undivided,
    "sums in float32": in_float32,
}


def off_by(relative: float, parameter: int) -> Fault:
    """Return a fault of one number of the sums."""

    def fault(leaves: list[NDArray[np.float64]], sums: Sums, params: Any) -> Any:
        total = Here(sums).total(params).copy()
        total[2 + parameter] *= 1 + relative
        return total

    return fault


def judged(problem: str, blocks: Blocks, fault: Fault, dtype: Precision = "float64") -> list[Entry]:
    report = verify_blocks(
        problem, blocks, None, backends=["numpy"], dtype=dtype, workers=lambda sums: Faulty(fault, sums)
    )
    return [entry for entry in report.entries if entry.parameter != "loss"]


def settings() -> Iterator[tuple[str, Blocks]]:
    """Yield linear, logistic and Poisson regressions on rows in blocks, the last of them shorter."""
    for seed, (n, rows) in enumerate([(50, 7), (999, 100), (2000, 64)]):
        generator = np.random.default_rng(seed)
        features = generator.standard_normal((n, 4))
        mean = features @ np.array([0.3, -0.2, 0.1, 0.4])
        for name, targets in (
            ("linear-regression", mean + generator.standard_normal(n)),
            ("logistic-regression", (generator.random(n) < 1 / (1 + np.exp(-mean))).astype(float)),
            ("poisson-regression", generator.poisson(np.exp(mean)).astype(float)),
        ):
            for weights in (None, generator.uniform(0.5, 2, n)):
                yield name, Blocks(InMemory(features, targets, weights), f"{n} rows", rows=rows)


@pytest.mark.soundness
@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_is_found(fault: str) -> None:
    least = math.inf
    for problem, blocks in settings():
        entries = judged(problem, blocks, FAULTS[fault])

        assert {entry.verdict for entry in entries} == {"wrong"}, (problem, blocks, entries)
        assert all(entry.cause.startswith("each block is right by itself") for entry in entries)
        least = min(least, *(abs(entry.actual / entry.expected - 1) for entry in entries))
    count = len(list(settings()))
    say(f"{fault}: found in {count} of {count}, from {least:.1g} of an element on")


@pytest.mark.soundness
def test_a_fault_as_small_as_is_said_to_be_detectable_is_found() -> None:
    sizes = []
    for problem, blocks in settings():
        right = {
            entry.parameter: entry
            for entry in judged(problem, blocks, lambda leaves, sums, params: Here(sums).total(params))
        }
        assert {entry.verdict for entry in right.values()} == {"agree"}
        relative = 1.01 * right["theta_1"].detectable
        for element in range(1, 5):
            wrong = {entry.parameter: entry for entry in judged(problem, blocks, off_by(relative, element))}
            assert wrong["theta_1"].verdict == "wrong"
            assert wrong["theta_0"].verdict == "agree"
        sizes.append(relative)
    say(f"smallest sure fault of one element: {min(sizes):.1g} to {max(sizes):.1g} of it")


MILLION = """
import resource, sys, time
import numpy as np
import gdcompare as gdc
from gdcompare.data.blocks import Blocks

class Made:
    rows = 1_000_000

    def read(self, begin, end):
        generator = np.random.default_rng(begin)
        features = generator.standard_normal((end - begin, 20))
        return features, (generator.random(end - begin) < 1 / (1 + np.exp(-features[:, 0]))).astype(float), None

    def identity(self):
        return "made"

blocks = Blocks(Made())
gdc.verify("logistic-regression", backends=["numpy"])  # what is imported
before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
report = gdc.verify("logistic-regression", blocks, backends=["numpy"])
report.assert_agree()
assert {entry.grade for entry in report.entries} == {"proven"}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.perf_counter() - begun)
"""


@pytest.mark.soundness
def test_a_million_rows_are_proven_in_the_memory_of_some_blocks() -> None:
    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=True)  # noqa: S603 - ours

    more, seconds = map(float, done.stdout.split())
    say(f"logistic regression on 1,000,000 x 20: {seconds:.0f} s, {more / 1024:.0f} MiB")
    assert more < 100 * 1024
