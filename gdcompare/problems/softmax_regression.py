"""Tell several classes apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, final

import numpy as np

from gdcompare.problem import Dataset, Problem


@final
@dataclass(frozen=True)
class SoftmaxRegression(Problem):
    """The mean negative log-likelihood of classes whose log-odds are linear; targets (n, k) are one-hot.

        z_ij = theta_0j + x_i . theta_1j                       the score of class j for sample i
        s_i  = log sum_j exp(z_ij)
        l_i  = sum_j y_ij (s_i - z_ij)                         its loss;   L = 1/n sum l_i

    s_i is folded from `logaddexp` over the classes. That neither overflows nor loses small losses, and is smooth; the
    usual way, to subtract the largest score first, has a kink wherever two classes tie for it, as all do at zero.

    Parameters: `theta_0`, shape (k,), the intercepts; `theta_1`, shape (d, k).

    Source: Bishop, Pattern Recognition and Machine Learning, 2006, section 4.3.4.

    >>> loss, gradient = SoftmaxRegression().value_and_gradient(
    ...     np, {"theta_0": np.zeros(2), "theta_1": np.zeros((1, 2))}, np.array([[1.0], [3.0]]), np.eye(2)
    ... )
    >>> bool(np.isclose(loss, np.log(2)))  # both classes are as likely: p - y = (-1/2, 1/2), (1/2, -1/2)
    True
    >>> gradient["theta_0"].round(15).tolist(), gradient["theta_1"].round(15).tolist()
    ([0.0, 0.0], [[0.5, -0.5]])
    """

    target_values: ClassVar[tuple[float, ...] | None] = (0.0, 1.0)
    target_dimensions: ClassVar[int] = 2

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """One intercept for each class, one weight for each feature and class."""
        classes = data.targets.shape[1:]
        return {"theta_0": classes, "theta_1": data.features.shape[1:] + classes}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = sum_j y_ij (s_i - z_ij)."""
        scores, logs = self._scores(xp, params, features)
        return xp.sum(targets * (logs[:, None] - scores), axis=1)

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample, by the chain rule through z_ij.

        dl_i/dz_ij = p_ij sum_m y_im - y_ij = g_ij,   p_ij = exp(z_ij - s_i),   so that
        dl_i/dtheta_0j = g_ij   and   dl_i/dtheta_1mj = x_im g_ij.
        """
        _, slopes = self._losses_and_slopes(xp, params, features, targets)
        return {"theta_0": slopes, "theta_1": features[:, :, None] * slopes[:, None, :]}  # (n, k), (n, d, k)

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = 1/n sum l_i, dL/dtheta_0 = 1/n sum g_i, dL/dtheta_1 = 1/n X^T g."""
        n = features.shape[0]
        losses, slopes = self._losses_and_slopes(xp, params, features, targets)
        gradient = {"theta_0": xp.sum(slopes, axis=0) / n, "theta_1": features.T @ slopes / n}  # (k,), (d, k)
        return xp.sum(losses) / n, gradient

    def hessian_vector_product(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any, direction: Mapping[str, Any]
    ) -> dict[str, Any]:
        """With dz_ij = v_0j + x_i . v_1j: dg_ij = p_ij (dz_ij - sum_m p_im dz_im) sum_m y_im.

        (H v)_0 = 1/n sum dg_i and (H v)_1 = 1/n X^T dg.
        """
        n = features.shape[0]
        scores, logs = self._scores(xp, params, features)
        shares = xp.exp(scores - logs[:, None])  # p, (n, k)
        changes = direction["theta_0"] + features @ direction["theta_1"]  # dz, (n, k)
        means = xp.sum(shares * changes, axis=1)[:, None]  # (n, 1)
        slopes = shares * (changes - means) * xp.sum(targets, axis=1)[:, None]  # dg, (n, k)
        return {"theta_0": xp.sum(slopes, axis=0) / n, "theta_1": features.T @ slopes / n}  # (k,), (d, k)

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Three clouds in a plane, which overlap; the classes take turns."""
        generator = np.random.default_rng(seed)
        classes = np.arange(samples) % 3
        centres = np.array([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]])
        x = centres[classes] + 0.8 * generator.standard_normal((samples, 2))
        return Dataset(x, np.eye(3)[classes], name="three clouds")

    def _scores(self, xp: Any, params: Mapping[str, Any], features: Any) -> tuple[Any, Any]:
        """Return z (n, k) and s (n,)."""
        scores = params["theta_0"] + features @ params["theta_1"]
        return scores, reduce(xp.logaddexp, [scores[:, j] for j in range(scores.shape[1])])

    def _losses_and_slopes(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> tuple[Any, Any]:
        """Return l (n,) and g (n, k)."""
        scores, logs = self._scores(xp, params, features)
        beyond = logs[:, None] - scores  # s_i - z_ij = -log p_ij
        total = xp.sum(targets, axis=1)  # 1, if one-hot
        return xp.sum(targets * beyond, axis=1), xp.exp(-beyond) * total[:, None] - targets
