"""Fit a line, or a plane, by least squares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from gdcompare.problem import Dataset, Problem


@final
@dataclass(frozen=True)
class LinearRegression(Problem):
    """The mean squared error of a linear prediction, without a 1/2.

        r_i = theta_0 + x_i . theta_1 - y_i        the residual of sample i
        l_i = r_i^2                                its loss;   L = 1/n sum l_i

    Parameters: `theta_0`, a scalar, the intercept; `theta_1`, shape (d,), the slopes.

    Source: Legendre, Nouvelles methodes pour la determination des orbites des cometes, 1805, appendix.

    >>> import numpy as np
    >>> loss, gradient = LinearRegression().value_and_gradient(
    ...     np, {"theta_0": np.array(1.0), "theta_1": np.array([0.0])}, np.array([[1.0], [3.0]]), np.array([2.0, 4.0])
    ... )
    >>> float(loss), float(gradient["theta_0"]), gradient["theta_1"].tolist()
    (5.0, -4.0, [-10.0])
    """

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """One intercept and one slope for each feature."""
        return {"theta_0": (), "theta_1": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = r_i^2."""
        del xp
        residuals = params["theta_0"] + features @ params["theta_1"] - targets  # (n,)
        return residuals * residuals

    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """f_i = theta_0 + x_i . theta_1."""
        del xp
        return params["theta_0"] + features @ params["theta_1"]

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample: dl_i/dtheta_0 = 2 r_i, dl_i/dtheta_1 = 2 r_i x_i."""
        del xp
        slopes = 2 * (params["theta_0"] + features @ params["theta_1"] - targets)  # 2 r, (n,)
        return {"theta_0": slopes, "theta_1": slopes[:, None] * features}  # (n,), (n, d)

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = r.r / n, dL/dtheta_0 = 2/n sum r_i, dL/dtheta_1 = 2/n X^T r."""
        n = features.shape[0]
        residuals = params["theta_0"] + features @ params["theta_1"] - targets  # (n,)
        gradient = {"theta_0": xp.sum(residuals) * (2 / n), "theta_1": residuals @ features * (2 / n)}  # (), (d,)
        return residuals @ residuals / n, gradient

    def hessian_vector_product(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any, direction: Mapping[str, Any]
    ) -> dict[str, Any]:
        """H = 2/n [1 X]^T [1 X], so with dr = v_0 + X v_1: (H v)_0 = 2/n sum dr_i, (H v)_1 = 2/n X^T dr."""
        n = features.shape[0]
        changes = direction["theta_0"] + features @ direction["theta_1"]  # dr, (n,)
        return {"theta_0": xp.sum(changes) * (2 / n), "theta_1": changes @ features * (2 / n)}  # (), (d,)
