"""Two networks, or more, side by side: losses, gradients, per-sample gradients, layers, and the steps of a training.

There is no formula here, so no proven truth: the models judge each other. How far apart rounding alone may take them is
ESTIMATED. Every model is run again on inputs and parameters moved by one unit in the last place, up or down at random;
with s the largest change that this makes in an element, in either of two models, over all draws,

    budget = 16 max(s, root mean square of s over the array) + 8 u max |array|

where u is the unit roundoff. The first term follows how the models amplify rounding. The mean in it, and the second
term, are there so that an element that happened not to move is not given 0, nor one that is small because it is
rounding. Zeros stay where they are, and so do features and targets that are whole numbers: they may be labels or
tokens.

What no input moves is not estimated: where every row is deep in the flat part of a tanh, 1 - tanh^2 is all rounding,
and two right programs may be called different.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.backend import Precision, checked_dtype, unit_roundoff
from gdcompare.descent import progress_bar
from gdcompare.native import Layer, Matching, Native, match
from gdcompare.problem import Dataset
from gdcompare.referee import verdict
from gdcompare.referee.diagnosis import Evidence, cause_of
from gdcompare.referee.verdict import Entry, Floats, Known, Report, detectable_fault
from gdcompare.rules import Rule, sgd
from gdcompare.sampling import RowStream

Data: TypeAlias = "Dataset | tuple[ArrayLike, ArrayLike]"
Move: TypeAlias = Callable[[NDArray[Any]], Any]
Places: TypeAlias = "Mapping[str, str | tuple[str, Move]]"
Arrays: TypeAlias = dict[str, NDArray[Any]]
Key: TypeAlias = tuple[str, str]
"""What kind of array it is, as in `Entry.law`, and its name."""

DRAWS = 4
SAFETY = 16.0
FLOOR = 8.0
BUDGET = f"estimated, not proven: {SAFETY:g} times what one unit in the last place of the inputs changes, {DRAWS} draws"

LOSS = "loss"
GRADIENT, ROWS, FORWARD, BACKWARD = "", "per sample", "forward", "backward"


_ROWS = 32

_SHARE = 1e-3
"""What is detectable is stated for elements of at least this share of the largest; smaller ones are mostly rounding."""


@dataclass(frozen=True)
class Comparison(Report):
    """What several models say of the same loss: a report whose budgets are estimated.

    `expected` in an entry is what the source says, or the majority where there is one. `detectable` is the smallest
    relative fault that would have been noticed in any element of at least a thousandth of its array's largest.
    """

    layers: tuple[Entry, ...] = ()
    """The layers known on both sides: values in order of execution, then cotangents from the loss down.

    They explain the verdict and have no part in it: layers of one name need not be the same thing.
    """

    @property
    def first_difference(self) -> Entry | None:
        """The first layer, forward and then backward, whose values differ beyond rounding."""
        return next((entry for entry in self.layers if entry.verdict == "wrong"), None)

    def explanation(self) -> str:
        """Return the report's lines, the first layer that differs, and what kind of budget it was.

        Per-sample gradients are told of where the others agree: otherwise they only repeat it.
        """
        lines = Report.explanation(self).splitlines()
        if any(entry.verdict != "agree" for entry in self.entries if entry.law == GRADIENT):
            lines = [line for line in lines if f": {ROWS}: " not in line]
        if (first := self.first_difference) is not None:
            lines.append(_first_layer(first))
        elif self.layers:
            lines.append(f"no difference in {len({entry.parameter for entry in self.layers})} layers")
        return "\n".join([*lines, f"budgets are {self.context['budget']}"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        first = self.first_difference
        return Report.to_dict(self) | {
            "layers": [asdict(entry) for entry in self.layers],
            "first_difference": None if first is None else asdict(first),
        }


def _first_layer(first: Entry) -> str:
    place = f"[{', '.join(map(str, first.worst_index))}]" if first.worst_index else ""
    return (
        f"first layer to differ: {first.parameter}{place}, {first.law}: {first.implementation} has "
        f"{first.actual!r} for {first.expected!r}; {first.cause}"
    )


@dataclass(frozen=True)
class Training(Report):
    """How several models go through the same steps of a training: an entry for the loss and for each parameter.

    An entry that is wrong is that of its first bad step; of one that agrees, it is that of the step nearest to the
    budget.
    """

    first_bad_step: int | None = None
    """The first step, counted from 0, at which anything differs beyond rounding."""
    there: Comparison | None = field(default=None, repr=False)
    """The comparison of the models at that step, with their layers; None without `resync`."""
    losses: Mapping[str, Floats] = field(default_factory=dict, repr=False)
    """`{model: (steps,)}`: the loss that each step met."""
    apart: Mapping[str, Floats] = field(default_factory=dict, repr=False)
    """`{model: (steps,)}`: the largest difference from the source, as a share of that array's largest magnitude.

    Of the gradients at the same parameters with `resync`; of the parameters after the step without.
    """

    def explanation(self) -> str:
        """Return the report's lines, the first bad step, and what kind of budget it was."""
        lines = [Report.explanation(self)]
        if self.first_bad_step is not None:
            bad = sorted({entry.parameter for entry in self.entries if entry.law == f"step {self.first_bad_step}"})
            lines.append(f"first bad step: {self.first_bad_step} of {self.context['steps']}, in {', '.join(bad)}")
        if self.context["steps_done"] < self.context["steps"]:
            lines.append(f"interrupted after {self.context['steps_done']} of {self.context['steps']} steps")
        if self.there is not None and self.there.first_difference is not None:
            lines.append(_first_layer(self.there.first_difference))
        return "\n".join([*lines, f"budgets are {self.context['budget']}"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        return Report.to_dict(self) | {
            "first_bad_step": self.first_bad_step,
            "there": None if self.there is None else self.there.to_dict(),
            "losses": dict(self.losses),
            "apart": dict(self.apart),
        }


def compare(
    models: Sequence[Native],
    data: Data,
    *,
    dtype: str = "float64",
    layers: Places | Mapping[str, Places] | None = None,
    rows: int = _ROWS,
) -> Comparison:
    """Compare models that should compute the same: their losses, gradients, per-sample gradients and layers.

    The first model is the source: the others are loaded from its values through their layouts, and everything is
    reported in its names. `data` is a Dataset, or a pair (features, targets) of arrays of any shape with a row for
    each sample. Per-sample gradients are compared for the first `rows` samples. Layers are recorded for one sample: one
    whose gradient differs, if there is any.

    Layers correspond if they have the same name, or if `layers` says so: `{source's name: own name}`, or
    `{source's name: (own name, function)}` with a function that moves elements from the source's array to the model's,
    such as `lambda a: np.moveaxis(a, 0, -1)` from (channels, height, width) to (height, width, channels). With more
    than two models, `{model's name: such a mapping}`.

    Two models that differ are both suspect. With three or more, the odd one out is named.

    Raises ValueError for models, parameters, layers or data that do not fit.

    >>> import gdcompare as gdc
    >>> def loss(p, features, targets):
    ...     return ((features @ p["w"] - targets) ** 2).mean()
    >>> def slope(p, features, targets):
    ...     return {"w": 2 * (features @ p["w"] - targets) @ features / len(targets)}
    >>> def halved(p, features, targets):
    ...     return {"w": slope(p, features, targets)["w"] / 2}
    >>> one, other = (gdc.from_functions(loss, each, {"w": [0.5]}) for each in (slope, halved))
    >>> report = compare([one, other], gdc.datasets.noisy_line())
    >>> report.verdict, report.entries[1].parameter, report.entries[1].cause
    ('wrong', 'w', 'a constant factor 1/2 in the value; of two that differ, either may be at fault')
    """
    sides, precision = _sides(models), checked_dtype(dtype)
    point = _point(sides[0], data, precision)
    if isinstance(rows, bool) or not isinstance(rows, int | np.integer) or rows < 0:
        raise ValueError(f"rows must be a whole number, 0 or above, not {rows!r}")
    return _compared(sides, point, int(rows), _places(sides, layers), _context(sides, data, point, precision))


def compare_training(
    models: Sequence[Native],
    data: Data,
    steps: int,
    rule: Rule = sgd(0.01),  # noqa: B008 - a rule is immutable
    batch_size: int | None = None,
    resync: bool = True,
    *,
    layers: Places | Mapping[str, Places] | None = None,
    seed: int = 0,
    dtype: str = "float64",
    progress: bool | None = None,
) -> Training:
    """Take every model through the same steps on the same rows, with one update rule, and find the first bad step.

    The first model is the source, as in `compare`. With `resync`, each step begins at the source's parameters for all,
    so that errors do not accumulate: the gradients of a step are compared, and the first bad step is where the models
    part; there, layers are compared, too. Without, each model goes its own way by its own gradients, and the parameters
    are compared: how far apart rounding may take them grows on the way, and is estimated from descents that begin a
    unit in the last place away.

    Interrupted by Ctrl-C, it returns the steps so far, `context["steps_done"]` of them.

    Rows are drawn as in `descend`, from the same `seed`; `progress` shows a bar on stderr, None where it is a terminal.

    >>> import gdcompare as gdc
    >>> def loss(p, features, targets):
    ...     return ((features @ p["w"] - targets) ** 2).mean()
    >>> def slope(p, features, targets):
    ...     return {"w": 2 * (features @ p["w"] - targets) @ features / len(targets)}
    >>> def clipped(p, features, targets):
    ...     return {"w": np.minimum(slope(p, features, targets)["w"], 3.0)}
    >>> one, other = (gdc.from_functions(loss, each, {"w": [0.5]}) for each in (slope, clipped))
    >>> data = gdc.Dataset([[1.0], [2.0], [0.5], [4.0]], [1.0, 2.0, 0.5, -1.0])
    >>> report = compare_training([one, other], data, steps=8, batch_size=1)
    >>> report.verdict, report.first_bad_step
    ('wrong', 3)
    """
    sides, precision = _sides(models), checked_dtype(dtype)
    point = _point(sides[0], data, precision)
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps must be a whole number, 1 or above, not {steps!r}")
    context = _context(sides, data, point, precision) | {"steps": int(steps), "resync": resync}
    places = _places(sides, layers)
    walk = _Together(sides, point, rule) if resync else _Apart(sides, point, rule)
    batches = _batches(len(point.features), batch_size, seed, int(steps))
    losses: dict[str, list[float]] = {side.name: [] for side in sides}
    apart: dict[str, list[float]] = {side.name: [] for side in sides}
    kept: dict[tuple[str, str], Entry] = {}
    first_bad, there = None, None
    done = 0
    try:
        with progress_bar(int(steps), progress, "training") as advance:
            for step, batch in enumerate(batches):
                found, where = walk.step(step, batch)
                for entry in _judged(found, precision, where):
                    _keep(kept, replace(entry, law=f"step {step}"))
                    if entry.verdict != "agree" and first_bad is None:
                        first_bad = step
                        there = None if where is None else _compared(sides, where, _ROWS, places, context)
                for name, measured in found.items():
                    losses[name].append(float(measured[GRADIENT, LOSS].value))
                    apart[name].append(_share_apart(measured, found[sides[0].name]))
                done = step + 1
                advance(1)
    except KeyboardInterrupt:
        if not done:
            raise
    arrays = [{name: np.array(values[:done]) for name, values in each.items()} for each in (losses, apart)]
    return Training(tuple(kept.values()), context | {"steps_done": done}, first_bad, there, *arrays)


def _compared(
    sides: Sequence[_Side], point: _Point, rows: int, places: Mapping[str, Places], context: Mapping[str, Any]
) -> Comparison:
    dtype = checked_dtype(context["dtype"])
    found = {side.name: _measured(partial(side.outputs, rows=rows), point) for side in sides}
    entries = _judged(found, dtype, point)
    wrong = (entry.worst_index for entry in entries if entry.law == ROWS and entry.verdict == "wrong")
    row = next((index[0] for index in wrong if index), 0)
    return Comparison(tuple(entries), context, tuple(_layers(sides, point.row(row), places, dtype)))


class _Point(NamedTuple):
    """The source's parameters, and the rows."""

    params: Arrays
    features: NDArray[Any]
    targets: NDArray[Any]

    def at(self, rows: Any) -> _Point:
        return self._replace(features=self.features[rows], targets=self.targets[rows])

    def row(self, row: int) -> _Point:
        return self.at(slice(row, row + 1))

    def moved(self, draw: int) -> _Point:
        """Move each number by one unit in the last place, up or down; not zeros, not whole features and targets."""
        generator = np.random.default_rng(draw)
        params = {name: _moved(value, generator) for name, value in self.params.items()}
        rows = [each if (each == np.rint(each)).all() else _moved(each, generator) for each in self[1:]]
        return _Point(params, *rows)


def _moved(values: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    ends = generator.choice(np.array([-math.inf, math.inf], dtype=values.dtype), values.shape)
    return np.where(values == 0, values, np.nextafter(values, ends))


@dataclass(frozen=True, eq=False)
class _Side:
    """One model, loaded from the source."""

    model: Native
    matching: Matching

    @property
    def name(self) -> str:
        return self.model.name

    def outputs(self, point: _Point, rows: int = 0) -> dict[Key, NDArray[Any]]:
        """Return loss and gradients in the source's names, and the per-sample gradients of the first few rows."""
        own = self.matching.load(point.params)
        try:
            loss, own_gradient = self.model.value_and_grad(own, point.features, point.targets)
            gradient = self.matching.in_source(own_gradient)
        except Exception as error:
            given = f"features {point.features.shape}, targets {point.targets.shape}"
            raise ValueError(f"{self.name!r} fails on these data, {given}: {type(error).__name__}: {error}") from error
        found = {(GRADIENT, LOSS): _scalar(loss, self.name)}
        found |= {(GRADIENT, name): value for name, value in gradient.items()}
        if rows:
            each = self.model.per_sample_grad(own, point.features[:rows], point.targets[:rows])
            found |= {(ROWS, name): value for name, value in self.matching.in_source(each).items()}
        return found

    def layers(self, point: _Point) -> list[Layer]:
        """Return what the model's layers compute for this row."""
        return self.model.layers(self.matching.load(point.params), point.features, point.targets)


class _Measured(NamedTuple):
    """An array, and how far each element moves when the inputs do."""

    value: Floats
    spread: Floats


Found: TypeAlias = "dict[str, dict[Key, _Measured]]"
"""What each model says."""


def _sides(models: Sequence[Native]) -> list[_Side]:
    for model in models:
        if not isinstance(model, Native):
            raise ValueError(
                f"{model!r} is no native model; make one with from_module, from_function or from_functions"
            )
    names = [model.name for model in models]
    if len(names) < 2:
        raise ValueError(f"a comparison takes two models or more, not {len(names)}")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"several models are named {min(twice)!r}; give them names of their own, name=...")
    source, *others = models
    values = source.parameters
    if not values:
        raise ValueError(f"the first model is the source of values, and {source.name!r} has none; put another first")
    shapes = {name: value.shape for name, value in values.items()}
    return [_Side(source, match(shapes, shapes)), *(_Side(each, each.matching(values)) for each in others)]


def _point(source: _Side, data: Data, dtype: Precision) -> _Point:
    if isinstance(data, Dataset) and data.weights is not None:
        raise ValueError(f"native models take no sample weights, and {data.name!r} has some")
    features, targets = (data.features, data.targets) if isinstance(data, Dataset) else map(np.asarray, data)
    if features.ndim == 0 or targets.ndim == 0 or len(features) != len(targets) or len(features) == 0:
        raise ValueError(f"features {features.shape} and targets {targets.shape} must have a row for each sample")
    for what, values in [("features", features), ("targets", targets), *source.model.parameters.items()]:
        if not np.isfinite(values).all():
            raise ValueError(f"{what!r} holds numbers that are not finite; a comparison begins with finite ones")
    params = {name: value.astype(dtype) for name, value in source.model.parameters.items()}
    return _Point(params, features.astype(dtype), targets.astype(dtype))


def _context(sides: Sequence[_Side], data: Data, point: _Point, dtype: str) -> dict[str, Any]:
    return {
        "problem": ", ".join(side.name for side in sides),
        "data": data.name if isinstance(data, Dataset) else "data",
        "n": len(point.features),
        "d": math.prod(point.features.shape[1:]),
        "dtype": dtype,
        "budget": BUDGET,
    }


def _scalar(loss: Any, name: str) -> NDArray[Any]:
    value = np.asarray(loss)
    if value.size != 1:
        raise ValueError(f"the loss of {name!r} has shape {value.shape}; it must be one number, the mean over the rows")
    return value.reshape(())


# The budget, and the judgement


def _measured(run: Callable[[_Point], dict[Key, NDArray[Any]]], point: _Point) -> dict[Key, _Measured]:
    """Run once as it is, and a few times on moved inputs."""
    with np.errstate(all="ignore"):
        values = {key: np.asarray(value, dtype=np.float64) for key, value in run(point).items()}
        spreads = {key: np.zeros(value.shape) for key, value in values.items()}
        for draw in range(DRAWS):
            for key, value in run(point.moved(draw)).items():
                spreads[key] = np.maximum(spreads[key], np.abs(value - values[key]))  # NaN stays NaN
    return {key: _Measured(value, spreads[key]) for key, value in values.items()}


def _budget(one: _Measured, other: _Measured, dtype: Precision) -> Floats:
    """16 max(s, root mean square of s) + 8 u max |array|."""
    spread = np.maximum(one.spread, other.spread)
    spread = np.where(np.isnan(spread), math.inf, spread)
    mean = np.sqrt(np.mean(spread**2))
    largest = np.max(np.maximum(np.abs(one.value), np.abs(other.value)))
    budget = SAFETY * np.maximum(spread, mean) + FLOOR * unit_roundoff(dtype) * largest
    return np.asarray(budget)


def _agree(one: _Measured, other: _Measured, dtype: Precision) -> bool:
    if not (np.isfinite(one.value).all() and np.isfinite(other.value).all()):
        return False
    return bool((np.abs(one.value - other.value) <= _budget(one, other, dtype)).all())


def _judged(found: Found, dtype: Precision, point: _Point | None) -> list[Entry]:
    """Return an entry for each array and each model but the one that the others are measured by."""
    source = next(iter(found))
    entries = []
    for key in found[source]:
        measured = {name: arrays[key] for name, arrays in found.items()}
        for entry in _judged_array(key, measured, dtype):
            if entry.verdict == "wrong" and point is not None:
                truth = measured[_reference(measured, dtype)[0]]
                why = _why(key, truth, measured[entry.implementation], found, dtype, point)
                entry = replace(entry, cause=f"{why}; {entry.cause}" if why else entry.cause)
            entries.append(entry)
    return entries


def _judged_array(key: Key, measured: Mapping[str, _Measured], dtype: Precision) -> list[Entry]:
    law, name = key
    reference, blame = _reference(measured, dtype)
    truth = measured[reference]
    entries = []
    for model, each in measured.items():
        if model == reference:
            continue
        budget = _budget(truth, each, dtype)
        entry = verdict.compare(model, name, each.value, Known(truth.value), budget, dtype, law)
        if not (np.isfinite(truth.value).all() and np.isfinite(each.value).all()):
            entry = _not_finite(entry, reference, truth.value, each.value)
        size = np.abs(truth.value)
        known = np.where((size > budget) & (size >= _SHARE * np.max(size)), truth.value, 0.0)
        entry = replace(entry, detectable=detectable_fault(known, budget))
        entries.append(entry if entry.verdict != "wrong" or entry.cause else replace(entry, cause=blame))
    return entries


def _reference(measured: Mapping[str, _Measured], dtype: Precision) -> tuple[str, str]:
    """Return whom the others are measured by, and what it means to differ from it."""
    names = list(measured)
    if len(names) == 2:
        return names[0], "of two that differ, either may be at fault"
    for size in range(len(names), len(names) // 2, -1):
        for group in combinations(names, size):
            pairs = combinations(group, 2)
            if all(_agree(measured[one], measured[other], dtype) for one, other in pairs):
                return group[0], f"the odd one out: {' and '.join(group)} agree"
    return names[0], "no majority agrees, any may be at fault"


def _not_finite(entry: Entry, reference: str, truth: Floats, value: Floats) -> Entry:
    """An entry with NaN or infinity in it: nobody agrees on that."""
    broken = value if not np.isfinite(value).all() else truth
    name = entry.implementation if broken is value else reference
    worst = tuple(int(i) for i in np.argwhere(~np.isfinite(broken))[0])
    cause = f"{name} has {broken[worst]} there"
    return replace(
        entry, verdict="wrong", worst_index=worst, actual=float(value[worst]), expected=float(truth[worst]), cause=cause
    )


def _why(key: Key, truth: _Measured, actual: _Measured, found: Found, dtype: Precision, point: _Point) -> str:
    """Return the common mistake that explains a gradient; for per-sample gradients, which samples are off."""
    law, name = key
    if name == LOSS or not (np.isfinite(truth.value).all() and np.isfinite(actual.value).all()):
        return ""
    budget = _budget(truth, actual, dtype)
    if law == ROWS:
        wrong = np.asarray(np.abs(actual.value - truth.value) > budget).reshape(len(truth.value), -1)
        places = np.flatnonzero(np.any(wrong, axis=1)).tolist()
        some = ", ".join(map(str, places[:3])) + ", ..." * (len(places) > 3)
        return f"in {len(places)} of {len(truth.value)} samples: {some}"
    n = len(point.features)
    rows = [arrays[ROWS, name].value for arrays in found.values() if (ROWS, name) in arrays]
    every_row = rows[0] if rows and len(rows[0]) == n else None
    value = point.params[name].astype(np.float64)
    return cause_of(Evidence(actual.value, truth.value, budget, dtype, n, parameter=value, per_sample=every_row))


# Layers


def _places(sides: Sequence[_Side], layers: Any) -> dict[str, Places]:
    """Return which layers are said to correspond, for each model but the source."""
    names = [side.name for side in sides[1:]]
    given = dict(layers or {})
    each_its_own = bool(given) and all(isinstance(value, Mapping) for value in given.values())
    if not each_its_own:
        if given and len(names) > 1:
            raise ValueError(
                f"with several models, layers is {{model: {{layer: own name}}}}; models: {', '.join(names)}"
            )
        return dict.fromkeys(names, given)
    if unknown := set(given) - set(names):
        raise ValueError(f"layers are given for {min(unknown)!r}; the models are {', '.join(names)}")
    return {name: given.get(name, {}) for name in names}


class _Pair(NamedTuple):
    """A layer of the source, that of another model, and how the elements of one come from the other."""

    name: str
    own: str
    matching: Matching | None
    """None where the shapes do not fit."""


def _layers(sides: Sequence[_Side], row: _Point, places: Mapping[str, Places], dtype: Precision) -> list[Entry]:
    """Judge the layers, forward and then backward, in the source's order."""
    source, *others = sides
    first = {layer.name: layer.value.shape for layer in source.layers(row)}
    pairs = {side.name: _pairs(side, row, first, places[side.name]) for side in others}
    if not any(pairs.values()):
        return []
    found = {source.name: _measured(partial(_seen, source, pairs=None), row)}
    found |= {side.name: _measured(partial(_seen, side, pairs=pairs[side.name]), row) for side in others}
    order = [(FORWARD, name) for name in first] + [(BACKWARD, name) for name in reversed(first)]
    entries = [entry for key in order for entry in _layer_entries(key, found, pairs, dtype)]
    return _with_neighbours(entries)


def _pairs(side: _Side, row: _Point, shapes: Mapping[str, tuple[int, ...]], places: Places) -> dict[str, _Pair]:
    own_shapes = {layer.name: layer.value.shape for layer in side.layers(row)}
    pairs = {}
    alike = {own.replace("/", "."): own for own in own_shapes}
    same = {name: alike[name.replace("/", ".")] for name in shapes if name.replace("/", ".") in alike}
    for name, place in ({**same, **places}).items():
        own, move = place if isinstance(place, tuple) else (place, None)
        if name not in shapes or own not in own_shapes:
            where, what, known = ("source", name, shapes) if name not in shapes else (side.name, own, own_shapes)
            near = ", ".join(map(repr, get_close_matches(what, known, 2, cutoff=0))) or "none"
            raise ValueError(
                f"there is no layer {what!r} in {where}; nearest: {near}\n"
                f"  of the source: {', '.join(shapes) or 'none'}\n  of {side.name}: {', '.join(own_shapes) or 'none'}"
            )
        pairs[name] = _Pair(name, own, _moving(side.name, name, shapes[name], own, own_shapes[own], move))
    return pairs


def _moving(
    model: str, name: str, shape: tuple[int, ...], own: str, own_shape: tuple[int, ...], move: Move | None
) -> Matching | None:
    """Return how a layer's elements move. Without a function they do not, but for axes of length 1 in front."""
    if move is not None:
        layout = {own: lambda arrays: move(arrays[name])}
        return match({name: shape}, {own: own_shape}, layout, name=f"layer {own!r} of {model}")
    if _without_ones(shape) != _without_ones(own_shape):
        return None
    return match({name: shape}, {own: own_shape}, {own: lambda arrays: arrays[name].reshape(own_shape)})


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return _without_ones(shape[1:]) if shape[:1] == (1,) else shape


def _seen(side: _Side, row: _Point, pairs: Mapping[str, _Pair] | None) -> dict[Key, NDArray[Any]]:
    """Return values and cotangents in the source's names and shapes."""
    layers = {layer.name: layer for layer in side.layers(row)}
    found: dict[Key, NDArray[Any]] = {}
    for law, array in ((FORWARD, "value"), (BACKWARD, "cotangent")):
        if pairs is None:
            found |= {(law, name): getattr(layer, array) for name, layer in layers.items()}
            continue
        for name, own, matching in pairs.values():
            if matching is not None:
                found[law, name] = matching.in_source({own: getattr(layers[own], array)})[name]
    return found


def _layer_entries(
    key: Key, found: Found, pairs: Mapping[str, Mapping[str, _Pair]], dtype: Precision
) -> Iterator[Entry]:
    law, name = key
    for model, theirs in pairs.items():
        if name in theirs and theirs[name].matching is None:
            cause = f"its shape is another one there; say how elements move: layers={{{name!r}: ({name!r}, function)}}"
            yield Entry(model, name, "inconclusive", cause=cause, law=law)
    measured = {model: arrays[key] for model, arrays in found.items() if key in arrays}
    if len(measured) > 1:
        yield from _judged_array(key, measured, dtype)


def _with_neighbours(entries: Sequence[Entry]) -> list[Entry]:
    """Say of each layer that differs which layer was the last to agree."""
    told = []
    last: dict[Key, str] = {}
    for entry in entries:
        where = entry.implementation, entry.law
        if entry.verdict == "wrong":
            side = "before" if entry.law == FORWARD else "after"
            agreed = f"{last[where]!r}, the one {side} it, agrees" if where in last else "it is the first"
            entry = replace(entry, cause=f"{agreed}; {entry.cause}")
        if entry.verdict == "agree":
            last[where] = entry.parameter
        told.append(entry)
    return told


# Training


class _Walker:
    """One descent: parameters, and the rule's memory."""

    def __init__(self, params: Arrays, rule: Rule) -> None:
        self.params = params
        self._rule = rule
        self._memory = rule.direction.init(params)

    def step(self, gradient: Mapping[str, NDArray[Any]], number: int) -> None:
        """Take theta to theta - rate * direction."""
        at = np.array([number])
        coefficients = [each[0] for each in self._rule.direction.coefficients(at)]
        direction, self._memory = self._rule.direction.update(np, gradient, self._memory, coefficients)
        rate = np.asarray(self._rule.learning_rate(at), dtype=np.float64)[0]
        self.params = {
            name: (value - rate * direction[name]).astype(value.dtype) for name, value in self.params.items()
        }


class _Together:
    """All models at the source's parameters, step by step."""

    def __init__(self, sides: Sequence[_Side], point: _Point, rule: Rule) -> None:
        self._sides, self._point = sides, point
        self._source = _Walker(point.params, rule)

    def step(self, number: int, batch: Any) -> tuple[Found, _Point]:
        """Return what each says at this step, and where it was said."""
        point = self._point._replace(params=self._source.params).at(batch)
        found = {side.name: _unmoved(side.outputs(point)) for side in self._sides}
        source, *others = found.values()
        self._source.step({name: each.value for (_, name), each in source.items() if name in point.params}, number)
        # Most steps agree to the last bits, and need no estimate.
        if number == 0 or not all(_agree(source[key], each[key], self._dtype) for each in others for key in source):
            found = {side.name: _measured(side.outputs, point) for side in self._sides}
        return found, point

    @property
    def _dtype(self) -> Precision:
        return checked_dtype(str(self._point.features.dtype))


class _Apart:
    """Each model on its own way; beside it, ways that begin one unit in the last place away."""

    def __init__(self, sides: Sequence[_Side], point: _Point, rule: Rule) -> None:
        points = [point, *map(point.moved, range(DRAWS))]
        self._ways = {side: [(each, _Walker(each.params, rule)) for each in points] for side in sides}

    def step(self, number: int, batch: Any) -> tuple[Found, None]:
        """Return the loss that each met, and its parameters after the step."""
        found: Found = {}
        for side, ways in self._ways.items():
            value, *moved = [self._step(side, point.at(batch), walker, number) for point, walker in ways]
            found[side.name] = {
                key: _Measured(array, np.max([np.abs(each[key] - array) for each in moved], axis=0))
                for key, array in value.items()
            }
        return found, None

    @staticmethod
    def _step(side: _Side, point: _Point, walker: _Walker, number: int) -> dict[Key, Floats]:
        outputs = side.outputs(point._replace(params=walker.params))
        walker.step({name: outputs[GRADIENT, name] for name in walker.params}, number)
        after = {name: value.astype(np.float64) for name, value in walker.params.items()}
        return {(GRADIENT, LOSS): outputs[GRADIENT, LOSS]} | {(GRADIENT, name): value for name, value in after.items()}


def _unmoved(outputs: Mapping[Key, NDArray[Any]]) -> dict[Key, _Measured]:
    values = {key: np.asarray(value, dtype=np.float64) for key, value in outputs.items()}
    return {key: _Measured(value, np.zeros(value.shape)) for key, value in values.items()}


def _batches(n: int, batch_size: int | None, seed: int, steps: int) -> Iterator[Any]:
    """Yield the rows of each step."""
    if batch_size is None:
        yield from [slice(None)] * steps
        return
    stream = RowStream(n, batch_size, seed)
    for _ in range(steps):
        rows, weights = stream.take(1)
        yield rows[0] if weights is None else rows[0][weights[0] > 0]  # the rest only fills up a last batch


def _share_apart(measured: Mapping[Key, _Measured], source: Mapping[Key, _Measured]) -> float:
    shares = [0.0]
    for key in source:
        largest = float(np.max(np.abs(source[key].value)))
        if key[1] != LOSS and largest:
            shares.append(float(np.max(np.abs(measured[key].value - source[key].value))) / largest)
    return max(shares)


def _keep(kept: dict[Key, Entry], entry: Entry) -> None:
    """Keep the first that is wrong; of those that agree, the nearest to its budget."""
    where = entry.implementation, entry.parameter
    before = kept.get(where, entry)
    powers = [power for power in (before.detectable, entry.detectable) if not math.isnan(power)]
    worse = entry.verdict == "wrong" or entry.budget_fraction > before.budget_fraction
    chosen = entry if worse and before.verdict != "wrong" else before
    kept[where] = replace(chosen, detectable=max(powers, default=math.nan))
