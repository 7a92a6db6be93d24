"""The door: every public function takes a problem, data and parameters by the same rules, and refuses them alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.case import Case, data_for
from gdcompare.referee.certificate import certify
from gdcompare.referee.counterexample import counterexample
from gdcompare.referee.methods import all_methods
from gdcompare.testing import assert_gradients_agree

PARAMS = {"theta_0": 1.0, "theta_1": [0.0]}
ALONG = {"theta_0": 1.0, "theta_1": [2.0]}

FILE = """
import numpy as np
import gdcompare as gdc

DATA = gdc.Dataset([[1.0], [2.0]], [3.0, 4.0], name="mine")
PAIR = ([[1.0], [2.0]], [3.0, 4.0])

def made():
    return PAIR

class Line(gdc.Problem):
    def __eq__(self, other):
        return isinstance(other, Line)
    def __hash__(self):
        return 1
    def parameter_shapes(self, data):
        return {"a": ()}
    def per_sample_losses(self, xp, params, features, targets):
        return (params["a"] * features[:, 0] - targets) ** 2
    def per_sample_gradients(self, xp, params, features, targets):
        return {"a": 2 * (params["a"] * features[:, 0] - targets) * features[:, 0]}
"""


def mine(params: Any, features: Any, targets: Any) -> Any:
    residuals = params["theta_0"] + features @ params["theta_1"] - targets
    return (residuals**2).mean(), {"theta_0": 2 * residuals.mean(), "theta_1": 2 * residuals @ features / len(targets)}


DOORS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "value_and_grad": lambda problem, data, params: gdc.value_and_grad(problem, data, params, "numpy"),
    "per_sample_grad": lambda problem, data, params: gdc.per_sample_grad(problem, data, params, "numpy"),
    "jvp": lambda problem, data, params: gdc.jvp(problem, data, params, ALONG, "numpy"),
    "hvp": lambda problem, data, params: gdc.hvp(problem, data, params, ALONG, "numpy"),
    "hessian": lambda problem, data, params: gdc.hessian(problem, data, params, "numpy"),
    "descend": lambda problem, data, params: gdc.descend(problem, data, "numpy", epochs=1, start=params),
    "verify": lambda problem, data, params: gdc.verify(problem, data, params, backends=["numpy"]),
    "attainable_digits": lambda problem, data, params: gdc.attainable_digits(problem, data, params, backends=["numpy"]),
    "check_batch_laws": lambda problem, data, params: gdc.check_batch_laws(problem, data, params, "numpy"),
    "certify": certify,
    "counterexample": lambda problem, data, params: counterexample(problem, "numpy", data, params),
    "all_methods": lambda problem, data, params: all_methods(problem, data, params, "numpy"),
    "assert_gradients_agree": lambda problem, data, params: assert_gradients_agree("numpy", problem, data, params),
}

REFUSED: dict[str, tuple[Any, Any, Any, type[Exception], str]] = {
    "unknown problem": ("linear-regresion", None, None, LookupError, "unknown problem 'linear-regresion'"),
    "a problem that cannot be hashed": (
        type("Odd", (gdc.Problem,), {"__eq__": lambda *_: True, "parameter_shapes": 1, "per_sample_losses": 1})(),
        None,
        None,
        TypeError,
        "problem Odd cannot be hashed",
    ),
    "unknown data": ("linear-regression", "noisy-lime", None, LookupError, "unknown data 'noisy-lime'"),
    "missing file": ("linear-regression", "none.csv", None, LookupError, "there is no file 'none.csv'"),
    "data of another kind": ("linear-regression", 3.0, None, ValueError, "a pair (features, targets), not float"),
    "rows that do not fit": ("linear-regression", ([[1.0]], [1.0, 2.0]), None, ValueError, "1 rows but targets have 2"),
    "NaN": ("linear-regression", ([[float("nan")]], [1.0]), None, ValueError, "features hold nan in row 0, column 0"),
    "targets that are no labels": ("logistic-regression", "noisy-line", None, ValueError, "takes targets 0 or 1"),
    "another name": ("linear-regression", None, {"theta_0": 1.0, "slope": [0.0]}, ValueError, "got slope, theta_0"),
    "another shape": ("linear-regression", None, {"theta_0": 1.0, "theta_1": 0.0}, ValueError, "shape (1,), not ()"),
    "infinite parameter": (
        "linear-regression",
        None,
        {"theta_0": float("inf"), "theta_1": [0.0]},
        ValueError,
        "parameter 'theta_0' holds inf",
    ),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", REFUSED)
def test_every_door_refuses_bad_input_in_the_same_words(door: str, case: str) -> None:
    problem, data, params, kind, words = REFUSED[case]

    with pytest.raises(kind) as error:
        DOORS[door](problem, data, params)

    assert words in str(error.value)


@pytest.mark.thorough
@pytest.mark.parametrize("door", DOORS)
def test_every_door_takes_names_and_nothing(door: str) -> None:
    DOORS[door]("linear-regression", "noisy-line", PARAMS)
    if door not in ("jvp", "hvp"):
        DOORS[door]("linear-regression", None, None)


def test_data_in_a_file_of_python_are_a_dataset_a_pair_or_what_a_function_returns(tmp_path: Path) -> None:
    file = tmp_path / "line_file.py"
    file.write_text(FILE)

    found = {name: data_for(gdc.load_problem(f"{file}:Line"), f"{file}:{name}") for name in ("DATA", "PAIR", "made")}

    assert [each.features.tolist() for each in found.values()] == [[[1.0], [2.0]]] * 3
    assert found["DATA"].name == "mine"
    assert gdc.verify(str(file), f"{file}:DATA", backends=["numpy"])
    with pytest.raises(ValueError, match="a pair \\(features, targets\\), not module"):
        data_for(gdc.load_problem(f"{file}:Line"), f"{file}:np")
    with pytest.raises(ValueError, match="has targets and weights of its own"):
        data_for(gdc.load_problem(f"{file}:Line"), f"{file}:DATA", "y")


def test_a_case_is_rounded_to_its_dtype_once() -> None:
    case = Case.of("linear-regression", ([[0.1]], [0.2]), {"theta_0": 0.3, "theta_1": [0.4]}, "float32", weights=[0.7])

    assert case.weights is not None
    arrays = [case.features, case.targets, case.weights, *case.params.values()]
    assert {str(each.dtype) for each in arrays} == {"float32"}
    assert case.features[0, 0] == np.float32(0.1)
    assert case.data.features[0, 0] == 0.1


@pytest.mark.parametrize(
    ("data", "params", "words"),
    [
        (([[1e39]], [0.0]), PARAMS, "features hold 1e+39, which is too large for float32"),
        (([[0.0]], [1e39]), PARAMS, "targets hold 1e+39"),
        (([[0.0]], [0.0]), {"theta_0": 1e39, "theta_1": [0.0]}, "parameter 'theta_0' holds 1e+39"),
    ],
)
@pytest.mark.parametrize("door", ["value_and_grad", "descend", "verify"])
def test_what_the_dtype_cannot_hold_is_refused(door: str, data: Any, params: Any, words: str) -> None:
    backend = gdc.load_backend("numpy", "float32")
    calls: dict[str, Callable[[], object]] = {
        "value_and_grad": lambda: gdc.value_and_grad("linear-regression", data, params, backend),
        "descend": lambda: gdc.descend("linear-regression", data, backend, start=params),
        "verify": lambda: gdc.verify("linear-regression", data, params, backends=[backend], dtype="float32"),
    }

    with pytest.raises(ValueError) as error:  # noqa: PT011 - the words follow
        calls[door]()

    assert words in str(error.value)


def test_data_of_float64_are_not_copied() -> None:
    case = Case.of("linear-regression", "noisy-line")

    assert np.shares_memory(case.features, case.data.features)


def test_a_case_on_other_rows_keeps_its_parameters() -> None:
    case = Case.of("linear-regression", "noisy-line", PARAMS)

    part = case.on(case.data.rows([0, 2]), "sum")

    assert (len(part.data), part.reduction, part.params is case.params) == (2, "sum", True)


def test_a_backend_of_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="computes in float32, but dtype='float64' is to be judged"):
        Case.of("linear-regression").backends([gdc.load_backend("numpy", "float32")])


def test_an_implementation_beside_the_backends_is_judged_on_the_same_case() -> None:
    assert gdc.verify("linear-regression", backends=[], implementations={"mine": mine})
