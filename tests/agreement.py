"""How far two correct results may lie apart: the one place in the tests that says so.

The allowance is `ROUNDINGS * u * size`. Here u is the unit roundoff, and `size` is what the formula would give if all
its terms were added in absolute value: a result that is small by cancellation is allowed the rounding of the large
numbers it came from, and no more. ROUNDINGS covers two programs that each round a few dozen times, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare import Dataset, Problem, load_problem
from gdcompare.backend import unit_roundoff

Array = NDArray[np.float64]

ROUNDINGS = 64


def assert_agree(
    actual: Mapping[str, NDArray[np.floating]], expected: Mapping[str, Array], sizes: Mapping[str, Array], dtype: str
) -> None:
    """Raise unless names, shapes and dtype are right, and every element is finite and within its allowance."""
    assert set(actual) == set(expected)
    for name, value in actual.items():
        assert value.dtype == dtype, f"{name} is {value.dtype}, not {dtype}"
        assert value.shape == expected[name].shape, f"{name} has shape {value.shape}, not {expected[name].shape}"
        assert np.isfinite(value).all(), f"{name} is not finite: {value}"
        allowed = ROUNDINGS * unit_roundoff(dtype) * sizes[name] + ROUNDINGS * np.finfo(dtype).tiny
        errors = np.abs(value.astype(np.float64) - expected[name])
        assert (errors <= allowed).all(), f"{name} is off by {np.max(errors / allowed)} times what rounding may do"


def assert_loss_agrees(actual: NDArray[np.floating], expected: ArrayLike, size: ArrayLike, dtype: str) -> None:
    assert_agree({"loss": actual}, {"loss": np.asarray(expected)}, {"loss": np.asarray(size)}, dtype)


def sizes_of_rows(
    problem: Problem, params: Mapping[str, Array], data: Dataset, dtype: str
) -> tuple[Array, dict[str, Array]]:
    """Return the sizes of each row's loss, (n,), and of its gradients, `{name: (n, *shape)}`."""
    u, features, targets = unit_roundoff(dtype), data.features, data.targets
    score = np.abs(params["theta_0"]) + np.abs(features) @ np.abs(params["theta_1"])
    score += np.finfo(dtype).tiny / u  # below this, rounding is absolute
    if problem == load_problem("linear-regression"):
        residual = score + np.abs(targets)
        losses, slopes = residual * residual, 2 * residual
    elif problem == load_problem("logistic-regression"):
        wrong_side = (1 - 2 * targets) * (params["theta_0"] + features @ params["theta_1"])
        # |sigma(z + e) - sigma(z)| <= |e| sigma(z + |e|), for sigma' <= sigma and sigma grows.
        sigma = np.exp(-np.logaddexp(0, -(wrong_side + ROUNDINGS * u * score)))
        losses = np.logaddexp(0, wrong_side) + sigma * score
        slopes = sigma * (1 + score) + np.finfo(dtype).tiny / u  # may be flushed to 0
    else:
        raise LookupError(f"how does rounding travel through {problem}? add it here")
    return losses, {"theta_0": slopes, "theta_1": slopes[:, None] * np.abs(features)}


def mean_over_rows(rows: Mapping[str, Array], weights: Array | None = None) -> dict[str, Array]:
    """Return the mean, `sum w_i row_i / sum w_i`, in float64."""
    return {name: np.average(each.astype(np.float64), axis=0, weights=weights) for name, each in rows.items()}


def rounded(data: Dataset, dtype: str) -> Dataset:
    """Return the data as a backend of that dtype sees them."""
    return Dataset(data.features.astype(dtype), data.targets.astype(dtype), data.name)
