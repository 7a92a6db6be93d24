"""The gradients that the ranks of a process group hold, for `gdcompare.distributed.judge`: nothing is driven here.

Every function that gathers is a collective: all ranks of the group call it, and all get the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.nn.parallel import DistributedDataParallel

from gdcompare.distributed.pieces import Piece

Gradient: TypeAlias = dict[str, Any]
"""`{name: array}`, or `{name: Piece}` of what is sharded."""

_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""What compiling and checkpointing put into the names that a module has for its parameters."""


def gradients(module: torch.nn.Module) -> Gradient:
    """Return what this rank holds of a module's gradients, by the names of the module inside its wrappers.

    Of a parameter that is sharded, as by `fully_shard`, that is a `Piece`: the rows on this rank, and where they begin.
    Parameters without a gradient are left out, and `judge` says so. Copies, in NumPy; nothing is communicated.

    >>> line = torch.nn.Linear(2, 1, dtype=torch.float64)
    >>> line(torch.ones(3, 2, dtype=torch.float64)).mean().backward()
    >>> gradients(line)
    {'weight': array([[1., 1.]]), 'bias': array([1.])}
    """
    named = _named(module).items()
    return {name: _held(name, parameter.grad) for name, parameter in named if parameter.grad is not None}


def gather_gradients(module: torch.nn.Module, group: dist.ProcessGroup | None = None) -> dict[int, Gradient]:
    """Return what every rank holds of the gradients, `{rank: {name: array or Piece}}`: call it on all ranks.

    That is `reduced` for `gdcompare.distributed.judge`, after the backward pass and before the optimizer's step or any
    clipping. Raises ValueError for gradients in half precision, or that are sums which nobody has taken yet.
    """
    return gather(gradients(module), group)


def gather(held: Any, group: dist.ProcessGroup | None = None) -> dict[int, Any]:
    """Return any value of each rank, by rank, on all of them; as `local`, the gradients that it had by itself.

    Outside of a process group there is one rank, 0. Tensors in a mapping become arrays.
    """
    if isinstance(held, Mapping):
        held = {name: _held(name, each) if isinstance(each, torch.Tensor) else each for name, each in held.items()}
    if not (dist.is_available() and dist.is_initialized()):
        return {0: held}
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, held, group=group)
    return dict(enumerate(found))


@final
class LocalGradients:
    """What this rank gives to the reductions of a `DistributedDataParallel`, as it trains, and how often it does.

    It registers a communication hook, of which there may be one: `hook` and `state` are the one that the program has,
    or torch's own, which averages. Where micro-batches are accumulated, what is given is all that has been since the
    last `reset`, or what the reductions before have made of it.

    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> line = DistributedDataParallel(torch.nn.Linear(2, 1, dtype=torch.float64))
    >>> seen = LocalGradients(line)
    >>> line(torch.ones(3, 2, dtype=torch.float64)).mean().backward()
    >>> gather(seen.gradients), seen.reductions
    ({0: {'weight': array([[1., 1.]]), 'bias': array([1.])}}, 1)
    >>> dist.destroy_process_group()
    """

    def __init__(
        self, module: DistributedDataParallel, hook: Callable[..., Any] | None = None, state: object = None
    ) -> None:
        self._names = {id(parameter): name for name, parameter in _named(module).items()}
        self._reduce, self._state = hook or default_hooks.allreduce_hook, state
        self.reset()

        def seen(state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
            return self._seen(state, bucket)

        seen.__annotations__.clear()  # torch compares them with its classes, and these are strings
        module.register_comm_hook(self._state, seen)

    def reset(self) -> None:
        """Begin a step: nothing has been reduced."""
        self.gradients: dict[str, NDArray[Any]] = {}
        """What was given to the last reduction, by parameter."""
        self.reductions = 0
        """How often the gradients were reduced."""

    def _seen(self, state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
            name = self._names[id(parameter)]
            self.gradients[name] = _held(name, gradient).reshape(tuple(parameter.shape))
        self.reductions += bucket.is_last()
        reduced: torch.futures.Future[torch.Tensor] = self._reduce(state, bucket)
        return reduced


def _named(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters by the names of the module inside its wrappers."""
    while isinstance(module, DistributedDataParallel | torch.nn.DataParallel):
        module = module.module
    found = {}
    for name, parameter in module.named_parameters():
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")
        found[name] = parameter
    return found


def _held(name: str, gradient: torch.Tensor) -> Any:
    """Return a gradient as an array, or as a piece of one."""
    if gradient.dtype not in (torch.float32, torch.float64):
        dtype = str(gradient.dtype).removeprefix("torch.")
        raise ValueError(f"the gradient of {name!r} is {dtype}; float32 and float64 are judged")
    if not isinstance(gradient, DTensor):
        return _array(gradient)
    if any(placement.is_partial() for placement in gradient.placements):
        raise ValueError(f"the gradient of {name!r} is a sum that is not taken yet: {gradient.placements}")
    _, start = compute_local_shape_and_global_offset(gradient.shape, gradient.device_mesh, gradient.placements)
    return Piece(_array(gradient.to_local()), tuple(map(int, start)))


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return np.array(tensor.detach().cpu().numpy())
