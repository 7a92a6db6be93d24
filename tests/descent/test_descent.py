"""One descent, the same on every backend: where it goes, what it remembers, and exactly where it stops."""

from __future__ import annotations

import functools
import math
import re
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gdcompare import Backend, Dataset, Descent, Problem, descend, load_backend, load_problem, rules, verify
from gdcompare.arithmetic.formula_check import check_formula
from gdcompare.backend import unit_roundoff
from gdcompare.data import noisy_line
from gdcompare.descent.record import Progress
from gdcompare.descent.sampling import RowStream, steps_per_epoch
from gdcompare.progress import progress_bar, said_if_long
from tests.agreement import ROUNDINGS, assert_agree, assert_loss_agrees, mean_over_rows, rounded, sizes_of_rows
from tests.planes import Planes, three_planes
from tests.strategies import lattices

Array = NDArray[np.float64]

N = 12
# Full batch, a batch size that divides the 12 rows, one that leaves a ragged batch, and single samples.
BATCH_SIZES = [None, 4, 5, 1]
EPOCHS = {None: 36, 4: 3, 5: 3, 1: 3}
LINEAR = load_problem("linear-regression")


def refusal(error: type[Exception], message: str) -> Any:
    """Expect an error with exactly this message."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


@pytest.fixture(scope="session")
def problem(linear_model: Problem) -> Problem:
    """Here the path follows from formulas of their own; test_problems walks with all problems."""
    return linear_model


def some_data(problem: Problem, n: int = N, seed: int = 0) -> Dataset:
    """Two features up to 1 in size, and noisy targets or labels."""
    generator = np.random.default_rng(seed)
    features = generator.uniform(-1, 1, (n, 2))
    targets = features @ [2.0, -1.0] + generator.normal(0.5, 0.5, n)
    return Dataset(features, targets if problem.target_values is None else (targets > 0).astype(float))


def batches(n: int, batch_size: int | None, steps: int, seed: int = 0) -> list[NDArray[np.intp]]:
    """Return the rows of each step: all of them, or those of the stream, without its padding."""
    if batch_size is None:
        return [np.arange(n)] * steps
    rows, weights = RowStream(n, batch_size, seed).take(steps)
    return list(rows) if weights is None else [each[w == 1] for each, w in zip(rows, weights, strict=True)]


def at_rows(data: Dataset, rows: NDArray[np.intp]) -> Dataset:
    return Dataset(data.features[rows], data.targets[rows])


def hand_derived(problem: Problem, params: Mapping[str, Array], data: Dataset) -> tuple[float, dict[str, Array]]:
    """Return the mean loss and gradient over the rows of `data`, in float64."""
    losses = problem.per_sample_losses(np, params, data.features, data.targets)
    return float(np.mean(losses)), mean_over_rows(problem.per_sample_gradients(np, params, data.features, data.targets))


def length(gradient: Mapping[str, Array]) -> float:
    return math.sqrt(sum(float(np.sum(each * each)) for each in gradient.values()))


def point(fit: Descent, i: int) -> dict[str, Array]:
    """Return the parameters before step i, in float64."""
    return {name: each[i].astype(np.float64) for name, each in fit.history.parameters.items()}


def assert_same_descent(fit: Descent, other: Descent) -> None:
    """Raise unless all that the two descents computed is the same to the last bit."""
    assert (fit.stop_reason, fit.steps) == (other.stop_reason, other.steps)
    np.testing.assert_array_equal(fit.history.steps, other.history.steps, strict=True)
    np.testing.assert_array_equal(fit.history.losses, other.history.losses, strict=True)
    for name, value in other.parameters.items():
        np.testing.assert_array_equal(fit.parameters[name], value, strict=True)
        np.testing.assert_array_equal(fit.history.parameters[name], other.history.parameters[name], strict=True)


def assert_cut_from(fit: Descent, whole: Descent) -> None:
    """Raise unless the descent is the first `fit.steps` steps of the other, to the last bit, and nothing else."""
    np.testing.assert_array_equal(fit.history.steps, np.arange(fit.steps + 1))
    np.testing.assert_array_equal(fit.history.losses, whole.history.losses[: fit.steps], strict=True)
    for name, value in whole.history.parameters.items():
        np.testing.assert_array_equal(fit.history.parameters[name], value[: fit.steps + 1], strict=True)
        np.testing.assert_array_equal(fit.parameters[name], value[fit.steps], strict=True)


# Where it goes


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_every_backend_walks_the_same_path_step_by_step(
    backend: Backend[Any], dtype: str, problem: Problem, batch_size: int | None
) -> None:
    data, rate, u = rounded(some_data(problem), dtype), 0.0625, unit_roundoff(dtype)
    start = {"theta_0": np.array(0.5), "theta_1": np.array([-1.0, 0.25])}

    fit = descend(problem, data, backend, rules.sgd(rate), batch_size, EPOCHS[batch_size], start=start)

    # The path in float64, row by row, without padding, weights or chunks. A step with rate <= 2 / L is no expansion, so
    # that errors add up and do not grow: each step adds the rounding of its gradient and of its subtraction. (For rows
    # of length <= sqrt(3), the intercept included, L <= 6.)
    params, apart = start, 0.0
    for step, rows in enumerate(batches(N, batch_size, fit.steps)):
        _, gradient = hand_derived(problem, params, at_rows(data, rows))
        _, sizes = sizes_of_rows(problem, params, at_rows(data, rows), dtype)
        params = {name: value - rate * gradient[name] for name, value in params.items()}
        apart += u * (ROUNDINGS * rate * length(mean_over_rows(sizes)) + 2 * length(params))
        assert length({name: point(fit, step + 1)[name] - value for name, value in params.items()}) <= apart
    assert fit.steps == {None: 36, 4: 9, 5: 9, 1: 36}[batch_size]


@settings(deadline=None, max_examples=15)
@given(drawn=lattices(8, 2, largest=2), seed=st.integers(0, 9))
@pytest.mark.parametrize("batch_size", [None, 4])
def test_on_whole_numbers_the_first_steps_are_exact_to_the_last_bit(
    backend: Backend[Any], dtype: str, batch_size: int | None, drawn: tuple[Dataset, dict[str, Array]], seed: int
) -> None:
    data, start = drawn  # with whole numbers up to 2, all sums of squares in 1/32 stay below 2^24
    steps, rate = 2, Fraction(1, 8)

    fit = descend(LINEAR, data, backend, rules.sgd(1 / 8), batch_size, 1 if batch_size else 2, seed, start)

    exact = np.vectorize(Fraction, otypes=[object])
    inputs, targets = exact(np.column_stack([np.ones(8), data.features])), exact(data.targets)
    theta = exact(np.array([start["theta_0"], *start["theta_1"]]))
    for step, rows in enumerate(batches(8, batch_size, steps, seed)):
        residuals = inputs[rows] @ theta - targets[rows]
        theta = theta - rate * (2 * residuals @ inputs[rows] / len(rows))
        after = point(fit, step + 1)
        assert fit.history.losses[step] == residuals @ residuals / len(rows)
        assert [after["theta_0"], *after["theta_1"]] == theta.tolist()
    assert fit.steps == steps


def test_parameters_keep_their_names_whatever_their_shapes_and_order(backend: Backend[Any], dtype: str) -> None:
    data, start = three_planes()
    params = {name: np.array(value) for name, value in start.items()}

    fit = descend(Planes(), data, backend, rules.momentum(2**-6, beta=0.5), epochs=2, start=start)

    # All numbers are halves, quarters, ... so that both steps are exact.
    velocity = {name: np.zeros_like(value) for name, value in params.items()}
    assert list(fit.parameters) == list(fit.history.parameters) == ["slopes", "intercepts"]
    for step in range(2):
        for name, value in params.items():
            np.testing.assert_array_equal(fit.history.parameters[name][step], value.astype(dtype), strict=True)
        _, gradient = hand_derived(Planes(), params, data)
        velocity = {name: 0.5 * velocity[name] + gradient[name] for name in params}
        params = {name: value - 2**-6 * velocity[name] for name, value in params.items()}
    for name, value in params.items():
        np.testing.assert_array_equal(fit.parameters[name], value.astype(dtype), strict=True)


def test_a_descent_finds_the_line_it_came_from(backend: Backend[Any]) -> None:
    data = Dataset([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])

    fit = descend("linear-regression", data, backend, rules.sgd(0.2), epochs=300)

    assert fit.parameters["theta_0"] == pytest.approx(1, abs=1e-5)
    assert fit.parameters["theta_1"] == pytest.approx(2, abs=1e-5)
    assert (fit.stop_reason, fit.steps) == ("epochs", 300)


def test_a_seed_repeats_a_descent_and_another_differs(backend: Backend[Any]) -> None:
    one, again, other = (
        descend(LINEAR, some_data(LINEAR), backend, batch_size=1, epochs=2, seed=seed) for seed in (1, 1, 2)
    )

    assert_same_descent(one, again)
    assert not np.array_equal(one.history.losses, other.history.losses)


def test_a_descent_starts_from_zeros_with_rate_a_hundredth_unless_told_otherwise() -> None:
    data = some_data(LINEAR)

    fit = descend(LINEAR, data, "numpy")

    zeros = {"theta_0": 0.0, "theta_1": [0.0, 0.0]}
    assert_same_descent(fit, descend(LINEAR, data, "numpy", rules.sgd(0.01), None, 100, start=zeros))
    assert fit.steps == 100


def test_data_and_start_are_left_intact(backend: Backend[Any], dtype: str) -> None:
    data, start = some_data(LINEAR), {"theta_0": np.ones((), dtype), "theta_1": np.ones(2, dtype)}
    features, targets = data.features.copy(), data.targets.copy()

    fit = descend(LINEAR, data, backend, rules.adam(0.1), batch_size=5, epochs=2, start=start)
    for value in fit.parameters.values():
        value[...] = 9

    np.testing.assert_array_equal(data.features, features)
    np.testing.assert_array_equal(data.targets, targets)
    assert start["theta_1"].tolist() == [1, 1]
    assert float(start["theta_0"]) == 1


# What it remembers


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_history_holds_the_loss_of_each_batch_at_the_parameters_it_met(
    backend: Backend[Any], dtype: str, problem: Problem, batch_size: int | None
) -> None:
    data, epochs = rounded(some_data(problem), dtype), EPOCHS[batch_size]
    start = {"theta_0": 0.5, "theta_1": [-1.0, 0.25]}

    fit = descend(problem, data, backend, rules.sgd(0.0625), batch_size, epochs, start=start)

    steps = epochs * steps_per_epoch(N, batch_size)
    assert fit.steps == steps
    assert fit.history.steps.tolist() == list(range(steps + 1))
    assert fit.history.losses.shape == (steps,)
    assert fit.history.losses.dtype == dtype
    for name, shape in {"theta_0": (), "theta_1": (2,)}.items():
        assert fit.history.parameters[name].shape == (steps + 1, *shape)
        assert fit.history.parameters[name].dtype == fit.parameters[name].dtype == dtype
        np.testing.assert_array_equal(fit.history.parameters[name][0], start[name])
        np.testing.assert_array_equal(fit.history.parameters[name][-1], fit.parameters[name], strict=True)
    for step, rows in enumerate(batches(N, batch_size, steps)):
        before, after, batch = point(fit, step), point(fit, step + 1), at_rows(data, rows)
        loss, gradient = hand_derived(problem, before, batch)
        loss_sizes, sizes = sizes_of_rows(problem, before, batch, dtype)
        assert_loss_agrees(fit.history.losses[step], np.array(loss), np.mean(loss_sizes), dtype)
        expected = {name: before[name] - 0.0625 * gradient[name] for name in before}
        allowed = {name: 0.0625 * size + np.abs(before[name]) for name, size in mean_over_rows(sizes).items()}
        assert_agree({name: value.astype(dtype) for name, value in after.items()}, expected, allowed, dtype)


@pytest.mark.parametrize(("batch_size", "every"), [(None, 1), (1, 1), (2, 3), (3, 1), (N, 2)])
def test_a_descent_says_what_made_it_and_how_many_rows_it_read(batch_size: int | None, every: int) -> None:
    data = noisy_line(samples=N)
    rule = rules.momentum(0.01)

    fit = descend("linear-regression", data, "numpy", rule, batch_size, epochs=4, history_every=every)

    assert (fit.rule, fit.rows, fit.batch_size) == (rule, N, batch_size)
    read = [0, *np.cumsum([len(rows) for rows in batches(N, batch_size, fit.steps)]).tolist()]
    assert fit.samples.tolist() == [read[step] for step in fit.history.steps]


def test_the_clock_goes_forward_and_stands_at_every_kept_step() -> None:
    fit = descend("linear-regression", "noisy-line", "numpy", epochs=50, history_every=7, chunk=9)

    assert fit.history.seconds.shape == fit.history.steps.shape
    assert fit.history.seconds[0] == 0
    assert (np.diff(fit.history.seconds) >= 0).all()


def thinned(fit: Descent, every: int) -> Descent:
    """Return the descent as `history_every=every` should have kept it."""
    steps = sorted({*range(0, fit.steps + 1, every), fit.steps})
    parameters = {name: each[steps] for name, each in fit.history.parameters.items()}
    history = type(fit.history)(np.array(steps), fit.history.losses[::every], parameters)
    return Descent(fit.parameters, fit.stop_reason, fit.steps, history)


@pytest.mark.thorough
@given(
    batch_size=st.sampled_from(BATCH_SIZES),
    epochs=st.integers(1, 12),
    every=st.integers(1, 20),
    chunk=st.integers(1, 20),
    target_loss=st.sampled_from([None, 0.5, 1.0, 5.0]),
)
@settings(deadline=None)
def test_a_thinned_history_is_the_full_one_thinned(
    batch_size: int | None, epochs: int, every: int, chunk: int, target_loss: float | None
) -> None:
    walk = functools.partial(
        descend, LINEAR, some_data(LINEAR), "numpy", rules.sgd(0.1), batch_size, epochs, target_loss=target_loss
    )

    fit = walk(history_every=every, chunk=chunk)

    assert_same_descent(fit, thinned(walk(), every))
    assert len(fit.history.losses) == len(fit.history.parameters["theta_0"]) - 1


@pytest.mark.parametrize("every", [1, 3, 6, 1000])
def test_a_thinned_history_is_the_full_one_thinned_on_every_backend(backend: Backend[Any], every: int) -> None:
    walk = functools.partial(descend, LINEAR, some_data(LINEAR), backend, rules.sgd(0.1), 5, 6, chunk=7)

    fit = walk(history_every=every)

    assert_same_descent(fit, thinned(walk(), every))


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_steps_where_the_history_is_thinned() -> None:
    def peak(epochs: int, every: int) -> int:
        tracemalloc.start()
        try:
            descend(LINEAR, data, "numpy", epochs=epochs, history_every=every, chunk=200)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    data = some_data(LINEAR)
    peak(200, 1)  # what is kept for good is allocated once

    short, long, unthinned = peak(400, 1000), peak(8000, 1000), peak(8000, 1)

    assert long < 1.5 * short
    assert unthinned > 3 * short  # else this test could not fail


# Chunks


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("chunk", [5, 1000])
def test_the_length_of_a_chunk_changes_nothing(backend: Backend[Any], chunk: int, batch_size: int | None) -> None:
    rule = rules.adam(rules.cosine(0.1, steps=12))
    walk = functools.partial(descend, LINEAR, some_data(LINEAR), backend, rule, batch_size, 4 if batch_size else 12)

    fit = walk(chunk=chunk)

    assert_same_descent(fit, walk())


@pytest.mark.feature("the same bits in chunks of one step")
def test_nor_does_a_chunk_of_one_step(backend_name: str) -> None:
    rule = rules.adam(rules.cosine(0.1, steps=12))
    for dtype in ("float32", "float64"):
        for batch_size, epochs in ((None, 12), (5, 4)):
            backend = load_backend(backend_name, dtype)
            walk = functools.partial(descend, LINEAR, some_data(LINEAR), backend, rule, batch_size, epochs)

            assert_same_descent(walk(chunk=1), walk())


def test_chunks_of_one_step_change_nothing_but_the_last_bits(backend: Backend[Any], dtype: str) -> None:
    rule = rules.adam(rules.cosine(0.1, steps=12))
    walk = functools.partial(descend, LINEAR, some_data(LINEAR), backend, rule, 5, 4)
    whole = walk()

    fit = walk(chunk=1)

    for name, value in whole.history.parameters.items():
        np.testing.assert_allclose(fit.history.parameters[name], value, rtol=0, atol=64 * unit_roundoff(dtype))


# Where it stops


class Rule(NamedTuple):
    """The stopping rules of a descent."""

    target_loss: float | None = None
    gradient_norm: float | None = None
    loss_change: float | None = None
    patience: int = 5


def epoch_losses(losses: list[float], sizes: list[int], per_epoch: int) -> list[float]:
    """Return the mean loss over the rows of the epoch's worth of steps that ends at each step; NaN before."""
    n = sum(sizes[:per_epoch])
    return [
        math.fsum(losses[i] * sizes[i] for i in range(end - per_epoch, end)) / n if end >= per_epoch else math.nan
        for end in range(1, len(losses) + 1)
    ]


def naive_stop(losses: list[float], norms: list[float], per_epoch: int, rule: Rule) -> tuple[int, str]:
    """Return the steps taken and why no more, from each step's epoch loss and gradient norm, one step at a time."""
    best, idle = math.inf, 0
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1):
        if rule.target_loss is not None and loss <= rule.target_loss:
            return step, "target loss"
        if rule.loss_change is not None and step % per_epoch == 0:
            idle = 0 if best - loss > rule.loss_change else idle + 1
            best = min(best, loss)
            if idle == rule.patience:
                return step, "loss change"
        if rule.gradient_norm is not None and norm <= rule.gradient_norm:
            return step, "gradient norm"
    return len(losses), "epochs"


def looked_at(problem: Problem, data: Dataset, fit: Descent, batch_size: int | None) -> tuple[list[float], list[float]]:
    """Return the epoch loss and the gradient norm at each step of a descent that was not stopped."""
    steps = batches(len(data), batch_size, fit.steps)
    losses = [float(loss) for loss in fit.history.losses]
    means = epoch_losses(losses, [len(rows) for rows in steps], steps_per_epoch(len(data), batch_size))
    norms = [length(hand_derived(problem, point(fit, i), at_rows(data, rows))[1]) for i, rows in enumerate(steps)]
    return means, norms


@pytest.mark.thorough
@given(
    n=st.integers(1, 9),
    batch=st.none() | st.integers(1, 9),
    chunk=st.none() | st.integers(1, 40),
    rate=st.sampled_from([0.01, 0.1, 0.5]),
    target=st.none() | st.floats(0.01, 2),
    norm=st.none() | st.floats(0.001, 2),
    change=st.none() | st.floats(-0.01, 0.3),
    patience=st.integers(1, 4),
)
@settings(deadline=None, max_examples=200)
def test_a_descent_stops_at_the_very_step_where_a_naive_loop_would(
    n: int,
    batch: int | None,
    chunk: int | None,
    rate: float,
    target: float | None,
    norm: float | None,
    change: float | None,
    patience: int,
) -> None:
    data, batch_size = some_data(LINEAR, n, seed=n), None if batch is None else min(batch, n)
    per_epoch, rule = steps_per_epoch(n, batch_size), Rule(target, norm, change, patience)
    walk = functools.partial(descend, LINEAR, data, "numpy", rules.sgd(rate), batch_size, 20)
    whole = walk()
    losses, norms = looked_at(LINEAR, data, whole, batch_size)
    watched = losses[per_epoch - 1 :: per_epoch]
    falls = [least - loss for least, loss in zip(np.minimum.accumulate(watched), watched[1:], strict=False)]
    for values, threshold in ((losses, target), (norms, norm), (falls, change)):  # no ties that rounding would decide
        assume(threshold is None or np.nanmin(np.abs(np.array([*values, 9]) - threshold)) > 1e-9)

    fit = walk(chunk=chunk, **rule._asdict())

    assert (fit.steps, fit.stop_reason) == naive_stop(losses, norms, per_epoch, rule)
    assert_cut_from(fit, whole)


STOPS = {
    "target loss": Rule(target_loss=0.6),
    "gradient norm": Rule(gradient_norm=0.45),
    "loss change": Rule(loss_change=0.02, patience=2),
}


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("reason", STOPS)
def test_every_backend_stops_at_the_very_step(backend: Backend[Any], reason: str, batch_size: int | None) -> None:
    rule, data, epochs = STOPS[reason], some_data(LINEAR), 30 if batch_size else 90
    walk = functools.partial(descend, LINEAR, data, backend, rules.sgd(0.1), batch_size, epochs, chunk=4)
    whole = walk(gradient_norm=None if rule.gradient_norm is None else 0.0)  # never met, but computed
    losses, norms = looked_at(LINEAR, data, whole, batch_size)

    fit = walk(**rule._asdict())

    assert fit.stop_reason == reason
    assert (fit.steps, reason) == naive_stop(losses, norms, steps_per_epoch(N, batch_size), rule)
    assert_cut_from(fit, whole)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 1000])
def test_a_stop_at_the_border_of_a_chunk_is_exact(chunk: int) -> None:
    data = some_data(LINEAR)
    whole = descend(LINEAR, data, "numpy", rules.sgd(0.1), epochs=10)

    for step, loss in enumerate(whole.history.losses.tolist(), start=1):
        fit = descend(LINEAR, data, "numpy", rules.sgd(0.1), epochs=10, target_loss=loss, chunk=chunk)

        assert (fit.steps, fit.stop_reason) == (step, "target loss")
        assert_cut_from(fit, whole)


def test_the_epoch_loss_of_a_mini_batch_is_the_mean_over_all_rows(backend: Backend[Any]) -> None:
    data = Dataset([[0.0], [0.0], [0.0]], [0.0, 3.0, 6.0])  # at zero, losses 0, 9 and 36: mean 15
    walk = functools.partial(descend, LINEAR, data, backend, rules.sgd(0), batch_size=2, epochs=3)
    whole = walk()

    above, below = walk(target_loss=15.1), walk(target_loss=14.9)

    # Batches' losses are not it: the mean of two rows, then one row alone. Neither is half an epoch.
    assert whole.history.losses[:2].mean() != 15
    assert (above.steps, above.stop_reason) == (2, "target loss")
    losses = epoch_losses(whole.history.losses.tolist(), [2, 1] * 3, 2)
    assert (below.steps, below.stop_reason) == naive_stop(losses, losses, 2, Rule(target_loss=14.9))
    assert losses[1::2] == [15, 15, 15]


@pytest.mark.parametrize("reason", [Rule(target_loss=1e-9), Rule(loss_change=0.0)])
def test_a_huge_loss_at_the_beginning_does_not_hide_the_later_ones(reason: Rule) -> None:
    data = Dataset([[1.0], [-1.0], [0.5], [2.0]], [4.0, -2.0, 2.5, 7.0])
    start = {"theta_0": 1e9, "theta_1": [1e9]}
    walk = functools.partial(descend, LINEAR, data, "numpy", rules.sgd(0.1), batch_size=2, epochs=400, start=start)
    losses, norms = looked_at(LINEAR, data, walk(), 2)

    fit = walk(**reason._asdict())

    assert (fit.steps, fit.stop_reason) == naive_stop(losses, norms, 2, reason)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_diverging_descent_keeps_what_is_finite(
    backend: Backend[Any], dtype: str, batch_size: int | None, chunk: int | None
) -> None:
    data, rate = some_data(LINEAR), np.dtype(dtype).type(3e5)
    seen = {"features": data.features.astype(dtype), "targets": data.targets.astype(dtype)}

    fit = descend(LINEAR, data, backend, rules.sgd(3e5), batch_size, epochs=60, chunk=chunk)

    # The same in plain NumPy. Each step grows by a factor near 1e6; with this rate the last finite loss and the first
    # infinite one are a thousand times from the border, so that rounding cannot move the step.
    params = {name: value.astype(dtype) for name, value in LINEAR.start(data).items()}
    finite = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in batches(N, batch_size, 180):
            batch = (seen["features"][rows], seen["targets"][rows])
            loss = np.mean(LINEAR.per_sample_losses(np, params, *batch))
            gradient = LINEAR.per_sample_gradients(np, params, *batch)
            params = {name: value - rate * np.mean(gradient[name], axis=0) for name, value in params.items()}
            if not all(np.isfinite(each).all() for each in (loss, *params.values())):
                break
            finite += 1
    assert (fit.stop_reason, fit.steps) == ("diverged", finite)
    assert np.isfinite(fit.history.losses).all()
    assert len(fit.history.losses) == finite
    for name, value in fit.parameters.items():
        assert np.isfinite(fit.history.parameters[name]).all()
        np.testing.assert_array_equal(fit.history.parameters[name][-1], value, strict=True)
    assert max(np.abs(value).max() for value in fit.parameters.values()) > 1e10


@pytest.mark.parametrize("chunk", [None, 1, 2, 3])
@pytest.mark.parametrize("rule", [Rule(target_loss=1.0), Rule(gradient_norm=1.0)])
def test_a_target_met_just_before_divergence_is_met(rule: Rule, chunk: int | None) -> None:
    data = Dataset([[0.0]], [2.0])
    rates = rules.sgd(lambda steps: np.where(steps == 0, 0.4, 1e300))  # losses 4, 0.16, infinite

    fit = descend(LINEAR, data, "numpy", rates, epochs=5, chunk=chunk, **rule._asdict())

    assert fit.stop_reason in ("target loss", "gradient norm")
    assert fit.steps == 2


def test_a_start_that_is_too_far_away_diverges_at_once(backend: Backend[Any], dtype: str) -> None:
    far = float(np.finfo(dtype).max) / 2
    data = Dataset([[1.0]], [0.0])

    fit = descend(LINEAR, data, backend, epochs=3, start={"theta_0": far, "theta_1": [0.0]})

    assert (fit.stop_reason, fit.steps) == ("diverged", 0)
    assert fit.history.losses.shape == (0,)
    assert fit.history.steps.tolist() == [0]
    assert float(fit.parameters["theta_0"]) == far


# The loss theta_0^2 from theta_0 = 1: with rate 3/2 a step takes theta_0 to -2 theta_0, and with rate 1/2 to 0.

BORDER = {"float32": 36, "float64": 79}
"""The last step whose loss, 4^t, is at most 1 / u^3: 2^72 and 2^159."""


@pytest.mark.parametrize("how", [{}, {"loss_change": 0.0, "patience": 200}])
def test_a_descent_that_ends_at_a_huge_finite_loss_has_diverged(
    backend: Backend[Any], dtype: str, how: dict[str, Any]
) -> None:
    start = {"theta_0": 1.0, "theta_1": [0.0]}
    ends = [
        descend(
            LINEAR, Dataset([[0.0]], [0.0]), backend, rules.sgd(1.5), epochs=BORDER[dtype] + more, start=start, **how
        )
        for more in (1, 2)
    ]

    assert [fit.stop_reason for fit in ends] == ["epochs", "diverged"]
    for fit in ends:
        np.testing.assert_array_equal(fit.history.losses, 4.0 ** np.arange(fit.steps))
        assert fit.parameters["theta_0"] == (-2.0) ** fit.steps


@pytest.mark.parametrize("chunk", [None, 7])
def test_a_path_that_comes_back_from_a_huge_loss_is_not_cut(chunk: int | None) -> None:
    rule = rules.sgd(lambda steps: np.where(steps < 200, 1.5, 0.5))

    fit = descend(
        LINEAR, Dataset([[0.0]], [0.0]), "numpy", rule, epochs=300, start={"theta_0": 1, "theta_1": [0]}, chunk=chunk
    )

    assert (fit.stop_reason, fit.steps) == ("epochs", 300)
    assert fit.history.losses.max() == 4.0**200
    assert fit.parameters["theta_0"] == 0


@pytest.mark.parametrize("batch_size", [None, 1])
def test_a_loss_that_is_huge_from_the_start_is_no_divergence(batch_size: int | None) -> None:
    far = {"theta_0": 2.0**400, "theta_1": [0.0]}

    fit = descend(LINEAR, Dataset([[0.0]] * 3, [0.0] * 3), "numpy", rules.sgd(0.01), batch_size, epochs=5, start=far)

    assert fit.stop_reason == "epochs"
    assert fit.last_loss > 1e200


def test_a_rule_that_is_met_or_a_callback_keeps_its_name_at_a_huge_loss() -> None:
    how: dict[str, Any] = {"epochs": 200, "start": {"theta_0": 1, "theta_1": [0]}, "chunk": 100}
    data, rule = Dataset([[0.0]], [0.0]), rules.sgd(1.5)

    met = descend(LINEAR, data, "numpy", rule, target_loss=1e300, **how)
    stopped = descend(LINEAR, data, "numpy", rule, callback=lambda _: True, **how)

    assert (met.stop_reason, met.steps) == ("target loss", 1)
    assert (stopped.stop_reason, stopped.steps) == ("callback", 100)
    assert stopped.last_loss > 1e50


@pytest.mark.parametrize("threshold", [1e-300, 1e300])
def test_a_norm_that_the_dtype_has_not_is_compared_all_the_same(backend: Backend[Any], threshold: float) -> None:
    fit = descend(LINEAR, some_data(LINEAR), backend, epochs=3, gradient_norm=threshold)

    assert fit.steps == (3 if threshold < 1 else 1)


@pytest.mark.parametrize("every", [1, 3])
def test_a_history_that_outgrows_its_room_is_the_same(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = functools.partial(descend, LINEAR, some_data(LINEAR), "numpy", epochs=50, chunk=4, history_every=every)
    whole = walk()
    monkeypatch.setattr("gdcompare.descent.record._AT_FIRST", 2)

    assert_same_descent(walk(), whole)


# Callbacks, Ctrl-C and the bar


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


@dataclass(frozen=True, eq=False)
class Interrupted(Problem):
    """Linear regression during which Ctrl-C is pressed, after so many uses of its formulas."""

    after: int
    uses: list[str] = field(default_factory=list)

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return LINEAR.parameter_shapes(data)

    def per_sample_losses(self, *arguments: Any) -> Any:
        return self._use("per_sample_losses")(*arguments)

    def per_sample_gradients(self, *arguments: Any) -> dict[str, Any]:
        gradients: dict[str, Any] = self._use("per_sample_gradients")(*arguments)
        return gradients

    def value_and_gradient(self, *arguments: Any) -> tuple[Any, dict[str, Any]]:
        loss, gradient = self._use("value_and_gradient")(*arguments)
        return loss, gradient

    def _use(self, formula: str) -> Any:
        if len(self.uses) == self.after:
            raise KeyboardInterrupt
        self.uses.append(formula)
        return getattr(LINEAR, formula)


def interrupted(backend: Backend[Any], after: int) -> Interrupted:
    """Return the problem with its formulas looked at already, as a descent does once: only its steps are uses."""
    problem = Interrupted(after, uses=["before"] * 1000)
    check_formula(problem, some_data(LINEAR), by_hand=getattr(backend, "by_hand", False), refereed=False)
    problem.uses.clear()
    return problem


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


# What is compiled


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Every compilation by JAX, while the test runs."""
    monitoring = pytest.importorskip("jax.monitoring", reason="it counts JAX's compilations")
    seen: list[str] = []

    def note(event: str, duration: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    monitoring.register_event_duration_secs_listener(note)
    yield seen
    if hasattr(monitoring, "unregister_event_duration_listener"):
        monitoring.unregister_event_duration_listener(note)
    else:  # JAX 0.8
        monitoring.clear_event_listeners()


@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_second_jax_descent_of_the_same_shapes_compiles_nothing(
    compilations: list[str], batch_size: int | None, dtype: str
) -> None:
    n, epochs = 13, 17  # numbers of rows and of steps that no other test has

    def walk(rate: float, seed: int) -> None:
        start = {"theta_0": rate, "theta_1": [seed, seed]}
        problem, backend = load_problem("linear-regression"), load_backend("jax", dtype)
        rule = rules.adam(rules.inverse_time(rate))
        descend(problem, some_data(LINEAR, n, seed), backend, rule, batch_size, epochs, seed, start, target_loss=rate)

    walk(0.1, seed=1)
    first = len(compilations)
    walk(0.02, seed=2)

    assert first > 0
    assert len(compilations) == first


# Refusals


class Untouchable(Interrupted):
    """A problem whose formulas must not be used."""

    def _use(self, formula: str) -> Any:
        raise AssertionError(f"{formula} was used")


WHOLE = ("must be a whole number, 1 or above, not", [0, -1, True, 2.5, "3", None])
FINITE = ("must be a finite number, not", [math.nan, math.inf, -math.inf])
REFUSED = [
    *(
        (name, wrong, f"{name} {WHOLE[0]} {wrong!r}")
        for name in ("epochs", "patience", "history_every")
        for wrong in WHOLE[1]
    ),
    *(("chunk", wrong, f"chunk {WHOLE[0]} {wrong!r}") for wrong in WHOLE[1] if wrong is not None),
    *(
        (name, wrong, f"{name} {FINITE[0]} {wrong!r}")
        for name in ("target_loss", "gradient_norm", "loss_change")
        for wrong in FINITE[1]
    ),
    *(
        ("batch_size", wrong, f"batch size must be a whole number from 1 to the 12 rows, not {wrong!r}")
        for wrong in (0, -1, 13, True, False, 2.0, "2")
    ),
    ("start", {"theta_0": 0.0}, "Untouchable has the parameters theta_0, theta_1; got theta_0"),
    ("start", {}, "Untouchable has the parameters theta_0, theta_1; got none"),
    (
        "start",
        {"theta_0": 0.0, "theta_1": [0.0, 0.0], "slope": 1.0},
        "Untouchable has the parameters theta_0, theta_1; got slope, theta_0, theta_1",
    ),
    ("start", {"theta_0": [0.0], "theta_1": [0.0, 0.0]}, "parameter 'theta_0' must have shape (), not (1,)"),
    ("start", {"theta_0": 0.0, "theta_1": [0.0]}, "parameter 'theta_1' must have shape (2,), not (1,)"),
    (
        "start",
        {"theta_0": 0.0, "theta_1": [0.0, math.nan]},
        "parameter 'theta_1' holds nan in index 1; parameters must be finite",
    ),
    ("start", {"theta_0": math.inf, "theta_1": [0.0, 0.0]}, "parameter 'theta_0' holds inf; parameters must be finite"),
    (
        "start",
        {"theta_0": "a", "theta_1": [0.0, 0.0]},
        "parameter 'theta_0' must be real numbers in a rectangular array",
    ),
]


@pytest.mark.parametrize(("name", "wrong", "message"), REFUSED)
def test_an_argument_that_makes_no_sense_is_refused_before_any_work(name: str, wrong: Any, message: str) -> None:
    data = some_data(LINEAR)

    with refusal(ValueError, message):
        descend(Untouchable(after=0), data, "numpy", **{name: wrong})


def test_labels_outside_the_problems_are_refused(backend: Backend[Any]) -> None:
    data = Dataset([[1.0], [2.0], [3.0]], [0.0, 1.0, 2.0], name="three kinds")
    message = (
        "LogisticRegression takes targets 0 or 1, but row 2 of 'three kinds' has 2; "
        "relabel the targets or choose another problem"
    )

    with refusal(ValueError, message):
        descend("logistic-regression", data, backend)


def test_targets_of_the_wrong_dimensions_are_refused() -> None:
    data, _ = three_planes()

    way_out = "a problem with several targets in a row says target_dimensions = 2"
    with refusal(ValueError, f"LinearRegression takes targets of shape (n,), not (8, 3); {way_out}"):
        descend(LINEAR, data, "numpy")
    with refusal(
        ValueError, "Planes takes targets of shape (n, k), not (12,); gdcompare.datasets.suited makes such of yours"
    ):
        descend(Planes(), some_data(LINEAR), "numpy")


def test_names_that_nobody_registered_are_refused_with_the_known_ones() -> None:
    data = some_data(LINEAR)

    with pytest.raises(LookupError, match=r"^unknown backend 'tf'; registered: .*numpy"):
        descend(LINEAR, data, "tf")
    with pytest.raises(LookupError, match=r"^unknown problem 'line'; registered: .*linear-regression"):
        descend("line", data, "numpy")


# Weights


@pytest.mark.parametrize("batch_size", [None, 5])
def test_weights_scale_what_a_row_adds_to_a_step(backend: Backend[Any], dtype: str, batch_size: int | None) -> None:
    plain = some_data(LINEAR)
    weights = np.arange(1.0, N + 1)
    data = Dataset(plain.features, plain.targets, weights=weights)

    fit = descend(LINEAR, data, backend, rules.sgd(0.25), batch_size, epochs=1)

    first = batches(N, batch_size, 1)[0]
    rows = LINEAR.per_sample_gradients(np, LINEAR.start(data), data.features[first], data.targets[first])
    for name, each in rows.items():
        expected = -0.25 * np.average(each, axis=0, weights=weights[first])
        np.testing.assert_allclose(
            fit.history.parameters[name][1], expected, rtol=1e-5 if dtype == "float32" else 1e-13
        )


def test_mini_batches_refuse_a_weight_of_0() -> None:
    plain = some_data(LINEAR)
    data = Dataset(plain.features, plain.targets, weights=np.arange(N))

    with refusal(
        ValueError,
        "row 0 has weight 0, and may be a batch by itself; drop such rows, or take the full batch",
    ):
        descend(LINEAR, data, "numpy", batch_size=2)


def test_a_derivation_that_leaves_out_a_parameter_is_said() -> None:
    class Partial(type(LINEAR)):  # type: ignore[misc]
        def value_and_gradient(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            loss, gradient = super().value_and_gradient(xp, params, features, targets)
            return loss, {"theta_0": gradient["theta_0"]}

    with pytest.raises(ValueError, match="the gradient by numpy has nothing for 'theta_1': a derivation returns"):
        descend(Partial(), some_data(LINEAR), "numpy", epochs=1)
