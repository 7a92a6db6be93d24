"""`gdcompare bench`: what is wrong has no time, what is interrupted goes on, a slow-down that is shown fails a gate."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gdcompare.cli import commands
from gdcompare.registry import how_to_install
from gdcompare.timing.alone import Alone
from gdcompare.timing.blocks import Block
from gdcompare.timing.failure import Failure
from gdcompare.timing.result import Race
from gdcompare.timing.runs import Run, load

MINE = """\
import os, signal, sys, time
import numpy as np

def right(params, features, targets):
    r = params["theta_0"] + features @ params["theta_1"] - targets
    return np.mean(r * r), {"theta_0": 2 * np.mean(r), "theta_1": 2 * features.T @ r / len(r)}

def wrong(params, features, targets):
    loss, gradient = right(params, features, targets)
    return loss, {name: 2 * each for name, each in gradient.items()}

def raises(params, features, targets):
    raise RuntimeError("no [/idea]")

def dies(params, features, targets):
    os._exit(3)

def starves(params, features, targets):
    raise MemoryError("no more")

def sleeps(params, features, targets):
    time.sleep(0.3)
    return right(params, features, targets)

calls = 0
def wrong_later(params, features, targets):
    global calls
    calls += 1
    return (right if calls < 10 else wrong)(params, features, targets)

def model():
    import gdcompare as gdc
    return gdc.from_functions(lambda *at: right(*at)[0], lambda *at: right(*at)[1])
"""
BRIEF = "--backend numpy --time 0.2 --sizes 40 --no-alone"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)


def run(line: str) -> Result:
    return CliRunner().invoke(commands, ["bench", *shlex.split(line)], prog_name="gdcompare")


def the_race(path: str, what: str = "gradient") -> Race:
    return next(each.races[0] for title, each in load(path).sections.items() if title.startswith(what))


@pytest.mark.thorough
def test_everybody_who_is_right_has_a_time_and_everybody_else_a_reason() -> None:
    own = " ".join(
        f"--implementation {name}=mine.py:{name}"
        for name in ("right", "wrong", "raises", "starves", "sleeps", "wrong_later")
    )

    done = run(f"linear-regression {BRIEF} {own} --model model=mine.py:model --json a.json")

    race = the_race("a.json")
    assert done.exit_code == 1, done.output
    assert race.names == ("numpy", "right", "model")
    assert {name: each.kind for name, each in race.failures.items()} == {
        "wrong": "wrong",
        "raises": "error",
        "starves": "out of memory",
        "sleeps": "out of time",
        "wrong_later": "wrong",
    }
    assert "raises: error: RuntimeError: no [/idea]" in done.output
    assert "theta_0 is " in str(race.failures["wrong"])
    assert race.figures["numpy"]["error in ulps"] < 10


@pytest.mark.parametrize(
    ("function", "code"), [("right", 0), ("wrong", 1), ("raises", 4)], ids=["right", "wrong", "raises"]
)
@pytest.mark.thorough
def test_the_exit_code_is_that_of_a_verdict(function: str, code: int) -> None:
    assert run(f"linear-regression {BRIEF} --implementation mine=mine.py:{function}").exit_code == code


@pytest.mark.thorough
def test_who_ends_the_process_is_left_out_and_the_others_are_timed() -> None:
    done = run("linear-regression --backend numpy --time 0.2 --implementation mine=mine.py:dies --json a.json")

    section = next(each for title, each in load("a.json").sections.items() if title.startswith("gradient"))
    assert done.exit_code == 4, done.output
    assert section.alone["mine"] == Failure("error", "the process ended with code 3")
    assert isinstance(section.alone["numpy"], Alone)
    assert section.races[0].names == ("numpy",)
    assert "mine: error: the process ended with code 3" in done.output


@pytest.mark.thorough
def test_where_nobody_ran_alone_nobody_knows_who_ended_the_process() -> None:
    done = run(f"linear-regression {BRIEF} --implementation mine=mine.py:dies --json a.json")

    assert done.exit_code == 4, done.output
    assert {str(each) for each in the_race("a.json").failures.values()} == {"error: the process ended with code 3"}


@pytest.mark.thorough
def test_all_that_can_be_asked_for_is_timed_and_written() -> None:
    kinds = "loss,gradient,per-sample,descent,hvp"

    done = run(
        f"linear-regression --backend numpy --time 0.1 --no-alone --sizes 1e2 --features 3 --what {kinds} "
        "--batch-size 8 --json a.json --markdown a.md --latex a.tex --plot a.svg"
    )

    found = load("a.json")
    assert done.exit_code == 0, done.output
    assert len(found.sections) == 5
    assert all(each.races[0].names == ("numpy",) for each in found.sections.values())
    assert Path("a.md").read_text().count("| numpy |") == 5
    assert Path("a.tex").read_text().count(r"\begin{tabular}") == 5
    assert Path("a.svg").read_text().startswith("<?xml")


@pytest.mark.thorough
def test_every_size_is_timed_in_as_many_processes_as_are_asked_for() -> None:
    done = run(
        f"linear-regression {BRIEF.replace('--sizes 40', '--sizes 40,1e2')} --what loss --processes 2 --json a.json"
    )

    found = load("a.json")
    assert done.exit_code == 0, done.output
    assert [len(each.races) for each in found.sections.values()] == [2, 2]


@pytest.mark.thorough
def test_a_variant_is_timed_beside_its_backend() -> None:
    if (line := how_to_install("torch")) is not None:
        pytest.skip(line)

    done = run("linear-regression --backend torch --variant derived --time 0.1 --sizes 40 --no-alone --json a.json")

    assert done.exit_code == 0, done.output
    assert the_race("a.json").names == ("torch", "torch[derived]")
    assert "torch[derived]" in done.output


@pytest.mark.thorough
def test_a_run_that_is_complete_is_not_repeated_and_one_that_is_not_goes_on() -> None:
    assert run(f"linear-regression {BRIEF} --json a.json").exit_code == 0
    whole = load("a.json")
    title = next(each for each in whole.sections if each.startswith("gradient"))
    cut = replace(whole.sections[title].races[0], blocks=whole.sections[title].races[0].blocks[:3], ended="interrupted")
    whole.with_race(title, cut).save("a.json")

    assert run(f"linear-regression {BRIEF} --json a.json --resume").exit_code == 0

    again = load("a.json")
    assert again.sections[title].races[0].blocks[:3] == cut.blocks
    assert len(again.sections[title].races[0].blocks) >= 8
    assert again.sections[title].races[0].ended in ("time", "precise")
    loss = next(each for each in whole.sections if each.startswith("loss"))
    assert again.sections[loss] == whole.sections[loss]


@pytest.mark.thorough
def test_ctrl_c_keeps_the_blocks_that_are_done_and_says_how_to_go_on() -> None:
    line = "bench linear-regression --backend numpy --time 60 --precision 0.001% --sizes 40 --no-alone --json a.json"
    process = subprocess.Popen(  # noqa: S603 - our own
        [sys.executable, "-m", "gdcompare", *line.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (Path("a.json").exists() and any_blocks("a.json")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "--resume goes on with it" in errors
    assert any_blocks("a.json")


def any_blocks(path: str) -> bool:
    return any(race.blocks for each in load(path).sections.values() for race in each.races)


def test_what_does_not_fit_in_memory_is_refused_before_it_starts() -> None:
    done = run("linear-regression --backend numpy --sizes 40,1e12")

    assert done.exit_code == 2
    assert "1000000000000 rows need about " in done.output
    assert "fastest" not in done.output


# Comparing two runs


def stored(path: str, factor: float = 1.0, n: int = 40, machine: str = "this") -> None:
    """Keep a run of two contenders, as if they had been timed: the second takes `factor` times a microsecond."""
    generator, names = np.random.default_rng(round(1000 * factor)), ["steady", "changing", "steady, again"]
    times = {"steady": 1e-6, "steady, again": 1e-6, "changing": 1e-6 * factor}
    blocks = tuple(
        Block(
            [names] * 3,
            {name: [times[name] * generator.uniform(0.99, 1.01)] * 3 for name in names},
            dict.fromkeys(names, 1.0),
            1e-8,
        )
        for _ in range(30)
    )
    facts: dict[str, Any] = {name: {"n": n, "what": "gradient"} for name in names[:2]}
    race = Race(
        ("steady", "changing"), "steady", facts, None, 0.95, 0, 0.005, dict.fromkeys(names, 1), blocks, ended="precise"
    )
    Run({"machine": {"processor": machine}}).with_race(f"gradient, n = {n}", race).save(path)


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.03, 0), (1.2, 1), (0.8, 0)])
def test_a_gate_fails_for_a_slow_down_that_is_shown_and_large_enough(factor: float, code: int) -> None:
    stored("old.json")
    stored("new.json", factor)

    done = run("--compare old.json new.json --at-least 5%")

    assert done.exit_code == code, done.output
    assert f"{code} of 2 became slower by 0.05 or more" in done.output
    assert ("changing  slower" in done.output) == bool(code)


@pytest.mark.parametrize("other", [{"machine": "that"}, {"n": 41}])
def test_runs_of_which_nothing_can_be_compared_do_not_pass(other: dict[str, Any]) -> None:
    stored("old.json")
    stored("new.json", **other)

    done = run("--compare old.json new.json --json changes.json")

    assert done.exit_code == 3, done.output
    assert "nothing of the two runs can be compared" in done.output
    assert all(each["verdict"] == "not comparable" for each in json.loads(Path("changes.json").read_text())["changes"])


@pytest.mark.thorough
def test_two_runs_at_once_are_told() -> None:
    fcntl = pytest.importorskip("fcntl", reason="runs see each other on Unix alone")
    with (Path(tempfile.gettempdir()) / "gdcompare-timing.lock").open("a") as file:
        with contextlib.suppress(OSError):  # another run is there already
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

        done = run(f"linear-regression {BRIEF}")

    assert "another timing run is under way on this machine" in done.stderr
