"""Expressions evaluated in balls at rational points: where the ball leaves out 0, they are not 0, proven."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import sympy
from flint import arb, fmpq

from gdcompare.arithmetic.symbols import Condition

FUNCTIONS: dict[Any, Callable[[arb], arb]] = {
    sympy.exp: arb.exp,
    sympy.log: arb.log,
    sympy.sin: arb.sin,
    sympy.cos: arb.cos,
    sympy.sinh: arb.sinh,
    sympy.cosh: arb.cosh,
    sympy.tanh: arb.tanh,
    sympy.Abs: abs,
    sympy.sign: arb.sgn,
}
NUMBERS = {sympy.pi: arb.pi, sympy.E: lambda: arb(1).exp()}


@final
class Point:
    """Values of the symbols, `{symbol: rational}`, and what conditions then are.

    >>> x = sympy.Symbol("x", real=True)
    >>> Point({x: sympy.Rational(1, 3)}).value(sympy.exp(x) - 1) > 0
    True
    """

    def __init__(self, values: Mapping[Any, Any], conditions: Mapping[Any, Condition] | None = None) -> None:
        self._done: dict[Any, arb] = {}
        self._values, self._conditions = values, conditions or {}

    def value(self, x: Any) -> arb:
        """Return a ball that holds the number; one without bounds where there is none, or none is known."""
        if x not in self._done:
            self._done[x] = self._value(x)
        return self._done[x]

    def _value(self, x: Any) -> arb:
        if x in self._values:
            return self._value(self._values[x])
        if x.is_Float:
            x = sympy.Rational(x)
        if x.is_Rational:
            return arb(fmpq(int(x.p), int(x.q)))
        if x in self._conditions:
            size, (below, at, above) = self._conditions[x]
            sign = self.value(size)
            known = below if sign < 0 else above if sign > 0 else at if sign == 0 else None
            return arb("nan") if known is None else arb(known)
        if x.is_Add:
            return sum(map(self.value, x.args), arb(0))
        if x.is_Mul:
            product = arb(1)
            for each in x.args:
                product *= self.value(each)
            return product
        if x.is_Pow and x.exp.is_Integer:
            return self.value(x.base) ** int(x.exp)
        if x.is_Pow and x.base is not sympy.E:
            return self.value(x.base) ** self.value(x.exp)
        if x in NUMBERS:
            return NUMBERS[x]()
        base = sympy.exp if isinstance(x, sympy.exp) or x.is_Pow else type(x)
        if base in FUNCTIONS:
            return FUNCTIONS[base](self.value(x.exp if base is sympy.exp else x.args[0]))
        return arb("nan")
