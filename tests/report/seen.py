"""What is on a picture: the data of its artists, by the words beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def line(axes: Any, label: str) -> NDArray[np.float64]:
    """Return the points (m, 2) of the line of that label."""
    (found,) = [each for each in axes.lines if each.get_label() == label]
    return np.stack([np.asarray(each, dtype=np.float64) for each in found.get_data()], axis=1)


def arrows(axes: Any, label: str) -> NDArray[np.float64]:
    """Return the ends (m, 2) of the arrows of that label."""
    (found,) = [each for each in axes.collections if each.get_label() == label]
    return np.stack([found.U, found.V], axis=1)


def cells(axes: Any) -> dict[tuple[int, int], tuple[float, ...]]:
    """Return the colour of each cell, by (row, column)."""
    return {(int(each.get_y()), int(each.get_x())): each.get_facecolor()[:3] for each in axes.patches}


def words(figure: Any) -> str:
    """Return all that is written on a figure."""
    from matplotlib.text import Text

    return "\n".join(each.get_text() for each in figure.findobj(Text))
