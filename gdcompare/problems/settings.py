"""What the settings of several problems must be."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def refuse_uncounted(problem: Any, least: int = 1, *names: str) -> None:
    """Raise a ValueError unless these settings of the problem are whole numbers, and no smaller than that.

    >>> from types import SimpleNamespace
    >>> refuse_uncounted(SimpleNamespace(rank=0), 1, "rank")
    Traceback (most recent call last):
    ...
    ValueError: rank must be a whole number, 1 or above, not 0
    """
    for name in names:
        value = getattr(problem, name)
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number, {least} or above, not {value!r}")
