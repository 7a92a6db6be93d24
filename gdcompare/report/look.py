"""How our pictures look: one calm style, legible in print, in grey, and to the colour-blind.

Matplotlib comes with `pip install 'gdcompare[plot]'`, and is imported only when a picture is asked for.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdcompare.writing import write_bytes

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MANY_DECADES = 2.0
"""From how many on an axis is labelled at powers of ten alone."""

FORMATS = (".svg", ".png", ".pdf")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito, Color Universal Design (2008), but for the yellow, which is too light for a line."""

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
    "savefig.dpi": 160,
    "svg.hashsalt": "gdcompare",  # the same picture, the same file
    "text.parse_math": False,  # a dollar in a name begins no formula
    "pdf.fonttype": 42,  # letters stay letters
}


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


def checked_format(path: str | os.PathLike[str]) -> str:
    """Return the ending of a picture's file if there is such a format, and what draws it; raise otherwise.

    >>> checked_format("a.gif")
    Traceback (most recent call last):
    ...
    ValueError: 'a.gif' is no .svg, .png or .pdf file
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        *some, last = FORMATS
        raise ValueError(f"{os.fspath(path)!r} is no {', '.join(some)} or {last} file")
    try:
        import matplotlib as _  # noqa: F401 - whether it is there
    except ModuleNotFoundError:
        raise PlotUnavailableError("pictures need 'matplotlib': pip install 'gdcompare[plot]'") from None
    return suffix


def draw(path: str | os.PathLike[str], fill: Callable[[Figure], object]) -> None:
    """Write the picture that `fill` draws on an empty figure. Raises as `checked_format`, and OSError."""
    suffix = checked_format(path)
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure()
        fill(figure)
        content = io.BytesIO()
        undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
        figure.savefig(content, format=suffix[1:], metadata=undated)
    write_bytes(path, content.getvalue())


def label_log(axis: Axis, words: Callable[[float], str], ticks: Sequence[float] | None = None) -> None:
    """Label a logarithmic axis at ticks, or at 1, 2 and 5 times powers of ten, or where these are many at powers."""
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
