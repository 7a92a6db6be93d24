"""Four devices of JAX in one process, each program right or with a fault planted.

    XLA_FLAGS=--xla_force_host_platform_device_count=4 python jax_devices.py OUT

What they hold is written to the file OUT: `{scenario: {"local": ..., "reduced": ...}}`.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gdcompare_jax.distributed import gather_gradients, local_gradients
from jax.lax import axis_index, pmean, psum
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DEVICES = 4
EQUAL = np.arange(12).reshape(4, 3).tolist()
KEPT = [3, 1, 2, 3]
"""How many rows of each device count, where shards are padded to equal size."""
UNEQUAL = [rows[:kept] for rows, kept in zip(EQUAL, KEPT, strict=True)]
MICRO = [[rows[:1], rows[1:]] for rows in EQUAL]

Params = dict[str, Any]
Run = Callable[[], dict[str, Any]]


def start(seed: int = 0) -> Params:
    """Return parameters, drawn from the seed."""
    random = np.random.default_rng(seed)
    shapes = {"w": (3, 4), "b": (4,), "v": (4,)}
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def data() -> tuple[Any, Any]:
    """Return the rows of this step, and after them as many of the step before."""
    random = np.random.default_rng(1)
    return random.normal(size=(24, 3)), random.normal(size=24)


def losses(p: Params, x: Any, y: Any) -> Any:
    """Return the loss of each row."""
    return (jnp.tanh(x @ p["w"] + p["b"]) @ p["v"] - y) ** 2


def loss(p: Params, x: Any, y: Any) -> Any:
    """Return the mean loss."""
    return jnp.mean(losses(p, x, y))


X, Y = data()
NOW = slice(0, 12)


def mesh(*names: str) -> Mesh:
    """Return the devices as a mesh of these axes, of two devices each if there are two."""
    return Mesh(np.array(jax.devices()).reshape([2, 2] if len(names) == 2 else [4]), names)


mean, total = (partial(jax.tree.map, partial(each, axis_name="data")) for each in (pmean, psum))


def scaled(times: Any, tree: Params) -> Params:
    return {name: times * value for name, value in tree.items()}


def added(one: Params, two: Params) -> Params:
    return {name: one[name] + two[name] for name in one}


def own(p: Params, x: Any, y: Any) -> Params:
    return dict(jax.grad(loss)(p, x, y))


def mapped(reduced: Callable[..., Params], local: Callable[..., Params] | None = own, vma: bool = False) -> Run:
    """Return a program: gradients of the devices' rows, reduced inside of a shard_map."""

    def both(p: Params, x: Any, y: Any) -> tuple[Params, Params]:
        alone = {} if local is None else local(p, x, y)
        return reduced(p, x, y), {name: value[None] for name, value in alone.items()}

    def run() -> dict[str, Any]:
        specs = P(), P("data"), P("data")
        program = jax.shard_map(both, mesh=mesh("data"), in_specs=specs, out_specs=(P(), P("data")), check_vma=vma)
        reduced, local = jax.jit(program)(start(), X[NOW], Y[NOW])
        return {"reduced": gather_gradients(reduced)} | ({"local": local_gradients(local)} if local else {})

    return run


def placed(spec: P, *axes: str, along: str | None = None) -> Run:
    """Return a program that leaves everything to the compiler: arrays sharded over a mesh."""

    def run() -> dict[str, Any]:
        rows, copies, parts = (NamedSharding(mesh(*axes), each) for each in (P("data"), P(), spec))
        x, y = (jax.device_put(each[NOW], rows) for each in (X, Y))
        p = {name: jax.device_put(value, copies) for name, value in start().items()}
        out = {"w": copies, "b": parts, "v": parts}
        return {"reduced": gather_gradients(jax.jit(jax.grad(loss), out_shardings=out)(p, x, y), along)}

    return run


def kept(x: Any) -> Any:
    """Return which rows of a padded shard count."""
    return jnp.arange(x.shape[0]) < jnp.array(KEPT)[axis_index("data")]


def masked(p: Params, x: Any, y: Any) -> Any:
    return jnp.sum(jnp.where(kept(x), losses(p, x, y), 0.0)) / jnp.sum(kept(x))


def masked_sum(p: Params, x: Any, y: Any) -> Params:
    return scaled(1 / sum(KEPT), total(jax.grad(lambda p: jnp.sum(jnp.where(kept(x), losses(p, x, y), 0.0)))(p)))


def stale(p: Params, x: Any, y: Any) -> Params:
    here = axis_index("data") == 1
    return own(jax.tree.map(lambda new, old: jnp.where(here, old, new), p, start(7)), x, y)


def dropped(p: Params, x: Any, y: Any) -> Params:
    return scaled(jnp.where(axis_index("data") == 2, 0.0, 1.0), own(p, x, y))


def first_alone(p: Params, x: Any, y: Any) -> Params:
    one, two = own(p, x[:1], y[:1]), own(p, x[1:], y[1:])
    return added(scaled(1 / 3, mean(one)), scaled(2 / 3, two))


def micro_mean(p: Params, x: Any, y: Any) -> Params:
    return scaled(1 / 2, added(own(p, x[:1], y[:1]), own(p, x[1:], y[1:])))


def of_the_loss(collective: Callable[..., Any], p: Params, x: Any, y: Any) -> Params:
    return dict(jax.grad(lambda p: collective(loss(p, x, y), "data"))(p))


SCENARIOS: dict[str, Run] = {
    "right": mapped(lambda *a: mean(own(*a))),
    "right, of the mean loss": mapped(partial(of_the_loss, pmean), None, vma=True),
    "right, by the compiler": placed(P(), "data"),
    "right, in pieces": placed(P("data"), "data"),
    "right, on two axes": placed(P("model"), "data", "model", along="data"),
    "right, padded": mapped(masked_sum, jax.grad(masked)),
    "summed": mapped(lambda *a: total(own(*a))),
    "averaged twice": mapped(lambda *a: scaled(1 / 4, mean(own(*a)))),
    "unweighted": mapped(lambda *a: mean(jax.grad(masked)(*a)), jax.grad(masked)),
    "stale": mapped(lambda *a: mean(stale(*a)), stale),
    "dropped": mapped(lambda *a: mean(dropped(*a)), dropped),
    "not synchronised": mapped(own),
    "first micro-batch": mapped(first_alone),
    "micro-batches unweighted": mapped(lambda *a: mean(micro_mean(*a)), micro_mean),
    "transposed": mapped(lambda *a: mean(of_the_loss(psum, *a)), partial(of_the_loss, psum)),
    "transposed, not synchronised": mapped(partial(of_the_loss, psum), None),
    "mean transposed, not synchronised": mapped(partial(of_the_loss, pmean), None),
    "shared parameters": mapped(lambda *a: mean(own(*a)), None, vma=True),
    "shared parameters, summed": mapped(lambda *a: total(own(*a)), None, vma=True),
}


if __name__ == "__main__":
    with jax.enable_x64(True):
        Path(sys.argv[1]).write_bytes(pickle.dumps({name: run() for name, run in SCENARIOS.items()}))
