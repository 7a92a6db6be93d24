"""The main job, shown: the seed's line, the gradient by every backend, the batch law, and three kinds of descent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import gdcompare as gdc
from gdcompare.backend import Backend
from gdcompare.data.blocks import Blocks
from gdcompare.referee.verdict import Report, ulp
from gdcompare.table import table, vector

if TYPE_CHECKING:
    from rich.console import Console

_MOST_NAMES = 3
"""A table shows the values of at most this many parameters."""

SEED_POINT: Mapping[str, Any] = {"theta_0": 1.0, "theta_1": [0.0]}


@dataclass(frozen=True, eq=False)
class Demonstration:
    """What the main job found."""

    about: tuple[gdc.Problem, gdc.Dataset]
    report: Report
    plain: dict[str, Any]
    """All that was shown, as plain data."""
    gradient: Mapping[str, Any]
    per_sample: Mapping[str, Any]
    """Those of one backend."""
    descents: Mapping[str, Mapping[str, gdc.Descent]]
    """By kind, "full_batch", "mini_batch" and "stochastic", and by backend."""


def demonstrate(console: Console) -> Demonstration:
    """Show the main job."""
    problem, data = gdc.load_problem("linear-regression"), gdc.datasets.noisy_line()
    backends = [gdc.load_backend(name) for name in gdc.backend_names()]
    console.print(f"gdcompare {gdc.__version__}: one gradient descent, {len(backends)} ways to differentiate it\n")
    console.print(f"Data: y = 3 x + 4 + noise, {len(data)} samples.")
    console.print("Loss: the mean of (theta_0 + x theta_1 - y)^2, at theta_0 = 1, theta_1 = 0, in float64.\n")

    report = gdc.verify(problem, data, SEED_POINT, backends=backends)
    found = {backend.name: gdc.value_and_grad(problem, data, SEED_POINT, backend)[1] for backend in backends}
    full = {name: _scalars(each) for name, each in found.items()}
    rows = {backend.name: gdc.per_sample_grad(problem, data, SEED_POINT, backend) for backend in backends}
    means = {name: {key: float(np.mean(each)) for key, each in gradients.items()} for name, gradients in rows.items()}
    truth = {entry.parameter: entry.expected for entry in report.entries}
    console.print(_gradients("The gradient, and its distance in ulps from the proven truth", full, truth))
    console.print(_gradients(f"The mean of the {len(data)} per-sample gradients, likewise", means, truth))
    seed = {name: _seed_figures(full[name], rows[name]) for name in full}
    console.print(_seed_table(seed))
    console.print(report.explanation() + ".\n")

    results: dict[str, Any] = {"report": report.to_dict(), "gradients": full, "per_sample_means": means, "seed": seed}
    rule, paths = gdc.rules.sgd(0.01), {}
    for key, title, settings in (
        ("full_batch", "Full-batch descent", {"epochs": 2000, "gradient_norm": 1e-2}),
        ("mini_batch", "Mini-batch descent, 2 rows a step", {"epochs": 15, "batch_size": 2}),
        ("stochastic", "Stochastic descent, 1 row a step", {"epochs": 15, "batch_size": 1}),
    ):
        results[key], paths[key] = descents(
            console, f"{title}, learning rate 0.01", problem, data, backends, rule=rule, **settings
        )
    console.print("Times are single runs, the first with compilation; see benchmarks/ for fair ones.")
    first = next(iter(found))
    return Demonstration((problem, data), report, results, found[first], rows[first], paths)


def descents(
    console: Console,
    title: str,
    problem: gdc.Problem,
    data: gdc.Dataset | Blocks,
    backends: Sequence[Backend[Any]],
    checkpoint: str | None = None,
    **how: Any,
) -> tuple[dict[str, Any], dict[str, gdc.Descent]]:
    """Show the same descent on every backend, and how far apart their paths ever were; return plain data, and them.

    Each has a folder in that of the checkpoint, and is then run once, as on data in blocks.
    """
    once = checkpoint is not None or isinstance(data, Blocks)
    results, found, shown = {}, {}, []
    for backend in backends:
        seconds = []
        for _ in range(1 if once else 2):
            begun = time.perf_counter()
            where = None if checkpoint is None else Path(checkpoint, backend.name)
            descent = gdc.descend(problem, data, backend, checkpoint=where, **how)
            seconds.append(time.perf_counter() - begun)
            if descent.stop_reason == "interrupted":
                break
        loss, _ = gdc.value_and_grad(problem, data, descent.parameters, backend)
        found[backend.name] = descent
        results[backend.name] = {
            "parameters": descent.parameters,
            "loss": loss,
            "steps": descent.steps,
            "stop_reason": descent.stop_reason,
            "seconds": seconds,
            "history": {"steps": descent.history.steps, "losses": descent.history.losses},
        }
        shown.append(
            (
                backend.name,
                _where(descent.parameters),
                f"{loss:.6g}",
                str(descent.steps),
                descent.stop_reason,
                " / ".join(f"{second * 1e3:.1f}" for second in seconds),
            )
        )
        if descent.stop_reason == "interrupted":
            break
    names = list(problem.parameter_shapes(data.first if isinstance(data, Blocks) else data))
    shown_names = "\n".join(names) if len(names) <= _MOST_NAMES else f"norm of {len(names)} parameters"
    columns = ["backend", shown_names, "loss", "steps", "stopped by", "ms first / again"]
    console.print(table(title, columns, shown, left=2))
    apart = paths_apart({name: each.history.parameters for name, each in found.items()})
    if apart is not None:
        console.print(f"Furthest apart, any two paths, any step: {apart:.2g}\n")
    return {"backends": results, "furthest_apart": apart}, found


def _where(parameters: Mapping[str, Any]) -> str:
    """Return the first values of each parameter, a line each; of many parameters their Euclidean norm."""
    if len(parameters) <= _MOST_NAMES:
        return "\n".join(vector(np.ravel(value)) for value in parameters.values())
    return f"{np.sqrt(sum(np.sum(np.square(value, dtype=np.float64)) for value in parameters.values())):.10g}"


def paths_apart(paths: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return the largest difference between any two paths, over all parameters and the steps they share.

    None for fewer than two paths.

    >>> paths_apart({"a": {"x": np.array([0.0, 1.0])}, "b": {"x": np.array([0.0, 1.5, 9.0])}})
    0.5
    """
    apart = [
        float(np.max(np.abs(one[key][:steps].astype(np.float64) - other[key][:steps])))
        for one, other in combinations(paths.values(), 2)
        for key in one
        for steps in [min(len(one[key]), len(other[key]))]
    ]
    return max(apart, default=None)


def _scalars(gradient: Mapping[str, Any]) -> dict[str, float]:
    return {name: value.item() for name, value in gradient.items()}


def _gradients(title: str, gradients: Mapping[str, Mapping[str, float]], truth: Mapping[str, float]) -> Any:
    rows = [
        [name, *(text for key in ("theta_0", "theta_1") for text in (repr(found[key]), _ulps(found[key], truth[key])))]
        for name, found in gradients.items()
    ]
    rows.append(["truth", repr(truth["theta_0"]), "", repr(truth["theta_1"]), ""])
    return table(title, ["backend", "theta_0", "ulps", "theta_1", "ulps"], rows)


def _ulps(actual: float, truth: float) -> str:
    return f"{abs(actual - truth) / ulp(truth, 'float64'):.0f}"


def _seed_figures(full: Mapping[str, float], rows: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the figures that the seed printed: its parameters were float32, so each gradient was rounded to float32.

    The gradient of the whole data is rounded once; the per-sample gradients one by one, and then averaged in float64.
    """
    whole = {key: float(np.float32(value)) for key, value in full.items()}
    mean = {key: float(np.mean(each.astype(np.float32), dtype=np.float64)) for key, each in rows.items()}
    return {"whole data": whole, "mean of 40": mean, "difference": {key: whole[key] - mean[key] for key in whole}}


def _seed_table(seed: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Any:
    rows = [
        (name, what, *(repr(abs(value) if what == "difference" else value) for value in figures.values()))
        for name, found in seed.items()
        for what, figures in found.items()
    ]
    title = "As the seed printed them: gradients rounded to float32, the mean in float64"
    return table(title, ["backend", "gradient", "theta_0", "theta_1"], rows, left=2)
