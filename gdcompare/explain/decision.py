"""Is an expression 0? Proved by a normal form, or refuted at a point in proven arithmetic, or left undecided.

    wrong       at some rational point a ball that holds its value leaves out 0
    proved      its normal form is 0; or it is for each value that the targets may take, or on each side of each kink
    undecided   neither, in the time given

A side of a kink that no point lies on is left out: r > 1 and r < 0 at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, final

import sympy
from flint import ctx

from gdcompare.arithmetic.symbols import Condition
from gdcompare.explain.evaluation import Point
from gdcompare.explain.normal import TooLargeError, normal_form
from gdcompare.explain.time_limit import within

Answer: TypeAlias = Literal["proved", "wrong", "undecided"]

PRECISION = 192
SECONDS_TO_SIMPLIFY = 3.0
POINTS, MORE_POINTS = 16, 200
MOST_ROWS = 200
MOST_CASES = 4096
"""So many values of targets and sides of kinks are gone through."""


@final
@dataclass(frozen=True)
class Domain:
    """What is known of the symbols."""

    conditions: Mapping[Any, Condition] = field(default_factory=dict)
    """Of each unknown that is 0 or 1, what it tells."""
    values: Mapping[Any, tuple[Any, ...]] = field(default_factory=dict)
    """The only values that a symbol may take; any real number, if it is not named."""
    rows: Mapping[Any, int] = field(default_factory=dict)
    """Which sample a symbol belongs to: what is a sum over samples is 0 if it is for each."""
    least: Mapping[Any, Any] = field(default_factory=dict)
    """The smallest value that a symbol may take."""


@final
@dataclass(frozen=True)
class Decision:
    """The answer, and what goes with it."""

    answer: Answer
    difference: Any = 0
    """As simple as it was found, unless it is proved to be 0."""
    only: frozenset[str] = frozenset()
    """What was gone through case by case: "targets", "sides"."""
    why: str = ""
    """Why it is undecided."""


def decide(x: Any | Callable[[], Any], domain: Domain | None = None, seconds: float = 10.0) -> Decision:
    """Return whether the expression, or what a function makes, is 0 for all real numbers, wherever it is defined.

    >>> x, y = sympy.symbols("x y", real=True)
    >>> decide((x + y) ** 2 - x**2 - 2 * x * y - y**2).answer
    'proved'
    >>> decide((x + y) ** 2 - x**2)
    Decision(answer='wrong', difference=y*(2*x + y), only=frozenset(), why='')
    """
    made: list[Any] = []

    def decided() -> Decision:
        made.append(x() if callable(x) else x)
        return _decided(sympy.sympify(made[0]), domain or Domain())

    try:
        found = within(seconds, decided)
        if found.answer != "wrong":
            return found
        with suppress(TimeoutError, RecursionError):  # it is wrong, however it is written
            shown = within(min(seconds, SECONDS_TO_SIMPLIFY), lambda: simplest(found.difference, domain))
            return replace(found, difference=shown)
        return found
    except TimeoutError as error:
        why = str(error)
    except TooLargeError as error:
        why = f"it meets {error}"
    except RecursionError:
        why = "it is nested too deeply"
    return Decision("undecided", made[0] if made else sympy.nan, why=why)


def _decided(x: Any, domain: Domain) -> Decision:
    if x == 0:
        return Decision("proved")
    cases = _Cases(x, domain)
    if cases.refuted({}, POINTS):
        return Decision("wrong", x)
    if cases.zero(x, domain, {}):
        return Decision("proved", only=frozenset(cases.only))
    if cases.wrong:
        return Decision("wrong", x)
    return Decision("undecided", x, why=cases.why or "it is 0 at every point tried, but no rule here makes it 0")


class _Cases:
    """A walk through the values of targets and the sides of kinks, as far as that is needed."""

    def __init__(self, x: Any, domain: Domain) -> None:
        self.x, self.domain = x, domain
        self.only: set[str] = set()
        self.wrong, self.why, self.count = False, "", 0

    def zero(self, x: Any, domain: Domain, sides: Mapping[Any, int]) -> bool:
        """Whether x is 0 on these sides: by its normal form, or else in each of the cases that it has."""
        x, domain = _settled(x, domain)
        if not _feasible(self.domain, sides):
            return True
        parts = _apart(x, domain)
        if (len(parts) > 1 and all(self.zero(part, domain, sides) for part in parts)) or _is_zero(x, domain):
            return True
        self.count += 1
        if self.count > MOST_CASES:
            self.why = f"there are more than {MOST_CASES} cases"
            return False
        if chosen := sorted(x.free_symbols & set(domain.values), key=str):
            self.only.add("targets")
            y = chosen[0]
            return all(
                self.zero(x.xreplace({y: value}), _where(domain, {y: value}), sides) for value in domain.values[y]
            )
        if conditions := _innermost(x, domain):
            self.only.add("sides")
            return all(self.zero(*part) for part in _parted(x, domain, sides, conditions[0]))
        self.wrong = self.refuted(sides, MORE_POINTS)
        return False

    def refuted(self, sides: Mapping[Any, int], points: int) -> bool:
        """Whether at some point on these sides the whole is surely not 0."""
        with ctx.workprec(PRECISION):
            return any(
                point.value(self.x) != 0
                for point in _points(self.x, self.domain, points)
                if all(point.value(c) == value for c, value in sides.items())
            )


def _is_zero(x: Any, domain: Domain) -> bool:
    if normal_form(x, domain.conditions).zero:
        return True
    other = x.has(sympy.sin, sympy.cos, sympy.tanh, sympy.sinh, sympy.cosh)
    return bool(other and normal_form(x, domain.conditions, by_exponentials=True).zero)


def _where(domain: Domain, given: Mapping[Any, Any]) -> Domain:
    """Return what is known once some symbols have these values."""
    conditions = {c: Condition(told.size.xreplace(given), told.values) for c, told in domain.conditions.items()}
    return replace(
        domain,
        conditions={c: told for c, told in conditions.items() if c not in given},
        values={symbol: allowed for symbol, allowed in domain.values.items() if symbol not in given},
    )


def _settled(x: Any, domain: Domain) -> tuple[Any, Domain]:
    """Put 1 and 0 for the unknowns that are known by now."""
    known: dict[Any, Any] = {}
    for c, (size, (below, at, above)) in domain.conditions.items():
        value = (below if size < 0 else above if size > 0 else at) if size.is_number else None
        known |= {} if value is None else {c: sympy.Integer(value)}
    return _settled(x.xreplace(known), _where(domain, known)) if known else (x, domain)


def _parted(x: Any, domain: Domain, sides: Mapping[Any, int], c: Any) -> Iterator[tuple[Any, Domain, dict[Any, int]]]:
    """Yield x, the domain and the sides where a condition holds, and where it does not."""
    for value in (1, 0):
        given = {c: sympy.Integer(value)}
        yield x.xreplace(given), _where(domain, given), {**sides, c: value}


def cases(x: Any, domain: Domain, most: int) -> list[tuple[list[tuple[Any, str]], Any]] | None:
    """Return what x is on the sides of its kinks, each as ([(size, ">" or "<"), ...], x there); None if it has more.

    >>> import numpy as np
    >>> from gdcompare.arithmetic.symbols import Symbols
    >>> x = sympy.Symbol("x", real=True)
    >>> numbers = Symbols([x])
    >>> relu = x * numbers.holds(np.greater, x)
    >>> cases(relu, Domain(numbers.conditions), 2)
    [([(x, '>')], x), ([(x, '<')], 0)]
    """
    todo: list[tuple[Any, Domain, dict[Any, int]]] = [(x, domain, {})]
    found = []
    while todo:
        part, known, sides = todo.pop()
        part, known = _settled(part, known)
        if not _feasible(domain, sides):
            continue
        if conditions := _innermost(part, known):
            todo += reversed(list(_parted(part, known, sides, conditions[0])))
        else:
            told = {c: sympy.Integer(value) for c, value in sides.items()}
            sizes = [(domain.conditions[c].size.xreplace(told), ">" if sides[c] else "<") for c in sides]
            found.append((sizes, sympy.factor_terms(part)))
        if len(found) > most or len(todo) > most:
            return None
    return found


def _apart(x: Any, domain: Domain) -> list[Any]:
    """Return the parts of a sum that belong to one sample each, and the rest."""
    parts: dict[frozenset[int], Any] = {}
    once = (sympy.expand_mul(each, deep=False) for each in sympy.Add.make_args(x))
    for term in (term for each in once for term in sympy.Add.make_args(each)):
        rows, todo, seen = set(), list(term.free_symbols), set()
        while todo:
            each = todo.pop()
            if each in domain.rows:
                rows.add(domain.rows[each])
            elif each in domain.conditions and each not in seen:
                seen.add(each)
                todo += domain.conditions[each].size.free_symbols
        parts[frozenset(rows)] = parts.get(frozenset(rows), 0) + term
    return list(parts.values())


def _innermost(x: Any, domain: Domain) -> list[Any]:
    """Return the conditions that x depends on and that depend on no others, in a fixed order."""
    found: set[Any] = set()
    todo = [x]
    while todo:
        for c in todo.pop().free_symbols & set(domain.conditions) - found:
            found.add(c)
            todo.append(domain.conditions[c].size)
    return sorted((c for c in found if not domain.conditions[c].size.free_symbols & found), key=str)


def _feasible(domain: Domain, sides: Mapping[Any, int]) -> bool:
    """Return False if surely no point lies on these sides.

    Each says that a sum of monomials is above 0. Were the monomials free, Fourier's elimination would decide it.
    """
    given = {c: sympy.Integer(value) for c, value in sides.items()}
    rows = []
    for c, value in sides.items():
        size, values = domain.conditions[c]
        if values == (0, None, 1):  # the edge of any other may belong to either side
            terms = sympy.expand(size.xreplace(given)).as_coefficients_dict()
            rows.append({monomial: (2 * value - 1) * factor for monomial, factor in terms.items() if factor != 0})
    while unknowns := sorted({monomial for row in rows for monomial in row} - {sympy.S.One}, key=str):
        x = unknowns[0]
        above, below = ([row for row in rows if row.get(x, 0) * sign > 0] for sign in (1, -1))
        rows = [row for row in rows if x not in row] + [_added(one, other, x) for one in above for other in below]
        if len(rows) > MOST_ROWS:
            return True
    return all(row.get(sympy.S.One, 0) > 0 for row in rows)


def _added(one: Mapping[Any, Any], other: Mapping[Any, Any], x: Any) -> dict[Any, Any]:
    """Return the sum of two rows, so scaled that x falls out."""
    a, b = -other[x], one[x]
    total = {monomial: a * one.get(monomial, 0) + b * other.get(monomial, 0) for monomial in {*one, *other}}
    return {monomial: factor for monomial, factor in total.items() if factor != 0}


def _points(x: Any, domain: Domain, count: int) -> Iterator[Point]:
    """Yield points with small rational coordinates, the same each time."""
    draw = random.Random(0)  # noqa: S311 - nothing secret
    symbols = set(x.free_symbols).union(*(told.size.free_symbols for told in domain.conditions.values()))
    free = sorted(symbols - set(domain.conditions), key=str)
    for _ in range(count):
        values = {each: sympy.Rational(draw.randint(-40, 40), draw.randint(1, 7)) for each in free}
        values |= {each: abs(values[each]) + least for each, least in domain.least.items() if each in values}
        values |= {each: draw.choice(allowed) for each, allowed in domain.values.items() if each in values}
        yield Point(values, domain.conditions)


def simplest(x: Any, domain: Domain | None = None) -> Any:
    """Return the shortest of what the expression can be written as.

    >>> x = sympy.Symbol("x", real=True)
    >>> simplest((x + 1) ** 2 - (x - 1) ** 2)
    4*x
    """
    domain = domain or Domain()
    parts = _apart(x, domain)
    if len(parts) > 1:
        return sympy.factor_terms(sum(simplest(part, domain) for part in parts))
    found = [x]
    try:
        normal = normal_form(x, domain.conditions)
        found.append(normal.expression)
        if normal.terms < 200:
            found.append(sympy.factor(normal.expression))
    except TooLargeError:
        pass
    return min(found, key=sympy.count_ops)
