"""Each primitive of JAX of complex numbers as a formula: `formula(xp, *operands, **its parameters)`; see `Complex`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from gdcompare.arithmetic.complex_numbers import (
    FUNCTIONS,
    Complex,
    bilinear,
    by_parts,
    parts,
    real_back,
    scaled,
    transform,
    whole,
)
from gdcompare_jax.primitives import FORMULAS


def is_complex(dtype: Any) -> bool:
    """Whether a dtype is one of complex numbers."""
    return bool(jax.dtypes.issubdtype(dtype, np.complexfloating))


def is_complex_array(leaf: Any) -> bool:
    """Whether a leaf of a pytree is an array of complex numbers; those of Python are constants."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and is_complex(leaf.dtype)


def of_parts(dtype: Any) -> str:
    """Return the dtype of the parts of complex numbers; of others, their own."""
    return str(np.finfo(dtype).dtype) if is_complex(dtype) else str(dtype)


def apart(value: Any) -> Any:
    """Return the parts of complex numbers along an axis more, the last; all else as it is."""
    if not np.iscomplexobj(value):
        return value
    return (np if isinstance(value, np.ndarray) else jax.numpy).stack([value.real, value.imag], axis=-1)


def as_own(array: Any, own: Any) -> Any:
    """Return what `apart` took apart as it was, if the other is of complex numbers."""
    return jax.lax.complex(array[..., 0], array[..., 1]) if np.iscomplexobj(own) else array


def _called(name: str) -> Callable[..., Any]:
    return lambda xp, *operands, **_: FUNCTIONS[name](xp, *operands)


def _parted(name: str, *which: int) -> Callable[..., Any]:
    """Return a linear primitive of these operands, or of all, done to both parts; the others say where."""

    def formula(xp: Any, *operands: Any, **params: Any) -> Any:
        chosen = which or range(len(operands))
        given = [whole(xp, each) if i in chosen else each for i, each in enumerate(operands)]
        return by_parts(xp, partial(FORMULAS[name], **params), *given)

    return formula


def _bilinear(name: str) -> Callable[..., Any]:
    return lambda xp, a, b, **params: bilinear(xp, partial(FORMULAS[name], xp, **params), a, b)


def _select_n(xp: Any, which: Any, *cases: Any) -> Any:
    return by_parts(xp, lambda xp, *each: FORMULAS["select_n"](xp, which, *each), *(whole(xp, each) for each in cases))


def _convert(xp: Any, x: Any, *, new_dtype: Any, **_: Any) -> Any:
    return whole(xp, x) if is_complex(new_dtype) else parts(x)[0]  # JAX keeps the real part alone


def _integer_pow(xp: Any, x: Any, *, y: int) -> Any:
    return FUNCTIONS["power"](xp, x, y)


def _complex(xp: Any, real: Any, imag: Any) -> Complex:
    del xp
    return Complex(real, imag)


def _fft(xp: Any, x: Any, *, fft_type: Any, fft_lengths: Sequence[int], **_: Any) -> Any:
    """The last axes; of real numbers the very last has half of the numbers, the others being conjugate to them."""
    kind = str(getattr(fft_type, "name", fft_type)).rpartition(".")[2]
    axes, last, n = range(x.ndim - len(fft_lengths), x.ndim - 1), x.ndim - 1, math.prod(fft_lengths)
    if kind == "IRFFT":
        for axis in axes:
            x = transform(xp, x, axis, forward=False)
        return scaled(xp, real_back(xp, x, last, fft_lengths[-1]), "n", n)
    found = transform(xp, x, last, forward=kind != "IFFT")
    if kind == "RFFT":
        key = (*[slice(None)] * last, slice(0, fft_lengths[-1] // 2 + 1))
        found = by_parts(xp, lambda xp, part: xp.index(part, key), found)
    for axis in axes:
        found = transform(xp, found, axis, forward=kind != "IFFT")
    return scaled(xp, found, "n" if kind == "IFFT" else "", n)


COMPLEX: dict[str, Callable[..., Any]] = {
    **{
        primitive: _called(name)
        for primitive, name in {
            "add": "add", "add_any": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative",
            "conj": "conj", "abs": "absolute", "exp": "exp", "log": "log", "sqrt": "sqrt", "sin": "sin", "cos": "cos",
            "square": "square", "eq": "equal",
            "sign": "sign",
        }.items()
    },
    **{
        name: _parted(name, 0)
        for name in (
            "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "split", "gather", "rev",
            "tile", "dynamic_slice", "unstack", "copy", "copy_p", "reduce_sum", "cumsum", "name",
        )
    },
    **{name: _parted(name) for name in ("concatenate", "stack", "device_put", "optimization_barrier")},
    **{name: _parted(name, 0, 2) for name in ("scatter", "scatter-add", "scatter-sub")},
    "dynamic_update_slice": _parted("dynamic_update_slice", 0, 1),
    "pad": _parted("pad", 0, 1),
    "select_n": _select_n,
    "dot_general": _bilinear("dot_general"),
    "conv_general_dilated": _bilinear("conv_general_dilated"),
    "convert_element_type": _convert,
    "integer_pow": _integer_pow,
    "complex": _complex,
    "real": lambda _xp, x: parts(x)[0],
    "imag": lambda _xp, x: parts(x)[1],
    "fft": _fft,
}  # fmt: skip
