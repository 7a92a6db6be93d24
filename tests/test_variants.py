"""A variant is a backend with another setting: found by name, told apart by name, and judged like any other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.registry import backend_class, backend_maker, how_to_install

from . import marking
from .marking import on_variants

AT = {"theta_0": 1.0, "theta_1": [0.0]}


def refusal(message: str) -> Any:
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def needs(name: str) -> None:
    if how_to_install(name) is not None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("name", gdc.backend_names())
def test_the_tests_know_every_variant(name: str) -> None:
    assert gdc.variant_names(name)[1:] == marking.VARIANTS.get(name, [])


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_variant_is_named_beside_the_backend_or_with_it(name: str) -> None:
    needs(name)

    beside, within = gdc.load_backend(name, variant="derived"), gdc.load_backend(f"{name}[derived]")

    assert beside == within == backend_maker(f"{name}[derived]")()
    assert beside.name == f"{name}[derived]"
    assert backend_class(beside.name) is type(beside)
    assert beside != gdc.load_backend(name)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_the_default_variant_is_the_backend_itself(name: str) -> None:
    needs(name)
    default = gdc.variant_names(name)[0]

    assert gdc.load_backend(name, variant=default) == gdc.load_backend(name)
    assert gdc.load_backend(name, variant=default).name == name


def test_an_unknown_variant_is_refused_with_those_that_there_are() -> None:
    needs("torch")
    words = "backend 'torch' has no variant 'compild'; it has: eager, func, compiled, loop, derived"

    for ask in (
        lambda: gdc.load_backend("torch", variant="compild"),
        lambda: gdc.load_backend("torch[compild]"),
        lambda: backend_class("torch")(variant="compild"),
    ):
        with refusal(f"{words}; did you mean 'compiled'?"):
            ask()


def test_a_backend_without_variants_says_so() -> None:
    with refusal("backend 'numpy' has no variant 'fast'; it has: none"):
        gdc.load_backend("numpy", variant="fast")


def test_two_variants_at_once_are_refused() -> None:
    needs("torch")

    with refusal("backend 'torch[loop]' names another variant than variant='func'"):
        gdc.load_backend("torch[loop]", variant="func")


@pytest.mark.parametrize("cxx", [None, "no-such-compiler"])
def test_a_missing_compiler_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch, cxx: str | None) -> None:
    needs("torch")
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.delenv("CXX", raising=False)
    if cxx is not None:
        monkeypatch.setenv("CXX", cxx)

    with pytest.raises(ValueError, match=r"^backend 'torch\[compiled\]' needs a C\+\+ compiler, and .* is not found"):
        gdc.load_backend("torch", variant="compiled")


@pytest.mark.covering
@on_variants
def test_every_variant_of_every_backend_has_the_gradient_of_every_problem(
    backend: gdc.Backend[Any], problem: gdc.Problem
) -> None:
    report = gdc.verify(problem, backends=[backend], dtype=backend.dtype)

    report.assert_agree()
    assert {entry.implementation for entry in report.entries} == {backend.name}


@on_variants
@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("rule", [gdc.rules.sgd(0.1), gdc.rules.adam(0.01)], ids=["sgd", "adam"])
def test_every_variant_of_every_backend_descends_along_one_path(
    backend_name: str, rule: Any, batch_size: int | None
) -> None:
    data = gdc.datasets.noisy_line()

    path = gdc.descend("linear-regression", data, backend_name, rule, batch_size, 37)

    expected = gdc.descend("linear-regression", data, "numpy", rule, batch_size, 37)
    for name, values in path.history.parameters.items():
        # Adam divides by roots of sums of squares: no step enlarges a distance by more than a few units.
        np.testing.assert_allclose(values, expected.history.parameters[name], rtol=0, atol=1e-12)


@dataclass(frozen=True)
class Branching(gdc.Problem):
    """A loss that branches on a value, which a recording cannot follow."""

    def parameter_shapes(self, data: gdc.Dataset) -> dict[str, tuple[int, ...]]:
        return {"w": data.features.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Any, features: Any, targets: Any) -> Any:
        residuals = features @ params["w"] - targets
        return residuals**2 if residuals[0] > 0 else -residuals


@pytest.mark.thorough
def test_no_branch_is_left_out_of_a_compiled_program() -> None:
    needs("torch")
    backend = gdc.load_backend("torch[compiled]")
    arguments = {"w": backend.asarray([1.0])}, backend.asarray([[1.0]]), backend.asarray([0.0])

    with pytest.raises(Exception, match="data-dependent"):
        backend.value_and_grad(Branching())(*arguments)


@pytest.mark.thorough
def test_equal_problems_of_equal_shapes_share_one_compiled_program() -> None:
    needs("torch")
    programs = __import__("gdcompare_torch.compiled", fromlist=["_programs"])._programs
    backend = gdc.load_backend("torch[compiled]")
    seen = []

    for rows in (5, 5, 6):
        data = gdc.Dataset(np.ones((rows, 1)), np.arange(rows))
        gdc.value_and_grad(gdc.load_problem("linear-regression"), data, AT, backend)
        seen.append(len(programs))

    assert np.diff(seen).tolist() == [0, 1]
