"""Real data through the whole: proven verdicts on scikit-learn's sets, and on polynomials of raw x in the thousands."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from flint import fmpq, fmpq_mat
from numpy.typing import NDArray

from gdcompare import Dataset, backend_names, datasets, load_problem, verify
from gdcompare.authoring.faults import FAULTS, by_hand
from gdcompare.case import Case
from gdcompare.cli import commands
from gdcompare.problems.polynomial_regression import PolynomialRegression
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import Entry

Params = dict[str, NDArray[np.float64]]

# A delta of 50 lets some of the residuals of diabetes, about 150, be small.
FITS = [
    ("linear-regression", "diabetes", {}),
    ("ridge-regression", "diabetes", {}),
    ("huber-regression", "diabetes", {"delta": 50.0}),
    ("logistic-regression", "breast-cancer", {}),
    ("hinge", "breast-cancer", {}),
    ("softmax-regression", "wine", {}),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "data", "settings"), FITS)
def test_every_backend_agrees_on_real_data(name: str, data: str, settings: dict[str, Any], dtype: str) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn bundles the data")

    report = verify(load_problem(name, **settings), data, dtype=dtype)

    report.assert_agree()
    assert {entry.implementation for entry in report.entries} == set(backend_names())
    assert max(entry.detectable for entry in report.entries) < {"float64": 1e-9, "float32": 0.5}[dtype]


@pytest.mark.thorough
def test_every_backend_agrees_on_digits(dtype: str) -> None:
    """300 rows, which hold all digits; the command line below takes all 1797."""
    pytest.importorskip("sklearn", reason="scikit-learn bundles the data")
    problem = load_problem("softmax-regression")
    whole = datasets.suited(problem, datasets.digits())

    report = verify(problem, Dataset(whole.features[:300], whole.targets[:300], "digits"), dtype=dtype)

    report.assert_agree()


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "data", "settings"), [*FITS, ("softmax-regression", "digits", {})])
def test_the_command_line_agrees_on_real_data(name: str, data: str, settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn bundles the data")
    path = tmp_path / "verdict.json"
    options = [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
    command = ["verify", name, "--data", data, "--backend", "numpy", "--json", str(path), *options]

    done = CliRunner().invoke(commands, command)

    assert done.exit_code == 0, done.output
    assert json.loads(path.read_text())["context"]["data"] == data


# Polynomials of degree 10 in x from 1000 to 3000: x^20 is of the order of 1e68, and gradients are huge.

DECIC = PolynomialRegression(degree=10)


def raw_data(scale: int = 1) -> Dataset:
    """A wave and noise over whole numbers x."""
    generator = np.random.default_rng(0)
    x = np.sort(generator.choice(np.arange(1000, 3001), 50, replace=False))
    return Dataset(scale * x, 50 + 20 * np.sin(x / 300) + generator.standard_normal(50), name="raw")


def optimum(data: Dataset) -> Params:
    """Solve the normal equations in rational arithmetic, and round to the nearest floats."""
    powers = fmpq_mat([[fmpq(int(x)) ** j for j in range(DECIC.degree + 1)] for x in data.features[:, 0]])
    targets = fmpq_mat([[fmpq(*y.as_integer_ratio())] for y in data.targets.tolist()])
    solution = (powers.transpose() * powers).solve(powers.transpose() * targets)
    return {"theta": np.array([float(Fraction(int(each.p), int(each.q))) for each in solution.entries()])}


def nearby(data: Dataset) -> Params:
    """A thousandth off the optimum, where less cancels."""
    return {"theta": optimum(data)["theta"] * (1 + 1e-3 * np.arange(11))}


def zero(data: Dataset) -> Params:
    """Far off, where nothing does."""
    return {"theta": np.zeros(11)}


POWERS: dict[Callable[[Dataset], Params], float] = {optimum: 1e3, nearby: 1e-3, zero: 1e-12}
"""The relative fault that can surely be detected at each."""


def judged(implementation: Callable[..., Any], params: Params) -> Entry:
    """Return the judgement of the gradient."""
    report = verify(DECIC, raw_data(), params, backends=[], implementations={"planted": implementation})
    return next(entry for entry in report.entries if entry.parameter == "theta")


@pytest.mark.thorough
def test_at_the_optimum_a_gradient_of_1e26_is_right_from_every_backend() -> None:
    """Rounding theta to floats leaves that much of it, and the terms that cancel are 1e14 times as large."""
    data = raw_data()

    report = verify(DECIC, data, optimum(data))

    report.assert_agree()
    assert {entry.implementation for entry in report.entries} == set(backend_names())
    assert np.abs(Referee(Case.of(DECIC, data, optimum(data))).truths["theta"].mid[-1]) > 1e25


def test_the_truth_at_the_optimum_is_that_of_exact_fractions() -> None:
    data = raw_data()
    params = optimum(data)
    theta, x, y = (list(map(Fraction, each.tolist())) for each in (params["theta"], data.features[:, 0], data.targets))
    residuals = [sum(t * a**j for j, t in enumerate(theta)) - b for a, b in zip(x, y, strict=True)]

    gradient = [2 * sum(r * a**j for r, a in zip(residuals, x, strict=True)) / 50 for j in range(11)]

    assert Referee(Case.of(DECIC, data, params)).truths["theta"].mid.tolist() == list(map(float, gradient))


@pytest.mark.parametrize("point", POWERS)
def test_a_fault_just_above_what_is_detectable_is_wrong(point: Callable[[Dataset], Params]) -> None:
    params, correct = point(raw_data()), by_hand(DECIC)
    truth = Referee(Case.of(DECIC, raw_data(), params)).truths["theta"].mid
    power = judged(correct, params).detectable

    def scaled(*arguments: Any) -> tuple[Any, Any]:
        return correct(*arguments)[0], {"theta": truth * (1 + 1.01 * power)}

    assert judged(scaled, params).verdict == "wrong"
    assert power < POWERS[point]


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        ("dropped last sample", [optimum, nearby, zero]),
        ("doubled last sample", [optimum, nearby, zero]),
        ("flipped sign", [nearby, zero]),
        ("factor 2", [nearby, zero]),
        ("one component times 1 + 1e-3", [nearby, zero]),
        ("one component times 1 + 1e-6", [zero]),
        ("one component times 1 + 1e-11", [zero]),
    ],
)
def test_a_planted_fault_is_wrong_where_the_report_says_that_it_can_be(fault: str, noticed: list[Any]) -> None:
    """At the optimum only rounding is left, which may as well have the other sign; a sample more or less may not."""
    planted = FAULTS[fault](by_hand(DECIC))

    found = {point: judged(planted, point(raw_data())) for point in POWERS}

    assert [point for point, entry in found.items() if entry.verdict == "wrong"] == noticed
    assert {entry.verdict for entry in found.values()} <= {"wrong", "agree"}


@pytest.mark.parametrize("scale", [1, 10])
@pytest.mark.parametrize("point", [optimum, nearby])
def test_what_overflows_in_float32_is_never_called_wrong(scale: int, point: Callable[[Dataset], Params]) -> None:
    """x^10 is 6e34 at most, or 6e44 at ten times the scale: the largest float32 is 3e38."""
    data = raw_data(scale)

    report = verify(DECIC, data, point(data), dtype="float32")

    assert {entry.verdict for entry in report.entries} <= {"agree", "inconclusive"}
    assert scale == 1 or report.verdict == "inconclusive"
