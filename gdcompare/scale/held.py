"""What a worker process holds, and what it answers: one call for each step, of which a second does no harm.

It holds, by job, the problem, the backend and as many of its blocks as its memory allows; what does not fit is read
anew. A call says which blocks are asked for, and at which parameters, and gets nodes of the tree. A worker that lacks
what it needs, since it is new, says so, and is sent it.
"""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from gdcompare import registry
from gdcompare.data.blocks import Arrays
from gdcompare.data.extras import optional
from gdcompare.scale.connection import differences
from gdcompare.scale.parcel import Pieces, unpacked
from gdcompare.scale.shares import Ranges, has, numbers
from gdcompare.scale.sums import Sums
from gdcompare.scale.tree import Nodes

SHARE_OF_MEMORY = 0.55
"""Of a worker's limit, as Dask has it, that the process may fill with blocks; above 0.6 Dask begins to make room."""

FORGOTTEN = 600.0
"""Seconds without a call after which a job gives way to another."""


class Asked(NamedTuple):
    """One call: blocks of a job, at some parameters."""

    job: str
    generation: int
    """Counts how often blocks have changed hands."""
    own: Ranges
    """The worker's share. What it is asked for beyond, in another's place, it does not keep."""
    ranges: Ranges
    params: Mapping[str, NDArray[Any]]


class Worked(NamedTuple):
    """Its answer."""

    nodes: Nodes
    seconds: float


class Lacks(NamedTuple):
    """The answer of a worker that has not what it needs: the job (None), or these rows of it."""

    rows: Ranges | None


class Refused(NamedTuple):
    """The answer of a worker that would compute otherwise, and why."""

    words: str


class Failed(NamedTuple):
    """The answer where something was raised, in words that can be sent."""

    error: Exception | None
    """Itself, if it can be sent."""
    words: str
    trace: str
    block: int | None
    """Where it was."""
    beyond: bool
    """Whether another worker may fare better: it was reading, or its memory."""


@dataclass
class _Job:
    sums: Sums
    limit: float = 0.0
    own: Ranges = ()
    generation: int = -1
    used: float = field(default_factory=time.monotonic)
    at: int | None = None
    reading: bool = False

    def keep(self, index: int, arrays: list[NDArray[Any]]) -> list[NDArray[Any]] | None:
        """Return a block's arrays in this process's own memory, if it is one of ours and there is room."""
        self.reading = False
        size = sum(each.nbytes for each in arrays)
        if not has(self.own, index) or _resident() + size > self.limit:
            return None
        here = isinstance(self.sums.blocks.source, Pieces)  # what was sent is in the memory already
        return arrays if here else [np.array(each) for each in arrays]

    def each(self, ranges: Ranges) -> Iterator[int]:
        for self.at in numbers(ranges):
            self.reading = True  # until its arrays are there
            yield self.at


@final
class Held:
    """The jobs of a process, and what it is asked. `limit` are the bytes that it may come to."""

    def __init__(self) -> None:
        self.jobs: dict[str, _Job] = {}

    def begin(self, job: str, parcel: bytes, versions: Mapping[str, str], ours: bool) -> Failed | Refused | None:
        """Take up a job, unless it is held already. `ours` says that the process does nothing else."""
        if job in self.jobs:
            return None
        if other := differences(versions):
            return Refused("; ".join(other))
        for name in [name for name, each in self.jobs.items() if time.monotonic() - each.used > FORGOTTEN]:
            del self.jobs[name]
        try:
            if ours:
                registry.own_this_process()
            problem, backend, blocks = unpacked(parcel)
            held = _Job(Sums(problem, backend, blocks, lambda index, arrays: held.keep(index, arrays)))
        except Exception as error:
            return _failed(error, None, beyond=False)
        self.jobs[job] = held
        return None

    def take(self, job: str, first: int, arrays: Arrays) -> None:
        """Take up rows of a job that its asker has in memory."""
        if (held := self.jobs.get(job)) is not None and isinstance(held.sums.blocks.source, Pieces):
            held.sums.blocks.source.put(first, arrays)

    def end(self, job: str) -> None:
        """Forget a job."""
        self.jobs.pop(job, None)

    def work(self, asked: Asked, limit: float) -> Worked | Lacks | Failed:
        """Return what these blocks add to the tree."""
        begun = time.perf_counter()
        job = self.jobs.get(asked.job)
        if job is None:
            return Lacks(None)
        job.used, job.limit = time.monotonic(), limit
        blocks = job.sums.blocks
        source = blocks.source
        if asked.generation > job.generation:
            job.generation, job.own = asked.generation, asked.own
            job.sums.forget(lambda index: has(job.own, index))
            if isinstance(source, Pieces):
                source.keep(_rows(job.own, blocks.rows, len(blocks)))
        if isinstance(source, Pieces) and (rows := source.lacking(_rows(asked.ranges, blocks.rows, len(blocks)))):
            return Lacks(rows)
        try:
            nodes = job.sums.nodes(asked.params, job.each(asked.ranges))
        except Exception as error:
            return _failed(error, job.at, beyond=job.reading or isinstance(error, OSError | MemoryError))
        return Worked(nodes, time.perf_counter() - begun)


_held = Held()
_thread = ThreadPoolExecutor(1, "gdcompare")


async def _there(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in the one thread that computes; the event loop of the worker goes on meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(_thread, function, *arguments)


async def work(asked: Asked, dask_worker: Any) -> Any:
    """Be called on a worker: `Held.work`."""
    return await _there(_held.work, asked, _limit(dask_worker))


async def begin(*arguments: Any) -> Any:
    """Be called on a worker: `Held.begin`."""
    return await _there(_held.begin, *arguments)


async def take(*arguments: Any) -> None:
    """Be called on a worker: `Held.take`."""
    await _there(_held.take, *arguments)


async def end(*arguments: Any) -> None:
    """Be called on a worker: `Held.end`."""
    await _there(_held.end, *arguments)


def _rows(blocks: Ranges, size: int, rows: int) -> Ranges:
    return tuple((begin * size, min(end * size, rows)) for begin, end in blocks)


def _limit(dask_worker: Any) -> float:
    """Return the bytes that this process may come to."""
    limit = dask_worker.memory_manager.memory_limit
    if limit is None:
        limit = _psutil().virtual_memory().total / max(1, os.cpu_count() or 1)
    return SHARE_OF_MEMORY * float(limit)


def _resident() -> float:
    return float(_psutil().Process().memory_info().rss)


def _psutil() -> Any:
    return optional("psutil", "psutil", "a worker", "dask")


def _failed(error: Exception, block: int | None, *, beyond: bool) -> Failed:
    trace = "".join(traceback.format_exception(error))
    words = str(error) or type(error).__name__
    return Failed(_sendable(error), words, trace, block, beyond)


def _sendable(error: Exception) -> Exception | None:
    """Return an error without where it arose, if it comes out of its bytes as it went in."""
    import pickle

    try:
        alike = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:
        return None
    return alike if type(alike) is type(error) and str(alike) == str(error) else None
