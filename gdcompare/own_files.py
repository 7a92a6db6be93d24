"""Python files of somebody's own: loaded once, what is in them by name, and what they raise said with its line."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from gdcompare.backend import BackendUnavailableError


class FileError(ValueError):
    """A file of yours does not load, said with its line; what it raised is the `__cause__`."""


def from_file(name: str) -> Any:
    """Return the class or function that `path/to/file.py:Name` names, or None if the name has no such form.

    Raises LookupError if there is no such file, or nothing of that name in it, and FileError if it does not load.
    """
    path, separator, class_name = name.rpartition(":")
    if not separator or not path.endswith(".py"):
        if name.endswith(".py"):
            raise LookupError(f"{name!r} names a file but nothing in it; write {name + ':Name'!r}")
        return None
    module = load_file(path)
    if not hasattr(module, class_name):
        own = [key for key, value in vars(module).items() if not key.startswith("_") and _is_own(value, module)]
        raise LookupError(f"{path!r} has no {class_name!r}; it has: {', '.join(sorted(own)) or 'nothing of its own'}")
    return getattr(module, class_name)


def made_by(name: str) -> Any:
    """Return what `path/to/file.py:name` names; of a function, what it returns. The errors are `from_file`'s."""
    found = from_file(name)
    if found is None:
        raise LookupError(f"{name!r} is not of the form FILE.py:NAME")
    if not inspect.isfunction(found):
        return found
    with said_of_file(found):
        return found()


def _is_own(value: object, module: ModuleType) -> bool:
    """Whether it was made in that file: a class or function of its own, or an instance."""
    if isinstance(value, type | FunctionType):
        return value.__module__ == module.__name__
    return not isinstance(value, ModuleType | BuiltinFunctionType | type(annotations))


def load_file(written: str) -> ModuleType:
    """Load a file once: a second load would make classes that are not equal to the first ones."""
    if not Path(written).is_file():
        raise LookupError(f"there is no file {written!r}")
    path = Path(written).resolve()
    name = _OURS + re.sub(r"\W", "_", str(path))
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        _look_beside(path.parent)
        sys.modules[name] = module  # dataclasses look their module up by name
        try:
            with said_of_file(module):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


_OURS = "user_file_"
_SUITE = __name__.partition(".")[0]
_folders: list[str] = []
"""Where files were loaded from: what lies beside them can be imported, after what is installed."""


def _look_beside(folder: Path) -> None:
    """Let a file import what lies beside it, and not what lies beside another file under the same name."""
    for name, module in list(sys.modules.items()):
        home = str(Path(getattr(module, "__file__", None) or ".").parent)
        if name.startswith(_OURS) or "." in name or home == str(folder) or home not in _folders:
            continue
        if (folder / f"{name}.py").is_file() or (folder / name).is_dir():
            del sys.modules[name]
    sys.path[:] = [each for each in sys.path if each not in _folders]
    _folders[:] = [str(folder), *(each for each in _folders if each != str(folder))]
    sys.path += [each for each in _folders if each not in sys.path]


def can_be_imported(module: str) -> bool:
    """Whether any program here can import it, not only one that has loaded a file beside it.

    >>> can_be_imported("json"), can_be_imported("no_such_module")
    (True, False)
    """
    root = module.partition(".")[0]
    installed = [each for each in sys.path if each not in _folders]
    return root in sys.builtin_module_names or PathFinder.find_spec(root, installed) is not None


@contextmanager
def said_of_file(thing: Any) -> Iterator[None]:
    """Say what a file, or a class or function of it, raises, with its place; what others raise stays as it is."""
    module = thing if isinstance(thing, ModuleType) else sys.modules.get(getattr(thing, "__module__", ""))
    if module is None or not module.__name__.startswith(_OURS) or module.__file__ is None:
        yield
        return
    path = Path(module.__file__)
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, FileError | BackendUnavailableError):
            raise
        raise FileError(_where_it_failed(path, error)) from error


def _where_it_failed(path: Path, error: BaseException) -> str:
    """Return the place in the file, the error, and the line."""
    if isinstance(error, SyntaxError) and error.filename:
        place, line, what = f"{shown_path(error.filename)}:{error.lineno}", error.text, error.msg
    else:
        here = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path)]
        place, line, what = shown_path(path), None, str(error)
        if here:
            place, line = f"{place}:{here[-1].lineno}", here[-1].line
    kind = "it calls sys.exit" if isinstance(error, SystemExit) else type(error).__name__
    return f"{place}: {kind}: {what}" + (f"\n    {line.strip()}" if line else "")


def is_installed(file: str | Path) -> bool:
    """Whether a file is Python's or that of an installed package, and so not somebody's own."""
    return any(Path(file).resolve().is_relative_to(each) for each in _installed())


@cache
def _installed() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(each)).resolve() for each in ("stdlib", "purelib", "platlib"))


def shown_path(path: str | Path) -> str:
    """Return a path as a user would type it: relative to where they are, if it lies there.

    >>> shown_path(Path.cwd() / "mine.py")
    'mine.py'
    """
    here = Path.cwd()
    return str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path)


def is_own(module: str) -> bool:
    """Whether a module, by its name, was loaded from a file of somebody's own, or lies beside one and was imported.

    >>> is_own("json")
    False
    """
    if module.startswith(_OURS):
        return True
    root = module.partition(".")[0]
    file = getattr(sys.modules.get(root), "__dict__", {}).get("__file__")
    if file is None or not _folders or root.startswith(_SUITE):
        return False
    path = Path(file)
    home = path.parent.parent if path.name == "__init__.py" else path.parent
    return str(home) in _folders and not is_installed(file)
