"""One call for a derivative of a problem, whichever backend computes it: NumPy in, NumPy out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.formula_check import said_of_backend
from gdcompare.backend import Backend, Derivative, Reduction, borrowed
from gdcompare.case import Case, DataLike, blocks_for
from gdcompare.data.blocks import Blocks
from gdcompare.problem import NotDerivedError, Problem
from gdcompare.progress import progress_bar
from gdcompare.registry import as_backend, as_problem, backend_names
from gdcompare.scale.cluster import workers_for
from gdcompare.scale.sums import Sums


def value_and_grad(
    problem: str | Problem,
    data: DataLike | Blocks,
    params: Mapping[str, Any] | None,
    backend: str | Backend[Any],
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    workers: int | None = None,
    scheduler: str | None = None,
) -> tuple[float, dict[str, NDArray[Any]]]:
    """Return the loss and its gradient, `{name: array of the parameter's shape}`.

    Problem, data and parameters are as `case` has it: by name, from a file, or themselves; None for the problem's own
    data, and for parameters drawn near its start. Data in `Blocks` are read one after the other, and summed in a fixed
    order; `workers` and `scheduler` are as `descend` has them.

    Loss and gradient are means over the n samples, `1/n sum l_i`; with weights (n,), given here or with the data, the
    weighted mean, `sum w_i l_i / sum w_i`. With `reduction="sum"` they are `sum l_i` and `sum w_i l_i`.

    >>> data = [[1.0], [3.0]], [2.0, 4.0]
    >>> loss, gradient = value_and_grad("linear-regression", data, {"theta_0": 1.0, "theta_1": [0.0]}, "numpy")
    >>> loss, gradient["theta_1"].tolist()
    (5.0, [-10.0])
    """
    if (workers, scheduler) != (None, None) and not isinstance(data, Blocks):
        data = blocks_for(as_problem(problem), data)
    if isinstance(data, Blocks) and weights is not None:
        raise ValueError("weights of data in blocks come with the blocks")
    rows = data.first if isinstance(data, Blocks) else data
    backend, case = _case(problem, rows, params, backend, weights, reduction)
    if isinstance(data, Blocks):
        sums = Sums(case.problem, backend, data)
        bar = progress_bar(len(data), None, "reading", "rows")
        with bar as advance, workers_for(sums, workers, scheduler, advance) as who:
            mean, parts = sums.reduced(case.params, who.total(case.params), case.reduction)
        return float(mean), parts
    function = backend.value_and_grad(case.problem, case.reduction)
    with said_of_backend(backend.name):
        loss, gradient = function(*backend_arguments(case, backend, borrow=True))
    return float(backend.to_numpy(loss)), _to_numpy(backend, case.params, gradient)


def per_sample_grad(
    problem: str | Problem,
    data: DataLike,
    params: Mapping[str, Any] | None,
    backend: str | Backend[Any],
    weights: ArrayLike | None = None,
    reduction: str = "mean",
) -> dict[str, NDArray[Any]]:
    """Return one gradient per sample, `{name: (n, *shape)}`; their mean over the rows is the full gradient.

    With weights, row i is scaled by `n w_i / sum w_i`, so that this stays so; with `reduction="sum"` by `w_i`, and the
    sum of the rows is the gradient of the sum.

    >>> data = [[1.0], [3.0]], [2.0, 4.0]
    >>> gradients = per_sample_grad("linear-regression", data, {"theta_0": 1.0, "theta_1": [0.0]}, "numpy")
    >>> gradients["theta_1"].tolist()
    [[-2.0], [-18.0]]
    """
    backend, case = _case(problem, data, params, backend, weights, reduction)
    function = backend.per_sample_grad(case.problem, case.reduction)
    with said_of_backend(backend.name):
        gradients = function(*backend_arguments(case, backend, borrow=True))
    return _to_numpy(backend, case.params, gradients)


def jvp(
    problem: str | Problem,
    data: DataLike,
    params: Mapping[str, Any] | None,
    direction: Mapping[str, Any],
    backend: str | Backend[Any],
    weights: ArrayLike | None = None,
    reduction: str = "mean",
) -> tuple[float, float]:
    """Return the loss and its derivative along a direction `{name: array of the parameter's shape}`.

    The derivative is that of the loss of `value_and_grad`, with the same weights and reduction.

    >>> data, along = ([[1.0], [3.0]], [2.0, 4.0]), {"theta_0": 1.0, "theta_1": [1.0]}
    >>> jvp("linear-regression", data, {"theta_0": 1.0, "theta_1": [0.0]}, along, "numpy")
    (5.0, -14.0)
    """
    backend, case = _case(problem, data, params, backend, weights, reduction, "jvp")
    function = derivative_function(backend, case.problem, "jvp", case.reduction)
    with said_of_backend(backend.name):
        loss, derivative = function(*backend_arguments(case, backend, case.direction(direction), borrow=True))
    return float(backend.to_numpy(loss)), float(backend.to_numpy(derivative))


def hvp(
    problem: str | Problem,
    data: DataLike,
    params: Mapping[str, Any] | None,
    direction: Mapping[str, Any],
    backend: str | Backend[Any],
    weights: ArrayLike | None = None,
    reduction: str = "mean",
) -> dict[str, NDArray[Any]]:
    """Return the Hessian times a direction, `{name: array of the parameter's shape}`.

    It is the derivative of the gradient along the direction; no Hessian is formed.

    >>> data, along = ([[1.0], [3.0]], [2.0, 4.0]), {"theta_0": 1.0, "theta_1": [1.0]}
    >>> product = hvp("linear-regression", data, {"theta_0": 1.0, "theta_1": [0.0]}, along, "numpy")
    >>> product["theta_0"].tolist(), product["theta_1"].tolist()  # 2/n sum (1 + x_i), 2/n sum (1 + x_i) x_i
    (6.0, [14.0])
    """
    backend, case = _case(problem, data, params, backend, weights, reduction, "hvp")
    function = derivative_function(backend, case.problem, "hvp", case.reduction)
    with said_of_backend(backend.name):
        product = function(*backend_arguments(case, backend, case.direction(direction), borrow=True))
    return _to_numpy(backend, case.params, product)


def hessian(
    problem: str | Problem,
    data: DataLike,
    params: Mapping[str, Any] | None,
    backend: str | Backend[Any],
    weights: ArrayLike | None = None,
    reduction: str = "mean",
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the Hessian in blocks: d2L/da db is at [a][b], an array (*shape of a, *shape of b).

    >>> data = [[1.0], [3.0]], [2.0, 4.0]
    >>> blocks = hessian("linear-regression", data, {"theta_0": 1.0, "theta_1": [0.0]}, "numpy")
    >>> blocks["theta_0"]["theta_1"].tolist(), blocks["theta_1"]["theta_1"].tolist()  # 2/n sum x_i, 2/n X^T X
    ([4.0], [[10.0]])
    """
    backend, case = _case(problem, data, params, backend, weights, reduction, "hessian")
    function = derivative_function(backend, case.problem, "hessian", case.reduction)
    with said_of_backend(backend.name):
        blocks = function(*backend_arguments(case, backend, borrow=True))
    return {name: _to_numpy(backend, case.params, blocks[name]) for name in case.params}


def offers(backend: Backend[Any], problem: Problem, derivative: str) -> bool:
    """Whether the backend has this derivative of this problem: "gradient", "jvp", "hvp" or "hessian".

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> offers(as_backend("numpy"), LinearRegression(), "hessian")
    True
    """
    by_hand = getattr(backend, "by_hand", False)
    if derivative in ("gradient", "jvp"):
        return (problem.derived or not by_hand) and (derivative == "gradient" or hasattr(backend, "jvp"))
    return (problem.twice_derived or not by_hand) and (hasattr(backend, "hvp") or hasattr(backend, derivative))


def derivative_function(
    backend: Backend[Any], problem: Problem, derivative: str, reduction: Reduction = "mean"
) -> Callable[..., Any]:
    """Return the backend's function for a jvp, hvp or hessian, on its arrays; a Hessian is assembled if need be.

    Raises NotDerivedError, naming those that have it, if the backend does not offer it.
    """
    if not offers(backend, problem, derivative):
        able = [name for name in backend_names() if offers(as_backend(name), problem, derivative)]
        raise NotDerivedError(
            f"backend {backend.name!r} has no {derivative} of {type(problem).__name__}; "
            f"those that have: {', '.join(able) or 'none is installed'}"
        )
    if hasattr(backend, derivative):
        return getattr(backend, derivative)(problem, reduction)  # type: ignore[no-any-return]
    product: Callable[..., Any] = backend.hvp(problem, reduction)  # type: ignore[attr-defined]  # as `offers` has seen

    def assembled(params: Any, features: Any, targets: Any, weights: Any = None) -> dict[str, dict[str, Any]]:
        shapes = {name: tuple(value.shape) for name, value in params.items()}
        units = unit_directions(shapes)
        columns = []
        for i in range(len(next(iter(units.values())))):
            unit = {name: backend.asarray(each[i]) for name, each in units.items()}
            columns.append(product(params, features, targets, unit, weights))
        stacked = {name: np.stack([backend.to_numpy(column[name]) for column in columns]) for name in shapes}
        blocks = hessian_blocks(stacked, shapes)
        return {a: {b: backend.asarray(block) for b, block in row.items()} for a, row in blocks.items()}

    return assembled


def unit_directions(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float64]]:
    """Return the unit vectors of all p parameters together, `{name: (p, *shape)}`.

    >>> {name: each.tolist() for name, each in unit_directions({"a": (), "b": (1,)}).items()}
    {'a': [1.0, 0.0], 'b': [[0.0], [1.0]]}
    """
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    pieces = np.split(np.eye(ends[-1]), ends[:-1], axis=1)
    return {name: piece.reshape((-1, *shape)) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def hessian_blocks(
    products: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the blocks (*shape of a, *shape of b) at [a][b] from the products of all unit vectors, (p, *shape of a).

    >>> blocks = hessian_blocks({"a": np.array([1, 2]), "b": np.array([[2], [3]])}, {"a": (), "b": (1,)})
    >>> blocks["a"]["b"].tolist(), blocks["b"]["b"].tolist()
    ([2], [[3]])
    """
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    blocks = {}
    for a, columns in products.items():
        pieces = zip(shapes.items(), np.split(columns, ends[:-1]), strict=True)
        blocks[a] = {b: np.moveaxis(piece, 0, -1).reshape(shapes[a] + shape) for (b, shape), piece in pieces}
    return blocks


def _case(
    problem: str | Problem,
    data: DataLike,
    params: Mapping[str, Any] | None,
    backend: str | Backend[Any],
    weights: ArrayLike | None,
    reduction: str,
    derivative: Derivative = "gradient",
) -> tuple[Backend[Any], Case]:
    """Return the backend and the case, in its dtype, once it is known that it has this derivative of the problem."""
    problem, backend = as_problem(problem), as_backend(backend)
    if derivative != "gradient":
        derivative_function(backend, problem, derivative)
    case = Case.of(problem, data, params, backend.dtype, reduction, weights=weights, refereed=False)
    case.backends([backend], refereed=False)
    return backend, case


def backend_arguments(
    case: Case, backend: Backend[Any], direction: Mapping[str, Any] | None = None, *, borrow: bool = False
) -> tuple[Any, ...]:
    """Return (params, features, targets, weights) as the backend's arrays; a direction comes before the weights.

    With `borrow` they share the case's memory where the backend can: enough for one call, while arrays of the backend's
    own are quicker in the second.
    """
    array = partial(borrowed, backend) if borrow else backend.asarray

    def named(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {name: array(value) for name, value in arrays.items()}

    along = [] if direction is None else [named(direction)]
    weights = None if case.weights is None else array(case.weights)
    return named(case.params), array(case.features), array(case.targets), *along, weights


def _to_numpy(backend: Backend[Any], order: Iterable[str], gradients: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {name: np.array(backend.to_numpy(gradients[name])) for name in order}
