"""The page in a browser: the slider moves the points, nothing is fetched, and a phone and a keyboard are enough."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gdcompare as gdc

pytest.importorskip("matplotlib", reason="no page without Matplotlib: pip install 'gdcompare[report]'")
pytest.importorskip("jinja2", reason="no page without Jinja2: pip install 'gdcompare[report]'")
pytest.importorskip("selenium", reason="no browser is driven without selenium: pip install 'gdcompare[test]'")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None,
        reason="no browser here: apt-get install chromium chromium-driver",
    ),
]

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER, log_output=os.devnull))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    gdc.report_page("linear-regression", "noisy-line", backends=["numpy", "autograd"], steps=300).write(path)
    return path.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Any:
    """The page, opened anew on a desktop."""
    width(browser, 1200)
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(address)
    return browser


def width(browser: Any, pixels: int) -> None:
    size = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": pixels < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def marks(page: Any, backend: str = "numpy") -> dict[str, str]:
    """Return where the marks of a backend are, by the kind of descent; of those that are seen."""
    return {
        each.get_attribute("data-kind"): each.get_attribute("transform")
        for each in page.find_elements("css selector", "#plane .mark")
        if each.get_attribute("data-backend") == backend and each.is_displayed()
    }


def test_it_renders_without_a_word_on_the_console_and_fetches_nothing(page: Any) -> None:
    asked = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in page.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]

    assert page.get_log("browser") == []
    assert [each for each in asked if not each.startswith(("file:", "chrome"))] == []
    assert sum(each.startswith("file:") for each in asked) == 1
    assert len(marks(page)) == 3
    assert page.find_element("id", "fan").find_elements("tag name", "path")


def test_the_slider_moves_the_points_by_the_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    slider, before = page.find_element("id", "step"), marks(page)
    slider.send_keys(Keys.HOME)
    start, text = marks(page), page.find_element("id", "step-value").text
    slider.send_keys(Keys.ARROW_RIGHT)

    assert text == "0 of 300"
    assert len(set(start.values())) == 1
    assert all(before[kind] != start[kind] != marks(page)[kind] for kind in start)
    slider.send_keys(Keys.END)
    assert page.find_element("id", "step-value").text == "300 of 300"
    assert marks(page, "autograd") == marks(page)


def test_switches_hide_backends_and_descents(page: Any) -> None:
    kinds = page.find_elements("css selector", "#where input[name=kind]")
    backends = page.find_elements("css selector", "#where input[name=backend]")

    kinds[0].click()
    assert list(marks(page)) == ["mini-batches of 8", "single samples"]
    backends[0].click()
    assert marks(page, "autograd") == {} or marks(page, "numpy") == {}
    backends[1].click()
    assert marks(page, "autograd") == marks(page, "numpy") == {}


def test_everything_that_can_be_done_is_reached_by_the_tab_key(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.find_element("tag name", "body").click()
    reached = set()
    for _ in range(80):
        page.switch_to.active_element.send_keys(Keys.TAB)
        focus = page.switch_to.active_element
        reached.add((focus.tag_name, focus.get_attribute("id") or focus.get_attribute("name") or ""))

    assert {("button", "play"), ("input", "step"), ("input", "kind"), ("input", "backend"), ("input", "fan")} <= reached


def test_play_moves_by_itself_and_pauses(page: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    button, before = page.find_element("id", "play"), page.find_element("id", "step-value").text
    button.click()
    WebDriverWait(page, 20).until(lambda it: it.find_element("id", "step-value").text != before)
    assert button.text == "Pause"
    button.click()
    assert button.text == "Play"


def test_the_gradients_are_those_of_the_descent_that_is_asked_for(page: Any) -> None:
    fan, radios = page.find_element("id", "fan"), page.find_elements("css selector", "#where input[name=fan]")
    before = fan.get_attribute("innerHTML")

    radios[2].click()

    assert "single samples" in fan.text
    assert fan.get_attribute("innerHTML") != before


@pytest.mark.parametrize("pixels", [390, 320, 1600])
def test_no_width_makes_the_page_scroll_sideways(page: Any, pixels: int) -> None:
    width(page, pixels)

    assert page.execute_script("return document.documentElement.scrollWidth") <= pixels
    smallest = page.execute_script(
        "const svg = document.getElementById('plane');"
        "return 11 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width"
    )
    assert smallest >= (8 if pixels >= 390 else 6)


def test_a_figure_is_downloaded_as_a_picture_of_its_own(page: Any, tmp_path: Path) -> None:
    import xml.etree.ElementTree as ET

    from selenium.webdriver.support.ui import WebDriverWait

    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.find_element("css selector", "figure[data-name=surface] button").click()
    WebDriverWait(page, 20).until(lambda _: (tmp_path / "surface.svg").exists())

    picture = ET.fromstring((tmp_path / "surface.svg").read_text())  # noqa: S314 - the page wrote it
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert picture.get("width") == "460"


def test_it_prints(page: Any) -> None:
    import base64

    printed = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})

    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
