"""Finite differences: gradients by evaluating the loss on both sides of each parameter. An approximation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.backend import (
    Backend,
    Params,
    PerSampleGrad,
    Precision,
    Reduction,
    Run,
    Step,
    ValueAndGrad,
    checked_dtype,
    eager_scan,
    reduced,
    scaled_rows,
)
from gdcompare.problem import Problem

Array = NDArray[Any]

_quiet = np.errstate(over="ignore", invalid="ignore")


@final
@dataclass(frozen=True)
class FiniteDifferencesBackend(Backend[Array]):
    """dL/dx_j ~ (L(x + h e_j) - L(x - h e_j)) / 2h, with h the step times max(1, |x_j|): two losses a component.

    Truncation errs by h^2 |L'''| / 6, rounding by about u |L| / h. They are alike near the cube root of u, which leaves
    two thirds of the digits. The default is the power of 2 next to it, so that h itself rounds nothing.
    """

    dtype: Precision = "float64"
    device: str | None = None
    step: float | None = None
    name: ClassVar[str] = "finite-differences"
    xp: ClassVar[Any] = np

    def __post_init__(self) -> None:
        checked_dtype(self.dtype)
        if self.device not in (None, "cpu"):
            raise ValueError(f"backend {self.name!r} has no device {self.device!r}; it runs on 'cpu'")
        if not 0 < self.h < np.inf:
            raise ValueError(f"step must be a finite number above 0, not {self.step!r}")

    @property
    def h(self) -> float:
        """The step, for parameters up to 1 in size."""
        return {"float64": 2.0**-17, "float32": 2.0**-8}[self.dtype] if self.step is None else self.step

    @property
    def approximates(self) -> str:
        """How the gradient is approximated."""
        return f"central differences with step h = {self.h:.2g} max(1, |x|)"

    def asarray(self, values: ArrayLike) -> Array:
        """A copy in this dtype; integers stay integers."""
        array = np.array(values)
        return array if array.dtype.kind in "iu" else array.astype(self.dtype, copy=False)

    def to_numpy(self, array: Array) -> Array:
        """The array itself."""
        return np.asarray(array)

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[Array]:
        """The loss, and its differences."""

        @_quiet
        def whole(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> tuple[Array, dict[str, Array]]:
            def loss(at: Params[Array]) -> Any:
                return reduced(np, problem.per_sample_losses(np, at, features, targets), weights, reduction)

            return loss(params), self._slopes(loss, params)

        return whole

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[Array]:
        """The differences of all per-sample losses at once."""

        @_quiet
        def rows(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> dict[str, Array]:
            slopes = self._slopes(lambda at: problem.per_sample_losses(np, at, features, targets), params)
            return scaled_rows(np, slopes, weights, reduction)

        return rows

    def scan(self, step: Step[Array]) -> Run[Array]:
        """A Python loop."""
        return _quiet(eager_scan(step, self.asarray, np.asarray))

    def environment(self) -> dict[str, str]:
        """NumPy's version and the step."""
        return {self.name: self.approximates, "numpy": np.__version__}

    def _slopes(self, function: Callable[[Params[Array]], Array], params: Params[Array]) -> dict[str, Array]:
        """Return the slopes of a function of shape (...) along each component, `{name: (..., *shape)}`."""
        slopes = {}
        for name, value in params.items():
            columns = []
            for index in np.ndindex(np.shape(value)):
                ahead, behind = np.array(value), np.array(value)
                h = self.h * max(1.0, abs(float(ahead[index])))
                ahead[index] += h
                behind[index] -= h
                difference = function({**params, name: ahead}) - function({**params, name: behind})
                columns.append(difference / (ahead[index] - behind[index]))  # 2h, as the dtype has it
            stacked = np.stack(columns, axis=-1)  # (..., size)
            slopes[name] = stacked.reshape((*stacked.shape[:-1], *np.shape(value)))
        return slopes
