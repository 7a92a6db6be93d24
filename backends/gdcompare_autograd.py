"""HIPS autograd: gradients of NumPy functions, recorded as they run and differentiated backwards."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, final

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.core import VJPNode, add_outgrads
from autograd.tracer import new_box, notrace_primitives, toposort, trace_stack
from numpy.typing import ArrayLike, NDArray

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
