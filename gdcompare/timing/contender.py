"""What is timed: a call, when it is complete, and whether its answer is right."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from inspect import signature
from types import ModuleType
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Judgement:
    """Whether an answer is right, why if it is not, and figures that belong beside its time (an error in ulps, digits).

    >>> bool(Judgement(right=False, words="theta_0 is not finite"))
    False
    """

    right: bool
    words: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.right


Judge: TypeAlias = Callable[[Any], Judgement]
"""Looks at an answer, after the clock has stopped: `judge(answer) -> Judgement`; an AssertionError says wrong, too."""


def unjudged(answer: Any) -> Judgement:
    """The judge of work whose answer says nothing: it accepts everything, and says that it did not look."""
    del answer
    return Judgement(right=True, words="not judged")


def wait_for(answer: Any) -> None:
    """Return when every array in the answer has been computed; nothing is copied.

    Answers are arrays, or mappings, lists, tuples and dataclasses of them. Raises TypeError for an array on a device
    that nobody can wait for.
    """
    for leaf in leaves(answer):
        if (complete := completion(leaf)) is not None:
            complete()


@dataclass(frozen=True)
class Contender:
    """One way to do a piece of work, ready to be done: inputs are prepared, and on their device.

    >>> total = Contender("sum", lambda: sum(range(10)), lambda answer: Judgement(answer == 45))
    >>> bool(total.judge(total.call()))
    True
    """

    name: str
    """What its row in a table is called."""

    call: Callable[[], Any]
    """The work and nothing else. What it returns is its answer."""

    judge: Judge
    """Whether that is right; a wrong answer has no time. `unjudged` where there is nothing to judge."""

    ready: Callable[[Any], object] = wait_for
    """Returns when an answer is complete: the clock stops after it."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else belongs beside the time and makes the work what it is: sizes, dtype, device. Must suit JSON."""

    def again(self) -> Contender:
        """Return the same under another name: the control, whose difference from it is nothing but noise."""
        return replace(self, name=f"{self.name}, again")

    def waits(self, answer: Any) -> Callable[[Any], object] | None:
        """Return `ready`, or None if answers such as this one are complete when they are returned.

        So whoever has nothing to wait for pays an `if` a turn, and no look at the answer in every call.
        """
        if self.ready is wait_for and all(completion(leaf) is None for leaf in leaves(answer)):
            return None
        return self.ready


NOTHING = Contender("nothing", lambda: None, unjudged)
"""A call that does nothing: its time is what the timer's own loop adds to every other. It is shown, not subtracted."""


def leaves(answer: Any) -> Iterator[Any]:
    """Yield all that an answer is made of.

    >>> list(leaves((1.0, {"a": [2.0], "b": None})))
    [1.0, 2.0, None]
    """
    if isinstance(answer, Mapping):
        for part in answer.values():
            yield from leaves(part)
    elif isinstance(answer, list | tuple):
        for part in answer:
            yield from leaves(part)
    elif is_dataclass(answer) and not isinstance(answer, type):
        for each in fields(answer):
            yield from leaves(getattr(answer, each.name))
    else:
        yield answer


_HOST = {1, 3, 11}
"""DLPack's numbers of memory that the processor reads itself: plain, and pinned for CUDA and ROCm."""


def completion(leaf: Any) -> Callable[[], Any] | None:
    """Return the call that waits for an array, or None if whoever holds it may already read it.

    That is its own `block_until_ready`, or, for an array that lies on a device, `synchronize` of that device or of its
    library's part for such devices (`torch.cuda.synchronize` and the like).
    """
    if (wait := getattr(leaf, "block_until_ready", None)) is not None:
        return wait  # type: ignore[no-any-return]  # whatever it is, it is called
    where, device = getattr(leaf, "__dlpack_device__", None), getattr(leaf, "device", None)
    if where is not None and where()[0] in _HOST:
        return None
    if where is None and (device is None or "cpu" in str(device).lower()):
        return None
    if (wait := getattr(device, "synchronize", None)) is not None:
        return wait  # type: ignore[no-any-return]
    part = getattr(_library(leaf), str(getattr(device, "type", "")), None)
    if (wait := getattr(part, "synchronize", None)) is not None:
        return partial(wait, device) if signature(wait).parameters else wait  # one of several, or the only one
    raise TypeError(f"cannot wait for a {type(leaf).__name__} on device {device!r}: its contender needs a `ready`")


def _library(leaf: Any) -> ModuleType | None:
    return sys.modules.get(type(leaf).__module__.partition(".")[0])


def unfinished(answer: Any) -> bool:
    """Return whether an array says of itself that it is not complete: then the clock stopped too early."""
    return any(not leaf.is_ready() for leaf in leaves(answer) if hasattr(leaf, "is_ready"))
