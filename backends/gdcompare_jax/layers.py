"""What the layers of a JAX model compute, and what comes back to them.

JAX has no hooks: what is to be seen goes through an operation of our own, the identity. The gradient is traced with it,
once, and what that operation meets becomes the result. Functions that are compiled on their own are traced with the
rest, so that JAX neither takes an older program of theirs nor keeps this one.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from gdcompare.models.native import (
    WHOLE,
    Layer,
    is_rounded,
    layer_names,
    without_row,
)

T = TypeVar("T")


def is_parameter(leaf: Any) -> bool:
    """Whether a leaf of a pytree is a floating-point array."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.floating)


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
        floats = [i for i, each in enumerate(leaves) if is_parameter(each)]
        for label, i in zip(layer_names(name, self._calls[name], len(floats)), floats, strict=True):
            self.names.append(label)
            leaves[i] = _record.bind(leaves[i], place=len(self.names) - 1, part=0)
        return jax.tree.unflatten(tree, leaves)

    def name_of(self, module: Any) -> str | None:
        """Return the path of a module, also of a copy that JAX made of one that is alone of its class.

        A module that is put together in the loss, as by `nnx.merge`, is a whole of its own if it is the first called.
        """
        if id(module) not in self._modules:
            alike = {name for name, each in self._modules.values() if type(each) is type(module)}
            if len(alike) == 1 or not self._modules:
                self._modules |= _modules(module, alike.pop() if alike else WHOLE)
        return self._modules.get(id(module), (None, None))[0]

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """See what the modules of a model return: the `__call__` of their classes is wrapped meanwhile."""
        self._modules = _modules(model)
        kinds = {type(each) for _, each in self._modules.values()} or set(_nnx_modules())
        wrapped = {kind: kind.__call__ for kind in kinds}
        own = {kind: "__call__" in vars(kind) for kind in wrapped}
        try:
            for kind, call in wrapped.items():
                kind.__call__ = self._wrapped(kind, call)
            with self._linen():
                yield
        finally:
            for kind, call in wrapped.items():
                if own[kind]:
                    kind.__call__ = call
                else:
                    del kind.__call__

    def _linen(self) -> AbstractContextManager[Any]:
        """See what the modules of Linen return, which are bound to their variables in the loss; if it is loaded."""
        linen = sys.modules.get("flax.linen")
        if linen is None:
            return nullcontext()

        def seen(call: Any, arguments: Any, options: Any, context: Any) -> Any:
            value = call(*arguments, **options)
            if _RECORDING.get() is not self or context.method_name != "__call__":
                return value
            return self.seen("/".join(context.module.path) or WHOLE, value)

        return linen.intercept_methods(seen)  # type: ignore[no-any-return]

    def _wrapped(self, kind: type, call: Any) -> Any:
        @wraps(call)
        def seen(module: Any, *arguments: Any, **options: Any) -> Any:
            watched = _RECORDING.get() is self and type(module) is kind
            name = self.name_of(module) if watched else None
            value = call(module, *arguments, **options)
            return value if name is None else self.seen(name, value)

        return seen


_RECORDING: ContextVar[_Recording | None] = ContextVar("recording", default=None)


def watching(model: Any) -> AbstractContextManager[None]:
    """See what the modules of a model return, if anybody looks."""
    recording = _RECORDING.get()
    return nullcontext() if recording is None else recording.watching(model)


def _modules(model: Any, path: str = WHOLE) -> dict[int, tuple[str, Any]]:
    """Return the parts of a model that can be called and hold parts themselves, by identity, and their paths."""
    found: dict[int, tuple[str, Any]] = {}
    nnx = sys.modules.get("flax.nnx")
    variables = () if nnx is None else nnx.Variable  # can be called, for what they hold

    def walk(part: Any, path: str) -> None:
        if id(part) in found or jax.tree_util.all_leaves([part]):
            return
        if callable(part) and not isinstance(part, variables):
            found[id(part)] = (path, part)
        children = part if isinstance(part, Mapping) else getattr(part, "__dict__", {})
        if isinstance(part, list | tuple):
            children = dict(enumerate(part))
        for key, child in children.items():
            walk(child, str(key) if path == WHOLE else f"{path}/{key}")

    walk(model, path)
    return found


def _nnx_modules() -> Iterator[Any]:
    """Yield the classes of NNX modules that can be called, if NNX is loaded: after `nnx.split` no module is at hand."""
    nnx = sys.modules.get("flax.nnx")
    left = [] if nnx is None else [nnx.Module]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        if any("__call__" in vars(each) for each in kind.__mro__):
            yield kind


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


def recorded(mean: Any, arrays: Any, features: Any, targets: Any) -> Callable[..., list[Layer]]:
    """Return a function that gives the layers, compiled for these shapes."""
    recording = _Recording()
    before = _RECORDING.set(recording)
    try:
        # By the features, too: a layer without parameters before it has a cotangent as well.
        argnums = (0, 1) if jnp.issubdtype(features.dtype, jnp.floating) else (0,)
        with jax.disable_jit():
            traced = jax.make_jaxpr(jax.grad(mean, argnums=argnums))(arrays, features, targets)
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


def narrowed(traced: Any) -> list[str]:
    """Say which constants of a traced program, and which results, are rounded to less than float64."""
    found: dict[str, None] = {}

    def walk(program: Any, constants: Any) -> None:
        for each in constants:
            said(each, "a constant")
        for equation in program.eqns:
            for each in equation.invars:
                if isinstance(each, Literal):
                    said(each.val, "a constant")
            for each in equation.outvars:
                if _is_narrow(each.aval) and not any(_is_narrow(given.aval) for given in equation.invars):
                    found[f"an array {each.aval.shape} of {each.aval.dtype}, from {equation.primitive}"] = None
            for each in jax.tree.leaves(equation.params, is_leaf=lambda part: isinstance(part, ClosedJaxpr)):
                if isinstance(each, ClosedJaxpr):
                    walk(each.jaxpr, each.consts)
                elif hasattr(each, "eqns"):
                    walk(each, ())

    def said(value: Any, what: str) -> None:
        if _is_narrow(value) and is_rounded(np.asarray(value)):
            found[f"{what} {np.shape(value)} of {value.dtype}"] = None

    walk(traced.jaxpr, traced.consts)
    return list(found)


def _is_narrow(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype != np.float64
