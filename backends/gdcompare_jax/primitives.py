"""Each primitive of JAX as a formula in the tape's vocabulary: `formula(xp, *operands, **its parameters)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jax import lax

from gdcompare.arithmetic.program import Place, UnsaidError

LARGE = float(np.finfo(np.float32).max)
"""Around what is pooled: beyond all of it, and finite."""


def _named(name: str) -> Callable[..., Any]:
    return lambda xp, *operands, **_: getattr(xp, name)(*operands)


def _logical(name: str, *operands: Any) -> Any:
    if any(np.dtype(each.dtype).kind != "b" for each in operands):
        raise UnsaidError(f"{name} of the bits of whole numbers")


def _unequal(xp: Any, a: Any, b: Any) -> Any:
    """Whether they differ; of one and the same number, it asks for NaN, and there is none."""
    return xp.zeros(tuple(a.shape)) if a is b else xp.not_equal(a, b)


def _and(xp: Any, a: Any, b: Any) -> Any:
    _logical("and", a, b)
    return xp.logical_and(a, b)


def _or(xp: Any, a: Any, b: Any) -> Any:
    _logical("or", a, b)
    return xp.logical_or(a, b)


def _not(xp: Any, a: Any) -> Any:
    _logical("not", a)
    return xp.logical_not(a)


def _dot_general(xp: Any, a: Any, b: Any, *, dimension_numbers: Any, **_: Any) -> Any:
    """Sum over the contracted axes; the result has the batch axes, then those of a, then those of b."""
    (summed_a, summed_b), (batch_a, batch_b) = dimension_numbers
    free_a = [i for i in range(a.ndim) if i not in (*summed_a, *batch_a)]
    free_b = [i for i in range(b.ndim) if i not in (*summed_b, *batch_b)]
    k = math.prod(a.shape[i] for i in summed_a)
    batch, rows, columns = (tuple(x.shape[i] for i in axes) for x, axes in ((a, batch_a), (a, free_a), (b, free_b)))
    left = _reshaped(xp, _permuted(xp, a, (*batch_a, *free_a, *summed_a)), (*batch, math.prod(rows), k))
    right = _reshaped(xp, _permuted(xp, b, (*batch_b, *summed_b, *free_b)), (*batch, k, math.prod(columns)))
    return _reshaped(xp, xp.matmul(left, right), (*batch, *rows, *columns))


def _permuted(xp: Any, x: Any, axes: Sequence[int]) -> Any:
    return x if tuple(axes) == tuple(range(x.ndim)) else xp.permute_dims(x, tuple(axes))


def _reshaped(xp: Any, x: Any, shape: Sequence[int]) -> Any:
    return x if tuple(x.shape) == tuple(shape) else xp.reshape(x, tuple(map(int, shape)))


def _broadcast_in_dim(
    xp: Any, x: Any, *_shape: Any, shape: Sequence[int], broadcast_dimensions: Sequence[int], **_: Any
) -> Any:
    lengths = [1] * len(shape)
    for i, axis in enumerate(broadcast_dimensions):
        lengths[axis] = x.shape[i]
    x = _reshaped(xp, x, lengths)
    return x if tuple(x.shape) == tuple(shape) else xp.broadcast_to(x, tuple(map(int, shape)))


def _reshape(xp: Any, x: Any, *, new_sizes: Sequence[int], dimensions: Any = None, **_: Any) -> Any:
    return _reshaped(xp, x if dimensions is None else _permuted(xp, x, dimensions), new_sizes)


def _squeeze(xp: Any, x: Any, *, dimensions: Sequence[int]) -> Any:
    return _reshaped(xp, x, [length for i, length in enumerate(x.shape) if i not in dimensions])


def _expand_dims(xp: Any, x: Any, *, dimensions: Sequence[int]) -> Any:
    lengths = iter(x.shape)
    return _reshaped(xp, x, [1 if i in dimensions else next(lengths) for i in range(x.ndim + len(dimensions))])


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


def _convert_element_type(xp: Any, x: Any, *, new_dtype: Any, **_: Any) -> Any:
    old, new = np.dtype(x.dtype).kind, np.dtype(new_dtype).kind
    if new == "b":
        return x if old == "b" else xp.not_equal(x, 0)
    if new in "iu" and old == "f":
        return xp.astype(x, np.int64)
    return x


def _extreme(name: str) -> Callable[..., Any]:
    """Return the largest or the smallest over several axes."""

    def formula(xp: Any, x: Any, *, axes: Sequence[int], **_: Any) -> Any:
        kept = [i for i in range(x.ndim) if i not in axes]
        flat = _reshaped(
            xp, _permuted(xp, x, (*kept, *axes)), [*(x.shape[i] for i in kept), math.prod(x.shape[i] for i in axes)]
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
    return _permuted(xp, x, permutation)


# Moves: where each number comes from is what the primitive makes of the numbers' own places.


def _moved(primitive: Any) -> Callable[..., Any]:
    """Return the formula of a primitive whose operands are arrays, and indices that no input enters."""

    def formula(xp: Any, *operands: Any, **params: Any) -> Any:
        moved, start, parts = [], 0, []
        for i, each in enumerate(operands):
            if i in _INDICES.get(primitive.name, range(1, len(operands))):
                if isinstance(each, Place):
                    raise UnsaidError("the indices depend on the data")
                moved.append(each)
                continue
            size = math.prod(each.shape)
            moved.append(np.arange(start, start + size, dtype=np.int32).reshape(each.shape))
            parts.append(_reshaped(xp, each, (size,)))
            start += size
        places = np.asarray(primitive.bind(*moved, **params))
        flat = parts[0] if len(parts) == 1 else xp.concat(parts)
        return xp.reshape(xp.take(flat, places.ravel(), axis=0), places.shape)

    return formula


_INDICES = {"scatter": (1,), "dynamic_update_slice": range(2, 32)}
"""Which operands are indices; all but the first, if nothing is said."""


def _gather(xp: Any, x: Any, indices: Any, *, dimension_numbers: Any, slice_sizes: Sequence[int], **_: Any) -> Any:
    """Take slices of x; the index of each says where it begins, and it never leaves x."""
    numbers = dimension_numbers
    strides = [math.prod(x.shape[i + 1 :]) for i in range(x.ndim)]
    batch = tuple(indices.shape[:-1])
    offset = [i for i in range(x.ndim) if i not in (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)]
    ndim = len(batch) + len(offset)
    batch_axes = [i for i in range(ndim) if i not in numbers.offset_dims]
    fixed: Any = np.zeros((1,) * ndim, dtype=np.int64)
    for axis, i in zip(numbers.offset_dims, offset, strict=True):
        fixed = fixed + _along(np.arange(slice_sizes[i]) * strides[i], [axis], ndim)
    for i, k in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        fixed = fixed + _along(np.arange(x.shape[i]) * strides[i], [batch_axes[k]], ndim)
    places = fixed
    for k, i in enumerate(numbers.start_index_map):
        start, most = indices[..., k], x.shape[i] - slice_sizes[i]
        start = xp.clip(start, 0, most) if isinstance(start, Place) else np.clip(start, 0, most)
        shape = [1] * ndim
        for axis, length in zip(batch_axes, batch, strict=True):
            shape[axis] = length
        start = _reshaped(xp, start, shape) if isinstance(start, Place) else start.reshape(shape)
        places = places + start * strides[i]
    shape = [1] * ndim
    for axis, length in zip(batch_axes, batch, strict=True):
        shape[axis] = length
    for axis, i in zip(numbers.offset_dims, offset, strict=True):
        shape[axis] = slice_sizes[i]
    flat = _reshaped(xp, x, (math.prod(x.shape),))
    if not isinstance(places, Place):
        return xp.reshape(xp.take(flat, np.broadcast_to(places, shape).ravel(), axis=0), tuple(shape))
    every = xp.reshape(xp.broadcast_to(places, tuple(shape)), (math.prod(shape),))
    return xp.reshape(xp.take(flat, every, axis=0), tuple(shape))


def _along(values: Any, axes: Sequence[int], ndim: int) -> Any:
    return values.reshape(tuple(-1 if i in axes else 1 for i in range(ndim)))


def _sort(xp: Any, *operands: Any, dimension: int, num_keys: int, **_: Any) -> list[Any]:
    if num_keys > 1:
        raise UnsaidError("it sorts by several keys")
    if len(operands) == 1:
        return [xp.sort(operands[0], axis=dimension)]
    order = xp.argsort(operands[0], axis=dimension)
    return [xp.take_along_axis(each, order, axis=dimension) for each in operands]


def _pad(xp: Any, x: Any, value: Any, *, padding_config: Any) -> Any:
    if any(inner or before < 0 or after < 0 for before, after, inner in padding_config):
        raise UnsaidError("it pads between, or cuts")
    return xp.pad(x, tuple((before, after) for before, after, _ in padding_config), constant_values=value)


def _cumulative(name: str) -> Callable[..., Any]:
    def formula(xp: Any, x: Any, *, axis: int, reverse: bool) -> Any:
        turned = xp.flip(x, axis=axis) if reverse else x
        found = getattr(xp, name)(turned, axis=axis)
        return xp.flip(found, axis=axis) if reverse else found

    return formula


def _reduce_window(name: str, empty: float) -> Callable[..., Any]:
    def formula(
        xp: Any, x: Any, *, window_dimensions: Any, window_strides: Any, padding: Any, base_dilation: Any,
        window_dilation: Any, **_: Any,
    ) -> Any:  # fmt: skip
        if any(each != 1 for each in base_dilation):
            raise UnsaidError("its base is dilated")
        how = {"stride": window_strides, "padding": padding, "dilation": window_dilation, "fill": empty}
        return getattr(xp, name)(xp.windows(x, window_dimensions, **how), axis=-1)

    return formula


def _conv(
    xp: Any, x: Any, kernel: Any, *, window_strides: Any, padding: Any, lhs_dilation: Any, rhs_dilation: Any,
    dimension_numbers: Any, feature_group_count: int, batch_group_count: int, **_: Any,
) -> Any:  # fmt: skip
    if batch_group_count != 1:
        raise UnsaidError("it groups the batch")
    of_x, of_kernel, of_result = dimension_numbers
    found = xp.conv(
        _permuted(xp, x, of_x), _permuted(xp, kernel, of_kernel), stride=window_strides, padding=padding,
        dilation=rhs_dilation, spread=lhs_dilation, groups=feature_group_count,
    )  # fmt: skip
    return _permuted(xp, found, np.argsort(of_result).tolist())


def _argument(name: str) -> Callable[..., Any]:
    return lambda xp, x, *, axes, **_: getattr(xp, name)(x, axis=axes[0])


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
            "le": "less_equal", "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan", "atan2": "atan2",
            "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "erf": "erf", "erfc": "erfc",
            "lgamma": "lgamma", "digamma": "digamma", "floor": "floor", "ceil": "ceil", "rem": "fmod",
            "gt": "greater", "ge": "greater_equal", "stop_gradient": "stop_gradient",
        }.items()
    },
    "ne": _unequal,
    "and": _and,
    "or": _or,
    "not": _not,
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
    "gather": _gather,
    "conv_general_dilated": _conv,
    "rev": _moved(lax.rev_p),
    "dynamic_slice": _moved(lax.dynamic_slice_p),
    "dynamic_update_slice": _moved(lax.dynamic_update_slice_p),
    "scatter": _moved(lax.scatter_p),
    "pad": _pad,
    "sort": _sort,
    "cumsum": _cumulative("cumulative_sum"),
    "cumprod": _cumulative("cumulative_prod"),
    "argmax": _argument("argmax"),
    "argmin": _argument("argmin"),
    "reduce_and": lambda xp, x, *, axes, **_: xp.all(x, axis=tuple(axes)),
    "reduce_or": lambda xp, x, *, axes, **_: xp.any(x, axis=tuple(axes)),
    "reduce_prod": lambda xp, x, *, axes, **_: xp.prod(x, axis=tuple(axes)),
    "reduce_window_max": _reduce_window("max", -LARGE),
    "reduce_window_min": _reduce_window("min", LARGE),
    "reduce_window_sum": _reduce_window("sum", 0.0),
    "is_finite": lambda xp, x: xp.isfinite(x),
    "exp2": lambda xp, x, **_: xp.pow(2.0, x),
    "log2": lambda xp, x, **_: xp.log2(x),
    "cbrt": lambda xp, x, **_: xp.cbrt(x),
    "copy": _same,
    "copy_p": _same,
    "optimization_barrier": _same,
}  # fmt: skip

MOVES = {
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "split", "concatenate", "copy",
    "copy_p", "convert_element_type", "select_n", "rev", "pad", "gather", "dynamic_slice",
}  # fmt: skip
"""What only moves numbers, or chooses between them."""
