"""Where rounding may turn a condition, a program is right on either side of it, and nowhere between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.case import Case
from gdcompare.problem import Problem
from gdcompare.referee import turns
from gdcompare.referee.point import Referee
from gdcompare.referee.turns import steady_draws

GENERATOR = np.random.default_rng(0)
ROWS = 0.1 + GENERATOR.random((4, 3)).astype(np.float32)
OUTER = GENERATOR.normal(size=2).astype(np.float32)
INNER = GENERATOR.normal(size=(3, 2)).astype(np.float32)
INNER[:2, 0] = 1
INNER[2, 0] = -(ROWS[0, 0] + ROWS[0, 1]) / ROWS[0, 2]  # the first unit of the first row is 0 but for rounding
DATA = ROWS, np.ones(4)


class Rectified(Problem):
    """b relu(x A), the rectifier by a condition or by the largest of two."""

    def __init__(self, by_largest: bool = False) -> None:
        self.by_largest = by_largest

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return {"a": (3, 2), "b": (2,)}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        inner = features @ params["a"]
        if self.by_largest:
            both = xp.stack([inner, xp.zeros_like(inner)], axis=-1)
            return (xp.max(both, axis=-1) @ params["b"] - targets) ** 2
        return (xp.where(inner > 0, inner, xp.zeros_like(inner)) @ params["b"] - targets) ** 2


def on_side(share: float, factor: float = 1.0) -> Callable[..., Any]:
    """The gradient by hand, with so much of the unit's slope; that by a is so many times what it is."""

    def call(params: Any, features: Any, targets: Any) -> Any:
        a, b, x = (np.asarray(each, dtype=np.float64) for each in (params["a"], params["b"], features))
        inner = x @ a
        slope = (inner > 0).astype(np.float64)
        slope[0, 0] = share
        hidden = slope * inner
        off = 2 * (hidden @ b - targets) / len(x)
        return None, {"a": np.float32(factor * (x.T @ (off[:, None] * slope * b))), "b": np.float32(off @ hidden)}

    return call


@pytest.mark.parametrize("by_largest", [False, True], ids=["a condition", "the largest"])
def test_a_program_may_be_on_either_side_and_not_between(by_largest: bool) -> None:
    sides = {"on": on_side(1.0), "off": on_side(0.0), "between": on_side(0.5), "off by 1e-3": on_side(1.0, 1.001)}

    report = gdc.verify(
        Rectified(by_largest), DATA, {"a": INNER, "b": OUTER}, backends=[], implementations=sides, dtype="float32"
    )

    found = {each.implementation: each.verdict for each in report.entries if each.parameter == "a"}
    assert found == {"on": "agree", "off": "agree", "between": "wrong", "off by 1e-3": "wrong"}


def draws_at(dtype: str = "float32") -> Any:
    return steady_draws(Rectified(), {"a": INNER, "b": OUTER}, *DATA, dtype)


def test_the_moves_are_those_of_the_other_side_and_the_draws_stay_on_theirs() -> None:
    (_, drawn), known = draws_at()

    assert known is not None
    ((call, at),) = known.turns.places
    assert (call, at) == (0, (0, 0))
    (move,) = known.moves
    params, features = {"a": INNER, "b": OUTER}, DATA[0]
    sides = [on_side(share)(params, features, DATA[1])[1]["a"] for share in (0.0, 1.0)]
    np.testing.assert_allclose(np.abs(move["a"]), np.abs(sides[1] - sides[0]), atol=1e-6)
    assert np.max(drawn["a"].std(axis=0)) < 1e-5 < 1e-2 < np.max(np.abs(move["a"]))


def test_in_float64_and_where_they_are_many_draws_turn_them_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    assert draws_at("float64")[1] is None  # there it is no tie
    monkeypatch.setattr(turns, "MOST", 0)
    (_, drawn), known = draws_at()

    assert known is None
    assert np.max(drawn["a"].std(axis=0)) > 1e-2


def test_a_wide_network_shows_digits() -> None:
    torch = pytest.importorskip("torch")
    from gdcompare_torch import from_function

    generator = np.random.default_rng(3)
    params = {"a": generator.normal(size=(20, 256)) / 5, "b": generator.normal(size=(256, 128)) / 16}
    native = from_function(lambda p, x, y: torch.relu(torch.relu(x @ p["a"]) @ p["b"]).sum(1) - y, params)

    report = gdc.verify(native, (generator.normal(size=(256, 20)), np.zeros(256)), dtype="float32")

    (entry,) = (each for each in report.entries if each.parameter == "a")
    assert (entry.verdict, entry.grade) == ("agree", "sampled")
    assert entry.detectable_in_half < 1e-3


def test_who_does_not_ask_for_sides_has_draws_on_both() -> None:
    case = Case.of(Rectified(), gdc.Dataset(*DATA), {"a": INNER, "b": OUTER}, "float32")

    wide, narrow = (Referee(case, on_sides=sided).allowances(False)["a"].budget for sided in (False, True))

    assert np.max(wide) > 1e3 * np.max(narrow)
