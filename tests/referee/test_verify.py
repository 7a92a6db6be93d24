"""The verdict: right gradients agree, wrong ones are called wrong, and the cause is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.authoring.faults import FAULTS, Implementation, by_hand, mutate
from gdcompare.backend import Backend
from gdcompare.case import Case
from gdcompare.problem import NotDerivedError, drawn_parameters
from gdcompare.referee.diagnosis import cause_of
from gdcompare.referee.evidence import Evidence
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import Entry, Report, compare, judge_all

LINE = gdc.datasets.noisy_line()
LINEAR = gdc.load_problem("linear-regression")
POINT: dict[str, Any] = {"theta_0": 1.0, "theta_1": [0.0]}


def plane(seed: int = 0, n: int = 24, d: int = 3) -> gdc.Dataset:
    generator = np.random.default_rng(seed)
    return gdc.Dataset(generator.normal(size=(n, d)), generator.normal(size=n), name="plane")


def judged(implementation: Implementation, dtype: str = "float64", data: gdc.Dataset | None = None) -> Report:
    data = plane() if data is None else data
    return gdc.verify(LINEAR, data, backends=[], implementations={"mine": implementation}, dtype=dtype)


def causes(report: Report) -> set[str]:
    return {entry.cause for entry in report.entries if entry.verdict == "wrong"}


@pytest.mark.covering
def test_every_backend_agrees_on_every_problem(backend: Backend[Any], problem: gdc.Problem) -> None:
    data = gdc.datasets.example(problem)

    report = gdc.verify(problem, data, backends=[backend], dtype=backend.dtype)

    report.assert_agree()
    assert {entry.parameter for entry in report.entries} == {"loss", *problem.parameter_shapes(data)}
    assert all(entry.budget_fraction < 1 for entry in report.entries)


def test_a_pass_states_a_detection_power_that_it_keeps() -> None:
    data, correct = plane(), by_hand(LINEAR)
    entry = next(e for e in judged(correct).entries if e.parameter == "theta_1")

    def faulty(params: Any, features: Any, targets: Any) -> Any:
        loss, gradient = correct(params, features, targets)
        return loss, gradient | {"theta_1": gradient["theta_1"] * (1 + 1.01 * entry.detectable)}

    assert entry.detectable < 1e-12
    assert judged(faulty, data=data).verdict == "wrong"


def test_every_planted_fault_is_called_wrong(linear_model: gdc.Problem, dtype: str) -> None:
    lattice = gdc.datasets.integer_lattice(labels=linear_model.target_values is not None)
    params = drawn_parameters(linear_model, lattice)

    def check(implementation: Implementation) -> bool:
        return bool(
            gdc.verify(linear_model, lattice, params, backends=[], implementations={"": implementation}, dtype=dtype)
        )

    score = mutate(check, by_hand(linear_model), *Referee(Case.of(linear_model, lattice, params, dtype)).point)

    below = {name for name in score.survived if "times 1 + 1e-" in name}  # what lies below the stated detection power
    assert set(score.survived) == below
    assert dtype == "float32" or not below
    assert len(score.killed) >= 20


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("flipped sign", "the sign is flipped"),
        ("factor 2", "a constant factor 2 in "),
        ("factor 1/2", "a constant factor 1/2 in "),
        ("sum for mean", "a factor n = 24: a sum where a mean belongs"),
        ("divided by n twice", "a factor 1/n = 1/24: divided by n twice"),
        ("n - 1 for n", "a factor n/(n-1) = 24/23: divided by n - 1"),
        ("dropped last sample", "sample 23 is left out, and the mean taken over n - 1"),
        ("doubled last sample", "sample 23 is counted twice, and the mean taken over n + 1"),
        ("dropped last quarter of the batch", "the last 7 samples are dropped: a ragged last batch?"),
        ("stale accumulation", "stale accumulation: the second call returns the sum of both"),
        ("float32 inside float64", "float32 inside float64: every value is a float32"),
        ("NaN in one component", "nan in 1 of 3 elements"),
        ("infinity in one component", "infinity in 1 of 3 elements"),
        ("lower dtype", "dtype float16 where float64 belongs"),
        ("an extra axis", "shape (1, 3) where (3,) belongs"),
        ("a parameter missing", "missing"),
        ("transposed or reversed", "reversed along axis 0"),
        ("wrong axis, shifted by one", "shifted by one along axis 0"),
        ("zeroed component", "zero in 1 of 3 elements"),
        ("zeroed parameter", "zero in every element"),
        ("flipped sign of one component", "the sign is flipped in 1 of 3 elements"),
        ("extra term (weight decay)", "an extra term 0.001 times the parameter: weight decay?"),
        ("one component times 1 + 1e-9", "off in 1 of 3 elements"),
    ],
)
def test_the_cause_of_a_planted_fault_is_named(fault: str, cause: str) -> None:
    report = judged(FAULTS[fault](by_hand(LINEAR)))

    assert any(cause in found for found in causes(report)), causes(report)


def test_a_wrong_answer_now_and_then_is_not_deterministic() -> None:
    calls = []

    def flickering(params: Any, features: Any, targets: Any) -> Any:
        calls.append(1)
        loss, gradient = by_hand(LINEAR)(params, features, targets)
        return loss, {name: each * (1 + 1e-6 * (len(calls) - 1)) for name, each in gradient.items()}

    report = judged(flickering)

    assert causes(report) == {"not deterministic: a second call differs"}


def test_an_implementation_that_changes_its_inputs_is_told_so() -> None:
    def greedy(params: Any, features: Any, targets: Any) -> Any:
        found = by_hand(LINEAR)(params, features, targets)
        features *= 0
        return found

    assert causes(judged(greedy)) == {"it changed its inputs: features"}


def test_an_implementation_that_crashes_loses_only_itself() -> None:
    def crashing(params: Any, features: Any, targets: Any) -> Any:
        raise RuntimeError("out of luck")

    both = {"crashing": crashing, "right": by_hand(LINEAR)}
    report = gdc.verify(LINEAR, plane(), backends=[], implementations=both)

    (wrong,) = (each for each in report.entries if each.verdict == "wrong")
    assert wrong.implementation == "crashing"
    line = crashing.__code__.co_firstlineno + 1
    assert wrong.cause == f"it raised RuntimeError: out of luck (test_verify.py:{line})"
    assert all(entry.verdict == "agree" for entry in report.entries if entry.implementation == "right")


@pytest.mark.parametrize(
    ("problem", "how", "said"),
    [
        (type(LINEAR), {}, r"LinearRegression is a class: give one of it, LinearRegression\(\)"),
        (by_hand, {}, "a function is no Problem: a model as it stands is judged as from_module"),
        (None, {}, "a NoneType is no Problem: give a registered name"),
        (LINEAR, {"backends": "numpy"}, r"backends are a list of them: \['numpy'\]"),
        (LINEAR, {"implementations": by_hand}, "implementations are {name: function}, .* not a function"),
        (LINEAR, {"implementations": {3: by_hand}}, "an implementation's name is text, not 3"),
        (LINEAR, {"backends": ["numpy"], "implementations": {"numpy": by_hand}}, "a backend of the name 'numpy'"),
        (LINEAR, {"params": [1.0, 2.0]}, "parameters are {name: value}, not a list"),
    ],
)
def test_what_is_no_problem_or_has_no_name_is_said(problem: Any, how: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        gdc.verify(problem, plane(), **how)


def test_one_component_of_many_off_by_1e_9_is_found_where_it_is() -> None:
    data = plane(n=16, d=200)

    def faulty(params: Any, features: Any, targets: Any) -> Any:
        loss, gradient = by_hand(LINEAR)(params, features, targets)
        gradient["theta_1"][137] *= 1 + 1e-9
        return loss, gradient

    report = judged(faulty, data=data)

    (wrong,) = [entry for entry in report.entries if entry.verdict == "wrong"]
    assert wrong.worst_index == (137,)
    assert wrong.actual != wrong.expected


def test_a_gradient_of_size_1e_minus_20_is_not_excused_by_a_floor() -> None:
    tiny = gdc.Dataset(1e-10 * plane().features, 1e-10 * plane().targets)
    point = {"theta_0": 1e-11, "theta_1": [0.1, 0.2, 0.3]}
    zeroed = {"mine": FAULTS["zeroed parameter"](by_hand(LINEAR))}

    report = gdc.verify(LINEAR, tiny, point, backends=[], implementations=zeroed)

    assert report.verdict == "wrong"


def test_integer_lattices_leave_nothing_to_rounding(backend: Backend[Any]) -> None:
    lattice = gdc.datasets.integer_lattice()

    report = gdc.verify(LINEAR, lattice, {"theta_0": 1, "theta_1": [2, -1, 3]}, backends=[backend], dtype=backend.dtype)

    report.assert_agree()
    assert [entry.error_ulps for entry in report.entries] == [0.0, 0.0, 0.0]
    assert all(entry.detectable < 1e-300 for entry in report.entries)


def test_on_an_integer_lattice_the_last_bit_counts() -> None:
    def nudged(params: Any, features: Any, targets: Any) -> Any:
        loss, gradient = by_hand(LINEAR)(params, features, targets)
        return loss, gradient | {"theta_0": np.nextafter(gradient["theta_0"], np.inf)}

    lattice, point = gdc.datasets.integer_lattice(), {"theta_0": 1, "theta_1": [2, -1, 3]}
    report = gdc.verify(LINEAR, lattice, point, backends=[], implementations={"mine": nudged})

    assert report.verdict == "wrong"


def test_tolerances_are_possible_and_their_cost_is_stated() -> None:
    off = {"mine": FAULTS["one component times 1 + 1e-6"](by_hand(LINEAR))}

    strict = gdc.verify(LINEAR, plane(), backends=[], implementations=off)
    loose = gdc.verify(LINEAR, plane(), backends=[], implementations=off, rtol=1e-3)

    assert strict.verdict == "wrong"
    assert loose.verdict == "agree"
    assert all(entry.detectable == pytest.approx(2e-3) for entry in loose.entries)


def test_a_loss_may_be_left_out() -> None:
    def only_gradient(params: Any, features: Any, targets: Any) -> Any:
        return None, by_hand(LINEAR)(params, features, targets)[1]

    report = judged(only_gradient)

    assert {entry.parameter for entry in report.entries} == {"theta_0", "theta_1"}
    assert report


def test_assert_agree_says_where_by_how_much_and_why() -> None:
    report = judged(FAULTS["flipped sign"](by_hand(LINEAR)))

    with pytest.raises(
        AssertionError,
        match=r"mine: theta_1\[\d\] is wrong: actual .*, expected .* ulp, .* times the budget; the sign is flipped",
    ):
        report.assert_agree()


def test_a_report_is_plain_json() -> None:
    report = judged(FAULTS["NaN in one component"](by_hand(LINEAR)))

    found = json.loads(report.to_json())

    assert found["verdict"] == "wrong"
    assert found["context"]["n"] == 24
    assert "nan" in {entry["actual"] for entry in found["entries"]}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_too_large_for_the_dtype_are_refused_or_undecided(dtype: str) -> None:
    data = gdc.Dataset([[1e200], [1.0]], [1.0, 2.0])
    if dtype == "float32":
        with pytest.raises(ValueError, match=r"features hold 1e\+200, which is too large for float32"):
            gdc.verify(LINEAR, data, POINT, backends=["numpy"], dtype=dtype)
    else:
        overflowing = {"theta_0": 0, "theta_1": [1.0]}
        with np.errstate(over="ignore", invalid="ignore"):
            report = gdc.verify(LINEAR, data, overflowing, backends=["numpy"], dtype=dtype)
        assert report.verdict != "agree"


def test_a_backend_of_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="backend 'numpy' computes in float32, but dtype='float64' is to be judged"):
        gdc.verify(LINEAR, LINE, backends=[gdc.load_backend("numpy", "float32")])


@pytest.mark.parametrize(("atol", "rtol"), [(-1.0, None), (None, math.nan)])
def test_a_tolerance_must_be_a_number(atol: float | None, rtol: float | None) -> None:
    with pytest.raises(ValueError, match=r"[ar]tol must be a finite number, 0 or above"):
        gdc.verify(LINEAR, LINE, backends=["numpy"], atol=atol, rtol=rtol)


class KnownTruth:
    """A truth in plain floats, for the tests of the judge."""

    def __init__(self, mid: Any, rad: float = 0.0, kinks: Any = False) -> None:
        self.mid = np.asarray(mid, dtype=np.float64)
        self.rad = rad
        self.kinks = np.broadcast_to(np.asarray(kinks), self.mid.shape)
        self.width, self.reason = np.where(self.kinks, 2 * rad, 0.0), ""

    def distance(self, actual: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        off = np.abs(actual - self.mid)
        return np.maximum(off - self.rad, 0), off + self.rad


def verdict_of(actual: float, truth: KnownTruth, budget: float) -> str:
    return compare("", "p", np.array([actual]), truth, np.array([budget]), "float64").verdict


def test_the_judge_has_three_answers() -> None:
    assert verdict_of(1.0, KnownTruth([1.0], 0.5), 0.6) == "agree"
    assert verdict_of(3.0, KnownTruth([1.0], 0.5), 0.6) == "wrong"
    assert verdict_of(2.0, KnownTruth([1.0], 0.5), 0.6) == "inconclusive"
    assert verdict_of(2.0, KnownTruth([1.0]), math.inf) == "inconclusive"


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_is_wrong_unless_a_correct_program_may_overflow(broken: float) -> None:
    assert verdict_of(broken, KnownTruth([1.0]), 0.6) == "wrong"
    assert verdict_of(broken, KnownTruth([1.0]), math.inf) == "inconclusive"


def test_at_a_kink_the_whole_hull_agrees() -> None:
    hull = KnownTruth([0.5], 0.5, kinks=True)

    assert [verdict_of(value, hull, 1e-12) for value in (0.0, 0.5, 1.0, 1.1)] == ["agree", "agree", "agree", "wrong"]


SPOILERS: dict[str, Callable[[NDArray[Any]], Any]] = {
    "flipped sign": lambda g: -g,
    "factor 2": lambda g: 2 * g,
    "sum for mean": lambda g: 40 * g,
    "n - 1 for n": lambda g: g * 40 / 39,
    "reversed": lambda g: g[::-1],
    "float32 in float64": lambda g: g.astype(np.float32),
    "NaN": lambda g: np.where(g == 3, np.nan, g),
    "infinity": lambda g: np.where(g == 3, np.inf, g),
    "an extra axis": lambda g: g[None],
    "an axis less": lambda g: g[0],
    "one component off by 1e-9": lambda g: g * np.array([1, 1 + 1e-9, 1]),
    "strings": lambda g: g.astype(str),
}


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_the_oracle_rejects(spoil: Callable[[NDArray[Any]], Any]) -> None:
    right = np.array([1.0, -2.0, 3.0])
    truths, budgets = {"w": KnownTruth(right)}, {"w": 1e-14 * np.abs(right)}

    accepted = judge_all("", {"w": right}, truths, budgets, "float64")
    refused = judge_all("", {"w": spoil(right)}, truths, budgets, "float64")

    assert [entry.verdict for entry in accepted] == ["agree"]
    assert [entry.verdict for entry in refused] == ["wrong"]


def test_missing_and_extra_parameters_are_wrong() -> None:
    right = np.array([1.0])

    entries = judge_all("", {"v": right}, {"w": KnownTruth(right)}, {"w": right}, "float64")

    assert [(entry.parameter, entry.cause) for entry in entries] == [("w", "missing"), ("v", "no such parameter")]


def test_a_report_is_as_good_as_its_worst_entry() -> None:
    agree, unsure, wrong = (Entry("", "p", verdict) for verdict in ("agree", "inconclusive", "wrong"))

    assert Report((agree, agree)).verdict == "agree"
    assert Report((agree, unsure)).verdict == "inconclusive"
    assert Report((unsure, wrong)).verdict == "wrong"
    assert not Report((unsure,))


def test_a_transposed_square_gradient_is_named() -> None:
    truth = np.arange(1.0, 10.0).reshape(3, 3)

    assert cause_of(Evidence(truth.T.copy(), truth, 1e-14 * truth, "float64", n=5)) == "transposed"


def test_no_cause_is_made_up() -> None:
    truth = np.array([1.0, 2.0, 3.0])
    odd = truth + np.array([0.1, 0.0, 0.0])

    assert (
        cause_of(Evidence(odd, truth, 1e-14 * truth, "float64", n=5)) == "off in 1 of 3 elements (0); the others agree"
    )


# Weights and the sum

WEIGHTS = np.array([0.0, 2.0, 1.0, 0.5, 3.0, 1.0, 1.0])
WEIGHTED = gdc.Dataset(np.linspace(-1, 2, 14).reshape(7, 2), [0, 1, 1, 0, 1, 0, 1], weights=WEIGHTS)
UNWEIGHTED = gdc.Dataset(WEIGHTED.features, WEIGHTED.targets)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("data", [WEIGHTED, UNWEIGHTED], ids=["weighted", "unweighted"])
def test_every_backend_agrees_on_weighted_means_and_sums(
    backend: Backend[Any], linear_model: gdc.Problem, data: gdc.Dataset, reduction: str
) -> None:
    report = gdc.verify(linear_model, data, backends=[backend], dtype=backend.dtype, reduction=reduction)

    report.assert_agree()
    assert (report.context["weighted"], report.context["reduction"]) == (data.weights is not None, reduction)


DIVIDED_BY_N = "a factor sum w / n = 8.5/7: divided by n where the sum of the weights belongs"


@pytest.mark.parametrize(
    ("reduced", "causes"),
    [
        (lambda w, rows: (w @ rows) / w.sum(), ("", "a factor 1/sum w = 1/8.5: a mean where a sum belongs")),
        (lambda w, rows: w @ rows, ("a factor sum w = 8.5: a sum where a mean belongs", "")),
        (lambda w, rows: (w @ rows) / len(w), (DIVIDED_BY_N, "a factor 1/n = 1/7: a mean where a sum belongs")),
        (lambda w, rows: rows.mean(axis=0), ("the weights are ignored", None)),
        (lambda w, rows: rows.sum(axis=0), (None, "the weights are ignored")),
        (lambda w, rows: (w @ rows) / np.count_nonzero(w), ("one factor 1.41667 over all parameters", None)),
    ],
)
def test_only_the_right_weighted_reduction_agrees(reduced: Any, causes: tuple[str | None, str | None]) -> None:
    problem = gdc.load_problem("linear-regression")

    def mine(params: Any, features: Any, targets: Any, weights: Any) -> Any:
        rows = problem.per_sample_gradients(np, params, features, targets)
        losses = problem.per_sample_losses(np, params, features, targets)
        return reduced(weights, losses), {name: reduced(weights, each) for name, each in rows.items()}

    for reduction, cause in zip(("mean", "sum"), causes, strict=True):
        report = gdc.verify(problem, WEIGHTED, backends=[], implementations={"mine": mine}, reduction=reduction)

        assert report.verdict == ("agree" if cause == "" else "wrong")
        assert cause in (None, next(entry.cause for entry in report.entries if entry.parameter == "theta_1"))


def test_whole_weights_count_as_copies_for_every_backend(backend: Backend[Any]) -> None:
    counts = np.array([2, 1, 3, 1, 1])
    data = gdc.Dataset(np.arange(5.0)[:, None], [1.0, 0.0, 2.0, 5.0, 3.0], weights=counts)
    copied = gdc.Dataset(np.repeat(data.features, counts, axis=0), np.repeat(data.targets, counts))
    params = {"theta_0": 1.0, "theta_1": [2.0]}

    loss, gradient = gdc.value_and_grad("linear-regression", data, params, backend, reduction="sum")

    expected_loss, expected = gdc.value_and_grad("linear-regression", copied, params, backend, reduction="sum")
    assert loss == expected_loss  # whole numbers: nothing is rounded
    assert all(np.array_equal(gradient[name], expected[name]) for name in expected)


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown reduction 'total'; known: mean, sum"):
        gdc.verify("linear-regression", UNWEIGHTED, reduction="total")


def test_the_comparison_of_methods_takes_no_weights_and_says_so() -> None:
    from gdcompare.referee.methods import all_methods

    with pytest.raises(ValueError, match="the comparison of methods takes no sample weights"):
        all_methods("linear-regression", WEIGHTED, None, "numpy")


# Without a derivation by hand


@final
@dataclass(frozen=True)
class Underived(gdc.Problem):
    """l_i = (m - y_i)^4."""

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return {"m": ()}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return (params["m"] - targets) ** 4


def test_without_a_derivation_the_frameworks_and_functions_are_judged() -> None:
    def mine(params: Any, features: Any, targets: Any) -> Any:
        r = params["m"] - targets
        return np.mean(r**4), {"m": np.mean(4 * r**3)}

    report = gdc.verify(Underived(), UNWEIGHTED, {"m": 0.3}, implementations={"mine": mine})

    report.assert_agree()
    by_hand_backends = {name for name in gdc.backend_names() if getattr(gdc.load_backend(name), "by_hand", False)}
    assert {entry.implementation for entry in report.entries} == {"mine", *gdc.backend_names()} - by_hand_backends


@pytest.mark.parametrize("derivative", ["gradient", "hessian"])
def test_where_nobody_is_judged_nobody_agrees(derivative: str) -> None:
    with pytest.raises(
        ValueError, match=f"there is no {derivative} of LinearRegression to judge: give implementations"
    ):
        gdc.verify("linear-regression", UNWEIGHTED, backends=[], derivative=derivative)
    with pytest.raises(NotDerivedError, match="Underived has no gradient derived by hand, and no backend"):
        gdc.verify(Underived(), UNWEIGHTED, backends=[])


@pytest.mark.parametrize(
    "ask",
    [
        lambda: gdc.verify(Underived(), UNWEIGHTED, backends=["numpy"]),
        lambda: gdc.check_batch_laws(Underived(), UNWEIGHTED, None, "numpy"),
    ],
    ids=["verify", "laws"],
)
def test_a_backend_that_needs_a_derivation_says_what_to_write(ask: Callable[[], object]) -> None:
    with pytest.raises(NotDerivedError, match=r"and Underived has none: write its per_sample_gradients, or choose a"):
        ask()


@final
@dataclass(frozen=True)
class DerivedAsAWhole(gdc.Problem):
    """l_i = (m - y_i)^2, dL/dm = 2/n sum (m - y_i)."""

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return {"m": ()}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        return (params["m"] - targets) ** 2

    def value_and_gradient(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        r = params["m"] - targets
        return xp.mean(r * r), {"m": 2 * xp.mean(r)}


@pytest.mark.thorough
def test_either_of_the_two_derivations_gives_the_other() -> None:
    rows = gdc.per_sample_grad(DerivedAsAWhole(), UNWEIGHTED, {"m": 0.25}, "numpy")

    assert rows["m"].tolist() == (2 * (0.25 - UNWEIGHTED.targets)).tolist()
    gdc.check_batch_laws(DerivedAsAWhole(), UNWEIGHTED, None, "numpy").assert_agree()
