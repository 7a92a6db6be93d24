"""Gradients of parts put together in float64, and how far off the result may be."""

from __future__ import annotations

from typing import Any

import numpy as np

from gdcompare.arithmetic.rounded import RoundedNumbers
from gdcompare.referee.verdict import Floats


@np.errstate(invalid="ignore", over="ignore")
def weighted_mean(arrays: Any, counts: Floats, budget: Floats, total: float | None = None) -> tuple[Floats, Floats]:
    """Return `sum c_k a_k / total` in float64, and how far it may be off if each a_k may be off by its budget.

    The total is `sum c_k` unless it is given. What is not finite was not made so by combining it: that adds nothing.
    """
    numbers = RoundedNumbers("float64")
    total = float(np.sum(counts)) if total is None else total
    weighted = numbers.asarray(np.moveaxis(np.asarray(arrays, dtype=np.float64), 0, -1)) * numbers.asarray(counts)
    here = numbers.sum(weighted, (-1,)) / total
    actual = np.tensordot(counts, np.asarray(arrays, dtype=np.float64), axes=1) / total
    off = np.tensordot(counts, budget, axes=1) / total
    combining = np.where(np.isfinite(actual), here.error[..., 0], 0.0)
    return np.asarray(actual), np.asarray(off * (1 + (len(counts) + 4) * 2.0**-53) + combining)
