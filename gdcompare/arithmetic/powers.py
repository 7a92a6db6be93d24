"""The slopes of a power by its base and by its exponent, over any number system."""

from __future__ import annotations

from typing import Any

import numpy as np

from gdcompare.arithmetic.numbers import Numbers


def power_slope(numbers: Numbers, a: Any, b: Any, constant: bool) -> Any:
    """Return d(a^b)/da = b a^(b - 1); a constant b = 0 makes it 0, whatever a is."""
    slope = b * numbers.pow(a, b - 1)
    if not constant:
        return slope
    zeros = numbers.asarray(np.zeros(slope.shape))
    return numbers.where(numbers.compare(np.equal, b, numbers.asarray(0.0), False), zeros, slope)


def exponent_slope(numbers: Numbers, a: Any, b: Any, value: Any, constant: bool) -> Any:
    """Return d(a^b)/db = a^b log(a), given value = a^b.

    Where a = 0 it is 0 for every b > 1, and for every b > 0 if a is constant; below 1, its slope by a has no bound.
    """
    slope = value * numbers.log(a)
    zero, zeros = numbers.asarray(0.0), numbers.asarray(np.zeros(slope.shape))
    above = numbers.compare(np.greater, b, zero if constant else numbers.asarray(1.0), False)
    return numbers.where(numbers.compare(np.equal, a, zero, False) * above, zeros, slope)
