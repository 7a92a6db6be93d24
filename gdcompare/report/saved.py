"""Results that a command saved as JSON, read again: verdicts and laws, or a run of the timer."""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

from gdcompare.referee.verdict import Entry, Report, Verdict
from gdcompare.timing.runs import Run, RunError, load
from gdcompare.words import one_line

_NUMBERS = ("actual", "expected", "error_ulps", "budget_fraction", "detectable", "detectable_in_half")


def saved(path: str | os.PathLike[str]) -> Report | Run:
    """Return what `verify --json`, `laws --json` or `bench --json` wrote; a ValueError, in a line, for other files.

    >>> from tempfile import TemporaryDirectory
    >>> import gdcompare as gdc
    >>> report = gdc.verify("linear-regression", "noisy-line", backends=["numpy"])
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.json").write_text(report.to_json())
    ...     saved(Path(folder, "a.json")).entries == report.entries
    True
    """
    shown = repr(str(path))
    try:
        whole = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {shown}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown} is no JSON, or a part of it is lost: {one_line(error)}") from None
    if isinstance(whole, dict) and "entries" in whole and "context" in whole:
        try:
            return Report(tuple(map(_entry, whole["entries"])), dict(whole["context"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{shown} is damaged: {one_line(f'{type(error).__name__}: {error}')}") from None
    try:
        return load(path)
    except RunError as error:
        if "is not a run" in str(error):
            raise ValueError(
                f"{shown} holds no verdicts, laws or times: give what verify, laws or bench wrote with --json"
            ) from None
        raise


def _entry(value: dict[str, Any]) -> Entry:
    known = {each.name: each for each in fields(Entry)}
    if odd := sorted(value.keys() - known.keys()):
        raise ValueError(f"unknown {odd[0]!r}")
    if lost := [name for name, each in known.items() if each.default is MISSING and name not in value]:
        raise ValueError(f"without {lost[0]!r}")
    if value["verdict"] not in get_args(Verdict):
        raise ValueError(f"a verdict of {value['verdict']!r}")
    found = value | {name: float(value[name]) for name in _NUMBERS if name in value}  # "nan" and "inf" are words there
    worst, resolved = value.get("worst_index"), value.get("resolved", (0, 0))
    found["worst_index"] = None if worst is None else tuple(map(int, worst))
    found["resolved"] = (int(resolved[0]), int(resolved[1]))
    return Entry(**found)
