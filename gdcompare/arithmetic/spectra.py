"""Eigenvalues of symmetric matrices and singular values, with their vectors, each beside its derivative.

    A = V diag(w) V^T     dw = diag(V^T dA V),  dV = V (F . V^T dA V),   F_ij = 1 / (w_j - w_i), 0 on the diagonal
    A = U diag(s) V^T     ds = diag(U^T dA V)

Where two values are equal, their vectors have no derivative. Signs of vectors are LAPACK's.
"""

from __future__ import annotations

from typing import Any

from gdcompare.arithmetic.decompositions import eigen, reciprocal_gaps, singular
from gdcompare.arithmetic.elimination import refuse_unless_square, turned


def eigh(xp: Any, x: Any) -> tuple[Any, Any]:
    """Return eigenvalues in ascending order, and their vectors as columns, of (A + A^T) / 2."""
    x, numbers, times = xp.asarray(x), xp.numbers, xp.numbers.chain
    refuse_unless_square(x)
    a = xp.multiply(xp.add(x, xp.matrix_transpose(x)), 0.5)
    values, vectors = eigen(numbers, a.value)
    back = turned(numbers, vectors)

    def by_values(g: Any) -> Any:
        return times(vectors, g[..., None, :]) @ back

    def by_vectors(g: Any) -> Any:
        return vectors @ times(back @ g, reciprocal_gaps(numbers, values)) @ back

    return xp.record(values, (a, by_values)), xp.record(vectors, (a, by_vectors))


def eigvalsh(xp: Any, x: Any) -> Any:
    """The eigenvalues of symmetric matrices, in ascending order."""
    return eigh(xp, x)[0]


def svd(xp: Any, x: Any, *, full_matrices: bool = True) -> tuple[Any, Any, Any]:
    """Return U, the singular values in descending order, and V^T; of matrices that are not square the reduced ones.

    With F_ij = 1 / (s_j^2 - s_i^2), X = U^T g_U and Y = V^T g_V, from right to left:

        dA = U ((F . (X - X^T)) S + S (F . (Y - Y^T)) + g_s) V^T + (1 - U U^T) g_U / S V^T + U / S g_V^T (1 - V V^T)
    """
    x, numbers, times = xp.asarray(x), xp.numbers, xp.numbers.chain
    m, n = x.shape[-2:]
    if full_matrices and m != n:
        raise TypeError(f"the referee has the reduced svd of {x.shape}: write full_matrices=False")
    u, s, v = singular(numbers, x.value)
    ut, vt = turned(numbers, u), turned(numbers, v)
    row, column = s[..., None, :], s[..., :, None]

    def apart(product: Any) -> Any:
        return times(product - turned(numbers, product), reciprocal_gaps(numbers, s * s))

    def by_u(g: Any) -> Any:
        inside = u @ (apart(ut @ g) * row)
        return (inside if m <= n else inside + (g - u @ (ut @ g)) / row) @ vt

    def by_v(g: Any) -> Any:
        inside = (column * apart(vt @ g)) @ vt
        return u @ (inside if n <= m else inside + turned(numbers, (g - v @ (vt @ g)) / row))

    return (
        xp.record(u, (x, by_u)),
        xp.record(s, (x, lambda g: times(u, g[..., None, :]) @ vt)),
        xp.matrix_transpose(xp.record(v, (x, by_v))),
    )


def svdvals(xp: Any, x: Any) -> Any:
    """The singular values, in descending order."""
    return svd(xp, x, full_matrices=False)[1]
