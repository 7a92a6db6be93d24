"""The look of pictures: names as they are, the caller's settings untouched, the same results in the same bytes."""

from __future__ import annotations

import subprocess
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

import gdcompare as gdc
from gdcompare.report import look
from gdcompare.writing import write_bytes

matplotlib = pytest.importorskip("matplotlib", reason="no picture without Matplotlib: pip install 'gdcompare[plot]'")

HOSTILE = ["$x_1$", "_mine", "a^2", "50 %", "$", r"\frac", "<script>", "two\nlines", "x" * 200, "{}"]


@pytest.fixture(scope="module")
def fit() -> gdc.Descent:
    return gdc.descend("linear-regression", "noisy-line", "numpy", epochs=5)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_letter_by_letter(name: str, fit: gdc.Descent) -> None:
    figure = gdc.pictures.losses({name: fit, "other": fit})

    (legend,) = figure.legends
    shown = legend.get_texts()[0].get_text().strip().replace(r"\$", "$")
    assert shown == (name if len(name) < 30 and "\n" not in name else shown)
    assert "\n" not in shown
    assert len(shown) <= 33
    assert len(legend.get_texts()) == 2


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "kind"), list(zip(HOSTILE, cycle(["surface", "distances", "coinciding"]), strict=False))
)
def test_any_name_can_be_written(name: str, kind: str, fit: gdc.Descent, tmp_path: Path) -> None:
    data = gdc.Dataset([[0.0], [1.0]], [1.0, 2.0], name=name)

    figure = getattr(gdc.pictures, kind)("linear-regression", data, {name: fit, "other": fit})

    gdc.pictures.write(figure, tmp_path / "a.png")


def test_an_unescaped_formula_would_be_typeset(tmp_path: Path) -> None:
    def written(text: str) -> str:
        with look.styled():
            figure = look.whole(look.part_of(None, 2, 1))
            figure.text(0, 0, text)
            look.write(figure, tmp_path / "a.svg")
        return (tmp_path / "a.svg").read_text()

    assert "<!-- $x_1$ -->" in written(look.words("$x_1$"))
    assert written("$x_1$").count("<use") != written(look.words("$x_1$")).count("<use")


@pytest.mark.thorough
def test_the_callers_settings_change_nothing_and_are_given_back(fit: gdc.Descent, tmp_path: Path) -> None:
    def bytes_of_a_picture() -> bytes:
        gdc.pictures.write(gdc.pictures.losses({"a": fit}), tmp_path / "a.svg")
        return (tmp_path / "a.svg").read_bytes()

    usual = bytes_of_a_picture()
    theirs = {"font.size": 23.0, "axes.facecolor": "black", "lines.linewidth": 9.0, "svg.hashsalt": "theirs"}
    with matplotlib.rc_context(theirs):
        before = dict(matplotlib.rcParams)
        assert bytes_of_a_picture() == usual
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    "suffix", [".svg", *(pytest.param(each, marks=pytest.mark.thorough) for each in (".png", ".pdf"))]
)
def test_the_same_results_make_the_same_bytes(suffix: str, fit: gdc.Descent, tmp_path: Path) -> None:
    for name in ("a", "b"):
        gdc.pictures.write(gdc.pictures.distances("linear-regression", "noisy-line", fit), tmp_path / f"{name}{suffix}")

    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.thorough
def test_what_a_layout_varies_in_its_last_bits_changes_no_byte(tmp_path: Path) -> None:
    def written(left: float) -> str:
        with look.styled():
            figure = look.whole(look.part_of(None, 4, 3))
            figure.set_layout_engine("none")
            for bottom in (0.1, 0.6):
                figure.add_axes((left, bottom, 0.7, 0.3)).plot([1, 2, 3])
        look.write(figure, tmp_path / "a.svg")
        return (tmp_path / "a.svg").read_text()

    first = written(0.2)

    assert [first.count(f'id="clip-{place}"') for place in (0, 1, 2)] == [1, 1, 0]
    assert [first.count(f"url(#clip-{place})") > 2 for place in (0, 1)] == [True, True]
    assert written(0.2 + 1e-15) == first
    assert written(0.2 + 1e-3) != first


def test_other_results_make_other_bytes(fit: gdc.Descent, tmp_path: Path) -> None:
    other = gdc.descend("linear-regression", "noisy-line", "numpy", epochs=6)
    for name, one in (("a", fit), ("b", other)):
        gdc.pictures.write(gdc.pictures.distances("linear-regression", "noisy-line", one), tmp_path / f"{name}.svg")

    assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "b.svg").read_bytes()


def test_a_picture_shows_itself_in_a_notebook(fit: gdc.Descent) -> None:
    figure: Any = gdc.pictures.losses(fit)

    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", ["a.bmp", "a", "a.gif", ".svg", "svg"])
def test_another_format_is_refused(path: str, fit: gdc.Descent) -> None:
    with pytest.raises(ValueError, match=r"is no \.svg, \.png or \.pdf file"):
        gdc.pictures.write(gdc.pictures.losses(fit), path)


def test_without_matplotlib_a_picture_says_what_to_install(monkeypatch: pytest.MonkeyPatch, fit: gdc.Descent) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(look.PlotUnavailableError, match=r"pip install 'gdcompare\[plot\]'"):
        gdc.pictures.losses(fit)


def test_without_ffmpeg_a_film_says_so(monkeypatch: pytest.MonkeyPatch, fit: gdc.Descent, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(look.PlotUnavailableError, match="needs the program ffmpeg"):
        gdc.pictures.animate("linear-regression", "noisy-line", fit, tmp_path / "a.mp4")


@pytest.mark.thorough
def test_matplotlib_comes_with_a_picture_and_pyplot_never() -> None:
    script = """
import sys
from gdcompare import *
import gdcompare as gdc
gdc.pictures.losses
assert "matplotlib" not in sys.modules
fit = gdc.descend("linear-regression", "noisy-line", "numpy", epochs=2)
gdc.pictures.losses(fit)
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)  # noqa: S603

    assert done.returncode == 0, done.stderr


def test_colours_are_told_apart_in_grey_or_by_their_marks() -> None:
    marks = look.marks("abcdefg").values()

    assert len({(mark.colour, mark.marker) for mark in marks}) == len(marks)
    assert len({mark.marker for mark in marks}) == len(marks)


def test_bytes_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    with pytest.raises(TypeError):
        write_bytes(tmp_path / "a", None)  # type: ignore[arg-type]  # what cannot be written

    assert (tmp_path / "a").read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
