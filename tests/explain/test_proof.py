"""Proofs: every derivation in the library is proved, and every planted mistake is answered with its formula."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import pytest

sympy = pytest.importorskip("sympy", reason="the extra symbolic")

import gdcompare as gdc
from gdcompare import Dataset, Problem
from gdcompare.arithmetic.formula_check import FormulaError
from gdcompare.arithmetic.symbols import Symbols
from gdcompare.authoring.faults import FAULTS
from gdcompare.explain.formulas import Formulas, Size, smallest_size
from gdcompare.explain.latex import symbol
from gdcompare.explain.proof import typeset
from gdcompare.problem import NotDerivedError
from tests import proofs

QUICK = ["hinge", "linear-regression", "michaelis-menten"]
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.soundness) for name in gdc.problem_names()]

# Those that work on arrays of anything.
PLANTED = [
    "flipped sign",
    "factor 2",
    "factor 1/2",
    "sum for mean",
    "divided by n twice",
    "n - 1 for n",
    "zeroed parameter",
    "extra term (weight decay)",
    "dropped last sample",
    "doubled last sample",
    "off-by-one sample",
    "mean of micro-batch means",
]
FAULTY = [("linear-regression", fault) for fault in PLANTED] + [
    pytest.param(name, fault, marks=() if name in QUICK else pytest.mark.soundness)
    for name in gdc.problem_names()
    for fault in ("flipped sign", "n - 1 for n", "off-by-one sample")
    if name != "linear-regression"
]
ON_ARRAYS = ["transposed or reversed", "wrong axis, shifted by one"]
"""They change nothing in a single number."""


@final
@dataclass(frozen=True)
class Planted(Problem):
    """A problem with a wrong gradient: on symbols only, so that nothing before the proof can see it."""

    right: Problem
    fault: str

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return self.right.parameter_shapes(data)

    def start(self, data: Dataset) -> Any:
        return self.right.start(data)

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        return self.right.per_sample_losses(xp, params, features, targets)

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        return self.right.per_sample_gradients(xp, params, features, targets)

    def value_and_gradient(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        if not isinstance(getattr(xp, "numbers", None), Symbols):
            return self.right.value_and_gradient(xp, params, features, targets)

        def correct(params: Mapping[str, Any], features: Any, targets: Any) -> tuple[Any, dict[str, Any]]:
            given = {name: xp.asarray(each) for name, each in params.items()}
            loss, gradient = self.right.value_and_gradient(xp, given, xp.asarray(features), xp.asarray(targets))
            return loss, {name: np.asarray(each.value[0]) for name, each in gradient.items()}

        arrays = {name: each.value[0] for name, each in params.items()}
        _, gradient = FAULTS[self.fault](correct)(arrays, features.value[0], targets.value[0])
        loss, _ = self.right.value_and_gradient(xp, params, features, targets)
        return loss, {name: xp.asarray(each) for name, each in gradient.items()}


def planted(name: str, fault: str) -> Problem:
    right = gdc.load_problem(name)
    kind = Planted(right, fault)
    object.__setattr__(kind, "target_values", right.target_values)
    object.__setattr__(kind, "target_dimensions", right.target_dimensions)
    return kind


@pytest.mark.parametrize("name", NAMES)
def test_every_derivation_of_the_library_is_proved(name: str) -> None:
    problem = gdc.load_problem(name)

    proof = gdc.prove(problem, seconds=60)

    assert proof.verdict == "proved", str(proof)
    assert proof
    claims = {entry.claim for entry in proof.entries}
    due = {"loss", "gradient", "per-sample gradients", "their mean"}
    assert claims == due | ({"Hessian-vector product"} if problem.twice_derived else set())
    assert all(entry.components > 0 for entry in proof.entries)
    assert proofs.row_of(name, proof, 0.0)[:-1] in [row[:-1] for row in proofs.written(proofs.PAGE.read_text())]


def test_the_page_has_all_problems_and_no_others() -> None:
    page = proofs.PAGE.read_text(encoding="utf-8")

    rows = proofs.written(page)

    assert [row[0] for row in rows] == [f"`{name}`" for name in gdc.problem_names()]
    assert {row[4] for row in rows} == {"proved"}
    assert proofs.rewritten(page, rows) == page
    with pytest.raises(ValueError, match="the page has no"):
        proofs.rewritten("", rows)


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "fault"), FAULTY)
def test_a_planted_mistake_is_wrong(name: str, fault: str) -> None:
    proof = gdc.prove(planted(name, fault), seconds=60)

    assert proof.verdict == "wrong", str(proof)
    assert not proof
    wrong = {entry.claim for entry in proof.entries if entry.verdict == "wrong"}
    assert wrong == {"gradient", "their mean"}
    assert all(entry.difference and entry.difference_latex for entry in proof.entries if entry.verdict == "wrong")


@pytest.mark.thorough
@pytest.mark.parametrize("fault", ON_ARRAYS)
@pytest.mark.parametrize("name", ["linear-regression", pytest.param("tanh-network", marks=pytest.mark.soundness)])
def test_numbers_in_wrong_places_are_wrong(name: str, fault: str) -> None:
    assert gdc.prove(planted(name, fault), seconds=60).verdict == "wrong"


def test_two_over_n_forgotten_would_be_seen() -> None:
    class Forgetful(Line):
        def value_and_gradient(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            r = features @ params["w"] - targets
            return xp.mean(r * r), {"w": r @ features}

    assert gdc.prove(Forgetful()).verdict == "wrong"
    assert gdc.prove(Forgetful(), samples=2).entries[1].verdict == "proved"  # there 2/n is 1


class Line(Problem):
    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"w": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        r = features @ params["w"] - targets
        return r * r

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        r = features @ params["w"] - targets
        return {"w": 2 * r[:, None] * features}


def test_the_answer_to_a_wrong_derivation_is_the_difference() -> None:
    class Off(Line):
        def per_sample_gradients(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            right = super().per_sample_gradients(xp, params, features, targets)["w"]
            return {"w": right + 0.001 * params["w"]}

    proof = gdc.prove(Off())

    wrong = next(entry for entry in proof.entries if entry.verdict == "wrong")
    assert (wrong.claim, wrong.index, wrong.difference) == ("gradient", (0,), "w[0]/1000")
    assert wrong.difference_latex == r"\frac{w_{0}}{1000}"
    assert repr(wrong) == "Proved(wrong, gradient: w[0], difference w[0]/1000)"
    assert "Wrong: gradient: w[0]: by hand minus the derivative is w[0]/1000" in str(proof)
    assert "% gradient: w[0]: by hand minus the derivative\n\\[ \\frac{w_{0}}{1000} \\]" in proof.latex


def test_a_wrong_second_derivative_is_wrong_and_the_first_still_proved() -> None:
    class Off(Line):
        def hessian_vector_product(self, xp: Any, params: Any, features: Any, targets: Any, direction: Any) -> Any:
            return {"w": (features @ direction["w"]) @ features / features.shape[0]}  # without the 2

    proof = gdc.prove(Off())

    answers = {entry.claim: entry.verdict for entry in proof.entries}
    assert answers.pop("Hessian-vector product") == "wrong"
    assert set(answers.values()) == {"proved"}


@dataclass(frozen=True)
class Relu(Problem):
    """max(z, 0) with one of several slopes: which of them are right away from z = 0?"""

    slope: Callable[..., Any]

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"w": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        z = features @ params["w"]
        return xp.maximum(z, xp.zeros_like(z)) * targets

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        z = features @ params["w"]
        hidden, ones = xp.maximum(z, xp.zeros_like(z)), xp.ones_like(z)
        return {"w": (self.slope(xp, z, hidden, ones) * targets)[:, None] * features}


def z_above(xp: Any, z: Any, hidden: Any, ones: Any) -> Any:
    return xp.where(z > 0, ones, 0 * ones)


def z_not_below(xp: Any, z: Any, hidden: Any, ones: Any) -> Any:
    return xp.where(z >= 0, ones, 0 * ones)


def hidden_above(xp: Any, z: Any, hidden: Any, ones: Any) -> Any:
    return xp.where(hidden > 0, ones, 0 * ones)


def hidden_not_below(xp: Any, z: Any, hidden: Any, ones: Any) -> Any:
    return xp.where(hidden >= 0, ones, 0 * ones)


def hidden_is_zero(xp: Any, z: Any, hidden: Any, ones: Any) -> Any:
    return xp.where(hidden == 0, 0 * ones, ones)


def half_of_sign(xp: Any, z: Any, hidden: Any, ones: Any) -> Any:
    return (1 + xp.sign(z)) / 2


def sign_of_hidden(xp: Any, z: Any, hidden: Any, ones: Any) -> Any:
    return xp.sign(hidden)


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [
        (z_above, "proved"),
        (z_not_below, "proved"),
        (hidden_above, "proved"),
        (hidden_not_below, "wrong"),
        (hidden_is_zero, "proved"),
        (half_of_sign, "proved"),
        (sign_of_hidden, "proved"),
    ],
)
def test_a_slope_is_proved_on_either_side_of_a_kink_and_nowhere_else(slope: Any, verdict: str) -> None:
    proof = gdc.prove(Relu(slope))

    assert proof.verdict == verdict
    assert proof.context["kinks"] == ["w[0]*x[0] + w[1]*x[1] = 0"]
    assert "away from the kinks of each sample: w[0]*x[0] + w[1]*x[1] = 0" in " ".join(proof.statement())


def test_what_is_true_for_the_allowed_targets_alone_is_said_to_be() -> None:
    class Labelled(Line):
        target_values: ClassVar[tuple[float, ...] | None] = (0.0, 1.0)

        def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            return targets * targets * (features @ params["w"])

        def per_sample_gradients(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            return {"w": targets[:, None] * features}

    class Unlabelled(Labelled):
        target_values: ClassVar[tuple[float, ...] | None] = None

    proof = gdc.prove(Labelled())

    assert proof.verdict == "proved"
    assert "targets 0 or 1" in " ".join(proof.statement())
    assert {entry.only for entry in proof.entries if entry.claim == "gradient"} == {("targets",)}
    assert gdc.prove(Unlabelled()).verdict == "wrong"


class Logarithms(Problem):
    """The loss of the derivation is the logarithm of a product, that of the formula a sum: beyond the rules."""

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"a": (), "b": ()}

    def start(self, data: Dataset) -> Any:
        return {"a": np.array(2.0), "b": np.array(3.0)}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        return (xp.log(params["a"]) + xp.log(params["b"])) * targets

    def value_and_gradient(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        total = xp.mean(targets)
        loss = xp.log(params["a"] * params["b"]) * total
        return loss, {"a": total / params["a"], "b": total / params["b"]}


def test_what_no_rule_decides_is_undecided_and_not_proved() -> None:
    proof = gdc.prove(Logarithms())

    assert proof.verdict == "undecided"
    assert not proof
    assert "Undecided: loss: it is 0 at every point tried, but no rule here makes it 0" in str(proof)
    assert "Proved for n = 3, d = 2: gradient of a, b; " in str(proof)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from within a garbage collection
def test_out_of_time_is_undecided() -> None:
    proof = gdc.prove("softmax-regression", seconds=1e-3)

    assert proof.verdict == "undecided"
    late = {"not within 0.001 s", "they do not stand on symbols: not within 0.01 s"}
    assert late & {entry.why for entry in proof.entries}


def test_interrupted_keeps_what_was_decided() -> None:
    def watch(steps: Sequence[Any]) -> Iterable[Any]:
        for number, step in enumerate(steps):
            if number == 4:
                raise KeyboardInterrupt
            yield step

    proof = gdc.prove("linear-regression", watch=watch)

    assert proof.interrupted
    assert [entry.verdict for entry in proof.entries][:4] == ["proved", "proved", "proved", "undecided"]
    assert {entry.why for entry in proof.entries[3:]} == {"interrupted"}


@pytest.mark.thorough
def test_a_proof_shows_itself_everywhere() -> None:
    proof = gdc.prove("huber-regression", features=1, samples=2)

    assert repr(proof) == "Proof(proved, 9 entries, HuberRegression with delta = 1.0)"
    assert "HuberRegression with delta = 1.0: n = 2, d = 1" in str(proof)
    assert proof.table.columns == ("claim", "parameter", "verdict", "components", "seconds")
    assert "<table" in proof._repr_html_()
    found = json.loads(proof.to_json())
    assert found["verdict"] == "proved"
    assert {entry["verdict"] for entry in found["entries"]} == {"proved"}
    assert found["context"]["n"] == 2
    assert found["statement"] == proof.statement()
    assert max(map(len, str(proof.table).splitlines())) <= 80


def test_the_formulas_come_in_latex() -> None:
    lines = gdc.prove("linear-regression", features=1).latex.splitlines()

    assert lines[0] == r"\begin{align*}"
    assert lines[1] == r"  \ell &= \left(\theta_{0} + \theta_{1,0} x_{0} - y\right)^{2} \\"
    assert lines[2].startswith(r"  \frac{\partial \ell}{\partial \theta_{0}} &= 2 \theta_{0}")
    assert lines[-1] == r"\end{align*}"


@pytest.mark.thorough
def test_many_kinks_have_names_in_latex() -> None:
    written = gdc.prove(gdc.load_problem("relu-network", widths=(4,)), samples=1).latex

    assert r"c_{4} &= \left[" in written
    assert "> 0" not in written.partition(r"c_{1} &=")[0]


def test_names_that_would_break_a_page_or_latex_are_escaped() -> None:
    class Named(Line):
        def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
            return {"<b>50%_{x}</b>": data.features.shape[1:]}

        def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            return (features @ params["<b>50%_{x}</b>"]) ** 2

        def per_sample_gradients(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            return {"<b>50%_{x}</b>": 2 * (features @ params["<b>50%_{x}</b>"])[:, None] * features}

    proof = gdc.prove(Named())

    assert proof
    assert "<b>" not in proof._repr_html_()
    assert r"\text{<b>50\%\_\{x\}</b>}_{0}" in proof.latex


@pytest.mark.parametrize("name", ["x", "y", "v"])
def test_a_parameter_may_be_named_as_the_data_are(name: str) -> None:
    class Named(Problem):
        def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
            return {name: data.features.shape[1:]}

        def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            return (features @ params[name]) * targets

        def per_sample_gradients(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            return {name: features * targets[:, None]}

    formulas = Formulas(Named(), Size(2, 2))
    arrays = [*formulas.params.values(), formulas.features, formulas.targets, *formulas.direction.values()]
    names = [str(each) for array in arrays for each in array.flat]

    assert len(names) == len(set(names))
    assert gdc.prove(Named())


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("theta", r"\theta"),
        ("theta_1[0,2]", r"\theta_{1,0,2}"),
        ("W", "W"),
        ("rate", r"\mathit{rate}"),
        ("v.theta_0", r"\text{v.theta\_0}"),
        ("a$b", r"\text{a\$b}"),
    ],
)
def test_symbols_in_latex(name: str, written: str) -> None:
    assert symbol(name) == written


def test_a_problem_that_takes_another_width_is_proved_at_that() -> None:
    assert str(gdc.prove("exponential-decay", samples=1).context["d"]) == "1"
    assert smallest_size(gdc.load_problem("matrix-factorisation"), 1, gdc.datasets.noisy_line()).d == 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 0}, "samples must be a whole number, 1 or above, not 0"),
        ({"features": 1.5}, "features must be a whole number, 1 or above, not 1.5"),
        ({"outputs": 3}, r"LinearRegression takes targets of shape \(n,\): outputs=3 has no meaning there"),
        ({"seconds": float("nan")}, "seconds must be a number above 0, not nan"),
    ],
)
def test_sizes_that_are_none_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gdc.prove("linear-regression", **settings)


def test_a_width_that_the_problem_does_not_take_is_refused_in_its_words() -> None:
    with pytest.raises(ValueError, match="ExponentialDecay takes one feature"):
        gdc.prove("exponential-decay", features=2)


def test_nothing_derived_is_nothing_to_prove() -> None:
    class Bare(Line):
        per_sample_gradients = Problem.per_sample_gradients

    with pytest.raises(NotDerivedError, match="Bare has nothing derived by hand to prove"):
        gdc.prove(Bare())


def test_a_formula_that_cannot_run_on_symbols_is_named_with_its_line() -> None:
    class Whole(Line):
        def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            z = features @ params["w"]
            return xp.astype(z, xp.int64) * z

    with pytest.raises(
        FormulaError, match=r"test_proof.py:\d+: `xp.astype\(z, xp.int64\)` in per_sample_losses cannot run"
    ):
        gdc.prove(Whole())


def test_without_sympy_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sympy", None)

    with pytest.raises(ImportError, match=r"^a proof needs 'sympy': pip install 'gdcompare\[symbolic\]'$"):
        gdc.prove("linear-regression")


def test_a_derivation_of_the_wrong_shape_or_name_is_refused() -> None:
    class Short(Line):
        def value_and_gradient(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            return xp.mean(targets), {"w": xp.sum(features)}

    class Misnamed(Short):
        def value_and_gradient(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
            return xp.mean(targets), {"v": xp.sum(features, axis=0)}

    with pytest.raises(FormulaError, match=r"Short has derived 'w' in the shape \(\); it must be \(2,\)"):
        gdc.prove(Short())
    with pytest.raises(FormulaError, match=r"Misnamed has derived no gradient of its parameter 'w'"):
        gdc.prove(Misnamed())


def test_a_proof_needs_no_numbers_from_sympys_floats() -> None:
    formulas = Formulas(gdc.load_problem("ridge-regression"), Size(3, 2))

    assert not any(sympy.sympify(each).has(sympy.Float) for each in (*formulas.losses, formulas.by_hand[0]))


def test_a_derivation_is_typeset_for_so_many_features() -> None:
    assert r"\theta_{1,1}" in typeset("linear-regression")
    assert r"\theta_{1,1}" not in typeset("linear-regression", 1)
    assert r"\theta_{1,0}" in typeset("linear-regression", 1)
