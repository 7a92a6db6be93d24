"""No right backend is ever called wrong, and no wrong one right, whatever Hypothesis draws."""

from __future__ import annotations

from typing import Any

import pytest

import gdcompare as gdc
from gdcompare.authoring.faults import FAULTS, by_hand
from gdcompare.backend import Backend

pytest.importorskip("hypothesis", reason="hypothesis draws the data")

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agreement import rounded
from tests.strategies import data_sets, parameters, shapes


@pytest.fixture(scope="session")
def problem(linear_model: gdc.Problem) -> gdc.Problem:
    """Every new shape is a compilation: other problems have one shape each, in test_problems."""
    return linear_model


@pytest.mark.covering
@pytest.mark.thorough
@settings(deadline=None, max_examples=25)
@given(draw=st.data())
def test_no_right_backend_is_called_wrong_at_any_scale(
    backend: Backend[Any], problem: gdc.Problem, draw: st.DataObject
) -> None:
    data = rounded(draw.draw(data_sets(problem, shapes(backend))), backend.dtype)
    params = draw.draw(parameters(problem, data, backend.dtype))

    report = gdc.verify(problem, data, params, backends=[backend], dtype=backend.dtype)

    assert report.verdict != "wrong", report.explanation()


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.one_in(2, "jax")
@settings(deadline=None, max_examples=4)
@given(draw=st.data())
def test_every_batch_law_holds_at_any_scale(backend: Backend[Any], problem: gdc.Problem, draw: st.DataObject) -> None:
    data = rounded(draw.draw(data_sets(problem, shapes(backend))), backend.dtype)
    params = draw.draw(parameters(problem, data, backend.dtype))

    report = gdc.check_batch_laws(problem, data, params, backend)

    assert report.verdict != "wrong", report.explanation()


@pytest.mark.thorough
@settings(deadline=None, max_examples=40)
@given(
    draw=st.data(), fault=st.sampled_from(["flipped sign", "factor 2", "sum for mean", "one component times 1 + 1e-9"])
)
def test_a_fault_above_the_detection_power_is_called_wrong_at_any_scale(
    problem: gdc.Problem, draw: st.DataObject, fault: str
) -> None:
    data = draw.draw(data_sets(problem, st.tuples(st.integers(2, 20), st.integers(1, 4))))
    params = draw.draw(parameters(problem, data))
    correct = by_hand(problem)

    right = gdc.verify(problem, data, params, backends=[], implementations={"": correct})
    wrong = gdc.verify(problem, data, params, backends=[], implementations={"": FAULTS[fault](correct)})

    point = params, data.features, data.targets
    before, after = correct(*point)[1], FAULTS[fault](correct)(*point)[1]
    changed = any((before[name] != after[name]).any() for name in before)  # a component may be 0
    theta_1 = next(entry for entry in right.entries if entry.parameter == "theta_1")
    if changed and theta_1.expected != 0 and theta_1.detectable < 1e-9:
        assert wrong.verdict == "wrong"
