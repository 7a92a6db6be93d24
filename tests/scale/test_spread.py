"""Cells of a grid by workers that die, raise, differ or are stopped: every answer once, and what failed by its name."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gdcompare.scale import spread
from gdcompare.scale.connection import ClusterError, ClusterWarning
from gdcompare.scale.processes import local_cluster
from gdcompare.scale.spread import Spread, Unfit, spread_over, stop_sign, tell

from .small_cluster import threads

distributed = pytest.importorskip("distributed", reason="needs the extra 'dask'")
cloudpickle = pytest.importorskip("cloudpickle", reason="needs the extra 'dask'")
cloudpickle.register_pickle_by_value(sys.modules[__name__])

CELLS = {str(n): (n,) for n in range(9)}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two workers."""
    with threads(2) as found:
        yield found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "LOOK", 0.02)


def square(n: int) -> int:
    return n * n


def test_every_cell_is_answered_once_as_it_would_be_here(client: Any) -> None:
    answers: list[tuple[str, int]] = []

    failures = Spread(client).do(square, CELLS, lambda *answer: answers.append(answer))

    assert sorted(answers) == [(name, square(*arguments)) for name, arguments in CELLS.items()]
    assert failures == {}


def test_a_cell_that_raises_is_named_with_its_worker_and_the_others_are_done(client: Any) -> None:
    answers: dict[str, float] = {}

    failures = Spread(client).do(lambda n: 6 / (n - 3), CELLS, answers.__setitem__)

    assert answers == {str(n): 6 / (n - 3) for n in range(9) if n != 3}
    assert list(failures) == ["3"]
    assert failures["3"].startswith("on worker inproc://")
    assert failures["3"].endswith(": ZeroDivisionError: division by zero")


@pytest.mark.thorough
def test_a_cell_over_which_workers_die_is_named_and_the_others_are_done() -> None:
    def fatal(n: int) -> int:
        if n == 3:
            here = distributed.get_worker()
            here.loop.add_callback(here.close, nanny=False)
            stopping, until = stop_sign(), time.monotonic() + 0.3
            while not stopping() and time.monotonic() < until:
                time.sleep(0.01)
        return n

    answers: dict[str, int] = {}
    with threads(spread.DEATHS + 1) as client:
        failures = Spread(client).do(fatal, CELLS, answers.__setitem__)

    assert answers == {str(n): n for n in range(9) if n != 3}
    assert list(failures) == ["3"]
    assert failures["3"].startswith("4 workers died over it, one after the other, the last inproc://")


def test_a_worker_that_is_unfit_is_left_out_with_a_warning_and_its_cells_are_done_by_another(client: Any) -> None:
    odd = min(client.scheduler_info()["workers"])

    def judged(n: int, odd: str) -> int | Unfit:
        return Unfit("its clock is slow") if distributed.get_worker().address == odd else n

    answers: dict[str, int] = {}
    with pytest.warns(ClusterWarning, match=f"worker {odd} is left out: its clock is slow") as told:
        Spread(client).do(judged, {name: (*each, odd) for name, each in CELLS.items()}, answers.__setitem__)

    assert answers == {str(n): n for n in range(9)}
    assert len(told) == 1


class Unknown:
    """A function that no worker can load."""

    def __reduce__(self) -> Any:
        return __import__, ("no_such_module",)

    def __call__(self, n: int) -> int:
        return n


def test_workers_that_cannot_load_the_function_are_left_out_and_say_why(client: Any) -> None:
    with (
        pytest.raises(ClusterError, match="all are left out"),
        pytest.warns(ClusterWarning, match=r"is left out: it cannot load what .*: No module named 'no_such_module'"),
    ):
        Spread(client).do(Unknown(), CELLS, print)


def test_a_scheduler_that_cannot_load_us_is_said(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_called", Unknown())

    with pytest.raises(ClusterError, match=r"the Dask scheduler passes nothing on .*: start it where gdcompare is"):
        Spread(client).do(square, CELLS, print)


def test_a_scheduler_that_is_lost_ends_it_and_says_how_to_go_on(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []

    async def lost(n_workers: int) -> None:
        raise OSError("nobody there")

    def done(name: str, answer: int) -> None:
        kept.append(name)
        if len(kept) == 3:
            monkeypatch.setattr(client.scheduler, "identity", lost, raising=False)
            time.sleep(spread.LOOK)

    with pytest.raises(ClusterError, match=r"the Dask scheduler is gone; .*--resume"):
        Spread(client).do(square, CELLS, done)
    assert 3 <= len(kept) < len(CELLS)


def test_cells_that_dask_has_cancelled_end_it_too(client: Any) -> None:
    work = Spread(client)

    def slow(n: int) -> int:
        time.sleep(0.05)
        return n

    def done(name: str, answer: int) -> None:
        client.cancel([distributed.Future(key, client) for key in client.futures])

    with pytest.raises(ClusterError, match=r"the Dask scheduler is gone; .*--resume"):
        work.do(slow, CELLS, done)


def test_where_all_are_unfit_it_ends(client: Any) -> None:
    with (
        pytest.warns(ClusterWarning, match="is left out: never"),
        pytest.raises(ClusterError, match="no worker of the cluster can do this: all are left out"),
    ):
        Spread(client).do(lambda n: Unfit("never"), CELLS, print)


def test_workers_of_other_versions_are_named_before_any_work(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "versions_of", lambda names: {"numpy": "0.1"})

    with pytest.raises(ClusterError, match=r"worker \S+ does not compute as this process does: numpy is"):
        Spread(client)


def test_a_worker_of_other_versions_that_comes_later_is_left_out_and_named(client: Any) -> None:
    work = Spread(client)
    late = max(work._machines)
    del work._machines[late]
    work._wanted = {"numpy": "0.1"}

    with pytest.warns(ClusterWarning, match=f"worker {late} is left out: numpy is .*, not 0.1"):
        assert work.do(square, CELLS, lambda *_: None) == {}
    assert late not in work._machines


def test_where_a_machine_takes_one_at_a_time_cells_never_overlap(client: Any) -> None:
    busy = threading.Lock()

    def alone(n: int) -> bool:
        free = busy.acquire(blocking=False)
        time.sleep(0.005)
        if free:
            busy.release()
        return free

    answers: dict[str, bool] = {}
    work = Spread(client, one_a_machine=True)
    work.do(_by_reference(alone), CELLS, answers.__setitem__)

    assert Spread(client).places == 2
    assert work.places == 1
    assert [*answers.values()] == [True] * 9


_called: dict[str, Any] = {}


def _by_reference(function: Any) -> Any:
    """Return what calls this very function in this process, with the objects that it knows."""
    _called["it"] = function
    name = __name__

    def call(*arguments: Any) -> Any:
        return sys.modules[name]._called["it"](*arguments)

    return call


def test_ctrl_c_ends_cells_under_way_and_what_they_have_is_handed_out(client: Any) -> None:
    def until_stopped(n: int) -> str:
        stopping, until = stop_sign(), time.monotonic() + 5
        while n and not stopping() and time.monotonic() < until:
            time.sleep(0.005)
        return "what there is" if n else "all"

    answers: dict[str, str] = {}

    def done(name: str, answer: str) -> None:
        answers[name] = answer
        if answer == "all":
            time.sleep(0.05)  # the others begin
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Spread(client).do(until_stopped, {str(n): (n,) for n in (1, 0, 2, 3)}, done)

    assert answers == {"0": "all", "1": "what there is"}
    assert time.monotonic() - begun < 2


def test_what_a_cell_tells_is_heard(client: Any) -> None:
    heard: list[tuple[str, Any]] = []

    def telling(n: int) -> int:
        tell({"half of": n})
        time.sleep(0.05)
        return n

    Spread(client).do(telling, {"a": (4,)}, lambda *_: None, lambda *told: heard.append(told))

    assert heard == [("a", {"half of": 4})]
    tell("nobody listens here")


@pytest.mark.thorough
def test_nobody_there_is_said_after_a_while() -> None:
    with threads(0) as client, pytest.raises(ClusterError, match=r"no worker is left, and none came within 0\.1 s"):
        Spread(client, patience=0.1).do(square, CELLS, print)


def test_a_number_of_workers_that_is_none_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="workers must be a whole number, 1 or above, not 0"),
        spread_over(0, None, most=1),
    ):
        pass


def dies_once(folder: str, n: int) -> int:
    mark = Path(folder) / str(n)
    if n % 4 == 1 and not mark.exists():
        mark.touch()
        os._exit(1)
    return n


@pytest.mark.thorough
def test_the_cell_of_a_process_that_dies_is_done_by_another(tmp_path: Path) -> None:
    answers: dict[str, int] = {}

    with local_cluster(2) as processes, distributed.Client(processes, set_as_default=False) as client:
        failures = Spread(client).do(
            dies_once, {name: (str(tmp_path), *each) for name, each in CELLS.items()}, answers.__setitem__
        )

    assert answers == {str(n): n for n in range(9)}
    assert failures == {}
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.thorough
def test_processes_of_our_own_do_the_same() -> None:
    answers: dict[str, int] = {}

    with spread_over(2, None, most=9) as work:
        assert work.places == 2
        work.do(square, CELLS, answers.__setitem__)

    assert answers == {name: square(*arguments) for name, arguments in CELLS.items()}
