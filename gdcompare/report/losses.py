"""How fast descents go down: the loss against steps, samples and seconds, and the distance to the optimum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gdcompare.case import DataLike, data_for
from gdcompare.descent.directions import Plain
from gdcompare.descent.record import Descent
from gdcompare.descent.sampling import steps_per_epoch
from gdcompare.descent.schedules import Constant
from gdcompare.problem import Problem
from gdcompare.registry import as_problem
from gdcompare.report import look
from gdcompare.report.paths import Descents, named
from gdcompare.report.planes import Floats, flat
from gdcompare.report.quadratic import quadratic_of
from gdcompare.report.thinning import thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_RISE = 1e3
"""What rises beyond so many times where the descents begin is cut off."""

_DEEPEST = 1e-20
"""What is below this share of the largest value is rounding, and decides nothing about how a line is thinned."""

_PREDICTED = look.Mark("black", "", (0, (4, 4)))

_WIDE = 20.0
"""An axis whose values differ by more than this factor is logarithmic."""


@look.styled()
def losses(descents: Descents, *, on: SubFigure | None = None) -> Figure:
    """Draw the losses of descents, `{name: descent}`, against the steps, the samples that were read, and the seconds.

    A loss is drawn where the step that met it ends. Where a step sees but a batch, the thin line is the loss of the
    batch, and the thick one its mean over the last epoch. Seconds are those of `history.seconds`, single runs with a
    compiler's time, and are left out where a descent has none. What rises beyond a thousand times where the descents
    begin is cut off, and said.

    Raises ValueError if there is no loss to draw.

    >>> import gdcompare as gdc
    >>> fit = gdc.descend("linear-regression", "noisy-line", "numpy", batch_size=2, epochs=15)
    >>> [axes.get_xlabel() for axes in losses(fit).axes]
    ['steps', 'samples read', 'seconds']
    """
    descents = named(descents)
    if not any(len(each.history.losses) for each in descents.values()):
        raise ValueError("there is no loss to draw: give at least one descent that took a step, {name: descent}")
    scales = {"steps": _steps, "samples read": _samples, "seconds": _seconds}
    if not all(len(each.history.seconds) for each in descents.values()):
        del scales["seconds"]
    part = look.part_of(on, 3.1 * len(scales), 3.2)
    marks = look.marks(descents)
    ceiling = _RISE * max(_first_loss(each) for each in descents.values())
    row = np.atleast_1d(part.subplots(1, len(scales), sharey=True))
    for axes, (label, scale) in zip(row, scales.items(), strict=True):
        for name, descent in descents.items():
            x = scale(descent)[1 : len(descent.history.losses) + 1]
            _draw_losses(axes, x, descent, marks[name], name, ceiling)
        axes.set_xlabel(label)
        _suit(axes, "x")
    row[0].set_ylabel("loss")
    _suit(row[0], "y")
    thick = np.concatenate([line.get_ydata() for line in row[0].lines if line.get_alpha() is None])
    if row[0].get_yscale() == "log" and (lowest := np.nanmin(thick, initial=np.inf)) > 0 and np.isfinite(lowest):
        row[0].set_ylim(bottom=lowest / 3)  # a batch may fit by chance
    look.legend(part, row[0])
    batched = any(each.batch_size is not None for each in descents.values())
    look.remark(
        part,
        [
            "Of batches: thin, the loss of the batch; thick, its mean over the last epoch." * batched,
            "Seconds are of one run each: no fair comparison." * ("seconds" in scales),
            *(_beyond(name, each.history.losses, ceiling) for name, each in descents.items()),
        ],
    )
    return look.whole(part)


@look.styled()
def distances(problem: str | Problem, data: DataLike, descents: Descents, *, on: SubFigure | None = None) -> Figure:
    """Draw how far descents, `{name: descent}`, are from the optimum theta*, by logarithm, beside what is predicted.

    Of a quadratic loss with the Hessian H it is known beforehand how far plain full-batch gradient descent with a
    constant rate a is after t steps: |(I - a H)^t (theta_0 - theta*)|, which in the end shrinks by max |1 - a lambda| a
    step, lambda being the eigenvalues of H (Nesterov, Introductory Lectures on Convex Optimization, 2004, section
    1.2.3). That is the dashed line. For batches and other rules there is none, and it is left out.

    Raises ValueError if the loss is no quadratic of at most 200 parameters: its optimum is not known.

    >>> import gdcompare as gdc
    >>> fit = gdc.descend("linear-regression", "noisy-line", "numpy", gdc.rules.sgd(0.1), epochs=200)
    >>> lines = distances("linear-regression", "noisy-line", fit).axes[0].lines
    >>> [line.get_label() for line in lines]
    ['full batch', 'predicted: 0.9389 a step']
    """
    problem = as_problem(problem)
    data, descents = data_for(problem, data), named(descents)
    first = next(iter(descents.values())).history.parameters
    known = quadratic_of(problem, data, {name: each[0].astype(np.float64) for name, each in first.items()})
    if known is None:
        raise ValueError(
            f"the optimum of {type(problem).__name__} is not known: its loss is no quadratic of at most 200 parameters"
        )
    part = look.part_of(on, 5.2, 3.6)
    axes = part.subplots()
    marks, unforeseen, remarks = look.marks(descents), [], []
    points = {name: flat(each.history.parameters, 1) for name, each in descents.items()}
    found = {name: known.distances(each) for name, each in points.items()}
    ceiling = _RISE * max(float(each[0]) for each in found.values())
    for name, descent in descents.items():
        steps, away = _steps(descent), found[name]
        _draw(axes, steps, away, marks[name], ceiling, label=look.words(name))
        remarks.append(_beyond(name, away, ceiling))
        rate = _constant_rate(descent)
        if rate is None:
            unforeseen.append(name)
            continue
        factor = f"predicted: {known.factor(rate):.4g} a step"
        factor = "" if factor in axes.get_legend_handles_labels()[1] else factor
        ahead = known.predicted(points[name][0], rate, steps)
        _draw(axes, steps, ahead, _PREDICTED, ceiling, label=factor, linewidth=0.9)
    axes.set(
        title=f"{type(problem).__name__} on {look.words(data.name)}", xlabel="step", ylabel="distance to the optimum"
    )
    axes.set_yscale("log")
    shown = np.concatenate([each[(each > 0) & (each <= ceiling)] for each in found.values()])
    if shown.size:
        axes.set_ylim(shown.min() / 10, shown.max() * 3)  # a prediction knows no rounding, and would go on
    look.legend(part, axes)
    said = f"No rate is predicted for {', '.join(map(repr, unforeseen))}: batches, or another rule." * bool(unforeseen)
    look.remark(part, [said, *remarks])
    return look.whole(part)


def epoch_means(descent: Descent) -> Floats:
    """Return the mean loss of the last epoch's worth of kept steps, (m,); NaN before there is one."""
    found = descent.history.losses.astype(np.float64)
    every = int(descent.history.steps[1]) if len(found) > 1 else 1
    window = max(1, steps_per_epoch(descent.rows, descent.batch_size) // max(1, every)) if descent.rows else 1
    if window > len(found):
        return np.full(len(found), math.nan)
    with np.errstate(all="ignore"):
        means = np.convolve(found, np.full(window, 1 / window), mode="valid")
    return np.concatenate([np.full(window - 1, math.nan), means])


def _draw_losses(axes: Axes, x: Floats, descent: Descent, mark: look.Mark, name: str, ceiling: float) -> None:
    own = descent.history.losses.astype(np.float64)
    if descent.batch_size is None:
        _draw(axes, x, own, mark, ceiling, label=look.words(name))
        return
    _draw(axes, x, own, mark, ceiling, linewidth=0.5, alpha=0.45)
    _draw(axes, x, epoch_means(descent), mark, ceiling, label=look.words(name))


def _first_loss(descent: Descent) -> float:
    """Return the loss at the start: of batches, the mean of the first few."""
    first = descent.history.losses[: 1 if descent.batch_size is None else 20].astype(np.float64)
    first = first[np.isfinite(first)]
    return float(first.mean()) if first.size else 0.0


def _beyond(name: str, values: Floats, ceiling: float) -> str:
    """Say where a line leaves the picture, if it does."""
    with np.errstate(invalid="ignore"):
        out = ~(values <= ceiling) if ceiling > 0 else ~np.isfinite(values)
    return f"{name!r} rises out of the picture, to {np.fmax.reduce(values[out]):.3g}." if out.any() else ""


def _draw(axes: Axes, x: Floats, y: Floats, mark: look.Mark, ceiling: float, **how: Any) -> None:
    """Draw a line, thinned by how it looks on logarithmic axes, as far as it is finite and below the ceiling."""
    with np.errstate(invalid="ignore"):
        seen = np.isfinite(y) & ((y <= ceiling) | (ceiling <= 0))
    x, y = x[seen], y[seen]
    least = max(float(np.max(y, initial=0.0)) * _DEEPEST, np.finfo(float).tiny)
    some = thinned(np.log(np.stack([np.maximum(x, x[1:2].min(initial=1.0)), np.maximum(y, least)], axis=1)))
    settings: dict[str, Any] = {"color": mark.colour, "linestyle": mark.dashes, "linewidth": 1.4} | how
    axes.plot(x[some], y[some], **settings)


def _suit(axes: Axes, which: str) -> None:
    """Make an axis logarithmic if what is on it asks for it."""
    index = "xy".index(which)
    values = np.concatenate([np.asarray(line.get_data()[index], dtype=np.float64) for line in axes.lines])
    if values.size and values.min() > 0 and values.max() > _WIDE * values.min():
        getattr(axes, f"set_{which}scale")("log")


def _constant_rate(descent: Descent) -> float | None:
    """Return the rate of plain full-batch gradient descent; None of anything else."""
    rule = descent.rule
    if rule is None or rule.direction != Plain() or not isinstance(rule.learning_rate, Constant):
        return None
    return rule.learning_rate.rate if descent.batch_size in (None, descent.rows) else None


def _steps(descent: Descent) -> Floats:
    return descent.history.steps.astype(np.float64)


def _samples(descent: Descent) -> Floats:
    return descent.samples.astype(np.float64)


def _seconds(descent: Descent) -> Floats:
    return descent.history.seconds
