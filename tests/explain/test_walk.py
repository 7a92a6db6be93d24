"""One gradient in every way: what has one letter is one number, and what is wrong has none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare import Dataset, Problem
from gdcompare.backend import TraceStep
from gdcompare.explain.example import equations, sources, tiny_case
from gdcompare.explain.walk import Explanation, shown

QUICK = ["hinge", "linear-regression", "softmax-regression"]
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.thorough) for name in gdc.problem_names()]


@pytest.fixture(scope="module")
def line() -> Explanation:
    return gdc.walk_through("linear-regression")


def step_of(found: Explanation, program: str, name: str) -> TraceStep:
    (trace,) = (each for each in found.traces if each.name == program)
    (step,) = (each for each in trace.steps if each.name == name)
    return step


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_all_that_has_one_letter_is_one_number(name: str) -> None:
    found = gdc.walk_through(name)

    assert found.marks
    for mark in found.marks:
        assert len(mark.found) > 1
        for program, places in mark.found.items():
            for place, factor in places:
                step = step_of(found, program, place)
                number = step.value if step.cotangent is None else step.cotangent
                assert number is not None
                np.testing.assert_allclose(np.ravel(number), factor * np.ravel(mark.value), rtol=1e-9, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_each_parameters_gradient_is_in_every_program(name: str) -> None:
    found = gdc.walk_through(name)
    programs = [trace.name for trace in found.traces if trace.name != "each sample"]
    truth = found.ways[0].gradient

    for parameter, gradient in truth.items():
        marks = [mark for mark in found.marks if np.array_equal(np.ravel(mark.value), np.ravel(gradient))]
        if np.any(gradient != 0):
            assert marks, parameter
            assert set(programs) <= set(marks[0].found), parameter


@pytest.mark.parametrize("name", NAMES)
def test_every_way_gives_the_gradient(name: str) -> None:
    found = gdc.walk_through(name)

    by = {way.name: way for way in found.ways}
    assert {"the truth", "complex-step", "finite-differences", *gdc.backend_names()} == set(by)
    for way in by.values():
        for parameter, value in found.ways[0].gradient.items():
            np.testing.assert_allclose(way.gradient[parameter], value, rtol=1e-5, atol=1e-7)


def test_the_referees_pass_can_be_followed_with_a_pencil() -> None:
    data = Dataset([[1.0], [2.0], [4.0]], [2.0, 3.0, 9.0])

    found = gdc.walk_through("linear-regression", data, {"theta_0": 1, "theta_1": [1]}, backends=[])

    steps = {step.label or step.name: step for step in found.traces[0].steps}
    assert steps["residuals"].value.tolist() == [0, 0, -4]  # type: ignore[union-attr]
    assert steps["losses"].value.tolist() == [0, 0, 16]  # type: ignore[union-attr]
    np.testing.assert_allclose(steps["losses"].cotangent, [1 / 3] * 3)  # type: ignore[arg-type]
    np.testing.assert_allclose(steps["residuals"].cotangent, [0, 0, -8 / 3])  # type: ignore[arg-type]
    np.testing.assert_allclose(steps["theta_0"].cotangent, -8 / 3)  # type: ignore[arg-type]
    np.testing.assert_allclose(steps["theta_1"].cotangent, [-32 / 3])  # type: ignore[arg-type]


def test_a_framework_shows_its_steps_with_values_and_derivatives(line: Explanation, backend_name: str) -> None:
    if not hasattr(gdc.load_backend(backend_name), "trace"):
        pytest.skip("it has no steps to show: see tests/lacks.py")
    letters = {mark.letter: mark.found.get(backend_name) for mark in line.marks}

    residuals = next(mark for mark in line.marks if mark.of == "residuals")

    assert letters[residuals.letter]
    assert all(step.value is not None for trace in line.traces for step in trace.steps)


def test_a_wrong_derivation_has_no_letter() -> None:
    class Wrong(Problem):
        def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
            return {"w": data.features.shape[1:]}

        def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
            r = features @ params["w"] - targets
            return r * r

        def per_sample_gradients(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            r = features @ params["w"] - targets
            return {"w": 2.001 * r[:, None] * features}

    found = gdc.walk_through(Wrong(), backends=["autograd"] if "autograd" in gdc.backend_names() else ["numpy"])

    assert all("by hand" not in mark.found for mark in found.marks)
    assert "[" not in "".join(row[-1] for row in found.steps_table(found.traces[1]).rows)


def test_what_is_not_installed_is_left_out_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "backend 'abacus' needs 'abacus': pip install 'gdcompare[abacus]'"
    monkeypatch.setattr("gdcompare.explain.walk.registered_backends", lambda: ["abacus"])
    monkeypatch.setattr("gdcompare.explain.walk.how_to_install", lambda _: words)

    found = gdc.walk_through("linear-regression")

    assert found.left_out == (words,)
    assert f"left out: {words}" in str(found)
    assert "pip install &#x27;gdcompare[abacus]&#x27;" in found.html()
    assert gdc.walk_through("linear-regression", backends=["numpy"]).left_out == ()


def test_a_problem_without_a_derivation_is_shown_without_one() -> None:
    class Bare(Problem):
        def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
            return {"w": data.features.shape[1:]}

        def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
            return xp.exp(features @ params["w"])

    found = gdc.walk_through(Bare(), backends=[])

    assert [trace.name for trace in found.traces] == ["referee"]
    assert "Derived by hand" not in str(found)


def test_at_a_kink_it_says_so() -> None:
    data = Dataset([[1.0], [0.5], [2.0]], [1.0, 0.0, 1.0])

    found = gdc.walk_through("hinge", data, {"theta_0": 0.0, "theta_1": [1.0]}, backends=["numpy"])

    assert len(found.kinks) == 1
    assert "The loss bends here: maximum (hinge.py:" in str(found)
    assert "The loss bends here" in found.html()


def test_a_function_that_complex_numbers_cannot_take_costs_one_row_alone() -> None:
    class Floored(Problem):
        def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
            return {"w": data.features.shape[1:]}

        def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
            z = features @ params["w"]
            return xp.astype(z, xp.int64) + z

    found = gdc.walk_through(Floored(), backends=[])

    by = {way.name: way for way in found.ways}
    assert by["complex-step"].gradient == {} or by["complex-step"].note == "approximate"
    assert by["the truth"].gradient
    assert str(found)


def test_the_page_needs_nothing_and_all_its_links_lead_somewhere(line: Explanation) -> None:
    page = line.html()

    assert page.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?:|<script|<link|@import|url\(|src=", page)
    anchors = re.findall(r' id="([^"]*)"', page)
    assert len(anchors) == len(set(anchors))
    targets = re.findall(r'href="#([^"]*)"', page)
    assert targets
    assert set(targets) <= set(anchors)
    assert len(page) < 100_000


def test_names_that_would_break_a_page_are_escaped() -> None:
    class Named(Problem):
        """A <script> in a docstring.

        l_i = <b>w</b>
        """

        def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
            return {'"><script>': data.features.shape[1:]}

        def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
            a = features @ params['"><script>']
            return a * a

    page = gdc.walk_through(Named(), backends=[]).html()

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert all(re.fullmatch(r"[\w-]+", each) for each in re.findall(r' id="([^"]*)"', page))


def test_it_shows_itself_everywhere(line: Explanation) -> None:
    assert repr(line).startswith("Explanation(LinearRegression on 3 samples: referee, by hand, each sample")
    assert line._repr_html_().startswith('<div class="gx ')
    found = json.loads(line.to_json())
    assert [mark["letter"] for mark in found["marks"]] == [mark.letter for mark in line.marks]
    assert [program["name"] for program in found["programs"]] == [trace.name for trace in line.traces]
    assert found["programs"][0]["steps"][0]["cotangent"] == pytest.approx(line.ways[0].gradient["theta_0"].item())


@pytest.mark.parametrize("name", NAMES)
def test_tables_stand_in_100_columns(name: str) -> None:
    text = str(gdc.walk_through(name, backends=[]))

    in_tables = [row for row in text.splitlines() if re.search(r"\S {2,}\S", row)]
    assert in_tables
    assert max(len(row) for row in in_tables if not row.startswith("    ")) <= 100


def test_float32_has_the_same_letters() -> None:
    found = gdc.walk_through("logistic-regression", dtype="float32", backends=["numpy"])

    assert {"by hand", "each sample"} <= {name for mark in found.marks for name in mark.found}


def test_the_example_is_three_samples_with_short_decimals() -> None:
    case = tiny_case("poisson-regression")

    assert len(case.data) == 3
    for numbers in (case.features, case.targets, *case.params.values()):
        np.testing.assert_array_equal(numbers, np.round(numbers, 1))
        assert not any(np.any(each == 0) for each in case.params.values())


def test_data_that_are_given_are_taken_as_they_are() -> None:
    data = gdc.datasets.noisy_line()

    case = tiny_case("linear-regression", data)

    np.testing.assert_array_equal(case.features, data.features[:3])


def test_weights_are_refused() -> None:
    data = Dataset([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0], weights=[1, 2, 3])

    with pytest.raises(ValueError, match="explain takes no sample weights"):
        gdc.walk_through("linear-regression", data)


def test_the_formulas_behind_a_loss_are_found_with_what_they_call() -> None:
    hinge = gdc.load_problem("hinge")

    names = [each.name for each in sources(hinge, "per_sample_losses")]

    assert names == ["per_sample_losses", "losses"]
    assert "m_i = t_i" in equations(hinge)


def test_numbers_are_shown_short() -> None:
    assert shown(None) == "not kept"
    assert shown(np.array([True, False])) == "True, False"
    assert shown(np.float64(2.0)) == "2"
