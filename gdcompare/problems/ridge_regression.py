"""Fit a plane by least squares, and keep its slopes small."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, final

import numpy as np

from gdcompare.problem import Dataset, Problem


@final
@dataclass(frozen=True)
class RidgeRegression(Problem):
    """The mean squared error of a linear prediction, plus a penalty on its slopes; the intercept goes free.

        r_i = theta_0 + x_i . theta_1 - y_i             the residual of sample i
        l_i = r_i^2 + strength |theta_1|^2              its loss;   L = 1/n sum l_i

    Every sample carries the whole penalty, so that L is a finite sum, and the mean over any batch has it once.

    Parameters: `theta_0`, a scalar, the intercept; `theta_1`, shape (d,), the slopes.

    Source: Hoerl and Kennard, Ridge Regression, Technometrics 12(1), 1970; their k is n times our strength.

    >>> params = {"theta_0": np.array(1.0), "theta_1": np.array([2.0])}
    >>> loss, gradient = RidgeRegression(strength=0.5).value_and_gradient(
    ...     np, params, np.array([[1.0], [3.0]]), np.array([2.0, 8.0])
    ... )
    >>> float(loss), float(gradient["theta_0"]), gradient["theta_1"].tolist()  # r = (1, -1)
    (3.0, 0.0, [0.0])
    """

    strength: float = 0.1

    def __post_init__(self) -> None:
        if not (isinstance(self.strength, Real) and 0 <= self.strength < math.inf):
            raise ValueError(f"strength must be a finite number, 0 or above, not {self.strength!r}")

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """One intercept and one slope for each feature."""
        return {"theta_0": (), "theta_1": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = r_i^2 + strength |theta_1|^2."""
        del xp
        residuals = params["theta_0"] + features @ params["theta_1"] - targets  # (n,)
        return residuals * residuals + self.strength * (params["theta_1"] @ params["theta_1"])

    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """f_i = theta_0 + x_i . theta_1."""
        del xp
        return params["theta_0"] + features @ params["theta_1"]

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample: dl_i/dtheta_0 = 2 r_i, dl_i/dtheta_1 = 2 r_i x_i + 2 strength theta_1."""
        del xp
        residuals = params["theta_0"] + features @ params["theta_1"] - targets  # (n,)
        penalty = 2 * self.strength * params["theta_1"]  # (d,)
        return {"theta_0": 2 * residuals, "theta_1": 2 * residuals[:, None] * features + penalty}  # (n,), (n, d)

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = r.r / n + p, dL/dtheta_0 = 2/n sum r_i, dL/dtheta_1 = 2/n X^T r + dp/dtheta_1.

        The penalty p = strength |theta_1|^2 is the same in every sample: dp/dtheta_1 = 2 strength theta_1.
        """
        n, slopes = features.shape[0], params["theta_1"]
        residuals = params["theta_0"] + features @ slopes - targets  # (n,)
        gradient = {
            "theta_0": xp.sum(residuals) * (2 / n),  # ()
            "theta_1": residuals @ features * (2 / n) + 2 * self.strength * slopes,  # (d,)
        }
        return residuals @ residuals / n + self.strength * (slopes @ slopes), gradient

    def hessian_vector_product(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any, direction: Mapping[str, Any]
    ) -> dict[str, Any]:
        """With dr = v_0 + X v_1: (H v)_0 = 2/n sum dr_i, (H v)_1 = 2/n X^T dr + 2 strength v_1."""
        n = features.shape[0]
        changes = direction["theta_0"] + features @ direction["theta_1"]  # dr, (n,)
        return {
            "theta_0": xp.sum(changes) * (2 / n),  # ()
            "theta_1": changes @ features * (2 / n) + 2 * self.strength * direction["theta_1"],  # (d,)
        }

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Three features, the last nearly the sum of the others, which is what the penalty is for."""
        generator = np.random.default_rng(seed)
        x = generator.standard_normal((samples, 2))
        x = np.column_stack([x, x.sum(axis=1) + 0.1 * generator.standard_normal(samples)])
        y = 1 + x @ [2.0, -1.0, 0.5] + 0.5 * generator.standard_normal(samples)
        return Dataset(x, y, name="noisy plane")
