"""Pairs of real arrays compute as NumPy does with complex numbers."""

from __future__ import annotations

from typing import Any

import flint
import numpy as np
import pytest

from gdcompare.arithmetic import complex_numbers as module
from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.complex_numbers import Complex, by_parts, parts, real_back, scaled, transform
from gdcompare.arithmetic.program import Draft, UnsaidError
from gdcompare.arithmetic.tape import Tape

RNG = np.random.default_rng(0)
A, B = (RNG.normal(size=(3, 4)) + 1j * RNG.normal(size=(3, 4)) for _ in range(2))


def places(draft: Draft, *arrays: Any) -> list[Any]:
    """Real and complex arrays as inputs."""
    found = []
    for each in arrays:
        real = draft.input("x", np.real(each).copy(), "float64")
        imag = draft.input("y", np.imag(each).copy(), "float64") if np.iscomplexobj(each) else None
        found.append(real if imag is None else Complex(real, imag))
    return found


def value(found: Any) -> Any:
    real, imag = (getattr(each, "value", each) for each in parts(found))
    return real if imag is None else real + 1j * imag


@pytest.mark.parametrize(
    ("name", "due", "operands"),
    [
        ("add", np.add, (A, B)),
        ("add", np.add, (A, B.real)),
        ("add", np.add, (A[0, 0], B)),
        ("add", np.add, (A.real, 2j)),
        ("subtract", np.subtract, (A, B)),
        ("subtract", np.subtract, (A.real, B)),
        ("multiply", np.multiply, (A, B)),
        ("multiply", np.multiply, (A.real, B)),
        ("multiply", np.multiply, (A, 1 + 2j)),
        ("divide", np.divide, (A, B)),
        ("divide", np.divide, (A, B.real)),
        ("divide", np.divide, (A.real, B)),
        ("matmul", np.matmul, (A, B.T)),
        ("matmul", np.matmul, (A.real, B.T)),
        ("negative", np.negative, (A,)),
        ("conj", np.conj, (A,)),
        ("conj", np.conj, (A.real,)),
        ("reciprocal", np.reciprocal, (A,)),
        ("square", np.square, (A,)),
        ("exp", np.exp, (A,)),
        ("log", np.log, (A,)),
        ("sqrt", np.sqrt, (A,)),
        ("sinh", np.sinh, (A,)),
        ("cosh", np.cosh, (A,)),
        ("sin", np.sin, (A,)),
        ("cos", np.cos, (A,)),
        ("absolute", np.abs, (A,)),
        ("sign", np.sign, (np.where(A.real > 0.5, 0, A),)),
        ("angle", np.angle, (A,)),
        ("polar", lambda size, turn: size * np.exp(1j * turn), (A.real, B.real)),
        ("equal", np.equal, (A, np.where(A.real > 0, A, A + 1j))),
        ("equal", np.equal, (A, A.real)),
    ],
)
def test_it_is_numpys(name: str, due: Any, operands: Any) -> None:
    draft = Draft()

    found = getattr(module, name)(draft, *(each if np.ndim(each) == 0 else places(draft, each)[0] for each in operands))

    np.testing.assert_allclose(value(found), due(*operands), rtol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 8, 12])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_transforms_are_numpys(n: int, axis: int) -> None:
    x = np.moveaxis(RNG.normal(size=(2, 3, n)) + 1j * RNG.normal(size=(2, 3, n)), -1, axis)
    draft = Draft()
    both, real = places(draft, x, x.real)
    half = np.moveaxis(np.moveaxis(x, axis, -1)[..., : n // 2 + 1], -1, axis)

    for forward, due in ((True, np.fft.fft), (False, lambda *given, **how: n * np.fft.ifft(*given, **how))):
        for given, numbers in ((both, x), (real, x.real)):
            found = transform(draft, given, axis, forward=forward)
            np.testing.assert_allclose(value(found), due(numbers, axis=axis), atol=1e-13)
    back = real_back(draft, places(draft, half)[0], axis, n)
    np.testing.assert_allclose(value(scaled(draft, back, "n", n)), np.fft.irfft(half, n, axis=axis), atol=1e-13)


def test_its_constants_are_not_rounded() -> None:
    """The sum over k of X_k is n x_0, and what belongs to all others is exactly 0 where the table is exact."""
    draft = Draft()
    x = draft.input("x", np.array([1.0, 1e15, -1e15, 3e15, 7e14, 2e13]), "float64")
    program = draft.program(draft.sum(transform(draft, x, 0, forward=True).real))

    with flint.ctx.workprec(200):
        tape = Tape(BallNumbers())
        [found] = program(tape, tape.asarray(np.array([1.0, 1e15, -1e15, 3e15, 7e14, 2e13]))).value.ravel()

    assert found.contains(6)
    assert found.rad() < 1e-30


def test_what_is_linear_is_done_to_both_parts() -> None:
    draft = Draft()
    a, b = places(draft, A, B)

    found = by_parts(draft, lambda xp, several: [xp.sum(each, axis=0) for each in several], [a, b])

    for each, due in zip(found, (A, B), strict=True):
        np.testing.assert_allclose(value(each), due.sum(axis=0))


def test_powers_are_products_and_others_are_refused() -> None:
    draft = Draft()
    [a] = places(draft, A)

    np.testing.assert_allclose(value(module.power(draft, a, 3)), A**3)
    for n in (-1, 5):
        with pytest.raises(UnsaidError, match="a power"):
            module.power(draft, a, n)
