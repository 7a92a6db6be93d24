"""Fit what grows until there is no more room, such as a population."""

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
class LogisticGrowth(LeastSquares):
    """The mean squared error of a logistic curve in one feature, the time x.

        s_i = 1 / (1 + exp(-z_i)),   z_i = r (x_i - m)                 the share of the room that is taken
        f_i = K s_i,   df_i/dK = s_i,   df_i/dr = K s_i (1 - s_i) (x_i - m),   df_i/dm = -K s_i (1 - s_i) r

    s_i is computed as exp(-log(1 + exp(-z_i))), and 1 - s_i likewise: neither overflows, and nothing is lost.

    Parameters: `capacity` K, `rate` r and `midpoint` m, scalars.

    Source: Verhulst, Notice sur la loi que la population suit dans son accroissement, Correspondance mathematique et
    physique 10, 1838.

    >>> params = {"capacity": np.array(4.0), "rate": np.array(1.0), "midpoint": np.array(3.0)}
    >>> loss, gradient = LogisticGrowth().value_and_gradient(np, params, np.array([[3.0]]), np.array([1.0]))
    >>> round(float(loss), 12), {name: round(float(each), 12) for name, each in gradient.items()}  # f = 2, r = 1
    (1.0, {'capacity': 1.0, 'rate': 0.0, 'midpoint': -2.0})
    """

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """Three scalars."""
        check_one_feature(self, data)
        return {"capacity": (), "rate": (), "midpoint": ()}

    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """f_i = K s_i."""
        z = params["rate"] * (features[:, 0] - params["midpoint"])  # (n,)
        return params["capacity"] * _logistic(xp, z)

    def jacobian(self, xp: Any, params: Mapping[str, Any], features: Any) -> dict[str, Any]:
        """df_i/dK = s_i, df_i/dr = K s_i (1 - s_i) (x_i - m), df_i/dm = -K s_i (1 - s_i) r."""
        since = features[:, 0] - params["midpoint"]  # x - m, (n,)
        shares = _logistic(xp, params["rate"] * since)  # s, (n,)
        slopes = params["capacity"] * shares * _logistic(xp, -params["rate"] * since)  # df/dz, (n,)
        return {"capacity": shares, "rate": slopes * since, "midpoint": -params["rate"] * slopes}  # each (n,)

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """The largest target, a growth as slow as the features are wide, and their median."""
        width = np.std(data.features)
        start = {
            "capacity": np.max(np.abs(data.targets)),
            "rate": 1 / width if width else 1.0,
            "midpoint": np.median(data.features),
        }
        return {name: np.array(value) for name, value in start.items()}

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Points about 2 / (1 + exp(-3 (x - 0.5)))."""
        generator = np.random.default_rng(seed)
        x = generator.uniform(-1, 2, samples)
        y = 2 / (1 + np.exp(-3 * (x - 0.5))) + 0.1 * generator.standard_normal(samples)
        return Dataset(x, y, name="noisy growth")


def _logistic(xp: Any, z: Any) -> Any:
    """Return 1 / (1 + exp(-z))."""
    return xp.exp(-xp.logaddexp(xp.zeros_like(z), -z))
