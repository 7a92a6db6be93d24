"""Models of JAX that compute with complex numbers: Fourier transforms, recurrences, complex parameters."""

from __future__ import annotations

from typing import Any

import pytest

import gdcompare as gdc
from gdcompare.arithmetic.program import ProgramError
from tests.models.zoo import numbers

jax: Any = pytest.importorskip("jax", reason="reads programs of JAX")

import gdcompare_jax  # noqa: E402 - JAX may be missing

jnp, complex_of = jax.numpy, jax.lax.complex
FEATURES, TARGETS = numbers(5, 8), numbers(5, seed=1)
DATA = FEATURES, TARGETS


def spectral(p: Any, x: Any, y: Any) -> Any:
    """A layer of a Fourier neural operator: some frequencies are weighted, written into zeros, and taken back."""
    found = jnp.fft.rfft(x)
    kept = jnp.zeros_like(found).at[:, :3].set(found[:, :3] * (p["a"][:3] + 1j * p["b"][:3]))
    return jnp.mean((jnp.fft.irfft(kept, n=8) - y[:, None]) ** 2, axis=1)


def spectral_in_two_dimensions(p: Any, x: Any, y: Any) -> Any:
    found = jnp.fft.rfft2((x * p["a"]).reshape(-1, 2, 4), norm="ortho")
    return (jnp.sin(jnp.fft.irfft2(found * (1 + 2j), s=(2, 4))).sum((1, 2)) - y) ** 2


def rotary(p: Any, x: Any, y: Any) -> Any:
    """Rotary position embeddings: pairs of numbers are one complex number, which is turned."""
    pairs = (x * p["a"]).reshape(-1, 4, 2)
    turned = complex_of(pairs[..., 0], pairs[..., 1]) * jnp.exp(1j * jnp.arange(4))
    return ((jnp.stack([turned.real, turned.imag], -1).reshape(-1, 8) * p["b"]).sum(1) - y) ** 2


def spectrum(p: Any, x: Any, y: Any) -> Any:
    found = jnp.fft.fft(x * p["a"])
    return ((found * found.conj()).real.sum(1) + jnp.log(jnp.abs(found) + 1).sum(1) - y) ** 2


def recurrence(p: Any, x: Any, y: Any) -> Any:
    """A linear state space model, whose eigenvalues are complex."""
    turn = jnp.exp(complex_of(-jnp.exp(p["a"][:4]), p["b"][:4]))

    def step(state: Any, u: Any) -> Any:
        state = turn * state + u[:, None]
        return state, (state, u)

    _, (states, _) = jax.lax.scan(step, jnp.zeros((x.shape[0], 4), turn.dtype), x.T)
    return (states.real.sum((0, 2)) - y) ** 2


def products(p: Any, x: Any, y: Any) -> Any:
    weights = complex_of(p["a"], p["b"]).reshape(2, 4)
    one, other = x[:, :4] @ weights.T, jnp.einsum("bi,oi->bo", complex_of(x[:, :4], x[:, 4:]), weights.conj())
    return (jnp.sum(one.conj() * other, 1).imag + (one / (other + 3)).real.sum(1) - y) ** 2


def functions(p: Any, x: Any, y: Any) -> Any:
    z = complex_of(x * p["a"], x + p["b"]) / 4
    parts = jnp.exp(z), jnp.sin(z), jnp.log(z + 2), jnp.sqrt(z + 2), z**3, jnp.cos(z), 1 / (z + 2)
    return (sum((each.real - 2 * each.imag).sum(1) for each in parts) - y) ** 2


def moves(p: Any, x: Any, y: Any) -> Any:
    z = jnp.stack([complex_of(x, x * p["a"]), complex_of(x * p["b"], x)], axis=1)
    z = jnp.concatenate([jnp.roll(z, 1, 2), jnp.flip(z, 1).conj()], axis=1).transpose(0, 2, 1).reshape(-1, 4, 8)
    z = z.at[:, 1, ::2].set(3 * z[:, 1, ::2]).at[:, 2].add(1j)
    z = jnp.where(z.real > 0, z, 2 * z) * jax.lax.cond(True, lambda u: u, lambda u: 2 * u, z[:1])
    return ((jnp.cumsum(z, 1) * z[:, jnp.array([2, 0, 1, 1])]).mean((1, 2)).real - y) ** 2


LOSSES = [
    spectral, spectral_in_two_dimensions, rotary, spectrum, recurrence, products, functions, moves,
]  # fmt: skip


def native(loss: Any) -> Any:
    return gdcompare_jax.from_function(loss, {"a": numbers(8, seed=2), "b": numbers(8, seed=3)})


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", LOSSES)
def test_right_gradients_agree(loss: Any, dtype: str) -> None:
    report = gdc.verify(native(loss), DATA, dtype=dtype)

    assert {each.verdict for each in report.entries} == {"agree"}
    assert min(each.digits for each in report.entries) >= (2 if dtype == "float32" else 10)


@jax.custom_vjp  # type: ignore[untyped-decorator]  # JAX's
def product(z: Any, w: Any) -> Any:
    return z * w


product.defvjp(lambda z, w: (z * w, (z, w)), lambda kept, g: (g * kept[1], (g * kept[0].conj()).sum(0)))


def test_a_conjugate_too_many_is_wrong_and_by_a_complex_parameter_too() -> None:
    """JAX's cotangents are such that a product needs none."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        return jnp.mean((jnp.fft.irfft(p["f"](jnp.fft.rfft(x * p["b"]), p["w"]), n=8) - y[:, None]) ** 2, 1)

    start = {"w": numbers(5, seed=4) + 1j * numbers(5, seed=5), "b": numbers(8, seed=3)}
    verdicts = []
    for multiply in (product, jnp.multiply):
        model = gdcompare_jax.from_function(lambda p, x, y, f=multiply: loss({**p, "f": f}, x, y), start)
        assert model.parameters["w"].shape == (5, 2)
        verdicts.append({each.parameter: each.verdict for each in gdc.verify(model, DATA).entries})

    assert verdicts == [{"loss": "agree", "b": "agree", "w": verdict} for verdict in ("wrong", "agree")]


def test_a_complex_number_of_pythons_is_a_constant() -> None:
    model = gdcompare_jax.from_function(
        lambda p, x, y: ((x @ p["w"] * p["turn"]).real - y) ** 2, {"w": FEATURES[0], "turn": 1j}
    )

    assert set(model.parameters) == {"w"}


@pytest.mark.thorough
@pytest.mark.parametrize("derivative", ["jvp", "hvp", "hessian"])
def test_other_derivatives_agree(derivative: Any) -> None:
    assert gdc.verify(native(spectral), DATA, derivative=derivative).verdict == "agree"


@pytest.mark.thorough
def test_a_port_of_a_complex_model_agrees() -> None:
    pytest.importorskip("torch", reason="compares with a model of torch")
    from gdcompare_torch import from_function

    start = {"w": numbers(8, seed=6) + 1j * numbers(8, seed=7)}
    models = [
        gdcompare_jax.from_function(lambda p, x, y: (jnp.abs(x @ p["w"]) - y) ** 2, start, name="jax"),
        from_function(lambda p, x, y: ((x.to(p["w"].dtype) @ p["w"]).abs() - y) ** 2, start, name="torch"),
    ]

    assert gdc.compare(models, DATA).verdict == "agree"


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda z: jnp.arcsinh(z).real, "asinh is none of the operations of complex numbers that can be read"),
        (lambda z: (z**0.5j).real, "pow is none of the operations of complex numbers that can be read"),
        (lambda z: z.astype("complex64").real, "rounds to complex64"),
        (lambda z: jax.scipy.special.wofz(z).real, "JAX adds up a series for wofz"),
    ],
)
def test_what_cannot_be_read_is_said(loss: Any, said: str) -> None:
    model = native(lambda p, x, y: (loss(complex_of(x * p["a"], x * p["b"])).sum(1) - y) ** 2)

    with pytest.raises(ProgramError, match=said) as error:
        model.program(model.parameters, *DATA)

    assert "test_complex_jax.py:" in str(error.value)
