"""Pooling in ATen: what each window sees, place by place, and the largest or the mean of it.

Along each axis a window is a line of places, of which the length of the axis stands for what lies outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare_torch import moves
from gdcompare_torch.moves import LEAST
from gdcompare_torch.writes import add

Lines = list[NDArray[np.int64]]
"""For each axis, where its windows look: (windows, size of one)."""


def _each(value: Any, d: int) -> list[int]:
    some = [value] if isinstance(value, int) else list(value)
    return some * d if len(some) == 1 else some


def sliding(length: int, size: int, stride: int, padding: int, dilation: int = 1, ceil: bool = False) -> Any:
    """Return where windows start that slide along an axis, as torch counts them, and what each sees.

    >>> sliding(5, 2, 2, 0, ceil=True)[1].tolist()
    [[0, 1], [2, 3], [4, 5]]
    """
    reach = length + 2 * padding - dilation * (size - 1) - 1
    count = (reach + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= length + padding:
        count -= 1  # the last one would start in the padding
    starts = np.arange(count) * stride - padding
    at = starts[:, None] + np.arange(size) * dilation
    return starts, np.where((at >= 0) & (at < length), at, length)


def adaptive(length: int, count: int) -> NDArray[np.int64]:
    """Return what so many windows see that share an axis evenly.

    >>> adaptive(5, 2).tolist()
    [[0, 1, 2], [2, 3, 4]]
    """
    starts = [i * length // count for i in range(count)]
    ends = [-(-(i + 1) * length // count) for i in range(count)]
    return _filled(starts, ends, length)


def _filled(starts: Sequence[int], ends: Sequence[int], length: int) -> NDArray[np.int64]:
    size = max(b - a for a, b in zip(starts, ends, strict=True))
    at = np.array(starts)[:, None] + np.arange(size)
    return np.where(at < np.array(ends)[:, None], at, length)


def places(lengths: Sequence[int], lines: Lines) -> NDArray[np.int64]:
    """Return the flat places in a plane that windows see, (*windows, all in one); the size of the plane for outside."""
    d, found, outside = len(lines), np.zeros((), dtype=np.int64), np.zeros((), dtype=bool)
    for i, (line, length) in enumerate(zip(lines, lengths, strict=True)):
        shape = [1] * (2 * d)
        shape[i], shape[d + i] = line.shape
        line = line.reshape(shape)
        found, outside = found * length + line, outside | (line == length)
    found = np.where(outside, math.prod(lengths), found)
    return found.reshape(*found.shape[:d], -1)


def seen(xp: Any, x: Any, lines: Lines, fill: float) -> Any:
    """Return what windows over the last axes see, (..., *windows, all in one)."""
    lead, lengths = x.shape[: x.ndim - len(lines)], x.shape[x.ndim - len(lines) :]
    n, size = math.prod(lead), math.prod(lengths)
    flat, at = moves.reshaped(xp, x, (n, size)), places(lengths, lines)
    if (at == size).any():
        flat = xp.concat([flat, np.full((n, 1), fill)], axis=1)
    found = xp.index(flat, (slice(None), at))
    return moves.reshaped(xp, found, (*lead, *at.shape))


def _largest(xp: Any, x: Any, lines: Lines) -> Any:
    """Return the largest, and, if anybody asks, the flat place of it in its plane."""
    windows = seen(xp, x, lines, LEAST)
    at = places(x.shape[x.ndim - len(lines) :], lines)

    def where() -> Any:
        first = xp.expand_dims(xp.argmax(windows, axis=-1), axis=-1)
        return xp.squeeze(xp.take_along_axis(xp.broadcast_to(at, windows.shape), first, axis=-1), -1)

    return xp.max(windows, axis=-1), where


def max_pool(
    xp: Any, x: Any, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    *, axes: int,
) -> Any:  # fmt: skip
    """aten.max_pool2d_with_indices and its like."""
    settings = [_each(value, axes) for value in (kernel_size, stride or kernel_size, padding, dilation)]
    each = zip(x.shape[x.ndim - axes :], *settings, strict=True)
    lines = [sliding(n, size, step, around, gap, ceil_mode)[1] for n, size, step, around, gap in each]
    return _largest(xp, x, lines)


def max_pool_back(
    xp: Any, g: Any, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, indices: Any
) -> Any:
    """aten.max_pool2d_with_indices_backward: what arrives, where the largest was."""
    del kernel_size, stride, padding, dilation, ceil_mode
    n, size = math.prod(x.shape[:-2]), math.prod(x.shape[-2:])
    into = xp.add(moves.reshaped(xp, indices, (n, -1)), np.arange(n)[:, None] * size)
    return add(xp, np.zeros(x.shape), into, moves.reshaped(xp, g, (n, -1)))


def avg_pool(
    xp: Any, x: Any, kernel_size: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, *, axes: int,
) -> Any:  # fmt: skip
    """aten.avg_pool1d to avg_pool3d: the sum by the size of the window, with or without the padding."""
    sizes, strides, paddings = (_each(value, axes) for value in (kernel_size, stride or kernel_size, padding))
    lines, counts = Lines(), np.ones(())
    for length, size, step, around in zip(x.shape[x.ndim - axes :], sizes, strides, paddings, strict=True):
        starts, line = sliding(length, size, step, around, 1, ceil_mode)
        with_padding = np.minimum(starts + size, length + around) - starts
        lines.append(line)
        counts = counts[..., None] * (with_padding if count_include_pad else (line < length).sum(axis=1))
    total = xp.sum(seen(xp, x, lines, 0.0), axis=-1)
    return xp.divide(total, counts if divisor_override is None else float(divisor_override))


def adaptive_max_pool(xp: Any, x: Any, output_size: Any) -> Any:
    """aten.adaptive_max_pool2d and 3d."""
    lengths = x.shape[x.ndim - len(output_size) :]
    return _largest(xp, x, [adaptive(*axis) for axis in zip(lengths, output_size, strict=True)])


def adaptive_avg_pool(xp: Any, x: Any, output_size: Any) -> Any:
    """aten._adaptive_avg_pool2d and 3d."""
    lengths = x.shape[x.ndim - len(output_size) :]
    lines, counts = [adaptive(*axis) for axis in zip(lengths, output_size, strict=True)], np.ones(())
    for line, length in zip(lines, lengths, strict=True):
        counts = counts[..., None] * (line < length).sum(axis=1)
    return xp.divide(xp.sum(seen(xp, x, lines, 0.0), axis=-1), counts)


POOLING: dict[str, Callable[..., Any]] = {
    "max_pool2d_with_indices": lambda xp, *given: max_pool(xp, *given, axes=2),
    "max_pool3d_with_indices": lambda xp, *given: max_pool(xp, *given, axes=3),
    "max_pool2d_with_indices_backward": max_pool_back,
    "avg_pool1d": lambda xp, *given: avg_pool(xp, *given, axes=1),
    "avg_pool2d": lambda xp, *given: avg_pool(xp, *given, axes=2),
    "avg_pool3d": lambda xp, *given: avg_pool(xp, *given, axes=3),
    "adaptive_max_pool2d": adaptive_max_pool,
    "adaptive_max_pool3d": adaptive_max_pool,
    "_adaptive_avg_pool2d": adaptive_avg_pool,
    "_adaptive_avg_pool3d": adaptive_avg_pool,
}
