"""Models beside their own truths, and the truths beside each other: who is wrong, and which are different functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flint import arb

import gdcompare as gdc

torch: Any = pytest.importorskip("torch", reason="reads the programs of torch")
jax: Any = pytest.importorskip("jax", reason="reads the programs of JAX")

import gdcompare_jax  # noqa: E402 - the frameworks may be missing
import gdcompare_torch  # noqa: E402
from gdcompare_jax import tap  # noqa: E402

from gdcompare.arithmetic.balls import as_balls  # noqa: E402
from gdcompare.arithmetic.program import Draft  # noqa: E402
from gdcompare.models.alike import Known, apart  # noqa: E402
from gdcompare.models.constants import explained  # noqa: E402
from gdcompare.models.native import Native  # noqa: E402

jnp = jax.numpy

GENERATOR = np.random.default_rng(0)
WIDTH = 4
FEATURES, TARGETS = GENERATOR.normal(size=(3, WIDTH)), GENERATOR.normal(size=3)
START = {
    "a": GENERATOR.normal(size=(WIDTH, WIDTH)),
    "g": GENERATOR.normal(size=WIDTH),
    "b": GENERATOR.normal(size=WIDTH),
}
EPSILON = 1e-3


def normed(xp: Any, x: Any, epsilon: float = EPSILON, inside: bool = True, ddof: int = 0) -> Any:
    """(x - mean) / sqrt(variance + epsilon), over the last axis; written alike for both frameworks."""
    off = x - x.mean(-1)[..., None]
    variance = (off * off).sum(-1)[..., None] / (x.shape[-1] - ddof)
    return off / (xp.sqrt(variance + epsilon) if inside else xp.sqrt(variance) + epsilon)


@jax.custom_vjp  # type: ignore[untyped-decorator]  # JAX comes without types here
def half_square(x: Any) -> Any:
    return x * x


half_square.defvjp(lambda x: (x * x, x), lambda x, cotangent: (cotangent * x,))  # half of it


class HalfSquare(torch.autograd.Function):  # type: ignore[misc]  # torch comes without types here
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return cotangent * ctx.saved_tensors[0]


def of_torch(loss: Callable[..., Any] | None = None, name: str = "one") -> Native:
    """A module, whose layers are seen; or a loss of tensors."""
    return (
        gdcompare_torch.from_function(loss, START, name=name)
        if loss
        else gdcompare_torch.from_module(Net(), lambda outputs, targets: (outputs - targets) ** 2, name=name)
    )


class Norm(torch.nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return normed(torch, x)


class Net(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        for name, value in START.items():
            setattr(self, name, torch.nn.Parameter(torch.tensor(value)))
        self.norm, self.square = Norm(), Square()

    def forward(self, x: Any) -> Any:
        return (self.square(self.norm(x @ self.a) * self.g + self.b)).sum(-1)


class Square(torch.nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return x * x


def of_jax(
    norm: Callable[..., Any] = normed, square: Callable[..., Any] = lambda x: x * x, name: str = "port"
) -> Native:
    def loss(p: Any, x: Any, y: Any) -> Any:
        hidden = tap("norm", norm(jnp, x @ p["a"])) * p["g"] + p["b"]
        return (tap("square", square(hidden)).sum(-1) - y) ** 2

    return gdcompare_jax.from_function(loss, START, name=name)


def compared(*models: Native, **how: Any) -> gdc.Comparison:
    return gdc.compare(models, (FEATURES, TARGETS), **how)


def kinds(report: gdc.Comparison) -> list[str]:
    return [each.kind for each in report.answers]


# The three answers


@pytest.mark.thorough
def test_a_right_port_is_all_rounding_and_says_by_what_evidence(dtype: str) -> None:
    report = compared(of_torch(), of_jax(), dtype=dtype)

    report.assert_agree()
    assert kinds(report) == ["rounding"]
    assert report.answers[0].grade == ("proven" if dtype == "float64" else "sampled")
    assert "the programs are one function" in report.explanation()
    assert "judged by the truth of their own programs: 'one', 'port'" in report.explanation()
    assert "estimated" not in report.explanation()
    assert {each.law for each in report.entries} == {"own truth", "function", "per sample"}
    assert {each.verdict for each in report.layers} == {"agree"}
    found = json.loads(report.to_json())
    assert [each["evidence"] for each in found["models"]] == ["truth", "truth"]
    assert found["answers"][0]["kind"] == "rounding"
    assert {"verdict", "context", "entries", "layers", "first_difference", "remarks"} <= set(found)


@pytest.mark.thorough
def test_a_wrong_backward_pass_is_a_wrong_gradient_and_no_other_function(dtype: str) -> None:
    report = compared(of_torch(), of_jax(square=half_square), dtype=dtype)

    assert kinds(report) == ["wrong gradient"]
    answer = report.answers[0]
    assert answer.models == ("port",)
    assert answer.layer == "norm"
    assert {each.implementation for each in report.entries if each.verdict == "wrong"} == {"port"}
    assert {each.verdict for each in report.entries if each.law == "function"} == {"agree"}


@pytest.mark.thorough
def test_a_wrong_backward_pass_of_the_source_is_its_own() -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        return (HalfSquare.apply(normed(torch, x @ p["a"]) * p["g"] + p["b"]).sum(-1) - y) ** 2

    report = compared(of_torch(loss), of_jax())

    assert [(each.kind, each.models) for each in report.answers] == [("wrong gradient", ("one",))]


@pytest.mark.thorough
def test_a_wrong_backward_pass_and_another_function_are_both_said() -> None:
    report = compared(of_torch(), of_jax(lambda xp, x: normed(xp, x, 2 * EPSILON), half_square))

    assert kinds(report) == ["wrong gradient", "different functions"]
    wrong, different = report.answers
    assert (wrong.models, wrong.layer) == (("port",), "norm")
    assert (different.layer, different.cause) == (
        "norm",
        "another epsilon inside the root: 0.001 in 'one', 0.002 in 'port'",
    )
    assert report.verdict == "wrong"


CAUSES: dict[str, tuple[Callable[..., Any], str]] = {
    "epsilon outside": (
        lambda xp, x: normed(xp, x, inside=False),
        "epsilon 0.001 inside the root in 'one', outside of the root in 'port'",
    ),
    "epsilon": (lambda xp, x: normed(xp, x, 1e-4), "another epsilon inside the root: 0.001 in 'one', 0.0001 in 'port'"),
    "variance": (
        lambda xp, x: normed(xp, x, ddof=1),
        "n - 1 in the other, as a variance that is not biased: 4.0 in 'one', 3.0 in 'port'",
    ),
    "scale": (lambda xp, x: 2 * normed(xp, x), "larger in 'port' by a factor"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("which", CAUSES)
def test_a_cause_is_named_at_its_layer(which: str) -> None:
    norm, said = CAUSES[which]

    report = compared(of_torch(), of_jax(norm), rows=0)

    (answer,) = report.answers
    assert (answer.kind, answer.layer) == ("different functions", "norm")
    assert said in answer.cause


# Constants, several models, and what cannot be read


def wave(constant: Any, name: str) -> Native:
    weights = {"w": START["g"]}
    return gdcompare_torch.from_function(
        lambda p, x, y: (torch.sin(constant * (x @ p["w"])) - y) ** 2, weights, name=name
    )


def test_a_constant_in_float32_is_no_other_function_but_beyond_rounding_in_float64() -> None:
    wide, narrow = (
        compared(wave(0.1, "one"), wave(torch.tensor(0.1), "port"), dtype=d) for d in ("float64", "float32")
    )

    assert (kinds(wide), wide.verdict) == (["constants"], "wrong")
    assert "0.1 is 0.10000000149011612 in 'port', a float32" in wide.answers[0].said
    assert (kinds(narrow), narrow.verdict) == (["rounding"], "agree")
    assert "0.1 is 0.10000000149011612 in 'port', a float32" in narrow.answers[0].said


def test_a_constant_that_is_no_rounding_is_another_function(dtype: str) -> None:
    report = compared(wave(0.1, "one"), wave(0.1001, "port"), dtype=dtype)

    assert kinds(report) == ["different functions"]
    assert "another constant, or scale: 0.1 in 'one', 0.1001 in 'port'" in report.answers[0].said


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_the_one_of_three_that_is_another_function_is_named(odd: int) -> None:
    names = ["a", "b", "c"]

    report = compared(*(wave(0.25 if i == odd else 0.5, name) for i, name in enumerate(names)))

    assert [(each.kind, each.models[1]) for each in report.answers] == [("different functions", names[odd])]


def test_a_sum_for_a_mean_is_told_without_layers() -> None:
    def line(reduced: str, name: str) -> Native:
        def loss(p: Any, x: Any, y: Any) -> Any:
            return getattr((x @ p["g"] - y) ** 2, reduced)()

        return gdcompare_torch.from_function(loss, {"g": START["g"]}, name=name)

    report = compared(line("mean", "one"), line("sum", "port"))

    assert "larger in 'port' by a factor n = 3: a sum for a mean" in report.answers[0].said


@pytest.mark.parametrize(
    ("through", "cause"),
    [
        (lambda h, p: h.detach(), "'port' cuts the gradient off at test_truths.py:"),
        (lambda h, p: 0.5 * h + (0.5 * h).detach(), "'port' cuts the gradient off at test_truths.py:"),
        (lambda h, p: torch.tensor(np.tanh(FEATURES @ START["a"])), "'a' of 'port': the loss does not use it"),
        (lambda h, p: torch.tensor(np.tanh(FEATURES @ START["a"])) + 0 * p["a"].sum(), "why is not known"),
    ],
)
def test_gradients_that_differ_where_values_are_the_same_are_told_with_the_cut(through: Any, cause: str) -> None:
    def line(through: Any, name: str) -> Native:
        def loss(p: Any, x: Any, y: Any) -> Any:
            return ((through(torch.tanh(x @ p["a"]), p) @ p["g"] - y) ** 2).mean()

        return gdcompare_torch.from_function(loss, {key: START[key] for key in "ag"}, name=name)

    (answer,) = compared(line(lambda h, p: h, "one"), line(through, "port")).answers

    assert "are different functions: their values are the same, and their gradients are not, first in a[" in answer.said
    assert cause in answer.said


def test_the_values_of_layers_are_the_same_too_where_a_gradient_is_cut_off() -> None:
    class Halves(torch.nn.Sequential):  # type: ignore[misc]  # torch comes without types here
        def forward(self, x: Any) -> Any:
            return self[1](self[0](x).detach())

    layers = torch.nn.Linear(WIDTH, 2), torch.nn.Linear(2, 2)
    models = [
        gdcompare_torch.from_module(kind(*layers), lambda out, y: (out.sum(1) - y) ** 2, name=name)
        for kind, name in ((torch.nn.Sequential, "one"), (Halves, "port"))
    ]

    (answer,) = compared(*models).answers

    assert "their values are the same, in 3 layers, too, and their gradients are not, first in 0.weight[" in answer.said
    assert "'port' cuts the gradient off at test_truths.py:" in answer.cause


def test_what_cannot_be_read_is_compared_by_an_estimate_and_says_why() -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        return ((x @ p["w"] - y) ** 2).mean()

    def slopes(p: Any, x: Any, y: Any) -> Any:
        return {"w": 3 * (x @ p["w"] - y) @ x / len(y)}

    read = gdcompare_torch.from_function(loss, {"w": START["g"]}, name="read")
    report = compared(read, gdc.from_functions(loss, slopes, name="by hand"))

    assert [(each.model, each.evidence) for each in report.evidence] == [("read", "truth"), ("by hand", "estimate")]
    assert "'by hand' is judged by an estimate: 'by hand' has no graph that could be read" in report.explanation()
    assert {each.verdict for each in report.entries if each.implementation == "read"} == {"agree"}
    assert report.answers == ()
    assert "'read' has the gradient of its own program" in next(e.cause for e in report.entries if e.verdict == "wrong")


def test_a_program_that_is_too_large_is_compared_by_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdcompare.models.truth.MOST_WORK", 10)

    report = compared(wave(0.5, "one"), wave(0.5, "port"))

    assert {each.evidence for each in report.evidence} == {"estimate"}
    assert all("operations, and no more than" in each.reason for each in report.evidence)
    assert report.answers == ()
    assert {each.law for each in report.entries} == {"", "per sample"}


def test_a_loss_that_couples_its_rows_has_a_truth_of_the_batch_though_no_row_is_watched() -> None:
    def coupled(p: Any, x: Any, y: Any) -> Any:
        z = x @ p["w"]
        return ((z - z.mean()) ** 2).mean()

    models = [gdcompare_torch.from_function(coupled, {"w": START["g"]}, name=name) for name in ("one", "port")]

    report = compared(*models, rows=0)

    assert (report.verdict, kinds(report)) == ("agree", ["rounding"])


# The oracle


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ([1.0, 2.0], "same"),
        ([1.0, 2.0 * (1 + 1e-21)], "same"),
        ([1.0, 2.0 * (1 + 2.0**-40)], "different"),
        ([-1.0, 2.0], "different"),
        ([1.0, "wide"], "unknown"),
        ([1.0, "unknown"], "unknown"),
    ],
)
def test_truths_are_told_apart_by_their_balls(other: list[Any], kind: str) -> None:
    known = {"wide": arb(2, 1e-3), "unknown": arb.nan()}
    balls = as_balls(np.array([arb(known.get(each, each)) for each in other], dtype=object))
    one = Known(as_balls([1.0, 2.0]), np.zeros(2, dtype=bool), np.full(2, 1e-15))

    assert apart(one, one._replace(balls=balls)).kind == kind


def test_what_constants_explain_is_what_their_rounding_does() -> None:
    draft = Draft()
    x = draft.input("x", np.array([1.0, 2.0]), "float64")
    program = draft.program(draft.multiply(x, 0.1))

    found = explained(program, [np.array(0.1)], lambda each: {"y": each(np, np.array([1.0, 2.0]))}, "float32")

    np.testing.assert_allclose(found["y"], 2.0**-23 * 0.1 * np.array([np.sqrt(2.5), 2.0]), rtol=1e-6)
