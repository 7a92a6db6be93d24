"""What is differentiated: a finite sum of per-sample losses, and the data it runs over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class Problem(ABC):
    """The mean over samples of a per-sample loss, with its gradients derived by hand.

    The formulas are written once against an array namespace `xp` (the Python array API standard), so the same lines
    run on NumPy arrays, torch tensors, JAX tracers, or any other number system that offers the functions they use.

    Letters: `n` rows, `d` features; features (n, d), targets (n,) or (n, k); params `{name: array}`.

    Make a problem a frozen dataclass: equal problems then share one compiled program.
    """

    target_values: ClassVar[tuple[float, ...] | None] = None
    """The only values that targets may take, or None for any finite number."""

    target_dimensions: ClassVar[int] = 1
    """1 where targets are (n,), 2 where they are (n, k)."""

    @abstractmethod
    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter, by name, for data of this width."""

    @abstractmethod
    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """Return the losses l_i, shape (n,). This alone is what the frameworks differentiate."""

    @abstractmethod
    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """Return dl_i/dparameter derived by hand, `{name: (n, *shape)}`; no 1/n in it."""

    @abstractmethod
    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Return the mean loss and its gradient `{name: shape}`, derived by hand, shared terms computed once."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Features (n, d) and targets (n,) or (n, k), finite, in float64.

    A single feature may be given as (n,). Arrays that already are float64 are kept, not copied.

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

    def __init__(self, features: ArrayLike, targets: ArrayLike, name: str = "data") -> None:
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

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        n, d = self.features.shape
        return f"Dataset({self.name!r}, {_count(n, 'row')}, {_count(d, 'feature')})"


def check_targets(problem: Problem, data: Dataset) -> None:
    """Raise a ValueError, naming the row, if the problem does not allow the targets."""
    if data.targets.ndim != problem.target_dimensions:
        expected = "(n,)" if problem.target_dimensions == 1 else "(n, k)"
        raise ValueError(f"{type(problem).__name__} takes targets of shape {expected}, not {data.targets.shape}")
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


def zero_parameters(problem: Problem, data: Dataset) -> dict[str, NDArray[np.float64]]:
    """Return zeros in the shape of each parameter: where a descent starts unless it is told otherwise."""
    return {name: np.zeros(shape) for name, shape in problem.parameter_shapes(data).items()}


def _as_float64(what: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        raw = np.asarray(values)
        if raw.dtype.kind == "c":
            raise TypeError("complex")
        return raw.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be real numbers in a rectangular array") from None


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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
