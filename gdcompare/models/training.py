"""Two networks, or more, through the same steps of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Precision, checked_dtype
from gdcompare.descent.rules import Rule, sgd
from gdcompare.descent.sampling import RowStream
from gdcompare.models.compare import ROWS_WATCHED, compared_at, context_of
from gdcompare.models.comparison import GRADIENT, LOSS, Training
from gdcompare.models.estimate import DRAWS, Found, Measured, agreeing, judged_arrays, measure, share_apart, unmoved
from gdcompare.models.layers import Places, layer_places
from gdcompare.models.native import Native
from gdcompare.models.sides import Arrays, Data, Key, Point, Side, point_of, sides_of
from gdcompare.progress import progress_bar
from gdcompare.referee.verdict import Entry, Floats


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
    sides, precision = sides_of(models), checked_dtype(dtype)
    point = point_of(sides[0], data, precision)
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps must be a whole number, 1 or above, not {steps!r}")
    context = context_of(sides, data, point, precision) | {"steps": int(steps), "resync": resync}
    places = layer_places(sides, layers)
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
                for entry in judged_arrays(found, precision, where):
                    _keep(kept, replace(entry, law=f"step {step}"))
                    if entry.verdict != "agree" and first_bad is None:
                        first_bad = step
                        there = None if where is None else compared_at(sides, where, ROWS_WATCHED, places, context)
                for name, measured in found.items():
                    losses[name].append(float(measured[GRADIENT, LOSS].value))
                    apart[name].append(share_apart(measured, found[sides[0].name]))
                done = step + 1
                advance(1)
    except KeyboardInterrupt:
        if not done:
            raise
    arrays = [{name: np.array(values[:done]) for name, values in each.items()} for each in (losses, apart)]
    return Training(tuple(kept.values()), context | {"steps_done": done}, first_bad, there, *arrays)


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
        coefficients = [each[0] for each in self._rule.direction.coefficients(np, at)]
        direction, self._memory = self._rule.direction.update(np, self.params, gradient, self._memory, coefficients)
        rate = np.asarray(self._rule.learning_rate(at), dtype=np.float64)[0]
        self.params = {
            name: (value - rate * direction[name]).astype(value.dtype) for name, value in self.params.items()
        }


class _Together:
    """All models at the source's parameters, step by step."""

    def __init__(self, sides: Sequence[Side], point: Point, rule: Rule) -> None:
        self._sides, self._point = sides, point
        self._source = _Walker(point.params, rule)

    def step(self, number: int, batch: Any) -> tuple[Found, Point]:
        """Return what each says at this step, and where it was said."""
        point = self._point._replace(params=self._source.params).at(batch)
        found = {side.name: unmoved(side.outputs(point)) for side in self._sides}
        source, *others = found.values()
        self._source.step({name: each.value for (_, name), each in source.items() if name in point.params}, number)
        # Most steps agree to the last bits, and need no estimate.
        if number == 0 or not all(agreeing(source[key], each[key], self._dtype) for each in others for key in source):
            found = {side.name: measure(side.outputs, point) for side in self._sides}
        return found, point

    @property
    def _dtype(self) -> Precision:
        return self._point.dtype


class _Apart:
    """Each model on its own way; beside it, ways that begin one unit in the last place away."""

    def __init__(self, sides: Sequence[Side], point: Point, rule: Rule) -> None:
        points = [point, *map(point.moved, range(DRAWS))]
        self._ways = {side: [(each, _Walker(each.params, rule)) for each in points] for side in sides}

    def step(self, number: int, batch: Any) -> tuple[Found, None]:
        """Return the loss that each met, and its parameters after the step."""
        found: Found = {}
        for side, ways in self._ways.items():
            value, *moved = [self._step(side, point.at(batch), walker, number) for point, walker in ways]
            found[side.name] = {
                key: Measured(array, np.max([np.abs(each[key] - array) for each in moved], axis=0))
                for key, array in value.items()
            }
        return found, None

    @staticmethod
    def _step(side: Side, point: Point, walker: _Walker, number: int) -> dict[Key, Floats]:
        outputs = side.outputs(point._replace(params=walker.params))
        walker.step({name: outputs[GRADIENT, name] for name in walker.params}, number)
        after = {name: value.astype(np.float64) for name, value in walker.params.items()}
        return {(GRADIENT, LOSS): outputs[GRADIENT, LOSS]} | {(GRADIENT, name): value for name, value in after.items()}


def _batches(n: int, batch_size: int | None, seed: int, steps: int) -> Iterator[Any]:
    """Yield the rows of each step."""
    if batch_size is None:
        yield from [slice(None)] * steps
        return
    stream = RowStream(n, batch_size, seed)
    for _ in range(steps):
        rows, weights = stream.take(1)
        yield rows[0] if weights is None else rows[0][weights[0] > 0]  # the rest only fills up a last batch


def _keep(kept: dict[Key, Entry], entry: Entry) -> None:
    """Keep the first that is wrong; of those that agree, the nearest to its budget."""
    where = entry.implementation, entry.parameter
    before = kept.get(where, entry)
    powers = [power for power in (before.detectable, entry.detectable) if not math.isnan(power)]
    worse = entry.verdict == "wrong" or entry.budget_fraction > before.budget_fraction
    chosen = entry if worse and before.verdict != "wrong" else before
    kept[where] = replace(chosen, detectable=max(powers, default=math.nan))
