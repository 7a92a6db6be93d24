"""docs/performance.md: what was measured, as tables between markers, and as plots; from the kept results alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdcompare.report import look
from gdcompare.report.look import label_log, marks
from gdcompare.report.timings import duration
from gdcompare.timing.environment import unfit
from gdcompare.writing import write_text

from .peers import NOTICED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Results = Mapping[str, Any]


def write(results: Results, folder: Path) -> list[Path]:
    """Write the plots into the folder, and the tables into the page of the same name beside it; return what is new."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder.with_suffix(".md")
    text = page.read_text(encoding="utf-8") if page.exists() else "".join(_marked(name, "") for name in PARTS)
    write_text(page, filled(text, results))
    pictures = {folder / f"{name}.svg": fill for name, fill in PLOTS.items()}
    for path, fill in pictures.items():
        with look.styled():
            figure = look.whole(look.part_of(None, 6.4, 4.8))
            fill(results, figure)
        look.write(figure, path)
    return [page, *pictures]


def filled(text: str, results: Results) -> str:
    """Return the page with its parts between markers written anew. Raises ValueError where a part has no place."""
    for name, part in PARTS.items():
        pattern = re.compile(rf"<!-- {name} -->.*?<!-- end -->\n", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"the page needs the markers <!-- {name} --> and <!-- end --> once")
        text = pattern.sub(lambda _, name=name, part=part: _marked(name, "\n".join(part(results))), text)  # type: ignore[misc]
    return text


def _marked(name: str, text: str) -> str:
    return f"<!-- {name} -->\n\n{text.strip()}\n\n<!-- end -->\n"


# What it was measured on


def _conditions(results: Results) -> Iterator[str]:
    found = results["environment"]
    machine, state = found["machine"], found["state"]
    of_frameworks = {key: value for words in found["frameworks"].values() for key, value in words.items()}
    rows = {
        "processor": f"{machine['processor']}, {machine['processors']} of them",
        "system": f"{machine['system']}, {machine['architecture']}, {machine['memory'] / 2**30:.0f} GiB",
        "threads": "1 processor for every contest, in a process of its own; busy processors are measured",
        "load": f"{state['load']:.1f} processes wanted a processor before, {state.get('load at the end', 0):.1f} after",
        "versions": ", ".join(f"{name} {number}" for name, number in (found["versions"] | found["peers"]).items()),
        "switches": ", ".join(f"{name}: {value}" for name, value in of_frameworks.items() if _is_switch(name)),
        "governor": state["governor"] or "not told by this system",
        "date": results["begun"],
    }
    yield from _table(["", ""], [[name, value] for name, value in rows.items() if value], numbers=False)
    told = unfit(found)
    if results["quick"]:
        told.append("a quick run: as few and as short turns as there may be")
    if told:
        yield "\n**This machine is not fit for timing**; figures of a few per cent are worth nothing here:\n"
        yield from (f"- {line}" for line in told)
    controls = [each["control"] for each in results["contests"].values() if each["control"]]
    off = sorted(abs(math.log(each[1])) for each in controls)
    within = sum(each <= 0.02 for each in off)
    yield (
        f"\nThe control, a contender against its twin, was off by {math.expm1(off[len(off) // 2]):.1%} in the middle "
        f"contest and by {math.expm1(off[-1]):.1%} in the worst; within 2 % in {within} of {len(off)}."
    )


def _is_switch(name: str) -> bool:
    return " " in name and "threads" not in name  # those are the contest's own


# Targets


def _targets_table(results: Results) -> Iterator[str]:
    rows = [
        [
            _work(title),
            target["ours"],
            _against(target),
            _amount(target, target["at most"]),
            _reached(target),
            verdict(target) + _doubt(results["contests"][title]),
        ]
        for title, target in _all_targets(results)
    ]
    counts = [verdict(target) for _, target in _all_targets(results)]
    met = sum(each == "met" for each in counts)
    open_ones = sum(each.startswith("not resolved") for each in counts)
    yield f"{met} of {len(counts)} are met; of {open_ones} the noise does not tell.\n"
    yield from _table(["work", "ours", "against", "at most", "measured (interval)", ""], rows, left=3)
    if any(map(_doubt, results["contests"].values())):
        yield "\n(!) there the control differed from its twin, which is noise that the interval does not know."
    missed = [
        f"- {_work(title)}, {target['ours']} ({verdict(target)}): {target['why']}."
        for title, target in _all_targets(results)
        if target["found"] and verdict(target) != "met" and target["found"][1] > target["at most"]
    ]
    if missed:
        yield "\nWhat takes the time where a figure is missed, or seems to be, by what the code does:\n"
        yield from missed


def _doubt(found: Results) -> str:
    """Return a mark where a contender was told apart from its own twin."""
    low, _, high = found["control"] or (1, 1, 1)
    return "" if low <= 1 <= high else " (!)"


def _all_targets(results: Results) -> list[tuple[str, Any]]:
    return [(title, target) for title, each in results["contests"].items() for target in each["targets"]]


def verdict(target: Results) -> str:
    """Return whether a figure is met, by how much it is missed, or that the interval holds both."""
    if target["found"] is None:
        return "no time"
    low, median, high = target["found"]
    most = target["at most"]
    if high <= most:
        return "met"
    over = f"{median / most - 1:.0%}" if median < 3 * most else f"a factor of {median / most:.1f}"
    return f"missed by {over}" if low > most else f"not resolved ({median / most:.2f} of it)"


def _against(target: Results) -> str:
    words = {"first": "its first call", "memory": "sizes of the data", "seconds": "the clock"}
    theirs = str(target["theirs"])
    return words.get(target["kind"], f"{theirs}, added" if target["kind"] == "added" else theirs)


def _amount(target: Results, value: float) -> str:
    if target["kind"] in ("ratio", "memory"):
        return f"{value:.2g}" if value < 0.095 else f"{value:.2f}"
    sign = "-" if value < 0 else ""
    return sign + duration(abs(value))


def _reached(target: Results) -> str:
    if target["found"] is None:
        return ""
    low, median, high = (_amount(target, each) for each in target["found"])
    return median if low == high else f"{median} ({low} to {high})"


def _brief(title: str) -> str:
    return re.sub(
        r"( gradients, linear regression,| gradients,|, no history|, logistic regression.*)", "", _work(title)
    )


def _work(title: str) -> str:
    return title.replace("full-batch step, n = 40, d = 2, with history: ", "full-batch step: ")


# Contests


def _contests(results: Results, kinds: Sequence[str]) -> Iterator[str]:
    for title, found in results["contests"].items():
        if found["kind"] in kinds:
            yield from _contest(title, found, _limit(results, found))


def _contest(title: str, found: Results, limit: float) -> Iterator[str]:
    errors = {name: _error(row) for name, row in found["rows"].items()}
    heads = ["", f"time of a {found['unit']}", "interval", "/ fastest", *(["error"] if any(errors.values()) else [])]
    heads += ["least error noticed"] if found["kind"] == "verdicts" else []
    rows = []
    for name, row in found["rows"].items():
        low, median, high = row["seconds"]
        cells = [
            f"**{name}**" if name in found["ours"] else name,
            duration(median),
            f"{duration(low)} to {duration(high)}",
        ]
        cells.append(_ratio(row["ratio"]))
        cells += [errors[name]] if any(errors.values()) else []
        cells += [f"{row['figures'][NOTICED]:.0e}"] if found["kind"] == "verdicts" else []
        rows.append(cells)
    rows += [[name, words.partition(":")[0], *[""] * (len(heads) - 2)] for name, words in found["failures"].items()]
    if limit:
        rows.append(["*the machine's limit*", duration(limit), *[""] * (len(heads) - 2)])
    yield f"\n### {title[:1].upper()}{title[1:]}\n"
    yield from _table(heads, rows)
    failures = [f"{name}: {words}" for name, words in found["failures"].items()]
    notes = [*failures, *_winner(found), *_together(found["warnings"])]
    yield ""
    yield from (f"- {_escaped(note)}" for note in notes)


_UNEVEN = re.compile(r"(.*) is uneven by itself: its middle turn takes (.*) times its least, another's (.*)")


def _together(warnings: Sequence[str]) -> Iterator[str]:
    """Say in one line who is uneven."""
    uneven = [match.groups() for each in warnings if (match := _UNEVEN.fullmatch(each))]
    yield from (each for each in warnings if not _UNEVEN.fullmatch(each))
    if uneven:
        listed = ", ".join(f"{name} {times}" for name, times, _ in uneven)
        yield f"uneven by themselves, their middle turn over their least: {listed}; the calmest {uneven[0][2]}"


def _winner(found: Results) -> Iterator[str]:
    """Say whether ours or another's is fastest, where that is shown."""
    rows = found["rows"]
    ours, others = ([name for name in rows if (name in found["ours"]) is mine] for mine in (True, False))
    if not (ours and others):
        return
    first, second = (ours[0], others[0]) if ours[0] == next(iter(rows)) else (others[0], ours[0])
    low, median, high = rows[second]["ratio"]
    whose = {ours[0]: f"ours, {ours[0]}", others[0]: others[0]}
    factor = f"{median:.3g} times ({low:.3g} to {high:.3g}) as long"
    if low > 1:
        yield f"{whose[first]} {'is faster' if first == ours[0] else 'wins'}: {whose[second]} takes {factor}"
    else:
        yield f"not told apart: {whose[first]} and {whose[second]}, which takes {factor}"


def _error(row: Results) -> str:
    figures = row["figures"]
    units = figures.get("error in ulps", figures.get("error in units"))
    return "" if units is None else f"{units:.2g} {'ulps' if 'error in ulps' in figures else 'u'}"


def _ratio(ratio: Sequence[float]) -> str:
    low, median, high = ratio
    if low == high == 1:
        return "1"
    words = f"{median:.2f}" if median < 100 else f"{median:.0f}"
    return words if low > 1 else f"{words} ~"


def _limit(results: Results, found: Results) -> float:
    """Return the seconds below which no program gets: its bytes and operations at the rates of this machine."""
    rates = _rates(results)
    if rates is None:
        return 0.0
    bandwidth, rate = rates
    return float(max(found["moved"] / bandwidth, found["flops"] / rate))


def _rates(results: Results) -> tuple[float, float] | None:
    """Return the most bytes and operations per second that were seen in any contest."""
    seen: dict[str, float] = {}
    for found in results["contests"].values():
        for what, rate in found["rates"].values():
            seen[what] = max(rate, seen.get(what, 0.0))
    return (seen["bytes"], seen["flops"]) if {"bytes", "flops"} <= set(seen) else None


def _machine(results: Results) -> Iterator[str]:
    rates = _rates(results)
    if rates is not None:
        bandwidth, rate = rates
        yield (
            f"On one thread this machine read up to {bandwidth / 1e9:.1f} GB/s from memory, and did up to "
            f"{rate / 1e9:.1f} GFLOP/s in a product of matrices. The limit in each table is the larger of the bytes "
            "that a call must read and write, and the operations that it must do, over these; data that lie in a cache "
            "come sooner, and nobody's operations are all products of matrices."
        )


PARTS = {
    "conditions": _conditions,
    "targets": _targets_table,
    "limits": _machine,
    "descents": lambda results: _contests(results, ["descents"]),
    "gradients": lambda results: _contests(results, ["gradients"]),
    "verdicts": lambda results: _contests(results, ["verdicts"]),
    "larger verdicts": lambda results: _contests(results, ["larger verdicts"]),
}


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, numbers: bool = True) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join('---' if place < left or not numbers else '---:' for place in range(len(heads)))}|"
    yield from (f"| {' | '.join(map(_escaped, row))} |" for row in rows)


def _escaped(words: str) -> str:
    r"""Escape what Markdown would read as its own, but not the asterisks, which are ours.

    >>> _escaped("torch[compiled]|_")
    'torch\\[compiled\\]\\|\\_'
    """
    return re.sub(r"([\\`_\[\]<>|~])", r"\\\1", words)


# Plots


def _targets(results: Results, figure: Figure) -> None:
    """Draw each figure over what it is to be: left of 1 it is met."""
    found = [(title, each) for title, each in _all_targets(results) if each["found"] and each["kind"] != "added"]
    figure.set_size_inches(10, 0.9 + 0.24 * len(found))
    axes = figure.subplots()
    colours = {"met": "#0072B2", "missed": "#D55E00", "not": "#777777"}
    for place, (_, each) in enumerate(reversed(found)):
        low, median, high = (value / each["at most"] for value in each["found"])
        word = verdict(each).partition(" ")[0]
        looks: Any = {"color": colours[word], "marker": {"met": "o", "missed": "s", "not": "D"}[word], "capsize": 2}
        axes.errorbar([median], [place], xerr=[[median - low], [high - median]], **looks)
    labels = [f"{_brief(title)}: {each['ours']} / {_against(each)}" for title, each in reversed(found)]
    axes.set_yticks(range(len(found)), labels, fontsize=8)
    axes.set(
        title="measured over what it is to be; left of the line it is met", xscale="log", ylim=(-0.7, len(found) - 0.3)
    )
    axes.axvline(1, color="#000000", linewidth=1)
    axes.grid(visible=False, axis="y")
    label_log(axes.xaxis, "{:g}".format)


def _times(kind: str, results: Results, figure: Figure) -> None:
    """Draw the times of all contests of a kind, each in a panel of its own; ours are filled, the limit is a line."""
    found = {title: each for title, each in results["contests"].items() if each["kind"] == kind and each["rows"]}
    lines = max(1, -(-len(found) // 2))
    pairs = [list(found.values())[2 * line : 2 * line + 2] for line in range(lines)]
    heights = [0.9 + 0.21 * max((len(each["rows"]) for each in pair), default=1) for pair in pairs]
    figure.set_size_inches(11, sum(heights))
    panels = list(figure.subplots(lines, 2, squeeze=False, height_ratios=heights).flat)
    for axes, (title, each) in zip(panels, found.items(), strict=False):
        _panel(axes, title, each, _limit(results, each))
    for axes in panels[len(found) :]:
        axes.set_axis_off()


def _panel(axes: Axes, title: str, found: Results, limit: float) -> None:
    names = list(found["rows"])[::-1]
    colour = {True: marks("ab")["a"].colour, False: marks("ab")["b"].colour}
    for place, name in enumerate(names):
        low, median, high = found["rows"][name]["seconds"]
        mine = name in found["ours"]
        looks: Any = {
            "color": colour[mine],
            "marker": "o" if mine else "s",
            "markerfacecolor": None if mine else "white",
        }
        axes.errorbar([median], [place], xerr=[[median - low], [high - median]], capsize=2, **looks)
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_title(_work(title), fontsize=9)
    if limit:
        axes.axvline(limit, color="#555555", linestyle=":", linewidth=1.2)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=False, which="minor")
    label_log(axes.xaxis, _round)


def _round(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= size * 0.9995:
            return f"{seconds / size:g} {unit}"
    return f"{seconds / 1e-12:g} ps"


PLOTS: Mapping[str, Callable[[Results, Figure], None]] = {
    "targets": _targets,
    "descents": partial(_times, "descents"),
    "gradients": partial(_times, "gradients"),
}
