from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdcompare.timing.blocks import Block, TurnError, Work, calls_per_turn, latin_square, order_of, run_block

from .machine import Machine


def is_fair(order: list[list[str]]) -> bool:
    """Whether everyone comes once in each round, and equally often in each place."""
    names = sorted(order[0])
    places = [Counter(line[place] for line in order) for place in range(len(names))]
    return all(sorted(line) == names for line in order) and all(
        each == dict.fromkeys(names, len(order) // len(names)) for each in places
    )


@given(k=st.integers(1, 9), seed=st.integers(0, 2**32 - 1), number=st.integers(0, 1000), short=st.booleans())
def test_everyone_comes_once_in_each_place_of_each_square(k: int, seed: int, number: int, short: bool) -> None:
    names = [f"contender {each}" for each in range(k)]

    order = order_of(names, dict.fromkeys(names, 100 if short else 1), seed, number)

    assert is_fair(order)
    assert all(is_fair(order[start : start + k]) for start in range(0, len(order), k))
    assert len(order) >= (6 if short else k)


def test_an_unfair_order_would_be_seen() -> None:
    assert not is_fair([["a", "b"], ["a", "b"]])
    assert not is_fair([["a", "a"], ["b", "b"]])
    assert not is_fair([["a", "b", "c"], ["b", "c", "a"]])


def test_who_follows_whom_is_drawn_anew_for_each_block() -> None:
    followers = {
        frozenset(pair)
        for number in range(50)
        for line in order_of("abcd", dict.fromkeys("abcd", 1), 0, number)
        for pair in pairwise(line)
    }

    assert len(followers) == 6
    assert len({str(latin_square("abcd", np.random.default_rng(seed))) for seed in range(50)}) > 30


def works_of(machine: Machine, **seconds: float) -> dict[str, Work]:
    return {name: Work(machine.contender(name, each).call, None, machine.clock) for name, each in seconds.items()}


def test_contenders_of_like_speed_share_one_count_and_every_turn_is_long_enough() -> None:
    machine = Machine()

    calls = calls_per_turn(works_of(machine, a=1e-5, b=1.01e-5, c=7.9e-5, d=1e-4, e=0.1), turn=0.001)

    assert calls == {"a": 100, "b": 100, "c": 100, "d": 13, "e": 1}


def test_a_reading_that_was_interrupted_is_not_believed() -> None:
    """Every second reading takes a hundred times as long: believed, it would end the calibration at once."""
    machine = Machine()
    readings = 0

    class Interrupted(Work):
        def turn(self, calls: int) -> tuple[float, float]:
            nonlocal readings
            readings += 1
            if readings % 2:
                machine.spend(0.01)
                wall, worked = super().turn(calls)
                return wall + 0.01, worked
            return super().turn(calls)

    calls = calls_per_turn({"a": Interrupted(machine.contender("a", 1e-5).call, None, machine.clock)}, turn=0.001)

    assert calls == {"a": 100}


def test_a_block_holds_the_seconds_of_a_call_and_how_many_processors_were_busy() -> None:
    machine = Machine()
    works = {
        name: Work(machine.contender(name, seconds, threads=threads).call, None, machine.clock)
        for name, seconds, threads in (("one", 0.5, 1), ("two", 0.25, 2))
    }

    order = order_of(["one", "two"], {"one": 3, "two": 3}, 0, 0)
    block = run_block(works, {"one": 3, "two": 3}, order, works_of(machine, nothing=0.125)["nothing"])

    assert block.seconds == {"one": [0.5] * 6, "two": [0.25] * 6}
    assert block.processor == {"one": 1, "two": 2}
    assert block.nothing == 0.125
    assert block.order == order


def test_a_time_is_the_least_of_its_turns_and_unevenness_is_told() -> None:
    block = Block([["a"]] * 5, {"a": [3.0, 1.0, 1.5, 9.0, 2.0]}, {"a": 1.0}, 1e-8)

    assert block.times == {"a": 1.0}
    assert block.unevenness == {"a": 2.0}


def test_who_raises_in_a_turn_is_named() -> None:
    machine = Machine()

    def fail() -> None:
        raise RuntimeError("broken")

    works = works_of(machine, a=0.1) | {"b": Work(fail, None, machine.clock)}

    attempts: list[Callable[[], object]] = [
        lambda: calls_per_turn(works),
        lambda: run_block(works, {"a": 1, "b": 1}, [["a", "b"], ["b", "a"]], works["a"]),
    ]
    for attempt in attempts:
        with pytest.raises(TurnError, match="b: broken") as caught:
            attempt()
        assert caught.value.name == "b"
        assert isinstance(caught.value.cause, RuntimeError)
