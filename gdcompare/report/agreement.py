"""What a report says, seen: who agrees, how much of its budget each error takes, and how many digits that checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gdcompare.models.comparison import Comparison, Training
from gdcompare.referee.verdict import Entry, Report, Verdict
from gdcompare.report import look
from gdcompare.report.thinning import thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_RANK: dict[Verdict, int] = {"agree": 0, "inconclusive": 1, "wrong": 2}
_FILL: dict[Verdict, tuple[str, str, str]] = {
    "agree": ("#DCE9F5", "#1A1A1A", ""),
    "inconclusive": ("#F3CF8E", "#1A1A1A", "///"),
    "wrong": ("#8C1C13", "#FFFFFF", ""),
}
"""Of each verdict: the colour of a cell, that of the words on it, and its hatching; three shades of grey in print."""

_MOST_WORDS = 16
"""Cells of a row with words in them; more are too narrow for that."""

_MOST_LABELS, _LONGEST = 40, 48
_MOST_LETTERS = 60
"""Labels of more letters than these together stand aslant."""

_LEAST_SHARE, _MOST_SHARE = 1e-4, 1e3


@look.styled()
def heat_map(report: Report, *, on: SubFigure | None = None) -> Figure:
    """Draw a cell for each implementation and parameter: its verdict, and its error in ulps.

    Of a report on batch laws, a row is a law and a column an implementation; of a comparison of models, per-sample
    gradients have rows of their own. A cell that stands for several entries has the worst of them.

    Raises ValueError if the report is empty.

    >>> import gdcompare as gdc
    >>> report = gdc.verify("linear-regression", "noisy-line", backends=["numpy"])
    >>> [text.get_text() for text in heat_map(report).axes[0].texts]
    ['0.266 ulp', '1.47 ulp', '0.846 ulp']
    """
    _refuse_empty(report)
    cells, rows, columns, what = _cells(report)
    width = 1.2 + _widest(rows) + 0.62 * min(len(columns), _MOST_WORDS)
    part = look.part_of(on, max(4.5, width), 1.5 + 0.3 * min(len(rows), _MOST_LABELS) + 0.7 * _widest(columns))
    axes = part.subplots()
    from matplotlib.patches import Patch, Rectangle

    for (row, column), entry in cells.items():
        fill, ink, hatch = _FILL[entry.verdict]
        x, y = columns.index(column), rows.index(row)
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=fill, edgecolor="white", hatch=hatch, linewidth=1.2))
        if len(columns) <= _MOST_WORDS:
            axes.text(x + 0.5, y + 0.5, _ulps(entry), ha="center", va="center", fontsize=7.5, color=ink)
    axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0), title=what)
    _name(axes, "x", columns)
    _name(axes, "y", rows)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    found = {entry.verdict for entry in cells.values()}
    handles = [
        Patch(facecolor=fill, hatch=hatch, edgecolor="white", label=verdict)
        for verdict, (fill, _, hatch) in _FILL.items()
        if verdict in found
    ]
    part.legend(handles=handles, loc="outside upper left", ncols=3)
    many = "A cell shows the worst of its parameters." * any(entry.law for entry in report.entries)
    look.remark(part, [many if not isinstance(report, Comparison) else "", _evidence(report)])
    return look.whole(part)


@look.styled()
def budget_shares(report: Report, *, on: SubFigure | None = None) -> Figure:
    """Draw each error as a share of its budget, |actual - truth| / budget, by parameter: up to 1 agrees.

    Shares below 1e-4 and above 1000 stand at the edges. An entry without a share, as of a wrong shape, is named below.

    Raises ValueError if the report is empty.

    >>> import gdcompare as gdc
    >>> report = gdc.verify("linear-regression", "noisy-line", backends=["numpy"])
    >>> budget_shares(report).axes[0].get_xlabel()
    'error / budget'
    """
    _refuse_empty(report)
    part, axes = _dots(report, lambda entry: float(np.clip(entry.budget_fraction, _LEAST_SHARE, _MOST_SHARE)), on)
    axes.axvline(1, color="black", linewidth=1.1, zorder=1)
    axes.set(xscale="log", xlabel="error / budget", title="share of the rounding budget")
    large = any(each.budget_fraction > 1 for each in report.entries)
    axes.set_xlim(_LEAST_SHARE / 1.6, 1.6 * _MOST_SHARE if large else 3)
    lost = [f"{each.implementation}: {_row(each)}" for each in report.entries if math.isnan(each.budget_fraction)]
    said = f"No share: {_first_few(lost)}." * bool(lost)
    edges = f"What is below 1e-4{' or above 1e3' * large} stands at the edge."
    look.remark(part, [f"Left of the line agrees. {edges}", said, _evidence(report)])
    return look.whole(part)


@look.styled()
def digits(report: Report, *, on: SubFigure | None = None) -> Figure:
    """Draw how many decimal digits were checked, by parameter: no fault that changes one of them can hide.

    Raises ValueError if the report is empty, or is a comparison of models, which has none.

    >>> import gdcompare as gdc
    >>> report = gdc.verify("linear-regression", "noisy-line", backends=["numpy"])
    >>> digits(report).axes[0].lines[0].get_xdata().tolist()
    [14.0, 14.0, 13.0]
    """
    _refuse_empty(report)
    if isinstance(report, Comparison | Training):
        raise ValueError("a comparison of models has estimated budgets, and no digits; draw its budget_shares")
    part, axes = _dots(report, lambda entry: float(entry.digits), on)
    dtype = str(report.context.get("dtype", "float64"))
    most = math.floor(-math.log10(float(np.finfo(dtype).eps) / 2))
    axes.axvline(most, color="black", linewidth=0.9, linestyle=":")
    axes.set(xlim=(-0.5, most + 1), xlabel="decimal digits", title="digits checked")
    look.remark(part, [f"Dotted: {most}, what {dtype} holds.", _evidence(report)])
    return look.whole(part)


@look.styled()
def layers(comparison: Comparison, *, on: SubFigure | None = None) -> Figure:
    """Draw how much of its budget the difference of each layer takes, in order of execution, forward and backward.

    The first layer that differs is marked. Raises ValueError if no layer was seen.
    """
    if not comparison.layers:
        raise ValueError("no layer was seen on both sides: there are none to draw")
    names = list(dict.fromkeys(each.parameter for each in comparison.layers))
    part = look.part_of(on, max(5.4, min(14.0, 1.2 + 0.3 * len(names))), 3.0 + 0.7 * _widest(names))
    axes = part.subplots()
    lines = {f"{each.implementation}, {each.law}": (each.implementation, each.law) for each in comparison.layers}
    for label, mark in look.marks(lines).items():
        of = lines[label]
        found = [each for each in comparison.layers if (each.implementation, each.law) == of]
        seen = [each for each in found if math.isfinite(each.budget_fraction)]
        shares = [max(each.budget_fraction, _LEAST_SHARE) for each in seen]
        axes.plot(
            [names.index(each.parameter) for each in seen],
            shares,
            color=mark.colour,
            marker=mark.marker,
            linestyle=mark.dashes,
            linewidth=0.9,
            label=look.words(label),
        )
    axes.axhline(1, color="black", linewidth=1.1, zorder=1)
    if (first := comparison.first_difference) is not None:
        axes.axvline(names.index(first.parameter), color=look.COLOURS[1], linewidth=6, alpha=0.25, zorder=0)
    axes.set(yscale="log", ylabel="difference / budget", title="layers, in order of execution")
    _name(axes, "x", names, 0.0)
    look.legend(part, axes)
    said = "" if first is None else f"The first to differ: {first.parameter}, {first.law}."
    look.remark(part, [said, "Below the line agrees. Backward, the gradients come from the right."])
    return look.whole(part)


@look.styled()
def training(found: Training, *, on: SubFigure | None = None) -> Figure:
    """Draw the losses of models on their way through a training, and how far they are from the first of them.

    Raises ValueError if no step was taken.

    >>> import gdcompare as gdc
    >>> def loss(p, features, targets):
    ...     return ((features @ p["w"] - targets) ** 2).mean()
    >>> def slope(p, features, targets):
    ...     return {"w": 2 * (features @ p["w"] - targets) @ features / len(targets)}
    >>> models = [gdc.from_functions(loss, slope, {"w": [0.7]}, name=name) for name in ("one", "other")]
    >>> len(training(gdc.compare_training(models, gdc.datasets.noisy_line(), steps=3)).axes)
    2
    """
    if not found.losses or not all(len(each) for each in found.losses.values()):
        raise ValueError("the training took no step: there is none to draw")
    part = look.part_of(on, 5.6, 4.6)
    above, below = part.subplots(2, 1, sharex=True)
    marks = look.marks(found.losses)
    for axes, values in ((above, found.losses), (below, found.apart)):
        for name, each in values.items():
            seen = np.flatnonzero(np.isfinite(each) & ((each > 0) | (axes is above)))
            some = seen[thinned(np.stack([seen.astype(np.float64), np.asarray(each, dtype=np.float64)[seen]], axis=1))]
            style = {"color": marks[name].colour, "linestyle": marks[name].dashes}
            axes.plot(some, each[some], label=look.words(name), marker="." if len(some) < 30 else "", **style)
    if found.first_bad_step is not None:
        for axes in (above, below):
            axes.axvline(found.first_bad_step, color=look.COLOURS[1], linewidth=6, alpha=0.25, zorder=0)
    above.set(ylabel="loss", title="through a training")
    below.set(xlabel="step", ylabel="distance from the first")
    if any((np.asarray(each) > 0).any() for each in found.apart.values()):
        below.set_yscale("log")
    look.legend(part, above)
    bad = "" if found.first_bad_step is None else f"The first bad step: {found.first_bad_step}."
    look.remark(
        part, [bad, "Distance: the largest difference, as a share of the array's largest value; 0 is not drawn."]
    )
    return look.whole(part)


def _refuse_empty(report: Report) -> None:
    if not report.entries:
        raise ValueError("the report is empty: it has no entry to draw")


def _cells(report: Report) -> tuple[dict[tuple[str, str], Entry], list[str], list[str], str]:
    """Return the worst entry of each cell, by row and column, and the rows, the columns and a title."""
    compared = isinstance(report, Comparison)
    by_law = any(entry.law for entry in report.entries) and not compared
    cells: dict[tuple[str, str], Entry] = {}
    for entry in report.entries:
        if by_law:
            where = entry.law, entry.implementation
        else:
            where = f"{entry.implementation}, {entry.law}" if entry.law else entry.implementation, entry.parameter
        if where not in cells or _badness(entry) > _badness(cells[where]):
            cells[where] = entry
    rows, columns = (list(dict.fromkeys(where[i] for where in cells)) for i in (0, 1))
    about = report.context.get("problem", "")
    data = report.context.get("data", "")
    title = look.words(about) + (f" on {look.words(data)}" if data else "") or "agreement"
    return cells, rows, columns, title


def _badness(entry: Entry) -> tuple[int, float]:
    return _RANK[entry.verdict], math.inf if math.isnan(entry.budget_fraction) else entry.budget_fraction


def _ulps(entry: Entry) -> str:
    if math.isnan(entry.error_ulps):
        return entry.verdict if entry.worst_index is None else "?"
    return f"{entry.error_ulps:.3g} ulp" if entry.error_ulps < 1e4 else f"{entry.error_ulps:.0e} ulp"


def _dots(
    report: Report, value: Callable[[Entry], float], on: Figure | SubFigure | None
) -> tuple[Figure | SubFigure, Axes]:
    """Draw a dot for each entry, in a row for each parameter, or law and parameter; NaN is left out."""
    rows = list(dict.fromkeys(map(_row, report.entries)))
    names = list(dict.fromkeys(entry.implementation for entry in report.entries))
    part = look.part_of(on, 4.6 + _widest(rows), 1.6 + max(0.24, 0.1 * len(names)) * min(len(rows), _MOST_LABELS))
    axes = part.subplots()
    for place, (name, mark) in enumerate(look.marks(names).items()):
        own = [entry for entry in report.entries if entry.implementation == name]
        shift = 0.7 * ((place + 0.5) / len(names) - 0.5)
        seen = [(value(entry), rows.index(_row(entry)) + shift) for entry in own]
        drawn = [each for each in seen if not math.isnan(each[0])]
        x, y = zip(*drawn, strict=True) if drawn else ((), ())
        axes.plot(x, y, mark.marker, color=mark.colour, alpha=0.9, label=look.words(name))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    for edge in range(1, len(rows)):
        axes.axhline(edge - 0.5, color="#EEEEEE", linewidth=0.6, zorder=0)
    _name(axes, "y", rows, 0.0)
    look.legend(part, axes)
    return part, axes


def _row(entry: Entry) -> str:
    return f"{entry.law}: {entry.parameter}" if entry.law else entry.parameter


def _widest(names: Sequence[str]) -> float:
    """Return how many inches the longest name takes, as it is shown."""
    return 0.07 * min(_LONGEST, max(map(len, names), default=0))


def _name(axes: Axes, which: str, names: Sequence[str], offset: float = 0.5) -> None:
    """Name places along an axis; of very many, some."""
    every = -(-len(names) // _MOST_LABELS)
    chosen = range(0, len(names), every)
    labels = [look.words(names[i], _LONGEST) for i in chosen]
    if which == "y":
        axes.set_yticks([i + offset for i in chosen], labels)
        return
    axes.set_xticks([i + offset for i in chosen], labels)
    if sum(len(label) + 2 for label in labels) > _MOST_LETTERS:
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _evidence(report: Report) -> str:
    """Return what the verdict is, and whether it is proven."""
    sampled = any(entry.grade == "sampled" for entry in report.entries)
    kinds = {each.evidence for each in report.evidence} if isinstance(report, Comparison) else set()
    by_truth = kinds == {"truth"}
    if isinstance(report, Comparison | Training) and not by_truth:
        return f"Verdict: {report.verdict}; budgets are estimated."
    return f"Verdict: {report.verdict}; budgets are {'partly sampled' if sampled else 'proven'}."


def _first_few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
