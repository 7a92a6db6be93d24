"""Time one thing, until it has really finished, and keep the very answer that was timed."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Contender:
    """One way to do a piece of work."""

    name: str
    """What the row in the table is called."""

    run: Callable[[], Any]
    """The work and nothing else; inputs are prepared and on the device. What it returns is its answer."""

    check: Callable[[Any], float]
    """Raises AssertionError unless the answer is right, else returns its error in units of rounding; never timed."""

    facts: Mapping[str, object] = field(default_factory=dict)
    """What else belongs beside the time: versions, device, sizes."""


class Timed:
    """Something to time: each call does a contender's work to its end and keeps the answer."""

    answer: Any = None

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = run
        self._waits = True

    def __call__(self) -> None:
        """Do the work; return when all of the answer exists."""
        self.answer = self._run()
        if self._waits:
            wait_for(self.answer)

    def warm_up(self) -> None:
        """Do the work twice, so that everything is compiled, and see whether such answers have to be waited for.

        Those that are complete when they are returned cost nothing more than an `if` from then on.
        """
        self()
        self()
        self._waits = any(_completion(leaf) is not None for leaf in _leaves(self.answer))


def wait_for(answer: Any) -> None:
    """Return when every array in the answer has been computed; nothing is copied."""
    for leaf in _leaves(answer):
        complete = _completion(leaf)
        if complete is not None:
            complete()


def _completion(leaf: Any) -> Callable[[], Any] | None:
    """Return the call that waits for an array, or None if whoever holds it may already read it."""
    if getattr(leaf, "is_cuda", False):
        return lambda: sys.modules["torch"].cuda.synchronize(leaf.device)
    return getattr(leaf, "block_until_ready", None)


def _leaves(answer: Any) -> Iterator[Any]:
    if isinstance(answer, Mapping):
        for part in answer.values():
            yield from _leaves(part)
    elif isinstance(answer, list | tuple):
        for part in answer:
            yield from _leaves(part)
    else:
        yield answer


TURN = 0.005
"""Seconds that a turn takes at least: thousands of ticks of the clock."""


@dataclass(frozen=True)
class Samples:
    """Seconds of each contender in each block, (blocks,) by name, and those of the second run of the first one."""

    seconds: Mapping[str, NDArray[np.float64]]
    again: NDArray[np.float64]
    errors: Mapping[str, float]

    def ratios(self, name: str, against: str) -> NDArray[np.float64]:
        """Return how many times longer `name` took than `against`, in each block."""
        return self.seconds[name] / self.seconds[against]

    @property
    def control(self) -> NDArray[np.float64]:
        """The ratios of the first contender to itself: the differences that this machine shows where there are none."""
        return self.again / next(iter(self.seconds.values()))


def interleave(contenders: Sequence[Contender], blocks: int, seed: int = 0) -> Samples:
    """Time the contenders in blocks: in each, every one has its turn, in random order, and the first one two turns.

    So what the machine does meanwhile (frequency, neighbours, caches) falls on all alike, and the second turn of the
    first contender, which differs from it in nothing, shows how much of a difference means nothing. In a turn the work
    is repeated until it takes some milliseconds. The last answer of each turn is checked, after the clock has stopped.
    """
    entrants = [*contenders, replace(contenders[0], name=_AGAIN)]
    timed = [Timed(contender.run) for contender in entrants]
    seconds: dict[str, list[float]] = {contender.name: [] for contender in entrants}
    errors, repeats = {}, []
    for contender, work in zip(entrants, timed, strict=True):
        work.warm_up()
        errors[contender.name] = contender.check(work.answer)
        repeats.append(max(1, math.ceil(TURN / _seconds(work, 1))))
    generator = np.random.default_rng(seed)
    for _ in range(blocks):
        for place in generator.permutation(len(entrants)):
            contender, work = entrants[place], timed[place]
            seconds[contender.name].append(_seconds(work, repeats[place]))
            errors[contender.name] = max(errors[contender.name], contender.check(work.answer))
    again = np.array(seconds.pop(_AGAIN))
    del errors[_AGAIN]
    return Samples({name: np.array(each) for name, each in seconds.items()}, again, errors)


def _seconds(work: Timed, repeats: int) -> float:
    """Return how long the work takes, on the average of so many repetitions in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


_AGAIN = "the first one again"
