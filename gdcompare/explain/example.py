"""An example small enough to follow with a pencil: three samples of a problem, and short decimals."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gdcompare.case import Case, DataLike
from gdcompare.data import example as example_of
from gdcompare.problem import Dataset, Problem, drawn_parameters, refuse_weights
from gdcompare.registry import as_problem

SAMPLES = 3

INTRODUCTION = (
    "The same derivative, of the loss L by a number on the way to it, has the same letter in every program. What is "
    "derived by hand for each sample has no 1/n in it, and so it is the letter times n."
)
LOSS, BY_HAND = "The loss", "Derived by hand"
FORMULAS = {LOSS: ("per_sample_losses",), BY_HAND: ("per_sample_gradients", "value_and_gradient")}


def tiny_case(
    problem: str | Problem, data: DataLike = None, params: Mapping[str, Any] | None = None, dtype: str = "float64"
) -> Case:
    """Return three samples: the first of the data, or of the problem's own with one decimal, as its parameters have.

    The errors are those of `Case.of`.

    >>> case = tiny_case("linear-regression")
    >>> case.data.features.ravel().tolist(), case.params
    ([1.0, 0.1, -0.4], {'theta_0': array(0.1), 'theta_1': array([-0.1])})
    """
    found = as_problem(problem)
    given = Case.of(found, data, params, dtype)
    refuse_weights(given.data, "explain")
    rows = given.data.rows(slice(0, SAMPLES))
    if data is None:
        small = found.example(SAMPLES)
        rows = small if small is not None and len(small) == SAMPLES else example_of(found).rows(slice(0, SAMPLES))
        rows = Dataset(np.round(rows.features, 1), np.round(rows.targets, 1), rows.name)
    return Case.of(found, rows, params, dtype, otherwise=_short)


def _short(problem: Problem, data: Dataset) -> dict[str, Any]:
    """Return drawn parameters with one decimal, none of them 0."""
    drawn = drawn_parameters(problem, data)
    return {name: np.where(np.round(value, 1) == 0, 0.1, np.round(value, 1)) for name, value in drawn.items()}


def equations(problem: Problem) -> str:
    """Return the equations that stand in the problem's docstring: what is indented there.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> print(equations(LinearRegression()))
    r_i = theta_0 + x_i . theta_1 - y_i        the residual of sample i
    l_i = r_i^2                                its loss;   L = 1/n sum l_i
    """
    blocks = (inspect.getdoc(type(problem)) or "").partition(">>>")[0].split("\n\n")
    indented = [block for block in blocks if block.startswith("    ")]
    return "\n\n".join(textwrap.dedent(block).rstrip() for block in indented)


class Source(NamedTuple):
    """A formula as it is written."""

    name: str
    file: str
    about: str
    """The first paragraph of its docstring."""
    code: str
    """Its lines, numbered as in the file, without the docstring."""


def sources(problem: Problem, *formulas: str) -> list[Source]:
    """Return formulas, and the methods that they call, where their source is known.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> (found,) = sources(LinearRegression(), "per_sample_losses")
    >>> print(found.file, found.code, sep=chr(10))
    linear_regression.py
     39  residuals = params["theta_0"] + features @ params["theta_1"] - targets  # (n,)
     40  return residuals * residuals
    """
    found: dict[str, Source] = {}
    todo = [name for name in formulas if getattr(type(problem), name, None) is not getattr(Problem, name, None)]
    while todo:
        name = todo.pop(0)
        method = getattr(type(problem), name, None)
        if name in found or not inspect.isfunction(method):
            continue
        try:
            lines, first = inspect.getsourcelines(method)
            body = _body("".join(lines))
        except (OSError, SyntaxError):
            continue
        code = "\n".join(f"{first + i:3}  {line}".rstrip() for i, line in body if line != "del xp")
        file = Path(inspect.getsourcefile(method) or "").name
        found[name] = Source(name, file, (inspect.getdoc(method) or "").partition("\n\n")[0], code)
        todo += re.findall(r"self\.(\w+)\(", code)
    return list(found.values())


def _body(source: str) -> list[tuple[int, str]]:
    """Return the lines of a function without its head and its docstring, each with its place in the source.

    >>> _body("def f(x):" + chr(10) + "    'Twice.'" + chr(10) + "    return 2 * x")
    [(2, 'return 2 * x')]
    """
    (function,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(function, ast.FunctionDef)
    body = [each for each in function.body if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))]
    if not body:
        return []
    first = body[0].lineno - 1
    return list(enumerate(textwrap.dedent("\n".join(source.splitlines()[first:])).splitlines(), start=first))
