"""Operations of ATen that put numbers in order, choose among them, or run along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gdcompare.arithmetic.program import UnsaidError
from gdcompare_torch import moves
from gdcompare_torch.moves import LEAST


def lifted(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Let a formula along an axis take a single number, as a line of one."""

    def apply(xp: Any, x: Any, *more: Any, **options: Any) -> Any:
        if x.ndim:
            return formula(xp, x, *more, **options)
        found = formula(xp, moves.reshaped(xp, x, (1,)), *more, **options)
        if isinstance(found, tuple):
            return tuple(_single(xp, each) for each in found)
        return _single(xp, found)

    return apply


def _single(xp: Any, x: Any) -> Any:
    if callable(x):
        return lambda: _single(xp, x())
    return x if x is None else moves.reshaped(xp, x, ())


@lifted
def sort(xp: Any, x: Any, dim: int = -1, descending: bool = False, *, stable: Any = None) -> Any:
    """aten.sort: in order, and where each stood."""
    del stable
    how = {"axis": dim % x.ndim, "descending": descending}
    return xp.sort(x, **how), lambda: xp.argsort(x, **how)


@lifted
def topk(xp: Any, x: Any, k: int, dim: int = -1, largest: bool = True, in_order: bool = True) -> Any:
    """aten.topk: the first k in order, and where they stood."""
    del in_order
    values, places = sort(xp, x, dim, largest)
    return moves.sliced(xp, values, dim, 0, k), lambda: moves.sliced(xp, places(), dim, 0, k)


@lifted
def kthvalue(xp: Any, x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """aten.kthvalue: the k-th in order, counted from 1, and where it stood."""
    values, places = sort(xp, x, dim)

    def part(each: Any) -> Any:
        one = moves.sliced(xp, each, dim, k - 1, k)
        return one if keepdim else xp.squeeze(one, dim % x.ndim)

    return part(values), lambda: part(places())


@lifted
def median_along(xp: Any, x: Any, dim: int, keepdim: bool = False) -> Any:
    """aten.median.dim: the middle in order, the lower of two."""
    return kthvalue(xp, x, (x.shape[dim] + 1) // 2, dim, keepdim)


def median(xp: Any, x: Any) -> Any:
    """aten.median: of all numbers."""
    return kthvalue(xp, moves.reshaped(xp, x, (-1,)), (math.prod(x.shape) + 1) // 2)[0]


@lifted
def nanmedian_along(xp: Any, x: Any, dim: int, keepdim: bool = False) -> Any:
    """aten.nanmedian.dim: the middle of those that are numbers when the program is read."""
    unknown = np.isnan(x.value)
    if not unknown.any():
        return median_along(xp, x, dim, keepdim)
    ordered = xp.sort(xp.where(unknown, -LEAST, x), axis=dim % x.ndim)
    count = np.sum(~unknown, axis=dim, keepdims=True)
    middle = xp.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=dim % x.ndim)
    found = xp.where(count == 0, math.nan, middle)
    return (found if keepdim else xp.squeeze(found, dim % x.ndim)), None


def nanmedian(xp: Any, x: Any) -> Any:
    """aten.nanmedian: of all numbers."""
    return nanmedian_along(xp, moves.reshaped(xp, x, (-1,)), 0)[0]


@lifted
def mode(xp: Any, x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """aten.mode: the smallest of those that occur most often."""
    ordered = xp.moveaxis(xp.sort(x, axis=dim % x.ndim), dim, -1)
    one, other = xp.expand_dims(ordered, axis=-1), xp.expand_dims(ordered, axis=-2)
    often = xp.sum(xp.equal(one, other), axis=-1)
    first = xp.expand_dims(xp.argmax(often, axis=-1), axis=-1)
    found = xp.moveaxis(xp.take_along_axis(ordered, first, axis=-1), -1, dim)
    return (found if keepdim else xp.squeeze(found, dim % x.ndim)), None


def _running(name: str) -> Callable[..., Any]:
    """Return a formula that joins each number along an axis with all before it."""
    return lifted(lambda xp, x, dim: getattr(xp, name)(x, axis=dim % x.ndim))


_cummax, _cummin = _running("cumulative_max"), _running("cumulative_min")


@lifted
def cumprod(xp: Any, x: Any, dim: int, **_: Any) -> Any:
    """aten.cumprod: the product with all before."""
    return xp.cumulative_prod(x, axis=dim % x.ndim)


@lifted
def cumsum(xp: Any, x: Any, dim: int, **_: Any) -> Any:
    """aten.cumsum: the sum with all before."""
    return xp.cumulative_sum(x, axis=dim % x.ndim)


@lifted
def prod_along(xp: Any, x: Any, dim: int, keepdim: bool = False, **_: Any) -> Any:
    """aten.prod.dim_int."""
    return xp.prod(x, axis=dim % x.ndim, keepdims=keepdim)


@lifted
def argmax(xp: Any, x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """aten.argmax."""
    return xp.argmax(x, axis=dim, keepdims=keepdim)


@lifted
def argmin(xp: Any, x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """aten.argmin."""
    return xp.argmin(x, axis=dim, keepdims=keepdim)


def searchsorted(
    xp: Any, line: Any, x: Any, *, out_int32: bool = False, right: bool = False, side: str | None = None,
    sorter: Any = None,
) -> Any:  # fmt: skip
    """aten.searchsorted, in one line."""
    del out_int32
    if line.ndim != 1 or sorter is not None:
        raise UnsaidError("it searches in several lines, or in one that is in no order")
    return xp.searchsorted(line, x, side="right" if right or side == "right" else "left")


ORDERS: dict[str, Callable[..., Any]] = {
    "sort": sort,
    "argsort": lambda xp, *given, **how: sort(xp, *given, **how)[1](),
    "topk": topk,
    "kthvalue": kthvalue,
    "median": median,
    "median.dim": median_along,
    "nanmedian": nanmedian,
    "nanmedian.dim": nanmedian_along,
    "mode": mode,
    "cummax": lambda xp, x, dim: (_cummax(xp, x, dim), None),
    "cummin": lambda xp, x, dim: (_cummin(xp, x, dim), None),
    "logcumsumexp": _running("cumulative_logsumexp"),
    "cumprod": cumprod,
    "cumsum": cumsum,
    "prod.default": lambda xp, x, **_: xp.prod(x),
    "prod.dim_int": prod_along,
    "argmax": argmax,
    "argmin": argmin,
    "searchsorted": searchsorted,
}
