"""The models of a comparison, each loaded from the first, and the point at which they run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.backend import Precision
from gdcompare.models.comparison import GRADIENT, LOSS, ROWS
from gdcompare.models.matching import Matching, match
from gdcompare.models.native import Layer, Native
from gdcompare.problem import Dataset

Data: TypeAlias = "Dataset | tuple[ArrayLike, ArrayLike]"
Arrays: TypeAlias = dict[str, NDArray[Any]]
Key: TypeAlias = tuple[str, str]
"""What kind of array it is, as in `Entry.law`, and its name."""


class Point(NamedTuple):
    """The source's parameters, and the rows."""

    params: Arrays
    features: NDArray[Any]
    targets: NDArray[Any]

    def at(self, rows: Any) -> Point:
        """Return the point with these rows alone."""
        return self._replace(features=self.features[rows], targets=self.targets[rows])

    def row(self, row: int) -> Point:
        """Return the point with one row."""
        return self.at(slice(row, row + 1))

    def moved(self, draw: int) -> Point:
        """Move each number by one unit in the last place, up or down; not zeros, not whole features and targets."""
        generator = np.random.default_rng(draw)
        params = {name: _moved(value, generator) for name, value in self.params.items()}
        rows = [each if (each == np.rint(each)).all() else _moved(each, generator) for each in self[1:]]
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
            loss, own_gradient = self.model.value_and_grad(own, point.features, point.targets)
            gradient = self.matching.in_source(own_gradient)
        except Exception as error:
            given = f"features {point.features.shape}, targets {point.targets.shape}"
            raise ValueError(f"{self.name!r} fails on these data, {given}: {type(error).__name__}: {error}") from error
        found = {(GRADIENT, LOSS): _scalar(loss, self.name)}
        found |= {(GRADIENT, name): value for name, value in gradient.items()}
        if rows:
            each = self.model.per_sample_grad(own, point.features[:rows], point.targets[:rows])
            found |= {(ROWS, name): value for name, value in self.matching.in_source(each).items()}
        return found

    def layers(self, point: Point) -> list[Layer]:
        """Return what the model's layers compute for this row."""
        return self.model.layers(self.matching.load(point.params), point.features, point.targets)


def sides_of(models: Sequence[Native]) -> list[Side]:
    """Return the models, each loaded from the first; a ValueError where they cannot be compared."""
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
    shapes = {name: value.shape for name, value in values.items()}
    return [Side(source, match(shapes, shapes)), *(Side(each, each.matching(values)) for each in others)]


def point_of(source: Side, data: Data, dtype: Precision) -> Point:
    """Return the source's values and the data in the dtype; a ValueError where they are not finite, or do not fit."""
    if isinstance(data, Dataset) and data.weights is not None:
        raise ValueError(f"native models take no sample weights, and {data.name!r} has some")
    features, targets = (data.features, data.targets) if isinstance(data, Dataset) else map(np.asarray, data)
    if features.ndim == 0 or targets.ndim == 0 or len(features) != len(targets) or len(features) == 0:
        raise ValueError(f"features {features.shape} and targets {targets.shape} must have a row for each sample")
    for what, values in [("features", features), ("targets", targets), *source.model.parameters.items()]:
        if not np.isfinite(values).all():
            raise ValueError(f"{what!r} holds numbers that are not finite; a comparison begins with finite ones")
    params = {name: value.astype(dtype) for name, value in source.model.parameters.items()}
    return Point(params, features.astype(dtype), targets.astype(dtype))


def _scalar(loss: Any, name: str) -> NDArray[Any]:
    value = np.asarray(loss)
    if value.size != 1:
        raise ValueError(f"the loss of {name!r} has shape {value.shape}; it must be one number, the mean over the rows")
    return value.reshape(())
