"""`torch.compile`: a function of tensors as one program, compiled once for each problem and shape.

A function is first run on tensors without values, which records all of its operations. So no part of it is left out of
the program in silence: a formula that branches on a value raises there, as it does where JAX traces it. What it records
is flat, and holds a gradient by `torch.func` like any other operation.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from gdcompare.backend import Inputs, Run, Step, eager_scan

STEPS = 16
"""How many steps of a descent are one program: it compiles in about 20 seconds, and takes a tenth of the eager time."""

Program = Callable[..., Any]
_programs: dict[Hashable, Program] = {}
"""What is compiled, by the function, what it depends on, and the kinds of tensors that it is given."""


def what_compiling_lacks(device: str | None) -> str:
    """Return what has to be installed before anything can be compiled for a device; nothing if it is there."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++", "cl"]
    if torch.empty(0, device=_or_cpu(device)).device.type != "cpu" or any(map(shutil.which, names)):
        return ""
    return f"a C++ compiler, and {' or '.join(names[:2])} is not found: install one, or name it in CXX"


def is_tracing() -> bool:
    """Whether a function is being recorded, so that what it calls needs no compiling of its own."""
    return get_proxy_mode() is not None


def run_compiled(function: Program, statics: tuple[Hashable, ...], *arguments: Any) -> Any:
    """Return `function(*statics, *arguments)` by its program; the arguments are dicts and tuples of tensors, or None.

    Equal statics and tensors of equal shapes share one program.
    """
    leaves, form = tree_flatten(arguments)
    kinds = tuple(None if leaf is None else (leaf.shape, leaf.stride(), leaf.dtype, leaf.device) for leaf in leaves)
    # The number of threads is part of what is compiled.
    key = (function, statics, form, kinds, torch.get_num_threads())
    with torch.no_grad():  # the derivative is part of what was recorded
        if (program := _programs.get(key)) is None:
            program = _programs[key] = _compiled(partial(function, *statics), leaves, form)
        return program(*leaves)


def _compiled(function: Program, leaves: Sequence[Any], form: Any) -> Program:
    returned: list[Any] = []

    def flat(*leaves: Any) -> Any:
        results, shape = tree_flatten(function(*tree_unflatten(leaves, form)))
        returned[:] = [shape]
        return results

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch warns of here is about its own code
        recorded = make_fx(flat, tracing_mode="fake")(*leaves)
        # In this process: workers would outlive the call.
        program = torch.compile(recorded, fullgraph=True, dynamic=False, options={"compile_threads": 1})
        program(*leaves)  # compiles
    return lambda *leaves: tree_unflatten(program(*leaves), returned[0])


def compiled_scan(step: Step[torch.Tensor], asarray: Callable[[ArrayLike], torch.Tensor]) -> Run[torch.Tensor]:
    """Return the `run` of `Backend.scan`: a loop over programs of `STEPS` steps; what is left is taken one by one."""
    rest = eager_scan(step, lambda each: each, torch.stack)  # they are tensors already

    def run(state: Any, inputs: Inputs, constants: Any) -> tuple[Any, Sequence[torch.Tensor]]:
        columns = tuple(map(asarray, inputs))
        length = len(columns[0])
        parts = []
        try:
            for begin in range(0, length - length % STEPS, STEPS):
                rows = tuple(column[begin : begin + STEPS] for column in columns)
                state, records = run_compiled(_steps, (step,), state, rows, constants)
                parts.append(records)
            if length % STEPS:
                tail: Any = tuple(column[length - length % STEPS :] for column in columns)
                state, records = rest(state, tail, constants)
                parts.append(records)
        except KeyboardInterrupt:
            if not parts:
                raise
        return state, tuple(map(torch.cat, zip(*parts, strict=True)))

    return run


def _steps(step: Step[torch.Tensor], state: Any, rows: tuple[torch.Tensor, ...], constants: Any) -> Any:
    """Take the steps of a chunk, one after the other, and stack their records."""
    records = []
    for row in zip(*rows, strict=True):
        state, record = step(state, row, constants)
        records.append(record)
    return state, tuple(map(torch.stack, zip(*records, strict=True)))


def _or_cpu(device: str | None) -> str:
    return device or "cpu"
