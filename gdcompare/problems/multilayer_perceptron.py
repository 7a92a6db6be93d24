"""A network of layers, of any depth, with its back-propagation by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset, Problem


@final
@dataclass(frozen=True)
class MultilayerPerceptron(Problem):
    """The mean squared error of a fully connected network with one output.

        h_i0 = x_i                                 the input
        z_ik = h_ik W_k + b_k                      layer k of K takes it in
        h_i,k+1 = f(z_ik)                          and sends it on; f is tanh, or relu: max(z, 0)
        r_i = h_iK . W_K + b_K - y_i               the residual of the last layer, which has no f
        l_i = r_i^2                                its loss;   L = 1/n sum l_i

    Parameters: `weights_k`, shape (width before, width), and `biases_k`, shape (width,), for each hidden layer; the
    last `weights_K`, shape (width before,), and `biases_K`, a scalar.

    Source: Rumelhart, Hinton and Williams, Learning Representations by Back-Propagating Errors, Nature 323, 1986; the
    start by Glorot and Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks, AISTATS 2010.

    >>> import numpy as np
    >>> params = {"weights_0": np.array([[2.0]]), "biases_0": np.array([1.0])}
    >>> params |= {"weights_1": np.array([3.0]), "biases_1": np.array(0.0)}
    >>> network = MultilayerPerceptron(widths=(1,), activation="relu")
    >>> loss, gradient = network.value_and_gradient(np, params, np.array([[1.0]]), np.array([8.0]))
    >>> float(loss), {name: each.tolist() for name, each in gradient.items()}
    (1.0, {'weights_0': [[6.0]], 'biases_0': [6.0], 'weights_1': [6.0], 'biases_1': 2.0})
    """

    widths: tuple[int, ...] = (4, 3)
    activation: Literal["tanh", "relu"] = "tanh"

    def __post_init__(self) -> None:
        """Refuse what is no network."""
        widths = tuple(self.widths) if isinstance(self.widths, Iterable) else ()
        if not widths or any(not isinstance(width, Integral) or width < 1 for width in widths):
            raise ValueError(f"widths must name one hidden layer or more, each 1 or wider, not {self.widths!r}")
        object.__setattr__(self, "widths", widths)  # hashable, whatever it came as
        if self.activation not in ("tanh", "relu"):
            raise ValueError(f"unknown activation {self.activation!r}; known: tanh, relu")

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """Weights and biases, layer by layer."""
        before = (data.features.shape[1], *self.widths)
        after: list[tuple[int, ...]] = [*((width,) for width in self.widths), ()]
        shapes: dict[str, tuple[int, ...]] = {}
        for k, (width, out) in enumerate(zip(before, after, strict=True)):
            shapes |= {f"weights_{k}": (width, *out), f"biases_{k}": out}
        return shapes

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = r_i^2."""
        _, outputs = self._forward(xp, params, features)
        residuals = outputs - targets  # (n,)
        return residuals * residuals

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample: dl_i/dW_k = h_ik^T e_ik and dl_i/db_k = e_ik, with the errors of `_errors`."""
        layers, errors = self._errors(xp, params, features, targets)
        gradients: dict[str, Any] = {}
        for k, (layer, error) in enumerate(zip(layers, errors, strict=True)):
            hidden = layer if error.ndim == 1 else layer[:, :, None]  # (n, width before) or (n, width before, 1)
            gradients |= {f"weights_{k}": hidden * error[:, None], f"biases_{k}": error}
        return gradients

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = r.r / n, dL/dW_k = 1/n H_k^T E_k, dL/db_k = 1/n sum_i e_ik."""
        n = features.shape[0]
        layers, errors = self._errors(xp, params, features, targets)
        gradient: dict[str, Any] = {}
        for k, (layer, error) in enumerate(zip(layers, errors, strict=True)):
            gradient |= {f"weights_{k}": layer.T @ error / n, f"biases_{k}": xp.sum(error, axis=0) / n}
        return errors[-1] @ errors[-1] / (4 * n), gradient

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """Weights uniform in +-sqrt(6 / (width before + width)), seed 0; biases 0.1, so that relus start awake."""
        generator = np.random.default_rng(0)
        start = {}
        for name, shape in self.parameter_shapes(data).items():
            bound = np.sqrt(6 / (shape[0] + (shape[1] if len(shape) == 2 else 1))) if shape else 0.0
            start[name] = np.full(shape, 0.1) if name.startswith("biases") else generator.uniform(-bound, bound, shape)
        return start

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """A bent surface, y = sin(2 x_1) x_2 + x_3^2 with noise 0.1, over the cube of side 2."""
        generator = np.random.default_rng(seed)
        x = generator.uniform(-1, 1, (samples, 3))
        heights = np.sin(2 * x[:, 0]) * x[:, 1] + x[:, 2] ** 2
        return Dataset(x, heights + 0.1 * generator.standard_normal(samples), name="a bent surface")

    def _forward(self, xp: Any, params: Mapping[str, Any], features: Any) -> tuple[list[Any], Any]:
        """Return h_0 to h_K, each (n, width), and the output, (n,)."""
        layers, last = [features], len(self.widths)
        for k in range(last):
            z = layers[-1] @ params[f"weights_{k}"] + params[f"biases_{k}"]
            layers.append(xp.tanh(z) if self.activation == "tanh" else xp.maximum(z, xp.zeros_like(z)))
        return layers, layers[-1] @ params[f"weights_{last}"] + params[f"biases_{last}"]

    def _errors(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> tuple[list[Any], list[Any]]:
        """Return h_0 to h_K, and the errors e_k = dl/dz_k, (n, width), the last one (n,), by back-propagation.

        e_K = 2 r,   e_k = (e_k+1 W_k+1^T) f'(z_k),   where tanh' = 1 - h^2, and relu' is 1 where h > 0, else 0.
        """
        layers, outputs = self._forward(xp, params, features)
        errors = [2 * (outputs - targets)]
        for k in reversed(range(len(self.widths))):
            above, hidden = params[f"weights_{k + 1}"], layers[k + 1]
            arriving = errors[-1] @ above.T if len(above.shape) == 2 else errors[-1][:, None] * above
            if self.activation == "tanh":
                errors.append(arriving * (1 - hidden * hidden))
            else:
                errors.append(xp.where(hidden > 0, arriving, xp.zeros_like(arriving)))
        return layers, errors[::-1]


tanh_network = partial(MultilayerPerceptron, activation="tanh")
"""What the name `tanh-network` stands for."""

relu_network = partial(MultilayerPerceptron, activation="relu")
"""What the name `relu-network` stands for."""
