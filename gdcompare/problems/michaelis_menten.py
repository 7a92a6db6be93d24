"""Fit what saturates, such as the speed of a reaction that an enzyme helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset
from gdcompare.problems.least_squares import LeastSquares, check_one_feature


@final
@dataclass(frozen=True)
class MichaelisMenten(LeastSquares):
    """The mean squared error of a speed that saturates with the concentration x, one feature.

        s_i = x_i / (K + x_i)                      the share of the enzyme that is at work
        f_i = V s_i,   df_i/dV = s_i,   df_i/dK = -V x_i / (K + x_i)^2

    At x = K the speed is half of V. It has a pole at x = -K, which no concentration reaches while K is above 0.

    Parameters: `limit` V and `half` K, scalars.

    Source: Michaelis and Menten, Die Kinetik der Invertinwirkung, Biochemische Zeitschrift 49, 1913.

    >>> loss, gradient = MichaelisMenten().value_and_gradient(
    ...     np, {"limit": np.array(2.0), "half": np.array(1.0)}, np.array([[1.0]]), np.array([0.0])
    ... )
    >>> float(loss), float(gradient["limit"]), float(gradient["half"])  # s = 1/2, f = r = 1
    (1.0, 1.0, -1.0)
    """

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """Two scalars."""
        check_one_feature(self, data)
        return {"limit": (), "half": ()}

    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """f_i = V x_i / (K + x_i)."""
        del xp
        x = features[:, 0]
        return params["limit"] * (x / (params["half"] + x))

    def jacobian(self, xp: Any, params: Mapping[str, Any], features: Any) -> dict[str, Any]:
        """df_i/dV = x_i / (K + x_i), df_i/dK = -V x_i / (K + x_i)^2."""
        del xp
        x = features[:, 0]
        shares = x / (params["half"] + x)  # s
        return {"limit": shares, "half": -params["limit"] * shares / (params["half"] + x)}  # (n,), (n,)

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """The largest target, and the median feature."""
        half = np.median(np.abs(data.features))
        return {"limit": np.array(np.max(np.abs(data.targets))), "half": np.array(half if half else 1.0)}

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Points about 2 x / (0.5 + x)."""
        generator = np.random.default_rng(seed)
        x = generator.uniform(0.05, 2, samples)
        return Dataset(x, 2 * x / (0.5 + x) + 0.1 * generator.standard_normal(samples), name="noisy saturation")
