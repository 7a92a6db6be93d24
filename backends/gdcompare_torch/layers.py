"""What the layers of a module compute, and what comes back to them."""

from __future__ import annotations

from itertools import count
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from gdcompare.models.native import (
    layer_names,
)


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
