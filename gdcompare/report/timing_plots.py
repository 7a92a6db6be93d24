"""Times as pictures: against the size, as ratios to the fastest, and beside the accuracy."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gdcompare.report.look import Mark, checked_format, label_log, marks, part_of, styled, whole, write
from gdcompare.report.timings import Row, Timings, timings_of
from gdcompare.timing.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


_LARGE_ULPS = 30
"""Errors beyond this go on a logarithmic axis, above 1."""

_ASIDE = 1.04
"""How much farther right each line is than the one before, on a logarithmic axis."""

_MANY_SIZES = 5
"""More sizes than these do not each have a label."""


def plot(run: Run, path: str | os.PathLike[str], titles: Collection[str] | None = None) -> None:
    """Draw the times of a run, or of these titles in it: a row of three pictures for each kind of work.

    Bars are the intervals of the medians. Raises ValueError if there is no time to draw, and as `look.write`.
    """
    checked_format(path)
    write(picture(run, titles), path)


@styled()
def picture(run: Run, titles: Collection[str] | None = None) -> Figure:
    """Return that as a figure; raises ValueError if there is no time to draw."""
    groups = _groups(timings_of(run, titles))
    if not groups:
        raise ValueError("there is no time to draw: nobody has one")
    figure = whole(part_of(None, 6.4, 4.8))
    _fill(figure, groups)
    return figure


def _groups(found: Sequence[Timings]) -> dict[str, list[Timings]]:
    """Return the works that differ in size alone together."""
    groups: dict[str, list[Timings]] = {}
    for each in (each for each in found if each.timed):
        facts = {key: value for key, value in each.facts.items() if key not in ("n", "steps")}
        groups.setdefault(_heading(facts), []).append(each)
    return {key: sorted(group, key=_rows) for key, group in groups.items()}


def _heading(facts: Mapping[str, Any]) -> str:
    words = [
        f"{facts.get('what', '')}, {facts.get('problem', '')}",
        f"d = {facts.get('d')}",
        str(facts.get("dtype", "")),
    ]
    if facts.get("what") == "descent":
        words.append(f"batches of {facts['batch_size']}" if facts.get("batch_size") else "full batch")
    return ", ".join(words)


def _rows(found: Timings) -> int:
    return int(found.facts.get("n", 0))


def _fill(figure: Figure, groups: Mapping[str, Sequence[Timings]]) -> None:
    names = list(dict.fromkeys(row.name for group in groups.values() for each in reversed(group) for row in each.timed))
    of = marks(names)
    heights = [3.3 if len(group) > 1 else 1.5 + 0.26 * len(group[0].timed) for group in groups.values()]
    lines = math.ceil(len(names) / 5)
    legend = 0.25 * lines + 0.15 if any(len(group) > 1 for group in groups.values()) else 0.0
    figure.set_size_inches(10.5, sum(heights) + legend)
    ratios = [*heights, *([legend] if legend else [])]
    each_part = list(np.ravel(np.asarray(figure.subfigures(len(ratios), 1, height_ratios=ratios))))
    for part, (heading, group) in zip(each_part, groups.items(), strict=False):
        part.suptitle(heading, x=0.01, ha="left", fontweight="bold")
        (_against_size if len(group) > 1 else _of_one_size)(part, group, of)
    if legend:
        each_part[-1].legend(
            handles=[_handle(name, of[name]) for name in names], loc="center", ncols=min(len(names), 5), handlelength=3
        )


def _handle(name: str, mark: Mark) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=mark.colour, marker=mark.marker, linestyle=mark.dashes, label=name)


def _against_size(part: SubFigure, group: Sequence[Timings], of: Mapping[str, Mark]) -> None:
    left, middle, right = part.subplots(1, 3)
    here = [name for name in of if any(row.name == name for each in group for row in each.timed)]
    for place, name in enumerate(here):
        points = [(_rows(each), row) for each in group for row in each.timed if row.name == name]
        aside = _ASIDE ** (place - (len(here) - 1) / 2)  # so that bars do not hide each other
        at, rows = [n * aside for n, _ in points], [row for _, row in points]
        _line(left, of[name], at, [_time(row) for row in rows])
        _line(middle, of[name], at, [_ratio(row) for row in rows])
    sizes = [_rows(each) for each in group]
    left.set(title="time of a call", xlabel="rows n", xscale="log", yscale="log")
    middle.set(title="times as long as the fastest", xlabel="rows n", xscale="log", yscale="log")
    label_log(left.yaxis, _round_duration)
    label_log(middle.yaxis, "{:g}".format)
    for axes in (left, middle):
        label_log(axes.xaxis, "{:,.0f}".format, sizes if len(sizes) <= _MANY_SIZES else None)
        axes.grid(visible=False, which="minor")
    middle.axhline(1, color="#555555", linewidth=0.8, zorder=0)
    _accuracy(right, group[-1], of)


def _of_one_size(part: SubFigure, group: Sequence[Timings], of: Mapping[str, Mark]) -> None:
    left, middle, right = part.subplots(1, 3)
    rows = group[0].timed
    places = list(range(len(rows)))[::-1]
    for axes, value in ((left, _time), (middle, _ratio)):
        for place, row in zip(places, rows, strict=True):
            low, median, high = value(row)
            error = [[median - low], [high - median]]
            axes.errorbar(
                [median], [place], xerr=error, color=of[row.name].colour, marker=of[row.name].marker, capsize=2
            )
        axes.set_xscale("log")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(visible=False, axis="y")
    left.set_yticks(places, [row.name for row in rows])
    middle.set_yticks(places, [""] * len(rows))
    left.set(title=f"time of a call, n = {_rows(group[0]):,}")
    middle.set(title="times as long as the fastest")
    middle.axvline(1, color="#555555", linewidth=0.8, zorder=0)
    label_log(left.xaxis, _round_duration)
    label_log(middle.xaxis, "{:g}".format)
    _accuracy(right, group[0], of)


def _line(axes: Axes, mark: Mark, at: Sequence[float], values: Sequence[tuple[float, float, float]]) -> None:
    low, median, high = np.array(values).T
    bars = [median - low, high - median]
    looks: Any = {"color": mark.colour, "marker": mark.marker, "linestyle": mark.dashes}
    axes.errorbar(at, median, yerr=bars, elinewidth=0.8, capsize=2, **looks)


def _accuracy(axes: Axes, found: Timings, of: Mapping[str, Mark]) -> None:
    """Draw the error against the time."""
    rows = [row for row in found.timed if not math.isnan(row.ulps)]
    axes.set(title=f"error in ulps, n = {_rows(found):,}", xlabel="time of a call", xscale="log")
    axes.grid(visible=False, which="minor")
    if not rows:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no figure of it", ha="center", va="center", transform=axes.transAxes, color="#555555")
        return
    for row in rows:
        assert row.time is not None  # `timed`
        mark = of[row.name]
        axes.plot([row.time.median], [row.ulps], color=mark.colour, marker=mark.marker, linestyle="none", clip_on=False)
    label_log(axes.xaxis, _round_duration)
    most = max(row.ulps for row in rows)
    if most > _LARGE_ULPS:
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(0, max(1.0, (3 if most > _LARGE_ULPS else 1.15) * most))


def _round_duration(seconds: float) -> str:
    """Return 2e-5 as 20 µs: no digits after the point, which ticks have not."""
    for unit, each in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= each * 0.9995:
            return f"{seconds / each:g} {unit}"
    return f"{seconds / 1e-9:g} ns"


def _time(row: Row) -> tuple[float, float, float]:
    assert row.time is not None  # whoever is drawn has one
    return row.time.low, row.time.median, row.time.high


def _ratio(row: Row) -> tuple[float, float, float]:
    assert row.ratio is not None
    return row.ratio.low, row.ratio.median, row.ratio.high
