"""Operations of ATen taken apart into others, where torch has no decomposition of its own: functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _as_strided_scatter(x: Any, source: Any, size: Any, stride: Any, offset: int | None = None) -> Any:
    """Return a copy of x, of which what `as_strided` sees is the source."""
    whole = torch.ops.aten.clone(x, memory_format=torch.preserve_format)
    start = whole.storage_offset() if offset is None else offset
    torch.ops.aten.as_strided(whole, size, stride, start).copy_(source)
    return whole


APART: dict[str, Callable[..., Any]] = {
    "as_strided_scatter": _as_strided_scatter,
}
"""By the name of the operation."""
