"""Sums over blocks by several processes, here or on a Dask cluster: each holds its share, and gets one call a step.

Calls go straight to a worker, past Dask's queue of tasks, which would take several times as long as a small step. They
may be made twice, or anywhere: the tree gives the same bits. So a worker that dies, hangs or cannot read has its share
done by another, and one that comes gets a share.
"""

from __future__ import annotations

import asyncio
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.registry import process_is_ours
from gdcompare.scale import held
from gdcompare.scale.connection import (
    ClusterError,
    ClusterWarning,
    client_of,
    reconnected,
    refuse_others,
    refuse_workers,
    versions,
)
from gdcompare.scale.held import Asked, Failed, Lacks, Refused, Worked
from gdcompare.scale.parcel import in_pieces, packed
from gdcompare.scale.shares import Ranges, shared_out, unit_for
from gdcompare.scale.sums import Here, Sums, Workers
from gdcompare.scale.tree import Tree

PIECE = 1 << 26
"""Bytes of rows that are sent at a time, of data in this process's memory."""

LOOK = 1.0
"""Seconds after which it is asked again who is there."""

LATE = 2.0, 3.0
"""Seconds, and times the slowest of those who are done: a share that takes longer is given to another as well."""

DEATHS = 4
"""Workers that may die over one share before it is believed to be the cause."""

PULSE = 60.0
"""Seconds between two tasks that do nothing, by which Dask sees that it is not idle."""


@contextmanager
def workers_for(
    sums: Sums,
    workers: int | None = None,
    scheduler: str | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[Workers]:
    """Give whoever works out the sums over all blocks: the same bits, whoever it is.

    Neither number nor address: this process. `workers=N`: so many new processes on this machine, of one thread each.
    `scheduler="tcp://HOST:PORT"`: the workers of that Dask cluster, once there are `workers`, or any; "local" is as
    many processes as there are processors. `advance` is told of rows that are done.

    Raises, before any work, ImportError where Dask is not installed, ValueError for what cannot be sent, ClusterError
    where nobody answers, or where a worker has other versions of what computes. Later, ClusterError where the cluster
    is lost.

    >>> from gdcompare.data.blocks import Blocks, InMemory
    >>> from gdcompare.registry import as_backend, as_problem
    >>> rows = Blocks(InMemory([[1.0], [3.0]], [2.0, 4.0]), rows=1)
    >>> sums = Sums(as_problem("linear-regression"), as_backend("numpy"), rows)
    >>> with workers_for(sums) as here:
    ...     here.total({"theta_0": np.array(1.0), "theta_1": np.array([0.0])}).tolist()
    [10.0, 2.0, -8.0, -20.0]
    """
    if workers is None and scheduler is None:
        yield Here(sums, advance)
        return
    refuse_workers(workers)
    parcel = packed(sums.problem, sums.backend, sums.blocks)
    with client_of(workers, scheduler, sums.blocks.count) as (client, ours):
        work = Cluster(client, sums, parcel, advance, address=None if ours else scheduler)
        try:
            if not ours:
                refuse_others(client, sums.backend)
            yield work
        finally:
            work.close()


@final
class Cluster:
    """The workers of a Dask cluster. `address` is where its scheduler is, if it may go and come back."""

    def __init__(
        self,
        client: Any,
        sums: Sums,
        parcel: bytes,
        advance: Callable[[int], object] = lambda _: None,
        address: str | None = None,
        patience: float = 60.0,
    ) -> None:
        self._client, self._sums, self._parcel, self._advance = client, sums, parcel, advance
        self._address, self._patience = address, patience
        self._job, self._versions = uuid.uuid4().hex, versions(sums.backend)
        self._count = sums.blocks.count
        self._unit = 0
        self._shares: dict[str, Ranges] = {}
        self._generation = 0
        self._present: list[str] = []
        self._looked = self._pulsed = -1e9
        self._pulse: Any = None
        self._late: dict[asyncio.Future[Any], str] = {}
        self._refused: set[str] = set()

    def total(self, params: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return the root of the tree; a ClusterError if nobody is left to work it out."""
        sent = {name: np.asarray(value) for name, value in params.items()}
        while True:
            try:
                return self._client.sync(self._step, sent)  # type: ignore[no-any-return]
            except _SchedulerLostError as error:
                if self._address is None:
                    raise ClusterError(f"the scheduler of this process's workers is gone: {error}") from error
                self._late.clear()
                self._client = reconnected(self._client, self._address, self._patience)

    def close(self) -> None:
        """Let the workers forget, and leave."""
        with suppress(Exception):  # whoever does not answer has nothing to forget, or forgets it by and by
            self._client.sync(self._leave, callback_timeout=2)
        self._client.close(timeout=2)

    async def _leave(self) -> None:
        for call in self._late:
            call.cancel()
        if self._address is not None:
            await self._client.run(held.end, self._job)

    # One step

    async def _step(self, params: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        tree = Tree(self._count)
        await self._settle()
        parts = [_Part(ranges) for ranges in self._shares.values() if ranges]
        calls: dict[asyncio.Future[Any], tuple[_Part, str]] = {}

        def give(part: _Part, address: str) -> None:
            part.given.append(address)
            part.begun = time.monotonic()
            calls[asyncio.ensure_future(self._call(address, part, params))] = part, address

        for part, address in zip(parts, (each for each, ranges in self._shares.items() if ranges), strict=True):
            give(part, address)
        slowest = 0.0
        try:
            while not all(part.done for part in parts):
                done, _ = await asyncio.wait(calls, timeout=LOOK / 2, return_when=asyncio.FIRST_COMPLETED)
                for call in done:
                    part, address = calls.pop(call)
                    answer = call.result()
                    if part.done:
                        continue
                    if isinstance(answer, Worked):
                        part.done, slowest = True, max(slowest, answer.seconds)
                        tree.join(answer.nodes)
                        self._advance(self._rows_of(part.ranges))
                    elif isinstance(answer, Failed):
                        if not answer.beyond or part.failed is not None:
                            raise self._said(*(part.failed or (answer, address)))
                        part.failed = answer, address
                    elif isinstance(answer, Refused):
                        self._refuse(address, answer.words)
                    else:
                        part.lost.append(f"{address}: {answer or type(answer).__name__}")
                        self._looked = -1e9
                if all(part.done for part in parts):
                    break
                await self._look()
                for call in [each for each, (_, address) in calls.items() if address not in self._present]:
                    part, address = calls.pop(call)
                    call.cancel()
                    part.lost.append(f"{address} is gone")
                await self._again(parts, calls, slowest, give)
        except BaseException:
            for call in calls:
                call.cancel()
            raise
        for call, (_, address) in calls.items():
            self._late[call] = address
            call.add_done_callback(self._is_back)
        return tree.total

    async def _again(
        self,
        parts: list[_Part],
        calls: dict[asyncio.Future[Any], tuple[_Part, str]],
        slowest: float,
        give: Callable[[_Part, str], None],
    ) -> None:
        """Give to others what nobody works on any more, or what somebody takes too long for."""
        at_work = [part for part, _ in calls.values()]
        busy = [address for _, address in calls.values()] + list(self._late.values())
        finished = any(part.done for part in parts)
        for part in parts:
            if part.done:
                continue
            late = finished and time.monotonic() - part.begun > max(LATE[0], LATE[1] * slowest)
            if part in at_work and not (late and at_work.count(part) == 1):
                continue
            if len(part.lost) >= DEATHS:
                first, last = self._first_and_last(part.ranges)
                raise ClusterError(
                    f"rows {first} to {last} of {self._sums.blocks.name!r}: {len(part.lost)} workers were lost over "
                    f"them, one after the other ({part.lost[-1]}): they may need more memory than a worker has"
                )
            others = [each for each in self._present if each not in busy and each not in part.given]
            if part in at_work:
                if others:
                    give(part, others[0])
                    busy.append(others[0])
                continue
            if part.failed is not None and not [each for each in self._present if each != part.failed[1]]:
                raise self._said(*part.failed)
            to = (others or [each for each in self._present if each not in part.given] or self._present)[:1]
            if not to:
                to = await self._somebody()
            give(part, to[0])
            busy.append(to[0])

    async def _call(
        self, address: str, part: _Part, params: Mapping[str, NDArray[Any]]
    ) -> Worked | Failed | Refused | OSError:
        """Return a worker's answer; it is sent what it lacks. An OSError where it is not reached."""
        asked = Asked(self._job, self._generation, self._shares.get(address, ()), part.ranges, params)
        try:
            while True:
                part.begun = time.monotonic()  # whoever asks for something is not late
                answer = await self._run(address, held.work, asked)
                if not isinstance(answer, Lacks):
                    return answer  # type: ignore[no-any-return]
                if answer.rows is None:
                    ours = self._address is None and process_is_ours()
                    refusal = await self._run(address, held.begin, self._job, self._parcel, self._versions, ours)
                    if refusal is not None:
                        return refusal  # type: ignore[no-any-return]
                    continue
                for first, arrays in in_pieces(self._sums.blocks, answer.rows, PIECE):
                    part.begun = time.monotonic()
                    await self._run(address, held.take, self._job, first, arrays)
        except OSError as error:
            return error
        except (ImportError, AttributeError) as error:  # of the call itself: there is another suite, or none
            return Refused(str(error))

    async def _run(self, address: str, function: Any, *arguments: Any) -> Any:
        return (await self._client.run(function, *arguments, workers=[address]))[address]

    # Who is there

    async def _settle(self) -> None:
        """Share the blocks out among those who are there, if they are not whom it was done for."""
        await self._look()
        # A share that changes hands is read anew: that is worth a moment's patience, once.
        if awaited := [call for call, address in self._late.items() if address in self._shares]:
            await asyncio.wait(awaited, timeout=LATE[0])
        if not (fit := self._fit()):
            fit = self._present or await self._somebody()
        if set(fit) == set(self._shares):
            return
        self._unit = self._unit or unit_for(self._count, len(fit))
        self._shares = shared_out(self._count, fit, self._shares, self._unit)
        self._generation += 1

    def _fit(self) -> list[str]:
        """Return whom a share is given: not whoever still has a call of an earlier step."""
        return [each for each in self._present if each not in self._late.values()]

    def _is_back(self, call: asyncio.Future[Any]) -> None:
        self._late.pop(call, None)
        if not call.cancelled():
            call.exception()  # it has been looked at

    async def _look(self) -> None:
        """Ask the scheduler who is there, now and then."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        try:
            found = await self._client.scheduler.identity(n_workers=-1)
        except OSError as error:
            raise _SchedulerLostError(str(error)) from error
        self._present = [address for address in found["workers"] if address not in self._refused]
        self._looked = now
        for call in [each for each, address in self._late.items() if address not in self._present]:
            call.cancel()
        if now - self._pulsed > PULSE:
            self._pulse, self._pulsed = self._client.submit(int, pure=False), now

    def _refuse(self, address: str, words: str) -> None:
        """Do without a worker that has come, and would not compute as this process does."""
        self._refused.add(address)
        self._looked = -1e9
        warnings.warn(f"worker {address} is left out: {words}", ClusterWarning, stacklevel=2)

    async def _somebody(self) -> list[str]:
        """Wait until there is a worker."""
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            self._looked = -1e9
            await self._look()
            if self._present:
                return self._present
            await asyncio.sleep(0.1)
        raise ClusterError(f"no worker is left, and none came within {self._patience:g} s")

    # Words

    def _said(self, failed: Failed, address: str) -> Exception:
        """Return what to raise for what a worker raised."""
        if isinstance(failed.error, OSError | MemoryError) and failed.block is not None:
            begin, end = self._sums.blocks.bounds(failed.block)
            rows = f"rows {begin} to {end - 1} of {self._sums.blocks.name!r}"
            return ClusterError(f"{rows} cannot be read by worker {address}: {failed.words}")
        error = failed.error or RuntimeError(f"worker {address}: {failed.words}")
        if not isinstance(error, ValueError):
            error.add_note(f"on worker {address}:\n{failed.trace}")
        return error

    def _rows_of(self, ranges: Ranges) -> int:
        bounds = self._sums.blocks.bounds
        return sum(bounds(end - 1)[1] - bounds(begin)[0] for begin, end in ranges)

    def _first_and_last(self, ranges: Ranges) -> tuple[int, int]:
        return self._sums.blocks.bounds(ranges[0][0])[0], self._sums.blocks.bounds(ranges[-1][1] - 1)[1] - 1


class _SchedulerLostError(Exception):
    """The scheduler does not answer any more."""


@dataclass(eq=False)
class _Part:
    """Blocks of which the sums are wanted, and what has become of that."""

    ranges: Ranges
    done: bool = False
    begun: float = 0.0
    given: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    failed: tuple[Failed, str] | None = None
