"""The enclosure: it contains the truth, it is narrow, and at a kink it is the hull of the one-sided derivatives."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gdcompare import Problem, load_backend
from gdcompare.arithmetic.balls import BallNumbers, as_balls, power
from gdcompare.problems.linear_regression import LinearRegression
from gdcompare.problems.logistic_regression import LogisticRegression
from gdcompare.referee.enclosure import Enclosed, enclose, enclose_rows
from tests.formulas import PROBLEMS, Formula, HuberRegression, Network, drawn, some_weights

ANY_FLOAT = st.floats(-1e305, 1e305)
ONE_ROW = np.ones((1, 3))


def curve(function: Any, a: Any, b: Any = (1.0, 1.0, 1.0)) -> Enclosed:
    """Return the enclosure of the slope by `a` of f(a)_1 + 2 f(a)_2 + 3 f(a)_3."""
    return enclose(Formula(function), {"a": np.array(a), "b": np.array(b)}, ONE_ROW, np.zeros(1)).gradient["a"]


def bounds(truth: Enclosed) -> list[tuple[float, float]]:
    return [(round(float(ball.lower()), 6) + 0.0, round(float(ball.upper()), 6) + 0.0) for ball in truth.balls.ravel()]


def exact(ball: Any) -> tuple[Fraction, Fraction]:
    """Return the middle and the radius of a ball as fractions."""
    (m, e), (r, f) = ball.mid().man_exp(), ball.rad().man_exp()
    return Fraction(int(m)) * Fraction(2) ** int(e), Fraction(int(r)) * Fraction(2) ** int(f)


@pytest.mark.thorough
@given(st.data(), st.sampled_from(["float32", "float64"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_contains_the_rational_gradient_of_a_line(data: st.DataObject, dtype: str, weighted: bool) -> None:
    n, d = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    floats = st.floats(-(2.0**100), 2.0**100, width=32 if dtype == "float32" else 64)
    features, targets, slopes = (data.draw(arrays(dtype, shape, elements=floats)) for shape in ((n, d), n, d))
    weights = data.draw(arrays(dtype, n, elements=st.floats(0.125, 8, width=32))) if weighted else None

    params = {"theta_0": np.zeros((), dtype=dtype), "theta_1": slopes}
    truth = enclose(LinearRegression(), params, features, targets, weights).gradient

    x = [[Fraction(float(each)) for each in row] for row in features]
    residuals = [
        sum((Fraction(float(slope)) * each for slope, each in zip(slopes, row, strict=True)), -Fraction(float(goal)))
        for row, goal in zip(x, targets, strict=True)
    ]
    shares = [Fraction(1)] * n if weights is None else [Fraction(float(w)) for w in weights]
    terms = [2 * w * r / sum(shares) for w, r in zip(shares, residuals, strict=True)]
    expected: list[Any] = [sum(terms), *(sum(t * row[j] for t, row in zip(terms, x, strict=True)) for j in range(d))]
    for ball, value in zip([truth["theta_0"].balls[()], *truth["theta_1"].balls], expected, strict=True):
        mid, rad = exact(ball)
        assert abs(mid - value) <= rad
        assert rad <= abs(value) / 2**70 or rad < Fraction(2) ** -1000


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_two_precisions_overlap_and_the_higher_one_is_narrower(problem: Problem) -> None:
    point = drawn(problem, np.random.default_rng(8))

    coarse, fine = (enclose(problem, *point, precision=bits, limit=bits) for bits in (60, 300))

    for name, truth in fine.gradient.items():
        for one, other in zip(coarse.gradient[name].balls.ravel(), truth.balls.ravel(), strict=True):
            assert one.overlaps(other)
        assert (truth.rad <= coarse.gradient[name].rad).all()


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_the_mean_of_the_rows_is_the_gradient(problem: Problem) -> None:
    generator = np.random.default_rng(9)
    point = drawn(problem, generator, dtype="float32")
    for weights in (None, some_weights(generator, 7, "float32")):
        whole, rows = enclose(problem, *point, weights), enclose_rows(problem, *point, weights)

        for name, truth in whole.gradient.items():
            with ctx.workprec(128):
                mean = np.sum(rows[name].balls, axis=0) / 7
            assert all(a.overlaps(b) for a, b in zip(np.ravel(mean), truth.balls.ravel(), strict=True))


def test_the_precision_rises_until_the_radius_is_negligible() -> None:
    """log-odds of 300: the slope of a sample on the right side is exp(-300), that of one on the wrong side nearly 1."""
    params = {"theta_0": np.array(0.0), "theta_1": np.array([300.0])}

    truth = enclose(LogisticRegression(), params, np.array([[1.0], [-1.0]]), np.array([1.0, 1.0]), precision=64)

    assert truth.narrow
    assert truth.gradient["theta_1"].mid == pytest.approx([0.5])
    assert enclose_rows(LogisticRegression(), params, np.array([[1.0]]), np.array([1.0]))["theta_0"].mid == -math.exp(
        -300
    )


def test_a_budget_may_end_the_search_early() -> None:
    """The truth is 0, and no ball around it is small beside its own size."""
    params, features = {"theta_0": np.array(0.0), "theta_1": np.array([0.1])}, np.array([[1.0], [-1.0], [3.0]])
    targets = np.array([1.0, 0.0, 1.0])

    alone = enclose(LogisticRegression(), params, features, targets)
    with_budget = enclose(
        LogisticRegression(), params, features, targets, budgets={"theta_0": 1e-16, "theta_1": [1e-16]}
    )

    assert with_budget.narrow
    assert with_budget.precision == 128
    assert alone.narrow


@pytest.mark.parametrize("way", [1.0, -1.0])
@pytest.mark.parametrize("far", [1e-300, 1e-8, 40.0, 1000.0, 1e6, 1e300])
def test_logaddexp_neither_overflows_nor_loses_a_small_sum(far: float, way: float) -> None:
    numbers, x, y = BallNumbers(), as_balls([way * far]), as_balls([0.0])

    with ctx.workprec(128):
        value = numbers.logaddexp(x, y)
        slope = numbers.logaddexp_slope(x, y, value)

    assert value[0].is_finite()
    assert 0 <= float(slope[0]) <= 1
    if far < 1e5:  # else one of them has too many digits to check
        assert value[0].rel_accuracy_bits() > 100
        assert slope[0].rel_accuracy_bits() > 100
        with ctx.workprec(4000):
            direct = (1 + x[0].exp()).log()
            assert direct.overlaps(value[0])
            assert (1 / (1 + (-x[0]).exp())).overlaps(slope[0])


def test_flints_precision_is_as_it_was_also_after_an_error() -> None:
    before = ctx.prec

    enclose(LinearRegression(), *drawn(LinearRegression(), np.random.default_rng(0)))
    with pytest.raises(AttributeError, match=r"no xp\.unwrap"):
        curve(lambda xp, x, y: xp.unwrap(x), [1.0, 1.0, 1.0])

    assert ctx.prec == before


# Kinks.


def test_relu_at_0_has_the_hull_of_both_slopes() -> None:
    truth = curve(lambda xp, x, y: xp.maximum(x, xp.zeros_like(x)), [0.0, -1.0, 1.0])

    assert bounds(truth) == [(0.0, 1.0), (0.0, 0.0), (3.0, 3.0)]
    assert truth.kinks.tolist() == [True, False, False]


def test_the_absolute_value_at_0_has_the_slopes_from_minus_1_to_1() -> None:
    assert bounds(curve(lambda xp, x, y: xp.abs(x), [0.0, -1.0, 1.0])) == [(-1.0, 1.0), (-2.0, -2.0), (3.0, 3.0)]


def test_each_of_several_equals_may_have_the_slope_of_the_largest() -> None:
    truth = curve(lambda xp, x, y: xp.max(x, axis=1), [2.0, 1.0, 2.0])

    assert bounds(truth) == [(0.0, 1.0), (0.0, 0.0), (0.0, 1.0)]


def test_the_edges_of_a_clip_are_kinks() -> None:
    assert bounds(curve(lambda xp, x, y: xp.clip(x, -1.0, 1.0), [-1.0, 0.5, 1.0])) == [
        (0.0, 1.0),
        (2.0, 2.0),
        (0.0, 3.0),
    ]


def test_a_condition_on_its_edge_has_the_hull_of_both_branches() -> None:
    truth = curve(lambda xp, x, y: xp.where(x > 0, 5 * x, -x), [0.0, 1.0, -1.0])

    assert bounds(truth) == [(-1.0, 5.0), (10.0, 10.0), (-3.0, -3.0)]
    assert truth.kinks.tolist() == [True, False, False]


def test_a_condition_on_data_is_no_kink() -> None:
    truth = curve(lambda xp, x, y: xp.where(0 * y >= xp.asarray([0.0, 1.0, -1.0]), 5 * x, -x), [1.0, 1.0, 1.0])
    data_only = enclose(
        Formula(lambda xp, x, y: xp.where(xp.asarray([0.0, 1.0, 2.0]) > 0, x, -x)),
        {"a": np.ones(3), "b": np.ones(3)},
        ONE_ROW,
        np.zeros(1),
    )

    assert bounds(truth)[1:] == [(-2.0, -2.0), (15.0, 15.0)]
    assert bounds(data_only.gradient["a"]) == [(-1.0, -1.0), (2.0, 2.0), (3.0, 3.0)]
    assert data_only.kinks == ()


def test_where_both_branches_have_one_slope_the_edge_is_narrow() -> None:
    """Huber's loss is smooth: at |r| = delta the parabola and the line touch."""
    features, targets = np.array([[1.0], [1.0], [2.0]]), np.array([0.5, 3.5, 7.0])

    truth = enclose(HuberRegression(), {"slopes": np.array([2.0])}, features, targets)  # r = 1.5, -1.5, -3

    assert truth.narrow
    assert {kink.operation for kink in truth.kinks} == {"less_equal"}
    assert truth.gradient["slopes"].mid.tolist() == [-1.0]
    assert not truth.gradient["slopes"].kinks.any()


def test_a_tie_that_no_precision_decides_is_a_kink_at_once() -> None:
    """sqrt(2) sqrt(2) is 2, but no ball will say so."""
    problem = Formula(lambda xp, x, y: xp.maximum(xp.sqrt(x) * xp.sqrt(x), 2 * y))
    params = {"a": np.full(3, 2.0), "b": np.ones(3)}

    truth = enclose(problem, params, ONE_ROW, np.zeros(1))

    assert truth.precision == 256
    assert not truth.narrow
    assert bounds(truth.gradient["a"]) == [(0.0, 1.0), (0.0, 2.0), (0.0, 3.0)]
    (kink,) = {kink.operation: kink.indices[:, 1].tolist() for kink in truth.kinks}.items()
    assert kink == ("maximum", [0, 1, 2])


def test_a_near_tie_is_decided_by_more_precision() -> None:
    problem = Formula(lambda xp, x, y: xp.maximum(xp.exp(x), y))

    truth = enclose(problem, {"a": np.full(3, 1e-50), "b": np.ones(3)}, ONE_ROW, np.zeros(1))

    assert truth.narrow
    assert truth.gradient["a"].mid.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("activation", ["relu"])
def test_the_hull_contains_every_backends_convention(backend_name: str, activation: str) -> None:
    """Hidden units at rest: z = 0 for all rows. NumPy's formula says slope 0, others 0 or 1/2."""
    problem, backend = Network(activation), load_backend(backend_name, "float64")
    params = {
        "inner": np.zeros((1, 3)),
        "offsets": np.zeros(3),
        "outer": np.array([1.0, -2.0, 4.0]),
        "shift": np.ones(()),
    }
    features, targets = np.array([[1.0], [2.0], [-3.0], [1.0]]), np.zeros(4)

    truth = enclose(problem, params, features, targets)
    arguments = (
        {name: backend.asarray(value) for name, value in params.items()},
        *map(backend.asarray, (features, targets)),
    )
    gradient = {name: backend.to_numpy(g) for name, g in backend.value_and_grad(problem)(*arguments)[1].items()}

    for name, value in gradient.items():
        lower, upper = truth.gradient[name].distance(value)
        assert (lower == 0).all()
        assert (upper == 0).all()
    assert bounds(truth.gradient["offsets"]) == [(0.0, 2.0), (-4.0, 0.0), (0.0, 8.0)]
    assert truth.gradient["offsets"].distance(-gradient["offsets"] + 1)[0].max() > 0


# What an enclosure says.


@given(ANY_FLOAT, st.floats(0, 1e300), ANY_FLOAT)
def test_the_distance_is_bounded_on_both_sides_within_an_ulp(mid: float, rad: float, actual: float) -> None:
    ball = arb(mid, rad)
    truth = Enclosed(as_balls(np.array([ball, ball], dtype=object)), np.array([False, True]))
    center, radius = exact(ball)
    near, far = max(Fraction(0), abs(Fraction(actual) - center) - radius), abs(Fraction(actual) - center) + radius

    lower, upper = truth.distance(np.array([actual, actual]))

    for bound, value, way in ((lower[0], near, -1), (upper[0], far, 1), (lower[1], near, -1), (upper[1], near, 1)):
        assert (Fraction(float(bound)) - value) * way >= 0
        # 128 bits of |actual - mid| and of the radius, then one ulp of the result
        assert abs(Fraction(float(bound)) - value) <= Fraction(math.ulp(float(bound))) + far / 2**120


def test_a_distance_beyond_all_floats_is_infinity_upwards() -> None:
    largest = float(np.finfo(np.float64).max)

    lower, upper = Enclosed(as_balls([largest]), np.zeros(1, dtype=bool)).distance(np.array([-largest]))

    assert (lower[0], upper[0]) == (largest, math.inf)


def test_a_wide_ball_away_from_kinks_has_no_width() -> None:
    truth = Enclosed(as_balls(np.array([arb(0, 1.7e308), arb(0, 1)], dtype=object)), np.array([False, True]))

    assert truth.width == pytest.approx([0, 2])


def test_differences_of_1e_20_are_seen() -> None:
    with ctx.workprec(128):
        truth = Enclosed(as_balls([1.0]) / as_balls([3.0]), np.zeros(1, dtype=bool))

    lower, upper = truth.distance(np.array([1 / 3]))

    expected = float(abs(Fraction(1, 3) - Fraction(1 / 3)))  # 1.85e-17
    assert lower[0] == pytest.approx(expected, rel=1e-15)
    assert upper[0] == pytest.approx(expected, rel=1e-15)
    assert lower[0] <= upper[0]


@pytest.mark.parametrize("actual", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_infinitely_far_away(actual: float) -> None:
    lower, upper = Enclosed(as_balls([1.0]), np.zeros(1, dtype=bool)).distance(np.array([actual]))

    assert lower.tolist() == upper.tolist() == [math.inf]


def test_an_unknown_truth_excludes_nothing() -> None:
    """The square root has no slope at 0."""
    truth = curve(lambda xp, x, y: xp.sqrt(x), [0.0, 1.0, 4.0])

    lower, upper = truth.distance(np.array([7.0, 1.0, 0.75]))

    assert np.isnan(truth.mid).tolist() == [True, False, False]
    assert truth.rad[0] == truth.magnitude[0] == math.inf
    assert lower.tolist() == [0.0, 0.0, 0.0]
    assert upper.tolist() == [math.inf, 0.0, 0.0]


@given(st.lists(st.tuples(ANY_FLOAT, st.floats(0, 1e300)), min_size=1, max_size=4))
@settings(deadline=None)
def test_middle_radius_and_magnitude_are_rounded_the_right_way(balls: list[tuple[float, float]]) -> None:
    truth = Enclosed(as_balls(np.array([arb(*ball) for ball in balls], dtype=object)), np.zeros(len(balls), dtype=bool))

    for i, ball in enumerate(truth.balls):
        mid, rad = exact(ball)
        assert truth.mid[i] == float(mid)
        assert not math.isfinite(truth.rad[i]) or Fraction(float(truth.rad[i])) >= rad
        assert truth.magnitude[i] == math.inf or Fraction(float(truth.magnitude[i])) >= abs(mid) + rad
        assert truth.magnitude[i] == math.inf or Fraction(float(truth.magnitude[i])) <= (abs(mid) + rad) * Fraction(
            1.00000001
        ) + Fraction(5e-324)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_text_brings_back_balls_that_contain_the_old_ones(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(size=shape)
    kinks: NDArray[np.bool_] = np.zeros(shape, dtype=bool)
    truth = Enclosed(as_balls(as_balls(values) / 3), kinks)

    again = Enclosed.from_text(truth.to_text(), kinks)

    assert again.balls.shape == shape
    for new, old in zip(again.balls.ravel(), truth.balls.ravel(), strict=True):
        assert new.contains(old)
        assert new.rad() <= old.rad() * 1.00000001
        assert new.mid() == old.mid()


def test_text_says_what_is_unknown() -> None:
    truth = Enclosed(as_balls(np.array([arb.nan()], dtype=object)), np.zeros(1, dtype=bool))

    assert truth.to_text() == ["unknown"]
    assert Enclosed.from_text(truth.to_text(), truth.kinks).mid.tolist() == pytest.approx([math.nan], nan_ok=True)


@pytest.mark.parametrize("exponent", [-3, -1, 0, 1, 2, 5])
def test_whole_powers_are_known_also_around_0(exponent: int) -> None:
    for x in (arb(0.5, 0.25), arb(-2), arb(0, 1e-30)):
        ball = power(x, arb(exponent))

        if exponent >= 0 or not x.contains(0):
            assert ball.contains(x.mid() ** exponent)
            assert ball.is_finite()


def test_every_float_is_an_exact_ball() -> None:
    values = np.array([0.1, 5e-324, -1.7e308], dtype=np.float64)

    balls = [*as_balls(values), *as_balls(np.array([0.1], dtype=np.float32)), *as_balls([7])]

    assert all(ball.is_exact() for ball in balls)
    assert [exact(ball)[0] for ball in balls] == [Fraction(float(x)) for x in (*values, np.float32(0.1), 7)]
