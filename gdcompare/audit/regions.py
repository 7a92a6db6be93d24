"""Where an operation is asked: ordinary points, and those at the boundary of what floats can say.

    ordinary     between -3 and 3
    zero         0 and -0
    edges        whole and half numbers, their neighbours, the first number past 2^k that overflows an exponential
    tiny         from the square root of u down to the smallest normal number
    subnormal    below that
    tails        where sigmoid, tanh, erf and their like are flat
    large        up to the largest number

Functions of several numbers are asked at combinations of these, of which equal ones are ties. Other operations are
asked at the examples that their framework gives, and at these scaled.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from gdcompare.audit.subject import Arrays

COTANGENTS = (1.0, -0.5, 2.0, 0.25, -1.0, 0.5)
"""Powers of two, so that products with them are exact, of no pattern that a sum or a shift keeps."""


def points(dtype: str) -> dict[str, list[float]]:
    """Return numbers of the dtype, by region.

    >>> points("float64")["zero"]
    [0.0, -0.0]
    """
    kind = np.finfo(dtype)
    tiny, eps, smallest = float(kind.tiny), float(kind.eps), float(kind.smallest_subnormal)
    power = float(kind.maxexp)
    wide = dtype == "float64"
    both = {
        "ordinary": [0.3, 0.7, 1.3, 2.3],
        "edges": [0.5, 1.0, 2.0, 3.0, 1.0 - eps / 2, 1.0 + eps, 6.0, float(np.pi / 2)],
        "tiny": [eps**0.5 / 8, eps, 1e-100 if wide else 1e-20, 1e-300 if wide else 1e-37, tiny],
        "subnormal": [smallest, tiny / 2**12],
        "tails": [5.5, 9.0, 20.0, 40.0, 80.0, *([300.0, 700.0] if wide else [100.0])],
        "large": [1e4, 1e8, 1e22, *([1e150, 1e300] if wide else [1e30]), float(kind.max)],
    }
    signed = {name: [sign * each for each in values for sign in (1.0, -1.0)] for name, values in both.items()}
    signed["edges"] += [power, power - 0.5, -power]
    return {"ordinary": signed.pop("ordinary"), "zero": [0.0, -0.0], **signed}


FEW = (0.0, -0.0, 0.3, -0.7, 1.0, 2.0, -3.0)
"""What combinations are made of, beside the extremes of the dtype."""


def combinations(count: int, dtype: str) -> dict[str, list[tuple[float, ...]]]:
    """Return points of a function of several numbers, by region.

    >>> combinations(2, "float64")["ties"][:2]
    [(0.0, 0.0), (0.0, -0.0)]
    """
    kind = np.finfo(dtype)
    extremes = [float(kind.tiny) * 2, float(kind.max) ** 0.5 * 2]
    regions: dict[str, list[tuple[float, ...]]] = {}
    some = FEW if count == 2 else FEW[:1] + FEW[2:6]
    for each in product([*some, *extremes], repeat=count):
        extreme = any(number in extremes for number in each)
        name = "ties" if len(set(each)) == 1 else "extremes" if extreme else "zero" if 0.0 in each else "ordinary"
        regions.setdefault(name, []).append(each)
    most = 16  # they are many: a part of each
    regions = {name: found[:: -(-len(found) // most)] for name, found in regions.items()}
    return dict(sorted(regions.items(), key=lambda item: item[0] != "ordinary"))


def elementwise_points(count: int, dtype: str) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield all points of a function of so many numbers, each with its region."""
    if count == 1:
        for name, values in points(dtype).items():
            yield from ((name, (float(np.dtype(dtype).type(each)),)) for each in values)
        return
    for name, several in combinations(count, dtype).items():
        yield from ((name, tuple(float(np.dtype(dtype).type(each)) for each in one)) for one in several)


def scaled(arguments: Arrays, dtype: str) -> Iterator[tuple[str, dict[str, NDArray[np.float64]]]]:
    """Yield an example's arguments as they are, and moved to where derivatives are in danger."""
    given = {name: np.asarray(each, dtype=dtype).astype(np.float64) for name, each in arguments.items()}
    yield "", given
    yield "zeros", {name: np.zeros(each.shape) for name, each in given.items()}
    yield "ties", {name: np.ones(each.shape) for name, each in given.items()}
    far, beyond = (300, 520) if dtype == "float64" else (40, 66)
    for name, power in {"tiny": -far, "large": far, "huge": beyond}.items():
        yield name, {key: np.ldexp(each, power) for key, each in given.items()}


def dyadic(shape: tuple[int, ...], offset: int = 0) -> NDArray[np.float64]:
    """Return powers of two of either sign.

    >>> dyadic((3,)).tolist()
    [1.0, -0.5, 2.0]
    """
    size = int(np.prod(shape, dtype=int))
    places = (np.arange(size) + np.arange(size) // len(COTANGENTS) + offset) % len(COTANGENTS)
    return np.asarray(np.array(COTANGENTS)[places].reshape(shape))


def direction_at(argument: NDArray[np.float64], offset: int = 0) -> NDArray[np.float64]:
    """Return a direction of powers of two, symmetric where a matrix is, and triangular where it is.

    What reads one triangle, and takes the other for its mirror image or for zeros, is asked for no more than it says.

    >>> direction_at(np.array([[2.0, 1.0], [1.0, 3.0]])).tolist()
    [[1.0, -0.5], [-0.5, 0.25]]
    >>> direction_at(np.array([[2.0, 0.0], [1.0, 3.0]])).tolist()
    [[1.0, 0.0], [2.0, 0.25]]
    """
    found = dyadic(np.shape(argument), offset)
    if found.ndim < 2 or found.shape[-1] != found.shape[-2]:
        return found
    turned = np.swapaxes(argument, -1, -2)
    if np.array_equal(argument, turned):
        return np.triu(found) + np.swapaxes(np.triu(found, 1), -1, -2)
    for triangle in (np.tril, np.triu):
        if np.array_equal(argument, triangle(argument)):
            return triangle(found)
    return found
