"""Zero or not: what is 0 is never called wrong, what is not 0 never proved."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sympy = pytest.importorskip("sympy", reason="the extra symbolic")

from gdcompare.arithmetic.symbols import Symbols, meant
from gdcompare.arithmetic.tape import value_and_gradient
from gdcompare.explain.decision import Decision, Domain, cases, decide
from gdcompare.explain.formulas import Size, placeholder, symbols_of
from gdcompare.explain.normal import TooLargeError, normal_form
from gdcompare.explain.time_limit import within
from tests.formulas import FUNCTIONS, PROBLEMS, Formula

X, Y, Z = sympy.symbols("x y z", real=True)

LEAVES = st.sampled_from([X, Y, Z, sympy.Integer(2), sympy.Integer(-3), sympy.Rational(1, 2)])
SMOOTH = [sympy.exp, sympy.sin, sympy.cos, sympy.tanh, sympy.sinh, sympy.cosh]


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(lambda ab: ab[0] + ab[1]),
        pairs.map(lambda ab: ab[0] * ab[1]),
        pairs.map(lambda ab: ab[0] / (1 + ab[1] ** 2)),
        st.tuples(st.sampled_from(SMOOTH), inner).map(lambda fa: fa[0](fa[1])),
        inner.map(lambda a: sympy.log(1 + a**2)),
        inner.map(lambda a: sympy.sqrt(1 + a**2)),
    )


EXPRESSIONS = st.recursive(LEAVES, combined, max_leaves=5)
REWRITINGS = {
    "expanded": sympy.expand,
    "together": sympy.together,
    "by exponentials": lambda e: e.rewrite(sympy.exp),
    "in another order": lambda e: sympy.sympify(str(e), locals={"x": X, "y": Y, "z": Z}),
}


@pytest.mark.thorough
@pytest.mark.parametrize("rewrite", REWRITINGS.values(), ids=REWRITINGS.keys())
@given(expression=EXPRESSIONS)
@settings(max_examples=25, deadline=None)
def test_one_number_written_twice_is_never_wrong(rewrite: Any, expression: Any) -> None:
    assert decide(expression - rewrite(expression), seconds=20).answer != "wrong"


@pytest.mark.thorough
@given(expression=EXPRESSIONS, size=st.integers(2, 40), place=LEAVES)
@settings(max_examples=50, deadline=None)
def test_what_is_off_by_a_little_is_never_proved(expression: Any, size: int, place: Any) -> None:
    off = sympy.Rational(1, 10**size) * (1 + place**2)

    assert decide(expression + off - sympy.expand(expression), seconds=20).answer != "proved"


@pytest.mark.parametrize(
    "zero",
    [
        (X + Y) ** 3 - X**3 - 3 * X * Y * (X + Y) - Y**3,
        sympy.exp(X + 2 * Y) - sympy.exp(X) * sympy.exp(Y) ** 2,
        sympy.exp(X / 2) ** 2 - sympy.exp(X),
        1 / (1 + sympy.exp(-X)) + 1 / (1 + sympy.exp(X)) - 1,
        sympy.diff(sympy.log(sympy.exp(X) + sympy.exp(Y)), X) - sympy.exp(X) / (sympy.exp(X) + sympy.exp(Y)),
        sympy.cosh(X) ** -2 - 1 + sympy.tanh(X) ** 2,
        sympy.sin(2 * X + Y) - sympy.sin(2 * X) * sympy.cos(Y) - sympy.cos(2 * X) * sympy.sin(Y),
        1 / sympy.sqrt(1 + X**2) - sympy.sqrt(1 + X**2) / (1 + X**2),
        sympy.sqrt(1 + sympy.sqrt(1 + X**2)) ** 4 - 2 * sympy.sqrt(1 + X**2) - 2 - X**2,
        X**Y * Y / X - Y * X ** (Y - 1),
        sympy.exp(sympy.Rational(6243314768165359, 9007199254740992) + X)
        - sympy.exp(sympy.Rational(6243314768165359, 9007199254740992)) * sympy.exp(X),
    ],
    ids=str,
)
def test_what_people_write_in_two_ways_is_proved(zero: Any) -> None:
    assert decide(zero).answer == "proved"


@pytest.mark.parametrize(
    ("x", "difference"),
    [
        (2 * X - X, X),
        ((X + 1) ** 2 - X**2, 2 * X + 1),
        (sympy.exp(X) * sympy.exp(Y) - sympy.exp(X - Y), None),
        (sympy.sin(X) ** 2 + sympy.cos(X) ** 2 - 1 + X / 10**30, None),
        ((1 + sympy.Rational(1, 10**12)) * X - X, X / 10**12),
    ],
    ids=str,
)
def test_what_is_not_zero_is_wrong_and_comes_as_a_formula(x: Any, difference: Any) -> None:
    found = decide(x)

    assert found.answer == "wrong"
    assert difference is None or sympy.expand(found.difference - difference) == 0


def test_what_no_rule_knows_is_undecided() -> None:
    found = decide(sympy.log(X * Y) - sympy.log(X) - sympy.log(Y))

    assert (found.answer, found.why) == ("undecided", "it is 0 at every point tried, but no rule here makes it 0")


def test_a_few_values_are_gone_through() -> None:
    even = sympy.cosh((1 - 2 * Y) * X) - sympy.cosh(X)

    assert decide(even).answer == "wrong"
    assert decide(even, Domain(values={Y: (sympy.Integer(0), sympy.Integer(1))})) == Decision(
        "proved", only=frozenset({"targets"})
    )
    assert decide(even, Domain(values={Y: (sympy.Integer(0), sympy.Integer(2))})).answer == "wrong"


def test_sides_are_gone_through_and_those_without_a_point_left_out() -> None:
    numbers = Symbols([X])
    above, beyond = (numbers.holds(np.greater, X - edge) for edge in (0, 1))

    implied = beyond * above - beyond  # x > 1 says that x > 0

    assert normal_form(implied, numbers.conditions).zero is False
    assert decide(implied, Domain(numbers.conditions)) == Decision("proved", only=frozenset({"sides"}))
    assert decide(above * beyond - above, Domain(numbers.conditions)).answer == "wrong"


def test_a_rare_side_is_found_where_something_is_wrong_there() -> None:
    numbers = Symbols([X])
    rare = numbers.holds(np.greater, X - 7) * numbers.holds(np.less, X - 8)

    assert decide(rare * X, Domain(numbers.conditions)).answer == "wrong"


def test_what_is_zero_on_a_whole_side_is_known_to_be_neither_above_nor_below() -> None:
    numbers = Symbols([X])
    above = numbers.holds(np.greater, X)
    relu = above * X

    found = {
        relation.__name__: cases(numbers.holds(relation, relu), Domain(numbers.conditions), 2)
        for relation in (np.greater, np.greater_equal, np.less, np.equal)
    }

    on, off = [(X, ">")], [(X, "<")]
    assert found == {
        "greater": [(on, 1), (off, 0)],
        "greater_equal": [(on, 1), (off, 1)] if found["greater_equal"] != [([], 1)] else [([], 1)],
        "less": [([], 0)] if len(found["less"] or []) == 1 else [(on, 0), (off, 0)],
        "equal": [(on, 0), (off, 1)],
    }
    assert numbers.sign(np.array([relu], dtype=object))[0].xreplace({above: sympy.Integer(0)}) == 0


def test_the_edge_of_data_belongs_where_the_formula_puts_it() -> None:
    numbers, allowed = Symbols([X]), {Y: (sympy.Integer(0), sympy.Integer(1))}

    closed = numbers.holds(np.greater_equal, Y - 1) - Y
    open_ = numbers.holds(np.greater, Y - 1) - Y
    equal = numbers.holds(np.equal, Y - 1) - Y

    answers = [decide(x, Domain(numbers.conditions, allowed)).answer for x in (closed, open_, equal)]
    assert answers == ["proved", "wrong", "proved"]


def test_a_polynomial_too_large_is_undecided() -> None:
    many = sum(sympy.symbols("a:40", real=True))

    with pytest.raises(TooLargeError, match="the power 9"):
        normal_form(many**9 - 1)
    found = decide(many**9 - many**9 * (X / X + sympy.sin(Y) ** 2 + sympy.cos(Y) ** 2 - 1))
    assert found.answer == "undecided"
    assert found.why.startswith("it meets ")


@pytest.mark.thorough
def test_the_time_limit_holds_and_leaves_nothing_behind() -> None:
    def forever() -> None:
        while True:
            sum(range(100))

    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"^not within 0.05 s$"):
        within(0.05, forever)
    assert time.monotonic() - begun < 10  # no measure of speed: else it would hang
    for _ in range(200):  # some in time, some not
        with suppress(TimeoutError):
            within(1e-6, lambda: sum(range(100)))
    assert within(60, lambda: sum(range(10**5))) == sum(range(10**5))


def test_an_end_that_comes_as_the_computation_does_leaves_nobody_waiting() -> None:
    def as_long() -> None:
        until = time.thread_time() + 1e-3
        while time.thread_time() < until:
            pass

    before = threading.enumerate()
    for _ in range(100):
        with suppress(TimeoutError):
            within(1e-3, as_long)
        assert threading.enumerate() == before


@pytest.mark.thorough
@pytest.mark.parametrize("limit", [60, 1e-9])
def test_what_traces_the_thread_afterwards_does_not_hang(limit: float) -> None:
    """As debuggers, coverage and Hypothesis do."""
    program = (
        "import contextlib, sys\n"
        "from gdcompare.explain.time_limit import within\n"
        "def traced():\n"
        "    return sum(i for i in range(9))\n"
        "for n in range(200):\n"
        "    with contextlib.suppress(TimeoutError):\n"
        f"        within({limit}, lambda: sum(range(10 * n)))\n"
        "sys.settrace(lambda *_: None)\n"
        "print(traced())\n"
    )

    found = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert found.stdout == "36\n"


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="no clock of a thread's own")
def test_what_others_take_of_a_busy_machine_does_not_count() -> None:
    def waiting() -> str:
        time.sleep(0.3)
        return "done"

    assert within(0.1, waiting) == "done"


def test_an_end_that_a_callback_keeps_is_told_again() -> None:
    kept = 0

    def callback() -> None:  # as one of the garbage collector, whose errors go nowhere
        nonlocal kept
        try:
            while True:
                sum(range(100))
        except BaseException:
            kept += 1

    def compute() -> None:
        callback()
        while True:
            sum(range(100))

    with pytest.raises(TimeoutError):
        within(0.01, compute)
    assert kept == 1


def test_the_time_limit_works_in_a_thread() -> None:
    said: list[str] = []

    def work() -> None:
        try:
            within(0.05, lambda: [None for _ in iter(int, 1)])
        except TimeoutError as error:
            said.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert said == ["not within 0.05 s"]


def test_an_error_of_the_computation_passes_the_time_limit() -> None:
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 / 0)


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*PROBLEMS, *FUNCTIONS])
def test_the_tapes_walk_over_symbols_is_sympys_derivative(name: str) -> None:
    problem = PROBLEMS[name] if name in PROBLEMS else Formula(FUNCTIONS[name])
    size = Size(1, 2, 2) if problem.target_dimensions == 2 else Size(1, 2 if name in PROBLEMS else 3)
    data = placeholder(problem, size)
    symbols = {key: symbols_of(key, shape) for key, shape in problem.parameter_shapes(data).items()}
    numbers = Symbols(each for array in symbols.values() for each in array.flat)

    loss, gradient = value_and_gradient(problem, numbers, symbols, data.features, data.targets)

    differences = [
        np.asarray(gradient[key])[place] - sympy.diff(np.asarray(loss).item(), symbols[key][place])
        for key in symbols
        for place in np.ndindex(symbols[key].shape)
    ]
    answers = [decide(x, Domain(numbers.conditions), seconds=20) for x in differences]
    assert {found.answer for found in answers} == {"proved"}, answers


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"is no number that can be proved about"):
        meant(value)
