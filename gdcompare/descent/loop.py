"""Gradient descent, once, over any backend: theta <- theta - rate_t * direction_t."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.formula_check import said_of_backend
from gdcompare.backend import Backend, ValueAndGrad, borrowed
from gdcompare.case import Case, DataLike, blocks_for
from gdcompare.data.blocks import Blocks
from gdcompare.descent.checkpoint import Checkpoint, digest_of, name_of
from gdcompare.descent.record import Descent, Progress, Recorder
from gdcompare.descent.rules import Direction, Rule, sgd
from gdcompare.descent.sampling import RowStream, steps_per_epoch
from gdcompare.descent.schedules import Constant
from gdcompare.descent.source import source_of
from gdcompare.descent.stopping import StopReason, Watch
from gdcompare.descent.streamed import BlockBatches, streamed_scan
from gdcompare.problem import Dataset, Problem
from gdcompare.progress import progress_bar
from gdcompare.registry import as_backend, as_problem
from gdcompare.scale.cluster import workers_for
from gdcompare.scale.sums import Sums

# A chunk is long enough for its overhead, some ten steps of NumPy, to vanish, and short enough to be looked at about
# once a second and to keep its records within some tens of megabytes.
_LONGEST_CHUNK = 16384
_CHUNK_WORK = 200_000_000
_CHUNK_NUMBERS = 4_000_000
_WATCHED_CHUNK = 512  # where the descent may stop within it, and every step that is not kept has cost something
_COMPILED_NUMBERS = 200_000  # compiled steps of some nanoseconds may be more, as long as they stay in the cache


def descend(
    problem: str | Problem,
    data: DataLike | Blocks,
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
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Descent:
    """Minimise the mean loss by gradient descent: full batch, mini-batch (`batch_size`), or stochastic (1).

    Problem and data are as `case` has it: by name, from a file, or themselves; data=None for the problem's own.

    An epoch is one pass over the rows: one step of the full batch, or `ceil(n / batch_size)` steps over a fresh
    permutation, the same for every backend. The descent starts where the problem says, unless `start` says otherwise.

    If the data have weights, the loss of a step is the weighted mean over its rows; mini-batches need weights above 0.

    It stops after `epochs`, or sooner, with the history cut at the very step where

    * `target_loss`: the loss, averaged over the last epoch's steps, is at most this;
    * `gradient_norm`: the Euclidean norm of a step's gradient, over all parameters, is at most this;
    * `loss_change`: that averaged loss has not fallen by more than this for `patience` epochs in a row;
    * the loss or a parameter is no longer finite ("diverged": the last finite parameters are returned);
    * `callback`, called between chunks with a `Progress`, returns True; or Ctrl-C is pressed ("interrupted").

    "diverged" is also the reason of a descent that ends at a finite loss more than 1/u^3 times those of its first epoch
    (about 1e48 in float64), and than 1: its path is not cut, for until the end it might have come back.

    `history_every=k` keeps every k-th step and the last, so that memory does not grow with the number of steps.
    `progress` shows a bar on stderr, which also says that a compiler takes its time; None means where stderr is a
    terminal. `chunk` is the number of steps between two looks; it changes no result, except in the last bits where a
    compiler treats a chunk of one step in its own way.

    `checkpoint` is a folder in which the descent stands on disk: written every ten seconds or so, and when it ends or
    is interrupted. With `resume` one that stands there goes on, to the same last bit, if it is of the same descent; one
    that has ended is returned; and where there is none, it begins.

    Data in `Blocks` are read as they are needed, and need not fit the memory. So many new processes, `workers`, share
    them, or those of the Dask cluster at `scheduler`, "tcp://HOST:PORT": full-batch steps have the same bits whoever
    works out which block. Rows in memory are then cut into blocks, too.

    Raises ValueError, LookupError or BackendUnavailableError before any work for arguments that make no sense.

    >>> import gdcompare as gdc
    >>> data = gdc.Dataset([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> fit = descend("linear-regression", data, "numpy", gdc.rules.sgd(0.2), epochs=1000, gradient_norm=1e-6)
    >>> fit.stop_reason, fit.steps, fit.parameters["theta_1"].round(4).tolist()
    ('gradient norm', 105, [2.0])
    """
    backend = as_backend(backend)
    shared = (workers, scheduler) != (None, None)
    if shared and batch_size is not None:
        raise ValueError("processes share the full batch: workers and scheduler go without batch_size")
    if shared and not isinstance(data, Blocks):
        data = blocks_for(as_problem(problem), data)
    streamed = data if isinstance(data, Blocks) else None
    case = Case.of(
        problem,
        data.first if isinstance(data, Blocks) else data,
        start,
        backend.dtype,
        otherwise=lambda it, rows: it.start(rows),
        tried=False,
    )
    rows: Dataset | Blocks = case.data if streamed is None else streamed
    problem, first = case.problem, case.params
    n = len(rows)
    per_epoch = steps_per_epoch(n, batch_size)
    total = _whole("epochs", epochs) * per_epoch
    if not isinstance(rule, Rule):
        raise ValueError(f"rule must be one of gdcompare.rules, such as rules.sgd(0.01), not {rule!r}")
    watch = Watch(n, per_epoch, batch_size or n, target_loss, gradient_norm, loss_change, _whole("patience", patience))
    recorder = Recorder(first, backend, _whole("history_every", history_every), total)
    compiled = getattr(backend, "compiles", False)
    watched = (target_loss, gradient_norm, loss_change) != (None, None, None)
    work = case.features.shape[1] * (batch_size or n)  # numbers read by a step
    kept = sum(value.size for value in first.values()) + (0 if batch_size is None else work)  # and held for it
    length = (
        _chunk_length(total, work, kept, compiled, watched) if chunk is None else min(_whole("chunk", chunk), total)
    )
    if streamed is not None and batch_size is None and checkpoint is not None and chunk is None:
        length = 1  # a pass over all blocks is worth keeping, whatever then fails
    batches: _Batches | BlockBatches | None = None
    sums = None if streamed is None else Sums(problem, backend, streamed)
    if batch_size is not None:
        batches = _Batches(case.data, batch_size, seed) if sums is None else BlockBatches(sums, batch_size, seed)
    case.backends([backend], refereed=False)

    standing = None
    if checkpoint is not None:
        of = {
            "problem": name_of(problem),
            "code": source_of(problem),
            "data": digest_of(case.data) if streamed is None else streamed.identity(),
            "start": digest_of(first),
            "backend": backend.name,
            "dtype": backend.dtype,
            "rule": name_of(rule),
            "batch_size": batch_size,
            "epochs": epochs,
            "seed": seed,
            "stopping": [target_loss, gradient_norm, loss_change, patience],
            "history_every": history_every,
        }
        standing = Checkpoint(checkpoint, of)
        standing.prepare(resume)
    elif resume:
        raise ValueError("resume=True needs the checkpoint to go on from: checkpoint=FOLDER")

    step = _Step(
        backend,
        problem,
        rule.direction,
        names=tuple(first),
        constant_rate=compiled and batches is not None and isinstance(rule.learning_rate, Constant),
        batched=batches is not None,
        weighted=case.data.weights is not None or n % (batch_size or n) > 0,
        with_norm=gradient_norm is not None,
    )
    whole = sums is not None and batches is None
    columns = () if whole or batches is not None else tuple(borrowed(backend, each) for each in _columns(case.data))
    constants: Any = (borrowed(backend, _rates(rule, np.arange(1))[0]), columns) if step.constant_rate else columns
    memory = rule.direction.init(first)
    state = (_as_arrays(backend, first), {key: _as_arrays(backend, part) for key, part in memory.items()})

    reason: StopReason = "epochs"
    ended = False
    if standing is not None and standing.exists:
        (params, memory), reason, ended = _taken_up(standing, tuple(first), recorder, watch)
        state = (_as_arrays(backend, params), {key: _as_arrays(backend, part) for key, part in memory.items()})
        if batches is not None:
            batches.skip(recorder.steps)
    begun = recorder.steps
    stood = begun, state
    try:
        with ExitStack() as stack:
            rated = "rows" if whole else ""
            moved = stack.enter_context(progress_bar(total * (n if whole else 1), progress, "descending", rated))
            if sums is None or not whole:
                run = backend.scan(step)
            else:
                run = streamed_scan(step, sums, stack.enter_context(workers_for(sums, workers, scheduler, moved)))
            advance = (lambda _: None) if whole else moved
            moved(begun * (n if whole else 1))
            for begin in range(begun, 0 if ended else total, length):
                steps = np.arange(begin, min(begin + length, total))
                fed = [] if step.constant_rate else [_rates(rule, steps)]
                padded = len(steps) if whole else length  # a pass over all blocks is more than a compilation
                inputs = _inputs([*fed, *rule.direction.coefficients(np, steps)], batches, len(steps), padded)
                with nullcontext() if whole else said_of_backend(backend.name):  # a block's sums are said of it there
                    state, records = run(state, inputs, constants)
                losses, *after = map(backend.to_numpy, records)
                norms = after.pop() if step.with_norm else losses
                kept, stopped = watch.look(losses[: total - begin], norms, after)
                recorder.add(losses, after, kept)
                stood = recorder.steps, state
                if stopped is not None:
                    reason = stopped
                    break
                if len(losses) < min(length, total - begin):
                    reason = "interrupted"
                    break
                advance(kept)
                if standing is not None and standing.due:
                    _keep(standing, backend, recorder, watch, state, "interrupted", False)
                if callback is not None and callback(recorder.progress(total)):
                    reason = "callback"
                    break
    except KeyboardInterrupt:
        reason = "interrupted"
    except Exception:  # rows that cannot be read, workers that are gone
        if standing is not None and 0 < stood[0] == recorder.steps:
            _keep(standing, backend, recorder, watch, stood[1], "interrupted", False)
        raise
    if watch.blown_up and reason in ("epochs", "loss change", "gradient norm"):
        reason = "diverged"
    if standing is not None and not ended and stood[0] == recorder.steps:
        _keep(standing, backend, recorder, watch, stood[1], reason, reason not in ("interrupted", "callback"))
    return replace(recorder.finish(reason), rule=rule, rows=n, batch_size=batch_size)


def _keep(
    standing: Checkpoint, backend: Backend[Any], recorder: Recorder, watch: Watch, state: Any, reason: StopReason,
    ended: bool,
) -> None:  # fmt: skip
    """Write down where the descent stands."""
    params, memory = state
    arrays, numbers = recorder.recorded()
    tail, seen = watch.remembered()
    arrays |= {"seen": tail}
    arrays |= {f"parameter {name}": backend.to_numpy(each) for name, each in params.items()}
    for key, part in memory.items():
        arrays |= {f"memory {key} {name}": backend.to_numpy(each) for name, each in part.items()}
    names = {key: list(part) for key, part in memory.items()}
    standing.write(arrays, {"reason": reason, "ended": ended, "memory": names, "seen": seen, "record": numbers})


def _taken_up(
    standing: Checkpoint, names: Sequence[str], recorder: Recorder, watch: Watch
) -> tuple[Any, StopReason, bool]:
    """Return the state that was written down, and whether, and why, the descent had ended; recorder and watch go on."""
    arrays, numbers = standing.read()
    recorder.take_up(arrays, numbers["record"])
    watch.remind(arrays["seen"], numbers["seen"])
    params = {name: arrays[f"parameter {name}"] for name in names}
    memory = {key: {name: arrays[f"memory {key} {name}"] for name in part} for key, part in numbers["memory"].items()}
    return (params, memory), numbers["reason"] if numbers["ended"] else "epochs", numbers["ended"]


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
    constant_rate: bool
    """Whether the rate comes with the data. Where steps take nanoseconds, another number for each is felt."""
    batched: bool
    weighted: bool
    with_norm: bool

    @cached_property
    def value_and_grad(self) -> ValueAndGrad[Any]:
        return self.backend.value_and_grad(self.problem)

    def __call__(self, state: Any, inputs: tuple[Any, ...], constants: Any) -> tuple[Any, tuple[Any, ...]]:
        """Take theta to theta - rate * direction; record the loss met, theta, and the gradient's norm if wanted."""
        params, _ = state
        coefficients: Sequence[Any]
        if self.constant_rate:
            (rate, data), coefficients = constants, inputs
        else:
            data, (rate, *coefficients) = constants, inputs
        if self.batched:
            given = 3 if self.weighted else 2
            data, coefficients = coefficients[-given:], coefficients[:-given]

        loss, gradient = self.value_and_grad(params, *data)
        return self.moved(state, rate, coefficients, loss, gradient)

    def moved(
        self, state: Any, rate: Any, coefficients: Sequence[Any], loss: Any, gradient: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, ...]]:
        """Take the step, where loss and gradient are known."""
        params, memory = state
        try:
            direction, memory = self.direction.update(self.backend.xp, params, gradient, memory, coefficients)
            params = {name: params[name] - rate * direction[name] for name in self.names}
        except KeyError:
            if missing := [name for name in self.names if name not in gradient]:
                raise ValueError(
                    f"the gradient by {self.backend.name} has nothing for {', '.join(map(repr, missing))}: a "
                    "derivation returns {name: gradient} for each parameter"
                ) from None
            raise

        record = [loss, *params.values()]
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

    def skip(self, steps: int) -> None:
        """Pass over the batches of these steps."""
        self._stream.skip(steps)

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


def _rates(rule: Rule, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the learning rate of each step, if it is one."""
    rates = np.asarray(rule.learning_rate(steps), dtype=np.float64)
    wrong = ~(np.isfinite(rates) & (rates >= 0))
    if rates.shape != steps.shape:
        raise ValueError(f"a learning-rate schedule must return shape {steps.shape}, not {rates.shape}")
    if wrong.any():
        where = int(np.argmax(wrong))
        raise ValueError(f"learning rate is {rates[where]} at step {steps[where]}; it must be finite and 0 or above")
    return rates


def _inputs(
    coefficients: Sequence[NDArray[Any]], batches: _Batches | BlockBatches | None, steps: int, length: int
) -> tuple[NDArray[Any], ...]:
    """Return what the steps are fed: coefficients, then batches if there are any; each array (length, ...).

    If there are fewer steps than that, the last is repeated: its surplus results are not looked at.
    """
    fed = [*coefficients, *([] if batches is None else batches.take(steps))]
    surplus = length - steps
    return tuple(np.concatenate([each, np.repeat(each[-1:], surplus, axis=0)]) if surplus else each for each in fed)


def _as_arrays(backend: Backend[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: borrowed(backend, value) for name, value in values.items()}


def _whole(what: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{what} must be a whole number, 1 or above, not {value!r}")
    return int(value)


def _chunk_length(total: int, work: int, kept: int, compiled: bool, watched: bool) -> int:
    """Return one length for all chunks, so that a compiling backend compiles once; the last may run past the end."""
    longest = min(_LONGEST_CHUNK, _CHUNK_NUMBERS // max(1, kept))
    if compiled:
        longest = max(longest, _COMPILED_NUMBERS // max(1, kept))
    elif watched:
        longest = min(longest, _WATCHED_CHUNK)
    longest = max(1, min(longest, _CHUNK_WORK // work))
    return -(-total // -(-total // longest))
