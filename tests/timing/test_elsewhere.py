"""A benchmark on several machines: one run of the same form, all of a size from one machine, and nothing done twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gdcompare.scale.connection import ClusterError
from gdcompare.scale.spread import Raised, Unfit
from gdcompare.timing import elsewhere
from gdcompare.timing.bench import Pace, Stage, lacks
from gdcompare.timing.elsewhere import bench_elsewhere, files_of
from gdcompare.timing.failure import Failure
from gdcompare.timing.runs import Run
from gdcompare.timing.work import Work
from tests.scale.small_cluster import threads

from .test_runs import raced

PACE = Pace(0.1, alone=False)
WORKS = [
    Work("linear-regression", what, rows, backends=("numpy",)) for rows in (40, 50) for what in ("loss", "gradient")
]
ORDER = [work.title for work in WORKS]


class Machines:
    """A cluster whose cells are done here, the last first; `spoil` may stand in for an answer."""

    def __init__(self) -> None:
        self.cells: list[tuple[str, list[str]]] = []
        self.spoil: Callable[[str, Any], Any] = lambda name, answer: answer

    def do(self, function: Any, cells: Mapping[str, Any], done: Any, heard: Any = None) -> dict[str, str]:
        failures = {}
        for name, (folder, arguments) in reversed([*cells.items()]):
            assert folder == str(Path.cwd())
            if function is elsewhere._environment:
                done(name, elsewhere.described(**json.loads(json.dumps(arguments))))
                continue
            self.cells.append((name, [f"{each['what']}, {each['rows']}" for each in arguments["works"]]))
            heard(name, {"done": 1.0, "of": 2, "doing": "racing"})
            answer = self.spoil(name, elsewhere.held(**json.loads(json.dumps(arguments))))
            if isinstance(answer, Raised):
                failures[name] = answer.words
            else:
                done(name, answer)
        return failures


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Machines:
    """Machines on which every race takes no time."""
    found = Machines()

    @contextmanager
    def spread_over(*_: Any, **options: Any) -> Iterator[Machines]:
        assert options["one_a_machine"]
        yield found

    def bench(works: Any, pace: Pace, run: Run, *, saved: Any, watch: Any, shown: Any) -> None:
        for work in works:
            if lacks(run, work, pace):
                run = run.with_race(work.title, replace(raced(numpy=0.01), ended="time"))
                saved(run)

    monkeypatch.setattr(elsewhere, "spread_over", spread_over)
    monkeypatch.setattr(elsewhere, "bench", bench)
    monkeypatch.setattr(elsewhere, "own_this_process", lambda: None)
    return found


def done(before: Run | None = None, kept: list[Run] | None = None, shown: list[str] | None = None) -> Run:
    kept, shown = [] if kept is None else kept, [] if shown is None else shown
    return bench_elsewhere(
        WORKS, PACE, before, "tcp://somewhere:8786", saved=kept.append, watch=lambda _: None,
        shown=lambda _, title: shown.append(title), told=lambda _: None,
    )  # fmt: skip


def test_all_of_a_size_is_one_cell_and_the_run_is_as_one_machine_has_it(machines: Machines) -> None:
    kept: list[Run] = []
    shown: list[str] = []

    run = done(kept=kept, shown=shown)

    assert machines.cells == [("n = 50", ["loss, 50", "gradient, 50"]), ("n = 40", ["loss, 40", "gradient, 40"])]
    assert [*run.sections] == ORDER  # whoever was first
    assert sorted(shown) == sorted(ORDER)
    assert [len(each.sections) for each in kept] == [2, 4]  # each is saved as it comes
    assert run.environment["machine"] == WORKS[0].environment()["machine"]


def test_only_what_lacks_is_done(machines: Machines) -> None:
    run, shown = done(), list[str]()
    machines.cells.clear()
    sections = {title: each for title, each in run.sections.items() if title != ORDER[3]}

    again = done(replace(run, sections=sections), shown=shown)

    assert machines.cells == [("n = 50", ["loss, 50", "gradient, 50"])]
    assert [*again.sections] == ORDER
    assert shown == ORDER
    machines.cells.clear()
    assert done(again) == again
    assert machines.cells == []


def test_what_fails_is_named_after_the_others_are_saved(machines: Machines) -> None:
    kept: list[Run] = []
    machines.spoil = lambda name, answer: Raised("on worker x: no memory") if name == "n = 50" else answer

    with pytest.raises(ClusterError, match=r"^n = 50: on worker x: no memory$"):
        done(kept=kept)
    assert [*kept[-1].sections] == ORDER[:2]


def test_stages_of_cells_add_up(machines: Machines) -> None:
    stages: list[Stage] = []

    bench_elsewhere(WORKS, PACE, None, "tcp://somewhere:8786", saved=_no, watch=stages.append, shown=_no, told=_no)

    assert [(each.done, each.of) for each in stages] == [(1.0, 4), (2.0, 4)]


def test_what_makes_a_machine_unfit_is_told_once(machines: Machines) -> None:
    told: list[str] = []
    machines.spoil = lambda name, answer: {
        **answer,
        "notes": [f"the machine is busy: {name}", "the machine is virtual"],
    }

    bench_elsewhere(WORKS, PACE, None, "tcp://somewhere:8786", saved=_no, watch=_no, shown=_no, told=told.append)

    assert told == ["the machine is busy: n = 50", "the machine is virtual"]


def _no(*_: object) -> None:
    pass


def test_a_machine_unlike_that_of_the_run_is_unfit(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    del machines
    works = [WORKS[0].to_dict()]
    answer = elsewhere.held(works, {}, Run({"machine": {"processor": "an abacus"}}).as_json(), {})

    assert "machine: processor an abacus and " in answer["unfit"]
    monkeypatch.setattr(elsewhere, "_in_folder", lambda *_: answer)
    assert elsewhere._cell(".", {}) == Unfit(answer["unfit"])


def test_rows_that_a_machine_has_no_room_for_are_refused_there(machines: Machines) -> None:
    del machines
    work = replace(WORKS[0], rows=10**12)

    with pytest.raises(ValueError, match="1000000000000 rows need about"):
        elsewhere.held([work.to_dict()], {}, Run(work.environment()).as_json(), {})


def test_files_of_ones_own_must_be_there_and_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def f(): ...")
    work = replace(WORKS[0], implementations={"mine": "mine.py:f"})
    files = {path: elsewhere._digest(path) for path in files_of(work)}
    elsewhere._refuse_other_files(files)
    assert [*files] == ["mine.py"]

    Path("mine.py").write_text("def f(): return 1")
    with pytest.raises(ValueError, match=r"^'mine.py' in '.*' is another than where the command was given$"):
        elsewhere._refuse_other_files(files)
    Path("mine.py").unlink()
    with pytest.raises(LookupError, match=r"there is no file 'mine.py' in '"):
        elsewhere._refuse_other_files(files)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")

    assert elsewhere._cell(missing, {}) == Raised(f"there is no folder {missing!r}")


def test_one_machine_alone_is_not_a_cluster_for_races() -> None:
    with pytest.raises(ValueError, match="one race at a time on each, since two would disturb each other"):
        bench_elsewhere(WORKS, PACE, None, "local", saved=_no, watch=_no, shown=_no, told=_no)


def test_nothing_is_lacking_where_all_failed_alone_or_every_race_ended() -> None:
    work, alone = WORKS[1], replace(PACE, alone=True)
    empty = Run({})
    failed = empty.with_alone(work.title, "numpy", Failure("wrong", ""))
    ended = empty.with_race(work.title, replace(raced(numpy=0.01), ended="precise"))
    cut = empty.with_race(work.title, replace(raced(numpy=0.01), ended="interrupted"))

    assert [lacks(each, work, PACE) for each in (empty, failed, ended, cut)] == [True, False, False, True]
    assert [lacks(each, work, alone) for each in (failed, ended)] == [False, True]
    assert lacks(ended, work, replace(PACE, processes=2))


@pytest.mark.thorough
def test_a_cluster_times_what_one_machine_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def f(params, features, targets):\n    raise RuntimeError('no idea')\n")
    work = replace(WORKS[1], implementations={"mine": "mine.py:f"})

    with threads(2) as client:
        monkeypatch.setattr("gdcompare.scale.connection.connected", lambda *_: client)
        run = bench_elsewhere([work], PACE, None, "tcp://x:1", saved=_no, watch=_no, shown=_no, told=_no)

    (race,) = run.sections[work.title].races
    assert race.names == ("numpy",)
    assert race.failures["mine"] == Failure("error", "RuntimeError: no idea")
    assert race.ended in ("time", "precise")
