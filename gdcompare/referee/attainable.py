"""Attainable digits: beside the digits that a gradient has right, those that its inputs allow.

An input in floating point stands for all that rounds to it. What the true gradient g does within half a unit in the
last place (h) of the inputs x, and the rounding of the result, any program must be allowed:

    moved        the largest |g(x + s h) - g(x)|, over some corners s = (+-1, +-1, ...), in balls
    attainable   -log10((moved + u |g|) / |g|)
    correct      -log10(|actual - g| / |g|)
    summed       u sqrt(n) mean |g_i|       what adding up n rows g_i costs, in whatever order

Where the error is more than ten times what is moved, rounded and summed, digits are lost by the formula: `sin` at 1e8
is as good as its input, but `1 - tanh(x)^2` is not. That is no fault of a program that rounds, and changes no verdict.

Corners see less than the whole box, hence the ten. A loss is `proven` if no input in the box has a gradient that rounds
to the one in question: one more run, on balls as wide as the box, encloses them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias, final

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import BallNumbers, Balls, as_balls, boxed, elementwise
from gdcompare.arithmetic.tape import per_sample_gradients, value_and_gradient
from gdcompare.backend import Backend, unit_roundoff
from gdcompare.case import Case, DataLike
from gdcompare.gradients import offers
from gdcompare.problem import Problem
from gdcompare.referee.context import context_of
from gdcompare.referee.due import NotDueError, as_due
from gdcompare.referee.enclosed import Enclosed
from gdcompare.referee.point import Implementation, Referee, fitting
from gdcompare.referee.shown import heading, subject_of
from gdcompare.referee.verdict import Floats, Grade
from gdcompare.registry import refuse_nobody, refuse_unnamed
from gdcompare.table import Part, as_html, as_text, count, number, table

CORNERS = 8
PRECISIONS = (128, 256, 512, 1024)
MARGIN = 1.0
"""So many digits less than there could be, and they are lost."""

BEYOND = "more than the formula of the loss loses: it has another of its own, or is wrong"

Inputs: TypeAlias = tuple[dict[str, Balls], Balls, Balls]


@final
@dataclass(frozen=True)
class Digits:
    """The digits of one array: of the element that is nearest to a loss, or lost most."""

    implementation: str
    parameter: str
    index: tuple[int, ...] | None
    """The element; None if there is none, or no truth that has digits."""
    correct: float
    attainable: float
    lost: str = ""
    """Why there are fewer; empty if there are not."""
    grade: Grade = "sampled"
    """Of the loss: `proven` if the wide balls confirm it."""
    beyond: bool = False
    """Whether more is lost than the loss's formula loses, differentiated: by a formula of its own, or it is wrong."""

    def __repr__(self) -> str:
        found = f"{number(self.correct, '{:.1f}')} of {number(self.attainable, '{:.1f}')} digits"
        return f"Digits({self.implementation}: {self._place()}, {found}{', lost ' * bool(self.lost)}{self._by()})"

    def _by(self) -> str:
        return "" if not self.lost else "beyond the formula" if self.beyond else "by the formula"

    def _place(self) -> str:
        return f"{self.parameter}[{', '.join(map(str, self.index))}]" if self.index else self.parameter


@final
@dataclass(frozen=True, repr=False)
class AttainableDigits:
    """The digits of several implementations, correct and attainable."""

    entries: tuple[Digits, ...]
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lost(self) -> tuple[Digits, ...]:
        """The entries that lost digits by their formula."""
        return tuple(each for each in self.entries if each.lost)

    def shown(self) -> list[Part]:
        """Return what is shown of it: a heading, a table, and a line for each loss."""
        rows = [
            (
                each.implementation,
                each._place(),
                f"{each._by()}{'*' * (each.grade == 'sampled')}" if each.lost else "-",
                number(each.correct, "{:.1f}"),
                number(each.attainable, "{:.1f}"),
            )
            for each in self.entries
        ]
        columns = ["implementation", "parameter", "digits lost", "correct", "attainable"]
        lines = [f"{each.implementation}: {each._place()}: {each.lost}" for each in self.lost]
        star = any(each.grade == "sampled" for each in self.lost)
        notes = ["* by random moves of the inputs, not proven"] if star else []
        return [heading(self.context), table("", columns, rows, left=3), *lines, *notes]

    def __repr__(self) -> str:
        words = [f"{len(self.lost)} of {count(len(self.entries), 'array')} lost digits", subject_of(self.context)]
        return f"{type(self).__name__}({', '.join(filter(None, words))})"

    def __str__(self) -> str:
        return as_text(self.shown())

    def _repr_html_(self) -> str:
        return as_html(self.shown())

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        return {"context": dict(self.context), "entries": [asdict(each) for each in self.entries]}


def attainable_digits(
    problem: str | Problem,
    data: DataLike = None,
    params: Mapping[str, Any] | None = None,
    dtype: str = "float64",
    *,
    backends: Sequence[str | Backend[Any]] | None = None,
    implementations: Mapping[str, Implementation] | None = None,
    reduction: str = "mean",
) -> AttainableDigits:
    """Return how many decimal digits each gradient has right, and how many its inputs allow.

    The arguments are those of `verify`. Parameters count as rounded, and features and targets that are not whole
    numbers; weights are exact. Each array shows the element that is nearest to a loss, or lost most, which is
    information, not a verdict. Where the true gradient is a set, or not normal in the dtype, no digits are asked for.

    >>> import gdcompare as gdc
    >>> digits = gdc.attainable_digits("linear-regression", gdc.datasets.noisy_line(), {"theta_0": 1, "theta_1": [0]})
    >>> len(digits.lost)
    0
    """
    case = Case.of(problem, data, params, dtype, reduction)
    loaded = case.backends(backends)
    if backends is None:
        loaded = [each for each in loaded if offers(each, case.problem, "gradient")]
    refuse_unnamed(implementations, loaded)
    refuse_nobody(case.problem, [*loaded, *(implementations or ())], "gradient")
    referee = Referee(case)
    known = _Known(referee)
    entries: list[Digits] = []
    for backend in loaded:
        entries += known.digits(backend.name, referee.backend_implementation(backend))
    for name, function in (implementations or {}).items():
        entries += known.digits(name, function)
    return AttainableDigits(tuple(entries), context_of(referee, case.data, loaded))


@final
class _Known:
    """What the inputs allow, element by element, at one point."""

    def __init__(self, referee: Referee) -> None:
        self.referee, self.u = referee, unit_roundoff(referee.dtype)
        tiny = float(np.finfo(referee.dtype).tiny)
        generator = np.random.default_rng(0)
        exact = self._inputs(lambda half: half * 0)
        for precision in PRECISIONS:
            balls = self._gradient(exact, precision)
            truths = {name: Enclosed(each, referee.truths[name].kinks) for name, each in balls.items()}
            if all((each.kinks | (each.rad <= self.u / 1024 * np.abs(each.mid))).all() for each in truths.values()):
                break
        self.truths = truths
        self.sizes = {name: np.abs(each.mid) for name, each in truths.items()}
        self.rounding = {name: self.u * size for name, size in self.sizes.items()}
        self.summed = self._rounding_of_a_sum(exact, precision)
        self.moved = {name: np.zeros(size.shape) for name, size in self.sizes.items()}
        for _ in range(CORNERS):
            corner = self._inputs(lambda half: half * generator.choice([-1.0, 1.0], half.shape))
            for name, each in self._gradient(corner, precision).items():
                self.moved[name] = np.fmax(self.moved[name], _change(each, balls[name], precision))
        self.box = self._gradient(self._inputs(lambda half: half, wide=True), precision)
        self.asked = {
            name: ~each.kinks
            & np.isfinite(each.mid)
            & (each.rad <= self.u / 1024 * self.sizes[name])
            & ((self.sizes[name] >= tiny) | (each.mid == 0))
            for name, each in truths.items()
        }

    def digits(self, name: str, function: Implementation) -> Iterator[Digits]:
        """Call the implementation once, and count; what it does not return has no digits, and `verify` says why."""
        if (fits := getattr(function, "fits", None)) is not None:  # a native model's
            fits(self.referee.params)
        try:
            _, gradient = as_due(function(*self.referee.point), (None, {}), "(loss, {name: gradient})")
        except NotDueError:
            gradient = {}
        found = fitting({str(key): value for key, value in gradient.items()}, self.truths)
        for parameter in self.truths:
            if parameter in found:
                yield self._of_array(name, parameter, found[parameter])
            else:
                yield Digits(name, parameter, None, np.nan, np.nan)

    def _of_array(self, name: str, parameter: str, actual: Floats) -> Digits:
        truth, size, asked = self.truths[parameter], self.sizes[parameter], self.asked[parameter]
        if not asked.any():
            return Digits(name, parameter, None, np.nan, np.nan)
        error = truth.distance(actual)[1]
        correct = self._count(error, size)
        attainable = self._count(self.moved[parameter] + self.rounding[parameter], size)
        possible = self._count(self.moved[parameter] + self.summed[parameter], size)
        below = np.where(asked, possible - correct, -np.inf)
        place = np.unravel_index(int(np.argmax(below)), below.shape)
        index = tuple(int(i) for i in place)
        figures = name, parameter, index, float(correct[place]), float(attainable[place])
        if below[place] <= MARGIN:
            return Digits(*figures)
        with ctx.workprec(128):
            ball = Enclosed(boxed(self.box[parameter][place]), np.asarray(True))
        outside = ball.distance(actual[place])[0] > self.u * ball.magnitude
        beyond = not error[place] <= self.referee.allowances(by_hand=False)[parameter].budget[place]
        why = BEYOND if beyond else self.referee.lost_digits.why(parameter, asked & (below == below[place]))
        return Digits(*figures, why, "proven" if outside else "sampled", beyond)

    def _count(self, error: Floats, size: Floats) -> Floats:
        """Return -log10(error / size), from 0 to as many as the dtype has; all of them if nothing is off."""
        with np.errstate(all="ignore"):
            share = np.where(error == 0, 0.0, error / size)
        return np.asarray(np.abs(np.log10(np.clip(np.nan_to_num(share, nan=1.0), self.u, 1.0))))

    def _rounding_of_a_sum(self, inputs: Inputs, precision: int) -> dict[str, Floats]:
        """Return what adding up the rows, in whatever order, may be off by."""
        referee, n = self.referee, len(self.referee.features)
        if n == 1:
            return self.rounding
        with ctx.workprec(precision):
            rows = per_sample_gradients(referee.problem, BallNumbers(), *inputs, referee.weights, referee.reduction)
        added = np.mean if referee.reduction == "mean" else np.sum
        sizes = {name: added(_magnitude(boxed(each)), axis=0) for name, each in rows.items()}
        return {name: self.u * np.sqrt(n) * np.fmax(size, self.sizes[name]) for name, size in sizes.items()}

    def _inputs(self, move: Any, wide: bool = False) -> Inputs:
        """Return the inputs, moved by this much of half a unit in the last place, or as wide."""

        def moved(values: NDArray[Any], whole_is_exact: bool) -> Balls:
            half = np.spacing(np.abs(values)).astype(np.float64) / 2
            rounded = ~(whole_is_exact & (values == np.rint(values)))
            by = boxed(elementwise(arb)(np.where(rounded, move(half), 0.0)))
            return boxed(as_balls(values) + (boxed(elementwise(lambda each: arb(0, each))(by)) if wide else by))

        with ctx.workprec(PRECISIONS[-1]):
            params = {name: moved(value, False) for name, value in self.referee.params.items()}
            return params, moved(self.referee.features, True), moved(self.referee.targets, True)

    def _gradient(self, inputs: Inputs, precision: int) -> dict[str, Balls]:
        with ctx.workprec(precision):
            _, gradient = value_and_gradient(
                self.referee.problem, BallNumbers(), *inputs, self.referee.weights, self.referee.reduction
            )
        return {name: boxed(each) for name, each in gradient.items()}


def _change(one: Balls, other: Balls, precision: int) -> Floats:
    """Return an upper bound of how far the two are apart; infinity where that is not known."""
    with ctx.workprec(precision):
        return _magnitude(boxed(one - other))


def _magnitude(balls: Balls) -> Floats:
    return Enclosed(balls, np.zeros(balls.shape, dtype=bool)).magnitude
