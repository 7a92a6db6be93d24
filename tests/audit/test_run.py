"""The audit as a whole: in processes of their own, resumed, and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gdcompare.audit.run import audit, operations_of
from tests.cli.running import run

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
