"""Update rules: how a gradient becomes a step.

Every rule here is `theta <- theta - rate_t * direction_t`. The learning rate is a schedule, a function of the step
number; the direction is an init/update pair over the array namespace `xp`, with a memory handed from step to step.

What depends on the step number alone is computed once, in float64 with NumPy, and travels to the backend as data: all
backends see the same numbers, and a compiling backend does not compile again for another learning rate.

Conventions are those of `torch.optim` and `optax`: momentum without dampening, Adam with its epsilon outside the root.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.words import did_you_mean

Steps: TypeAlias = NDArray[np.int64]
Schedule: TypeAlias = Callable[[Steps], NDArray[np.floating]]
Params: TypeAlias = Mapping[str, NDArray[np.float64]]
Gradient: TypeAlias = Mapping[str, Any]
Memory: TypeAlias = Mapping[str, Gradient]


class Direction(Protocol):
    """Where a step points. Make it a frozen dataclass: equal directions share one compiled program."""

    @abstractmethod
    def init(self, params: Params) -> Memory:
        """Return the memory before the first step, each part named and shaped like the parameters."""

    @abstractmethod
    def coefficients(self, steps: Steps) -> tuple[NDArray[np.floating], ...]:
        """Return what else depends on the step number alone, each of the shape of `steps` (the first step is 0)."""

    @abstractmethod
    def update(
        self, xp: Any, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """Return (direction, new memory); nothing is changed in place."""


class Rule(NamedTuple):
    """An update rule, `theta <- theta - learning_rate(t) * direction_t`, with t = 0 for the first step."""

    learning_rate: Schedule
    direction: Direction


def sgd(learning_rate: float | Schedule) -> Rule:
    """Gradient descent: direction = g.

    >>> import gdcompare as gdc
    >>> data = gdc.Dataset([[0.0], [1.0]], [1.0, 3.0])
    >>> fit = gdc.descend("linear-regression", data, "numpy", sgd(0.5), epochs=1)
    >>> float(fit.parameters["theta_0"]), fit.parameters["theta_1"].tolist()
    (2.0, [1.5])
    """
    return Rule(_schedule(learning_rate), Plain())


def momentum(learning_rate: float | Schedule, beta: float = 0.9) -> Rule:
    """Heavy ball (Polyak 1964): v <- beta v + g, direction = v; v starts at 0."""
    return Rule(_schedule(learning_rate), Momentum(_fraction("beta", beta), nesterov=False))


def nesterov(learning_rate: float | Schedule, beta: float = 0.9) -> Rule:
    """Nesterov momentum as in `torch.optim` (Sutskever et al. 2013): v <- beta v + g, direction = g + beta v."""
    return Rule(_schedule(learning_rate), Momentum(_fraction("beta", beta), nesterov=True))


def adam(learning_rate: float | Schedule, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8) -> Rule:
    """Adam (Kingma and Ba 2015, algorithm 1), with t = 1 for the first step.

    m <- beta_1 m + (1 - beta_1) g,   v <- beta_2 v + (1 - beta_2) g^2,
    direction = (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon).
    """
    if not epsilon > 0 or not math.isfinite(epsilon):
        raise ValueError(f"epsilon must be a positive number, not {epsilon}")
    return Rule(_schedule(learning_rate), Adam(_fraction("beta_1", beta_1), _fraction("beta_2", beta_2), epsilon))


RULES: dict[str, Callable[[float | Schedule], Rule]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adam": adam,
}


def load(name: str, learning_rate: float | Schedule) -> Rule:
    """Return the rule of that name with its default settings.

    >>> load("newton", 0.1)
    Traceback (most recent call last):
    ...
    LookupError: unknown rule 'newton'; known: adam, momentum, nesterov, sgd
    """
    if name not in RULES:
        raise LookupError(f"unknown rule {name!r}; known: {', '.join(sorted(RULES))}{did_you_mean(name, RULES)}")
    return RULES[name](learning_rate)


def constant(rate: float) -> Schedule:
    """rate_t = rate."""
    checked = _checked_rate(rate)
    return lambda steps: np.full(steps.shape, checked)


def inverse_time(rate: float, decay: float = 1.0) -> Schedule:
    """rate_t = rate / (1 + decay t): the 1/t schedule of Robbins and Monro (1951).

    >>> inverse_time(1.0)(np.arange(3)).tolist()
    [1.0, 0.5, 0.3333333333333333]
    """
    checked, checked_decay = _checked_rate(rate), _checked_rate(decay, "decay")
    return lambda steps: checked / (1 + checked_decay * steps)


def cosine(rate: float, steps: int, final: float = 0.0) -> Schedule:
    """rate_t = final + (rate - final) (1 + cos(pi t / steps)) / 2 up to t = steps, then `final`.

    Without the restarts of Loshchilov and Hutter (2017).

    >>> cosine(1.0, steps=2)(np.arange(4)).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    checked, checked_final = _checked_rate(rate), _checked_rate(final, "final")
    if steps < 1:
        raise ValueError(f"a cosine schedule needs at least 1 step, not {steps}")
    half = (checked - checked_final) / 2
    return lambda at: checked_final + half * (1 + np.cos(np.pi * np.minimum(at / steps, 1.0)))


SCHEDULES = ("constant", "cosine", "inverse-time")


def load_schedule(name: str, rate: float, steps: int) -> Schedule:
    """Return the schedule of that name that starts at `rate`; a cosine reaches 0 after `steps` steps.

    >>> load_schedule("step", 0.1, steps=100)
    Traceback (most recent call last):
    ...
    LookupError: unknown schedule 'step'; known: constant, cosine, inverse-time
    """
    if name not in SCHEDULES:
        raise LookupError(f"unknown schedule {name!r}; known: {', '.join(SCHEDULES)}{did_you_mean(name, SCHEDULES)}")
    if name == "cosine":
        return cosine(rate, steps)
    return inverse_time(rate) if name == "inverse-time" else constant(rate)


@final
@dataclass(frozen=True)
class Plain(Direction):
    """direction = g; no memory."""

    def init(self, params: Params) -> Memory:
        """No memory."""
        del params
        return {}

    def coefficients(self, steps: Steps) -> tuple[NDArray[np.floating], ...]:
        """None."""
        del steps
        return ()

    def update(
        self, xp: Any, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """direction = g."""
        del xp, coefficients
        return gradient, memory


@final
@dataclass(frozen=True)
class Momentum(Direction):
    """v <- beta v + g; direction = v, or g + beta v after Nesterov."""

    beta: float
    nesterov: bool

    def init(self, params: Params) -> Memory:
        """v = 0."""
        return {"velocity": _zeros(params)}

    def coefficients(self, steps: Steps) -> tuple[NDArray[np.floating], ...]:
        """None."""
        del steps
        return ()

    def update(
        self, xp: Any, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """v <- beta v + g."""
        del xp, coefficients
        velocity = {name: self.beta * memory["velocity"][name] + g for name, g in gradient.items()}
        ahead = {name: g + self.beta * velocity[name] for name, g in gradient.items()} if self.nesterov else velocity
        return ahead, {"velocity": velocity}


@final
@dataclass(frozen=True)
class Adam(Direction):
    """The direction of `adam`; 1 - beta^t comes as a coefficient, exact to float64 on every backend."""

    beta_1: float
    beta_2: float
    epsilon: float

    def init(self, params: Params) -> Memory:
        """m = v = 0."""
        return {"mean": _zeros(params), "square": _zeros(params)}

    def coefficients(self, steps: Steps) -> tuple[NDArray[np.floating], ...]:
        """1 - beta_1^t and sqrt(1 - beta_2^t), with t = 1 for the first step."""
        return 1 - self.beta_1 ** (steps + 1.0), np.sqrt(1 - self.beta_2 ** (steps + 1.0))

    def update(
        self, xp: Any, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """direction = (m / c_1) / (sqrt(v) / c_2 + epsilon)."""
        c_1, c_2 = coefficients
        mean = {name: self.beta_1 * memory["mean"][name] + (1 - self.beta_1) * g for name, g in gradient.items()}
        square = {
            name: self.beta_2 * memory["square"][name] + (1 - self.beta_2) * (g * g) for name, g in gradient.items()
        }
        ahead = {name: (mean[name] / c_1) / (xp.sqrt(square[name]) / c_2 + self.epsilon) for name in gradient}
        return ahead, {"mean": mean, "square": square}


def _schedule(learning_rate: float | Schedule) -> Schedule:
    return learning_rate if callable(learning_rate) else constant(learning_rate)


def _checked_rate(rate: float, what: str = "learning rate") -> float:
    if not isinstance(rate, int | float | np.number) or not math.isfinite(rate) or rate < 0:
        raise ValueError(f"{what} must be a finite number, 0 or above, not {rate!r}")
    return float(rate)


def _fraction(what: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{what} must be in [0, 1), not {value!r}")
    return float(value)


def _zeros(params: Params) -> dict[str, NDArray[np.float64]]:
    return {name: np.zeros_like(value) for name, value in params.items()}
