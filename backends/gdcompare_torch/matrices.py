"""Linear algebra in ATen. Ranks and the order of pivots are those of the point where the program is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.program import UnsaidError
from gdcompare.arithmetic.whole import here


def _turned(xp: Any, x: Any) -> Any:
    return xp.matrix_transpose(x)


def _symmetric(x: Any) -> Any:
    """Return a matrix of which torch reads one triangle, and by which it differentiates as if it read both."""
    value = here(x)
    if not np.array_equal(value, np.swapaxes(value, -1, -2), equal_nan=True):
        raise UnsaidError("of a matrix that is not symmetric, torch reads one triangle, and differentiates by both")
    return x


def _no_info(xp: Any, x: Any) -> Any:
    return xp.asarray(np.zeros(x.shape[:-2], dtype=np.int64))


# Systems.


def solve(xp: Any, a: Any, b: Any, *, left: bool = True, check_errors: bool = False) -> Any:
    """aten._linalg_solve_ex: X with A X = B, or X A = B; a stack of vectors is one of columns."""
    del check_errors
    vectors = b.ndim == 1 or (a.ndim - 1 == b.ndim and tuple(b.shape) == tuple(a.shape[:-1]))
    right = xp.expand_dims(b, axis=-1) if vectors else b
    found = xp.solve(a, right) if left else _turned(xp, xp.solve(_turned(xp, a), _turned(xp, right)))
    return (xp.squeeze(found, -1) if vectors else found), None, None, _no_info(xp, a)


def inverse(xp: Any, a: Any, *, check_errors: bool = False) -> Any:
    """aten.linalg_inv_ex."""
    del check_errors
    return xp.inv(a), _no_info(xp, a)


def det(xp: Any, a: Any) -> Any:
    """aten._linalg_det: of nothing it is 1."""
    found = xp.det(a) if a.shape[-1] else xp.ones(tuple(a.shape[:-2]))
    if not np.isfinite(here(found)).all():
        raise UnsaidError("a matrix is singular, and elimination finds no pivot")
    return found, None, None


def slogdet(xp: Any, a: Any) -> Any:
    """aten._linalg_slogdet: the sign, and the logarithm of the size."""
    if not a.shape[-1]:
        return xp.ones(tuple(a.shape[:-2])), xp.zeros(tuple(a.shape[:-2])), None, None
    return *xp.slogdet(a), None, None


def solve_triangular(
    xp: Any, a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:  # fmt: skip
    """aten.linalg_solve_triangular."""
    if left:
        return xp.solve_triangular(a, b, lower=not upper, unit_diagonal=unitriangular)
    turned = xp.solve_triangular(_turned(xp, a), _turned(xp, b), lower=upper, unit_diagonal=unitriangular)
    return _turned(xp, turned)


def old_solve_triangular(
    xp: Any, b: Any, a: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    """aten.triangular_solve: also of the transpose."""
    matrix, above = (_turned(xp, a), not upper) if transpose else (a, upper)
    return solve_triangular(xp, matrix, b, upper=above, unitriangular=unitriangular), a


# Cholesky's factors.


def cholesky(xp: Any, a: Any, upper: bool = False) -> Any:
    """aten.cholesky."""
    return xp.cholesky(_symmetric(a), upper=upper)


def cholesky_solve(xp: Any, b: Any, factor: Any, upper: bool = False) -> Any:
    """aten.cholesky_solve: (L L^T)^-1 B, or (U^T U)^-1 B."""
    low, up = (_turned(xp, factor), factor) if upper else (factor, _turned(xp, factor))
    return xp.solve_triangular(up, xp.solve_triangular(low, b, lower=True))


def cholesky_inverse(xp: Any, factor: Any, upper: bool = False) -> Any:
    """aten.cholesky_inverse: (L L^T)^-1, or (U^T U)^-1."""
    n = factor.shape[-1]
    return cholesky_solve(xp, np.broadcast_to(np.eye(n), tuple(factor.shape)).copy(), factor, upper)


# Pivots.


def row_order(a: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows of a matrix in the order of their pivots, the largest of what is left each time.

    >>> row_order(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]])).tolist()
    [2, 1, 0]
    """
    a, order = np.array(a), np.arange(len(a))
    for k in range(min(a.shape[0] - 1, a.shape[1])):
        best = k + int(np.argmax(np.abs(a[k:, k])))
        a[[k, best]], order[[k, best]] = a[[best, k]], order[[best, k]]
        with np.errstate(all="ignore"):
            a[k + 1 :] -= np.nan_to_num(a[k + 1 :, k : k + 1] / a[k, k]) * a[k]
    return order


def _orders(a: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the order of each of a stack's matrices."""
    stack = a.reshape(-1, *a.shape[-2:])
    found = np.array([row_order(each) for each in stack], dtype=np.int64)
    return found.reshape(*a.shape[:-2], a.shape[-2])


def _pivots(orders: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return orders as LAPACK writes them: with which row each of the first k was exchanged, counted from 1."""
    result = np.zeros((*orders.shape[:-1], k), dtype=np.int64)
    for place in np.ndindex(orders.shape[:-1]):
        now = list(range(orders.shape[-1]))
        for i in range(k):
            j = now.index(int(orders[place][i]))
            now[i], now[j] = now[j], now[i]
            result[place][i] = j + 1
    return result


def _order_of(pivots: Any, m: int) -> NDArray[np.int64]:
    """Return the order that LAPACK's pivots stand for."""
    given = here(pivots).astype(np.int64)
    result = np.broadcast_to(np.arange(m), (*given.shape[:-1], m)).copy()
    for place in np.ndindex(given.shape[:-1]):
        for i, pivot in enumerate(given[place]):
            result[place][[i, pivot - 1]] = result[place][[pivot - 1, i]]
    return result


def _permutation(orders: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return P with A = P L U."""
    return np.swapaxes(np.eye(orders.shape[-1])[orders], -1, -2)


def _rows(xp: Any, a: Any, orders: NDArray[np.int64]) -> Any:
    return xp.take_along_axis(a, np.broadcast_to(orders[..., None], tuple(a.shape)), axis=-2)


def lu(xp: Any, a: Any, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """aten.linalg_lu_factor_ex: L below the diagonal and U from there on, of matrices of any shape.

    What is beside the leading square follows from its factors: U_2 = L^-1 A_2, L_2 = A_2 U^-1.
    """
    del check_errors
    if not pivot:
        raise UnsaidError("it takes no pivots")
    m, n = a.shape[-2:]
    k, orders = min(m, n), _orders(here(a))
    moved = _rows(xp, a, orders)
    square, _, order = xp.lu(moved[..., :k, :k])
    xp.decide(xp.all(xp.equal(order, np.arange(k))), True)
    if n > k:
        beside = xp.solve_triangular(square, moved[..., :, k:], lower=True, unit_diagonal=True)
        square = xp.concat([square, beside], axis=-1)
    elif m > k:
        below = solve_triangular(xp, square, moved[..., k:, :], upper=True, left=False)
        square = xp.concat([square, below], axis=-2)
    return square, xp.asarray(_pivots(orders, k)), _no_info(xp, a)


def unpacked(xp: Any, both: Any, pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    """aten.lu_unpack: P, L and U."""
    m, n = both.shape[-2:]
    k = min(m, n)
    order = xp.asarray(_permutation(_order_of(pivots, m))) if unpack_pivots else None
    if not unpack_data:
        return order, None, None
    low = xp.add(xp.tril(both[..., :, :k], k=-1), np.eye(m, k))
    return order, low, xp.triu(both[..., :k, :])


def lu_parts(xp: Any, a: Any, *, pivot: bool = True) -> Any:
    """aten.linalg_lu: P, L and U with A = P L U."""
    both, pivots, _ = lu(xp, a, pivot=pivot)
    return unpacked(xp, both, pivots)


def lu_solve(xp: Any, both: Any, pivots: Any, b: Any, *, left: bool = True, adjoint: bool = False) -> Any:
    """aten.linalg_lu_solve: X with A X = B or X A = B, or of the transpose, where A = P L U."""
    if not left:
        return _turned(xp, lu_solve(xp, both, pivots, _turned(xp, b), adjoint=not adjoint))
    order = _permutation(_order_of(pivots, both.shape[-2]))
    if adjoint:
        half = xp.solve_triangular(_turned(xp, both), b, lower=True)
        return xp.matmul(order, xp.solve_triangular(_turned(xp, both), half, unit_diagonal=True))
    half = xp.solve_triangular(both, xp.matmul(np.swapaxes(order, -1, -2), b), lower=True, unit_diagonal=True)
    return xp.solve_triangular(both, half)


# Reflections, and what is found by them.


def qr(xp: Any, a: Any, mode: str = "reduced") -> Any:
    """aten.linalg_qr: of a wide matrix by the square in front, Q R_2 = A_2."""
    m, n = a.shape[-2:]
    if mode == "complete" and m > n:
        raise UnsaidError("it makes more columns of Q than A has, which have no derivative")
    if m >= n:
        q, r = xp.qr(a)
    else:
        q, r = xp.qr(a[..., :, :m])
        r = xp.concat([r, xp.matmul(_turned(xp, q), a[..., :, m:])], axis=-1)
    return (None if mode == "r" else q), r


def _reflected(xp: Any, vectors: Any, factors: Any, x: Any, *, transpose: bool) -> Any:
    """Return H_1 ... H_k X, or H_k ... H_1 X, with H_i = 1 - tau_i v_i v_i^T, v_i 0 above i, 1 at i."""
    m, k = vectors.shape[-2], factors.shape[-1]
    columns = xp.add(xp.tril(vectors, k=-1), np.eye(m, vectors.shape[-1]))
    for i in range(k) if transpose else range(k)[::-1]:
        v = columns[..., :, i : i + 1]
        along = xp.matmul(_turned(xp, v), x)
        x = xp.subtract(x, xp.multiply(xp.expand_dims(factors[..., i], axis=(-2, -1)), xp.matmul(v, along)))
    return x


def householder(xp: Any, vectors: Any, factors: Any) -> Any:
    """aten.linalg_householder_product: the first columns of a product of reflections."""
    m, n = vectors.shape[-2:]
    start = np.broadcast_to(np.eye(m, n), tuple(vectors.shape)).copy()
    return _reflected(xp, vectors, factors, start, transpose=False) if factors.shape[-1] else xp.asarray(start)


def ormqr(xp: Any, vectors: Any, factors: Any, other: Any, left: bool = True, transpose: bool = False) -> Any:
    """aten.ormqr: Q X, Q^T X, X Q or X Q^T, Q a product of reflections."""
    if left:
        return _reflected(xp, vectors, factors, other, transpose=transpose)
    return _turned(xp, _reflected(xp, vectors, factors, _turned(xp, other), transpose=not transpose))


def lstsq(xp: Any, a: Any, b: Any, rcond: Any = None, *, driver: Any = None) -> Any:
    """aten.linalg_lstsq: of full rank, R^-1 Q^T b, or the smallest solution, Q R^-T b with A^T = Q R."""
    del rcond, driver
    m, n = a.shape[-2:]
    vectors = b.ndim == 1 or (a.ndim - 1 == b.ndim and tuple(b.shape) == tuple(a.shape[:-1]))
    right = xp.expand_dims(b, axis=-1) if vectors else b
    if (np.linalg.matrix_rank(here(a)) < min(m, n)).any():
        raise UnsaidError("a matrix has not full rank")
    if m >= n:
        q, r = xp.qr(a)
        found = xp.solve_triangular(r, xp.matmul(_turned(xp, q), right))
    else:
        q, r = xp.qr(_turned(xp, a))
        found = xp.matmul(q, xp.solve_triangular(_turned(xp, r), right, lower=True))

    def residuals() -> Any:
        return xp.sum(xp.square(xp.subtract(xp.matmul(a, found), right)), axis=-2)

    return (xp.squeeze(found, -1) if vectors else found), residuals, None, None


# Spectra.


def eigh(xp: Any, a: Any, triangle: str = "L", compute_v: bool = True) -> Any:
    """aten._linalg_eigh."""
    del triangle
    values, vectors = xp.eigh(_symmetric(a))
    return values, vectors if compute_v else None


def svd(xp: Any, a: Any, full_matrices: bool = False, compute_uv: bool = True, *, driver: Any = None) -> Any:
    """aten._linalg_svd; vectors beyond the singular values have no derivative."""
    del driver
    u, s, vt = xp.svd(a, full_matrices=False)
    if not compute_uv:
        return None, s, None
    m, n = a.shape[-2:]
    if full_matrices and m != n:
        full, _, full_vt = np.linalg.svd(here(a))
        unknown = xp.sqrt(xp.multiply(xp.sum(a), 0.0))  # 0, with a derivative that is no number
        if m > n:
            u = xp.concat([u, xp.add(full[..., :, n:], unknown)], axis=-1)
        else:
            vt = xp.concat([vt, xp.add(full_vt[..., m:, :], unknown)], axis=-2)
    return u, s, vt


def pinv(xp: Any, a: Any, *_: Any, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Any:
    """aten.linalg_pinv: the pseudoinverse, whose rank stays what it is when the program is read.

    Of full rank it is (A^T A)^-1 A^T or A^T (A A^T)^-1; else, with constants C, some independent columns of A, and R,
    some of A^T, A = A R (C^T A R)^-1 C^T A, and A^+ = (C^T A)^+ (C^T A R) (A R)^+. So written, what would raise the
    rank changes nothing, as in the derivative of Golub and Pereyra (1973); there is no second derivative. If singular
    values other than 0 are left out, it is made of the others and their vectors.
    """
    a = _symmetric(a) if hermitian else a
    size = np.abs(here(a)).max(initial=0.0)
    if size and not 2.0**-64 < size < 2.0**64 and np.isfinite(size):  # its square may not be
        scale = float(2.0 ** -np.round(np.log2(size)))
        tolerance = None if atol is None else np.multiply(_number(atol)[..., 0], scale)
        return xp.multiply(pinv(xp, xp.multiply(a, scale), atol=tolerance, rtol=rtol), scale)
    m, n = a.shape[-2:]
    values = np.linalg.svd(here(a), compute_uv=False)
    largest = values.max(axis=-1, keepdims=True)
    relative = _number(rtol) if rtol is not None else 0.0 if atol is not None else max(m, n) * np.finfo(float).eps
    kept = values > np.maximum(_number(atol) if atol is not None else 0.0, np.multiply(largest, relative))
    if (~kept & (values > 1e-12 * largest)).any():
        u, s, vt = xp.svd(a, full_matrices=False)
        factors = xp.where(kept, xp.divide(1.0, xp.where(kept, s, 1.0)), 0.0)
        return xp.matmul(xp.multiply(_turned(xp, vt), xp.expand_dims(factors, axis=-2)), _turned(xp, u))
    ranks = np.unique(kept.sum(axis=-1))
    if len(ranks) > 1:
        raise UnsaidError("matrices of a stack have different ranks")
    rank = int(ranks[0]) if ranks.size else 0
    if rank == 0:
        return xp.zeros((*a.shape[:-2], n, m))
    if rank in (m, n):
        return _of_full_rank(xp, a)
    left, right = _turned(xp, _some_columns(xp, a, rank)), _some_columns(xp, _turned(xp, a), rank)
    inside = xp.matmul(a, right)
    across, between = _of_full_rank(xp, xp.matmul(left, a)), xp.matmul(left, inside)
    twice_unknown = xp.pow(xp.multiply(xp.sum(a), 0.0), 1.5)  # 0, and so is its slope, whose own is no number
    return xp.add(xp.matmul(xp.matmul(across, between), _of_full_rank(xp, inside)), twice_unknown)


def _some_columns(xp: Any, a: Any, rank: int) -> Any:
    """Return so many independent columns of a matrix, constants."""
    places = np.broadcast_to(_orders(_columns_ordered(here(a)))[..., None, :rank], (*a.shape[:-1], rank))
    return xp.take_along_axis(xp.stop_gradient(a), places, axis=-1)


def _columns_ordered(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the transpose, whose pivots are independent columns."""
    value = np.swapaxes(a, -1, -2)
    stack = [_columns_first(each) for each in value.reshape(-1, *value.shape[-2:])]
    return np.array(stack).reshape(value.shape)


def _columns_first(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn a matrix so that its largest directions come first, and pivots find as many rows as it has rank."""
    return np.asarray(a @ np.linalg.svd(a)[2].T)


def _of_full_rank(xp: Any, a: Any) -> Any:
    m, n = a.shape[-2:]
    turned = _turned(xp, a)
    if m >= n:
        return xp.solve(xp.matmul(turned, a), turned)
    return _turned(xp, xp.solve(xp.matmul(a, turned), a))


def _number(value: Any) -> Any:
    return here(value).astype(float)[..., None]


# Functions of matrices.

TERMS = 24


def matrix_exp(xp: Any, a: Any) -> Any:
    """aten.linalg_matrix_exp: (sum of (A / 2^s)^k / k!)^(2^s), so that |A| / 2^s is at most 1/2.

    What is left out of the sum is then below 2^-25 / 25!, 2e-33 of the result.
    """
    norms = xp.max(xp.sum(xp.abs(xp.stop_gradient(a)), axis=-2), axis=-1)
    largest = float(np.max(here(norms), initial=0.0))
    halvings = max(0, math.ceil(math.log2(largest)) + 2) if largest else 0
    xp.decide(xp.all(xp.less_equal(norms, 2.0 ** (halvings - 1))), True)
    small, one = xp.multiply(a, 2.0**-halvings), np.eye(a.shape[-1])
    total = xp.add(xp.divide(small, float(TERMS)), one)
    for k in range(TERMS - 1, 0, -1):
        total = xp.add(xp.divide(xp.matmul(small, total), float(k)), one)
    for _ in range(halvings):
        total = xp.matmul(total, total)
    return total


MATRICES: dict[str, Callable[..., Any]] = {
    "_linalg_solve_ex": solve,
    "linalg_inv_ex": inverse,
    "inverse": lambda xp, a: xp.inv(a),
    "_linalg_det": det,
    "_linalg_slogdet": slogdet,
    "linalg_solve_triangular": solve_triangular,
    "triangular_solve": old_solve_triangular,
    "cholesky": cholesky,
    "linalg_cholesky_ex": lambda xp, a, *, upper=False, **_: (cholesky(xp, a, upper), _no_info(xp, a)),
    "cholesky_solve": cholesky_solve,
    "cholesky_inverse": cholesky_inverse,
    "linalg_lu_factor_ex": lu,
    "linalg_lu": lu_parts,
    "lu_unpack": unpacked,
    "linalg_lu_solve": lu_solve,
    "linalg_qr": qr,
    "linalg_householder_product": householder,
    "ormqr": ormqr,
    "linalg_lstsq": lstsq,
    "_linalg_eigh": eigh,
    "_linalg_svd": svd,
    "linalg_pinv": pinv,
    "linalg_matrix_exp": matrix_exp,
}
