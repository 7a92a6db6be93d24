"""Compositions of two and three elementary functions, to find where a compiler rewrites a formula.

XLA merges exponentials, powers and quotients; each framework has slopes of its own. `worst` runs a differentiator over
many compositions at once and returns the largest share of the budget that each of them surely uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from gdcompare import Backend, Dataset, Problem
from gdcompare.case import Case
from gdcompare.referee.along import RefereeAlong
from gdcompare.referee.enclosure import Enclosed
from gdcompare.referee.point import Referee

UNARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "exp {}": lambda xp, x: xp.exp(x),
    "expm1 {}": lambda xp, x: xp.expm1(x),
    "log {}": lambda xp, x: xp.log(x),
    "log1p {}": lambda xp, x: xp.log1p(x),
    "sqrt {}": lambda xp, x: xp.sqrt(x),
    "sin {}": lambda xp, x: xp.sin(x),
    "cos {}": lambda xp, x: xp.cos(x),
    "sinh {}": lambda xp, x: xp.sinh(x),
    "cosh {}": lambda xp, x: xp.cosh(x),
    "tanh {}": lambda xp, x: xp.tanh(x),
    "abs {}": lambda xp, x: xp.abs(x),
    "sign {}": lambda xp, x: xp.sign(x) * x,
    "relu {}": lambda xp, x: xp.maximum(x, xp.zeros_like(x)),
    "softplus {}": lambda xp, x: xp.logaddexp(x, xp.zeros_like(x)),
    "clip {}": lambda xp, x: xp.clip(x, -1.5, 1.5),
    "square {}": lambda xp, x: xp.square(x),
    "({} {})": lambda xp, x: x * x,
    "{}^2": lambda xp, x: x**2,
    "{}^3": lambda xp, x: x**3,
    "{}^7": lambda xp, x: x**7,
    "{}^-1": lambda xp, x: x**-1.0,
    "{}^-2": lambda xp, x: x**-2.0,
    "{}^0.5": lambda xp, x: x**0.5,
    "{}^-0.5": lambda xp, x: x**-0.5,
    "{}^2.5": lambda xp, x: x**2.5,
    "{}^-1.5": lambda xp, x: x**-1.5,
    "{}^100": lambda xp, x: x**100,
    "1/{}": lambda xp, x: 1 / x,
    "-{}": lambda xp, x: -x,
    "(1 + {})": lambda xp, x: 1 + x,
    "(1 - {})": lambda xp, x: 1 - x,
    "0.3 {}": lambda xp, x: 0.3 * x,
    "{}/3": lambda xp, x: x / 3,
    "2.7/{}": lambda xp, x: 2.7 / x,
    "2^{}": lambda xp, x: 2.0**x,
}
BINARY: Mapping[str, Callable[[Any, Any, Any], Any]] = {
    "({} + {})": lambda xp, x, y: x + y,
    "({} - {})": lambda xp, x, y: x - y,
    "({} * {})": lambda xp, x, y: x * y,
    "({} / {})": lambda xp, x, y: x / y,
    "({} ^ {})": lambda xp, x, y: x**y,
    "maximum({}, {})": lambda xp, x, y: xp.maximum(x, y),
    "minimum({}, {})": lambda xp, x, y: xp.minimum(x, y),
    "logaddexp({}, {})": lambda xp, x, y: xp.logaddexp(x, y),
    "where({0} > {1}, {0}, {1} {1})": lambda xp, x, y: xp.where(x > y, x, y * y),
}


@final
@dataclass(frozen=True)
class Composition:
    """A function of two arrays, and how it is written."""

    text: str
    function: Callable[[Any, Any, Any], Any]


A = Composition("a", lambda xp, a, b: a)
B = Composition("b", lambda xp, a, b: b)


def of(name: str, *inner: Composition) -> Composition:
    """Return the named function of what is composed already."""
    texts = [each.text for each in inner]
    if name in UNARY:
        outer = UNARY[name]
        text = name.format(*texts * name.count("{}"))
        return Composition(text, lambda xp, a, b: outer(xp, inner[0].function(xp, a, b)))
    both = BINARY[name]
    return Composition(
        name.format(*texts), lambda xp, a, b: both(xp, inner[0].function(xp, a, b), inner[1].function(xp, a, b))
    )


def pairs() -> Iterator[Composition]:
    """Yield every function of every function."""
    for f, g in product(UNARY, UNARY):
        yield of(f, of(g, A))
    for f, g in product(UNARY, BINARY):
        yield of(f, of(g, A, B))


def crossed() -> Iterator[Composition]:
    """Yield every pair of functions, of a and of b or of a alone, joined by every operator."""
    for op, f, g in product(BINARY, UNARY, UNARY):
        yield of(op, of(f, A), of(g, B))
        yield of(op, of(f, A), of(g, A))


def triples(generator: np.random.Generator, count: int) -> Iterator[Composition]:
    """Yield some compositions of three, drawn."""

    def one(inner: Composition) -> Composition:
        return of(str(generator.choice(list(UNARY))), inner)

    def two(left: Composition, right: Composition) -> Composition:
        return of(str(generator.choice(list(BINARY))), left, right)

    for _ in range(count):
        kind = generator.integers(4)
        if kind == 0:
            yield one(one(one(A)))
        elif kind == 1:
            yield one(two(one(A), one(B)))
        elif kind == 2:
            yield two(one(two(A, B)), one(A))
        else:
            yield two(two(one(A), one(B)), one(one(A)))


@final
@dataclass(frozen=True, eq=False)
class Compositions(Problem):
    """l = sum s_kj f_k(a_kj, b_kj): the gradient by s is the values, that by a and by b the slopes, one by one."""

    compositions: tuple[Composition, ...]
    points: int

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("s", "a", "b"), (len(self.compositions), self.points))

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        a, b = params["a"], params["b"]
        values = [each.function(xp, a[k], b[k]) for k, each in enumerate(self.compositions)]
        return features[:, 0] * xp.sum(params["s"] * xp.stack(values, axis=0))


def some_points(generator: np.random.Generator, count: int, dtype: str) -> NDArray[Any]:
    """Draw numbers of every kind that a formula may meet."""
    kinds = [
        generator.normal(size=count) * 2,
        generator.uniform(0.05, 3, count),
        generator.choice([0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 3.0, 0.1], count),
        generator.normal(size=count) * 10.0 ** generator.uniform(-6, 1.5, count),
        np.abs(generator.normal(size=count)) * 10.0 ** generator.uniform(-6, 1.5, count),
        generator.uniform(-1, 1, count) * np.log(float(np.finfo(dtype).max)),
        generator.choice([-1, 1], count) * float(np.finfo(dtype).max) ** generator.uniform(-0.9, 0.9, count),
    ]
    return np.choose(generator.integers(len(kinds), size=count), kinds).astype(dtype)


@final
@dataclass(frozen=True)
class Share:
    """The largest share of a finite budget that one composition surely uses, and where."""

    share: float
    text: str
    entry: str
    a: float
    b: float
    actual: float
    truth: float
    budget: float


def worst(
    compositions: Sequence[Composition],
    backend: Backend[Any],
    generator: np.random.Generator,
    derivative: Literal["gradient", "hvp"] = "gradient",
    points: int = 8,
    size: int = 48,
) -> list[Share]:
    """Return the worst share of each composition, the largest first; several are one problem, and one compilation."""
    shares = []
    for some in (tuple(compositions[i : i + size]) for i in range(0, len(compositions), size)):
        problem = Compositions(some, points)
        shape = (len(some), points)
        a, b = (some_points(generator, len(some) * points, backend.dtype).reshape(shape) for _ in range(2))
        params = {"s": np.ones(shape), "a": a.astype(float), "b": b.astype(float)}
        data = Dataset(np.ones((1, 1)), np.zeros(1))
        shares += _of(problem, Referee(Case.of(problem, data, params, backend.dtype)), backend, derivative, generator)
    return sorted(shares, key=lambda each: -each.share)


def _of(
    problem: Compositions, referee: Referee, backend: Backend[Any], derivative: str, generator: np.random.Generator
) -> list[Share]:
    judge: Any = referee
    if derivative != "gradient":
        shape = referee.params["a"].shape
        along = {name: np.round(generator.normal(size=shape), 2) for name in "ab"} | {"s": np.zeros(shape)}
        judge = RefereeAlong(referee, derivative, along)  # type: ignore[arg-type]
    with np.errstate(all="ignore"):
        _, found = judge.backend_implementation(backend)(*judge.point)
        budgets = judge.budgets(by_hand=False)
        truths: Mapping[str, Enclosed] = judge.truths
        known = np.isfinite(referee.truths["s"].mid)  # elsewhere the formula has no value
        used = {
            name: np.where(
                np.isfinite(budgets[name]) & known, truths[name].distance(found[name])[0] / budgets[name], 0.0
            )
            for name in ("s", "a", "b")
        }
    shares = []
    for k, each in enumerate(problem.compositions):
        name = max(used, key=lambda name: np.max(used[name][k]))
        j = int(np.argmax(used[name][k]))
        numbers = (referee.params["a"], referee.params["b"], found[name], truths[name].mid, budgets[name])
        shares.append(Share(float(used[name][k, j]), each.text, name, *(float(array[k, j]) for array in numbers)))
    return shares
