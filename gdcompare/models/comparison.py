"""What a comparison of models says: one point, or the steps of a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, final

from gdcompare.referee.shown import heading
from gdcompare.referee.verdict import Entry, Floats, Grade, Report
from gdcompare.table import Part, Table, number, table

LOSS = "loss"
GRADIENT, ROWS, FORWARD, BACKWARD = "", "per sample", "forward", "backward"
OWN, FUNCTION = "own truth", "function"


Kind: TypeAlias = Literal["wrong gradient", "different functions", "constants", "rounding", "undecided"]


@final
@dataclass(frozen=True)
class Answer:
    """One finding about some of the models."""

    kind: Kind
    models: tuple[str, ...]
    said: str
    """The finding in a sentence."""
    layer: str = ""
    """The first layer at which it shows, where that is known."""
    cause: str = ""
    """What explains it, where that is known."""
    grade: Grade = "proven"
    """Whether it is proven, or rests on sampled rounding."""

    def __str__(self) -> str:
        return self.said


@final
@dataclass(frozen=True)
class Evidence:
    """By what a model was judged."""

    model: str
    evidence: Literal["truth", "estimate"]
    """Whether by the truth of its own program, or by how far the other models are away."""
    reason: str = ""
    """Why its truth is not known."""


@dataclass(frozen=True, repr=False)
class Comparison(Report):
    """What several models say of the same loss, each beside its own truth, and the truths beside each other.

    The `law` of an entry says what was compared: "own truth", a model's loss or gradient, under its own names, with the
    truth of its own program; "function", that truth with the reference's, under the source's names; "per sample" the
    gradients of single samples. Where the program of some model cannot be read, the models are also compared with each
    other, by an estimated budget: entries of law "", or "per sample". Of these, `expected` is what the source says, or
    the majority where there is one, and `detectable` the smallest relative fault that would have been noticed in any
    element of at least a thousandth of its array's largest.
    """

    layers: tuple[Entry, ...] = ()
    """The layers known on both sides: values in order of execution, then cotangents from the loss down.

    They explain the verdict and have no part in it: layers of one name need not be the same thing.
    """
    remarks: tuple[str, ...] = ()
    """What else is to be known: layers without a counterpart, losses that couple their rows, constants in float32."""
    answers: tuple[Answer, ...] = ()
    """Who is wrong, which are different functions, or that all is rounding; empty if no program could be read."""
    evidence: tuple[Evidence, ...] = ()
    """By what each model was judged, and why."""

    @property
    def first_difference(self) -> Entry | None:
        """The first layer, forward and then backward, whose values differ beyond rounding."""
        return next((entry for entry in self.layers if entry.verdict == "wrong"), None)

    def shown(self) -> list[Part]:
        """Return what is shown of it: a heading, the arrays, the layers, and the explanation."""
        layers = [_layers(self.layers)] if self.layers else []
        return [heading(self.context), _arrays(self.entries), *layers, *self.explanation().splitlines()]

    def explanation(self) -> str:
        """Return the answers, what does not agree, the first layer that differs, the remarks, and what the evidence is.

        Per-sample gradients are told of where the others agree, and of different functions the loss: otherwise they
        only repeat it.
        """
        lines = self.summary().splitlines()
        if any(entry.verdict != "agree" for entry in self.entries if entry.law in (GRADIENT, OWN, FUNCTION)):
            lines = [line for line in lines if f": {ROWS}: " not in line]
        if any(answer.kind in ("different functions", "constants") for answer in self.answers):
            lines = [line for line in lines if f": {FUNCTION}: " not in line or f": {FUNCTION}: {LOSS} " in line]
        if (first := self.first_difference) is not None:
            lines.insert(0, _first_layer(first))
        elif compared := {entry.parameter for entry in self.layers if entry.verdict == "agree"}:
            lines.append(f"no difference in {len(compared)} layers")
        return "\n".join([*map(str, self.answers), *lines, *self.remarks, *self._evidence()])

    def _evidence(self) -> list[str]:
        """Say by what each model was judged."""
        known = [repr(each.model) for each in self.evidence if each.evidence == "truth"]
        said = [f"judged by the truth of their own programs: {', '.join(known)}"] if known else []
        said += [f"{each.model!r} is judged by an estimate: {each.reason}" for each in self.evidence if each.reason]
        estimated = not self.evidence or len(known) < len(self.evidence)
        return [*said, f"budgets are {self.context['budget']}"] if estimated else said

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        first = self.first_difference
        return Report.to_dict(self) | {
            "layers": [asdict(entry) for entry in self.layers],
            "first_difference": None if first is None else asdict(first),
            "remarks": list(self.remarks),
            "answers": [asdict(each) for each in self.answers],
            "models": [asdict(each) for each in self.evidence],
        }


def _arrays(entries: Iterable[Entry]) -> Table:
    """Return what models say of each array, one a row: the loss and gradients, of all rows or of each, or of steps."""
    rows = []
    for entry in entries:
        where = [entry.implementation, f"{entry.law}: " * bool(entry.law) + entry.parameter, entry.verdict]
        rows.append([*where, number(entry.budget_fraction, "{:.2g}"), number(entry.detectable, "{:.0e}")])
    return table("", ["model", "array", "verdict", "of budget", "detectable"], rows, left=3)


def _layers(entries: Iterable[Entry]) -> Table:
    """Return the layers, one a row: whether their values and their cotangents agree, and their share of the budget."""
    found: dict[tuple[str, str], dict[str, Entry]] = {}
    for entry in entries:
        found.setdefault((entry.implementation, entry.parameter), {})[entry.law] = entry
    rows = []
    for where, laws in found.items():
        shares = {law: f"{each.verdict} {number(each.budget_fraction, '{:.2g}')}" for law, each in laws.items()}
        rows.append([*where, *(shares.get(law, "") for law in (FORWARD, BACKWARD))])
    return table("", ["model", "layer", "forward", "backward"], rows, left=4)


def _first_layer(first: Entry) -> str:
    place = f"[{', '.join(map(str, first.worst_index))}]" if first.worst_index else ""
    return (
        f"first layer to differ: {first.parameter}{place}, {first.law}: {first.implementation} has "
        f"{first.actual!r} for {first.expected!r}; {first.cause}"
    )


@dataclass(frozen=True, repr=False)
class Training(Report):
    """How several models go through the same steps of a training: an entry for the loss and for each parameter.

    An entry that is wrong is that of its first bad step; of one that agrees, it is that of the step nearest to the
    budget.
    """

    first_bad_step: int | None = None
    """The first step, counted from 0, at which anything differs beyond rounding."""
    there: Comparison | None = None
    """The comparison of the models at that step, with their layers; None without `resync`."""
    losses: Mapping[str, Floats] = field(default_factory=dict)
    """`{model: (steps,)}`: the loss that each step met."""
    apart: Mapping[str, Floats] = field(default_factory=dict)
    """`{model: (steps,)}`: the largest difference from the source, as a share of that array's largest magnitude.

    Of the gradients at the same parameters with `resync`; of the parameters after the step without.
    """

    def shown(self) -> list[Part]:
        """Return what is shown of it: a heading, the arrays, and the explanation."""
        return [heading(self.context), _arrays(self.entries), *self.explanation().splitlines()]

    def explanation(self) -> str:
        """Return the report's lines, the first bad step, and what kind of budget it was."""
        lines = [self.summary()]
        if self.first_bad_step is not None:
            bad = sorted({entry.parameter for entry in self.entries if entry.law == f"step {self.first_bad_step}"})
            lines.append(f"first bad step: {self.first_bad_step} of {self.context['steps']}, in {', '.join(bad)}")
        if self.context["steps_done"] < self.context["steps"]:
            lines.append(f"interrupted after {self.context['steps_done']} of {self.context['steps']} steps")
        if self.there is not None and self.there.first_difference is not None:
            lines.append(_first_layer(self.there.first_difference))
        return "\n".join([*lines, f"budgets are {self.context['budget']}"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        return Report.to_dict(self) | {
            "first_bad_step": self.first_bad_step,
            "there": None if self.there is None else self.there.to_dict(),
            "losses": dict(self.losses),
            "apart": dict(self.apart),
        }
