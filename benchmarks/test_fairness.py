"""The rules of fair timing, tried on contenders that break them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc

from . import contenders, timing
from .checked import DescentCase, check, descent_case, gradient_case, problem_case
from .conftest import Measure, pytest_benchmark_update_machine_info
from .timing import Contender, Timed, interleave, wait_for

CASE = gradient_case("linear-regression", 40, 2)
DESCENT = descent_case(40, 2, 4, 3)
Answer = dict[str, NDArray[Any]]


class LazyArray:
    """An array like JAX's: returned at once, and computed by the time that someone waits for it."""

    def __init__(self) -> None:
        self.computed = False

    def block_until_ready(self) -> None:
        time.sleep(0.01)
        self.computed = True


def test_the_clock_stops_after_every_array_has_been_computed() -> None:
    timed = Timed(lambda: (LazyArray(), {"theta_0": LazyArray(), "theta_1": [LazyArray()]}))
    timed.warm_up()

    start = time.perf_counter()
    timed()
    seconds = time.perf_counter() - start

    assert _computed(timed.answer) == [True, True, True]
    assert seconds >= 0.03


def test_a_clock_that_did_not_wait_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "wait_for", lambda _: None)
    timed = Timed(lambda: (LazyArray(), {"theta_0": LazyArray(), "theta_1": [LazyArray()]}))
    timed.warm_up()

    timed()

    assert _computed(timed.answer) == [False, False, False]


def _computed(answer: Any) -> list[bool]:
    loss, slopes = answer
    return [each.computed for each in (loss, slopes["theta_0"], *slopes["theta_1"])]


def test_arrays_of_every_backend_are_complete_after_waiting(backend_name: str) -> None:
    backend = gdc.load_backend(backend_name)
    contender = contenders.gradient(CASE, backend)

    answer = contender.run()
    wait_for(answer)

    assert all(leaf.is_ready() for leaf in answer[1].values() if hasattr(leaf, "is_ready"))


WRONG_ANSWERS: dict[str, Callable[[Answer], Answer]] = {
    "a flipped sign": lambda answer: answer | {"theta_1": -answer["theta_1"]},
    "a sum for a mean": lambda answer: answer | {"theta_1": CASE.n * answer["theta_1"]},
    "n - 1 for n": lambda answer: answer | {"theta_0": answer["theta_0"] * (CASE.n / (CASE.n - 1))},
    "half": lambda answer: answer | {"loss": answer["loss"] / 2},
    "the last digits": lambda answer: answer | {"theta_1": answer["theta_1"] * (1 + 1e-12)},
    "nan": lambda answer: answer | {"loss": answer["loss"] * np.nan},
    "float32": lambda answer: answer | {"theta_1": answer["theta_1"].astype(np.float32)},
    "an extra axis": lambda answer: answer | {"theta_1": answer["theta_1"][None]},
    "a missing part": lambda answer: {"loss": answer["loss"]},
}


@pytest.mark.parametrize("spoil", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS.keys())
def test_the_check_refuses(spoil: Callable[[Answer], Answer]) -> None:
    truth = {name: np.asarray(right.value, np.float64) for name, right in CASE.gradient.items()}

    with pytest.raises(AssertionError):
        check(spoil(truth), CASE.gradient, "float64")


@pytest.mark.parametrize("problem_name", gdc.problem_names())
def test_the_check_knows_the_gradient_of_every_problem(problem_name: str) -> None:
    case, backend = problem_case(problem_name, 40, True), gdc.load_backend("numpy")
    judge = contenders.gradient(case, backend)
    loss, slopes = judge.run()
    first = next(iter(slopes))

    assert judge.check((loss, slopes)) <= 64
    with pytest.raises(AssertionError, match=f"{first} is off by .* units"):
        judge.check((loss, slopes | {first: slopes[first] * (1 + 1e-9)}))


WRONG_DESCENTS = {
    "another learning rate": replace(DESCENT, rate=0.0100001),
    "other rows": replace(DESCENT, seed=1),
    "other batches": replace(DESCENT, batch_size=2),
    "an epoch less": replace(DESCENT, epochs=2),
}


@pytest.mark.parametrize("wrong", WRONG_DESCENTS.values(), ids=WRONG_DESCENTS.keys())
@pytest.mark.parametrize("keep", ["path", "end"])
def test_the_check_refuses_a_descent_with(wrong: DescentCase, keep: str) -> None:
    run = contenders.descent(wrong, gdc.load_backend("numpy")).run
    contender = contenders.descent if keep == "path" else contenders.descent_without_history
    judge = contender(DESCENT, gdc.load_backend("numpy"))

    assert judge.check(judge.run()) <= 64
    with pytest.raises(AssertionError):
        judge.check(run())


def test_a_wrong_timed_answer_is_refused_even_if_the_first_one_was_right(measure: Measure, benchmark: Any) -> None:
    right = contenders.gradient(CASE, gdc.load_backend("numpy"))
    calls, warm_up_calls = 0, 2 if benchmark.enabled else 0

    def wrong_once_it_counts() -> Any:
        nonlocal calls
        calls += 1
        loss, slopes = right.run()
        return loss if calls <= warm_up_calls else loss / 2, slopes

    with pytest.raises(AssertionError, match=r"loss is off by .* units"):
        measure("a group that is never shown", Contender("wrong", wrong_once_it_counts, right.check))
    assert benchmark.has_error
    assert "contender" not in benchmark.extra_info


def test_interleaving_refuses_a_wrong_answer_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TURN", 0)
    answers = iter([1.0] * 12 + [2.0] * 20)

    def check_one(answer: float) -> float:
        assert answer == 1.0
        return 0.0

    with pytest.raises(AssertionError):
        interleave([Contender("wrong later", lambda: next(answers), check_one)], blocks=10)


def test_interleaving_runs_each_contender_once_a_block_and_the_first_one_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "TURN", 0)
    order: list[str] = []
    runs = [Contender(name, lambda name=name: order.append(name), lambda _: 0.0) for name in "ab"]  # type: ignore[misc]

    samples = interleave(runs, blocks=50)

    turns = order[-150:]
    rounds = {"".join(turns[start : start + 3]) for start in range(0, 150, 3)}
    assert rounds == {"aab", "aba", "baa"}
    assert {name: len(seconds) for name, seconds in samples.seconds.items()} == {"a": 50, "b": 50}
    assert len(samples.control) == 50


def test_what_two_runs_must_share_to_be_compared_is_the_same_before_and_after_anything_is_timed() -> None:
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}

    pytest_benchmark_update_machine_info(machine_info=first)
    gdc.value_and_grad("linear-regression", gdc.datasets.noisy_line(), {"theta_0": 1, "theta_1": [0]}, "numpy")
    pytest_benchmark_update_machine_info(machine_info=second)

    assert first == second
    assert first["versions"]["numpy"] == np.__version__
    assert set(first) == {"versions", "garbage collector"}
