"""HIPS autograd: gradients of NumPy functions, recorded as they run and differentiated backwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, final

import autograd
import autograd.numpy as anp
import autograd.scipy.special as special
import numpy as np
from autograd.core import VJPNode, add_outgrads
from autograd.tracer import new_box, notrace_primitives, toposort, trace_stack
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
    read_only,
    reduced,
    scaled_rows,
)
from gdcompare.problem import Problem

Array = NDArray[Any]

_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""As in the other frameworks, infinity and NaN speak for themselves."""


class _Namespace:
    """autograd's NumPy, and what of the array API standard it does not differentiate, or not exactly."""

    def __getattr__(self, name: str) -> Any:
        return getattr(anp, name)

    def abs(self, x: Any) -> Any:
        """Its own slope is x / |x|, whose product with a cotangent is rounded twice."""
        return x * anp.sign(x)

    def concat(self, arrays: Any, axis: int = 0) -> Any:
        return anp.concatenate(arrays, axis)

    def matrix_transpose(self, x: Any) -> Any:
        return anp.swapaxes(x, -1, -2)

    def vecdot(self, x: Any, y: Any, axis: int = -1) -> Any:
        return anp.sum(x * y, axis=axis)


_namespace = _Namespace()


class _Recorded(VJPNode):  # type: ignore[misc]  # autograd comes without types
    """A node of its graph that also keeps what was computed there, by which function, and all nodes in their order."""

    def __init__(self, value: Any, function: Any, args: Any, kwargs: Any, argnums: Any, parents: Any) -> None:
        super().__init__(value, function, args, kwargs, argnums, parents)
        self.value, self.operation, self.recorded = value, function.__name__, parents[0].recorded
        self.recorded.append(self)

    def initialize_root(self, recorded: list[_Recorded]) -> None:
        super().initialize_root()
        self.recorded = recorded


notrace_primitives[_Recorded] = notrace_primitives[VJPNode]  # comparisons and the like leave no node of this kind, too


@final
@dataclass(frozen=True)
class AutogradBackend(Backend[Array]):
    """The loss formula run on autograd's NumPy and differentiated backwards, on the CPU."""

    dtype: Precision = "float64"
    device: str | None = None
    name: ClassVar[str] = "autograd"
    xp: ClassVar[Any] = _namespace

    def __post_init__(self) -> None:
        checked_dtype(self.dtype)
        if self.device not in (None, "cpu"):
            raise ValueError(f"backend 'autograd' has no device {self.device!r}; it runs on 'cpu'")

    def asarray(self, values: ArrayLike) -> Array:
        """A copy in this dtype; integers stay integers."""
        array = np.asarray(values)
        return array.astype(array.dtype if array.dtype.kind in "iu" else self.dtype)

    def borrow(self, values: ArrayLike) -> Array:
        """A read-only view, where the dtype is right: what a formula may try to change is not its own."""
        return read_only(values, self.dtype)

    def to_numpy(self, array: Array) -> Array:
        """The array itself."""
        return np.asarray(array)

    def value_and_grad(self, problem: Problem, reduction: Reduction = "mean") -> ValueAndGrad[Array]:
        """`autograd.value_and_grad` of the loss."""

        def loss(params: Params[Array], features: Array, targets: Array, weights: Array | None) -> Any:
            return reduced(anp, problem.per_sample_losses(_namespace, params, features, targets), weights, reduction)

        @_quiet
        def whole(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> tuple[Array, dict[str, Array]]:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Output seems independent of input")  # a gradient may be 0
                return autograd.value_and_grad(loss)(dict(params), features, targets, weights)  # type: ignore[no-any-return]

        return whole

    def per_sample_grad(self, problem: Problem, reduction: Reduction = "mean") -> PerSampleGrad[Array]:
        """One backward pass for each sample."""
        one = self.value_and_grad(problem)

        @_quiet
        def rows(
            params: Params[Array], features: Array, targets: Array, weights: Array | None = None
        ) -> dict[str, Array]:
            each = [one(params, features[i : i + 1], targets[i : i + 1])[1] for i in range(len(features))]
            gradients = {name: np.stack([gradient[name] for gradient in each]) for name in params}
            return scaled_rows(np, gradients, weights, reduction)

        return rows

    def scan(self, step: Step[Array]) -> Run[Array]:
        """A Python loop."""
        return _quiet(eager_scan(step, self.borrow, np.asarray))

    def environment(self) -> dict[str, str]:
        """The versions of autograd and NumPy."""
        return {"autograd": version("autograd"), "numpy": np.__version__}

    def operations(self) -> list[Operation]:
        """Functions of its NumPy and of its SciPy, each with a formula of the same function."""
        return Writer({"anp": anp, "special": special}, _routes, _script).operations(_ONE, _TWO, _CALLS)

    @_quiet
    def trace(self, problem: Problem, params: Params[Any], features: Any, targets: Any) -> Trace:
        """The graph that autograd records, with the value and the cotangent at every node."""
        values = {name: self.asarray(value) for name, value in params.items()}
        recorded: list[_Recorded] = []
        leaves = {name: _Recorded.new_root(recorded) for name in values}
        with trace_stack.new_trace() as level:
            inputs = {name: new_box(value, level, leaves[name]) for name, value in values.items()}
            losses = problem.per_sample_losses(_namespace, inputs, self.asarray(features), self.asarray(targets))
            loss = reduced(anp, losses)
        nodes = list(toposort(loss._node)) if hasattr(loss, "_node") else []  # a constant has none
        # As `autograd.core.backward_pass`, which forgets each cotangent once it is passed on.
        cotangents = {nodes[0]: (np.ones_like(loss._value), False)} if nodes else {}
        for node in nodes:
            for parent, cotangent in zip(node.parents, node.vjp(cotangents[node][0]), strict=True):
                cotangents[parent] = add_outgrads(cotangents.get(parent), cotangent)
        reached = [node for node in recorded if node in cotangents]
        names = {leaf: name for name, leaf in leaves.items()} | {
            node: f"a{i}" for i, node in enumerate(reached, start=1)
        }
        steps = [
            TraceStep(name, "parameter", (), values[name], cotangents.get(leaf, (None,))[0], name)
            for name, leaf in leaves.items()
        ]
        steps += [
            TraceStep(
                names[node],
                node.operation,
                tuple(dict.fromkeys(names[each] for each in node.parents)),
                np.asarray(node.value),
                np.asarray(cotangents[node][0]),
            )
            for node in reached
        ]
        return Trace("autograd", "the graph that autograd recorded, walked back", steps)


# For an audit: operations, each with what it computes.

_SAME = "exp expm1 log log1p sqrt sin cos sinh cosh tanh tan log2 log10 exp2 square reciprocal sign floor ceil trunc"
_ARCS = "sin cos tan sinh cosh tanh"
_ONE = (
    {f"anp.{name}": name for name in _SAME.split()}
    | {f"anp.arc{name}": f"a{name}" for name in _ARCS.split()}
    | {"anp.abs": "abs", "anp.fabs": "abs", "anp.negative": "negative", "anp.degrees": "degrees"}
    | {"anp.radians": "radians", "special.expit": "sigmoid", "special.gammaln": "lgamma", "special.psi": "digamma"}
    | {"special.erf": "erf", "special.erfc": "erfc"}
)
_TWO = {
    f"anp.{name}": name
    for name in ["add", "subtract", "multiply", "divide", "maximum", "minimum", "logaddexp", "hypot"]
} | {
    "anp.power": "pow",
    "anp.arctan2": "atan2",
    "anp.fmax": "maximum",
    "anp.fmin": "minimum",
    "anp.fmod": "fmod",
    "anp.remainder": "remainder",
}
_CALLS: dict[str, Call] = {
    "anp.sum": ("anp.sum(a, axis=1)", lambda xp, a: xp.sum(a, axis=1), {"a": (3, 4)}),
    "anp.mean": ("anp.mean(a, axis=1)", lambda xp, a: xp.mean(a, axis=1), {"a": (3, 4)}),
    "anp.prod": ("anp.prod(a)", lambda xp, a: xp.prod(a), {"a": (4,)}),
    "anp.max": ("anp.max(a)", lambda xp, a: xp.max(a), {"a": (4,)}),
    "anp.min": ("anp.min(a)", lambda xp, a: xp.min(a), {"a": (4,)}),
    "anp.var": ("anp.var(a)", lambda xp, a: xp.var(a), {"a": (5,)}),
    "anp.var (ddof)": ("anp.var(a, ddof=1)", lambda xp, a: xp.var(a, correction=1), {"a": (5,)}),
    "anp.var (correction)": ("anp.var(a, correction=1)", lambda xp, a: xp.var(a, correction=1), {"a": (5,)}),
    "anp.std": ("anp.std(a)", lambda xp, a: xp.std(a), {"a": (5,)}),
    "anp.std (correction)": ("anp.std(a, correction=1)", lambda xp, a: xp.std(a, correction=1), {"a": (5,)}),
    "anp.cumsum": ("anp.cumsum(a)", lambda xp, a: xp.cumulative_sum(a), {"a": (5,)}),
    "anp.sort": ("anp.sort(a)", lambda xp, a: xp.sort(a), {"a": (5,)}),
    "anp.clip": ("anp.clip(a, -0.5, 0.5)", lambda xp, a: xp.clip(a, -0.5, 0.5), {"a": (5,)}),
    "anp.where": ("anp.where(a > 0, a, b)", lambda xp, a, b: xp.where(a > 0, a, b), {"a": (4,), "b": (4,)}),
    "anp.dot": ("anp.dot(a, b)", lambda _, a, b: a @ b, {"a": (3, 4), "b": (4, 2)}),
    "anp.outer": ("anp.outer(a, b)", lambda xp, a, b: xp.outer(a, b), {"a": (3,), "b": (2,)}),
    "anp.einsum": (
        "anp.einsum('ij,jk->ki', a, b)",
        lambda xp, a, b: xp.einsum("ij,jk->ki", a, b),
        {"a": (2, 3), "b": (3, 2)},
    ),
    "anp.trace": ("anp.trace(a)", lambda xp, a: xp.trace(a), {"a": (3, 3)}),
    "anp.diff": ("anp.diff(a)", lambda xp, a: xp.diff(a), {"a": (5,)}),
    "anp.linalg.norm": ("anp.linalg.norm(a)", lambda xp, a: xp.linalg.vector_norm(a), {"a": (4,)}),
    "anp.linalg.det": ("anp.linalg.det(a)", lambda xp, a: xp.linalg.det(a), {"a": (3, 3)}),
    "anp.linalg.inv": ("anp.linalg.inv(a)", lambda xp, a: xp.linalg.inv(a), {"a": (3, 3)}),
    "anp.linalg.slogdet": ("anp.linalg.slogdet(a)[1]", lambda xp, a: xp.linalg.slogdet(a)[1], {"a": (3, 3)}),
    "anp.linalg.solve": ("anp.linalg.solve(a, b)", lambda xp, a, b: xp.linalg.solve(a, b), {"a": (3, 3), "b": (3, 2)}),
    "special.logsumexp": ("special.logsumexp(a)", lambda xp, a: xp.logsumexp(a), {"a": (4,)}),
}


def _routes(function: Callable[..., Any]) -> Mapping[str, Route]:
    """Backwards, and backwards through the backward pass; forwards where autograd has it."""

    def loss(arrays: Any, cotangents: Any) -> Any:
        return anp.sum(cotangents[0] * anp.ravel(function(*arrays)))

    def gradient(arrays: Any, cotangents: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Output seems independent of input")
            return autograd.grad(loss)(arrays, cotangents)

    def reverse(arguments: Arrays, cotangents: Any, targets: Any) -> tuple[None, Any]:
        del targets
        return None, dict(zip(arguments, gradient(tuple(arguments.values()), cotangents), strict=True))

    def forward(arguments: Arrays, cotangents: Any, targets: Any, direction: Arrays) -> tuple[None, Any]:
        del targets
        push = autograd.make_jvp(lambda *arrays: loss(arrays, cotangents), tuple(range(len(arguments))))
        return None, push(*arguments.values())(tuple(direction.values()))[1]

    def twice(arguments: Arrays, cotangents: Any, targets: Any, direction: Arrays) -> Any:
        del targets
        along = tuple(direction.values())

        def slope(arrays: Any) -> Any:
            parts = zip(gradient(arrays, cotangents), along, strict=True)
            return sum(anp.sum(one * other) for one, other in parts)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Output seems independent of input")
            return dict(zip(arguments, autograd.grad(slope)(tuple(arguments.values())), strict=True))

    return {
        "reverse": Route("gradient", reverse),
        "forward": Route("jvp", forward),
        "reverse, twice": Route("hvp", twice),
    }


def _script(text: str, asked: Asked) -> str:
    """Write a derivative of a call as lines."""
    dtype, names = asked.cotangents.dtype.name, ", ".join(asked.arguments)

    def array(values: Any) -> str:
        return f"anp.array({hexadecimal(values)}, dtype={dtype!r})"

    numbers = tuple(range(len(asked.arguments)))
    place = f"[{', '.join(map(str, asked.place))}]" if asked.place else ""
    lines = ["import autograd, autograd.numpy as anp, autograd.scipy.special as special", "h = float.fromhex"]
    lines += [f"{name} = {array(value)}" for name, value in asked.arguments.items()]
    lines.append(f"cotangents = {array(asked.cotangents[0])}")
    lines.append(f"loss = lambda {names}: anp.sum(cotangents * anp.ravel({text}))")
    along = "".join(f"{array(each)}, " for each in (asked.direction or {}).values())
    chosen = [*asked.arguments].index(asked.argument) if asked.argument in asked.arguments else 0
    if asked.route == "forward":
        lines.append(f"found = autograd.make_jvp(loss, {numbers})({names})(({along}))[1]")
    elif asked.route == "reverse":
        lines.append(f"found = autograd.grad(loss, {chosen})({names}){place}")
    else:
        products = "anp.sum(one * other) for one, other in zip(autograd.grad(loss, numbers)(*at), along)"
        lines += [f"numbers, along = {numbers}, ({along})", f"slope = lambda *at: sum({products})"]
        lines.append(f"found = autograd.grad(slope, {chosen})({names}){place}")
    return "\n".join(lines)
