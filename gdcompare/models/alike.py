"""Whether two models are one function: their true numbers beside each other, ball by ball.

same          |a - b| <= 2^-19 of what rounding may do at the dtype, or 2^-60 of the largest of the array
constants     the same, once constants that are one number in two roundings are the same number; or apart by no more
              than what rounding the other constants may do
different     some |a - b| is more, wherever in their balls a and b lie
unknown       neither: some ball is too wide
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, final

import numpy as np
from flint import ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import ZERO, Balls, boxed, elementwise, upwards
from gdcompare.arithmetic.program import Program
from gdcompare.backend import Precision
from gdcompare.models.constants import Pairs, explained, paired, said_of_pairs, with_constants
from gdcompare.referee.enclosed import middles

Floats: TypeAlias = NDArray[np.float64]
Kind: TypeAlias = Literal["same", "constants", "different", "unknown"]


class Known(NamedTuple):
    """An array in balls, in the source's shape."""

    balls: Balls
    kinks: NDArray[np.bool_]
    """Where the ball holds a set, of one-sided derivatives."""
    budget: Floats
    """What rounding may do to it in a program at the dtype."""
    unsure: bool = False
    """Whether not all members of these sets are known."""


class Apart(NamedTuple):
    """How far two arrays of true numbers are apart."""

    kind: Kind
    worst: tuple[int, ...]
    """The element that is farthest apart, beside what was allowed."""
    most: float
    """An upper bound of the largest difference, as a share of the array's largest magnitude."""
    off: float = 0.0
    """An upper bound of the difference of the worst element."""
    allowed: Floats = np.zeros(())
    """How far apart elements may be and still be the same."""
    beyond: bool = False
    """Whether some are farther apart than what rounding may do at the dtype."""


WITHIN = 2.0**-19
"""Truths that are this share of a budget apart are known to be one to within what any program could tell."""
PRECISION = 256
SAME = 2.0**-60
"""As are those that are this share of the largest of their array apart."""


def apart(one: Known, other: Known, more: Floats | float = 0.0) -> Apart:
    """Say whether two arrays hold the same true numbers; `more` is what else is allowed.

    >>> from gdcompare.arithmetic.balls import as_balls
    >>> a, b = (Known(as_balls([1.0, x]), np.zeros(2, bool), np.full(2, 1e-16)) for x in (2.0, 2.0 + 1e-15))
    >>> apart(a, a).kind, apart(a, b).kind, apart(a, b).worst
    ('same', 'different', (1,))
    """
    with np.errstate(all="ignore"), ctx.workprec(PRECISION):
        gap = one.balls - other.balls
        lower = _floats(lambda ball: float(ball.abs_lower()) if ball.is_finite() else 0.0, gap)
        upper = _floats(lambda ball: upwards(ball.abs_upper()) if ball.is_finite() else math.inf, gap)
        size = np.maximum(np.abs(middles(one.balls)), np.abs(middles(other.balls)))
        largest = float(np.max(np.where(np.isfinite(size), size, 0.0), initial=0.0))
        budget = np.minimum(one.budget, other.budget)
        budget = np.where(np.isfinite(budget), budget, 0.0)
        allowed = np.maximum(WITHIN * budget, SAME * largest) + 1e-320 + more
        bent = one.kinks | other.kinks
        upper = np.where(bent & (lower == 0), 0.0, upper)
        different = (lower > allowed) & ~(bent & (one.unsure or other.unsure))
        shares = np.where(upper <= allowed, upper / allowed, np.where(different, lower / allowed, 1.0))
    kind: Kind = "different" if different.any() else "same" if (upper <= allowed).all() else "unknown"
    worst = (
        np.unravel_index(int(np.argmax(np.where(np.isnan(shares), np.inf, shares))), shares.shape)
        if shares.size
        else ()
    )
    most = float(np.max(upper, initial=0.0))
    index = tuple(int(i) for i in worst)
    off = float(upper[index]) if upper.size else 0.0
    beyond = bool((different & (lower > budget)).any())
    return Apart(kind, index, most / largest if largest else most, off, allowed, beyond)


def as_balls(values: Any) -> Balls:
    """Return an array whose elements nobody loads from, plain zeros, as balls like the others."""
    return boxed(elementwise(lambda each: ZERO if isinstance(each, int) else each)(np.asarray(values, dtype=object)))


def _floats(function: Any, balls: Balls) -> Floats:
    return np.asarray(elementwise(function)(balls), dtype=np.float64)


@final
@dataclass(frozen=True, eq=False)
class Form:
    """A model as a function of its program: what is true of that, and what it is in floats."""

    name: str
    program: Program
    true: Callable[[Program], Mapping[str, Known]]
    in_floats: Callable[[Program], Mapping[str, Floats]]


@final
@dataclass(frozen=True, eq=False)
class Alike:
    """What is found of the arrays of two models."""

    arrays: dict[str, Apart]
    """As they are, but of kind "constants" where these explain the difference."""
    pairs: Pairs = field(default_factory=list)
    """Constants of the other that were taken for those of the source."""
    other: str = ""

    @property
    def kind(self) -> Kind:
        """The worst of all arrays."""
        kinds = {each.kind for each in self.arrays.values()}
        return next((kind for kind in ("different", "unknown", "constants") if kind in kinds), "same")

    @property
    def beyond(self) -> bool:
        """Whether constants that are rounded otherwise make a difference that no rounding at the dtype makes."""
        return self.kind == "constants" and any(each.beyond for each in self.arrays.values())

    @property
    def most(self) -> float:
        """An upper bound of the largest difference, as a share of its array's largest magnitude."""
        return max((each.most for each in self.arrays.values()), default=0.0)

    def said(self) -> str:
        """Say how far apart they are, or to what they are the same.

        >>> Alike({"w": Apart("same", (), 3e-30)}).said()
        'the truths are within 3e-30 of each other'
        """
        far = f"the truths are within {self.most:.1g} of each other"
        if self.kind != "constants":
            return far
        how = said_of_pairs(self.pairs, self.other) if self.pairs else "as the rounding of constants explains"
        return f"constants differ ({how}): {far}"


def alike(one: Form, other: Form, dtype: Precision) -> Alike:
    """Compare what is true of two models, and what their constants explain of the difference."""
    ours, theirs = one.true(one.program), other.true(other.program)
    names = [name for name in ours if name in theirs]
    found = {name: apart(ours[name], theirs[name]) for name in names}
    if all(each.kind == "same" for each in found.values()):
        return Alike(found, other=other.name)
    pairs, left, alone = paired(one.program, other.program)
    program = other.program
    left_over = found
    if pairs:
        program = with_constants(other.program, pairs)
        theirs = other.true(program)
        left_over = {name: apart(ours[name], theirs[name]) for name in names}
    if any(each.kind == "different" for each in left_over.values()) and (left or alone):
        mine, its = (
            explained(one.program, left, one.in_floats, dtype),
            explained(program, alone, other.in_floats, dtype),
        )
        left_over = {name: apart(ours[name], theirs[name], mine[name] + its[name]) for name in names}
    return Alike({name: _explained(found[name], left_over[name]) for name in names}, pairs, other.name)


def _explained(as_it_is: Apart, with_constants: Apart) -> Apart:
    if as_it_is.kind == "same":
        return as_it_is
    return as_it_is._replace(kind="constants" if with_constants.kind == "same" else with_constants.kind)
