"""Explain counts that vary more than Poisson's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, final

import numpy as np

from gdcompare.problem import Dataset
from gdcompare.problems.linear_predictor import LinearPredictor


@final
@dataclass(frozen=True)
class NegativeBinomialRegression(LinearPredictor):
    """The mean negative log-likelihood of counts with log-linear mean m and variance m + a m^2, without its constants.

        m_i = exp(z_i),   z_i = theta_0 + x_i . theta_1                   the mean of sample i
        l_i = (y_i + 1/a) log(1 + a m_i) - y_i z_i                        its loss;   L = 1/n sum l_i
        dl_i/dz_i = (y_i + 1/a) s_i - y_i,   s_i = a m_i / (1 + a m_i)    which is (m_i - y_i) / (1 + a m_i)

    The dispersion a is fixed. With w_i = z_i + log(a), log(1 + a m_i) is `logaddexp(0, w_i)`, and s_i is
    exp(-log(1 + exp(-w_i))): neither overflows where m_i does.

    Parameters: `theta_0`, a scalar, the intercept; `theta_1`, shape (d,). Targets are 0 or above.

    Source: Hilbe, Negative Binomial Regression, 2nd edition, 2011, chapter 8 (the model NB2).

    >>> loss, gradient = NegativeBinomialRegression(dispersion=1.0).value_and_gradient(
    ...     np, {"theta_0": np.array(0.0), "theta_1": np.array([0.0])}, np.array([[1.0], [3.0]]), np.array([1.0, 3.0])
    ... )
    >>> bool(np.isclose(loss, 3 * np.log(2)))  # m = 1, s = 1/2
    True
    >>> round(float(gradient["theta_0"]), 12), gradient["theta_1"].round(12).tolist()
    (-0.5, [-1.5])
    """

    least_target: ClassVar[float] = 0.0

    dispersion: float = 0.5

    def __post_init__(self) -> None:
        if not (isinstance(self.dispersion, Real) and 0 < self.dispersion < math.inf):
            raise ValueError(f"dispersion must be a finite number above 0, not {self.dispersion!r}")

    def losses(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """l_i = (y_i + 1/a) log(1 + exp(w_i)) - y_i z_i."""
        shifted = predictors + math.log(self.dispersion)  # w
        return (targets + 1 / self.dispersion) * xp.logaddexp(xp.zeros_like(shifted), shifted) - targets * predictors

    def slopes(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """dl_i/dz_i = (y_i + 1/a) exp(-log(1 + exp(-w_i))) - y_i."""
        shifted = predictors + math.log(self.dispersion)  # w
        shares = xp.exp(-xp.logaddexp(xp.zeros_like(shifted), -shifted))  # s
        return (targets + 1 / self.dispersion) * shares - targets

    def curvatures(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """d2l_i/dz_i2 = (y_i + 1/a) s_i (1 - s_i), with s (1 - s) = exp(-log(1 + exp(-w)) - log(1 + exp(w)))."""
        shifted = predictors + math.log(self.dispersion)  # w
        zeros = xp.zeros_like(shifted)
        bends = xp.exp(-xp.logaddexp(zeros, shifted) - xp.logaddexp(zeros, -shifted))  # s (1 - s)
        return (targets + 1 / self.dispersion) * bends

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Counts with means between 1 and 6, from Poisson's law with means that vary: Gamma's 1/a."""
        generator = np.random.default_rng(seed)
        x = generator.uniform(-1, 1, (samples, 2))
        means = np.exp(1 + x @ [0.5, -0.3]) * generator.gamma(1 / self.dispersion, self.dispersion, samples)
        return Dataset(x, generator.poisson(means), name="overdispersed counts")
