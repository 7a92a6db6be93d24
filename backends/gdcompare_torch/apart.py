"""Operations of ATen taken apart into others, where torch has no decomposition of its own: functions of tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from gdcompare.arithmetic.program import UnsaidError

functional: Any = torch.nn.functional


def _as_strided_scatter(x: Any, source: Any, size: Any, stride: Any, offset: int | None = None) -> Any:
    """Return a copy of x, of which what `as_strided` sees is the source."""
    whole = torch.ops.aten.clone(x, memory_format=torch.preserve_format)
    start = whole.storage_offset() if offset is None else offset
    torch.ops.aten.as_strided(whole, size, stride, start).copy_(source)
    return whole


def _cross_entropy_in_chunks(
    x: Any,
    linear: Any,
    target: Any,
    bias: Any,
    weight: Any,
    reduction: str,
    ignore_index: int,
    smoothing: float,
    *_: Any,
) -> Any:
    """Return the loss, and nothing of the gradients that are computed with it."""
    logits = functional.linear(x, linear, bias)
    options = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": smoothing}
    loss = functional.cross_entropy(logits, target, weight, **options)
    return loss, *(torch.empty(0) for _ in range(3))


def _cross_entropies_in_chunks(x: Any, linear: Any, target: Any, bias: Any, weight: Any, ignored: int, *_: Any) -> Any:
    return _cross_entropy_in_chunks(x, linear, target, bias, weight, "none", ignored, 0.0)[0]


def _multilabel_margin(x: Any, target: Any, reduction: int) -> Any:
    """Return the loss of each label before the first -1 against all classes that are none: torch's own takes more."""
    rows, labels = torch.atleast_2d(x), torch.atleast_2d(target)
    classes = torch.arange(rows.shape[1])
    end = torch.where(labels == -1, classes, rows.shape[1]).amin(dim=1, keepdim=True)
    valid = classes < end
    own = rows.gather(1, torch.where(valid, labels, 0))
    taken = (torch.where(valid, labels, -1).unsqueeze(-1) == classes).any(dim=1)
    apart = (1 - own.unsqueeze(-1) + rows.unsqueeze(1)).clamp_min(0) / rows.shape[1]
    counted = valid.unsqueeze(-1) & ~taken.unsqueeze(1)
    each = torch.where(counted, apart, 0.0).sum(dim=(1, 2))
    each = each if x.ndim > 1 else each.squeeze(0)
    loss = each.mean() if reduction == 1 else each.sum() if reduction == 2 else each
    return loss, taken.to(x.dtype).reshape(target.shape)


def _grid_sampler_3d(x: Any, grid: Any, interpolation: int, padding: int, align_corners: bool) -> Any:
    """Return x between its numbers: from the 8 around each point in proportion (0), or from the nearest (1)."""
    n, channels, *lengths = x.shape
    points = [_placed(grid[..., 2 - i], length, padding, align_corners) for i, length in enumerate(lengths)]
    batch, channel = torch.arange(n).view(n, 1, 1, 1, 1), torch.arange(channels).view(1, channels, 1, 1, 1)
    total: Any = 0
    for corner in itertools.product((0, 1), repeat=3) if interpolation == 0 else [(0, 0, 0)]:
        weight: Any = 1
        inside: Any = True
        index = []
        for point, up, length in zip(points, corner, lengths, strict=True):
            low = point.floor() if interpolation == 0 else point.round()
            if interpolation == 0:
                weight = weight * (point - low if up else low + 1 - point)
            place = low.to(torch.int64) + up
            inside = inside & (place >= 0) & (place < length)
            index.append(place.clamp(0, length - 1).unsqueeze(1))
        seen = x[(batch, channel, *index)]
        shown = torch.where(inside.unsqueeze(1), seen, 0.0)
        total = total + (shown if interpolation else shown * weight.unsqueeze(1))
    return total


def _placed(at: Any, length: int, padding: int, align_corners: bool) -> Any:
    """Return places of -1 to 1 in an axis: as they are, at the next end (1), or mirrored at both (2)."""
    place = (at + 1) / 2 * (length - 1) if align_corners else ((at + 1) * length - 1) / 2
    if padding == 2:
        start, span = (0.0, length - 1.0) if align_corners else (-0.5, float(length))
        if span == 0:
            return place * 0
        off = (place - start).abs()
        turns = (off / span).floor()
        rest = off - turns * span
        place = torch.where(turns.remainder(2) == 0, rest + start, span - rest + start)
    return place.clamp(0, length - 1) if padding else place


def _slope_of_place(at: Any, length: int, padding: int, align_corners: bool) -> Any:
    """Return the slope of `_placed`: 0 where it is at an end or beyond, turned around where mirrored."""
    slope = torch.full_like(at, (length - 1) / 2 if align_corners else length / 2)
    if padding == 0:
        return slope
    place = _placed(at, length, 0, align_corners)
    if padding == 2:
        start, span = (0.0, length - 1.0) if align_corners else (-0.5, float(length))
        if span == 0:
            return slope * 0
        turns = ((place - start).abs() / span).floor()
        slope = torch.where((turns.remainder(2) == 0) == (place >= start), slope, -slope)
        rest = (place - start).abs() - turns * span
        place = torch.where(turns.remainder(2) == 0, rest + start, span - rest + start)
    return torch.where((place > 0) & (place < length - 1), slope, 0.0)


def _grid_sampler_2d_back(
    g: Any, x: Any, grid: Any, interpolation: int, padding: int, align_corners: bool, asked: Any
) -> Any:
    """Return what arrives at g by x and by the grid, of the 4 numbers around each point (0), or of the nearest (1)."""
    if interpolation == 2:
        raise UnsaidError("the interpolation is cubic")
    n, channels, *lengths = x.shape
    batch, channel = torch.arange(n).view(n, 1, 1, 1), torch.arange(channels).view(1, channels, 1, 1)
    settings = [(grid[..., 1 - i], length, padding, align_corners) for i, length in enumerate(lengths)]
    points, slopes = [_placed(*each) for each in settings], [_slope_of_place(*each) for each in settings]
    by_x, by_points = torch.zeros_like(x), [torch.zeros_like(each) for each in points]
    for corner in itertools.product((0, 1), repeat=2) if interpolation == 0 else [(0, 0)]:
        low = [point.floor() if interpolation == 0 else point.round() for point in points]
        weights = [
            (point - each if up else each + 1 - point) if interpolation == 0 else torch.ones_like(point)
            for point, each, up in zip(points, low, corner, strict=True)
        ]
        at = [each.to(torch.int64) + up for each, up in zip(low, corner, strict=True)]
        inside = (at[0] >= 0) & (at[0] < lengths[0]) & (at[1] >= 0) & (at[1] < lengths[1])
        index = batch, channel, *(each.clamp(0, m - 1).unsqueeze(1) for each, m in zip(at, lengths, strict=True))
        arriving = torch.where(inside.unsqueeze(1), g, 0.0)
        by_x = by_x.index_put(index, arriving * (weights[0] * weights[1]).unsqueeze(1), accumulate=True)
        if interpolation == 0:
            along = (arriving * x[index]).sum(1)
            by_points = [total + along * weights[1 - i] * (1 if corner[i] else -1) for i, total in enumerate(by_points)]
    by_grid = torch.stack([by_points[i] * slopes[i] for i in (1, 0)], dim=-1)
    return tuple(each if is_asked else None for each, is_asked in zip((by_x, by_grid), asked, strict=True))


APART: dict[str, Callable[..., Any]] = {
    "as_strided_scatter": _as_strided_scatter,
    "multilabel_margin_loss_forward": _multilabel_margin,
    "grid_sampler_3d": _grid_sampler_3d,
    "grid_sampler_2d_backward": _grid_sampler_2d_back,
    "_linear_cross_entropy_batch_chunked": _cross_entropy_in_chunks,
    "_linear_cross_entropy_batch_chunked_no_reduction": _cross_entropies_in_chunks,
}
"""By the name of the operation."""
