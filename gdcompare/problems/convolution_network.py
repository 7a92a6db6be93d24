"""A small convolution network, which hears a series and predicts a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset, Problem
from gdcompare.problems.settings import refuse_uncounted


@final
@dataclass(frozen=True)
class ConvolutionNetwork(Problem):
    """The mean squared error of a convolution along the features, tanh, the mean over the places, and a linear layer.

        z_itc = sum_m x_i,t+m K_mc + b_c           kernel c, m = 0 .. width - 1, at place t of T = d - width + 1
        p_ic = 1/T sum_t tanh(z_itc)               its answer, pooled
        r_i = p_i . v + c - y_i                    the residual
        l_i = r_i^2                                its loss;   L = 1/n sum l_i

    Parameters: `kernels`, K, shape (width, channels); `biases`, b, and `weights`, v, shape (channels,); `shift`, c, a
    scalar.

    Source: LeCun, Boser, Denker, Henderson, Howard, Hubbard and Jackel, Backpropagation Applied to Handwritten Zip Code
    Recognition, Neural Computation 1(4), 1989.

    >>> import numpy as np
    >>> params = {"kernels": np.zeros((2, 1)), "biases": np.zeros(1), "weights": np.ones(1), "shift": np.array(2.0)}
    >>> network = ConvolutionNetwork(width=2, channels=1)
    >>> loss, gradient = network.value_and_gradient(np, params, np.array([[1.0, 2.0, 6.0]]), np.array([1.0]))
    >>> float(loss), float(gradient["shift"]), gradient["biases"].tolist(), gradient["kernels"].tolist()
    (1.0, 2.0, [2.0], [[3.0], [8.0]])
    """

    width: int = 3
    channels: int = 2

    def __post_init__(self) -> None:
        """Refuse settings that count nothing."""
        refuse_uncounted(self, 1, "width", "channels")

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """The same at every place, so that the length of the series does not matter."""
        d = data.features.shape[1]
        if d < self.width:
            raise ValueError(
                f"ConvolutionNetwork has kernels of width={self.width}, but {data.name!r} has only {d} features; "
                "set width"
            )
        c = (self.channels,)
        return {"kernels": (self.width, *c), "biases": c, "weights": c, "shift": ()}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = r_i^2."""
        *_, residuals = self._forward(xp, params, features, targets)
        return residuals * residuals

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample: with the errors e_ict of `_errors`, dl_i/dK_mc = sum_t x_i,t+m e_ict.

        dl_i/db_c = sum_t e_ict,   dl_i/dv = 2 r_i p_i,   dl_i/dc = 2 r_i.
        """
        windows, pooled, twice, errors = self._errors(xp, params, features, targets)
        return {
            "kernels": windows @ xp.matrix_transpose(errors),  # (n, width, channels)
            "biases": xp.sum(errors, axis=2),  # (n, channels)
            "weights": twice[:, None] * pooled,  # (n, channels)
            "shift": twice,  # (n,)
        }

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = r.r / n; the gradient is that of the samples, summed over them."""
        n = features.shape[0]
        windows, pooled, twice, errors = self._errors(xp, params, features, targets)
        gradient = {
            "kernels": xp.sum(windows @ xp.matrix_transpose(errors), axis=0),  # (width, channels)
            "biases": xp.sum(errors, axis=(0, 2)),  # (channels,)
            "weights": twice @ pooled,  # (channels,)
            "shift": xp.sum(twice),  # ()
        }
        return twice @ twice / (4 * n), {name: each / n for name, each in gradient.items()}

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """Kernels and weights uniform in +-1/sqrt(how many numbers each unit adds up), seed 0; biases and shift 0."""
        generator = np.random.default_rng(0)
        start = {name: np.zeros(shape) for name, shape in self.parameter_shapes(data).items()}
        for name in ("kernels", "weights"):
            bound = len(start[name]) ** -0.5
            start[name] = generator.uniform(-bound, bound, start[name].shape)
        return start

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Tones of 8 numbers, sin(f t + phase) with noise 0.1; the target is the frequency f, from 0.5 to 2."""
        generator = np.random.default_rng(seed)
        frequencies, phases = generator.uniform([[0.5], [0.0]], [[2.0], [6.28]], (2, samples))
        tones = np.sin(np.outer(frequencies, np.arange(8)) + phases[:, None])
        return Dataset(tones + 0.1 * generator.standard_normal(tones.shape), frequencies, name="tones")

    def _forward(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> tuple[Any, Any, Any, Any]:
        """Return the windows x_i,t+m, (n, width, T), tanh(z), (n, channels, T), p, (n, channels), and r, (n,)."""
        places = features.shape[1] - self.width + 1
        windows = xp.stack([features[:, m : m + places] for m in range(self.width)], axis=1)
        hidden = xp.tanh(xp.matrix_transpose(params["kernels"]) @ windows + params["biases"][:, None])
        pooled = xp.mean(hidden, axis=2)
        return windows, hidden, pooled, pooled @ params["weights"] + params["shift"] - targets

    def _errors(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> tuple[Any, Any, Any, Any]:
        """Return the windows, p, 2 r, and e = dl/dz = 2 r v / T (1 - tanh(z)^2), (n, channels, T)."""
        windows, hidden, pooled, residuals = self._forward(xp, params, features, targets)
        twice = 2 * residuals  # (n,)
        shares = twice[:, None] * params["weights"] / hidden.shape[2]  # (n, channels)
        return windows, pooled, twice, shares[:, :, None] * (1 - hidden * hidden)
