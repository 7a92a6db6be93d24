"""Functions of vectors and matrices that are made of sums and products: norms, traces, powers and Einstein's sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gdcompare.arithmetic.axes import Axis
from gdcompare.arithmetic.moves import gather


def outer(xp: Any, a: Any, b: Any) -> Any:
    """a_i b_j."""
    return xp.multiply(xp.expand_dims(a, axis=-1), xp.expand_dims(b, axis=-2))


def trace(xp: Any, x: Any, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sum of a diagonal, of the last two axes."""
    del dtype
    return xp.sum(xp.diagonal(x, offset=offset), axis=-1)


def cross(xp: Any, a: Any, b: Any, *, axis: int = -1) -> Any:
    """(a_2 b_3 - a_3 b_2, a_3 b_1 - a_1 b_3, a_1 b_2 - a_2 b_1)."""
    (a, b), turn, back = xp.broadcast_arrays(a, b), [1, 2, 0], [2, 0, 1]
    one, other = xp.take(a, turn, axis=axis), xp.take(b, back, axis=axis)
    return one * other - xp.take(a, back, axis=axis) * xp.take(b, turn, axis=axis)


def matrix_power(xp: Any, x: Any, n: int) -> Any:
    """X X ... X, by squares, or of the inverse."""
    if n < 0:
        return matrix_power(xp, xp.inv(x), -n)
    x = xp.asarray(x)
    power = xp.broadcast_to(np.eye(x.shape[-1]), x.shape) if n == 0 else x
    for bit in f"{n:b}"[1:]:
        power = power @ power @ x if bit == "1" else power @ power
    return power


def vector_norm(
    xp: Any, x: Any, *, axis: Axis = None, keepdims: bool = False, ord: float = 2  # noqa: A002 - the standard's name
) -> Any:  # fmt: skip
    """(sum |x_i|^p)^(1/p), the largest |x_i| for p = inf, the smallest for -inf, how many are not 0 for p = 0."""
    x, along = xp.asarray(x), {"axis": axis, "keepdims": keepdims}
    if ord == 2:
        return xp.sqrt(xp.sum(x * x, **along))
    if ord == 0:
        return xp.count_nonzero(x, **along)
    sizes = xp.abs(x)
    if math.isinf(ord):
        return (xp.max if ord > 0 else xp.min)(sizes, **along)
    return xp.sum(sizes, **along) if ord == 1 else xp.sum(sizes**ord, **along) ** (1 / ord)


def matrix_norm(
    xp: Any, x: Any, *, keepdims: bool = False, ord: float | str | None = "fro"  # noqa: A002 - the standard's name
) -> Any:  # fmt: skip
    """Frobenius' norm; the largest sum of a column for 1, of a row for inf, and the smallest for -1 and -inf."""
    x = xp.asarray(x)
    if ord in (None, "fro"):
        return xp.vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord not in (1, -1, math.inf, -math.inf):
        raise TypeError(f"the referee has no singular values, and so no matrix_norm with ord={ord!r}")
    summed, other = (-2, -1) if ord in (1, -1) else (-1, -2)
    sums = xp.sum(xp.abs(x), axis=summed, keepdims=True)
    norm = (xp.max if float(ord) > 0 else xp.min)(sums, axis=other, keepdims=True)
    return norm if keepdims else xp.squeeze(norm, (-2, -1))


def einsum(xp: Any, subscripts: str, *operands: Any) -> Any:
    """Einstein's sum, like "ij,jk->ik": products over equal letters, summed over those that the result has not.

    Two operands at a time, each as one product of matrices.
    """
    variables = [xp.asarray(each) for each in operands]
    inputs, output = _letters(subscripts, [each.ndim for each in variables])
    terms = [_without_repeats(xp, x, letters) for x, letters in zip(variables, inputs, strict=True)]
    while len(terms) > 1:
        needed = set(output).union(*(letters for _, letters in terms[2:]))
        terms[:2] = [_contracted(xp, *terms[0], *terms[1], needed)]
    x, letters = _summed_out(xp, *terms[0], set(output))
    return xp.permute_dims(x, tuple(letters.index(each) for each in output)) if letters != output else x


def _letters(subscripts: str, ndims: list[int]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result; axes that `...` stands for have capitals of their own."""
    written, arrow, result = subscripts.replace(" ", "").partition("->")
    inputs = written.split(",")
    if len(inputs) != len(ndims):
        raise ValueError(f"einsum {subscripts!r} is of {len(inputs)} arrays, not of {len(ndims)}")
    free = [letter for letter in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if letter not in subscripts]
    counts = [n - len(each.replace("...", "")) for each, n in zip(inputs, ndims, strict=True)]
    rest = "".join(free[: max(counts)][::-1])
    if not arrow:
        seen = "".join(inputs).replace(".", "")
        result = "..." * ("..." in written) + "".join(sorted(each for each in set(seen) if seen.count(each) == 1))
    named = [each.replace("...", rest[len(rest) - n :]) for each, n in zip(inputs, counts, strict=True)]
    return named, result.replace("...", rest)


def _without_repeats(xp: Any, x: Any, letters: str) -> tuple[Any, str]:
    """Return x with the diagonals that a letter written twice stands for."""
    once = "".join(dict.fromkeys(letters))
    if once == letters:
        return x, letters
    axes = [once.index(each) for each in letters]
    places = np.einsum(np.arange(x.size).reshape(x.shape), axes, list(range(len(once))))
    return gather(xp, x, places[None], name="einsum"), once


def _summed_out(xp: Any, x: Any, letters: str, needed: set[str]) -> tuple[Any, str]:
    gone = tuple(i for i, each in enumerate(letters) if each not in needed)
    return (xp.sum(x, axis=gone), "".join(each for each in letters if each in needed)) if gone else (x, letters)


def _contracted(xp: Any, a: Any, of_a: str, b: Any, of_b: str, needed: set[str]) -> tuple[Any, str]:
    """Return the product of two arrays, summed over the letters of both that nobody needs any more."""
    a, of_a = _summed_out(xp, a, of_a, needed | set(of_b))
    b, of_b = _summed_out(xp, b, of_b, needed | set(of_a))
    both = [each for each in of_a if each in of_b]
    kept, summed = ([each for each in both if (each in needed) == so] for so in (True, False))
    rows, columns = ([each for each in one if each not in both] for one in (of_a, of_b))
    sizes = dict(zip(of_b, b.shape, strict=True)) | dict(zip(of_a, a.shape, strict=True))

    def matrix(x: Any, letters: str, *groups: list[str]) -> Any:
        order = tuple(letters.index(each) for group in groups for each in group)
        shape = tuple(math.prod(sizes[each] for each in group) for group in groups)
        return xp.reshape(xp.permute_dims(x, order), shape)

    product = matrix(a, of_a, kept, rows, summed) @ matrix(b, of_b, kept, summed, columns)
    letters = "".join([*kept, *rows, *columns])
    return xp.reshape(product, tuple(sizes[each] for each in letters)), letters
