"""Whose parts the batch laws are about: the gradients of batches, and of samples, that somebody computes.

A backend computes means and sums, with weights and without, and per-sample gradients. Somebody's own functions return
means, and weighted ones or per-sample gradients only if they are written to; what they do not offer is not asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.formula_check import said_of_backend
from gdcompare.backend import Backend, Precision
from gdcompare.problem import Problem
from gdcompare.referee.allowance import either
from gdcompare.referee.due import ExitError, NotDueError, as_array, as_due, no_exit, what_it_raised
from gdcompare.referee.formula import allowances_of_formula, formula_of
from gdcompare.referee.judging import changed_inputs
from gdcompare.referee.point import Implementation, Referee
from gdcompare.referee.verdict import LOSS, Allowance, Entry, Floats, Truth, budgets_of

RowsFunction = Callable[..., Mapping[str, Any]]
"""`f(params, features, targets) -> {name: (n, *shape)}`: NumPy arrays in, anything that NumPy can read out."""


@dataclass(frozen=True, eq=False)
class Part:
    """The gradient of a batch, by parameter, or of each of its samples; and what is true and allowed of it."""

    name: str
    gradient: Mapping[str, NDArray[Any]]
    truths: Mapping[str, Truth]
    allowed: Mapping[str, Allowance]
    count: float = 1.0
    """Its weight when parts are combined: the number of its rows, or the sum of their weights."""


class UnfitError(Exception):
    """What was computed has not the form of a gradient, or nothing was: no law can be checked on such."""

    def __init__(self, entries: list[Entry]) -> None:
        super().__init__("; ".join(f"{entry.parameter}: {entry.cause}" for entry in entries))
        self.entries = entries


class Bench(Protocol):
    """Somebody at work on a problem, NumPy in and out; each method raises UnfitError."""

    @property
    def name(self) -> str:
        """What the report calls them."""

    @property
    def lacks(self) -> Mapping[str, str]:
        """What is not asked for, and why: of "sums", "per-sample gradients" and "weights"."""

    @property
    def rows_are_judged(self) -> bool:
        """Whether each per-sample gradient is judged by itself, too."""

    def batch(self, name: str, referee: Referee, count: float = 1.0) -> Part:
        """Return the gradient of the mean, or of the referee's own reduction, over its rows."""

    def rows(self, referee: Referee) -> tuple[Part, Floats]:
        """Return the per-sample gradients, named "rows", and the weights of which they have the mean."""

    def computed(self, name: str, referee: Referee) -> dict[str, NDArray[Any]]:
        """Return a batch's gradient alone."""

    def computed_rows(self, referee: Referee) -> tuple[dict[str, NDArray[Any]], Referee, Floats]:
        """Return the per-sample gradients alone, who judges them, and the weights of which they have the mean."""

    def allowances(self, referee: Referee, proven_only: bool) -> dict[str, Allowance]:
        """Return what a batch's gradient may be off by."""

    def row_budgets(self, referee: Referee) -> dict[str, Floats]:
        """Return what the per-sample gradients may be off by at worst."""


@dataclass(frozen=True, eq=False)
class BackendBench:
    """A backend at work."""

    problem: Problem
    backend: Backend[Any]
    proven_only: bool
    lacks: Mapping[str, str]
    rows_are_judged: bool = False

    @property
    def name(self) -> str:
        """The backend's."""
        return self.backend.name

    def batch(self, name: str, referee: Referee, count: float = 1.0) -> Part:
        """Return the gradient of a batch."""
        gradient, allowed = self.computed(name, referee), self.allowances(referee, self.proven_only)
        return Part(name, gradient, referee.towards(gradient, budgets_of(allowed)), allowed, count)

    def computed(self, name: str, referee: Referee) -> dict[str, NDArray[Any]]:
        """Return it alone."""
        compute = self.backend.value_and_grad(self.problem, referee.reduction)
        with said_of_backend(self.backend.name):
            _, arrays = compute(*self._arguments(referee))
        gradient = self._to_numpy(arrays)
        _refuse_misfits(self.name, name, gradient, referee)
        return gradient

    def rows(self, referee: Referee) -> tuple[Part, Floats]:
        """Return the per-sample gradients, which hold the weights already."""
        rows, _, shares = self.computed_rows(referee)
        allowed = referee.row_allowances(self._by_hand, self.proven_only)
        return Part("rows", rows, referee.rows_towards(rows, budgets_of(allowed)), allowed), shares

    def computed_rows(self, referee: Referee) -> tuple[dict[str, NDArray[Any]], Referee, Floats]:
        """Return them alone."""
        with said_of_backend(self.backend.name):
            gradients = self.backend.per_sample_grad(self.problem)(*self._arguments(referee))
        rows = self._to_numpy(gradients)
        _refuse_misfits(self.name, "rows", rows, referee)
        return rows, referee, np.ones(len(referee.features))

    def allowances(self, referee: Referee, proven_only: bool) -> dict[str, Allowance]:
        """Return those of a derivation by hand, or of the differentiated loss."""
        return referee.allowances(self._by_hand, proven_only)

    def row_budgets(self, referee: Referee) -> dict[str, Floats]:
        """Return the same of the rows."""
        return referee.row_budgets(self._by_hand)

    @property
    def _by_hand(self) -> bool:
        return getattr(self.backend, "by_hand", False)

    def _to_numpy(self, gradient: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        return {name: self.backend.to_numpy(value) for name, value in gradient.items()}

    def _arguments(self, referee: Referee) -> list[Any]:
        params, *data = referee.point
        return [{name: self.backend.asarray(value) for name, value in params.items()}, *map(self.backend.asarray, data)]


@dataclass(frozen=True, eq=False)
class OwnBench:
    """Somebody's own functions at work: whatever they raise is their verdict."""

    name: str
    function: Implementation
    per_sample: RowsFunction | None
    dtype: Precision
    proven_only: bool
    rows_are_judged: bool = True

    @property
    def lacks(self) -> Mapping[str, str]:
        """Sums always; the others where its functions do not offer them."""
        lacks = {"sums": "as it returns means"}
        if self.per_sample is None:
            lacks["per-sample gradients"] = "as none were given"
        formula = formula_of(self.function)
        if not takes_weights(self.function):
            lacks["weights"] = "as it takes none"
        elif formula is not None and not isinstance(formula, Problem):
            lacks["weights"] = "as the formula that it states has none"
        return lacks

    def batch(self, name: str, referee: Referee, count: float = 1.0) -> Part:
        """Return the gradient of a batch, allowed what is allowed of any implementation."""
        gradient, allowed = self.computed(name, referee), self.allowances(referee, self.proven_only)
        return Part(name, gradient, referee.towards(gradient, budgets_of(allowed)), allowed, count)

    def computed(self, name: str, referee: Referee) -> dict[str, NDArray[Any]]:
        """Return it alone."""
        _, found = self._called(name, self.function, referee, (None, {}), "(loss, {name: gradient})")
        return self._arrays(name, found, referee)

    def rows(self, referee: Referee) -> tuple[Part, Floats]:
        """Return the per-sample gradients: as a backend's if they take weights, else those of the samples alone."""
        rows, referee, shares = self.computed_rows(referee)
        allowed = referee.row_allowances(False, self.proven_only)
        if referee.problem.derived:
            allowed = either(referee.row_allowances(True, self.proven_only), allowed)
        return Part("rows", rows, referee.rows_towards(rows, budgets_of(allowed)), allowed), shares

    def computed_rows(self, referee: Referee) -> tuple[dict[str, NDArray[Any]], Referee, Floats]:
        """Return them alone."""
        assert self.per_sample is not None
        shares = np.ones(len(referee.features))
        if referee.weights is not None and not takes_weights(self.per_sample):
            shares, referee = referee.weights.astype(np.float64), referee.unweighted
        found = self._called("rows", self.per_sample, referee, {}, "{name: (n, *shape)}")
        return self._arrays("rows", found, referee), referee, shares

    def allowances(self, referee: Referee, proven_only: bool) -> dict[str, Allowance]:
        """Return the larger of those of derivation and loss, or those of the formula that it states."""
        formula = formula_of(self.function)
        if formula is None:
            return referee.either_allowance(proven_only)
        return allowances_of_formula(referee, formula, proven_only)

    def row_budgets(self, referee: Referee) -> dict[str, Floats]:
        """Return the larger of those of the rows."""
        by_loss = referee.row_budgets(False)
        by_hand = referee.row_budgets(True)
        return {name: np.fmax(each, by_hand.get(name, each)) for name, each in by_loss.items()}

    def _called(self, part: str, function: Callable[..., Any], referee: Referee, form: Any, due: str) -> Any:
        point = referee.point
        try:
            with no_exit():
                found = as_due(function(*point), form, due)
        except NotDueError as error:
            cause, raised = str(error), error.__cause__
        except ExitError:
            raise
        except Exception as error:  # whatever somebody's function does
            cause, raised = what_it_raised(error), error
        else:
            if not (changed := changed_inputs(referee, point)):
                return found
            cause, raised = f"it changed its inputs: {', '.join(changed)}", None
        raise UnfitError([_unfit(self.name, part, LOSS, cause)]) from raised

    def _arrays(self, part: str, found: Mapping[Any, Any], referee: Referee) -> dict[str, NDArray[Any]]:
        try:
            arrays = {str(key): as_array(value, self.dtype) for key, value in found.items()}
        except NotDueError as error:
            raise UnfitError([_unfit(self.name, part, LOSS, str(error))]) from error
        except Exception as error:  # whatever somebody's arrays do
            cause = what_it_raised(error)
            raise UnfitError([_unfit(self.name, part, LOSS, cause)]) from error
        _refuse_misfits(self.name, part, arrays, referee)
        if other := {name: each.dtype for name, each in arrays.items() if each.dtype != np.dtype(self.dtype)}:
            causes = {name: f"dtype {dtype} where {self.dtype} belongs" for name, dtype in other.items()}
            raise UnfitError([_unfit(self.name, part, name, cause) for name, cause in causes.items()])
        return arrays


def takes_weights(function: Callable[..., Any]) -> bool:
    """Say whether a function of (params, features, targets) has room for weights, besides an option of its own.

    >>> takes_weights(lambda params, features, targets, weights=None: 0), takes_weights(lambda *point: 0)
    (True, False)
    >>> takes_weights(lambda params, features, targets, scale=2.0: 0)
    False
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some that are compiled have no signature
        return False
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return len(places) > 3 and (places[3].default in (inspect.Parameter.empty, None) or "weight" in places[3].name)


def _refuse_misfits(who: str, part: str, gradient: Mapping[str, NDArray[Any]], referee: Referee) -> None:
    """Raise UnfitError with an entry for each gradient whose name or shape is wrong."""
    front = (len(referee.features),) if part == "rows" else ()
    due = {name: (*front, *value.shape) for name, value in referee.params.items()}
    found = {name: value.shape for name, value in gradient.items()}
    entries = []
    for name in due | found:
        if found.get(name) != due.get(name):
            cause = (
                f"shape {found[name]} where {due[name]} belongs"
                if name in found and name in due
                else ("missing" if name in due else "no such parameter")
            )
            entries.append(_unfit(who, part, name, cause))
    if entries:
        raise UnfitError(entries)


def _unfit(who: str, part: str, parameter: str, cause: str) -> Entry:
    where = "" if part in ("all rows", "rows") else f"{part}: "
    return Entry(who, parameter, "wrong", cause=where + cause, law="rows" if part == "rows" else "gradient")
