"""Axes of arrays on the tape: one, several or all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

Axis: TypeAlias = int | tuple[int, ...] | None


def axes_of(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return axes as negative numbers, in order; None stands for all of them."""
    return tuple(sorted(each % ndim - ndim for each in several(axis, ndim)))


def several(axis: Any, ndim: int) -> Iterable[int]:
    """Return one axis as the only one of several; None stands for all of them.

    >>> [*several(np.int64(1), 3)], [*several((0, 2), 3)], [*several(None, 3)]
    ([1], [0, 2], [0, 1, 2])
    """
    return map(int, range(ndim) if axis is None else [axis] if isinstance(axis, int | np.integer) else axis)


def with_axes_last(xp: Any, x: Any, axis: Axis) -> Any:
    """Return x with these axes as one, the last."""
    axes = axes_of(axis, x.ndim)
    rest = [i for i in range(x.ndim) if i - x.ndim not in axes]
    order = (*rest, *(i + x.ndim for i in axes))
    moved = x if order == tuple(range(x.ndim)) else xp.permute_dims(x, order)
    return xp.reshape(moved, (*(x.shape[i] for i in rest), math.prod(x.shape[i] for i in axes)))


def kept(xp: Any, result: Any, x: Any, axis: Axis) -> Any:
    """Return a result for these axes of x with axes of length 1 in their places."""
    axes = axes_of(axis, x.ndim)
    return xp.reshape(result, tuple(1 if i - x.ndim in axes else length for i, length in enumerate(x.shape)))


SHORT = 16
"""Along so few numbers NumPy reduces one line after the other, and many times as slowly."""


def along_last(operation: np.ufunc, x: Any) -> Any:
    """Return a reduction of an array along its last axis, which stays with length 1; the same numbers as NumPy's own.

    >>> along_last(np.maximum, np.array([[1.0, 3.0], [2.0, 0.0]])).tolist()
    [[3.0], [2.0]]
    """
    if not 0 < x.shape[-1] <= SHORT:
        return operation.reduce(x, axis=-1, keepdims=True)
    return reduce(operation, (x[..., i : i + 1] for i in range(1, x.shape[-1])), x[..., :1])
