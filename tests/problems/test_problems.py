"""The library: every problem agrees with the referee, on every backend, in its own few rows.

A compiler compiles anew for every shape: so each problem has one shape here, and the point is worked out once.
"""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare import Dataset, Problem, datasets
from gdcompare.authoring.faults import Implementation, by_hand, mutate
from gdcompare.backend import Backend, unit_roundoff
from gdcompare.case import Case
from gdcompare.cli import commands
from gdcompare.gradients import backend_arguments
from gdcompare.problem import check_targets, drawn_parameters
from gdcompare.referee.judging import judged
from gdcompare.referee.point import Referee, as_implementation
from gdcompare.referee.verdict import Entry, compare

pytest.importorskip("hypothesis", reason="hypothesis draws the data")

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agreement import rounded
from tests.formulas import few_rows, suitable
from tests.strategies import data_sets, parameters

Array = NDArray[np.float64]

EPOCHS = 3
CASES = 1000  # of each problem and dtype, in the long run


@cache
def referee(problem: Problem, dtype: str) -> Referee:
    data = few_rows(problem)
    return Referee(Case.of(problem, data, drawn_parameters(problem, data), dtype))


def wrong(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.verdict != "agree"]


@cache
def name_of(problem: Problem) -> str:
    return next(name for name in gdc.problem_names() if gdc.load_problem(name) == problem)


# The gradient.


@pytest.mark.covering
def test_every_backend_agrees_at_the_problems_own_data(backend: Backend[Any], problem: Problem) -> None:
    judge = referee(problem, backend.dtype)

    implementation = as_implementation(backend, problem)
    entries = judged(judge, backend.name, implementation, judge.budgets(backend.by_hand), may_raise=True)

    assert wrong(entries) == []
    assert {entry.parameter for entry in entries} == {"loss", *problem.start(few_rows(problem))}


@pytest.mark.covering
@pytest.mark.thorough
def test_every_row_agrees_with_the_referees(backend: Backend[Any], problem: Problem) -> None:
    judge = referee(problem, backend.dtype)
    arguments = backend_arguments(judge.case, backend)

    rows = backend.per_sample_grad(problem)(*arguments)

    entries = [
        compare(backend.name, name, backend.to_numpy(rows[name]), truth, budget, backend.dtype)
        for (name, truth), budget in zip(
            judge.row_truths.items(), judge.row_budgets(backend.by_hand).values(), strict=True
        )
    ]
    assert wrong(entries) == []


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.one_in(6, "jax")
@pytest.mark.one_in(2, "torch")
@pytest.mark.one_in(2, "autograd")
def test_every_batch_law_holds(backend: Backend[Any], problem: Problem) -> None:
    gdc.check_batch_laws(problem, few_rows(problem).rows(slice(4)), None, backend).assert_agree()


@pytest.mark.soundness
def test_every_batch_law_holds_in_more_rows(backend: Backend[Any], problem: Problem) -> None:
    gdc.check_batch_laws(problem, datasets.example(problem), None, backend).assert_agree()


def test_no_element_of_the_true_gradient_is_zero(problem: Problem) -> None:
    truths = referee(problem, "float64").truths

    assert [name for name, truth in truths.items() if not (np.abs(truth.mid) > truth.rad).all()] == []


@pytest.mark.thorough
def test_no_planted_fault_survives_the_referee(problem: Problem) -> None:
    judge = referee(problem, "float64")

    def check(implementation: Implementation) -> bool:
        return not wrong(judged(judge, "planted", implementation, judge.budgets(True), may_raise=True))

    score = mutate(check, by_hand(problem), *judge.point)

    assert score.survived == ()
    assert len(score.killed) >= 25


@dataclass(frozen=True)
class Rederived(Problem):
    """Another problem's losses; the derivation is for a subclass to spoil or to leave out."""

    whole: Problem

    target_values = property(lambda self: self.whole.target_values)
    target_dimensions = property(lambda self: self.whole.target_dimensions)
    least_target = property(lambda self: self.whole.least_target)

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return self.whole.parameter_shapes(data)

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        return self.whole.per_sample_losses(xp, params, features, targets)


@final
@dataclass(frozen=True)
class Half(Rederived):
    """Only one of the two derivations: the mean, or the rows, follows from the other."""

    by_rows: bool

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        formula = self.whole.per_sample_gradients if self.by_rows else super().per_sample_gradients
        return formula(xp, params, features, targets)

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        formula = super().value_and_gradient if self.by_rows else self.whole.value_and_gradient
        return formula(xp, params, features, targets)


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("by_rows", [True, False], ids=["the mean from the rows", "the rows from the mean"])
def test_either_derivation_gives_the_other(problem: Problem, by_rows: bool) -> None:
    half, judge = Half(problem, by_rows), referee(problem, "float64")

    loss, gradient = half.value_and_gradient(np, *judge.point)
    rows = half.per_sample_gradients(np, *judge.point)

    same = Referee(Case.of(half, few_rows(problem), judge.params))
    for name, truth in judge.row_truths.items():
        budget, row_budget = same.budgets(True)[name], same.row_budgets(True)[name]
        assert not wrong([compare("mean", name, gradient[name], judge.truths[name], budget, "float64")])
        assert not wrong([compare("rows", name, rows[name], truth, row_budget, "float64")])
    assert not wrong(
        [compare("mean", "loss", np.asarray(loss), judge.truths["loss"], same.budgets(True)["loss"], "float64")]
    )


@final
@dataclass(frozen=True)
class Slip(Rederived):
    """A slip in the derivation: the last parameter's rows are all that of the first sample."""

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        rows = self.whole.per_sample_gradients(xp, params, features, targets)
        name = list(rows)[-1]
        return rows | {name: 0 * rows[name] + rows[name][:1]}


@pytest.mark.thorough
def test_a_slip_in_a_derivation_is_called_wrong_and_so_is_its_batch_law(problem: Problem) -> None:
    slip, data = Slip(problem), few_rows(problem)
    params = drawn_parameters(problem, data)

    report = gdc.verify(slip, data, params, backends=["numpy"])

    last = list(params)[-1]
    assert report.verdict == "wrong"
    assert {entry.parameter for entry in report.entries if entry.verdict == "wrong"} == {last}
    rows = slip.per_sample_gradients(np, params, data.features, data.targets)[last]
    judge = referee(problem, "float64")
    entry = compare("numpy", last, rows, judge.row_truths[last], judge.row_budgets(True)[last], "float64")
    assert entry.verdict == "wrong"


@pytest.mark.parametrize("name", ["linear-regression", "matrix-factorisation", "rosenbrock"])
def test_polynomials_are_exact_on_integer_lattices(name: str, backend: Backend[Any]) -> None:
    problem = gdc.load_problem(name)
    generator = np.random.default_rng(0)
    widths = few_rows(problem).features.shape[1]
    data = Dataset(generator.integers(-1, 2, (8, widths)), generator.integers(-2, 3, 8))
    shapes = problem.parameter_shapes(data)
    params = {key: generator.integers(-1, 2, shape).astype(float) for key, shape in shapes.items()}

    report = gdc.verify(problem, data, params, backends=[backend], dtype=backend.dtype)

    assert all(entry.verdict == "agree" and entry.error_ulps == 0 for entry in report.entries)


# Whatever the numbers.


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.one_in(3, "jax")
@pytest.mark.one_in(2, "torch")
@pytest.mark.one_in(2, "autograd")
@settings(deadline=None, max_examples=4)
@given(draw=st.data())
def test_no_right_backend_is_called_wrong_at_any_scale(
    problem: Problem, backend: Backend[Any], dtype: str, draw: st.DataObject
) -> None:
    own = few_rows(problem)
    data = rounded(draw.draw(data_sets(problem, st.just(own.features.shape))), dtype)
    params = draw.draw(parameters(problem, data, dtype))

    assert called_wrong(problem, data, params, [backend]) == []


@pytest.mark.soundness
def test_no_right_backend_is_called_wrong_in_many_cases(
    problem: Problem, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, found = np.random.default_rng(2026), []
    backends = [gdc.load_backend(name, dtype) for name in gdc.backend_names()]

    for _ in range(CASES):
        found += called_wrong(problem, *suitable(problem, dtype, generator), backends)

    assert found == []


def called_wrong(
    problem: Problem, data: Dataset, params: Mapping[str, Any], backends: Sequence[Backend[Any]]
) -> list[Entry]:
    """Judge the loss, gradient and rows of backends of one dtype at one point."""
    dtype = backends[0].dtype
    judge = Referee(Case.of(problem, data, params, dtype))
    entries = []
    for backend in backends:
        with np.errstate(all="ignore"):
            arguments = backend_arguments(Case.of(problem, data, params, backend.dtype), backend)
            loss, gradient = backend.value_and_grad(problem)(*arguments)
            rows = backend.per_sample_grad(problem)(*arguments)
        budgets, row_budgets = judge.budgets(backend.by_hand), judge.row_budgets(backend.by_hand)
        values = {name: backend.to_numpy(each) for name, each in {"loss": loss, **gradient}.items()}
        each_row = {name: backend.to_numpy(each) for name, each in rows.items()}
        truths, row_truths = judge.towards(values, budgets), judge.rows_towards(each_row, row_budgets)
        found = [compare(backend.name, name, v, truths[name], budgets[name], dtype) for name, v in values.items()]
        by_rows = [
            compare(backend.name, f"{name}, row by row", v, row_truths[name], row_budgets[name], dtype)
            for name, v in each_row.items()
        ]
        # Where ties belong together, a rule for each by itself may give what no side has: it is called so.
        entries += [] if judge.convention(values, budgets) else found
        entries += [] if any(conventional(judge, each_row, row_budgets, i) for i in range(len(data))) else by_rows
    return [entry for entry in entries if entry.verdict == "wrong"]


def conventional(judge: Referee, rows: Mapping[str, Array], budgets: Mapping[str, Array], i: int) -> bool:
    """Say whether a row's gradient comes about by a rule for ties, each by itself."""
    if not any(truth.kinks[i].any() for truth in judge.row_truths.values()):
        return False
    alone = judge.on(judge.data.rows([i]), "sum")
    return bool(alone.convention({k: v[i] for k, v in rows.items()}, {k: b[i] for k, b in budgets.items()}))


# Descents.


@cache
def rate_of(problem: Problem) -> float:
    """Return a quarter of the largest power of 2 at which every step of the full batch lowers the loss."""
    for exponent in range(40):
        losses = path_of(problem, "numpy", None, 2.0**-exponent).history.losses
        if len(losses) == EPOCHS and (np.diff(losses) < 0).all():
            return 2.0 ** -(exponent + 2)
    raise AssertionError(f"no rate lowers the loss of {problem}")


@cache
def path_of(problem: Problem, backend_name: str, batch_size: int | None, rate: float) -> gdc.Descent:
    return gdc.descend(problem, few_rows(problem), backend_name, gdc.rules.sgd(rate), batch_size, EPOCHS)


@cache
def allowed_apart(problem: Problem, batch_size: int | None) -> dict[str, Array]:
    """Return how far the paths of two right programs may lie apart, `{name: (steps + 1, 1, ...)}`, in float64.

    A step adds to the distance the rate times what the two gradients may be off by, and what adding rounds; a mean of
    some rows is off by no more than the worst of them, and by its own rounding. It makes the distance before at most 4
    times as large, because the rate is far below 2 over the curvature.
    """
    data, rate, u = few_rows(problem), rate_of(problem), unit_roundoff("float64")
    path = path_of(problem, "numpy", batch_size, rate).history.parameters
    steps = len(next(iter(path.values())))
    apart, sizes = 0.0, [0.0]
    for i in range(steps - 1):
        params = {name: values[i] for name, values in path.items()}
        rows = problem.per_sample_gradients(np, params, data.features, data.targets)
        judge = Referee(Case.of(problem, data, params))
        off = sum(max(np.max(each) for each in judge.row_budgets(by_hand).values()) for by_hand in (True, False))
        off += 2 * (len(data) + 4) * u * max(np.max(np.abs(each)) for each in rows.values())
        size = max(np.max(np.abs(values[i : i + 2])) for values in path.values())
        apart = 4 * apart + rate * off + 4 * u * size
        sizes.append(apart)
    return {name: np.reshape(sizes, (-1, *[1] * (values.ndim - 1))) for name, values in path.items()}


def coincide(problem: Problem, batch_size: int | None, one: gdc.Descent, other: gdc.Descent) -> bool:
    apart = allowed_apart(problem, batch_size)
    return all(
        bool((np.abs(one.history.parameters[name] - other.history.parameters[name]) <= apart[name]).all())
        for name in apart
    )


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.one_in(2, "jax")
@pytest.mark.parametrize("batch_size", [None, 4], ids=["full batch", "mini-batch"])
def test_descents_go_down_along_one_path(backend_name: str, problem: Problem, batch_size: int | None) -> None:
    data, rate = few_rows(problem), rate_of(problem)

    path = path_of(problem, backend_name, batch_size, rate)

    start, end = (
        np.mean(problem.per_sample_losses(np, params, data.features, data.targets))
        for params in (problem.start(data), path.parameters)
    )
    assert end < start
    assert coincide(problem, batch_size, path, path_of(problem, "numpy", batch_size, rate))


def test_a_path_with_another_rate_is_told_apart(problem: Problem) -> None:
    rate = rate_of(problem)

    other = path_of(problem, "numpy", None, rate * (1 + 1e-8))

    assert not coincide(problem, None, other, path_of(problem, "numpy", None, rate))


# What a stranger meets.


def test_the_documentation_has_an_equation_a_source_and_an_example_that_runs(problem: Problem) -> None:
    text, module = inspect.getdoc(type(problem)) or "", inspect.getmodule(type(problem))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)

    for example in doctest.DocTestFinder(recurse=False).find(type(problem), globs=dict(vars(module))):
        runner.run(example)

    assert re.search(r"^ {4}.*\b[lf]_i +=", text, flags=re.MULTILINE)  # its loss, or what it fits
    assert re.search(r"^Source: ", text, flags=re.MULTILINE)
    assert runner.tries > 0
    assert runner.failures == 0


def test_its_own_data_suit_it_and_are_the_same_each_time(problem: Problem) -> None:
    data, again, more = (datasets.example(problem), datasets.example(problem), problem.example(11))

    check_targets(problem, data)
    np.testing.assert_equal((data.features, data.targets), (again.features, again.targets))
    assert len(data) == 40
    if more is not None:
        assert len(more) == 11
        assert problem.parameter_shapes(more) == problem.parameter_shapes(data)


def test_it_starts_where_there_is_a_slope_and_at_numbers_of_the_right_shape(problem: Problem) -> None:
    data = datasets.example(problem)

    start = problem.start(data)

    assert {name: value.shape for name, value in start.items()} == problem.parameter_shapes(data)
    assert all(np.isfinite(value).all() for value in start.values())
    _, gradient = problem.value_and_gradient(np, start, data.features, data.targets)
    assert any(value.any() for value in gradient.values())


def test_the_command_line_verifies_and_descends(problem: Problem) -> None:
    name, rate = name_of(problem), str(rate_of(problem))

    verified = CliRunner().invoke(commands, ["verify", name, "--backend", "numpy"])
    descended = CliRunner().invoke(
        commands, ["descend", name, "--backend", "numpy", "--epochs", "2", "--learning-rate", rate]
    )

    assert (verified.exit_code, descended.exit_code) == (0, 0), verified.output + descended.output
    assert "agree" in verified.output
