"""JAX's primitives that take numbers from places, or put numbers into them: `formula(xp, *operands, **its parameters)`.

Places are whole numbers. Those that depend on no input are worked out here; the others by the program itself, at each
point anew, so that a program stays right where they change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import lax

from gdcompare.arithmetic.program import Place, UnsaidError
from gdcompare.arithmetic.whole import as_read, here

FILL = lax.GatherScatterMode.FILL_OR_DROP
LEAST = float(np.finfo(np.float32).max)


def permuted(xp: Any, x: Any, axes: Sequence[int]) -> Any:
    """Return the axes in another order."""
    return x if tuple(axes) == tuple(range(x.ndim)) else xp.permute_dims(x, tuple(axes))


def reshaped(xp: Any, x: Any, shape: Sequence[int]) -> Any:
    """Return the numbers in another shape."""
    if not isinstance(x, Place):
        return np.reshape(x, tuple(map(int, shape)))
    return x if tuple(x.shape) == tuple(shape) else xp.reshape(x, tuple(map(int, shape)))


class Windows(NamedTuple):
    """Which axes of an array the indices speak of, as a gather names them."""

    offset: Sequence[int]
    collapsed: Sequence[int]
    batching: Sequence[int]
    of_batches: Sequence[int]
    starts: Sequence[int]


def places(
    xp: Any, shape: Sequence[int], indices: Any, windows: Windows, sizes: Sequence[int]
) -> tuple[Any, Any, tuple[int, ...]]:
    """Return where in an array of that shape each number stands, made to be inside, and whether its window was so.

    The indices are (*batch, k): where windows of these sizes begin. The last is the shape of both.
    """
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    batch = tuple(indices.shape[:-1])
    offset = [i for i in range(len(shape)) if i not in (*windows.collapsed, *windows.batching)]
    ndim = len(batch) + len(offset)
    batch_axes = [i for i in range(ndim) if i not in windows.offset]
    found: Any = np.zeros((1,) * ndim, dtype=np.int64)
    for axis, i in zip(windows.offset, offset, strict=True):
        found = found + _along(np.arange(sizes[i]) * strides[i], [axis], ndim)
    for i, k in zip(windows.batching, windows.of_batches, strict=True):
        found = found + _along(np.arange(shape[i]) * strides[i], [batch_axes[k]], ndim)
    result, lengths = [1] * ndim, [1] * ndim
    for axis, length in zip(batch_axes, batch, strict=True):
        result[axis] = lengths[axis] = length
    for axis, i in zip(windows.offset, offset, strict=True):
        result[axis] = sizes[i]
    inside: Any = True
    for k, i in enumerate(windows.starts):
        most = shape[i] - sizes[i]
        start = reshaped(xp, indices[..., k], lengths)
        if isinstance(start, Place):
            within = xp.logical_and(xp.greater_equal(start, 0), xp.less_equal(start, most))
            inside = within if inside is True else xp.logical_and(inside, within)
            start = xp.clip(start, 0, most)
        else:
            within = (start >= 0) & (start <= most)
            inside = xp.logical_and(inside, within) if isinstance(inside, Place) else inside & within
            start = np.clip(start.astype(np.int64), 0, most)
        found = found + start * strides[i]
    return _broadcast(xp, found, result), _broadcast(xp, inside, result), tuple(result)


def _along(values: Any, axes: Sequence[int], ndim: int) -> Any:
    return values.reshape(tuple(-1 if i in axes else 1 for i in range(ndim)))


def _broadcast(xp: Any, x: Any, shape: Sequence[int]) -> Any:
    return xp.broadcast_to(x, tuple(shape)) if isinstance(x, Place) else np.broadcast_to(x, shape)


def gather(
    xp: Any, x: Any, indices: Any, *, dimension_numbers: Any, slice_sizes: Any, mode: Any = None,
    fill_value: Any = None, **_: Any,
) -> Any:  # fmt: skip
    """Return slices of x; the index of each says where it begins. Beyond the end they move inside, or are filled."""
    numbers = dimension_numbers
    windows = Windows(
        numbers.offset_dims, numbers.collapsed_slice_dims, numbers.operand_batching_dims,
        numbers.start_indices_batching_dims, numbers.start_index_map,
    )  # fmt: skip
    found, inside, shape = places(xp, x.shape, indices, windows, slice_sizes)
    flat = reshaped(xp, x, (math.prod(x.shape),))
    taken = reshaped(xp, xp.take(flat, reshaped(xp, found, (math.prod(shape),)), axis=0), shape)
    if mode is not None and lax.GatherScatterMode.from_any(mode) == FILL and not _always(inside):
        taken = xp.where(inside, taken, _filled(x) if fill_value is None else fill_value)
    return taken


def _always(inside: Any) -> bool:
    return not isinstance(inside, Place) and bool(np.all(inside))


def _filled(x: Any) -> Any:
    """Return what JAX fills with."""
    kind = np.dtype(x.dtype)
    if kind.kind == "f":
        return np.nan
    return {"u": np.iinfo(kind).max, "i": np.iinfo(kind).min}.get(kind.kind, True) if kind.kind in "iu" else True


def dynamic_slice(xp: Any, x: Any, *starts: Any, slice_sizes: Sequence[int], **_: Any) -> Any:
    """Return a window that never leaves x."""
    windows = Windows(range(x.ndim), (), (), (), range(x.ndim))
    found, _inside, shape = places(xp, x.shape, _index(xp, starts), windows, slice_sizes)
    flat = reshaped(xp, x, (math.prod(x.shape),))
    return reshaped(xp, xp.take(flat, reshaped(xp, found, (math.prod(shape),)), axis=0), shape)


def dynamic_update_slice(xp: Any, x: Any, update: Any, *starts: Any, **_: Any) -> Any:
    """Return x with a window that never leaves it written over."""
    windows = Windows(range(x.ndim), (), (), (), range(x.ndim))
    found, _inside, _shape = places(xp, x.shape, _index(xp, starts), windows, update.shape)
    return _written(xp, x, found, True, update)


def _index(xp: Any, starts: Sequence[Any]) -> Any:
    some = any(isinstance(each, Place) for each in starts)
    return xp.stack(list(starts)) if some else np.array(starts, dtype=np.int64)


# Writing.


def _updates(xp: Any, x: Any, indices: Any, updates: Any, numbers: Any, mode: Any) -> tuple[Any, Any]:
    """Return where each update goes, and whether it goes anywhere."""
    windows = Windows(
        numbers.update_window_dims, numbers.inserted_window_dims, numbers.operand_batching_dims,
        numbers.scatter_indices_batching_dims, numbers.scatter_dims_to_operand_dims,
    )  # fmt: skip
    lengths = iter([updates.shape[axis] for axis in numbers.update_window_dims])
    alone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    sizes = [1 if i in alone else next(lengths) for i in range(x.ndim)]
    found, inside, _shape = places(xp, x.shape, indices, windows, sizes)
    clips = mode is not None and lax.GatherScatterMode.from_any(mode) == lax.GatherScatterMode.CLIP
    return found, True if clips or _always(inside) else inside


def _with_room(xp: Any, x: Any, found: Any, inside: Any) -> tuple[Any, Any, int]:
    """Return x as a line, and the places in it; what goes nowhere has places of its own behind the end."""
    size, count = math.prod(x.shape), math.prod(found.shape)
    flat = reshaped(xp, x, (size,))
    found = reshaped(xp, found, (count,))
    if inside is True:
        return flat, found, size
    beyond, inside = np.arange(size, size + count), reshaped(xp, inside, (count,))
    if isinstance(found, Place) or isinstance(inside, Place):
        found = xp.astype(xp.where(inside, found, beyond), np.int64)
    else:
        found = np.where(inside, found, beyond)
    return xp.concat([flat, np.zeros(count)]), found, size


def _written(xp: Any, x: Any, found: Any, inside: Any, updates: Any) -> Any:
    line, found, size = _with_room(xp, x, found, inside)
    known = np.rint(found.value) if isinstance(found, Place) else found
    if len(np.unique(known)) < known.size:
        raise UnsaidError("it writes into one place twice, in an order that nobody knows")
    written = xp.scatter(line, found, reshaped(xp, updates, (known.size,)))
    return reshaped(xp, xp.index(written, slice(size)), x.shape)


def scatter(xp: Any, x: Any, indices: Any, updates: Any, *, dimension_numbers: Any, mode: Any = None, **_: Any) -> Any:
    """Return x with updates in their places."""
    return _written(xp, x, *_updates(xp, x, indices, updates, dimension_numbers, mode), updates)


def scatter_add(sign: float) -> Callable[..., Any]:
    """Return the formula that adds updates, or takes them away, where several may meet."""

    def formula(
        xp: Any, x: Any, indices: Any, updates: Any, *, dimension_numbers: Any, mode: Any = None, **_: Any
    ) -> Any:
        found, inside = _updates(xp, x, indices, updates, dimension_numbers, mode)
        line, found, size = _with_room(xp, x, found, inside)
        added = reshaped(xp, updates if sign > 0 else xp.negative(updates), (math.prod(updates.shape),))
        return reshaped(xp, xp.index(xp.scatter_add(line, found, added), slice(size)), x.shape)

    return formula


def scatter_by(name: str) -> Callable[..., Any]:
    """Return the formula that multiplies by updates, or takes the larger or the smaller; one after the other."""

    def formula(
        xp: Any, x: Any, indices: Any, updates: Any, *, dimension_numbers: Any, mode: Any = None, **_: Any
    ) -> Any:
        found, inside = _updates(xp, x, indices, updates, dimension_numbers, mode)
        line, found, size = _with_room(xp, x, found, inside)
        values = reshaped(xp, updates, (math.prod(updates.shape),))
        if isinstance(found, Place) and len(np.unique(here(found))) < found.size:
            found = as_read(xp, found)  # one after the other, as they meet for these data
        for turn in _turns(found):
            at = found if turn is None else found[turn]
            each = values if turn is None else xp.index(values, turn) if isinstance(values, Place) else values[turn]
            line = xp.scatter(line, at, getattr(xp, name)(xp.take(line, at, axis=0), each))
        return reshaped(xp, xp.index(line, slice(size)), x.shape)

    return formula


def _turns(found: Any) -> list[Any]:
    """Return which updates may be written at once: those whose places are not the same."""
    if isinstance(found, Place):
        return [None]
    earlier: dict[int, int] = {}
    turns: list[list[int]] = []
    for i, place in enumerate(found.tolist()):
        turn = earlier[place] = earlier.get(place, -1) + 1
        turns += [[]] if turn == len(turns) else []
        turns[turn].append(i)
    return [np.array(turn) for turn in turns]


# Other moves.


def pad(xp: Any, x: Any, value: Any, *, padding_config: Any) -> Any:
    """Return x with a number around it and between its own, or without some of these."""
    if not any(inner or before < 0 or after < 0 for before, after, inner in padding_config):
        widths = tuple((before, after) for before, after, _ in padding_config)
        if not isinstance(value, Place):
            return xp.pad(x, widths, constant_values=value)
    size = math.prod(x.shape)
    numbers = np.arange(size, dtype=np.int32).reshape(x.shape)
    found = np.asarray(lax.pad(numbers, np.int32(size), padding_config)).astype(np.int64)
    line = xp.concat([reshaped(xp, x, (size,)), reshaped(xp, value, (1,))])
    return reshaped(xp, xp.take(line, found.ravel(), axis=0), found.shape)


def rev(xp: Any, x: Any, *, dimensions: Sequence[int]) -> Any:
    """Return axes backwards."""
    return xp.flip(x, axis=tuple(dimensions)) if dimensions else x


def tile(xp: Any, x: Any, *, reps: Sequence[int], **_: Any) -> Any:
    """Return copies side by side."""
    return xp.tile(x, tuple(reps))


def sort(xp: Any, *operands: Any, dimension: int, num_keys: int, **_: Any) -> list[Any]:
    """Return operands in the order of the first, among equals in that of the next, and so on."""
    if len(operands) == 1:
        return [xp.sort(operands[0], axis=dimension)]
    order = xp.argsort(operands[num_keys - 1], axis=dimension)
    for key in operands[: num_keys - 1][::-1]:
        after = xp.argsort(xp.take_along_axis(key, order, axis=dimension), axis=dimension)
        order = xp.take_along_axis(order, after, axis=dimension)
    return [xp.take_along_axis(each, order, axis=dimension) for each in operands]


def top_k(xp: Any, x: Any, *, k: int, axis: int = -1, **_: Any) -> list[Any]:
    """Return the largest, and where they are."""
    return list(xp.topk(x, k, axis=axis % x.ndim))


# Windows.


def window(
    xp: Any, x: Any, fill: float, *, window_dimensions: Any, window_strides: Any, padding: Any, base_dilation: Any = (),
    window_dilation: Any = (), **_: Any,
) -> Any:  # fmt: skip
    """Return what windows see, along a last axis."""
    between = base_dilation or (1,) * x.ndim
    dilation = window_dilation or (1,) * x.ndim
    around = [(int(before), int(after), step - 1) for (before, after), step in zip(padding, between, strict=True)]
    x = pad(xp, x, fill, padding_config=around)
    return xp.windows(x, window_dimensions, stride=window_strides, dilation=dilation)


def reduce_window(name: str, empty: float) -> Callable[..., Any]:
    """Return the formula of a reduction in windows."""
    return lambda xp, x, **how: getattr(xp, name)(window(xp, x, empty, **how), axis=-1)


def _chosen(xp: Any, x: Any, select_prim: Any, **how: Any) -> Any:
    """Return which number of each window is the largest, or the smallest: of equals the first, as XLA has it."""
    largest = select_prim.name == "ge"
    seen = window(xp, x, -LEAST if largest else LEAST, **how)
    return xp.expand_dims((xp.argmax if largest else xp.argmin)(seen, axis=-1), axis=-1)


def select_and_scatter_add(xp: Any, source: Any, x: Any, *, select_prim: Any, **how: Any) -> Any:
    """Return zeros to which each window's number was added where its largest is: the way back of pooling."""
    which = _chosen(xp, x, select_prim, **how)
    size = math.prod(x.shape)
    numbers = window(xp, np.arange(size, dtype=np.float64).reshape(x.shape), float(size), **how).value.astype(np.int64)
    found = xp.take_along_axis(numbers, which, axis=-1)
    count = math.prod(source.shape)
    line = xp.scatter_add(np.zeros(size + 1), reshaped(xp, found, (count,)), reshaped(xp, source, (count,)))
    return reshaped(xp, xp.index(line, slice(size)), x.shape)


def select_and_gather_add(xp: Any, source: Any, x: Any, *, select_prim: Any, **how: Any) -> Any:
    """Return each window's number of the source where its largest of x is: pooling, forward mode."""
    which = _chosen(xp, x, select_prim, **how)
    found = xp.take_along_axis(window(xp, source, 0.0, **how), which, axis=-1)
    return xp.squeeze(found, axis=-1)
