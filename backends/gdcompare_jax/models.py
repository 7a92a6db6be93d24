"""JAX functions over any pytree, and functions with a backward pass of their own, as native models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.precision import NARROW
from gdcompare.arithmetic.program import Program
from gdcompare.models.matching import Layout
from gdcompare.models.native import (
    PLAIN_NUMBERS,
    Layer,
    Native,
    check_independence,
    check_outputs,
    cotangents,
    mean_of,
    working_dtype,
)
from gdcompare.models.rules import Rule
from gdcompare_jax.complex_numbers import apart, as_own, is_complex_array
from gdcompare_jax.layers import is_parameter, narrowed, recorded, watching
from gdcompare_jax.program import read
from gdcompare_jax.rules import called

# Native models.


def from_function(
    loss: Callable[..., Any], parameters: Any, *, layout: Layout | None = None, name: str | None = None
) -> Native:
    """Return a loss of a pytree as a native model: `gdcompare.verify(..., implementations={"mine": it})`.

    `loss(pytree, features, targets)` gives one number, the mean over the rows, or one number for each row. The pytree
    is a dict, an Equinox or NNX module, Linen's variables, or any other. Its floating-point arrays are the parameters,
    named by their paths, "layers/0/weight", one of complex numbers being one of real numbers with an axis more at the
    end for their parts; all else in it, Python floats too, is constant. Arrays of integers, tokens or labels, stay
    integers; all others, and so those of a `Dataset`, are floats in the dtype under test. Whole numbers that the loss
    cannot take as the one are handed over as the other: labels in a `Dataset` need no `.astype(int)`.

    Raises ValueError if there is no floating-point array, or for an NNX module that is in training mode with dropout.
    One that normalises by the statistics of the batch can be compared with another model, by the gradient of the batch,
    and is refused by `verify`.

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
    check_independence(name, random, coupling=[])
    leaves, structure = jax.tree_util.tree_flatten_with_path(parameters)
    # In training mode running statistics are updated and not used: constants, as the buffers of a module in torch.
    unused = [path for path, _ in _paths(parameters, _is_statistic)] if coupling else []
    fixed = [any(path[: len(each)] == each for each in unused) for path, _ in leaves]
    trained = [
        (is_parameter(leaf) or is_complex_array(leaf)) and not is_fixed
        for (_, leaf), is_fixed in zip(leaves, fixed, strict=True)
    ]
    if not any(trained):
        raise ValueError(f"{name!r} has no floating-point array among its parameters, {PLAIN_NUMBERS}")

    def mean(arrays: list[jax.Array], features: jax.Array, targets: jax.Array) -> Any:
        given = iter(arrays)
        filled = [
            as_own(next(given), leaf) if is_one else leaf for (_, leaf), is_one in zip(leaves, trained, strict=True)
        ]
        filled = [
            jnp.asarray(leaf, arrays[0].dtype) if is_fixed and is_parameter(leaf) else leaf
            for leaf, is_fixed in zip(filled, fixed, strict=True)
        ]
        model = structure.unflatten(filled)
        with watching(model):
            return mean_of(loss(model, features, targets), features.shape[0])

    own = {_name(path): apart(leaf) for (path, leaf), is_one in zip(leaves, trained, strict=True) if is_one}
    return JaxFunction(mean, own, layout, name, coupling)


def from_autograd_function(
    function: Callable[..., Any], *, layout: Layout | None = None, name: str | None = None
) -> Native:
    """Return a `jax.custom_vjp` function, or any other of arrays, as an implementation of a `gdc.Operation`.

    It is called with one array for each parameter of the operation, in that order, and returns one array, or several
    where the formula does; outputs that are not floating-point, such as indices, do not count.

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

    def outputs_of(arrays: Sequence[Any]) -> list[Any]:
        returned = function(*arrays)
        outputs = [each for each in map(apart, jax.tree.leaves(returned)) if is_parameter(each)]
        if not outputs:
            raise TypeError(f"{name!r} returns {type(returned).__name__}, where an array, or several, is due")
        return outputs

    def mean(arrays: list[jax.Array], features: jax.Array, targets: jax.Array) -> Any:
        del targets
        outputs = outputs_of(arrays)
        check_outputs(name, [each.shape for each in outputs], features.shape[1])
        flat = jnp.concatenate([each.reshape(-1) for each in outputs])
        return jnp.mean(features @ flat)  # l_i = x_i . vec(f(params))

    # It has a backward pass, and need not have a forward mode.
    return JaxFunction(mean, {}, layout, name, derivatives=frozenset({"hvp", "hessian"}), outputs=outputs_of)


@final
class JaxFunction(Native):
    """A mean loss of a list of arrays, compiled: see `from_function`."""

    unseen = "wrap what is to be seen in gdcompare_jax.tap(name, value), or give a pytree of modules"

    def __init__(
        self,
        mean: Callable[..., Any],
        parameters: Mapping[str, Any],
        layout: Layout | None,
        name: str,
        coupling: Sequence[str] = (),
        derivatives: frozenset[str] = frozenset({"jvp", "hvp", "hessian"}),
        outputs: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    ) -> None:
        self._outputs = outputs
        self.name, self.layout, self._parameters = name, layout, parameters
        self.derivatives, self._coupling = derivatives, list(coupling)
        gradient = jax.grad(mean)

        def product(arrays: Any, direction: Any, *data: Any) -> Any:
            return jax.jvp(lambda moved: gradient(moved, *data), (arrays,), (direction,))[1]

        def along(arrays: Any, direction: Any, *data: Any) -> Any:
            return jax.jvp(lambda moved: mean(moved, *data), (arrays,), (direction,))

        self._value_and_grad, self._hvp, self._jvp = map(jax.jit, (jax.value_and_grad(mean), product, along))
        self._mean, self._value = mean, jax.jit(mean)
        self._recorded: dict[Any, Callable[..., list[Layer]]] = {}

    @property
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """The floating-point arrays, by their paths; none if it is a function of arrays."""
        return {name: np.array(value, dtype=np.float64) for name, value in self._parameters.items()}

    def value_and_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """`jit(value_and_grad)` in the precision of the features."""
        call, read = self.prepared(params, features, targets)
        return read(call())

    def value(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> Any:
        """`jit(mean)`: it compiles sooner than its derivative."""
        with self._precision(params, features):
            return _wide(self._value([*self._arrays(params, features).values()], features, targets))

    def prepared(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Callable[[], Any], Callable[[Any], tuple[Any, dict[str, NDArray[Any]]]]]:
        """The same, from JAX's arrays to JAX's arrays."""
        arrays = self._arrays(params, features)
        with self._precision(params, features):
            inputs = [jnp.asarray(each) for each in arrays.values()], jnp.asarray(features), jnp.asarray(targets)

        def call() -> tuple[jax.Array, list[jax.Array]]:
            with self._precision(params, features):
                return self._value_and_grad(*inputs)  # type: ignore[no-any-return]

        def read(answer: Any) -> tuple[Any, dict[str, NDArray[Any]]]:
            loss, gradient = answer
            return _wide(loss), {name: _wide(each) for name, each in zip(arrays, gradient, strict=True)}

        return call, read

    def jvp(
        self,
        params: Mapping[str, NDArray[Any]],
        features: NDArray[Any],
        targets: NDArray[Any],
        direction: Mapping[str, NDArray[Any]],
    ) -> tuple[Any, Any]:
        """`jit(jvp)`: forward mode."""
        arrays = self._arrays(params, features)
        with self._precision(params, features):
            loss, derivative = self._jvp([*arrays.values()], _tangents(direction, arrays), features, targets)
            return _wide(loss), _wide(derivative)

    def hvp(
        self,
        params: Mapping[str, NDArray[Any]],
        features: NDArray[Any],
        targets: NDArray[Any],
        direction: Mapping[str, NDArray[Any]],
    ) -> dict[str, NDArray[Any]]:
        """`jit(jvp(grad))`: forward over reverse."""
        arrays = self._arrays(params, features)
        with self._precision(params, features):
            products = self._hvp([*arrays.values()], _tangents(direction, arrays), features, targets)
            return {name: _wide(each) for name, each in zip(arrays, products, strict=True)}

    def layers(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[Layer]:
        """What is tapped, and what modules give out, by their paths: of Equinox, Linen and NNX."""
        arrays = [*self._arrays(params, features).values()]
        key = features.shape, targets.shape, str(features.dtype), str(targets.dtype)
        with self._precision(params, features):
            if key not in self._recorded:
                self._recorded[key] = recorded(self._mean, arrays, features, targets)
            return self._recorded[key](*arrays, features, targets)

    def coupling(self) -> list[str]:
        """Parts of an NNX module that normalise by the statistics of the batch; other libraries do not tell."""
        return self._coupling

    def narrowed(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[str]:
        """What the traced program holds of less than float64 where it should compute in float64."""
        arrays = [*self._arrays(params, features).values()]
        if working_dtype(params, features) != "float64":
            return []
        with self._precision(params, features):
            return narrowed(jax.make_jaxpr(self._mean)(arrays, features, targets))

    def example(self, params: Mapping[str, ArrayLike]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Random cotangents, if it is an operation."""
        if self._outputs is None:
            return Native.example(self, params)
        with jax.enable_x64(True):
            outputs = jax.eval_shape(self._outputs, [np.asarray(each, dtype=np.float64) for each in params.values()])
        return cotangents(sum(each.size for each in outputs))

    def program(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> Program:
        """The jaxpr of the mean loss, in the tape's vocabulary."""
        arrays, dtype = self._arrays(params, features), working_dtype(params, features)
        with self._precision(params, features):
            return read(self._mean, arrays, features, targets, dtype, self.name)

    def rules(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[Rule]:
        """Its functions with a `custom_vjp` or a `custom_jvp`; none beside itself, if it is an operation."""
        if self._outputs is not None:
            return []
        arrays = self._arrays(params, features)
        with self._precision(params, features):
            found = called(self._mean, [*arrays.values()], features, targets)
        return [
            Rule(name, line, from_autograd_function(function, name=name), {k: np.asarray(v) for k, v in inputs.items()})
            for name, line, function, inputs in found
            if inputs
        ]

    def _arrays(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the parameters in the order of the pytree, in the dtype, or where that is float32 in their own."""
        dtype = working_dtype(params, features)
        own = self._half if dtype == "float32" else {}
        return {name: np.asarray(params[name], dtype=own.get(name, dtype)) for name in self._parameters or params}

    @property
    def _half(self) -> dict[str, Any]:
        """Return the dtypes of its parameters that are in half precision."""
        dtypes = {name: getattr(value, "dtype", None) for name, value in self._parameters.items()}
        return {name: np.dtype(dtype) for name, dtype in dtypes.items() if str(dtype) in NARROW}

    def held(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """Parameters in their own dtypes; what becomes of features is in the program."""
        half = self._half
        return {n: _wide(v.astype(half[n])) if n in half else v for n, v in params.items()}, features

    @staticmethod
    def _precision(params: Mapping[str, NDArray[Any]], features: NDArray[Any]) -> Any:
        return jax.enable_x64(working_dtype(params, features) == "float64")


def _tangents(direction: Mapping[str, NDArray[Any]], arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return a direction in the dtypes of the arrays, as JAX asks for tangents."""
    return [np.asarray(direction[name], dtype=value.dtype) for name, value in arrays.items()]


def _wide(array: Any) -> NDArray[Any]:
    """Return an array of NumPy's: half precision in float32, which holds it."""
    found = np.asarray(array)
    return found.astype(np.float32) if str(found.dtype) in NARROW else found


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the floating-point arrays of a pytree, by the names that `from_function` gives them.

    >>> list(named_leaves({"layers": [jnp.zeros(2)], "steps": 3}))
    ['layers/0']
    """
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if is_parameter(leaf)}


def _name(path: Any) -> str:
    """Return "layers/0/kernel"; NNX has one more step in its paths, from a variable to its value."""
    steps = path[:-1] if path[-1:] == (jax.tree_util.GetAttrKey("value"),) else path
    return jax.tree_util.keystr(steps, simple=True, separator="/") or "parameters"


# NNX modules say in which mode they are; those of the other libraries are told in the call.


def _draws(node: Any) -> bool:
    return getattr(node, "deterministic", None) is False and bool(getattr(node, "rate", 0.0))


def _couples(node: Any) -> bool:
    return getattr(node, "use_running_average", None) is False


def _is_statistic(node: Any) -> bool:
    return any(kind.__name__ == "BatchStat" for kind in type(node).__mro__)


def _nodes(tree: Any, condition: Callable[[Any], bool]) -> list[str]:
    """Name the parts of a pytree for which the condition holds."""
    return [f"{_name(path)}: {type(node).__name__}" for path, node in _paths(tree, condition)]


def _paths(tree: Any, condition: Callable[[Any], bool]) -> list[tuple[Any, Any]]:
    """Return the parts of a pytree for which the condition holds, and their paths."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=condition)
    return [(path, node) for path, node in nodes if condition(node)]
