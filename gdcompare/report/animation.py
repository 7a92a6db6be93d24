"""Descents as a film: the line among the data and the point in the plane of the parameters, step by step."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.case import DataLike, data_for
from gdcompare.descent.record import Descent
from gdcompare.problem import Problem
from gdcompare.registry import as_problem
from gdcompare.report import look
from gdcompare.report.moving_line import draw_data, grid, on_picture, predicted, seen
from gdcompare.report.paths import Descents, draw_surface, heights, named, view_of
from gdcompare.report.thinning import thinned
from gdcompare.writing import write_bytes

if TYPE_CHECKING:
    from matplotlib.artist import Artist

_DPI = 90
_LINGER = 12
"""So many frames the last one stays."""


@look.styled()
def animate(
    problem: str | Problem,
    data: DataLike,
    descents: Descents,
    path: str | os.PathLike[str],
    axes: str | Sequence[str] | None = None,
    *,
    frames: int = 90,
    frames_per_second: int = 15,
) -> None:
    """Write a film of descents, `{name: descent}`, to a .gif or .mp4 file.

    In each frame all of them have taken the same number of steps, or have ended; the steps between frames grow, as
    descents slow down. Where there is one feature and the problem predicts, the line moves among the data beside it.
    Axes are those of `surface`. An .mp4 needs the program ffmpeg.

    Raises ValueError if there is nothing to draw, or no such format; PlotUnavailableError; OSError.
    """
    suffix = look.checked_format(path, look.MOVING)
    if isinstance(frames, bool) or not isinstance(frames, int | np.integer) or frames < 2:
        raise ValueError(f"frames must be a whole number, 2 or above, not {frames!r}")
    problem = as_problem(problem)
    data = data_for(problem, data)
    made = _frames(problem, data, named(descents), axes, frames)
    write_bytes(path, _gif(made, frames_per_second) if suffix == ".gif" else _mp4(made, frames_per_second))


def _frames(
    problem: Problem, data: Any, descents: Mapping[str, Descent], axes: Any, number: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures, (height, width, 3): what moves is drawn anew, upon what stays."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    view = view_of(descents, axes)
    lines = seen(problem, data)
    figure = look.whole(look.part_of(None, 9.6 if lines else 5.6, 4.4))
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    *beside, plane = np.atleast_1d(figure.subplots(1, 1 + lines))
    draw_surface(plane, problem, data, view)
    x = grid(data)
    marks, paths = look.marks(descents), heights(problem, data, view)
    moving: list[Artist] = []
    trails, points, fits = {}, {}, {}
    for name, mark in marks.items():
        label = look.words(name)
        how: dict[str, Any] = {"color": mark.colour, "linestyle": mark.dashes, "linewidth": 1.5, "label": label}
        (trails[name],) = plane.plot([], [], animated=True, **how)
        (points[name],) = plane.plot([], [], mark.marker, color=mark.colour, markeredgecolor="black", animated=True)
        points[name].set_markersize(8)
        moving += [trails[name], points[name]]
        for part in beside:
            (fits[name],) = part.plot([], [], color=mark.colour, linestyle=mark.dashes, linewidth=1.8, animated=True)
            moving.append(fits[name])
    for part in beside:
        draw_data(part, data)
    said = plane.text(0.98, 0.97, "", transform=plane.transAxes, ha="right", va="top", animated=True, zorder=9)
    said.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2})
    moving.append(said)
    look.legend(figure, plane)
    look.remark(figure, view.remarks)
    canvas.draw()  # type: ignore[no-untyped-call]  # Matplotlib has no types for its canvas
    still = canvas.copy_from_bbox(figure.bbox)  # type: ignore[no-untyped-call]

    kept = {name: thinned(each) for name, each in view.paths.items()}
    longest = max(int(each.history.steps[-1]) for each in descents.values())
    wanted = np.unique((longest * np.linspace(0, 1, number) ** 2).round().astype(np.int64))
    for step in wanted:
        for name, descent in descents.items():
            place = int(np.searchsorted(descent.history.steps, step, side="right")) - 1
            here = on_picture(problem, data, view, descent, place)
            points[name].set_data(*here[:, None])
            if len(view.low) == 2:
                some = kept[name][: np.searchsorted(kept[name], place, side="right")]
                trails[name].set_data(*np.vstack([view.paths[name][some], here]).T)
            else:
                trails[name].set_data(*paths[name].T)
            if beside:
                fits[name].set_data(x, predicted(problem, descent, place, x))
        said.set_text(f"step {step:,}")
        canvas.restore_region(still)  # type: ignore[no-untyped-call]
        for artist in moving:
            plane.draw_artist(artist)
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _gif(frames: Iterator[NDArray[np.uint8]], rate: int) -> bytes:
    from PIL import Image

    pictures = [Image.fromarray(each) for each in frames]
    palette = pictures[-1].quantize(128)  # one for all: nothing flickers
    flat = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures]
    content = io.BytesIO()
    shown = [round(1000 / rate)] * (len(flat) - 1) + [round(1000 * _LINGER / rate)]
    flat[0].save(content, format="GIF", save_all=True, append_images=flat[1:], duration=shown, loop=0, disposal=1)
    return content.getvalue()


def _mp4(frames: Iterator[NDArray[np.uint8]], rate: int) -> bytes:
    pictures = [each[: each.shape[0] // 2 * 2, : each.shape[1] // 2 * 2] for each in frames]  # the coding wants even
    height, width = pictures[0].shape[:2]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "film.mp4"
        given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "-"]
        made = ["-an", "-pix_fmt", "yuv420p", "-fflags", "+bitexact", "-map_metadata", "-1", str(file)]
        done = subprocess.run(  # noqa: S603 - all of it is ours
            ["ffmpeg", "-y", "-loglevel", "error", *given, *made],  # noqa: S607 - the one on the user's path
            input=b"".join(each.tobytes() for each in [*pictures, *[pictures[-1]] * _LINGER]),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise OSError(f"ffmpeg could not write the film: {done.stderr.decode(errors='replace').strip()}")
        return file.read_bytes()
