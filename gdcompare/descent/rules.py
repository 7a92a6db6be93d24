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
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import NamedTuple

from gdcompare.descent.directions import Adagrad, Adam, Clipped, Decayed, Direction, Momentum, Plain, RMSProp
from gdcompare.descent.schedules import (
    SCHEDULES,
    Schedule,
    as_schedule,
    call,
    checked_rate,
    constant,
    cosine,
    inverse_time,
    load_schedule,
)
from gdcompare.table import as_html, table
from gdcompare.words import did_you_mean

__all__ = [
    "RULES",
    "SCHEDULES",
    "Direction",
    "Rule",
    "Schedule",
    "adagrad",
    "adam",
    "adamw",
    "clipped",
    "constant",
    "cosine",
    "inverse_time",
    "load",
    "load_schedule",
    "momentum",
    "nesterov",
    "rmsprop",
    "sgd",
]


class Rule(NamedTuple):
    """An update rule, `theta <- theta - learning_rate(t) * direction_t`, with t = 0 for the first step.

    It is written as it is made.

    >>> sgd(0.01), momentum(cosine(0.1, steps=100))
    (sgd(learning_rate=0.01), momentum(learning_rate=cosine(rate=0.1, steps=100, final=0.0), beta=0.9))
    >>> clipped(adamw(0.1), 1.0)  # doctest: +ELLIPSIS
    clipped(rule=adamw(learning_rate=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-08, weight_decay=0.01), norm=1.0)
    """

    learning_rate: Schedule
    direction: Direction

    def __repr__(self) -> str:
        name, settings = self._named()
        return call(name, settings)

    def _repr_html_(self) -> str:
        name, settings = self._named()
        about = RULES[name].__doc__ if name in RULES else type(self.direction).__doc__
        words = " ".join((about or "").partition(">>>")[0].split())
        return as_html([name, *filter(None, [words]), table("", ["setting", "value"], settings.items(), left=2)])

    def _named(self) -> tuple[str, dict[str, str]]:
        """Return the name of what makes it, and what that is given, unless by default."""
        direction = self.direction
        if isinstance(direction, Clipped):
            added = {"added": repr(direction.added)} if direction.added else {}
            return "clipped", {
                "rule": repr(self._replace(direction=direction.direction)),
                "norm": repr(direction.norm),
            } | added
        if isinstance(direction, Decayed):
            name, settings = self._replace(direction=direction.direction)._named()
            return ("adamw" if direction.decoupled else name), settings | {"weight_decay": repr(direction.decay)}
        rate = {"learning_rate": _written(self.learning_rate)}
        own = type(direction).__name__.lower()
        kind = "sgd" if own == "plain" else own
        if kind not in RULES or not is_dataclass(direction):
            return type(self).__name__, rate | {"direction": _written(direction)}
        given = {each.name: getattr(direction, each.name) for each in fields(direction)}
        usual = {each.name: each.default for each in fields(direction)}
        if given.pop("nesterov", False):
            kind = "nesterov"
        return kind, rate | {name: repr(value) for name, value in given.items() if value != usual[name]}


def sgd(learning_rate: float | Schedule, *, weight_decay: float = 0.0) -> Rule:
    """Gradient descent: direction = g, or g + weight_decay theta.

    >>> import gdcompare as gdc
    >>> data = gdc.Dataset([[0.0], [1.0]], [1.0, 3.0])
    >>> fit = gdc.descend("linear-regression", data, "numpy", sgd(0.5), epochs=1)
    >>> float(fit.parameters["theta_0"]), fit.parameters["theta_1"].tolist()
    (2.0, [1.5])
    """
    return Rule(as_schedule(learning_rate), _decayed(Plain(), weight_decay))


def momentum(
    learning_rate: float | Schedule, beta: float = 0.9, *, dampening: float = 0.0, weight_decay: float = 0.0
) -> Rule:
    """Heavy ball (Polyak 1964): v <- beta v + (1 - dampening) g, direction = v.

    v starts at the first g, undampened, as in `torch.optim`; optax has no dampening. Weight decay adds to g.
    """
    direction = Momentum(_fraction("beta", beta), _fraction("dampening", dampening), nesterov=False)
    return Rule(as_schedule(learning_rate), _decayed(direction, weight_decay))


def nesterov(learning_rate: float | Schedule, beta: float = 0.9, *, weight_decay: float = 0.0) -> Rule:
    """Nesterov momentum as in `torch.optim` (Sutskever et al. 2013): v <- beta v + g, direction = g + beta v."""
    direction = Momentum(_fraction("beta", beta), 0.0, nesterov=True)
    return Rule(as_schedule(learning_rate), _decayed(direction, weight_decay))


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
    return Rule(as_schedule(learning_rate), _decayed(direction, weight_decay))


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
    return Rule(as_schedule(learning_rate), _decayed(direction, weight_decay, decoupled=True))


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
    return Rule(as_schedule(learning_rate), _decayed(direction, weight_decay))


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
    return Rule(as_schedule(learning_rate), _decayed(direction, weight_decay))


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
        raise LookupError(f"unknown rule {name!r}; known: {', '.join(sorted(RULES))}{did_you_mean(name, RULES)}")
    return RULES[name](learning_rate)


def _decayed(direction: Direction, weight_decay: float, *, decoupled: bool = False) -> Direction:
    decay = checked_rate(weight_decay, "weight_decay")
    return Decayed(direction, decay, decoupled) if decay else direction


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


def _fraction(what: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{what} must be in [0, 1), not {value!r}")
    return float(value)


def _positive(what: str, value: float) -> float:
    if not value > 0 or not math.isfinite(value):
        raise ValueError(f"{what} must be a positive number, not {value}")
    return float(value)
