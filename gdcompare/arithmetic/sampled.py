"""Numbers that are rounded at random, many times at once, as a number system: Monte Carlo arithmetic.

Where `rounded` bounds the worst that rounding may do, this samples what it does. Every array has its draws along the
tape's hidden axis; each is a run of the program in which every inexact operation, computed in float64, is off by

    count u |terms| xi,     xi uniform in [-1, 1], drawn anew for each number

with u the unit roundoff of the dtype under test. As in `rounded`, the count is 1 for + - *, 2 or 4 for /, and twice
the `ULPS` of a function; the terms are those of a sum, or else the result. A sum of k terms has the count sqrt(k).

What independent draws do not model is drawn once for all the numbers of an operation, or stated:

* a library function may be off to the same side for all its arguments: it has a second xi, which they share;
* in a long sum of equal signs the roundings may agree: equal numbers, added one after the other, are off by up to
  k u |sum| / 4 (NumPy, down a column), and k u |sum| / 28 has 12 deviations of that size;
* what is smaller than the smallest normal number may be flushed to 0: twice that number, for all to the same side;
* a number beyond the largest is unknown, NaN, and so is what depends on it; an infinity that was given is itself. So is
  a quotient by what may be flushed to 0.

Nothing is drawn where nothing is rounded: for moves, negation, comparisons, products with 0 and powers of 2, sums with
0, and for numbers that no draw has touched wherever the dtype holds their result.

A condition that rounding may turn is turned at random, each way in half of the draws, as is a choice of the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.axes import along_last
from gdcompare.arithmetic.exactness import is_power_of_2, product_is_exact, sum_is_exact
from gdcompare.arithmetic.function import Function
from gdcompare.arithmetic.functions import Tabled
from gdcompare.arithmetic.numbers import Numbers
from gdcompare.arithmetic.precision import NARROW, rounded_to
from gdcompare.arithmetic.rounded import ULPS
from gdcompare.backend import checked_dtype, unit_roundoff

Floats = NDArray[np.float64]

DRAWS = 16
UNDECIDED = 12.0
"""A condition within this many deviations of its edge may turn out either way."""


def root_mean_square(values: Floats, axis: int | None = None) -> Floats:
    """Return sqrt(mean of x^2), whose squares neither overflow nor vanish: they are of x over a power of 2 near it.

    >>> float(root_mean_square(np.array([3e-300, 3e-300])))
    3e-300
    """
    largest = np.max(np.abs(values), axis=axis, keepdims=True, initial=0.0)
    _, exponent = np.frexp(np.where(np.isfinite(largest), largest, 0.0))
    means = np.mean(np.ldexp(values, -exponent) ** 2, axis=axis, keepdims=True)
    return np.asarray(np.squeeze(np.ldexp(np.sqrt(means), exponent), axis=axis))


@final
class Sampled:
    """An array (draws, *shape) of numbers as programs compute them; (1, *shape) where all compute the same."""

    __array_ufunc__ = None  # NumPy's arrays and scalars leave their operators to us

    def __init__(self, value: Any, exact: bool, numbers: SampledNumbers, inexact: Any = None) -> None:
        self.value, self.exact, self.numbers = value, exact, numbers
        self.inexact = inexact  # which constants Python has rounded: they await their hidden axis

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)

    def __getitem__(self, key: Any) -> Sampled:
        part = Sampled(self.value[key], self.exact, self.numbers)
        return part if self.inexact is None else self.numbers.rounded(part.value, 2, where=self.inexact[key])

    def __neg__(self) -> Sampled:
        return Sampled(-self.value, self.exact, self.numbers)

    def __add__(self, other: Any) -> Sampled:
        other = self.numbers.asarray(other)
        value, of = self.value + other.value, (self.value, other.value)
        if self.exact and other.exact:
            return self.numbers.unless_exact(value, sum_is_exact(self.value, other.value, value), of)
        added = [each.value != 0 for each in (self, other) if each.exact]
        where = added[0] if added else True
        return self.numbers.rounded(
            value, 1, of=of, where=where, added_up=lambda: np.abs(self.value) + np.abs(other.value)
        )

    def __sub__(self, other: Any) -> Sampled:
        return self + -self.numbers.asarray(other)

    def __mul__(self, other: Any) -> Sampled:
        other = self.numbers.asarray(other)
        value, of = self.value * other.value, (self.value, other.value)
        if self.exact and other.exact:
            return self.numbers.unless_exact(value, product_is_exact(self.value, other.value, value), of)
        factors = [~is_power_of_2(each.value) for each in (self, other) if each.exact]
        return self.numbers.rounded(value, 1, of=of, where=factors[0] if factors else True)

    def __matmul__(self, other: Sampled) -> Sampled:
        value, terms = self.value @ other.value, np.abs(self.value) @ np.abs(other.value)
        if self.exact and other.exact and self.numbers.whole(terms, self.value, other.value):
            return Sampled(value, True, self.numbers)
        return self.numbers.added(
            value,
            terms,
            self.shape[-1],
            lambda: np.isinf(self.value).any(-1)[..., None] | np.isinf(other.value).any(-2)[..., None, :],
        )

    def __truediv__(self, other: Any) -> Sampled:
        other = self.numbers.asarray(other)
        divides = ~is_power_of_2(other.value) if other.exact else True
        value, of = self.value / other.value, (self.value, np.where(other.value == 0, np.inf, other.value))
        flushed = (np.abs(other.value) < 4 * self.numbers.tiny) & (other.value != 0)
        value = np.where(flushed, np.nan, value) if flushed.any() else value
        return self.numbers.rounded(value, self.numbers.division, of=of, where=divides)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Sampled:
        result: Sampled = -self + other
        return result

    def __rtruediv__(self, other: Any) -> Sampled:
        return Sampled.__truediv__(self.numbers.asarray(other), self)


class Witness(Protocol):
    """One who looks on while numbers are rounded, and says by how much."""

    def rounds(self, u: float, value: Any, sizes: Any, name: str, hidden: tuple[int, ...]) -> Any:
        """Return the rounding of an operation whose terms have these sizes; `hidden` is a shape of the draws alone."""

    def remembers(self, value: Sampled, name: str) -> None:
        """Note the result of a function of that name, whose slope may be asked for."""

    def slope_of(self, value: Sampled) -> AbstractContextManager[None]:
        """Return a context in which the slope of the function with that result is computed."""


class SampledNumbers(Tabled, Numbers):
    """Draws for programs in one dtype; the same each time. NumPy may warn of overflow: call it inside `np.errstate`.

    `rows` computations share the hidden axis, each with its draws beside each other; `first` is the number of the first
    of the draws, where they come in parts. A `witness` sees each operation, and may round it in a way of its own.
    """

    def __init__(
        self, dtype: str, draws: int = DRAWS, rows: int = 1, first: int = 0, witness: Witness | None = None
    ) -> None:
        self.dtype = np.dtype(checked_dtype(dtype))
        # A float64 moves by whole ulps: half of u or less would be lost in it, and u seldom passes.
        self.u = unit_roundoff(dtype) * (1.0 if dtype == "float32" else 1.5)
        self.division = 4 if dtype == "float32" else 2
        self.tiny, self.largest = float(np.finfo(self.dtype).tiny), float(np.finfo(self.dtype).max)
        self.draws, self.rows, self.first, self.witness = draws, rows, first, witness
        self.generator = np.random.Generator(np.random.SFC64(first))

    # Rounding.

    def rounded(
        self,
        value: Any,
        count: Any,
        *,
        of: Sequence[Any] = (np.inf,),
        terms: Any = None,
        where: Any = True,
        shared: bool = False,
        added_up: Callable[[], Any] | None = None,
        name: str = "",
    ) -> Sampled:
        """Finish an operation: let it be off by `count` u of the terms, or else of the value, where it rounds.

        `of` are the operands of one that may overflow, for no other makes a number too large out of such as are not;
        `added_up` and the name are for the witness: the sizes of what the operation adds, and what it is.
        """
        if where is not True and not np.any(where):
            return self._finished(value, False, of)
        hidden = (self.draws * self.rows, *[1] * (np.ndim(value) - 1))
        if self.witness is not None:
            sizes = np.abs(value) if added_up is None else added_up()
            return self._finished(value + self.witness.rounds(self.u, value, sizes, name, hidden), False, of)
        result = np.abs(value)
        size = (self.u * count) * (result if terms is None else terms)
        if where is not True:
            size = np.where(where, size, 0.0)
        if not np.max(size, initial=0.0) < np.inf:
            size = np.where(np.isfinite(size), size, 0.0)  # infinity is not rounded
        xi = self._uniform((hidden[0], *np.shape(value)[1:]))
        if shared:
            xi = xi + self._uniform(hidden)
        return self._finished(value + size * xi, False, of, result)

    def unless_exact(self, value: Any, exact: Any, of: Sequence[Any]) -> Sampled:
        """Finish an operation on numbers that no draw has touched: it rounds what the dtype does not hold."""
        if self.dtype == np.float32:
            exact = value == value.astype(np.float32)  # float64 computes the sum, to 53 bits, and the product exactly
        return Sampled(value, True, self) if exact.all() else self.rounded(value, 1, where=~exact, of=of)

    def added(self, value: Any, terms: Any, k: int, infinite: Callable[[], Any]) -> Sampled:
        """Finish a sum of k terms; in some order its partial sums may be as large as all of them together.

        `infinite` tells where one of the terms is.
        """
        if not np.max(terms, initial=0.0) <= self.largest:
            value = np.where((terms <= self.largest) | infinite(), value, np.nan)
        size = np.maximum(np.sqrt(k) * terms, k / 28 * np.abs(value))
        return self.rounded(value, 1, terms=size, added_up=lambda: terms, name="a sum")

    def whole(self, terms: Any, *arrays: Any) -> bool:
        """Say whether sums of products of these are whole numbers that the dtype holds."""
        return bool(terms.max(initial=0.0) < 1 / self.u) and all(np.array_equal(x, np.rint(x)) for x in arrays)

    def _uniform(self, shape: tuple[int, ...]) -> Any:
        xi = self.generator.random(shape, dtype=np.float32)
        xi *= 2
        xi -= 1
        return xi

    def _finished(self, value: Any, exact: bool, of: Sequence[Any] = (np.inf,), size: Any = None) -> Sampled:
        """Let what is too small be flushed, and what is too large, of operands that are not, unknown."""
        size = np.abs(value) if size is None else size
        if not np.min(size, initial=np.inf) >= self.tiny:
            small = (size < self.tiny) & (size > 0)
            if small.any():
                hidden = (self.draws * self.rows, *[1] * (np.ndim(value) - 1))
                value, exact = value + 2 * self.tiny * small * self._uniform(hidden), False
        if not size.max(initial=0.0) <= self.largest:
            large = over = size > self.largest
            for each in of:
                over = over & (np.abs(each) <= self.largest)
            value = np.where(over, np.nan, np.where(large, np.copysign(np.inf, value), value))
        return Sampled(value, exact, self)

    def by_draw(self, value: Any) -> Any:
        """Return the array as (rows, draws, *shape)."""
        return np.broadcast_to(value, (self.rows * self.draws, *value.shape[1:])).reshape(
            self.rows, self.draws, *value.shape[1:]
        )

    def _within_reach(self, gap: Any) -> Any:
        """Say where 0 is near: within a few deviations of the gap's mean, but not exactly there in every draw."""
        gaps = self.by_draw(gap)
        mean = gaps.mean(axis=1, keepdims=True)
        deviation = root_mean_square(gaps - mean, axis=1)[:, None]
        near = (np.abs(mean) <= UNDECIDED * deviation) & (deviation > 0)
        return np.broadcast_to(near, gaps.shape).reshape(-1, *gaps.shape[2:])

    # Numbers in, and moved.

    def asarray(self, values: Any) -> Sampled:
        """Take numbers in: arrays of the dtype are exact; so are constants that fit into float32.

        Any other constant has been computed by Python, and is rounded to the dtype: 2 u.
        """
        if isinstance(values, Sampled):
            return values
        value = np.asarray(values, dtype=np.float64)
        if isinstance(values, np.ndarray) and values.dtype == self.dtype:
            return Sampled(value, True, self)
        inexact = np.asarray(value != value.astype(np.float32))
        return Sampled(value, True, self, inexact if inexact.any() else None)

    def rearrange(self, function: Callable[..., Any], *arrays: Sampled) -> Sampled:
        """As it is; beside what differs from draw to draw, what does not is the same in each."""
        draws = max((len(each.value) for each in arrays), default=1)
        values = (np.broadcast_to(each.value, (draws, *each.value.shape[1:])) for each in arrays)
        return Sampled(function(*values), all(each.exact for each in arrays), self)

    def scatter(self, x: Sampled, index: Any, shape: tuple[int, ...]) -> Sampled:
        """Into zeros."""
        zeros = np.zeros(shape)
        zeros[index] = x.value
        return Sampled(zeros, x.exact, self)

    def cast(self, x: Sampled, dtype: str) -> Sampled:
        """One rounding to a narrower dtype; what it holds is as it was, and what is beyond it is unknown."""
        limits, size = NARROW[dtype], np.abs(x.value)
        off = np.isfinite(size) & (rounded_to(x.value, dtype) != x.value) if x.exact else np.isfinite(size)
        if not off.any():
            return x
        unit = np.where(off, np.fmax(limits.u * size, limits.tiny * (size > 0)), 0.0)
        value = np.where(off & (size > limits.largest), np.nan, x.value)
        hidden = (self.draws * self.rows, *[1] * (np.ndim(value) - 1))
        if self.witness is not None:
            sizes = np.where(off, size, 0.0)
            return Sampled(
                value + self.witness.rounds(limits.u, value, sizes, f"a cast to {dtype}", hidden), False, self
            )
        return Sampled(value + unit * self._uniform((hidden[0], *np.shape(value)[1:])), False, self)

    # Sums, ties, conditions.

    def sum(self, x: Sampled, axis: tuple[int, ...]) -> Sampled:
        """In any order."""
        total = np.sum(x.value, axis=axis, keepdims=True)
        terms = np.sum(np.abs(x.value), axis=axis, keepdims=True)
        if x.exact and self.whole(terms, x.value):
            return Sampled(total, True, self)
        k = x.value[:1].size // total[:1].size
        if k <= 1:
            return Sampled(total, x.exact, self)
        return self.added(total, terms, k - 1, lambda: np.isinf(x.value).any(axis=axis, keepdims=True))

    def max(self, x: Sampled, kind: str = "max") -> Sampled:
        """The largest, in each draw."""
        del kind
        return Sampled(along_last(np.maximum, x.value)[..., 0], x.exact, self)

    def share_of_max(self, x: Sampled, kind: str) -> Sampled:
        """1/k for each of k that are equal in every draw; of those that rounding may make the largest, any one."""
        del kind
        largest = along_last(np.maximum, x.value)
        equal = x.value == largest
        near = self._within_reach(x.value - largest) if not x.exact else np.zeros(1, dtype=bool)
        if near.any():
            some = (equal | near) & along_last(np.logical_or, near)
            ticket = np.where(some, self.generator.random(some.shape), -1.0)
            chosen = ticket == along_last(np.maximum, ticket)
            equal = np.where(along_last(np.logical_or, some), chosen, equal)
        return self._conditions(equal / along_last(np.add, equal.astype(np.float64)))

    def compare(self, relation: np.ufunc, x: Sampled, y: Sampled, kink: bool) -> Sampled:
        """1 or 0; where rounding may turn it, either."""
        del kink
        holds = relation(x.value, y.value)
        if not (x.exact and y.exact):
            near = self._within_reach(x.value - y.value)
            if near.any():
                holds = np.where(near, self.generator.random(near.shape) < 0.5, holds)
        return self._conditions(holds.astype(np.float64))

    def _conditions(self, value: Any) -> Sampled:
        """Return exact numbers, whatever they were decided by."""
        draws = self.by_draw(value) if value.shape[:1] == (self.rows * self.draws,) else None
        same = draws is not None and self.rows == 1 and bool(np.all(draws == draws[:, :1]))
        return Sampled(value[:1] if same else value, True, self)

    def where(self, condition: Sampled, x: Sampled, y: Sampled) -> Sampled:
        """NumPy's."""
        exact = condition.exact and x.exact and y.exact
        return Sampled(np.where(condition.value > 0.5, x.value, y.value), exact, self)

    def leave_out(self, condition: Sampled, cotangent: Sampled) -> Sampled:
        """By choice, not by product."""
        return self.where(condition, cotangent, self.asarray(0.0))

    def chain(self, cotangent: Sampled, slope: Sampled) -> Sampled:
        """0 stays 0, but for slopes that are not known."""
        product = cotangent * slope
        if not np.isfinite(product.value).all():
            product.value = np.where((cotangent.value == 0) & ~np.isnan(slope.value), 0.0, product.value)
        return product

    def plus(self, x: Sampled, y: Sampled) -> Sampled:
        """The sum."""
        return x + y

    def any_of(self, *formulas: Callable[[], Sampled]) -> Sampled:
        """Each in its share of the draws."""
        found = [formula() for formula in (formulas if self.witness is None else formulas[:1])]
        if len({each.value.shape for each in found}) == 1 == found[0].value.shape[0] and all(x.exact for x in found):
            return found[0]
        turn = np.tile(np.arange(self.first, self.first + self.draws) % len(found), self.rows)
        hidden = (-1, *[1] * (found[0].ndim - 1))
        value = found[0].value
        for i, each in enumerate(found[1:], 1):
            value = np.where((turn == i).reshape(hidden), each.value, value)
        return Sampled(value, False, self)

    def off_by_norm(self, a: Sampled, count: float) -> Sampled:
        """Move matrices in every direction, by u times their norm."""
        del count
        norm = np.sqrt(np.sum(a.value**2, axis=(-2, -1), keepdims=True))
        return self.rounded(a.value, 1, terms=norm)

    # Functions.

    def tabled(self, function: Function, x: Sampled) -> Sampled:
        """As the table has it."""
        value, more = function.floats(x.value), function.more_ulps(np.abs(x.value), self.dtype)
        return self._function(function.name, x, value, more, (x.value,), function.inside(x.value), function.ulps)

    def _function(
        self,
        name: str,
        x: Sampled,
        value: Any,
        more_ulps: Any = 0.0,
        of: Sequence[Any] = (np.inf,),
        inside: Any = 0.0,
        ulps: Any = None,
    ) -> Sampled:
        """Off by its ulps, to the same side for all arguments, and by as many to any side for each."""
        zero = (value != 0) | (x.value != 0) if x.exact else True  # f(0) = 0
        ulps = 2 * ((ULPS[name] if ulps is None else ulps) + more_ulps)
        terms = None if np.all(inside == 0) else np.abs(value) + inside
        result = self.rounded(value, ulps, terms=terms, where=zero, shared=True, name=name, of=of)
        if self.witness is not None:
            self.witness.remembers(result, name)
        return result

    def exp(self, x: Sampled) -> Sampled:
        """NumPy's."""
        return self._function("exp", x, np.exp(x.value), of=(x.value,))

    def expm1(self, x: Sampled) -> Sampled:
        """NumPy's."""
        return self._function("expm1", x, np.expm1(x.value), of=(x.value,))

    def log(self, x: Sampled) -> Sampled:
        """NumPy's."""
        return self._function("log", x, np.log(x.value))

    def log1p(self, x: Sampled) -> Sampled:
        """In part of its range XLA's float64 uses a polynomial made for another: see `RoundedNumbers.log1p`."""
        beside = (self.dtype == np.float64) & (x.value > -0.42) & (x.value < -0.29)
        return self._function("log1p", x, np.log1p(x.value), np.where(beside, 156.0, 0.0))

    def sqrt(self, x: Sampled) -> Sampled:
        """NumPy's."""
        return self._function("sqrt", x, np.sqrt(x.value))

    def sin(self, x: Sampled) -> Sampled:
        """NumPy's."""
        return self._function("sin", x, np.sin(x.value))

    def cos(self, x: Sampled) -> Sampled:
        """NumPy's."""
        return self._function("cos", x, np.cos(x.value))

    def sinh(self, x: Sampled) -> Sampled:
        """With XLA's rounding of the argument, and torch's exp(x) / 2, which overflows: see `RoundedNumbers.sinh`."""
        value = np.where(np.exp(np.abs(x.value)) < self.largest, np.sinh(x.value), np.inf)
        return self._function("sinh", x, value, np.abs(x.value) / 2, (x.value,))

    def cosh(self, x: Sampled) -> Sampled:
        """Likewise."""
        value = np.where(np.exp(np.abs(x.value)) < self.largest, np.cosh(x.value), np.inf)
        return self._function("cosh", x, value, np.abs(x.value) / 2, (x.value,))

    def tanh(self, x: Sampled) -> Sampled:
        """NumPy's."""
        return self._function("tanh", x, np.tanh(x.value))

    def sign(self, x: Sampled) -> Sampled:
        """NumPy's; where rounding may turn it, either."""
        near = np.zeros(1, dtype=bool) if x.exact else self._within_reach(x.value)
        sign = np.sign(x.value)
        return self._conditions(
            np.where(near, np.sign(self.generator.random(near.shape) - 0.5), sign) if near.any() else sign
        )

    def pow(self, x: Sampled, y: Sampled) -> Sampled:
        """By a library, or for a whole exponent n by n products."""
        products = np.where(y.value == np.rint(y.value), np.minimum(np.abs(y.value), 1024.0) / 2, 0.0)
        of = np.where(x.value == 0, np.inf, x.value), y.value
        return self._function("pow", x, x.value**y.value, products, of)

    def logaddexp(self, x: Sampled, y: Sampled) -> Sampled:
        """max + t with t = log1p(exp(-|x - y|)), whose sum rounds by no more than t."""
        apart = x - y
        t = self.log1p(self.exp(Sampled(-np.abs(apart.value), apart.exact, self)))
        most = np.maximum(x.value, y.value)
        value = np.where(np.isnan(t.value), np.logaddexp(x.value, y.value), most + t.value)  # of equal infinities
        return self.rounded(value, 1, terms=np.minimum(np.abs(value), np.abs(t.value) / self.u))

    # Slopes with several formulas in use.

    def logaddexp_slope(self, x: Sampled, y: Sampled, value: Sampled) -> Sampled:
        """1 / (1 + exp(y - x)) in torch, exp(x - value) in JAX."""
        return self.any_of(lambda: 1 / (1 + self.exp(y - x)), lambda: self.exp(x - value))

    def divide_slope(self, x: Sampled, y: Sampled, value: Sampled) -> Sampled:
        """-(x / y) / y in torch, -x (1 / (y y)) in JAX."""
        return self.any_of(lambda: -(value / y), lambda: -(x * (1 / (y * y))))

    def expm1_slope(self, x: Sampled, value: Sampled) -> Sampled:
        """expm1(x) + 1."""
        del x
        with self._slope_of(value):
            return value + 1

    def tanh_slope(self, x: Sampled, value: Sampled) -> Sampled:
        """1 - t t in torch, (1 + t) (1 - t) in JAX."""
        del x
        with self._slope_of(value):
            return self.any_of(lambda: 1 - value * value, lambda: (1 + value) * (1 - value))

    def _slope_of(self, value: Sampled) -> AbstractContextManager[None]:
        return nullcontext() if self.witness is None else self.witness.slope_of(value)
