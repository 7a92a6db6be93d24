"""What each framework offers to an audit, and faults of theirs that it must find, each by its script."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import pytest

from gdcompare.audit.judging import judged
from gdcompare.audit.results import Row
from gdcompare.audit.run import operations_of, with_script_run
from gdcompare.backend import BackendUnavailableError

NEEDS = {"torch": "expecttest", "jax": "jax", "autograd": "autograd", "tensorflow": "tensorflow"}


@cache
def operations(framework: str) -> dict[str, Any]:
    pytest.importorskip(framework, reason=f"it audits {framework}")
    pytest.importorskip(NEEDS[framework], reason=f"{framework} needs it for its own database")
    return {each.name: each for each in operations_of(framework)}


def rows(framework: str, operation: str, dtype: str, *routes: str) -> dict[tuple[str, str], Row]:
    found = judged(operations(framework)[operation], [dtype], routes)[1]
    return {(row.region, row.route): with_script_run(row) for row in found}


@pytest.mark.thorough
@pytest.mark.parametrize("framework", NEEDS)
def test_no_two_operations_have_one_name(framework: str) -> None:
    found = operations(framework)

    assert len(found) == len(operations_of(framework)) > 50


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("framework", "operation", "dtype", "region", "route", "status"),
    [
        ("torch", "tanh", "float64", "tails", "reverse", "lost"),
        ("torch", "nn.functional.logsigmoid", "float64", "tails", "reverse, twice", "wrong"),
        ("torch", "sinc", "float64", "zero", "reverse, twice", "wrong"),
        ("torch", "digamma", "float64", "ordinary", "reverse", "wrong"),
        ("jax", "lax.tanh", "float64", "tails", "reverse, compiled", "lost"),
        ("jax", "lax.expm1", "float64", "tails", "forward, compiled", "lost"),
        ("jax", "lax.sqrt", "float64", "subnormal", "reverse, eager", "lost"),
        ("jax", "jnp.i0", "float64", "tiny", "reverse, eager", "lost"),
        ("jax", "lax.tanh", "float64", "tiny", "forward over reverse, compiled", "lost"),
        ("jax", "jnp.linalg.vector_norm", "float32", "zeros", "reverse, compiled", "lost"),
        ("autograd", "anp.var (correction)", "float64", "drawn", "reverse", "wrong"),
        ("autograd", "anp.power", "float64", "zero", "reverse, twice", "wrong"),
        ("tensorflow", "tf.math.tanh", "float32", "tails", "reverse, graph", "lost"),
    ],
)
def test_known_faults_are_found_and_their_scripts_show_them(
    framework: str, operation: str, dtype: str, region: str, route: str, status: str
) -> None:
    row = rows(framework, operation, dtype, route)[region, route]

    assert row.status == status
    assert row.shown
    assert row.script.count("\n") < 20


@pytest.mark.thorough
def test_of_points_that_lost_all_digits_one_whose_derivative_vanished_is_shown() -> None:
    """At the smaller ones the gradient of i0 is 0; at the largest it is twice what it should be."""
    row = rows("jax", "jnp.i0", "float64", "reverse, eager")["tiny", "reverse, eager"]

    assert row.found == 0 != row.expected
    assert row.points["lost"] > 1


@pytest.mark.thorough
def test_outputs_that_have_no_derivative_are_not_asked_for_one() -> None:
    pytest.importorskip("expecttest", reason="torch's samples need it")
    torch = pytest.importorskip("torch", reason="it audits torch")
    (operation,) = (each for each in operations_of("torch") if each.name == "native_batch_norm")
    example: Any = next(iter(operation.examples()))
    leaves = [torch.tensor(each, requires_grad=True) for each in example.arguments.values()]

    count = example.outputs(example.arguments)

    normed, *saved = example._called(*leaves)
    assert [each.requires_grad for each in saved] == [False, False]
    assert count == normed.numel()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("framework", "name"),
    [("torch", "exp"), ("jax", "lax.exp"), ("autograd", "anp.exp"), ("tensorflow", "tf.math.exp")],
)
def test_exp_has_its_digits_in_every_framework(framework: str, name: str) -> None:
    found = rows(framework, name, "float64")

    assert {row.status for row in found.values()} <= {"right", "no truth"}
    assert all(row.correct > 15 for (region, _), row in found.items() if region == "ordinary")


@pytest.mark.thorough
def test_torch_compiled_is_judged_where_it_is_asked_for() -> None:
    compiled = "reverse, compiled"

    found = rows("torch", "tanh", "float32", compiled)

    assert {route for _, route in found} == {compiled}
    assert found["ordinary", compiled].status == "right"
    assert found["tails", compiled].status == "lost"
    assert compiled not in {route for _, route in rows("torch", "tanh", "float32")}


def test_what_the_samples_need_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="it audits torch")
    monkeypatch.setitem(sys.modules, "expecttest", None)
    monkeypatch.delitem(sys.modules, "torch.testing._internal.common_methods_invocations", raising=False)
    monkeypatch.delitem(sys.modules, "torch.testing._internal.common_utils", raising=False)

    with pytest.raises(BackendUnavailableError, match="need 'expecttest', which is not installed: pip install"):
        operations_of("torch")
