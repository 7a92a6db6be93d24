"""The pages hang together: every chapter is in the index, every relative link leads somewhere, one version is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gdcompare as gdc

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / "docs").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *CHAPTERS, *NOTEBOOKS]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    """Return the relative links of a page."""
    return [link for link in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    lost = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A head: it's one\n[a](no.md) [b](page.md) [c](#a-head-its-one) [d](page.md#no) [e](https://x.y)\n"
    )

    assert broken(page) == ["no.md", "page.md#no"]


def test_every_chapter_is_in_the_index_once() -> None:
    index = ROOT / "docs" / "README.md"

    listed = [link for link in links(index) if not link.startswith("..")]

    expected = [path.relative_to(index.parent).as_posix() for path in (*CHAPTERS, *NOTEBOOKS) if path != index]
    assert sorted(listed) == sorted(expected)
    assert "docs/README.md" in links(ROOT / "README.md")


def test_the_citation_names_this_version() -> None:
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")

    assert f"\nversion: {gdc.__version__}\n" in cited
    assert {"cff-version", "message", "title", "authors"} <= set(re.findall(r"^([a-z-]+):", cited, flags=re.MULTILINE))


@pytest.mark.thorough
def test_the_picture_of_the_readme_is_what_its_command_draws(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Matplotlib draws it, and brings Pillow to read it")
    kept, drawn = image.open(ROOT / "docs" / "start.png"), tmp_path / "start.png"

    subprocess.run([sys.executable, ROOT / "docs" / "made.py", drawn], check=True)  # noqa: S603 - our own

    again = image.open(drawn)
    if again.info["Software"] != kept.info["Software"]:
        pytest.skip(f"{again.info['Software']} draws letters otherwise than {kept.info['Software']}")
    assert again.size == kept.size
    apart = np.abs(np.asarray(again, dtype=float) - np.asarray(kept, dtype=float)).max(axis=-1) > 64
    assert apart.mean() < 1e-4, "draw it anew: python docs/made.py"
