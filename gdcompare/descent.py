"""Gradient descent, once, over any backend: theta <- theta - rate_t * direction_t."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Backend, ValueAndGrad
from gdcompare.formula_check import check_formula, checked_shapes
from gdcompare.problem import Dataset, Problem, check_parameters, check_targets
from gdcompare.registry import as_backend, as_problem
from gdcompare.rules import Direction, Rule, sgd
from gdcompare.sampling import RowStream, steps_per_epoch

StopReason: TypeAlias = Literal[
    "epochs", "target loss", "gradient norm", "loss change", "diverged", "interrupted", "callback"
]
Params: TypeAlias = dict[str, NDArray[Any]]

# A chunk is long enough for its overhead to vanish, and short enough to be looked at about once a second and to keep
# its records within some tens of megabytes.
_LONGEST_CHUNK = 16384
_CHUNK_WORK = 200_000_000
_CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class History:
    """What happened on the way.

    `losses[i]` is the loss that step `steps[i]` met: that of its batch, at `parameters[name][i]`, before the update.
    `parameters[name]` has one row more than there are losses: the last one is where the descent ended.
    """

    steps: NDArray[np.int64]
    losses: NDArray[Any]
    parameters: Params


@dataclass(frozen=True)
class Descent:
    """The outcome of a descent: where it ended, why, after how many steps, and the way there."""

    parameters: Params
    stop_reason: StopReason
    steps: int
    history: History = field(repr=False)


class Progress(NamedTuple):
    """What a callback sees between two chunks: steps done, of how many, the last loss, the parameters now."""

    step: int
    steps: int
    loss: float
    parameters: Params


def descend(
    problem: str | Problem,
    data: Dataset,
    backend: str | Backend[Any],
    rule: Rule = sgd(0.01),  # noqa: B008 - a rule is immutable
    batch_size: int | None = None,
    epochs: int = 100,
    seed: int = 0,
    start: Mapping[str, Any] | None = None,
    *,
    target_loss: float | None = None,
    gradient_norm: float | None = None,
    loss_change: float | None = None,
    patience: int = 5,
    history_every: int = 1,
    callback: Callable[[Progress], bool | None] | None = None,
    progress: bool | None = None,
    chunk: int | None = None,
) -> Descent:
    """Minimise the mean loss by gradient descent: full batch, mini-batch (`batch_size`), or stochastic (1).

    An epoch is one pass over the rows: one step of the full batch, or `ceil(n / batch_size)` steps over a fresh
    permutation, the same for every backend. The descent starts where the problem says, unless `start` says otherwise.

    If the data have weights, the loss of a step is the weighted mean over its rows; mini-batches need weights above 0.

    It stops after `epochs`, or sooner, with the history cut at the very step where

    * `target_loss`: the loss, averaged over the last epoch's steps, is at most this;
    * `gradient_norm`: the Euclidean norm of a step's gradient, over all parameters, is at most this;
    * `loss_change`: that averaged loss has not fallen by more than this for `patience` epochs in a row;
    * the loss or a parameter is no longer finite ("diverged": the last finite parameters are returned);
    * `callback`, called between chunks with a `Progress`, returns True; or Ctrl-C is pressed ("interrupted").

    `history_every=k` keeps every k-th step and the last, so that memory does not grow with the number of steps.
    `progress` shows a bar on stderr; None means where stderr is a terminal. `chunk` is the number of steps between two
    looks; it changes no result, except in the last bits where a compiler treats a chunk of one step in its own way.

    Raises ValueError, LookupError or BackendUnavailableError before any work for arguments that make no sense.

    >>> import gdcompare as gdc
    >>> data = gdc.Dataset([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> fit = descend("linear-regression", data, "numpy", gdc.rules.sgd(0.2), epochs=1000, gradient_norm=1e-6)
    >>> fit.stop_reason, fit.steps, fit.parameters["theta_1"].round(4).tolist()
    ('gradient norm', 105, [2.0])
    """
    problem, backend = as_problem(problem), as_backend(backend)
    n = len(data)
    check_targets(problem, data)
    checked_shapes(problem, data)
    first = check_parameters(problem, data, problem.start(data) if start is None else start)
    per_epoch = steps_per_epoch(n, batch_size)
    total = _whole("epochs", epochs) * per_epoch
    if not isinstance(rule, Rule):
        raise ValueError(f"rule must be one of gdcompare.rules, such as rules.sgd(0.01), not {rule!r}")
    watch = _Watch(n, per_epoch, batch_size or n, target_loss, gradient_norm, loss_change, _whole("patience", patience))
    recorder = _Recorder(first, backend, _whole("history_every", history_every))
    length = _chunk_length(total, data, batch_size, first, chunk)
    batches = None if batch_size is None else _Batches(data, batch_size, seed)
    check_formula(problem, data, by_hand=getattr(backend, "by_hand", False), refereed=False)

    step = _Step(
        backend,
        problem,
        rule.direction,
        names=tuple(first),
        batched=batches is not None,
        weighted=data.weights is not None or n % (batch_size or n) > 0,
        with_norm=gradient_norm is not None,
    )
    run = backend.scan(step)
    constants = tuple(map(backend.asarray, _columns(data)))
    memory = rule.direction.init(first)
    state = (_as_arrays(backend, first), {key: _as_arrays(backend, part) for key, part in memory.items()})

    reason: StopReason = "epochs"
    try:
        with progress_bar(total, progress, "descending") as advance:
            for begin in range(0, total, length):
                inputs = _inputs(rule, batches, np.arange(begin, min(begin + length, total)), length)
                state, records = run(state, inputs, constants)
                losses, *after = map(backend.to_numpy, records)
                norms = after.pop() if step.with_norm else losses
                kept, stopped = watch.look(losses[: total - begin], norms, after)
                recorder.add(losses, after, kept)
                if stopped is not None:
                    reason = stopped
                    break
                if len(losses) < min(length, total - begin):
                    reason = "interrupted"
                    break
                advance(kept)
                if callback is not None and callback(recorder.progress(total)):
                    reason = "callback"
                    break
    except KeyboardInterrupt:
        reason = "interrupted"
    return recorder.finish(reason)


@final
@dataclass(frozen=True)
class _Step:
    """One step of the descent, on the backend's arrays.

    Its fields are all that a compiled program depends on: equal steps share one compilation, whatever the data, the
    start and the learning rate.
    """

    backend: Backend[Any]
    problem: Problem
    direction: Direction
    names: tuple[str, ...]
    """The order of the parameters in a record: a framework may reorder a dict."""
    batched: bool
    weighted: bool
    with_norm: bool

    @cached_property
    def value_and_grad(self) -> ValueAndGrad[Any]:
        return self.backend.value_and_grad(self.problem)

    def __call__(self, state: Any, inputs: tuple[Any, ...], data: Any) -> tuple[Any, tuple[Any, ...]]:
        """Take theta to theta - rate * direction; record the loss met, theta, and the gradient's norm if wanted."""
        params, memory = state
        rate, *coefficients = inputs
        if self.batched:
            given = 3 if self.weighted else 2
            data, coefficients = coefficients[-given:], coefficients[:-given]

        loss, gradient = self.value_and_grad(params, *data)
        direction, memory = self.direction.update(self.backend.xp, gradient, memory, coefficients)
        params = {name: value - rate * direction[name] for name, value in params.items()}

        record = [loss, *[params[name] for name in self.names]]
        if self.with_norm:
            record.append(_norm(self.backend.xp, gradient))
        return (params, memory), tuple(record)


def _norm(xp: Any, gradient: Mapping[str, Any]) -> Any:
    """Return the Euclidean norm over all parameters together."""
    return xp.sqrt(sum(xp.sum(each * each) for each in gradient.values()))


class _Batches:
    """The data, batch after batch, in the order of a `RowStream`."""

    def __init__(self, data: Dataset, batch_size: int, seed: int) -> None:
        if data.weights is not None and not data.weights.all():
            row = int(np.argmin(data.weights))
            raise ValueError(
                f"row {row} has weight 0, and may be a batch by itself; drop such rows, or take the full batch"
            )
        self._data = data
        self._stream = RowStream(len(data), batch_size, seed)

    def take(self, steps: int) -> list[NDArray[Any]]:
        """Return features (steps, b, d), targets (steps, b, ...), and weights (steps, b) if any row counts for less."""
        rows, weights = self._stream.take(steps)
        # np.take is many times quicker than indexing where rows are short.
        features, targets, *own = (np.take(each, rows, axis=0) for each in _columns(self._data))
        if own:
            weights = own[0] if weights is None else own[0] * weights
        return [features, targets] if weights is None else [features, targets, weights]


def _columns(data: Dataset) -> list[NDArray[Any]]:
    """Return features, targets and, if there are any, weights."""
    return [data.features, data.targets, *([] if data.weights is None else [data.weights])]


def _inputs(rule: Rule, batches: _Batches | None, steps: NDArray[np.int64], length: int) -> tuple[NDArray[Any], ...]:
    """Return what the steps are fed: rates, coefficients, then batches if there are any; each array (length, ...).

    If there are fewer steps than that, the last is repeated: its surplus results are not looked at.
    """
    rates = np.asarray(rule.learning_rate(steps), dtype=np.float64)
    wrong = ~(np.isfinite(rates) & (rates >= 0))
    if rates.shape != steps.shape:
        raise ValueError(f"a learning-rate schedule must return shape {steps.shape}, not {rates.shape}")
    if wrong.any():
        where = int(np.argmax(wrong))
        raise ValueError(f"learning rate is {rates[where]} at step {steps[where]}; it must be finite and 0 or above")
    fed: list[NDArray[Any]] = [rates, *rule.direction.coefficients(steps)]
    if batches is not None:
        fed += batches.take(len(steps))
    surplus = length - len(steps)
    return tuple(np.concatenate([each, np.repeat(each[-1:], surplus, axis=0)]) if surplus else each for each in fed)


@dataclass
class _Watch:
    """Finds the exact step at which to stop, in the records of one chunk after another."""

    n: int
    per_epoch: int
    batch_size: int
    target_loss: float | None
    gradient_norm: float | None
    loss_change: float | None
    patience: int

    def __post_init__(self) -> None:
        for name in ("target_loss", "gradient_norm", "loss_change"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float | np.number) and math.isfinite(value)):
                raise ValueError(f"{name} must be a finite number, not {value!r}")
        sizes = np.full(self.per_epoch, float(self.batch_size))
        sizes[-1] = self.n - self.batch_size * (self.per_epoch - 1)
        self._shares = sizes / self.n
        self._seen = 0
        self._tail = np.empty(0)  # shares of the epoch loss, since the beginning of the last whole epoch
        self._best = math.inf
        self._idle = 0

    def look(
        self, losses: NDArray[Any], norms: NDArray[Any], after: list[NDArray[Any]]
    ) -> tuple[int, StopReason | None]:
        """Return how many of these steps to keep, and why to stop there if one must."""
        steps = len(losses)
        stops: list[tuple[int, StopReason]] = []
        for values in (losses, *after):
            finite = np.isfinite(values[:steps])
            if not finite.all():
                steps = int(np.argmin(finite.reshape(steps, -1).all(axis=1)))
                stops = [(steps, "diverged")]
        if self.target_loss is not None or self.loss_change is not None:
            epoch_losses = self._epoch_losses(losses[:steps].astype(np.float64))
            if self.target_loss is not None:
                stops += _first(epoch_losses <= self.target_loss, "target loss")
            if self.loss_change is not None:
                stops += self._no_change(epoch_losses, self.loss_change)
        if self.gradient_norm is not None:
            stops += _first(norms[:steps].astype(np.float64) <= self.gradient_norm, "gradient norm")
        self._seen += steps
        return min(stops, key=lambda stop: (stop[0], stop[1] == "diverged")) if stops else (steps, None)

    def _epoch_losses(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return, for each step, the mean loss over the n rows of the epoch's worth of steps that ends there.

        NaN, which no rule is met by, while fewer steps than that have been taken.
        """
        if self.per_epoch == 1:
            return losses
        # Row by row an epoch. No sum is subtracted from another, so that a large early loss hides no small later one,
        # and each row is summed by itself, so that chunks change nothing.
        before = len(self._tail)
        places = (self._seen + np.arange(len(losses))) % self.per_epoch
        parts = np.concatenate([self._tail, losses * self._shares[places]])
        epochs = np.pad(parts, (0, -len(parts) % self.per_epoch)).reshape(-1, self.per_epoch)
        begun = np.cumsum(epochs, axis=1)  # up to this step
        ahead = np.cumsum(epochs[:, ::-1], axis=1)[:, ::-1]  # from this step on
        begun[1:, :-1] += ahead[:-1, 1:]
        begun[0, :-1] = np.nan
        self._tail = parts[max(0, len(parts) // self.per_epoch - 1) * self.per_epoch :]
        return begun.ravel()[before : len(parts)]

    def _no_change(self, epoch_losses: NDArray[np.float64], least: float) -> list[tuple[int, StopReason]]:
        for place in range(-(self._seen + 1) % self.per_epoch, len(epoch_losses), self.per_epoch):
            loss = float(epoch_losses[place])
            self._idle = 0 if loss < self._best - least else self._idle + 1
            self._best = min(self._best, loss)
            if self._idle >= self.patience:
                return [(place + 1, "loss change")]
        return []


def _first(met: NDArray[np.bool_], reason: StopReason) -> list[tuple[int, StopReason]]:
    """Return the number of steps up to and with the first that meets a rule."""
    return [(int(np.argmax(met)) + 1, reason)] if met.any() else []


class _Recorder:
    """Keeps every k-th step, and where the descent stands."""

    def __init__(self, first: Params, backend: Backend[Any], every: int) -> None:
        self._every = every
        self._steps = 0
        self._loss = math.nan
        self._now = {name: value.astype(backend.dtype) for name, value in first.items()}
        self._losses: list[NDArray[Any]] = [np.empty(0, dtype=backend.dtype)]
        self._parameters = {name: [value[None]] for name, value in self._now.items()}

    def add(self, losses: NDArray[Any], after: list[NDArray[Any]], steps: int) -> None:
        """Take up the first `steps` of a chunk: the losses they met, and the parameters after each."""
        if steps == 0:
            return
        next_kept = -self._steps % self._every  # loss at the steps 0, k, 2k, ...; parameters likewise, one step on
        self._losses.append(self._own(losses[next_kept : steps : self._every]))
        for name, values in zip(self._now, after, strict=True):
            self._parameters[name].append(self._own(values[(next_kept - 1) % self._every : steps : self._every]))
            self._now[name] = np.array(values[steps - 1])
        self._loss = float(losses[steps - 1])
        self._steps += steps

    def progress(self, total: int) -> Progress:
        return Progress(self._steps, total, self._loss, {name: value.copy() for name, value in self._now.items()})

    def finish(self, reason: StopReason) -> Descent:
        steps = np.arange(0, self._steps + 1, self._every)
        if steps[-1] != self._steps:
            steps = np.append(steps, self._steps)
            for name, value in self._now.items():
                self._parameters[name].append(value[None])
        parameters = {name: np.concatenate(parts) for name, parts in self._parameters.items()}
        return Descent(self._now, reason, self._steps, History(steps, np.concatenate(self._losses), parameters))

    def _own(self, part: NDArray[Any]) -> NDArray[Any]:
        """Copy a thinned part, so that it does not keep the chunk that it was cut from alive."""
        return part if self._every == 1 else part.copy()


def _as_arrays(backend: Backend[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: backend.asarray(value) for name, value in values.items()}


def _whole(what: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{what} must be a whole number, 1 or above, not {value!r}")
    return int(value)


def _chunk_length(total: int, data: Dataset, batch_size: int | None, params: Params, chunk: int | None) -> int:
    """Return one length for all chunks, so that a compiling backend compiles once; the last may run past the end."""
    if chunk is not None:
        return min(_whole("chunk", chunk), total)
    work = data.features.size // len(data) * (batch_size or len(data))  # numbers read by a step
    kept = sum(value.size for value in params.values()) + (0 if batch_size is None else work)  # and held for it
    longest = max(1, min(_LONGEST_CHUNK, _CHUNK_WORK // work, _CHUNK_NUMBERS // max(1, kept)))
    return -(-total // -(-total // longest))


@contextmanager
def progress_bar(total: int, show: bool | None, doing: str) -> Iterator[Callable[[int], object]]:
    """Give a function that moves a bar on stderr on by so many steps; it appears when the work takes a while."""
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        *Progress.get_default_columns()[:-1],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, force_terminal=show),
        transient=True,
    )
    task = bar.add_task(doing, total=total)
    begun = time.monotonic()

    def advance(steps: int) -> None:
        bar.advance(task, steps)
        if not bar.live.is_started and time.monotonic() - begun > 0.5:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
