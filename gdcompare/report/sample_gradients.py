"""The gradients of single samples and of batches: their fan, whose mean is the gradient, and their cloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.report import look
from gdcompare.report.planes import Floats, chosen_elements, element_names, flat
from gdcompare.table import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Gradients = Mapping[str, ArrayLike]

_MOST_ARROWS = 400
_MOST_NUMBERS = 20_000_000
"""Fewer batches are drawn where they would hold more numbers than this."""


@look.styled()
def fan(
    per_sample: Gradients, gradient: Gradients, axes: str | Sequence[str] | None = None, *, on: SubFigure | None = None
) -> Figure:
    """Draw the gradients of the samples, `{name: (n, *shape)}`, as arrows, and their mean upon the gradient.

    They are what `per_sample_grad` and `value_and_grad` return. Of more than two elements, the two that `axes` names
    are seen, or else those that vary most. Of more than 400 samples every k-th arrow is drawn; the mean is of all.

    Raises ValueError if there are no gradients, or they do not fit, or are not finite.

    >>> import gdcompare as gdc
    >>> where = "linear-regression", "noisy-line", {"theta_0": 1, "theta_1": [0]}, "numpy"
    >>> picture = fan(gdc.per_sample_grad(*where), gdc.value_and_grad(*where)[1])
    >>> picture.axes[0].get_title("left")
    'the mean of 40 per-sample gradients is the gradient, to 8.9e-16'
    """
    rows, shapes = _rows(per_sample)
    whole = flat(gradient)
    if {name: np.shape(each) for name, each in gradient.items()} != shapes:
        raise ValueError("the per-sample gradients are of other parameters than the gradient, or of other shapes")
    part = look.part_of(on, 5.6, 4.6)
    plot = part.subplots()
    places, said = _two_of(rows, shapes, axes)
    mean = rows.mean(axis=0)
    off = float(np.abs(mean - whole).max())
    every = -(-len(rows) // _MOST_ARROWS)
    ends = rows[::every][:, places]
    _arrows(plot, ends, color=look.COLOURS[5], width=0.0022, alpha=0.8, label=count(len(ends), "per-sample gradient"))
    _arrows(plot, whole[None, places], color=look.COLOURS[0], width=0.013, label="the gradient", zorder=4)
    _arrows(plot, mean[None, places], color=look.COLOURS[1], width=0.0045, label="mean of all samples", zorder=5)
    _around(plot, np.concatenate([ends, whole[None, places], np.zeros((1, len(places)))]))
    names = element_names(shapes)
    plot.set(**dict(zip(("xlabel", "ylabel"), [f"by {look.words(names[i])}" for i in places], strict=False)))
    plot.set_title(f"the mean of {len(rows)} per-sample gradients is the gradient, to {off:.2g}")
    look.legend(part, plot)
    look.remark(part, [said, f"One in {every} of {len(rows)} is drawn." * (every > 1)])
    return look.whole(part)


@look.styled()
def cloud(
    per_sample: Gradients,
    sizes: Sequence[int] | None = None,
    axes: str | Sequence[str] | None = None,
    *,
    draws: int = 400,
    seed: int = 0,
    on: SubFigure | None = None,
) -> Figure:
    """Draw the gradients of random mini-batches, and how their variance shrinks with the batch size, as the law says.

    Of b rows out of n, drawn without replacement, the mean squared distance of their gradient G_b from G is

        E |G_b - G|^2 = (1/b) (n - b) / (n - 1) 1/n sum_i |g_i - G|^2

    (Cochran, Sampling Techniques, 1977, theorem 2.2), g_i being the per-sample gradients, `{name: (n, *shape)}`. It is
    measured on `draws` batches of each size; the bars are two standard errors. The ellipses hold 95 % of a normal
    distribution of that variance. Axes are those of `fan`.

    Raises ValueError if there are fewer than three samples, or a size is not from 1 to n - 1.

    >>> import gdcompare as gdc
    >>> where = "linear-regression", "noisy-line", {"theta_0": 1, "theta_1": [0]}, "numpy"
    >>> picture = cloud(gdc.per_sample_grad(*where), [1, 4, 16])
    >>> [each.get_text() for each in picture.axes[1].get_legend().get_texts()]
    ['predicted', 'with replacement: 1/b', 'measured']
    """
    rows, shapes = _rows(per_sample)
    n = len(rows)
    if n < 3:
        raise ValueError(f"a cloud of mini-batches needs at least 3 samples, not {n}")
    chosen = [2**k for k in range(n.bit_length()) if 2**k <= n - 1] if sizes is None else sorted(set(sizes))
    if not chosen or not all(1 <= b <= n - 1 for b in chosen):
        raise ValueError(f"batch sizes must be whole numbers from 1 to {n - 1}, not {sizes}")
    chosen = [b for b in chosen if 3 * b * rows.shape[1] <= _MOST_NUMBERS] or chosen[:1]
    part = look.part_of(on, 9.0, 4.2)
    left, right = part.subplots(1, 2)
    places, said = _two_of(rows, shapes, axes)
    mean = rows.mean(axis=0)
    spread = float(np.mean(np.sum((rows - mean) ** 2, axis=1)))
    generator = np.random.default_rng(seed)
    shown = [chosen[int(i)] for i in np.unique(np.linspace(0, len(chosen) - 1, min(3, len(chosen))).astype(int))]
    marks = look.marks(map(str, shown))
    measured, errors = [], []
    for b in chosen:
        number = max(3, min(draws, _MOST_NUMBERS // (b * rows.shape[1])))
        found = np.stack([rows[generator.choice(n, b, replace=False)].mean(axis=0) for _ in range(number)])
        squares = np.sum((found - mean) ** 2, axis=1)
        measured.append(float(squares.mean()))
        errors.append(2 * float(squares.std(ddof=1)) / number**0.5)
        if b in shown:
            mark = marks[str(b)]
            label = f"batches of {b}" if b > 1 else "single samples"
            x, y = (found[:, places] if len(places) == 2 else np.stack([found[:, 0], np.zeros(number)], 1)).T
            left.scatter(x, y, s=9, color=mark.colour, marker=mark.marker, alpha=0.55, linewidths=0, label=label)
            if len(places) == 2:
                _ellipse(left, rows[:, places], _share(n, b), mark)
    centre = mean[places] if len(places) == 2 else [mean[0], 0.0]
    left.plot(*centre, "+", color="black", markersize=11, markeredgewidth=1.6, label="the gradient", zorder=6)
    names = element_names(shapes)
    left.set(**dict(zip(("xlabel", "ylabel"), [f"by {look.words(names[i])}" for i in places], strict=False)))
    left.set_title("gradients of random mini-batches")
    dense = np.unique(np.geomspace(chosen[0], chosen[-1], 200))
    right.plot(dense, spread * _share(n, dense), color="black", linewidth=1.2, label="predicted")
    right.plot(dense, spread / dense, color=look.PALE, linestyle="--", label="with replacement: 1/b", zorder=1)
    how = {"fmt": "o", "color": look.COLOURS[1], "markersize": 4, "capsize": 2.5, "elinewidth": 1}
    right.errorbar(
        chosen, measured, yerr=[np.minimum(errors, np.multiply(0.99, measured)), errors], label="measured", **how
    )
    right.set(xscale="log", xlabel="batch size b", title="mean squared distance from the gradient")
    if spread > 0:
        right.set_yscale("log")
    look.label_log(right.xaxis, "{:,.0f}".format, chosen if len(chosen) <= 12 else None)
    right.legend(fontsize=7.5, handletextpad=0.4)
    look.legend(part, left)
    number = count(draws, "batch", "batches")
    look.remark(
        part, [said, f"Up to {number} of each size, without replacement, of {n} samples; bars: 2 standard errors."]
    )
    return look.whole(part)


def _share(n: int, b: Any) -> Any:
    """Return (1/b) (n - b) / (n - 1)."""
    return (n - b) / (b * (n - 1))


def _rows(per_sample: Gradients) -> tuple[Floats, dict[str, tuple[int, ...]]]:
    """Return the gradients as (n, P), and the shape of each parameter."""
    arrays = {name: np.asarray(each) for name, each in per_sample.items()}
    lengths = {each.shape[0] if each.ndim else -1 for each in arrays.values()}
    if len(lengths) != 1 or lengths & {-1, 0}:
        raise ValueError("there are no per-sample gradients to draw: they are {name: (n, *shape)}, n the same for all")
    rows = flat(arrays, 1)
    if not np.isfinite(rows).all():
        row = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise ValueError(f"the gradient of sample {row} is not finite, and cannot be drawn")
    return rows, {name: each.shape[1:] for name, each in arrays.items()}


def _two_of(
    rows: Floats, shapes: Mapping[str, tuple[int, ...]], axes: str | Sequence[str] | None
) -> tuple[list[int], str]:
    """Return the places of the elements to see, and what is to be said of that."""
    size = rows.shape[1]
    if axes is not None:
        return chosen_elements(axes, shapes), f"Two of {size} elements are seen." * (size > 2)
    if size <= 2:
        return list(range(size)), ""
    places = np.sort(np.argsort(-rows.std(axis=0), kind="stable")[:2])
    return [int(i) for i in places], f"Of {size} elements, the two that vary most are seen."


def _arrows(axes: Axes, ends: NDArray[Any], **how: Any) -> None:
    """Draw arrows from 0 to the ends (m, 2), or (m, 1) along a line."""
    x = ends[:, 0]
    y = ends[:, 1] if ends.shape[1] > 1 else np.zeros(len(ends))
    zero = np.zeros(len(ends))
    axes.quiver(zero, zero, x, y, angles="xy", scale_units="xy", scale=1, **how)


def _around(axes: Axes, points: Floats) -> None:
    """Set limits around the points, with some room."""
    for which, values in zip("xy", points.T, strict=False):
        extent = float(np.ptp(values)) or 1.0
        getattr(axes, f"set_{which}lim")(values.min() - 0.08 * extent, values.max() + 0.08 * extent)


def _ellipse(axes: Axes, points: Floats, share: float, mark: look.Mark) -> None:
    """Draw what holds 95 % of a normal distribution with the points' covariance, times the share."""
    covariance = np.cov(points.T, bias=True) * share
    widths, directions = np.linalg.eigh(covariance)
    angles = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    edge = points.mean(axis=0)[:, None] + directions @ (np.sqrt(np.maximum(5.991 * widths, 0))[:, None] * circle)
    axes.plot(*edge, color=mark.colour, linewidth=1.0, linestyle=mark.dashes)
