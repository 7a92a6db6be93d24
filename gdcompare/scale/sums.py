"""Losses and gradients summed over blocks of rows: what one process does, for itself or as its share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.formula_check import said_of_backend
from gdcompare.backend import Backend, Reduction, ValueAndGrad, borrowed
from gdcompare.case import refuse_too_large
from gdcompare.data.blocks import Blocks
from gdcompare.problem import Dataset, Problem, check_targets
from gdcompare.scale.threads import one_thread
from gdcompare.scale.tree import Nodes, Tree

Floats = NDArray[np.float64]
Keep: TypeAlias = Callable[[int, list[NDArray[Any]]], list[NDArray[Any]] | None]
"""Told a block's index and its arrays: arrays of the same numbers, to be kept; None to read it again."""


def _keep_none(_index: int, _arrays: list[NDArray[Any]]) -> None:
    """Keep no block."""


@final
class Sums:
    """The sums over rows of a problem's losses, of weights, and of gradients, by one backend, block by block.

    With a, b, ... the parameters, a leaf is the vector (sum_i w_i l_i, sum_i w_i, sum_i w_i dl_i/da, ...) over the rows
    of a block, w_i = 1 where there are no weights. `keep` says which blocks stay in the memory once they are read.

    >>> from gdcompare.data.blocks import InMemory
    >>> from gdcompare.registry import as_backend, as_problem
    >>> rows = Blocks(InMemory([[1.0], [3.0], [0.0]], [2.0, 4.0, 1.0]), rows=2)
    >>> sums = Sums(as_problem("linear-regression"), as_backend("numpy"), rows)
    >>> params = {"theta_0": np.array(1.0), "theta_1": np.array([0.0])}
    >>> sums.leaf(params, 0).tolist()
    [10.0, 2.0, -8.0, -20.0]
    >>> tree = Tree(rows.count)
    >>> tree.join(sums.nodes(params, [0, 1]))
    >>> sums.reduced(params, tree.total)[1]["theta_1"].round(4).tolist()
    [-6.6667]
    """

    def __init__(self, problem: Problem, backend: Backend[Any], blocks: Blocks, keep: Keep | None = None) -> None:
        self.problem, self.backend, self.blocks = problem, backend, blocks
        self._suited = np.zeros(blocks.count, dtype=bool)
        self._keep = keep or _keep_none
        self._kept: dict[int, tuple[list[Any], float]] = {}

    @cached_property
    def _function(self) -> ValueAndGrad[Any]:
        return self.backend.value_and_grad(self.problem, "sum")

    @cached_property
    def _one_thread(self) -> Callable[[], AbstractContextManager[object]]:
        return one_thread(self.backend)

    def check(self, index: int) -> Dataset | None:
        """Return a block the first time that it is asked for; a ValueError if problem or dtype cannot take it."""
        if self._suited[index]:
            return None
        block = self.blocks.block(index)
        check_targets(self.problem, block)
        for what in ("features", "targets", "weights"):
            refuse_too_large(what, getattr(block, what), self.backend.dtype)
        self._suited[index] = True
        return block

    def arrays(self, index: int) -> list[NDArray[Any]]:
        """Return a block's features, targets and, if there are any, weights, in the dtype."""
        block = self.check(index)
        found = self.blocks.arrays(index) if block is None else (block.features, block.targets, block.weights)
        # A row's numbers side by side: where they lie otherwise, some libraries add in another order.
        return [np.ascontiguousarray(each, self.backend.dtype) for each in found if each is not None]

    def leaf(self, params: Mapping[str, NDArray[Any]], index: int) -> Floats:
        """Return the sums over the rows of a block, in float64; where memory ends, no block is kept any more."""
        try:
            return self._leaf(params, index)
        except MemoryError:
            if not self._kept:
                raise
        self._keep = _keep_none
        self._kept.clear()
        return self._leaf(params, index)

    def _leaf(self, params: Mapping[str, NDArray[Any]], index: int) -> Floats:
        rows, weight = self._kept.get(index) or self._ready(index)
        theirs = {name: self.backend.asarray(value) for name, value in params.items()}
        with said_of_backend(self.backend.name):
            loss, gradient = self._function(theirs, *rows)
            found = [loss, *(gradient[name] for name in params)]
            first, *others = (np.ravel(self.backend.to_numpy(each)) for each in found)
        return np.concatenate([first, [weight], *others], dtype=np.float64)

    def _ready(self, index: int) -> tuple[list[Any], float]:
        """Return a block on the backend's side, and the sum of its weights."""
        arrays = self.arrays(index)
        kept = self._keep(index, arrays)
        weight = float(np.sum(arrays[2], dtype=np.float64)) if len(arrays) == 3 else float(len(arrays[0]))
        ready = [borrowed(self.backend, each) for each in kept or arrays], weight
        if kept is not None:
            self._kept[index] = ready
        return ready

    def forget(self, wanted: Callable[[int], bool]) -> None:
        """Keep none of the blocks but those that are wanted."""
        self._kept = {index: each for index, each in self._kept.items() if wanted(index)}

    def nodes(
        self,
        params: Mapping[str, NDArray[Any]],
        indices: Iterable[int],
        advance: Callable[[int], object] = lambda _: None,
    ) -> Nodes:
        """Return what these blocks add to the tree over all; `advance` is told the rows of each."""
        tree = Tree(self.blocks.count)
        with self._one_thread():
            for index in indices:
                tree.add(index, self.leaf(params, index))
                begin, end = self.blocks.bounds(index)
                advance(end - begin)
        return tree.nodes

    def reduced(
        self, params: Mapping[str, NDArray[Any]], total: Floats, reduction: Reduction = "mean"
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Return the mean loss, or the sum, and its gradient, in the dtype, from the sums over all blocks."""
        numbers = np.concatenate([total[:1], total[2:]])
        if reduction == "mean":
            if not total[1]:
                raise ValueError(f"the weights of {self.blocks.name!r} are all zero")
            numbers /= total[1]
        ends = np.cumsum([1, *(value.size for value in params.values())])
        loss, *parts = np.split(numbers.astype(self.backend.dtype), ends[:-1])
        gradient = {name: part.reshape(params[name].shape) for name, part in zip(params, parts, strict=True)}
        return loss.reshape(()), gradient


class Workers(Protocol):
    """Whoever works out the sums over all blocks."""

    def total(self, params: Mapping[str, NDArray[Any]]) -> Floats:
        """Return the root of the tree: the same bits, whoever they are."""


@final
class Here:
    """One process, that which asks."""

    def __init__(self, sums: Sums, advance: Callable[[int], object] = lambda _: None) -> None:
        self._sums, self._advance = sums, advance

    def total(self, params: Mapping[str, NDArray[Any]]) -> Floats:
        """Return the root of the tree."""
        tree = Tree(self._sums.blocks.count)
        tree.join(self._sums.nodes(params, range(tree.leaves), self._advance))
        return tree.total
