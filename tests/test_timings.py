"""Times as tables and pictures: what is not known is not shown, and what is not shown to differ is not called so."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gdcompare.report.look import checked_format, marks
from gdcompare.report.timing_plots import plot
from gdcompare.report.timings import cells, conditions, latex, markdown, shown, timings_of
from gdcompare.timing.alone import Alone
from gdcompare.timing.blocks import Block
from gdcompare.timing.failure import Failure
from gdcompare.timing.result import Race
from gdcompare.timing.runs import Run

BLOCKS = 30


def race(times: Mapping[str, Any], n: int = 40, what: str = "gradient", failures: Any = None) -> Race:
    """Return a race in which every block took each contender exactly so long, or alternately so and so long."""
    names = [*times]
    every = [*names, f"{names[0]}, again"]
    blocks = []
    for place in range(BLOCKS):
        now = {name: each if isinstance(each, float) else each[place % 2] for name, each in times.items()}
        now[every[-1]] = now[names[0]]
        blocks.append(Block([every], {name: [now[name]] for name in every}, dict.fromkeys(every, 1.0), 1e-8))
    facts = {"problem": "Line", "what": what, "n": n, "d": 1, "dtype": "float64"}
    failures = failures or {}
    return Race(
        (*names, *failures),
        names[0],
        dict.fromkeys([*names, *failures], facts),
        None,
        0.95,
        0,
        0.005,
        dict.fromkeys(every, 1),
        tuple(blocks),
        failures,
        {name: {"error in ulps": 1.5, "digits": 15.0} for name in names},
        ended="precise",
    )


ENVIRONMENT = {
    "machine": {"processor": "a processor", "processors": 2, "system": "Linux"},
    "versions": {"python": "CPython 3.11", "numpy": "2.4"},
    "frameworks": {"numpy": {"numpy": "2.4"}},
}


def run_of(*races: Race) -> Run:
    run = Run(ENVIRONMENT)
    for each in races:
        facts = next(iter(each.facts.values()))
        run = run.with_race(f"{facts['what']}, n = {facts['n']}", each)
    return run


def rows_of(run: Run, place: int = 0) -> dict[str, dict[str, str]]:
    heads, rows = cells(timings_of(run)[place])
    return {row[0]: dict(zip(heads[1:], row[1:], strict=True)) for row in rows}


def test_a_table_says_how_long_how_surely_and_how_many_times_the_fastest() -> None:
    rows = rows_of(run_of(race({"a": 2e-6, "b": 1e-6})))

    assert list(rows) == ["b", "a"]
    assert rows["a"] == {"time": "2.00 µs", "±": "0.0%", "/ best": "2.00", "ulps": "1.5", "digits": "15.0"}
    assert rows["b"]["/ best"] == "1"


def test_what_is_not_told_apart_is_marked_and_nobody_is_called_fastest() -> None:
    found = timings_of(run_of(race({"a": (1.0e-6, 1.1e-6), "b": (1.1e-6, 1.0e-6)})))[0]

    assert "~" in cells(found)[1][1][3]
    assert any(note.startswith("no difference resolved between ") for note in found.notes)
    assert any("would have been" in note for note in found.notes)
    assert not any(note.startswith("fastest: ") for note in found.notes)


def test_a_leader_that_is_shown_is_named_with_its_lead() -> None:
    found = timings_of(run_of(race({"a": 2e-6, "b": 1e-6, "c": 3e-6})))[0]

    assert found.notes[0] == "fastest: b; the next, a, takes 2 times (2 to 2) as long"


def test_times_are_set_beside_those_of_the_loss_at_the_same_size() -> None:
    run = run_of(race({"a": 1e-6}, what="loss"), race({"a": 3e-6}), race({"a": 5e-6}, n=80))

    assert rows_of(run, 1)["a"]["/ loss"] == "3.00"
    assert "/ loss" not in rows_of(run, 2)["a"]


def test_who_has_no_time_has_a_reason() -> None:
    run = run_of(race({"a": 1e-6}, failures={"b [/x]": Failure("wrong", "w is 1, not 2")}))
    run = run.with_alone("gradient, n = 40", "c", Failure("out of memory", "killed"))
    run = run.with_alone("gradient, n = 40", "a", Alone(0.5, 1e-6, 1e-6, 0, 10**6, 4 * 10**6))

    rows = rows_of(run)

    assert rows["a"]["first"] == "500 ms"
    assert rows["a"]["memory"] == "3.00 MB"
    assert rows["b [/x]"]["time"] == "wrong"
    assert rows["c"]["time"] == "out of memory"
    assert {"b [/x]: wrong: w is 1, not 2", "c: out of memory: killed"} <= {*timings_of(run)[0].notes}
    assert "b [/x]" in str(shown(timings_of(run)[0]))


def test_where_nobody_has_a_time_the_reasons_are_left() -> None:
    run = Run(ENVIRONMENT).with_alone("gradient", "a", Failure("error", "no [/idea]"))

    assert rows_of(run) == {"a": {"time": "error"}}


def test_where_nobody_has_a_time_there_is_no_picture() -> None:
    pytest.importorskip("matplotlib", reason="it draws")
    run = Run(ENVIRONMENT).with_alone("gradient", "a", Failure("error", "no"))

    with pytest.raises(ValueError, match="nobody has one"):
        plot(run, "x.svg")


def test_where_nobody_was_right_nobody_is_compared() -> None:
    fallen = {"a": Failure("wrong", "w is 1, not 2"), "b": Failure("error", "no")}
    none = replace(race({"a": 1e-6}), contenders=("a", "b"), failures=fallen, blocks=())

    found = timings_of(run_of(none))[0]

    assert found.notes == ("a: wrong: w is 1, not 2", "b: error: no")
    assert found.timed == []


def test_markdown_and_latex_hold_the_same_cells() -> None:
    run = run_of(race({"torch[x]_1": 2e-6, "b": 1e-6}))

    in_markdown, in_latex = markdown(run), latex(run)

    assert r"| torch\[x\]\_1 | 2.00 µs | 0.0% | 2.00 | 1.5 | 15.0 |" in in_markdown
    assert r"torch[x]\_1 & 2.00 \textmu{}s & 0.0\% & 2.00 & 1.5 & 15.0 \\" in in_latex
    assert in_latex.count("{") == in_latex.count("}")
    for text in (in_markdown, in_latex):
        assert "a processor, 2 processors; Linux; CPython 3.11; numpy 2.4" in text
    assert conditions(run) in in_markdown


def test_titles_choose_tables() -> None:
    run = run_of(race({"a": 1e-6}, what="loss"), race({"a": 3e-6}))

    assert markdown(run, ["gradient, n = 40"]).count("| a |") == 1


@pytest.mark.thorough
@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
@pytest.mark.parametrize("sizes", [(40,), (40, 1000, 100_000), (1, 2, 3, 5, 8, 13, 21)])
def test_pictures_are_drawn_in_every_format(ending: str, sizes: tuple[int, ...], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="it draws")
    run = run_of(*(race({"a": n * 1e-8, "b[x]": (n * 2e-8, n * 3e-8), "c_$": 1e-5}, n) for n in sizes))

    plot(run, tmp_path / f"x.{ending}")

    content = (tmp_path / f"x.{ending}").read_bytes()
    assert content.startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[ending])
    if ending == "png":
        width, height = struct.unpack(">II", content[16:24])
        assert width > 1000
        assert height > 300


@pytest.mark.thorough
def test_the_same_times_make_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="it draws")
    run = run_of(race({"a": 1e-6, "b": 2e-6}))

    for name in ("one.svg", "two.svg"):
        plot(run, tmp_path / name)

    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_every_line_differs_from_the_next_ones_also_without_colour() -> None:
    found = list(marks(map(str, range(9))).values())

    assert len({each.marker for each in found}) == 9
    assert len({(each.colour, each.marker) for each in found}) == 9


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^'x.gif' is no .svg, .png or .pdf file$"):
        checked_format("x.gif")
