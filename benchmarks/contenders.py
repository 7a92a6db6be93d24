"""The rows of the tables: ours for any backend, those written by hand, and a backend that computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, final

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

import gdcompare as gdc
from gdcompare.backend import Backend, Params, PerSampleGrad, Precision, Reduction, Run, Step, ValueAndGrad, eager_scan
from gdcompare.case import Case
from gdcompare.gradients import backend_arguments
from gdcompare.problem import Problem, drawn_parameters
from gdcompare.registry import how_to_install
from gdcompare.timing.contender import Contender, Judgement

from . import by_hand
from .checked import UNITS, DescentCase, GradientCase, ProblemCase, judge_of, off_by

Array = NDArray[Any]

GRADIENTS_BY_HAND = {
    "numpy by hand": by_hand.numpy_gradient,
    "torch by hand": by_hand.torch_gradient,
    "jax by hand": by_hand.jax_gradient,
}
PER_SAMPLE_BY_HAND = {
    "numpy by hand": by_hand.numpy_per_sample,
    "torch by hand": by_hand.torch_per_sample,
    "jax by hand": by_hand.jax_per_sample,
}
DESCENTS_BY_HAND = {
    "numpy by hand": by_hand.numpy_as_usual,
    "numpy by hand, tight": by_hand.numpy_tight,
    "torch.autograd by hand": by_hand.torch_autograd,
    "torch.optim.SGD": by_hand.torch_optimizer,
    "optax, jitted step": by_hand.optax_jitted_step,
    "bare lax.scan": by_hand.bare_scan,
}


def gradient(case: GradientCase | ProblemCase, backend: Backend[Any]) -> Contender:
    """Loss and gradient through the seam, from the backend's arrays to the backend's arrays."""
    function = backend.value_and_grad(case.problem)
    params, features, targets, _ = backend_arguments(
        Case.of(case.problem, case.data, case.params, backend.dtype), backend
    )
    judge = judge_of(partial(_read_gradient, backend), case.gradient, backend.dtype)
    return Contender(backend.name, lambda: function(params, features, targets), judge, facts=facts(case, backend))


def gradient_there_and_back(case: GradientCase, backend: Backend[Any]) -> Contender:
    """Loss and gradient from NumPy to NumPy: checks and transfers included."""
    judge = judge_of(partial(_read_plain_gradient, backend.dtype), case.gradient, backend.dtype)
    return Contender(
        f"{backend.name}, there and back",
        lambda: gdc.value_and_grad(case.problem, case.data, case.params, backend),
        judge,
        facts=facts(case, backend),
    )


def gradient_by_hand(case: GradientCase, name: str, dtype: str) -> Contender:
    """Loss and gradient in the framework itself, without the suite."""
    judge = judge_of(partial(_read_plain_gradient, dtype), case.gradient, dtype)
    return Contender(name, GRADIENTS_BY_HAND[name](case, dtype), judge, facts=facts(case, dtype=dtype))


def per_sample_gradients(case: GradientCase, backend: Backend[Any], name: str) -> Contender:
    """One gradient for each row, through the seam."""
    function = backend.per_sample_grad(case.problem)
    params, features, targets, _ = backend_arguments(
        Case.of(case.problem, case.data, case.params, backend.dtype), backend
    )
    judge = judge_of(partial(_read_each, backend), case.per_sample_gradients, backend.dtype)
    return Contender(name, lambda: function(params, features, targets), judge, facts=facts(case, backend))


def per_sample_by_hand(case: GradientCase, name: str) -> Contender:
    """One gradient for each row in the framework itself, in float64."""
    judge = judge_of(_read_plain_rows, case.per_sample_gradients, "float64")
    return Contender(name, PER_SAMPLE_BY_HAND[name](case), judge, facts=facts(case))


def descent(case: DescentCase, backend: Backend[Any]) -> Contender:
    """A whole descent with its history."""
    judge = judge_of(read_history, case.path, "float64")
    return Contender(backend.name, partial(_descend, case, backend), judge, facts=facts(case, backend))


def descent_without_history(case: DescentCase, backend: Backend[Any]) -> Contender:
    """A whole descent of which only the end is kept, as scikit-learn keeps it."""
    judge = judge_of(_read_end, case.end, "float64")
    return Contender(
        backend.name, partial(_descend, case, backend, history_every=10**9), judge, facts=facts(case, backend)
    )


def descent_by_hand(case: DescentCase, name: str) -> Contender:
    """A whole descent with its history, without the suite."""
    return Contender(name, DESCENTS_BY_HAND[name](case), judge_of(_itself, case.path, "float64"), facts=facts(case))


def sklearn_descents(case: DescentCase) -> list[Contender]:
    """SGDRegressor on our very rows, with our steps on its own rows, and as it comes.

    The first must arrive where we do. The rows of the others are known to scikit-learn alone, so all that can be asked
    is that they arrive where a stochastic descent does: at a loss little above the least.
    """
    arrives = judge_of(_read_regressor, case.end, "float64")
    near = partial(_near_the_least, case)
    return [
        Contender("SGDRegressor, same rows", by_hand.sklearn_same_rows(case), arrives),
        Contender("SGDRegressor, same steps", by_hand.sklearn_same_steps(case), near),
        Contender("SGDRegressor, defaults", by_hand.sklearn_defaults(case), near),
    ]


def facts(
    case: GradientCase | ProblemCase | DescentCase, backend: Backend[Any] | None = None, dtype: str = "float64"
) -> Mapping[str, object]:
    """Return the sizes, the dtype, and the backend's versions, device and switches, if there is one that tells them."""
    environment = getattr(backend, "environment", dict)
    dtype = backend.dtype if backend else dtype
    return {"case": str(case), "n": case.n, "d": case.d, "dtype": dtype, "environment": environment()}


def skip_without(backend_name: str) -> None:
    """Skip the running benchmark, with the way out, if the backend's framework is not installed."""
    if (line := how_to_install(backend_name)) is not None:
        pytest.skip(line)


@final
@dataclass(frozen=True)
class NullBackend(Backend[Array]):
    """A backend that computes nothing and hands back what it was given: the time that is left is the seam's own."""

    dtype: Precision = "float64"
    name: ClassVar[str] = "the empty seam"
    xp: ClassVar[Any] = np

    def asarray(self, values: ArrayLike) -> Array:
        return np.array(values)

    def to_numpy(self, array: Array) -> Array:
        return array

    def value_and_grad(self, problem: gdc.Problem, reduction: Reduction = "mean") -> ValueAndGrad[Array]:
        """The loss is the intercept, and the gradient the parameters themselves: 0 wherever a descent starts."""
        del problem, reduction

        def given(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> tuple[Array, dict[str, Array]]:
            del features, targets, weights
            return params["theta_0"], dict(params)

        return given

    def per_sample_grad(self, problem: gdc.Problem, reduction: Reduction = "mean") -> PerSampleGrad[Array]:
        """The same for every row."""
        del problem, reduction

        def given(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> dict[str, Array]:
            del targets, weights
            return {name: np.broadcast_to(value, (len(features), *value.shape)) for name, value in params.items()}

        return given

    def scan(self, step: Step[Array]) -> Run[Array]:
        return eager_scan(step, self.asarray, np.asarray)


def _descend(case: DescentCase, backend: Backend[Any], history_every: int = 1) -> gdc.Descent:
    return gdc.descend(
        _LINEAR_REGRESSION,
        case.data,
        backend,
        gdc.rules.sgd(case.rate),
        case.batch_size,
        case.epochs,
        case.seed,
        history_every=history_every,
        progress=False,
    )


def _read_gradient(backend: Backend[Any], answer: Any) -> dict[str, Array]:
    loss, slopes = answer
    return {"loss": backend.to_numpy(loss), **_read_each(backend, slopes)}


def _read_each(backend: Backend[Any], answer: Any) -> dict[str, Array]:
    return {name: backend.to_numpy(value) for name, value in answer.items()}


def _read_plain_gradient(dtype: str, answer: Any) -> dict[str, Array]:
    loss, slopes = answer  # the loss may be a Python float, which holds either dtype
    return {"loss": np.asarray(loss, dtype), **{name: np.asarray(value) for name, value in slopes.items()}}


def _read_plain_rows(answer: Any) -> dict[str, Array]:
    return {name: np.asarray(value) for name, value in answer.items()}


def read_history(answer: gdc.Descent) -> dict[str, Array]:
    return {"losses": answer.history.losses, **answer.history.parameters}


def _read_end(answer: gdc.Descent) -> dict[str, Array]:
    return answer.parameters


def _read_regressor(answer: Any) -> dict[str, Array]:
    return {"theta_0": answer.intercept_[0], "theta_1": answer.coef_}


def _itself(answer: dict[str, Array]) -> dict[str, Array]:
    return answer


def _near_the_least(case: DescentCase, answer: Any) -> Judgement:
    """Judge by how far the loss is above the least, in units of which 64 make a tenth of it; no more is allowed."""
    rows = np.column_stack([np.ones(case.n), case.data.features])
    found = np.concatenate([answer.intercept_, answer.coef_])
    best = np.linalg.lstsq(rows, case.data.targets)[0]
    least, loss = (np.mean((rows @ point - case.data.targets) ** 2) for point in (best, found))
    assert loss <= 1.1 * least, f"SGDRegressor arrived at a loss of {loss:.4g}; the least is {least:.4g}"
    return off_by(float((loss / least - 1) / 0.1 * UNITS))


_LINEAR_REGRESSION = gdc.load_problem("linear-regression")


# Verdicts, by their size


@dataclass(frozen=True)
class Question:
    """A gradient to be judged: of a problem with so many rows and features, at a point that is drawn."""

    problem: Problem
    n: int
    d: int

    @cached_property
    def data(self) -> gdc.Dataset:
        """Labels of a plane."""
        features = np.random.default_rng(45).uniform(-1, 1, (self.n, self.d)).astype(np.float32)
        return gdc.Dataset(features, features.sum(axis=1) > 0)


def verdict(question: Question, name: str, dtype: str = "float64", factor: float = 1.0) -> Contender:
    """`gdc.verify` of the gradient by hand, times a factor: it is to say whether that is 1."""
    problem, data = question.problem, question.data
    params = drawn_parameters(problem, data)

    def it(params: Params[Array], features: Array, targets: Array) -> Any:
        loss, gradient = problem.value_and_gradient(np, params, features, targets)
        return loss, {name: each * np.asarray(factor, each.dtype) for name, each in gradient.items()}

    def call() -> gdc.Report:
        return gdc.verify(problem, data, params, backends=[], implementations={"it": it}, dtype=dtype)

    due = "agree" if factor == 1 else "wrong"
    return Contender(name, call, lambda report: Judgement(report.verdict == due, f"it is called {report.verdict}"))
