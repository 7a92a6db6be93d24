"""Callbacks, Ctrl-C, and the bar: what was computed is kept."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from gdcompare import Backend, Problem, descend, load_backend, verify
from gdcompare.descent.record import Progress
from gdcompare.progress import progress_bar, said_if_long
from tests.descent.paths import (
    LINEAR,
    assert_cut_from,
    assert_same_descent,
    interrupted,
    some_data,
)


@pytest.fixture(scope="session")
def problem(linear_model: Problem) -> Problem:
    """Here the path follows from formulas of their own; test_problems walks with all problems."""
    return linear_model


def test_a_callback_sees_each_chunk_and_stops_the_descent(backend: Backend[Any]) -> None:
    whole = descend(LINEAR, some_data(LINEAR), backend, batch_size=5, epochs=4, chunk=4)
    seen: list[Progress] = []

    def stop_after_two(progress: Progress) -> bool:
        seen.append(progress)
        return len(seen) == 2

    fit = descend(LINEAR, some_data(LINEAR), backend, batch_size=5, epochs=4, chunk=4, callback=stop_after_two)

    assert [(progress.step, progress.steps) for progress in seen] == [(4, 12), (8, 12)]
    for progress in seen:
        assert progress.loss == whole.history.losses[progress.step - 1]
        for name, value in progress.parameters.items():
            np.testing.assert_array_equal(value, whole.history.parameters[name][progress.step], strict=True)
    assert (fit.stop_reason, fit.steps) == ("callback", 8)
    assert_cut_from(fit, whole)


@pytest.mark.parametrize("answer", [None, False])
def test_a_callback_that_says_nothing_changes_nothing(answer: bool | None) -> None:
    steps: list[int] = []

    def note(progress: Progress) -> bool | None:
        steps.append(progress.step)
        return answer

    fit = descend(LINEAR, some_data(LINEAR), "numpy", epochs=10, chunk=4, callback=note)

    assert_same_descent(fit, descend(LINEAR, some_data(LINEAR), "numpy", epochs=10))
    assert steps == [4, 8, 10]


def test_no_callback_comes_after_a_stop() -> None:
    seen: list[Progress] = []

    fit = descend(LINEAR, some_data(LINEAR), "numpy", epochs=9, target_loss=1e9, chunk=1, callback=seen.append)

    assert (fit.stop_reason, seen) == ("target loss", [])


def test_ctrl_c_in_a_callback_returns_what_was_computed(backend: Backend[Any]) -> None:
    def press(progress: Progress) -> None:
        if progress.step == 8:
            raise KeyboardInterrupt

    fit = descend(LINEAR, some_data(LINEAR), backend, epochs=12, chunk=4, callback=press)

    assert (fit.stop_reason, fit.steps) == ("interrupted", 8)
    assert_cut_from(fit, descend(LINEAR, some_data(LINEAR), backend, epochs=12, chunk=4))


def test_a_descent_that_stops_early_has_taken_few_steps_for_nothing() -> None:
    problem = interrupted(load_backend("numpy"), after=10**6)

    fit = descend(problem, some_data(LINEAR), "numpy", epochs=50_000, target_loss=1e9)

    assert (fit.stop_reason, fit.steps) == ("target loss", 1)
    assert len(problem.uses) <= 512


@pytest.mark.feature("Ctrl-C inside a chunk")
@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("steps", [1, 3, 4, 5, 8, 11])
def test_ctrl_c_in_the_middle_of_a_chunk_returns_the_steps_before(
    backend: Backend[Any], steps: int, chunk: int | None
) -> None:
    fit = descend(interrupted(backend, steps), some_data(LINEAR), backend, epochs=12, chunk=chunk)

    assert (fit.stop_reason, fit.steps) == ("interrupted", steps)
    assert_cut_from(fit, descend(LINEAR, some_data(LINEAR), backend, epochs=12))


def test_ctrl_c_before_the_first_step_returns_the_start(backend: Backend[Any], dtype: str) -> None:
    fit = descend(interrupted(backend, 0), some_data(LINEAR), backend, epochs=12)

    assert (fit.stop_reason, fit.steps) == ("interrupted", 0)
    np.testing.assert_array_equal(fit.parameters["theta_1"], np.zeros(2, dtype), strict=True)
    assert fit.history.parameters["theta_1"].shape == (1, 2)


def slow_descent(progress: bool | None) -> None:
    """Descend for more than the half second after which a bar appears."""
    descend(
        LINEAR, some_data(LINEAR), "numpy", epochs=3, chunk=1, progress=progress, callback=lambda _: time.sleep(0.3)
    )


@pytest.mark.thorough
def test_the_bar_is_shown_on_stderr_when_forced(capsys: pytest.CaptureFixture[str]) -> None:
    slow_descent(progress=True)

    shown = capsys.readouterr()
    assert "descending" in shown.err
    assert "3/3" in shown.err
    assert shown.out == ""


@pytest.mark.thorough
def test_the_bar_is_shown_where_stderr_is_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    slow_descent(progress=None)

    assert "descending" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.parametrize("progress", [None, False])
def test_the_bar_is_silent_otherwise(capsys: pytest.CaptureFixture[str], progress: bool | None) -> None:
    slow_descent(progress)

    assert capsys.readouterr() == ("", "")


def test_a_quick_descent_shows_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    descend(LINEAR, some_data(LINEAR), "numpy", epochs=3, progress=True)

    assert capsys.readouterr() == ("", "")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdcompare.progress._SILENCE", 0.05)


@pytest.mark.thorough
@pytest.mark.usefixtures("impatient")
def test_a_long_silence_before_the_first_step_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    threads = set(threading.enumerate())

    with progress_bar(10, True, "descending") as advance:
        time.sleep(0.3)
        advance(10)

    assert "descending: compiling, or in the first steps" in capsys.readouterr().err
    assert set(threading.enumerate()) <= threads


@pytest.mark.thorough
@pytest.mark.usefixtures("impatient")
def test_no_thread_is_left_by_what_fails_during_a_silence(capsys: pytest.CaptureFixture[str]) -> None:
    threads = set(threading.enumerate())

    def fail() -> None:
        with said_if_long("[/x] compiling", show=True):
            time.sleep(0.3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert "[/x] compiling" in capsys.readouterr().err
    assert set(threading.enumerate()) <= threads


def test_a_short_silence_is_not_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with said_if_long("compiling", show=True), progress_bar(1, True, "descending") as advance:
        advance(1)

    assert capsys.readouterr() == ("", "")


@pytest.mark.thorough
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("terminal", [False, True])
def test_a_verdict_that_waits_for_an_implementation_says_so_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)

    def slow(params: Any, features: Any, targets: Any) -> Any:
        time.sleep(0.2)
        return LINEAR.value_and_gradient(np, params, features, targets)

    verify(LINEAR, some_data(LINEAR), backends=[], implementations={"slow": slow}).assert_agree()

    assert ("slow: computing, or compiling" in capsys.readouterr().err) == terminal
