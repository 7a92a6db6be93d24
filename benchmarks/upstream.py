"""Where the findings of docs/audit.md are reported, as far as was found: `{framework: {operation: [(order, words)]}}`.

The order is 1 or 2, of the derivative. Each was looked for in the framework's issues; "none found" says that a search
for it had no answer, which is no proof that there is none.
"""

from __future__ import annotations

from collections.abc import Mapping

TORCH, JAX = "https://github.com/pytorch/pytorch/issues/", "https://github.com/jax-ml/jax/issues/"
AUTOGRAD = "https://github.com/HIPS/autograd/issues/"
TENSORFLOW = "https://github.com/tensorflow/tensorflow/issues/"

NUMBERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "torch": {
        "sigmoid": ("195527", "195681"),
        "tanh": ("195527", "195685"),
        "nn.functional.logsigmoid, twice": ("195530", "195679"),
        "nn.functional.silu, twice": ("195682",),
        "sinc, twice": ("196703", "89459"),
        "exp2": ("192407",),
        "exp2, twice": ("192408",),
        "atan2": ("193040",),
        "linalg.vector_norm": ("193006",),
        "linalg.norm": ("193006",),
        "norm": ("193006",),
        "linalg.det, twice": ("192521",),
        "cholesky_inverse": ("196682",),
        "cholesky_solve": ("197010",),
    },
    "jax": {
        "lax.sqrt": ("39799",),
        "lax.tanh": ("40342",),
        "lax.logistic": ("40343",),
        "lax.tanh, twice": ("39801",),
        "lax.expm1": ("39794",),
        "lax.exp2": ("40382",),
        "lax.asinh": ("40634",),
        "lax.acosh": ("40634",),
        "special.i0": ("39797",),
        "jnp.i0": ("39797",),
        "jnp.linalg.vector_norm": ("26248",),
        "jnp.linalg.norm": ("26248",),
    },
    "autograd": {"anp.linalg.norm": ("151",)},
    "tensorflow": {"tf.math.tanh": ("126524",), "tf.math.sigmoid": ("126060",)},
}
"""Issues, by operation; ", twice" for those about second derivatives."""
PLACES = {"torch": TORCH, "jax": JAX, "autograd": AUTOGRAD, "tensorflow": TENSORFLOW}
SEARCHED: Mapping[str, tuple[str, ...]] = {
    "torch": (
        "digamma",
        "asinh",
        "acosh",
        "asinh, twice",
        "acosh, twice",
        "digamma, twice",
        "as_strided_scatter",
        "nn.functional.hardsigmoid",
        "logcumsumexp",
        "polar",
        "scatter_reduce (amax)",
        "scatter_reduce (amin)",
        "special.log_ndtr",
    ),
    "jax": ("special.log_ndtr", "lax.sign (complex)"),
    "autograd": ("anp.var (correction)", "anp.std (correction)", "anp.power, twice"),
}
"""What was looked for, and not found."""


def reported(framework: str, operation: str, twice: bool) -> str:
    """Return where a fault is reported, as Markdown; "" if nobody has looked.

    >>> reported("torch", "tanh", False)
    '[#195527](https://github.com/pytorch/pytorch/issues/195527), [#195685](https://github.com/pytorch/pytorch/issues/195685)'
    >>> reported("torch", "digamma", False), reported("torch", "no such", True)
    ('none found', '')
    """
    key = f"{operation}, twice" if twice else operation
    numbers = NUMBERS.get(framework, {}).get(key, ())
    if not numbers and twice and operation in NUMBERS.get(framework, {}):
        return ""
    if numbers:
        return ", ".join(f"[#{number}]({PLACES[framework]}{number})" for number in numbers)
    return "none found" if key in SEARCHED.get(framework, ()) else ""
