"""What is known beforehand of gradient descent on a quadratic loss: where it goes, and how fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.formula_check import FormulaError, check_formula
from gdcompare.arithmetic.numbers import Floats as FloatNumbers
from gdcompare.arithmetic.tape import value_and_gradient
from gdcompare.problem import Dataset, Problem
from gdcompare.report.planes import flat

Floats = NDArray[np.float64]

_MOST = 200
"""No Hessian of more parameters is made for a picture."""

_SAME = 1e-7
"""Gradients that a quadratic predicts, and those that there are, differ by no more than this share of the largest."""


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A loss L with a constant Hessian H = sum_k lambda_k v_k v_k^T, whose gradient is H (theta - theta*).

    Gradient descent with a constant rate a multiplies the error along v_k by 1 - a lambda_k at each step:
    theta_t - theta* = (I - a H)^t (theta_0 - theta*).
    """

    optimum: Floats
    """theta*, (P,), the nearest to 0 if there are many."""
    curvatures: Floats
    """lambda_k, (K,), those above rounding."""
    directions: Floats
    """v_k, (K, P)."""

    def distances(self, points: Floats) -> Floats:
        """Return |theta - theta*|, (m,), of points (m, P), to the nearest optimum."""
        return np.asarray(np.linalg.norm((points - self.optimum) @ self.directions.T, axis=1))

    def predicted(self, start: Floats, rate: float, steps: Floats) -> Floats:
        """Return |(I - a H)^t (theta_0 - theta*)| for each of the steps t, (m,)."""
        errors = self.directions @ (start - self.optimum)  # (K,)
        with np.errstate(all="ignore"):
            logs = np.log(np.abs(1 - rate * self.curvatures)) * steps[:, None] + np.log(np.abs(errors))
            logs = np.where(steps[:, None] == 0, np.log(np.abs(errors)), logs)  # 0^0 = 1
            return np.asarray(np.sqrt(np.sum(np.exp(2 * logs), axis=1)))

    def factor(self, rate: float) -> float:
        """Return max_k |1 - a lambda_k|, by which the distance shrinks at each step in the end."""
        return float(np.max(np.abs(1 - rate * self.curvatures)))


def quadratic_of(problem: Problem, data: Dataset, start: dict[str, NDArray[np.float64]]) -> Quadratic | None:
    """Return what is known of a loss, if it is a quadratic of few parameters; else None.

    Its gradient is taken at the start, one unit away from it along each axis, and at one more point, where what these
    predict must hold.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> data = Dataset([[0.0], [2.0]], [1.0, 5.0])
    >>> found = quadratic_of(LinearRegression(), data, {"theta_0": np.array(0.0), "theta_1": np.array([0.0])})
    >>> found.optimum.round(9).tolist(), found.curvatures.round(3).tolist()
    ([1.0, 2.0], [0.764, 5.236])
    """
    origin = flat(start)
    ends = np.cumsum([value.size for value in start.values()])
    size = len(origin)
    if size > _MOST or not _on_the_tape(problem, data):
        return None

    def gradient(vector: Floats) -> Floats:
        pieces = np.split(vector, ends[:-1])
        params = {name: each.reshape(start[name].shape) for name, each in zip(start, pieces, strict=True)}
        _, found = value_and_gradient(problem, FloatNumbers(), params, data.features, data.targets, data.weights)
        return flat(found)

    with np.errstate(all="ignore"):
        here = gradient(origin)
        hessian = np.stack([gradient(origin + unit) - here for unit in np.eye(size)])
        move = np.random.default_rng(0).standard_normal(size)
        there = gradient(origin + move)
        largest = max(float(np.abs(each).max()) for each in (here, there, hessian))
        if not np.isfinite(largest) or np.abs(here + hessian @ move - there).max() > _SAME * largest:
            return None
    curvatures, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    kept = curvatures > 1e-10 * curvatures.max(initial=0.0)
    if not kept.any() or curvatures.min() < -_SAME * curvatures.max():
        return None
    directions = vectors[:, kept].T
    return Quadratic(origin - (directions @ here / curvatures[kept]) @ directions, curvatures[kept], directions)


def _on_the_tape(problem: Problem, data: Dataset) -> bool:
    """Whether our own reverse pass has the functions that the loss is made of."""
    try:
        check_formula(problem, data, by_hand=False, refereed=True)
    except FormulaError:
        return False
    return True
