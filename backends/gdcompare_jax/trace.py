"""The jaxpr of a gradient, each equation with its value."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, Literal

from gdcompare.backend import TraceStep

INSIDE = ("jaxpr", "call_jaxpr")
"""Parameters of an equation that calls another jaxpr, which is then shown in its place."""


def equations(whole: Callable[..., Any], params: dict[str, Any], features: Any, targets: Any) -> list[TraceStep]:
    """Return the equations of `whole(params, features, targets) -> (loss, {name: gradient})`, evaluated in turn."""
    closed = jax.make_jaxpr(whole)(params, features, targets)
    inputs = [*sorted(params), "features", "targets"]  # JAX sorts the names of a dict
    steps: list[TraceStep] = [
        TraceStep(name, "parameter", (), np.asarray(params[name]), None, name) for name in sorted(params)
    ]
    names = _letters()
    known: dict[Any, tuple[str, Any]] = {
        variable: (str(np.asarray(value)) if np.ndim(value) == 0 else next(names), value)
        for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True)
    }
    given = [*(params[name] for name in sorted(params)), features, targets]
    known |= dict(zip(closed.jaxpr.invars, zip(inputs, given, strict=True), strict=True))
    _run(closed.jaxpr, known, steps, names)
    labels = ["loss", *(f"dL/d{name}" for name in sorted(params))]
    for variable, label in zip(closed.jaxpr.outvars, labels, strict=True):
        name, _ = _read(variable, known)
        steps[:] = [step._replace(label=label) if step.name == name else step for step in steps]
    return steps


def _run(jaxpr: Jaxpr, known: dict[Any, tuple[str, Any]], steps: list[TraceStep], names: Iterator[str]) -> None:
    for equation in jaxpr.eqns:
        read = [_read(each, known) for each in equation.invars]
        inner = next((equation.params[key] for key in INSIDE if hasattr(equation.params.get(key), "consts")), None)
        if inner is not None and len(inner.jaxpr.invars) == len(read):
            inside = dict(zip(inner.jaxpr.invars, read, strict=True))
            inside |= {v: (next(names), value) for v, value in zip(inner.jaxpr.constvars, inner.consts, strict=True)}
            _run(inner.jaxpr, inside, steps, names)
            results = [_read(each, inside) for each in inner.jaxpr.outvars]
            known |= dict(zip(equation.outvars, results, strict=True))
            continue
        found = equation.primitive.bind(*(value for _, value in read), **equation.params)
        values = found if equation.primitive.multiple_results else [found]
        for variable, value in zip(equation.outvars, values, strict=True):
            name = next(names)
            known[variable] = name, value
            steps.append(TraceStep(name, _written(equation), tuple(one for one, _ in read), np.asarray(value)))


def _read(variable: Any, known: dict[Any, tuple[str, Any]]) -> tuple[str, Any]:
    if isinstance(variable, Literal):
        return f"{variable.val:g}" if np.ndim(variable.val) == 0 else str(variable.val), variable.val
    return known[variable]


def _written(equation: Any) -> str:
    """Return the primitive, with the numbers that make it what it is."""
    inside = [f"{key}={equation.params[key]}" for key in ("y", "axes") if key in equation.params]
    return f"{equation.primitive.name}{f'[{chr(32).join(inside)}]' if inside else ''}"


def _letters() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    for length in (1, 2, 3):
        yield from map("".join, product(string.ascii_lowercase, repeat=length))
