"""Explain counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from gdcompare.problem import Dataset
from gdcompare.problems.linear_predictor import LinearPredictor


@final
@dataclass(frozen=True)
class PoissonRegression(LinearPredictor):
    """The mean negative log-likelihood of counts whose mean is log-linear, without its constant log(y!).

        m_i = exp(z_i),   z_i = theta_0 + x_i . theta_1          the mean of sample i
        l_i = m_i - y_i z_i,   dl_i/dz_i = m_i - y_i             its loss;   L = 1/n sum l_i

    It is written in z, not in log(m), so that a mean that underflows to 0 does no harm.

    Parameters: `theta_0`, a scalar, the intercept; `theta_1`, shape (d,). Targets are 0 or above.

    Source: Nelder and Wedderburn, Generalized Linear Models, Journal of the Royal Statistical Society A 135(3), 1972.

    >>> loss, gradient = PoissonRegression().value_and_gradient(
    ...     np, {"theta_0": np.array(0.0), "theta_1": np.array([0.0])}, np.array([[1.0], [3.0]]), np.array([1.0, 3.0])
    ... )
    >>> float(loss), float(gradient["theta_0"]), gradient["theta_1"].tolist()  # m - y = (0, -2)
    (1.0, -1.0, [-3.0])
    """

    least_target: ClassVar[float] = 0.0

    def losses(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """l_i = exp(z_i) - y_i z_i."""
        return xp.exp(predictors) - targets * predictors

    def slopes(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """dl_i/dz_i = exp(z_i) - y_i."""
        return xp.exp(predictors) - targets

    def curvatures(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """d2l_i/dz_i2 = exp(z_i)."""
        return xp.exp(predictors)

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Counts with means between 1 and 6."""
        generator = np.random.default_rng(seed)
        x = generator.uniform(-1, 1, (samples, 2))
        return Dataset(x, generator.poisson(np.exp(1 + x @ [0.5, -0.3])), name="counts")
