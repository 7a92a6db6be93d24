"""Each ATen operation as a formula in the tape's vocabulary: `formula(xp, *its arguments)`.

What is missing here and has a decomposition in torch is taken apart by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gdcompare.arithmetic.program import UnsaidError
from gdcompare_torch import moves
from gdcompare_torch.elementwise import ELEMENTWISE
from gdcompare_torch.matrices import MATRICES
from gdcompare_torch.orders import ORDERS
from gdcompare_torch.pooling import POOLING
from gdcompare_torch.writes import WRITES


def _named(name: str) -> Callable[..., Any]:
    return lambda xp, *operands: getattr(xp, name)(*operands)


def _add(xp: Any, a: Any, b: Any, *, alpha: float = 1) -> Any:
    return xp.add(a, b if alpha == 1 else xp.multiply(b, alpha))


def _sub(xp: Any, a: Any, b: Any, *, alpha: float = 1) -> Any:
    return xp.subtract(a, b if alpha == 1 else xp.multiply(b, alpha))


def _rsub(xp: Any, a: Any, b: Any, alpha: float = 1) -> Any:
    return _sub(xp, b, a, alpha=alpha)


def _div(xp: Any, a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is None:
        return xp.divide(a, b)
    return xp.floor_divide(a, b) if rounding_mode == "floor" else xp.trunc(xp.divide(a, b))


def _pow(xp: Any, a: Any, b: Any) -> Any:
    known = {0.5: xp.sqrt, 1.0: xp.positive, 2.0: xp.square} if isinstance(b, int | float) else {}
    return known[float(b)](a) if known and float(b) in known else xp.pow(a, b)


def _equal(xp: Any, a: Any, b: Any) -> Any:
    """Whether they are equal; what is infinite stays so all around."""
    return xp.equal(xp.stop_gradient(a) if isinstance(b, float) and math.isinf(b) else a, b)


def _unequal(xp: Any, a: Any, b: Any) -> Any:
    """Whether they differ; of one and the same number, it asks for NaN, and there is none."""
    return xp.zeros(tuple(a.shape)) if a is b else xp.not_equal(a, b)


def _clamp(xp: Any, x: Any, min: Any = None, max: Any = None) -> Any:  # noqa: A002 - torch's names
    return xp.clip(x, min, max)


def _addmm(xp: Any, c: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    product = xp.matmul(a, b)
    return xp.add(c if beta == 1 else xp.multiply(c, beta), product if alpha == 1 else xp.multiply(product, alpha))


# Sums.


def _axes(x: Any, dim: Any) -> tuple[int, ...]:
    dims = range(x.ndim) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    return tuple(i % x.ndim for i in dims) if x.ndim else ()


def _sum(xp: Any, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    del dtype
    axes = _axes(x, dim)
    return xp.sum(x, axis=axes, keepdims=keepdim) if axes else x


def _mean(xp: Any, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    del dtype
    axes = _axes(x, dim)
    return xp.mean(x, axis=axes, keepdims=keepdim) if axes else x


def _extreme(name: str) -> Callable[..., Any]:
    def formula(xp: Any, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        axes = _axes(x, dim)
        kept = [i for i in range(x.ndim) if i not in axes]
        moved = xp.permute_dims(x, (*kept, *axes)) if x.ndim > 1 else x
        flat = moves.reshaped(xp, moved, (*(x.shape[i] for i in kept), math.prod(x.shape[i] for i in axes)))
        top = getattr(xp, name)(flat, axis=len(kept))
        return moves.reshaped(xp, top, [1 if i in axes else n for i, n in enumerate(x.shape)]) if keepdim else top

    return formula


def _of_dim(name: str) -> Callable[..., Any]:
    """Return the extreme along an axis, and, if anybody asks, where it is."""

    def formula(xp: Any, x: Any, dim: int, keepdim: bool = False) -> Any:
        return _extreme(name)(xp, x, dim, keepdim), lambda: ORDERS[f"arg{name}"](xp, x, dim, keepdim)

    return formula


def _var(xp: Any, x: Any, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Any:
    axes = _axes(x, dim)
    apart = xp.subtract(x, xp.mean(x, axis=axes, keepdims=True))
    n = math.prod(x.shape[i] for i in axes) - (1 if correction is None else correction)
    return xp.divide(xp.sum(xp.square(apart), axis=axes, keepdims=keepdim), float(n))


def _var_mean(xp: Any, x: Any, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Any:
    return _var(xp, x, dim, correction=correction, keepdim=keepdim), _mean(xp, x, dim, keepdim)


def _std(xp: Any, x: Any, dim: Any = None, **how: Any) -> Any:
    return xp.sqrt(_var(xp, x, dim, **how))


def _softmax(name: str) -> Callable[..., Any]:

    def formula(xp: Any, x: Any, dim: int, *_: Any) -> Any:
        line = x if x.ndim else moves.reshaped(xp, x, (1,))
        return moves.reshaped(xp, getattr(xp, name)(line, axis=dim % line.ndim), x.shape)

    return formula


def _normalized(xp: Any, x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any, Any]:
    """Return (x - mean) / root, and if anybody asks, the mean and 1 / root."""

    def mean() -> Any:
        return xp.mean(x, axis=axes, keepdims=True)

    def factor() -> Any:
        return xp.divide(
            1.0, xp.sqrt(xp.add(xp.mean(xp.square(xp.subtract(x, mean())), axis=axes, keepdims=True), eps))
        )

    return xp.normalized(x, eps, axis=axes), mean, factor


def _scaled(xp: Any, x: Any, weight: Any, bias: Any, shape: Sequence[int]) -> Any:
    x = x if weight is None else xp.multiply(x, moves.reshaped(xp, weight, shape))
    return x if bias is None else xp.add(x, moves.reshaped(xp, bias, shape))


def _layer_norm(xp: Any, x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    normal, mean, factor = _normalized(xp, x, axes, eps)
    return _scaled(xp, normal, weight, bias, tuple(shape)), mean, factor


def _group_norm(
    xp: Any, x: Any, weight: Any, bias: Any, n: int, channels: int, size: int, groups: int, eps: float
) -> Any:
    parts = moves.reshaped(xp, x, (n, groups, channels // groups * size))
    normal, mean, factor = _normalized(xp, parts, (2,), eps)
    whole = _scaled(xp, moves.reshaped(xp, normal, x.shape), weight, bias, (channels, *[1] * (x.ndim - 2)))
    return whole, lambda: xp.squeeze(mean(), 2), lambda: xp.squeeze(factor(), 2)


def _batch_norm(
    xp: Any, x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Any:
    del momentum
    shape = (x.shape[1], *[1] * (x.ndim - 2))
    saved: tuple[Any, ...]
    if training:
        normal, middle, factor = _normalized(xp, x, (0, *range(2, x.ndim)), eps)
        saved = tuple(lambda each=each: moves.reshaped(xp, each(), (x.shape[1],)) for each in (middle, factor))
    else:
        spread = xp.sqrt(xp.add(moves.reshaped(xp, var, shape), eps))
        normal = xp.divide(xp.subtract(x, moves.reshaped(xp, mean, shape)), spread)
        saved = (None, None)
    return _scaled(xp, normal, weight, bias, shape), *saved


def _batch_norm_fixed(xp: Any, x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float) -> Any:
    return _batch_norm(xp, x, weight, bias, mean, var, False, momentum, eps)


def _lstm_layer(
    xp: Any, x: Any, w_in: Any, w_state: Any, b_in: Any, b_state: Any, h: Any, c: Any, reverse: bool, sizes: Any,
    mode: int, width: int, layers: int, has_biases: bool, bidirectional: bool, batch_first: bool, train: bool,
) -> Any:  # fmt: skip
    """One layer, as oneDNN computes it in float32: the rows are the second axis."""
    del sizes, layers, bidirectional, batch_first, train
    if mode != 2:
        raise UnsaidError(f"a recurrent layer of kind {mode}")
    h, c = (moves.reshaped(xp, each, each.shape[-2:]) for each in (h, c))
    outputs: list[Any] = []
    for t in range(x.shape[0])[:: -1 if reverse else 1]:
        gates = xp.add(
            xp.matmul(xp.index(x, t), moves.transposed(xp, w_in)), xp.matmul(h, moves.transposed(xp, w_state))
        )
        gates = xp.add(gates, xp.add(b_in, b_state)) if has_biases else gates
        i, f, g, o = moves.split(xp, gates, width, 1)
        c = xp.add(xp.multiply(xp.sigmoid(f), c), xp.multiply(xp.sigmoid(i), xp.tanh(g)))
        h = xp.multiply(xp.sigmoid(o), xp.tanh(c))
        outputs.append(h)
    return xp.stack(outputs[:: -1 if reverse else 1]), xp.stack([h]), xp.stack([c]), None


# Convolution and pooling.


def _convolution(
    xp: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    d = x.ndim - 2
    stride, padding, dilation = (each * d if len(each) == 1 else each for each in (stride, padding, dilation))
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    how |= {"transposed": True, "output_padding": output_padding} if transposed else {}
    found = xp.conv(x, weight, **how)
    return found if bias is None else xp.add(found, moves.reshaped(xp, bias, (-1, *[1] * (x.ndim - 2))))


def _convolution_back(
    xp: Any, g: Any, x: Any, weight: Any, bias_sizes: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, asked: Sequence[bool],
) -> Any:  # fmt: skip
    """aten.convolution_backward: what arrives, by x, by the kernel and by the bias; None of what is not asked for.

    By x it is the convolution of the other kind. With y[n, o, s t + d k - p] for y of a transposed one,

        dw[o, c, k] = sum over n, t of  g[n, o, t] x[n, c, s t + d k - p],

    a convolution over the rows, whose stride is d, of x with the kernel g, whose dilation is s.
    """
    del bias_sizes, output_padding
    d = x.ndim - 2
    stride, padding, dilation = ([*each] * (d // len(each)) for each in (stride, padding, dilation))

    def first(found: Any, shape: Sequence[int]) -> Any:
        """What a longer one has no counterpart for is left out."""
        return xp.index(found, tuple(slice(0, length) for length in shape))

    def by_x() -> Any:
        if transposed:
            return first(_convolution(xp, g, weight, None, stride, padding, dilation, False, None, groups), x.shape)
        window, axes = weight.shape[2:], range(d)
        reach = [(g.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (window[i] - 1) + 1 for i in axes]
        more = [x.shape[2 + i] - reach[i] for i in axes]
        return _convolution(xp, g, weight, None, stride, padding, dilation, True, more, groups)

    def by_kernel() -> Any:
        seen, kernel = (g, x) if transposed else (x, g)
        n, channels, *lengths = seen.shape
        parts = moves.reshaped(xp, seen, (n, groups, channels // groups, *lengths))
        rows = moves.reshaped(xp, _exchanged(xp, parts, 0, 2), (channels // groups, groups * n, *lengths))
        found = _convolution(
            xp, rows, _exchanged(xp, kernel, 0, 1), None, dilation, padding, stride, False, None, groups
        )
        return first(_exchanged(xp, found, 0, 1), weight.shape)

    def by_bias() -> Any:
        return xp.sum(g, axis=(0, *range(2, g.ndim)))

    return tuple(each() if is_asked else None for each, is_asked in zip((by_x, by_kernel, by_bias), asked, strict=True))


def _exchanged(xp: Any, x: Any, a: int, b: int) -> Any:
    """Return an array whose axes a and b have changed places."""
    order = [*range(x.ndim)]
    order[a], order[b] = b, a
    return xp.permute_dims(x, tuple(order))


# Functions.


def _softplus(xp: Any, x: Any, beta: float = 1, threshold: float = 20) -> Any:
    scaled = x if beta == 1 else xp.multiply(x, beta)
    return xp.where(xp.greater(scaled, threshold), x, xp.divide(xp.logaddexp(0.0, scaled), beta))


def _relu(xp: Any, x: Any) -> Any:
    return xp.maximum(x, 0.0)


FORMULAS: dict[str, Callable[..., Any]] = {
    **{
        operation: _named(name)
        for operation, name in {
            "mul": "multiply", "neg": "negative", "abs": "abs", "sign": "sign", "sgn": "sign", "exp": "exp",
            "expm1": "expm1", "log": "log", "log1p": "log1p", "sqrt": "sqrt", "sin": "sin", "cos": "cos",
            "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "maximum": "maximum", "minimum": "minimum",
            "logaddexp": "logaddexp", "sigmoid": "sigmoid", "tan": "tan", "asin": "asin", "acos": "acos",
            "atan": "atan",
            "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "atan2": "atan2", "erf": "erf", "erfc": "erfc",
            "log2": "log2", "log10": "log10", "exp2": "exp2",
            "floor": "floor", "ceil": "ceil", "trunc": "trunc", "fmod": "fmod",
            "remainder": "remainder", "isnan": "isnan", "isfinite": "isfinite", "isinf": "isinf",
            "lt": "less", "le": "less_equal",
            "gt": "greater", "ge": "greater_equal", "logical_and": "logical_and", "logical_or": "logical_or",
            "logical_not": "logical_not", "mm": "matmul", "bmm": "matmul", "mv": "matmul", "dot": "matmul",
            "where": "where",
        }.items()
    },
    "bitwise_and": moves.bits("logical_and"),
    "bitwise_or": moves.bits("logical_or"),
    "bitwise_xor": moves.bits("logical_xor"),
    "bitwise_not": moves.bits("logical_not"),
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    "div": _div,
    "pow": _pow,
    "reciprocal": lambda xp, x: xp.divide(1.0, x),
    "rsqrt": lambda xp, x: xp.divide(1.0, xp.sqrt(x)),
    "clamp": _clamp,
    "clamp_min": lambda xp, x, least: xp.maximum(x, least),
    "clamp_max": lambda xp, x, most: xp.minimum(x, most),
    "relu": _relu,
    "softplus": _softplus,
    "addmm": _addmm,
    "baddbmm": _addmm,
    "t": moves.transposed,
    "transpose": moves.transposed,
    "permute": moves.permuted,
    "view": moves.reshaped,
    "_unsafe_view": moves.reshaped,
    "reshape": moves.reshaped,
    "unsqueeze": moves.unsqueezed,
    "squeeze": moves.squeezed,
    "expand": moves.expanded,
    "slice": moves.sliced,
    "select": moves.select,
    "split": moves.split,
    "split_with_sizes": moves.split,
    "unsafe_split": moves.split,
    "unbind": moves.unbind,
    "cat": moves.cat,
    "stack": moves.stack,
    "clone": moves.same,
    "contiguous": moves.same,
    "alias": moves.same,
    "as_strided": moves.same,
    "detach": moves.same,
    "lift_fresh": moves.same,
    "_to_copy": moves.to_copy,
    "copy": moves.copied,
    "copy_to": moves.copied,
    "fill": moves.filled,
    "zero": lambda xp, x: moves.filled(xp, x, 0.0),
    "masked_fill": moves.masked_fill,
    "embedding": moves.embedding,
    "gather": moves.gather,
    "index": moves.indexed,
    "nonzero": moves.nonzero,
    "_unique2": moves.unique,
    "_unsafe_index": moves.indexed,
    "index_select": moves.index_select,
    "_pack_padded_sequence": moves.packed,
    "tril": moves.triangle("tril"),
    "triu": moves.triangle("triu"),
    "flip": moves.flipped,
    "constant_pad_nd": moves.padded,
    "convolution": _convolution,
    "convolution_backward": _convolution_back,
    "sum": _sum,
    "mean": _mean,
    "amax": _extreme("max"),
    "amin": _extreme("min"),
    "max.default": _extreme("max"),
    "min.default": _extreme("min"),
    "max.dim": _of_dim("max"),
    "min.dim": _of_dim("min"),
    "var": _var,
    "std": _std,
    "var_mean": _var_mean,
    "_softmax": _softmax("softmax"),
    "_log_softmax": _softmax("log_softmax"),
    "logsumexp": lambda xp, x, dim, keepdim=False: xp.logsumexp(x, axis=_axes(x, dim), keepdims=keepdim),
    "_is_all_true": lambda xp, x: xp.all(x),
    "_is_any_true": lambda xp, x: xp.any(x),
    "ne": _unequal,
    "eq": _equal,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit.no_stats": lambda xp, x, weight, bias, training, momentum, eps: _batch_norm(
        xp, x, weight, bias, None, None, training, momentum, eps
    ),
    "_native_batch_norm_legit_no_training": _batch_norm_fixed,
    "mkldnn_rnn_layer": _lstm_layer,
    **WRITES,
    **POOLING,
    **ORDERS,
    **ELEMENTWISE,
    **MATRICES,
}  # fmt: skip
