"""The calls of an audit, as source text: elementwise functions by name, others with their arguments' shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Shapes = Mapping[str, tuple[int, ...]]

_LAX = (
    "abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma erf erf_inv erfc exp exp2 "
    "expm1 floor lgamma log log1p logistic neg reciprocal round rsqrt sign sin sinh sqrt square tan tanh"
)
_NUMPY = "i0 sinc log2 log10 deg2rad rad2deg nan_to_num fabs trunc"
_SPECIAL = (
    "dawsn digamma entr erfcx erfinv exp1 expi expit gamma gammaln i0 i0e i1 i1e log_ndtr logit ndtr ndtri spence"
)
_NN = (
    "celu elu gelu hard_sigmoid hard_silu hard_tanh leaky_relu log1mexp log_sigmoid mish relu relu6 selu sigmoid silu "
    "soft_sign softplus sparse_plus sparse_sigmoid squareplus"
)
ONE = [
    f"{home}.{name}"
    for home, names in {"lax": _LAX, "jnp": _NUMPY, "special": _SPECIAL, "nn": _NN}.items()
    for name in names.split()
]
TWO = [
    f"{home}.{name}"
    for home, names in {
        "lax": "add atan2 div igamma igammac max min mul pow rem sub",
        "jnp": "copysign float_power fmax fmin fmod heaviside hypot logaddexp logaddexp2 remainder",
        "special": "beta betaln boxcox kl_div rel_entr xlog1py xlogy",
    }.items()
    for name in names.split()
]

A, M, S, T = {"a": (5,)}, {"a": (3, 4)}, {"a": (3, 3)}, {"a": (1, 2, 5)}
TWO_ROWS: Shapes = {"a": (4,), "b": (4,)}
POSITIVE = "a @ a.T + 3 * jnp.eye(3)"
CALLS: Mapping[str, Sequence[tuple[str, Shapes]]] = {
    "special.polygamma": [("special.polygamma(2, a)", {"a": (3,)})],
    "special.zeta": [("special.zeta(jnp.exp(a) + 1.5, jnp.exp(b))", {"a": (2,), "b": (2,)})],
    "special.betainc": [("special.betainc(2.5, 1.5, lax.logistic(a))", {"a": (3,)})],
    "special.logsumexp": [("special.logsumexp(a, axis=1)", M), ("special.logsumexp(a)", A)],
    "special.multigammaln": [("special.multigammaln(jnp.exp(a) + 2, 2)", {"a": (3,)})],
    "lax.betainc": [("lax.betainc(jnp.exp(a), jnp.exp(b), lax.logistic(c))", {"a": (2,), "b": (2,), "c": (2,)})],
    "lax.integer_pow": [("lax.integer_pow(a, 3)", A), ("lax.integer_pow(a, -2)", A)],
    "lax.clamp": [
        ("lax.clamp(-0.5, a, 0.5)", A),
        ("lax.clamp(a - 1, b, a + c * c)", {"a": (4,), "b": (4,), "c": (4,)}),
    ],
    "lax.select": [("lax.select(a > b, a, b)", TWO_ROWS)],
    "lax.select_n": [("lax.select_n(a > b, a, b)", TWO_ROWS)],
    "lax.convert_element_type": [("lax.convert_element_type(a, a.dtype)", A)],
    "lax.reduce_precision": [("lax.reduce_precision(a, 11, 52)", A)],
    "lax.cumsum": [("lax.cumsum(a)", A), ("lax.cumsum(a, axis=1, reverse=True)", M)],
    "lax.cumprod": [("lax.cumprod(a)", A), ("lax.cumprod(a, axis=1, reverse=True)", M)],
    "lax.cummax": [("lax.cummax(a)", A), ("lax.cummax(a, axis=1)", M)],
    "lax.cummin": [("lax.cummin(a)", A), ("lax.cummin(a, axis=1)", M)],
    "lax.cumlogsumexp": [("lax.cumlogsumexp(a)", A), ("lax.cumlogsumexp(a, axis=1)", M)],
    "lax.dot": [("lax.dot(a, b)", {"a": (3, 4), "b": (4, 2)}), ("lax.dot(a, b)", TWO_ROWS)],
    "lax.dot_general": [
        ("lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,))))", {"a": (2, 3, 4), "b": (2, 4, 2)}),
    ],
    "lax.batch_matmul": [("lax.batch_matmul(a, b)", {"a": (2, 3, 2), "b": (2, 2, 3)})],
    "lax.conv": [("lax.conv(a, b, (1,), 'SAME')", {"a": (1, 2, 5), "b": (3, 2, 3)})],
    "lax.conv_general_dilated": [
        (
            "lax.conv_general_dilated(a, b, (2,), [(1, 2)], rhs_dilation=(2,))",
            {"a": (1, 2, 6), "b": (3, 2, 2)},
        ),
        (
            "lax.conv_general_dilated(a, b, (1,), [(1, 1)], lhs_dilation=(2,), feature_group_count=2)",
            {"a": (1, 2, 4), "b": (4, 1, 2)},
        ),
    ],
    "lax.conv_transpose": [("lax.conv_transpose(a, b, (2,), 'SAME')", {"a": (1, 4, 2), "b": (3, 2, 3)})],
    "lax.dynamic_slice": [("lax.dynamic_slice(a, (1,), (3,))", A), ("lax.dynamic_slice(a, (4,), (3,))", A)],
    "lax.dynamic_update_slice": [("lax.dynamic_update_slice(a, b, (3,))", {"a": (5,), "b": (3,)})],
    "lax.slice": [("lax.slice(a, (1,), (5,), (2,))", A)],
    "lax.pad": [
        ("lax.pad(a, b, [(1, 2, 1)])", {"a": (4,), "b": ()}),
        ("lax.pad(a, b, [(-1, 1, 0)])", {"a": (4,), "b": ()}),
    ],
    "lax.gather": [("a[jnp.array([0, 2, 2, -1])]", A), ("a[jnp.array([0, 2]), jnp.array([1, 1])]", M)],
    "lax.scatter": [("a.at[jnp.array([0, 2])].set(b)", {"a": (4,), "b": (2,)})],
    "lax.scatter_add": [("a.at[jnp.array([0, 2, 2])].add(b)", {"a": (4,), "b": (3,)})],
    "lax.scatter_sub": [("a.at[jnp.array([0, 2, 2])].subtract(b)", {"a": (4,), "b": (3,)})],
    "lax.scatter_mul": [("a.at[jnp.array([0, 2])].multiply(b, unique_indices=True)", {"a": (4,), "b": (2,)})],
    "lax.scatter_max": [("a.at[jnp.array([0, 2])].max(b)", {"a": (4,), "b": (2,)})],
    "lax.scatter_min": [("a.at[jnp.array([0, 2])].min(b)", {"a": (4,), "b": (2,)})],
    "lax.reduce_sum": [("lax.reduce_sum(a, (1,))", M)],
    "lax.reduce_prod": [("lax.reduce_prod(a, (1,))", M)],
    "lax.reduce_max": [("lax.reduce_max(a, (1,))", M)],
    "lax.reduce_min": [("lax.reduce_min(a, (1,))", M)],
    "lax.reduce": [("lax.reduce(a, 0.0, lax.add, (0,))", M), ("lax.reduce(a, 1.0, lax.mul, (0,))", M)],
    "lax.reduce_window": [
        ("lax.reduce_window(a, 0.0, lax.add, (1, 1, 2), (1, 1, 2), 'VALID')", T),
        ("lax.reduce_window(a, -jnp.inf, lax.max, (1, 1, 3), (1, 1, 1), 'SAME')", T),
        ("lax.reduce_window(a, jnp.inf, lax.min, (1, 1, 2), (1, 1, 1), 'VALID')", T),
    ],
    "lax.reshape": [("lax.reshape(a, (2, 6))", M)],
    "lax.rev": [("lax.rev(a, (1,))", M)],
    "lax.sort": [("lax.sort(a)", A), ("lax.sort([a, b], num_keys=1)[1]", TWO_ROWS)],
    "lax.top_k": [("lax.top_k(a, 2)[0]", A)],
    "lax.transpose": [("lax.transpose(a, (1, 0))", M)],
    "lax.squeeze": [("lax.squeeze(a, (0,))", {"a": (1, 3)})],
    "lax.expand_dims": [("lax.expand_dims(a, (0,))", A)],
    "lax.broadcast_in_dim": [("lax.broadcast_in_dim(a, (2, 5), (1,))", A)],
    "lax.concatenate": [("lax.concatenate([a, b], 0)", TWO_ROWS)],
    "lax.split": [("lax.split(a, (2, 3))", A)],
    "lax.tile": [("lax.tile(a, (2, 1))", M)],
    "lax.stop_gradient": [("a * lax.stop_gradient(a)", A)],
    "lax.optimization_barrier": [("lax.optimization_barrier(a)", A)],
    "lax.cond": [("lax.cond(a[0] > 0, jnp.sin, jnp.cos, a)", A)],
    "lax.switch": [("lax.switch(1, [jnp.sin, jnp.cos], a)", A)],
    "lax.scan": [("lax.scan(lambda c, x: (jnp.tanh(c + x), c * x), a[0], a)", A)],
    "lax.map": [("lax.map(jnp.sin, a)", A)],
    "lax.fori_loop": [("lax.fori_loop(0, 3, lambda i, c: jnp.sin(c) + i, a)", A)],
    "lax.associative_scan": [("lax.associative_scan(jnp.add, a)", A), ("lax.associative_scan(jnp.multiply, a)", A)],
    "lax.custom_linear_solve": [
        ("lax.custom_linear_solve(lambda v: 2 * v, a, lambda f, b: b / 2, symmetric=True)", A),
    ],
    **{
        f"lax.{name} (complex)": [(f"lax.real(lax.{name}(lax.complex(a, b)))", TWO_ROWS)]
        for name in ("conj", "cos", "exp", "log", "neg", "sign", "sin", "sqrt", "square")
    },
    **{
        f"lax.{name} (complex)": [(f"lax.imag(lax.{name}(lax.complex(a, b), lax.complex(b, a)))", TWO_ROWS)]
        for name in ("add", "div", "mul", "sub")
    },
    **{f"jnp.fft.{name}": [(f"jnp.imag(jnp.fft.{name}(a))", A)] for name in ("fft", "ifft", "rfft")},
    **{f"jnp.fft.{name}": [(f"jnp.fft.{name}(lax.complex(a, b))", TWO_ROWS)] for name in ("hfft", "irfft")},
    "jnp.fft.fft2": [("jnp.real(jnp.fft.fft2(a))", M)],
    "jnp.fft.irfft2": [("jnp.fft.irfft2(lax.complex(a, b))", {"a": (2, 3), "b": (2, 3)})],
    "lax.complex": [("jnp.abs(lax.complex(a, b))", TWO_ROWS)],
    "lax.real": [("lax.real(lax.complex(a, b) ** 2)", TWO_ROWS)],
    "lax.imag": [("lax.imag(lax.complex(a, b) ** 2)", TWO_ROWS)],
    "lax.fft": [("jnp.abs(jnp.fft.fft(a))", A), ("jnp.real(jnp.fft.rfft(a))", A)],
    "lax.linalg.cholesky": [(f"lax.linalg.cholesky({POSITIVE})", S)],
    "lax.linalg.lu": [("lax.linalg.lu(a)[0]", S)],
    "lax.linalg.qr": [("lax.linalg.qr(a, full_matrices=False)", S)],
    "lax.linalg.eigh": [("lax.linalg.eigh(a + a.T)[1]", S)],
    "lax.linalg.svd": [("lax.linalg.svd(a, compute_uv=False)", S)],
    "lax.linalg.eig": [("jnp.real(lax.linalg.eig(a + a.T, compute_left_eigenvectors=False)[0])", S)],
    "lax.linalg.triangular_solve": [
        ("lax.linalg.triangular_solve(a, b, left_side=True, lower=True)", {"a": (3, 3), "b": (3, 2)}),
    ],
    "lax.linalg.tridiagonal_solve": [
        ("lax.linalg.tridiagonal_solve(a.at[0].set(0), b, a.at[-1].set(0), c)", {"a": (3,), "b": (3,), "c": (3, 1)}),
    ],
    "jnp.linalg.det": [("jnp.linalg.det(a)", S)],
    "jnp.linalg.slogdet": [("jnp.linalg.slogdet(a)[1]", S)],
    "jnp.linalg.inv": [("jnp.linalg.inv(a)", S)],
    "jnp.linalg.solve": [("jnp.linalg.solve(a, b)", {"a": (3, 3), "b": (3, 2)})],
    "jnp.linalg.norm": [("jnp.linalg.norm(a)", M), ("jnp.linalg.norm(a, ord=1)", M)],
    "jnp.linalg.vector_norm": [
        ("jnp.linalg.vector_norm(a)", A),
        ("jnp.linalg.vector_norm(a, ord=3)", A),
        ("jnp.linalg.vector_norm(a, ord=1)", A),
        ("jnp.linalg.vector_norm(a, ord=jnp.inf)", A),
    ],
    "jnp.linalg.pinv": [("jnp.linalg.pinv(a)", {"a": (3, 2)})],
    "jnp.linalg.matrix_power": [("jnp.linalg.matrix_power(a, 3)", S)],
    "jnp.linalg.eigvalsh": [("jnp.linalg.eigvalsh(a + a.T)", S)],
    "jnp.prod": [("jnp.prod(a)", A), ("jnp.prod(a, axis=1)", M)],
    "jnp.sum": [("jnp.sum(a, axis=1)", M)],
    "jnp.mean": [("jnp.mean(a, axis=1)", M)],
    "jnp.var": [("jnp.var(a, axis=1)", M), ("jnp.var(a, correction=1)", A)],
    "jnp.std": [("jnp.std(a, axis=1)", M), ("jnp.std(a, correction=1)", A)],
    "jnp.max": [("jnp.max(a)", A)],
    "jnp.median": [("jnp.median(a)", A)],
    "jnp.quantile": [("jnp.quantile(a, 0.3)", A)],
    "jnp.cross": [("jnp.cross(a, b)", {"a": (3,), "b": (3,)})],
    "jnp.kron": [("jnp.kron(a, b)", {"a": (2, 2), "b": (2, 2)})],
    "jnp.outer": [("jnp.outer(a, b)", TWO_ROWS)],
    "jnp.einsum": [("jnp.einsum('ij,jk->ki', a, b)", {"a": (2, 3), "b": (3, 2)})],
    "jnp.trace": [("jnp.trace(a)", S)],
    "jnp.convolve": [("jnp.convolve(a, b)", TWO_ROWS)],
    "jnp.interp": [("jnp.interp(a, jnp.arange(3.0), b)", {"a": (4,), "b": (3,)})],
    "jnp.where": [("jnp.where(a > 0, a, b)", TWO_ROWS)],
    "jnp.ldexp": [("jnp.ldexp(a, 3)", A)],
    "jnp.cov": [("jnp.cov(a)", M)],
    "jnp.corrcoef": [("jnp.corrcoef(a)", {"a": (2, 4)})],
    "jnp.nanmean": [("jnp.nanmean(a)", A)],
    "jnp.unwrap": [("jnp.unwrap(a)", A)],
    "jnp.trapezoid": [("jnp.trapezoid(a)", A)],
    "nn.softmax": [("nn.softmax(a)", M)],
    "nn.log_softmax": [("nn.log_softmax(a)", M)],
    "nn.logsumexp": [("nn.logsumexp(a)", A)],
    "nn.standardize": [("nn.standardize(a)", M)],
    "nn.glu": [("nn.glu(a)", M)],
    "nn.logmeanexp": [("nn.logmeanexp(a)", A)],
    "nn.dot_product_attention": [
        ("nn.dot_product_attention(a, b, c)", {"a": (1, 2, 1, 2), "b": (1, 2, 1, 2), "c": (1, 2, 1, 2)}),
    ],
}
