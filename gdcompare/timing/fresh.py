"""A call in a fresh process: nothing loaded, nothing compiled, as many threads as asked, and its end survived.

This file imports nothing but the standard library and its like: the child pins itself before anything else is loaded.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from gdcompare.timing.failure import Failure, failure_of
from gdcompare.timing.threads import checked_threads, pinned, variables
from gdcompare.words import one_line

EVERY = 0.1
"""Seconds between two questions whether a process should stop."""

GRACE = 5.0
"""Seconds that a process has to end by itself when it should stop."""

_send: Callable[[str, Any], None] | None = None
"""In a child: writes a message to the parent."""


class ProcessFailedError(RuntimeError):
    """The process had no answer; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def in_fresh_process(
    function: str,
    arguments: Mapping[str, Any],
    *,
    threads: int | None = None,
    limit: float | None = None,
    heard: Callable[[Any], object] | None = None,
    stop: Callable[[], bool] | None = None,
    folder: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Return `function(**arguments)`, called in a process of its own; arguments and answer must suit JSON.

    `function` is "module:function" or "path/to/file.py:function". With `threads`, the process may use so many
    processors, and its thread pools are told so. After `limit` seconds it is ended. What the function gives to `report`
    comes to `heard`. Ctrl-C is passed on, so that the function may end early with what it has; as soon as `stop`, asked
    now and then in another thread, says so, it is as if Ctrl-C were pressed. The process starts in `folder`, and with
    `environment` in place of this one's.

    Raises ProcessFailedError where the process fails, dies, or takes too long, and KeyboardInterrupt where it has no
    answer after Ctrl-C.

    >>> in_fresh_process("math:prod", {"iterable": [2, 3, 4], "start": 1})
    Traceback (most recent call last):
    ...
    gdcompare.timing.fresh.ProcessFailedError: error: TypeError: prod() takes exactly 1 positional argument (0 given)
    >>> in_fresh_process("json:dumps", {"obj": [1]})
    '[1]'
    """
    request = {
        "function": function,
        "arguments": arguments,
        "threads": threads and checked_threads(threads),
        "path": sys.path,  # what can be imported here can be imported there
    }
    own = os.environ if environment is None else environment
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "gdcompare.timing.fresh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            env={**own, **(variables(threads) if threads else {})},
            cwd=folder,
            text=True,
            start_new_session=True,  # Ctrl-C in a terminal comes to us, and we pass it on, once
        )
        with process, _stopping(process, stop):
            answer, end = _conversation(process, json.dumps(request), limit, heard)
        words.seek(0)
        said = words.read().decode(errors="replace").strip().splitlines()
    if end == "late":
        raise ProcessFailedError(Failure("out of time", f"more than {limit:g} s"))
    if "answer" in answer:
        return answer["answer"]
    if end == "interrupted" or answer.get("interrupted") or (stop is not None and stop()):
        raise KeyboardInterrupt  # whatever it died of then
    if "failure" in answer:
        raise ProcessFailedError(Failure(*answer["failure"]))
    raise ProcessFailedError(_death(process.returncode, said))


def report(value: Any) -> None:
    """Tell the parent something on the way, if this runs in a fresh process; otherwise nothing happens."""
    if _send is not None:
        _send("report", value)


def named(function: str) -> Any:
    """Return what "module:name" or "path/to/file.py:name" names.

    >>> named("math:sqrt")(4)
    2.0
    """
    home, _, name = function.rpartition(":")
    if not home.endswith(".py"):
        return getattr(importlib.import_module(home), name)
    spec = importlib.util.spec_from_file_location(Path(home).stem, home)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {home!r}")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # a dataclass looks itself up there
    spec.loader.exec_module(module)
    return getattr(module, name)


def _conversation(
    process: subprocess.Popen[str], request: str, limit: float | None, heard: Callable[[Any], object] | None
) -> tuple[dict[str, Any], str]:
    """Return the last message of the process, and what came first: "late", "interrupted", or its end, ""."""
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(limit, end) if limit is not None else None
    if timer is not None:
        timer.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(request)
            process.stdin.close()
        try:
            return _listen(process.stdout, heard), "late" if late.is_set() else ""
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            return _listen(process.stdout, heard), "interrupted"
    except BaseException:
        process.kill()
        raise
    finally:
        if timer is not None:
            timer.cancel()


@contextlib.contextmanager
def _stopping(process: subprocess.Popen[str], stop: Callable[[], bool] | None) -> Iterator[None]:
    """Press Ctrl-C in the process as soon as `stop` says so, and end it if it does not end then."""
    over = threading.Event()

    def watch() -> None:
        while stop is not None and not over.wait(EVERY):
            if stop():
                process.send_signal(signal.SIGINT)
                if not over.wait(GRACE):
                    process.kill()
                return

    if stop is not None:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _listen(lines: IO[str], heard: Callable[[Any], object] | None) -> dict[str, Any]:
    for line in lines:
        message: dict[str, Any] = json.loads(line)
        if "report" not in message:
            return message
        if heard is not None:
            heard(message["report"])
    return {}


def _death(code: int, said: list[str]) -> Failure:
    if code == -9:
        return Failure("out of memory", "the process was killed (signal 9), as the system does where memory runs out")
    why = f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return Failure("error", one_line(f"the process {why}{': ' if said else ''}{said[-1] if said else ''}")[:200])


def _serve() -> None:
    """Be the child: read the request, pin this process, call the function, and write the answer."""
    global _send
    to_parent = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints does not disturb the conversation

    def send(kind: str, value: Any) -> None:
        to_parent.write(json.dumps({kind: value}) + "\n")
        to_parent.flush()

    if hasattr(signal, "pthread_sigmask"):  # whoever began us may keep it from themselves
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    request = json.loads(sys.stdin.read())
    sys.path[:] = request["path"]
    with pinned(request["threads"]) if request["threads"] else contextlib.nullcontext():
        _send = send
        try:
            answer = named(request["function"])(**request["arguments"])
        except KeyboardInterrupt:
            send("interrupted", value=True)
        except Exception as error:
            failure = failure_of(error)
            send("failure", [failure.kind, failure.words])
        else:
            send("answer", answer)


if __name__ == "__main__":
    import gdcompare.timing.fresh  # this file is __main__; whoever reports imports it by its name

    gdcompare.timing.fresh._serve()
