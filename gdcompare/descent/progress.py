"""A bar on stderr for long work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: int, show: bool | None, doing: str) -> Iterator[Callable[[int], object]]:
    """Give a function that moves a bar on stderr on by so many steps; it appears when the work takes a while."""
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        *Progress.get_default_columns()[:-1],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, force_terminal=show),
        transient=True,
    )
    task = bar.add_task(doing, total=total)
    begun = time.monotonic()

    def advance(steps: int) -> None:
        bar.advance(task, steps)
        if not bar.live.is_started and time.monotonic() - begun > 0.5:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
