"""Array functions that need no derivative of their own: they are made of the tape's operations.

Each takes the tape first, and then what the array API standard says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gdcompare.arithmetic.axes import several
from gdcompare.arithmetic.whole import as_condition, middle, on_tape, truncated


def square(xp: Any, x: Any) -> Any:
    """x x."""
    return xp.multiply(x, x)


def positive(xp: Any, x: Any) -> Any:
    """x."""
    return xp.asarray(x)


def reciprocal(xp: Any, x: Any) -> Any:
    """1 / x."""
    return xp.divide(1.0, x)


def hypot(xp: Any, a: Any, b: Any) -> Any:
    """The root of a^2 + b^2."""
    a, b = xp.asarray(a), xp.asarray(b)
    return xp.sqrt(a * a + b * b)


def atan2(xp: Any, y: Any, x: Any) -> Any:
    """The angle of the point (x, y), from -pi to pi: by the smaller over the larger, whose arc tangent it differs from.

    It jumps where x < 0 and y changes its sign.
    """
    y, x = xp.broadcast_arrays(y, x)
    up, right = middle(y.value), middle(x.value)
    steep, back = np.abs(up) > np.abs(right), (np.abs(up) <= np.abs(right)) & (right < 0)
    mask, behind, side = (on_tape(xp, x, each) for each in (steep * 1.0, back * 1.0, np.where(up < 0, -1.0, 1.0)))
    angle = xp.atan(xp.where(mask, x, y) / xp.where(mask, y, x))
    half = 2 * xp.greater_equal(xp.where(behind, y, 1.0), 0.0) - 1
    return xp.where(mask, side * xp.number("pi / 2") - angle, angle + behind * half * xp.number("pi"))


def xlogy(xp: Any, x: Any, y: Any) -> Any:
    """x log(y), and 0 where x is a constant 0."""
    x, y = xp.asarray(x), xp.asarray(y)
    if x.tracked:
        return x * xp.log(y)
    nothing = xp.equal(x, 0.0)
    return xp.where(nothing, 0.0, x * xp.log(xp.where(nothing, 1.0, y)))


def softplus(xp: Any, x: Any) -> Any:
    """log(1 + exp(x))."""
    return xp.logaddexp(x, 0.0)


def log_sigmoid(xp: Any, x: Any) -> Any:
    """-log(1 + exp(-x))."""
    return -xp.logaddexp(-xp.asarray(x), 0.0)


def vecdot(xp: Any, a: Any, b: Any, *, axis: int = -1) -> Any:
    """sum a_i b_i."""
    return xp.sum(xp.multiply(a, b), axis=axis)


def tensordot(xp: Any, a: Any, b: Any, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Any:
    """Sum over the last `axes` axes of a and the first of b, or over pairs of axes, as one product of matrices."""
    a, b = xp.asarray(a), xp.asarray(b)
    if not isinstance(axes, int | np.integer):
        of_a, of_b = ([axis % x.ndim for axis in several(each, x.ndim)] for x, each in zip((a, b), axes, strict=True))
        a = xp.permute_dims(a, (*(i for i in range(a.ndim) if i not in of_a), *of_a))
        b = xp.permute_dims(b, (*of_b, *(i for i in range(b.ndim) if i not in of_b)))
        axes = len(of_a)
    outer, summed, inner = a.shape[: a.ndim - axes], b.shape[:axes], b.shape[axes:]
    k = int(np.prod(summed))
    product = xp.reshape(a, (int(np.prod(outer)), k)) @ xp.reshape(b, (k, int(np.prod(inner))))
    return xp.reshape(product, outer + inner)


def mean(xp: Any, x: Any, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """sum x_i / n."""
    x = xp.asarray(x)
    total = xp.sum(x, axis=axis, keepdims=keepdims)
    return total / (x.size // total.size)


def min(xp: Any, x: Any, *, axis: int | None = None, keepdims: bool = False) -> Any:  # noqa: A001 - the standard's name
    """-max(-x)."""
    return -xp.max(-xp.asarray(x), axis=axis, keepdims=keepdims, kind="min")


def maximum(xp: Any, a: Any, b: Any, *, kind: str = "maximum") -> Any:
    """The larger of each pair."""
    a, b = xp.asarray(a), xp.asarray(b)
    shape = np.broadcast_shapes(a.shape, b.shape)
    return xp.max(xp.stack([xp.broadcast_to(a, shape), xp.broadcast_to(b, shape)], axis=-1), axis=-1, kind=kind)


def minimum(xp: Any, a: Any, b: Any, *, kind: str = "minimum") -> Any:
    """-max(-a, -b)."""
    return -xp.maximum(-xp.asarray(a), -xp.asarray(b), kind=kind)


def clip(xp: Any, x: Any, min: Any = None, max: Any = None) -> Any:  # noqa: A002 - the standard's names
    """The nearest number between min and max."""
    x = xp.asarray(x) if min is None else xp.maximum(x, min, kind="clip")
    return x if max is None else xp.minimum(x, max, kind="clip")


def abs(xp: Any, x: Any) -> Any:  # noqa: A001 - the standard's name
    """max(x, -x)."""
    return xp.maximum(x, -xp.asarray(x), kind="abs")


def logical_not(xp: Any, a: Any) -> Any:
    """1 for 0, 0 for 1."""
    return as_condition(xp.subtract(1, a))


def logical_and(xp: Any, a: Any, b: Any) -> Any:
    """1 if both are 1."""
    return as_condition(xp.multiply(a, b))


def logical_or(xp: Any, a: Any, b: Any) -> Any:
    """1 if not both are 0."""
    return as_condition(1 - (1 - xp.asarray(a)) * (1 - xp.asarray(b)))


def logical_xor(xp: Any, a: Any, b: Any) -> Any:
    """1 if they differ."""
    a, b = xp.asarray(a), xp.asarray(b)
    return as_condition(a + b - 2 * a * b)


def astype(xp: Any, x: Any, dtype: Any, *, copy: bool = True) -> Any:
    """x itself, for conditions are 0 and 1 here; but as whole numbers, x without its fraction."""
    del copy
    if dtype is bool or dtype == xp.bool or (not isinstance(dtype, str) and np.dtype(dtype) == bool):
        return xp.conditions(x)
    whole = dtype == xp.int64 if isinstance(dtype, str) else np.issubdtype(dtype, np.integer)
    return truncated(xp, x) if whole else xp.asarray(x)


def zeros(xp: Any, shape: Any, *, dtype: Any = None) -> Any:
    """All 0."""
    return xp.asarray(np.zeros(shape), dtype)


def ones(xp: Any, shape: Any, *, dtype: Any = None) -> Any:
    """All 1."""
    return xp.asarray(np.ones(shape), dtype)


def full(xp: Any, shape: Any, value: Any, *, dtype: Any = None) -> Any:
    """All the same number."""
    return xp.broadcast_to(xp.asarray(value, dtype), (shape,) if isinstance(shape, int | np.integer) else shape)


def zeros_like(xp: Any, x: Any, *, dtype: Any = None) -> Any:
    """0 in the shape of x."""
    return xp.zeros(x.shape, dtype=dtype)


def ones_like(xp: Any, x: Any, *, dtype: Any = None) -> Any:
    """1 in the shape of x."""
    return xp.ones(x.shape, dtype=dtype)


def full_like(xp: Any, x: Any, value: Any, *, dtype: Any = None) -> Any:
    """One number in the shape of x."""
    return xp.full(x.shape, value, dtype=dtype)


def arange(xp: Any, *limits: float, dtype: Any = None) -> Any:
    """Whole numbers in order."""
    return xp.asarray(np.arange(*limits), dtype)


def eye(xp: Any, n: int, m: int | None = None, *, k: int = 0, dtype: Any = None) -> Any:
    """1 on the k-th diagonal, else 0."""
    return xp.asarray(np.eye(n, m, k), dtype)


def empty(xp: Any, shape: Any, *, dtype: Any = None) -> Any:
    """All 0: numbers that nobody knows would do as well."""
    return xp.zeros(shape, dtype=dtype)


def empty_like(xp: Any, x: Any, *, dtype: Any = None) -> Any:
    """0 in the shape of x."""
    return xp.zeros(x.shape, dtype=dtype)


def linspace(xp: Any, start: float, stop: float, num: int, *, dtype: Any = None, endpoint: bool = True) -> Any:
    """So many numbers, equally far apart."""
    return xp.asarray(np.linspace(start, stop, num, endpoint=endpoint), dtype)


def diff(xp: Any, x: Any, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    """x_{i + 1} - x_i, n times."""
    x = xp.asarray(x)
    around = [prepend, x, append]
    x = x if prepend is append is None else xp.concat([each for each in around if each is not None], axis=axis)
    before = (slice(None),) * (axis % x.ndim)
    for _ in range(n):
        x = xp.subtract(xp.index(x, (*before, slice(1, None))), xp.index(x, (*before, slice(None, -1))))
    return x
