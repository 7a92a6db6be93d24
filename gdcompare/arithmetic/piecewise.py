"""Array functions that are constant between jumps, or whose derivative is: roundings, remainders, signs.

Each is made of comparisons, which note where a number that depends on a parameter jumps; beside its jumps the
derivative of a rounding is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gdcompare.arithmetic.quick_balls import UndecidedError
from gdcompare.arithmetic.whole import as_condition, known_whole, middle, on_tape, truncated


def trunc(xp: Any, x: Any) -> Any:
    """Without its fraction."""
    return truncated(xp, x)


def floor(xp: Any, x: Any) -> Any:
    """The largest whole number that is not above x."""
    x = xp.asarray(x)
    if x.whole:
        return x
    near = np.rint(middle(x.value))
    edge, below = (on_tape(xp, x, each) for each in (near, near - 1))
    return _whole(xp.where(xp.greater_equal(x, edge), edge, below))


def ceil(xp: Any, x: Any) -> Any:
    """The smallest whole number that is not below x."""
    return -floor(xp, -xp.asarray(x))


def round(xp: Any, x: Any) -> Any:  # noqa: A001 - the standard's name
    """The nearest whole number, the even one of two."""
    x = xp.asarray(x)
    if x.whole:
        return x
    below = np.floor(middle(x.value))
    even = below + below % 2
    half, low, high, even = (on_tape(xp, x, each) for each in (below + 0.5, below, below + 1, even))
    return _whole(xp.where(xp.less(x, half), low, xp.where(xp.greater(x, half), high, even)))


def floor_divide(xp: Any, a: Any, b: Any) -> Any:
    """The largest whole number that is not above a / b."""
    a, b = xp.asarray(a), xp.asarray(b)
    (above, known), (below, sure) = known_whole(a.value), known_whole(b.value)
    if a.tracked or b.tracked or not (known.all() and sure.all() and below.all()):
        return floor(xp, a / b)
    a, b = xp.aligned(a, b)
    (above, _), (below, _) = known_whole(a.value), known_whole(b.value)
    return _whole(on_tape(xp, a, (above // below).astype(np.float64)))


def remainder(xp: Any, a: Any, b: Any) -> Any:
    """a - b floor(a / b), which has the sign of b."""
    return xp.asarray(a) - xp.floor_divide(a, b) * b


def fmod(xp: Any, a: Any, b: Any) -> Any:
    """a - b trunc(a / b), which has the sign of a."""
    a = xp.asarray(a)
    return a - truncated(xp, a / b) * b


def signbit(xp: Any, x: Any) -> Any:
    """1 for numbers below 0. There is one 0 here, and no sign to it."""
    return xp.less(x, 0.0)


def copysign(xp: Any, a: Any, b: Any) -> Any:
    """|a| with the sign of b."""
    return xp.abs(a) * (1 - 2 * xp.signbit(b))


def isfinite(xp: Any, x: Any) -> Any:
    """1 for numbers, 0 for infinities and what is no number."""
    return _of_middles(xp, x, np.isfinite)


def isinf(xp: Any, x: Any) -> Any:
    """1 for infinities."""
    return _of_middles(xp, x, np.isinf)


def isnan(xp: Any, x: Any) -> Any:
    """1 for what is no number."""
    return _of_middles(xp, x, np.isnan)


def _of_middles(xp: Any, x: Any, is_so: Any) -> Any:
    """Return the condition where numbers are known, and nothing of those that nobody knows."""
    x = xp.asarray(x)
    value, floats = x.value, middle(x.value)
    while not hasattr(value, "spread") and hasattr(value, "value"):  # of a dual number
        value = value.value
    if np.isinf(getattr(value, "rad", 0.0)).any():
        raise UndecidedError
    unknown = np.isinf(getattr(value, "spread", 0.0)) & np.isfinite(floats) | (np.isnan(floats) & x.tracked)
    return as_condition(on_tape(xp, x, np.where(unknown, np.nan, is_so(floats))))


def _whole(x: Any) -> Any:
    x.whole = True
    return x
