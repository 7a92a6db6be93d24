"""The surface that a reader moves on: contours, paths, and the samples' gradients at each stop, as plain data.

Places are whole numbers, 0 to 4000 across the picture and up it. Paths and stops are thinned, so that however long a
descent, its scene stays within some hundred kilobytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Backend
from gdcompare.descent.record import Descent
from gdcompare.descent.sampling import RowStream
from gdcompare.gradients import per_sample_grad, value_and_grad
from gdcompare.problem import Dataset, Problem
from gdcompare.report.paths import View, contour_levels, losses_at, ulps_apart, view_of
from gdcompare.report.planes import Floats, Plane, flat
from gdcompare.report.thinning import thinned

SIDE = 4000
_POINTS, _STOPS, _FEWEST = 700, 160, 24
"""Of a path; of the slider, and the fewest of them where per-sample gradients are many."""

_ARROWS = 40
_FINEST, _COARSEST = 61, 21
_WORK = 4e8
"""Numbers that the surface, and the per-sample gradients of all stops, may take."""

_FAR = 20 * SIDE
_ARROW = 250
"""The longest arrow of a fan."""


def scene(
    problem: Problem,
    data: Dataset,
    descents: Mapping[str, Mapping[str, Descent]],
    backend: Backend[Any],
    seed: int = 0,
    axes: str | Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what the page draws of descents, `{kind: {backend: descent}}`, as JSON has it.

    The gradients are the `backend`'s; `seed` is that of the descents, from which the rows of their batches follow.
    Axes are those of `pictures.surface`.

    Raises ValueError if no path has a point to draw, or there is no such axis.
    """
    firsts = {kind: next(iter(found.values())) for kind, found in descents.items()}
    if not firsts:
        raise ValueError("there is no path to draw: no descent was made")
    view = view_of(firsts, axes)
    frame = _Frame(problem, data, view)
    stops = _stops(firsts, _affordable(data, view))
    fans, why_none = _fans(problem, data, firsts, backend, view.plane, stops, seed)
    return {
        "title": f"{type(problem).__name__} on {data.name}: the mean loss",
        "labels": [*view.plane.labels, "mean loss"][:2],
        "remarks": [*view.remarks, *([why_none] if why_none else [])],
        "ticks": frame.ticks,
        "contours": frame.contours,
        "stops": stops.tolist(),
        "kinds": [
            {"name": kind, **_kind(frame, found, stops), "fan": fans.get(kind)} for kind, found in descents.items()
        ],
    }


class _Frame:
    """The picture: what of the plane, or of the curve of a single parameter, is seen, and how high the loss is."""

    def __init__(self, problem: Problem, data: Dataset, view: View) -> None:
        self._problem, self._data, self.plane = problem, data, view.plane
        self._low, self._high = view.low, view.high
        size = len(data) * max(10, view.plane.origin.size) + 2000
        side = int(np.clip((_WORK / size) ** 0.5, _COARSEST, _FINEST))
        self.contours: list[dict[str, Any]] = []
        x = np.linspace(self._low[0], self._high[0], side if len(self._low) == 2 else 4 * side)
        if len(self._low) == 1:
            losses = self.losses(x[:, None])
            finite = losses[np.isfinite(losses)]
            low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
            room = 0.05 * (high - low) or 1.0
            self._low, self._high = np.append(self._low, low - room), np.append(self._high, high + room)
            curve = self.places(np.column_stack([x, losses])[np.isfinite(losses)])
            self.contours.append({"level": None, "rings": [curve.ravel().tolist()]})
        else:
            y = np.linspace(self._low[1], self._high[1], side)
            grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
            self._contour(x, y, self.losses(grid).reshape(side, side))
        self.ticks = [_ticks(*each) for each in zip(self._low, self._high, strict=True)]

    def losses(self, places: Floats) -> Floats:
        """Return the mean loss at places (m, k) of the plane."""
        return losses_at(self._problem, self._data, self.plane, places)

    def places(self, points: Floats) -> NDArray[np.int64]:
        """Return points (m, 2) as whole numbers; what lies far off is brought near enough to be drawn."""
        with np.errstate(all="ignore"):
            shares = (points - self._low) / (self._high - self._low) * SIDE
        return np.clip(np.nan_to_num(shares, nan=0.0), -_FAR, _FAR).round().astype(np.int64)

    def path(self, parameters: Mapping[str, NDArray[Any]], kept: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return a descent's points at those steps, as far as they are finite, (m, 2)."""
        points = flat({name: each[kept] for name, each in parameters.items()}, 1)
        bad = ~np.isfinite(points).all(axis=1)
        points = points[: int(np.argmax(bad))] if bad.any() else points
        with np.errstate(all="ignore"):
            seen = self.plane.coordinates(points)
        if seen.shape[1] == 1:
            seen = np.column_stack([seen, self.losses(seen)])
        return self.places(seen)

    def _contour(self, x: Floats, y: Floats, losses: Floats) -> None:
        from contourpy import FillType, contour_generator

        levels = contour_levels(losses)
        if len(levels) < 2:
            return  # flat, or not finite anywhere
        made = contour_generator(x, y, np.ma.masked_invalid(losses), fill_type=FillType.OuterOffset)
        top = float(2 * np.nanmax(losses[np.isfinite(losses)]) - levels[0]) + 1.0
        for level in levels:
            filled: Any = made.filled(float(level), top)  # its type leaves open which of nine kinds it is
            outlines, offsets = filled
            rings = [
                self.places(points[start:end]).ravel().tolist()
                for points, places in zip(outlines, offsets, strict=True)
                for start, end in pairwise(places)
            ]
            self.contours.append({"level": float(f"{level:.4g}"), "rings": rings})


def _affordable(data: Dataset, view: View) -> int:
    """Return how many stops there may be, for per-sample gradients at all of them."""
    return int(np.clip(_WORK / (3 * len(data) * view.plane.origin.size), _FEWEST, _STOPS))


def _stops(firsts: Mapping[str, Descent], most: int) -> NDArray[np.int64]:
    """Return the steps at which the slider stops: all, or half of them evenly, half evenly by their logarithm."""
    last = max(int(each.history.steps[-1]) for each in firsts.values())
    if last < most:
        return np.arange(last + 1)
    half = most // 2
    some = np.concatenate([np.linspace(0, last, half), np.geomspace(1, last, most - half)])
    return np.unique(some.round().astype(np.int64))


def _at(descent: Descent, stops: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the places of the stops among the kept steps: of each the last that is not beyond it."""
    return np.searchsorted(descent.history.steps, stops, side="right") - 1


def _kind(frame: _Frame, found: Mapping[str, Descent], stops: NDArray[np.int64]) -> dict[str, Any]:
    """Return the paths of one kind of descent on all backends."""
    name, first = next(iter(found.items()))
    points = flat(first.history.parameters, 1)
    finite = np.isfinite(points).all(axis=1)
    end = len(points) if finite.all() else int(np.argmin(finite))
    with np.errstate(all="ignore"):
        seen = np.clip(frame.plane.coordinates(points[:end]), -1e150, 1e150)
    kept = np.unique(np.concatenate([thinned(seen, _POINTS), _at(first, stops)]))
    whole = frame.path(first.history.parameters, kept[kept < end])
    paths: list[dict[str, Any]] = []
    for other, descent in found.items():
        here = kept[kept < len(descent.history.steps)]
        path = frame.path(descent.history.parameters, here)
        same = np.array_equal(path, whole)
        paths.append(
            {
                "backend": other,
                "path": None if same and other != name else path.ravel().tolist(),
                "ulps": _ulps(first, descent, stops),
                "ended": f"{descent.steps} steps"
                + ("" if descent.stop_reason == "epochs" else f" ({descent.stop_reason})"),
            }
        )
    return {"at": np.searchsorted(kept, _at(first, stops)).tolist(), "paths": paths}


def _ulps(first: Descent, other: Descent, stops: NDArray[np.int64]) -> list[float]:
    steps, apart = ulps_apart(first, other)
    places = np.clip(np.searchsorted(steps, stops, side="right") - 1, 0, len(steps) - 1)
    return [float(f"{apart[place]:.3g}") for place in places]


def _fans(
    problem: Problem,
    data: Dataset,
    firsts: Mapping[str, Descent],
    backend: Backend[Any],
    plane: Plane,
    stops: NDArray[np.int64],
    seed: int,
) -> tuple[dict[str, Any], str]:
    """Return the fan of each kind at each stop, or why there is none."""
    if 3 * _FEWEST * len(data) * plane.origin.size > _WORK:
        return {}, f"The gradients of {len(data)} samples by {plane.origin.size} parameters are too many to show."
    shown = np.unique(np.linspace(0, len(data) - 1, _ARROWS).round().astype(np.intp))
    fans = {}
    for kind, descent in firsts.items():
        places = _at(descent, stops)
        batches = _batches(data, descent, seed)
        stations = {
            place: _station(problem, data, descent, place, backend, plane, shown, batches)
            for place in dict.fromkeys(places.tolist())
        }
        fans[kind] = [stations[place] for place in places.tolist()]
        for i in range(len(fans[kind]) - 1, 0, -1):
            if fans[kind][i] is fans[kind][i - 1]:
                fans[kind][i] = None  # as at the stop before
    said = f"Of {len(data)} samples, the gradients of {len(shown)} are shown." if len(shown) < len(data) else ""
    return fans, said


def _batches(data: Dataset, descent: Descent, seed: int) -> tuple[NDArray[np.intp], NDArray[np.float64] | None] | None:
    """Return the rows that fed each step; None for all rows, or where weights make a batch's mean another."""
    if descent.batch_size is None or data.weights is not None or not descent.steps:
        return None
    return RowStream(len(data), descent.batch_size, seed).take(descent.steps)


def _station(
    problem: Problem,
    data: Dataset,
    descent: Descent,
    place: int,
    backend: Backend[Any],
    plane: Plane,
    shown: NDArray[np.intp],
    batches: tuple[NDArray[np.intp], NDArray[np.float64] | None] | None,
) -> dict[str, Any] | None:
    """Return the samples' gradients where a descent was at one of its kept steps; None if they are not finite."""
    params = {name: each[place] for name, each in descent.history.parameters.items()}
    if not np.isfinite(flat(params)).all():
        return None
    rows = flat(per_sample_grad(problem, data, params, backend), 1)
    loss, gradient = value_and_grad(problem, data, params, backend)
    if not (np.isfinite(rows).all() and np.isfinite(loss)):
        return None
    step = int(descent.history.steps[place])
    used: list[int] = []
    arrows = [rows[shown], rows.mean(axis=0)[None], flat(gradient)[None]]
    if batches is not None and step < descent.steps:
        numbers, weights = batches
        batch = numbers[step] if weights is None else numbers[step][weights[step] > 0]
        used = np.flatnonzero(np.isin(shown, batch)).tolist()
        arrows.append(rows[batch].mean(axis=0)[None])
    seen = np.concatenate(arrows) @ plane.directions.T
    if seen.shape[1] == 1:
        seen = np.column_stack([seen, np.zeros(len(seen))])
    longest = float(np.hypot(*seen.T).max()) or 1.0
    whole = (seen / longest * _ARROW).round().astype(int)
    k = len(shown)
    return {
        "loss": float(f"{loss:.6g}"),
        "scale": float(f"{longest:.4g}"),
        "off": float(f"{np.abs(rows.mean(axis=0) - flat(gradient)).max():.2g}"),
        "rows": whole[:k].ravel().tolist(),
        "mean": whole[k].tolist(),
        "gradient": whole[k + 1].tolist(),
        "batch": whole[k + 2].tolist() if len(whole) > k + 2 else None,
        "used": used,
    }


def _ticks(low: float, high: float) -> list[tuple[int, str]]:
    """Return round numbers within the limits: where they are, and as words."""
    from matplotlib.ticker import MaxNLocator

    values = [each for each in MaxNLocator(5).tick_values(low, high) if low <= each <= high]
    return [(round((each - low) / (high - low) * SIDE), f"{each:.6g}") for each in values]
