"""Every function of the vocabulary is right over every number system, and keeps its budget in every framework."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flint import arb, ctx

import gdcompare as gdc
from gdcompare.arithmetic.balls import BallNumbers, as_balls
from gdcompare.arithmetic.dual import hessian_vector_products
from gdcompare.arithmetic.formula_check import FormulaError
from gdcompare.arithmetic.numbers import Floats
from gdcompare.arithmetic.quick_balls import UndecidedError, balls_from_quick
from gdcompare.arithmetic.quick_numbers import QuickNumbers
from gdcompare.arithmetic.rounded import RoundedNumbers
from gdcompare.arithmetic.sampled import SampledNumbers
from gdcompare.arithmetic.tape import Tape, known_functions, per_sample_gradients, value_and_gradient
from gdcompare.backend import Backend
from gdcompare.referee.enclosure import enclose
from tests.arithmetic.test_tape import GOALS, POINT, ROWS
from tests.formulas import Formula
from tests.functions_page import PAGE, rewritten, sections
from tests.vocabulary import AXES, INDICES, VOCABULARY

FORMULAS = {**VOCABULARY, **INDICES, **AXES}
BY_ROWS = [
    name for name in FORMULAS if name not in ("meshgrid", "unstack", "outer", "concat(axis=None)")
]  # each by itself
UNABLE = {("autograd", "an einsum of diagonals"): "its derivative of einsum knows no diagonals"}
WRONG = {("autograd", "a correction")}  # it takes no notice of the correction on the way back
NEARBY = ("qr", "eigh", "eigvalsh", "svd", "svdvals")  # their budget is that of a matrix beside theirs
DIRECTION = np.array([1.0, -2.0, 3.0])


@pytest.mark.parametrize("name", FORMULAS)
def test_first_and_second_derivatives_are_limits_of_difference_quotients(name: str) -> None:
    """In 256 bits, with steps of 2^-60, central differences are right to more than 25 digits."""
    problem, step = Formula(FORMULAS[name]), arb((1, -60))

    with ctx.workprec(256):
        _, gradient = value_and_gradient(problem, BallNumbers(), POINT, ROWS, GOALS)
        for parameter in gradient:
            still = {key: np.zeros((1, 3)) for key in gradient}
            along = still | {parameter: DIRECTION[None]}
            products = hessian_vector_products(problem, BallNumbers(), POINT, ROWS, GOALS, along)
            (up, above), (down, below) = (
                value_and_gradient(problem, BallNumbers(), POINT | {parameter: moved}, ROWS, GOALS)
                for moved in (as_balls(POINT[parameter]) + as_balls(DIRECTION) * way for way in (step, -step))
            )

            assert abs((up - down) / (2 * step) - gradient[parameter] @ as_balls(DIRECTION)) < arb("1e-25")
            for key, product in products.items():
                assert max(abs((above[key] - below[key]) / (2 * step) - product[0])) < arb("1e-25"), (parameter, key)


@pytest.mark.thorough
@pytest.mark.parametrize("name", FORMULAS)
def test_the_number_systems_agree(name: str) -> None:
    problem, point = Formula(FORMULAS[name]), (POINT, ROWS, GOALS)
    with ctx.workprec(256):
        loss, enclosed = value_and_gradient(problem, BallNumbers(), *point)

    with np.errstate(all="ignore"):
        floats, rounded, quick, (_, drawn) = (
            value_and_gradient(problem, numbers, *point)
            for numbers in (Floats(), RoundedNumbers("float64"), QuickNumbers(), SampledNumbers("float64"))
        )

    assert float(floats[0]) == pytest.approx(float(loss), rel=1e-13)
    assert balls_from_quick(quick[0]).item().overlaps(loss)
    for key, truth in enclosed.items():
        exact = truth.astype(float)
        np.testing.assert_allclose(floats[1][key], exact, rtol=1e-12, atol=1e-13)
        assert all(one.overlaps(other) for one, other in zip(balls_from_quick(quick[1][key]), truth, strict=True))
        assert (quick[1][key].rad < 1e-22).all()
        assert (abs(rounded[1][key].value - exact) <= rounded[1][key].spread + 1e-300 + 2.0**-52 * abs(exact)).all()
        most = 1e-9 if name in NEARBY else 1e-12
        assert (rounded[1][key].error < most * np.maximum(1.0, abs(exact))).all()
        np.testing.assert_allclose(drawn[key].value, exact, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", BY_ROWS)
@pytest.mark.parametrize("numbers", [Floats(), BallNumbers()], ids=["floats", "balls"])
def test_the_mean_of_the_per_sample_gradients_is_the_gradient(name: str, numbers: Any) -> None:
    problem = Formula(FORMULAS[name])

    rows = per_sample_gradients(problem, numbers, POINT, ROWS, GOALS)
    _, gradient = value_and_gradient(problem, numbers, POINT, ROWS, GOALS)

    for parameter, slopes in gradient.items():
        mean = (rows[parameter][0] + rows[parameter][1]) / 2
        np.testing.assert_allclose(mean.astype(float), slopes.astype(float), rtol=1e-13, atol=1e-14)


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("name", BY_ROWS)
def test_frameworks_keep_the_budget(name: str, backend: Backend[Any]) -> None:
    function, problem = name.split("[")[0], Formula(FORMULAS[name])
    if getattr(backend, "by_hand", False):
        pytest.skip("nobody has derived it by hand")
    if (backend.name, name) in UNABLE:
        pytest.skip(UNABLE[backend.name, name])
    spaces = (np, np.linalg), (backend.xp, backend.xp.linalg)
    if function in VOCABULARY and not all(any(hasattr(xp, function) for xp in space) for space in spaces):
        pytest.skip(f"{backend.name} or NumPy has no {function}")

    try:
        report = gdc.verify(problem, gdc.Dataset(ROWS, GOALS), POINT, backends=[backend], dtype=backend.dtype)
    except (FormulaError, RuntimeError) as error:
        if f"not on those of {backend.name!r}" not in str(error) and "is not implemented" not in str(error):
            raise
        pytest.skip(f"another function than the standard's: {error}")

    assert report.verdict == ("wrong" if (backend.name, name) in WRONG else "agree"), report


def test_each_row_may_have_indices_of_its_own() -> None:
    """An embedding: the row's whole number says which of the parameters it takes, some of them twice."""
    rows = np.array([[2.0, 0.0], [1.0, 1.0], [2.0, 2.0]])

    class Embedding(gdc.Problem):
        def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
            return {"table": (3, 2)}

        def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            words = xp.astype(features, xp.int64)
            return xp.sum(xp.take(params["table"], words[:, 0], axis=0) * params["table"][words[:, 1], :], axis=1)

    table = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    expected = np.zeros((3, 3, 2))
    for i, (one, other) in enumerate(rows.astype(int)):
        expected[i, one] += table[other]
        expected[i, other] += table[one]

    for numbers in (Floats(), BallNumbers(), RoundedNumbers("float64"), QuickNumbers(), SampledNumbers("float64")):
        found = per_sample_gradients(Embedding(), numbers, {"table": table}, rows, np.zeros(3))["table"]
        for part in ("value", "high"):
            found = getattr(found, part, found)
        assert found.astype(float).tolist() == expected.tolist()


def test_an_index_that_is_no_whole_number_is_refused() -> None:
    x = Tape(Floats()).asarray([1.0, 2.0])

    with pytest.raises(TypeError, match="integers or conditions, not with an array of float64"):
        x[np.array([0.5])]
    with pytest.raises(TypeError, match="not with a str"):
        x["a"]


def test_a_mask_that_rounding_may_turn_is_refused_with_the_way_out() -> None:
    tape = Tape(RoundedNumbers("float64"))
    x = tape.leaf([0.1, 0.2])

    with pytest.raises(TypeError, match=r"takes nobody knows how many elements: write xp\.where"):
        x[x * 3 > x + x + x]


def test_an_index_of_numbers_is_told_to_become_whole() -> None:
    x = Tape(BallNumbers()).asarray([1.0, 2.0])

    with pytest.raises(TypeError, match=r"an index is a whole number: write xp\.astype\(index, xp\.int64\)"):
        x[x / 2]
    assert x[x - 1].value.astype(float).tolist() == [[1.0, 2.0]]


WEIGHTS = np.array([1.0, 2.0, 4.0])
AT_TIES: dict[str, tuple[Any, list[float], bool, bool]] = {
    "sort": (lambda xp, x: xp.sum(xp.sort(x) * WEIGHTS), [0.5, 0.5, 0.25], True, False),
    "sort, of which all counts alike": (lambda xp, x: xp.sum(xp.sort(x) ** 2), [0.5, 0.5, 0.25], False, False),
    "argmax": (lambda xp, x: (x * WEIGHTS)[xp.argmax(x)], [0.5, 0.5, 0.25], True, True),
    "floor": (lambda xp, x: xp.sum(xp.floor(x) * x), [1.0, 2.5, 0.5], True, True),
    "floor elsewhere": (lambda xp, x: xp.sum(xp.floor(x) * x), [1.25, 2.5, 0.5], False, False),
    "the angle": (lambda xp, x: xp.atan2(x[0], x[1]) + x[2], [0.0, -1.0, 0.5], False, True),
    "the norm": (lambda xp, x: xp.linalg.vector_norm(x), [0.0, 0.0, 0.0], True, False),
    "a running largest": (lambda xp, x: xp.sum(xp.cumulative_max(x) * WEIGHTS), [0.5, 0.5, 0.25], True, False),
    "exp(-|x|) i0": (lambda xp, x: xp.sum(xp.i0e(x)), [0.0, 1.0, 2.0], True, False),
    "exp(-|x|) i1": (lambda xp, x: xp.sum(xp.i1e(x)), [0.0, 1.0, 2.0], False, False),
    "sinc": (lambda xp, x: xp.sum(xp.sinc(x)), [0.0, 1.0, 2.0], False, False),
    "a product of zeros": (lambda xp, x: xp.prod(x), [0.0, 0.0, 3.0], False, False),
}


@pytest.mark.parametrize(("formula", "at", "bends", "jumps"), AT_TIES.values(), ids=AT_TIES)
def test_a_tie_is_a_kink_and_what_changes_places_jumps(formula: Any, at: list[float], bends: bool, jumps: bool) -> None:
    problem = gdc.Operation(lambda xp, x: formula(xp, x) * x[2] ** 0, x=(3,))
    point = {"x": np.array(at)}, np.ones((1, 1)), np.zeros(1)

    truth = enclose(problem, *point)

    found = truth.gradient["x"]
    assert found.known.shape == (3,)
    assert found.kinks.any() == bends
    assert ("a jump of the value" in found.reason) == jumps


def test_infinities_are_told_and_what_nobody_knows_is_not() -> None:
    given = np.array([1.0, np.inf, -np.inf])

    for numbers in (Floats(), BallNumbers(), RoundedNumbers("float64"), SampledNumbers("float64")):
        tape = Tape(numbers)
        finite, infinite = tape.isfinite(given).value, tape.isinf(given).value
        assert np.asarray(getattr(finite, "value", finite)).astype(float).tolist() == [[1.0, 0.0, 0.0]]
        assert np.asarray(getattr(infinite, "value", infinite)).astype(float).tolist() == [[0.0, 1.0, 1.0]]
    quick = Tape(QuickNumbers())
    assert quick.isfinite(given).value.high.tolist() == [[1.0, 0.0, 0.0]]
    assert quick.isinf(given).value.high.tolist() == [[0.0, 1.0, 1.0]]
    zero = quick.leaf([0.0])
    with np.errstate(all="ignore"), pytest.raises(UndecidedError):
        quick.isnan(zero / zero)
    tape = Tape(BallNumbers())
    zero = tape.leaf([0.0])
    assert tape.isnan(zero / zero).value[0, 0].is_nan()


def test_the_limits_of_an_arrays_own_dtype_are_refused_with_the_way_out() -> None:
    xp = Tape(Floats())
    x = xp.asarray([1.0])

    assert xp.finfo(xp.float32).eps == np.finfo(np.float32).eps
    assert xp.result_type(x, xp.int8) == x.dtype
    assert [xp.isdtype(each, "integral") for each in (x.dtype, xp.int8, xp.bool)] == [False, True, False]
    assert [xp.isdtype(xp.uint8, kind) for kind in ("signed integer", ("bool", "unsigned integer"))] == [False, True]
    with pytest.raises(TypeError, match=r"another number for each dtype .* name the dtype, like xp\.float32"):
        xp.finfo(x.dtype)


def test_the_sum_of_nothing_is_0() -> None:
    tape = Tape(RoundedNumbers("float64"))
    nothing = tape.leaf([1.0, 2.0])[2:]

    assert tape.sum(nothing).value.value.tolist() == [0.0]
    assert tape.sum(tape.reshape(nothing, (0, 3)), axis=0).shape == (3,)


ALONG: dict[str, Any] = {
    "tensordot": lambda xp, x, axis: xp.tensordot(x, x, axes=(axis, axis)),
    "stack": lambda xp, x, axis: xp.stack([x, x * x], axis=axis),
    "topk": lambda xp, x, axis: xp.topk(x, 1, axis=axis)[0],
    **{
        name: lambda xp, x, axis, name=name: getattr(xp, name)(x, axis=axis)
        for name in (
            "sum", "max", "prod", "var", "argmax", "argmin", "argsort", "sort", "cumulative_sum", "cumulative_max",
            "flip", "logsumexp", "softmax", "median", "unstack", "expand_dims",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ALONG)
def test_an_axis_may_be_a_whole_number_of_any_kind(name: str) -> None:
    tape = Tape(Floats())
    x = tape.leaf([[1.0, 3.0], [2.0, 0.5]])

    plain, numpys = (ALONG[name](tape, x, axis) for axis in (1, np.int64(1)))

    for one, other in zip(*((each if isinstance(each, tuple) else (each,)) for each in (plain, numpys)), strict=True):
        np.testing.assert_array_equal(one.value, other.value, strict=True)


def test_the_page_of_functions_shows_those_that_there_are() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert page == rewritten(page), "run: python -m tests.functions_page"
    assert {name for functions in sections().values() for name in functions} == set(known_functions())
