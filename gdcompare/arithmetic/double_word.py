"""Double-word arithmetic: numbers that are the unevaluated sum of two floats, over NumPy arrays.

A word is a pair (high, low) with |low| <= u |high|, u = 2^-53: about 107 bits, at the speed of vectorised floats. Each
function states how far its result may be from the exact one, relative to that; add `UNDERFLOW` where the exact result
is not 0. What overflows is no number. Round to nearest is taken for granted, and nothing of any library's functions:
`log` and `log1p` start from NumPy's, and what these are off by is found and taken away.

Sources: Dekker, A floating-point technique for extending the available precision, Numerische Mathematik 18, 1971;
Joldes, Muller and Popescu, Tight and rigorous error bounds for basic building blocks of double-word arithmetic, ACM
TOMS 44, 2017 (their algorithms 6, 7, 10 and 17); Lefevre, Louvet, Muller, Picot and Rideau, Accurate calculation of
Euclidean norms using double-word arithmetic, ACM TOMS 49, 2023 (the square root).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

Word: TypeAlias = tuple[Any, Any]

UNDERFLOW = 2.0**-1060
"""More than the few units of 2^-1074 that may be lost where products underflow."""

SUM, PRODUCT, QUOTIENT, ROOT = 2.0**-104, 2.0**-103, 2.0**-102, 2.0**-103
"""Bounds of the relative errors: 3 u^2, 5 u^2, 15 u^2 and 25/8 u^2 were proven, to the first order; these are 4 u^2,
8 u^2, 16 u^2 and 8 u^2."""

EXPM1, EXP, LOG1P, LOG = 2.0**-95, 2.0**-95, 2.0**-93, 2.0**-93
"""Likewise, derived beside the functions and rounded up by a factor of two or more."""

LARGEST_EXPONENT = 700.0
"""`exp` is for arguments no larger than this, of either sign."""

_SPLITTER = 2.0**27 + 1
_LN2 = tuple(map(float.fromhex, ("0x1.62e42fefa3800p-1", "0x1.ef35793c76000p-45", "0x1.cc01f97b57a08p-87")))
_BLOCK = 8192


def two_sum(a: Any, b: Any) -> Word:
    """a + b, exactly (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def quick_two_sum(a: Any, b: Any) -> Word:
    """a + b, exactly, for |a| >= |b| or a = 0 (Dekker)."""
    total = a + b
    return total, b - (total - a)


def two_product(a: Any, b: Any) -> Word:
    """a b, exactly but for underflow (Dekker, Veltkamp); for factors below 2^996."""
    product = a * b
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def _halves(a: Any) -> Word:
    scaled = _SPLITTER * a
    first = scaled - (scaled - a)
    return first, a - first


def add(x: Word, y: Word) -> Word:
    """x + y, within `SUM`; exact where both are floats."""
    high, low = two_sum(x[0], y[0])
    high_2, low_2 = two_sum(x[1], y[1])
    high, low = quick_two_sum(high, low + high_2)
    return quick_two_sum(high, low + low_2)


def multiply(x: Word, y: Word) -> Word:
    """x y, within `PRODUCT`; exact where both are floats."""
    high, low = two_product(x[0], y[0])
    return quick_two_sum(high, low + (x[0] * y[1] + x[1] * y[0]))


def divide(x: Word, y: Word) -> Word:
    """x / y, within `QUOTIENT`; what underflows in the remainder is divided by y, too."""
    high = x[0] / y[0]
    product, rest = two_product(y[0], high)
    product, low = quick_two_sum(product, y[1] * high)
    product, low = quick_two_sum(product, low + rest)
    return quick_two_sum(high, ((x[0] - product) + (x[1] - low)) / y[0])


def square_root(x: Word) -> Word:
    """The root of x > 0, within `ROOT`: of x over a power of 4, so that nothing underflows."""
    half = np.frexp(x[0])[1] // 2
    first, second = (np.ldexp(part, -2 * half) for part in x)
    high = np.sqrt(first)
    square, rest = two_product(high, high)
    high, low = quick_two_sum(high, (((first - square) - rest) + second) / (2 * high))
    return np.ldexp(high, half), np.ldexp(low, half)


def _in_blocks(function: Callable[[Word], Word]) -> Callable[[Word], Word]:
    """Apply it to a few thousand numbers at a time, which stay in the cache."""

    def blockwise(x: Word) -> Word:
        shape = np.shape(x[0])
        high, low = (np.ravel(part) for part in x)
        if high.size <= _BLOCK:
            return function(x)
        results = np.empty((2, high.size))
        for start in range(0, high.size, _BLOCK):
            here = slice(start, start + _BLOCK)
            results[:, here] = function((high[here], low[here]))
        return results[0].reshape(shape), results[1].reshape(shape)

    blockwise.__doc__ = function.__doc__
    return blockwise


def _word(fraction: Fraction) -> tuple[float, float]:
    high = float(fraction)
    return high, float(fraction - Fraction(high))


_INVERSE_FACTORIALS = [_word(Fraction(1, math.factorial(k))) for k in range(13)]


def _expm1_of_64ths() -> tuple[Any, Any]:
    """exp(j / 64) - 1 for j = -24 .. 24, by the series in whole numbers, right to the last bit but one of the words."""
    one = 1 << 200
    sums = []
    for j in range(-24, 25):
        total, term, k = 0, one, 0
        while term:
            k += 1
            term = term * j // (64 * k) if term * j > 0 else -(-term * j // (64 * k))  # towards 0
            total += term
        sums.append(_word(Fraction(total, one)))
    high, low = zip(*sums, strict=True)
    return np.array(high), np.array(low)


_EXPM1_OF_64THS = _expm1_of_64ths()


def _reduced_expm1(x: Word) -> tuple[Word, Any]:
    """exp(r) - 1 and k, with x = k log 2 + r and |r| <= 0.35, for |x| <= 700.

    k times each of the first two parts of log 2 is exact; r is off by less than 2^-103 |r| + 2^-122. With r = j / 64 +
    m it is t + (1 + t) p, where t = exp(j / 64) - 1 from a table, and p = exp(m) - 1, |m| <= 2^-7 and a little. The
    series to m^12 is off by m^12 / 13! < 2^-115 of itself, and what is computed of p by 12 u^2. The two terms cancel by
    less than two thirds, so that all is off by less than 2^-98 of itself.
    """
    k = np.rint(x[0] * (1 / math.log(2)))
    r = add(add(two_sum(x[0], -k * _LN2[0]), two_sum(-k * _LN2[1], x[1])), (-k * _LN2[2], np.zeros_like(k)))
    j = np.rint(r[0] * 64)
    m = add(r, (j * (-1 / 64), np.zeros_like(j)))
    c = _INVERSE_FACTORIALS
    tail = c[12][0] * m[0]
    for high, _ in c[11:7:-1]:
        tail = (tail + high) * m[0]
    series: Word = tail + c[7][0], np.zeros_like(tail)  # below 2^-54 of the sum: floats will do
    for coefficient in c[6:0:-1]:
        series = add(multiply(series, m), coefficient)
    p = multiply(series, m)
    place = np.clip(np.nan_to_num(j), -24, 24).astype(np.intp) + 24
    t = _EXPM1_OF_64THS[0][place], _EXPM1_OF_64THS[1][place]
    return add(t, multiply(add((1.0, 0.0), t), p)), k


@_in_blocks
def expm1(x: Word) -> Word:
    """exp(x) - 1, within `EXPM1`, for |x| <= 700: 2^k s + (2^k - 1), of which the terms cancel by less than half."""
    s, k = _reduced_expm1(x)
    power = np.ldexp(1.0, k.astype(np.int32))
    return add((power * s[0], power * s[1]), two_sum(power, -1.0))


@_in_blocks
def exp(x: Word) -> Word:
    """exp(x), within `EXP`, for |x| <= 700."""
    s, k = _reduced_expm1(x)
    high, low = add((1.0, 0.0), s)
    power = np.ldexp(1.0, k.astype(np.int32))
    return power * high, power * low


def _near_log1p(y: Word) -> Word:
    """log(1 + y) for |y| <= 1/2, within 2^-94, and NaN where NumPy's is not good to 48 bits.

    With z near it and t = (y - expm1 z) / exp z, it is z + log(1 + t); log(1 + t) = t - t^2 / 2 but for t^3.
    """
    z = np.log1p(y[0])
    e = expm1((z, np.zeros_like(z)))
    left = add(y, (-e[0], -e[1]))[0]
    t = left / (1 + e[0])
    return quick_two_sum(z, np.where(np.abs(t) <= 2.0**-48 * np.abs(z) + UNDERFLOW, t - t * t / 2, np.nan))


@_in_blocks
def log1p(x: Word) -> Word:
    """log(1 + x) for x > -1, within `LOG1P`: where |x| > 1/2, by the logarithm."""
    near = np.abs(x[0]) <= 0.5
    if near.all():
        return _near_log1p(x)
    k, y = _reduced_log(add((1.0, 0.0), x))
    return _with_logs_of_2(np.where(near, 0.0, k), (np.where(near, x[0], y[0]), np.where(near, x[1], y[1])))


@_in_blocks
def log(x: Word) -> Word:
    """log(x) for x > 0, within `LOG`."""
    return _with_logs_of_2(*_reduced_log(x))


def _reduced_log(x: Word) -> tuple[Any, Word]:
    """k and m - 1, for x = 2^k m with m near 1, which is exact but for the difference."""
    _, k = np.frexp(x[0] * 0.5**0.5)
    return k.astype(np.float64), add((np.ldexp(x[0], -k), np.ldexp(x[1], -k)), (-1.0, 0.0))


def _with_logs_of_2(k: Any, y: Word) -> Word:
    """k log 2 + log(1 + y); where k is not 0, the second is at most half of the first."""
    return add(add(two_sum(k * _LN2[0], k * _LN2[1]), (k * _LN2[2], np.zeros_like(k))), _near_log1p(y))
