"""The arrows of the house: the core knows no framework, a backend knows one, and nobody looks back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from gdcompare.registry import approximation_names, registered_backends

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "gdcompare").rglob("*.py"))
BACKENDS = sorted((ROOT / "backends").rglob("*.py"))

# What a backend may import besides its framework: the suite, and what the suite itself depends on.
COMMON = {"gdcompare", "numpy", "array_api_compat", *sys.stdlib_module_names}


@cache
def nodes(source: str) -> list[ast.Import | ast.ImportFrom | ast.Constant]:
    """Return the imports and the strings of a source, but the docstrings and the like: those that stand alone."""
    tree = ast.parse(source)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    kinds = ast.Import, ast.ImportFrom, ast.Constant
    return [node for node in ast.walk(tree) if isinstance(node, kinds) and id(node) not in alone]


def imports(source: str) -> Iterator[str]:
    """Yield the dotted names of all modules that a source imports, at whatever depth."""
    for node in nodes(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def roots(source: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(source)}


def strings(source: str) -> Iterator[str]:
    for node in nodes(source):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def module_of(path: Path) -> str:
    """Return the dotted name of a file in gdcompare/ or backends/."""
    root = ROOT / "backends" if path.is_relative_to(ROOT / "backends") else ROOT
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


OURS = {module_of(path).partition(".")[0] for path in BACKENDS}
FRAMEWORKS = set().union(*(roots(path.read_text()) for path in BACKENDS)) - COMMON - OURS
FOREIGN = FRAMEWORKS | {module_of(path).partition(".")[0] for path in BACKENDS}
NAMES = {*registered_backends(), *approximation_names()}


def name_of(path: Path) -> str:
    """Return the name under which a file or package in backends/ is registered."""
    return module_of(path).partition(".")[0].removeprefix("gdcompare_").replace("_", "-")


def foreign_names(source: str) -> list[str]:
    """Return the frameworks and backends that a source imports, or names in a string."""
    return sorted((roots(source) & FOREIGN) | (set(strings(source)) & (FOREIGN | NAMES)))


def test_the_frameworks_are_found() -> None:
    assert {"jax", "torch"} <= FRAMEWORKS
    assert len(CORE) > 10


def test_the_core_names_no_framework_and_no_backend() -> None:
    found = {module_of(path): foreign_names(path.read_text()) for path in CORE}

    assert {module: names for module, names in found.items() if names} == {}


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


def test_nobody_looks_back_at_tests_and_benchmarks() -> None:
    looking = [module_of(path) for path in [*CORE, *BACKENDS] if roots(path.read_text()) & {"tests", "benchmarks"}]

    assert looking == []


@pytest.mark.parametrize("path", BACKENDS, ids=module_of)
def test_a_backend_imports_its_own_framework_and_an_approximation_none(path: Path) -> None:
    approximates, package = name_of(path) in approximation_names(), module_of(path).partition(".")[0]
    framework = set() if approximates else {name_of(path)} - COMMON
    found = roots(path.read_text()) - COMMON - {package}

    alone = path.name == "backend.py" or path.parent.name == "backends"  # a package has files that need none
    assert found == framework if alone else found <= framework


@pytest.mark.parametrize("path", BACKENDS, ids=module_of)
def test_a_backend_knows_the_seam_and_the_problem_and_nothing_else_of_the_suite(path: Path) -> None:
    known = {name for name in imports(path.read_text()) if name.partition(".")[0] == "gdcompare"}

    analytic = {"gdcompare.arithmetic.analytic"} if name_of(path) in approximation_names() else set()
    models = {f"gdcompare.models.{each}" for each in ("matching", "native", "rules")} | {
        f"gdcompare.arithmetic.{each}" for each in ("program", "precision", "reflection", "complex_numbers", "whole")
    }
    judged = {"gdcompare.distributed.pieces", "gdcompare.audit.subject", "gdcompare.audit.written"}
    assert known <= {"gdcompare.backend", "gdcompare.by_hand", "gdcompare.problem"} | models | judged | analytic


def test_every_file_in_backends_has_an_entry_point_and_every_entry_point_a_file() -> None:
    registered = {
        each.module: each.name
        for group in ("gdcompare.backends", "gdcompare.approximations")
        for each in entry_points(group=group)
        if each.dist is not None and each.dist.name == "gdcompare"
    }

    assert registered == {module_of(path).partition(".")[0]: name_of(path) for path in BACKENDS}
    assert set(registered_backends()).isdisjoint(approximation_names())


def test_backends_is_a_source_root_and_no_package() -> None:
    assert not (ROOT / "backends" / "__init__.py").exists()


# The wings, from the bottom up. A file imports from its own storey and from those below.

STOREYS = [
    {"table", "words", "writing", "progress"},
    {"problem"},
    {"backend", "by_hand", "problems", "data"},
    {"own_files"},
    {"registry"},
    {"arithmetic"},
    {"case"},
    {"scale"},
    {"gradients", "descent"},
    {"referee"},
    {"models", "authoring", "timing", "explain", "distributed"},
    {"audit"},
    {"report", "testing"},
    {"cli", "pytest_plugin"},
]
LEVELS = {wing: level for level, wings in enumerate(STOREYS) for wing in wings}
DOORS = {"gdcompare", "gdcompare.__main__"}
"""What anybody may import from, and what imports from everywhere: names only, each fetched when it is asked for."""


def wing_of(module: str) -> str:
    return module.split(".")[1]


def arrows(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return which of these modules each of them imports, by their sources; the doors left out."""
    found = {}
    for module, source in sources.items():
        names = set()
        for node in nodes(source):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[module] = {name for name in names if name in sources and name != module} - DOORS
    return {module: names for module, names in found.items() if module not in DOORS}


def upward(found: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows that point up."""
    return [
        (module, name)
        for module, names in found.items()
        for name in sorted(names)
        if LEVELS[wing_of(name)] > LEVELS[wing_of(module)]
    ]


def circle(found: dict[str, set[str]]) -> list[str]:
    """Return modules each of which imports the next, and the last the first; none if there is no such circle."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for name in sorted(found.get(module, ())):
            if loop := walk(name, [*path, module]):
                return loop
        done.add(module)
        return []

    return next(filter(None, (walk(module, []) for module in sorted(found))), [])


@pytest.fixture(scope="module")
def drawn() -> dict[str, set[str]]:
    """The arrows of the house as it stands."""
    return arrows({module_of(path): path.read_text() for path in CORE})


def test_every_room_has_its_storey(drawn: dict[str, set[str]]) -> None:
    assert {wing_of(module) for module in drawn} <= set(LEVELS)


def test_no_arrow_points_up(drawn: dict[str, set[str]]) -> None:
    assert upward(drawn) == []


def test_no_files_import_each_other_in_a_circle(drawn: dict[str, set[str]]) -> None:
    assert circle(drawn) == []


def test_an_arrow_up_would_be_found() -> None:
    sources = {
        "gdcompare.problem": "def f():\n    from gdcompare.referee import verify",
        "gdcompare.referee": "",
        "gdcompare.referee.verify": "from gdcompare.problem import Problem",
    }

    assert upward(arrows(sources)) == [
        ("gdcompare.problem", "gdcompare.referee"),
        ("gdcompare.problem", "gdcompare.referee.verify"),
    ]


def test_a_circle_would_be_found() -> None:
    sources = {
        "gdcompare.referee.a": "import gdcompare.referee.b",
        "gdcompare.referee.b": "def f():\n    from gdcompare.referee import c",
        "gdcompare.referee.c": "if TYPE_CHECKING:\n    from gdcompare.referee.a import X",
        "gdcompare.referee.d": "from gdcompare.referee.a import X",
    }

    assert circle(arrows(sources)) == ["gdcompare.referee.a", "gdcompare.referee.b", "gdcompare.referee.c"]


def test_no_file_is_longer_than_one_idea() -> None:
    long = {module_of(path): len(path.read_text().splitlines()) for path in [*CORE, *BACKENDS]}

    assert {module: lines for module, lines in long.items() if lines > 500} == {}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("conformance", "check_backend"),
        ("datasets", "noisy_line"),
        ("formula_check", "FormulaError"),
        ("rules", "sgd"),
    ],
)
def test_a_documented_path_of_version_0_1_still_leads_to_its_name(path: str, name: str) -> None:
    found = getattr(import_module(f"gdcompare.{path}"), name)

    assert found.__name__ == name
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec(f"from gdcompare.{path} import nothing")  # noqa: S102 - the statement itself is tried


# In a fresh interpreter

HEAVY = FRAMEWORKS | {
    "jaxlib",
    "sklearn",
    "pyarrow",
    "hypothesis",
    "pytest",
    "optax",
    "scipy",
    "matplotlib",
    "jinja2",
    "rich",
    "sympy",
}

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


@pytest.mark.thorough
@pytest.mark.parametrize(
    "program",
    [
        "import gdcompare",
        "import gdcompare.cli",
        "import gdcompare as gdc; gdc.backend_names(); gdc.problem_names(); gdc.load_problem('linear-regression')",
        "import gdcompare as gdc; repr(gdc.descend('linear-regression', gdc.datasets.noisy_line(), 'numpy', epochs=2))",
        HELP,
    ],
    ids=["import", "import the command line", "look at the names", "descend with NumPy", "--help"],
)
def test_no_framework_is_loaded_before_it_is_asked_for(program: str) -> None:
    assert heavy_modules_after(program) == []


@pytest.mark.thorough
def test_help_loads_no_number_system() -> None:
    assert (
        heavy_modules_after(HELP + "\nassert 'gdcompare.arithmetic' not in sys.modules, 'it takes a third longer'")
        == []
    )


def test_a_loaded_framework_would_be_seen() -> None:
    assert "hypothesis" in heavy_modules_after("import gdcompare, hypothesis")  # which loads plugins of its own
