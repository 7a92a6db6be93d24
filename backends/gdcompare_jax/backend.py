"""JAX: gradients of a traced function, compiled.

JAX computes in 32 bits unless its global `jax_enable_x64` flag says otherwise. That flag is the user's: here every
operation runs inside the `jax.enable_x64` context manager, which sets the precision for this thread and puts it back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.audit.subject import Operation
from gdcompare.backend import (
    Backend,
    Foreign,
    Hessian,
    Hvp,
    Inputs,
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
from gdcompare_jax.trace import equations


@final
@dataclass(frozen=True)
class JaxBackend(Backend[jax.Array]):
    """The loss formula traced, differentiated and compiled, a chunk of a descent as one program; or as `variant` says.

    `device` is a platform, with a number if there are several: `"cpu"`, `"gpu"`, `"gpu:1"`.
    """

    dtype: Precision = "float64"
    device: str | None = None
    variant: str = "whole-run"
    name: ClassVar[str] = "jax"
    xp: ClassVar[Any] = jnp
    variants: ClassVar[Mapping[str, str]] = {
        "whole-run": "jit: each function, and a whole chunk of a descent as one lax.scan",
        "jitted": "jit: each function, and each step of a descent by itself",
        "unjitted": "nothing compiled, operation by operation",
        "derived": "no differentiation: the gradients derived by hand, compiled",
    }

    def __post_init__(self) -> None:
        checked_dtype(self.dtype)
        name_variant(self, by_hand=self.variant == "derived")
        self._device()

    @property
    def compiles(self) -> bool:
        """Whether a chunk of a descent is one program."""
        return self.variant in ("whole-run", "derived")

    @staticmethod
    def prepare_process() -> None:
        """Have XLA compile loops over less than 100 kB into one function: a step of 40 rows takes a sixth of the time.

        JAX reads the variable when it first uses a device, and `jit(compiler_options=)` takes no such option.
        """
        flags = os.environ.get("XLA_FLAGS", "")
        if "xla_backend_extra_options" not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} {_SMALL_LOOPS}".strip()

    def asarray(self, values: ArrayLike) -> jax.Array:
        """A copy on the device in this dtype; integers stay integers."""
        array = np.asarray(values)
        with self._precision():  # the copy is our own, so JAX may use it in place
            if array.nbytes < _LARGE:
                return jnp.asarray(self._cast(array.copy()), device=self._device())
            return jax.device_put(_aligned(self._cast(array)), self._device())

    def borrow(self, values: ArrayLike) -> Any:
        """What is small stays NumPy's, which a compiled function takes as it is, sooner than JAX makes an array of it.

        What is large is shared, if it begins where XLA wants it to, or else copied.
        """
        array = self._cast(np.asarray(values))
        if array.nbytes < _LARGE and self.device is None:
            return array
        if array.nbytes < _LARGE or not _is_aligned(array):
            return self.asarray(array)
        with self._precision():
            return jax.device_put(array, self._device(), may_alias=True)

    def to_numpy(self, array: jax.Array) -> NDArray[Any]:
        """Bring the array to the host, which waits for the computation."""
        return np.asarray(array)

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[jax.Array]:
        """`jit(value_and_grad)` of the mean or summed loss."""
        program = self._program(_derived_value_and_grad if self.by_hand else _value_and_grad)

        def value(
            params: Params[jax.Array], features: jax.Array, targets: jax.Array, weights: jax.Array | None = None
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            with self._precision():
                loss, gradient = program(problem, reduction, dict(params), features, targets, weights)
            return loss, {name: gradient[name] for name in params}  # JAX sorts the names of a dict

        return value

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[jax.Array]:
        """`jit(vmap(grad))` of the loss of one sample, scaled by the weights."""
        program = self._program(_derived_per_sample_grad if self.by_hand else _per_sample_grad)

        def rows(
            params: Params[jax.Array], features: jax.Array, targets: jax.Array, weights: jax.Array | None = None
        ) -> dict[str, jax.Array]:
            with self._precision():
                gradients = program(problem, reduction, dict(params), features, targets, weights)
            return {name: gradients[name] for name in params}

        return rows

    def value(self, problem: Problem, reduction: Reduction = "mean") -> Callable[..., jax.Array]:
        """`jit` of the formula."""
        program = self._program(_value)

        def loss(params: Any, features: Any, targets: Any, weights: Any = None) -> jax.Array:
            with self._precision():
                return program(problem, reduction, dict(params), features, targets, weights)

        return loss

    def jvp(self, problem: Problem, reduction: Reduction = "mean") -> Jvp[jax.Array]:
        """`jit(jvp)`: forward mode."""
        program = self._program(_derived_jvp if self.by_hand else _jvp)

        def along(
            params: Params[jax.Array],
            features: jax.Array,
            targets: jax.Array,
            direction: Params[jax.Array],
            weights: jax.Array | None = None,
        ) -> tuple[jax.Array, jax.Array]:
            with self._precision():
                return program(problem, reduction, dict(params), features, targets, dict(direction), weights)  # type: ignore[no-any-return]

        return along

    def hvp(self, problem: Problem, reduction: Reduction = "mean") -> Hvp[jax.Array]:
        """`jit(jvp(grad))`: forward over reverse."""
        program = self._program(_derived_hvp if self.by_hand else _hvp)

        def product(
            params: Params[jax.Array],
            features: jax.Array,
            targets: jax.Array,
            direction: Params[jax.Array],
            weights: jax.Array | None = None,
        ) -> dict[str, jax.Array]:
            with self._precision():
                return program(problem, reduction, dict(params), features, targets, dict(direction), weights)  # type: ignore[no-any-return]

        return product

    def hessian(self, problem: Problem, reduction: Reduction = "mean") -> Hessian[jax.Array]:
        """`jit(hessian)`: forward over reverse along all unit vectors at once."""
        program = self._program(_hessian)

        def blocks(
            params: Params[jax.Array], features: jax.Array, targets: jax.Array, weights: jax.Array | None = None
        ) -> dict[str, dict[str, jax.Array]]:
            with self._precision():
                return program(problem, reduction, dict(params), features, targets, weights)  # type: ignore[no-any-return]

        return blocks

    def scan(self, step: Step[jax.Array]) -> Run[jax.Array]:
        """One compiled `lax.scan`, or a Python loop; equal steps and equal shapes share one compilation."""
        one = partial(self._program(_one_step), step)
        loop = eager_scan(one, self.asarray, jnp.stack) if self.variant in ("jitted", "unjitted") else None

        def run(state: Any, inputs: Inputs, constants: Any) -> tuple[Any, Sequence[jax.Array]]:
            with self._precision():
                if loop is not None:
                    return loop(state, inputs, constants)
                # A compiled function takes NumPy arrays quicker than jnp.asarray does.
                return _scan(step, state, tuple(map(self._cast, inputs)), constants)  # type: ignore[no-any-return]

        return run

    def environment(self) -> dict[str, str]:
        """JAX's version, device, and the switches that change its rounding."""
        return {
            "jax": jax.__version__,
            "device": (self._device() or jax.devices()[0]).device_kind,
            "jax_enable_x64 outside": str(jax.config.jax_enable_x64),
            "default matmul precision": str(jax.config.jax_default_matmul_precision),
            "XLA_FLAGS": os.environ.get("XLA_FLAGS") or "none",
        }

    def operations(self) -> list[Operation]:
        """JAX's differentiable operations, with arguments of our own."""
        from gdcompare_jax.audit import operations

        return operations()

    def trace(self, problem: Problem, params: Params[Any], features: Any, targets: Any) -> Trace:
        """The jaxpr of the loss and its gradient, each equation with its value."""
        with self._precision():
            given = {name: self.asarray(value) for name, value in params.items()}
            whole = jax.value_and_grad(partial(_loss, problem, "mean"))
            steps = equations(whole, given, self.asarray(features), self.asarray(targets))
        return Trace("jax", "the jaxpr of the loss and its gradient, equation by equation", steps)

    def native_checks(
        self, problem: Problem, params: Params[Any], features: Any, targets: Any, implementation: Foreign | None = None
    ) -> list[NativeCheck]:
        """`jax.test_util.check_grads` along one random direction; a foreign gradient has the reverse mode only."""

        def run(mode: str) -> None:
            with self._precision():
                if implementation is None:
                    data = {"features": self.asarray(features), "targets": self.asarray(targets)}
                    loss = partial(_loss, problem, "mean", **data)
                else:
                    loss = _foreign(implementation, features, targets)
                start = {name: self.asarray(value) for name, value in params.items()}
                jax.test_util.check_grads(loss, (start,), order=1, modes=[mode])

        tolerance = {"float64": "1e-5", "float32": "2e-3"}[self.dtype]
        rule = f"step 1e-4, tolerance {tolerance} times the size; one direction"
        modes = {"fwd": "forward", "rev": "reverse"} if implementation is None else {"rev": "reverse"}
        return [NativeCheck(f"jax check_grads, {words}", rule, partial(run, mode)) for mode, words in modes.items()]

    def _program(self, compiled: Any) -> Any:
        """Return a function that is compiled, or the plain one that it is made of."""
        return compiled.__wrapped__ if self.variant == "unjitted" else compiled

    def _cast(self, array: NDArray[Any]) -> NDArray[Any]:
        return array if array.dtype.kind in "iu" else array.astype(self.dtype, copy=False)

    def _precision(self) -> AbstractContextManager[None]:
        return jax.enable_x64(self.dtype == "float64")  # type: ignore[no-any-return]

    def _device(self) -> jax.Device | None:
        if self.device is None:
            return None
        platform, _, number = self.device.partition(":")
        try:
            if not platform:
                raise ValueError("name a platform")
            return jax.devices(platform)[int(number or 0)]
        except (RuntimeError, IndexError, ValueError) as error:
            raise ValueError(f"backend {self.name!r} has no device {self.device!r}: {error}") from None


_SMALL_LOOPS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=100000"
_ALIGNMENT = 64
_LARGE = 2**20
"""Bytes from which on memory is worth a look: below, that would take longer than a copy."""


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that XLA takes as it is. Its own copies of 100 MB take six times as long as NumPy's."""
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _is_aligned(array: NDArray[Any]) -> bool:
    return bool(array.flags.c_contiguous and array.ctypes.data % _ALIGNMENT == 0)


# The problem and the step are static: hashable values, part of the key under which JAX keeps what it compiled.


@partial(jax.jit, static_argnums=(0, 1))
def _value(problem: Problem, reduction: Reduction, params: Any, features: Any, targets: Any, weights: Any) -> Any:
    return _loss(problem, reduction, params, features, targets, weights)


@partial(jax.jit, static_argnums=(0, 1))
def _value_and_grad(
    problem: Problem, reduction: Reduction, params: Any, features: Any, targets: Any, weights: Any
) -> Any:
    return jax.value_and_grad(partial(_loss, problem, reduction))(params, features, targets, weights)


def _loss(problem: Problem, reduction: Reduction, params: Any, features: Any, targets: Any, weights: Any = None) -> Any:
    return reduced(jnp, problem.per_sample_losses(jnp, params, features, targets), weights, reduction)


@partial(jax.jit, static_argnums=(0, 1))
def _per_sample_grad(
    problem: Problem, reduction: Reduction, params: Any, features: Any, targets: Any, weights: Any
) -> Any:
    def loss_of_one(params: Any, row: Any, target: Any) -> Any:
        return problem.per_sample_losses(jnp, params, row[None], target[None])[0]

    gradients = jax.vmap(jax.grad(loss_of_one), in_axes=(None, 0, 0))(params, features, targets)
    return scaled_rows(jnp, gradients, weights, reduction)


@partial(jax.jit, static_argnums=(0, 1))
def _jvp(
    problem: Problem, reduction: Reduction, params: Any, features: Any, targets: Any, direction: Any, weights: Any
) -> Any:
    loss = partial(_loss, problem, reduction, features=features, targets=targets, weights=weights)
    return jax.jvp(loss, (params,), (direction,))


@partial(jax.jit, static_argnums=(0, 1))
def _hvp(
    problem: Problem, reduction: Reduction, params: Any, features: Any, targets: Any, direction: Any, weights: Any
) -> Any:
    loss = partial(_loss, problem, reduction, features=features, targets=targets, weights=weights)
    return jax.jvp(jax.grad(loss), (params,), (direction,))[1]


@partial(jax.jit, static_argnums=(0, 1))
def _hessian(problem: Problem, reduction: Reduction, params: Any, features: Any, targets: Any, weights: Any) -> Any:
    return jax.hessian(partial(_loss, problem, reduction))(params, features, targets, weights)


@partial(jax.jit, static_argnums=(0, 1))
def _derived_value_and_grad(problem: Problem, reduction: Reduction, *arguments: Any) -> Any:
    return derived_value_and_grad(jnp, problem, reduction)(*arguments)


@partial(jax.jit, static_argnums=(0, 1))
def _derived_per_sample_grad(problem: Problem, reduction: Reduction, *arguments: Any) -> Any:
    return derived_per_sample_grad(jnp, problem, reduction)(*arguments)


@partial(jax.jit, static_argnums=(0, 1))
def _derived_jvp(problem: Problem, reduction: Reduction, *arguments: Any) -> Any:
    return derived_jvp(jnp, problem, reduction)(*arguments)


@partial(jax.jit, static_argnums=(0, 1))
def _derived_hvp(problem: Problem, reduction: Reduction, *arguments: Any) -> Any:
    return derived_hvp(jnp, problem, reduction)(*arguments)


@partial(jax.jit, static_argnums=0)
def _one_step(step: Step[Any], state: Any, row: Any, constants: Any) -> Any:
    return step(state, row, constants)


@partial(jax.jit, static_argnums=0)
def _scan(step: Step[Any], state: Any, inputs: Any, constants: Any) -> Any:
    return jax.lax.scan(lambda state, row: step(state, row, constants), state, inputs)


def _foreign(implementation: Foreign, features: Any, targets: Any) -> Any:
    """Return somebody's loss as a function whose derivative is that somebody's gradient."""

    def forward(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        loss, gradients = implementation({name: np.array(value) for name, value in params.items()}, features, targets)
        dtype = jnp.result_type(*params.values())
        return jnp.asarray(loss, dtype), {name: jnp.asarray(gradients[name]) for name in params}

    loss = jax.custom_vjp(lambda params: forward(params)[0])
    loss.defvjp(forward, lambda gradients, cotangent: (jax.tree.map(lambda each: cotangent * each, gradients),))
    return loss
