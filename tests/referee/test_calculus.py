"""Derivatives along directions, Hessian-vector products and Hessians: right ones agree, and wrong ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.backend import Backend, unit_roundoff
from gdcompare.case import Case
from gdcompare.gradients import derivative_function, offers
from gdcompare.problem import NotDerivedError, drawn_parameters
from gdcompare.referee.along import RefereeAlong
from gdcompare.referee.enclosure import enclose, enclose_products
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import Report
from gdcompare.registry import how_to_install
from tests.arithmetic.test_tape import GOALS, POINT, ROWS
from tests.formulas import FUNCTIONS, PROBLEMS, Formula, Network, drawn, some_weights

DERIVATIVES = ["jvp", "hvp", "hessian"]
OF_EACH_BACKEND = [pytest.param(name, marks=pytest.mark.feature(name)) for name in DERIVATIVES]
LATTICE = gdc.datasets.integer_lattice()
WHOLE = {"theta_0": 1.0, "theta_1": [2.0, -1.0, 3.0]}
LINEAR, LOGISTIC = gdc.load_problem("linear-regression"), gdc.load_problem("logistic-regression")
TWICE_DERIVED = [name for name in gdc.problem_names() if gdc.load_problem(name).twice_derived]


def plane(n: int = 24, d: int = 3, labels: bool = False, weighted: bool = False) -> gdc.Dataset:
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(n, d)), generator.normal(size=n)
    weights = some_weights(generator, n) if weighted else None
    return gdc.Dataset(features, (targets > 0) * 1.0 if labels else targets, "plane", weights)


# Right ones agree.


@pytest.mark.thorough
@pytest.mark.parametrize("derivative", OF_EACH_BACKEND)
@pytest.mark.parametrize(("reduction", "weighted"), [("mean", False), ("sum", True)])
def test_every_backend_agrees(backend: Backend[Any], derivative: str, reduction: str, weighted: bool) -> None:
    data = plane(labels=True, weighted=weighted)

    report = gdc.verify(
        LOGISTIC, data, backends=[backend], dtype=backend.dtype, reduction=reduction, derivative=derivative
    )

    report.assert_agree()
    assert all(entry.budget_fraction < 1 for entry in report.entries)
    assert all(entry.detectable < 1e5 * unit_roundoff(backend.dtype) for entry in report.entries)


@pytest.mark.parametrize("name", TWICE_DERIVED)
def test_second_derivatives_by_hand_are_those_of_the_loss(name: str) -> None:
    problem = gdc.load_problem(name)

    for dtype in ("float32", "float64"):
        data = gdc.datasets.example(problem)
        gdc.verify(problem, data, backends=["numpy"], dtype=dtype, derivative="hvp").assert_agree()


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_products_are_symmetric_and_linear_in_the_direction(problem: gdc.Problem) -> None:
    """(H v) . w = (H w) . v, and H (v + w) = H v + H w, on proven enclosures."""
    generator = np.random.default_rng(1)
    point = drawn(problem, generator)
    v, w = ({name: generator.normal(size=value.shape) for name, value in point[0].items()} for _ in range(2))
    directions = {name: np.stack([v[name], w[name], v[name] + w[name]]) for name in v}

    products = {name: each.mid for name, each in enclose_products(problem, *point, directions).items()}

    along_w, along_v = (sum(np.sum(products[name][i] * u[name]) for name in v) for i, u in ((0, w), (1, v)))
    assert along_w == pytest.approx(along_v, rel=1e-12)
    for each in products.values():
        np.testing.assert_allclose(each[0] + each[1], each[2], rtol=1e-9, atol=1e-12)


@pytest.mark.feature("hessian")
def test_the_hessian_of_linear_regression_is_twice_the_second_moments(backend: Backend[Any]) -> None:
    """2/n [1 X]^T [1 X], to the last bit on whole numbers."""
    n, design = len(LATTICE), np.column_stack([np.ones(len(LATTICE)), LATTICE.features])

    blocks = gdc.hessian(LINEAR, LATTICE, WHOLE, backend)
    report = gdc.verify(LINEAR, LATTICE, WHOLE, backends=[backend], dtype=backend.dtype, derivative="hessian")

    expected = 2 / n * design.T @ design
    assert blocks["theta_0"]["theta_0"] == expected[0, 0]
    assert blocks["theta_0"]["theta_1"].tolist() == expected[0, 1:].tolist()
    assert blocks["theta_1"]["theta_1"].tolist() == expected[1:, 1:].tolist()
    assert {entry.parameter: entry.error_ulps for entry in report.entries} == {
        "theta_0, theta_0": 0.0,
        "theta_0, theta_1": 0.0,
        "theta_1, theta_0": 0.0,
        "theta_1, theta_1": 0.0,
    }


@pytest.mark.feature(*DERIVATIVES)
def test_the_three_calls_are_about_one_loss(backend: Backend[Any]) -> None:
    data, v = plane(labels=True), {"theta_0": np.array(0.5), "theta_1": np.array([1.0, -1.0, 2.0])}
    params, rtol = drawn_parameters(LOGISTIC, data), 200 * unit_roundoff(backend.dtype)

    loss, along = gdc.jvp(LOGISTIC, data, params, v, backend)
    product = gdc.hvp(LOGISTIC, data, params, v, backend)
    blocks = gdc.hessian(LOGISTIC, data, params, backend)

    value, gradient = gdc.value_and_grad(LOGISTIC, data, params, backend)
    assert loss == pytest.approx(value, rel=rtol)
    assert along == pytest.approx(float(sum(np.vdot(gradient[name], v[name]) for name in v)), rel=rtol)
    for name, row in blocks.items():
        columns = np.stack([np.tensordot(row[other], v[other], v[other].ndim) for other in v])
        np.testing.assert_allclose(np.sum(columns, axis=0), product[name], rtol=rtol, atol=rtol)
        assert product[name].dtype == row[name].dtype == backend.dtype


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_no_differentiator_exceeds_its_budget(problem: gdc.Problem, derivative: str, dtype: str) -> None:
    backend = gdc.load_backend(pytest.importorskip("torch", reason="the quickest differentiator").__name__, dtype)
    generator = np.random.default_rng(4)

    for decades in (0.5, 1, 3):
        assert fraction(problem, backend, derivative, decades, generator) <= 1


@pytest.mark.thorough
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("backend_name", [pytest.param("torch"), pytest.param("jax", marks=pytest.mark.soundness)])
def test_no_differentiator_exceeds_the_budget_of_any_function(name: str, backend_name: str) -> None:
    if backend_name not in gdc.backend_names():
        pytest.skip(f"{backend_name}: {how_to_install(backend_name)}")
    problem, data = Formula(FUNCTIONS[name]), gdc.Dataset(ROWS, GOALS)
    for dtype in ("float32", "float64"):
        backend = gdc.load_backend(backend_name, dtype)

        report = gdc.verify(problem, data, POINT, backends=[backend], dtype=dtype, derivative="hvp")

        assert report.verdict != "wrong", report.explanation()


@pytest.mark.soundness
def test_no_backend_exceeds_its_budget_in_many_cases(capsys: pytest.CaptureFixture[str]) -> None:
    generator, names = np.random.default_rng(2027), gdc.backend_names()
    largest: dict[tuple[str, str], float] = {}
    for _ in range(4000):
        key, name = list(PROBLEMS)[generator.integers(len(PROBLEMS))], names[generator.integers(len(names))]
        dtype, derivative = ("float32", "float64")[generator.integers(2)], DERIVATIVES[generator.integers(3)]
        decades = [0.5, 1, 3, 18 if dtype == "float32" else 150][generator.integers(4)]
        backend = gdc.load_backend(name, dtype)
        if offers(backend, PROBLEMS[key], derivative):
            used = fraction(PROBLEMS[key], backend, derivative, decades, generator)
            largest[name, derivative] = max(used, largest.get((name, derivative), 0.0))
            assert used <= 1, (key, name, dtype, derivative, decades)

    with capsys.disabled():
        for kind, used in sorted(largest.items()):
            print(*kind, f"{used:.3f} of the budget at most")  # noqa: T201 - the report


@pytest.mark.soundness
@pytest.mark.parametrize("derivative", OF_EACH_BACKEND)
def test_every_backend_agrees_on_every_problem(problem: gdc.Problem, backend: Backend[Any], derivative: str) -> None:
    data = gdc.datasets.example(problem)

    report = gdc.verify(problem, data, backends=[backend], dtype=backend.dtype, derivative=derivative)

    report.assert_agree()


def fraction(
    problem: gdc.Problem, backend: Backend[Any], derivative: str, decades: float, generator: np.random.Generator
) -> float:
    """Return the largest share of a finite budget that is surely used at a drawn point, weighted now and then."""
    params, features, targets = drawn(problem, generator, 7, 2, backend.dtype, decades)
    weights = some_weights(generator, 7) if generator.random() < 0.3 else None
    data = gdc.Dataset(features, targets, weights=weights)
    referee = RefereeAlong(Referee(Case.of(problem, data, params, backend.dtype)), derivative)  # type: ignore[arg-type]
    budgets = referee.budgets(getattr(backend, "by_hand", False))

    with np.errstate(all="ignore"):
        loss, found = referee.backend_implementation(backend)(*referee.point)
        found = found if loss is None else {"loss": loss, **found}
        shares = [
            np.where(np.isfinite(budgets[name]), truth.distance(found[name])[0] / budgets[name], 0.0)
            for name, truth in referee.truths.items()
        ]
    return float(max(map(np.max, shares)))


# Wrong ones are refused.


def products_by_hand(params: Any, features: Any, targets: Any, direction: Any) -> Any:
    return LINEAR.hessian_vector_product(np, params, features, targets, direction)


def judged(function: Any, derivative: str = "hvp", problem: gdc.Problem = LINEAR, **settings: Any) -> Report:
    return gdc.verify(
        problem, plane(), backends=[], implementations={"mine": function}, derivative=derivative, **settings
    )


def causes(report: Report) -> set[str]:
    return {entry.cause for entry in report.entries if entry.verdict == "wrong"}


FAULTS: dict[str, tuple[Callable[[NDArray[Any]], Any], str]] = {
    "factor 2": (lambda h: 2 * h, "a constant factor 2 in "),
    "flipped sign": (lambda h: -h, "the sign is flipped"),
    "zero": (lambda h: 0 * h, "zero in every element"),
    "sum for mean": (lambda h: 24 * h, "a factor n = 24: a sum where a mean belongs"),
    "float32": (lambda h: h.astype(np.float32).astype(np.float64), "float32 inside float64"),
    "off by 1e-9": (lambda h: h * (1 + 1e-9), "a constant factor"),
    "an extra axis": (lambda h: h[None], "shape (1,"),
}


@pytest.mark.parametrize(("spoil", "cause"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_product_is_refused_and_its_cause_named(spoil: Callable[[Any], Any], cause: str) -> None:
    def faulty(*point: Any) -> Any:
        return {name: spoil(np.asarray(each)) for name, each in products_by_hand(*point).items()}

    right, wrong = judged(products_by_hand), judged(faulty)

    right.assert_agree()
    assert wrong.verdict == "wrong"
    assert any(cause in found for found in causes(wrong)), causes(wrong)


def test_a_hessian_without_the_curvature_of_the_prediction_is_refused() -> None:
    """The Gauss-Newton term alone, 2/n J^T J: the residual times the second derivative of tanh is missing."""
    problem = Network("tanh", width=2)

    def gauss_newton(params: Any, features: Any, targets: Any) -> Any:
        hidden = np.tanh(features @ params["inner"] + params["offsets"])
        through = params["outer"] * (1 - hidden**2)  # (n, h)
        jacobian = {
            "inner": features[:, :, None] * through[:, None, :],
            "offsets": through,
            "outer": hidden,
            "shift": np.ones(len(features)),
        }
        return {
            a: {b: 2 / len(features) * np.tensordot(rows, others, axes=(0, 0)) for b, others in jacobian.items()}
            for a, rows in jacobian.items()
        }

    report = judged(gauss_newton, "hessian", problem)

    verdicts = {entry.parameter: entry.verdict for entry in report.entries}
    assert verdicts["inner, inner"] == verdicts["inner, outer"] == "wrong"
    assert verdicts["outer, outer"] == verdicts["shift, shift"] == "agree"  # in which the prediction is linear


def test_a_transposed_block_is_named() -> None:
    problem = Network("tanh", width=3)

    def transposed(params: Any, features: Any, targets: Any) -> Any:
        truths = RefereeAlong(Referee(Case.of(problem, plane(), params)), "hessian").truths
        blocks = {name: {other: truths[f"{name}, {other}"].mid for other in params} for name in params}
        blocks["outer"]["offsets"] = blocks["outer"]["offsets"].T.copy()
        return blocks

    report = judged(transposed, "hessian", problem)

    assert [(entry.parameter, entry.cause) for entry in report.entries if entry.verdict == "wrong"] == [
        ("outer, offsets", "transposed")
    ]


def test_a_wrong_directional_derivative_is_refused_and_a_wrong_loss_too() -> None:
    def along(params: Any, features: Any, targets: Any, direction: Any) -> Any:
        loss, gradient = LINEAR.value_and_gradient(np, params, features, targets)
        return loss, sum(np.vdot(gradient[name], direction[name]) for name in params)

    def twice(*point: Any) -> Any:
        loss, derivative = along(*point)
        return loss, 2 * derivative

    def loss_of_a_sum(*point: Any) -> Any:
        loss, derivative = along(*point)
        return 24 * loss, derivative

    judged(along, "jvp").assert_agree()
    assert [entry.parameter for entry in judged(twice, "jvp").entries if entry.verdict == "wrong"] == ["derivative"]
    assert [e.parameter for e in judged(loss_of_a_sum, "jvp").entries if e.verdict == "wrong"] == ["loss"]


def test_an_implementation_that_changes_its_direction_is_told_so() -> None:
    def greedy(params: Any, features: Any, targets: Any, direction: Any) -> Any:
        found = products_by_hand(params, features, targets, direction)
        direction["theta_1"] *= 0
        return found

    assert causes(judged(greedy)) == {"it changed its inputs: direction 'theta_1'"}


# Kinks.


@pytest.mark.thorough
@pytest.mark.feature("hessian", "gradient of what nobody derived")
def test_at_a_kink_the_second_derivative_is_the_hull_of_the_one_sided_ones(backend: Backend[Any]) -> None:
    """max(x, 0)^2 at 0 has the second derivatives 0 and 2; |x| y has sign(x) in its mixed one."""
    problem = Formula(lambda xp, x, y: xp.maximum(x, xp.zeros_like(x)) ** 2 + xp.abs(x) * y)
    data = gdc.Dataset(np.ones((1, 3)), [0.0])
    params = {"a": [0.0, 1.0, 2.0], "b": [1.0, 1.0, 1.0]}

    report = gdc.verify(problem, data, params, backends=[backend], dtype=backend.dtype, derivative="hessian")
    five = (
        RefereeAlong(Referee(Case.of(problem, data, params, backend.dtype)), "hessian")
        .truths["a, a"]
        .distance(np.array([[5.0, 0, 0], [0, 4.0, 0], [0, 0, 6.0]]))
    )

    report.assert_agree()
    assert any("the gradient bends or jumps" in entry.cause for entry in report.entries)
    assert (five[0][0, 0], five[1][0, 0]) == (0, np.inf)  # outside, and not known to be wrong: |x| jumps in its slope


def test_rounding_that_hides_a_kink_is_allowed_for() -> None:
    """relu at 3 x 0.1 - 0.3, which is 0 but for rounding: a program may take either side, and its second derivative."""
    problem = Network("relu", width=1)
    params = {"inner": np.full((1, 1), 0.1), "offsets": np.array([-0.3]), "outer": np.ones(1), "shift": np.array(-1.0)}

    near, far = (
        RefereeAlong(Referee(Case.of(problem, gdc.Dataset([[x]], [0.0]), params)), "hessian").budgets(by_hand=False)
        for x in (3.0, 5.0)
    )

    assert near["offsets, offsets"][0, 0] > 1
    assert far["offsets, offsets"][0, 0] < 1e-14


# The report.


def test_a_report_says_which_derivative_it_is_about_and_along_which_direction() -> None:
    along = gdc.verify(LINEAR, LATTICE, WHOLE, backends=["numpy"], derivative="hvp")
    again = gdc.verify(
        LINEAR, LATTICE, WHOLE, backends=["numpy"], derivative="hvp", direction=along.context["direction"]
    )
    plain = gdc.verify(LINEAR, LATTICE, WHOLE, backends=["numpy"])

    assert along.context["derivative"] == "hvp"
    assert along.context["direction"].keys() == WHOLE.keys()
    assert along.entries == again.entries
    assert (plain.context["derivative"], plain.context["direction"]) == ("gradient", {})


# What cannot be, is said.


class Plain:
    """A backend that has gradients, and no more."""

    name, xp, by_hand, dtype = "plain", np, False, "float64"

    def __init__(self) -> None:
        self.asarray = self.to_numpy = np.asarray

    def value_and_grad(self, problem: gdc.Problem, reduction: str = "mean") -> Any:
        return lambda *arguments: problem.value_and_gradient(np, *arguments[:3])


@pytest.mark.thorough
def test_a_backend_without_the_derivative_is_refused_by_name_and_not_asked_by_default() -> None:
    underived = gdc.load_problem("tanh-network")

    with pytest.raises(NotDerivedError, match=r"backend 'numpy' has no hvp of \w+; those that have: "):
        gdc.verify(underived, gdc.datasets.example(underived), backends=["numpy"], derivative="hvp")
    with pytest.raises(NotDerivedError, match="backend 'plain' has no jvp of LinearRegression; those that have: "):
        derivative_function(Plain(), LINEAR, "jvp")  # type: ignore[arg-type]

    somebody: dict[str, Any] = {"somebody": lambda *_: {}}
    report = gdc.verify(underived, gdc.datasets.example(underived), implementations=somebody, derivative="hvp")
    assert "numpy" not in {entry.implementation for entry in report.entries}


def test_a_large_hessian_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        ValueError, match=r"a Hessian of 301 parameters has 90601 elements, .* along directions: derivative='hvp'"
    ):
        gdc.verify(LINEAR, plane(d=300), backends=["numpy"], derivative="hessian")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"derivative": "jacobian"}, "unknown derivative 'jacobian'; known: gradient, jvp, hvp, hessian"),
        ({"derivative": "hessian", "direction": WHOLE}, "a hessian has no direction"),
        ({"derivative": "gradient", "direction": WHOLE}, "a gradient has no direction"),
        ({"derivative": "hvp", "direction": {"theta_0": 1.0}}, "has the parameters theta_0, theta_1; got theta_0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gdc.verify(LINEAR, LATTICE, WHOLE, backends=["numpy"], **settings)


def test_the_gradient_of_a_referee_is_that_of_its_directional_derivatives() -> None:
    """Along unit vectors, a jvp is an element of the gradient: the two walks meet."""
    data, params = plane(), {"theta_0": np.array(0.25), "theta_1": np.array([0.5, -1.0, 2.0])}

    gradient = enclose(LINEAR, params, data.features, data.targets).gradient["theta_1"].mid
    along = [
        RefereeAlong(Referee(Case.of(LINEAR, data, params)), "jvp", {"theta_0": 0.0, "theta_1": unit}).truths[
            "derivative"
        ]
        for unit in np.eye(3)
    ]

    assert [float(each.mid) for each in along] == gradient.tolist()
