"""Approximate gradients: what they are off by, that the referee says so, and that a complex step is off by nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import gdcompare as gdc
from gdcompare.backend import unit_roundoff
from gdcompare.cli import commands
from gdcompare.registry import approximation_names

AT = {"theta_0": 1.0, "theta_1": [0.25]}


def test_a_complex_step_agrees_on_every_problem(problem: gdc.Problem, dtype: str) -> None:
    data = gdc.datasets.example(problem)
    few = gdc.Dataset(data.features[:10], data.targets[:10])

    report = gdc.verify(problem, few, backends=["complex-step"], dtype=dtype)

    assert [entry for entry in report.entries if entry.verdict == "wrong"] == []


def test_finite_differences_are_wrong_and_said_to_be_approximate(dtype: str) -> None:
    report = gdc.verify("logistic-regression", _labels(), AT, backends=["finite-differences"], dtype=dtype)

    step = {"float64": "7.6e-06", "float32": "0.0039"}[dtype]
    assert report.verdict == "wrong"
    assert {(entry.parameter == "loss", entry.verdict, entry.cause) for entry in report.entries} >= {
        (True, "agree", ""),
        (False, "wrong", f"an approximation by central differences with step h = {step} max(1, |x|)"),
    }


def test_finite_differences_keep_two_thirds_of_the_digits(dtype: str) -> None:
    data = _labels()
    _, right = gdc.value_and_grad("logistic-regression", data, AT, "numpy")

    _, found = gdc.value_and_grad("logistic-regression", data, AT, gdc.load_backend("finite-differences", dtype))

    for name, value in right.items():
        assert 0 < np.max(np.abs(found[name] - value)) < 2 * unit_roundoff(dtype) ** (2 / 3)


@pytest.mark.parametrize(("step", "error"), [(1e-2, 1e-4), (1e-4, 1e-8)])
def test_truncation_errs_by_the_square_of_the_step(step: float, error: float) -> None:
    backend = gdc.load_backend("finite-differences", step=step)
    _, right = gdc.value_and_grad("logistic-regression", _labels(), AT, "numpy")

    _, found = gdc.value_and_grad("logistic-regression", _labels(), AT, backend)

    assert found["theta_0"] != right["theta_0"]
    assert found["theta_0"] == pytest.approx(right["theta_0"], abs=error)


@pytest.mark.parametrize("name", approximation_names())
def test_on_whole_numbers_the_slopes_of_a_parabola_are_exact(name: str, dtype: str) -> None:
    data = gdc.Dataset([[1.0, 2.0], [3.0, -1.0], [0.0, 2.0], [1.0, 1.0]], [1.0, -2.0, 0.0, 3.0])
    params = {"theta_0": 2.0, "theta_1": [1.0, -3.0]}

    found = gdc.per_sample_grad("linear-regression", data, params, gdc.load_backend(name, dtype))

    for key, value in gdc.per_sample_grad("linear-regression", data, params, "numpy").items():
        np.testing.assert_array_equal(found[key], value.astype(dtype), strict=True)


@pytest.mark.parametrize("name", approximation_names())
def test_an_approximation_descends_as_the_gradient_does(name: str) -> None:
    data = gdc.datasets.noisy_line()

    fit = gdc.descend("linear-regression", data, name, batch_size=7, epochs=3)

    for key, value in gdc.descend("linear-regression", data, "numpy", batch_size=7, epochs=3).parameters.items():
        np.testing.assert_allclose(fit.parameters[key], value, rtol=1e-8)


@pytest.mark.parametrize("step", [0.0, -1e-6, float("nan"), float("inf")])
def test_a_step_that_is_none_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match=r"^step must be a finite number above 0, not "):
        gdc.load_backend("finite-differences", step=step)


@pytest.mark.parametrize("name", approximation_names())
def test_an_approximation_refuses_what_it_has_not(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^backend '{name}' has no device 'gpu'; it runs on 'cpu'$"):
        gdc.load_backend(name, device="gpu")


def test_another_mistake_of_an_approximation_is_not_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = gdc.load_backend("finite-differences")
    monkeypatch.setattr(type(backend), "to_numpy", lambda self, array: np.asarray(array, np.float32))

    report = gdc.verify("linear-regression", gdc.datasets.noisy_line(), AT, backends=[backend])

    assert {entry.cause for entry in report.entries[1:]} == {"dtype float32 where float64 belongs"}


def test_the_list_shows_them_apart_from_the_backends() -> None:
    answer = CliRunner().invoke(commands, ["list", "--json", "-"])

    listed = json.loads(answer.stdout)
    assert listed["approximations"] == dict.fromkeys(approximation_names(), "installed")
    assert listed["backends"].keys().isdisjoint(approximation_names())
    assert "approximation" in answer.stderr


def _labels() -> gdc.Dataset:
    return gdc.datasets.example(gdc.load_problem("logistic-regression"))
