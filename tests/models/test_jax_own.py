"""Functions that JAX only approximates are judged by what they stand for; poles and series are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc

jax = pytest.importorskip("jax", reason="reads the programs of JAX")

from gdcompare_jax.models import from_autograd_function, from_function  # noqa: E402 - after the framework is known to be there
from jax.scipy import special  # noqa: E402

from tests.models.jax_coverage import READ, REFUSED, found  # noqa: E402
from tests.models.jax_primitives import Case  # noqa: E402

BETWEEN_POLES = np.array([0.5, 2.25, -0.5, -1.25, -3.75])
POSITIVE = np.array([0.25, 1.5, 6.0])
OWN: Mapping[str, tuple[Callable[..., Any], Any]] = {
    "betainc": (lambda x: special.betainc(2.5, 1.5, x), np.array([0.125, 0.5, 0.875])),
    "dawsn": (special.dawsn, np.array([-2.0, 0.25, 4.0])),
    "digamma": (special.digamma, BETWEEN_POLES),
    "erfcx": (special.erfcx, np.array([-1.5, 0.25, 3.0])),
    "exp1": (special.exp1, POSITIVE),
    "expi": (special.expi, np.array([0.25, 3.0, -2.0])),
    "expn": (lambda x: special.expn(3, x), POSITIVE),
    "frexp": (lambda x: jax.numpy.frexp(x)[0], np.array([0.75, 5.0, -3.0])),
    "gamma": (special.gamma, BETWEEN_POLES),
    "gammainc of orders": (lambda x: special.gammainc(np.array([0.3, 1.4, 11.0]), x), POSITIVE),
    "gammaln": (special.gammaln, BETWEEN_POLES),
    "poch": (lambda x: special.poch(x, 2.5), POSITIVE),
    "polygamma": (lambda x: special.polygamma(2, x), BETWEEN_POLES),
}


def judged(function: Callable[..., Any], x: Any, dtype: str = "float64") -> Any:
    return gdc.verify(from_autograd_function(function), params={"x": x}, dtype=dtype)


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("name", OWN)
def test_the_rule_of_a_function_that_jax_approximates_agrees(name: str, dtype: str) -> None:
    assert judged(*OWN[name], dtype).verdict == "agree"


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["exp1", "erfcx", "gamma", "betainc"])
def test_a_wrong_rule_of_it_is_wrong(name: str) -> None:
    function, x = OWN[name]
    spoiled = jax.custom_vjp(function)
    spoiled.defvjp(lambda x: (function(x), x), lambda x, g: (1.0001 * jax.vjp(function, x)[1](g)[0],))

    assert judged(spoiled, x).verdict == "wrong"


@pytest.mark.thorough
def test_somebody_elses_function_of_the_same_name_is_read_as_it_is_written() -> None:
    @jax.custom_jvp  # type: ignore[untyped-decorator]
    def expi(x: Any) -> Any:
        return x * x

    expi.defjvps(lambda g, _ans, x: g * 2 * x)

    assert judged(expi, POSITIVE).verdict == "agree"
    assert found(Case(expi, (POSITIVE,))).what == READ


@pytest.mark.parametrize(
    ("function", "at", "said"),
    [
        (special.gammaln, -2.0, "asked at -2, a pole of the gamma function: keep x off it"),
        (special.digamma, 0.0, "asked at 0, a pole"),
        (lambda x: special.polygamma(1, x), -1.0, "asked at -1, a pole"),
        pytest.param(
            lambda x: special.expn(1.5, x),
            0.5,
            "expn has an order of 1.5, and JAX knows whole",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            lambda x: special.hyp1f1(1.0, 2.0, x), 0.5, "JAX adds up a series for hyp1f1", marks=pytest.mark.thorough
        ),
    ],
)
def test_a_pole_or_a_series_is_refused_by_name(function: Any, at: float, said: str) -> None:
    result = found(Case(function, (np.array([0.5, at]),)))

    assert result.what == REFUSED
    assert said in result.reason


@pytest.mark.thorough
def test_a_pole_that_is_kept_off_before_is_read() -> None:
    def kept_off(x: Any) -> Any:
        return jax.numpy.where(x > 0, special.gammaln(jax.numpy.where(x > 0, x, 1.0)), x * x)

    assert found(Case(kept_off, (np.array([0.5, -2.0, 0.0]),))).what == READ


@pytest.mark.soundness
def test_by_an_order_that_is_a_parameter_nothing_is_decided() -> None:
    report = gdc.verify(
        from_autograd_function(special.zeta), params={"s": np.array([1.5, 2.25]), "x": np.array([0.75, 2.5])}
    )

    assert {each.verdict for each in report.entries if each.parameter == "s"} == {"inconclusive"}
    assert {each.verdict for each in report.entries if each.parameter == "x"} <= {"agree", "inconclusive"}


@pytest.mark.thorough
@pytest.mark.parametrize("order", [lambda s: s, lambda s: jax.numpy.exp(s) + 1])
def test_no_second_derivative_is_wrong_where_an_order_moves(order: Any) -> None:
    """By x, too: the slope there moves with the order."""

    def loss(p: Any, features: Any, targets: Any) -> Any:
        return (special.zeta(order(p["s"]), p["x"]) * features - targets).sum(1)

    native = from_function(loss, {"s": np.array([1.5, 2.25]), "x": np.array([0.75, 2.5])})

    report = gdc.verify(native, (np.array([[1.0, -0.5]]), np.zeros(1)), derivative="hvp")

    assert {each.verdict for each in report.entries} == {"inconclusive"}
