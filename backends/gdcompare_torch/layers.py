"""What the layers of a module compute, and what comes back to them."""

from __future__ import annotations

from itertools import count
from typing import Any, final

import torch
from torch.nn.utils import stateless
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from gdcompare.models.native import is_rounded, layer_names


def keeping(name: str, seen: list[tuple[str, torch.Tensor]]) -> Any:
    """Return a forward hook that keeps what a module gives out."""
    calls = count(1)

    def keep(_module: Any, _arguments: Any, output: Any) -> Any:
        leaves, structure = tree_flatten(output)
        arrays = [i for i, each in enumerate(leaves) if torch.is_tensor(each) and each.is_floating_point()]
        for label, i in zip(layer_names(name, next(calls), len(arrays)), arrays, strict=True):
            # A copy to keep, and another to go on with: an identity's output, which is its input, and operations in
            # place would make it an array that is used elsewhere, too.
            kept = leaves[i].clone()
            if not kept.requires_grad:
                kept.requires_grad_()  # no parameter came before it; it has a cotangent all the same
            leaves[i] = kept.clone()
            seen.append((label, kept))
        return tree_unflatten(leaves, structure)

    return keep


@final
class Narrowed(TorchDispatchMode):  # type: ignore[misc]  # torch comes without types here
    """Sees every operation, and keeps which meet numbers rounded to less than float64."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, None] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        del types
        for each in tree_flatten((arguments, options or {}))[0]:
            narrow = torch.is_tensor(each) and each.is_floating_point() and each.dtype != torch.float64
            if narrow and is_rounded(each.detach().cpu().float().numpy()):
                dtype = str(each.dtype).removeprefix("torch.")
                self.found[f"an array {tuple(each.shape)} of {dtype}, in {function.overloadpacket}"] = None
        return function(*arguments, **(options or {}))


def holding(module: torch.nn.Module, constants: dict[str, Any], leaves: dict[str, Any]) -> Any:
    """Let a module hold these tensors: what `torch.utils.checkpoint` computes anew on the way back meets them."""
    return stateless._reparametrize_module(module, constants | leaves, tie_weights=True)


def draws(module: torch.nn.Module) -> bool:
    """Whether it draws random numbers in a forward pass."""
    if isinstance(module, torch.nn.RReLU):
        return bool(module.training)
    share = module.p if isinstance(module, torch.nn.modules.dropout._DropoutNd) else 0.0
    if isinstance(module, torch.nn.RNNBase | torch.nn.MultiheadAttention):
        share = module.dropout
    return bool(module.training and share)


def couples(module: torch.nn.Module) -> bool:
    """Whether it normalises by the statistics of the batch."""
    if not isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        return False
    return bool(module.training or module.running_mean is None)
