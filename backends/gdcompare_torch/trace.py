"""The graph that autograd records, with the value and the cotangent at every node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from gdcompare.backend import TraceStep


@final
class _Values(TorchFunctionMode):  # type: ignore[misc]  # torch comes without types here
    """Keeps what each call gives out, by the node that it recorded; a node inside another's call has none."""

    def __init__(self) -> None:
        super().__init__()
        self.by_node: dict[Any, torch.Tensor] = {}

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        del types
        result = function(*arguments, **(options or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.grad_fn is not None:
                self.by_node[each.grad_fn] = each
        return result


def graph(loss: Callable[[Any], torch.Tensor], leaves: Mapping[str, torch.Tensor]) -> list[TraceStep]:
    """Return the nodes between the leaves and the loss, in the order in which they were recorded."""
    with torch.enable_grad(), _Values() as values:
        total = loss(leaves)
    if total.grad_fn is None:
        return []
    nodes, todo = {total.grad_fn}, [total.grad_fn]
    while todo:
        for node, _ in todo.pop().next_functions:
            if node is not None and node not in nodes:
                nodes.add(node)
                todo.append(node)
    ends = {node for node in nodes if hasattr(node, "variable")}
    ordered = sorted(nodes - ends, key=lambda node: node._sequence_nr())
    names = {node: f"t{i}" for i, node in enumerate(ordered, start=1)}
    names |= {node: name for node in ends for name, leaf in leaves.items() if node.variable is leaf}
    cotangents: dict[Any, torch.Tensor] = {}

    def keep(node: Any) -> Callable[[Any], None]:
        def hook(arriving: Any) -> None:
            cotangents[node] = next((each for each in arriving if each is not None), None)

        return hook

    handles = [node.register_prehook(keep(node)) for node in ordered]
    total.backward()
    for handle in handles:
        handle.remove()
    steps = [TraceStep(name, "parameter", (), _numpy(leaf), _numpy(leaf.grad), name) for name, leaf in leaves.items()]
    for node in ordered:
        inputs = tuple(names[each] for each, _ in node.next_functions if each in names)
        steps.append(
            TraceStep(names[node], node.name(), inputs, _numpy(values.by_node.get(node)), _numpy(cotangents.get(node)))
        )
    return steps


def _numpy(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().cpu().numpy()
