"""The array functions of the tape by name: those of the rooms beside it, relations, and constants."""

from __future__ import annotations

import inspect
import math

import numpy as np

from gdcompare.arithmetic import (
    convolution,
    derived,
    dtypes,
    factorisations,
    linear_algebra,
    linear_systems,
    moves,
    orders,
    piecewise,
    reductions,
    running,
    spectra,
)

RELATIONS = {
    each.__name__: each for each in (np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal)
}
ROOMS = {
    "Made of others": derived,
    "Moves of arrays": moves,
    "Along axes": reductions,
    "Running totals": running,
    "Roundings, remainders, signs": piecewise,
    "Vectors and matrices": linear_algebra,
    "Systems of equations": linear_systems,
    "Factors of matrices": factorisations,
    "Eigenvalues and singular values": spectra,
    "Special functions of an order": orders,
    "Convolution and pooling": convolution,
    "Dtypes": dtypes,
}
"""The rooms, by what is in them."""
FUNCTIONS = {
    name: function
    for room in ROOMS.values()
    for name, function in vars(room).items()
    if inspect.isfunction(function) and function.__module__ == room.__name__ and not name.startswith("_")
}
INNER = {
    "index",
    "gather",
    "conditions",
    "normalized",
    "straight_through",
    "order_of_exchanges",
    "trigamma",
    "tetragamma",
}
"""What these do is written otherwise."""
CONSTANTS = (
    {"newaxis": None, "pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan}
    | {"bool": dtypes.CONDITION}
    | {name: dtypes.Kind(dtypes.NUMBERS, name) for name in ("float32", "float64")}
    | {
        name: dtypes.Kind(dtypes.WHOLE, name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    }
)
