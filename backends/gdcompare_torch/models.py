"""Modules, and functions with a backward pass of their own, as native models."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils._pytree import tree_flatten_with_path, tree_unflatten

from gdcompare.arithmetic.program import Program
from gdcompare.models.matching import Layout
from gdcompare.models.native import (
    NO_SLOPE,
    PLAIN_NUMBERS,
    WHOLE,
    Layer,
    Native,
    check_independence,
    check_outputs,
    cotangents,
    mean_of,
    without_row,
    working_dtype,
)
from gdcompare.models.rules import Rule
from gdcompare_torch.complex_numbers import as_own, is_complex, on_host
from gdcompare_torch.layers import Narrowed, couples, draws, holding, keeping
from gdcompare_torch.program import read
from gdcompare_torch.rules import applied

# Native models.


def from_module(
    module: torch.nn.Module, loss: Callable[..., Any], *, layout: Layout | None = None, name: str | None = None
) -> Native:
    """Return a module and its loss as a native model: `gdcompare.verify(..., implementations={"mine": it})`.

    `module(features)` gives outputs, and `loss(outputs, targets)` one number, the mean over the rows, or one number for
    each row. Arrays of integers, tokens or labels, are int64 tensors; all others, and those of a `Dataset`, floats in
    the dtype under test. Whole numbers that the module or the loss cannot take as the one are handed over as the other:
    labels in a `Dataset` need no `targets.long()`. The module's trainable parameters are its parameters, by the names
    it has for them; all others, and buffers, are constants. It computes on copies, on its own device, and is never
    changed. A parameter of complex numbers is one of real numbers here, with an axis more at the end for their parts.

    Raises ValueError for a module whose loss depends on chance. One that normalises by the statistics of the batch can
    be compared with another model, by the gradient of the batch, and is refused by `verify`.

    >>> import gdcompare as gdc
    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Flatten(0))
    >>> layout = {"0.weight": lambda p: p["theta_1"][None, :], "0.bias": lambda p: p["theta_0"][None]}
    >>> mine = from_module(model, torch.nn.functional.mse_loss, layout=layout)
    >>> gdc.verify("linear-regression", gdc.datasets.noisy_line(), backends=[], implementations={"mine": mine}).verdict
    'agree'
    """
    return TorchModule(module, loss, layout, name)


def from_function(
    loss: Callable[..., Any],
    parameters: Any,
    *,
    layout: Layout | None = None,
    name: str | None = None,
    device: str | None = None,
) -> Native:
    """Return a loss of tensors as a native model: `gdcompare.verify(..., implementations={"mine": it})`.

    `loss(parameters, features, targets)` gives one number, the mean over the rows, or one number for each row.
    `parameters` is a dict of tensors or arrays, or any nest of dicts, lists and tuples. The floating-point ones are the
    parameters, named by their paths, "layers.0.weight"; all else in it is constant. Data are as for `from_module`.

    >>> import gdcompare as gdc
    >>> def loss(line, features, targets):
    ...     return (features @ line["w"] + line["b"] - targets) ** 2
    >>> start = {"w": torch.zeros(1), "b": torch.zeros(())}
    >>> mine = from_function(loss, start, layout={"w": "theta_1", "b": "theta_0"})
    >>> gdc.verify("linear-regression", gdc.datasets.noisy_line(), backends=[], implementations={"mine": mine}).verdict
    'agree'
    """
    return TorchFunction(loss, parameters, layout, name, device)


def from_autograd_function(
    function: Any, *, layout: Layout | None = None, name: str | None = None, device: str | None = None
) -> Native:
    """Return a custom `torch.autograd.Function`, or a function around one, as an implementation of a `gdc.Operation`.

    It is called with one tensor for each parameter of the operation, in that order, and returns one tensor, or several
    where the formula does; outputs that are not floating-point, such as indices, do not count.

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


class _Torch(Native):
    """A loss of tensors by name."""

    derivatives = frozenset({"jvp", "hvp", "hessian"})

    @abstractmethod
    def loss_at(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[partial[torch.Tensor], dict[str, torch.Tensor]]:
        """Return the loss as a function of the parameters, and copies of these, leaves of a tape.

        The data are its keywords, "features" and "targets".
        """

    def value_and_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """One forward pass on the tape, and one backwards; 0 for parameters that it does not use."""
        call, read = self.prepared(params, features, targets)
        return read(call())

    def value(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> Any:
        """A forward pass, without `torch.compile`, which takes seconds for each number of rows."""
        loss, leaves = self.loss_at(params, features, targets)
        with torch.enable_grad(), _held(loss, leaves), torch.compiler.set_stance("force_eager"):
            return _to_numpy(loss(leaves))

    def prepared(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Callable[[], Any], Callable[[Any], tuple[Any, dict[str, NDArray[Any]]]]]:
        """The same, from tensors to tensors."""
        loss, leaves = self.loss_at(params, features, targets)
        inputs = tuple(leaves.values())

        def call() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            with torch.enable_grad(), _held(loss, leaves):
                value = loss(leaves)
                if not value.requires_grad:
                    raise ValueError(NO_SLOPE)
                return value, torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)

        def read(answer: Any) -> tuple[Any, dict[str, NDArray[Any]]]:
            value, gradients = answer
            return _to_numpy(value), dict(zip(leaves, map(_to_numpy, gradients), strict=True))

        return call, read

    def _narrow(self) -> dict[str, torch.dtype]:
        """Return the dtypes of the parameters that are in half precision."""
        return {}

    def _rows(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of features: the parameters', where all are in one half precision, and float32 is judged."""
        narrow = self._narrow()
        same = len(narrow) == len(self.parameters) and len({*narrow.values()}) == 1
        return next(iter(narrow.values())) if same and dtype == torch.float32 else dtype

    def held(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """In the dtypes of its parameters."""
        narrow, rows = self._narrow(), self._rows(torch.float32)

        def rounded(value: NDArray[Any], dtype: torch.dtype) -> NDArray[Any]:
            return _to_numpy(torch.tensor(value).to(dtype))

        at = {name: rounded(value, narrow[name]) if name in narrow else value for name, value in params.items()}
        return at, rounded(features, rows) if features.dtype.kind == "f" else features

    def program(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> Program:
        """What torch does on the way to the mean loss, in the tape's vocabulary; a compiled one is read uncompiled."""
        loss, leaves = self.loss_at(params, features, targets)
        data = {"features": (loss.keywords["features"], features), "targets": (loss.keywords["targets"], targets)}

        def afresh(*given: Any, **keywords: Any) -> Any:
            """Buffers that a call changes are each time as they were."""
            return self.loss_at(params, features, targets)[0].func(*given, **keywords)

        with torch.compiler.set_stance("force_eager"):
            return read(partial(afresh, **loss.keywords), leaves, data, working_dtype(params, features), self.name)

    def rules(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[Rule]:
        """Its `torch.autograd.Function`s."""
        loss, leaves = self.loss_at(params, features, targets)
        with torch.compiler.set_stance("force_eager"):
            found = applied(partial(loss, leaves))
        return [
            Rule(
                name,
                line,
                _TorchOperation(function, None, name, str(next(iter(values.values())).device)),
                {key: _to_numpy(each) for key, each in values.items()},
            )
            for name, line, function, values in found
            if values and not any(map(is_complex, values.values()))
        ]

    def jvp(
        self,
        params: Mapping[str, NDArray[Any]],
        features: NDArray[Any],
        targets: NDArray[Any],
        direction: Mapping[str, NDArray[Any]],
    ) -> tuple[Any, Any]:
        """`torch.func.jvp`: forward mode."""
        loss, leaves = self.loss_at(params, features, targets)
        at = {name: leaf.detach() for name, leaf in leaves.items()}
        along = {name: torch.tensor(direction[name], dtype=leaf.dtype, device=leaf.device) for name, leaf in at.items()}
        with warnings.catch_warnings():  # torch speaks of itself: its first forward mode loads what it still scripts
            warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
            value, derivative = torch.func.jvp(loss, (at,), (along,))
        return _to_numpy(value), _to_numpy(derivative)

    def hvp(
        self,
        params: Mapping[str, NDArray[Any]],
        features: NDArray[Any],
        targets: NDArray[Any],
        direction: Mapping[str, NDArray[Any]],
    ) -> dict[str, NDArray[Any]]:
        """Backwards through the backward pass, so that functions with one of their own are judged by it."""
        loss, leaves = self.loss_at(params, features, targets)
        inputs = tuple(leaves.values())
        with torch.enable_grad(), _held(loss, leaves):
            options: Any = {"allow_unused": True, "materialize_grads": True}
            gradients = torch.autograd.grad(loss(leaves), inputs, create_graph=True, **options)
            moving = [
                (gradient, torch.tensor(direction[name], dtype=leaf.dtype, device=leaf.device))
                for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
                if gradient.requires_grad
            ]
            if not moving:  # the loss is linear
                return {name: np.zeros_like(_to_numpy(leaf)) for name, leaf in leaves.items()}
            outputs, along = zip(*moving, strict=True)
            products = torch.autograd.grad(outputs, inputs, along, **options)
        return {name: _to_numpy(each) for name, each in zip(leaves, products, strict=True)}

    def narrowed(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[str]:
        """What operations meet of less than float64 where they should compute in float64."""
        loss, leaves = self.loss_at(params, features, targets)
        if working_dtype(params, features) != "float64":
            return []
        with torch.no_grad(), Narrowed() as narrowed:
            loss(leaves)
        return list(narrowed.found)


def _held(loss: Any, leaves: dict[str, torch.Tensor]) -> Any:
    """Return the context in which a loss is walked back, if it has one."""
    return loss.held(leaves) if hasattr(loss, "held") else nullcontext()


@final
class TorchModule(_Torch):
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
        return {name: np.array(on_host(value)) for name, value in self._trainable().items()}

    def layers(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[Layer]:
        """What each submodule gives out, by its dotted name; hooks see it, and are taken away again."""
        seen: list[tuple[str, torch.Tensor]] = []
        loss, leaves = self.loss_at(params, features, targets)
        hooks = [each.register_forward_hook(keeping(name or WHOLE, seen)) for name, each in self.module.named_modules()]
        with torch.enable_grad(), _held(loss, leaves):
            try:
                value = loss(leaves)
            finally:
                for hook in hooks:
                    hook.remove()
            arrays = [array for _, array in seen]
            cotangents = torch.autograd.grad(value, arrays, allow_unused=True, materialize_grads=True)
        return [
            Layer(name, without_row(_to_numpy(array)), without_row(_to_numpy(cotangent)))
            for (name, array), cotangent in zip(seen, cotangents, strict=True)
        ]

    def coupling(self) -> list[str]:
        """Batch normalisation by the statistics of the batch."""
        return [name for name, each in self._modules().items() if couples(each)]

    def loss_at(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[partial[torch.Tensor], dict[str, torch.Tensor]]:
        """The loss of the module's outputs; its buffers and other parameters are copied each time."""
        self._refuse_unfit()
        device = next(iter(self._trainable().values())).device
        dtype = getattr(torch, working_dtype(params, features))
        rows, goals = _data(features, self._rows(dtype), device), _data(targets, dtype, device)
        constants = _constants(self.module, dtype)
        constants_of_loss = _constants(self.loss, dtype) if isinstance(self.loss, torch.nn.Module) else {}
        own = self._trainable()

        def loss(leaves: dict[str, torch.Tensor], features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            outputs = torch.func.functional_call(self.module, constants | as_own(leaves, own), (features,))
            if isinstance(self.loss, torch.nn.Module):
                found = torch.func.functional_call(self.loss, constants_of_loss, (outputs, targets))
            else:
                found = self.loss(outputs, targets)
            return mean_of(found, len(features))

        at_data: Any = partial(loss, features=rows, targets=goals)
        at_data.held = lambda leaves: holding(self.module, constants, as_own(leaves, own))
        return at_data, _leaves(params, dtype, device, self._narrow())

    def _narrow(self) -> dict[str, torch.dtype]:
        return _half({name: value.dtype for name, value in self._trainable().items()})

    def _trainable(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    def _modules(self) -> dict[str, torch.nn.Module]:
        every = self.module.named_modules()
        return {f"{name or 'the module itself'}: {type(each).__name__}": each for name, each in every}

    def _refuse_unfit(self) -> None:
        if isinstance(self.module, torch.jit.ScriptModule | torch.nn.DataParallel):
            raise ValueError(f"{self.name!r} runs on its own parameters alone; hand over the module in it")
        if lazy := [name for name, value in self.module.named_parameters() if torch.nn.parameter.is_lazy(value)]:
            names = ", ".join(lazy)
            raise ValueError(f"{self.name!r} has parameters without a shape ({names}); call it on features once")
        check_independence(self.name, [name for name, each in self._modules().items() if draws(each)], coupling=[])
        if not self._trainable():
            raise ValueError(f"{self.name!r} has no parameter that requires a gradient: there is nothing to compare")


@final
class TorchFunction(_Torch):
    """A loss of tensors: see `from_function`."""

    unseen = "a function shows none; a module does, given to from_module"

    def __init__(
        self, loss: Callable[..., Any], parameters: Any, layout: Layout | None, name: str | None, device: str | None
    ) -> None:
        self.loss, self.layout, self.device = loss, layout, device
        self.name = name or str(getattr(loss, "__name__", "mine"))
        leaves, self._structure = tree_flatten_with_path(parameters)
        self._leaves = [(_path(path), leaf) for path, leaf in leaves]
        self._own = {name: value for name, value in self._leaves if _is_parameter(value)}
        if not self._own:
            raise ValueError(f"{self.name!r} has no floating-point array among its parameters, {PLAIN_NUMBERS}")

    @property
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """The floating-point arrays, by their paths."""
        return {name: np.array(on_host(value), dtype=np.float64) for name, value in self._own.items()}

    def loss_at(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[partial[torch.Tensor], dict[str, torch.Tensor]]:
        """The loss, its parameters put together again."""
        dtype = getattr(torch, working_dtype(params, features))
        rows, goals = _data(features, self._rows(dtype), self.device), _data(targets, dtype, self.device)

        def loss(leaves: dict[str, torch.Tensor], features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            given = as_own(leaves, self._own)
            filled = [given.get(name, leaf) for name, leaf in self._leaves]
            return mean_of(self.loss(tree_unflatten(filled, self._structure), features, targets), len(features))

        return partial(loss, features=rows, targets=goals), _leaves(params, dtype, self.device, self._narrow())

    def _narrow(self) -> dict[str, torch.dtype]:
        return _half({name: value.dtype for name, value in self._own.items() if torch.is_tensor(value)})


@final
class _TorchOperation(_Torch):
    """A function of tensors, and the mean of cotangents times its output."""

    derivatives = frozenset({"hvp", "hessian"})  # it has a backward pass, and need not have a forward mode

    def __init__(self, function: Any, layout: Layout | None, name: str | None, device: str | None) -> None:
        own = isinstance(function, type) and issubclass(function, torch.autograd.Function)
        self.function: Callable[..., Any] = function.apply if own else function
        self.name, self.layout, self.device = name or str(getattr(function, "__name__", "mine")), layout, device

    @property
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """It has no values of its own."""
        return {}

    def rules(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[Rule]:
        """None beside itself."""
        del params, features, targets
        return []

    def example(self, params: Mapping[str, ArrayLike]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Random cotangents of its outputs."""
        arrays = [torch.tensor(np.asarray(each, np.float64), device=self.device) for each in params.values()]
        with torch.no_grad():
            outputs = self._outputs(arrays)
        return cotangents(sum(output.numel() for output in outputs))

    def _outputs(self, arrays: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        returned = self.function(*arrays)
        each = returned if isinstance(returned, tuple | list) else (returned,)
        tensors = [torch.view_as_real(output.resolve_conj()) if is_complex(output) else output for output in each]
        outputs = [output for output in tensors if torch.is_tensor(output) and output.is_floating_point()]
        if not outputs:
            raise TypeError(f"{self.name!r} returns {type(returned).__name__}, where a tensor, or several, is due")
        return outputs

    def loss_at(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[partial[torch.Tensor], dict[str, torch.Tensor]]:
        """l_i = x_i . vec(f(params)): the gradient of the mean is the backward pass of the mean cotangent."""
        dtype = getattr(torch, str(features.dtype))
        drawn, unused = (torch.tensor(each, dtype=dtype, device=self.device) for each in (features, targets))

        def loss(leaves: dict[str, torch.Tensor], features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            del targets
            outputs = self._outputs([*leaves.values()])
            check_outputs(self.name, [tuple(output.shape) for output in outputs], features.shape[1])
            return (features @ torch.cat([output.reshape(-1) for output in outputs])).mean()

        return partial(loss, features=drawn, targets=unused), _leaves(params, dtype, self.device)


def _leaves(
    params: Mapping[str, NDArray[Any]], dtype: torch.dtype, device: Any, narrow: Mapping[str, torch.dtype] | None = None
) -> dict[str, torch.Tensor]:
    """Return leaves of a tape in the dtype, or in a narrower one of their own where float32 is judged."""
    own = narrow if narrow and dtype == torch.float32 else {}
    return {
        name: torch.tensor(value, dtype=own.get(name, dtype), device=device, requires_grad=True)
        for name, value in params.items()
    }


def _half(dtypes: Mapping[str, torch.dtype]) -> dict[str, torch.dtype]:
    """Return those in half precision."""
    return {name: dtype for name, dtype in dtypes.items() if dtype in (torch.float16, torch.bfloat16)}


def _data(values: NDArray[Any], dtype: torch.dtype, device: Any) -> torch.Tensor:
    """Return features or targets as a tensor: integers stay integers."""
    whole = values.dtype.kind in "iu"
    given = values.astype(np.int64) if whole else values  # torch knows few unsigned ones
    return torch.tensor(given, dtype=torch.int64 if whole else dtype, device=device)


def _is_parameter(value: Any) -> bool:
    if torch.is_tensor(value):
        return bool(value.is_floating_point() or value.is_complex())
    return isinstance(value, np.ndarray | np.generic) and np.issubdtype(value.dtype, np.inexact)


def _path(path: Any) -> str:
    """Return "layers.0.weight"."""
    return ".".join(str(getattr(step, "key", getattr(step, "idx", getattr(step, "name", step)))) for step in path)


def _to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    wide = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
    return wide.detach().cpu().numpy(force=True)  # type: ignore[no-any-return]  # force: zeros of no memory, too


def _constants(module: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return copies of a module's parameters and buffers, floating-point ones in the dtype."""
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    copies = {name: value.detach().clone() for name, value in state.items()}
    narrow = _half({name: value.dtype for name, value in copies.items()}) if dtype == torch.float32 else {}
    complex_numbers = {name: dtype.to_complex() for name, value in copies.items() if value.is_complex()}
    return {
        name: value.to(complex_numbers.get(name, narrow.get(name, dtype)))
        if value.is_floating_point() or value.is_complex()
        else value
        for name, value in copies.items()
    }
