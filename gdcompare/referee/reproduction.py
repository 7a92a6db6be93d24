"""A counterexample, and the program that shows it without the referee."""

from __future__ import annotations

import ast
import inspect
import math
import re
import sys
from abc import abstractmethod
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Protocol, final

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray

from gdcompare.backend import Backend
from gdcompare.case import Case
from gdcompare.own_files import can_be_imported
from gdcompare.problem import Dataset, Problem
from gdcompare.referee.diagnosis import CALLS_DIFFER, kind_of_failure
from gdcompare.referee.point import Implementation, Referee
from gdcompare.referee.verdict import LOSS, Entry, Report
from gdcompare.table import count
from gdcompare.words import one_line


@final
@dataclass(frozen=True, eq=False)
class Counterexample:
    """A small point, in the dtype, at which an implementation is wrong; `report` judges it there."""

    params: dict[str, NDArray[Any]]
    features: NDArray[Any]
    targets: NDArray[Any]
    dtype: str
    implementation: Implementation | Backend[Any] = field(repr=False)
    report: Report = field(repr=False)
    problem: Problem
    origin: str | None = None
    weights: NDArray[Any] | None = None

    def __repr__(self) -> str:
        size = f"{count(len(self.features), 'row')}, {count(self.features.shape[1], 'feature')}"
        return f"Counterexample({self.problem!r}: {size}, {self.dtype})"

    @property
    def data(self) -> dict[str, NDArray[Any]]:
        """What an implementation is given after the parameters, by name."""
        weights = {} if self.weights is None else {"weights": self.weights}
        return {"features": self.features, "targets": self.targets} | weights

    def script(self) -> str:
        """Return a short program that shows the failure, without the referee, and exits with 1 while it lasts.

        Its inputs are hexadecimal floats, the true value stands in it. It imports NumPy and what the implementation
        uses. A function's own source is in it where that stands alone; else it is imported. A backend writes its part
        itself if it has a `script(problem)` (see `WritesScript`); else gdcompare calls it.

        Raises ValueError if the implementation was made inside another function, where no program can find it, or if
        the repr of a problem or backend that it needs is no expression that makes it.
        """
        return _script(self)


class WritesScript(Protocol):
    """An optional capability beside the seam: a backend that can do without gdcompare in a script."""

    @abstractmethod
    def script(self, problem: Problem) -> str:
        """Return source that defines `implementation(params, features, targets)`, NumPy arrays in and out.

        If the data have weights, they are its fourth argument.
        """


def _script(found: Counterexample) -> str:
    wrong = [entry for entry in found.report.entries if entry.verdict == "wrong"]
    entry = max(wrong, key=lambda entry: (entry.worst_index is not None, entry.parameter != LOSS))
    imports, source, name = _code(found)
    place = entry.parameter + (f"[{', '.join(map(str, entry.worst_index))}]" if entry.worst_index else "")
    cause = CALLS_DIFFER if kind_of_failure(entry) == CALLS_DIFFER else " ".join(entry.cause.split())
    before, after, wrong_if = _checks(found, entry, place)
    inputs = {f"params[{key!r}]": value for key, value in found.params.items()}
    inputs |= found.data
    body = [
        f"import {np.__name__} as np",
        "",
        "number, params = float.fromhex, {}",
        *(f'{key} = np.array({_numbers(value)}, "{found.dtype}")' for key, value in inputs.items()),
        *before,
        "for _ in range(2):  # some are right only once",
        f"    loss, gradient = {name}(params, {', '.join(found.data)})",
        *(f"    {line}" for line in after),
        *(
            [f"    if {wrong_if}:", f"        sys.exit({f'{entry.implementation} is wrong: {place}'!r})"]
            if wrong_if
            else []
        ),
    ]
    return "\n".join(
        [
            f"# {one_line(f'{entry.implementation}: {place} is wrong: {cause}')}",
            f"# gdcompare {version('gdcompare')} found it for {one_line(repr(found.problem))} in {found.dtype}.",
            *sorted({*imports, "import sys"}, key=lambda line: ("__future__" not in line, line)),
            "",
            *source,
            "",
            "def reproduce():",
            *(f"    {line}".rstrip() for line in body),
            "",
            "reproduce()",
            "",
        ]
    )


def _checks(found: Counterexample, entry: Entry, place: str) -> tuple[list[str], list[str], str]:
    """Return lines to go before the call and after it, and the condition under which it is wrong, if not by raising."""
    if entry.worst_index is not None:
        what = f'loss, "{found.dtype}"' if entry.parameter == LOSS else f"gradient[{entry.parameter!r}]"
        truth, rest, allowed = map(_numbers, _allowance(found, entry.parameter, entry.worst_index))
        before = [
            f"truth, rest = {truth}, {rest}  # their sum is the true value",
            f"allowed = {allowed}  # what rounding may do to a correct program",
        ]
        after = [
            f"actual = float(np.asarray({what})[{entry.worst_index}])",
            f'print({place!r}, f"is {{actual!r}}, truly {{truth!r}}; allowed error {{allowed:.3g}}")',
        ]
        return before, after, "not abs(actual - truth - rest) <= allowed"
    if entry.cause.startswith("it raised"):
        return [], [], ""
    if entry.cause.startswith("it changed"):
        given = f"given = [*params.values(), {', '.join(found.data)}]"
        before = [given, "before = [each.copy() for each in given]"]
        return before, [], "not all(map(np.array_equal, given, before))"
    if entry.parameter == LOSS:
        return [], ['print(f"the loss has the shape {np.shape(loss)}")'], "np.shape(loss) != ()"
    kinds = {name: (found.dtype, value.shape) for name, value in found.params.items()}
    kind = "(str(np.asarray(each).dtype), np.shape(each))"
    after = [f"actual = {{name: {kind} for name, each in gradient.items()}}", 'print(f"{actual=}, {expected=}")']
    return [f"expected = {kinds}"], after, "actual != expected"


def _allowance(found: Counterexample, parameter: str, index: tuple[int, ...]) -> tuple[float, float, float]:
    """Return the true value as a sum of two floats, and how far from it the referee calls nothing wrong."""
    data = Dataset(found.features, found.targets, weights=found.weights)
    referee = Referee(Case.of(found.problem, data, found.params, found.dtype))
    truth, one = referee.truths[parameter], found.implementation
    kinds = (False, True) if callable(one) else (getattr(one, "by_hand", False),)
    budget = max(float(referee.allowances(by_hand)[parameter].budget[index]) for by_hand in kinds)
    mid = float(truth.mid[index])
    with ctx.workprec(256):
        rest = float((truth.balls[index] - arb(mid)).mid())
        left = float(abs(truth.balls[index] - arb(mid) - arb(rest)).upper())  # 0 where two floats are the truth
    return mid, rest, math.nextafter(budget + left, math.inf) if left else budget


def _numbers(values: Any) -> str:
    """Return the source of nested lists of hexadecimal floats.

    >>> _numbers(np.array([1.0, -0.1]))
    "[number('0x1p+0'), number('-0x1.999999999999ap-4')]"
    """
    if np.ndim(values):
        return f"[{', '.join(map(_numbers, values))}]"
    return f"number({re.sub('[.]?0+p', 'p', float(values).hex())!r})"


def _code(found: Counterexample) -> tuple[list[str], list[str], str]:
    """Return the lines that import what is to be called, those that define it, and its name."""
    one, problem = found.implementation, found.problem
    if callable(one):
        return _standing_alone(one) or _imported(one, found.origin)
    if writes := getattr(one, "script", None):
        return [], writes(problem).splitlines(), "implementation"
    of_problem, of_backend = _imported(type(problem)), _imported(type(one))
    call = [
        "def implementation(params, features, targets, weights=None):",
        "    data = gdcompare.Dataset(features, targets, weights=weights)",
        f"    return gdcompare.value_and_grad({_made(problem)}, data, params, {_made(one)})",
    ]
    imports = ["import gdcompare", *of_problem[0], *of_backend[0]]
    return imports, [*of_problem[1], *of_backend[1], *call], "implementation"


def _made(thing: Any) -> str:
    """Return the call that makes a problem or a backend: its repr, if that is a call of its class and nothing else."""
    words, name = repr(thing), type(thing).__qualname__
    try:
        call = ast.parse(words, mode="eval").body
    except SyntaxError:
        call = None
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != name or len(words.splitlines()) != 1:
        raise ValueError(f"a script cannot make {one_line(words)}: let its repr be a call, as a dataclass has it")
    return words


def _imported(thing: Any, origin: str | None = None) -> tuple[list[str], list[str], str]:
    """Return the same for a class or a function that can be imported, or is in a file at `origin`."""
    module, name = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", "")
    if module != "__main__" and getattr(sys.modules.get(module), name, None) is thing:
        if can_be_imported(module):
            return [f"from {module} import {name}"], [], name
        origin = f"{sys.modules[module].__file__}:{name}"  # loaded from a file that is on no path
    if origin is None:
        raise ValueError(f"a script cannot reach {name or repr(thing)!r}: define it at the top level of a file")
    path, _, name = origin.rpartition(":")
    place = f"{Path(path).resolve()}:{name}"
    return ["from gdcompare.registry import from_file"], [f"{name} = from_file({place!r})"], name


def _standing_alone(function: Any) -> tuple[list[str], list[str], str] | None:
    """Return the same from a function's own source, with all it needs of its module; None if that cannot be copied."""
    imports: set[str] = set()
    constants: list[str] = []
    sources: dict[str, str] = {}

    def copy(one: Any, name: str) -> bool:
        """Copy a plain function from the top level of its module, and what the names in it stand for."""
        if not isinstance(one, FunctionType) or one.__closure__ or one.__qualname__ != name:
            return False
        try:
            source = inspect.getsource(one)
            tree = ast.parse(source)
        except (OSError, SyntaxError):  # typed at a prompt; or a lambda
            return False
        if not isinstance(tree.body[0], ast.FunctionDef) or tree.body[0].decorator_list:
            return False
        sources[name] = source
        for node in ast.walk(tree):
            for annotation in ("annotation", "returns"):
                if getattr(node, annotation, None) is not None:
                    imports.add("from __future__ import annotations")  # and they need nothing
                    setattr(node, annotation, None)
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(one.__code__.co_varnames)
        wanted = sorted(used & one.__globals__.keys() - sources.keys())
        return all(copy_value(one.__globals__[each], each) for each in wanted)

    def copy_value(value: Any, name: str) -> bool:
        home, own = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
        if isinstance(value, ModuleType):
            if not can_be_imported(value.__name__):
                return False
            imports.add(f"import {value.__name__}" + (f" as {name}" if name != value.__name__ else ""))
        elif value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
            constants.append(f"{name} = {value!r}")
        elif home == function.__module__:
            return copy(value, name)
        elif home in sys.modules and getattr(sys.modules[home], own, None) is value and can_be_imported(home):
            imports.add(f"from {home} import {own}" + (f" as {name}" if name != own else ""))
        else:
            return False
        return True

    if not copy(function, getattr(function, "__name__", "")):
        return None
    lines = [line for source in sources.values() for line in ("", *source.rstrip().split("\n"))]
    return sorted(imports), [*constants, *lines], function.__name__
