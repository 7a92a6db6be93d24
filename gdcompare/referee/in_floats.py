"""A problem's derivatives in plain float64, for the diagnosis: quick, and right to the rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.numbers import Floats as FloatNumbers
from gdcompare.arithmetic.program import ProgramError
from gdcompare.arithmetic.tape import per_sample_gradients, value_and_gradient
from gdcompare.referee.along import RefereeAlong
from gdcompare.referee.point import Reference
from gdcompare.referee.sampling import magnitudes

Floats = NDArray[np.float64]

_MOST_NUMBERS = 10_000_000
"""More numbers than this are not computed for the sake of a diagnosis."""

MOST_ROWS = 2000
"""With more rows than this, single samples are not suspected one by one, and not kept."""

_MOVES, _MOVED_ROWS = 8, 10_000


@final
class InFloats:
    """What is behind a referee's truths, each computed when it is first asked for."""

    def __init__(self, referee: Reference) -> None:
        self._referee = referee

    @cached_property
    def rows(self) -> dict[str, Floats]:
        """The per-sample gradients, (n, *shape), whose mean is the truth; empty where they are unknown or too many."""
        referee = self._referee
        if not self._few_rows or len(referee.features) > MOST_ROWS:
            return {}
        point = referee.params, referee.features, referee.targets, referee.weights
        rows: dict[str, Floats] = _if_read(self._rows_at, *point)
        if all(np.isfinite(each).all() for each in rows.values()):
            return rows
        n = 1 if referee.reduction == "mean" else len(referee.features)
        return {name: n * each.mid for name, each in referee.row_truths.items()}  # balls do not overflow

    @cached_property
    def magnitudes(self) -> dict[str, Floats]:
        """The mean absolute values of these, a few rows at a time; empty where they are unknown or too many."""
        referee = self._referee
        if self.rows or not self._few_rows or referee.problem is None:
            return {name: np.mean(np.abs(each), axis=0) for name, each in self.rows.items()}
        point = referee.params, referee.features, referee.targets, referee.weights
        _, found = _if_read(magnitudes, referee.problem, *point, referee.reduction) or (None, {})
        return {name: each for name, each in found.items() if np.isfinite(each).all()}

    @cached_property
    def moved(self) -> dict[str, Floats]:
        """How far the truths may go when every input moves by a unit in the last place: the most of several moves.

        The samples' moves are added up without regard to sign; of very many samples, some stand for all. Whole numbers
        stay: they are labels, counts and kinks. Empty where that is not known.
        """
        referee = self._referee
        generator = np.random.default_rng(0)

        def nudged(values: NDArray[Any]) -> NDArray[Any]:
            side = np.where(generator.random(values.shape) < 0.5, -np.inf, np.inf).astype(values.dtype)
            return np.where(values == np.round(values), values, np.nextafter(values, side))

        if referee.kinks or referee.problem is None or referee.features.size > _MOST_NUMBERS:
            return {}
        some = slice(None, None, -(-len(referee.features) // _MOVED_ROWS) if self._few_rows else 1)
        features, targets = referee.features[some], referee.targets[some]
        weights = None if referee.weights is None else referee.weights[some]
        if weights is not None and not weights.any():
            return {}
        here = _if_read(self._spread_at, referee.params, features, targets, weights)
        most = {name: np.zeros(value.shape[1:]) for name, value in here.items()}
        for _ in range(_MOVES):
            params = {name: nudged(value) for name, value in referee.params.items()}
            there = self._spread_at(params, nudged(features), nudged(targets), weights) if here else {}
            most = {name: np.fmax(far, np.mean(np.abs(there[name] - here[name]), axis=0)) for name, far in most.items()}
        return most

    def slope(self, name: str, place: tuple[int, ...], step: float) -> float:
        """Return the loss's derivative by one element of a parameter, where that element is a step further on."""
        referee = self._referee
        if referee.problem is None or isinstance(referee, RefereeAlong):
            return math.nan
        params = {key: value.astype(np.float64) for key, value in referee.params.items()}
        params[name][place] += step
        with np.errstate(all="ignore"):
            there = self._all_at(params, referee.features, referee.targets)
        return float(there[name][place])

    @property
    def _few_rows(self) -> bool:
        referee = self._referee
        size = len(referee.features) * sum(value.size for value in referee.params.values())
        return size <= _MOST_NUMBERS and referee.problem is not None and not isinstance(referee, RefereeAlong)

    def _rows_at(self, params: dict[str, Any], features: Any, targets: Any, weights: Any) -> dict[str, Floats]:
        referee = self._referee
        assert referee.problem is not None
        arguments = (params, features, targets, weights, referee.reduction)
        with np.errstate(all="ignore"):
            rows = per_sample_gradients(referee.problem, FloatNumbers(), *arguments)
        n = 1 if referee.reduction == "mean" else len(referee.features)
        return {name: n * each for name, each in rows.items()}

    def _spread_at(self, params: dict[str, Any], features: Any, targets: Any, weights: Any) -> dict[str, Floats]:
        """Return the derivatives of the rows, or sqrt(n) times those of all of them, with an axis in front."""
        referee = self._referee
        if self._few_rows:
            return self._rows_at(params, features, targets, weights)
        with np.errstate(all="ignore"):
            found = self._all_at(params, features, targets)
        return {name: math.sqrt(len(referee.features)) * np.asarray(each)[None] for name, each in found.items()}

    def _all_at(self, params: dict[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        referee = self._referee
        if isinstance(referee, RefereeAlong):
            return referee.evaluated(FloatNumbers(), params, features, targets)
        assert referee.problem is not None
        arguments = (params, features, targets, referee.weights, referee.reduction)
        return value_and_gradient(referee.problem, FloatNumbers(), *arguments)[1]


def _if_read(found: Callable[..., Any], *arguments: Any) -> Any:
    """Return what is found, nothing where the program of a single row, unlike that of all of them, cannot be read."""
    try:
        return found(*arguments)
    except ProgramError:
        return {}
