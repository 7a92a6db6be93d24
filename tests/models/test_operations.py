"""Operations of several outputs, second derivatives, and what an implementation is due to return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gdcompare as gdc

torch: Any = pytest.importorskip("torch", reason="these operations are written in torch")
jax: Any = pytest.importorskip("jax", reason="and in JAX")

import gdcompare_jax  # noqa: E402 - needs JAX
import gdcompare_torch  # noqa: E402 - needs torch

jnp = jax.numpy
GENERATOR = np.random.default_rng(0)
POINTS = GENERATOR.normal(size=(4, 2)), GENERATOR.normal(size=4)


class Split(torch.autograd.Function):  # type: ignore[misc]
    """Sine and cosine, the latter with the wrong sign in its backward pass if asked for."""

    sign = -1

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return torch.sin(x), torch.cos(x)

    @classmethod
    def backward(cls, ctx: Any, one: Any, other: Any) -> Any:
        (x,) = ctx.saved_tensors
        return one * torch.cos(x) + Split.sign * other * torch.sin(x)


BOTH = gdc.Operation(lambda xp, x: (xp.sin(x), xp.cos(x)), x=(3,))


def judged(native: gdc.Native, operation: gdc.Operation = BOTH, **options: Any) -> gdc.Report:
    return gdc.verify(operation, operation.example(8), backends=[], implementations={"mine": native}, **options)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_function_of_two_outputs_is_judged_by_the_cotangents_of_both(sign: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(Split, "sign", sign)

    def backward(cotangents: Any, x: Any) -> Any:
        return cotangents[0] * np.cos(x) + sign * cotangents[1] * np.sin(x)

    natives = [
        gdcompare_torch.from_autograd_function(Split),
        gdcompare_jax.from_autograd_function(lambda x: (jnp.sin(x), -sign * jnp.cos(x))),
        gdc.from_backward(lambda x: (np.sin(x), np.cos(x)), backward),
    ]

    assert [bool(judged(native)) for native in natives] == [sign == -1] * 3


def test_a_layer_with_a_cache_is_judged_as_it_is() -> None:
    affine = gdc.Operation(lambda xp, x, w, b: x @ w + b, x=(2, 3), w=(3, 2), b=(2,))

    def forward(x: Any, w: Any, b: Any) -> Any:
        return x @ w + b, (x, w)

    def backward(cotangent: Any, cache: Any) -> Any:
        x, w = cache
        return cotangent @ w.T, x.T @ cotangent, cotangent.sum(axis=0)

    judged(gdc.from_backward(forward, backward, cache=True), affine).assert_agree()
    unsaid = judged(gdc.from_backward(forward, backward), affine)
    assert "of which the first is the output: say cache=True" in unsaid.entries[0].cause
    wrong = judged(gdc.from_backward(forward, lambda c, cache: backward(c, cache)[:2], cache=True), affine)
    assert "is due to return a gradient by each of x, w, b, not a tuple of ndarray, ndarray" in wrong.entries[0].cause


@pytest.mark.thorough
@pytest.mark.parametrize("derivative", ["jvp", "hvp", "hessian"])
@pytest.mark.parametrize("adapter", [gdcompare_torch, gdcompare_jax], ids=["torch", "jax"])
def test_second_derivatives_of_a_model_are_judged(derivative: str, adapter: Any) -> None:
    xp = torch if adapter is gdcompare_torch else jnp
    data = gdc.Dataset(*POINTS, weights=[1, 2, 3, 4])

    def model(factor: float) -> gdc.Native:
        layout = {"w": lambda p: np.concatenate([p["theta_1"], p["theta_0"][None]])}
        return adapter.from_function(  # type: ignore[no-any-return]
            lambda p, x, y: factor * (x @ p["w"][:2] + p["w"][2] - y) ** 2 + 0 * xp.sin(p["w"][0]),
            {"w": np.zeros(3)},
            layout=layout,
        )

    reports = [
        gdc.verify(
            "linear-regression", data, backends=[], implementations={"mine": model(factor)}, derivative=derivative
        )
        for factor in (1.0, 2.0)
    ]

    assert [report.verdict for report in reports] == ["agree", "wrong"]


def test_a_backward_pass_that_cannot_be_differentiated_is_found_by_its_second_derivative() -> None:
    class Cube(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, cotangent: Any) -> Any:
            (x,) = ctx.saved_tensors
            return 3 * cotangent * x.detach() ** 2

    cube = gdc.Operation(lambda xp, x: x**3, x=(3,))
    native = gdcompare_torch.from_autograd_function(Cube)

    judged(native, cube).assert_agree()
    assert [(entry.parameter, entry.verdict) for entry in judged(native, cube, derivative="hvp").entries] == [
        ("x", "wrong")
    ]


@pytest.mark.parametrize("derivative", ["jvp", "hvp"])
def test_a_derivative_that_a_model_does_not_have_is_refused_before_the_work(derivative: str) -> None:
    native = gdc.from_backward(lambda x: x**3, lambda c, x: 3 * c * x**2, name="cube")

    with pytest.raises(ValueError, match=f"'cube' has no {derivative}; what can be judged of it: gradient"):
        judged(native, gdc.Operation(lambda xp, x: x**3, x=(3,)), derivative=derivative)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (np.ones(3), "an array (ndarray) of shape (3,)"),
        (np.ones(2), "an array (ndarray) of shape (2,)"),
        ({"x": np.ones(3)}, "a dict of 1"),
        ((1.0, np.ones(3)), "a tuple of float, ndarray"),
        (None, "None"),
    ],
)
def test_an_implementation_that_returns_something_else_is_told_what_is_due(returned: Any, said: str) -> None:
    (entry,) = judged(lambda *_: returned).entries  # type: ignore[arg-type]  # no native model, and that is the mistake

    assert entry.cause == f"it returned {said}, where (loss, {{name: gradient}}) is due"


@pytest.mark.parametrize("derivative", ["jvp", "hvp"])
def test_along_a_direction_what_torch_writes_in_place_counts(derivative: Any) -> None:
    """Torch clamps the norms of these in place, without recording it."""

    def loss(params: Any, features: Any, targets: Any) -> Any:
        return (torch.nn.functional.cosine_similarity(features, params["x"][None], dim=1) * targets).mean()

    native = gdcompare_torch.from_function(loss, {"x": np.array([0.5, -2.0])})

    assert gdc.verify(native, POINTS, derivative=derivative).verdict == "agree"


@pytest.mark.thorough
def test_along_a_direction_that_moves_an_order_nothing_is_known() -> None:
    def loss(params: Any, features: Any, targets: Any) -> Any:
        return (jax.scipy.special.gammaincc(params["order"], jnp.exp(features[:, 0])) * targets).mean()

    native = gdcompare_jax.from_function(loss, {"order": np.array(2.0)})

    report = gdc.verify(native, POINTS, derivative="jvp")

    assert report.verdict == "inconclusive"
    assert "nobody knows" in report.explanation()


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", ["bilinear", "trilinear"])
def test_pixels_are_taken_from_where_a_computed_place_says(mode: str, dtype: str) -> None:
    def loss(params: Any, features: Any, targets: Any) -> Any:
        if mode == "bilinear":
            grid = params["places"].reshape(1, 2, 2, 2)
            found = torch.nn.functional.grid_sample(params["image"][None, None], grid, align_corners=False)
            return found.square().sum()
        image = params["image"].reshape(1, 1, 2, 2, 4) * params["places"].sum()
        return torch.nn.functional.interpolate(image, scale_factor=1.5, mode=mode).square().sum()

    parameters = {"image": GENERATOR.normal(size=(4, 4)), "places": GENERATOR.uniform(-0.9, 0.9, (2, 2, 2))}
    native = gdcompare_torch.from_function(loss, parameters)

    report = gdc.verify(native, POINTS, dtype=dtype)

    assert report.verdict == "agree"
    assert {each.verdict for each in report.entries} == {"agree"}


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_where_rounding_may_move_a_place_no_gradient_is_wrong(dtype: str) -> None:
    """Under the identity, pixels are read from where they lie, but for rounding: on either side of a kink."""

    def loss(params: Any, features: Any, targets: Any) -> Any:
        grid = torch.nn.functional.affine_grid(params["theta"][None], (1, 1, 1, 7), align_corners=False)
        image = features[:7, 0].reshape(1, 1, 1, 7)
        return torch.nn.functional.grid_sample(image, grid, align_corners=False).square().sum()

    data = GENERATOR.normal(size=(7, 1)), np.zeros(7)
    native = gdcompare_torch.from_function(loss, {"theta": np.eye(2, 3)})

    report = gdc.verify(native, data, dtype=dtype)

    assert report.verdict == "inconclusive"
    assert "an element whose place rounding may move (test_operations.py" in report.explanation()


@pytest.mark.thorough
def test_where_rounding_may_move_a_place_no_second_derivative_is_wrong() -> None:
    """Beside the middle of a pixel, rounding reads it from there; the second derivative by the image has no budget."""

    def loss(params: Any, features: Any, targets: Any) -> Any:
        found = torch.nn.functional.grid_sample(params["image"], params["places"], align_corners=False)
        return (found.reshape(-1) * features).sum()

    parameters = {"image": GENERATOR.normal(size=(1, 1, 5, 5)), "places": GENERATOR.normal(size=(1, 2, 2, 2)) * 2e-90}
    native = gdcompare_torch.from_function(loss, parameters)

    report = gdc.verify(native, (GENERATOR.normal(size=(1, 4)), np.zeros(1)), derivative="hvp")

    assert {each.verdict for each in report.entries} == {"inconclusive"}


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        (
            lambda xp, x: xp.nothing(x),
            r"test_operations.py:\d+: Operation\(.*: its formula raises AttributeError: .*'nothing'",
        ),
        (
            lambda xp, y: y,
            r"its formula raises TypeError: .* 'x'; it is called as formula\(xp, x\), all but xp by name",
        ),
    ],
    ids=["no such function", "another name"],
)
def test_what_is_wrong_with_a_formula_is_said_with_its_line(formula: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gdc.Operation(formula, x=(3,)).example()
