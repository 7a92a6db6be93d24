"""Numbers with a bound of what rounding may do to them, as a number system.

Each is a triple of float64:

    value ± spread   contains the exact number (at a kink: every one-sided derivative)
    error            bounds |computed - exact|, for every program of the formula in the dtype under test

The errors of the operands are carried through each operation, their products included, and a nonlinear function is
bounded by its steepest slope within reach. To that an operation adds, with u the unit roundoff of the dtype:

* `u |result|` for + - *; for /, `2 u |result|`, because a compiler may multiply by the reciprocal, and in float32
  `4 u |result|`, because XLA on GPUs divides by `div.full.f32`, which promises 2 ulp;
* `gamma_k sum |terms|`, `gamma_k = k u / (1 - k u)`, for a sum of k + 1 terms or a dot product of k: this holds in any
  order and blocking, with any number of threads, with and without fused multiply-add (Higham, Accuracy and Stability of
  Numerical Algorithms, sections 3.1 and 4.2);
* `ULPS` of exp, log, tanh and the like;
* twice the smallest normal number, because a program may flush what is smaller to 0 (XLA does);
* infinity, where a number on the way may overflow;
* nothing, where the operands are exact and every partial result is a multiple of one power of 2 that the dtype can hold
  (sums and products of small integers), or one operand is a power of 2.

The spread is the same bound for the arithmetic of this file, whose u is 2^-53. All else that it computes is a sum or
product of numbers >= 0, or a slope at an argument that was moved outwards: `SLACK` covers the rounding of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.numbers import Numbers
from gdcompare.backend import checked_dtype, unit_roundoff

Floats = NDArray[np.float64]

SLACK = 1 + 2.0**-20

# Largest errors measured against Arb, float32 / float64, in u, half an ulp (tests/referee/test_budget.py measures).
# The promises: glibc 1-2 ulp, SLEEF (torch) 1 ulp, NumPy's SIMD loops 4 ulp, CUDA 1-4 ulp; XLA makes none.
ULPS = {
    "exp": 4.0,  # 5.4 / 2.0
    "expm1": 4.0,  # 5.9 / 4.3
    "log": 4.0,  # 4.1 / 1.0
    "log1p": 4.0,  # 3.5 / 1.2, but XLA's float64 reaches 240 in [-0.42, -0.29]: see `log1p`
    "sin": 4.0,  # 2.5 / 1.0
    "cos": 4.0,  # 1.9 / 1.0
    "sinh": 4.0,  # 3.5 / 2.0, and |x| / 2 more in XLA: see `sinh`
    "cosh": 4.0,  # likewise
    "tanh": 4.0,  # 4.8 / 6.9
    "sqrt": 1.0,  # 1.5 / 1.0
    "pow": 4.0,  # 1.9 / 1.9
}


@final
@dataclass(frozen=True, eq=False)
class Rounded:
    """An array of numbers in value ± spread, which a program knows up to an error."""

    value: Floats
    spread: Floats
    error: Floats
    numbers: RoundedNumbers

    __array_ufunc__ = None  # NumPy's arrays and scalars leave their operators to us

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    exact = property(lambda self: self.spread + self.error == 0)
    reach = property(lambda self: self.spread + self.error)  # a computed number lies in value ± reach
    size = property(lambda self: np.abs(self.value) + self.spread + self.error)  # the largest |computed|

    def inner(self, reach: Any) -> Any:
        """Return a lower bound of |number| within that reach, not above the true one."""
        return np.abs(self.value) - _outwards(self, reach)

    low = property(lambda self: self.value - _outwards(self, self.reach))
    high = property(lambda self: self.value + _outwards(self, self.reach))

    def each(self, function: Callable[[Any], Any]) -> Rounded:
        """Rearrange value, spread and error alike."""
        return Rounded(function(self.value), function(self.spread), function(self.error), self.numbers)

    def __getitem__(self, key: Any) -> Rounded:
        return self.each(lambda part: part[key])

    def __neg__(self) -> Rounded:
        return Rounded(-self.value, self.spread, self.error, self.numbers)

    def __add__(self, other: Any) -> Rounded:
        other = self.numbers.asarray(other)
        value, terms = self.value + other.value, np.abs(self.value) + np.abs(other.value)
        exact = self.numbers.holds(terms, np.minimum(_grid(self), _grid(other))) | _is_zero(self) | _is_zero(other)
        return self.numbers.rounded(value, self.spread + other.spread, self.error + other.error, exact=exact)

    def __sub__(self, other: Any) -> Rounded:
        return self + -self.numbers.asarray(other)

    def __mul__(self, other: Any) -> Rounded:
        other = self.numbers.asarray(other)
        exact = self.numbers.holds(np.abs(self.value * other.value), _grid(self) * _grid(other))
        exact = exact | _is_zero(self) | _is_zero(other) | _is_power_of_2(self) | _is_power_of_2(other)
        return self.numbers.product(np.multiply, self, other, 1, exact)

    def __matmul__(self, other: Rounded) -> Rounded:
        grid = np.min(_grid(self), axis=-1, keepdims=True) * np.min(_grid(other), axis=-2, keepdims=True)
        exact = self.numbers.holds(np.abs(self.value) @ np.abs(other.value), grid)
        if not exact.all():
            exact = exact | ((~_is_zero(self)).astype(float) @ (~_is_zero(other)).astype(float) == 0)
        return self.numbers.product(np.matmul, self, other, self.shape[-1], exact)

    def __truediv__(self, other: Any) -> Rounded:
        """x^ / y^ - x / y = (x^ - x + (x / y) (y - y^)) / y^, where ^ marks what is computed."""
        other = self.numbers.asarray(other)
        value = self.value / other.value
        least_exact, least = other.inner(other.spread), other.inner(other.reach)
        quotient = (np.abs(self.value) + self.spread) / least_exact
        spread = np.where(least_exact > 0, (self.spread + np.abs(value) * other.spread) / least_exact, np.inf)
        error = np.where(least > 0, (self.error + quotient * other.error) / least, np.inf)
        exact = _is_zero(self) | _is_power_of_2(other)
        return self.numbers.rounded(value, spread, error, self.numbers.division, exact=exact)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Rounded:
        result: Rounded = -self + other
        return result

    def __rtruediv__(self, other: Any) -> Rounded:
        return Rounded.__truediv__(self.numbers.asarray(other), self)


@final
class RoundedNumbers(Numbers):
    """Triples for programs in one dtype. NumPy may warn of overflow: call it inside `np.errstate`."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(checked_dtype(dtype))
        self.u = unit_roundoff(dtype)
        self.division = 4 if dtype == "float32" else 2
        self.tiny, self.largest = float(np.finfo(self.dtype).tiny), float(np.finfo(self.dtype).max)

    def asarray(self, values: Any) -> Rounded:
        """Take numbers in: arrays of the dtype are exact; so are constants that fit into float32.

        Any other constant has been computed by Python, and is rounded to the dtype: 2 u.
        """
        if isinstance(values, Rounded):
            return values
        value = np.asarray(values, dtype=np.float64)
        exact = (isinstance(values, np.ndarray) and values.dtype == self.dtype) | (value == value.astype(np.float32))
        flushed = np.where(np.abs(value) < self.tiny, np.abs(value), 0.0)
        spread = np.where(exact, 0.0, 2.0**-53 * np.abs(value))
        return Rounded(value, spread, np.where(exact, 0.0, 2 * self.u * np.abs(value)) + flushed, self)

    def holds(self, terms: Any, grid: Any) -> Any:
        """Say whether the dtype holds every multiple of the grid up to the sum of the terms."""
        return (grid >= self.tiny) & (terms <= grid / self.u)

    def rounded(
        self, value: Any, spread: Any, error: Any, count: Any = 1, inside: Any = 0.0, terms: Any = None,
        size: Any = None, exact: Any = False,
    ) -> Rounded:  # fmt: skip
        """Finish an operation: add what `count` roundings may add.

        They are relative to `terms`, the sum of the absolute exact terms, and to `size`, that of the computed ones, or
        if there is but one to the result; and to what was rounded `inside` the operation.
        """
        flushed = (2 if terms is None else 2 * count) * self.tiny
        terms = np.abs(value) if terms is None else terms
        size = np.abs(value) + spread + error if size is None else size
        subnormal = (np.abs(value) - spread - error < self.tiny) & ((value != 0) | (spread + error > 0))
        nothing = exact & ~subnormal
        own = _gamma(count, 2.0**-53) * (terms + inside) + 2.0**-1022
        theirs = _gamma(count, self.u) * (size + inside) + flushed
        spread = np.where(nothing, spread, (spread + own) * SLACK)
        error = np.where(nothing, error, (error + theirs) * SLACK)
        largest = np.maximum(size, np.abs(value) + spread) + error
        error = np.where(largest <= self.largest, error, np.inf)  # also for NaN
        known = np.isfinite(value) & np.isfinite(spread)
        return Rounded(np.where(known, value, 0.0), np.where(known, spread, np.inf), error, self)

    def product(self, multiply: Callable[[Any, Any], Any], x: Rounded, y: Rounded, count: int, exact: Any) -> Rounded:
        """x^ y^ - x y = x^ (y^ - y) + (x^ - x) y, for products of numbers or of matrices."""

        def times(a: Any, b: Any) -> Any:
            return multiply(a, b) if a.any() and b.any() else 0.0

        most_x, most_y = np.abs(x.value), np.abs(y.value)
        terms = multiply(most_x, most_y)
        spread = times(most_x + x.spread, y.spread) + times(x.spread, most_y)
        error = times(x.size, y.error) + times(x.error, most_y + y.spread)
        size = multiply(x.size, y.size) if x.reach.any() or y.reach.any() else terms
        value = multiply(x.value, y.value)
        return self.rounded(value, spread, error, count, terms=terms, size=size, exact=exact)

    def rearrange(self, function: Callable[..., Any], *arrays: Rounded) -> Rounded:
        """Each part alike."""
        parts = zip(*((each.value, each.spread, each.error) for each in arrays), strict=True)
        value, spread, error = (function(*part) for part in parts)
        return Rounded(value, spread, error, self)

    def scatter(self, x: Rounded, index: Any, shape: tuple[int, ...]) -> Rounded:
        """Into zeros."""

        def place(part: Any) -> Any:
            zeros = np.zeros(shape)
            zeros[index] = part
            return zeros

        return x.each(place)

    # Sums, ties, conditions.

    def sum(self, x: Rounded, axis: tuple[int, ...]) -> Rounded:
        """In any order; adding an exact 0 rounds nothing."""

        def total(part: Any) -> Any:
            return np.sum(part, axis=axis, keepdims=True)

        count = np.maximum(np.count_nonzero(~_is_zero(x), axis=axis, keepdims=True) - 1, 0)
        terms = total(np.abs(x.value))
        exact = self.holds(terms, np.min(_grid(x), axis=axis, keepdims=True)) | (count == 0)
        spread, error = total(x.spread), total(x.error)
        return self.rounded(total(x.value), spread, error, count, terms=terms, size=total(x.size), exact=exact)

    def max(self, x: Rounded) -> Rounded:
        """It moves no further than the one that moves furthest, of those that may be it."""
        possible = _may_be_largest(x)
        spread, error = (np.max(np.where(possible, part, 0.0), axis=-1) for part in (x.spread, x.error))
        return Rounded(np.max(x.value, axis=-1), spread, error, self)

    def share_of_max(self, x: Rounded, kind: str) -> Rounded:
        """1 or 0 where the largest is known. In an exact tie any share is right; else a program may be wrong."""
        del kind
        possible = _may_be_largest(x)
        tied = possible & (np.sum(possible, axis=-1, keepdims=True) > 1)
        unsure = tied & np.any(possible & ~x.exact, axis=-1, keepdims=True)
        return Rounded(np.where(tied, 0.5, possible), np.where(tied, 0.5, 0.0), np.where(unsure, 1.0, 0.0), self)

    def compare(self, relation: np.ufunc, x: Rounded, y: Rounded, kink: bool) -> Rounded:
        """1 or 0 where every program decides as the exact numbers do."""
        del kink
        reach = x.reach + y.reach
        decided = (np.abs(x.value - y.value) > reach * SLACK) | (reach == 0)
        value = np.where(decided, relation(x.value, y.value), 0.5)
        return Rounded(value, np.where(decided, 0.0, 0.5), np.where(decided, 0.0, 1.0), self)

    def where(self, condition: Rounded, x: Rounded, y: Rounded) -> Rounded:
        """One of the two; where that is undecided, the exact number may be either, and the computed one the other."""
        apart = np.abs(x.value - y.value) * SLACK
        spread, error = np.maximum(x.spread, y.spread) + apart, (x.reach + y.reach + apart) * SLACK
        yes, no = (condition.exact & (condition.value == choice) for choice in (1, 0))
        choices = ((x.value, y.value, x.value), (x.spread, y.spread, spread), (x.error, y.error, error))
        value, spread, error = (np.where(yes, a, np.where(no, b, either)) for a, b, either in choices)
        return Rounded(value, spread, error, self)

    def leave_out(self, condition: Rounded, cotangent: Rounded) -> Rounded:
        """The cotangent or 0."""
        return self.where(condition, cotangent, self.asarray(0.0))

    def chain(self, cotangent: Rounded, slope: Rounded) -> Rounded:
        """The product: a program that multiplies 0 by infinity gets NaN."""
        return cotangent * slope

    def plus(self, x: Rounded, y: Rounded) -> Rounded:
        """The sum."""
        return x + y

    def any_of(self, *formulas: Callable[[], Rounded]) -> Rounded:
        """The first, with the largest error."""
        first, *others = (formula() for formula in formulas)
        error = first.error
        for other in others:
            error = np.maximum(error, other.error)
        return replace(first, error=error)

    # Functions.

    def _function(self, name: str, x: Rounded, value: Any, slope: Any, more_ulps: Any = 0.0) -> Rounded:
        """|f(x^) - f(x)| <= slope |x^ - x|, for the steepest slope within reach."""
        spread, error = (np.where(part == 0, 0.0, slope * part) for part in (x.spread, x.error))
        exact = _is_zero(x) & (value == 0)  # f(0) = 0
        return self.rounded(value, spread, error, 2 * (ULPS[name] + more_ulps), exact=exact)

    def exp(self, x: Rounded) -> Rounded:
        """Steepest on the right."""
        return self._function("exp", x, np.exp(x.value), np.exp(x.high))

    def expm1(self, x: Rounded) -> Rounded:
        """Steepest on the right."""
        return self._function("expm1", x, np.expm1(x.value), np.exp(x.high))

    def log(self, x: Rounded) -> Rounded:
        """Steepest on the left."""
        return self._function("log", x, np.log(x.value), _reciprocal(x.low))

    def log1p(self, x: Rounded) -> Rounded:
        """Steepest on the left. In part of its range XLA's float64 uses a polynomial made for [-0.29, 0.41]."""
        beside = (self.dtype == np.float64) & (x.high > -0.42) & (x.low < -0.29)
        return self._function("log1p", x, np.log1p(x.value), _reciprocal(1 + x.low), np.where(beside, 156.0, 0.0))

    def sqrt(self, x: Rounded) -> Rounded:
        """Steepest on the left."""
        return self._function("sqrt", x, np.sqrt(x.value), 0.5 * np.sqrt(_reciprocal(x.low)))

    def sin(self, x: Rounded) -> Rounded:
        """|cos(x^)| <= |cos(x)| + |x^ - x|."""
        return self._function("sin", x, np.sin(x.value), np.minimum(1.0, np.abs(np.cos(x.value)) + x.reach))

    def cos(self, x: Rounded) -> Rounded:
        """|sin(x^)| <= |sin(x)| + |x^ - x|."""
        return self._function("cos", x, np.cos(x.value), np.minimum(1.0, np.abs(np.sin(x.value)) + x.reach))

    def sinh(self, x: Rounded) -> Rounded:
        """Steepest far out. XLA takes exp(x + log 1/2), and rounds the argument; torch exp(x) / 2, and overflows."""
        result = self._function("sinh", x, np.sinh(x.value), np.cosh(x.size), x.size / 2)
        return replace(result, error=np.where(np.exp(x.size) < self.largest, result.error, np.inf))

    def cosh(self, x: Rounded) -> Rounded:
        """Likewise."""
        result = self._function("cosh", x, np.cosh(x.value), np.sinh(x.size), x.size / 2)
        return replace(result, error=np.where(np.exp(x.size) < self.largest, result.error, np.inf))

    def tanh(self, x: Rounded) -> Rounded:
        """Steepest where nearest to 0."""
        return self._function("tanh", x, np.tanh(x.value), np.cosh(np.maximum(x.inner(x.reach), 0.0)) ** -2.0)

    def sign(self, x: Rounded) -> Rounded:
        """Known where no program can see another."""
        unsure = np.where((x.inner(x.reach) > 0) | x.exact, 0.0, 2.0)
        return Rounded(np.sign(x.value), unsure, unsure, self)

    def pow(self, x: Rounded, y: Rounded) -> Rounded:
        """x^n for one whole n by products and a reciprocal, or by a library from n = 3 on; else x^y for x > 0."""
        n = y.value.flat[0]
        if np.all(y.exact & (y.value == n)) and n == round(n) and abs(n) <= 64:
            power = self.asarray(np.ones(x.shape))
            for _ in range(abs(int(n))):
                power = power * x
            if abs(n) > 2:
                power = self.rounded(power.value, power.spread, power.error, 2 * ULPS["pow"])
            return 1.0 / power if n < 0 else power
        corners = [base**exponent for base in (x.low, x.high) for exponent in (y.low, y.high)]
        most = np.where(x.low > 0, np.max(np.stack(corners), axis=0), np.inf)
        by_x = y.size * most * _reciprocal(x.low)
        by_y = most * np.maximum(np.abs(np.log(x.low)), np.abs(np.log(x.high)))
        spread, error = (
            np.where(dx == 0, 0.0, by_x * dx) + np.where(dy == 0, 0.0, by_y * dy)
            for dx, dy in ((x.spread, y.spread), (x.error, y.error))
        )
        return self.rounded(x.value**y.value, spread, error, 2 * ULPS["pow"])

    def logaddexp(self, x: Rounded, y: Rounded) -> Rounded:
        """max + t with t = log1p(exp(-|x - y|)), as NumPy, torch and JAX compute it.

        The sum rounds by u of itself, and by no more than t, because the larger of x and y is a number of the dtype.
        """
        d, reach = x.value - y.value, x.reach + y.reach
        value = np.maximum(x.value, y.value) + np.log1p(np.exp(-np.abs(d)))
        by_x, by_y = _logistic(d + reach), _logistic(reach - d)
        spread, error = (by_x * dx + by_y * dy for dx, dy in ((x.spread, y.spread), (x.error, y.error)))
        t, inside = _correction(x, y)
        size = np.abs(value) + spread + error
        terms, size = np.minimum(size, t / 2.0**-53), np.minimum(size, t / self.u)
        return self.rounded(value, spread, error, inside=inside, terms=terms, size=size)

    # Slopes with several formulas in use.

    def logaddexp_slope(self, x: Rounded, y: Rounded, value: Rounded) -> Rounded:
        """s = 1 / (1 + exp(-d)) with d = x - y in torch, s = exp(x - value) in JAX.

        What they round, in units of u s: torch (1 - s) |d| and ulps; JAX what the value rounded, as above, |log s| and
        ulps. Where s is far below the smallest normal number, so is what they compute.
        """
        d, reach = x.value - y.value, (x.reach + y.reach) * SLACK
        nearest = np.maximum(np.abs(d) - reach, 0.0)
        steepest = _logistic(nearest) * _logistic(-nearest)  # ds = s (1 - s) dd
        spread, error = steepest * (x.spread + y.spread), steepest * (x.error + y.error)
        t, inside = _correction(x, y)
        divided = (np.abs(d) + reach) * _logistic(reach - d)
        subtracted = np.minimum(value.size, t / self.u) + inside + np.logaddexp(0.0, reach - d)
        slope = self.rounded(_logistic(d), spread, error, divided + subtracted + 2 * ULPS["exp"] + 4)
        vanishes = d + reach < 2 * np.log(self.tiny)
        return replace(slope, error=np.where(vanishes, 2 * self.tiny, slope.error))

    def tanh_slope(self, x: Rounded, value: Rounded) -> Rounded:
        """1 - t t in torch, (1 + t) (1 - t) in JAX: at most 4 u apart."""
        del x
        slope = 1 - value * value
        return replace(slope, error=slope.error + 4 * self.u)

    def expm1_slope(self, x: Rounded, value: Rounded) -> Rounded:
        """expm1(x) + 1, with the cancellation that it has."""
        del x
        return value + 1

    def divide_slope(self, x: Rounded, y: Rounded, value: Rounded) -> Rounded:
        """-(x / y) / y in torch, -x (1 / (y y)) in JAX, which overflows where y y does."""
        twice, once = -(value / y), -(x * (1 / (y * y)))
        return replace(twice, error=np.maximum(twice.error, once.error))


def _correction(x: Rounded, y: Rounded) -> tuple[Any, Any]:
    """Return t = log1p(exp(-d)), d = |x - y|, at most; and what is rounded in it, in u: ulps, and d times |dt/dd|."""
    d, reach = np.abs(x.value - y.value), (x.reach + y.reach) * SLACK
    least = np.maximum(d - reach, 0.0)
    t = np.log1p(np.exp(-least)) * SLACK
    inside = (d + reach) * _logistic(-least) + 2 * (ULPS["exp"] + ULPS["log1p"]) * t
    return t, inside * 1.001  # for the products of these errors


def _gamma(count: Any, u: float) -> Any:
    """Return count u / (1 - count u), which bounds the relative effect of that many roundings."""
    return np.where(count * u < 1, count * u / (1 - count * u), np.inf)


def _logistic(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)), also far out."""
    small = np.exp(-np.abs(x))
    return np.where(x > 0, 1.0, small) / (1 + small)


def _reciprocal(x: Any) -> Any:
    """Return 1 / x for x > 0, else infinity."""
    return np.where(x > 0, 1 / x, np.inf)


def _outwards(x: Rounded, reach: Any) -> Any:
    """Return a little more than the reach, unless it is 0: enough to cover the rounding of value ± reach."""
    return np.where(reach == 0, 0.0, reach * SLACK + np.abs(x.value) * 2.0**-50)


def _may_be_largest(x: Rounded) -> Any:
    """Say which may be the largest along the last axis, exactly or in some program."""
    return x.high >= np.max(x.low, axis=-1, keepdims=True)


def _is_zero(x: Rounded) -> Any:
    return (x.value == 0) & x.exact


def _is_power_of_2(x: Rounded) -> Any:
    return (np.frexp(np.abs(x.value))[0] == 0.5) & x.exact


def _grid(x: Rounded) -> Any:
    """Return the largest power of 2 of which each number is a multiple: infinity for 0, and 0 if it is not exact."""
    if not x.exact.any():
        return np.broadcast_to(0.0, x.shape)
    mantissa, exponent = np.frexp(x.value)
    digits = np.ldexp(mantissa, 53).astype(np.int64)
    grid = np.ldexp((digits & -digits).astype(np.float64), exponent - 53)
    return np.where(x.exact, np.where(digits == 0, np.inf, grid), 0.0)
