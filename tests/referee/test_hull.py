"""The nearest mixture of points: it finds the weights of a point inside, and comes as near as it can to one outside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdcompare.referee.hull import mixture


@given(st.integers(0, 2**32), st.integers(2, 20), st.integers(1, 12), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_mixture_of_points_is_recognised_whatever_their_scales(seed: int, m: int, n: int, few: bool) -> None:
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(m, n)) * 10.0 ** generator.integers(-9, 9, n)
    target = generator.dirichlet(np.full(m, 0.2 if few else 1.0)) @ points
    room = 2.0**-40 * (np.max(points, axis=0) - np.min(points, axis=0))

    weights = mixture(points, target, room)

    assert (weights >= 0).all()
    assert np.sum(weights) == pytest.approx(1)
    assert (np.abs(weights @ points - target) <= room).all()


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_a_mixture_of_points_that_nearly_lie_in_a_plane_is_recognised(seed: int) -> None:
    """Some vertices then only seem to lie beyond the nearest mixture, by rounding, and more than 200 steps go round."""
    generator = np.random.default_rng(seed)
    m, n = generator.integers(2, 40), generator.integers(1, 60)
    points = generator.normal(size=(m, 3)) @ generator.normal(size=(3, n)) + 1e-6 * generator.normal(size=(m, n))
    target = generator.dirichlet(np.full(m, 0.2)) @ points
    room = 2.0**-30 * (np.max(points, axis=0) - np.min(points, axis=0))

    weights = mixture(points, target, room)

    assert (np.abs(weights @ (points - target)) <= room).all()


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_from_outside_a_plane_through_the_nearest_mixture_has_all_points_beyond(seed: int, m: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    points, target = generator.normal(size=(m, n)), np.full(n, 5.0)

    nearest = mixture(points, target, np.ones(n)) @ points

    assert (points @ (nearest - target) >= nearest @ (nearest - target) - 1e-9).all()


def test_one_element_with_little_room_counts_as_much_as_one_with_a_lot() -> None:
    points = np.array([[0.0, 0.0], [1.0, 1e-12]])

    weights = mixture(points, np.array([0.3, 0.7e-12]), np.array([1.0, 1e-20]))

    assert weights @ points == pytest.approx([0.7, 0.7e-12])


def test_what_is_far_away_and_has_no_room_does_no_harm() -> None:
    weights = mixture(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([1e300, 0.5]), np.array([1e-300, 1e-300]))

    assert np.isfinite(weights).all()
    assert np.sum(weights) == 1
