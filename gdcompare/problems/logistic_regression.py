"""Tell two classes apart by the odds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from gdcompare.problem import Dataset, Problem


@final
@dataclass(frozen=True)
class LogisticRegression(Problem):
    """The mean negative log-likelihood of labels 0 and 1 whose log-odds are linear.

        t_i = 1 - 2 y_i                            +1 for label 0, -1 for label 1
        z_i = t_i (theta_0 + x_i . theta_1)        how far sample i lies on the wrong side
        l_i = log(1 + exp(z_i))                    its loss;   L = 1/n sum l_i

    `log(1 + exp(z))` is computed as `logaddexp(0, z)`, which neither overflows nor loses small losses.

    Parameters: `theta_0`, a scalar, the intercept; `theta_1`, shape (d,).

    Source: Cox, The Regression Analysis of Binary Sequences, Journal of the Royal Statistical Society B 20(2), 1958.

    >>> import numpy as np
    >>> params = {"theta_0": np.array(0.0), "theta_1": np.array([0.0])}
    >>> losses = LogisticRegression().per_sample_losses(np, params, np.array([[1.0], [3.0]]), np.array([0.0, 1.0]))
    >>> bool(np.all(losses == np.log(2)))
    True
    """

    target_values: ClassVar[tuple[float, ...] | None] = (0.0, 1.0)

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """One intercept and one weight for each feature."""
        return {"theta_0": (), "theta_1": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = log(1 + exp(z_i))."""
        wrong_side = (1 - 2 * targets) * (params["theta_0"] + features @ params["theta_1"])  # z, (n,)
        return xp.logaddexp(xp.zeros_like(wrong_side), wrong_side)

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample, by the chain rule through z_i.

        dl_i/dz_i = 1 / (1 + exp(-z_i)) = exp(-log(1 + exp(-z_i))), which loses nothing at either end; so with
        g_i = t_i dl_i/dz_i,   dl_i/dtheta_0 = g_i   and   dl_i/dtheta_1 = g_i x_i.
        """
        _, slopes = self._losses_and_slopes(xp, params, features, targets)
        return {"theta_0": slopes, "theta_1": slopes[:, None] * features}  # (n,), (n, d)

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = 1/n sum l_i, dL/dtheta_0 = 1/n sum g_i, dL/dtheta_1 = 1/n X^T g."""
        n = features.shape[0]
        losses, slopes = self._losses_and_slopes(xp, params, features, targets)
        return xp.sum(losses) / n, {"theta_0": xp.sum(slopes) / n, "theta_1": slopes @ features / n}  # (), (), (d,)

    def hessian_vector_product(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any, direction: Mapping[str, Any]
    ) -> dict[str, Any]:
        """With dz_i = v_0 + x_i . v_1 and c_i = d2l_i/dz_i2: (H v)_0 = 1/n sum c_i dz_i, (H v)_1 = 1/n X^T (c dz).

        c_i = s (1 - s) = exp(-log(1 + exp(-z_i)) - log(1 + exp(z_i))), in which the sign t_i has gone.
        """
        n = features.shape[0]
        predictors = params["theta_0"] + features @ params["theta_1"]  # (n,)
        zeros = xp.zeros_like(predictors)
        curvatures = xp.exp(-xp.logaddexp(zeros, predictors) - xp.logaddexp(zeros, -predictors))  # c, (n,)
        changes = curvatures * (direction["theta_0"] + features @ direction["theta_1"])  # c dz, (n,)
        return {"theta_0": xp.sum(changes) / n, "theta_1": changes @ features / n}  # (), (d,)

    def _losses_and_slopes(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> tuple[Any, Any]:
        """Return l_i and g_i = dl_i/d(theta_0 + x_i . theta_1), both (n,)."""
        signs = 1 - 2 * targets  # t
        wrong_side = signs * (params["theta_0"] + features @ params["theta_1"])  # z
        zeros = xp.zeros_like(wrong_side)
        return xp.logaddexp(zeros, wrong_side), signs * xp.exp(-xp.logaddexp(zeros, -wrong_side))
