"""Rows and what is made of them: order, shares, files, pages."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gdcompare.audit.page import as_markdown, as_page, worst_of_each
from gdcompare.audit.results import Audit, Outcome, Row, load

LOST = Row("tanh", "tails", "float64", "reverse", "lost", 0.0, 14.4, 0.0, 1.7e-17, 0.1, "x", "x = 20", "", "found = 1")
WRONG = Row("<f>", "zero", "float32", "reverse", "wrong", 0.0, math.nan, math.nan, 1.0, math.inf, "x", "x = 0")
RIGHT = Row("exp", "tails", "float64", "reverse", "right", 15.9, 15.9, 1.0, 1.0, points={"right": 3})
FOUND = Audit(
    "a framework",
    (RIGHT, LOST, WRONG),
    {"tanh": Outcome(True), "<f>": Outcome(True), "exp": Outcome(True), "g": Outcome(False, "none can be read")},
    {"a framework": "1.2"},
)


def test_wrong_ones_come_first_then_lost_ones() -> None:
    assert FOUND.of() == [WRONG, LOST, RIGHT]


def test_an_audit_is_true_only_if_something_was_right_and_nothing_else() -> None:
    assert not FOUND
    assert Audit("f", (RIGHT,), {"exp": Outcome(True)})
    assert not Audit("f", (), {})
    assert not Audit("f", (Row("f", "", "", "", "undecided"),), {"f": Outcome(False, "why")})


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    FOUND.save(tmp_path / "a.json")

    again = load(tmp_path / "a.json")

    assert repr(again) == repr(FOUND)
    assert again.outcomes == FOUND.outcomes
    assert [repr(row) for row in again.of()] == [repr(row) for row in FOUND.of()]  # NaN is not equal to itself


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99, "outcomes": {}}'])
def test_what_is_no_audit_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)

    with pytest.raises(ValueError, match=r"b\.json' is no audit"):
        load(path)


def test_an_operation_that_is_judged_again_has_only_its_new_rows() -> None:
    again = FOUND.with_operation("tanh", Outcome(True), [])

    assert "tanh" not in {row.operation for row in again.rows}
    assert len(again.rows) == 2


def test_a_page_escapes_names_and_holds_scripts_and_reasons() -> None:
    page = as_page(FOUND)

    assert "&lt;f&gt;" in page
    assert "<f>" not in page
    assert "<pre>found = 1</pre>" in page
    assert "none can be read" in page


def test_markdown_says_where_a_fault_is_reported() -> None:
    text = as_markdown(FOUND, lambda row: "#195527" if row.operation == "tanh" else "")

    (line,) = [each for each in text.splitlines() if each.startswith("| tanh")]
    assert line.endswith("| lost | 0 | 1.7e-17 | 0.0 of 14.4 | #195527 |")
    assert "```python\nfound = 1\n```" in text
    assert "* none can be read (1): g" in text


def test_the_page_has_the_worst_of_each_operation() -> None:
    other = Row("tanh", "edges", "float32", "forward", "lost", 3.0, 6.3)

    kept = worst_of_each(FOUND.with_operation("tanh", Outcome(True), [other, LOST]))

    assert kept == [WRONG, LOST]
