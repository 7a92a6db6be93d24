"""The models of a comparison, each loaded from the first, and the point at which they run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.backend import Precision, checked_dtype
from gdcompare.models.comparison import GRADIENT, LOSS, ROWS
from gdcompare.models.matching import Matching, match
from gdcompare.models.native import Layer, Native
from gdcompare.models.posed import refuse_empty
from gdcompare.problem import Dataset

Data: TypeAlias = "Dataset | tuple[ArrayLike, ArrayLike]"
Arrays: TypeAlias = dict[str, NDArray[Any]]
ROWS_TRIED = 4
"""How many rows are taken together and one by one, to see whether a loss couples them."""
Key: TypeAlias = tuple[str, str]
"""What kind of array it is, as in `Entry.law`, and its name."""


class Point(NamedTuple):
    """The source's parameters, and the rows."""

    params: Arrays
    features: NDArray[Any]
    targets: NDArray[Any]

    @property
    def dtype(self) -> Precision:
        """In what the models compute; features and targets may be integers."""
        return checked_dtype(str(next(iter(self.params.values())).dtype))

    def at(self, rows: Any) -> Point:
        """Return the point with these rows alone."""
        return self._replace(features=self.features[rows], targets=self.targets[rows])

    def row(self, row: int) -> Point:
        """Return the point with one row."""
        return self.at(slice(row, row + 1))

    def in_dtype(self, dtype: Precision) -> Point:
        """Return the point rounded to another dtype; integers stay integers."""
        params = {name: value.astype(dtype) for name, value in self.params.items()}
        return Point(params, *(each.astype(dtype) if each.dtype.kind == "f" else each for each in self[1:]))

    def moved(self, draw: int) -> Point:
        """Move each number by one unit in the last place, up or down; not zeros, not whole features and targets."""
        generator = np.random.default_rng(draw)
        params = {name: _moved(value, generator) for name, value in self.params.items()}
        rows = [
            each if each.dtype.kind != "f" or (each == np.rint(each)).all() else _moved(each, generator)
            for each in self[1:]
        ]
        return Point(params, *rows)


def _moved(values: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    ends = generator.choice(np.array([-math.inf, math.inf], dtype=values.dtype), values.shape)
    return np.where(values == 0, values, np.nextafter(values, ends))


@dataclass(frozen=True, eq=False)
class Side:
    """One model, loaded from the source."""

    model: Native
    matching: Matching

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    def outputs(self, point: Point, rows: int = 0) -> dict[Key, NDArray[Any]]:
        """Return loss and gradients in the source's names, and the per-sample gradients of the first few rows."""
        own = self.matching.load(point.params)
        try:
            features, targets = self.model.as_taken(own, point.features, point.targets)
            loss, own_gradient = self.model.value_and_grad(own, features, targets)
            gradient = self.matching.in_source(own_gradient)
        except Exception as error:
            given = ", ".join(
                f"{what} {each.shape}" + (f" of {each.dtype}" if each.dtype.kind != "f" else "")
                for what, each in (("features", point.features), ("targets", point.targets))
            )
            raise ValueError(f"{self.name!r} fails on these data, {given}: {type(error).__name__}: {error}") from error
        found = {(GRADIENT, LOSS): _scalar(loss, self.name)}
        found |= {(GRADIENT, name): value for name, value in gradient.items()}
        if rows:
            each = self.model.per_sample_grad(own, features[:rows], targets[:rows])
            found |= {(ROWS, name): value for name, value in self.matching.in_source(each).items()}
        return found

    def layers(self, point: Point) -> list[Layer]:
        """Return what the model's layers compute for these rows."""
        return self.model.layers(*self.given(point))

    def hints(self, point: Point) -> str:
        """Say what the model knows of itself that may be the cause where it differs."""
        return self.model.hints(*point, self.matching)

    def given(self, point: Point) -> tuple[Arrays, NDArray[Any], NDArray[Any]]:
        """Return the model's own parameters, and the rows as it takes them."""
        own = self.matching.load(point.params)
        return own, *self.model.as_taken(own, point.features, point.targets)

    def coupling(self, point: Point, watched: int) -> str:
        """Say how the loss of a row is seen to depend on the other rows; "" if it is not, or no row is watched.

        The loss of a few rows is the mean of their losses, or their sum, if each row stands for itself. How much
        rounding may do is not asked: what couples the rows does more than half of the digits.
        """
        if parts := self.model.coupling():
            return f"it normalises by the statistics of the batch ({', '.join(parts)})"
        # All rows where they are few: no shape is new then, and nothing is compiled for it.
        rows = len(point.features) if len(point.features) <= watched else min(watched, ROWS_TRIED)
        if rows < 2:
            return ""
        try:
            together = self._loss(point.at(slice(rows)))
            each = np.array([self._loss(point.row(row)) for row in range(rows)])
        except ValueError as error:
            self._loss(point)  # raises if it is no matter of the rows
            return f"it cannot be had of single rows: {str(error).rpartition(': ')[2]}"
        if not np.isfinite(together):
            return ""
        if not np.isfinite(each).all():
            return f"of single rows it is {each[~np.isfinite(each)][0]}"
        allowed = math.sqrt(np.finfo(point.dtype).eps) * np.max(np.abs(each))
        if min(abs(together - np.mean(each)), abs(together - np.sum(each))) <= allowed:
            return ""
        if point.dtype == "float32":  # where large numbers cancel, half of its digits are soon lost
            return self.coupling(point.in_dtype("float64"), watched)
        return f"of {rows} rows it is {together:.6g}, and the mean of theirs is {np.mean(each):.6g}"

    def _loss(self, point: Point) -> float:
        with np.errstate(all="ignore"):
            return float(self.outputs(point)[GRADIENT, LOSS])


def sides_of(models: Sequence[Native]) -> list[Side]:
    """Return the models, each loaded from the first; a ValueError where they cannot be compared."""
    if isinstance(models, Mapping):
        raise ValueError("the models of a comparison are a list, and their names their own: from_module(..., name='a')")
    for model in models:
        if not isinstance(model, Native):
            raise ValueError(
                f"{model!r} is no native model; make one with from_module, from_function or from_functions"
            )
    names = [model.name for model in models]
    if len(names) < 2:
        raise ValueError(f"a comparison takes two models or more, not {len(names)}")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"several models are named {min(twice)!r}; give them names of their own, name=...")
    source, *others = models
    values = source.parameters
    if not values:
        raise ValueError(f"the first model is the source of values, and {source.name!r} has none; put another first")
    for model in models:
        refuse_empty(model.name, model.parameters)
    shapes = {name: value.shape for name, value in values.items()}
    return [Side(source, match(shapes, shapes)), *(Side(each, each.matching(values)) for each in others)]


def point_of(source: Side, data: Data, dtype: Precision) -> Point:
    """Return the source's values and the data in the dtype; a ValueError where they are not finite, or do not fit.

    Integers stay integers, int64: they may be labels or tokens.
    """
    if isinstance(data, Dataset) and data.weights is not None:
        raise ValueError(f"native models take no sample weights, and {data.name!r} has some")
    features, targets = (data.features, data.targets) if isinstance(data, Dataset) else map(np.asarray, data)
    if features.ndim == 0 or targets.ndim == 0 or len(features) != len(targets) or len(features) == 0:
        raise ValueError(f"features {features.shape} and targets {targets.shape} must have a row for each sample")
    for what, values in [("features", features), ("targets", targets), *source.model.parameters.items()]:
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{what!r} holds {values.dtype}, and a model takes real numbers")
        if not np.isfinite(values).all():
            raise ValueError(f"{what!r} holds numbers that are not finite; a comparison begins with finite ones")
    params = {name: value.astype(dtype) for name, value in source.model.parameters.items()}
    return Point(params, *(each.astype(np.int64 if each.dtype.kind in "iu" else dtype) for each in (features, targets)))


def _scalar(loss: Any, name: str) -> NDArray[Any]:
    value = np.asarray(loss)
    if value.size != 1:
        raise ValueError(f"the loss of {name!r} has shape {value.shape}; it must be one number, the mean over the rows")
    return value.reshape(())
