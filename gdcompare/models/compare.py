"""Two networks, or more, side by side at one point: losses, gradients, per-sample gradients and layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gdcompare.backend import Precision, checked_dtype
from gdcompare.models.answers import all_rounding, different_functions, undecided, wrong_gradients
from gdcompare.models.comparison import OWN, ROWS, Comparison, Evidence
from gdcompare.models.estimate import BUDGET, EITHER, by_little, judged_arrays, measure, measured_inside
from gdcompare.models.function_of import functions_of
from gdcompare.models.layers import Places, compared_layers, layer_places
from gdcompare.models.native import Native
from gdcompare.models.sides import ROWS_TRIED, Data, Point, Side, point_of, sides_of
from gdcompare.models.true_layers import wrong_behind
from gdcompare.models.truth import Truth, truth_of
from gdcompare.problem import Dataset
from gdcompare.referee.verdict import Entry

ROWS_WATCHED = 32


def compare(
    models: Sequence[Native],
    data: Data,
    *,
    dtype: str = "float64",
    layers: Places | Mapping[str, Places] | None = None,
    rows: int = ROWS_WATCHED,
) -> Comparison:
    """Compare models that should compute the same: their losses, gradients, per-sample gradients and layers.

    A model whose program can be read from its framework's graph is judged by the truth of that, and the truths of two
    models are set beside each other: `answers` says whose gradient is wrong, which are different functions and first at
    which layer, or that all is rounding. Where some program cannot be read, the models are also compared with each
    other, by an estimate of what rounding does; `evidence` says which it was, and why.

    The first model is the source: the others are loaded from its values through their layouts, and what is compared
    with it is reported in its names; what is compared with a model's own truth, in the model's. `data` is a Dataset, or
    a pair (features, targets) of arrays of any shape with a row for each sample; integers, such as tokens and labels,
    stay integers for models that take them. Per-sample gradients are compared for the first `rows` samples. Layers are
    recorded for one sample: one whose gradient differs, if there is any. A model whose loss couples its rows, as batch
    normalisation and contrastive losses do, is noticed: then the gradient and the layers of the whole batch are
    compared, and no per-sample gradients.

    Layers correspond if they have the same name, or if `layers` says so: `{source's name: own name}`, or
    `{source's name: (own name, function)}` with a function that moves elements from the source's array to the model's,
    such as `lambda a: np.moveaxis(a, 0, -1)` from (channels, height, width) to (height, width, channels). With more
    than two models, `{model's name: such a mapping}`.

    Two models that differ by the estimate are both suspect. With three or more, the odd one out is named.

    Raises ValueError for models, parameters, layers or data that do not fit.

    >>> import gdcompare as gdc
    >>> def loss(p, features, targets):
    ...     return ((features @ p["w"] - targets) ** 2).mean()
    >>> def slope(p, features, targets):
    ...     return {"w": 2 * (features @ p["w"] - targets) @ features / len(targets)}
    >>> def halved(p, features, targets):
    ...     return {"w": slope(p, features, targets)["w"] / 2}
    >>> one, other = (gdc.from_functions(loss, each, {"w": [0.7]}) for each in (slope, halved))
    >>> report = compare([one, other], gdc.datasets.noisy_line())
    >>> report.verdict, report.entries[1].parameter, report.entries[1].cause
    ('wrong', 'w', 'a constant factor 1/2 in the value; of two that differ, either may be at fault')
    """
    sides, precision = sides_of(models), checked_dtype(dtype)
    point = point_of(sides[0], data, precision)
    if isinstance(rows, bool) or not isinstance(rows, int | np.integer) or rows < 0:
        raise ValueError(f"rows must be a whole number, 0 or above, not {rows!r}")
    return compared_at(sides, point, int(rows), layer_places(sides, layers), context_of(sides, data, point, precision))


def compared_at(
    sides: Sequence[Side], point: Point, rows: int, places: Mapping[str, Places], context: Mapping[str, Any]
) -> Comparison:
    """Return the comparison at one point, its layers at the first row whose gradients differ."""
    dtype = checked_dtype(context["dtype"])
    coupled = {side.name: how for side in sides if (how := side.coupling(point, rows))}
    # A truth is that of samples: whether the rows are some is asked though none is watched.
    mixed = coupled if rows > 1 else {side.name: side.coupling(point, ROWS_TRIED) for side in sides}
    truths = {side.name: truth_of(side, point, mixed.get(side.name, ""), context["data"]) for side in sides}
    known = [truth for truth in truths.values() if isinstance(truth, Truth)]
    evidence = [
        Evidence(name, "estimate", each) if isinstance(each, str) else Evidence(name, "truth")
        for name, each in truths.items()
    ]
    entries = [entry for truth in known for entry in truth.judged()]
    functions = functions_of(known, dtype) if len(known) > 1 else None
    entries += functions.entries if functions else ()
    every = len(known) == len(sides)
    seen: list[str] = []
    if every:
        entries += [entry for truth in known for entry in truth.rows_judged(0 if coupled else rows)]
        if rows and not coupled and not any(entry.law == ROWS for entry in entries):
            seen = ["the gradients of single samples are not judged: they take too many operations to enclose"]
    by_truth = list(entries)
    if not every:
        estimates, seen = _estimated(sides, point, 0 if coupled else rows, dtype)
        entries += [_beside_the_right(entry, entries, sides) for entry in estimates]
    wrong = [entry for entry in entries if entry.verdict == "wrong"]
    row = next((entry.worst_index[0] for entry in wrong if entry.law == ROWS and entry.worst_index), 0)
    at = point if coupled else point.row(row)
    true = functions.layers(known, at, dtype) if functions and every else lambda _: {}
    layers, remarks = compared_layers(sides, at, places, dtype, true)
    if wrong:
        remarks += [f"of {side.name!r}: {said}" for side in sides if (said := side.hints(point))]
    faulty = {entry.implementation for entry in by_truth if entry.verdict == "wrong" and entry.law in (OWN, ROWS)}
    begins = {each.name: wrong_behind(each.side, at) for each in known if each.name in faulty}
    answers = wrong_gradients(by_truth, begins)
    if functions:
        causes = functions.causes(known)
        answers += different_functions(functions.reference.name, functions.found, causes, by_truth, layers)
    answers += undecided(by_truth)
    if every and functions and not answers:
        answers = [all_rounding([side.name for side in sides], functions.found, by_truth)]
    remarks = [*_coupled(sides, coupled), *seen, *remarks]
    return Comparison(tuple(entries), context, tuple(layers), tuple(remarks), tuple(answers), tuple(evidence))


def _beside_the_right(entry: Entry, own: Sequence[Entry], sides: Sequence[Side]) -> Entry:
    """Say of two that differ which of them has the gradient of its own program, if one is known to have."""
    right = [
        side.name
        for side in sides
        if (mine := [each.verdict for each in own if each.implementation == side.name and each.law == OWN])
        and set(mine) == {"agree"}
    ]
    if len(sides) != 2 or len(right) != 1 or not entry.cause.endswith(EITHER):
        return entry
    known = f"{right[0]!r} has the gradient of its own program; the other is not right, or another function"
    return replace(entry, cause=entry.cause.removesuffix(EITHER) + known)


def _estimated(sides: Sequence[Side], point: Point, rows: int, dtype: Precision) -> tuple[list[Entry], list[str]]:
    """Compare the models with each other by what moved inputs change; and say if what rounds inside was looked at."""
    runs = {side.name: partial(side.outputs, rows=rows) for side in sides}
    found = {name: measure(run, point) for name, run in runs.items()}
    entries = judged_arrays(found, dtype, point)
    if not by_little(entries, found, dtype):
        return entries, []
    found = {name: measured_inside(run, point, found[name]) for name, run in runs.items()}
    other = "float32" if dtype == "float64" else "float64"
    return judged_arrays(found, dtype, point), [f"rounding inside the models is seen by runs in {other}, too"]


def _coupled(sides: Sequence[Side], coupled: Mapping[str, str]) -> list[str]:
    """Say whose losses couple their rows, and whose do not."""
    if not coupled:
        return []
    said = [f"the loss of {name!r} couples its rows: {how}" for name, how in coupled.items()]
    if others := [repr(side.name) for side in sides if side.name not in coupled]:
        said.append(f"that of {' and '.join(others)} does not")
    return [*said, "compared by the gradient of the batch, and not row by row"]


def context_of(sides: Sequence[Side], data: Data, point: Point, dtype: str) -> dict[str, Any]:
    """Return what the results depend on, as plain values."""
    return {
        "problem": ", ".join(side.name for side in sides),
        "data": data.name if isinstance(data, Dataset) else "data",
        "n": len(point.features),
        "d": math.prod(point.features.shape[1:]),
        "dtype": dtype,
        "budget": BUDGET,
    }
