"""The truth of layers: the steps of a model's program that give out what its layers do, in balls.

A layer's step is the one whose numbers are those that were seen in the layer, in one order of the axes or another;
both are computed in float64, whatever is judged: whether two functions differ is no matter of the dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
from flint import ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.numbers import Floats as FloatNumbers
from gdcompare.arithmetic.program import Program
from gdcompare.arithmetic.tape import Tape
from gdcompare.models.alike import Form, Known, as_balls
from gdcompare.models.matching import Matching
from gdcompare.models.native import Layer
from gdcompare.models.sides import Point, Side
from gdcompare.models.truth import MOST_WORK, work
from gdcompare.referee.enclosed import middles

Floats: TypeAlias = NDArray[np.float64]

NEAR = 2.0**-30
"""How near the numbers of a step are to those seen in a layer, as a share of the largest."""
PRECISION = 128
UNIT = 2.0**-53


class Place(NamedTuple):
    """Where in a program a layer's numbers are: the value's number, and its axes in the layer's order."""

    number: int
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def of(self, value: Any) -> Any:
        """Return the numbers of that value as the layer has them."""
        return np.transpose(value, self.axes).reshape(self.shape)


@final
@dataclass(frozen=True, eq=False)
class LayerProgram:
    """A model's program at one sample, or one batch, and where its layers are in it."""

    side: Side
    program: Program
    inputs: Sequence[NDArray[Any]]
    places: Mapping[str, Place]
    """By the source's names of the layers."""
    moves: Mapping[str, tuple[str, Matching]]
    """How the elements of the source's array come to its own, where it is not the source."""

    @property
    def name(self) -> str:
        """The model's."""
        return self.side.name

    def form(self) -> Form:
        """Return its layers as what can be compared."""
        return Form(self.name, self.program, self.true, self.in_floats)

    def true(self, program: Program) -> dict[str, Known]:
        """Return what is true of each layer, with another program in place of its own."""
        with ctx.workprec(PRECISION):
            found = self._seen(program, Tape(BallNumbers()))
        known = {}
        for name, each in found.items():
            balls = as_balls(each)
            size = np.abs(middles(balls))
            largest = float(np.max(np.where(np.isfinite(size), size, 0.0), initial=0.0))
            known[name] = Known(balls, np.zeros(balls.shape, dtype=bool), np.full(balls.shape, UNIT * largest))
        return known

    def in_floats(self, program: Program) -> dict[str, Floats]:
        """Return the same in float64."""
        with np.errstate(all="ignore"):
            return {name: np.asarray(each) for name, each in self._seen(program, Tape(FloatNumbers())).items()}

    def _seen(self, program: Program, tape: Tape) -> dict[str, Any]:
        if not self.places:
            return {}
        last = max(each.number for each in self.places.values())
        values = program.values(tape, *map(tape.asarray, self.inputs), last=last)
        found = {name: place.of(tape.asarray(values[place.number]).value[0]) for name, place in self.places.items()}
        for name, (own, matching) in self.moves.items():
            if name in found:
                found[name] = matching.in_source({own: found[name]})[name]
        return found


def layer_program(side: Side, point: Point, pairs: Mapping[str, Any] | None) -> LayerProgram | str:
    """Return where a model's layers are in its program, or why nobody knows.

    `pairs` says which of the source's layers are which of its own, and how their elements come; None for the source.
    """
    at = point.in_dtype("float64")
    try:
        own, features, targets = side.given(at)
        program = side.model.program(own, features, targets)
        if work(program) > MOST_WORK:
            return "its program is too large"
        inputs = [*(own[each.name] for each in program.inputs[:-2]), features, targets]
        tape = Tape(FloatNumbers())
        with np.errstate(all="ignore"):
            values = [np.asarray(tape.asarray(each).value[0]) for each in program.values(tape, *map(tape.asarray, inputs))]
        layers = {layer.name: layer for layer in side.layers(at)}
    except (ValueError, NotImplementedError, RecursionError) as error:
        return str(error)
    names = {name: name for name in layers} if pairs is None else {name: pair.own for name, pair in pairs.items()}
    moves = {} if pairs is None else {name: (each.own, each.matching) for name, each in pairs.items() if each.matching}
    if pairs is not None:
        names = {name: own_name for name, own_name in names.items() if name in moves}
    places = {name: place for name, own_name in names.items() if (place := _place(layers[own_name], values)) is not None}
    return LayerProgram(side, program, inputs, places, moves)


def _place(layer: Layer, values: Sequence[Floats]) -> Place | None:
    """Return the value whose numbers are nearest to a layer's, the first of several; None if none is near."""
    wanted = np.asarray(layer.value, dtype=np.float64)
    if not np.isfinite(wanted).all() or wanted.size == 0:
        return None
    sums = np.sort(wanted, axis=None)
    room = NEAR * float(np.max(np.abs(wanted), initial=0.0)) + 1e-300
    best, nearest = None, room
    for number, value in enumerate(values):
        if value.size != wanted.size or not np.abs(np.sort(value, axis=None) - sums).max() <= room:
            continue
        for axes in _orders(value.shape, wanted.shape):
            off = float(np.max(np.abs(np.transpose(value, axes).reshape(wanted.shape) - wanted)))
            if off < nearest or (best is None and off <= nearest):
                best, nearest = Place(number, axes, wanted.shape), off
    return best


def _orders(shape: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the orders of axes by which a shape becomes another, but for axes of length 1; as they are first.

    >>> list(_orders((1, 2, 3), (3, 2)))
    [(0, 2, 1)]
    """
    ones = tuple(i for i, length in enumerate(shape) if length == 1)
    rest = [i for i, length in enumerate(shape) if length != 1]
    due = [length for length in wanted if length != 1]
    if len(rest) <= 6:
        for order in permutations(rest):
            if [shape[i] for i in order] == due:
                yield (*ones, *order)
