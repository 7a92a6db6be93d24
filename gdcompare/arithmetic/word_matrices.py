"""Products of matrices of balls in floats: triples (high, low, rad), the exact numbers in high + low ± rad.

Rows of the left factor and columns of the right are scaled to below 1, and cut into slices of b bits. The p-th is a
multiple of 2^-(p (b + 1) + b), and no larger than 2^-p (b + 1). With k terms and k 2^2b <= 2^52, the product of two
slices is exact in whatever order it is added up, with or without fused multiply-add: so BLAS may do it. Source: Ozaki,
Ogita, Oishi and Rump, Error-free transformations of matrix multiplication by using fast routines of matrix
multiplication and its applications, Numerical Algorithms 59, 2012.

Products of slices with p + q >= s are left out, and what remains of a factor after s slices: for each term that is not
0, (s - 1) 2^-s (b + 1) of the first, and twice that without the factor of the second, (s + 3) 2^-s (b + 1) in all. The
others are added up with the smallest first, and are off by less than 2^-104 for each term.

Radii are `|x| rad_y + rad_x |y| + rad_x rad_y`, without their slack.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from gdcompare.arithmetic import double_word as words

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
    bits = (52 - math.ceil(math.log2(k))) // 2
    most = math.ceil(BITS / (bits + 1))
    left, all_left, up = _slices(x, -1, bits, most)
    right, all_right, down = _slices(y, -2, bits, most)
    pairs = [(p, q) for p in range(len(left)) for q in range(len(right)) if p + q < most]
    complete = all_left and all_right and len(pairs) == len(left) * len(right)
    high: Any = 0.0
    low: Any = 0.0
    for p, q in sorted(pairs, key=sum, reverse=True):
        high, rest = words.two_sum(left[p] @ right[q], high)
        low = low + rest
    high, low = words.quick_two_sum(high, low)
    terms = np.broadcast_to(_terms(x[0], y[0]), high.shape)
    left_out = 0.0 if complete else (most + 3) * 2.0 ** -(most * (bits + 1))
    share = left_out + (2.0**-104 if len(pairs) > 1 else 0.0)
    high, low, rounded = (np.ldexp(part, up + down) for part in (high, low, terms * share))
    exact = (share == 0) & (np.abs(high) > 2.0**-900) & (not x[2].any() and not y[2].any())
    return high, low, rounded + np.where((terms == 0) | exact, 0.0, words.UNDERFLOW) + _carried(x, y)


def _slices(x: Triple, axis: int, bits: int, most: int) -> tuple[list[Any], bool, Any]:
    """Return the slices, whether they are all of x, and the exponents by which x was scaled along the axis."""
    _, exponents = np.frexp(np.max(np.abs(x[0]), axis=axis, keepdims=True))
    exponents = np.maximum(exponents, -1000)
    scale = np.ldexp(1.0, -exponents)
    high, low = x[0] * scale, x[1] * scale if x[1].any() else None
    underflows = bool(((np.abs(high) < 2.0**-960) & (x[0] != 0)).any())
    slices = []
    for p in range(most):
        shift = 1.5 * 2.0 ** (52 - bits - p * (bits + 1))
        part = (high + shift) - shift
        slices.append(part)
        high = high - part
        if low is not None:
            high, low = words.two_sum(high, low)
        if not high.any():
            break
    return slices, not high.any() and not underflows and low is None, exponents


def _terms(x: Any, y: Any) -> Any:
    """Return how many terms of each sum are not 0."""
    if x.all() and y.all():
        return float(x.shape[-1])
    return (x != 0).astype(np.float64) @ (y != 0).astype(np.float64)


def _carried(x: Triple, y: Triple) -> Any:
    carried: Any = 0.0
    if y[2].any():
        carried = np.abs(x[0]) @ y[2]
    if x[2].any():
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
