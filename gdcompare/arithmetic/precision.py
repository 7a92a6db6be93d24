"""The float formats that operations of a program may round to: their unit roundoff, smallest and largest numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Limits(NamedTuple):
    """Of one float format."""

    u: float
    """Half the distance from 1 to the next number."""
    tiny: float
    """Of what is smaller nothing may be left: the smallest normal number, or the smallest where hardware keeps it."""
    normal: float
    """The smallest normal number."""
    largest: float
    digits: int
    """How many bits a number has."""


NARROW = {
    "float16": Limits(2.0**-11, 2.0**-24, 2.0**-14, 65504.0, 11),
    "bfloat16": Limits(2.0**-8, 2.0**-126, 2.0**-126, float.fromhex("0x1.fep127"), 8),
    "tensorfloat32": Limits(2.0**-11, 2.0**-126, 2.0**-126, float.fromhex("0x1.ffcp127"), 11),
}
"""Those narrower than float32, in which no verdict is asked for, and single operations of a program may be."""
OF_FACTORS = "tensorfloat32"
"""A format that no array is in: a product rounds its factors to it, also on the way back, and is itself in float32."""


def judged_in_float32(dtype: str) -> str:
    """Say what to do about an operation that rounds to less than float64; "" if float32 is too much for it, too.

    >>> judged_in_float32("bfloat16"), judged_in_float32("float8_e5m2")
    ("Judge it in float32 (dtype='float32', --dtype float32), or take the cast away", '')
    """
    known = dtype in (*NARROW, "float32")
    return "Judge it in float32 (dtype='float32', --dtype float32), or take the cast away" if known else ""


def rounded_to(values: ArrayLike, dtype: str) -> NDArray[np.float64]:
    """Return numbers rounded to one of `NARROW`, to nearest, ties to even; infinite beyond the largest.

    >>> rounded_to([1.0, 1 + 2**-8, 0.1, 1e39, 70000.0], "bfloat16").tolist()
    [1.0, 1.0, 0.10009765625, inf, 70144.0]
    >>> rounded_to([70000.0, 1e-8], "float16").tolist()
    [inf, 0.0]
    """
    array, limits = np.asarray(values, dtype=np.float64), NARROW[dtype]
    finite = np.where(np.isfinite(array), array, 0.0)
    _, exponent = np.frexp(finite)
    _, least = np.frexp(limits.normal)
    last = np.maximum(exponent, least) - limits.digits  # the exponent of the last place
    near = np.ldexp(np.rint(np.ldexp(finite, -last)), last)
    near = np.where(np.abs(near) > limits.largest, np.copysign(np.inf, near), near)
    return np.asarray(np.where(np.isfinite(array), near, array))
