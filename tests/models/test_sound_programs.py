"""Right gradients of programs of all kinds, at random points and sizes, are never called wrong."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
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


@pytest.mark.thorough
@pytest.mark.parametrize("make", [pytest.param(case, id=name) for name, case in programs().items()])
def test_a_right_gradient_is_right_where_much_is_0_or_ties(make: Case) -> None:
    tally = judged(make, [2, 5], "float32")

    assert tally is not None
    assert tally.wrong == {}


CLASSES = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
CLASSES[0][2] = 0  # of a blank row, the rectifier's corner is met by every unit
LAYERS = {name: np.random.default_rng(1).normal(size=shape) for name, shape in {"a": (3, 4), "b": (4, 3)}.items()}


def of_torch(stopped: Any) -> Any:
    """A classifier in torch, its largest score taken out as a constant; all scores, too, if another is stopped."""
    from gdcompare_torch import from_function

    def loss(p: Any, x: Any, y: Any) -> Any:
        scores = stopped(torch.relu(x @ p["a"]) @ p["b"])
        less = scores - scores.max(1, keepdim=True).values.detach()
        return less.exp().sum(1).log() - less.gather(1, y[:, None])[:, 0]

    return from_function(loss, LAYERS, name="model")


def of_jax(stopped: Any) -> Any:
    """The same in JAX, by its own function."""
    import jax
    from gdcompare_jax import from_function

    def loss(p: Any, x: Any, y: Any) -> Any:
        scores = stopped(jax.nn.relu(x @ p["a"]) @ p["b"])
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(scores), y[:, None], 1)[:, 0]

    return from_function(loss, LAYERS, name="model")


@pytest.mark.parametrize("model", [of_torch, of_jax])
def test_beside_a_kink_what_is_0_all_around_has_a_slope_where_another_is_stopped(model: Any, dtype: str) -> None:
    def call(p: Any, x: Any, y: Any) -> Any:
        value, gradient = model(lambda z: z).value_and_grad(p, x, y)
        return value, {**gradient, "b": gradient["b"] * (1 + 1e-3)}

    right = gdc.verify(model(lambda z: z), CLASSES, dtype=dtype)
    differences = gdc.verify(model(lambda z: 1.5 * z - 0.5 * z), CLASSES, dtype=dtype)
    wrong = gdc.verify(model(lambda z: z), CLASSES, dtype=dtype, backends=[], implementations={"mine": call})

    assert (right.verdict, differences.verdict) == ("agree", "agree")
    assert [(each.parameter, each.verdict) for each in wrong.entries if each.implementation == "mine"] == [
        ("loss", "agree"), ("a", "agree"), ("b", "wrong")
    ]  # fmt: skip


def test_a_program_may_round_on_any_side_of_a_kink() -> None:
    native, (features, targets) = torch_zoo()["margin ranking"]()
    features[:, 0] = 0  # and with equal parameters both scores are the same, in every row
    params = {name: np.full_like(value, 0.5) for name, value in native.parameters.items()}

    report = gdc.verify(native, (features, targets), params, dtype="float32")

    assert all(native.value_and_grad(params, features, targets)[1]["0.bias"][:2])  # not on the side without a slope
    assert report.verdict == "inconclusive"


def test_a_tie_decided_by_itself_is_named_where_a_branch_starts_at_0() -> None:
    import jax
    from gdcompare_jax import from_function

    def loss(p: Any, x: Any, y: Any) -> Any:
        return (jax.nn.selu(x @ p["w"]) * y).sum(1)

    features, targets = np.split(np.random.default_rng(0).normal(size=(6, 5)), [3], axis=1)
    report = gdc.verify(from_function(loss, {"w": np.zeros((3, 2))}), (features, targets))

    (entry,) = (each for each in report.entries if each.verdict == "wrong")
    assert entry.cause.startswith("a convention: each tie decided by itself (as it is at the point)")
