"""Several pictures of one result on one sheet: what `--plot` draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gdcompare.case import DataLike, data_for
from gdcompare.descent.record import Descent
from gdcompare.models.comparison import Comparison, Training
from gdcompare.problem import Problem
from gdcompare.referee.verdict import Report
from gdcompare.registry import as_problem
from gdcompare.report import look
from gdcompare.report.agreement import budget_shares, digits, heat_map, layers, training
from gdcompare.report.demonstration import Demonstration
from gdcompare.report.losses import distances, losses
from gdcompare.report.moving_line import moving_line, seen
from gdcompare.report.paths import Descents, coinciding, named, surface
from gdcompare.report.quadratic import quadratic_of
from gdcompare.report.sample_gradients import Gradients, cloud, fan

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_MOST_ROWS = 40
"""A picture with more rows than this grows no further."""


@look.styled()
def of_report(report: Report, title: str = "") -> Figure:
    """Draw the heat map of a verdict, and beside it the share of the budget and the digits.

    Raises ValueError if the report is empty.

    >>> import gdcompare as gdc
    >>> report = gdc.verify("linear-regression", "noisy-line", backends=["numpy"])
    >>> [axes.get_title("left") for axes in of_report(report).axes]
    ['LinearRegression on noisy-line', 'share of the rounding budget', 'digits checked']
    """
    who, what = (len({getattr(each, key) for each in report.entries}) for key in ("implementation", "parameter"))
    dots = 1.7 + max(0.3, 0.1 * who) * min(what, _MOST_ROWS)
    figure = _sheet(title, 11.0, max(2 * dots, 2.0 + 0.3 * who))
    left, right = _parts(figure, 1, 2, width_ratios=[1.1, 1])
    above, below = _parts(right, 2, 1)
    heat_map(report, on=left)
    budget_shares(report, on=above)
    digits(report, on=below)
    return figure


@look.styled()
def of_laws(
    report: Report, per_sample: Gradients | None = None, gradient: Gradients | None = None, title: str = ""
) -> Figure:
    """Draw the heat map of the batch laws; beside it the fan of the per-sample gradients and the cloud of batches.

    Raises ValueError if the report is empty.
    """
    laws = len({each.law for each in report.entries})
    if per_sample is None or gradient is None:
        return heat_map(report, on=_sheet(title, 7.0, 2.0 + 0.34 * laws))  # type: ignore[arg-type]  # a figure will do
    figure = _sheet(title, 11.0, max(8.6, 2.0 + 0.34 * laws))
    above, below = _parts(figure, 2, 1, height_ratios=[1.2, 1])
    left, right = _parts(above, 1, 2)
    heat_map(report, on=left)
    fan(per_sample, gradient, on=right)
    if len(next(iter(np.asarray(each) for each in per_sample.values()))) >= 3:
        cloud(per_sample, on=below)
    return figure


@look.styled()
def of_descents(
    problem: str | Problem,
    data: DataLike,
    descents: Descents,
    axes: str | Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draw descents, `{backend: descent}`: their paths and how far they are apart, and how fast they go down.

    The distance to the optimum is drawn where it is known, and the line among the data where there is one; what is left
    out is said. Axes are those of `surface`.

    Raises ValueError if there is nothing to draw, or no such axis.
    """
    problem = as_problem(problem)
    data = data_for(problem, data)
    descents = named(descents)
    first = next(iter(descents.values()))
    begun = {name: each[0].astype(np.float64) for name, each in first.history.parameters.items()}
    known, lines = quadratic_of(problem, data, begun) is not None, seen(problem, data)
    figure = _sheet(title, 12.6, 6.8 + 4.0 * lines)
    rows = _parts(figure, 1 + lines, 1, height_ratios=[6.8, 4.0][: 1 + lines])
    left, right = _parts(rows[0], 1, 2, width_ratios=[1, 1.15])
    (coinciding if len(descents) > 1 else surface)(problem, data, descents, axes, on=left)
    above, below = _parts(right, 2, 1, height_ratios=[1, 1] if known else [8, 1])
    took_steps = any(len(each.history.losses) for each in descents.values())
    if took_steps:
        losses(descents, on=above)
    if known:
        distances(problem, data, descents, on=below)
    else:
        _say(below, "No distance to the optimum: the loss is no quadratic of at most 200 parameters.")
    if lines:
        moving_line(problem, data, first, axes, on=rows[1])
    return figure


@look.styled()
def of_comparison(comparison: Comparison, steps: Training | None = None, title: str = "") -> Figure:
    """Draw a comparison of models: its heat map, the layers, and the steps of a training, as far as there are any.

    Raises ValueError if the comparison is empty.
    """
    parts: list[tuple[float, Any]] = [(2.2 + 0.3 * len({each.implementation for each in comparison.entries}), heat_map)]
    if comparison.layers:
        parts.append((3.6, layers))
    if steps is not None and steps.losses:
        parts.append((4.4, training))
    figure = _sheet(title, 8.4, sum(height for height, _ in parts))
    cells = _parts(figure, len(parts), 1, height_ratios=[height for height, _ in parts])
    for cell, (_, picture) in zip(cells, parts, strict=True):
        picture(steps if picture is training else comparison, on=cell)
    return figure


@look.styled()
def of_demonstration(shown: Demonstration) -> Figure:
    """Draw the main job: three kinds of descent, all backends' paths, samples' gradients, losses, and the verdict."""
    figure = _sheet("One gradient descent, several ways to differentiate it", 12.0, 15.4)
    top, middle, bottom = _parts(figure, 3, 1, height_ratios=[6.4, 4.6, 4.0])
    cells = [*_parts(top, 1, 2), *_parts(middle, 1, 2, width_ratios=[1, 1.5])]
    cells += [*_parts(bottom, 1, 2, width_ratios=[1.5, 1])]
    (problem, data), kinds = shown.about, kinds_of(shown)
    surface(problem, data, kinds, on=cells[0])
    coinciding(problem, data, shown.descents["full_batch"], on=cells[1])
    fan(shown.per_sample, shown.gradient, on=cells[2])
    cloud(shown.per_sample, on=cells[3])
    losses(kinds, on=cells[4])
    heat_map(shown.report, on=cells[5])
    return figure


def kinds_of(shown: Demonstration) -> dict[str, Descent]:
    """Return the three kinds of descent, those of the first backend, under the words for them."""
    words = {"full_batch": "full batch", "mini_batch": "mini-batches of 2", "stochastic": "stochastic"}
    return {words[kind]: next(iter(found.values())) for kind, found in shown.descents.items()}


def _sheet(title: str, width: float, height: float) -> Figure:
    figure = look.whole(look.part_of(None, width, height + 0.3 * bool(title)))
    if title:
        figure.suptitle(look.words(title, 100), x=0.012, ha="left", fontweight="bold")
    return figure


def _parts(of: Figure | SubFigure, rows: int, columns: int, **ratios: Any) -> list[SubFigure]:
    """Return the parts of a sheet, row by row."""
    return list(np.ravel(np.asarray(of.subfigures(rows, columns, **ratios))))


def _say(part: SubFigure, words: str) -> None:
    part.text(0.08, 0.5, words, color=look.GREY, fontsize=8.5)
