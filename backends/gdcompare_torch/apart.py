"""Operations of ATen taken apart into others, where torch has no decomposition of its own: functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

functional: Any = torch.nn.functional


def _as_strided_scatter(x: Any, source: Any, size: Any, stride: Any, offset: int | None = None) -> Any:
    """Return a copy of x, of which what `as_strided` sees is the source."""
    whole = torch.ops.aten.clone(x, memory_format=torch.preserve_format)
    start = whole.storage_offset() if offset is None else offset
    torch.ops.aten.as_strided(whole, size, stride, start).copy_(source)
    return whole


def _cross_entropy_in_chunks(
    x: Any, linear: Any, target: Any, bias: Any, weight: Any, reduction: str, ignore_index: int, smoothing: float, *_: Any
) -> Any:
    """Return the loss, and nothing of the gradients that are computed with it."""
    logits = functional.linear(x, linear, bias)
    options = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": smoothing}
    loss = functional.cross_entropy(logits, target, weight, **options)
    return loss, *(torch.empty(0) for _ in range(3))


def _cross_entropies_in_chunks(x: Any, linear: Any, target: Any, bias: Any, weight: Any, ignored: int, *_: Any) -> Any:
    return _cross_entropy_in_chunks(x, linear, target, bias, weight, "none", ignored, 0.0)[0]


APART: dict[str, Callable[..., Any]] = {
    "as_strided_scatter": _as_strided_scatter,
    "_linear_cross_entropy_batch_chunked": _cross_entropy_in_chunks,
    "_linear_cross_entropy_batch_chunked_no_reduction": _cross_entropies_in_chunks,
}
"""By the name of the operation."""
