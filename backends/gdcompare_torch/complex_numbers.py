"""Each ATen operation of complex numbers as a formula `formula(xp, *its arguments)`; tensors are `Complex` or real."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gdcompare.arithmetic.complex_numbers import FUNCTIONS, Complex, by_parts, real_back, scaled, transform, whole
from gdcompare.arithmetic.program import UnsaidError
from gdcompare_torch.aten import FORMULAS

SCALES = ("", "root", "n")
"""What torch's whole numbers for the three kinds of normalisation mean."""


def _called(name: str) -> Callable[..., Any]:
    return lambda xp, *operands: FUNCTIONS[name](xp, *operands)


def _added(name: str) -> Callable[..., Any]:
    def formula(xp: Any, a: Any, b: Any, *, alpha: complex = 1) -> Any:
        return FUNCTIONS[name](xp, a, b if alpha == 1 else FUNCTIONS["multiply"](xp, b, alpha))

    return formula


def _divided(xp: Any, a: Any, b: Any, *, rounding_mode: Any = None) -> Any:
    if rounding_mode is not None:
        raise UnsaidError("complex numbers divided and rounded")
    return FUNCTIONS["divide"](xp, a, b)


def _power(xp: Any, a: Any, n: Any) -> Any:
    """Return a^2 or a^3: others are exponentials of logarithms in torch, and round as these do."""
    if not isinstance(n, int | float) or n not in (2, 3):
        raise UnsaidError(f"a power {n} of complex numbers")
    return FUNCTIONS["power"](xp, a, int(n))


def _parted(name: str, several: int = 1) -> Callable[..., Any]:
    """Return a linear operation of its first arguments, done to both parts; the others say where and how."""

    def formula(xp: Any, *operands: Any, **how: Any) -> Any:
        given = [whole(xp, each) if hasattr(each, "ndim") else each for each in operands[:several]]
        return by_parts(xp, lambda xp, *these: FORMULAS[name](xp, *these, *operands[several:], **how), *given)

    return formula


def _all_parted(name: str) -> Callable[..., Any]:
    """The same of a list of arrays."""

    def formula(xp: Any, several: Any, *how: Any) -> Any:
        given = [whole(xp, each) for each in several]
        return by_parts(xp, lambda xp, these: FORMULAS[name](xp, these, *how), given)

    return formula


def _where(xp: Any, condition: Any, a: Any, b: Any) -> Any:
    return by_parts(xp, lambda xp, one, other: xp.where(condition, one, other), _whole(xp, a), _whole(xp, b))


def _masked_fill(xp: Any, x: Any, mask: Any, value: Any) -> Any:
    return _where(xp, mask, value, x)


def _whole(xp: Any, x: Any) -> Any:
    """Return a number of an array or of Python's with both parts."""
    return whole(xp, x) if hasattr(x, "ndim") else Complex(complex(x).real, complex(x).imag)


def _filled(xp: Any, x: Complex, value: Any) -> Complex:
    value = _whole(xp, value)
    return Complex(*(xp.broadcast_to(each, x.shape) for each in (value.real, value.imag)))


def _copied(xp: Any, x: Any, source: Any, non_blocking: bool = False) -> Any:
    del non_blocking
    return _filled(xp, x, source)


def _cast(xp: Any, x: Any, *, dtype: Any = None, **_: Any) -> Any:
    if dtype is not None and not dtype.is_complex:
        raise UnsaidError("complex numbers made real: take .real")
    return whole(xp, x)


def _product_added(xp: Any, c: Any, a: Any, b: Any, *, beta: complex = 1, alpha: complex = 1) -> Any:
    product = FUNCTIONS["matmul"](xp, a, b)
    times = FUNCTIONS["multiply"]
    return FUNCTIONS["add"](
        xp, c if beta == 1 else times(xp, c, beta), product if alpha == 1 else times(xp, product, alpha)
    )


def _vdot(xp: Any, a: Any, b: Any) -> Any:
    return FUNCTIONS["matmul"](xp, FUNCTIONS["conj"](xp, a), b)


def _complex(xp: Any, real: Any, imag: Any) -> Complex:
    shape = _broadcast(real, imag)
    return Complex(xp.broadcast_to(real, shape), xp.broadcast_to(imag, shape))


def _broadcast(*arrays: Any) -> tuple[int, ...]:
    return np.broadcast_shapes(*(tuple(each.shape) for each in arrays))


# Fourier transforms.


def _normal(xp: Any, x: Any, normalization: int, sizes: Sequence[int]) -> Any:
    return scaled(xp, x, SCALES[normalization], math.prod(sizes))


def _of_real(xp: Any, x: Any, dim: Sequence[int], normalization: int, onesided: bool) -> Any:
    """aten._fft_r2c: the last of the axes has half of the numbers, for the others are conjugate to them."""
    sizes, last = [x.shape[axis] for axis in dim], dim[-1] % x.ndim
    found = transform(xp, x, last, forward=True)
    if onesided:
        key = (*[slice(None)] * last, slice(0, x.shape[last] // 2 + 1))
        found = by_parts(xp, lambda xp, part: xp.index(part, key), found)
    for axis in dim[:-1]:
        found = transform(xp, found, axis, forward=True)
    return _normal(xp, found, normalization, sizes)


def _of_complex(xp: Any, x: Any, dim: Sequence[int], normalization: int, forward: bool) -> Any:
    sizes = [x.shape[axis] for axis in dim]
    for axis in dim:
        x = transform(xp, x, axis, forward=forward)
    return _normal(xp, x, normalization, sizes)


def _to_real(xp: Any, x: Any, dim: Sequence[int], normalization: int, last: int) -> Any:
    sizes = [*(x.shape[axis] for axis in dim[:-1]), last]
    for axis in dim[:-1]:
        x = transform(xp, x, axis, forward=False)
    return _normal(xp, real_back(xp, x, dim[-1] % x.ndim, last), normalization, sizes)


COMPLEX: dict[str, Callable[..., Any]] = {
    **{
        operation: _called(name)
        for operation, name in {
            "mul": "multiply", "neg": "negative", "_conj_physical": "conj", "conj_physical": "conj", "exp": "exp",
            "log": "log", "abs": "absolute", "angle": "angle", "polar": "polar", "reciprocal": "reciprocal",
            "mm": "matmul", "bmm": "matmul", "mv": "matmul", "dot": "matmul", "square": "square",
            "eq": "equal", "sqrt": "sqrt", "sin": "sin", "cos": "cos", "sinh": "sinh", "cosh": "cosh",
            "sgn": "sign",
        }.items()
    },
    **{
        name: _parted(name)
        for name in (
            "t", "transpose", "permute", "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "expand", "slice",
            "select", "split", "split_with_sizes", "unsafe_split", "unbind", "clone", "contiguous", "alias", "detach",
            "lift_fresh", "sum", "mean", "cumsum", "flip", "roll", "index", "_unsafe_index", "index_select", "gather",
            "tril", "triu", "constant_pad_nd", "as_strided", "diagonal_copy",
        )
        if name in FORMULAS
    },
    "cat": _all_parted("cat"),
    "stack": _all_parted("stack"),
    "add": _added("add"),
    "sub": _added("subtract"),
    "div": _divided,
    "pow": _power,
    "addmm": _product_added,
    "baddbmm": _product_added,
    "vdot": _vdot,
    "where": _where,
    "masked_fill": _masked_fill,
    "fill": _filled,
    "zero": lambda xp, x: _filled(xp, x, 0.0),
    "copy": _copied,
    "copy_to": _copied,
    "_to_copy": _cast,
    "complex": _complex,
    "_fft_r2c": _of_real,
    "_fft_c2c": _of_complex,
    "_fft_c2r": _to_real,
}  # fmt: skip
MADE = {"complex", "polar", "view_as_complex", "_fft_r2c"}
"""Operations that make complex numbers of real ones."""


def is_complex(value: Any) -> bool:
    """Whether a tensor or a dtype is one of complex numbers, or a number is complex."""
    if isinstance(value, torch.dtype):
        return bool(value.is_complex)
    return isinstance(value, complex) or (isinstance(value, torch.Tensor) and value.is_complex())


def on_host(value: Any) -> Any:
    """Return real numbers; those of complex ones have an axis more, for the real and the imaginary part."""
    if _has_parts(value):
        value = np.asarray(value.detach().resolve_conj().cpu() if torch.is_tensor(value) else value)
        return np.stack([value.real, value.imag], axis=-1)
    return value.detach().double().cpu().numpy() if torch.is_tensor(value) else value


def as_own(leaves: Mapping[str, torch.Tensor], own: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return leaves, those whose parameter is of complex numbers as such: the last axis has their parts."""
    return {name: torch.view_as_complex(leaf) if _has_parts(own[name]) else leaf for name, leaf in leaves.items()}


def _has_parts(value: Any) -> bool:
    return is_complex(value) if torch.is_tensor(value) else np.iscomplexobj(value)
