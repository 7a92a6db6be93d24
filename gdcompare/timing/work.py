"""What is timed: a piece of work, by names alone, so that any process can prepare the same; and its contenders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np

from gdcompare import data as datasets
from gdcompare.backend import Backend
from gdcompare.case import Case, data_for
from gdcompare.descent.loop import descend
from gdcompare.descent.rules import sgd
from gdcompare.descent.sampling import steps_per_epoch
from gdcompare.gradients import backend_arguments, derivative_function
from gdcompare.own_files import from_file, made_by
from gdcompare.problem import Problem, drawn_parameters, refuse_weights
from gdcompare.referee.verdict import LOSS
from gdcompare.registry import load_backend, load_problem
from gdcompare.timing.contender import Contender, Judgement
from gdcompare.timing.environment import Environment, environment
from gdcompare.timing.judging import Bench
from gdcompare.timing.sized import Sized, sized

KINDS = {
    "loss": "the mean loss alone",
    "gradient": "the mean loss and its gradient",
    "per-sample": "one gradient for each row",
    "descent": "a whole descent by sgd, with its history",
    "hvp": "the Hessian times a direction",
}
"""What can be timed."""

_JUDGED = 400
"""Bytes that the referee holds for each number of a row that differs from others: measured from 10^5 rows on."""

STEPS = 256
"""Steps of a descent, or as many more as make whole epochs."""


@final
@dataclass(frozen=True)
class Work:
    """One piece of work, which all its contenders do.

    Backends are named with their variants; implementations are `{name: "file.py:function"}`, models
    `{name: "file.py:model"}`.
    """

    problem: str
    what: str = "gradient"
    rows: int | None = None
    features: int | None = None
    dtype: str = "float64"
    device: str | None = None
    data: str | None = None
    target: str | None = None
    standardise: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    backends: tuple[str, ...] = ()
    implementations: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    batch_size: int | None = None
    learning_rate: float = 0.01
    threads: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it: `Work(**it)` is the same."""
        return asdict(self)

    @property
    def names(self) -> list[str]:
        """The contenders: all that are named, of which some may turn out not to do such work."""
        own = [*self.implementations, *self.models] if self.what == "gradient" else []
        return [*self.backends, *own]

    @property
    def title(self) -> str:
        """What tells it from all other work."""
        n, d = self.sized.data.features.shape
        words = [self.what, type(self.case.problem).__name__, f"n = {n}", f"d = {d}"]
        if self.what == "descent":
            words.append(f"{self.steps} steps of {self.batch_size or 'all'} rows")
        return ", ".join([*words, self.dtype])

    @property
    def short(self) -> str:
        """What a line has room for."""
        return f"{self.what}, n = {len(self.sized.data)}"

    @cached_property
    def sized(self) -> Sized:
        """The data. Raises ValueError for weighted ones."""
        problem = load_problem(self.problem, **self.settings)
        data = data_for(problem, self.data, self.target)
        refuse_weights(data, "a benchmark")
        return sized(datasets.standardise(data) if self.standardise else data, self.rows, self.features)

    @cached_property
    def case(self) -> Case:
        """The case, at parameters drawn near the start; of a descent, at the start."""
        problem = load_problem(self.problem, **self.settings)
        start = _start if self.what == "descent" else drawn_parameters
        return Case.of(problem, self.sized.data, None, self.dtype, otherwise=start)

    @cached_property
    def bench(self) -> Bench:
        """The referee of it."""
        return Bench(self.case, self.sized)

    @property
    def epochs(self) -> int:
        """Of a descent."""
        return -(-STEPS // steps_per_epoch(len(self.sized.data), self.batch_size))

    @property
    def steps(self) -> int:
        """Of a descent."""
        return self.epochs * steps_per_epoch(len(self.sized.data), self.batch_size)

    def refuse_too_large(self, free: int | None) -> None:
        """Raise a ValueError if inputs and answers of all contenders need more than so many bytes, before they do."""
        problem = load_problem(self.problem, **self.settings)
        few = sized(data_for(problem, self.data, self.target), None, self.features).data
        n = len(few) if self.rows is None else self.rows
        own = few.features.shape[1] + few.targets[0].size  # numbers in a row
        if self.what == "per-sample":
            own += sum(int(np.prod(shape)) for shape in problem.parameter_shapes(few).values())
        needed = n * own * (16 + 2 * np.dtype(self.dtype).itemsize * max(1, len(self.names)))
        needed += min(n, len(few)) * own * _JUDGED
        if free is not None and needed > free:
            raise ValueError(
                f"{n} rows need about {needed / 1e9:.3g} GB for {len(self.names)} contenders, and "
                f"{free / 1e9:.3g} GB are free; {int(n * free / needed):.2g} rows would fit, or fewer contenders"
            )

    @property
    def facts(self) -> dict[str, Any]:
        """What makes it what it is, as plain values."""
        n, d = self.sized.data.features.shape
        found = {"problem": type(self.case.problem).__name__, "what": self.what, "n": n, "d": d, "dtype": self.dtype}
        found["threads"] = self.threads
        if self.device is not None:
            found["device"] = self.device
        if self.what == "descent":
            found |= {"steps": self.steps, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        return found

    def environment(self) -> Environment:
        """Return what times of it on this machine depend on."""
        loaded = [load_backend(name, self.dtype, self.device) for name in self.backends]
        return environment({each.name: each.environment() for each in loaded if hasattr(each, "environment")})

    def contender(self, name: str) -> Contender:
        """Return the contender of that name, ready; one that cannot be made ready fails when it is called."""
        try:
            call, judge = self._own(name) if name not in self.backends else self._of_backend(name)
        except Exception as error:  # whatever it is, it becomes a cell of the table
            failed = error

            def call() -> Any:
                raise failed

            def judge(answer: Any) -> Judgement:
                return Judgement(right=False, words=str(answer))

        return Contender(name, call, judge, facts=self.facts)

    def _of_backend(self, name: str) -> tuple[Callable[[], Any], Callable[[Any], Judgement]]:
        backend = load_backend(name, self.dtype, self.device)
        problem, by_hand = self.case.problem, getattr(backend, "by_hand", False)
        if self.what == "descent":
            return self._descent(backend, by_hand)
        arguments = backend_arguments(self.case, backend)[:3]
        if self.what == "loss":
            loss = loss_function(backend, problem)
            return lambda: loss(*arguments), lambda answer: self.bench.loss(name, backend.to_numpy(answer))
        if self.what == "hvp":
            direction = {key: backend.asarray(value) for key, value in _direction(self.bench).items()}
            product = derivative_function(backend, problem, "hvp")
            return (
                lambda: product(*arguments, direction),
                lambda answer: self.bench.products(name, _to_numpy(backend, answer), by_hand),
            )
        if self.what == "per-sample":
            rows = backend.per_sample_grad(problem)
            return lambda: rows(*arguments), lambda answer: self.bench.rows(name, _to_numpy(backend, answer), by_hand)
        function = backend.value_and_grad(problem)

        def judge(answer: Any) -> Judgement:
            value, gradient = answer
            return self.bench.gradient(name, {LOSS: backend.to_numpy(value), **_to_numpy(backend, gradient)}, by_hand)

        return lambda: function(*arguments), judge

    def _descent(self, backend: Backend[Any], by_hand: bool) -> tuple[Callable[[], Any], Callable[[Any], Judgement]]:
        rule, case = sgd(self.learning_rate), self.case

        def call() -> Any:
            return descend(
                case.problem, case.data, backend, rule, self.batch_size, self.epochs, start=case.params, progress=False
            )

        def judge(answer: Any) -> Judgement:
            return self.bench.descent(
                backend.name, answer, by_hand, self.learning_rate, self.batch_size, self.steps, seed=0
            )

        return call, judge

    def _own(self, name: str) -> tuple[Callable[[], Any], Callable[[Any], Judgement]]:
        """Somebody's function, from NumPy to NumPy; or a native model, on its framework's arrays."""
        case = self.case
        if name in self.implementations:
            function = from_file(self.implementations[name])
            point = {key: value.copy() for key, value in case.params.items()}, case.features, case.targets
            return lambda: function(*point), lambda answer: self._judged(name, *answer)
        model = made_by(self.models[name])
        matching = model.fits(case.params)
        own = matching.load(case.params)
        call, read = model.prepared(own, *model.as_taken(own, case.features, case.targets))

        def judge(answer: Any) -> Judgement:
            value, gradient = read(answer)
            return self._judged(name, value, matching.in_source(gradient))

        return call, judge

    def _judged(self, name: str, value: Any, gradient: Mapping[str, Any]) -> Judgement:
        loss = np.asarray(value, dtype=self.dtype)  # a Python float holds either dtype
        return self.bench.gradient(name, {LOSS: loss, **{k: np.asarray(v) for k, v in gradient.items()}}, None)


def contenders(names: list[str], **work: Any) -> list[Contender]:
    """Return these contenders of a work, from what `to_dict` gave."""
    found = Work(**work)
    return [found.contender(name) for name in names]


def contender(name: str, **work: Any) -> Contender:
    """Return one contender of a work."""
    return Work(**work).contender(name)


def loss_function(backend: Backend[Any], problem: Problem) -> Callable[..., Any]:
    """Return the backend's mean loss, or the formula on its arrays if it has none by itself.

    >>> from gdcompare.registry import load_problem
    >>> loss = loss_function(load_backend("numpy"), load_problem("linear-regression"))
    >>> float(loss({"theta_0": np.array(1.0), "theta_1": np.zeros(1)}, np.ones((2, 1)), np.array([2.0, 4.0])))
    5.0
    """
    if (value := getattr(backend, "value", None)) is not None:
        return value(problem)  # type: ignore[no-any-return]

    def loss(params: Any, features: Any, targets: Any) -> Any:
        return backend.xp.mean(problem.per_sample_losses(backend.xp, params, features, targets))

    return loss


def _start(problem: Problem, data: Any) -> Mapping[str, Any]:
    return problem.start(data)


def _direction(bench: Bench) -> Mapping[str, Any]:
    found = bench.along.direction
    assert found is not None  # that of a Hessian is none
    return found


def _to_numpy(backend: Backend[Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: backend.to_numpy(value) for name, value in arrays.items()}
