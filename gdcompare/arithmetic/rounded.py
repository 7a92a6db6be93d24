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
* infinity, where a number on the way may overflow, or a slope has no bound: `unbounded` says which, and why;
* nothing, where the operands are exact and every partial result is a multiple of one power of 2 that the dtype can hold
  (sums and products of small integers), or one operand is a power of 2.

Compilers rewrite, and each known rewriting is allowed for. XLA merges exponentials, and then rounds their exponent,

    exp(a) exp(b) = exp(a + b),   exp(a) / exp(b) = exp(a - b),   c / exp(a) = c exp(-a),   exp(a)^c = exp(a c)

so that the right side is off by u |a + b| of itself, and so on, or flushed to 0. It divides once,

    (a / b) / c = a / (b c),   a / (b / c) = (a c) / b,   (a / b) / (c / d) = (a d) / (b c)

so that the products may overflow, or be flushed to 0. A number remembers, therefore, of what it is the exponential, its
`log`, and of what the `quotient`. JAX takes whole powers by products, however high: x^n is rounded n - 1 times. Slopes
for which frameworks have formulas of their own are below.

Infinite numbers of two kinds are known all the same. One of known sign, as in a mask, is exact, and its exponential is
an exact 0. A quotient by an exact 0 is infinite in every program, of a sign that nobody knows: its value is infinite,
and its spread too. A derivative through it that is multiplied by an exact 0 is 0, and so is that of a branch that was
not taken: a program that makes NaN of these is wrong, not rounded (`chain`).

The spread is the same bound for the arithmetic of this file, whose u is 2^-53. All else that it computes is a sum or
product of numbers >= 0, or a slope at an argument that was moved outwards: `SLACK` covers the rounding of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, final

import numpy as np

from gdcompare.arithmetic.axes import along_last
from gdcompare.arithmetic.function import Function
from gdcompare.arithmetic.functions import FUNCTIONS, Tabled, logistic
from gdcompare.arithmetic.numbers import Numbers
from gdcompare.arithmetic.precision import NARROW, rounded_to
from gdcompare.arithmetic.rounding import (
    SLACK,
    Rounded,
    Rounding,
    absence,
    bounded,
    grid_of,
    is_infinite,
    is_zero,
    replaced,
)

__all__ = ["ULPS", "Rounded", "RoundedNumbers"]

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
} | {name: function.ulps for name, function in FUNCTIONS.items()}


@final
class RoundedNumbers(Tabled, Rounding, Numbers):
    """Triples for programs in one dtype. NumPy may warn of overflow: call it inside `np.errstate`."""

    def scatter(self, x: Rounded, index: Any, shape: tuple[int, ...]) -> Rounded:
        """Into zeros."""

        def place(part: Any, fill: Any = 0.0) -> Any:
            zeros = np.full(shape, fill)
            zeros[index] = part
            return zeros

        return Rounded(place(x.value), place(x.spread), place(x.error), self, absent=place(absence(x), True))

    # Sums, ties, conditions.

    def sum(self, x: Rounded, axis: tuple[int, ...]) -> Rounded:
        """In any order; adding an exact 0 rounds nothing."""

        def total(part: Any) -> Any:
            return np.sum(part, axis=axis, keepdims=True)

        count = np.maximum(np.count_nonzero(~is_zero(x), axis=axis, keepdims=True) - 1, 0)
        terms = total(np.abs(x.value))
        exact = self.holds(terms, np.min(grid_of(x), axis=axis, keepdims=True)) | (count == 0)
        spread, error = total(x.spread), total(x.error)
        value, size = total(x.value), total(x.size)
        known = partial(np.all, bounded(x), axis=axis, keepdims=True)
        result = self.rounded(
            value, spread, error, count, terms=terms, size=size, exact=exact, operation="a sum", known=known
        )
        absent = None if x.absent is None else np.all(x.absent, axis=axis, keepdims=True)
        alone = result.shape == x.shape
        return (
            replace(result, log=x.log, quotient=x.quotient, absent=absent) if alone else replace(result, absent=absent)
        )

    def max(self, x: Rounded, kind: str = "max") -> Rounded:
        """It moves no further than the one that moves furthest, of those that may be it."""
        del kind
        possible = _may_be_largest(x)
        parts = (x.value, *(np.where(possible, part, 0.0) for part in (x.spread, x.error)))
        value, spread, error = (along_last(np.maximum, part)[..., 0] for part in parts)
        return Rounded(value, spread, error, self)

    def share_of_max(self, x: Rounded, kind: str) -> Rounded:
        """1 or 0 where the largest is known. In an exact tie any share is right; else a program may be wrong."""
        del kind
        possible = _may_be_largest(x)
        tied = possible & (along_last(np.add, possible.astype(np.intp)) > 1)
        unsure = tied & along_last(np.logical_or, possible & ~x.exact)
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
        apart = np.where(x.value == y.value, 0.0, np.abs(x.value - y.value) * SLACK)
        spread, error = np.maximum(x.spread, y.spread) + apart, (x.reach + y.reach + apart) * SLACK
        yes, no = (condition.exact & (condition.value == choice) for choice in (1, 0))
        choices = ((x.value, y.value, x.value), (x.spread, y.spread, spread), (x.error, y.error, error))
        value, spread, error = (np.where(yes, a, np.where(no, b, either)) for a, b, either in choices)
        return Rounded(value, spread, error, self)

    def leave_out(self, condition: Rounded, cotangent: Rounded) -> Rounded:
        """The cotangent or 0."""
        result = self.where(condition, cotangent, self.asarray(0.0))
        absent = (condition.exact & (condition.value == 0)) | absence(cotangent)
        return replace(result, absent=np.broadcast_to(absent, result.shape) if absent.any() else None)

    def chain(self, cotangent: Rounded, slope: Rounded) -> Rounded:
        """The product. What was left out stays so; an exact 0 beside what is infinite in every program is 0."""
        result = cotangent * slope
        if cotangent.absent is not None:
            absent = np.broadcast_to(cotangent.absent, result.shape)
            return replace(replaced(result, absent, 0.0, 0.0), absent=absent)
        nothing = (is_zero(cotangent) & np.isinf(slope.value)) | (np.isinf(cotangent.value) & is_zero(slope))
        return replaced(result, nothing, 0.0, 0.0)

    def plus(self, x: Rounded, y: Rounded) -> Rounded:
        """The sum; what was left out of both stays left out."""
        absent = None if x.absent is None or y.absent is None else x.absent & y.absent
        return replace(x + y, absent=absent)

    def any_of(self, *formulas: Callable[[], Rounded]) -> Rounded:
        """The first, with the largest error."""
        first, *others = (formula() for formula in formulas)
        error = first.error
        for other in others:
            error = np.maximum(error, other.error)
        return replace(first, error=error if first.absent is None else np.where(first.absent, 0.0, error))

    def cast(self, x: Rounded, dtype: str) -> Rounded:
        """One rounding to a narrower dtype; what it holds is as it was, and what is beyond it has no bound."""
        limits = NARROW[dtype]
        held = x.exact & ((rounded_to(x.value, dtype) == x.value) | np.isinf(x.value))
        error = (x.error + limits.u * x.size + 2 * limits.tiny) * SLACK
        over = ~held & ~(x.size * (1 + limits.u) <= limits.largest)
        self.explain(over & bounded(x), True, f"a cast to {dtype}")
        return Rounded(x.value, x.spread, np.where(held, 0.0, np.where(over, np.inf, error)), self, absent=x.absent)

    def off_by_norm(self, a: Rounded, count: float) -> Rounded:
        """Let matrices be off by count u times their Frobenius norm, as those are whose factors a library finds."""
        norm = np.sqrt(np.sum(a.size**2, axis=(-2, -1), keepdims=True)) * SLACK
        return Rounded(a.value, a.spread, a.error + count * self.u * norm, self)

    # Functions.

    def tabled(self, function: Function, x: Rounded) -> Rounded:
        """As the table has it."""
        value, inside = function.floats(x.value), function.inside(x.value)
        more = function.more_ulps(x.size, self.dtype)
        return self._function(function.name, x, value, function.steepest(x), more, inside, function.ulps)

    def _function(
        self, name: str, x: Rounded, value: Any, slope: Any, more_ulps: Any = 0.0, inside: Any = 0.0, ulps: Any = None
    ) -> Rounded:
        """|f(x^) - f(x)| <= slope |x^ - x|, for the steepest slope within reach."""
        spread, error = (np.where(part == 0, 0.0, slope * part) for part in (x.spread, x.error))
        exact = (is_zero(x) | is_infinite(x)) & (value == 0)  # f(0) = 0, and exp(-inf)
        ulps = 2 * ((ULPS[name] if ulps is None else ulps) + more_ulps)
        known = partial(bounded, x)
        return self.rounded(value, spread, error, ulps, inside, exact=exact, operation=name, known=known)

    def exp(self, x: Rounded) -> Rounded:
        """Steepest on the right."""
        return replace(self._function("exp", x, np.exp(x.value), np.exp(x.high)), log=x)

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
        return self._halved("sinh", x, self._function("sinh", x, np.sinh(x.value), np.cosh(x.size), x.size / 2))

    def cosh(self, x: Rounded) -> Rounded:
        """Likewise."""
        return self._halved("cosh", x, self._function("cosh", x, np.cosh(x.value), np.sinh(x.size), x.size / 2))

    def _halved(self, name: str, x: Rounded, result: Rounded) -> Rounded:
        """Return what overflows where exp(x) does."""
        held = np.exp(x.size) < self.largest
        if not held.all():
            self.explain(~held & bounded(x), True, name)
        return replace(result, error=np.where(held, result.error, np.inf))

    def tanh(self, x: Rounded) -> Rounded:
        """Steepest where nearest to 0."""
        return self._function("tanh", x, np.tanh(x.value), np.cosh(np.maximum(x.inner(x.reach), 0.0)) ** -2.0)

    def sign(self, x: Rounded) -> Rounded:
        """Known where no program can see another."""
        unsure = np.where((x.inner(x.reach) > 0) | x.exact, 0.0, 2.0)
        return Rounded(np.sign(x.value), unsure, unsure, self)

    def pow(self, x: Rounded, y: Rounded) -> Rounded:
        """x^n for one whole n by products and a reciprocal, or by a library from n = 3 on; else x^y for x > 0.

        A library is called for an array of exponents, whatever they are. Of exponentials a power may be merged.
        """
        n = y.value.flat[0]
        whole = np.all(y.exact & (y.value == n)) and n == np.round(n) and abs(n) < 2**31
        result = self._whole_power(x, y, int(n)) if whole else self._real_power(x, y)
        return result if x.log is None else self.merged(result, x.log * y)

    def _whole_power(self, x: Rounded, y: Rounded, n: int) -> Rounded:
        """In any order of the products; from 65 on by squares, whose bound is that of any order."""
        power = self.asarray(np.ones(x.shape))
        if abs(n) <= 64:
            for _ in range(abs(n)):
                power = power * x
        else:
            for bit in f"{abs(n):b}":
                power = power * power * x if bit == "1" else power * power
        if abs(n) > 2 or (n and y.value.size > 1):
            own = 2 * ULPS["pow"]
            power = self.rounded(power.value, power.spread, power.error, own, exact=is_zero(power))
        return 1.0 / power if n < 0 else power

    def _real_power(self, x: Rounded, y: Rounded) -> Rounded:
        """x^y is steepest at a corner; 0^y is an exact 0 for y > 0, and infinite for y < 0."""
        corners = [base**exponent for base in (x.low, x.high) for exponent in (y.low, y.high)]
        most = np.where(x.low > 0, np.max(np.stack(corners), axis=0), np.inf)
        by_x = y.size * most * _reciprocal(x.low)
        by_y = most * np.maximum(np.abs(np.log(x.low)), np.abs(np.log(x.high)))
        spread, error = (
            np.where(dx == 0, 0.0, by_x * dx) + np.where(dy == 0, 0.0, by_y * dy)
            for dx, dy in ((x.spread, y.spread), (x.error, y.error))
        )
        infinite = is_zero(x) & (y.high < 0)
        error = np.where(infinite, np.inf, error)
        ulps, known = 2 * ULPS["pow"], partial(bounded, x, y)
        result = self.rounded(x.value**y.value, spread, error, ulps, operation="a power", known=known)
        result = replaced(result, is_zero(x) & (y.low > 0), 0.0, 0.0)
        return replaced(result, infinite, np.inf, np.inf)

    def logaddexp(self, x: Rounded, y: Rounded) -> Rounded:
        """max + t with t = log1p(exp(-|x - y|)), as NumPy, torch and JAX compute it.

        The sum rounds by u of itself, and by no more than t, because the larger of x and y is a number of the dtype.
        """
        d, reach = x.value - y.value, x.reach + y.reach
        value = np.maximum(x.value, y.value) + np.log1p(np.exp(-np.abs(d)))
        by_x, by_y = logistic(d + reach), logistic(reach - d)
        spread, error = (by_x * dx + by_y * dy for dx, dy in ((x.spread, y.spread), (x.error, y.error)))
        t, inside = _correction(x, y)
        size = np.abs(value) + spread + error
        terms, size = np.minimum(size, t / 2.0**-53), np.minimum(size, t / self.u)
        known = partial(bounded, x, y)
        return self.rounded(
            value, spread, error, inside=inside, terms=terms, size=size, operation="logaddexp", known=known
        )

    # Slopes with several formulas in use.

    def logaddexp_slope(self, x: Rounded, y: Rounded, value: Rounded) -> Rounded:
        """s = 1 / (1 + exp(-d)) with d = x - y in torch, s = exp(x - value) in JAX.

        What they round, in units of u s: torch (1 - s) |d| and ulps; JAX what the value rounded, as above, |log s| and
        ulps. Where s is far below the smallest normal number, so is what they compute.
        """
        d, reach = x.value - y.value, (x.reach + y.reach) * SLACK
        nearest = np.maximum(np.abs(d) - reach, 0.0)
        steepest = logistic(nearest) * logistic(-nearest)  # ds = s (1 - s) dd
        spread, error = steepest * (x.spread + y.spread), steepest * (x.error + y.error)
        t, inside = _correction(x, y)
        divided = _times(np.abs(d) + reach, logistic(reach - d))
        subtracted = np.minimum(value.size, t / self.u) + inside + np.logaddexp(0.0, reach - d)
        vanishes = d + reach < 2 * np.log(self.tiny)
        rounded = np.where(vanishes, 0.0, divided + subtracted + 2 * ULPS["exp"] + 4)
        slope = self.rounded(logistic(d), spread, error, rounded)
        return replace(slope, error=np.where(vanishes, 2 * self.tiny, slope.error))

    def tanh_slope(self, x: Rounded, value: Rounded) -> Rounded:
        """1 - t t in torch, (1 + t) (1 - t) in JAX: at most 4 u apart. Autograd has 1 / cosh(x)^2.

        That is rounded by 10 u of itself, two for each u of cosh, of which NumPy has four at most (3.4 were measured),
        one for the square, one for the quotient; and it is 0 where cosh overflows.
        """
        slope = 1 - value * value
        most = np.cosh(np.maximum(x.inner(x.reach), 0.0)) ** -2.0
        divided = most * (10 * self.u + 2 * np.minimum(x.size, 1.0) * x.error) * SLACK + 2 * self.tiny
        return replace(slope, error=np.maximum(slope.error + 4 * self.u, divided))

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
    inside = _times(d + reach, logistic(-least)) + 2 * (ULPS["exp"] + ULPS["log1p"]) * t
    return t, inside * 1.001  # for the products of these errors


def _times(distance: Any, share: Any) -> Any:
    """Return the product, 0 where the share is, even of an infinite distance."""
    return np.where(share == 0, 0.0, distance * share)


def _reciprocal(x: Any) -> Any:
    """Return 1 / x for x > 0, else infinity."""
    return np.where(x > 0, 1 / x, np.inf)


def _may_be_largest(x: Rounded) -> Any:
    """Say which may be the largest along the last axis, exactly or in some program."""
    return x.high >= along_last(np.maximum, x.low)
