"""The rules of fair timing, tried on contenders that break them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.timing.contender import Contender
from gdcompare.timing.intervals import Interval

from . import contenders
from .checked import UNITS_OFF, DescentCase, check, descent_case, gradient_case, problem_case
from .conftest import Measure, pytest_benchmark_update_machine_info
from .summary import verdict

CASE = gradient_case("linear-regression", 40, 2)
DESCENT = descent_case(40, 2, 4, 3)
Answer = dict[str, NDArray[Any]]


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
    loss, slopes = judge.call()
    first = next(iter(slopes))

    assert judge.judge((loss, slopes)).figures[UNITS_OFF] <= 64
    with pytest.raises(AssertionError, match=f"{first} is off by .* units"):
        judge.judge((loss, slopes | {first: slopes[first] * (1 + 1e-9)}))


WRONG_DESCENTS = {
    "another learning rate": replace(DESCENT, rate=0.0100001),
    "other rows": replace(DESCENT, seed=1),
    "other batches": replace(DESCENT, batch_size=2),
    "an epoch less": replace(DESCENT, epochs=2),
}


@pytest.mark.parametrize("wrong", WRONG_DESCENTS.values(), ids=WRONG_DESCENTS.keys())
@pytest.mark.parametrize("keep", ["path", "end"])
def test_the_check_refuses_a_descent_with(wrong: DescentCase, keep: str) -> None:
    run = contenders.descent(wrong, gdc.load_backend("numpy")).call
    contender = contenders.descent if keep == "path" else contenders.descent_without_history
    judge = contender(DESCENT, gdc.load_backend("numpy"))

    assert judge.judge(judge.call()).figures[UNITS_OFF] <= 64
    with pytest.raises(AssertionError):
        judge.judge(run())


def test_a_wrong_timed_answer_is_refused_even_if_the_first_one_was_right(measure: Measure, benchmark: Any) -> None:
    right = contenders.gradient(CASE, gdc.load_backend("numpy"))
    calls, warm_up_calls = 0, 2 if benchmark.enabled else 0

    def wrong_once_it_counts() -> Any:
        nonlocal calls
        calls += 1
        loss, slopes = right.call()
        return loss if calls <= warm_up_calls else loss / 2, slopes

    with pytest.raises(AssertionError, match=r"loss is off by .* units"):
        measure("a group that is never shown", Contender("wrong", wrong_once_it_counts, right.judge))
    assert benchmark.has_error
    assert "contender" not in benchmark.extra_info


@pytest.mark.parametrize(
    ("promise", "words"), [(1.3, "<= 1.3"), (1.0, "about 1"), (0.8, "over 0.8"), (None, "not resolved")]
)
def test_a_promise_is_kept_or_broken_only_where_that_is_shown(promise: float | None, words: str) -> None:
    assert verdict(Interval(0.9, 1.0, 1.1, 12, 0.95), promise) == words


def test_what_two_runs_must_share_to_be_compared_is_the_same_before_and_after_anything_is_timed() -> None:
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}

    pytest_benchmark_update_machine_info(machine_info=first)
    gdc.value_and_grad("linear-regression", gdc.datasets.noisy_line(), {"theta_0": 1, "theta_1": [0]}, "numpy")
    pytest_benchmark_update_machine_info(machine_info=second)

    assert first == second
    assert first["versions"]["numpy"] == np.__version__
    assert set(first) == {"versions", "garbage collector"}
