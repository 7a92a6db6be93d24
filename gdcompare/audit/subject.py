"""What a framework offers to an audit: its operations, examples of their arguments, and the routes to a derivative.

    operation    as users call it: "special.digamma"
    example      the operation at some arguments: its program, and the framework's derivatives of it
    route        one way to a derivative: "reverse", "forward", "reverse, twice", "reverse, compiled"

An example stands for a loss, the sum of cotangents times outputs, `l = c . vec(f(arguments))`: its gradient is the
vector-Jacobian product with c, which is exact where c holds powers of two.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = "Mapping[str, NDArray[Any]]"
Formula: TypeAlias = Callable[..., Any]
"""`formula(xp, *arguments, cotangents, targets) -> loss`, as a program is called; the targets are not used."""
Kind: TypeAlias = Literal["gradient", "jvp", "hvp"]


class Route(NamedTuple):
    """One way of a framework to a derivative of an example's loss, NumPy in and out."""

    derivative: Kind
    function: Callable[..., Any]
    """`f(arguments, cotangents (1, m), targets (1, 1), direction)`; no direction for a gradient. It returns
    `(loss, {name: gradient})`, `(loss, derivative)` or `{name: product}`."""
    usual: bool = True
    """Whether it is taken where nobody asks for routes by name: what compiles for seconds is not."""


class Asked(NamedTuple):
    """What a script shows: a derivative at a point."""

    route: str
    arguments: Arrays
    cotangents: NDArray[Any]
    direction: Arrays | None
    argument: str
    """By which the derivative is; empty for that of the loss along the direction."""
    place: tuple[int, ...]


class Example(Protocol):
    """An operation at some arguments."""

    @property
    @abstractmethod
    def region(self) -> str:
        """Where these arguments lie, in a word or two; elementwise operations are asked at other points, too."""

    @property
    @abstractmethod
    def arguments(self) -> Arrays:
        """The arguments by which it is differentiated, in float64."""

    @property
    @abstractmethod
    def routes(self) -> Mapping[str, Route]:
        """The framework's derivatives."""

    @abstractmethod
    def outputs(self, arguments: Arrays) -> int:
        """Return m, how many numbers it gives out."""

    @abstractmethod
    def formula(self, arguments: Arrays, cotangents: NDArray[Any]) -> Formula:
        """Return what it computes, for arguments of these shapes. Raises a ProgramError if nobody can say."""

    @abstractmethod
    def script(self, asked: Asked) -> str:
        """Return lines that bind `found` to the number that is asked for, by the framework alone; "" if none can."""


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation of a framework.

    >>> Operation("floor", lambda: [], elementwise=1)
    Operation('floor')
    """

    name: str
    examples: Callable[[], Iterable[Example]]
    elementwise: int = 0
    """Of how many numbers it is a function, number by number; 0 if it is not elementwise."""
    unsuited: str = ""
    """Why it cannot be judged whatever its arguments, as "draws random numbers"."""

    def __repr__(self) -> str:
        return f"Operation({self.name!r})"


class AuditsOperations(Protocol):
    """An optional capability beside the seam: a backend that knows the differentiable operations of its framework."""

    @abstractmethod
    def operations(self) -> Sequence[Operation]:
        """Return all of them, in an order that stays; their examples are made when they are asked for."""


def hexadecimal(values: NDArray[Any]) -> str:
    """Return nested lists of exact numbers as source text, for a script with `h = float.fromhex`.

    >>> hexadecimal(np.array([[0.5, -0.0], [2.0, 0.1]]))
    "[[h('0x1p-1'), h('-0x0p+0')], [h('0x1p+1'), h('0x1.999999999999ap-4')]]"
    >>> hexadecimal(np.full(16, 3.0))
    "[h('0x1.8p+1')] * 16"
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim == 1 and numbers.size > 1 and (numbers == numbers[0]).all():
        return f"[{_exact(numbers[0])}] * {numbers.size}"
    if numbers.ndim:
        return f"[{', '.join(map(hexadecimal, numbers))}]"
    return _exact(numbers)


def _exact(number: Any) -> str:
    text = re.sub(r"\.?0*p", "p", float(number).hex())
    return f"h({text!r})"
