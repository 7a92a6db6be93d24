"""The door of the command line: what becomes of errors and signals.

    bad input                       one line on stderr, exit code 2
    a bug in somebody's own code    its traceback, from that code on, 4
    Ctrl-C                          what was done until then, 130, within two seconds
    a broken pipe                   nothing, 141

OSError, MemoryError, RecursionError and OverflowError are bad input wherever they arise. A SystemExit is somebody's:
our own commands leave by click's.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import click

from gdcompare.cli.output import BAD_INPUT, BROKEN_PIPE, BUG, INTERRUPTED
from gdcompare.own_files import is_installed, shown_path
from gdcompare.words import one_line

GRACE = 1.2
"""How many seconds a command has to end by itself after Ctrl-C."""

_SUITE = __name__.partition(".")[0]


class Door(click.Group):
    """A group of commands, each of which ends with an exit code and, at most, one line about what was wrong."""

    def main(  # type: ignore[override]  # click overloads it by standalone_mode
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line as click does; exit with its code, or return that if it is not to stand alone."""
        done = extra.setdefault("obj", [])
        with redirect_stdout(sys.stdout), redirect_stderr(sys.stderr):  # given back, whatever happens
            try:
                result = super().main(args, prog_name, standalone_mode=False, **extra)
                sys.stdout.flush()
                code = result if isinstance(result, int) else 0
            except BaseException as error:
                code = _said(error, done)
        if standalone_mode:
            sys.exit(code)
        return code


def _said(error: BaseException, done: Sequence[str]) -> int:
    """Say on stderr what is wrong, and return the exit code."""
    cause = error.__cause__ if isinstance(error, click.Abort) and error.__cause__ is not None else error
    if _is_broken_pipe(cause):
        _forget_stdout()
        return BROKEN_PIPE
    if isinstance(cause, KeyboardInterrupt | click.Abort):
        click.echo(interrupted(done), err=True)
        return INTERRUPTED
    if isinstance(cause, click.ClickException):
        words = one_line(cause.format_message().replace("\n\t", " "))
        click.UsageError(words, getattr(cause, "ctx", None)).show()
        return BAD_INPUT
    own = _somebodys(cause.__traceback__)
    if (about := _bad_input(cause, own)) is not None:
        if isinstance(cause, OSError):
            _forget_stdout()
        click.echo(f"error: {one_line(about)}", err=True)
        return BAD_INPUT
    traceback.print_exception(type(cause), cause, own or cause.__traceback__)
    click.echo("error: a bug " + (f"at {_place(own)}" if own else f"in {_SUITE}: please report it"), err=True)
    return BUG


def interrupted(done: Sequence[str]) -> str:
    """Return the words about Ctrl-C.

    >>> interrupted([]), interrupted(["laws on a", "laws on b"])
    ('interrupted: nothing was done', 'interrupted; done: laws on a, laws on b')
    """
    return one_line(f"interrupted; done: {', '.join(done)}" if done else "interrupted: nothing was done")


def _bad_input(error: BaseException, own: TracebackType | None) -> str | None:
    """Return what to say of an error if it is about what was given; None for a bug."""
    where = f"{_place(own)}: " if own else ""
    if isinstance(error, SystemExit):
        return f"{where}it calls sys.exit({error.code!r}): let it return, or raise an error"
    if isinstance(error, EOFError):
        return f"{where}{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        file = f"{os.fsdecode(error.filename)!r}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{file}{error.strerror}" if error.strerror else f"{where}{error or type(error).__name__}"
    if isinstance(error, MemoryError | RecursionError | OverflowError):
        return f"{where}{type(error).__name__}: {error}" if str(error) else f"{where}{type(error).__name__}"
    if isinstance(error, ValueError | LookupError | TypeError | ImportError) and _raised_by_us(error):
        return str(error.args[0] if isinstance(error, LookupError) and error.args else error)
    return None


def _raised_by_us(error: BaseException) -> bool:
    """Whether the suite itself raised it, rather than a framework or somebody's formula, whose bug should be seen."""
    if isinstance(error, IndexError | KeyError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith(_SUITE)


def _is_broken_pipe(error: BaseException | None) -> bool:
    """Whether nobody reads what is written; rich and click make a SystemExit of that."""
    if isinstance(error, SystemExit):
        return _is_broken_pipe(error.__context__)
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _somebodys(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first call on that is neither ours nor installed: somebody's own code."""
    while trace is not None and not _is_somebodys(trace.tb_frame):
        trace = trace.tb_next
    return trace


def _is_somebodys(frame: FrameType) -> bool:
    module, file = str(frame.f_globals.get("__name__", "")), Path(frame.f_code.co_filename)
    ours = module.partition(".")[0] == _SUITE or module.startswith((f"{_SUITE}_", "__main__", "runpy"))
    return not ours and file.is_file() and not is_installed(file)


def _place(trace: TracebackType | None) -> str:
    """Return the innermost place in somebody's own code."""
    places = [(frame, line) for frame, line in traceback.walk_tb(trace) if _is_somebodys(frame)]
    frame, line = places[-1]
    return f"{shown_path(frame.f_code.co_filename)}:{line}"


def _forget_stdout() -> None:
    """Let what stdout still holds go nowhere, or Python complains of it at its end."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def end_when_interrupted(done: Sequence[str]) -> None:
    """End this process soon after Ctrl-C, also where a library swallows the KeyboardInterrupt, or never returns to us.

    Python's signal handler writes to a pipe at once, whatever runs. A thread reads it, gives the command a while to end
    by itself, and then ends it. No KeyboardInterrupt is raised while a module is imported: extension modules answer one
    by aborting. It is raised after the import, if that ends in time.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    postponed = threading.Event()

    def interrupt(_number: int, frame: FrameType | None) -> None:
        while frame:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                postponed.set()
                return
            frame = frame.f_back
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell asks for in the background
        signal.signal(signal.SIGINT, interrupt)

    def watch() -> None:
        while os.read(reading, 1) != bytes([signal.SIGINT]):
            pass
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            time.sleep(GRACE / 10)
            if postponed.is_set():
                postponed.clear()
                signal.raise_signal(signal.SIGINT)
        os.write(2, f"{interrupted(done)}\n".encode(errors="backslashreplace"))
        os._exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()
