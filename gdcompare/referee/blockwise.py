"""Whose sums over blocks are judged: a backend's, or those of somebody's function, which is called block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.backend import Backend, Reduction
from gdcompare.case import Case, refuse_too_large
from gdcompare.data.blocks import Arrays, Blocks, Source
from gdcompare.problem import check_targets
from gdcompare.referee.due import ExitError, NotDueError, as_array, as_due, as_number, no_exit, what_it_raised
from gdcompare.referee.formula import allowances_of_formula, formula_of
from gdcompare.referee.judging import changed_inputs
from gdcompare.referee.point import Implementation, Referee
from gdcompare.referee.verdict import LOSS, Allowance, Floats
from gdcompare.scale.sums import Sums


@final
class Once:
    """A source that keeps what was read last: several ask for it in turn."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._last: tuple[tuple[int, int], Arrays] | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return self._source.rows

    def read(self, begin: int, end: int) -> Arrays:
        """Return rows."""
        if self._last is None or self._last[0] != (begin, end):
            self._last = (begin, end), self._source.read(begin, end)
        return self._last[1]

    def identity(self) -> str:
        """Return what tells these rows from others."""
        return self._source.identity()


@final
class Block:
    """A block of rows and its referees, of the sum over them and of their mean."""

    def __init__(self, case: Case, blocks: Blocks, index: int) -> None:
        """Read it, or raise what is wrong with it."""
        self.index, self.of, self.data = index, blocks.count, blocks.block(index)
        self.begin, end = blocks.bounds(index)
        self.last = end - 1
        check_targets(case.problem, self.data)
        for what in ("features", "targets", "weights"):
            refuse_too_large(what, getattr(self.data, what), case.dtype)
        self._case = case

    def referee(self, reduction: Reduction) -> Referee:
        """Return the referee of its sum, or of its mean."""
        return self._sum if reduction == "sum" else self._mean

    @cached_property
    def _sum(self) -> Referee:
        return Referee(self._case.on(self.data, "sum"))

    @cached_property
    def _mean(self) -> Referee:
        return self._sum.averaged()

    @property
    def kinks(self) -> tuple[str, ...]:
        """Where the loss bends, in words, as far as anybody asked what is true."""
        known = self.__dict__.get("_sum") or self.__dict__.get("_mean")
        return () if known is None else known.kinks

    @property
    def weight(self) -> float:
        """The sum of the weights of its rows, or their number, as `scale.sums` has it."""
        weights = self.referee("sum").weights
        return float(len(self.data)) if weights is None else float(np.sum(weights, dtype=np.float64))

    def __str__(self) -> str:
        rows = f"row {self.begin}" if self.begin == self.last else f"rows {self.begin} to {self.last}"
        return f"block {self.index} ({rows})"


class Computes(Protocol):
    """Who computes sums or means over the rows of blocks."""

    @property
    def name(self) -> str: ...  # noqa: D102 - what the report calls them
    @property
    def reduction(self) -> Reduction: ...  # noqa: D102 - what they return of a block
    @property
    def may_raise(self) -> bool: ...  # noqa: D102 - whether what they raise is their verdict
    @property
    def approximates(self) -> str: ...  # noqa: D102 - how, if they do
    def implementation(self, referee: Referee) -> Implementation:
        """Return a function of NumPy arrays that computes the same."""

    def allowances(self, referee: Referee, proven_only: bool) -> dict[str, Allowance]:
        """Return what they may be off by."""

    def computed(self, block: Block) -> dict[str, NDArray[Any]]:
        """Return the loss, as `"loss"`, and the gradient, over the rows of a block, in the dtype."""


class UndueError(Exception):
    """What a function returned of a block is nothing to judge, or it returned nothing: the message says why."""


@final
class OfBackend:
    """A backend's sums, as `scale.sums` takes them."""

    reduction: Reduction = "sum"
    may_raise = False

    def __init__(self, backend: Backend[Any], case: Case, blocks: Blocks) -> None:
        self.name, self.backend, self._params = backend.name, backend, case.params
        self.approximates = str(getattr(backend, "approximates", ""))
        self.sums = Sums(case.problem, backend, blocks)

    def implementation(self, referee: Referee) -> Implementation:
        """Return the backend's."""
        return referee.backend_implementation(self.backend)

    def allowances(self, referee: Referee, proven_only: bool) -> dict[str, Allowance]:
        """Return those of a derivation by hand, or of the differentiated loss."""
        return referee.allowances(getattr(self.backend, "by_hand", False), proven_only)

    def computed(self, block: Block) -> dict[str, NDArray[Any]]:
        """Return the leaf of the tree, in parts."""
        leaf = self.sums.leaf(self._params, block.index)
        return parts_of(np.concatenate([leaf[:1], leaf[2:]]).astype(self.backend.dtype), self._params)


@final
class OfFunction:
    """What somebody's function returns of each block by itself: means, or sums."""

    may_raise = True
    approximates = ""

    def __init__(self, name: str, function: Implementation, reduction: Reduction) -> None:
        self.name, self.function, self.reduction = name, function, reduction

    def implementation(self, referee: Referee) -> Implementation:
        """Return it as it is."""
        return referee.implementation(self.function)

    def allowances(self, referee: Referee, proven_only: bool) -> dict[str, Allowance]:
        """Return the larger of those of derivation and loss, or those of the formula that it states."""
        formula = formula_of(self.function)
        if formula is None:
            return referee.either_allowance(proven_only)
        return allowances_of_formula(referee, formula, proven_only)

    def computed(self, block: Block) -> dict[str, NDArray[Any]]:
        """Call it; where it returns no loss, there is none."""
        referee = block.referee(self.reduction)
        point = referee.point
        try:
            with no_exit():
                loss, gradient = as_due(self.function(*point), (None, {}), "(loss, {name: gradient})")
            found = {str(key): as_array(value, referee.dtype) for key, value in gradient.items()}
            found = found if loss is None else {LOSS: as_number(loss, referee.dtype), **found}
        except ExitError:
            raise
        except NotDueError as error:
            raise UndueError(str(error)) from error
        except Exception as error:
            raise UndueError(what_it_raised(error)) from error
        if changed := changed_inputs(referee, point):
            raise UndueError(f"it changed its inputs: {', '.join(changed)}")
        return found


def parts_of(numbers: NDArray[Any], params: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return a loss and a gradient from their numbers in a row.

    >>> parts_of(np.arange(4.0), {"a": np.zeros((1, 2)), "b": np.array(0.0)})
    {'loss': array(0.), 'a': array([[1., 2.]]), 'b': array(3.)}
    """
    ends = np.cumsum([1, *(value.size for value in params.values())])
    loss, *parts = np.split(numbers, ends[:-1])
    gradient = {name: part.reshape(params[name].shape) for name, part in zip(params, parts, strict=True)}
    return {LOSS: loss.reshape(()), **gradient}


def row_of(parts: Mapping[str, Any], names: Sequence[str]) -> Floats:
    """Return arrays as numbers in a row, in float64; those that are missing are left out."""
    return np.concatenate([np.ravel(parts[name]) for name in names if name in parts], dtype=np.float64)
