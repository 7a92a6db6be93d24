"""What common mistakes make of the gradients of shards, and the words for them.

With `a_r` the gradient that rank r is to contribute, `a_rm` the part of its micro-batch m, `b_r` the same of the
previous step, and `G` the gradient of all rows, every mistake here is a sum of these with known coefficients: none is
fitted.

    G = sum_r w_r a_r        w_r = 1/W where the ranks' contributions are averaged, or the shards' shares of the rows

A mistake may make different things of different ranks: each is asked for by its rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple, TypeAlias, final

import numpy as np

from gdcompare.distributed.shards import Floats

Term: TypeAlias = "tuple[str, int] | tuple[str, int, int]"
"""(kind, rank), or ("micro", rank, micro-batch)."""

NOW, MICRO = "now", "micro"

OLD: Mapping[str, str] = {
    "parameters": "at the previous step's parameters",
    "rows": "of the previous step's rows",
    "step": "of the previous step: of its rows, at its parameters",
}
"""The kinds of what is stale, and the words."""

_NOT_ZEROED = "added to the previous step's gradient, which was not set to zero"

_MOST_RANKS = 6
"""Up to so many ranks, any of them together are looked for as missing; with more, one or two."""


class Mistake(NamedTuple):
    """A sum of terms, and the words for the mistake that makes it of the true gradient."""

    terms: Mapping[Term, float]
    words: str


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """What the ranks are to do."""

    shares: Floats
    """(W,), of all that the rows weigh."""
    factors: Floats
    """(W,): by what each rank multiplies the mean, or sum, over its rows."""
    sizes: str
    """The shards' sizes, in words."""
    micro: Sequence[Floats]
    """By rank: the shares of its micro-batches, of what its rows weigh."""
    rows: int
    mean: bool
    """Whether the mean over the rows is due, or else the sum."""
    old: Sequence[str] = ()
    """The kinds of what may be stale: of `OLD`."""

    @property
    def ranks(self) -> int:
        """W."""
        return len(self.shares)

    @cached_property
    def right(self) -> Floats:
        """The coefficients w_r of the ranks' contributions in the gradient of all rows."""
        return (self.shares if self.mean else np.ones(self.ranks)) / self.factors

    @property
    def averages(self) -> bool:
        """Whether the mean of the contributions is the gradient, as with equal shards."""
        return bool(np.allclose(self.right, 1 / self.ranks, rtol=1e-12))

    def whole(self, times: float = 1.0, kind: str = NOW) -> dict[Term, float]:
        """Return G, times a number."""
        return {(kind, rank): times * float(w) for rank, w in enumerate(self.right)}

    def total(self, times: float = 1.0, ranks: Iterable[int] | None = None) -> dict[Term, float]:
        """Return the plain sum of the contributions of these ranks, or of all, times a number."""
        return {(NOW, rank): times for rank in (range(self.ranks) if ranks is None else ranks)}


def of_reduced(plan: Plan, rank: int) -> Iterator[Mistake]:
    """Yield what mistakes make of the reduced gradient on a rank, the most specific first."""
    if plan.ranks > 1:
        yield from _scaled(plan)
        yield from _own(plan, rank)
    yield from _micro_batches(plan, rank)
    if plan.ranks > 1:
        yield from _missing(plan)
        yield from _in_place(plan)
    yield from _stale(plan)
    yield (
        Mistake(plan.whole(plan.rows), f"a sum over the {plan.rows} rows where the mean belongs")
        if plan.mean
        else Mistake(plan.whole(1 / plan.rows), f"the mean over the {plan.rows} rows where the sum belongs")
    )


def of_own(plan: Plan, rank: int) -> Iterator[Mistake]:
    """Yield what mistakes make of the gradient of a rank's own shard, before anything is reduced."""
    own: Term = NOW, rank
    yield Mistake({own: 0.0}, "zero: the rank's rows do not count")
    for other in range(plan.ranks):
        if other != rank:
            factor = float(plan.factors[rank] / plan.factors[other])
            yield Mistake({(NOW, other): factor}, f"the gradient of the rows of rank {other}, and not of its own")
    for kind in plan.old:
        yield Mistake({(kind, rank): 1.0}, f"stale: the gradient {OLD[kind]}")
        yield Mistake({own: 1.0, (kind, rank): 1.0}, _NOT_ZEROED)
    if plan.ranks > 1:
        yield Mistake(plan.whole(), "it is reduced already: the gradient of all rows")
        if not plan.averages:
            yield Mistake(plan.total(1 / plan.ranks), "it is reduced already: the mean of all ranks' gradients")
        share = float(plan.shares[rank])
        yield Mistake({own: float(plan.ranks)}, f"{plan.ranks} times too large, as often as there are ranks")
        yield Mistake({own: 1 / plan.ranks}, f"divided by the {plan.ranks} ranks already")
        if not np.allclose(share, 1 / plan.ranks):
            of_it, known = "the shard's share of all rows", "what `factors` are for"
            yield Mistake({own: share}, f"multiplied by {of_it}: {known}")
            yield Mistake({own: share * plan.ranks}, f"weighted by {of_it}, for a mean over ranks: {known}")
    yield from _micro_batches_of_own(plan, rank)


def _scaled(plan: Plan) -> Iterator[Mistake]:
    """All contributions are there, and the factor is another."""
    ranks = plan.ranks
    if not plan.averages and plan.mean:
        yield Mistake(
            plan.total(1 / ranks), f"averaged over the ranks without weights, and the shards have {plan.sizes}"
        )
        yield Mistake(
            plan.total(), f"summed over the ranks, neither averaged nor weighted; the shards have {plan.sizes}"
        )
        yield Mistake(plan.total(float(ranks)), f"summed over the {ranks} ranks twice over, without weights")
        yield Mistake(
            plan.total(1 / ranks**2), f"averaged twice, and without weights: divided by the {ranks} ranks once more"
        )
    if plan.mean:
        yield Mistake(
            plan.whole(ranks),
            f"summed over the {ranks} ranks where it should be averaged: {ranks} times too large (by a collective, or "
            "by the transpose of one: of a loss summed over the ranks, or of parameters that they share)",
        )
        yield Mistake(plan.whole(1 / ranks), f"averaged twice: divided by the {ranks} ranks once more")
    else:
        yield Mistake(plan.whole(1 / ranks), f"averaged over the {ranks} ranks where it should be summed")
        yield Mistake(plan.whole(ranks), f"{ranks} times too large: summed over the {ranks} ranks twice")
    yield Mistake(
        plan.whole(ranks**2), f"{ranks}^2 = {ranks**2} times too large: summed over the {ranks} ranks twice over"
    )


def _own(plan: Plan, rank: int) -> Iterator[Mistake]:
    """Nothing came from the other ranks."""
    ranks, share = plan.ranks, float(plan.right[rank])
    yield Mistake({(NOW, rank): 1.0}, "not synchronised: each rank has the gradient of its own shard")
    if share != 1:
        yield Mistake(
            {(NOW, rank): share}, "not synchronised: each rank has the share of its own shard, and no sum is taken"
        )
        yield Mistake(
            {(NOW, rank): float(ranks)},
            f"not synchronised, and {ranks} times too large: each rank has that of its own shard (the transpose of a "
            "sum over ranks is that sum again, and the loss was summed before it was differentiated)",
        )
    yield Mistake(
        {(NOW, rank): 1 / ranks}, f"not synchronised: each rank has its own shard's, divided by the {ranks} ranks"
    )


def _micro_batches(plan: Plan, rank: int) -> Iterator[Mistake]:
    """Some micro-batches were reduced and others not, or they count otherwise than they should."""
    most = max(map(len, plan.micro))
    if most < 2:
        return
    for reduced in range(most - 1):
        terms: dict[Term, float] = {}
        for other, w in enumerate(plan.right):
            terms |= {(MICRO, other, m): float(w) for m in range(min(reduced + 1, len(plan.micro[other])))}
        terms |= {(MICRO, rank, m): 1.0 for m in range(reduced + 1, len(plan.micro[rank]))}
        which = "the first micro-batch" if reduced == 0 else f"micro-batch {reduced}"
        yield Mistake(terms, f"synchronised at {which} alone: the later ones are each rank's own")
    for m, which in ((0, "first"), (-1, "last")):
        for full in (False, True):
            terms = {}
            for other, w in enumerate(plan.right):
                place = m % len(plan.micro[other])
                terms[MICRO, other, place] = float(w / plan.micro[other][place] if full and plan.mean else w)
            yield Mistake(terms, f"only the {which} micro-batch of each rank counts{_OVERWRITTEN[which]}")
    if plan.mean:
        for words, shares in _combined_otherwise(plan).items():
            yield Mistake(
                {
                    (MICRO, other, m): float(plan.right[other] * each)
                    for other, parts in enumerate(shares)
                    for m, each in enumerate(parts)
                },
                words,
            )


_OVERWRITTEN = {"first": "", "last": ": it took the place of those before it"}


def _micro_batches_of_own(plan: Plan, rank: int) -> Iterator[Mistake]:
    parts = plan.micro[rank]
    if len(parts) < 2:
        return
    terms: dict[Term, float] = {
        (MICRO, other, m): float(w) for other, w in enumerate(plan.right) for m in range(len(plan.micro[other]) - 1)
    }
    last = len(parts) - 1
    yield Mistake(
        terms | {(MICRO, rank, last): 1.0},
        "the micro-batches before the last are reduced already: synchronised at each of them",
    )
    for m, which in ((0, "first"), (last, "last")):
        for share in (1.0, float(1 / parts[m])) if plan.mean else (1.0,):
            yield Mistake({(MICRO, rank, m): share}, f"only the {which} micro-batch counts{_OVERWRITTEN[which]}")
    if plan.mean:
        for words, shares in _combined_otherwise(plan).items():
            yield Mistake({(MICRO, rank, m): float(each) for m, each in enumerate(shares[rank])}, words)


def _combined_otherwise(plan: Plan) -> dict[str, list[Floats]]:
    """Return how else the means over the micro-batches may be combined, as factors of their right shares."""
    summed = [1 / parts for parts in plan.micro]
    found = {"the means over the micro-batches are summed: not divided by their number": summed}
    if any(np.ptp(parts) for parts in plan.micro):
        averaged = [1 / (len(parts) * parts) for parts in plan.micro]
        found["the means over micro-batches of unequal size are averaged without weights"] = averaged
    return found


def _missing(plan: Plan) -> Iterator[Mistake]:
    """Some ranks are not there: the mean is taken over the others, or as if they were."""
    ranks = range(plan.ranks)
    sizes = range(1, plan.ranks if plan.ranks <= _MOST_RANKS else 3)
    for gone in (each for size in sizes for each in combinations(ranks, size)):
        left = [rank for rank in ranks if rank not in gone]
        who = (
            f"rank {gone[0]}'s shard is missing" if len(gone) == 1 else f"the shards of ranks {_some(gone)} are missing"
        )
        if len(left) == 1 < len(gone):
            who = f"only rank {left[0]}'s shard counts: {who}"
        there: dict[Term, float] = {(NOW, rank): float(plan.right[rank]) for rank in left}
        if plan.mean:
            share = float(np.sum(plan.shares[left]))
            yield Mistake({term: w / share for term, w in there.items()}, who)
            counted = ", and the mean is taken as if it were there" if len(gone) == 1 else ", and the mean counts them"
        else:
            counted = ""
        yield Mistake(there, who + counted)
        if plan.mean and not plan.averages:
            if not np.allclose(plan.right[left] / share, 1 / len(left)):
                yield Mistake(plan.total(1 / len(left), left), f"{who}, and the others are averaged without weights")
            yield Mistake(plan.total(1 / plan.ranks, left), f"{who}, divided by all ranks, without weights")


def _in_place(plan: Plan) -> Iterator[Mistake]:
    """One rank's rows count for those of another, or twice."""
    for twice in range(plan.ranks):
        again: Term = NOW, twice
        more = float(plan.right[twice])
        yield Mistake(plan.whole() | {again: 2 * more}, f"rank {twice}'s shard is counted twice")
        if plan.mean:
            terms = plan.whole() | {again: 2 * more}
            total = 1 + float(plan.shares[twice])
            yield Mistake({term: w / total for term, w in terms.items()}, f"rank {twice}'s shard is counted twice")
        for lost in range(plan.ranks):
            if lost != twice:
                terms = plan.whole() | {
                    again: more + float(plan.right[lost] * plan.factors[lost] / plan.factors[twice])
                }
                del terms[NOW, lost]
                yield Mistake(
                    terms, f"rank {lost} gives the gradient of the rows of rank {twice}: its own are not there"
                )


def _stale(plan: Plan) -> Iterator[Mistake]:
    """What the previous step left is there."""
    for kind in plan.old:
        for rank in range(plan.ranks if plan.ranks > 1 else 0):
            terms = plan.whole()
            terms[kind, rank] = terms.pop((NOW, rank))
            yield Mistake(terms, f"rank {rank}'s shard is stale: its gradient is that {OLD[kind]}")
        yield Mistake(plan.whole(kind=kind), f"all shards are stale: the gradient {OLD[kind]}")
        yield Mistake(plan.whole() | plan.whole(kind=kind), _NOT_ZEROED)


def _some(ranks: Sequence[int]) -> str:
    return f"{', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
