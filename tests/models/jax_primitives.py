"""JAX's differentiable primitives in use, on float64: `CASES`; and why some are no function of numbers: `APART`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.ad_checkpoint import checkpoint_name

Array = Any


class Case(NamedTuple):
    """A function of float arrays, and the arrays."""

    function: Callable[..., Any]
    arrays: tuple[Any, ...]


def numbers(*shape: int, seed: int = 0, low: float = 0.2, high: float = 1.8) -> Any:
    return np.random.default_rng(seed).uniform(low, high, shape).round(3)


X, Y = numbers(2, 3), numbers(2, 3, seed=1)
LINE, SQUARE = numbers(7, seed=2), numbers(3, 3, seed=3) + 2 * np.eye(3)
IMAGE, KERNEL = numbers(2, 4, 5, 6, seed=4), numbers(6, 2, 2, 3, seed=5)
MATRICES = np.stack([SQUARE, SQUARE.T @ SQUARE])
WHERE = np.array([[2], [0], [2]])


def one(function: Callable[..., Any], *arrays: Any) -> tuple[Case, ...]:
    return (Case(function, arrays or (X,)),)


def two(function: Callable[..., Any]) -> tuple[Case, ...]:
    return (Case(function, (X, Y)), Case(lambda x: function(x, x[:, ::-1] + 0.25), (X,)))


def windows(**how: Any) -> Callable[..., Any]:
    return lambda function: lambda x: function(x, window_dimensions=(1, 2, 3), **{"window_strides": (1, 2, 1)} | how)


def scattered(function: Callable[..., Any], mode: str = "clip") -> tuple[Case, ...]:
    """In single numbers, in rows, and where the places depend on the data."""
    single = lax.ScatterDimensionNumbers((), (0,), (0,))
    rows = lax.ScatterDimensionNumbers((1,), (0,), (0,))
    table, values = numbers(4, 3, seed=6), numbers(3, 3, seed=7)
    apart = np.array([[3], [0], [2]])
    return (
        Case(lambda x, y: function(x, apart, y, single, mode=mode), (LINE, LINE[:3] + 0.05)),
        Case(lambda x, y: function(x, apart, y, rows, mode=mode), (table, values)),
        Case(lambda x, y: function(x, lax.stop_gradient(3 * x[1:2] + 0.6).astype(int)[:, None], y, single, mode=mode),
             (LINE, LINE[:1] + 0.05)),
    )  # fmt: skip


def repeated(function: Callable[..., Any]) -> tuple[Case, ...]:
    single = lax.ScatterDimensionNumbers((), (0,), (0,))
    return (
        *scattered(function),
        Case(lambda x, y: function(x, WHERE, y, single, mode="drop"), (LINE, LINE[:3] + 0.05)),
    )


def convolved(**how: Any) -> Callable[..., Any]:
    return lambda x, w: lax.conv_general_dilated(x, w, **{"window_strides": (1, 2), "padding": "SAME"} | how)


def definite(x: Any) -> Any:
    return x @ x.T + 2 * jnp.eye(len(x))


def piecewise(x: Any) -> Any:
    return jnp.piecewise(x, [x > 1.2, x > 0.7], [jnp.sin, jnp.cos, lambda y: y * y])


def looped(x: Any) -> Any:
    return lax.fori_loop(0, 3, lambda i, y: jnp.sin(y) * x + i, x)


def searched(x: Any) -> Any:
    """The root of y^3 + y = x, element by element."""
    f = lambda y: y**3 + y - x  # noqa: E731 - as JAX's documentation has it
    newton = lambda f, y: lax.fori_loop(0, 8, lambda _, y: y - f(y) / (3 * y * y + 1), y)  # noqa: E731
    return lax.custom_root(f, x, newton, lambda g, y: y / g(jnp.ones_like(y)))


def solved(x: Any, b: Any) -> Any:
    a = definite(x)
    solve = lambda matvec, b: jnp.linalg.inv(a) @ b  # noqa: E731
    return lax.custom_linear_solve(lambda v: a @ v, b, solve, symmetric=True)


def ragged(x: Any, w: Any) -> Any:
    return lax.ragged_dot(x, w, jnp.array([2, 1]))


CASES: Mapping[str, Sequence[Case]] = {
    **{name: one(getattr(lax, name)) for name in (
        "abs", "asinh", "atan", "bessel_i0e", "bessel_i1e", "cbrt", "ceil", "cos", "cosh", "digamma", "erf", "erfc",
        "exp", "exp2", "expm1", "floor", "is_finite", "lgamma", "log", "log1p", "logistic", "neg", "round", "rsqrt",
        "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "stop_gradient",
    )},
    **{name: one(lambda x, name=name: getattr(lax, name)(x / 2)) for name in ("acos", "asin", "atanh", "erf_inv")},
    "acosh": one(lambda x: lax.acosh(x + 1)),
    **{name: two(getattr(lax, name)) for name in ("add", "atan2", "div", "max", "min", "mul", "pow", "rem", "sub")},
    **{name: two(lambda x, y, name=name: jnp.where(getattr(lax, name)(x, y), x * y, y))
       for name in ("eq", "ge", "gt", "le", "lt", "ne")},
    "eq_to": one(lambda x: lax.sort(x)), "le_to": one(lambda x: lax.sort(x)),
    "lt_to": one(lambda x: jnp.interp(x, jnp.arange(3.0), x[0] * x[1])),
    "add_any": one(lambda x: jax.grad(lambda y: jnp.sum(y * y * jnp.sin(y)))(x)),
    **{name: two(lambda x, y, name=name: jnp.where(getattr(lax, f"bitwise_{name}")(x > y, x > 1), x * y, y))
       for name in ("and", "or", "xor")},
    "not": two(lambda x, y: jnp.where(lax.bitwise_not(x > y), x * y, y)) + one(
        lambda x: x * x[((lax.argmax(x, 1, np.int32) ^ 1) & ~lax.argmax(x, 0, np.int32)[0] | 2) % x.shape[0]]),
    "shift_left": one(lambda x: x * lax.shift_left(jnp.arange(3), 2)) + one(
        lambda x: x * jnp.left_shift(lax.argmax(x, 0, np.int32), 2)),
    "shift_right_arithmetic": one(lambda x: x * lax.shift_right_arithmetic(jnp.arange(3), 1)),
    "shift_right_logical": one(lambda x: x * lax.shift_right_logical(jnp.arange(3), 1)),
    "argmax": one(lambda x: x[:, lax.argmax(x[0], 0, np.int32)]) + one(piecewise),
    "argmin": one(lambda x: x[:, lax.argmin(x[0], 0, np.int32)]),
    "approx_top_k": one(lambda x: lax.approx_max_k(x, 2)[0]),
    "broadcast_in_dim": one(lambda x: lax.broadcast_in_dim(x, (2, 4, 3), (0, 2))),
    "cholesky": (
        Case(lambda x: lax.linalg.cholesky(definite(x)), (SQUARE,)),
        Case(lambda x: lax.linalg.cholesky(definite(x), symmetrize_input=False), (SQUARE,)),
        Case(lambda x: jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(definite(x)), x), (SQUARE,)),
    ),
    "clamp": one(lambda x: lax.clamp(0.5, x, 1.3)),
    "concatenate": two(lambda x, y: lax.concatenate([x, y, x], 1)),
    "cond": one(lambda x: lax.cond(x[0, 0] > 0.5, jnp.sin, jnp.cos, x)),
    "conv_general_dilated": (
        Case(convolved(), (IMAGE[:, :2], KERNEL[:, :2])),
        Case(convolved(feature_group_count=2), (IMAGE, KERNEL)),
        Case(convolved(batch_group_count=2), (IMAGE[:, :2], KERNEL)),
        Case(convolved(rhs_dilation=(2, 1), padding=[(2, 1), (0, 3)]), (IMAGE[:, :2], KERNEL)),
        Case(convolved(lhs_dilation=(1, 2), padding=[(1, 0), (2, 2)]), (IMAGE[:, :2], KERNEL)),
        Case(convolved(padding=[(-1, 1), (1, -1)]), (IMAGE[:, :2], KERNEL)),
        Case(convolved(dimension_numbers=("NHWC", "HWIO", "NHWC")),
             (IMAGE.transpose(0, 2, 3, 1)[..., :2], KERNEL.transpose(2, 3, 1, 0))),
        Case(lambda x, w: lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW")),
             (IMAGE[:, :2], KERNEL)),
    ),
    "convert_element_type": one(lambda x: x * x.astype(np.int32).astype(np.float64)),
    "copy": one(jnp.copy),
    "cumlogsumexp": one(lambda x: lax.cumlogsumexp(x, 1), X) + one(lambda x: lax.cumlogsumexp(x, 1, reverse=True)),
    "cummax": one(lambda x: lax.cummax(x, 1)) + one(lambda x: lax.cummax(x, 0, reverse=True)),
    "cummin": one(lambda x: lax.cummin(x, 1)),
    "cumprod": one(lambda x: lax.cumprod(x, 1)) + one(lambda x: lax.cumprod(x, 1, reverse=True)),
    "cumsum": one(lambda x: lax.cumsum(x, 1)),
    "custom_linear_solve": (
        Case(solved, (SQUARE, LINE[:3])),
        Case(jnp.linalg.solve, (SQUARE, LINE[:3])),
        Case(jnp.linalg.solve, (SQUARE, numbers(3, 2))),
        Case(jnp.linalg.solve, (MATRICES, numbers(2, 3, 1))),
        Case(lambda x, b: jax.scipy.sparse.linalg.cg(definite(x), b)[0], (SQUARE, LINE[:3])),
        Case(searched, (X,)),
    ),
    "device_put": one(lambda x: jax.device_put(x) * x),
    "dot_general": (
        Case(lambda x, y: lax.dot_general(x, y, (((1,), (1,)), ((), ()))), (X, Y)),
        Case(lambda x, y: lax.dot_general(x, y, (((2,), (1,)), ((0,), (0,)))), (numbers(2, 3, 4), numbers(2, 4, 3))),
    ),
    "dynamic_slice": (
        Case(lambda x: lax.dynamic_slice(x, (1, 0), (1, 2)), (X,)),
        Case(lambda x: lax.dynamic_slice(x, (lax.stop_gradient(x[0, 0] + 0.5).astype(int), 5), (1, 2)), (X,)),
    ),
    "dynamic_update_slice": (
        Case(lambda x, y: lax.dynamic_update_slice(x, y[:1, :2], (1, 1)), (X, Y)),
        Case(lambda x, y: lax.dynamic_update_slice(x, y[:1, :2], (lax.stop_gradient(x[0, 0] + 0.5).astype(int), 4)),
             (X, Y)),
    ),
    "eigh": (
        Case(lambda x: lax.linalg.eigh(definite(x))[1], (SQUARE,)),
        Case(lambda x: lax.linalg.eigh(definite(x))[0] ** 2, (SQUARE,)),
        Case(lambda x: jnp.linalg.eigvalsh(x + x.mT), (MATRICES,)),
    ),
    "gather": (
        Case(lambda x: x[:, np.array([2, 0, 2])], (X,)),
        Case(lambda x: x.at[np.array([2, 9, -7])].get(mode="fill", fill_value=0.5), (LINE,)),
        Case(lambda x: x[lax.stop_gradient(3 * x + 0.1).astype(int)], (LINE,)),
        Case(lambda x: jnp.take_along_axis(x, jnp.argsort(x, axis=1), axis=1), (X,)),
        Case(lambda x: jnp.take(x, np.array([1, 8]), axis=0), (LINE,)),
    ),
    "igamma": (Case(lambda x: lax.igamma(np.full((2, 3), 2.5), x), (X,)),),
    "igammac": (Case(lambda x: lax.igammac(np.full((2, 3), 2.5), x), (X,)),),
    "integer_pow": tuple(Case(lambda x, n=n: lax.integer_pow(x, n), (X,)) for n in (-2, 0, 2, 3, 7)),
    "linear_call": one(lambda x: jax.custom_derivatives.linear_call(lambda r, y: y * r, lambda r, y: y * r, 2.0, x)),
    "lu": (
        Case(lambda x: jax.lax.linalg.lu(x)[0], (SQUARE,)),
        Case(jnp.linalg.det, (np.kron(SQUARE, np.eye(2)) + 0.1 * numbers(6, 6),)),
        Case(lambda x: jnp.linalg.slogdet(x)[1], (MATRICES,)),
        Case(jnp.linalg.inv, (SQUARE,)),
    ),
    "jit": one(jax.jit(lambda x: jnp.sin(x) * x)),
    "name": one(lambda x: checkpoint_name(jnp.sin(x), "own")),
    "optimization_barrier": one(lambda x: lax.optimization_barrier(x) * x),
    "pad": (
        Case(lambda x: lax.pad(x, 0.5, [(1, 0, 0), (0, 2, 0)]), (X,)),
        Case(lambda x: lax.pad(x, 0.5, [(-1, 0, 0), (1, -1, 2)]), (X,)),
        Case(lambda x: lax.pad(x, x[0, 0], [(0, 0, 1), (-2, 3, 1)]), (X,)),
    ),
    "polygamma": (Case(lambda x: lax.polygamma(np.full((2, 3), 2.0), x), (X,)),),
    "qr": (
        Case(lambda x: lax.linalg.qr(x, full_matrices=False)[0], (np.vstack([SQUARE, LINE[:3]]),)),
        Case(lambda x: jnp.linalg.qr(x)[1], (SQUARE,)),
    ),
    "ragged_dot_general": (Case(ragged, (numbers(3, 2), numbers(2, 2, 4))),),
    "reduce": (
        Case(lambda x: lax.reduce(x, 0.0, lax.add, (1,)), (X,)),
        Case(lambda x: lax.reduce(x, 1.0, lambda a, b: a * b + 0.0, (1,)), (X,)),
    ),
    **{f"reduce_{name}": one(lambda x, name=name: getattr(jnp, name)(x, axis=1)) for name in
       ("max", "min", "prod", "sum")},
    "reduce_precision": one(lambda x: lax.reduce_precision(x, 11, 52)),
    "reduce_window_max": (
        Case(windows(padding="SAME")(lambda x, **how: lax.reduce_window(x, -np.inf, lax.max, **how)), (IMAGE[0],)),
        Case(windows(padding="VALID", base_dilation=(1, 2, 1))(
            lambda x, **how: lax.reduce_window(x, -np.inf, lax.max, **how)), (IMAGE[0],)),
    ),
    "reduce_window_min": one(
        windows(padding="SAME")(lambda x, **how: lax.reduce_window(x, np.inf, lax.min, **how)), IMAGE[0]),
    "reduce_window_sum": one(
        windows(padding="SAME", base_dilation=(1, 2, 1))(lambda x, **how: lax.reduce_window(x, 0.0, lax.add, **how)),
        IMAGE[0]),
    "regularized_incomplete_beta": one(lambda x: lax.betainc(np.full((2, 3), 2.5), np.full((2, 3), 1.5), x / 2)),
    "remat2": one(jax.checkpoint(lambda x: jnp.sin(x) * x)),
    "reshape": one(lambda x: lax.reshape(x, (3, 2), (1, 0))),
    "rev": one(lambda x: lax.rev(x, (1,))),
    "scan": one(lambda x: lax.scan(lambda c, row: (c * row, c + row), x[0], x)[1]),
    "scatter": scattered(lax.scatter) + scattered(lax.scatter, "drop"),
    "scatter-add": repeated(lax.scatter_add),
    "scatter-sub": repeated(lax.scatter_sub),
    "scatter-mul": scattered(partial(lax.scatter_mul, unique_indices=True)),
    "scatter-max": repeated(lax.scatter_max),
    "scatter-min": repeated(lax.scatter_min),
    "select_and_gather_add": one(lambda x: jax.jvp(
        lambda y: lax.reduce_window(y, -np.inf, lax.max, (2, 2), (1, 1), "VALID"), (x,), (x * x,))[1]),
    "select_and_scatter_add": one(lambda x: jax.grad(
        lambda y: jnp.sum(lax.reduce_window(y, -np.inf, lax.max, (2, 2), (1, 1), "VALID") ** 2))(x)),
    "select_n": two(lambda x, y: lax.select(x > y, x * x, y)),
    "slice": one(lambda x: lax.slice(x, (0, 1), (2, 3), (1, 2))),
    "sort": (
        Case(lambda x: lax.sort(x, dimension=1), (X,)),
        Case(lambda x, y: lax.sort((x, y), dimension=1)[1], (X, Y)),
        Case(lambda x, y: lax.sort((jnp.round(x), y, x), dimension=0, num_keys=2)[2], (X, Y)),
        Case(lambda x: x[jnp.argsort(x)], (LINE,)),
    ),
    "split": one(lambda x: lax.split(x, (1, 2), 1)[1]),
    "squeeze": one(lambda x: lax.squeeze(x[:, None], (1,))),
    "stack": two(lambda x, y: jnp.stack([x, y], axis=1)),
    "svd": (
        Case(lambda x: jnp.linalg.svd(x, compute_uv=False), (np.vstack([SQUARE, LINE[:3]]),)),
        Case(lambda x: jnp.linalg.svd(x, full_matrices=False)[2] ** 2, (SQUARE,)),
        Case(lambda x: jnp.linalg.svd(x, full_matrices=False)[0] ** 2, (np.vstack([SQUARE, LINE[:3]]).T,)),
        Case(jnp.linalg.pinv, (np.vstack([SQUARE, LINE[:3]]),)),
    ),
    "tile": one(lambda x: lax.tile(x, (2, 1))) if hasattr(lax, "tile") else one(lambda x: jnp.tile(x, (2, 2))),
    "top_k": one(lambda x: lax.top_k(x, 2)[0]),
    "transpose": one(lambda x: lax.transpose(x, (1, 0))),
    "triangular_solve": (
        Case(lambda x, b: lax.linalg.triangular_solve(x, b, left_side=True, lower=True), (SQUARE, numbers(3, 2))),
        Case(lambda x, b: lax.linalg.triangular_solve(x, b, lower=False, transpose_a=True), (SQUARE, numbers(2, 3))),
        Case(lambda x, b: lax.linalg.triangular_solve(x, b, left_side=True, unit_diagonal=True), (SQUARE, SQUARE)),
    ),
    "tridiagonal_solve": (
        Case(lambda d, b: lax.linalg.tridiagonal_solve(
            jnp.concatenate([jnp.zeros(1), d[1:] / 4]), d + 1, jnp.concatenate([d[:-1] / 3, jnp.zeros(1)]), b[:, None]),
            (LINE, LINE[::-1].copy())),
    ),
    "unstack": one(lambda x: jnp.unstack(x, axis=1)[1]),
    "while": one(looped),
}  # fmt: skip

APART: Mapping[str, frozenset[str]] = {
    "complex numbers": frozenset({"complex", "conj", "eig", "fft", "imag", "real"}),
    "between devices": frozenset({
        "all_gather", "all_gather_invariant", "all_gather_reduced", "all_to_all", "pbroadcast", "ppermute", "preduced",
        "psum", "psum_invariant", "pvary", "ragged_all_to_all", "reduce_scatter", "reduced_vary_cast_p", "reshard",
        "shard_map", "sharding_constraint", "inspect_sharding", "layout_constraint", "unreduced_psum",
        "unreduced_reduce_scatter", "vary_unreduced_cast_p",
    }),
    "writing into references and boxes": frozenset({
        "accum_grad_in_ref", "addupdate", "box_get", "box_set", "empty_ref", "free_ref", "freeze", "get", "new_box",
        "new_ref", "run_state", "swap", "log_extend", "log_read", "new_log",
    }),
    "calls of the host, or of foreign code": frozenset({
        "debug_callback", "debug_print", "ffi_call", "io_callback", "pure_callback", "call_hi_primitive", "stage",
    }),
    "random numbers": frozenset({
        "random_bits", "random_fold_in", "random_gamma", "random_seed", "random_split", "random_unwrap", "random_wrap",
    }),
    "no derivative backwards, in JAX": frozenset({"composite", "custom_vmap_call", "reduce_window"}),
    "bits and dtypes": frozenset({"bitcast_convert_type", "from_edtype", "to_edtype", "mulhi"}),
    "within JAX alone: no program of a user has them": frozenset({
        "check", "custom_lin", "dce_sink", "eval_jaxpr", "global_array_to_host_local_array",
        "host_local_array_to_global_array", "remat_opt", "tie",
    }),
}  # fmt: skip
"""What is no function of float arrays, by reason."""
