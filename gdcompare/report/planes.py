"""The plane in which a descent is seen: two of its parameters, or the two directions in which its paths spread most."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.descent.record import Descent
from gdcompare.words import did_you_mean

Floats: TypeAlias = NDArray[np.float64]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_BLOCK = 64
"""So many points of a plane are computed at once: their parameters may be many."""

_ROWS = 500
"""Principal directions are those of at most this many points of each path."""


def flat(parameters: Mapping[str, Any], leading: int = 0) -> Floats:
    """Return all parameters as one vector (P,), in their order; with a leading axis of (m,), as (m, P)."""
    arrays = [np.asarray(each, dtype=np.float64) for each in parameters.values()]
    return np.concatenate([each.reshape((*each.shape[:leading], -1)) for each in arrays], axis=-1)


def shapes_of(descent: Descent) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter, by name."""
    return {name: np.shape(value) for name, value in descent.parameters.items()}


def element_names(shapes: Shapes) -> list[str]:
    """Return the name of each element of the vector of all parameters.

    >>> element_names({"b": (), "w": (2,), "v": (1, 1)})
    ['b', 'w[0]', 'w[1]', 'v[0, 0]']
    """
    return [
        f"{name}[{', '.join(map(str, place))}]" if shape else name
        for name, shape in shapes.items()
        for place in product(*map(range, shape))
    ]


def chosen_elements(axes: str | Sequence[str], shapes: Shapes) -> list[int]:
    """Return the places, in the vector of all parameters, of two elements by name; or raise what is wrong with them.

    >>> chosen_elements("b,w[1]", {"b": (), "w": (2,)}), chosen_elements(["w[0]", "b"], {"b": (), "w": (2,)})
    ([0, 2], [1, 0])
    >>> chosen_elements("b,w", {"b": (), "w": (2,)})
    Traceback (most recent call last):
    ...
    ValueError: 'w' is no single number: it has shape (2,); name one, as 'w[0]'
    """
    names = [each.strip() for each in (re.split(r",(?![^\[]*\])", axes) if isinstance(axes, str) else axes)]
    if len(names) != 2 or names[0] == names[1]:
        raise ValueError(f"axes are two different numbers, such as {example_axes(shapes)!r}, not {axes!r}")
    found = [_place(name, shapes) for name in names]
    if found[0] == found[1]:
        raise ValueError(f"axes are two different numbers, but {names[0]!r} is {names[1]!r}")
    return found


def example_axes(shapes: Shapes) -> str:
    """Return what could be asked for."""
    return ",".join(element_names(shapes)[:2])


def _place(name: str, shapes: Shapes) -> int:
    known = [each.replace(" ", "") for each in element_names(shapes)]
    wanted = name.replace(" ", "")
    if wanted in known:
        return known.index(wanted)
    own, bracket, _ = wanted.partition("[")
    if own not in shapes:
        names = ", ".join(list(shapes)[:8]) + ", ..." * (len(shapes) > 8)
        raise ValueError(f"there is no parameter {own!r} to draw; known: {names}{did_you_mean(own, shapes)}")
    some = element_names({own: shapes[own]})
    if not bracket and len(some) == 1:
        return known.index(some[0].replace(" ", ""))
    has = f"it has shape {shapes[own]}" if shapes[own] else "it is a scalar"
    if bracket:
        raise ValueError(f"there is no {name!r}: {has}")
    raise ValueError(f"{own!r} is no single number: {has}; name one, as {some[0]!r}")


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane in the space of all P parameters: c -> origin + c_0 u_0 + c_1 u_1, or a line, if P is 1."""

    shapes: Shapes
    origin: Floats
    """(P,), where the coordinates are 0."""
    directions: Floats
    """(k, P), the unit vectors u, at right angles; k is 2, or 1."""
    labels: tuple[str, ...]
    remark: str = ""
    """What is to be known of it, if it is not the whole space."""

    def coordinates(self, points: Floats) -> Floats:
        """Return the coordinates (m, k) of points (m, P), or of their shadows on the plane."""
        return np.asarray((points - self.origin) @ self.directions.T)

    def parameters(self, places: Floats) -> Iterator[dict[str, Floats]]:
        """Yield the parameters at each of the coordinates (m, k)."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])
        for block in np.array_split(places, -(-len(places) // _BLOCK)):
            pieces = np.split(self.origin + block @ self.directions, ends[:-1], axis=1)
            arrays = [each.reshape(-1, *shape) for each, shape in zip(pieces, self.shapes.values(), strict=True)]
            for row in zip(*arrays, strict=True):
                yield dict(zip(self.shapes, map(np.asarray, row), strict=True))


def plane_of(shapes: Shapes, paths: Mapping[str, Floats], axes: str | Sequence[str] | None = None) -> Plane:
    """Return the plane to show these paths in, `{name: (m, P)}`, all finite.

    The only two parameters; or the two that `axes` names, the others as they are where the first path ends; or else
    the two principal directions of the paths, through that end.
    """
    names, size = element_names(shapes), sum(math.prod(shape) for shape in shapes.values())
    first = next(iter(paths))
    if axes is None and size <= 2:
        return Plane(shapes, np.zeros(size), np.eye(size), tuple(names))
    end = paths[first][-1]
    if axes is not None:
        chosen = chosen_elements(axes, shapes)
        held = end.copy()
        held[chosen] = 0.0
        said = f"The other {size - 2} parameters are as they are where the path of {first!r} ends." * (size > 2)
        units = np.zeros((2, size))
        units[[0, 1], chosen] = 1.0
        return Plane(shapes, held, units, tuple(names[i] for i in chosen), said)
    directions, share = _principal(list(paths.values()))
    said = (
        f"{size} parameters, seen along the two principal directions of the paths, which hold {share:.3g} % of their "
        f"spread; the surface is that of the plane through the end of {first!r}."
    )
    return Plane(shapes, end, directions, ("first principal direction", "second principal direction"), said)


def _principal(paths: Sequence[Floats]) -> tuple[Floats, float]:
    """Return the two directions (2, P) in which the points spread most, and their share of the spread in per cent."""
    some = [path[np.unique(np.linspace(0, len(path) - 1, _ROWS).astype(np.intp))] for path in paths]
    points = np.concatenate(some)
    off = points - points.mean(axis=0)
    size = np.abs(off).max(initial=0.0)
    _, widths, directions = np.linalg.svd(off / (size or 1.0), full_matrices=False)
    widths = widths[:2] ** 2 / (np.sum(widths**2) or 1.0)
    kept = [each for each, width in zip(directions, widths, strict=False) if width > 0]
    for unit in np.eye(min(4, points.shape[1]), points.shape[1]):  # for what spreads along one line, or not at all
        if len(kept) < 2:
            rest = unit - sum(((unit @ each) * each for each in kept), np.zeros_like(unit))
            if (length := np.linalg.norm(rest)) > 0.1:
                kept.append(rest / length)
    signs = [1.0 if each[np.argmax(np.abs(each))] > 0 else -1.0 for each in kept]
    return np.stack([sign * each for sign, each in zip(signs, kept, strict=True)]), 100 * float(np.sum(widths))
