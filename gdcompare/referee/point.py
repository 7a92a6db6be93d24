"""What is true of a problem at one point, and what rounding may do to it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.formula_check import said_of_backend
from gdcompare.backend import Backend, Precision, Reduction, unit_roundoff
from gdcompare.by_hand import derived_value_and_grad
from gdcompare.case import Case
from gdcompare.problem import Dataset, Problem
from gdcompare.referee.allowance import SMALL, allowances, bounded, either
from gdcompare.referee.budget import (
    budget_of_formula,
    budget_of_loss,
    row_budgets_of_formula,
    row_budgets_of_loss,
    why_unbounded,
)
from gdcompare.referee.enclosed import Enclosed, middles
from gdcompare.referee.enclosure import Enclosure, enclose, enclose_quickly, enclose_rows
from gdcompare.referee.limits import Sides
from gdcompare.referee.lost_digits import LostDigits
from gdcompare.referee.sampling import (
    draws_of_formula,
    draws_of_loss,
    magnitudes,
    row_draws_of_formula,
    row_draws_of_loss,
)
from gdcompare.referee.turns import TurnedTruths, steady_draws
from gdcompare.referee.verdict import LOSS, RESOLUTION, Allowance, Floats, resolution_of

Implementation: TypeAlias = Callable[..., tuple[Any, Any]]
"""`f(params, features, targets) -> (loss, {name: gradient})`: NumPy arrays in, anything that NumPy can read out.

Weights are a fourth argument, where the data have any."""

LIMIT_ROUNDINGS = 16
"""How many roundings a program may take to compute a limit: a few functions of some ulps each, and what joins them."""

NEGLIGIBLE = 2.0**-1060
"""No budget is smaller than the smallest float, beside which this is none."""


class Reference(Protocol):
    """What it takes to judge a gradient at one point: a `Referee` works it out, a certificate has it in store."""

    @property
    def problem(self) -> Problem | None: ...  # noqa: D102 - see Referee
    @property
    def dtype(self) -> Precision: ...  # noqa: D102
    @property
    def params(self) -> dict[str, NDArray[Any]]: ...  # noqa: D102
    @property
    def features(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def targets(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def weights(self) -> NDArray[Any] | None: ...  # noqa: D102
    @property
    def reduction(self) -> Reduction: ...  # noqa: D102
    @property
    def point(self) -> tuple[Any, ...]: ...  # noqa: D102
    @property
    def truths(self) -> dict[str, Enclosed]: ...  # noqa: D102
    @property
    def kinks(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def row_truths(self) -> dict[str, Enclosed]:
        """The per-sample gradients; empty where they are not known."""

    def towards(self, gradient: Mapping[str, Any], budgets: Mapping[str, Floats]) -> dict[str, Enclosed]:
        """Return the truths, those members of sets that are nearest to this gradient."""

    def convention(self, gradient: Mapping[str, Any], budgets: Mapping[str, Floats]) -> str:
        """Say by which rule for ties, each by itself, a gradient comes about that is outside of the set; or nothing."""


class Referee:
    """What is true of a case, and what rounding may do to it there.

    On sides, that is on the side of each condition that a program is on: `towards` must be asked for the truths then.
    """

    def __init__(self, case: Case, *, on_sides: bool = False) -> None:
        self.case, self.on_sides = case, on_sides
        self.problem, self.dtype, self.reduction = case.problem, case.dtype, case.reduction
        self.params, self.features, self.targets, self.weights = case.params, case.features, case.targets, case.weights

    @property
    def point(self) -> tuple[Any, ...]:
        """(params, features, targets), and weights if any, in the dtype: copies, that an implementation cannot harm."""
        data = (self.features, self.targets, *([] if self.weights is None else [self.weights]))
        return {name: value.copy() for name, value in self.params.items()}, *(each.copy() for each in data)

    @property
    def data(self) -> Dataset:
        """The data in the dtype."""
        return Dataset(self.features, self.targets, weights=self.weights)

    @cached_property
    def unweighted(self) -> Referee:
        """The referee of the same point if no sample had a weight."""
        return self.on(Dataset(self.features, self.targets), self.reduction)

    def on(self, data: Dataset, reduction: Reduction = "mean") -> Referee:
        """Return the referee of the same point on other data: some of the rows, or weighted ones."""
        return Referee(self.case.on(data, reduction))

    def averaged(self) -> Referee:
        """Return, of the referee of a sum, that of the mean, whose truths are these over the weight of the rows."""
        mean = self.on(self.case.data, "mean")
        if self.sides is None:
            mean._enclosure = self._enclosure.over(len(self.features) if self.weights is None else self.weights)
        return mean

    @cached_property
    def _enclosure(self) -> Enclosure:
        budgets = self.budgets(by_hand=False)
        quick = enclose_quickly(*self._formula, self.weights, self.reduction, budgets=budgets)
        return self._enclosed(budgets) if quick is None else quick

    def _enclosed(self, budgets: Mapping[str, Floats], precision: int = 128) -> Enclosure:
        return enclose(*self._formula, self.weights, self.reduction, budgets=budgets, precision=precision)

    @property
    def truths(self) -> dict[str, Enclosed]:
        """The proven enclosures of the loss, as `"loss"`, and of the gradient, by parameter."""
        assert self._enclosure.loss is not None
        return {LOSS: self._enclosure.loss, **self._enclosure.gradient}

    def towards(self, gradient: Mapping[str, Any], budgets: Mapping[str, Floats]) -> dict[str, Enclosed]:
        """Return the truths, and at kinks, for all parameters together, those that are nearest to this gradient.

        What does not fit is left out of account.
        """
        sides = self._enclosure.sides
        if sides is None or sides.certain:
            return self.truths if self._turned is None else self._turned.nearest(gradient, self.truths, budgets)
        return self.truths | sides.towards(fitting(gradient, self._enclosure.gradient), budgets)

    def rows_towards(self, rows: Mapping[str, Any], budgets: Mapping[str, Floats]) -> dict[str, Enclosed]:
        """Return the truths of the rows, and at kinks, for each row by itself, those that are nearest to these.

        A row that is outside of the sides that were seen has its own looked at, if it has no weight.
        """
        truths = dict(self.row_truths)
        fit = fitting(rows, truths)
        if self.weights is not None or not any(truths[name].kinks.any() for name in fit):
            return truths
        nearest = {name: truths[name].beside_rows(value) for name, value in fit.items()}
        outside = np.zeros(len(self.features), dtype=bool)
        for name, value in fit.items():
            beyond = (nearest[name].distance(value)[0] > budgets[name]) & truths[name].kinks
            outside |= beyond.reshape(len(beyond), -1).any(axis=1)
        for i in np.flatnonzero(outside):
            alone = self.on(self.data.rows([int(i)]), "sum")
            found = alone.towards(
                {name: each[i] for name, each in fit.items()}, {key: b[i] for key, b in budgets.items()}
            )
            nearest = {name: each.with_row(int(i), found[name]) for name, each in nearest.items()}
        return truths | nearest

    def convention(self, gradient: Mapping[str, Any], budgets: Mapping[str, Floats]) -> str:
        """Say by which rule for ties, each by itself, a gradient comes about that is outside of the set; or nothing."""
        sides = self._enclosure.sides
        return "" if sides is None else sides.convention(fitting(gradient, self._enclosure.gradient), budgets)

    @property
    def sides(self) -> Sides | None:
        """The limits from the sides of the point, where the formula at the point does not say the derivative."""
        return self._enclosure.sides

    def all_sides(self) -> dict[str, Enclosed]:
        """Return the truths, once every rule for ties has been tried: for those who cannot ask for more sides."""
        sides = self._enclosure.sides
        if sides is None or sides.certain:
            return self.truths
        nothing = {name: np.zeros(value.shape) for name, value in self.params.items()}
        for _, gradient in sides.by_rules():
            sides.towards({name: middles(each) for name, each in gradient.items()}, nothing)
        return sides.truths()

    @cached_property
    def row_truths(self) -> dict[str, Enclosed]:
        """The proven enclosures of the per-sample gradients, (n, *shape)."""
        return enclose_rows(*self._formula, self.weights, self.reduction)

    @cached_property
    def kinks(self) -> tuple[str, ...]:
        """Where the loss bends at this point, in words."""
        words = {
            f"{kink.operation} at {len(kink.indices)} places ({kink.line})": None for kink in self._enclosure.kinks
        }
        return tuple(words)

    @property
    def resolution(self) -> float:
        """What share of its scale the allowance of a resolved element may be."""
        return resolution_of(getattr(self.problem, "narrowest", ""))

    def budgets(self, by_hand: bool) -> dict[str, Floats]:
        """Return what a correct program may be off by: of the hand-derived formula, or of the differentiated loss.

        Where nothing is derived by hand, the differentiated loss is all there is.
        """
        return self._budgets_by_hand if by_hand and self.problem.derived else self._budgets_differentiated

    @cached_property
    def _budgets_by_hand(self) -> dict[str, Floats]:
        loss, gradient = budget_of_formula(*self._formula, self.dtype, self.weights, self.reduction)
        return {LOSS: loss, **gradient}

    @cached_property
    def _budgets_differentiated(self) -> dict[str, Floats]:
        loss, gradient = budget_of_loss(*self._formula, self.dtype, self.weights, self.reduction)
        return {LOSS: loss, **gradient}

    def allowances(self, by_hand: bool, proven_only: bool = False) -> dict[str, Allowance]:
        """Return what a correct program is allowed: the proven budget, or where that is blind, the sampled one."""
        key = by_hand and self.problem.derived, proven_only
        if key not in self._allowed:
            self._allowed[key] = self._known_well_enough(*key)
        return self._allowed[key]

    @cached_property
    def _allowed(self) -> dict[tuple[bool, bool], dict[str, Allowance]]:
        return {}

    def _known_well_enough(self, by_hand: bool, proven_only: bool) -> dict[str, Allowance]:
        """Return the allowances, once the truth is known to a small part of them."""
        found = self._allowances(by_hand, proven_only)
        budgets = {name: each.budget for name, each in found.items()}
        wide = [
            ~truth.kinks & np.isfinite(truth.rad) & (truth.rad > np.fmax(2.0**-10 * budgets[name], NEGLIGIBLE))
            for name, truth in self.truths.items()
        ]
        if any(each.any() for each in wide):  # the search heeded another budget, which is larger
            self._enclosure = self._enclosed(budgets, min(4096, 2 * self._enclosure.precision))
            found = self._allowances(by_hand, proven_only)
        return found

    def _allowances(self, by_hand: bool, proven_only: bool) -> dict[str, Allowance]:
        draws = None if proven_only else lambda: self._draws(by_hand)
        usual, budgets = self.budgets(by_hand=False), self.budgets(by_hand)
        budgets = {name: budgets.get(name, usual[name]) for name in self.truths}  # a derivation may lack one
        found = allowances(
            self.truths, budgets, lambda: self.magnitudes, draws, self.why_unresolved, self.dtype, self.resolution
        )
        found = {name: self._beside_a_limit(name, each) for name, each in found.items()}
        if by_hand:
            usual_ones = self.allowances(False, proven_only)
            return bounded(found, usual_ones, lambda: self.magnitudes, self.dtype, lambda: self._derivation_underflows)
        return found

    @cached_property
    def _derivation_underflows(self) -> bool:
        """Whether a number on the way of the derivation is too small for the dtype."""
        try:
            with np.errstate(all="ignore", under="raise"):
                derived_value_and_grad(np, self.problem, self.reduction)(*self.point)
        except FloatingPointError:
            return True
        return False

    def _beside_a_limit(self, name: str, allowance: Allowance) -> Allowance:
        """Leave room to compute a limit from the sides: at the point itself, the formula does not.

        Where nothing ties, several limits have a round edge, as the slopes of a norm, and room, too.
        """
        if (sides := self.sides) is None:
            return allowance
        truth = self.truths[name]
        at_kinks = 0.0 if sides.kinks else np.abs(truth.mid) + truth.width / 2
        largest = np.where(truth.kinks, at_kinks, np.abs(truth.mid))
        room = LIMIT_ROUNDINGS * unit_roundoff(self.dtype) * np.where(np.isfinite(largest), largest, 0.0)
        return replace(allowance, budget=np.fmax(allowance.budget, room))

    def either_allowance(self, proven_only: bool = False) -> dict[str, Allowance]:
        """Return the larger of the two: nobody knows how somebody's own function computes."""
        differentiated = self.allowances(False, proven_only)
        return either(self.allowances(True, proven_only), differentiated) if self.problem.derived else differentiated

    @cached_property
    def magnitudes(self) -> dict[str, Floats]:
        """The mean, or sum, over the rows of the absolute losses and per-sample gradients."""
        loss, gradient = magnitudes(*self._formula, self.weights, self.reduction)
        return {LOSS: loss, **gradient}

    _turned: TurnedTruths | None = None
    """Where rounding may turn a few conditions, as the draws have shown: what is true on their other sides."""

    def _draws(self, by_hand: bool) -> dict[str, Floats]:
        arguments = (*self._formula, self.dtype, self.weights, self.reduction)
        if by_hand or self.problem.derived or self.sides is not None or not self.on_sides:
            loss, gradient = (draws_of_formula if by_hand else draws_of_loss)(*arguments)
        else:
            (loss, gradient), self._turned = steady_draws(*arguments)
        return {LOSS: loss, **gradient}

    def why_unresolved(self, name: str, blind: NDArray[np.bool_]) -> str:
        """Say why these elements of an array show no digits."""
        if not np.isfinite(self.budgets(by_hand=False)[name][blind]).all():
            why = why_unbounded(*self._formula, self.dtype, self.weights, self.reduction)
            return why[0] if why else ""
        truth = self.truths[name]
        sizes = np.maximum(np.abs(truth.mid), self.magnitudes[name])[blind]
        wide = truth.rad > np.maximum(self.budgets(by_hand=False)[name] / 1024, RESOLUTION * np.abs(truth.mid))
        if (wide & ~truth.kinks)[blind].all():
            return "an enclosure that stays wide: a condition on the data hangs on what no precision tells apart"
        if (sizes < SMALL[self.dtype]).all() and not all(ball.contains(0) for ball in truth.balls[blind]):
            if (sizes < np.finfo(self.dtype).tiny).all():
                return f"underflow: they are below the smallest normal {self.dtype}"
            return f"underflow: what is made on the way to them may be below the smallest normal {self.dtype}"
        if (n := len(self.features)) * unit_roundoff(self.dtype) / 4 > RESOLUTION / 2:
            return f"a long sum: of {n} numbers of one sign, a {self.dtype} may keep no more"
        if self.allowances(by_hand=False)[name].resolved[blind].all():
            many = self.lost_digits.operations
            return f"depth: at worst, rounding adds up over {many} operations; sampled, it does not"
        return self.lost_digits.why(name, blind)

    @cached_property
    def lost_digits(self) -> LostDigits:
        """Where the formula of the loss loses digits."""
        return LostDigits(*self._formula, self.dtype, self.weights, self.reduction)

    def backend_implementation(self, backend: Backend[Any]) -> Implementation:
        """Return the backend's gradient as a function of NumPy arrays."""
        return as_implementation(backend, self.problem, self.reduction)

    def implementation(self, function: Implementation) -> Implementation:
        """Return somebody's function, in the form in which it is judged: as it is."""
        return function

    def row_budgets(self, by_hand: bool) -> dict[str, Floats]:
        """Return the same for the per-sample gradients, (n, *shape)."""
        budgets = row_budgets_of_formula if by_hand and self.problem.derived else row_budgets_of_loss
        return budgets(*self._formula, self.dtype, self.weights, self.reduction)

    def row_allowances(self, by_hand: bool, proven_only: bool = False) -> dict[str, Allowance]:
        """Return what a correct program's per-sample gradients are allowed."""
        function = row_draws_of_formula if by_hand and self.problem.derived else row_draws_of_loss

        def draws() -> dict[str, Floats]:
            return function(*self._formula, self.dtype, self.weights, self.reduction)

        budgets = self.row_budgets(by_hand)
        if set(budgets) != set(self.row_truths):  # a derivation may lack one, or have one too many
            budgets = row_budgets_of_loss(*self._formula, self.dtype, self.weights, self.reduction) | {
                name: each for name, each in budgets.items() if name in self.row_truths
            }
        return allowances(
            self.row_truths, budgets, dict, None if proven_only else draws, lambda *_: "", self.dtype, self.resolution
        )

    @property
    def _formula(self) -> tuple[Problem, dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]:
        return self.problem, self.params, self.features, self.targets


def fitting(gradient: Mapping[str, Any], truths: Mapping[str, Enclosed]) -> dict[str, Floats]:
    """Return those arrays of a gradient that have the shape that they should."""
    arrays = {name: np.asarray(value) for name, value in gradient.items() if name in truths}
    return {name: each.astype(float) for name, each in arrays.items() if each.shape == truths[name].mid.shape}


def as_implementation(backend: Backend[Any], problem: Problem, reduction: Reduction = "mean") -> Implementation:
    """Return the backend's `value_and_grad` of the problem as a function of NumPy arrays."""

    def implementation(params: Any, features: Any, targets: Any, weights: Any = None) -> tuple[Any, Any]:
        arrays = {name: backend.asarray(value) for name, value in params.items()}
        data = (backend.asarray(each) for each in (features, targets, *([] if weights is None else [weights])))
        with said_of_backend(backend.name):
            loss, gradient = backend.value_and_grad(problem, reduction)(arrays, *data)
        return backend.to_numpy(loss), {name: backend.to_numpy(value) for name, value in gradient.items()}

    return implementation
