"""What is known about one wrong array, and whether a hypothesis explains it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Reduction, unit_roundoff
from gdcompare.referee.in_floats import InFloats

Floats = NDArray[np.float64]

_FEW = 8
"""A hypothesis fits within this many budgets: the mistaken program rounds in its own way."""

CLEAR = 30
"""A hypothesis that fits leaves an error so many times smaller than the one that it explains."""

_ALGORITHM = 64
"""An error of at most so many roundings of what is behind an element, and sqrt(n) more, may be another algorithm's."""


@dataclass(frozen=True)
class Evidence:
    """What is known about one wrong array of one parameter, all in float64."""

    actual: Floats
    truth: Floats
    budget: Floats
    dtype: str
    n: int
    parameter: Floats | None = None
    """The parameter's value, of the shape of its gradient."""
    per_sample: Floats | None = None
    """The true per-sample gradients, (n, *shape); their mean is the truth."""
    reduction: Reduction = "mean"
    """What the truth is of."""
    weights: Floats | None = None
    """The samples' weights, (n,), if they have any."""
    unweighted: Floats | None = None
    """What the truth would be without them."""
    diagonal: bool = False
    """Whether this is the diagonal of a Hessian's block."""
    scale: float = 0.0
    """The largest of all truths beside this one, of the same derivative."""
    loss: float = math.nan
    """The true loss."""
    name: str = ""
    floats: InFloats | None = None
    """Where more can be asked for, by this name."""

    @cached_property
    def magnitude(self) -> Floats | None:
        """The mean absolute value of the per-sample gradients, if they are known."""
        if self.per_sample is not None:
            return np.asarray(np.mean(np.abs(self.per_sample), axis=0))
        return None if self.floats is None else self.floats.magnitudes.get(self.name)


def slack_of(evidence: Evidence, hypothesis: Floats) -> Floats:
    """Return how far off a program with such a mistake may be: a few budgets, and our own rounding here."""
    scale = np.maximum(1.0, np.abs(hypothesis) / np.where(evidence.truth == 0, np.inf, np.abs(evidence.truth)))
    size = np.maximum(np.abs(hypothesis), np.abs(evidence.truth))
    if evidence.magnitude is not None:
        size = np.maximum(size, math.sqrt(evidence.n) * evidence.magnitude)
    least = np.finfo(np.float64).smallest_subnormal
    return np.asarray(np.maximum(_FEW * (evidence.budget * scale + 2.0**-53 * size), least))


def fits(evidence: Evidence, hypothesis: Floats) -> bool:
    """Whether the hypothesis leaves nothing but rounding, and much less than there was without it."""
    with np.errstate(all="ignore"):
        slack = slack_of(evidence, hypothesis)
        error, left = np.abs(evidence.actual - evidence.truth), np.abs(evidence.actual - hypothesis)
        told_apart = np.abs(evidence.truth - hypothesis) > evidence.budget
        clear = CLEAR * np.max(left / slack) <= np.max(error / slack)
        if np.array_equal(hypothesis, evidence.actual):
            return bool((error > evidence.budget).any())
    return bool((left <= slack).all() and told_apart.any() and clear)


def rounding_in(evidence: Evidence) -> str:
    """Whether the error is as small as another algorithm's rounding may be, with the evidence.

    Behind an element are the per-sample gradients, of which it may be a small difference, the largest element beside
    it, and the inputs, whose last place nobody knows. An element that is 0 has the size of the others.
    """
    actual, truth, u = evidence.actual, evidence.truth, unit_roundoff(evidence.dtype)
    behind = np.full(truth.shape, np.max(np.abs(truth), initial=0.0))
    behind = np.where(truth == 0, np.maximum(behind, evidence.scale), behind)
    if evidence.magnitude is not None:
        behind = np.maximum(behind, evidence.magnitude)
    moved = None if evidence.floats is None else evidence.floats.moved.get(evidence.name)
    unit = u * behind if moved is None else np.maximum(u * behind, moved)
    wrong = np.abs(actual - truth) > evidence.budget
    times = float(np.max(np.abs(actual - truth)[wrong] / unit[wrong], initial=0.0))
    if not 0 < times <= _ALGORITHM + math.sqrt(evidence.n):
        return ""
    return (
        f"rounding-sized: another algorithm? the error is at most {times:.2g} times what one unit in the last place of "
        "the inputs, or of the terms behind the value, makes of it"
    )
