"""Whoever works out the sums, dies, comes, hangs or fails on the way: the same bits, or one clear line."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdcompare.data.blocks import Arrays, Blocks, InMemory
from gdcompare.registry import as_backend, as_problem, load_problem
from gdcompare.scale import cluster
from gdcompare.scale.cluster import Cluster
from gdcompare.scale.connection import ClusterError, ClusterWarning, differences, processor, refuse_others, versions
from gdcompare.scale.held import Held, Refused
from gdcompare.scale.parcel import packed
from gdcompare.scale.shares import numbers, shared_out
from gdcompare.scale.sums import Here, Sums

from .fake_cluster import FakeClient

RNG = np.random.default_rng(0)
FEATURES, TARGETS = RNG.standard_normal((61, 3)), RNG.standard_normal(61)
WEIGHTS = RNG.integers(0, 3, 61).astype(float)
PARAMS = [{"theta_0": RNG.standard_normal(()), "theta_1": RNG.standard_normal(3)} for _ in range(4)]

cloudpickle = pytest.importorskip("cloudpickle", reason="needs the extra 'dask'")


class Rows:
    """A source that is read where it is sent."""

    rows = len(TARGETS)

    def __init__(self, spoilt: int | None = None, error: Exception | None = None) -> None:
        self.spoilt, self.error = spoilt, error

    def read(self, begin: int, end: int) -> Arrays:
        if self.spoilt is not None and begin <= self.spoilt < end and self.error is not None:
            raise self.error
        return FEATURES[begin:end], TARGETS[begin:end], WEIGHTS[begin:end]

    def identity(self) -> str:
        return "rows"


def sums(source: Any = None, rows: int = 4, problem: Any = None) -> Sums:
    source = InMemory(FEATURES, TARGETS, WEIGHTS) if source is None else source
    return Sums(problem or as_problem("linear-regression"), as_backend("numpy"), Blocks(source, "these", rows))


@contextmanager
def at_work(client: FakeClient, ours: Sums, **options: Any) -> Iterator[Cluster]:
    work = Cluster(client, ours, packed(ours.problem, ours.backend, ours.blocks), **options)
    try:
        yield work
    finally:
        work.close()


def bits(ours: Any) -> list[bytes]:
    return [ours.total(params).tobytes() for params in PARAMS]


DUE = bits(Here(sums()))


@pytest.mark.parametrize("source", [None, Rows()], ids=["in memory", "read there"])
@pytest.mark.parametrize("workers", [1, 2, 3, 7, 30])
def test_any_number_of_workers_gives_the_same_bits(workers: int, source: Any) -> None:
    client = FakeClient(*map(str, range(workers)))

    with at_work(client, sums(source)) as work:
        assert bits(work) == DUE
    assert client.calls[-1][1] == "work"
    working = {address for address, called in client.calls[-min(workers, 16) :]}
    assert len(working) == min(workers, 16)  # as many as there are blocks, and one call of each


def test_a_step_is_one_call_of_each_worker() -> None:
    client = FakeClient("a", "b", "c")
    with at_work(client, sums()) as work:
        work.total(PARAMS[0])
        client.calls.clear()
        work.total(PARAMS[1])

    assert sorted(client.calls) == [("a", "work"), ("b", "work"), ("c", "work")]


@pytest.mark.thorough
@settings(deadline=None)
@given(st.data())
def test_the_bits_are_the_same_whoever_dies_or_comes_and_when(data: st.DataObject) -> None:
    client = FakeClient("a", "b", "c")
    ours = sums(Rows() if data.draw(st.booleans()) else None)
    names = iter("defghijklmnopqrstuvwxyz")

    async def fault(address: str, called: str) -> None:
        what = data.draw(st.sampled_from(["", "", "", "dies", "dies late", "comes", "waits"]))
        if what.startswith("dies") and len(client.workers) > 1 and "q" not in client.workers:
            client.workers.pop(address, None)
        if what == "dies late":
            await asyncio.sleep(0)
        if what == "comes":
            client.workers[next(names, "z")] = Held()
        if what == "waits":
            for _ in range(3):
                await asyncio.sleep(0)

    client.faults.append(fault)
    with pytest.MonkeyPatch.context() as patch, at_work(client, ours) as work:
        patch.setattr(cluster, "LOOK", data.draw(st.sampled_from([0.0, 1e9])))
        patch.setattr(cluster, "DEATHS", 100)
        assert bits(work) == DUE


@pytest.mark.thorough
def test_the_share_of_one_who_hangs_is_given_to_another_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LATE", (0.05, 3.0))
    monkeypatch.setattr(cluster, "LOOK", 0.02)
    client = FakeClient("a", "b")
    going = asyncio.Event()

    async def hangs(address: str, called: str) -> None:
        if address == "a" and called == "work":
            await going.wait()

    client.faults.append(hangs)
    with at_work(client, sums()) as work:
        assert bits(work) == DUE
        assert client.calls.count(("a", "work")) == 1  # it is not asked again before it has answered

        going.set()
        client.sync(asyncio.sleep, 0.01)
        client.calls.clear()
        assert bits(work) == DUE
        assert client.calls.count(("a", "work")) >= len(PARAMS)


@pytest.mark.thorough
def test_who_is_still_being_sent_rows_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LATE", (0.05, 3.0))
    monkeypatch.setattr(cluster, "LOOK", 0.02)
    monkeypatch.setattr(cluster, "PIECE", 1)  # a block
    client = FakeClient("a", "b")

    async def slow(address: str, called: str) -> None:
        if (address, called) == ("b", "take"):
            await asyncio.sleep(0.02)

    client.faults.append(slow)
    with at_work(client, sums()) as work:
        assert bits(work) == DUE
        assert [called for _, called in client.calls].count("take") == 16  # each block once


def test_who_was_late_and_has_answered_keeps_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LATE", (0.05, 3.0))
    monkeypatch.setattr(cluster, "LOOK", 0.02)
    client = FakeClient("a", "b")
    slept: list[str] = []

    async def once(address: str, called: str) -> None:
        if (address, called) == ("b", "work") and len(client.calls) > 12 and not slept:
            slept.append(address)
            await asyncio.sleep(0.09)

    client.faults.append(once)
    with at_work(client, sums(Rows())) as work:
        assert [work.total(PARAMS[0]).tobytes() for _ in range(8)] == [DUE[0]] * 8
        assert slept == ["b"]
        assert work._generation == 1


def test_rows_that_a_worker_cannot_read_are_read_by_another() -> None:
    client = FakeClient("a", "b")
    with at_work(
        client,
        sums(Rows()),
    ) as work:
        work.total(PARAMS[0])
        [job] = client.workers["a"].jobs.values()
        job.sums.forget(lambda _: False)
        job.sums.blocks.source = Rows(3, OSError("input/output error"))

        assert bits(work) == DUE


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_rows_that_nobody_can_read_are_named(names: tuple[str, ...]) -> None:
    ours = sums(Rows())
    ours.blocks.source = Rows(33, OSError("input/output error"))
    said = r"^rows 32 to 35 of 'these' cannot be read by worker .: input/output error$"

    with at_work(FakeClient(*names), ours) as work, pytest.raises(ClusterError, match=said):
        work.total(PARAMS[0])


def test_what_is_wrong_with_rows_is_said_as_in_one_process() -> None:
    labels = np.zeros(61)
    labels[33] = 0.5
    ours = sums(InMemory(FEATURES, labels), problem=as_problem("logistic-regression"))
    with pytest.raises(ValueError, match="row") as here:
        Here(ours).total(PARAMS[0])
    with at_work(FakeClient("a", "b"), ours) as work, pytest.raises(ValueError, match="row") as there:
        work.total(PARAMS[0])

    assert type(there.value) is type(here.value)
    assert str(there.value) == str(here.value)


def test_rows_over_which_workers_die_one_after_the_other_are_named() -> None:
    client = FakeClient("a", "b")

    async def dies(address: str, called: str) -> None:
        if called == "work":
            client.workers.pop(address, None)
            client.workers[address + "'"] = Held()

    client.faults.append(dies)
    said = r"rows 0 to 31 of 'these': 4 workers were lost over them"
    with at_work(client, sums()) as work, pytest.raises(ClusterError, match=said):
        work.total(PARAMS[0])


@pytest.mark.thorough
def test_nobody_left_is_said_after_a_while() -> None:
    said = r"no worker is left, and none came within 0\.2 s"

    with at_work(FakeClient(), sums(), patience=0.2) as work, pytest.raises(ClusterError, match=said):
        work.total(PARAMS[0])


def test_a_worker_of_other_versions_that_comes_is_left_out_and_named() -> None:
    client = FakeClient("a", "b")
    client.workers["b"].begin = lambda *_: Refused("numpy is 1.0, not 2.0")  # type: ignore[method-assign]

    said = r"worker b is left out: numpy is 1\.0, not 2\.0"
    with at_work(client, sums()) as work, pytest.warns(ClusterWarning, match=said):
        assert bits(work) == DUE


def test_a_worker_without_the_suite_that_comes_is_left_out_and_named() -> None:
    client = FakeClient("a", "b")

    async def lacks(address: str, called: str) -> None:
        if address == "b":
            raise ModuleNotFoundError("No module named 'gdcompare'")

    client.faults.append(lacks)
    said = "worker b is left out: No module named 'gdcompare'"
    with at_work(client, sums()) as work, pytest.warns(ClusterWarning, match=said):
        assert bits(work) == DUE


def test_rows_that_fit_no_memory_are_read_again() -> None:
    client = FakeClient("a", "b", room=0)

    with at_work(client, sums(Rows())) as work:
        assert bits(work) == DUE
        [job] = client.workers["a"].jobs.values()
        assert not job.sums._kept


def test_rows_that_fit_are_read_once() -> None:
    reads = []

    class Counted(Rows):
        def read(self, begin: int, end: int) -> Arrays:
            reads.append(begin)
            return super().read(begin, end)

    client = FakeClient("a", "b")
    with at_work(client, sums(Rows())) as work:
        work.total(PARAMS[0])
        for each in client.workers.values():
            next(iter(each.jobs.values())).sums.blocks.source = Counted()
        bits(work)

    assert reads == []


class Answering:
    """A client whose workers answer what they are told to."""

    def __init__(self, versions: dict[str, Any], processors: dict[str, str] | None = None) -> None:
        self.answers = {"differences": versions, "processor": processors or dict.fromkeys(versions, processor())}

    def run(self, function: Any, *arguments: Any, on_error: str = "raise") -> dict[str, Any]:
        return self.answers[function.__name__]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (["numpy is 1.0, not 2.0"], "numpy is 1.0, not 2.0, and 1 more differ; install the same versions there"),
        (ModuleNotFoundError("No module named 'gdcompare'"), "gdcompare cannot be imported there (No module named"),
        (RuntimeError("no such function"), "no such function"),
    ],
)
def test_workers_of_other_versions_are_named_before_any_work(answer: Any, words: str) -> None:
    client = Answering({"tcp://a": [], "tcp://b": answer, "tcp://c": ["numpy is 3.0, not 2.0"]})

    with pytest.raises(ClusterError, match=re.escape("worker tcp://b does not compute as this process does: " + words)):
        refuse_others(client, as_backend("numpy"))


def test_workers_of_the_same_versions_are_taken() -> None:
    refuse_others(Answering({"a": [], "b": []}), as_backend("numpy"))


def test_a_worker_with_another_processor_is_taken_with_a_warning() -> None:
    with pytest.warns(ClusterWarning, match="worker b has another kind of processor"):
        refuse_others(Answering({"a": [], "b": []}, {"a": processor(), "b": "abacus"}), as_backend("numpy"))


def test_other_versions_differ() -> None:
    here = versions(as_backend("numpy"))

    assert differences(here) == []
    assert differences(here | {"numpy": "0.1"}) == [f"numpy is {np.__version__}, not 0.1"]
    assert differences(here | {"no-such-package": "1"}) == ["no-such-package is missing, not 1"]


# What is sent


@pytest.mark.thorough
def test_a_problem_from_a_file_arrives_without_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    (tmp_path / "beside.py").write_text("def half(xp, x):\n    return 0.5 * x\n")
    file.write_text(
        "from gdcompare.problems.linear_regression import LinearRegression\n"
        "import beside\n"
        "class Mine(LinearRegression):\n"
        "    def per_sample_losses(self, xp, params, features, targets):\n"
        "        return beside.half(xp, super().per_sample_losses(xp, params, features, targets))\n"
    )
    ours = sums(problem=load_problem(f"{file}:Mine"))

    parcel = packed(ours.problem, ours.backend, ours.blocks)
    program = (
        "import sys, numpy as np\n"
        "from gdcompare.scale.parcel import unpacked\n"
        "sent = unpacked(sys.stdin.buffer.read())\n"
        "x = np.ones((1, 1))\n"
        "params = {'theta_0': np.array(1.0), 'theta_1': np.zeros(1)}\n"
        "print(sent.backend, sent.problem.per_sample_losses(np, params, x, np.array([3.0])))\n"
    )
    for each in (file, tmp_path / "beside.py"):
        each.unlink()
    answer = subprocess.run([sys.executable, "-c", program], input=parcel, capture_output=True, check=True)  # noqa: S603

    assert answer.stdout.decode().split() == [*str(ours.backend).split(), "[2.]"]


def test_a_source_with_the_rows_in_it_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdcompare.scale.parcel.LARGE", 1000)
    ours = sums(InMemory(FEATURES, TARGETS, WEIGHTS))
    ours.blocks.source = _Around(ours.blocks.source)
    client = FakeClient("a", "b")

    with at_work(client, ours) as work:
        assert bits(work) == DUE
    assert ("a", "take") in client.calls


class _Around(Rows):
    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source


def test_what_cannot_be_sent_is_named() -> None:
    ours = sums()

    with pytest.raises(ValueError, match="the data 'these' cannot be sent to workers: "):
        packed(ours.problem, ours.backend, Blocks(_Locked(), "these", 4))


class _Locked(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


# Who has which


@given(st.integers(1, 40), st.integers(1, 4), st.lists(st.sets(st.sampled_from("abcdefg"), min_size=1), min_size=1))
def test_shares_are_all_blocks_once_as_many_for_each(blocks: int, unit: int, steps: list[set[str]]) -> None:
    shares: dict[str, Any] = {}
    for present in steps:
        before, shares = shares, shared_out(blocks, sorted(present), shares, unit)

        assert sorted(i for ranges in shares.values() for i in numbers(ranges)) == list(range(blocks))
        sizes = [len({i // unit for i in numbers(ranges)}) for ranges in shares.values()]
        assert max(sizes) - min(sizes) <= 1
        if set(before) == present:
            assert shares == before


@given(st.integers(1, 100), st.integers(2, 7))
def test_as_few_blocks_change_hands_as_may_be(blocks: int, workers: int) -> None:
    names = [str(i) for i in range(workers)]
    first = shared_out(blocks, names, {})
    fewer = shared_out(blocks, names[1:], first)

    for name in names[1:]:
        assert set(numbers(first[name])) <= set(numbers(fewer[name]))
