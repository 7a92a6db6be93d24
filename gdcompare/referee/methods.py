"""The classical ways to check a gradient, side by side with the referee, on one problem, point and implementation.

Each says agree, wrong or inconclusive by its own rule. Where that contradicts the enclosure, the check is at fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gdcompare.arithmetic.analytic import AnalyticNumpy
from gdcompare.backend import Backend, unit_roundoff
from gdcompare.case import Case, DataLike
from gdcompare.gradients import value_and_grad
from gdcompare.problem import Dataset, Problem, refuse_weights
from gdcompare.referee.classical import METHODS, Answer, Subject, Vector
from gdcompare.referee.point import Implementation, Referee
from gdcompare.referee.verdict import LOSS, Report, Verdict
from gdcompare.referee.verify import verify
from gdcompare.registry import as_backend, backends_for


@dataclass(frozen=True)
class MethodOutcome:
    """What one way to check a gradient says about it."""

    method: str
    says: Verdict
    figure: float
    """Its own measure, which `note` explains; NaN if it has none."""
    note: str
    """Its rule: what the figure is, the step, the tolerance."""
    at_fault: bool = False
    """Whether it contradicts the enclosure. An inconclusive check contradicts nothing."""
    why: str = ""

    def __repr__(self) -> str:
        figure = "" if math.isnan(self.figure) else f", {self.figure:.3g}"
        return f"MethodOutcome({self.method}: {self.says}{figure}{', at fault' if self.at_fault else ''})"


def all_methods(
    problem: str | Problem,
    data: DataLike,
    params: Mapping[str, ArrayLike] | None,
    implementation: str | Backend[Any] | Implementation,
    dtype: str = "float64",
) -> list[MethodOutcome]:
    """Return what each check says of the gradient that a backend, or an implementation, computes at this point.

    First `METHODS`, then the comparison with the backends that are installed, then the checkers that frameworks bring
    along, and last the enclosure, the reference. A check that cannot run here is inconclusive and says so.

    >>> data = Dataset([[1.0], [3.0]], [2.0, 4.0])
    >>> outcomes = all_methods("linear-regression", data, {"theta_0": 0.1, "theta_1": [0.7]}, "numpy")
    >>> outcomes[0].method, outcomes[0].says, [outcome.method for outcome in outcomes if outcome.at_fault]
    ('central differences', 'agree', [])
    """
    case = Case.of(problem, data, params, dtype)
    problem, data = case.problem, case.data
    refuse_weights(data, "the comparison of methods")
    referee = Referee(case)
    if callable(implementation):
        backend, compute = None, _with_loss(problem, implementation)
        report = verify(problem, data, case.params, backends=[], implementations={"it": implementation}, dtype=dtype)
    else:
        backend = as_backend(implementation, dtype)
        compute = _implementation_of(problem, backend)
        report = verify(problem, data, case.params, backends=[backend], dtype=dtype)
    with np.errstate(all="ignore"):
        outcomes = list(_outcomes(problem, referee, compute, backend))
    return [_weighed(outcome, report) for outcome in outcomes] + [_reference(report)]


def what_each_says(outcomes: Sequence[MethodOutcome]) -> list[tuple[str, str, str, str]]:
    """Return rows (method, what it says, its figure, remark): the remark is its rule or, where at fault, why.

    >>> what_each_says([MethodOutcome("dot product", "agree", 2e-16, "rtol 1e-6")])
    [('dot product', 'agree', '2e-16', 'rtol 1e-6')]
    """
    return [
        (
            outcome.method,
            outcome.says,
            "-" if math.isnan(outcome.figure) else f"{outcome.figure:.2g}",
            f"AT FAULT: {outcome.why}" if outcome.at_fault else outcome.note,
        )
        for outcome in outcomes
    ]


def _outcomes(
    problem: Problem, referee: Referee, compute: Implementation, backend: Backend[Any] | None
) -> Iterator[MethodOutcome]:
    """Yield what each check says; an error about the gradient itself is a refusal."""
    contenders = {each.name: each for each in backends_for(problem, None, referee.dtype)}
    if backend is not None:
        contenders[backend.name] = backend
    others = {name: each for name, each in contenders.items() if each is not backend}
    try:
        _, gradient = compute(*referee.point)
        subject = _subject(problem, referee, compute, gradient)
    except Exception as error:  # the implementation's own, or its gradient lacks a parameter, or has another size
        for name in (*METHODS, "allclose"):
            yield MethodOutcome(name, "wrong", math.nan, f"{type(error).__name__}: {error}")
    else:
        for name, check in METHODS.items():
            try:
                yield MethodOutcome(name, *check(subject))
            except Exception as error:  # a formula that does not run on complex numbers, too many components
                yield MethodOutcome(name, "inconclusive", math.nan, f"cannot run: {error}")
        yield MethodOutcome("allclose", *_allclose(problem, referee, gradient, others))
    for each in contenders.values():
        if hasattr(each, "native_checks"):
            for name, rule, run in each.native_checks(problem, *referee.point, None if each is backend else compute):
                try:
                    run()
                    yield MethodOutcome(name, "agree", math.nan, rule)
                except Exception as error:
                    yield MethodOutcome(name, "wrong", math.nan, f"{rule}; raised {type(error).__name__}")


def _subject(problem: Problem, referee: Referee, compute: Implementation, gradient: Mapping[str, Any]) -> Subject:
    shapes = {name: value.shape for name, value in referee.params.items()}
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])

    def unpacked(x: Vector) -> dict[str, Vector]:
        pieces = np.split(x, ends[:-1])
        return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}

    def formula(x: Vector) -> complex:
        losses = problem.per_sample_losses(AnalyticNumpy(), unpacked(x), referee.features, referee.targets)
        return complex(np.mean(losses))

    def own_loss(x: Vector) -> float:
        return float(compute(unpacked(x), referee.features.copy(), referee.targets.copy())[0])

    if wrong := [name for name, shape in shapes.items() if np.size(gradient[name]) != math.prod(shape)]:
        raise ValueError(f"the gradient of {', '.join(wrong)} has another size")
    flat = [np.ravel(np.asarray(gradient[name], dtype=np.float64)) for name in shapes]
    x = np.concatenate([np.ravel(value) for value in referee.params.values()])
    return Subject(x, np.concatenate(flat), own_loss, formula, unit_roundoff(referee.dtype))


def _implementation_of(problem: Problem, backend: Backend[Any]) -> Implementation:
    return lambda params, features, targets: value_and_grad(problem, Dataset(features, targets), params, backend)


def _with_loss(problem: Problem, implementation: Implementation) -> Implementation:
    """Return an implementation that has the formula's loss where it had none of its own."""

    def complete(params: Any, features: Any, targets: Any) -> tuple[Any, Any]:
        loss, gradient = implementation(params, features, targets)
        return np.mean(problem.per_sample_losses(np, params, features, targets)) if loss is None else loss, gradient

    return complete


def _allclose(
    problem: Problem, referee: Referee, gradient: Mapping[str, Any], others: Mapping[str, Backend[Any]]
) -> Answer:
    """Compare with each other backend by numpy.allclose, rtol 1e-5, atol 1e-8: shapes need only broadcast."""
    if not others:
        return "inconclusive", math.nan, "no other backend to compare with"
    worst, refusing = 0.0, []
    for name, other in others.items():
        _, theirs = _implementation_of(problem, other)(*referee.point)
        try:
            worst = max(worst, *(float(np.max(np.abs(gradient[key] - value))) for key, value in theirs.items()))
            close = all(np.allclose(gradient[key], value) for key, value in theirs.items())
        except ValueError:  # shapes that do not even broadcast
            close = False
        refusing += [] if close else [name]
    note = f"max difference; rtol 1e-5, atol 1e-8; {'not ' if refusing else ''}{', '.join(refusing or others)}"
    return "wrong" if refusing else "agree", worst, note


def _weighed(outcome: MethodOutcome, report: Report) -> MethodOutcome:
    """Return the outcome, at fault if it contradicts the report."""
    if "inconclusive" in (outcome.says, report.verdict) or outcome.says == report.verdict:
        return outcome
    if outcome.says == "wrong":
        ulps = max(entry.error_ulps for entry in report.entries if entry.parameter != LOSS)
        return replace(outcome, at_fault=True, why=f"the gradient is right, to {ulps:.2g} ulp; its reference is not")
    wrong = [entry for entry in report.entries if entry.verdict == "wrong"]
    first = next((entry for entry in wrong if entry.parameter != LOSS), wrong[0])
    error, size = abs(first.actual - first.expected), abs(first.expected) or math.nan
    if first.worst_index is None:
        why = f"it does not see: {first.cause}"
    elif first.parameter == LOSS:
        why = "the loss is wrong; it looks at the gradient alone"
    else:
        with_it = "; the loss is wrong, too" if wrong[0].parameter == LOSS else ""
        why = f"{first.parameter} is off by {error:.1e}, {error / size:.1e} of it{with_it}"
    return replace(outcome, at_fault=True, why=why)


def _reference(report: Report) -> MethodOutcome:
    """Return the referee's own verdict, by its worst entry."""
    entries = [entry for entry in report.entries if entry.verdict == report.verdict]
    fractions = [entry.budget_fraction for entry in entries]
    power = max((entry.detectable for entry in entries if entry.detectable > 0), default=math.nan)
    note = (
        f"share of the rounding budget; sees faults of {power:.0e}"
        if report
        else f"{entries[-1].parameter}: {entries[-1].cause}"
    )
    return MethodOutcome("enclosure", report.verdict, math.nan if np.isnan(fractions).any() else max(fractions), note)
