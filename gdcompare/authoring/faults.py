"""Planted faults: wrong gradients on purpose, to see whether a check notices.

A check that has never refused anything proves little. Each fault here takes a correct implementation
`f(params, features, targets) -> (loss, {name: gradient})` and returns one with a mistake that people make. Run them
against your own check with `mutate`, or with `gdcompare mutate PROBLEM --check file.py:function`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import NotDerivedError, Problem
from gdcompare.table import count

Gradient: TypeAlias = dict[str, NDArray[Any]]
Implementation: TypeAlias = Callable[[Mapping[str, NDArray[Any]], NDArray[Any], NDArray[Any]], tuple[Any, Gradient]]
Fault: TypeAlias = Callable[[Implementation], Implementation]


def by_hand(problem: Problem) -> Implementation:
    """Return the problem's hand-derived formula as an implementation: the correct one that faults are planted in."""
    if not problem.derived:
        raise NotDerivedError(
            f"{type(problem).__name__} has no gradient derived by hand to plant faults in: write per_sample_gradients"
        )

    def correct(
        params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Any, Gradient]:
        loss, gradient = problem.value_and_gradient(np, params, features, targets)
        return loss, {name: np.asarray(value) for name, value in gradient.items()}

    return correct


def _on_gradient(spoil: Callable[[NDArray[Any], int], Any]) -> Fault:
    """Make a fault of a function of one gradient array and the number of rows."""

    def fault(correct: Implementation) -> Implementation:
        def faulty(params: Any, features: Any, targets: Any) -> tuple[Any, Gradient]:
            loss, gradient = correct(params, features, targets)
            return loss, {name: np.asarray(spoil(each, len(features))) for name, each in gradient.items()}

        return faulty

    return fault


def _on_one(spoil: Callable[[NDArray[Any]], Any]) -> Fault:
    """Make a fault of a function of the largest gradient array; the other parameters stay right."""

    def fault(correct: Implementation) -> Implementation:
        def faulty(params: Any, features: Any, targets: Any) -> tuple[Any, Gradient]:
            loss, gradient = correct(params, features, targets)
            name = max(gradient, key=lambda each: gradient[each].size)
            return loss, gradient | {name: np.asarray(spoil(gradient[name].copy()), dtype=gradient[name].dtype)}

        return faulty

    return fault


def _on_rows(choose: Callable[[int], Sequence[int]]) -> Fault:
    """Make a fault of a choice of rows: the mean is taken over the wrong ones."""

    def fault(correct: Implementation) -> Implementation:
        def faulty(params: Any, features: Any, targets: Any) -> tuple[Any, Gradient]:
            rows = np.asarray(choose(len(features)), dtype=np.intp)
            return correct(params, features[rows], targets[rows])

        return faulty

    return fault


def _first(change: Callable[[Any], Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Change the element of the largest size: a fault in an element that is 0 anyway would be none."""

    def spoil(gradient: NDArray[Any]) -> NDArray[Any]:
        place = np.unravel_index(int(np.argmax(np.abs(gradient))), gradient.shape)
        gradient[place] = change(gradient[place])
        return gradient

    return spoil


def _scaled(factor: float, value: Any) -> Any:
    return value * value.dtype.type(factor)


def _stale(correct: Implementation) -> Implementation:
    """Add to what the last call left behind, as when nobody zeroes the gradients."""
    total: Gradient = {}

    def faulty(params: Any, features: Any, targets: Any) -> tuple[Any, Gradient]:
        loss, gradient = correct(params, features, targets)
        for name, each in gradient.items():
            total[name] = each + total[name] if name in total else each
        return loss, dict(total)

    return faulty


def _weight_decay(correct: Implementation) -> Implementation:
    """Add 1e-3 times the parameters: a term that the loss does not have."""

    def faulty(params: Any, features: Any, targets: Any) -> tuple[Any, Gradient]:
        loss, gradient = correct(params, features, targets)
        return loss, {name: each + each.dtype.type(1e-3) * params[name] for name, each in gradient.items()}

    return faulty


def _in_float32(correct: Implementation) -> Implementation:
    """Compute in float32 and hand back the dtype asked for."""

    def faulty(params: Any, features: Any, targets: Any) -> tuple[Any, Gradient]:
        low = {name: np.asarray(value).astype(np.float32) for name, value in params.items()}
        loss, gradient = correct(low, features.astype(np.float32), targets.astype(np.float32))
        return loss, {name: each.astype(features.dtype) for name, each in gradient.items()}

    return faulty


def _mean_of_means(correct: Implementation) -> Implementation:
    """Take the mean of two micro-batches' means, one larger than the other, without their sizes."""

    def faulty(params: Any, features: Any, targets: Any) -> tuple[Any, Gradient]:
        cut = len(features) // 2 + 1
        batches = [rows for rows in (slice(None, cut), slice(cut, None)) if len(features[rows])]
        loss, _ = correct(params, features, targets)
        each = [correct(params, features[rows], targets[rows])[1] for rows in batches]
        return loss, {name: np.asarray(sum(g[name] for g in each) / features.dtype.type(len(each))) for name in each[0]}

    return faulty


def _in_bfloat16(gradient: NDArray[Any], n: int) -> NDArray[Any]:
    """Round to eight bits, and hand back the dtype asked for."""
    del n
    mantissa, exponent = np.frexp(np.asarray(gradient))
    return np.asarray(np.ldexp(np.round(mantissa * 256) / 256, exponent).astype(gradient.dtype))


def _forward_differences(correct: Implementation) -> Implementation:
    """(L(x + h) - L(x)) / h with h the root of the dtype's epsilon, element by element."""

    def faulty(params: Any, features: Any, targets: Any) -> tuple[Any, Gradient]:
        loss, gradient = correct(params, features, targets)
        if loss is None:
            return loss, gradient
        h = np.sqrt(np.finfo(features.dtype).eps).astype(features.dtype)
        differences: Gradient = {}
        for name, value in params.items():
            differences[name] = np.empty_like(gradient[name])
            for place in np.ndindex(np.shape(value)):
                moved = np.array(value)
                moved[place] += h
                further, _ = correct({**params, name: moved}, features, targets)
                differences[name][place] = (further - loss) / h
        return loss, differences

    return faulty


def _clipped(correct: Implementation) -> Implementation:
    """Scale the whole gradient to the norm 1, if it is larger."""

    def faulty(params: Any, features: Any, targets: Any) -> tuple[Any, Gradient]:
        loss, gradient = correct(params, features, targets)
        norm = np.sqrt(sum(np.sum(each.astype(np.float64) ** 2) for each in gradient.values()))
        return loss, {name: each / each.dtype.type(max(norm, 1.0)) for name, each in gradient.items()}

    return faulty


def _outer_product(gradient: NDArray[Any]) -> NDArray[Any]:
    """Add a matrix of rank one: a term that the loss does not have."""
    if gradient.ndim < 2:
        return gradient
    rows, columns = (np.arange(1, length + 1) / length for length in (len(gradient), gradient[0].size))
    return np.asarray(gradient + 1e-3 * np.max(np.abs(gradient)) * np.outer(rows, columns).reshape(gradient.shape))


def _missing(correct: Implementation) -> Implementation:
    """Leave the first parameter out."""

    def faulty(params: Any, features: Any, targets: Any) -> tuple[Any, Gradient]:
        loss, gradient = correct(params, features, targets)
        return loss, dict(list(gradient.items())[1:])

    return faulty


def _wrong_axis(gradient: NDArray[Any], n: int) -> NDArray[Any]:
    del n
    return np.roll(gradient, 1, axis=-1) if gradient.ndim else gradient


def _transposed(gradient: NDArray[Any], n: int) -> NDArray[Any]:
    del n
    return gradient.T.reshape(gradient.shape) if gradient.ndim > 1 else gradient[::-1] if gradient.ndim else gradient


FAULTS: dict[str, Fault] = {
    "zeroed component": _on_one(_first(lambda _: 0)),
    "zeroed parameter": _on_one(lambda gradient: 0 * gradient),
    "flipped sign": _on_gradient(lambda gradient, _: -gradient),
    "flipped sign of one component": _on_one(_first(lambda value: -value)),
    "factor 2": _on_gradient(lambda gradient, _: 2 * gradient),
    "factor 1/2": _on_gradient(lambda gradient, _: gradient / 2),
    "sum for mean": _on_gradient(lambda gradient, n: n * gradient),
    "divided by n twice": _on_gradient(lambda gradient, n: gradient / n),
    "n - 1 for n": _on_gradient(lambda gradient, n: gradient * (n / max(n - 1, 1))),
    **{
        f"one component times 1 + 1e-{digits}": _on_one(_first(partial(_scaled, 1 + 10.0**-digits)))
        for digits in range(3, 13)
    },
    "transposed or reversed": _on_gradient(_transposed),
    "wrong axis, shifted by one": _on_gradient(_wrong_axis),
    "stale accumulation": _stale,
    "extra term (weight decay)": _weight_decay,
    "dropped last sample": _on_rows(lambda n: range(max(n - 1, 1))),
    "doubled last sample": _on_rows(lambda n: [*range(n), n - 1]),
    "off-by-one sample": _on_rows(lambda n: [*range(1, n), n - 1]),
    "dropped last quarter of the batch": _on_rows(lambda n: range(max(n - n // 4 - 1, 1))),
    "float32 inside float64": _in_float32,
    "mean of micro-batch means": _mean_of_means,
    "bfloat16 values": _on_gradient(_in_bfloat16),
    "forward differences": _forward_differences,
    "clipped to norm 1": _clipped,
    "extra term of rank one": _on_one(_outer_product),
    "NaN in one component": _on_one(_first(lambda _: np.nan)),
    "infinity in one component": _on_one(_first(lambda _: np.inf)),
    "lower dtype": _on_gradient(lambda gradient, _: gradient.astype(np.float16)),
    "an extra axis": _on_gradient(lambda gradient, _: gradient[None]),
    "a parameter missing": _missing,
}
"""Every fault, by name. Some change nothing where the dtype cannot show them, or where the data are symmetric."""


@dataclass(frozen=True)
class MutationScore:
    """How many planted faults a check noticed."""

    killed: tuple[str, ...]
    survived: tuple[str, ...]
    equivalent: tuple[str, ...]
    """Faults that change no bit here, such as a transposed scalar: they say nothing about the check."""

    @property
    def score(self) -> float:
        """The share of the faults that were noticed, of those that change anything; 1.0 if none does."""
        planted = len(self.killed) + len(self.survived)
        return len(self.killed) / planted if planted else 1.0

    def __repr__(self) -> str:
        planted = len(self.killed) + len(self.survived)
        return f"MutationScore({self.score:.0%}: {len(self.killed)} of {count(planted, 'planted fault')} noticed)"


def mutate(
    check: Callable[[Implementation], object],
    correct: Implementation,
    params: Mapping[str, NDArray[Any]],
    features: NDArray[Any],
    targets: NDArray[Any],
    faults: Mapping[str, Fault] | None = None,
) -> MutationScore:
    """Plant each fault in a correct implementation and see whether `check` notices.

    `check(implementation)` says that something is wrong by raising, as a failing test does, or by returning something
    false (other than None). Whether a fault changes anything is seen at the given point.

    Raises ValueError if the check refuses the correct implementation, which would score on everything; an error in the
    check itself shows itself there.

    >>> def careless(implementation):
    ...     _, gradient = implementation({"w": np.array([2.0])}, np.array([[1.0], [3.0]]), np.zeros(2))
    ...     return np.allclose(gradient["w"], 20.0, rtol=1e-3)
    >>> def correct(params, features, targets):
    ...     r = features @ params["w"] - targets
    ...     return r @ r / len(r), {"w": 2 * r @ features / len(r)}
    >>> result = mutate(careless, correct, {"w": np.array([2.0])}, np.array([[1.0], [3.0]]), np.zeros(2))
    >>> "flipped sign" in result.killed, "one component times 1 + 1e-4" in result.survived
    (True, True)
    """
    try:
        passed = _accepts(check(correct))
    except AssertionError as error:
        raise ValueError(f"the check refuses the correct implementation: {error}") from error
    if not passed:
        raise ValueError("the check refuses the correct implementation; mend the check, or the point it checks at")
    killed, survived, equivalent = [], [], []
    for name, fault in (FAULTS if faults is None else faults).items():
        if not _changes(fault(correct), correct, params, features, targets):
            equivalent.append(name)
        elif _passes(check, fault(correct)):
            survived.append(name)
        else:
            killed.append(name)
    return MutationScore(tuple(killed), tuple(survived), tuple(equivalent))


def _passes(check: Callable[[Implementation], object], implementation: Implementation) -> bool:
    try:
        return _accepts(check(implementation))
    except Exception:  # a test that fails with an error has noticed, too
        return False


def _accepts(result: object) -> bool:
    return result is None or bool(result)


def _changes(faulty: Implementation, correct: Implementation, *point: Any) -> bool:
    """Whether the fault shows in either of two calls in a row, in any bit, dtype, shape or name."""
    with np.errstate(all="ignore"):
        return any(not _same(faulty(*point)[1], correct(*point)[1]) for _ in range(2))


def _same(one: Gradient, other: Gradient) -> bool:
    return set(one) == set(other) and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name], equal_nan=True) for name in one
    )
