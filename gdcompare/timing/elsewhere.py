"""Pieces of work on the machines of a Dask cluster: those of one size on one machine, and one at a time on each.

So whatever is divided by another time was timed beside it, and two races never disturb each other. Machines that differ
from the one that the run began on are left out. What comes back is a run as one machine has it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gdcompare.data.extras import optional
from gdcompare.registry import own_this_process, packages_of
from gdcompare.scale.connection import ClusterError
from gdcompare.scale.spread import Raised, Unfit, spread_over, stop_sign, tell
from gdcompare.timing.bench import Pace, Stage, bench, lacks, steps_of
from gdcompare.timing.environment import Environment, only_run, unfit
from gdcompare.timing.fresh import ProcessFailedError, in_fresh_process, report
from gdcompare.timing.runs import Run, differing, run_from
from gdcompare.timing.work import Work


def bench_elsewhere(
    works: Sequence[Work],
    pace: Pace,
    before: Run | None,
    scheduler: str,
    *,
    saved: Callable[[Run], object],
    watch: Callable[[Stage], object],
    shown: Callable[[Run, str], object],
    told: Callable[[str], object],
) -> Run:
    """Do what `before` lacks of the works on a cluster's machines, and return the run with all of it, as `bench` does.

    `told` is given what makes machines less than fit for timing. Files are looked for in a folder of the same path as
    this one, and must be the same there. Raises ClusterError for no cluster, for other versions, and, at the end, for
    what could not be done; KeyboardInterrupt after what there was has been saved.
    """
    if scheduler == "local":
        raise ValueError(
            "a benchmark is spread over machines, one race at a time on each, since two would disturb each other: "
            "name a cluster's scheduler, tcp://HOST:8786, or leave it out to time on this machine"
        )
    order = [work.title for work in works]
    sizes: dict[str, list[Work]] = {}
    for work in works:
        sizes.setdefault(f"n = {len(work.sized.data)}", []).append(work)
    if before is not None:
        for work in works:
            if not lacks(before, work, pace):
                shown(before, work.title)
        sizes = {name: here for name, here in sizes.items() if any(lacks(before, work, pace) for work in here)}
        if not sizes:
            return before
    stands = dict.fromkeys(sizes, 0.0)
    of = sum(steps_of(work, pace) for here in sizes.values() for work in here)
    notes: set[str] = set()
    run = before or Run({})

    def heard(name: str, stage: Mapping[str, Any]) -> None:
        stands[name] = stage["done"]
        watch(Stage(sum(stands.values()), of, stage["doing"]))

    def done(name: str, answer: Mapping[str, Any]) -> None:
        nonlocal run
        known, run = run, run.with_sections(run_from(answer["run"]).sections, order)
        saved(run)
        for words in answer["notes"]:
            if (kind := words.partition(":")[0]) not in notes:
                notes.add(kind)
                told(words)
        for work in sizes[name]:
            if not lacks(run, work, pace) and lacks(known, work, pace):
                shown(run, work.title)

    packages = dict.fromkeys(each for work in works for name in work.backends for each in packages_of(name))
    with spread_over(None, scheduler, [*packages], most=1, one_a_machine=True) as cluster:
        folder = str(Path.cwd())
        run = before or Run(_first_environment(cluster, works[0], folder))
        cells = {
            name: (
                folder,
                {
                    "works": [work.to_dict() for work in here],
                    "pace": asdict(pace),
                    "before": _part(run, here).as_json(),
                    "files": {path: _digest(path) for work in here for path in files_of(work)},
                },
            )
            for name, here in sizes.items()
        }
        failures = cluster.do(_cell, cells, done, heard)
    if failures:
        raise ClusterError("; ".join(f"{name}: {words}" for name, words in failures.items()))
    return run


def files_of(work: Work) -> list[str]:
    """Return the files that a work names."""
    names = [work.problem, work.data or "", *work.backends, *work.implementations.values(), *work.models.values()]
    found = [path for name in names for path in (name, name.rpartition(":")[0]) if path and Path(path).is_file()]
    return list(dict.fromkeys(found))


def _first_environment(cluster: Any, work: Work, folder: str) -> Environment:
    answers: list[Environment] = []
    files = {path: _digest(path) for path in files_of(work)}
    arguments = {"work": work.to_dict(), "files": files}
    failures = cluster.do(_environment, {"": (folder, arguments)}, lambda _, answer: answers.append(answer))
    for words in failures.values():
        raise ClusterError(words)
    return answers[0]


def _part(run: Run, works: Sequence[Work]) -> Run:
    """Return a run with nothing in it but these works."""
    titles = {work.title for work in works}
    return replace(run, sections={title: each for title, each in run.sections.items() if title in titles})


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# On a worker


def _environment(folder: str, arguments: Mapping[str, Any]) -> Any:
    return _in_folder(f"{__name__}:described", folder, arguments)


def _cell(folder: str, arguments: Mapping[str, Any]) -> Any:
    answer = _in_folder(f"{__name__}:held", folder, arguments)
    return Unfit(answer["unfit"]) if isinstance(answer, dict) and "unfit" in answer else answer


def _in_folder(function: str, folder: str, arguments: Mapping[str, Any]) -> Any:
    """Call a function in a fresh process that has nothing of Dask's, and ends when nobody wants its answer."""
    if not Path(folder).is_dir():
        return Raised(f"there is no folder {folder!r}")
    try:
        return in_fresh_process(
            function, arguments, heard=tell, stop=stop_sign(), folder=folder, environment=_without_dasks()
        )
    except ProcessFailedError as error:
        return Raised(error.failure.words)


def _without_dasks() -> dict[str, str]:
    """Return this process's variables but for those that Dask gives its workers: some change how memory is taken."""
    config = optional("dask.config", "dask", "a worker", "dask")
    given = {
        (name, str(value))
        for part in ("environ", "pre-spawn-environ")
        for name, value in (config.get(f"distributed.nanny.{part}", None) or {}).items()
    }
    return {name: value for name, value in os.environ.items() if (name, value) not in given}


# In a fresh process there


def described(work: Mapping[str, Any], files: Mapping[str, str]) -> Environment:
    """Return what times on this machine depend on."""
    own_this_process()
    _refuse_other_files(files)
    return Work(**work).environment()


def held(
    works: Sequence[Mapping[str, Any]], pace: Mapping[str, Any], before: Any, files: Mapping[str, str]
) -> dict[str, Any]:
    """Do works on this machine, if it is such as the run has it, and return the run, also after Ctrl-C."""
    own_this_process()
    _refuse_other_files(files)
    run, todo = run_from(before), [Work(**each) for each in works]
    here = todo[0].environment()
    if differences := differing(run.environment, here):
        return {"unfit": "; ".join(differences)}
    for work in todo:
        work.refuse_too_large(here["state"]["available"])

    def saved(found: Run) -> None:
        nonlocal run
        run = found

    try:
        with only_run(wait=True):
            bench(todo, Pace(**pace), run, saved=saved, watch=lambda stage: report(asdict(stage)), shown=_nobody)
    except KeyboardInterrupt:
        pass
    return {"run": run.as_json(), "notes": unfit(here)}


def _nobody(*_: object) -> None:
    """Be shown what only the caller shows."""


def _refuse_other_files(files: Mapping[str, str]) -> None:
    for path, digest in files.items():
        if not Path(path).is_file():
            raise LookupError(f"there is no file {path!r} in {str(Path.cwd())!r}")
        if _digest(path) != digest:
            raise ValueError(f"{path!r} in {str(Path.cwd())!r} is another than where the command was given")
