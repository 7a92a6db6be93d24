"""What is true of each shard and micro-batch, and of sums of these: a middle, and how far a correct program may be off.

For a sum of terms t with coefficients c, computed in the dtype with unit roundoff u,

    |actual - sum c_t t| <= sum |c_t| B_t + k u sum |c_t| (|t| + B_t)

where B_t is what a program of that term may be off by, and k counts what putting them together may round: an addition
for each rank and micro-batch, divisions by their numbers, and products with weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import final

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import boxed
from gdcompare.backend import unit_roundoff
from gdcompare.distributed.mistakes import MICRO, NOW, Plan, Term
from gdcompare.distributed.shards import Floats, Shards
from gdcompare.referee.allowance import scale_of
from gdcompare.referee.enclosed import Enclosed, Pieces
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import Allowance

_ROUNDINGS = 8
"""How many roundings scaling takes, on either side of a sum over ranks: factors, their own rounding, divisions."""


@final
@dataclass(frozen=True, eq=False)
class Stack:
    """Terms in a row: their middles and bounds, (V, P), over all elements of all parameters."""

    keys: Sequence[Term]
    mid: Floats
    off: Floats
    dtype: str
    additions: int

    @cached_property
    def places(self) -> dict[Term, int]:
        """Where each term is."""
        return {term: place for place, term in enumerate(self.keys)}

    def at(self, places: slice | NDArray[np.intp]) -> Stack:
        """Return the same of some elements."""
        return replace(self, mid=self.mid[:, places], off=self.off[:, places])

    def combined(self, terms: Mapping[Term, float]) -> tuple[Floats, Floats]:
        """Return a sum of terms, and how far off a correct program of it may be, (P,) each."""
        at = [self.places[term] for term in terms]
        return combined(np.array(list(terms.values())), self.mid[at], self.off[at], self.dtype, self.additions)


@np.errstate(invalid="ignore", over="ignore")
def combined(coefficients: Floats, mid: Floats, off: Floats, dtype: str, additions: int) -> tuple[Floats, Floats]:
    """Return the sum over the first axis, and its bound: see the module."""
    sizes, roundings = np.abs(coefficients), additions + _ROUNDINGS
    u = unit_roundoff(dtype)
    bound = sizes @ off
    rounded = roundings * u / (1 - roundings * u) * (sizes @ (np.abs(mid) + off))
    lost = roundings * float(np.finfo(dtype).smallest_normal) * (1 + float(np.max(sizes, initial=0.0)))  # flushed to 0
    return coefficients @ mid, bound + rounded + lost


@final
class Truths:
    """The referees of the whole batch, of each rank's rows, and of each micro-batch."""

    def __init__(
        self, referee: Referee, shards: Shards, factors: Floats, old: Mapping[str, tuple[Referee, Shards]], proven: bool
    ) -> None:
        self.referee, self.shards, self.factors, self.proven = referee, shards, factors, proven
        self._old = old
        self.names = list(referee.params)
        self.mean = referee.reduction == "mean"

    @cached_property
    def plan(self) -> Plan:
        """What the ranks are to do."""
        shards, weights = self.shards, self.shards.weights
        micro = [
            np.array([shards.weight(part) for part in parts]) / w
            for parts, w in zip(shards.micro, weights, strict=True)
        ]
        n = len(shards.data)
        return Plan(weights / weights.sum(), self.factors, shards.sizes(), micro, n, self.mean, list(self._old))

    @cached_property
    def of_ranks(self) -> list[Referee]:
        """The referees of the ranks' rows."""
        return [self._on(self.referee, self.shards, self.shards.rows(rank)) for rank in range(len(self.shards))]

    def _on(self, referee: Referee, shards: Shards, rows: Sequence[int]) -> Referee:
        return referee.on(shards.data.rows(list(rows)), referee.reduction)

    @property
    def additions(self) -> int:
        """How many terms a sum over all ranks and micro-batches has."""
        return len(self.shards) + max(map(len, self.shards.micro))

    @cached_property
    def now(self) -> Stack:
        """What the ranks are to contribute, and the micro-batches to that."""
        keys: list[Term] = []
        mids, offs = [], []
        for rank, referee in enumerate(self.of_ranks):
            mid, off = self._scaled(referee, rank)
            parts = self.shards.micro[rank]
            if len(parts) > 1:
                shares = self.plan.micro[rank] if self.mean else np.ones(len(parts))
                found = [self._scaled(self._on(self.referee, self.shards, part), rank) for part in parts]
                of_parts = [(share * m, share * o) for share, (m, o) in zip(shares, found, strict=True)]
                keys += [(MICRO, rank, m) for m in range(len(parts))]
                mids += [m for m, _ in of_parts]
                offs += [o for _, o in of_parts]
                ones = np.ones(len(parts))
                added = combined(
                    ones, np.stack(mids[-len(parts) :]), np.stack(offs[-len(parts) :]), self.dtype, len(parts)
                )
                off = np.fmax(off, added[1])
            keys.append((NOW, rank))
            mids.append(mid)
            offs.append(off)
        return Stack(keys, np.stack(mids), np.stack(offs), self.dtype, self.additions)

    @cached_property
    def all(self) -> Stack:
        """These, and the contributions of the previous step."""
        keys, mids, offs = list(self.now.keys), [self.now.mid], [self.now.off]
        for kind, (referee, shards) in self._old.items():
            for rank in range(len(shards)):
                mid, off = self._scaled(self._on(referee, shards, shards.rows(rank)), rank)
                keys.append((kind, rank))
                mids.append(mid[None])
                offs.append(off[None])
        return Stack(keys, np.concatenate(mids), np.concatenate(offs), self.dtype, self.additions)

    @property
    def dtype(self) -> str:
        """The one under test."""
        return self.referee.dtype

    @cached_property
    def allowed(self) -> dict[str, Allowance]:
        """What is allowed of the reduced gradient: the more of what the whole and the sum over the ranks may be off."""
        bound = self.now.combined(self.plan.whole())[1]
        return self._no_less(self.referee, bound, [self.referee, *self.of_ranks])

    def allowed_of(self, rank: int) -> dict[str, Allowance]:
        """Return what is allowed of a rank's own contribution: of its gradient, times its factor."""
        referee, factor = self.of_ranks[rank], abs(float(self.factors[rank]))
        if factor == 1 and len(self.shards.micro[rank]) == 1:
            return referee.either_allowance(self.proven)
        bound = self.now.off[self.now.places[NOW, rank]]
        allowed = self._no_less(referee, bound / factor, [referee])
        if factor == 1:
            return allowed
        return {
            name: replace(each, budget=factor * each.budget, scale=None if each.scale is None else factor * each.scale)
            for name, each in allowed.items()
        }

    def truths_of(self, rank: int) -> dict[str, Enclosed]:
        """Return the proven gradient of a rank's rows, times its factor."""
        truths, factor = self.of_ranks[rank].truths, float(self.factors[rank])
        return {name: truths[name] if factor == 1 else _times(factor, truths[name]) for name in self.names}

    def _no_less(self, referee: Referee, bound: Floats, parts: Sequence[Referee]) -> dict[str, Allowance]:
        """Return a referee's allowances, none of them less than the bound, sampled if one of the parts is."""
        found = {}
        behind = [part.either_allowance(self.proven) for part in parts]
        for name, own in referee.either_allowance(self.proven).items():
            if name not in self.places:
                continue
            truth = referee.truths[name]
            budget = np.fmax(own.budget, bound[self.places[name]].reshape(own.budget.shape))
            grade = max((each[name].grade for each in behind), key=["proven", "sampled"].index)
            grown = replace(own, budget=budget, grade=grade, why=partial(referee.why_unresolved, name))
            if not grown.resolved.all():
                scale = scale_of(np.abs(truth.mid), referee.magnitudes[name])
                grown = replace(grown, scale=scale if grown.scale is None else np.fmax(scale, grown.scale))
            found[name] = grown
        return found

    def _scaled(self, referee: Referee, rank: int) -> tuple[Floats, Floats]:
        """Return the truth over some rows, times the rank's factor, and how far off a program of it may be."""
        mid, off = self._flat(referee, referee.either_allowance(self.proven))
        factor = float(self.factors[rank])
        if factor == 1:
            return mid, off
        return combined(np.array([factor]), mid[None], off[None], self.dtype, 0)

    def _flat(self, referee: Referee, allowed: Mapping[str, Allowance]) -> tuple[Floats, Floats]:
        mids, offs = [], []
        for name in self.names:
            truth = referee.truths[name]
            mids.append(truth.mid.ravel())
            offs.append((allowed[name].budget + truth.rad + 2.0**-53 * np.abs(truth.mid)).ravel())
        return np.concatenate(mids), np.concatenate(offs)

    @cached_property
    def places(self) -> dict[str, slice]:
        """Where each parameter's elements are among all."""
        ends = np.cumsum([0, *(self.referee.params[name].size for name in self.names)])
        return {name: slice(int(a), int(b)) for name, a, b in zip(self.names, ends, ends[1:], strict=False)}


def _times(factor: float, truth: Enclosed) -> Enclosed:
    """Return an enclosure times an exact number."""
    with ctx.workprec(256):
        balls = boxed(truth.balls * arb(factor))
        pieces = truth.pieces and Pieces(boxed(truth.pieces.balls * arb(factor)), truth.pieces.values)
    spread = None if truth.spread is None else abs(factor) * truth.spread
    return replace(truth, known=balls, pieces=pieces, spread=spread)
