"""One call for the gradient of a problem, whichever backend computes it: NumPy in, NumPy out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.backend import Backend, checked_reduction
from gdcompare.formula_check import check_formula
from gdcompare.problem import Dataset, Problem, check_parameters, check_targets, checked_weights
from gdcompare.registry import as_backend, as_problem


def value_and_grad(
    problem: str | Problem,
    data: Dataset,
    params: Mapping[str, Any],
    backend: str | Backend[Any],
    weights: ArrayLike | None = None,
    reduction: str = "mean",
) -> tuple[float, dict[str, NDArray[Any]]]:
    """Return the loss and its gradient, `{name: array of the parameter's shape}`.

    Both are means over the n samples, `1/n sum l_i`; with weights (n,), given here or with the data, the weighted mean,
    `sum w_i l_i / sum w_i`. With `reduction="sum"` they are `sum l_i` and `sum w_i l_i`.

    >>> data = Dataset([[1.0], [3.0]], [2.0, 4.0])
    >>> loss, gradient = value_and_grad("linear-regression", data, {"theta_0": 1.0, "theta_1": [0.0]}, "numpy")
    >>> loss, gradient["theta_1"].tolist()
    (5.0, [-10.0])
    """
    problem, backend = as_problem(problem), as_backend(backend)
    arguments = backend_arguments(problem, data, params, backend, weights)
    loss, gradient = backend.value_and_grad(problem, checked_reduction(reduction))(*arguments)
    return float(backend.to_numpy(loss)), _to_numpy(backend, arguments[0], gradient)


def per_sample_grad(
    problem: str | Problem,
    data: Dataset,
    params: Mapping[str, Any],
    backend: str | Backend[Any],
    weights: ArrayLike | None = None,
    reduction: str = "mean",
) -> dict[str, NDArray[Any]]:
    """Return one gradient per sample, `{name: (n, *shape)}`; their mean over the rows is the full gradient.

    With weights, row i is scaled by `n w_i / sum w_i`, so that this stays so; with `reduction="sum"` by `w_i`, and the
    sum of the rows is the gradient of the sum.

    >>> data = Dataset([[1.0], [3.0]], [2.0, 4.0])
    >>> gradients = per_sample_grad("linear-regression", data, {"theta_0": 1.0, "theta_1": [0.0]}, "numpy")
    >>> gradients["theta_1"].tolist()
    [[-2.0], [-18.0]]
    """
    problem, backend = as_problem(problem), as_backend(backend)
    arguments = backend_arguments(problem, data, params, backend, weights)
    return _to_numpy(backend, arguments[0], backend.per_sample_grad(problem, checked_reduction(reduction))(*arguments))


def backend_arguments(
    problem: Problem,
    data: Dataset,
    params: Mapping[str, Any],
    backend: Backend[Any],
    weights: ArrayLike | None = None,
) -> tuple[Any, ...]:
    """Return (params, features, targets, weights) as the backend's arrays, all checked."""
    check_targets(problem, data)
    check_formula(problem, data, by_hand=getattr(backend, "by_hand", False), refereed=False)
    checked = check_parameters(problem, data, params)
    shares = data.weights if weights is None else checked_weights(weights, len(data))
    return (
        {name: backend.asarray(value) for name, value in checked.items()},
        backend.asarray(data.features),
        backend.asarray(data.targets),
        None if shares is None else backend.asarray(shares),
    )


def _to_numpy(backend: Backend[Any], order: Iterable[str], gradients: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {name: np.array(backend.to_numpy(gradients[name])) for name in order}
