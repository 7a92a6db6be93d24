"""What a correct program may be off by: at worst, which is proven, or where that shows too little, as sampled.

    B_proven     the worst case (`budget`)
    B_sampled    K deviations of rounding (`sampling`)
    B            B_proven where that leaves `ENOUGH` digits, else the smaller of the two

An element whose terms all but cancel by chance is measured by its terms (`size_of_terms`), where draws show them. At a
kink nothing is sampled: draws see the rounding of the side that they are on, and a program may be on any.

What costs more is computed only where it is needed: the scale beyond |truth| where B_proven exceeds that share of it,
and the draws where it exceeds that share of the scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.sampled import root_mean_square
from gdcompare.backend import unit_roundoff
from gdcompare.referee.enclosure import Enclosed
from gdcompare.referee.sampling import allowance_of, deviation_of, typical_share
from gdcompare.referee.verdict import LOSS, NOTHING, RESOLUTION, Allowance, Floats

BY_HAND = 100.0
"""A derivation may allow itself so many times what the differentiated loss is: it cannot buy a pass by cancelling.

The library's derivations allow themselves at most 1.5 times as much (Gaussian mixtures), and one that loses two digits
by its own cancelling has lost digits that the loss keeps.
"""

ENOUGH: Mapping[str, float] = {"float32": 2.0**-13, "float64": 2.0**-36}
"""A worst case of no more than this share of the scale, 3 and 10 digits, needs no second evidence."""

AT_ONCE = 2.0
"""What comes back through an operation in half precision is rounded once here, and by a framework at each operation of
its slope, as g + g y and 1 - y of tanh: the worst case of a derivative is so many times as much; that of a second one,
and what is sampled of it, that squared. Without it a right gradient took up to 1.14 of its allowance, a Hessian 1.5.
"""

SMALL: Mapping[str, float] = {
    dtype: float(np.finfo(dtype).tiny) / unit_roundoff(dtype) for dtype in ("float32", "float64")
}
"""Below, nothing is sampled: of what it is the product, another order may be flushed to 0 on the way."""

Why = Callable[[str, NDArray[np.bool_]], str]


def allowances(
    truths: Mapping[str, Enclosed],
    budgets: Mapping[str, Floats],
    magnitudes: Callable[[], Mapping[str, Floats]],
    draws: Callable[[], Mapping[str, Floats]] | None,
    why: Why,
    dtype: str,
    resolution: float = RESOLUTION,
    order: int = 1,
) -> dict[str, Allowance]:
    """Return what is allowed of each array; `magnitudes` and `draws` are asked for if need be, draws=None never.

    `resolution` is that of the program, `order` the derivative's: see `AT_ONCE`.
    """
    enough, wider = ENOUGH[dtype], AT_ONCE**order if resolution > RESOLUTION else 1.0
    budgets = {name: each if name == LOSS else wider * each for name, each in budgets.items()}
    own = {name: _size(truths[name]) for name in budgets}
    found = {name: Allowance(budget, own[name], resolution=resolution) for name, budget in budgets.items()}
    if not any(_wanting(each, own[name], enough).any() for name, each in found.items()):
        return found
    sizes = magnitudes()
    largest = max(map(_mean_size, sizes.values()), default=0.0)
    for name, proven in found.items():
        scale = _scale(truths[name], own[name], sizes.get(name), largest)
        found[name] = replace(proven, scale=scale, why=partial(why, name))
    found = _beside_the_others(found)
    if draws is None or not any(_wanting(each, each.scale, enough).any() for each in found.values()):
        return found
    drawn, small = draws(), SMALL[dtype]
    return {
        name: _with_draws(each, truths[name], drawn[name], enough * own[name], small, wider if order > 1 else 1.0)
        for name, each in found.items()
    }


def allowance_within(truth: Enclosed, budget: Floats, magnitude: Callable[[], Floats]) -> Allowance:
    """Return a budget as an allowance; the mean magnitude is asked for if the truth is no scale for it."""
    allowance = Allowance(budget, _size(truth))
    return allowance if allowance.resolved.all() else replace(allowance, scale=scale_of(_size(truth), magnitude()))


def scale_of(size: Floats, magnitude: Floats | None) -> Floats:
    """Return the larger of |truth| and the mean magnitude.

    What is 0 in every row has no size of its own: the root mean square of its array stands for it.
    """
    scale = size if magnitude is None else np.fmax(size, magnitude)
    finite = scale[np.isfinite(scale)]
    return np.asarray(np.where(scale == 0, root_mean_square(finite) if finite.size else 0.0, scale))


def _mean_size(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(root_mean_square(finite)) if finite.size else 0.0


def _beside_the_others(found: Mapping[str, Allowance]) -> dict[str, Allowance]:
    """Measure an array that is 0 everywhere, as by a bias before batch normalisation, by the smallest of the others."""
    sizes = {name: 0.0 if each.scale is None else _mean_size(each.scale) for name, each in found.items()}
    least = min((size for name, size in sizes.items() if size and name != LOSS), default=0.0)
    return {
        name: each if sizes[name] else replace(each, scale=np.full(each.budget.shape, least))
        for name, each in found.items()
    }


def _scale(truth: Enclosed, size: Floats, magnitude: Floats | None, largest: float) -> Floats:
    """Return the scale; what may be 0, and in every row is no more than rounding beside the largest, is 0 there.

    So it is where terms cancel, as in the gradient by the bias of an attention's keys.
    """
    if magnitude is not None:
        small = (magnitude <= 2.0**-44 * largest) & ~truth.kinks
        if small.any():
            nothing = [here and ball.contains(0) for here, ball in zip(small.ravel(), truth.balls.ravel(), strict=True)]
            size, magnitude = (np.where(np.reshape(nothing, small.shape), 0.0, each) for each in (size, magnitude))
    return scale_of(size, magnitude)


def _wanting(allowance: Allowance, scale: Floats | None, enough: float) -> NDArray[np.bool_]:
    """Say where the worst case leaves too few digits, also beside what is too large for a float."""
    assert scale is not None
    enough_left = (allowance.budget <= enough * scale) & np.isfinite(allowance.budget)
    return np.asarray(~(enough_left | (allowance.budget <= NOTHING)))


def _with_draws(
    proven: Allowance, truth: Enclosed, draws: Floats, enough: Floats, small: float, wider: float
) -> Allowance:
    """Return the sampled allowance where the proven one is not enough, and larger, and the scale is not too small."""
    assert proven.scale is not None

    def distance(drawn: Floats) -> Floats:
        return np.asarray(np.maximum(np.abs(drawn - truth.mid) - np.where(truth.kinks, truth.rad, 0.0), 0.0))

    with np.errstate(all="ignore"):
        deviation = deviation_of(draws, distance)
        sampled = wider * allowance_of(deviation, _size(truth))
        better = (proven.budget > np.maximum(enough, NOTHING)) & (sampled < proven.budget) & (proven.scale >= small)
        better &= ~truth.kinks
        if not better.any():
            return proven
        scale = np.fmax(proven.scale, size_of_terms(_size(truth), deviation))
    return replace(proven, budget=np.where(better, sampled, proven.budget), scale=scale, grade="sampled")


def sampled_where_blind(proven: Allowance, truth: Enclosed, sampled: Floats, scale: Floats, dtype: str) -> Allowance:
    """Return an allowance whose budget is that which was sampled where the proven one is blind, and larger.

    It is measured by the scale of what was sampled, where that is larger than its own.
    """
    own = np.zeros(sampled.shape) if proven.scale is None else proven.scale
    if not _wanting(proven, own, ENOUGH[dtype]).any():
        return proven
    enough = np.maximum(ENOUGH[dtype] * _size(truth), NOTHING)
    better = (proven.budget > enough) & (sampled < proven.budget) & (own >= SMALL[dtype]) & ~truth.kinks
    if not better.any():
        return proven
    budget = np.where(better, sampled, proven.budget)
    return replace(proven, budget=budget, scale=np.fmax(own, np.where(better, scale, 0.0)), grade="sampled")


def size_of_terms(size: Floats, deviation: Floats) -> Floats:
    """Return how large the terms are whose sum each element is, by what they round to beside their array.

        s_i = min(d_i / c, root mean square of |t|),     c the median of d_j / |t_j|

    Of thousands of elements a few are small by chance, as sums over positions and units are. Rounding, d_i, is then
    what it is in the others, and large beside |t_i|; no more is to be seen of such an element than that it is small.
    One that is small since its feature is has d_i small likewise, and s_i = |t_i|. No element counts for more than its
    array, so that one without siblings, or with equally lost ones, gains nothing.

    >>> size_of_terms(np.array([1.0, 2.0, 1e-6, 1e-6]), np.array([1e-7, 2e-7, 1e-7, 1e-13]))
    array([1.00000000e+00, 1.11803399e+00, 1.00000000e+00, 1.00000000e-06])
    """
    known, typical = typical_share(deviation, size)
    if not known.any():
        return size
    terms = np.minimum(deviation / typical, root_mean_square(size[known]))
    return np.asarray(np.where(known, terms, size))


def bounded(
    by_hand: Mapping[str, Allowance],
    differentiated: Mapping[str, Allowance],
    scales: Callable[[], Mapping[str, Floats]],
    dtype: str,
    underflows: Callable[[], bool] = lambda: False,
) -> dict[str, Allowance]:
    """Return the derivation's allowances, no more than `BY_HAND` times those of the differentiated loss.

    A derivation that overflows, as where it adds up before it divides by n, has no allowance, and is not judged. One
    that underflows on the way has its own: what vanishes there may be large again, and is no mistake.
    """
    found = dict(by_hand)
    for name, mine in by_hand.items():
        theirs = differentiated[name].budget
        if (alone := np.isfinite(theirs) & ~np.isfinite(mine.budget)).any():
            mine = found[name] = replace(mine, why=partial(_derived_without_bound, alone, mine.why))
        if (mine.budget <= BY_HAND * theirs).all() or not np.isfinite(theirs).any():
            continue
        rounding = unit_roundoff(dtype) * np.asarray(scales().get(name, 0.0))  # theirs may be 0, and nothing rounded
        bounds = np.isfinite(theirs) & np.isfinite(mine.budget)
        limit = np.where(bounds, BY_HAND * np.fmax(theirs, rounding), np.inf)
        if (mine.budget > limit).any() and not underflows():
            found[name] = replace(mine, budget=np.minimum(mine.budget, limit), own=mine.budget)
    return found


def _derived_without_bound(alone: NDArray[np.bool_], why: Callable[[NDArray[np.bool_]], str], blind: Any) -> str:
    """Say why there is no bound, where that of the differentiated loss is finite or is not."""
    if (blind & ~alone).any():
        return why(blind & ~alone)
    return "the derivation by hand may overflow, or divide by 0, where the differentiated loss does neither"


def either(one: Mapping[str, Allowance], other: Mapping[str, Allowance]) -> dict[str, Allowance]:
    """Return the larger of each two: nobody knows how somebody's own function computes."""
    found = {}
    for name, mine in one.items():
        theirs = other[name]
        larger = mine if mine.grade == "sampled" else theirs
        scale = mine.scale if mine.scale is None or theirs.scale is None else np.fmax(mine.scale, theirs.scale)
        budget = np.maximum(mine.budget, theirs.budget)
        found[name] = replace(larger, budget=budget, scale=scale, own=mine.own)
    return found


def tolerated(truths: Mapping[str, Enclosed], atol: float, rtol: float) -> dict[str, Allowance]:
    """Return what somebody allows, instead: `atol + rtol |truth|`."""
    for name, value in (("atol", atol), ("rtol", rtol)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number, 0 or above, not {value!r}")
    return {
        name: Allowance(atol + rtol * np.abs(truth.mid), _size(truth), tolerance=True) for name, truth in truths.items()
    }


def _size(truth: Enclosed) -> Floats:
    """Return |truth|, and at a kink the largest of the set."""
    return np.asarray(np.abs(truth.mid) + np.where(truth.kinks, truth.rad, 0.0))
