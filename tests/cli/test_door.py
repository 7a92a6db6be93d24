"""What becomes of errors, signals, files and other people's prints: nothing is lost, and no exit code misleads."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.shell_completion import ShellComplete

import gdcompare as gdc
from gdcompare import registry
from gdcompare.cli import commands
from gdcompare.cli.output import console_for
from gdcompare.referee.counterexample import counterexample
from gdcompare.table import table
from gdcompare.writing import write_text
from tests.cli.running import run

MINE = """\
import os, sys
import numpy as np

def summed(params, features, targets):
    print("a print of mine")
    os.system("echo another")
    residuals = params["theta_0"] + features @ params["theta_1"] - targets
    return None, {"theta_0": 2 * np.sum(residuals), "theta_1": 2 * residuals @ features}

def check(implementation):
    return {}["a bug in my check"]

def mean(params, features, targets):
    _, gradient = summed(params, features, targets)
    return None, {name: each / len(targets) for name, each in gradient.items()}

def rows(params, features, targets):
    residuals = params["theta_0"] + features @ params["theta_1"] - targets
    return {"theta_0": 2 * residuals, "theta_1": 2 * residuals[:, None] * features}
"""

PROBLEM = """\
from dataclasses import dataclass
from gdcompare import Problem
from helper import factor

@dataclass(frozen=True)
class Line(Problem):
    def parameter_shapes(self, data):
        return {"w": data.features.shape[1:]}
    def per_sample_losses(self, xp, params, features, targets):
        return factor() * (features @ params["w"] - targets) ** 2
    def per_sample_gradients(self, xp, params, features, targets):
        return {"w": 2 * factor() * (features @ params["w"] - targets)[:, None] * features}
"""


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)


def process(*arguments: str, **how: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gdcompare", *arguments]
    # What a shell starts in the background ignores Ctrl-C, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **how)  # type: ignore[call-overload,no-any-return]  # noqa: S603 - our own
    finally:
        signal.signal(signal.SIGINT, before)


# Errors


@pytest.mark.parametrize("more", ["", " --digits"])
def test_a_function_that_raises_costs_nobody_else_the_verdict_and_ends_with_the_code_of_a_bug(more: str) -> None:
    Path("broken.py").write_text("def broken(params, features, targets):\n    return params['no such name']\n")

    done = run(f"verify linear-regression --backend numpy --implementation mine=broken.py:broken{more}")

    assert done.exit_code == 4
    assert "mine: loss: it raised KeyError: 'no such name'" in done.output
    assert done.output.count("agree") == 3


def test_a_bug_in_a_check_is_shown_from_its_own_line_on_with_an_exit_code_of_its_own() -> None:
    done = run("mutate linear-regression --check mine.py:check")

    first, place, *_, last = done.stderr.splitlines()
    assert done.exit_code == 4
    assert first == "Traceback (most recent call last):"
    assert place.endswith('mine.py", line 11, in check')
    assert last == "error: a bug at mine.py:11"


def test_a_bug_of_ours_is_no_verdict_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdc, "verify", lambda *_, **__: 1 / 0)

    done = run("verify linear-regression --backend numpy")

    assert done.exit_code == 4
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    "error", [OSError(5, "it burns", "disk"), MemoryError("too much"), RecursionError, OverflowError]
)
def test_what_a_machine_refuses_is_bad_input(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def verify(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(gdc, "verify", verify)
    done = run("verify linear-regression --backend numpy")

    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1


def test_the_exit_codes_are_in_the_help() -> None:
    assert "4 a bug in somebody's own code" in " ".join(run("--help").stdout.split())


def test_mutate_offers_only_what_it_takes() -> None:
    assert "--backend" not in run("mutate --help").stdout
    assert "--backend" in run("laws --help").stdout


# Names


@pytest.mark.parametrize("name", ["run[final].csv", "[].csv", "[bold]a.csv", ":smile:.csv"])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    Path(name).write_text("x,[/x]\n1,2\n3,4\n")

    done = run(f"verify linear-regression --backend numpy --target [/x] --data {shlex.quote(name)}")
    refused = run(f"verify linear-regression --backend numpy --data {shlex.quote(name)}")

    assert done.exit_code == 0
    assert name in done.stdout
    assert refused.exit_code == 2
    assert "[/x]" in refused.stderr


def test_a_table_shows_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console_for(None).print(table("[title]", ["[/column]"], [["[bold]cell[/x]"]]))

    shown = capsys.readouterr().out
    assert all(each in shown for each in ("[title]", "[/column]", "[bold]cell[/x]"))


def test_list_says_how_to_install_what_is_missing_extra_included() -> None:
    found = json.loads(run("list --json -").stdout)["backends"]
    shown = run("list").stdout

    for words in set(found.values()) - {"installed"}:
        assert f"'gdcompare[{words.split()[1].strip(chr(39))}]'" in shown


def test_where_there_is_but_one_backend_it_says_how_to_get_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (registry.how_to_get_more() is None) == (len(gdc.backend_names()) > 1)
    monkeypatch.setattr(registry, "_missing", lambda entry_point: entry_point.extras)

    shown = " ".join(run("list").stdout.split())

    assert "only the backend numpy is installed; for more: pip install 'gdcompare[autograd]' or pip install" in shown


NAME = "w\nimport pathlib; pathlib.Path('broken').touch()\n#"


class Multiline(gdc.Problem):
    def __repr__(self) -> str:
        return NAME

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return {NAME: ()}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return params[NAME] * targets

    def per_sample_gradients(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return {NAME: targets}


@dataclass(frozen=True)
class Odd(type(gdc.load_backend("numpy"))):  # type: ignore[misc]  # a base found at run time
    def value_and_grad(self, problem: Any, reduction: Any = "mean") -> Any:
        return lambda *_: (0.0, {NAME: np.zeros(())})


def nothing(params: Any, features: Any, targets: Any) -> Any:
    return None, {name: 0 * value for name, value in params.items()}


@pytest.mark.thorough
def test_a_newline_in_a_name_does_not_become_code_in_a_script() -> None:
    found = counterexample(Multiline(), nothing, gdc.Dataset([[1.0]], [2.0]), seconds=0.2, name=NAME)

    assert found is not None
    Path("script.py").write_text(found.script())
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "is wrong" in done.stderr
    assert not Path("broken").exists()


@pytest.mark.thorough
def test_a_script_refuses_a_repr_that_is_no_call() -> None:
    found = counterexample(Multiline(), Odd("float64"), gdc.Dataset([[1.0]], [2.0]), seconds=0.2)

    assert found is not None
    with pytest.raises(ValueError, match=r"a script cannot make w \| import pathlib"):
        found.script()


# Files


def test_a_file_is_whole_or_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("old.json").write_text("old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    done = run("list --json old.json")

    assert done.exit_code == 2
    assert Path("old.json").read_text() == "old"
    assert sorted(os.listdir()) == ["mine.py", "old.json"]  # noqa: PTH208 - names


def test_a_file_keeps_its_permissions_and_a_link_stays_a_link() -> None:
    Path("real").write_text("old")
    Path("real").chmod(0o640)
    Path("link").symlink_to("real")

    write_text("link", "new")

    assert (Path("link").is_symlink(), Path("real").read_text()) == (True, "new")
    assert stat.S_IMODE(Path("real").stat().st_mode) == 0o640


def test_json_on_stdout_is_json_whoever_prints() -> None:
    done = run("verify linear-regression --backend numpy --implementation mine=mine.py:summed --json -")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["verdict"] == "wrong"
    assert "a print of mine" in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(("more", "judged"), [("", {"mine", "other"}), ("--backend numpy", {"numpy", "mine", "other"})])
def test_the_laws_of_somebodys_own_functions_and_of_the_backends_asked_for(more: str, judged: set[str]) -> None:
    own = "--implementation mine=mine.py:mean --per-sample mine=mine.py:rows --implementation other=mine.py:summed"

    done = run(f"laws linear-regression {more} {own} --json -")

    report = json.loads(done.stdout)
    wrong = {entry["implementation"] for entry in report["entries"] if entry["verdict"] == "wrong"}
    assert (done.exit_code, wrong) == (1, {"other"})
    assert {entry["implementation"] for entry in report["entries"]} == judged
    rows = {entry["implementation"] for entry in report["entries"] if entry["law"] == "each per-sample gradient"}
    assert rows == {"mine"}


@pytest.mark.thorough
def test_json_on_stdout_is_json_whoever_else_writes_there() -> None:
    arguments = ["verify", "linear-regression", "--backend", "numpy", "--implementation", "mine=mine.py:summed"]
    running = process(*arguments, "--json", "-", stdout=subprocess.PIPE)
    shown, said = running.communicate(timeout=60)

    assert running.returncode == 1
    assert json.loads(shown)["verdict"] == "wrong"
    assert "another" in said.splitlines()


def test_a_problem_may_import_what_lies_beside_it_and_two_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for folder, factor in (("one", 1.0), ("two", 2.0)):
        Path(folder).mkdir()
        Path(folder, "line.py").write_text(PROBLEM)
        Path(folder, "helper.py").write_text(f"def factor(): return {factor}\n")
    data = gdc.Dataset([[1.0]], [0.0])

    losses = [gdc.value_and_grad(f"{each}/line.py", data, {"w": [3.0]}, "numpy")[0] for each in ("one", "two")]
    done = run("verify one/line.py --backend numpy")

    assert losses == [9.0, 18.0]
    assert done.exit_code == 0


# Signals


@pytest.mark.thorough
@pytest.mark.parametrize(
    "arguments",
    [
        ["laws", "softmax-regression", "--data", "many.npz"],
        ["verify", "softmax-regression", "--data", "many.npz"],
        ["descend", "linear-regression", "--backend", "numpy", "--epochs", "100000000"],
        ["compare", "endless.py:forever", "endless.py:forever"],
        ["compare", "endless.py:swallows", "endless.py:swallows"],
        ["compare", "endless.py:in_c", "endless.py:in_c"],
    ],
    ids=lambda arguments: arguments[1],
)
def test_ctrl_c_ends_a_command_soon(arguments: list[str]) -> None:
    if "many.npz" in arguments:  # so many rows that no machine is through with them when the signal comes
        rows = np.random.default_rng(0).integers(0, 10, (300_000, 17))
        np.savez("many.npz", features=rows[:, 1:].astype(float), targets=rows[:, 0])
    Path("endless.py").write_text(
        "import hashlib, time\n"
        "print('begun', flush=True)\n"
        "def forever():\n    while True: time.sleep(1)\n"
        "def swallows():\n    while True:\n        try: time.sleep(1)\n        except KeyboardInterrupt: pass\n"
        "def in_c(): hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"
    )
    running = process(*arguments, stdout=subprocess.PIPE)
    if "endless" in arguments[1]:
        assert running.stdout is not None
        running.stdout.readline()
    else:
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(2.0)

    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=5)

    assert running.returncode == 130
    assert "Traceback" not in said.partition("Exception ignored")[0]


@pytest.mark.thorough
def test_ctrl_c_is_not_raised_while_a_module_is_imported() -> None:
    Path("slow.py").write_text(
        "import time\n"
        "print('begun', flush=True)\n"
        "try: time.sleep(0.5)\n"
        "except KeyboardInterrupt: print('raised', flush=True)\n"
        "print('imported', flush=True)\n"
        "def forever():\n    while True: time.sleep(1)\n"
    )
    running = process("compare", "slow.py:forever", "slow.py:forever", stdout=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()

    running.send_signal(signal.SIGINT)
    told, said = running.communicate(timeout=5)

    assert told == "imported\n"
    assert running.returncode == 130
    assert said.strip() == "interrupted: nothing was done"


@pytest.mark.thorough
def test_a_descent_that_is_interrupted_shows_what_was_done() -> None:
    running = process(
        "descend", "linear-regression", "--backend", "numpy", "--epochs", "100000000", stdout=subprocess.PIPE
    )
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(3.0)

    running.send_signal(signal.SIGINT)
    shown, _ = running.communicate(timeout=5)

    assert running.returncode == 130
    assert "interrupted" in shown


@pytest.mark.thorough
def test_a_broken_pipe_is_no_verdict() -> None:
    reading, writing = os.pipe()
    os.close(reading)

    for command in ("list", "explain"):
        running = process(command, *["methods"] * (command == "explain"), stdout=writing)
        _, said = running.communicate(timeout=30)

        assert (running.returncode, said) == (141, "")
    os.close(writing)


@pytest.mark.thorough
def test_a_full_disk_is_bad_input() -> None:
    with Path("/dev/full").open("w") as full:
        running = process("list", stdout=full.fileno())
        _, said = running.communicate(timeout=30)

    assert (running.returncode, said) == (2, "error: No space left on device\n")


# Completion


@pytest.mark.parametrize(
    ("arguments", "typed", "offered"),
    [
        ("verify", "poly", {"polynomial-regression"}),
        ("verify linear-regression --backend", "num", {"numpy"}),
        ("verify linear-regression --backend", "fin", {"finite-differences"}),
        ("verify linear-regression --data", "noisy", {"noisy-line"}),
        ("verify linear-regression --dtype", "", {"float32", "float64"}),
        ("verify linear-regression --derivative", "h", {"hvp", "hessian"}),
        ("verify linear-regression --reduction", "s", {"sum"}),
        ("descend linear-regression --rule", "a", {"adagrad", "adam", "adamw"}),
        ("descend linear-regression --schedule", "c", {"constant", "cosine"}),
        ("compare --rule", "m", {"momentum"}),
        ("check-backend", "num", {"numpy"}),
    ],
)
def test_the_shell_completes_names(arguments: str, typed: str, offered: set[str]) -> None:
    found = ShellComplete(commands, {}, "gdcompare", "_GDCOMPARE_COMPLETE").get_completions(arguments.split(), typed)

    assert {each.value for each in found} == offered


def test_the_shell_completes_files_where_no_name_begins_so() -> None:
    (found,) = ShellComplete(commands, {}, "gdcompare", "_GDCOMPARE_COMPLETE").get_completions(["verify"], "mine.")

    assert (found.value, found.type) == ("mine.", "file")
