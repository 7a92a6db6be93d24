"""Operations of ATen on each number by itself, or on pairs of rows, that are more than one function of the tape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import gdcompare.arithmetic.reflection as reflection
from gdcompare.arithmetic.whole import as_read, here
from gdcompare_torch import moves


def extreme(name: str) -> Callable[..., Any]:
    """aten.fmax and fmin: of what is no number when the program is read, the other."""

    def formula(xp: Any, a: Any, b: Any) -> Any:
        absent, missing = np.isnan(here(a)), np.isnan(here(b))
        if not absent.any() and not missing.any():
            return getattr(xp, name)(a, b)
        return getattr(xp, name)(xp.where(absent, b, a), xp.where(missing, a, b))

    return formula


def rounded(xp: Any, x: Any, *, decimals: int = 0) -> Any:
    """aten.round: to so many places behind the point, or before it."""
    if decimals == 0:
        return xp.round(x)
    power = float(10 ** abs(decimals))
    if decimals > 0:
        return xp.divide(xp.round(xp.multiply(x, power)), power)
    return xp.multiply(xp.round(xp.divide(x, power)), power)


def frexp(xp: Any, x: Any) -> Any:
    """aten.frexp: x / 2^e, whose size is from 1/2 to 1; at other points than where it was read, e must be the same."""
    exponent = np.frexp(here(x))[1]
    part = xp.multiply(x, 2.0**-exponent)
    size, zero = xp.abs(xp.stop_gradient(part)), here(x) == 0
    inside = xp.logical_and(xp.greater_equal(size, 0.5), xp.less(size, 1.0))
    xp.decide(xp.all(xp.logical_or(inside, zero)), True)
    return part, None


def entr(xp: Any, x: Any) -> Any:
    """aten.special_entr: -x log(x), 0 at 0 and -inf below."""
    above, at = xp.greater(x, 0.0), xp.equal(xp.stop_gradient(x), 0.0)
    return xp.where(above, xp.negative(x * xp.log(xp.where(above, x, 1.0))), xp.where(at, 0.0, -math.inf))


def safe_softmax(xp: Any, x: Any, dim: int, dtype: Any = None) -> Any:
    """aten._safe_softmax: 0 where all is -inf when the program is read."""
    del dtype
    if not x.ndim:
        return xp.softmax(moves.reshaped(xp, x, (1,)), axis=-1)[0]
    gone = (here(x) == -math.inf).all(axis=dim, keepdims=True)
    if not gone.any():
        return xp.softmax(x, axis=dim % x.ndim)
    return xp.where(gone, 0.0, xp.softmax(xp.where(gone, 0.0, x), axis=dim % x.ndim))


# Pairs of rows.


def _norm(xp: Any, apart: Any, p: float) -> Any:
    if p == 0:
        return xp.sum(xp.where(xp.equal(xp.stop_gradient(apart), 0.0), 0.0, 1.0), axis=-1)
    return xp.vector_norm(apart, axis=-1, ord=p)


def cdist(xp: Any, one: Any, other: Any, p: float, compute_mode: Any = None) -> Any:
    """aten._cdist_forward: how far each row of one is from each of the other; from itself by 0, which has no slope."""
    del compute_mode
    apart = xp.subtract(xp.expand_dims(one, axis=-2), xp.expand_dims(other, axis=-3))
    if not _are_one(xp, one, other):
        return _norm(xp, apart, p)
    itself = np.eye(one.shape[-2], dtype=bool)
    return xp.where(itself, 0.0, _norm(xp, xp.where(itself[..., None], 1.0, apart), p))


def _are_one(xp: Any, one: Any, other: Any) -> bool:
    """Whether two stacks of rows are the same, here and however the inputs move: Z W^T is then symmetric."""
    if any(not hasattr(each, "known") for each in (one, other)) or not np.array_equal(here(one), here(other)):
        return False
    return bool(xp.is_symmetric(xp.matmul(one, moves.transposed(xp, other, -1, -2))))


def pdist(xp: Any, x: Any, p: float = 2.0) -> Any:
    """aten._pdist_forward: how far rows are apart, each pair once."""
    first, second = np.triu_indices(x.shape[0], 1)
    return _norm(xp, xp.subtract(xp.take(x, first, axis=0), xp.take(x, second, axis=0)), p)


def addbmm(xp: Any, c: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """aten.addbmm: the products of a stack of matrices, added up."""
    product = xp.sum(xp.matmul(a, b), axis=0)
    return xp.add(c if beta == 1 else xp.multiply(c, beta), product if alpha == 1 else xp.multiply(product, alpha))


def trilinear(
    xp: Any, a: Any, b: Any, c: Any, expand1: Sequence[int], expand2: Sequence[int], expand3: Sequence[int],
    sumdim: Sequence[int], unroll_dim: int = 1,
) -> Any:  # fmt: skip
    """aten._trilinear: the sum over some axes of a product of three, each with new axes where it has none."""
    del unroll_dim
    a, b, c = (
        xp.expand_dims(each, axis=tuple(axes)) if axes else each
        for each, axes in ((a, expand1), (b, expand2), (c, expand3))
    )
    return xp.sum(xp.multiply(xp.multiply(a, b), c), axis=tuple(sumdim))


# Sequences.


def ctc(
    xp: Any, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0,
    zero_infinity: bool = False,
) -> Any:  # fmt: skip
    """aten._ctc_loss: -log of the chance of all paths through the labels, with blanks between them.

    alpha_t(s) = log(e^alpha(s) + e^alpha(s - 1) + e^alpha(s - 2)) + log p_t(label_s), the last if the labels differ.
    """
    lengths, given = [int(n) for n in target_lengths], [int(n) for n in input_lengths]
    n, most = len(lengths), max(lengths, default=0)
    starts = np.arange(n) * targets.shape[1] if targets.ndim == 2 else np.cumsum([0, *lengths[:-1]])
    count = math.prod(targets.shape)
    where = np.full((n, 2 * most + 1), count)
    for line, start, length in zip(where, starts, lengths, strict=True):
        line[1 : 2 * length : 2] = start + np.arange(length)
    labels = _labels(xp, targets, where, blank)
    skips = _skips(xp, labels, blank)
    alpha, record = _emitted(xp, log_probs, 0, labels), {}
    there = np.broadcast_to(np.arange(labels.shape[1]) < 2, tuple(labels.shape))  # where any path has come to
    for t in range(log_probs.shape[0]):
        if t:
            before, there_before = _behind(xp, alpha, there, 2)
            alpha, there = _either(xp, (alpha, there), _behind(xp, alpha, there, 1))
            if labels.shape[1] > 2:
                alpha, there = _either(xp, (alpha, there), (before, _and(xp, skips, there_before)))
            alpha = xp.add(alpha, _emitted(xp, log_probs, t, labels))
        record[t + 1] = alpha, there
    losses = [_ended(xp, *record[given[i]], i, lengths[i], zero_infinity) for i in range(n)]
    return xp.stack(losses), None


def _labels(xp: Any, targets: Any, where: Any, blank: int) -> Any:
    """Return the labels with blanks between them, whether they are known or come from the data."""
    if isinstance(targets, np.ndarray):
        return np.append(targets.ravel(), blank)[where]
    flat = moves.reshaped(xp, targets, (math.prod(targets.shape),))
    return moves.taken(xp, xp.concat([flat, np.array([blank])], axis=0), where)


def _skips(xp: Any, labels: Any, blank: int) -> Any:
    """Return where a label may follow the last but one: it is no blank, and another."""
    if labels.shape[1] < 3:
        return np.zeros(labels.shape, dtype=bool)
    now, before = (xp.index(labels, (slice(None), part)) for part in (slice(2, None), slice(None, -2)))
    differs = xp.logical_and(xp.not_equal(now, blank), xp.not_equal(now, before))
    return xp.concat([np.zeros((labels.shape[0], 2), dtype=bool), differs], axis=1)


def _emitted(xp: Any, log_probs: Any, t: int, labels: Any) -> Any:
    """Return the logarithms of the chances of these labels at a time, (n, labels)."""
    rows = np.arange(labels.shape[0])[:, None]
    return moves.indexed(xp, xp.index(log_probs, t), [rows, labels])


def _behind(xp: Any, alpha: Any, there: Any, by: int) -> tuple[Any, Any]:
    """Return alpha(s - by), and where there is such a path."""
    part, shape = (slice(None), slice(None, -by)), (alpha.shape[0], by)
    none = np.zeros(shape, dtype=bool)
    if isinstance(there, np.ndarray):
        moved = np.concatenate([none, there[part]], axis=1)
    else:
        moved = xp.concat([none, xp.index(there, part)], axis=1)
    return xp.concat([np.zeros(shape), xp.index(alpha, part)], axis=1), moved


def _either(xp: Any, one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return log(e^a + e^b) of those paths that there are, and where there are any."""
    (a, with_a), (b, with_b) = one, other
    both = _and(xp, with_a, with_b)
    joined = xp.logaddexp(*(xp.where(both, each, 0.0) for each in (a, b)))
    plain = isinstance(with_a, np.ndarray) and isinstance(with_b, np.ndarray)
    either = with_a | with_b if plain else xp.logical_or(with_a, with_b)
    return xp.where(both, joined, xp.where(with_a, a, b)), either


def _and(xp: Any, a: Any, b: Any) -> Any:
    return a & b if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else xp.logical_and(a, b)


def _ended(xp: Any, alpha: Any, there: Any, row: int, length: int, zero_infinity: bool) -> Any:
    ends = slice(max(2 * length - 1, 0), 2 * length + 1)
    reached = as_read(xp, there[row, ends] if isinstance(there, np.ndarray) else xp.index(there, (row, ends)))
    if not reached.any():
        return np.asarray(0.0) if zero_infinity else np.asarray(math.inf)
    last = xp.index(alpha, (row, ends))
    if reached.all() and length:
        return xp.negative(xp.logaddexp(xp.index(last, 0), xp.index(last, 1)))
    return xp.negative(xp.index(last, int(np.argmax(reached))))


def ndtri(xp: Any, x: Any) -> Any:
    """aten.special_ndtri: root 2 erf_inv(2 x - 1)."""
    return xp.multiply(xp.erf_inv(xp.subtract(xp.multiply(x, 2.0), 1.0)), xp.sqrt(2.0))


def _pi_below_0(xp: Any, x: Any) -> Any:
    return xp.where(xp.less(x, 0.0), xp.number("pi"), 0.0)


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "fmax": extreme("maximum"),
    "fmin": extreme("minimum"),
    "round": rounded,
    "hypot": lambda xp, a, b: xp.hypot(a, b),
    "copysign": lambda xp, a, b: xp.copysign(a, b),
    "signbit": lambda xp, x: xp.signbit(x),
    "angle": _pi_below_0,
    "lgamma": reflection.lgamma,
    "digamma": reflection.digamma,
    "frexp": frexp,
    "erfinv": lambda xp, x: xp.erf_inv(x),
    "i0": lambda xp, x: xp.i0(x),
    "special_i0e": lambda xp, x: xp.i0e(x),
    "special_i1": lambda xp, x: xp.i1(x),
    "special_i1e": lambda xp, x: xp.i1e(x),
    "special_zeta": lambda xp, x, q: xp.zeta(x, q),
    "special_ndtri": ndtri,
    "special_erfcx": lambda xp, x: xp.erfcx(x),
    "igamma": lambda xp, a, x: xp.igamma(a, x),
    "igammac": lambda xp, a, x: xp.igammac(a, x),
    "polygamma": reflection.polygamma,
    "special_entr": entr,
    "_safe_softmax": safe_softmax,
    "_cdist_forward": cdist,
    "_pdist_forward": pdist,
    "addbmm": addbmm,
    "_trilinear": trilinear,
    "_ctc_loss": ctc,
}
