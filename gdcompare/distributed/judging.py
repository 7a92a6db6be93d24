"""Gradients computed by many ranks together, before the referee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from gdcompare.case import Case, DataLike, Poses
from gdcompare.distributed.held import REDUCED, judged_own, judged_reduced
from gdcompare.distributed.known import Truths
from gdcompare.distributed.pieces import holding
from gdcompare.distributed.shards import Floats, Shards
from gdcompare.problem import Problem
from gdcompare.referee.context import context_of
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import Entry, Report
from gdcompare.table import count

REDUCTIONS = "reductions"
"""What is judged beside the parameters, if it is given: how often gradients were reduced."""


@final
@dataclass(frozen=True, eq=False)
class Step:
    """What the step before was: its parameters, its data, its shards; what is None is as in this one."""

    params: Mapping[str, Any] | None = None
    """`{name: array}`."""
    data: DataLike = None
    """As `judge` takes them."""
    shards: Sequence[Any] | None = None
    """The rows of each rank in these data."""


def judge(
    problem: str | Problem | Poses,
    data: DataLike = None,
    params: Mapping[str, Any] | None = None,
    *,
    shards: Sequence[Any],
    reduced: Any = None,
    local: Any = None,
    factors: Sequence[float] | None = None,
    previous: Step | None = None,
    reductions: int | Sequence[int] | None = None,
    reduction: str = "mean",
    dtype: str = "float64",
    proven_only: bool = False,
) -> Report:
    """Judge the gradients that several ranks, or devices, computed together, and name what went wrong between them.

        reduced     G = (sum over all rows of their weight times their gradient) / (sum of the weights), on every rank
        own shard   f_r times the same over the rows of rank r

    Problem, data, parameters, `dtype`, `reduction` and `proven_only` are what `verify` takes, a model as it stands
    among them. `shards` are the rows of each rank, `[[0, 1], [2, 3]]`, slices or ranges, or lists of such where it
    accumulates micro-batches; together they are all rows, each once.

    `reduced` is what the ranks have after the reduction, and `local` what they had before: `{name: array}` if all have
    the same, `{rank: {name: array}}`, or a list by rank. In place of an array stands a `Piece`, or a list of them,
    where a rank holds a part. `factors` (W,) say by what each rank multiplies its mean: n_r W / n where unequal shards
    are to be averaged; 1 by default. `previous` lets stale shards be known. `reductions` says how often gradients were
    reduced in this step, of each rank or of all: once is due. A `local` that is empty on all ranks says nothing.

    An entry for each rank, parameter and piece, its `law` says of what: `"own shard"` or `"reduced"`; one for all ranks
    that hold the same bits. The cause is in terms of ranks, and fits within what rounding may do, or none is named.

    Raises ValueError or TypeError before any work for shards that overlap or leave out rows, ranks that are missing,
    other names, shapes or dtypes on some rank, and whatever `verify` refuses.

    >>> import numpy as np, gdcompare as gdc
    >>> data, at = ([[1.0], [2.0], [4.0], [5.0]], [1.0, 3.0, 2.0, 7.0]), {"theta_0": 0.5, "theta_1": [1.0]}
    >>> own = [gdc.value_and_grad("linear-regression", [each[:3] for each in data], at, "numpy")[1],
    ...        gdc.value_and_grad("linear-regression", [each[3:] for each in data], at, "numpy")[1]]
    >>> mean = {name: (own[0][name] + own[1][name]) / 2 for name in at}
    >>> report = judge("linear-regression", data, at, shards=[[0, 1, 2], [3]], local=own, reduced=mean)
    >>> report.verdict, report.entries[-1].cause
    ('wrong', 'averaged over the ranks without weights, and the shards have 3 and 1 rows')
    """
    local = None if _is_empty(local) else local
    if reduced is None and local is None:
        raise ValueError("give what the ranks have after the reduction, reduced={...}, or before, local={...}, or both")
    case = _case(problem, data, params, dtype, reduction)
    rows = Shards.of(shards, case.data)
    shapes = {name: value.shape for name, value in case.params.items()}
    after, before = (
        None if given is None else holding(what, given, len(rows), shapes, dtype)
        for what, given in (("reduced", reduced), ("local", local))
    )
    counts = _counts(reductions, len(rows))
    old = _previous(previous, problem, data, params, case, shards)
    truths = Truths(Referee(case), rows, _factors(factors, len(rows)), old, proven_only)
    entries = [] if before is None else judged_own(truths, before)
    if after is not None:
        entries += judged_reduced(truths, after, before, entries)
    context = context_of(truths.referee, case.data, [])
    return Report((*entries, *_reductions(counts, rows)), context | {"ranks": len(rows), "shards": rows.sizes()})


def _is_empty(local: Any) -> bool:
    """Say whether no rank has anything: nothing was seen, as where nothing was reduced."""
    ranks = local.values() if isinstance(local, Mapping) else local
    return isinstance(local, Mapping | list | tuple) and all(isinstance(each, Mapping) and not each for each in ranks)


def _case(problem: Any, data: Any, params: Any, dtype: str, reduction: str) -> Case:
    if isinstance(problem, Poses):
        posed = problem.posed(data, params, dtype)
        posed.of_rows()  # refused, if its rows are no samples
        problem, data, params = posed.problem, posed.data, posed.params
    case = Case.of(problem, data, params, dtype, reduction)
    case.backends([])
    if case.problem.derived:
        case.check_derivation()  # its budget counts, too
    return case


def _factors(given: Sequence[float] | None, ranks: int) -> Floats:
    factors = np.ones(ranks) if given is None else np.asarray(given, dtype=np.float64)
    if factors.shape != (ranks,) or not (np.isfinite(factors) & (factors > 0)).all():
        raise ValueError(f"factors are {ranks} positive numbers, one for each rank, not {given!r}")
    return factors


def _counts(given: int | Sequence[int] | None, ranks: int) -> list[int] | None:
    if given is None:
        return None
    found = [given] * ranks if isinstance(given, int | np.integer) else list(given)
    if len(found) != ranks or not all(isinstance(each, int | np.integer) and each >= 0 for each in found):
        raise ValueError(f"reductions are a number, or {ranks}, one for each rank, not {given!r}")
    return [int(each) for each in found]


def _previous(
    step: Step | None, problem: Any, data: Any, params: Any, case: Case, shards: Sequence[Any]
) -> dict[str, tuple[Referee, Shards]]:
    """Return what the previous step computed, or would have with this one's rows or parameters, by kind."""
    if step is None:
        return {}
    moved, other = step.params is not None, not (step.data is None and step.shards is None)
    if not (moved or other):
        raise ValueError("previous=Step() is this step again: give its params, its data or its shards")
    old_data = data if step.data is None else step.data
    old_shards = shards if step.shards is None else step.shards

    def at(rows: Any, chosen: Any, point: Any) -> tuple[Referee, Shards]:
        there = _case(problem, rows, point, case.dtype, case.reduction)
        found = Shards.of(chosen, there.data, "the previous step's shards", whole=False)
        if len(found) != len(shards):
            raise ValueError(f"the previous step's shards are {len(found)}, and this one's {len(shards)}: one a rank")
        return Referee(there), found

    found = {}
    if moved and other:
        found["step"] = at(old_data, old_shards, step.params)
    if moved:
        found["parameters"] = at(data, shards, step.params)
    if other:
        found["rows"] = at(old_data, old_shards, params)
    return found


def _reductions(counts: Sequence[int] | None, shards: Shards) -> list[Entry]:
    """Return an entry for each rank that did not reduce once; one for all, if they agree."""
    if counts is None or set(counts) == {1}:
        return []
    named = {f"all {len(counts)} ranks": counts[0]} if len(set(counts)) == 1 else {}
    named = named or {f"rank {rank}": each for rank, each in enumerate(counts) if each != 1}
    most = max(map(len, shards.micro))
    entries = []
    for who, times in named.items():
        words = f"reduced {count(times, 'time')} in this step, where once is due"
        if times == 0:
            words = "not reduced in this step: is synchronisation switched off around the last forward pass?"
        elif times == most:
            words += (
                ": at each micro-batch. Is synchronisation switched off around the backward pass alone? It is the "
                "forward pass that heeds it"
            )
        entries.append(Entry(who, REDUCTIONS, "wrong", cause=words, law=REDUCED))
    return entries
