"""An implementation's own formula: the same truth by another algorithm, with the rounding of that algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from flint import ctx

from gdcompare.arithmetic.balls import BallNumbers, boxed
from gdcompare.arithmetic.tape import Tape
from gdcompare.case import Case
from gdcompare.problem import Dataset, Problem
from gdcompare.referee.allowance import scale_of
from gdcompare.referee.along import RefereeAlong
from gdcompare.referee.enclosure import Enclosed
from gdcompare.referee.point import Implementation, Referee
from gdcompare.referee.verdict import LOSS, Allowance, Entry, Floats, Truth

Gradient = Callable[..., tuple[Any, dict[str, Any]]]
"""`f(xp, params, features, targets) -> (mean loss, {name: gradient})`."""


def with_formula(implementation: Implementation, formula: Problem | Gradient) -> Implementation:
    """Return the implementation, to be judged by what rounding may do to its own formula; the truth is the problem's.

    An implementation that computes the same by another algorithm rounds elsewhere: the normal equations of least
    squares, a determinant by elimination. `formula` is a Problem whose losses, or whose derivation by hand, are written
    as the implementation computes them; or the gradient alone, `f(xp, params, features, targets) -> (mean loss,
    {name: gradient})`, on the functions of `xp`. It must be another way to the same numbers: `verify` proves it at the
    point, and refuses any other with a ValueError.

    >>> import gdcompare as gdc
    >>> def expanded(xp, params, features, targets):
    ...     a, b = params["theta_0"], params["theta_1"]
    ...     x, y = features[:, 0], targets
    ...     loss = a * a + 2 * a * b[0] * xp.mean(x) + b[0] ** 2 * xp.mean(x * x) + xp.mean(y * y)
    ...     loss = loss - 2 * a * xp.mean(y) - 2 * b[0] * xp.mean(x * y)
    ...     by_a = 2 * (a + b[0] * xp.mean(x) - xp.mean(y))
    ...     by_b = 2 * (a * xp.mean(x) + b[0] * xp.mean(x * x) - xp.mean(x * y))
    ...     return loss, {"theta_0": by_a, "theta_1": xp.reshape(by_b, (1,))}
    >>> def mine(params, features, targets):
    ...     return expanded(np, params, features, targets)
    >>> x = np.linspace(1, 2, 9)
    >>> data, near = gdc.Dataset(x, 0.3 + 0.7 * x), {"theta_0": 0.3, "theta_1": [0.7 + 1e-5]}
    >>> for each in mine, gdc.with_formula(mine, expanded):
    ...     gdc.verify("linear-regression", data, near, backends=[], implementations={"mine": each}).verdict
    'wrong'
    'agree'
    """
    if not (isinstance(formula, Problem) or callable(formula)):
        raise TypeError(f"a formula is a Problem, or a function of (xp, params, features, targets), not {formula!r}")
    return _Stated(implementation, formula)


@final
@dataclass(frozen=True, eq=False)
class _Stated:
    function: Implementation
    formula: Problem | Gradient

    @property
    def __wrapped__(self) -> Implementation:
        """The function, whose signature it has."""
        return self.function

    def __call__(self, *point: Any) -> tuple[Any, Any]:
        return self.function(*point)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)


def formula_of(implementation: Implementation) -> Problem | Gradient | None:
    """Return the formula that an implementation states, if it does."""
    return implementation.formula if isinstance(implementation, _Stated) else None


@final
@dataclass(frozen=True)
class _Restated(Problem):
    """A problem whose gradient is derived in another way."""

    problem: Problem
    gradient: Gradient

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """The problem's."""
        return self.problem.parameter_shapes(data)

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """The problem's."""
        return self.problem.per_sample_losses(xp, params, features, targets)

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The one that was stated."""
        return self.gradient(xp, params, features, targets)


def allowances_of_formula(
    referee: Referee | RefereeAlong, formula: Problem | Gradient, proven_only: bool = False
) -> dict[str, Allowance]:
    """Return what rounding may do to a program of that formula; it must be another way to the referee's truths."""
    if not isinstance(formula, Problem) and (referee.weights is not None or isinstance(referee, RefereeAlong)):
        raise ValueError(
            "a function states the gradient of an unweighted loss: with weights, or for another derivative, "
            "state a Problem"
        )
    problem = formula if isinstance(formula, Problem) else _Restated(referee.problem, formula)
    data = Dataset(referee.features, referee.targets, weights=referee.weights)
    case = Case.of(problem, data, referee.params, referee.dtype, referee.reduction)
    if problem.derived:
        case.check_derivation()
    own: Referee | RefereeAlong = Referee(case)
    if isinstance(referee, RefereeAlong) and isinstance(own, Referee):
        own = RefereeAlong(own, referee.derivative, referee.direction)
    truths = dict(own.truths) if isinstance(formula, Problem) else _enclosed(problem, referee)
    for name, usual in referee.either_allowance(proven_only).items():
        lower, _ = truths[name].distance(referee.truths[name].mid)
        known = ~(referee.truths[name].kinks | truths[name].kinks)
        if (known & (lower > usual.budget + 2.0**-40 * np.abs(referee.truths[name].mid))).any():
            raise ValueError(f"the formula stated is another function: its {name!r} is not that of the problem")
    return {
        name: _unbounded(mine, np.abs(referee.truths[name].mid))
        for name, mine in own.either_allowance(proven_only).items()
    }


def _unbounded(allowance: Allowance, sizes: Floats) -> Allowance:
    """Return all that a formula allows itself: it was stated for that. The problem's own truths measure it."""
    budget = allowance.budget if allowance.own is None else np.fmax(allowance.budget, allowance.own)
    scale = None if allowance.scale is None else np.fmax(allowance.scale, scale_of(sizes, None))
    return replace(allowance, budget=budget, scale=scale, own=None)


def _enclosed(problem: Problem, referee: Referee | RefereeAlong) -> dict[str, Truth]:
    """Return enclosures of what the derivation by hand says."""
    with ctx.workprec(256):
        tape = Tape(BallNumbers())
        params = {name: tape.asarray(value) for name, value in referee.params.items()}
        loss, gradient = problem.value_and_gradient(
            tape, params, *map(tape.asarray, (referee.features, referee.targets))
        )
        n = 1 if referee.reduction == "mean" else len(referee.features)
        balls = {name: boxed((n * tape.asarray(each)).value[0]) for name, each in {LOSS: loss, **gradient}.items()}
    return {name: Enclosed(each, np.zeros(each.shape, dtype=bool)) for name, each in balls.items()}


def told(entries: list[Entry], own: Mapping[str, Allowance], usual: Mapping[str, Allowance]) -> list[Entry]:
    """Say of the entries that agree that they had the rounding of their own formula, where that is more."""
    return [
        replace(entry, cause="within the rounding of its own formula")
        if entry.verdict == "agree"
        and not entry.cause
        and (own[entry.parameter].budget > usual[entry.parameter].budget).any()
        else entry
        for entry in entries
    ]
