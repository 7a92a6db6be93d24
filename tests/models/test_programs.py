"""Models as they stand, judged by the truth of their own programs: right ones agree, and planted faults are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.arithmetic.program import ProgramError
from gdcompare.models.rules import faulty
from tests.models.zoo import jax_zoo, numbers, torch_zoo

torch = pytest.importorskip("torch", reason="reads the programs of torch")
jax = pytest.importorskip("jax", reason="reads the programs of JAX")
for module in ("equinox", "flax", "optax"):
    pytest.importorskip(module, reason="reads the programs of JAX's libraries")

import gdcompare_jax  # noqa: E402 - the frameworks may be missing
import gdcompare_torch  # noqa: E402

ZOO = {("torch", name): case for name, case in torch_zoo().items()} | {
    ("jax", name): case for name, case in jax_zoo().items()
}
ALWAYS = {
    "mlp", "block, mask -inf", "block, finite mask", "cnn", "convolution", "batch norm, training", "embedding", "gru",
    "written in place", "a branch", "cross entropy",
}  # fmt: skip
CASES = [
    pytest.param(case, id=": ".join(name), marks=[] if name[1] in ALWAYS else [pytest.mark.thorough])
    for name, case in ZOO.items()
]
FEATURES, TARGETS = numbers(6, 3), numbers(6)
WEIGHTS = {"w": numbers(3, seed=5)}

Make = Callable[[], Any]


def torch_loss(loss: Callable[..., Any]) -> Any:
    return gdcompare_torch.from_function(loss, WEIGHTS, name="mine")


def jax_loss(loss: Callable[..., Any]) -> Any:
    return gdcompare_jax.from_function(loss, WEIGHTS, name="mine")


def judged(native: Any, **how: Any) -> gdc.Report:
    return gdc.verify(native, (FEATURES, TARGETS), **how)


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("make", CASES)
def test_a_right_gradient_agrees_and_a_scaled_one_does_not(
    make: Make, dtype: str, request: pytest.FixtureRequest
) -> None:
    native, data = make()
    by = 1e-6 if dtype == "float64" else 2e-2

    def scaled(params: Any, features: Any, targets: Any) -> Any:
        loss, gradient = native.value_and_grad(params, features, targets)
        name = max(gradient, key=lambda each: float(np.abs(gradient[each]).max()))
        return loss, gradient | {name: (gradient[name] * (1 + by)).astype(dtype)}

    report = gdc.verify(native, data, dtype=dtype, implementations={"scaled": scaled})

    few_digits = {"inconclusive"} if "ctc" in request.node.name and dtype == "float32" else set()  # one bias cancels
    assert {each.verdict for each in report.entries if each.implementation == "model"} - few_digits == {"agree"}
    assert "wrong" in {each.verdict for each in report.entries if each.implementation == "scaled"}


@pytest.mark.thorough
@pytest.mark.parametrize("make", CASES)
def test_the_program_on_floats_computes_what_the_framework_does(make: Make) -> None:
    native, data = make()
    problem = native.posed(data).problem

    found = problem.program(len(problem.features))(np, *problem.params.values(), problem.features, problem.targets)

    due, _ = native.value_and_grad(problem.params, problem.features, problem.targets)
    np.testing.assert_allclose(float(found), float(due), rtol=1e-11)


Function: Any = torch.autograd.Function


class Squared(Function):  # type: ignore[misc]  # torch comes without types here
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        with torch.no_grad():  # which says nothing there
            return x.detach() * x

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return cotangent * ctx.saved_tensors[0]  # half of it


@jax.custom_vjp  # type: ignore[untyped-decorator]
def squared(x: Any) -> Any:
    return x * x


squared.defvjp(lambda x: (x * x, x), lambda x, cotangent: (cotangent * x,))


@jax.custom_jvp  # type: ignore[untyped-decorator]
def squared_forward(x: Any) -> Any:
    return x * x


squared_forward.defjvp(lambda primals, tangents: (primals[0] ** 2, primals[0] * tangents[0]))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "native",
    [
        torch_loss(lambda p, x, y: (Squared.apply(x @ p["w"]) - y) ** 2),
        jax_loss(lambda p, x, y: (squared(x @ p["w"]) - y) ** 2),
        jax_loss(lambda p, x, y: (squared_forward(x @ p["w"]) - y) ** 2),
    ],
    ids=["autograd.Function", "custom_vjp", "custom_jvp"],
)
def test_a_wrong_rule_has_no_part_in_the_truth(native: Any, dtype: str) -> None:
    wrong = [each for each in judged(native, dtype=dtype).entries if each.verdict == "wrong"]
    causes = {each.parameter: each.cause.partition("; the derivative of")[0] for each in wrong}

    assert causes == {"w": "a constant factor 1/2 in all 3 elements"}


class Scaled(Function):  # type: ignore[misc]
    @staticmethod
    def forward(x: Any, by: float, w: Any) -> Any:
        return x * by * w

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.saved = inputs

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        x, by, w = ctx.saved
        return cotangent * by * w, None, 3 * cotangent * by * x


@jax.custom_vjp  # type: ignore[untyped-decorator]
def scaled(x: Any, w: Any) -> Any:
    return x * w


scaled.defvjp(
    lambda x, w: (x * w, (x, w)), lambda kept, cotangent: (cotangent * kept[1], 3 * (cotangent * kept[0]).sum(0))
)


@jax.custom_vjp  # type: ignore[untyped-decorator]
def right(x: Any) -> Any:
    return jax.numpy.sin(x)


right.defvjp(lambda x: (jax.numpy.sin(x), x), lambda x, cotangent: (cotangent * jax.numpy.cos(x),))


@jax.custom_vjp  # type: ignore[untyped-decorator]
def softened(x: Any) -> Any:
    return x * jax.nn.softplus(x)


softened.defvjp(
    lambda x: (softened(x), x),
    lambda x, cotangent: (cotangent * (jax.nn.softplus(x) + x * jax.nn.sigmoid(x)) / 2,),
)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("native", "said"),
    [
        (
            torch_loss(lambda p, x, y: (Squared.apply(x @ p["w"]) - y) ** 2),
            "the derivative of Squared, used at test_programs.py:{line}, is wrong by itself "
            "(by x: a constant factor 1/2 in all 6 elements)",
        ),
        (
            torch_loss(lambda p, x, y: Scaled.apply(x.sin(), 0.5, p["w"]).sum(1)),
            "the derivative of Scaled, used at test_programs.py:{line}, is wrong by itself "
            "(by w: a constant factor 3 in all 3 elements)",
        ),
        (
            jax_loss(lambda p, x, y: (right(squared(x @ p["w"])) - y) ** 2),
            "the derivative of squared, used at test_programs.py:{line}, is wrong by itself "
            "(by input: a constant factor 1/2 in all 6 elements)",
        ),
        (
            jax_loss(lambda p, x, y: (softened(x @ p["w"]) - y) ** 2),
            "the derivative of softened, used at test_programs.py:{line}, is wrong by itself "
            "(by input: a constant factor 1/2 in all 6 elements)",
        ),
        (
            jax_loss(lambda p, x, y: jax.numpy.sin(scaled(x, p["w"])).sum(1)),
            "the derivative of scaled, used at test_programs.py:{line}, is wrong by itself "
            "(by input 1: a constant factor 3 in all 3 elements)",
        ),
    ],
    ids=["Function", "one of several inputs", "custom_vjp", "traced for a dtype", "an input of custom_vjp"],
)
def test_the_wrong_rule_in_a_model_is_named(native: Any, said: str, dtype: str) -> None:
    [cause] = [each.cause for each in judged(native, dtype=dtype).entries if each.verdict == "wrong"]

    line = cause.partition("test_programs.py:")[2].partition(",")[0]
    assert said.format(line=line) in cause
    assert "apply(" in (text := Path(__file__).read_text().splitlines()[int(line) - 1]) or "(x" in text
    assert "right" not in cause.partition("derivative of")[2]


@pytest.mark.parametrize("many", [5, 5000])
def test_no_rule_is_blamed_for_another_fault(many: int) -> None:
    native = torch_loss(lambda p, x, y: Scaled.apply((x.sum() * p["w"][0]).expand(many), 0.5, x.sum()).mean())
    rules = native.rules({"w": WEIGHTS["w"]}, FEATURES, TARGETS)

    assert [each.name for each in rules] == ["Scaled"]
    assert faulty(rules, "float64") == ""


@pytest.mark.parametrize(
    "function", [gdcompare_torch.from_autograd_function(Squared), gdcompare_jax.from_autograd_function(squared)]
)
def test_an_operation_needs_no_formula(function: Any) -> None:
    report = gdc.verify(function, params={"x": [1.0, -2.0, 0.5]})

    assert {each.parameter: each.verdict for each in report.entries} == {"loss": "agree", "x": "wrong"}


def without_gradient(p: Any, x: Any, y: Any) -> Any:
    with torch.no_grad():
        scale = (x @ p["w"]).sin()
    return (scale * (x @ p["w"]) * (x @ p["w"]).detach() - y) ** 2


@pytest.mark.parametrize(
    "native",
    [
        torch_loss(without_gradient),
        jax_loss(lambda p, x, y: (jax.lax.stop_gradient(jax.numpy.sin(x @ p["w"])) * (x @ p["w"]) - y) ** 2),
    ],
    ids=["torch", "jax"],
)
@pytest.mark.parametrize("derivative", ["gradient", "hvp"])
def test_what_is_not_differentiated_is_a_constant(native: Any, derivative: str) -> None:
    judged(native, derivative=derivative).assert_agree()


def only_here(p: Any, x: Any, y: Any) -> Any:
    if p["w"].tolist() != WEIGHTS["w"].tolist():
        raise RuntimeError
    return (x[:, 0].requires_grad_() - y) ** 2


@pytest.mark.parametrize(
    ("loss", "verdict", "said"),
    [
        (torch_loss(only_here), "inconclusive", "the program does not show it, and whether the loss moves with it is"),
        (torch_loss(lambda p, x, y: (x @ p["w"].detach() - y + 0 * x[:, 0].requires_grad_()) ** 2), "agree", "cut off"),
        (jax_loss(lambda p, x, y: (x @ jax.lax.stop_gradient(p["w"]) - y) ** 2), "agree", "cut off from the loss"),
        (jax_loss(lambda p, x, y: y**2), "agree", "the loss does not use it"),
        (torch_loss(lambda p, x, y: (x @ torch.tensor(p["w"].tolist()).to(x) - y + 0 * x[:, 0].requires_grad_()) ** 2),
         "inconclusive", "the loss moves with it, and the program does not show how"),
    ],
    ids=["elsewhere it fails", "detached", "stopped", "unused", "numbers"],
)  # fmt: skip
def test_why_a_gradient_is_0_that_no_slope_reaches_is_said(loss: Any, verdict: str, said: str) -> None:
    report = judged(loss)

    (entry,) = (each for each in report.entries if each.parameter == "w")
    assert report.verdict == entry.verdict == verdict
    assert entry.cause.startswith(said)
    assert ("test_programs.py:" in entry.cause) == (said[:3] == "cut")


@pytest.mark.parametrize(
    ("native", "said"),
    [
        (torch_loss(lambda p, x, y: (torch.nn.functional.dropout(x, 0.5) @ p["w"] - y) ** 2), "draws random numbers"),
        (torch_loss(lambda p, x, y: (x @ p["w"] * (x @ p["w"]).sum().item() - y) ** 2), "makes a Python number"),
        (torch_loss(lambda p, x, y: ((x @ p["w"]).float().double() - y) ** 2), "rounds to float32"),
        (torch_loss(lambda p, x, y: torch.nansum((x @ p["w"] - y) * (p["w"][0] - p["w"][0]) / 0) + y), "looks for NaN"),
        (jax_loss(lambda p, x, y: ((x @ p["w"]).astype("float32") - y) ** 2), "rounds to float32"),
        (gdc.from_functions(lambda p, x, y: 0.0, lambda p, x, y: p, WEIGHTS), "has no graph"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(native: Any, said: str) -> None:
    with pytest.raises(ProgramError, match=said) as error:
        native.program(native.parameters, FEATURES, TARGETS)

    assert "test_programs.py:" in str(error.value) or "has no graph" in said
    ways_out = "compare", ".eval()", "Leave it", "Judge it in float32"
    assert any(each in str(error.value) for each in ways_out)


def test_a_loop_of_unknown_length_is_said() -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        return jax.lax.while_loop(lambda h: h.sum() > 100, lambda h: h / 2, x @ p["w"]).sum() - y.sum()

    with pytest.raises(ProgramError, match=r"test_programs.py:.*how often a while loop runs depends"):
        jax_loss(loss).program(WEIGHTS, FEATURES, TARGETS)


def test_a_branch_that_goes_both_ways_is_said() -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        h = x @ p["w"]
        return (h.sin() if bool((x[:, 0] > 0).all()) else h.cos()) - y

    native = torch_loss(lambda p, x, y: loss(p, x, y) ** 2)
    data = np.where(np.arange(6)[:, None] < 4, 1.0, -1.0) * np.abs(FEATURES), TARGETS

    with pytest.raises(
        ValueError, match=r"applies to .*: no program of one row serves all: a branch at .* for some rows"
    ):
        gdc.check_batch_laws(native, data)
    assert gdc.verify(native, data, dtype="float32").verdict == "agree"


def test_a_mask_that_a_tie_decides_is_said() -> None:
    def clipped(p: Any, x: Any, y: Any) -> Any:
        scores = x @ p["w"] * 1
        scores[scores < 0] = 0.0
        return (scores - y) ** 2

    assert judged(torch_loss(clipped)).verdict == "agree"
    with pytest.raises(ProgramError, match="goes one way for some rows or values"):
        judged(torch_loss(clipped), params={"w": np.zeros(3)})


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_labels_may_be_made_one_hot(dtype: str) -> None:
    labels = np.arange(6) % 3

    def loss(p: Any, x: Any, y: Any) -> Any:
        scores = torch.log_softmax(x * p["w"], dim=1)
        return -(torch.nn.functional.one_hot(y, num_classes=3) * scores).sum(1)

    assert gdc.verify(torch_loss(loss), (FEATURES, labels), dtype=dtype).verdict == "agree"


@pytest.mark.thorough
def test_what_prints_is_read_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        jax.debug.print("{w}", w=p["w"])
        return (jax.numpy.nansum(x * p["w"], axis=1) - y) ** 2

    judged(jax_loss(loss)).assert_agree()
    assert capsys.readouterr().out


def test_the_users_module_and_random_numbers_are_left_as_they_are() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()

    judged(gdcompare_torch.from_module(model, lambda o, t: ((o[:, 0] - t) ** 2).mean()))

    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not jax.config.jax_enable_x64


@pytest.mark.thorough
def test_laws_hold_for_a_model_and_do_not_apply_where_rows_are_coupled() -> None:
    native = jax_loss(lambda p, x, y: (jax.numpy.tanh(x @ p["w"]) - y) ** 2)
    gdc.check_batch_laws(native, (FEATURES, TARGETS)).assert_agree()

    coupled = jax_loss(lambda p, x, y: ((x @ p["w"] - (x @ p["w"]).mean()) ** 2).mean())
    report = judged(coupled)
    report.assert_agree()
    assert report.context["problem"] == "mine, whose 6 rows are one sample,"
    with pytest.raises(ValueError, match="no batch law applies to 'mine': the loss of a row depends"):
        gdc.check_batch_laws(coupled, (FEATURES, TARGETS))


@pytest.mark.parametrize("column", ["outputs", "targets"])
@pytest.mark.parametrize("make", [torch_loss, jax_loss])
def test_outputs_that_meet_every_target_are_told(make: Any, column: str) -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        return ((x @ (p["w"][:, None] if column == "outputs" else p["w"]) - y) ** 2).mean()

    targets = TARGETS[:, None] if column == "targets" else TARGETS
    report = gdc.verify(make(loss), (FEATURES, targets))
    (entry,) = (each for each in report.entries if each.parameter == "loss")

    assert entry.verdict == "agree"
    assert report.explanation().count(entry.cause) == str(report).count(entry.cause) == 1
    assert "outputs and targets, one (6,) and the other (6, 1), make (6, 6) together" in entry.cause
    assert "test_programs.py:" in entry.cause


def test_pairs_of_rows_that_are_meant_are_no_slip() -> None:
    ranks = torch_loss(lambda p, x, y: torch.sigmoid((x @ p["w"])[:, None] - (x @ p["w"]) - y[:, None] + y).mean())

    assert not any("together" in each.cause for each in judged(ranks).entries)


def test_models_of_two_frameworks_are_judged_beside_each_other() -> None:
    one = jax_loss(lambda p, x, y: (jax.numpy.tanh(x @ p["w"]) - y) ** 2)
    other = torch_loss(lambda p, x, y: (torch.tanh(x @ p["w"]) - y) ** 2)

    report = judged(one, implementations={"port": other}, params={"w": [0.5, 1.0, -2.0]})

    report.assert_agree()
    assert {each.implementation for each in report.entries} == {"mine", "port"}


DEALT = torch.utils.data.TensorDataset(torch.tensor(FEATURES), torch.tensor(TARGETS))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DEALT, r"a pair \(features, targets\), not a TensorDataset of 6: give its .tensors"),
        (torch.utils.data.DataLoader(DEALT, 3), "not a DataLoader of 2: give one batch of it, next"),
        ({"x": FEATURES, "y": TARGETS}, "not a dict of x, y"),
        (FEATURES[:2], r"not a ndarray of shape \(2, 3\)"),
        ((FEATURES.astype(object), TARGETS), r"the features hold object, .*: objects, .* astype\(float\)"),
    ],
    ids=["tensors", "loader", "dict", "two rows", "objects"],
)
def test_what_is_no_pair_of_arrays_is_said(data: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gdc.verify(torch_loss(lambda p, x, y: (x @ p["w"] - y) ** 2), data)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda p, x, y: ((x @ p["w"] - y) ** 2).mean().item(), r"the loss is a float, .* no .item\(\)"),
        (lambda p, x, y: ((x @ p["w"] - y) ** 2, x), "the loss is a tuple, .* return the loss alone"),
        (lambda p, x, y: (x @ p["w"] > y).long(), "the loss holds torch.int64, and whole numbers have no gradient"),
        (lambda p, x, y: (x @ p["w"].detach() - y) ** 2, "no slope of the loss reaches a parameter: it is detached"),
    ],
    ids=["float", "tuple", "whole", "detached"],
)
def test_what_has_no_gradient_is_said(loss: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        judged(torch_loss(loss))


def test_a_module_of_torchs_own_is_named_where_no_line_is_the_users() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1), torch.nn.Flatten(0))
    native = gdcompare_torch.from_module(module, torch.nn.functional.mse_loss)

    report = gdc.verify(native, (1e3 * FEATURES, TARGETS))

    assert report.verdict == "inconclusive"
    assert any("the slope of tanh at Tanh.forward loses its digits" in each.cause for each in report.entries)


def test_what_is_beyond_floats_on_the_way_is_no_fault_of_the_reader() -> None:
    native = torch_loss(lambda p, x, y: torch.hypot(1e200 * (x @ p["w"]), 1e200 * y))

    with pytest.raises(ProgramError, match=r"hypot at test_programs.py:\d+ is beyond floats there. Judge it where"):
        judged(native)


@pytest.mark.parametrize(
    ("loss", "verdict"),
    [
        (torch_loss(lambda p, x, y: (torch.nansum(torch.where(x > 0, torch.nan, x * p["w"]), 1) - y) ** 2), "agree"),
        (jax_loss(lambda p, x, y: jax.numpy.nansum(jax.numpy.where(x > 0, x * p["w"], np.nan), 1) * y), "agree"),
        (torch_loss(lambda p, x, y: torch.where(x > 0, (x.relu() * p["w"] ** 2).sqrt(), 0.0).sum(1) * y), "wrong"),
    ],
    ids=["torch", "jax", "a slope of NaN behind a mask"],
)
def test_what_is_no_number_may_be_left_out_and_its_slope_too(loss: Any, verdict: str) -> None:
    entries = {each.parameter: each.verdict for each in gdc.verify(loss, (FEATURES, TARGETS)).entries}

    assert entries == {"loss": "agree", "w": verdict}


def test_data_may_be_tensors_that_record() -> None:
    given = torch.tensor(FEATURES, requires_grad=True), torch.tensor(TARGETS)

    assert gdc.verify(torch_loss(lambda p, x, y: (x @ p["w"] - y) ** 2), given).verdict == "agree"


@pytest.mark.parametrize(
    ("data", "how", "said"),
    [
        ((FEATURES, TARGETS[:3]), {}, "must have a row for each sample"),
        ((FEATURES[:, :2], TARGETS), {}, "'mine' fails on these data, features"),
        (None, {}, "needs data"),
        ((FEATURES, TARGETS), {"params": {"v": [1.0]}}, "has the parameters w; got v"),
        ((FEATURES, TARGETS), {"params": {"w": []}}, r"parameter 'w' of 'mine' has the shape \(0,\), .*leave it out"),
        (gdc.Dataset(FEATURES, TARGETS, weights=np.ones(6)), {}, "takes no sample weights"),
        ((FEATURES, TARGETS), {"implementations": {"mine": print}}, "the model itself is called 'mine'"),
    ],
)  # fmt: skip
def test_bad_input_is_said_before_the_work(data: Any, how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gdc.verify(torch_loss(lambda p, x, y: (x @ p["w"] - y) ** 2), data, **how)
