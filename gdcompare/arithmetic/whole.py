"""Conversion to whole numbers, over any number system: the fraction is cut off."""

from __future__ import annotations

from typing import Any

import numpy as np


def truncated(xp: Any, x: Any) -> Any:
    """Return x without its fraction, on the tape: constant, and where x passes a whole number, a jump.

    With k the whole number nearest to |x|, that is k if |x| >= k, else k - 1.
    """
    x = xp.asarray(x)
    if x.whole:
        return x
    near = np.rint(_middle(x.value))
    side = np.sign(near)
    edge = np.where(near == 0, -1.0, abs(near))  # none at 0
    sides, edges, k, below = (type(x)(xp, xp.numbers.asarray(each)) for each in (side, edge, near, near - side))
    result = xp.where(xp.greater_equal(sides * x, edges), k, below)
    result.whole = True
    return result


def _middle(value: Any) -> Any:
    """Return the floats in the middle of numbers of any system."""
    while hasattr(value, "value"):  # of a dual number, or one with a bound
        value = value.value
    value = getattr(value, "high", value)  # of a double word
    return np.vectorize(float, otypes=[np.float64])(value)
