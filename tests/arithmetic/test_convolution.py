"""Convolutions of the tape are torch's, forwards and on the way back, in every number system."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.numbers import Floats
from gdcompare.arithmetic.rounded import RoundedNumbers
from gdcompare.arithmetic.tape import Tape

SETTINGS: dict[str, tuple[dict[str, Any], int, int, tuple[int, ...]]] = {
    "plain": ({}, 2, 3, (5, 6)),
    "strided": ({"stride": 2, "padding": 1}, 2, 3, (5, 6)),
    "strides that leave a rest": ({"stride": (3, 2), "padding": (0, 2)}, 2, 3, (6, 5)),
    "dilated": ({"dilation": (1, 2), "padding": (1, 2)}, 2, 3, (5, 6)),
    "in groups": ({"groups": 2, "padding": 1}, 4, 6, (4, 4)),
    "by depth": ({"groups": 3}, 3, 3, (4, 4)),
    "in one dimension": ({"stride": 2, "padding": 2}, 2, 3, (7,)),
    "in three dimensions": ({"padding": 1}, 1, 2, (3, 3, 2)),
}
TRANSPOSED: dict[str, tuple[dict[str, Any], int, int, tuple[int, ...]]] = {
    "plain": ({}, 2, 3, (3, 4)),
    "strided": ({"stride": 2, "padding": 1, "output_padding": 1}, 2, 3, (3, 4)),
    "in groups": ({"stride": 2, "groups": 2}, 4, 6, (3, 3)),
    "dilated": ({"dilation": 2, "padding": 1}, 2, 2, (3, 4)),
}
CASES = [
    *(pytest.param(*setting, False, id=name) for name, setting in SETTINGS.items()),
    *(pytest.param(*setting, True, id=f"transposed, {name}") for name, setting in TRANSPOSED.items()),
]


def window(d: int) -> tuple[int, ...]:
    return (3, 2, 1)[:d]


@pytest.mark.parametrize(("settings", "c", "outputs", "sizes", "transposed"), CASES)
def test_a_convolution_and_its_derivatives_are_those_of_torch(
    settings: dict[str, Any], c: int, outputs: int, sizes: tuple[int, ...], transposed: bool
) -> None:
    torch = pytest.importorskip("torch")
    generator, groups = np.random.default_rng(3), settings.get("groups", 1)
    d = len(sizes)
    shape = (c, outputs // groups, *window(d)) if transposed else (outputs, c // groups, *window(d))
    x, w = generator.normal(size=(2, c, *sizes)), generator.normal(size=shape)
    a, b = (torch.tensor(each, requires_grad=True) for each in (x, w))
    function = getattr(torch.nn.functional, f"conv_transpose{d}d" if transposed else f"conv{d}d")
    due = function(a, b, **settings)
    weights = generator.normal(size=due.shape)
    (due * torch.tensor(weights)).sum().backward()

    for numbers in (Floats(), BallNumbers(), RoundedNumbers("float64")):
        with np.errstate(all="ignore"):
            tape = Tape(numbers)
            inputs, kernel = tape.leaf(x), tape.leaf(w)
            found = tape.conv(inputs, kernel, transposed=transposed, **settings)
            tape.walk_back(tape.sum(found * weights))
        for leaf, expected in ((inputs, a.grad), (kernel, b.grad)):
            actual = tape.gradient(leaf)[0]
            np.testing.assert_allclose(floats(actual), expected.numpy(), rtol=1e-12, atol=1e-12)
            error = getattr(actual, "error", np.zeros(actual.shape))
            assert error.max() < 1e-12
            assert not error.any() or (error >= abs(floats(actual) - expected.numpy())).all()
        np.testing.assert_allclose(floats(found.value[0]), due.detach().numpy(), rtol=1e-12, atol=1e-12)


def floats(values: Any) -> Any:
    return np.asarray(getattr(values, "value", values)).astype(float)


@pytest.mark.parametrize("padding", [0, 1])
def test_pooling_is_that_of_torch(padding: int) -> None:
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(4).normal(size=(2, 3, 5, 6))
    tape = Tape(BallNumbers())

    largest = tape.max_pool(x, (3, 2), stride=(2, 1), padding=padding).value[0].astype(float)
    mean = tape.avg_pool(x, (3, 2), stride=2, padding=padding).value[0].astype(float)

    due = functional.max_pool2d(torch.tensor(x), (3, 2), stride=(2, 1), padding=padding)
    assert largest.tolist() == due.tolist()
    np.testing.assert_allclose(mean, functional.avg_pool2d(torch.tensor(x), (3, 2), stride=2, padding=padding))


@pytest.mark.parametrize(
    ("kernel", "groups", "message"),
    [
        ((2, 3), 1, "another number of axes than x"),
        ((2, 3, 2), 1, "in 1 groups does not suit x of 2 channels"),
        ((3, 1, 2), 2, "in 2 groups does not suit x of 2 channels"),
    ],
)
def test_a_kernel_that_does_not_suit_is_refused(kernel: tuple[int, ...], groups: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tape(Floats()).conv(np.ones((1, 2, 4)), np.ones(kernel), groups=groups)
