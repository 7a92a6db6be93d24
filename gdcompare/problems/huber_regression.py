"""Fit a plane, with little regard for outliers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, final

import numpy as np

from gdcompare.problem import Dataset
from gdcompare.problems.linear_predictor import LinearPredictor


@final
@dataclass(frozen=True)
class HuberRegression(LinearPredictor):
    """Half the square of a small residual, and of a large one only its size.

        r_i = theta_0 + x_i . theta_1 - y_i                            the residual of sample i
        l_i = r_i^2 / 2 if |r_i| <= delta, else delta (|r_i| - delta / 2)         L = 1/n sum l_i
        dl_i/dr_i = c_i = min(max(r_i, -delta), delta)                 the clipped residual

    Both cases are l_i = c_i (r_i - c_i / 2), which does not branch. The loss has no kink where the cases meet.

    Parameters: `theta_0`, a scalar, the intercept; `theta_1`, shape (d,), the slopes.

    Source: Huber, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics 35(1), 1964.

    >>> loss, gradient = HuberRegression(delta=1.0).value_and_gradient(
    ...     np, {"theta_0": np.array(0.0), "theta_1": np.array([0.0])}, np.array([[1.0], [2.0]]), np.array([0.5, -3.0])
    ... )
    >>> float(loss), float(gradient["theta_0"]), gradient["theta_1"].tolist()  # l = (1/8, 5/2), c = (-1/2, 1)
    (1.3125, 0.25, [0.75])
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.delta, Real) and 0 < self.delta < math.inf):
            raise ValueError(f"delta must be a finite number above 0, not {self.delta!r}")

    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """f_i = z_i."""
        del xp
        return params["theta_0"] + features @ params["theta_1"]

    def losses(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """l_i = c_i (r_i - c_i / 2)."""
        residuals = predictors - targets
        clipped = xp.clip(residuals, -self.delta, self.delta)
        return clipped * (residuals - clipped / 2)

    def slopes(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """dl_i/dz_i = c_i."""
        return xp.clip(predictors - targets, -self.delta, self.delta)

    def curvatures(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """d2l_i/dz_i2 = 1 where |r_i| < delta, else 0."""
        residuals = predictors - targets
        return xp.where(xp.abs(residuals) < self.delta, xp.ones_like(residuals), xp.zeros_like(residuals))

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Points about a line; one in eight is far off."""
        generator = np.random.default_rng(seed)
        x = generator.uniform(-1, 1, samples)
        y = 1 + 2 * x + 0.3 * generator.standard_normal(samples)
        return Dataset(x, np.where(generator.random(samples) < 1 / 8, y + 10, y), name="line with outliers")
