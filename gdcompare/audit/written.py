"""Operations written down by their framework's backend: a call as source text, and beside it what it computes.

For frameworks whose graphs nobody reads. The text is what is run and what a script shows; the formula is over `xp`, as
a problem's is, and the truth comes from it alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.audit.subject import Arrays, Asked, Formula, Operation, Route

Shapes = Mapping[str, tuple[int, ...]]
Call = tuple[str, Callable[..., Any], Shapes]
"""Source text, the formula `f(xp, *arguments)`, and the shapes of the arguments."""

CURVES: Mapping[str, Callable[[Any, Any], Any]] = {
    "silu": lambda xp, x: x * xp.sigmoid(x),
    "gelu": lambda xp, x: x * (1.0 + xp.erf(x / math.sqrt(2.0))) / 2.0,
    "elu": lambda xp, x: xp.where(x > 0, x, xp.expm1(x)),
    "softsign": lambda xp, x: x / (1.0 + xp.abs(x)),
    "relu": lambda xp, x: xp.maximum(x, xp.zeros_like(x)),
    "relu6": lambda xp, x: xp.clip(x, 0.0, 6.0),
    "degrees": lambda _, x: x * (180.0 / math.pi),
    "radians": lambda _, x: x * (math.pi / 180.0),
}
"""Functions of one number beside those that `xp` has by name."""


@dataclass(frozen=True)
class Writer:
    """How a framework is spoken to."""

    names: Mapping[str, Any]
    """What source text may name."""
    routes: Callable[[Callable[..., Any]], Mapping[str, Route]]
    """The derivatives of cotangents times the outputs of a function of the framework's arrays."""
    script: Callable[[str, Asked], str]
    """Lines that bind `found`, for a call as text."""

    def operations(
        self, ones: Mapping[str, str], twos: Mapping[str, str], calls: Mapping[str, Call]
    ) -> list[Operation]:
        """Return operations of one and two numbers, {text of the function: name of the formula}, and calls."""
        found = []
        for names, several in ((("x",), ones), (("x", "y"), twos)):
            for function, known in several.items():
                call = (f"{function}({', '.join(names)})", formula_of(known), dict.fromkeys(names, (1,)))
                found.append(Operation(function, partial(self._examples, [call]), len(names)))
        found += [Operation(name, partial(self._examples, [call])) for name, call in calls.items()]
        return found

    def _examples(self, calls: Sequence[Call]) -> Iterator[Written]:
        generator = np.random.default_rng(0)
        for text, formula, shapes in calls:
            drawn = {name: np.round(generator.standard_normal(shape), 3) for name, shape in shapes.items()}
            yield Written(self, text, formula, drawn)


def formula_of(name: str) -> Callable[..., Any]:
    """Return the formula of that name: one of `CURVES`, or the function of `xp`.

    >>> float(formula_of("softsign")(np, 1.0)), float(formula_of("exp")(np, 0.0))
    (0.5, 1.0)
    """
    if name in CURVES:
        return CURVES[name]
    return lambda xp, *arguments: getattr(xp, name)(*arguments)


@final
class Written:
    """An example of a call that is written down."""

    def __init__(self, writer: Writer, text: str, formula: Callable[..., Any], arguments: Arrays) -> None:
        self.writer, self.text, self.arguments, self._formula = writer, text, arguments, formula
        self.region = "drawn"
        self.call: Callable[..., Any] = eval(  # noqa: S307 - text of a backend
            f"lambda {', '.join(arguments)}: {text}", dict(writer.names)
        )

    @property
    def routes(self) -> Mapping[str, Route]:
        """The framework's."""
        return self.writer.routes(self.call)

    def outputs(self, arguments: Arrays) -> int:
        """Counted by a call."""
        return int(np.size(np.asarray(self.call(*arguments.values()))))

    def formula(self, arguments: Arrays, cotangents: NDArray[Any]) -> Formula:
        """Cotangents times the outputs of the formula."""
        del arguments, cotangents

        def loss(xp: Any, *given: Any) -> Any:
            *values, drawn, _ = given
            return xp.sum(drawn @ xp.reshape(self._formula(xp, *values), (-1,)))

        return loss

    def script(self, asked: Asked) -> str:
        """The framework's."""
        return self.writer.script(self.text, asked)
