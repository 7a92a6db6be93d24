"""Complex numbers as pairs of real arrays, and Fourier transforms, in the tape's vocabulary, for who reads programs.

Each function is `function(xp, *operands)`; an operand is `Complex`, or real. What has no function here is done to both
parts alike: `by_parts`. A derivative by a complex number is two, by its parts, as frameworks have it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from gdcompare.arithmetic.program import Place, UnsaidError


@final
@dataclass(frozen=True, eq=False)
class Complex:
    """An array of complex numbers: two real arrays of its shape."""

    real: Any
    imag: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both."""
        return np.shape(_known(self.real))

    ndim = property(lambda self: len(self.shape))

    def __getitem__(self, key: Any) -> Complex:
        return Complex(self.real[key], self.imag[key])


def parts(x: Any) -> tuple[Any, Any]:
    """Return the real and the imaginary part; None is that of what is real.

    >>> parts(1.5), parts(2j)
    ((1.5, None), (0.0, 2.0))
    """
    if isinstance(x, Complex):
        return x.real, x.imag
    return (x.real, x.imag) if isinstance(x, complex) or np.iscomplexobj(getattr(x, "value", x)) else (x, None)


def by_parts(xp: Any, function: Callable[..., Any], *operands: Any) -> Any:
    """Return what a linear function gives of the real parts, and of the imaginary ones; lists and tuples likewise."""

    def of(which: int) -> Any:
        def part(each: Any) -> Any:
            if isinstance(each, list | tuple):
                return type(each)(map(part, each))
            real, imag = parts(each) if isinstance(each, Complex | complex) else (each, each)
            return (real, imag)[which]

        return function(xp, *map(part, operands))

    return joined(of(0), of(1))


def joined(real: Any, imag: Any) -> Any:
    """Return the numbers of these parts, one array or several."""
    if isinstance(real, list | tuple):
        return type(real)(map(joined, real, imag))
    return Complex(real, imag)


def whole(xp: Any, x: Any) -> Complex:
    """Return a number, with an imaginary part of 0 if it is real."""
    real, imag = parts(x)
    return Complex(real, imag if imag is not None else xp.zeros(tuple(real.shape)))


def add(xp: Any, a: Any, b: Any) -> Any:
    """a + b, part by part."""
    (ar, ai), (br, bi) = parts(a), parts(b)
    imag = ai if bi is None else bi if ai is None else xp.add(ai, bi)
    shape = np.broadcast_shapes(np.shape(_known(ar)), np.shape(_known(br)))
    return Complex(xp.add(ar, br), xp.broadcast_to(imag, shape))


def subtract(xp: Any, a: Any, b: Any) -> Any:
    """a - b, part by part."""
    return add(xp, a, negative(xp, b))


def negative(xp: Any, a: Any) -> Any:
    """-a."""
    real, imag = parts(a)
    return xp.negative(real) if imag is None else Complex(xp.negative(real), xp.negative(imag))


def conj(xp: Any, a: Any) -> Any:
    """The conjugate."""
    real, imag = parts(a)
    return real if imag is None else Complex(real, xp.negative(imag))


def bilinear(xp: Any, times: Callable[[Any, Any], Any], a: Any, b: Any) -> Complex:
    """Return a product by that of real numbers: (a + ib)(c + id) = ac - bd + i(ad + bc)."""
    (ar, ai), (br, bi) = parts(a), parts(b)
    if ai is None or bi is None:
        return Complex(times(ar, br), times(ar, bi) if ai is None else times(ai, br))
    return Complex(xp.subtract(times(ar, br), times(ai, bi)), xp.add(times(ar, bi), times(ai, br)))


def multiply(xp: Any, a: Any, b: Any) -> Complex:
    """A b, number by number."""
    return bilinear(xp, xp.multiply, a, b)


def matmul(xp: Any, a: Any, b: Any) -> Complex:
    """The product of matrices."""
    return bilinear(xp, xp.matmul, a, b)


def divide(xp: Any, a: Any, b: Any) -> Any:
    """a / b = a conj(b) / |b|^2."""
    real, imag = parts(b)
    if imag is None:
        return by_parts(xp, lambda xp, part: xp.divide(part, real), a)
    over = xp.add(xp.square(real), xp.square(imag))
    return by_parts(xp, lambda xp, part: xp.divide(part, over), multiply(xp, a, conj(xp, b)))


def reciprocal(xp: Any, a: Any) -> Any:
    """1 / a."""
    return divide(xp, 1.0, a)


def square(xp: Any, a: Any) -> Any:
    """a^2."""
    return multiply(xp, a, a)


def power(xp: Any, a: Any, n: int) -> Any:
    """a^n, of a whole number n from 1 to 4, by multiplying."""
    if not 1 <= n <= 4:
        raise UnsaidError(f"a power {n} of complex numbers")
    found = a
    for _ in range(n - 1):
        found = multiply(xp, found, a)
    return found


def absolute(xp: Any, a: Any) -> Any:
    """|a|, real."""
    return xp.hypot(*parts(a))


def angle(xp: Any, a: Any) -> Any:
    """The angle, real, from -pi to pi."""
    real, imag = parts(a)
    return xp.atan2(imag, real)


def polar(xp: Any, size: Any, turn: Any) -> Any:
    """The number of that absolute value and angle."""
    return Complex(xp.multiply(size, xp.cos(turn)), xp.multiply(size, xp.sin(turn)))


def exp(xp: Any, a: Any) -> Any:
    """exp(a)."""
    real, imag = parts(a)
    return polar(xp, xp.exp(real), imag)


def log(xp: Any, a: Any) -> Any:
    """The logarithm whose imaginary part is the angle."""
    return Complex(xp.log(absolute(xp, a)), angle(xp, a))


def sqrt(xp: Any, a: Any) -> Any:
    """The root whose real part is not negative."""
    return polar(xp, xp.sqrt(absolute(xp, a)), xp.divide(angle(xp, a), 2.0))


def sinh(xp: Any, a: Any) -> Any:
    """sinh(x + iy) = sinh x cos y + i cosh x sin y."""
    x, y = parts(a)
    return Complex(xp.multiply(xp.sinh(x), xp.cos(y)), xp.multiply(xp.cosh(x), xp.sin(y)))


def cosh(xp: Any, a: Any) -> Any:
    """cosh(x + iy) = cosh x cos y + i sinh x sin y."""
    x, y = parts(a)
    return Complex(xp.multiply(xp.cosh(x), xp.cos(y)), xp.multiply(xp.sinh(x), xp.sin(y)))


def _of_turned(function: Callable[..., Any], *, back: bool) -> Callable[..., Any]:
    """Return the circular function of a hyperbolic one: f(i a), times -i if `back`."""

    def turned(xp: Any, a: Any) -> Any:
        x, y = parts(a)
        found = function(xp, Complex(xp.negative(y), x))
        return Complex(found.imag, xp.negative(found.real)) if back else found

    return turned


sin, cos = _of_turned(sinh, back=True), _of_turned(cosh, back=False)


def sign(xp: Any, a: Any) -> Any:
    """a / |a|, and 0 of 0."""
    size = absolute(xp, a)
    none = xp.equal(size, 0.0)
    return by_parts(xp, lambda xp, part: xp.where(none, 0.0, xp.divide(part, xp.where(none, 1.0, size))), a)


def equal(xp: Any, a: Any, b: Any) -> Any:
    """Whether they are equal."""
    (ar, ai), (br, bi) = parts(a), parts(b)
    return xp.logical_and(xp.equal(ar, br), xp.equal(0.0 if ai is None else ai, 0.0 if bi is None else bi))


# Fourier transforms.


def transform(xp: Any, x: Any, axis: int, *, forward: bool) -> Complex:
    """Return X_k = sum over j of x_j exp(-+ 2 pi i j k / n), along an axis: - forward, + back. Nothing is divided."""
    real, imag = parts(x)
    n = real.shape[axis]
    cosines, sines = _table(xp, n, np.outer(np.arange(n), np.arange(n)))
    if forward:
        sines = xp.negative(sines)

    def times(part: Any, table: Any) -> Any:
        return _along(xp, part, axis, lambda rows: xp.matmul(rows, table))

    if imag is None:
        return Complex(times(real, cosines), times(real, sines))
    return Complex(
        xp.subtract(times(real, cosines), times(imag, sines)),
        xp.add(times(real, sines), times(imag, cosines)),
    )


def real_back(xp: Any, x: Any, axis: int, n: int) -> Any:
    """Return the n real numbers whose transform begins with x: x_0 + 2 Re of the others, but once for n / 2.

    What is imaginary of the first, and of number n / 2, does not count.
    """
    real, imag = parts(x)
    kept = n // 2 + 1
    once = [1.0 if 2 * k % n == 0 else 2.0 for k in range(kept)]
    cosines, sines = _table(xp, n, np.outer(np.arange(kept), np.arange(n)))
    own = np.array([float(2 * k % n != 0) for k in range(kept)])[:, None]

    def times(part: Any, table: Any) -> Any:
        return _along(xp, part, axis, lambda rows: xp.matmul(rows, table))

    found = times(real, xp.multiply(np.array(once)[:, None], cosines))
    return found if imag is None else xp.subtract(found, times(imag, xp.multiply(2 * own, sines)))


def scaled(xp: Any, x: Any, by: str, n: int) -> Any:
    """Return numbers divided by "n" or "root", or as they are: ""."""
    if not by:
        return x
    over = float(n) if by == "n" else xp.sqrt(xp.asarray(float(n)))
    if not isinstance(x, Complex):
        return xp.divide(x, over)
    return by_parts(xp, lambda xp, part: xp.divide(part, over), x)


def _along(xp: Any, x: Any, axis: int, function: Callable[[Any], Any]) -> Any:
    """Do something along an axis that is made the last one."""
    order = [i for i in range(x.ndim) if i != axis % x.ndim]
    order.append(axis % x.ndim)
    found = function(x if order == [*range(x.ndim)] else xp.permute_dims(x, tuple(order)))
    back = tuple(int(i) for i in np.argsort(order))
    return found if order == [*range(x.ndim)] else xp.permute_dims(found, back)


def _table(xp: Any, n: int, turns: Any) -> tuple[Any, Any]:
    """Return cos and sin of 2 pi turns / n, of whole numbers of turns.

    Both are sines of pi m / (2 n) for whole numbers m, 0 and 1 where they are that, of angles up to pi / 2.
    """
    steps = xp.divide(xp.multiply(np.arange(1.0, n), xp.number("pi")), 2.0 * n)
    table = xp.concat([np.zeros(1), xp.sin(steps), np.ones(1)])

    def sines(m: Any) -> Any:
        half = m % (2 * n)
        folded = np.minimum(half, 2 * n - half)
        signs = np.where(m % (4 * n) >= 2 * n, -1.0, 1.0)
        return xp.multiply(signs, xp.reshape(xp.take(table, folded.ravel()), folded.shape))

    return sines(n + 4 * turns), sines(4 * turns)


def _known(x: Any) -> Any:
    return x.value if isinstance(x, Place) else x


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": add, "subtract": subtract, "multiply": multiply, "divide": divide, "matmul": matmul, "negative": negative,
    "conj": conj, "reciprocal": reciprocal, "square": square, "power": power, "sqrt": sqrt, "exp": exp, "log": log,
    "sin": sin, "cos": cos, "sinh": sinh, "cosh": cosh, "absolute": absolute,
    "angle": angle, "polar": polar, "sign": sign, "equal": equal,
}  # fmt: skip
