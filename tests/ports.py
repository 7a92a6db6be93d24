"""A real port: one small transformer, written in PyTorch and in JAX with Equinox, and the bugs that such ports have."""

from __future__ import annotations

from copy import copy
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from gdcompare_jax import from_function, tap
from gdcompare_torch import from_module

import gdcompare as gdc

TOKENS, WIDTH, HEADS, HIDDEN = 5, 8, 2, 16


class Attention(torch.nn.Module):  # type: ignore[misc]  # torch comes without types here
    """Multi-head self-attention, with one fused projection for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.softmax = torch.nn.Softmax(dim=-1)
        self.out = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        heads = self.qkv(x).reshape(n, t, 3, HEADS, WIDTH // HEADS)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # (n, heads, t, width / heads) each
        weights = self.softmax(q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5)
        return self.out((weights @ v).transpose(1, 2).reshape(n, t, WIDTH))


class Transformer(torch.nn.Module):  # type: ignore[misc]
    """One block, pre-norm, and a linear head on the mean over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = torch.nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.norm2 = torch.nn.LayerNorm(WIDTH)
        self.up = torch.nn.Linear(WIDTH, HIDDEN)
        self.gelu = torch.nn.GELU()
        self.down = torch.nn.Linear(HIDDEN, WIDTH)
        self.head = torch.nn.Linear(WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(-1, TOKENS, WIDTH)
        x = x + self.attention(self.norm1(x))
        x = x + self.down(self.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(dim=1))[:, 0]


class Dense(eqx.Module):  # type: ignore[misc]
    """A kernel (in, out), as Flax and Keras have it."""

    kernel: jax.Array
    bias: jax.Array

    def __init__(self, inputs: int, outputs: int) -> None:
        self.kernel, self.bias = jnp.zeros((inputs, outputs)), jnp.zeros(outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.kernel + self.bias


class EquinoxAttention(eqx.Module):  # type: ignore[misc]
    query: Dense
    key: Dense
    value: Dense
    out: Dense
    softmax_axis: int

    def __init__(self, softmax_axis: int) -> None:
        self.query, self.key, self.value, self.out = (Dense(WIDTH, WIDTH) for _ in range(4))
        self.softmax_axis = softmax_axis

    def __call__(self, x: jax.Array) -> jax.Array:
        t, _ = x.shape
        q, k, v = (each(x).reshape(t, HEADS, -1) for each in (self.query, self.key, self.value))
        scores = jnp.einsum("ihd,jhd->hij", q, k) / (WIDTH // HEADS) ** 0.5
        weights = tap("softmax", jax.nn.softmax(scores, axis=self.softmax_axis))  # a function: no module to be seen
        return self.out(jnp.einsum("hij,jhd->ihd", weights, v).reshape(t, WIDTH))


class EquinoxTransformer(eqx.Module):  # type: ignore[misc]
    """The port, for one sample; its settings are where bugs are planted."""

    norm1: eqx.nn.LayerNorm
    attention: EquinoxAttention
    norm2: eqx.nn.LayerNorm
    up: Dense
    gelu: eqx.nn.Lambda
    down: Dense
    head: Dense

    def __init__(self, epsilon: float = 1e-5, softmax_axis: int = -1, approximate: bool = False) -> None:
        self.norm1, self.norm2 = eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH, eps=epsilon)
        self.attention = EquinoxAttention(softmax_axis)
        self.up, self.down, self.head = Dense(WIDTH, HIDDEN), Dense(HIDDEN, WIDTH), Dense(WIDTH, 1)
        self.gelu = eqx.nn.Lambda(partial(jax.nn.gelu, approximate=approximate))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(TOKENS, WIDTH)
        x = x + self.attention(jax.vmap(self.norm1)(x))
        x = x + self.down(self.gelu(self.up(jax.vmap(self.norm2)(x))))
        return self.head(jnp.mean(x, axis=0))[0]


def squared_errors(model: Any, features: jax.Array, targets: jax.Array) -> jax.Array:
    """The loss of each row."""
    return (jax.vmap(model)(features) - targets) ** 2


def transposed(name: str) -> Any:
    return lambda p: p[name].T


LAYOUT: dict[str, Any] = {f"{name}/bias": f"{name}.bias" for name in ("norm1", "norm2", "up", "down", "head")}
LAYOUT |= {f"{name}/weight": f"{name}.weight" for name in ("norm1", "norm2")}
LAYOUT |= {f"{name}/kernel": transposed(f"{name}.weight") for name in ("up", "down", "head")}
LAYOUT |= {"attention/out/kernel": transposed("attention.out.weight"), "attention/out/bias": "attention.out.bias"}
for _i, _name in enumerate(("query", "key", "value")):
    _rows = slice(_i * WIDTH, (_i + 1) * WIDTH)
    LAYOUT[f"attention/{_name}/kernel"] = lambda p, rows=_rows: p["attention.qkv.weight"][rows].T
    LAYOUT[f"attention/{_name}/bias"] = lambda p, rows=_rows: p["attention.qkv.bias"][rows]

LAYERS = {"attention.softmax": "softmax"}

BUGS: dict[str, tuple[dict[str, Any], str]] = {
    "the epsilon of a norm": ({"epsilon": 1e-6}, "norm2"),
    "softmax over the wrong axis": ({"softmax_axis": -2}, "attention.softmax"),
    "gelu by its tanh approximation": ({"approximate": True}, "gelu"),
    "a kernel that is not transposed": ({}, "attention.out"),
}
"""`{bug: (settings of the port, the first layer that differs)}`."""


def drawn(model: Any, seed: int = 0) -> Any:
    """The torch model, with weights from a seed of its own."""
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            weights = generator.normal(size=value.shape) / np.sqrt(value.shape[-1])
            value.copy_(torch.tensor(weights + (name.startswith("norm") and name.endswith("weight"))))
    return model


def source(seed: int = 0) -> gdc.Native:
    return from_module(drawn(Transformer(), seed), torch.nn.functional.mse_loss, name="torch")


@cache
def program(**settings: Any) -> gdc.Native:
    """The Equinox model; one of the same settings is compiled once."""
    return from_function(squared_errors, EquinoxTransformer(**settings), layout=LAYOUT, name="equinox")


def port(bug: str | None = None) -> gdc.Native:
    settings, _ = BUGS[bug] if bug else ({}, "")
    model = copy(program(**settings))
    if bug == "a kernel that is not transposed":
        model.layout = LAYOUT | {"attention/out/kernel": "attention.out.weight"}  # square: its shape does not tell
    return model


def sequences(samples: int = 6, seed: int = 1) -> gdc.Dataset:
    """Tokens (n, TOKENS * WIDTH), and a number for each sequence."""
    generator = np.random.default_rng(seed)
    return gdc.Dataset(generator.normal(size=(samples, TOKENS * WIDTH)), generator.normal(size=samples), "sequences")
