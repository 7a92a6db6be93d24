"""One block of turns: who comes when, how long a turn is, and the turn itself.

A block of k contenders is a cyclic Latin square: k rounds in each of which every contender has a turn, and over which
every contender stands once in every place. So what changes while a block runs (frequency, temperature) falls on all
alike. What the square does not balance, who follows whom, is drawn anew for each block. That is why a block counts as
one observation, and not its rounds: they share their neighbours.

A contender's time in a block is the least of its turns there, since whatever else a machine does only makes a turn
longer. With turns shorter than a time slice of the system's scheduler (some milliseconds) most of them are then whole
or not disturbed at all: on two processors shared with four other busy processes, ratios by the least were known to
0.6 %, by the mean to no better than 50 %. Whose own turns differ more than those of others is told (`Race.warnings`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from statistics import median
from typing import Any, NamedTuple

import numpy as np

TURN = 0.001
"""Seconds that a turn takes at least: 10,000 times what reading the clock takes, and less than a time slice."""

ROUNDS = 6
"""Rounds of a block at least, where calls are shorter than a turn: squares of few contenders are repeated."""

FAR = 8
"""How many times slower than the fastest a contender may be and still make as many calls in a turn."""


class Clock(NamedTuple):
    """What tells the time, in seconds: of the wall, and of all processors on this process."""

    wall: Callable[[], float] = time.perf_counter
    processor: Callable[[], float] = time.process_time


@dataclass(frozen=True)
class Block:
    """The times of one block, in seconds a call; each list in the order of the rounds."""

    order: list[list[str]]
    """Who came when: a list for each round."""

    seconds: dict[str, list[float]]
    """Of each contender, one for each round."""

    processor: dict[str, float]
    """Processor seconds of each contender in all its turns together, per second of them."""

    nothing: float
    """Seconds of a call that does nothing, taken in the same loop after the last round."""

    @cached_property
    def times(self) -> dict[str, float]:
        """Each contender's time in this block: the least of its turns."""
        return {name: min(each) for name, each in self.seconds.items()}

    @cached_property
    def unevenness(self) -> dict[str, float]:
        """How many times longer the middle turn of each contender took than its least."""
        return {name: median(each) / min(each) for name, each in self.seconds.items()}


def order_of(names: Sequence[str], calls: Mapping[str, int], seed: int, number: int) -> list[list[str]]:
    """Return who comes when in the block of that number.

    It depends on what is given here alone, so a race that is resumed goes on as it would have.

    >>> order_of("ab", {"a": 1, "b": 1}, seed=0, number=0)
    [['a', 'b'], ['b', 'a']]
    """
    generator = np.random.default_rng([seed, number])
    squares = math.ceil(ROUNDS / len(names)) if min(calls.values()) > 1 else 1
    return [line for _ in range(squares) for line in latin_square(names, generator)]


def latin_square(names: Sequence[str], generator: np.random.Generator) -> list[list[str]]:
    """Return rounds in each of which everyone has a turn, and over which everyone stands once in each place.

    >>> latin_square("abc", np.random.default_rng(0))
    [['b', 'c', 'a'], ['a', 'b', 'c'], ['c', 'a', 'b']]
    """
    k = len(names)
    line = [names[each] for each in generator.permutation(k)]
    return [[line[(place + start) % k] for place in range(k)] for start in generator.permutation(k)]


class TurnError(Exception):
    """A contender failed in its turn; the cause is the exception that it raised."""

    def __init__(self, name: str, cause: Exception) -> None:
        super().__init__(f"{name}: {cause}")
        self.name, self.cause = name, cause


class Work:
    """A contender at work: its call, what waits for the answer, and the answer that was timed last."""

    def __init__(self, call: Callable[[], Any], wait: Callable[[Any], object] | None, clock: Clock) -> None:
        self.answer: Any = None
        self._call, self._wait, self._clock = call, wait, clock

    def turn(self, calls: int) -> tuple[float, float]:
        """Make so many calls, each to its end; return the seconds on the wall and on the processors."""
        call, wait, clock, answer = self._call, self._wait, self._clock, None
        self.answer = None
        processor, wall = clock.processor(), clock.wall()
        if wait is None:
            for _ in repeat(None, calls):
                answer = call()
        else:
            for _ in repeat(None, calls):
                answer = call()
                wait(answer)
        wall = clock.wall() - wall
        processor = clock.processor() - processor
        self.answer = answer
        return wall, processor


def calls_per_turn(works: Mapping[str, Work], turn: float = TURN) -> dict[str, int]:
    """Return how many calls each contender makes in a turn, so that every turn takes `turn` seconds or longer.

    They all make as many, so that whatever a turn costs once is shared out alike; only one that is more than 8 times
    slower than the fastest makes an eighth of them, one more than 64 times slower a 64th, and so on.

    Every reading is taken twice, and the shorter one believed: a machine that was busy elsewhere makes one too long,
    never too short, and would end the search before its time. Raises TurnError where a contender raises.
    """
    seconds = {}
    for name, work in works.items():
        try:
            seconds[name] = _seconds_per_call(work, turn)
        except Exception as error:
            raise TurnError(name, error) from error
    fastest = min(seconds.values())
    shared = turn / fastest
    return {name: max(1, math.ceil(shared / FAR ** _times_far(each / fastest))) for name, each in seconds.items()}


def _times_far(ratio: float) -> int:
    return int(math.log(ratio, FAR) + 1e-9)


def _seconds_per_call(work: Work, turn: float) -> float:
    calls = 1
    while (seconds := min(work.turn(calls)[0], work.turn(calls)[0])) < turn / 4 and calls < 10**9:
        calls *= 4
    return max(seconds, 1e-12) / calls


def run_block(works: Mapping[str, Work], calls: Mapping[str, int], order: list[list[str]], nothing: Work) -> Block:
    """Let everyone have their turns. Raises TurnError where a contender raises."""
    walls: dict[str, list[float]] = {name: [] for name in works}
    processors = dict.fromkeys(works, 0.0)
    for line in order:
        for name in line:
            try:
                wall, processor = works[name].turn(calls[name])
            except Exception as error:
                raise TurnError(name, error) from error
            walls[name].append(wall)
            processors[name] += processor
    most = max(calls.values())
    return Block(
        order,
        {name: [each / calls[name] for each in walls[name]] for name in works},
        {name: processors[name] / sum(walls[name]) for name in works},
        nothing.turn(most)[0] / most,
    )
