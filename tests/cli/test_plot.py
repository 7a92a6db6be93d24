"""`--plot`: a picture beside the table, of the kind that the file's ending asks for, and the same exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.running import OWN, run

pytest.importorskip("matplotlib", reason="no picture without Matplotlib: pip install 'gdcompare[plot]'")

BEGIN = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF", ".gif": b"GIF8"}
LINE = "linear-regression --backend numpy"
MODELS = """\
import gdcompare as gdc

def loss(p, features, targets):
    return ((features @ p["w"] - targets) ** 2).mean()

def slope(p, features, targets):
    return {"w": 2 * (features @ p["w"] - targets) @ features / len(targets)}

one, other = (gdc.from_functions(loss, slope, {"w": [0.7]}, name=name) for name in ("one", "other"))
"""


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models.py").write_text(f"{MODELS}\n{OWN}")
    monkeypatch.chdir(tmp_path)


LINES = [
    (f"verify {LINE} --plot a.svg", 0),
    (f"verify {LINE} --implementation half=models.py:half --plot a.png", 1),
    (f"verify {LINE} --implementation broken=models.py:broken --plot a.svg", 4),
    (f"verify {LINE} --derivative hessian --plot a.pdf", 0),
    (f"verify {LINE} --digits --plot a.svg", 0),
    (f"laws {LINE} --plot a.svg", 0),
    ("laws linear-regression --implementation half=models.py:half --plot a.svg", 1),
    (f"descend {LINE} --epochs 20 --plot a.svg", 0),
    (f"descend {LINE} --epochs 2 --batch-size 7 --rule adam --plot a.PNG", 0),
    (f"descend {LINE} --epochs 9 --learning-rate 1e9 --plot a.svg", 0),
    (f"descend {LINE} --epochs 5 --plot a.gif", 0),
    ("descend polynomial-regression --backend numpy --epochs 5 --plot a.svg --axes theta[0],theta[2]", 0),
    ("descend softmax-regression --backend numpy --epochs 3 --plot a.svg", 0),
    ("descend linear-regression --backend finite-differences --backend numpy --epochs 3 --plot a.svg", 0),
    ("compare models.py:one models.py:other --steps 3 --plot a.svg", 0),
]
QUICK = {0, 3, 10, 14}


@pytest.mark.parametrize(
    ("line", "code"),
    [pytest.param(*each, marks=[] if i in QUICK else pytest.mark.thorough) for i, each in enumerate(LINES)],
    ids=[line for line, _ in LINES],
)
def test_a_picture_is_written_beside_the_table(line: str, code: int) -> None:
    without = run(line.partition(" --plot")[0]) if "descend" not in line else None  # which shows its times

    done = run(line)

    assert done.exit_code == code, done.output
    if without is not None:
        assert done.stdout == without.stdout
    (written,) = [path for path in Path().iterdir() if path.stem == "a"]
    assert written.read_bytes().startswith(BEGIN[written.suffix.lower()])


@pytest.mark.thorough
def test_a_picture_goes_with_json_on_stdout() -> None:
    done = run(f"descend {LINE} --epochs 3 --plot a.svg --json -")

    assert json.loads(done.stdout)["backends"]["numpy"]["steps"] == 3
    assert Path("a.svg").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", [".svg", ".gif"])
def test_the_demonstration_draws_itself(suffix: str) -> None:
    done = run(f"--plot a{suffix}")

    assert done.exit_code == 0, done.output
    assert Path(f"a{suffix}").read_bytes().startswith(BEGIN[suffix])


@pytest.mark.parametrize("command", ["", f"verify {LINE}", f"descend {LINE}", f"laws {LINE}"])
def test_without_matplotlib_the_line_to_install_it_comes_before_the_work(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    done = run(f"{command} --plot a.svg")

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: pictures need 'matplotlib': pip install 'gdcompare[plot]'\n"


def test_without_ffmpeg_a_film_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    done = run(f"descend {LINE} --plot a.mp4")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "an .mp4 file needs the program ffmpeg, which is not here; write to .gif instead" in done.stderr


def test_a_misspelt_axis_is_named_with_the_nearest() -> None:
    done = run(f"descend {LINE} --plot a.svg --axes theta_0,thta_1")

    assert done.exit_code == 2
    assert "there is no parameter 'thta_1' to draw; known: theta_0, theta_1; did you mean 'theta_1'?" in done.stderr
