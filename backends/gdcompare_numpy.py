"""NumPy: gradients derived by hand. The derivations stand in the problems; here they are only evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.backend import (
    Backend,
    Hvp,
    Inputs,
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
    read_only,
    scaled_rows,
)
from gdcompare.by_hand import derived_hvp
from gdcompare.problem import Problem

Array = NDArray[Any]

_without_warnings = np.errstate(over="ignore", invalid="ignore")
_in_a_scan = ContextVar("_in_a_scan", default=False)


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """As in the other frameworks, infinity and NaN speak for themselves; some BLAS warn of them where there are none.

    A scan is quiet as a whole: asking whether this is one costs a fifth of what it costs to be quiet once more.
    """
    quiet = _without_warnings(function)

    @wraps(function)
    def run(*arguments: Any) -> Any:
        return function(*arguments) if _in_a_scan.get() else quiet(*arguments)

    return run


class _Namespace:
    """NumPy, whose sums and means do without the wrappers: they cost 1.2 and 2 us, a tenth of a small step and more."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        setattr(self, name, found)
        return found

    @staticmethod
    def sum(x: Any, axis: Any = None, **how: Any) -> Any:
        return np.add.reduce(x, axis, **how)

    @staticmethod
    def mean(x: Any, axis: Any = None, **how: Any) -> Any:
        total = np.add.reduce(x, axis, **how)
        return total / (np.size(x) / np.size(total))


_namespace = _Namespace()


_BLOCK_NUMBERS = 2**18
_FEWEST_ROWS, _MOST_ROWS = 256, 8192


def _blocks(features: Array) -> list[slice]:
    """Cut the rows into blocks that stay in the cache with what is made of them, as nearly equal as can be.

    A gradient of 1 000 000 rows of 20 takes two thirds of the time that it takes in one piece, and no memory.
    """
    n = len(features)
    if n <= _FEWEST_ROWS:
        return [slice(0, n)]
    rows = min(_MOST_ROWS, max(_FEWEST_ROWS, _BLOCK_NUMBERS * n // max(1, features.size)))
    count = -(-n // rows)
    return [slice(i * n // count, (i + 1) * n // count) for i in range(count)]


def _added(parts: Iterator[tuple[Any, dict[str, Any]]]) -> tuple[Any, dict[str, Any]]:
    """Return the sum of losses and gradients."""
    loss, gradient = next(parts)
    for more, each in parts:
        loss, gradient = loss + more, {name: gradient[name] + each[name] for name in gradient}
    return loss, gradient


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
        array = np.asarray(values)
        return array.astype(array.dtype if array.dtype.kind in "iu" else self.dtype)

    def borrow(self, values: ArrayLike) -> Array:
        """A read-only view, where the dtype is right: what a formula may try to change is not its own."""
        return read_only(values, self.dtype)

    def to_numpy(self, array: Array) -> Array:
        """The array itself."""
        return np.asarray(array)

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[Array]:
        """The problem's `value_and_gradient`, times n for the sum; with weights, from its per-sample formulas."""

        def of_rows(params: Params[Array], features: Array, targets: Array, share: float) -> Any:
            loss, gradient = problem.value_and_gradient(_namespace, params, features, targets)
            return share * loss, {name: share * each for name, each in gradient.items()}

        def of_weighted_rows(params: Params[Array], features: Array, targets: Array, shares: Array) -> Any:
            losses = problem.per_sample_losses(_namespace, params, features, targets)
            gradients = problem.per_sample_gradients(_namespace, params, features, targets)
            return shares @ losses, {name: np.tensordot(shares, each, axes=1) for name, each in gradients.items()}

        @_quiet
        def value(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> tuple[Array, dict[str, Array]]:
            blocks = _blocks(features)
            if len(blocks) == 1 and weights is None and reduction == "mean":
                return problem.value_and_gradient(_namespace, params, features, targets)
            if weights is not None:
                shares = weights / np.sum(weights) if reduction == "mean" else weights  # w_i / sum w, or w_i
                return _added(of_weighted_rows(params, features[b], targets[b], shares[b]) for b in blocks)
            whole = len(features) if reduction == "mean" else 1
            return _added(of_rows(params, features[b], targets[b], (b.stop - b.start) / whole) for b in blocks)

        return value

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[Array]:
        """The problem's `per_sample_gradients`, scaled by the weights."""

        @_without_warnings
        def rows(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> dict[str, Array]:
            gradients = problem.per_sample_gradients(_namespace, params, features, targets)
            return gradients if weights is None else scaled_rows(np, gradients, weights, reduction)

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
        return _quiet(derived_hvp(_namespace, problem, reduction))

    def scan(self, step: Step[Array]) -> Run[Array]:
        """A Python loop."""
        loop = eager_scan(step, self.borrow, np.asarray)

        @_quiet
        def run(state: Any, inputs: Inputs, constants: Any) -> tuple[Any, Any]:
            outside = _in_a_scan.set(True)
            try:
                return loop(state, inputs, constants)
            finally:
                _in_a_scan.reset(outside)

        return run

    def environment(self) -> dict[str, str]:
        """NumPy's version and the BLAS behind `@`."""
        blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
        return {"numpy": np.__version__, "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()}
