"""One descent, the same on every backend: where it goes, what it remembers, and what it refuses."""

from __future__ import annotations

import functools
import math
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdcompare import Backend, Dataset, Descent, Problem, descend, load_backend, load_problem, rules
from gdcompare.backend import unit_roundoff
from gdcompare.data import noisy_line
from gdcompare.descent.sampling import steps_per_epoch
from tests.agreement import ROUNDINGS, assert_agree, assert_loss_agrees, mean_over_rows, rounded, sizes_of_rows
from tests.descent.paths import (
    BATCH_SIZES,
    EPOCHS,
    LINEAR,
    Array,
    Interrupted,
    N,
    assert_same_descent,
    at_rows,
    batches,
    hand_derived,
    length,
    point,
    some_data,
)
from tests.planes import Planes, three_planes
from tests.refusal import refusal
from tests.strategies import lattices


@pytest.fixture(scope="session")
def problem(linear_model: Problem) -> Problem:
    """Here the path follows from formulas of their own; test_problems walks with all problems."""
    return linear_model


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
    def once(epochs: int, every: int) -> int:
        tracemalloc.start()
        try:
            descend(LINEAR, data, "numpy", epochs=epochs, history_every=every, chunk=200)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def peak(epochs: int, every: int) -> int:
        return min(once(epochs, every) for _ in range(3))  # other threads of this process make things, too

    data = some_data(LINEAR)
    once(200, 1)  # what is kept for good is allocated once

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
