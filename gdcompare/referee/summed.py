"""Sums over blocks of rows: what is true of them, and what programs that add blocks up in the fixed tree may be off by.

With S_k the sums over the rows of block k, of w_i l_i, of w_i, and of w_i dl_i/dparameter, B_k what a program of that
block may be off by, and u that of float64, in which the tree of `scale.tree` adds:

    truth        sum_k S_k, rounded outwards; for a mean over sum_k W_k
    allowance    sum_k B_k; at each node of the tree u |its sum|, in all no more than gamma_depth sum_k (|S_k| + B_k);
                 for a mean 2 u of the quotient, and what W is off by; u |result| for the rounding to the dtype

B_k grows with the rows of one block, the rest with log2 of the number of blocks. Where nothing is rounded, as of small
integers, nothing is allowed. Nothing is kept of a block but what it adds to these sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.quick_balls import QuickBalls, as_quick_balls
from gdcompare.arithmetic.quick_numbers import QuickNumbers
from gdcompare.arithmetic.rounded import Rounded, RoundedNumbers
from gdcompare.backend import Precision, Reduction, unit_roundoff
from gdcompare.referee.allowance import Why, allowances, sampled_where_blind
from gdcompare.referee.enclosed import Enclosed
from gdcompare.referee.verdict import Allowance, Floats, budgets_of
from gdcompare.scale.tree import Tree

BEYOND = "a sum over a block is larger than float64 holds"
LEAST = float(np.finfo(np.float64).smallest_subnormal)
"""What budgets have in place of 0."""


@final
@dataclass(frozen=True, eq=False)
class Part:
    """What is known of a block: of its sums, or of its means, which then count by its weight."""

    truths: Mapping[str, Enclosed]
    """The gradient by parameter, and perhaps the loss, as `"loss"`."""
    proven: Mapping[str, Allowance]
    allowed: Mapping[str, Allowance]
    """The same, or where that is blind, sampled."""
    magnitudes: Mapping[str, Floats]
    weights: NDArray[Any] | None
    rows: int
    mean: bool = False


@final
class Summed:
    """What is true and allowed of the sums over all blocks, or of the mean, once each block has been added.

    >>> from gdcompare.case import Case
    >>> from gdcompare.referee.point import Referee
    >>> params = {"theta_0": 1.0, "theta_1": [0.0]}
    >>> summed = Summed({"loss": (), "theta_0": (), "theta_1": (1,)}, 2, "float64", "mean")
    >>> for index, data in enumerate([([[1.0], [3.0]], [2.0, 4.0]), ([[0.0]], [1.0])]):
    ...     block = Referee(Case.of("linear-regression", data, params, reduction="sum"))
    ...     allowed = block.allowances(by_hand=False)
    ...     summed.add(index, Part(block.truths, allowed, allowed, block.magnitudes, None, len(data[1])))
    >>> summed.truths["theta_1"].mid.tolist(), bool(summed.allowances()["theta_1"].budget[0] < 1e-14)
    ([-6.666666666666667], True)
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        leaves: int,
        dtype: Precision,
        reduction: Reduction,
        resolution: float = 1e-3,
        *,
        result: Precision | None = None,
    ) -> None:
        """Take how many blocks there are, and the dtype in which they are computed; the result is in it, or another."""
        self._shapes, self._result = dict(shapes), result or dtype
        self._dtype, self._mean, self._resolution = dtype, reduction == "mean", resolution
        self._numbers = RoundedNumbers("float64")
        self._proven, self._allowed = Tree(leaves), Tree(leaves)
        self._known = {name: _Truth(shape) for name, shape in self._shapes.items()}
        self._weight = as_quick_balls(0.0)
        self._sizes: dict[str, Floats] = {name: np.zeros(shape) for name, shape in self._shapes.items()}
        self._scales: dict[str, Floats] = {name: np.zeros(shape) for name, shape in self._shapes.items()}
        self._sampled = False

    @np.errstate(all="ignore")
    def add(self, index: int, part: Part) -> None:
        """Take up a block, which has this number."""
        weight = self._weight_of(part)
        exact = _sum_of(part.weights, part.rows)
        self._weight = self._weight + exact
        factor = float(exact.high) if part.mean else 1.0
        for name, known in self._known.items():
            known.add(part.truths[name], exact if part.mean else None)
            self._sizes[name] = self._sizes[name] + factor * part.magnitudes[name]
            scale = part.allowed[name].scale
            self._scales[name] = self._scales[name] + (0.0 if scale is None else factor * scale)
        self._sampled |= any(each.grade == "sampled" for each in part.allowed.values())
        for tree, allowed in ((self._proven, part.proven), (self._allowed, part.allowed)):
            tree.add(index, self._leaf(part, budgets_of(allowed), weight))

    def add_nothing(self, index: int) -> None:
        """Take up a block all of whose rows weigh nothing, and of which there is no mean."""
        size = 1 + sum(int(np.prod(shape, dtype=int)) for shape in self._shapes.values())
        nothing: Any = self._numbers.asarray(np.zeros(size))
        for tree in (self._proven, self._allowed):
            tree.add(index, nothing)

    @np.errstate(all="ignore")
    def join(self, other: Summed) -> None:
        """Take up the blocks that another has taken up of the same sums."""
        self._weight = self._weight + other._weight
        for name, known in self._known.items():
            known.join(other._known[name])
            self._sizes[name] = self._sizes[name] + other._sizes[name]
            self._scales[name] = self._scales[name] + other._scales[name]
        self._sampled |= other._sampled
        self._proven.join(other._proven.nodes)
        self._allowed.join(other._allowed.nodes)

    def _weight_of(self, part: Part) -> Rounded:
        """Return the sum of a block's weights, (1,), as it is computed in float64; a number of rows is exact."""
        if part.weights is None:
            return self._numbers.asarray(np.array([float(part.rows)]))
        return self._numbers.sum(self._numbers.asarray(part.weights.astype(np.float64)), (-1,))

    def _leaf(self, part: Part, budgets: Mapping[str, Floats], weight: Rounded) -> Any:
        """Return the block's leaf of the tree: its weight, and all else."""
        balls = [part.truths[name].quick for name in self._shapes]
        value = _flat([each.high for each in balls])
        spread = _flat([(np.abs(each.low) + each.rad) * (1 + 2.0**-50) for each in balls])
        error = _flat([budgets[name] for name in self._shapes])
        leaf: Any = Rounded(value, spread, np.where(error <= LEAST, 0.0, error), self._numbers)
        if part.mean:
            leaf = leaf * weight
        return self._numbers.rearrange(lambda *parts: np.concatenate(parts), weight, leaf)

    @property
    @np.errstate(all="ignore")
    def truths(self) -> dict[str, Enclosed]:
        """What is true of the loss and the gradient of all rows."""
        over = self._weight if self._mean else None
        return {name: known.over(over) for name, known in self._known.items()}

    @property
    def weight(self) -> float:
        """The sum of all weights, or the number of rows."""
        return float(self._weight.high)

    @property
    def magnitudes(self) -> dict[str, Floats]:
        """The mean, or sum, over the rows of the absolute losses and per-sample gradients."""
        return self._shared(self._sizes)

    def _shared(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        return {name: each / self.weight if self._mean else each for name, each in sums.items()}

    @np.errstate(all="ignore")
    def allowances(self, proven_only: bool = False, why: Why = lambda *_: "") -> dict[str, Allowance]:
        """Return what a correct program is allowed: at worst, or where that is blind, as sampled."""
        truths, budgets = self.truths, self._budgets(self._proven)
        found = allowances(truths, budgets, lambda: self.magnitudes, None, why, self._dtype, self._resolution)
        if proven_only or not self._sampled:
            return found
        sampled, scales = self._budgets(self._allowed), self._shared(self._scales)
        return {
            name: sampled_where_blind(each, truths[name], sampled[name], scales[name], self._dtype)
            for name, each in found.items()
        }

    def _budgets(self, tree: Tree) -> dict[str, Floats]:
        total: Any = tree.total
        result = total[1:] / total[:1] if self._mean else total[1:]
        error = result.error
        if self._result != "float64":
            largest = float(np.finfo(self._result).max)
            held = result.exact & (result.value.astype(self._result).astype(np.float64) == result.value)
            once = (error + unit_roundoff(self._result) * result.size + 2.0**-149) * (1 + 2.0**-50)
            error = np.where(held, error, np.where(result.size <= largest, once, np.inf))
        ends = np.cumsum([int(np.prod(shape, dtype=int)) for shape in self._shapes.values()])
        parts = np.split(np.maximum(error, LEAST), ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


@final
class _Truth:
    """A sum of enclosures of one array."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.sum = as_quick_balls(np.zeros(shape))
        self.kinks, self.unsure = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        self.width, self.reason = np.zeros(shape), ""

    def add(self, each: Enclosed, times: QuickBalls | None) -> None:
        """Add an enclosure, or so many times one. Where it is a set, the sum is one, of sums of their members."""
        known = each.quick
        if not self.reason and not (bounded := np.isfinite(known.rad)).all():
            held = all(ball.is_finite() for ball in each.balls[~bounded])
            self.reason = each.reason or (BEYOND if held else "")
        self.sum = self.sum + (known if times is None else known * times)
        self.kinks = self.kinks | each.kinks
        self.width = self.width + (each.width if times is None else float(times.high) * each.width)
        if each.unsure is not None:
            self.unsure = self.unsure | each.unsure
        self.reason = self.reason or each.reason

    def join(self, other: _Truth) -> None:
        """Add another such sum."""
        self.sum = self.sum + other.sum
        self.kinks, self.unsure = self.kinks | other.kinks, self.unsure | other.unsure
        self.width, self.reason = self.width + other.width, self.reason or other.reason

    def over(self, weight: QuickBalls | None) -> Enclosed:
        """Return the sum, or the quotient."""
        known = self.sum if weight is None else self.sum / weight
        width = self.width if weight is None else self.width / float(weight.high)
        return Enclosed(
            known,
            self.kinks,
            unsure=self.unsure if self.unsure.any() else None,
            reason=self.reason,
            spread=width if self.kinks.any() else None,
        )


def _sum_of(weights: NDArray[Any] | None, rows: int) -> QuickBalls:
    """Return the sum of weights, (), in an enclosure."""
    if weights is None:
        return as_quick_balls(float(rows))
    return QuickNumbers().sum(as_quick_balls(weights.astype(np.float64)), (-1,))[0]


def _flat(arrays: Sequence[Any]) -> Floats:
    return np.concatenate([np.ravel(each) for each in arrays], dtype=np.float64)
