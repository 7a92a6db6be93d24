"""Systems of linear equations: solutions, inverses and determinants by elimination, over any number system.

    P A = L U,   x = A^-1 b:   dx = A^-1 (db - dA x),   d log |det A| = tr(A^-1 dA)

Each number of L and U is one dot product less than a number of A, so that the bound of a sum holds in whatever order a
library eliminates. The rows stand in the order in which LAPACK would take them, by the middles of the numbers; any
order gives the same solution. Where a pivot may be 0, there is none.
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.whole import middle, on_tape


def solve(xp: Any, a: Any, b: Any) -> Any:
    """A^-1 b, for a vector b of one axis, or the columns of b: db' = A^-T g and dA' = -db' x^T."""
    a, b = xp.asarray(a), xp.asarray(b)
    _refuse_unless_square(a)
    if b.ndim == 1:
        return xp.squeeze(solve(xp, a, xp.expand_dims(b, axis=-1)), -1)
    a, b = xp.aligned(a, b)
    elimination = _Elimination(xp.numbers, a.value)
    value = elimination.solved(b.value)

    def by_matrix(g: Any) -> Any:
        return -(elimination.solved_turned(g) @ elimination.turned(value))

    return xp.record(value, (a, by_matrix), (b, elimination.solved_turned))


def inv(xp: Any, a: Any) -> Any:
    """A^-1: d(A^-1) = -A^-1 dA A^-1, from right to left, or by another solution."""
    a, numbers = xp.asarray(a), xp.numbers
    _refuse_unless_square(a)
    elimination = _Elimination(numbers, a.value)
    value = elimination.solved(numbers.asarray(np.broadcast_to(np.eye(a.shape[-1]), a.value.shape)))

    def pullback(g: Any) -> Any:
        turned = elimination.turned(value)
        return numbers.any_of(
            lambda: -(turned @ (g @ turned)),
            lambda: -((turned @ g) @ turned),
            lambda: -(elimination.solved_turned(g) @ turned),
        )

    return xp.record(value, (a, pullback))


def det(xp: Any, a: Any) -> Any:
    """The product of the pivots, in JAX the exponential of their logarithms: d det A = det A tr(A^-1 dA)."""
    a, numbers, times = xp.asarray(a), xp.numbers, xp.numbers.chain
    _refuse_unless_square(a)
    elimination = _Elimination(numbers, a.value)
    pivots = elimination.pivots()
    sides, logs = _sides_and_logs(numbers, pivots)
    sign = numbers.asarray(np.prod(sides, axis=0) * elimination.parity)
    product = reduce(operator.mul, pivots, numbers.asarray(elimination.parity))
    value = numbers.any_of(lambda: product, lambda: sign * numbers.exp(_sum(numbers, logs)))
    return xp.record(value, (a, lambda g: times(times(g, value)[..., None, None], elimination.inverse_turned())))


def slogdet(xp: Any, a: Any) -> tuple[Any, Any]:
    """Return the sign of the determinant, and log |det A|: d log |det A| = tr(A^-1 dA)."""
    a, numbers, times = xp.asarray(a), xp.numbers, xp.numbers.chain
    _refuse_unless_square(a)
    elimination = _Elimination(numbers, a.value)
    sides, logs = _sides_and_logs(numbers, elimination.pivots())
    sign = on_tape(xp, a, np.prod(sides, axis=0) * elimination.parity)
    return sign, xp.record(_sum(numbers, logs), (a, lambda g: times(g[..., None, None], elimination.inverse_turned())))


def _sides_and_logs(numbers: Any, pivots: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the signs of pivots, and the logarithms of their sizes."""
    sides = [np.where(middle(pivot) < 0, -1.0, 1.0) for pivot in pivots]
    return sides, [numbers.log(pivot * numbers.asarray(side)) for pivot, side in zip(pivots, sides, strict=True)]


def _sum(numbers: Any, terms: list[Any]) -> Any:
    return numbers.sum(numbers.rearrange(lambda *parts: np.stack(parts, axis=-1), *terms), (-1,))[..., 0]


def _refuse_unless_square(a: Any) -> None:
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"a system of equations wants a square matrix, not one of shape {a.shape}")


class _Elimination:
    """P A = L U of a stack of matrices (hidden, ..., n, n)."""

    def __init__(self, numbers: Any, a: Any) -> None:
        self.numbers, self.n = numbers, a.shape[-1]
        self.order, self.parity = _row_order(middle(a))
        a = self._moved(a, self.order)
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
            self.low = self._joined(-1, self.low, self._joined(-2, above, one, column))
            self.up = self._joined(-2, self.up, self._joined(-1, beside, row))

    def pivots(self) -> list[Any]:
        """Return the diagonal of U."""
        return [self.up[..., k, k] for k in range(self.n)]

    def solved(self, b: Any) -> Any:
        """Return A^-1 b."""
        return self._back(self.up, self._forth(self.low, self._moved(b, self.order)))

    def solved_turned(self, g: Any) -> Any:
        """Return A^-T g: U^T w = g, L^T v = w, and the rows of v as they were."""
        w = self._forth(self.turned(self.up), g)
        return self._moved(self._back(self.turned(self.low), w), np.argsort(self.order, axis=-1))

    def inverse_turned(self) -> Any:
        """Return A^-T."""
        return self.solved_turned(self.numbers.asarray(np.broadcast_to(np.eye(self.n), self.up.shape)))

    def turned(self, x: Any) -> Any:
        """Return the transpose."""
        return self.numbers.rearrange(lambda part: np.swapaxes(part, -1, -2), x)

    def _forth(self, low: Any, b: Any) -> Any:
        """Solve from the first row to the last."""
        x = None
        for k in range(self.n):
            row = b[..., k : k + 1, :]
            row = row if x is None else row - low[..., k : k + 1, :k] @ x
            x = self._joined(-2, x, row / low[..., k : k + 1, k : k + 1])
        return x

    def _back(self, up: Any, b: Any) -> Any:
        """Solve from the last row to the first."""
        x = None
        for k in range(self.n - 1, -1, -1):
            row = b[..., k : k + 1, :]
            row = row if x is None else row - up[..., k : k + 1, k + 1 :] @ x
            row = row / up[..., k : k + 1, k : k + 1]
            x = row if x is None else self._joined(-2, row, x)
        return x

    def _moved(self, x: Any, order: NDArray[np.intp]) -> Any:
        def move(part: Any) -> Any:
            lead = np.broadcast_shapes(part.shape[:-2], order.shape[:-1])
            part = np.broadcast_to(part, (*lead, *part.shape[-2:]))
            return np.take_along_axis(part, np.broadcast_to(order[..., None], (*lead, order.shape[-1], 1)), axis=-2)

        return self.numbers.rearrange(move, x)

    def _joined(self, axis: int, *parts: Any) -> Any:
        some = [part for part in parts if part is not None]
        if len(some) == 1:
            return some[0]

        def join(*each: Any) -> Any:
            lead = np.broadcast_shapes(*(part.shape[:-2] for part in each))
            return np.concatenate([np.broadcast_to(part, (*lead, *part.shape[-2:])) for part in each], axis=axis)

        return self.numbers.rearrange(join, *some)


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
