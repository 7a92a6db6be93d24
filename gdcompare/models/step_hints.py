"""Why two layers are different functions: what the steps between the last layer that agrees and this one have to say.

Most hints are tried out: the change is made in the other model's program, and what it said before stands only if that
takes all but a thousandth of the difference away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.numbers import Floats as FloatNumbers
from gdcompare.arithmetic.program import Earlier, Program, Step
from gdcompare.arithmetic.tape import Tape
from gdcompare.models.constants import constants, with_constants
from gdcompare.models.true_layers import LayerProgram

Floats: TypeAlias = NDArray[np.float64]

ENOUGH = 1e-3
"""The share of a difference that a change may leave, to be its cause."""
MOST_TRIED = 48
SMALL, LARGE = 0.1, 1e3
ROOTS = {"sqrt", "rsqrt", "pow"}
MOVING = {"reshape", "broadcast_to", "expand_dims", "squeeze", "permute_dims", "index", "where", "maximum"}
FAMILIES = {"erfc": "erf", "erfinv": "erf", "softmax": "exp", "log_softmax": "exp", "logsumexp": "exp", "expm1": "exp"}
NAMED = {"erf", "tanh", "exp", "sigmoid", "log", "sin", "cos", "atan", "log1p", "softplus", "abs", "sign"}
TANH_GELU, QUICK_GELU = 0.044715, 1.702


@final
@dataclass(frozen=True, eq=False)
class Region:
    """The steps of a program that a layer needs, but for those that layers known before it need."""

    layers: LayerProgram
    layer: str
    places: frozenset[int]
    """Among the steps."""

    @property
    def name(self) -> str:
        """The model's."""
        return self.layers.name

    @property
    def program(self) -> Program:
        """The model's."""
        return self.layers.program

    @cached_property
    def steps(self) -> dict[int, Step]:
        """The steps, by the numbers of their values."""
        first = len(self.program.inputs)
        return {first + place: self.program.steps[place] for place in sorted(self.places)}

    @cached_property
    def values(self) -> dict[int, Floats]:
        """What the steps return, in floats."""
        tape = Tape(FloatNumbers())
        with np.errstate(all="ignore"):
            values = self.program.values(tape, *map(tape.asarray, self.layers.inputs), last=max(self.steps, default=0))
        return {number: np.asarray(tape.asarray(values[number]).value[0]) for number in self.steps}

    def output(self, program: Program | None = None, inputs: Sequence[Any] | None = None) -> Floats:
        """Return the layer, with another program or inputs in place of its own."""
        changed = replace(
            self.layers, inputs=inputs or self.layers.inputs, places={self.layer: self.layers.places[self.layer]}
        )
        return changed.in_floats(program or self.program)[self.layer]

    def users(self, number: int) -> Iterator[Step]:
        """Yield the steps that use a value, through those that only move it."""
        for other, step in self.steps.items():
            if number in numbers_of(step):
                yield step
                if step.function in MOVING:
                    yield from self.users(other)

    def made_by(self, number: int) -> Iterator[Step]:
        """Yield the step that makes a value, through those that only move it."""
        step = self.steps.get(number)
        if step is not None:
            yield step
            if step.function in MOVING:
                for each in numbers_of(step):
                    yield from self.made_by(each)

    @cached_property
    def functions(self) -> set[str]:
        """The functions of one variable that the steps apply, by families."""
        return {FAMILIES.get(step.function, step.function) for step in self.steps.values()} & NAMED

    @cached_property
    def constants(self) -> list[float]:
        """The single constants in it."""
        return [float(each) for each in constants(list(self.steps.values()), exact=True) if each.size == 1]

    @cached_property
    def epsilons(self) -> dict[float, str]:
        """The small constants that are added, and where: inside a root, outside of it, or elsewhere."""
        found = {}
        for number, step in self.steps.items():
            if step.function not in ("add", "maximum"):
                continue
            for operand in step.operands:
                if isinstance(operand, float | np.floating | np.ndarray) and np.size(operand) == 1:
                    value = float(np.reshape(operand, ()))
                    if 0 < value < SMALL:
                        others = [each for other in numbers_of(step) for each in self.made_by(other)]
                        inside = any(each.function in ROOTS for each in self.users(number))
                        outside = any(each.function in ROOTS for each in others)
                        found[value] = "inside the root" if inside else "outside of the root" if outside else "added"
        return found

    def line(self) -> str:
        """Return where the user's code has its last step."""
        return next((step.line for _, step in sorted(self.steps.items(), reverse=True) if step.line), "")


def region(layers: LayerProgram, layer: str, before: Sequence[str]) -> Region:
    """Return the steps of a layer, behind other layers."""
    inputs = len(layers.program.inputs)

    def needed(numbers: Sequence[int], stop: frozenset[int]) -> frozenset[int]:
        found: set[int] = set()
        todo = [number - inputs for number in numbers]
        while todo:
            place = todo.pop()
            if place >= 0 and place not in found and place not in stop:
                found.add(place)
                todo += [number - inputs for number in numbers_of(layers.program.steps[place])]
        return frozenset(found)

    known = needed([layers.places[each].number for each in before if each in layers.places], frozenset())
    return Region(layers, layer, needed([layers.places[layer].number], known))


def numbers_of(step: Step) -> list[int]:
    """Return the numbers of the values that a step is called with."""
    flat = [part for each in step.operands for part in (each if isinstance(each, list) else [each])]
    return [each.number for each in flat if isinstance(each, Earlier)]


def hint(source: Region, other: Region) -> str:
    """Say what may be why the other model has another function there; "" if nothing is known."""
    wanted = source.output()
    off = _off(wanted, other.output())
    if not np.isfinite(off) or off == 0:
        return ""

    ways: list[Callable[[], str]] = [
        lambda: _another_constant(source, other),
        lambda: _epsilon_elsewhere(source, other),
        lambda: _transposed(source, other),
        lambda: _missing_bias(source, other, wanted),
        lambda: _other_axis(source, other, wanted),
        lambda: _other_functions(source, other),
        lambda: _factor(source, other, wanted),
    ]
    with np.errstate(all="ignore"):
        return next((said for way in ways if (said := way())), "")


def _off(one: Floats, other: Floats) -> float:
    return float(np.max(np.abs(one - other), initial=0.0)) if one.shape == other.shape else math.inf


def _another_constant(source: Region, other: Region) -> str:
    """A constant of one that takes the difference away, if it is one of the other's."""
    for changed, fixed in ((other, source), (source, other)):
        wanted = fixed.output()
        off = _off(wanted, changed.output())
        own = [each for each in changed.constants if each not in fixed.constants]
        news = [each for each in fixed.constants if each not in changed.constants]
        news += [each for each in fixed.constants if each in changed.constants]
        for old, new in islice(product(own, news), MOST_TRIED):
            for value in (new, 1 / new) if new else (new,):
                if _off(wanted, changed.output(_with(changed, old, value))) <= ENOUGH * off:
                    return _of_constants(source, other, *((new, old) if changed is other else (old, new)))
    return ""


def _with(one: Region, old: float, new: float) -> Program:
    """Return its program with another constant in the region."""
    pairs = [(np.full(shape, old), np.full(shape, new)) for shape in ((), (1,), (1, 1), (1, 1, 1), (1, 1, 1, 1))]
    return with_constants(one.program, pairs, one.places)


def _of_constants(source: Region, other: Region, mine: float, its: float) -> str:
    values = f"{mine!r} in {source.name!r}, {its!r} in {other.name!r}"
    if its in other.epsilons or mine in source.epsilons:
        place = other.epsilons.get(its) or source.epsilons.get(mine, "")
        return f"another epsilon{f' {place}' if 'root' in place else ''}: {values}"
    if max(abs(mine), abs(its)) >= LARGE:
        return f"another mask value: {values}"
    if mine.is_integer() and its.is_integer() and abs(mine - its) == 1:
        return f"divided by n in one, and by n - 1 in the other, as a variance that is not biased: {values}"
    return f"another constant, or scale: {values}"


def _epsilon_elsewhere(source: Region, other: Region) -> str:
    """The same epsilon, in another place; without it, they are one function."""
    shared = {each for each in source.epsilons if each in other.epsilons}
    moved = [each for each in shared if source.epsilons[each] != other.epsilons[each]]
    if not moved:
        return ""
    value = moved[0]
    one, two = (each.output(_with(each, value, 0.0)) for each in (source, other))
    if not _off(one, two) <= ENOUGH * _off(source.output(), other.output()):
        return ""
    return f"epsilon {value!r} {source.epsilons[value]} in {source.name!r}, {other.epsilons[value]} in {other.name!r}"


def _transposed(source: Region, other: Region) -> str:
    """A square matrix that belongs the other way round."""
    wanted = source.output()
    off = _off(wanted, other.output())
    used = {number for step in other.steps.values() for number in numbers_of(step)}
    for number in sorted(used):
        if number >= len(other.program.inputs) - 2:
            continue
        inputs = list(other.layers.inputs)
        value = inputs[number]
        if value.ndim >= 2 and value.shape[-1] == value.shape[-2] > 1:
            inputs[number] = np.swapaxes(value, -1, -2)
            if _off(wanted, other.output(inputs=inputs)) <= ENOUGH * off:
                return f"{other.program.inputs[number].name!r} is transposed in {other.name!r}"
    return ""


def _missing_bias(source: Region, other: Region, wanted: Floats) -> str:
    """A vector of parameters that one adds, and the other does not."""
    gap = wanted - other.output()
    for one, sign, lacks in ((source, 1.0, other), (other, -1.0, source)):
        for number in {number for step in one.steps.values() for number in numbers_of(step)}:
            if number >= len(one.program.inputs) - 2:
                continue
            value = np.asarray(one.layers.inputs[number], dtype=np.float64)
            if value.ndim != 1 or not value.any():
                continue
            for axis in range(gap.ndim):
                if gap.shape[axis] == value.size:
                    shaped = value.reshape([-1 if i == axis else 1 for i in range(gap.ndim)])
                    if _off(gap, np.broadcast_to(sign * shaped, gap.shape)) <= ENOUGH * np.abs(gap).max():
                        return f"{one.program.inputs[number].name!r} of {one.name!r} is not added in {lacks.name!r}"
    return ""


def _other_axis(source: Region, other: Region, wanted: Floats) -> str:
    """Shares that add up to 1 along another axis: a softmax."""
    axes = []
    for values in (wanted, other.output()):
        whole = [
            axis - values.ndim
            for axis in range(values.ndim)
            if values.shape[axis] > 1 and (values >= 0).all() and np.allclose(values.sum(axis=axis), 1, atol=1e-9)
        ]
        axes.append(whole)
    if axes[0] and axes[1] and not set(axes[0]) & set(axes[1]):
        return f"shares that add up to 1 along axis {axes[0][0]} in {source.name!r}, {axes[1][0]} in {other.name!r}"
    return ""


def _other_functions(source: Region, other: Region) -> str:
    """Functions that one applies, and the other does not."""
    ours, theirs = source.functions - other.functions, other.functions - source.functions
    if not ours and not theirs:
        return ""
    gelu = any(
        abs(each - known) < 1e-5 for each in [*source.constants, *other.constants] for known in (TANH_GELU, QUICK_GELU)
    )
    said = [
        f"{', '.join(sorted(functions)) or 'none of these'} in {one.name!r}"
        for functions, one in ((ours, source), (theirs, other))
    ]
    return f"{'another approximation of gelu' if gelu else 'other functions'}: by {said[0]}, by {said[1]}"


def _factor(source: Region, other: Region, wanted: Floats) -> str:
    """A factor that sums, means, variances and scales tell: of the layer, or of a value on the way."""
    lengths = {length for each in (source, other) for value in each.values.values() for length in value.shape}
    known = {2.0: "2: a square with its half, or without"}
    known |= {n * 1.0: f"n = {n}: a sum for a mean" for n in lengths if n > 1}
    known |= {math.sqrt(n): f"sqrt({n}): another scale" for n in lengths if n > 1 and n**0.5 not in known}
    known |= {n / (n - 1): f"n / (n - 1), n = {n}: a variance that is not biased" for n in lengths if n > 2}
    every = [(wanted, other.output()), *product(source.values.values(), other.values.values())]
    for i, (one, two) in enumerate(islice(every, 4000)):
        alone = i > 0 and one.size < 2  # single numbers on the way may have such a ratio by chance
        if one.size != two.size or alone or not (np.isfinite(one).all() and np.isfinite(two).all()):
            continue
        flat, theirs = one.ravel(), two.ravel()
        if not (flat.all() and theirs.all()):
            continue
        ratio = flat / theirs
        if np.ptp(ratio) > 1e-9 * abs(ratio[0]) or abs(ratio[0] - 1) < 1e-9:
            continue
        for factor, said in known.items():
            for name, found in ((source.name, ratio[0]), (other.name, 1 / ratio[0])):
                if abs(found / factor - 1) < 1e-9:
                    return f"larger in {name!r} by a factor {said}"
    return ""
