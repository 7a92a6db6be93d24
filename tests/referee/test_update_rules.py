"""An update rule is a formula: optimizers that follow it agree, and those that do not are told what they do instead."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare import rules
from gdcompare.referee.update_rules import relatives

RATE = 0.1

OURS: dict[str, rules.Rule] = {
    "sgd": rules.sgd(RATE),
    "sgd, decayed": rules.sgd(RATE, weight_decay=0.01),
    "momentum": rules.momentum(RATE),
    "momentum, dampened": rules.momentum(RATE, dampening=0.3),
    "nesterov": rules.nesterov(RATE),
    "adam": rules.adam(RATE),
    "adam, decayed": rules.adam(RATE, weight_decay=0.1),
    "adamw": rules.adamw(RATE, weight_decay=0.1),
    "rmsprop": rules.rmsprop(RATE),
    "rmsprop, epsilon inside": rules.rmsprop(RATE, 0.9, epsilon_inside=True),
    "adagrad": rules.adagrad(RATE),
    "adagrad, epsilon inside": rules.adagrad(RATE, 1e-7, start=0.1, epsilon_inside=True),
    "clipped": rules.clipped(rules.sgd(RATE), 1.0),
    "clipped as in torch": rules.clipped(rules.sgd(RATE), 1.0, added=1e-6),
}

TORCH: dict[str, Callable[[Any, Any], Any]] = {
    "sgd": lambda optim, p: optim.SGD(p, lr=RATE),
    "sgd, decayed": lambda optim, p: optim.SGD(p, lr=RATE, weight_decay=0.01),
    "momentum": lambda optim, p: optim.SGD(p, lr=RATE, momentum=0.9),
    "momentum, dampened": lambda optim, p: optim.SGD(p, lr=RATE, momentum=0.9, dampening=0.3),
    "nesterov": lambda optim, p: optim.SGD(p, lr=RATE, momentum=0.9, nesterov=True),
    "adam": lambda optim, p: optim.Adam(p, lr=RATE),
    "adam, decayed": lambda optim, p: optim.Adam(p, lr=RATE, weight_decay=0.1),
    "adamw": lambda optim, p: optim.AdamW(p, lr=RATE, weight_decay=0.1),
    "rmsprop": lambda optim, p: optim.RMSprop(p, lr=RATE),
    "adagrad": lambda optim, p: optim.Adagrad(p, lr=RATE),
    "clipped as in torch": lambda optim, p: optim.SGD(p, lr=RATE),
}

OPTAX: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda optax: optax.sgd(RATE),
    "sgd, decayed": lambda optax: optax.chain(optax.add_decayed_weights(0.01), optax.sgd(RATE)),
    "momentum": lambda optax: optax.sgd(RATE, 0.9),
    "nesterov": lambda optax: optax.sgd(RATE, 0.9, nesterov=True),
    "adam": lambda optax: optax.adam(RATE),
    "adamw": lambda optax: optax.adamw(RATE, weight_decay=0.1),
    "rmsprop, epsilon inside": lambda optax: optax.rmsprop(RATE),
    "adagrad, epsilon inside": lambda optax: optax.adagrad(RATE),
    "clipped": lambda optax: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(RATE)),
}


@pytest.mark.parametrize("name", TORCH)
def test_an_optimizer_of_torch_follows_its_formula(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    from gdcompare_torch import from_optimizer

    clip = (lambda p: torch.nn.utils.clip_grad_norm_(p, 1.0)) if name.startswith("clipped") else None
    it = from_optimizer(lambda p: TORCH[name](torch.optim, p), before=clip)

    report = gdc.verify_rule(OURS[name], implementations={"torch": it}, dtype=dtype)

    report.assert_agree()
    assert max(entry.budget_fraction for entry in report.entries) > 1e-4  # it is not the budget that is generous


@pytest.mark.thorough
@pytest.mark.parametrize("name", OPTAX)
def test_a_transformation_of_optax_follows_its_formula(name: str, dtype: str) -> None:
    optax = pytest.importorskip("optax")
    from gdcompare_jax import from_optimizer

    gdc.verify_rule(
        OURS[name], implementations={"optax": from_optimizer(OPTAX[name](optax))}, dtype=dtype
    ).assert_agree()


@pytest.mark.thorough
@pytest.mark.parametrize("name", OURS)
def test_every_rule_runs_alike_on_numpy(name: str, dtype: str) -> None:
    gdc.verify_rule(OURS[name], backends=["numpy"], dtype=dtype).assert_agree()


@pytest.mark.parametrize("name", ["adamw", "clipped"])
def test_a_rule_runs_alike_on_every_backend(name: str, backend: gdc.Backend[Any]) -> None:
    gdc.verify_rule(OURS[name], backends=[backend], dtype=backend.dtype, steps=4).assert_agree()


# Wrong on purpose: the same formulas, in plain NumPy, with one thing changed.


def adam_like(**how: Any) -> Any:
    """Return an Adam with one thing changed, as an implementation."""
    inside, corrected, decay, times_rate = (how.get(key) for key in ("inside", "corrected", "decay", "times_rate"))

    def start(params: Any) -> Any:
        mean, square = ({name: 0 * value for name, value in params.items()} for _ in range(2))
        steps = [0]

        def step(gradient: Any) -> Any:
            steps[0] += 1
            c_1, c_2 = (1 - 0.9 ** steps[0], 1 - 0.999 ** steps[0]) if corrected is not False else (1.0, 1.0)
            for name, g in gradient.items():
                mean[name] = 0.9 * mean[name] + (1 - 0.9) * g
                square[name] = 0.999 * square[name] + (1 - 0.999) * g * g
                root = np.sqrt(square[name] / c_2 + 1e-8) if inside else np.sqrt(square[name] / c_2) + 1e-8
                decayed = 0.0 if decay is None else (RATE if times_rate else 1.0) * decay * params[name]
                params[name] = params[name] - RATE * (mean[name] / c_1) / root - decayed
            return params

        return step

    return start


def scaled(factor: float) -> Any:
    def start(params: Any) -> Any:
        def step(gradient: Any) -> Any:
            for name, g in gradient.items():
                params[name] = params[name] - factor * RATE * g
            return params

        return step

    return start


def heavy_ball(first: float, later: float, *, nesterov: bool = False) -> Any:
    def start(params: Any) -> Any:
        velocity: dict[str, Any] = {}

        def step(gradient: Any) -> Any:
            for name, g in gradient.items():
                velocity[name] = 0.9 * velocity[name] + later * g if name in velocity else first * g
                ahead = g + 0.9 * velocity[name] if nesterov else velocity[name]
                params[name] = params[name] - RATE * ahead
            return params

        return step

    return start


WRONG: dict[str, tuple[rules.Rule, Any, str, str]] = {
    "epsilon inside": (rules.adam(RATE), adam_like(inside=True), "step 0", "Adam with epsilon inside the root"),
    "uncorrected": (rules.adam(RATE), adam_like(corrected=False), "step 0", "Adam without bias correction"),
    "no decay": (rules.adamw(RATE, weight_decay=0.1), adam_like(), "step 0", "the rule without weight decay"),
    "decay without the rate": (
        rules.adamw(RATE, weight_decay=0.1),
        adam_like(decay=0.1, times_rate=False),
        "step 0",
        "weight decay without the learning rate",
    ),
    "dampened": (rules.momentum(RATE), heavy_ball(1.0, 0.1), "step 1", "momentum dampened by 0.9 from the second step"),
    "average": (rules.momentum(RATE), heavy_ball(0.1, 0.1), "step 0", "momentum dampened by 0.9 from the first step"),
    "nesterov": (rules.momentum(RATE), heavy_ball(1.0, 1.0, nesterov=True), "step 0", "Nesterov momentum"),
    "unclipped": (rules.clipped(rules.sgd(RATE), 1.0), scaled(1.0), "step 1", "the rule without clipping"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_optimizer_is_told_at_which_step_and_what_it_does_instead(fault: str, dtype: str) -> None:
    rule, implementation, law, instead = WRONG[fault]

    report = gdc.verify_rule(rule, implementations={"mine": implementation}, dtype=dtype)

    assert report.verdict == "wrong"
    wrong = [entry for entry in report.entries if entry.verdict == "wrong"]
    assert {entry.law for entry in wrong} == {law}
    assert {entry.cause for entry in wrong} == {f"it is what {instead} would give"}


@pytest.mark.thorough
def test_the_same_formulas_unchanged_agree(dtype: str) -> None:
    right = {
        "adam": (rules.adam(RATE), adam_like()),
        "adamw": (rules.adamw(RATE, weight_decay=0.1), adam_like(decay=0.1, times_rate=True)),
        "momentum": (rules.momentum(RATE), heavy_ball(1.0, 1.0)),
        "sgd": (rules.sgd(RATE), scaled(1.0)),
    }

    for rule, implementation in right.values():
        gdc.verify_rule(rule, implementations={"mine": implementation}, dtype=dtype).assert_agree()


def test_a_factor_is_told() -> None:
    report = gdc.verify_rule(rules.sgd(RATE), implementations={"mine": scaled(0.5)})

    assert report.entries[0].cause == "the first step is 0.5 times the right one in all 4 elements"


def test_what_nobody_knows_is_not_explained() -> None:
    def start(params: Any) -> Any:
        def step(gradient: Any) -> Any:
            for i, name in enumerate(gradient):
                params[name] = params[name] - RATE * gradient[name] * (1 + i)
            return params

        return step

    report = gdc.verify_rule(rules.sgd(RATE), implementations={"mine": start})

    assert {entry.cause for entry in report.entries if entry.verdict == "wrong"} == {
        "no common variant of the rule explains it"
    }


def test_a_relative_fault_above_what_is_stated_is_caught(dtype: str) -> None:
    report = gdc.verify_rule(rules.sgd(RATE), implementations={"mine": scaled(1.0)}, dtype=dtype, steps=1)
    power = max(entry.detectable for entry in report.entries)

    assert power < (1e-12 if dtype == "float64" else 1e-3)
    off = gdc.verify_rule(rules.sgd(RATE), implementations={"mine": scaled(1 + 1e3 * power)}, dtype=dtype)
    assert off.verdict == "wrong"


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (lambda gradient: {"a": gradient["a"]}, "missing"),
        (lambda gradient: {**gradient, "c": 1.0}, "no such parameter"),
        (lambda gradient: {name: g.astype("float16") for name, g in gradient.items()}, "dtype float16 where"),
        (lambda gradient: {name: g[None] for name, g in gradient.items()}, "shape (1,) where () belongs"),
        (lambda gradient: 1 / 0, "it raised ZeroDivisionError: division by zero at step 0"),
        (lambda gradient: None, "it returned None, where {name: array} is due at step 0"),
        (lambda gradient: {name: np.ma.masked_array(g) for name, g in gradient.items()}, "it returned a masked array"),
    ],
)
def test_what_is_no_step_is_wrong(step: Any, cause: str) -> None:
    report = gdc.verify_rule(rules.sgd(RATE), implementations={"mine": lambda params: step})

    assert report.verdict == "wrong"
    assert any(entry.cause.startswith(cause) for entry in report.entries)


def test_an_optimizer_that_ends_python_is_bad_input() -> None:
    with pytest.raises(ValueError, match=r"it calls sys.exit\('no step'\)"):
        gdc.verify_rule(rules.sgd(RATE), implementations={"mine": lambda params: sys.exit("no step")})


def test_numbers_of_python_are_numbers_of_the_dtype(dtype: str) -> None:
    def start(params: Any) -> Any:
        def step(gradient: Any) -> Any:
            for name in params:
                params[name] = params[name] - np.asarray(RATE, dtype) * gradient[name]
            return {name: value.tolist() for name, value in params.items()}

        return step

    gdc.verify_rule(rules.sgd(RATE), implementations={"mine": start}, dtype=dtype).assert_agree()


def test_nan_is_wrong() -> None:
    nan = {"mine": lambda params: lambda gradient: {name: g * np.nan for name, g in gradient.items()}}

    assert gdc.verify_rule(rules.sgd(RATE), implementations=nan).verdict == "wrong"


def test_gradients_and_parameters_of_ones_own() -> None:
    gradients = [{"w": [1.0, 2.0]}, {"w": [0.5, 0.0]}]

    report = gdc.verify_rule(rules.adam(RATE), params={"w": [0.0, 1.0]}, gradients=gradients, backends=["numpy"])

    report.assert_agree()
    assert (report.context["n"], report.context["d"]) == (2, 2)
    with pytest.raises(ValueError, match="gradient 0 has the shapes"):
        gdc.verify_rule(rules.adam(RATE), params={"w": 0.0}, gradients=gradients, backends=["numpy"])
    with pytest.raises(ValueError, match="gradient 0 must be finite"):
        gdc.verify_rule(rules.sgd(RATE), gradients=[{"w": np.inf}], backends=["numpy"])
    with pytest.raises(ValueError, match="there is no step to judge"):
        gdc.verify_rule(rules.sgd(RATE), steps=0, backends=["numpy"])
    with pytest.raises(ValueError, match="there is no optimizer to judge"):
        gdc.verify_rule(rules.sgd(RATE), backends=[])


def test_every_relative_is_another_rule() -> None:
    for rule in OURS.values():
        same = [words for words, other in relatives(rule).items() if other.direction == rule.direction]

        assert all(words.startswith(("clipping", "momentum dampened")) for words in same)  # one of two ways is its own
