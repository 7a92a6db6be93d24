"""The batch laws on data in blocks: those that hold between all rows and the blocks that they come in.

With g_i the gradient of row i, G_k that of the mean over block k, which weighs W_k, and G that over all rows, of
weight W,

    mean of per-sample gradients        sum_i w_i g_i / W = G
    weighted mean of the blocks         sum_k W_k G_k / W = G
    sum = n x mean                      sum_k (gradient of the sum over block k) = W G

each of them summed in the tree of `scale.tree`, within what rounding may do (`summed`). A block that is wrong by itself
is wrong, however little it matters to all rows. What takes all rows in another order, or other weights, is not asked.

Some blocks at a time are one share, whose sums anybody may find: shares are joined in their order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, final

import numpy as np

from gdcompare.backend import Backend, Precision, Reduction
from gdcompare.case import Case
from gdcompare.data.blocks import Arrays, Blocks
from gdcompare.progress import progress_bar
from gdcompare.referee.allowance import ENOUGH
from gdcompare.referee.blame import blamed_rows, ratio
from gdcompare.referee.blockwise import Block, Once
from gdcompare.referee.combined import weighted_mean
from gdcompare.referee.enclosed import Enclosed
from gdcompare.referee.hypotheses import number
from gdcompare.referee.parts import BackendBench, Bench, UnfitError
from gdcompare.referee.summed import Part, Summed
from gdcompare.referee.verdict import Allowance, Entry, Floats, budgets_of, compare, resolution_of
from gdcompare.registry import packages_of
from gdcompare.scale.connection import ClusterError
from gdcompare.scale.parcel import Pieces, Unpacked, packed, unpacked
from gdcompare.scale.spread import spread_over
from gdcompare.scale.tree import Nodes, Tree

LEFT_OUT = (
    "of other orders and weights of rows (permutation, duplication, linearity, copies, padding, batches), as the data "
    "are in blocks: data.block(0) may be asked for all"
)

ROWS, MEANS, SUMS = "mean of per-sample gradients", "weighted mean of the blocks", "sum = n x mean"


TOGETHER = 1 << 16
"""Rows that are one share, in whole blocks: whoever has it, there are as many."""


class Found(NamedTuple):
    """What is found of a law in some blocks."""

    nodes: Nodes
    summed: Summed
    wrong: dict[str, tuple[Entry, int, int]]


class Share(NamedTuple):
    """What is found of all laws in some blocks, and what their rows weigh."""

    weight: float
    laws: list[Found]


def laws_of_blocks(
    case: Case,
    bench: Bench,
    blocks: Blocks,
    proven_only: bool,
    workers: int | None = None,
    scheduler: str | None = None,
) -> list[Entry]:
    """Return an entry for each law and parameter; of a backend, shares may be those of workers."""
    once = Blocks(Once(blocks.source), blocks.name, blocks.rows)
    laws = [_Law(law, case, bench, once, proven_only) for law in _asked(bench)]
    weight, unfit = 0.0, list[Entry]()

    def join(share: Share | list[Entry]) -> None:
        nonlocal weight
        if isinstance(share, Share) and not unfit:
            weight += share.weight
            for law, found in zip(laws, share.laws, strict=True):
                law.join(found)
        elif not isinstance(share, Share):
            unfit[:] = unfit or share

    with progress_bar(len(once), None, "checking laws", "rows") as advance:
        if (workers, scheduler) == (None, None) or not isinstance(bench, BackendBench):
            for first, last in _ranges(once):
                join(_share(case, bench, once, proven_only, first, last, advance))
                if unfit:
                    break
        else:
            _have_shares(case, bench.backend, blocks, proven_only, workers, scheduler, join, advance)
    if unfit:
        return unfit
    if not weight:
        raise ValueError(f"the weights of {blocks.name!r} are all zero")
    return [entry for law in laws for entry in law.entries()]


def _ranges(blocks: Blocks) -> list[tuple[int, int]]:
    some = max(1, TOGETHER // blocks.rows)
    return [(first, min(first + some, blocks.count)) for first in range(0, blocks.count, some)]


def _share(
    case: Case,
    bench: Bench,
    blocks: Blocks,
    proven_only: bool,
    first: int,
    last: int,
    advance: Callable[[int], object] = lambda _: None,
) -> Share | list[Entry]:
    """Return what is found in the blocks from the first to before the last; entries for what is no gradient."""
    laws = [_Law(law, case, bench, blocks, proven_only) for law in _asked(bench)]
    weight = 0.0
    for index in range(first, last):
        block = Block(case, blocks, index)
        weight += block.weight
        try:
            for law in laws:
                law.take(block)
        except UnfitError as error:
            return error.entries
        advance(len(block.data))
    return Share(weight, [law.found for law in laws])


def _have_shares(
    case: Case,
    backend: Backend[Any],
    blocks: Blocks,
    proven_only: bool,
    workers: int | None,
    scheduler: str | None,
    join: Callable[[Share | list[Entry]], object],
    advance: Callable[[int], object],
) -> None:
    """Have workers find the shares, and join them in their order."""
    parcel, ranges = packed(case.problem, backend, blocks), _ranges(blocks)
    stays = isinstance(_unpacked(parcel).blocks.source, Pieces)
    rows = [(blocks.bounds(first)[0], blocks.bounds(last - 1)[1]) for first, last in ranges]
    names = {f"rows {begin} to {end - 1} of {blocks.name!r}": place for place, (begin, end) in enumerate(rows)}

    def arguments(name: str) -> tuple[Any, ...]:
        (first, last), (begin, end) = ranges[names[name]], rows[names[name]]
        piece = (begin, blocks.source.read(begin, end)) if stays else None
        return parcel, dict(case.params), case.dtype, proven_only, first, last, piece

    waiting: dict[int, Share | list[Entry]] = {}
    joined = 0

    def done(name: str, share: Share | list[Entry] | ValueError) -> None:
        nonlocal joined
        if isinstance(share, ValueError):
            raise share
        begin, end = rows[names[name]]
        advance(end - begin)
        waiting[names[name]] = share
        while joined in waiting:
            join(waiting.pop(joined))
            joined += 1

    with spread_over(workers, scheduler, packages_of(backend.name), most=len(names)) as cluster:
        failures = cluster.do(_share_there, _Made(names, arguments), done)
    for name in sorted(failures, key=names.__getitem__):  # of several, the first rows
        raise ClusterError(f"{name}: {failures[name]}")


def _share_there(
    parcel: bytes,
    params: Mapping[str, Floats],
    dtype: Precision,
    proven_only: bool,
    first: int,
    last: int,
    piece: tuple[int, Arrays] | None,
) -> Share | list[Entry] | ValueError:
    """Be called on a worker: find a share; a ValueError is for whoever asks."""
    problem, backend, blocks = _unpacked(parcel)
    blocks = copy.copy(blocks)
    if piece is not None:
        blocks.source = Pieces(len(blocks))
        blocks.source.put(*piece)
    try:
        case = Case.of(problem, blocks.block(first), params, dtype)
        return _share(case, BackendBench(problem, backend, proven_only, {}), blocks, proven_only, first, last)
    except ValueError as error:
        return ValueError(str(error))


@final
class _Made(Mapping[str, tuple[Any, ...]]):
    """Arguments that are made when they are asked for: of rows in memory, they hold the rows."""

    def __init__(self, names: Collection[str], make: Callable[[str], tuple[Any, ...]]) -> None:
        self._names, self._make = names, make

    def __getitem__(self, name: str) -> tuple[Any, ...]:
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@lru_cache(maxsize=2)
def _unpacked(parcel: bytes) -> Unpacked:
    return unpacked(parcel)


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

    @property
    def found(self) -> Found:
        """What was found of the blocks that it took."""
        return Found(self._tree.nodes, self._summed, self._wrong)

    def join(self, found: Found) -> None:
        """Take up what was found of others, which come after."""
        self._tree.join(found.nodes)
        self._summed.join(found.summed)
        for name, (entry, index, count) in found.wrong.items():
            before, place, many = self._wrong.get(name, (entry, index, 0))
            more = many and entry.budget_fraction > before.budget_fraction
            worst = (entry, index) if more else (before, place)
            self._wrong[name] = *worst, many + count

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
