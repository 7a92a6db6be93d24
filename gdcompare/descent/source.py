"""What a problem stands on, in short: two of one name and one repr may compute different things."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, final

import numpy as np

from gdcompare.problem import Problem

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")]


def source_of(problem: Problem) -> str:
    """Return the sha256, in short, of the code behind a problem: its methods, and what these use of somebody's own.

    Followed are functions, classes, constants and modules that are named in the code, what functions close over, and
    functions that the problem holds, as an `Operation` holds its formula; not installed packages, which have versions.
    Comments, docstrings and what the problem does not use do not count: a script may go on that was edited elsewhere.

    >>> import gdcompare as gdc
    >>> double, triple = (gdc.Operation(formula, x=(2,)) for formula in (lambda xp, x: 2 * x, lambda xp, x: 3 * x))
    >>> source_of(double) == source_of(gdc.Operation(lambda xp, x: 2 * x, x=(2,))) != source_of(triple)
    True
    """
    walk = _Walk()
    walk.visit(problem)
    return walk.made.hexdigest()[:16]


@final
class _Walk:
    """Writes down what it meets, each thing once."""

    def __init__(self) -> None:
        self.made = hashlib.sha256()
        self._seen: dict[int, Any] = {}  # alive, so that their ids stay theirs

    def visit(self, value: Any) -> None:
        """Write a value down, and what it stands on."""
        if isinstance(value, _PLAIN):
            self._write(repr(value))
        elif id(value) in self._seen:
            self._write("again")
        else:
            self._seen[id(value)] = value
            self._write(type(value).__qualname__)
            self._visit(value)

    def _visit(self, value: Any) -> None:
        if isinstance(value, np.ndarray | np.generic):
            self._write(f"{value.dtype} {np.shape(value)}")
            self.made.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, list | tuple):
            self._all(value)
        elif isinstance(value, set | frozenset):
            self._write(repr(sorted(map(repr, value))))
        elif isinstance(value, Mapping):
            for key, each in value.items():
                self._write(repr(key))
                self.visit(each)
        elif isinstance(value, MethodType):
            self._all((value.__func__, value.__self__))
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, property):
            self._all((value.fget, value.fset))
        elif isinstance(value, cached_property):
            self.visit(value.func)
        elif isinstance(value, type):
            self._class(value)
        elif (wrapped := getattr(value, "__wrapped__", getattr(value, "__func__", None))) is not None:
            self.visit(wrapped)  # static and class methods, and what decorators make
        elif not isinstance(value, ModuleType):
            self._object(value)

    def _function(self, function: FunctionType) -> None:
        if not _is_own(function.__code__.co_filename):
            self._write(f"{function.__module__}.{function.__qualname__}")
            return
        named = self._code(function.__code__, function.__doc__)
        self._all((function.__defaults__, function.__kwdefaults__))
        self._all([_content(cell) for cell in function.__closure__ or ()])
        for name in named:
            if name in function.__globals__:
                self._named(function.__globals__[name], named)

    def _named(self, value: Any, named: list[str]) -> None:
        """Follow a global; of a module, what is named beside it."""
        self.visit(value)
        if isinstance(value, ModuleType) and _is_own(getattr(value, "__file__", None)):
            for name in named:
                if name in vars(value):
                    self.visit(vars(value)[name])

    def _code(self, code: CodeType, doc: str | None) -> list[str]:
        """Write what the code does, and return the names in it."""
        named = list(code.co_names)
        self.made.update(code.co_code)
        self._write(repr((code.co_names, code.co_varnames, code.co_freevars)))
        for each in code.co_consts:
            if isinstance(each, CodeType):
                named += self._code(each, None)
            elif each != doc or doc is None:
                self._write(_plainly(each))
        return named

    def _class(self, kind: type) -> None:
        for base in kind.__mro__:
            self._write(f"{base.__module__}.{base.__qualname__}")
            if _is_own(_file_of(base)):
                for name, value in vars(base).items():
                    if not name.startswith("__") or isinstance(value, FunctionType):
                        self._write(name)
                        self.visit(value)

    def _object(self, value: Any) -> None:
        """Of an object its class, and the functions and objects that it holds; its numbers are in its repr."""
        kind = type(value)
        self.visit(kind)
        if kind.__module__.startswith(_PACKAGE.name) or _is_own(_file_of(kind)):
            for name, each in getattr(value, "__dict__", {}).items():
                if callable(each):
                    self._write(name)
                    self.visit(each)

    def _all(self, values: Any) -> None:
        self._write(str(len(values) if values is not None else -1))
        for each in values or ():
            self.visit(each)

    def _write(self, words: str) -> None:
        self.made.update(f"{words}\0".encode())


def _plainly(value: Any) -> str:
    """Return the repr of a constant, whose sets are in no order."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it holds nothing yet
        return None


def _file_of(kind: type) -> str | None:
    codes: Iterator[str] = (each.__code__.co_filename for each in vars(kind).values() if isinstance(each, FunctionType))
    return next(codes, None)


def _is_own(file: str | None) -> bool:
    """Whether code is somebody's own, or a problem of the library: not an installed package's, nor Python's."""
    if file is None or file.startswith("<frozen"):
        return False
    path = Path(file).resolve()
    if path.is_relative_to(_PACKAGE):
        return path.is_relative_to(_PACKAGE / "problems")
    return not any(path.is_relative_to(each) for each in _INSTALLED)
