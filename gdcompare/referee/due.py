"""What an implementation is due to return, said to somebody whose function returns something else."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.own_files import is_installed, shown_path


class NotDueError(TypeError):
    """An implementation returned something of another form."""


class ExitError(ValueError):
    """Somebody's function calls sys.exit: bad input, or Python would end as if all were well."""


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


def as_array(value: Any, dtype: str) -> NDArray[Any]:
    """Return somebody's numbers as an array: of the dtype, if they are Python's own, which have none; else of theirs.

    A float64 of the other byte order is a float64. What records its operations is read without its record.

    >>> as_array([1, 0.5], "float32").dtype, as_array(np.array([1.0], dtype=">f8"), "float64").dtype
    (dtype('float32'), dtype('float64'))
    >>> as_array(np.ma.masked_array([1.0], mask=[True]), "float64")
    Traceback (most recent call last):
    ...
    gdcompare.referee.due.NotDueError: it returned a masked array, and nobody would heed the mask: fill it
    """
    if isinstance(value, np.ma.MaskedArray):
        raise NotDueError("it returned a masked array, and nobody would heed the mask: fill it")
    value = getattr(value, "detach", lambda: value)()
    array = np.asarray(value)
    if array.dtype.kind in "if" and _is_plain(value):
        return array.astype(dtype)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_number(loss: Any, dtype: str) -> NDArray[Any]:
    """Return somebody's loss in the dtype, if it is a number."""
    array = as_array(loss, dtype)
    if array.dtype.kind not in "iuf":
        raise NotDueError(f"it returned a loss of dtype {array.dtype}, where a real number is due")
    return array.astype(dtype)


def _is_plain(value: Any) -> bool:
    """Whether these are numbers of Python, or lists of them: NumPy's float64 is a float, too, but none of these."""
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else type(value) in (int, float)


@contextmanager
def no_exit() -> Iterator[None]:
    """Make an ExitError of somebody's sys.exit, with its place."""
    try:
        yield
    except SystemExit as error:
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        place = f"{shown_path(frame.f_code.co_filename)}:{line}"
        raise ExitError(f"{place}: it calls sys.exit({error.code!r}): let it return, or raise an error") from error


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


def what_it_raised(error: BaseException) -> str:
    """Say what somebody's function raised, and where in a file of their own.

    >>> what_it_raised(KeyError("w"))
    "it raised KeyError: 'w'"
    """
    said = f"it raised {type(error).__name__}: {error}"
    own = [
        f"{Path(line.filename).name}:{line.lineno}"
        for (frame, _), line in zip(
            traceback.walk_tb(error.__traceback__), traceback.extract_tb(error.__traceback__), strict=True
        )
        if not str(frame.f_globals.get("__name__")).startswith("gdcompare") and not is_installed(line.filename)
    ]
    return f"{said} ({own[-1]})" if own else said
