"""The whole: every implementation of a problem, at one point, before the referee."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gdcompare.backend import Backend
from gdcompare.case import Case, DataLike, Poses
from gdcompare.gradients import offers
from gdcompare.problem import Dataset, Problem
from gdcompare.progress import said_if_long
from gdcompare.referee.allowance import tolerated
from gdcompare.referee.along import RefereeAlong, checked_derivative
from gdcompare.referee.due import ExitError, NotDueError, as_array, as_due, as_number, no_exit
from gdcompare.referee.enclosed import Enclosed
from gdcompare.referee.explained import explained
from gdcompare.referee.formula import allowances_of_formula, formula_of, told
from gdcompare.referee.point import Implementation, Referee, Reference
from gdcompare.referee.verdict import LOSS, Allowance, Entry, Floats, Report, budgets_of, judge_all
from gdcompare.registry import refuse_nobody


def verify(
    problem: str | Problem | Poses,
    data: DataLike = None,
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
    proven_only: bool = False,
) -> Report:
    """Judge each backend's, and each implementation's, loss and gradient against the proven truth.

    The truth comes from the problem's loss formula alone, in ball arithmetic. No tolerance is needed: what is allowed
    is what rounding may do to a correct program at this dtype, at worst, or where that is too much to see any digit, as
    sampled; `proven_only` takes the worst case alone. What leaves no digit to check is inconclusive. Every
    implementation is called twice, on copies; one that differs between the calls, or changes its inputs, is told so.

    Problem, data and parameters are as `case` has it: by name, from a file, or themselves; `None` takes the problem's
    own data, and draws parameters near its start (`drawn_parameters`). `backends=None` takes all that are installed
    and suit the problem. `implementations` are functions `f(params, features, targets) -> (loss, {name: gradient})`,
    given NumPy arrays of the dtype, and the weights as a fourth argument if the data have any; one that computes by
    another formula may state it (`with_formula`). Loss and gradient are
    means over the rows, weighted if the data are; sums with `reduction="sum"`. With `atol` or `rtol`, what is allowed
    is instead `atol + rtol |truth|`; each entry's `detectable` says what that costs.

    `derivative` is what is judged: the `"gradient"`; `"jvp"`, the loss's derivative along a direction `{name: shape}`;
    `"hvp"`, the Hessian times it; or `"hessian"`, an entry for each block. Implementations are then
    `f(params, features, targets, direction) -> (loss, derivative)`, `f(params, features, targets, direction) ->
    {name: product}` and `f(params, features, targets) -> {name: {name: block}}`, with the weights, if any, as a last
    argument. Of a Hessian some blocks will do, or `{name: its diagonal, in the parameter's shape}`. By default the
    direction is drawn from seed 1, and backends that do not have the derivative are not asked.

    Raises ValueError, LookupError or BackendUnavailableError before any work for arguments that make no sense.

    >>> import gdcompare as gdc
    >>> report = gdc.verify("linear-regression", gdc.datasets.noisy_line(), {"theta_0": 1, "theta_1": [0]})
    >>> report.verdict
    'agree'
    """
    kind = checked_derivative(derivative, direction)
    if isinstance(problem, Poses):
        posed = problem.posed(data, params, dtype)
        problem, data, params = posed.problem, posed.data, posed.params
        implementations, backends = posed.implementations(implementations), backends or []
    case = Case.of(problem, data, params, dtype, reduction)
    loaded = case.backends(backends)
    if backends is None:
        loaded = [each for each in loaded if offers(each, case.problem, kind)]
    refuse_nobody(case.problem, [*loaded, *(implementations or ())], kind)
    for name, function in (implementations or {}).items():
        if not callable(function):
            raise TypeError(f"implementation {name!r} must be a function (params, features, targets), not {function!r}")
    if implementations and case.problem.derived:
        case.check_derivation()  # its budget counts, too
    at_point = Referee(case)
    referee = at_point if kind == "gradient" else RefereeAlong(at_point, kind, direction)
    functions = [referee.backend_implementation(each) for each in loaded]  # what is not offered is refused here
    own = {name: referee.implementation(each) for name, each in (implementations or {}).items()}
    asked = None if atol is None and rtol is None else tolerated(referee.truths, atol or 0.0, rtol or 0.0)
    entries: list[Entry] = []
    for backend, theirs in zip(loaded, functions, strict=True):
        allowed = asked or referee.allowances(getattr(backend, "by_hand", False), proven_only)
        found = judged(referee, backend.name, theirs, allowed, may_raise=False)
        entries += _excused(found, getattr(backend, "approximates", ""))
    for name, implementation in own.items():
        usual = asked or referee.either_allowance(proven_only)
        formula = formula_of((implementations or {})[name]) if asked is None else None
        allowed = usual if formula is None else allowances_of_formula(referee, formula, proven_only)
        found = judged(referee, name, implementation, allowed, may_raise=True)
        entries += _hinted(found if formula is None else told(found, allowed, usual), implementation, referee)
    return Report(tuple(entries), context_of(referee, case.data, loaded))


def context_of(referee: Reference, data: Dataset, backends: Sequence[Backend[Any]]) -> dict[str, Any]:
    """Return what the results depend on, as plain values."""
    environment = {"python": platform.python_version(), "machine": platform.machine(), np.__name__: np.__version__}
    for backend in backends:
        environment |= getattr(backend, "environment", dict)()
    along = getattr(referee, "direction", None) or {}
    return {
        "problem": getattr(referee.problem, "title", type(referee.problem).__name__),
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


def _hinted(entries: list[Entry], implementation: Implementation, referee: Reference) -> list[Entry]:
    """Add what a native model knows of itself to the cause of the first that is wrong."""
    first = next(
        (i for i, each in enumerate(entries) if each.verdict == "wrong" and each.worst_index is not None), None
    )
    if (
        first is None
        or (hints := getattr(implementation, "hints", None)) is None
        or not (said := hints(*referee.point[:3]))
    ):
        return entries
    wrong = replace(entries[first], cause="; ".join(filter(None, [entries[first].cause, said])))
    return [*entries[:first], wrong, *entries[first + 1 :]]


def judged(
    referee: Reference,
    name: str,
    implementation: Implementation,
    allowed: Mapping[str, Floats | Allowance],
    may_raise: bool,
) -> list[Entry]:
    """Call the implementation twice, judge what it says, and find the cause of what is wrong."""
    if (fits := getattr(implementation, "fits", None)) is not None:  # a native model's
        fits(referee.params)  # raises where that is not possible: nobody's gradient is at fault
    calls: list[dict[str, Any]] = []
    for _ in range(2):
        point = referee.point
        try:
            with said_if_long(f"{name}: computing, or compiling"), no_exit():
                found = implementation(*point)
            loss, gradient = as_due(found, (None, {}), "(loss, {name: gradient})")
            call = {str(key): as_array(value, referee.dtype) for key, value in gradient.items()}
            if loss is not None:
                call = {LOSS: as_number(loss, referee.dtype), **call}
        except NotDueError as error:
            return [Entry(name, LOSS, "wrong", cause=str(error))]
        except Exception as error:
            if not may_raise or isinstance(error, ExitError):
                raise
            return [Entry(name, LOSS, "wrong", cause=f"it raised {type(error).__name__}: {error}")]
        if changed := changed_inputs(referee, point):
            return [Entry(name, LOSS, "wrong", cause=f"it changed its inputs: {', '.join(changed)}")]
        calls.append(call)
    judgements: list[dict[str, Entry]] = []
    allowances, budgets = dict(allowed), budgets_of(allowed)
    known: dict[str, Enclosed] = {}
    for call in calls:
        if judgements and _same(call, calls[0]) and not _any_kinks(known):
            judgements.append(judgements[0])  # the second call gave the same bits
            continue
        truths = dict(referee.towards(call, budgets))
        if isinstance(referee, RefereeAlong):
            truths, allowances = referee.judged_by(calls[0], allowed)
        if LOSS not in calls[0]:
            truths.pop(LOSS, None)
        known = known or truths
        entries = judge_all(name, call, truths, allowances, referee.dtype)
        judgements.append({entry.parameter: entry for entry in entries})
    first, again = judgements
    absent = Entry(name, "", "wrong", cause="missing")
    every = list(first | again)
    one, two = ([found.get(key, replace(absent, parameter=key)) for key in every] for found in (first, again))
    entries = explained(referee, known, one, two, calls, allowances)
    gradients = [entry for entry in entries if entry.parameter != LOSS]
    if all(entry.worst_index is not None for entry in entries) and any(e.verdict == "wrong" for e in gradients):
        rule = referee.convention(calls[0], budgets)
        entries = [replace(each, cause=rule) if rule and each.verdict == "wrong" else each for each in entries]
    if set(referee.truths) <= {LOSS, *known}:
        return entries
    blocks = f"{len(referee.truths)} block{'s' * (len(referee.truths) > 1)}"
    partly = f"of {blocks}, only what is given is judged: {', '.join(known)}"
    return [replace(entries[0], cause=f"{entries[0].cause}; {partly}".removeprefix("; ")), *entries[1:]]


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two calls gave the same arrays, bit for bit."""
    return one.keys() == other.keys() and all(
        each.dtype == other[name].dtype and each.shape == other[name].shape and each.tobytes() == other[name].tobytes()
        for name, each in one.items()
    )


def _any_kinks(truths: Mapping[str, Enclosed]) -> bool:
    """Whether any truth is a set, of which more may be seen when it is asked for again."""
    return any(truth.kinks.any() for truth in truths.values())


def changed_inputs(referee: Reference, point: tuple[Any, ...]) -> list[str]:
    """Name the arrays of a point that an implementation was given, and changed."""
    before, after = _by_name(referee.point), _by_name(point)
    return [key[-1] for key, value in before.items() if key not in after or not np.array_equal(value, after[key])]


def _by_name(point: tuple[Any, ...]) -> dict[tuple[str, ...], Any]:
    """Name the arrays of a point: (params, features, targets), and a direction or weights if any."""
    params, features, targets, *others = point
    arrays: dict[tuple[str, ...], Any] = {("parameter", name): value for name, value in params.items()}
    arrays |= {("features",): features, ("targets",): targets}
    for each in others:
        along = isinstance(each, Mapping)
        arrays |= {("", f"direction {name!r}"): v for name, v in each.items()} if along else {("weights",): each}
    return arrays
