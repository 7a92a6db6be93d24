"""The array functions that the referee knows beside those in `formulas.FUNCTIONS`: not every array library has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Formula = Callable[[Any, Any, Any], Any]

# Of x and y as in `formulas.FUNCTIONS`: all > 0.1 and < 2, both (n, 3).
MOVES: Mapping[str, Formula] = {
    "broadcast_arrays": lambda xp, x, y: xp.broadcast_arrays(x[:, :, None], y[:, None, :2])[0] * y[:, :, None],
    "diagonal": lambda xp, x, y: xp.linalg.diagonal(x[:, :, None] * y[:, None, :], offset=1),
    "diff": lambda xp, x, y: xp.diff(x * y, axis=1) * xp.diff(y, axis=-1),
    "empty": lambda xp, x, y: x * y + xp.empty((3,), dtype=x.dtype) * 0,
    "empty_like": lambda xp, x, y: x * y + xp.empty_like(x) * 0,
    "flip": lambda xp, x, y: xp.flip(x, axis=1) * y + xp.flip(y, axis=(1,)),
    "linspace": lambda xp, x, y: x * xp.linspace(0.25, 0.75, 3, dtype=x.dtype) * y,
    "meshgrid": lambda xp, x, y: xp.meshgrid(x[0, :], y[0, :2])[0] * xp.meshgrid(x[0, :], y[0, :2], indexing="xy")[1],
    "moveaxis": lambda xp, x, y: xp.moveaxis(x[:, :, None] * y[:, None, :2], 1, 2),
    "pad": lambda xp, x, y: xp.pad(x * y, ((0, 0), (1, 2))) + xp.pad(x * x, ((0, 0), (2, 1)), mode="reflect"),
    "repeat": lambda xp, x, y: xp.repeat(x * x, 2, axis=1) * xp.repeat(y, 2, axis=1),
    "roll": lambda xp, x, y: xp.roll(x, 1, axis=1) * y,
    "scatter": lambda xp, x, y: xp.scatter(x * x, (slice(None), [2, 0]), y[:, :2] * y[:, 1:]),
    "scatter_add": lambda xp, x, y: xp.scatter_add(x * x, (slice(None), [2, 0, 2]), y * y),
    "take": lambda xp, x, y: xp.take(x * x, xp.asarray([2, 0, 2, 2]), axis=1) * y[:, :1],
    "take_along_axis": lambda xp, x, y: xp.take_along_axis(x * x, xp.asarray([[2, 0, 2, 2]]), axis=1) * y[:, :1],
    "tile": lambda xp, x, y: xp.tile(x * x, (1, 2)) * xp.tile(y, (1, 2)),
    "tril": lambda xp, x, y: xp.tril(x[:, :, None] * y[:, None, :], k=1),
    "triu": lambda xp, x, y: xp.triu(x[:, :, None] * y[:, None, :], k=-1),
    "unstack": lambda xp, x, y: xp.unstack(x * y, axis=1)[1] * xp.unstack(x)[0][0],
}  # fmt: skip
INDICES: Mapping[str, Formula] = {
    "x[:, integers]": lambda xp, x, y: (x * x)[:, [2, 0, 2]] * y,
    "x[integers, integers]": lambda xp, x, y: (x * x)[:, :, None][:, xp.asarray([2, 0, 2]), xp.asarray([0, 0, 0])] * y,
    "x[:, conditions]": lambda xp, x, y: (x * x)[:, xp.asarray([True, False, True])] * y[:, 1:],
    "x[:, ::-1]": lambda xp, x, y: x[:, ::-1] * y,
    "an index from the data": lambda xp, x, y: (x * x)[:, xp.astype(xp.asarray([2.0, 1.0, 1.0]), xp.int64)] * y,
    "concat(axis=None)": lambda xp, x, y: xp.concat([x[0, :], y[0, :] ** 2], axis=None),
    "eye(n, m, k=)": lambda xp, x, y: x @ xp.eye(3, 4, k=1, dtype=x.dtype),
}
REDUCTIONS: Mapping[str, Formula] = {
    "all": lambda xp, x, y: xp.where(xp.all(x > 0.1, axis=1, keepdims=True), x * y, y),
    "any": lambda xp, x, y: xp.where(xp.any(x > 1.4, axis=1, keepdims=True), x * y, y),
    "argmax": lambda xp, x, y: xp.take_along_axis(x * y, xp.argmax(x, axis=1, keepdims=True), axis=1),
    "argmin": lambda xp, x, y: xp.take_along_axis(x * y, xp.argmin(x, axis=1, keepdims=True), axis=1),
    "argsort": lambda xp, x, y: xp.take_along_axis(x * y, xp.argsort(x, axis=1), axis=1),
    "count_nonzero": lambda xp, x, y: x * y * xp.astype(xp.count_nonzero(x > 0.8, axis=1, keepdims=True), x.dtype),
    "cumulative_logsumexp": lambda xp, x, y: xp.cumulative_logsumexp(x * y, axis=1) * y,
    "cumulative_max": lambda xp, x, y: xp.cumulative_max(x * y, axis=1) * y,
    "cumulative_min": lambda xp, x, y: xp.cumulative_min(x * y, axis=1) * y,
    "cumulative_prod": lambda xp, x, y: xp.cumulative_prod(x * y, axis=1),
    "cumulative_sum": lambda xp, x, y: xp.cumulative_sum(x * y, axis=1) + xp.cumulative_sum(y, axis=-1) ** 2,
    "log_softmax": lambda xp, x, y: xp.log_softmax(x * y, axis=1) * y,
    "logical_xor": lambda xp, x, y: xp.where(xp.logical_xor(x > y, x < 1), x * x, y),
    "logsumexp": lambda xp, x, y: xp.logsumexp(x * y, axis=1, keepdims=True) + xp.logsumexp(3 * x, axis=1)[:, None],
    "median": lambda xp, x, y: xp.median(x * y, axis=1) + xp.median((x * y)[:, :2], axis=1),
    "prod": lambda xp, x, y: xp.prod(x * y, axis=1) + xp.prod(x, axis=1, keepdims=True)[:, 0],
    "quantile": lambda xp, x, y: xp.quantile(x * y, 0.3, axis=1),
    "searchsorted": lambda xp, x, y: x * y * xp.searchsorted(xp.asarray([0.5, 0.8, 1.1]), x),
    "softmax": lambda xp, x, y: xp.softmax(x * y, axis=1) * y,
    "sort": lambda xp, x, y: xp.sort(x * y, axis=1) * y + xp.sort(x, axis=-1),
    "std": lambda xp, x, y: xp.std(x * y, axis=1) + xp.std(x, axis=1),
    "stop_gradient": lambda xp, x, y: x * y + 0 * xp.stop_gradient(x),
    "topk": lambda xp, x, y: xp.topk(x * y, 2, axis=1)[0] * y[:, :2],
    "var": lambda xp, x, y: xp.var(x * y, axis=1) + xp.var(x[:, :, None] * y[:, None, :], axis=(1, 2)),
}
AXES: Mapping[str, Formula] = {
    "a correction": lambda xp, x, y: xp.var(x * y, axis=1, correction=1) + xp.std(x, axis=1, correction=1),
    "max over several axes": lambda xp, x, y: xp.max(x[:, :, None] * y[:, None, :], axis=(1, 2)),
    "min over several axes": lambda xp, x, y: xp.min(
        x[:, :, None] * xp.asarray([1.0, 2.0]), axis=(2, 1), keepdims=True
    ),
    "an einsum of diagonals": lambda xp, x, y: xp.einsum("nii,n...->n...", x[:, :, None] * y[:, None, :], y),
    "an implicit einsum": lambda xp, x, y: xp.einsum(
        "...i,ij", x * y, xp.asarray(3 * [[1.0, 2.0, 0.5]], dtype=x.dtype)
    ),
    "an outer einsum": lambda xp, x, y: xp.einsum("ni,nj->nij", x, y),
    "linalg under its name": lambda xp, x, y: (
        xp.linalg.vecdot(x, y) + xp.linalg.matmul(x[:, None, :], y[:, :, None])[:, 0, 0]
    ),
    "a power of the inverse": lambda xp, x, y: xp.linalg.matrix_power(square(xp, x, y), -2),
    "norms of columns": lambda xp, x, y: xp.linalg.matrix_norm(x[:, :, None] * y[:, None, :], ord=1),
    "tensordot of pairs": lambda xp, x, y: xp.tensordot(
        x[:, :, None] * y[:, None, :], xp.eye(3, dtype=x.dtype), axes=([1, 2], [0, 1])
    ),
}
ELEMENTWISE: Mapping[str, Formula] = {
    "acos": lambda xp, x, y: xp.acos(x / 2) * y,
    "acosh": lambda xp, x, y: xp.acosh(x + 1) * y,
    "asin": lambda xp, x, y: xp.asin(x / 2) * y,
    "asinh": lambda xp, x, y: xp.asinh(x * y),
    "atan": lambda xp, x, y: xp.atan(x * y),
    "atanh": lambda xp, x, y: xp.atanh(x / 2) * y,
    "betainc": lambda xp, x, y: xp.betainc(xp.asarray([0.5, 2.0, 3.25], dtype=x.dtype), 1.5, x * y / 4) * y,
    "cbrt": lambda xp, x, y: xp.cbrt(x * y) + xp.cbrt(-x),
    "dawsn": lambda xp, x, y: xp.dawsn(x * y) + xp.dawsn(-3 * x),
    "digamma": lambda xp, x, y: xp.digamma(x * y),
    "erf": lambda xp, x, y: xp.erf(x * y),
    "erfc": lambda xp, x, y: xp.erfc(x * y),
    "erf_inv": lambda xp, x, y: xp.erf_inv(x * y / 3),
    "erfcx": lambda xp, x, y: xp.erfcx(x * y) + xp.erfcx(-x),
    "expi": lambda xp, x, y: xp.expi(x * y) + xp.expi(-x),
    "expint": lambda xp, x, y: xp.expint(xp.asarray([1.0, 2.0, 0.0], dtype=x.dtype), x * y),
    "exp2": lambda xp, x, y: xp.exp2(x * y),
    "i0": lambda xp, x, y: xp.i0(x * y),
    "i0e": lambda xp, x, y: xp.i0e(x * y) + xp.i0e(-3 * x),
    "i1": lambda xp, x, y: xp.i1(x * y),
    "i1e": lambda xp, x, y: xp.i1e(x * y) + xp.i1e(-3 * x),
    "igamma": lambda xp, x, y: xp.igamma(xp.asarray([0.5, 2.0, 3.25], dtype=x.dtype), x * y) * y,
    "igammac": lambda xp, x, y: xp.igammac(xp.asarray([0.5, 2.0, 3.25], dtype=x.dtype), x * y) * y,
    "lgamma": lambda xp, x, y: xp.lgamma(x * y) * x,
    "log10": lambda xp, x, y: xp.log10(x * y),
    "log2": lambda xp, x, y: xp.log2(x * y),
    "rsqrt": lambda xp, x, y: xp.rsqrt(x * y),
    "polygamma": lambda xp, x, y: xp.polygamma(xp.asarray([0.0, 1.0, 2.0], dtype=x.dtype), x * y) * y,
    "sigmoid": lambda xp, x, y: xp.sigmoid(x - 2 * y) + xp.sigmoid(x),
    "sinc": lambda xp, x, y: xp.sinc(x * y) * x,
    "tan": lambda xp, x, y: xp.tan(x / 2) * y,
    "zeta": lambda xp, x, y: xp.zeta(xp.asarray([2.5, 2.0, 6.0], dtype=x.dtype), x * y),
}
MORE: Mapping[str, Formula] = {
    "atan2": lambda xp, x, y: xp.atan2(x - 1, y - 1.25) * x + xp.atan2(y, -4 * x) + xp.atan2(-x, y - 3),
    "ceil": lambda xp, x, y: x * y * xp.ceil(3 * x + 0.2),
    "copysign": lambda xp, x, y: xp.copysign(x * x, y - x) * y,
    "floor": lambda xp, x, y: x * y * xp.floor(3 * x + 0.2),
    "floor_divide": lambda xp, x, y: x * y * xp.floor_divide(3 * x + 0.2, y),
    "finfo": lambda xp, x, y: x * y * (1 + xp.finfo(xp.float32).eps),
    "fmod": lambda xp, x, y: xp.fmod(3 * x + 0.2, y) * y,
    "hypot": lambda xp, x, y: xp.hypot(x, y * y),
    "iinfo": lambda xp, x, y: x * y * xp.iinfo(xp.int8).max,
    "isdtype": lambda xp, x, y: x * y if xp.isdtype(x.dtype, "real floating") else x,
    "isfinite": lambda xp, x, y: xp.where(xp.isfinite(x), x * y, y),
    "isinf": lambda xp, x, y: xp.where(xp.isinf(x), y, x * y),
    "isnan": lambda xp, x, y: xp.where(xp.isnan(x), y, x * y),
    "log_sigmoid": lambda xp, x, y: xp.log_sigmoid(x - 2 * y),
    "reciprocal": lambda xp, x, y: xp.reciprocal(x * y),
    "remainder": lambda xp, x, y: xp.remainder(3 * x + 0.2, y) * y + xp.remainder(-3 * x - 0.2, y),
    "result_type": lambda xp, x, y: x * y * xp.asarray(2.0, dtype=xp.result_type(x, y)),
    "round": lambda xp, x, y: x * y * xp.round(3 * x + 0.2),
    "signbit": lambda xp, x, y: xp.where(xp.signbit(x - y), x * x, y),
    "softplus": lambda xp, x, y: xp.softplus(x - 2 * y),
    "trunc": lambda xp, x, y: x * y * xp.trunc(3 * x + 0.2),
    "xlogy": lambda xp, x, y: xp.xlogy(x, y) + xp.xlogy(xp.asarray([0.0, 1.0, 2.0]), y),
}
PROGRAMS: Mapping[str, Formula] = {
    "avg_pool": lambda xp, x, y: xp.avg_pool(x * y, (2,), stride=1, padding=1),
    "conv": lambda xp, x, y: xp.conv(
        xp.reshape(x, (-1, 1, 3)), xp.asarray([[[1.0, 2.0]], [[0.5, -1.0]]]), padding=[(1, 0)], stride=2
    ),
    "max_pool": lambda xp, x, y: xp.max_pool(x * y, (2,), stride=1, padding=1),
    "windows": lambda xp, x, y: xp.windows(x * y, (2,), stride=1),
}
MATRICES: Mapping[str, Formula] = {
    "cross": lambda xp, x, y: xp.linalg.cross(x * x, y, axis=1),
    "einsum": lambda xp, x, y: xp.einsum("ni,nj,ij->nj", x, y, xp.asarray(3 * [[1.0, 2.0, 0.5]], dtype=x.dtype)),
    "matrix_norm": lambda xp, x, y: xp.linalg.matrix_norm(x[:, :, None] * y[:, None, :]),
    "matrix_power": lambda xp, x, y: xp.linalg.matrix_power(x[:, :, None] * y[:, None, :], 3),
    "outer": lambda xp, x, y: xp.linalg.outer(x[0, :], y[0, :2]),
    "trace": lambda xp, x, y: xp.linalg.trace(x[:, :, None] * y[:, None, :], offset=1),
    "vector_norm": lambda xp, x, y: (
        xp.linalg.vector_norm(x * y, axis=1)
        + xp.linalg.vector_norm(x, axis=1, ord=3)
        + xp.linalg.vector_norm(x, axis=1, ord=float("inf"))
    ),
}


def square(xp: Any, x: Any, y: Any) -> Any:
    """Matrices of which nothing is symmetric, one for each row."""
    return x[:, :, None] * y[:, None, :] ** 2 + 2 * xp.asarray(np.roll(np.eye(3), 1, axis=0), dtype=x.dtype)


def definite(xp: Any, x: Any, y: Any) -> Any:
    """Positive definite matrices, one for each row, of x y^T + y x^T and 4 more on the diagonal."""
    product = x[:, :, None] * y[:, None, :]
    return product + xp.matrix_transpose(product) + 4 * xp.eye(3, dtype=x.dtype)


def tall(xp: Any, x: Any, y: Any) -> Any:
    """Matrices of four rows and three columns."""
    return xp.concat([square(xp, x, y), (x * y)[:, None, :]], axis=1)


SYSTEMS: dict[str, Formula] = {
    "cholesky": lambda xp, x, y: xp.linalg.cholesky(definite(xp, x, y)) * x[:, :, None],
    "eigh": lambda xp, x, y: (
        xp.linalg.eigh(definite(xp, x, y))[1] * x[:, :, None] + xp.linalg.eigh(definite(xp, x, y))[0][:, None, :]
    ),
    "eigvalsh": lambda xp, x, y: xp.linalg.eigvalsh(definite(xp, x, y)) * x,
    "lu": lambda xp, x, y: xp.lu(square(xp, x, y))[0] * x[:, :, None],
    "qr": lambda xp, x, y: (
        xp.linalg.qr(tall(xp, x, y))[0] * y[:, None, :] + xp.sum(xp.linalg.qr(tall(xp, x, y))[1], axis=1)[:, None, :]
    ),
    "solve_triangular": lambda xp, x, y: (
        xp.solve_triangular(square(xp, x, y), xp.stack([x, y * y], axis=-1), lower=True)
        + xp.solve_triangular(square(xp, y, x), xp.stack([x, y * y], axis=-1), unit_diagonal=True)
    ),
    "det": lambda xp, x, y: xp.linalg.det(square(xp, x, y)) * x[:, 0],
    "inv": lambda xp, x, y: xp.linalg.inv(square(xp, x, y)),
    "slogdet": lambda xp, x, y: xp.linalg.slogdet(square(xp, x, y))[1] * x[:, 0],
    "solve": lambda xp, x, y: xp.linalg.solve(square(xp, x, y), xp.stack([x, y * y], axis=-1)),
    "svd": lambda xp, x, y: (  # whatever the signs of the vectors are
        xp.linalg.svd(tall(xp, x, y), full_matrices=False)[0] ** 2 @ y[:, :, None]
        + xp.sum(xp.linalg.svd(tall(xp, x, y), full_matrices=False)[2] ** 2 * x[:, :, None], axis=1)[:, None, :]
    ),
    "svdvals": lambda xp, x, y: xp.linalg.svdvals(tall(xp, x, y)) * x + xp.linalg.svdvals(square(xp, x, y)),
}
VOCABULARY: Mapping[str, Formula] = {
    **MOVES,
    **REDUCTIONS,
    **ELEMENTWISE,
    **MORE,
    **PROGRAMS,
    **MATRICES,
    **SYSTEMS,
}
