"""The audit as a whole: in processes of their own, resumed, and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gdcompare.audit.page import as_page
from gdcompare.audit.results import Audit
from gdcompare.audit.run import _cell, audit, operations_of
from gdcompare.scale.connection import ClusterError
from gdcompare.scale.spread import Raised
from gdcompare.timing.failure import Failure
from gdcompare.timing.fresh import ProcessFailedError
from tests.cli.running import run
from tests.scale.small_cluster import threads

BACKEND = f"{Path(__file__).parent / 'planted.py'}:Planted"


def test_what_has_no_operations_to_audit_is_refused() -> None:
    with pytest.raises(ValueError, match="backend 'numpy' has no operations to audit"):
        operations_of("numpy")


def test_an_unknown_operation_is_refused_with_those_near_it() -> None:
    with pytest.raises(LookupError, match="has no operation 'tanh'; near it: tanh, by its value"):
        operations_of(BACKEND, ["tanh"])


@pytest.mark.thorough
def test_what_ends_its_process_is_a_row_and_the_others_are_judged() -> None:
    stages: list[int] = []
    found = audit(BACKEND, dtypes=["float32"], watch=lambda stage: stages.append(stage.done))

    assert {name: each.judged for name, each in found.outcomes.items()} == {
        "exp": True,
        "tanh, by its value": True,
        "fatal": False,
        "squares": True,
    }
    assert found.outcomes["fatal"].reason == "the process died: the process ended with code 7"
    assert {row.operation for row in found.of("raises")} == {"fatal"}
    assert {row.operation for row in found.of("lost")} == {"tanh, by its value"}
    assert max(stages) == 4


@pytest.mark.thorough
def test_a_resumed_audit_does_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    options = f"--dtype float32 --json '{path}' --markdown '{tmp_path / 'a.md'}' --html '{tmp_path / 'a.html'}'"
    first = run(f"audit '{BACKEND}' --operation 'tanh, by its value' {options}")
    tanh = json.loads(path.read_text())["outcomes"]["tanh, by its value"]

    again = run(f"audit '{BACKEND}' --operation exp --operation 'tanh, by its value' --resume {options}")

    assert (first.exit_code, again.exit_code) == (1, 1)
    assert json.loads(path.read_text())["outcomes"]["tanh, by its value"] == tanh
    assert "tanh" in again.output
    assert "2 of 2 operations judged (100%)" in again.output
    assert "```python" in (tmp_path / "a.md").read_text()
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--resume", "--resume goes with --json FILE"),
        ("--operation exp --operation exp", "--operation"),
        ("--operation nothing", "has no operation 'nothing'"),
        ("--dtype float16", "float16"),
        ("--limit 0", "--limit"),
    ],
)
def test_bad_options_are_refused(options: str, said: str) -> None:
    found = run(f"audit '{BACKEND}' {options}")

    assert found.exit_code == 2
    assert said in found.output


def test_a_run_of_another_framework_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"format": 1, "framework": "x", "outcomes": {}, "rows": [], "environment": {}}))

    found = run(f"audit '{BACKEND}' --resume --json '{path}'")

    assert found.exit_code == 2
    assert "is an audit of x" in found.output


@pytest.mark.thorough
def test_the_audit_of_several_workers_is_that_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    here, kept = audit(BACKEND, dtypes=["float32"]), list[Audit]()
    with threads(2) as client:
        monkeypatch.setattr("gdcompare.scale.connection.connected", lambda *_: client)
        there = audit(BACKEND, dtypes=["float32"], scheduler="tcp://x:1", saved=kept.append)

    assert as_page(there) == as_page(here)
    assert [len(each.outcomes) for each in kept[:-1]] == [1, 2, 3, 4]
    assert kept[-1] == there


def test_operations_that_no_worker_could_judge_are_named_after_the_others_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gdcompare.audit.run.spread_over", spread_here)
    monkeypatch.setattr("gdcompare.audit.run._judged_in_processes", judged_but_for_exp)
    kept: list[Audit] = []

    with pytest.raises(ClusterError, match="operations exp to exp: no room"):
        audit(BACKEND, workers=3, saved=kept.append)
    assert [*kept[-1].outcomes] == ["tanh, by its value", "fatal", "squares"]  # though they came the other way round


@contextmanager
def spread_here(*_: object, **options: int) -> Iterator[Any]:
    """As a cluster of three whose cells are done here, the last first."""
    assert options["most"] == 4

    def do(function: Any, cells: Mapping[str, Any], done: Any, heard: Any) -> dict[str, str]:
        failures = {}
        for name, arguments in reversed([*cells.items()]):
            answer = function(*arguments)
            if isinstance(answer, Raised):
                failures[name] = answer.words
            else:
                heard(name, arguments[2][0])
                done(name, answer)
        return failures

    yield SimpleNamespace(do=do, places=3)


def judged_but_for_exp(asked: object, names: list[str], heard: Any, **process: Any) -> None:
    del asked
    assert process["folder"] == str(Path.cwd())
    if names == ["exp"]:
        raise ProcessFailedError(Failure("error", "no room"))
    for name in names:
        heard({"operation": name, "outcome": {"judged": True}, "rows": []})


def test_what_was_judged_when_a_cell_is_stopped_is_handed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(asked: object, names: list[str], heard: Any, **process: Any) -> None:
        heard({"operation": names[0], "outcome": {"judged": True}, "rows": []})
        raise KeyboardInterrupt

    monkeypatch.setattr("gdcompare.audit.run._judged_in_processes", judged)

    answer = _cell(".", {}, ["exp", "tanh"])
    assert isinstance(answer, list)
    assert [each["operation"] for each in answer] == ["exp"]
    assert _cell("no such folder", {}, []) == Raised("there is no folder 'no such folder'")
