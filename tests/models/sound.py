"""Right gradients of programs of all kinds, judged at random points and sizes: none of them is to be called wrong.

Every third point is plain, as people have them and where much is 0 or ties: a blank row, two alike, biases of 0.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import gdcompare as gdc
from gdcompare.scale.spread import Raised, Unfit, stop_sign

from .zoo import Case, jax_zoo, torch_zoo

ROOT = Path(__file__).parents[2]
CODE = ("gdcompare/**/*.py", "backends/**/*.py", "tests/models/sound.py", "tests/models/zoo.py")


@cache
def programs() -> dict[str, Case]:
    """Return all programs by their names. Raises ImportError where one of their frameworks is not installed."""
    zoos = {"torch": torch_zoo(), "jax": jax_zoo()}
    return {f"{framework}: {name}": case for framework, zoo in zoos.items() for name, case in zoo.items()}


def plain(features: Any, params: Mapping[str, Any], generator: np.random.Generator) -> tuple[Any, dict[str, Any]]:
    """Return a point with a blank row or column, or two rows alike, and with biases of 0, or a unit that is."""
    features, params = features.copy(), {name: value.copy() for name, value in params.items()}
    row, other = generator.choice(len(features), 2, replace=False)
    kind = generator.integers(3 if features.dtype.kind == "f" else 2)
    if kind == 1:
        features[row] = features[other]
    else:
        features[row if kind == 0 else (..., 0)] = 0
    without_biases = generator.random() < 0.5
    for value in params.values():
        if value.ndim == 1 and without_biases:
            value[:] = 0
        elif value.ndim == 2 and not without_biases:
            value[0] = 0
    return features, params


def verdict_at(native: Any, data: Any, seed: int, dtype: str) -> gdc.Report:
    """Judge at a random point, of a random size, or at a plain one."""
    features, targets = data
    generator = np.random.default_rng(seed)
    scale, size = 10.0 ** generator.uniform(-1.5, 0.5, 2)
    params = {name: value + scale * generator.standard_normal(value.shape) for name, value in native.parameters.items()}
    moved = features if features.dtype.kind in "iu" else features * size + 0.1 * generator.standard_normal()
    if seed % 3 == 2:
        moved, params = plain(moved, params, generator)
    return gdc.verify(native, (moved, targets), params, dtype=dtype)


@dataclass(frozen=True)
class Tally:
    """What became of the arrays that were judged."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """By grade and verdict, as "proven agree"."""
    largest: Mapping[str, float] = field(default_factory=dict)
    """The largest share of what is allowed, by grade."""
    wrong: Mapping[str, str] = field(default_factory=dict)
    """What was said where a right gradient was called wrong, by the seed; a program that gives NaN is not right."""
    seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        grades = {*self.largest, *other.largest}
        return Tally(
            dict(Counter(self.counts) + Counter(other.counts)),
            {grade: max(self.largest.get(grade, 0.0), other.largest.get(grade, 0.0)) for grade in sorted(grades)},
            {**self.wrong, **other.wrong},
            self.seconds + other.seconds,
        )

    @property
    def agreed(self) -> float:
        """The share of arrays of which digits were checked, and are right."""
        right = sum(count for kind, count in self.counts.items() if kind.endswith(" agree"))
        return right / max(1, sum(self.counts.values()))


def judged(make: Case, seeds: Iterable[int], dtype: str, stopping: Callable[[], bool] = lambda: False) -> Tally | None:
    """Judge a program at the points of these seeds; None if it should stop before the last."""
    native, data = make()
    counts: Counter[str] = Counter()
    largest: dict[str, float] = {}
    wrong: dict[str, str] = {}
    begun = time.monotonic()
    for seed in seeds:
        if stopping():
            return None
        report = verdict_at(native, data, seed, dtype)
        for each in report.entries:
            counts[f"{each.grade} {each.verdict}"] += 1
            if each.budget_fraction == each.budget_fraction:
                largest[each.grade] = max(largest.get(each.grade, 0.0), float(each.budget_fraction))
        if any(each.verdict == "wrong" and np.isfinite(each.actual) for each in report.entries):
            wrong[str(seed)] = report.explanation()
    return Tally(dict(counts), largest, wrong, time.monotonic() - begun)


def cell(name: str, dtype: str, first: int, last: int, code: str) -> dict[str, Any] | Raised | Unfit:
    """Be called on a worker: judge a program at the points of these seeds, by this code."""
    if (here := digest()) != code:
        return Unfit(f"its repository {str(ROOT)!r} holds other code ({here}, not {code})")
    tally = judged(programs()[name], range(first, last), dtype, stop_sign())
    return Raised("stopped") if tally is None else asdict(tally)


@cache
def digest() -> str:
    """Return what tells apart the code that judges here."""
    found = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in ROOT.glob(pattern)):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]
