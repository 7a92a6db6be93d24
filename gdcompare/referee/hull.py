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

    >>> mixture(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0.25, 0.5]), np.full(2, 1e-9)).tolist()
    [0.25, 0.25, 0.5]
    >>> mixture(np.array([[0.0], [1.0]]), np.array([3.0]), np.array([1.0])).tolist()
    [0.0, 1.0]
    """
    scale = np.ones_like(room)
    best, least = np.full(len(points), 1 / len(points)), np.inf
    for _ in range(6):
        weights = _nearest_to_0((points - target) / room * scale)
        off = float(np.max(np.abs(weights @ (points - target)) / room, initial=0.0))
        if off < least:
            best, least = weights, off
        if off <= 1 or np.linalg.norm(weights @ (points - target) / room) > np.sqrt(room.size):
            break
        scale = scale * np.maximum(np.abs(weights @ (points - target)) / room, 0.1)
    return best


def _nearest_to_0(points: Floats) -> Floats:
    """Return the weights of the mixture of the points, (m, N), whose norm is least."""
    points = points / max(1.0, 1e-100 * float(np.max(np.abs(points), initial=0.0)))  # whose squares do not overflow
    squares = np.einsum("ij,ij->i", points, points)
    chosen, weights = [int(np.argmin(squares))], np.ones(1)
    for _ in range(STEPS):
        x = weights @ points[chosen]
        along = points @ x
        k = int(np.argmin(along))
        if k in chosen or along[k] >= x @ x - 1e-14 * max(x @ x, float(np.max(squares[[*chosen, k]])) * 1e-14):
            break
        chosen, weights = [*chosen, k], np.append(weights, 0.0)
        while True:
            free = _affine(points[chosen])
            if (free >= 0).all():
                weights = free
                break
            falling = free < weights
            step: float = np.min(weights[falling & (free < 0)] / (weights - free)[falling & (free < 0)])
            weights = weights + step * (free - weights)
            keep = weights > 1e-15
            keep &= ~((free < 0) & (weights <= float(np.min(weights[free < 0]))))
            chosen, weights = [c for c, kept in zip(chosen, keep, strict=True) if kept], weights[keep]
    full = np.zeros(len(points))
    full[chosen] = weights / np.sum(weights)
    return full


def _affine(points: Floats) -> Any:
    """Return weights of either sign, of sum 1, for which the mixture has the least norm."""
    if len(points) == 1:
        return np.ones(1)
    rest, *_ = np.linalg.lstsq((points[1:] - points[0]).T, -points[0], rcond=1e-13)
    return np.concatenate([[1 - np.sum(rest)], rest])
