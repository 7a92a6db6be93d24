"""A recurrent network of one cell, which reads a series and predicts a number."""

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
class RecurrentCell(Problem):
    """The mean squared error of what a cell with tanh units says after it has read a series, a number at a time.

        x_it                                       feature t of sample i is the input at time t, of d
        h_it = tanh(x_it w + h_i,t-1 U + b)        the state, (width,); h_i0 = 0
        r_i = h_id . v + c - y_i                   the residual, after the last step
        l_i = r_i^2                                its loss;   L = 1/n sum l_i

    Parameters: `w`, `b` and `v`, shape (width,); `U`, shape (width, width); `c`, a scalar.

    Source: Elman, Finding Structure in Time, Cognitive Science 14(2), 1990; the gradient by Werbos, Backpropagation
    Through Time: What It Does and How to Do It, Proceedings of the IEEE 78(10), 1990.

    >>> import numpy as np
    >>> params = {"w": np.zeros(1), "U": np.zeros((1, 1)), "b": np.zeros(1), "v": np.ones(1), "c": np.array(2.0)}
    >>> cell = RecurrentCell(width=1)
    >>> loss, gradient = cell.value_and_gradient(np, params, np.array([[5.0, 3.0]]), np.array([1.0]))
    >>> float(loss), float(gradient["c"]), gradient["b"].tolist(), gradient["w"].tolist()
    (1.0, 2.0, [2.0], [6.0])
    """

    width: int = 3

    def __post_init__(self) -> None:
        """Refuse settings that count nothing."""
        refuse_uncounted(self, 1, "width")

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """The same at every time, so that the length of the series does not matter."""
        del data
        h = (self.width,)
        return {"w": h, "U": h + h, "b": h, "v": h, "c": ()}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = r_i^2."""
        residuals = self._states(xp, params, features)[-1] @ params["v"] + params["c"] - targets  # (n,)
        return residuals * residuals

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample, by back-propagation through time.

        With e_it = dl_i/d(x_it w + h_i,t-1 U + b), see `_errors`: dl_i/dw = sum_t x_it e_it,
        dl_i/dU = sum_t h_i,t-1^T e_it, dl_i/db = sum_t e_it, dl_i/dv = 2 r_i h_id, dl_i/dc = 2 r_i.
        """
        states, twice, errors = self._errors(xp, params, features, targets)
        steps = range(len(errors))
        return {
            "w": sum(features[:, t, None] * errors[t] for t in steps),  # (n, width)
            "U": sum(states[t][:, :, None] * errors[t][:, None, :] for t in steps),  # (n, width, width)
            "b": sum(errors),  # (n, width)
            "v": twice[:, None] * states[-1],  # (n, width)
            "c": twice,  # (n,)
        }

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = r.r / n; the gradient is that of the samples with the sum over them inside the products."""
        n = features.shape[0]
        states, twice, errors = self._errors(xp, params, features, targets)
        steps = range(len(errors))
        gradient = {
            "w": sum(features[:, t] @ errors[t] for t in steps),  # (width,)
            "U": sum(states[t].T @ errors[t] for t in steps),  # (width, width)
            "b": xp.sum(sum(errors), axis=0),  # (width,)
            "v": twice @ states[-1],  # (width,)
            "c": xp.sum(twice),  # ()
        }
        return twice @ twice / (4 * n), {name: each / n for name, each in gradient.items()}

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """Weights uniform in +-1/sqrt(width), seed 0, so that the units differ; b and c are 0."""
        generator = np.random.default_rng(0)
        bound = self.width**-0.5
        return {
            name: np.zeros(shape) if name in ("b", "c") else generator.uniform(-bound, bound, shape)
            for name, shape in self.parameter_shapes(data).items()
        }

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Series of 5 standard normal numbers x_t, and their fading sums, sum_t 2^(t - 5) x_t, with noise 0.1."""
        generator = np.random.default_rng(seed)
        series = generator.standard_normal((samples, 5))
        fading = series @ 2.0 ** np.arange(-4, 1)
        return Dataset(series, fading + 0.1 * generator.standard_normal(samples), name="fading sums")

    def _states(self, xp: Any, params: Mapping[str, Any], features: Any) -> list[Any]:
        """Return h_0 to h_d, each (n, width)."""
        states = [xp.zeros_like(features[:, :1] * params["w"])]
        for t in range(features.shape[1]):
            states.append(xp.tanh(features[:, t, None] * params["w"] + states[-1] @ params["U"] + params["b"]))
        return states

    def _errors(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[list[Any], Any, list[Any]]:
        """Return the states, 2 r_i, and the errors e_1 to e_d, each (n, width), which travel back in time.

        e_d = 2 r v (1 - h_d^2),   e_t-1 = e_t U^T (1 - h_t-1^2).
        """
        states = self._states(xp, params, features)
        twice = 2 * (states[-1] @ params["v"] + params["c"] - targets)  # (n,)
        arriving, errors = twice[:, None] * params["v"], []  # dl/dh_d, (n, width)
        for state in reversed(states[1:]):
            errors.append(arriving * (1 - state * state))
            arriving = errors[-1] @ params["U"].T
        return states, twice, errors[::-1]
