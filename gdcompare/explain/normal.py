"""A normal form of expressions: a fraction of polynomials in numbers that are as good as independent.

What is no sum, product or whole power becomes an unknown of its own: exp(u) as a product of exp(m) over the monomials
m of u, so that exp(a + b) = exp(a) exp(b) is seen; b^u likewise; a root w of u with w^q = u; log(u); tanh(u), or
all hyperbolic and trigonometric functions by exponentials; a condition c with c^2 = c. The polynomials are FLINT's.

An expression whose numerator is 0 after these rules is 0 wherever it is defined. The converse need not hold: two
unknowns may be related in a way that no rule here knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, final

import sympy
from flint import Ordering, fmpq, fmpq_mpoly_ctx

MOST_TERMS = 40_000
"""A polynomial with more is given up."""

LARGEST_POWER = 60


class TooLargeError(Exception):
    """A polynomial that has more terms than is sensible."""


@final
@dataclass
class _Names:
    """The unknowns that an expression is made of, and what each stands for."""

    meaning: dict[Any, Any] = field(default_factory=dict)
    """Unknown -> the expression that it stands for."""
    roots: dict[Any, tuple[Any, int]] = field(default_factory=dict)
    """Unknown w -> (u, q) with w^q = u."""
    scales: dict[tuple[Any, Any], int] = field(default_factory=dict)
    """(base, monomial) -> the common denominator of the powers of base^monomial; 0 if these are no small numbers."""
    _made: dict[Any, Any] = field(default_factory=dict)
    _rewritten: dict[Any, Any] = field(default_factory=dict)

    def unknown(self, meaning: Any) -> Any:
        if meaning not in self._made:
            self._made[meaning] = made = sympy.Symbol(f"u{len(self._made)}", real=True)
            self.meaning[made] = meaning
        return self._made[meaning]

    def root(self, radicand: Any, q: int) -> Any:
        w = self.unknown(sympy.Pow(radicand, sympy.Rational(1, q), evaluate=False))
        self.roots[w] = (radicand, q)
        return w

    def rewrite(self, x: Any) -> Any:
        """Return the expression with unknowns in place of all that is not rational in them."""
        if x not in self._rewritten:
            self._rewritten[x] = self._rewrite(x)
        return self._rewritten[x]

    def _rewrite(self, x: Any) -> Any:
        if x.is_Symbol or x.is_Rational:
            return x
        if x.is_Float:
            return sympy.Rational(x)
        if x.is_Add or x.is_Mul:
            return x.func(*map(self.rewrite, x.args))
        if x is sympy.I:
            return self.root(sympy.Integer(-1), 2)
        if x.is_Pow or isinstance(x, sympy.exp):
            return self._power(*x.as_base_exp())
        if isinstance(x, sympy.log) and isinstance(x.args[0], sympy.exp):
            return self.rewrite(x.args[0].args[0])
        return self.unknown(x.func(*map(sympy.expand, x.args)) if x.args else x)

    def _power(self, base: Any, exponent: Any) -> Any:
        """base^(sum of c m): a product over the monomials m; the number among them is an ordinary power."""
        product = sympy.Integer(1)
        for coefficient, monomial in _terms(exponent):
            if monomial == 1 and base is not sympy.E:
                below = self.rewrite(base)
                if coefficient.is_Integer:
                    product *= below**coefficient
                else:
                    product *= self.root(below, int(coefficient.q)) ** int(coefficient.p)
            elif isinstance(monomial, sympy.log) and base is sympy.E:
                product *= self._power(monomial.args[0], coefficient)
            else:
                scale = self.scales[base, monomial]
                if not scale:
                    product *= self.unknown(base ** (abs(coefficient) * monomial)) ** int(sympy.sign(coefficient))
                    continue
                product *= self.unknown(base ** (monomial / scale)) ** int(coefficient * scale)
        return product

    def look(self, x: Any) -> None:
        """Find the common denominators, before anything is named."""
        found: dict[tuple[Any, Any], set[Any]] = {}
        for each in sympy.preorder_traversal(x):
            if each.is_Pow or isinstance(each, sympy.exp):
                base, exponent = each.as_base_exp()
                for coefficient, monomial in _terms(exponent):
                    found.setdefault((base, monomial), set()).add(coefficient)
        for key, coefficients in found.items():
            scale = math.lcm(*(int(each.q) for each in coefficients))
            self.scales[key] = scale if all(abs(each * scale) <= LARGEST_POWER for each in coefficients) else 0


def _terms(exponent: Any) -> Iterable[tuple[Any, Any]]:
    """Yield (rational, monomial) of a sum."""
    for term in sympy.Add.make_args(sympy.expand(exponent)):
        coefficient, monomial = term.as_coeff_Mul(rational=True)
        yield coefficient, monomial


@final
class Fraction:
    """A fraction of FLINT's polynomials, without common factors."""

    def __init__(self, above: Any, below: Any) -> None:
        common = above.gcd(below)
        if not common.is_one():
            above, below = above / common, below / common
        if max(len(above), len(below)) > MOST_TERMS:
            raise TooLargeError(f"a polynomial of {max(len(above), len(below))} terms")
        self.above, self.below = above, below

    def __add__(self, other: Fraction) -> Fraction:
        if self.below == other.below:
            return Fraction(self.above + other.above, self.below)
        return Fraction(
            _product(self.above, other.below) + _product(other.above, self.below), _product(self.below, other.below)
        )

    def __mul__(self, other: Fraction) -> Fraction:
        return Fraction(_product(self.above, other.above), _product(self.below, other.below))

    def __pow__(self, n: int) -> Fraction:
        above, below = (self.above, self.below) if n >= 0 else (self.below, self.above)
        if (
            math.comb(abs(n) + len(above) - 1, abs(n)) > MOST_TERMS
            or math.comb(abs(n) + len(below) - 1, abs(n)) > MOST_TERMS
        ):
            raise TooLargeError(f"the power {n} of {max(len(above), len(below))} terms")
        return Fraction(above ** abs(n), below ** abs(n))


def _product(a: Any, b: Any) -> Any:
    if len(a) * len(b) > 100 * MOST_TERMS:
        raise TooLargeError(f"a product of {len(a)} and {len(b)} terms")
    return a * b


@final
@dataclass(frozen=True)
class NormalForm:
    """numerator / denominator, as expressions again; `zero` if the numerator is 0."""

    zero: bool
    expression: Any
    terms: int


def normal_form(x: Any, conditions: Iterable[Any] = (), by_exponentials: bool = False) -> NormalForm:
    """Return the normal form of an expression; TooLargeError where it has too many terms.

    >>> x, y = sympy.symbols("x y", real=True)
    >>> normal_form(sympy.exp(x + y) - sympy.exp(x) * sympy.exp(y)).zero
    True
    >>> normal_form(1 / sympy.cosh(x) ** 2 - 1 + sympy.tanh(x) ** 2, by_exponentials=True).zero
    True
    >>> normal_form((x**2 - 1) / (x - 1) - x).expression
    1
    """
    x, known = sympy.sympify(x), set(conditions)
    if by_exponentials:
        x = x.rewrite(sympy.exp)
    names = _Names()
    names.look(x)
    rational = names.rewrite(x)
    parts = [rational, *(radicand for radicand, _ in names.roots.values())]
    unknowns = sorted({symbol for part in parts for symbol in part.free_symbols} | set(names.roots), key=str)
    context = fmpq_mpoly_ctx.get([f"g{i}" for i in range(len(unknowns))] or ["g0"], Ordering.lex)
    polynomials = dict(zip(unknowns, context.gens(), strict=False))
    fraction = _as_fraction(rational, context, polynomials, {})
    above = fraction.above
    for w in reversed(names.roots):  # a root of roots comes after these
        radicand, q = names.roots[w]
        above = _without_powers(above, unknowns.index(w), q, _as_fraction(radicand, context, polynomials, {}), context)
    above = _idempotent(above, [i for i, each in enumerate(unknowns) if each in known], context)
    if above.is_zero():
        return NormalForm(True, sympy.Integer(0), 0)
    back = [names.meaning.get(each, each) for each in unknowns]
    expression = _as_expression(above, back) / _as_expression(fraction.below, back)
    return NormalForm(False, expression, len(above))


def _as_fraction(x: Any, context: Any, polynomials: dict[Any, Any], done: dict[Any, Fraction]) -> Fraction:
    if x not in done:
        done[x] = _made(x, context, polynomials, lambda part: _as_fraction(part, context, polynomials, done))
    return done[x]


def _made(x: Any, context: Any, polynomials: dict[Any, Any], of: Callable[[Any], Fraction]) -> Fraction:
    one = context.constant(1)
    if x.is_Symbol:
        return Fraction(polynomials[x], one)
    if x.is_Rational:
        return Fraction(context.constant(fmpq(int(x.p), int(x.q))), one)
    if x.is_Add:
        return _sum([of(each) for each in x.args])
    if x.is_Mul:
        return reduce(Fraction.__mul__, map(of, x.args))
    base, exponent = x.as_base_exp()
    power: Fraction = of(base) ** int(exponent)
    return power


def _sum(fractions: list[Fraction]) -> Fraction:
    """Add up those of equal denominators first: fewer products."""
    together: dict[str, Fraction] = {}
    for each in fractions:
        key = str(each.below)
        together[key] = together[key] + each if key in together else each
    return reduce(Fraction.__add__, together.values())


def _without_powers(above: Any, place: int, q: int, radicand: Fraction, context: Any) -> Any:
    """Write u for w^q, and clear what u divides by."""
    terms = above.to_dict()
    most = max((powers[place] // q for powers in terms), default=0)
    total = context.constant(0)
    for powers, coefficient in terms.items():
        times, rest = divmod(powers[place], q)
        kept = context.from_dict({(*powers[:place], rest, *powers[place + 1 :]): coefficient})
        total += kept * radicand.above**times * radicand.below ** (most - times)
    return total


def _idempotent(above: Any, places: list[int], context: Any) -> Any:
    """Write c for every power of c."""
    if not places:
        return above
    folded: dict[tuple[int, ...], Any] = {}
    for powers, coefficient in above.to_dict().items():
        key = tuple(min(p, 1) if i in places else p for i, p in enumerate(powers))
        folded[key] = folded.get(key, 0) + coefficient
    return context.from_dict({key: value for key, value in folded.items() if value != 0})


def _as_expression(polynomial: Any, unknowns: list[Any]) -> Any:
    terms = [
        sympy.Rational(int(coefficient.p), int(coefficient.q))
        * sympy.Mul(*(x ** int(p) for x, p in zip(unknowns, powers, strict=False) if p))
        for powers, coefficient in polynomial.to_dict().items()
    ]
    return sympy.Add(*terms)
