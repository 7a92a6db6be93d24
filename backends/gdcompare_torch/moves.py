"""Operations of ATen that move numbers and change none: shapes, parts, indices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from gdcompare.arithmetic.program import UnsaidError
from gdcompare.arithmetic.whole import as_read

LEAST = -float(np.finfo(np.float32).max)
"""Below all numbers that a program is likely to meet, and finite, which more number systems decide about."""

# Shapes.


def reshaped(xp: Any, x: Any, shape: Sequence[int]) -> Any:
    """aten.view: -1 stands for what is left."""
    size = math.prod(x.shape)
    known = math.prod(n for n in shape if n != -1)
    full = tuple(size // known if n == -1 else int(n) for n in shape)
    return x if tuple(x.shape) == full else xp.reshape(x, full)


def transposed(xp: Any, x: Any, one: int = 0, other: int = 1) -> Any:
    """aten.transpose: two axes exchanged."""
    if x.ndim < 2:
        return x
    axes = list(range(x.ndim))
    axes[one], axes[other] = axes[other], axes[one]
    return xp.permute_dims(x, tuple(axes))


def permuted(xp: Any, x: Any, axes: Sequence[int]) -> Any:
    """aten.permute: the axes in another order."""
    return xp.permute_dims(x, tuple(axis % x.ndim for axis in axes))


def unsqueezed(xp: Any, x: Any, dim: int) -> Any:
    """aten.unsqueeze: a new axis of length 1."""
    at = dim % (x.ndim + 1)
    return xp.reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


def squeezed(xp: Any, x: Any, dim: Any = None) -> Any:
    """aten.squeeze: without axes of length 1, all or some."""
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {i % x.ndim for i in dims} if x.ndim else set()
    return reshaped(xp, x, [n for i, n in enumerate(x.shape) if not (i in gone and n == 1)])


def expanded(xp: Any, x: Any, shape: Sequence[int], *, implicit: bool = False) -> Any:
    """aten.expand: copies; -1 keeps a length."""
    del implicit
    old = (1,) * (len(shape) - x.ndim) + tuple(x.shape)
    full = tuple(b if a == -1 else a for a, b in zip(shape, old, strict=True))
    return x if full == tuple(x.shape) else xp.broadcast_to(x, full)


def part(xp: Any, x: Any, dim: int, key: Any) -> Any:
    """x[..., key], along an axis."""
    return xp.index(x, (*[slice(None)] * (dim % x.ndim), key))


def sliced(xp: Any, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """aten.slice: a part of an axis."""
    return part(xp, x, dim, slice(*slice(start, end, step).indices(x.shape[dim])))


def select(xp: Any, x: Any, dim: int, index: int) -> Any:
    """aten.select: one index of an axis."""
    return part(xp, x, dim, index % x.shape[dim])


def split(xp: Any, x: Any, sizes: Any, dim: int = 0) -> list[Any]:
    """aten.split: pieces of that size, or of those sizes."""
    length = x.shape[dim]
    sizes = [min(sizes, length - i) for i in range(0, length, sizes)] if isinstance(sizes, int) else sizes
    ends = np.cumsum([0, *sizes])
    return [part(xp, x, dim, slice(int(a), int(b))) for a, b in pairwise(ends)]


def unbind(xp: Any, x: Any, dim: int = 0) -> list[Any]:
    """aten.unbind: the slices along an axis."""
    return [part(xp, x, dim, i) for i in range(x.shape[dim])]


def cat(xp: Any, parts: Sequence[Any], dim: int = 0) -> Any:
    """aten.cat: one after the other."""
    some = [each for each in parts if tuple(each.shape) != (0,)]  # what torch leaves out, too
    if not some:
        return parts[0]
    return some[0] if len(some) == 1 else xp.concat(some, axis=dim % some[0].ndim)


def stack(xp: Any, parts: Sequence[Any], dim: int = 0) -> Any:
    """aten.stack: one beside the other."""
    return xp.stack(list(parts), axis=dim % (parts[0].ndim + 1))


def same(xp: Any, x: Any, *_: Any, **__: Any) -> Any:
    """x itself."""
    del xp
    return x


def to_copy(xp: Any, x: Any, *, dtype: Any = None, **_: Any) -> Any:
    """aten._to_copy: whole numbers and conditions of floats; else x itself."""
    old = np.dtype(x.dtype).kind
    if dtype is None or dtype.is_floating_point or old == "b":
        return x
    if str(dtype) == "torch.bool":
        return xp.not_equal(x, 0)
    return xp.astype(x, np.int64) if old == "f" else x


def copied(xp: Any, x: Any, source: Any, non_blocking: bool = False) -> Any:
    """aten.copy_: the source, in the shape of x."""
    del non_blocking
    return xp.broadcast_to(source, tuple(x.shape))


def filled(xp: Any, x: Any, value: Any) -> Any:
    """aten.fill_: one number, in the shape of x."""
    return xp.broadcast_to(value, tuple(x.shape))


def bits(name: str) -> Callable[..., Any]:
    """Return a function of conditions; the bits of whole numbers are as they are where the program is read."""

    def formula(xp: Any, *operands: Any) -> Any:
        odd = [each for each in operands if isinstance(each, int | np.ndarray) and np.all(np.equal(each, 1))]
        if name == "logical_and" and odd:
            return xp.remainder(next(each for each in operands if each is not odd[0]), 2)
        if any(np.dtype(each.dtype).kind != "b" for each in operands if hasattr(each, "dtype")):
            return getattr(np, name.replace("logical", "bitwise"))(*(as_read(xp, each) for each in operands))
        return getattr(xp, name)(*operands)

    return formula


def of_whole_numbers(operation: Any) -> Callable[..., Any]:
    """Return an operation, whichever it is, of whole numbers that are as they are where the program is read."""

    def formula(xp: Any, *operands: Any, **options: Any) -> Any:
        def known(each: Any) -> Any:
            each = as_read(xp, each)
            return torch.from_numpy(each) if isinstance(each, np.ndarray) else each

        given, by_name = tree_map(known, (list(operands), options))
        found = [each.numpy() for each in tree_leaves(operation(*given, **by_name))]
        if any(each.dtype.kind not in "biu" for each in found):
            raise UnsaidError("it is none of the operations that can be read")
        return found[0] if len(found) == 1 else found

    return formula


def masked_fill(xp: Any, x: Any, mask: Any, value: Any) -> Any:
    """aten.masked_fill: a number where the mask holds."""
    return xp.where(mask, value, x)


# Indices. What is taken are flat places, so that indices from the data may be among the operands.


def taken(xp: Any, x: Any, places: Any) -> Any:
    """Take numbers of x at flat places."""
    flat = reshaped(xp, x, (math.prod(x.shape),))
    return xp.reshape(xp.take(flat, reshaped(xp, places, (math.prod(places.shape),)), axis=0), tuple(places.shape))


def wrapped(xp: Any, index: Any, length: int) -> Any:
    """Return indices of which negative ones count from the end."""
    if isinstance(index, np.ndarray):
        return index % length
    return xp.where(xp.less(index, 0), xp.add(index, length), index)


def embedding(xp: Any, table: Any, index: Any, padding_idx: int = -1, *_: Any) -> Any:
    """aten.embedding: rows of a table; that of the padding is a constant."""
    width = table.shape[1]
    at = xp.multiply(reshaped(xp, index, (*index.shape, 1)), width)
    found = taken(xp, table, xp.add(at, np.arange(width)))
    if padding_idx < 0:
        return found
    padded = reshaped(xp, xp.equal(index, padding_idx), (*index.shape, 1))
    return xp.where(padded, xp.stop_gradient(found), found)


def gather(xp: Any, x: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    """aten.gather: along an axis, each at its own index."""
    del sparse_grad
    if not x.ndim or not index.ndim:
        one = gather(xp, x if x.ndim else reshaped(xp, x, (1,)), 0, index if index.ndim else reshaped(xp, index, (1,)))
        return reshaped(xp, one, tuple(index.shape))
    return xp.take_along_axis(within(xp, x, dim, index.shape), index, axis=dim % x.ndim)


def within(xp: Any, x: Any, dim: int, shape: Sequence[int], *, all_axes: bool = False) -> Any:
    """Return the part of x that an index of that shape sees: it may be shorter along the other axes, or along all."""
    key = tuple(slice(None) if i == dim % x.ndim and not all_axes else slice(0, n) for i, n in enumerate(shape))
    return xp.index(x, key)


def indexed(xp: Any, x: Any, indices: Sequence[Any]) -> Any:
    """x[indices], of which None stands for a whole axis; the axes of indices that are apart come first."""
    return taken(xp, x, places(xp, x, indices))


def known_mask(xp: Any, mask: Any) -> Any:
    """Return a mask of what enters as it is here, where all that is read counts on it; all else as it is."""
    return as_read(xp, mask) if np.dtype(mask.dtype).kind == "b" else mask


def _numbered(key: Any) -> Sequence[Any]:
    """Return a mask as the indices where it holds."""
    return np.nonzero(key) if isinstance(key, np.ndarray) and key.dtype.kind == "b" else [key]


def nonzero(xp: Any, x: Any) -> Any:
    """aten.nonzero: where x is not 0, a row for each place."""
    return np.argwhere(known_mask(xp, x if np.dtype(x.dtype).kind == "b" else xp.not_equal(x, 0)))


def unique(xp: Any, x: Any, *_: Any) -> Any:
    """aten._unique2 of whole numbers, as they are here: which there are, which each of them is, and how often."""
    if np.dtype(x.dtype).kind == "f":
        raise UnsaidError("which floats there are has no derivative")
    return np.unique(as_read(xp, x), return_inverse=True, return_counts=True)


def places(xp: Any, x: Any, indices: Sequence[Any]) -> Any:
    """Return the flat places of x[indices]."""
    indices = [each for key in indices for each in ([None] if key is None else _numbered(known_mask(xp, key)))]
    keys = [*indices, *[None] * (x.ndim - len(indices))]
    if all(key is None or isinstance(key, np.ndarray) for key in keys):
        return np.arange(math.prod(x.shape)).reshape(x.shape)[
            tuple(slice(None) if key is None else key for key in keys)
        ]
    strides = [math.prod(x.shape[i + 1 :]) for i in range(x.ndim)]
    given = [i for i, key in enumerate(keys) if key is not None]
    inner = np.broadcast_shapes(*(tuple(keys[i].shape) for i in given))
    together = given == list(range(given[0], given[-1] + 1))
    at = given[0] if together else 0
    before, after = [i for i in range(at) if i not in given], [i for i in range(x.ndim) if i >= at and i not in given]
    shape = (*(x.shape[i] for i in before), *inner, *(x.shape[i] for i in after))
    found: Any = np.zeros((1,) * len(shape), dtype=np.int64)
    for axis, i in [*enumerate(before), *((len(before) + len(inner) + j, i) for j, i in enumerate(after))]:
        found = found + along(np.arange(x.shape[i]) * strides[i], axis, len(shape))
    for i in given:
        key = xp.multiply(wrapped(xp, keys[i], x.shape[i]), strides[i])
        key = reshaped(xp, key, (*(1,) * (len(inner) - key.ndim), *key.shape, *(1,) * len(after)))
        found = xp.add(found, key)
    return xp.broadcast_to(found, shape)


def along(values: Any, axis: int, ndim: int) -> Any:
    """Put values along one of so many axes."""
    return values.reshape(tuple(-1 if i == axis else 1 for i in range(ndim)))


def index_select(xp: Any, x: Any, dim: int, index: Any) -> Any:
    """aten.index_select: some indices of an axis."""
    if not x.ndim:
        return x  # as torch has it, whatever the shape of the index
    line = index if index.ndim else reshaped(xp, index, (1,))
    return indexed(xp, x, [None] * (dim % x.ndim) + [line])


def triangle(name: str) -> Callable[..., Any]:
    """aten.tril and triu."""
    return lambda xp, x, diagonal=0: getattr(xp, name)(x, k=diagonal)


def flipped(xp: Any, x: Any, dims: Sequence[int]) -> Any:
    """aten.flip: axes backwards."""
    return xp.flip(x, axis=tuple(i % x.ndim for i in dims))


def padded(xp: Any, x: Any, pad: Sequence[int], value: float = 0.0) -> Any:
    """Pairs of widths, from the last axis on; negative ones cut."""
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)][::-1]
    pairs = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    cut = tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(pairs, x.shape, strict=True))
    return xp.pad(xp.index(x, cut), tuple((max(a, 0), max(b, 0)) for a, b in pairs), constant_values=value)


def packed(xp: Any, x: Any, lengths: Any, batch_first: bool) -> tuple[Any, Any]:
    """aten._pack_padded_sequence: the rows of each step that are not past their end, one step after the other."""
    steps, count = (x.shape[1], x.shape[0]) if batch_first else x.shape[:2]
    lengths = as_read(xp, lengths)
    places = [(t, b) for t in range(steps) for b in range(count) if t < int(lengths[b])]
    found = np.array([b * steps + t if batch_first else t * count + b for t, b in places])
    sizes = np.bincount([t for t, _ in places])
    return xp.take(reshaped(xp, x, (steps * count, *x.shape[2:])), found, axis=0), sizes


MOVES = {
    "t", "transpose", "permute", "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "expand", "slice", "select",
    "split", "split_with_sizes", "unsafe_split", "unbind", "cat", "stack", "clone", "contiguous", "alias", "detach",
    "lift_fresh", "_to_copy", "where", "masked_fill", "as_strided",
}  # fmt: skip
"""What only moves numbers, or chooses between them."""

CONSTANT = {
    "full_like", "zeros_like", "ones_like", "empty_like", "new_full", "new_zeros", "new_ones", "new_empty", "sym_size",
}  # fmt: skip
"""What looks at a shape and a dtype alone."""
