"""Whether a timed answer is right: the referee's verdict, at any number of rows.

The truth of n rows that are copies of a few is that of the few, weighted (see `sized`). What rounding may do grows with
n no faster than in proportion: every term of the budget is what rounding does to a row, which is the same for all of
its copies, or what adding up does, which is proportional to how many are added. So the budget is that of the distinct
rows, times how often they are repeated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from gdcompare.backend import unit_roundoff
from gdcompare.case import Case
from gdcompare.descent.record import Descent
from gdcompare.descent.sampling import RowStream
from gdcompare.problem import Dataset
from gdcompare.referee.along import RefereeAlong
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import LOSS, Allowance, Entry, Floats, Truth, budgets_of, judge_all
from gdcompare.timing.contender import Judgement
from gdcompare.timing.sized import Sized

STEPS_JUDGED = 8
"""Of a descent: the first and the last step, and others drawn from between them."""

Values = Mapping[str, Any]
"""NumPy arrays by parameter, and the loss as "loss"."""


class Bench:
    """The referee of one piece of work; it proves each truth once, when it is first asked for."""

    def __init__(self, case: Case, data: Sized) -> None:
        """Judge work on `data`, which is that of the case."""
        self.case, self._data = case, data

    @cached_property
    def referee(self) -> Referee:
        """Who knows the truth about the rows, each counted as often as it occurs."""
        return Referee(self.case.on(self._data.counted))

    @cached_property
    def _of_rows(self) -> Referee:
        return Referee(self.case.on(self._data.distinct))

    @cached_property
    def along(self) -> RefereeAlong:
        """Who knows the Hessian times a direction."""
        return RefereeAlong(self.referee, "hvp")

    def gradient(self, name: str, values: Values, by_hand: bool | None) -> Judgement:
        """Judge a loss and its gradient; `by_hand=None` where nobody knows how they are computed."""
        allowed = self._grown(_allowances(self.referee, by_hand))
        truths = self.referee.towards(values, budgets_of(allowed))
        return _judgement(name, values, truths, allowed, self.case.dtype)

    def loss(self, name: str, value: Any) -> Judgement:
        """Judge a loss alone."""
        allowed = self._grown({LOSS: _allowances(self.referee, by_hand=False)[LOSS]})
        return _judgement(name, {LOSS: value}, {LOSS: self.referee.truths[LOSS]}, allowed, self.case.dtype)

    def products(self, name: str, values: Values, by_hand: bool) -> Judgement:
        """Judge a Hessian times `along.direction`."""
        truths, allowed = self.along.judged_by(values, self.along.allowances(by_hand))
        return _judgement(name, values, truths, self._grown(allowed), self.case.dtype)

    def rows(self, name: str, values: Values, by_hand: bool) -> Judgement:
        """Judge the gradient of every row: of the copies of a row, the smallest value and the largest."""
        n = len(self._data.data)
        for parameter, each in values.items():
            if parameter in self.case.params and np.shape(each) != (due := (n, *self.case.params[parameter].shape)):
                return Judgement(right=False, words=f"{parameter} has shape {np.shape(each)}, where {due} is due")
        referee = self._of_rows
        allowed = referee.row_allowances(by_hand)
        found = []
        for extreme in (np.minimum, np.maximum):
            some = {
                key: _over_copies(np.asarray(each), len(self._data.distinct), extreme) for key, each in values.items()
            }
            truths = referee.rows_towards(some, budgets_of(allowed))
            found.append(_judgement(name, some, truths, allowed, self.case.dtype))
        return max(found, key=lambda each: (not each.right, each.figures.get("error in ulps", 0.0)))

    def descent(
        self, name: str, found: Descent, by_hand: bool, rate: float, batch_size: int | None, steps: int, seed: int
    ) -> Judgement:
        """Judge some steps of a descent by sgd: each from where it started, by the gradient of its own batch.

        With theta' = theta - rate g as it is computed, (theta - theta') / rate is within 2 u |g| + u |theta'| / rate of
        the g that was computed.
        """
        if found.stop_reason == "diverged":
            words = f"it diverged after {found.steps} steps at learning rate {rate:g}: --learning-rate"
            return Judgement(right=False, words=words)
        if found.steps != steps or len(found.history.losses) != steps:
            return Judgement(right=False, words=f"it took {found.steps} steps of {steps}")
        start = {key: np.asarray(value).astype(self.case.dtype) for key, value in self.case.params.items()}
        path = found.history.parameters
        if any(not np.array_equal(path[key][0], value) for key, value in start.items()):
            return Judgement(right=False, words="it did not begin where it should")
        batches = None if batch_size is None else RowStream(len(self._data.data), batch_size, seed).take(steps)
        judgements = []
        for step in _some_of(steps):
            at = replace(self.case, params={key: path[key][step] for key in self.case.params})
            growth = self._growth if batches is None else 1.0
            referee = Referee(at.on(self._data.counted if batches is None else self._batch(batches, step)))
            allowed = _allowances(referee, by_hand)
            values, slack = _implied(path, step, rate, self.case.dtype)
            allowed = {
                key: replace(each, budget=growth * each.budget + slack.get(key, 0.0)) for key, each in allowed.items()
            }
            values[LOSS] = found.history.losses[step]
            truths = referee.towards(values, budgets_of(allowed))
            judgements.append(_judgement(name, values, truths, allowed, self.case.dtype, f"step {step}: "))
        worst = max(judgements, key=lambda each: (not each.right, each.words))
        # Figures of a step would be mostly those of its rounding to the parameters.
        return Judgement(worst.right, worst.words or f"{len(judgements)} of {steps} steps judged")

    def _batch(self, batches: tuple[Any, Any], step: int) -> Dataset:
        rows, weights = batches
        distinct = rows[step] % len(self._data.distinct)
        some = self._data.distinct.rows(distinct)
        return some if weights is None else Dataset(some.features, some.targets, some.name, weights[step])

    def _grown(self, allowed: Mapping[str, Floats | Allowance]) -> dict[str, Floats | Allowance]:
        grown = {key: self._growth * budget for key, budget in budgets_of(allowed).items()}
        return {
            key: replace(each, budget=grown[key]) if isinstance(each, Allowance) else grown[key]
            for key, each in allowed.items()
        }

    @property
    def _growth(self) -> float:
        """How much more than for the distinct rows is allowed; 2 n u is for the terms of second order in n u."""
        copies, n = self._data.copies, len(self._data.data)
        return copies * (1 + 2 * n * unit_roundoff(self.case.dtype)) if copies > 1 else 1.0


def _allowances(referee: Referee, by_hand: bool | None) -> dict[str, Allowance]:
    return referee.either_allowance() if by_hand is None else referee.allowances(by_hand)


def _judgement(
    name: str,
    values: Values,
    truths: Mapping[str, Truth],
    allowed: Mapping[str, Floats | Allowance],
    dtype: str,
    where: str = "",
) -> Judgement:
    entries = judge_all(name, values, truths, allowed, dtype)
    if wrong := [entry for entry in entries if entry.verdict == "wrong"]:
        worst = max(wrong, key=lambda entry: (entry.worst_index is None, entry.budget_fraction))
        return Judgement(right=False, words=f"{where}{_said(worst)}")
    figures = {"error in ulps": _largest(entries), "digits": _correct_digits(values, truths, dtype)}
    blind = [entry for entry in entries if entry.verdict == "inconclusive"]
    words = f"inconclusive: {where}{blind[0].parameter}: no digit could be checked" if blind else ""
    return Judgement(right=True, words=words, figures=figures)


def _said(entry: Entry) -> str:
    if entry.worst_index is None:
        return f"{entry.parameter}: {entry.cause}"
    index = f"[{', '.join(map(str, entry.worst_index))}]" if entry.worst_index else ""
    return (
        f"{entry.parameter}{index} is {entry.actual:.6g}, not {entry.expected:.6g}: "
        f"{entry.budget_fraction:.2g} times what rounding may do"
    )


def _largest(entries: Sequence[Entry]) -> float:
    return max((each.error_ulps for each in entries if not math.isnan(each.error_ulps)), default=0.0)


def _correct_digits(values: Values, truths: Mapping[str, Truth], dtype: str) -> float:
    """Return -log10 of the largest error relative to the largest truth, array by array; of the worst array."""
    worst = 0.0
    for key, truth in truths.items():
        size = float(np.abs(truth.mid).max(initial=0.0))
        error = float(truth.distance(np.asarray(values[key]))[0].max(initial=0.0))
        if size > 0 and error > 0:
            worst = max(worst, error / size)
    return round(-math.log10(min(max(worst, unit_roundoff(dtype)), 1.0)), 1)


def _over_copies(values: Any, distinct: int, extreme: np.ufunc) -> Any:
    """Return, of each row, the extreme of its copies, element by element; NaN if one of them is."""
    whole = len(values) // distinct
    found = extreme.reduce(values[: whole * distinct].reshape(whole, distinct, *values.shape[1:]), axis=0)
    rest = values[whole * distinct :]
    return np.concatenate([extreme(found[: len(rest)], rest), found[len(rest) :]])


def _some_of(steps: int) -> list[int]:
    """Return which steps are judged.

    >>> _some_of(3), len(_some_of(1000)), _some_of(1000)[0], _some_of(1000)[-1]
    ([0, 1, 2], 8, 0, 999)
    """
    if steps <= STEPS_JUDGED:
        return list(range(steps))
    between = np.random.default_rng(0).choice(np.arange(1, steps - 1), STEPS_JUDGED - 2, replace=False)
    return [0, *sorted(between.tolist()), steps - 1]


def _implied(path: Values, step: int, rate: float, dtype: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the gradient that a step implies, and how far that is off for the roundings of the step itself."""
    u, values, slack = unit_roundoff(dtype), {}, {}
    for key, points in path.items():
        before, after = points[step].astype(np.longdouble), points[step + 1].astype(np.longdouble)
        gradient = (before - after) / rate
        values[key] = gradient.astype(dtype)
        slack[key] = np.asarray(4 * u * np.abs(gradient) + 2 * u * np.abs(after) / rate, dtype=np.float64)
    return values, slack
