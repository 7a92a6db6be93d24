"""docs/performance.md is what the command writes of the results that are kept: its structure, and no times."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from . import by_hand, peers
from .checked import gradient_case
from .contests import CONTESTS, _ready
from .page import PARTS, PLOTS, _winner, filled, verdict, write

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


@pytest.fixture
def results() -> Any:
    return json.loads((ROOT / "docs" / "performance" / "results.json").read_text(encoding="utf-8"))


def test_the_page_is_what_the_kept_results_say(results: Any) -> None:
    assert filled(PAGE, results) == PAGE


def test_a_figure_that_is_changed_by_hand_is_seen(results: Any) -> None:
    other = copy.deepcopy(results)
    row = next(iter(other["contests"]["the seam: loss and gradient, 40 x 2"]["rows"].values()))
    row["seconds"] = [10 * each for each in row["seconds"]]

    assert filled(PAGE, other) != PAGE


def test_the_results_are_of_all_contests_and_contenders(results: Any) -> None:
    assert list(results["contests"]) == list(CONTESTS)
    assert not results["quick"]
    for title, contest in CONTESTS.items():
        found = results["contests"][title]
        assert {*found["rows"], *found["failures"]} == set(contest.entries)
        assert [each["at most"] for each in found["targets"]] == [each.at_most for each in contest.targets]
        assert all(each.why for each in contest.targets)


def test_nobody_is_timed_unjudged(results: Any) -> None:
    rows = [row for each in results["contests"].values() for row in each["rows"].values()]

    assert rows
    assert "not judged" not in {row["judged"] for row in rows}


@pytest.mark.parametrize("name", PLOTS)
def test_the_plots_are_there_and_shown(name: str) -> None:
    assert (ROOT / "docs" / "performance" / f"{name}.svg").exists()
    assert f"(performance/{name}.svg)" in PAGE


def test_the_command_writes_page_and_plots_anew(results: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")

    page, *plots = write(results, tmp_path / "performance")

    text = page.read_text(encoding="utf-8")
    assert filled(text, results) == text
    assert [text.count(f"<!-- {name} -->") for name in PARTS] == [1] * len(PARTS)
    first = [plot.read_bytes() for plot in plots]
    assert len(first) == len(PLOTS)
    write(results, tmp_path / "performance")
    assert [plot.read_bytes() for plot in plots] == first


def test_a_page_without_markers_is_refused(results: Any) -> None:
    with pytest.raises(ValueError, match="needs the markers <!-- conditions -->"):
        filled("# A page\n", results)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([0.8, 0.9, 1.0], "met"),
        ([1.1, 1.25, 1.4], "missed by 25%"),
        ([3, 4, 5], "missed by a factor of 4.0"),
        ([0.9, 1.1, 1.3], "not resolved (1.10 of it)"),
        (None, "no time"),
    ],
)
def test_a_figure_is_met_or_missed_only_where_its_interval_says_so(found: Any, words: str) -> None:
    assert verdict({"found": found, "at most": 1.0}) == words


@pytest.mark.parametrize(
    ("fastest", "ratio", "words"),
    [
        ("mine", [1.1, 1.2, 1.3], "ours, mine is faster: theirs takes 1.2 times (1.1 to 1.3) as long"),
        ("theirs", [1.1, 1.2, 1.3], "theirs wins: ours, mine takes 1.2 times (1.1 to 1.3) as long"),
        ("mine", [0.9, 1.2, 1.3], "not told apart: ours, mine and theirs, which takes 1.2 times (0.9 to 1.3) as long"),
    ],
)
def test_a_winner_is_named_only_where_its_lead_is_shown(fastest: str, ratio: list[float], words: str) -> None:
    other = "theirs" if fastest == "mine" else "mine"
    rows = {fastest: {"ratio": [1, 1, 1]}, other: {"ratio": ratio}}

    assert list(_winner({"rows": rows, "ours": ["mine"]})) == [words]


def test_a_peer_that_is_not_installed_fails_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)

    missing = _ready("Opacus", lambda: peers.peer("opacus"))

    with pytest.raises(peers.MissingPeerError, match=r"opacus is not installed: pip install 'gdcompare\[peers\]'"):
        missing.call()


def test_rows_of_a_peer_that_forgets_its_mean_are_wrong() -> None:
    case = gradient_case("linear-regression", 40, 2)
    right = by_hand.numpy_per_sample(case)
    network: Any = type("Network", (), {"convert": staticmethod(lambda rows: rows)})

    assert peers.judged_linear("peer", case, network, right).judge(right())
    with pytest.raises(AssertionError, match="theta_0 is off by"):
        peers.judged_linear("peer", case, network, right).judge({key: each / 40 for key, each in right().items()})
