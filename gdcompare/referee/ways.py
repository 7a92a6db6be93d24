"""Ways to leave a point: the directions in which parameters move, so that its sides are seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import product
from typing import final

import numpy as np

from gdcompare.referee.enclosed import Floats

SEED = 20
MOST_RANKED = 24
"""Elements that may all be equal, and are ranked by place in as many ways."""
_MOVED = 6


@final
class Ways:
    """Directions by name, of the shapes of some parameters; what is drawn is the same in each process.

    >>> [sorted(way) for way in Ways({"w": np.ones(2), "b": np.zeros(())}).alike]
    [['b', 'w'], ['b', 'w']]
    """

    def __init__(self, params: Mapping[str, Floats]) -> None:
        self._params = params
        self._generator = np.random.default_rng(SEED)

    def generic(self) -> Iterator[dict[str, Floats]]:
        """Yield directions in which every parameter moves, alike or one array more than the others."""
        yield self.drawn()
        if sum(value.size for value in self._params.values()) > 1:
            yield self.drawn()
            yield self.drawn()
            yield from self.alike

    @cached_property
    def alike(self) -> list[dict[str, Floats]]:
        """Directions in which the elements of one array move alike, and nothing else does."""
        return [self._still | {name: self._scale(name)} for name in list(self._params)[:_MOVED]]

    def ranking(self, gradient: Mapping[str, Floats]) -> Iterator[dict[str, Floats]]:
        """Yield directions that rank equal elements: by place, from each on, or as one ranks that has this gradient."""
        most = max(value.size for value in self._still.values())
        for first in range(most if most <= MOST_RANKED else 0):
            yield {
                n: (1 + (np.arange(v.size) - first) % v.size).reshape(v.shape) / 64.0 for n, v in self._still.items()
            }
        few = {name: value for name, value in gradient.items() if value.size <= MOST_RANKED}
        for sign, none in product((1, -1), (np.inf, -np.inf) if few else ()):
            keys = {name: np.where(value == 0, none, sign * value).ravel() for name, value in few.items()}
            yield self._still | {
                n: (1 + k.argsort().argsort()).reshape(self._still[n].shape) / 64.0 for n, k in keys.items()
            }

    def drawn(self) -> dict[str, Floats]:
        """Return a direction of small dyadic numbers, of either sign, times the size of each element."""
        directions = {}
        for name, value in self._params.items():
            size = self._generator.integers(2**10, 2**12, value.shape) / 2.0**12
            sign = np.where(self._generator.random(value.shape) < 0.5, -1.0, 1.0)
            directions[name] = sign * size * self._scale(name)
        return directions

    @cached_property
    def _still(self) -> dict[str, Floats]:
        return {name: np.zeros(value.shape) for name, value in self._params.items()}

    def _scale(self, name: str) -> Floats:
        """Return the size of each element, as a power of 2, and 1 for 0."""
        value = self._params[name]
        _, exponents = np.frexp(value)
        return np.where(value == 0, 1.0, np.ldexp(1.0, np.clip(exponents, -900, 900)))
