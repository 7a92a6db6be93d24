"""Why something has no time."""

from __future__ import annotations

from dataclasses import dataclass

from gdcompare.words import one_line

_OUT_OF_MEMORY = ("out of memory", "resource_exhausted", "can't allocate memory", "cannot allocate memory")
_LONGEST = 200


@dataclass(frozen=True)
class Failure:
    """Why a contender has no time: what its cell in a table says."""

    kind: str
    """"wrong", "error", "out of memory", "out of time" or "unfinished"."""

    words: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}" if self.words else self.kind


def failure_of(error: BaseException) -> Failure:
    """Return the failure that an exception is; every framework has one of its own for memory, but all say so.

    >>> str(failure_of(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")))
    'out of memory: RuntimeError: CUDA out of memory. Tried to allocate 2 GiB'
    """
    words = one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)[:_LONGEST]
    memory = isinstance(error, MemoryError) or any(each in words.lower() for each in _OUT_OF_MEMORY)
    return Failure("out of memory" if memory else "error", words)
