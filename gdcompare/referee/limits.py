"""Limits from the sides: the truth where a loss bends, where a branch hangs on an equality, where a formula is 0/0.

There the formula at the point says nothing of the derivative, and a tie decided for each operation and element by
itself may say something that is true from no side. So the parameters move, all of them together, to x + t v, for a
generic direction v and t = 2^-256 and less, which the precision follows. There every comparison is decided, what was
0/0 is regular, and the enclosure of the gradient tends to the limit along v as t does to 0:

    one limit along all directions       the function is smooth there, and the truth is a number
    several, where the value has none    the truth is any of them, or between: their convex hull
    the value changes, too               a jump, no kink: any of them, but nothing between sides of different values
    it grows as t shrinks                the derivative has no bound on that side

What is proven is the enclosure at each x + t v, and that what is decided at x is decided alike there. That the limit
lies within four times the last change is not, nor that a handful of directions meet all sides. Whoever has a candidate
outside the hull asks for the sides along the direction that separates it (`towards`): for a convex function it is then
outside for good, because the gradient along v is the one that reaches furthest that way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, TypeAlias, final

import numpy as np
from flint import arb, ctx
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.balls import HALF, ONE, ZERO, BallNumbers, Balls, as_balls, boxed, elementwise
from gdcompare.arithmetic.vocabulary import RELATIONS
from gdcompare.referee.enclosed import SLACK, Enclosed, Floats, Pieces, beside, middles, wide
from gdcompare.referee.ways import Ways

Bools: TypeAlias = NDArray[np.bool_]
Compute: TypeAlias = Callable[[BallNumbers, Mapping[str, Any]], list[Any]]
"""What is computed at given parameters: a list of arrays, the loss first if it is among them."""

NEAR = (256, 1200, 4096)  # t = 2^-256; nearer, where numbers are so small
HERE = 1536  # bits at the point itself: what rounds there is below 2^-1100
ENOUGH = 16  # sides of which none lies beyond a plane: what does is outside
MOST = 20_000  # sides times parameters that are looked at for one gradient
RULES = {"shared alike": HALF, "to the first": ONE, "to the last": ZERO}

SMALL = 2.0**-20  # how much a direction is turned, and a square of it, how much it is made generic

_finite = elementwise(lambda ball: bool(ball.is_finite()))
_overlap = elementwise(lambda a, b: bool(a.overlaps(b)), 2)
_joined = elementwise(lambda a, b: a.union(b) if a.is_finite() and b.is_finite() else b if b.is_finite() else a, 2)


@final
@dataclass(frozen=True, eq=False)
class Side:
    """What the arrays tend to along one direction, NaN where to nothing; where they grow, and where they do neither."""

    limits: list[Balls]
    unbounded: list[Bools]
    unsettled: list[Bools]


@final
class Sides:
    """The limits of some arrays from the sides of a point, along as many directions as anybody has asked for."""

    def __init__(
        self,
        compute: Compute,
        params: Mapping[str, ArrayLike],
        allowed: Sequence[ArrayLike],
        names: Sequence[str],
        *,
        has_loss: bool = False,
        by_row: bool = False,
        directions: Sequence[Mapping[str, ArrayLike]] = (),
    ) -> None:
        """Look along some generic directions, and those given.

        The arrays have these names and allowances; the first may be the loss.
        """
        self._compute, self._allowed, self._names = compute, allowed, names
        self._has_loss, self._by_row = has_loss, by_row
        self._params = {name: np.asarray(value, dtype=np.float64) for name, value in params.items()}
        self._balls = {name: as_balls(value) for name, value in self._params.items()}
        with ctx.workprec(HERE):
            numbers = BallNumbers()
            self._here = [boxed(each) for each in compute(numbers, self._balls)]
        self.kinks, self._decisions = tuple(numbers.kinks), numbers.decisions
        self._sides: list[Side] = []
        self._near = 0
        self._ways = Ways(self._params)
        self.certain = not self.kinks and not any(
            wide(balls, each).any() for balls, each in zip(self._here, allowed, strict=True)
        )
        """Whether more precision was all that it took."""
        if not self.certain:
            for direction in [*directions, *self._ways.generic()]:
                self.look(direction)
                self.look(direction, -1)

    # Looking.

    def look(self, direction: Mapping[str, ArrayLike], sign: int = 1) -> Side | None:
        """Return the limits along a direction, made a little more generic; None if nothing is defined there."""
        noise, size = self._ways.drawn(), _largest(direction)
        if not 0 < size < np.inf:
            return None
        less = _largest(noise) / SMALL**2
        moves = {name: sign * (np.asarray(v) / size + noise[name] / less) for name, v in direction.items()}
        side = self._limits({name: as_balls(v) for name, v in moves.items()})
        if side is None:
            return None
        same = [other for other in self._sides if _alike(side, other)]
        self._sides += [] if same else [side]
        return same[0] if same else side

    def _limits(self, direction: Mapping[str, Balls]) -> Side | None:
        """Return what the arrays tend to, from points near enough; None if they are not defined on that side."""
        while self._near < len(NEAR):
            bits = NEAR[self._near]
            near, nearer = (self._beside(direction, bits + further) for further in (0, 64))
            if near is not None and nearer is not None:
                limits = [boxed(_limit(a, b, bits)) for a, b in zip(near, nearer, strict=True)]
                if not any(wide(balls, each).any() for balls, each in zip(limits, self._allowed, strict=True)):
                    return Side(limits, *([np.zeros(each.shape, dtype=bool) for each in limits] for _ in range(2)))
                if self._near > 0:
                    side = _unsettled(limits, near, nearer, self._beside(direction, bits + 128) or nearer)
                    defined = not self._has_loss or all(_known(each[0]).all() for each in (near, nearer))
                    return side if defined else None
            self._near += 1
        self._near = len(NEAR) - 1
        return None

    def _beside(self, direction: Mapping[str, Balls], bits: int) -> list[Balls] | None:
        """Compute at x + t v, t = 2^-bits; None if something is decided otherwise than at x."""
        precision = 4 * bits + 512
        with ctx.workprec(4 * precision):  # exact
            t = arb((1, -bits))
            moved = {name: boxed(x + direction[name] * t) for name, x in self._balls.items()}
        with ctx.workprec(precision):
            numbers = BallNumbers(lambda _: ONE, beside=True)
            found = [boxed(each) for each in self._compute(numbers, moved)]
            if not all(map(_consistent, self._decisions, numbers.decisions)):
                return None
            if numbers.chosen:  # these tie everywhere: any will do, if all give the same
                last = BallNumbers(lambda _: ZERO, beside=True)
                others = [boxed(each) for each in self._compute(last, moved)]
                found = [boxed(_joined(one, other)) for one, other in zip(found, others, strict=True)]
        return found

    # What is found.

    @property
    def found(self) -> bool:
        """Whether there is any side on which the arrays are defined."""
        return bool(self._sides)

    @property
    def places(self) -> str:
        """Name the operations that are undecided at the point, and their lines."""
        return ", ".join(dict.fromkeys(map(str, self.kinks)))

    def truths(self) -> dict[str, Enclosed]:
        """Return what is true of each array."""
        if self.certain:
            return {name: Enclosed(here, ~_known(here)) for name, here in zip(self._names, self._here, strict=True)}
        valued, first = self._valued(), int(self._has_loss)
        if not self.kinks and not self._sides:
            defined = not self._has_loss or _known(self._here[0]).all()
            each = [here if defined else np.full(here.shape, arb.nan(), dtype=object) for here in self._here]
            nowhere = (np.zeros(here.shape, dtype=bool) for here in each)
            unknown = map(partial(Enclosed, reason=self._reason(valued)), each, nowhere)
            return dict(zip(self._names, unknown, strict=True))
        whole = [each for each in valued if all(_known(x).all() for x in each[0].limits[first:])] or valued
        values = np.array([value for _, value in whole], dtype=np.intp)
        reason = self._reason(valued)
        truths = {}
        for j, name in enumerate(self._names):
            here, narrow = self._here[j], ~wide(self._here[j], self._allowed[j])
            known = [side.limits[j] for side, _ in whole]
            hull, same, gaps = _hull(known, here.shape)
            if j < first:
                balls = hull if len({value for _, value in valued}) == 1 and not narrow.all() else here
                truths[name] = Enclosed(balls, wide(balls, 0.0) & _known(balls), reason=reason)
                continue
            unsure = gaps.copy()
            for side, _ in valued:
                unsure |= side.unbounded[j] | side.unsettled[j]
            stays = narrow & same & ~unsure & np.asarray(_overlap(here, hull), dtype=bool)
            kinks = ~same & ~gaps
            pieces = Pieces(boxed(np.stack(known)), values) if kinks.any() else None
            balls = boxed(np.where(stays, here, hull))
            truths[name] = Enclosed(balls, kinks, pieces, self._by_row, unsure if unsure.any() else None, reason)
        return truths

    def _valued(self) -> list[tuple[Side, int]]:
        """Return the sides, each with the number of the value that the loss tends to there: 0 if it is the loss."""
        if not self._has_loss:
            return [(side, 0) for side in self._sides]
        values = [self._here[0]] if _known(self._here[0]).all() else []
        valued = []
        for side in self._sides:
            loss = side.limits[0]
            if _known(loss).all():
                same = [k for k, value in enumerate(values) if np.all(_overlap(value, loss))]
                values += [] if same else [loss]
                valued.append((side, same[0] if same else len(values) - 1))
        branches = {kink.operation for kink in self.kinks}.isdisjoint({"equal", "not_equal"})
        narrow = not any(wide(*each).any() for each in zip(self._here, self._allowed, strict=True))
        if len(values) > 1 and branches and narrow:  # there is the branch, too, that is taken at the point
            nowhere = [np.zeros(each.shape, dtype=bool) for each in self._here]
            valued.append((Side(self._here, nowhere, nowhere), 0))
        return valued

    def _reason(self, valued: Sequence[tuple[Side, int]]) -> str:
        """Say what there is beside kinks."""
        if not self._sides:
            return f"the formula is defined on no side of the point: {self._singular()}"
        beyond = self._has_loss and any(side.unbounded[0].any() for side in self._sides)
        if self.kinks and (beyond or len({value for _, value in valued}) > 1):
            return f"a jump of the value at {self.places}, not a kink"
        if beyond:
            return f"the value has no bound on a side of the point: {self._singular()}"
        if any(each.any() for side, _ in valued for each in side.unbounded):
            return f"the derivative has no bound on a side of the point: {self._singular()}"
        if any(not _known(each).all() for side, _ in valued for each in side.limits):
            return f"no limit of the derivative was found on a side of the point: {self._singular()}"
        return ""

    def _singular(self) -> str:
        """Name the first operation that has no value or no slope at the point, or those that are undecided."""
        with ctx.workprec(NEAR[0]):
            numbers = BallNumbers()
            numbers.watched = []
            self._compute(numbers, self._balls)
        if numbers.watched:
            return numbers.watched[0]
        return self.places or "an operation has a derivative that nobody knows"

    # What somebody has.

    def towards(self, gradient: Mapping[str, Floats], budgets: Mapping[str, Floats]) -> dict[str, Enclosed]:
        """Return the truths that are nearest to a gradient, once its own sides have been looked at, too.

        It ends where the gradient is inside, or where no side lies beyond the plane that separates it; or, after too
        many sides, with the confession that what is outside of them is not known to be wrong.
        """
        if not gradient:  # nothing that was handed over has the right shape
            return self.truths()
        size, before = sum(value.size for value in self._params.values()), len(self._sides)
        most = before + min(40 + 4 * size, 40 + MOST // (size + 1))
        asked = False
        while True:
            truths = self.truths()
            pieces = {name: truth.pieces for name, truth in truths.items() if truth.pieces is not None}
            bent = {name: value for name, value in gradient.items() if name in pieces}
            nearest = beside(truths, pieces, bent, budgets) if bent else truths
            at_kinks, elsewhere = (
                {name: _away(value, nearest[name], budgets[name], kinks) for name, value in gradient.items()}
                for kinks in (True, False)
            )
            away = at_kinks if any(off.any() for off, _ in at_kinks.values()) else elsewhere
            if not asked and self._sides and any(off.any() for off, _ in away.values()):
                asked = True  # where the slope is that of a norm, the gradient itself is the direction
                self.look({name: np.zeros(value.shape) for name, value in self._params.items()} | dict(gradient))
                for direction in self._ways.ranking(gradient) if self.kinks else ():
                    self.look(direction)
                continue
            if not self._look_along(away, nearest):
                return nearest
            if not self.kinks and len(self._sides) > before + ENOUGH and self._separated(away, gradient, budgets):
                return nearest  # nothing ties: what has so many sides is round
            if len(self._sides) > most:
                words = f"more sides than were looked at: {self.places or self._singular()}"
                return {name: replace(each, unsure=each.kinks, reason=words) for name, each in nearest.items()}

    def _look_along(self, away: Mapping[str, tuple[Floats, Floats]], nearest: Mapping[str, Enclosed]) -> bool:
        """Look where a separating plane points; say whether there is a side beyond the plane."""
        plane = self._plane(away)
        if not plane:
            return False
        still, before = {name: np.zeros(value.shape) for name, value in self._params.items()}, len(self._sides)
        for side in self._probes(still | plane):
            if side is not None and len(self._sides) > before and self._beyond(side, plane, nearest):
                return True
        return False

    def _plane(self, away: Mapping[str, tuple[Floats, Floats]]) -> dict[str, Floats]:
        """Return the normal of the plane between a gradient and what is nearest to it, if they are apart."""
        largest = _largest({name: off for name, (off, _) in away.items()})
        least = min(float(np.min(room, initial=np.inf)) for _, room in away.values())
        if not (self._sides and 0 < largest < np.inf and self._params.keys() >= away.keys()):
            return {}
        return {name: off / largest * (least / room) for name, (off, room) in away.items()}

    def _separated(
        self, away: Mapping[str, tuple[Floats, Floats]], gradient: Mapping[str, Floats], budgets: Mapping[str, Floats]
    ) -> bool:
        """Whether no side reaches as far along the normal as the gradient does, less what it is allowed.

        Where the boundary is round, as that of a norm's slopes, the nearest of all sides is not found in so many steps.
        """
        plane = self._plane(away)
        still = {name: np.zeros(value.shape) for name, value in self._params.items()}
        list(self._probes(still | plane))
        room = sum(float(np.sum(np.abs(v) * budgets[name])) for name, v in plane.items())
        for side in self._sides:
            limits = dict(zip(self._names, side.limits, strict=True))
            terms = [v * (gradient[name] - middles(limits[name])) for name, v in plane.items()]
            short, size = (float(sum(np.sum(each) for each in of)) for of in (terms, map(np.abs, terms)))
            if not short > room + 1e-9 * size:
                return False
        return True

    def _beyond(self, side: Side, plane: Mapping[str, Floats], nearest: Mapping[str, Enclosed]) -> bool:
        limits = dict(zip(self._names, side.limits, strict=True))
        terms = [each * (middles(limits[name]) - nearest[name].mid) for name, each in plane.items()]
        far, size = (float(sum(np.nansum(each) for each in of)) for of in (terms, map(np.abs, terms)))
        return far > 1e-9 * size

    def _probes(self, plane: Mapping[str, Floats]) -> Iterator[Side | None]:
        """Yield the sides that may lie furthest along a normal: there, for a convex loss, and back, for a concave one.

        It may be convex in some elements only, which rise where the parameter does; and of several sides near one
        direction, here that in which an array moves as one, the furthest may be a narrow one.
        """
        ahead = self.look(plane)
        yield ahead
        back = self.look(plane, -1)
        yield back
        if ahead is not None and back is not None:
            bent = dict(plane)
            for name, one, other in zip(self._names, ahead.limits, back.limits, strict=True):
                if name in plane:
                    rises = plane[name] * (middles(one) - middles(other))
                    bent[name] = np.where(rises < 0, -plane[name], plane[name])
            yield self.look(bent)
            yield self.look(bent, -1)
        size = _largest(plane)
        for base, sign, way in product(self._ways.alike, (1, -1), (1, -1)):
            yield self.look({name: base[name] + way * SMALL * v / size for name, v in plane.items()}, sign)

    def convention(self, gradient: Mapping[str, Floats], budgets: Mapping[str, Floats]) -> str:
        """Say by which rule for ties, each by itself, the gradient comes about at the point, if there is one."""
        return convention_of(self.by_rules(), gradient, budgets)

    def by_rules(self) -> Iterator[tuple[dict[str, str], dict[str, Balls]]]:
        """Yield the arrays at the point itself, each kind of tie decided by each rule for it."""
        for by_kind, numbers in self.rules():
            with ctx.workprec(NEAR[0]):
                found = map(boxed, self._compute(numbers, self._balls))
                arrays = dict(zip(self._names, found, strict=True))
            yield by_kind, {name: balls for name, balls in arrays.items() if name in self._params}

    def rules(self) -> Iterator[tuple[dict[str, str], BallNumbers]]:
        """Yield rules for the kinds of ties that there are, with numbers that decide by them."""
        kinds = sorted({kink.operation for kink in self.kinks} - set(RELATIONS))[:3]
        for rules in product(RULES, repeat=len(kinds)):
            by_kind = dict(zip(kinds, rules, strict=True))
            choices = defaultdict(lambda: ONE, {kind: RULES[rule] for kind, rule in by_kind.items()})
            yield by_kind, BallNumbers(choices.__getitem__)


def convention_of(
    by_rules: Iterator[tuple[dict[str, str], dict[str, Balls]]],
    found: Mapping[str, Floats],
    budgets: Mapping[str, Floats],
) -> str:
    """Return the words about the first rules by which these numbers come about; none if there are none."""
    for rules, balls in by_rules:
        if all(_within(balls[name], value, budgets[name]) for name, value in found.items()):
            ties = ", ".join(f"{kind} {rule}" for kind, rule in rules.items()) or "as it is at the point"
            return f"a convention: each tie decided by itself ({ties}), and no direction has this gradient"
    return ""


def _largest(arrays: Mapping[str, ArrayLike]) -> float:
    return max(float(np.max(np.abs(each), initial=0.0)) for each in arrays.values())


def _known(balls: Balls) -> Bools:
    return np.asarray(_finite(balls), dtype=bool)


def _limit(near: Balls, nearer: Balls, bits: int) -> Any:
    """Return the nearer balls, wider by four times what changed, where that is little; NaN elsewhere.

    Around 0, if it may be that: the middle of such a ball says nothing.
    """
    small, tiny = arb((1, -(bits // 8))), arb((1, -(bits // 4)))

    def limit(a: Any, b: Any) -> Any:
        change = (b - a).abs_upper()
        if not (change <= b.abs_upper() * small or change <= tiny):
            return arb.nan()
        ball = b + arb(0, 4 * change)
        return arb(0, ball.abs_upper()) if ball.contains(ZERO) else ball

    with ctx.workprec(4 * bits + 512):
        return elementwise(limit, 2)(near, nearer)


def _unsettled(limits: list[Balls], near: list[Balls], nearer: list[Balls], nearest: list[Balls]) -> Side | None:
    """Tell where the arrays grow from where they do neither; None if they are nowhere defined."""
    grows = elementwise(lambda a, b, c: bool(abs(c) > abs(b) and abs(b) > abs(a) and abs(c - b) * 1.1 > abs(b - a)), 3)
    defined = [_known(a) & _known(b) & _known(c) for a, b, c in zip(near, nearer, nearest, strict=True)]
    lacking = [~_known(each) & there for each, there in zip(limits, defined, strict=True)]
    unbounded = [
        np.asarray(grows(*each), dtype=bool) & where
        for *each, where in zip(near, nearer, nearest, lacking, strict=True)
    ]
    if not any(each.any() for each in defined):
        return None
    return Side(limits, unbounded, [a & ~b for a, b in zip(lacking, unbounded, strict=True)])


def _consistent(here: NDArray[Any], beside_it: NDArray[Any]) -> bool:
    """Whether what was decided at the point is decided alike beside it: a comparison, or who may be the largest."""
    if here.dtype == bool:
        return not bool(np.any(beside_it & ~here))
    return bool(np.all((here == 0) | (here == beside_it)))


def _alike(one: Side, other: Side) -> bool:
    """Whether two sides are one as far as is known."""
    return all(
        np.array_equal(_known(a), _known(b)) and np.all(np.asarray(_overlap(a, b), dtype=bool) | ~_known(a))
        for a, b in zip(one.limits, other.limits, strict=True)
    ) and all(np.array_equal(a, b) for a, b in zip(one.unbounded, other.unbounded, strict=True))


def _hull(known: Sequence[Balls], shape: tuple[int, ...]) -> tuple[Balls, Bools, Bools]:
    """Return the hull of what is known of an array; where all overlap; and where something is missing."""
    if not known:
        return np.full(shape, arb.nan(), dtype=object), np.ones(shape, dtype=bool), np.ones(shape, dtype=bool)
    hull, same, gaps = known[0], np.ones(shape, dtype=bool), ~_known(known[0])
    for each in known[1:]:
        same &= np.asarray(_overlap(hull, each), dtype=bool) | ~_known(hull) | ~_known(each)
        gaps |= ~_known(each)
        hull = boxed(_joined(hull, each))
    return hull, same, gaps


def _within(balls: Balls, value: Floats, budget: Floats) -> bool:
    lower, _ = Enclosed(balls, np.zeros(balls.shape, dtype=bool)).distance(value)
    return bool(_known(balls).all() and np.all(lower <= budget))


def _away(value: Floats, nearest: Enclosed, allowed: Floats, kinks: bool) -> tuple[Floats, Floats]:
    """Return how far outside a gradient is, in units of its room, at kinks or elsewhere; and the room.

    All is 0 where it is within what is allowed everywhere.
    """
    here = (nearest.kinks == kinks) & np.isfinite(value) & np.isfinite(nearest.mid)
    room = np.where(np.isfinite(nearest.width), allowed + nearest.width * SLACK, np.inf) + 1e-300
    lower, _ = nearest.distance(value)
    with np.errstate(all="ignore"):
        off = np.where(here, (value - nearest.mid) / room, 0.0)
        outside = here & (lower > allowed) & np.isfinite(lower)
    return np.where(np.isfinite(off) & outside.any(), off, 0.0), np.where(here, room, np.inf)
