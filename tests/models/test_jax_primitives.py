"""JAX's primitives are read: the program's value and gradient are JAX's, or what cannot be read is said."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from gdcompare_jax import primitives as reader  # noqa: E402 - after the framework is known to be there

from tests.models.jax_coverage import (  # noqa: E402
    CALLED_WRONG,
    FAILED,
    KINK,
    READ,
    REFUSED,
    RIGHT,
    UNDECIDED,
    WRONG,
    found,
    functions,
    judged,
    worst,
)
from tests.models.jax_primitives import APART, CASES, LINE, SQUARE, Case, X  # noqa: E402

UNREAD = {
    "approx_top_k": "it is approximate by design: write lax.top_k",
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(set(CASES) - set(UNREAD)))
def test_a_primitive_is_read_as_jax_computes_it(name: str) -> None:
    results = [found(case) for case in CASES[name]]

    assert worst(results) == READ, results


@pytest.mark.thorough
@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_read_says_why(name: str) -> None:
    results = [found(case) for case in CASES[name]]

    assert worst(results) == REFUSED
    assert all(UNREAD[name] in each.reason for each in results if each.what == REFUSED)


@pytest.mark.thorough
def test_every_differentiable_primitive_is_looked_at_or_set_apart() -> None:
    """In a process of its own, because packages that other tests load have primitives too."""
    known = set(CASES) | set().union(*APART.values())

    program = "from tests.models.jax_coverage import primitives; print(*sorted(primitives()))"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()  # noqa: S603 - our own

    assert len(found) > 150
    assert [each for each in found if each not in known and not each.startswith("gdcompare")] == []


def test_nine_in_ten_are_read() -> None:
    assert len(UNREAD) <= 0.1 * len(CASES)


# The measure can fail.


@pytest.mark.parametrize("spoiled", ["value", "gradient"])
def test_the_measure_sees_a_wrong_reading(spoiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(xp: Any, x: Any, **_: Any) -> Any:
        return xp.cos(x) if spoiled == "value" else xp.stop_gradient(xp.sin(x))

    monkeypatch.setitem(reader.FORMULAS, "sin", wrong)

    assert found(Case(jax.numpy.sin, (X,))).what == WRONG


def test_a_kink_is_told_from_a_wrong_reading() -> None:
    assert found(Case(lambda x: jax.numpy.maximum(x, 0.5) * x, (np.array([0.5, 1.0]),))).what in (READ, KINK)
    assert found(Case(lambda x: jax.numpy.where(x > 0.5, x, 1 - x), (np.array([0.5, 1.0]),))).what in (READ, KINK)


# What is read with care.


def last_wins(x: Any) -> Any:
    return x.at[np.array([1, 1])].set(x[:2])


def unsymmetric(x: Any) -> Any:
    return jax.lax.linalg.cholesky(x, symmetrize_input=False)


def drawn(x: Any) -> Any:
    key = jax.random.key(jax.lax.stop_gradient(x[0]).astype(int))
    return x * jax.random.normal(key, x.shape)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("function", "array", "said"),
    [
        (last_wins, LINE, "writes into one place twice, in an order that nobody knows"),
        (unsymmetric, SQUARE @ SQUARE.T, "a matrix that nothing makes symmetric: .* take .A . A.T. / 2"),
        (lambda x: jax.numpy.linalg.qr(x, mode="complete")[1], SQUARE[:, :2], "write full_matrices=False"),
        (lambda x: jax.numpy.arcsinh(x + 1j).real, LINE, "complex"),
        (drawn, LINE, "draws random numbers from a key that is an input. Draw outside"),
    ],
)
def test_what_cannot_be_trusted_is_refused_with_the_way_out(function: Any, array: Any, said: str) -> None:
    result = found(Case(function, (array,)))

    assert result.what == REFUSED, result
    assert re.search(said, result.reason), result.reason


@pytest.mark.thorough
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.at[np.array([2, 9, -8])].get(mode="fill", fill_value=0.5),
        lambda x: x.at[np.array([2, 9])].add(x[:2], mode="drop"),
        lambda x: x.at[jax.numpy.argsort(x)[:2] // 9].max(x[2:4]),  # both meet where the data say
        lambda x: jax.lax.reduce(x, 1.0, lambda a, b: a * b + 0.0, (0,)),
    ],
)
def test_the_edges_of_arrays_are_read_as_jax_has_them(function: Any) -> None:
    assert found(Case(function, (LINE,))).what == READ


def test_nothing_fails_for_want_of_a_word() -> None:
    """What a reader did not think of is refused, not raised."""
    assert found(Case(lambda x: jax.lax.betainc(x, x, x / 2), (X,))).what != FAILED


# The measure by function.


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("function", "what"),
    [
        (jax.numpy.sin, RIGHT),
        (lambda x: jax.numpy.fft.fft(x).real, RIGHT),
        (lambda x: jax.numpy.arcsinh(x + 1j).real, REFUSED),
        (lambda x: jax.lax.igamma(x, x + 1), UNDECIDED),
        (lambda x: x / 0, UNDECIDED),
    ],
)
def test_a_function_is_judged_or_its_reason_is_said(function: Any, what: str) -> None:
    result = judged(Case(function, (LINE,)))

    assert result.what == what
    assert bool(result.reason) == (what != RIGHT)


@pytest.mark.thorough
def test_a_wrong_derivative_of_jaxs_is_called_wrong() -> None:
    @jax.custom_jvp  # type: ignore[untyped-decorator]
    def doubled(x: Any) -> Any:
        return x * 2

    doubled.defjvps(lambda g, _ans, _x: g)

    assert judged(Case(doubled, (LINE,))).what == CALLED_WRONG


@pytest.mark.thorough
def test_samples_are_those_that_have_a_finite_loss_and_gradient() -> None:
    found = dict(functions(jax.lax, lambda name: name in ("atanh", "floor")))

    assert found["floor"] is None
    assert found["atanh"] is not None
    assert abs(found["atanh"].arrays[0]).max() < 1
