"""Mistakes about which samples count, and how much: each gives a gradient from the per-sample ones.

Rows r_i (n, p), scaled so that their mean is the truth; with weights w, a batch B weighs D_B = n sum_B w / sum w, its
number of rows where there are none. S_B is the sum of its rows, and S_B / D_B its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Family: TypeAlias = tuple[Floats, Callable[[int], str]]
"""Gradients (m, p) that mistakes of one kind would give, and the words for the i-th."""

_MOST_FOR_WINDOWS = 1000
_MOST_FOR_BATCHES = 2_000_000
_MOST_SHARDS = 16


@final
class Batches:
    """The sums over any rows in a row."""

    def __init__(self, rows: Floats, counts: Floats) -> None:
        """Take rows (n, p), and D (n,) of each row by itself: 1 without weights."""
        self.rows, self.counts = rows, counts
        self._running_sum, self._running_count = (
            np.concatenate([np.zeros((1, each.shape[1])), np.cumsum(each, axis=0)]) for each in (rows, counts[:, None])
        )

    def sums(self, starts: NDArray[np.intp], stops: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Return S and D, (m, p) and (m, 1), of the rows from each start up to each stop."""
        return self._running_sum[stops] - self._running_sum[starts], self._running_count[stops] - self._running_count[
            starts
        ]

    def __len__(self) -> int:
        return len(self.rows)


def families(rows: Floats, counts: Floats, mean: bool) -> Iterator[Family]:
    """Yield the families of mistakes, the likeliest first; of a mean, or else of a sum."""
    batches = Batches(rows, counts)
    if len(rows) < 2:
        return
    yield from _single_samples(batches)
    yield from _last_samples(batches)
    if rows.size > _MOST_FOR_BATCHES:
        return
    if mean:
        yield from _means_of_means(batches)
    yield from _accumulated(batches)


def _single_samples(batches: Batches) -> Iterator[Family]:
    rows, n, total = batches.rows, len(batches), batches.rows.sum(axis=0)
    each = batches.counts[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        yield (total - rows) / n, lambda i: f"sample {i} is left out"
        yield (total - rows) / (n - each), lambda i: f"sample {i} is left out, and the mean taken over n - 1"
        yield (total + rows) / n, lambda i: f"sample {i} is counted twice"
        yield (total + rows) / (n + each), lambda i: f"sample {i} is counted twice, and the mean taken over n + 1"


def _last_samples(batches: Batches) -> Iterator[Family]:
    n, total = len(batches), batches.rows.sum(axis=0)
    kept = np.arange(1, n - 1)
    first, weight = batches.sums(0 * kept, kept)

    def dropped(i: int) -> str:
        return f"the last {n - kept[i]} samples are dropped: a ragged last batch?"

    yield first / n, dropped
    with np.errstate(divide="ignore", invalid="ignore"):
        yield first / weight, dropped
    twice = total + (total - first)
    yield twice / n, lambda i: f"the last {n - kept[i]} samples are counted twice: a ragged last batch?"


def windows(column: Floats, counts: Floats, found: Callable[[Floats], NDArray[np.bool_]]) -> list[tuple[int, int]]:
    """Return the windows [start, stop) of rows whose sum over n, or mean, is `found`, looking at one column (n,)."""
    n = len(column)
    if n > _MOST_FOR_WINDOWS:
        return []
    sums, weights = (np.concatenate([[0.0], np.cumsum(each)]) for each in (column, counts))
    with np.errstate(divide="ignore", invalid="ignore"):
        over, weight = sums[None, :] - sums[:, None], weights[None, :] - weights[:, None]
        near = found(over / n) | found(over / weight)
    starts, stops = np.nonzero(np.triu(near, 1))
    return [(int(a), int(b)) for a, b in zip(starts, stops, strict=True) if b - a < n - 1 and (a > 0 or b == 1)]


def window_words(start: int, stop: int, n: int) -> str:
    """Name the rows that alone are counted.

    >>> window_words(20, 30, 40), window_words(3, 8, 40)
    ('only rows 20 to 29 of 40 count: one of 4 shards?', 'only rows 3 to 7 of 40 count')
    """
    size = stop - start
    if size == 1:
        return f"only sample {start} counts"
    if stop == n and n % size:
        return f"the first {start} samples are dropped"
    shard = f": one of {n // size} shards?" if n % size == start % size == 0 else ""
    return f"only rows {start} to {stop - 1} of {n} count{shard}"


def _means_of_means(batches: Batches) -> Iterator[Family]:
    """1/K sum_k S_k / D_k: the gradient only where all D_k are equal."""
    n = len(batches)
    weighted = bool(np.ptp(batches.counts))
    sizes = [size for size in range(1, n) if weighted or n % size]
    means = [_per_batch(batches, np.arange(0, n, size)) for size in sizes]
    if sizes:
        values = np.stack([each.mean(axis=0) for each in means])
        yield values, lambda i: f"the mean of micro-batch means, unweighted: {_batches(n, sizes[i])}"
        summed = np.stack([each.sum(axis=0) for each in means])
        yield summed, lambda i: f"the sum of micro-batch means: {_batches(n, sizes[i])}"
    shards = [k for k in range(2, min(n, _MOST_SHARDS + 1)) if (weighted or n % k) and n % k != k - 1]  # or batches
    if shards:
        ends = [np.cumsum([0, *(len(each) for each in np.array_split(np.arange(n), k))])[:-1] for k in shards]
        values = np.stack([_per_batch(batches, each).mean(axis=0) for each in ends])
        yield values, lambda i: f"the mean of the means of {shards[i]} shards of unequal size, unweighted"
    cuts = [cut for cut in range(1, n) if weighted or 2 * cut < n]  # the others are micro-batches
    if cuts:
        values = np.stack([_per_batch(batches, np.array([0, cut])).mean(axis=0) for cut in cuts])
        yield (
            values,
            lambda i: f"the mean of two shards' means, unweighted: the first {cuts[i]} and the last {n - cuts[i]} rows",
        )


def _accumulated(batches: Batches) -> Iterator[Family]:
    """1/n sum_k (S_1 + ... + S_k): what earlier micro-batches left behind is there again."""
    n = len(batches)
    sizes = list(range((n + 1) // 2, n))[::-1] + list(range(1, (n + 1) // 2))
    values = []
    for size in sizes:
        stops = np.append(np.arange(size, n, size), n)
        values.append(batches.sums(0 * stops, stops)[0].sum(axis=0) / n)
    yield (
        np.stack(values),
        lambda i: f"stale accumulation: micro-batches are counted again with each later one, {_batches(n, sizes[i])}",
    )


def _per_batch(batches: Batches, starts: NDArray[np.intp]) -> Floats:
    """Return S / D of each batch, (K, p)."""
    sums, weights = batches.sums(starts, np.append(starts[1:], len(batches)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums / weights)


def _batches(n: int, size: int) -> str:
    """Say how n rows fall into batches.

    >>> _batches(40, 16), _batches(40, 20)
    ('2 of 16 rows and one of 8', '2 of 20 rows')
    """
    return f"{n // size} of {size} rows" + (f" and one of {n % size}" if n % size else "")
