"""The arrows of the house: the core knows no framework, a backend knows one, and nobody looks back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from gdcompare.registry import approximation_names, registered_backends

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "gdcompare").rglob("*.py"))
BACKENDS = sorted((ROOT / "backends").glob("*.py"))

# What a backend may import besides its framework: the suite, and what the suite itself depends on.
COMMON = {"gdcompare", "numpy", "array_api_compat", *sys.stdlib_module_names}


def imports(source: str) -> Iterator[str]:
    """Yield the dotted names of all modules that a source imports, at whatever depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def roots(source: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(source)}


def strings(source: str) -> Iterator[str]:
    """Yield all strings of a source but the docstrings, and the like: those that stand alone."""
    tree = ast.parse(source)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


FRAMEWORKS = set().union(*(roots(path.read_text()) for path in BACKENDS)) - COMMON
FOREIGN = FRAMEWORKS | {path.stem for path in BACKENDS}
NAMES = {*registered_backends(), *approximation_names()}


def name_of(path: Path) -> str:
    """Return the name under which a file in backends/ is registered."""
    return path.stem.removeprefix("gdcompare_").replace("_", "-")


def foreign_names(source: str) -> list[str]:
    """Return the frameworks and backends that a source imports, or names in a string."""
    return sorted((roots(source) & FOREIGN) | (set(strings(source)) & (FOREIGN | NAMES)))


def test_the_frameworks_are_found() -> None:
    assert {"jax", "torch"} <= FRAMEWORKS
    assert len(CORE) > 10


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_names_no_framework_and_no_backend(path: Path) -> None:
    assert foreign_names(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch", ["torch"]),
        ("import torch.nn as nn", ["torch"]),
        ("def f():\n    from jax import numpy", ["jax"]),
        ("if TYPE_CHECKING:\n    import gdcompare_numpy", ["gdcompare_numpy"]),
        ("importlib.import_module('torch')", ["torch"]),
        ("def f(backend='numpy'): ...", ["numpy"]),
        ("names = {'jax': 1}", ["jax"]),
        ("load_backend('complex-step')", ["complex-step"]),
        ("'''torch''' ", []),
        ("def f():\n    '''jax'''\n    return 'torches'", []),
        ("import numpy, rich", []),
    ],
)
def test_a_foreign_name_would_be_found(source: str, found: list[str]) -> None:
    assert foreign_names(source) == found


@pytest.mark.parametrize("path", [*CORE, *BACKENDS], ids=lambda path: path.name)
def test_nobody_looks_back_at_tests_and_benchmarks(path: Path) -> None:
    assert roots(path.read_text()).isdisjoint({"tests", "benchmarks"})


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: path.name)
def test_a_backend_imports_its_own_framework_and_an_approximation_none(path: Path) -> None:
    framework = set() if name_of(path) in approximation_names() else {name_of(path)} - COMMON

    assert roots(path.read_text()) - COMMON == framework


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: path.name)
def test_a_backend_knows_the_seam_and_the_problem_and_nothing_else_of_the_suite(path: Path) -> None:
    known = {name for name in imports(path.read_text()) if name.partition(".")[0] == "gdcompare"}

    analytic = {"gdcompare.analytic"} if name_of(path) in approximation_names() else set()
    assert known <= {"gdcompare.backend", "gdcompare.native", "gdcompare.problem"} | analytic


def test_every_file_in_backends_has_an_entry_point_and_every_entry_point_a_file() -> None:
    registered = {
        each.module: each.name
        for group in ("gdcompare.backends", "gdcompare.approximations")
        for each in entry_points(group=group)
        if each.dist is not None and each.dist.name == "gdcompare"
    }

    assert registered == {path.stem: name_of(path) for path in BACKENDS}
    assert set(registered_backends()).isdisjoint(approximation_names())


def test_backends_is_a_source_root_and_no_package() -> None:
    assert not (ROOT / "backends" / "__init__.py").exists()


# In a fresh interpreter

HEAVY = FRAMEWORKS | {"jaxlib", "sklearn", "pyarrow", "hypothesis", "pytest", "optax", "scipy", "matplotlib"}

HELP = """
import runpy, sys
sys.argv = ["gdcompare", "--help"]
try:
    runpy.run_module("gdcompare", run_name="__main__")
except SystemExit as end:
    assert not end.code
"""


def heavy_modules_after(program: str) -> list[str]:
    look = f"\nimport sys\nprint('heavy:', *sorted({HEAVY!r} & set(sys.modules)))"
    answer = subprocess.run(  # noqa: S603 - the programs are written here
        [sys.executable, "-c", program + look], capture_output=True, text=True, check=True
    )
    return answer.stdout.rpartition("heavy:")[2].split()


@pytest.mark.parametrize(
    "program",
    [
        "import gdcompare",
        "import gdcompare.cli",
        "import gdcompare as gdc; gdc.backend_names(); gdc.problem_names(); gdc.load_problem('linear-regression')",
        "import gdcompare as gdc; gdc.descend('linear-regression', gdc.datasets.noisy_line(), 'numpy', epochs=2)",
        HELP,
    ],
    ids=["import", "import the command line", "look at the names", "descend with NumPy", "--help"],
)
def test_no_framework_is_loaded_before_it_is_asked_for(program: str) -> None:
    assert heavy_modules_after(program) == []


def test_a_loaded_framework_would_be_seen() -> None:
    assert heavy_modules_after("import gdcompare, hypothesis") == ["hypothesis"]
