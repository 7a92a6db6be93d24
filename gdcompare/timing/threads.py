"""Equal threads for all: how many processors a process may use, and the thread pools that ask the environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

POOLS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
"""Variables that say how many threads a library starts; it reads them once, when it is loaded."""


def allowed() -> list[int] | None:
    """Return the processors that this process may use, or None where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def checked_threads(threads: int) -> int:
    """Return the number if there are so many processors; raise ValueError otherwise."""
    most = len(allowed() or range(os.cpu_count() or 1))
    if not 1 <= threads <= most:
        raise ValueError(f"threads must be from 1 to {most}, the processors that there are, not {threads}")
    return threads


def variables(threads: int) -> dict[str, str]:
    """Return the environment variables for so many threads.

    >>> variables(1)["OMP_NUM_THREADS"]
    '1'
    """
    return dict.fromkeys(POOLS, str(threads))


@contextlib.contextmanager
def pinned(count: int) -> Iterator[list[int] | None]:
    """Let this process and its threads, those to come as well, use so many processors; put that back afterwards.

    Yields their numbers, or None where the system cannot pin; they are the last ones, since the first is often busier.
    Some libraries have no other switch: they count processors when they are loaded, so this comes before.
    """
    if allowed() is None:
        yield None
        return
    before = {thread: os.sched_getaffinity(thread) for thread in _threads()}
    chosen = (allowed() or [])[-checked_threads(count) :]
    _pin({thread: set(chosen) for thread in before})
    try:
        yield chosen
    finally:
        _pin({thread: before.get(thread, before[os.getpid()]) for thread in _threads()})


def _pin(processors: Mapping[int, set[int]]) -> None:
    for thread, chosen in processors.items():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(thread, chosen)


def _threads() -> list[int]:
    return [int(task.name) for task in Path("/proc/self/task").iterdir()]
