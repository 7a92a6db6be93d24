"""The checks that a new backend goes through, each with its remedy."""

from __future__ import annotations

import inspect
import os
import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from gdcompare import data as datasets
from gdcompare.backend import Precision, eager_scan
from gdcompare.case import Case
from gdcompare.problem import Dataset, Problem, drawn_parameters
from gdcompare.referee.laws import check_batch_laws
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import LOSS, Entry, judge_all
from gdcompare.referee.verify import verify
from gdcompare.registry import approximation_names, load_problem, registered_backends

Arrays: TypeAlias = dict[str, NDArray[Any]]

MEMBERS = ("name", "xp", "dtype", "asarray", "to_numpy", "value_and_grad", "per_sample_grad", "scan")

_FIRST_ROWS = 8
"""The referee and the laws take at most this many rows of a problem's example: each costs a compilation for some."""

_WITH_LAWS = 2
"""The batch laws are checked on this many problems."""


class UnmetError(Exception):
    """What a check expects does not hold."""


def _require(condition: object, finding: str) -> None:
    if not condition:
        raise UnmetError(finding)


# The problem that most checks run on


@final
@dataclass(frozen=True)
class _Planes(Problem):
    """l_i = sum_j (x_i . slopes_j + offset - y_ij)^2; one parameter more, if `idle`, which no loss depends on."""

    idle: bool = False
    target_dimensions: ClassVar[int] = 2

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        shapes = {"slopes": (data.features.shape[1], data.targets.shape[1]), "offset": ()}
        return shapes | ({"idle": (3,)} if self.idle else {})

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        residuals = features @ params["slopes"] + params["offset"] - targets  # (n, k)
        return xp.sum(residuals * residuals, axis=1)

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """With r the residuals: dl_i/dslopes = 2 x_i r_i^T, dl_i/doffset = 2 sum_j r_ij."""
        twice = 2 * (features @ params["slopes"] + params["offset"] - targets)  # 2 r, (n, k)
        gradients = {"slopes": features[:, :, None] * twice[:, None, :], "offset": xp.sum(twice, axis=1)}
        return gradients | ({"idle": xp.zeros_like(features[:, :1] * params["idle"])} if self.idle else {})


_PARAMS = {"slopes": np.array([[1.0, -2.0, 0.0], [3.0, 1.0, -1.0]]), "offset": np.array(2.0)}
_FEATURES = np.array([[1.0, 2.0], [-1.0, 0.0], [3.0, -2.0], [0.0, 1.0]])
_TARGETS = np.array([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0], [-1.0, 2.0, 1.0], [0.0, 1.0, 4.0]])
_WEIGHTS = np.array([1.0, 2.0, 4.0, 1.0])  # their sum is a power of 2, as is the number of rows: quotients are exact


@dataclass(frozen=True)
class Bench:
    """A backend at work on NumPy arrays, and how to make another."""

    make: Callable[..., Any]
    dtype: Precision
    backend: Any
    name: str | None
    """The name that it was asked for by."""

    def arguments(self, weights: NDArray[Any] | None = None, idle: bool = False) -> tuple[Any, ...]:
        """Return (params, features, targets, weights) as the backend's arrays."""
        params = _PARAMS | ({"idle": np.ones(3)} if idle else {})
        arrays = {name: self.backend.asarray(value) for name, value in params.items()}
        given = [] if weights is None else [self.backend.asarray(weights)]
        return arrays, self.backend.asarray(_FEATURES), self.backend.asarray(_TARGETS), *given

    def whole(self, weights: NDArray[Any] | None = None, idle: bool = False, **reduction: str) -> Arrays:
        """Return the loss, as "loss", and the gradient."""
        loss, gradient = self.backend.value_and_grad(_Planes(idle), **reduction)(*self.arguments(weights, idle))
        return self.numpy({LOSS: loss, **gradient})

    def rows(self, weights: NDArray[Any] | None = None, idle: bool = False, **reduction: str) -> Arrays:
        """Return the per-sample gradients."""
        return self.numpy(self.backend.per_sample_grad(_Planes(idle), **reduction)(*self.arguments(weights, idle)))

    def numpy(self, arrays: Mapping[str, Any]) -> Arrays:
        """Return the backend's arrays as NumPy's."""
        return {name: np.array(self.backend.to_numpy(value)) for name, value in arrays.items()}

    def run_scan(self) -> tuple[Arrays, Sequence[Any]]:
        """Return the last state and the records of `_Step`."""
        run = self.backend.scan(_Step())
        state, records = run(*_start(self.backend.asarray))
        (total, inner), count = state["pair"], state["count"]
        return self.numpy({"total": total, "inner": inner["row"], "count": count}), records


def _true_rows() -> Arrays:
    losses = _Planes().per_sample_losses(np, _PARAMS, _FEATURES, _TARGETS)
    return {LOSS: losses, **_Planes().per_sample_gradients(np, _PARAMS, _FEATURES, _TARGETS)}


def _mixed(shares: NDArray[Any]) -> Arrays:
    """Return `sum share_i l_i` and the same of the gradients."""
    return {name: np.tensordot(shares, rows, axes=1) for name, rows in _true_rows().items()}


def _scaled(shares: NDArray[Any]) -> Arrays:
    """Return the per-sample gradients, row i times share_i."""
    return {name: (rows.T * shares).T for name, rows in _true_rows().items() if name != LOSS}


def _same(what: str, actual: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    """Say of the first array that is not the expected one where, and by what factor if there is one for all."""
    for name, right in expected.items():
        found = np.asarray(actual[name])
        _require(found.shape == np.shape(right), f"{what}: {name} has shape {found.shape}, not {np.shape(right)}")
        off = np.argwhere(found != right)
        if len(off):
            index = tuple(int(i) for i in off[0])
            ratios = np.unique(found[right != 0] / right[right != 0])
            factor = f", {ratios[0]:g} times it" if len(ratios) == 1 else ""
            place = f"[{', '.join(map(str, index))}]" if index else ""
            raise UnmetError(f"{what}: {name}{place} is {float(found[index])!r}, not {float(right[index])!r}{factor}")


# The step that `scan` is tried with


@final
@dataclass(frozen=True)
class _Step:
    """Sums of inputs times a constant, looked up by a whole number; state and constants are nested."""

    def __call__(self, state: Any, inputs: tuple[Any, ...], constants: Any) -> tuple[Any, tuple[Any, ...]]:
        (total, inner), count = state["pair"], state["count"]
        value, which, row = inputs
        factor = constants["table"][0][which]
        total = total + value * factor
        after = {"pair": (total, {"row": inner["row"] + row}), "count": count + which}
        return after, (total, value * row, which)


_INPUTS = (np.array([1.0, 2.0, 3.0]), np.array([2, 0, 1]), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))


def _start(asarray: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    state = {"pair": (asarray(0.5), {"row": asarray([1.0, -1.0])}), "count": asarray(np.array(7))}
    return state, _INPUTS, {"table": (asarray([10.0, 100.0, 1000.0]),)}


# The checks


class _Check(NamedTuple):
    name: str
    run: Callable[..., None]
    mend: str
    needs: tuple[str, ...]
    subjects: Callable[[Sequence[str]], Sequence[str | None]]
    """Which of the problems it is run on, one by one; [None] if it is run once, on none of them."""


CHECKS: list[_Check] = []


def _check(
    name: str, *needs: str, mend: str, subjects: Callable[[Sequence[str]], Sequence[str | None]] = lambda _: [None]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(run: Callable[..., None]) -> Callable[..., None]:
        CHECKS.append(_Check(name, run, mend, needs, subjects))
        return run

    return add


@_check("members", mend="inherit gdcompare.backend.Backend openly, and write every member; mypy then checks them")
def _members(bench: Bench) -> None:
    lacking = [member for member in MEMBERS if not hasattr(bench.backend, member)]
    _require(not lacking, f"it lacks {', '.join(lacking)}")
    _require(bench.backend.dtype == bench.dtype, f"its dtype is {bench.backend.dtype!r}, not {bench.dtype!r}")
    if bench.name in [*registered_backends(), *approximation_names()]:
        _require(
            bench.backend.name == bench.name,
            f"its name is {bench.backend.name!r}, but it is registered as {bench.name!r}",
        )


@_check(
    "signatures",
    "members",
    mend='value_and_grad(self, problem, reduction="mean") returns f(params, features, targets, weights=None)',
)
def _signatures(bench: Bench) -> None:
    for name in ("value_and_grad", "per_sample_grad"):
        method = getattr(bench.backend, name)
        _accepts(f"{name}(problem, reduction)", method, _Planes(), reduction="mean")
        _accepts(f"what {name} returns", method(_Planes()), None, None, None, weights=None)
    _accepts("scan(step)", bench.backend.scan, _Step())
    _accepts("what scan returns", bench.backend.scan(_Step()), None, None, None)


def _accepts(what: str, function: Any, *arguments: Any, **named: Any) -> None:
    _require(callable(function), f"{what} cannot be called")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a compiled function may have none
        return
    try:
        signature.bind(*arguments, **named)
    except TypeError as error:
        raise UnmetError(f"{what} takes {signature}: {error}") from None


@_check("a value: equal, hashable, frozen", "members", mend="make the class a @dataclass(frozen=True)")
def _value(bench: Bench) -> None:
    again = bench.make(dtype=bench.dtype)
    _require(bench.backend == again, "two with the same settings are not equal")
    hash(again)
    _require(hash(bench.backend) == hash(again), "two that are equal have different hashes")
    other = "float32" if bench.dtype == "float64" else "float64"
    try:
        different = bench.make(dtype=other)
    except ValueError:
        different = None
    _require(bench.backend != different, f"it equals the one in {other}")
    try:
        again.dtype = other
    except (AttributeError, TypeError):
        return
    raise UnmetError("its dtype can be overwritten")


@_check(
    "refusals",
    "members",
    mend="call checked_dtype(dtype) in __post_init__, and raise a ValueError for a device that is not there",
)
def _refusals(bench: Bench) -> None:
    for setting, value in (("dtype", "float16"), ("device", "no-such-device")):
        try:
            bench.make(**({"dtype": bench.dtype} | {setting: value}))
        except ValueError:
            continue
        raise UnmetError(f"it takes the {setting} {value!r}")


@_check(
    "asarray",
    "members",
    mend="copy; give floats the backend's dtype, whatever theirs; let integers stay integers, and 0-d arrays 0-d",
)
def _asarray(bench: Bench) -> None:
    backend = bench.backend
    for source in (np.array([1.5, -2.0], np.float32), np.array([1.5, -2.0]), [1.5, -2.0], 0.5, np.array(0.5)):
        found = backend.to_numpy(backend.asarray(source))
        kind = f"of {source!r}"
        _require(found.dtype.name == bench.dtype, f"{kind} has dtype {found.dtype}, not {bench.dtype}")
        _require(found.shape == np.shape(source), f"{kind} has shape {found.shape}, not {np.shape(source)}")
        _require(np.array_equal(found, source), f"{kind} is {found.tolist()}")
    for whole in (np.array([1, 2, 3]), np.array([1, 2, 3], np.int32), np.array(7)):
        found = backend.to_numpy(backend.asarray(whole))
        _require(found.dtype.kind == "i", f"of integers {whole.dtype} has dtype {found.dtype}")
        _require(np.array_equal(found, whole), f"of {whole!r} is {found.tolist()}")
    source = np.array([1.0, 2.0], bench.dtype)
    array = backend.asarray(source)
    source[0] = 9.0
    _require(backend.to_numpy(array)[0] == 1, "it shares memory with its source: a change there shows here")


@_check("to_numpy", "asarray", mend="return an np.ndarray of the array's own dtype and shape")
def _to_numpy(bench: Bench) -> None:
    for source in (np.array(0.5), np.zeros((0, 2)), np.arange(6.0).reshape(2, 3).T, np.arange(8.0).reshape(2, 2, 2)):
        found = bench.backend.to_numpy(bench.backend.asarray(source))
        _require(isinstance(found, np.ndarray), f"it returns a {type(found).__name__}")
        _require(found.shape == source.shape, f"of shape {source.shape} it returns {found.shape}")
        _require(np.array_equal(found, source), f"of {source.tolist()} it returns {found.tolist()}")


@_check("names in order", "to_numpy", mend="return {name: gradient} for each name in params, in the order of params")
def _names(bench: Bench) -> None:
    _, gradient = bench.backend.value_and_grad(_Planes())(*bench.arguments())
    rows = bench.backend.per_sample_grad(_Planes())(*bench.arguments())
    for what, found in (("value_and_grad", gradient), ("per_sample_grad", rows)):
        _require(list(found) == list(_PARAMS), f"{what} returns {', '.join(map(str, found))}, not {', '.join(_PARAMS)}")


@_check(
    "shapes and dtype",
    "names in order",
    mend="the loss is (), each gradient has its parameter's shape, rows come first; all in the backend's dtype",
)
def _results(bench: Bench) -> None:
    whole, rows = bench.whole(), bench.rows()
    shapes = {LOSS: ()} | {name: value.shape for name, value in _PARAMS.items()}
    for what, found, lead in (("value_and_grad", whole, ()), ("per_sample_grad", rows, (len(_FEATURES),))):
        for name, array in found.items():
            shape = (*lead, *shapes[name])
            _require(array.shape == shape, f"{what}: {name} has shape {array.shape}, not {shape}")
            _require(array.dtype.name == bench.dtype, f"{what}: {name} has dtype {array.dtype}, not {bench.dtype}")


@_check("mean and not sum", "shapes and dtype", mend="loss and gradient are means over the rows: use reduced()")
def _mean(bench: Bench) -> None:
    _same("value_and_grad", bench.whole(), _mixed(np.full(4, 0.25)))


@_check(
    "per-sample gradients",
    "shapes and dtype",
    mend="one gradient a row, in the order of the rows, with no 1/n: their mean is the gradient",
)
def _rows(bench: Bench) -> None:
    _same("per_sample_grad", bench.rows(), _scaled(np.ones(4)))


@_check("an unused parameter has gradient 0", "shapes and dtype", mend="return zeros of its shape, not None, no error")
def _unused(bench: Bench) -> None:
    _same("value_and_grad", bench.whole(idle=True), {"idle": np.zeros(3)})
    _same("per_sample_grad", bench.rows(idle=True), {"idle": np.zeros((4, 3))})


@_check(
    "weights",
    "signatures",
    "mean and not sum",
    "per-sample gradients",
    mend="use reduced() for the loss, sum w l / sum w, and scaled_rows() for the rows, times n w_i / sum w",
)
def _weights(bench: Bench) -> None:
    _same("value_and_grad with weights", bench.whole(_WEIGHTS), _mixed(_WEIGHTS / 8))
    _same("per_sample_grad with weights", bench.rows(_WEIGHTS), _scaled(_WEIGHTS / 2))


@_check("a row of weight 0 does not count", "weights", mend="scale each row by its weight, wherever it stands")
def _zero_weights(bench: Bench) -> None:
    for place in range(4):
        w = np.where(np.arange(4) == place, 0.0, [1.0, 2.0, 1.0, 4.0])
        w[(place + 1) % 4] += 8 - np.sum(w)  # adds up to 8, so that quotients are exact
        _same(f"with weight 0 in row {place}", bench.whole(w), _mixed(w / 8))
        _same(f"per_sample_grad with weight 0 in row {place}", bench.rows(w), _scaled(w / 2))


@_check(
    'reduction "sum"',
    "weights",
    mend="hand `reduction` on to reduced() and scaled_rows(): sums of l_i, or of w_i l_i",
)
def _sum(bench: Bench) -> None:
    for w in (None, _WEIGHTS):
        shares, words = (np.ones(4), "") if w is None else (w, " with weights")
        _same(f"value_and_grad{words}", bench.whole(w, reduction="sum"), _mixed(shares))
        _same(f"per_sample_grad{words}", bench.rows(w, reduction="sum"), _scaled(shares))


@_check("inputs are left intact", "shapes and dtype", mend="work on copies; detach what you mark for differentiation")
def _intact(bench: Bench) -> None:
    params, *columns = bench.arguments(_WEIGHTS)
    inputs = {**params, "features": columns[0], "targets": columns[1], "weights": columns[2]}
    before, names = bench.numpy(inputs), list(params)
    for name in ("value_and_grad", "per_sample_grad"):
        getattr(bench.backend, name)(_Planes())(params, *columns[:2])
        _require(list(params) == names, f"{name} changes the dict of parameters")
        _same(f"{name} changes its inputs", bench.numpy({**inputs, **params}), before)


@_check(
    "calls repeat", "shapes and dtype", mend="keep nothing between calls: no accumulated gradients, no random numbers"
)
def _repeats(bench: Bench) -> None:
    for name in ("value_and_grad", "per_sample_grad"):
        function = getattr(bench.backend, name)(_Planes())
        calls = []
        for _ in range(3):
            generator = np.random.default_rng(0)
            columns = [bench.backend.asarray(generator.standard_normal(shape)) for shape in ((4, 2), (4, 3))]
            params = {key: bench.backend.asarray(generator.standard_normal(v.shape)) for key, v in _PARAMS.items()}
            result = function(params, *columns)
            calls.append(bench.numpy(result if isinstance(result, dict) else {LOSS: result[0], **result[1]}))
        for again in calls[1:]:
            _same(f"{name}: a second call differs", again, calls[0])


@_check(
    "scan",
    "to_numpy",
    mend="step once for each row of the inputs, in order; return the last state and the records, each stacked",
)
def _scan(bench: Bench) -> None:
    def asarray(values: Any) -> NDArray[Any]:
        array = np.array(values)
        return array if array.dtype.kind == "i" else array.astype(bench.dtype)

    plain = eager_scan(_Step(), asarray, np.asarray)
    right, right_records = plain(*_start(asarray))
    state, records = bench.run_scan()
    (total, inner), count = right["pair"], right["count"]
    _same("the last state", state, {"total": total, "inner": inner["row"], "count": count})
    _require(len(records) == 3, f"there are {len(records)} records, not 3")
    for place, (record, expected) in enumerate(zip(records, right_records, strict=True)):
        found = bench.numpy({f"record {place}": record})
        _same("the records", found, {f"record {place}": expected})
        (array,) = found.values()
        kinds = array.dtype.kind == "i" if expected.dtype.kind == "i" else array.dtype == expected.dtype
        _require(kinds, f"record {place} has dtype {array.dtype}, not {expected.dtype}")


@_check(
    "nothing global changes",
    "shapes and dtype",
    "scan",
    mend="set error states, seeds and flags in a context manager that puts them back, or not at all",
)
def _globals(bench: Bench) -> None:
    def look() -> dict[str, str]:
        return {
            "NumPy's error state": str(np.geterr()),
            "NumPy's print options": str(np.get_printoptions()),
            "NumPy's global random state": str(np.random.get_state(legacy=False)),  # noqa: NPY002 - it is looked at
            "Python's global random state": str(random.getstate()),
            "the warning filters": str(warnings.filters),
            "the environment variables": str(sorted(os.environ.items())),
        }

    before = look()
    bench.whole()
    bench.rows()
    bench.run_scan()
    after = look()
    changed = [what for what in before if before[what] != after[what]]
    _require(not changed, f"a call changes {', '.join(changed)}")


def _few_rows(problem: Problem) -> Dataset:
    data = datasets.example(problem)
    return Dataset(data.features[:_FIRST_ROWS], data.targets[:_FIRST_ROWS], name=data.name)


@_check(
    "the referee agrees on every problem",
    "mean and not sum",
    "per-sample gradients",
    mend="give xp what the problem's formula asks for; see `gdcompare verify PROBLEM --backend ...` for more",
    subjects=lambda problems: problems,
)
def _judged(bench: Bench, name: str) -> None:
    problem, backend, by_hand = load_problem(name), bench.backend, getattr(bench.backend, "by_hand", False)
    if by_hand and not problem.derived:
        return
    data = _few_rows(problem)
    params = drawn_parameters(problem, data)
    report = verify(problem, data, params, backends=[backend], dtype=bench.dtype)
    referee = Referee(Case.of(problem, data, params, bench.dtype))
    point, *columns = referee.point
    arrays = {key: backend.asarray(value) for key, value in point.items()}
    rows = backend.per_sample_grad(problem)(arrays, *map(backend.asarray, columns))
    allowed, found = referee.row_allowances(by_hand), bench.numpy(rows)
    truths = referee.rows_towards(found, {key: each.budget for key, each in allowed.items()})
    entries = judge_all(backend.name, found, truths, allowed, bench.dtype)
    _agree(name, report.entries)
    _agree(f"{name}, by sample", entries)


@_check(
    "the batch laws hold",
    "the referee agrees on every problem",
    mend="see `gdcompare laws PROBLEM --backend ...`: it names the samples or the batch at fault",
    subjects=lambda problems: problems[:_WITH_LAWS],
)
def _laws(bench: Bench, name: str) -> None:
    problem = load_problem(name)
    if getattr(bench.backend, "by_hand", False) and not problem.derived:
        return
    _agree(name, check_batch_laws(problem, _few_rows(problem), None, bench.backend).entries)


def _agree(what: str, entries: Iterable[Entry]) -> None:
    for entry in entries:
        words = f"{what}: {f'{entry.law}: ' if entry.law else ''}{entry.parameter} is {entry.verdict}"
        _require(entry.verdict != "wrong", f"{words}, {entry.cause}")
