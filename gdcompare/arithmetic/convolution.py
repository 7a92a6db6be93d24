"""Convolution and windows, for programs: neither is a function of the array API standard.

A convolution is one product of matrices, of what each output sees and of the kernel, and so are its derivatives:

    y[n, o, t] = sum over c, k of  x[n, c, stride t + dilation k - before] w[o, c, k]

with x 0 outside, and `spread` - 1 zeros between its numbers. The derivative by x is a convolution of the cotangent with
the kernel turned around, where stride and spread have changed places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

LEAST = -float(np.finfo(np.float32).max)
"""Around what is pooled: below all of it, and finite, which more number systems decide about."""

Each: TypeAlias = int | Sequence[int]
"""One number for all spatial axes, or one for each."""


def conv(
    xp: Any,
    x: Any,
    kernel: Any,
    *,
    stride: Each = 1,
    padding: int | Sequence[Any] = 0,
    dilation: Each = 1,
    groups: int = 1,
    spread: Each = 1,
    transposed: bool = False,
    output_padding: Each = 0,
) -> Any:
    """Convolve x (n, c, *spatial) with a kernel (outputs, c / groups, *window), as torch and JAX do: no flip.

    The padding is so many zeros on either side of each axis, or a pair for each. A transposed one is torch's
    `conv_transpose`, with a kernel (c, outputs / groups, *window).
    """
    x, kernel = xp.asarray(x), xp.asarray(kernel)
    d = x.ndim - 2
    if kernel.ndim != x.ndim:
        raise ValueError(f"a kernel of shape {kernel.shape} has another number of axes than x, {x.shape}")
    window, around = kernel.shape[2:], _pairs(padding, d)
    steps, gaps, between = (_each(value, d) for value in (stride, dilation, spread))
    if transposed:
        more = _each(output_padding, d)
        widths = [gap * (k - 1) for gap, k in zip(gaps, window, strict=True)]
        around = [(w - a, w - b + m) for w, (a, b), m in zip(widths, around, more, strict=True)]
        kernel = _swapped(xp, kernel, groups)
        steps, between = (1,) * d, steps
    if kernel.shape[1] * groups != x.shape[1] or kernel.shape[0] % groups:
        raise ValueError(
            f"a kernel of shape {kernel.shape} in {groups} groups does not suit x of {x.shape[1]} channels, {x.shape}"
        )
    view = _View(x.shape[2:], window, tuple(steps), tuple(gaps), tuple(between), tuple(around))
    numbers = xp.numbers
    seen = _seen(numbers, x.value, view, groups)
    weights = _columns(numbers, kernel.value, groups)

    def by_x(g: Any) -> Any:
        turned = _turned(numbers, kernel.value, groups)
        back = _seen(numbers, g, view.back(), groups) @ _columns(numbers, turned, groups)
        return _as_image(numbers, back, x.shape)

    def by_kernel(g: Any) -> Any:
        rows = _as_rows(numbers, g, groups)
        turned = numbers.rearrange(lambda part: np.swapaxes(part, -1, -2), seen)
        product = turned @ rows  # (hidden, groups, c / groups * window, outputs / groups)
        return numbers.rearrange(lambda part: np.swapaxes(part, -1, -2).reshape(part.shape[0], *kernel.shape), product)

    shape = (x.shape[0], kernel.shape[0], *view.lengths)
    return xp.record(_as_image(numbers, seen @ weights, shape), (x, by_x), (kernel, by_kernel))


def windows(
    xp: Any,
    x: Any,
    window: Sequence[int],
    *,
    stride: Each = 1,
    padding: int | Sequence[Any] = 0,
    dilation: Each = 1,
    fill: float = 0.0,
) -> Any:
    """Return what windows over the last axes see, (..., *places, numbers in one): pooling is a mean or max of it."""
    x, d = xp.asarray(x), len(window)
    around, front = _pairs(padding, d), x.ndim - d
    if any(any(pair) for pair in around):
        x = xp.pad(x, [(0, 0)] * front + list(around), constant_values=fill)
    lengths = x.shape[front:]
    view = _View(lengths, tuple(window), _each(stride, d), _each(dilation, d), (1,) * d, ((0, 0),) * d)
    found = xp.index(x, (*[slice(None)] * front, *view.places()))
    order = (*range(front), *range(front, front + 2 * d, 2), *range(front + 1, front + 2 * d, 2))
    return xp.reshape(xp.permute_dims(found, order), (*x.shape[:front], *view.lengths, math.prod(window)))


def max_pool(xp: Any, x: Any, window: Sequence[int], *, stride: Each, padding: Any = 0, dilation: Each = 1) -> Any:
    """The largest number in each window over the last axes."""
    seen = windows(xp, x, window, stride=stride, padding=padding, dilation=dilation, fill=LEAST)
    return xp.max(seen, axis=-1)


def avg_pool(xp: Any, x: Any, window: Sequence[int], *, stride: Each, padding: Any = 0) -> Any:
    """The mean in each window over the last axes, zeros of the padding included."""
    return xp.mean(windows(xp, x, window, stride=stride, padding=padding), axis=-1)


@final
@dataclass(frozen=True)
class _View:
    """What each output of a convolution sees, axis by axis."""

    sizes: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    spread: tuple[int, ...]
    around: tuple[tuple[int, int], ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many outputs there are."""
        return tuple(len(each) for each in self._lines())

    def places(self) -> tuple[Any, ...]:
        """Return an index for each axis, together (outputs, window, outputs, window, ...); the size stands for a 0."""
        d = len(self.sizes)
        return tuple(
            line.reshape((1,) * (2 * i) + line.shape + (1,) * (2 * (d - 1 - i))) for i, line in enumerate(self._lines())
        )

    def _lines(self) -> list[Any]:
        axes = zip(self.sizes, self.window, self.stride, self.dilation, self.spread, self.around, strict=True)
        return [self._line(*axis) for axis in axes]

    @staticmethod
    def _line(size: int, window: int, stride: int, dilation: int, spread: int, around: tuple[int, int]) -> Any:
        length = (size - 1) * spread + 1 + sum(around)
        outputs = max((length - dilation * (window - 1) - 1) // stride + 1, 0)
        at = np.arange(outputs)[:, None] * stride + np.arange(window) * dilation - around[0]
        inside = (at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)
        return np.where(inside, at // spread, size)

    def back(self) -> _View:
        """Return the view of the derivative by x."""
        lengths, axes = self.lengths, range(len(self.sizes))
        before = [self.dilation[i] * (self.window[i] - 1) - self.around[i][0] for i in axes]
        after = [
            (self.sizes[i] - 1) * self.spread[i] - (lengths[i] - 1) * self.stride[i] + self.around[i][0] for i in axes
        ]
        around = tuple(zip(before, after, strict=True))
        return _View(lengths, self.window, self.spread, self.dilation, self.stride, around)


# Arrays of numbers, with their hidden axis.


def _seen(numbers: Any, x: Any, view: _View, groups: int) -> Any:
    """Return (hidden, groups, n outputs, c / groups window)."""
    hidden, n, c, *sizes = x.shape
    d = len(sizes)
    within = (slice(None), slice(None), slice(None), *(slice(size) for size in sizes))
    beside = numbers.scatter(x, within, (hidden, n, c, *(size + 1 for size in sizes)))  # with a 0 behind each line
    places = view.places()

    def rows(part: Any) -> Any:
        found = part[(slice(None), slice(None), slice(None), *places)]
        found = found.reshape(part.shape[0], n, groups, c // groups, *found.shape[3:])
        order = (0, 2, 1, *range(4, 4 + 2 * d, 2), 3, *range(5, 5 + 2 * d, 2))
        outputs, window = math.prod(view.lengths), math.prod(view.window)
        return found.transpose(order).reshape(part.shape[0], groups, n * outputs, c // groups * window)

    return numbers.rearrange(rows, beside)


def _columns(numbers: Any, kernel: Any, groups: int) -> Any:
    """Return (hidden, groups, c / groups window, outputs / groups)."""

    def columns(part: Any) -> Any:
        return np.swapaxes(part.reshape(part.shape[0], groups, part.shape[1] // groups, -1), -1, -2)

    return numbers.rearrange(columns, kernel)


def _as_rows(numbers: Any, image: Any, groups: int) -> Any:
    """Return (hidden, groups, n outputs, c / groups) of (hidden, n, c, *outputs)."""

    def rows(part: Any) -> Any:
        hidden, n, c = part.shape[:3]
        grouped = part.reshape(hidden, n, groups, c // groups, -1)
        return grouped.transpose(0, 2, 1, 4, 3).reshape(hidden, groups, -1, c // groups)

    return numbers.rearrange(rows, image)


def _as_image(numbers: Any, rows: Any, shape: tuple[int, ...]) -> Any:
    """Return (hidden, n, c, *outputs) of (hidden, groups, n outputs, c / groups)."""
    n, c, *lengths = shape

    def image(part: Any) -> Any:
        hidden, groups = part.shape[:2]
        each = part.reshape(hidden, groups, n, math.prod(lengths), c // groups)
        return each.transpose(0, 2, 1, 4, 3).reshape(hidden, *shape)

    return numbers.rearrange(image, rows)


def _turned(numbers: Any, kernel: Any, groups: int) -> Any:
    """Return the kernel turned around, with inputs and outputs exchanged within each group."""

    def turned(part: Any) -> Any:
        hidden, outputs, inputs, *window = part.shape
        grouped = part.reshape(hidden, groups, outputs // groups, inputs, *window).swapaxes(2, 3)
        flipped = np.flip(grouped, axis=tuple(range(4, 4 + len(window))))
        return flipped.reshape(hidden, groups * inputs, outputs // groups, *window)

    return numbers.rearrange(turned, kernel)


def _swapped(xp: Any, kernel: Any, groups: int) -> Any:
    """Return the kernel of a transposed convolution, (c, outputs / groups, *window), as that of a plain one."""
    c, outputs, *window = kernel.shape
    grouped = xp.reshape(kernel, (groups, c // groups, outputs, *window))
    order = (0, 2, 1, *range(3, 3 + len(window)))
    swapped = xp.reshape(xp.permute_dims(grouped, order), (groups * outputs, c // groups, *window))
    return xp.flip(swapped, axis=tuple(range(2, swapped.ndim)))


def _each(value: Each, d: int) -> tuple[int, ...]:
    return (value,) * d if isinstance(value, int | np.integer) else tuple(value)


def _pairs(padding: int | Sequence[Any], d: int) -> list[tuple[int, int]]:
    each = [padding] * d if isinstance(padding, int | np.integer) else list(padding)
    pairs = [(one, one) if isinstance(one, int | np.integer) else one for one in each]
    return [(int(before), int(after)) for before, after in pairs]
