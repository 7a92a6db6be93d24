"""The race: contenders judged, timed in blocks until the noise allows a statement, and judged again."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any, TypeAlias

from gdcompare.timing.blocks import TURN, Clock, TurnError, Work, calls_per_turn, order_of, run_block
from gdcompare.timing.contender import NOTHING, Contender, Judgement, unfinished
from gdcompare.timing.failure import Failure, failure_of
from gdcompare.timing.result import Race
from gdcompare.words import did_you_mean, one_line

Progress: TypeAlias = Callable[[Race, float], object]
"""`progress(race, left)` is called after each block: what there is so far, which may be saved, and the seconds that
will probably be needed still."""


def race(
    contenders: Sequence[Contender],
    *,
    reference: str | None = None,
    precision: float = 0.02,
    seconds: float = 10.0,
    level: float = 0.95,
    longest: float = math.inf,
    turn: float = TURN,
    seed: int = 0,
    before: Race | None = None,
    progress: Progress | None = None,
    clock: Clock = Clock(),  # noqa: B008 - it never changes
) -> Race:
    """Time the contenders against each other, fairly, and return what may be said.

    Each is called twice, so that everything is compiled, and its answer judged; who is wrong, fails or takes more than
    `longest` seconds for one call has no time, only a reason, and the others go on. Then come blocks of turns (see
    `blocks`), in which the first contender has a twin, until every ratio to the `reference` is known to `precision`
    (half the width of its interval; the reference is whoever is fastest if none is named), or `seconds` are spent. At
    least 12 blocks are timed, more where many comparisons need them. After the last block the answers that were timed
    last are judged again. Ctrl-C ends the race after the last whole block; the second judgement then waits for its end.

    Times are those of a machine that does nothing else: in each block the least of a contender's turns.

    `before` is an interrupted race of the same contenders, which goes on where it stopped; all the rest is the same as
    if it had never been interrupted. Its seconds count.

    The clock stops when an answer is complete, and no sooner. Nothing is subtracted. Interleaved contenders find the
    caches as the others left them: that is another measurement than running alone.

    Raises ValueError for bad settings, and where `before` is of other work; KeyboardInterrupt before the first block.

    >>> from gdcompare.timing.contender import unjudged
    >>> work = [Contender(f"sum of {n}", lambda n=n: sum(range(n)), unjudged) for n in (100, 4000)]
    >>> found = race(work, seconds=0, precision=1e-9)
    >>> len(found.blocks), found.ended, found.ranking().leader
    (12, 'time', 'sum of 100')
    """
    _check(contenders, reference, precision, seconds, level, longest, turn)
    found = Race(
        contenders=tuple(each.name for each in contenders),
        control=contenders[0].name,
        facts={each.name: _facts(each) for each in contenders},
        reference=reference,
        level=level,
        seed=seed,
        turn=turn,
    )
    if before is not None:
        found = _resumed(before, found)
    began = clock.wall() - found.seconds
    standing = {each.name: each for each in contenders if each.name not in found.failures}
    with _Interrupts() as interrupts:
        works, found = _warmed_up(standing, found, longest, clock)
        interrupts.heed()
        while not (ended := _ended(found, precision, seconds)):
            try:
                if not found.calls:
                    found = replace(found, calls=calls_per_turn(works, turn))
                order = order_of(list(works), found.calls, seed, len(found.blocks))
                block = run_block(works, found.calls, order, Work(NOTHING.call, None, clock))
                interrupts.heed()
                found = replace(found, blocks=(*found.blocks, block), seconds=clock.wall() - began)
                if progress is not None:
                    progress(found, _left(found, precision, seconds))
                    interrupts.heed()
            except TurnError as error:
                found = _without(error.name, works, found, failure_of(error.cause))
            except KeyboardInterrupt:
                if not found.blocks:
                    raise
                ended = "interrupted"
                break
    if ended != "interrupted":  # a turn that was cut short has no answer, or a part of one
        for name in found.names:
            found = _judged(standing[name], works[name].answer, found)
    return replace(found, ended=ended, seconds=clock.wall() - began)


def _check(
    contenders: Sequence[Contender],
    reference: str | None,
    precision: float,
    seconds: float,
    level: float,
    longest: float,
    turn: float,
) -> None:
    names = [each.name for each in contenders]
    if not names:
        raise ValueError("a race needs a contender")
    if twice := sorted({name for name in names if names.count(name) > 1 or f"{name}, again" in names}):
        raise ValueError(f"two contenders are called {twice[0]!r}: give each a name of its own")
    if reference is not None and reference not in names:
        raise ValueError(f"there is no contender {reference!r} to compare with{did_you_mean(reference, names)}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    for name, value in {"precision": precision, "longest": longest, "turn": turn}.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, not {value}")
    if not seconds >= 0:
        raise ValueError(f"seconds must not be negative, not {seconds}")


def _facts(contender: Contender) -> dict[str, Any]:
    """Return the facts as a file would give them back, so that a race that was saved is of the same work."""
    try:
        facts: dict[str, Any] = json.loads(json.dumps(dict(contender.facts)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the facts of {contender.name!r} do not suit JSON: {error}") from error
    return facts


def _resumed(before: Race, planned: Race) -> Race:
    """Return the race that goes on; raise ValueError if it was another one."""
    for what in ("contenders", "facts", "reference", "level", "seed", "turn"):
        then, now = getattr(before, what), getattr(planned, what)
        if then != now:
            raise ValueError(f"cannot go on with a race of other work: its {what} were {then!r}, and are now {now!r}")
    return replace(before, ended="")


def _warmed_up(
    standing: dict[str, Contender], found: Race, longest: float, clock: Clock
) -> tuple[dict[str, Work], Race]:
    """Call everyone twice and judge the answers; return those at work, with the control's twin, and who fell out."""
    works: dict[str, Work] = {}
    for name, contender in standing.items():
        try:
            wait = contender.waits(contender.call())
            work = works[name] = Work(contender.call, wait, clock)
            taken, _ = work.turn(1)
        except Exception as error:  # whatever a contender raises is its own failure, and not the race's
            found = _without(name, works, found, failure_of(error))
            continue
        found = _judged(contender, work.answer, found)
        if taken > longest:
            words = f"one call takes {taken:.3g} s, and may take {longest:.3g} s"
            found = replace(found, failures={**found.failures, name: Failure("out of time", words)})
        if name in found.failures:
            del works[name]
    if works and not found.blocks:
        found = replace(found, control=next(iter(works)))
    if found.control in works:
        twin = standing[found.control].again()
        works[found.twin] = Work(twin.call, twin.waits(works[found.control].answer), clock)
    return works, found


def _without(name: str, works: dict[str, Work], found: Race, failure: Failure) -> Race:
    """Let a contender fall out, and the control's twin if it is either of them."""
    if name == found.twin:
        name = found.control
    works.pop(name, None)
    if name == found.control:
        works.pop(found.twin, None)
    return replace(found, failures={**found.failures, name: failure})


def _judged(contender: Contender, answer: object, found: Race) -> Race:
    """Note what the judge says of an answer, or that the clock did not wait for it."""
    name = contender.name
    if unfinished(answer):
        words = "the clock stopped before the answer was complete"
        return replace(found, failures={**found.failures, name: Failure("unfinished", words)})
    try:
        judgement = contender.judge(answer)
    except AssertionError as error:
        judgement = Judgement(right=False, words=str(error))
    if not judgement.right:
        return replace(found, failures={**found.failures, name: Failure("wrong", one_line(judgement.words))})
    figures = {**found.figures, name: dict(judgement.figures)}
    return replace(found, figures=figures, judged={**found.judged, name: judgement.words})


def _ended(found: Race, precision: float, seconds: float) -> str:
    """Return why there are blocks enough, or nothing if there are not."""
    if not found.names:
        return "nobody left"
    if len(found.blocks) < found.least_blocks:
        return ""
    if found.half_width() <= precision:
        return "precise"
    return "time" if found.seconds >= seconds else ""


def _left(found: Race, precision: float, seconds: float) -> float:
    """Return the seconds that will probably be needed still: the width of an interval falls as 1 / sqrt(blocks)."""
    done, block = len(found.blocks), found.seconds / len(found.blocks)
    if done < found.least_blocks:
        return (found.least_blocks - done) * block
    needed = done * ((found.half_width() / precision) ** 2 - 1) * block
    return max(0.0, min(needed, seconds - found.seconds))


class _Interrupts:
    """Notices Ctrl-C even where a contender swallows it, as a descent does: it stops early and has a shorter time."""

    def __init__(self) -> None:
        self._pressed = False
        self._handles = False

    def __enter__(self) -> _Interrupts:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
            self._handles = True
        return self

    def __exit__(self, *error: object) -> None:
        if self._handles:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        signal.default_int_handler(number, frame)

    def heed(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed and nobody said so."""
        if self._pressed:
            self._pressed = False
            raise KeyboardInterrupt
