"""The budget: no correct program exceeds it, and no planted fault fits into it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from importlib import import_module
from typing import Any, final

import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare import Backend, Dataset, Problem, backend_names, load_backend, load_problem
from gdcompare.arithmetic.functions import FUNCTIONS as FUNCTIONS_OF_ONE
from gdcompare.arithmetic.rounded import ULPS, Rounded, RoundedNumbers
from gdcompare.backend import unit_roundoff
from gdcompare.problems.linear_regression import LinearRegression
from gdcompare.problems.logistic_regression import LogisticRegression
from gdcompare.problems.operation import Operation
from gdcompare.referee.budget import budget_of_formula, budget_of_loss, row_budgets_of_formula, row_budgets_of_loss
from gdcompare.referee.enclosure import Enclosed, Enclosure, enclose, enclose_rows
from gdcompare.registry import how_to_install
from tests.formulas import FUNCTIONS, PROBLEMS, Formula, Network, Point, drawn, some_weights
from tests.strategies import data_sets, lattices, parameters, shapes, weights

SHAPES = [(1, 1), (2, 3), (7, 2), (30, 8), (300, 4)]  # few, because every new shape is a compilation for some
DTYPES = ["float32", "float64"]
SMALLEST = 5e-324

Record = Callable[[str, float], None]


@pytest.fixture(scope="session")
def problem(linear_model: Problem) -> Problem:
    """Every new shape is a compilation: other problems have one shape each, in test_problems."""
    return linear_model


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Write a figure into the test's report."""
    return lambda name, value: request.node.user_properties.append((name, float(value)))


@dataclass(frozen=True)
class Judged:
    """One array of a backend beside the truth and the budget."""

    name: str
    actual: NDArray[Any]
    truth: Enclosed
    budget: NDArray[np.float64]

    @property
    def fraction(self) -> float:
        """The largest share of the budget that is surely used; a budget of infinity excludes nothing."""
        lower, _ = self.truth.distance(self.actual)
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.max(np.where(np.isfinite(self.budget), lower / self.budget, 0.0)))

    @property
    def relative_budget(self) -> float:
        """The median budget as a part of the truth."""
        some = (self.truth.mid != 0) & np.isfinite(self.budget) & np.isfinite(self.truth.mid)
        with np.errstate(over="ignore"):
            return float(np.median(self.budget[some] / np.abs(self.truth.mid[some]))) if some.any() else np.nan


class Judge:
    """The truth and the budgets at one point, computed once for all backends."""

    def __init__(
        self, problem: Problem, point: Point, dtype: str, w: NDArray[Any] | None = None, rows: bool = False
    ) -> None:
        self.problem, self.point, self.dtype, self.weights, self.rows = problem, point, dtype, w, rows

    @cached_property
    def whole(self) -> Enclosure:
        return enclose(self.problem, *self.point, self.weights)

    @cached_property
    def truth(self) -> dict[str, Enclosed]:
        if self.rows:
            return enclose_rows(self.problem, *self.point, self.weights)
        return {"loss": self.whole.loss, **self.whole.gradient}

    def beside(self, results: dict[str, Any], budgets: dict[str, Any]) -> dict[str, Enclosed]:
        """Return the truths, at kinks those members of the set that are nearest to all results together."""
        if self.rows or self.whole.sides is None or self.whole.sides.certain:
            return self.truth
        return self.truth | self.whole.sides.towards({name: results[name] for name in self.whole.gradient}, budgets)

    @cache  # noqa: B019 - as many judges as tests
    def budgets(self, by_hand: bool) -> dict[str, Any]:
        arguments = (self.problem, *self.point, self.dtype, self.weights)
        if self.rows:
            return (row_budgets_of_formula if by_hand else row_budgets_of_loss)(*arguments)
        loss, gradient = (budget_of_formula if by_hand else budget_of_loss)(*arguments)
        return {"loss": loss, **gradient}

    def judge(self, backend: Backend[Any]) -> Iterator[Judged]:
        params, features, targets = self.point
        w = None if self.weights is None else backend.asarray(self.weights)
        arguments = ({name: backend.asarray(value) for name, value in params.items()}, backend.asarray(features))
        with np.errstate(all="ignore"):
            if self.rows:
                results = backend.per_sample_grad(self.problem)(*arguments, backend.asarray(targets), w)
            else:
                loss, gradient = backend.value_and_grad(self.problem)(*arguments, backend.asarray(targets), w)
                results = {"loss": loss, **gradient}
        found = {name: backend.to_numpy(value) for name, value in results.items()}
        budgets = {name: np.asarray(each) for name, each in self.budgets(backend.name == "numpy").items()}
        truths = self.beside(found, budgets)
        for name, value in found.items():
            yield Judged(name, value, truths[name], budgets[name])


def judge_all_ways(
    problem: Problem, point: Point, dtype: str, w: NDArray[Any], backends: list[str]
) -> Iterator[tuple[tuple[str, str], Judged]]:
    """Judge mean and rows, with weights and without, by each backend."""
    for rows in (False, True):
        for some in (None, w):
            judge = Judge(problem, point, dtype, some, rows)
            for name in backends:
                for judged in judge.judge(load_backend(name, dtype)):
                    yield (name, "rows" if rows else "mean"), judged


# No correct program exceeds it.


@pytest.mark.covering
@pytest.mark.thorough
@settings(max_examples=15, deadline=None)
@given(data=st.data(), rows=st.booleans())
def test_no_backend_exceeds_the_budget_of_a_registered_problem(
    backend: Backend[Any], problem: Problem, data: st.DataObject, rows: bool
) -> None:
    chosen = data.draw(data_sets(problem, shapes(backend)))
    params = {name: value.astype(backend.dtype) for name, value in data.draw(parameters(problem, chosen)).items()}
    features, targets = chosen.features.astype(backend.dtype), chosen.targets.astype(backend.dtype)
    w = data.draw(st.none() | weights(len(chosen)).map(lambda drawn: drawn.astype(backend.dtype)))

    judged = list(Judge(problem, (params, features, targets), backend.dtype, w, rows).judge(backend))

    assert {each.name: each.fraction for each in judged if not each.fraction <= 1} == {}


@pytest.mark.covering
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_no_backend_exceeds_the_budget_nor_leaves_it_unused(
    problem: Problem, backend_name: str, dtype: str, record: Record
) -> None:
    generator = np.random.default_rng(4)

    fractions, relative = [], []
    for decades in (0.5, 1, 2, 3):
        point, w = drawn(problem, generator, 7, 2, dtype, decades), some_weights(generator, 7, dtype)
        for weighted, rows in ((w, False), (None, True)):
            for judged in Judge(problem, point, dtype, weighted, rows).judge(load_backend(backend_name, dtype)):
                fractions.append(judged.fraction)
                relative.append(judged.relative_budget)

    record("largest budget fraction", max(fractions))
    record("median budget as a part of the gradient", np.nanmedian(relative))
    assert max(fractions) <= 1
    assert max(fractions) > 0.01
    assert np.nanmedian(relative) < 200 * unit_roundoff(dtype)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.feature("unary plus") if name == "positive" else ()) for name in FUNCTIONS],
)
@pytest.mark.parametrize(
    "backend_name",
    ["autograd", "torch", *(pytest.param(name, marks=pytest.mark.soundness) for name in ("jax", "tensorflow"))],
)
def test_no_differentiator_exceeds_the_budget_of_any_function(name: str, backend_name: str) -> None:
    if backend_name not in backend_names():
        pytest.skip(f"{backend_name}: {how_to_install(backend_name)}")
    for dtype in DTYPES:
        a, b = np.array([0.7, 1.1, 0.6], dtype), np.array([0.9, 0.8, 1.2], dtype)
        features = np.array([[1.0, 1.5, 0.75], [0.5, 1.25, 1.5]], dtype)
        judge = Judge(Formula(FUNCTIONS[name]), ({"a": a, "b": b}, features, np.zeros(2, dtype)), dtype)

        assert {
            each.name: each.fraction for each in judge.judge(load_backend(backend_name, dtype)) if each.fraction > 1
        } == {}


@pytest.mark.soundness
def test_no_backend_exceeds_the_budget_in_a_hundred_thousand_cases(
    record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """A case is one array of one backend: a loss, a parameter's gradient, or its per-sample gradients."""
    generator, cases = np.random.default_rng(2026), 0
    fractions, relative = defaultdict(list), defaultdict(list)
    while cases < 100_000:
        kind = list(PROBLEMS)[generator.integers(len(PROBLEMS))]
        dtype, (n, d) = DTYPES[generator.integers(2)], SHAPES[generator.integers(len(SHAPES))]
        decades = [1, 3, 18 if dtype == "float32" else 150][generator.integers(3)]
        point, w = drawn(PROBLEMS[kind], generator, n, d, dtype, decades), some_weights(generator, n, dtype)
        for how, judged in judge_all_ways(PROBLEMS[kind], point, dtype, w, backend_names()):
            cases += 1
            fractions[(kind, dtype, *how)].append(judged.fraction)
            relative[(kind, dtype, *how)].append(judged.relative_budget)
            assert judged.fraction <= 1, (kind, dtype, how, judged, point, w)

    with capsys.disabled():
        for key, values in sorted(fractions.items()):
            line = f"{np.max(values):.3f} of the budget at most, {np.median(values):.3f} in the median; "
            print(*key, len(values), line, f"budget {np.nanmedian(relative[key]):.1e}")  # noqa: T201 - the report
    record("largest budget fraction", max(map(max, fractions.values())))


def named(xp: Any, name: str) -> Any:
    """Return the library's function of that name; JAX keeps some of them in a room of their own."""
    elsewhere = import_module("jax.lax") if xp.__name__.startswith("jax") else None
    special = getattr(xp, "special", None)
    return (
        getattr(xp, name, None)
        or getattr(elsewhere, {"sigmoid": "logistic"}.get(name, name), None)
        or getattr(special, IN_TORCH.get(name, name), None)
    )


@final
@dataclass(frozen=True)
class Scaled(Problem):
    """l_i = a f(x_i), so that the gradient of row i at a = 1 is f(x_i) as the backend computes it."""

    name: str

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"a": ()}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        return named(xp, self.name)(features[:, 0]) * params["a"]

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        return {"a": named(xp, self.name)(features[:, 0])}

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        raise NotImplementedError


IN_TORCH = {"erf_inv": "erfinv"}
POSITIVE = ("log", "sqrt", "log2", "log10", "rsqrt", "lgamma", "digamma")
DOMAINS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(POSITIVE, lambda x: x > 0),
    **dict.fromkeys(("asin", "acos", "atanh", "erf_inv"), lambda x: abs(x) < 1),
    "log1p": lambda x: x > -1,
    "acosh": lambda x: x > 1,
}


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(set(ULPS) - {"pow", "trigamma", "tetragamma"}))
def test_elementary_functions_keep_their_ulps(name: str, backend_name: str, dtype: str, record: Record) -> None:
    """At arguments of all magnitudes, near the bends of the known programs, up to under- and overflow."""
    generator, count, limits = np.random.default_rng(5), 600, np.finfo(dtype)
    magnitudes, largest = 2.0 ** generator.uniform(np.log2(limits.tiny), 7, count), np.log(float(limits.max))
    spans = [
        generator.uniform(low, high, count) for low, high in ((-1, 3), (-0.43, -0.4), (-20, 20), (-largest, largest))
    ]
    x = np.concatenate([magnitudes, -magnitudes, *spans]).astype(dtype)
    x = x[DOMAINS.get(name, np.isfinite)(x)]
    ball = FUNCTIONS_OF_ONE[name].ball if name in FUNCTIONS_OF_ONE else getattr(arb, name)
    with ctx.workprec(200):
        exact = np.frompyfunc(lambda value: ball(arb(value)), 1, 1)(x.astype(np.float64))

    backend = load_backend(backend_name, dtype)
    if named(backend.xp, name) is None:
        pytest.skip(f"{backend_name} has no {name}")
    arguments = {"a": backend.asarray(np.ones(()))}, backend.asarray(x[:, None]), backend.asarray(0 * x)
    with np.errstate(all="ignore"):
        actual = backend.to_numpy(backend.per_sample_grad(Scaled(name))(*arguments)["a"])
        numbers = RoundedNumbers(dtype)
        bound = getattr(numbers, name)(numbers.asarray(x)).error

    _, error = Enclosed(exact, np.zeros(x.shape, dtype=bool)).distance(actual)
    known, size = np.isfinite(bound), np.abs(Enclosed(exact, exact == 0).mid)
    normal = known & (size >= limits.tiny)
    record("largest error in ulps", float(np.max(error[normal] / size[normal]) / (2 * unit_roundoff(dtype))))
    assert known.mean() > 0.8
    assert (error[known] <= bound[known]).all()


def test_a_sum_may_be_taken_in_any_order() -> None:
    generator = np.random.default_rng(6)
    x = (generator.normal(size=200) * 10.0 ** generator.uniform(-4, 4, 200)).astype(np.float32)
    exact = sum(map(Fraction, x.astype(float)))
    numbers = RoundedNumbers("float32")
    bound = float(numbers.sum(numbers.asarray(x), (-1,)).error[0])

    errors = []
    for _ in range(100):
        parts = list(generator.permutation(x))
        while len(parts) > 1:
            i = int(generator.integers(len(parts) - 1))
            parts[i : i + 2] = [np.float32(parts[i] + parts[i + 1])]
        errors.append(abs(float(Fraction(float(parts[0])) - exact)))

    assert 0 < max(errors) <= bound


# It is no larger than need be.


@pytest.mark.parametrize("fault", [1 + 1e-9, 1 - 1e-9, -1.0, 0.0, 2.0], ids="{}".format)
@pytest.mark.parametrize("problem", [LinearRegression(), LogisticRegression()], ids=["linear", "logistic"])
@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "differentiated"])
@pytest.mark.parametrize("rows", [True, False], ids=["rows", "mean"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fault_exceeds_the_budget(problem: Problem, dtype: str, by_hand: bool, rows: bool, fault: float) -> None:
    """1e-9 of it (1e-3 in float32), a sign, a zero, a double: in any element of a well-conditioned gradient."""
    if dtype == "float32" and abs(fault - 1) < 1e-6:
        fault = 1 + 1e6 * (fault - 1)
    judge = Judge(problem, drawn(problem, np.random.default_rng(12), 20, 3, dtype), dtype, rows=rows)

    for name, truth in judge.truth.items():
        lower, _ = truth.distance(truth.mid * fault)
        well = np.abs(truth.mid) > 1e-2
        assert well.any()
        assert (lower > judge.budgets(by_hand)[name])[well].all()


@pytest.mark.thorough
@settings(max_examples=30, deadline=None)
@given(data=st.data(), n=st.sampled_from([1, 2, 8]), dtype=st.sampled_from(DTYPES))
def test_on_integers_a_polynomial_has_no_budget_at_all(data: st.DataObject, n: int, dtype: str) -> None:
    """n is a power of 2, so that every partial result is a float: programs must agree to the last bit."""
    lattice, whole = data.draw(lattices(n, 2))
    inputs = (
        {name: value.astype(dtype) for name, value in whole.items()},
        lattice.features.astype(dtype),
        lattice.targets.astype(dtype),
    )

    for by_hand in (True, False):
        budgets = Judge(LinearRegression(), inputs, dtype).budgets(by_hand)
        assert {name: np.max(budget) for name, budget in budgets.items()} == dict.fromkeys(budgets, SMALLEST), by_hand


def test_one_third_of_an_integer_has_a_budget() -> None:
    point: Point = {"theta_0": np.ones(()), "theta_1": np.zeros(1)}, np.array([[1.0], [2.0], [4.0]]), np.zeros(3)

    loss, gradient = budget_of_loss(LinearRegression(), *point, "float64")

    assert loss > SMALLEST
    assert gradient["theta_1"][0] > SMALLEST


@pytest.mark.parametrize("log_odds", [5.0, 100.0, 1e6, -5.0, -50.0])
def test_a_slope_that_has_reached_its_limit_has_a_narrow_budget(log_odds: float) -> None:
    """Rounding of a large z moves 1 / (1 + exp(-z)) little where z > 0, and by u |z| of itself where z < 0."""
    point = one_row("float32", slope=log_odds, feature=1.0)

    truth = enclose_rows(LogisticRegression(), *point)["theta_0"].mid
    budget = row_budgets_of_loss(LogisticRegression(), *point, "float32")["theta_0"]

    assert budget / np.abs(truth) < (30 + 3 * max(0.0, -log_odds)) * unit_roundoff("float32")


def one_row(dtype: str, slope: float, feature: float) -> Point:
    params = {"theta_0": np.zeros((), dtype), "theta_1": np.array([slope], dtype)}
    return params, np.array([[feature]], dtype), np.zeros(1, dtype)


def test_the_budget_scales_with_the_unit_roundoff() -> None:
    point = drawn(LogisticRegression(), np.random.default_rng(7), 50, 4, "float32")

    (_, narrow), (_, wide) = (budget_of_loss(LogisticRegression(), *point, dtype) for dtype in ("float64", "float32"))

    for name in narrow:
        np.testing.assert_allclose(wide[name] / narrow[name], 2.0**29, rtol=0.1)


def test_where_a_number_on_the_way_may_overflow_the_budget_is_infinite() -> None:
    point = one_row("float32", slope=1.0, feature=1e20)

    loss, gradient = budget_of_loss(LinearRegression(), *point, "float32")
    in_double, _ = budget_of_loss(LinearRegression(), *point, "float64")

    assert loss == gradient["theta_1"][0] == np.inf
    assert np.isfinite(in_double)


def test_what_a_program_may_flush_to_0_is_allowed_for() -> None:
    """The product 1e-60 of two floats is below all of float32; its square, too."""
    point = one_row("float32", slope=1e-30, feature=1e-30)

    judge = Judge(LinearRegression(), point, "float32")

    for name in ("loss", "theta_0", "theta_1"):
        for by_hand in (True, False):
            assert judge.truth[name].distance(np.zeros(judge.truth[name].mid.shape))[1] <= judge.budgets(by_hand)[name]


def test_a_quotient_may_lose_its_derivative_to_underflow_on_the_way() -> None:
    """dl/dK = -g x / (K + x)^2: JAX computes (g (K + x)^-2) x, whose first product is 5e-39 here, and flushed to 0."""
    problem = load_problem("michaelis-menten")

    def share(limit: float, x: float) -> float:
        params = {"limit": np.array(limit), "half": np.array(-2e-11)}
        arguments = (params, np.array([[x]]), np.array([-189.0]))
        _, budget = budget_of_loss(problem, *arguments, "float32")
        return float(budget["half"] / abs(enclose(problem, *arguments).gradient["half"].mid))

    assert share(3e-16, 4.75e12) >= 1
    assert share(3e-16, 4.75) < 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_that_is_rounded_to_the_edge_of_a_condition_is_not_exact(dtype: str) -> None:
    beside = np.nextafter(np.ones(1, dtype), np.full(1, 2, dtype))  # beside + 1 is rounded to 2, from above
    clipped = Operation(lambda xp, x: xp.clip(x + 1.0, 0, 2), x=(1,))
    others = {str(slope): lambda *_, slope=slope: (None, {"x": np.full(1, slope, dtype)}) for slope in (0, 0.5, 1)}

    one = gdc.Dataset([[1.0]], [0.0])
    report = gdc.verify(clipped, one, {"x": beside}, backends=[], implementations=others, dtype=dtype)

    assert "wrong" not in {each.verdict for each in report.entries}


def test_a_program_may_take_either_branch_where_rounding_hides_which_is_right() -> None:
    """relu at 3 x 0.1 - 0.3, which is 0 but for rounding, and at 5 x 0.1 - 0.3, where no program errs."""
    params = {"inner": np.full((1, 1), 0.1), "offsets": np.array([-0.3]), "outer": np.ones(1), "shift": np.array(-1.0)}
    targets = np.zeros(1)

    budgets = [
        budget_of_loss(Network("relu", width=1), params, np.full((1, 1), x), targets, "float64")[1] for x in (3.0, 5.0)
    ]

    assert budgets[0]["offsets"][0] == pytest.approx(2, rel=1e-3)  # 2 r outer, or 0
    assert budgets[1]["offsets"][0] < 1e-14


def test_at_an_exact_tie_every_convention_is_right_and_only_rounding_has_a_budget() -> None:
    """|x| at 0: the budget is that of the rounding, not of the hull [-1, 1]."""
    problem = Formula(lambda xp, x, y: xp.abs(x) * y)
    point = {"a": np.zeros(3), "b": np.full(3, 0.1)}, np.full((1, 3), 0.7), np.zeros(1)

    _, budget = budget_of_loss(problem, *point, "float64")

    assert (budget["a"] < 1e-15).all()
    assert enclose(problem, *point).gradient["a"].rad[0] > 0.04


def test_constants_are_exact_if_they_are_short() -> None:
    numbers = RoundedNumbers("float64")

    constants = numbers.asarray([0.5, 3, 0.1, 2 / 3])
    data = numbers.asarray(np.array([0.1]))
    narrow = RoundedNumbers("float32").asarray(np.array([0.1], dtype=np.float32))

    assert constants.exact.tolist() == [True, True, False, False]
    assert constants.error[2] == 2 * unit_roundoff("float64") * 0.1
    assert data.exact.all()
    assert narrow.exact.all()


def test_what_is_no_number_is_no_exact_0() -> None:
    numbers = RoundedNumbers("float64")
    nothing, data = numbers.asarray([np.nan]), numbers.asarray(np.array([3.0]))

    with np.errstate(all="ignore"):
        found = [nothing, data + nothing, data * nothing, nothing * numbers.asarray([2.0])]

    assert all(np.isinf(each.error).all() and np.isinf(each.spread).all() for each in found)


@given(st.integers(-(2**20), 2**20), st.integers(-(2**20), 2**20), st.integers(-40, 40))
def test_exactness_is_claimed_only_of_what_float32_computes_exactly(a: int, b: int, exponent: int) -> None:
    numbers = RoundedNumbers("float32")
    x, y = np.float32(a), np.float32(b) * np.float32(2.0**exponent)
    one, other = numbers.asarray(np.array([x])), numbers.asarray(np.array([y]))
    pair = numbers.asarray(np.array([x, y]))

    for result, computed, exact in (
        (one + other, x + y, Fraction(float(x)) + Fraction(float(y))),
        (one * other, x * y, Fraction(float(x)) * Fraction(float(y))),
        (numbers.sum(pair, (-1,)), x + y, Fraction(float(x)) + Fraction(float(y))),
        (pair[None] @ pair[:, None], x * x + y * y, Fraction(float(x)) ** 2 + Fraction(float(y)) ** 2),
    ):
        assert isinstance(result, Rounded)
        if result.error.ravel()[0] == 0:
            assert Fraction(float(computed)) == exact
