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

from gdcompare.arithmetic.elimination import Elimination, refuse_unless_square
from gdcompare.arithmetic.whole import middle, on_tape


def solve(xp: Any, a: Any, b: Any) -> Any:
    """A^-1 b, for a vector b of one axis, or the columns of b: db' = A^-T g and dA' = -db' x^T."""
    a, b = xp.asarray(a), xp.asarray(b)
    refuse_unless_square(a)
    if b.ndim == 1:
        return xp.squeeze(solve(xp, a, xp.expand_dims(b, axis=-1)), -1)
    a, b = xp.aligned(a, b)
    elimination = Elimination(xp.numbers, a.value)
    value = elimination.solved(b.value)

    def by_matrix(g: Any) -> Any:
        return -(elimination.solved_turned(g) @ elimination.turned(value))

    return xp.record(value, (a, by_matrix), (b, elimination.solved_turned))


def inv(xp: Any, a: Any) -> Any:
    """A^-1: d(A^-1) = -A^-1 dA A^-1, from right to left, or by another solution."""
    a, numbers = xp.asarray(a), xp.numbers
    refuse_unless_square(a)
    elimination = Elimination(numbers, a.value)
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
    refuse_unless_square(a)
    elimination = Elimination(numbers, a.value)
    pivots = elimination.pivots()
    sides, logs = _sides_and_logs(numbers, pivots)
    sign = numbers.asarray(np.prod(sides, axis=0) * elimination.parity)
    product = reduce(operator.mul, pivots, numbers.asarray(elimination.parity))
    value = numbers.any_of(lambda: product, lambda: sign * numbers.exp(_sum(numbers, logs)))
    return xp.record(value, (a, lambda g: times(times(g, value)[..., None, None], elimination.inverse_turned())))


def slogdet(xp: Any, a: Any) -> tuple[Any, Any]:
    """Return the sign of the determinant, and log |det A|: d log |det A| = tr(A^-1 dA)."""
    a, numbers, times = xp.asarray(a), xp.numbers, xp.numbers.chain
    refuse_unless_square(a)
    elimination = Elimination(numbers, a.value)
    sides, logs = _sides_and_logs(numbers, elimination.pivots())
    sign = on_tape(xp, a, np.prod(sides, axis=0) * elimination.parity)
    return sign, xp.record(_sum(numbers, logs), (a, lambda g: times(g[..., None, None], elimination.inverse_turned())))


def _sides_and_logs(numbers: Any, pivots: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the signs of pivots, and the logarithms of their sizes."""
    sides = [np.where(middle(pivot) < 0, -1.0, 1.0) for pivot in pivots]
    return sides, [numbers.log(pivot * numbers.asarray(side)) for pivot, side in zip(pivots, sides, strict=True)]


def _sum(numbers: Any, terms: list[Any]) -> Any:
    return numbers.sum(numbers.rearrange(lambda *parts: np.stack(parts, axis=-1), *terms), (-1,))[..., 0]
