"""How the parameters of one model correspond to those of another, or of a problem.

It is said once, as a `Layout`; from it follow both the values to load and the gradients to hand back. Nothing is
transposed, or matched by its position, silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Move: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], Any]
Layout: TypeAlias = Mapping[str, str | Move]
"""`{own name: source name}`, or a function of `{source name: array}` that moves elements: transposes, fuses, splits."""

_ELEMENT = np.dtype([("element", np.int64)])  # NumPy moves such elements, and refuses to compute with them


@final
@dataclass(frozen=True, eq=False)
class Matching:
    """Which element of the source each element of a model's parameters is loaded from.

    >>> matching = match({"kernel": (2, 3)}, {"weight": (3, 2)}, {"weight": lambda p: p["kernel"].T})
    >>> matching.load({"kernel": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])})["weight"].tolist()
    [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
    >>> matching.in_source({"weight": np.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])})["kernel"].tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """

    source_shapes: Shapes
    places: Mapping[str, NDArray[np.int64]]
    """`{own name: array of its shape}`, positions in the source's parameters, laid one behind the other."""

    def load(self, source: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """Return the model's parameters, with the source's values."""
        flat = np.concatenate([np.ravel(source[name]) for name in self.source_shapes])
        return {name: flat[places] for name, places in self.places.items()}

    def in_source(self, gradient: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """Return a gradient by the model's parameters as one by the source's.

        Where an element of the source is used twice, as in tied weights, its gradients add up. Axes in front, as those
        of per-sample gradients (n, *shape), stay in front. Raises ValueError for another name or shape.
        """
        arrays = {name: np.asarray(value) for name, value in gradient.items()}
        if set(arrays) != set(self.places):
            raise ValueError(f"the gradient has {_listed(arrays)}; the model's parameters are {_listed(self.places)}")
        for name, places in self.places.items():
            if arrays[name].shape[arrays[name].ndim - places.ndim :] != places.shape:
                raise ValueError(f"the gradient of {name!r} has shape {arrays[name].shape}, not {places.shape}")
        starts = np.cumsum([0, *map(math.prod, self.source_shapes.values())])
        parts: dict[str, list[tuple[NDArray[Any], NDArray[np.int64]]]] = {name: [] for name in self.source_shapes}
        for name, places in self.places.items():
            owners = np.searchsorted(starts, places, side="right") - 1
            for owner in np.unique(owners).tolist():
                inside = owners == owner
                parts[list(parts)[owner]].append((arrays[name][..., inside], places[inside] - starts[owner]))
        return {name: _added_up(parts[name], shape) for name, shape in self.source_shapes.items()}


def match(
    source_shapes: Shapes, target_shapes: Shapes | None, layout: Layout | None = None, *, name: str = "the model"
) -> Matching:
    """Return from which element of the source each element of the target's parameters is loaded.

    A parameter that `layout` does not name comes from that of the same name and shape. A function in the layout is
    run on arrays that can be moved but not computed with. Every element of the source must be used.
    `target_shapes=None` takes what the layout makes, and from the source what it does not use.

    Raises ValueError, which lists both sides with the nearest names, and the lines to write where the shapes tell.

    >>> match({"kernel": (2, 3), "bias": (3,)}, {"weight": (3, 2), "bias": (3,)})
    Traceback (most recent call last):
    ...
    ValueError: the parameters of the model do not match those of its source:
      'weight' (3, 2) has no source; nearest there: 'kernel' (2, 3)
      'kernel' (2, 3) of the source is not used; nearest here: 'weight' (3, 2)
    if these belong together, write
      layout={"weight": lambda p: p["kernel"].T}
    >>> match({"w": (3,)}, {"w": (3,)}, {"w": lambda p: 2 * p["w"]})
    Traceback (most recent call last):
    ...
    ValueError: the layout of 'w' computes: it may only move elements (transpose, reshape, slice, concatenate, ...)
    """
    layout = dict(layout or {})
    elements = _Source(_numbered(source_shapes))
    if target_shapes is None:
        places = {own: _moved(own, how, elements) for own, how in layout.items()}
        used = np.concatenate([np.ravel(each) for each in places.values()]) if places else np.array([], dtype=np.int64)
        rest = {key: value["element"] - 1 for key, value in elements.items()}
        places |= {key: value for key, value in rest.items() if key not in places and not np.isin(value, used).any()}
        target_shapes = {own: each.shape for own, each in places.items()}
    else:
        if unknown := set(layout) - set(target_shapes):
            own = min(unknown)
            raise ValueError(
                f"the layout names {own!r}, which is no parameter of {name}{_nearest(own, (), target_shapes)}"
            )
        places = {own: _moved(own, layout.get(own, own), elements) for own in target_shapes if own in elements | layout}
    problems = _Mismatch(source_shapes, target_shapes, places)
    if problems.lines:
        raise ValueError(f"the parameters of {name} do not match those of its source:\n{problems}")
    return Matching(dict(source_shapes), {own: places[own] for own in target_shapes})


@final
class _Source(dict[str, NDArray[Any]]):
    """The source's parameters, as a layout sees them."""

    def __missing__(self, name: str) -> NDArray[Any]:
        raise ValueError(f"the layout asks for {name!r}, which the source does not have{_nearest(name, (), self)}")


def _added_up(parts: Iterable[tuple[NDArray[Any], NDArray[np.int64]]], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the sum of arrays (..., k), each at k positions of an array of that shape."""
    values = [each for each, _ in parts]
    lead = values[0].shape[:-1] if values else ()
    total = np.zeros((*lead, math.prod(shape)), dtype=np.result_type(*values) if values else np.float64)
    for each, places in parts:
        np.add.at(total, (..., places), each)  # type: ignore[arg-type]  # the stubs do not know `...`
    return total.reshape((*lead, *shape))


def _numbered(shapes: Shapes) -> dict[str, NDArray[Any]]:
    """Return arrays of elements numbered from 1: 0 is left for what somebody makes up."""
    found, start = {}, 1
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        found[name] = np.arange(start, stop, dtype=np.int64).view(_ELEMENT).reshape(shape)
        start = stop
    return found


def _moved(own: str, how: str | Move, elements: _Source) -> NDArray[np.int64]:
    """Return the positions that a layout brings to one parameter."""
    if isinstance(how, str):
        return np.asarray(elements[how]["element"] - 1)
    if not callable(how):
        raise ValueError(f"the layout of {own!r} must be a name or a function, not {how!r}")
    only = "it may only move elements (transpose, reshape, slice, concatenate, ...)"
    try:
        found = np.asarray(how(elements))
    except TypeError as error:
        raise ValueError(f"the layout of {own!r} computes: {only}") from error
    if found.dtype != _ELEMENT:
        raise ValueError(f"the layout of {own!r} computes: {only}")
    if (found["element"] == 0).any():
        raise ValueError(f"the layout of {own!r} fills in elements that no parameter of the source has: {only}")
    return np.asarray(found["element"] - 1)


@final
class _Mismatch:
    """What does not fit, in lines, and what to write if the shapes tell."""

    def __init__(self, source: Shapes, target: Shapes, places: Mapping[str, NDArray[np.int64]]) -> None:
        used = np.zeros(sum(map(math.prod, source.values())), dtype=bool)
        fitting = {own for own, each in places.items() if each.shape == tuple(target[own])}
        for own in fitting:
            used[places[own]] = True
        ends = np.cumsum([0, *map(math.prod, source.values())]).tolist()
        left = {
            name: int(np.sum(~used[start:end]))
            for name, start, end in zip(source, ends, ends[1:], strict=False)
            if not used[start:end].all()
        }
        unmatched = {own: target[own] for own in target if own not in fitting}
        self.lines = []
        for own, shape in unmatched.items():
            if own in places:
                self.lines.append(f"{own!r} {shape} would be loaded from an array of shape {places[own].shape}")
            else:
                near = _nearest(own, shape, {name: source[name] for name in left} or source, "nearest there")
                self.lines.append(f"{own!r} {shape} has no source{near}")
        for name, count in left.items():
            if name not in unmatched:
                size = math.prod(source[name])
                what = "is not used" if count == size else f"has {count} of {size} elements that are not used"
                near = _nearest(name, source[name], unmatched, "nearest here")
                self.lines.append(f"{name!r} {source[name]} of the source {what}{near}")
        self.advice = _advice(unmatched, {name: source[name] for name in left})

    def __str__(self) -> str:
        lines = [f"  {line}" for line in self.lines]
        if self.advice:
            written = ",\n          ".join(f'"{own}": {how}' for own, how in self.advice.items())
            lines += ["if these belong together, write", f"  layout={{{written}}}"]
        return "\n".join(lines)


def _advice(unmatched: Shapes, left: Shapes) -> dict[str, str]:
    """Return, for each parameter without a source, the source of a like shape and nearest name; each is used once."""
    pairs = [
        (rank, -_likeness(own, name), own, name, how)
        for own, shape in unmatched.items()
        for name, given in left.items()
        for rank, how in _ways(name, tuple(given), tuple(shape))
    ]
    advice: dict[str, str] = {}
    taken: set[str] = set()
    for _, _, own, name, how in sorted(pairs):
        if own not in advice and name not in taken:
            advice[own] = how
            taken.add(name)
    return {own: advice[own] for own in unmatched if own in advice}


def _ways(name: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> Iterable[tuple[int, str]]:
    """Yield how an array could be brought to a shape; axes of one length stay in order."""
    if given == wanted:
        yield 0, f'"{name}"'
    elif len(given) == 2 and given[::-1] == wanted:
        yield 1, f'lambda p: p["{name}"].T'
    elif sorted(given) == sorted(wanted):
        left = list(range(len(given)))
        axes = [left.pop(next(i for i, axis in enumerate(left) if given[axis] == length)) for length in wanted]
        yield 1, f'lambda p: p["{name}"].transpose({", ".join(map(str, axes))})'
    elif math.prod(given) == math.prod(wanted):
        yield 2, f'lambda p: p["{name}"].reshape({wanted})'


def _nearest(name: str, shape: tuple[int, ...], others: Mapping[str, Any], words: str = "nearest") -> str:
    """Name the two most like it, those of a like shape first."""
    shapes = {other: tuple(getattr(each, "shape", each)) for other, each in others.items()}
    ranks = {other: min((rank for rank, _ in _ways(other, shapes[other], shape)), default=9) for other in others}
    near = sorted(others, key=lambda other: (ranks[other], -_likeness(name, other)))[:2]
    return f"; {words}: {', '.join(f'{other!r} {shapes[other]}' for other in near)}" if near else ""


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one.lower(), other.lower()).ratio()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"
