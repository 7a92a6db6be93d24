"""Real processes: killed, stopped, unreachable, or alone; nothing is lost, and none is left behind."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gdcompare.data.blocks import Blocks, InMemory
from gdcompare.problem import Problem
from gdcompare.registry import as_backend, as_problem, backend_names, load_problem
from gdcompare.scale import cluster
from gdcompare.scale.cluster import Cluster, workers_for
from gdcompare.scale.connection import ClusterError, connected
from gdcompare.scale.parcel import packed
from gdcompare.scale.processes import local_cluster
from gdcompare.scale.sums import Here, Sums

distributed = pytest.importorskip("distributed", reason="needs the extra 'dask'")
psutil = pytest.importorskip("psutil")

RNG = np.random.default_rng(0)
ROWS = 400
FEATURES, TARGETS = RNG.standard_normal((ROWS, 3)), RNG.standard_normal(ROWS)
PARAMS = [{"theta_0": RNG.standard_normal(()), "theta_1": RNG.standard_normal(3)} for _ in range(6)]

SLOW = """
import time
from gdcompare.problems.linear_regression import LinearRegression

class Slow(LinearRegression):
    def value_and_gradient(self, xp, params, features, targets):
        time.sleep(0.002)
        return super().value_and_gradient(xp, params, features, targets)
"""


def sums(problem: str | Problem = "linear-regression", backend: str = "numpy", rows: int = 8) -> Sums:
    return Sums(as_problem(problem), as_backend(backend), Blocks(InMemory(FEATURES, TARGETS), "these", rows))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """A tenth of a second of work over all blocks."""
    file = tmp_path_factory.mktemp("slow") / "slow.py"
    file.write_text(SLOW)
    return load_problem(f"{file}:Slow")


def bits(work: Any, steps: int = len(PARAMS)) -> list[bytes]:
    return [work.total(PARAMS[i % len(PARAMS)]).tobytes() for i in range(steps)]


DUE = bits(Here(sums()))


def children() -> set[int]:
    return {each.pid for each in psutil.Process().children(recursive=True)}


@contextmanager
def leaving_nobody() -> Iterator[None]:
    before = children()
    yield
    end = time.monotonic() + 10
    while left := {pid for pid in children() - before if "resource_tracker" not in " ".join(command(pid))}:
        assert time.monotonic() < end, [command(pid) for pid in left]
        time.sleep(0.05)


def command(pid: int) -> list[str]:
    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ["resource_tracker"]


def pids(work: Any) -> list[int]:
    return list(work._client.run(os.getpid).values())


KINDS = [("numpy", 1), ("numpy", 2), ("numpy", 3), ("numpy", 7), ("torch", 2), ("jax", 2)]


@pytest.mark.thorough
@pytest.mark.parametrize(("backend_name", "workers"), KINDS)
def test_any_number_of_processes_gives_the_same_bits(backend_name: str, workers: int) -> None:
    if backend_name not in backend_names():
        pytest.skip(f"{backend_name} is not installed")
    due = bits(Here(sums(backend=backend_name)))

    with leaving_nobody(), workers_for(sums(backend=backend_name), workers) as work:
        assert bits(work) == due


@pytest.mark.thorough
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_worker_killed_in_the_middle_of_a_step_changes_no_bit(workers: int, slow: Problem) -> None:
    with leaving_nobody(), workers_for(sums(slow), workers) as work:
        found = bits(work, 1)
        for i in range(1, len(PARAMS)):
            victim = random.Random(i).choice(pids(work))  # noqa: S311 - no secret
            threading.Timer(0.02, os.kill, (victim, signal.SIGKILL)).start()
            found.append(work.total(PARAMS[i]).tobytes())

        assert found == DUE


@pytest.mark.thorough
def test_a_worker_that_is_stopped_holds_nobody_up_for_long(slow: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LATE", (0.5, 3.0))
    with leaving_nobody(), workers_for(sums(slow), 2) as work:
        bits(work, 1)
        stopped = pids(work)[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            assert bits(work) == DUE
            assert time.monotonic() - begun < 20
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert bits(work) == DUE


@pytest.mark.thorough
def test_no_more_processes_than_blocks() -> None:
    with leaving_nobody(), workers_for(sums(rows=200), 5) as work:
        assert len(pids(work)) == 2


def begin_scheduler(port: int) -> subprocess.Popen[bytes]:
    arguments = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    started = subprocess.Popen([sys.executable, "-m", "dask", *arguments], stderr=subprocess.DEVNULL)  # noqa: S603
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return started
        time.sleep(0.05)
    raise AssertionError("no scheduler began")


def begin_worker(port: int, folder: Path) -> subprocess.Popen[bytes]:
    arguments = ["worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "dask", *arguments], stderr=subprocess.DEVNULL, cwd=folder
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.thorough
def test_a_scheduler_elsewhere_that_restarts_and_one_that_does_not(tmp_path: Path, slow: Problem) -> None:
    port = free_port()
    processes = [begin_scheduler(port), begin_worker(port, tmp_path), begin_worker(port, tmp_path)]
    try:
        with workers_for(sums(slow), 2, f"tcp://127.0.0.1:{port}") as work:
            assert bits(work) == DUE

            for each in processes:
                each.kill()
            processes += [begin_scheduler(port), begin_worker(port, tmp_path)]
            assert bits(work) == DUE

            work._patience = 1.0  # type: ignore[attr-defined]
            for each in processes:
                each.kill()
            with pytest.raises(ClusterError, match=r"is gone, and did not come back within 1 s; .*--resume"):
                bits(work)
    finally:
        for each in processes:
            each.kill()
            each.wait()


@pytest.mark.thorough
def test_an_address_that_answers_nothing_is_said_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdcompare.scale.connection.ANSWER", 0.3)
    begun = time.monotonic()

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(ClusterError, match=r"no Dask scheduler answers at .*: start one"):
            workers_for(sums(), scheduler=address).__enter__()
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at .*: start one.*or leave the scheduler out"):
        workers_for(sums(), scheduler=f"tcp://127.0.0.1:{free_port()}").__enter__()
    assert time.monotonic() - begun < 5


SCRIPT = """
import numpy as np, sys, threading, os, signal
from gdcompare.data.blocks import Blocks, InMemory
from gdcompare.registry import as_backend, as_problem
from gdcompare.scale.cluster import Cluster, workers_for
from gdcompare.scale.sums import Sums

sums = Sums(as_problem("linear-regression"), as_backend("numpy"), Blocks(InMemory(np.ones((9, 1)), np.ones(9)), rows=1))
with workers_for(sums, 2) as work:
    params = {"theta_0": np.array(1.0), "theta_1": np.zeros(1)}
    print(work.total(params).tolist(), flush=True)
    while len(sys.argv) > 1:
        work.total(params)
"""


@pytest.mark.thorough
def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    answer = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert answer.stdout.split() == ["[0.0,", "9.0,", "0.0,", "0.0]"]
    assert answer.stderr == ""


@pytest.mark.thorough
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_kill_leave_no_process(tmp_path: Path, sent: signal.Signals) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    with leaving_nobody():
        process = subprocess.Popen(
            [sys.executable, "script.py", "go on"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        if sent == signal.SIGINT:
            os.killpg(process.pid, sent)  # as a terminal does
        else:
            process.kill()
        _, said = process.communicate(timeout=20)
        _, alive = psutil.wait_procs(family, timeout=10)

        assert alive == []
        if sent == signal.SIGINT:
            assert said.decode().count("Traceback") == said.decode().count("KeyboardInterrupt\n") == 1


def path(work: Any, ours: Sums, steps: int, at: int = -1, strike: Any = None) -> bytes:
    """Return the bits of all parameters on the way of a descent, on which somebody may strike amid a step."""
    params = {"theta_0": np.array(0.0), "theta_1": np.zeros(3)}
    bits = b""
    for step in range(steps):
        if step == at:
            strike()
        _, gradient = ours.reduced(params, work.total(params))
        params = {name: value - 0.1 * gradient[name] for name, value in params.items()}
        bits += b"".join(value.tobytes() for value in params.values())
    return bits


@pytest.mark.parametrize(
    "runs", [pytest.param(5, marks=pytest.mark.thorough), pytest.param(100, marks=pytest.mark.soundness)]
)
def test_runs_each_with_a_worker_killed_at_a_random_step_take_the_same_path(runs: int, slow: Problem) -> None:
    due, dice, killed = path(Here(sums()), sums(), 10), random.Random(0), 0  # noqa: S311 - no secret
    with leaving_nobody(), local_cluster(3) as processes:
        for _ in range(runs):
            ours = sums(slow)
            parcel = packed(ours.problem, ours.backend, ours.blocks)
            work = Cluster(connected(processes, None), ours, parcel)

            def strike(work: Cluster = work) -> None:
                nonlocal killed
                if there := pids(work):
                    killed += 1
                    threading.Timer(dice.uniform(0.0, 0.05), os.kill, (dice.choice(there), signal.SIGKILL)).start()

            assert path(work, ours, 10, dice.randrange(10), strike) == due
            work.close()

    assert killed > runs / 2
