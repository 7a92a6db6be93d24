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
from gdcompare.arithmetic.program import Earlier, Program
from gdcompare.arithmetic.tape import Tape
from gdcompare.backend import unit_roundoff
from gdcompare.models.alike import Form, Known, as_balls
from gdcompare.models.matching import Matching
from gdcompare.models.native import Layer
from gdcompare.models.sides import Point, Side
from gdcompare.models.truth import MOST_WORK, work
from gdcompare.referee.enclosed import middles

Floats: TypeAlias = NDArray[np.float64]

NEAR = 2.0**-30
"""How near the numbers of a step are to those seen in a layer, as a share of the largest."""
MILLIONTH = 1e-6
PRECISION = 128
ROUNDINGS = 16
"""How many units of the largest are taken for what rounding may do to a layer."""


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
    unit: float = 2.0**-53
    """The unit roundoff at which the models are judged."""

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
            known[name] = Known(
                balls, np.zeros(balls.shape, dtype=bool), np.full(balls.shape, ROUNDINGS * self.unit * largest)
            )
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
    found = _seen_layers(side, point)
    if isinstance(found, str):
        return found
    program, inputs, layers = found
    values = _values(program, Tape(FloatNumbers()), inputs)
    numbers = [np.asarray(each.value[0]) for each in values]
    names = {name: name for name in layers}
    moves: dict[str, tuple[str, Matching]] = {}
    if pairs is not None:
        moves = {name: (each.own, each.matching) for name, each in pairs.items() if each.matching}
        names = {name: own for name, (own, _) in moves.items()}
    places = {name: near[0] for name, own in names.items() if (near := _places(layers[own], numbers))}
    return LayerProgram(side, program, inputs, places, moves, unit_roundoff(point.dtype))


def wrong_behind(side: Side, point: Point) -> str:
    """Return the first layer, from the loss down, whose cotangent is not that of the model's program; "" for none.

    That is told by floats, of a gradient that is known to be wrong: off by more than a millionth of the largest.
    """
    found = _seen_layers(side, point)
    if isinstance(found, str):
        return ""
    program, inputs, layers = found
    tape = Tape(FloatNumbers())
    values = _values(program, tape, inputs)
    arrived: dict[int, Any] = {}
    loss = tape.asarray(values[program.output.number]) if isinstance(program.output, Earlier) else None
    if loss is None or loss.value.size != 1:
        return ""
    with np.errstate(all="ignore"):
        tape.walk_back(loss, lambda node, cotangent: arrived.update({id(node): cotangent}))
        arrived |= {id(leaf): tape.gradient(leaf) for leaf in values[: len(program.inputs)]}
    numbers = [np.asarray(each.value[0]) for each in values]
    for name, layer in reversed(layers.items()):
        due = []
        for place in _places(layer, numbers):  # the same numbers may be at several steps, and used at each
            cotangent = arrived.get(id(values[place.number]))
            shape = numbers[place.number].shape
            due.append(place.of(np.zeros(shape) if cotangent is None else np.broadcast_to(cotangent[0], shape)))
        given = np.asarray(layer.cotangent, dtype=np.float64)
        most = max((float(np.max(np.abs(each), initial=0.0)) for each in [*due, given]), default=0.0)
        if due and not any(np.abs(each - given).max(initial=0.0) <= MILLIONTH * most for each in due):
            return name
    return ""


def _seen_layers(side: Side, point: Point) -> tuple[Program, list[NDArray[Any]], dict[str, Layer]] | str:
    """Return a model's program in float64, its inputs, and the layers as they were seen; or why there are none."""
    at = point.in_dtype("float64")
    try:
        own, features, targets = side.given(at)
        program = side.model.program(own, features, targets)
        if work(program) > MOST_WORK:
            return "its program is too large"
        layers = {layer.name: layer for layer in side.layers(at)}
    except (ValueError, NotImplementedError, RecursionError) as error:
        return str(error)
    return program, [*(own[each.name] for each in program.inputs[:-2]), features, targets], layers


def _values(program: Program, tape: Tape, inputs: Sequence[NDArray[Any]]) -> list[Any]:
    with np.errstate(all="ignore"):
        return [tape.asarray(each) for each in program.values(tape, *map(tape.leaf, inputs))]


def _places(layer: Layer, values: Sequence[Floats]) -> list[Place]:
    """Return the values whose numbers are a layer's, the nearest first, and of several as near the first."""
    wanted = np.asarray(layer.value, dtype=np.float64)
    if not np.isfinite(wanted).all() or wanted.size == 0:
        return []
    ordered = np.sort(wanted, axis=None)
    room = NEAR * float(np.max(np.abs(wanted), initial=0.0)) + 1e-300
    found = []
    for number, value in enumerate(values):
        if value.size != wanted.size or not np.abs(np.sort(value, axis=None) - ordered).max() <= room:
            continue
        for axes in _orders(value.shape, wanted.shape):
            off = float(np.max(np.abs(np.transpose(value, axes).reshape(wanted.shape) - wanted)))
            if off <= room:
                found.append((off, Place(number, axes, wanted.shape)))
    return [place for _, place in sorted(found, key=lambda each: each[0])]


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
