"""JAX's primitives of linear algebra, in the tape's vocabulary: `formula(xp, *operands, **its parameters)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from gdcompare.arithmetic.program import Place, UnsaidError
from gdcompare.arithmetic.whole import as_read, here
from gdcompare_jax.moves import reshaped


def _refuse_unless_symmetric(xp: Any, a: Any, name: str) -> None:
    """Refuse a matrix that is not symmetric whatever the inputs are: JAX's derivative is of symmetric ones alone."""
    if isinstance(a, Place) and not xp.is_symmetric(a):
        raise UnsaidError(
            f"{name} of a matrix that nothing makes symmetric: its derivative would be that of another function; take "
            "(A + A.T) / 2, as symmetrize_input=True does"
        )


def cholesky(xp: Any, a: Any, **_: Any) -> Any:
    """Return L."""
    _refuse_unless_symmetric(xp, a, "cholesky")
    return xp.cholesky(a)


def eigh(xp: Any, a: Any, *, subset_by_index: Any = None, **_: Any) -> list[Any]:
    """Return the vectors with JAX's signs, and the eigenvalues."""
    _refuse_unless_symmetric(xp, a, "eigh")
    values, vectors = xp.eigh(a)
    if subset_by_index is not None and tuple(subset_by_index) != (0, a.shape[-1]):
        raise UnsaidError("it returns some eigenvalues")
    theirs = lax.linalg.eigh(jax.numpy.asarray(here(a)), symmetrize_input=False)[0]
    return [xp.multiply(vectors, _sides(vectors, theirs)), values]


def svd(xp: Any, a: Any, *, full_matrices: bool, compute_uv: bool, subset_by_index: Any = None, **_: Any) -> list[Any]:
    """Return singular values, and their vectors with JAX's signs."""
    if subset_by_index is not None:
        raise UnsaidError("it returns some singular values")
    if not compute_uv:
        return [xp.svdvals(a)]
    if full_matrices and a.shape[-1] != a.shape[-2]:
        raise UnsaidError("it returns vectors that belong to no singular value: write full_matrices=False")
    u, s, vt = xp.svd(a, full_matrices=False)
    theirs = lax.linalg.svd(jax.numpy.asarray(here(a)), full_matrices=False)[0]
    sides = _sides(u, theirs)
    return [s, xp.multiply(u, sides), xp.multiply(vt, np.swapaxes(sides, -1, -2))]


def _sides(mine: Any, theirs: Any) -> Any:
    return np.where(np.sum(mine.value * np.asarray(theirs), axis=-2, keepdims=True) < 0, -1.0, 1.0)


def qr(xp: Any, a: Any, *, pivoting: bool = False, full_matrices: bool = False, **_: Any) -> list[Any]:
    """Return Q and R with JAX's signs."""
    if pivoting:
        raise UnsaidError("it exchanges columns")
    if a.shape[-2] < a.shape[-1] or (full_matrices and a.shape[-1] != a.shape[-2]):
        raise UnsaidError("it returns columns that belong to no column of the matrix: write full_matrices=False")
    q, r = xp.qr(a)
    theirs = lax.linalg.qr(jax.numpy.asarray(here(a)), full_matrices=False)[0]
    sides = _sides(q, theirs)
    return [xp.multiply(q, sides), xp.multiply(r, np.swapaxes(sides, -1, -2))]


def lu(xp: Any, a: Any, **_: Any) -> list[Any]:
    """Return L and U in one matrix, LAPACK's exchanges, and the order of the rows."""
    if a.shape[-1] != a.shape[-2]:
        raise UnsaidError("the matrix is not square")
    return list(xp.lu(a))


def lu_pivots_to_permutation(xp: Any, pivots: Any, *, permutation_size: int, **_: Any) -> Any:
    """Return the order that exchanges make."""
    if pivots.shape[-1] != permutation_size:
        raise UnsaidError("the matrix is not square")
    return xp.order_of_exchanges(pivots)


def triangular_solve(
    xp: Any, a: Any, b: Any, *, left_side: bool, lower: bool, transpose_a: bool, unit_diagonal: bool, **_: Any
) -> Any:
    """Return A^-1 b or b A^-1 of a triangle of A, or of its transpose."""
    turned, lower = (xp.matrix_transpose(a), not lower) if transpose_a else (a, lower)
    how = {"lower": lower, "unit_diagonal": unit_diagonal}
    if left_side:
        return xp.solve_triangular(turned, b, **how)
    back = xp.solve_triangular(xp.matrix_transpose(turned), xp.matrix_transpose(b), **how | {"lower": not lower})
    return xp.matrix_transpose(back)


def tridiagonal_solve(xp: Any, low: Any, middle: Any, up: Any, b: Any, *, perturb_singular: bool = False) -> Any:
    """Return the solution of the whole matrix."""
    n = middle.shape[-1]
    if perturb_singular or middle.ndim > 1:
        raise UnsaidError("it is a stack of matrices, or perturbed")
    rows = np.arange(n)
    a = xp.scatter(np.zeros((n, n)), (rows, rows), middle)
    if n > 1:
        a = xp.scatter(a, (rows[1:], rows[:-1]), xp.index(low, slice(1, None)))
        a = xp.scatter(a, (rows[:-1], rows[1:]), xp.index(up, slice(None, -1)))
    return xp.solve(a, b)


def ragged_dot_general(
    xp: Any, x: Any, w: Any, sizes: Any, *, ragged_dot_dimension_numbers: Any, group_offset: Any = None, **_: Any
) -> Any:
    """Return the rows of x, group by group, times the group's own matrix."""
    (summed, _batch) = ragged_dot_dimension_numbers.dot_dimension_numbers
    plain = tuple(map(tuple, summed)) == ((1,), (1,)) and x.ndim == 2 and w.ndim == 3 and group_offset is None
    if not plain:
        raise UnsaidError("its groups stand along other axes")
    ends, parts = np.minimum(np.cumsum([0, *as_read(xp, sizes).tolist()]), x.shape[0]), []
    for group, (start, stop) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
        if stop > start:
            parts.append(xp.matmul(xp.index(x, slice(start, stop)), xp.index(w, group)))
    if ends[-1] < x.shape[0]:
        parts.append(np.zeros((x.shape[0] - int(ends[-1]), w.shape[2])))
    return xp.concat(parts)


def dense(xp: Any, product: Any, shapes: Sequence[tuple[int, ...]]) -> Any:
    """Return the matrix of a linear function: each column is what it makes of a unit vector."""
    count = sum(int(np.prod(shape)) for shape in shapes)
    columns = []
    for k in range(count):
        unit, parts = np.eye(count)[k], []
        for shape in shapes:
            size = int(np.prod(shape))
            parts.append(unit[:size].reshape(shape))
            unit = unit[size:]
        found = [reshaped(xp, each, (int(np.prod(each.shape)),)) for each in product(parts)]
        some = any(isinstance(each, Place) for each in found)
        columns.append(xp.concat(found) if some else np.concatenate(found))
    some = any(isinstance(each, Place) for each in columns)
    return xp.stack(columns, axis=1) if some else np.stack(columns, axis=1)
