"""A framework of a few functions whose derivatives are known, some right and some wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from gdcompare.audit.subject import Asked, Operation, Route, hexadecimal
from gdcompare.audit.written import Writer

Slope = Callable[[Any], Any]

SLOPES: Mapping[str, tuple[str, Slope]] = {
    "exp": ("exp", np.exp),
    "exp, a thousandth too large": ("exp", lambda x: np.exp(x) * 1.001),
    "exp, of the other sign": ("exp", lambda x: -np.exp(x)),
    "exp, 0": ("exp", np.zeros_like),
    "tanh, by its value": ("tanh", lambda x: 1 - np.tanh(x) ** 2),
    "tanh": ("tanh", lambda x: 1 / np.cosh(x) ** 2),
    "abs, 1 at 0": ("abs", lambda x: np.where(x >= 0, 1.0, -1.0).astype(x.dtype)),
    "abs, 5 at 0": ("abs", lambda x: np.where(x == 0, 5.0, np.sign(x)).astype(x.dtype)),
    "abs, nan at 0": ("abs", lambda x: np.sign(x) * np.where(x == 0, np.nan, 1.0).astype(x.dtype)),
    "sin": ("sin", np.cos),
    "sin, as if of its neighbour": ("sin", lambda x: np.cos(np.nextafter(x, np.zeros_like(x)))),
    "log": ("log", lambda x: 1 / x),
}
"""What a framework of one function of one number takes for its derivative."""


def operation(name: str) -> Operation:
    """Return a function with such a derivative; its script is that of NumPy."""
    formula, slope = SLOPES[name]

    def routes(function: Callable[..., Any]) -> Mapping[str, Route]:
        del function

        def reverse(arguments: Any, cotangents: Any, targets: Any) -> tuple[None, Any]:
            del targets
            return None, {"x": cotangents[0] * slope(arguments["x"])}

        return {"reverse": Route("gradient", reverse)}

    def script(text: str, asked: Asked) -> str:
        lines = ["import numpy as np", "from tests.audit.planted import SLOPES", "h = float.fromhex"]
        lines.append(f"x = np.array({hexadecimal(asked.arguments['x'])}, dtype={asked.cotangents.dtype.name!r})")
        return "\n".join([*lines, f"found = SLOPES[{name!r}][1](x)[{asked.place[0]}]  # of {text}"])

    writer = Writer({"np": np}, routes, script)
    (found,) = writer.operations({f"np.{formula}": formula}, {}, {})
    return Operation(name, found.examples, 1)


def squares(factor: float) -> Operation:
    """Return the sum of squares along rows, whose backward pass has this factor; 2 is right."""

    def routes(function: Callable[..., Any]) -> Mapping[str, Route]:
        def reverse(arguments: Any, cotangents: Any, targets: Any) -> tuple[Any, Any]:
            del targets
            a = arguments["a"]
            return np.sum(cotangents[0] * function(a)), {"a": (factor * a * cotangents[0][:, None]).astype(a.dtype)}

        def forward(arguments: Any, cotangents: Any, targets: Any, direction: Any) -> tuple[None, Any]:
            del targets
            moved = factor * np.sum(arguments["a"] * direction["a"], axis=1)
            return None, (cotangents[0] @ moved).astype(cotangents.dtype)

        def twice(arguments: Any, cotangents: Any, targets: Any, direction: Any) -> Any:
            del arguments, targets
            return {"a": (factor * direction["a"] * cotangents[0][:, None]).astype(cotangents.dtype)}

        return {
            "reverse": Route("gradient", reverse),
            "forward": Route("jvp", forward),
            "reverse, twice": Route("hvp", twice),
        }

    writer = Writer({"np": np}, routes, lambda text, asked: "")
    call = ("np.sum(a * a, axis=1)", lambda xp, a: xp.sum(a * a, axis=1), {"a": (2, 3)})
    (found,) = writer.operations({}, {}, {"squares": call})
    return found


def refusing() -> Operation:
    """Return a function that has no derivative at all."""

    def routes(function: Callable[..., Any]) -> Mapping[str, Route]:
        def reverse(*arguments: Any) -> Any:
            raise NotImplementedError("nobody has derived it")

        return {"reverse": Route("gradient", reverse)}

    (found,) = Writer({"np": np}, routes, lambda text, asked: "").operations({"np.exp": "exp"}, {}, {})
    return found


@final
@dataclass(frozen=True)
class Planted:
    """A backend that offers these, as far as an audit needs one."""

    dtype: str = "float64"
    device: str | None = None
    name: ClassVar[str] = "planted"
    xp: ClassVar[Any] = np

    def asarray(self, values: Any) -> Any:
        """An array."""
        return np.asarray(values)

    to_numpy = value_and_grad = per_sample_grad = scan = asarray

    def environment(self) -> dict[str, str]:
        """Nothing that changes."""
        return {"planted": "1"}

    def operations(self) -> list[Operation]:
        """One that is right, one that has lost digits, and one that ends the process."""
        return [operation("exp"), operation("tanh, by its value"), Operation("fatal", _fatal), squares(2.0)]


def _fatal() -> Any:
    import os

    os._exit(7)
