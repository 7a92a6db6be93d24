"""A thinned path has few points, and the shape of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdcompare.report.planes import Floats
from gdcompare.report.thinning import MOST_POINTS, thinned

LONG = 100_000


def wandering() -> Floats:
    """A quick approach, and a long stay."""
    generator = np.random.default_rng(0)
    steps = np.arange(LONG)
    return 4 * np.exp(-steps / 40)[:, None] * [1.0, -1.0] + 0.05 * generator.standard_normal((LONG, 2))


def filled(points: Floats, low: Floats, high: Floats, side: int = 60) -> set[tuple[int, ...]]:
    """Return the cells of a grid that points of a polyline fall into."""
    between = np.concatenate([points[:-1] + share * np.diff(points, axis=0) for share in np.linspace(0, 1, 20)])
    return set(map(tuple, np.minimum((between - low) / (high - low) * side, side - 1).astype(int)))


def missed(points: Floats, kept: Floats) -> float:
    """Return the share of the filled cells that a thinned path leaves empty, with all cells around its own."""
    low, high = points.min(axis=0), points.max(axis=0)
    drawn = filled(kept, low, high)
    near = {(x + i, y + j) for x, y in drawn for i in (-1, 0, 1) for j in (-1, 0, 1)}
    every = set(map(tuple, np.minimum((points - low) / (high - low) * 60, 59).astype(int)))
    return len(every - near) / len(every)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "points",
    [
        wandering(),
        np.stack([np.arange(LONG), np.sin(np.arange(LONG) / 3000) + np.exp(-np.arange(LONG) / 20)], axis=1),
        np.stack([np.arange(LONG), np.random.default_rng(1).standard_normal(LONG)], axis=1),
        np.stack([np.linspace(0, 1, LONG), np.where(np.arange(LONG) == 51_234, 1.0, 0.0)], axis=1),
    ],
    ids=["wandering", "wave", "noise", "spike"],
)
def test_the_shape_is_kept_by_few_points(points: Floats) -> None:
    kept = thinned(points)

    assert len(kept) <= MOST_POINTS
    assert missed(points, points[kept]) < 0.01
    np.testing.assert_array_equal(points[kept].min(axis=0), points.min(axis=0))
    np.testing.assert_array_equal(points[kept].max(axis=0), points.max(axis=0))


def test_every_kth_point_would_lose_the_shape() -> None:
    points = wandering()

    assert missed(points, points[:: LONG // MOST_POINTS]) > 0.01


@given(st.integers(1, 400), st.integers(1, 2), st.integers(20, 100), st.integers(0, 9))
def test_the_order_and_the_ends_stay(m: int, k: int, most: int, seed: int) -> None:
    points = np.random.default_rng(seed).integers(0, 5, (m, k)).astype(float)

    kept = thinned(points, most)

    assert kept[0] == 0
    assert kept[-1] == m - 1
    assert (np.diff(kept) > 0).all()
    assert len(kept) == m if m <= most else len(kept) <= most
