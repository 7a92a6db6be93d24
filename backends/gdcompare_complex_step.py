"""Complex step: gradients by moving each parameter a little along the imaginary axis. An approximation.

Source: Squire and Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40, 1998.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.analytic import AnalyticNumpy
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
_analytic = AnalyticNumpy()


@final
@dataclass(frozen=True)
class ComplexStepBackend(Backend[Array]):
    """dL/dx_j ~ Im L(x + i h e_j) / h: one complex loss a component.

    Truncation errs by h^2 |L'''| / 6, which is nothing here, and no difference is rounded: where the loss is analytic
    the result is as good as a derivative. Where it bends (|x|, max), the branch is that of the real part.
    """

    dtype: Precision = "float64"
    device: str | None = None
    name: ClassVar[str] = "complex-step"
    xp: ClassVar[Any] = _analytic

    def __post_init__(self) -> None:
        checked_dtype(self.dtype)
        if self.device not in (None, "cpu"):
            raise ValueError(f"backend {self.name!r} has no device {self.device!r}; it runs on 'cpu'")

    @property
    def h(self) -> float:
        """A power of 2, so small that h^2 is nothing, so large that h times a slope is no underflow."""
        return {"float64": 2.0**-332, "float32": 2.0**-66}[self.dtype]

    @property
    def approximates(self) -> str:
        """How the gradient is approximated."""
        return f"a complex step h = {self.h:.0e}"

    def asarray(self, values: ArrayLike) -> Array:
        """A copy in this dtype; integers stay integers."""
        array = np.array(values)
        return array if array.dtype.kind in "iu" else array.astype(self.dtype, copy=False)

    def to_numpy(self, array: Array) -> Array:
        """The array itself."""
        return np.asarray(array)

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[Array]:
        """The loss, and its imaginary parts a step away."""

        @_quiet
        def whole(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> tuple[Array, dict[str, Array]]:
            def loss(at: Params[Array]) -> Any:
                losses = problem.per_sample_losses(_analytic, at, features, targets)
                return reduced(_analytic, losses, weights, reduction)

            return loss(params), self._slopes(loss, params)

        return whole

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[Array]:
        """The imaginary parts of all per-sample losses at once."""

        @_quiet
        def rows(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> dict[str, Array]:
            slopes = self._slopes(lambda at: problem.per_sample_losses(_analytic, at, features, targets), params)
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
                aside = np.array(value, dtype=np.result_type(value, np.complex64))
                aside[index] += 1j * self.h
                columns.append(np.imag(function({**params, name: aside})) / self.h)
            stacked = np.stack(columns, axis=-1)  # (..., size)
            slopes[name] = stacked.reshape((*stacked.shape[:-1], *np.shape(value))).astype(self.dtype, copy=False)
        return slopes
