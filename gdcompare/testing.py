"""For test suites: an assertion that needs no tolerance, and planted faults to try your own checks on.

Nothing here needs a test runner. With pytest, the fixture `gradients` does the same and sums up at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from numpy.typing import ArrayLike

from gdcompare.authoring.faults import FAULTS, MutationScore, by_hand, mutate
from gdcompare.backend import Backend
from gdcompare.case import DataLike
from gdcompare.problem import Problem
from gdcompare.referee.formula import formula_of, with_formula
from gdcompare.referee.verdict import Report
from gdcompare.referee.verify import verify

__all__ = ["FAULTS", "Candidate", "GradientError", "MutationScore", "assert_gradients_agree", "by_hand", "mutate"]

Candidate: TypeAlias = Callable[..., tuple[Any, Any]] | Mapping[str, ArrayLike] | Backend[Any] | str
"""What can be judged: a function, the gradients that it gave, a backend or a backend's name."""


class GradientError(AssertionError):
    """A gradient does not agree. The message is that of `report`, which holds every entry."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        return self.report.explanation()


def assert_gradients_agree(
    implementation: Candidate,
    problem: str | Problem,
    data: DataLike = None,
    params: Mapping[str, ArrayLike] | None = None,
    dtype: str | None = None,
    *,
    reduction: str = "mean",
    atol: float | None = None,
    rtol: float | None = None,
    proven_only: bool = False,
) -> Report:
    """Raise unless the gradient is the true one, within what rounding may do to a correct program; return the report.

    `implementation` is one of:

    * a function `f(params, features, targets) -> (loss, {name: gradient})`, means over the rows, given NumPy arrays of
      the dtype, and the weights as a fourth argument if the data have any; a loss of None is not judged;
    * its gradients, `{name: array}`, already computed at `params`;
    * a backend, or a backend's name.

    Problem, data and parameters are what `verify` takes. `dtype=None` is the backend's own, or float64. With
    `reduction="sum"`, sums over the rows are due instead of means. With `atol` or `rtol`, what is allowed is instead
    `atol + rtol |truth|`. `proven_only` judges by the worst case of rounding alone, as `verify` does.

    Raises GradientError, an AssertionError, for what is wrong or inconclusive: it names the element, both values and
    the cause; if the function raised, its error is the `__cause__`. Arguments that make no sense are a ValueError, a
    LookupError or a BackendUnavailableError.

    >>> import gdcompare as gdc
    >>> data, params = gdc.Dataset([[1.0], [3.0]], [2.0, 4.0]), {"theta_0": 1.0, "theta_1": [0.0]}
    >>> assert_gradients_agree({"theta_0": -4.0, "theta_1": [-10.0]}, "linear-regression", data, params).verdict
    'agree'
    >>> def mine(params, features, targets):
    ...     residuals = params["theta_0"] + features @ params["theta_1"] - targets
    ...     return None, {"theta_0": 2 * residuals.mean(), "theta_1": residuals @ features / len(targets)}
    >>> assert_gradients_agree(mine, "linear-regression", data, params)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    gdcompare.testing.GradientError: 1 of 2 comparisons do not agree for LinearRegression on data:
      mine: theta_1[0] is wrong: actual -5.0, expected -10.0, ...; or a constant factor 1/2 in the value
    """
    __tracebackhide__ = True
    raised: list[Exception] = []
    judged: dict[str, Any]
    if isinstance(implementation, Mapping):
        if params is None:
            raise ValueError("gradients already computed need the params at which they were")
        given = implementation
        judged = {"backends": [], "implementations": {"the given arrays": lambda *_: (None, given)}}
    elif callable(implementation):
        name = getattr(implementation, "__name__", type(implementation).__name__)
        watched, formula = _watched(implementation, raised), formula_of(implementation)
        watched = watched if formula is None else with_formula(watched, formula)
        judged = {"backends": [], "implementations": {name: watched}}
    else:
        judged = {"backends": [implementation]}
        dtype = dtype or getattr(implementation, "dtype", None)
    how: dict[str, Any] = {"dtype": dtype or "float64", "reduction": reduction, "atol": atol, "rtol": rtol}
    how["proven_only"] = proven_only
    report = verify(problem, data, params, **how, **judged)
    if not report:
        raise GradientError(report) from (raised[0] if raised else None)
    return report


def _watched(function: Callable[..., tuple[Any, Any]], raised: list[Exception]) -> Callable[..., tuple[Any, Any]]:
    """Return the function as it is, except that what it raises is kept: a test should show where."""

    def watched(*point: Any) -> tuple[Any, Any]:
        try:
            found = function(*point)
            if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
                raise TypeError(f"it must return (loss, {{name: gradient}}), not {type(found).__name__}")
        except Exception as error:
            raised.append(error)
            raise
        return found

    return watched
