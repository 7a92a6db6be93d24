"""The layers that two models have in common: which they are, and the first that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from gdcompare.backend import Precision
from gdcompare.models.comparison import BACKWARD, FORWARD
from gdcompare.models.estimate import Found, by_little, judged_array, measure, measured_inside
from gdcompare.models.layout import Shapes
from gdcompare.models.matching import Matching, match
from gdcompare.models.sides import Key, Point, Side
from gdcompare.referee.verdict import Entry

Move: TypeAlias = Callable[[NDArray[Any]], Any]
Places: TypeAlias = "Mapping[str, str | tuple[str, Move]]"


# Layers


def layer_places(sides: Sequence[Side], layers: Any) -> dict[str, Places]:
    """Return which layers are said to correspond, for each model but the source."""
    names = [side.name for side in sides[1:]]
    given = dict(layers or {})
    each_its_own = bool(given) and all(isinstance(value, Mapping) for value in given.values())
    if not each_its_own:
        if given and len(names) > 1:
            raise ValueError(
                f"with several models, layers is {{model: {{layer: own name}}}}; models: {', '.join(names)}"
            )
        return dict.fromkeys(names, given)
    if unknown := set(given) - set(names):
        raise ValueError(f"layers are given for {min(unknown)!r}; the models are {', '.join(names)}")
    return {name: given.get(name, {}) for name in names}


class Pair(NamedTuple):
    """A layer of the source, that of another model, and how the elements of one come from the other."""

    name: str
    own: str
    matching: Matching | None
    """None where the shapes do not fit."""


def compared_layers(
    sides: Sequence[Side],
    rows: Point,
    places: Mapping[str, Places],
    dtype: Precision,
    true: Callable[[Mapping[str, Mapping[str, Pair]]], dict[Key, list[Entry]]] = lambda _: {},
) -> tuple[list[Entry], list[str]]:
    """Judge the layers, forward and then backward, in the source's order; and say which have no counterpart.

    `true` gives the entries of those whose truth is known, of layers that correspond; the others are estimated.
    """
    source, *others = sides
    shapes = {side.name: {layer.name: layer.value.shape for layer in side.layers(rows)} for side in sides}
    first = shapes[source.name]
    pairs = {side.name: _pairs(side, len(rows.features), shapes, source, places[side.name]) for side in others}
    remarks = _remarks(sides, shapes, pairs)
    if not any(pairs.values()):
        return [], remarks
    runs = {source.name: partial(_seen, source, pairs=None)}
    runs |= {side.name: partial(_seen, side, pairs=pairs[side.name]) for side in others}
    found = {name: measure(run, rows) for name, run in runs.items()}
    order = [(FORWARD, name) for name in first] + [(BACKWARD, name) for name in reversed(first)]
    known = true(pairs)
    order = [key for key in order if key not in known]
    entries = [entry for key in order for entry in _layer_entries(key, found, pairs, dtype)]
    if by_little(entries, found, dtype):
        found = {name: measured_inside(run, rows, found[name]) for name, run in runs.items()}
        entries = [entry for key in order for entry in _layer_entries(key, found, pairs, dtype)]
    places_of = {name: i for i, name in enumerate(first)}
    entries = [entry for each in known.values() for entry in each] + entries
    entries.sort(key=lambda entry: _rank(entry, places_of))
    return _with_neighbours(entries), remarks


def _rank(entry: Entry, places: Mapping[str, int]) -> tuple[bool, int]:
    """Values come in order of execution, then cotangents from the loss down."""
    place = places[entry.parameter]
    return (True, -place) if entry.law == BACKWARD else (False, place)


def _remarks(sides: Sequence[Side], shapes: Mapping[str, Shapes], pairs: Mapping[str, Mapping[str, Pair]]) -> list[str]:
    """Say in which models no layer was seen, and how many layers have no counterpart, and which."""
    source, *others = sides
    said = [f"no layer was seen in {side.name!r}: {side.model.unseen}" for side in sides if not shapes[side.name]]
    for side in others:
        matched = pairs[side.name].values()
        left = {
            source.name: [name for name in shapes[source.name] if name not in {pair.name for pair in matched}],
            side.name: [name for name in shapes[side.name] if name not in {pair.own for pair in matched}],
        }
        if all(shapes[name] for name in left) and any(left.values()):
            each = [f"{len(names)} of {name!r} ({_listed(names)})" for name, names in left.items() if names]
            said.append(f"layers without a counterpart: {', '.join(each)}; say which correspond: layers={{...}}")
    return said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + ", ..." * (len(names) > 8)


def _pairs(side: Side, n: int, seen: Mapping[str, Shapes], source: Side, places: Places) -> dict[str, Pair]:
    shapes, own_shapes = seen[source.name], seen[side.name]
    pairs = {}
    alike = {own.replace("/", "."): own for own in own_shapes}
    same = {name: alike[name.replace("/", ".")] for name in shapes if name.replace("/", ".") in alike}
    for name, place in ({**same, **places}).items():
        own, move = place if isinstance(place, tuple) else (place, None)
        if name not in shapes or own not in own_shapes:
            where, what, known = ("source", name, shapes) if name not in shapes else (side.name, own, own_shapes)
            near = ", ".join(map(repr, get_close_matches(what, known, 2, cutoff=0))) or "none"
            raise ValueError(
                f"there is no layer {what!r} in {where}; nearest: {near}\n"
                f"  of the source: {', '.join(shapes) or 'none'}\n  of {side.name}: {', '.join(own_shapes) or 'none'}"
            )
        shape, own_shape = shapes[name], own_shapes[own]
        if n > 1 and shape[:1] == own_shape[:1] == (n,):  # a batch: what moves are the elements of each row
            shape, own_shape = shape[1:], own_shape[1:]
        pairs[name] = Pair(name, own, _moving(side.name, name, shape, own, own_shape, move))
    return pairs


def _moving(
    model: str, name: str, shape: tuple[int, ...], own: str, own_shape: tuple[int, ...], move: Move | None
) -> Matching | None:
    """Return how a layer's elements move. Without a function they do not, but for axes of length 1 in front."""
    if move is not None:
        layout = {own: lambda arrays: move(arrays[name])}
        moved = match({name: shape}, {own: own_shape}, layout, name=f"layer {own!r} of {model}")
        if not moved.places[own].only_moves:
            raise ValueError(f"the function for layer {name!r} computes: it may only move each element to one place")
        return moved
    if _without_ones(shape) != _without_ones(own_shape):
        return None
    return match({name: shape}, {own: own_shape}, {own: lambda arrays: arrays[name].reshape(own_shape)})


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return _without_ones(shape[1:]) if shape[:1] == (1,) else shape


def _seen(side: Side, rows: Point, pairs: Mapping[str, Pair] | None) -> dict[Key, NDArray[Any]]:
    """Return values and cotangents in the source's names and shapes."""
    layers = {layer.name: layer for layer in side.layers(rows)}
    found: dict[Key, NDArray[Any]] = {}
    for law, array in ((FORWARD, "value"), (BACKWARD, "cotangent")):
        if pairs is None:
            found |= {(law, name): getattr(layer, array) for name, layer in layers.items()}
            continue
        for name, own, matching in pairs.values():
            if matching is not None:
                found[law, name] = matching.in_source({own: getattr(layers[own], array)})[name]
    return found


def _layer_entries(
    key: Key, found: Found, pairs: Mapping[str, Mapping[str, Pair]], dtype: Precision
) -> Iterator[Entry]:
    law, name = key
    for model, theirs in pairs.items():
        if name in theirs and theirs[name].matching is None:
            cause = f"its shape is another one there; say how elements move: layers={{{name!r}: ({name!r}, function)}}"
            yield Entry(model, name, "inconclusive", cause=cause, law=law)
    measured = {model: arrays[key] for model, arrays in found.items() if key in arrays}
    if len(measured) > 1:
        yield from judged_array(key, measured, dtype)


def _with_neighbours(entries: Sequence[Entry]) -> list[Entry]:
    """Say of each layer that differs which layer was the last to agree."""
    told = []
    last: dict[Key, str] = {}
    for entry in entries:
        where = entry.implementation, entry.law
        if entry.verdict == "wrong":
            side = "before" if entry.law == FORWARD else "after"
            agreed = f"{last[where]!r}, the one {side} it, agrees" if where in last else "it is the first"
            entry = replace(entry, cause=f"{agreed}; {entry.cause}")
        if entry.verdict == "agree":
            last[where] = entry.parameter
        told.append(entry)
    return told
