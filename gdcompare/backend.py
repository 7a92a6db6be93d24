"""The seam: everything the suite asks of a way to differentiate.

Requirements that shaped it:

* A backend is a value that is passed in. There is no current backend, and neither importing nor calling one changes
  its framework's global state.
* Six members, so that a backend fits in one short file and gets every problem, law, test and benchmark.
* Arrays stay on the backend's side; NumPy is the common tongue at the border, `asarray` and `to_numpy`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, cast, get_args

import numpy as np

from gdcompare.words import did_you_mean

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gdcompare.problem import Problem

ArrayT = TypeVar("ArrayT")
Precision: TypeAlias = Literal["float32", "float64"]
Reduction: TypeAlias = Literal["mean", "sum"]
Derivative: TypeAlias = Literal["gradient", "jvp", "hvp", "hessian"]

Params: TypeAlias = Mapping[str, ArrayT]
Step: TypeAlias = Callable[[Any, tuple[ArrayT, ...], Any], tuple[Any, tuple[ArrayT, ...]]]
Inputs: TypeAlias = "tuple[NDArray[Any], ...]"
Run: TypeAlias = Callable[[Any, Inputs, Any], tuple[Any, Sequence[ArrayT]]]


class ValueAndGrad(Protocol[ArrayT]):
    """`f(params, features, targets, weights=None) -> (loss, {name: gradient})`, means or sums over the rows given."""

    def __call__(  # noqa: D102 - the class says it
        self, params: Params[ArrayT], features: ArrayT, targets: ArrayT, weights: ArrayT | None = None
    ) -> tuple[ArrayT, dict[str, ArrayT]]: ...


class PerSampleGrad(Protocol[ArrayT]):
    """`f(params, features, targets, weights=None) -> {name: (n, *shape)}`, whose mean or sum is the gradient."""

    def __call__(  # noqa: D102 - the class says it
        self, params: Params[ArrayT], features: ArrayT, targets: ArrayT, weights: ArrayT | None = None
    ) -> dict[str, ArrayT]: ...


class BackendUnavailableError(ImportError):
    """A backend is registered, but the framework that it needs is not installed."""


class Backend(Protocol[ArrayT]):
    """One way to differentiate a finite sum, in one framework, at one precision, on one device.

    Inherit it openly, mark the class `@final`, and make it a frozen dataclass: two backends with the same settings are
    then equal, which is how a compiling backend knows that it has seen a computation before.

    Letters: `n` rows, `d` features, `*shape` the shape of a parameter. All floating-point arrays that a backend takes
    in or gives out have its `dtype`; integer arrays (row numbers) keep their integers.
    """

    name: ClassVar[str]
    """The name it is registered under; of a variant that is not the default, `name[variant]`: see `name_variant`."""

    xp: ClassVar[Any]
    """The array namespace its formulas run on (the Python array API standard)."""

    by_hand: ClassVar[bool] = False
    """Whether it evaluates the problem's hand-derived formulas, rather than differentiate the loss."""

    variants: ClassVar[Mapping[str, str]] = {}
    """The values of its field `variant`, if it has one, each with what it is in a few words; the default first."""

    @property
    @abstractmethod
    def dtype(self) -> Precision:
        """The precision of every floating-point array here."""

    @abstractmethod
    def asarray(self, values: ArrayLike) -> ArrayT:
        """Copy `values` to this backend's device; floating-point values take its dtype, integers stay integers."""

    @abstractmethod
    def to_numpy(self, array: ArrayT) -> NDArray[Any]:
        """Bring an array back to NumPy, dtype and shape unchanged, when its computation has finished.

        The result may share memory with the array and be read-only.
        """

    @abstractmethod
    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[ArrayT]:
        """`f(params, features, targets, weights=None) -> (loss, {name: gradient of the parameter's shape})`.

        Both are the **mean** over the n rows given, `1/n sum l_i`; with weights (n,) the weighted mean,
        `sum w_i l_i / sum w_i`. With `reduction="sum"` they are `sum l_i` and `sum w_i l_i`: `reduced` has the four.
        Inputs are left intact.
        """

    @abstractmethod
    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[ArrayT]:
        """`f(params, features, targets, weights=None) -> {name: (n, *shape)}`, one gradient per row.

        There is no 1/n in it: the mean over the rows is the full gradient, and the sum is that of `reduction="sum"`.
        With weights, row i is scaled by `n w_i / sum w_i`, or by `w_i` for the sum, so that the same holds for the
        weighted gradient: `scaled_rows`.
        """

    @abstractmethod
    def scan(self, step: Step[ArrayT]) -> Run[ArrayT]:
        """`run(state, inputs, constants) -> (state, records)`: the loop of the descent.

        `inputs` is a tuple of NumPy arrays, each (steps, ...); they are brought over as `asarray` would, and
        `step(state, input, constants) -> (state, record)` is called once for each of their rows. `run` returns the
        last state and the records, each stacked to (steps, ...). A Python loop where the framework is eager, one
        compiled program where it can be. `state` and `constants` are dicts and tuples of this backend's arrays. `step`
        must be hashable, and equal to another that does the same.
        Fewer records than inputs mean that Ctrl-C cut the loop short.
        """


class DescribesEnvironment(Protocol):
    """An optional capability beside the seam: a backend that can say what its results depend on."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Versions, device and precision switches, by name."""


class SharesMemory(Protocol):
    """An optional capability beside the seam: arrays made without a copy, where the framework allows it."""

    @abstractmethod
    def borrow(self, values: ArrayLike) -> Any:
        """Return what `asarray` returns, in memory shared with `values` if possible.

        It is good for as long as nobody changes `values`, and nothing may be written into it.
        """


def borrowed(backend: Backend[ArrayT], values: ArrayLike) -> ArrayT:
    """Return values as the backend's array: to read from, while they stay as they are; shared where it can.

    >>> from gdcompare.registry import load_backend
    >>> features = np.ones((2, 1))
    >>> bool(np.shares_memory(borrowed(load_backend("numpy"), features), features))
    True
    """
    borrow: Callable[[ArrayLike], Any] = getattr(backend, "borrow", backend.asarray)
    return borrow(values)  # type: ignore[no-any-return]  # or what may stand for one


def read_only(values: ArrayLike, dtype: Precision) -> NDArray[Any]:
    """Return values as an array of that dtype that nobody can write to: shared if they have it; integers stay integers.

    >>> read_only([1, 2], "float32").dtype.kind, read_only(np.ones(2), "float64").flags.writeable
    ('i', False)
    """
    array = np.asarray(values)
    view = (array if array.dtype.kind in "iu" else array.astype(dtype, copy=False)).view()
    view.flags.writeable = False
    return view


class PreparesProcess(Protocol):
    """An optional capability beside the seam: settings of a framework for a process that only runs the suite."""

    @staticmethod
    @abstractmethod
    def prepare_process() -> None:
        """Make them, and none that the user has made; called as soon as the backend's class is loaded."""


class OnOneThread(Protocol):
    """An optional capability beside the seam: sums whose order does not depend on how many threads there are."""

    @abstractmethod
    def one_thread(self) -> AbstractContextManager[None]:
        """Compute on the calling thread alone while this is entered; afterwards as before."""


class GivesLosses(Protocol):
    """An optional capability beside the seam: the loss without its gradient, as quickly as the backend has it."""

    @abstractmethod
    def value(self, problem: Problem, reduction: Reduction = "mean") -> Callable[..., Any]:
        """`f(params, features, targets, weights=None) -> loss`, that of `value_and_grad`."""


class Jvp(Protocol[ArrayT]):
    """`f(params, features, targets, direction, weights=None) -> (loss, its derivative along the direction)`."""

    def __call__(  # noqa: D102 - the class says it
        self,
        params: Params[ArrayT],
        features: ArrayT,
        targets: ArrayT,
        direction: Params[ArrayT],
        weights: ArrayT | None = None,
    ) -> tuple[ArrayT, ArrayT]: ...


class Hvp(Protocol[ArrayT]):
    """`f(params, features, targets, direction, weights=None) -> {name: Hessian times direction}`."""

    def __call__(  # noqa: D102 - the class says it
        self,
        params: Params[ArrayT],
        features: ArrayT,
        targets: ArrayT,
        direction: Params[ArrayT],
        weights: ArrayT | None = None,
    ) -> dict[str, ArrayT]: ...


class Hessian(Protocol[ArrayT]):
    """`f(params, features, targets, weights=None) -> {name: {name: (*shape, *shape)}}`."""

    def __call__(  # noqa: D102 - the class says it
        self, params: Params[ArrayT], features: ArrayT, targets: ArrayT, weights: ArrayT | None = None
    ) -> dict[str, dict[str, ArrayT]]: ...


class DifferentiatesAlong(Protocol[ArrayT]):
    """An optional capability beside the seam: derivatives along a direction `{name: array of the parameter's shape}`.

    They are derivatives of the loss of `value_and_grad`, with the same weights and reduction.
    """

    @abstractmethod
    def jvp(self, problem: Problem, reduction: Reduction = "mean") -> Jvp[ArrayT]:
        """The loss, and its derivative along v: the sum of gradient times v over all parameters, ()."""

    @abstractmethod
    def hvp(self, problem: Problem, reduction: Reduction = "mean") -> Hvp[ArrayT]:
        """The Hessian times v, in the shape of each parameter: the derivative of the gradient along v."""


class GivesHessians(Protocol[ArrayT]):
    """An optional capability beside the seam: the whole Hessian at once, not assembled from products."""

    @abstractmethod
    def hessian(self, problem: Problem, reduction: Reduction = "mean") -> Hessian[ArrayT]:
        """The second derivatives in blocks: d2L/da db is at [a][b], (*shape of a, *shape of b)."""


Foreign: TypeAlias = "Callable[[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]], tuple[Any, Mapping[str, Any]]]"
"""Somebody's `f(params, features, targets) -> (loss, {name: gradient})`, NumPy arrays in and out."""


class Approximates(Protocol):
    """An optional fact beside the seam: that the gradients of a backend are approximate."""

    @property
    @abstractmethod
    def approximates(self) -> str:
        """How, in a few words; a verdict of wrong says so."""


class Compiles(Protocol):
    """An optional fact beside the seam: that `scan` makes one program of its steps; small ones may take nanoseconds."""

    @property
    @abstractmethod
    def compiles(self) -> bool:
        """Whether it does."""


class NativeCheck(NamedTuple):
    """A gradient checker that a framework brings along."""

    name: str
    rule: str
    """Its step and tolerances, in a few words."""
    run: Callable[[], None]
    """Raises where the checker refuses the gradient."""


class ChecksGradients(Protocol):
    """An optional capability beside the seam: a backend whose framework has gradient checkers of its own."""

    @abstractmethod
    def native_checks(
        self, problem: Problem, params: Params[Any], features: Any, targets: Any, implementation: Foreign | None = None
    ) -> list[NativeCheck]:
        """Return the framework's checkers, with its default settings, on the mean loss at this point (NumPy arrays).

        They check this backend's own gradient or, if one is given, that of an implementation, which is dressed as a
        function of the framework for that.
        """


class TraceStep(NamedTuple):
    """One operation of a program that computes a gradient, and what was computed there (NumPy arrays)."""

    name: str
    """Of its result, by which other steps take it in."""
    operation: str
    inputs: tuple[str, ...]
    """The names of steps, or of parameters; what does not depend on these may be left out."""
    value: NDArray[Any] | None
    """None where the framework keeps none."""
    cotangent: NDArray[Any] | None = None
    """The derivative of the loss by that result; None where the program does not tell."""
    label: str = ""
    """What it is, where that is known: a parameter's gradient, a variable of the formula."""


class Trace(NamedTuple):
    """A program that computes the gradient of the mean loss, step by step in the order in which it ran."""

    name: str
    """Whose it is, in a word."""
    title: str
    steps: list[TraceStep]


class ShowsSteps(Protocol):
    """An optional capability beside the seam: a backend that can show how its framework gets to a gradient."""

    @abstractmethod
    def trace(self, problem: Problem, params: Params[Any], features: Any, targets: Any) -> Trace:
        """Return the steps to the gradient of the mean loss at this point (NumPy arrays)."""


def reduced(xp: Any, losses: Any, weights: Any = None, reduction: Reduction = "mean") -> Any:
    """Return the loss of the rows: the one place that says what a mean and a sum are, with and without weights.

    >>> losses, weights = np.array([1.0, 4.0]), np.array([1.0, 2.0])
    >>> [float(reduced(np, losses, w, r)) for w in (None, weights) for r in ("mean", "sum")]
    [2.5, 5.0, 3.0, 9.0]
    """
    if weights is None:
        return xp.mean(losses) if reduction == "mean" else xp.sum(losses)
    total = weights @ losses
    return total / xp.sum(weights) if reduction == "mean" else total


def scaled_rows(
    xp: Any, gradients: Mapping[str, Any], weights: Any = None, reduction: Reduction = "mean"
) -> dict[str, Any]:
    """Return per-sample gradients whose mean, or sum, is the weighted gradient: row i times `n w_i / sum w`, or `w_i`.

    >>> scaled_rows(np, {"a": np.array([1.0, 4.0])}, np.array([1.0, 3.0]))["a"].tolist()
    [0.5, 6.0]
    """
    if weights is None:
        return dict(gradients)
    scale = weights * (weights.shape[0] / xp.sum(weights)) if reduction == "mean" else weights  # (n,)
    return {name: xp.reshape(scale, (-1, *[1] * (each.ndim - 1))) * each for name, each in gradients.items()}


def checked_reduction(reduction: str) -> Reduction:
    """Return `reduction` if there is such a one; otherwise say which there are.

    >>> checked_reduction("average")
    Traceback (most recent call last):
    ...
    ValueError: unknown reduction 'average'; known: mean, sum
    """
    for known in get_args(Reduction):
        if reduction == known:
            return known  # type: ignore[no-any-return]  # get_args forgets that these are the literals
    raise ValueError(f"unknown reduction {reduction!r}; known: {', '.join(get_args(Reduction))}")


def checked_dtype(dtype: str) -> Precision:
    """Return `dtype` if the suite works in it; otherwise say in which it does.

    >>> checked_dtype("float16")
    Traceback (most recent call last):
    ...
    ValueError: unknown dtype 'float16'; known: float32, float64
    """
    for known in get_args(Precision):
        if dtype == known:
            return known  # type: ignore[no-any-return]  # get_args forgets that these are the literals
    raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(get_args(Precision))}")


def unit_roundoff(dtype: str) -> float:
    """Return u, half the distance from 1 to the next float: the largest relative error of one rounding.

    >>> unit_roundoff("float64") == 2.0**-53
    True
    """
    return float(np.finfo(checked_dtype(dtype)).eps) / 2


def checked_variant(name: str, variants: Iterable[str], variant: str) -> str:
    """Return the variant if a backend has it; otherwise say which it has.

    >>> checked_variant("mine", ["plain", "fused"], "fusd")
    Traceback (most recent call last):
    ...
    ValueError: backend 'mine' has no variant 'fusd'; it has: plain, fused; did you mean 'fused'?
    """
    known = list(variants)
    if variant in known:
        return variant
    nearest = did_you_mean(variant, known)
    raise ValueError(f"backend {name!r} has no variant {variant!r}; it has: {', '.join(known) or 'none'}{nearest}")


def name_variant(backend: Any, by_hand: bool = False) -> None:
    """Check the field `variant` of a backend, and let its name tell the variant, in its `__post_init__`.

    A variant is the same backend with another setting, under which results are shown apart. `by_hand` says that
    this one evaluates the problem's hand-derived formulas. Raises ValueError for one that it has not.

    >>> from types import SimpleNamespace
    >>> fused = SimpleNamespace(name="mine", variants={"plain": "", "fused": ""}, variant="fused")
    >>> name_variant(fused)
    >>> fused.name
    'mine[fused]'
    """
    variant = checked_variant(backend.name, backend.variants, backend.variant)
    if variant != next(iter(backend.variants)):
        object.__setattr__(backend, "name", f"{backend.name}[{variant}]")  # the dataclass is frozen
    if by_hand:
        object.__setattr__(backend, "by_hand", True)


def eager_scan(
    step: Step[ArrayT], asarray: Callable[[ArrayLike], ArrayT], stack: Callable[[Sequence[ArrayT]], ArrayT]
) -> Run[ArrayT]:
    """Return the `run` of `Backend.scan` for a framework that computes as it goes: a Python loop.

    Interrupted by Ctrl-C, it returns the records so far.

    >>> run = eager_scan(lambda total, row, scale: (total + scale * row[0], (total,)), np.asarray, np.asarray)
    >>> state, (totals,) = run(0.0, (np.array([1.0, 2.0, 3.0]),), 10.0)
    >>> float(state), totals.tolist()
    (60.0, [0.0, 10.0, 30.0])
    """

    def run(state: Any, inputs: Inputs, constants: Any) -> tuple[Any, Sequence[ArrayT]]:
        columns = cast("list[Iterable[ArrayT]]", [asarray(values) for values in inputs])
        records = []
        try:
            for row in zip(*columns, strict=True):
                state, record = step(state, row, constants)
                records.append(record)
        except KeyboardInterrupt:
            if not records:
                raise
        return state, tuple(map(stack, zip(*records, strict=True)))

    return run
