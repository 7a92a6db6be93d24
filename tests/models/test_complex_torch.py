"""Models of torch that compute with complex numbers: Fourier transforms, rotations, complex parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.arithmetic.program import ProgramError
from tests.models.zoo import numbers

torch: Any = pytest.importorskip("torch", reason="reads programs of torch")

import gdcompare_torch  # noqa: E402 - torch may be missing

FEATURES, TARGETS = numbers(5, 8), numbers(5, seed=1)
DATA = FEATURES, TARGETS


def spectral(p: Any, x: Any, y: Any) -> Any:
    """A layer of a Fourier neural operator: some frequencies are weighted, written into zeros, and taken back."""
    found = torch.fft.rfft(x)
    kept = torch.zeros_like(found)
    kept[:, :3] = found[:, :3] * torch.complex(p["a"][:3], p["b"][:3])
    return ((torch.fft.irfft(kept, n=8) - y[:, None]) ** 2).mean(1)


def spectral_in_two_dimensions(p: Any, x: Any, y: Any) -> Any:
    found = torch.fft.rfft2((x * p["a"]).reshape(-1, 2, 4), norm="ortho")
    return (torch.fft.irfft2(found * (1 + 2j), s=(2, 4)).sin().sum((1, 2)) - y) ** 2


def rotary(p: Any, x: Any, y: Any) -> Any:
    """Rotary position embeddings: pairs of numbers are one complex number, which is turned."""
    pairs = torch.view_as_complex((x * p["a"]).reshape(-1, 4, 2))
    turns = torch.polar(torch.ones(4, dtype=x.dtype), torch.arange(4, dtype=x.dtype))
    return ((torch.view_as_real(pairs * turns).flatten(1) * p["b"]).sum(1) - y) ** 2


def spectrum(p: Any, x: Any, y: Any) -> Any:
    found = torch.fft.fft(x * p["a"])
    return (
        (found * found.conj()).real.sum(1) + (found.abs() + 0j + 1).real.log().sum(1) + found.angle().sum(1) - y
    ) ** 2


def short_time(p: Any, x: Any, y: Any) -> Any:
    found = torch.stft(x * p["a"], 4, 2, window=torch.hann_window(4, dtype=x.dtype), return_complex=True)
    return ((found.abs().square() + 0.1).log().mean((1, 2)) - y) ** 2


def products(p: Any, x: Any, y: Any) -> Any:
    weights = torch.complex(p["a"], p["b"]).reshape(2, 4)
    one = x[:, :4].to(weights.dtype) @ weights.mT
    other = torch.einsum("bi,oi->bo", torch.complex(x[:, :4], x[:, 4:]), weights.conj())
    return (torch.linalg.vecdot(one, other).imag + (one / (other + 3)).real.sum(1) - y) ** 2


def functions(p: Any, x: Any, y: Any) -> Any:
    z = torch.complex(x * p["a"], x + p["b"]) / 4
    parts = z.exp(), z.sin(), (z + 2).log(), (z + 2).sqrt(), z**3, z.cosh(), z.sgn(), 1 / (z + 2)
    return (torch.cat([each.real - 2 * each.imag for each in parts], dim=1).sum(1) - y) ** 2


def moves(p: Any, x: Any, y: Any) -> Any:
    z = torch.stack([torch.complex(x, x * p["a"]), torch.complex(x * p["b"], x)], dim=1)
    z = torch.cat([z.roll(1, dims=2), z.flip(1).conj()], dim=1).transpose(1, 2).reshape(-1, 4, 8)
    z = torch.where(z.real > 0, z, 2 * z).masked_fill(torch.eye(4, 8, dtype=torch.bool), 1j)
    whole = z.clone()
    whole[:, 1, ::2] *= 3
    whole[:, 2].copy_(z[:, 3])
    return ((whole[:, :3].cumsum(1) * z[:, [2, 0, 1]]).mean((1, 2)).real - y) ** 2


LOSSES = [
    spectral, spectral_in_two_dimensions, rotary, spectrum, short_time, products, functions, moves,
]  # fmt: skip


def native(loss: Any, **options: Any) -> Any:
    return gdcompare_torch.from_function(loss, {"a": numbers(8, seed=2), "b": numbers(8, seed=3)}, **options)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", LOSSES)
def test_right_gradients_agree(loss: Any, dtype: str) -> None:
    report = gdc.verify(native(loss), DATA, dtype=dtype)

    assert {each.verdict for each in report.entries} == {"agree"}
    assert min(each.digits for each in report.entries) >= (2 if dtype == "float32" else 10)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch's own forward mode
@pytest.mark.parametrize("derivative", ["jvp", "hvp", "hessian"])
def test_other_derivatives_agree(derivative: Any) -> None:
    assert gdc.verify(native(spectral), DATA, derivative=derivative).verdict == "agree"


class Product(torch.autograd.Function):  # type: ignore[misc]  # torch comes without types here
    """A product whose backward pass forgets one conjugate."""

    @staticmethod
    def forward(ctx: Any, z: Any, w: Any) -> Any:
        ctx.save_for_backward(z, w)
        return z * w

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        z, w = ctx.saved_tensors
        return cotangent * w.conj(), (cotangent * z).sum(0)


def test_a_forgotten_conjugate_is_wrong() -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        found = Product.apply(torch.fft.rfft(x * p["b"]), torch.complex(p["a"][:5], p["a"][3:]))
        return ((torch.fft.irfft(found, n=8) - y[:, None]) ** 2).mean(1)

    verdicts = {each.parameter: each.verdict for each in gdc.verify(native(loss), DATA).entries}

    assert verdicts == {"loss": "agree", "a": "wrong", "b": "agree"}


class Spectral(torch.nn.Module):  # type: ignore[misc]  # likewise
    """A layer with complex parameters and a complex buffer."""

    product = staticmethod(torch.mul)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.complex(*torch.from_numpy(numbers(2, 5, seed=4))))
        self.register_buffer("turn", torch.polar(torch.ones(5), torch.arange(5.0)))

    def forward(self, x: Any) -> Any:
        return torch.fft.irfft(self.product(torch.fft.rfft(x) * self.turn, self.weight), n=8)


class ForgetfulSpectral(Spectral):
    product = staticmethod(Product.apply)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_complex_parameter_is_one_of_its_parts(dtype: str) -> None:
    model = gdcompare_torch.from_module(Spectral(), torch.nn.functional.mse_loss)
    wrong = gdcompare_torch.from_module(ForgetfulSpectral(), torch.nn.functional.mse_loss)
    data = FEATURES, numbers(5, 8, seed=5)

    assert {name: value.shape for name, value in model.parameters.items()} == {"weight": (5, 2)}
    assert gdc.verify(model, data, dtype=dtype).verdict == "agree"
    assert [each.verdict for each in gdc.verify(wrong, data, dtype=dtype).entries] == ["agree", "wrong"]


def test_the_gradient_by_a_complex_parameter_is_torchs() -> None:
    start = torch.complex(*torch.from_numpy(numbers(2, 8, seed=6)))

    def loss(p: Any, x: Any, y: Any) -> Any:
        return ((x.to(p["w"].dtype) @ p["w"]).abs() - y) ** 2

    found = gdcompare_torch.from_function(loss, {"w": start})
    _, gradient = found.value_and_grad(found.parameters, FEATURES, TARGETS)
    own = start.clone().requires_grad_()
    due = torch.autograd.grad(loss({"w": own}, *map(torch.from_numpy, DATA)).mean(), own)[0]

    np.testing.assert_array_equal(gradient["w"], torch.view_as_real(due).numpy())
    assert gdc.verify(found, DATA).verdict == "agree"
    assert gdc.verify(gdcompare_torch.from_function(loss, {"w": start.numpy()}), DATA).verdict == "agree"


@pytest.mark.thorough
def test_the_laws_hold_of_complex_models() -> None:
    model = gdcompare_torch.from_module(Spectral(), lambda out, y: ((out - y) ** 2).mean(1))

    gdc.check_batch_laws(model, (FEATURES, numbers(5, 8, seed=5))).assert_agree()


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda z: z.asinh().real, "asinh is none of the operations of complex numbers that can be read"),
        (lambda z: z.pow(0.5j).real, "a power 0.5j of complex numbers"),
        (lambda z: z.real * z.sum().item().real, "makes a Python number of what depends on the inputs"),
        (lambda z: z.conj().mul_(2).real, "writes into the conjugate of a tensor"),
    ],
)
def test_what_cannot_be_read_is_said(loss: Any, said: str) -> None:
    model = native(lambda p, x, y: (loss(torch.complex(x * p["a"], x * p["b"])).sum(1) - y) ** 2)

    with pytest.raises(ProgramError, match=said) as error:
        model.program(model.parameters, *DATA)

    assert "test_complex_torch.py:" in str(error.value)


def test_complex_values_of_a_parameter_are_refused_before_they_lose_a_part() -> None:
    with pytest.raises(ValueError, match="parameter 'a' holds complex numbers: give their parts along one more axis"):
        gdc.verify(native(spectral), DATA, {"a": np.ones(8) + 1j, "b": np.ones(8)})


def test_complex_data_are_refused_with_the_way_out() -> None:
    with pytest.raises(
        ValueError, match="the features hold complex128, and a model takes real numbers: give their parts"
    ):
        gdc.verify(native(spectral), (FEATURES + 1j, TARGETS))


def test_complex_arrays_without_numbers_are_read() -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        none = torch.complex(x[:, :0] * p["b"][:0], x[:, :0])
        return (torch.cat([torch.fft.fft(x * p["a"]), none], dim=1).real.square().sum(1) - y) ** 2

    assert gdc.verify(native(loss), DATA).entries[1].verdict == "agree"


def test_complex_numbers_of_fewer_digits_are_refused() -> None:
    model = native(lambda p, x, y: ((x * p["a"]).to(torch.complex64).abs().sum(1) - y) ** 2)

    with pytest.raises(ProgramError, match="rounds to float32, where float64 is judged"):
        model.program(model.parameters, *DATA)


def test_a_loss_beyond_all_floats_is_no_fault_of_the_reader() -> None:
    model = native(lambda p, x, y: (torch.complex(1000 * x * p["a"], x).cosh().real.sum(1) - y) ** 2)

    with pytest.raises(ProgramError, match="cannot be confirmed: it gives inf"):
        model.program(model.parameters, *DATA)
