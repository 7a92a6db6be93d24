"""Bounds of the distance between floats and balls in floats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic import double_word as words
from gdcompare.arithmetic.double_word import Word
from gdcompare.arithmetic.quick_balls import SLACK, QuickBalls

Floats = NDArray[np.float64]


def bounds_of_distance(x: Floats, balls: QuickBalls) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Return bounds (lower, upper) of |x - high - low| - rad, and of |x - high - low| + rad."""
    (high, low), lost = _sum_of_three(*words.two_sum(x, -balls.high), -balls.low)
    sign = np.where(high < 0, -1.0, 1.0)
    return tuple(_bounds(*_sum_of_three(sign * high, sign * low, rad), lost) for rad in (-balls.rad, balls.rad))  # type: ignore[return-value]


def _sum_of_three(high: Any, low: Any, other: Any) -> tuple[Word, Any]:
    """Return a word plus a number as a word, and by how much it is off."""
    middle, least = words.two_sum(low, other)
    high, middle = words.two_sum(high, middle)
    rest, lost = words.two_sum(middle, least)
    return words.two_sum(high, rest), np.abs(lost)


def _bounds(x: Word, lost: Any, lost_before: Any) -> tuple[Floats, Floats]:
    """Return floats below and above all numbers that near a word."""
    (high, low), room = x, (lost + lost_before) * SLACK
    down, up = (np.nextafter(high + side * room, side * np.inf) for side in (-1.0, 1.0))
    return np.where(low >= room, high, down), np.where(low <= -room, high, up)
