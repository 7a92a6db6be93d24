"""Operations of ATen that put numbers into places of others, or reduce what goes into one place.

Places are flat: where in the array a number stands. What is put where the index says, or is added there, goes where it
does for any data; what is reduced there, or fills it, goes where it does for those with which the program is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gdcompare.arithmetic.program import UnsaidError
from gdcompare.arithmetic.whole import as_read
from gdcompare_torch import moves
from gdcompare_torch.moves import LEAST


def _flat(xp: Any, x: Any) -> Any:
    return moves.reshaped(xp, x, (math.prod(x.shape),))


def _shaped(xp: Any, x: Any, shape: Sequence[int]) -> Any:
    return moves.reshaped(xp, x, tuple(shape))


def put(xp: Any, x: Any, places: Any, values: Any) -> Any:
    """Return x with values, of the shape of the places, in these; one value may go into a place several times."""
    if isinstance(places, np.ndarray) and math.prod(np.shape(values)) == 1:
        places = np.unique(places)
        values = xp.broadcast_to(_flat(xp, values) if np.ndim(values) else values, places.shape)
    elif isinstance(places, np.ndarray) and np.unique(places).size < places.size:
        raise UnsaidError("it writes several numbers into one place, and nobody says which is the last")
    count = math.prod(places.shape)
    values = _flat(xp, xp.broadcast_to(values, tuple(places.shape)))
    return _shaped(xp, xp.scatter(_flat(xp, x), moves.reshaped(xp, places, (count,)), values), x.shape)


def add(xp: Any, x: Any, places: Any, values: Any) -> Any:
    """Return x with the values added in these places."""
    count = math.prod(places.shape)
    values = _flat(xp, xp.broadcast_to(values, tuple(places.shape)))
    return _shaped(xp, xp.scatter_add(_flat(xp, x), moves.reshaped(xp, places, (count,)), values), x.shape)


def index_put(xp: Any, x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False, *_: Any) -> Any:
    """aten.index_put: x[indices] = values, or += values."""
    return (add if accumulate else put)(xp, x, moves.places(xp, x, indices), values)


def flat_put(xp: Any, x: Any, index: Any, values: Any, accumulate: bool = False) -> Any:
    """aten.put: the index counts through all of x."""
    index = moves.wrapped(xp, moves.reshaped(xp, index, (-1,)), math.prod(x.shape))
    return (add if accumulate else put)(xp, x, index, _flat(xp, values))


def _along(xp: Any, x: Any, dim: int, index: Any) -> Any:
    """Return the places that an index along an axis stands for."""
    strides = [math.prod(x.shape[i + 1 :]) for i in range(x.ndim)]
    dim %= x.ndim
    others = sum(
        (moves.along(np.arange(index.shape[i]) * strides[i], i, x.ndim) for i in range(x.ndim) if i != dim),
        np.zeros((1,) * x.ndim, dtype=np.int64),
    )
    if isinstance(index, np.ndarray):
        return others + index * strides[dim]
    return xp.add(xp.multiply(index, strides[dim]), others)


def _lifted(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Let a formula of arrays along an axis take single numbers, too."""

    def lifted(xp: Any, x: Any, dim: int, index: Any, values: Any, *more: Any, **options: Any) -> Any:
        if x.ndim:
            return formula(xp, x, dim, index, values, *more, **options)
        line = moves.reshaped(xp, x, (1,))
        some = _flat(xp, values) if np.ndim(values) == 0 and hasattr(values, "shape") else values
        return moves.reshaped(xp, formula(xp, line, dim, index.reshape(-1), some, *more, **options), ())

    return lifted


@_lifted
def scatter(xp: Any, x: Any, dim: int, index: Any, source: Any, *, reduce: str = "") -> Any:
    """aten.scatter: along an axis, each to its own index."""
    places = _along(xp, x, dim, index)
    some = moves.within(xp, source, dim, index.shape, all_axes=True) if hasattr(source, "shape") else source
    if reduce == "multiply":
        return _grouped(xp, x, as_read(xp, places), xp.broadcast_to(some, places.shape), "prod", True)
    return (add if reduce == "add" else put)(xp, x, places, some)


@_lifted
def scatter_add(xp: Any, x: Any, dim: int, index: Any, source: Any) -> Any:
    """aten.scatter_add: several numbers may go to one place."""
    return add(xp, x, _along(xp, x, dim, index), moves.within(xp, source, dim, index.shape, all_axes=True))


@_lifted
def scatter_reduce(
    xp: Any, x: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """aten.scatter_reduce: the sum, mean, product, largest or smallest of what goes to one place."""
    places = _along(xp, x, dim, index)
    some = moves.within(xp, source, dim, index.shape, all_axes=True)
    if reduce == "sum" and include_self:
        return add(xp, x, places, some)
    return _grouped(xp, x, as_read(xp, places), some, reduce, include_self)


def _expanded(xp: Any, x: Any, dim: int, index: Any, source: Any) -> Any:
    """Return an index of one axis in the shape of what goes there."""
    along = moves.reshaped(xp, index, tuple(-1 if i == dim % x.ndim else 1 for i in range(x.ndim)))
    return (np if isinstance(along, np.ndarray) else xp).broadcast_to(along, source.shape)


@_lifted
def index_add(xp: Any, x: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Any:
    """aten.index_add: slices are added at the indices of an axis."""
    scaled = source if alpha == 1 else xp.multiply(source, alpha)
    return add(xp, x, _along(xp, x, dim, _expanded(xp, x, dim, index, source)), scaled)


@_lifted
def index_copy(xp: Any, x: Any, dim: int, index: Any, source: Any) -> Any:
    """aten.index_copy: slices are put at the indices of an axis."""
    return put(xp, x, _along(xp, x, dim, _expanded(xp, x, dim, index, source)), source)


@_lifted
def index_fill(xp: Any, x: Any, dim: int, index: Any, value: Any) -> Any:
    """aten.index_fill: one number at the indices of an axis."""
    key = (*[slice(None)] * (dim % x.ndim), as_read(xp, index))
    return put(xp, x, np.arange(math.prod(x.shape)).reshape(x.shape)[key], value)


@_lifted
def index_reduce(xp: Any, x: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True) -> Any:
    """aten.index_reduce: as scatter_reduce, slices at the indices of an axis."""
    places = _along(xp, x, dim, _expanded(xp, x, dim, index, source))
    return _grouped(xp, x, as_read(xp, places), source, reduce, include_self)


NEUTRAL = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": LEAST, "amin": -LEAST}


def table(groups: Sequence[Any], size: int) -> Any:
    """Return the members of each group, one row each, filled up with the size.

    >>> table([[3, 1], [], [0]], 4).tolist()
    [[3, 1], [4, 4], [0, 4]]
    """
    result = np.full((len(groups), max(map(len, groups), default=0)), size, dtype=np.int64)
    for row, members in zip(result, groups, strict=True):
        row[: len(members)] = members
    return result


def members(xp: Any, x: Any, rows: Any, fill: float) -> Any:
    """Return the numbers of a line x in the places of a table, of which the size stands for the fill."""
    return moves.taken(xp, xp.concat([x, np.array([fill])], axis=0), rows)


def reduced(xp: Any, x: Any, counts: Any, reduce: str) -> Any:
    """Reduce the last axis; counts say how many of its members there really are."""
    if reduce in ("sum", "mean"):
        total = xp.sum(x, axis=-1)
        return xp.divide(total, np.maximum(counts, 1).astype(np.float64)) if reduce == "mean" else total
    return {"prod": xp.prod, "amax": xp.max, "amin": xp.min}[reduce](x, axis=-1)


def _grouped(xp: Any, x: Any, places: Any, source: Any, reduce: str, include_self: bool) -> Any:
    size, count = math.prod(x.shape), math.prod(source.shape)
    order = np.argsort(places, axis=None, kind="stable")
    ends = np.searchsorted(places.ravel()[order], np.arange(size + 1))
    rows = table([order[a:b] for a, b in pairwise(ends)], count)
    touched = (rows < count).any(axis=1)
    fill = NEUTRAL[reduce]
    gone = touched & (not include_self)
    own = _flat(xp, x)
    own = xp.where(gone, fill, own) if gone.any() else own
    each = xp.concat([members(xp, _flat(xp, source), rows, fill), moves.reshaped(xp, own, (size, 1))], axis=1)
    return _shaped(xp, reduced(xp, each, (rows < count).sum(axis=1) + ~gone, reduce), x.shape)


def masked_scatter(xp: Any, x: Any, mask: Any, source: Any) -> Any:
    """aten.masked_scatter: the first numbers of the source, where the mask holds."""
    shape = np.broadcast_shapes(x.shape, mask.shape)
    places = np.flatnonzero(np.broadcast_to(moves.known_mask(xp, mask), shape))
    wide = xp.broadcast_to(x, shape)
    return put(xp, wide, places, xp.index(_flat(xp, source), slice(0, places.size))) if places.size else wide


def masked_select(xp: Any, x: Any, mask: Any) -> Any:
    """aten.masked_select: a line of the numbers where the mask holds."""
    shape = np.broadcast_shapes(x.shape, mask.shape)
    places = np.flatnonzero(np.broadcast_to(moves.known_mask(xp, mask), shape))
    return moves.taken(xp, xp.broadcast_to(x, shape), places)


def embedding_bag(
    xp: Any, weight: Any, indices: Any, offsets: Any, scale_grad_by_freq: bool = False, mode: int = 0,
    sparse: bool = False, per_sample_weights: Any = None, include_last_offset: bool = False, padding_idx: int = -1,
) -> Any:  # fmt: skip
    """aten._embedding_bag: the sum, mean or largest of some rows of a table, bag by bag."""
    del sparse
    if scale_grad_by_freq:
        raise UnsaidError("its gradient is scaled by how often a row occurs, and so none of its value")
    count, starts = indices.shape[0], [int(each) for each in as_read(xp, offsets)]
    ends = [*starts[1:], count]
    known = as_read(xp, indices) if padding_idx >= 0 else np.zeros(count)
    bags = list(zip(starts, ends, strict=True))[: len(starts) - include_last_offset]
    kept = [[i for i in range(a, b) if known[i] != padding_idx] for a, b in bags]
    rows, width = table(kept, count), weight.shape[1]
    words = moves.taken(xp, xp.concat([indices, np.array([weight.shape[0]])], axis=0), rows)  # (bags, most)
    fill = LEAST if mode == 2 else 0.0
    more = xp.concat([weight, np.full((1, width), fill)], axis=0)
    places = xp.add(xp.multiply(xp.expand_dims(words, axis=-1), width), np.arange(width))
    found = moves.taken(xp, more, places)  # (bags, most, width)
    if per_sample_weights is not None:
        found = xp.multiply(found, xp.expand_dims(members(xp, per_sample_weights, rows, 0.0), axis=-1))
    counts = (rows < count).sum(axis=1)[:, None]
    result = reduced(xp, xp.moveaxis(found, 1, -1), counts, ("sum", "mean", "amax")[mode])
    return xp.where(counts == 0, 0.0, result) if mode == 2 else result, None, None, None


def segment_reduce(
    xp: Any, x: Any, reduce: str, *, lengths: Any = None, indices: Any = None, offsets: Any = None, axis: int = 0,
    unsafe: bool = False, initial: float | None = None,
) -> Any:  # fmt: skip
    """aten.segment_reduce: parts of an axis, one after the other, are reduced to one number each."""
    del indices, unsafe
    if lengths is None:
        ends = as_read(xp, offsets)
    else:
        ends = np.cumsum(np.pad(as_read(xp, lengths), [(0, 0)] * axis + [(1, 0)]), axis)
    lead, segments = x.shape[:axis], ends.shape[-1] - 1
    lines = ends.reshape(-1, segments + 1)
    n, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    name = {"max": "amax", "min": "amin"}.get(reduce, reduce)
    groups = [range(line[i] + n * k, line[i + 1] + n * k) for k, line in enumerate(lines) for i in range(segments)]
    rows = table(groups, len(lines) * n)
    places = np.where(
        rows[..., None] < len(lines) * n, rows[..., None] * inner + np.arange(inner), len(lines) * n * inner
    )
    found = xp.moveaxis(members(xp, _flat(xp, x), places, NEUTRAL[name]), 1, -1)  # (rows, inner, most)
    counts = np.array([len(each) for each in groups])[:, None]
    if initial is not None:
        start = np.full((*found.shape[:-1], 1), float(initial))
        found = xp.concat([found, start], axis=-1)
        result = reduced(xp, found, counts, name)
    else:
        result = reduced(xp, found, counts, name)
        nothing = {"sum": 0.0, "prod": 1.0, "mean": math.nan, "amax": -math.inf, "amin": math.inf}[name]
        result = xp.where(counts == 0, nothing, result) if (counts == 0).any() else result
    return moves.reshaped(xp, result, (*lead, segments, *x.shape[axis + 1 :]))


WRITES: dict[str, Callable[..., Any]] = {
    "index_put": index_put,
    "_unsafe_index_put": index_put,
    "_index_put_impl": index_put,
    "put": flat_put,
    "scatter": scatter,
    "scatter_add": scatter_add,
    "scatter_reduce": scatter_reduce,
    "index_add": index_add,
    "index_copy": index_copy,
    "index_fill": index_fill,
    "index_reduce": index_reduce,
    "masked_scatter": masked_scatter,
    "masked_select": masked_select,
    "_embedding_bag": embedding_bag,
    "_embedding_bag_forward_only": embedding_bag,
    "segment_reduce": segment_reduce,
}
