"""A descent on data in blocks: full-batch steps whose gradients are summed block by block, batches that are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Backend, Inputs, Run
from gdcompare.descent.sampling import BlockStream
from gdcompare.scale.sums import Sums, Workers


class Moves(Protocol):
    """What a step does once loss and gradient are known."""

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102 - of the parameters
    def moved(
        self, state: Any, rate: Any, coefficients: Sequence[Any], loss: Any, gradient: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        """Return the state after the step, and what is recorded of it."""


@final
@dataclass(frozen=True)
class _Move:
    """A step of the backend's loop that is fed its loss and its gradient."""

    step: Moves

    def __call__(self, state: Any, inputs: tuple[Any, ...], _constants: Any) -> tuple[Any, tuple[Any, ...]]:
        names = self.step.names
        (rate, *coefficients), (loss, *gradient) = inputs[: -1 - len(names)], inputs[-1 - len(names) :]
        return self.step.moved(state, rate, coefficients, loss, dict(zip(names, gradient, strict=True)))


def streamed_scan(step: Moves, sums: Sums, workers: Workers) -> Run[Any]:
    """Return the `run` of `Backend.scan` of full-batch steps: each gradient is the mean of sums over all blocks.

    Interrupted by Ctrl-C, it returns the records so far.
    """
    backend: Backend[Any] = sums.backend
    move = backend.scan(_Move(step))

    def run(state: Any, inputs: Inputs, _constants: Any) -> tuple[Any, Sequence[Any]]:
        records = []
        try:
            for i in range(len(inputs[0])):
                params = {name: backend.to_numpy(state[0][name]) for name in step.names}
                loss, gradient = sums.reduced(params, workers.total(params))
                fed = *(each[i : i + 1] for each in inputs), loss[None], *(gradient[name][None] for name in step.names)
                state, record = move(state, fed, ())
                records.append([backend.to_numpy(each) for each in record])
        except KeyboardInterrupt:
            if not records:
                raise
        return state, tuple(backend.asarray(np.concatenate(each)) for each in zip(*records, strict=True))

    return run


@final
class BlockBatches:
    """Data in blocks, batch after batch, in the order of a `BlockStream`."""

    def __init__(self, sums: Sums, batch_size: int, seed: int) -> None:
        self._data, self._check = sums.blocks, sums.check
        self._stream = BlockStream(len(self._data), batch_size, seed, self._data.rows)

    def skip(self, steps: int) -> None:
        """Pass over the batches of these steps."""
        self._stream.skip(steps)

    def take(self, steps: int) -> list[NDArray[Any]]:
        """Return features (steps, b, d), targets (steps, b, ...), and weights (steps, b) if any row counts for less."""
        rows, weights = self._stream.take(steps)
        for block in np.unique(rows // self._data.rows):
            self._check(int(block))
        columns = (None if each is None else each.reshape(*rows.shape, *each.shape[1:]) for each in self._taken(rows))
        features, targets, own = columns
        assert features is not None
        assert targets is not None
        if own is not None:
            weights = own if weights is None else own * weights
        return [features, targets] if weights is None else [features, targets, weights]

    def _taken(self, rows: NDArray[np.intp]) -> tuple[NDArray[Any] | None, ...]:
        features, targets, weights = self._data.take(rows.ravel())
        if weights is not None and not weights.all():
            row = int(rows.ravel()[np.argmin(weights)])
            raise ValueError(
                f"row {row} has weight 0, and may be a batch by itself; drop such rows, or take the full batch"
            )
        return features, targets, weights
