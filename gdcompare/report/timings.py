"""Times as a table: in a terminal, for a README, for a paper; and what may be said of them, in lines below it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gdcompare.table import Table, table
from gdcompare.timing.alone import Alone
from gdcompare.timing.failure import Failure
from gdcompare.timing.intervals import Interval
from gdcompare.timing.replicates import Replicates
from gdcompare.timing.runs import Run, Section


@dataclass(frozen=True)
class Row:
    """What is known of one contender at one piece of work."""

    name: str
    time: Interval | None = None
    """Seconds a call; None for whoever has none."""
    ratio: Interval | None = None
    """Times the time of the fastest."""
    to_loss: float = math.nan
    """Times its own loss alone: the ratio of two medians."""
    ulps: float = math.nan
    digits: float = math.nan
    first: float = math.nan
    """Seconds of the first call in a fresh process."""
    memory: float = math.nan
    """Bytes of work and answer at their most, beyond the inputs."""
    failure: Failure | None = None
    remark: str = ""


@dataclass(frozen=True)
class Timings:
    """One piece of work: its title, who did it, fastest first, and what else is to be said."""

    title: str
    facts: Mapping[str, Any]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def timed(self) -> list[Row]:
        """Whoever has a time."""
        return [row for row in self.rows if row.time is not None]


def timings_of(run: Run, titles: Collection[str] | None = None) -> list[Timings]:
    """Return what a run found, work by work; of all, or of these titles."""
    losses = {
        _key(section): {name: Replicates(section.races).time(name).median for name in Replicates(section.races).names}
        for section in run.sections.values()
        if _facts(section).get("what") == "loss" and section.races
    }
    return [
        _timings(title, section, losses.get(_key(section), {}))
        for title, section in run.sections.items()
        if (section.races or section.alone) and (titles is None or title in titles)
    ]


def _timings(title: str, section: Section, losses: Mapping[str, float]) -> Timings:
    failures = {name: each for name, each in section.alone.items() if isinstance(each, Failure)}
    if not section.races:
        none = tuple(Row(name, failure=failure) for name, failure in failures.items())
        return Timings(title, {}, none, tuple(f"{row.name}: {row.failure}" for row in none))
    races, facts = Replicates(section.races), _facts(section)
    timed = sorted(races.names, key=lambda name: races.time(name).median)
    compares_to_loss = facts.get("what") in ("gradient", "per-sample", "hvp")
    rows = []
    for name in timed:
        alone, figures = section.alone.get(name), [race.figures.get(name, {}) for race in section.races]
        measured = alone if isinstance(alone, Alone) else None
        time = races.time(name)
        rows.append(
            Row(
                name,
                time,
                races.ratio(name),
                time.median / losses[name] if compares_to_loss and name in losses else math.nan,
                max((each.get("error in ulps", math.nan) for each in figures), default=math.nan),
                min((each.get("digits", math.nan) for each in figures), default=math.nan),
                measured.first if measured else math.nan,
                measured.peak_above_inputs if measured else math.nan,
                remark=next(filter(None, (race.judged.get(name, "") for race in section.races)), ""),
            )
        )
    for race in section.races:
        failures = {**race.failures, **failures}
    rows += [Row(name, failure=failure) for name, failure in failures.items() if name not in timed]
    return Timings(title, facts, tuple(rows), tuple(_notes(section, races, rows)))


def _notes(section: Section, races: Replicates, rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.failure is not None:
            yield f"{row.name}: {row.failure}"
        elif row.remark:
            yield f"{row.name}: {row.remark}"
    if len(races.names) > 1:
        ranking = section.races[0].ranking()
        winner = races.winner()
        if winner is not None and ranking.runner_up is not None:
            lead = races.ratio(ranking.runner_up, winner)
            yield f"fastest: {winner}; the next, {ranking.runner_up}, takes {_factor(lead)} as long"
        else:
            yield f"no difference resolved between {_listed([ranking.leader, *ranking.unresolved])}"
        blind = [row for row in rows if row.ratio is not None and row.name != races.base and not row.ratio.resolved]
        if blind:
            widest = max(row.ratio.noticeable for row in blind if row.ratio is not None)
            size = f"a difference of {widest:.1%}" if widest < 1 else f"a factor of {1 + widest:.1f}"
            yield f"~ not told apart from the fastest; {size} would have been"
    if any(race.ended == "interrupted" for race in section.races):
        yield f"interrupted after {sum(len(race.blocks) for race in section.races)} blocks"
    if races.names:
        yield from races.warnings()


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _factor(ratio: Interval) -> str:
    return f"{ratio.median:.4g} times ({ratio.low:.4g} to {ratio.high:.4g})"


def _facts(section: Section) -> Mapping[str, Any]:
    return next(iter(section.races[0].facts.values()), {}) if section.races else {}


def _key(section: Section) -> tuple[Any, ...]:
    facts = _facts(section)
    return tuple(facts.get(name) for name in ("problem", "n", "d", "dtype", "device"))


# Cells

_COLUMNS = {
    "time": "time",
    "interval": "±",
    "ratio": "/ best",
    "to_loss": "/ loss",
    "ulps": "ulps",
    "digits": "digits",
    "first": "first",
    "memory": "memory",
}


def cells(found: Timings) -> tuple[list[str], list[list[str]]]:
    """Return the heads of the columns that hold anything, and the rows."""
    rows = [_cells(row) for row in found.rows]
    kept = [key for key in _COLUMNS if any(row[key] for row in rows)] or ["time"]
    return ["", *(_COLUMNS[key] for key in kept)], [
        [row.name, *(each[key] for key in kept)] for row, each in zip(found.rows, rows, strict=True)
    ]


def _cells(row: Row) -> dict[str, str]:
    if row.time is None:
        return {**dict.fromkeys(_COLUMNS, ""), "time": row.failure.kind if row.failure else ""}
    assert row.ratio is not None  # whoever has a time has a ratio
    same = row.ratio.low == row.ratio.high == 1
    blind = "inconclusive" in row.remark
    return {
        "time": duration(row.time.median),
        "interval": _share(row.time.half_width),
        "ratio": "1" if same else f"{_short(row.ratio.median)}{'' if row.ratio.resolved else ' ~'}",
        "to_loss": _number(row.to_loss, _short),
        "ulps": "?"
        if blind
        else _number(row.ulps, lambda x: f"{x:.1f}" if x < 100 else f"{x:.0f}" if x < 1e5 else f"{x:.0e}"),
        "digits": "?" if blind else _number(row.digits, lambda x: f"{x:.1f}"),
        "first": _number(row.first, duration),
        "memory": _number(row.memory, size),
    }


def _number(value: float, form: Any) -> str:
    return "" if math.isnan(value) else str(form(value))


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"


_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    >>> [duration(each) for each in (1.5, 0.0123, 4.56e-5, 7.8e-8)]
    ['1.50 s', '12.3 ms', '45.6 µs', '78.0 ns']
    """
    unit, each = _unit(seconds)
    return f"{_three_digits(seconds / each)} {unit}"


def _unit(seconds: float) -> tuple[str, float]:
    return next((known for known in _UNITS if seconds >= known[1] * 0.9995), _UNITS[-1])


def _share(half_width: float) -> str:
    """Return the half-width of an interval, which is not always symmetric, as a share of its middle."""
    return f"{half_width:.1%}" if half_width < 0.0995 else f"{half_width:.0%}" if half_width < 10 else "?"


def size(number: float) -> str:
    """Return bytes in the unit that suits them; what is less than a tenth of a megabyte is not told apart.

    >>> [size(each) for each in (2.5e9, 3.2e6, 4096)]
    ['2.50 GB', '3.20 MB', '< 0.1 MB']
    """
    if number >= 1e9:
        return f"{_three_digits(number / 1e9)} GB"
    return f"{_three_digits(number / 1e6)} MB" if number >= 1e5 else "< 0.1 MB"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


# Forms


def shown(found: Timings) -> Table:
    """Return the table for a terminal."""
    heads, rows = cells(found)
    return table(found.title, heads, rows)


def markdown(run: Run, titles: Collection[str] | None = None) -> str:
    """Return the tables, or those of these titles, in Markdown, with their notes and what they were measured on."""
    return "\n".join(_markdown(found) for found in timings_of(run, titles)) + f"\n{conditions(run)}\n"


def _markdown(found: Timings) -> str:
    heads, rows = cells(found)
    lines = [f"**{found.title}**", "", f"| {' | '.join(heads)} |", f"|---{'|---:' * (len(heads) - 1)}|"]
    lines += [f"| {' | '.join(map(_in_markdown, row))} |" for row in rows]
    notes = [f"- {_in_markdown(note)}" for note in found.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes, ""])


def _in_markdown(words: str) -> str:
    r"""Escape what Markdown would read as its own.

    >>> _in_markdown("torch[compiled] ~ a|b")
    'torch\\[compiled\\] ~ a\\|b'
    """
    return "".join(f"\\{each}" if each in "\\`*_[]<>|" else each for each in words)


def latex(run: Run, titles: Collection[str] | None = None) -> str:
    """Return the tables, or those of these titles, in LaTeX, for the package booktabs."""
    return "\n".join(_latex(found) for found in timings_of(run, titles)) + f"% {conditions(run)}\n"


def _latex(found: Timings) -> str:
    heads, rows = cells(found)
    body = [" & ".join(map(_in_latex, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_in_latex(found.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(map(_in_latex, heads)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {_in_latex(note)}" for note in found.notes),
            r"\end{table}",
            "",
        ]
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"$\sim$",
    "^": r"\textasciicircum{}",
    "µ": r"\textmu{}",
    "±": r"\textpm{}",
    "<": "$<$",
    ">": "$>$",
    **{each: f"\\{each}" for each in "&%$#_{}"},
}


def _in_latex(words: str) -> str:
    r"""Escape what LaTeX would read as its own.

    >>> _in_latex("12 µs, 3 % of my_own")
    '12 \\textmu{}s, 3 \\% of my\\_own'
    """
    return "".join(_LATEX.get(each, each) for each in words)


def conditions(run: Run) -> str:
    """Return in a line what the times were measured on."""
    found = run.environment
    machine, versions = found.get("machine", {}), found.get("versions", {})
    used = {key for words in found.get("frameworks", {}).values() for key in words if key in versions}
    words = [
        f"{machine.get('processor', 'unknown processor')}, {machine.get('processors', '?')} processors",
        str(machine.get("system", "")),
        str(versions.get("python", "")),
        *(f"{name} {versions[name]}" for name in sorted(used)),
        run.begun[:10],
    ]
    return "; ".join(filter(None, words))
