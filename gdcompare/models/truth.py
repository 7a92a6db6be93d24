"""What is true of a model at a point, if its program can be read: the gradient of the function that it computes.

A model's gradient is judged by the truth of its own program, whatever another model says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
from flint import ctx

from gdcompare.arithmetic.numbers import Floats as FloatNumbers
from gdcompare.arithmetic.program import Program
from gdcompare.arithmetic.tape import value_and_gradient
from gdcompare.case import Case
from gdcompare.models.alike import PRECISION, WITHIN, Form, Known, as_balls
from gdcompare.models.comparison import LOSS, OWN, ROWS
from gdcompare.models.posed import AtRows, ProgramProblem, posed_at
from gdcompare.models.sides import Point, Side
from gdcompare.referee.enclosed import Enclosed
from gdcompare.referee.enclosure import enclose
from gdcompare.referee.judging import judged
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import Entry, Floats, compare

MOST_WORK = 3 * 10**7
"""A program of more multiplications and additions is not enclosed."""
MOST_ARB_WORK = 10**7
"""Nor is one of more enclosed once more in Arb's balls, where those in floats are narrow enough to judge a gradient."""
MOST_ROWS_WORK = 10**6
"""Nor are the gradients of single samples, one by one, where they take more together."""


@final
@dataclass(frozen=True, eq=False)
class Truth:
    """What is true of one model at a point, and what it says there."""

    side: Side
    problem: ProgramProblem
    referee: Referee

    @property
    def name(self) -> str:
        """The model's."""
        return self.side.name

    @property
    def program(self) -> Program:
        """That of all rows."""
        return self.problem.program(len(self.problem.features))

    def judged(self) -> list[Entry]:
        """Judge the model's loss and gradient, under its own names, by its own truth."""
        model: Any = AtRows(self.problem, self.problem.model)
        entries = judged(self.referee, self.name, model, self.referee.either_allowance(), may_raise=False)
        return [replace(entry, law=OWN) for entry in entries]

    def rows_judged(self, rows: int) -> list[Entry]:
        """Judge the gradients of the first samples; none of a model whose rows depend on one another."""
        rows = min(rows, len(self.problem.features))
        if not rows or self.problem.coupled or work(self.problem.program(1)) * rows > MOST_ROWS_WORK:
            return []
        some = self.referee.on(self.referee.data.rows(list(range(rows))))
        allowed = some.row_allowances(by_hand=False)
        features, targets = self.problem.features[:rows], self.problem.targets[:rows]
        found: dict[str, Any] = self.side.model.per_sample_grad(self.problem.params, features, targets)
        budgets = {name: each.budget for name, each in allowed.items()}
        truths = some.rows_towards(found, budgets)
        entries = []
        for name, each in allowed.items():
            truth = truths[name]
            entry = compare(self.name, name, found[name], truth, each, self.referee.dtype, ROWS)
            if entry.verdict == "wrong":
                off = (truth.distance(found[name])[0] > each.budget) | ~np.isfinite(found[name])
                places = np.flatnonzero(off.reshape(rows, -1).any(axis=1)).tolist()
                some_rows = ", ".join(map(str, places[:3])) + ", ..." * (len(places) > 3)
                entry = replace(entry, cause=f"in {len(places)} of {rows} samples: {some_rows}")
            entries.append(entry)
        return entries

    @cached_property
    def arrays(self) -> dict[str, Known]:
        """The loss and the gradient by the source's parameters, in balls."""
        allowed = {name: each.budget for name, each in self.referee.either_allowance().items()}
        truths = self._narrow(dict(self.referee.truths), allowed)
        loss = truths.pop(LOSS)
        return {
            LOSS: Known(loss.balls, loss.kinks, allowed.pop(LOSS), loss.unsure is not None),
            **self._in_source(truths, allowed),
        }

    def _narrow(self, truths: dict[str, Enclosed], allowed: Mapping[str, Floats]) -> dict[str, Enclosed]:
        """Return the truths in balls that are narrow beside a small part of what is allowed, where Arb finds such."""
        room = {name: WITHIN / 4 * np.where(np.isfinite(each), each, 0.0) for name, each in allowed.items()}
        enough = all((each.kinks | (each.rad <= room[name])).all() for name, each in truths.items())
        if enough or self.referee.sides is not None or work(self.program) > MOST_ARB_WORK:
            return truths
        at = self.referee
        found = enclose(self.problem, at.params, at.features, at.targets, budgets=room, limit=1024)
        return {LOSS: found.loss, **found.gradient}

    def form(self) -> Form:
        """Return its loss and gradient as what can be compared."""
        return Form(self.name, self.program, self.true, self.in_floats)

    def true(self, program: Program) -> dict[str, Known]:
        """Return loss and gradient, with another program in place of its own."""
        return self.arrays if program is self.program else self.with_program(program).arrays

    def _in_source(self, truths: Mapping[str, Enclosed], allowed: Mapping[str, Floats]) -> dict[str, Known]:
        move = self.side.matching.in_source
        with ctx.workprec(PRECISION):
            balls = move({name: each.balls for name, each in truths.items()})
        kinks = move({name: each.kinks.astype(float) for name, each in truths.items()})
        budgets = move(allowed)
        unsure = any(each.unsure is not None and each.unsure.any() for each in truths.values())
        return {
            name: Known(as_balls(each), np.asarray(kinks[name] > 0), budgets[name], unsure)
            for name, each in balls.items()
        }

    def with_program(self, program: Program) -> Truth:
        """Return what is true of the same model with another program in its place."""
        problem = replace(self.problem, _programs={len(self.problem.features): program})
        return replace(
            self, problem=problem, referee=Referee(replace(self.referee.case, problem=problem), on_sides=True)
        )

    def in_floats(self, program: Program) -> dict[str, Floats]:
        """Return loss and gradient of such a program, by the source's parameters, in float64."""
        problem = replace(self.problem, _programs={len(self.problem.features): program})
        at = self.referee
        loss, gradient = value_and_gradient(problem, FloatNumbers(), at.params, at.features, at.targets)
        return {LOSS: np.asarray(loss), **self.side.matching.in_source(gradient)}


def truth_of(side: Side, point: Point, coupled: str, name: str) -> Truth | str:
    """Return what is true of a model, or why nobody knows."""
    side.outputs(point)  # raises what is no matter of reading
    own, features, targets = side.given(point)
    try:
        posed = posed_at(side.model, own, features, targets, coupled, name)
        if (much := work(posed.problem.program(len(features)))) > MOST_WORK:
            return f"its program takes {much:.1g} operations, and no more than {MOST_WORK:.0e} are enclosed"
        case = Case.of(posed.problem, posed.data, posed.params, point.dtype)
        truth = Truth(side, posed.problem, Referee(case, on_sides=True))
        _ = truth.arrays  # what cannot be enclosed is refused here
    except (ValueError, NotImplementedError, RecursionError) as error:
        return str(error)
    return truth


def work(program: Program) -> int:
    """Return about how many multiplications and additions a program takes."""
    shapes = [each.shape for each in program.inputs]
    total = 0
    for step in program.steps:
        size = math.prod(step.shape)
        given: list[tuple[int, ...]] = [
            shapes[each.number] if hasattr(each, "number") else getattr(each, "shape", ())
            for each in step.operands[:2]
            if not isinstance(each, type)
        ]
        if step.function == "matmul":
            size *= given[0][-1]
        elif step.function.startswith("conv"):
            size *= math.prod(given[1][1:])
        else:
            size = max([size, *(math.prod(each) for each in given if each)])
        total += size
        shapes.append(step.shape)
    return total
