"""A wrong verdict stands, whatever fails while its cause is looked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.models.rules import Rule, faulty
from tests.models.zoo import numbers

torch: Any = pytest.importorskip("torch", reason="explains models of torch")
jax: Any = pytest.importorskip("jax", reason="explains models of JAX")

import gdcompare_jax  # noqa: E402 - the frameworks may be missing
import gdcompare_torch  # noqa: E402

DATA = numbers(8, 6), numbers(8, 3, seed=1)


class Half(torch.autograd.Function):  # type: ignore[misc]  # torch comes without types here
    """A square, whose derivative is half of what it should be."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Any) -> Any:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del output
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return cotangent * ctx.saved_tensors[0]


def of_torch(function: Callable[[Any], Any]) -> Any:
    def loss(p: Any, x: Any, y: Any) -> Any:
        return ((function(x @ p["w"]) - y) ** 2).mean()

    return gdcompare_torch.from_function(loss, {"w": torch.from_numpy(numbers(6, 3, seed=2))}, name="model")


@jax.custom_vjp  # type: ignore[untyped-decorator]  # JAX's
def square(x: Any) -> Any:
    return x * x


square.defvjp(lambda x: (x * x, x), lambda x, cotangent: (cotangent * x,))


def of_jax() -> Any:
    def loss(p: Any, x: Any, y: Any) -> Any:
        return ((square(x @ p["w"]) - y) ** 2).mean()

    return gdcompare_jax.from_function(loss, {"w": jax.numpy.asarray(numbers(6, 3, seed=2))}, name="model")


def cause(native: Any) -> str:
    """Return the cause of its gradient, which must be wrong."""
    report = gdc.verify(native, DATA)
    assert [each.verdict for each in report.entries] == ["agree", "wrong"]
    return report.entries[1].cause


def halved(z: Any) -> Any:
    z.register_hook(lambda cotangent: cotangent / 2)
    return z


def test_a_hook_that_needs_a_tape_does_not_destroy_what_was_judged() -> None:
    said = cause(of_torch(halved))

    assert said.startswith("a constant factor 1/2 in all 18 elements; float32 inside float64 could not be looked for: ")
    assert "RuntimeError: cannot register a hook" in said


def test_a_function_that_vmap_runs_cannot_be_looked_at_alone() -> None:
    said = cause(of_torch(lambda z: torch.func.vmap(Half.apply)(z)))

    assert "a derivative that is wrong by itself could not be looked for: RuntimeError: " in said


def after(calls: int, fail: Callable[[], Any]) -> Callable[[Any], Any]:
    """Return the wrong square, which fails once it has been called so often."""
    count = iter(range(10**6))

    def function(z: Any) -> Any:
        if next(count) >= calls:
            fail()
        return Half.apply(z)

    return function


def no_more() -> None:
    raise KeyError("no more")


@pytest.mark.thorough
@pytest.mark.parametrize("fail", [no_more, lambda: sys.exit(3)])
def test_a_model_that_fails_once_it_was_judged_is_wrong_still(fail: Callable[[], Any]) -> None:
    """It is tried, read, and called twice until then; and again, row by row and looked into, to explain it."""
    calls = 0

    def counted(z: Any) -> Any:
        nonlocal calls
        calls += 1
        return Half.apply(z)

    gdc.verify(of_torch(counted), DATA)
    causes = []
    for most in range(calls):
        try:
            causes.append(cause(of_torch(after(most, fail))))
        except (ValueError, KeyError, AssertionError):  # refused, or wrong since it raised
            assert not causes  # never again, once it was judged

    assert len(causes) >= 3
    assert all(each.startswith("a constant factor 1/2 in all 18 elements") for each in causes)
    assert "could not be looked for: " in causes[0]


@pytest.mark.parametrize("make", [lambda: of_torch(Half.apply), of_jax])
@pytest.mark.parametrize("error", [RecursionError, FloatingPointError, NotImplementedError, KeyboardInterrupt])
def test_errors_of_a_framework_are_told_and_interrupts_go_through(
    make: Callable[[], Any], error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise error("a page\nand another")

    for module, name in ((gdcompare_torch.models, "applied"), (gdcompare_jax.models, "called")):
        monkeypatch.setattr(module, name, fails)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            cause(make())
    else:
        assert f"could not be looked for: {error.__name__}: a page | and another" in cause(make())


def test_a_rule_that_raises_does_not_hide_another() -> None:
    def broken(x: Any) -> Any:
        raise LookupError(x)

    rules = [
        Rule(name, "", gdcompare_torch.from_autograd_function(function), {"x": np.arange(1.0, 4.0)})
        for name, function in (("Broken", broken), ("Half", Half))
    ]

    assert faulty(rules, "float64") == (
        "the derivative of Half is wrong by itself (by x: a constant factor 1/2 in all 3 elements)"
    )


def test_a_function_of_another_value_at_each_call_is_not_blamed_for_its_derivative() -> None:
    count = iter(range(1, 100))

    def drifts(x: Any) -> Any:
        return x * x * next(count)

    rule = Rule("Drifts", "", gdcompare_torch.from_autograd_function(drifts), {"x": np.arange(1.0, 4.0)})

    assert faulty([rule], "float64") == ""
