"""One gradient worked out in every way, side by side, the same intermediate derivative marked in all of them."""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.backend import Backend, Trace, TraceStep
from gdcompare.case import Case, DataLike
from gdcompare.explain.example import (
    BY_HAND,
    FORMULAS,
    INTRODUCTION,
    SAMPLES,
    equations,
    sources,
    tiny_case,
)
from gdcompare.explain.page import body, page
from gdcompare.explain.steps import referee_steps, steps_by_hand
from gdcompare.gradients import value_and_grad
from gdcompare.problem import Problem
from gdcompare.referee.verdict import plain
from gdcompare.registry import approximation_names, how_to_install, load_backend, registered_backends
from gdcompare.table import Part, Table, as_text, table

CLOSE = {"float64": 1e-9, "float32": 1e-4}
"""Relative: two numbers this near are one that was rounded twice."""

SHOWN = 3


class Mark(NamedTuple):
    """A derivative that occurs in several programs, under one letter."""

    letter: str
    of: str
    """What the loss is differentiated by."""
    value: NDArray[np.float64]
    found: dict[str, list[tuple[str, int]]]
    """Of each program, the steps that hold it, and by which factor: 3 where there is no 1/n in it."""


class Way(NamedTuple):
    """One way to the gradient, and what it gives."""

    name: str
    gradient: dict[str, NDArray[Any]]
    """Empty if it cannot run here."""
    note: str


@final
@dataclass(frozen=True, repr=False)
class Explanation:
    """A gradient on a tiny example, worked out step by step by the referee, by hand, and by frameworks."""

    case: Case
    traces: tuple[Trace, ...]
    marks: tuple[Mark, ...]
    ways: tuple[Way, ...]
    left_out: tuple[str, ...] = ()
    """What is not installed, with the line to install it."""
    kinks: tuple[str, ...] = ()
    """Where the loss bends at this point."""

    def __repr__(self) -> str:
        name, programs = type(self.case.problem).__name__, ", ".join(trace.name for trace in self.traces)
        return f"Explanation({name} on {len(self.case.data)} samples: {programs}; {len(self.marks)} marks)"

    def shown(self) -> list[Part]:
        """Return what is shown of it, in order: formulas, data, marks, programs, and all the gradients."""
        problem = self.case.problem
        name = type(problem).__name__
        parts: list[Part] = [f"{name}: one gradient, worked out in every way on {len(self.case.data)} samples", ""]
        if text := equations(problem):
            parts += [_indented(text), ""]
        for title, formulas in FORMULAS.items():
            written = sources(problem, *formulas)
            parts += [title] * bool(written)
            for each in written:
                said = [_indented(each.about)] if title == BY_HAND and each.about else []
                parts += [f"  {each.name}, in {each.file}", *said, _indented(each.code), ""]
        parts += [self.samples_table(), self.parameters_table(), *self.bends()]
        parts += [INTRODUCTION, self.marks_table()]
        parts += [self.steps_table(trace) for trace in self.traces]
        parts += [self.gradients_table(), *(f"left out: {each}" for each in self.left_out)]
        return parts

    def __str__(self) -> str:
        return as_text(self.shown())

    def _repr_html_(self) -> str:
        return body(self)

    def html(self) -> str:
        """Return it as one page of HTML that needs nothing else."""
        return page(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        case = self.case
        return {
            "problem": type(case.problem).__name__,
            "equations": equations(case.problem),
            "features": case.features,
            "targets": case.targets,
            "parameters": case.params,
            "dtype": case.dtype,
            "kinks": list(self.kinks),
            "marks": [mark._asdict() for mark in self.marks],
            "programs": [
                {"name": trace.name, "title": trace.title, "steps": [step._asdict() for step in trace.steps]}
                for trace in self.traces
            ],
            "gradients": [way._asdict() for way in self.ways],
            "left_out": list(self.left_out),
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return it as JSON."""
        return json.dumps(plain(self.to_dict()), indent=indent, allow_nan=False)

    def marked(self, trace: Trace, step: TraceStep) -> tuple[str, str]:
        """Return the marks of a step's value and of its cotangent, such as "A" or "3 A", empty for none."""
        tolerance = CLOSE[self.case.dtype]
        marks = ["", ""]
        for mark in self.marks:
            for name, factor in mark.found.get(trace.name, ()):
                if name == step.name:
                    for i, array in enumerate((step.value, step.cotangent)):
                        if not marks[i] and _same(array, factor * mark.value, tolerance):
                            marks[i] = f"{factor} {mark.letter}" if factor != 1 else mark.letter
        if step.cotangent is not None:
            marks[0] = ""  # its value is one of the way forward
        return marks[0], marks[1]

    def samples_table(self) -> Table:
        """Return the features and targets."""
        features, targets = self.case.features, self.case.targets.reshape(len(self.case.targets), -1)
        columns = [f"x_{j}" for j in range(features.shape[1])] if features.shape[1] > 1 else ["x"]
        columns += [f"y_{j}" for j in range(targets.shape[1])] if targets.shape[1] > 1 else ["y"]
        numbers = np.concatenate([features, targets], axis=1)
        rows = [[str(i), *(f"{value:g}" for value in row)] for i, row in enumerate(numbers)]
        return table("The samples", ["sample", *columns], rows)

    def parameters_table(self) -> Table:
        """Return the point."""
        return table("The parameters", ["parameter", "value"], [(k, shown(v, 6)) for k, v in self.case.params.items()])

    def bends(self) -> list[str]:
        """Return where the loss bends here, if it does."""
        if not self.kinks:
            return []
        return [
            f"The loss bends here: {', '.join(self.kinks)}. What each framework takes there: gdcompare explain kinks"
        ]

    def marks_table(self) -> Table:
        """Return the marks, and the steps of each program that hold them."""
        names = [trace.name for trace in self.traces]
        rows = [
            (mark.letter, mark.of, shown(mark.value), *(_places(mark.found.get(name, ())) for name in names))
            for mark in self.marks
        ]
        return table("", ["", "dL by", "value", *names], rows, left=3 + len(names))

    def steps_table(self, trace: Trace) -> Table:
        """Return a program, a step a row, with the marks."""
        rows = []
        back = any(step.cotangent is not None for step in trace.steps)
        for step in trace.steps:
            value, cotangent = self.marked(trace, step)
            name = step.name if step.label in ("", step.name) else f"{step.name} {step.label}"
            cells = [name, step.operation, ", ".join(step.inputs), _with(value, step.value)]
            rows.append((*cells, _with(cotangent, step.cotangent)) if back else tuple(cells))
        lined = any(":" in step.operation for step in trace.steps)
        columns = [
            "step",
            "operation :line" if lined else "operation",
            "from",
            "value",
            *(["dL/d(step)"] if back else []),
        ]
        return table(f"{trace.name}: {trace.title}", columns, rows, left=len(columns))

    def gradients_table(self) -> Table:
        """Return the gradients by every way."""
        names = list(self.case.params)
        truth = self.ways[0].gradient
        rows = []
        for way in self.ways:
            cells = [shown(way.gradient[name], digits=10) if way.gradient else "-" for name in names]
            apart = (float(np.max(np.abs(way.gradient[name] - truth[name]))) for name in names if way.gradient)
            off = max(apart, default=math.nan)
            rows.append((way.name, "\n".join(cells), "-" if math.isnan(off) else f"{off:.1e}", way.note))
        return table("The gradient, by every way", ["by", "\n".join(names), "off by", ""], rows, left=4)


def walk_through(
    problem: str | Problem,
    data: DataLike = None,
    params: Mapping[str, ArrayLike] | None = None,
    *,
    backends: Sequence[str | Backend[Any]] | None = None,
    dtype: str = "float64",
) -> Explanation:
    """Return one gradient worked out step by step: by the referee, by hand, and by each framework that shows its way.

    The example has three samples: the first of the data, or the problem's own with one decimal. A backend shows its
    steps if it has `trace` (see `gdcompare.backend.ShowsSteps`); all give their gradient, beside finite differences and
    a complex step. Bad input raises what `Case.of` and `load_backend` raise.

    >>> found = walk_through("linear-regression", backends=[])
    >>> found
    Explanation(LinearRegression on 3 samples: referee, by hand, each sample; 3 marks)
    >>> found.marks[0].of, found.marks[0].found
    ('residuals', {'referee': [('v1', 1), ('v2', 1), ('v3', 1)], 'each sample': [('s4', 3), ('s5', 3)]})
    """
    case = tiny_case(problem, data, params, dtype)
    loaded = case.backends(backends)
    if case.problem.derived:
        case.check_derivation()
    left_out = [] if backends is not None else list(filter(None, map(how_to_install, registered_backends())))
    referee, kinks = referee_steps(case)
    traces = [referee, *(steps_by_hand(case) if case.problem.derived else [])]
    showing: list[Any] = [each for each in loaded if hasattr(each, "trace")]
    traces += [each.trace(case.problem, case.params, case.features, case.targets) for each in showing]
    truth = {step.name: step.cotangent for step in referee.steps if step.name in case.params}
    ways = [Way("the truth", {name: np.asarray(each) for name, each in truth.items()}, "the referee, in balls")]
    ways += [_way(case, each, "by hand" if getattr(each, "by_hand", False) else "") for each in loaded]
    ways += [_way(case, load_backend(name, dtype), "approximate") for name in approximation_names()]
    return Explanation(
        case, tuple(traces), tuple(_marks(traces, CLOSE[case.dtype])), tuple(ways), tuple(left_out), tuple(kinks)
    )


def _way(case: Case, backend: Backend[Any], note: str) -> Way:
    try:
        _, gradient = value_and_grad(case.problem, case.data, case.params, backend)
    except Exception as error:  # a formula that does not run on complex numbers
        return Way(backend.name, {}, f"cannot run: {type(error).__name__}: {error}")
    return Way(backend.name, gradient, note)


def _marks(traces: Sequence[Trace], tolerance: float) -> list[Mark]:
    """Return the referee's derivatives, from the loss back, that some other program has as well."""
    referee, *others = traces
    n = SAMPLES
    marks: list[Mark] = []
    parameters = [step for step in referee.steps if step.operation == "parameter"]
    computed = [step for step in referee.steps if step.operation != "parameter"]
    for step in (*reversed(computed), *parameters):
        value, on_the_way = step.cotangent, step.operation != "parameter"
        letters = len(string.ascii_uppercase) - on_the_way * len(parameters)  # each parameter has one
        if value is None or not _telling(value, on_the_way) or len(marks) >= letters:
            continue
        if any(_same(value, mark.value, tolerance) for mark in marks):
            continue
        found = {trace.name: _steps_with(trace, value, (1,), tolerance) for trace in traces}
        for trace in others:
            if not found[trace.name] and all(each.cotangent is None for each in trace.steps):
                found[trace.name] = _steps_with(trace, value, (n,), tolerance)
        found = {name: steps for name, steps in found.items() if steps}
        if len(found) > 1:
            marks.append(
                Mark(
                    string.ascii_uppercase[len(marks)],
                    step.label or f"{step.operation.partition(' ')[0]} {step.name}",
                    value,
                    found,
                )
            )
    return marks


def _steps_with(trace: Trace, value: NDArray[Any], factors: Sequence[int], tolerance: float) -> list[tuple[str, int]]:
    return [
        (step.name, factor)
        for factor in factors
        if _telling(factor * value, factor != 1)  # n times 1/n is 1
        for step in trace.steps
        if _same(step.value if step.cotangent is None else step.cotangent, factor * value, tolerance)
        and not (step.operation == "parameter" and step.cotangent is None)
    ]


def _telling(value: NDArray[Any], on_the_way: bool) -> bool:
    """Whether an array is not all 0 or all 1, nor on the way a single 1/n, each of which may be anything."""
    plain = [0, 1, 1 / SAMPLES] if on_the_way and value.size == 1 else [0, 1]
    return bool(np.all(np.isfinite(value))) and not any(np.all(value == each) for each in plain)


def _same(one: NDArray[Any] | None, other: NDArray[Any], tolerance: float) -> bool:
    """Whether two arrays hold the same numbers in the same order, but for rounding and axes of length 1."""
    if one is None or np.size(one) != np.size(other) or np.asarray(one).dtype.kind != "f":
        return False
    a, b = np.ravel(one).astype(np.float64), np.ravel(other)
    return bool(np.all(np.abs(a - b) <= tolerance * np.max(np.abs(b))))


def shown(values: ArrayLike | None, most: int = SHOWN, digits: int = 4) -> str:
    """Return the first few numbers.

    >>> shown([0.25, -1 / 3, 2.0, 4.0])
    '0.25, -0.3333, 2, ... (4)'
    """
    if values is None:
        return "not kept"
    listed = np.ravel(np.asarray(values)).tolist()
    some = ", ".join(f"{value:.{digits}g}" if not isinstance(value, bool) else str(value) for value in listed[:most])
    return some if len(listed) <= most else f"{some}, ... ({len(listed)})"


def _with(mark: str, values: Any) -> str:
    return f"[{mark}] {shown(values)}" if mark else shown(values)


def _places(found: Sequence[tuple[str, int]]) -> str:
    return ", ".join(name if factor == 1 else f"{name} (x {factor})" for name, factor in found)


def _indented(text: str, by: int = 4) -> str:
    return "\n".join(f"{' ' * by}{line}" if line else "" for line in text.splitlines())
