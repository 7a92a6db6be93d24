"""The site, with the extra `docs`: `sphinx-build -W --keep-going docs docs/_build/html`; it needs no network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes

sys.path.insert(0, str(Path(__file__).parent))

import made

import gdcompare

project = "gdcompare"
author = copyright = "The gdcompare developers"  # noqa: A001 - Sphinx's name
release = version = gdcompare.__version__
extensions = ["myst_nb"]
root_doc = "made/index"
exclude_patterns = ["_build", "README.md", "**/*.py"]  # made/index.md has the chapters of README.md
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # examples show what a shell or a traceback prints

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

html_theme = "furo"
html_title = f"gdcompare {release}"
html_math_renderer = "mathml"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]

ENTRANCE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>gdcompare</title>
<meta http-equiv="refresh" content="0; url=made/index.html"><a href="made/index.html">gdcompare</a></html>
"""
"""What stands where a browser looks first: the start page is made, and lies with what is made."""


def _mathml(self: Any, node: nodes.Element, display: str) -> None:
    """Write a formula as MathML, which browsers draw by themselves: nothing is fetched, and no script runs."""
    self.body.append(latex2mathml.converter.convert(node.astext(), display=display))
    raise nodes.SkipNode


def _inline(self: Any, node: nodes.Element) -> None:
    _mathml(self, node, "inline")


def _block(self: Any, node: nodes.Element) -> None:
    self.body.append('<div class="formula" tabindex="0">')  # a long one scrolls, by the keyboard, too
    try:
        _mathml(self, node, "block")
    finally:
        self.body.append("</div>")


def _at_home(_app: Any, name: str, source: list[str]) -> None:
    """Links from a chapter to what stands above docs/ lead to its copy."""
    if not name.startswith("made/"):
        up = "../" if "/" in name else ""
        source[0] = re.sub(r"\]\((?:\.\./)*README\.md", f"]({up}made/index.md", source[0])
        source[0] = re.sub(r"\]\((?:\.\./)+([A-Z]+\.md)", rf"]({up}made/\1", source[0])


def _enter(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "index.html").write_text(ENTRANCE, encoding="utf-8")


def setup(app: Any) -> None:
    """Make what is made of the code before anything is read."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("builder-inited", lambda _: made.write_all())
    app.connect("source-read", _at_home)
    app.connect("build-finished", _enter)
