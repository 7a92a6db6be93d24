"""Names of backends and problems, and what they stand for.

Both are found through entry points, so that whoever installs a package adds to them; reading the names imports nothing.
Only a framework that is not installed counts as unavailable. Any other error while importing a backend is a bug, and
shows itself.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import EntryPoint, EntryPoints, PackageNotFoundError, distribution, entry_points
from typing import Any

from gdcompare.backend import Backend, BackendUnavailableError, checked_dtype, checked_variant
from gdcompare.own_files import from_file, load_file, said_of_file
from gdcompare.problem import NotDerivedError, Problem
from gdcompare.words import did_you_mean

BACKENDS = "gdcompare.backends"
APPROXIMATIONS = "gdcompare.approximations"
PROBLEMS = "gdcompare.problems"


def registered_backends() -> list[str]:
    """Return the names of all registered backends, installed or not, in alphabetical order."""
    return sorted(_entry_points(BACKENDS).names)


def backend_names() -> list[str]:
    """Return the names of the backends whose framework is installed, in alphabetical order; imports none.

    >>> "numpy" in backend_names()
    True
    """
    return [name for name in registered_backends() if not _missing(_entry_point(BACKENDS, "backend", name))]


def approximation_names() -> list[str]:
    """Return the names of the backends whose gradients are approximate, in alphabetical order.

    `load_backend` finds them, too; no default includes them.
    """
    return sorted(_entry_points(APPROXIMATIONS).names)


def problem_names() -> list[str]:
    """Return the names of the registered problems, in alphabetical order.

    >>> "linear-regression" in problem_names()
    True
    """
    return sorted(_entry_points(PROBLEMS).names)


def variant_names(name: str) -> list[str]:
    """Return the names of a backend's variants, the default first; none if it has but one way.

    Raises what `backend_class` does.

    >>> variant_names("numpy")
    []
    """
    return list(getattr(backend_class(name), "variants", {}))


def load_backend(
    name: str, dtype: str = "float64", device: str | None = None, variant: str | None = None, **options: Any
) -> Backend[Any]:
    """Return a backend by its name, or from a file as `"path/to/file.py:ClassName"`.

    A variant of it is named by `variant`, one of `variant_names(name)`, or in brackets, `"name[variant]"`, as the
    backend's own name then has it. `options` go to the backend's constructor.

    Raises LookupError for an unknown name, BackendUnavailableError where the framework is missing, ValueError for a
    dtype, device or variant that it does not have.

    >>> load_backend("numpy", dtype="float32")
    NumpyBackend(dtype='float32', device=None)
    >>> load_backend("tensor")
    Traceback (most recent call last):
    ...
    LookupError: unknown backend 'tensor'; registered: ...
    """
    precision = checked_dtype(dtype)
    make = backend_class(name)
    options |= _variant(name, make, variant)
    with said_of_file(make):
        backend = make(dtype=precision, device=device, **options)
    _must_have(backend, name, "Backend", ("asarray", "to_numpy", "value_and_grad", "per_sample_grad", "scan"))
    return backend  # type: ignore[no-any-return]


def backend_maker(name: str) -> Callable[..., Any]:
    """Return what makes the backend of that name, of its variant if it names one, at a dtype or device."""
    make = backend_class(name)
    return partial(make, **options) if (options := _variant(name, make)) else make


def _variant(name: str, make: Any, variant: str | None = None) -> dict[str, str]:
    """Return the option of a backend's constructor that `name[variant]`, or the variant beside the name, asks for."""
    plain, in_name = _parted(name)
    if None not in (variant, in_name) and variant != in_name:
        raise ValueError(f"backend {name!r} names another variant than variant={variant!r}")
    asked = in_name if variant is None else variant
    if asked is None:
        return {}
    return {"variant": checked_variant(plain, getattr(make, "variants", {}), asked)}


def _parted(name: str) -> tuple[str, str | None]:
    """Return the name of a backend and of its variant, if it names one.

    >>> _parted("mine[fused]"), _parted("mine.py:Mine")
    (('mine', 'fused'), ('mine.py:Mine', None))
    """
    found = re.fullmatch(r"(.+)\[([^\[\]]*)\]", name)
    return (found[1], found[2]) if found else (name, None)


def backend_class(name: str) -> Any:
    """Return the class that a name, or `"path/to/file.py:ClassName"`, stands for; the errors are `load_backend`'s.

    >>> backend_class("numpy").name
    'numpy'
    """
    name, _ = _parted(name)
    if (found := from_file(name)) is not None:
        return found
    entry_point = _backend_entry_point(name)
    try:
        found = entry_point.load()
    except ModuleNotFoundError as error:
        missing = (error.name or "gdcompare").partition(".")[0]
        if missing.startswith("gdcompare") or importlib.util.find_spec(missing) is not None:
            raise  # a mistake in the backend
        raise BackendUnavailableError(_how_to_install(entry_point, missing)) from error
    if _process_is_ours and hasattr(found, "prepare_process"):
        found.prepare_process()
    return found


_process_is_ours = False


def own_this_process() -> None:
    """Say that this process does nothing but run the suite, as on its command line and in its benchmarks.

    Backends loaded from now on may set up their frameworks for it (`backend.PreparesProcess`). Where the suite is a
    library, a framework is as its user wants it.
    """
    global _process_is_ours
    _process_is_ours = True


def process_is_ours() -> bool:
    """Whether `own_this_process` was called."""
    return _process_is_ours


def packages_of(name: str) -> list[str]:
    """Return the packages that a registered backend needs besides the suite; none for one that has another name.

    >>> packages_of("numpy")
    []
    """
    try:
        return _wanted(_backend_entry_point(_parted(name)[0]))
    except LookupError:
        return []


def load_problem(name: str, **settings: Any) -> Problem:
    """Return a problem by its name, or from a file as `"path/to/file.py:Name"`, a class or an instance.

    The file alone is enough where there is but one problem in it.

    `settings` go to the problem's constructor. Raises LookupError for an unknown name and for what is no `Problem` or
    lacks one of its methods, FileError for a file that does not load, TypeError for a setting that it has not.

    >>> load_problem("linear-regression")
    LinearRegression()
    >>> load_problem("linear-regression", degree=3)
    Traceback (most recent call last):
    ...
    TypeError: problem 'linear-regression' has no setting 'degree'; it has: none
    """
    make = _only_problem(name) if name.endswith(".py") else from_file(name)
    if make is None:
        make = _entry_point(PROBLEMS, "problem", name).load()
    if isinstance(make, Problem) and not settings:
        return make
    if not (inspect.isroutine(make) or isinstance(make, type | partial)):
        way_out = _AS_A_MODEL if callable(make) else "name a class that inherits from Problem"
        way_out = _ELSEWHERE if hasattr(make, "posed") else way_out
        raise LookupError(f"{name!r} is no Problem, but {type(make).__name__}: {way_out}")
    known = inspect.signature(make).parameters
    if unknown := [each for each in settings if each not in known]:
        has = ", ".join(known) or "none"
        nearest = did_you_mean(unknown[0], known)
        raise TypeError(f"problem {name!r} has no setting {unknown[0]!r}; it has: {has}{nearest}")
    if needed := [each.name for each in known.values() if _must_be_given(each) and each.name not in settings]:
        if not isinstance(make, type) and not settings:
            raise LookupError(f"{name!r} is no Problem, but a function of {', '.join(needed)}: {_AS_A_MODEL}")
        raise TypeError(f"problem {name!r} needs the setting {needed[0]!r}: --set {needed[0]}=..., or a default for it")
    if lacking := sorted(getattr(make, "__abstractmethods__", ())):
        raise LookupError(f"{name!r} is no Problem yet: it lacks {', '.join(lacking)}")
    with said_of_file(make):
        problem = make(**settings)
    if not isinstance(problem, Problem):
        raise LookupError(f"{name!r} is no Problem: let {type(problem).__name__} inherit from gdcompare.Problem")
    return problem


_AS_A_MODEL = "a model as it stands is judged as from_module(model, loss) or from_function(loss, parameters)"
_ELSEWHERE = "verify and laws take a model; elsewhere it stands beside a problem"


def _must_be_given(parameter: inspect.Parameter) -> bool:
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in optional


def as_backend(backend: str | Backend[Any], dtype: str = "float64") -> Backend[Any]:
    """Return the backend itself, or the one that the name stands for."""
    return load_backend(backend, dtype) if isinstance(backend, str) else backend


def backends_for(
    problem: Problem,
    backends: Sequence[str | Backend[Any]] | None = None,
    dtype: str = "float64",
    device: str | None = None,
) -> list[Backend[Any]]:
    """Return the backends, or by default all that are installed and can do with the problem as it is.

    Raises NotDerivedError for one asked for that evaluates derivations by hand, where there is none.

    >>> from gdcompare.problems.linear_regression import LinearRegression
    >>> [backend.name for backend in backends_for(LinearRegression(), ["numpy"])]
    ['numpy']
    """
    if isinstance(backends, str):
        raise TypeError(f"backends are a list of them: [{backends!r}]")
    asked = backend_names() if backends is None else backends
    loaded = [load_backend(each, dtype, device) if isinstance(each, str) else each for each in asked]
    if problem.derived:
        return loaded
    able = [each for each in loaded if not getattr(each, "by_hand", False)]
    if backends is not None and len(able) < len(loaded):
        name = next(each.name for each in loaded if each not in able)
        others = ", ".join(each.name for each in backends_for(problem, None, dtype, device)) or "none is installed"
        raise NotDerivedError(
            f"backend {name!r} evaluates gradients derived by hand, and {type(problem).__name__} has none: write its "
            f"per_sample_gradients, or choose a backend that differentiates the loss: {others}"
        )
    return able


def refuse_nobody(problem: Problem, judged: Sequence[object], what: str = "gradient") -> None:
    """Raise NotDerivedError or ValueError if there is nobody whose gradient of the problem could be looked at."""
    if judged:
        return
    name = type(problem).__name__
    lines = "; ".join(filter(None, map(how_to_install, registered_backends()))) or "all that are registered are"
    if not problem.derived:
        raise NotDerivedError(
            f"{name} has no gradient derived by hand, and no backend that differentiates the loss is installed: write "
            f"its per_sample_gradients, or install one: {lines}"
        )
    raise ValueError(
        f"there is no {what} of {name} to judge: give implementations, name a backend, or install one: {lines}"
    )


def refuse_unnamed(implementations: object, backends: Sequence[Backend[Any]]) -> None:
    """Raise a TypeError unless implementations are functions by name, a ValueError where a name is a backend's."""
    if implementations is None:
        return
    if not isinstance(implementations, Mapping):
        given = type(implementations).__name__
        raise TypeError(f"implementations are {{name: function}}, such as {{'mine': f}}, not a {given}")
    for name, function in implementations.items():
        if not isinstance(name, str):
            raise TypeError(f"an implementation's name is text, not {name!r}")
        if not callable(function):
            raise TypeError(f"implementation {name!r} must be a function (params, features, targets), not {function!r}")
        if name in {backend.name for backend in backends}:
            raise ValueError(
                f"a backend of the name {name!r} is judged beside the implementation: give it another name"
            )


def as_problem(problem: str | Problem) -> Problem:
    """Return the problem itself, or the one that the name stands for."""
    found = load_problem(problem) if isinstance(problem, str) else problem
    if isinstance(found, type) and issubclass(found, Problem):
        raise TypeError(f"problem {found.__name__} is a class: give one of it, {found.__name__}()")
    if not isinstance(found, Problem):
        known = "give a registered name, 'file.py:Class', or one of a class that inherits from gdcompare.Problem"
        way_out = _ELSEWHERE if hasattr(found, "posed") else _AS_A_MODEL if callable(found) else known
        raise TypeError(f"a {type(found).__name__} is no Problem: {way_out}")
    try:
        hash(found)
    except TypeError:
        kind = type(found).__name__
        raise TypeError(f"problem {kind} cannot be hashed; make it a @dataclass(frozen=True)") from None
    return found


def how_to_install(name: str) -> str | None:
    """Return the line that says how to install what a registered backend lacks, or None if it lacks nothing."""
    entry_point = _backend_entry_point(_parted(name)[0])
    missing = _missing(entry_point)
    return _how_to_install(entry_point, missing[0]) if missing else None


def how_to_get_more() -> str | None:
    """Return the line that says how to install more backends where there is but one, or None."""
    lacking = [_backend_entry_point(name) for name in registered_backends() if name not in backend_names()]
    if len(backend_names()) > 1 or not lacking:
        return None
    lines = dict.fromkeys(_to_install(each, each.name) for each in lacking)
    return f"only the backend {', '.join(backend_names()) or 'none'} is installed; for more: {' or '.join(lines)}"


def _entry_points(group: str) -> EntryPoints:
    return _read_entry_points(group, tuple(sys.path))


@cache  # the metadata of every installed package takes milliseconds to read
def _read_entry_points(group: str, path: tuple[str, ...]) -> EntryPoints:
    del path  # where packages are looked for: part of the key
    return entry_points(group=group)


def _backend_entry_point(name: str) -> EntryPoint:
    approximate = _entry_points(APPROXIMATIONS)
    if name in approximate.names and name not in _entry_points(BACKENDS).names:
        return approximate[name]
    also = f"; approximations: {', '.join(approximation_names())}" if approximate else ""
    return _entry_point(BACKENDS, "backend", name, also)


def _entry_point(group: str, kind: str, name: str, also: str = "") -> EntryPoint:
    found = _entry_points(group)
    if name not in found.names:
        known = ", ".join(sorted(found.names)) or f"none (is gdcompare installed? entry points {group!r} are empty)"
        nearest = did_you_mean(name, [*found.names, *(approximation_names() if also else ())])
        raise LookupError(f"unknown {kind} {name!r}; registered: {known}{also}{nearest}")
    return found[name]


def _how_to_install(entry_point: EntryPoint, module: str) -> str:
    return f"backend {entry_point.name!r} needs {module!r}: {_to_install(entry_point, module)}"


def _to_install(entry_point: EntryPoint, module: str) -> str:
    package = entry_point.dist.name if entry_point.dist else "gdcompare"
    wanted = f"{package}[{','.join(entry_point.extras)}]" if entry_point.extras else module
    return f"pip install '{wanted}'"


def _missing(entry_point: EntryPoint) -> list[str]:
    """Return the distributions that the entry point's extras ask for and that are not installed."""
    missing = []
    for name in _wanted(entry_point):
        try:
            distribution(name)
        except PackageNotFoundError:
            missing.append(name)
    return missing


def _wanted(entry_point: EntryPoint) -> list[str]:
    """Return the distributions that the entry point's extras ask for."""
    lines = (entry_point.dist.requires or []) if entry_point.dist else []
    return [
        re.split(r"[^\w.-]", line, maxsplit=1)[0]
        for extra in entry_point.extras
        for line in lines
        if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", line)
    ]


def _only_problem(path: str) -> Any:
    module = load_file(path)
    classes = {
        name: each
        for name, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, Problem) and each.__module__ == module.__name__
    }
    instances = {name: each for name, each in vars(module).items() if isinstance(each, Problem)}
    complete = {name: each for name, each in classes.items() if not inspect.isabstract(each)} | instances
    found = complete or classes
    if not found:
        raise LookupError(f"{path!r} has no problem: write class MyProblem(gdcompare.Problem) in it")
    if len(found) > 1:
        choices = " or ".join(repr(f"{path}:{name}") for name in found)
        raise LookupError(f"{path!r} has {len(found)} problems; write {choices}")
    return next(iter(found.values()))


def _must_have(thing: object, name: str, kind: str, members: tuple[str, ...]) -> None:
    lacking = [member for member in members if not hasattr(thing, member)]
    if lacking:
        raise LookupError(f"{name!r} is no {kind}: it lacks {', '.join(lacking)}")
