"""The way to a Dask cluster, or in seconds why there is none; and whether its workers compute as this process does."""

from __future__ import annotations

import asyncio
import logging
import platform
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from gdcompare.backend import Backend
from gdcompare.data.extras import optional
from gdcompare.registry import packages_of
from gdcompare.scale.processes import local_cluster

ANSWER = 5.0
"""Seconds in which a scheduler answers."""

WORKERS = 30.0
"""Seconds in which workers come."""

_SUITE = __name__.partition(".")[0]


class ClusterError(ConnectionError):
    """A Dask cluster is not there, or is lost; the message has the way out."""


class ClusterWarning(UserWarning):
    """The run goes on, without a worker, or with one that may round otherwise."""


@contextmanager
def client_of(workers: int | None, scheduler: str | None, most: int) -> Iterator[tuple[Any, bool]]:
    """Give a client of `workers` new processes here, `most` at most, or of a cluster elsewhere; and which of both.

    "local" is as many processes as there are processors. Whoever takes the client closes it.
    """
    refuse_workers(workers)
    with ExitStack() as stack:
        stack.enter_context(quiet())
        if scheduler is None or scheduler == "local":
            cluster = stack.enter_context(local_cluster(min(workers or _processors(), most)))
            yield connected(cluster, None), True
        else:
            yield connected(scheduler, workers), False


def refuse_workers(workers: int | None) -> None:
    """Raise a ValueError for a number of workers that is none, an ImportError where Dask is not installed."""
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int | np.integer) or workers < 1):
        raise ValueError(f"workers must be a whole number, 1 or above, not {workers!r}")
    optional("distributed", "distributed", "sharing work among processes", "dask")


def _processors() -> int:
    return optional("dask.system", "dask", "sharing work among processes", "dask").CPU_COUNT  # type: ignore[no-any-return]


def connected(cluster: Any, workers: int | None) -> Any:
    """Return a client of a cluster, or of the scheduler at an address once so many workers are there, or any.

    >>> connected("nowhere", None)
    Traceback (most recent call last):
    ...
    gdcompare.scale.connection.ClusterError: no Dask scheduler has the address 'nowhere': it looks like tcp://HOST:8786
    """
    if isinstance(cluster, str) and not cluster.rpartition(":")[2].isdecimal():
        raise ClusterError(f"no Dask scheduler has the address {cluster!r}: it looks like tcp://HOST:8786")
    distributed = optional("distributed", "distributed", "a Dask cluster", "dask")
    if not isinstance(cluster, str):
        return distributed.Client(cluster, set_as_default=False, timeout=ANSWER)
    address = cluster if "://" in cluster else f"tcp://{cluster}"
    client = None
    try:
        if (kind := _who_answers(address)) != "Scheduler":
            raise ClusterError(f"at {cluster!r} there is no Dask scheduler, but a {kind.lower()}: name its scheduler")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other versions: said by us, where they matter
            client = distributed.Client(address, set_as_default=False, timeout=ANSWER)
        _wait_for(client, workers or 1, address)
    except Exception as error:  # whatever a stranger's answer is to Dask
        if client is not None:
            client.close(timeout=1)
        if isinstance(error, ClusterError):
            raise
        raise ClusterError(
            f"no Dask scheduler answers at {cluster!r} ({_shortly(error)}): start one, `dask scheduler`, and workers, "
            "`dask worker ADDRESS`; or leave the scheduler out, and this machine computes"
        ) from error
    return client


def _who_answers(address: str) -> str:
    """Return what kind of server is at an address; an OSError in time if none answers, in Dask's protocol."""
    distributed = optional("distributed", "distributed", "a Dask cluster", "dask")

    async def asked() -> str:
        secrets = distributed.Security().get_connection_args("client")  # as Dask's configuration has them
        async with distributed.rpc(address, timeout=ANSWER, connection_args=secrets) as server:
            return str((await server.identity())["type"])

    def in_time() -> str:
        return asyncio.run(asyncio.wait_for(asked(), ANSWER))

    with ThreadPoolExecutor(1) as thread:  # here an event loop may be running, as in a notebook
        return thread.submit(in_time).result()


def reconnected(client: Any, address: str, patience: float) -> Any:
    """Return a new client of a scheduler that was lost, once it is there again with a worker; else a ClusterError."""
    with suppress(Exception):
        client.close(timeout=1)
    end = time.monotonic() + patience
    while True:
        try:
            return connected(address, None)
        except ClusterError as error:
            if time.monotonic() >= end:
                raise ClusterError(
                    f"the Dask scheduler at {address!r} is gone, and did not come back within {patience:g} s; what a "
                    "checkpoint holds goes on when it does: resume=True, --resume"
                ) from error
        time.sleep(0.2)


@contextmanager
def quiet() -> Iterator[None]:
    """Let Dask keep to itself, in this process, what our errors say."""
    logger = logging.getLogger("distributed")
    loggers = [logger, *(logging.getLogger(f"distributed.{name}") for name in ("client", "core", "batched", "comm"))]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)


def _wait_for(client: Any, workers: int, address: str) -> None:
    end = time.monotonic() + WORKERS
    while (found := len(client.scheduler_info()["workers"])) < workers:
        if time.monotonic() > end:
            raise ClusterError(
                f"the Dask scheduler at {address!r} has {found or 'no'} workers, not {workers}, after {WORKERS:g} s: "
                f"start them, `dask worker {address}`"
            )
        time.sleep(0.05)


def _shortly(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__


# Whether a worker computes as we do


def versions(backend: Backend[Any]) -> dict[str, str]:
    """Return the versions of what computes with this backend, by package.

    >>> from gdcompare.registry import as_backend
    >>> versions(as_backend("numpy"))["numpy"] == np.__version__
    True
    """
    return versions_of([_SUITE, np.__name__, *packages_of(backend.name)])


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return Python's version, to the minor one, and those of packages; "missing" where one is not installed."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def differences(wanted: Mapping[str, str]) -> list[str]:
    """Return where the versions here are others than those wanted.

    >>> differences({"python": "2.7"})
    ['python is ..., not 2.7']
    """
    here = versions_of([name for name in wanted if name != "python"])
    return [f"{name} is {here[name]}, not {each}" for name, each in wanted.items() if here[name] != each]


def processor() -> str:
    """Return the architecture, and what NumPy found that this processor can do: sums may depend on it."""
    import importlib

    try:
        features: dict[str, bool] = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):
        features = {}
    return " ".join([platform.machine(), *sorted(name for name, able in features.items() if able)])


def refuse_others(client: Any, backend: Backend[Any]) -> None:
    """Raise a ClusterError that names the workers with other versions; warn of those with another processor."""
    wanted = versions(backend)
    answers = client.run(differences, wanted, on_error="return")
    refuse({address: said_to_differ(answer) for address, answer in answers.items() if answer != []})
    here = processor()
    unlike = [address for address, found in client.run(processor).items() if found != here]
    if unlike:
        warnings.warn(
            f"worker {unlike[0]}{f' and {len(unlike) - 1} more' if len(unlike) > 1 else ''} has another kind of "
            "processor: the last bits may be others than here, and than those of a run in which it has another share",
            ClusterWarning,
            stacklevel=4,
        )


def refuse(others: Mapping[str, str]) -> None:
    """Raise a ClusterError that names one of these workers, and in what it differs, unless there are none.

    >>> refuse({"tcp://a": "numpy is 1.0, not 2.0", "tcp://b": "numpy is missing, not 2.0"})
    Traceback (most recent call last):
    ...
    gdcompare.scale.connection.ClusterError: worker tcp://a does not compute as this process does: ...
    """
    for address, words in others.items():
        also = f", and {len(others) - 1} more differ" if len(others) > 1 else ""
        raise ClusterError(
            f"worker {address} does not compute as this process does: {words}{also}; install the same versions there"
        )


def said_to_differ(answer: Any) -> str:
    """Return in words what a worker answered `differences`, if it differs, or could not answer."""
    if isinstance(answer, ImportError):
        return f"{_SUITE} cannot be imported there ({_shortly(answer)})"
    return _shortly(answer) if isinstance(answer, BaseException) else "; ".join(answer)
