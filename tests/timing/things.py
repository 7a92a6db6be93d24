"""What tests start in fresh processes, by its name."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gdcompare.timing.contender import Contender, Judgement, unjudged
from gdcompare.timing.fresh import report


def echo(**given: Any) -> dict[str, Any]:
    print("noise on the standard output")  # noqa: T201 - it must not disturb
    return given


def threads() -> dict[str, Any]:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {"processors": affinity, "variable": os.environ.get("OMP_NUM_THREADS")}


def reports(times: int) -> str:
    for each in range(times):
        report(each)
    return "done"


def raises(words: str) -> None:
    raise MemoryError(words)


def dies(code: int) -> None:
    sys.stderr.write("last words\n")
    sys.stderr.flush()
    os._exit(code)


def is_killed() -> None:
    os.kill(os.getpid(), 9)


def hangs() -> None:
    time.sleep(600)


def until_interrupted() -> str:
    try:
        report("waiting")
        time.sleep(600)
    except KeyboardInterrupt:
        return "what there is"
    return "too late"


def never_ends() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report("waiting")
    time.sleep(600)


def dies_of_ctrl_c() -> None:
    try:
        report("waiting")
        time.sleep(600)
    except KeyboardInterrupt:
        os.abort()  # as extension modules do that are being imported


def fails_of_ctrl_c() -> None:
    try:
        report("waiting")
        time.sleep(600)
    except KeyboardInterrupt:
        raise RuntimeError("no module to be had") from None


def surroundings() -> dict[str, Any]:
    return {"folder": str(Path.cwd()), "threads": os.environ["OMP_NUM_THREADS"]}


def holds(megabytes: int, right: bool = True) -> Contender:
    """It has inputs of so many megabytes, and makes an answer of twice that."""
    data = np.ones(megabytes * 2**17)
    return Contender("holds", lambda: np.concatenate([data, data]), lambda _: Judgement(right, "off", {"digits": 15.0}))


def two() -> list[Contender]:
    return [Contender(name, partial(sum, range(n)), unjudged) for name, n in (("short", 100), ("long", 5000))]
