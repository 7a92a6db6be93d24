"""Fit a mixture of Gaussians with full covariances."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset, Problem
from gdcompare.problems.settings import refuse_uncounted


@final
@dataclass(frozen=True)
class GaussianMixture(Problem):
    """The mean negative log-likelihood of a mixture of k Gaussians; targets are not used.

        Q_c                                        lower triangular, (d, d); component c has the precision Q_c^T Q_c
        z_ic = Q_c (x_i - mu_c)                    sample i as component c sees it
        s_ic = a_c + log det Q_c - |z_ic|^2 / 2    its score
        l_i = log sum_c e^a_c - log sum_c e^s_ic + d/2 log(2 pi)        its loss;   L = 1/n sum l_i

    The diagonal of Q_c is exp(D_c), so that log det Q_c = sum_j D_cj. Logarithms of sums are folds of `logaddexp`,
    which neither overflow nor lose small terms.

    Parameters: `logits`, a, shape (k,); `means`, mu, shape (k, d); `log_diagonals`, D, shape (k, d); if d > 1,
    `lowers`, shape (k, d (d - 1) / 2), the entries of Q_c below its diagonal, row after row.

    Source: Srajer, Kukelova and Fitzgibbon, A Benchmark of Selected Algorithmic Differentiation Tools on Some Problems
    in Computer Vision and Machine Learning, Optimization Methods and Software 33, 2018: their GMM, without its prior.

    >>> import numpy as np
    >>> params = {"logits": np.zeros(1), "means": np.ones((1, 1)), "log_diagonals": np.zeros((1, 1))}
    >>> loss, gradient = GaussianMixture(components=1).value_and_gradient(np, params, np.array([[3.0]]), np.zeros(1))
    >>> round(float(loss - np.log(2 * np.pi) / 2), 15), gradient["means"].tolist(), gradient["log_diagonals"].tolist()
    (2.0, [[-2.0]], [[3.0]])
    """

    components: int = 2

    def __post_init__(self) -> None:
        """Refuse settings that count nothing."""
        refuse_uncounted(self, 1, "components")

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """For each component a logit, a mean, and a triangle."""
        k, d = self.components, data.features.shape[1]
        shapes = {"logits": (k,), "means": (k, d), "log_diagonals": (k, d), "lowers": (k, d * (d - 1) // 2)}
        return shapes if d > 1 else {name: shape for name, shape in shapes.items() if name != "lowers"}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = log sum_c e^a_c - log sum_c e^s_ic + d/2 log(2 pi)."""
        del targets
        scores = [self._seen(xp, params, features, c)[2] for c in range(self.components)]
        return self._losses(xp, params, features, scores)

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample, by the chain rule through s_ic.

        dl_i/ds_ic = -w_ic, where w_ic = exp(s_ic - log sum_c e^s_ic) is the share of component c in sample i; so
        dl_i/da_c = exp(a_c - log sum_c e^a_c) - w_ic, and with x = x_i - mu_c and z = z_ic

            dl_i/dQ_c = w_ic z x^T,   dl_i/dD_cj = w_ic (z_j exp(D_cj) x_j - 1),   dl_i/dmu_c = -w_ic Q_c^T z.
        """
        del targets
        return self._losses_and_gradients(xp, params, features)[1]

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The means over the samples."""
        del targets
        losses, gradients = self._losses_and_gradients(xp, params, features)
        return xp.mean(losses), {name: xp.mean(each, axis=0) for name, each in gradients.items()}

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """Means at rows of the data, seed 0; the covariances those of the features, without their correlations."""
        generator = np.random.default_rng(0)
        deviations = np.std(data.features, axis=0)
        start = {name: np.zeros(shape) for name, shape in self.parameter_shapes(data).items()}
        start["means"] += generator.choice(data.features, self.components, replace=len(data) < self.components)
        start["log_diagonals"] -= np.log(np.where(deviations > 0, deviations, 1.0))
        return start

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Points in the plane around as many centres, drawn twice as far apart as the points of each."""
        generator = np.random.default_rng(seed)
        centres = 2 * generator.standard_normal((self.components, 2))
        points = centres[np.arange(samples) % self.components] + generator.standard_normal((samples, 2))
        return Dataset(points, np.zeros(samples), name=f"{self.components} clusters")

    def _seen(self, xp: Any, params: Mapping[str, Any], features: Any, c: int) -> tuple[Any, list[Any], Any]:
        """Return x_i - mu_c, (n, d), and z_ic, d columns (n,), and s_ic, (n,)."""
        centred = features - params["means"][c]
        columns = []
        for j in range(features.shape[1]):
            column = xp.exp(params["log_diagonals"][c, j]) * centred[:, j]
            columns.append(column + centred[:, :j] @ self._row(params, c, j) if j else column)
        height = params["logits"][c] + xp.sum(params["log_diagonals"][c])
        return centred, columns, height - 0.5 * sum(z * z for z in columns)

    def _row(self, params: Mapping[str, Any], c: int, j: int) -> Any:
        """Return the entries of row j of Q_c left of its diagonal, (j,)."""
        return params["lowers"][c, j * (j - 1) // 2 : j * (j + 1) // 2]

    def _losses(self, xp: Any, params: Mapping[str, Any], features: Any, scores: list[Any]) -> Any:
        """Return l_i, (n,)."""
        logits = [params["logits"][c] for c in range(self.components)]
        constant = 0.5 * features.shape[1] * math.log(2 * math.pi)
        return reduce(xp.logaddexp, logits) - reduce(xp.logaddexp, scores) + constant

    def _losses_and_gradients(self, xp: Any, params: Mapping[str, Any], features: Any) -> tuple[Any, dict[str, Any]]:
        """Return l_i, (n,), and its gradients, `{name: (n, *shape)}`."""
        seen = [self._seen(xp, params, features, c) for c in range(self.components)]
        losses = self._losses(xp, params, features, [score for _, _, score in seen])
        all_scores = reduce(xp.logaddexp, [score for _, _, score in seen])  # (n,)
        all_logits = reduce(xp.logaddexp, [params["logits"][c] for c in range(self.components)])  # ()
        rows: dict[str, list[Any]] = {name: [] for name in params}
        for c, (centred, z, score) in enumerate(seen):
            share = xp.exp(score - all_scores)  # w, (n,)
            diagonal = xp.exp(params["log_diagonals"][c])  # (d,)
            d = len(z)
            turned = [diagonal[j] * z[j] for j in range(d)]  # becomes Q^T z
            for j in range(1, d):
                row = self._row(params, c, j)
                for i in range(j):
                    turned[i] = turned[i] + row[i] * z[j]
            rows["logits"].append(xp.exp(params["logits"][c] - all_logits) - share)
            rows["means"].append(xp.stack([-share * each for each in turned], axis=1))
            on_diagonal = [share * (z[j] * diagonal[j] * centred[:, j] - 1) for j in range(d)]
            rows["log_diagonals"].append(xp.stack(on_diagonal, axis=1))
            if d > 1:
                below = [(share * z[j])[:, None] * centred[:, :j] for j in range(1, d)]
                rows["lowers"].append(xp.concat(below, axis=1))
        return losses, {name: xp.stack(each, axis=1) for name, each in rows.items()}
