"""The answer to a comparison in a sentence: who is wrong, which are different functions, or that all is rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gdcompare.models.alike import Alike
from gdcompare.models.comparison import FORWARD, FUNCTION, LOSS, OWN, ROWS, Answer
from gdcompare.referee.shown import place
from gdcompare.referee.verdict import Entry, Grade
from gdcompare.table import count


def wrong_gradients(entries: Sequence[Entry], layers: Mapping[str, str]) -> list[Answer]:
    """Return an answer for each model whose gradient is not that of its own program.

    `layers` names the layer at which each begins to be wrong, coming down from the loss.
    """
    answers = []
    for model in dict.fromkeys(entry.implementation for entry in entries):
        own = [entry for entry in entries if entry.implementation == model and entry.law == OWN]
        wrong = [entry for entry in own if entry.verdict == "wrong"]
        if not wrong:
            wrong = [
                entry
                for entry in entries
                if entry.implementation == model and entry.law == ROWS and entry.verdict == "wrong"
            ]
        if not wrong:
            continue
        what = "loss" if all(entry.parameter == LOSS for entry in wrong) else "gradient"
        what = f"per-sample {what}" if wrong[0].law == ROWS else what
        grades: set[Grade] = {entry.grade for entry in wrong}
        grade: Grade = "proven" if "proven" in grades else "sampled"
        first = next((entry for entry in wrong if entry.parameter != LOSS), wrong[0])
        others = f", and {len(wrong) - 1} more of {len(own)} arrays" if len(wrong) > 1 else ""
        layer = layers.get(model, "")
        where = f", from {layer} down" if layer else ""
        cause = f": {first.cause}" if first.cause else ""
        said = f"the {what} of {model!r} is wrong ({grade}){where}, in {place(first)}{others}{cause}"
        answers.append(Answer("wrong gradient", (model,), said, layer, first.cause, grade))
    return answers


def different_functions(
    reference: str,
    found: Mapping[str, Alike],
    firsts: Mapping[str, tuple[str, str]],
    entries: Sequence[Entry],
    layers: Sequence[Entry],
) -> list[Answer]:
    """Return an answer for each model that is another function than the reference, if but for its constants.

    Or if but for its gradients: a constant of the gradient is in one, and not in the other.
    """
    answers = []
    for model, alike in found.items():
        if alike.beyond:
            said = f"{reference!r} and {model!r} are one function but for constants, beyond rounding: {alike.said()}"
            answers.append(Answer("constants", (reference, model), said, cause=alike.said()))
        if alike.kind != "different":
            continue
        layer, cause = firsts.get(model, ("", ""))
        if layer:
            where = f", first at {layer}: {cause or 'why is not known'}"
        else:
            worst = next(
                each
                for each in entries
                if each.implementation == model and each.law == FUNCTION and each.verdict == "wrong"
            )
            numbers = f"{worst.actual!r} for {worst.expected!r}"
            where = f", in {place(worst)}: {numbers}; {cause or 'no layer tells where'}"
            if worst.parameter != LOSS and alike.arrays[LOSS].kind in ("same", "constants"):
                where = (
                    f": their values are the same{_in_layers(model, layers)}, and their gradients are not, first in "
                    f"{place(worst)}: {numbers}; {cause or 'why is not known'}"
                )
        said = f"{reference!r} and {model!r} are different functions{where}"
        answers.append(Answer("different functions", (reference, model), said, layer, cause))
    return answers


def _in_layers(model: str, layers: Sequence[Entry]) -> str:
    """Say in how many layers the values agree; "" where not in all, or none is known."""
    some = [each.verdict == "agree" for each in layers if each.implementation == model and each.law == FORWARD]
    return f", in {count(len(some), 'layer')}, too" if some and all(some) else ""


def all_rounding(models: Sequence[str], found: Mapping[str, Alike], entries: Sequence[Entry]) -> Answer:
    """Return the answer where every gradient is right, and the models are one function."""
    grade: Grade = "sampled" if any(entry.grade == "sampled" for entry in entries) else "proven"
    digits = min((entry.digits for entry in entries if entry.law == OWN), default=0)
    how = "; ".join(dict.fromkeys(each.said() for each in found.values()))
    said = (
        f"all is rounding: each gradient is that of its own program ({grade}, {digits} digits), "
        f"and the programs are one function: {how}"
    )
    return Answer("rounding", tuple(models), said, grade=grade)


def undecided(entries: Sequence[Entry]) -> list[Answer]:
    """Return an answer for each model of which something is neither right nor wrong."""
    answers = []
    for model in dict.fromkeys(entry.implementation for entry in entries):
        some = [
            entry
            for entry in entries
            if entry.implementation == model and entry.verdict == "inconclusive" and entry.law in (OWN, FUNCTION, ROWS)
        ]
        if some:
            first = some[0]
            what = "whether it is the same function" if first.law == FUNCTION else "its gradient"
            more = f", and {len(some) - 1} more" if len(some) > 1 else ""
            said = f"undecided of {model!r}: {what}, in {place(first)}{more}: {first.cause}"
            answers.append(Answer("undecided", (model,), said, cause=first.cause))
    return answers
