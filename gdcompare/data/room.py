"""Whether data fit the memory that is left, asked before they are read."""

from __future__ import annotations

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return the bytes that this process may still fill; None where the operating system does not say.

    It is the least of what the machine has left, and what limits on the process and on its group (Linux) leave it.
    """
    known = [each for each in (_of_machine(), _of_process(), _of_group()) if each is not None]
    return min(known, default=None)


IN_BLOCKS = "read it in blocks of rows, gdcompare.datasets.blocks(...), on the command line --block-rows"


def refuse_what_does_not_fit(path: Path, needed: int, way_out: str = IN_BLOCKS) -> None:
    """Raise a ValueError, with the way out, where reading a file whole needs more memory than is left."""
    room = available_memory()
    if room is not None and needed > room:
        raise ValueError(
            f"{path.name!r} needs {_size(needed)} of memory to be read whole, and {_size(room)} are left: {way_out}"
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _of_machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _of_process() -> int | None:
    """Return what is left of `ulimit -v` and `ulimit -d`."""
    try:
        import resource

        pages = [int(each) for each in Path("/proc/self/statm").read_text().split()]
        limits = {resource.RLIMIT_AS: pages[0], resource.RLIMIT_DATA: pages[5]}
        page = os.sysconf("SC_PAGE_SIZE")
        left = [
            max(0, limit - taken * page)
            for kind, taken in limits.items()
            if (limit := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY
        ]
    except (ImportError, OSError, ValueError):
        return None
    return min(left, default=None)


def _of_group() -> int | None:
    """Return what is left of a container's limit; what its files fill of it is given back when it is needed."""
    try:
        limit = int((CGROUP / "memory.max").read_text())  # "max" is none
        taken = int((CGROUP / "memory.current").read_text())
        about = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - taken + int(about.get("file", 0)))
    except (OSError, ValueError):
        return None
