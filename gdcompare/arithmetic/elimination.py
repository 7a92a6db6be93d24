"""Stacks of matrices of numbers of any system, (hidden, ..., n, n): elimination, triangles and transposes.

P A = L U: the rows stand in the order in which LAPACK would take them, by the middles of the numbers. Where a pivot may
be 0, there is no bound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.whole import middle


def refuse_unless_square(a: Any) -> None:
    """Raise a ValueError for matrices of another shape."""
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"a system of equations wants a square matrix, not one of shape {a.shape}")


class Elimination:
    """P A = L U of a stack of matrices (hidden, ..., n, n)."""

    def __init__(self, numbers: Any, a: Any) -> None:
        self.numbers, self.n = numbers, a.shape[-1]
        self.order, self.parity = _row_order(middle(a))
        a = self.moved(a, self.order)
        lead, n = a.shape[:-2], self.n
        self.low: Any = None
        self.up: Any = None
        for k in range(n):
            row, column = a[..., k : k + 1, k:], a[..., k + 1 :, k : k + 1]
            if self.low is not None:
                row = row - self.low[..., k : k + 1, :] @ self.up[..., :, k:]
                column = column - self.low[..., k + 1 :, :] @ self.up[..., :, k : k + 1]
            column = column / row[..., :, :1]
            above, beside = (numbers.asarray(np.zeros((*lead, *shape))) for shape in ((k, 1), (1, k)))
            one = numbers.asarray(np.ones((*lead, 1, 1)))
            self.low = joined(self.numbers, -1, self.low, joined(self.numbers, -2, above, one, column))
            self.up = joined(self.numbers, -2, self.up, joined(self.numbers, -1, beside, row))

    def pivots(self) -> list[Any]:
        """Return the diagonal of U."""
        return [self.up[..., k, k] for k in range(self.n)]

    def solved(self, b: Any) -> Any:
        """Return A^-1 b."""
        return solved_back(self.numbers, self.up, solved_forth(self.numbers, self.low, self.moved(b, self.order)))

    def solved_turned(self, g: Any) -> Any:
        """Return A^-T g: U^T w = g, L^T v = w, and the rows of v as they were."""
        w = solved_forth(self.numbers, self.turned(self.up), g)
        return self.moved(solved_back(self.numbers, self.turned(self.low), w), np.argsort(self.order, axis=-1))

    def inverse_turned(self) -> Any:
        """Return A^-T."""
        return self.solved_turned(self.numbers.asarray(np.broadcast_to(np.eye(self.n), self.up.shape)))

    def turned(self, x: Any) -> Any:
        """Return the transpose."""
        return self.numbers.rearrange(lambda part: np.swapaxes(part, -1, -2), x)

    def moved(self, x: Any, order: NDArray[np.intp]) -> Any:
        """Return the rows in another order."""

        def move(part: Any) -> Any:
            lead = np.broadcast_shapes(part.shape[:-2], order.shape[:-1])
            part = np.broadcast_to(part, (*lead, *part.shape[-2:]))
            return np.take_along_axis(part, np.broadcast_to(order[..., None], (*lead, order.shape[-1], 1)), axis=-2)

        return self.numbers.rearrange(move, x)


def solved_forth(numbers: Any, low: Any, b: Any) -> Any:
    """Return L^-1 b, from the first row to the last."""
    x = None
    for k in range(low.shape[-1]):
        row = b[..., k : k + 1, :]
        row = row if x is None else row - low[..., k : k + 1, :k] @ x
        x = joined(numbers, -2, x, row / low[..., k : k + 1, k : k + 1])
    return x


def solved_back(numbers: Any, up: Any, b: Any) -> Any:
    """Return U^-1 b, from the last row to the first."""
    x = None
    for k in range(up.shape[-1] - 1, -1, -1):
        row = b[..., k : k + 1, :]
        row = row if x is None else row - up[..., k : k + 1, k + 1 :] @ x
        row = row / up[..., k : k + 1, k : k + 1]
        x = row if x is None else joined(numbers, -2, row, x)
    return x


def joined(numbers: Any, axis: int, *parts: Any) -> Any:
    """Return stacks of matrices side by side, without those that are None."""
    some = [part for part in parts if part is not None]
    if len(some) == 1:
        return some[0]

    def join(*each: Any) -> Any:
        lead = np.broadcast_shapes(*(part.shape[:-2] for part in each))
        return np.concatenate([np.broadcast_to(part, (*lead, *part.shape[-2:])) for part in each], axis=axis)

    return numbers.rearrange(join, *some)


def _row_order(a: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the rows in the order of their pivots, the largest of what is left each time, and the order's parity."""
    a, n = np.array(a), a.shape[-1]
    order = np.broadcast_to(np.arange(n), a.shape[:-1]).copy()
    parity = np.ones(a.shape[:-2])
    for k in range(n - 1):
        best = k + np.argmax(np.abs(a[..., k:, k]), axis=-1)
        swap = np.broadcast_to(np.arange(n), order.shape).copy()
        np.put_along_axis(swap, best[..., None], k, axis=-1)
        swap[..., k] = best
        a, order = np.take_along_axis(a, swap[..., None], axis=-2), np.take_along_axis(order, swap, axis=-1)
        parity = np.where(best == k, parity, -parity)
        with np.errstate(all="ignore"):
            factors = np.nan_to_num(a[..., k + 1 :, k : k + 1] / a[..., k : k + 1, k : k + 1])
        a[..., k + 1 :, :] -= factors * a[..., k : k + 1, :]
    return order, parity


def nearby(numbers: Any, a: Any, count: float) -> Any:
    """Return the matrix as a stable program may have it: off by count u times its norm. Exact systems have none."""
    off: Any = getattr(numbers, "off_by_norm", None)
    return a if off is None else off(a, count)


def turned(numbers: Any, x: Any) -> Any:
    """Return the transpose."""
    return numbers.rearrange(lambda part: np.swapaxes(part, -1, -2), x)
