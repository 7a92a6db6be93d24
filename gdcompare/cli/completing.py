"""What the shell offers while a command line is typed: names that are registered, and files where they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias, get_args

import click
from click.shell_completion import CompletionItem

import gdcompare as gdc
from gdcompare import data as datasets
from gdcompare.backend import Derivative, Precision, Reduction
from gdcompare.descent import rules
from gdcompare.registry import approximation_names

Completer: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _offer(names: Callable[[], Iterable[str]], files: bool = False) -> Completer:
    """Offer the names that begin as what is typed; where none does, files, if files are taken."""

    def offer(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        del context, parameter
        found = [CompletionItem(name) for name in names() if name.startswith(typed)]
        return found or [CompletionItem(typed, type="file")] * files

    return offer


problems = _offer(gdc.problem_names, files=True)
backends = _offer(lambda: [*gdc.backend_names(), *approximation_names()], files=True)
data = _offer(datasets.names, files=True)
update_rules = _offer(lambda: sorted(rules.RULES))
schedules = _offer(lambda: rules.SCHEDULES)
dtypes = _offer(lambda: get_args(Precision))
derivatives = _offer(lambda: get_args(Derivative))
reductions = _offer(lambda: get_args(Reduction))
