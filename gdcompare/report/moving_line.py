"""The data with the line that is fitted to them, beside the plane of its parameters, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gdcompare.case import DataLike, data_for
from gdcompare.descent.record import Descent
from gdcompare.problem import Dataset, Problem
from gdcompare.registry import as_problem
from gdcompare.report import look
from gdcompare.report.paths import View, draw_path, draw_surface, heights, losses_at, view_of
from gdcompare.report.planes import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_STAGES = 6
_MOST_ROWS = 2000


@look.styled()
def moving_line(
    problem: str | Problem,
    data: DataLike,
    descent: Descent,
    axes: str | Sequence[str] | None = None,
    *,
    on: SubFigure | None = None,
) -> Figure:
    """Draw the data with the line, or curve, that a descent fits to them, at six of its steps, and its path beside it.

    The steps cut the path into pieces of equal length; the same marks stand on both sides. Axes are those of `surface`.

    Raises ValueError if the data have more than one feature, or the problem does not say what it predicts.

    >>> import gdcompare as gdc
    >>> fit = gdc.descend("linear-regression", "noisy-line", "numpy", gdc.rules.sgd(0.1), epochs=200)
    >>> len(moving_line("linear-regression", "noisy-line", fit).axes[0].lines)
    6
    """
    problem = as_problem(problem)
    data = data_for(problem, data)
    refuse_unseen(problem, data)
    view = view_of({"the path": descent}, axes)
    part = look.part_of(on, 9.6, 4.2)
    left, right = part.subplots(1, 2)
    draw_data(left, data)
    draw_surface(right, problem, data, view)
    (path,) = heights(problem, data, view).values()
    draw_path(right, path, look.Mark(look.GREY, "", "-"), "", width=1.0)
    stages = stages_of(view.paths["the path"])
    x = grid(data)
    for index, (shade, stage) in enumerate(zip(_shades(len(stages)), stages, strict=True)):
        step = int(descent.history.steps[stage])
        style: dict[str, Any] = {"color": shade, "linewidth": 1.0 + index / 4, "zorder": 3 + index / 9}
        left.plot(x, predicted(problem, descent, stage, x), label=f"step {step:,}", **style)
        place = on_picture(problem, data, view, descent, stage)
        right.plot(*place, "o", color=shade, markeredgecolor="black", markeredgewidth=0.6, markersize=7, zorder=6)
    look.legend(part, left)
    look.remark(part, view.remarks)
    return look.whole(part)


def refuse_unseen(problem: Problem, data: Dataset) -> None:
    """Raise a ValueError if there is no line to be drawn among the data."""
    if not problem.predicts:
        raise ValueError(
            f"{type(problem).__name__} does not say what it predicts, and has no line to draw; "
            "give it predictions(xp, params, features)"
        )
    if data.features.shape[1] != 1:
        raise ValueError(f"a line is drawn over one feature, but {data.name!r} has {data.features.shape[1]}")


def seen(problem: Problem, data: Dataset) -> bool:
    """Whether there is a line to be drawn among the data."""
    return problem.predicts and data.features.shape[1] == 1


def draw_data(axes: Axes, data: Dataset) -> None:
    """Draw the samples; of very many, every k-th."""
    every = -(-len(data) // _MOST_ROWS)
    x, y = data.features[::every, 0], data.targets[::every]
    axes.scatter(x, y, s=14, facecolors="white", edgecolors=look.GREY, linewidths=0.8, zorder=2)
    extent = float(np.ptp(y)) or 1.0
    axes.set(xlabel="feature", ylabel="target", title=f"{look.words(data.name)}: {len(data):,} samples")
    axes.set_ylim(float(y.min()) - 0.3 * extent, float(y.max()) + 0.15 * extent)


def grid(data: Dataset) -> Floats:
    """Return the places along the feature at which a curve is computed."""
    return np.linspace(data.features.min(), data.features.max(), 200)


def predicted(problem: Problem, descent: Descent, place: int, x: Floats) -> Floats:
    """Return what the fit says at x, at one of the kept steps, counted from 0."""
    params = {name: each[place].astype(np.float64) for name, each in descent.history.parameters.items()}
    with np.errstate(all="ignore"):
        return np.asarray(problem.predictions(np, params, x[:, None]), dtype=np.float64)


def on_picture(problem: Problem, data: Dataset, view: View, descent: Descent, place: int) -> Floats:
    """Return where a descent stands in the view at one of its kept steps, (2,)."""
    point = view.at(descent, place)
    return point if len(point) == 2 else np.append(point, losses_at(problem, data, view.plane, point[None]))


def stages_of(path: Floats, number: int = _STAGES) -> list[int]:
    """Return steps that cut a path into pieces of equal length, the first and the last among them.

    >>> stages_of(np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 1.0], [4.0, 2.0], [4.0, 4.0]]), 3)
    [0, 1, 4]
    """
    extent = np.where(np.ptp(path, axis=0) > 0, np.ptp(path, axis=0), 1.0)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0) / extent, axis=1))])
    found = np.searchsorted(along, np.linspace(0, along[-1], number)[1:-1])
    return sorted({0, *map(int, found), len(path) - 1})


def _shades(number: int) -> list[str]:
    """Return so many colours, the later the darker."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    shades = LinearSegmentedColormap.from_list("later", ["#F3C28B", look.COLOURS[1], "#3B1700"])
    return [to_hex(shades(share)) for share in np.linspace(0, 1, number)]
