"""One thread for the sums of a block: several would split them among each other, and add up in another order."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from gdcompare.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Iterator


def one_thread(backend: Backend[Any]) -> Callable[[], AbstractContextManager[object]]:
    """Return what lets the backend, and the BLAS below it, compute on the calling thread alone while it is entered.

    The backend says how by its capability `one_thread` (`backend.OnOneThread`); of BLAS, threadpoolctl knows, where it
    is installed.

    >>> from gdcompare.registry import as_backend
    >>> with one_thread(as_backend("numpy"))():
    ...     pass
    """
    ways: list[Callable[[], AbstractContextManager[object]]] = []
    if importlib.util.find_spec("threadpoolctl"):
        pools = importlib.import_module("threadpoolctl").ThreadpoolController()
        if pools.select(user_api="blas").lib_controllers:
            ways.append(lambda: pools.limit(limits=1, user_api="blas"))
    if (theirs := getattr(backend, "one_thread", None)) is not None:
        ways.append(theirs)
    if not ways:
        return nullcontext

    @contextmanager
    def entered() -> Iterator[None]:
        with ExitStack() as stack:
            for way in ways:
                stack.enter_context(way())
            yield

    return entered
