"""How much memory this process holds, and the most it ever held, in bytes."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident() -> int:
    """Return what this process holds in memory now; where the system does not say, the most it ever held."""
    return _of_status("VmRSS") or peak()


def peak() -> int:
    """Return the most that this process held since `forget_peak`, or since it began. 0 where the system does not say.

    On Linux that is VmHWM: ru_maxrss begins with the peak of whoever started the process, and this with nothing.
    """
    if found := _of_status("VmHWM"):
        return found
    try:
        import resource
    except ImportError:  # no Unix
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Let the peak begin anew with what is held now, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _of_status(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
