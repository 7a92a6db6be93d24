"""Array functions that move numbers and change none, each beside its derivative, over any number system.

A move takes each number of its result from one place, so its derivative adds up, at each place, what was taken from it:

    y_j = x_{p(j)}      (dL/dx)_i = sum of (dL/dy)_j over all j with p(j) = i

The places are whole numbers that nobody differentiates by. Each of the tape's hidden computations may have its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.axes import several
from gdcompare.arithmetic.function import nobody_knows
from gdcompare.arithmetic.whole import known_whole

Places = NDArray[np.intp]
"""Where in its row each number comes from: (1, *shape), or (hidden, *shape) if each computation has its own."""


# Indices.


def index(xp: Any, x: Any, key: Any) -> Any:
    """Return x[key], for integers, slices, None, `...`, and arrays of integers or conditions."""
    x = xp.asarray(x)
    keys = key if isinstance(key, tuple) else (key,)
    if all(map(_is_plain, keys)):
        places, scatter = (slice(None), *keys), xp.numbers.scatter
        return _alike(xp.record(x.value[places], (x, lambda g: scatter(g, places, (g.shape[0], *x.shape)))), x)
    return gather(xp, x, *_places(x.shape, keys), "index")


def take(xp: Any, x: Any, indices: Any, *, axis: int | None = None) -> Any:
    """x[..., indices, ...] along an axis."""
    x = xp.asarray(x)
    if axis is None and x.ndim != 1:
        raise TypeError(f"take wants an axis, of an array of {x.ndim} dimensions")
    return gather(xp, x, *_places(x.shape, (*[slice(None)] * ((axis or 0) % x.ndim), xp.asarray(indices))), "take")


def take_along_axis(xp: Any, x: Any, indices: Any, *, axis: int = -1) -> Any:
    """In each line along the axis, the elements at the line's own indices."""
    x, (found, known) = xp.asarray(x), _as_index(xp.asarray(indices))
    axis = axis % x.ndim
    others = np.broadcast_shapes(*((*s[:axis], 1, *s[axis + 1 :]) for s in (x.shape, found.shape[1:])))
    shape, lines = ((*others[:axis], s[axis], *others[axis + 1 :]) for s in (found.shape[1:], x.shape))
    everywhere = np.broadcast_to(np.arange(x.size, dtype=np.intp).reshape(x.shape), lines)
    places = [np.take_along_axis(everywhere, np.broadcast_to(row, shape), axis) for row in found]
    return gather(xp, x, np.stack(places), known, "take_along_axis")


def gather(xp: Any, x: Any, places: Places, known: bool = True, name: str = "gather") -> Any:
    """Return the numbers of x at these places; NaN if nobody knows the places."""
    x, numbers = xp.asarray(x), xp.numbers
    value = numbers.rearrange(lambda part: _taken(part, places), x.value)
    if known:
        return _alike(xp.record(value, (x, lambda g: _put_back(numbers, g, places, x.shape)), name=name), x)
    unknown = partial(nobody_knows, numbers)
    back = (x, lambda g: _put_back(numbers, g, places, x.shape) + unknown(x.ndim + 1))
    return _alike(xp.record(value + unknown(value.ndim), back, name=name), x)


def scatter(xp: Any, x: Any, key: Any, values: Any) -> Any:
    """Return x with the values in the places of x[key], each of which occurs once."""
    x, values, numbers = xp.asarray(x), xp.asarray(values), xp.numbers
    places, known = _places(x.shape, key if isinstance(key, tuple) else (key,))
    values = xp.broadcast_to(values, places.shape[1:])
    if not known or any(len(np.unique(row)) < row.size for row in places):
        raise TypeError("scatter puts numbers into known places, each of which occurs once")
    kept = np.ones((len(places), x.size))
    np.put_along_axis(kept, places.reshape(len(places), -1), 0.0, axis=1)
    mask = numbers.asarray(kept.reshape(len(places), *x.shape))

    def put(old: Any, new: Any) -> Any:
        rows = max(len(old), len(new), len(places))
        result = np.array(np.broadcast_to(old, (rows, *old.shape[1:]))).reshape(rows, -1)
        into = np.broadcast_to(places.reshape(len(places), -1), (rows, places[0].size))
        np.put_along_axis(result, into, np.broadcast_to(new, (rows, *new.shape[1:])).reshape(rows, -1), axis=1)
        return result.reshape(rows, *old.shape[1:])

    result = xp.record(
        numbers.rearrange(put, x.value, values.value),
        (x, lambda g: numbers.leave_out(mask, g)),
        (values, lambda g: numbers.rearrange(lambda part: _taken(part, places), g)),
    )
    return _alike(result, x, values)


def scatter_add(xp: Any, x: Any, key: Any, values: Any) -> Any:
    """Return x with the values added in the places of x[key], which may occur several times."""
    x, values, numbers = xp.asarray(x), xp.asarray(values), xp.numbers
    places, known = _places(x.shape, key if isinstance(key, tuple) else (key,))
    values = xp.broadcast_to(values, places.shape[1:])
    if not known:
        raise TypeError("scatter_add adds numbers to known places")
    added = _put_back(numbers, values.value, places, x.shape)
    result = xp.record(
        numbers.plus(x.value, added),
        (x, lambda g: g),
        (values, lambda g: numbers.rearrange(lambda part: _taken(part, places), g)),
    )
    result.whole = x.whole and values.whole
    return result


def _alike(moved: Any, *arrays: Any) -> Any:
    """Note that what was moved are whole numbers, or conditions, if they were before."""
    moved.whole, moved.condition = (all(getattr(x, kind) for x in arrays) for kind in ("whole", "condition"))
    return moved


def _is_plain(key: Any) -> bool:
    return key is None or key is ... or isinstance(key, int | slice | np.integer)


def _places(shape: tuple[int, ...], keys: Sequence[Any]) -> tuple[Places, bool]:
    """Return where x[keys] takes its numbers from, and whether all of the keys are known."""
    found = [(key, True) if _is_plain(key) else _as_index(key) for key in keys]
    rows = max((len(each) for each, _ in found if isinstance(each, np.ndarray)), default=1)
    everywhere = np.arange(math.prod(shape), dtype=np.intp).reshape(shape)
    of_rows = [
        everywhere[tuple(each[min(row, len(each) - 1)] if isinstance(each, np.ndarray) else each for each, _ in found)]
        for row in range(rows)
    ]
    if len({each.shape for each in of_rows}) > 1:
        raise TypeError("a mask that takes another number of elements from each row has no shape: write xp.where")
    return np.stack(of_rows), all(known for _, known in found)


def _as_index(key: Any) -> tuple[NDArray[Any], bool]:
    """Return integers or conditions as NumPy's, (1 or hidden, ...), and whether they are known."""
    if hasattr(key, "tape"):
        whole, known = known_whole(key.value)
        if key.condition and not known.all():
            raise TypeError("a mask that is not decided takes nobody knows how many elements: write xp.where")
        if not key.whole and not known.all():
            raise TypeError("an index is a whole number: write xp.astype(index, xp.int64)")
        whole = np.where(known, whole, 0)  # an unknown one may be beyond the array
        return whole.astype(bool) if key.condition else whole, bool(known.all())
    array = np.asarray(key)
    if array.size and array.dtype != bool and not np.issubdtype(array.dtype, np.integer):
        kind = f"an array of {array.dtype}" if hasattr(key, "dtype") else f"a {type(key).__name__}"
        raise TypeError(
            f"the referee indexes with integers, slices, None, ..., arrays of integers or conditions, not with {kind}"
        )
    return (array if array.dtype == bool else array.astype(np.intp))[None], True


def _taken(part: Any, places: Places) -> Any:
    """Return x at the places, for one part of what the numbers are made of."""
    rows, *shape = places.shape
    if rows == 1:
        return part.reshape(part.shape[0], -1)[:, places[0]]
    flat = np.broadcast_to(part, (rows, *part.shape[1:])).reshape(rows, -1)
    return flat[np.arange(rows)[:, None], places.reshape(rows, -1)].reshape(rows, *shape)


def _put_back(numbers: Any, g: Any, places: Places, shape: tuple[int, ...]) -> Any:
    """Add up, at each place of an array of that shape, what was taken from it: each as one sum."""
    if len(places) > 1:  # from other places in each draw
        rows = range(len(places))
        each = [_row(numbers, _put_back(numbers, _row(numbers, g, i), places[i : i + 1], shape), i) for i in rows]
        return numbers.rearrange(lambda *parts: np.concatenate(parts), *each)
    size = math.prod(shape)
    flat = numbers.rearrange(lambda part: part.reshape(part.shape[0], places.size), g)
    order = np.argsort(places, axis=None, kind="stable")
    found, starts, counts = np.unique(places.ravel()[order], return_index=True, return_counts=True)
    totals, where = [], []
    for count in np.unique(counts):  # those that were taken equally often at once
        there = counts == count
        each = flat[:, order[starts[there][:, None] + np.arange(count)]]
        totals.append((each if count == 1 else numbers.sum(each, (-1,)))[..., 0])
        where.append(found[there])
    if totals:
        flat = totals[0] if len(totals) == 1 else numbers.rearrange(lambda *p: np.concatenate(p, axis=1), *totals)
    back = numbers.scatter(flat, (slice(None), np.concatenate([*where, places[:0].ravel()])), (flat.shape[0], size))
    return numbers.rearrange(lambda part: part.reshape(part.shape[0], *shape), back)


def _row(numbers: Any, x: Any, i: int) -> Any:
    """Return one along the hidden axis, where there are several."""
    return numbers.rearrange(lambda part: part[i : i + 1] if len(part) > 1 else part, x)


# Axes and shapes.


def reshape(xp: Any, x: Any, shape: tuple[int, ...], *, copy: bool | None = None) -> Any:
    """The same numbers in another shape."""
    del copy
    x, reshaped = xp.asarray(x), xp.reshaped
    if shape == x.shape:
        return x
    return _alike(xp.record(reshaped(x.value, shape), (x, lambda g: reshaped(g, x.shape))), x)


def permute_dims(xp: Any, x: Any, axes: Sequence[int]) -> Any:
    """The same numbers, the axes in another order."""
    x = xp.asarray(x)
    there = (0, *(axis % x.ndim + 1 for axis in axes))
    back = np.argsort(there)
    move = xp.numbers.rearrange
    moved = xp.record(
        move(lambda part: np.permute_dims(part, there), x.value),
        (x, lambda g: move(lambda part: np.permute_dims(part, back), g)),
    )
    return _alike(moved, x)


def matrix_transpose(xp: Any, x: Any) -> Any:
    """The last two axes exchanged."""
    return xp.permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def moveaxis(xp: Any, x: Any, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Any:
    """Some axes in other places, the rest in order."""
    x = xp.asarray(x)
    places = np.moveaxis(np.zeros(tuple(range(x.ndim)), dtype=bool), source, destination).shape
    return xp.permute_dims(x, places)


def expand_dims(xp: Any, x: Any, *, axis: int | tuple[int, ...] = 0) -> Any:
    """New axes of length 1."""
    x = xp.asarray(x)
    return xp.reshape(x, np.expand_dims(np.empty(x.shape, dtype=bool), axis).shape)


def squeeze(xp: Any, x: Any, axis: int | tuple[int, ...]) -> Any:
    """Without these axes of length 1."""
    gone = _axes(axis, x.ndim)
    return xp.reshape(x, tuple(length for i, length in enumerate(x.shape) if i not in gone))


def broadcast_to(xp: Any, x: Any, shape: tuple[int, ...]) -> Any:
    """Copies of x, as many as the shape needs."""
    x = xp.asarray(x)
    x = xp.reshape(x, (1,) * (len(shape) - x.ndim) + x.shape)
    return _alike(xp.record(xp.broadcast(x.value, (x.value.shape[0], *shape)), (x, lambda g: g)), x)


def broadcast_arrays(xp: Any, *arrays: Any) -> list[Any]:
    """All in one shape."""
    variables = [xp.asarray(array) for array in arrays]
    shape = np.broadcast_shapes(*(each.shape for each in variables))
    return [xp.broadcast_to(each, shape) for each in variables]


# Several arrays.


def concat(xp: Any, arrays: Sequence[Any], *, axis: int | None = 0) -> Any:
    """One after the other along an axis; None makes rows of them first."""
    variables = [xp.asarray(array) for array in arrays]
    if axis is None:
        variables, axis = [xp.reshape(each, (each.size,)) for each in variables], 0
    hidden, axis = max(each.value.shape[0] for each in variables), axis % variables[0].ndim + 1
    values = [xp.broadcast(each.value, (hidden, *each.shape)) for each in variables]
    ends = np.cumsum([0, *(value.shape[axis] for value in values)])
    pieces = [(*[slice(None)] * axis, slice(*ends[i : i + 2])) for i in range(len(values))]
    joined = xp.record(
        xp.numbers.rearrange(lambda *parts: np.concat(parts, axis=axis), *values),
        *((each, _Piece(place)) for each, place in zip(variables, pieces, strict=True)),
    )
    return _alike(joined, *variables)


class _Piece:
    """Cuts a piece out of a cotangent."""

    def __init__(self, place: tuple[slice, ...]) -> None:
        self.place = place

    def __call__(self, cotangent: Any) -> Any:
        return cotangent[self.place]


def stack(xp: Any, arrays: Sequence[Any], *, axis: int = 0) -> Any:
    """One beside the other along a new axis."""
    return xp.concat([xp.expand_dims(array, axis=axis) for array in arrays], axis=axis)


def unstack(xp: Any, x: Any, *, axis: int = 0) -> tuple[Any, ...]:
    """The slices along an axis."""
    x = xp.asarray(x)
    before = (slice(None),) * (axis % x.ndim)
    return tuple(xp.index(x, (*before, i)) for i in range(x.shape[axis]))


def meshgrid(xp: Any, *arrays: Any, indexing: str = "xy") -> list[Any]:
    """Each array along an axis of its own, and copies along the others; "xy" exchanges the first two axes."""
    n = len(arrays)
    order = [1, 0, *range(2, n)] if indexing == "xy" and n > 1 else list(range(n))
    lines = (xp.asarray(array) for array in arrays)
    return broadcast_arrays(
        xp,
        *(xp.reshape(line, (1,) * order[i] + (line.size,) + (1,) * (n - 1 - order[i])) for i, line in enumerate(lines)),
    )


# Within an array.


def flip(xp: Any, x: Any, *, axis: int | tuple[int, ...] | None = None) -> Any:
    """The axes backwards."""
    x = xp.asarray(x)
    axes = _axes(axis, x.ndim)
    return xp.index(x, tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim)))


def roll(xp: Any, x: Any, shift: int | tuple[int, ...], *, axis: int | tuple[int, ...] | None = None) -> Any:
    """Moved along the axes, what falls out at the end coming in at the front."""
    return _moved(xp, x, lambda places: np.roll(places, shift, axis), "roll")


def repeat(xp: Any, x: Any, repeats: Any, *, axis: int | None = None) -> Any:
    """Each element several times, one after the other."""
    repeats = known_whole(repeats.value)[0][0] if hasattr(repeats, "tape") else repeats
    return _moved(xp, x, lambda places: np.repeat(places, repeats, axis), "repeat")


def tile(xp: Any, x: Any, repetitions: tuple[int, ...]) -> Any:
    """Copies of the whole side by side."""
    return _moved(xp, x, lambda places: np.tile(places, repetitions), "tile")


def diagonal(xp: Any, x: Any, *, offset: int = 0) -> Any:
    """x_{i, i + offset}, of the last two axes."""
    return _moved(xp, x, lambda places: np.diagonal(places, offset, -2, -1), "diagonal")


def tril(xp: Any, x: Any, *, k: int = 0) -> Any:
    """0 above the k-th diagonal."""
    x = xp.asarray(x)
    return xp.where(np.tri(x.shape[-2], x.shape[-1], k), x, 0.0)


def triu(xp: Any, x: Any, *, k: int = 0) -> Any:
    """0 below the k-th diagonal."""
    x = xp.asarray(x)
    return xp.where(1 - np.tri(x.shape[-2], x.shape[-1], k - 1), x, 0.0)


def pad(xp: Any, x: Any, widths: Any, *, mode: str = "constant", constant_values: Any = 0.0) -> Any:
    """More numbers before and after: ((before, after), ...) for each axis, or one pair for all.

    They are constants, or with the mode "edge", "reflect", "symmetric" or "wrap" x's own, as `numpy.pad` has them.
    """
    x = xp.asarray(x)
    if mode != "constant":
        return _moved(xp, x, lambda places: np.pad(places, widths, mode=mode), "pad")  # type: ignore[call-overload]
    around = np.broadcast_to(np.asarray(widths, dtype=int), (x.ndim, 2)).tolist()
    shape = tuple(before + length + after for length, (before, after) in zip(x.shape, around, strict=True))
    middle = tuple(slice(before, before + length) for length, (before, _) in zip(x.shape, around, strict=True))
    return xp.scatter(xp.full(shape, constant_values), middle, x)


def _moved(xp: Any, x: Any, move: Any, name: str) -> Any:
    """Return what NumPy's function makes of the places."""
    x = xp.asarray(x)
    return gather(xp, x, move(np.arange(x.size, dtype=np.intp).reshape(x.shape))[None], True, name)


def _axes(axis: int | tuple[int, ...] | None, ndim: int) -> set[int]:
    return {each % ndim for each in several(axis, ndim)}
