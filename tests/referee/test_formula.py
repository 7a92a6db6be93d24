"""An implementation may state its own formula: it is allowed that formula's rounding, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.testing import GradientError, assert_gradients_agree

LINEAR = gdc.load_problem("linear-regression")


def near_a_fit() -> tuple[gdc.Dataset, dict[str, Any]]:
    features = np.random.default_rng(0).normal(size=(30, 2)) + 50
    return gdc.Dataset(features, 1 + features @ [0.3, 0.7]), {"theta_0": 1.0, "theta_1": [0.3, 0.7 + 1e-11]}


def by_moments(xp: Any, params: Any, features: Any, targets: Any) -> Any:
    """2 (X^T X w - X^T y) / n, the loss as it is."""
    a, b, n = params["theta_0"], params["theta_1"], targets.shape[0]
    columns = xp.permute_dims(features, (1, 0))
    first, second = xp.mean(features, axis=0), columns @ features / n
    residuals = a + features @ b - targets
    by_b = 2 * (a * first + second @ b - columns @ targets / n)
    return xp.mean(residuals**2), {"theta_0": 2 * (a + first @ b - xp.mean(targets)), "theta_1": by_b}


def moments(params: Any, features: Any, targets: Any) -> Any:
    return by_moments(np, params, features, targets)


@final
@dataclass(frozen=True)
class ByElimination(gdc.Problem):
    """det [[a, b], [c, d]] = a (d - (c / a) b)."""

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return {"m": (2, 2)}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        m = params["m"]
        return features[:, 0] * (m[0, 0] * (m[1, 1] - (m[1, 0] / m[0, 0]) * m[0, 1]))


def verdicts(implementation: Any, **settings: Any) -> dict[str, str]:
    data, params = near_a_fit()
    report = gdc.verify(LINEAR, data, params, backends=[], implementations={"mine": implementation}, **settings)
    return {entry.parameter: f"{entry.verdict} {entry.cause}".strip() for entry in report.entries}


def test_a_stated_formula_is_allowed_its_own_rounding() -> None:
    plain, stated = verdicts(moments), verdicts(gdc.with_formula(moments, by_moments))

    assert plain["theta_1"].startswith("wrong rounding-sized: another algorithm?")
    assert stated["theta_1"] == "agree within the rounding of its own formula"
    assert stated["loss"].startswith("agree")


def test_a_mistake_is_wrong_whatever_formula_is_stated() -> None:
    def doubled(params: Any, features: Any, targets: Any) -> Any:
        loss, gradient = moments(params, features, targets)
        return loss, {name: gradient[name] + 1e-9 for name in gradient}

    assert verdicts(gdc.with_formula(doubled, by_moments))["theta_1"].startswith("wrong")


def test_a_formula_of_another_function_is_refused() -> None:
    def halved(xp: Any, *point: Any) -> Any:
        loss, gradient = by_moments(xp, *point)
        return loss, {name: each / 2 for name, each in gradient.items()}

    with pytest.raises(ValueError, match="the formula stated is another function: its 'theta_0' is not that of"):
        verdicts(gdc.with_formula(moments, halved))
    with pytest.raises(TypeError, match="a formula is a Problem, or a function of"):
        gdc.with_formula(moments, "theta")  # type: ignore[arg-type]  # that is the point


def test_a_problem_may_be_the_formula_also_of_a_hessian() -> None:
    det = gdc.Operation(lambda xp, m: xp.reshape(m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0], (1,)), m=(2, 2))

    def by_elimination(params: Any, features: Any, targets: Any) -> Any:
        block = np.zeros((2, 2, 2, 2))
        block[0, 0, 1, 1] = block[1, 1, 0, 0] = 1.0
        block[0, 1, 1, 0] = block[1, 0, 0, 1] = -1.0
        block[0, 0, 0, 0] = 2e-16
        return {"m": {"m": block}}

    def judged(implementation: Any) -> str:
        one, point = gdc.Dataset([[1.0]], [0.0]), {"m": [[0.3, -0.7], [1.1, 0.9]]}
        implementations = {"": implementation}
        return gdc.verify(det, one, point, backends=[], implementations=implementations, derivative="hessian").verdict

    assert judged(by_elimination) == "wrong"
    assert judged(gdc.with_formula(by_elimination, ByElimination())) == "agree"
    with pytest.raises(ValueError, match="or for another derivative, state a Problem"):
        judged(gdc.with_formula(by_elimination, by_moments))


def test_the_assertion_heeds_a_stated_formula() -> None:
    data, params = near_a_fit()

    with pytest.raises(GradientError, match="rounding-sized"):
        assert_gradients_agree(moments, LINEAR, data, params)
    assert assert_gradients_agree(gdc.with_formula(moments, by_moments), LINEAR, data, params)
