"""PyTorch: gradients by reverse-mode differentiation on a tape, `torch.autograd`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import array_api_compat.torch as xp
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gdcompare.audit.subject import Operation
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
    Trace,
    ValueAndGrad,
    checked_dtype,
    eager_scan,
    name_variant,
    reduced,
    scaled_rows,
)
from gdcompare.by_hand import derived_hvp, derived_jvp, derived_per_sample_grad, derived_value_and_grad
from gdcompare.problem import Problem
from gdcompare_torch.compiled import STEPS, compiled_scan, is_tracing, run_compiled, what_compiling_lacks
from gdcompare_torch.trace import graph


@final
@dataclass(frozen=True)
class TorchBackend(Backend[torch.Tensor]):
    """The loss formula recorded on a tape and differentiated backwards, or as the `variant` says."""

    dtype: Precision = "float64"
    device: str | None = None
    variant: str = "eager"
    name: ClassVar[str] = "torch"
    xp: ClassVar[Any] = xp
    variants: ClassVar[Mapping[str, str]] = {
        "eager": "the tape, operation by operation; per-sample gradients by one backward pass through a vmap",
        "func": "torch.func, the gradient as a transformed function; per-sample gradients by vmap(grad)",
        "compiled": f"torch.compile: each function, and {STEPS} steps of a descent at once",
        "loop": "per-sample gradients by one backward pass for each sample",
        "derived": "no differentiation: the gradients derived by hand, on tensors",
    }

    def __post_init__(self) -> None:
        checked_dtype(self.dtype)
        name_variant(self, by_hand=self.variant == "derived")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:  # torch compiled without CUDA raises AssertionError
            raise ValueError(f"backend {self.name!r} has no device {self.device!r}: {error}") from None
        if self.variant == "compiled" and (lacking := what_compiling_lacks(self.device)):
            raise ValueError(f"backend {self.name!r} needs {lacking}")

    def asarray(self, values: ArrayLike) -> torch.Tensor:
        """A copy on the device in this dtype; integers stay integers."""
        array = np.asarray(values)
        dtype = None if array.dtype.kind in "iu" else getattr(torch, self.dtype)
        return torch.tensor(array, dtype=dtype, device=self.device)

    def borrow(self, values: ArrayLike) -> torch.Tensor:
        """The memory itself on the CPU, where the dtype is right; torch has no tensors that may not be written to."""
        array = np.asarray(values)
        if array.dtype.name != self.dtype or not array.flags.writeable or not array.flags.forc:
            return self.asarray(array)
        return torch.as_tensor(array, device=self.device)

    def to_numpy(self, array: torch.Tensor) -> NDArray[Any]:
        """Bring the tensor to the host; copying waits for the device."""
        return array.detach().cpu().numpy()  # type: ignore[no-any-return]

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[torch.Tensor]:
        """One forward pass on the tape, one `torch.autograd.grad`; or as the variant has it."""
        if self.variant == "derived":
            return derived_value_and_grad(xp, problem, reduction)
        if self.variant in ("func", "compiled"):
            return _by_transformation(problem, reduction, compiled=self.variant == "compiled")

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
            return loss.detach(), _gradients(loss, leaves)

        return value

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[torch.Tensor]:
        """By `vmap`, or as the variant has it; scaled by the weights."""
        if self.variant == "derived":
            return derived_per_sample_grad(xp, problem, reduction)
        one = self.value_and_grad(problem)

        def rows(
            params: Params[torch.Tensor],
            features: torch.Tensor,
            targets: torch.Tensor,
            weights: torch.Tensor | None = None,
        ) -> dict[str, torch.Tensor]:
            if self.variant == "loop":
                each = [one(params, features[i : i + 1], targets[i : i + 1])[1] for i in range(len(features))]
                gradients = {name: torch.stack([gradient[name] for gradient in each]) for name in params}
            elif self.variant == "compiled":
                gradients = run_compiled(_vectorised, (problem,), dict(params), features, targets)
            elif self.variant == "func":
                gradients = _vectorised(problem, dict(params), features, targets)
            else:
                gradients = _in_one_pass(problem, params, features, targets)
            return scaled_rows(torch, gradients, weights, reduction)

        return rows

    def value(self, problem: Problem, reduction: Reduction = "mean") -> Callable[..., torch.Tensor]:
        """The formula, and no tape."""

        def loss(params: Any, features: Any, targets: Any, weights: Any = None) -> torch.Tensor:
            given = dict(params), features, targets, weights
            with torch.no_grad():
                if self.variant == "compiled":
                    return run_compiled(_value, (problem, reduction), *given)
                return _value(problem, reduction, *given)

        return loss

    def jvp(self, problem: Problem, reduction: Reduction = "mean") -> Jvp[torch.Tensor]:
        """Forward mode: `torch.func.jvp`; or the gradient times the direction, where that is derived by hand."""
        if self.by_hand:
            return derived_jvp(xp, problem, reduction)

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
        """Forward over reverse: `torch.func.jvp(torch.func.grad(...))`; or as it is derived by hand."""
        if self.by_hand:
            return derived_hvp(xp, problem, reduction)

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
        """A Python loop; compiled, it takes many steps at once."""
        if self.variant == "compiled":
            return compiled_scan(step, self.borrow)
        return eager_scan(step, self.borrow, torch.stack)

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """`torch.set_num_threads(1)`, and back."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

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

    def trace(self, problem: Problem, params: Params[Any], features: Any, targets: Any) -> Trace:
        """The graph that autograd recorded, with the value and the cotangent at every node."""
        leaves = {name: self.asarray(value).requires_grad_() for name, value in params.items()}
        loss = partial(_loss, problem, "mean", self.asarray(features), self.asarray(targets), None)
        return Trace("torch", "the graph that autograd recorded, walked back", graph(loss, leaves))

    def operations(self) -> list[Operation]:
        """torch's differentiable operations, as its own test database has them (needs expecttest)."""
        from gdcompare_torch.audit import operations

        return operations()

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


def _gradients(loss: torch.Tensor, leaves: Params[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the gradients at the leaves; 0 where the loss does not depend on one."""
    gradients = torch.autograd.grad(loss, tuple(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), gradients, strict=True)
    return {name: torch.zeros_like(leaf) if gradient is None else gradient for (name, leaf), gradient in pairs}


def _in_one_pass(
    problem: Problem, params: Params[torch.Tensor], features: Any, targets: Any
) -> dict[str, torch.Tensor]:
    """One gradient for each row: with parameters theta_i for each, d(sum_j l_j(theta_j)) / dtheta_i = dl_i / dtheta.

    The tape is walked back once; `vmap(grad)` takes half as long again, and 1.3 s before its first answer.
    """
    n = len(features)
    losses = torch.func.vmap(partial(_loss_of_one, problem))
    with torch.enable_grad():
        own = {name: value.detach().expand(n, *value.shape).requires_grad_() for name, value in params.items()}
        return _gradients(losses(own, features, targets).sum(), own)


def _loss_of_one(
    problem: Problem, params: Params[torch.Tensor], row: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    loss: torch.Tensor = problem.per_sample_losses(xp, params, row[None], target[None])[0]
    return loss


def _by_transformation(problem: Problem, reduction: Reduction, compiled: bool) -> ValueAndGrad[torch.Tensor]:
    """`torch.func.grad_and_value`, as it is or compiled."""

    def value(
        params: Params[torch.Tensor],
        features: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        given = dict(params), features, targets, weights
        if compiled and not is_tracing():
            return run_compiled(_value_and_grad, (problem, reduction), *given)  # type: ignore[no-any-return]
        return _value_and_grad(problem, reduction, *given)

    return value


def _value_and_grad(
    problem: Problem, reduction: Reduction, params: Any, features: Any, targets: Any, weights: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = partial(_loss, problem, reduction, features, targets, weights)
    gradient, value = torch.func.grad_and_value(loss)(params)
    return value, gradient


def _value(problem: Problem, reduction: Reduction, params: Any, features: Any, targets: Any, weights: Any) -> Any:
    return _loss(problem, reduction, features, targets, weights, params)


def _vectorised(problem: Problem, params: Any, features: Any, targets: Any) -> dict[str, torch.Tensor]:
    """One gradient for each row, by a vectorised gradient."""
    rows = torch.func.vmap(torch.func.grad(partial(_loss_of_one, problem)), in_dims=(None, 0, 0))
    return rows(params, features, targets)  # type: ignore[no-any-return]


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
