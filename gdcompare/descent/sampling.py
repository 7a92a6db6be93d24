"""Which rows feed each step: mini-batches without replacement, every row once an epoch, one stream for all backends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def steps_per_epoch(n: int, batch_size: int | None) -> int:
    """Return the number of batches that n rows make, the ragged last one included; None stands for the full batch.

    >>> steps_per_epoch(40, 2), steps_per_epoch(40, 7), steps_per_epoch(40, None)
    (20, 6, 1)
    """
    return 1 if batch_size is None else -(-n // checked_batch_size(n, batch_size))


def checked_batch_size(n: int, batch_size: int) -> int:
    """Return the batch size if it is a whole number from 1 to n.

    >>> checked_batch_size(40, 0)
    Traceback (most recent call last):
    ...
    ValueError: batch size must be a whole number from 1 to the 40 rows, not 0
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or not 1 <= batch_size <= n:
        raise ValueError(f"batch size must be a whole number from 1 to the {n} rows, not {batch_size!r}")
    return int(batch_size)


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number, 0 or above, not {seed!r}")
    return int(seed)


_SKIPPED = 4096
"""So many batches are passed over at once, so that memory stays flat."""


class RowStream:
    """An endless stream of mini-batches of row numbers.

    Each epoch is a fresh permutation of the n rows cut into batches of b; if b does not divide n, the last batch of
    each epoch is shorter, and is filled up with its last row, at weight 0, so that all batches have one shape.

    The stream depends on n, b and the seed alone: not on the backend, nor on how it is taken in pieces. The generator
    is its own (`numpy.random.default_rng(seed)`).

    >>> rows, weights = RowStream(5, batch_size=2, seed=0).take(3)
    >>> rows.tolist(), weights.tolist()
    ([[2, 4], [3, 0], [1, 1]], [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self._rows = np.arange(n)
        self._batch_size = checked_batch_size(n, batch_size)
        self._generator = np.random.default_rng(_checked_seed(seed))
        self._waiting = np.empty((0, self._batch_size), dtype=np.intp)
        self._taken = 0
        spare = -n % self._batch_size
        self._epoch_weights = np.ones((steps_per_epoch(n, batch_size), self._batch_size))
        self._epoch_weights[-1, self._batch_size - spare :] = 0
        self._ragged = spare > 0

    def take(self, steps: int) -> tuple[NDArray[np.intp], NDArray[np.float64] | None]:
        """Return the rows (steps, b) of the next batches, and their weights (steps, b), or None if b divides n."""
        per_epoch = len(self._epoch_weights)
        epochs = -(-(steps - len(self._waiting)) // per_epoch)
        if epochs > 0:
            drawn = self._epochs(epochs)
            self._waiting = np.concatenate([self._waiting, drawn]) if len(self._waiting) else drawn
        rows, self._waiting = self._waiting[:steps], self._waiting[steps:]
        if not self._ragged:
            return rows, None
        places = (self._taken + np.arange(steps)) % per_epoch
        self._taken += steps
        return rows, self._epoch_weights[places]

    def skip(self, steps: int) -> None:
        """Pass over the next batches, as if they were taken."""
        while steps > 0:
            part = min(steps, _SKIPPED)
            self.take(part)
            steps -= part

    def _epochs(self, count: int) -> NDArray[np.intp]:
        """Return the batches of the next `count` epochs, (count * steps per epoch, b)."""
        shuffled = np.tile(self._rows, (count, 1))  # (count, n)
        self._generator.permuted(shuffled, axis=1, out=shuffled)
        spare = self._epoch_weights.size - len(self._rows)
        filled = np.pad(shuffled, [(0, 0), (0, spare)], mode="edge") if spare else shuffled
        return filled.reshape(-1, self._batch_size)


class BlockStream:
    """The same of rows in blocks: an epoch is a fresh permutation of the blocks, and in each, of its rows.

    A batch then has rows of few blocks, so that an epoch reads each block about once. It is a coarser shuffling than
    that of all rows: rows of one block stay near each other. The permutation of the blocks is that of
    `numpy.random.default_rng([seed, epoch])`, that of a block's rows of `default_rng([seed, epoch, 1 + block])`: the
    stream depends on n, b, the size of a block and the seed alone, and may be entered anywhere.

    >>> stream = BlockStream(5, batch_size=2, seed=0, block=2)
    >>> rows, weights = stream.take(3)
    >>> rows.tolist(), weights.tolist()
    ([[4, 1], [0, 3], [2, 2]], [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    """

    def __init__(self, n: int, batch_size: int, seed: int, block: int) -> None:
        self._n, self._batch_size, self._block = n, checked_batch_size(n, batch_size), block
        self._seed = _checked_seed(seed)
        self._per_epoch = steps_per_epoch(n, batch_size)
        self._taken = 0
        self._epoch = -1
        self._order = np.empty(0, dtype=np.intp)
        self._starts = np.zeros(1, dtype=np.intp)
        self._shuffled: tuple[int, NDArray[np.intp]] = -1, self._order

    def take(self, steps: int) -> tuple[NDArray[np.intp], NDArray[np.float64] | None]:
        """Return the rows (steps, b) of the next batches, and their weights (steps, b), or None if b divides n."""
        parts, first, end = [], self._taken, self._taken + steps
        while first < end:
            epoch, step = divmod(first, self._per_epoch)
            last = min(self._per_epoch, step + end - first)
            parts.append(self._batches(epoch, step, last))
            first += last - step
        rows = np.concatenate(parts)
        ends = (self._taken + np.arange(steps)) % self._per_epoch == self._per_epoch - 1
        self._taken = end
        if not (spare := -self._n % self._batch_size):
            return rows, None
        weights = np.ones(rows.shape)
        weights[ends, self._batch_size - spare :] = 0
        return rows, weights

    def skip(self, steps: int) -> None:
        """Pass over the next batches, as if they were taken."""
        self._taken += steps

    def _batches(self, epoch: int, first: int, last: int) -> NDArray[np.intp]:
        """Return the rows of some batches of an epoch; the ragged one is filled up with its last."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch]).permutation(-(-self._n // self._block))
            sizes = np.minimum(self._block, self._n - self._order * self._block)
            self._starts = np.concatenate([[0], np.cumsum(sizes)])
        begin, end = first * self._batch_size, min(last * self._batch_size, self._n)
        parts = []
        for place in range(int(np.searchsorted(self._starts, begin, side="right")) - 1, len(self._order)):
            offset = int(self._starts[place])
            if offset >= end:
                break
            parts.append(self._rows(place)[max(0, begin - offset) : end - offset])
        rows = np.concatenate(parts)
        missing = (last - first) * self._batch_size - len(rows)
        return np.pad(rows, (0, missing), mode="edge").reshape(-1, self._batch_size)

    def _rows(self, place: int) -> NDArray[np.intp]:
        """Return the shuffled rows of the block in that place of the epoch."""
        block = int(self._order[place])
        key = self._epoch * len(self._order) + block
        if self._shuffled[0] != key:
            size = int(self._starts[place + 1] - self._starts[place])
            generator = np.random.default_rng([self._seed, self._epoch, 1 + block])
            self._shuffled = key, block * self._block + generator.permutation(size)
        return self._shuffled[1]
