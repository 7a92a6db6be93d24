"""How our pictures look: one calm style, legible in print, in grey, and to the colour-blind.

Matplotlib comes with `pip install 'gdcompare[plot]'`, and is imported only when a picture is asked for. Nothing of
pyplot is used. Its settings are ours while a picture is drawn or written, whatever the caller's are, and the caller's
again afterwards.
"""

from __future__ import annotations

import io
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdcompare.words import one_line
from gdcompare.writing import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure

MANY_DECADES = 2.0
"""From how many on an axis is labelled at powers of ten alone."""

FORMATS = (".svg", ".png", ".pdf")
MOVING = (".gif", ".mp4")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito, Color Universal Design (2008), but for the yellow, which is too light for a line."""

GREY, PALE = "#555555", "#BBBBBB"
"""For words beside the data, and for lines behind them."""

MARKERS = "osD^vPX<>"
DASHES = ("-", "--", ":", "-.")

_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "svg.hashsalt": "gdcompare",  # the same picture, the same file
    "pdf.fonttype": 42,  # letters stay letters
}

_LONGEST_NAME = 32

_SMALL, _LETTER = 7.5, 0.059
"""The size of small letters, in points, and how wide one is on average, in inches."""


class PlotUnavailableError(ImportError):
    """A picture is asked for, and what draws it is not installed."""


@dataclass(frozen=True)
class Mark:
    """What tells a line from all others, in colour and without."""

    colour: str
    marker: str
    dashes: Any


def marks(names: Iterable[str]) -> dict[str, Mark]:
    """Return a mark for each name, by its place.

    >>> marks(["a", "b"])["b"]
    Mark(colour='#D55E00', marker='s', dashes='--')
    """
    return {
        name: Mark(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, name in enumerate(names)
    }


def words(name: object, most: int = _LONGEST_NAME) -> str:
    r"""Return a name as Matplotlib shows it letter by letter, in one line, not too long, not as a formula.

    >>> words("cost_$"), words("_mine"), words("x" * 40)
    ('cost_\\$', ' _mine', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…')
    """
    line = one_line(name)
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    return f"{' ' * line.startswith('_')}{line}".replace("$", r"\$")  # a label with _ in front would have no legend


@contextmanager
def styled() -> Iterator[None]:
    """Draw in our style meanwhile: Matplotlib's own defaults with our settings, whatever the caller's are.

    Raises PlotUnavailableError where Matplotlib is not installed.
    """
    _require()
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


def part_of(on: Figure | SubFigure | None, width: float, height: float) -> Figure | SubFigure:
    """Return what to draw on: the part that is given, or else a new figure of that size in inches."""
    if on is not None:
        return on
    _require()
    from gdcompare.report.canvas import Picture

    return Picture(figsize=(width, height))


def whole(part: Figure | SubFigure) -> Figure:
    """Return the figure that the part belongs to."""
    found = part.get_figure(root=True)
    assert found is not None  # no part of ours stands alone
    return found


def remark(part: Figure | SubFigure, lines: Iterable[str]) -> None:
    """Say below the picture, in small grey letters, what is to be known of it; nothing where there is no line."""
    most = int(_inches(part) / _LETTER)
    if said := "\n".join(textwrap.fill(line, most) for line in lines if line):
        part.supxlabel(said, x=0.012, ha="left", fontsize=_SMALL, color=GREY, linespacing=1.3)


def legend(part: Figure | SubFigure, axes: Axes) -> None:
    """Name the lines of some axes above them, where they cover nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        widest = 0.7 + _LETTER * 9 / _SMALL * max(map(len, labels))
        columns = max(1, min(len(labels), int(_inches(part) / widest)))
        part.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=columns,
            handlelength=2.6,
            columnspacing=1.4,
            markerscale=1.4,
        )


def _inches(part: Figure | SubFigure) -> float:
    """Return the width of a part."""
    return part.bbox.width / whole(part).dpi


def checked_format(path: str | os.PathLike[str], formats: Sequence[str] = FORMATS) -> str:
    """Return the ending of a picture's file if there is such a format, and what draws it; raise otherwise.

    >>> checked_format("a.gif")
    Traceback (most recent call last):
    ...
    ValueError: 'a.gif' is no .svg, .png or .pdf file
    """
    suffix = Path(path).suffix.lower()
    if suffix not in formats:
        *some, last = formats
        raise ValueError(f"{os.fspath(path)!r} is no {', '.join(some)} or {last} file")
    _require()
    if suffix == ".mp4":
        from matplotlib.animation import FFMpegWriter

        if not FFMpegWriter.isAvailable():
            raise PlotUnavailableError(
                "an .mp4 file needs the program ffmpeg, which is not here; write to .gif instead"
            )
    return suffix


def write(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure; the same results make the same bytes. Raises as `checked_format`, and OSError."""
    suffix = checked_format(path)
    content = io.BytesIO()
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
    with styled():
        figure.savefig(content, format=suffix[1:], metadata=undated)
    write_bytes(path, _numbered(content.getvalue()) if suffix == ".svg" else content.getvalue())


def _numbered(svg: bytes) -> bytes:
    """Name what clips by its place: Matplotlib hashes boxes of a layout that varies in its last bits."""
    names = dict.fromkeys(re.findall(rb'<clipPath id="(p[0-9a-f]{10})"', svg))
    places = {name: b"clip-%d" % place for place, name in enumerate(names)}
    return re.sub(rb'(\bid="|url\(#)(p[0-9a-f]{10})\b', lambda each: each[1] + places.get(each[2], each[2]), svg)


def label_log(axis: Axis, words: Callable[[float], str], ticks: Sequence[float] | None = None) -> None:
    """Label a logarithmic axis at 1, 2 and 5 times powers of ten, at the powers where they are many, or at ticks."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    decades = math.log10(high / low) if 0 < low < high else 1.0
    if ticks is not None:
        axis.set_major_locator(FixedLocator(list(ticks)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < MANY_DECADES else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))
    axis.set_minor_formatter(NullFormatter())


def _require() -> None:
    try:
        import matplotlib as _  # noqa: F401 - whether it is there
    except ModuleNotFoundError:
        raise PlotUnavailableError("pictures need 'matplotlib': pip install 'gdcompare[plot]'") from None
