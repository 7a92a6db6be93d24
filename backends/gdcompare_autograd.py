"""HIPS autograd: gradients of NumPy functions, recorded as they run and differentiated backwards."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, final

import autograd
import autograd.numpy as anp
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
    read_only,
    reduced,
    scaled_rows,
)
from gdcompare.problem import Problem

Array = NDArray[Any]

_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""As in the other frameworks, infinity and NaN speak for themselves."""


class _Namespace:
    """autograd's NumPy, and what of the array API standard it does not differentiate, or not exactly."""

    def __getattr__(self, name: str) -> Any:
        return getattr(anp, name)

    def abs(self, x: Any) -> Any:
        """Its own slope is x / |x|, whose product with a cotangent is rounded twice."""
        return x * anp.sign(x)

    def concat(self, arrays: Any, axis: int = 0) -> Any:
        return anp.concatenate(arrays, axis)

    def matrix_transpose(self, x: Any) -> Any:
        return anp.swapaxes(x, -1, -2)

    def vecdot(self, x: Any, y: Any, axis: int = -1) -> Any:
        return anp.sum(x * y, axis=axis)


_namespace = _Namespace()


@final
@dataclass(frozen=True)
class AutogradBackend(Backend[Array]):
    """The loss formula run on autograd's NumPy and differentiated backwards, on the CPU."""

    dtype: Precision = "float64"
    device: str | None = None
    name: ClassVar[str] = "autograd"
    xp: ClassVar[Any] = _namespace

    def __post_init__(self) -> None:
        checked_dtype(self.dtype)
        if self.device not in (None, "cpu"):
            raise ValueError(f"backend 'autograd' has no device {self.device!r}; it runs on 'cpu'")

    def asarray(self, values: ArrayLike) -> Array:
        """A copy in this dtype; integers stay integers."""
        array = np.asarray(values)
        return array.astype(array.dtype if array.dtype.kind in "iu" else self.dtype)

    def borrow(self, values: ArrayLike) -> Array:
        """A read-only view, where the dtype is right: what a formula may try to change is not its own."""
        return read_only(values, self.dtype)

    def to_numpy(self, array: Array) -> Array:
        """The array itself."""
        return np.asarray(array)

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[Array]:
        """`autograd.value_and_grad` of the loss."""

        def loss(params: Params[Array], features: Array, targets: Array, weights: Array | None) -> Any:
            return reduced(anp, problem.per_sample_losses(_namespace, params, features, targets), weights, reduction)

        @_quiet
        def whole(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> tuple[Array, dict[str, Array]]:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Output seems independent of input")  # a gradient may be 0
                return autograd.value_and_grad(loss)(dict(params), features, targets, weights)  # type: ignore[no-any-return]

        return whole

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[Array]:
        """One backward pass for each sample."""
        one = self.value_and_grad(problem)

        @_quiet
        def rows(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> dict[str, Array]:
            each = [one(params, features[i : i + 1], targets[i : i + 1])[1] for i in range(len(features))]
            gradients = {name: np.stack([gradient[name] for gradient in each]) for name in params}
            return scaled_rows(np, gradients, weights, reduction)

        return rows

    def scan(self, step: Step[Array]) -> Run[Array]:
        """A Python loop."""
        return _quiet(eager_scan(step, self.borrow, np.asarray))

    def environment(self) -> dict[str, str]:
        """The versions of autograd and NumPy."""
        return {"autograd": version("autograd"), "numpy": np.__version__}
