"""Commands that judge gradients: `verify`, `laws`, `mutate`, `check-certificate`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import click
import numpy as np

import gdcompare as gdc
import gdcompare.cli.completing as completing
from gdcompare.backend import checked_dtype
from gdcompare.cli.options import (
    OUTPUT,
    Subject,
    about_a_formula,
    about_a_problem,
    at_option,
    backend_option,
    check_function,
    device_option,
    dtype_option,
    given_parameters,
    implementation_option,
    in_blocks,
    json_option,
    loaded_backends,
    named_functions,
    per_sample_option,
    plot_option,
    proven_only_option,
    refuse_overwriting,
)
from gdcompare.cli.output import EXIT_CODES, console_for, finish, leave, note, raised, show, write_json
from gdcompare.problem import drawn_parameters, refuse_weights
from gdcompare.registry import refuse_nobody
from gdcompare.words import did_you_mean
from gdcompare.writing import write_text

_MOST_NUMBERS = 20_000_000
"""Of more per-sample gradients than this, none are drawn."""


@click.command()
@about_a_problem
@in_blocks
@at_option
@implementation_option
@click.option(
    "--reduction",
    default="mean",
    show_default=True,
    shell_complete=completing.reductions,
    help="mean or sum over the samples.",
)
@click.option("--atol", type=float, help="Allow this error instead of the rounding budget (see `detectable`).")
@click.option("--rtol", type=float, help="Allow this share of the truth instead of the rounding budget.")
@proven_only_option
@click.option("--certificate", type=OUTPUT, metavar="FILE", help="Write the true gradient, for `check-certificate`.")
@click.option(
    "--counterexample",
    "script",
    type=OUTPUT,
    metavar="FILE.py",
    help="Write a script of the smallest failure, if any.",
)
@click.option("--all-methods", "every_method", is_flag=True, help="Show what the classical checks say, side by side.")
@click.option("--fault", metavar="NAME", help="With --all-methods: plant this wrong gradient (see `mutate`).")
@click.option(
    "--derivative",
    default="gradient",
    show_default=True,
    shell_complete=completing.derivatives,
    help="Or jvp, the derivative along a direction; hvp, the Hessian times it; hessian.",
)
@click.option("--digits", is_flag=True, help="Show how many digits are right, and how many the inputs allow.")
@plot_option("who agrees, the share of the budget and the digits")
def verify(
    subject: Subject,
    at: tuple[str, ...],
    implementations: tuple[str, ...],
    certificate: str | None,
    script: str | None,
    every_method: bool,
    fault: str | None,
    reduction: str,
    atol: float | None,
    rtol: float | None,
    proven_only: bool,
    derivative: str,
    digits: bool,
    plot: str | None,
    workers: int | None,
    scheduler: str | None,
) -> None:
    """Judge every backend's gradient of PROBLEM against the proven truth, without a tolerance."""
    from gdcompare.gradients import offers

    problem, data, dtype = subject.problem, subject.data, subject.dtype
    params, own = given_parameters(at, subject), named_functions(implementations)
    functions = {name: function for name, (function, _) in own.items()}
    if subject.posed is not None:
        params, functions = params or subject.posed.params, subject.posed.implementations(functions)
        if certificate or script or every_method or fault is not None:
            raise click.UsageError(
                "--certificate, --counterexample, --all-methods and --fault go with a problem, not with a model"
            )
    if subject.blocks is not None and (certificate or script or every_method or fault is not None or digits):
        raise click.UsageError(
            "--certificate, --counterexample, --all-methods, --fault and --digits go with rows that fit the memory, "
            "not with blocks of them"
        )
    if derivative != "gradient" and (certificate or script or every_method or fault or digits):
        raise click.UsageError(
            "--certificate, --counterexample, --all-methods, --fault and --digits are about gradients: "
            "they go without --derivative"
        )
    if every_method or fault is not None:
        from gdcompare.report.side_by_side import side_by_side

        if certificate or script or digits or plot or reduction != "mean":
            raise click.UsageError(
                "--certificate, --counterexample, --digits, --plot and --reduction go without --all-methods"
            )
        subjects = (
            {each.name: each for each in subject.backends} | functions if fault is None else _planted(fault, problem)
        )
        verdict, results = side_by_side(console_for(subject.json_path), problem, data, params, subjects, dtype)
        write_json(subject.json_path, results)
        leave(EXIT_CODES[verdict])
    if script and reduction != "mean":
        raise click.UsageError("--counterexample is about means: it goes without --reduction")
    backends = [each for each in subject.backends if subject.backend_names or offers(each, problem, derivative)]
    report = gdc.verify(
        problem,
        subject.rows,
        params,
        backends=backends,
        implementations=functions,
        dtype=dtype,
        reduction=reduction,
        atol=atol,
        rtol=rtol,
        derivative=derivative,
        proven_only=proven_only,
        workers=workers,
        scheduler=scheduler,
    )
    note(f"the verdict: {report.verdict}")
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
            write_text(script, smallest.script())
    if digits and not raised(report):  # what raises has no digits, and would raise here
        from gdcompare.referee.attainable import attainable_digits

        found = attainable_digits(
            problem, data, params, dtype, backends=backends, implementations=functions, reduction=reduction
        )
        finish(report, subject.json_path, found, draw=partial(_draw_report, report, plot))
    finish(report, subject.json_path, draw=partial(_draw_report, report, plot))


def _draw_report(report: gdc.Report, path: str | None) -> None:
    if path is not None:
        from gdcompare.report import look, posters

        look.write(posters.of_report(report), path)


@click.command("check-certificate")
@click.argument("file")
@backend_option
@implementation_option
@click.option("--problem", help="Its problem, as file.py:Class, where that is not registered here.")
@dtype_option
@device_option
@click.option("--recompute", is_flag=True, help="Compute the truth anew, and judge the certificate itself.")
@json_option
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

    refuse_overwriting()
    loaded = loaded_backends(backends, dtype, device) if backends or device else [] if implementations else None
    functions = {name: function for name, (function, _) in named_functions(implementations).items()}
    finish(check(file, loaded, functions, dtype, problem=problem, recompute=recompute), json_path)


@click.command()
@about_a_problem
@in_blocks
@at_option
@implementation_option
@per_sample_option
@proven_only_option
@plot_option("which laws hold, the samples' gradients and those of batches")
def laws(
    subject: Subject,
    at: tuple[str, ...],
    implementations: tuple[str, ...],
    per_sample: tuple[str, ...],
    proven_only: bool,
    plot: str | None,
    workers: int | None,
    scheduler: str | None,
) -> None:
    """Check the batch laws of PROBLEM: the mean of the per-sample gradients is the gradient, and what follows.

    On all backends, or on those asked for and your implementations, whose names and weights are as `verify` has them.
    """
    own, rows = named_functions(implementations), named_functions(per_sample, "--per-sample")
    for name in rows:
        if name not in own:
            known = f"known: {', '.join(own)}{did_you_mean(name, own)}" if own else "there is none"
            raise click.UsageError(f"--per-sample {name} goes with an --implementation of that name; {known}")
    if plot is not None and subject.blocks is not None:
        raise click.UsageError("--plot draws rows that fit the memory, not blocks of them; --json has the laws")
    params = given_parameters(at, subject)
    if subject.posed is not None:
        params = params or subject.posed.params
        own = {name: (subject.posed.of_rows(function), origin) for name, (function, origin) in own.items()}
        own |= {subject.posed.name: (subject.posed.of_rows(), "")}
    backends = subject.backends if subject.backend_names or subject.device or not own else []
    refuse_nobody(subject.problem, [*backends, *own])
    asked: list[tuple[str, Any, dict[str, Any]]] = [
        (each.name, each, {"workers": workers, "scheduler": scheduler}) for each in backends
    ]
    for name, (function, _) in own.items():
        row_function, _ = rows.get(name, (None, ""))
        asked.append((name, function, {"per_sample": row_function, "name": name, "dtype": subject.dtype}))
    reports: list[gdc.Report] = []
    try:
        for name, one, how in asked:
            reports.append(
                gdc.check_batch_laws(subject.problem, subject.rows, params, one, proven_only=proven_only, **how)
            )
            note(f"the laws of {name}")
    except KeyboardInterrupt:
        if reports:
            show(gdc.Report.merged(reports), subject.json_path)
        raise
    merged = gdc.Report.merged(reports)
    finish(merged, subject.json_path, draw=partial(_draw_laws, merged, subject, params, backends, plot))


def _draw_laws(
    report: gdc.Report, subject: Subject, params: Any, backends: Sequence[gdc.Backend[Any]], path: str | None
) -> None:
    """Draw the laws, with the gradients of the first backend, where they are of equal rows, and not too many."""
    if path is None:
        return
    from gdcompare.report import look, posters

    where = subject.problem, subject.data, params
    size = len(subject.data) * sum(value.size for value in drawn_parameters(subject.problem, subject.data).values())
    if not backends or subject.data.weights is not None or size > _MOST_NUMBERS:
        look.write(posters.of_laws(report), path)
        return
    rows, gradient = gdc.per_sample_grad(*where, backends[0]), gdc.value_and_grad(*where, backends[0])[1]
    finite = all(np.isfinite(each).all() for found in (rows, gradient) for each in found.values())
    look.write(posters.of_laws(report, rows, gradient) if finite else posters.of_laws(report), path)


@click.command()
@about_a_formula
@at_option
@proven_only_option
@click.option("--check", metavar="FILE.py:FUNCTION", help="Your check, called with each implementation. Default: ours.")
def mutate(
    subject: Subject,
    at: tuple[str, ...],
    proven_only: bool,
    check: str | None,
) -> None:
    """Plant wrong gradients in PROBLEM's own formula, and count those that a check misses.

    FUNCTION takes an implementation, f(params, features, targets) -> (loss, {name: gradient}), and says that it is
    wrong by raising or by returning False. Exit code 1 if any planted fault survives.
    """
    from gdcompare.authoring.faults import by_hand
    from gdcompare.authoring.faults import mutate as plant
    from gdcompare.case import Case
    from gdcompare.referee.point import Referee
    from gdcompare.table import table

    problem, data, dtype = subject.problem, subject.data, checked_dtype(subject.dtype)
    refuse_weights(data, "mutate")
    params = given_parameters(at, subject) or drawn_parameters(problem, data)
    own = None if check is None else check_function(check)

    def referee(implementation: Any) -> bool:
        judged = {"": implementation}
        report = gdc.verify(
            problem, data, params, backends=[], implementations=judged, dtype=dtype, proven_only=proven_only
        )
        return bool(report)

    score = plant(own or referee, by_hand(problem), *Referee(Case.of(problem, data, params, dtype)).point)
    outcomes = {"killed": score.killed, "survived": score.survived, "changes nothing here": score.equivalent}
    console = console_for(subject.json_path)
    console.print(
        table("", ["fault", "outcome"], [(name, key) for key, names in outcomes.items() for name in names], left=2)
    )
    planted = len(score.killed) + len(score.survived)
    console.print(f"mutation score {score.score:.0%}: {len(score.killed)} of {planted} planted faults were noticed")
    write_json(subject.json_path, {"score": score.score, **outcomes})
    leave(1 if score.survived else 0)


def _planted(fault: str, problem: gdc.Problem) -> dict[str, Any]:
    from gdcompare.authoring.faults import FAULTS, by_hand

    if fault not in FAULTS:
        raise click.UsageError(f"unknown fault {fault!r}; known: {', '.join(FAULTS)}{did_you_mean(fault, FAULTS)}")
    return {f"planted: {fault}": FAULTS[fault](by_hand(problem))}
