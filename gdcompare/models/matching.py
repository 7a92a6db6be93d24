"""How the parameters of one model correspond to those of another, or of a problem.

It is said once, as a `Layout`; from it follow both the values to load and the gradients to hand back. Nothing is
transposed, or matched by its position, silently. The paths "layers/0/bias" and "layers.0.bias" are one name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.models.layout import NOTHING, Brought, Elements, Move, Shapes, brought

Layout: TypeAlias = Mapping[str, str | Move]
"""`{own name: source name}`, or a function of `{source name: array}` that moves elements (transposes, fuses, splits),
adds them up, and fills in zeros and other constants."""


@final
@dataclass(frozen=True, eq=False)
class Matching:
    """Which elements of the source each element of a model's parameters is loaded from: their sum, and a constant.

    >>> matching = match({"kernel": (2, 3)}, {"weight": (3, 2)}, {"weight": lambda p: p["kernel"].T})
    >>> matching.load({"kernel": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])})["weight"].tolist()
    [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
    >>> matching.in_source({"weight": np.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])})["kernel"].tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """

    source_shapes: Shapes
    places: Mapping[str, Brought]
    """What is brought to each of the model's own parameters."""

    def load(self, source: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """Return the model's parameters, with the source's values."""
        loaded = self.load_direction(source)
        for name, each in self.places.items():
            if each.constant is not None:
                loaded[name] = loaded[name] + each.constant.astype(loaded[name].dtype)
        return loaded

    def load_direction(self, direction: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """Return how the model's parameters change if the source's change by this: without the constants."""
        flat = np.concatenate([np.ravel(direction[name]) for name in self.source_shapes])
        flat = np.append(flat, flat.dtype.type(0))  # what NOTHING, the last, points at
        return {name: np.asarray(sum(flat[term] for term in each.terms)) for name, each in self.places.items()}

    def in_source(self, gradient: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """Return a gradient by the model's parameters as one by the source's: the transpose of loading.

        Where an element of the source is used twice, as in tied weights, its gradients add up; each element of a sum
        has the gradient of the sum. Axes in front, as those of per-sample gradients (n, *shape), stay in front. Raises
        ValueError for another name or shape.
        """
        arrays = {name: np.asarray(value) for name, value in gradient.items()}
        if set(arrays) != set(self.places):
            raise ValueError(f"the gradient has {_listed(arrays)}; the model's parameters are {_listed(self.places)}")
        for name, each in self.places.items():
            if arrays[name].shape[arrays[name].ndim - len(each.shape) :] != each.shape:
                raise ValueError(f"the gradient of {name!r} has shape {arrays[name].shape}, not {each.shape}")
        starts = np.cumsum([0, *map(math.prod, self.source_shapes.values())])
        parts: dict[str, list[tuple[NDArray[Any], NDArray[np.int64]]]] = {name: [] for name in self.source_shapes}
        for name, term in ((name, term) for name, each in self.places.items() for term in each.terms):
            owners = np.where(term == NOTHING, NOTHING, np.searchsorted(starts, term, side="right") - 1)
            for owner in np.unique(owners[owners != NOTHING]).tolist():
                inside = owners == owner
                parts[list(parts)[owner]].append((arrays[name][..., inside], term[inside] - starts[owner]))
        # An element's axes are the last ones; those in front are the same for all.
        fronts = (arrays[name].shape[: arrays[name].ndim - len(each.shape)] for name, each in self.places.items())
        lead: tuple[int, ...] = next(fronts, ())
        dtype = np.result_type(*arrays.values()) if arrays else np.dtype(np.float64)  # of what has no elements
        return {name: _added_up(parts[name], lead, shape, dtype) for name, shape in self.source_shapes.items()}


def match(
    source_shapes: Shapes, target_shapes: Shapes | None, layout: Layout | None = None, *, name: str = "the model"
) -> Matching:
    """Return from which element of the source each element of the target's parameters is loaded.

    A parameter that `layout` does not name comes from that of the same name and shape. A function in the layout may
    move elements, add them up, and fill in constants. Every element of the source must be used.
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
    ValueError: the layout of 'w' computes: it may move elements, add them up and fill in constants, and nothing else; \
it multiplies p["w"][0] by 2
    """
    layout = dict(layout or {})
    elements = Elements(source_shapes)
    if target_shapes is None:
        places = {own: _brought(own, how, elements) for own, how in layout.items()}
        used = np.concatenate([each.positions for each in places.values()]) if places else np.array([], dtype=np.int64)
        rest = {key: elements.positions(key) for key in source_shapes if key not in places}
        places |= {key: Brought((value,)) for key, value in rest.items() if not np.isin(value, used).any()}
        target_shapes = {own: each.shape for own, each in places.items()}
    else:
        given, layout = layout, {}
        for own, how in given.items():
            if (known := _of_path(own, target_shapes)) is None:
                raise ValueError(
                    f"the layout names {own!r}, which is no parameter of {name}{_nearest(own, (), target_shapes)}"
                )
            layout[known] = how
        sources = {own: layout.get(own, _of_path(own, source_shapes)) for own in target_shapes}
        places = {own: _brought(own, how, elements) for own, how in sources.items() if how is not None}
    problems = _Mismatch(source_shapes, target_shapes, places)
    if problems.lines:
        raise ValueError(f"the parameters of {name} do not match those of its source:\n{problems}")
    return Matching(dict(source_shapes), {own: places[own] for own in target_shapes})


@final
class _Source(Mapping[str, NDArray[Any]]):
    """The source's parameters, as a layout sees them: each is made when it is asked for."""

    def __init__(self, elements: Elements, array: Callable[[str], NDArray[Any]]) -> None:
        self._shapes, self._array = elements.shapes, array

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._array(_known(name, self._shapes))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _of_path(name, self._shapes) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _known(name: str, shapes: Shapes) -> str:
    """Return the source's parameter of that name, or path; a ValueError if there is none."""
    if (found := _of_path(name, shapes)) is None:
        raise ValueError(f"the layout asks for {name!r}, which the source does not have{_nearest(name, (), shapes)}")
    return found


def _of_path(name: str, names: Iterable[str]) -> str | None:
    """Return that of some names which is this one, or the same path with other strokes: "a/b" for "a.b"."""
    alike = [each for each in names if _path(each) == _path(name)]
    return name if name in alike else alike[0] if len(alike) == 1 else None


def _path(name: str) -> str:
    return name.replace("/", ".")


def _added_up(
    parts: Sequence[tuple[NDArray[Any], NDArray[np.int64]]],
    lead: tuple[int, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """Return the sum of arrays (*lead, k), each at k positions of an array of that shape."""
    total = np.zeros((*lead, math.prod(shape)), dtype=np.result_type(*(each for each, _ in parts)) if parts else dtype)
    for each, places in parts:
        np.add.at(total, (..., places), each)  # type: ignore[arg-type]  # the stubs do not know `...`
    return total.reshape((*lead, *shape))


def _brought(own: str, how: str | Move, elements: Elements) -> Brought:
    """Return what a layout brings to one parameter."""
    if isinstance(how, str):
        return Brought((elements.positions(_known(how, elements.shapes)),))
    if not callable(how):
        raise ValueError(f"the layout of {own!r} must be a name or a function, not {how!r}")
    return brought(own, how, elements, partial(_Source, elements))


@final
class _Mismatch:
    """What does not fit, in lines, and what to write if the shapes tell."""

    def __init__(self, source: Shapes, target: Shapes, places: Mapping[str, Brought]) -> None:
        used = np.zeros(sum(map(math.prod, source.values())), dtype=bool)
        fitting = {own for own, each in places.items() if each.shape == tuple(target[own])}
        for own in fitting:
            used[places[own].positions] = True
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
                statistic = "; a running statistic is no parameter: leave it out" if _statistic(own) else near
                self.lines.append(f"{own!r} {shape} has no source{statistic}")
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
        for rank, how in _ways(name, tuple(given), own, tuple(shape))
    ]
    advice: dict[str, str] = {}
    taken: set[str] = set()
    for _, _, own, name, how in sorted(pairs):
        if own not in advice and name not in taken:
            advice[own] = how
            taken.add(name)
    return {own: advice[own] for own in unmatched if own in advice}


def _ways(name: str, given: tuple[int, ...], own: str, wanted: tuple[int, ...]) -> Iterable[tuple[int, str]]:
    """Yield how a source could be brought to a parameter, best first; axes of one length stay in order.

    A kernel has its axes in another order than a weight, which a square shape does not tell: (..., in, out) and
    (out, in, ...). A running statistic is nothing but a running statistic.
    """
    if _statistic(name) != _statistic(own):
        return
    axes = _kernel_axes(_last(name), _last(own), len(given))
    if axes and tuple(given[axis] for axis in axes) == wanted:
        yield 0, _transposed(name, axes)
    elif given == wanted:
        yield 0, f'"{name}"'
    elif sorted(given) == sorted(wanted):
        left = list(range(len(given)))
        axes = [left.pop(next(i for i, axis in enumerate(left) if given[axis] == length)) for length in wanted]
        yield 1, _transposed(name, axes)
    elif math.prod(given) == math.prod(wanted):
        yield 2, f'lambda p: p["{name}"].reshape({wanted})'


def _kernel_axes(source: str, own: str, ndim: int) -> list[int]:
    """Return the axes of a kernel as a weight has them, or the other way; none for two of a kind.

    >>> _kernel_axes("kernel", "weight", 4), _kernel_axes("weight", "kernel", 4), _kernel_axes("weight", "weight", 4)
    ([3, 2, 0, 1], [2, 3, 1, 0], [])
    """
    if ndim < 2 or {source, own} != {"kernel", "weight"}:
        return []
    return [ndim - 1, ndim - 2, *range(ndim - 2)] if source == "kernel" else [*range(2, ndim), 1, 0]


def _transposed(name: str, axes: list[int]) -> str:
    return f'lambda p: p["{name}"]' + (".T" if axes == [1, 0] else f".transpose({', '.join(map(str, axes))})")


def _last(name: str) -> str:
    return _path(name).rpartition(".")[2]


def _statistic(name: str) -> str:
    """Return which running statistic a parameter is by its name, if it is one.

    >>> _statistic("1.running_mean"), _statistic("batch_stats/BatchNorm_0/var"), _statistic("1.weight")
    ('mean', 'var', '')
    """
    kinds = {"mean": "mean", "var": "var", "variance": "var"}
    return kinds.get(_last(name).removeprefix("running_").removeprefix("moving_"), "")


def _nearest(name: str, shape: tuple[int, ...], others: Mapping[str, Any], words: str = "nearest") -> str:
    """Name the two most like it, those of a like shape first."""
    shapes = {other: tuple(getattr(each, "shape", each)) for other, each in others.items()}
    ranks = {other: min((rank for rank, _ in _ways(other, shapes[other], name, shape)), default=9) for other in others}
    near = sorted(others, key=lambda other: (ranks[other], -_likeness(name, other)))[:2]
    return f"; {words}: {', '.join(f'{other!r} {shapes[other]}' for other in near)}" if near else ""


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, _path(one).lower(), _path(other).lower()).ratio()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"
