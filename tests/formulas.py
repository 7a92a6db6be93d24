"""Problems for the referee: formulas that the library writes otherwise, and one problem for each array function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from gdcompare import Dataset, Problem, datasets
from gdcompare.problems.linear_regression import LinearRegression
from gdcompare.problems.logistic_regression import LogisticRegression
from gdcompare.problems.poisson_regression import PoissonRegression
from tests.agreement import rounded


class ByRows(Problem):
    """A problem whose gradient is written down as the mean of its per-sample gradients."""

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        rows = self.per_sample_gradients(xp, params, features, targets)
        loss = xp.mean(self.per_sample_losses(xp, params, features, targets))
        return loss, {name: xp.mean(each, axis=0) for name, each in rows.items()}


@final
@dataclass(frozen=True)
class Network(ByRows):
    """One hidden layer, h_ij = f(z_ij) with z = X inner + offsets, and l_i = (h_i . outer + shift - y_i)^2.

    f is max(z, 0), or tanh.
    """

    activation: str
    width: int = 3

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {
            "inner": (data.features.shape[1], self.width),
            "offsets": (self.width,),
            "outer": (self.width,),
            "shift": (),
        }

    def _hidden(self, xp: Any, params: Mapping[str, Any], features: Any) -> tuple[Any, Any]:
        z = features @ params["inner"] + params["offsets"]  # (n, h)
        return z, xp.tanh(z) if self.activation == "tanh" else xp.maximum(z, xp.zeros_like(z))

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        _, hidden = self._hidden(xp, params, features)
        residuals = hidden @ params["outer"] + params["shift"] - targets
        return residuals**2

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """With d = 2 r: dl/dshift = d, dl/douter = d h, dl/doffsets = d outer f'(z), dl/dinner = x (dl/doffsets)."""
        z, hidden = self._hidden(xp, params, features)
        twice = 2 * (hidden @ params["outer"] + params["shift"] - targets)  # d, (n,)
        slopes = 1 - hidden * hidden if self.activation == "tanh" else xp.where(z > 0, xp.ones_like(z), 0 * z)
        offsets = twice[:, None] * params["outer"] * slopes  # (n, h)
        inner = features[:, :, None] * offsets[:, None, :]  # (n, d, h)
        return {"inner": inner, "offsets": offsets, "outer": twice[:, None] * hidden, "shift": twice}


@final
@dataclass(frozen=True)
class SoftmaxRegression(ByRows):
    """l_i = log sum_j exp(z_ij) - z_i . y_i, for logits z = X slopes + offsets and one-hot targets.

    Written as most programs have it, with the largest logit subtracted: unlike the library's, it has kinks.
    """

    target_dimensions: ClassVar[int] = 2

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        k = data.targets.shape[1]
        return {"slopes": (data.features.shape[1], k), "offsets": (k,)}

    def _shifted(self, xp: Any, params: Mapping[str, Any], features: Any) -> tuple[Any, Any]:
        logits = features @ params["slopes"] + params["offsets"]  # z, (n, k)
        return logits, xp.exp(logits - xp.max(logits, axis=1, keepdims=True))

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        logits, powers = self._shifted(xp, params, features)
        return xp.max(logits, axis=1) + xp.log(xp.sum(powers, axis=1)) - xp.sum(logits * targets, axis=1)

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """dl_i/dz_i = exp(z_i) / sum_j exp(z_ij) - y_i."""
        _, powers = self._shifted(xp, params, features)
        signals = powers / xp.sum(powers, axis=1, keepdims=True) - targets  # (n, k)
        return {"slopes": features[:, :, None] * signals[:, None, :], "offsets": signals}


@final
@dataclass(frozen=True)
class HuberRegression(ByRows):
    """l_i = r_i^2 / 2 where |r_i| <= delta, else delta (|r_i| - delta / 2): with a branch, unlike the library's."""

    delta: float = 1.5

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"slopes": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        r = features @ params["slopes"] - targets
        return xp.where(xp.abs(r) <= self.delta, 0.5 * r * r, self.delta * (xp.abs(r) - 0.5 * self.delta))

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """dl_i/dslopes = x_i clip(r_i, -delta, delta)."""
        r = features @ params["slopes"] - targets
        return {"slopes": features * xp.clip(r, -self.delta, self.delta)[:, None]}


PROBLEMS: Mapping[str, Problem] = {
    "linear": LinearRegression(),
    "logistic": LogisticRegression(),
    "relu": Network("relu"),
    "tanh": Network("tanh"),
    "softmax": SoftmaxRegression(),
    "huber": HuberRegression(),
    "poisson": PoissonRegression(),
}

SAMPLES = 7
"""As few rows as show every row and column of a matrix; odd, so that parts are ragged."""


@cache
def few_rows(problem: Problem) -> Dataset:
    """Return the problem's own data, or the seed's line, in few rows."""
    return problem.example(SAMPLES) or datasets.example(problem).rows(slice(SAMPLES))


Point = tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]


def drawn(
    problem: Problem,
    generator: np.random.Generator,
    n: int = 7,
    d: int = 2,
    dtype: str = "float64",
    decades: float = 0.0,
) -> Point:
    """Return parameters, features and targets that suit the problem, in the dtype.

    Features, parameters and targets each have their own scale, up to so many decades above or below 1, and their kind:
    normal, of many magnitudes, small integers, or all positive.
    """
    kind = generator.integers(4) if decades else 0
    decades = min(decades, 0.5) if isinstance(problem, PoissonRegression) else decades  # exp overflows soon

    def values(shape: Any, scale: float) -> NDArray[Any]:
        if kind == 2:
            return np.asarray(generator.integers(-4, 5, shape), dtype=dtype)
        normal = generator.normal(size=shape) if kind < 3 else generator.uniform(size=shape)
        spread = 10.0 ** generator.uniform(-4, 0, shape) if kind == 1 else 1.0
        return np.asarray(normal * spread * scale, dtype=dtype)

    of_features, of_params, of_targets = 10.0 ** generator.uniform(-decades, decades, 3)
    features = values((n, d), of_features)
    if isinstance(problem, SoftmaxRegression):
        targets = np.eye(3, dtype=dtype)[generator.integers(3, size=n)]
    elif isinstance(problem, LogisticRegression | PoissonRegression):
        targets = generator.integers(2 if isinstance(problem, LogisticRegression) else 5, size=n).astype(dtype)
    else:
        targets = values(n, of_targets)
    shapes = problem.parameter_shapes(Dataset(features, targets))
    return {name: values(shape, of_params) for name, shape in shapes.items()}, features, targets


def suitable(
    problem: Problem, dtype: str, generator: np.random.Generator, decades: Sequence[float] = ()
) -> tuple[Dataset, dict[str, NDArray[Any]]]:
    """Return data and parameters that the problem allows, in the shape of its few rows, of any kind.

    Each array has its own scale, up to so many decades above or below 1: by choice of those given, or any.
    """
    own, kind = few_rows(problem), generator.integers(5)
    decade = generator.choice(list(decades) or [0.5, 1, 2, 4, 18 if dtype == "float32" else 100])

    def values(shape: tuple[int, ...]) -> NDArray[Any]:
        scale = 10.0 ** generator.uniform(-decade, decade)
        if kind == 1:
            scale = scale * 10.0 ** generator.uniform(-4, 0, shape)
        if kind == 2:
            return generator.integers(-4, 5, shape).astype(dtype).astype(np.float64)
        each = generator.uniform(0, 1, shape) if kind == 3 else generator.standard_normal(shape)
        return np.asarray(each * scale).astype(dtype).astype(np.float64)

    features = own.features if kind == 4 else values(own.features.shape)
    if problem.target_values is not None:
        targets = own.targets[generator.permutation(len(own))]
    else:
        targets = np.maximum(values(own.targets.shape), problem.least_target)
    data = rounded(Dataset(features, targets), dtype)
    return data, {name: values(shape) for name, shape in problem.parameter_shapes(data).items()}


def some_weights(generator: np.random.Generator, n: int, dtype: str = "float64") -> NDArray[Any]:
    """Return weights, a fifth of them 0, but not the first."""
    weights = generator.uniform(0.1, 2, n) * (generator.random(n) < 0.8)
    weights[0] = 1.0
    return weights.astype(dtype)


@final
@dataclass(frozen=True)
class Formula(Problem):
    """l_i = sum_k k f(x_i a, x_i b)_k, for any function f of two arrays (n, d): it tells one array function by name.

    The parameters are `a` and `b`, shape (d,), and every result weighs differently.
    """

    function: Callable[[Any, Any, Any], Any]

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys("ab", data.features.shape[1:])

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        result = self.function(xp, features * params["a"], features * params["b"])  # (n, ...)
        rows = xp.reshape(result, (features.shape[0], -1))
        return rows @ xp.asarray([float(k + 1) for k in range(rows.shape[1])], dtype=features.dtype)

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        raise NotImplementedError

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        raise NotImplementedError


# Every array function that the referee knows, as a function of x, all > 0.1 and < 2, and of y, likewise, both (n, 3).
FUNCTIONS: Mapping[str, Callable[[Any, Any, Any], Any]] = {
    "abs": lambda xp, x, y: xp.abs(x - y),
    "add": lambda xp, x, y: xp.add(x, 2 * y),
    "arange": lambda xp, x, y: x * xp.arange(3, dtype=x.dtype),
    "asarray": lambda xp, x, y: xp.asarray([1.0, 2.0, 3.0], dtype=x.dtype) * x * y,
    "astype": lambda xp, x, y: xp.astype(x > y, x.dtype) * x,
    "broadcast_to": lambda xp, x, y: xp.broadcast_to(x[:, None, :], (x.shape[0], 2, 3)) * y[:, None, :],
    "clip": lambda xp, x, y: xp.clip(x, 0.4, 1.3) * y,
    "concat": lambda xp, x, y: xp.concat([x, y * y], axis=1),
    "cos": lambda xp, x, y: xp.cos(x * y),
    "cosh": lambda xp, x, y: xp.cosh(x * y),
    "divide": lambda xp, x, y: xp.divide(x, y),
    "equal": lambda xp, x, y: xp.where(xp.equal(x, x), x * y, y),
    "exp": lambda xp, x, y: xp.exp(x * y),
    "expand_dims": lambda xp, x, y: xp.expand_dims(x, axis=1) * xp.expand_dims(y, axis=2),
    "expm1": lambda xp, x, y: xp.expm1(x - y),
    "eye": lambda xp, x, y: x @ xp.eye(3, dtype=x.dtype) * y,
    "full": lambda xp, x, y: x * xp.full((3,), 2.5, dtype=x.dtype),
    "full_like": lambda xp, x, y: x * xp.full_like(y, 2.5),
    "greater": lambda xp, x, y: xp.where(xp.greater(x, y), x * x, y),
    "greater_equal": lambda xp, x, y: xp.where(x >= y, x * x, y),
    "less": lambda xp, x, y: xp.where(x < y, x * x, y),
    "less_equal": lambda xp, x, y: xp.where(x <= y, x * x, y),
    "log": lambda xp, x, y: xp.log(x) * y,
    "log1p": lambda xp, x, y: xp.log1p(x) + xp.log1p(-0.4 * y),
    "logaddexp": lambda xp, x, y: xp.logaddexp(x, 3 * y),
    "logical_and": lambda xp, x, y: xp.where(xp.logical_and(x > y, x < 1), x * x, y),
    "logical_not": lambda xp, x, y: xp.where(xp.logical_not(x > y), x * x, y),
    "logical_or": lambda xp, x, y: xp.where((x > y) | (x < 1), x * x, y),
    "matmul": lambda xp, x, y: xp.matmul(xp.reshape(x, (-1, 1, 3)), xp.reshape(y, (-1, 3, 1))),
    "matrix_transpose": lambda xp, x, y: xp.matrix_transpose(x[:, :, None] * x[:, None, :] * y[:, :, None]),
    "max": lambda xp, x, y: xp.max(x * y, axis=1) + xp.max(x, axis=1, keepdims=True)[:, 0],
    "maximum": lambda xp, x, y: xp.maximum(x, y * y),
    "mean": lambda xp, x, y: xp.mean(x * y, axis=1),
    "min": lambda xp, x, y: xp.min(x * y, axis=-1, keepdims=True),
    "minimum": lambda xp, x, y: xp.minimum(x, y * y),
    "multiply": lambda xp, x, y: xp.multiply(x, y),
    "negative": lambda xp, x, y: -x * y,
    "not_equal": lambda xp, x, y: xp.where(xp.not_equal(x, x), x, x * y),
    "ones": lambda xp, x, y: x * y + xp.ones((3,), dtype=x.dtype),
    "ones_like": lambda xp, x, y: x * y + xp.ones_like(x),
    "permute_dims": lambda xp, x, y: xp.permute_dims(x[:, :, None] * y[:, None, :2], (0, 2, 1)),
    "positive": lambda xp, x, y: +x * y,
    "pow": lambda xp, x, y: x**y + x**2 + y**-1 + x**0.5 + y**3,
    "reshape": lambda xp, x, y: xp.reshape(x[:, :, None] * y[:, None, :], (-1, 9)),
    "sign": lambda xp, x, y: xp.sign(x - y) * x,
    "sin": lambda xp, x, y: xp.sin(x * y),
    "sinh": lambda xp, x, y: xp.sinh(x - y),
    "sqrt": lambda xp, x, y: xp.sqrt(x) * y,
    "square": lambda xp, x, y: xp.square(x) * y,
    "squeeze": lambda xp, x, y: xp.squeeze(x[:, None, :], axis=1) * y,
    "stack": lambda xp, x, y: xp.stack([x, y * y, x * y], axis=-1),
    "subtract": lambda xp, x, y: xp.subtract(x * x, y),
    "sum": lambda xp, x, y: xp.sum(x * y, axis=1, keepdims=True) + xp.sum(x[:, None, :], axis=(1, 2))[:, None],
    "tanh": lambda xp, x, y: xp.tanh(x * y - 1),
    "tensordot": lambda xp, x, y: xp.tensordot(x, xp.eye(3, dtype=x.dtype) + 1, axes=1) * y,
    "vecdot": lambda xp, x, y: xp.vecdot(x, y),
    "where": lambda xp, x, y: xp.where(x > 1, xp.sqrt(x), x * y),
    "zeros": lambda xp, x, y: x * y + xp.zeros((3,), dtype=x.dtype),
    "zeros_like": lambda xp, x, y: x * y + xp.zeros_like(x),
}
