"""Which samples, of those that a law is about, are wrong by themselves, and by what factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gdcompare.referee.hypotheses import number
from gdcompare.referee.parts import Part
from gdcompare.referee.verdict import Floats


def blamed_rows(part: Part, name: str, first: int = 0) -> str:
    """Name the samples whose gradient is wrong, and the factor where all of them are off by the same one."""
    truth, found, budget = part.truths[name], part.gradient[name].astype(np.float64), part.allowed[name].budget
    n = len(found)
    wrong = np.flatnonzero((truth.distance(found)[0] > budget).reshape(n, -1).any(axis=1))
    if not len(wrong):
        return ""
    factor = ratio(found[wrong], truth.mid[wrong])
    off = np.abs(found[wrong] - factor * truth.mid[wrong])
    same = (off <= 8 * (budget[wrong] * max(1.0, abs(factor)) + 2.0**-52 * np.abs(found[wrong]))).all()
    known = [(float(n), "n"), (1 / n, "1/n"), (n / (n - 1), "n/(n-1)")] if n > 2 else []
    name_of_it = "".join(f"{words} = " for each, words in known if np.isclose(factor, each, 1e-9))
    by = f" (a constant factor {name_of_it}{number(factor)} in each of them)" if same else ""
    return f"wrong in {len(wrong)} of {n} samples: {some(list(map(str, first + wrong)))}{by}"


def ratio(found: Floats, truth: Floats) -> float:
    """Return the factor that brings the truth nearest to what was found."""
    if not truth.any():
        return np.inf
    _, exponent = np.frexp(np.abs(truth).max())  # the squares of what is tiny would vanish
    found, truth = np.ldexp(found, -exponent), np.ldexp(truth, -exponent)
    return float(np.sum(found * truth) / np.sum(truth**2))


def some(names: Sequence[str]) -> str:
    """Name the first few."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
