"""What every benchmark stands on: backends, equal threads, one way to measure, and the tables at the end."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pytest

import gdcompare as gdc
from gdcompare.backend import Backend
from gdcompare.registry import own_this_process, registered_backends

from .contenders import skip_without
from .summary import Summary
from .timing import Contender, Timed

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
        cpus = undo.enter_context(_one_cpu())
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


@contextlib.contextmanager
def _one_cpu() -> Iterator[object]:
    """Pin all threads of this process to one CPU, and those to come; the last CPU, since the first is often busier."""
    if sys.platform != "linux":
        yield "not pinned: this system cannot"
        return
    before = {thread: os.sched_getaffinity(thread) for thread in _threads()}
    chosen = max(os.sched_getaffinity(0))
    _pin({thread: {chosen} for thread in before})
    try:
        yield [chosen]
    finally:
        _pin({thread: before.get(thread, before[os.getpid()]) for thread in _threads()})


def _pin(cpus: Mapping[int, set[int]]) -> None:
    for thread, allowed in cpus.items():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(thread, allowed)


def _threads() -> list[int]:
    return [int(task.name) for task in Path("/proc/self/task").iterdir()]


# Measuring


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
        timed = Timed(contender.run)
        if benchmark.enabled:
            timed.warm_up()
            contender.check(timed.answer)
        benchmark.group = group
        cpu, wall = time.process_time(), time.perf_counter()
        if first_call:
            benchmark.pedantic(timed, setup=_forget_compiled, rounds=3)
        else:
            benchmark(timed)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        benchmark.has_error = True  # unless the next line passes
        error = contender.check(timed.answer)
        benchmark.has_error = False
        benchmark.extra_info.update(
            contender=contender.name,
            error_in_units=error,
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
def blocks(request: pytest.FixtureRequest) -> int:
    """How many blocks to interleave: none, so that answers are checked and nothing is timed, where timing is off."""
    if request.config.getoption("benchmark_skip"):
        pytest.skip("benchmarks are skipped (--benchmark-skip)")
    return 0 if request.config.getoption("benchmark_disable") else 15


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
    machine_info["versions"] = {name: found for name in sorted(needed) if (found := _version(name)) is not None}
    machine_info["garbage collector"] = gc.isenabled()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _environment(backend: Backend[Any]) -> Mapping[str, str]:
    describe: Callable[[], Mapping[str, str]] = getattr(backend, "environment", dict)
    return describe()


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Put the ratios beside the times, and what no two runs need share: threads, and how busy the machine was."""
    output_json["ratios"] = [row.as_dict() for row in config.stash[SUMMARY].ratios]
    output_json["findings"] = config.stash[SUMMARY].findings
    output_json["threads"] = config.stash.get(THREADS, None)
    output_json["environment"] = {name: _environment(gdc.load_backend(name)) for name in gdc.backend_names()}
    if hasattr(os, "getloadavg"):
        output_json["load average"] = os.getloadavg()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the ratios after the times."""
    for line in config.stash[SUMMARY].lines():
        terminalreporter.write_line(line)
