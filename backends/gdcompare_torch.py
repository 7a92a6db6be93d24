"""PyTorch: gradients by reverse-mode differentiation on a tape, `torch.autograd`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, ClassVar, Literal, final

import array_api_compat.torch as xp
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils._pytree import tree_flatten, tree_unflatten

from gdcompare.backend import (
    Backend,
    Foreign,
    Hessian,
    Hvp,
    Jvp,
    NativeCheck,
    Params,
    PerSampleGrad,
    Precision,
    Reduction,
    Run,
    Step,
    ValueAndGrad,
    checked_dtype,
    eager_scan,
    reduced,
    scaled_rows,
)
from gdcompare.native import (
    WHOLE,
    Layer,
    Layout,
    Native,
    check_independence,
    check_outputs,
    layer_names,
    mean_of,
    without_row,
)
from gdcompare.problem import Problem


@final
@dataclass(frozen=True)
class TorchBackend(Backend[torch.Tensor]):
    """The loss formula recorded on a tape and differentiated backwards.

    `per_sample` chooses how per-sample gradients are made: `"vmap"`, one vectorised pass of
    `torch.func.vmap(torch.func.grad(...))`, or `"loop"`, one backward pass for each sample.
    """

    dtype: Precision = "float64"
    device: str | None = None
    per_sample: Literal["vmap", "loop"] = "vmap"
    name: ClassVar[str] = "torch"
    xp: ClassVar[Any] = xp

    def __post_init__(self) -> None:
        checked_dtype(self.dtype)
        if self.per_sample not in ("vmap", "loop"):
            raise ValueError(f"unknown per_sample {self.per_sample!r}; known: vmap, loop")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:  # torch compiled without CUDA raises AssertionError
            raise ValueError(f"backend 'torch' has no device {self.device!r}: {error}") from None

    def asarray(self, values: ArrayLike) -> torch.Tensor:
        """A copy on the device in this dtype; integers stay integers."""
        array = np.asarray(values)
        dtype = None if array.dtype.kind in "iu" else getattr(torch, self.dtype)
        return torch.tensor(array, dtype=dtype, device=self.device)

    def to_numpy(self, array: torch.Tensor) -> NDArray[Any]:
        """Bring the tensor to the host; copying waits for the device."""
        return array.detach().cpu().numpy()  # type: ignore[no-any-return]

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[torch.Tensor]:
        """One forward pass on the tape, one `torch.autograd.grad`."""

        def value(
            params: Params[torch.Tensor],
            features: torch.Tensor,
            targets: torch.Tensor,
            weights: torch.Tensor | None = None,
        ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            if not torch.is_grad_enabled():  # entering the context costs more than asking
                with torch.enable_grad():
                    return value(params, features, targets, weights)
            leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
            loss = reduced(torch, problem.per_sample_losses(xp, leaves, features, targets), weights, reduction)
            gradients = torch.autograd.grad(loss, tuple(leaves.values()), allow_unused=True)
            pairs = zip(leaves.items(), gradients, strict=True)
            return loss.detach(), {name: torch.zeros_like(leaf) if g is None else g for (name, leaf), g in pairs}

        return value

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[torch.Tensor]:
        """By `vmap` or by the plain loop, scaled by the weights."""

        def loss_of_one(params: Params[torch.Tensor], row: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            loss: torch.Tensor = problem.per_sample_losses(xp, params, row[None], target[None])[0]
            return loss

        vectorised = torch.func.vmap(torch.func.grad(loss_of_one), in_dims=(None, 0, 0))
        one = self.value_and_grad(problem)

        def rows(
            params: Params[torch.Tensor],
            features: torch.Tensor,
            targets: torch.Tensor,
            weights: torch.Tensor | None = None,
        ) -> dict[str, torch.Tensor]:
            if self.per_sample == "loop":
                each = [one(params, features[i : i + 1], targets[i : i + 1])[1] for i in range(len(features))]
                gradients = {name: torch.stack([gradient[name] for gradient in each]) for name in params}
            else:
                gradients = vectorised(dict(params), features, targets)
            return scaled_rows(torch, gradients, weights, reduction)

        return rows

    def jvp(self, problem: Problem, reduction: Reduction = "mean") -> Jvp[torch.Tensor]:
        """Forward mode: `torch.func.jvp`."""

        def along(
            params: Params[torch.Tensor],
            features: torch.Tensor,
            targets: torch.Tensor,
            direction: Params[torch.Tensor],
            weights: torch.Tensor | None = None,
        ) -> tuple[torch.Tensor, torch.Tensor]:
            loss = partial(_loss, problem, reduction, features, targets, weights)
            with _forward_mode():
                value, derivative = torch.func.jvp(loss, (dict(params),), (dict(direction),))
            return value, derivative

        return along

    def hvp(self, problem: Problem, reduction: Reduction = "mean") -> Hvp[torch.Tensor]:
        """Forward over reverse: `torch.func.jvp(torch.func.grad(...))`."""

        def product(
            params: Params[torch.Tensor],
            features: torch.Tensor,
            targets: torch.Tensor,
            direction: Params[torch.Tensor],
            weights: torch.Tensor | None = None,
        ) -> dict[str, torch.Tensor]:
            gradient = torch.func.grad(partial(_loss, problem, reduction, features, targets, weights))
            with _forward_mode():
                _, products = torch.func.jvp(gradient, (dict(params),), (dict(direction),))
            return products  # type: ignore[no-any-return]

        return product

    def hessian(self, problem: Problem, reduction: Reduction = "mean") -> Hessian[torch.Tensor]:
        """`torch.func.hessian`: forward over reverse along all unit vectors at once."""

        def blocks(
            params: Params[torch.Tensor],
            features: torch.Tensor,
            targets: torch.Tensor,
            weights: torch.Tensor | None = None,
        ) -> dict[str, dict[str, torch.Tensor]]:
            loss = partial(_loss, problem, reduction, features, targets, weights)
            with _forward_mode():
                return torch.func.hessian(loss)(dict(params))  # type: ignore[no-any-return]

        return blocks

    def scan(self, step: Step[torch.Tensor]) -> Run[torch.Tensor]:
        """A Python loop."""
        return eager_scan(step, self.asarray, torch.stack)

    def environment(self) -> dict[str, str]:
        """Torch's version, device, threads, and the switches that change its rounding."""
        device = torch.empty(0, device=self.device).device
        return {
            "torch": str(torch.__version__),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "torch threads": str(torch.get_num_threads()),
            "float32 matmul precision": torch.get_float32_matmul_precision(),
            "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        }

    def native_checks(
        self, problem: Problem, params: Params[Any], features: Any, targets: Any, implementation: Foreign | None = None
    ) -> list[NativeCheck]:
        """`torch.autograd.gradcheck`, every entry and along one random direction (`fast_mode`)."""
        rows, goals = self.asarray(features), self.asarray(targets)
        leaves = tuple(self.asarray(value).requires_grad_() for value in params.values())

        def loss(*values: torch.Tensor) -> torch.Tensor:
            if implementation is None:
                return problem.per_sample_losses(xp, dict(zip(params, values, strict=True)), rows, goals).mean()
            return _Foreign.apply(lambda given: implementation(given, features, targets), params, *values)

        def run(fast: bool) -> None:
            with warnings.catch_warnings(), torch.enable_grad():
                warnings.filterwarnings("ignore", "Input #")  # is not double precision: see what it says all the same
                torch.autograd.gradcheck(loss, leaves, fast_mode=fast)

        rule = "step 1e-6, atol 1e-5, rtol 1e-3"
        return [
            NativeCheck("torch gradcheck", rule, partial(run, False)),
            NativeCheck("torch gradcheck, fast", f"{rule}; one direction", partial(run, True)),
        ]


def _loss(problem: Problem, reduction: Reduction, features: Any, targets: Any, weights: Any, params: Any) -> Any:
    return reduced(xp, problem.per_sample_losses(xp, params, features, targets), weights, reduction)


@contextmanager
def _forward_mode() -> Iterator[None]:
    """Keep torch quiet about itself: its first derivative in forward mode loads what it still scripts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
        yield


class _Foreign(torch.autograd.Function):  # type: ignore[misc]  # torch comes without types here
    """Somebody's loss and gradient as one operation on the tape, whose derivative is that gradient."""

    @staticmethod
    def forward(ctx: Any, implementation: Any, names: Any, *values: torch.Tensor) -> torch.Tensor:
        given = {name: value.detach().cpu().numpy().copy() for name, value in zip(names, values, strict=True)}
        loss, gradients = implementation(given)
        ctx.gradients = [torch.as_tensor(np.array(gradients[name]), device=values[0].device) for name in names]
        return torch.as_tensor(np.array(loss), dtype=values[0].dtype, device=values[0].device)

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, None, *(cotangent * gradient for gradient in ctx.gradients))


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
        hooks = [
            each.register_forward_hook(_keeping(name or WHOLE, seen)) for name, each in self.module.named_modules()
        ]
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


def _keeping(name: str, seen: list[tuple[str, torch.Tensor]]) -> Any:
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
