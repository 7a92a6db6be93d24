"""The structure of an error that no common mistake explains: what its elements have in common.

With E = actual - truth, x the parameter, over the indices i, j of two axes:

    E_ij = a_j                          the same along an axis: a term that was summed over it
    actual_ij = r_j truth_ij            a factor for each index of an axis
    E_ij = a_j + b_j x_ij               what goes through a mean and a variance along an axis (batch and layer norm)
    E_ij = u_i v_j                      rank one: an outer product
    E_ij = x_ij (c_i + s_i d_j)         rank two, beside the parameter or not: a sum over an axis where another belongs

Each has far fewer numbers in it than the error has elements, or it explains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

_SPARE = 3
"""So many elements more than numbers that are fitted to them."""

_CLEAR = 1000
"""The error is so many times larger than what is left of it."""

_MOST_ELEMENTS = 1_000_000


def structure_of(actual: Floats, truth: Floats, slack: Floats, parameter: Floats | None) -> str:
    """Return what the error's elements have in common, in words; empty if nothing was found.

    `slack` is what rounding may leave unexplained.

    >>> truth = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]])
    >>> structure_of(truth[:1] + np.array([0.5, 0.25, 2.0]), truth[:1], 1e-14 * truth[:1], None)  # too few to tell
    ''
    >>> structure_of(truth + np.array([0.5, 0.25, 2.0]), truth, 1e-14 * truth, None)
    'the error is the same along axis 0: a term summed over that axis is missing, or is too much'
    """
    error = actual - truth
    if error.ndim < 2 or error.size > _MOST_ELEMENTS or not np.isfinite(error).all():
        return ""
    wrong = np.abs(error) > slack
    most = np.max(slack) + 2.0**-47 * np.max(np.abs(error))  # a fit spreads the rounding of each element over all
    for model, unknowns, words in _models(error, truth, wrong, parameter):
        left = np.abs(error - model)
        if (
            _count(wrong) >= unknowns + _SPARE
            and np.max(left) <= most
            and _CLEAR * np.max(left) <= np.max(np.abs(error))
        ):
            return words
    return ""


def _models(
    error: Floats, truth: Floats, wrong: NDArray[np.bool_], parameter: Floats | None
) -> Iterator[tuple[Floats, int, str]]:
    """Yield (the error that such a structure gives, how many numbers are fitted in it, the words for it)."""
    axes = [axis for axis in range(error.ndim) if error.shape[axis] > 1]
    for axis in axes:
        same = np.broadcast_to(np.mean(error, axis=axis, keepdims=True), error.shape)
        unknowns = _count(wrong.any(axis=axis))
        yield (
            same,
            unknowns,
            f"the error is the same along axis {axis}: a term summed over that axis is missing, or is too much",
        )
    for axis in axes:
        shown = np.where(wrong, truth, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.nan_to_num(np.sum(error * shown, axis, keepdims=True) / np.sum(shown**2, axis, keepdims=True))
        yield ratio * shown, _count(wrong.any(axis=axis)), _factor_words(axis, wrong)
    if parameter is not None and parameter.shape == error.shape:
        for axis in axes:
            unknowns = 2 * _count(wrong.any(axis=axis))
            yield (
                _line_along(axis, parameter, error),
                unknowns,
                f"the error is a constant plus a multiple of the parameter along axis {axis}: the terms through a mean "
                "and a variance over that axis are missing?",
            )
    if error.ndim == 2:
        yield from _low_rank(error, np.ones(error.shape), wrong, "the error is of rank")
        if parameter is not None and parameter.shape == error.shape and parameter.all():
            yield from _low_rank(error, parameter, wrong, "the error divided by the parameter is of rank")


def _low_rank(error: Floats, x: Floats, wrong: NDArray[np.bool_], words: str) -> Iterator[tuple[Floats, int, str]]:
    """x_ij times a matrix of rank one or two; one whose rows add up to 0 has one rank less than columns anyway."""
    u, s, v = np.linalg.svd(error / x, full_matrices=False)
    touched = _count(wrong.any(axis=0)) + _count(wrong.any(axis=1))
    for rank, name in ((1, "one: an outer product is missing, or is too much"), (2, "two: a sum over the wrong axis?")):
        if len(s) > rank + 1:
            yield x * ((u[:, :rank] * s[:rank]) @ v[:rank]), rank * (touched - rank), f"{words} {name}"


def _count(where: np.bool_ | NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(where))


def _factor_words(axis: int, wrong: NDArray[np.bool_]) -> str:
    where = "" if wrong.all() else f", in {_count(wrong)} of {wrong.size} elements"
    others = ": all but one along that axis" if (np.sum(~wrong, axis=axis) == 1).all() else ""
    return f"off by a factor that is the same along axis {axis}{where}{others}"


def _line_along(axis: int, x: Floats, error: Floats) -> Floats:
    """Return the least-squares a_j + b_j x_ij along the axis."""
    mean_x, mean_e = (np.mean(each, axis=axis, keepdims=True) for each in (x, error))
    centred = x - mean_x
    spread = np.sum(centred**2, axis=axis, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.nan_to_num(np.sum(centred * error, axis=axis, keepdims=True) / spread)
    return np.asarray(mean_e + slope * centred)
