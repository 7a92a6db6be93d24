"""Rosenbrock's valley, as a finite sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset, Problem


@final
@dataclass(frozen=True)
class Rosenbrock(Problem):
    """The chained Rosenbrock function, a term for each pair of neighbours.

        p_i = x_i . (theta_1 .. theta_d)           one of the two, if x_i is a row of the identity
        q_i = x_i . (theta_2 .. theta_d+1)         its neighbour
        s_i = q_i - p_i^2                          how far beside the valley
        l_i = 100 s_i^2 + (y_i - p_i)^2            its loss;   L = 1/n sum l_i

    Features the identity and targets 1 give the classic, divided by d: its minimum is 0, where all are 1. It is a
    polynomial, so that whole numbers give exact answers.

    Parameters: `theta`, shape (d + 1,).

    Source: Rosenbrock, An Automatic Method for Finding the Greatest or Least Value of a Function, The Computer Journal
    3(3), 1960.

    >>> import numpy as np
    >>> params = {"theta": np.array([-1.0, 2.0])}
    >>> loss, gradient = Rosenbrock().value_and_gradient(np, params, np.array([[1.0]]), np.array([1.0]))
    >>> float(loss), gradient["theta"].tolist()
    (104.0, [396.0, 200.0])
    """

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """One more than there are features."""
        return {"theta": (data.features.shape[1] + 1,)}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = 100 s_i^2 + (y_i - p_i)^2."""
        del xp
        p, beside = self._valley(params, features)
        remaining = targets - p
        return 100 * beside * beside + remaining * remaining

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """One gradient per sample: dl_i/dtheta = (dl_i/dp_i x_i, 0) + (0, dl_i/dq_i x_i).

        dl_i/dq_i = 200 s_i,   dl_i/dp_i = -400 s_i p_i - 2 (y_i - p_i).
        """
        p, beside = self._valley(params, features)
        by_p = -400 * beside * p - 2 * (targets - p)  # (n,)
        by_q = 200 * beside  # (n,)
        zeros = xp.zeros_like(features[:, :1])  # (n, 1)
        here = xp.concat([by_p[:, None] * features, zeros], axis=1)  # (n, d + 1)
        return {"theta": here + xp.concat([zeros, by_q[:, None] * features], axis=1)}

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """L = 1/n (100 s.s + sum (y_i - p_i)^2), dL/dtheta = 1/n ((X^T dl/dp, 0) + (0, X^T dl/dq))."""
        n = features.shape[0]
        p, beside = self._valley(params, features)
        remaining = targets - p
        by_p = -400 * beside * p - 2 * remaining  # (n,)
        by_q = 200 * beside  # (n,)
        zero = xp.zeros_like(params["theta"][:1])  # (1,)
        gradient = xp.concat([by_p @ features, zero]) + xp.concat([zero, by_q @ features])  # (d + 1,)
        return (100 * (beside @ beside) + remaining @ remaining) / n, {"theta": gradient / n}

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """The classic start, -1.2 and 1 in turns."""
        (d,) = self.parameter_shapes(data)["theta"]
        return {"theta": np.where(np.arange(d) % 2 == 0, -1.2, 1.0)}

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """The classic in 5 dimensions: rows of the identity in turns, and targets 1; nothing is drawn."""
        del seed
        return Dataset(np.eye(4)[np.arange(samples) % 4], np.ones(samples), name="rosenbrock")

    def _valley(self, params: Mapping[str, Any], features: Any) -> tuple[Any, Any]:
        """Return p_i and s_i, both (n,)."""
        p, q = features @ params["theta"][:-1], features @ params["theta"][1:]
        return p, q - p * p
