"""One operation before the referee: right ones pass, wrong ones do not, and what nobody can call wrong is not."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gdcompare.audit import judging
from gdcompare.audit.judging import judged
from gdcompare.audit.results import Row
from gdcompare.audit.run import with_script_run
from gdcompare.audit.subject import Operation, Route
from gdcompare.referee.verdict import LOSS

from .planted import operation, refusing, squares


def rows_of(name: str, dtype: str = "float64") -> dict[str, Row]:
    outcome, rows = judged(operation(name), [dtype])
    assert outcome.judged
    return {row.region: row for row in rows}


def thorough(*values: str) -> object:
    """Leave a case to the gate."""
    return pytest.param(*values, marks=pytest.mark.thorough)


@pytest.mark.parametrize(
    ("name", "dtype"), [("exp", "float64"), thorough("sin", "float32"), thorough("log", "float64")]
)
def test_a_right_derivative_has_its_digits_everywhere(name: str, dtype: str) -> None:
    rows = rows_of(name, dtype)

    assert {row.status for row in rows.values()} <= {"right", "no truth"}
    assert rows["ordinary"].points["right"] >= 4
    assert rows["ordinary"].correct >= rows["ordinary"].attainable - 1 > 5


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("exp, a thousandth too large", "float32"),
        thorough("exp, a thousandth too large", "float64"),
        thorough("exp, of the other sign", "float32"),
        thorough("exp, 0", "float64"),
    ],
)
def test_a_wrong_derivative_is_wrong_everywhere(name: str, dtype: str) -> None:
    rows = rows_of(name, dtype)

    assert rows["ordinary"].status == "wrong"
    assert rows["ordinary"].correct < 3.1
    assert rows["ordinary"].points == {"wrong": 8}


def test_tails_computed_from_the_value_lose_their_digits_and_others_do_not() -> None:
    by_value, by_cosh = (rows_of(name)["tails"] for name in ("tanh, by its value", "tanh"))

    assert by_value.status == "lost"
    assert (by_value.found, round(by_value.correct, 1)) == (0.0, 0.0)
    assert by_value.expected == pytest.approx(1 / math.cosh(20) ** 2)
    assert by_value.attainable > 14
    assert by_cosh.status in ("right", "no truth")


@pytest.mark.thorough
def test_a_derivative_at_a_huge_number_is_as_good_as_its_input() -> None:
    rows = rows_of("sin, as if of its neighbour")

    assert "lost" not in rows["large"].points
    assert "wrong" not in rows["large"].points


@pytest.mark.parametrize("name", ["abs, 5 at 0", thorough("abs, 1 at 0")])
def test_at_a_kink_every_number_is_a_convention(name: str) -> None:
    row = rows_of(name)["zero"]

    assert row.status == "convention"
    assert ("outside" in row.reason) == ("5" in name)


def test_nan_at_a_kink_has_no_digit_and_is_not_wrong() -> None:
    row = rows_of("abs, nan at 0")["zero"]

    assert row.status == "lost"
    assert "NaN at a kink" in row.reason


@pytest.mark.thorough
def test_every_finding_has_a_script_that_finds_the_same() -> None:
    _, rows = judged(operation("tanh, by its value"), ["float32"])
    lost = [with_script_run(row) for row in rows if row.status == "lost"]

    assert lost
    assert all(row.shown for row in lost)


def test_a_finding_that_its_script_does_not_show_is_none() -> None:
    row = Row("f", "", "float64", "reverse", "wrong", found=2.0, expected=1.0, script="print('found', (1.0).hex())")

    found = with_script_run(row)

    assert (found.status, found.shown) == ("undecided", False)
    assert "its script finds 1.0" in found.reason


@pytest.mark.parametrize("dtype", ["float64", thorough("float32")])
def test_arrays_are_judged_on_all_routes(dtype: str) -> None:
    _, right = judged(squares(2.0), [dtype])
    _, wrong = judged(squares(2.0 + 1e-3), [dtype], ["reverse"])

    assert {row.route for row in right} == {"reverse", "forward", "reverse, twice"}
    assert {row.status for row in right if row.region != "zeros"} == {"right"}
    assert {row.status for row in wrong if row.region in ("drawn", "large")} == {"wrong"}


def test_only_the_routes_that_are_asked_for_run() -> None:
    _, rows = judged(squares(2.0), ["float64"], ["forward"])

    assert {row.route for row in rows} == {"forward"}


@pytest.mark.thorough
def test_what_has_no_derivative_raises_and_is_not_judged() -> None:
    outcome, rows = judged(refusing(), ["float64"])

    assert not outcome.judged
    ordinary = next(row for row in rows if row.region == "ordinary")
    assert (ordinary.status, ordinary.reason) == ("raises", "NotImplementedError: nobody has derived it")


def test_examples_that_cannot_be_made_are_a_reason() -> None:
    def examples() -> list[object]:
        raise RuntimeError("no sample")

    outcome, rows = judged(Operation("f", examples), ["float64"])  # type: ignore[arg-type]  # it makes none

    assert (outcome.judged, rows) == (False, [])
    assert outcome.reason == "its examples cannot be made: RuntimeError: no sample"


def test_what_is_late_is_left_out_and_said() -> None:
    outcome, rows = judged(squares(2.0), ["float64"], late=lambda: True)

    assert (outcome.judged, rows, outcome.reason) == (False, [], "out of time")


@pytest.mark.parametrize(
    ("value", "said"), [(2.0, ""), (np.nan, ""), (3.0, "was read at other arguments, and gives 2 here")]
)
def test_a_program_that_gives_another_value_here_is_no_truth(value: float, said: str) -> None:
    route = Route("gradient", lambda *_: (value, {}))
    truth = SimpleNamespace(mid=np.array(2.0), rad=np.array(1e-30))
    known: Any = SimpleNamespace(referee=SimpleNamespace(truths={LOSS: truth}))

    found = judging._read_elsewhere(known, {"reverse": route}, {"x": np.ones(2)}, np.ones((1, 2)))

    assert said in found
    assert bool(said) == bool(found)


def test_a_finding_without_a_script_is_none() -> None:
    row = with_script_run(Row("f", "", "", "", "wrong", found=0.0, expected=1.0))

    assert (row.status, row.shown) == ("undecided", False)
    assert "no script shows it" in row.reason
