"""No answer is timed unless it is right, whatever is timed and however often its rows are repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gdcompare import Dataset, datasets
from gdcompare.registry import how_to_install
from gdcompare.timing.contender import Judgement
from gdcompare.timing.sized import sized
from gdcompare.timing.work import Work

SIZES = [7, 40, 1003]
"""Fewer rows than there are, as many, and more, some of them once more than others."""
KINDS = ["loss", "gradient", "per-sample", "hvp", "descent"]


def work(what: str, rows: int, dtype: str = "float64", **others: Any) -> Work:
    return Work("linear-regression", what, rows=rows, features=3, dtype=dtype, backends=("numpy",), **others)


def judged(of: Work, spoil: Callable[[Any], Any] = lambda answer: answer) -> Judgement:
    contender = of.contender("numpy")
    return contender.judge(spoil(contender.call()))


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_right_is_called_right(what: str, rows: int, dtype: str) -> None:
    found = judged(work(what, rows, dtype, batch_size=5 if what == "descent" else None))

    assert found, found.words
    assert not found.words.startswith("inconclusive")


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("name", ["torch", "torch[derived]", "jax", "jax[jitted]"])
def test_what_other_backends_compute_is_called_right(what: str, name: str) -> None:
    if (line := how_to_install(name)) is not None:
        pytest.skip(line)
    contender = Work("logistic-regression", what, rows=90, backends=(name,)).contender(name)

    found = contender.judge(contender.call())

    assert found, found.words


def on_gradient(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Any], Any]:
    return lambda answer: (answer[0], change(answer[1]))


GRADIENTS: dict[str, Callable[[Any], Any]] = {
    "a flipped sign": on_gradient(lambda g: g | {"theta_1": -g["theta_1"]}),
    "a sum for a mean": on_gradient(lambda g: {name: 1003 * each for name, each in g.items()}),
    "n - 1 for n": on_gradient(lambda g: {name: each * (1003 / 1002) for name, each in g.items()}),
    "the last digits": on_gradient(lambda g: g | {"theta_0": g["theta_0"] * (1 + 1e-9)}),
    "nan": on_gradient(lambda g: g | {"theta_0": g["theta_0"] * np.nan}),
    "float32": on_gradient(lambda g: g | {"theta_1": g["theta_1"].astype(np.float32)}),
    "an extra axis": on_gradient(lambda g: g | {"theta_1": g["theta_1"][None]}),
    "a missing part": on_gradient(lambda g: {"theta_0": g["theta_0"]}),
    "another loss": lambda answer: (answer[0] / 2, answer[1]),
}


@pytest.mark.parametrize("spoil", GRADIENTS.values(), ids=GRADIENTS.keys())
def test_a_wrong_gradient_is_refused(spoil: Callable[[Any], Any]) -> None:
    assert not judged(work("gradient", 1003), spoil)


def spoilt(row: int, by: float) -> Callable[[Any], Any]:
    def spoil(rows: Any) -> Any:
        changed = rows["theta_1"].copy()
        changed[row, 1] = by * changed[row, 1]
        return rows | {"theta_1": changed}

    return spoil


@pytest.mark.parametrize("row", [0, 500, 1002])
@pytest.mark.parametrize("by", [-1.0, 1 + 1e-12, np.nan, 0.0])
def test_a_single_wrong_row_is_refused(row: int, by: float) -> None:
    assert not judged(work("per-sample", 1003), spoilt(row, by))


def test_rows_that_are_missing_are_refused() -> None:
    found = judged(work("per-sample", 1003), lambda rows: {name: each[:-1] for name, each in rows.items()})

    assert not found
    assert "has shape" in found.words


def test_a_wrong_product_and_a_wrong_loss_are_refused() -> None:
    assert not judged(work("hvp", 1003), lambda answer: {name: -each for name, each in answer.items()})
    assert not judged(work("loss", 1003), lambda answer: answer * (1 + 1e-9))


DESCENTS = {
    "another learning rate": {"learning_rate": 0.0100001},
    "other batches": {"batch_size": 4},
    "other data": {"standardise": True},
    "fewer steps": {"rows": 30},
}


@pytest.mark.parametrize("other", DESCENTS.values(), ids=DESCENTS.keys())
def test_another_descent_is_refused(other: dict[str, Any]) -> None:
    asked = work("descent", 40, batch_size=5)
    another = replace(asked, **other).contender("numpy").call()

    assert not asked.contender("numpy").judge(another)


def test_a_descent_that_diverges_is_told_what_to_do() -> None:
    found = judged(work("descent", 40, learning_rate=100.0))

    assert not found
    assert "--learning-rate" in found.words


@pytest.mark.parametrize("step", [0, 255])
def test_a_descent_that_ends_or_begins_elsewhere_is_refused(step: int) -> None:
    def moved(answer: Any) -> Any:
        path = {name: each.copy() for name, each in answer.history.parameters.items()}
        path["theta_1"][step + (step > 0)] += 1e-6
        return replace(answer, history=replace(answer.history, parameters=path))

    assert not judged(work("descent", 40), moved)


@pytest.mark.thorough
def test_an_answer_without_a_digit_to_check_is_inconclusive() -> None:
    found = Work("linear-regression", rows=10**7, dtype="float32", backends=("numpy",))
    loss = np.float32(0.0)
    truths = found.bench.referee.truths

    gradient = {name: np.float32(truths[name].mid) for name in ("theta_0", "theta_1")}
    said = found.bench.gradient("mine", {"loss": loss + np.float32(truths["loss"].mid), **gradient}, None)

    assert said
    assert said.words.startswith("inconclusive: ")


# The data


@pytest.mark.parametrize(("rows", "features"), [(7, None), (1003, None), (80, 5), (None, 1), (90, 20)])
def test_data_have_the_size_that_is_asked_for(rows: int | None, features: int | None) -> None:
    line = datasets.noisy_line()

    found = sized(line, rows, features)

    n = rows or 40
    assert found.data.features.shape == (n, features or 1)
    which = np.arange(n) % len(found.distinct)
    np.testing.assert_array_equal(found.data.features, found.distinct.features[which])
    np.testing.assert_array_equal(found.data.targets, found.distinct.targets[which])
    assert len(np.unique(found.data.features, axis=1).T) == (features or 1)


def test_counted_rows_have_the_mean_of_all() -> None:
    found = sized(datasets.noisy_line(), 1003)

    weights = found.counted.weights
    assert weights is not None
    assert np.average(found.counted.targets, weights=weights) == pytest.approx(np.mean(found.data.targets))
    assert sized(datasets.noisy_line(), 120).counted.weights is None


def test_whole_numbers_stay_whole() -> None:
    found = sized(Dataset([[1.0], [2.0], [3.0]], [0.0, 1.0, 0.0]), features=4)

    assert (found.data.features == np.rint(found.data.features)).all()


@pytest.mark.parametrize("rows", [10**9])
def test_what_does_not_fit_is_refused_before_it_is_made(rows: int) -> None:
    with pytest.raises(ValueError, match=r"^1000000000 rows need about .* GB for 1 contenders, and 8 GB are free; "):
        work("gradient", rows).refuse_too_large(8 * 10**9)
    work("gradient", 1000).refuse_too_large(8 * 10**9)
