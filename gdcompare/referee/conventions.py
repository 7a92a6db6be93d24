"""Kinks as sets: which number each backend gives where the derivative is no single number.

Where a function bends, every number between its one-sided derivatives is right, and each framework has its convention.
The truth is the hull of the one-sided derivatives, for all elements together; a backend inside it agrees. Where ties
belong together, as those of max(x, 0) and |x| do, a convention for each of them may be right of neither side.

A backend that evaluates derivations by hand has no convention of its own: it has that of whoever derived. Here that is
what people write: `x > 0` for the slope of max(x, 0), and the first of those that tie, as `argmax` chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from gdcompare.backend import Backend
from gdcompare.case import Case
from gdcompare.gradients import value_and_grad
from gdcompare.problem import Dataset, Problem
from gdcompare.referee.point import Referee
from gdcompare.referee.verdict import judge
from gdcompare.registry import as_backend, backend_names

ONE_ROW = Dataset([[1.0]], [0.0], name="one row")


@final
@dataclass(frozen=True)
class Corner:
    """A function f of a vector x (k,), the point where it bends, and a derivative written by hand."""

    at: tuple[float, ...]
    formula: Callable[[Any, Any], Any]
    """f(xp, x), a scalar."""
    by_hand: Callable[[Any, Any], Any]
    """df/dx, (k,), at most one choice among many."""


def _chosen(conditions: Sequence[Any], xp: Any, x: Any) -> Any:
    """Return 1 where the condition holds, 0 elsewhere."""
    return xp.where(xp.stack(conditions), xp.ones_like(x), xp.zeros_like(x))


KINKS: dict[str, Corner] = {
    "max(x, 0) at 0": Corner(
        (0.0,),
        lambda xp, x: xp.maximum(x, xp.zeros_like(x))[0],
        lambda xp, x: _chosen([x[0] > 0], xp, x),
    ),
    "where(x > 0, x, 0) at 0": Corner(
        (0.0,),
        lambda xp, x: xp.where(x > 0, x, xp.zeros_like(x))[0],
        lambda xp, x: _chosen([x[0] > 0], xp, x),
    ),
    "abs(x) at 0": Corner((0.0,), lambda xp, x: xp.abs(x)[0], lambda xp, x: xp.sign(x)),
    "max(a, b), a = b": Corner(
        (1.0, 1.0),
        lambda xp, x: xp.maximum(x[0], x[1]),
        lambda xp, x: _chosen([x[0] >= x[1], x[0] < x[1]], xp, x),
    ),
    "min(a, b), a = b": Corner(
        (1.0, 1.0),
        lambda xp, x: xp.minimum(x[0], x[1]),
        lambda xp, x: _chosen([x[0] <= x[1], x[0] > x[1]], xp, x),
    ),
    "max of (1, 1, 0)": Corner(
        (1.0, 1.0, 0.0),
        lambda xp, x: xp.max(x, axis=0),
        lambda xp, x: _chosen(
            [
                (x[0] >= x[1]) & (x[0] >= x[2]),
                (x[1] > x[0]) & (x[1] >= x[2]),
                (x[2] > x[0]) & (x[2] > x[1]),
            ],
            xp,
            x,
        ),
    ),
    "clip(x, 0, 1) at 0": Corner(
        (0.0,),
        lambda xp, x: xp.clip(x, 0.0, 1.0)[0],
        lambda xp, x: _chosen([(x[0] >= 0) & (x[0] <= 1)], xp, x),
    ),
    "clip(x, 0, 1) at 1": Corner(
        (1.0,),
        lambda xp, x: xp.clip(x, 0.0, 1.0)[0],
        lambda xp, x: _chosen([(x[0] >= 0) & (x[0] <= 1)], xp, x),
    ),
    "max(x, 0) + log1p(exp(-abs(x))) at 0": Corner(
        (0.0,),
        lambda xp, x: xp.maximum(x, xp.zeros_like(x))[0] + xp.log1p(xp.exp(-xp.abs(x)))[0],
        lambda xp, x: 1 / (1 + xp.exp(-x)),
    ),
    "sign(x) at 0": Corner((0.0,), lambda xp, x: xp.sign(x)[0], lambda xp, x: xp.zeros_like(x)),
    "sqrt(x) at 0": Corner((0.0,), lambda xp, x: xp.sqrt(x)[0], lambda xp, x: 0.5 / xp.sqrt(x)),
    "where(x > 0, sqrt(x), x) at -1": Corner(
        (-1.0,),
        lambda xp, x: xp.where(x > 0, xp.sqrt(x), x)[0],
        lambda xp, x: xp.where(x > 0, 0.5 / xp.sqrt(x), xp.ones_like(x)),
    ),
}
"""The operations by name. The last four have no kink: a smooth function whose kinks cancel, a jump, an infinite slope,
and a NaN in the branch that is not taken."""


@final
@dataclass(frozen=True)
class AtKink(Problem):
    """l_i = f(x) times the first feature, for one of the `KINKS`; the parameter is x, (k,)."""

    operation: str

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """The shape of the point."""
        del data
        return {"x": (len(KINKS[self.operation].at),)}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """f(x) x_i0, (n,)."""
        del targets
        return KINKS[self.operation].formula(xp, params["x"]) * features[:, 0]

    def per_sample_gradients(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> dict[str, Any]:
        """x_i0 df/dx, (n, k)."""
        del targets
        return {"x": features[:, :1] * KINKS[self.operation].by_hand(xp, params["x"])}

    def value_and_gradient(
        self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The means over the rows."""
        rows = self.per_sample_gradients(xp, params, features, targets)["x"]
        return xp.mean(self.per_sample_losses(xp, params, features, targets)), {"x": xp.mean(rows, axis=0)}


@dataclass(frozen=True)
class Convention:
    """What one backend gives at a kink."""

    operation: str
    backend: str
    derivative: tuple[float, ...]
    hull: tuple[tuple[float, float], ...]
    """[lowest, highest] one-sided derivative of each element, to seven decimals; infinite where none is known."""
    inside: bool | None
    """Whether the derivative is in the hull, but for rounding; None where the hull is not known."""


def conventions(backends: Sequence[str | Backend[Any]] | None = None, dtype: str = "float64") -> list[Convention]:
    """Return what each backend (default: all that are installed) gives at each of the `KINKS`.

    >>> max_0 = conventions(["numpy"])[0]
    >>> max_0.operation, max_0.derivative, max_0.hull, max_0.inside
    ('max(x, 0) at 0', (0.0,), ((0.0, 1.0),), True)
    """
    loaded = [as_backend(each, dtype) for each in (backend_names() if backends is None else backends)]
    return [convention(operation, backend) for operation in KINKS for backend in loaded]


def convention(operation: str, backend: Backend[Any]) -> Convention:
    """Return what a backend gives at one of the `KINKS`, in its dtype."""
    problem, params = AtKink(operation), {"x": KINKS[operation].at}
    referee = Referee(Case.of(problem, ONE_ROW, params, backend.dtype))
    truth, budgets = referee.truths["x"], referee.budgets(getattr(backend, "by_hand", False))
    with np.errstate(all="ignore"):  # 1 / 0 and sqrt(-1) are the point
        _, gradient = value_and_grad(problem, ONE_ROW, params, backend)
    nearest = referee.towards(gradient, budgets)["x"]
    verdict = judge(backend.name, "x", gradient["x"], nearest, budgets["x"], backend.dtype).verdict
    ends = zip(truth.mid - truth.rad, truth.mid + truth.rad, strict=True)
    return Convention(
        operation,
        backend.name,
        tuple(gradient["x"].tolist()),
        tuple((_seven_decimals(low, -math.inf), _seven_decimals(high, math.inf)) for low, high in ends),
        {"agree": True, "wrong": False, "inconclusive": None}[verdict],
    )


def what_each_gives(found: Sequence[Convention]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a table: operation, hull, and each backend's derivative with its verdict.

    >>> columns, rows = what_each_gives(conventions(["numpy"])[:1])
    >>> columns, rows
    (['operation', 'right', 'numpy'], [['max(x, 0) at 0', '[0, 1]', '0']])
    """
    names = list(dict.fromkeys(each.backend for each in found))
    by_operation: dict[str, dict[str, Convention]] = {}
    for each in found:
        by_operation.setdefault(each.operation, {})[each.backend] = each
    rows = [
        [operation, _hull(next(iter(given.values())).hull), *(_derivative(given.get(name)) for name in names)]
        for operation, given in by_operation.items()
    ]
    return ["operation", "right", *names], rows


def _seven_decimals(end: float, unknown: float) -> float:
    """Take off what the outward rounding of a ball's radius added."""
    return unknown if math.isnan(end) else round(float(end), 7) + 0.0


def _hull(hull: Sequence[tuple[float, float]]) -> str:
    if any(math.isinf(end) for ends in hull for end in ends):
        return "unknown"
    each = [f"{low:g}" if low == high else f"[{low:g}, {high:g}]" for low, high in hull]
    return each[0] if len(set(each)) == 1 else ", ".join(each)


def _derivative(given: Convention | None) -> str:
    if given is None:
        return "-"
    words = {True: "", False: " wrong", None: " ?"}[given.inside]
    return ", ".join(f"{value:g}" for value in given.derivative) + words
