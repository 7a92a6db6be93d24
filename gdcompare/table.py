"""A table of words and numbers, and how it is shown: as plain text, in a terminal, or as HTML in a notebook."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.table import Table as RichTable

TEXT_WIDTH = 100
"""Columns of plain text, which knows no terminal; longer words are folded."""


@dataclass(frozen=True)
class Table:
    """Strings in rows; the first `left` columns are words, flush left, the others numbers, flush right.

    >>> print(Table("Two roots", ("of", "are"), (("4", "2"), ("9", "3"))))
    Two roots
     of  are
     -------
     4     2
     9     3
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1

    def __rich__(self) -> RichTable:
        """Return what a rich console prints: as wide as that is."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        # Text, for in a plain string [/x] would be markup.
        title = Text(self.title) if self.title else None
        made = RichTable(
            title=title,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,  # a verdict's table stands in 80 columns
        )
        for index, column in enumerate(self.columns):
            made.add_column(Text(column), justify="left" if index < self.left else "right", overflow="fold")
        for row in self.rows:
            made.add_row(*map(Text, row))
        return made

    def __str__(self) -> str:
        from rich.box import Box
        from rich.console import Console

        made = self.__rich__()
        made.box = Box(str(made.box).replace("─", "-"), ascii=True)  # any encoding can hold it
        file = StringIO()
        # The same everywhere: in a terminal, in a notebook, in a file.
        console = Console(
            file=file,
            width=TEXT_WIDTH,
            color_system=None,
            force_terminal=False,
            force_jupyter=False,
            legacy_windows=False,
            _environ={},
        )
        console.print(made)
        lines = (line.rstrip() for line in file.getvalue().splitlines())
        return "\n".join(line for line in lines if line)

    def _repr_html_(self) -> str:
        return as_html([self])


Part: TypeAlias = str | Table
"""A line of words, or a table."""


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Table:
    """Return the table of these strings."""
    return Table(title, tuple(columns), tuple(map(tuple, rows)), left)


def as_text(parts: Iterable[Part]) -> str:
    """Return lines and tables as plain text, one below the other, a blank line around each table."""
    text = "\n".join(f"\n{part}\n" if isinstance(part, Table) else part for part in parts)
    return re.sub("\n{3,}", "\n\n", text).strip("\n")


# Styles stand in the elements, since a page that shows a notebook may drop a style sheet. No colour is set, only the
# page's own, so that a dark page stays legible; nothing is said by a style alone.
_CELL = "padding:2px 12px 2px 0;vertical-align:top;white-space:pre-line"
_HEAD = "border-bottom:1px solid currentColor;font-weight:bold"
_STRONG = {"wrong", "inconclusive"}


def as_html(parts: Iterable[Part]) -> str:
    """Return lines and tables as HTML that needs nothing else; what stands in them is escaped.

    >>> as_html(["<script>"])
    '<div class="tex2jax_ignore mathjax_ignore"><div style="white-space:pre-line">&lt;script&gt;</div></div>'
    """
    shown = (
        _html_table(part) if isinstance(part, Table) else f'<div style="white-space:pre-line">{escape(part)}</div>'
        for part in parts
    )
    # The classes: a dollar sign in a name begins no formula.
    return f'<div class="tex2jax_ignore mathjax_ignore">{"".join(shown)}</div>'


def _html_table(shown: Table) -> str:
    def cell(tag: str, index: int, text: str) -> str:
        align = "left" if index < shown.left else "right"
        extra = f";{_HEAD}" if tag == "th" else ";font-weight:bold" if text in _STRONG else ""
        return f'<{tag} style="text-align:{align};{_CELL}{extra}">{escape(text)}</{tag}>'

    def line(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(cell(tag, index, text) for index, text in enumerate(cells))}</tr>"

    title = f'<caption style="text-align:left;font-weight:bold">{escape(shown.title)}</caption>' if shown.title else ""
    body = "".join(line("td", row) for row in shown.rows)
    style = "border-collapse:collapse;margin:6px 0"
    return f'<table style="{style}">{title}<thead>{line("th", shown.columns)}</thead><tbody>{body}</tbody></table>'


def number(value: float, form: str = "{:.6g}") -> str:
    """Return the number in that form, or a dash for none.

    >>> number(0.25), number(float("nan"))
    ('0.25', '-')
    """
    return "-" if math.isnan(value) else form.format(value)


def vector(values: Iterable[float], most: int = 2) -> str:
    """Return the first few numbers, and how many there are if that is not all.

    >>> vector([1.0, 2.5]), vector(range(10))
    ('1, 2.5', '0, 1, ... (10)')
    """
    listed = list(values)
    shown = ", ".join(f"{value:.5g}" for value in listed[:most])
    return shown if len(listed) <= most else f"{shown}, ... ({len(listed)})"


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number of things.

    >>> count(1, "row"), count(3, "entry", "entries")
    ('1 row', '3 entries')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
