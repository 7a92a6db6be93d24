"""SymPy's expressions as a number system: what comes out is the formula itself, as a program would compute it.

Formulas here are smooth: a condition is an unknown number c that is 0 or 1, `where(c, a, b)` is c a + (1 - c) b, and
the larger of two is chosen by the condition that it is larger. What holds for each such c holds on either side of
every kink and jump, and nothing is said of the points on them. Conditions are recognised: x < y, y > x and
2 y - 2 x > 0 are one.

A float stands for the simplest fraction that rounds to it: 0.1 is 1/10, as its author meant, and 2 / 3 is 2/3; where
there is none, for pi, e, or the logarithm of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, NamedTuple, final

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.balls import boxed, elementwise
from gdcompare.arithmetic.function import Constant, Function
from gdcompare.arithmetic.functions import Tabled
from gdcompare.arithmetic.numbers import Numbers, formula_line

Expressions = NDArray[np.object_]

LARGEST_DENOMINATOR = 10**6
"""A float that no fraction up to this denominator rounds to is taken as it is."""

MOST_LOGARITHM = 20.0
"""A float up to that size may be the logarithm of a fraction up to the denominator 1000."""

CONSTANTS = {math.pi: sympy.pi, math.e: sympy.E}


def meant(x: float) -> Any:
    """Return what a float stands for, as an exact number of SymPy's.

    >>> meant(0.1), meant(2 / 3), meant(3.0), meant(math.pi), meant(math.log(0.5))
    (1/10, 2/3, 3, pi, -log(2))
    """
    value = float(x)
    if not math.isfinite(value):
        raise ValueError(f"{formula_line()}: {value} is no number that can be proved about")
    if value in CONSTANTS:
        return CONSTANTS[value]
    simple = Fraction(value).limit_denominator(LARGEST_DENOMINATOR)
    if float(simple) == value:
        return sympy.Rational(simple.numerator, simple.denominator)
    if abs(value) < MOST_LOGARITHM:
        power = Fraction(math.exp(value)).limit_denominator(1000)
        if power > 0 and math.log(power) == value:
            return sympy.log(sympy.Rational(power.numerator, power.denominator))
    exact = Fraction(value)
    return sympy.Rational(exact.numerator, exact.denominator)


class Condition(NamedTuple):
    """What an unknown that is 0 or 1 stands for: it tells the sign of an expression."""

    size: Any
    """The expression."""
    values: tuple[int | None, int | None, int | None]
    """What the unknown is where the size is below 0, is 0, and is above; None on a kink, where nothing is claimed."""


@final
class Symbols(Tabled, Numbers):
    """Arrays of SymPy's expressions, and the conditions met on the way; `parameters` are the symbols that may move.

    >>> x = sympy.Symbol("x", real=True)
    >>> Symbols([x]).max(np.array([-x, x], dtype=object)).item()
    [x > 0]*x - x*(1 - [x > 0])
    """

    def __init__(self, parameters: Iterable[Any] = ()) -> None:
        self.conditions: dict[Any, Condition] = {}
        """Of each unknown that is 0 or 1, what it tells."""
        self._parameters = set(parameters)
        self._known: dict[tuple[Any, str], Any] = {}

    exp, log, sqrt, sin, cos = map(elementwise, (sympy.exp, sympy.log, sympy.sqrt, sympy.sin, sympy.cos))
    sinh, cosh, tanh = map(elementwise, (sympy.sinh, sympy.cosh, sympy.tanh))
    expm1, log1p = elementwise(lambda x: sympy.exp(x) - 1), elementwise(lambda x: sympy.log(1 + x))
    logaddexp = elementwise(lambda x, y: sympy.log(sympy.exp(x) + sympy.exp(y)), 2)
    pow = elementwise(lambda x, y: x**y, 2)
    where = elementwise(lambda c, x, y: x if c == 1 else y if c == 0 else c * x + (1 - c) * y, 3)
    leave_out = chain = elementwise(lambda c, g: c * g, 2)
    plus = elementwise(lambda x, y: x + y, 2)

    def asarray(self, values: Any) -> Expressions:
        """Expressions as they are, floats as what they stand for."""
        return as_expressions(values)

    def tabled(self, function: Function, x: Expressions) -> Expressions:
        """SymPy's."""
        expression, symbol = sympy.sympify(function.symbol), sympy.Symbol("x")
        return boxed(elementwise(lambda each: expression.xreplace({symbol: each}))(x))

    def number(self, each: Constant) -> Expressions:
        """SymPy's."""
        return boxed(sympy.sympify(each.symbol))

    def rearrange(self, function: Callable[..., Any], *arrays: Expressions) -> Any:
        """As it is."""
        return function(*arrays)

    def scatter(self, x: Expressions, index: Any, shape: tuple[int, ...]) -> Expressions:
        """Among zeros."""
        array = np.full(shape, sympy.Integer(0), dtype=object)
        array[index] = x
        return array

    def sum(self, x: Expressions, axis: tuple[int, ...]) -> Expressions:
        """SymPy's."""
        return boxed(np.sum(x, axis=axis, keepdims=True))

    def sign(self, x: Expressions) -> Expressions:
        """1 or -1, and 0 where x is known to be 0."""
        return boxed(elementwise(lambda each: self.holds(np.greater, each) - self.holds(np.less, each))(x))

    def max(self, x: Expressions, kind: str = "max") -> Expressions:
        """Each in turn, if it is above the largest so far."""
        del kind
        return boxed(np.frompyfunc(self._larger, 2, 1).reduce(x, axis=-1))

    def share_of_max(self, x: Expressions, kind: str) -> Expressions:
        """1 if it is above each other one."""
        del kind
        shares = np.full(x.shape, sympy.Integer(1), dtype=object)
        for i in range(x.shape[-1]):
            for j in range(x.shape[-1]):
                if i != j:
                    shares[..., i] = shares[..., i] * self.compare(np.greater, x[..., i], x[..., j], True)
        return shares

    def compare(self, relation: np.ufunc, x: Expressions, y: Expressions, kink: bool) -> Expressions:
        """Decided where the difference is a number, else an unknown."""
        del kink
        return boxed(elementwise(lambda a, b: self.holds(relation, a - b), 2)(x, y))

    def holds(self, relation: np.ufunc, x: Any) -> Any:
        """Return 1 or 0 where it is known whether `relation(x, 0)`, else an unknown, the same for all that say so.

        >>> x = sympy.Symbol("x", real=True)
        >>> numbers = Symbols([x])
        >>> above = numbers.holds(np.greater, x)
        >>> above, numbers.holds(np.less_equal, 2 * x), numbers.holds(np.greater_equal, above * x)
        ([x > 0], 1 - [x > 0], [x > 0]**2 - [x > 0] + 1)
        """
        written, x = sympy.sympify(x).as_content_primitive()[1], sympy.expand(x)
        if x.is_number:
            return sympy.Integer(int(bool(relation(x, 0))))
        inside = sorted(x.free_symbols & set(self.conditions), key=str)
        if inside and _may_be_a_number(x, set(inside)):  # relu(z) is 0 not only on an edge, but on all of one side
            c, *_ = inside
            on, off = (self.holds(relation, x.xreplace({c: sympy.Integer(value)})) for value in (1, 0))
            return sympy.expand(c * on + (1 - c) * off)
        kink = bool(x.free_symbols & self._parameters or inside)
        if relation in (np.equal, np.not_equal):
            equal = sympy.Integer(0) if kink else self._unknown(_turned(x)[0], written, "=", (0, 1, 0))
            return equal if relation is np.equal else 1 - equal
        x, turned = _turned(x)
        written = -written if turned else written
        above, closed = relation in (np.greater, np.greater_equal), relation in (np.greater_equal, np.less_equal)
        positive = above != turned  # does it hold where the turned x is above 0?
        if kink:
            unknown = self._unknown(x, written, ">", (0, None, 1))
        else:
            unknown = self._unknown(x, written, *((">=", (0, 1, 1)) if closed == positive else (">", (0, 0, 1))))
        return unknown if positive else 1 - unknown

    def _unknown(self, x: Any, written: Any, relation: str, values: tuple[int | None, int | None, int | None]) -> Any:
        """Return the unknown for an expression, known by its expanded form, shown as it was written."""
        key = (x, relation)
        if key not in self._known:
            self._known[key] = unknown = sympy.Symbol(f"[{written} {relation} 0]", real=True)
            self.conditions[unknown] = Condition(written, values)
        return self._known[key]

    def _larger(self, x: Any, y: Any) -> Any:
        c = self.holds(np.greater, y - x)
        return c * y + (1 - c) * x

    def any_of(self, *formulas: Callable[[], Expressions]) -> Expressions:
        """The first: all are the same number."""
        return boxed(formulas[0]())

    def logaddexp_slope(self, x: Expressions, y: Expressions, value: Expressions) -> Expressions:
        """exp(x) / (exp(x) + exp(y))."""
        del value
        return boxed(self.exp(x) / (self.exp(x) + self.exp(y)))

    def divide_slope(self, x: Expressions, y: Expressions, value: Expressions) -> Expressions:
        """-x / y^2."""
        del value
        return boxed(-x / (y * y))

    def expm1_slope(self, x: Expressions, value: Expressions) -> Expressions:
        """exp(x)."""
        del value
        return boxed(self.exp(x))

    def tanh_slope(self, x: Expressions, value: Expressions) -> Expressions:
        """1 - tanh(x)^2."""
        del x
        return boxed(1 - value * value)


def _may_be_a_number(x: Any, conditions: set[Any]) -> bool:
    """Whether some values of the conditions may make a number of x: not if a term stands beside no condition."""
    factors: dict[Any, Any] = {}
    for term in sympy.Add.make_args(x):
        inside, rest = term.as_independent(*conditions, as_Add=False)[::-1]
        if not inside.is_polynomial(*conditions):
            return True
        factors[rest.as_coeff_Mul()[1]] = factors.get(rest.as_coeff_Mul()[1], 0) + rest.as_coeff_Mul()[0] * inside
    return not any(factor.is_number and factor != 0 for monomial, factor in factors.items() if monomial != 1)


def _turned(x: Any) -> tuple[Any, bool]:
    """Return x without its numeric factor, with a sign that -x has as well; and whether that is another sign."""
    primitive = sympy.expand(x.as_content_primitive()[1])
    return (-primitive, True) if primitive.could_extract_minus_sign() else (primitive, False)


def as_expressions(values: ArrayLike) -> Expressions:
    """Return an array of expressions: exact numbers of floats, or the expressions themselves.

    >>> as_expressions([0.5, 3])
    array([1/2, 3], dtype=object)
    """
    array = np.asarray(values)
    return array if array.dtype == object else boxed(elementwise(meant)(array.astype(np.float64)))
