"""The whole: every implementation of a problem, at one point, before the referee."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gdcompare import data as datasets
from gdcompare.arithmetic.formula_check import check_formula
from gdcompare.backend import Backend
from gdcompare.gradients import offers
from gdcompare.problem import Dataset, Problem, check_targets, drawn_parameters
from gdcompare.referee.along import RefereeAlong, checked_derivative
from gdcompare.referee.diagnosis import Evidence, cause_of
from gdcompare.referee.point import LOSS, Implementation, Referee, Reference
from gdcompare.referee.verdict import Entry, Floats, Report, judge_all
from gdcompare.registry import as_problem, backends_for, refuse_nobody


def verify(
    problem: str | Problem,
    data: str | Dataset,
    params: Mapping[str, Any] | None = None,
    *,
    backends: Sequence[str | Backend[Any]] | None = None,
    implementations: Mapping[str, Implementation] | None = None,
    dtype: str = "float64",
    reduction: str = "mean",
    atol: float | None = None,
    rtol: float | None = None,
    derivative: str = "gradient",
    direction: Mapping[str, Any] | None = None,
) -> Report:
    """Judge each backend's, and each implementation's, loss and gradient against the proven truth.

    The truth comes from the problem's loss formula alone, in ball arithmetic. No tolerance is needed: what is allowed
    is the rounding budget of a correct program at this dtype. Every implementation is called twice, on copies; one that
    differs between the calls, or changes its inputs, is told so.

    `params=None` draws them near the problem's start (`drawn_parameters`). `backends=None` takes all that are installed
    and suit the problem. `implementations` are functions `f(params, features, targets) -> (loss, {name: gradient})`,
    given NumPy arrays of the dtype, and the weights as a fourth argument if the data have any. Loss and gradient are
    means over the rows, weighted if the data are; sums with `reduction="sum"`. With `atol` or `rtol`, what is allowed
    is instead `atol + rtol |truth|`; each entry's `detectable` says what that costs.

    `derivative` is what is judged: the `"gradient"`; `"jvp"`, the loss's derivative along a direction `{name: shape}`;
    `"hvp"`, the Hessian times it; or `"hessian"`, an entry for each block. Implementations are then
    `f(params, features, targets, direction) -> (loss, derivative)`, `f(params, features, targets, direction) ->
    {name: product}` and `f(params, features, targets) -> {name: {name: block}}`, with the weights, if any, as a last
    argument. By default the direction is drawn from seed 1, and backends that do not have the derivative are not asked.

    Raises ValueError, LookupError or BackendUnavailableError before any work for arguments that make no sense.

    >>> import gdcompare as gdc
    >>> report = gdc.verify("linear-regression", gdc.datasets.noisy_line(), {"theta_0": 1, "theta_1": [0]})
    >>> report.verdict
    'agree'
    """
    problem = as_problem(problem)
    data = datasets.suited(problem, datasets.load(data)) if isinstance(data, str) else data
    check_targets(problem, data)
    derivative = checked_derivative(derivative, direction)
    loaded = backends_for(problem, backends, dtype)
    if backends is None:
        loaded = [each for each in loaded if offers(each, problem, derivative)]
    refuse_nobody(problem, [*loaded, *(implementations or ())], derivative)
    derivation = problem.derived and (bool(implementations) or any(getattr(each, "by_hand", False) for each in loaded))
    check_formula(problem, data, by_hand=derivation, refereed=True)
    if params is None:
        params = drawn_parameters(problem, data)
    at_point = Referee(problem, data, params, dtype, reduction)
    referee = at_point if derivative == "gradient" else RefereeAlong(at_point, derivative, direction)
    functions = [referee.backend_implementation(each) for each in loaded]  # what is not offered is refused here
    allowed = None if atol is None and rtol is None else _tolerances(referee, atol or 0.0, rtol or 0.0)
    entries: list[Entry] = []
    for backend, theirs in zip(loaded, functions, strict=True):
        if backend.dtype != dtype:
            raise ValueError(
                f"backend {backend.name!r} computes in {backend.dtype}, but dtype={dtype!r} is to be judged"
            )
        budgets = referee.budgets(getattr(backend, "by_hand", False))
        found = judged(referee, backend.name, theirs, allowed or budgets, may_raise=False)
        entries += _excused(found, getattr(backend, "approximates", ""))
    either = referee.either_budget if implementations else {}
    for name, implementation in (implementations or {}).items():
        entries += judged(referee, name, referee.implementation(implementation), allowed or either, may_raise=True)
    return Report(tuple(entries), context_of(referee, data, loaded))


def context_of(referee: Reference, data: Dataset, backends: Sequence[Backend[Any]]) -> dict[str, Any]:
    """Return what the results depend on, as plain values."""
    environment = {"python": platform.python_version(), "machine": platform.machine(), np.__name__: np.__version__}
    for backend in backends:
        environment |= getattr(backend, "environment", dict)()
    along = getattr(referee, "direction", None) or {}
    return {
        "problem": type(referee.problem).__name__,
        "data": data.name,
        "n": len(data),
        "d": data.features.shape[1],
        "weighted": data.weights is not None,
        "reduction": referee.reduction,
        "derivative": getattr(referee, "derivative", "gradient"),
        "direction": {name: value.tolist() for name, value in along.items()},
        "dtype": referee.dtype,
        "kinks": list(referee.kinks),
        "environment": environment,
    }


def _excused(entries: list[Entry], how: str) -> list[Entry]:
    """Say of an approximation's wrong values that they are approximate."""
    return [
        replace(entry, cause=f"an approximation by {how}")
        if how and entry.verdict == "wrong" and entry.worst_index is not None
        else entry
        for entry in entries
    ]


def _tolerances(referee: Referee | RefereeAlong, atol: float, rtol: float) -> dict[str, Floats]:
    for name, value in (("atol", atol), ("rtol", rtol)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number, 0 or above, not {value!r}")
    return {name: atol + rtol * np.abs(truth.mid) for name, truth in referee.truths.items()}


def judged(
    referee: Reference, name: str, implementation: Implementation, budgets: Mapping[str, Floats], may_raise: bool
) -> list[Entry]:
    """Call the implementation twice, judge what it says, and find the cause of what is wrong."""
    if (fits := getattr(implementation, "matching", None)) is not None:  # a native model's
        fits(referee.params)  # raises where that is not possible: nobody's gradient is at fault
    calls: list[dict[str, Any]] = []
    for _ in range(2):
        point = referee.point
        try:
            loss, gradient = implementation(*point)
            gradient = {str(key): np.asarray(value) for key, value in gradient.items()}
        except Exception as error:
            if not may_raise:
                raise
            return [Entry(name, LOSS, "wrong", cause=f"it raised {type(error).__name__}: {error}")]
        if changed := _changed(referee, point):
            return [Entry(name, LOSS, "wrong", cause=f"it changed its inputs: {', '.join(changed)}")]
        calls.append(gradient if loss is None else {LOSS: np.asarray(loss, dtype=referee.dtype), **gradient})
    judgements = []
    for call in calls:
        nearest = referee.towards(call, budgets)
        truths = {key: truth for key, truth in nearest.items() if key != LOSS or LOSS in calls[0]}
        judgements.append(judge_all(name, call, truths, budgets, referee.dtype))
    first, again = judgements
    entries = [
        _explained(referee, one, two, [call.get(one.parameter) for call in calls], budgets.get(one.parameter))
        for one, two in zip(first, again, strict=True)
    ]
    known = [each.worst_index is not None for each in entries]
    if all(known) and any(each.verdict == "wrong" and each.parameter != LOSS for each in entries):
        rule = referee.convention(calls[0], budgets)
        return [replace(each, cause=rule) if rule and each.verdict == "wrong" else each for each in entries]
    return entries


def _explained(referee: Reference, one: Entry, two: Entry, values: list[Any], budget: Floats | None) -> Entry:
    """Return the worse of two calls' entries, with its cause."""
    name = one.parameter
    if one.worst_index is None or two.worst_index is None or budget is None:
        return one
    repeats = np.array_equal(values[0], values[1], equal_nan=True)
    if one.verdict != "wrong" and not repeats:
        if two.verdict != "wrong":
            return replace(one, cause="not deterministic: two calls differ, within the budget")
        twice = np.abs(values[1] - 2.0 * referee.truths[name].mid) <= 4 * budget
        stale = "stale accumulation: the second call returns the sum of both"
        return replace(two, cause=stale if twice.all() else "not deterministic: a second call differs")
    if one.verdict != "wrong":
        return one
    n, weights, reduction = len(referee.features), referee.weights, referee.reduction
    rows = referee.row_truths[name].mid if name in referee.row_truths else None
    evidence = Evidence(
        actual=values[0].astype(np.float64),
        truth=referee.truths[name].mid,
        budget=budget,
        dtype=referee.dtype,
        n=n,
        parameter=None if name == LOSS or name not in referee.params else referee.params[name].astype(np.float64),
        per_sample=rows if rows is None or reduction == "mean" else n * rows,
        reduction=reduction,
        weight=None if weights is None else float(np.sum(weights, dtype=np.float64)),
        unweighted=None if weights is None or not isinstance(referee, Referee) else referee.unweighted.truths[name].mid,
    )
    return replace(one, cause=cause_of(evidence) + ("" if repeats else "; and not deterministic: two calls differ"))


def _changed(referee: Reference, point: tuple[Any, ...]) -> list[str]:
    before, after = _by_name(referee.point), _by_name(point)
    return [name for name, value in before.items() if name not in after or not np.array_equal(value, after[name])]


def _by_name(point: tuple[Any, ...]) -> dict[str, Any]:
    """Name the arrays of a point: (params, features, targets), and a direction or weights if any."""
    params, features, targets, *others = point
    arrays = {**params, "features": features, "targets": targets}
    for each in others:
        along = isinstance(each, Mapping)
        arrays |= {f"direction {name!r}": value for name, value in each.items()} if along else {"weights": each}
    return arrays
