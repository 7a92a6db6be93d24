"""The page: what stands on it are the results, whatever they are called, and it needs nothing else."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.report.page import Page, PageUnavailableError
from gdcompare.report.saved import saved
from gdcompare.report.scene import SIDE
from gdcompare.timing.runs import Run

pytest.importorskip("matplotlib", reason="no page without Matplotlib: pip install 'gdcompare[report]'")
pytest.importorskip("jinja2", reason="no page without Jinja2: pip install 'gdcompare[report]'")

LINE = "linear-regression"
HOSTILE = "</script><img src=x onerror=alert(1)>&amp;\"'$x_1$]]><!--"


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def half(params: Any, features: Any, targets: Any) -> Any:
    residuals = params["theta_0"] + features @ params["theta_1"] - targets
    return (residuals**2).mean(), {"theta_0": residuals.mean(), "theta_1": 2 * residuals @ features / len(targets)}


def scene_of(html: str) -> Any:
    found = re.search(r'<script id="scene" type="application/json">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture(scope="module")
def page() -> Page:
    return gdc.report_page(LINE, "noisy-line", backends=["numpy"], steps=60)


@pytest.fixture(scope="module")
def html(page: Page) -> str:
    return page.html()


@pytest.fixture(scope="module")
def scene(html: str) -> Any:
    return scene_of(html)


@pytest.mark.thorough
def test_a_page_says_the_verdict_and_what_it_depends_on(page: Page, html: str) -> None:
    assert '<p class="verdict agree"><strong>agree</strong></p>' in html
    assert page.report.explanation() in html
    assert "theta_0 = 0.126; theta_1 = -0.132" in html
    assert f"<dt>{np.__name__}</dt><dd>{np.__version__}</dd>" in html


@pytest.mark.thorough
def test_a_page_needs_nothing_else(html: str) -> None:
    asked = [
        value
        for _, attributes in Elements(html).found
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "data") and not (value or "").startswith("#")
    ]

    assert asked == []
    assert "url(" not in re.sub(r"url\(#", "", html)
    assert "@import" not in html
    assert "default-src 'none'" in html


@pytest.mark.thorough
def test_every_id_is_one_element_and_every_reference_has_one(html: str) -> None:
    ids = Counter(attributes["id"] for _, attributes in Elements(html).found if "id" in attributes)

    assert {name for name, count in ids.items() if count > 1} == set()
    assert set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html)) <= {*ids, "within"}


@pytest.mark.thorough
def test_names_that_would_break_a_page_are_words_on_it() -> None:
    data = gdc.Dataset([[0.0], [1.0], [2.0], [4.0]], [1.0, 3.0, 5.0, 2.0], name=HOSTILE)
    page = gdc.report_page(LINE, data, backends=["numpy"], implementations={HOSTILE: half}, steps=3)
    html = replace(page, command=f"gdcompare report {HOSTILE}").html()

    elements = Elements(html).found
    assert page.verdict == "wrong"
    assert "img" not in {tag for tag, _ in elements}
    assert not any(name.startswith("on") for _, attributes in elements for name in attributes)
    assert sum(tag == "script" for tag, _ in elements) == 2
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in html
    assert HOSTILE in scene_of(html)["title"]


def test_the_points_of_the_scene_are_those_of_the_descents(page: Page, scene: Any) -> None:
    assert page.descents is not None
    across, up = scene["ticks"]

    for kind in scene["kinds"]:
        fit = page.descents[kind["name"]]["numpy"]
        path = np.reshape(kind["paths"][0]["path"], (-1, 2))
        for stop, step in enumerate(scene["stops"]):
            place = path[kind["at"][stop]]
            true = [float(fit.history.parameters["theta_0"][step]), float(fit.history.parameters["theta_1"][step, 0])]
            for axis, ticks in enumerate((across, up)):
                (one, low), (other, high) = ((at, float(text)) for at, text in (ticks[0], ticks[-1]))
                expected = one + (true[axis] - low) / (high - low) * (other - one)
                assert abs(place[axis] - expected) <= 2, (kind["name"], step)


def test_the_mean_of_the_arrows_is_the_gradient(scene: Any) -> None:
    for kind in scene["kinds"]:
        for station in filter(None, kind["fan"]):
            rows = np.reshape(station["rows"], (-1, 2))
            np.testing.assert_allclose(rows.mean(axis=0), station["gradient"], atol=1)
            assert station["mean"] == station["gradient"]
            assert station["off"] < 1e-12
            if station["used"]:
                np.testing.assert_allclose(rows[station["used"]].mean(axis=0), station["batch"], atol=1)


def test_a_batch_of_the_scene_is_the_one_that_the_step_took(page: Page, scene: Any) -> None:
    assert page.descents is not None
    (kind,) = [each for each in scene["kinds"] if each["name"] == "single samples"]
    parameters = page.descents["single samples"]["numpy"].history.parameters

    for step in (0, 7, 30):
        station = kind["fan"][step]
        moved = parameters["theta_0"][step + 1] - parameters["theta_0"][step]
        assert moved == pytest.approx(-0.01 * station["batch"][0] / 250 * station["scale"], abs=1e-3)


@pytest.mark.thorough
def test_a_long_descent_becomes_no_longer_a_page() -> None:
    page = gdc.report_page(LINE, "noisy-line", backends=["numpy"], steps=10_000)
    assert page.descents is not None

    assert {fit.steps for found in page.descents.values() for fit in found.values()} == {10_000}
    assert len(page.html().encode()) < 1_000_000


@pytest.mark.thorough
def test_a_descent_that_diverges_is_drawn_until_it_leaves() -> None:
    page = gdc.report_page(LINE, "noisy-line", backends=["numpy"], rule=gdc.rules.sgd(1e3), steps=200)
    scene = scene_of(page.html())

    assert any("leaves the picture after step" in remark for remark in scene["remarks"])
    assert all(abs(at) <= 20 * SIDE for kind in scene["kinds"] for at in kind["paths"][0]["path"])
    assert "(diverged)" in scene["kinds"][0]["paths"][0]["ended"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("axes", "labels", "said"),
    [
        (None, ["first principal direction", "second principal direction"], "4 parameters, seen along"),
        ("theta_0,theta_1[2]", ["theta_0", "theta_1[2]"], "The other 2 parameters are as they are"),
    ],
)
def test_of_many_parameters_two_directions_are_seen_and_that_is_said(
    axes: str | None, labels: list[str], said: str
) -> None:
    generator = np.random.default_rng(0)
    data = gdc.Dataset(generator.standard_normal((12, 3)), generator.standard_normal(12))

    scene = scene_of(gdc.report_page(LINE, data, backends=["numpy"], steps=20, axes=axes).html())

    assert scene["labels"] == labels
    assert scene["remarks"][0].startswith(said)


@pytest.mark.thorough
def test_one_sample_and_one_step_make_a_page() -> None:
    page = gdc.report_page(LINE, gdc.Dataset([[1.0]], [2.0]), backends=["numpy"], steps=1)

    assert scene_of(page.html())["stops"] == [0, 1]


@pytest.mark.thorough
def test_weights_are_heeded() -> None:
    data = gdc.Dataset([[0.0], [1.0], [2.0], [4.0]], [1.0, 3.0, 5.0, 2.0], weights=[1.0, 2.0, 3.0, 4.0])
    page = gdc.report_page(LINE, data, backends=["numpy"], steps=5)
    html = page.html()

    stations = [station for kind in scene_of(html)["kinds"] for station in kind["fan"] if station]
    assert page.verdict == "agree"
    assert all(station["mean"] == station["gradient"] and not station["used"] for station in stations)
    assert "n = 4, d = 1, weighted" in html


@pytest.mark.thorough
def test_ctrl_c_leaves_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("gdcompare.report.page.attainable_digits", interrupted)

    page = gdc.report_page(LINE, "noisy-line", backends=["numpy"], steps=5)

    assert page.interrupted
    assert (page.laws is not None, page.digits, page.descents) == (True, None, None)
    assert page.missing == ("interrupted: what came after is missing",)


def test_what_was_saved_stands_on_the_page(page: Page, tmp_path: Path) -> None:
    wrong = gdc.verify(LINE, "noisy-line", backends=[], implementations={"half": half})
    (tmp_path / "wrong.json").write_text(wrong.to_json())

    found = saved(tmp_path / "wrong.json")

    assert isinstance(found, gdc.Report)
    assert found.to_json() == wrong.to_json()
    taken = gdc.report_page(LINE, "noisy-line", backends=["numpy"], report=found, laws=page.laws, steps=3)
    assert (taken.verdict, taken.report) == ("wrong", found)


@pytest.mark.thorough
def test_a_saved_run_is_shown(page: Page, tmp_path: Path) -> None:
    Run({"machine": {"processor": "an abacus"}, "threads": {}, "state": {}}).save(tmp_path / "run.json")
    run = saved(tmp_path / "run.json")

    assert isinstance(run, Run)
    html = replace(page, timing=run).html()
    assert "an abacus" in html
    assert "no picture of the times: there is no time to draw" in html


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no verdicts"),
        ('{"backends": {}}', "holds no verdicts"),
        ('{"entries": [{}], "context": {}}', "is damaged"),
        ('{"entries": [{"implementation": "a", "parameter": "b", "verdict": "fine"}], "context": {}}', "is damaged"),
        ('{"entries": 1, "context": {}}', "is damaged"),
    ],
)
def test_files_that_hold_something_else_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)

    with pytest.raises(ValueError, match=said):
        saved(tmp_path / "a.json")


def test_a_verdict_on_something_else_is_refused() -> None:
    other = gdc.verify("ridge-regression", "noisy-line", backends=["numpy"])

    with pytest.raises(ValueError, match="the report given is about RidgeRegression on noisy-line, n = 40"):
        gdc.report_page(LINE, "noisy-line", backends=["numpy"], report=other)


@pytest.mark.parametrize(
    ("how", "said"), [({"steps": 0}, "steps"), ({"batch_size": 41}, "batch size"), ({"axes": "a,b"}, "no parameter")]
)
def test_what_makes_no_sense_is_refused_before_the_work(how: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdcompare.report.page.verify", lambda *_, **__: pytest.fail("the work began"))

    with pytest.raises(ValueError, match=said):
        gdc.report_page(LINE, "noisy-line", backends=["numpy"], **how)


def test_without_jinja_the_way_to_get_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)

    with pytest.raises(PageUnavailableError, match=r"pip install 'gdcompare\[report\]'"):
        gdc.report_page(LINE, "noisy-line", backends=["numpy"])
