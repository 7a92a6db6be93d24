"""A grid of cells, each the call of a function, done by the workers of a Dask cluster, one cell a thread.

Cells may be done twice, and in any order. Each goes to one worker through Dask's queue, so that it is known who has
what: a worker that dies has its cell done by another, and a cell over which several die is a failure, as is one that
raises; the others go on. Answers are handed out as they come. Ctrl-C tells the cells under way to end with what they
have.
"""

from __future__ import annotations

import pickle
import platform
import threading
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, final

from gdcompare.data.extras import optional
from gdcompare.registry import own_this_process, process_is_ours
from gdcompare.scale.connection import (
    ClusterError,
    ClusterWarning,
    client_of,
    differences,
    refuse,
    said_to_differ,
    versions_of,
)
from gdcompare.words import one_line

_SUITE = __name__.partition(".")[0]

LOOK = 1.0
"""Seconds after which it is asked again who is there."""

DEATHS = 4
"""Workers that may die over one cell before it is believed to be the cause."""

LAST_WORDS = 0.8
"""Seconds that cells under way have for what they can still say after Ctrl-C."""


class Raised(NamedTuple):
    """What a cell answers that raised."""

    words: str


class Unfit(NamedTuple):
    """The answer of a worker that is not such as the cell wants it, and why: it gets no more, and another does it."""

    words: str


@contextmanager
def spread_over(
    workers: int | None,
    scheduler: str | None,
    packages: Sequence[str] = (),
    *,
    most: int,
    one_a_machine: bool = False,
) -> Iterator[Spread]:
    """Give what does cells by so many new processes of this machine, `most` at most, or by a Dask cluster's workers.

    `packages` are those whose versions must be the same there, beside the suite's and Python's. `one_a_machine`: on
    each machine one cell at a time, as where they are timed.

    Raises, before any work, ImportError where Dask is not installed, ClusterError where nobody answers, or where a
    worker has other versions.

    >>> with spread_over(2, None, most=2) as cluster:  # doctest: +SKIP
    ...     cluster.do(pow, {"a": (2, 3), "b": (3, 2)}, print)
    b 9
    a 8
    {}
    """
    with client_of(workers, scheduler, most) as (client, ours):
        try:
            yield Spread(client, packages, ours=ours, one_a_machine=one_a_machine)
        finally:
            with suppress(Exception):
                client.close(timeout=2)


@final
class Spread:
    """Cells on the workers of a client. `patience`: seconds without any worker before that is an end."""

    def __init__(
        self,
        client: Any,
        packages: Sequence[str] = (),
        *,
        ours: bool = False,
        one_a_machine: bool = False,
        patience: float = 60.0,
    ) -> None:
        self._client, self._ours = client, ours and process_is_ours()
        self._one_a_machine, self._patience = one_a_machine, patience
        self._wanted = versions_of([_SUITE, *packages])
        self._distributed = optional("distributed", "distributed", "a Dask cluster", "dask")
        self._job = uuid.uuid4().hex
        self._threads: dict[str, int] = {}
        self._machines: dict[str, str] = {}
        self._refused: set[str] = set()
        self._looked = -1e9
        self._look(first=True)

    @property
    def places(self) -> int:
        """How many cells may be under way at a time."""
        return sum(self._slots().values())

    def do(
        self,
        function: Callable[..., Any],
        cells: Mapping[str, tuple[Any, ...]],
        done: Callable[[str, Any], object],
        heard: Callable[[str, Any], object] | None = None,
    ) -> dict[str, str]:
        """Call the function with the arguments of each cell, and hand out the answers by name; return what failed.

        Arguments are asked for when their cell goes to a worker, so that a `Mapping` may make them then.
        What cells `tell` on the way comes to `heard`, in another thread. Raises ClusterError where the scheduler is
        lost, or no worker is left and none comes; KeyboardInterrupt after the last answers are handed out.
        """
        if heard is not None:
            self._client.subscribe_topic(self._job, lambda event: heard(*event[1]))
        todo = deque(_Cell(name) for name in cells)
        under_way: dict[Any, _Cell] = {}
        failures: dict[str, str] = {}
        seen = time.monotonic()
        try:
            while todo or under_way:
                self._look()
                for future in [each for each, cell in under_way.items() if cell.at not in self._threads]:
                    self._lost(under_way.pop(future), todo, failures)
                    future.release()
                for address in self._free(under_way.values()):
                    if todo:
                        cell = todo.popleft()
                        cell.at = address
                        under_way[self._submit(cell, function, cells[cell.name])] = cell
                if under_way:
                    seen = time.monotonic()
                elif self._threads and self._refused >= {*self._threads}:
                    raise ClusterError("no worker of the cluster can do this: all are left out, and it was said why")
                elif time.monotonic() - seen > self._patience:
                    raise ClusterError(f"no worker is left, and none came within {self._patience:g} s")
                for future in self._ended(list(under_way), LOOK):
                    self._take(future, under_way.pop(future), todo, done, failures)
        except KeyboardInterrupt:
            self._stop(under_way, done)
            raise
        finally:
            with suppress(Exception):
                self._client.cancel(list(under_way), force=True)
            if heard is not None:
                with suppress(Exception):
                    self._client.unsubscribe_topic(self._job)
        return failures

    # Cells

    def _submit(self, cell: _Cell, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        cloudpickle = optional("cloudpickle", "cloudpickle", "a Dask cluster", "dask")
        sent = cloudpickle.dumps((function, arguments))  # the scheduler would have to know it, too
        return self._client.submit(_called, self._job, cell.name, self._ours, sent, pure=False, workers=[cell.at])

    def _ended(self, futures: list[Any], seconds: float) -> list[Any]:
        """Return which of them came to an end, once there is one, or the time is over."""
        if not futures:
            time.sleep(min(seconds, 0.1))
            return []
        try:
            with self._client.as_current():
                self._distributed.wait(futures, timeout=seconds, return_when="FIRST_COMPLETED")
        except TimeoutError:
            return []
        except self._distributed.CancelledError as error:
            raise self._gone() from error
        return [each for each in futures if each.done()]

    def _take(
        self,
        future: Any,
        cell: _Cell,
        todo: deque[_Cell],
        done: Callable[[str, Any], object],
        failures: dict[str, str],
    ) -> None:
        """Take up what became of a cell."""
        try:
            answer = future.result(timeout=10)
        except (OSError, TimeoutError, self._distributed.KilledWorker):  # its worker died with the answer
            self._looked = -1e9
            self._lost(cell, todo, failures)
            return
        except self._distributed.CancelledError as error:
            raise self._gone() from error
        except Exception as error:  # of the call itself
            raise ClusterError(
                f"the Dask scheduler passes nothing on ({one_line(error)}): start it where {_SUITE} is installed, too"
            ) from error
        if isinstance(answer, Unfit):
            self._refuse(cell.at, answer.words)
            todo.appendleft(cell)
        elif isinstance(answer, Raised):
            failures[cell.name] = f"on worker {cell.at}: {answer.words}"
        else:
            done(cell.name, answer)

    def _lost(self, cell: _Cell, todo: deque[_Cell], failures: dict[str, str]) -> None:
        """Have a cell done again whose worker died."""
        cell.deaths.append(cell.at)
        if len(cell.deaths) < DEATHS:
            todo.appendleft(cell)
            return
        failures[cell.name] = (
            f"{len(cell.deaths)} workers died over it, one after the other, the last {cell.at}: it may need more "
            "memory than a worker has"
        )

    def _stop(self, under_way: dict[Any, _Cell], done: Callable[[str, Any], object]) -> None:
        """Tell cells under way to end, and hand out what they have."""
        with suppress(Exception):  # who does not answer has nothing to say
            until = time.monotonic() + LAST_WORDS
            self._client.run(stop, self._job, workers=[cell.at for cell in under_way.values()])
            while under_way and (left := until - time.monotonic()) > 0:
                for future in self._ended(list(under_way), left):
                    self._take(future, under_way.pop(future), deque(), done, {})

    # Who is there

    def _slots(self) -> dict[str, int]:
        """Return how many cells each worker may have at a time."""
        fit = {each: machine for each, machine in self._machines.items() if each in self._threads}
        if not self._one_a_machine:
            return {each: self._threads[each] for each in fit}
        return dict.fromkeys({machine: each for each, machine in reversed(fit.items())}.values(), 1)

    def _free(self, cells: Any) -> Iterator[str]:
        """Yield the addresses of workers once for each cell that they may be given."""
        busy = Counter(cell.at for cell in cells)
        for address, slots in self._slots().items():
            yield from [address] * (slots - busy[address])

    def _look(self, first: bool = False) -> None:
        """Ask the scheduler who is there, now and then, and take in who is new."""
        if time.monotonic() - self._looked < LOOK:
            return
        try:
            found = self._client.sync(self._client.scheduler.identity, n_workers=-1)["workers"]
        except OSError as error:
            raise self._gone() from error
        self._threads = {address: each["nthreads"] for address, each in found.items()}
        self._looked = time.monotonic()
        if new := [each for each in found if each not in self._machines and each not in self._refused]:
            self._greet(new, first)

    def _greet(self, new: list[str], first: bool) -> None:
        """Ask new workers for their versions, and where they are."""
        answers = self._client.run(_about, self._wanted, workers=new, on_error="return")
        other = {}
        for address, answer in answers.items():
            if isinstance(answer, OSError):
                continue  # it is gone again
            if words := said_to_differ(answer[0] if isinstance(answer, tuple) else answer):
                other[address] = words
            else:
                self._machines[address] = answer[1]
        if first:
            refuse(other)
        for address, words in other.items():
            self._refuse(address, words)

    def _refuse(self, address: str, words: str) -> None:
        self._refused.add(address)
        self._machines.pop(address, None)
        warnings.warn(f"worker {address} is left out: {words}", ClusterWarning, stacklevel=2)

    def _gone(self) -> ClusterError:
        return ClusterError(
            "the Dask scheduler is gone; begin again when it is back, where results are kept with --resume"
        )


@dataclass(eq=False)
class _Cell:
    name: str
    at: str = ""
    deaths: list[str] = field(default_factory=list)


# On a worker

_stopped: set[str] = set()
_here = threading.local()


def stop_sign() -> Callable[[], bool]:
    """Return what says whether the cell that this thread does should end with what it has; any thread may ask it.

    >>> stop_sign()()
    False
    """
    job = getattr(_here, "job", None)
    return lambda: job in _stopped


def tell(message: Any) -> None:
    """Tell whoever waits for the cell that this thread does something on the way; nothing happens if nobody does."""
    if getattr(_here, "job", None) is not None:
        distributed = optional("distributed", "distributed", "a Dask cluster", "dask")
        distributed.get_worker().log_event(_here.job, (_here.name, message))


def stop(job: str) -> None:
    """Be called on a worker: let its cells of a job end."""
    _stopped.add(job)


def _called(job: str, name: str, ours: bool, sent: bytes) -> Any:
    """Be called on a worker: do a cell."""
    if ours:
        own_this_process()
    try:
        function, arguments = pickle.loads(sent)  # noqa: S301 - from whoever may have us call anything
    except Exception as error:
        return Unfit(one_line(f"it cannot load what it should call: {type(error).__name__}: {error}"))
    _here.job, _here.name = job, name
    try:
        return function(*arguments)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return Raised(one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__))
    finally:
        _here.job = None


def _about(wanted: Mapping[str, str]) -> tuple[list[str], str]:
    """Be called on a worker: return where its versions differ, and its machine, all containers on it being one."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        machine = platform.node()
    return differences(wanted), machine
