"""Ranks that are played in one process: their gradients by NumPy, and what faults make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gdcompare as gdc

Gradient = dict[str, Any]


def added(gradients: Sequence[Gradient], factors: Sequence[float] | None = None, divisor: float = 1.0) -> Gradient:
    """Return the sum of gradients times factors over a divisor, in their own dtype."""
    scales = [1.0] * len(gradients) if factors is None else factors
    found = {}
    for name, first in gradients[0].items():
        kind = np.asarray(first).dtype.type
        total = np.zeros_like(first)
        for scale, each in zip(scales, gradients, strict=True):
            total = total + kind(scale) * each[name]
        found[name] = np.asarray(total / kind(divisor))
    return found


def mean(gradients: Sequence[Gradient]) -> Gradient:
    """Return the mean, as an all-reduce takes it."""
    return added(gradients, divisor=len(gradients))


@dataclass
class World:
    """A problem whose rows are spread over ranks."""

    shards: Sequence[Any]
    problem: str = "linear-regression"
    seed: int = 0
    dtype: str = "float64"
    data: gdc.Dataset = field(init=False)
    params: Gradient = field(init=False)

    def __post_init__(self) -> None:
        flat = [list(np.ravel(np.concatenate([np.ravel(part) for part in rank]))) for rank in self.shards]
        n = sum(map(len, flat))
        random = np.random.default_rng(self.seed)
        self.data = gdc.Dataset(random.normal(size=(n, 3)), random.normal(size=n))
        problem = gdc.load_problem(self.problem)
        shapes = problem.parameter_shapes(self.data)
        self.params = {name: 0.5 * random.normal(size=shape) for name, shape in shapes.items()}

    def gradient(self, rows: Any, params: Gradient | None = None, data: gdc.Dataset | None = None) -> Gradient:
        """Return the gradient of some rows."""
        some = (data or self.data).rows(np.ravel(rows).astype(int))
        at = {name: np.asarray(value) for name, value in (params or self.params).items()}
        backend = gdc.load_backend("numpy", dtype=self.dtype)
        return dict(gdc.value_and_grad(self.problem, some, at, backend)[1])

    def own(self, **at: Any) -> list[Gradient]:
        """Return each rank's gradient of its rows."""
        return [self.gradient(np.concatenate([np.ravel(part) for part in rank]), **at) for rank in self.shards]

    def judge(self, **given: Any) -> gdc.Report:
        """Judge what is given."""
        return gdc.distributed.judge(
            self.problem, self.data, self.params, shards=self.shards, dtype=self.dtype, **given
        )


EQUAL = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
UNEQUAL = [[0, 1, 2, 3], [4, 5], [6, 7, 8]]
MICRO = [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
