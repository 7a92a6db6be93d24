"""JAX: gradients of a traced function, compiled.

JAX computes in 32 bits unless its global `jax_enable_x64` flag says otherwise. That flag is the user's: here every
operation runs inside the `jax.enable_x64` context manager, which sets the precision for this thread and puts it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, ClassVar, TypeVar, final

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from numpy.typing import ArrayLike, NDArray

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
    ValueAndGrad,
    checked_dtype,
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

T = TypeVar("T")


@final
@dataclass(frozen=True)
class JaxBackend(Backend[jax.Array]):
    """The loss formula traced, differentiated and compiled; a chunk of a descent is one compiled program.

    `device` is a platform, with a number if there are several: `"cpu"`, `"gpu"`, `"gpu:1"`.
    """

    dtype: Precision = "float64"
    device: str | None = None
    name: ClassVar[str] = "jax"
    xp: ClassVar[Any] = jnp

    def __post_init__(self) -> None:
        checked_dtype(self.dtype)
        self._device()

    def asarray(self, values: ArrayLike) -> jax.Array:
        """A copy on the device in this dtype; integers stay integers."""
        with self._precision():  # the copy is our own, so JAX may use it in place
            return jnp.asarray(self._cast(np.array(values)), device=self._device())

    def to_numpy(self, array: jax.Array) -> NDArray[Any]:
        """Bring the array to the host, which waits for the computation."""
        return np.asarray(array)

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[jax.Array]:
        """`jit(value_and_grad)` of the mean or summed loss."""

        def value(
            params: Params[jax.Array], features: jax.Array, targets: jax.Array, weights: jax.Array | None = None
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            with self._precision():
                loss, gradient = _value_and_grad(problem, reduction, dict(params), features, targets, weights)
            return loss, {name: gradient[name] for name in params}  # JAX sorts the names of a dict

        return value

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[jax.Array]:
        """`jit(vmap(grad))` of the loss of one sample, scaled by the weights."""

        def rows(
            params: Params[jax.Array], features: jax.Array, targets: jax.Array, weights: jax.Array | None = None
        ) -> dict[str, jax.Array]:
            with self._precision():
                gradients = _per_sample_grad(problem, reduction, dict(params), features, targets, weights)
            return {name: gradients[name] for name in params}

        return rows

    def jvp(self, problem: Problem, reduction: Reduction = "mean") -> Jvp[jax.Array]:
        """`jit(jvp)`: forward mode."""

        def along(
            params: Params[jax.Array],
            features: jax.Array,
            targets: jax.Array,
            direction: Params[jax.Array],
            weights: jax.Array | None = None,
        ) -> tuple[jax.Array, jax.Array]:
            with self._precision():
                return _jvp(problem, reduction, dict(params), features, targets, dict(direction), weights)  # type: ignore[no-any-return]

        return along

    def hvp(self, problem: Problem, reduction: Reduction = "mean") -> Hvp[jax.Array]:
        """`jit(jvp(grad))`: forward over reverse."""

        def product(
            params: Params[jax.Array],
            features: jax.Array,
            targets: jax.Array,
            direction: Params[jax.Array],
            weights: jax.Array | None = None,
        ) -> dict[str, jax.Array]:
            with self._precision():
                return _hvp(problem, reduction, dict(params), features, targets, dict(direction), weights)  # type: ignore[no-any-return]

        return product

    def hessian(self, problem: Problem, reduction: Reduction = "mean") -> Hessian[jax.Array]:
        """`jit(hessian)`: forward over reverse along all unit vectors at once."""

        def blocks(
            params: Params[jax.Array], features: jax.Array, targets: jax.Array, weights: jax.Array | None = None
        ) -> dict[str, dict[str, jax.Array]]:
            with self._precision():
                return _hessian(problem, reduction, dict(params), features, targets, weights)  # type: ignore[no-any-return]

        return blocks

    def scan(self, step: Step[jax.Array]) -> Run[jax.Array]:
        """One compiled `lax.scan`; equal steps and equal shapes share one compilation."""

        def run(state: Any, inputs: Inputs, constants: Any) -> tuple[Any, Sequence[jax.Array]]:
            with self._precision():  # a compiled function takes NumPy arrays quicker than jnp.asarray does
                return _scan(step, state, tuple(map(self._cast, inputs)), constants)  # type: ignore[no-any-return]

        return run

    def environment(self) -> dict[str, str]:
        """JAX's version, device, and the switches that change its rounding."""
        return {
            "jax": jax.__version__,
            "device": (self._device() or jax.devices()[0]).device_kind,
            "jax_enable_x64 outside": str(jax.config.jax_enable_x64),
            "default matmul precision": str(jax.config.jax_default_matmul_precision),
        }

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
            raise ValueError(f"backend 'jax' has no device {self.device!r}: {error}") from None


# The problem and the step are static: hashable values, part of the key under which JAX keeps what it compiled.


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


# Native models.


def from_function(
    loss: Callable[..., Any], parameters: Any, *, layout: Layout | None = None, name: str | None = None
) -> Native:
    """Return a loss of a pytree as a native model: `gdcompare.verify(..., implementations={"mine": it})`.

    `loss(pytree, features, targets)` gives one number, the mean over the rows, or one number for each row. The pytree
    is a dict, an Equinox or NNX module, Linen's variables, or any other. Its floating-point arrays are the parameters,
    named by their paths, "layers/0/weight"; all else in it, Python floats too, is constant. Targets are floats, in the
    dtype under test: a loss that wants labels takes `targets.astype(int)`.

    Raises ValueError if there is no floating-point array, or for an NNX module that is in training mode with dropout
    or batch norm.

    >>> import gdcompare as gdc
    >>> def loss(line, features, targets):
    ...     return (features @ line["w"] + line["b"] - targets) ** 2
    >>> start = {"w": np.zeros(1), "b": np.zeros(())}
    >>> mine = from_function(loss, start, layout={"w": "theta_1", "b": "theta_0"})
    >>> gdc.verify("linear-regression", gdc.datasets.noisy_line(), backends=[], implementations={"mine": mine}).verdict
    'agree'
    """
    name = name or str(getattr(loss, "__name__", "mine"))
    random, coupling = (_nodes(parameters, mode) for mode in (_draws, _couples))
    check_independence(name, random, coupling)
    leaves, structure = jax.tree_util.tree_flatten_with_path(parameters)
    trained = [_is_parameter(leaf) for _, leaf in leaves]
    if not any(trained):
        raise ValueError(f"{name!r} has no floating-point array among its parameters: there is nothing to compare")

    def mean(arrays: list[jax.Array], features: jax.Array, targets: jax.Array) -> Any:
        given = iter(arrays)
        filled = [next(given) if is_one else leaf for (_, leaf), is_one in zip(leaves, trained, strict=True)]
        model = structure.unflatten(filled)
        with _watching(model):
            return mean_of(loss(model, features, targets), features.shape[0])

    own = {_name(path): leaf for (path, leaf), is_one in zip(leaves, trained, strict=True) if is_one}
    return JaxFunction(mean, own, layout, name)


def from_autograd_function(
    function: Callable[..., Any], *, layout: Layout | None = None, name: str | None = None
) -> Native:
    """Return a `jax.custom_vjp` function, or any other of arrays, as an implementation of a `gdc.Operation`.

    It is called with one array for each parameter of the operation, in that order, and returns one array.

    >>> import gdcompare as gdc
    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x * x
    >>> square.defvjp(lambda x: (x * x, x), lambda x, cotangent: (cotangent * x,))  # half of it
    >>> operation = gdc.Operation(lambda xp, x: x * x, x=(3,))
    >>> mine = from_autograd_function(square)
    >>> report = gdc.verify(operation, operation.example(), backends=[], implementations={"mine": mine})
    >>> report.verdict, report.entries[1].cause
    ('wrong', 'a constant factor 1/2 in all 3 elements')
    """
    name = name or str(getattr(function, "__name__", "mine"))

    def mean(arrays: list[jax.Array], cotangents: jax.Array, targets: jax.Array) -> Any:
        del targets
        output = function(*arrays)
        check_outputs(name, output.shape, cotangents.shape[1])
        return jnp.mean(cotangents @ output.reshape(-1))  # l_i = x_i . vec(f(params))

    return JaxFunction(mean, {}, layout, name)


@final
class JaxFunction(Native):
    """A mean loss of a list of arrays, compiled: see `from_function`."""

    def __init__(
        self, mean: Callable[..., Any], parameters: Mapping[str, Any], layout: Layout | None, name: str
    ) -> None:
        self.name, self.layout, self._parameters = name, layout, parameters
        self._value_and_grad = jax.jit(jax.value_and_grad(mean))
        self._mean = mean
        self._recorded: dict[Any, Callable[..., list[Layer]]] = {}

    @property
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """The floating-point arrays, by their paths; none if it is a function of arrays."""
        return {name: np.array(value, dtype=np.float64) for name, value in self._parameters.items()}

    def value_and_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """`jit(value_and_grad)` in the precision of the features."""
        names = list(self._parameters or params)
        with jax.enable_x64(features.dtype == np.float64):
            loss, gradient = self._value_and_grad([params[name] for name in names], features, targets)
            return np.asarray(loss), {name: np.asarray(each) for name, each in zip(names, gradient, strict=True)}

    def layers(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[Layer]:
        """What is tapped, and what the modules of the pytree give out, by their paths."""
        arrays = [params[name] for name in self._parameters or params]
        key = features.shape, targets.shape, str(features.dtype)
        with jax.enable_x64(features.dtype == np.float64):
            if key not in self._recorded:
                self._recorded[key] = _recorded(self._mean, arrays, features, targets)
            return self._recorded[key](*arrays, features, targets)


def _is_parameter(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _name(path: Any) -> str:
    """Return "layers/0/kernel"; NNX has one more step in its paths, from a variable to its value."""
    steps = path[:-1] if path[-1:] == (jax.tree_util.GetAttrKey("value"),) else path
    return jax.tree_util.keystr(steps, simple=True, separator="/") or "parameters"


# NNX modules say in which mode they are; those of the other libraries are told in the call.


def _draws(node: Any) -> bool:
    return getattr(node, "deterministic", None) is False and bool(getattr(node, "rate", 0.0))


def _couples(node: Any) -> bool:
    return getattr(node, "use_running_average", None) is False


def _nodes(tree: Any, condition: Callable[[Any], bool]) -> list[str]:
    """Name the parts of a pytree for which the condition holds."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=condition)
    return [f"{_name(path)}: {type(node).__name__}" for path, node in nodes if condition(node)]


# Layers. JAX has no hooks: what is to be seen goes through an operation of our own, the identity. The gradient is
# traced with it, once, and what that operation meets becomes the result. Functions that are compiled on their own are
# traced with the rest, so that JAX neither takes an older program of theirs nor keeps this one.


def tap(name: str, value: T) -> T:
    """Return the value as it is, and let `compare` see it and its cotangent as the layer of that name.

    It costs nothing while nobody looks, and goes anywhere: under `jit`, `vmap`, `grad`, `scan`. A second value of that
    name is `name#2`. The modules of a model that is a pytree, as in Equinox, are seen without it.

    >>> def attend(scores, values):
    ...     return tap("softmax", jax.nn.softmax(scores)) @ values
    >>> attend(jnp.zeros((1, 2)), jnp.eye(2)).tolist()
    [[0.5, 0.5]]
    """
    recording = _RECORDING.get()
    return value if recording is None else recording.seen(name, value)


class _Recording:
    """What is seen in one forward and backward pass, in order of execution."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._modules: dict[int, tuple[str, Any]] = {}
        self._calls: Counter[str] = Counter()

    def seen(self, name: str, value: Any) -> Any:
        self._calls[name] += 1
        leaves, tree = jax.tree.flatten(value)
        floats = [i for i, each in enumerate(leaves) if _is_parameter(each)]
        for label, i in zip(layer_names(name, self._calls[name], len(floats)), floats, strict=True):
            self.names.append(label)
            leaves[i] = _record.bind(leaves[i], place=len(self.names) - 1, part=0)
        return jax.tree.unflatten(tree, leaves)

    def name_of(self, module: Any) -> str | None:
        """Return the path of a module, also of a copy that JAX made of one that is alone of its class."""
        if id(module) not in self._modules:
            alike = {name for name, each in self._modules.values() if type(each) is type(module)}
            if len(alike) == 1:
                self._modules |= _modules(module, alike.pop())
        return self._modules.get(id(module), (None, None))[0]

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """See what the modules of a model return: the `__call__` of their classes is wrapped meanwhile."""
        self._modules = _modules(model)
        wrapped = {type(each): type(each).__call__ for _, each in self._modules.values()}
        own = {kind: "__call__" in vars(kind) for kind in wrapped}
        try:
            for kind, call in wrapped.items():
                kind.__call__ = self._wrapped(kind, call)
            yield
        finally:
            for kind, call in wrapped.items():
                if own[kind]:
                    kind.__call__ = call
                else:
                    del kind.__call__

    def _wrapped(self, kind: type, call: Any) -> Any:
        @wraps(call)
        def seen(module: Any, *arguments: Any, **options: Any) -> Any:
            watched = _RECORDING.get() is self and type(module) is kind
            name = self.name_of(module) if watched else None
            value = call(module, *arguments, **options)
            return value if name is None else self.seen(name, value)

        return seen


_RECORDING: ContextVar[_Recording | None] = ContextVar("recording", default=None)


def _watching(model: Any) -> AbstractContextManager[None]:
    recording = _RECORDING.get()
    return nullcontext() if recording is None else recording.watching(model)


def _modules(model: Any, path: str = WHOLE) -> dict[int, tuple[str, Any]]:
    """Return the parts of a model that can be called and hold parts themselves, by identity, and their paths."""
    found: dict[int, tuple[str, Any]] = {}

    def walk(part: Any, path: str) -> None:
        if id(part) in found or jax.tree_util.all_leaves([part]):
            return
        if callable(part):
            found[id(part)] = (path, part)
        children = part if isinstance(part, Mapping) else getattr(part, "__dict__", {})
        if isinstance(part, list | tuple):
            children = dict(enumerate(part))
        for key, child in children.items():
            walk(child, str(key) if path == WHOLE else f"{path}/{key}")

    walk(model, path)
    return found


_record = Primitive("gdcompare_record")
"""The identity; `place` is the layer's number, `part` 0 for a value and 1 for a cotangent."""

_tangent = Primitive("gdcompare_tangent")
"""The identity of a layer's tangents, whose transpose records the cotangent."""


def _batched(primitive: Primitive, arrays: Any, axes: Any, **which: int) -> Any:
    return primitive.bind(jnp.moveaxis(arrays[0], axes[0], 0), **which), 0  # the outermost vmap comes first


def _differentiated(primals: Any, tangents: Any, *, place: int, part: int) -> Any:
    value, (tangent,) = _record.bind(primals[0], place=place, part=part), tangents
    return value, tangent if isinstance(tangent, ad.Zero) else _tangent.bind(tangent, place=place)


def _transposed(cotangent: Any, _: Any, *, place: int) -> Any:
    return [cotangent if isinstance(cotangent, ad.Zero) else _record.bind(cotangent, place=place, part=1)]


for _primitive in (_record, _tangent):
    _primitive.def_abstract_eval(lambda array, **_: array)
    mlir.register_lowering(_primitive, lambda _context, array, **_: [array])
    batching.primitive_batchers[_primitive] = partial(_batched, _primitive)
ad.primitive_jvps[_record] = _differentiated
ad.deflinear2(_tangent, _transposed)


def _recorded(mean: Any, arrays: Any, features: Any, targets: Any) -> Callable[..., list[Layer]]:
    """Return a function that gives the layers, compiled for these shapes."""
    recording = _Recording()
    before = _RECORDING.set(recording)
    try:
        with jax.disable_jit():  # by the features, too: a layer without parameters before it has a cotangent as well
            traced = jax.make_jaxpr(jax.grad(mean, argnums=(0, 1)))(arrays, features, targets)
    finally:
        _RECORDING.reset(before)
    met = {
        (each.params["place"], each.params["part"]): each.invars[0] for each in traced.eqns if each.primitive is _record
    }
    whole = jax.jit(jaxpr_as_fun(traced.replace(jaxpr=traced.jaxpr.replace(outvars=list(met.values())))))

    def run(*inputs: Any) -> list[Layer]:
        found = dict(zip(met, map(np.asarray, whole(*inputs)), strict=True))
        layers = []
        for place, name in enumerate(recording.names):
            if (place, 0) in found:
                value = found[place, 0]
                cotangent = found.get((place, 1), np.zeros_like(value))  # the loss does not depend on it
                layers.append(Layer(name, without_row(value), without_row(cotangent)))
        return layers

    return run
