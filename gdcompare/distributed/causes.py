"""Which mistake explains what the ranks hold: decided by bounds, element by element, over all parameters together.

A mistake fits the numbers x where its gradient H, known with its bound B_H, explains every element and is no right one:

    |x - H| <= B_H  everywhere,  and  |H - G| > B_H + B_G  somewhere

so that no program that only rounds is both. What fits all ranks that are wrong has the word before what fits one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.distributed.known import Stack
from gdcompare.distributed.mistakes import Mistake
from gdcompare.distributed.shards import Floats

Mistakes: TypeAlias = Callable[[int], Iterable[Mistake]]

_CHANCE = 1e-3
"""Words are left out if that many mistakes would fit by chance as often as this."""

_MOST_NAMED, _FIRST = 3, 8


def fitting(numbers: Floats, right: tuple[Floats, Floats], mistakes: Iterable[Mistake], stack: Stack) -> list[str]:
    """Return the words of the mistakes that fit; those whose terms the stack has not are not looked at.

    `numbers` (P,) hold NaN where nothing is known; `right` is the true gradient and its bound, (P,) each.
    """
    told = _telling(numbers, right)
    few = stack.at(told)
    found: dict[str, float] = {}
    tried = 0
    for mistake in mistakes:
        if not stack.places.keys() >= mistake.terms.keys():
            continue
        tried += 1
        if mistake.words in found or not _near(numbers[told], few, mistake) or not _near(numbers, stack, mistake):
            continue
        with np.errstate(all="ignore"):
            made, allowed = stack.combined(mistake.terms)
            there = ~np.isnan(numbers) & np.isfinite(allowed)
            apart = there & (np.abs(made - right[0]) > allowed + right[1])
            shares = np.nan_to_num((allowed / np.abs(numbers - right[0]))[there], nan=1.0)
        if apart.any():
            found[mistake.words] = float(np.exp(np.sum(np.log(np.clip(shares, 1e-300, 1.0)))))
    return [words for words, chance in found.items() if chance * tried < _CHANCE]


def _near(numbers: Floats, stack: Stack, mistake: Mistake) -> bool:
    """Say whether a mistake explains all of these numbers that it says something of."""
    with np.errstate(all="ignore"):
        made, allowed = stack.combined(mistake.terms)
        said = ~np.isnan(numbers) & np.isfinite(allowed) & np.isfinite(made)
        return bool((np.abs(numbers - made)[said] <= allowed[said]).all())


def _telling(numbers: Floats, right: tuple[Floats, Floats]) -> NDArray[np.intp]:
    """Return where the numbers are farthest off: most mistakes do not explain these, and are done with."""
    with np.errstate(all="ignore"):
        far = np.nan_to_num(np.abs(numbers - right[0]) / right[1], nan=0.0)
    return np.argsort(far)[-_FIRST:]


def causes(
    numbers: Mapping[int, Floats],
    rights: Mapping[int, tuple[Floats, Floats]],
    mistakes: Mistakes,
    stack: Stack,
    *,
    among: slice = slice(None),
    alike: bool = False,
) -> dict[int, str]:
    """Return the causes of what is wrong on these ranks; none of a rank that nothing explains.

    `among` are the elements that are looked at: those of a parameter, or all. Where the ranks have `alike` numbers,
    what does not explain those of all of them explains none.
    """
    few = stack.at(among)
    found: dict[int, list[str]] = {}
    common: list[str] = []
    for rank, each in numbers.items():
        asked: Iterable[Mistake] = mistakes(rank)
        if alike and found:  # only what explains the ranks before is of interest
            asked = (mistake for mistake in asked if mistake.words in common)
        right = rights[rank][0][among], rights[rank][1][among]
        found[rank] = fitting(each[among], right, asked, few)
        common = [words for words in next(iter(found.values())) if all(words in others for others in found.values())]
    if found and common:
        return dict.fromkeys(found, _joined(common))
    return {} if alike else {rank: _joined(words) for rank, words in found.items() if words}


def _joined(words: Sequence[str]) -> str:
    return "; or ".join(words[:_MOST_NAMED])
