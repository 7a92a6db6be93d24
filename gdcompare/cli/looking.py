"""The command to look around with: `list`."""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass

import click

import gdcompare as gdc
from gdcompare import data as datasets
from gdcompare.cli.options import json_option
from gdcompare.cli.output import console_for, write_json
from gdcompare.descent import rules
from gdcompare.registry import approximation_names, how_to_get_more, how_to_install, registered_backends


@click.command("list")
@json_option
def list_(json_path: str | None) -> None:
    """List the backends, problems, data sets and update rules."""
    from gdcompare.table import table

    console = console_for(json_path)
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
    if more := how_to_get_more():
        console.print(more, soft_wrap=True)
    write_json(json_path, results)


def _about(problem: gdc.Problem) -> str:
    """Return what its file says first, and its settings.

    >>> _about(gdc.load_problem("polynomial-regression"))
    'Fit a polynomial by least squares. --set degree=3'
    """
    text = sys.modules[type(problem).__module__].__doc__ or type(problem).__doc__ or ""
    settings: list[str] = [each.name for each in fields(problem)] if is_dataclass(problem) else []
    return " ".join([text.partition("\n")[0], *(f"--set {name}={getattr(problem, name)}" for name in settings)])
