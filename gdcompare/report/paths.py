"""Descents seen from above: their paths on the surface of the loss, and how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gdcompare.case import DataLike, data_for
from gdcompare.descent.record import Descent
from gdcompare.problem import Dataset, Problem
from gdcompare.registry import as_problem
from gdcompare.report import look
from gdcompare.report.planes import Floats, Plane, flat, plane_of, shapes_of
from gdcompare.report.thinning import thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_AWAY = 10.0
"""A path whose loss has grown by more than this factor has left: it decides nothing about what is shown."""

_STEPS = 20
"""The loss at either end of a path is the mean of so many steps, where a step sees but a batch."""

_GLIMPSE = 4

_FAR = 20.0
"""So many widths of the picture off, a path ends: what lies further cannot be drawn."""

_WORK, _FINEST, _COARSEST = 1e9, 61, 21
"""The surface is computed at as many points a side as this many numbers allow, within these."""

_LEVELS = 13
_LONG_TAIL = 1e3


@look.styled()
def surface(
    problem: str | Problem,
    data: DataLike,
    descents: Descents,
    axes: str | Sequence[str] | None = None,
    *,
    on: SubFigure | None = None,
) -> Figure:
    """Draw the paths of descents, `{name: descent}` or a single one, on the surface of the mean loss of the data.

    Of more than two parameters, two are seen: those that `axes` names, as "theta_0,theta_1[0]", or else the two
    principal directions of the paths; the picture says so. A single parameter is seen as a curve. A path that diverges
    is drawn until it leaves the picture, which says where that was.

    Raises ValueError if there is nothing to draw, or no such axis.

    >>> import gdcompare as gdc
    >>> fit = gdc.descend("linear-regression", "noisy-line", "numpy", gdc.rules.sgd(0.1), epochs=200)
    >>> surface("linear-regression", "noisy-line", fit).axes[0].get_xlabel()
    'theta_0'
    """
    problem, descents = as_problem(problem), named(descents)
    data, part = data_for(problem, data), look.part_of(on, 6.0, 5.0)
    view = view_of(descents, axes)
    plot = part.subplots()
    draw_surface(plot, problem, data, view)
    marks = look.marks(descents)
    for depth, (name, points) in enumerate(heights(problem, data, view).items()):
        draw_path(plot, points, marks[name], name, dashes=marks[name].dashes, zorder=4 - depth / len(descents))
    look.legend(part, plot)
    look.remark(part, view.remarks)
    return look.whole(part)


@look.styled()
def coinciding(
    problem: str | Problem,
    data: DataLike,
    descents: Descents,
    axes: str | Sequence[str] | None = None,
    *,
    on: SubFigure | None = None,
) -> Figure:
    """Draw the paths of one descent on several backends on one surface, and beneath their distance, step by step.

    The distance is that from the first, in the parameter that differs most, in units in the last place of the largest
    value that it has had by then: `ulps_apart`. Axes are those of `surface`.

    Raises ValueError if there is nothing to draw, no such axis, or if the descents kept different steps.

    >>> import gdcompare as gdc
    >>> fit = gdc.descend("linear-regression", "noisy-line", "numpy", epochs=9)
    >>> [axes.get_ylabel() for axes in coinciding("linear-regression", "noisy-line", {"a": fit, "b": fit}).axes]
    ['theta_1[0]', 'ulps from a']
    """
    problem, descents = as_problem(problem), named(descents)
    data, part = data_for(problem, data), look.part_of(on, 6.0, 6.6)
    view = view_of(descents, axes)
    above, below = part.subplots(2, 1, height_ratios=[2.6, 1])
    draw_surface(above, problem, data, view)
    marks = look.marks(descents)
    for depth, (name, points) in enumerate(view.paths.items()):
        draw_path(
            above, points, marks[name], name, width=1.2 + 1.8 * (len(descents) - 1 - depth), zorder=3 + depth / 99
        )
    look.legend(part, above)
    first, *others = descents
    highest = 0.0
    for name in others:
        steps, ulps = ulps_apart(descents[first], descents[name])
        some = thinned(np.stack([steps, ulps], axis=1).astype(np.float64))
        highest = max(highest, float(ulps.max(initial=0.0)))
        below.plot(steps[some], ulps[some], color=marks[name].colour, linestyle=marks[name].dashes, linewidth=1.1)
    below.set(xlabel="step", ylabel=f"ulps from {look.words(first)}")
    if highest > 100:
        below.set_yscale("symlog", linthresh=1, linscale=0.4)
    else:
        below.yaxis.get_major_locator().set_params(integer=True)
        below.set_ylim(-0.05, max(1.0, 1.05 * highest))
    said = f"The same bits at every step, on all {len(descents)} of them." * (highest == 0 and len(descents) > 1)
    look.remark(part, [*view.remarks, said])
    return look.whole(part)


def ulps_apart(one: Descent, other: Descent) -> tuple[Floats, Floats]:
    """Return the steps that both kept, and the distance of the parameters there, in ulps, both (m,).

    It is the largest |a - b| / ulp(c) over the parameters' elements, with c the largest magnitude that `one` has had in
    that element up to this step: no value near 0 on the way makes a small difference look large. The ulp is that of
    the dtype; of float32 if one of them is.

    >>> import gdcompare as gdc
    >>> fit = gdc.descend("linear-regression", "noisy-line", "numpy", epochs=2)
    >>> [each.tolist() for each in ulps_apart(fit, fit)]
    [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]
    """
    m = min(len(one.history.steps), len(other.history.steps))
    steps = one.history.steps[:m]
    if (steps[:-1] != other.history.steps[: m - 1]).any():
        raise ValueError("the descents kept different steps: give all of them the same history_every")
    dtype = min((each.dtype for run in (one, other) for each in run.parameters.values()), key=lambda it: it.itemsize)
    a, b = (flat(each.history.parameters, 1)[:m] for each in (one, other))
    with np.errstate(all="ignore"):
        scale = np.spacing(np.maximum.accumulate(np.abs(a), axis=0).astype(dtype)).astype(np.float64)
        apart = np.where(a == b, 0.0, np.abs(a - b) / scale)
    return steps.astype(np.float64), np.nan_to_num(apart, nan=0.0, posinf=0.0).max(axis=1, initial=0.0)


@dataclass(frozen=True, eq=False)
class View:
    """What is shown of some descents: where, and what is said of it."""

    plane: Plane
    paths: Mapping[str, Floats]
    """`{name: (m, k)}`, the coordinates of each path, as far as it can be drawn."""
    low: Floats
    high: Floats
    """The corners of the picture, (k,)."""
    remarks: Sequence[str]

    def at(self, descent: Descent, step: int) -> Floats:
        """Return the coordinates (k,) of a descent at one of its kept steps, counted from 0."""
        place = {name: each[step] for name, each in descent.history.parameters.items()}
        return np.asarray(np.clip(self.plane.coordinates(flat(place)), *self._bounds()))

    def _bounds(self) -> tuple[Floats, Floats]:
        far = _FAR * (self.high - self.low)
        return self.low - far, self.high + far


def view_of(descents: Mapping[str, Descent], axes: str | Sequence[str] | None = None) -> View:
    """Return the plane, and the part of it, in which the descents are seen; sane, whatever becomes of one of them."""
    shapes = {name: shapes_of(each) for name, each in descents.items()}
    first = next(iter(descents))
    if odd := [name for name, each in shapes.items() if each != shapes[first]]:
        raise ValueError(f"{odd[0]!r} has other parameters than {first!r}: their paths are not in one space")
    whole = {name: _finite(flat(each.history.parameters, 1)) for name, each in descents.items()}
    if lost := [name for name, points in whole.items() if not len(points)]:
        raise ValueError(f"the path of {lost[0]!r} has no finite point to draw")
    kept = {name: points[: _near(descents[name], len(points))] for name, points in whole.items()}
    if all(len(points) == 1 for points in kept.values()):  # all leave at once: a few steps of them are what there is
        kept = {name: points[:_GLIMPSE] for name, points in whole.items()}
    plane = plane_of(shapes[first], kept, axes)
    seen = {name: plane.coordinates(points) for name, points in kept.items()}
    low, high = _box(list(seen.values()))
    view = View(plane, {}, low, high, [plane.remark] if plane.remark else [])
    least, most = view._bounds()
    paths, remarks = {}, [*view.remarks]
    for name, points in whole.items():
        with np.errstate(all="ignore"):
            places = plane.coordinates(points)
        out = ~((places >= least) & (places <= most)).all(axis=1)
        paths[name] = places[: int(np.argmax(out)) or 1] if out.any() else places
        if len(kept[name]) < len(descents[name].history.steps):
            step = int(descents[name].history.steps[len(kept[name]) - 1])
            remarks.append(f"{name!r} leaves the picture after step {step} ({descents[name].stop_reason}).")
    return View(plane, paths, low, high, remarks)


def _finite(points: Floats) -> Floats:
    """Return the points before the first that is not finite."""
    bad = ~np.isfinite(points).all(axis=1)
    return points[: int(np.argmax(bad))] if bad.any() else points


def _near(descent: Descent, finite: int) -> int:
    """Return how many points of a path to choose the picture by: all, unless it leaves for good."""
    losses = descent.history.losses.astype(np.float64)
    some = 1 if descent.batch_size is None else min(_STEPS, 1 + len(losses) // _STEPS)
    with np.errstate(all="ignore"):
        first, last = np.mean(losses[:some]), np.mean(losses[-some:])
        left = descent.stop_reason == "diverged" or not last <= _AWAY * first
        beyond = ~(losses <= _AWAY * first)
    if not len(losses) or not ((left and beyond.any()) or finite < len(descent.history.steps)):
        return finite
    return max(1, min(finite, int(np.argmax(beyond)) if beyond.any() else finite))


def _box(paths: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return corners with room around all points, and some more around the end of the first path."""
    points, end = np.concatenate(paths), paths[0][-1]
    low, high = points.min(axis=0), points.max(axis=0)
    extent = high - low
    widest = float(extent.max()) or max(1.0, float(np.abs(points).max()))
    extent = np.maximum(extent, 0.1 * widest)
    low = np.minimum(low - 0.12 * extent, end - 0.4 * extent)
    return low, np.maximum(high + 0.12 * extent, end + 0.4 * extent)


def draw_surface(axes: Axes, problem: Problem, data: Dataset, view: View) -> None:
    """Draw the loss where the view looks, its contours, or its curve if there is one parameter; and label it."""
    size = len(data) * max(10, view.plane.origin.size) + 2000
    side = int(np.clip(math.sqrt(_WORK / size), _COARSEST, _FINEST))
    x = np.linspace(view.low[0], view.high[0], side)
    axes.set_title(f"{type(problem).__name__} on {look.words(data.name)}: the mean loss")
    axes.set_xlabel(look.words(view.plane.labels[0]))
    axes.set_xlim(view.low[0], view.high[0])
    if len(view.low) == 1:
        losses = losses_at(problem, data, view.plane, x[:, None])
        axes.plot(x, losses, color=look.PALE, linewidth=2.5, zorder=1)
        top = np.nanmax(np.where(np.isfinite(losses), losses, np.nan))
        axes.set(ylabel="mean loss", ylim=(None, float(top) if np.isfinite(top) else None))
        return
    y = np.linspace(view.low[1], view.high[1], side)
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    losses = losses_at(problem, data, view.plane, places).reshape(side, side)
    axes.set_ylabel(look.words(view.plane.labels[1]))
    axes.set_ylim(view.low[1], view.high[1])
    axes.grid(visible=False)
    levels = contour_levels(losses)
    if len(levels) < 2:
        return  # flat, or not finite anywhere
    seen = np.ma.masked_invalid(losses)
    axes.contourf(x, y, seen, levels, colors=_shades(len(levels)), extend="max", zorder=0)
    lines = axes.contour(x, y, seen, levels, colors="#8A97A6", linewidths=0.6, zorder=1)
    axes.clabel(lines, levels[1::3], fontsize=6.5, fmt="%.3g", colors=look.GREY)


def losses_at(problem: Problem, data: Dataset, plane: Plane, places: Floats) -> Floats:
    """Return the mean loss of the data, weighted by their weights, at each of the places (m, k) of the plane, (m,)."""
    n = len(data)
    shares = np.full(n, 1 / n) if data.weights is None else data.weights / np.sum(data.weights)
    with np.errstate(all="ignore"):
        return np.array(
            [
                shares @ problem.per_sample_losses(np, params, data.features, data.targets)
                for params in plane.parameters(places)
            ]
        )


def heights(problem: Problem, data: Dataset, view: View) -> dict[str, Floats]:
    """Return the paths as they are drawn, (m, 2): on the plane, or on the curve of the only parameter."""
    if len(view.low) == 2:
        return dict(view.paths)
    drawn = {name: points[thinned(points)] for name, points in view.paths.items()}
    return {name: np.column_stack([x, losses_at(problem, data, view.plane, x)]) for name, x in drawn.items()}


def contour_levels(losses: Floats) -> Floats:
    """Return the heights of contours: dense where the loss is least, and closing below its highest reaches.

    For a quadratic bowl they are evenly spaced ellipses. Where the loss spans orders of magnitude, they are evenly
    spaced by its logarithm.

    >>> contour_levels(np.linspace(-12, 12, 1001) ** 2)[:4].round(2).tolist()
    [0.0, 0.96, 3.84, 8.64]
    """
    finite = losses[np.isfinite(losses)]
    if not finite.size or finite.max() == finite.min():
        return np.empty(0)
    least, middle, most = np.quantile(finite, [0.0, 0.5, 0.98])
    steps = np.linspace(0, 1, _LEVELS)
    if most - least > _LONG_TAIL * (middle - least) or most == least:
        rises = finite[finite > least] - least
        heights = np.concatenate([[0.0], np.geomspace(np.quantile(rises, 0.02), rises.max(), _LEVELS - 1)])
    else:
        heights = (most - least) * steps**2
    return np.unique(least + heights)


def _shades(number: int) -> list[str]:
    """Return so many light colours, from white to a blue grey, the deeper the higher."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    shades = LinearSegmentedColormap.from_list("depth", ["#FFFFFF", "#EAF0F6", "#C9D6E4"])
    return [to_hex(shades(share)) for share in np.linspace(0, 1, number)]


def draw_path(
    axes: Axes,
    points: Floats,
    mark: look.Mark,
    name: str,
    *,
    dashes: object = "-",
    width: float = 1.4,
    zorder: float = 3.0,
) -> None:
    """Draw a path (m, 2), thinned, with a ring where it starts and its mark where it ends."""
    x, y = points[thinned(points)].T
    line: dict[str, Any] = {"color": mark.colour, "linewidth": width, "linestyle": dashes}
    line |= {"marker": mark.marker, "markevery": [len(x) - 1], "markeredgecolor": "white", "markersize": 6.4}
    axes.plot(x, y, zorder=zorder, label=look.words(name), **line)
    axes.plot(x[:1], y[:1], "o", markerfacecolor="white", markeredgecolor="black", markersize=6, zorder=5)


Descents: TypeAlias = Mapping[str, Descent] | Descent
"""Descents by name, or a single one, which is named for its batches."""


def named(descents: Descents) -> dict[str, Descent]:
    """Return descents by name; a ValueError if there is none.

    >>> import gdcompare as gdc
    >>> list(named(gdc.descend("linear-regression", "noisy-line", "numpy", batch_size=2, epochs=1)))
    ['mini-batches of 2']
    """
    if isinstance(descents, Descent):
        size = descents.batch_size
        return {{None: "full batch", 1: "stochastic"}.get(size, f"mini-batches of {size}"): descents}
    if not descents:
        raise ValueError("there is no path to draw: give at least one descent, {name: descent}")
    return dict(descents)
