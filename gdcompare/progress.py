"""A bar on stderr for long work, and a word about long silence: a compiler may be at work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

_WHILE = 0.5
"""Seconds of work after which the bar appears."""

_SILENCE = 2.0
"""Seconds without a first step after which it appears."""


@contextmanager
def progress_bar(total: int, show: bool | None, doing: str, rated: str = "") -> Iterator[Callable[[int], object]]:
    """Give a function that moves a bar on stderr on by so many steps; it appears when the work takes a while.

    Until the first step is done it says that a compiler may be at work. `rated` names what steps are of that come by
    the million, such as rows: the bar then says how many in a second.
    """
    if not _wanted(show):
        yield lambda _: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    of_all = _rate_column(rated) if rated else MofNCompleteColumn()
    columns = [*Progress.get_default_columns()[:-1], of_all, TimeElapsedColumn(), TimeRemainingColumn()]
    bar = Progress(*columns, console=_stderr(show), transient=True, auto_refresh=False)
    task = bar.add_task(f"{doing}: compiling, or in the first steps", total=total)
    with _shown_when_long(bar):
        yield lambda steps: bar.update(task, advance=steps, description=doing)


@contextmanager
def said_if_long(doing: str, show: bool | None = None) -> Iterator[None]:
    """Say on stderr what is being done, and for how long, while it takes long."""
    if not _wanted(show):
        yield
        return
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    bar = Progress(*columns, console=_stderr(show), transient=True, auto_refresh=False)
    bar.add_task(doing)
    with _shown_when_long(bar):
        yield


@contextmanager
def _shown_when_long(bar: Progress) -> Iterator[None]:
    """Show the bar after a while, from a thread that ends here: the main one may wait for a compiler."""
    begun, ended = time.monotonic(), Event()

    def watch() -> None:
        while not ended.wait(0.1):
            if bar.live.is_started:
                bar.refresh()
            elif time.monotonic() - begun > (_WHILE if bar.tasks[0].completed else _SILENCE):
                bar.start()

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        bar.stop()


def _rate_column(of: str) -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g} {of}/s" if task.speed else "", style="progress.data.speed")

    return Rate()


def _wanted(show: bool | None) -> bool:
    return sys.stderr.isatty() if show is None else show


def _stderr(show: bool | None) -> Console:
    from rich.console import Console

    return Console(stderr=True, force_terminal=show)
