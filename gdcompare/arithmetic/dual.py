"""Dual numbers over any number system: each array beside its derivative along one direction, or along many.

    (x + dx e) (y + dy e) = x y + (dx y + x dy) e,   e^2 = 0;   f(x + dx e) = f(x) + f'(x) dx e

The tape runs over them as it is. Forward alone, the loss carries its derivative along the direction v, a jvp; walked
back, the gradient carries its own, the Hessian-vector product H v. Over balls both are enclosed, over rounded numbers
they have a budget.

A value is (1, *shape) and its tangent (p, *shape): p directions share the tape's hidden first axis, over which nothing
is ever summed. What depends on no parameter has no tangent.

Where a slope is written in several ways, so is its derivative: torch differentiates its own formula for it, JAX
another one. They round differently, and `any_of` allows for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

import numpy as np

from gdcompare.arithmetic.function import Constant, Function
from gdcompare.arithmetic.functions import SLOPES
from gdcompare.arithmetic.numbers import Numbers
from gdcompare.arithmetic.powers import exponent_slope, power_slope
from gdcompare.arithmetic.tape import Tape, Variable, recorded_loss
from gdcompare.backend import Reduction
from gdcompare.problem import Problem


def directional_derivatives(
    problem: Problem,
    numbers: Numbers,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    directions: Mapping[str, Any],
    weights: Any = None,
    reduction: Reduction = "mean",
) -> tuple[Any, Any]:
    """Return the loss, and its derivative along each of the p directions `{name: (p, *shape)}`: (), (p,).

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> from gdcompare.arithmetic.numbers import Floats
    >>> point = {"theta_0": 1.0, "theta_1": [0.0]}, [[1.0], [3.0]], [2.0, 4.0]
    >>> along = {"theta_0": np.array([1.0, 0.0]), "theta_1": np.array([[0.0], [1.0]])}
    >>> loss, derivatives = directional_derivatives(LinearRegression(), Floats(), *point, along)
    >>> float(loss), derivatives.tolist()
    (5.0, [-4.0, -10.0])
    """
    _, _, loss = _forward(problem, numbers, params, features, targets, directions, weights, reduction)
    return loss.value.value[0], loss.value.along(_count(directions))


def hessian_vector_products(
    problem: Problem,
    numbers: Numbers,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    directions: Mapping[str, Any],
    weights: Any = None,
    reduction: Reduction = "mean",
) -> dict[str, Any]:
    """Return H v for each of the p directions v, `{name: (p, *shape)}`: the gradient's derivative along v.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> from gdcompare.arithmetic.numbers import Floats
    >>> point = {"theta_0": 1.0, "theta_1": [0.0]}, [[1.0], [3.0]], [2.0, 4.0]
    >>> along = {"theta_0": np.array([1.0]), "theta_1": np.array([[1.0]])}
    >>> products = hessian_vector_products(LinearRegression(), Floats(), *point, along)
    >>> products["theta_0"].tolist(), products["theta_1"].tolist()  # 2/n sum (1 + x_i), 2/n sum (1 + x_i) x_i
    ([6.0], [[14.0]])
    """
    tape, leaves, loss = _forward(problem, numbers, params, features, targets, directions, weights, reduction)
    tape.walk_back(loss)
    return {name: tape.gradient(leaf).along(_count(directions)) for name, leaf in leaves.items()}


def _forward(
    problem: Problem,
    numbers: Numbers,
    params: Mapping[str, Any],
    features: Any,
    targets: Any,
    directions: Mapping[str, Any],
    weights: Any,
    reduction: Reduction,
) -> tuple[Tape, dict[str, Variable], Variable]:
    """Return the tape of the loss over dual numbers, its leaves, and the loss."""
    tape = Tape(DualNumbers(numbers))
    leaves = {name: tape.leaf(value) for name, value in params.items()}
    for name, leaf in leaves.items():
        leaf.value = Dual(leaf.value.numbers, leaf.value.value, numbers.asarray(directions[name]))
    return tape, leaves, recorded_loss(problem, tape, leaves, features, targets, weights, reduction)


def _count(directions: Mapping[str, Any]) -> int:
    return len(next(iter(directions.values())))


@final
class Dual:
    """An array of numbers, and how they change: value (1, *shape), tangent (p, *shape), or None for a constant."""

    __array_ufunc__ = None  # NumPy's arrays and scalars leave their operators to us

    def __init__(self, numbers: DualNumbers, value: Any, *tangents: Any) -> None:
        """Keep the value, and the sum of the tangents that there are, each copied along where the value is."""
        self.numbers, self.value, self.tangent = numbers, value, None
        some = [each for each in tangents if each is not None]
        if some:
            total = some[0] if len(some) == 1 else numbers.base.plus(*some)
            shape = (total.shape[0], *value.shape[1:])
            self.tangent = total if total.shape == shape else numbers.copied(total, shape)

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)

    def changing_as(self, *others: Dual) -> Dual:
        """Return the same value, whose tangent is the sum of the others': a constant, if there are none."""
        return Dual(self.numbers, self.value, *(each.tangent for each in others))

    def along(self, p: int) -> Any:
        """Return the tangent (p, *shape), 0 for a constant."""
        return self.numbers.spread(self, p)

    def __getitem__(self, key: Any) -> Dual:
        return Dual(self.numbers, self.value[key], None if self.tangent is None else self.tangent[key])

    def __neg__(self) -> Dual:
        return Dual(self.numbers, -self.value, None if self.tangent is None else -self.tangent)

    def __add__(self, other: Any) -> Dual:
        other = self.numbers.asarray(other)
        return Dual(self.numbers, self.value + other.value, self.tangent, other.tangent)

    def __sub__(self, other: Any) -> Dual:
        return self + -self.numbers.asarray(other)

    def __mul__(self, other: Any) -> Dual:
        other = self.numbers.asarray(other)
        return self._product(lambda a, b: a * b, other)

    def __matmul__(self, other: Dual) -> Dual:
        return self._product(lambda a, b: a @ b, other)

    def _product(self, times: Callable[[Any, Any], Any], other: Dual) -> Dual:
        """d(a b) = da b + a db."""
        left = None if self.tangent is None else times(self.tangent, other.value)
        right = None if other.tangent is None else times(self.value, other.tangent)
        return Dual(self.numbers, times(self.value, other.value), left, right)

    def __truediv__(self, other: Any) -> Dual:
        """d(a / b) = (da - (a / b) db) / b in torch, da / b - (db a) b^-2 in JAX."""
        other, base = self.numbers.asarray(other), self.numbers.base
        a, da, b, db = self.value, self.tangent, other.value, other.tangent
        value = a / b
        if db is None:
            return Dual(self.numbers, value, None if da is None else da / b)

        def together() -> Any:
            return (-(value * db) if da is None else da - value * db) / b

        def apart() -> Any:
            by_b = -((db * a) * base.pow(b, base.asarray(-2.0)))
            return by_b if da is None else da / b + by_b

        return Dual(self.numbers, value, base.any_of(together, apart))

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Dual:
        result: Dual = -self + other
        return result

    def __rtruediv__(self, other: Any) -> Dual:
        return Dual.__truediv__(self.numbers.asarray(other), self)


@final
class DualNumbers(Numbers):
    """Dual numbers over a base: each rule stands beside its derivative."""

    def __init__(self, base: Numbers) -> None:
        self.base = base

    def cast(self, x: Dual, dtype: str) -> Dual:
        """d x = dx, each rounded as the base does, if it does."""
        cast = getattr(self.base, "cast", lambda part, _: part)
        return Dual(self, cast(x.value, dtype), None if x.tangent is None else cast(x.tangent, dtype))

    def __getattr__(self, name: str) -> Any:
        if name not in SLOPES:
            raise AttributeError(name)
        return partial(self._function, name)

    def _function(self, name: str, x: Dual) -> Dual:
        """d f(x) = f'(x) dx."""
        value = getattr(self.base, name)(x.value)
        return Dual(self, value, self._chained(x.tangent, lambda: SLOPES[name](self.base, x.value, value)))

    def _chained(self, tangent: Any, slope: Callable[[], Any]) -> Any:
        return None if tangent is None else self.base.chain(tangent, slope())

    def tabled(self, function: Function, x: Dual) -> Dual:
        """d f(x) = f'(x) dx."""
        base, value = self.base, self.base.tabled(function, x.value)
        return Dual(self, value, self._chained(x.tangent, lambda: function.slope(base, x.value, value)))

    def log(self, x: Dual) -> Dual:
        """d log(x) = dx / x."""
        return self._function("log", x)

    # What moves numbers, and does not look at them.

    def asarray(self, values: Any) -> Dual:
        """Constants."""
        return values if isinstance(values, Dual) else Dual(self, self.base.asarray(values))

    def number(self, each: Constant) -> Dual:
        """A constant."""
        return Dual(self, self.base.number(each))

    def copied(self, tangent: Any, shape: tuple[int, ...]) -> Any:
        """Return copies, as many as the shape needs."""
        return self.base.rearrange(lambda part: np.broadcast_to(part, shape), tangent)

    def spread(self, x: Dual, p: int) -> Any:
        """Return the tangent of each of p directions, 0 for a constant."""
        shape = (p, *x.shape[1:])
        return self.base.asarray(np.zeros(shape)) if x.tangent is None else self.copied(x.tangent, shape)

    def rearrange(self, function: Callable[..., Any], *arrays: Dual) -> Dual:
        """Value and tangent alike."""
        value = self.base.rearrange(function, *(each.value for each in arrays))
        rows = [each.tangent.shape[0] for each in arrays if each.tangent is not None]
        if not rows:
            return Dual(self, value)
        return Dual(self, value, self.base.rearrange(function, *(self.spread(each, max(rows)) for each in arrays)))

    def off_by_norm(self, a: Dual, count: float) -> Dual:
        """Value and tangent alike."""
        off = getattr(self.base, "off_by_norm", None)
        if off is None:
            return a
        return Dual(self, off(a.value, count), None if a.tangent is None else off(a.tangent, count))

    def scatter(self, x: Dual, index: Any, shape: tuple[int, ...]) -> Dual:
        """Value and tangent alike."""
        value, tangent = self.base.scatter(x.value, index, shape), x.tangent
        if tangent is None:
            return Dual(self, value)
        return Dual(self, value, self.base.scatter(tangent, index, (tangent.shape[0], *shape[1:])))

    def sum(self, x: Dual, axis: tuple[int, ...]) -> Dual:
        """d sum x_i = sum dx_i."""
        tangent = None if x.tangent is None else self.base.sum(x.tangent, axis)
        return Dual(self, self.base.sum(x.value, axis), tangent)

    # Kinks: conditions and shares are constant on either side, so that a second derivative is that of either side.

    def max(self, x: Dual, kind: str = "max") -> Dual:
        """d max x_i = sum s_i dx_i; of a pair, torch has db + s (da - db), which cancels where db is the larger."""
        base, tangent, value = self.base, x.tangent, self.base.max(x.value, kind)
        if tangent is None:
            return Dual(self, value)
        shares = base.share_of_max(x.value, kind)

        def summed() -> Any:
            return base.sum(base.chain(tangent, shares), (-1,))[..., 0]

        def moved() -> Any:
            a, b = tangent[..., 0], tangent[..., 1]
            return b + shares[..., 0] * (a - b)

        pair = kind in ("maximum", "minimum")
        return Dual(self, value, base.any_of(summed, moved) if pair else summed())

    def share_of_max(self, x: Dual, kind: str) -> Dual:
        """Constant."""
        return Dual(self, self.base.share_of_max(x.value, kind))

    def compare(self, relation: np.ufunc, x: Dual, y: Dual, kink: bool) -> Dual:
        """Constant."""
        return Dual(self, self.base.compare(relation, x.value, y.value, kink))

    def where(self, condition: Dual, x: Dual, y: Dual) -> Dual:
        """d where(c, x, y) = where(c, dx, dy)."""
        value = self.base.where(condition.value, x.value, y.value)
        rows = [each.tangent.shape[0] for each in (x, y) if each.tangent is not None]
        if not rows:
            return Dual(self, value)
        nothing = self.base.asarray(np.zeros((1,) * value.ndim))  # a constant may lack the first axis
        branches = (nothing if each.tangent is None else self.spread(each, max(rows)) for each in (x, y))
        return Dual(self, value, self.base.where(condition.value, *branches))

    def leave_out(self, condition: Dual, cotangent: Dual) -> Dual:
        """Value and tangent alike."""
        value, tangent = self.base.leave_out(condition.value, cotangent.value), cotangent.tangent
        return Dual(self, value, None if tangent is None else self.base.leave_out(condition.value, tangent))

    def chain(self, cotangent: Dual, slope: Dual) -> Dual:
        """d(g s) = dg s + g ds."""
        g, s, chain = cotangent.value, slope.value, self.base.chain
        left = None if cotangent.tangent is None else chain(cotangent.tangent, s)
        right = None if slope.tangent is None else chain(g, slope.tangent)
        return Dual(self, chain(g, s), left, right)

    def plus(self, x: Dual, y: Dual) -> Dual:
        """d(x + y) = dx + dy."""
        return Dual(self, self.base.plus(x.value, y.value), x.tangent, y.tangent)

    def any_of(self, *formulas: Callable[[], Dual]) -> Dual:
        """The values of all; the tangents of all."""
        each = [formula() for formula in formulas]
        value = self.base.any_of(*(partial(_same, one.value) for one in each))
        if all(one.tangent is None for one in each):
            return Dual(self, value)
        return Dual(self, value, self.base.any_of(*(partial(_same, one.tangent) for one in each)))

    # Functions of two variables.

    def pow(self, x: Dual, y: Dual) -> Dual:
        """d x^y = y x^(y - 1) dx + x^y log(x) dy."""
        base, value = self.base, self.base.pow(x.value, y.value)
        left = self._chained(x.tangent, lambda: power_slope(base, x.value, y.value, y.tangent is None))
        right = self._chained(y.tangent, lambda: exponent_slope(base, x.value, y.value, value, x.tangent is None))
        return Dual(self, value, left, right)

    def logaddexp(self, x: Dual, y: Dual) -> Dual:
        """d log(exp(x) + exp(y)) = s dx + (1 - s) dy, s = 1 / (1 + exp(y - x))."""
        slope, value = self.base.logaddexp_slope, self.base.logaddexp(x.value, y.value)
        left = self._chained(x.tangent, lambda: slope(x.value, y.value, value))
        return Dual(self, value, left, self._chained(y.tangent, lambda: slope(y.value, x.value, value)))

    # Slopes with several formulas in use.

    def logaddexp_slope(self, x: Dual, y: Dual, value: Dual) -> Dual:
        """s = 1 / (1 + exp(y - x)) has ds = s (1 - s) (dx - dy).

        Torch has s = 1 / D and ds = -s dD / D with D = 1 + exp(y - x), which may overflow; JAX has s = exp(x - value)
        and ds = s (dx - dvalue), which cancels where s is near 1.
        """
        base, s = self.base, self.base.logaddexp_slope(x.value, y.value, value.value)
        apart = (x - y).tangent
        if apart is None:
            return Dual(self, s)

        def exact() -> Any:
            return (s * base.logaddexp_slope(y.value, x.value, value.value)) * apart

        def divided() -> Any:
            power = base.exp(y.value - x.value)  # type: ignore[attr-defined]  # by name, as in SLOPES
            return (s * (power * apart)) / (1 + power)

        def subtracted() -> Any:
            return s * (x - value).tangent

        return Dual(self, s, base.any_of(exact, divided, subtracted))

    def divide_slope(self, x: Dual, y: Dual, value: Dual) -> Dual:
        """The derivative of -(x / y) / y in torch, of -x y^-2 in JAX."""
        slope = self.base.divide_slope(x.value, y.value, value.value)
        if x.tangent is y.tangent is None:
            return Dual(self, slope)

        def twice() -> Any:
            return (-(value / y)).tangent

        def once() -> Any:
            return (-(x * self.pow(y, self.asarray(-2.0)))).tangent

        return Dual(self, slope, self.base.any_of(twice, once))

    def expm1_slope(self, x: Dual, value: Dual) -> Dual:
        """d(expm1(x) + 1) = d expm1(x)."""
        return Dual(self, self.base.expm1_slope(x.value, value.value), value.tangent)

    def tanh_slope(self, x: Dual, value: Dual) -> Dual:
        """d(1 - t t) = -2 t dt in torch; JAX has (1 - t) + (1 - t) t, whose derivative cancels where t is near 0."""
        slope = self.base.tanh_slope(x.value, value.value)
        if value.tangent is None:
            return Dual(self, slope)
        rest = 1 - value

        def together() -> Any:
            return -2 * value.value * value.tangent

        def apart() -> Any:
            return (rest + rest * value).tangent

        return Dual(self, slope, self.base.any_of(together, apart))


def _same(x: Any) -> Any:
    return x
