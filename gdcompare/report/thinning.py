"""Long paths drawn by few points that show the same shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_POINTS = 2400

_FINEST = 600
"""Cells a side of the finest grid: about as many as a printed picture has points."""


def thinned(points: Floats, most: int = MOST_POINTS) -> NDArray[np.intp]:
    """Return which of the points (m, k) to draw, in order: at most about `most`, the first and the last among them.

    Kept is the first point in every cell of a grid over their extent, the finest that is not too fine: so the picture
    has the same cells filled, and a bend that took few steps stays a bend, however long the path wanders at its end.
    And, of pieces of equal length along the path, the points that lie furthest to every side.

    >>> there = np.linspace(0, 1, 10_000)
    >>> kept = thinned(np.stack([there, there**2], axis=1), most=100)
    >>> len(kept) <= 100, kept[0], kept[-1]
    (True, np.int64(0), np.int64(9999))
    """
    m, k = points.shape
    if m <= most:
        return np.arange(m)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    places = (points - low) / np.where(extent > 0, extent, 1.0)  # 0 to 1 on each axis
    kept = [np.array([0, m - 1]), _first_in_cells(places, most // 2)]
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(places, axis=0), axis=1))])
    pieces = max(1, most // (4 * k) - 1)
    starts = np.unique([0, *np.searchsorted(along, np.linspace(0, along[-1], pieces + 1)[1:-1])])
    for start, stop in zip(starts, [*starts[1:], m], strict=True):
        piece = places[start:stop]
        kept += [start + piece.argmin(axis=0), start + piece.argmax(axis=0)]
    return np.unique(np.concatenate(kept))


def _first_in_cells(places: Floats, most: int) -> NDArray[np.intp]:
    """Return the first place in each cell of the finest grid in which at most so many cells are met."""
    side = _FINEST
    while True:
        cells = np.minimum((places * side).astype(np.int64), side - 1)
        _, found = np.unique(cells @ side ** np.arange(places.shape[1]), return_index=True)
        if len(found) <= most or side <= 2:
            return np.asarray(found)
        side = side * 3 // 4
