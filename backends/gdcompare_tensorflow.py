"""TensorFlow: gradients by reverse-mode differentiation on a tape, `tf.GradientTape`.

TensorFlow's own operators are not NumPy's: `@` wants matrices, and `.T` and indexing by arrays are off unless a global
switch is thrown. The formulas run on `_Array` instead, a tensor with the operators of the array API standard.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, final

import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp
from numpy.typing import ArrayLike, NDArray

from gdcompare.audit.subject import Arrays, Asked, Operation, Route, hexadecimal
from gdcompare.audit.written import Call, Writer
from gdcompare.backend import (
    Backend,
    Params,
    PerSampleGrad,
    Precision,
    Reduction,
    Run,
    Step,
    Trace,
    TraceStep,
    ValueAndGrad,
    checked_dtype,
    eager_scan,
    reduced,
    scaled_rows,
)
from gdcompare.problem import Problem


class _Array:
    """A tensor with the operators of the array API standard."""

    def __init__(self, tensor: tf.Tensor) -> None:
        self.tensor = tensor

    shape = property(lambda self: tuple(self.tensor.shape))
    ndim = property(lambda self: len(self.tensor.shape))
    dtype = property(lambda self: self.tensor.dtype)
    T = property(lambda self: _Array(tf.transpose(self.tensor)))

    def __len__(self) -> int:
        return int(self.tensor.shape[0])

    def __getitem__(self, key: Any) -> _Array:
        return _Array(self.tensor[_bare(key)])


def _operator(function: Callable[..., Any], swapped: bool = False) -> Any:
    def applied(self: _Array, other: Any) -> _Array:
        one, two = self.tensor, _like(self.tensor, _bare(other))
        return _Array(function(two, one) if swapped else function(one, two))

    return applied


for _name, _function in {
    **{each: getattr(operator, each) for each in ("add", "sub", "mul", "truediv", "pow")},
    "matmul": tnp.matmul,
}.items():
    setattr(_Array, f"__{_name}__", _operator(_function))
    setattr(_Array, f"__r{_name}__", _operator(_function, swapped=True))
for _name, _function in {
    **{each: getattr(operator, each) for each in ("lt", "le", "gt", "ge")},
    "eq": tf.equal,
    "ne": tf.not_equal,
    "and": tf.logical_and,
    "or": tf.logical_or,
}.items():
    setattr(_Array, f"__{_name}__", _operator(_function))
for _name, _function in {"neg": operator.neg, "pos": tf.identity, "abs": tf.abs, "invert": tf.logical_not}.items():
    setattr(_Array, f"__{_name}__", lambda self, _function=_function: _Array(_function(self.tensor)))


class _Namespace:
    """`tensorflow.experimental.numpy` by the names of the standard; given an `_Array`, it returns one."""

    def __getattr__(self, name: str) -> Any:
        function = _OTHERS.get(name) or getattr(tnp, name)

        def call(*arguments: Any, **options: Any) -> Any:
            tensor = next((each.tensor for each in _leaves(arguments) if isinstance(each, _Array)), None)
            bare = _bare(arguments) if tensor is None else tuple(_like(tensor, _bare(each)) for each in arguments)
            result = function(*bare, **{key: _bare(value) for key, value in options.items()})
            made = tensor is not None or not any(isinstance(each, tf.Tensor) for each in _leaves(arguments))
            return _Array(result) if made else result

        return call


def _logaddexp(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The larger + log(1 + exp(smaller - larger)); TensorFlow's own has slope 0, not 1/2, where both are equal."""
    larger, smaller = tf.where(x >= y, x, y), tf.where(x >= y, y, x)
    return larger + tf.nn.softplus(smaller - larger)


_OTHERS: dict[str, Callable[..., Any]] = {
    "concat": tnp.concatenate,
    "permute_dims": tnp.transpose,
    "matrix_transpose": tf.linalg.matrix_transpose,
    "astype": tf.cast,
    "vecdot": lambda x, y, axis=-1: tf.reduce_sum(x * y, axis=axis),
    "pow": operator.pow,
    "logaddexp": _logaddexp,
}
"""What has another name there, or none."""


def _leaves(values: Any) -> list[Any]:
    return [leaf for each in values for leaf in (_leaves(each) if isinstance(each, list | tuple) else [each])]


def _bare(value: Any) -> Any:
    """Return the tensors instead of the arrays, in lists and tuples, too."""
    if isinstance(value, list | tuple):
        return type(value)(_bare(each) for each in value)
    return value.tensor if isinstance(value, _Array) else value


def _like(tensor: tf.Tensor, value: Any) -> Any:
    """Return a Python float in the tensor's dtype: `tensorflow.experimental.numpy` would make both float64."""
    return tf.constant(value, tensor.dtype) if isinstance(value, float) and tensor.dtype.is_floating else value


_namespace = _Namespace()


@final
@dataclass(frozen=True)
class TensorflowBackend(Backend[tf.Tensor]):
    """The loss formula run eagerly, recorded on a tape and differentiated backwards.

    `device` is a kind, with a number if there are several: `"cpu"`, `"gpu"`, `"gpu:1"`.
    """

    dtype: Precision = "float64"
    device: str | None = None
    name: ClassVar[str] = "tensorflow"
    xp: ClassVar[Any] = _namespace

    def __post_init__(self) -> None:
        checked_dtype(self.dtype)
        known = [each.name.removeprefix("/device:").lower() for each in tf.config.list_logical_devices()]
        if self.device is not None and self._place not in known:
            raise ValueError(f"backend 'tensorflow' has no device {self.device!r}; it has: {', '.join(known)}")

    @property
    def _place(self) -> str | None:
        return self.device if self.device is None or ":" in self.device else f"{self.device}:0"

    def asarray(self, values: ArrayLike) -> tf.Tensor:
        """A copy on the device in this dtype; integers stay integers."""
        array = np.array(values)
        with tf.device(self._place):
            return tf.constant(array if array.dtype.kind in "iu" else array.astype(self.dtype, copy=False))

    def to_numpy(self, array: tf.Tensor) -> NDArray[Any]:
        """Bring the tensor to the host, which waits for the device."""
        return np.asarray(array)

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[tf.Tensor]:
        """One forward pass on the tape, one `tape.gradient`."""

        def whole(
            params: Params[tf.Tensor], features: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor | None = None
        ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            return _value_and_grad(problem, reduction, dict(params), features, targets, weights)

        return whole

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[tf.Tensor]:
        """The loss of one sample differentiated, vectorised over the samples and compiled."""

        def rows(
            params: Params[tf.Tensor], features: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor | None = None
        ) -> dict[str, tf.Tensor]:
            return scaled_rows(_namespace, _vectorised(problem)(dict(params), features, targets), weights, reduction)

        return rows

    def scan(self, step: Step[tf.Tensor]) -> Run[tf.Tensor]:
        """A Python loop."""
        return eager_scan(step, self.asarray, tf.stack)

    def environment(self) -> dict[str, str]:
        """TensorFlow's version, device, and the switches that change its rounding."""
        return {
            "tensorflow": tf.__version__,
            "device": self._place or tf.config.list_logical_devices()[-1].name,
            "tensor float 32": str(tf.config.experimental.tensor_float_32_execution_enabled()),
        }

    def operations(self) -> list[Operation]:
        """Functions of `tf.math`, `tf.nn` and `tf.linalg`, each with a formula of the same function."""
        return Writer({"tf": tf}, _routes, _script).operations(_ONE, _TWO, _CALLS)

    def trace(self, problem: Problem, params: Params[Any], features: Any, targets: Any) -> Trace:
        """The loss as a graph, whose operations are those of the tape, each with its value and its cotangent."""
        leaves = {name: self.asarray(value) for name, value in params.items()}
        rows, goals = _Array(self.asarray(features)), _Array(self.asarray(targets))
        written: list[tuple[str, str, tuple[str, ...]]] = []  # name, operation, inputs

        def loss_and_back(inputs: dict[str, tf.Tensor]) -> Any:
            arrays = {name: _Array(tensor) for name, tensor in inputs.items()}
            loss = reduced(_namespace, problem.per_sample_losses(_namespace, arrays, rows, goals)).tensor
            names = {tensor.ref(): name for name, tensor in inputs.items()}
            results = []
            for each in loss.graph.get_operations():
                read = tuple(dict.fromkeys(names[it.ref()] for it in each.inputs if it.ref() in names))
                if read:
                    written.append((f"f{len(written) + 1}", each.type, read))
                    names |= {result.ref(): written[-1][0] for result in each.outputs}
                    results.append(each.outputs[0])
            cotangents = tf.gradients(loss, [*inputs.values(), *results])
            return results, cotangents[: len(inputs)], cotangents[len(inputs) :]

        values, slopes, cotangents = tf.function(loss_and_back)(leaves)
        steps = [
            TraceStep(name, "parameter", (), np.asarray(leaf), _numpy(slope), name)
            for (name, leaf), slope in zip(leaves.items(), slopes, strict=True)
        ]
        steps += [
            TraceStep(*step, np.asarray(value), _numpy(cotangent))
            for step, value, cotangent in zip(written, values, cotangents, strict=True)
        ]
        return Trace("tensorflow", "the graph of the loss, walked back", steps)


def _numpy(tensor: tf.Tensor | None) -> NDArray[Any] | None:
    return None if tensor is None else np.asarray(tensor)


def _value_and_grad(
    problem: Problem, reduction: Reduction, params: dict[str, tf.Tensor], features: Any, targets: Any, weights: Any
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(list(params.values()))
        arrays = {name: _Array(value) for name, value in params.items()}
        losses = problem.per_sample_losses(_namespace, arrays, _Array(features), _Array(targets))
        loss = reduced(_namespace, losses, None if weights is None else _Array(weights), reduction).tensor
    return loss, tape.gradient(loss, params, unconnected_gradients=tf.UnconnectedGradients.ZERO)


@cache  # equal problems share one compiled program
def _vectorised(problem: Problem) -> Callable[..., dict[str, tf.Tensor]]:
    def rows(params: dict[str, tf.Tensor], features: tf.Tensor, targets: tf.Tensor) -> Any:
        def one(sample: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
            row, target = sample
            return _value_and_grad(problem, "mean", params, row[None], target[None], None)[1]

        return tf.vectorized_map(one, (features, targets))

    return tf.function(rows, reduce_retracing=True)  # type: ignore[no-any-return]


# For an audit: operations, each with what it computes.

_SAME = (
    "abs acos acosh asin asinh atan atanh ceil cos cosh digamma erf erfc exp expm1 floor lgamma log log1p negative "
    "reciprocal rsqrt sigmoid sign sin sinh sqrt square tan tanh softplus log_sigmoid"
)
_ONE = {f"tf.math.{name}": name for name in _SAME.split()} | {
    f"tf.nn.{name}": name for name in ["silu", "elu", "softsign", "relu", "relu6"]
}
_ONE["tf.nn.gelu"] = "gelu"
_TWO = {
    f"tf.math.{name}": name
    for name in ["add", "subtract", "multiply", "divide", "maximum", "minimum", "atan2", "xlogy", "pow"]
}
_CALLS: dict[str, Call] = {
    "tf.reduce_sum": ("tf.reduce_sum(a, axis=1)", lambda xp, a: xp.sum(a, axis=1), {"a": (3, 4)}),
    "tf.reduce_mean": ("tf.reduce_mean(a, axis=1)", lambda xp, a: xp.mean(a, axis=1), {"a": (3, 4)}),
    "tf.reduce_prod": ("tf.reduce_prod(a)", lambda xp, a: xp.prod(a), {"a": (4,)}),
    "tf.reduce_max": ("tf.reduce_max(a)", lambda xp, a: xp.max(a), {"a": (4,)}),
    "tf.reduce_min": ("tf.reduce_min(a)", lambda xp, a: xp.min(a), {"a": (4,)}),
    "tf.reduce_logsumexp": ("tf.reduce_logsumexp(a)", lambda xp, a: xp.logsumexp(a), {"a": (4,)}),
    "tf.math.reduce_variance": ("tf.math.reduce_variance(a)", lambda xp, a: xp.var(a), {"a": (5,)}),
    "tf.math.reduce_std": ("tf.math.reduce_std(a)", lambda xp, a: xp.std(a), {"a": (5,)}),
    "tf.math.reduce_euclidean_norm": (
        "tf.math.reduce_euclidean_norm(a)",
        lambda xp, a: xp.linalg.vector_norm(a),
        {"a": (5,)},
    ),
    "tf.norm": ("tf.norm(a)", lambda xp, a: xp.linalg.vector_norm(a), {"a": (5,)}),
    "tf.cumsum": ("tf.cumsum(a)", lambda xp, a: xp.cumulative_sum(a), {"a": (5,)}),
    "tf.math.cumprod": ("tf.math.cumprod(a)", lambda xp, a: xp.cumulative_prod(a), {"a": (5,)}),
    "tf.sort": ("tf.sort(a)", lambda xp, a: xp.sort(a), {"a": (5,)}),
    "tf.clip_by_value": ("tf.clip_by_value(a, -0.5, 0.5)", lambda xp, a: xp.clip(a, -0.5, 0.5), {"a": (5,)}),
    "tf.where": ("tf.where(a > 0, a, b)", lambda xp, a, b: xp.where(a > 0, a, b), {"a": (4,), "b": (4,)}),
    "tf.matmul": ("tf.matmul(a, b)", lambda _, a, b: a @ b, {"a": (3, 4), "b": (4, 2)}),
    "tf.nn.softmax": ("tf.nn.softmax(a)", lambda xp, a: xp.softmax(a, axis=-1), {"a": (3, 4)}),
    "tf.nn.log_softmax": ("tf.nn.log_softmax(a)", lambda xp, a: xp.log_softmax(a, axis=-1), {"a": (3, 4)}),
    "tf.linalg.det": ("tf.linalg.det(a)", lambda xp, a: xp.linalg.det(a), {"a": (3, 3)}),
    "tf.linalg.inv": ("tf.linalg.inv(a)", lambda xp, a: xp.linalg.inv(a), {"a": (3, 3)}),
    "tf.linalg.solve": ("tf.linalg.solve(a, b)", lambda xp, a, b: xp.linalg.solve(a, b), {"a": (3, 3), "b": (3, 2)}),
    "tf.linalg.trace": ("tf.linalg.trace(a)", lambda xp, a: xp.trace(a), {"a": (3, 3)}),
}


def _routes(function: Callable[..., Any]) -> Mapping[str, Route]:
    """Backwards, eager and as a graph; forwards; and backwards through the backward pass."""

    def loss(arrays: Any, cotangents: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(cotangents[0] * tf.reshape(function(*arrays), [-1]))

    def gradient(arrays: Any, cotangents: tf.Tensor) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(arrays)
            value = loss(arrays, cotangents)
        return tape.gradient(value, arrays, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    graph = tf.function(gradient, reduce_retracing=True, autograph=False)

    def reverse(how: Callable[..., Any], arguments: Arrays, cotangents: Any, targets: Any) -> tuple[None, Any]:
        del targets
        found = how([tf.constant(each) for each in arguments.values()], tf.constant(cotangents))
        return None, {name: np.asarray(each) for name, each in zip(arguments, found, strict=True)}

    def forward(arguments: Arrays, cotangents: Any, targets: Any, direction: Arrays) -> tuple[None, Any]:
        del targets
        arrays = [tf.constant(each) for each in arguments.values()]
        with tf.autodiff.ForwardAccumulator(arrays, [tf.constant(each) for each in direction.values()]) as accumulator:
            value = function(*arrays)
        return None, np.sum(cotangents[0] * np.ravel(accumulator.jvp(value, tf.UnconnectedGradients.ZERO)))

    def twice(arguments: Arrays, cotangents: Any, targets: Any, direction: Arrays) -> Any:
        del targets
        arrays = [tf.constant(each) for each in arguments.values()]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(arrays)
            parts = zip(gradient(arrays, tf.constant(cotangents)), direction.values(), strict=True)
            slope = tf.add_n([tf.reduce_sum(one * other) for one, other in parts])
        found = tape.gradient(slope, arrays, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return {name: np.asarray(each) for name, each in zip(arguments, found, strict=True)}

    return {
        "reverse": Route("gradient", partial(reverse, gradient)),
        "reverse, graph": Route("gradient", partial(reverse, graph)),
        "forward": Route("jvp", forward),
        "reverse, twice": Route("hvp", twice),
    }


def _script(text: str, asked: Asked) -> str:
    """Write a derivative of a call as lines."""
    dtype, names = asked.cotangents.dtype.name, ", ".join(asked.arguments)

    def array(values: Any) -> str:
        return f"tf.constant({hexadecimal(values)}, dtype={dtype!r})"

    place = f"[{', '.join(map(str, asked.place))}]" if asked.place else ""
    chosen = [*asked.arguments].index(asked.argument) if asked.argument in asked.arguments else 0
    lines = ["import tensorflow as tf", "h = float.fromhex"]
    lines += [f"{name} = {array(value)}" for name, value in asked.arguments.items()]
    lines += [f"cotangents = {array(asked.cotangents[0])}", f"at = [{names}]"]
    along = ", ".join(array(each) for each in (asked.direction or {}).values())
    zero = "unconnected_gradients=tf.UnconnectedGradients.ZERO"
    outputs = f"tf.reshape({text}, [-1])"
    if asked.route == "forward":
        lines += [f"with tf.autodiff.ForwardAccumulator(at, [{along}]) as forward:", f"    outputs = {outputs}"]
        return "\n".join([*lines, f"found = tf.reduce_sum(cotangents * forward.jvp(outputs, {zero}))"])
    lines += [
        f"def gradient({names}):",
        f"    at = [{names}]",
        "    with tf.GradientTape() as tape:",
        "        tape.watch(at)",
        f"        loss = tf.reduce_sum(cotangents * {outputs})",
        f"    return tape.gradient(loss, at, {zero})",
    ]
    if asked.route == "reverse, graph":
        return "\n".join([*lines, f"found = tf.function(gradient, autograph=False)(*at)[{chosen}]{place}"])
    if asked.direction is None:
        return "\n".join([*lines, f"found = gradient(*at)[{chosen}]{place}"])
    lines += [
        "with tf.GradientTape() as tape:",
        "    tape.watch(at)",
        f"    parts = zip(gradient(*at), [{along}])",
        "    slope = tf.add_n([tf.reduce_sum(one * other) for one, other in parts])",
        f"found = tape.gradient(slope, at, {zero})[{chosen}]{place}",
    ]
    return "\n".join(lines)
