"""What `docs/performance.md` is about: pieces of work, who does them, and how fast ours is meant to be.

A contest is one race in a process of its own, on one thread, in float64. A target holds one of ours against another
contender of the same race, and says what takes the time, for where it is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Literal, TypeAlias

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.registry import how_to_install, own_this_process
from gdcompare.timing.contender import Contender, Judgement
from gdcompare.timing.work import Work

from . import by_hand, contenders, peers
from .checked import DescentCase, GradientCase, descent_case, gradient_case

Make: TypeAlias = Callable[[], Contender]
Rate: TypeAlias = tuple[Literal["bytes", "flops"], float]


@dataclass(frozen=True)
class Target:
    """A figure to reach: `ours`, the fastest of them, is to take at most so many times as long as `theirs`.

    "added": at most so many seconds more than `theirs`. "seconds": at most so many. "first": so many seconds of its
    first call in a fresh process, nothing compiled before. "memory": bytes beyond the inputs, in sizes of the data.
    """

    ours: tuple[str, ...]
    theirs: str
    at_most: float
    why: str = ""
    """What takes the time; shown where the target is missed."""

    kind: Literal["ratio", "added", "seconds", "first", "memory"] = "ratio"


@dataclass(frozen=True)
class Contest:
    """A piece of work, and all who do it."""

    title: str
    entries: Mapping[str, Make]
    ours: tuple[str, ...]
    unit: str = "call"
    per_call: int = 1
    """How many units are in a call: steps of a descent."""

    flops: float = 0.0
    """Floating-point operations that a unit needs at least."""

    moved: float = 0.0
    """Bytes that a unit must read or write in memory at least."""

    targets: tuple[Target, ...] = ()
    kind: Literal["descents", "gradients", "verdicts", "larger verdicts", "machine"] = "gradients"
    owned: bool = True
    """Whether frameworks may be set up for the process, as our command line does (`registry.own_this_process`)."""

    data: float = 0.0
    """Bytes of the inputs."""

    rates: Mapping[str, Rate] = field(default_factory=dict)
    """Of contenders that show what the machine can do: what, and how many of them in a call."""

    def contenders(self) -> list[Contender]:
        """Make everyone ready; who cannot be is a contender that fails with the reason."""
        return [_ready(name, make) for name, make in self.entries.items()]


def contest(title: str) -> list[Contender]:
    """Return the contenders of a contest, in a process that is its own."""
    found = CONTESTS[title]
    if found.owned:
        own_this_process()
    return found.contenders()


def contender(title: str, name: str) -> Contender:
    """Return one of them."""
    if CONTESTS[title].owned:
        own_this_process()
    return _ready(name, CONTESTS[title].entries[name])


def _ready(name: str, make: Make) -> Contender:
    try:
        found = make()
    except (Exception, pytest.skip.Exception) as error:
        reason = error if isinstance(error, Exception) else peers.MissingPeerError(str(error))

        def call() -> Any:
            raise reason

        return Contender(name, call, lambda _: Judgement(right=False))
    return Contender(name, found.call, found.judge, found.ready, found.facts)


def _backend(name: str) -> gdc.Backend[Any]:
    if (line := how_to_install(name.partition("[")[0])) is not None:
        raise peers.MissingPeerError(line)
    return gdc.load_backend(name)


def _ours(make: Callable[..., Contender], case: Any, name: str, *more: Any) -> Contender:
    return make(case, _backend(name), *more)


# Descents


def _descent(case: DescentCase, *names: str) -> dict[str, Make]:
    return {
        name: partial(contenders.descent_by_hand, case, name)
        if name in contenders.DESCENTS_BY_HAND
        else partial(_ours, contenders.descent, case, name)
        for name in names
    }


def _full_batch(what: str, steps: int, names: tuple[str, ...], targets: tuple[Target, ...], **more: Any) -> Contest:
    case = descent_case(40, 2, None, steps)
    return Contest(
        f"full-batch step, n = 40, d = 2, with history: {what}",
        _descent(case, *names),
        tuple(name for name in names if name not in contenders.DESCENTS_BY_HAND),
        "step",
        steps,
        flops=case.n * (4 * case.d + 5),
        moved=8 * (case.d + 2),
        targets=targets,
        kind="descents",
        **more,
    )


def _stochastic(n: int, d: int, epochs: int, targets: tuple[Target, ...]) -> Contest:
    case = descent_case(n, d, 1, epochs)
    names = ["SGDRegressor, same rows", *(["SGDRegressor, same steps"] if d == 1 else [])]

    def of_sklearn(name: str) -> Contender:
        peers.peer("sklearn")
        return next(each for each in contenders.sklearn_descents(case) if each.name == name)

    entries: dict[str, Make] = {"jax": partial(_ours, contenders.descent_without_history, case, "jax")}
    return Contest(
        f"stochastic step, n = {n:,}, d = {d}, no history",
        entries | {name: partial(of_sklearn, name) for name in names},
        ("jax",),
        "step",
        case.steps,
        flops=4 * d + 5,
        moved=8 * (d + 1),
        targets=targets,
        kind="descents",
    )


_LOOP = "most of it is the compiled loop over single rows, the rest is drawing them"

_DESCENTS = [
    _full_batch(
        "NumPy",
        500,
        ("numpy", "numpy by hand", "numpy by hand, tight"),
        (
            Target(
                ("numpy",),
                "numpy by hand, tight",
                1.2,
                "a step goes through the seam: dictionaries of parameters, the rule, and the problem's own formula for "
                "any array library, against one loop in which all of that is written out",
            ),
        ),
    ),
    _full_batch(
        "PyTorch",
        128,
        ("torch", "torch[compiled]", "torch.autograd by hand", "torch.optim.SGD"),
        (
            Target(("torch",), "torch.autograd by hand", 1.05, "the seam and the rule of each step, in Python"),
            Target(("torch[compiled]",), "torch.optim.SGD", 0.1, "chunks of 16 steps; longer ones compile for minutes"),
            Target(("torch[compiled]",), "", 30, "a C++ compiler translates 16 steps at once", "first"),
        ),
    ),
    _full_batch(
        "JAX",
        8000,
        ("jax", "bare lax.scan"),
        (Target(("jax",), "bare lax.scan", 1.1, "the fixed cost of a descent: checks, transfers and the record"),),
    ),
    _full_batch(
        "JAX in a process that is not ours",
        8000,
        ("jax", "bare lax.scan"),
        (Target(("jax",), "bare lax.scan", 1.1, "the fixed cost of a descent: checks, transfers and the record"),),
        owned=False,
    ),
    _full_batch(
        "JAX and optax",
        4000,
        ("jax", "optax, jitted step"),
        (Target(("jax",), "optax, jitted step", 0.01, "the fixed cost of a descent is a good part of 4000 steps"),),
    ),
    *(
        _stochastic(
            n,
            1,
            epochs,
            (
                Target(("jax",), "SGDRegressor, same rows", 0.6, _LOOP),
                Target(("jax",), "SGDRegressor, same steps", 1.0, _LOOP),
            ),
        )
        for n, epochs in ((40, 2000), (100_000, 2))
    ),
    _stochastic(
        40,
        20,
        1000,
        (Target(("jax",), "SGDRegressor, same rows", 1.5, _LOOP),),
    ),
]


# Gradients of every row

_TORCH = ("torch", "torch[compiled]", "torch[derived]")
_PACKED = {"Opacus, hooks": "hooks", "Opacus, ExpandedWeights": "ew"}
_OPACUS = "Opacus, the faster"
"""Stands in a target for whichever of the two is faster."""


def _rows(n: int, d: int, targets: tuple[Target, ...]) -> Contest:
    case = gradient_case("linear-regression", n, d)
    ours = ("numpy", "jax", *_TORCH)
    by_name: dict[str, Make] = {
        name: partial(_ours, contenders.per_sample_gradients, case, name, name) for name in ours
    }
    by_name |= {
        f"{name} by hand": partial(_by_hand_rows, case, f"{name} by hand") for name in ("numpy", "jax", "torch")
    }
    by_name |= {name: partial(_packed_linear, case, name) for name in (*_PACKED, "BackPACK")}
    return Contest(
        f"per-sample gradients, linear regression, {n:,} x {d}",
        by_name,
        ours,
        flops=n * (3 * d + 3),
        moved=8 * n * (2 * d + 2),
        targets=targets,
    )


def _by_hand_rows(case: GradientCase, name: str) -> Contender:
    return contenders.per_sample_by_hand(case, name)


def _packed_linear(case: GradientCase, name: str) -> Contender:
    network = peers.linear(case)
    call = peers.opacus(network, _PACKED[name]) if name in _PACKED else peers.backpack(network)
    return peers.judged_linear(name, case, network, call)


@cache
def _convolution_work() -> Work:
    return Work("convolution-network", "per-sample", 256, 64, backends=("numpy", "jax", *_TORCH))


def _convolution() -> Contest:
    n, d, width, channels = 256, 64, 3, 2
    places, weights = d - width + 1, width * channels + 2 * channels + 1
    ours = ("numpy", "jax", *_TORCH)
    entries: dict[str, Make] = {name: partial(_of_work, name) for name in ours}
    entries["jax by hand"] = _convolution_by_hand
    entries |= {name: partial(_packed_convolution, name) for name in (*_PACKED, "BackPACK")}
    return Contest(
        f"per-sample gradients, convolution network, {n} x {d}",
        entries,
        ours,
        flops=n * places * channels * (4 * width + 6),
        moved=8 * n * (d + 1 + weights),
        targets=(
            Target(("numpy",), _OPACUS, 1.0, "NumPy's tanh and its small batched products, one by one"),
            Target(_TORCH, _OPACUS, 1.0, "the same operations in torch, through a vmap or one by one"),
            Target(
                ("jax",),
                "jax by hand",
                1.1,
                "the problem's formula takes all rows at once, and is then vectorised again",
            ),
        ),
    )


def _of_work(name: str) -> Contender:
    _backend(name)
    return _convolution_work().contender(name)


def _convolution_by_hand() -> Contender:
    work = _convolution_work()
    return peers.judged_rows("jax by hand", work, peers.jax_convolution(work))


def _packed_convolution(name: str) -> Contender:
    work = _convolution_work()
    network = peers.convolution(work)
    call = peers.opacus(network, _PACKED[name]) if name in _PACKED else peers.backpack(network)
    return peers.judged_rows(name, work, call, network.convert)


# Gradients of the mean


def _seam() -> Contest:
    case = gradient_case("linear-regression", 40, 2)
    frameworks = ("numpy", "torch", "jax")
    entries: dict[str, Make] = {}
    for name in frameworks:
        entries[name] = partial(_ours, contenders.gradient, case, name)
        entries[f"{name} by hand"] = partial(contenders.gradient_by_hand, case, f"{name} by hand", "float64")
    why = "dictionaries of parameters, and the problem's formula for any array library"
    return Contest(
        "the seam: loss and gradient, 40 x 2",
        entries,
        frameworks,
        flops=case.n * (4 * case.d + 5),
        targets=tuple(Target((name,), f"{name} by hand", 2e-6, why, "added") for name in frameworks),
    )


def _whole() -> Contest:
    n, d = 500_000, 20
    case = gradient_case("linear-regression", n, d)
    entries: dict[str, Make] = {}
    for name in ("numpy", "torch", "jax"):
        entries[name] = partial(_ours, contenders.gradient, case, name)
        entries[_there_and_back(name)] = partial(_ours, contenders.gradient_there_and_back, case, name)
    entries["one read of the data"] = partial(_read, case)
    copies = (
        "the data are copied where the framework cannot take NumPy's memory as it lies, and beyond that it is what the "
        "program and its compiling hold"
    )
    return Contest(
        f"loss and gradient of all data, {n:,} x {d}",
        entries,
        tuple(entries)[:-1],
        flops=n * (4 * d + 5),
        moved=8 * n * (d + 1),
        data=8 * n * (d + 1),
        rates={"one read of the data": ("bytes", 8 * n * d)},
        targets=(
            Target(
                ("numpy",),
                "one read of the data",
                1.6,
                "two products with a block of rows in the cache, at the pace of BLAS for 20 columns, not of the memory",
            ),
            Target((_there_and_back("numpy"),), "numpy", 1.3, "the checks read the data once more"),
            Target((_there_and_back("numpy"),), "", 0.2, copies, "memory"),
            Target((_there_and_back("torch"),), "", 1.1, copies, "memory"),
            Target((_there_and_back("jax"),), "", 1.1, copies, "memory"),
        ),
    )


def _there_and_back(name: str) -> str:
    return f"gdc.value_and_grad, {name}"


def _read(case: GradientCase) -> Contender:
    total = float(case.data.features.sum())
    size = float(np.abs(case.data.features).sum())

    def judge(answer: Any) -> Judgement:
        return Judgement(abs(answer - total) <= 1e-9 * size, f"the sum is {answer}, not {total}")

    return Contender("one read of the data", by_hand.one_read(case), judge)


# Verdicts


_ENCLOSING = "most of it encloses the truth, in ball arithmetic"


def _verdicts() -> Contest:
    case = gradient_case("logistic-regression", 1000, 20)
    entries = dict(peers.verdicts(case))
    return Contest(
        "a verdict on a right gradient, logistic regression, 1,000 x 20",
        entries,
        tuple(name for name in entries if name.startswith("gdc.")),
        "verdict",
        targets=(Target(("gdc.verify, numpy",), "", 0.020, _ENCLOSING, "seconds"),),
        kind="verdicts",
    )


def _larger_verdicts() -> Iterator[Contest]:
    """Verdicts of a right gradient in either dtype, and of one that is 0.1 % too large."""
    logistic, network = gdc.load_problem("logistic-regression"), gdc.load_problem("tanh-network", widths=(128, 128))
    for words, question, seconds in (
        ("logistic regression, 100,000 x 20", contenders.Question(logistic, 100_000, 20), 1.0),
        ("logistic regression, 1,000 x 2,000", contenders.Question(logistic, 1000, 2000), 0.8),
        ("a tanh network of 18,049 parameters, 100 rows", contenders.Question(network, 100, 10), 0.25),
        ("a tanh network of 18,049 parameters, 800 rows", contenders.Question(network, 800, 10), 2.0),
    ):
        entries: dict[str, Make] = {
            "right": partial(contenders.verdict, question, "right"),
            "one wrong": partial(contenders.verdict, question, "one wrong", factor=1.001),
        }
        if question.n < 10_000:  # of a long sum float32 keeps too few digits for a verdict
            entries["right, float32"] = partial(contenders.verdict, question, "right, float32", "float32")
        targets = (
            Target(("right",), "", seconds, _ENCLOSING, "seconds"),
            Target(("one wrong",), "right", 2.0, "the diagnosis asks for the gradients of the samples, and of batches"),
        )
        yield Contest(
            f"a verdict, {words}", entries, tuple(entries), "verdict", targets=targets, kind="larger verdicts"
        )


# What the machine can do at most

READ, PRODUCT = "read 160 MB", "product of matrices, 512 x 512"


def _machine() -> Contest:
    entries = {READ: _reading, "copy 80 MB": _copying, PRODUCT: _multiplying}
    rates: dict[str, Rate] = {READ: ("bytes", 160e6), PRODUCT: ("flops", 2.0 * 512**3)}
    return Contest("the machine", entries, (), kind="machine", rates=rates)


def _reading() -> Contender:
    numbers = np.ones(20_000_000)
    return Contender(
        READ, lambda: np.add.reduce(numbers), lambda answer: Judgement(answer == len(numbers), "a wrong sum")
    )


def _copying() -> Contender:
    numbers, there = np.arange(10_000_000.0), np.empty(10_000_000)

    def copied() -> Any:
        np.copyto(there, numbers)
        return there

    return Contender("copy", copied, lambda answer: Judgement(bool((answer == numbers).all()), "a wrong copy"))


def _multiplying() -> Contender:
    ones = np.ones((512, 512))

    def judge(answer: Any) -> Judgement:
        return Judgement(bool((answer == 512).all()), "a wrong product")

    return Contender(PRODUCT, lambda: ones @ ones, judge)


CONTESTS: dict[str, Contest] = {
    each.title: each
    for each in (
        _machine(),
        *_DESCENTS,
        _rows(
            40,
            1,
            (
                Target(("numpy",), "numpy by hand", 1.2, "dictionaries and the formula for any array library"),
                Target(("jax",), "jax by hand", 1.1, "the seam"),
                Target(_TORCH, _OPACUS, 0.3, "torch's cost of starting an operation"),
            ),
        ),
        _rows(
            10_000,
            100,
            (
                Target(("numpy",), "numpy by hand", 1.0, "both do the same, so that only noise is between them"),
                Target(("jax",), "jax by hand", 1.1, "the seam"),
                Target(_TORCH, _OPACUS, 0.9, "memory: the answer is written once by either"),
            ),
        ),
        _convolution(),
        _seam(),
        _whole(),
        _verdicts(),
        *_larger_verdicts(),
    )
}
FASTER_OF = {_OPACUS: tuple(_PACKED)}
"""Names that stand for the faster of several."""
