"""Learning rates as functions of the step number: constant, 1/t, cosine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.words import did_you_mean

Steps: TypeAlias = NDArray[np.int64]
Schedule: TypeAlias = Callable[[Steps], NDArray[np.floating]]


def constant(rate: float) -> Schedule:
    """rate_t = rate."""
    return Constant(checked_rate(rate))


def inverse_time(rate: float, decay: float = 1.0) -> Schedule:
    """rate_t = rate / (1 + decay t): the 1/t schedule of Robbins and Monro (1951).

    >>> inverse_time(1.0)(np.arange(3)).tolist()
    [1.0, 0.5, 0.3333333333333333]
    """
    return InverseTime(checked_rate(rate), checked_rate(decay, "decay"))


def cosine(rate: float, steps: int, final: float = 0.0) -> Schedule:
    """rate_t = final + (rate - final) (1 + cos(pi t / steps)) / 2 up to t = steps, then `final`.

    Without the restarts of Loshchilov and Hutter (2017).

    >>> cosine(1.0, steps=2)(np.arange(4)).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    checked, checked_final = checked_rate(rate), checked_rate(final, "final")
    if steps < 1:
        raise ValueError(f"a cosine schedule needs at least 1 step, not {steps}")
    return Cosine(checked, steps, checked_final)


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
class Constant:
    """The schedule of `constant`, which is written as a number."""

    rate: float

    def __call__(self, steps: Steps) -> NDArray[np.floating]:
        """rate_t = rate."""
        return np.full(steps.shape, self.rate)

    def __repr__(self) -> str:
        return repr(self.rate)


@final
@dataclass(frozen=True)
class InverseTime:
    """The schedule of `inverse_time`."""

    rate: float
    decay: float

    def __call__(self, steps: Steps) -> NDArray[np.floating]:
        """rate_t = rate / (1 + decay t)."""
        return self.rate / (1 + self.decay * steps)

    def __repr__(self) -> str:
        return call("inverse_time", {name: repr(value) for name, value in vars(self).items()})


@final
@dataclass(frozen=True)
class Cosine:
    """The schedule of `cosine`."""

    rate: float
    steps: int
    final: float

    def __call__(self, steps: Steps) -> NDArray[np.floating]:
        """rate_t = final + half (1 + cos(pi t / steps))."""
        half = (self.rate - self.final) / 2
        return self.final + half * (1 + np.cos(np.pi * np.minimum(steps / self.steps, 1.0)))

    def __repr__(self) -> str:
        return call("cosine", {name: repr(value) for name, value in vars(self).items()})


def as_schedule(learning_rate: float | Schedule) -> Schedule:
    """Return a number as the schedule that keeps it."""
    return learning_rate if callable(learning_rate) else constant(learning_rate)


def call(name: str, arguments: Mapping[str, str]) -> str:
    """Return a call as it is written."""
    return f"{name}({', '.join(f'{argument}={value}' for argument, value in arguments.items())})"


def checked_rate(rate: float, what: str = "learning rate") -> float:
    """Return a rate as a float, if it is finite and 0 or above."""
    if not isinstance(rate, int | float | np.number) or not math.isfinite(rate) or rate < 0:
        raise ValueError(f"{what} must be a finite number, 0 or above, not {rate!r}")
    return float(rate)
