"""What an implementation is due to return, said to somebody whose function returns something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class NotDueError(TypeError):
    """An implementation returned something of another form."""


def as_due(found: Any, form: Any, due: str) -> Any:
    """Return what was found if it is of that form: a mapping, or as many values, each of its own form; None is any.

    >>> as_due((1.0, {"w": 2.0}), (None, {}), "(loss, {name: gradient})")
    (1.0, {'w': 2.0})
    >>> as_due({"w": 2.0}, (None, {}), "(loss, {name: gradient})")
    Traceback (most recent call last):
    ...
    gdcompare.referee.due.NotDueError: it returned a dict of 1, where (loss, {name: gradient}) is due
    """
    if not _is_of(found, form):
        raise NotDueError(f"it returned {said(found)}, where {due} is due")
    return found


def _is_of(found: Any, form: Any) -> bool:
    if isinstance(form, tuple):
        one_by_one = isinstance(found, tuple | list) and len(found) == len(form)
        return one_by_one and all(_is_of(each, part) for each, part in zip(found, form, strict=True))
    return form is None or isinstance(found, Mapping)


def said(value: Any) -> str:
    """Name a value by its kind and size.

    >>> said((1.0, 2.0)), said(None)
    ('a tuple of float, float', 'None')
    """
    kind = type(value).__name__
    if isinstance(value, tuple | list):
        return f"a {kind} of {', '.join(type(each).__name__ for each in value)}" if value else f"an empty {kind}"
    if hasattr(value, "shape"):
        return f"an array ({kind}) of shape {tuple(value.shape)}"
    return (
        "None"
        if value is None
        else f"a {kind} of {len(value)}"
        if isinstance(value, Sequence | Mapping)
        else f"a {kind}"
    )
