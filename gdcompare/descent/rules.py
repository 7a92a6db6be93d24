"""Update rules: how a gradient becomes a step.

Every rule here is `theta <- theta - rate_t * direction_t`. The learning rate is a schedule, a function of the step
number; the direction is an init/update pair over the array namespace `xp`, with a memory handed from step to step. Both
are formulas: `verify_rule` runs them in proven arithmetic, to judge an optimizer of anybody's.

What depends on the step number alone is computed once, in float64 with NumPy, and travels to the backend as data: all
backends see the same numbers, and a compiling backend does not compile again for another learning rate.

Where `torch.optim` and `optax` agree, their conventions are the defaults: momentum without dampening, Adam with its
epsilon outside the root. Where they do not, a setting says which: see `rmsprop`, `adagrad` and `clipped`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.table import as_html, table

Steps: TypeAlias = NDArray[np.int64]
Schedule: TypeAlias = Callable[[Steps], NDArray[np.floating]]
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


class Rule(NamedTuple):
    """An update rule, `theta <- theta - learning_rate(t) * direction_t`, with t = 0 for the first step.

    It is written as it is made.

    >>> sgd(0.01), momentum(cosine(0.1, steps=100))
    (sgd(learning_rate=0.01), momentum(learning_rate=cosine(rate=0.1, steps=100, final=0.0), beta=0.9))
    """

    learning_rate: Schedule
    direction: Direction

    def __repr__(self) -> str:
        name, settings = self._named()
        return _call(name, {"learning_rate": _written(self.learning_rate)} | settings)

    def _repr_html_(self) -> str:
        name, settings = self._named()
        rows = [("learning rate", _written(self.learning_rate)), *settings.items()]
        about = RULES[name].__doc__ if name in RULES else type(self.direction).__doc__
        words = " ".join((about or "").partition(">>>")[0].split())
        return as_html([name, *filter(None, [words]), table("", ["setting", "value"], rows, left=2)])

    def _named(self) -> tuple[str, dict[str, str]]:
        """Return the name of what makes it, and what that is given besides the learning rate, unless by default."""
        own = type(self.direction).__name__.lower()
        kind = "sgd" if own == "plain" else own
        if kind not in RULES or not is_dataclass(self.direction):
            return type(self).__name__, {"direction": _written(self.direction)}
        settings = {each.name: getattr(self.direction, each.name) for each in fields(self.direction)}
        defaults = {each.name: each.default for each in fields(self.direction)}
        if settings.pop("nesterov", False):
            kind = "nesterov"
        return kind, {name: repr(value) for name, value in settings.items() if value != defaults[name]}


def sgd(learning_rate: float | Schedule, *, weight_decay: float = 0.0) -> Rule:
    """Gradient descent: direction = g, or g + weight_decay theta.

    >>> import gdcompare as gdc
    >>> data = gdc.Dataset([[0.0], [1.0]], [1.0, 3.0])
    >>> fit = gdc.descend("linear-regression", data, "numpy", sgd(0.5), epochs=1)
    >>> float(fit.parameters["theta_0"]), fit.parameters["theta_1"].tolist()
    (2.0, [1.5])
    """
    return Rule(_schedule(learning_rate), _decayed(Plain(), weight_decay))


def momentum(
    learning_rate: float | Schedule, beta: float = 0.9, *, dampening: float = 0.0, weight_decay: float = 0.0
) -> Rule:
    """Heavy ball (Polyak 1964): v <- beta v + (1 - dampening) g, direction = v.

    v starts at the first g, undampened, as in `torch.optim`; optax has no dampening. Weight decay adds to g.
    """
    direction = Momentum(_fraction("beta", beta), _fraction("dampening", dampening), nesterov=False)
    return Rule(_schedule(learning_rate), _decayed(direction, weight_decay))


def nesterov(learning_rate: float | Schedule, beta: float = 0.9, *, weight_decay: float = 0.0) -> Rule:
    """Nesterov momentum as in `torch.optim` (Sutskever et al. 2013): v <- beta v + g, direction = g + beta v."""
    direction = Momentum(_fraction("beta", beta), 0.0, nesterov=True)
    return Rule(_schedule(learning_rate), _decayed(direction, weight_decay))


def adam(
    learning_rate: float | Schedule,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    *,
    weight_decay: float = 0.0,
) -> Rule:
    """Adam (Kingma and Ba 2015, algorithm 1), with t = 1 for the first step.

    m <- beta_1 m + (1 - beta_1) g,   v <- beta_2 v + (1 - beta_2) g^2,
    direction = (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon).

    Weight decay adds to g, and so goes through m and v; `adamw` keeps it out of them.
    """
    direction = Adam(_fraction("beta_1", beta_1), _fraction("beta_2", beta_2), _positive("epsilon", epsilon))
    return Rule(_schedule(learning_rate), _decayed(direction, weight_decay))


def adamw(
    learning_rate: float | Schedule,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    *,
    weight_decay: float = 0.01,
) -> Rule:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): direction = Adam's + weight_decay theta.

    The decay of a step is thus rate_t weight_decay theta, as in `torch.optim` and optax.
    """
    direction = Adam(_fraction("beta_1", beta_1), _fraction("beta_2", beta_2), _positive("epsilon", epsilon))
    return Rule(_schedule(learning_rate), _decayed(direction, weight_decay, decoupled=True))


def rmsprop(
    learning_rate: float | Schedule,
    beta: float = 0.99,
    epsilon: float = 1e-8,
    *,
    epsilon_inside: bool = False,
    weight_decay: float = 0.0,
) -> Rule:
    """RMSProp (Tieleman and Hinton 2012): v <- beta v + (1 - beta) g^2, direction = g / (sqrt(v) + epsilon).

    With `epsilon_inside`, g / sqrt(v + epsilon): optax's default, with beta = 0.9 there.
    """
    direction = RMSProp(_fraction("beta", beta), _positive("epsilon", epsilon), epsilon_inside)
    return Rule(_schedule(learning_rate), _decayed(direction, weight_decay))


def adagrad(
    learning_rate: float | Schedule,
    epsilon: float = 1e-10,
    *,
    start: float = 0.0,
    epsilon_inside: bool = False,
    weight_decay: float = 0.0,
) -> Rule:
    """Adagrad (Duchi, Hazan and Singer 2011): s <- s + g^2 from s = start, direction = g / (sqrt(s) + epsilon).

    The defaults are those of `torch.optim`; optax starts at 0.1 and has epsilon, 1e-7, inside the root.
    """
    if not 0 <= start < math.inf:
        raise ValueError(f"start must be a finite number, 0 or above, not {start!r}")
    direction = Adagrad(_positive("epsilon", epsilon), float(start), epsilon_inside)
    return Rule(_schedule(learning_rate), _decayed(direction, weight_decay))


def clipped(rule: Rule, norm: float, *, added: float = 0.0) -> Rule:
    """Return the rule after its gradient is cut to a norm: g <- g min(1, norm / (|g| + added)).

    |g| is the Euclidean norm over all parameters together, as in `optax.clip_by_global_norm`; with `added=1e-6` that of
    `torch.nn.utils.clip_grad_norm_`.

    >>> import gdcompare as gdc
    >>> data = gdc.Dataset([[0.0]], [4.0])
    >>> fit = gdc.descend("linear-regression", data, "numpy", clipped(sgd(0.5), 1.0), epochs=1)  # g = (-8, 0)
    >>> float(fit.parameters["theta_0"])
    0.5
    """
    return rule._replace(direction=Clipped(rule.direction, _positive("norm", norm), float(added)))


RULES: dict[str, Callable[[float | Schedule], Rule]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
}


def load(name: str, learning_rate: float | Schedule) -> Rule:
    """Return the rule of that name with its default settings.

    >>> load("newton", 0.1)
    Traceback (most recent call last):
    ...
    LookupError: unknown rule 'newton'; known: adagrad, adam, adamw, momentum, nesterov, rmsprop, sgd
    """
    if name not in RULES:
        raise LookupError(f"unknown rule {name!r}; known: {', '.join(sorted(RULES))}")
    return RULES[name](learning_rate)


def constant(rate: float) -> Schedule:
    """rate_t = rate."""
    return Constant(_checked_rate(rate))


def inverse_time(rate: float, decay: float = 1.0) -> Schedule:
    """rate_t = rate / (1 + decay t): the 1/t schedule of Robbins and Monro (1951).

    >>> inverse_time(1.0)(np.arange(3)).tolist()
    [1.0, 0.5, 0.3333333333333333]
    """
    return InverseTime(_checked_rate(rate), _checked_rate(decay, "decay"))


def cosine(rate: float, steps: int, final: float = 0.0) -> Schedule:
    """rate_t = final + (rate - final) (1 + cos(pi t / steps)) / 2 up to t = steps, then `final`.

    Without the restarts of Loshchilov and Hutter (2017).

    >>> cosine(1.0, steps=2)(np.arange(4)).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    checked, checked_final = _checked_rate(rate), _checked_rate(final, "final")
    if steps < 1:
        raise ValueError(f"a cosine schedule needs at least 1 step, not {steps}")
    return Cosine(checked, steps, checked_final)


SCHEDULES = ("constant", "cosine", "inverse-time")


def load_schedule(name: str, rate: float, steps: int) -> Schedule:
    """Return the schedule of that name that starts at `rate`; a cosine reaches 0 after `steps` steps.

    >>> load_schedule("step", 0.1, steps=100)
    Traceback (most recent call last):
    ...
    LookupError: unknown schedule 'step'; known: constant, cosine, inverse-time
    """
    if name not in SCHEDULES:
        raise LookupError(f"unknown schedule {name!r}; known: {', '.join(SCHEDULES)}")
    if name == "cosine":
        return cosine(rate, steps)
    return inverse_time(rate) if name == "inverse-time" else constant(rate)


@final
@dataclass(frozen=True)
class Constant:
    """The schedule of `constant`, which is written as a number."""

    rate: float

    def __call__(self, steps: Steps) -> NDArray[np.floating]:
        """rate_t = rate."""
        return np.full(steps.shape, self.rate)

    def __repr__(self) -> str:
        return repr(self.rate)


@final
@dataclass(frozen=True)
class InverseTime:
    """The schedule of `inverse_time`."""

    rate: float
    decay: float

    def __call__(self, steps: Steps) -> NDArray[np.floating]:
        """rate_t = rate / (1 + decay t)."""
        return self.rate / (1 + self.decay * steps)

    def __repr__(self) -> str:
        return _call("inverse_time", {name: repr(value) for name, value in vars(self).items()})


@final
@dataclass(frozen=True)
class Cosine:
    """The schedule of `cosine`."""

    rate: float
    steps: int
    final: float

    def __call__(self, steps: Steps) -> NDArray[np.floating]:
        """rate_t = final + half (1 + cos(pi t / steps))."""
        half = (self.rate - self.final) / 2
        return self.final + half * (1 + np.cos(np.pi * np.minimum(steps / self.steps, 1.0)))

    def __repr__(self) -> str:
        return _call("cosine", {name: repr(value) for name, value in vars(self).items()})


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
    dampening: float
    nesterov: bool
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
    epsilon_inside: bool

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
    start: float
    epsilon_inside: bool

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


def _decayed(direction: Direction, weight_decay: float, *, decoupled: bool = False) -> Direction:
    decay = _checked_rate(weight_decay, "weight_decay")
    return Decayed(direction, decay, decoupled) if decay else direction


def _schedule(learning_rate: float | Schedule) -> Schedule:
    return learning_rate if callable(learning_rate) else constant(learning_rate)


def _call(name: str, arguments: Mapping[str, str]) -> str:
    return f"{name}({', '.join(f'{argument}={value}' for argument, value in arguments.items())})"


def _written(part: object) -> str:
    """Return a schedule or direction as it is written; of what would show an address, the name.

    >>> def halving(steps):
    ...     return 0.5**steps
    >>> sgd(halving), sgd(lambda steps: 0.5**steps)
    (sgd(learning_rate=halving), sgd(learning_rate=<lambda>))
    """
    words = repr(part)
    if " at 0x" not in words:
        return words
    return str(getattr(part, "__name__", f"<{type(part).__name__}>"))


def _checked_rate(rate: float, what: str = "learning rate") -> float:
    if not isinstance(rate, int | float | np.number) or not math.isfinite(rate) or rate < 0:
        raise ValueError(f"{what} must be a finite number, 0 or above, not {rate!r}")
    return float(rate)


def _fraction(what: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{what} must be in [0, 1), not {value!r}")
    return float(value)


def _positive(what: str, value: float) -> float:
    if not value > 0 or not math.isfinite(value):
        raise ValueError(f"{what} must be a positive number, not {value}")
    return float(value)


def _zeros(params: Params) -> dict[str, NDArray[np.float64]]:
    return {name: np.zeros_like(value) for name, value in params.items()}
