"""A limit on how long a computation in pure Python may take."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class _TimeIsUp(BaseException):
    """Raised in a thread from outside; no `except Exception` on its way keeps it."""


def within(seconds: float, compute: Callable[[], T]) -> T:
    """Return what `compute()` does, or raise a TimeoutError once it has taken so long.

    It works in any thread, and touches no signal. A call into C ends first.

    >>> within(10, lambda: 1 + 1)
    2
    """
    thread, lock, ended, struck = threading.get_ident(), threading.Lock(), False, False

    def strike() -> None:
        nonlocal struck
        with lock:
            if not ended:
                struck = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_TimeIsUp))

    timer = threading.Timer(seconds, strike)
    timer.daemon = True
    try:
        try:
            timer.start()
            return compute()
        finally:
            with lock:
                ended = True
            timer.cancel()
            if struck:  # and not yet raised: it comes to nothing
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)
    except _TimeIsUp:
        raise TimeoutError(f"not within {seconds:g} s") from None
