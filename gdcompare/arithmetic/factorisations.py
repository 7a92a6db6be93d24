"""Factors of matrices by elimination, over any number system, each beside its derivative.

    A = L L^T      dL = L T(L^-1 dA L^-T)                       T: the lower triangle, with half of the diagonal
    P A = L U      dL = L S(F), dU = R(F) U, F = L^-1 P dA U^-1    S: below the diagonal, R: the rest
    A = Q R        Q^T Q = 1, the columns one after the other (Gram and Schmidt), signs as LAPACK's

Each number of L and U is one dot product less than a number of A, in whatever order a library takes them. Libraries
find Q and R by reflections, whose result is that of a matrix beside A: `nearby` allows for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.elimination import (
    Elimination,
    joined,
    nearby,
    refuse_unless_square,
    solved_back,
    solved_forth,
    turned,
)
from gdcompare.arithmetic.whole import known_whole, middle, on_tape

BESIDE = 8.0
"""Factors by reflections are those of a matrix that is off by less than this times u, root of m n, times its norm."""


def cholesky(xp: Any, x: Any, *, upper: bool = False) -> Any:
    """L with A = L L^T, of a symmetric matrix: of (A + A^T) / 2, so that the derivative is symmetric as well."""
    x = xp.asarray(x)
    refuse_unless_square(x)
    a = _symmetric(xp, x)
    numbers, times = xp.numbers, xp.numbers.chain
    low = _lower(numbers, a.value)
    n = a.shape[-1]
    half = numbers.asarray(np.tril(np.ones((n, n)), -1) + 0.5 * np.eye(n))

    def pullback(g: Any) -> Any:
        """L^-T T(L^T g) L^-1."""
        inner = times(turned(numbers, low) @ g, half)
        back = solved_back(numbers, turned(numbers, low), inner)
        return turned(numbers, solved_back(numbers, turned(numbers, low), turned(numbers, back)))

    found = xp.record(low, (a, pullback))
    return xp.matrix_transpose(found) if upper else found


def _symmetric(xp: Any, x: Any) -> Any:
    """Return (A + A^T) / 2, and exactly A where it is symmetric."""
    return xp.multiply(xp.add(x, xp.matrix_transpose(x)), 0.5)


def _lower(numbers: Any, a: Any) -> Any:
    n, lead, low = a.shape[-1], a.shape[:-2], None
    for k in range(n):
        column = a[..., k:, k : k + 1]
        if low is not None:
            column = column - low[..., k:, :] @ turned(numbers, low[..., k : k + 1, :])
        root = numbers.sqrt(column[..., :1, :])
        below = column[..., 1:, :] / root
        above = numbers.asarray(np.zeros((*lead, k, 1)))
        low = joined(numbers, -1, low, joined(numbers, -2, above, root, below))
    return low


def solve_triangular(xp: Any, a: Any, b: Any, *, lower: bool = False, unit_diagonal: bool = False) -> Any:
    """A^-1 b of a triangle of A, for the columns of b; what stands in the other triangle has no part in it."""
    a, b = xp.asarray(a), xp.asarray(b)
    refuse_unless_square(a)
    if b.ndim == 1:
        column = xp.expand_dims(b, axis=-1)
        return xp.squeeze(solve_triangular(xp, a, column, lower=lower, unit_diagonal=unit_diagonal), -1)
    a, b = xp.aligned(a, b)
    numbers, n = xp.numbers, a.shape[-1]
    ones = np.tril(np.ones((n, n))) if lower else np.triu(np.ones((n, n)))
    mask = numbers.asarray(ones - np.eye(n) if unit_diagonal else ones)
    triangle = numbers.where(mask, a.value, numbers.asarray(np.eye(n) if unit_diagonal else np.zeros((n, n))))
    there, back = (solved_forth, solved_back) if lower else (solved_back, solved_forth)
    value = there(numbers, triangle, b.value)

    def by_right(g: Any) -> Any:
        return back(numbers, turned(numbers, triangle), g)

    def by_matrix(g: Any) -> Any:
        return numbers.leave_out(mask, -(by_right(g) @ turned(numbers, value)))

    return xp.record(value, (a, by_matrix), (b, by_right))


def lu(xp: Any, a: Any) -> tuple[Any, Any, Any]:
    """Return L below the diagonal and U from there on, in one matrix, the exchanges of rows, and their order after all.

    The i-th exchange is of row i and another below. They are LAPACK's, by the middles of the numbers, and constant.
    """
    a, numbers = xp.asarray(a), xp.numbers
    refuse_unless_square(a)
    elimination, n = Elimination(numbers, a.value), a.shape[-1]
    below, rest = (numbers.asarray(each) for each in (np.tril(np.ones((n, n)), -1), np.triu(np.ones((n, n)))))
    value = numbers.where(below, elimination.low, elimination.up)

    def pullback(g: Any) -> Any:
        """P^T L^-T (S(L^T g) + R(g U^T)) U^-T, of the part of g by L, and of that by U."""
        by_low, by_up = numbers.leave_out(below, g), numbers.leave_out(rest, g)
        inner = numbers.where(below, turned(numbers, elimination.low) @ by_low, by_up @ turned(numbers, elimination.up))
        right = turned(numbers, solved_back(numbers, elimination.up, turned(numbers, inner)))
        left = solved_back(numbers, turned(numbers, elimination.low), right)
        return elimination.moved(left, np.argsort(elimination.order, axis=-1))

    order = elimination.order
    exchanges, order = (_whole(xp, a, each) for each in (_exchanges(order), order))
    return xp.record(value, (a, pullback)), exchanges, order


def order_of_exchanges(xp: Any, exchanges: Any) -> Any:
    """The order of n rows after n exchanges, the i-th of row i and another."""
    exchanges = xp.asarray(exchanges)
    found, _ = known_whole(exchanges.value)
    order = np.broadcast_to(np.arange(found.shape[-1]), found.shape).copy()
    for i in range(found.shape[-1]):
        other = np.take_along_axis(order, found[..., i : i + 1], axis=-1)
        np.put_along_axis(order, found[..., i : i + 1], order[..., i : i + 1], axis=-1)
        order[..., i : i + 1] = other
    return _whole(xp, exchanges, order)


def _exchanges(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the exchanges that lead to an order."""
    now, found = np.broadcast_to(np.arange(order.shape[-1]), order.shape).copy(), np.zeros_like(order)
    for i in range(order.shape[-1]):
        found[..., i] = np.argmax(now == order[..., i : i + 1], axis=-1)
        np.put_along_axis(now, found[..., i : i + 1], now[..., i : i + 1], axis=-1)
        now[..., i] = order[..., i]
    return found


def _whole(xp: Any, like: Any, numbers: NDArray[np.intp]) -> Any:
    found = on_tape(xp, like, numbers.astype(np.float64))
    found.whole = True
    return found


def qr(xp: Any, x: Any, *, mode: str = "reduced") -> tuple[Any, Any]:
    """Q (m, k) and R (k, n) with A = Q R, for m >= n: dA = (g_Q + Q sym(M)) R^-T, M = R g_R^T - g_Q^T Q.

    sym(M) has the lower triangle of M on either side of the diagonal.
    """
    x, numbers = xp.asarray(x), xp.numbers
    m, n = x.shape[-2:]
    if mode != "reduced" or m < n:
        raise TypeError(f"the referee has a reduced qr of at least as many rows as columns, not {mode} of {x.shape}")
    q, r = _orthonormal(numbers, nearby(numbers, x.value, BESIDE * (m * n) ** 0.5), _signs(middle(x.value)))
    low, off = np.tril(np.ones((n, n))), np.tril(np.ones((n, n)), -1)
    whole, strictly = numbers.asarray(low), numbers.asarray(off)

    def back(by_q: Any, product: Any) -> Any:
        mirrored = numbers.leave_out(whole, product) + turned(numbers, numbers.leave_out(strictly, product))
        right = q @ mirrored if by_q is None else by_q + q @ mirrored
        return turned(numbers, solved_back(numbers, r, turned(numbers, right)))

    of_q = xp.record(q, (x, lambda g: back(g, -(turned(numbers, g) @ q))))
    above = numbers.asarray(np.triu(np.ones((n, n))))
    of_r = xp.record(r, (x, lambda g: back(None, r @ turned(numbers, numbers.leave_out(above, g)))))
    return of_q, of_r


def _signs(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the signs of R's diagonal as LAPACK finds them."""
    with np.errstate(all="ignore"):
        diagonal = np.diagonal(np.linalg.qr(np.nan_to_num(a)).R, axis1=-2, axis2=-1)
    return np.where(diagonal < 0, -1.0, 1.0)


def _orthonormal(numbers: Any, a: Any, signs: NDArray[np.float64]) -> tuple[Any, Any]:
    n, lead = a.shape[-1], a.shape[:-2]
    q: Any = None
    r: Any = None
    for k in range(n):
        column, above = a[..., k : k + 1], None
        for j in range(k):  # one after the other, from what is left
            each = turned(numbers, q[..., j : j + 1]) @ column
            column = column - q[..., j : j + 1] @ each
            above = joined(numbers, -2, above, each)
        size = numbers.sqrt(turned(numbers, column) @ column) * numbers.asarray(signs[..., k, None, None])
        zeros = numbers.asarray(np.zeros((*lead, n - 1 - k, 1)))
        q = joined(numbers, -1, q, column / size)
        r = joined(numbers, -1, r, joined(numbers, -2, above, size, zeros))
    return q, r
