"""Where digits are lost: which operation of a formula, forwards or on the way back, leaves nothing to check.

The program runs once more, on a few rows, in many copies side by side. Each rounds a few operations only, as much as an
error in what they add up would do. The copy that moves the result furthest has the operation in it; if that adds up
terms which are large beside their sum, it cancels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.sampled import Sampled, SampledNumbers
from gdcompare.arithmetic.tape import Tape, Variable
from gdcompare.backend import Reduction
from gdcompare.own_files import shown_path
from gdcompare.problem import Problem
from gdcompare.referee.sampling import draws_of_loss

COPIES, ROWS = 256, 16
CANCELS = 1e3
"""Terms so many times their sum cancel."""

_NAMED = 3
"""So many operations are named."""

CURES = {
    "tanh": "1 - tanh(x)^2 cancels where tanh is near 1 or -1; write 1/cosh(x)^2",
    "expm1": "expm1(x) + 1 cancels where exp(x) is near 0; write exp(x)",
}
"""What frameworks compute as the slope of a function, and what keeps its digits."""


@final
class LostDigits:
    """What became of the copies, once run for all arrays."""

    def __init__(
        self,
        problem: Problem,
        params: Mapping[str, Any],
        features: Any,
        targets: Any,
        dtype: str,
        weights: Any,
        reduction: Reduction,
    ) -> None:
        rows = slice(ROWS)
        inputs = problem, params, features[rows], targets[rows], dtype, None if weights is None else weights[rows]
        counting = _Watch(0)
        draws_of_loss(*inputs, reduction, SampledNumbers(dtype, draws=1, witness=counting))
        self.operations = len(counting.ratios)
        copies = min(COPIES, self.operations + 1)
        self._watch = _Watch(max(1, -(-self.operations // (COPIES - 1))))
        loss, gradient = draws_of_loss(*inputs, reduction, SampledNumbers(dtype, copies, witness=self._watch))
        self._draws = {"loss": loss, **gradient}

    def why(self, name: str, blind: NDArray[np.bool_]) -> str:
        """Return in words why these elements of a parameter's gradient, or of the `loss`, are mostly rounding."""
        with np.errstate(all="ignore"):  # infinity less infinity
            moved = np.abs(self._draws[name] - self._draws[name][:1])[:, blind]
        if not np.isfinite(moved).all():
            return "a number on the way is not finite"
        watch, largest = self._watch, np.maximum(moved.max(axis=0), np.finfo(float).tiny)
        effect = np.sqrt(np.mean((moved / largest) ** 2, axis=1))[1:]
        near = [i for i in range(self.operations) if effect[i // watch.each] >= effect.max() / 8]
        guilty = max(near, key=lambda i: watch.ratios[i])
        (what, place), ratio = watch.names[guilty], watch.ratios[guilty]
        if ratio < CANCELS:
            return f"depth: rounding adds up over {self.operations} operations"
        if what in CURES:
            return f"a tail: the slope of {what}{place} loses its digits: {CURES[what]}"
        left = "nothing is left" if ratio > 1e30 else f"1/{ratio:.0e} is left"
        return f"cancellation: of the terms of {what or 'a sum'}{place} {left}"


@final
class _Watch:
    """Rounds the operations in groups of `each`, group i in copy i + 1 alone; copy 0 rounds none."""

    def __init__(self, each: int) -> None:
        self.each = each
        self.ratios: list[float] = []
        self.names: list[tuple[str, str]] = []
        self._functions: dict[int, tuple[Sampled, str, str]] = {}  # with the value, so that no other takes its id
        self._slope: tuple[str, str] | None = None

    def rounds(self, u: float, value: Any, sizes: Any, name: str, hidden: tuple[int, ...]) -> Any:
        """By u of what is added up, all to one side; a mask's infinities are not rounded."""
        sizes = np.where(np.isfinite(sizes), sizes, 0.0)
        with np.errstate(all="ignore"):
            ratio = np.where(sizes > 0, sizes / np.maximum(np.abs(value), np.finfo(float).tiny), 0.0)
        mine = np.arange(hidden[0]) - 1 == (len(self.ratios) // self.each if self.each else -2)
        self.ratios.append(float(np.max(ratio, initial=0.0)))
        self.names.append(self._slope or (name, _place()))
        return u * sizes * mine.reshape(hidden)

    def remembers(self, value: Sampled, name: str) -> None:
        """Keep where it was written."""
        self._functions[id(value)] = value, name, _place()

    @contextmanager
    def slope_of(self, value: Sampled) -> Iterator[None]:
        """Let what is rounded meanwhile bear the function's name and place."""
        _, *self_and_line = self._functions.get(id(value), (value, "", ""))
        self._slope = (self_and_line[0], self_and_line[1])
        try:
            yield
        finally:
            self._slope = None


def _place() -> str:
    """Say at which line of the formula we are, or of which operation on the way back."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name in ("walk_back", "gradient") and module == Tape.__module__:
            there = frame.f_locals
            back = [there["node"]] if "node" in there else _users(there["self"], there["leaf"])
            of = ", ".join(dict.fromkeys(node.operation for node in back[:_NAMED])) + ", ..." * (len(back) > _NAMED)
            return f" on the way back from {of}" if of else " on the way back"
        if frame.f_code.co_name == "values" and "step" in frame.f_locals:  # of a program
            line = str(frame.f_locals["step"].line)
            return f" at {line}" if line else ""
        if module.startswith("gdcompare.referee") and module != __name__:
            return " on the way back"
        if not module.startswith(("gdcompare.arithmetic", __name__, np.__name__, "contextlib")):
            return f" at {shown_path(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _users(tape: Tape, leaf: Variable) -> list[Variable]:
    """Return the operations on a parameter, whose cotangents add up."""
    return [node for node in tape.nodes if any(parent is leaf for parent, _ in node.parents)]
