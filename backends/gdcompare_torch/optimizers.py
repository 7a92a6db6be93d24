"""Optimizers of `torch.optim`, as `gdcompare.verify_rule` judges them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Arrays: TypeAlias = dict[str, NDArray[Any]]


def from_optimizer(
    make: Callable[[list[torch.Tensor]], torch.optim.Optimizer],
    *,
    before: Callable[[list[torch.Tensor]], object] | None = None,
) -> Callable[[Arrays], Callable[[Arrays], Mapping[str, Any]]]:
    """Return an optimizer as an implementation of an update rule: `verify_rule(rule, implementations={"mine": it})`.

    `make(parameters)` makes it, of a list of tensors. `before(parameters)`, if given, is called before each step: it
    may change the gradients, as `torch.nn.utils.clip_grad_norm_` does.

    >>> import gdcompare as gdc
    >>> mine = from_optimizer(lambda parameters: torch.optim.Adam(parameters, lr=0.1, weight_decay=0.01))
    >>> report = gdc.verify_rule(gdc.rules.adamw(0.1, weight_decay=0.01), implementations={"Adam": mine})
    >>> report.verdict, report.entries[0].cause
    ('wrong', 'it is what weight decay in the gradient would give')
    """

    def start(params: Arrays) -> Callable[[Arrays], Mapping[str, Any]]:
        leaves = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
        optimizer = make(list(leaves.values()))

        def step(gradient: Arrays) -> Mapping[str, Any]:
            for name, leaf in leaves.items():
                leaf.grad = torch.tensor(gradient[name])
            if before is not None:
                before(list(leaves.values()))
            optimizer.step()
            return {name: np.array(leaf.detach().cpu().numpy()) for name, leaf in leaves.items()}

        return step

    return start
