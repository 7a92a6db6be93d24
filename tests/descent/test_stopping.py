"""Where a descent stops: at the very step where a naive loop would."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gdcompare import Backend, Dataset, Descent, Problem, descend, rules
from gdcompare.descent.sampling import steps_per_epoch
from tests.descent.paths import (
    LINEAR,
    N,
    assert_cut_from,
    assert_same_descent,
    at_rows,
    batches,
    hand_derived,
    length,
    point,
    some_data,
)


@pytest.fixture(scope="session")
def problem(linear_model: Problem) -> Problem:
    """Here the path follows from formulas of their own; test_problems walks with all problems."""
    return linear_model


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
