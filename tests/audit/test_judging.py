"""One operation before the referee: right ones pass, wrong ones do not, and what nobody can call wrong is not."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gdcompare.arithmetic.program import Draft, ProgramError
from gdcompare.audit import judging
from gdcompare.audit.collected import Collected
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


@pytest.mark.thorough
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


def nothing(*_: Any) -> Any:
    raise ZeroDivisionError("no value")


READ = Draft().program(1.0)
UNCONFIRMED = [
    pytest.param(READ, lambda *_: (2.0, {}), "", id="the same"),
    pytest.param(READ, lambda *_: (3.0, {}), "its program gives 2 here, where the framework has 3", id="another"),
    pytest.param(READ, lambda *_: (np.nan, {}), "cannot be confirmed: the framework's value here is nan", id="nan"),
    pytest.param(READ, lambda *_: (np.inf, {}), "cannot be confirmed: the framework's value here is inf", id="inf"),
    pytest.param(READ, nothing, "the framework has no value here: ZeroDivisionError: no value", id="none"),
    pytest.param(READ, None, "no route gives a value", id="no route"),
    pytest.param(np.sin, nothing, "", id="written down"),
    pytest.param(np.sin, lambda *_: (np.inf, {}), "", id="written down, inf"),
]


@pytest.mark.parametrize(("formula", "function", "said"), UNCONFIRMED)
def test_a_program_that_nothing_confirms_is_no_truth(formula: Any, function: Any, said: str) -> None:
    routes = {"reverse": Route("gradient", function)} if function else {"forward": Route("jvp", nothing)}
    truth = SimpleNamespace(mid=np.array(2.0), rad=np.array(1e-30))
    known: Any = SimpleNamespace(formula=formula, referee=SimpleNamespace(truths={LOSS: truth}))

    found = judging._unconfirmed(known, routes, {"x": np.ones(2)}, np.ones((1, 2)))

    assert said in found
    assert bool(said) == bool(found)


def test_a_formula_is_read_anew_at_each_region() -> None:
    """One whose largest element is known by its place, as a reader may know an order, is another one elsewhere."""
    (example,) = squares(2.0).examples()
    places: list[Any] = []

    def read(arguments: Any, cotangents: Any) -> Any:
        places.append(arguments["a"].copy())
        return type(example).formula(example, arguments, cotangents)

    moved: Any = SimpleNamespace(
        arguments=example.arguments, outputs=example.outputs, formula=read, region="drawn", routes=example.routes
    )
    judging._collect(moved, "float64", {}, Collected(), lambda: False, moved=True)

    assert len({each.tobytes() for each in places}) == len(places) == 6


@pytest.mark.parametrize(
    ("factor", "found"),
    [
        (2.001, {"drawn": "wrong", "zeros": "undecided", "ties": "undecided", "large": "undecided"}),
        (2.0, {"drawn": "right", "zeros": "undecided", "ties": "undecided", "large": "right"}),
    ],
)
def test_what_cannot_be_read_anew_is_never_wrong(factor: float, found: dict[str, str]) -> None:
    (example,) = squares(factor).examples()
    formulas = iter([example.formula(example.arguments, np.ones((1, 2)))])

    def read(*_: Any) -> Any:
        for each in formulas:
            return each
        raise ProgramError("the program of 'f' cannot be read: its order is not known. Write that part otherwise")

    moved: Any = SimpleNamespace(
        arguments=example.arguments, outputs=example.outputs, formula=read, region="drawn", routes=example.routes
    )
    collected = Collected()
    judging._collect(moved, "float64", {"reverse": example.routes["reverse"]}, collected, lambda: False, moved=True)

    worst: dict[str, Any] = {region: each.worst for (region, _), each in collected.items()}
    assert {region: worst[region].status for region in found} == found
    assert worst["ties"].reason.endswith("and cannot be at these: its order is not known")


def test_a_finding_without_a_script_is_none() -> None:
    row = with_script_run(Row("f", "", "", "", "wrong", found=0.0, expected=1.0))

    assert (row.status, row.shown) == ("undecided", False)
    assert "no script shows it" in row.reason
