"""A case: all that a gradient, a descent or a judgement is about, checked once, at the door, then carried inward.

Every public function takes the same things by the same rules, because all of them make a `Case` of what they are given:

    problem      by name, as "path/to/file.py" or "path/to/file.py:Name", or the Problem itself
    data         by name, as a path, as "path/to/file.py:NAME", as (features, targets), or a Dataset; None for the
                 problem's own
    parameters   `{name: array}`; None draws them near where the problem starts

All refusals of bad input stand here, or are called from here: they come before any work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias, final, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare import data as datasets
from gdcompare.arithmetic.formula_check import check_formula, checked_shapes
from gdcompare.backend import Backend, Precision, Reduction, checked_dtype, checked_reduction
from gdcompare.data.blocks import ROWS, Blocks
from gdcompare.own_files import from_file
from gdcompare.problem import Dataset, Problem, check_parameters, check_targets, drawn_parameters
from gdcompare.registry import as_problem, backends_for

DataLike: TypeAlias = "str | os.PathLike[str] | Dataset | tuple[ArrayLike, ArrayLike] | None"
"""Data by name, by path, as `"path/to/file.py:NAME"`, as (features, targets) or themselves; None for the problem's."""


class Posed(Protocol):
    """A problem with its data and parameters, and who is judged by it."""

    @property
    def name(self) -> str: ...  # noqa: D102 - of what posed it
    @property
    def problem(self) -> Problem: ...  # noqa: D102 - as in `Case`
    @property
    def data(self) -> Dataset: ...  # noqa: D102
    @property
    def params(self) -> dict[str, NDArray[np.float64]]: ...  # noqa: D102
    def implementations(self, others: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return who is judged: what posed the problem, and others beside it."""

    def of_rows(self, other: Any = None) -> Any:
        """Return what posed the problem, or another, for batch laws; a ValueError if its rows are no samples."""


@runtime_checkable
class Poses(Protocol):
    """What is no problem itself, but poses one of data, as a model does that somebody wrote."""

    def posed(self, data: Any, params: Mapping[str, Any] | None = None, dtype: str = "float64") -> Posed:
        """Return the problem; `params=None` takes its own."""


@final
@dataclass(frozen=True, eq=False)
class Case:
    """A problem, its data, parameters, dtype and reduction, all checked; made by `Case.of`.

    The inputs are rounded to the dtype: they are exact from then on.

    >>> case = Case.of("linear-regression", ([[1.0], [3.0]], [2.0, 4.0]), {"theta_0": 0.1, "theta_1": [0]}, "float32")
    >>> case.problem, case.params["theta_0"]
    (LinearRegression(), array(0.1, dtype=float32))
    """

    problem: Problem
    data: Dataset
    """As they were given, in float64."""
    params: dict[str, NDArray[Any]]
    """In the dtype, in the problem's order."""
    dtype: Precision = "float64"
    reduction: Reduction = "mean"

    @classmethod
    def of(
        cls,
        problem: str | Problem,
        data: DataLike = None,
        params: Mapping[str, Any] | None = None,
        dtype: str = "float64",
        reduction: str = "mean",
        *,
        weights: ArrayLike | None = None,
        otherwise: Callable[[Problem, Dataset], Mapping[str, Any]] = drawn_parameters,
        refereed: bool = True,
        tried: bool = True,
    ) -> Case:
        """Return the case, or raise what is wrong with it.

        `weights` (n,) take the place of those that come with the data. `otherwise` gives the parameters where
        `params=None`. `refereed` says that the formula must also keep to the functions that the referee knows;
        `tried=False` leaves it untried until `backends` is asked.

        Raises LookupError for unknown names and missing files, TypeError for what is no problem, ValueError for all
        else: data that the problem does not take, wrong names or shapes, numbers that are not finite or too large for
        the dtype, a formula that cannot work.

        >>> Case.of("linear-regression", "noisy-line", {"theta_0": 1e39, "theta_1": [0]}, "float32")
        Traceback (most recent call last):
        ...
        ValueError: parameter 'theta_0' holds 1e+39, which is too large for float32
        """
        found = as_problem(problem)
        precision, kind = checked_dtype(dtype), checked_reduction(reduction)
        rows = data_for(found, data)
        if weights is not None:
            rows = Dataset(rows.features, rows.targets, rows.name, weights)
        check_targets(found, rows)
        for what in ("features", "targets", "weights"):
            refuse_too_large(what, getattr(rows, what), precision)
        checked_shapes(found, rows)
        given = None if params is None else check_parameters(found, rows, params)
        if tried:
            check_formula(found, rows, by_hand=False, refereed=refereed)
        if given is None:
            given = check_parameters(found, rows, otherwise(found, rows))
        return cls(found, rows, _in(precision, "parameter", given), precision, kind)

    @cached_property
    def features(self) -> NDArray[Any]:
        """(n, d), in the dtype."""
        return self.data.features.astype(self.dtype, copy=False)

    @cached_property
    def targets(self) -> NDArray[Any]:
        """(n,) or (n, k), in the dtype."""
        return self.data.targets.astype(self.dtype, copy=False)

    @cached_property
    def weights(self) -> NDArray[Any] | None:
        """(n,), in the dtype, if there are any."""
        return None if self.data.weights is None else self.data.weights.astype(self.dtype, copy=False)

    def on(self, data: Dataset, reduction: Reduction = "mean") -> Case:
        """Return the case of the same problem, at the same parameters, on some of these rows, or with other weights."""
        return replace(self, data=data, reduction=reduction)

    def direction(self, values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Return a direction, `{name: array of the parameter's shape}`, in the dtype, if it is one."""
        return _in(self.dtype, "direction", check_parameters(self.problem, self.data, values))

    def backends(
        self, asked: Sequence[str | Backend[Any]] | None = None, *, device: str | None = None, refereed: bool = True
    ) -> list[Backend[Any]]:
        """Return the backends asked for, or by default all that are installed and can do with the problem.

        Raises ValueError for one of another dtype, NotDerivedError or FormulaError where one of them evaluates
        derivations by hand, and there is none, or none that can work.
        """
        loaded = backends_for(self.problem, asked, self.dtype, device)
        for backend in loaded:
            if backend.dtype != self.dtype:
                raise ValueError(
                    f"backend {backend.name!r} computes in {backend.dtype}, but dtype={self.dtype!r} is to be judged"
                )
        by_hand = any(getattr(backend, "by_hand", False) for backend in loaded)
        check_formula(self.problem, self.data, by_hand=by_hand, refereed=refereed)
        return loaded

    def check_derivation(self, *, refereed: bool = True) -> None:
        """Raise a FormulaError if the problem's formulas derived by hand cannot work."""
        check_formula(self.problem, self.data, by_hand=True, refereed=refereed)


def data_for(problem: Problem, data: DataLike, target: str | None = None, weights: str | None = None) -> Dataset:
    """Return the data that are meant, as the problem takes them.

    `target` and `weights` name columns or arrays of a file. Data in a `file.py:NAME` are a Dataset, a pair
    (features, targets), or a function that returns one of these.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> data_for(LinearRegression(), None), data_for(LinearRegression(), ([[1.0], [3.0]], [2.0, 4.0]))
    (Dataset('noisy-line', 40 rows, 1 feature), Dataset('data', 2 rows, 1 feature))
    """
    if data is None:
        return datasets.example(problem)
    if not isinstance(data, str | os.PathLike):
        return _as_dataset(data, "data")
    name = os.fspath(data)
    if ".py:" not in name:
        return datasets.suited(problem, datasets.load(name, target, weights))
    if (target or weights) is not None:
        raise ValueError(f"{name!r} has targets and weights of its own; a column's name goes with a file of data")
    found = from_file(name)
    return datasets.suited(problem, _as_dataset(found() if callable(found) else found, name))


def blocks_for(
    problem: Problem, data: DataLike | Blocks, target: str | None = None, weights: str | None = None,
    rows: int | None = None,
) -> Blocks:  # fmt: skip
    """Return the data that are meant in blocks of so many rows, as the problem takes them (see `datasets.blocks`).

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> blocks_for(LinearRegression(), "noisy-line", rows=16)
    Blocks('noisy-line', 40 rows in 3 blocks of 16, 1 feature)
    """
    size = ROWS if rows is None else rows
    if isinstance(data, str | os.PathLike) and ".py:" in os.fspath(data):
        if (target or weights) is not None:
            raise ValueError(f"{data!r} has targets and weights of its own; a column's name goes with a file of data")
        found = from_file(os.fspath(data))
        found = found() if callable(found) else found
        whole = datasets.blocks(found, rows=size, name=None if isinstance(found, Dataset) else os.fspath(data))
    elif data is None:
        whole = datasets.blocks(data_for(problem, None), rows=size)
    else:
        whole = datasets.blocks(data, target, weights, size)
    return datasets.suited_blocks(problem, whole)


def data_as_they_are(data: str, target: str | None = None, weights: str | None = None) -> Any:
    """Return the data that a name, path or `file.py:NAME` stands for, for one that takes arrays of any shape."""
    if ".py:" not in data:
        return datasets.load(data, target, weights)
    if (target or weights) is not None:
        raise ValueError(f"{data!r} has targets and weights of its own; a column's name goes with a file of data")
    found = from_file(data)
    return found() if callable(found) else found


def _as_dataset(found: Any, name: str) -> Dataset:
    if isinstance(found, Dataset):
        return found
    if isinstance(found, tuple | list) and len(found) == 2:
        features, targets = found
        return Dataset(features, targets, name)
    if isinstance(found, Blocks):
        raise ValueError(
            "data in blocks are for value_and_grad, descend, verify and laws; give others rows that fit the memory, "
            "such as one block: data.block(0)"
        )
    raise ValueError(
        f"data must be a name, a path, a Dataset or a pair (features, targets), not {type(found).__name__}: "
        "gdcompare.Dataset(features, targets)"
    )


def _in(dtype: Precision, what: str, arrays: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[Any]]:
    """Return the arrays in the dtype, if it holds them."""
    for name, values in arrays.items():
        refuse_too_large(f"{what} {name!r}", values, dtype)
    return {name: values.astype(dtype) for name, values in arrays.items()}


def refuse_too_large(what: str, values: NDArray[np.float64] | None, dtype: Precision) -> None:
    """Raise a ValueError if the dtype does not hold these values of parameters or data."""
    if values is None or dtype == "float64":
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(dtype))
    if not finite.all():
        holds = "holds" if "'" in what else "hold"
        raise ValueError(f"{what} {holds} {values[~finite][0]:g}, which is too large for {dtype}")
