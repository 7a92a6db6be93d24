"""Batch laws: what must hold between the gradient of a mean and the gradients of its parts.

With g_i the gradient of sample i, G the gradient of the mean over all n, G_B that of the mean over a batch B:

    mean of per-sample gradients        1/n sum g_i = G; somebody's own g_i are judged one by one, too
    any partition, weighted by size     sum (n_k / n) G_k = G
    permutation, duplication            the order of the rows, or taking each twice, changes nothing
    sum                                 the gradient of the sum is n G; added up over micro-batches, too
    linearity in the loss               (W_1 G_w1 + W_2 G_w2) / (W_1 + W_2) = G_(w1 + w2), W the sums of the weights
    copies                              a row of weight k counts as k rows
    padding                             a row of weight 0 counts as none: a ragged batch may be filled up
    unbiased                            the mean of G_B over all C(m, b) batches is the gradient over those m rows
    variance of these batches           mean (G_B - G)^2 = (1/b) (m - b) / (m - 1) 1/m sum (g_i - G)^2
                                        (without replacement; Cochran, Sampling Techniques, 1977, theorem 2.2)

If the data have weights w_i, they take the place of the counts everywhere: G is the weighted mean, its per-sample
gradients are `n w_i / sum w g_i`, a part weighs as much as its rows. The mean over all batches is then the one weighted
by their weights, and the variance law, which is about equal rows, is left out.

A backend, or somebody's own function, computes the parts; they are combined here in float64. Every result must be
within the rounding budget of the true value, and on integer lattices, where correct programs round nothing, that budget
is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from gdcompare.backend import Backend, Reduction
from gdcompare.case import Case, DataLike, Poses, blocks_for
from gdcompare.data.blocks import Blocks
from gdcompare.problem import Dataset, Problem
from gdcompare.referee.allowance import allowance_within
from gdcompare.referee.blame import blamed_rows, ratio, some
from gdcompare.referee.combined import weighted_mean
from gdcompare.referee.context import context_of, context_of_blocks
from gdcompare.referee.hypotheses import number
from gdcompare.referee.parts import BackendBench, Bench, OwnBench, Part, RowsFunction, UnfitError
from gdcompare.referee.point import Implementation, Referee
from gdcompare.referee.streamed_laws import LEFT_OUT, laws_of_blocks
from gdcompare.referee.verdict import Allowance, Entry, Floats, Known, Report, Truth, budgets_of, compare
from gdcompare.registry import as_backend, as_problem

_FIRST_ROWS = 6
"""Batches are enumerated over at most this many rows: C(6, 3) = 20 of them."""


@dataclass(frozen=True, eq=False)
class _Claim:
    """What a law says: these values, combined from those parts, are within these budgets of the truth."""

    law: str
    actual: Mapping[str, Floats]
    truths: Mapping[str, Truth]
    allowed: Mapping[str, Allowance]
    parts: Sequence[Part]


def check_batch_laws(
    problem: str | Problem | Poses,
    data: DataLike | Blocks = None,
    params: Mapping[str, Any] | None = None,
    backend: str | Backend[Any] | Implementation | None = None,
    *,
    per_sample: RowsFunction | None = None,
    dtype: str | None = None,
    name: str | None = None,
    proven_only: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Report:
    """Check every batch law of a problem on one backend, at its dtype; an entry for each law and parameter.

    Problem, data, parameters and `proven_only` are what `verify` takes. When a law fails, the cause names the samples
    or the batch at fault.

    In place of a backend, an implementation as `verify` takes it, at `dtype` (float64), which the report calls `name`;
    with `per_sample`, a function `f(params, features, targets) -> {name: (n, *shape)}`, its per-sample gradients are
    judged, too, one by one and as a mean. A native model has them. What is not offered is left out, and said: sums,
    per-sample gradients, weights where there is no fourth argument.

    On data in `Blocks` the laws between all rows and their blocks are checked, and the report says which are left out
    (`streamed_laws`). A backend's may be checked by `workers`, so many new processes of this machine, or by those of a
    Dask cluster, whose address is `scheduler`: each some blocks at a time. Functions are called in this process.

    Raises ValueError, LookupError, TypeError or BackendUnavailableError before any work for arguments that make no
    sense.

    A model as it stands, as `verify` takes one, is a problem and the implementation in one: give no other, or one.

    >>> import gdcompare as gdc
    >>> data = gdc.datasets.noisy_line()
    >>> report = gdc.check_batch_laws("linear-regression", data, {"theta_0": 1, "theta_1": [0]}, "numpy")
    >>> report.verdict, report.entries[0].law
    ('agree', 'mean of per-sample gradients')
    """
    if (workers, scheduler) != (None, None) and not isinstance(data, Blocks) and not isinstance(problem, Poses):
        data = blocks_for(as_problem(problem), data)
    blocks = data if isinstance(data, Blocks) else None
    data = data.first if isinstance(data, Blocks) else data
    if isinstance(problem, Poses):
        if blocks is not None or (workers, scheduler) != (None, None):
            raise ValueError("the laws of a model as it stands are not checked on data in blocks; give data.block(0)")
        posed = problem.posed(data, params, dtype or "float64")
        problem, data, params = posed.problem, posed.data, posed.params
        backend, name = posed.of_rows(backend), name or posed.name
    backends: list[Backend[Any]] = []
    bench: Bench
    if callable(backend) and not isinstance(backend, type):
        _refuse_no_function(per_sample)
        case = Case.of(problem, data, params, dtype or "float64")
        bench = _own_bench(case, backend, per_sample, name, proven_only)
    else:
        backends = [_judged_backend(backend, per_sample, name, dtype)]
        case = Case.of(problem, data, params, dtype or backends[0].dtype)
        case.backends(backends)
        bench = BackendBench(case.problem, backends[0], proven_only, {})
    referee = Referee(case)
    if blocks is None:
        entries = _entries(bench, referee)
    else:
        entries = laws_of_blocks(case, bench, blocks, proven_only, workers, scheduler)
    said = [f"of {what}, {why}" for what, why in bench.lacks.items()] + ([] if blocks is None else [LEFT_OUT])
    if said:
        cause = f"{entries[0].cause}; laws left out: {', '.join(said)}".removeprefix("; ")
        entries[0] = replace(entries[0], cause=cause)
    if blocks is not None:
        return Report(tuple(entries), context_of_blocks(case, blocks, backends, [], False))
    return Report(tuple(entries), context_of(referee, case.data, backends))


def _entries(bench: Bench, referee: Referee) -> list[Entry]:
    """Return an entry for each law and parameter, on data in memory."""
    entries = _misfits(bench, referee)
    if not entries:
        try:
            for claim in _claims(bench, referee):
                entries += [_judged(claim, each, bench.name, referee.dtype) for each in claim.actual]
        except UnfitError as error:
            entries += error.entries
    return entries


def _own_bench(
    case: Case, function: Implementation, per_sample: RowsFunction | None, name: str | None, proven_only: bool
) -> Bench:
    case.backends([])
    if case.problem.derived:
        case.check_derivation()  # its budget counts, too
    if (fits := getattr(function, "fits", None)) is not None:  # a native model's
        fits(case.params)
    name = name or str(getattr(function, "__name__", "mine"))
    rows = per_sample or getattr(function, "per_sample", None)
    return OwnBench(name, function, rows, case.dtype, proven_only)


def _judged_backend(backend: Any, per_sample: object, name: str | None, dtype: str | None) -> Backend[Any]:
    if isinstance(backend, type) or not (isinstance(backend, str) or hasattr(backend, "value_and_grad")):
        raise TypeError(
            "laws are checked on a backend, its name, or a function f(params, features, targets) -> "
            f"(loss, {{name: gradient}}), not on {backend!r}"
        )
    if per_sample is not None or name is not None:
        raise ValueError("per_sample and name go with an implementation: a backend has its own")
    return as_backend(backend, dtype or "float64")


def _refuse_no_function(per_sample: object) -> None:
    if per_sample is not None and (isinstance(per_sample, type) or not callable(per_sample)):
        raise TypeError(
            f"per_sample is a function f(params, features, targets) -> {{name: (n, *shape)}}, not {per_sample!r}"
        )


def _misfits(bench: Bench, referee: Referee) -> list[Entry]:
    """Return an entry for each gradient of all rows, and of each, whose name or shape is wrong."""
    entries = []
    for ask in (
        lambda: bench.batch("all rows", referee),
        lambda: None if "per-sample gradients" in bench.lacks else bench.rows(referee),
    ):
        try:
            ask()
        except UnfitError as error:
            entries += error.entries
    return entries


def _claims(bench: Bench, referee: Referee) -> Iterator[_Claim]:
    n, data = len(referee.features), referee.data
    own = np.ones(n) if data.weights is None else data.weights.astype(np.float64)
    if "per-sample gradients" not in bench.lacks:
        yield from _claims_about_rows(bench, referee)

    def part(start: int, stop: int, reduction: Reduction = "mean") -> Part:
        rows = slice(start, stop)
        weight = float(np.sum(own[rows])) if reduction == "mean" else 1.0
        return bench.batch(f"rows {start} to {stop - 1}", referee.on(data.rows(rows), reduction), weight)

    def partition(*sizes: int) -> list[tuple[int, int]]:
        ends = [0, *np.cumsum(sizes).tolist()]
        return [(start, stop) for start, stop in pairwise(ends) if own[start:stop].any()]

    sizes = [size for size in (n // 2, (n - n // 2) // 2, n - n // 2 - (n - n // 2) // 2) if size]
    yield _combined(f"partition {' + '.join(map(str, sizes))}", referee, [part(*each) for each in partition(*sizes)])

    order = np.random.default_rng(0).permutation(n)
    yield _combined("permutation", referee, [bench.batch("all rows", referee.on(data.rows(order)))])
    twice = np.tile(np.arange(n), 2)
    yield _combined("duplication", referee, [bench.batch("all rows, twice", referee.on(data.rows(twice)))])

    if "sums" not in bench.lacks:
        whole = referee.on(data, "sum")
        yield _combined("sum = n x mean", whole, [bench.batch("all rows", whole)])
        halves = partition(*(size for size in (n // 2, n - n // 2) if size))
        parts = [part(start, stop, "sum") for start, stop in halves]
        law = f"accumulated sums {' + '.join(str(stop - start) for start, stop in halves)}"
        yield _combined(law, whole, parts, total=1.0)

    weights = np.where(np.arange(n) % 2, 3.0, 1.0)  # 1, 3, 1, 3, ...: with 4 - w, the others, they add up to equal ones
    if n % 2:
        weights[-1] = 2.0  # so that the copies are 2 n rows, as the duplicates are
    weighted = Dataset(data.features, data.targets, weights=own * weights)
    if "weights" not in bench.lacks:
        others = Dataset(data.features, data.targets, weights=own * (4 - weights))
        parts = [
            bench.batch(name, referee.on(each), float(own @ w))
            for name, each, w in (("weights w", weighted, weights), ("weights 4 - w", others, 4 - weights))
        ]
        yield _combined("linearity in the loss", referee, parts)
    copies = referee.on(data.rows(np.repeat(np.arange(n), weights.astype(np.intp))))
    yield _combined("copies for weights", referee.on(weighted), [bench.batch("copies", copies)])

    if "weights" not in bench.lacks and own[:-1].any():
        padded = Dataset(data.features, data.targets, weights=np.append(own[:-1], 0.0))
        yield _combined(
            "padding with weight 0", referee.on(data.rows(slice(n - 1))), [bench.batch("padded", referee.on(padded))]
        )

    first = data.rows(slice(0, min(n, _FIRST_ROWS)))
    if first.weights is None or first.weights.all():
        yield from _claims_about_batches(bench, referee.on(first))


def _claims_about_rows(bench: Bench, referee: Referee) -> Iterator[_Claim]:
    """The mean of the per-sample gradients, and where they are judged one by one, each beside the size of all."""
    rows, shares = bench.rows(referee)
    mixed = {name: weighted_mean(rows.gradient[name], shares, rows.allowed[name].budget) for name in rows.gradient}
    yield _claim("mean of per-sample gradients", mixed, referee, [rows])
    if bench.rows_are_judged:
        usual = {name: np.mean(np.abs(truth.mid), axis=0) for name, truth in rows.truths.items()}
        allowed = {
            name: replace(each, scale=np.fmax(usual[name], 0.0 if each.scale is None else each.scale))
            for name, each in rows.allowed.items()
        }
        actual = {name: value.astype(np.float64) for name, value in rows.gradient.items()}
        yield _Claim("each per-sample gradient", actual, rows.truths, allowed, [rows])


def _claims_about_batches(bench: Bench, referee: Referee) -> Iterator[_Claim]:
    """Unbiasedness and the variance law, by enumerating all batches of half of these rows."""
    m, data = len(referee.features), referee.data
    if m < 2:
        return
    b = m // 2
    own = np.ones(m) if data.weights is None else data.weights.astype(np.float64)
    batches = [
        bench.batch(f"rows {list(rows)}", referee.on(data.rows(list(rows))), float(np.sum(own[list(rows)])))
        for rows in combinations(range(m), b)
    ]
    yield _combined(f"unbiased: all {len(batches)} batches of {b} in {m}", referee, batches)
    if data.weights is not None:
        return
    actual = {}
    allowed: dict[str, Allowance] = {}
    truths: dict[str, Truth] = {}
    for name, rows in referee.row_truths.items():
        if rows.kinks.any():
            return  # the variance of a set is no number
        gradients = np.stack([batch.gradient[name].astype(np.float64) for batch in batches])
        off = np.max([batch.allowed[name].budget for batch in batches], axis=0)
        actual[name], budget = _variance(gradients, off)
        spread, error = _variance(rows.mid, 2.0**-53 * np.abs(rows.mid).max(axis=0))  # mid is the nearest float64
        factor = (m - b) / (b * (m - 1))
        known = Known(factor * spread, factor * error + 2.0**-50 * factor * spread)
        truths[name] = known
        scale = np.maximum(known.mid, np.mean(gradients**2, axis=0))  # what the squares of the gradients amount to
        sampled = any(batch.allowed[name].grade == "sampled" for batch in batches)
        allowed[name] = Allowance(
            budget + 2 * known.error,  # the right side is computed, too
            scale,
            "sampled" if sampled else "proven",
            _unsaid,
        )
    yield _Claim("variance of these batches", actual, truths, allowed, batches)


@np.errstate(invalid="ignore", over="ignore")
def _variance(values: Floats, off: Floats) -> tuple[Floats, Floats]:
    """Return `1/k sum (v_i - mean)^2` over the first axis, and how far off it may be if each v_i may be by `off`."""
    deviations = values - np.mean(values, axis=0)
    moved = 2 * off + 2.0**-52 * (len(values) + 2) * np.abs(values).max(axis=0)  # v_i, and the mean, rounding included
    variance = np.mean(deviations**2, axis=0)
    error = 2 * np.mean(np.abs(deviations), axis=0) * moved + moved**2
    return variance, error + 2.0**-52 * (len(values) + 4) * variance


def _combined(law: str, referee: Referee, parts: Sequence[Part], total: float | None = None) -> _Claim:
    """The parts' gradients, weighted by their counts, should be the gradient of the whole."""
    counts = np.array([part.count for part in parts])

    def budgets(name: str) -> Floats:
        return np.stack([part.allowed[name].budget for part in parts])

    mixed = {
        name: weighted_mean(
            [p.gradient[name] for p in parts], counts, np.stack([p.allowed[name].budget for p in parts]), total
        )
        for name in referee.params
    }
    return _claim(law, mixed, referee, parts)


def _claim(law: str, mixed: Mapping[str, tuple[Floats, Floats]], referee: Referee, parts: Sequence[Part]) -> _Claim:
    actual = {name: value for name, (value, _) in mixed.items()}
    allowed = {
        name: replace(
            allowance_within(referee.truths[name], budget, partial(_magnitude, referee, name)),
            grade="sampled" if any(part.allowed[name].grade == "sampled" for part in parts) else "proven",
            why=partial(referee.why_unresolved, name),
        )
        for name, (_, budget) in mixed.items()
    }
    return _Claim(law, actual, referee.towards(actual, budgets_of(allowed)), allowed, parts)


def _magnitude(referee: Referee, name: str) -> Floats:
    return referee.magnitudes[name]


def _unsaid(_: Any) -> str:
    return "what the parts may be off by adds up"


def _judged(claim: _Claim, name: str, who: str, dtype: str) -> Entry:
    entry = compare(who, name, claim.actual[name], claim.truths[name], claim.allowed[name], dtype, claim.law)
    return entry if entry.verdict == "agree" else replace(entry, cause=_blame(claim, name) or entry.cause)


def _blame(claim: _Claim, name: str) -> str:
    """Name the parts that are wrong by themselves: the samples, or the batches, and by what factor."""
    if claim.parts[0].name == "rows":
        return blamed_rows(claim.parts[0], name)
    guilty = []
    for part in claim.parts:
        truth, found = part.truths[name], part.gradient[name].astype(np.float64)
        if (truth.distance(found)[0] > part.allowed[name].budget).any():
            finite = np.isfinite(found).all()
            how = f"{number(ratio(found, truth.mid), 10)} times the truth" if finite else "not finite"
            guilty.append(f"{part.name} ({how})")
    return f"wrong in {len(guilty)} of {len(claim.parts)} batches: {some(guilty)}" if guilty else ""
