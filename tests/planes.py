"""A problem that the library has not: matrices for parameters and targets, and names out of alphabetical order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from gdcompare import Dataset, Problem


@final
@dataclass(frozen=True)
class Planes(Problem):
    """k planes at once by least squares: R = X slopes + intercepts - Y, and l_i = sum_j R_ij^2."""

    target_dimensions: ClassVar[int] = 2

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        k = data.targets.shape[1]
        return {"slopes": (data.features.shape[1], k), "intercepts": (k,)}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        residuals = features @ params["slopes"] + params["intercepts"] - targets  # R, (n, k)
        return xp.sum(residuals * residuals, axis=1)

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        residuals = features @ params["slopes"] + params["intercepts"] - targets  # R, (n, k)
        return {"slopes": 2 * features[:, :, None] * residuals[:, None, :], "intercepts": 2 * residuals}

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        n = features.shape[0]
        residuals = features @ params["slopes"] + params["intercepts"] - targets  # R, (n, k)
        gradient = {"slopes": features.T @ residuals * (2 / n), "intercepts": xp.sum(residuals, axis=0) * (2 / n)}
        return xp.sum(residuals * residuals) / n, gradient


def three_planes() -> tuple[Dataset, dict[str, Any]]:
    """Whole numbers, so that every sum is exact; 8 rows, 2 features, 3 planes."""
    generator = np.random.default_rng(5)
    data = Dataset(generator.integers(-4, 5, (8, 2)), generator.integers(-4, 5, (8, 3)))
    return data, {"slopes": [[1.0, 2.0, -1.0], [0.0, 1.0, 3.0]], "intercepts": [2.0, -2.0, 1.0]}
