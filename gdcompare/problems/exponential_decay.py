"""Fit what decays, such as radioactivity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset
from gdcompare.problems.least_squares import LeastSquares, check_one_feature


@final
@dataclass(frozen=True)
class ExponentialDecay(LeastSquares):
    """The mean squared error of an exponential decay in one feature.

        f_i = a exp(-k x_i),   df_i/da = exp(-k x_i),   df_i/dk = -a x_i exp(-k x_i)

    Parameters: `amplitude` a and `rate` k, scalars.

    Source: Rutherford and Soddy, Radioactive Change, Philosophical Magazine (6) 5, 1903.

    >>> loss, gradient = ExponentialDecay().value_and_gradient(
    ...     np, {"amplitude": np.array(2.0), "rate": np.array(0.0)}, np.array([[1.0]]), np.array([1.0])
    ... )
    >>> float(loss), float(gradient["amplitude"]), float(gradient["rate"])  # f = 2, r = 1
    (1.0, 2.0, -4.0)
    """

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """Two scalars."""
        check_one_feature(self, data)
        return {"amplitude": (), "rate": ()}

    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """f_i = a exp(-k x_i)."""
        return params["amplitude"] * xp.exp(-params["rate"] * features[:, 0])

    def jacobian(self, xp: Any, params: Mapping[str, Any], features: Any) -> dict[str, Any]:
        """df_i/da = exp(-k x_i), df_i/dk = -a x_i exp(-k x_i)."""
        x = features[:, 0]
        decay = xp.exp(-params["rate"] * x)
        return {"amplitude": decay, "rate": -params["amplitude"] * x * decay}  # (n,), (n,)

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """The largest target, and a decay by 1/e over the mean feature."""
        amplitude, scale = np.max(np.abs(data.targets)), np.mean(np.abs(data.features))
        return {"amplitude": np.array(amplitude), "rate": np.array(1 / scale if scale else 1.0)}

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Points about 2 exp(-1.5 x)."""
        generator = np.random.default_rng(seed)
        x = generator.uniform(0, 2, samples)
        return Dataset(x, 2 * np.exp(-1.5 * x) + 0.1 * generator.standard_normal(samples), name="noisy decay")
