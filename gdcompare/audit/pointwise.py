"""An elementwise operation: all points at once, as one array, but where a truth needs to be looked at by itself.

The framework is given every point `LANES` times, so that it meets the wide instructions and the narrow ones. The truths
of points that neither bend nor overflow are those of one array, whose elements have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from flint import ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import BallNumbers, boxed
from gdcompare.arithmetic.dual import hessian_vector_products
from gdcompare.arithmetic.tape import Tape, recorded_loss, value_and_gradient
from gdcompare.audit.collected import Collected, called, refused, said
from gdcompare.audit.element import Found, elements
from gdcompare.audit.known import Derivatives, Known
from gdcompare.audit.regions import COTANGENTS, elementwise_points
from gdcompare.audit.subject import Arrays, Asked, Example, Formula, Route
from gdcompare.referee.enclosed import Enclosed

Floats = NDArray[np.float64]

LANES = 16
"""So many equal numbers are given at once: as many as the widest instructions take."""
APART = 3
"""Of functions of several numbers, forward mode is asked at every third point: there, each is a truth of its own."""


def collect(
    example: Example, dtype: str, routes: Mapping[str, Route], collected: Collected, late: Callable[[], bool]
) -> None:
    """Judge an example at all points of its dtype. Raises a ProgramError if it cannot be read."""
    points = _Points(example, dtype)
    clean = points.clean()
    whole = points.known(clean) if clean.any() else None
    alone = {int(i): None for i in np.flatnonzero(~clean)}
    for name, route in routes.items():
        answers = points.answers(route)
        if whole is not None and (route.derivative != "jvp" or points.count == 1):
            _group(points, name, route, whole, np.flatnonzero(clean), answers, collected)
        several = route.derivative == "jvp" and points.count > 1
        for i in range(0, len(points), APART) if several else alone:
            if late():
                return
            _one(points, name, route, i, answers, collected)


class _Points:
    """The points of an example, as columns."""

    def __init__(self, example: Example, dtype: str) -> None:
        self.example, self.dtype, self.count = example, dtype, len(example.arguments)
        found = list(elementwise_points(self.count, dtype))
        self.regions = [region for region, _ in found]
        self.columns = {name: np.array([each[i] for _, each in found]) for i, name in enumerate(example.arguments)}
        self._formulas: dict[int, Formula] = {}
        self._known: dict[int, Known] = {}
        if (m := example.outputs(example.arguments)) != 1:
            raise ValueError(f"an elementwise operation that gives {m} numbers for one")

    def __len__(self) -> int:
        return len(self.regions)

    def at(self, chosen: Any) -> dict[str, Floats]:
        """Return the columns there, (n,)."""
        return {name: np.atleast_1d(each[chosen]) for name, each in self.columns.items()}

    def direction(self, n: int, route: Route) -> dict[str, Floats] | None:
        """Return a direction of n points, a power of two for each argument."""
        if route.derivative == "gradient":
            return None
        return {name: np.full(n, COTANGENTS[i]) for i, name in enumerate(self.columns)}

    def formula(self, n: int) -> Formula:
        """Return the formula of n points, read where the framework's own value is sure."""
        if n not in self._formulas:
            at = {name: np.repeat(each, n).astype(self.dtype) for name, each in self.example.arguments.items()}
            self._formulas[n] = self.example.formula(at, np.ones((1, n), self.dtype))
        return self._formulas[n]

    def known(self, chosen: NDArray[np.bool_]) -> Known:
        """Return what is known at these points, in an array of all; at the others it has ordinary numbers."""
        n = len(self)
        at = {
            name: np.where(chosen, each, self.example.arguments[name].astype(self.dtype))
            for name, each in self.columns.items()
        }
        return Known(self.formula(n), at, np.ones((1, n)), self.dtype)

    def alone(self, i: int) -> Known:
        """Return what is known at one point."""
        if i not in self._known:
            self._known[i] = Known(self.formula(1), self.at(i), np.ones((1, 1)), self.dtype)
        return self._known[i]

    @cached_property
    def valued(self) -> NDArray[np.bool_]:
        """Where the value is known to be a number, which it is not outside of the domain."""
        return np.array([self._has_value(i) for i in range(len(self))])

    def clean(self) -> NDArray[np.bool_]:
        """Say where value, gradient and second derivatives are finite, and nothing bends."""
        n = len(self)
        fine = self.valued.copy()
        if not fine.any():
            return fine
        at = self.known(fine).case
        direction = {name: np.full((1, n), COTANGENTS[i]) for i, name in enumerate(self.columns)}
        data = at.params, at.features, at.targets
        with ctx.workprec(256):
            first, second = BallNumbers(), BallNumbers()
            _, gradient = value_and_gradient(at.problem, first, *data)
            products = hessian_vector_products(at.problem, second, *data, direction)
        for each in [*gradient.values(), *(product[0] for product in products.values())]:
            balls = Enclosed(boxed(each), np.zeros(n, dtype=bool))
            fine &= np.isfinite(balls.magnitude) | (np.isinf(balls.mid) & np.isfinite(balls.rad))
        for kink in [*first.kinks, *second.kinks]:
            if kink.indices.ndim != 2 or kink.indices.shape[1] != 1:
                return np.zeros(n, dtype=bool)
            fine[kink.indices[:, 0]] = False
        return fine

    def _has_value(self, i: int) -> bool:
        at = self.alone(i).case
        with ctx.workprec(128):
            tape = Tape(BallNumbers())
            leaves = {name: tape.leaf(value) for name, value in at.params.items()}
            ball = np.ravel(recorded_loss(at.problem, tape, leaves, at.features, at.targets, None, "mean").value)[0]
            return bool(ball.is_finite())

    def answers(self, route: Route) -> list[dict[str, NDArray[Any]] | Exception]:
        """Return what a route gives at each point: {argument: (lanes,)}, or what it raises."""
        lanes = 1 if route.derivative == "jvp" else LANES
        n = len(self)
        if lanes > 1:
            wide = {name: np.repeat(each, lanes).astype(self.dtype) for name, each in self.columns.items()}
            along = self.direction(n * lanes, route)
            try:
                found = called(route, wide, np.ones((1, n * lanes), self.dtype), _in(along, self.dtype))
                rows = {name: each.reshape(n, lanes) for name, each in found.items()}
                return [{name: each[i] for name, each in rows.items()} for i in range(n)]
            except Exception:  # perhaps for one of them
                return [self._answer(route, i, lanes) for i in range(n)]  # each by itself
        return [self._answer(route, i, lanes) for i in range(n)]

    def _answer(self, route: Route, i: int, lanes: int) -> dict[str, NDArray[Any]] | Exception:
        asked = self.asked("", route, i)
        try:
            found = called(route, asked.arguments, asked.cotangents, asked.direction)
            return {name: np.broadcast_to(np.ravel(each), (lanes,)) for name, each in found.items()}
        except Exception as error:
            return error

    def asked(self, name: str, route: Route, i: int) -> Asked:
        """Return what is asked at a point alone."""
        lanes = 1 if route.derivative == "jvp" else LANES
        at = {key: np.repeat(each, lanes).astype(self.dtype) for key, each in self.at(i).items()}
        direction = _in(self.direction(lanes, route), self.dtype)
        return Asked(name, at, np.ones((1, lanes), self.dtype), direction, "", ())

    def words(self, i: int) -> str:
        """Say where a point is."""
        return ", ".join(f"{name} = {each[i]:.6g}" for name, each in self.columns.items())


def _in(arrays: Arrays | None, dtype: str) -> dict[str, NDArray[Any]] | None:
    return None if arrays is None else {name: each.astype(dtype) for name, each in arrays.items()}


def _derivatives(known: Known, points: _Points, route: Route, n: int) -> Derivatives:
    if route.derivative == "jvp" and points.count == 1:
        return known.of("gradient")  # along 1, they are the same
    return known.of(route.derivative, points.direction(n, route))


def _group(
    points: _Points,
    name: str,
    route: Route,
    known: Known,
    places: NDArray[np.intp],
    answers: list[dict[str, NDArray[Any]] | Exception],
    collected: Collected,
) -> None:
    derivatives = _derivatives(known, points, route, len(points))
    for argument in points.columns:
        for lane in (0, -1):  # the first goes through wide instructions, the last perhaps through the narrow rest
            actual = np.array([_number(each, argument, lane) for each in answers])
            founds = elements(derivatives, argument, actual, lane % LANES, among=places)
            for i, found in zip(places, founds, strict=True):
                answer = answers[i]
                if isinstance(answer, Exception):
                    found = refused(points.example, points.regions[i], answer)
                elif lane == -1 and _number(answer, argument, 0) == _number(answer, argument, -1):
                    continue
                asked = points.asked(name, route, int(i))
                collected.add(points.regions[i], name, found, points.words(int(i)), asked)


def _one(
    points: _Points,
    name: str,
    route: Route,
    i: int,
    answers: list[dict[str, NDArray[Any]] | Exception],
    collected: Collected,
) -> None:
    answer, asked = answers[i], points.asked(name, route, i)
    for found in _founds_alone(points, route, i, answer):
        collected.add(points.regions[i], name, found, points.words(i), asked)


def _founds_alone(
    points: _Points, route: Route, i: int, answer: dict[str, NDArray[Any]] | Exception
) -> Iterator[Found]:
    if isinstance(answer, Exception):
        yield refused(points.example, points.regions[i], answer)
        return
    if not points.valued[i]:
        yield Found("no truth", reason="outside of the domain, or at a pole: no value is known")
        return
    try:
        derivatives = _derivatives(points.alone(i), points, route, 1)
        for name, truth in derivatives.truths.items():
            yield elements(derivatives, name, np.full(truth.mid.shape, _number(answer, name, 0)), 0)[0]
    except Exception as error:  # an enclosure that nobody can compute
        yield Found("undecided", reason=said(error))


def _number(answer: dict[str, NDArray[Any]] | Exception, argument: str, lane: int) -> float:
    if isinstance(answer, Exception):
        return np.nan
    found = answer.get(argument, answer.get("derivative"))
    return np.nan if found is None else float(found[lane])
