"""Fit peaks, such as the lines of a spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset
from gdcompare.problems.least_squares import LeastSquares, check_one_feature
from gdcompare.problems.settings import refuse_uncounted


@final
@dataclass(frozen=True)
class GaussianPeaks(LeastSquares):
    """The mean squared error of a sum of Gaussian peaks in one feature.

        z_ij = (x_i - c_j) / w_j,   e_ij = exp(-z_ij^2 / 2),   f_i = sum_j h_j e_ij
        df_i/dh_j = e_ij,   df_i/dc_j = h_j e_ij z_ij / w_j,   df_i/dw_j = h_j e_ij z_ij^2 / w_j

    Parameters: `heights` h, `centres` c and `widths` w, each of shape (peaks,).

    Source: NIST Statistical Reference Datasets, Gauss1 to Gauss3: two peaks, on a decay that is left out here.

    >>> params = {"heights": np.array([2.0]), "centres": np.array([0.0]), "widths": np.array([1.0])}
    >>> loss, gradient = GaussianPeaks(peaks=1).value_and_gradient(np, params, np.array([[0.0]]), np.array([1.0]))
    >>> float(loss), {name: each.tolist() for name, each in gradient.items()}  # at the top, f = 2, r = 1
    (1.0, {'heights': [2.0], 'centres': [0.0], 'widths': [0.0]})
    """

    peaks: int = 2

    def __post_init__(self) -> None:
        refuse_uncounted(self, 1, "peaks")

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """Three numbers for each peak."""
        check_one_feature(self, data)
        return dict.fromkeys(("heights", "centres", "widths"), (self.peaks,))

    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """f_i = sum_j h_j e_ij."""
        z = (features - params["centres"]) / params["widths"]  # (n, peaks)
        return xp.exp(-z * z / 2) @ params["heights"]

    def jacobian(self, xp: Any, params: Mapping[str, Any], features: Any) -> dict[str, Any]:
        """df_i/dh_j = e_ij, df_i/dc_j = h_j e_ij z_ij / w_j, df_i/dw_j = h_j e_ij z_ij^2 / w_j."""
        z = (features - params["centres"]) / params["widths"]
        peaks = xp.exp(-z * z / 2)  # e
        by_centre = params["heights"] * peaks * z / params["widths"]
        return {"heights": peaks, "centres": by_centre, "widths": by_centre * z}  # each (n, peaks)

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """Peaks as high as the largest target, spread over the features; equal ones would stay equal."""
        width = np.std(data.features)
        return {
            "heights": np.full(self.peaks, np.max(np.abs(data.targets))),
            "centres": np.quantile(data.features, (np.arange(self.peaks) + 0.5) / self.peaks),
            "widths": np.full(self.peaks, width / self.peaks if width else 1.0),
        }

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Points about one peak for each of ours, two apart; the second is half as high as the first, and so on."""
        generator = np.random.default_rng(seed)
        centres = 2 * np.arange(self.peaks) - (self.peaks - 1.0)
        x = generator.uniform(centres[0] - 1.5, centres[-1] + 1.5, samples)
        y = np.exp(-(((x[:, None] - centres) / 0.5) ** 2) / 2) @ (2.0 / np.arange(1, self.peaks + 1))
        return Dataset(x, y + 0.1 * generator.standard_normal(samples), name="noisy peaks")
