"""Whether a point is a mixture of some others, and of which: the nearest point of their convex hull.

Wolfe, Finding the nearest point in a polytope, Mathematical Programming 11, 1976. It needs a few steps for a few
points, in however many dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS = 200


def mixture(points: Floats, target: Floats, room: Floats) -> Floats:
    """Return weights w >= 0, sum w = 1, for which w points, (m, N), is within the room, (N,), of the target, (N,).

    If there are none, they are those of the nearest mixture, in units of the room. Distances count element by element:
    where the nearest in the sense of least squares misses the room somewhere, that element counts more, a few times.

    >>> corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> mixture(corners, np.array([0.25, 0.5]), np.full(2, 1e-9)).round(12).tolist()
    [0.25, 0.25, 0.5]
    >>> mixture(np.array([[0.0], [1.0]]), np.array([3.0]), np.array([1.0])).tolist()
    [0.0, 1.0]
    """
    with np.errstate(over="ignore"):
        away = np.clip((points - target) / room, -1e140, 1e140)
    scale = np.ones_like(room)
    best, least = np.full(len(points), 1 / len(points)), np.inf
    for attempt in range(6):
        weights = _nearest_to_0(away * scale)
        misses = np.abs(weights @ away)
        off = float(np.max(misses, initial=0.0))
        if off < least:
            best, least = weights, off
        if off <= 1 or (attempt == 0 and np.linalg.norm(misses) > np.sqrt(room.size)):  # there are none
            break
        scale = scale * np.maximum(misses, 0.1)
    return best


def _nearest_to_0(points: Floats) -> Floats:
    """Return the weights of the mixture of the points, (m, N), whose norm is least."""
    largest = float(np.max(np.abs(points), initial=0.0))
    points = points / max(1.0, largest * 1e-140)  # whose squares do not overflow
    squares = np.einsum("ij,ij->i", points, points)
    chosen, weights = [int(np.argmin(squares))], np.ones(1)
    vain: list[int] = []  # that only seemed to lie beyond, for rounding, and were left out again
    for _ in range(STEPS):
        nearest = weights @ points[chosen]
        square = float(nearest @ nearest)
        along = points @ nearest
        along[chosen + vain] = np.inf
        k = int(np.argmin(along))  # the furthest beyond the plane through the nearest point
        if not square - along[k] > 1e-14 * square + 1e-32 * float(np.max(squares)):
            break
        chosen, weights = [*chosen, k], np.append(weights, 0.0)
        while True:
            free = _affine(points[chosen])
            if (free >= 0).all():
                weights = free
                break
            below = free < 0
            steps = weights[below] / (weights - free)[below]
            weights = np.maximum(weights + float(np.min(steps)) * (free - weights), 0.0)
            weights[np.flatnonzero(below)[np.argmin(steps)]] = 0.0
            chosen, weights = [chosen[i] for i in np.flatnonzero(weights)], weights[weights > 0]
        vain = [] if k in chosen else [*vain, k]
    full = np.zeros(len(points))
    full[chosen] = weights / np.sum(weights)
    return full


def _affine(points: Floats) -> Any:
    """Return weights of either sign, of sum 1, for which the mixture has the least norm."""
    if len(points) == 1:
        return np.ones(1)
    edges, rest = (points[1:] - points[0]).T, np.zeros(len(points) - 1)
    for _ in range(2):  # the second time what the first has left, which is small
        rest = rest + np.linalg.lstsq(edges, -(points[0] + edges @ rest), rcond=1e-13)[0]
    return np.concatenate([[1 - np.sum(rest)], rest])
