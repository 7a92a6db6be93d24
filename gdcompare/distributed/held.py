"""What the ranks hold, judged piece by piece, and the causes of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, final

import numpy as np

from gdcompare.distributed.causes import Mistakes, causes
from gdcompare.distributed.known import Stack, Truths
from gdcompare.distributed.mistakes import NOW, Mistake, of_own, of_reduced
from gdcompare.distributed.pieces import Holding, Piece
from gdcompare.distributed.shards import Floats
from gdcompare.referee.diagnosis import cause_of, cause_of_all
from gdcompare.referee.enclosed import Enclosed, enclosed_parts
from gdcompare.referee.evidence import Evidence
from gdcompare.referee.explained import VAGUE
from gdcompare.referee.in_floats import InFloats
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import Allowance, Entry, budgets_of, compare

OWN, REDUCED = "own shard", "reduced"


@final
@dataclass(frozen=True, eq=False)
class _Judged:
    """One piece of one rank's, and its entry."""

    rank: int
    name: str
    piece: Piece
    entry: Entry

    @property
    def wrong(self) -> bool:
        return self.entry.verdict == "wrong"

    def because(self, cause: str) -> _Judged:
        return replace(self, entry=replace(self.entry, cause=cause))


def judged_own(truths: Truths, held: Holding) -> list[Entry]:
    """Judge what each rank has of its own rows."""
    found, rights = [], {}
    for rank, pieces in enumerate(held.ranks):
        allowed, referee = truths.allowed_of(rank), truths.of_ranks[rank]
        true: Mapping[str, Enclosed] = truths.truths_of(rank)
        if truths.factors[rank] == 1:
            true = referee.towards(held.whole(rank), budgets_of(allowed))
        found += _judged_pieces(rank, f"rank {rank}", OWN, pieces, true, allowed, truths.dtype)
        at = truths.now.places[NOW, rank]
        rights[rank] = truths.now.mid[at], truths.now.off[at]
    named = _named(truths, held, found, rights, partial(of_own, truths.plan), alike=False)
    hint = "" if truths.plan.old else " (previous=Step(...) would let a stale shard be known)"
    return _otherwise(named, lambda rank: (truths.of_ranks[rank], float(truths.factors[rank])), hint)


def judged_reduced(truths: Truths, held: Holding, before: Holding | None, own: Sequence[Entry]) -> list[Entry]:
    """Judge what the ranks have after the reduction; what they had before, if it is known, may explain it."""
    found = []
    for rank, pieces in enumerate(held.ranks[:1] if held.alike else held.ranks):
        true = truths.referee.towards(held.whole(rank), budgets_of(truths.allowed))
        who = f"all {len(held.ranks)} ranks" if held.alike and len(held.ranks) > 1 else f"rank {rank}"
        found += _judged_pieces(rank, who, REDUCED, pieces, true, truths.allowed, truths.dtype)
    if not any(each.wrong for each in found):
        return [_apart(each, held).entry for each in found]
    middle, bound = truths.now.combined(truths.plan.whole())
    budgets = np.concatenate([truths.allowed[name].budget.ravel() for name in truths.names])
    rights = dict.fromkeys(range(len(held.ranks)), (middle, np.fmax(bound, budgets)))
    mistakes = partial(of_reduced, truths.plan)
    named = _named(truths, held, found, rights, mistakes, alike=held.alike, before=before, guilty=_guilty(own))
    return _otherwise(named, lambda _: (truths.referee, 1.0))


def _apart(each: _Judged, held: Holding) -> _Judged:
    """Say so where a rank agrees, and has not the bits of rank 0."""
    alike = [piece for piece in held.ranks[0][each.name] if piece.region == each.piece.region]
    if each.entry.cause or not alike or np.array_equal(alike[0].values, each.piece.values):
        return each
    return each.because("not the bits of rank 0: parameters that are updated with these drift apart")


def _judged_pieces(
    rank: int,
    who: str,
    law: str,
    held: Mapping[str, Sequence[Piece]],
    truths: Mapping[str, Enclosed],
    allowed: Mapping[str, Allowance],
    dtype: str,
) -> list[_Judged]:
    found = []
    for name, pieces in held.items():
        truth, allowance = truths[name], allowed[name]
        for piece in pieces:
            region, shape = piece.region, truth.mid.shape
            if piece.values.shape == shape:
                entry = compare(who, name, piece.values, truth, allowance, dtype, law)
            else:
                part = enclosed_parts({name: truth}, lambda arrays, at=region, key=name: {key: arrays[key][at]})[name]  # type: ignore[misc]
                scale = None if allowance.scale is None else allowance.scale[region]
                some = replace(allowance, budget=allowance.budget[region], scale=scale, why=_unsaid, own=None)
                where = ", ".join(f"{each.start}:{each.stop}" for each in region)
                entry = compare(who, name, piece.values, part, some, dtype, f"{law} [{where}]")
                if entry.worst_index is not None:
                    index = tuple(i + start for i, start in zip(entry.worst_index, piece.start, strict=True))
                    entry = replace(entry, worst_index=index)
            found.append(_Judged(rank, name, piece, entry))
    return found


def _unsaid(_: Any) -> str:
    return "in this piece, rounding may be as large"


def _named(
    truths: Truths,
    held: Holding,
    found: Sequence[_Judged],
    rights: Mapping[int, tuple[Floats, Floats]],
    mistakes: Mistakes,
    *,
    alike: bool,
    before: Holding | None = None,
    guilty: Mapping[str, str] | None = None,
) -> list[_Judged]:
    """Return the same with the causes that are mistakes between ranks."""
    wrong = {each.rank for each in found if each.wrong}
    if not wrong:
        return list(found)
    numbers = {rank: held.numbers(rank, truths.names) for rank in (range(len(held.ranks)) if alike else sorted(wrong))}
    words = causes(numbers, rights, mistakes, truths.all, alike=alike)
    if before is not None and guilty:
        words = _faithful(truths, before, numbers, rights, guilty, words, alike)
    if before is not None and not wrong <= set(words):
        words = causes(numbers, rights, partial(_of_what_was, mistakes), _had(truths, before), alike=alike) | words
    of_parts: dict[tuple[int, str], str] = {}
    for name in dict.fromkeys(each.name for each in found if each.wrong):
        some = {each.rank for each in found if each.wrong and each.name == name} - set(words)
        if some:
            among = truths.places[name]
            asked = numbers if alike else {rank: numbers[rank] for rank in sorted(some)}
            more = partial(_of_one, truths, among.stop - among.start, mistakes)
            said = causes(asked, rights, more, truths.all, among=among, alike=alike)
            of_parts |= {(rank, name): each for rank, each in said.items()}
    return [
        each.because(words.get(each.rank) or of_parts.get((each.rank, each.name), "")) if each.wrong else each
        for each in found
    ]


def _of_one(truths: Truths, elements: int, mistakes: Mistakes, rank: int) -> Iterable[Mistake]:
    """Yield what may be wrong with one parameter alone, too."""
    yield from mistakes(rank)
    ranks = truths.plan.ranks
    if elements != ranks:
        words = f"divided by the {elements} elements, where the {ranks} ranks belong"
        yield Mistake(truths.plan.whole(ranks / elements), words)


def _had(truths: Truths, before: Holding) -> Stack:
    """Return what the ranks had before the reduction, exactly, in place of what is true of it."""
    ranks = range(len(before.ranks))
    numbers = np.stack([before.numbers(rank, truths.names) for rank in ranks])
    return Stack([(NOW, rank) for rank in ranks], numbers, np.zeros(numbers.shape), truths.dtype, truths.additions)


def _faithful(
    truths: Truths,
    before: Holding,
    numbers: Mapping[int, Floats],
    rights: Mapping[int, tuple[Floats, Floats]],
    guilty: Mapping[str, str],
    known: Mapping[int, str],
    alike: bool,
) -> dict[int, str]:
    """Add to the causes that the reduction is right where it is, and who gave something wrong to it."""
    who = "all ranks" if len(guilty) == len(before.ranks) > 1 else " and ".join(guilty)
    words = f"the reduction is right, and what {who} gave to it is not"
    found = causes(numbers, rights, lambda _: [Mistake(truths.plan.whole(), words)], _had(truths, before), alike=alike)
    why = "; ".join(dict.fromkeys(guilty.values()))
    said = {rank: f"{known[rank]}; {each}" if rank in known else f"{each}: {why}" for rank, each in found.items()}
    return {**known, **said}


def _guilty(own: Sequence[Entry]) -> dict[str, str]:
    """Name the ranks whose own gradients are wrong, and why."""
    return {entry.implementation: entry.cause for entry in own if entry.verdict == "wrong"}


def _of_what_was(mistakes: Mistakes, rank: int) -> Iterable[Mistake]:
    yield from (each._replace(words=f"of what the ranks gave: {each.words}") for each in mistakes(rank))


def _otherwise(
    named: Sequence[_Judged], of_rank: Callable[[int], tuple[Referee, float]], hint: str = ""
) -> list[Entry]:
    """Return the entries; what is wrong for no reason between ranks, with what is wrong with the gradient itself."""
    entries = []
    for rank, pieces in groupby(named, lambda each: each.rank):
        held = list(pieces)
        if all(each.entry.cause or not each.wrong for each in held):
            entries += [each.entry for each in held]
            continue
        referee, factor = of_rank(rank)
        evidence = {f"{i}": _evidence(each, referee, factor) for i, each in enumerate(held)}
        whole = sum(each.piece.values.size for each in held) == sum(map(np.size, referee.params.values()))
        common = cause_of_all(evidence) if whole else ""
        for each, known in zip(held, evidence.values(), strict=True):
            entry = each.entry
            if each.wrong and not entry.cause:
                said = cause_of(known)
                said = common if common and said.startswith(VAGUE) else said
                entry = replace(entry, cause=f"no mistake between ranks explains it{hint}; {said}")
            entries.append(entry)
    return entries


def _evidence(each: _Judged, referee: Referee, factor: float) -> Evidence:
    """Return all that is known of what a rank holds of an array."""
    region, name = each.piece.region, each.name
    rows = InFloats(referee).rows.get(name)
    truth = referee.truths[name].mid
    return Evidence(
        actual=np.asarray(each.piece.values, dtype=np.float64) / factor,
        truth=truth[region],
        budget=referee.either_allowance()[name].budget[region],
        dtype=referee.dtype,
        n=len(referee.features),
        parameter=referee.params[name].astype(np.float64)[region],
        per_sample=None if rows is None else rows[(slice(None), *region)],
        reduction=referee.reduction,
        weights=None if referee.weights is None else referee.weights.astype(np.float64),
        scale=float(np.max(np.abs(truth), initial=0.0)),
        name=name,
    )
