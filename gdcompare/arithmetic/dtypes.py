"""What the standard says of dtypes. On the tape a number is a number: of the dtype that is judged it knows nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

NUMBERS, WHOLE, CONDITION = "real", "whole", "condition"
KINDS = {
    NUMBERS: ("real floating", "numeric"),
    WHOLE: ("integral", "signed integer", "numeric"),
    CONDITION: ("bool",),
}


class Kind(str):
    """What the tape knows of a dtype, and the dtype's own name."""

    __slots__ = ("name",)

    name: str

    def __new__(cls, kind: str, name: str) -> Kind:
        """Keep both."""
        made = super().__new__(cls, kind)
        made.name = name
        return made


def finfo(xp: Any, dtype: Any) -> Any:
    """The limits of a float dtype that is named, like `xp.float32`."""
    del xp
    return np.finfo(_named(dtype, "xp.finfo"))


def iinfo(xp: Any, dtype: Any) -> Any:
    """The limits of an integer dtype that is named, like `xp.int32`."""
    del xp
    return np.iinfo(_named(dtype, "xp.iinfo"))


def isdtype(xp: Any, dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind, like "real floating", or one of several."""
    del xp
    if isinstance(kind, tuple):
        return any(isdtype(None, dtype, each) for each in kind)
    own = _kind(dtype)
    if kind in ("unsigned integer", "signed integer") and own == WHOLE:
        return bool(_named(dtype, "xp.isdtype").kind == kind[0])
    of_kind: bool = kind in KINDS[own] or (kind not in sum(KINDS.values(), ()) and _kind(kind) == own)
    return of_kind


def result_type(xp: Any, *arrays_and_dtypes: Any) -> str:
    """What arrays and dtypes together make: numbers if one of them is, else whole numbers, else conditions."""
    kinds = {
        (CONDITION if each.condition else WHOLE if each.whole else NUMBERS) if hasattr(each, "tape") else _kind(each)
        for each in arrays_and_dtypes
    }
    del xp
    return next(each for each in (NUMBERS, WHOLE, CONDITION) if each in kinds)


def _kind(dtype: Any) -> str:
    if isinstance(dtype, str) and dtype in KINDS:
        return str(dtype)
    number = np.asarray(dtype).dtype if isinstance(dtype, bool | int | float) else np.dtype(dtype)
    return {"b": CONDITION, "i": WHOLE, "u": WHOLE}.get(number.kind, NUMBERS)


def _named(dtype: Any, function: str) -> np.dtype[Any]:
    if isinstance(dtype, Kind):
        return np.dtype(dtype.name)
    if isinstance(dtype, str) and dtype in KINDS:
        raise TypeError(
            f"{function} of an array's own dtype is another number for each dtype that is judged: name the dtype, like "
            "xp.float32, or write the number itself"
        )
    named: np.dtype[Any] = np.dtype(dtype)
    return named
