"""Every update rule, along every schedule, takes the steps that torch.optim and optax take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from gdcompare import Backend, Dataset, descend, load_problem, rules
from gdcompare.backend import unit_roundoff
from tests.refusal import refusal

Array = NDArray[np.float64]
Path = dict[str, Array]

STEPS = 24

# Rounding, in units of u, that a step adds to a parameter: all numbers here stay below 4, and a dozen roundings of a
# gradient enter with rate 0.1. Measured: 2.
ROUNDINGS_PER_STEP = 16
# Whoever computes 1 - 0.999^t loses 1 / (1 - 0.999^t), about 1000 / t, units of u; half of it, through a root, enters
# with rate 0.1. Over 24 steps, 50 (1 + 1/2 + ... + 1/24).
ADAM_ROUNDINGS = 190


class Peer(NamedTuple):
    """One rule, as three libraries spell it; `rate` is a function of the step."""

    ours: Callable[[rules.Schedule], rules.Rule]
    torch: Callable[[Any, list[Any]], Any]
    optax: Callable[[Any, Any], Any]


PEERS = {
    "sgd": Peer(rules.sgd, lambda torch, p: torch.optim.SGD(p, lr=1), lambda optax, rate: optax.sgd(rate)),
    "momentum": Peer(
        rules.momentum,
        lambda torch, p: torch.optim.SGD(p, lr=1, momentum=0.9),
        lambda optax, rate: optax.sgd(rate, momentum=0.9),
    ),
    "nesterov": Peer(
        rules.nesterov,
        lambda torch, p: torch.optim.SGD(p, lr=1, momentum=0.9, nesterov=True),
        lambda optax, rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    ),
    "adam": Peer(
        rules.adam,
        lambda torch, p: torch.optim.Adam(p, lr=1, betas=(0.9, 0.999), eps=1e-8),
        lambda optax, rate: optax.adam(rate, b1=0.9, b2=0.999, eps=1e-8),
    ),
}


class Rates(NamedTuple):
    """One schedule: ours, the same in plain Python, and as optax spells it."""

    ours: rules.Schedule
    at: Callable[[int], float]
    optax: Callable[[Any], Any]


RATES = {
    "constant": Rates(rules.constant(0.1), lambda t: 0.1, lambda optax: 0.1),
    "inverse time": Rates(
        rules.inverse_time(0.1, 0.5), lambda t: 0.1 / (1 + 0.5 * t), lambda optax: lambda t: 0.1 / (1 + 0.5 * t)
    ),
    "cosine": Rates(
        rules.cosine(0.1, steps=20, final=0.01),  # ends before the descent does
        lambda t: 0.01 + 0.09 * (1 + math.cos(math.pi * min(t, 20) / 20)) / 2,
        lambda optax: optax.cosine_decay_schedule(0.1, 20, alpha=0.1),
    ),
}


def a_plane() -> Dataset:
    generator = np.random.default_rng(3)
    features = generator.uniform(-1, 1, (12, 2))
    return Dataset(features, features @ [2.0, -1.0] + 1 + generator.normal(0, 0.1, 12))


def path_and_gradients(backend: Backend[Any], rule: rules.Rule) -> tuple[Path, list[Path]]:
    """Return the parameters of a real descent, and the gradients in float64 at each of them, derived by hand."""
    problem, data = load_problem("linear-regression"), a_plane()
    start = {"theta_0": -1.0, "theta_1": [1.0, 2.0]}

    path = descend(problem, data, backend, rule, epochs=STEPS, start=start).history.parameters

    features, targets = (each.astype(backend.dtype).astype(np.float64) for each in (data.features, data.targets))
    points = ({name: each[t].astype(np.float64) for name, each in path.items()} for t in range(STEPS))
    return path, [problem.value_and_gradient(np, point, features, targets)[1] for point in points]


def assert_same_path(path: Path, points: Iterator[Path], dtype: str, rule: str) -> None:
    for t, point in enumerate(points, start=1):
        allowed = t * ROUNDINGS_PER_STEP * unit_roundoff(dtype)
        if rule == "adam":
            allowed += ADAM_ROUNDINGS * unit_roundoff("float64")
        for name, value in point.items():
            np.testing.assert_allclose(path[name][t], value, rtol=0, atol=allowed, err_msg=f"{name} after step {t}")
    assert t == STEPS


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("schedule", RATES)
@pytest.mark.parametrize("rule", PEERS)
def test_a_rule_takes_the_steps_of_torch_optim(backend: Backend[Any], dtype: str, rule: str, schedule: str) -> None:
    torch = pytest.importorskip("torch", reason="torch.optim is what the rule is compared with")
    path, gradients = path_and_gradients(backend, PEERS[rule].ours(RATES[schedule].ours))

    def points() -> Iterator[Path]:
        params = {name: torch.tensor(value[0], dtype=torch.float64) for name, value in path.items()}
        optimizer = PEERS[rule].torch(torch, list(params.values()))
        schedule_of_torch = torch.optim.lr_scheduler.LambdaLR(optimizer, RATES[schedule].at)
        for gradient in gradients:
            for name, param in params.items():
                param.grad = torch.tensor(gradient[name])
            optimizer.step()
            schedule_of_torch.step()
            yield {name: param.numpy() for name, param in params.items()}

    assert_same_path(path, points(), dtype, rule)


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("schedule", RATES)
@pytest.mark.parametrize("rule", PEERS)
def test_a_rule_takes_the_steps_of_optax(backend: Backend[Any], dtype: str, rule: str, schedule: str) -> None:
    jax = pytest.importorskip("jax", reason="optax needs jax")
    optax = pytest.importorskip("optax", reason="optax is what the rule is compared with")
    path, gradients = path_and_gradients(backend, PEERS[rule].ours(RATES[schedule].ours))

    def points() -> Iterator[Path]:
        optimizer = PEERS[rule].optax(optax, RATES[schedule].optax(optax))
        with jax.enable_x64(True):
            params = {name: jax.numpy.asarray(value[0], dtype="float64") for name, value in path.items()}
            state = optimizer.init(params)
            for gradient in gradients:
                updates, state = optimizer.update(gradient, state, params)
                params = optax.apply_updates(params, updates)
                yield {name: np.asarray(value) for name, value in params.items()}

    assert_same_path(path, points(), dtype, rule)


# On paper: the loss theta_0^2, whose gradient is 2 theta_0, from theta_0 = 1.

NEXT_ON_PAPER: dict[str, tuple[rules.Rule, list[float]]] = {
    "sgd": (rules.sgd(0.25), [0.5, 0.25, 0.125]),
    "momentum": (rules.momentum(0.25, beta=0.5), [0.5, 0, -0.25]),  # v = 2, 2, 1
    "nesterov": (rules.nesterov(0.25, beta=0.5), [0.25, -0.0625, -0.109375]),  # v = 2, 3/2, 5/8
    "adam": (rules.adam(1.0, beta_1=0.5, beta_2=0, epsilon=2), [1 / 2, 1 / 18]),  # m = 1, 1; c_1 = 1/2, 3/4
    "schedule": (rules.sgd(lambda t: 0.25 * 0.5**t), [1 / 2, 3 / 8, 21 / 64]),  # rates 1/4, 1/8, 1/16
    "inverse time": (rules.sgd(rules.inverse_time(0.25)), [1 / 2, 3 / 8, 5 / 16]),  # rates 1/4, 1/8, 1/12
    "cosine": (rules.sgd(rules.cosine(0.5, steps=2, final=0.25)), [0, 0, 0]),
    "standing still": (rules.sgd(0), [1, 1]),
}


@pytest.mark.parametrize("case", NEXT_ON_PAPER)
def test_the_first_steps_are_those_found_on_paper(backend: Backend[Any], dtype: str, case: str) -> None:
    rule, expected = NEXT_ON_PAPER[case]
    data = Dataset([[0.0]], [0.0])

    fit = descend("linear-regression", data, backend, rule, epochs=len(expected), start={"theta_0": 1, "theta_1": [5]})

    rtol = 4 * unit_roundoff(dtype)
    np.testing.assert_allclose(fit.history.parameters["theta_0"], [1, *expected], rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(fit.history.parameters["theta_1"], 5)


def test_adams_first_step_is_the_learning_rate_whatever_the_gradients_size(backend: Backend[Any], dtype: str) -> None:
    data = Dataset([[1e-3], [1e4]], [1.0, -1e4])

    fit = descend("linear-regression", data, backend, rules.adam(0.5, epsilon=1e-30), epochs=1)

    assert fit.parameters["theta_0"] == pytest.approx(-0.5, rel=8 * unit_roundoff(dtype))
    assert fit.parameters["theta_1"] == pytest.approx(-0.5, rel=8 * unit_roundoff(dtype))


@pytest.mark.parametrize("schedule", RATES)
def test_a_schedule_is_its_formula(schedule: str) -> None:
    ours, at, _ = RATES[schedule]

    rates = ours(np.arange(30))

    np.testing.assert_allclose(rates, [at(t) for t in range(30)], rtol=1e-15)


def test_a_rule_has_its_default_settings_when_loaded_by_name() -> None:
    for name, make in {
        "sgd": rules.sgd,
        "momentum": rules.momentum,
        "nesterov": rules.nesterov,
        "adam": rules.adam,
        "adamw": rules.adamw,
        "rmsprop": rules.rmsprop,
        "adagrad": rules.adagrad,
    }.items():
        loaded, made = rules.load(name, 0.1), make(0.1)

        assert loaded.direction == made.direction
        assert loaded.learning_rate(np.arange(3)).tolist() == [0.1] * 3
    assert set(rules.RULES) == {"sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad"}


def test_a_schedule_is_loaded_by_name() -> None:
    steps = np.arange(30)
    made = {
        "constant": rules.constant(0.1),
        "cosine": rules.cosine(0.1, steps=20),
        "inverse-time": rules.inverse_time(0.1),
    }

    loaded = {name: rules.load_schedule(name, 0.1, steps=20) for name in rules.SCHEDULES}

    assert {name: rates(steps).tolist() for name, rates in loaded.items()} == {
        name: rates(steps).tolist() for name, rates in made.items()
    }


def test_an_unknown_schedule_is_refused_with_the_known_ones() -> None:
    with refusal(LookupError, "unknown schedule 'step'; known: constant, cosine, inverse-time"):
        rules.load_schedule("step", 0.1, steps=20)


def test_equal_settings_make_equal_directions() -> None:
    assert rules.adam(0.1).direction == rules.adam(0.2).direction
    assert hash(rules.adam(0.1).direction) == hash(rules.adam(0.2).direction)
    assert rules.momentum(0.1, 0.5).direction != rules.momentum(0.1, 0.9).direction
    assert rules.momentum(0.1).direction != rules.nesterov(0.1).direction


# Refusals


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf, "0.1", None], ids=repr)
def test_a_rate_that_makes_no_sense_is_refused(wrong: Any) -> None:
    for make in (rules.sgd, rules.momentum, rules.nesterov, rules.adam, rules.constant, rules.inverse_time):
        with refusal(ValueError, f"learning rate must be a finite number, 0 or above, not {wrong!r}"):
            make(wrong)
    with refusal(ValueError, f"learning rate must be a finite number, 0 or above, not {wrong!r}"):
        rules.cosine(wrong, steps=3)
    with refusal(ValueError, f"decay must be a finite number, 0 or above, not {wrong!r}"):
        rules.inverse_time(0.1, wrong)
    with refusal(ValueError, f"final must be a finite number, 0 or above, not {wrong!r}"):
        rules.cosine(0.1, 3, final=wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1, 1.5, math.nan])
def test_a_beta_outside_0_to_1_is_refused(wrong: float) -> None:
    for make in (rules.momentum, rules.nesterov):
        with refusal(ValueError, f"beta must be in [0, 1), not {wrong}"):
            make(0.1, wrong)
    with refusal(ValueError, f"beta_1 must be in [0, 1), not {wrong}"):
        rules.adam(0.1, beta_1=wrong)
    with refusal(ValueError, f"beta_2 must be in [0, 1), not {wrong}"):
        rules.adam(0.1, beta_2=wrong)


@pytest.mark.parametrize("wrong", [0, -1e-8, math.nan, math.inf])
def test_an_epsilon_that_is_not_positive_is_refused(wrong: float) -> None:
    with refusal(ValueError, f"epsilon must be a positive number, not {wrong}"):
        rules.adam(0.1, epsilon=wrong)


def test_a_cosine_over_no_steps_is_refused() -> None:
    with refusal(ValueError, "a cosine schedule needs at least 1 step, not 0"):
        rules.cosine(0.1, steps=0)


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with refusal(LookupError, "unknown rule 'newton'; known: adagrad, adam, adamw, momentum, nesterov, rmsprop, sgd"):
        rules.load("newton", 0.1)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.5])
def test_a_schedule_that_goes_wrong_is_refused_with_the_step(
    backend: Backend[Any], wrong: float, chunk: int | None
) -> None:
    rule = rules.sgd(lambda steps: np.where(steps >= 3, wrong, 0.1))

    with refusal(ValueError, f"learning rate is {wrong} at step 3; it must be finite and 0 or above"):
        descend("linear-regression", a_plane(), backend, rule, epochs=6, chunk=chunk)


@pytest.mark.parametrize(("schedule", "shape"), [(lambda _: 0.1, "()"), (lambda t: np.ones((len(t), 1)), "(4, 1)")])
def test_a_schedule_of_the_wrong_shape_is_refused(schedule: rules.Schedule, shape: str) -> None:
    with refusal(ValueError, f"a learning-rate schedule must return shape (4,), not {shape}"):
        descend("linear-regression", a_plane(), "numpy", rules.sgd(schedule), epochs=4)


def test_a_schedule_is_not_asked_past_the_last_step() -> None:
    table = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    rule = rules.sgd(lambda steps: table[steps])

    fit = descend("linear-regression", a_plane(), "numpy", rule, epochs=5, chunk=2)  # the last chunk is half used

    assert fit.steps == 5
