"""The classical ways to check a gradient: what anyone can do who has no proof of the truth.

Each check is a short function of a `Subject`. It says agree, wrong or inconclusive by its own rule, with the step and
the tolerance that its source ships as defaults.

The checks that evaluate the loss take the implementation's own, as they do in the wild: a loss and a gradient that are
wrong together pass them. Those that need more than floats (a complex step) take the problem's formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.referee.verdict import Verdict

Vector: TypeAlias = NDArray[Any]
Answer: TypeAlias = tuple[Verdict, float, str]
"""What a check says, its own figure (NaN if it has none), and the rule: what the figure is, step, tolerance."""

MOST_COMPONENTS = 1000
"""A check that goes component by component does not run beyond this many."""


@dataclass(frozen=True, eq=False)
class Subject:
    """The gradient under test, its own loss, and the formula, with all parameters in one vector x (p,)."""

    x: Vector
    gradient: Vector
    """What the implementation says, in float64, whatever its shapes and dtypes were."""
    loss: Callable[[Vector], float]
    """The implementation's own loss, at a vector of the dtype under test."""
    formula: Callable[[Vector], complex]
    """The problem's loss, at a complex vector."""
    u: float
    """The unit roundoff of the dtype under test."""

    @property
    def direction(self) -> Vector:
        """A random direction, standard normal, seed 0; never the gradient's own, which would hide errors."""
        return np.random.default_rng(0).standard_normal(len(self.x))

    @property
    def components(self) -> range:
        """The places of the vector; a ValueError beyond `MOST_COMPONENTS`."""
        if len(self.x) > MOST_COMPONENTS:
            raise ValueError(f"{len(self.x)} components are too many to go one by one")
        return range(len(self.x))

    def difference(self, place: int, h: float) -> tuple[float, float]:
        """Return (f(x + h e) - f(x - h e)) / 2h along one component, and how far rounding may carry it."""
        ahead, behind = self.x.copy(), self.x.copy()
        ahead[place] += h
        behind[place] -= h
        one, two = self.loss(ahead), self.loss(behind)
        return (one - two) / (2 * h), self.u * max(abs(one), abs(two)) / h


def central_differences(subject: Subject) -> Answer:
    """d = (f(x + h e) - f(x - h e)) / 2h with a fixed h = 1e-6; |g - d| <= 1e-5 + 1e-3 |d| agrees.

    Step and tolerances are the defaults of the best known checker. Truncation grows as h^2, rounding as u |f| / h, and
    a gradient below the absolute tolerance may be anything.
    """
    slopes = np.array([subject.difference(j, 1e-6)[0] for j in subject.components])
    return _close(subject.gradient, slopes, 1e-3, 1e-5, "max error; step 1e-6, atol 1e-5, rtol 1e-3")


def extrapolated_differences(subject: Subject) -> Answer:
    """Central differences at halved steps, extrapolated to h = 0, with their own estimate e of the error.

    |g - d| > 10 e is wrong. Less agrees where e <= 1e-6 |d|; where e is larger, nothing is claimed.
    Source: Ridders 1982, `extrapolated`; the third answer is that of derivcheck, which raises.
    """
    steps = [0.1 * max(1.0, abs(float(subject.x[j]))) for j in subject.components]
    found = [extrapolated(partial(subject.difference, j), h) for j, h in enumerate(steps)]
    slopes, errors = np.array(found).T
    sharp = errors <= 1e-6 * np.abs(slopes)
    wrong = ~(np.abs(subject.gradient - slopes) <= 10 * errors) & np.isfinite(errors)
    worst = float(np.max(np.where(sharp, errors / np.abs(np.where(slopes == 0, 1, slopes)), np.inf)))
    says: Verdict = "wrong" if wrong.any() else "agree" if sharp.all() else "inconclusive"
    return says, worst, "relative error estimate; 1e-6 needed"


def complex_step(subject: Subject) -> Answer:
    """d = Im f(x + i h e) / h with h = 1e-40: no difference, so nothing cancels; |g - d| <= 1e-6 + 1e-6 |d| agrees.

    The formula has to run on complex numbers. Source: Squire and Trapp 1998; step and tolerances are OpenMDAO's.
    """
    h, units = 1e-40, np.eye(len(subject.components))
    slopes = np.array([subject.formula(subject.x + 1j * h * unit).imag / h for unit in units])
    return _close(subject.gradient, slopes, 1e-6, 1e-6, "max error; step 1e-40, atol 1e-6, rtol 1e-6")


def taylor_remainder(subject: Subject) -> Answer:
    """R(h) = |f(x + h v) - f(x) - h g.v| falls as h^2 if g is the gradient, and as h if it is not.

    h is halved from 0.01, along a random v. The order is log2(R(h) / R(h/2)): the least of the last three that stand a
    hundred times above rounding. Above 1.9 agrees. Where R is all rounding, as for a linear loss, nothing is claimed.
    Source: pyadjoint's `taylor_test`, which takes the first three.
    """
    start, note = subject.loss(subject.x), "order, 1.9 needed; one direction"
    remainders: list[float] = []
    for k in range(40):
        ahead = (subject.x + 0.01 * 2.0**-k * subject.direction).astype(subject.x.dtype)
        step = ahead.astype(np.float64) - subject.x  # h v, as the dtype has it
        remainder = abs(subject.loss(ahead) - start - float(subject.gradient @ step))
        if remainder <= 400 * subject.u * abs(start):
            break
        remainders.append(remainder)
    if not np.isfinite(remainders).all():
        return "wrong", math.nan, note
    orders = [math.log2(one / two) for one, two in pairwise(remainders)]
    if len(orders) < 3:
        return "inconclusive", math.nan, f"{note}; the remainder is rounding"
    order = min(orders[-3:])
    return "agree" if order > 1.9 else "wrong", order, note


def dot_product(subject: Subject) -> Answer:
    """The adjoint identity <J v, 1> = <v, J^T 1>: forward on the left, reverse on the right, along a random v.

    Forward is a complex step of the formula, reverse is v.g. They agree up to 1e-6 of the larger.
    Source: Claerbout's dot-product test; the tolerance is that of PyLops' `dottest`.
    """
    v, h = subject.direction, 1e-40
    forward, reverse = subject.formula(subject.x + 1j * h * v).imag / h, float(v @ subject.gradient)
    apart = abs(forward - reverse) / max(abs(forward), abs(reverse), 1e-300)
    return "agree" if apart <= 1e-6 else "wrong", apart, "relative difference; rtol 1e-6; one direction"


METHODS: dict[str, Callable[[Subject], Answer]] = {
    "central differences": central_differences,
    "extrapolated differences": extrapolated_differences,
    "complex step": complex_step,
    "Taylor remainder": taylor_remainder,
    "dot product": dot_product,
}
"""The checks that need only a loss and a gradient, by name."""


def extrapolated(difference: Callable[[float], tuple[float, float]], h: float) -> tuple[float, float]:
    """Return the limit for h -> 0 of a central difference, given with its rounding error, and an estimate of the error.

    Column k of the tableau is free of the error's terms up to h^2k,
    `T_k(h) = T_(k-1)(h) + (T_(k-1)(h) - T_(k-1)(2h)) / (4^k - 1)`. The entry closest to its two neighbours is taken;
    it is not believed beyond the rounding error. Source: Press et al., Numerical Recipes, section 5.7.

    >>> value, error = extrapolated(lambda h: ((np.exp(h) - np.exp(-h)) / (2 * h), 1e-16 / h), 0.5)
    >>> abs(value - 1) <= error < 1e-14
    True
    """
    value, error = math.nan, math.inf
    above: list[float] = []
    for k in range(16):
        slope, noise = difference(h / 2**k)
        row = [slope]
        for j, older in enumerate(above, start=1):
            row.append(row[-1] + (row[-1] - older) / (4.0**j - 1))
            estimate = max(abs(row[-1] - row[-2]), abs(row[-1] - older), noise)
            if estimate < error:
                value, error = row[-1], estimate
        above = row
    return value, error


def _close(gradient: Vector, slopes: Vector, rtol: float, atol: float, rule: str) -> Answer:
    """Return agree if |g - d| <= atol + rtol |d| everywhere, with the largest |g - d|."""
    errors = np.abs(gradient - slopes)
    return "agree" if (errors <= atol + rtol * np.abs(slopes)).all() else "wrong", float(np.max(errors)), rule
