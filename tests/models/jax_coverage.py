"""How many of JAX's differentiable primitives and functions can be read, and are judged right.

    python -m tests.models.jax_coverage [NAME ...] [--functions] [--rooms jax.numpy ...]    names first

Each primitive that has a derivative is called as `jax_primitives.CASES` says: it is read if its program gives the loss,
and the gradient on floats is JAX's; where they differ at a kink, it says so.

With `--functions`, each public function of jax.lax, jax.numpy, jax.nn, jax.scipy.special and jax.scipy.linalg is called
as the audit calls it, or with one, two or three float64 arrays, the first of these that have a finite gradient that is
not 0, and JAX's gradient is judged as `gdcompare.verify` judges any. Whatever has no gradient so is named.

The loss is the sum of all that comes out, times fixed random cotangents.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.scipy.linalg
import jax.scipy.special
import numpy as np
from gdcompare_jax.audit import operations
from gdcompare_jax.models import from_function
from gdcompare_jax.program import read
from jax.interpreters import ad

import gdcompare as gdc
from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.numbers import Floats
from gdcompare.arithmetic.program import Program, ProgramError
from gdcompare.arithmetic.tape import Tape
from tests.models.jax_primitives import APART, CASES, SQUARE, Case, X, Y

READ, KINK, WRONG, FAILED, REFUSED = "read", "at a kink", "read wrongly", "failed", "refused"
RIGHT, CALLED_WRONG, UNDECIDED = "read and judged right", "called wrong", "read and not decided"
WITHOUT = "JAX has no derivative"
AGREEING = 1e-8
"""How far gradients of two right programs may be apart, as a share of the largest element."""
ROOMS = (jax.lax, jax.numpy, jax.numpy.linalg, jax.nn, jax.scipy.special, jax.scipy.linalg)
SHORT = {
    "jax.lax": "lax",
    "jax.numpy": "jnp",
    "jax.numpy.linalg": "jnp.linalg",
    "jax.nn": "nn",
    "jax.scipy.special": "special",
    "jax.scipy.linalg": "jax.scipy.linalg",
}
"""As the audit has them."""
ARGUMENTS = ((X,), (X / 2,), (X + 1,), (SQUARE,), (X, Y), (SQUARE, SQUARE[0]), (SQUARE, SQUARE.T), (X, X / 2, Y))


class Found(NamedTuple):
    """What became of a case."""

    what: str
    reason: str = ""


def found(case: Case) -> Found:
    """Read a case, and compare its gradient with JAX's."""
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = _loss(case.function)
        arrays = {f"x{i}": np.asarray(each, dtype=np.float64) for i, each in enumerate(case.arrays)}
        nothing = np.zeros(1)
        try:
            due = [np.asarray(each) for each in jax.grad(loss)([*arrays.values()], nothing, nothing)]
        except Exception as error:  # of any kind
            return Found(WITHOUT, str(error)[:100])
        try:
            program = read(loss, arrays, nothing, nothing, "float64", "case")
        except ProgramError as error:
            said = str(error).partition("cannot be read: ")[2] or str(error)
            return Found(WRONG if "read wrongly" in str(error) else REFUSED, re.sub(r"^\S+\.py:\d+: ", "", said))
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            return Found(FAILED, f"{type(error).__name__}: {str(error)[:200]}")
    mine = _gradient(program, Floats(), [*arrays.values()])
    if all(map(agree, mine, due)):
        return Found(READ)
    balls = BallNumbers()
    _gradient(program, balls, [*arrays.values()])
    if balls.kinks:
        return Found(KINK, f"{balls.kinks[0]}")
    apart = [(one, other) for one, other in zip(mine, due, strict=True) if not agree(one, other)]
    return Found(WRONG, f"the gradient differs: {np.ravel(apart[0][0])[:4]}, in JAX {np.ravel(apart[0][1])[:4]}")


def _loss(function: Callable[..., Any]) -> Callable[..., Any]:
    def loss(arrays: Any, features: Any, targets: Any) -> Any:
        del features, targets
        generator, total = np.random.default_rng(0), 0.0
        for each in jax.tree.leaves(function(*arrays)):
            if jax.dtypes.issubdtype(each.dtype, np.inexact):
                real = jax.numpy.real(each)
                total = total + jax.numpy.sum(real * generator.normal(size=real.shape))
        return total

    return loss


def agree(mine: Any, due: Any) -> bool:
    """Say whether two gradients are equal but for rounding; what is no number is so in both."""
    scale = np.abs(due[np.isfinite(due)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        near = (mine == due) | (np.abs(mine - due) <= AGREEING * np.maximum(scale, np.abs(due)))
    return mine.shape == due.shape and bool((near | (np.isnan(due) & np.isnan(mine))).all())


def _gradient(program: Program, numbers: Any, values: Sequence[Any]) -> list[Any]:
    tape = Tape(numbers)
    leaves = [tape.leaf(each) for each in values]
    with np.errstate(all="ignore"):
        tape.walk_back(program(tape, *leaves, tape.asarray(np.zeros(1)), tape.asarray(np.zeros(1))))
    return [np.asarray(tape.gradient(leaf)[0]) for leaf in leaves]


# What there is to read.


def primitives() -> set[str]:
    """Return the names of JAX's primitives that have a derivative."""
    return {each.name for each in (*ad.primitive_jvps, *ad.primitive_transposes)}


def functions(room: ModuleType, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Case | None]]:
    """Yield the functions of a module with arguments that give them a gradient; None where none here do."""
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = {operation.name: operation for operation in operations()}
        for name in sorted(dir(room)):
            function = getattr(room, name)
            if name.startswith("_") or not callable(function) or isinstance(function, type) or not wanted(name):
                continue
            cases = [Case(function, arrays) for arrays in ARGUMENTS]
            operation = known.get(f"{SHORT[room.__name__]}.{name}")
            if operation is not None and not operation.elementwise:
                examples: list[Any] = list(operation.examples())
                cases = [Case(each.call, tuple(each.arguments.values())) for each in examples] + cases
            slopes = [_slopes(case) for case in cases]
            finite = [i for i, each in enumerate(slopes) if each is not None and np.isfinite(each).all() and each.any()]
            others = [i for i, each in enumerate(slopes) if each is not None and each.any()]
            first = next(iter(finite or others), None)
            yield name, None if first is None else cases[first]


def _slopes(case: Case) -> Any:
    """Return the gradient as a line, of NaN where the loss is none; None if there is no gradient."""
    try:
        loss, found = jax.value_and_grad(_loss(case.function))([*case.arrays], None, None)
    except Exception:  # whatever it wants instead
        return None
    return np.concatenate([np.ravel(each) for each in found]) * (1.0 if np.isfinite(loss) else np.nan)


def judged(case: Case, dtype: str = "float64") -> Found:
    """Judge JAX's gradient by the program of the function."""
    loss = _loss(case.function)
    params = {f"x{i}": np.asarray(each, dtype=np.float64) for i, each in enumerate(case.arrays)}
    native = from_function(lambda given, *data: loss([given[key] for key in params], *data), params, name="it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = gdc.verify(native, (np.zeros((1, 1)), np.zeros(1)), params, dtype=dtype)
    except ProgramError as error:
        return Found(WRONG if "read wrongly" in str(error) else REFUSED, _without_line(str(error)))
    except Exception as error:  # which nobody should meet
        return Found(FAILED, f"{type(error).__name__}: {str(error)[:200]}")
    causes = "; ".join(f"{each.parameter}: {each.cause}" for each in report.entries if each.verdict != "agree")
    return Found({"agree": RIGHT, "wrong": CALLED_WRONG}.get(report.verdict, UNDECIDED), _without_line(causes))


def _without_line(said: str) -> str:
    """Return what a refusal says without its line and its way out, which are the same for all."""
    said = (said.partition("cannot be read: ")[2] or said).partition(". Write that part")[0]
    return re.sub(r" ?\(?\S+\.py:\d+\)?:?", "", said).strip()


def summary(results: dict[str, list[Found]]) -> tuple[Counter[str], str]:
    """Return how many are read, and the reasons why others are not."""
    counts, reasons = Counter(worst(each) for each in results.values()), defaultdict[str, set[str]](set)
    for name, each in results.items():
        for one in each:
            if one.what not in (READ, KINK, RIGHT):
                reasons[f"{one.what}: {one.reason}"].add(name)
    lines = [f"{len(names):4d}  {reason}\n      {', '.join(sorted(names))}" for reason, names in reasons.items()]
    return counts, "\n".join(sorted(lines, reverse=True))


def worst(each: Sequence[Found]) -> str:
    """Return what became of all cases of a primitive together."""
    kinds = {one.what for one in each}
    return next(
        (what for what in (CALLED_WRONG, WRONG, FAILED, REFUSED, UNDECIDED, WITHOUT) if what in kinds),
        RIGHT if RIGHT in kinds else READ,
    )


def _report(title: str, results: dict[str, list[Found]]) -> None:
    counts, reasons = summary(results)
    apart = sum(
        worst(each) == REFUSED and all("complex" in one.reason for one in each if one.what == REFUSED)
        for each in results.values()
    )
    read = sum(counts[what] for what in (READ, RIGHT, UNDECIDED))
    share = read / max(len(results), 1)
    others = ", ".join(f"{n} {what}" for what, n in counts.items() if what != READ) or "none is not"
    complex_alone = f"; {apart} are refused for complex numbers alone" if apart else ""
    _say(f"{reasons}\n{title}: {read} of {len(results)} are read ({share:.1%}); {others}{complex_alone}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Print what can be read, in sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--functions", action="store_true", help="functions instead of primitives")
    parser.add_argument("--rooms", nargs="*", default=[room.__name__ for room in ROOMS])
    options = parser.parse_args(arguments)

    def wanted(name: str) -> bool:
        return not options.names or any(each in name for each in options.names)

    if options.functions:
        for room in ROOMS:
            if room.__name__ in options.rooms:
                _report(room.__name__, _of_functions(room, wanted))
        return
    results: dict[str, list[Found]] = {}
    for name, cases in CASES.items():
        if wanted(name):
            results[name] = [found(case) for case in cases]
            _say(f"{name}: {worst(results[name])}")
    _report("primitives", results)
    for reason, names in APART.items():
        _say(f"  apart, {reason}: {len(names)}: {', '.join(sorted(names))}")
    unknown = primitives() - set(CASES) - set().union(*APART.values())
    _say(f"  not looked at: {', '.join(sorted(unknown)) or 'none'}")


def _of_functions(room: ModuleType, wanted: Callable[[str], bool]) -> dict[str, list[Found]]:
    every: dict[str, list[Found]] = {}
    without = []
    for name, case in functions(room, wanted):
        if case is None:
            without.append(name)
            continue
        every[name] = [judged(case)]
        _say(f"{name}: {every[name][0].what}")
    _say(f"without a gradient, so called: {len(without)}: {', '.join(without)}")
    return every


if __name__ == "__main__":
    main(sys.argv[1:])
