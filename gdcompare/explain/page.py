"""An explanation as one page of HTML that needs nothing else: no script, no network; what stands in it is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from gdcompare.backend import Trace
from gdcompare.explain.example import BY_HAND, FORMULAS, INTRODUCTION, equations, sources
from gdcompare.table import Table

# Okabe and Ito's colours, which all eyes can tell apart; the letter says it without them.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#b79bff", "#d55e00", "#cc79a7", "#b0b0b0")

STYLE = """
.gx { font: 15px/1.45 system-ui, sans-serif; max-width: 110rem; margin: 0 auto; color: #1b1b1b; background: #fff }
.gx h1 { font-size: 1.5em; margin: 0 0 .4em }
.gx h2 { font-size: 1.1em; margin: 1.4em 0 .3em }
.gx h2 small { font-weight: normal; color: #555 }
.gx h3 { font: 600 13px ui-monospace, Consolas, monospace; margin: .8em 0 .2em }
.gx p { margin: .2em 0 .4em; max-width: 60rem }
.gx pre { font: 13px/1.45 ui-monospace, Consolas, monospace; margin: .3em 0; white-space: pre-wrap }
.gx pre.eq { background: #f4f4f2; padding: .6em .8em; border-radius: 4px }
.gx .cols { display: grid; gap: 0 2.5em; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)) }
.gx section { min-width: 0; overflow-x: auto }
.gx .small { display: flex; flex-wrap: wrap; gap: 0 3em }
.gx table { border-collapse: collapse; font-size: 13px; margin: .3em 0 }
.gx td, .gx th { text-align: left; padding: 2px 12px 2px 0; vertical-align: top; font-variant-numeric: tabular-nums }
.gx th { border-bottom: 1px solid #777; font-weight: 600 }
.gx tr:hover td { background: #f4f4f2 }
.gx tr:target td { background: #fff0a8 }
.gx td.op, .gx td.from { color: #555 }
.gx a { color: inherit }
.gx a.m { display: inline-block; min-width: 1.1em; padding: 0 .3em; border-radius: 3px; text-align: center;
  font-weight: 700; color: #000; text-decoration: none }
.gx a.m:hover, .gx a.m:focus { outline: 2px solid currentColor }
@media (prefers-color-scheme: dark) {
  .gx { color: #e8e8e8; background: #161616 }
  .gx pre.eq, .gx tr:hover td { background: #262626 }
  .gx tr:target td { background: #4a4413 }
  .gx h2 small, .gx td.op, .gx td.from { color: #aaa }
}
@media print {
  .gx { color: #000; background: #fff }
  .gx .cols { display: block }
  .gx section { break-inside: avoid; overflow: visible }
}
"""


def page(explanation: Any) -> str:
    """Return the whole page."""
    title = escape(f"{type(explanation.case.problem).__name__}: one gradient, every way")
    dark = "@media (prefers-color-scheme: dark) { html { background: #161616 } }"
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{title}</title><style>body {{ margin: 1.5rem }} {dark}</style>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body(explanation)}</body></html>\n'


def body(explanation: Any) -> str:
    """Return what stands on the page, for a notebook, too."""
    case, problem = explanation.case, explanation.case.problem
    name = type(problem).__name__
    parts = [f"<h1>{escape(name)}: one gradient, worked out in every way on {len(case.data)} samples</h1>"]
    if text := equations(problem):
        parts.append(f'<pre class="eq">{escape(text)}</pre>')
    formulas = []
    for title, functions in FORMULAS.items():
        written = sources(problem, *functions)
        lines = [
            f"<h3>{escape(each.name)}, in {escape(each.file)}</h3>"
            + (f"<p>{escape(each.about)}</p>" if title == BY_HAND and each.about else "")
            + f"<pre>{escape(each.code)}</pre>"
            for each in written
        ]
        formulas += [f"<section><h2>{escape(title)}</h2>{''.join(lines)}</section>"] if written else []
    parts.append(f'<div class="cols">{"".join(formulas)}</div>')
    tables = (explanation.samples_table(), explanation.parameters_table())
    parts.append(f'<div class="small">{"".join(map(_titled, tables))}</div>')
    parts += [f"<p>{escape(line)}</p>" for line in explanation.bends()]
    parts.append(f"<h2>The same derivative, wherever it arises</h2><p>{escape(INTRODUCTION)}</p>")
    parts.append(f"<section>{_marks(explanation)}</section>")
    parts.append(f'<div class="cols">{"".join(_program(explanation, trace) for trace in explanation.traces)}</div>')
    parts.append(_titled(explanation.gradients_table()))
    parts += [f"<p>left out: {escape(line)}</p>" for line in explanation.left_out]
    return f'<div class="gx tex2jax_ignore mathjax_ignore"><style>{STYLE}{_colours()}</style>{"".join(parts)}</div>'


def _marks(explanation: Any) -> str:
    shown = explanation.marks_table()
    rows = []
    for mark, (_, of, value, *_places) in zip(explanation.marks, shown.rows, strict=True):
        cells = [_chip(mark.letter), escape(of), escape(value)]
        for trace in explanation.traces:
            links = (
                f'<a href="#{_id(trace, step)}">{escape(step)}</a>{f" &times; {factor}" if factor != 1 else ""}'
                for step, factor in mark.found.get(trace.name, ())
            )
            cells.append(", ".join(links))
        rows.append(f'<tr id="mark-{mark.letter}">{_cells(cells)}</tr>')
    return _table(map(escape, shown.columns), rows)


def _program(explanation: Any, trace: Trace) -> str:
    shown = explanation.steps_table(trace)
    rows = []
    for step, cells in zip(trace.steps, shown.rows, strict=True):
        name, operation, inputs, *numbers = map(_chipped, map(escape, cells))
        written = f'<td>{name}</td><td class="op">{operation}</td><td class="from">{inputs}</td>{_cells(numbers)}'
        rows.append(f'<tr id="{_id(trace, step.name)}">{written}</tr>')
    title = f"<h2>{escape(trace.name)} <small>{escape(trace.title)}</small></h2>"
    return f"<section>{title}{_table(map(escape, shown.columns), rows)}</section>"


def _titled(shown: Table) -> str:
    rows = (f"<tr>{_cells([escape(cell).replace(chr(10), '<br>') for cell in row])}</tr>" for row in shown.rows)
    columns = (escape(column).replace("\n", "<br>") for column in shown.columns)
    return f"<section><h2>{escape(shown.title)}</h2>{_table(columns, rows)}</section>"


def _table(columns: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cells(cells: Sequence[str]) -> str:
    return "".join(f"<td>{cell}</td>" for cell in cells)


def _chipped(cell: str) -> str:
    """Write the mark that a cell begins with as a chip."""
    return re.sub(r"^\[(\d+ )?([A-Z])\]", lambda found: f"{found[1] or ''}{_chip(found[2])}", cell)


def _chip(letter: str) -> str:
    return f'<a class="m m{letter}" href="#mark-{letter}">{letter}</a>'


def _id(trace: Trace, step: str) -> str:
    """Return the anchor of a step, whatever its name.

    >>> _id(Trace("each sample", "", []), "theta_0"), _id(Trace("a", "", []), "<x>")
    ('each-sample--theta_0', 'a--_3c_x_3e_')
    """
    named = f"{trace.name}--{step}".replace(" ", "-")
    return re.sub(r"[^\w-]", lambda found: f"_{ord(found[0]):x}_", named)


def _colours() -> str:
    letters = (chr(ord("A") + i) for i in range(26))
    return "".join(f".gx a.m{letter}{{background:{COLOURS[i % len(COLOURS)]}}}" for i, letter in enumerate(letters))
