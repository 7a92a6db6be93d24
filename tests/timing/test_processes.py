from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from gdcompare.timing.alone import Alone, alone, break_even
from gdcompare.timing.failure import Failure
from gdcompare.timing.fresh import ProcessFailedError, in_fresh_process, named, report
from gdcompare.timing.replicates import race_in_process
from gdcompare.timing.threads import allowed, checked_threads, pinned

THINGS = str(Path(__file__).with_name("things.py"))

unix = pytest.mark.skipif(os.name != "posix", reason="signals and pinned processors are Unix's")


def there(name: str, arguments: dict[str, Any] | None = None, **settings: Any) -> Any:
    return in_fresh_process(f"{THINGS}:{name}", arguments or {}, **settings)


def test_the_answer_comes_back_whatever_is_printed() -> None:
    assert there("echo", {"a": [1, 2.5, None], "b": "é"}) == {"a": [1, 2.5, None], "b": "é"}


@unix
def test_a_fresh_process_has_the_threads_it_was_given_and_ours_keeps_its_own() -> None:
    before = allowed()

    found = there("threads", threads=1)

    assert found["variable"] == "1"
    assert found["processors"] in (1, None)
    assert allowed() == before


def test_what_is_reported_is_heard_in_order() -> None:
    heard: list[int] = []

    assert there("reports", {"times": 3}, heard=heard.append) == "done"
    assert heard == [0, 1, 2]
    report("nobody listens here")


@pytest.mark.thorough
def test_a_process_that_fails_says_why() -> None:
    for name, arguments, words in (
        ("raises", {"words": "no room"}, "out of memory: MemoryError: no room"),
        ("dies", {"code": 3}, "error: the process ended with code 3: last words"),
        ("nothing_of_the_kind", {}, "error: AttributeError: "),
    ):
        with pytest.raises(ProcessFailedError, match=words):
            there(name, arguments)


@unix
def test_a_process_that_is_killed_may_have_run_out_of_memory() -> None:
    with pytest.raises(ProcessFailedError, match=r"^out of memory: the process was killed \(signal 9\)"):
        there("is_killed")


@pytest.mark.thorough
def test_a_process_that_takes_too_long_is_ended() -> None:
    with pytest.raises(ProcessFailedError, match=r"^out of time: more than 1.5 s"):
        there("hangs", limit=1.5)


@unix
def test_ctrl_c_reaches_the_process_and_what_it_has_comes_back() -> None:
    def press(_: object) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert there("until_interrupted", heard=press) == "what there is"
    finally:
        signal.signal(signal.SIGINT, before)


@unix
def test_a_process_that_should_stop_comes_back_with_what_it_has() -> None:
    said = threading.Event()

    assert there("until_interrupted", heard=lambda _: said.set(), stop=said.is_set) == "what there is"


@pytest.mark.thorough
@unix
def test_a_process_that_should_stop_and_does_not_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdcompare.timing.fresh.GRACE", 0.1)
    said = threading.Event()

    with pytest.raises(KeyboardInterrupt):
        there("never_ends", heard=lambda _: said.set(), stop=said.is_set)


@pytest.mark.thorough
@unix
def test_what_dies_or_fails_of_ctrl_c_is_no_failure_of_its_own() -> None:
    def press(_: object) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for name in ("dies_of_ctrl_c", "fails_of_ctrl_c"):
            with pytest.raises(KeyboardInterrupt):
                there(name, heard=press)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_begins_in_the_folder_and_with_the_variables_that_it_is_given(tmp_path: Path) -> None:
    found = there("surroundings", folder=str(tmp_path), environment={**os.environ, "OMP_NUM_THREADS": "3"})

    assert found == {"folder": str(tmp_path), "threads": "3"}


def test_a_name_in_a_file_or_a_module_is_found() -> None:
    assert named(f"{THINGS}:reports")(0) == "done"
    with pytest.raises(ModuleNotFoundError):
        named("no_such_module:f")


@unix
def test_pinned_threads_are_put_back() -> None:
    before = allowed()
    if before is None:
        pytest.skip("this system cannot pin")

    with pinned(1) as chosen:
        assert allowed() == chosen == before[-1:]
    assert allowed() == before


def test_more_threads_than_processors_are_refused() -> None:
    for number in (0, 10**6):
        with pytest.raises(
            ValueError, match=rf"threads must be from 1 to \d+, the processors that there are, not {number}"
        ):
            checked_threads(number)


# Alone


@pytest.mark.thorough
def test_memory_is_told_apart_into_imports_inputs_and_work() -> None:
    found = alone(f"{THINGS}:holds", {"megabytes": 32}, imports=["numpy"])

    assert isinstance(found, Alone)
    assert found.figures == {"digits": 15.0}
    megabyte = 2**20
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is known to this accuracy on Linux alone")
    assert 30 * megabyte < found.prepared - found.imported < 45 * megabyte
    assert 60 * megabyte < found.peak_above_inputs < 80 * megabyte
    assert 92 * megabyte < found.peak_above_imports < 115 * megabyte


@pytest.mark.thorough
def test_a_wrong_answer_has_no_time_alone_either() -> None:
    assert alone(f"{THINGS}:holds", {"megabytes": 1, "right": False}) == Failure("wrong", "off")


def test_a_process_that_dies_is_a_cell() -> None:
    found = alone(f"{THINGS}:dies", {"code": 3})

    assert str(found) == "error: the process ended with code 3: last words"


def test_compilation_is_what_the_first_calls_took_beyond_two_calls() -> None:
    found = Alone(first=5.0, second=2.0, steady=1.0, imported=0, prepared=0, peak=0)

    assert found.compilation == 5.0


def test_the_break_even_is_the_first_number_of_calls_that_is_no_slower() -> None:
    for first, steady, other_first, other_steady in (
        (22.0, 8e-6, 1e-4, 8e-5),
        (3.0, 0.5, 1.0, 1.0),
        (1.2, 1.0, 1.0, 1.1),
    ):
        n = break_even(first, steady, other_first, other_steady)

        assert first + (n - 1) * steady <= other_first + (n - 1) * other_steady + 1e-9
        assert first + (n - 2) * steady > other_first + (n - 2) * other_steady


# Races in processes


@pytest.mark.thorough
def test_a_race_in_a_process_is_a_race() -> None:
    found = race_in_process(f"{THINGS}:two", {}, threads=1, seconds=0, seed=3, reference="short")

    assert found.contenders == ("short", "long")
    assert (found.seed, found.reference) == (3, "short")
    assert len(found.blocks) >= 12


@pytest.mark.thorough
def test_a_race_in_a_process_goes_on() -> None:
    first = race_in_process(f"{THINGS}:two", {}, seconds=0, precision=1e-9)

    second = race_in_process(f"{THINGS}:two", {}, seconds=first.seconds + 0.05, precision=1e-9, before=first)

    assert second.blocks[: len(first.blocks)] == first.blocks
    assert len(second.blocks) > len(first.blocks)


def test_bad_settings_come_back_as_they_are() -> None:
    with pytest.raises(ProcessFailedError, match="precision must be positive, not 0"):
        race_in_process(f"{THINGS}:two", {}, precision=0)
