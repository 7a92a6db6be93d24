"""The referee of the derivatives beside the gradient: along a direction, Hessian-vector products, and Hessians.

    jvp       dL/dv = sum gradient v           the entries "loss" and "derivative"
    hvp       H v = d gradient / dv            an entry for each parameter
    hessian   H, from H v of all unit vectors  an entry for each block, "theta_0, theta_1"; of an implementation that
                                               gives some of them, or diagonals, for each that it gives

Their truths and budgets come from dual numbers (`dual`), as those of the gradient come from the tape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, final, get_args

import numpy as np
from flint import ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import as_balls, boxed
from gdcompare.arithmetic.dual import directional_derivatives, hessian_vector_products
from gdcompare.arithmetic.formula_check import said_of_backend
from gdcompare.arithmetic.numbers import Numbers
from gdcompare.backend import Backend, Derivative
from gdcompare.gradients import derivative_function, hessian_blocks, unit_directions
from gdcompare.referee.allowance import allowances, bounded, either
from gdcompare.referee.budget import (
    budget_of_formula_along,
    budget_of_loss_along,
    budget_of_product_formula,
    budget_of_products,
    why_unbounded,
)
from gdcompare.referee.due import as_due
from gdcompare.referee.enclosed import Enclosed, enclosed_parts
from gdcompare.referee.enclosure import enclose_along, enclose_products
from gdcompare.referee.limits import convention_of
from gdcompare.referee.point import Referee
from gdcompare.referee.sampling import (
    draws_of_formula_along,
    draws_of_loss_along,
    draws_of_product_formula,
    draws_of_products,
    magnitudes,
)
from gdcompare.referee.verdict import Allowance, Floats

LARGEST_HESSIAN = 256


@final
class RefereeAlong:
    """What is true of a jvp, an hvp or a Hessian at a referee's point, and what rounding may do to it there."""

    def __init__(self, referee: Referee, derivative: Derivative, direction: Mapping[str, Any] | None = None) -> None:
        """Check the direction, or draw it, and round it to the dtype, or to what the parameters are held in."""
        self.derivative = derivative
        self.problem, self.dtype, self.reduction = referee.problem, referee.dtype, referee.reduction
        self.weights = referee.weights
        self.params, self.features, self.targets = referee.params, referee.features, referee.targets
        self._referee = referee
        self._shapes = {name: value.shape for name, value in self.params.items()}
        if derivative == "hessian":
            p = sum(value.size for value in self.params.values())
            if p > LARGEST_HESSIAN:
                raise ValueError(
                    f"a Hessian of {p} parameters has {p * p} elements, and at most {LARGEST_HESSIAN} parameters are "
                    "judged; judge products with it along directions: derivative='hvp'"
                )
            self.direction = None
            self._directions = unit_directions(self._shapes)
        else:
            drawn = _drawn_direction(self._shapes) if direction is None else direction
            self.direction = referee.case.direction(drawn)
            if (held := getattr(self.problem, "held", None)) is not None:  # a model's, in half precision perhaps
                self.direction = held(self.direction)
            self._directions = {name: value[None] for name, value in self.direction.items()}

    @property
    def point(self) -> tuple[Any, ...]:
        """The referee's, with the direction after the targets."""
        params, features, targets, *weights = self._referee.point
        along = [] if self.direction is None else [{name: value.copy() for name, value in self.direction.items()}]
        return (params, features, targets, *along, *weights)

    @property
    def row_truths(self) -> dict[str, Enclosed]:
        """Not known of single samples."""
        return {}

    @property
    def kinks(self) -> tuple[str, ...]:
        """Where the loss bends at this point, in words."""
        return self._referee.kinks

    @cached_property
    def truths(self) -> dict[str, Enclosed]:
        """The proven enclosures, by entry."""
        if self.derivative == "jvp":
            loss, derivatives = enclose_along(*self._formula, **self._weighted)
            return {"loss": loss} | enclosed_parts({"derivative": derivatives}, _first)
        products = enclose_products(*self._formula, **self._weighted)
        return enclosed_parts(products, self._entries)

    def towards(self, gradient: Mapping[str, Any], budgets: Mapping[str, Floats]) -> dict[str, Enclosed]:
        """Return the truths: at kinks, each array is judged by itself."""
        del gradient, budgets
        return self.truths

    def convention(self, gradient: Mapping[str, Any], budgets: Mapping[str, Floats]) -> str:
        """Say by which rule for ties, each by itself, these derivatives come about at the point; or nothing."""
        if (sides := self._referee.sides) is None:
            return ""
        balls = {name: as_balls(value) for name, value in self.params.items()}

        def by_rules() -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
            for by_kind, numbers in sides.rules():
                with ctx.workprec(256):
                    found = self.evaluated(numbers, balls, self.features, self.targets)
                    yield by_kind, {name: boxed(each) for name, each in found.items()}

        known = self.truths.keys() & gradient.keys() - {"loss"}
        fitting = {name: np.asarray(gradient[name], dtype=np.float64) for name in known}
        if not fitting or any(value.shape != self.truths[name].mid.shape for name, value in fitting.items()):
            return ""
        return convention_of(by_rules(), fitting, budgets)

    def evaluated(self, numbers: Numbers, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """Return the entries at a point of the same direction, weights and reduction, in a number system."""
        arguments = (self.problem, numbers, params, features, targets, self._directions, self.weights, self.reduction)
        if self.derivative == "jvp":
            loss, derivatives = directional_derivatives(*arguments)
            return {"loss": loss, "derivative": derivatives[0]}
        return self._entries(hessian_vector_products(*arguments))

    def budgets(self, by_hand: bool) -> dict[str, Floats]:
        """Return what a correct program may be off by: of the hand-derived formula, or of the differentiated loss."""
        return self._budgets_by_hand if by_hand else self._budgets_differentiated

    @cached_property
    def _budgets_by_hand(self) -> dict[str, Floats]:
        return self._budgets(budget_of_formula_along, budget_of_product_formula)

    @cached_property
    def _budgets_differentiated(self) -> dict[str, Floats]:
        return self._budgets(budget_of_loss_along, budget_of_products)

    def _budgets(self, along: Callable[..., Any], of_products: Callable[..., Any]) -> dict[str, Floats]:
        if self.derivative == "jvp":
            loss, derivatives = along(*self._formula, self.dtype, **self._weighted)
            return {"loss": loss, "derivative": derivatives[0]}
        return self._entries(of_products(*self._formula, self.dtype, **self._weighted))

    def allowances(self, by_hand: bool, proven_only: bool = False) -> dict[str, Allowance]:
        """Return what a correct program is allowed: the proven budget, or where that is blind, the sampled one."""
        draws = None if proven_only else lambda: self._draws(by_hand)
        found = allowances(
            self.truths,
            self.budgets(by_hand),
            lambda: self.magnitudes,
            draws,
            self._why_unresolved,
            self.dtype,
            self._referee.resolution,
            1 if self.derivative == "jvp" else 2,
        )
        if by_hand:
            return bounded(found, self.allowances(False, proven_only), lambda: self.magnitudes, self.dtype)
        return found

    def _why_unresolved(self, name: str, blind: NDArray[np.bool_]) -> str:
        """Say which operation has no bound, or else that rounding is large beside the terms; not in which of them."""
        if not np.isfinite(self.budgets(by_hand=False)[name][blind]).all():
            arguments = self.problem, self.params, self.features, self.targets, self.dtype
            why = why_unbounded(*arguments, self.weights, self.reduction, self._directions)
            return why[0] if why else ""
        return "cancellation, or depth: beside what adds up to them, rounding leaves fewer than three digits"

    def either_allowance(self, proven_only: bool = False) -> dict[str, Allowance]:
        """Return the larger of the two: nobody knows how somebody's own function computes."""
        differentiated = self.allowances(False, proven_only)
        if not (self.problem.derived if self.derivative == "jvp" else self.problem.twice_derived):
            return differentiated
        return either(self.allowances(True, proven_only), differentiated)

    @cached_property
    def magnitudes(self) -> dict[str, Floats]:
        """The mean, or sum, over the rows of what each contributes, in absolute terms."""
        formula = self.problem, self.params, self.features, self.targets
        if self.derivative == "jvp":
            loss, gradient = magnitudes(*formula, **self._weighted)
            assert self.direction is not None
            along = sum(np.sum(gradient[name] * np.abs(each)) for name, each in self.direction.items())
            return {"loss": loss, "derivative": np.asarray(along)}
        p = len(next(iter(self._directions.values())))
        each = [
            magnitudes(*formula, **self._weighted, direction={name: v[i] for name, v in self._directions.items()})[1]
            for i in range(p)
        ]
        return self._entries({name: np.stack([one[name] for one in each]) for name in self.params})

    def _draws(self, by_hand: bool) -> dict[str, Floats]:
        arguments = *self._formula, self.dtype
        if self.derivative == "jvp":
            loss, along = (draws_of_formula_along if by_hand else draws_of_loss_along)(*arguments, **self._weighted)
            return {"loss": loss, "derivative": along[:, 0]}
        products = (draws_of_product_formula if by_hand else draws_of_products)(*arguments, **self._weighted)
        draws = [
            self._entries({name: each[i] for name, each in products.items()})
            for i in range(len(next(iter(products.values()))))
        ]
        return {name: np.stack([each[name] for each in draws]) for name in draws[0]}

    def backend_implementation(self, backend: Backend[Any]) -> Callable[..., tuple[Any, Any]]:
        """Return the backend's derivative as a function of NumPy arrays: (loss or None, {entry: array})."""
        function = derivative_function(backend, self.problem, self.derivative, self.reduction)

        def on_the_backend(*point: Any) -> Any:
            arrays = [_each(each, backend.asarray) for each in point]
            with said_of_backend(backend.name):
                found = function(*arrays)
            return _each(found, backend.to_numpy)

        return self.implementation(on_the_backend)

    def implementation(self, function: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
        """Return somebody's function of the point, in the form in which a gradient is judged.

        Raises ValueError for a native model that does not fit, or has no such derivative.
        """
        if (own := getattr(function, "along", None)) is not None:  # a native model's
            function.fits(self.params)  # type: ignore[attr-defined]
            function = own(self.derivative)

        def judged(*point: Any) -> tuple[Any, Any]:
            found = function(*point)
            if self.derivative == "jvp":
                loss, derivative = as_due(found, (None, None), "(loss, derivative)")
                return loss, {"derivative": derivative}
            if self.derivative == "hvp":
                return None, as_due(found, {}, "{name: product}")
            due = "{name: {name: block}} or {name: diagonal}"
            rows = as_due(found, {}, due)
            return None, _named({a: row if hasattr(row, "shape") else as_due(row, {}, due) for a, row in rows.items()})

        return judged

    def judged_by(
        self, given: Collection[str], allowances: Mapping[str, Floats | Allowance]
    ) -> tuple[dict[str, Enclosed], dict[str, Floats | Allowance]]:
        """Return truths and allowances of what is given: of a Hessian perhaps some blocks, or their diagonals."""
        truths, allowed = dict(self.truths), dict(allowances)
        if self.derivative == "hessian":
            for name, shape in self._shapes.items():
                block, key = truths[_block(name, name)], _diagonal(name)
                truths[key] = Enclosed(_on_diagonal(block.balls, shape), _on_diagonal(block.kinks, shape))
                allowed[key] = _allowed_on_diagonal(allowed[_block(name, name)], shape)
            some = {key: truth for key, truth in truths.items() if key in given} or self.truths
            truths = dict(some)
        return truths, {key: allowed[key] for key in truths}

    def _entries(self, products: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the one product of each parameter, or the blocks of the Hessian."""
        if self.derivative == "hvp":
            return _first(products)
        return _named(hessian_blocks(products, self._shapes))

    @property
    def _formula(self) -> tuple[Any, ...]:
        return self.problem, self.params, self.features, self.targets, self._directions

    @property
    def _weighted(self) -> dict[str, Any]:
        return {"weights": self._referee.weights, "reduction": self.reduction}


def checked_derivative(derivative: str, direction: Mapping[str, Any] | None = None) -> Derivative:
    """Return `derivative` if there is such a one, and a direction only where it has one; otherwise say what is wrong.

    >>> checked_derivative("jacobian")
    Traceback (most recent call last):
    ...
    ValueError: unknown derivative 'jacobian'; known: gradient, jvp, hvp, hessian
    """
    if direction is not None and derivative not in ("jvp", "hvp"):
        raise ValueError(f"a {derivative} has no direction: leave it out, or judge derivative='jvp' or 'hvp'")
    for known in get_args(Derivative):
        if derivative == known:
            return known  # type: ignore[no-any-return]  # get_args forgets that these are the literals
    raise ValueError(f"unknown derivative {derivative!r}; known: {', '.join(get_args(Derivative))}")


def _first(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the part of the first direction."""
    return {name: boxed(each[0]) if each.dtype == object else np.asarray(each[0]) for name, each in arrays.items()}


def _drawn_direction(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float64]]:
    """Return a direction drawn from a standard normal, seed 1, rounded to three decimals so that it can be read."""
    generator = np.random.default_rng(1)
    return {name: np.round(generator.standard_normal(shape), 3) for name, shape in shapes.items()}


def _each(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to an array, or to each of those in nested mappings and tuples."""
    if isinstance(value, Mapping):
        return {name: _each(each, function) for name, each in value.items()}
    return tuple(_each(each, function) for each in value) if isinstance(value, tuple) else function(value)


def _named(found: Mapping[str, Any]) -> dict[str, Any]:
    """Name each block of a Hessian by its two parameters; what is no block is a diagonal, in the parameter's shape."""
    blocks: dict[str, Any] = {}
    for a, row in found.items():
        named = {_block(a, b): block for b, block in row.items()} if isinstance(row, Mapping) else {_diagonal(a): row}
        blocks |= named
    return blocks


def _block(a: str, b: str) -> str:
    """Name a block by its two parameters, in quotation marks where a comma is in their names.

    >>> _block("a", "b"), _block("a, b", "c")
    ('a, b', "'a, b', 'c'")
    """
    return f"{a!r}, {b!r}" if "," in f"{a}{b}" else f"{a}, {b}"


def _diagonal(name: str) -> str:
    return f"{_block(name, name)}: diagonal"


def _allowed_on_diagonal(allowed: Floats | Allowance, shape: tuple[int, ...]) -> Floats | Allowance:
    """Return what is allowed of a block's diagonal."""
    if not isinstance(allowed, Allowance):
        return _on_diagonal(allowed, shape)
    scale, own = (None if each is None else _on_diagonal(each, shape) for each in (allowed.scale, allowed.own))
    return replace(allowed, budget=_on_diagonal(allowed.budget, shape), scale=scale, own=own, why=lambda _: "")


def _on_diagonal(block: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the diagonal of a block (*shape, *shape), in that shape."""
    side = math.prod(shape)
    return np.reshape(np.diagonal(np.reshape(block, (side, side))), shape).copy()
