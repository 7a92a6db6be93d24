"""What is timed, the right answers worked out another way, and the check that every timed answer must pass.

The check is that of rounding: an answer may differ from the right one by 64 units, a unit being the unit roundoff u of
its dtype times the answer's magnitude, which is its formula evaluated with absolute values. It scales with the data and
the dtype, so no tolerance is chosen, and a wrong sign, factor, row or step is many millions of units. For the problems
of the library the referee says what is right, and 64 units are its budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gdcompare import Dataset, Problem, datasets, load_problem
from gdcompare.backend import unit_roundoff
from gdcompare.case import Case
from gdcompare.descent.sampling import RowStream, steps_per_epoch
from gdcompare.problem import drawn_parameters
from gdcompare.referee.point import Referee
from gdcompare.timing.contender import Judge, Judgement

UNITS = 64
UNITS_OFF = "error in units"


class Right(NamedTuple):
    """A right answer, and the magnitude that its rounding is measured against; both of the answer's shape."""

    value: NDArray[Any]
    magnitude: NDArray[Any]


def check(actual: Mapping[str, NDArray[Any]], right: Mapping[str, Right], dtype: str) -> float:
    """Return the largest error of an answer, in units; raise AssertionError unless all are right to 64 of them."""
    assert set(actual) == set(right), f"expected {sorted(right)}, got {sorted(actual)}"
    worst = 0.0
    for name, (value, magnitude) in right.items():
        array = actual[name]
        assert array.dtype == dtype, f"{name} is {array.dtype}, not {dtype}"
        assert array.shape == value.shape, f"{name} has shape {array.shape}, not {value.shape}"
        assert np.isfinite(array).all(), f"{name} is not finite"
        error = np.abs(array - value)
        units = np.divide(error, unit_roundoff(dtype) * magnitude, out=np.zeros_like(error), where=error != 0)
        worst = max(worst, float(np.max(units, initial=0.0)))
        assert worst <= UNITS, f"{name} is off by {worst:.3g} units, more than {UNITS}: its time is worth nothing"
    return worst


# Gradients


@dataclass(frozen=True)
class GradientCase:
    """A problem of n rows and d features, and the point at which its gradient is taken.

    All numbers fit float32, so that both dtypes are asked the same question.
    """

    problem_name: str
    n: int
    d: int

    @cached_property
    def problem(self) -> Problem:
        return load_problem(self.problem_name)

    @cached_property
    def data(self) -> Dataset:
        generator = np.random.default_rng(45)
        features = _fits_float32(generator.uniform(-1, 1, (self.n, self.d)))
        slopes = np.linspace(3, -1, self.d)
        heights = 4 + features @ slopes + generator.standard_normal(self.n)
        labels = self.problem.target_values is not None
        targets = (heights > 4).astype(np.float64) if labels else _fits_float32(heights)
        return Dataset(features, targets, name=str(self))

    @cached_property
    def params(self) -> dict[str, NDArray[np.float64]]:
        return {"theta_0": np.array(1.0), "theta_1": _fits_float32(np.linspace(-0.5, 2, self.d))}

    @cached_property
    def gradient(self) -> dict[str, Right]:
        """The loss and its gradient: means of what each row adds, in long double.

        A sum of n terms in an order of the adder's choice is off by some sqrt(n) units (Higham and Mary 2019), which
        from n = 4096 on are more than 64.
        """
        losses, slopes = self._rows
        rows = _wide(self.data.features)
        share = max(1.0, math.sqrt(self.n) / UNITS) / self.n
        return {
            "loss": Right(losses.value.mean(), share * losses.magnitude.sum()),
            "theta_0": Right(slopes.value.mean(), share * slopes.magnitude.sum()),
            "theta_1": Right(slopes.value @ rows / self.n, share * (slopes.magnitude @ np.abs(rows))),
        }

    @cached_property
    def per_sample_gradients(self) -> dict[str, Right]:
        _, slopes = self._rows
        rows = _wide(self.data.features)
        return {
            "theta_0": slopes,
            "theta_1": Right(slopes.value[:, None] * rows, slopes.magnitude[:, None] * np.abs(rows)),
        }

    @cached_property
    def _rows(self) -> tuple[Right, Right]:
        """Each row's loss, and its derivative by the prediction p_i = theta_0 + x_i . theta_1, both (n,)."""
        rows, targets = _wide(self.data.features), _wide(self.data.targets)
        theta_0, theta_1 = (_wide(self.params[name]) for name in ("theta_0", "theta_1"))
        predicted, size = theta_0 + rows @ theta_1, np.abs(theta_0) + np.abs(rows) @ np.abs(theta_1)
        if self.problem_name == "linear-regression":  # l = (p - y)^2, dl/dp = 2 (p - y)
            residuals, size = predicted - targets, size + np.abs(targets)
            return Right(residuals**2, size**2), Right(2 * residuals, 2 * size)
        # l = log(1 + e^p) - y p, dl/dp = s - y with s = 1 / (1 + e^-p), whose own derivative is s (1 - s)
        losses = np.log1p(np.exp(-np.abs(predicted))) + np.maximum(predicted, 0) - targets * predicted
        slopes = 1 / (1 + np.exp(-predicted)) - targets
        loss_size = losses + np.abs(slopes) * size
        return Right(losses, loss_size), Right(slopes, np.abs(slopes) * (1 + size + losses))

    def __str__(self) -> str:
        return f"{self.problem_name}, n={self.n}, d={self.d}"


gradient_case = cache(GradientCase)


@dataclass(frozen=True)
class ProblemCase:
    """A problem of the library in n rows: those of its own example, over and over, so that the mean does not change.

    The true gradient is then that of the example, which the referee proves; what rounding may do to it grows with n.
    """

    problem_name: str
    n: int
    by_hand: bool
    """Whether the contender evaluates the derivation, and has its budget, or differentiates the loss."""

    @cached_property
    def problem(self) -> Problem:
        return load_problem(self.problem_name)

    @cached_property
    def data(self) -> Dataset:
        example = datasets.example(self.problem)
        assert self.n % len(example) == 0, f"n must be a multiple of {len(example)}"
        return example.rows(np.arange(self.n) % len(example))

    @property
    def d(self) -> int:
        return int(self.data.features.shape[1])

    @cached_property
    def params(self) -> dict[str, NDArray[np.float64]]:
        return _of_example(self.problem_name).params

    @cached_property
    def gradient(self) -> dict[str, Right]:
        """The loss and its gradient in float64, with magnitudes of which 64 units are the budget."""
        budgets = Referee(Case.of(self.problem, self.data, self.params)).budgets(self.by_hand)
        u = unit_roundoff("float64")  # the truth is rounded, too
        return {
            name: Right(truth.mid, (budgets[name] + u * np.abs(truth.mid)) / (UNITS * u))
            for name, truth in _of_example(self.problem_name).truths.items()
        }

    def __str__(self) -> str:
        return f"{self.problem_name}, n={self.n}, d={self.d}"


problem_case = cache(ProblemCase)


@cache
def _of_example(problem_name: str) -> Referee:
    """Return the referee of a problem at its own example, who keeps what he has proven."""
    problem = load_problem(problem_name)
    example = datasets.example(problem)
    return Referee(Case.of(problem, example, drawn_parameters(problem, example)))


# Descents


@dataclass(frozen=True)
class DescentCase:
    """A descent by least squares from zeros, at learning rate 0.01, in float64.

    `batch_size=None` is the full batch. The rows of each step are those of the suite's own stream.
    """

    n: int
    d: int
    batch_size: int | None
    epochs: int
    rate: float = 0.01
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.epochs * steps_per_epoch(self.n, self.batch_size)

    @property
    def mode(self) -> str:
        names = {None: "full batch", 1: "stochastic"}
        return names.get(self.batch_size, f"mini-batch of {self.batch_size}")

    @cached_property
    def data(self) -> Dataset:
        return gradient_case("linear-regression", self.n, self.d).data

    def rows(self) -> NDArray[np.intp] | None:
        """Return the row numbers of every step, (steps, b), or None for the full batch; drawing them is work."""
        if self.batch_size is None:
            return None
        rows, weights = RowStream(self.n, self.batch_size, self.seed).take(self.steps)
        assert weights is None, "the batch size must divide n"
        return rows

    @cached_property
    def path(self) -> dict[str, Right]:
        """Losses (steps,) and parameters (steps + 1, ...), in plain Python, row after row.

        No step can enlarge an error of the parameters in the Euclidean norm, since 2 rate |(1, x)|^2 <= 2 on any
        batch; so the magnitude of parameters is the sum of the magnitudes of all steps so far.
        """
        features, targets = self.data.features.tolist(), self.data.targets.tolist()
        assert self.rate * (1 + max(math.hypot(*row) for row in features) ** 2) <= 1
        drawn = self.rows()
        batches = [range(self.n)] * self.steps if drawn is None else drawn.tolist()
        theta_0, theta_1, size = 0.0, [0.0] * self.d, 0.0
        losses, loss_sizes, points, sizes = [], [], [(theta_0, *theta_1)], [size]
        for batch in batches:
            residuals, magnitudes = [], []
            for row in batch:
                terms = [theta_0, -targets[row], *(x * slope for x, slope in zip(features[row], theta_1, strict=True))]
                residuals.append(math.fsum(terms))
                magnitudes.append(sum(map(abs, terms)))
            share = 2 / len(batch)
            columns = [[1.0] * len(batch), *zip(*(features[row] for row in batch), strict=True)]
            gradient = [share * math.fsum(r * x for r, x in zip(residuals, each, strict=True)) for each in columns]
            gradient_size = [share * sum(m * abs(x) for m, x in zip(magnitudes, each, strict=True)) for each in columns]
            reach = [
                share * sum(m * abs(x) for m, x in zip(map(abs, residuals), each, strict=True)) for each in columns
            ]
            losses.append(math.fsum(r * r for r in residuals) / len(batch))
            loss_sizes.append(sum(m * m for m in magnitudes) / len(batch) + math.hypot(*reach) * size)
            theta_0 -= self.rate * gradient[0]
            theta_1 = [slope - self.rate * g for slope, g in zip(theta_1, gradient[1:], strict=True)]
            points.append((theta_0, *theta_1))
            size += math.hypot(theta_0, *theta_1) + self.rate * math.hypot(*gradient_size)
            sizes.append(size)
        thetas, theta_sizes = np.array(points), np.array(sizes)
        return {
            "losses": Right(np.array(losses), np.array(loss_sizes)),
            "theta_0": Right(thetas[:, 0], theta_sizes),
            "theta_1": Right(thetas[:, 1:], np.repeat(theta_sizes[:, None], self.d, axis=1)),
        }

    @cached_property
    def end(self) -> dict[str, Right]:
        """The parameters after the last step alone."""
        return {
            name: Right(right.value[-1], right.magnitude[-1]) for name, right in self.path.items() if name != "losses"
        }

    def __str__(self) -> str:
        return f"{self.mode}, n={self.n}, d={self.d}"


descent_case = cache(DescentCase)


def judge_of(read: Callable[[Any], Mapping[str, NDArray[Any]]], right: Mapping[str, Right], dtype: str) -> Judge:
    """Return the judge of a contender whose answer `read` turns into NumPy arrays by name."""
    return partial(_read_and_judged, read, right, dtype)


def _read_and_judged(
    read: Callable[[Any], Mapping[str, NDArray[Any]]], right: Mapping[str, Right], dtype: str, answer: Any
) -> Judgement:
    return off_by(check(read(answer), right, dtype))


def off_by(units: float) -> Judgement:
    """Return the judgement of an answer that is right, and so many units off."""
    return Judgement(right=True, figures={UNITS_OFF: units})


def _fits_float32(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)


def _wide(values: NDArray[Any]) -> NDArray[np.longdouble]:
    return values.astype(np.longdouble)
