"""Every feature is tried on every backend, and what one of them has not is told by the table, and by nothing else."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.backend import Backend
from gdcompare.problem import Problem

from .capabilities import BEGIN, END, PAGE, rewritten, table
from .lacks import FEATURES, LACKS, Lack

DATA = gdc.Dataset([[1.0], [3.0]], [2.0, 4.0])
AT: dict[str, Any] = {"theta_0": 1.0, "theta_1": [0.0]}
ALONG: dict[str, Any] = {"theta_0": 1.0, "theta_1": [1.0]}


class Underived(Problem):
    """The sum of the parameters, squared, at each row: a loss and nothing else."""

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return {"x": (2,)}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return (params["x"][0] + params["x"][1] * features[:, 0]) ** 2


class Plus(Underived):
    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return +super().per_sample_losses(xp, params, features, targets)

    def per_sample_gradients(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        slopes = 2 * (params["x"][0] + params["x"][1] * features[:, 0])
        return {"x": xp.stack([slopes, slopes * features[:, 0]], axis=1)}


@pytest.mark.feature("gradient")
def test_a_gradient(backend: Backend[Any]) -> None:
    loss, gradient = gdc.value_and_grad("linear-regression", DATA, AT, backend)

    assert loss == 5
    assert {name: each.tolist() for name, each in gradient.items()} == {"theta_0": -4, "theta_1": [-10]}


@pytest.mark.feature("per-sample gradients")
def test_a_gradient_of_each_row(backend: Backend[Any]) -> None:
    gradients = gdc.per_sample_grad("linear-regression", DATA, AT, backend)

    assert gradients["theta_1"].tolist() == [[-2], [-18]]


@pytest.mark.feature("gradient of what nobody derived")
def test_a_gradient_of_what_nobody_derived(backend: Backend[Any]) -> None:
    _, gradient = gdc.value_and_grad(Underived(), DATA, {"x": [1.0, 2.0]}, backend)

    assert gradient["x"].tolist() == [10, 24]  # the mean of 2 * 3 * (1, 1) and 2 * 7 * (1, 3)


@pytest.mark.feature("jvp")
def test_a_derivative_along_a_direction(backend: Backend[Any]) -> None:
    assert gdc.jvp("linear-regression", DATA, AT, ALONG, backend) == (5, -14)


@pytest.mark.feature("hvp")
def test_a_hessian_vector_product(backend: Backend[Any]) -> None:
    product = gdc.hvp("linear-regression", DATA, AT, ALONG, backend)

    assert {name: each.tolist() for name, each in product.items()} == {"theta_0": 6, "theta_1": [14]}


@pytest.mark.feature("hessian")
def test_a_hessian(backend: Backend[Any]) -> None:
    blocks = gdc.hessian("linear-regression", DATA, AT, backend)

    assert (blocks["theta_0"]["theta_1"].tolist(), blocks["theta_1"]["theta_1"].tolist()) == ([4], [[10]])


@pytest.mark.feature("native models")
def test_a_door_for_models_as_they_are(backend_name: str) -> None:
    package = type(gdc.load_backend(backend_name)).__module__.partition(".")[0]
    module = gdc if backend_name == "numpy" else import_module(package)
    doors = {"numpy": "from_functions", "torch": "from_module"}

    assert callable(getattr(module, doors.get(backend_name, "from_function")))


@pytest.mark.feature("steps")
def test_the_steps_to_a_gradient(backend: Backend[Any]) -> None:
    point = {name: np.asarray(value) for name, value in AT.items()}

    steps = backend.trace(gdc.load_problem("linear-regression"), point, DATA.features, DATA.targets).steps  # type: ignore[attr-defined]  # a capability

    slopes = [each.value if each.cotangent is None else each.cotangent for each in steps]
    assert [-1.0, -3.0] in [np.ravel(each).tolist() for each in slopes if each is not None]  # dL/dr = 2/n r
    assert [-10.0] in [np.ravel(each).tolist() for each in slopes if each is not None]


@pytest.mark.feature("scan")
def test_a_loop(backend: Backend[Any]) -> None:
    fit = gdc.descend("linear-regression", DATA, backend, gdc.rules.sgd(0.125), epochs=1, start=AT)

    assert {name: each.tolist() for name, each in fit.parameters.items()} == {"theta_0": 1.5, "theta_1": [1.25]}


@pytest.mark.feature("unary plus")
def test_a_plus_before_a_loss(backend: Backend[Any]) -> None:
    _, gradient = gdc.value_and_grad(Plus(), DATA, {"x": [1.0, 2.0]}, backend)

    np.testing.assert_array_equal(gradient["x"], [10, 24])


@pytest.mark.feature("hvp")
@pytest.mark.one_in(6, "jax")
@pytest.mark.thorough
def test_a_hessian_vector_product_of_every_problem(backend_name: str, problem: Problem) -> None:
    data = gdc.datasets.example(problem)
    start = problem.start(data)

    product = gdc.hvp(problem, data, start, start, backend_name)

    assert {name: each.shape for name, each in product.items()} == problem.parameter_shapes(data)


@pytest.mark.feature("hessian")
@pytest.mark.one_in(6, "jax")
@pytest.mark.thorough
def test_a_hessian_of_every_problem(backend_name: str, problem: Problem) -> None:
    data = gdc.datasets.example(problem)

    blocks = gdc.hessian(problem, data, problem.start(data), backend_name)

    assert blocks.keys() == problem.parameter_shapes(data).keys()


def test_every_feature_is_tried_by_some_test() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    marks = re.findall(r"mark\.feature\((.*?)\)", sources)
    tried = {name for names in marks for name in re.findall(r'"([^"]+)"', names)}

    assert set(FEATURES) <= tried


def test_the_page_tells_what_the_table_tells() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert rewritten(page) == page, "write it anew: python -m tests.capabilities"


def test_another_table_would_be_another_page() -> None:
    more = Lack("notyet", "torch", "hessian", "it is Sunday", AssertionError)

    lines = table([*LACKS, more]).splitlines()

    assert table([*LACKS, more]) != table()
    assert lines[-1].endswith(". It is Sunday.")
    assert any(line.startswith("| **hessian**") and "not yet" in line.split("|")[-2] for line in lines)


def test_a_page_without_its_place_is_refused() -> None:
    with pytest.raises(ValueError, match=f"the page has no {BEGIN} ... {END}"):
        rewritten(f"{END} {BEGIN}")
