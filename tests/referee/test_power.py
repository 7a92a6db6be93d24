"""The referee refereed on deep formulas: no right gradient is wrong, no fault that it claims to see is agreed with.

`pytest -m soundness tests/referee/test_power.py -s` prints the figures of docs/the-verdict.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare import Backend, BackendUnavailableError
from gdcompare.authoring.faults import FAULTS, Implementation
from gdcompare.backend import Precision
from gdcompare.case import Case
from gdcompare.referee.point import Referee, as_implementation
from gdcompare.referee.sampling import K
from gdcompare.referee.verdict import LOSS, Allowance, Entry, budgets_of, judge_all
from gdcompare.registry import registered_backends
from gdcompare.table import Part, as_text, table
from tests.deep_formulas import FORMULAS, Deep
from tests.formulas import suitable

DTYPES: tuple[Precision, Precision] = ("float32", "float64")
SCALES = (0.1, 1.0, 3.0)
CALLED_TWICE = {"stale accumulation"}
MANY = 100
"""With more parameters, differences are left out: they evaluate the gradient as often."""
SMALLEST = {"float32": 1e-3, "float64": 1e-10}
"""The faults of one component that should be seen in each dtype: those of no less than this."""
SEEDS = 1
EDGES = (0.0, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 0.2, 0.4, 0.6, 0.8, 1.0, np.inf)
"""Of the histogram: the bins are those above one edge, up to the next; what is 0 has one of its own."""


@cache
def backends(dtype: Precision) -> tuple[Backend[Any], ...]:
    found = []
    for name in registered_backends():
        try:
            found.append(gdc.load_backend(name, dtype))
        except BackendUnavailableError:
            continue
    return tuple(found)


def differentiator(dtype: Precision) -> Backend[Any]:
    """Return the first backend that needs no derivation and compiles nothing."""
    every = {each.name: each for each in backends(dtype) if not getattr(each, "by_hand", False)}
    if not every:
        pytest.skip("none of the backends here differentiates: pip install 'gdcompare[torch]'")
    return next((every[name] for name in ("torch", "autograd") if name in every), *list(every.values())[:1])


def judgement(referee: Referee, gradient: Mapping[str, Any], allowed: Mapping[str, Allowance]) -> list[Entry]:
    with np.errstate(all="ignore"):
        return judge_all("", gradient, referee.towards(gradient, budgets_of(allowed)), allowed, referee.dtype)


def errors_of(
    referee: Referee, gradient: Mapping[str, Any], allowed: Mapping[str, Allowance]
) -> dict[str, NDArray[Any]]:
    """Return the proven least |error| of each element."""
    truths = referee.towards(gradient, budgets_of(allowed))
    return {name: truth.distance(gradient[name])[0] for name, truth in truths.items()}


def referees(scales: Sequence[float], deeps: Mapping[str, Deep], seed: int) -> Iterator[tuple[str, Referee]]:
    """Yield each formula at a random point of each scale, in both dtypes."""
    for at, (name, deep) in enumerate(deeps.items()):
        for scale in scales if not deep.lattice else scales[:1]:
            data, params = deep.drawn(np.random.default_rng([seed, at, int(10 * scale)]), scale)
            for dtype in DTYPES:
                yield name, Referee(Case.of(deep.problem, data, params, dtype))


def library(decades: Sequence[float], seed: int) -> Iterator[Referee]:
    """Yield each problem of the library at a random point of its few rows, in both dtypes, again and again.

    Where the loss is not defined, as where a saturation constant is the opposite of a concentration, nothing is right.
    """
    generator = np.random.default_rng(seed)
    while True:
        for name in gdc.problem_names():
            for dtype in DTYPES:
                problem = gdc.load_problem(name)
                referee = Referee(Case.of(problem, *suitable(problem, dtype, generator, decades), dtype))
                if np.isfinite(referee.truths[LOSS].mid):
                    yield referee


def gradients(referee: Referee, backend: Backend[Any]) -> dict[str, NDArray[Any]]:
    with np.errstate(all="ignore"):
        loss, found = as_implementation(backend, referee.case.problem)(*referee.point)
    return {LOSS: np.asarray(loss, dtype=referee.dtype), **{key: np.asarray(each) for key, each in found.items()}}


def reason(entry: Entry) -> str:
    """Return why nothing is decided, in a few words."""
    cause = entry.cause.split("resolved: ")[-1].split(" at ")[0].split(":")[0]
    return f"{entry.verdict}: {cause}" if entry.verdict == "inconclusive" else entry.verdict


BOTH_GRADES = {"proven": True, "either": False}
"""Whether the worst case alone is asked."""


@dataclass
class Sound:
    """What became of right gradients: the entries by verdict, and each element's error as a share of its allowance."""

    verdicts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    shares: dict[tuple[str, str], list[NDArray[Any]]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, name: str, referee: Referee, backend: Backend[Any], grades: Mapping[str, bool] = BOTH_GRADES) -> None:
        right, by_hand = gradients(referee, backend), getattr(backend, "by_hand", False)
        for grade, proven_only in grades.items():
            allowed = referee.allowances(by_hand, proven_only)
            errors = errors_of(referee, right, allowed)
            for entry in judgement(referee, right, allowed):
                rule = "" if entry.verdict != "wrong" else referee.convention(right, budgets_of(allowed))
                self.verdicts[grade, referee.dtype, "wrong: each tie by itself" if rule else reason(entry)] += 1
                if rule:  # true from no side of the point, and not by rounding
                    errors.pop(entry.parameter)
                elif entry.verdict == "wrong":
                    self.wrong.append((name, backend.name, grade, referee.dtype, entry))
            for key, error in errors.items():
                worst, budget = referee.budgets(by_hand)[key], allowed[key].budget
                here = np.isfinite(budget) & (budget > 0) & (proven_only | (budget < worst))
                if here.any():
                    self.shares["proven" if proven_only else "sampled", referee.dtype].append(
                        error[here] / budget[here]
                    )

    def parts(self) -> list[Part]:
        """Return what is printed of it."""
        arrays, elements = self.judged, sum(self.of(key).size for key in self.shares)
        counts = [(*key, str(count)) for key, count in sorted(self.verdicts.items())]
        keys = sorted(self.shares)
        labels = ["0", *(f"to {edge:g}" for edge in EDGES[1:-1]), "above 1"]
        bins = zip(labels, *(map(str, _histogram(self.of(key))) for key in keys), strict=True)
        largest = [" ".join(key) + f": at most {self.of(key).max(initial=0):.2g} of the allowance" for key in keys]
        deviations = K * max((self.of(key).max(initial=0) for key in keys if key[0] == "sampled"), default=0.0)
        return [
            table(f"{arrays} judgements of right arrays", ("evidence", "dtype", "verdict", "arrays"), counts, left=3),
            table(f"{elements} elements: |error| / allowance", ("", *(" ".join(key) for key in keys)), bins),
            "\n".join([*largest, f"sampled: at most {deviations:.1f} deviations"]),
        ]

    @property
    def judged(self) -> int:
        """How many arrays there were."""
        return self.verdicts.total()

    def inconclusive(self, grade: str, dtype: str) -> float:
        """Return the share of arrays of which nothing is decided."""
        fates = {key[2]: count for key, count in self.verdicts.items() if key[:2] == (grade, dtype)}
        return sum(n for fate, n in fates.items() if fate.startswith("inconclusive")) / max(sum(fates.values()), 1)

    def of(self, key: tuple[str, str]) -> NDArray[Any]:
        return np.concatenate([np.ravel(each) for each in self.shares[key]] or [np.zeros(0)])


def _histogram(shares: NDArray[Any]) -> list[int]:
    """Count the zeros, and what is above one edge, up to the next.

    >>> _histogram(np.array([0.0, 1e-7, 0.5, 1.0, 1.5]))
    [1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1]
    """
    return [int(np.count_nonzero(shares == 0))] + [
        int(np.count_nonzero((shares > low) & (shares <= high))) for low, high in pairwise(EDGES)
    ]


@dataclass
class Power:
    """What became of planted faults: by evidence, dtype and kind, how many were wrong, inconclusive or agreed with."""

    fates: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    missed: list[tuple[Any, ...]] = field(default_factory=list)
    """Faults that an agreeing verdict claims to see."""

    def add(self, name: str, referee: Referee) -> None:
        correct = as_implementation(differentiator(referee.dtype), referee.case.problem)
        right = gradients(referee, differentiator(referee.dtype))
        if any(each.verdict == "wrong" for each in judgement(referee, right, referee.allowances(False))):
            return  # a convention for ties that is true from no side: whatever is planted is wrong as well
        allowances = {
            evidence: {name: replace(each, why=lambda _: "") for name, each in referee.allowances(False, only).items()}
            for evidence, only in (("proven", True), ("either", False))
        }  # nobody asks why
        few = sum(value.size for value in referee.params.values()) <= MANY
        for kind, fault in FAULTS.items():
            if kind == "forward differences" and not few:
                continue
            calls = planted(correct, fault, referee, twice=kind in CALLED_TWICE)
            if not any(differs(right, call) for call in calls):
                continue
            for evidence, allowed in allowances.items():
                self._add(name, referee, right, kind, calls, evidence, allowed)

    def _add(
        self,
        name: str,
        referee: Referee,
        right: Mapping[str, Any],
        kind: str,
        calls: Sequence[Mapping[str, Any]],
        evidence: str,
        allowed: Mapping[str, Allowance],
    ) -> None:
        found = [judgement(referee, call, allowed) for call in calls]
        verdicts = {entry.verdict for entries in found for entry in entries}
        fate = next(each for each in ("wrong", "inconclusive", "agree") if each in verdicts)
        size = kind.split("+ ")[1] if kind.startswith("one component times") else "every other kind"
        self.fates[evidence, referee.dtype, size, fate] += 1
        if fate == "agree":
            for entries, call in zip(found, calls, strict=True):
                for entry in entries:
                    if excess(referee, entry, allowed, right, call) > 1 + 1e-6:
                        self.missed.append((name, evidence, referee.dtype, kind, entry))

    def share(self, evidence: str, dtype: str, smallest: float = 0.0) -> tuple[int, int, int]:
        """Return how many faults were wrong, inconclusive and agreed with, of those no smaller."""
        counts = Counter[str]()
        for (which, precision, size, fate), count in self.fates.items():
            large = size == "every other kind" or float(size) >= 0.99 * smallest
            counts[fate] += count * (which == evidence and precision == dtype and large)
        return counts["wrong"], counts["inconclusive"], counts["agree"]

    def parts(self) -> list[Part]:
        """Return what is printed of it."""
        rows, lines = [], []
        for key in sorted({key[:3] for key in self.fates}):
            fates = [self.fates[(*key, fate)] for fate in ("wrong", "inconclusive", "agree")]
            rows.append((*key, str(sum(fates)), *map(str, fates), f"{fates[0] / sum(fates):.1%}"))
        for evidence in ("proven", "either"):
            for dtype, smallest in SMALLEST.items():
                wrong, inconclusive, agree = self.share(evidence, dtype, smallest)
                planted = wrong + inconclusive + agree
                lines.append(
                    f"{evidence} {dtype}, faults of {smallest:g} and above: {planted} planted, "
                    f"{wrong / planted:.2%} wrong, {inconclusive / planted:.2%} inconclusive, {agree} agreed with"
                )
        head = ("evidence", "dtype", "fault", "planted", "wrong", "inconclusive", "agree", "killed")
        claimed = f"agreed with although claimed to be seen: {len(self.missed)}"
        return [table("planted faults", head, rows, left=3), "\n".join([*lines, claimed])]


def planted(correct: Implementation, fault: Any, referee: Referee, twice: bool) -> list[dict[str, Any]]:
    """Return the gradients of one call of the faulty implementation, or of two."""
    faulty = fault(correct)
    with np.errstate(all="ignore"):
        found = [faulty(*referee.point) for _ in range(1 + twice)]
    return [{LOSS: np.asarray(loss, dtype=referee.dtype), **gradient} for loss, gradient in found]


def differs(right: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a gradient, not only its loss, differs in any bit, dtype, shape or name."""
    return set(right) != set(other) or any(
        right[name].dtype != each.dtype or not np.array_equal(right[name], each, equal_nan=True)
        for name, each in other.items()
        if name != LOSS
    )


def excess(
    referee: Referee,
    entry: Entry,
    allowed: Mapping[str, Allowance],
    right: Mapping[str, Any],
    faulty: Mapping[str, Any],
) -> float:
    """Return the largest relative change of an element, as a multiple of the fault that the entry claims to see.

    Where the truth is 0, or may be, nothing is claimed.
    """
    name = entry.parameter
    truth = referee.truths[name]
    size = np.maximum(np.abs(truth.mid), truth.width / 2)
    change = np.abs(np.asarray(faulty[name], dtype=float) - np.asarray(right[name], dtype=float))
    with np.errstate(all="ignore"):
        claimed = np.where(size > allowed[name].budget, change / size / entry.detectable, 0.0)
    return float(np.nan_to_num(claimed, nan=0.0).max(initial=0.0))


QUICK = {name: FORMULAS[name] for name in ("tanh network, 12 layers", "hidden Markov, 6 steps", "masked softmax")}


@pytest.mark.thorough
def test_right_gradients_of_deep_formulas_are_not_wrong() -> None:
    sound = Sound()

    for name, referee in referees((1.0,), QUICK, seed=1):
        sound.add(name, referee, differentiator(referee.dtype))

    assert sound.wrong == []
    assert sound.verdicts["either", "float32", "agree"] > sound.verdicts["proven", "float32", "agree"]


def test_no_verdict_agrees_over_a_fault_that_it_claims_to_see() -> None:
    power = Power()

    for name, referee in referees((1.0,), {"masked softmax": FORMULAS["masked softmax"]}, seed=1):
        power.add(name, referee)

    assert power.missed == []
    wrong, inconclusive, agree = power.share("either", "float64", SMALLEST["float64"])
    assert wrong > 10
    assert agree == 0, (inconclusive, power.fates)


def test_a_judge_that_allows_too_much_or_too_little_is_found() -> None:
    """An allowance a millionth of the right one calls right gradients wrong; one that claims too much is missed."""
    ((_, referee),) = (
        each for each in referees((1.0,), {"": FORMULAS["masked softmax"]}, 1) if each[1].dtype == "float32"
    )
    right = gradients(referee, differentiator("float32"))
    allowed = referee.allowances(False)
    narrow = {name: replace(each, budget=1e-6 * each.budget) for name, each in allowed.items()}
    double = {name: np.asarray(2 * each) for name, each in right.items()}
    blind = {
        name: replace(each, budget=10 * np.abs(referee.truths[name].mid) + each.budget, scale=None)
        for name, each in allowed.items()
    }

    assert {entry.verdict for entry in judgement(referee, right, allowed)} == {"agree"}
    assert "wrong" in {entry.verdict for entry in judgement(referee, right, narrow)}
    boast = [replace(entry, detectable=1e-3) for entry in judgement(referee, double, blind)]
    assert max(excess(referee, entry, allowed, right, double) for entry in boast) > 100


@pytest.mark.soundness
def test_soundness_on_deep_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    sound = Sound()

    for seed in range(SEEDS):
        for name, referee in referees(SCALES, FORMULAS, seed):
            for backend in backends(referee.dtype):
                if referee.case.problem.derived or not getattr(backend, "by_hand", False):
                    sound.add(name, referee, backend)

    with capsys.disabled():
        print(f"\nright gradients of {len(FORMULAS)} formulas\n\n{as_text(sound.parts())}")  # noqa: T201
    assert sound.wrong == []


@pytest.mark.soundness
def test_no_right_array_is_wrong_in_two_hundred_thousand(capsys: pytest.CaptureFixture[str]) -> None:
    """Of deep formulas, and of the library with data and parameters of sizes up to 10, up to 100 and any."""
    deep = (referee for seed in range(1, 6) for _, referee in referees(SCALES, FORMULAS, seed))
    small, large, any_size = library((0.5, 1.0), 1), library((2.0,), 2), library((), 3)
    kinds = {"deep": deep, "up to 10": small, "up to 100": large, "any size": any_size}
    sound = Sound()

    for (kind, points), upto in zip(kinds.items(), (20_000, 100_000, 150_000, 200_000), strict=True):
        for referee in points:
            for backend in backends(referee.dtype):
                if referee.case.problem.derived or not getattr(backend, "by_hand", False):
                    sound.add(repr(referee.case.problem), referee, backend, {kind: False})
            if sound.judged >= upto:
                break

    with capsys.disabled():
        print(f"\n{as_text(sound.parts())}")  # noqa: T201
    assert sound.wrong == []
    assert sound.judged >= 200_000
    assert sound.inconclusive("up to 10", "float64") < 0.01
    assert sound.inconclusive("up to 10", "float32") < 0.05


@pytest.mark.soundness
def test_power_on_deep_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    power = Power()

    for seed in range(SEEDS):
        for name, referee in referees(SCALES, FORMULAS, seed):
            power.add(name, referee)

    with capsys.disabled():
        print(f"\n{as_text(power.parts())}")  # noqa: T201
    assert power.missed == []
    for dtype, smallest in SMALLEST.items():
        wrong, inconclusive, agree = power.share("either", dtype, smallest)
        assert wrong > 0.99 * (wrong + inconclusive + agree)
