"""One whole descent with its history: ours, and the loops that a person would write, with the same work.

The same 2000 steps as full batch, mini-batches of 2 and single samples, over the same rows in the same order. Included:
drawing the rows, the steps, the history of losses and parameters, its return to NumPy. Excluded: loading, conversion of
the data by hand, compilation (which has its own row under "first call").
"""

from __future__ import annotations

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.timing.contender import Contender

from . import contenders
from .checked import DescentCase, Right, descent_case, judge_of
from .conftest import Measure
from .contenders import DESCENTS_BY_HAND, NullBackend

pytestmark = pytest.mark.benchmark(max_time=0.3, min_rounds=3)

CASES = [descent_case(40, 1, None, 2000), descent_case(40, 1, 2, 100), descent_case(40, 1, 1, 50)]

every_mode = pytest.mark.parametrize("case", CASES, ids=lambda case: case.mode)


@every_mode
def test_descent(case: DescentCase, backend_name: str, measure: Measure) -> None:
    """`gdc.descend` with a backend and a problem at hand."""
    contender = contenders.descent(case, gdc.load_backend(backend_name))
    measure(_group(case), contender, steps=case.steps)


@every_mode
@pytest.mark.parametrize("name", DESCENTS_BY_HAND)
def test_descent_by_hand(case: DescentCase, name: str, measure: Measure) -> None:
    """The same without the suite."""
    measure(_group(case), contenders.descent_by_hand(case, name), steps=case.steps)


@every_mode
def test_descent_that_computes_nothing(case: DescentCase, measure: Measure) -> None:
    """`gdc.descend` around a backend that computes nothing: the loop, the update, the history and the looks at it."""
    run = contenders.descent(case, NullBackend()).call
    stays = {
        "losses": _zeros(case.steps),
        "theta_0": _zeros(case.steps + 1),
        "theta_1": _zeros(case.steps + 1, case.d),
    }
    judge = judge_of(contenders.read_history, stays, "float64")
    measure(_group(case), Contender(NullBackend.name, run, judge), steps=case.steps)


@every_mode
def test_first_descent(case: DescentCase, backend_name: str, measure: Measure) -> None:
    """The first descent, which traces and compiles where there is something to compile; the framework is loaded."""
    contender = contenders.descent(case, gdc.load_backend(backend_name))
    measure(f"first call, {_group(case)}", contender, steps=case.steps, first_call=True)


def _group(case: DescentCase) -> str:
    return f"descent, {case}, {case.steps} steps, float64"


def _zeros(*shape: int) -> Right:
    return Right(np.zeros(shape), np.zeros(shape))
