"""Each primitive of JAX as a formula in the tape's vocabulary: `formula(xp, *operands, **its parameters)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

import gdcompare.arithmetic.reflection as reflection
from gdcompare.arithmetic.precision import NARROW
from gdcompare.arithmetic.program import UnsaidError
from gdcompare.arithmetic.whole import as_read
from gdcompare_jax import algebra, moves
from gdcompare_jax.moves import permuted, reshaped


def _named(name: str) -> Callable[..., Any]:
    return lambda xp, *operands, **_: getattr(xp, name)(*operands)


def _bits(name: str) -> Callable[..., Any]:
    """Return a function of conditions; the bits of whole numbers are as they are where the program is read."""

    def formula(xp: Any, *operands: Any) -> Any:
        if any(np.dtype(each.dtype).kind != "b" for each in operands):
            return getattr(np, f"bitwise_{name}")(*(as_read(xp, each) for each in operands))
        return getattr(xp, f"logical_{name}")(*operands)

    return formula


def _unequal(xp: Any, a: Any, b: Any) -> Any:
    """Whether they differ; of one and the same number, it asks for NaN."""
    if a is not b:
        return xp.not_equal(a, b)
    return xp.isnan(a) if np.isnan(a.value).any() else xp.zeros(tuple(a.shape))


def _dot_general(xp: Any, a: Any, b: Any, *, dimension_numbers: Any, **_: Any) -> Any:
    """Sum over the contracted axes; the result has the batch axes, then those of a, then those of b."""
    (summed_a, summed_b), (batch_a, batch_b) = dimension_numbers
    free_a = [i for i in range(a.ndim) if i not in (*summed_a, *batch_a)]
    free_b = [i for i in range(b.ndim) if i not in (*summed_b, *batch_b)]
    k = math.prod(a.shape[i] for i in summed_a)
    batch, rows, columns = (tuple(x.shape[i] for i in axes) for x, axes in ((a, batch_a), (a, free_a), (b, free_b)))
    left = reshaped(xp, permuted(xp, a, (*batch_a, *free_a, *summed_a)), (*batch, math.prod(rows), k))
    right = reshaped(xp, permuted(xp, b, (*batch_b, *summed_b, *free_b)), (*batch, k, math.prod(columns)))
    return reshaped(xp, xp.matmul(left, right), (*batch, *rows, *columns))


def _broadcast_in_dim(
    xp: Any, x: Any, *_shape: Any, shape: Sequence[int], broadcast_dimensions: Sequence[int], **_: Any
) -> Any:
    lengths = [1] * len(shape)
    for i, axis in enumerate(broadcast_dimensions):
        lengths[axis] = x.shape[i]
    x = reshaped(xp, x, lengths)
    return x if tuple(x.shape) == tuple(shape) else xp.broadcast_to(x, tuple(map(int, shape)))


def _reshape(xp: Any, x: Any, *, new_sizes: Sequence[int], dimensions: Any = None, **_: Any) -> Any:
    return reshaped(xp, x if dimensions is None else permuted(xp, x, dimensions), new_sizes)


def _squeeze(xp: Any, x: Any, *, dimensions: Sequence[int]) -> Any:
    return reshaped(xp, x, [length for i, length in enumerate(x.shape) if i not in dimensions])


def _expand_dims(xp: Any, x: Any, *, dimensions: Sequence[int]) -> Any:
    lengths = iter(x.shape)
    return reshaped(xp, x, [1 if i in dimensions else next(lengths) for i in range(x.ndim + len(dimensions))])


def _slice(xp: Any, x: Any, *, start_indices: Any, limit_indices: Any, strides: Any) -> Any:
    steps = strides or (1,) * x.ndim
    return xp.index(x, tuple(map(slice, start_indices, limit_indices, steps)))


def _split(xp: Any, x: Any, *, sizes: Sequence[int], axis: int) -> list[Any]:
    ends = np.cumsum([0, *sizes])
    return [xp.index(x, (*[slice(None)] * axis, slice(int(a), int(b)))) for a, b in pairwise(ends)]


def _select_n(xp: Any, which: Any, *cases: Any) -> Any:
    if len(cases) == 1:
        return cases[0]
    if np.dtype(which.dtype).kind == "b":
        return xp.where(which, cases[1], cases[0])
    chosen = cases[-1]
    for i in range(len(cases) - 1)[::-1]:
        chosen = xp.where(xp.equal(which, i), cases[i], chosen)
    return chosen


def _kind(dtype: Any) -> str:
    """Return "f" of any float, also of those that NumPy has not."""
    return "f" if str(dtype) in NARROW else np.dtype(dtype).kind


def _convert_element_type(xp: Any, x: Any, *, new_dtype: Any, **_: Any) -> Any:
    old, new = _kind(x.dtype), _kind(new_dtype)
    if new == "b":
        return x if old == "b" else xp.not_equal(x, 0)
    if new in "iu" and old == "f":
        return xp.astype(x, np.int64)
    return x


def _extreme(name: str) -> Callable[..., Any]:
    """Return the largest or the smallest over several axes."""

    def formula(xp: Any, x: Any, *, axes: Sequence[int], **_: Any) -> Any:
        kept = [i for i in range(x.ndim) if i not in axes]
        flat = reshaped(
            xp, permuted(xp, x, (*kept, *axes)), [*(x.shape[i] for i in kept), math.prod(x.shape[i] for i in axes)]
        )
        return getattr(xp, name)(flat, axis=len(kept))

    return formula


def _reduce_sum(xp: Any, x: Any, *, axes: Sequence[int], **_: Any) -> Any:
    return xp.sum(x, axis=tuple(axes)) if axes else x


def _integer_pow(xp: Any, x: Any, *, y: int) -> Any:
    return xp.multiply(x, x) if y == 2 else xp.pow(x, float(y))


def _clamp(xp: Any, least: Any, x: Any, most: Any) -> Any:
    return xp.clip(x, least, most)


def _concatenate(xp: Any, *parts: Any, dimension: int) -> Any:
    return xp.concat(list(parts), axis=dimension)


def _transpose(xp: Any, x: Any, *, permutation: Sequence[int]) -> Any:
    return permuted(xp, x, permutation)


def _cumulative(name: str) -> Callable[..., Any]:
    def formula(xp: Any, x: Any, *, axis: int, reverse: bool) -> Any:
        turned = xp.flip(x, axis=axis) if reverse else x
        found = getattr(xp, name)(turned, axis=axis)
        return xp.flip(found, axis=axis) if reverse else found

    return formula


def _conv(
    xp: Any, x: Any, kernel: Any, *, window_strides: Any, padding: Any, lhs_dilation: Any, rhs_dilation: Any,
    dimension_numbers: Any, feature_group_count: int, batch_group_count: int, **_: Any,
) -> Any:  # fmt: skip
    of_x, of_kernel, of_result = dimension_numbers
    x, kernel = permuted(xp, x, of_x), permuted(xp, kernel, of_kernel)
    how = {"stride": window_strides, "padding": padding, "dilation": rhs_dilation, "spread": lhs_dilation}
    if batch_group_count == 1:
        found = xp.conv(x, kernel, **how, groups=feature_group_count)
    else:  # each part of the batch has its part of the kernels
        rows, outputs = x.shape[0] // batch_group_count, kernel.shape[0] // batch_group_count
        found = xp.concat(
            [
                xp.conv(
                    xp.index(x, slice(k * rows, (k + 1) * rows)),
                    xp.index(kernel, slice(k * outputs, (k + 1) * outputs)),
                    **how,
                )
                for k in range(batch_group_count)
            ],
            axis=1,
        )
    return permuted(xp, found, np.argsort(of_result).tolist())


def _round(xp: Any, x: Any, *, rounding_method: Any) -> Any:
    """To the even one of two, or away from 0."""
    if int(rounding_method) == 1:
        return xp.round(x)
    return xp.where(xp.less(x, 0.0), xp.negative(xp.floor(xp.subtract(0.5, x))), xp.floor(xp.add(x, 0.5)))


def _reduce_precision(xp: Any, x: Any, *, exponent_bits: int, mantissa_bits: int) -> Any:
    del xp
    own = np.finfo(np.dtype(x.dtype))
    if exponent_bits < own.nexp or mantissa_bits < own.nmant:
        raise UnsaidError(f"it rounds to {mantissa_bits} bits, which are less than those of {x.dtype}")
    return x


def _all(_xp: Any, *operands: Any, **_: Any) -> list[Any]:
    return list(operands)


def _approximate(*_: Any, **__: Any) -> Any:
    raise UnsaidError("it is approximate by design: write lax.top_k")


def _argument(name: str) -> Callable[..., Any]:
    return lambda xp, x, *, axes, **_: getattr(xp, name)(x, axis=int(axes[0]))


def _same(xp: Any, *operands: Any, **_: Any) -> Any:
    del xp
    return operands[0] if len(operands) == 1 else list(operands)


FORMULAS: dict[str, Callable[..., Any]] = {
    **{
        primitive: _named(name)
        for primitive, name in {
            "add": "add", "add_any": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative",
            "pow": "pow", "max": "maximum", "min": "minimum", "abs": "abs", "sign": "sign", "square": "square",
            "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "sqrt": "sqrt", "sin": "sin", "cos": "cos",
            "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "eq": "equal", "lt": "less",
            "le": "less_equal", "eq_to": "equal", "lt_to": "less", "le_to": "less_equal", "tan": "tan",
            "asin": "asin", "acos": "acos", "atan": "atan", "atan2": "atan2",
            "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "erf": "erf", "erfc": "erfc",
            "erf_inv": "erf_inv", "bessel_i0e": "i0e",
            "bessel_i1e": "i1e", "zeta": "zeta", "igamma": "igamma", "igammac": "igammac",
            "floor": "floor", "ceil": "ceil", "rem": "fmod",
            "gt": "greater", "ge": "greater_equal", "stop_gradient": "stop_gradient",
        }.items()
    },
    "lgamma": lambda xp, x, **_: reflection.lgamma(xp, x),
    "digamma": lambda xp, x, **_: reflection.digamma(xp, x),
    "polygamma": lambda xp, n, x, **_: reflection.polygamma(xp, n, x),
    "regularized_incomplete_beta": lambda xp, a, b, x, **_: xp.betainc(a, b, x),
    "ne": _unequal,
    "and": _bits("and"),
    "or": _bits("or"),
    "not": _bits("not"),
    "rsqrt": lambda xp, x, **_: 1.0 / xp.sqrt(x),
    "logistic": lambda xp, x, **_: xp.sigmoid(x),
    "integer_pow": _integer_pow,
    "clamp": _clamp,
    "select_n": _select_n,
    "convert_element_type": _convert_element_type,
    "dot_general": _dot_general,
    "reduce_sum": _reduce_sum,
    "reduce_max": _extreme("max"),
    "reduce_min": _extreme("min"),
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "expand_dims": _expand_dims,
    "transpose": _transpose,
    "slice": _slice,
    "split": _split,
    "concatenate": _concatenate,
    "gather": moves.gather,
    "conv_general_dilated": _conv,
    "rev": moves.rev,
    "tile": moves.tile,
    "dynamic_slice": moves.dynamic_slice,
    "dynamic_update_slice": moves.dynamic_update_slice,
    "scatter": moves.scatter,
    "scatter-add": moves.scatter_add(1.0),
    "scatter-sub": moves.scatter_add(-1.0),
    "scatter-mul": moves.scatter_by("multiply"),
    "scatter-max": moves.scatter_by("maximum"),
    "scatter-min": moves.scatter_by("minimum"),
    "pad": moves.pad,
    "sort": moves.sort,
    "top_k": moves.top_k,
    "approx_top_k": _approximate,
    "stack": lambda xp, *parts, axis: xp.stack(list(parts), axis=axis),
    "unstack": lambda xp, x, *, axis: list(xp.unstack(x, axis=axis)),
    "cummax": _cumulative("cumulative_max"),
    "cummin": _cumulative("cumulative_min"),
    "cumlogsumexp": _cumulative("cumulative_logsumexp"),
    "cumsum": _cumulative("cumulative_sum"),
    "cumprod": _cumulative("cumulative_prod"),
    "argmax": _argument("argmax"),
    "argmin": _argument("argmin"),
    "reduce_and": lambda xp, x, *, axes, **_: xp.all(x, axis=tuple(axes)),
    "reduce_or": lambda xp, x, *, axes, **_: xp.any(x, axis=tuple(axes)),
    "reduce_prod": lambda xp, x, *, axes, **_: xp.prod(x, axis=tuple(axes)),
    "reduce_window_max": moves.reduce_window("max", -moves.LEAST),
    "reduce_window_min": moves.reduce_window("min", moves.LEAST),
    "reduce_window_sum": moves.reduce_window("sum", 0.0),
    "select_and_scatter_add": moves.select_and_scatter_add,
    "select_and_gather_add": moves.select_and_gather_add,
    "cholesky": algebra.cholesky,
    "eigh": algebra.eigh,
    "svd": algebra.svd,
    "qr": algebra.qr,
    "lu": algebra.lu,
    "lu_pivots_to_permutation": algebra.lu_pivots_to_permutation,
    "triangular_solve": algebra.triangular_solve,
    "tridiagonal_solve": algebra.tridiagonal_solve,
    "ragged_dot_general": algebra.ragged_dot_general,
    "round": _round,
    "reduce_precision": _reduce_precision,
    "xor": _bits("xor"),
    "is_finite": lambda xp, x: xp.isfinite(x),
    "exp2": lambda xp, x, **_: xp.exp2(x),  # by exp(x log 2), which rounds the exponent
    "log2": lambda xp, x, **_: xp.log2(x),
    "cbrt": lambda xp, x, **_: xp.cbrt(x),
    "copy": _same,
    "copy_p": _same,
    "name": lambda _xp, x, **_: x,
    "device_put": _all,
    "optimization_barrier": _all,
}  # fmt: skip

MOVES = {
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "split", "concatenate", "copy",
    "copy_p", "convert_element_type", "select_n", "rev", "pad", "gather", "dynamic_slice",
    "dynamic_update_slice", "scatter", "tile", "stack", "unstack", "device_put", "optimization_barrier", "name",
}  # fmt: skip
"""What only moves numbers, or chooses between them."""
