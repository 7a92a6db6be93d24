"""Where a step points: each direction beside its formula, as an init/update pair over the array namespace `xp`.

What depends on the step number alone is computed once, in float64 with NumPy, and travels to the backend as data: all
backends see the same numbers, and a compiling backend does not compile again for another learning rate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Params: TypeAlias = Mapping[str, NDArray[np.float64]]
Gradient: TypeAlias = Mapping[str, Any]
Memory: TypeAlias = Mapping[str, Gradient]


class Direction(Protocol):
    """Where a step points. Make it a frozen dataclass: equal directions share one compiled program."""

    @abstractmethod
    def init(self, params: Params) -> Memory:
        """Return the memory before the first step, each part named and shaped like the parameters."""

    @abstractmethod
    def coefficients(self, xp: Any, steps: Any) -> tuple[Any, ...]:
        """Return what else depends on the step number alone, each of the shape of `steps` (the first step is 0)."""

    @abstractmethod
    def update(
        self, xp: Any, params: Gradient, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """Return (direction, new memory) at these parameters; nothing is changed in place."""


@final
@dataclass(frozen=True)
class Plain(Direction):
    """direction = g; no memory."""

    def init(self, params: Params) -> Memory:
        """No memory."""
        del params
        return {}

    def coefficients(self, xp: Any, steps: Any) -> tuple[Any, ...]:
        """None."""
        del xp, steps
        return ()

    def update(
        self, xp: Any, params: Gradient, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """direction = g."""
        del xp, params, coefficients
        return gradient, memory


@final
@dataclass(frozen=True)
class Momentum(Direction):
    """v <- beta v + (1 - dampening) g; direction = v, or g + beta v after Nesterov."""

    beta: float
    dampening: float = 0.0
    nesterov: bool = False
    first_dampened: bool = False
    """Whether the first g counts for 1 - dampening, too."""

    def init(self, params: Params) -> Memory:
        """v = 0."""
        return {"velocity": _zeros(params)}

    def coefficients(self, xp: Any, steps: Any) -> tuple[Any, ...]:
        """What g counts for: 1 at first, then 1 - dampening; nothing where it always counts for 1."""
        if not self.dampening:
            return ()
        first = 1 - self.dampening if self.first_dampened else 1.0
        return (xp.where(steps == 0, first, 1 - self.dampening),)

    def update(
        self, xp: Any, params: Gradient, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """v <- beta v + (1 - dampening) g."""
        del xp, params
        counted = {name: coefficients[0] * g for name, g in gradient.items()} if coefficients else gradient
        velocity = {name: self.beta * memory["velocity"][name] + g for name, g in counted.items()}
        ahead = {name: g + self.beta * velocity[name] for name, g in gradient.items()} if self.nesterov else velocity
        return ahead, {"velocity": velocity}


@final
@dataclass(frozen=True)
class Adam(Direction):
    """The direction of `adam`; 1 - beta^t comes as a coefficient, exact to float64 on every backend."""

    beta_1: float
    beta_2: float
    epsilon: float
    epsilon_inside: bool = False
    corrected: bool = True
    """Whether m and v are divided by 1 - beta^t."""

    def init(self, params: Params) -> Memory:
        """m = v = 0."""
        return {"mean": _zeros(params), "square": _zeros(params)}

    def coefficients(self, xp: Any, steps: Any) -> tuple[Any, ...]:
        """1 - beta_1^t and sqrt(1 - beta_2^t), with t = 1 for the first step."""
        if not self.corrected:
            return ()
        return 1 - self.beta_1 ** (steps + 1.0), xp.sqrt(1 - self.beta_2 ** (steps + 1.0))

    def update(
        self, xp: Any, params: Gradient, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """direction = (m / c_1) / (sqrt(v) / c_2 + epsilon), or (m / c_1) / sqrt(v / c_2^2 + epsilon)."""
        del params
        c_1, c_2 = coefficients or (1.0, 1.0)
        mean = {name: self.beta_1 * memory["mean"][name] + (1 - self.beta_1) * g for name, g in gradient.items()}
        square = {
            name: self.beta_2 * memory["square"][name] + (1 - self.beta_2) * (g * g) for name, g in gradient.items()
        }
        if self.epsilon_inside:
            sizes = {name: xp.sqrt(square[name] / (c_2 * c_2) + self.epsilon) for name in gradient}
        else:
            sizes = {name: xp.sqrt(square[name]) / c_2 + self.epsilon for name in gradient}
        return {name: (mean[name] / c_1) / sizes[name] for name in gradient}, {"mean": mean, "square": square}


@final
@dataclass(frozen=True)
class RMSProp(Direction):
    """v <- beta v + (1 - beta) g^2; direction = g / (sqrt(v) + epsilon), or g / sqrt(v + epsilon)."""

    beta: float
    epsilon: float
    epsilon_inside: bool = False

    def init(self, params: Params) -> Memory:
        """v = 0."""
        return {"square": _zeros(params)}

    def coefficients(self, xp: Any, steps: Any) -> tuple[Any, ...]:
        """None."""
        del xp, steps
        return ()

    def update(
        self, xp: Any, params: Gradient, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """v <- beta v + (1 - beta) g^2."""
        del params, coefficients
        square = {name: self.beta * memory["square"][name] + (1 - self.beta) * (g * g) for name, g in gradient.items()}
        ahead = {name: g / _root(xp, square[name], self.epsilon, self.epsilon_inside) for name, g in gradient.items()}
        return ahead, {"square": square}


@final
@dataclass(frozen=True)
class Adagrad(Direction):
    """s <- s + g^2; direction = g / (sqrt(s) + epsilon), or g / sqrt(s + epsilon)."""

    epsilon: float
    start: float = 0.0
    epsilon_inside: bool = False

    def init(self, params: Params) -> Memory:
        """s = start."""
        return {"sum": {name: each + self.start for name, each in _zeros(params).items()}}

    def coefficients(self, xp: Any, steps: Any) -> tuple[Any, ...]:
        """None."""
        del xp, steps
        return ()

    def update(
        self, xp: Any, params: Gradient, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """s <- s + g^2."""
        del params, coefficients
        total = {name: memory["sum"][name] + g * g for name, g in gradient.items()}
        ahead = {name: g / _root(xp, total[name], self.epsilon, self.epsilon_inside) for name, g in gradient.items()}
        return ahead, {"sum": total}


@final
@dataclass(frozen=True)
class Decayed(Direction):
    """Another direction with weight decay: that of g + decay theta, or, decoupled, that of g, + decay theta."""

    direction: Direction
    decay: float
    decoupled: bool

    def init(self, params: Params) -> Memory:
        """The direction's."""
        return self.direction.init(params)

    def coefficients(self, xp: Any, steps: Any) -> tuple[Any, ...]:
        """The direction's."""
        return self.direction.coefficients(xp, steps)

    def update(
        self, xp: Any, params: Gradient, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """Add the decay before or after."""
        if self.decoupled:
            ahead, memory = self.direction.update(xp, params, gradient, memory, coefficients)
            return {name: ahead[name] + self.decay * value for name, value in params.items()}, memory
        pulled = {name: gradient[name] + self.decay * value for name, value in params.items()}
        return self.direction.update(xp, params, pulled, memory, coefficients)


@final
@dataclass(frozen=True)
class Clipped(Direction):
    """Another direction, of the gradient cut to a norm: g min(1, norm / (|g| + added))."""

    direction: Direction
    norm: float
    added: float

    def init(self, params: Params) -> Memory:
        """The direction's."""
        return self.direction.init(params)

    def coefficients(self, xp: Any, steps: Any) -> tuple[Any, ...]:
        """The direction's."""
        return self.direction.coefficients(xp, steps)

    def update(
        self, xp: Any, params: Gradient, gradient: Gradient, memory: Memory, coefficients: Sequence[Any]
    ) -> tuple[Gradient, Memory]:
        """norm / max(|g| + added, norm) is that minimum, and finite at g = 0."""
        size = xp.sqrt(sum(xp.sum(g * g) for g in gradient.values())) + self.added
        share = self.norm / xp.maximum(size, xp.full_like(size, self.norm))
        cut = {name: share * g for name, g in gradient.items()}
        return self.direction.update(xp, params, cut, memory, coefficients)


def _root(xp: Any, square: Any, epsilon: float, inside: bool) -> Any:
    return xp.sqrt(square + epsilon) if inside else xp.sqrt(square) + epsilon


def _zeros(params: Params) -> dict[str, NDArray[np.float64]]:
    return {name: np.zeros_like(value) for name, value in params.items()}
