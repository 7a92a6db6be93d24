"""Products that round their factors to TF32 are judged by that, where a GPU is switched so: the device is faked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.arithmetic.precision import OF_FACTORS, rounded_to

SIZE = 6
GENERATOR = np.random.default_rng(0)
WEIGHTS = {"w": GENERATOR.normal(size=(SIZE, SIZE)).astype(np.float32)}
ROWS = GENERATOR.normal(size=(5, SIZE)).astype(np.float32), np.zeros(5, dtype=np.float32)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Put torch's switch back."""
    torch: Any = sys.modules.get("torch")
    before = torch and torch.backends.cuda.matmul.allow_tf32
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.backends.cuda.matmul.allow_tf32 = bool(before)


def by_tensor_cores(params: Any, features: Any, targets: Any, fault: float = 1.0) -> tuple[float, Any]:
    """mean sum (x w w)^2, whose products round their factors, forwards and back."""

    def times(a: Any, b: Any) -> Any:
        return (rounded_to(a, OF_FACTORS) @ rounded_to(b, OF_FACTORS)).astype(np.float32)

    del targets
    w, n = params["w"], len(features)
    hidden = times(features, w)
    out = times(hidden, w)
    g = (2 / n * out).astype(np.float32)
    gradient = times(hidden.T, g) + times(features.T, times(g, w.T))
    return float((out**2).sum() / n), {"w": (fault * gradient).astype(np.float32)}


def of_torch(monkeypatch: pytest.MonkeyPatch, switched: bool) -> Any:
    torch = pytest.importorskip("torch", reason="reads the programs of torch")
    from gdcompare_torch import from_function, tensor_cores

    monkeypatch.setattr(tensor_cores, "on_cuda", lambda _: True)
    torch.backends.cuda.matmul.allow_tf32 = switched
    return from_function(lambda p, x, y: ((x @ p["w"] @ p["w"]) ** 2).sum(1) + 0 * y, WEIGHTS, name="it")


def of_jax(monkeypatch: pytest.MonkeyPatch, switched: bool) -> Any:
    jax = pytest.importorskip("jax", reason="reads the programs of JAX")
    from gdcompare_jax import from_function, program

    monkeypatch.setattr(program, "device_kind", lambda: "gpu")
    how = {"precision": None if switched else jax.lax.Precision.HIGHEST}

    def loss(p: Any, x: Any, y: Any) -> Any:
        times = jax.numpy.matmul
        return (times(times(x, p["w"], **how), p["w"], **how) ** 2).sum(1) + 0 * y

    return from_function(loss, WEIGHTS, name="it")


@pytest.mark.thorough
@pytest.mark.parametrize("reader", [of_torch, of_jax])
@pytest.mark.parametrize(("switched", "verdict"), [(True, "agree"), (False, "wrong")])
def test_factors_may_be_rounded_where_the_switch_lets_them(
    reader: Any, switched: bool, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = reader(monkeypatch, switched)

    report = gdc.verify(native, ROWS, dtype="float32", implementations={"cores": by_tensor_cores})

    found = {each.implementation: each.verdict for each in report.entries if each.parameter == "w"}
    assert found == {"it": "agree", "cores": verdict}


@pytest.mark.parametrize("reader", [of_torch, of_jax])
def test_a_fault_above_their_rounding_is_wrong(reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(params: Any, features: Any, targets: Any) -> Any:
        return by_tensor_cores(params, features, targets, fault=1.05)

    report = gdc.verify(reader(monkeypatch, True), ROWS, dtype="float32", implementations={"spoiled": spoiled})

    assert {each.verdict for each in report.entries if each.implementation == "spoiled" and each.parameter == "w"} == {
        "wrong"
    }


def test_in_float64_nothing_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    native = of_torch(monkeypatch, True)

    report = gdc.verify(native, ROWS)

    assert report.verdict == "agree"
    assert all(each.detectable < 1e-9 for each in report.entries)
