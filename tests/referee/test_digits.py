"""No yes that saw nothing: digits, grades, and why where there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.authoring.faults import FAULTS, by_hand
from gdcompare.case import Case
from gdcompare.problem import drawn_parameters
from gdcompare.problems.multilayer_perceptron import MultilayerPerceptron
from gdcompare.problems.operation import Operation
from gdcompare.referee.certificate import certify, check_certificate, digest
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import Allowance, Entry, Known, Report, compare
from tests.formulas import few_rows

ONE = gdc.Dataset([[1.0]], [0.0])
LINEAR = gdc.load_problem("linear-regression")


def of_scalar(formula: Callable[[Any, Any], Any], x: float, gradient: float, **how: Any) -> Entry:
    """Return the judgement of one number, given as the derivative of a function of one number."""

    def mine(*_: Any) -> Any:
        return None, {"x": np.asarray(gradient)}

    report = gdc.verify(Operation(formula, x=()), ONE, {"x": x}, backends=[], implementations={"mine": mine}, **how)
    return report.entries[0]


# An element that cannot fail does not agree


@pytest.mark.parametrize("gradient", [0.0, 1.7e-17, -1.7e-17])
def test_tanh_at_20_shows_no_digit_and_says_why(gradient: float) -> None:
    entry = of_scalar(lambda xp, x: xp.tanh(x), 20.0, gradient)

    assert (entry.verdict, entry.digits, entry.resolved) == ("inconclusive", 0, (0, 1))
    assert "not resolved: a tail: the slope of tanh at " in entry.cause
    assert "test_digits.py:" in entry.cause
    assert "write 1/cosh(x)^2" in entry.cause


def test_expm1_at_minus_40_shows_no_digit_and_says_why() -> None:
    entry = of_scalar(lambda xp, x: xp.expm1(x), -40.0, 0.0)

    assert entry.verdict == "inconclusive"
    assert "a tail: the slope of expm1" in entry.cause
    assert "write exp(x)" in entry.cause


def test_a_difference_that_cancels_is_named_with_its_line() -> None:
    entry = of_scalar(lambda xp, x: x * ((x + 1e17) - 1e17), 1.0, 2.0)

    assert entry.verdict == "inconclusive"
    assert "cancellation: of the terms of a sum at " in entry.cause


def test_what_is_far_beyond_all_rounding_is_wrong_all_the_same() -> None:
    assert of_scalar(lambda xp, x: xp.tanh(x), 20.0, 1e-3).verdict == "wrong"


def test_where_digits_are_few_they_are_counted() -> None:
    entry = of_scalar(lambda xp, x: xp.tanh(x), 9.0, float(np.cosh(9.0) ** -2))

    assert (entry.verdict, entry.digits, entry.grade, entry.resolved) == ("agree", 7, "proven", (1, 1))
    assert of_scalar(lambda xp, x: xp.tanh(x), 9.0, float(np.cosh(9.0) ** -2 * (1 + 1e-6))).verdict == "wrong"


def test_at_an_optimum_the_gradient_is_measured_by_those_of_the_samples() -> None:
    generator = np.random.default_rng(0)
    data = gdc.Dataset(generator.normal(size=(30, 2)), generator.normal(size=30))
    fit = np.linalg.lstsq(np.column_stack([np.ones(30), data.features]), data.targets)[0]
    point = {"theta_0": fit[0], "theta_1": fit[1:]}

    def wrong(*point: Any) -> Any:
        loss, gradient = by_hand(LINEAR)(*point)
        return loss, {name: each + 1e-10 for name, each in gradient.items()}

    both = {"right": by_hand(LINEAR), "wrong": wrong}
    report = gdc.verify(LINEAR, data, point, backends=[], implementations=both)

    verdicts = {(e.implementation, e.parameter): (e.verdict, e.grade) for e in report.entries}
    assert {found for (name, _), found in verdicts.items() if name == "right"} == {("agree", "proven")}
    assert {verdicts["wrong", name][0] for name in point} == {"wrong"}
    assert all(entry.digits >= 12 for entry in report.entries)


def test_in_an_exact_fit_nothing_is_checked_but_by_exact_arithmetic() -> None:
    data = gdc.Dataset([[0.1], [0.7], [0.3]], [0.1 * 0.3, 0.7 * 0.3, 0.3 * 0.3])
    flipped = {"flipped": FAULTS["flipped sign"](by_hand(LINEAR))}

    report = gdc.verify(LINEAR, data, {"theta_0": 0.0, "theta_1": [0.3]}, backends=[], implementations=flipped)

    assert report.verdict == "inconclusive"


def test_a_truth_of_0_that_is_exact_agrees_and_claims_no_power() -> None:
    right, wrong = (of_scalar(lambda xp, x: 0 * x, 1.0, value) for value in (0.0, 1e-300))

    assert (right.verdict, wrong.verdict) == ("agree", "wrong")
    assert Report((right,)).explanation() == "all 1 comparisons agree; no power: all truths are 0"


# The second grade of evidence


@pytest.mark.thorough
@pytest.mark.parametrize("layers", [2, 6, 20])
def test_a_deep_network_is_checked_and_its_faults_are_found(layers: int, dtype: str) -> None:
    network = MultilayerPerceptron(widths=(6,) * layers)
    data = few_rows(network)
    smallest = "one component times 1 + 1e-3" if dtype == "float32" else "one component times 1 + 1e-10"
    candidates = {"right": by_hand(network)}
    candidates |= {name: FAULTS[name](by_hand(network)) for name in (smallest, "zeroed component", "factor 1/2")}

    report = gdc.verify(network, data, backends=[], implementations=candidates, dtype=dtype)

    verdicts = {
        name: Report(tuple(e for e in report.entries if e.implementation == name)).verdict for name in candidates
    }
    assert verdicts == {"right": "agree"} | dict.fromkeys(list(candidates)[1:], "wrong")
    grades = {entry.grade for entry in report.entries}
    assert grades == {"proven"} if layers == 2 else "sampled" in grades
    assert all(entry.resolved[0] == entry.resolved[1] for entry in report.entries)


def small_zeroed(least: float) -> Callable[..., Any]:
    """Return a fault that makes 0 of what is smaller than that share of its array's largest."""

    def change(function: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*arguments: Any) -> Any:
            loss, gradient = function(*arguments)
            return loss, {
                name: np.where(np.abs(each) < least * np.abs(each).max(), 0 * each, each)
                for name, each in gradient.items()
            }

        return faulty

    return change


@pytest.mark.parametrize("seed", [0, 9, 22])  # not one of them agreed where each element was measured by itself
def test_what_is_small_by_chance_at_a_single_row_is_measured_by_the_others(seed: int) -> None:
    network = MultilayerPerceptron(widths=(16,) * 4)
    generator = np.random.default_rng(seed)
    data = gdc.Dataset(generator.normal(size=(1, 16)), generator.normal(size=1))
    candidates = {"right": by_hand(network), "zeroed": small_zeroed(0.02)(by_hand(network))}

    report = gdc.verify(network, data, backends=[], implementations=candidates, dtype="float32")

    found = {name: [each for each in report.entries if each.implementation == name] for name in candidates}
    assert {each.verdict for each in found["right"]} == {"agree"}
    assert "wrong" in {each.verdict for each in found["zeroed"]}
    assert max(each.detectable_in_half for each in report.entries) < 1.5e-4
    assert max(each.detectable for each in report.entries) > 1e-3


def test_a_yes_says_what_half_of_the_elements_would_have_shown() -> None:
    truth, budget = np.array([1.0, 2.0, 2.0**-10]), np.full(3, 2.0**-16)

    entry = compare("mine", "w", truth, Known(truth), Allowance(budget, np.ones(3), "sampled"), "float32")

    assert (entry.detectable, entry.detectable_in_half) == (2.0**-5, 2.0**-15)
    assert "3.1e-02 would have been caught in every element, of 3.1e-05 in half" in Report((entry,)).explanation()


def test_what_is_small_since_its_feature_is_is_seen_by_itself() -> None:
    network = MultilayerPerceptron(widths=(16,) * 4)
    generator = np.random.default_rng(0)
    data = gdc.Dataset(generator.normal(size=(1, 16)) * [1e-9, *[1.0] * 15], generator.normal(size=1))
    candidates = {"right": by_hand(network), "zeroed": small_zeroed(1e-7)(by_hand(network))}

    report = gdc.verify(network, data, backends=[], implementations=candidates, dtype="float32")

    found = {each.implementation: each for each in report.entries if each.parameter == "weights_0"}
    assert {name: each.verdict for name, each in found.items()} == {"right": "agree", "zeroed": "wrong"}


def test_where_rounding_makes_up_an_element_without_siblings_nothing_is_seen() -> None:
    entry = of_scalar(lambda xp, x: xp.tanh(xp.tanh(x * 1e4) - 1 + x * 1e-30), 3e-4, 0.0, dtype="float32")

    assert entry.verdict != "agree"


@pytest.mark.thorough
def test_the_worst_case_alone_sees_nothing_there() -> None:
    network = MultilayerPerceptron(widths=(6,) * 20)
    zeroed = {"zeroed": FAULTS["zeroed component"](by_hand(network))}

    report = gdc.verify(
        network, few_rows(network), backends=[], implementations=zeroed, dtype="float32", proven_only=True
    )

    assert report.verdict == "inconclusive"
    assert {entry.grade for entry in report.entries} == {"proven"}
    assert any("depth: at worst, rounding adds up over" in entry.cause for entry in report.entries)


def test_shallow_problems_need_no_second_evidence(linear_model: gdc.Problem, dtype: str) -> None:
    data = few_rows(linear_model)
    referee = Referee(Case.of(linear_model, data, drawn_parameters(linear_model, data), dtype))

    allowed = referee.allowances(False)

    for name, budget in referee.budgets(False).items():
        assert allowed[name].grade == "proven"
        assert np.array_equal(allowed[name].budget, budget)


@pytest.mark.parametrize("mask", [-1e9, float(np.finfo(np.float64).min)])
def test_a_mask_that_leaves_an_exact_0_is_decided(mask: float) -> None:
    def masked(xp: Any, x: Any) -> Any:
        return xp.logaddexp(x, x + mask)

    assert of_scalar(masked, 1.0, 1.0).verdict == "agree"
    assert of_scalar(masked, 1.0, 1.0 + 1e-12).verdict == "wrong"


@pytest.mark.thorough
@pytest.mark.parametrize("derivative", ["jvp", "hvp"])
def test_other_derivatives_of_a_deep_network_are_checked_too(derivative: str) -> None:
    pytest.importorskip("torch")
    network = MultilayerPerceptron(widths=(5,) * 16)

    report = gdc.verify(network, few_rows(network), backends=["torch"], dtype="float32", derivative=derivative)

    assert report.verdict == "agree"
    assert any(entry.grade == "sampled" for entry in report.entries)
    assert all(entry.digits >= 3 for entry in report.entries)


@pytest.mark.thorough
def test_the_batch_laws_of_a_deep_network_are_checked_too() -> None:
    network = MultilayerPerceptron(widths=(4,) * 10)
    data = few_rows(network).rows(slice(4))

    sampled, proven = (
        gdc.check_batch_laws(network, data, None, gdc.load_backend("numpy", "float32"), proven_only=proven_only)
        for proven_only in (False, True)
    )

    assert "wrong" not in {entry.verdict for entry in (*sampled.entries, *proven.entries)}
    agree = [sum(entry.verdict == "agree" for entry in report.entries) for report in (sampled, proven)]
    assert agree[0] > 2 * agree[1]


def test_the_search_for_the_truth_heeds_the_smaller_budget() -> None:
    """NIST's Wampler3 at the certified solution: by hand nothing is rounded, and the truth must be known to be 0."""
    x = np.arange(21.0)
    half = [759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048]
    targets = sum(x**k for k in range(6)) + np.array([*half, 2048, *half[::-1]])
    problem = gdc.load_problem("polynomial-regression", degree=5)
    point = {"theta": np.ones(6)}

    right = gdc.verify(problem, gdc.Dataset(x[:, None], targets), point, backends=["numpy"])
    wrong = gdc.verify(
        problem, gdc.Dataset(x[:, None], targets), point, backends=[],
        implementations={"mine": lambda *_: (None, {"theta": np.ones(6)})},
    )  # fmt: skip

    assert right.verdict == "agree"
    assert wrong.verdict == "wrong"


# What somebody may allow themselves


@pytest.mark.parametrize("halved", [False, True])
def test_a_derivation_cannot_buy_its_pass_by_cancelling(halved: bool) -> None:
    class Bought(gdc.Problem):
        """l_i = (w x - y)^2, with a derivation that is 0, and adds and takes away a large number."""

        def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
            return {"w": ()}

        def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            return (params["w"] * features[:, 0] - targets) ** 2

        def per_sample_gradients(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            large = 1e18 * params["w"] * features[:, 0]
            return {"w": (large - large) * targets}

    data = gdc.Dataset([[0.3], [0.7], [1.1]], [0.5, 0.2, 0.9])

    def mine(params: Any, features: Any, targets: Any) -> Any:
        residuals = params["w"] * features[:, 0] - targets
        return None, {"w": (1.0 if halved else 2.0) * np.mean(residuals * features[:, 0])}

    report = gdc.verify(Bought(), data, {"w": 0.4}, backends=["numpy"], implementations={"mine": mine})

    verdicts = {entry.implementation: entry.verdict for entry in report.entries if entry.parameter == "w"}
    assert verdicts["numpy"] == "wrong"
    assert any("its own rounding may be as large" in entry.cause for entry in report.entries)
    assert verdicts["mine"] == ("wrong" if halved else "agree")


def test_a_derivation_that_overflows_where_the_loss_does_not_is_not_judged() -> None:
    """The sum of eight slopes of 1e38 is too large for float32; torch and JAX divide by 8 first."""
    data, params = gdc.Dataset(np.full((8, 1), 1e19), np.zeros(8)), {"theta_0": 0.0, "theta_1": [5e18]}

    report = gdc.verify(LINEAR, data, params, backends=["numpy"], dtype="float32")

    entry = next(each for each in report.entries if each.parameter == "theta_0")
    assert (entry.verdict, entry.actual) == ("inconclusive", np.inf)
    assert "the derivation by hand may overflow" in entry.cause


def test_a_derivation_that_underflows_where_the_loss_does_not_is_not_wrong() -> None:
    """z^2 vanishes in dL/dw = r h e z z / w, though it would be large again; torch and JAX multiply by r first."""
    problem = gdc.load_problem("gaussian-peaks", peaks=2)
    params = {"heights": [1.5e49, -8e48], "centres": [-5.4e-69, 1.5e-69], "widths": [-1.5e97, 4.5e97]}
    data = gdc.Dataset([[6.4e-78], [-4.4e-78], [2.2e-78]], [1.4e79, -5.4e79, 7.5e78])

    report = gdc.verify(problem, data, params, backends=["numpy"])

    entry = next(each for each in report.entries if each.parameter == "widths")
    assert (entry.actual, entry.verdict) == (0.0, "inconclusive"), entry


@pytest.mark.parametrize("flushed", [True, False])
def test_what_another_order_may_flush_to_0_is_not_wrong_by_samples(flushed: bool) -> None:
    """dl/du = 2 (u v - x) v: of numbers near 1e-19 XLA makes a product in another order, below the smallest float32."""
    problem = gdc.load_problem("matrix-factorisation")
    generator, data = np.random.default_rng(0), gdc.datasets.example(gdc.load_problem("matrix-factorisation"))
    size = 1e-18 if flushed else 1.0
    params = {name: size * generator.uniform(0.5, 1.5, shape) for name, shape in problem.parameter_shapes(data).items()}
    zero = {"it": lambda given, *_: (None, {name: np.zeros_like(value) for name, value in given.items()})}

    report = gdc.verify(
        problem,
        gdc.Dataset(data.features, size * data.targets),
        params,
        backends=[],
        implementations=zero,
        dtype="float32",
    )

    assert report.verdict == ("inconclusive" if flushed else "wrong"), report.explanation()


def test_a_tolerance_states_its_price_in_digits() -> None:
    off = {"mine": FAULTS["one component times 1 + 1e-3"](by_hand(LINEAR))}
    data = few_rows(LINEAR)

    wide, narrow = (gdc.verify(LINEAR, data, backends=[], implementations=off, rtol=rtol) for rtol in (0.02, 2e-5))

    assert (wide.verdict, narrow.verdict) == ("agree", "wrong")
    assert {entry.digits for entry in wide.entries} == {0}
    assert all("within the tolerance, which is too wide" in entry.cause for entry in wide.entries)
    assert {entry.digits for entry in narrow.entries} == {4}


# Both calls are judged alike


def second(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Any]:
    """Return a right implementation whose second call is changed."""
    calls = []

    def implementation(*point: Any) -> Any:
        calls.append(1)
        loss, gradient = by_hand(LINEAR)(*point)
        return loss, gradient if len(calls) == 1 else change(gradient)

    return implementation


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "another shape": lambda gradient: gradient | {"theta_1": gradient["theta_1"][None]},
    "another dtype": lambda gradient: gradient | {"theta_1": gradient["theta_1"].astype(np.float32)},
    "a missing key": lambda gradient: {"theta_0": gradient["theta_0"]},
    "an extra key": lambda gradient: gradient | {"theta_2": gradient["theta_1"]},
    "another value": lambda gradient: gradient | {"theta_1": 2 * gradient["theta_1"] + 1},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_second_call_of_another_kind_is_not_deterministic(change: Callable[..., Any]) -> None:
    report = gdc.verify(LINEAR, few_rows(LINEAR), backends=[], implementations={"mine": second(change)})

    causes = [entry.cause for entry in report.entries if entry.verdict == "wrong"]
    assert causes
    assert all("not deterministic" in cause for cause in causes)


# The judge, and what it tells


def judged(budget: list[float], scale: list[float], actual: list[float]) -> Entry:
    truth = Known(np.array([1.0, 0.0]))
    return compare("", "w", np.array(actual), truth, Allowance(np.array(budget), np.array(scale)), "float64")


def test_an_entry_agrees_only_if_each_of_its_elements_is_resolved() -> None:
    assert judged([1e-9, 1e-9], [1.0, 1.0], [1.0, 0.0]).verdict == "agree"
    blind = judged([1e-9, 1e-2], [1.0, 1.0], [1.0, 0.0])
    assert (blind.verdict, blind.resolved, blind.cause) == ("inconclusive", (1, 2), "1 of 2 elements not resolved")
    assert judged([1e-9, 1e-2], [1.0, 1.0], [1.1, 0.0]).verdict == "wrong"
    assert judged([1e-9, 1e-2], [1.0, 1.0], [1.0, 0.1]).verdict == "wrong"


def test_digits_are_those_of_the_worst_resolved_element() -> None:
    assert judged([1e-9, 3e-6], [1.0, 1.0], [1.0, 0.0]).digits == 5
    assert judged([1e-9, 1e-2], [1.0, 1.0], [1.0, 0.0]).digits == 9
    assert judged([0.0, 0.0], [1.0, 0.0], [1.0, 0.0]).digits == 15  # no more than a float64 has


@pytest.mark.thorough
def test_a_report_tells_digits_and_grade() -> None:
    network = MultilayerPerceptron(widths=(6,) * 20)
    report = gdc.verify(network, few_rows(network), backends=["numpy"], dtype="float32")

    told = json.loads(report.to_json())["entries"][0]

    assert (told["grade"], told["resolved"]) == ("sampled", [1, 1])
    assert told["digits"] >= 3
    assert report.explanation().endswith("digits checked (* sampled, not proven)")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_magnitude_is_that_of_the_per_sample_gradients(weighted: bool, reduction: str) -> None:
    problem = gdc.load_problem("tanh-network")
    data = few_rows(problem)
    weights = np.linspace(0.5, 2.0, len(data)) if weighted else None
    data = gdc.Dataset(data.features, data.targets, weights=weights)
    referee = Referee(Case.of(problem, data, drawn_parameters(problem, data), "float64", reduction))

    for name, rows in referee.row_truths.items():
        sizes = np.abs(rows.mid)
        expected = np.mean(sizes, axis=0) if reduction == "mean" else np.sum(sizes, axis=0)
        assert np.allclose(referee.magnitudes[name], expected, rtol=1e-12)
        assert np.all(referee.magnitudes[name] >= np.abs(referee.truths[name].mid) * (1 - 1e-12))


def test_a_certificate_of_an_older_version_is_judged_by_what_it_has() -> None:
    certificate = certify("linear-regression", few_rows(LINEAR))
    older = {key: value for key, value in certificate.items() if key != "digest"}
    older["sections"] = {
        dtype: {key: value for key, value in section.items() if key != "magnitudes"}
        for dtype, section in certificate["sections"].items()
    }
    older["digest"] = digest(older)
    wrong = {"wrong": FAULTS["factor 2"](by_hand(LINEAR))}

    for each in (certificate, older):
        report = check_certificate(each, backends=["numpy"])
        assert report.verdict == "agree"
        assert {entry.grade for entry in report.entries} == {"proven"}
        assert check_certificate(each, [], wrong).verdict == "wrong"


# What is 0 in every row


class Shifted(gdc.Problem):
    """log sum exp(x_j w_j + b) - b, which does not depend on b, though rounding does."""

    share = 1.0

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return {"w": (data.features.shape[1],), "b": (2,)}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        scores = features * params["w"] + params["b"][0]
        return xp.log(xp.sum(xp.exp(scores), axis=1)) - params["b"][0] + targets * params["b"][1] * self.share


class ShiftedAlone(Shifted):
    share = 0.0


@pytest.mark.parametrize("problem", [Shifted(), ShiftedAlone()], ids=["beside others of its array", "the whole array"])
@pytest.mark.parametrize(("by", "verdict"), [(0.0, "agree"), (1e-2, "wrong")])
def test_what_cancels_in_every_row_is_measured_by_the_other_gradients(
    problem: gdc.Problem, by: float, verdict: str, dtype: str
) -> None:
    share = getattr(problem, "share", 1.0)
    data = gdc.Dataset([[0.5, -1.0], [0.25, 2.0], [1.5, -0.75]], [1.0, 2.0, -0.5])

    def moved(params: Any, features: Any, targets: Any) -> Any:
        powers = np.exp(features * params["w"] + params["b"][0])
        shares = powers / powers.sum(axis=1, keepdims=True)
        by_shift = (shares.sum(axis=1) - 1).mean() + by
        found = {"w": (shares * features).mean(axis=0), "b": np.array([by_shift, share * targets.mean()], dtype)}
        return problem.per_sample_losses(np, params, features, targets).mean(), found

    report = gdc.verify(problem, data, backends=[], implementations={"mine": moved}, dtype=dtype)

    assert {each.verdict for each in report.entries if each.parameter == "b"} == {verdict}


class Undecided(gdc.Problem):
    """A condition on two logarithms of one number, which no precision tells apart."""

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return {"w": ()}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        apart = xp.log(features[:, 0]) != xp.log(features[:, 0])
        return xp.where(apart, 100 * params["w"], params["w"] ** 2 * features[:, 0])


def test_a_condition_on_data_that_no_precision_decides_is_the_reason() -> None:
    where: Any = Undecided(), gdc.Dataset([[1.3], [2.7]], [0.0, 0.0]), {"w": 1.5}
    functions: Any = {
        name: (lambda *_, g=value: (None, {"w": np.array(g)})) for name, value in (("right", 6.0), ("wrong", 99.0))
    }

    report = gdc.verify(*where, backends=[], implementations=functions)

    assert {entry.verdict for entry in report.entries} == {"inconclusive"}
    assert all("no precision tells apart" in entry.cause for entry in report.entries)
