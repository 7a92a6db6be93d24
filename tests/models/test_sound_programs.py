"""Right gradients of programs of all kinds, at random points and sizes, are never called wrong."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from gdcompare.scale.spread import Raised, Unfit
from tests.models import sound
from tests.models.sound import Tally, cell, digest, judged, programs, verdict_at
from tests.models.zoo import Case, torch_zoo

torch: Any = pytest.importorskip("torch", reason="reads the programs of torch")
for module in ("jax", "equinox", "flax", "optax"):
    pytest.importorskip(module, reason="reads the programs of JAX")

POINTS = 100
"""How many points each program is judged at, in each dtype: about 100,000 verdicts of arrays together."""


@pytest.mark.soundness
@pytest.mark.parametrize("make", [pytest.param(case, id=name) for name, case in programs().items()])
def test_a_right_gradient_is_never_called_wrong(make: Case, dtype: str) -> None:
    tally = judged(make, range(POINTS), dtype)

    assert tally is not None
    print(tally)  # noqa: T201 - the report
    assert tally.wrong == {}
    assert tally.agreed > 0.5


def linear(factor: float) -> Case:
    """A program in torch whose gradient is so many times what it should be."""
    from gdcompare_torch import from_module

    class Scaled(torch.autograd.Function):  # type: ignore[misc]  # torch comes without types here
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            return 1 * x

        @staticmethod
        def backward(context: Any, cotangent: Any) -> Any:
            return factor * cotangent

    class Linear(torch.nn.Module):  # type: ignore[misc]  # likewise
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([[0.5], [-1.0]], dtype=torch.float64))

        def forward(self, x: Any) -> Any:
            return Scaled.apply(x @ self.weight)

    data = np.linspace(-1, 1, 12).reshape(6, 2), np.ones((6, 1))
    return lambda: (from_module(Linear(), torch.nn.MSELoss()), data)


@pytest.mark.thorough
def test_a_wrong_gradient_is_counted_with_its_seed_and_a_right_one_is_not() -> None:
    right, wrong = (judged(linear(factor), [7], "float64") for factor in (1.0, 1.1))

    assert right is not None
    assert wrong is not None
    assert (right.counts, right.wrong, right.agreed) == ({"proven agree": 2}, {}, 1.0)
    assert [*wrong.wrong] == ["7"]
    assert "factor 1.1" in wrong.wrong["7"]
    assert wrong.counts == {"proven wrong": 1, "proven agree": 1}
    assert right.largest["proven"] < 1 < wrong.largest["proven"]


def test_tallies_add_up() -> None:
    one = Tally({"proven agree": 2}, {"proven": 0.5}, {}, 1.0)
    two = Tally({"proven agree": 1, "sampled wrong": 1}, {"proven": 0.25, "sampled": 3.0}, {"8": "no"}, 2.0)

    assert one + two == Tally(
        {"proven agree": 3, "sampled wrong": 1}, {"proven": 0.5, "sampled": 3.0}, {"8": "no"}, 3.0
    )
    assert (one + two).agreed == 0.75


def test_a_worker_of_other_code_is_unfit_and_one_that_is_stopped_hands_in_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sound, "programs", lambda: {"linear": linear(1.0)})
    due = judged(linear(1.0), range(3, 5), "float64")
    assert due is not None

    found = cell("linear", "float64", 3, 5, digest())

    assert isinstance(found, dict)
    assert found | {"seconds": 0} == asdict(due) | {"seconds": 0}
    assert isinstance(cell("linear", "float64", 3, 5, "another"), Unfit)
    monkeypatch.setattr(sound, "stop_sign", lambda: lambda: True)
    assert cell("linear", "float64", 3, 5, digest()) == Raised("stopped")


@pytest.mark.parametrize(
    ("name", "seed", "dtype"),
    [
        ("batch norm, training", 10, "float32"),  # its kernel takes no mean from what is 0 but for the mean's rounding
        ("batch norm, training", 25, "float64"),
        ("binary cross entropy of shares", 82, "float32"),  # shares that are 1 in float32
        ("gaussian", 82, "float32"),  # variances that are clamped without being recorded
    ],
)
def test_a_right_gradient_is_right_where_a_kernel_rounds_in_its_own_way(name: str, seed: int, dtype: str) -> None:
    native, data = torch_zoo()[name]()

    assert verdict_at(native, data, seed, dtype).verdict != "wrong"
