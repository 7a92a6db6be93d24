"""A machine whose clock is moved by its work alone: what a timer makes of it can be worked out on paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gdcompare.timing.blocks import Clock
from gdcompare.timing.contender import Contender, Judge, Judgement


def right(answer: Any) -> Judgement:
    return Judgement(answer == "right", f"{answer} is not right", {"digits": 15.0})


class Machine:
    """Knows the time, and makes contenders that take a while; `slowness(now)` multiplies whatever is done."""

    def __init__(self, slowness: Callable[[float], float] = lambda now: 1.0) -> None:
        self.now = 0.0
        self.worked = 0.0
        self.clock = Clock(lambda: self.now, lambda: self.worked)
        self._slowness = slowness

    def spend(self, seconds: float, threads: float = 1.0) -> None:
        taken = seconds * self._slowness(self.now)
        self.now += taken
        self.worked += taken * threads

    def contender(
        self,
        name: str,
        seconds: float,
        *,
        threads: float = 1.0,
        answer: Callable[[], Any] = lambda: "right",
        judge: Judge = right,
        **facts: Any,
    ) -> Contender:
        def call() -> Any:
            self.spend(seconds, threads)
            return answer()

        return Contender(name, call, judge, facts=facts)


def noise(seed: int, size: float) -> Callable[[float], float]:
    """A machine that now and then is busy elsewhere: exponential, so skewed, and never quicker than its best."""
    generator = np.random.default_rng(seed)
    return lambda now: 1 + size * float(generator.exponential())


class LazyArray:
    """An array like those of an asynchronous framework: returned at once, computed by whoever waits for it."""

    def __init__(self, compute: Callable[[], None] = lambda: None) -> None:
        self._compute = compute
        self.computed = False

    def block_until_ready(self) -> None:
        if not self.computed:
            self._compute()
        self.computed = True

    def is_ready(self) -> bool:
        return self.computed
