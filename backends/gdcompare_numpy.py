"""NumPy: gradients derived by hand. The derivations stand in the problems; here they are only evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.backend import (
    Backend,
    Hvp,
    Jvp,
    Params,
    PerSampleGrad,
    Precision,
    Reduction,
    Run,
    Step,
    ValueAndGrad,
    checked_dtype,
    eager_scan,
    scaled_rows,
)
from gdcompare.problem import Problem

Array = NDArray[Any]

_quiet = np.errstate(over="ignore", invalid="ignore")
"""As in the other frameworks, infinity and NaN speak for themselves; some BLAS warn of them where there are none."""


@final
@dataclass(frozen=True)
class NumpyBackend(Backend[Array]):
    """The problem's hand-derived formulas, evaluated with NumPy on the CPU."""

    dtype: Precision = "float64"
    device: str | None = None
    name: ClassVar[str] = "numpy"
    xp: ClassVar[Any] = np
    by_hand: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checked_dtype(self.dtype)
        if self.device not in (None, "cpu"):
            raise ValueError(f"backend 'numpy' has no device {self.device!r}; it runs on 'cpu'")

    def asarray(self, values: ArrayLike) -> Array:
        """A copy in this dtype; integers stay integers."""
        array = np.array(values)
        return array if array.dtype.kind in "iu" else array.astype(self.dtype, copy=False)

    def to_numpy(self, array: Array) -> Array:
        """The array itself."""
        return np.asarray(array)

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[Array]:
        """The problem's `value_and_gradient`, times n for the sum; with weights, from its per-sample formulas."""

        @_quiet
        def value(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> tuple[Array, dict[str, Array]]:
            if weights is None:
                loss, gradient = problem.value_and_gradient(np, params, features, targets)
                n = len(features)
                return (loss, gradient) if reduction == "mean" else (n * loss, {k: n * g for k, g in gradient.items()})
            shares = weights / np.sum(weights) if reduction == "mean" else weights  # w_i / sum w, or w_i
            losses = problem.per_sample_losses(np, params, features, targets)
            gradients = problem.per_sample_gradients(np, params, features, targets)
            return shares @ losses, {name: np.tensordot(shares, each, axes=1) for name, each in gradients.items()}

        return value

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[Array]:
        """The problem's `per_sample_gradients`, scaled by the weights."""

        @_quiet
        def rows(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> dict[str, Array]:
            gradients = problem.per_sample_gradients(np, params, features, targets)
            return scaled_rows(np, gradients, weights, reduction)

        return rows

    def jvp(self, problem: Problem, reduction: Reduction = "mean") -> Jvp[Array]:
        """The gradient times the direction."""
        value_and_grad = self.value_and_grad(problem, reduction)

        @_quiet
        def along(
            params: Params[Array],
            features: Array,
            targets: Array,
            direction: Params[Array],
            weights: Array | None = None,
        ) -> tuple[Array, Array]:
            loss, gradient = value_and_grad(params, features, targets, weights)
            products = np.stack([np.vdot(gradient[name], direction[name]) for name in params])
            return loss, np.asarray(np.sum(products))

        return along

    def hvp(self, problem: Problem, reduction: Reduction = "mean") -> Hvp[Array]:
        """The problem's `hessian_vector_product`, times n for the sum; with weights, row by row."""

        @_quiet
        def product(
            params: Params[Array],
            features: Array,
            targets: Array,
            direction: Params[Array],
            weights: Array | None = None,
        ) -> dict[str, Array]:
            derived, n = partial(problem.hessian_vector_product, np, params), len(features)
            if weights is None:
                mean = derived(features, targets, direction)
                return mean if reduction == "mean" else {name: n * each for name, each in mean.items()}
            shares = weights / np.sum(weights) if reduction == "mean" else weights  # w_i / sum w, or w_i
            rows = [derived(features[i : i + 1], targets[i : i + 1], direction) for i in range(n)]
            return {name: np.tensordot(shares, np.stack([row[name] for row in rows]), axes=1) for name in params}

        return product

    def scan(self, step: Step[Array]) -> Run[Array]:
        """A Python loop."""
        return _quiet(eager_scan(step, self.asarray, np.asarray))

    def environment(self) -> dict[str, str]:
        """NumPy's version and the BLAS behind `@`."""
        blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
        return {"numpy": np.__version__, "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()}
