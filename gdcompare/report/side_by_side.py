"""What every way to check a gradient says of it, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gdcompare.problem import Dataset, Problem
from gdcompare.referee.methods import all_methods, what_each_says
from gdcompare.referee.verdict import Verdict
from gdcompare.table import table

if TYPE_CHECKING:
    from rich.console import Console


def side_by_side(
    console: Console,
    problem: Problem,
    data: Dataset,
    params: Mapping[str, Any] | None,
    subjects: Mapping[str, Any],
    dtype: str,
) -> tuple[Verdict, dict[str, list[dict[str, Any]]]]:
    """Show a table for each subject, a backend or an implementation; return the enclosure's worst verdict, and all.

    `params=None` draws them as `verify` does.
    """
    results = {}
    for name, subject in subjects.items():
        outcomes = all_methods(problem, data, params, subject, dtype)
        results[name] = [asdict(each) for each in outcomes]
        console.print(table(name, ["method", "says", "figure", "remark"], what_each_says(outcomes), left=4))
    said = {outcomes[-1]["says"] for outcomes in results.values()}
    worst: Verdict = "wrong" if "wrong" in said else "inconclusive" if "inconclusive" in said else "agree"
    return worst, results
