"""What a descent leaves: where it ended, why, and the way there."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Backend
from gdcompare.descent.rules import Rule
from gdcompare.descent.sampling import steps_per_epoch
from gdcompare.descent.stopping import StopReason
from gdcompare.table import as_html, count, table, vector

Params: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True, repr=False)
class History:
    """What happened on the way.

    `losses[i]` is the loss that step `steps[i]` met: that of its batch, at `parameters[name][i]`, before the update.
    `parameters[name]` has one row more than there are losses: the last one is where the descent ended.
    """

    steps: NDArray[np.int64]
    losses: NDArray[Any]
    parameters: Params
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """(steps + 1,), when the descent was there: read after each chunk of steps, and drawn straight in between.

    A compiler's time is in that of the first chunk. Empty where nobody looked at a clock.
    """

    def __repr__(self) -> str:
        ends = f", losses {self.losses[0]:.3g} to {self.losses[-1]:.3g}" if len(self.losses) else ""
        return f"History({count(len(self.losses), 'step')}{ends})"


@dataclass(frozen=True, repr=False)
class Descent:
    """The outcome of a descent: where it ended, why, after how many steps, and the way there.

    >>> import gdcompare as gdc
    >>> data = gdc.Dataset([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> gdc.descend("linear-regression", data, "numpy", gdc.rules.sgd(0.2), epochs=1000, gradient_norm=1e-6)
    Descent('gradient norm' after 105 steps, loss 7.16e-13)
    """

    parameters: Params
    stop_reason: StopReason
    steps: int
    history: History
    last_loss: float = math.nan
    """The loss that the last step met, before its update; of its batch, if there are batches."""
    rule: Rule | None = None
    """What took it there."""
    rows: int = 0
    """How many rows the data have."""
    batch_size: int | None = None
    """Rows a step; None for all."""

    @property
    def samples(self) -> NDArray[np.int64]:
        """How many rows were read before each kept step, of the same shape as `history.steps`.

        >>> import gdcompare as gdc
        >>> fit = gdc.descend("linear-regression", "noisy-line", "numpy", batch_size=15, epochs=2)
        >>> fit.history.steps.tolist(), fit.samples.tolist()
        ([0, 1, 2, 3, 4, 5, 6], [0, 15, 30, 40, 55, 70, 80])
        """
        size = self.batch_size or self.rows
        per_epoch = steps_per_epoch(self.rows, self.batch_size) if self.rows else 1
        epochs, within = np.divmod(self.history.steps, per_epoch)
        return np.asarray(epochs * self.rows + np.minimum(within * size, self.rows))

    def __repr__(self) -> str:
        which = "loss" if self.batch_size is None else "loss of the last batch"
        loss = "" if math.isnan(self.last_loss) else f", {which} {self.last_loss:.3g}"
        return f"Descent({self.stop_reason!r} after {count(self.steps, 'step')}{loss})"

    def _repr_html_(self) -> str:
        rows = [(name, str(value.shape), vector(np.ravel(value), most=4)) for name, value in self.parameters.items()]
        return as_html([repr(self), table("", ["parameter", "shape", "where it ended"], rows, left=3)])


class Progress(NamedTuple):
    """What a callback sees between two chunks: steps done, of how many, the last loss, the parameters now."""

    step: int
    steps: int
    loss: float
    parameters: Params


class Recorder:
    """Keeps every k-th step, and where the descent stands."""

    def __init__(self, first: Params, backend: Backend[Any], every: int, total: int) -> None:
        self._every = every
        self._steps = 0
        self._loss = math.nan
        self._now = {name: value.astype(backend.dtype) for name, value in first.items()}
        most = -(-total // every)
        self._losses = _Rows(np.empty(0, dtype=backend.dtype), most)
        self._parameters = {name: _Rows(value[None], most + 1) for name, value in self._now.items()}
        self._clock = [(0, time.perf_counter())]

    def add(self, losses: NDArray[Any], after: list[NDArray[Any]], steps: int) -> None:
        """Take up the first `steps` of a chunk: the losses they met, and the parameters after each."""
        if steps == 0:
            return
        next_kept = -self._steps % self._every  # loss at the steps 0, k, 2k, ...; parameters likewise, one step on
        self._losses.add(losses[next_kept : steps : self._every])
        for name, values in zip(self._now, after, strict=True):
            self._parameters[name].add(values[(next_kept - 1) % self._every : steps : self._every])
            self._now[name] = np.array(values[steps - 1])
        self._loss = float(losses[steps - 1])
        self._steps += steps
        self._clock.append((self._steps, time.perf_counter()))

    def progress(self, total: int) -> Progress:
        """Return what a callback sees."""
        return Progress(self._steps, total, self._loss, {name: value.copy() for name, value in self._now.items()})

    @property
    def steps(self) -> int:
        """How many were taken up."""
        return self._steps

    def recorded(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return all that it keeps: arrays by name, and plain numbers."""
        at, seconds = np.array(self._clock).T
        arrays = {"losses": self._losses.all(), "clock at": at, "clock": seconds - seconds[0]}
        for name, value in self._now.items():
            arrays |= {f"now {name}": value, f"path {name}": self._parameters[name].all()}
        return arrays, {"steps": self._steps, "loss": self._loss}

    def take_up(self, arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]) -> None:
        """Go on from what another recorder kept; its time counts, and that in between does not."""
        self._steps, self._loss = int(numbers["steps"]), float(numbers["loss"])
        self._losses.add(arrays["losses"])
        for name in self._now:
            self._now[name] = arrays[f"now {name}"]
            self._parameters[name].add(arrays[f"path {name}"][1:])  # it begins with the start, as this one does
        now = time.perf_counter() - float(arrays["clock"][-1])
        self._clock = [
            (int(at), now + float(each)) for at, each in zip(arrays["clock at"], arrays["clock"], strict=True)
        ]

    def finish(self, reason: StopReason) -> Descent:
        """Return the outcome."""
        steps = np.arange(0, self._steps + 1, self._every)
        if steps[-1] != self._steps:
            steps = np.append(steps, self._steps)
            for name, value in self._now.items():
                self._parameters[name].add(value[None])
        parameters = {name: kept.all() for name, kept in self._parameters.items()}
        history = History(steps, self._losses.all(), parameters, self._seconds(steps))
        return Descent(self._now, reason, self._steps, history, self._loss)

    def _seconds(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        at, seconds = np.array(self._clock).T
        return np.asarray(np.interp(steps, at, seconds - seconds[0]))


class _Rows:
    """Rows, added part by part, `most` in all: copied once into the memory in which they stay.

    Memory that nothing was written to yet costs nothing, while joining the parts of a cheap descent in the end would
    take as long as all of its steps.

    >>> kept = _Rows(np.zeros((1, 2)), most=3)
    >>> kept.add(np.ones((1, 2)))
    >>> kept.all().tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """

    def __init__(self, first: NDArray[Any], most: int) -> None:
        self._array, self._count, self._most = first.copy(), len(first), most

    def add(self, part: NDArray[Any]) -> None:
        """Copy a part behind the others."""
        count = self._count + len(part)
        if count > len(self._array):
            at_first = _AT_FIRST // max(1, math.prod(self._array.shape[1:]))
            rows = min(self._most, max(at_first, 2 * count))
            grown = np.empty((rows, *self._array.shape[1:]), self._array.dtype)
            grown[: self._count] = self._array[: self._count]
            self._array = grown
        self._array[self._count : count] = part
        self._count = count

    def all(self) -> NDArray[Any]:
        """Return the rows, in an array that holds no memory beside them."""
        return self._array if self._count == len(self._array) else self._array[: self._count].copy()


_AT_FIRST = 2**22
"""Numbers for which there is room at first, unless fewer can come."""
