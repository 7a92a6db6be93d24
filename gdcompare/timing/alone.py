"""What only a fresh process can tell of a contender: its first call, and its memory."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gdcompare.timing import memory
from gdcompare.timing.contender import Contender, unfinished
from gdcompare.timing.failure import Failure
from gdcompare.timing.fresh import ProcessFailedError, in_fresh_process, named

STEADY = 0.2
"""Seconds for which the steady state is watched, at least five calls."""


@dataclass(frozen=True)
class Alone:
    """A contender with a process to itself: seconds of its calls, and bytes of memory."""

    first: float
    """Seconds of the first call, which traces and compiles where there is something to compile."""

    second: float
    """Seconds of the second call: some compile twice."""

    steady: float
    """Seconds of the calls after that: their median."""

    imported: int
    """Bytes held when everything was imported, before the inputs were prepared."""

    prepared: int
    """Bytes held before the first call."""

    peak: int
    """The most that was held from then on, to the end of the last call."""

    figures: Mapping[str, float] = field(default_factory=dict)
    """What the judge measured."""

    @property
    def compilation(self) -> float:
        """Seconds that the first two calls took beyond what two calls take: tracing, compiling, filling caches."""
        return max(0.0, self.first + self.second - 2 * self.steady)

    @property
    def peak_above_imports(self) -> int:
        """Bytes of inputs, work and answer at their most."""
        return max(0, self.peak - self.imported)

    @property
    def peak_above_inputs(self) -> int:
        """Bytes of work and answer at their most."""
        return max(0, self.peak - self.prepared)


def alone(
    factory: str,
    arguments: Mapping[str, Any],
    *,
    imports: Sequence[str] = (),
    threads: int | None = None,
    limit: float | None = None,
) -> Alone | Failure:
    """Call a contender in a fresh process, and return what it took, or why it failed there.

    `factory` is "module:function" or "path/to/file.py:function", and `factory(**arguments)` makes the contender;
    `imports` names the modules whose memory is not its own. A process that dies, or takes more than `limit` seconds, is
    a failure with its reason. A wrong answer has no time.
    """
    request = {"factory": factory, "arguments": dict(arguments), "imports": list(imports)}
    try:
        found = in_fresh_process(f"{__name__}:measured", request, threads=threads, limit=limit)
    except ProcessFailedError as error:
        return error.failure
    return Failure(*found["failure"]) if "failure" in found else Alone(**found)


def measured(factory: str, arguments: Mapping[str, Any], imports: Sequence[str]) -> dict[str, Any]:
    """Measure the contender in this process, which should be a fresh one."""
    for each in imports:
        importlib.import_module(each)
    imported = memory.resident()
    contender: Contender = named(factory)(**arguments)
    prepared = memory.resident()
    memory.forget_peak()
    seconds: list[float] = []
    while len(seconds) < 7 or sum(seconds[2:]) < STEADY:
        answer = None  # dropped before the next is computed, as a loop that keeps the last one would not
        start = time.perf_counter()
        answer = contender.call()
        contender.ready(answer)
        seconds.append(time.perf_counter() - start)
    peak = memory.peak()
    if unfinished(answer):
        return {"failure": ["unfinished", "the clock stopped before the answer was complete"]}
    try:
        judgement = contender.judge(answer)
    except AssertionError as error:
        return {"failure": ["wrong", str(error)]}
    if not judgement.right:
        return {"failure": ["wrong", judgement.words]}
    steady = sorted(seconds[2:])[len(seconds[2:]) // 2]
    return asdict(Alone(seconds[0], seconds[1], steady, imported, prepared, peak, dict(judgement.figures)))


def break_even(first: float, steady: float, other_first: float, other_steady: float) -> float:
    """Return from how many calls on the one is quicker in all, though the other may have the quicker start.

    first + (n - 1) steady <= other_first + (n - 1) other_steady. inf if never.

    >>> break_even(first=10.0, steady=1.0, other_first=1.5, other_steady=1.5)
    18
    >>> break_even(1.0, 1.0, 2.0, 1.0), break_even(2.0, 1.0, 1.0, 1.0)
    (1, inf)
    """
    if first <= other_first and steady <= other_steady:
        return 1
    if steady >= other_steady:
        return 1 if first <= other_first else math.inf
    return max(1, 1 + math.ceil((first - other_first) / (other_steady - steady) - 1e-9))
