"""Ours against theirs, as ratios within one run, shown and not asserted.

pytest-benchmark times one contender after another, so a neighbour on the machine falls on some and not on others.
These few comparisons are the ones that we make promises about; they are races of `gdcompare.timing`: in balanced
blocks, with intervals, and a control.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

import gdcompare as gdc
from gdcompare.registry import registered_backends
from gdcompare.timing.contender import Contender, Judgement, unjudged
from gdcompare.timing.fresh import in_fresh_process
from gdcompare.timing.race import race

from . import by_hand, contenders
from .checked import DescentCase, descent_case, gradient_case, off_by
from .summary import Summary

PRECISION = 0.02
SECONDS = 3.0


class Compare(Protocol):
    """`compare(section, ours, theirs, promised)`: race them, and put the ratios of ours to theirs in the summary."""

    def __call__(
        self, section: str, ours: Contender, theirs: Sequence[Contender], promised: Mapping[str, float]
    ) -> None: ...


@pytest.fixture
def compare(timed: bool, summary: Summary) -> Compare:
    """Race ours against theirs, to which we promised ratios by name."""

    def run(section: str, ours: Contender, theirs: Sequence[Contender], promised: Mapping[str, float]) -> None:
        if not timed:
            for contender in (ours, *theirs):
                assert contender.judge(contender.call())
            return
        found = race([ours, *theirs], reference=ours.name, precision=PRECISION, seconds=SECONDS)
        assert not found.failures, {name: str(failure) for name, failure in found.failures.items()}
        summary.add(section, found, promised)

    return run


def modes(steps: int) -> pytest.MarkDecorator:
    """The seed's line, for that many steps of each kind."""
    cases = [descent_case(40, 1, None, steps), descent_case(40, 1, 2, steps // 20), descent_case(40, 1, 1, steps // 40)]
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.mode)


@modes(steps=2000)
def test_ratio_of_numpy_to_loops_by_hand(case: DescentCase, compare: Compare) -> None:
    """The loop that most people would write, and the tightest one."""
    theirs = [contenders.descent_by_hand(case, name) for name in ("numpy by hand", "numpy by hand, tight")]

    compare(_section(case), _ours(case, "numpy"), theirs, {"numpy by hand": 1.3})


@modes(steps=400)
def test_ratio_of_torch_to_loops_by_hand(case: DescentCase, compare: Compare) -> None:
    """Autograd without the suite, and the optimiser's own loop."""
    theirs = [contenders.descent_by_hand(case, name) for name in ("torch.autograd by hand", "torch.optim.SGD")]

    compare(_section(case), _ours(case, "torch"), theirs, {"torch.autograd by hand": 1.1})


@modes(steps=2000)
def test_ratio_of_jax_to_loops_by_hand(case: DescentCase, compare: Compare) -> None:
    """A compiled step in a Python loop, and a compiled loop."""
    theirs = [contenders.descent_by_hand(case, name) for name in ("optax, jitted step", "bare lax.scan")]

    compare(_section(case), _ours(case, "jax"), theirs, {"optax, jitted step": 0.1})


@pytest.mark.parametrize("case", [descent_case(40, 1, 1, 2000), descent_case(100_000, 1, 1, 2)], ids=str)
def test_ratio_of_jax_to_scikit_learn(case: DescentCase, compare: Compare) -> None:
    """Stochastic steps without a history."""
    theirs = contenders.sklearn_descents(case)

    ours = contenders.descent_without_history(case, _backend("jax"))
    compare(_section(case, "no history"), ours, theirs, {"SGDRegressor, same rows": 1.0})


@pytest.mark.parametrize("n", [40, 100_000])
def test_ratio_of_the_seam_to_the_framework(n: int, backend_name: str, compare: Compare) -> None:
    """Loss and gradient through the seam, and without it."""
    case = gradient_case("linear-regression", n, 2)
    name = f"{backend_name} by hand"
    if name not in contenders.GRADIENTS_BY_HAND:
        pytest.skip(f"there is no {name!r}")
    theirs = contenders.gradient_by_hand(case, name, "float64")

    ours = contenders.gradient(case, gdc.load_backend(backend_name))
    compare(f"gradient, {case}, float64", ours, [theirs], {})


@pytest.mark.parametrize(("n", "d"), [(40, 1), (10_000, 100)])
def test_ratio_of_per_sample_gradients_to_the_framework(n: int, d: int, backend_name: str, compare: Compare) -> None:
    """One gradient for each row, through the seam and by hand."""
    case = gradient_case("linear-regression", n, d)
    name = f"{backend_name} by hand"
    if name not in contenders.PER_SAMPLE_BY_HAND:
        pytest.skip(f"there is no {name!r}")
    theirs = contenders.per_sample_by_hand(case, name)

    ours = contenders.per_sample_gradients(case, gdc.load_backend(backend_name), backend_name)
    promised = {"numpy": 1.3, "torch": 1.0, "jax": 1.1}[backend_name]
    compare(f"per-sample gradients, {case}, float64", ours, [theirs], {name: promised})


def test_ratio_of_a_gradient_from_numpy_to_the_seam(backend_name: str, compare: Compare) -> None:
    """`gdc.value_and_grad` of many rows: what checks and transfers add to the seam, and to one read of the data."""
    case = gradient_case("linear-regression", 1_000_000, 20)
    backend = gdc.load_backend(backend_name)
    read = Contender("one read of the data", by_hand.one_read(case), unjudged)

    ours = contenders.gradient_there_and_back(case, backend)
    promised = {backend_name: 1.3} if backend_name == "numpy" else {}
    compare(f"gradient, {case}, float64", ours, [contenders.gradient(case, backend), read], promised)


STARTS = {
    "import gdcompare": (["-c", "import gdcompare"], ""),
    "gdcompare --help": (["-m", "gdcompare", "--help"], "Usage"),
}


@pytest.mark.parametrize("name", STARTS)
def test_ratio_of_starting_times(name: str, compare: Compare) -> None:
    """A fresh interpreter that imports the suite, or asks the command line for help, against one that imports NumPy."""
    arguments, prints = STARTS[name]
    if "-m" in arguments and importlib.util.find_spec("gdcompare.__main__") is None:
        pytest.skip("there is no command line")
    numpy = _interpreter("import numpy", ["-c", "import numpy"])

    compare("fresh interpreter", _interpreter(name, arguments, prints), [numpy], {})


@pytest.mark.parametrize("name", registered_backends())
def test_memory_does_not_grow_with_the_number_of_steps(name: str, timed: bool, summary: Summary) -> None:
    """Peak memory of a descent eight times as long, less that of the shorter one: with every step kept, and with few.

    The first number shows that the second one would show a growth. In a fresh process, whose peak can only rise.
    """
    _backend(name)
    if not timed:
        pytest.skip("memory is measured together with times")

    growth = f"{Path(__file__).with_name('peak_memory.py')}:growth_in_megabytes"
    grown = {
        every: in_fresh_process(growth, {"backend_name": name, "history_every": every}, threads=1)
        for every in (1, 10**9)
    }

    summary.find(
        "peak memory: growth from 4096 to 32768 steps, full batch, n=40, d=100",
        f"{name:<8}{grown[1]:8.1f} MB with every step in the history,{grown[10**9]:8.1f} MB without",
    )


def _section(case: DescentCase, history: str = "history") -> str:
    return f"{case}, {case.steps} steps, {history}, float64"


def _ours(case: DescentCase, backend_name: str) -> Contender:
    return contenders.descent(case, _backend(backend_name))


def _backend(name: str) -> gdc.Backend[object]:
    contenders.skip_without(name)
    return gdc.load_backend(name)


def _interpreter(name: str, arguments: Sequence[str], prints: str = "") -> Contender:
    def judge(printed: str) -> Judgement:
        assert prints in printed
        return off_by(0)

    return Contender(name, partial(_python, *arguments), judge)


def _python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own arguments
