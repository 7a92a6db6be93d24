"""Balls in floats contain what Arb says of every number in their arguments, and a wrong bound is noticed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gdcompare.arithmetic import double_word as words
from gdcompare.arithmetic import quick_balls, word_matrices
from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.quick_balls import (
    QuickBalls,
    UndecidedError,
    as_quick_balls,
    balls_from_quick,
    quick_from_balls,
)
from gdcompare.arithmetic.quick_distance import bounds_of_distance
from gdcompare.arithmetic.quick_numbers import QuickNumbers

Number = tuple[float, float, float]
"""High, low and radius."""

BITS = 4000
NUMBERS, EXACT = QuickNumbers(), BallNumbers()

UNARY: dict[str, tuple[Callable[[QuickBalls], QuickBalls], Callable[[Any], Any]]] = {
    **{name: (getattr(NUMBERS, name), getattr(arb, name)) for name in ("exp", "expm1", "log", "log1p", "sqrt", "tanh")},
    **{name: (getattr(NUMBERS, name), getattr(arb, name)) for name in ("sinh", "cosh", "sin", "cos")},
    "tanh_slope": (lambda x: NUMBERS.tanh_slope(x, NUMBERS.tanh(x)), lambda x: x.sech() ** 2),
    "square": (lambda x: NUMBERS.pow(x, as_quick_balls(np.array([2.0]))), lambda x: x * x),
    "1 / cube": (lambda x: NUMBERS.pow(x, as_quick_balls(np.array([-3.0]))), lambda x: 1 / (x * x * x)),
    "x^1.5": (lambda x: NUMBERS.pow(x, as_quick_balls(np.array([1.5]))), lambda x: x ** arb(1.5)),
    "-x": (lambda x: -x, lambda x: -x),
}
BINARY: dict[str, tuple[Callable[[QuickBalls, QuickBalls], QuickBalls], Callable[[Any, Any], Any]]] = {
    "add": (lambda x, y: x + y, lambda x, y: x + y),
    "subtract": (lambda x, y: x - y, lambda x, y: x - y),
    "multiply": (lambda x, y: x * y, lambda x, y: x * y),
    "divide": (lambda x, y: x / y, lambda x, y: x / y),
    "logaddexp": (NUMBERS.logaddexp, lambda x, y: (x.exp() + y.exp()).log()),
    "logaddexp_slope": (
        lambda x, y: NUMBERS.logaddexp_slope(x, y, NUMBERS.logaddexp(y, x)),
        lambda x, y: 1 / (1 + (y - x).exp()),
    ),
}


@st.composite
def numbers(draw: st.DrawFn, largest: int = 60) -> Number:
    """Words of any size up to 2^largest in either direction, some of them whole or 0, some with a radius."""
    mantissa = draw(st.one_of(st.floats(-2, 2), st.integers(-8, 8).map(float)))
    high = mantissa * 2.0 ** draw(st.integers(-largest, 9))
    low = high * 2.0**-53 * draw(st.one_of(st.just(0.0), st.floats(-0.99, 0.99)))
    rad = draw(st.one_of(st.just(0.0), st.floats(0, 1).map(lambda share: share * abs(high) * 2.0**-40)))
    return high, low, rad


def ball(*values: Number) -> QuickBalls:
    return QuickBalls(*(np.array(part) for part in zip(*values, strict=True)))


def points(number: Number) -> list[Any]:
    """The middle and both ends, exactly."""
    high, low, rad = number
    return [arb(high) + arb(low) + side * arb(rad) for side in (0, 1, -1)]


def assert_contains(found: QuickBalls, exact: Any, place: int = 0) -> None:
    """An unknown number contains everything, and what has no value is contained in nothing else."""
    assert found.rad.ravel()[place] >= 0
    if math.isfinite(found.rad.ravel()[place]):
        enclosure = balls_from_quick(found).ravel()[place]
        assert exact.is_finite()
        assert enclosure.contains(exact)


def check_unary(name: str, x: Number) -> None:
    quick, exact = UNARY[name]
    with ctx.workprec(BITS), np.errstate(all="ignore"):
        found = quick(ball(x))
        for point in points(x):
            assert_contains(found, exact(point))


@pytest.mark.parametrize("name", UNARY)
@given(x=numbers())
@settings(deadline=None)
def test_functions_of_one_number_contain_the_exact_values(name: str, x: Number) -> None:
    check_unary(name, x)


@pytest.mark.parametrize("name", UNARY)
@given(x=st.floats(allow_nan=False, allow_infinity=False), share=st.sampled_from([0.0, 2.0**-54]))
@example(x=-745.2, share=0.0)
@example(x=5e-324, share=0.0)
@example(x=1e-310, share=0.0)
@settings(deadline=None)
def test_functions_of_numbers_of_any_size_contain_the_exact_values(name: str, x: float, share: float) -> None:
    check_unary(name, (x, x * share, 0.0))


@pytest.mark.parametrize("name", BINARY)
@given(x=numbers(), y=numbers(), near=st.booleans())
@example(x=(1.0, 1e-17, 0.0), y=(1.0, 0.0, 0.0), near=False)
@example(x=(1.0, 0.0, 1e-10), y=(1.0, 1e-17, 1e-9), near=False)
@example(x=(2.0**-12, 0.0, 0.0), y=(1.0, 6.037e-321, 0.0), near=False)
@settings(deadline=None)
def test_functions_of_two_numbers_contain_the_exact_values(name: str, x: Number, y: Number, near: bool) -> None:
    quick, exact = BINARY[name]
    if near:  # so that the middles tie, or nearly
        y = (x[0], x[1] / -2, y[2])
    with ctx.workprec(BITS), np.errstate(all="ignore"):
        found = quick(ball(x), ball(y))
        for one in points(x):
            for other in points(y):
                assert_contains(found, exact(one, other))


@pytest.mark.parametrize("name", ["add", "multiply", "divide"])
@given(x=st.floats(allow_nan=False), y=st.floats(allow_nan=False))
@settings(deadline=None)
def test_numbers_of_any_size_are_contained_also_where_they_overflow_or_vanish(name: str, x: float, y: float) -> None:
    assume(math.isfinite(x) and math.isfinite(y))
    quick, exact = BINARY[name]
    with ctx.workprec(BITS), np.errstate(all="ignore"):
        assert_contains(quick(as_quick_balls([x]), as_quick_balls([y])), exact(arb(x), arb(y)))


@pytest.mark.parametrize("name", [name for name in UNARY if name not in ("sin", "cos", "x^1.5")])
def test_radii_are_far_below_what_a_float_can_see(name: str) -> None:
    x = np.random.default_rng(0).uniform(0.1, 3, 10_000)

    found = UNARY[name][0](as_quick_balls(x))

    assert np.max(found.rad / np.abs(found.high)) < 2.0**-85


def test_what_is_exact_in_floats_has_no_radius() -> None:
    x, y = (as_quick_balls(np.random.default_rng(0).integers(-9, 9, (4, 6)).astype(float)) for _ in range(2))

    for found in (x + y, x * y, -x, x @ NUMBERS.rearrange(np.transpose, y)):
        assert not found.rad.any()
    assert NUMBERS.sum(x, (-1, -2)).rad.item() == 0
    assert NUMBERS.sum(x, (-1, -2)).high.item() == x.high.sum()


@given(st.lists(numbers(), min_size=0, max_size=9))
@settings(deadline=None)
def test_sums_contain_the_exact_sum(terms: list[Number]) -> None:
    parts = [np.array(part) for part in zip(*terms, strict=True)] or [np.zeros(0)] * 3

    found = NUMBERS.sum(QuickBalls(*parts), (-1,))

    with ctx.workprec(BITS):
        assert_contains(found, sum((points(term)[1] for term in terms), arb(0)))


def drawn_matrix(generator: np.random.Generator, shape: tuple[int, ...]) -> QuickBalls:
    """Numbers of many sizes, a quarter of them 0; by chance whole, floats or words; with radii or without."""
    decades = generator.choice([0, 3, 30, 300])
    high = generator.normal(size=shape) * 10.0 ** generator.uniform(-decades, decades, shape)
    high = np.where(generator.random(shape) < 0.25, 0.0, high)
    low, rad = np.zeros(shape), np.zeros(shape)
    kind = generator.integers(4)
    if kind == 0:
        high = np.round(high)
    elif kind == 1:
        low = high * 2.0**-54 * generator.uniform(-1, 1, shape)
    elif kind == 2:
        rad = np.abs(high) * 2.0**-50
    return QuickBalls(high, low, rad)


def check_product(seed: int) -> None:
    generator = np.random.default_rng(seed)
    m, k, n = generator.integers(1, 9, 3)
    x, y = drawn_matrix(generator, (m, k)), drawn_matrix(generator, (k, n))

    with np.errstate(all="ignore"):
        found = x @ y

    with ctx.workprec(BITS):
        for i in range(m):
            for j in range(n):
                total = np.dot(balls_from_quick(x)[i], balls_from_quick(y)[:, j])
                for share in (0.0, 0.99, -0.99):  # radii have 30 bits
                    assert_contains(found, total.mid() + arb(share) * total.rad(), i * n + j)


@pytest.mark.parametrize("pieces", [(1024, 2**16), (3, 6)])
@given(seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_products_of_matrices_contain_the_exact_products(pieces: tuple[int, int], seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_matrices, "TERMS", pieces[0])
        patch.setattr(word_matrices, "NUMBERS", pieces[1])

        check_product(seed)


def test_what_vanishes_beside_the_largest_of_its_row_is_not_lost() -> None:
    """2^100 + 2^100: scaled by 2^-1000, the second factor underflows."""
    x, y = np.ldexp(1.0, np.array([[1000, -800]])), np.ldexp(1.0, np.array([[-900], [900]]))

    with np.errstate(all="ignore"):
        found = as_quick_balls(x) @ as_quick_balls(y)

    assert_contains(found, arb(2) ** 101)


def test_a_product_over_many_terms_is_as_good_as_one_over_few() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 5000)), generator.normal(size=(5000, 3))

    found = as_quick_balls(x) @ as_quick_balls(y)

    exact = NUMBERS.sum(as_quick_balls(x[:, :, None]) * as_quick_balls(y[None]), (-2,))[:, 0]
    apart = found - exact
    assert (np.abs(apart.high) <= apart.rad).all()
    assert (found.rad <= 2.0**-80 * np.sqrt(5000)).all()


BROKEN: dict[str, tuple[Any, str, Any]] = {
    "a product that is said to be exact": (words, "PRODUCT", 0.0),
    "a sum that is said to be exact": (words, "SUM", 0.0),
    "an exponential without its low part": (
        words,
        "exp",
        lambda x, exp=words.exp: (exp(x)[0], np.zeros_like(x[0])),
    ),
    "a logarithm as NumPy has it": (words, "log", lambda x: (np.log(x[0]), np.zeros_like(x[0]))),
    "slices of matrices that hold too little": (word_matrices, "BITS", 40),
    "no room for underflow": (words, "UNDERFLOW", 0.0),
}


def tried() -> None:
    generator = np.random.default_rng(1)
    for seed in range(40):
        check_product(seed)
    for high in generator.uniform(0.2, 2, 40).tolist():
        for name in ("exp", "log", "square"):
            check_unary(name, (high, high * 2.0**-54, 0.0))
        check_unary("square", (high * 2.0**-530, 0.0, 0.0))
        one, other = (high, high * 2.0**-54, 0.0), (1.0 / high, high * 2.0**-60, 0.0)
        with ctx.workprec(BITS):
            assert_contains(ball(one) + ball(other), points(one)[0] + points(other)[0])


@pytest.mark.thorough
def test_bounds_as_they_are_are_large_enough() -> None:
    tried()


@pytest.mark.thorough
@pytest.mark.parametrize("fault", BROKEN)
def test_a_bound_that_is_too_small_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BROKEN[fault])
    if fault.startswith("slices"):
        monkeypatch.setattr(word_matrices, "_terms", lambda x, y: 0.0)

    with pytest.raises(AssertionError):
        tried()


@given(x=st.floats(-1e300, 1e300), number=numbers())
@settings(deadline=None)
def test_distances_lie_between_their_bounds(x: float, number: Number) -> None:
    (below, above), (below_far, above_far) = bounds_of_distance(np.array([x]), ball(number))

    with ctx.workprec(BITS):
        off, rad = abs(arb(x) - points(number)[0]), arb(number[2])
        assert arb(float(below[0])) <= off - rad <= arb(float(above[0]))
        assert arb(float(below_far[0])) <= off + rad <= arb(float(above_far[0]))


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: NUMBERS.compare(np.equal, x, x, kink=True),
        lambda x: NUMBERS.compare(np.less, x, x + x * 1e-40, kink=False),
        lambda x: NUMBERS.max(
            NUMBERS.rearrange(lambda a, b: np.stack([a, b], -1), x, x * (as_quick_balls([1.0]) / 3.0) * 3.0)
        ),
        lambda x: NUMBERS.sign(x - x * (as_quick_balls([1.0]) / 3.0) * 3.0),
        lambda x: NUMBERS.where(x, x, x),
    ],
)
def test_kinks_and_what_is_undecided_are_refused(formula: Callable[[QuickBalls], Any]) -> None:
    with pytest.raises(UndecidedError):
        formula(as_quick_balls([0.1, 0.7]))


def test_conditions_of_data_may_be_of_equals() -> None:
    x = as_quick_balls([1.0, 2.0])

    assert NUMBERS.compare(np.less_equal, x, as_quick_balls([1.0, 1.0]), kink=False).high.tolist() == [1.0, 0.0]
    assert NUMBERS.max(NUMBERS.rearrange(lambda part: np.stack([part, part], -1), x)).high.tolist() == [1.0, 2.0]


def test_a_tie_for_the_largest_may_be_shared_in_any_way() -> None:
    own = QuickNumbers()

    share = own.share_of_max(as_quick_balls([[[0.5, 0.5, 0.0], [1.0, 2.0, 2.0]]]), "relu")

    low, high = share.high - share.rad, share.high + share.rad
    assert low.tolist() == [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    assert high.tolist() == [[[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]]
    assert [(kink.operation, kink.indices.tolist()) for kink in own.kinks] == [("relu", [[0], [1]])]


def test_what_is_no_number_is_not_known_and_neither_is_what_depends_on_it() -> None:
    x = as_quick_balls(np.array([[math.nan, 1.0]]))

    assert np.isinf(x.rad).tolist() == [[True, False]]
    with np.errstate(all="ignore"):
        results: list[NDArray[Any]] = [
            (x * 0.0).rad, NUMBERS.exp(x).rad, NUMBERS.sum(x, (-1,)).rad, (x @ as_quick_balls(np.ones((2, 1)))).rad,
        ]  # fmt: skip
    assert all(np.isinf(each[0, 0]) for each in results)


AWKWARD = [math.inf, -math.inf, 0.0, 1.5, -3.0]


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_what_is_made_of_infinities_is_what_arb_says_or_not_known(name: str) -> None:
    """Arb's infinities are exact; what it leaves open, as infinity - infinity, must not be a number here either."""
    both = BINARY.get(name)
    pairs = [
        (one, other) for one in AWKWARD for other in (AWKWARD if both else [1.0]) if math.inf in map(abs, (one, other))
    ]
    x, y = (as_quick_balls(np.array(side)) for side in zip(*pairs, strict=True))
    with np.errstate(all="ignore"):
        found = both[0](x, y) if both else UNARY[name][0](x)

    for i, (one, other) in enumerate(pairs):
        if not math.isfinite(found.rad[i]):
            continue
        with ctx.workprec(BITS):
            exact = both[1](arb(one), arb(other)) if both else UNARY[name][1](arb(one))
            inside = balls_from_quick(found)[i]
            assert exact == inside or (not exact.is_nan() and inside.overlaps(exact)), (one, other, inside, exact)


def test_a_mask_of_infinities_leaves_the_others_known() -> None:
    scores = as_quick_balls(np.array([[[0.5, -math.inf], [1.0, 2.0]]]))

    with np.errstate(all="ignore"):
        apart = scores - NUMBERS.max(scores)[..., None]
        powers = NUMBERS.exp(apart)
        product = scores @ as_quick_balls(np.zeros((1, 2, 1)))

    assert apart.high[0, 0].tolist() == [0.0, -math.inf]
    assert powers.high[0, 0].tolist() == [1.0, 0.0]
    assert powers.rad[0, 0, 1] == 0.0
    assert np.isinf(product.rad[0, 0, 0])  # infinity times 0
    assert product.rad[0, 1, 0] == 0.0


def test_balls_go_to_arb_and_back() -> None:
    with ctx.workprec(300):
        balls = BallNumbers().asarray(np.array([1.0, 2.0, 1e-300])) / BallNumbers().asarray(np.array([3.0, 7.0, 1e300]))

    again = balls_from_quick(quick_from_balls(balls))

    assert all(new.contains(old) for new, old in zip(again, balls, strict=True))
    assert math.isinf(quick_balls.quick_from_balls(np.array([arb.nan()], dtype=object)).rad[0])
