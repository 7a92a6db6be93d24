"""What is known of a derivative of an operation at one point: the truth, what rounding may do, what the inputs allow.

Beside truth and allowance, which are the referee's, stands the criterion of the input's own rounding. An argument x
stands for all that rounds to it, x +- h with h half a unit in its last place:

    moved        the largest |g(x + s h) - g(x)| over corners s = (+-1, +-1, ...), in balls
    attainable   -log10((moved + u |g|) / |g|)
    correct      -log10(|found - g| / |g|)
    reached      whether g takes the value found, to its rounding, for some arguments in the box x +- h

A derivative that is not reached and has fewer digits than attainable lost them: 0 for tanh'(20) = 1.7e-17, which is as
good as its input. One at 1e300 that is a digit worse than its inputs has not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar, final

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import BallNumbers, Balls, as_balls, boxed
from gdcompare.arithmetic.tape import value_and_gradient
from gdcompare.audit.subject import Arrays, Formula, Kind
from gdcompare.backend import unit_roundoff
from gdcompare.case import Case
from gdcompare.problem import Dataset, Problem
from gdcompare.referee.along import RefereeAlong
from gdcompare.referee.enclosed import Enclosed
from gdcompare.referee.enclosure import enclose
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import LOSS, NOTHING, Allowance

Floats = NDArray[np.float64]

CORNERS = 6
"""How many are looked at, where there are more."""
PARTS = (1.0, 0.61, 0.29)
"""How far out, of rows of numbers: what oscillates within the box is not seen by its corners alone."""
NEAR = 16.0
"""So many half units in the last place are as near as rounding comes."""
PRECISIONS = (192, 512, 2048)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Asked(Problem):
    """The loss of an example: cotangents times outputs; its one sample is the whole."""

    formula: Formula
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    formula_is_read: ClassVar[bool] = True
    target_dimensions: ClassVar[int] = 2

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """Those of the arguments."""
        del data
        return dict(zip(self.names, self.shapes, strict=True))

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l = c . vec(f(params)), in an array of one."""
        return xp.broadcast_to(self.formula(xp, *(params[name] for name in self.names), features, targets), (1,))


class Known:
    """The derivatives of one example at one point."""

    def __init__(self, formula: Formula, arguments: Arrays, cotangents: Floats, dtype: str) -> None:
        """Take the arguments as exact, in the dtype."""
        names, shapes = tuple(arguments), tuple(np.shape(each) for each in arguments.values())
        problem = Asked(formula, names, shapes)
        self.formula = formula
        self.case = Case.of(problem, Dataset(cotangents, np.zeros((1, 1))), dict(arguments), dtype, tried=False)
        self.referee = Referee(self.case)
        self.dtype, self.u = dtype, unit_roundoff(dtype)
        self._gradient = Derivatives(self, self.referee, "gradient")

    def subnormal(self, index: tuple[int, ...] | None = None) -> bool:
        """Whether an argument, there or anywhere, is below the smallest normal number: hardware may take it for 0."""
        tiny = np.finfo(self.dtype).tiny
        some = [each if index is None else each[index] for each in self.case.params.values()]
        return any(bool(((each != 0) & (np.abs(each) < tiny)).any()) for each in some)

    def of(self, kind: Kind, direction: Arrays | None = None) -> Derivatives:
        """Return what is known of the gradient, or of a derivative along the direction."""
        if kind == "gradient":
            return self._gradient
        return Derivatives(self, RefereeAlong(self.referee, kind, direction), kind)


class Derivatives:
    """Truths, allowances and attainable digits of one kind of derivative."""

    def __init__(self, known: Known, referee: Referee | RefereeAlong, kind: Kind) -> None:
        self.known, self.referee, self.kind = known, referee, kind

    @cached_property
    def allowances(self) -> dict[str, Allowance]:
        """What a correct program is allowed, by argument."""
        return {name: each for name, each in self.referee.allowances(False).items() if name != LOSS}

    @cached_property
    def truths(self) -> dict[str, Enclosed]:
        """The true derivatives, by argument."""
        _ = self.allowances  # the truth becomes as narrow as these need
        return {name: each for name, each in self.referee.truths.items() if name != LOSS}

    def towards(self, found: Mapping[str, Any]) -> dict[str, Enclosed]:
        """Return the truths; at kinks, those members of the sets that are nearest."""
        budgets = {name: each.budget for name, each in self.allowances.items()}
        truths = {name: each for name, each in self.referee.towards(found, budgets).items() if name != LOSS}
        if any(_is_vague(each).any() for each in truths.values()):
            return {name: self._narrow.get(name, each) for name, each in truths.items()}
        return truths

    @cached_property
    def _narrow(self) -> dict[str, Enclosed]:
        """The gradient beside its own size: beside a budget that is larger, what cancels is 0 for a referee."""
        case = self.known.case
        if self.kind != "gradient" or self.kinks:
            return {}
        return enclose(case.problem, case.params, case.features, case.targets).gradient

    @property
    def kinks(self) -> tuple[str, ...]:
        """Where the operation bends, in words."""
        return self.known.referee.kinks

    @cached_property
    def moved(self) -> dict[str, Floats]:
        """How far the derivative moves, at most, when arguments move by half a unit in their last place."""
        return self._moved(PARTS)

    @cached_property
    def near(self) -> dict[str, Floats]:
        """The same for some units: beyond a kink that is so near, rounding on the way may have come."""
        return self._moved((NEAR,))

    def _moved(self, parts: tuple[float, ...]) -> dict[str, Floats]:
        for precision in PRECISIONS:
            here = self._evaluated(self._inputs(None), precision)
            if all(_is_narrow(each, self.known.u).all() for each in _enclosed(here).values()):
                break
        moved = {name: np.zeros(each.shape) for name, each in here.items()}
        for signs in self._corners(parts):
            there = self._evaluated(self._inputs(signs), precision)
            with ctx.workprec(precision):
                for name, each in _enclosed({name: boxed(there[name] - here[name]) for name in here}).items():
                    moved[name] = np.fmax(moved[name], each.magnitude)
        return moved

    @cached_property
    def box(self) -> dict[str, Enclosed]:
        """Balls that hold the derivative wherever the arguments lie in their boxes."""
        return _enclosed(self._evaluated(self._inputs("box"), PRECISIONS[0]))

    def _corners(self, parts: tuple[float, ...]) -> Iterator[tuple[Floats, ...]]:
        shapes = [value.shape for value in self.known.case.params.values()]
        if len({*shapes}) == 1 and len(shapes) <= 2 and len(shapes[0]) == 1:  # equally long rows of numbers
            for signs in product((1.0, -1.0), repeat=len(shapes)):
                for part in parts:
                    yield tuple(np.full(shape, part * sign) for shape, sign in zip(shapes, signs, strict=True))
            return
        generator = np.random.default_rng(0)
        for _ in range(CORNERS):
            yield tuple(parts[0] * generator.choice([-1.0, 1.0], shape) for shape in shapes)

    def _inputs(self, move: tuple[Floats, ...] | str | None) -> dict[str, Balls]:
        inputs = {}
        with ctx.workprec(PRECISIONS[-1]):
            for i, (name, value) in enumerate(self.known.case.params.items()):
                below = np.nextafter(np.abs(value), np.asarray(-1, value.dtype)).astype(np.float64)
                half = np.abs(np.abs(value.astype(np.float64)) - below) / 2
                balls = as_balls(value)
                if isinstance(move, str):
                    balls = boxed(balls + np.frompyfunc(lambda radius: arb(0, radius), 1, 1)(half))
                elif move is not None:
                    balls = boxed(balls + as_balls(move[i] * half))
                inputs[name] = boxed(balls)
        return inputs

    def _evaluated(self, inputs: Mapping[str, Balls], precision: int) -> dict[str, Balls]:
        case = self.known.case
        with ctx.workprec(precision):
            if isinstance(self.referee, RefereeAlong):
                found = self.referee.evaluated(BallNumbers(), inputs, case.features, case.targets)
            else:
                _, found = value_and_gradient(case.problem, BallNumbers(), inputs, case.features, case.targets)
        return {name: boxed(each) for name, each in found.items() if name != LOSS}


def _is_vague(truth: Enclosed) -> Any:
    """Say where it is not known whether the truth is 0, though it is no kink."""
    return (truth.rad >= np.abs(truth.mid)) & (truth.rad > NOTHING) & np.isfinite(truth.rad) & ~truth.kinks


def _is_narrow(truth: Enclosed, u: float) -> Any:
    return (truth.rad <= u / 1024 * np.abs(truth.mid)) | (truth.rad <= NOTHING) | ~np.isfinite(truth.rad)


def _enclosed(balls: Mapping[str, Balls]) -> dict[str, Enclosed]:
    return {name: Enclosed(each, np.zeros(each.shape, dtype=bool)) for name, each in balls.items()}


def digits(error: Floats, size: Floats, u: float) -> Floats:
    """Return -log10(error / size), from 0 to as many as the dtype has; all of them where nothing is off.

    >>> digits(np.array([0.0, 1e-3, 5.0]), np.ones(3), 2.0**-53).round(1).tolist()
    [16.0, 3.0, 0.0]
    """
    with np.errstate(all="ignore"):
        share = np.where(error == 0, 0.0, error / size)
    return np.asarray(np.abs(np.log10(np.clip(np.nan_to_num(share, nan=1.0), u, 1.0))))
