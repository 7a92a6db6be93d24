"""A Dask cluster without Dask: a client whose workers are objects of this process, and which fail as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gdcompare.scale import held
from gdcompare.scale.held import Held

Fault = Callable[[str, str], Awaitable[None]]
"""Told a worker and the name of a call before it is made; it may wait, raise, or take workers away."""


class FakeClient:
    """As much of `distributed.Client` as a `Cluster` needs."""

    def __init__(self, *names: str, room: float = float("inf")) -> None:
        self.workers = {name: Held() for name in names}
        self.calls: list[tuple[str, str]] = []
        self.room = room
        self.faults: list[Fault] = []
        self.lost = False
        self._loop = asyncio.new_event_loop()

    def sync(self, function: Any, *arguments: Any, callback_timeout: float | None = None) -> Any:
        return self._loop.run_until_complete(function(*arguments))

    def close(self, timeout: float = 0) -> None:
        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for each in others:
                each.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._loop.run_until_complete(end())
        self._loop.close()

    def submit(self, *arguments: Any, **options: Any) -> None:
        """What has no effect on what follows."""

    @property
    def scheduler(self) -> FakeClient:
        return self

    async def identity(self, n_workers: int) -> dict[str, Any]:
        if self.lost:
            raise OSError("the scheduler is gone")
        return {"workers": dict.fromkeys(self.workers)}

    async def run(self, function: Any, *arguments: Any, workers: list[str]) -> dict[str, Any]:
        [address] = workers
        called = function.__name__
        self.calls.append((address, called))
        for fault in self.faults:
            await fault(address, called)
        await asyncio.sleep(0)
        if address not in self.workers:
            raise OSError(f"nobody at {address}")
        there = self.workers[address]
        if function is held.work:
            [asked] = arguments
            return {address: there.work(asked, self.room)}
        return {address: getattr(there, called)(*arguments)}
