"""Compilers and frameworks rewrite formulas: no rewriting that is known leaves the budget, nor any other that is found.

The long sweep looks for more: every composition of two functions, and some of three, at points of all kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from flint import arb, ctx

from gdcompare import backend_names, load_backend
from gdcompare.arithmetic.rounded import RoundedNumbers
from gdcompare.arithmetic.tape import Tape
from gdcompare.gradients import offers
from tests.compositions import A, B, Composition, Compositions, Share, crossed, of, pairs, triples, worst

EXP, EXP_B = of("exp {}", A), of("exp {}", B)

KNOWN = {
    "exponentials merged": [
        of("({} * {})", EXP, EXP_B),
        of("({} / {})", EXP, EXP_B),
        of("({} / {})", A, EXP_B),
        of("{}^3", EXP),
        of("{}^2.5", EXP),
        of("{}^-0.5", EXP),
        of("1/{}", EXP),
    ],
    "powers by products": [of("{}^100", A), of("{}^7", A), of("({} ^ {})", A, of("(1 + {})", of("sign {}", B)))],
    "one division": [of("({} / {})", of("({} / {})", A, B), A), of("({} / {})", A, of("({} / {})", B, A))],
    "forward mode of max": [of("maximum({}, {})", A, B), of("minimum({}, {})", of("exp {}", A), of("square {}", B))],
    "slopes": [of("tanh {}", A), of("logaddexp({}, {})", A, B), of("expm1 {}", A)],
}


@pytest.mark.thorough
@pytest.mark.parametrize("derivative", ["gradient", pytest.param("hvp", marks=pytest.mark.soundness)])
@pytest.mark.parametrize("backend_name", ["autograd", "torch", pytest.param("jax", marks=pytest.mark.soundness)])
def test_no_known_rewriting_exceeds_the_budget(
    backend_name: str, dtype: str, derivative: Literal["gradient", "hvp"]
) -> None:
    compositions = [each for some in KNOWN.values() for each in some]
    check(backend_name, dtype, derivative, compositions, np.random.default_rng(3), points=16)


@pytest.mark.soundness
@pytest.mark.parametrize("derivative", ["gradient", "hvp"])
@pytest.mark.parametrize("backend_name", ["autograd", "torch", "jax"])
def test_no_composition_of_two_or_three_functions_exceeds_the_budget(
    backend_name: str, dtype: str, derivative: Literal["gradient", "hvp"], capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(7)
    joined = list(crossed())
    some = [joined[i] for i in generator.choice(len(joined), 1000, replace=False)]
    compositions = [*pairs(), *some, *triples(generator, 500)]

    shares = check(backend_name, dtype, derivative, compositions, generator, points=8)

    with capsys.disabled():
        for share in shares[:10]:
            print(backend_name, dtype, derivative, share)  # noqa: T201 - the report


def check(
    backend_name: str,
    dtype: str,
    derivative: Literal["gradient", "hvp"],
    compositions: list[Composition],
    generator: np.random.Generator,
    points: int,
) -> Any:
    """Return the worst shares, none of which may exceed 1."""
    if backend_name not in backend_names():
        pytest.skip(f"{backend_name} is not installed")
    backend = load_backend(backend_name, dtype)
    if derivative == "hvp" and not offers(backend, Compositions((A,), 1), "hvp"):
        pytest.skip(f"{backend_name} has gradients, and no more")
    shares = worst(compositions, backend, generator, derivative, points)
    assert [each for each in shares if each.share > 1 and not is_a_fault(each, backend_name, derivative)] == []
    return shares


def is_a_fault(share: Share, backend_name: str, derivative: str) -> bool:
    """Say whether the framework itself is wrong.

    A branch that was not taken, times an infinite slope, is NaN everywhere; and torch's mixed derivative of a^b at
    b = 0 is 0, where it is 1 / a.
    """
    branches = any(name in share.text for name in ("where", "maximum", "minimum", "relu", "clip", "abs", "sign"))
    mixed = (backend_name, derivative) == ("torch", "hvp") and " ^ " in share.text
    return (np.isnan(share.actual) and branches) or (mixed and share.actual == 0)


def test_the_sweep_sees_what_is_wrong() -> None:
    """A function that is off by 1e-12 on arrays, and right on the referee's tape."""
    backend = load_backend(pytest.importorskip("torch", reason="the quickest differentiator").__name__, "float64")
    wrong = Composition("wrong", lambda xp, a, b: a * a if isinstance(xp, Tape) else a * a * (1 + 1e-12))

    shares = worst([of("{}^2", A), wrong], backend, np.random.default_rng(1), points=4)

    assert [each.text for each in shares if each.share > 1] == ["wrong"]


# Each rewriting by itself, done in NumPy.


def by_squares(x: Any) -> Any:
    """x^100 = x^64 x^32 x^4."""
    four = (x * x) * (x * x)
    thirty_two = ((four * four) * (four * four)) * ((four * four) * (four * four))
    return (thirty_two * thirty_two) * thirty_two * four


Formulas = tuple[Callable[[Any, Any, Any], Any], Callable[[Any, Any], Any], Callable[[Any, Any], Any]]

# The formula in numbers, the program that a compiler makes of it, and the exact value.
REWRITTEN: dict[str, Formulas] = {
    "exp(a) exp(b)": (lambda n, a, b: n.exp(a) * n.exp(b), lambda a, b: np.exp(a + b), lambda a, b: (a + b).exp()),
    "exp(a) / exp(b)": (lambda n, a, b: n.exp(a) / n.exp(b), lambda a, b: np.exp(a - b), lambda a, b: (a - b).exp()),
    "exp(a)^2.5": (lambda n, a, b: n.pow(n.exp(a), n.asarray(2.5)), lambda a, b: np.exp(a * a.dtype.type(2.5)),
                   lambda a, b: (a * arb(2.5)).exp()),
    "exp(a)^3": (lambda n, a, b: n.pow(n.exp(a), n.asarray(3.0)), lambda a, b: np.exp(a + a + a),
                 lambda a, b: (3 * a).exp()),
    "b / exp(a)": (lambda n, a, b: b / n.exp(a), lambda a, b: b * np.exp(-a), lambda a, b: b * (-a).exp()),
    "a^100": (lambda n, a, b: n.pow(a, n.asarray(100.0)), lambda a, b: by_squares(a), lambda a, b: a**100),
}  # fmt: skip


@pytest.mark.parametrize(("formula", "program", "exact"), REWRITTEN.values(), ids=REWRITTEN)
def test_a_rewritten_program_keeps_within_the_error_and_uses_it(
    formula: Callable[..., Any], program: Callable[..., Any], exact: Callable[..., Any], dtype: str
) -> None:
    generator, largest = np.random.default_rng(8), 30.0 if dtype == "float32" else 250.0
    span = 2.0 if exact(arb(2), arb(0)) > 1e9 else largest
    a, b = (generator.uniform(-span, span, 400).astype(dtype) for _ in range(2))
    numbers = RoundedNumbers(dtype)

    with np.errstate(all="ignore"):
        bound = formula(numbers, numbers.asarray(a), numbers.asarray(b)).error
        computed = program(a, b)
    with ctx.workprec(128):
        error = [
            float(abs(arb(float(c)) - exact(arb(float(x)), arb(float(y)))))
            for c, x, y in zip(computed, a, b, strict=True)
        ]

    shares = np.array(error)[np.isfinite(bound)] / bound[np.isfinite(bound)]
    assert 0.1 < np.max(shares) <= 1


def test_what_is_no_exponential_is_no_wider_for_it() -> None:
    """exp(100.1) alone is off by few ulps, exp(100.1) exp(1.1) by the 101.2 of its exponent."""
    numbers = RoundedNumbers("float64")
    one, other = (numbers.exp(numbers.asarray(np.array([x]))) for x in (100.1, 1.1))

    product, sine = one * other, one * numbers.sin(numbers.asarray(np.array([1.0])))

    u = 2.0**-53
    assert product.error[0] / product.value[0] > 101 * u
    assert sine.error[0] / sine.value[0] < 20 * u


def test_a_chain_of_divisions_has_no_bound_where_the_product_of_the_divisors_may_vanish_or_overflow() -> None:
    """(1e-30 / 1e-25) / 1e-25 is 1e20 in float32, and infinite as 1e-30 / 1e-50."""
    numbers = RoundedNumbers("float32")
    a, b, c = (numbers.asarray(np.array([x], dtype=np.float32)) for x in (1e-30, 1e-25, 1e-5))

    with np.errstate(all="ignore"):
        chain, harmless = (a / b) / b, (a / b) / c

    assert chain.error[0] == np.inf
    assert harmless.error[0] < 1e-6 * harmless.value[0]
    assert [each.split(" (")[0] for each in numbers.unbounded] == ["a division by what may be flushed to 0"]


def test_a_power_of_an_array_of_exponents_is_that_of_a_library() -> None:
    """NumPy's float32 is off by 1.7 u for exponents 1 and 2 in an array; a constant exponent 2 is one product."""
    numbers = RoundedNumbers("float32")
    x = np.array([1.1, 1.3], dtype=np.float32)

    library = numbers.pow(numbers.asarray(x), numbers.asarray(np.full(2, 2.0, dtype=np.float32)))
    product = numbers.pow(numbers.asarray(x), numbers.asarray(2.0))

    assert (library.error > 8 * numbers.u * x).all()
    assert (product.error < 2 * numbers.u * x * x).all()
