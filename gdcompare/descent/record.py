"""What a descent leaves: where it ended, why, and the way there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Backend
from gdcompare.descent.stopping import StopReason

Params: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class History:
    """What happened on the way.

    `losses[i]` is the loss that step `steps[i]` met: that of its batch, at `parameters[name][i]`, before the update.
    `parameters[name]` has one row more than there are losses: the last one is where the descent ended.
    """

    steps: NDArray[np.int64]
    losses: NDArray[Any]
    parameters: Params


@dataclass(frozen=True)
class Descent:
    """The outcome of a descent: where it ended, why, after how many steps, and the way there."""

    parameters: Params
    stop_reason: StopReason
    steps: int
    history: History = field(repr=False)


class Progress(NamedTuple):
    """What a callback sees between two chunks: steps done, of how many, the last loss, the parameters now."""

    step: int
    steps: int
    loss: float
    parameters: Params


class Recorder:
    """Keeps every k-th step, and where the descent stands."""

    def __init__(self, first: Params, backend: Backend[Any], every: int) -> None:
        self._every = every
        self._steps = 0
        self._loss = math.nan
        self._now = {name: value.astype(backend.dtype) for name, value in first.items()}
        self._losses: list[NDArray[Any]] = [np.empty(0, dtype=backend.dtype)]
        self._parameters = {name: [value[None]] for name, value in self._now.items()}

    def add(self, losses: NDArray[Any], after: list[NDArray[Any]], steps: int) -> None:
        """Take up the first `steps` of a chunk: the losses they met, and the parameters after each."""
        if steps == 0:
            return
        next_kept = -self._steps % self._every  # loss at the steps 0, k, 2k, ...; parameters likewise, one step on
        self._losses.append(self._own(losses[next_kept : steps : self._every]))
        for name, values in zip(self._now, after, strict=True):
            self._parameters[name].append(self._own(values[(next_kept - 1) % self._every : steps : self._every]))
            self._now[name] = np.array(values[steps - 1])
        self._loss = float(losses[steps - 1])
        self._steps += steps

    def progress(self, total: int) -> Progress:
        """Return what a callback sees."""
        return Progress(self._steps, total, self._loss, {name: value.copy() for name, value in self._now.items()})

    def finish(self, reason: StopReason) -> Descent:
        """Return the outcome."""
        steps = np.arange(0, self._steps + 1, self._every)
        if steps[-1] != self._steps:
            steps = np.append(steps, self._steps)
            for name, value in self._now.items():
                self._parameters[name].append(value[None])
        parameters = {name: np.concatenate(parts) for name, parts in self._parameters.items()}
        return Descent(self._now, reason, self._steps, History(steps, np.concatenate(self._losses), parameters))

    def _own(self, part: NDArray[Any]) -> NDArray[Any]:
        """Copy a thinned part, so that it does not keep the chunk that it was cut from alive."""
        return part if self._every == 1 else part.copy()
