"""Torch modules and custom autograd functions as they are: right ports agree, wrong ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.problem import Dataset, Problem
from gdcompare.referee.counterexample import counterexample
from gdcompare.testing import GradientError, assert_gradients_agree
from tests.formulas import Network

torch = pytest.importorskip("torch", reason="checks adapters for torch")
nn = torch.nn
Module: Any = nn.Module

from gdcompare_torch import from_autograd_function, from_module  # noqa: E402 - torch may be missing

TANH = Network("tanh")
DATA = gdc.Dataset(
    np.random.default_rng(0).normal(size=(8, 3)).round(2), np.random.default_rng(1).normal(size=8).round(2)
)
LAYOUT: dict[str, Any] = {
    "0.weight": lambda p: p["inner"].T,
    "0.bias": "offsets",
    "2.weight": lambda p: p["outer"][None, :],
    "2.bias": lambda p: p["shift"][None],
}


def network(*more: Any) -> Any:
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0), *more)


def judged(native: gdc.Native, problem: Problem = TANH, dtype: str = "float64", data: Dataset = DATA) -> gdc.Report:
    return gdc.verify(problem, data, backends=[], implementations={"mine": native}, dtype=dtype)


def wrong(report: gdc.Report) -> dict[str, str]:
    return {entry.parameter: entry.cause for entry in report.entries if entry.verdict == "wrong"}


@pytest.mark.parametrize("loss", [nn.functional.mse_loss, nn.MSELoss(), lambda o, t: (o - t) ** 2])
def test_a_renamed_and_transposed_module_agrees(loss: Any, dtype: str) -> None:
    judged(from_module(network(), loss, layout=LAYOUT), dtype=dtype).assert_agree()


def test_the_users_module_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    native = from_module(model, lambda o, t: (o[:, 0] - t) ** 2)

    native.value_and_grad(native.parameters, DATA.features, DATA.targets)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert all(value.grad is None and value.requires_grad for value in model.parameters())


def test_a_module_computes_under_no_grad() -> None:
    with torch.no_grad():
        judged(from_module(network(), nn.functional.mse_loss, layout=LAYOUT)).assert_agree()


def test_per_sample_gradients_have_the_full_gradient_as_their_mean() -> None:
    native = from_module(network(), nn.functional.mse_loss)

    _, gradient = native.value_and_grad(native.parameters, DATA.features, DATA.targets)
    rows = native.per_sample_grad(native.parameters, DATA.features, DATA.targets)

    assert {name: each.shape for name, each in rows.items()} == {
        name: (8, *value.shape) for name, value in native.parameters.items()
    }
    for name, each in rows.items():
        np.testing.assert_allclose(each.mean(axis=0), gradient[name], rtol=1e-12, atol=1e-14)


def test_weighted_data_are_judged_by_the_weighted_mean(dtype: str) -> None:
    weighted = gdc.Dataset(DATA.features, DATA.targets, weights=np.arange(8.0))

    judged(from_module(network(), nn.functional.mse_loss, layout=LAYOUT), dtype=dtype, data=weighted).assert_agree()


# Fused, split and tied weights


@dataclass(frozen=True)
class Gated(Problem):
    """l_i = (sum_j tanh(q_j . x) (k_j . x) + v_j . x - y_i)^2, with three matrices or with one of all their rows."""

    fused: bool

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"in": (6, 3)} if self.fused else {"q": (2, 3), "k": (2, 3), "v": (2, 3)}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        parts = [params["in"][i : i + 2] for i in (0, 2, 4)] if self.fused else [params[name] for name in "qkv"]
        q, k, v = (features @ part.T for part in parts)
        return (xp.sum(xp.tanh(q) * k + v, axis=1) - targets) ** 2


class Fused(Module):  # type: ignore[misc]  # torch comes without types here
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(3, 6, bias=False)

    def forward(self, features: Any) -> Any:
        q, k, v = self.into(features).chunk(3, dim=1)
        return (torch.tanh(q) * k + v).sum(dim=1)


class Split(Module):  # type: ignore[misc]  # torch comes without types here
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(3, 2, bias=False) for _ in range(3))

    def forward(self, features: Any) -> Any:
        return (torch.tanh(self.q(features)) * self.k(features) + self.v(features)).sum(dim=1)


def fused_as(names: str) -> Any:
    return {"into.weight": lambda p: np.concatenate([p[name] for name in names])}


def test_fused_weights_are_loaded_from_separate_ones() -> None:
    judged(from_module(Fused(), nn.functional.mse_loss, layout=fused_as("qkv")), Gated(False)).assert_agree()


def test_separate_weights_are_loaded_from_fused_ones() -> None:
    layout: Any = {f"{name}.weight": lambda p, i=2 * j: p["in"][i : i + 2] for j, name in enumerate("qkv")}

    judged(from_module(Split(), nn.functional.mse_loss, layout=layout), Gated(True)).assert_agree()


def test_weights_fused_in_another_order_are_wrong() -> None:
    report = judged(from_module(Fused(), nn.functional.mse_loss, layout=fused_as("kqv")), Gated(False))

    assert {"q", "k"} <= set(wrong(report))


def test_weights_split_in_another_order_are_wrong() -> None:
    layout: Any = {f"{name}.weight": lambda p, i=2 * j: p["in"][i : i + 2] for j, name in enumerate("qvk")}

    report = judged(from_module(Split(), nn.functional.mse_loss, layout=layout), Gated(True))

    assert {"loss", "in"} <= set(wrong(report))


@dataclass(frozen=True)
class Twice(Problem):
    """l_i = |W tanh(W x_i)|^2: one matrix, used twice."""

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"W": (3, 3)}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        outputs = xp.tanh(features @ params["W"].T) @ params["W"].T
        return xp.sum(outputs * outputs, axis=1)


def twice(tied: bool) -> Any:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    if tied:
        model[2].weight = model[0].weight
    return model


def squares(outputs: Any, targets: Any) -> Any:
    return (outputs**2).sum(dim=1)


@pytest.mark.parametrize("tied", [True, False], ids=["in the module", "by the layout"])
def test_the_gradients_of_tied_weights_add_up(tied: bool) -> None:
    layout: Any = {"0.weight": "W"} if tied else {"0.weight": "W", "2.weight": "W"}

    judged(from_module(twice(tied), squares, layout=layout), Twice()).assert_agree()


def test_a_use_of_a_tied_weight_that_gets_no_gradient_is_found() -> None:
    model = twice(tied=True)
    model[2] = Detached(model[2], "no gradient for the weight")

    found = wrong(judged(from_module(model, squares, layout={"0.weight": "W"}), Twice()))

    assert set(found) == {"W"}


# Wrong ports


class Detached(Module):  # type: ignore[misc]  # torch comes without types here
    """A linear layer whose bias, or weight, gets no gradient, or too much of it."""

    def __init__(self, layer: Any, what: str) -> None:
        super().__init__()
        self.weight, self.bias, self.what = layer.weight, layer.bias, what

    def forward(self, features: Any) -> Any:
        weight, bias = self.weight, self.bias
        if self.what == "no gradient for the bias":
            bias = bias.detach()
        if self.what == "no gradient for the weight":
            weight = weight.detach()
        if self.what == "twice the gradient for the weight":
            weight = 2 * weight - weight.detach()
        return nn.functional.linear(features, weight, bias)


@pytest.mark.parametrize(
    ("fault", "parameter", "cause"),
    [
        ("no gradient for the bias", "offsets", "zero in every element"),
        ("twice the gradient for the weight", "inner", "a constant factor 2 in all 9 elements"),
    ],
)
def test_a_wrong_gradient_in_a_module_names_the_parameter_and_the_cause(fault: str, parameter: str, cause: str) -> None:
    model = network()
    model[0] = Detached(model[0], fault)

    found = wrong(judged(from_module(model, nn.functional.mse_loss, layout=LAYOUT)))

    assert set(found) == {parameter}
    assert cause in found[parameter]


def test_a_square_kernel_that_should_have_been_transposed_is_wrong() -> None:
    report = judged(from_module(network(), nn.functional.mse_loss, layout=LAYOUT | {"0.weight": "inner"}))

    assert {"loss", "inner"} <= set(wrong(report))


def test_a_summed_loss_is_recognised_as_one() -> None:
    found = wrong(judged(from_module(network(), nn.MSELoss(reduction="sum"), layout=LAYOUT)))

    assert found["inner"] == "a factor n = 8: a sum where a mean belongs"


def test_outputs_that_meet_targets_as_a_matrix_are_named() -> None:
    model = network()[:3]

    found = wrong(judged(from_module(model, lambda o, t: (o - t) ** 2, layout=LAYOUT)))

    assert "the loss has shape (8, 8)" in found["loss"]
    assert "Did outputs (n, 1) meet targets (n,)?" in found["loss"]


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # by torch's own compiler
def test_a_compiled_module_is_compiled_once_and_judged_as_compiled() -> None:
    forward: list[Any] = []

    def spoiled(graph: Any, _inputs: Any) -> Any:
        forward.append(graph)
        return lambda *given: [2 * each for each in graph(*given)]

    def verdict(backend: Any) -> str:
        model = from_module(torch.compile(network().double(), backend=backend), nn.functional.mse_loss)
        return gdc.verify(model, (DATA.features, DATA.targets)).verdict

    assert (verdict("eager"), verdict(spoiled)) == ("agree", "wrong")
    assert len(forward) == 1


# Modules that nobody can judge


def linear(*modules: Any) -> Any:
    return nn.Sequential(nn.Linear(3, 4), *modules)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: linear(nn.Dropout(0.1)), r"in training mode with dropout \(1: Dropout\).*call \.eval\(\) on it first"),
        (lambda: linear(nn.RReLU()), r"in training mode with dropout \(1: RReLU\)"),
        (lambda: nn.MultiheadAttention(4, 2, 0.1), r"with dropout \(the module itself: MultiheadAttention\)"),
        (lambda: nn.LSTM(3, 4, 2, dropout=0.5), r"with dropout \(the module itself: LSTM\)"),
        (lambda: nn.Sequential(nn.Flatten(0)), r"'Sequential' has no parameter that requires a gradient"),
        (lambda: nn.LazyLinear(2), r"parameters without a shape \(weight, bias\); call it on features once"),
    ],
    ids=["dropout", "rrelu", "attention", "lstm", "nothing", "lazy"],
)
def test_a_module_that_cannot_be_judged_is_refused_with_the_way_out(model: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_module(model(), nn.functional.mse_loss)


@pytest.mark.parametrize(
    "model", [lambda: linear(nn.BatchNorm1d(4)), lambda: linear(nn.BatchNorm1d(4, track_running_stats=False)).eval()]
)
def test_a_module_that_normalises_by_the_batch_is_not_judged_by_a_formula(model: Callable[[], Any]) -> None:
    native = from_module(model(), nn.functional.mse_loss)

    with pytest.raises(
        ValueError, match=r"statistics of the batch \(1: BatchNorm1d\).* or compare it with another model"
    ):
        judged(native)


def test_dropout_and_batch_norm_are_welcome_where_they_are_switched_off() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1)).eval()
    native = from_module(model, lambda o, t: (o[:, 0] - t) ** 2)

    loss, gradient = native.value_and_grad(native.parameters, DATA.features, DATA.targets)

    assert loss.dtype == np.float64
    assert {value.dtype for value in gradient.values()} == {np.dtype("float64")}


def test_a_module_put_back_to_training_is_refused_when_it_is_called() -> None:
    model = network(nn.Dropout(0.5)).eval()
    native = from_module(model, nn.functional.mse_loss, layout=LAYOUT)
    model.train()

    assert "in training mode with dropout" in wrong(judged(native))["loss"]


def test_frozen_parameters_are_constants() -> None:
    model = network()
    model[0].requires_grad_(False)

    assert set(from_module(model, nn.functional.mse_loss).parameters) == {"2.weight", "2.bias"}


def test_a_loss_with_weights_of_its_own_is_cast_to_the_dtype(dtype: str) -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
    native = from_module(nn.Linear(3, 2), lambda o, t: loss.to(o.dtype)(o, t.long()))
    module = from_module(nn.Linear(3, 2), nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0])))
    features = DATA.features.astype(dtype)
    one_hot = np.eye(2, dtype=dtype)[[0, 1] * 4]

    _, first = native.value_and_grad(native.parameters, features, one_hot[:, 0])
    _, second = module.value_and_grad(module.parameters, features, one_hot)

    assert {str(value.dtype) for value in [*first.values(), *second.values()]} == {dtype}


def test_unmatched_parameters_are_listed_on_both_sides_and_nobody_is_called_wrong() -> None:
    with pytest.raises(ValueError, match="do not match") as caught:
        judged(from_module(network(), nn.functional.mse_loss, name="port"))

    message = str(caught.value)
    assert "the parameters of port do not match those of its source" in message
    assert "'0.weight' (3, 3) has no source; nearest there: 'inner' (3, 3)" in message
    assert "'shift' () of the source is not used; nearest here: '2.bias' (1,)" in message
    assert '"0.weight": "inner"' in message


# Everything that takes an implementation takes a module


def test_an_assertion_takes_a_module() -> None:
    right = from_module(network(), nn.functional.mse_loss, layout=LAYOUT)
    summed = from_module(network(), nn.MSELoss(reduction="sum"), layout=LAYOUT, name="summed")

    assert_gradients_agree(right, TANH, DATA)
    with pytest.raises(GradientError, match="summed: loss is wrong"):
        assert_gradients_agree(summed, TANH, DATA)


@pytest.mark.thorough
def test_a_counterexample_is_found_for_a_module() -> None:
    summed = from_module(network(), nn.MSELoss(reduction="sum"), layout=LAYOUT)

    found = counterexample(TANH, summed, DATA, seconds=1.0)

    assert found is not None
    assert found.features.shape == (2, 3)


# Custom autograd functions


def swish(xp: Any, x: Any) -> Any:
    return x / (1 + xp.exp(-x))


SWISH = gdc.Operation(swish, x=(4,))


def autograd(forward: Any, backward: Any) -> Any:
    """A custom function of what it saves, its inputs."""

    def saving(ctx: Any, *inputs: Any) -> Any:
        ctx.save_for_backward(*inputs)
        return forward(*inputs)

    def back(ctx: Any, cotangent: Any) -> Any:
        return backward(cotangent, *ctx.saved_tensors)

    return type("Mine", (torch.autograd.Function,), {"forward": staticmethod(saving), "backward": staticmethod(back)})


def slope(x: Any) -> Any:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


def swish_with(backward: Any) -> Any:
    return autograd(lambda x: x * torch.sigmoid(x), lambda cotangent, x: backward(cotangent, x))


@pytest.mark.parametrize("dress", [lambda f: f, lambda f: lambda x: f.apply(x)], ids=["class", "function around it"])
def test_a_right_backward_pass_agrees(dress: Any, dtype: str) -> None:
    mine = from_autograd_function(dress(swish_with(lambda c, x: c * slope(x))))

    gdc.verify(SWISH, SWISH.example(), backends=[], implementations={"mine": mine}, dtype=dtype).assert_agree()


@pytest.mark.parametrize(
    ("backward", "cause"),
    [
        (lambda c, x: c * slope(x) * torch.tensor([1, 1, 1.001, 1], dtype=x.dtype), "off in 1 of 4 elements (2)"),
        (lambda c, x: -c * slope(x), "the sign is flipped"),
        (lambda c, x: c.flip(0) * slope(x), "no common mistake explains it; all 4 elements are off"),
        (lambda c, x: (c * slope(x)).float(), "float32 inside float64: every value is a float32"),
        (lambda c, x: None, "zero in every element"),
        (lambda c, x: c[:2] * slope(x)[:2], "it raised RuntimeError"),
    ],
    ids=["0.1 % in one element", "sign", "the neighbour's cotangent", "float32 inside", "forgotten", "shape"],
)
def test_a_wrong_backward_pass_is_called_wrong(backward: Any, cause: str) -> None:
    mine = from_autograd_function(swish_with(backward))

    found = wrong(judged(mine, SWISH, data=SWISH.example()))

    assert cause in found["loss" if "raised" in cause else "x"]


def test_a_tiny_gradient_that_is_replaced_by_zero_is_called_wrong() -> None:
    scaled = gdc.Operation(lambda xp, x: 1e-6 * x, x=(3,))
    mine = from_autograd_function(autograd(lambda x: 1e-6 * x, lambda c, x: 0 * c))

    found = wrong(judged(mine, scaled, data=scaled.example()))

    assert found == {"x": "zero in every element"}


def test_operations_of_several_parameters_are_given_them_in_order() -> None:
    product = gdc.Operation(lambda xp, x, w: w @ x, x=(3,), w=(2, 3))
    right = autograd(lambda x, w: w @ x, lambda c, x, w: (w.T @ c, torch.outer(c, x)))
    faulty = autograd(lambda x, w: w @ x, lambda c, x, w: (w.T @ c, torch.outer(c, x).flip(0)))

    judged(from_autograd_function(right), product, data=product.example()).assert_agree()
    assert set(wrong(judged(from_autograd_function(faulty), product, data=product.example()))) == {"w"}


@pytest.mark.parametrize("at_zero", [0.0, 0.5, 1.0, -0.1, 2.0])
def test_at_a_kink_any_value_between_the_one_sided_derivatives_is_right(at_zero: float) -> None:
    relu = gdc.Operation(lambda xp, x: xp.maximum(x, xp.zeros_like(x)), x=(3,))
    slopes = torch.tensor([0.0, at_zero, 1.0], dtype=torch.float64)
    mine = from_autograd_function(autograd(torch.relu, lambda c, x: c * slopes))

    report = gdc.verify(relu, relu.example(), {"x": [-1.0, 0.0, 2.0]}, backends=[], implementations={"mine": mine})

    assert report.context["kinks"]
    assert bool(report) == (0 <= at_zero <= 1)


def test_an_output_of_another_size_than_the_formulas_is_named() -> None:
    mine = from_autograd_function(lambda x: x[:2], name="cut")

    found = wrong(judged(mine, SWISH, data=SWISH.example()))

    assert "'cut' returns an array of shape (2,), 2 numbers, where the formula returns 4" in found["loss"]
