"""The functions with a `custom_vjp` or `custom_jvp` that a loss calls, and with what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

from gdcompare_jax.program import CALLS, is_float, line_of

OWN = ("custom_vjp_call", "custom_jvp_call")

Called = tuple[str, str, Callable[..., Any], dict[str, Any]]
"""Its name, the user's line, a function of the arrays that it differentiates, and these."""


def called(loss: Callable[..., Any], *arguments: Any) -> list[Called]:
    """Return such functions in the order of their calls; not those inside others, nor inside loops and branches."""
    closed = jax.make_jaxpr(loss)(*arguments)
    found: list[Called] = []
    _through(closed.jaxpr, closed.consts, jax.tree.leaves(arguments), found)
    return found


def _through(jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any], found: list[Called]) -> list[Any]:
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        operands = [value(each) for each in equation.invars]
        inner = equation.params.get(CALLS.get(equation.primitive.name, ""))
        if equation.primitive.name in OWN:
            found.append(_noted(equation, operands))
            inner = None
        if hasattr(inner, "eqns"):
            results = _through(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands, found)
        else:
            results = _run(equation, operands)
        known |= dict(zip(equation.outvars, results, strict=True))
    return [value(each) for each in jaxpr.outvars]


def _run(equation: Any, operands: Sequence[Any]) -> list[Any]:
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # JAX before 0.10 has both
    results = equation.primitive.bind(*functions, *operands, **params)
    return list(results) if equation.primitive.multiple_results else [results]


def _noted(equation: Any, operands: Sequence[Any]) -> Called:
    moving = [i for i, each in enumerate(equation.invars) if is_float(each)]
    names = [f"input {i}" for i in moving] if len(moving) > 1 else ["input"]
    function = partial(_at, equation, operands, moving)
    return (
        _name(equation),
        line_of(equation),
        function,
        {name: operands[i] for name, i in zip(names, moving, strict=True)},
    )


def _at(equation: Any, operands: Sequence[Any], moving: Sequence[int], *arrays: Any) -> list[Any]:
    inputs = list(operands)
    for i, each in zip(moving, arrays, strict=True):
        inputs[i] = jax.numpy.asarray(each, equation.invars[i].aval.dtype)  # it is traced for these
    return _run(equation, inputs)


def _name(equation: Any) -> str:
    inner = equation.params["call_jaxpr"]
    info = getattr(getattr(inner, "jaxpr", inner), "debug_info", None)
    return str(getattr(info, "func_name", "") or equation.params.get("name") or "a custom derivative").split(" ")[0]
