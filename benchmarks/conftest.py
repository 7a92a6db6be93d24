"""What every benchmark stands on: backends, equal threads, one way to measure, and the tables at the end."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator
from importlib import metadata
from typing import Any, Protocol, TypeAlias

import pytest

import gdcompare as gdc
from gdcompare.registry import own_this_process, registered_backends
from gdcompare.timing.contender import Contender, unfinished
from gdcompare.timing.environment import environment, unfit, versions
from gdcompare.timing.threads import pinned

from .checked import UNITS_OFF
from .contenders import skip_without
from .summary import Summary

SUMMARY = pytest.StashKey[Summary]()
THREADS = pytest.StashKey[dict[str, object]]()


# Backends


@pytest.fixture(params=registered_backends())
def backend_name(request: pytest.FixtureRequest) -> str:
    """The name of every registered backend whose framework is there; the others are skipped, with the way out."""
    name = str(request.param)
    skip_without(name)
    return name


# Equal threads


@pytest.fixture(scope="package", autouse=True)
def equal_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """One CPU and one thread for every contender, put back afterwards.

    JAX has no switch for its threads, only the number of CPUs it finds when it is imported (google/jax#1539): so the
    whole process is pinned to one CPU, for all contenders alike.
    """
    with contextlib.ExitStack() as undo:
        jax_first = "jax" in sys.modules
        torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
        cpus = undo.enter_context(pinned(1)) or "not pinned: this system cannot"
        if torch is not None:
            undo.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        pools: object = "unknown: threadpoolctl is not installed"
        if importlib.util.find_spec("threadpoolctl"):
            threadpoolctl = importlib.import_module("threadpoolctl")
            undo.enter_context(threadpoolctl.threadpool_limits(1))
            pools = {pool["prefix"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
        request.config.stash[THREADS] = {
            "cpus": cpus,
            "thread pools": pools,
            "torch": None if torch is None else torch.get_num_threads(),
            "jax imported before pinning": jax_first,
        }
        yield


# Measuring


class Timed:
    """Something to time: each call does a contender's work to its end and keeps the answer."""

    def __init__(self, contender: Contender) -> None:
        self.answer: Any = None
        self._contender = contender
        self._wait: Callable[[Any], object] | None = contender.ready

    def __call__(self) -> None:
        self.answer = self._contender.call()
        if self._wait is not None:
            self._wait(self.answer)

    def warm_up(self) -> None:
        """Do the work twice, so that everything is compiled, and see whether such answers have to be waited for."""
        self()
        self()
        self._wait = self._contender.waits(self.answer)


class Measure(Protocol):
    """`measure(group, contender, steps=None, first_call=False)`: time it, check the timed answer, note the facts."""

    def __call__(
        self, group: str, contender: Contender, *, steps: int | None = None, first_call: bool = False
    ) -> None: ...


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Measure:
    """Measure one contender with pytest-benchmark.

    Included: the work, up to the moment when all of its answer exists. Excluded: preparation, two warm-up runs, reading
    the answer and checking it. An answer is checked before anything is timed; then the one that was timed last is
    checked too, and a time whose answer is wrong is not shown.

    `first_call` forgets what was compiled before each timed run.
    """

    def run(group: str, contender: Contender, *, steps: int | None = None, first_call: bool = False) -> None:
        timed = Timed(contender)
        if benchmark.enabled:
            timed.warm_up()
            assert contender.judge(timed.answer)
        benchmark.group = group
        cpu, wall = time.process_time(), time.perf_counter()
        if first_call:
            benchmark.pedantic(timed, setup=_forget_compiled, rounds=3)
        else:
            benchmark(timed)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        benchmark.has_error = True  # unless the next line passes
        assert not unfinished(timed.answer), "the clock stopped before the answer was complete"
        judgement = contender.judge(timed.answer)
        assert judgement, judgement.words
        benchmark.has_error = False
        benchmark.extra_info.update(
            contender=contender.name,
            error_in_units=judgement.figures.get(UNITS_OFF, 0.0),
            threads=request.config.stash[THREADS],
            cpu_per_wall_second=cpu / wall,
            **contender.facts,
        )
        if benchmark.enabled and steps is not None:
            benchmark.extra_info.update(steps=steps, seconds_per_step=benchmark.stats.stats.median / steps)

    return run


def _forget_compiled() -> None:
    """Drop every compiled program of this process; only JAX keeps any."""
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


# Tables


@pytest.fixture
def summary(request: pytest.FixtureRequest) -> Summary:
    """Where ratios and other findings are put, to be shown at the end."""
    return request.config.stash[SUMMARY]


@pytest.fixture
def timed(request: pytest.FixtureRequest) -> bool:
    """Whether to hold races: where timing is off, answers are judged and nothing is timed."""
    if request.config.getoption("benchmark_skip"):
        pytest.skip("benchmarks are skipped (--benchmark-skip)")
    return not request.config.getoption("benchmark_disable")


def pytest_configure(config: pytest.Config) -> None:
    """Show the columns that mean something for skewed samples, so that a table fits a terminal."""
    config.stash[SUMMARY] = Summary()
    own_this_process()  # ours and theirs alike: the frameworks are set up for the whole process
    if config.getoption("benchmark_columns") is None:
        config.option.benchmark_columns = ["min", "median", "iqr", "rounds"]


Groups: TypeAlias = list[tuple[str, list[dict[str, Any]]]]


@pytest.hookimpl(wrapper=True)
def pytest_benchmark_group_stats() -> Generator[None, Groups, Groups]:
    """Call the rows by their contenders, and leave out times whose answer was not found right."""
    groups = yield
    shown = []
    for group, rows in groups:
        right = [row for row in rows if "contender" in row["extra_info"]]
        for row in right:
            row["name"] = row["extra_info"]["contender"]
        if right:
            shown.append((group, right))
    return shown


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Add the versions on which a time depends: where two runs differ in one of them, they are not compared.

    They are read without importing anything: `--benchmark-compare` asks before the process is pinned to a CPU.
    """
    needed = {match[0] for each in metadata.requires("gdcompare") or () if (match := re.match(r"[\w.-]+", each))}
    machine_info["versions"] = versions(needed)
    machine_info["garbage collector"] = gc.isenabled()


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Put the races beside the times, and what no two runs need share: threads, and how busy the machine was."""
    output_json["races"] = config.stash[SUMMARY].as_json()
    output_json["findings"] = config.stash[SUMMARY].findings
    output_json["threads"] = config.stash.get(THREADS, None)
    backends = (gdc.load_backend(name) for name in gdc.backend_names())
    output_json["environment"] = environment({each.name: getattr(each, "environment", dict)() for each in backends})


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the ratios after the times."""
    for line in config.stash[SUMMARY].lines():
        terminalreporter.write_line(line)
    if config.stash[SUMMARY].races:
        for line in unfit(environment()):
            terminalreporter.write_line(f"! {line}")
