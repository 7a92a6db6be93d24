"""The referee's own way to a gradient, and the one derived by hand, step by step."""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flint import ctx

from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.tape import Tape, Variable
from gdcompare.backend import Trace, TraceStep, reduced
from gdcompare.case import Case
from gdcompare.problem import Problem

PRECISION = 128
LAYOUT = {"reshape", "permute_dims", "broadcast_to"}
"""Steps that move numbers and change none: what takes them in is shown to take in what they moved."""


def referee_steps(case: Case) -> tuple[Trace, list[str]]:
    """Return the loss on the tape, forward, with the cotangent of each node from the walk back; and where it bends."""
    with ctx.workprec(PRECISION):
        tape, leaves = _tape(case.params)
        losses = case.problem.per_sample_losses(tape, leaves, tape.asarray(case.features), tape.asarray(case.targets))
        loss = reduced(tape, losses)
        cotangents: dict[int, Any] = {}
        tape.walk_back(loss, lambda node, cotangent: cotangents.update({id(node): cotangent}))
        found = {id(leaf): tape.gradient(leaf) for leaf in leaves.values()} | cotangents
        labels = _assigned(case.problem, tape) | {id(losses): "losses", id(loss): "loss"}
        steps = _steps(case, tape, leaves, labels, "v", found)
    return Trace("referee", "the loss forward, then its derivatives from the last step back", steps), [
        str(kink)
        for kink in tape.numbers.kinks  # type: ignore[attr-defined]  # balls note them
    ]


def steps_by_hand(case: Case) -> list[Trace]:
    """Return what the formulas derived by hand compute: of all the samples, and of each where that is another one."""
    own, traces = type(case.problem), []
    of_all = own.value_and_gradient is not Problem.value_and_gradient
    of_each = own.per_sample_gradients is not Problem.per_sample_gradients
    if of_all or of_each:
        title = "the gradient of the mean" + ("" if of_all else ", as the mean of the samples' gradients")
        traces.append(_by_hand(case, "by hand", title, "h", lambda *given: given[0].value_and_gradient(*given[1:])[1]))
    if of_all and of_each:
        title = "a gradient for each sample, without the 1/n"
        traces.append(
            _by_hand(case, "each sample", title, "s", lambda *given: given[0].per_sample_gradients(*given[1:]))
        )
    return traces


def _by_hand(case: Case, name: str, title: str, letter: str, run: Callable[..., Mapping[str, Variable]]) -> Trace:
    with ctx.workprec(PRECISION):
        tape, leaves = _tape(case.params)
        data = {"features": tape.leaf(case.features), "targets": tape.leaf(case.targets)}  # a leaf: all steps are kept
        gradient = run(case.problem, tape, leaves, *data.values())
        inputs = {name: each for name, each in data.items() if name not in leaves}
        kept = set(map(id, tape.nodes))
        tape.nodes += [each for each in gradient.values() if id(each) not in kept]  # a slope that depends on no number
        labels = _assigned(case.problem, tape)
        labels |= {id(each): f"dL/d{key}" if letter == "h" else f"dl/d{key}" for key, each in gradient.items()}
        return Trace(name, title, _steps(case, tape, leaves, labels, letter, {}, inputs))


def _tape(params: Mapping[str, Any]) -> tuple[Tape, dict[str, Variable]]:
    numbers = BallNumbers()
    numbers.watched = []  # so that each node knows its operation and its line
    tape = Tape(numbers)
    return tape, {name: tape.leaf(value) for name, value in params.items()}


def _steps(
    case: Case,
    tape: Tape,
    leaves: Mapping[str, Variable],
    labels: Mapping[int, str],
    letter: str,
    cotangents: Mapping[int, Any],
    data: Mapping[str, Variable] | None = None,
) -> list[TraceStep]:
    names = {id(leaf): name for name, leaf in {**(data or {}), **leaves}.items()}
    steps = [
        TraceStep(name, "parameter", (), _floats(leaf.value), _floats(cotangents.get(id(leaf))), name)
        for name, leaf in leaves.items()
    ]
    for node in tape.nodes:
        operation, _, place = node.operation.partition(" ")
        if operation in LAYOUT and id(node) not in labels:
            names[id(node)] = names.get(id(node.parents[0][0]), "data")
            continue
        names[id(node)] = name = f"{letter}{len(steps) - len(leaves) + 1}"
        inputs = tuple(dict.fromkeys(names.get(id(parent), "data") for parent, _ in node.parents))
        value, cotangent = _floats(node.value), _floats(cotangents.get(id(node)))
        steps.append(
            TraceStep(name, f"{operation}{_short(place, case)}", inputs, value, cotangent, labels.get(id(node), ""))
        )
    return steps


def _short(place: str, case: Case) -> str:
    """Return ` :39` for a line of the problem's own file, ` least_squares:33` for one that it inherits, else ""."""
    file, _, line = place.strip("()").partition(":")
    own, *inherited = [_file_of(cls).rpartition("/")[2] for cls in type(case.problem).__mro__]
    if file == own:
        return f" :{line}"
    return f" {file.removesuffix('.py')}:{line}" if file in inherited and file != "problem.py" else ""


def _file_of(cls: type) -> str:
    return str(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")


def _floats(balls: Any) -> Any:
    """Return the midpoints, without the hidden axis; NaN for what has no bounds."""
    if balls is None:
        return None
    middles = np.vectorize(lambda ball: float(ball.mid()), otypes=[np.float64])(balls)
    return middles[0] if len(middles) == 1 else middles


def _assigned(problem: Problem, tape: Tape) -> dict[int, str]:
    """Return the names that the formula gives to its steps: of each assignment to a name, the last step of its line."""
    names: dict[str, dict[int, str]] = {}
    for cls in type(problem).__mro__:
        path = _file_of(cls)
        if path and issubclass(cls, Problem) and cls is not Problem:
            names[path.rpartition("/")[2]] = _names_in("".join(linecache.getlines(path)))
    labels: dict[tuple[str, str], int] = {}
    for node in tape.nodes:
        file, _, line = node.operation.partition(" ")[2].strip("()").partition(":")
        if name := names.get(file, {}).get(int(line or 0)):
            labels[file, name] = id(node)
    return {node: name for (_, name), node in labels.items()}


def _names_in(source: str) -> dict[int, str]:
    """Return the variable that each line of a file assigns to, if it does.

    >>> _names_in("a = 1" + chr(10) + "b = (a +" + chr(10) + " 2)")
    {1: 'a', 2: 'b', 3: 'b'}
    """
    found: dict[int, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found |= dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), node.targets[0].id)
    return dict(sorted(found.items()))
