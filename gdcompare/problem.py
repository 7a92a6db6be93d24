"""What is differentiated: a finite sum of per-sample losses, and the data it runs over."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gdcompare.table import as_html, count, table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class NotDerivedError(TypeError):
    """A problem has no such derivative by hand, and something asked for it."""


class Problem(ABC):
    """The mean over samples of a per-sample loss, and its gradients derived by hand, if anybody has derived them.

    The formulas are written once against an array namespace `xp` (the Python array API standard), so the same lines
    run on NumPy arrays, torch tensors, JAX tracers, or any other number system that offers the functions they use.

    Letters: `n` rows, `d` features; features (n, d), targets (n,) or (n, k); params `{name: array}`.

    Make a problem a frozen dataclass: equal problems then share one compiled program. `parameter_shapes` and
    `per_sample_losses` are all that it needs. The derivation by hand is `per_sample_gradients`, or
    `value_and_gradient`, or both: what is left out follows from the other.

    >>> class Mean(Problem):
    ...     def parameter_shapes(self, data):
    ...         return {"m": ()}
    ...     def per_sample_losses(self, xp, params, features, targets):
    ...         return (params["m"] - targets) ** 2
    >>> Mean()
    <Mean>
    >>> Mean().derived
    False
    """

    target_values: ClassVar[tuple[float, ...] | None] = None
    """The only values that targets may take, or None for any finite number."""

    target_dimensions: ClassVar[int] = 1
    """1 where targets are (n,), 2 where they are (n, k)."""

    least_target: ClassVar[float] = -math.inf
    """The smallest value that a target may take: 0 for counts."""

    formula_is_read: ClassVar[bool] = False
    """Whether its formula was read from a program that runs: then there is no mistake of writing to look for."""

    @abstractmethod
    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter, by name, for data of this width; the number of rows must not matter."""

    @abstractmethod
    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """Return the losses l_i, shape (n,). This alone is what the frameworks differentiate."""

    def separate_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """Return the same, (n,), where a weight for each row needs its own: a read program may know but their mean."""
        return self.per_sample_losses(xp, params, features, targets)

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """Return dl_i/dparameter derived by hand, `{name: (n, *shape)}`; no 1/n in it.

        If it is not overridden it is `value_and_gradient` of one row after another.
        """
        if not self.derived:
            raise NotDerivedError(
                f"{type(self).__name__} has no gradient derived by hand; write per_sample_gradients or "
                "value_and_gradient, or choose a backend that differentiates the loss"
            )
        each = [
            self.value_and_gradient(xp, params, features[i : i + 1], targets[i : i + 1])[1]
            for i in range(features.shape[0])
        ]
        return {name: xp.stack([gradient[name] for gradient in each]) for name in each[0]}

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Return the mean loss and its gradient `{name: shape}`, derived by hand, shared terms computed once.

        If it is not overridden it is the mean of the per-sample losses and gradients.
        """
        rows = self.per_sample_gradients(xp, params, features, targets)
        loss = xp.mean(self.per_sample_losses(xp, params, features, targets))
        return loss, {name: xp.mean(each, axis=0) for name, each in rows.items()}

    def hessian_vector_product(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any, direction: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return H v derived by hand, `{name: shape}`: the derivative of the mean's gradient along v, `{name: shape}`.

        It is optional, like the gradients.
        """
        raise NotDerivedError(
            f"{type(self).__name__} has no Hessian-vector product derived by hand; write hessian_vector_product, "
            "or choose a backend that differentiates the loss"
        )

    def predictions(self, xp: Any, params: Mapping[str, Any], features: Any) -> Any:
        """Return what the fit says of each row's target, (n,).

        It is optional: pictures draw it among the data, and nothing else asks for it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no predictions; write predictions(xp, params, features)")

    @property
    def predicts(self) -> bool:
        """Whether it has predictions."""
        return type(self).predictions is not Problem.predictions

    @property
    def twice_derived(self) -> bool:
        """Whether it has a Hessian-vector product derived by hand."""
        return type(self).hessian_vector_product is not Problem.hessian_vector_product

    @property
    def derived(self) -> bool:
        """Whether it has a gradient derived by hand."""
        own, base = type(self), Problem
        return (own.per_sample_gradients, own.value_and_gradient) != (
            base.per_sample_gradients,
            base.value_and_gradient,
        )

    def start(self, data: Dataset) -> dict[str, NDArray[np.float64]]:
        """Return where a descent starts unless it is told otherwise: zeros, in the shape of each parameter."""
        return {name: np.zeros(shape) for name, shape in self.parameter_shapes(data).items()}

    def example(self, samples: int = 40, seed: int = 0) -> Dataset | None:
        """Return data of so many rows, made for this problem; None where the seed's line will do."""
        del samples, seed
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def _repr_html_(self) -> str:
        names: list[str] = [each.name for each in fields(self)] if is_dataclass(self) else []
        known = {"gradient": self.derived, "Hessian-vector product": self.twice_derived}
        by_hand = ", ".join(what for what, derived in known.items() if derived) or "nothing"
        rows = [*((name, repr(getattr(self, name))) for name in names), ("derived by hand", by_hand)]
        about = " ".join((type(self).__doc__ or "").partition("\n\n")[0].split())
        if about.startswith(f"{type(self).__name__}("):  # what a dataclass says that has no docstring
            about = ""
        return as_html([repr(self), *filter(None, [about]), table("", ["setting", "value"], rows, left=2)])


_SHOWN_ROWS = 5
_SHOWN_COLUMNS = 8


@dataclass(frozen=True, eq=False)
class Dataset:
    """Features (n, d) and targets (n,) or (n, k), finite, in float64; and a weight for each sample, if they differ.

    With weights (n,) every mean over the data is the weighted one, `sum w_i l_i / sum w_i`. They are finite, none is
    negative, not all are 0. A single feature may be given as (n,). Arrays in float64 are kept, not copied.

    Errors are ValueErrors that name the row and the way out.

    >>> data = Dataset([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0], name="a line")
    >>> data
    Dataset('a line', 3 rows, 1 feature)
    >>> Dataset([[0.0], [float("nan")]], [1.0, 2.0])
    Traceback (most recent call last):
    ...
    ValueError: features hold nan in row 1, column 0; drop or fill such rows first
    """

    features: NDArray[np.float64]
    targets: NDArray[np.float64]
    name: str = "data"
    weights: NDArray[np.float64] | None = None

    def __init__(
        self, features: ArrayLike, targets: ArrayLike, name: str = "data", weights: ArrayLike | None = None
    ) -> None:
        """Check and keep the data."""
        checked_features = _as_float64("features", features)
        checked_targets = _as_float64("targets", targets)
        if checked_features.ndim == 1:
            checked_features = checked_features[:, None]
        if checked_features.ndim != 2:
            raise ValueError(
                f"features have shape {checked_features.shape}; they must be (n, d), a row for each sample"
            )
        if checked_targets.ndim not in (1, 2):
            raise ValueError(f"targets have shape {checked_targets.shape}; they must be (n,) or (n, k)")
        if len(checked_features) != len(checked_targets):
            raise ValueError(f"features have {len(checked_features)} rows but targets have {len(checked_targets)}")
        if checked_features.size == 0:
            raise ValueError(f"the data are empty: features have shape {checked_features.shape}")
        _refuse_non_finite("features", checked_features)
        _refuse_non_finite("targets", checked_targets)
        object.__setattr__(self, "features", checked_features)
        object.__setattr__(self, "targets", checked_targets)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "weights", None if weights is None else checked_weights(weights, len(checked_targets)))

    def rows(self, chosen: Any) -> Dataset:
        """Return some of the rows, by any index of an array, with their weights.

        >>> Dataset([[1.0], [2.0], [3.0]], [4.0, 5.0, 6.0], weights=[1, 2, 3]).rows([2, 0]).weights.tolist()
        [3.0, 1.0]
        """
        weights = None if self.weights is None else self.weights[chosen]
        return Dataset(self.features[chosen], self.targets[chosen], self.name, weights)

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        n, d = self.features.shape
        weighted = "" if self.weights is None else ", weighted"
        return f"Dataset({self.name!r}, {count(n, 'row')}, {count(d, 'feature')}{weighted})"

    def _repr_html_(self) -> str:
        shown = min(len(self), _SHOWN_ROWS)
        targets = self.targets[:shown].reshape(shown, -1)
        columns = {f"feature {i}": each for i, each in enumerate(self.features.T)}
        columns |= {f"target {i}" if targets.shape[1] > 1 else "target": each for i, each in enumerate(targets.T)}
        columns |= {} if self.weights is None else {"weight": self.weights}
        names = list(columns)
        if len(names) > _SHOWN_COLUMNS:
            names = [*names[: _SHOWN_COLUMNS // 2], "...", *names[-_SHOWN_COLUMNS // 2 :]]
        rows = [
            [str(row), *(f"{columns[name][row]:.6g}" if name in columns else "..." for name in names)]
            for row in range(shown)
        ]
        more = [f"and {count(len(self) - shown, 'row')} more"] if len(self) > shown else []
        return as_html([repr(self), table("", ["row", *names], rows), *more])


def checked_weights(weights: ArrayLike, n: int) -> NDArray[np.float64]:
    """Return the weights of n rows in float64; a ValueError unless finite, none negative, and not all 0."""
    checked = _as_float64("weights", weights)
    if checked.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one for each row, not {checked.shape}")
    if not np.all(np.isfinite(checked)) or np.any(checked < 0) or np.sum(checked) <= 0:
        raise ValueError("weights must be finite, none negative, and not all zero")
    return checked


def refuse_weights(data: Dataset, what: str) -> None:
    """Raise a ValueError if the data have weights, which `what` does not take."""
    if data.weights is not None:
        raise ValueError(f"{what} takes no sample weights; give data without them: Dataset(features, targets)")


def check_targets(problem: Problem, data: Dataset) -> None:
    """Raise a ValueError, naming the row, if the problem does not allow the targets."""
    if data.targets.ndim != problem.target_dimensions:
        expected = "(n,)" if problem.target_dimensions == 1 else "(n, k)"
        way_out = "; gdcompare.datasets.suited makes such of yours"
        if data.targets.ndim == 2:
            way_out = "; a problem with several targets in a row says target_dimensions = 2"
        name = type(problem).__name__
        raise ValueError(f"{name} takes targets of shape {expected}, not {data.targets.shape}{way_out}")
    below = data.targets < problem.least_target
    if below.any():
        row = int(np.argwhere(below)[0][0])
        value = float(data.targets[below][0])
        raise ValueError(
            f"{type(problem).__name__} takes targets from {problem.least_target:g} on, but row {row} of {data.name!r} "
            f"has {value:g}; mend or drop the row, or choose another problem"
        )
    if problem.target_values is None:
        return
    wrong = ~np.isin(data.targets, problem.target_values)
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        allowed = " or ".join(f"{value:g}" for value in problem.target_values)
        value = float(data.targets[wrong][0])
        raise ValueError(
            f"{type(problem).__name__} takes targets {allowed}, but row {row} of {data.name!r} has {value:g}; "
            "relabel the targets or choose another problem"
        )


def check_parameters(problem: Problem, data: Dataset, params: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Return the parameters as float64 arrays, in the problem's order, if names and shapes are right and all finite."""
    if not isinstance(params, Mapping):
        raise TypeError(f"parameters are {{name: value}}, not a {type(params).__name__}")
    shapes = problem.parameter_shapes(data)
    if set(params) != set(shapes):
        raise ValueError(
            f"{type(problem).__name__} has the parameters {', '.join(sorted(shapes))}; "
            f"got {', '.join(sorted(map(str, params))) or 'none'}"
        )
    checked = {}
    for name, shape in shapes.items():
        value = _as_float64(f"parameter {name!r}", params[name])
        if value.shape != shape:
            raise ValueError(f"parameter {name!r} must have shape {shape}, not {value.shape}")
        _refuse_non_finite(f"parameter {name!r}", value)
        checked[name] = value
    return checked


def drawn_parameters(problem: Problem, data: Dataset) -> dict[str, NDArray[np.float64]]:
    """Return parameters near where the problem starts, seed 0, rounded to three decimals so that they can be read.

    A value that starts at 0 is drawn from a standard normal; any other is moved by about a tenth of itself.
    """
    generator = np.random.default_rng(0)
    drawn = {}
    for name, start in problem.start(data).items():
        step = np.where(start == 0, 1.0, 0.1 * np.abs(start))
        drawn[name] = np.round(start + step * generator.standard_normal(start.shape), 3)
    return drawn


def _as_float64(what: str, values: ArrayLike) -> NDArray[np.float64]:
    verb = "is" if "'" in what else "are"
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{what} {verb} masked, and nobody would heed the mask: fill or drop what is masked first")
    try:
        raw = np.asarray(getattr(values, "detach", lambda: values)())  # of what records its operations
        if raw.dtype.kind == "c":
            raise TypeError("complex")
        if raw.dtype.kind not in "mM":
            return raw.astype(np.float64, copy=False)
        unit = np.datetime_data(raw.dtype)[0]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{what} must be real numbers in a rectangular array") from None
    raise ValueError(
        f"{what} {verb} {raw.dtype}, no numbers: count in a unit, as in (x - x[0]) / np.timedelta64(1, {unit!r})"
    )


def _refuse_non_finite(what: str, values: NDArray[np.float64]) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    index = tuple(int(i) for i in np.argwhere(~finite)[0])
    if what in ("features", "targets"):
        place = ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column"), index, strict=False))
        raise ValueError(f"{what} hold {values[index]} in {place}; drop or fill such rows first")
    place = f" in index {', '.join(map(str, index))}" if index else ""
    raise ValueError(f"{what} holds {values[index]}{place}; parameters must be finite")
