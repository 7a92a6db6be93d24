"""An audit as a page of its own, and as Markdown: findings with their scripts, and every reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from gdcompare.audit.results import COLUMNS, FINDINGS, ORDER, Audit, Row, cells
from gdcompare.table import count, number, table

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:2rem auto;padding:0 1rem}"
    "pre{background:#8881;padding:.6rem;overflow:auto}summary{cursor:pointer}table{font-size:13px}"
    ":root{color-scheme:light dark}"
)


def as_page(found: Audit) -> str:
    """Return one file of HTML that needs nothing else: findings, each with its script, then all rows and reasons."""
    parts = [f"<h1>An audit of {escape(found.framework)}</h1>"]
    parts += [f"<p>{escape(line)}</p>" for line in _facts(found)]
    parts.append("<h2>Findings</h2>")
    for row in found.of(*FINDINGS, "raises"):
        head = " · ".join(filter(None, cells(row)[:4]))
        figures = _figures(row)
        script = f"<pre>{escape(row.script)}</pre>" if row.script else ""
        parts.append(f"<details><summary>{escape(head)}</summary><p>{escape(figures)}</p>{script}</details>")
    parts.append("<h2>All rows</h2>")
    shown = table("", COLUMNS, map(cells, found.of()), left=4)
    parts.append(shown._repr_html_())
    parts.append("<h2>What was not judged</h2>")
    for reason, names in found.reasons().items():
        parts.append(f"<p><b>{escape(reason)}</b> ({len(names)}): {escape(', '.join(names))}</p>")
    body = "\n".join(parts)
    title = f"An audit of {escape(found.framework)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def as_markdown(found: Audit, upstream: Callable[[Row], str] = lambda _: "", level: int = 2, asked: str = "") -> str:
    """Return the findings as Markdown: a table of the worst of each operation, then a script for each.

    `upstream` says of a finding where it is reported, and `asked` how far the audit has come.
    """
    heading = "#" * level
    lines = [f"{heading} {found.framework}", "", *_bulleted([*_facts(found), asked]), ""]
    worst = worst_of_each(found)
    if worst:
        lines += [
            "| operation | route | at | | found | true | digits | reported |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_line(row, upstream(row)) for row in worst]
        lines.append("")
    for row in worst:
        if row.script:
            title = f"{row.operation}, {row.route}, {row.dtype}: {_figures(row)}"
            lines += [f"{heading}# {row.operation}", "", title, "", "```python", row.script.rstrip(), "```", ""]
    lines += [f"{heading}# Not judged", ""]
    for reason, names in found.reasons().items():
        lines.append(f"* {reason or 'no reason is known'} ({len(names)}): {', '.join(names)}")
    return "\n".join(lines).rstrip() + "\n"


def worst_of_each(found: Audit) -> list[Row]:
    """Return the worst finding of each operation, reverse and forward apart from second order."""
    kept: dict[tuple[str, bool], Row] = {}
    for row in found.of(*FINDINGS):
        kept.setdefault((row.operation, is_second(row)), row)
    return list(kept.values())


def is_second(row: Row) -> bool:
    """Whether a row is about second derivatives."""
    return "twice" in row.route or " over " in row.route


def _facts(found: Audit) -> Sequence[str]:
    environment = ", ".join(f"{name} {value}" for name, value in found.environment.items())
    tally = {status: len({row.operation for row in found.of(status)}) for status in ORDER}
    listed = ", ".join(f"{status} {many}" for status, many in tally.items() if many)
    run = [row.shown for row in found.of(*FINDINGS) if row.script]
    scripts = f"{count(len(run), 'script')} of findings, each run; {sum(map(bool, run))} showed what the row says"
    return [environment, *found.closing(), f"operations with such rows: {listed or 'none'}", scripts]


def _figures(row: Row) -> str:
    return (
        f"found {number(row.found, '{!r}') if row.found == row.found else 'nan'}, true {row.expected!r}; "
        f"{number(row.correct, '{:.1f}')} of {number(row.attainable, '{:.1f}')} digits; {row.reason}"
    )


def _line(row: Row, reported: str) -> str:
    figures = (*cells(row), reported)
    return f"| {' | '.join(each.replace('|', chr(92) + '|') for each in figures)} |"


def _bulleted(lines: Sequence[str]) -> list[str]:
    return [f"* {line}" for line in lines if line]
