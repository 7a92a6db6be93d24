"""Which mistake fits: what is off by more than its bound does not, and what fits by chance has no word."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from gdcompare.distributed.causes import causes, fitting
from gdcompare.distributed.known import Stack
from gdcompare.distributed.mistakes import NOW, Mistake, Plan, Term, of_own, of_reduced
from gdcompare.distributed.shards import Floats

SHARDS = np.array([[1.0, -2.0, 4.0], [3.0, 5.0, -1.0]])
BOUND = 1e-15
STACK = Stack([(NOW, 0), (NOW, 1)], SHARDS, np.full(SHARDS.shape, BOUND), "float64", 3)
RIGHT = (SHARDS.mean(axis=0), np.full(3, BOUND))
MISSING = Mistake({(NOW, 0): 1.0}, "rank 1 is missing")
SWAPPED = Mistake({(NOW, 0): 0.25, (NOW, 1): 0.75}, "swapped")


def test_a_mistake_that_explains_every_element_fits() -> None:
    assert fitting(SHARDS[0], RIGHT, [SWAPPED, MISSING], STACK) == ["rank 1 is missing"]


@pytest.mark.parametrize("place", range(3))
def test_one_element_that_is_off_by_more_than_its_bound_refutes_a_mistake(place: int) -> None:
    numbers = SHARDS[0].copy()
    numbers[place] *= 1 + 1e-13

    assert fitting(numbers, RIGHT, [MISSING], STACK) == []


def test_a_mistake_that_rounding_does_not_tell_from_what_is_right_is_none() -> None:
    same = Stack(STACK.keys, np.stack([RIGHT[0], RIGHT[0]]), STACK.off, "float64", 3)

    assert fitting(RIGHT[0] * (1 + 2e-15), RIGHT, [MISSING], same) == []


def test_what_would_fit_by_chance_has_no_word() -> None:
    blunt = Stack(STACK.keys, SHARDS[:, :1], np.full((2, 1), 0.1), "float64", 3)
    right = (RIGHT[0][:1], np.full(1, 0.1))

    assert fitting(SHARDS[0][:1], right, [MISSING], blunt) == []
    assert fitting(SHARDS[0][:1], right, [MISSING], STACK.at(slice(1))) == ["rank 1 is missing"]


def test_what_is_not_held_says_nothing_and_what_is_infinite_refutes() -> None:
    assert fitting(np.array([1.0, np.nan, np.nan]), RIGHT, [MISSING], STACK) == ["rank 1 is missing"]
    assert fitting(np.array([1.0, -2.0, np.inf]), RIGHT, [MISSING], STACK) == []


def test_an_unbounded_term_explains_nothing() -> None:
    unknown = Stack(STACK.keys, SHARDS, np.full(SHARDS.shape, np.inf), "float64", 3)

    assert fitting(SHARDS[0], RIGHT, [MISSING], unknown) == []


def test_mistakes_of_terms_that_are_not_known_are_passed_over() -> None:
    assert fitting(SHARDS[0], RIGHT, [Mistake({("rows", 0): 1.0}, "stale"), MISSING], STACK) == ["rank 1 is missing"]


def test_what_fits_all_ranks_has_the_word_before_what_fits_one() -> None:
    def mistakes(rank: int) -> list[Mistake]:
        own: dict[Term, float] = {(NOW, rank): 1.0}
        other = Mistake({(NOW, 1 - rank): 1.0}, f"as rank {1 - rank}")
        return [other, Mistake(own, "its own"), Mistake(own, f"only rank {rank}")]

    both = {rank: SHARDS[rank] for rank in range(2)}
    rights = dict.fromkeys(range(2), RIGHT)

    assert causes(both, rights, mistakes, STACK) == {0: "its own", 1: "its own"}
    assert causes({0: SHARDS[1], 1: SHARDS[1]}, rights, mistakes, STACK) == {
        0: "as rank 1",
        1: "its own; or only rank 1",
    }
    assert causes({0: SHARDS[1], 1: SHARDS[1]}, rights, mistakes, STACK, alike=True) == {}


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("sizes", [[3, 3, 3], [4, 2, 3]])
def test_no_mistake_is_the_right_gradient(sizes: list[int], mean: bool) -> None:
    shares = np.array(sizes) / sum(sizes)
    plan = Plan(shares, np.ones(3), "some rows", [np.array([0.5, 0.5])] * 3, sum(sizes), mean, ["rows"])
    random = np.random.default_rng(0)
    values: dict[Term, Floats] = {(kind, rank): random.normal(size=5) for kind in (NOW, "rows") for rank in range(3)}
    for rank in range(3):
        first = random.normal(size=5)
        values |= {("micro", rank, 0): first, ("micro", rank, 1): values[NOW, rank] - first}

    def made(terms: Mapping[Term, float]) -> Floats:
        return np.asarray(sum(factor * values[term] for term, factor in terms.items()))

    right = made(plan.whole())
    for rank in range(3):
        for mistake in of_reduced(plan, rank):
            assert not np.allclose(made(mistake.terms), right), mistake.words
        for mistake in of_own(plan, rank):
            assert not np.allclose(made(mistake.terms), values[NOW, rank]), mistake.words
