"""The truth of a derivative along a direction, forward, is the gradient's, backward; second derivatives commute."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx

from gdcompare.arithmetic.balls import BallNumbers, as_balls, boxed
from gdcompare.arithmetic.dual import Dual, directional_derivatives, hessian_vector_products
from gdcompare.arithmetic.tape import value_and_gradient
from gdcompare.audit.known import Asked
from gdcompare.audit.regions import dyadic
from gdcompare.audit.subject import Operation
from gdcompare.problem import Dataset
from tests.audit.test_frameworks import NEEDS, operations

MOST = 150
"""An example of more numbers is left out."""


def disagreements(operation: Operation) -> Iterator[str]:
    """Say where the two ways are known, and are not the same."""
    for example in islice(operation.examples(), 3):
        arguments = {name: np.asarray(each, float) for name, each in example.arguments.items()}
        if not 0 < sum(each.size for each in arguments.values()) <= MOST:
            continue
        try:
            cotangents = dyadic((1, example.outputs(arguments)))
            formula = example.formula(arguments, cotangents)
        except Exception:  # noqa: S112 - whatever is no example, or cannot be read, has no truth either
            continue
        if not cotangents.size:
            continue
        problem = Asked(formula, tuple(arguments), tuple(each.shape for each in arguments.values()))
        yield from _disagreements(problem, arguments, cotangents)


def _disagreements(problem: Asked, arguments: dict[str, Any], cotangents: Any) -> Iterator[str]:
    generator = np.random.default_rng(0)
    along = {name: generator.integers(-3, 4, (2, *each.shape)).astype(float) for name, each in arguments.items()}
    data = Dataset(cotangents, np.zeros((1, 1)))
    with ctx.workprec(192):
        point = BallNumbers(), {name: as_balls(each) for name, each in arguments.items()}, data.features, data.targets

        def towards(gradient: Any, direction: int) -> arb:
            products = (boxed(boxed(gradient[name]) * as_balls(along[name][direction])) for name in arguments)
            return sum((each.sum() for each in products), arb(0))

        _, gradient = value_and_gradient(problem, *point)
        _, forward = directional_derivatives(problem, *point, along)
        products = hessian_vector_products(problem, *point, along)
        first, other = ({name: each[i] for name, each in products.items()} for i in (0, 1))
        yield from _differing("forward, and backward", forward[0], towards(gradient, 0))
        yield from _differing("forward, and backward", forward[1], towards(gradient, 1))
        yield from _differing("v^T H w, and w^T H v", towards(first, 1), towards(other, 0))


def _differing(what: str, one: arb, other: arb) -> Iterator[str]:
    known = one.is_finite(), other.is_finite()
    if known != (False, False) and not (all(known) and one.overlaps(other)):
        yield f"{what}: {one.str(8)}, and {other.str(8)}"


@pytest.mark.soundness
@pytest.mark.filterwarnings("ignore")  # of what a framework thinks of its own operations
@pytest.mark.parametrize("framework", NEEDS)
def test_both_ways_agree_of_every_operation(framework: str) -> None:
    found = {name: list(disagreements(each)) for name, each in operations(framework).items() if not each.unsuited}

    assert {name: words for name, words in found.items() if words} == {}


SOME = [
    ("jax", "lax.igammac"),  # of whose order nobody knows the derivative
    ("jax", "special.zeta"),
    ("torch", "nn.functional.cosine_similarity"),  # clamped in place, without being recorded
    ("torch", "triangular_solve"),
    ("torch", "pinverse"),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("framework", "operation"), SOME)
def test_both_ways_agree(framework: str, operation: str) -> None:
    assert list(disagreements(operations(framework)[operation])) == []


@pytest.mark.thorough
def test_a_lost_tangent_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dual, "changing_as", lambda self, *_: Dual(self.numbers, self.value))

    found = list(disagreements(operations("torch")["nn.functional.cosine_similarity"]))

    assert found
    assert all(each.startswith("forward, and backward") for each in found[:1])
