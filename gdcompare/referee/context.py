"""What a report's results depend on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from gdcompare.backend import Backend
from gdcompare.case import Case
from gdcompare.data.blocks import Blocks
from gdcompare.problem import Dataset
from gdcompare.referee.point import Reference


def context_of(referee: Reference, data: Dataset, backends: Sequence[Backend[Any]]) -> dict[str, Any]:
    """Return what the results depend on, as plain values."""
    along = getattr(referee, "direction", None) or {}
    return {
        **_subject(referee, data, data),
        "reduction": referee.reduction,
        "derivative": getattr(referee, "derivative", "gradient"),
        "direction": {name: value.tolist() for name, value in along.items()},
        "dtype": referee.dtype,
        "kinks": list(referee.kinks),
        "environment": _environment(backends),
    }


def context_of_blocks(
    case: Case, blocks: Blocks, backends: Sequence[Backend[Any]], kinks: Sequence[str], functions: bool
) -> dict[str, Any]:
    """Return the same of data in blocks, with how many there are of how many rows, and how functions were called."""
    means = "weighted by their rows" if not blocks.weighted else "weighted by the weights of their rows"
    called = f"functions called block by block, their means {means}"
    added = "functions called block by block, their sums added up"
    return {
        **_subject(case, blocks, blocks.first),
        "blocks": blocks.count,
        "rows": blocks.rows,
        **({"functions": called if case.reduction == "mean" else added} if functions else {}),
        "reduction": case.reduction,
        "derivative": "gradient",
        "direction": {},
        "dtype": case.dtype,
        "kinks": list(kinks),
        "environment": _environment(backends),
    }


def _subject(point: Reference | Case, data: Dataset | Blocks, rows: Dataset) -> dict[str, Any]:
    return {
        "problem": getattr(point.problem, "title", type(point.problem).__name__),
        "data": data.name,
        "n": len(data),
        "d": rows.features.shape[1],
        "weighted": rows.weights is not None,
    }


def _environment(backends: Sequence[Backend[Any]]) -> dict[str, Any]:
    environment = {"python": platform.python_version(), "machine": platform.machine(), np.__name__: np.__version__}
    for backend in backends:
        environment |= getattr(backend, "environment", dict)()
    return environment
