"""Modules, and functions with a backward pass of their own, as native models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from gdcompare.models.matching import Layout
from gdcompare.models.native import WHOLE, Layer, Native, check_independence, check_outputs, mean_of, without_row
from gdcompare_torch.layers import keeping

# Native models.


def from_module(
    module: torch.nn.Module, loss: Callable[..., Any], *, layout: Layout | None = None, name: str | None = None
) -> Native:
    """Return a module and its loss as a native model: `gdcompare.verify(..., implementations={"mine": it})`.

    `module(features)` gives outputs, and `loss(outputs, targets)` one number, the mean over the rows, or one number for
    each row. Everything is a float tensor in the dtype under test, targets too: a loss that wants labels takes
    `targets.long()`. The module's trainable parameters are its parameters, by the names it has for them; all others,
    and buffers, are constants. It computes on copies, on its own device, and is never changed.

    Raises ValueError for a module whose loss of a row depends on chance, or on the other rows.

    >>> import gdcompare as gdc
    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Flatten(0))
    >>> layout = {"0.weight": lambda p: p["theta_1"][None, :], "0.bias": lambda p: p["theta_0"][None]}
    >>> mine = from_module(model, torch.nn.functional.mse_loss, layout=layout)
    >>> gdc.verify("linear-regression", gdc.datasets.noisy_line(), backends=[], implementations={"mine": mine}).verdict
    'agree'
    """
    return TorchModule(module, loss, layout, name)


def from_autograd_function(
    function: Any, *, layout: Layout | None = None, name: str | None = None, device: str | None = None
) -> Native:
    """Return a custom `torch.autograd.Function`, or a function around one, as an implementation of a `gdc.Operation`.

    It is called with one tensor for each parameter of the operation, in that order, and returns one tensor.

    >>> import gdcompare as gdc
    >>> class Square(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x
    ...     @staticmethod
    ...     def backward(ctx, cotangent):
    ...         return cotangent * ctx.saved_tensors[0]  # half of it
    >>> square = gdc.Operation(lambda xp, x: x * x, x=(3,))
    >>> mine = from_autograd_function(Square)
    >>> report = gdc.verify(square, square.example(), backends=[], implementations={"mine": mine})
    >>> report.verdict, report.entries[1].cause
    ('wrong', 'a constant factor 1/2 in all 3 elements')
    """
    return _TorchOperation(function, layout, name, device)


@final
class TorchModule(Native):
    """A module and its loss: see `from_module`."""

    def __init__(
        self, module: torch.nn.Module, loss: Callable[..., Any], layout: Layout | None, name: str | None
    ) -> None:
        self.module, self.loss, self.layout = module, loss, layout
        self.name = name or type(module).__name__
        self._refuse_unfit()

    @property
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """The trainable ones, once each where they are tied."""
        return {name: np.array(value.detach().double().cpu().numpy()) for name, value in self._trainable().items()}

    def value_and_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """One forward pass on the tape, and one backwards."""
        loss, dtype, device = self._loss_at(features, targets)
        return _differentiated(loss, params, dtype, device)

    def layers(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[Layer]:
        """What each submodule gives out, by its dotted name; hooks see it, and are taken away again."""
        seen: list[tuple[str, torch.Tensor]] = []
        loss, dtype, device = self._loss_at(features, targets)
        hooks = [each.register_forward_hook(keeping(name or WHOLE, seen)) for name, each in self.module.named_modules()]
        try:
            with torch.enable_grad():
                value = loss(_leaves(params, dtype, device))
        finally:
            for hook in hooks:
                hook.remove()
        arrays = [array for _, array in seen]
        cotangents = torch.autograd.grad(value, arrays, allow_unused=True, materialize_grads=True)
        return [
            Layer(name, without_row(_to_numpy(array)), without_row(_to_numpy(cotangent)))
            for (name, array), cotangent in zip(seen, cotangents, strict=True)
        ]

    def _loss_at(self, features: NDArray[Any], targets: NDArray[Any]) -> tuple[Any, torch.dtype, torch.device]:
        """Return the loss as a function of the parameters, its dtype and its device."""
        self._refuse_unfit()
        device = next(iter(self._trainable().values())).device
        dtype = getattr(torch, str(features.dtype))
        rows, goals = (torch.tensor(each, dtype=dtype, device=device) for each in (features, targets))

        def loss(leaves: dict[str, torch.Tensor]) -> torch.Tensor:
            outputs = torch.func.functional_call(self.module, _constants(self.module, dtype) | leaves, (rows,))
            if isinstance(self.loss, torch.nn.Module):
                found = torch.func.functional_call(self.loss, _constants(self.loss, dtype), (outputs, goals))
            else:
                found = self.loss(outputs, goals)
            return mean_of(found, len(rows))

        return loss, dtype, device

    def _trainable(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    def _refuse_unfit(self) -> None:
        modules = [(name or "the module itself", each) for name, each in self.module.named_modules()]
        if lazy := [name for name, value in self.module.named_parameters() if torch.nn.parameter.is_lazy(value)]:
            raise ValueError(
                f"{self.name!r} has parameters without a shape ({', '.join(lazy)}); call it on features once"
            )
        named = {f"{name}: {type(each).__name__}": each for name, each in modules}
        check_independence(
            self.name,
            random=[name for name, each in named.items() if _draws(each)],
            coupling=[name for name, each in named.items() if _couples(each)],
        )
        if not self._trainable():
            raise ValueError(f"{self.name!r} has no parameter that requires a gradient: there is nothing to compare")


@final
class _TorchOperation(Native):
    """A function of tensors, and the mean of cotangents times its output."""

    def __init__(self, function: Any, layout: Layout | None, name: str | None, device: str | None) -> None:
        own = isinstance(function, type) and issubclass(function, torch.autograd.Function)
        self.function: Callable[..., torch.Tensor] = function.apply if own else function
        self.name, self.layout, self.device = name or str(getattr(function, "__name__", "mine")), layout, device

    @property
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """It has no values of its own."""
        return {}

    def value_and_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """l_i = x_i . vec(f(params)): the gradient of the mean is the backward pass of the mean cotangent."""
        del targets
        dtype = getattr(torch, str(features.dtype))
        cotangents = torch.tensor(features, dtype=dtype, device=self.device)

        def loss(leaves: dict[str, torch.Tensor]) -> torch.Tensor:
            output = self.function(*leaves.values())
            check_outputs(self.name, tuple(output.shape), features.shape[1])
            return (cotangents @ output.reshape(-1)).mean()

        return _differentiated(loss, params, dtype, self.device)


def _differentiated(
    loss: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    params: Mapping[str, NDArray[Any]],
    dtype: torch.dtype,
    device: Any,
) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Return the loss and its gradient at copies of the parameters; 0 for those that it does not use."""
    leaves = _leaves(params, dtype, device)
    with torch.enable_grad():
        value = loss(leaves)
        gradients = torch.autograd.grad(value, tuple(leaves.values()), allow_unused=True, materialize_grads=True)
    found = {name: _to_numpy(gradient) for name, gradient in zip(leaves, gradients, strict=True)}
    return _to_numpy(value), found


def _leaves(params: Mapping[str, NDArray[Any]], dtype: torch.dtype, device: Any) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=dtype, device=device, requires_grad=True) for name, value in params.items()}


def _to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()  # type: ignore[no-any-return]


def _constants(module: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return copies of a module's parameters and buffers, floating-point ones in the dtype."""
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    copies = {name: value.detach().clone() for name, value in state.items()}
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in copies.items()}


def _draws(module: torch.nn.Module) -> bool:
    """Whether it draws random numbers in a forward pass."""
    if isinstance(module, torch.nn.RReLU):
        return bool(module.training)
    share = module.p if isinstance(module, torch.nn.modules.dropout._DropoutNd) else 0.0
    if isinstance(module, torch.nn.RNNBase | torch.nn.MultiheadAttention):
        share = module.dropout
    return bool(module.training and share)


def _couples(module: torch.nn.Module) -> bool:
    """Whether it normalises by the statistics of the batch."""
    if not isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        return False
    return bool(module.training or module.running_mean is None)
