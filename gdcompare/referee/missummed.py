"""Why a sum over blocks is wrong while each block is right: what was left out, taken twice, or divided by what.

With S the sums over all rows, S_k over those of block k, of which there are K, of R rows each but for the last, W and
W_k the sums of the weights, or numbers of rows, and g_i, w_i those of row i, a mean G may have become

    (S - S_k) / W, (S - S_k) / (W - W_k)      a block left out; or with + for -, taken twice; likewise of several blocks
                                              in a row, as one worker may have, and of single rows
    1/K sum S_k / W_k                         the mean of the blocks' means, whatever they weigh: a shorter one too much
    S / (K R)                                 the last block counted as a full one
    S / K,  S / (K W)                         divided by the number of blocks
    what the weights 1 would give

A mistake fits if it leaves no element more than a few budgets off, far less than there was to explain, and if so few of
its kind would by chance. Blocks are read once more for it, in plain floats; if that finds nothing, once more by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.numbers import Floats as FloatNumbers
from gdcompare.arithmetic.tape import per_sample_gradients, value_and_gradient
from gdcompare.case import Case
from gdcompare.data.blocks import Blocks
from gdcompare.problem import Dataset
from gdcompare.referee.evidence import CLEAR
from gdcompare.referee.verdict import Floats

_FEW = 8
_CHANCE = 1e-3
_MOST_NAMED = 3
_MOST_NUMBERS, _MOST_TRIED = 2**21, 50
_SINGLE = 2.0**-24


@final
@dataclass(frozen=True, eq=False)
class Wrong:
    """What is known of a wrong sum, or mean, over all rows: numbers in a row, gradients only."""

    actual: Floats
    truth: Floats
    budget: Floats
    magnitude: Floats
    """The sum, or mean, of the absolute gradients of the rows."""
    weight: float
    """Of all rows."""
    mean: bool = True

    def fits(self, found: Floats, members: int = 1) -> NDArray[np.bool_]:
        """Say which of these gradients, (m, p), explain what is wrong: all of it, and not by chance."""
        size = np.maximum(np.maximum(np.abs(found), np.abs(self.truth)), self.magnitude)
        slack = _FEW * (self.budget + 2.0**-53 * size) + np.finfo(np.float64).tiny
        error, left = np.abs(self.actual - self.truth), np.abs(self.actual - found)
        chance = np.exp(np.sum(np.log(np.minimum(1.0, slack / np.maximum(error, slack))), axis=-1))
        clear = CLEAR * np.max(left / slack, axis=-1) <= np.max(error / slack, axis=-1)
        apart = (np.abs(found - self.truth) > self.budget).any(axis=-1)
        return np.asarray((left <= slack).all(axis=-1) & clear & apart & (members * chance < _CHANCE))


@np.errstate(all="ignore")
def why_missummed(wrong: Wrong, case: Case, blocks: Blocks) -> str:
    """Return the mistakes that explain a sum whose blocks are right, or what is to be said of its size."""
    named = list(_of_blocks(wrong, case, blocks)) or list(_of_rows(wrong, case, blocks))
    if named:
        return "; or ".join(list(dict.fromkeys(named))[:_MOST_NAMED])
    share = float(np.max(np.abs(wrong.actual - wrong.truth) / np.maximum(wrong.magnitude, np.abs(wrong.truth))))
    if 2.0**-2 * _SINGLE < share <= 8 * _SINGLE * np.sqrt(len(blocks)) and case.dtype == "float64":
        return f"off by {share:.1g} of what adds up, as sums in float32 are"
    return ""


def _of_blocks(wrong: Wrong, case: Case, blocks: Blocks) -> Iterator[str]:
    """Yield mistakes about blocks, and divisors."""
    mean, weight, total = wrong.mean, wrong.weight, np.zeros(len(wrong.truth))
    means, plain = total.copy(), total.copy()
    every: list[tuple[Floats, float]] = []
    sums = wrong.truth * weight if mean else wrong.truth
    for index in range(blocks.count):
        block = blocks.block(index)
        theirs, own = _sums(case, block, block.weights), _weight(block)
        means += theirs / own if own else 0.0
        if blocks.count * len(total) <= _MOST_NUMBERS:
            every.append((theirs, own))
        if blocks.weighted:
            plain += _sums(case, block, None)
        begin, end = blocks.bounds(index)
        place = f"block {index} (rows {begin} to {end - 1})"
        yield from _parts(wrong, sums, theirs[None], np.array([own]), mean, blocks.count, lambda _, at=place: at)
    if every:
        yield from _windows(wrong, sums, np.stack([each for each, _ in every]), np.array([w for _, w in every]), blocks)
    count, full, n = blocks.count, blocks.count * blocks.rows, len(blocks)
    others = []
    if mean:
        others = [
            (means / count, f"the mean of the means of {count} blocks, whatever they weigh"),
            (means * blocks.rows / weight, f"each block's mean counts for {blocks.rows} rows, also the last"),
            (sums / full, f"divided by {count} x {blocks.rows} rows: the last block has fewer"),
            (sums, "a sum where a mean belongs"),
            (sums / count, f"divided by the {count} blocks, where the rows belong"),
            (sums / weight / count, f"divided by the {count} blocks once more"),
            (sums / weight**2, "divided by the rows twice"),
        ]
        if blocks.weighted:
            others.append((sums / n, "divided by n, where the sum of the weights belongs"))
    else:
        others = [(sums / weight, "a mean where a sum belongs"), (sums / count, f"divided by the {count} blocks")]
    if blocks.weighted:
        others.append((plain / n if mean else plain, "the weights are ignored"))
    yield from (words for found, words in others if wrong.fits(found[None])[0])


def _windows(wrong: Wrong, sums: Floats, parts: Floats, weights: Floats, blocks: Blocks) -> Iterator[str]:
    """Yield which blocks in a row are left out, or taken twice.

    With x the wrong mean, and D and V the sums and weights of those blocks, x W = S -+ D if the divisor is right, and
    x (W -+ V) = S -+ D if it is wrong, too: D, or D - x V, is +-(S - x W). Running sums tell where.
    """
    count = len(parts)
    mean = wrong.weight if wrong.mean else 1.0
    place = int(np.argmax(np.abs(wrong.actual - wrong.truth) / (wrong.budget + 2.0**-53 * wrong.magnitude)))
    due = (sums - wrong.actual * mean)[place]
    room = mean * _FEW * (wrong.budget + 2.0**-50 * wrong.magnitude)[place]
    for divided, words in ((False, ""), (True, ", in the divisor, too")) if wrong.mean else ((False, ""),):
        each = parts[:, place] - (wrong.actual[place] * weights if divided else 0.0)
        running = np.concatenate([[0.0], np.cumsum(each)])
        order = np.argsort(running)
        for sign, what in ((-1, "are left out"), (1, "are taken twice")):
            first = np.searchsorted(running[order], running - sign * due - room)
            last = np.searchsorted(running[order], running - sign * due + room)
            starts = map(int, np.flatnonzero(first < last))
            pairs = ((start, int(stop)) for start in starts for stop in order[first[start] : last[start]])
            for start, stop in islice((pair for pair in pairs if 1 < pair[1] - pair[0] < count), _MOST_TRIED):
                found = sums + sign * parts[start:stop].sum(axis=0)
                weight = mean + sign * weights[start:stop].sum() if divided else mean
                if wrong.fits((found / weight)[None], count**2)[0]:
                    rows = f"rows {blocks.bounds(start)[0]} to {blocks.bounds(stop - 1)[1] - 1}"
                    yield f"blocks {start} to {stop - 1} ({rows}) {what}{words}"


def _of_rows(wrong: Wrong, case: Case, blocks: Blocks) -> Iterator[str]:
    """Yield mistakes about single rows."""
    mean, sums = wrong.mean, wrong.truth * (wrong.weight if wrong.mean else 1.0)
    for index in range(blocks.count):
        block, (begin, _) = blocks.block(index), blocks.bounds(index)
        arguments = *_inputs(case, block), _own(case, block)
        found = per_sample_gradients(case.problem, FloatNumbers(), *arguments, "sum")
        rows = np.concatenate([np.reshape(found[name], (len(block), -1)) for name in case.params], axis=1)
        weights = np.ones(len(block)) if block.weights is None else block.weights
        yield from _parts(wrong, sums, rows, weights, mean, len(blocks), lambda i, at=begin: f"row {at + i}")


def _parts(
    wrong: Wrong, sums: Floats, parts: Floats, weights: Floats, mean: bool, members: int, words: Any
) -> Iterator[str]:
    """Yield which of these parts, (m, p), is left out or taken twice."""
    for sign, what in ((-1, "is left out"), (1, "is taken twice")):
        found = sums + sign * parts
        if not mean:
            yield from (f"{words(int(i))} {what}" for i in np.flatnonzero(wrong.fits(found, members)))
            continue
        kept = found / wrong.weight
        yield from (f"{words(int(i))} {what}" for i in np.flatnonzero(wrong.fits(kept, members)))
        other = found / (wrong.weight + sign * weights)[:, None]
        yield from (f"{words(int(i))} {what}, in the divisor, too" for i in np.flatnonzero(wrong.fits(other, members)))


def _inputs(case: Case, block: Dataset) -> tuple[Any, Any, Any]:
    """Return the inputs as the dtype has them, in float64."""

    def held(values: NDArray[Any]) -> Floats:
        return values.astype(case.dtype).astype(np.float64)

    return {name: held(each) for name, each in case.params.items()}, held(block.features), held(block.targets)


def _own(case: Case, block: Dataset) -> Floats | None:
    return None if block.weights is None else block.weights.astype(case.dtype).astype(np.float64)


def _weight(block: Dataset) -> float:
    return float(len(block)) if block.weights is None else float(np.sum(block.weights))


def _sums(case: Case, block: Dataset, weights: Floats | None) -> Floats:
    """Return the gradient of the sum over a block's rows, in plain floats."""
    own = None if weights is None else _own(case, block)
    _, gradient = value_and_gradient(case.problem, FloatNumbers(), *_inputs(case, block), own, "sum")
    return np.concatenate([np.ravel(gradient[name]) for name in case.params])
