"""The quick enclosure contains Arb's wherever it speaks, and keeps silent where the truth is a set or unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare import Problem, problem_names
from gdcompare.arithmetic import double_word
from gdcompare.problem import drawn_parameters
from gdcompare.referee import enclosure, point
from gdcompare.referee.budget import budget_of_loss
from gdcompare.referee.enclosure import Enclosed, enclose, enclose_quickly
from tests import compositions, deep_formulas
from tests.formulas import FUNCTIONS, PROBLEMS, Formula, drawn, few_rows, some_weights

DTYPES = ["float32", "float64"]

Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(autouse=True)
def _few_numbers_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclosure, "FEW", 0)


def both(
    problem: Problem, params: Arrays, features: Any, targets: Any, dtype: str, weights: Any = None
) -> tuple[dict[str, Enclosed], dict[str, Enclosed]] | None:
    """Return what is found quickly and what Arb finds, if the quick way finds anything."""
    inputs = {name: np.asarray(each, dtype=dtype) for name, each in params.items()}
    rows, goals = (np.asarray(each, dtype=dtype) for each in (features, targets))
    loss, gradient = budget_of_loss(problem, inputs, rows, goals, dtype, weights)
    budgets = {"loss": loss, **gradient}
    quick = enclose_quickly(problem, inputs, rows, goals, weights, budgets=budgets)
    if quick is None:
        return None
    exact = enclose(
        problem, inputs, rows, goals, weights, budgets=budgets, precision=1200
    )  # products of few bits are exact but for 1e-300
    assert [*map(str, quick.kinks)] == [*map(str, exact.kinks)]
    return {"loss": quick.loss, **quick.gradient}, {"loss": exact.loss, **exact.gradient}


def assert_contained(found: tuple[dict[str, Enclosed], dict[str, Enclosed]]) -> None:
    quick, exact = found
    assert quick.keys() == exact.keys()
    for name, truth in exact.items():
        assert not truth.kinks.any()
        for outer, inner in zip(quick[name].balls.ravel(), truth.balls.ravel(), strict=True):
            assert outer.contains(inner) or (outer.overlaps(inner) and inner.rad() < abs(inner.mid()) * 2.0**-200)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", problem_names())
def test_it_contains_the_truth_of_every_problem(name: str, dtype: str) -> None:
    problem = gdc.load_problem(name)
    data = few_rows(problem)

    found = both(problem, drawn_parameters(problem, data), data.features, data.targets, dtype)

    assert found is not None
    assert_contained(found)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("equal", "not_equal")])
def test_it_contains_the_truth_of_every_function(name: str) -> None:
    generator = np.random.default_rng(3)
    params = {letter: generator.uniform(0.5, 1.0, 3) for letter in "ab"}
    features = generator.uniform(0.3, 1.9, (4, 3))

    found = both(Formula(FUNCTIONS[name]), params, features, np.zeros(4), "float64")

    assert found is not None
    assert_contained(found)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", DTYPES)
@given(st.sampled_from(sorted(PROBLEMS)), st.integers(0, 2**32), st.booleans())
@example("huber", 13466, False)
@example("softmax", 42673490, False)
@settings(deadline=None, max_examples=60)
def test_it_contains_the_truth_at_any_scale(dtype: str, name: str, seed: int, weighted: bool) -> None:
    generator = np.random.default_rng(seed)
    inputs = drawn(PROBLEMS[name], generator, dtype=dtype, decades=3.0)

    found = both(PROBLEMS[name], *inputs, dtype, some_weights(generator, 7, dtype) if weighted else None)

    if found is not None:
        assert_contained(found)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(0, 2**32))
@example(2125)
@example(66154969)
@settings(deadline=None, max_examples=40)
def test_it_contains_the_truth_of_drawn_compositions(dtype: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    (composition,) = compositions.triples(generator, 1)
    params = {letter: generator.uniform(-2, 2, 3) for letter in "ab"}

    found = both(Formula(composition.function), params, np.ones((1, 3)), np.zeros(1), dtype)

    if found is not None:
        assert_contained(found)


@pytest.mark.parametrize("name", [name for name in deep_formulas.FORMULAS if "2" in name or "mask" in name])
def test_it_contains_the_truth_of_deep_formulas(name: str) -> None:
    deep = deep_formulas.FORMULAS[name]
    data, params = deep.drawn(np.random.default_rng(5), 1.0, n=3)

    found = both(deep.problem, params, data.features, data.targets, "float64")

    assert (found is None) == (deep.lattice or "mask" in name)  # relus at 0; exp(-1e9), which no float can bound
    if found is not None:
        assert_contained(found)


@pytest.mark.parametrize(
    "function",
    [
        lambda xp, x, y: xp.maximum(x, y),
        lambda xp, x, y: xp.abs(x - y),
        lambda xp, x, y: xp.where(x >= y, x, y * y),
        lambda xp, x, y: xp.sqrt(x - y),
        lambda xp, x, y: (x - y) ** 0.5,
        lambda xp, x, y: 0 * xp.log(x - y),
        lambda xp, x, y: xp.sign(x - y) * x,
        lambda xp, x, y: xp.where(xp.equal(x, y), x, y),
    ],
)
def test_it_keeps_silent_where_the_formula_hangs_on_an_equality(function: Any) -> None:
    params = {letter: np.array([1.0, 2.0]) for letter in "ab"}

    assert both(Formula(function), params, np.ones((1, 2)), np.zeros(1), "float64") is None


BEHIND_RELUS: dict[str, tuple[Any, bool | None]] = {
    "relus at 0 tie": (lambda xp, x, y: xp.exp(x) * xp.maximum(xp.maximum(-x, 0.0), xp.maximum(-y, 0.0)), True),
    "a mask of -inf": (
        lambda xp, x, y: xp.softmax(xp.where(xp.asarray(np.array([True, False])), x * y, -xp.inf)) * x,
        False,
    ),
    "a mask of -inf, kept": (lambda xp, x, y: xp.where(xp.asarray(np.array([True, False])), x * y, -xp.inf), None),
}


@pytest.mark.parametrize("name", BEHIND_RELUS)
def test_ties_and_infinities_on_which_nothing_hangs_leave_the_truth_known(name: str) -> None:
    function, ties = BEHIND_RELUS[name]
    problem, params = Formula(function), {"a": np.array([1.0, 2.0]), "b": np.array([1.5, 0.25])}
    point = problem, params, np.ones((1, 2)), np.zeros(1)
    loss, gradient = budget_of_loss(*point, "float64")

    quick = enclose_quickly(*point, budgets={"loss": loss, **gradient})

    if ties is None:  # an infinite loss is Arb's to judge
        assert quick is None
        return
    assert quick is not None
    assert bool(quick.kinks) == ties
    exact = enclose(*point, budgets={"loss": loss, **gradient})
    for key, truth in exact.gradient.items():
        assert not truth.kinks.any()  # it is the same from all sides
        for outer, inner in zip(quick.gradient[key].balls.ravel(), truth.balls.ravel(), strict=True):
            assert outer.overlaps(inner)
        assert np.all(quick.gradient[key].rad <= 1e-25)


def test_a_tie_that_matters_is_left_to_arb() -> None:
    problem = Formula(lambda xp, x, y: xp.maximum(x, 0.0) * y)
    point = problem, {"a": np.array([0.0, 2.0]), "b": np.array([1.5, 0.25])}, np.ones((1, 2)), np.zeros(1)
    loss, gradient = budget_of_loss(*point, "float64")

    assert enclose_quickly(*point, budgets={"loss": loss, **gradient}) is None


def test_a_wrong_bound_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the exponential were only as good as a float, and said to be better."""
    problem = gdc.load_problem("logistic-regression")
    data = few_rows(problem)
    exp = double_word.exp
    monkeypatch.setattr(double_word, "exp", lambda x: (exp(x)[0], np.zeros_like(x[0])))

    found = both(problem, drawn_parameters(problem, data), data.features, data.targets, "float64")

    assert found is not None
    with pytest.raises(AssertionError):
        assert_contained(found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_verdict_is_the_same_as_by_arb(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = gdc.load_problem("tanh-network")
    wrong = {"wrong": lambda *point: _spoiled(*problem.value_and_gradient(np, *point))}
    quick = gdc.verify(problem, dtype=dtype, backends=["numpy"], implementations=wrong)
    monkeypatch.setattr(point, "enclose_quickly", lambda *_, **__: None)

    by_arb = gdc.verify(problem, dtype=dtype, backends=["numpy"], implementations=wrong)

    for one, other in zip(quick.entries, by_arb.entries, strict=True):
        assert (one.verdict, one.expected, one.digits, one.cause, one.grade) == (
            other.verdict, other.expected, other.digits, other.cause, other.grade,
        )  # fmt: skip
        assert one.budget_fraction == pytest.approx(other.budget_fraction, rel=1e-5)


def _spoiled(loss: Any, gradient: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return loss, {name: -each for name, each in gradient.items()}
