from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdcompare.timing.intervals import bonferroni, least_number, rank, ranking, ratio_interval, sign_interval

RUNS = 20_000


def coverage(n: int, level: float) -> float:
    """What binomial theory says: the median lies within the k-th from either end unless k - 1 or fewer lie beyond."""
    return float(1 - 2 * sum(math.comb(n, j) for j in range(rank(n, level))) / 2**n)


@pytest.mark.parametrize("n", [6, 8, 12, 25, 60])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_covers_the_median_of_skewed_noise_as_often_as_coins_say(n: int, level: float) -> None:
    samples = np.random.default_rng(n).exponential(size=(RUNS, n)) ** 2  # very skewed, with the median log(2)^2
    truth = math.log(2) ** 2

    k = rank(n, level)
    ordered = np.sort(samples, axis=1)
    covered = np.mean((ordered[:, k - 1] <= truth) & (truth <= ordered[:, n - k]))

    expected = coverage(n, level)
    assert expected >= level
    assert abs(covered - expected) < 4 * math.sqrt(expected * (1 - expected) / RUNS)
    found = sign_interval(samples[0], level)
    assert (found.low, found.high) == (ordered[0, k - 1], ordered[0, n - k])


@given(n=st.integers(1, 300), level=st.floats(0.5, 0.9999))
def test_the_interval_is_the_narrowest_that_holds_at_its_level(n: int, level: float) -> None:
    k = rank(n, level)

    assert coverage(n, level) >= level - 1e-12 or k == 0
    assert 2 * sum(math.comb(n, j) for j in range(k + 1)) > (1 - level) * 2**n


def test_too_few_values_say_nothing() -> None:
    assert sign_interval([1.0] * 5).low == -math.inf
    assert ratio_interval([1.0] * 5, [2.0] * 5).half_width == math.inf
    assert not ratio_interval([1.0] * 5, [2.0] * 5).resolved
    assert sign_interval([1.0] * least_number(0.95)).low == 1.0
    assert all(a <= b for a, b in pairwise(map(least_number, (0.5, 0.9, 0.95, 0.99, 0.9999))))


def test_a_ratio_and_its_inverse_say_the_same() -> None:
    a, b = np.random.default_rng(0).lognormal(size=(2, 21))

    one, other = ratio_interval(a, b), ratio_interval(b, a)

    assert (one.low, one.median, one.high) == pytest.approx((1 / other.high, 1 / other.median, 1 / other.low))


def test_ties_are_counted() -> None:
    assert ratio_interval([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]).ties == 2


def test_what_could_have_been_noticed_would_have_been() -> None:
    """The width of an interval that holds the truth: a ratio as far from 1 as that leaves 1 outside."""
    generator = np.random.default_rng(1)
    noise = generator.normal(scale=0.03, size=(1000, 15))
    missed = 0
    for each in noise:
        width = ratio_interval(np.exp(each), np.ones(15)).noticeable
        missed += not ratio_interval(np.exp(each) * (1 + width), np.ones(15)).resolved

    assert missed / len(noise) <= 0.05


def false_alarms(correct: bool) -> float:
    """How often one of ten rivals, each as fast as the first, seems to differ from it."""
    generator = np.random.default_rng(2)
    level = bonferroni(0.95, 10) if correct else 0.95
    k = rank(20, level)
    logs = np.sort(generator.exponential(size=(4000, 10, 20)) - generator.exponential(size=(4000, 1, 20)), axis=2)
    apart = (logs[:, :, k - 1] > 0) | (logs[:, :, 20 - k] < 0)
    return float(np.mean(apart.any(axis=1)))


def test_many_rivals_are_corrected_for() -> None:
    assert false_alarms(correct=True) <= 0.05
    assert false_alarms(correct=False) > 0.1


def test_a_winner_must_lead_the_runner_up_and_not_only_the_last() -> None:
    noise = np.random.default_rng(3).normal(scale=0.01, size=(3, 20))
    a, b, c = np.exp(noise + np.array([[0.0], [0.0001], [1.0]]))

    found = ranking({"a": a, "b": b, "c": c})

    assert {found.leader, found.runner_up} == {"a", "b"}
    assert found.winner is None
    assert found.unresolved == (found.runner_up,)
    assert ranking({"a": a, "c": c}).winner == "a"


def test_nobody_wins_among_equals_more_often_than_agreed() -> None:
    generator = np.random.default_rng(4)
    crowned = 0
    for _ in range(600):
        times = dict(zip("abcd", generator.lognormal(sigma=0.1, size=(4, 15)), strict=True))
        crowned += ranking(times).winner is not None

    assert crowned / 600 <= 0.05


def test_who_runs_alone_wins() -> None:
    found = ranking({"a": [1.0, 2.0]})

    assert (found.winner, found.runner_up, found.lead) == ("a", None, None)
