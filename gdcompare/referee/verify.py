"""The whole: every implementation of a problem, at one point, before the referee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from gdcompare.backend import Backend
from gdcompare.case import Case, DataLike, Poses, blocks_for
from gdcompare.data.blocks import Blocks
from gdcompare.gradients import offers
from gdcompare.problem import Problem
from gdcompare.referee.allowance import tolerated
from gdcompare.referee.along import RefereeAlong, checked_derivative
from gdcompare.referee.context import context_of
from gdcompare.referee.formula import allowances_of_formula, formula_of, told
from gdcompare.referee.judging import judged
from gdcompare.referee.point import Implementation, Referee, Reference
from gdcompare.referee.streamed import verify_blocks
from gdcompare.referee.verdict import Entry, Report
from gdcompare.registry import as_problem, refuse_nobody, refuse_unnamed
from gdcompare.scale.cluster import workers_for
from gdcompare.scale.sums import Sums, Workers


def verify(
    problem: str | Problem | Poses,
    data: DataLike | Blocks = None,
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
    workers: int | None = None,
    scheduler: str | None = None,
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

    Of data in `Blocks` the gradient over all rows is judged, each block read once; `workers` and `scheduler` say who
    works out the backends' sums, as `descend` has it.

    Raises ValueError, LookupError or BackendUnavailableError before any work for arguments that make no sense.

    >>> import gdcompare as gdc
    >>> report = gdc.verify("linear-regression", gdc.datasets.noisy_line(), {"theta_0": 1, "theta_1": [0]})
    >>> report.verdict
    'agree'
    """
    kind = checked_derivative(derivative, direction)
    shared = (workers, scheduler) != (None, None)
    if isinstance(data, Blocks) or shared:
        suited = as_problem(_suits_blocks(problem, kind))
        blocks = data if isinstance(data, Blocks) else blocks_for(suited, data)
        with ExitStack() as stack:

            def engage(sums: Sums) -> Workers:
                return stack.enter_context(workers_for(sums, workers, scheduler))

            return verify_blocks(
                suited, blocks, params, backends=backends, implementations=implementations, dtype=dtype,
                reduction=reduction, atol=atol, rtol=rtol, proven_only=proven_only, workers=engage if shared else None,
            )  # fmt: skip
    if isinstance(problem, Poses):
        posed = problem.posed(data, params, dtype)
        problem, data, params = posed.problem, posed.data, posed.params
        implementations, backends = posed.implementations(implementations), backends or []
    case = Case.of(problem, data, params, dtype, reduction)
    loaded = case.backends(backends)
    if backends is None:
        loaded = [each for each in loaded if offers(each, case.problem, kind)]
    refuse_unnamed(implementations, loaded)
    refuse_nobody(case.problem, [*loaded, *(implementations or ())], kind)
    if implementations and case.problem.derived:
        case.check_derivation()  # its budget counts, too
    at_point = Referee(case, on_sides=kind == "gradient")
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
    if kind == "gradient" and (asides := getattr(case.problem, "asides", None)) is not None:
        entries = _told_of(entries, asides())
    return Report(tuple(entries), context_of(referee, case.data, loaded))


def _suits_blocks(problem: str | Problem | Poses, kind: str) -> str | Problem:
    """Return the problem, or raise a ValueError for what is not judged on data in blocks."""
    way_out = "give rows that fit the memory, such as one block: data.block(0)"
    if isinstance(problem, Poses):
        raise ValueError(f"a model as it stands is not judged on data in blocks; {way_out}")
    if kind != "gradient":
        raise ValueError(f"on data in blocks the gradient is judged, not derivative={kind!r}; {way_out}")
    return problem


def _told_of(entries: list[Entry], asides: Mapping[str, tuple[bool, str]]) -> list[Entry]:
    """Say of what agrees what its program tells beside: whether that leaves it right, or undecided, and why."""
    return [
        replace(entry, cause=said[1], verdict="agree" if said[0] else "inconclusive")
        if entry.verdict == "agree" and (said := asides.get(entry.parameter))
        else entry
        for entry in entries
    ]


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
