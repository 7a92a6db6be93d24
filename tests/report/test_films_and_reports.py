"""Films show descents step by step; pictures of reports and of models show what these say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from tests.report.seen import cells, line, words

pytest.importorskip("matplotlib", reason="no picture without Matplotlib: pip install 'gdcompare[plot]'")

pictures: Any = gdc.pictures  # what the artists of its figures hold has any type

LINE = "linear-regression"
POINT: Mapping[str, Any] = {"theta_0": 1.0, "theta_1": [0.0]}


# Films


@pytest.mark.thorough
def test_a_film_shows_the_descents_step_by_step(
    data: gdc.Dataset, fits: dict[str, gdc.Descent], diverging: gdc.Descent, tmp_path: Path
) -> None:
    image = pytest.importorskip("PIL.Image", reason="comes with Matplotlib")

    for name in ("a", "b"):
        pictures.animate(LINE, data, fits | {"rate 3": diverging}, tmp_path / f"{name}.gif", frames=5)

    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    with image.open(tmp_path / "a.gif") as film:
        shots = []
        for frame in range(film.n_frames):
            film.seek(frame)
            shots.append(np.asarray(film.convert("RGB")))
    assert len(shots) == 5
    assert all((one != other).any() for one, other in pairwise(shots))


FFMPEG = """#!/bin/sh
for last; do :; done
wc -c > "$last"
exit {code}
"""


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(FFMPEG.format(code=0))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


@pytest.mark.thorough
def test_ffmpeg_is_given_every_frame_and_its_failure_leaves_no_film(fake_ffmpeg: Path, tmp_path: Path) -> None:
    fit = gdc.descend("polynomial-regression", None, "numpy", epochs=9)

    pictures.animate("polynomial-regression", None, fit, tmp_path / "a.mp4", frames=4)

    size = int((tmp_path / "a.mp4").read_text())
    assert size == (4 + 12) * 864 * 396 * 3
    fake_ffmpeg.write_text(FFMPEG.format(code=1))
    with pytest.raises(OSError, match="ffmpeg could not write the film"):
        pictures.animate("polynomial-regression", None, fit, tmp_path / "b.mp4", frames=4)
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize("frames", [0, 1, 2.5, True])
def test_a_film_has_at_least_two_frames(fits: dict[str, gdc.Descent], frames: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frames must be a whole number, 2 or above"):
        pictures.animate(LINE, "noisy-line", fits, tmp_path / "a.gif", frames=frames)


# Reports


@pytest.mark.thorough
def test_the_heat_map_shows_every_verdict_where_it_belongs(report: gdc.Report) -> None:
    figure = pictures.heat_map(report)

    (axes,) = figure.axes
    rows = [each.get_text() for each in axes.get_yticklabels()]
    columns = [each.get_text() for each in axes.get_xticklabels()]
    drawn = cells(axes)
    for entry in report.entries:
        place = rows.index(entry.implementation), columns.index(entry.parameter)
        red = drawn[place][0] > 1.5 * drawn[place][2]
        assert red == (entry.verdict == "wrong")
    assert [each.get_text() for each in figure.legends[0].get_texts()] == ["agree", "wrong"]
    assert "Verdict: wrong; budgets are proven." in words(figure)


def test_the_verdicts_of_a_heat_map_are_told_apart_in_grey() -> None:
    from matplotlib.colors import to_rgb

    from gdcompare.report.agreement import _FILL

    greys = sorted(float(np.dot(to_rgb(fill), [0.299, 0.587, 0.114])) for fill, _, _ in _FILL.values())
    assert min(np.diff(greys)) > 0.05
    assert len({hatch for _, _, hatch in _FILL.values()}) == 2


def test_the_shares_and_digits_are_those_of_the_entries(report: gdc.Report) -> None:
    (shares,) = pictures.budget_shares(report).axes
    (digits,) = pictures.digits(report).axes

    for name in ("numpy", "half"):
        own = [entry for entry in report.entries if entry.implementation == name]
        expected = np.clip([entry.budget_fraction for entry in own], 1e-4, 1e3)
        np.testing.assert_array_equal(line(shares, name)[:, 0], expected)
        np.testing.assert_array_equal(line(digits, name)[:, 0], [entry.digits for entry in own])
    assert max(line(shares, "half")[:, 0]) == 1e3
    assert shares.get_xlim()[1] > 1e3


def test_what_has_no_share_is_named(report: gdc.Report) -> None:
    bent = gdc.verify(LINE, "noisy-line", backends=[], implementations={"bent": lambda *_: (1.0, {"theta_0": [1.0]})})

    said = words(pictures.budget_shares(bent))

    assert "No share: bent: theta_0, bent: theta_1." in said
    assert "wrong" in words(pictures.heat_map(bent))


@pytest.mark.thorough
def test_laws_have_a_row_each(data: gdc.Dataset) -> None:
    laws = gdc.check_batch_laws(LINE, data, POINT, "numpy")

    (axes,) = pictures.heat_map(laws).axes

    assert [each.get_text() for each in axes.get_yticklabels()] == list(dict.fromkeys(e.law for e in laws.entries))
    assert len(axes.patches) == len(laws.entries) / 2
    worst = max(laws.entries[:2], key=lambda entry: entry.budget_fraction)
    assert axes.texts[0].get_text() == f"{worst.error_ulps:.3g} ulp"


@pytest.mark.thorough
def test_two_hundred_parameters_have_a_heat_map(report: gdc.Report, tmp_path: Path) -> None:
    many = gdc.Report(tuple(replace(report.entries[0], parameter=f"{'layer.' * 9}{i}") for i in range(200)))

    for picture in (pictures.heat_map, pictures.budget_shares, pictures.digits, pictures.of_report):
        pictures.write(picture(many), tmp_path / "a.png")  # a layout that collapses would warn
    (axes,) = pictures.heat_map(many).axes
    assert len(axes.patches) == 200
    assert len(axes.get_xticklabels()) <= 40


# Models


@pytest.fixture(scope="module")
def models() -> list[gdc.Native]:
    def made(name: str, factor: float) -> gdc.Native:
        def loss(p: Any, features: Any, targets: Any) -> Any:
            return ((features @ p["w"] - targets) ** 2).mean()

        def slope(p: Any, features: Any, targets: Any) -> Any:
            return {"w": factor * (features @ p["w"] - targets) @ features / len(targets)}

        return gdc.from_functions(loss, slope, {"w": [0.5]}, name=name)

    return [made("right", 2.0), made("wrong", 1.0), made("same", 2.0)]


def test_a_training_shows_the_losses_and_where_they_part(models: list[gdc.Native], data: gdc.Dataset) -> None:
    found = gdc.compare_training(models[:2], data, steps=5)

    figure = pictures.training(found)

    above, below = figure.axes
    for name in found.losses:
        np.testing.assert_array_equal(line(above, name)[:, 1], found.losses[name])
    np.testing.assert_array_equal(line(below, "wrong")[:, 1], found.apart["wrong"])
    assert "The first bad step: 0." in words(figure)
    same = pictures.training(gdc.compare_training([models[0], models[2]], data, steps=5))
    assert "bad step" not in words(same)


def test_layers_are_drawn_in_order_and_the_first_that_differs_is_marked(models: list[gdc.Native]) -> None:
    comparison = gdc.compare(models[:2], gdc.datasets.noisy_line())
    entry = replace(comparison.entries[0], verdict="agree", budget_fraction=0.5, law="forward")
    layers = [replace(entry, parameter="first"), replace(entry, parameter="second", budget_fraction=9.0)]
    seen = replace(comparison, layers=(layers[0], replace(layers[1], verdict="wrong")))

    figure = pictures.layers(seen)

    (axes,) = figure.axes
    assert [each.get_text() for each in axes.get_xticklabels()] == ["first", "second"]
    assert line(axes, f"{entry.implementation}, forward").tolist() == [[0.0, 0.5], [1.0, 9.0]]
    assert "The first to differ: second, forward." in words(figure)
    with pytest.raises(ValueError, match="no layer was seen"):
        pictures.layers(comparison)
    with pytest.raises(ValueError, match="has estimated budgets, and no digits"):
        pictures.digits(comparison)


def test_a_comparison_has_a_sheet_of_what_there_is(models: list[gdc.Native], data: gdc.Dataset) -> None:
    comparison = gdc.compare(models[:2], data)

    assert len(pictures.of_comparison(comparison).axes) == 1
    assert len(pictures.of_comparison(comparison, gdc.compare_training(models[:2], data, steps=2)).axes) == 3
