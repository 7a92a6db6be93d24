"""What torch and JAX have of their own, and the standard has not, keeps the budget at points of many sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from flint import ctx
from numpy.typing import NDArray

from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.rounded import RoundedNumbers
from gdcompare.arithmetic.special import lower_gamma_of, upper_gamma_of
from gdcompare.arithmetic.tape import Tape
from gdcompare.referee.enclosed import Enclosed

ROWS, COLUMNS = 40, 12

Own = tuple[str, str, Mapping[str, Any]]
# As the tape has it; torch's name and JAX's; the arguments.
FUNCTIONS: Mapping[str, Own] = {
    "softmax": ("torch.softmax", "jax.nn.softmax", {"axis": -1}),
    "log_softmax": ("torch.log_softmax", "jax.nn.log_softmax", {"axis": -1}),
    "logsumexp": ("torch.logsumexp", "jax.nn.logsumexp", {"axis": -1}),
    "sigmoid": ("torch.sigmoid", "jax.nn.sigmoid", {}),
    "log_sigmoid": ("torch.nn.functional.logsigmoid", "jax.nn.log_sigmoid", {}),
    "softplus": ("", "jax.nn.softplus", {}),
    "erf": ("torch.erf", "jax.lax.erf", {}),
    "erfc": ("torch.erfc", "jax.lax.erfc", {}),
    "lgamma": ("torch.lgamma", "jax.lax.lgamma", {}),
    "digamma": ("torch.digamma", "jax.lax.digamma", {}),
    "rsqrt": ("torch.rsqrt", "jax.lax.rsqrt", {}),
    "cbrt": ("", "jax.lax.cbrt", {}),
    "asin": ("torch.asin", "jax.lax.asin", {}),
    "acosh": ("torch.acosh", "jax.lax.acosh", {}),
    "atanh": ("torch.atanh", "jax.lax.atanh", {}),
    "log2": ("torch.log2", "jax.numpy.log2", {}),
    "exp2": ("torch.exp2", "jax.numpy.exp2", {}),
    "tan": ("torch.tan", "jax.numpy.tan", {}),
    "sort": ("torch.msort", "jax.numpy.sort", {"axis": 0}),
    "cumulative_prod": ("torch.cumprod", "jax.numpy.cumprod", {"axis": -1}),
    "cumulative_sum": ("torch.cumsum", "jax.numpy.cumsum", {"axis": -1}),
    "prod": ("torch.prod", "jax.numpy.prod", {"axis": -1}),
    "var": ("torch.var", "jax.numpy.var", {"axis": -1, "correction": 1}),
    "std": ("torch.std", "jax.numpy.std", {"axis": -1, "correction": 1}),
}
POSITIVE = {"lgamma", "digamma", "rsqrt", "log2"}
INACCURATE = {("digamma", "torch", "float64")}
"""Torch's trigamma has ten digits."""
INSIDE = {"asin", "atanh"}


def points(name: str, dtype: str) -> NDArray[Any]:
    """Rows of sizes from a thousandth to a few hundred, and some at an offset."""
    generator = np.random.default_rng(11)
    x = generator.standard_normal((ROWS, COLUMNS)) * 10.0 ** generator.uniform(-3, 1.5, (ROWS, 1))
    x[:5] += 50
    if name in INSIDE:
        x = np.tanh(x[5:])
        x = np.where(abs(x) < 0.999, x, 0.5)
    return (abs(x) + (1.0 if name == "acosh" else 0.0) if name in POSITIVE | {"acosh"} else x).astype(dtype)


def by_torch(path: str, x: NDArray[Any], weights: NDArray[Any], arguments: Mapping[str, Any]) -> NDArray[Any]:
    torch = pytest.importorskip("torch")
    room, _, name = path.rpartition(".")
    leaf = torch.tensor(x, requires_grad=True)
    given = {"dim" if key == "axis" else key: value for key, value in arguments.items()}
    value = getattr(import_module(room), name)(leaf, **({} if name == "msort" else given))
    (value * torch.tensor(weights)).sum().backward()
    return np.asarray(leaf.grad)


def by_jax(path: str, x: NDArray[Any], weights: NDArray[Any], arguments: Mapping[str, Any]) -> NDArray[Any]:
    jax = pytest.importorskip("jax")
    room, _, name = path.rpartition(".")
    with jax.enable_x64(x.dtype == np.float64):
        function: Callable[..., Any] = getattr(import_module(room), name)
        gradient = jax.jit(jax.grad(lambda leaf: (function(leaf, **arguments) * weights).sum()))
        return np.asarray(gradient(x))


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_derivatives_of_a_frameworks_own_functions_keep_the_budget(name: str, framework: str, dtype: str) -> None:
    of_torch, of_jax, arguments = FUNCTIONS[name]
    path = of_jax if framework == "jax" else of_torch
    if not path:
        pytest.skip(f"{framework} has none that is smooth everywhere")
    x = points(name, dtype)

    def on_tape(numbers: Any) -> tuple[Any, NDArray[Any]]:
        tape = Tape(numbers)
        leaf = tape.leaf(x)
        value = getattr(tape, name)(leaf, **arguments)
        weights = np.linspace(0.5, 1.5, value.size).reshape(value.shape).astype(dtype)
        tape.walk_back(tape.sum(value * weights))
        return tape.gradient(leaf)[0], weights

    with ctx.workprec(256), np.errstate(all="ignore"):
        truth, weights = on_tape(BallNumbers())
        budget, _ = on_tape(RoundedNumbers(dtype))
    actual = (by_torch if framework == "torch" else by_jax)(path, x, weights, arguments)

    _, error = Enclosed(truth, np.zeros(truth.shape, dtype=bool)).distance(actual.astype(np.float64))
    assert actual.dtype == dtype
    assert np.isfinite(budget.error).mean() > 0.6
    off = error > budget.error
    assert off.any() == ((name, framework, dtype) in INACCURATE), (x[off][:4], actual[off][:4], truth[off][:4])


@pytest.mark.parametrize("side", [lower_gamma_of, upper_gamma_of])
def test_the_share_of_gamma_has_the_rounding_of_its_constant_in_its_slope(side: Any) -> None:
    """A framework computes log Gamma(a) as it computes any other."""
    numbers = RoundedNumbers("float64")
    order, x = numbers.asarray([1.4]), numbers.asarray([0.9])

    slope = side(1.4).slope(numbers, x, None)

    assert abs(slope.value) * numbers.lgamma(order).error <= slope.error
