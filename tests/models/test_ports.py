"""Networks ported from one framework to another: the first layer that differs is named."""

from __future__ import annotations

import re
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc

torch: Any = pytest.importorskip("torch", reason="a port is from torch")
jax: Any = pytest.importorskip("jax", reason="a port is to JAX")
eqx = pytest.importorskip("equinox", reason="a port is to Equinox")

from gdcompare_jax import from_function, tap  # noqa: E402 - needs JAX
from gdcompare_torch import from_module  # noqa: E402 - needs torch

from tests import ports  # noqa: E402 - needs all three

jnp = jax.numpy


def compared(bug: str | None, dtype: str) -> gdc.Comparison:
    models = [ports.source(), ports.port(bug)]
    return gdc.compare(models, ports.sequences(), layers=ports.LAYERS, dtype=dtype, rows=0)


PLANTED = [
    pytest.param(bug, dtype, marks=[pytest.mark.soundness] * (place > 0))
    for place, (bug, dtype) in enumerate(zip(ports.BUGS, cycle(["float32", "float64"]), strict=False))
]
"""One in the gate, for each takes seconds."""


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.soundness)])
def test_the_right_port_agrees_in_every_gradient_and_layer(dtype: str) -> None:
    report = compared(None, dtype)

    report.assert_agree()
    assert report.first_difference is None
    assert [entry.parameter for entry in report.layers if entry.law == "forward"] == [
        "norm1", "attention.softmax", "attention.out", "attention", "norm2", "up", "gelu", "down", "head", "(output)",
    ]  # fmt: skip
    assert len(report.layers) == 20
    assert {entry.verdict for entry in report.layers} == {"agree"}


@pytest.mark.thorough
@pytest.mark.parametrize(("bug", "dtype"), PLANTED)
def test_a_planted_bug_is_found_and_its_layer_is_named(bug: str, dtype: str) -> None:
    report = compared(bug, dtype)

    first = report.first_difference
    assert report.verdict == "wrong"
    assert first is not None
    assert (first.implementation, first.parameter, first.law) == ("equinox", ports.BUGS[bug][1], "forward")
    assert first.actual != first.expected
    assert f"first layer to differ: {first.parameter}" in report.explanation()


@pytest.mark.thorough
def test_a_wrong_backward_pass_is_named_by_the_layer_behind_it() -> None:
    @jax.custom_vjp  # type: ignore[untyped-decorator]  # JAX comes without types here
    def square(x: Any) -> Any:
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, cotangent: (cotangent * x,))  # half of it

    class Square(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x * x

    def loss(p: Any, features: Any, targets: Any) -> Any:
        hidden = tap("1", square(tap("0", features @ p["0.weight"].T + p["0.bias"])))
        return (tap("2", hidden @ p["2.weight"].T + p["2.bias"]) - targets[:, None]).sum(axis=1) ** 2

    modules = torch.nn.Linear(3, 4), Square(), torch.nn.Linear(4, 1), torch.nn.Flatten(0)
    source = from_module(ports.drawn(torch.nn.Sequential(*modules)), torch.nn.functional.mse_loss, name="torch")
    points = gdc.Dataset(np.random.default_rng(0).normal(size=(4, 3)), np.arange(4.0))

    report = gdc.compare([source, from_function(loss, source.parameters, name="jax")], points)

    first = report.first_difference
    assert first is not None
    assert (first.parameter, first.law) == ("0", "backward")
    assert "'1', the one after it, agrees" in first.cause


def test_the_chapter_shows_the_models_as_they_are() -> None:
    root = Path(__file__).parents[2]
    chapter = (root / "docs" / "port-a-network.md").read_text(encoding="utf-8")
    code = Path(ports.__file__).read_text(encoding="utf-8")

    shown = [
        block for block in re.findall(r"```python\n(.*?)```", chapter, flags=re.DOTALL) if block[:3] in ("cla", "LAY")
    ]

    assert len(shown) == 3
    assert all(block.strip() in code for block in shown)


# What is seen


def test_a_tap_sees_through_jit_vmap_scan_and_checkpoint_and_costs_nothing_outside() -> None:
    @jax.jit  # type: ignore[untyped-decorator]
    def double(x: Any) -> Any:
        return tap("double", 2 * x)

    def step(carry: Any, x: Any) -> Any:
        return tap("carry", carry + x), carry

    def loss(w: Any, features: Any, targets: Any) -> Any:
        def one(x: Any, y: Any) -> Any:
            tokens = jax.vmap(double)(x.reshape(3, 2) * w["w"])  # (3, 2)
            last, _ = jax.lax.scan(step, jnp.zeros(2), tokens)
            return (jnp.sum(last) - y) ** 2

        return jax.vmap(one)(features, targets)

    model = from_function(loss, {"w": np.array([1.0, 3.0])})
    features, targets = np.arange(6.0)[None], np.array([1.0])

    model.value_and_grad(model.parameters, features, targets)  # compiled without the taps
    layers = model.layers(model.parameters, features, targets)

    assert [layer.name for layer in layers] == ["double", "carry", "carry#2", "carry#3"]
    np.testing.assert_array_equal(layers[0].value, 2 * features.reshape(3, 2) * [1.0, 3.0])
    np.testing.assert_array_equal(layers[3].value, [12.0, 54.0])
    for layer in layers:
        np.testing.assert_array_equal(layer.cotangent, np.full(layer.value.shape, 2 * (12 + 54 - 1.0)))
    assert "gdcompare_record" not in str(jax.make_jaxpr(double)(1.0))


def test_a_tap_goes_with_derivatives_inside_the_loss() -> None:
    def loss(p: Any, features: Any, targets: Any) -> Any:
        def potential(x: Any) -> Any:
            return jnp.sum(tap("tanh", jnp.tanh(p["w"] * x)))

        force = jax.vmap(jax.grad(potential))(features)
        bend = jax.vmap(lambda x: jax.jvp(potential, (x,), (jnp.ones_like(x),))[1])(features)
        return (jnp.sum(force, axis=1) + bend - targets) ** 2

    model = from_function(loss, {"w": np.array([0.5, 1.0])})

    layers = model.layers(model.parameters, np.array([[1.0, 2.0]]), np.ones(1))

    assert [layer.name for layer in layers] == ["tanh", "tanh#2"]
    for layer in layers:
        np.testing.assert_allclose(layer.value, np.tanh([0.5, 2.0]), rtol=1e-14)


@pytest.mark.thorough
def test_hooks_and_wrappers_are_taken_away_again() -> None:
    source, port = ports.source(), ports.port()
    call = vars(ports.Dense)["__call__"]
    before = {name: value.clone() for name, value in source.module.state_dict().items()}  # type: ignore[attr-defined]

    for model in (source, port):
        params = model.matching(source.parameters).load(source.parameters) if model is port else source.parameters
        assert model.layers(params, np.ones((1, 40)), np.ones(1))

    assert vars(ports.Dense)["__call__"] is call
    assert not any(each._forward_hooks for each in source.module.modules())  # type: ignore[attr-defined]
    for name, value in source.module.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(value, before[name])


@pytest.mark.thorough
def test_modules_of_a_copy_that_jax_made_are_seen_by_their_paths() -> None:
    mlp = eqx.nn.MLP(3, "scalar", 4, 1, activation=jnp.tanh, key=jax.random.key(0))

    def loss(model: Any, features: Any, targets: Any) -> Any:
        return (jax.vmap(lambda m, x: m(x), in_axes=(None, 0))(model, features) - targets) ** 2

    model = from_function(loss, mlp)

    layers = model.layers(model.parameters, np.ones((1, 3)), np.ones(1))

    assert [layer.name for layer in layers] == ["layers/0", "layers/1", "(output)"]


def test_a_layer_that_is_called_twice_or_works_in_place_keeps_its_values() -> None:
    relu = torch.nn.ReLU(inplace=True)
    module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 2), relu, torch.nn.Linear(2, 2), relu)
    model = from_module(module, lambda outputs, targets: outputs.sum(dim=1) - targets)

    params = {name: np.ones_like(value) for name, value in model.parameters.items()}
    layers = {layer.name: layer for layer in model.layers(params, np.array([[1.0, -0.5]]), np.zeros(1))}

    assert list(layers) == ["0", "1", "2", "3", "2#2", "(output)"]
    assert layers["0"].value.tolist() == [1.0, -0.5]
    assert layers["0"].cotangent.any()
    np.testing.assert_array_equal(layers["2"].value, np.maximum(layers["1"].value, 0))
    np.testing.assert_array_equal(layers["3"].cotangent, layers["3"].value > 0)


# Correspondence


class Convolution(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.image, self.conv = torch.nn.Unflatten(1, (2, 4, 5)), torch.nn.Conv2d(2, 3, 3)

    def forward(self, x: Any) -> Any:
        return torch.tanh(self.conv(self.image(x))).mean(dim=(1, 2, 3))


def channels_last(kernel: Any) -> Any:
    return kernel.transpose(2, 3, 1, 0)


@cache
def convolution() -> Any:
    return from_module(ports.drawn(Convolution()), torch.nn.functional.mse_loss, name="torch")


@cache
def convolved(padding: str = "VALID") -> Any:
    def loss(p: Any, features: Any, targets: Any) -> Any:
        images = features.reshape(-1, 2, 4, 5).transpose(0, 2, 3, 1)  # (n, height, width, channels)
        axes = ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(images, p["kernel"], (1, 1), padding, dimension_numbers=axes) + p["bias"]
        return (jnp.tanh(tap("convolution", out)).mean(axis=(1, 2, 3)) - targets) ** 2

    layout: dict[str, Any] = {"kernel": lambda p: channels_last(p["conv.weight"]), "bias": "conv.bias"}
    return from_function(loss, {"kernel": np.zeros((3, 3, 2, 3)), "bias": np.zeros(3)}, layout=layout, name="jax")


def images() -> gdc.Dataset:
    return gdc.Dataset(np.random.default_rng(0).normal(size=(3, 40)), np.ones(3))


@pytest.mark.thorough
def test_layers_correspond_through_a_function_that_moves_their_elements() -> None:
    source = convolution()
    layers = {"conv": ("convolution", lambda a: np.moveaxis(a, 0, -1))}

    report = gdc.compare([source, convolved()], images(), layers=layers)

    report.assert_agree()
    assert [(entry.parameter, entry.law, entry.verdict) for entry in report.layers] == [
        ("conv", "forward", "agree"),
        ("conv", "backward", "agree"),
    ]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"convv": "convolution"}, "there is no layer 'convv' in source; nearest: 'conv'"),
        ({"conv": "convolutoin"}, "there is no layer 'convolutoin' in jax; nearest: 'convolution'"),
        ({"conv": ("convolution", lambda a: 2 * a)}, "computes: it may move elements, add them up and"),
        ({"conv": ("convolution", lambda a: np.moveaxis(a, 0, -1) + 1)}, "computes: it may only move each element"),
        ({"conv": ("convolution", lambda a: a)}, "would be loaded from an array of shape (3, 2, 3)"),
        ({"flax": {"conv": "convolution"}}, "layers are given for 'flax'; the models are jax"),
    ],
)
def test_layers_that_do_not_correspond_are_refused(layers: Any, message: str) -> None:
    source = convolution()

    with pytest.raises(ValueError, match=re.escape(message)):
        gdc.compare([source, convolved()], images(), layers=layers, rows=0)


@pytest.mark.thorough
def test_layers_of_other_shapes_decide_nothing() -> None:
    source = convolution()

    report = gdc.compare([source, convolved()], images(), layers={"conv": "convolution"}, rows=0)

    assert report.verdict == "agree"
    assert report.first_difference is None
    assert {entry.verdict for entry in report.layers} == {"inconclusive"}
    assert "say how elements move" in report.layers[0].cause
