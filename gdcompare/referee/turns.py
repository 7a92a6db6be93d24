"""Conditions that rounding may turn: a rectifier within rounding of its corner, the two largest of a window.

A wide network has some at any point in float32. A program is on one side of each, and rounds little there; draws that
turn them at random would allow every element before them anything between. So a program is due the truth, or what it
is with some of them turned, whichever is nearest to its gradient:

    t_s = t + (g_s - g)       g_s the gradient with the conditions s turned, in float64, g the one with none

That is known well enough where float32 is judged, and is looked at where they are few.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.numbers import Floats as FloatNumbers
from gdcompare.arithmetic.quick_balls import QuickBalls
from gdcompare.arithmetic.sampled import Sampled, SampledNumbers
from gdcompare.arithmetic.tape import value_and_gradient
from gdcompare.referee.budget import exact_inputs
from gdcompare.referee.enclosed import Enclosed, Floats
from gdcompare.referee.sampling import draws_of_loss
from gdcompare.referee.verdict import LOSS

MOST = 64
"""So many conditions are turned, each by itself."""

MANY_NUMBERS = 60_000_000
"""What they change is kept in float32, of no more numbers: which are turned is chosen by it, and nothing judged."""

KNOWN = 2.0**-12
"""The share of what is allowed to which a turned truth is known: float64, where float32 is judged."""

Place = tuple[int, tuple[int, ...]]
"""Which of the conditions of a formula, in their order, and where in its array."""


@final
@dataclass
class Turns:
    """Which conditions of a formula rounding may turn, and how they are decided in float64."""

    near: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    decided: dict[int, Floats] = field(default_factory=dict)
    shares: set[int] = field(default_factory=set)
    """Which are no conditions but choices of the largest, along the last axis."""
    others: bool = False
    """Whether rounding may turn a sign, too, which is neither."""

    @property
    def places(self) -> list[Place]:
        """Where there is another side: a condition, or another that may be the largest."""
        return [
            (call, tuple(map(int, at)))
            for call, near in sorted(self.near.items())
            for at in np.argwhere(near & (self.decided[call] == 0) if call in self.shares else near)
        ]


class _Noting(SampledNumbers):
    """Draws that turn conditions at random, and note which."""

    def __init__(self, turns: Turns, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.turns, self.call, self.decides = turns, -1, True

    def compare(self, relation: np.ufunc, x: Sampled, y: Sampled, kink: bool) -> Sampled:
        """Note where it is near."""
        self.call += 1
        return super().compare(relation, x, y, kink)

    def share_of_max(self, x: Sampled, kind: str) -> Sampled:
        """Note which are near."""
        self.call += 1
        self.turns.shares.add(self.call)
        return super().share_of_max(x, kind)

    def sign(self, x: Sampled) -> Sampled:
        """Note whether it is near."""
        self.decides = False
        found = super().sign(x)
        self.decides = True
        return found

    def _within_reach(self, gap: Any) -> Any:
        near = super()._within_reach(gap)
        if near.any() and not self.decides:
            self.turns.others = True
        elif near.any():
            before = self.turns.near.get(self.call, False)
            self.turns.near[self.call] = np.asarray(near.any(axis=0) | before)
        return near


class _Steady(_Noting):
    """Draws that decide them as float64 does."""

    def compare(self, relation: np.ufunc, x: Sampled, y: Sampled, kink: bool) -> Sampled:
        """As it is in float64, where rounding may turn it."""
        return self._as_decided(super().compare(relation, x, y, kink), self.turns.near.get(self.call))

    def share_of_max(self, x: Sampled, kind: str) -> Sampled:
        """As it is in float64, where rounding may turn it."""
        found, near = super().share_of_max(x, kind), self.turns.near.get(self.call)
        return self._as_decided(found, None if near is None else near.any(axis=-1, keepdims=True))

    def _as_decided(self, found: Sampled, near: Any) -> Sampled:
        if near is None:
            return found
        return self._conditions(np.where(near, self.turns.decided[self.call], found.value))

    def _within_reach(self, gap: Any) -> Any:
        del gap
        return np.zeros(1, dtype=bool)


class _Turned(FloatNumbers):  # type: ignore[misc]  # likewise
    """Floats that turn some conditions, and note how the others are decided."""

    def __init__(self, turns: Turns, turned: Collection[Place] = ()) -> None:
        super().__init__()
        self.turns, self.call = turns, -1
        self.turned: dict[int, list[tuple[int, ...]]] = {}
        for call, at in turned:
            self.turned.setdefault(call, []).append(at)

    def compare(self, relation: np.ufunc, x: Any, y: Any, kink: bool) -> Any:
        """Turned, where it is to be."""
        found = self._noted(super().compare(relation, x, y, kink))
        for at in self.turned.get(self.call, ()):
            found[(0, *at)] = 1 - found[(0, *at)]
        return found

    def share_of_max(self, x: Any, kind: str) -> Any:
        """All to another, where it is to be."""
        found = self._noted(super().share_of_max(x, kind))
        for at in self.turned.get(self.call, ()):
            found[(0, *at[:-1])] = 0
            found[(0, *at)] = 1
        return found

    def _noted(self, found: Any) -> Any:
        self.call += 1
        if self.call in self.turns.near and not self.turned:
            self.turns.decided[self.call] = found[0].copy()
        return np.array(found) if self.call in self.turned else found


@final
@dataclass(frozen=True, eq=False)
class TurnedTruths:
    """What the truth is moved by where some conditions are turned."""

    formula: tuple[Any, ...]
    """The problem, its parameters and data, weights and reduction, as exact numbers."""
    turns: Turns

    def gradient(self, turned: Collection[Place] = ()) -> dict[str, Floats]:
        """Return the loss and its gradient in float64 with some conditions turned."""
        with np.errstate(all="ignore"):
            problem, *at = self.formula
            loss, gradient = value_and_gradient(problem, _Turned(self.turns, turned), *at)
        return {LOSS: np.asarray(loss), **gradient}

    @cached_property
    def usual(self) -> dict[str, Floats]:
        """The gradient with none turned."""
        return self.gradient()

    @cached_property
    def moves(self) -> list[dict[str, Floats]]:
        """What each of them changes when it is turned, in float32."""
        moves = (self._moved_by([place]) for place in self.turns.places)
        return [{name: each.astype(np.float32) for name, each in move.items()} for move in moves]

    def _moved_by(self, turned: Collection[Place]) -> dict[str, Floats]:
        return {name: each - self.usual[name] for name, each in self.gradient(turned).items()}

    def nearest(
        self, gradient: Mapping[str, Any], truths: Mapping[str, Enclosed], budgets: Mapping[str, Floats]
    ) -> dict[str, Enclosed]:
        """Return the truths with those conditions turned that bring them nearest to a gradient, beside its budgets."""
        k = len(self.moves)
        gram, along = np.zeros((k, k)), np.zeros(k)
        for name, truth in truths.items():
            given = np.asarray(gradient.get(name, 0.0), dtype=np.float64)
            if name not in gradient or given.shape != truth.mid.shape:
                continue
            with np.errstate(all="ignore"):
                share = np.nan_to_num(1 / np.asarray(budgets[name], dtype=np.float64), nan=0.0, posinf=0.0)
                off = np.nan_to_num((given - truth.mid) * share, nan=0.0, posinf=0.0, neginf=0.0).ravel()
            each = np.array([np.ravel(move[name] * share) for move in self.moves])
            gram += each @ each.T
            along += each @ off
        turned = [place for place, is_turned in zip(self.turns.places, _best(gram, along), strict=True) if is_turned]
        if not turned:
            return dict(truths)
        moved = self._moved_by(turned)
        return {name: _moved(truth, moved[name], budgets[name]) for name, truth in truths.items()}


def _best(gram: Floats, along: Floats) -> NDArray[np.bool_]:
    """Return which moves bring |x - sum of some y_i|^2 down, by their Gram matrix and all y_i x: the best, one by one.

    >>> _best(np.array([[1.0, 0.0], [0.0, 4.0]]), np.array([0.1, 3.9])).tolist()
    [False, True]
    """
    sides = np.zeros(len(along))
    for _ in range(2 * len(along)):
        gains = (1 - 2 * sides) * 2 * (along - gram @ sides) - np.diag(gram)
        if gains.max(initial=0.0) <= 0:
            break
        best = np.argmax(gains)
        sides[best] = 1 - sides[best]
    return sides.astype(bool)


def _moved(truth: Enclosed, by: Floats, budget: Floats) -> Enclosed:
    quick = truth.quick
    rad = quick.rad + np.where(by == 0, 0.0, KNOWN * np.asarray(budget))
    return replace(truth, known=QuickBalls(quick.high + by, quick.low, rad))


def steady_draws(
    problem: Any, params: Any, features: Any, targets: Any, dtype: str, weights: Any = None, reduction: Any = "mean"
) -> tuple[tuple[Floats, dict[str, Floats]], TurnedTruths | None]:
    """Return draws as `draws_of_loss` does, that stay on their sides of conditions, and what is true on the others.

    Where there are too many, or it is no float32, the draws turn them at random, and nothing else is known.
    """
    turns, arguments = Turns(), (problem, params, features, targets, dtype, weights, reduction)
    found = draws_of_loss(*arguments, make=lambda *how, **more: _Noting(turns, *how, **more))
    near = sum(int(each.sum()) for each in turns.near.values())
    numbers = sum(np.size(each) for each in params.values())
    if dtype != "float32" or not 0 < near <= 2 * MOST or near * numbers > 2 * MANY_NUMBERS:
        return found, None
    known = TurnedTruths((problem, *exact_inputs(dtype, params, features, targets, weights), reduction), turns)
    finite = all(np.isfinite(each).all() for each in known.usual.values())
    if not finite or turns.others or set(turns.near) != set(turns.decided):
        return found, None
    if not 0 < len(turns.places) <= min(MOST, MANY_NUMBERS // max(1, numbers)):
        return found, None
    return draws_of_loss(*arguments, make=lambda *how, **more: _Steady(turns, *how, **more)), known
