"""`gdcompare report`: one file, the exit code of its verdict, and the command that makes it again."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.running import OWN, run

pytest.importorskip("matplotlib", reason="no page without Matplotlib: pip install 'gdcompare[report]'")
pytest.importorskip("jinja2", reason="no page without Jinja2: pip install 'gdcompare[report]'")

LINE = "report linear-regression --backend numpy --steps 5"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)


def command_on(page: str) -> str:
    found = re.search(r"<code>(.*?)</code>", Path(page).read_text(), re.DOTALL)
    assert found is not None
    return html.unescape(found[1])


@pytest.mark.thorough
def test_a_page_is_written_and_its_command_makes_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(f"{LINE} --no-timing -o 'a page.html' --json a.json --at theta_0=1 --at theta_1=0")

    assert done.exit_code == 0, done.output
    assert "a page.html: 0." in done.stdout
    assert json.loads(Path("a.json").read_text())["report"]["verdict"] == "agree"
    command = command_on("a page.html")
    assert shlex.split(command)[:3] == ["gdcompare", "report", "linear-regression"]
    assert "--at theta_0=1 --at theta_1=0" in command
    assert "--no-timing" in command
    monkeypatch.setattr("gdcompare.report.page.as_svg", lambda *_, **__: "")  # drawn once is enough
    again = run(command.removeprefix("gdcompare "))
    assert again.exit_code == 0, again.output
    assert command_on("a page.html") == command


@pytest.mark.parametrize("name", ["a.txt", "a", "a.html.gz", ".html"])
def test_an_ending_that_no_browser_knows_is_refused_before_the_work(name: str) -> None:
    done = run(f"{LINE} -o {name}")

    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Invalid value for '-o' / '--output': '{name}' is no .html or .htm file" in done.stderr
    assert not Path(name).exists()


@pytest.mark.thorough
def test_the_short_ending_is_taken_in_either_case() -> None:
    assert run(f"{LINE} --no-timing -o A.Htm").exit_code == 0
    assert Path("A.Htm").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "code"), [("half", 1), ("broken", 4)])
def test_an_implementation_that_is_wrong_is_the_exit_code(name: str, code: int) -> None:
    done = run(f"{LINE} --no-timing -o a.html --implementation {name}=own.py:{name}")

    assert done.exit_code == code, done.output
    assert '<p class="verdict wrong">' in Path("a.html").read_text()


@pytest.mark.thorough
def test_what_was_saved_is_taken_instead_of_done_anew() -> None:
    assert run("verify linear-regression --implementation half=own.py:half --json verdict.json").exit_code == 1
    assert run("laws linear-regression --backend numpy --json laws.json").exit_code == 0

    done = run(f"{LINE} --no-timing -o a.html --from verdict.json --from laws.json")
    assert done.exit_code == 1, done.output
    assert "a constant factor 1/2" in Path("a.html").read_text()
    twice = run(f"{LINE} --no-timing -o b.html --from laws.json --from laws.json")
    assert twice.exit_code == 2
    assert "is the second file of its kind" in twice.output
    assert not Path("b.html").exists()


@pytest.mark.thorough
def test_times_are_those_of_the_timer_or_of_a_saved_run() -> None:
    assert run("bench linear-regression --backend numpy --no-alone --time 0.3 --json run.json").exit_code == 0

    taken = run(f"{LINE} -o a.html --from run.json")
    timed = run(f"{LINE} -o b.html --time 0.3")

    for page, done in (("a.html", taken), ("b.html", timed)):
        assert done.exit_code == 0, done.output
        assert "gradient, LinearRegression, n = 40, d = 1, float64" in Path(page).read_text()


@pytest.mark.thorough
def test_weighted_data_have_no_times_and_that_is_said() -> None:
    Path("weights.csv").write_text("x,y,w\n0,1,1\n1,3,2\n2,5,3\n3,6,1\n")

    done = run(f"{LINE} --data weights.csv --target y --weights w -o a.html")

    assert done.exit_code == 0, done.output
    assert "no timing: a benchmark takes no weights" in Path("a.html").read_text()
