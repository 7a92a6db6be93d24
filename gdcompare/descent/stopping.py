"""When a descent stops: the rules, and the exact step at which one is met.

A loss that is huge but finite stops nothing on the way, since a path may come back from it, by a smaller learning rate
or by Adam's bounded steps. Where the path ends there, it has diverged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

StopReason: TypeAlias = Literal[
    "epochs", "target loss", "gradient norm", "loss change", "diverged", "interrupted", "callback"
]


_REMEMBERED = ("_seen", "_best", "_idle", "_first", "_last", "_huge")


@dataclass
class Watch:
    """Finds the exact step at which to stop, in the records of one chunk after another."""

    n: int
    per_epoch: int
    batch_size: int
    target_loss: float | None
    gradient_norm: float | None
    loss_change: float | None
    patience: int

    def __post_init__(self) -> None:
        for name in ("target_loss", "gradient_norm", "loss_change"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float | np.number) and math.isfinite(value)):
                raise ValueError(f"{name} must be a finite number, not {value!r}")
        if self.gradient_norm is not None and self.gradient_norm < 0:
            raise ValueError(f"gradient_norm must be 0 or above, not {self.gradient_norm!r}: no norm is smaller")
        sizes = np.full(self.per_epoch, float(self.batch_size))
        sizes[-1] = self.n - self.batch_size * (self.per_epoch - 1)
        self._shares = sizes / self.n
        self._seen = 0
        self._tail = np.empty(0)  # shares of the epoch loss, since the beginning of the last whole epoch
        self._best = math.inf
        self._idle = 0
        self._first = 1.0  # the largest loss of the first epoch, or 1
        self._last = 0.0
        self._huge = math.inf

    @property
    def blown_up(self) -> bool:
        """Whether the last loss exceeds 1 and all of the first epoch's by a factor of more than 1 / u^3.

        Between a perfect fit, where only rounding is left, and the data's own size lies a factor of 1 / u^2.
        """
        return self._last > self._huge * self._first

    def remembered(self) -> tuple[NDArray[Any], dict[str, Any]]:
        """Return what it has seen: an array, and plain numbers."""
        return self._tail, {name: getattr(self, name) for name in _REMEMBERED}

    def remind(self, tail: NDArray[Any], numbers: Mapping[str, Any]) -> None:
        """Take up what another watch has seen."""
        self._tail = tail
        for name in _REMEMBERED:
            setattr(self, name, numbers[name])

    def look(
        self, losses: NDArray[Any], norms: NDArray[Any], after: list[NDArray[Any]]
    ) -> tuple[int, StopReason | None]:
        """Return how many of these steps to keep, and why to stop there if one must."""
        steps = len(losses)
        stops: list[tuple[int, StopReason]] = []
        for values in (losses, *after):
            finite = np.isfinite(values[:steps])
            if not finite.all():
                steps = int(np.argmin(finite.reshape(steps, -1).all(axis=1)))
                stops = [(steps, "diverged")]
        if self.target_loss is not None or self.loss_change is not None:
            epoch_losses = self._epoch_losses(losses[:steps].astype(np.float64))
            if self.target_loss is not None:
                stops += _first(epoch_losses <= self.target_loss, "target loss")
            if self.loss_change is not None:
                stops += self._no_change(epoch_losses, self.loss_change)
        if self.gradient_norm is not None:
            stops += _first(norms[:steps].astype(np.float64) <= self.gradient_norm, "gradient norm")
        kept, stopped = min(stops, key=lambda stop: (stop[0], stop[1] == "diverged")) if stops else (steps, None)
        self._remember(losses[:kept])
        self._seen += steps
        return kept, stopped

    def _remember(self, losses: NDArray[Any]) -> None:
        if not len(losses):
            return
        self._huge = float(np.finfo(losses.dtype).eps / 2) ** -3
        early = losses[: max(0, self.per_epoch - self._seen)].astype(np.float64)
        self._first = max(self._first, float(np.max(np.abs(early), initial=0.0)))
        self._last = float(losses[-1])

    def _epoch_losses(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return, for each step, the mean loss over the n rows of the epoch's worth of steps that ends there.

        NaN, which no rule is met by, while fewer steps than that have been taken.
        """
        if self.per_epoch == 1:
            return losses
        # Row by row an epoch. No sum is subtracted from another, so that a large early loss hides no small later one,
        # and each row is summed by itself, so that chunks change nothing.
        before = len(self._tail)
        places = (self._seen + np.arange(len(losses))) % self.per_epoch
        parts = np.concatenate([self._tail, losses * self._shares[places]])
        epochs = np.pad(parts, (0, -len(parts) % self.per_epoch)).reshape(-1, self.per_epoch)
        begun = np.cumsum(epochs, axis=1)  # up to this step
        ahead = np.cumsum(epochs[:, ::-1], axis=1)[:, ::-1]  # from this step on
        begun[1:, :-1] += ahead[:-1, 1:]
        begun[0, :-1] = np.nan
        self._tail = parts[max(0, len(parts) // self.per_epoch - 1) * self.per_epoch :]
        return begun.ravel()[before : len(parts)]

    def _no_change(self, epoch_losses: NDArray[np.float64], least: float) -> list[tuple[int, StopReason]]:
        for place in range(-(self._seen + 1) % self.per_epoch, len(epoch_losses), self.per_epoch):
            loss = float(epoch_losses[place])
            self._idle = 0 if loss < self._best - least else self._idle + 1
            self._best = min(self._best, loss)
            if self._idle >= self.patience:
                return [(place + 1, "loss change")]
        return []


def _first(met: NDArray[np.bool_], reason: StopReason) -> list[tuple[int, StopReason]]:
    """Return the number of steps up to and with the first that meets a rule."""
    return [(int(np.argmax(met)) + 1, reason)] if met.any() else []
