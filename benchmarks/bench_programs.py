"""Verdicts on programs: models as they stand, whose truth is that of the framework's own graph.

Each must agree before its time is believed, and the same gradient with one parameter's part 1 % too large must not. The
first verdict in a process also loads what the framework traces with: that is no part of the times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.timing import memory
from gdcompare.timing.contender import Contender, Judgement

from .conftest import Measure

torch: Any = pytest.importorskip("torch", reason="the models are torch's")

from gdcompare_torch import from_module  # noqa: E402 - torch may be missing

nn, F = torch.nn, torch.nn.functional

pytestmark = pytest.mark.benchmark(min_rounds=3, max_time=1.0)

GIBIBYTE = 2**30


class Block(torch.nn.Module):  # type: ignore[misc]  # torch comes without types here
    """A causal transformer block: attention behind a mask of -infinity, and a network of one hidden layer."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x: Any) -> Any:
        """Return (n, tokens, width) of the same."""
        n, t, d = x.shape
        q, k, v = (
            each.reshape(n, t, self.heads, d // self.heads).transpose(1, 2)
            for each in self.qkv(self.first(x)).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5
        above = torch.ones(t, t, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(above, float("-inf")).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, d))
        return x + self.outer(F.gelu(self.inner(self.second(x)), approximate="tanh"))


@dataclass(frozen=True)
class Model:
    """A model, its data, and what a verdict on it may take."""

    native: Any
    data: tuple[Any, Any]
    peak: float
    """Bytes that the process may hold at most."""


def block(width: int, tokens: int, dtype: str) -> Model:
    """One sequence, and a mean squared error."""
    generator = np.random.default_rng(0)
    data = tuple(generator.standard_normal((1, tokens, width)) for _ in range(2))
    return Model(_native(lambda: Block(width), F.mse_loss, dtype), (data[0], data[1]), 4 * GIBIBYTE)


def convolutions(images: int, dtype: str) -> Model:
    """Two convolutions of 28 x 28, each with a relu and a largest of four, and a layer to ten classes."""
    generator = np.random.default_rng(0)
    data = generator.standard_normal((images, 1, 28, 28)), generator.integers(0, 10, images)

    def make() -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(784, 10),
        )  # fmt: skip

    return Model(_native(make, F.cross_entropy, dtype), data, 4 * GIBIBYTE)


def _native(make: Any, loss: Any, dtype: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return from_module(make().to(getattr(torch, dtype)), loss, name="model")


MODELS = {
    "block 32 x 16, float64": lambda: block(32, 16, "float64"),
    "block 32 x 16, float32": lambda: block(32, 16, "float32"),
    "block 256 x 64, float32": lambda: block(256, 64, "float32"),
    "convolutions, 32 images, float64": lambda: convolutions(32, "float64"),
}


@pytest.mark.parametrize("name", MODELS)
def test_verdict_on_a_program(name: str, measure: Measure) -> None:
    """`gdc.verify` of a model's own gradient, from its graph to the verdict."""
    model, dtype = MODELS[name](), name.rpartition(" ")[2]

    def too_large(*point: Any) -> Any:
        loss, gradient = model.native.value_and_grad(*point)
        largest = max(gradient, key=lambda each: float(np.abs(gradient[each]).max()))
        return loss, gradient | {largest: (gradient[largest] * 1.01).astype(dtype)}

    planted = gdc.verify(model.native, model.data, implementations={"too large": too_large}, dtype=dtype)
    found = {entry.implementation for entry in planted.entries if entry.verdict == "wrong"}

    def judge(report: gdc.Report) -> Judgement:
        right = report.verdict == "agree" and found == {"too large"}
        held = memory.peak()
        words = f"it is called {report.verdict}, and of the planted fault {found}; {held / GIBIBYTE:.2f} GiB were held"
        return Judgement(right and held <= model.peak, words)

    measure("a verdict on a program", Contender(name, lambda: gdc.verify(model.native, model.data, dtype=dtype), judge))
