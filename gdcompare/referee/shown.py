"""How a report is shown: its entries in a line and in a table, and the words around them; one place for all.

The entries here are those of `verdict`, which shows itself with this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from gdcompare.table import Table, count, number, table


def one_line(kind: str, verdict: str, entries: int, context: Mapping[str, Any]) -> str:
    """Return a whole report in a short line.

    >>> one_line("Report", "agree", 9, {"problem": "Hinge", "data": "a line"})
    'Report(agree, 9 entries, Hinge on a line)'
    """
    subject = subject_of(context)
    return f"{kind}({', '.join([verdict, count(entries, 'entry', 'entries'), *([subject] if subject else [])])})"


def subject_of(context: Mapping[str, Any]) -> str:
    """Return what was judged, on what data; empty if the context does not say."""
    return " on ".join(" ".join(str(context[key]).split()) for key in ("problem", "data") if key in context)


def heading(context: Mapping[str, Any]) -> str:
    """Return what was judged, on what data, of what size, and how.

    >>> heading({"problem": "Hinge", "data": "a line", "n": 40, "d": 1, "dtype": "float32", "reduction": "sum"})
    'Hinge on a line: n = 40, d = 1, float32, the sum over the samples'
    """
    facts = [f"{key} = {context[key]}" for key in ("n", "d") if key in context]
    facts += [f"{count(context['blocks'], 'block')} of {context['rows']} rows"] if "blocks" in context else []
    facts += [f"{context['ranks']} ranks of {context['shards']}"] if "ranks" in context else []
    facts += ["weighted"] if context.get("weighted") else []
    facts += [context["dtype"]] if "dtype" in context else []
    facts += ["the sum over the samples"] if context.get("reduction") == "sum" else []
    facts += [context["derivative"]] if context.get("derivative", "gradient") != "gradient" else []
    facts += [context["functions"]] if "functions" in context else []
    return ": ".join(filter(None, [subject_of(context), ", ".join(facts)]))


def place(entry: Any) -> str:
    """Return the parameter of an entry, and its worst element if there are several."""
    index = f"[{', '.join(map(str, entry.worst_index))}]" if entry.worst_index else ""
    return f"{entry.parameter}{index}"


def entry_in_a_line(entry: Any) -> str:
    """Return an entry in a short line; of its cause, the beginning."""
    where = f"{entry.implementation}: {f'{entry.law}: ' if entry.law else ''}{place(entry)}"
    words = [entry.verdict, where]
    if entry.worst_index is not None:
        words += [f"{number(entry.error_ulps, '{:.3g}')} ulps", f"{number(entry.budget_fraction, '{:.2g}')} of budget"]
    if entry.cause:
        cause = " ".join(entry.cause.split())
        words.append(cause if len(cause) <= 60 else f"{cause[:57]}...")
    return f"Entry({', '.join(words)})"


def verdict_table(entries: Iterable[Any]) -> Table:
    """Return the entries, one a row: the worst element, its error in ulps, its share of the budget.

    Where there are laws, their names instead of ulps and detection power, which belong to gradients. Digits with a star
    are checked by sampled rounding, not by the worst case.
    """
    entries = list(entries)
    if any(entry.law for entry in entries):
        columns = ["backend", "law", "parameter", "verdict", "of budget", "digits"]
        rows = [
            (
                each.implementation,
                each.law,
                place(each),
                each.verdict,
                number(each.budget_fraction, "{:.2g}"),
                digits(each),
            )
            for each in entries
        ]
        return table("", columns, rows, left=4)
    columns = ["backend", "parameter", "verdict", "ulps", "of budget", "detectable", "digits"]
    figures = [
        (
            number(each.error_ulps, "{:.3g}"),
            number(each.budget_fraction, "{:.2g}"),
            number(each.detectable, "{:.0e}"),
            digits(each),
        )
        for each in entries
    ]
    words = [(each.implementation, place(each), each.verdict) for each in entries]
    return table("", columns, [(*one, *other) for one, other in zip(words, figures, strict=True)], left=3)


def digits(entry: Any) -> str:
    """Return how many digits were checked, with a star where by sampled rounding."""
    return f"{entry.digits}{'*' if entry.grade == 'sampled' else ''}"


def causes(entries: Iterable[Any]) -> list[str]:
    """Return a line for each entry that has a cause, or that does not agree.

    Of laws, one for all neighbours that have a cause in common.
    """
    said = [entry for entry in entries if entry.cause or entry.verdict != "agree"]
    lines = []
    for (of_laws, cause), alike in groupby(said, lambda each: (bool(each.law), each.cause)):
        same = list(alike)
        for some in [same] if of_laws and cause else [[each] for each in same]:
            entry, others = some[0], f" and {count(len(some) - 1, 'other')}" if len(some) > 1 else ""
            who = ", ".join(dict.fromkeys(each.implementation for each in some))
            values = f"; actual {entry.actual!r}, expected {entry.expected!r}" if entry.worst_index is not None else ""
            lines.append(f"{who}: {place(entry)}{others}: {cause or entry.verdict}{values}")
    return lines
