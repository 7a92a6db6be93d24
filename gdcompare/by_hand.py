"""The functions of a backend that evaluates what a problem has derived, on whatever array namespace.

Each is as the seam has it (`backend`): means or sums over the rows, with weights or without.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from gdcompare.backend import ArrayT, Hvp, Jvp, Params, PerSampleGrad, Reduction, ValueAndGrad, scaled_rows
from gdcompare.problem import Problem


def derived_value_and_grad(xp: Any, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[Any]:
    """The problem's `value_and_gradient`, times n for the sum; with weights, from its per-sample formulas."""

    def value(
        params: Params[ArrayT], features: ArrayT, targets: ArrayT, weights: ArrayT | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if weights is None:
            loss, gradient = problem.value_and_gradient(xp, params, features, targets)
            n = features.shape[0]  # type: ignore[attr-defined]  # an array of any library
            return (loss, gradient) if reduction == "mean" else (n * loss, {k: n * g for k, g in gradient.items()})
        shares = _shares(xp, weights, reduction)
        losses = problem.per_sample_losses(xp, params, features, targets)
        gradients = problem.per_sample_gradients(xp, params, features, targets)
        return shares @ losses, {name: xp.tensordot(shares, each, axes=1) for name, each in gradients.items()}

    return value


def derived_per_sample_grad(xp: Any, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[Any]:
    """The problem's `per_sample_gradients`, scaled by the weights."""

    def rows(
        params: Params[ArrayT], features: ArrayT, targets: ArrayT, weights: ArrayT | None = None
    ) -> dict[str, Any]:
        return scaled_rows(xp, problem.per_sample_gradients(xp, params, features, targets), weights, reduction)

    return rows


def derived_jvp(xp: Any, problem: Problem, reduction: Reduction = "mean") -> Jvp[Any]:
    """The gradient times the direction."""
    value_and_grad = derived_value_and_grad(xp, problem, reduction)

    def along(
        params: Params[ArrayT],
        features: ArrayT,
        targets: ArrayT,
        direction: Params[ArrayT],
        weights: ArrayT | None = None,
    ) -> tuple[Any, Any]:
        loss, gradient = value_and_grad(params, features, targets, weights)
        return loss, xp.sum(xp.stack([xp.sum(gradient[name] * direction[name]) for name in params]))

    return along


def derived_hvp(xp: Any, problem: Problem, reduction: Reduction = "mean") -> Hvp[Any]:
    """The problem's `hessian_vector_product`, times n for the sum; with weights, row by row."""

    def product(
        params: Params[ArrayT],
        features: Any,
        targets: Any,
        direction: Params[ArrayT],
        weights: ArrayT | None = None,
    ) -> dict[str, Any]:
        derived, n = partial(problem.hessian_vector_product, xp, params), features.shape[0]
        if weights is None:
            mean = derived(features, targets, direction)
            return mean if reduction == "mean" else {name: n * each for name, each in mean.items()}
        shares = _shares(xp, weights, reduction)
        rows = [derived(features[i : i + 1], targets[i : i + 1], direction) for i in range(n)]
        return {name: xp.tensordot(shares, xp.stack([row[name] for row in rows]), axes=1) for name in params}

    return product


def _shares(xp: Any, weights: Any, reduction: Reduction) -> Any:
    """Return w_i / sum w, or w_i for the sum."""
    return weights / xp.sum(weights) if reduction == "mean" else weights
