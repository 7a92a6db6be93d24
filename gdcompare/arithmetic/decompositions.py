"""Eigenvalues and singular values of stacks of matrices of numbers of any system, with their vectors.

No formula of arithmetic gives them, so that each number system has its own way:

* balls: Arb's enclosures of eigenvalues, which must be known to be different, and of their vectors;
* rounded numbers: floats, and what moves them. Any stable program returns those of a matrix A + E beside A, with
  |E| <= c u |A|, to which the errors of A itself are added. Weyl: |lambda(A + E) - lambda(A)| <= |E|. Davis and Kahan,
  Wedin: a vector turns by no more than |E| over the gap between its own value and the others;
* sampled numbers: floats, of a matrix that is moved at random by as much in each draw;
* dual numbers: the derivatives of both.

Signs of vectors are those that LAPACK finds for the middles of the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flint import acb_mat, arb, ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import BallNumbers, boxed
from gdcompare.arithmetic.elimination import nearby, turned
from gdcompare.arithmetic.numbers import Floats
from gdcompare.arithmetic.quick_balls import balls_from_quick, quick_from_balls
from gdcompare.arithmetic.quick_numbers import QuickNumbers
from gdcompare.arithmetic.rounded import RoundedNumbers
from gdcompare.arithmetic.rounding import SLACK
from gdcompare.arithmetic.sampled import Sampled, SampledNumbers
from gdcompare.arithmetic.whole import middle

Array = NDArray[np.float64]

BESIDE = 8.0
"""A stable program's matrix is off by less than this times u, root of m n, and its norm."""


def eigen(numbers: Any, a: Any) -> tuple[Any, Any]:
    """Return the eigenvalues (..., n) of symmetric matrices, in ascending order, and their vectors as columns."""
    if hasattr(numbers, "base"):
        return _of_dual(numbers, a, eigen(numbers.base, a.value), _eigen_tangents)
    found: tuple[Any, Any] = _by_kind(numbers, a, _eigen_of_floats, _eigen_of_balls, _eigen_gaps)
    return found


def singular(numbers: Any, a: Any) -> tuple[Any, Any, Any]:
    """Return the vectors U (..., m, k), the singular values (..., k), in descending order, and V (..., n, k)."""
    if hasattr(numbers, "base"):
        return _of_dual(numbers, a, singular(numbers.base, a.value), _singular_tangents)
    found: tuple[Any, Any, Any] = _by_kind(numbers, a, _singular_of_floats, _singular_of_balls, _singular_gaps)
    return found


def _by_kind(
    numbers: Any, a: Any, of_floats: Callable[..., Any], of_balls: Callable[..., Any], gaps: Callable[..., Any]
) -> Any:
    if isinstance(numbers, Floats):
        return of_floats(a, a)
    if isinstance(numbers, BallNumbers):
        return _stacked(of_balls, a)
    if isinstance(numbers, QuickNumbers):
        with ctx.workprec(128):
            return tuple(map(quick_from_balls, _stacked(of_balls, balls_from_quick(a))))
    if isinstance(numbers, SampledNumbers):
        moved = nearby(numbers, a, BESIDE).value
        parts = of_floats(moved, a.value[:1])
        return tuple(Sampled(np.asarray(part), False, numbers) for part in parts)
    if isinstance(numbers, RoundedNumbers):
        return _bounded(numbers, a, of_floats(a.value, a.value), gaps)
    raise TypeError("eigenvalues and singular values have no formula, and so no symbols")


# Floats.


def _eigen_of_floats(a: Array, like: Array) -> tuple[Array, Array]:
    """Return values and vectors, whose signs are those of another stack's."""
    values, vectors = np.linalg.eigh(_finite(a))
    model = vectors if like is a else np.linalg.eigh(_finite(like))[1]
    return values, vectors * _sides(vectors, model)


def _singular_of_floats(a: Array, like: Array) -> tuple[Array, Array, Array]:
    u, s, vh = np.linalg.svd(_finite(a), full_matrices=False)
    model = u if like is a else np.linalg.svd(_finite(like), full_matrices=False)[0]
    sides = _sides(u, model)
    return u * sides, s, np.swapaxes(vh, -1, -2) * sides


def _finite(a: Array) -> Array:
    """Return what LAPACK takes; of what is not finite nothing comes out that is used."""
    return a if np.isfinite(a).all() else np.nan_to_num(a)


def _sides(vectors: Any, model: Any) -> Any:
    return np.where(np.sum(vectors * model, axis=-2, keepdims=True) < 0, -1.0, 1.0)


# Balls.


def _stacked(of_one: Callable[[Any], Sequence[Any]], a: Any) -> tuple[Any, ...]:
    """Do with each matrix of a stack."""
    lead = a.shape[:-2]
    each = [of_one(matrix) for matrix in a.reshape(-1, *a.shape[-2:])]
    return tuple(boxed(np.stack(parts)).reshape(*lead, *parts[0].shape) for parts in zip(*each, strict=True))


def _eigen_of_balls(a: Any) -> tuple[Any, Any]:
    """Arb's vectors may have any complex factor: each is divided by its largest component first."""
    n = len(a)
    unknown = np.full(n, arb.nan(), dtype=object), np.full((n, n), arb.nan(), dtype=object)
    if not all(ball.is_finite() for ball in a.ravel()):
        return unknown
    try:
        values, vectors = acb_mat(n, n, a.ravel().tolist()).eig(right=True)
    except ValueError:  # they may be equal
        return unknown
    _, model = np.linalg.eigh(middle(a))
    order = sorted(range(n), key=lambda i: float(values[i].real.mid()))
    columns = []
    for i in order:
        column = [vectors[j, i] for j in range(n)]
        largest = max(column, key=lambda each: float(abs(each).mid()))
        real = np.array([(each / largest).real for each in column], dtype=object)
        columns.append(real / sum(each * each for each in real).sqrt())
    found = np.stack(columns, axis=-1)
    sides = np.where(np.sum(middle(found) * model, axis=0) < 0, -1, 1)
    return np.array([values[i].real for i in order], dtype=object), found * sides


def _singular_of_balls(a: Any) -> tuple[Any, Any, Any]:
    """By the eigenvalues of the smaller of A^T A and A A^T, at a precision that has digits to lose."""
    wide = a.shape[0] < a.shape[1]
    tall = a.T if wide else a
    values, v = _eigen_of_balls(np.asarray(tall.T @ tall))
    values, v = values[::-1], v[:, ::-1]
    s = np.array([each.sqrt() for each in values], dtype=object)
    u = (tall @ v) / s
    u, v = (v, u) if wide else (u, v)
    model, _, _ = np.linalg.svd(_finite(middle(a)), full_matrices=False)
    sides = np.where(np.sum(middle(u) * model, axis=0) < 0, -1, 1)
    return u * sides, s, v * sides


# Numbers with a bound.


def _bounded(numbers: RoundedNumbers, a: Any, parts: Sequence[Array], gaps: Callable[..., Any]) -> tuple[Any, ...]:
    """Return the parts with their bounds: values move by |E|, vectors by 2 |E| over what is left of their gap."""
    beside = BESIDE * (a.shape[-1] * a.shape[-2]) ** 0.5
    off = [
        _norm(a.spread) + beside * 2.0**-53 * _norm(np.abs(a.value)),
        _norm(a.error) + beside * numbers.u * _norm(a.size),
    ]
    reach, found = off[0] + off[1], []
    for part in parts:
        if part.ndim == a.ndim - 1:
            spread, error = (each[..., None] * SLACK for each in off)
        else:
            left = gaps(parts, a.shape) - 2 * reach[..., None]
            turn = np.where(left > 0, 3 * SLACK / left, np.inf)[..., None, :]
            own = beside * np.array([2.0**-53, numbers.u])
            spread, error = (each[..., None, None] * turn + one for each, one in zip(off, own, strict=True))
        found.append(
            numbers.rounded(part, np.broadcast_to(spread, part.shape), np.broadcast_to(error, part.shape), 1,
                            operation="eigenvalues that may be equal")
        )  # fmt: skip
    return tuple(found)


def _norm(part: Any) -> Any:
    return np.sqrt(np.sum(part**2, axis=(-2, -1)))


def _eigen_gaps(parts: Sequence[Array], _shape: Sequence[int]) -> Array:
    return _gaps(parts[0])


def _singular_gaps(parts: Sequence[Array], shape: Sequence[int]) -> Array:
    """To the other singular values; and of matrices that are not square to 0, which has vectors of its own."""
    gaps = _gaps(parts[1])
    return gaps if shape[-1] == shape[-2] else np.minimum(gaps, parts[1])


def _gaps(values: Array) -> Array:
    apart = np.abs(values[..., :, None] - values[..., None, :])
    return np.asarray(np.min(np.where(np.eye(values.shape[-1]) == 1, np.inf, apart), axis=-1))


# Derivatives.


def reciprocal_gaps(numbers: Any, values: Any) -> Any:
    """Return 1 / (x_j - x_i), and 0 on the diagonal."""
    n = values.shape[-1]
    eye, zeros = numbers.asarray(np.eye(n)), numbers.asarray(np.zeros((n, n)))
    apart = values[..., None, :] - values[..., :, None]
    return numbers.where(eye, zeros, 1 / numbers.where(eye, numbers.asarray(np.ones((n, n))), apart))


def _of_dual(numbers: Any, a: Any, parts: Sequence[Any], tangents: Callable[..., Sequence[Any]]) -> tuple[Any, ...]:
    dual = type(a)
    if a.tangent is None:
        return tuple(dual(numbers, part) for part in parts)
    along = tangents(numbers.base, a.tangent, *parts)
    return tuple(dual(numbers, part, each) for part, each in zip(parts, along, strict=True))


def _diagonal(numbers: Any, x: Any) -> Any:
    return numbers.rearrange(lambda part: np.diagonal(part, axis1=-2, axis2=-1), x)


def _eigen_tangents(numbers: Any, along: Any, values: Any, vectors: Any) -> tuple[Any, Any]:
    """With P = V^T dA V: d values = diag(P), dV = V (F . P)."""
    p = turned(numbers, vectors) @ along @ vectors
    return _diagonal(numbers, p), vectors @ numbers.chain(p, reciprocal_gaps(numbers, values))


def _singular_tangents(numbers: Any, along: Any, u: Any, s: Any, v: Any) -> tuple[Any, Any, Any]:
    """With P = U^T dA V: ds = diag(P), dU = U (F . (P S + S P^T)) + (1 - U U^T) dA V / S, and dV likewise."""
    ut, vt, at = (turned(numbers, each) for each in (u, v, along))
    p = ut @ along @ v
    pt, gaps = turned(numbers, p), reciprocal_gaps(numbers, s * s)
    row, column = s[..., None, :], s[..., :, None]
    of_u = u @ numbers.chain(p * row + column * pt, gaps)
    of_v = v @ numbers.chain(column * p + pt * row, gaps)
    if u.shape[-2] > u.shape[-1]:
        seen = along @ v
        of_u = of_u + (seen - u @ (ut @ seen)) / row
    if v.shape[-2] > v.shape[-1]:
        seen = at @ u
        of_v = of_v + (seen - v @ (vt @ seen)) / row
    return of_u, _diagonal(numbers, p), of_v
