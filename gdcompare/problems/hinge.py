"""Part two classes by the widest gap: the support vector machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from gdcompare.problem import Dataset
from gdcompare.problems.linear_predictor import LinearPredictor


@final
@dataclass(frozen=True)
class Hinge(LinearPredictor):
    """The mean hinge loss of labels 0 and 1: nothing for a sample that lies clearly on its own side.

        t_i = 2 y_i - 1                            -1 for label 0, +1 for label 1
        m_i = t_i (theta_0 + x_i . theta_1)        the margin of sample i
        l_i = max(0, 1 - m_i)                      its loss;   L = 1/n sum l_i
        dl_i/dz_i = -t_i if m_i < 1, else 0

    At m_i = 1 it has a kink: every slope between -t_i and 0 is right there, and ours is 0.

    Parameters: `theta_0`, a scalar, the intercept; `theta_1`, shape (d,).

    Source: Cortes and Vapnik, Support-Vector Networks, Machine Learning 20, 1995.

    >>> loss, gradient = Hinge().value_and_gradient(
    ...     np, {"theta_0": np.array(0.0), "theta_1": np.array([1.0])}, np.array([[2.0], [0.5]]), np.array([1.0, 0.0])
    ... )
    >>> float(loss), float(gradient["theta_0"]), gradient["theta_1"].tolist()  # m = (2, -1/2)
    (0.75, 0.5, [0.25])
    """

    target_values: ClassVar[tuple[float, ...] | None] = (0.0, 1.0)

    def losses(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """l_i = max(0, 1 - m_i)."""
        missing = 1 - (2 * targets - 1) * predictors  # 1 - m
        return xp.maximum(missing, xp.zeros_like(missing))

    def slopes(self, xp: Any, predictors: Any, targets: Any) -> Any:
        """dl_i/dz_i = -t_i if m_i < 1, else 0."""
        signs = 2 * targets - 1  # t
        return xp.where(signs * predictors < 1, -signs, xp.zeros_like(signs))

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Two clouds in a plane, which overlap a little; the labels take turns."""
        generator = np.random.default_rng(seed)
        labels = np.arange(samples) % 2
        x = np.where(labels == 1, 1.0, -1.0)[:, None] * [1.0, 0.5] + generator.standard_normal((samples, 2))
        return Dataset(x, labels, name="two clouds")
