"""The batch laws on data in blocks: those that hold between all rows and the blocks that they come in.

With g_i the gradient of row i, G_k that of the mean over block k, which weighs W_k, and G that over all rows, of
weight W,

    mean of per-sample gradients        sum_i w_i g_i / W = G
    weighted mean of the blocks         sum_k W_k G_k / W = G
    sum = n x mean                      sum_k (gradient of the sum over block k) = W G

each of them summed in the tree of `scale.tree`, within what rounding may do (`summed`). A block that is wrong by itself
is wrong, however little it matters to all rows. What takes all rows in another order, or other weights, is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import final

import numpy as np

from gdcompare.backend import Reduction
from gdcompare.case import Case
from gdcompare.data.blocks import Blocks
from gdcompare.progress import progress_bar
from gdcompare.referee.allowance import ENOUGH
from gdcompare.referee.blame import blamed_rows, ratio
from gdcompare.referee.blockwise import Block, Once
from gdcompare.referee.combined import weighted_mean
from gdcompare.referee.enclosed import Enclosed
from gdcompare.referee.hypotheses import number
from gdcompare.referee.parts import Bench, UnfitError
from gdcompare.referee.summed import Part, Summed
from gdcompare.referee.verdict import Allowance, Entry, Floats, budgets_of, compare, resolution_of
from gdcompare.scale.tree import Tree

LEFT_OUT = (
    "of other orders and weights of rows (permutation, duplication, linearity, copies, padding, batches), as the data "
    "are in blocks: data.block(0) may be asked for all"
)

ROWS, MEANS, SUMS = "mean of per-sample gradients", "weighted mean of the blocks", "sum = n x mean"


def laws_of_blocks(case: Case, bench: Bench, blocks: Blocks, proven_only: bool) -> list[Entry]:
    """Return an entry for each law and parameter."""
    once = Blocks(Once(blocks.source), blocks.name, blocks.rows)
    laws = [_Law(law, case, bench, once, proven_only) for law in _asked(bench)]
    weight = 0.0
    with progress_bar(len(once), None, "checking laws", "rows") as advance:
        for index in range(once.count):
            block = Block(case, once, index)
            weight += block.weight
            try:
                for law in laws:
                    law.take(block)
            except UnfitError as error:
                return error.entries
            advance(len(block.data))
    if not weight:
        raise ValueError(f"the weights of {blocks.name!r} are all zero")
    return [entry for law in laws for entry in law.entries()]


def _asked(bench: Bench) -> Iterator[str]:
    if "per-sample gradients" not in bench.lacks:
        yield ROWS
    yield MEANS
    if "sums" not in bench.lacks:
        yield SUMS


@final
class _Law:
    """One law, as its blocks come."""

    def __init__(self, law: str, case: Case, bench: Bench, blocks: Blocks, proven_only: bool) -> None:
        self.law = law
        self._case, self._bench, self._blocks, self._proven_only = case, bench, blocks, proven_only
        self._of: Reduction = "sum" if law == SUMS else "mean"
        self._tree = Tree(blocks.count)
        shapes = {name: value.shape for name, value in case.params.items()}
        resolution = resolution_of(getattr(case.problem, "narrowest", ""))
        self._summed = Summed(shapes, blocks.count, case.dtype, self._of, resolution, result="float64")
        self._wrong: dict[str, tuple[Entry, int, int]] = {}

    @np.errstate(all="ignore")
    def take(self, block: Block) -> None:
        """Take up a block."""
        mean = self._of == "mean"
        if mean and not block.weight:
            self._summed.add_nothing(block.index)
            self._tree.add(block.index, np.zeros(1 + sum(value.size for value in self._case.params.values())))
            return
        referee = block.referee(self._of)
        if self.law == ROWS:
            found, proven, allowed = self._rows(block)
        else:
            arrays = self._bench.computed(str(block), referee)
            found = {name: np.asarray(arrays[name], dtype=np.float64) for name in self._case.params}
            proven = self._bench.allowances(referee, True)
            allowed = proven if self._proven_only else self._bench.allowances(referee, False)
        truths = referee.towards(found, budgets_of(allowed))
        self._note(block, found, truths, allowed)
        rows = len(block.data)
        self._summed.add(block.index, Part(truths, proven, allowed, referee.magnitudes, referee.weights, rows, mean))
        leaf = np.concatenate([np.ravel(found[name]) for name in self._case.params])
        self._tree.add(block.index, np.concatenate([[block.weight], leaf * block.weight if mean else leaf]))

    def _rows(self, block: Block) -> tuple[dict[str, Floats], dict[str, Allowance], dict[str, Allowance]]:
        """Return the mean of a block's per-sample gradients, and what it may be off by at worst, and as allowed."""
        bench, mean = self._bench, block.referee("mean")
        rows, referee, shares = bench.computed_rows(mean)
        off = bench.row_budgets(referee)
        mixed = {name: weighted_mean(rows[name], shares, off[name]) for name in self._case.params}
        proven = {name: Allowance(budget, mean.magnitudes[name]) for name, (_, budget) in mixed.items()}
        found = {name: value for name, (value, _) in mixed.items()}
        blind = any(
            not (each.budget <= ENOUGH[self._case.dtype] * mean.magnitudes[name]).all() for name, each in proven.items()
        )
        if self._proven_only or not blind:
            return found, proven, proven
        part, _ = bench.rows(mean)
        allowed = {}
        for name, each in part.allowed.items():
            _, budget = weighted_mean(rows[name], shares, each.budget)
            allowed[name] = Allowance(budget, mean.magnitudes[name], each.grade)
        return found, proven, allowed

    def _note(
        self,
        block: Block,
        found: Mapping[str, Floats],
        truths: Mapping[str, Enclosed],
        allowed: Mapping[str, Allowance],
    ) -> None:
        """Remember the block that is most wrong by itself."""
        for name, value in found.items():
            if not (truths[name].distance(value)[0] > allowed[name].budget).any() and np.isfinite(value).all():
                continue
            entry = compare(self._bench.name, name, value, truths[name], allowed[name], self._case.dtype, self.law)
            if entry.verdict == "wrong":
                before, index, count = self._wrong.get(name, (entry, block.index, 0))
                more = count and entry.budget_fraction > before.budget_fraction
                worst = (entry, block.index) if more else (before, index)
                self._wrong[name] = *worst, count + 1

    @np.errstate(all="ignore")
    def entries(self) -> list[Entry]:
        """Return what is to be said of it, by parameter."""
        total, truths = self._tree.total, self._summed.truths
        numbers = total[1:] / total[0] if self._of == "mean" else total[1:]
        ends = np.cumsum([value.size for value in self._case.params.values()])
        parts = np.split(numbers, ends[:-1])
        allowed = self._summed.allowances(self._proven_only, lambda *_: "what the blocks may be off by adds up")
        entries = []
        for (name, value), part in zip(self._case.params.items(), parts, strict=True):
            actual = part.reshape(value.shape)
            entry = compare(self._bench.name, name, actual, truths[name], allowed[name], self._case.dtype, self.law)
            entries.append(self._blamed(entry))
        return entries

    def _blamed(self, entry: Entry) -> Entry:
        """Name the block that is most wrong, and in it the rows."""
        if entry.parameter not in self._wrong:
            return entry
        there, index, count = self._wrong[entry.parameter]
        block = Block(self._case, self._blocks, index)
        cause = f"wrong in {count} of {self._blocks.count} blocks, most in {block}: {self._why(block, there)}"
        return replace(entry if entry.verdict == "wrong" else there, cause=cause)

    def _why(self, block: Block, entry: Entry) -> str:
        if self.law == ROWS:
            part, _ = self._bench.rows(block.referee("mean"))
            return blamed_rows(part, entry.parameter, block.begin)
        referee = block.referee(self._of)
        found = self._bench.computed(str(block), referee)[entry.parameter].astype(np.float64)
        if not np.isfinite(found).all():
            return "not finite"
        return f"{number(ratio(found, referee.truths[entry.parameter].mid), 10)} times the truth"
