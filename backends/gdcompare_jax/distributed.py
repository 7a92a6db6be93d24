"""The gradients that devices hold, as `gdcompare.distributed.judge` takes them: nothing is driven here.

An array that a program says is the same everywhere need not be: each device's own values are handed over.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np

from gdcompare.distributed.pieces import Piece
from gdcompare_jax.models import named_leaves

Held: TypeAlias = dict[int, dict[str, Any]]


def gather_gradients(gradients: Any, axis: str | None = None) -> Held:
    """Return what each device holds of a pytree of gradients, `{rank: {name: pieces}}`: `reduced` for `judge`.

    Ranks are the devices in the order of the mesh; with `axis`, the name of the mesh's axis along which the rows are
    sharded, they are the places along it, each with what all devices there hold. Names are those that `from_function`
    gives to the leaves, "layers/0/weight".

    Raises ValueError for arrays that are not all on one set of devices, or partly in other processes.

    >>> import jax.numpy as jnp
    >>> gather_gradients({"w": jnp.arange(2.0)})
    {0: {'w': [Piece((2,) at (0,))]}}
    """
    leaves = named_leaves(gradients)
    ranks = _ranks(leaves, axis)
    held: Held = {rank: {name: [] for name in leaves} for rank in sorted(set(ranks.values()))}
    for name, leaf in leaves.items():
        if set(leaf.sharding.device_set) != set(ranks):
            raise ValueError(
                f"{name!r} is on {len(leaf.sharding.device_set)} devices, and other gradients on {len(ranks)}: "
                "put all of them on one mesh"
            )
        if not leaf.is_fully_addressable:
            raise ValueError(f"{name!r} is partly in other processes: multihost_utils.process_allgather brings it here")
        for shard in leaf.addressable_shards:
            start = tuple(part.indices(size)[0] for part, size in zip(shard.index, leaf.shape, strict=True))
            held[ranks[shard.device]][name].append(Piece(np.asarray(shard.data), start))
    return held


def local_gradients(stacked: Any) -> Held:
    """Return the gradient of each device's own rows, of a pytree whose leaves have one in front for each: `local`.

    A `shard_map` returns that where its function gives `gradient[None]`, with `out_specs=PartitionSpec(axis)`.

    >>> import jax.numpy as jnp
    >>> local_gradients({"w": jnp.ones((2, 3))})[1]
    {'w': array([1., 1., 1.], dtype=float32)}
    """
    leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(stacked).items()}
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves.values()}
    if len(lengths) != 1 or lengths == {0}:
        shapes = ", ".join(f"{name} {leaf.shape}" for name, leaf in leaves.items())
        raise ValueError(f"gradients of each device have an axis of that length in front: gradient[None]; got {shapes}")
    return {rank: {name: leaf[rank] for name, leaf in leaves.items()} for rank in range(lengths.pop())}


def _ranks(leaves: dict[str, Any], axis: str | None) -> dict[jax.Device, int]:
    """Return the rank of each device."""
    if not leaves:
        raise ValueError("there is no array among the gradients")
    meshes = [leaf.sharding.mesh for leaf in leaves.values() if isinstance(leaf.sharding, jax.sharding.NamedSharding)]
    if axis is not None:
        if not meshes or axis not in meshes[0].axis_names:
            names = ", ".join(meshes[0].axis_names) if meshes else "none: these arrays are on no mesh"
            raise ValueError(f"axis {axis!r} is none of the mesh's; it has {names}")
        along = meshes[0].axis_names.index(axis)
        return {device: place[along] for place, device in np.ndenumerate(meshes[0].devices)}
    first = next(iter(leaves.values()))
    devices = list(meshes[0].devices.flat) if meshes else sorted(first.sharding.device_set, key=lambda each: each.id)
    return {device: rank for rank, device in enumerate(devices)}
