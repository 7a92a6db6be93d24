"""At the prompt everything is a short line without an address; printed, a report is its table; in a notebook, HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare import rules
from gdcompare.authoring.faults import MutationScore
from gdcompare.models.native import Layer
from gdcompare.referee.counterexample import counterexample
from gdcompare.referee.methods import MethodOutcome

HOSTILE = "<script>[/x]"


@pytest.fixture(scope="module")
def data() -> gdc.Dataset:
    return gdc.Dataset([[0.0], [1.0], [2.0]], [1.0, 3.0, 4.0], name=HOSTILE)


def halved(params: Mapping[str, Any], features: Any, targets: Any) -> tuple[float, dict[str, Any]]:
    residuals = params["theta_0"] + features @ params["theta_1"] - targets
    slopes = residuals @ features / len(targets)
    return float((residuals**2).mean()), {"theta_0": 2 * residuals.mean(), "theta_1": slopes}


def natives() -> Iterator[gdc.Native]:
    for name, factor in (("right", 2), (HOSTILE, 1)):

        def loss(p: Any, features: Any, targets: Any) -> Any:
            return ((features @ p["w"] - targets) ** 2).mean()

        def slope(p: Any, features: Any, targets: Any, factor: int = factor) -> Any:
            return {"w": factor * (features @ p["w"] - targets) @ features / len(targets)}

        yield gdc.from_functions(loss, slope, {"w": [0.5]}, name=name)


@pytest.fixture(scope="module")
def shown(data: gdc.Dataset) -> dict[str, Any]:
    """One of everything that answers at a prompt."""
    problem = gdc.load_problem("linear-regression")
    report = gdc.verify(problem, data, backends=["numpy"], implementations={HOSTILE: halved})
    fit = gdc.descend(problem, data, "numpy", epochs=2000)
    models = list(natives())
    return {
        "report": report,
        "entry": report.entries[-1],
        "laws": gdc.check_batch_laws(problem, data, None, "numpy"),
        "comparison": gdc.compare(models, data),
        "training": gdc.compare_training(models, data, steps=2),
        "descent": fit,
        "history": fit.history,
        "data": data,
        "problem": problem,
        "network": gdc.load_problem("tanh-network"),
        "rule": rules.adam(rules.cosine(0.1, steps=100)),
        "backend": gdc.load_backend("numpy"),
        "native": models[0],
        "layer": Layer("fc", np.zeros((300, 300)), np.zeros((300, 300))),
        "conformance": gdc.check_backend("numpy", problems=["linear-regression"]),
        "mutation score": MutationScore(("a fault",) * 28, ("another",) * 2, ()),
        "counterexample": counterexample(problem, halved, data),
        "method": MethodOutcome("allclose", "agree", 1e-9, "max difference", at_fault=True),
    }


@pytest.mark.thorough
def test_every_repr_is_a_short_line_without_an_address(shown: dict[str, Any]) -> None:
    lines = {name: repr(each) for name, each in shown.items()}

    assert {name: line for name, line in lines.items() if len(line) > 140 or "\n" in line or " at 0x" in line} == {}


@pytest.mark.thorough
def test_what_is_said_in_a_line_is_what_there_is(shown: dict[str, Any]) -> None:
    assert repr(shown["report"]) == f"Report(wrong, 6 entries, LinearRegression on {HOSTILE})"
    assert repr(shown["entry"]).startswith(f"Entry(wrong, {HOSTILE}: theta_1[0], ")
    assert repr(shown["comparison"]) == f"Comparison(wrong, 3 entries, right, {HOSTILE} on {HOSTILE})"
    assert repr(shown["training"]) == f"Training(wrong, 2 entries, right, {HOSTILE} on {HOSTILE})"
    assert repr(shown["history"]).startswith("History(2000 steps, losses 8.67 to ")
    assert repr(shown["layer"]) == "Layer('fc', (300, 300))"
    assert repr(shown["mutation score"]) == "MutationScore(93%: 28 of 30 planted faults noticed)"
    assert repr(shown["method"]) == "MethodOutcome(allclose: agree, 1e-09, at fault)"


@pytest.mark.parametrize("name", ["report", "laws", "comparison", "training"])
def test_printed_a_report_is_its_table(shown: dict[str, Any], name: str) -> None:
    report = shown[name]

    heading, blank, columns, rule, *rows = str(report).splitlines()[: 4 + len(report.entries)]

    assert f"on {HOSTILE}: n = 3, d = 1, float64" in heading
    assert blank == ""
    assert {"verdict", "budget"} <= set(columns.split())
    assert set(rule.strip()) == {"-"}
    for entry, row in zip(report.entries, rows, strict=True):
        assert entry.implementation in row
        assert entry.verdict in row.split()
    assert str(report).splitlines()[-1] == report.shown()[-1]
    assert max(map(len, [columns, rule, *rows])) <= 100


@pytest.mark.parametrize("name", ["report", "comparison", "training", "descent", "data", "problem", "network", "rule"])
def test_a_notebook_shows_a_table_with_every_name_escaped(shown: dict[str, Any], name: str) -> None:
    source = shown[name]._repr_html_()

    assert source.count("<table") == source.count("</table>") == 1
    assert "<script" not in source
    assert ("&lt;script&gt;[/x]" in source) == (HOSTILE in str(shown[name]))


def test_a_notebook_says_the_verdict_in_words(shown: dict[str, Any]) -> None:
    cells = shown["report"]._repr_html_().split("<td")

    assert sum(">wrong</td>" in cell for cell in cells) == 1
    assert sum(">agree</td>" in cell for cell in cells) == 5


def test_wide_and_weighted_data_are_shown_in_part() -> None:
    wide = gdc.Dataset(np.zeros((7, 30)), np.ones((7, 2)), weights=np.full(7, 0.25))

    source = wide._repr_html_()

    assert source.count("<th ") == 10  # the row, four columns, "...", four columns
    assert source.count("<tr>") == 6
    assert source.count(">0.25</td>") == 5
    assert "and 2 rows more" in source


def test_a_descent_shows_the_last_loss_also_where_the_history_is_thinned(data: gdc.Dataset) -> None:
    whole = gdc.descend("linear-regression", data, "numpy", epochs=10)
    thinned = gdc.descend("linear-regression", data, "numpy", epochs=10, history_every=4)

    assert whole.last_loss == thinned.last_loss == whole.history.losses[-1]
    assert thinned.last_loss < thinned.history.losses[-1]
    assert repr(thinned) == f"Descent('epochs' after 10 steps, loss {whole.last_loss:.3g})"


def test_the_loss_of_a_batch_is_not_taken_for_that_of_the_data(data: gdc.Dataset) -> None:
    fit = gdc.descend("linear-regression", data, "numpy", epochs=1, batch_size=1)

    assert repr(fit) == f"Descent('epochs' after 3 steps, loss of the last batch {fit.last_loss:.3g})"


@dataclass(frozen=True)
class Reversed(rules.Direction):
    """A direction of one's own, under no name that the rules have."""

    times: float

    def init(self, params: Any) -> Any:
        return {}

    def coefficients(self, *where: Any) -> Any:
        return ()

    def update(self, *given: Any) -> Any:
        raise NotImplementedError


def halving(steps: Any) -> Any:
    return 0.5**steps


@pytest.mark.parametrize(
    ("rule", "written"),
    [
        (rules.sgd(0.01), "sgd(learning_rate=0.01)"),
        (rules.momentum(1), "momentum(learning_rate=1.0, beta=0.9)"),
        (rules.nesterov(0.5, beta=0.8), "nesterov(learning_rate=0.5, beta=0.8)"),
        (
            rules.adam(rules.inverse_time(0.1)),
            "adam(learning_rate=inverse_time(rate=0.1, decay=1.0), beta_1=0.9, beta_2=0.999, epsilon=1e-08)",
        ),
        (rules.sgd(rules.cosine(1, 10)), "sgd(learning_rate=cosine(rate=1.0, steps=10, final=0.0))"),
        (rules.sgd(halving), "sgd(learning_rate=halving)"),
        (rules.Rule(rules.constant(0.1), Reversed(2.0)), "Rule(learning_rate=0.1, direction=Reversed(times=2.0))"),
        (rules.sgd(lambda steps: 0.5**steps), "sgd(learning_rate=<lambda>)"),
        (rules.sgd(partial(halving)), "sgd(learning_rate=<partial>)"),
    ],
)
def test_a_rule_is_written_as_it_is_made(rule: rules.Rule, written: str) -> None:
    assert repr(rule) == written


def test_rules_made_alike_are_equal() -> None:
    for make in (rules.sgd, rules.momentum, rules.nesterov, rules.adam):
        assert make(0.1) == make(0.1) != make(0.2)
        assert hash(make(rules.cosine(0.1, 5))) == hash(make(rules.cosine(0.1, 5)))


@pytest.mark.thorough
def test_a_long_cause_is_cut_in_a_line_only(shown: dict[str, Any]) -> None:
    entry = replace(shown["entry"], cause="because " * 40)

    assert len(repr(entry)) < 160
    assert repr(entry).endswith("...)")
    assert "because " * 40 in str(gdc.Report((entry,)))


def test_of_laws_neighbours_with_one_cause_are_one_line() -> None:
    def entry(who: str, parameter: str, cause: str, law: str = "reduced") -> gdc.Entry:
        return gdc.Entry(who, parameter, "wrong", (), 1.0, 2.0, cause=cause, law=law)

    named = [("rank 0", "w"), ("rank 0", "b"), ("rank 1", "w")]
    report = gdc.Report((*(entry(*each, "too large") for each in named), entry("rank 1", "b", "stale")))
    alone = gdc.Report((entry("mine", "w", "too large", ""), entry("mine", "b", "too large", "")))

    assert "rank 0, rank 1: w and 2 others: too large; actual 1.0, expected 2.0" in str(report).splitlines()
    assert "rank 1: b: stale; actual 1.0, expected 2.0" in str(report).splitlines()
    assert str(alone).count("too large") == 2
