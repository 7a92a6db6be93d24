"""Small descents, and what they are held against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare import Backend, Dataset, Descent, Problem, load_problem
from gdcompare.arithmetic.formula_check import check_formula
from gdcompare.descent.sampling import RowStream
from tests.agreement import mean_over_rows

Array = NDArray[np.float64]

N = 12
# Full batch, a batch size that divides the 12 rows, one that leaves a ragged batch, and single samples.
BATCH_SIZES = [None, 4, 5, 1]
EPOCHS = {None: 36, 4: 3, 5: 3, 1: 3}
LINEAR = load_problem("linear-regression")


def some_data(problem: Problem, n: int = N, seed: int = 0) -> Dataset:
    """Two features up to 1 in size, and noisy targets or labels."""
    generator = np.random.default_rng(seed)
    features = generator.uniform(-1, 1, (n, 2))
    targets = features @ [2.0, -1.0] + generator.normal(0.5, 0.5, n)
    return Dataset(features, targets if problem.target_values is None else (targets > 0).astype(float))


def batches(n: int, batch_size: int | None, steps: int, seed: int = 0) -> list[NDArray[np.intp]]:
    """Return the rows of each step: all of them, or those of the stream, without its padding."""
    if batch_size is None:
        return [np.arange(n)] * steps
    rows, weights = RowStream(n, batch_size, seed).take(steps)
    return list(rows) if weights is None else [each[w == 1] for each, w in zip(rows, weights, strict=True)]


def at_rows(data: Dataset, rows: NDArray[np.intp]) -> Dataset:
    return Dataset(data.features[rows], data.targets[rows])


def hand_derived(problem: Problem, params: Mapping[str, Array], data: Dataset) -> tuple[float, dict[str, Array]]:
    """Return the mean loss and gradient over the rows of `data`, in float64."""
    losses = problem.per_sample_losses(np, params, data.features, data.targets)
    return float(np.mean(losses)), mean_over_rows(problem.per_sample_gradients(np, params, data.features, data.targets))


def length(gradient: Mapping[str, Array]) -> float:
    return math.sqrt(sum(float(np.sum(each * each)) for each in gradient.values()))


def point(fit: Descent, i: int) -> dict[str, Array]:
    """Return the parameters before step i, in float64."""
    return {name: each[i].astype(np.float64) for name, each in fit.history.parameters.items()}


def assert_same_descent(fit: Descent, other: Descent) -> None:
    """Raise unless all that the two descents computed is the same to the last bit."""
    assert (fit.stop_reason, fit.steps) == (other.stop_reason, other.steps)
    np.testing.assert_array_equal(fit.history.steps, other.history.steps, strict=True)
    np.testing.assert_array_equal(fit.history.losses, other.history.losses, strict=True)
    for name, value in other.parameters.items():
        np.testing.assert_array_equal(fit.parameters[name], value, strict=True)
        np.testing.assert_array_equal(fit.history.parameters[name], other.history.parameters[name], strict=True)


def assert_cut_from(fit: Descent, whole: Descent) -> None:
    """Raise unless the descent is the first `fit.steps` steps of the other, to the last bit, and nothing else."""
    np.testing.assert_array_equal(fit.history.steps, np.arange(fit.steps + 1))
    np.testing.assert_array_equal(fit.history.losses, whole.history.losses[: fit.steps], strict=True)
    for name, value in whole.history.parameters.items():
        np.testing.assert_array_equal(fit.history.parameters[name], value[: fit.steps + 1], strict=True)
        np.testing.assert_array_equal(fit.parameters[name], value[fit.steps], strict=True)


@dataclass(frozen=True, eq=False)
class Interrupted(Problem):
    """Linear regression during which Ctrl-C is pressed, after so many uses of its formulas."""

    after: int
    uses: list[str] = field(default_factory=list)

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return LINEAR.parameter_shapes(data)

    def per_sample_losses(self, *arguments: Any) -> Any:
        return self._use("per_sample_losses")(*arguments)

    def per_sample_gradients(self, *arguments: Any) -> dict[str, Any]:
        gradients: dict[str, Any] = self._use("per_sample_gradients")(*arguments)
        return gradients

    def value_and_gradient(self, *arguments: Any) -> tuple[Any, dict[str, Any]]:
        loss, gradient = self._use("value_and_gradient")(*arguments)
        return loss, gradient

    def _use(self, formula: str) -> Any:
        if len(self.uses) == self.after:
            raise KeyboardInterrupt
        self.uses.append(formula)
        return getattr(LINEAR, formula)


def interrupted(backend: Backend[Any], after: int) -> Interrupted:
    """Return the problem with its formulas looked at already, as a descent does once: only its steps are uses."""
    problem = Interrupted(after, uses=["before"] * 1000)
    check_formula(problem, some_data(LINEAR), by_hand=getattr(backend, "by_hand", False), refereed=False)
    problem.uses.clear()
    return problem
