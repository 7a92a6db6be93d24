"""Whole numbers, over any number system: what is known of them, and the conversion that cuts a fraction off."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def known_whole(value: Any) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the whole numbers in the middle of numbers of any system, and where nothing else is possible.

    >>> from gdcompare.arithmetic.balls import as_balls
    >>> known_whole(as_balls([2.0, 0.5]))
    (array([2, 0]), array([ True, False]))
    """
    floats = middle(value)
    near = np.rint(np.where(np.isfinite(floats), floats, 0.0))
    return near.astype(np.intp), (near == floats) & _is_exact(value)


def exact_floats(value: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the floats in the middle of numbers of any system, and where nothing else is possible.

    >>> from gdcompare.arithmetic.balls import as_balls
    >>> exact_floats(as_balls([2.5]))
    (array([2.5]), array([ True]))
    """
    return middle(value), np.asarray(_is_exact(value))


def here(x: Any) -> NDArray[Any]:
    """Return the numbers that stand on a draft where its program is read, or numbers as they are."""
    return np.asarray(x.value if hasattr(x, "known") else x)


def as_read(draft: Any, x: Any) -> Any:
    """Return whole numbers or conditions of a draft as they are here; its steps count on their being so from there on.

    >>> from gdcompare.arithmetic.program import Draft
    >>> draft = Draft()
    >>> as_read(draft, draft.input("labels", np.array([2, 0]), "int64"))
    array([2, 0])
    """
    if not hasattr(x, "known"):
        return x
    found = here(x).astype(x.dtype if np.dtype(x.dtype).kind in "biu" else np.int64)
    if found.size:
        draft.decide(
            *((x, found) if found.dtype == bool else (draft.equal(x, found), np.ones(found.shape, dtype=bool)))
        )
    return found


def on_tape(xp: Any, like: Any, array: Any) -> Any:
    """Return floats, which have the hidden axis already, as a variable like another."""
    return type(like)(xp, xp.numbers.asarray(array))


def changing_as(value: Any, *others: Any) -> Any:
    """Return a value of which numbers that know how they change think that it changes as the sum of the others does.

    >>> changing_as(2.0)
    2.0
    """
    return value.changing_as(*others) if hasattr(value, "tangent") else value


def as_condition(x: Any) -> Any:
    """Note that a variable is 1 or 0."""
    x.whole = x.condition = True
    return x


def truncated(xp: Any, x: Any) -> Any:
    """Return x without its fraction, on the tape: constant, and where x passes a whole number, a jump.

    With k the whole number nearest to |x|, that is k if |x| >= k, else k - 1.
    """
    x = xp.asarray(x)
    if x.whole:
        return x
    near = np.rint(middle(x.value))
    side = np.sign(near)
    edge = np.where(near == 0, -1.0, abs(near))  # none at 0
    sides, edges, k, below = (on_tape(xp, x, each) for each in (side, edge, near, near - side))
    result = xp.where(xp.greater_equal(sides * x, edges), k, below)
    result.whole = True
    return result


def middle(value: Any) -> Any:
    """Return the floats in the middle of numbers of any system."""
    while hasattr(value, "value"):  # of a dual number, or one with a bound
        value = value.value
    value = np.asarray(getattr(value, "high", value))  # of a double word
    if value.dtype != object:
        return np.array(value, dtype=np.float64)
    return np.vectorize(float, otypes=[np.float64])(value)


def _is_exact(value: Any) -> Any:
    """Say which numbers are known: without a radius, spread, error or low word."""
    while not hasattr(value, "error") and hasattr(value, "value"):  # a dual number, or draws
        value = value.value
    if hasattr(value, "error"):
        return value.exact
    if hasattr(value, "rad") and not callable(value.rad):
        return (value.rad == 0) & (value.low == 0)
    if value.dtype == object:
        return np.vectorize(lambda each: not hasattr(each, "is_exact") or each.is_exact(), otypes=[bool])(value)
    return np.ones(value.shape, dtype=bool)
