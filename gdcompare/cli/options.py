"""The options that commands share, and what they are read into."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

import gdcompare as gdc
from gdcompare import data as datasets
from gdcompare.registry import (
    backends_for,
    from_file,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _OutputFile(click.Path):
    """A file to be written, in a folder that there is: said before the work, not after it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        folder = Path(value).parent
        if not folder.is_dir():
            self.fail(f"there is no folder {str(folder)!r} to write {Path(value).name!r} to", param, ctx)
        return super().convert(value, param, ctx)


OUTPUT = _OutputFile(dir_okay=False, writable=True, allow_dash=True)

backend_option = click.option(
    "--backend", "backends", multiple=True, help="A backend, by name or file.py:Class; repeatable. Default: all."
)
dtype_option = click.option("--dtype", default="float64", show_default=True, help="float32 or float64.")
device_option = click.option("--device", help="The backends' device, such as cpu, cuda or gpu.")
json_option = click.option("--json", "json_path", type=OUTPUT, help="Also write the results as JSON ('-': stdout).")


@dataclass(frozen=True)
class Subject:
    """What every command about a problem is about."""

    problem: gdc.Problem
    data: gdc.Dataset
    backend_names: tuple[str, ...]
    dtype: str
    device: str | None
    json_path: str | None

    @cached_property
    def backends(self) -> list[gdc.Backend[Any]]:
        """Those asked for, or all that suit the problem."""
        return backends_for(self.problem, self.backend_names or None, self.dtype, self.device)


def about_a_problem(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument PROBLEM and the options that go with it, loaded and checked, as a `Subject`."""

    @click.argument("problem")
    @click.option("--data", "data_name", help="A built-in name (see `list`) or a .csv, .npz or .parquet file.")
    @click.option("--target", help="The target's column or array, for files.")
    @click.option("--weights", help="The column or array of the samples' weights, for files.")
    @click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of PROBLEM, as degree=3.")
    @click.option("--standardise", is_flag=True, help="Bring each feature to mean 0, standard deviation 1.")
    @backend_option
    @dtype_option
    @device_option
    @json_option
    @wraps(command)
    def loaded(
        problem: str,
        data_name: str | None,
        target: str | None,
        weights: str | None,
        settings: tuple[str, ...],
        standardise: bool,
        backends: tuple[str, ...],
        dtype: str,
        device: str | None,
        json_path: str | None,
        **others: Any,
    ) -> None:
        found = gdc.load_problem(problem, **_settings(settings))
        if data_name is None and (target or weights) is not None:
            raise click.UsageError(f"--{'weights' if target is None else 'target'} goes with --data FILE")
        data = datasets.example(found) if data_name is None else datasets.load(data_name, target, weights)
        data = datasets.suited(found, data)
        data = datasets.standardise(data) if standardise else data
        command(Subject(found, data, backends, dtype, device, json_path), **others)

    return loaded


at_option = click.option(
    "--at", multiple=True, metavar="NAME=V[,V...]", help="A parameter's value; all or none. Default: drawn from seed 0."
)


proven_only_option = click.option(
    "--proven-only", is_flag=True, help="Judge by the worst case of rounding alone, not where it is sampled."
)


implementation_option = click.option(
    "--implementation",
    "implementations",
    multiple=True,
    metavar="NAME=FILE.py:FUNCTION",
    help="Judge your f(params, features, targets) -> (loss, {name: gradient}), too; repeatable.",
)


def made_by(name: str) -> Any:
    """Return what stands in a file under that name; of a function, what it returns."""
    found = from_file(name)
    if found is None:
        raise click.UsageError(f"{name!r} is not of the form FILE.py:NAME")
    return found() if inspect.isfunction(found) else found


def _settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE settings; a value is a Python literal, or else a word.

    >>> _settings(["degree=3", "widths=(4, 3)", "activation=tanh"])
    {'degree': 3, 'widths': (4, 3), 'activation': 'tanh'}
    """
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise click.UsageError(f"--set {setting!r} is not of the form NAME=VALUE")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def named_functions(settings: Sequence[str]) -> dict[str, tuple[Callable[..., Any], str]]:
    """Read NAME=FILE.py:FUNCTION settings; return the functions, and where they are."""
    functions = {}
    for setting in settings:
        name, _, origin = setting.partition("=")
        function = from_file(origin)
        if not name or not callable(function):
            raise click.UsageError(f"{setting!r} is not of the form NAME=FILE.py:FUNCTION")
        functions[name] = function, origin
    return functions


def check_function(name: str) -> Callable[[Any], object]:
    """Return the function that --check names."""
    found = from_file(name)
    if not callable(found):
        raise click.UsageError(f"--check takes FILE.py:FUNCTION, not {name!r}")
    return found  # type: ignore[no-any-return]


def loaded_backends(names: Sequence[str], dtype: str, device: str | None) -> list[gdc.Backend[Any]]:
    """Return the backends of these names, or all that are installed."""
    return [gdc.load_backend(name, dtype, device) for name in names or gdc.backend_names()]


def given_parameters(settings: Sequence[str], subject: Subject) -> dict[str, NDArray[np.float64]] | None:
    """Read NAME=V or NAME=V,V,... settings, in the shapes of the problem's parameters; None if there are none."""
    from gdcompare.arithmetic.formula_check import checked_shapes

    if not settings:
        return None
    shapes = checked_shapes(subject.problem, subject.data)
    params = {}
    for setting in settings:
        name, equals, values = setting.partition("=")
        try:
            numbers = np.array([float(value) for value in values.split(",")])
        except ValueError:
            equals = ""
        if not equals:
            raise click.UsageError(f"{setting!r} is not of the form NAME=V or NAME=V,V,...")
        right_size = name in shapes and numbers.size == math.prod(shapes[name])
        params[name] = numbers.reshape(shapes[name]) if right_size else numbers
    return params
