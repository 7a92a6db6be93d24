"""Processes of our own on this machine, as a Dask cluster of them: they end with us, and run nobody's script."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.context
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from types import ModuleType
from typing import Any

from gdcompare.data.extras import optional

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",  # as Dask has it: memory that is freed goes back to the system
}
"""The environment of a worker: it computes on one thread, since there are others."""

METHOD = "spawn-without-main"


@contextmanager
def local_cluster(count: int) -> Iterator[Any]:
    """Give a `distributed.LocalCluster` of so many processes of one thread each; they end when this does.

    A worker that is killed is started again. They begin as new interpreters that import no `__main__`: a script needs
    no `if __name__ == "__main__"`. Ctrl-C does not reach them but by us.
    """
    dask = optional("dask", "dask", "sharing work among processes", "dask")
    distributed = optional("distributed", "distributed", "sharing work among processes", "dask")
    multiprocessing.context._concrete_contexts.setdefault(METHOD, _Context())  # type: ignore[attr-defined]
    settings = {
        "distributed.worker.multiprocessing-method": METHOD,
        "distributed.nanny.pre-spawn-environ": {},  # it would change the environment of this process
    }
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        cluster = distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            dashboard_address=None,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # any port that is free
            silence_logs=logging.CRITICAL,
        )
        stack.callback(cluster.close)
        yield cluster


_one_at_a_time = threading.Lock()


@contextmanager
def _as_a_worker_begins() -> Iterator[None]:
    """Hide `__main__`, and set what a new process takes over from the thread that starts it."""
    with _one_at_a_time:
        main = sys.modules["__main__"]
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(ONE_THREAD)
        masks = hasattr(signal, "pthread_sigmask")
        resource_tracker.ensure_running()  # it would let SIGINT through again
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if masks else set()
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            if masks:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


class _Process(multiprocessing.context.SpawnProcess):
    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - as multiprocessing calls it
        with _as_a_worker_begins():
            return multiprocessing.context.SpawnProcess._Popen(process)


class _Context(multiprocessing.context.SpawnContext):
    _name = METHOD
    Process = _Process
