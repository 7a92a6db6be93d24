"""One gradient: of the whole data and of each sample, warm and for the first time, and what the seam itself costs.

Every group has one problem, size and dtype; the contenders stand side by side. The sizes go from what is all overhead
(n = 40, the seed's) to what is all memory traffic (n = 100 000).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.timing.contender import NOTHING, Contender, Judgement

from . import contenders
from .checked import Right, gradient_case, judge_of, off_by, problem_case
from .conftest import Measure
from .contenders import GRADIENTS_BY_HAND, NullBackend

pytestmark = pytest.mark.benchmark(max_time=0.15)

every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
every_length = pytest.mark.parametrize("n", [40, 1000, 100_000])


@every_dtype
@every_length
@pytest.mark.parametrize(
    ("problem_name", "d"), [("linear-regression", 2), ("linear-regression", 20), ("logistic-regression", 2)]
)
def test_gradient(problem_name: str, n: int, d: int, dtype: str, backend_name: str, measure: Measure) -> None:
    """Loss and gradient from device arrays to device arrays; conversion excluded."""
    case = gradient_case(problem_name, n, d)

    measure(f"gradient, {case}, {dtype}", contenders.gradient(case, gdc.load_backend(backend_name, dtype)))


@pytest.mark.parametrize("n", [40, 10_000])
@pytest.mark.parametrize("problem_name", gdc.problem_names())
def test_gradient_of_every_problem(problem_name: str, n: int, backend_name: str, measure: Measure) -> None:
    """The same for each problem of the library, at its own data, in float64."""
    backend = gdc.load_backend(backend_name)
    case = problem_case(problem_name, n, backend.by_hand)

    measure(f"gradient, {case}", contenders.gradient(case, backend))


@every_dtype
@every_length
def test_gradient_there_and_back(n: int, dtype: str, backend_name: str, measure: Measure) -> None:
    """`gdc.value_and_grad`: checks, transfer there, loss and gradient, transfer back."""
    case = gradient_case("linear-regression", n, 2)

    contender = contenders.gradient_there_and_back(case, gdc.load_backend(backend_name, dtype))
    measure(f"gradient, {case}, {dtype}", contender)


@every_dtype
@every_length
@pytest.mark.parametrize("name", GRADIENTS_BY_HAND)
def test_gradient_by_hand(name: str, n: int, dtype: str, measure: Measure) -> None:
    """The same in the framework itself; conversion excluded."""
    case = gradient_case("linear-regression", n, 2)

    measure(f"gradient, {case}, {dtype}", contenders.gradient_by_hand(case, name, dtype))


@every_dtype
@every_length
def test_per_sample_gradients(n: int, dtype: str, backend_name: str, measure: Measure) -> None:
    """One gradient for each row, by each backend's own way: NumPy's by hand, the others' by vmap."""
    if backend_name == "autograd" and n > 1000:
        pytest.skip("a backward pass for each row: many seconds a call")
    case = gradient_case("linear-regression", n, 2)

    backend = gdc.load_backend(backend_name, dtype)
    name = f"{backend_name}, by hand" if backend.by_hand else f"{backend_name}, vmap"
    measure(f"per-sample gradients, {case}, {dtype}", contenders.per_sample_gradients(case, backend, name))


@every_dtype
@pytest.mark.parametrize("n", [40, 1000])
def test_per_sample_gradients_by_a_loop(n: int, dtype: str, measure: Measure) -> None:
    """One backward pass for each row: what vmap saves."""
    pytest.importorskip("torch", reason="torch is not installed")
    case = gradient_case("linear-regression", n, 2)

    backend = gdc.load_backend("torch", dtype, variant="loop")
    measure(f"per-sample gradients, {case}, {dtype}", contenders.per_sample_gradients(case, backend, "torch, loop"))


def test_first_gradient(backend_name: str, measure: Measure) -> None:
    """The first call, which traces and compiles where there is something to compile; the framework is loaded."""
    case = gradient_case("linear-regression", 1000, 2)

    contender = contenders.gradient(case, gdc.load_backend(backend_name))
    measure(f"first call, gradient, {case}, float64", contender, first_call=True)


# The empty seam


def test_nothing_at_all(measure: Measure) -> None:
    """What timing adds to every row of every table."""
    measure("the empty seam, n=40, d=2", NOTHING)


def test_empty_seam(measure: Measure) -> None:
    """The function that a backend returns, where it computes nothing."""
    case = gradient_case("linear-regression", 40, 2)
    backend = NullBackend()

    measure("the empty seam, n=40, d=2", _returns_the_parameters(contenders.gradient(case, backend), "value_and_grad"))


def test_empty_seam_there_and_back(measure: Measure) -> None:
    """`gdc.value_and_grad` around a backend that computes nothing: the checks and the copies."""
    case = gradient_case("linear-regression", 40, 2)
    backend = NullBackend()

    contender = contenders.gradient_there_and_back(case, backend)
    measure("the empty seam, n=40, d=2", _returns_the_parameters(contender, "gdc.value_and_grad"))


def test_finding_by_name(measure: Measure) -> None:
    """`load_problem` and `load_backend`: what a name costs more than a value, in each call that takes one."""

    def find() -> Any:
        return gdc.load_problem("linear-regression"), gdc.load_backend("numpy")

    def found(answer: Any) -> Judgement:
        assert [type(each).__name__ for each in answer] == ["LinearRegression", "NumpyBackend"]
        return off_by(0)

    measure("the empty seam, n=40, d=2", Contender("problem, backend by name", find, found))


def _returns_the_parameters(contender: Contender, name: str) -> Contender:
    params = gradient_case("linear-regression", 40, 2).params
    right = {key: Right(value, np.zeros_like(value)) for key, value in params.items()}
    right["loss"] = right["theta_0"]
    return Contender(name, contender.call, judge_of(_read, right, "float64"))


def _read(answer: Any) -> dict[str, Any]:
    loss, given = answer
    return {"loss": np.asarray(loss), **given}
