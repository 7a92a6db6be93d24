"""What a time must be read with, and whether the machine is fit for timing."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gdcompare.timing.threads import POOLS, allowed

Environment: TypeAlias = dict[str, Any]
"""`machine`, `versions` and `threads`, which two runs must share to be compared, and `state`, which they need not."""

UNDER_ALL = (np.__name__, "array-api-compat")
"""What every contender of ours runs on; of frameworks, versions are in what they say of themselves."""

BUSY = 0.5
"""Processes that wait to run, per processor, from which a machine counts as busy."""


def environment(described: Mapping[str, Mapping[str, str]] | None = None) -> Environment:
    """Return what times on this machine depend on, as JSON has it.

    `described` is what each framework says of itself: `{backend.name: backend.environment()}`. No clock rates, which
    differ from one reading to the next, and no names of hosts.

    >>> sorted(environment())
    ['frameworks', 'machine', 'state', 'threads', 'versions']
    """
    processors = allowed()
    return {
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "processor": _processor(),
            "processors": os.cpu_count(),
            "memory": _memory("MemTotal"),
            "virtual": "hypervisor" in _cpuinfo("flags").split(),
        },
        "versions": {
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            **versions(UNDER_ALL),
        },
        "frameworks": {name: dict(words) for name, words in (described or {}).items()},
        "threads": {
            "processors": None if processors is None else len(processors),
            "variables": {name: os.environ[name] for name in POOLS if name in os.environ},
            "quota": _quota(),
        },
        "state": {
            "gdcompare": versions(["gdcompare"]).get("gdcompare"),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "boost": _read("/sys/devices/system/cpu/cpufreq/boost"),
            "available": _memory("MemAvailable"),
            "garbage collector": gc.isenabled(),
        },
    }


def unfit(found: Environment) -> list[str]:
    """Return what makes a machine less than fit for timing, a line each.

    >>> unfit({"machine": {"processors": 2}, "threads": {}, "state": {"load": 6.0, "governor": "powersave"}})
    ['the machine is busy: 6.0 processes want its 2 processors', 'the frequency governor is powersave, not performance']
    """
    machine, threads, state = found["machine"], found["threads"], found["state"]
    told = []
    load, processors = state.get("load") or 0.0, machine.get("processors") or 1
    if load > BUSY * processors:
        told.append(f"the machine is busy: {load:.1f} processes want its {processors} processors")
    if (governor := state.get("governor")) not in (None, "performance"):
        told.append(f"the frequency governor is {governor}, not performance")
    if machine.get("virtual"):
        told.append("the machine is virtual: what its neighbours do is not seen from here")
    quota = threads.get("quota")
    if quota and quota < (threads.get("processors") or processors):
        told.append(f"a quota of {quota:g} processors: who uses more is halted for a while")
    if state.get("garbage collector") is False:
        told.append("the garbage collector is off")
    return told


@contextlib.contextmanager
def only_run(place: Path | None = None, wait: bool = False) -> Iterator[str | None]:
    """Hold the one place on this machine for a run that times; yield None, or a line if another run holds it.

    With `wait`, wait until no other does.

    It is a lock on a file that all users share; the system lets go of it when a process ends, however it ends.
    """
    try:
        import fcntl
    except ImportError:  # no Unix
        yield None
        return
    path = place or Path(tempfile.gettempdir()) / "gdcompare-timing.lock"
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError:
        try:  # another user's file, which a sticky folder lets us open, but not create
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            yield None
            return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            warning = None
        except OSError:
            warning = "another timing run is under way on this machine: the two disturb each other"
        yield warning
    finally:
        os.close(file)


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those that are installed, without importing anything.

    >>> versions(["numpy", "no-such-thing"]).keys()
    dict_keys(['numpy'])
    """
    found = {}
    for name in sorted(distributions):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    lines = (_read("/proc/cpuinfo") or "").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _memory(key: str) -> int | None:
    lines = (_read("/proc/meminfo") or "").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _quota() -> float | None:
    """Return how many processors a container may use, if that is limited."""
    most, _, period = (_read("/sys/fs/cgroup/cpu.max") or "max").partition(" ")
    return None if most == "max" else int(most) / int(period)


def _read(path: str) -> str | None:
    if sys.platform == "win32":
        return None
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
