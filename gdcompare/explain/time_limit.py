"""A limit on how long a computation in pure Python may take."""

from __future__ import annotations

import ctypes
import queue
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")

SHORTEST = 1e-3
"""How long to wait before the clock is looked at again, in seconds."""


AGAIN = 0.1
"""Seconds of computing after which the end is told again: a callback of the garbage collector may have kept it."""


class _TimeIsUp(BaseException):
    """Raised in a thread from outside; no `except Exception` on its way keeps it."""


def within(seconds: float, compute: Callable[[], T]) -> T:
    """Return what `compute()` does, or raise a TimeoutError once it has computed for so long.

    What counts is the time of the thread on a processor, where the system tells it: the same computation comes to its
    end however busy the machine is. It works in any thread, and touches no signal. A call into C ends first.

    An exception that was told is never taken back, as `PyThreadState_SetAsyncExc` with NULL would do: CPython 3.11 goes
    on believing that there is one, and hangs under whatever traces the thread, as debuggers and Hypothesis do.

    >>> within(10, lambda: 1 + 1)
    2
    """
    thread, told = threading.get_ident(), queue.SimpleQueue[None]()
    spent = _clock_of(thread)
    begun = spent()

    def watch() -> None:
        limit = seconds
        while True:
            rest = limit - (spent() - begun)
            try:
                return told.get(timeout=max(rest, SHORTEST))
            except queue.Empty:
                if spent() - begun >= limit:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_TimeIsUp))
                    limit = spent() - begun + AGAIN

    watcher = threading.Thread(target=watch, daemon=True)

    def end() -> None:
        told.put(None)
        watcher.join()
        for _ in range(2):  # what was told, and not yet raised, is raised here, where a loop begins again
            pass

    try:
        watcher.start()
        try:
            return compute()
        finally:
            end()
    except _TimeIsUp:
        end()  # for it may have been raised in the midst of that
        raise TimeoutError(f"not within {seconds:g} s") from None


def _clock_of(thread: int) -> Callable[[], float]:
    """Return a clock of a thread's seconds on a processor; elsewhere than on Unix, of all seconds."""
    if sys.platform == "win32" or not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic
    return partial(time.clock_gettime, time.pthread_getcpuclockid(thread))
