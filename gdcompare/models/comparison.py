"""What a comparison of models says: one point, or the steps of a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gdcompare.referee.shown import heading
from gdcompare.referee.verdict import Entry, Floats, Report
from gdcompare.table import Part, Table, number, table

LOSS = "loss"
GRADIENT, ROWS, FORWARD, BACKWARD = "", "per sample", "forward", "backward"


@dataclass(frozen=True, repr=False)
class Comparison(Report):
    """What several models say of the same loss: a report whose budgets are estimated.

    `expected` in an entry is what the source says, or the majority where there is one. `detectable` is the smallest
    relative fault that would have been noticed in any element of at least a thousandth of its array's largest.
    """

    layers: tuple[Entry, ...] = ()
    """The layers known on both sides: values in order of execution, then cotangents from the loss down.

    They explain the verdict and have no part in it: layers of one name need not be the same thing.
    """
    remarks: tuple[str, ...] = ()
    """What else is to be known: layers without a counterpart, losses that couple their rows, constants in float32."""

    @property
    def first_difference(self) -> Entry | None:
        """The first layer, forward and then backward, whose values differ beyond rounding."""
        return next((entry for entry in self.layers if entry.verdict == "wrong"), None)

    def shown(self) -> list[Part]:
        """Return what is shown of it: a heading, the arrays, the layers, and the explanation."""
        layers = [_layers(self.layers)] if self.layers else []
        return [heading(self.context), _arrays(self.entries), *layers, *self.explanation().splitlines()]

    def explanation(self) -> str:
        """Return the first layer that differs, the report's lines, the remarks, and what kind of budget it was.

        Per-sample gradients are told of where the others agree: otherwise they only repeat it.
        """
        lines = Report.explanation(self).splitlines()
        if any(entry.verdict != "agree" for entry in self.entries if entry.law == GRADIENT):
            lines = [line for line in lines if f": {ROWS}: " not in line]
        if (first := self.first_difference) is not None:
            lines.insert(0, _first_layer(first))
        elif compared := {entry.parameter for entry in self.layers if entry.verdict == "agree"}:
            lines.append(f"no difference in {len(compared)} layers")
        return "\n".join([*lines, *self.remarks, f"budgets are {self.context['budget']}"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as they go to JSON."""
        first = self.first_difference
        return Report.to_dict(self) | {
            "layers": [asdict(entry) for entry in self.layers],
            "first_difference": None if first is None else asdict(first),
            "remarks": list(self.remarks),
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
        lines = [Report.explanation(self)]
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
