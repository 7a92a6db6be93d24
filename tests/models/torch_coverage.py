"""How many of torch's differentiable operations can be read: `python -m tests.models.torch_coverage [NAME ...]`.

Each operation of torch's own list (`op_db`) is called on the sample inputs that torch ships, in float64. The loss is
the sum of all that comes out, times fixed random cotangents. A sample is read if its program gives torch's loss, and
the tape's gradient on floats equals autograd's; where they differ, a difference quotient says whether there is a kink,
or torch is wrong. An operation is read if all of its samples are, but for those that draw random numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from gdcompare_torch.program import read
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.numbers import Floats
from gdcompare.arithmetic.program import Program, ProgramError
from gdcompare.arithmetic.tape import Tape

READ, KINK, WRONG, FAILED = "read", "at a kink", "read wrongly", "failed"
TORCH = "read, but torch's gradient is wrong"
REFUSED, SLOW = "refused", "too slow"
AGREEING, ROUNDING = 1e-8, 1e-13
"""How far gradients of two right programs may be apart, as a share of the largest element; and where it is 0, for what
cancels to 0 leaves the rounding of terms of about 1.
"""


class Sample(NamedTuple):
    """A loss of leaves."""

    loss: Callable[[dict[str, Any]], Any]
    leaves: dict[str, Any]


class Found(NamedTuple):
    """What became of a sample."""

    what: str
    reason: str = ""


@final
@dataclass
class Coverage:
    """What became of the samples of one operation."""

    name: str
    found: list[Found] = field(default_factory=list)

    @property
    def what(self) -> str:
        """The worst of all but those that draw random numbers, if some do not; or that nothing is differentiated."""
        each = {one.what for one in self.found if RANDOM not in one.reason} or {one.what for one in self.found}
        return next((what for what in (WRONG, FAILED, REFUSED, SLOW, TORCH) if what in each), READ if each else "")

    def __str__(self) -> str:
        counts = Counter(one.what for one in self.found)
        reasons = {one.reason for one in self.found if one.reason and one.what != KINK}
        parts = [f"{n} {what}" for what, n in counts.items()]
        return f"{self.name}: {', '.join(parts)}" + "".join(f"\n    {each}" for each in sorted(reasons))


def samples(operation: Any) -> Iterator[Sample]:
    """Yield the losses of an operation's sample inputs that depend on a leaf."""
    for sample in operation.sample_inputs("cpu", torch.float64, requires_grad=True):
        flat, spec = tree_flatten((sample.input, sample.args, sample.kwargs))
        places = [i for i, each in enumerate(flat) if isinstance(each, torch.Tensor) and each.requires_grad]
        leaves = {f"x{i}": flat[i].detach().clone().requires_grad_() for i in places}
        loss = _loss(operation, flat, spec, sample.output_process_fn_grad)
        with contextlib.suppress(NotImplementedError, RuntimeError):  # of a copy: some look beyond their input
            if leaves and loss(leaves).requires_grad:
                yield Sample(loss, leaves)


def _loss(operation: Any, flat: Sequence[Any], spec: Any, process: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def loss(leaves: dict[str, Any]) -> Any:
        given = [leaves.get(f"x{i}", each) for i, each in enumerate(flat)]
        first, arguments, options = tree_unflatten(given, spec)
        generator = np.random.default_rng(0)
        total = torch.zeros((), dtype=torch.float64)
        for each in tree_leaves(process(operation.gradcheck_wrapper(operation.get_op(), first, *arguments, **options))):
            if isinstance(each, torch.Tensor) and each.requires_grad:
                real = torch.view_as_real(each) if each.is_complex() else each
                total = total + (real * torch.tensor(generator.normal(size=tuple(real.shape)))).sum()
        return total

    return loss


RANDOM = "draws random numbers"
FAULTS = ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError
"""Of the reader, which must say what it cannot read."""


def found(sample: Sample) -> Found:
    """Read a sample, and compare its gradient with torch's."""
    try:
        return _compared(sample)
    except FAULTS as error:
        return Found(FAILED, f"{type(error).__name__}: {error}")


def _compared(sample: Sample) -> Found:
    try:
        program = read(sample.loss, sample.leaves, {}, "float64", "sample")
    except ProgramError as error:
        said = str(error).partition("cannot be read: ")[2] or str(error)
        return Found(WRONG if "read wrongly" in str(error) else REFUSED, re.sub(r"^\S+\.py:\d+: ", "", said))
    slopes = torch.autograd.grad(sample.loss(sample.leaves), list(sample.leaves.values()), materialize_grads=True)
    due = [each.numpy(force=True) for each in slopes]
    numbers = [leaf.detach().numpy() for leaf in sample.leaves.values()]
    mine = [np.asarray(each, dtype=np.float64) for each in _gradient(program, Floats(), numbers)]
    if all(map(agree, mine, due)):
        return Found(READ)
    balls = BallNumbers()
    _gradient(program, balls, numbers)
    if balls.kinks:
        return Found(KINK, f"{balls.kinks[0]}")
    name, one, other = next(each for each in zip(sample.leaves, mine, due, strict=True) if not agree(*each[1:]))
    place = np.unravel_index(np.argmax(apart(one, other)), one.shape)
    before, after = _difference_quotients(sample, name, place)
    if not abs(before - after) <= 1e-3 * max(1.0, abs(before)):
        return Found(KINK, f"difference quotients are {before:.4g} and {after:.4g}")
    middle = (before + after) / 2
    says = f"the gradient is {one[place]:.9g}, in torch {other[place]:.9g}; a difference quotient is {middle:.9g}"
    mine_off, due_off = abs(one[place] - middle), abs(other[place] - middle)
    return Found(TORCH if 10 * mine_off < due_off and mine_off <= 1e-4 * max(1.0, abs(middle)) else WRONG, says)


def _difference_quotients(sample: Sample, name: str, place: Any, step: float = 1e-5) -> tuple[float, float]:
    """Return how torch's loss changes before and after the sample, along one element of a leaf."""
    values = []
    for way in (-step, 0.0, step):
        moved = {key: leaf.detach().clone() for key, leaf in sample.leaves.items()}
        moved[name][tuple(map(int, place))] += way
        values.append(float(sample.loss({key: leaf.requires_grad_() for key, leaf in moved.items()}).detach()))
    return (values[1] - values[0]) / step, (values[2] - values[1]) / step


def agree(mine: Any, due: Any) -> bool:
    """Say whether two gradients are equal but for rounding; what is no number is so in both."""
    return mine.shape == due.shape and not apart(mine, due).any()


def apart(mine: Any, due: Any) -> Any:
    """Return where two gradients of a shape differ."""
    scale = np.abs(due[np.isfinite(due)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        near = (mine == due) | (np.abs(mine - due) <= AGREEING * np.maximum(scale, np.abs(due)) + ROUNDING)
    return ~(near | (np.isnan(due) & np.isnan(mine)))


def _gradient(program: Program, numbers: Any, values: Sequence[Any]) -> list[Any]:
    tape = Tape(numbers)
    leaves = [tape.leaf(each) for each in values]
    with np.errstate(all="ignore"):
        tape.walk_back(program(tape, *leaves))
    return [tape.gradient(leaf)[0] for leaf in leaves]


class _SlowError(BaseException):
    pass


@contextlib.contextmanager
def _within(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _SlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def coverage(operation: Any, most: int, seconds: int = 60) -> Coverage:
    """Read so many samples of an operation, within the time."""
    name = f"{operation.name}.{operation.variant_test_name}".rstrip(".")
    result = Coverage(name)
    torch.manual_seed(0)
    try:
        with _within(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for sample in samples(operation):
                result.found.append(found(sample))
                if len(result.found) == most:
                    break
    except _SlowError:
        result.found.append(Found(SLOW, f"more than {seconds} s"))
    return result


def differentiable(names: Sequence[str]) -> list[Any]:
    """Return the operations that torch differentiates in float64, those whose names contain one of these."""
    from torch.testing._internal.common_methods_invocations import op_db  # takes seconds

    some = [each for each in op_db if each.supports_autograd and torch.float64 in each.supported_dtypes("cpu")]
    return [each for each in some if not names or any(name in each.name for name in names)]


def is_complex(each: Coverage) -> bool:
    """Say whether an operation is refused for its complex numbers alone."""
    return all("complex" in one.reason for one in each.found if one.what == REFUSED) and each.what == REFUSED


def summary(results: Sequence[Coverage]) -> str:
    """Return how many operations are read, and the reasons why others are not."""
    some = [each for each in results if each.found]
    counts, apart = Counter(each.what for each in some), sum(map(is_complex, some))
    read_of_all = counts[READ] + counts[TORCH]
    reasons = defaultdict[str, set[str]](set)
    for each in some:
        for one in each.found:
            if one.what in (TORCH, WRONG, FAILED, REFUSED, SLOW):
                reasons[one.reason].add(each.name)
    lines = [f"{len(names):4d}  {reason}\n      {', '.join(sorted(names))}" for reason, names in reasons.items()]
    share = read_of_all / max(len(some), 1)
    without = read_of_all / max(len(some) - apart, 1)
    return "\n".join(
        [
            *sorted(lines, reverse=True),
            f"{read_of_all} of {len(some)} operations are read ({share:.1%}; {without:.1%} of those without complex "
            f"numbers); {', '.join(f'{n} {what}' for what, n in counts.items() if what != READ) or 'none is not'}",
        ]
    )


def main(arguments: Sequence[str]) -> None:
    """Print what can be read, operation by operation, and in sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--samples", type=int, default=0, help="at most so many of each operation; 0 for all")
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    results = []
    for operation in differentiable(options.names):
        results.append(coverage(operation, options.samples))
        if results[-1].found:
            sys.stdout.write(f"{results[-1]}\n")
            sys.stdout.flush()
    sys.stdout.write(summary(results) + "\n")
    if options.json:
        text = json.dumps({each.name: [list(one) for one in each.found] for each in results}, indent=1)
        Path(options.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
