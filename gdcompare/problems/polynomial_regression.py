"""Fit a polynomial by least squares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from gdcompare.problem import Dataset
from gdcompare.problems.least_squares import LeastSquares, check_one_feature
from gdcompare.problems.settings import refuse_uncounted


@final
@dataclass(frozen=True)
class PolynomialRegression(LeastSquares):
    """The mean squared error of a polynomial of one feature.

        f_i = theta_0 + theta_1 x_i + ... + theta_degree x_i^degree,   df_i/dtheta_j = x_i^j

    Powers are repeated products of the feature as it is. With x in the thousands and a high degree, gradients are huge
    even at the optimum, where only rounding is left of them; they are right all the same.

    Parameters: `theta`, shape (degree + 1,).

    Source: Gergonne, Application de la methode des moindres quarres a l'interpolation des suites, Annales de
    mathematiques pures et appliquees 6, 1815.

    >>> loss, gradient = PolynomialRegression(degree=2).value_and_gradient(
    ...     np, {"theta": np.array([1.0, 2.0, 3.0])}, np.array([[2.0]]), np.array([15.0])
    ... )
    >>> float(loss), gradient["theta"].tolist()  # f = 1 + 4 + 12, r = 2
    (4.0, [4.0, 8.0, 16.0])
    """

    degree: int = 3

    def __post_init__(self) -> None:
        refuse_uncounted(self, 0, "degree")

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """One coefficient for each power."""
        check_one_feature(self, data)
        return {"theta": (self.degree + 1,)}

    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """f_i = sum_j theta_j x_i^j."""
        return self._powers(xp, features) @ params["theta"]

    def jacobian(self, xp: Any, params: Mapping[str, Any], features: Any) -> dict[str, Any]:
        """df_i/dtheta_j = x_i^j."""
        del params
        return {"theta": self._powers(xp, features)}

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Points about a cubic."""
        generator = np.random.default_rng(seed)
        x = generator.uniform(-1, 1, samples)
        return Dataset(x, 1 - 2 * x + 3 * x**3 + 0.2 * generator.standard_normal(samples), name="noisy cubic")

    def _powers(self, xp: Any, features: Any) -> Any:
        """Return x_i^j, (n, degree + 1)."""
        x = features[:, 0]
        powers = [xp.ones_like(x)]
        for _ in range(self.degree):
            powers.append(powers[-1] * x)
        return xp.stack(powers, axis=1)
