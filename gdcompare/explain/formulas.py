"""A problem's own formulas on symbols: its loss, what was derived by hand, and what SymPy makes of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, final

import numpy as np
import sympy

from gdcompare.arithmetic.formula_check import FormulaError, check_formula, checked_shapes, where_in_formula
from gdcompare.arithmetic.symbols import Condition, Expressions, Symbols, meant
from gdcompare.arithmetic.tape import Tape, Variable
from gdcompare.explain.decision import Domain
from gdcompare.problem import Dataset, NotDerivedError, Problem

LOSS, GRADIENT, ROWS = "loss", "gradient", "per-sample gradients"
MEAN, PRODUCT = "their mean", "Hessian-vector product"


class Component(NamedTuple):
    """One number that has to be 0 if a claim holds."""

    place: tuple[int, ...]
    difference: Callable[[], Any]
    """By hand minus by SymPy."""


class Claim(NamedTuple):
    """What is claimed of one parameter, component by component."""

    claim: str
    parameter: str
    components: list[Component]


@final
@dataclass(frozen=True)
class Size:
    """How many samples, features and columns of targets; None where targets are (n,)."""

    n: int
    d: int
    k: int | None = None

    def __str__(self) -> str:
        return f"n = {self.n}, d = {self.d}" + (f", k = {self.k}" if self.k is not None else "")


@final
class Formulas:
    """The problem's formulas at one size, every number in them a symbol.

    Raises FormulaError for a formula that cannot run on symbols, with its place.
    """

    def __init__(self, problem: Problem, size: Size) -> None:
        self.problem, self.size = problem, size
        self.shapes = checked_shapes(problem, placeholder(problem, size))
        x, y, v = (each if each not in self.shapes else name for each, name in _LETTERS.items())
        self.params = {name: symbols_of(name, shape) for name, shape in self.shapes.items()}
        self.features = symbols_of(x, (size.n, size.d))
        self.targets = symbols_of(y, (size.n,) if size.k is None else (size.n, size.k))
        self.direction = {name: symbols_of(f"{v}.{name}", shape) for name, shape in self.shapes.items()}
        self.numbers = Symbols(symbol for each in self.params.values() for symbol in each.flat)
        self.tape = Tape(self.numbers)
        self._slopes: dict[tuple[int, Any], Any] = {}

    @cached_property
    def losses(self) -> Expressions:
        """(n,)."""
        losses: Expressions = self._run("per_sample_losses")
        return losses

    @cached_property
    def by_hand(self) -> tuple[Any, dict[str, Expressions]]:
        """The loss and its gradient."""
        loss, gradient = self._run("value_and_gradient")
        return loss, gradient

    @cached_property
    def rows(self) -> dict[str, Expressions]:
        """`{name: (n, *shape)}`, by hand."""
        rows: dict[str, Expressions] = self._run("per_sample_gradients")
        return rows

    @cached_property
    def products(self) -> dict[str, Expressions]:
        """The Hessian times the direction, by hand."""
        products: dict[str, Expressions] = self._run("hessian_vector_product", self._on_tape(self.direction))
        return products

    @property
    def domain(self) -> Domain:
        """What is known of the symbols, and the conditions met so far."""
        targets = list(self.targets.ravel())
        allowed = self.problem.target_values
        values = {} if allowed is None else dict.fromkeys(targets, tuple(map(meant, allowed)))
        least = self.problem.least_target
        return Domain(
            dict(self.numbers.conditions),
            values,
            {each: row for row in range(self.size.n) for each in (*self.features[row], *np.ravel(self.targets[row]))},
            {} if math.isinf(least) else dict.fromkeys(targets, meant(least)),
        )

    def claims(self) -> Iterator[Claim]:
        """Yield all that is claimed: loss, gradient, per-sample gradients, their mean, Hessian-vector product."""
        n, by_name = self.size.n, self.params.items()
        loss, gradient = self.by_hand
        found = {name: self._due(gradient, name, symbols.shape) for name, symbols in by_name}
        rows = {name: self._due(self.rows, name, (n, *symbols.shape)) for name, symbols in by_name}
        places = {name: list(np.ndindex(symbols.shape)) for name, symbols in by_name}
        yield Claim(LOSS, "", [Component((), lambda: _number(loss) - sum(self.losses) / n)])
        for name, symbols in by_name:
            make = partial(self._of_gradient, found[name], symbols)
            yield Claim(GRADIENT, name, [Component(i, partial(make, i)) for i in places[name]])
        for name, symbols in by_name:
            make = partial(self._of_row, rows[name], symbols)
            yield Claim(ROWS, name, [Component((r, *i), partial(make, r, i)) for r in range(n) for i in places[name]])
        for name in self.params:
            make = partial(_of_mean, rows[name], found[name])
            yield Claim(MEAN, name, [Component(i, partial(make, i)) for i in places[name]])
        if self.problem.twice_derived:
            for name, symbols in by_name:
                make = partial(self._of_product, self._due(self.products, name, symbols.shape), symbols)
                yield Claim(PRODUCT, name, [Component(i, partial(make, i)) for i in places[name]])

    # By hand minus by SymPy, at one place.

    def _of_gradient(self, found: Expressions, symbols: Expressions, place: tuple[int, ...]) -> Any:
        return found[place] - self._slope(symbols[place])

    def _of_row(self, rows: Expressions, symbols: Expressions, row: int, place: tuple[int, ...]) -> Any:
        return rows[(row, *place)] - self._row_slope(row, symbols[place])

    def _of_product(self, product: Expressions, symbols: Expressions, place: tuple[int, ...]) -> Any:
        """(H v)_i is the derivative along v of the slope by parameter i."""
        slope = self._slope(symbols[place])
        pairs = [(self.params[name].flat, self.direction[name].flat) for name in self.params]
        along = (sympy.diff(slope, one) * v for ones, vs in pairs for one, v in zip(ones, vs, strict=True))
        return product[place] - sum(along)

    def _row_slope(self, row: int, symbol: Any) -> Any:
        if (row, symbol) not in self._slopes:
            self._slopes[row, symbol] = sympy.diff(self.losses[row], symbol)
        return self._slopes[row, symbol]

    def _slope(self, symbol: Any) -> Any:
        return sum(self._row_slope(row, symbol) for row in range(self.size.n)) / self.size.n

    def _run(self, formula: str, *more: Any) -> Any:
        given = self._on_tape(self.params), self.tape.asarray(self.features), self.tape.asarray(self.targets), *more
        try:
            return _plain(getattr(self.problem, formula)(self.tape, *given))
        except (NotDerivedError, FormulaError):
            raise
        except Exception as error:
            where = where_in_formula(error)
            if not where:
                raise
            raise FormulaError(
                f"{where} cannot run on symbols, numbers that nobody knows: {type(error).__name__}: {error}"
            ) from error

    def _on_tape(self, arrays: Mapping[str, Expressions]) -> dict[str, Variable]:
        return {name: self.tape.asarray(each) for name, each in arrays.items()}

    def _due(self, arrays: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Expressions:
        if name not in arrays:
            raise FormulaError(f"{type(self.problem).__name__} has derived no gradient of its parameter {name!r}")
        found = np.asarray(arrays[name])
        if found.shape != shape:
            raise FormulaError(
                f"{type(self.problem).__name__} has derived {name!r} in the shape {found.shape}; it must be {shape}"
            )
        return found


MOST_WRITTEN = 6


@final
class OneSample:
    """The formulas of a single sample, in which x_j stands for x_0j."""

    def __init__(self, problem: Problem, size: Size) -> None:
        made = Formulas(problem, Size(1, size.d, size.k))
        self._short = {each: _without_row(each) for each in (*made.features.flat, *made.targets.flat)}
        self.loss = made.losses[0].xreplace(self._short)
        places = [(name, i) for name, symbols in made.params.items() for i in np.ndindex(symbols.shape)]
        if len(places) > MOST_WRITTEN:  # the first of each
            places = [(name, i) for name, i in places if not any(i)]
        by_hand = [(_number(made.params[name][i]), made.rows[name][(0, *i)]) for name, i in places]
        self.gradient = [(str(each.name), slope.xreplace(self._short)) for each, slope in by_hand]
        """[(the parameter's symbol, the derivative by hand)]; of many, the first of each array."""
        known = made.domain.conditions
        conditions = {c: Condition(told.size.xreplace(self._short), told.values) for c, told in known.items()}
        self.domain = Domain(conditions)

    @property
    def kinks(self) -> list[str]:
        """Where a condition changes that depends on a parameter."""
        return [f"{told.size} = 0" for told in self.domain.conditions.values() if None in told.values]


def _without_row(each: Any) -> Any:
    name, _, index = each.name.partition("[")
    left = index.removesuffix("]").split(",")[1:]
    return sympy.Symbol(f"{name}[{','.join(left)}]" if left else name, real=True)


def _of_mean(rows: Expressions, found: Expressions, place: tuple[int, ...]) -> Any:
    return sum(rows[(row, *place)] for row in range(len(rows))) / len(rows) - found[place]


_LETTERS = {"x": "features", "y": "targets", "v": "direction"}


def symbols_of(name: str, shape: tuple[int, ...]) -> Expressions:
    """Return an array of real symbols, named as the elements of an array are in Python."""
    array = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        array[index] = sympy.Symbol(f"{name}[{','.join(map(str, index))}]" if index else name, real=True)
    return array


def _plain(result: Any) -> Any:
    """Return what stands on the tape as arrays of expressions."""
    if isinstance(result, Variable):
        return result.value[0]
    if isinstance(result, tuple):
        return tuple(map(_plain, result))
    if isinstance(result, Mapping):
        return {name: _plain(each) for name, each in result.items()}
    return result


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) else value


def placeholder(problem: Problem, size: Size) -> Dataset:
    """Return data of that size, for what only looks at widths."""
    target = float(max(problem.least_target, 1.0)) if problem.target_values is None else problem.target_values[0]
    shape = (size.n,) if size.k is None else (size.n, size.k)
    return Dataset(np.arange(1.0, size.n * size.d + 1).reshape(size.n, size.d) / 8, np.full(shape, target))


def smallest_size(problem: Problem, n: int, example: Dataset, d: int | None = None, k: int | None = None) -> Size:
    """Return n samples of d features, or if no d is asked for, of the first width that the problem takes: 2, 1, 3, ...

    Raises what the problem raises where it takes none, or not the one asked for.
    """
    if problem.target_dimensions == 1 and k is not None:
        raise ValueError(f"{type(problem).__name__} takes targets of shape (n,): outputs={k} has no meaning there")
    columns = None if problem.target_dimensions == 1 else k or 2
    widths = [d] if d is not None else list(dict.fromkeys([2, 1, *range(3, 9), example.features.shape[1]]))
    refused: Exception | None = None
    for width in widths:
        size = Size(n, width, columns)
        data = placeholder(problem, size)
        try:
            check_formula(problem, data, by_hand=True, refereed=True)
        except NotDerivedError:
            raise
        except Exception as error:
            refused = refused or error
        else:
            return size
    assert refused is not None
    raise refused
