"""Products of matrices of balls in floats: triples (high, low, rad), the exact numbers in high + low ± rad.

Rows of the left factor and columns of the right are scaled to below 1, and cut into slices of b bits. The p-th is a
multiple of 2^-(p (b + 1) + b), and no larger than 2^-p (b + 1). With k terms and k 2^2b <= 2^51, the product of two
slices is exact in whatever order it is added up, with or without fused multiply-add: so BLAS may do it. Source: Ozaki,
Ogita, Oishi and Rump, Error-free transformations of matrix multiplication by using fast routines of matrix
multiplication and its applications, Numerical Algorithms 59, 2012.

Products of slices with p + q >= s are left out, and what remains of a factor after s slices: for each term that is not
0, (s - 1) 2^-s (b + 1) of the first, and twice that without the factor of the second, (s + 3) 2^-s (b + 1) in all. The
others are added up with the smallest first, and are off by less than 2^-104 for each term.

Radii are `|x| rad_y + rad_x |y| + rad_x rad_y`, without their slack.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, TypeAlias

import numpy as np

from gdcompare.arithmetic import double_word as words
from gdcompare.arithmetic.numbers import vanishes

Triple: TypeAlias = tuple[Any, Any, Any]

TERMS, NUMBERS = 1024, 2**16
"""So many terms, and so many numbers in each factor, at a time: they stay in the cache, and memory flat."""

BITS = 100
"""What the slices hold at least."""


def product_of_matrices(x: Triple, y: Triple) -> Triple:
    """Return x y for (..., m, k) and (..., k, n)."""
    (*_, m, k), n = x[0].shape, y[0].shape[-1]
    if not x[0].size * y[0].size:
        zeros = np.matmul(x[0], y[0])
        return zeros, zeros, zeros
    if k > TERMS:
        total: Triple | None = None
        for start in range(0, k, TERMS):
            cut = slice(start, start + TERMS)
            part = product_of_matrices(_each(x, (..., cut)), _each(y, (..., cut, slice(None))))
            total = part if total is None else _added(total, part)
        assert total is not None
        return total
    step = NUMBERS // k
    if m > step:
        cuts = [slice(start, start + step) for start in range(0, m, step)]
        return _joined([product_of_matrices(_each(x, (..., cut, slice(None))), y) for cut in cuts], -2)
    if n > step:
        cuts = [slice(start, start + step) for start in range(0, n, step)]
        return _joined([product_of_matrices(x, _each(y, (..., cut))) for cut in cuts], -1)
    return _by_slices(x, y)


def _by_slices(x: Triple, y: Triple) -> Triple:
    k = x[0].shape[-1]
    bits = (51 - math.ceil(math.log2(k))) // 2
    most = math.ceil(BITS / (bits + 1))
    left, all_left, up = _slices(x, -1, bits, most)
    right, all_right, down = _slices(y, -2, bits, most)
    high, low, pairs = _sum_of_products(left, right, most)
    complete = all_left and all_right and pairs == len(left) * len(right)
    left_out = 0.0 if complete else (most + 3) * 2.0 ** -(most * (bits + 1))
    share = left_out + (2.0**-104 if pairs > 1 else 0.0)
    terms = np.broadcast_to(_terms(x[0], y[0]), high.shape)
    high, low, rounded = (np.ldexp(part, up + down) for part in (high, low, terms * share))
    exact = (share == 0) & (np.abs(high) > 2.0**-900) & vanishes(x[2]) & vanishes(y[2])
    return high, low, rounded + np.where((terms == 0) | exact, 0.0, words.UNDERFLOW) + _carried(x, y)


def _slices(x: Triple, axis: int, bits: int, most: int) -> tuple[list[Any], bool, Any]:
    """Return the slices, whether they are all of x, and the exponents by which x was scaled along the axis."""
    sizes = np.abs(x[0])
    _, exponents = np.frexp(np.max(sizes, axis=axis, keepdims=True))
    exponents = np.maximum(exponents, -1000)
    scale = np.ldexp(1.0, -exponents)
    high, low = x[0] * scale, None if vanishes(x[1]) else x[1] * scale
    complete = low is None
    if np.ldexp(np.min(sizes), -np.max(exponents)) < 2.0**-960:  # some may underflow
        complete = complete and not ((np.abs(high) < 2.0**-960) & (sizes != 0)).any()
    slices = []
    for p in range(most):
        shift = 1.5 * 2.0 ** (52 - bits - p * (bits + 1))
        part = (high + shift) - shift
        slices.append(part)
        high = high - part
        if low is not None:
            high, low = words.two_sum(high, low)
        if not high.any():
            return slices, complete, exponents
    return slices, False, exponents


def _sum_of_products(left: list[Any], right: list[Any], most: int) -> tuple[Any, Any, int]:
    """Return the sum of the products of slices with p + q < most, and how many these are.

    Floats will do for those with p + q > 2, below 2^-66; and the two with p + q = 1 have an exact sum.
    """
    groups = [[(p, t - p) for p in range(len(left)) if 0 <= t - p < len(right)] for t in range(most)]
    high: Any = 0.0
    for p, q in itertools.chain(*groups[:2:-1]):
        high = high + left[p] @ right[q]
    low: Any = 0.0
    for p, q in groups[2] if most > 2 else ():
        high, rest = words.two_sum(left[p] @ right[q], high)
        low = low + rest
    if most > 1 and groups[1]:
        high, rest = words.two_sum(sum(left[p] @ right[q] for p, q in groups[1]), high)
        low = low + rest
    high, rest = words.two_sum(left[0] @ right[0], high)
    return *words.quick_two_sum(high, low + rest), sum(map(len, groups))


def _terms(x: Any, y: Any) -> Any:
    """Return how many terms of each sum are not 0."""
    if x.all() and y.all():
        return float(x.shape[-1])
    return (x != 0).astype(np.float64) @ (y != 0).astype(np.float64)


def _carried(x: Triple, y: Triple) -> Any:
    carried: Any = 0.0
    if not vanishes(y[2]):
        carried = np.abs(x[0]) @ y[2]
    if not vanishes(x[2]):
        carried = carried + x[2] @ (np.abs(y[0]) + y[2])
    return carried


def _added(x: Triple, y: Triple) -> Triple:
    high, low = words.add(x[:2], y[:2])
    rounded = np.where((x[1] == 0) & (y[1] == 0), 0.0, words.SUM * np.abs(high))
    return high, low, (x[2] + y[2] + rounded) * (1 + 2.0**-50)


def _each(x: Triple, place: tuple[Any, ...]) -> Triple:
    high, low, rad = (part[place] for part in x)
    return high, low, rad


def _joined(parts: list[Triple], axis: int) -> Triple:
    high, low, rad = (np.concatenate(each, axis=axis) for each in zip(*parts, strict=True))
    return high, low, rad
