"""Fit a plane that a given share of the samples lies below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, final

import numpy as np

from gdcompare.problem import Dataset
from gdcompare.problems.linear_predictor import LinearPredictor


@final
@dataclass(frozen=True)
class QuantileRegression(LinearPredictor):
    """The mean pinball loss: a sample above the plane counts `level`, one below it `1 - level`.

        e_i = y_i - theta_0 - x_i . theta_1                            how far sample i lies above the plane
        l_i = max(level e_i, (level - 1) e_i)                          its loss;   L = 1/n sum l_i
        dl_i/dz_i = -level if e_i > 0, 1 - level if e_i < 0

    At e_i = 0 it has a kink: every slope from -level to 1 - level is right there, and ours is -level.

    Parameters: `theta_0`, a scalar, the intercept; `theta_1`, shape (d,), the slopes.

    Source: Koenker and Bassett, Regression Quantiles, Econometrica 46(1), 1978.

    >>> loss, gradient = QuantileRegression(level=0.75).value_and_gradient(
    ...     np, {"theta_0": np.array(0.0), "theta_1": np.array([0.0])}, np.array([[1.0], [3.0]]), np.array([2.0, -2.0])
    ... )
    >>> float(loss), float(gradient["theta_0"]), gradient["theta_1"].tolist()  # l = (3/2, 1/2), slopes (-3/4, 1/4)
    (1.0, -0.25, [0.0])
    """

    level: float = 0.75

    def __post_init__(self) -> None:
        if not (isinstance(self.level, Real) and 0 < self.level < 1):
            raise ValueError(f"level must be a number between 0 and 1, not {self.level!r}")

    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """f_i = z_i."""
        del xp
        return params["theta_0"] + features @ params["theta_1"]

    def losses(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """l_i = max(level e_i, (level - 1) e_i)."""
        above = targets - predictors  # e
        return xp.maximum(self.level * above, (self.level - 1) * above)

    def slopes(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """dl_i/dz_i = 1 - level if z_i > y_i, else -level."""
        ones = xp.ones_like(predictors)
        return xp.where(predictors > targets, (1 - self.level) * ones, -self.level * ones)

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Points about a line, which scatter the more the further right."""
        generator = np.random.default_rng(seed)
        x = generator.uniform(-1, 1, samples)
        noise = (1.5 + x) * generator.standard_normal(samples)
        return Dataset(x, 1 + 2 * x + noise, name="widening line")
