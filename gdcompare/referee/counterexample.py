"""Counterexamples: the fewest samples and features, and the simplest values, at which an implementation is still wrong.

First the failing point is cut down: rows and columns are left out, values rounded, as long as it fails in the same way.
Then Hypothesis draws and shrinks points of its own. One order says what is simpler: fewer rows, then fewer numbers,
then shorter ones.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Backend, checked_dtype
from gdcompare.case import Case, DataLike
from gdcompare.problem import Dataset, Problem
from gdcompare.referee.diagnosis import kind_of_failure
from gdcompare.referee.point import Implementation
from gdcompare.referee.reproduction import Counterexample
from gdcompare.referee.verdict import LOSS, Report
from gdcompare.referee.verify import verify
from gdcompare.registry import as_backend

Floats: TypeAlias = NDArray[np.float64]

EXAMPLES = 200
"""How many points Hypothesis may draw before it gives up. Shrinking one that fails takes more."""


def counterexample(
    problem: str | Problem,
    implementation: str | Backend[Any] | Implementation,
    data: DataLike = None,
    params: Mapping[str, Any] | None = None,
    dtype: str = "float64",
    seconds: float = 10.0,
    *,
    name: str | None = None,
    origin: str | None = None,
) -> Counterexample | None:
    """Return the simplest point found at which the implementation is wrong as it is at this one; None if it is not.

    `implementation` is a function, or a backend or its name. Data and parameters are what `verify` takes. The search
    takes `seconds` at most, after one look at the whole data, and repeats exactly unless that cuts it short. `name` is
    what the report calls a function, and `origin` where a script can find it, as `"path/to/file.py:function"`.

    Raises ImportError without Hypothesis: pip install 'gdcompare[test]'.

    >>> import gdcompare as gdc
    >>> def summed(params, features, targets):
    ...     residuals = params["theta_0"] + features @ params["theta_1"] - targets
    ...     return residuals @ residuals, {"theta_0": 2 * residuals.sum(), "theta_1": 2 * residuals @ features}
    >>> found = counterexample("linear-regression", summed, gdc.datasets.noisy_line())
    >>> found.features.shape, found.targets.tolist()
    ((2, 1), [0.0, 1.0])
    """
    if find_spec("hypothesis") is None:
        raise ImportError("a counterexample needs 'hypothesis': pip install 'gdcompare[test]'", name="hypothesis")
    case = Case.of(problem, data, params)  # in float64: the search goes on from the values as they were given
    problem, data = case.problem, case.data
    if not callable(implementation):
        implementation = as_backend(implementation, checked_dtype(dtype))
    judge = _Judge(problem, implementation, name or str(getattr(implementation, "__name__", "mine")), dtype)
    start = _Point(case.params, data.features, data.targets, data.weights)
    report = judge(start)
    if not _failures(report):
        return None
    search, begun = _Search(judge, start, report), time.monotonic()
    for look, share in ((search.cut_down, 0.5), (search.draw, 1.0)):
        search.deadline = begun + share * seconds
        with suppress(_TimeIsUp):
            look()
    at = Case.of(problem, search.best.data, search.best.params, dtype)
    point = (at.params, at.features, at.targets)
    return Counterexample(*point, dtype, implementation, search.report, problem, origin, at.weights)


class _TimeIsUp(BaseException):
    """Not an Exception, which Hypothesis would take for a failure to shrink."""


@dataclass(frozen=True, eq=False)
class _Point:
    params: Mapping[str, Floats]
    features: Floats
    targets: Floats
    weights: Floats | None = None

    @property
    def data(self) -> Dataset:
        return Dataset(self.features, self.targets, weights=self.weights)

    @cached_property
    def complexity(self) -> tuple[float, ...]:
        """Rows, how many numbers, digits, how many are not 0, their size."""
        weights = [] if self.weights is None else [self.weights]
        arrays = (*self.params.values(), self.features, self.targets, *weights)
        numbers = np.concatenate([np.ravel(each) for each in arrays])
        digits = sum(len(repr(number).removesuffix(".0")) for number in numbers.tolist())
        return len(self.features), numbers.size, digits, int(np.count_nonzero(numbers)), float(np.abs(numbers).sum())


@dataclass(frozen=True, eq=False)
class _Judge:
    problem: Problem
    implementation: Implementation | Backend[Any]
    name: str
    dtype: str

    def __call__(self, point: _Point) -> Report:
        one = self.implementation
        kind = {"backends": [], "implementations": {self.name: one}} if callable(one) else {"backends": [one]}
        with np.errstate(all="ignore"):
            return verify(self.problem, point.data, point.params, dtype=self.dtype, **kind)


class _Search:
    """The simplest failing point so far, and two ways to a simpler one."""

    def __init__(self, judge: _Judge, start: _Point, report: Report) -> None:
        self.judge, self.best, self.report, self.failures = judge, start, report, _failures(report)
        self.deadline = math.inf

    def fails(self, point: _Point, limit: tuple[float, ...]) -> bool:
        """Whether it is simpler than the limit, and wrong in the same way; the simplest such point is kept."""
        if time.monotonic() > self.deadline:
            raise _TimeIsUp
        if point.complexity >= limit:
            return False
        try:
            report = self.judge(point)
        except Exception:  # what cannot be judged shows nothing
            return False
        if not _failures(report) & self.failures:
            return False
        if point.complexity < self.best.complexity:
            self.best, self.report = point, report
        return True

    def cut_down(self) -> None:
        """Go to the first simpler neighbour that fails, until none does."""
        while any(self.fails(point, self.best.complexity) for point in _neighbours(self.judge.problem, self.best)):
            pass

    def draw(self) -> None:
        """Let Hypothesis draw points no larger than the best, and shrink one that is simpler and fails."""
        import hypothesis

        before, limit = self.best, self.best.complexity
        with suppress(hypothesis.errors.HypothesisException):  # none found; or one that does not fail when called again
            hypothesis.find(
                _points(self.judge.problem, self.best),
                lambda point: self.fails(point, limit),
                settings=hypothesis.settings(max_examples=EXAMPLES, database=None, deadline=None),
                random=random.Random(0),  # noqa: S311 - no secret
            )
        if self.best is not before:
            self.cut_down()


def _failures(report: Report) -> set[str]:
    """Return in what ways the gradient is wrong, or else the loss: one mistake must not shrink into another."""
    wrong = [entry for entry in report.entries if entry.verdict == "wrong"]
    return {kind_of_failure(entry) for entry in wrong if entry.parameter != LOSS} or {
        f"loss: {kind_of_failure(each)}" for each in wrong
    }


def _neighbours(problem: Problem, point: _Point) -> Iterator[_Point]:
    """Yield points with some of the rows or columns, the fewest first, then those with simpler values."""
    features, targets, weights = point.features, point.targets, point.weights
    for rows in _kept(len(features)):
        fewer = None if weights is None else weights[rows]
        yield replace(point, features=features[rows], targets=targets[rows], weights=fewer)
    for columns in _kept(features.shape[1]):
        narrower = replace(point, features=features[:, columns])
        yield from _narrower(problem, narrower, columns, features.shape[1])
    if targets.ndim == 2:
        for columns in _kept(targets.shape[1]):
            narrower = replace(point, targets=targets[:, columns])
            yield from _narrower(problem, narrower, columns, targets.shape[1])
    for name, value in point.params.items():
        for simpler in _simpler(value):
            yield replace(point, params={**point.params, name: simpler})
    for simpler in _simpler(targets, problem.target_values):
        yield replace(point, targets=simpler)
    for simpler in _simpler(features):
        yield replace(point, features=simpler)
    for simpler in () if weights is None else _simpler(weights):
        yield replace(point, weights=simpler)


def _kept(length: int) -> Iterator[NDArray[np.intp]]:
    """Yield what to keep of so many: the first 1, 2, 4, ...; all but a half, a quarter, ..., a single one.

    >>> [each.tolist() for each in _kept(3)]
    [[0], [0, 1], [1, 2], [0, 2], [0, 1]]
    """
    everything = np.arange(length)
    yield from (everything[: 2**k] for k in range(max(length - 1, 0).bit_length()))
    chunk = length // 2
    while chunk:
        yield from (np.delete(everything, slice(start, start + chunk)) for start in range(0, length, chunk))
        chunk //= 2


def _narrower(problem: Problem, point: _Point, kept: NDArray[np.intp], width: int) -> Iterator[_Point]:
    """Yield the point with as much of each parameter as the problem has for these data, if it has any."""
    cut = dict(point.params)
    with suppress(ValueError, IndexError):  # a problem may need a certain width
        for name, shape in problem.parameter_shapes(point.data).items():
            for axis, length in enumerate(shape):
                whole = cut[name].shape[axis]
                if length != whole:
                    along = kept if (whole, length) == (width, len(kept)) else np.arange(length)
                    cut[name] = np.take(cut[name], along, axis)
        yield replace(point, params=cut)


def _simpler(values: Floats, allowed: tuple[float, ...] | None = None) -> Iterator[Floats]:
    """Yield the array with simpler values: all of them at once, then one by one."""
    rounded = [values.round(digits) + 0.0 for digits in range(4)]  # + 0.0: no -0.0
    choices = [np.full_like(values, value) for value in allowed or (0.0, 1.0)] + ([] if allowed else rounded)
    yield from choices
    for place in np.ndindex(values.shape) if values.size > 1 else ():
        for choice in choices:
            changed = values.copy()
            changed[place] = choice[place]
            yield changed


def _points(problem: Problem, largest: _Point) -> Any:
    """Return Hypothesis' strategy: small whole numbers first, then tenths, then larger ones."""
    from hypothesis import reject
    from hypothesis import strategies as st

    numbers = (
        st.integers(-4, 4).map(float) | st.integers(-40, 40).map(lambda n: n / 10) | st.integers(-999, 999).map(float)
    )
    values = numbers.map(lambda value: max(value, problem.least_target))
    labels = values if problem.target_values is None else st.sampled_from(problem.target_values)
    shares = st.integers(0, 3).map(float)

    @st.composite
    def points(draw: st.DrawFn) -> _Point:
        def array(shape: tuple[int, ...], values: st.SearchStrategy[float]) -> Floats:
            return np.array([draw(values) for _ in range(math.prod(shape))], dtype=np.float64).reshape(shape)

        n, d, *k = (
            draw(st.integers(1, min(most, 8))) for most in (*largest.features.shape, *largest.targets.shape[1:])
        )
        features, targets = array((n, d), numbers), array((n, *k), labels)
        try:
            shapes = problem.parameter_shapes(Dataset(features, targets))
        except ValueError:
            reject()
        weights = None if largest.weights is None else array((n,), shares)
        return _Point({name: array(shape, numbers) for name, shape in shapes.items()}, features, targets, weights)

    return points()
