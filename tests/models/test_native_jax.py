"""JAX functions over Equinox, Linen and NNX models and plain pytrees, and custom vjps, as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.problem import Dataset, Problem
from tests.formulas import Network

jax = pytest.importorskip("jax", reason="checks adapters for jax")
jnp = jax.numpy

from gdcompare_jax import from_autograd_function, from_function  # noqa: E402 - jax may be missing

TANH = Network("tanh")
DATA = gdc.Dataset(
    np.random.default_rng(0).normal(size=(8, 3)).round(2), np.random.default_rng(1).normal(size=8).round(2)
)


def judged(native: gdc.Native, problem: Problem = TANH, dtype: str = "float64", data: Dataset = DATA) -> gdc.Report:
    return gdc.verify(problem, data, backends=[], implementations={"mine": native}, dtype=dtype)


def wrong(report: gdc.Report) -> dict[str, str]:
    return {entry.parameter: entry.cause for entry in report.entries if entry.verdict == "wrong"}


def squared(outputs: Any, targets: Any) -> Any:
    return (outputs - targets) ** 2


# The same network in three libraries: a native model, and its layout


def in_equinox(activation: Any = jnp.tanh) -> tuple[gdc.Native, dict[str, Any]]:
    equinox = pytest.importorskip("equinox", reason="checks a model of Equinox")
    model = equinox.nn.MLP(3, "scalar", 3, 1, activation, key=jax.random.key(0))
    layout: dict[str, Any] = {
        "layers/0/weight": lambda p: p["inner"].T,
        "layers/0/bias": "offsets",
        "layers/1/weight": lambda p: p["outer"][None, :],
        "layers/1/bias": lambda p: p["shift"][None],
    }
    return from_function(lambda m, x, y: squared(jax.vmap(m)(x), y), model, layout=layout), layout


def in_linen(activation: Any = jnp.tanh) -> tuple[gdc.Native, dict[str, Any]]:
    linen = pytest.importorskip("flax.linen", reason="checks a model of Flax")
    model = linen.Sequential([linen.Dense(3), activation, linen.Dense(1)])
    variables = model.init(jax.random.key(0), jnp.zeros((1, 3)))
    layout: dict[str, Any] = {
        "params/layers_0/kernel": "inner",
        "params/layers_0/bias": "offsets",
        "params/layers_2/kernel": lambda p: p["outer"][:, None],
        "params/layers_2/bias": lambda p: p["shift"][None],
    }
    return from_function(lambda v, x, y: squared(model.apply(v, x)[:, 0], y), variables, layout=layout), layout


def in_nnx(activation: Any = jnp.tanh) -> tuple[gdc.Native, dict[str, Any]]:
    nnx = pytest.importorskip("flax.nnx", reason="checks a model of Flax")
    random = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(3, 3, rngs=random), activation, nnx.Linear(3, 1, rngs=random))
    layout: dict[str, Any] = {
        "layers/0/kernel": "inner",
        "layers/0/bias": "offsets",
        "layers/2/kernel": lambda p: p["outer"][:, None],
        "layers/2/bias": lambda p: p["shift"][None],
    }
    return from_function(lambda m, x, y: squared(m(x)[:, 0], y), model, layout=layout), layout


MODELS = pytest.mark.parametrize("model", [in_equinox, in_linen, in_nnx])


@pytest.mark.covering
@pytest.mark.thorough
@MODELS
def test_a_model_agrees_under_its_own_names(model: Callable[..., Any], dtype: str) -> None:
    native, layout = model()

    judged(native, dtype=dtype).assert_agree()

    assert set(native.parameters) == set(layout)
    assert not jax.config.jax_enable_x64


@pytest.mark.thorough
@MODELS
def test_a_kernel_in_the_other_libraries_layout_is_wrong(model: Callable[..., Any]) -> None:
    native, layout = model()
    first = next(iter(layout))
    native.layout = layout | {first: "inner" if callable(layout[first]) else lambda p: p["inner"].T}

    assert {"loss", "inner"} <= set(wrong(judged(native)))


@pytest.mark.thorough
@MODELS
def test_a_layer_that_gets_no_gradient_names_the_parameter_and_the_cause(model: Callable[..., Any]) -> None:
    native, _ = model(lambda z: jax.lax.stop_gradient(jnp.tanh(z)))

    found = wrong(judged(native))

    assert set(found) == {"inner", "offsets"}
    assert found["inner"] == "zero in every element"


@pytest.mark.thorough
@MODELS
def test_another_activation_is_wrong(model: Callable[..., Any]) -> None:
    native, _ = model(jax.nn.sigmoid)

    assert "loss" in wrong(judged(native))


@pytest.mark.thorough
def test_nnx_state_goes_without_its_graph() -> None:
    nnx = pytest.importorskip("flax.nnx", reason="checks a model of Flax")
    graph, state, rest = nnx.split(
        nnx.Sequential(
            nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.BatchNorm(2, use_running_average=True, rngs=nnx.Rngs(0))
        ),
        nnx.Param,
        ...,
    )

    native = from_function(lambda s, x, y: squared(nnx.merge(graph, s, rest)(x)[:, 0], y), state)
    loss, gradient = native.value_and_grad(native.parameters, DATA.features, DATA.targets)

    assert np.isfinite(loss)
    assert set(gradient) == {"layers/0/kernel", "layers/0/bias", "layers/1/scale", "layers/1/bias"}


def test_an_nnx_module_in_training_mode_is_refused_until_it_is_told_to_evaluate() -> None:
    nnx = pytest.importorskip("flax.nnx", reason="checks a model of Flax")
    random = nnx.Rngs(0)
    dropping = nnx.Sequential(nnx.Linear(3, 2, rngs=random), nnx.Dropout(0.5, rngs=random))
    normalising = nnx.Sequential(nnx.Linear(3, 2, rngs=random), nnx.BatchNorm(2, rngs=random))

    with pytest.raises(ValueError, match=r"training mode with dropout \(layers/1: Dropout\).*call \.eval\(\) on it"):
        from_function(line, dropping)
    with pytest.raises(ValueError, match=r"the statistics of the batch \(layers/1: BatchNorm\).*call \.eval\(\) on it"):
        judged(from_function(line, normalising), gdc.load_problem("linear-regression"))
    for model in (dropping, normalising):
        model.eval()
        from_function(line, model)


# One model is the source of values, another is loaded from it


@pytest.mark.thorough
def test_a_model_is_loaded_from_another() -> None:
    source, _ = in_equinox()
    target, _ = in_nnx()
    target.layout = {
        "layers/0/kernel": lambda p: p["layers/0/weight"].T,
        "layers/0/bias": "layers/0/bias",
        "layers/2/kernel": lambda p: p["layers/1/weight"].T,
        "layers/2/bias": "layers/1/bias",
    }

    loss, gradient = source.value_and_grad(source.parameters, DATA.features, DATA.targets)
    ported_loss, ported_gradient = target(source.parameters, DATA.features, DATA.targets)

    np.testing.assert_allclose(ported_loss, loss, rtol=1e-14)
    assert set(ported_gradient) == set(source.parameters)
    for name, value in gradient.items():
        np.testing.assert_allclose(ported_gradient[name], value, rtol=1e-12, atol=1e-14)


def test_the_values_of_a_model_are_its_own_in_float64() -> None:
    native = from_function(lambda p, x, y: squared(x @ p["w"], y), {"w": jnp.array([0.1, 0.2, 0.3])})

    values = native.parameters["w"]

    assert values.dtype == np.float64
    assert values.tolist() == np.array([0.1, 0.2, 0.3], np.float32).tolist()


# Any pytree


def line(p: Any, features: Any, targets: Any) -> Any:
    return squared(features @ p["theta_1"] * p["scale"] + p["theta_0"], targets)


START = {"theta_0": np.zeros(()), "theta_1": np.zeros(3), "scale": 1.0, "step": jnp.arange(3), "name": "a line"}


def test_all_but_floating_point_arrays_is_constant() -> None:
    native = from_function(line, START)

    assert set(native.parameters) == {"theta_0", "theta_1"}
    judged(native, gdc.load_problem("linear-regression")).assert_agree()


def test_a_number_of_numpy_is_a_parameter_and_a_number_of_python_is_not() -> None:
    native = from_function(line, {"theta_0": np.float64(1.0), "theta_1": np.zeros(3), "scale": 1.0})

    assert set(native.parameters) == {"theta_0", "theta_1"}


def test_weighted_data_are_judged_by_the_weighted_mean(dtype: str) -> None:
    weighted = gdc.Dataset(DATA.features, DATA.targets, weights=np.arange(8.0))

    judged(from_function(line, START), gdc.load_problem("linear-regression"), dtype, weighted).assert_agree()


def test_a_summed_loss_is_recognised_as_one() -> None:
    native = from_function(lambda *args: jnp.sum(line(*args)), START)

    found = wrong(judged(native, gdc.load_problem("linear-regression")))

    assert found["theta_1"] == "a factor n = 8: a sum where a mean belongs"


def test_outputs_that_meet_targets_as_a_matrix_are_named() -> None:
    native = from_function(lambda p, x, y: squared((x @ p["w"])[:, None], y), {"w": np.zeros(3)})

    with pytest.raises(ValueError, match=r"\(8, 8\).*Did outputs \(n, 1\) meet targets"):
        native.value_and_grad(native.parameters, DATA.features, DATA.targets)


def test_a_derivative_is_compiled_for_all_rows_alone() -> None:
    native: Any = from_function(line, START)

    native.posed(DATA)

    assert native._value_and_grad._cache_size() == 1
    some = native.parameters, DATA.features[:1], DATA.targets[:1]
    assert native.value(*some) == pytest.approx(native.value_and_grad(*some)[0])


@pytest.mark.parametrize("nothing", [{}, {"w": 1.0}, {"w": np.arange(3)}])
def test_a_pytree_without_floating_point_arrays_is_refused(nothing: Any) -> None:
    with pytest.raises(ValueError, match="'line' has no floating-point array among its parameters"):
        from_function(line, nothing)


def test_per_sample_gradients_have_the_full_gradient_as_their_mean() -> None:
    native, _ = in_linen()

    _, gradient = native.value_and_grad(native.parameters, DATA.features, DATA.targets)
    rows = native.per_sample_grad(native.parameters, DATA.features, DATA.targets)

    for name, each in rows.items():
        np.testing.assert_allclose(each.mean(axis=0), gradient[name], rtol=1e-12, atol=1e-14)


# Custom derivatives


def custom(forward: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    """A function with this derivative, of what it was given."""
    function = jax.custom_vjp(forward)
    function.defvjp(lambda *inputs: (forward(*inputs), inputs), lambda inputs, c: backward(c, *inputs))
    return function


def slope(x: Any) -> Any:
    s = jax.nn.sigmoid(x)
    return s * (1 + x * (1 - s))


SWISH = gdc.Operation(lambda xp, x: x / (1 + xp.exp(-x)), x=(4,))


def test_a_right_backward_pass_agrees(dtype: str) -> None:
    mine = from_autograd_function(custom(jax.nn.silu, lambda c, x: (c * slope(x),)))

    judged(mine, SWISH, dtype, SWISH.example()).assert_agree()


@pytest.mark.parametrize(
    ("backward", "cause"),
    [
        (lambda c, x: c * slope(x) * jnp.array([1, 1, 1.001, 1], x.dtype), "off in 1 of 4 elements (2)"),
        (lambda c, x: -c * slope(x), "the sign is flipped"),
        (lambda c, x: jnp.flip(c) * slope(x), "no common mistake explains it"),
        (lambda c, x: (c * slope(x)).astype(jnp.float32).astype(x.dtype), "float32 inside float64"),
        (lambda c, x: jnp.zeros_like(x), "zero in every element"),
    ],
    ids=["0.1 % in one element", "sign", "the neighbour's cotangent", "float32 inside", "forgotten"],
)
def test_a_wrong_backward_pass_is_called_wrong(backward: Any, cause: str) -> None:
    mine = from_autograd_function(custom(jax.nn.silu, lambda c, x: (backward(c, x),)))

    found = wrong(judged(mine, SWISH, data=SWISH.example()))

    assert cause in found["x"]


def test_operations_of_several_parameters_are_given_them_in_the_order_of_the_formula() -> None:
    product = gdc.Operation(lambda xp, x, a: a @ x, x=(3,), a=(2, 3))  # not in alphabetical order
    right = custom(lambda x, a: a @ x, lambda c, x, a: (a.T @ c, jnp.outer(c, x)))
    faulty = custom(lambda x, a: a @ x, lambda c, x, a: (a.T @ c, jnp.outer(c, x)[::-1]))

    judged(from_autograd_function(right), product, data=product.example()).assert_agree()
    assert set(wrong(judged(from_autograd_function(faulty), product, data=product.example()))) == {"a"}


@pytest.mark.parametrize("at_zero", [-1.0, 0.0, 1.0, 1.5])
def test_at_a_kink_any_value_between_the_one_sided_derivatives_is_right(at_zero: float) -> None:
    absolute = gdc.Operation(lambda xp, x: xp.abs(x), x=(3,))
    mine = from_autograd_function(custom(jnp.abs, lambda c, x: (c * jnp.where(x == 0, at_zero, jnp.sign(x)),)))

    report = gdc.verify(
        absolute, absolute.example(), {"x": [-1.0, 0.0, 2.0]}, backends=[], implementations={"mine": mine}
    )

    assert bool(report) == (-1 <= at_zero <= 1)


def test_an_output_of_another_size_than_the_formulas_is_named() -> None:
    mine = from_autograd_function(lambda x: x[:2], name="cut")

    found = wrong(judged(mine, SWISH, data=SWISH.example()))

    assert "'cut' returns an array of shape (2,), 2 numbers, where the formula returns 4" in found["loss"]
