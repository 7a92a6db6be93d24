"""Truth by limits: where a formula bends, hangs on an equality or is 0/0, the sides of the point decide together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare import Dataset, Problem
from gdcompare.case import Case
from gdcompare.referee.certificate import certify, check_certificate
from gdcompare.referee.enclosed import Enclosed
from gdcompare.referee.enclosure import Enclosure, enclose, enclose_along, enclose_products, enclose_rows
from gdcompare.referee.point import Referee
from tests.deep_formulas import FORMULAS

ONE_ROW = np.ones((1, 1)), np.zeros(1)


@dataclass(frozen=True)
class Scalars(Problem):
    """l = f(a, b), for as many scalars as there are letters."""

    function: Callable[..., Any]
    letters: str = "a"

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.letters, ())

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return self.function(xp, *(params[letter] * features[:, 0] for letter in self.letters))


@dataclass(frozen=True)
class Rows(Problem):
    """l_i = f(x_i . w, y_i)."""

    function: Callable[..., Any]

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"w": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return self.function(xp, features @ params["w"], targets)


@dataclass(frozen=True)
class Vector(Problem):
    """l = f(w), w (d,), times the first feature."""

    function: Callable[..., Any]

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"w": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return self.function(xp, params["w"]) * features[:, 0]


def at(function: Callable[..., Any], *values: float) -> Enclosure:
    letters = "abc"[: len(values)]
    return enclose(Scalars(function, letters), dict(zip(letters, values, strict=True)), *ONE_ROW)


def ends(truth: Enclosed) -> tuple[float, float]:
    (ball,) = truth.balls.ravel()
    return round(float(ball.lower()), 6) + 0.0, round(float(ball.upper()), 6) + 0.0


def stable_cross_entropy(xp: Any, z: Any, y: Any) -> Any:
    return xp.maximum(z, 0 * z) - z * y + xp.log1p(xp.exp(-xp.abs(z)))


def forty_rows() -> Dataset:
    generator = np.random.default_rng(3)
    return Dataset(generator.normal(size=(40, 3)), (generator.random(40) > 0.4).astype(float), name="forty rows")


# Where all pieces coincide.

SMOOTH: dict[str, tuple[Callable[..., Any], tuple[float, ...], float]] = {
    "the square of a norm": (lambda xp, a, b: xp.sqrt(a * a + b * b) ** 2, (0.0, 0.0), 0.0),
    "a sum of whole powers": (lambda xp, a: sum(a**k for k in range(4)), (0.0,), 1.0),
    "0**b by b": (lambda xp, a: xp.zeros_like(a) ** a, (1.5,), 0.0),
    "0**0 by the base": (lambda xp, a: a**0, (0.0,), 0.0),
    "x**1 at 0": (lambda xp, a: a**1, (0.0,), 1.0),
    "x**1.5 at 0": (lambda xp, a: a**1.5, (0.0,), 0.0),
    "the other branch has no slope": (lambda xp, a: xp.where(a >= 0, a, xp.sqrt(-a)), (1.0,), 1.0),
    "expm1(z) / z by where": (lambda xp, z: xp.where(z == 0, xp.ones_like(z), xp.expm1(z) / z), (0.0,), 0.5),
    "log1p(z) / z by the double where": (
        lambda xp, z: xp.where(z == 0, xp.ones_like(z), xp.log1p(z) / xp.where(z == 0, xp.ones_like(z), z)),
        (0.0,),
        -0.5,
    ),
    "sin(z) / z": (lambda xp, z: xp.sin(z) / z, (0.0,), 0.0),
    "Box and Cox": (
        lambda xp, k: xp.where(k == 0, math.log(1.9) + 0 * k, (1.9**k - 1) / k),
        (0.0,),
        0.5 * math.log(1.9) ** 2,
    ),
    "x by two relus": (lambda xp, a: xp.maximum(a, 0 * a) - xp.maximum(-a, 0 * a), (0.0,), 1.0),
    "x by sign": (lambda xp, a: xp.sign(a) * xp.abs(a), (0.0,), 1.0),
    "x by equal branches": (lambda xp, a: xp.maximum(2 * a, a + a), (1.0,), 2.0),
    "x by branches that no precision tells apart": (lambda xp, a: xp.maximum(xp.sqrt(a) * xp.sqrt(a), a), (2.0,), 1.0),
    "squared distances of points that coincide": (lambda xp, a, b: _distances(xp, a, b) ** 2, (1.0, 1.0), 0.0),
    "truncation": (lambda xp, a: xp.astype(xp.astype(3 * a, xp.int64), xp.float64) * a, (1.5,), 4.0),
    "truncation below 0": (lambda xp, a: xp.astype(3 * a, xp.int32) * a, (-1.5,), -4.0),
    "truncation near 0": (lambda xp, a: xp.astype(a, xp.int64) * a + a, (0.0,), 1.0),
    "what equals its own maximum": (
        lambda xp, a: xp.where(xp.exp(a) == xp.maximum(xp.exp(a), xp.exp(-a)), xp.exp(a), 0 * a),
        (1.0,),
        math.e,
    ),
    "a mask of -1e9": (lambda xp, a: xp.logaddexp(a, a - 1e9), (1.0,), 1.0),
    "a mask of the lowest float": (lambda xp, a: xp.logaddexp(a, a + float(np.finfo("f8").min)), (1.0,), 1.0),
    "an entry of -inf": (lambda xp, a: xp.logaddexp(a, a - xp.inf), (1.0,), 1.0),
}


def _distances(xp: Any, a: Any, b: Any) -> Any:
    """Return the sum of all distances, also those of points from themselves."""
    points = xp.stack([a, b, a], axis=0)
    differences = points[:, None, :] - points[None, :, :]
    return xp.sum(xp.sqrt(differences * differences), axis=(0, 1))


@pytest.mark.parametrize(("function", "point", "slope"), SMOOTH.values(), ids=SMOOTH)
def test_a_function_that_is_smooth_has_a_number_for_a_derivative(
    function: Callable[..., Any], point: tuple[float, ...], slope: float
) -> None:
    found = at(function, *point)

    truth = found.gradient["a"]
    assert not truth.kinks.any()
    assert truth.unsure is None
    assert truth.mid == pytest.approx(slope, rel=1e-15, abs=1e-300)
    assert truth.rad < 1e-30 * abs(slope) + 1e-300
    assert found.loss.rad < 1e-30


def test_beyond_a_mask_the_softmax_is_exactly_0() -> None:
    for mask in (-1000.0, -1e9, float(np.finfo("f8").min), -math.inf):
        truth = at(lambda xp, a, mask=mask: a + xp.exp(xp.minimum(0 * a + mask, 0 * a)), 1.0)

        assert truth.gradient["a"].mid == 1.0


def test_the_search_heeds_the_budget_of_the_loss() -> None:
    problem, params = Scalars(lambda xp, a: xp.logaddexp(a, a + float(np.finfo("f8").min))), {"a": 1.0}

    truth = enclose(problem, params, *ONE_ROW, budgets={"loss": 4e-308, "a": 4e-308})

    assert truth.loss.rad <= 4e-308


# Where they differ.

BENT: dict[str, tuple[Callable[..., Any], tuple[float, float]]] = {
    "relu": (lambda xp, a: xp.maximum(a, 0 * a), (0, 1)),
    "abs": (lambda xp, a: xp.abs(a), (-1, 1)),
    "a root of a square": (lambda xp, a: (a**2) ** 0.5, (-1, 1)),
    "x sign(x)": (lambda xp, a: xp.sign(a) * a, (-1, 1)),
    "clip": (lambda xp, a: xp.clip(a, 0.0, 1.0), (0, 1)),
    "two relus that belong together": (lambda xp, a: xp.maximum(a, 0 * a) + xp.maximum(3 * a, a), (1, 4)),
    "distances of points that coincide": (lambda xp, a: _distances(xp, a, 0 * a), (-4, 4)),
}


@pytest.mark.parametrize(("function", "hull"), BENT.values(), ids=BENT)
def test_at_a_kink_the_truth_is_the_hull_of_its_sides(function: Callable[..., Any], hull: tuple[float, float]) -> None:
    truth = at(function, 0.0).gradient["a"]

    assert ends(truth) == hull
    assert truth.kinks.all()
    assert truth.width == pytest.approx(hull[1] - hull[0])
    inside, outside = (hull[0] + 3 * hull[1]) / 4, hull[1] + 1e-6
    assert truth.distance([inside] if truth.mid.shape else inside)[1].max() == 0
    assert truth.distance(outside)[0].max() == pytest.approx(1e-6, rel=1e-2)


@pytest.mark.thorough
def test_parameters_that_tie_together_are_judged_together() -> None:
    """max(a, b) at a = b: (1, 0), (0, 1) and what lies between, but not (1, 1) or (0, 0)."""
    problem = Scalars(lambda xp, a, b: xp.maximum(a, b), "ab")
    data = Dataset(*ONE_ROW)

    def says(a: float, b: float) -> Any:
        return lambda *_: (None, {"a": np.array(a), "b": np.array(b)})

    right = {str(pair): says(*pair) for pair in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.3, 0.7))}
    wrong = {str(pair): says(*pair) for pair in ((1.0, 1.0), (0.0, 0.0), (0.3, 0.6))}
    report = gdc.verify(problem, data, {"a": 2.0, "b": 2.0}, backends=[], implementations=right | wrong)

    assert {entry.implementation for entry in report.entries if entry.verdict != "agree"} == set(wrong)


LOSSES: dict[str, Callable[..., Any]] = {
    "relu": lambda xp, z, y: xp.maximum(z, 0 * z),
    "relu by where": lambda xp, z, y: xp.where(z >= 0, z, 0 * z),
    "absolute": lambda xp, z, y: xp.abs(z - y),
    "hinge": lambda xp, z, y: xp.maximum(1 - y * z, 0 * z),
    "quantile": lambda xp, z, y: xp.maximum(0.75 * (y - z), 0.25 * (z - y)),
    "Huber's": lambda xp, z, y: xp.where(xp.abs(z - y) <= 1, 0.5 * (z - y) ** 2, xp.abs(z - y) - 0.5),
    "clip": lambda xp, z, y: (xp.clip(z, -1.0, 1.0) - y) ** 2,
}


@pytest.mark.covering
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_rows_that_tie_by_themselves_leave_every_convention_right(
    backend: gdc.Backend[Any], loss: Callable[..., Any]
) -> None:
    if backend.by_hand:
        pytest.skip("nothing is derived by hand here")
    generator = np.random.default_rng(5)
    for w in (np.zeros(2), np.array([1.0, -1.0])):
        data = Dataset(generator.integers(-2, 3, (24, 2)), generator.integers(-2, 3, 24))

        gdc.verify(Rows(loss), data, {"w": w}, backends=[backend], dtype=backend.dtype).assert_agree()


@pytest.mark.parametrize("slopes", [(0, 0), (1, 1), (0.5, 0.5), (1, 0), (0, 1), (0.2, 0.9)])
def test_ties_that_need_not_go_together_may_go_apart(slopes: tuple[float, float]) -> None:
    """relu(w) + relu(-w), a half of each: all of [-1/2, 1/2]."""
    data = Dataset([[1.0], [-1.0]], [0.0, 0.0])
    implementations = {"": lambda *_: (None, {"w": np.array([(slopes[0] - slopes[1]) / 2])})}

    report = gdc.verify(Rows(LOSSES["relu by where"]), data, {"w": [0.0]}, backends=[], implementations=implementations)

    assert report.verdict == "agree"


def test_a_side_that_few_directions_see_is_found_when_somebody_asks() -> None:
    """max(0, min(w)) in 12 dimensions: only where all 12 rise is it not 0; its slopes are those of the least."""

    problem = Vector(lambda xp, w: xp.maximum(xp.min(w), 0 * w[0]))
    data = Dataset(np.ones((1, 12)), [0.0])
    said = {"": lambda *_: (None, {"w": np.eye(12)[3]})}

    report = gdc.verify(problem, data, {"w": np.zeros(12)}, backends=[], implementations=said)

    assert report.verdict == "agree"


@pytest.mark.parametrize("size", [2, 5, pytest.param(20, marks=pytest.mark.thorough)])
def test_the_slopes_of_a_norm_at_0_are_a_ball_with_a_round_edge(size: int, dtype: str) -> None:
    """No few sides give its edge; rounding may carry a slope of length 1 beyond it."""
    problem, data = Vector(lambda xp, w: xp.sqrt(xp.sum(w * w))), Dataset(np.ones((1, size)), [0.0])
    along = np.random.default_rng(size).normal(size=size)
    along /= np.linalg.norm(along)
    said = {
        f"{length}": lambda *_, length=length: (None, {"w": (length * along).astype(dtype)})
        for length in (0.0, 0.5, 0.99, 1.0, 1.01, 2.0)
    }

    report = gdc.verify(problem, data, {"w": np.zeros(size)}, backends=[], implementations=said, dtype=dtype)

    found = {float(entry.implementation): entry.verdict for entry in report.entries}
    assert found == {length: "agree" if length <= 1 else "wrong" for length in found}


@pytest.mark.thorough
def test_ties_of_many_sides_are_looked_at_until_one_is_found_that_a_framework_takes(dtype: str) -> None:
    """A network of three layers on integers, where most relus stand at 0: its loss is not convex."""
    problem, data, params = drawn_on_integers(3)

    gdc.verify(problem, data, params, backends=["numpy"], dtype=dtype).assert_agree()


def drawn_on_integers(layers: int) -> tuple[Problem, Dataset, dict[str, NDArray[np.float64]]]:
    names = list(FORMULAS)
    name = f"relu network on integers, {layers} layers"
    data, params = FORMULAS[name].drawn(np.random.default_rng([0, names.index(name), 1]), 0.1)
    return FORMULAS[name].problem, data, params


# What is wrong is called so.

SPOILED: dict[str, Callable[[NDArray[np.float64], Dataset], NDArray[np.float64]]] = {
    "flipped": lambda g, data: -g,
    "zero": lambda g, data: 0 * g,
    "halved": lambda g, data: g / 2,
    "doubled": lambda g, data: 2 * g,
    "without y": lambda g, data: np.mean(data.features, axis=0) / 2,
    "something": lambda g, data: np.array([0.1, -0.1, 0.2]),
    "off by 1e-12": lambda g, data: g * (1 + 1e-12),
}


@pytest.mark.thorough
@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_ties_that_belong_together_hide_no_fault(spoil: Callable[..., Any]) -> None:
    """A smooth function, whose kinks cancel: mean (1/2 - y) x."""
    data, params = forty_rows(), {"w": np.zeros(3)}
    true = np.mean((0.5 - data.targets)[:, None] * data.features, axis=0)
    said = {"right": lambda *_: (None, {"w": true}), "wrong": lambda *_: (None, {"w": spoil(true, data)})}

    report = gdc.verify(Rows(stable_cross_entropy), data, params, backends=[], implementations=said)

    assert {entry.implementation: entry.verdict for entry in report.entries} == {"right": "agree", "wrong": "wrong"}
    assert max(entry.detectable for entry in report.entries) < 1e-11


def test_a_convention_that_no_side_has_is_reported_as_one() -> None:
    data, params = forty_rows(), {"w": np.zeros(3)}
    slopes = 0.5 - 0.5 * 1.0 - data.targets  # a half from the maximum, and the slope 1 of abs, as one framework has it
    said = {"": lambda *_: (None, {"w": np.mean(slopes[:, None] * data.features, axis=0)})}

    (entry,) = gdc.verify(Rows(stable_cross_entropy), data, params, backends=[], implementations=said).entries

    assert entry.verdict == "wrong"
    assert entry.cause.startswith("a convention: each tie decided by itself (abs ")


def test_the_power_includes_the_width_of_the_set() -> None:
    generator = np.random.default_rng(1)
    features, targets = generator.integers(-3, 4, (32, 1)).astype(float), generator.integers(-3, 4, 32).astype(float)
    params = {"w": [1.0]}
    on_the_kink = features[:, 0] == targets
    assert on_the_kink.any()

    referee = Referee(Case.of(Rows(LOSSES["quantile"]), Dataset(features, targets), params))
    (entry,) = gdc.verify(
        referee.problem,
        referee.data,
        params,
        backends=[],
        implementations={"": lambda *_: (None, {"w": referee.truths["w"].mid})},
    ).entries

    width = np.sum(np.abs(features[on_the_kink])) / 32
    assert referee.truths["w"].width == pytest.approx([width])
    assert entry.verdict == "agree"
    assert entry.detectable >= width / np.abs(referee.truths["w"].mid[0])


@pytest.mark.thorough
def test_the_maximum_that_a_softmax_subtracts_leaves_a_true_figure() -> None:
    """At equal scores the gradient of two classes is 0 in the middle: 1e-24 of nothing is no power."""

    def loss(xp: Any, z: Any, y: Any) -> Any:
        scores = xp.stack([z, 0 * z, -z], axis=1)
        shifted = scores - xp.max(scores, axis=1, keepdims=True)
        return xp.log(xp.sum(xp.exp(shifted), axis=1)) - y * shifted[:, 0] - (1 - y) * shifted[:, 2]

    nothing = {"zero": lambda *_: (None, {"w": np.zeros(3)})}
    report = gdc.verify(Rows(loss), forty_rows(), {"w": np.zeros(3)}, backends=[], implementations=nothing)

    assert max(entry.detectable for entry in report.entries if entry.parameter == "w") < 1e-10


# Jumps and infinite slopes.


def test_a_jump_of_the_value_is_told_from_a_kink() -> None:
    """Softplus with a threshold: its slope is 1 / (1 + exp(-20)) or 1, and nothing between."""
    problem = Scalars(lambda xp, a: xp.where(a > 20, a, xp.log1p(xp.exp(a))))
    below = 1 / (1 + math.exp(-20))

    def says(slope: float) -> Any:
        return lambda *_: (None, {"a": np.array(slope)})

    slopes = {"below": says(below), "above": says(1.0), "between": says((1 + below) / 2)}
    report = gdc.verify(problem, Dataset(*ONE_ROW), {"a": 20.0}, backends=[], implementations=slopes)

    verdicts = {
        entry.implementation: (entry.verdict, "a jump of the value at greater" in entry.cause)
        for entry in report.entries
    }
    assert verdicts["below"] == verdicts["above"] == ("agree", True)
    assert verdicts["between"][0] == "wrong"


def test_a_jump_at_a_whole_number_has_the_slopes_of_both_sides() -> None:
    truth = at(lambda xp, a: xp.astype(a, xp.int64) * a, 2.0)

    assert ends(truth.gradient["a"]) == (1.0, 2.0)
    assert "a jump of the value at greater_equal (test_limits.py:" in truth.gradient["a"].reason


def test_where_the_value_has_no_bound_on_one_side_the_other_is_the_truth() -> None:
    truth = at(lambda xp, w, k: k * xp.where(w > 0, xp.log(w), 0 * w) + k, 0.0, 2.0)

    assert [float(truth.loss.mid), float(truth.loss.rad)] == [2.0, 0.0]
    assert [float(truth.gradient[name].mid) for name in "ab"] == [0.0, 1.0]
    assert truth.gradient["b"].distance(777.0)[0] == 776.0


def test_where_one_side_has_no_bound_the_other_agrees_and_the_rest_is_not_known() -> None:
    """x log(x) for x > 0, else 0, by the double where."""
    truth = at(lambda xp, a: xp.where(a > 0, a * xp.log(xp.where(a > 0, a, xp.ones_like(a))), 0 * a), 0.0).gradient["a"]

    assert "the derivative has no bound on a side of the point: greater (test_limits.py:" in truth.reason
    assert [float(bound) for bound in truth.distance(0.0)] == [0.0, 0.0]
    assert [float(bound) for bound in truth.distance(0.5)] == [0.0, math.inf]
    assert truth.width == math.inf


@pytest.mark.parametrize(
    ("function", "point", "words"),
    [
        (lambda xp, a: xp.sqrt(a), 0.0, "the derivative has no bound on a side of the point: sqrt (test_limits.py:"),
        (lambda xp, a: a * xp.log(a), 0.0, "the derivative has no bound on a side of the point: log (test_limits.py:"),
        (lambda xp, a: 1 / a, 0.0, "the value has no bound on a side of the point: divide (test_limits.py:"),
        (lambda xp, a: xp.log(a), -1.0, "the formula is defined on no side of the point: log (test_limits.py:"),
    ],
)
def test_the_reason_names_the_operation_and_its_line(function: Callable[..., Any], point: float, words: str) -> None:
    truth = at(function, point).gradient["a"]

    assert truth.reason.startswith(words)
    assert math.isnan(truth.mid)
    assert [float(bound) for bound in truth.distance(7.0)] == [0.0, math.inf]


# Beside the gradient.


def test_rows_have_their_sides_each_by_itself() -> None:
    problem, features = Rows(LOSSES["relu"]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]])

    rows = enclose_rows(problem, {"w": np.array([0.0, 1.0])}, features, np.zeros(3))["w"]

    assert rows.kinks.tolist() == [[True, False], [False, False], [False, False]]
    assert rows.distance(np.array([[0.25, 0.0], [0.0, 1.0], [1.0, 2.0]]))[1].max() == 0
    assert rows.distance(np.array([[1.25, 0.0], [0.0, 1.0], [1.0, 3.0]]))[0].tolist() == pytest.approx(
        np.array([[0.25, 0.0], [0.0, 0.0], [0.0, 1.0]]), abs=1e-8
    )


def test_a_row_that_few_directions_see_is_looked_at_by_itself() -> None:
    """The largest of 30 that tie: any of them has the slope, though a handful of directions lift but a few of them."""
    problem, data = Vector(lambda xp, w: xp.max(w)), Dataset(np.ones((2, 30)), [0.0, 0.0])
    referee = Referee(Case.of(problem, data, {"w": np.zeros(30)}))
    budgets = referee.row_budgets(by_hand=False)

    right = referee.rows_towards({"w": np.eye(30)[[3, 17]]}, budgets)["w"]
    wrong = referee.rows_towards({"w": 1.5 * np.eye(30)[[3, 17]]}, budgets)["w"]

    assert right.distance(np.eye(30)[[3, 17]])[1].max() == 0
    assert wrong.distance(1.5 * np.eye(30)[[3, 17]])[0].max() > 0.1


def test_along_a_direction_the_sides_are_those_of_the_direction() -> None:
    directions = {"w": np.array([[1.0, -2.0]])}

    _, along = enclose_along(Rows(LOSSES["absolute"]), {"w": np.zeros(2)}, np.eye(2), np.zeros(2), directions)

    assert ends(Enclosed(along.balls, along.kinks)) == (-1.5, 1.5)


def test_where_the_gradient_jumps_a_second_derivative_is_not_called_wrong() -> None:
    problem, params, directions = (
        Rows(lambda xp, z, y: xp.maximum(z, 0 * z) ** 2 + xp.abs(z)),
        {"w": np.zeros(1)},
        {"w": np.ones((1, 1))},
    )

    products = enclose_products(problem, params, *ONE_ROW, directions)["w"]

    assert "the gradient bends or jumps, and has no one derivative: maximum (test_limits.py:" in products.reason
    assert products.distance([[0.5]])[1] == 0.0
    assert products.distance([[7.0]])[0] == 0.0
    assert products.distance([[7.0]])[1] == math.inf


def test_where_kinks_cancel_a_second_derivative_is_a_number() -> None:
    products = enclose_products(Rows(stable_cross_entropy), {"w": np.zeros(1)}, *ONE_ROW, {"w": np.ones((1, 1))})["w"]

    assert products.mid == pytest.approx(0.25)
    assert not products.kinks.any()


@pytest.mark.thorough
@pytest.mark.parametrize("derivative", ["jvp", "hvp", "hessian"])
def test_a_convention_of_ties_is_told_of_other_derivatives_too(derivative: str) -> None:
    """With the slope 0 of abs, and 0 of the maximum, the gradient is -y x, and no second derivative is left."""
    data, params = forty_rows(), {"w": np.zeros(3)}
    one, true = (np.mean((slope - data.targets)[:, None] * data.features, axis=0) for slope in (0.0, 0.5))
    said: dict[str, Any] = {
        "jvp": lambda p, x, y, v: (None, np.array(one @ v["w"])),
        "hvp": lambda *_: {"w": np.zeros(3)},
        "hessian": lambda *_: {"w": {"w": np.zeros((3, 3))}},
    }
    right: dict[str, Any] = {
        "jvp": lambda p, x, y, v: (None, np.array(true @ v["w"])),
        "hvp": lambda p, x, y, v: {"w": x.T @ (x @ v["w"]) / 160},
        "hessian": lambda p, x, y: {"w": {"w": x.T @ x / 160}},
    }
    both = {"ties": said[derivative], "right": right[derivative]}

    report = gdc.verify(
        Rows(stable_cross_entropy), data, params, backends=[], implementations=both, derivative=derivative
    )

    found = {entry.implementation: entry for entry in report.entries}
    assert found["right"].verdict == "agree"
    assert found["ties"].verdict == "wrong"
    assert found["ties"].cause.startswith("a convention: each tie decided by itself (abs ")


@pytest.mark.parametrize("derivative", ["gradient", "jvp", "hvp", "hessian"])
def test_an_overflow_is_named_with_its_line_in_each_derivative(derivative: str) -> None:
    pytest.importorskip("torch", reason="it needs a backend with all derivatives")
    problem, data = Rows(lambda xp, z, y: xp.exp(z)), Dataset([[800.0]], [0.0])

    report = gdc.verify(problem, data, {"w": [1.0]}, backends=["torch"], derivative=derivative)

    assert {entry.cause.partition("test_limits")[0] for entry in report.entries} == {
        "the budget is not finite: exp may overflow ("
    }
    assert all(entry.resolved[0] == 0 for entry in report.entries)


# Certificates, and what it costs.


def test_a_certificate_keeps_the_pieces_and_judges_by_them() -> None:
    data, params = Dataset(*ONE_ROW), {"a": 2.0, "b": 2.0}
    certificate = certify(Scalars(lambda xp, a, b: xp.maximum(a, b), "ab"), data, params)

    def says(a: float, b: float) -> Any:
        return lambda *_: (None, {"a": np.array(a), "b": np.array(b)})

    said = {"right": says(0.25, 0.75), "wrong": says(1.0, 1.0)}
    report = check_certificate(certificate, implementations=said)

    assert {entry.implementation for entry in report.entries if entry.verdict != "agree"} == {"wrong"}
    assert certificate["sections"]["float64"]["truth"]["a"]["pieces"]["values"] == [0, 0]


def test_where_a_derivation_rounds_nothing_the_truth_is_narrower_still() -> None:
    """The labels 0 and 1 balance: by hand the gradient is an exact 0, and a radius of 1e-39 would be too much."""
    problem = gdc.load_problem("hinge")
    data = Dataset([[1.0, 0.1], [0.3, 1.0], [2.0, 0.7]] * 2, [0.0, 1.0] * 3)

    gdc.verify(problem, data, problem.start(data), backends=["numpy"]).assert_agree()


def test_a_point_without_kinks_is_not_looked_beside() -> None:
    truth = enclose(Rows(stable_cross_entropy), {"w": np.array([0.5, 1.0, -2.0])}, *forty_rows_and_targets())

    assert truth.sides is None
    assert truth.precision == 128


def forty_rows_and_targets() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    data = forty_rows()
    return data.features, data.targets


def test_forty_rows_on_kinks_take_less_than_a_second() -> None:
    start = time.process_time()

    enclose(Rows(stable_cross_entropy), {"w": np.zeros(3)}, *forty_rows_and_targets())

    assert time.process_time() - start < 1.0


def test_at_a_kink_too_a_gradient_of_the_wrong_shape_is_wrong() -> None:
    data, mine = Dataset(np.ones((2, 1)), np.zeros(2)), {"axis": lambda *_: (None, {"w": np.ones((1, 1))})}

    report = gdc.verify(Rows(lambda xp, z, y: xp.abs(z)), data, {"w": [0.0]}, backends=[], implementations=mine)

    assert [(entry.verdict, entry.cause) for entry in report.entries] == [("wrong", "shape (1, 1) where (1,) belongs")]
