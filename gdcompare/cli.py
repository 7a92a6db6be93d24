"""The command line: `gdcompare`, and its subcommands.

Exit codes: 0 agree, 1 wrong, 2 usage or bad input, 3 inconclusive.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

import gdcompare as gdc
from gdcompare import datasets, rules
from gdcompare.backend import checked_dtype
from gdcompare.gradients import offers
from gdcompare.problem import drawn_parameters, refuse_weights
from gdcompare.registry import (
    approximation_names,
    backends_for,
    from_file,
    how_to_install,
    refuse_nobody,
    registered_backends,
)
from gdcompare.sampling import steps_per_epoch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    from gdcompare.referee.verdict import Report

EXIT_CODES = {"agree": 0, "wrong": 1, "inconclusive": 3}
BAD_INPUT = 2


def main() -> None:
    """Run the command line; what the suite's own checks refuse becomes one line and exit code 2."""
    try:
        commands(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except (ValueError, LookupError, TypeError, ImportError, OSError) as error:
        if not _raised_by_us(error):
            raise
        click.echo(f"error: {error.args[0] if isinstance(error, LookupError) else error}", err=True)
        sys.exit(BAD_INPUT)


def _raised_by_us(error: BaseException) -> bool:
    """Whether the suite itself raised it, rather than a framework or somebody's formula, whose bug should be seen."""
    if isinstance(error, IndexError | KeyError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("gdcompare")


class _OutputFile(click.Path):
    """A file to be written, in a folder that there is: said before the work, not after it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        folder = Path(value).parent
        if not folder.is_dir():
            self.fail(f"there is no folder {str(folder)!r} to write {Path(value).name!r} to", param, ctx)
        return super().convert(value, param, ctx)


_OUTPUT = _OutputFile(dir_okay=False, writable=True, allow_dash=True)

_backend_option = click.option(
    "--backend", "backends", multiple=True, help="A backend, by name or file.py:Class; repeatable. Default: all."
)
_dtype_option = click.option("--dtype", default="float64", show_default=True, help="float32 or float64.")
_device_option = click.option("--device", help="The backends' device, such as cpu, cuda or gpu.")
_json_option = click.option("--json", "json_path", type=_OUTPUT, help="Also write the results as JSON ('-': stdout).")


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gdc.__version__, prog_name="gdcompare")
@_json_option
@click.pass_context
def commands(context: click.Context, json_path: str | None) -> None:
    """One gradient descent, several ways to differentiate it, and the proof that they agree.

    Without a command: the main job on the seed's line, 40 noisy samples. The gradient by every backend, the mean of the
    per-sample gradients, then full-batch, mini-batch and stochastic descent.
    """
    if context.invoked_subcommand is None:
        from gdcompare.report.demonstration import demonstrate

        console = _console(json_path)
        report, results = demonstrate(console)
        _write_json(json_path, results)
        sys.exit(EXIT_CODES[report.verdict])


@dataclass(frozen=True)
class _Subject:
    """What every command about a problem is about."""

    problem: gdc.Problem
    data: gdc.Dataset
    backend_names: tuple[str, ...]
    dtype: str
    device: str | None
    json_path: str | None

    @cached_property
    def backends(self) -> list[gdc.Backend[Any]]:
        return backends_for(self.problem, self.backend_names or None, self.dtype, self.device)


def _about_a_problem(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument PROBLEM and the options that go with it, loaded and checked, as a `_Subject`."""

    @click.argument("problem")
    @click.option("--data", "data_name", help="A built-in name (see `list`) or a .csv, .npz or .parquet file.")
    @click.option("--target", help="The target's column or array, for files.")
    @click.option("--weights", help="The column or array of the samples' weights, for files.")
    @click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of PROBLEM, as degree=3.")
    @click.option("--standardise", is_flag=True, help="Bring each feature to mean 0, standard deviation 1.")
    @_backend_option
    @_dtype_option
    @_device_option
    @_json_option
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
        command(_Subject(found, data, backends, dtype, device, json_path), **others)

    return loaded


_at_option = click.option(
    "--at", multiple=True, metavar="NAME=V[,V...]", help="A parameter's value; all or none. Default: drawn from seed 0."
)


@commands.command("list")
@_json_option
def list_(json_path: str | None) -> None:
    """List the backends, problems, data sets and update rules."""
    from gdcompare.report.tables import table

    console = _console(json_path)
    lacking = {name: how_to_install(name) for name in [*registered_backends(), *approximation_names()]}
    results = {
        "backends": {name: lacking[name] or "installed" for name in registered_backends()},
        "approximations": {name: lacking[name] or "installed" for name in approximation_names()},
        "problems": gdc.problem_names(),
        "data": datasets.names(),
        "rules": sorted(rules.RULES),
        "schedules": list(rules.SCHEDULES),
    }
    approximate = set(approximation_names())
    rows = [
        ("approximation" if name in approximate else "backend", name, lack or "installed")
        for name, lack in lacking.items()
    ]
    rows += [("problem", name, _about(gdc.load_problem(name))) for name in gdc.problem_names()]
    rows += [("data", name, "") for name in datasets.names()] + [
        ("data", "FILE.csv, .npz or .parquet", "with --target")
    ]
    rows += [("rule", name, "") for name in sorted(rules.RULES)]
    rows += [("schedule", name, "") for name in rules.SCHEDULES]
    console.print(table("", ["kind", "name", "note"], rows, left=3))
    _write_json(json_path, results)


def _about(problem: gdc.Problem) -> str:
    """Return what its file says first, and its settings.

    >>> _about(gdc.load_problem("polynomial-regression"))
    'Fit a polynomial by least squares. --set degree=3'
    """
    text = sys.modules[type(problem).__module__].__doc__ or type(problem).__doc__ or ""
    settings: list[str] = [each.name for each in fields(problem)] if is_dataclass(problem) else []
    return " ".join([text.partition("\n")[0], *(f"--set {name}={getattr(problem, name)}" for name in settings)])


_implementation_option = click.option(
    "--implementation",
    "implementations",
    multiple=True,
    metavar="NAME=FILE.py:FUNCTION",
    help="Judge your f(params, features, targets) -> (loss, {name: gradient}), too; repeatable.",
)


@commands.command()
@_about_a_problem
@_at_option
@_implementation_option
@click.option("--reduction", default="mean", show_default=True, help="mean or sum over the samples.")
@click.option("--atol", type=float, help="Allow this error instead of the rounding budget (see `detectable`).")
@click.option("--rtol", type=float, help="Allow this share of the truth instead of the rounding budget.")
@click.option("--certificate", type=_OUTPUT, metavar="FILE", help="Write the true gradient, for `check-certificate`.")
@click.option(
    "--counterexample",
    "script",
    type=_OUTPUT,
    metavar="FILE.py",
    help="Write a script of the smallest failure, if any.",
)
@click.option("--all-methods", "every_method", is_flag=True, help="Show what the classical checks say, side by side.")
@click.option("--fault", metavar="NAME", help="With --all-methods: plant this wrong gradient (see `mutate`).")
@click.option(
    "--derivative",
    default="gradient",
    show_default=True,
    help="Or jvp, the derivative along a direction; hvp, the Hessian times it; hessian.",
)
def verify(
    subject: _Subject,
    at: tuple[str, ...],
    implementations: tuple[str, ...],
    certificate: str | None,
    script: str | None,
    every_method: bool,
    fault: str | None,
    reduction: str,
    atol: float | None,
    rtol: float | None,
    derivative: str,
) -> None:
    """Judge every backend's gradient of PROBLEM against the proven truth, without a tolerance."""
    problem, data, dtype = subject.problem, subject.data, subject.dtype
    params, own = _parameters(at, subject), _functions(implementations)
    functions = {name: function for name, (function, _) in own.items()}
    if derivative != "gradient" and (certificate or script or every_method or fault):
        raise click.UsageError(
            "--certificate, --counterexample, --all-methods and --fault are about gradients: "
            "they go without --derivative"
        )
    if every_method or fault is not None:
        from gdcompare.report.side_by_side import side_by_side

        if certificate or script or reduction != "mean":
            raise click.UsageError("--certificate, --counterexample and --reduction go without --all-methods")
        subjects = (
            {each.name: each for each in subject.backends} | functions if fault is None else _planted(fault, problem)
        )
        verdict, results = side_by_side(_console(subject.json_path), problem, data, params, subjects, dtype)
        _write_json(subject.json_path, results)
        sys.exit(EXIT_CODES[verdict])
    if script and reduction != "mean":
        raise click.UsageError("--counterexample is about means: it goes without --reduction")
    report = gdc.verify(
        problem,
        data,
        params,
        backends=[each for each in subject.backends if subject.backend_names or offers(each, problem, derivative)],
        implementations=functions,
        dtype=dtype,
        reduction=reduction,
        atol=atol,
        rtol=rtol,
        derivative=derivative,
    )
    if certificate is not None:
        from gdcompare.referee.certificate import certify, write

        write(certify(problem, data, params), certificate)
    wrong = [entry.implementation for entry in report.entries if entry.verdict == "wrong"]
    if script is not None and wrong:
        from gdcompare.referee.counterexample import counterexample

        one = functions.get(wrong[0]) or next(each for each in subject.backends if each.name == wrong[0])
        _, origin = own.get(wrong[0], (None, None))
        smallest = counterexample(problem, one, data, params, dtype, name=wrong[0], origin=origin)
        if smallest is not None:
            Path(script).write_text(smallest.script(), encoding="utf-8")
    _finish(report, subject.json_path)


@commands.command("check-certificate")
@click.argument("file")
@_backend_option
@_implementation_option
@click.option("--problem", help="Its problem, as file.py:Class, where that is not registered here.")
@_dtype_option
@_device_option
@click.option("--recompute", is_flag=True, help="Compute the truth anew, and judge the certificate itself.")
@_json_option
def check_certificate(
    file: str,
    backends: tuple[str, ...],
    implementations: tuple[str, ...],
    problem: str | None,
    dtype: str,
    device: str | None,
    recompute: bool,
    json_path: str | None,
) -> None:
    """Judge every backend by the truth that FILE holds, written by `verify --certificate`; nothing is computed anew."""
    from gdcompare.referee.certificate import check_certificate as check

    loaded = _load_backends(backends, dtype, device) if backends or device else [] if implementations else None
    functions = {name: function for name, (function, _) in _functions(implementations).items()}
    _finish(check(file, loaded, functions, dtype, problem=problem, recompute=recompute), json_path)


@commands.command("check-backend")
@click.argument("backend")
@_json_option
def check_backend(backend: str, json_path: str | None) -> None:
    """Check that BACKEND, a name or file.py:Class, does what a backend has to do; say how to mend what it does not.

    Exit code 0 if every check holds, else 1.
    """
    from rich.console import Console
    from rich.progress import track

    from gdcompare.conformance import check_backend as check
    from gdcompare.report.tables import table

    console = _console(json_path)
    bar = partial(
        track, description=backend, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    )
    found = check(backend, watch=bar)
    console.print(table("", ["check", "outcome"], [(each.check, each.says) for each in found.outcomes], left=2))
    for each in found.outcomes:
        if each.says == "fails":
            console.print(f"{each.check}: {each.finding}\n  mend: {each.mend}", markup=False, highlight=False)
    for words in found.refused.values():
        console.print(words, markup=False, highlight=False)
    console.print(f"{found.backend}: {'conforms' if found else 'does not conform'}", markup=False, highlight=False)
    _write_json(json_path, found.to_dict())
    sys.exit(0 if found else 1)


@commands.command()
@click.argument("file", type=_OUTPUT, metavar="FILE.py")
@click.option("--force", is_flag=True, help="Overwrite FILE.py.")
def new(file: str, force: bool) -> None:
    """Write a problem of your own to FILE.py: a commented starting point that runs as it is."""
    from gdcompare.scaffold import write_problem

    name = write_problem(file, force)
    click.echo(f"{file} holds {name}, a Poisson regression. Make it yours, and then:")
    for command, what in {
        "verify": "is the gradient right?",
        "laws": "are those of samples and batches?",
        "descend": "does it descend alike on every backend?",
    }.items():
        click.echo(f"  gdcompare {f'{command} {file}':<32} {what}")
    click.echo("Your own data go with --data FILE.csv --target COLUMN.")


@commands.command()
@click.argument("topic", type=click.Choice(["methods", "kinks"]))
@_backend_option
@_dtype_option
@_device_option
@_json_option
def explain(topic: str, backends: tuple[str, ...], dtype: str, device: str | None, json_path: str | None) -> None:
    """Explain the classical checks of a gradient, or the conventions of the backends where a loss bends."""
    from gdcompare.referee.classical import METHODS
    from gdcompare.referee.conventions import conventions, what_each_gives
    from gdcompare.report.tables import table

    console = _console(json_path)
    if topic == "methods":
        texts = {name: inspect.getdoc(check) or "" for name, check in METHODS.items()}
        for name, text in texts.items():
            console.print(f"{name}\n{textwrap.indent(text, '  ')}\n", markup=False, soft_wrap=True)
        _write_json(json_path, texts)
        return
    given = conventions(_load_backends(backends, dtype, device), dtype)
    columns, rows = what_each_gives(given)
    console.print(table("", columns, rows, left=2))
    console.print("right: the hull of the one-sided derivatives, element by element; ?: not known to be right or wrong")
    _write_json(json_path, {"conventions": [asdict(each) for each in given]})


@commands.command()
@_about_a_problem
@_at_option
def laws(
    subject: _Subject,
    at: tuple[str, ...],
) -> None:
    """Check the batch laws of PROBLEM: the mean of the per-sample gradients is the gradient, and what follows."""
    refuse_nobody(subject.problem, subject.backends)
    params = _parameters(at, subject)
    reports = [gdc.check_batch_laws(subject.problem, subject.data, params, each) for each in subject.backends]
    _finish(gdc.Report.merged(reports), subject.json_path)


@commands.command()
@_about_a_problem
@click.option("--rule", default="sgd", show_default=True, help="sgd, momentum, nesterov or adam.")
@click.option("--learning-rate", type=float, default=0.01, show_default=True)
@click.option("--schedule", default="constant", show_default=True, help="constant, inverse-time or cosine.")
@click.option("--batch-size", type=int, help="Rows a step; 1 is stochastic. Default: the full batch.")
@click.option("--epochs", type=int, default=100, show_default=True, help="Passes over the data.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of the rows.")
@click.option(
    "--start",
    multiple=True,
    metavar="NAME=V[,V...]",
    help="Where to start. Default: the problem's choice.",
)
@click.option("--target-loss", type=float, help="Stop at this loss, averaged over an epoch.")
@click.option("--gradient-norm", type=float, help="Stop at this norm of the gradient.")
@click.option("--loss-change", type=float, help="Stop when the loss falls no faster for --patience epochs.")
@click.option("--patience", type=int, default=5, show_default=True)
@click.option("--history-every", type=int, default=1, show_default=True, help="Keep every k-th step in the JSON.")
def descend(
    subject: _Subject,
    rule: str,
    learning_rate: float,
    schedule: str,
    start: tuple[str, ...],
    **settings: Any,
) -> None:
    """Minimise PROBLEM by gradient descent on every backend, and show how far apart their paths ever are."""
    from gdcompare.report.demonstration import descents

    refuse_nobody(subject.problem, subject.backends)
    name, data = type(subject.problem).__name__, subject.data
    steps = settings["epochs"] * steps_per_epoch(len(data), settings["batch_size"])
    chosen = rules.load(rule, rules.load_schedule(schedule, learning_rate, steps))
    title = f"{name} on {data.name}: {rule}, {_pace(settings['batch_size'])}"
    how = {"rule": chosen, "start": _parameters(start, subject), **settings}
    results = descents(_console(subject.json_path), title, subject.problem, data, subject.backends, **how)
    stated = {"problem": name, "data": data.name, "rule": rule, "dtype": subject.dtype}
    _write_json(subject.json_path, stated | results)


@commands.command()
@_about_a_problem
@_at_option
@click.option("--check", metavar="FILE.py:FUNCTION", help="Your check, called with each implementation. Default: ours.")
def mutate(
    subject: _Subject,
    at: tuple[str, ...],
    check: str | None,
) -> None:
    """Plant wrong gradients in PROBLEM's own formula, and count those that a check misses.

    FUNCTION takes an implementation, f(params, features, targets) -> (loss, {name: gradient}), and says that it is
    wrong by raising or by returning False. Exit code 1 if any planted fault survives.
    """
    from gdcompare.faults import by_hand
    from gdcompare.faults import mutate as plant
    from gdcompare.referee.verify import Referee
    from gdcompare.report.tables import table

    if subject.backend_names or subject.device:
        raise click.UsageError(
            "mutate plants its faults in the hand-derived formula: it takes no --backend or --device"
        )
    problem, data, dtype = subject.problem, subject.data, checked_dtype(subject.dtype)
    refuse_weights(data, "mutate")
    params = _parameters(at, subject) or drawn_parameters(problem, data)
    own = None if check is None else _check_function(check)

    def referee(implementation: Any) -> bool:
        return bool(gdc.verify(problem, data, params, backends=[], implementations={"": implementation}, dtype=dtype))

    score = plant(own or referee, by_hand(problem), *Referee(problem, data, params, dtype).point)
    outcomes = {"killed": score.killed, "survived": score.survived, "changes nothing here": score.equivalent}
    console = _console(subject.json_path)
    console.print(
        table("", ["fault", "outcome"], [(name, key) for key, names in outcomes.items() for name in names], left=2)
    )
    planted = len(score.killed) + len(score.survived)
    console.print(f"mutation score {score.score:.0%}: {len(score.killed)} of {planted} planted faults were noticed")
    _write_json(subject.json_path, {"score": score.score, **outcomes})
    sys.exit(1 if score.survived else 0)


@commands.command()
@click.argument("models", nargs=-1, required=True, metavar="FILE.py:ONE FILE.py:OTHER ...")
@click.option("--data", "data_name", help="A built-in name, a .csv, .npz or .parquet file, or FILE.py:NAME.")
@click.option("--target", help="The target's column or array, for files.")
@click.option("--layers", metavar="FILE.py:NAME", help="Which layers correspond, as for `gdcompare.compare`.")
@click.option("--steps", type=int, help="Go through so many steps of a training, too.")
@click.option("--rule", default="sgd", show_default=True, help="sgd, momentum, nesterov or adam.")
@click.option("--learning-rate", type=float, default=0.01, show_default=True)
@click.option("--batch-size", type=int, help="Rows a step. Default: the full batch.")
@click.option("--resync/--drift", default=True, show_default=True, help="Begin each step at ONE's parameters, or not.")
@_dtype_option
@_json_option
def compare(
    models: tuple[str, ...],
    data_name: str | None,
    target: str | None,
    layers: str | None,
    steps: int | None,
    rule: str,
    learning_rate: float,
    batch_size: int | None,
    resync: bool,
    dtype: str,
    json_path: str | None,
) -> None:
    """Compare native models, ONE being the source of values: losses, gradients, layers, and the steps of a training.

    Each is a native model in a file, made by from_module, from_function or from_functions, or a function that returns
    one. Without --data they run on the noisy line.
    """
    from gdcompare.report.tables import comparisons
    from gdcompare.report.tables import layers as layer_table

    found = [_called(name) for name in models]
    if data_name is not None and ".py:" in data_name:
        data = _called(data_name)
    else:
        data = datasets.noisy_line() if data_name is None else datasets.load(data_name, target)
    report = gdc.compare(found, data, layers=None if layers is None else from_file(layers), dtype=dtype)
    console = _console(json_path)
    console.print(f"{report.context['problem']} on {report.context['data']}: n = {report.context['n']}, {dtype}")
    console.print(comparisons(report.entries))
    if report.layers:
        console.print(layer_table(report.layers))
    console.print(report.explanation(), markup=False, soft_wrap=True)
    reports: list[gdc.Report] = [report]
    results = report.to_dict()
    if steps is not None:
        chosen = rules.load(rule, learning_rate)
        training = gdc.compare_training(found, data, steps, chosen, batch_size, resync, dtype=dtype)
        console.print(comparisons(training.entries))
        console.print(training.explanation(), markup=False, soft_wrap=True)
        reports.append(training)
        results |= {"training": training.to_dict()}
    _write_json(json_path, results)
    sys.exit(EXIT_CODES[gdc.Report.merged(reports).verdict])


def _called(name: str) -> Any:
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


def _planted(fault: str, problem: gdc.Problem) -> dict[str, Any]:
    from gdcompare.faults import FAULTS, by_hand

    if fault not in FAULTS:
        raise click.UsageError(f"unknown fault {fault!r}; known: {', '.join(FAULTS)}")
    return {f"planted: {fault}": FAULTS[fault](by_hand(problem))}


def _functions(settings: Sequence[str]) -> dict[str, tuple[Callable[..., Any], str]]:
    """Read NAME=FILE.py:FUNCTION settings; return the functions, and where they are."""
    functions = {}
    for setting in settings:
        name, _, origin = setting.partition("=")
        function = from_file(origin)
        if not name or not callable(function):
            raise click.UsageError(f"{setting!r} is not of the form NAME=FILE.py:FUNCTION")
        functions[name] = function, origin
    return functions


def _check_function(name: str) -> Callable[[Any], object]:
    found = from_file(name)
    if not callable(found):
        raise click.UsageError(f"--check takes FILE.py:FUNCTION, not {name!r}")
    return found  # type: ignore[no-any-return]


def _pace(batch_size: int | None) -> str:
    return {None: "full batch", 1: "stochastic"}.get(batch_size, f"mini-batches of {batch_size}")


def _load_backends(names: Sequence[str], dtype: str, device: str | None) -> list[gdc.Backend[Any]]:
    return [gdc.load_backend(name, dtype, device) for name in names or gdc.backend_names()]


def _parameters(settings: Sequence[str], subject: _Subject) -> dict[str, NDArray[np.float64]] | None:
    """Read NAME=V or NAME=V,V,... settings, in the shapes of the problem's parameters; None if there are none."""
    from gdcompare.formula_check import checked_shapes

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


def _finish(report: Report, json_path: str | None) -> None:
    """Show the report, write it, and exit with its verdict."""
    from gdcompare.report.tables import causes, verdicts

    console = _console(json_path)
    context: Mapping[str, Any] = report.context
    sizes = f"n = {context['n']}, d = {context['d']}{', weighted' if context.get('weighted') else ''}"
    reduction = ", the sum over the samples" if context.get("reduction") == "sum" else ""
    what = f", {context['derivative']}" if context.get("derivative", "gradient") != "gradient" else ""
    head = f"{context['problem']} on {context['data']}: {sizes}, {context['dtype']}{reduction}{what}"
    console.print(head, highlight=False)
    console.print(verdicts(report))
    for line in causes(report):
        console.print(line, highlight=False)
    console.print(report.explanation() if report else f"verdict: {report.verdict}", highlight=False)
    _write_json(json_path, report.to_dict())
    sys.exit(EXIT_CODES[report.verdict])


def _console(json_path: str | None) -> Console:
    """Return where tables go: stdout, or stderr when stdout carries the JSON."""
    from rich.console import Console

    return Console(stderr=json_path == "-", highlight=False)


def _write_json(path: str | None, results: Mapping[str, Any]) -> None:
    from gdcompare.referee.verdict import plain

    if path is None:
        return
    text = json.dumps(plain(results), indent=2, allow_nan=False) + "\n"
    if path == "-":
        click.echo(text, nl=False)
    else:
        Path(path).write_text(text, encoding="utf-8")
