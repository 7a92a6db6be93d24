"""The options that commands share, and what they are read into."""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

import gdcompare as gdc
import gdcompare.cli.completing as completing
from gdcompare import data as datasets
from gdcompare.cli.output import keep_stdout_for_json
from gdcompare.data.blocks import ROWS, Blocks
from gdcompare.own_files import from_file
from gdcompare.registry import backends_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gdcompare.case import Posed


class _OutputFile(click.Path):
    """A file to be written, in a folder that there is: said before the work, not after it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-" and self.allow_dash:
            return value
        if value in ("", "-"):
            self.fail(f"{value!r} names no file to write to", param, ctx)
        path = Path(value)
        try:
            if not path.parent.is_dir():
                self.fail(f"there is no folder {str(path.parent)!r} to write {path.name!r} to", param, ctx)
            if not path.exists() and not os.access(path.parent, os.W_OK):
                self.fail(f"nothing may be written to the folder {str(path.parent)!r}", param, ctx)
            written = _outputs(ctx)
            other = written.setdefault(os.path.realpath(path), param)
            if other is not param and (path.is_file() or not path.exists()):
                self.fail(f"{value!r} is written to by another option, too", param, ctx)
        except OSError as error:
            self.fail(f"{value!r} cannot be written to: {error.strerror}", param, ctx)
        return super().convert(value, param, ctx)


class _PictureFile(_OutputFile):
    """A picture to be written, in a format that there is, by a library that is there."""

    def __init__(self, moving: bool) -> None:
        super().__init__(dir_okay=False, writable=True)
        self.moving = moving

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from gdcompare.report.look import FORMATS, MOVING, checked_format

        found = super().convert(value, param, ctx)
        try:
            checked_format(found, FORMATS + MOVING if self.moving else FORMATS)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return found


class _PageFile(_OutputFile):
    """A page to be written, under an ending by which a browser knows it; a device, such as /dev/stdout, has none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        path = Path(found)
        if path.suffix.lower() not in (".html", ".htm") and (path.is_file() or not path.exists()):
            self.fail(f"{value!r} is no .html or .htm file", param, ctx)
        return found


def _outputs(context: click.Context | None) -> dict[str, click.Parameter | None]:
    """Return the files that the command line names to be written."""
    found: dict[str, click.Parameter | None] = {} if context is None else context.meta.setdefault(__name__, {})
    return found


def refuse_overwriting() -> None:
    """Raise a UsageError if a file to be written is one that another argument says to read."""
    context = click.get_current_context()
    written = _outputs(context)
    for parameter in context.command.params:
        given = context.params.get(parameter.name or "")
        for each in given if isinstance(given, tuple) else [given]:
            if not isinstance(each, str) or parameter in written.values():
                continue
            for path in _files_in(each):
                if os.path.realpath(path) in written and Path(path).is_file():
                    raise click.UsageError(f"{path!r} is read here; write the results to another file")


def _files_in(argument: str) -> Iterator[str]:
    """Yield what may be a file in an argument.

    >>> list(_files_in("mine=a.py:f"))
    ['mine=a.py:f', 'mine=a.py', 'a.py:f', 'a.py']
    """
    for each in (argument, argument.partition("=")[2]):
        yield from (path for path in (each, each.rpartition(":")[0]) if path)


def _writes_json(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    del parameter
    if path == "-":
        keep_stdout_for_json(context)
    return path


class _Share(click.ParamType[float]):
    """A share, written 2% or 0.02."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        number, percent, rest = str(value).partition("%")
        try:
            share = float(number) / (100 if percent else 1)
        except ValueError:
            share = math.nan
        if rest or not 0 < share < math.inf:
            self.fail(f"{value!r} is no share above 0, such as 5% or 0.05", param, ctx)
        return share


class _Sizes(click.ParamType[tuple[int, ...]]):
    """Whole numbers of rows, with commas between, as 40,1e3."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        found = []
        for each in str(value).split(","):
            try:
                number = float(each)
            except ValueError:
                number = math.nan
            if not (number >= 1 and number == math.floor(number) and number < math.inf):
                self.fail(f"{each!r} is no number of rows; write as 40,1e3,1e5", param, ctx)
            found.append(int(number))
        return tuple(dict.fromkeys(found))


SHARE, SIZES = _Share(), _Sizes()
OUTPUT = _OutputFile(dir_okay=False, writable=True)
PAGE = _PageFile(dir_okay=False, writable=True)
_OUTPUT_OR_STDOUT = _OutputFile(dir_okay=False, writable=True, allow_dash=True)

backend_option = click.option(
    "--backend",
    "backends",
    multiple=True,
    shell_complete=completing.backends,
    help="A backend, by name or file.py:Class; repeatable. Default: all.",
)
dtype_option = click.option(
    "--dtype", default="float64", show_default=True, shell_complete=completing.dtypes, help="float32 or float64."
)
device_option = click.option("--device", help="The backends' device, such as cpu, cuda or gpu.")
json_option = click.option(
    "--json",
    "json_path",
    type=_OUTPUT_OR_STDOUT,
    callback=_writes_json,
    help="Also write the results as JSON ('-': stdout).",
)


def plot_option(what: str, moving: bool = False) -> Callable[[Any], Any]:
    """Return the option --plot of a command that draws that, as a still picture or also as a film."""
    more = ", or as a film to .gif or .mp4" if moving else ""
    words = f"Draw {what} to a .svg, .png or .pdf file{more}."
    return click.option("--plot", "plot", type=_PictureFile(moving), metavar="FILE", help=words)


TAKE_MODELS = {"verify", "laws"}
"""Commands that also take a model as it stands, which poses its own problem."""


def _named_in_a_file(problem: str) -> Any:
    return from_file(problem) if ".py:" in problem else None


@dataclass(frozen=True)
class Subject:
    """What every command about a problem is about."""

    problem: gdc.Problem
    data: gdc.Dataset
    backend_names: tuple[str, ...]
    dtype: str
    device: str | None
    json_path: str | None
    has_data: bool = True
    """Whether the data were asked for, rather than the problem's own."""
    posed: Posed | None = None
    """What posed the problem, if a model did."""
    blocks: Blocks | None = None
    """All rows, where they are read in blocks; `data` are then the first."""

    @property
    def rows(self) -> gdc.Dataset | Blocks:
        """All rows."""
        return self.data if self.blocks is None else self.blocks

    @cached_property
    def backends(self) -> list[gdc.Backend[Any]]:
        """Those asked for, or all that suit the problem; a model's program is judged by the model."""
        if self.posed is not None and not self.backend_names:
            return []
        return backends_for(self.problem, self.backend_names or None, self.dtype, self.device)


block_rows_option = click.option(
    "--block-rows",
    type=int,
    help="Read the rows in blocks of so many, which need not fit the memory. "
    f"Default: {ROWS} for .npy files and folders, and where processes share the rows.",
)


def in_blocks(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command about a problem the options that say how rows are read in blocks, and by how many processes."""
    return block_rows_option(shared_among_workers("rows")(command))


def shared_among_workers(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what gives a command the options --workers and --scheduler, which share that."""

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option(
                "--scheduler", metavar="ADDRESS", help="Or among those of a Dask cluster, as tcp://host:8786."
            ),
            click.option(
                "--workers", type=int, help=f"Share the {what} among so many processes of this machine (Dask)."
            ),
        ):
            command = option(command)
        return command

    return with_options


def about_a_problem(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument PROBLEM and the options that go with it, loaded and checked, as a `Subject`."""
    return about_a_formula(backend_option(device_option(command)))


def about_a_formula(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the same without the choice of backends: it is about what the problem itself computes."""

    @click.argument("problem", shell_complete=completing.problems)
    @click.option(
        "--data",
        "data_name",
        shell_complete=completing.data,
        help="A name (see `list`), a .csv, .npz or .parquet file, or FILE.py:NAME.",
    )
    @click.option("--target", help="The target's column or array, for files.")
    @click.option("--weights", help="The column or array of the samples' weights, for files.")
    @click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of PROBLEM, as degree=3.")
    @click.option("--standardise", is_flag=True, help="Bring each feature to mean 0, standard deviation 1.")
    @dtype_option
    @json_option
    @wraps(command)
    def loaded(
        problem: str,
        data_name: str | None,
        target: str | None,
        weights: str | None,
        settings: tuple[str, ...],
        standardise: bool,
        dtype: str,
        json_path: str | None,
        backends: tuple[str, ...] = (),
        device: str | None = None,
        **others: Any,
    ) -> None:
        from gdcompare.case import Poses, blocks_for, data_as_they_are, data_for

        refuse_overwriting()
        refuse_twice("--backend", backends)
        takes_blocks, size = "block_rows" in others, others.pop("block_rows", None)
        shared = others.get("workers") is not None or others.get("scheduler") is not None
        if command.__name__ in TAKE_MODELS and isinstance(model := _named_in_a_file(problem), Poses):
            if settings or standardise:
                raise click.UsageError("--set and --standardise go with a problem, not with a model")
            if size is not None or shared:
                raise click.UsageError("--block-rows, --workers and --scheduler go with a problem, not with a model")
            given = None if data_name is None else data_as_they_are(data_name, target, weights)
            posed = model.posed(given, None, dtype)
            about = Subject(posed.problem, posed.data, backends, dtype, device, json_path, True, posed)
            command(about, **others)
            return
        found = gdc.load_problem(problem, **settings_of(settings))
        if data_name is None and (target or weights) is not None:
            raise click.UsageError(f"--{'weights' if target is None else 'target'} goes with --data FILE")
        if takes_blocks and (size is not None or shared or datasets.comes_in_blocks(data_name)):
            if standardise:
                raise click.UsageError("--standardise goes with rows that fit the memory, not with blocks of them")
            blocks = blocks_for(found, data_name, target, weights, size)
            about = Subject(
                found, blocks.first, backends, dtype, device, json_path, data_name is not None, None, blocks
            )
            command(about, **others)
            return
        data = data_for(found, data_name, target, weights)
        data = datasets.standardise(data) if standardise else data
        command(Subject(found, data, backends, dtype, device, json_path, data_name is not None), **others)

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


per_sample_option = click.option(
    "--per-sample",
    "per_sample",
    multiple=True,
    metavar="NAME=FILE.py:FUNCTION",
    help="The per-sample gradients of that --implementation: your f(params, features, targets) -> {name: (n, *shape)}.",
)


def refuse_twice(option: str, names: Sequence[str]) -> None:
    """Raise a UsageError if a name is given twice: the last would win unseen."""
    for index, name in enumerate(names):
        if name in names[:index]:
            raise click.UsageError(f"{option} {name} is given twice")


def settings_of(settings: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE settings; a value is a Python literal, or else a word.

    >>> settings_of(["degree=3", "widths=(4, 3)", "activation=tanh"])
    {'degree': 3, 'widths': (4, 3), 'activation': 'tanh'}
    """
    found = {}
    refuse_twice("--set", [setting.partition("=")[0] for setting in settings])
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise click.UsageError(f"--set {setting!r} is not of the form NAME=VALUE")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            found[name] = value
    return found


def named_functions(
    settings: Sequence[str], option: str = "--implementation"
) -> dict[str, tuple[Callable[..., Any], str]]:
    """Read NAME=FILE.py:FUNCTION settings; return the functions, and where they are."""
    functions = {}
    refuse_twice(option, [setting.partition("=")[0] for setting in settings])
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
    refuse_twice("--backend", names)
    return [gdc.load_backend(name, dtype, device) for name in names or gdc.backend_names()]


def given_parameters(settings: Sequence[str], subject: Subject) -> dict[str, NDArray[np.float64]] | None:
    """Read NAME=V or NAME=V,V,... settings, in the shapes of the problem's parameters; None if there are none."""
    from gdcompare.arithmetic.formula_check import checked_shapes

    if not settings:
        return None
    shapes = checked_shapes(subject.problem, subject.data)
    params = {}
    refuse_twice("a value of", [setting.partition("=")[0] for setting in settings])
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
