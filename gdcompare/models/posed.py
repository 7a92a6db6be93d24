"""The problem that a model poses as it stands: the loss of its own program, at these data.

A row of any shape is flat in the problem's data, floats in float64 all of them, and gets its shape, and whole numbers
their kind, where the program and the models run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.numbers import Floats
from gdcompare.arithmetic.program import DECIDE, Program, ProgramError
from gdcompare.arithmetic.tape import Tape, Variable
from gdcompare.backend import Precision, checked_dtype
from gdcompare.problem import Dataset, Problem
from gdcompare.referee.due import no_exit
from gdcompare.referee.verdict import LOSS

Arrays = dict[str, NDArray[Any]]

ROWS_TRIED = 4
"""How many rows are taken together and one by one, to see whether a loss couples them."""

PARTED = "no program of one row serves all"
"""Said where rows take different branches: they do not depend on one another, and are one sample all the same."""

CUT = "cut off from the loss by detach, no_grad or stop_gradient"
OUTSIDE = (
    "the loss moves with it, and the program does not show how: numbers made of it, as by .numpy() or .tolist(), are "
    "constants to the framework. Leave it a tensor, or freeze it if that is meant"
)


FAILS = "the program does not show it, and whether the loss moves with it is not known: the model fails elsewhere"


class Readable(Protocol):
    """What a model needs to pose a problem: see `Native`."""

    name: str

    def __call__(self, params: Any, features: Any, targets: Any) -> Any: ...  # noqa: D102 - see Native

    @property
    def parameters(self) -> dict[str, NDArray[np.float64]]: ...  # noqa: D102 - see Native
    def program(self, params: Any, features: Any, targets: Any) -> Program: ...  # noqa: D102
    def value_and_grad(self, params: Any, features: Any, targets: Any) -> tuple[Any, Any]: ...  # noqa: D102
    def value(self, params: Any, features: Any, targets: Any) -> Any: ...  # noqa: D102
    def as_taken(self, params: Any, features: Any, targets: Any) -> tuple[Any, Any]: ...  # noqa: D102
    def coupling(self) -> list[str]: ...  # noqa: D102
    def held(self, params: Any, features: Any) -> tuple[Any, Any]: ...  # noqa: D102
    def example(self, params: Any) -> tuple[Any, Any]: ...  # noqa: D102
    def as_itself(self) -> Readable: ...  # noqa: D102


@final
@dataclass(frozen=True, eq=False, repr=False)
class ProgramProblem(Problem):
    """The loss of a model's own program, read from its framework's graph.

        l(params) = program(params, features, targets)           the mean over the rows

    The samples are the rows, where the loss of a row does not depend on the others: then the program of all rows gives
    the gradient, and that of one row the per-sample gradients. Else all rows together are one sample.
    """

    model: Readable
    params: Arrays
    features: NDArray[Any]
    targets: NDArray[Any]
    coupled: str
    """How the loss of a row depends on the other rows; "" if it does not."""
    _programs: dict[int, Program] = field(default_factory=dict)

    formula_is_read: ClassVar[bool] = True
    target_dimensions: ClassVar[int] = 2

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    @property
    def title(self) -> str:
        """The model's name, and what its samples are if they are not its rows."""
        return f"{self.name}, whose {len(self.features)} rows are one sample," if self.coupled else self.name

    @property
    def narrowest(self) -> str:
        """The half precision that some operations round to; "" if none does."""
        return self.program(len(self.features)).narrowest

    def __repr__(self) -> str:
        return f"<program of {self.name!r}>"

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """The model's own."""
        del data
        return {name: value.shape for name, value in self.params.items()}

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """Where the model is."""
        del data
        return {name: value.astype(np.float64) for name, value in self.params.items()}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """The mean loss, for each of the rows: their mean is the mean loss; of one row, it is its own."""
        samples = features.shape[0]
        n = samples * (len(self.features) if self.coupled else 1)
        rows, goals = (
            xp.reshape(flat, (n, *like.shape[1:]))
            for flat, like in ((features, self.features), (targets, self.targets))
        )
        return xp.broadcast_to(self.program(n)(xp, *(params[name] for name in self.params), rows, goals), (samples,))

    def separate_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """The losses of the rows, one by one."""
        rows = (slice(i, i + 1) for i in range(features.shape[0]))
        return xp.concat([self.per_sample_losses(xp, params, features[row], targets[row]) for row in rows])

    def program(self, n: int) -> Program:
        """Return the program of n rows."""
        if n not in self._programs:
            rows = np.resize(np.arange(len(self.features)), n)
            self._programs[n] = self.model.program(self.params, self.features[rows], self.targets[rows])
        return self._programs[n]

    def parted(self) -> str:
        """Say at which branch or mask some rows part from others, so that no program of one serves all; "" at none."""
        if all(step.function != DECIDE for step in self.program(len(self.features)).steps):
            return ""
        tape = Tape(Floats())
        rows, goals = (
            Variable(tape, each.reshape(len(each), 1, -1).astype(np.float64)) for each in (self.features, self.targets)
        )
        try:
            with np.errstate(all="ignore"):
                self.per_sample_losses(
                    tape, {key: tape.asarray(each) for key, each in self.params.items()}, rows, goals
                )
        except ProgramError as error:
            return str(error).partition(": write")[0]
        return ""

    def crossed(self) -> str:
        """Say where targets meet outputs so that each row meets every other; "" if they do not."""
        where = self.program(len(self.features)).crossing("targets") if self.coupled else ""
        n = len(self.features)
        return (
            f"at {where} outputs and targets, one ({n},) and the other ({n}, 1), make ({n}, {n}) together"
            if where
            else ""
        )

    def asides(self) -> dict[str, tuple[bool, str]]:
        """Return what is to be said beside the verdict, by parameter: whether it may agree all the same, and why."""
        crossed = self.crossed()
        return self.without_slope() | ({LOSS: (True, crossed)} if crossed else {})

    def without_slope(self) -> dict[str, tuple[bool, str]]:
        """Return the parameters by which the program's loss has no slope; whether that is all there is to it, and why.

        What is cut off by the program itself has none. What is made into numbers outside of it, by NumPy or Python, is
        not in the program, though the loss moves with it.
        """
        found, names = {}, list(self.params)
        for i, lines in self.program(len(self.features)).without_slope().items():
            if i < len(names):
                where = ", ".join(filter(None, lines))
                outside = "" if lines else self._outside(names[i])
                cut = f"{CUT} ({where})" if where else CUT if lines else ""
                found[names[i]] = not outside, cut or outside or "the loss does not use it"
        return found

    def _outside(self, name: str) -> str:
        """Say that the model's loss is another one where this parameter is, or that nobody knows; "" if it is not."""
        value = self.params[name]
        steps = (1 + np.abs(value)) * np.linspace(0.25, 0.75, value.size).reshape(value.shape)
        moved = {**self.params, name: (value + steps).astype(value.dtype)}
        try:
            with no_exit():
                losses = [float(self.model.value(at, self.features, self.targets)) for at in (self.params, moved)]
        except Exception:  # whatever a model does elsewhere
            return FAILS
        return OUTSIDE if losses[0] != losses[1] else ""

    def held(self, direction: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return a direction as the model holds it: in the dtypes of its parameters, where float32 is judged."""
        if any(value.dtype != np.float32 for value in self.params.values()):
            return dict(direction)
        rounded, _ = self.model.held(direction, self.features)
        return dict(rounded)

    def given(self, features: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return flat rows as the model takes them."""
        n = len(features) * (len(self.features) if self.coupled else 1)
        rows, goals = (
            flat.reshape((n, *like.shape[1:])).astype(like.dtype if like.dtype.kind != "f" else flat.dtype)
            for flat, like in ((features, self.features), (targets, self.targets))
        )
        return rows, goals


@final
class AtRows:
    """An implementation that takes rows in the shapes and kinds that the model has them in."""

    def __init__(self, problem: ProgramProblem, function: Callable[..., Any]) -> None:
        self.problem, self.function = problem, function
        self.__name__ = str(getattr(function, "__name__", "mine"))
        for name in ("hints", "per_sample"):
            if hasattr(function, name):
                setattr(self, name, self._at_rows(getattr(function, name)))

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        return self._at_rows(self.function)(*arguments)

    def fits(self, params: Mapping[str, ArrayLike]) -> None:
        """Raise a ValueError if a model's parameters do not match."""
        if (matching := getattr(self.function, "matching", None)) is not None:
            matching(params)

    def along(self, derivative: str) -> Callable[..., Any]:
        """Return another derivative of a model."""
        function: Any = self.function
        return self._at_rows(function.along(derivative)) if hasattr(function, "along") else self

    def _at_rows(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(params: Any, features: Any, targets: Any, *others: Any) -> Any:
            return function(params, *self.problem.given(features, targets), *others)

        return called


class Posed(NamedTuple):
    """A problem, its data and parameters."""

    problem: ProgramProblem
    data: Dataset
    params: dict[str, NDArray[np.float64]]

    @property
    def name(self) -> str:
        """The model's."""
        return self.problem.name

    def of_rows(self, other: Any = None) -> Any:
        """Return the model, or another in its place; a ValueError if its rows depend on one another."""
        if self.problem.coupled:
            why = "; ".join(filter(None, [self.problem.coupled, self.problem.crossed()]))
            lead = "" if why.startswith(PARTED) else "the loss of a row depends on the other rows, for "
            raise ValueError(
                f"no batch law applies to {self.problem.name!r}: {lead}{why}; its gradient can be verified"
            )
        return AtRows(self.problem, self.problem.model if other is None else other)

    def implementations(self, others: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the model itself, and others beside it."""
        if self.problem.name in (others or {}):
            raise ValueError(f"the model itself is called {self.problem.name!r}: give the other one another name")
        every = {self.problem.name: self.problem.model, **(others or {})}
        return {
            name: AtRows(self.problem, each) if callable(each) else each  # what is none is refused where all are
            for name, each in every.items()
        }


def posed(
    model: Readable, data: Dataset | tuple[ArrayLike, ArrayLike] | None, params: Mapping[str, Any] | None, dtype: str
) -> Posed:
    """Return the problem that a model poses on these data, at its own parameters or others of their names."""
    precision = checked_dtype(dtype)
    own = model.parameters if params is None else params
    if not own:
        raise ValueError(f"{model.name!r} has no parameters of its own: say where it is to be judged, params={{...}}")
    if params is not None and (known := model.parameters):
        if set(known) != set(params):
            raise ValueError(f"{model.name!r} has the parameters {', '.join(known)}; got {', '.join(map(str, params))}")
        own = {name: params[name] for name in known}  # in the order in which its program takes them
    refuse_empty(model.name, own)
    for key, value in own.items():
        if np.iscomplexobj(value):
            raise ValueError(
                f"parameter {key!r} holds complex numbers: give their parts along one more axis, the last, "
                "np.stack([z.real, z.imag], -1)"
            )
    if data is None:
        data = model.example(own)
    if not isinstance(data, Dataset) and (not isinstance(data, tuple | list) or len(data) != 2):
        raise ValueError(
            f"data for {model.name!r} are a Dataset or a pair (features, targets), not {_kind(data)}{_pair_of(data)}"
        )
    if isinstance(data, Dataset) and data.weights is not None:
        raise ValueError(f"a model as it stands takes no sample weights, and {data.name!r} has some")
    name = data.name if isinstance(data, Dataset) else "data"
    rows, goals = (data.features, data.targets) if isinstance(data, Dataset) else map(_array, data)
    _refuse_unfit(rows, goals, precision)
    at = {key: np.asarray(value, dtype=precision) for key, value in own.items()}
    given = [each if each.dtype.kind in "iu" else each.astype(precision) for each in (rows, goals)]
    if precision == "float32":
        at, given[0] = model.held(at, given[0])
    features, targets = _tried(model, at, *given)
    coupled = _coupling(model, at, features, targets)
    return posed_at(model, at, features, targets, coupled, name)


def posed_at(
    model: Readable, params: Arrays, features: NDArray[Any], targets: NDArray[Any], coupled: str, name: str = "data"
) -> Posed:
    """Return the problem that a model poses where it is known to run, on the data as it takes them.

    `coupled` says how the loss of a row depends on the other rows; "" if it does not. Raises ProgramError if its
    program cannot be read.
    """
    problem = ProgramProblem(model.as_itself(), params, features, targets, coupled)
    if not coupled and (signs := problem.program(len(features)).signs_by(("features", "targets"))):
        coupled = f"{signs} in it: the signs of vectors are those that were found for these rows"
        problem = ProgramProblem(model.as_itself(), params, features, targets, coupled)
    if not coupled and (parted := problem.parted()):
        coupled = f"{PARTED}: {parted}"
        problem = ProgramProblem(model.as_itself(), params, features, targets, coupled)
    lead = 1 if coupled else len(features)
    rows, goals = (each.reshape(lead, -1).astype(np.float64) for each in (features, targets))
    problem.program(len(features))  # refused here, if it cannot be read
    return Posed(problem, Dataset(rows, goals, name), {key: value.astype(np.float64) for key, value in params.items()})


def _kind(data: Any) -> str:
    """Name what was given, in a few words.

    >>> _kind({"x": 1}), _kind("x.csv"), _kind(np.zeros((8, 2))), _kind((1, 2, 3))
    ('a dict of x', "'x.csv'", 'a ndarray of shape (8, 2)', 'a tuple of 3')
    """
    if isinstance(data, str):
        return repr(data)
    if isinstance(data, Mapping):
        return f"a {type(data).__name__} of {', '.join(map(str, data))}"
    shape = getattr(data, "shape", None)
    size = f" of shape {tuple(shape)}" if shape is not None else f" of {len(data)}" if hasattr(data, "__len__") else ""
    return f"a {type(data).__name__}{size}"


def _pair_of(data: Any) -> str:
    """Say how a pair is had of what deals out batches, or holds arrays."""
    if isinstance(data, str | tuple | list | Mapping) or hasattr(data, "shape"):
        return ""
    if hasattr(data, "tensors"):
        return ": give its .tensors"
    return ": give one batch of it, next(iter(...))" if hasattr(data, "__iter__") else ""


def _array(values: Any) -> NDArray[Any]:
    """Return somebody's features or targets as an array, wherever a framework holds them."""
    for move in ("detach", "cpu"):
        values = getattr(values, move, lambda values=values: values)()
    return np.asarray(values)


def refuse_empty(model: str, params: Mapping[str, ArrayLike]) -> None:
    """Raise a ValueError for a parameter without elements.

    >>> refuse_empty("net", {"w": np.zeros((0, 3))})
    Traceback (most recent call last):
    ...
    ValueError: parameter 'w' of 'net' has the shape (0, 3), and so no gradient: leave it out, or freeze it
    """
    for name, value in params.items():
        if 0 in (shape := np.shape(value)):
            raise ValueError(
                f"parameter {name!r} of {model!r} has the shape {shape}, and so no gradient: leave it out, or freeze it"
            )


def _refuse_unfit(rows: NDArray[Any], goals: NDArray[Any], dtype: Precision) -> None:
    if rows.ndim == 0 or goals.ndim == 0 or len(rows) != len(goals) or rows.size == 0 or goals.size == 0:
        raise ValueError(f"features {rows.shape} and targets {goals.shape} must have a row for each sample")
    for what, values in (("features", rows), ("targets", goals)):
        if values.dtype.kind not in "fiub":
            ways_out = {
                "O": ": objects, maybe of mixed kinds, or None; astype(float) makes numbers of them",
                "c": ": give their parts along one more axis, and put them together in the model",
            }
            way_out = ways_out.get(values.dtype.kind, "")
            raise ValueError(f"the {what} hold {values.dtype}, and a model takes real numbers{way_out}")
        largest = 2 ** (24 if dtype == "float32" else 53)
        if values.dtype.kind in "iu" and (np.abs(values.astype(np.float64)) > largest).any():
            raise ValueError(f"the {what} hold whole numbers beyond {largest}, which {dtype} cannot hold")


def _tried(model: Readable, params: Arrays, features: Any, targets: Any) -> tuple[Any, Any]:
    """Return the data as the model takes them; a ValueError if it does not run on them."""
    try:
        with no_exit():
            taken = model.as_taken(params, features, targets)
            model.value_and_grad(params, *taken)
    except Exception as error:
        given = ", ".join(
            f"{what} {each.shape} of {each.dtype}" for what, each in (("features", features), ("targets", targets))
        )
        raise ValueError(f"{model.name!r} fails on these data, {given}: {type(error).__name__}: {error}") from error
    return taken


def _coupling(model: Readable, params: Arrays, features: Any, targets: Any) -> str:
    """Say how the loss of a row depends on other rows; "" where the loss of a few is the mean of theirs, or the sum."""
    if parts := model.coupling():
        return f"it normalises by the statistics of the batch ({', '.join(parts)})"
    if (rows := min(len(features), ROWS_TRIED)) < 2:
        return ""

    def loss(chosen: slice) -> float:
        return float(model.value(params, features[chosen], targets[chosen]))

    try:
        with no_exit():
            together, each = loss(slice(rows)), [loss(slice(i, i + 1)) for i in range(rows)]
    except Exception as error:  # whatever a model does with a single row
        return f"it cannot be had of single rows: {error}"
    allowed = math.sqrt(np.finfo(next(iter(params.values())).dtype).eps) * np.max(np.abs(each))
    mean, total = np.mean(each), np.sum(each)
    if not np.isfinite(together) or min(abs(together - mean), abs(together - total)) <= allowed:
        return ""
    return f"of {rows} rows it is {together:.6g}, and the mean of theirs is {mean:.6g}"
