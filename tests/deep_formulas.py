"""Deep and composed formulas, on which the referee itself is tried: their worst case of rounding says little."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from gdcompare import Dataset, Problem
from gdcompare.problems.multilayer_perceptron import MultilayerPerceptron


@final
@dataclass(frozen=True)
class Attention(Problem):
    """Pre-norm attention over T tokens of width w, H_i = x_i as (T, w), layer after layer:

    Z = (H - mean H) / sqrt(var H + 1e-5)        token by token
    A = softmax(Z Q (Z K)^T / sqrt w)            row by row, its largest entry subtracted
    H <- H + A Z V O,        and at last l_i = |H|^2
    """

    layers: int
    tokens: int = 3
    width: int = 4

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {f"{name}_{k}": (self.width, self.width) for k in range(self.layers) for name in "qkvo"}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        h = xp.reshape(features, (features.shape[0], self.tokens, self.width))  # H, (n, T, w)
        for k in range(self.layers):
            centred = h - xp.mean(h, axis=-1, keepdims=True)
            z = centred / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + 1e-5)
            queries, keys, values = (z @ params[f"{name}_{k}"] for name in "qkv")
            scores = queries @ xp.matrix_transpose(keys) / self.width**0.5  # (n, T, T)
            powers = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
            h = h + powers / xp.sum(powers, axis=-1, keepdims=True) @ values @ params[f"o_{k}"]
        return xp.sum(xp.sum(h * h, axis=-1), axis=-1)


@final
@dataclass(frozen=True)
class HiddenMarkov(Problem):
    """l_i = -log p(x_i1 .. x_iT) of a chain of k states by the forward recursion, up to constants:

    a_1j = e_1j,    a_tj = log sum_m exp(a_t-1,m + steps_mj) + e_tj,    e_tj = -(x_it - means_j)^2 / 2,
    l_i = -log sum_j exp(a_Tj), each with the largest exponent subtracted.
    """

    states: int = 3

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"steps": (self.states, self.states), "means": (self.states,)}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        emissions = -0.5 * (features[:, :, None] - params["means"]) ** 2  # e, (n, T, k)
        a = emissions[:, 0, :]
        for t in range(1, features.shape[1]):
            onward = a[:, None, :] + xp.matrix_transpose(params["steps"])[None, :, :]  # (n, to, from)
            a = _log_sum_exp(xp, onward) + emissions[:, t, :]
        return -_log_sum_exp(xp, a)


def _log_sum_exp(xp: Any, z: Any) -> Any:
    """Return log sum_j exp(z_j) over the last axis."""
    largest = xp.max(z, axis=-1, keepdims=True)
    return largest[..., 0] + xp.log(xp.sum(xp.exp(z - largest), axis=-1))


@final
@dataclass(frozen=True)
class Recurrence(Problem):
    """h_t = tanh(h_t-1 W + x_it inward), h_0 = 0, and l_i = (h_T . outward - y_i)^2, with h of width w."""

    width: int = 4

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"W": (self.width, self.width), "inward": (self.width,), "outward": (self.width,)}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        h = xp.tanh(features[:, 0:1] * params["inward"])  # (n, w)
        for t in range(1, features.shape[1]):
            h = xp.tanh(h @ params["W"] + features[:, t : t + 1] * params["inward"])
        return (h @ params["outward"] - targets) ** 2


@final
@dataclass(frozen=True)
class MaskedSoftmax(Problem):
    """l_i = sum_t (a_it - 1/T)^2 (t + 1), a_i = softmax over T of z_i = x_i W - 1e9 [t beyond i's length].

    Row i keeps its first 1 + i mod T places, as its target says.
    """

    places: int = 5

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"W": (data.features.shape[1], self.places)}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        places = xp.arange(self.places, dtype=features.dtype)
        z = features @ params["W"]  # (n, T)
        z = xp.where(places[None, :] < targets[:, None], z, z - 1e9)
        powers = xp.exp(z - xp.max(z, axis=-1, keepdims=True))
        shares = powers / xp.sum(powers, axis=-1, keepdims=True)
        return xp.sum((shares - 1 / self.places) ** 2 * (places + 1.0), axis=-1)


@final
@dataclass(frozen=True)
class Deep:
    """A formula with its size in words, and how its data and parameters are drawn."""

    problem: Problem
    features: int
    """d."""
    lattice: bool = False
    """Whether everything is a small integer, so that relus stand at 0 and maxima are shared."""
    targets: Callable[[np.random.Generator, int], NDArray[Any]] = lambda generator, n: generator.standard_normal(n)

    def drawn(
        self, generator: np.random.Generator, scale: float, n: int = 8
    ) -> tuple[Dataset, dict[str, NDArray[Any]]]:
        """Return data of n rows, and parameters of that scale over the root of their fan-in."""
        whole = generator.integers if self.lattice else None
        features = generator.standard_normal((n, self.features)) if whole is None else whole(-2, 3, (n, self.features))
        targets = self.targets(generator, n) if whole is None else whole(-2, 3, n)
        data = Dataset(np.asarray(features, dtype=float), np.asarray(targets, dtype=float))
        params = {}
        for name, shape in self.problem.parameter_shapes(data).items():
            normal = generator.standard_normal(shape) * scale / np.sqrt(shape[0] if shape else 1)
            params[name] = np.asarray(normal if whole is None else whole(-1, 2, shape), dtype=float)
        return data, params


def _lengths(generator: np.random.Generator, n: int) -> NDArray[Any]:
    return 1.0 + np.arange(n) % 5


def _network(layers: int, activation: Literal["tanh", "relu"], width: int = 6) -> MultilayerPerceptron:
    return MultilayerPerceptron(widths=(width,) * layers, activation=activation)


FORMULAS: Mapping[str, Deep] = {
    **{f"tanh network, {k} layers": Deep(_network(k, "tanh"), 3) for k in (2, 6, 12, 20)},
    **{f"attention, {k} layers": Deep(Attention(k), 12) for k in (1, 2, 4, 6)},
    **{f"hidden Markov, {steps} steps": Deep(HiddenMarkov(), steps) for steps in (6, 24, 48)},
    "recurrence, 12 steps": Deep(Recurrence(), 12),
    "recurrence, 40 steps": Deep(Recurrence(), 40),
    "masked softmax": Deep(MaskedSoftmax(), 3, targets=_lengths),
    **{f"relu network on integers, {k} layers": Deep(_network(k, "relu", 3), 3, lattice=True) for k in (2, 3, 6)},
}
"""Each formula in its sizes."""
