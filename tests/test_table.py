"""A table says the same in plain text, in a terminal and in a notebook, whatever stands in it."""

from __future__ import annotations

from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console

from gdcompare.table import as_html, as_text, table

HOSTILE = ["<script>alert(1)</script>", "[/x]", "[bold]", "a & b", '" onmouseover="x', "$\\alpha$", "two\nlines"]


class Reader(HTMLParser):
    """Reads HTML: the tags, which must be closed in order, and the text of each cell."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


@pytest.mark.parametrize("word", HOSTILE)
def test_html_shows_every_word_as_it_is(word: str) -> None:
    read = Reader(as_html([word, table(word, [word, "n"], [[word, "1"]])]))

    assert read.cells == [word, "n", word, "1"]
    assert read.tags <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert read.attributes <= {"style", "class"}


def test_html_sets_no_colour_and_needs_nothing_from_elsewhere() -> None:
    source = as_html([table("", ["verdict"], [["wrong"], ["agree"]])])

    assert "background" not in source
    assert "color" not in source.replace("currentColor", "").lower()
    assert "http" not in source
    assert source.count("font-weight:bold") == 2  # the head, and what is wrong


@pytest.mark.parametrize("word", [word for word in HOSTILE if "\n" not in word])
def test_a_terminal_and_plain_text_show_every_word_as_it_is(word: str) -> None:
    made = table(word, ["word"], [[word]])
    file = StringIO()

    Console(file=file, width=80).print(made)

    assert file.getvalue().count(word) == 2
    assert str(made).count(word) == 2


def test_plain_text_is_the_same_in_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    made = table("", ["word", "number"], [["a" * 300, "1"]])
    before = str(made)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert str(made) == before
    assert before.isascii()
    assert before.count("a") == 300
    assert max(map(len, before.splitlines())) <= 100
    assert "\x1b" not in before


def test_a_blank_line_stands_around_each_table() -> None:
    made = table("", ["a"], [["1"]])

    assert as_text(["", made, made, "end"]).split("\n\n") == [str(made), str(made), "end"]
