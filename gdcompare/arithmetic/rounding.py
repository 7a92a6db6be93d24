"""A number with a bound of its rounding error, and what an operation adds to it: the arithmetic of `rounded`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.function import UNKNOWN_ORDER, UNKNOWN_PLACE
from gdcompare.arithmetic.numbers import formula_line, vanishes
from gdcompare.backend import checked_dtype, unit_roundoff

Floats = NDArray[np.float64]

SLACK = 1 + 2.0**-20

_FEW = 8

# Why an error has no bound, by operation; of any other it is that the function has no value or no slope there.
NO_BOUND = {
    "a division": "a division by what may be 0",
    "a division by a subnormal number": "a division by what may be flushed to 0",
    "log": "log of what may be 0 or less",
    "log1p": "log1p of what may be -1 or less",
    "sqrt": "sqrt of what may be 0 or less",
    "a power": "a power of what may be 0 or less",
    UNKNOWN_PLACE: UNKNOWN_PLACE,
    UNKNOWN_ORDER: UNKNOWN_ORDER,
}
NEVER_BEYOND = {"log", "log1p", "sqrt", UNKNOWN_PLACE, UNKNOWN_ORDER}
"""What does not overflow."""


@final
@dataclass(frozen=True, eq=False)
class Rounded:
    """An array of numbers in value ± spread, which a program knows up to an error."""

    value: Floats
    spread: Floats
    error: Floats
    numbers: Rounding
    log: Rounded | None = None
    """Of what it is the exponential, where it is one."""
    quotient: tuple[Rounded, Rounded] | None = None
    """Of which two numbers of its shape it is the quotient, where it is one."""
    absent: NDArray[np.bool_] | None = None
    """Where it is the cotangent of a branch that was not taken, an exact 0; None for nowhere."""

    __array_ufunc__ = None  # NumPy's arrays and scalars leave their operators to us

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    exact = property(lambda self: (self.spread == 0) & (self.error == 0))
    reach = property(lambda self: self.spread + self.error)  # a computed number lies in value ± reach

    @property
    def size(self) -> Floats:
        """The largest |computed|: if it has not overflowed, no larger than the largest number."""
        if vanishes(self.spread) and vanishes(self.error):
            return np.abs(self.value)
        size = np.abs(self.value) + self.spread + self.error
        return np.where(np.isfinite(self.error), np.minimum(size, self.numbers.most(self.value)), size)

    def inner(self, reach: Any) -> Any:
        """Return a lower bound of |number| within that reach, not above the true one."""
        return np.where(np.isinf(reach), -np.inf, np.abs(self.value) - _outwards(self, reach))

    low = property(lambda self: np.where(np.isinf(self.reach), -np.inf, self.value - _outwards(self, self.reach)))
    high = property(lambda self: np.where(np.isinf(self.reach), np.inf, self.value + _outwards(self, self.reach)))

    def __getitem__(self, key: Any) -> Rounded:
        return self.numbers.rearrange(lambda part: part[key], self)

    def __neg__(self) -> Rounded:
        quotient = None if self.quotient is None else (-self.quotient[0], self.quotient[1])
        return Rounded(-self.value, self.spread, self.error, self.numbers, None, quotient, self.absent)

    def __add__(self, other: Any) -> Rounded:
        other = self.numbers.asarray(other)
        value, terms = self.value + other.value, np.abs(self.value) + np.abs(other.value)
        exact = is_zero(self) | is_zero(other)
        if self.exact.any() and other.exact.any():
            exact = exact | self.numbers.holds(terms, np.minimum(grid_of(self), grid_of(other)))
        exact = exact | ((value == 0) & self.exact & other.exact)  # x - x
        spread, error = self.spread + other.spread, self.error + other.error
        before = np.minimum(np.abs(value) + spread + error, self.size + other.size)
        infinite = np.isinf(value) & (is_infinite(self) | is_infinite(other)) & np.isfinite(spread + error)
        result = self.numbers.rounded(
            value, spread, error, exact=exact, before=before, operation="a sum",
            known=lambda: bounded(self, other) & ~infinite,
        )  # fmt: skip
        return replaced(result, infinite, value, 0.0)

    def __sub__(self, other: Any) -> Rounded:
        return self + -self.numbers.asarray(other)

    def __mul__(self, other: Any) -> Rounded:
        other = self.numbers.asarray(other)
        exact: Any = False
        if self.exact.any() and other.exact.any():
            exact = self.numbers.holds(np.abs(self.value * other.value), grid_of(self) * grid_of(other))
        exact = exact | is_zero(self) | is_zero(other) | is_power_of_2(self) | is_power_of_2(other)
        result = self.numbers.product(np.multiply, self, other, 1, exact)
        singular = (is_singular(self) & is_not_zero(other)) | (is_singular(other) & is_not_zero(self))
        result = replaced(result, singular, np.inf, np.inf)
        for one, number in ((self, other), (other, self)):
            if number.quotient is not None and result.shape == number.shape and is_one(one):
                return replace(result, log=number.log, quotient=number.quotient)
        return result if self.log is None or other.log is None else self.numbers.merged(result, self.log + other.log)

    def __matmul__(self, other: Rounded) -> Rounded:
        terms = np.abs(self.value) @ np.abs(other.value)
        exact: Any = False
        few = slice(_FEW)
        if _products_may_be_exact(self[..., few], other[..., few, :], terms):  # few terms tell, mostly
            grid = np.min(grid_of(self), axis=-1, keepdims=True) * np.min(grid_of(other), axis=-2, keepdims=True)
            exact = self.numbers.holds(terms, grid)
        if not np.all(exact) and not (self.value.all() and other.value.all()):
            exact = exact | ((~is_zero(self)).astype(float) @ (~is_zero(other)).astype(float) == 0)
        return self.numbers.product(np.matmul, self, other, self.shape[-1], exact, terms)

    def __truediv__(self, other: Any) -> Rounded:
        """x^ / y^ - x / y = (x^ - x + (x / y) (y - y^)) / y^, where ^ marks what is computed."""
        other = self.numbers.asarray(other)
        value = self.value / other.value
        least_exact, least = other.inner(other.spread), other.inner(other.reach)
        quotient = (np.abs(self.value) + self.spread) / least_exact
        spread = np.where(least_exact > 0, (self.spread + np.abs(value) * other.spread) / least_exact, np.inf)
        error = np.where(least > 0, (self.error + quotient * other.error) / least, np.inf)
        exact = is_zero(self) | is_power_of_2(other)
        subnormal = (least <= 0) & (other.value != 0) & (other.size < 8 * self.numbers.tiny)
        operation = "a division by a subnormal number" if subnormal.any() else "a division"
        known = partial(bounded, self, other)
        result = self.numbers.rounded(
            value, spread, error, self.numbers.division, exact=exact, operation=operation, known=known
        )
        result = replaced(result, is_zero(other) & is_not_zero(self), np.inf, np.inf)
        return self.numbers.rewritten_quotient(result, self, other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Rounded:
        result: Rounded = -self + other
        return result

    def __rtruediv__(self, other: Any) -> Rounded:
        return Rounded.__truediv__(self.numbers.asarray(other), self)


class Rounding:
    """The arithmetic of these numbers, for programs in one dtype."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(checked_dtype(dtype))
        self.u = unit_roundoff(dtype)
        self.division = 4 if dtype == "float32" else 2
        self.tiny, self.largest = float(np.finfo(self.dtype).tiny), float(np.finfo(self.dtype).max)
        self.unbounded: list[str] = []
        """Why errors became infinite, each reason once, in order: the first is where it began."""

    def asarray(self, values: Any) -> Rounded:
        """Take numbers in: arrays of the dtype are exact; so are constants that fit into float32.

        Any other constant has been computed by Python, and is rounded to the dtype: 2 u.
        """
        if isinstance(values, Rounded):
            return values
        value = np.asarray(values, dtype=np.float64)
        if isinstance(values, np.ndarray) and values.dtype == self.dtype and value.size:
            least, most = np.min(np.abs(value)), np.max(np.abs(value))  # NaN if any is
            if self.tiny <= least and most <= self.largest:
                nothing = np.broadcast_to(0.0, value.shape)
                return Rounded(value, nothing, nothing, self)
        exact = (isinstance(values, np.ndarray) and values.dtype == self.dtype) | (value == value.astype(np.float32))
        flushed = np.where(np.abs(value) < self.tiny, np.abs(value), 0.0)
        room = self.largest - np.abs(value)  # what is no larger than the largest number is rounded to nothing larger
        spread, error = (
            np.where(exact, 0.0, np.where(room >= 0, np.minimum(part * np.abs(value), room), np.inf))
            for part in (2.0**-53, 2 * self.u)
        )
        if (~exact & (room < 0)).any():
            self.explain(room < 0, True, f"a constant of {float(np.max(np.abs(value[~exact]))):.3g}")
        nowhere = np.isnan(value)  # what is no number has no bound either
        spread, error = (np.where(nowhere, np.inf, part) for part in (spread, error + flushed))
        return Rounded(value, spread, error, self)

    def most(self, value: Any) -> Any:
        """Return the largest number there is, or infinity where the value is."""
        return np.where(np.isinf(value), np.inf, self.largest)

    def holds(self, terms: Any, grid: Any) -> Any:
        """Say whether the dtype holds every multiple of the grid up to the sum of the terms.

        At grid / u itself the sum may have been rounded to it, from above.
        """
        return (grid >= self.tiny) & (terms < grid / self.u)

    def rounded(
        self, value: Any, spread: Any, error: Any, count: Any = 1, inside: Any = 0.0, terms: Any = None,
        size: Any = None, exact: Any = False, before: Any = None, operation: str = "",
        known: Callable[[], Any] = lambda: True,
    ) -> Rounded:  # fmt: skip
        """Finish an operation: add what `count` roundings may add.

        They are relative to `terms`, the sum of the absolute exact terms, and to `size`, that of the computed ones, or
        if there is but one to the result; and to what was rounded `inside` the operation. The result may overflow where
        the largest number may be exceeded; by the one number `before` it is rounded, if that is known. The operation
        is named where it is the first without a bound: where those of its operands are `known`.
        """
        flushed = (2 if terms is None else 2 * count) * self.tiny
        terms = np.abs(value) if terms is None else terms
        size = np.abs(value) + spread + error if size is None else size
        size = size if before is None else np.where(np.isfinite(size), size, before)
        subnormal = (np.abs(value) - spread - error < self.tiny) & ((value != 0) | (spread + error > 0))
        nothing = exact & ~subnormal
        own = _gamma(count, 2.0**-53) * (terms + inside) + 2.0**-1022
        theirs = _gamma(count, self.u) * (size + inside) + flushed
        beyond = np.isinf(value) & (operation not in NO_BOUND)  # of float64, in which the bounds are computed
        has_bound = (np.isfinite(error) | beyond) & ~np.isnan(value)
        spread = np.where(nothing, spread, (spread + own) * SLACK)
        error = np.where(nothing, error, (error + theirs) * SLACK)
        largest = np.maximum(size, np.abs(value) + spread) + error
        held = largest <= self.largest if before is None else before <= self.largest * (1 + self.u / 2)
        error = np.where(held, error, np.inf)  # also for NaN
        if operation and not held.all():
            self.explain(~held & known(), has_bound, operation)
        finite = np.isfinite(value) & np.isfinite(spread)
        return Rounded(np.where(finite, value, 0.0), np.where(finite, spread, np.inf), error, self)

    def explain(self, unbounded: NDArray[np.bool_], has_bound: Any, operation: str) -> None:
        """Note why errors are infinite: the operation has no bound there, or may overflow."""
        if not np.any(unbounded):
            return
        overflows = operation not in NEVER_BEYOND and np.all(has_bound | ~unbounded)
        reason = f"{operation} may overflow" if overflows else NO_BOUND.get(operation, f"{operation} has no bound")
        if not any(each.startswith(reason) for each in self.unbounded):
            self.unbounded.append(f"{reason} ({formula_line()})")

    def merged(self, result: Rounded, log: Rounded) -> Rounded:
        """Return a product or quotient of exponentials, which a compiler may have merged into that of `log`."""
        return replace(result, error=np.maximum(result.error, self.exp(log).error), log=log)

    def product(
        self, multiply: Callable[[Any, Any], Any], x: Rounded, y: Rounded, count: int, exact: Any, terms: Any = None
    ) -> Rounded:
        """x^ y^ - x y = x^ (y^ - y) + (x^ - x) y, for products of numbers or of matrices; `terms` is |x| |y|."""

        def times(a: Any, b: Any) -> Any:
            return multiply(a, b) if a.any() and b.any() else 0.0

        spread: Any = 0.0
        error: Any = 0.0
        if not vanishes(y.spread):
            spread = times(np.abs(x.value) + x.spread, y.spread)
        if not vanishes(x.spread):
            spread = spread + times(x.spread, np.abs(y.value))
        if not vanishes(y.error):
            error = times(x.size, y.error)
        if not vanishes(x.error):
            error = error + times(x.error, np.abs(y.value) + y.spread)
        terms = multiply(np.abs(x.value), np.abs(y.value)) if terms is None else terms
        rounded = not all(map(vanishes, (x.spread, x.error, y.spread, y.error)))
        size = multiply(x.size, y.size) if rounded else terms
        value = multiply(x.value, y.value)

        def known() -> Any:
            if multiply is np.multiply:
                return bounded(x, y)
            return bounded(x).all(axis=-1, keepdims=True) & bounded(y).all(axis=-2, keepdims=True)

        return self.rounded(
            value, spread, error, count, terms=terms, size=size, exact=exact, operation="a product", known=known
        )

    def rewritten_quotient(self, result: Rounded, x: Rounded, y: Rounded) -> Rounded:
        """Return x / y as it is, or as a compiler rewrites it: one quotient of products, or by exponentials."""
        (a, b), (c, d) = x.quotient or (x, None), y.quotient or (y, None)
        above, below = a if d is None else a * d, c if b is None else b * c
        if above is not x or below is not y:
            once = replace(above, quotient=None) / replace(below, quotient=None)
            result = replace(result, error=np.maximum(result.error, once.error))
        if y.log is not None and (x.log is not None or is_one(x)):
            result = self.merged(result, -y.log if x.log is None else x.log - y.log)
        elif y.log is not None:
            by_product = x * self.exp(-y.log)
            result = replace(result, error=np.maximum(result.error, by_product.error))
        copies = partial(np.broadcast_to, shape=result.shape)
        return replace(result, quotient=(self.rearrange(copies, above), self.rearrange(copies, below)))

    def rearrange(self, function: Callable[..., Any], *arrays: Rounded) -> Rounded:
        """Each part alike."""
        parts = zip(*((each.value, each.spread, each.error) for each in arrays), strict=True)
        value, spread, error = (function(*part) for part in parts)
        log = quotient = absent = None
        if all(each.log is not None for each in arrays):
            log = self.rearrange(function, *(each.log for each in arrays if each.log is not None))
        if any(each.absent is not None for each in arrays):
            absent = function(*(absence(each) for each in arrays))
        if all(each.quotient is not None for each in arrays):
            parts = zip(*(each.quotient for each in arrays if each.quotient is not None), strict=True)
            above, below = (self.rearrange(function, *part) for part in parts)
            quotient = above, below
        return Rounded(value, spread, error, self, log, quotient, absent)

    def exp(self, x: Rounded) -> Rounded:
        """Return exp(x), which merged exponentials need."""
        raise NotImplementedError


def _gamma(count: Any, u: float) -> Any:
    """Return count u / (1 - count u), which bounds the relative effect of that many roundings."""
    return np.where(count * u < 1, count * u / (1 - count * u), np.inf)


def _products_may_be_exact(x: Rounded, y: Rounded, terms: Any) -> bool:
    """Say whether sums of some products may be multiples of a power of 2 that the dtype can hold."""
    grid = np.min(grid_of(x), axis=-1, keepdims=True) * np.min(grid_of(y), axis=-2, keepdims=True)
    return bool(np.any(x.numbers.holds(terms, grid)))


def _outwards(x: Rounded, reach: Any) -> Any:
    """Return a little more than the reach, unless it is 0: enough to cover the rounding of value ± reach."""
    return np.where(reach == 0, 0.0, reach * SLACK + np.abs(x.value) * 2.0**-50)


def replaced(x: Rounded, where: Any, value: Any, spread: Any) -> Rounded:
    """Return other numbers there, whose error is their spread: exact ones, or infinite ones of unknown sign."""
    if not np.any(where):
        return x
    parts = ((value, x.value), (spread, x.spread), (spread, x.error))
    new, spread, error = (np.where(where, there, elsewhere) for there, elsewhere in parts)
    return replace(x, value=new, spread=spread, error=error)


def bounded(*operands: Rounded) -> Any:
    """Say where all errors have bounds."""
    known = np.isfinite(operands[0].error)
    for each in operands[1:]:
        known = known & np.isfinite(each.error)
    return known


def absence(x: Rounded) -> Any:
    """Say where it is the cotangent of a branch that was not taken."""
    return np.zeros(x.shape, dtype=bool) if x.absent is None else x.absent


def is_zero(x: Rounded) -> Any:
    """Say where it is an exact 0."""
    return (x.value == 0) & x.exact


def is_not_zero(x: Rounded) -> Any:
    """Say where it is finite and no program has 0."""
    return (np.abs(x.value) > x.reach) & np.isfinite(x.reach)


def is_one(x: Rounded) -> bool:
    """Say whether it is an exact 1 everywhere."""
    return bool(np.all((x.value == 1) & x.exact))


def is_infinite(x: Rounded) -> Any:
    """Say where the number is infinite of known sign."""
    return np.isinf(x.value) & x.exact


def is_singular(x: Rounded) -> Any:
    """Say where the number is infinite in every program, of unknown sign."""
    return np.isinf(x.value) & ~x.exact


def is_power_of_2(x: Rounded) -> Any:
    """Say where it is an exact power of 2, or its negative."""
    return (np.frexp(np.abs(x.value))[0] == 0.5) & x.exact


def grid_of(x: Rounded) -> Any:
    """Return the largest power of 2 of which each number is a multiple: infinity for 0, and 0 if it is not exact."""
    if not x.exact.any():
        return np.broadcast_to(0.0, x.shape)
    mantissa, exponent = np.frexp(np.where(np.isinf(x.value), 0.0, x.value))
    digits = np.ldexp(mantissa, 53).astype(np.int64)
    grid = np.ldexp((digits & -digits).astype(np.float64), exponent - 53)
    return np.where(x.exact & np.isfinite(x.value), np.where(digits == 0, np.inf, grid), 0.0)
