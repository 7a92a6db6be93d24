"""Derivatives that a model brings for operations of its own: which of them are wrong by themselves.

A model's wrong gradient is often that of one operation in it whose backward pass somebody wrote. Each is judged alone,
at the numbers that the model calls it with, by the truth of its own forward program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gdcompare.referee.diagnosis import UNEXPLAINED
from gdcompare.referee.verdict import LOSS
from gdcompare.referee.verify import verify

MOST, LARGEST = 16, 2**12
"""So many are judged, and none whose inputs hold more numbers."""


class Rule(NamedTuple):
    """One use of an operation that has a derivative of its own."""

    name: str
    line: str
    """Where it is used, in the user's file; "" if nobody knows."""
    function: Any
    """The operation as a native model, which poses its own problem."""
    params: Mapping[str, NDArray[np.float64]]
    """What it is called with there."""


def faulty(rules: Iterable[Rule], dtype: str) -> str:
    """Say which rules are wrong where they are used, and how; "" if none is known to be.

    A rule that cannot be judged, or whose inputs are too many, is passed over: this explains a verdict, and is none. So
    is one that does not run alone, or gives another value there than its own program: it is not what the model used.
    """
    some = {(each.name, each.line): each for each in rules}
    said = []
    for rule in list(some.values())[:MOST]:
        if sum(np.size(each) for each in rule.params.values()) > LARGEST:
            continue
        try:
            report = verify(rule.function, params=rule.params, dtype=dtype)
        except Exception:  # noqa: S112 - it has no program, or does not run alone, in whatever way somebody's code fails
            continue
        wrong = [each for each in report.entries if each.verdict == "wrong"]
        if wrong and all(each.parameter != LOSS for each in wrong):
            where = f", used at {rule.line}," if rule.line else ""
            how = "; ".join(f"by {each.parameter}: {each.cause.removeprefix(UNEXPLAINED)}" for each in wrong)
            said.append(f"the derivative of {rule.name}{where} is wrong by itself ({how})")
    return "; ".join(said)
