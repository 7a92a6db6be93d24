"""The constants that programs hold: which of two programs are one number stated in two dtypes, and what they explain.

    a, b are one number, rounded      |a - b| <= 8 u |a|,    u that of float32 if one of them is a float32, else float64
    a table of them, as of sines      |a - b| <= 2^10 u max |a|
    an unpaired constant c explains   2 u |c| |d output / dc|,    by a difference quotient in floats

Numbers of few bits, such as 0.5, 2 or 12, are exact in every dtype: where they differ, they were meant to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.program import INDEX, Program, Step
from gdcompare.backend import Precision, unit_roundoff

Floats: TypeAlias = NDArray[np.float64]
Pairs: TypeAlias = "list[tuple[Floats, Floats]]"
"""A constant of one program, and that of another for which it stands."""

FEW_BITS = 11
STEP = 2.0**-20
"""The relative step of a difference quotient."""
SHAPES = frozenset({"reshape", "permute_dims", "broadcast_to", "expand_dims", "squeeze", "transpose", INDEX})
"""Functions whose other operands are no numbers of the formula."""
ARITHMETIC = frozenset({"add", "subtract", "multiply", "divide", "pow", "maximum", "minimum"})
"""Those whose whole numbers are numbers of it, too."""


def constants(steps: Sequence[Step], *, exact: bool = False) -> list[Floats]:
    """Return the different floating-point constants among operands, those of few bits only if `exact`.

    >>> from gdcompare.arithmetic.program import Earlier
    >>> steps = (Step("add", (Earlier(0), 1e-5), {}, (), "float64", ""), Step("multiply", (0.5,), {}, (), "", ""))
    >>> [each.tolist() for each in constants(steps)]
    [1e-05]
    """
    found: list[Floats] = []
    for _, _, value in _places(steps):
        new = not any(_identical(value, each) for each in found)
        if new and (exact or not _of_few_bits(value)):
            found.append(value)
    return found


def paired(source: Program, other: Program) -> tuple[Pairs, list[Floats], list[Floats]]:
    """Return which constants of the other stand for which of the source, and those of each that stand for none."""
    ours, theirs = constants(source.steps), constants(other.steps)
    shared = [value for value in theirs if any(_identical(value, each) for each in ours)]
    left = [value for value in ours if not any(_identical(value, each) for each in shared)]
    pairs: Pairs = []
    alone = []
    for value in theirs:
        if any(_identical(value, each) for each in shared):
            continue
        near = next((each for each in [*left, *ours] if _one_number(each, value)), None)
        if near is None:
            alone.append(value)
        else:
            pairs.append((value, near))
    left = [value for value in left if not any(_identical(value, near) for _, near in pairs)]
    return pairs, left, alone


def with_constants(program: Program, pairs: Pairs, where: frozenset[int] | None = None) -> Program:
    """Return the program with other constants, in all steps or in some, by their places among the steps."""
    steps = list(program.steps)
    for i, j, value in _places(program.steps):
        new = next((new for old, new in pairs if _identical(old, value)), None)
        if new is not None and (where is None or i in where):
            operands = list(steps[i].operands)
            operands[j] = float(new) if np.ndim(operands[j]) == 0 else new.reshape(np.shape(operands[j]))
            steps[i] = replace(steps[i], operands=tuple(operands))
    return replace(program, steps=tuple(steps))


def explained(
    program: Program, alone: Sequence[Floats], run: Callable[[Program], Mapping[str, Floats]], dtype: Precision
) -> dict[str, Floats]:
    """Return how far rounding these constants may move each output, element by element.

    No element is given less than the root mean square over its array.
    """
    with np.errstate(all="ignore"):
        here = run(program)
        total = {name: np.zeros(value.shape) for name, value in here.items()}
        for each in alone:
            moved = run(with_constants(program, [(each, each * (1 + STEP))]))
            u = unit_roundoff("float32" if dtype == "float32" or _in_float32(each) else "float64")
            for name, value in moved.items():
                slope = np.abs(value - here[name]) / STEP
                slope = np.where(np.isfinite(slope), slope, 0.0)
                total[name] += 2 * u * np.maximum(slope, np.sqrt(np.mean(slope**2)))
    return total


def said_of_pairs(pairs: Pairs, other: str) -> str:
    """Say which constants differ by their rounding.

    >>> said_of_pairs([(np.array(float(np.float32(0.1))), np.array(0.1))], "port")
    "0.1 is 0.10000000149011612 in 'port', a float32"
    """
    said = []
    for theirs, ours in pairs[:3]:
        kind = ", a float32" if _in_float32(theirs) else ""
        if theirs.size == 1:
            what = f"{ours.item()!r} is {theirs.item()!r}"
        else:
            off = np.max(np.abs(ours - theirs)) / np.max(np.abs(ours))
            what = f"an array {theirs.shape} is off by {off:.1g} of its largest"
        said.append(f"{what} in {other!r}{kind}")
    return "; ".join(said) + (f"; and {len(pairs) - 3} more" if len(pairs) > 3 else "")


def _places(steps: Sequence[Step]) -> Iterator[tuple[int, int, Floats]]:
    """Yield the step, the operand and the numbers of each constant."""
    for i, step in enumerate(steps):
        if step.function in SHAPES:
            continue
        for j, operand in enumerate(step.operands):
            whole = step.function in ARITHMETIC and isinstance(operand, int) and not isinstance(operand, bool)
            array = isinstance(operand, np.ndarray) and operand.dtype.kind == "f" and operand.size > 0
            if whole or array or isinstance(operand, float | np.floating):
                yield i, j, np.asarray(operand, dtype=np.float64)


def _identical(one: Floats, other: Floats) -> bool:
    return one.shape == other.shape and bool(np.array_equal(one, other, equal_nan=True))


def _one_number(one: Floats, other: Floats) -> bool:
    """Whether two constants may be one number, rounded in two ways."""
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return False
    u = unit_roundoff("float32" if _in_float32(one) or _in_float32(other) else "float64")
    room = 8 * np.abs(one) if one.size == 1 else 2.0**10 * np.max(np.abs(one))
    return bool((np.abs(one - other) <= u * room).all())


def _in_float32(value: Floats) -> bool:
    with np.errstate(over="ignore"):
        return bool((value.astype(np.float32) == value).all())


def _of_few_bits(value: Floats) -> bool:
    mantissa = np.frexp(value)[0] * 2.0**FEW_BITS
    return bool(np.all((mantissa == np.rint(mantissa)) | ~np.isfinite(value)))
