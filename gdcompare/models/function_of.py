"""Which of several models are one function: an entry for each array, and the first layer that is another function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np

from gdcompare.arithmetic.program import Earlier, Program
from gdcompare.backend import Precision
from gdcompare.models.alike import Alike, Apart, Known, alike
from gdcompare.models.comparison import FORWARD, FUNCTION, LOSS
from gdcompare.models.sides import Key, Point
from gdcompare.models.step_hints import hint, region
from gdcompare.models.true_layers import LayerProgram, Place, layer_program
from gdcompare.models.truth import Truth
from gdcompare.referee.enclosed import middles
from gdcompare.referee.verdict import Entry, Floats, Verdict, detectable_faults, ulp

VERDICTS: dict[str, Verdict] = {
    "same": "agree",
    "constants": "agree",
    "different": "wrong",
    "unknown": "inconclusive",
}
CAUSES = {
    "constants": "constants are rounded otherwise",
    "different": "another function",
    "unknown": "the enclosures of the two truths are too wide to tell",
}
CUTS = {"stop_gradient", "straight_through"}
"""Functions whose result has the value of their first operand, and not its slope."""
MOST_LINES = 16
"""So many lines that cut a gradient off are tried one by one."""
NEAR = 1e-8
"""Within this share of the largest of its array a gradient is another's."""


@final
@dataclass(frozen=True, eq=False)
class Functions:
    """What is found of models whose truths are known."""

    reference: Truth
    """Whom the others are set beside: the first of the largest group that is one function."""
    found: Mapping[str, Alike]
    """Of each other model."""
    entries: tuple[Entry, ...]
    firsts: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of each that is another function: the first layer that is, and a hint of the cause."""

    def causes(self, truths: Sequence[Truth]) -> dict[str, tuple[str, str]]:
        """Return the first layer of each other function, and a hint of the cause.

        Without a layer it is found among all steps; where the values are the same, among what cuts the gradient off.
        """
        found = dict(self.firsts)
        for truth in truths:
            if truth.name in found or truth is self.reference or self.found[truth.name].kind != "different":
                continue
            if self.found[truth.name].arrays[LOSS].kind in ("same", "constants"):
                found[truth.name] = "", _cut(self.reference, truth)
                continue
            whole = [region(each, LOSS, ()) for each in map(_whole, (self.reference, truth)) if each is not None]
            found[truth.name] = "", hint(*whole) if len(whole) == 2 else ""
        return found

    def layers(self, truths: Sequence[Truth], at: Point, dtype: Precision) -> Callable[[Any], dict[Key, list[Entry]]]:
        """Return what judges the layers at these rows, where their truths are known of all these models."""

        def judged(pairs: Mapping[str, Mapping[str, Any]]) -> dict[Key, list[Entry]]:
            programs = {each.name: layer_program(each.side, at, pairs.get(each.name)) for each in truths}
            if any(isinstance(each, str) for each in programs.values()):
                return {}
            return self._judged({name: each for name, each in programs.items() if not isinstance(each, str)}, dtype)

        return judged

    def _judged(self, programs: Mapping[str, LayerProgram], dtype: Precision) -> dict[Key, list[Entry]]:
        source, *_ = programs.values()
        reference = programs[self.reference.name]
        order = [name for name in source.places if all(name in each.places for each in programs.values())]
        some = {name: replace(each, places={key: each.places[key] for key in order}) for name, each in programs.items()}
        entries: dict[Key, list[Entry]] = {(FORWARD, name): [] for name in order}
        one = some[reference.name]
        ours = one.true(one.program)
        for name, other in some.items():
            if name == reference.name:
                continue
            found = alike(one.form(), other.form(), dtype).arrays
            theirs = other.true(other.program)
            first = next((key for key in order if found[key].kind == "different"), None)
            cause = ""
            if first is not None:
                agreed = [key for key in order if found[key].kind in ("same", "constants")]
                cause = hint(region(one, first, agreed), region(other, first, agreed))
                self.firsts[name] = first, cause
            for key in order:
                entry = _entry(name, key, FORWARD, ours[key], theirs[key], found[key], dtype)
                if key == first and cause:
                    entry = replace(entry, cause=cause)
                entries[FORWARD, key].append(entry)
        return {key: each for key, each in entries.items() if each}


def _whole(truth: Truth) -> LayerProgram | None:
    """Return the program of all rows as one with a single layer, the loss."""
    program, problem = truth.program, truth.problem
    if not isinstance(program.output, Earlier):
        return None
    inputs = [*problem.params.values(), problem.features, problem.targets]
    return LayerProgram(truth.side, program, inputs, {LOSS: Place(program.output.number, (), ())}, {})


def _cut(one: Truth, other: Truth) -> str:
    """Say which of two that have the same values cuts a gradient off, and where, or does not use a parameter.

    Without the cut, it has the gradients of the other.
    """
    for closed, wanted in ((other, one), (one, other)):
        due = wanted.in_floats(wanted.program)
        lines = [*dict.fromkeys(step.line for step in closed.program.steps if step.function in CUTS)]
        for some in [*((line,) for line in lines[:MOST_LINES]), tuple(lines)]:
            found = closed.in_floats(_opened(closed.program, some))
            if all(_near(found[name], value) for name, value in due.items()):
                where = ", ".join(filter(None, some))
                return f"{closed.name!r} cuts the gradient off{f' at {where}' if where else ''}"
    unused = {each.name: each.problem.without_slope() for each in (other, one)}
    if len(unused[one.name]) == len(unused[other.name]):
        return ""
    name, most = max(unused.items(), key=lambda each: len(each[1]))
    parameter, (_, why) = next(iter(most.items()))
    return f"{parameter!r} of {name!r}: {why}"


def _opened(program: Program, lines: Sequence[str]) -> Program:
    """Return the program without its constants of the gradient at these lines."""
    steps = (
        replace(step, function="positive", operands=step.operands[:1])
        if step.function in CUTS and step.line in lines
        else step
        for step in program.steps
    )
    return replace(program, steps=tuple(steps))


def _near(found: Floats, due: Floats) -> bool:
    return bool(np.abs(found - due).max(initial=0.0) <= NEAR * np.abs(due).max(initial=0.0))


def functions_of(truths: Sequence[Truth], dtype: Precision) -> Functions:
    """Set truths beside each other."""
    found: dict[tuple[str, str], Alike] = {}

    def beside(one: Truth, other: Truth) -> Alike:
        key = one.name, other.name
        if key not in found:
            found[key] = alike(one.form(), other.form(), dtype)
        return found[key]

    groups: list[list[Truth]] = []
    for truth in truths:
        group = next((each for each in groups if beside(each[0], truth).kind in ("same", "constants")), None)
        if group is None:
            groups.append([truth])
        else:
            group.append(truth)
    reference = max(groups, key=len)[0]  # the first of the largest
    results = {each.name: beside(reference, each) for each in truths if each is not reference}
    entries = [
        _entry(name, key, FUNCTION, reference.arrays[key], other.arrays[key], result.arrays[key], dtype)
        for name, result in results.items()
        for other in truths
        if other.name == name
        for key in result.arrays
    ]
    return Functions(reference, results, tuple(entries))


def _entry(model: str, name: str, law: str, one: Known, other: Known, found: Apart, dtype: Precision) -> Entry:
    """Return the entry of an array of true numbers, by the side of the reference's."""
    ours, theirs = middles(one.balls), middles(other.balls)
    worst = found.worst
    budget = np.minimum(one.budget, other.budget)
    with np.errstate(all="ignore"):
        faults = detectable_faults(np.where(np.abs(ours) > found.allowed, ours, 0.0), found.allowed)
        ulps = found.off / ulp(float(ours[worst]), dtype) if ours.size else np.nan
        share = found.off / float(budget[worst]) if budget.size and budget[worst] else float("nan")
        largest = float(np.max(np.abs(ours), initial=0.0))
        seen = float(np.max(found.allowed, initial=0.0)) / largest if largest else 1.0
    return Entry(
        model,
        name,
        "wrong" if found.kind == "constants" and found.beyond else VERDICTS[found.kind],
        worst,
        float(theirs[worst]),
        float(ours[worst]),
        ulps,
        share,
        float(np.max(faults, initial=0.0)) if faults.size else float("nan"),
        CAUSES.get(found.kind, ""),
        law,
        0 if not np.isfinite(seen) else int(np.floor(-np.log10(min(max(seen, 1e-99), 1.0)))),
        "proven",
        (ours.size, ours.size),
        float(np.median(faults)) if faults.size else float("nan"),
    )
