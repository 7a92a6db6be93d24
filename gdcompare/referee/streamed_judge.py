"""One implementation's sums over blocks, before the referee: each block's by itself, then what they add up to.

An array is wrong if it is over all rows, or in any block: a block that is beyond what rounding may do to it is wrong
however little it matters to the others. It agrees if no block is wrong, and it does over all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.case import Case
from gdcompare.data.blocks import Blocks
from gdcompare.referee.blockwise import Block, Computes, UndueError, parts_of, row_of
from gdcompare.referee.diagnosis import cause_of
from gdcompare.referee.enclosed import Enclosed
from gdcompare.referee.evidence import Evidence
from gdcompare.referee.judging import judged
from gdcompare.referee.missummed import Wrong, why_missummed
from gdcompare.referee.summed import Part, Summed
from gdcompare.referee.verdict import LOSS, Allowance, Entry, Floats, budgets_of, judge_all, resolution_of
from gdcompare.scale.tree import Tree

Tolerated: TypeAlias = Callable[[Mapping[str, Enclosed]], dict[str, Allowance]]

AGAIN = "not deterministic: asked again it is right"
RIGHT_BLOCKS = "each block is right by itself, and their sum is not"


@dataclass
class _Wrong:
    """The blocks in which an array is wrong by itself."""

    blocks: int = 0
    most: int = 0
    beyond: float = -1.0

    def note(self, index: int, fraction: float, rows: int) -> None:
        """Count one in. A block of many rows shows more of a mistake than one of few."""
        self.blocks += 1
        if (beyond := math.inf if math.isnan(fraction) else fraction * rows) > self.beyond:
            self.most, self.beyond = index, beyond


@final
class Judge:
    """Takes an implementation's blocks one by one, in any order, and says in the end what is to be said of it."""

    def __init__(self, who: Computes, case: Case, blocks: Blocks, proven_only: bool, asked: Tolerated | None) -> None:
        self.who, self._case, self._blocks = who, case, blocks
        self._proven_only, self._asked = proven_only, asked
        self._names = [LOSS, *case.params]
        self._tree = Tree(blocks.count)
        shapes = {LOSS: (), **{name: value.shape for name, value in case.params.items()}}
        resolution = resolution_of(getattr(case.problem, "narrowest", ""))
        self._summed = Summed(shapes, blocks.count, case.dtype, case.reduction, resolution)
        self._failed: list[Entry] = []
        self._wrong: dict[str, _Wrong] = {}
        self._remarks: dict[str, str] = {}
        self._least_known = 0, -math.inf
        self._met, self._has_loss = False, True
        self._looked_at: dict[int, dict[str, Entry]] = {}
        self._of_all: dict[str, str] = {}

    def _block(self, index: int) -> Block:
        return Block(self._case, self._blocks, index)

    @np.errstate(all="ignore")
    def take(self, block: Block) -> None:
        """Judge a block, and add it to the sums."""
        if self._failed:
            return
        who, mean = self.who, self.who.reduction == "mean"
        if mean and not block.weight:
            self._summed.add_nothing(block.index)
            self._tree.add(block.index, np.zeros(1 + len(row_of(self._case.params, self._names)) + 1))
            return
        referee = block.referee(who.reduction)
        proven = who.allowances(referee, True)
        allowed = proven if self._proven_only else who.allowances(referee, False)
        if not self._met:
            self._meet(block, allowed)
        try:
            found = {} if self._failed else who.computed(block)
        except UndueError as error:
            self._failed = [Entry(who.name, LOSS, "wrong", cause=self._said(block, str(error)))]
        if self._failed:
            return
        truths = referee.towards(found, budgets_of(allowed))
        due = {name: each for name, each in truths.items() if name != LOSS or LOSS in found}
        entries = judge_all(who.name, found, due, allowed, self._case.dtype)
        if misfits := [each for each in entries if each.worst_index is None]:
            self._failed = [replace(each, cause=self._said(block, each.cause)) for each in misfits]
            return
        for entry in entries if self._asked is None else ():
            if entry.verdict == "wrong":
                self._wrong.setdefault(entry.parameter, _Wrong()).note(
                    block.index, entry.budget_fraction, len(block.data)
                )
        self._note_least_known(block.index, allowed)
        rows = len(block.data)
        self._summed.add(block.index, Part(truths, proven, allowed, referee.magnitudes, referee.weights, rows, mean))
        leaf = row_of({LOSS: 0.0, **found}, self._names)
        leaf, weight = leaf * block.weight if mean else leaf, block.weight
        self._tree.add(block.index, np.concatenate([leaf[:1], [weight], leaf[1:]]))

    def _meet(self, block: Block, allowed: Mapping[str, Allowance]) -> None:
        """Have it called twice, on copies: what it returns must be arrays to judge, and remain what it was."""
        referee = block.referee(self.who.reduction)
        function = self.who.implementation(referee)
        entries = judged(referee, self.who.name, function, allowed, self.who.may_raise)
        self._met, self._has_loss = True, any(each.parameter == LOSS for each in entries)
        self._failed = [
            replace(each, cause=self._said(block, each.cause)) for each in entries if each.worst_index is None
        ]
        self._remarks = {
            each.parameter: self._said(block, each.cause)
            for each in entries
            if each.cause.startswith(("not deterministic", "stale"))
        }

    def _note_least_known(self, index: int, allowed: Mapping[str, Allowance]) -> None:
        """Remember the block that is allowed most, which says best why too much is."""
        most = max(float(np.max(each.budget, initial=0.0)) for each in allowed.values())
        if not most <= self._least_known[1]:
            self._least_known = index, most

    def _said(self, block: Block, cause: str) -> str:
        return cause if self._blocks.count == 1 else f"{block}: {cause}"

    @np.errstate(all="ignore")
    def entries(self, total: Floats | None = None) -> list[Entry]:
        """Return the entries of all rows; `total` is the sum in the form of the tree's, if others have added it up."""
        if self._failed:
            return self._failed
        numbers = self._tree.total if total is None else np.asarray(total, dtype=np.float64)
        actual, truths = self._reduced(numbers), self._summed.truths
        allowed = self._asked(truths) if self._asked else self._summed.allowances(self._proven_only, self._why)
        if not self._has_loss:
            del actual[LOSS], truths[LOSS]
        entries = judge_all(self.who.name, actual, truths, allowed, self._case.dtype)
        known = _Known(actual, truths, budgets_of(allowed))
        return [self._explained(each, known) for each in entries]

    def _reduced(self, total: Floats) -> dict[str, NDArray[Any]]:
        """Return loss and gradient in the dtype, as `scale.sums` has them."""
        sums = np.concatenate([total[:1], total[2:]])
        mean = sums / total[1] if self._case.reduction == "mean" else sums
        return parts_of(mean.astype(self._case.dtype), self._case.params)

    def _why(self, name: str, blind: NDArray[np.bool_]) -> str:
        """Say why elements show no digits: what there is to say of the block that is known least."""
        block = self._block(self._least_known[0])
        cause = block.referee(self.who.reduction).why_unresolved(name, blind)
        return cause and self._said(block, cause)

    def _explained(self, entry: Entry, known: _Known) -> Entry:
        """Return an entry of all rows with its cause, or where only a block is wrong, that of the block."""
        name = entry.parameter
        if (wrong := self._wrong.get(name)) is None:
            if entry.verdict != "wrong":
                return replace(entry, cause=entry.cause or self._remarks.get(name, ""))
            return replace(entry, cause=self._excuse or self._of_sum(known).get(name, ""))
        block = self._block(wrong.most)
        there = self._of_block(wrong.most).get(name)
        cause = self._excuse or (there.cause if there is not None and there.verdict == "wrong" else AGAIN)
        if self._blocks.count == 1:
            return replace(entry, verdict="wrong", cause=cause)
        many = "in all" if wrong.blocks == self._blocks.count else f"in {wrong.blocks} of"
        where = f"wrong {many} {self._blocks.count} blocks, most in {block}"
        if entry.verdict == "wrong" or there is None or there.worst_index is None:
            return replace(entry, verdict="wrong", cause=f"{where}: {cause}")
        return replace(there, verdict="wrong", cause=f"{where}, whose sum this is: {cause}")

    @property
    def _excuse(self) -> str:
        return f"an approximation by {self.who.approximates}" if self.who.approximates else ""

    def _of_block(self, index: int) -> dict[str, Entry]:
        """Return the entries of a block by itself, with their causes."""
        if index not in self._looked_at:
            referee = self._block(index).referee(self.who.reduction)
            function, allowed = self.who.implementation(referee), self.who.allowances(referee, self._proven_only)
            entries = judged(referee, self.who.name, function, allowed, self.who.may_raise)
            self._looked_at[index] = {each.parameter: each for each in entries}
        return self._looked_at[index]

    def _of_sum(self, known: _Known) -> dict[str, str]:
        """Return why arrays are wrong over all rows, and in no block, by name."""
        if not self._of_all:
            names, sizes = list(self._case.params), self._summed.magnitudes
            mids = {name: each.mid for name, each in known.truths.items()}
            actual, truth, budget, size = (row_of(each, names) for each in (known.actual, mids, known.budgets, sizes))
            wrong = Wrong(actual, truth, budget, size, self._summed.weight, self._case.reduction == "mean")
            words = why_missummed(wrong, self._case, self._blocks)
            self._of_all = {
                name: f"{RIGHT_BLOCKS}: {words or cause_of(self._evidence(name, known))}" for name in known.truths
            }
        return self._of_all

    def _evidence(self, name: str, known: _Known) -> Evidence:
        truth = known.truths[name].mid
        parameter = self._case.params.get(name)
        return Evidence(
            actual=known.actual[name].astype(np.float64),
            truth=truth,
            budget=known.budgets[name],
            dtype=self._case.dtype,
            n=len(self._blocks),
            parameter=None if parameter is None else parameter.astype(np.float64),
            reduction=self._case.reduction,
            scale=float(np.max(np.abs(truth), initial=0.0)),
            name=name,
        )


@dataclass(frozen=True, eq=False)
class _Known:
    """What was said over all rows, what is true, and what is allowed."""

    actual: Mapping[str, NDArray[Any]]
    truths: Mapping[str, Enclosed]
    budgets: Mapping[str, Floats]
