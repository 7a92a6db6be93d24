"""Names lead to backends and problems, wrong ones to a way out, and only a missing framework is 'unavailable'."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from gdcompare import (
    BackendUnavailableError,
    Dataset,
    Problem,
    backend_names,
    descend,
    load_backend,
    load_problem,
    problem_names,
    value_and_grad,
)
from gdcompare.own_files import FileError
from gdcompare.registry import (
    approximation_names,
    as_backend,
    as_problem,
    how_to_install,
    own_this_process,
    registered_backends,
)
from tests.refusal import refusal

ROOT = Path(__file__).parents[1]


# Names


def test_the_registered_backends_are_the_three_and_whatever_else_is_installed() -> None:
    assert {"jax", "numpy", "torch"} <= set(registered_backends())
    assert registered_backends() == sorted(registered_backends())
    assert set(backend_names()) <= set(registered_backends())


def test_a_backend_has_the_name_under_which_it_is_registered(backend_name: str) -> None:
    assert load_backend(backend_name).name == backend_name
    assert backend_name in backend_names()
    assert how_to_install(backend_name) is None


def test_every_problem_loads_by_its_name_equal_each_time() -> None:
    for name in problem_names():
        one, again = load_problem(name), load_problem(name)

        assert isinstance(one, Problem)
        assert one == again
        assert hash(one) == hash(again)
    assert {"linear-regression", "logistic-regression"} <= set(problem_names())


def test_a_value_stands_for_itself() -> None:
    backend, problem = load_backend("numpy", "float32"), load_problem("linear-regression")

    assert as_backend(backend) is backend
    assert as_problem(problem) is problem


def test_a_backend_that_is_only_named_computes_in_float64() -> None:
    assert as_backend("numpy") == load_backend("numpy", "float64")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("tensor", "tensorflow"), ("", None), ("Numpy", "numpy"), ("finite-diff", "finite-differences")],
)
def test_an_unknown_backend_is_refused_with_the_registered_ones_and_the_nearest(name: str, nearest: str | None) -> None:
    known = f"{', '.join(registered_backends())}; approximations: {', '.join(approximation_names())}"
    guess = "" if nearest is None else f"; did you mean {nearest!r}?"

    for refuses in (load_backend, as_backend, how_to_install):
        with refusal(LookupError, f"unknown backend {name!r}; registered: {known}{guess}"):
            refuses(name)


@pytest.mark.parametrize("name", approximation_names())
def test_an_approximation_is_found_by_its_name_and_is_in_no_default(name: str) -> None:
    backend = load_backend(name, "float32")

    assert (backend.name, backend.dtype) == (name, "float32")
    assert how_to_install(name) is None
    assert name not in registered_backends()
    assert name not in backend_names()


def test_the_approximations_are_found() -> None:
    assert {"complex-step", "finite-differences"} <= set(approximation_names())
    assert approximation_names() == sorted(approximation_names())


@pytest.mark.parametrize(
    ("name", "guess"), [("linear", ""), ("", ""), ("linear_regression", "; did you mean 'linear-regression'?")]
)
def test_an_unknown_problem_is_refused_with_the_registered_ones_and_the_nearest(name: str, guess: str) -> None:
    for refuses in (load_problem, as_problem):
        with refusal(LookupError, f"unknown problem {name!r}; registered: {', '.join(problem_names())}{guess}"):
            refuses(name)


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    message = "problem 'polynomial-regression' has no setting 'degre'; it has: degree; did you mean 'degree'?"

    with refusal(TypeError, message):
        load_problem("polynomial-regression", degre=3)


def test_an_empty_registry_is_said_to_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for group in ("BACKENDS", "APPROXIMATIONS"):
        monkeypatch.setattr(f"gdcompare.registry.{group}", "gdcompare.no_such_group")

    with refusal(
        LookupError,
        "unknown backend 'numpy'; "
        "registered: none (is gdcompare installed? entry points 'gdcompare.no_such_group' are empty)",
    ):
        load_backend("numpy")


def test_a_problem_that_cannot_be_hashed_is_refused() -> None:
    class Unhashable(type(load_problem("linear-regression"))):  # type: ignore[misc]  # a base found at run time
        __hash__ = None  # type: ignore[assignment]  # so Python spells it

    with refusal(TypeError, "problem Unhashable cannot be hashed; make it a @dataclass(frozen=True)"):
        as_problem(Unhashable())


# Other people's packages

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package 'ghost-plugin' where this interpreter finds it, with a backend 'ghost' and these modules."""

    def put(entry_point: str, modules: Mapping[str, str], requires: str | None = None) -> Path:
        metadata = ["Metadata-Version: 2.4", "Name: ghost-plugin", "Version: 1.0"]
        if requires is not None:
            metadata += ["Provides-Extra: ghost", f'Requires-Dist: {requires}; extra == "ghost"']
        info = tmp_path / "ghost_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("\n".join(metadata) + "\n")
        (info / "entry_points.txt").write_text(f"[gdcompare.backends]\nghost = {entry_point}\n")
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path

    yield put
    sys.modules.pop("ghost_backend", None)


def test_a_backend_of_another_package_is_found_by_its_entry_point(install: Install) -> None:
    install("ghost_backend:Ghost", {"ghost_backend": "from gdcompare_numpy import NumpyBackend as Ghost"})

    backend = load_backend("ghost", dtype="float32")

    assert backend == load_backend("numpy", dtype="float32")
    assert "ghost" in registered_backends()
    assert "ghost" in backend_names()


def test_a_backend_prepares_a_process_that_is_the_suites_own_and_no_other(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gdcompare.registry._process_is_ours", False)
    source = """
    from gdcompare_numpy import NumpyBackend

    def ghost(**settings):
        return NumpyBackend(**settings)

    prepared = []
    ghost.prepare_process = lambda: prepared.append("once")
    """
    install("ghost_backend:ghost", {"ghost_backend": source})

    load_backend("ghost")
    before = list(sys.modules["ghost_backend"].prepared)
    own_this_process()
    load_backend("ghost")

    assert before == []
    assert sys.modules["ghost_backend"].prepared == ["once"]


def test_a_missing_framework_is_said_to_be_missing_with_the_extra_to_install(install: Install) -> None:
    install("ghost_backend:Ghost [ghost]", {"ghost_backend": "import ghost_framework"}, requires="ghost-framework>=2")

    with refusal(BackendUnavailableError, "backend 'ghost' needs 'ghost_framework': pip install 'ghost-plugin[ghost]'"):
        load_backend("ghost")

    assert "ghost" in registered_backends()
    assert "ghost" not in backend_names()
    assert how_to_install("ghost") == "backend 'ghost' needs 'ghost-framework': pip install 'ghost-plugin[ghost]'"


def test_without_an_extra_the_missing_module_itself_is_to_be_installed(install: Install) -> None:
    install("ghost_backend:Ghost", {"ghost_backend": "from ghost_framework.deep import thing"})

    with refusal(BackendUnavailableError, "backend 'ghost' needs 'ghost_framework': pip install 'ghost_framework'"):
        load_backend("ghost")

    assert how_to_install("ghost") is None  # nothing that its metadata ask for is missing


# A framework's name misspelt cannot be told from a framework that is not installed; every other mistake can.
BUGS = {
    "a mistake in its own code": ("Ghost = 1 / 0", ZeroDivisionError),
    "a module that its framework has not": ("import numpy.no_such_module", ModuleNotFoundError),
    "a name that its framework has not": ("from numpy import no_such_name", ImportError),
    "a module that gdcompare has not": ("import gdcompare.no_such_module", ModuleNotFoundError),
    "no class of that name": ("", AttributeError),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_in_a_backend_shows_itself(install: Install, bug: str) -> None:
    source, error = BUGS[bug]
    install("ghost_backend:Ghost [ghost]", {"ghost_backend": source}, requires="numpy")

    with pytest.raises(error) as raised:
        load_backend("ghost")

    assert not isinstance(raised.value, BackendUnavailableError)


def test_a_file_missing_from_the_suite_itself_is_a_bug(install: Install) -> None:
    install("gdcompare_ghost:Ghost", {})

    with refusal(ModuleNotFoundError, "No module named 'gdcompare_ghost'"):
        load_backend("ghost")


def test_the_extras_of_the_suites_own_backends_name_what_to_install() -> None:
    own = [each for each in entry_points(group="gdcompare.backends") if each.dist and each.dist.name == "gdcompare"]

    assert {each.name: each.extras for each in own} == {
        each.name: [] if each.name == "numpy" else [each.name] for each in own
    }


# The fixture over all backends: a skip carries its reason, unless the backend is required


def run_the_ghosts_tests(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    tests = ["tests/test_backends.py", "-k", "test_backends_with_the_same_settings_are_equal and ghost"]
    return subprocess.run(  # noqa: S603 - the command is written here
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests, *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.thorough
def test_a_missing_framework_is_a_skip_that_can_be_made_a_failure(install: Install) -> None:
    folder = install("ghost_backend:Ghost", {"ghost_backend": "import ghost_framework"})

    skipped, failed = run_the_ghosts_tests(folder), run_the_ghosts_tests(folder, "--require-backends=numpy,ghost")

    reason = "backend 'ghost' needs 'ghost_framework': pip install 'ghost_framework'"
    assert (skipped.returncode, failed.returncode) == (0, 1)
    assert f"{reason}\n" in skipped.stdout
    assert "1 skipped" in skipped.stdout
    assert f"{reason} (required by --require-backends)" in failed.stdout


@pytest.mark.thorough
def test_requiring_a_backend_that_nobody_registered_is_an_error() -> None:
    answer = run_the_ghosts_tests(ROOT, "--require-backends=tensor")

    assert answer.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"--require-backends: unknown tensor; registered: {', '.join(registered_backends())}" in answer.stderr


# Files

PROBLEM = """
    from dataclasses import dataclass
    from gdcompare.problem import Problem

    @dataclass(frozen=True)
    class Mean(Problem):
        '''l_i = (m - y_i)^2.'''

        def parameter_shapes(self, data):
            return {"m": ()}

        def per_sample_losses(self, xp, params, features, targets):
            return (params["m"] - targets) ** 2

        def per_sample_gradients(self, xp, params, features, targets):
            return {"m": 2 * (params["m"] - targets)}

        def value_and_gradient(self, xp, params, features, targets):
            residuals = params["m"] - targets
            return xp.mean(residuals * residuals), {"m": 2 * xp.mean(residuals)}

    class Odd:
        def __init__(self, **options):
            self.per_sample_losses = self.asarray = None
"""


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    path = tmp_path / "my problem.py"
    path.write_text(textwrap.dedent(PROBLEM))
    return path


def test_a_problem_in_a_file_works_on_every_backend(problem_file: Path, backend_name: str) -> None:
    data = Dataset([[0.0], [0.0]], [1.0, 4.0])

    loss, gradient = value_and_grad(f"{problem_file}:Mean", data, {"m": 2.0}, backend_name)
    fit = descend(f"{problem_file}:Mean", data, backend_name, epochs=1)

    assert (loss, float(gradient["m"])) == (2.5, -1.0)
    assert fit.parameters["m"] == pytest.approx(0.05)


def test_a_file_is_loaded_once_so_that_its_problems_are_equal(problem_file: Path) -> None:
    one, again = (load_problem(f"{problem_file}:Mean") for _ in range(2))

    assert one == again
    assert type(one) is type(again)


def test_a_relative_path_is_the_same_file(problem_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(problem_file.parent)

    assert load_problem("my problem.py:Mean") == load_problem(f"{problem_file}:Mean")


def test_a_backend_in_a_file_loads_with_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from gdcompare_numpy import NumpyBackend\n")

    backend = load_backend(f"{path}:NumpyBackend", dtype="float32", device="cpu")

    assert backend == load_backend("numpy", dtype="float32", device="cpu")


@pytest.mark.parametrize("load", [load_problem, load_backend])
def test_a_file_that_cannot_be_used_is_refused(load: Callable[[str], Any], problem_file: Path) -> None:
    lacks = {
        load_problem: "Problem: let Odd inherit from gdcompare.Problem",
        load_backend: "Backend: it lacks to_numpy, value_and_grad, per_sample_grad, scan",
    }
    alone = {
        load_problem: "there is no file 'missing.py'",
        load_backend: "'missing.py' names a file but nothing in it; write 'missing.py:Name'",
    }

    with refusal(LookupError, "there is no file 'missing.py'"):
        load("missing.py:Mean")
    with refusal(LookupError, alone[load]):
        load("missing.py")
    with refusal(LookupError, f"{str(problem_file)!r} has no 'Median'; it has: Mean, Odd"):
        load(f"{problem_file}:Median")
    with refusal(LookupError, f"{str(problem_file) + ':Odd'!r} is no {lacks[load]}"):
        load(f"{problem_file}:Odd")


def test_an_empty_file_has_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.touch()

    with refusal(LookupError, f"{str(path)!r} has no 'Mean'; it has: nothing of its own"):
        load_problem(f"{path}:Mean")


def test_a_mistake_in_a_file_shows_itself_and_can_be_mended(problem_file: Path) -> None:
    right = problem_file.read_text()
    problem_file.write_text("1 / 0\n")

    with pytest.raises(FileError, match=r"problem\.py:1: ZeroDivisionError: division by zero\n    1 / 0$") as mistake:
        load_problem(f"{problem_file}:Mean")
    assert isinstance(mistake.value.__cause__, ZeroDivisionError)

    problem_file.write_text(right)
    assert load_problem(f"{problem_file}:Mean").parameter_shapes(Dataset([1.0], [1.0])) == {"m": ()}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("class Module:\n    def __call__(self, x):\n        return x\nmodel = Module()\n", "Module"),
        ("def model(params, features, targets):\n    return 0\n", "a function of params, features, targets"),
    ],
)
def test_a_model_that_is_named_as_a_problem_is_refused_with_the_way_out(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)

    with pytest.raises(LookupError, match=rf"is no Problem, but {what}: .*from_module\(model, loss\)"):
        load_problem(f"{path}:model")


def test_a_model_where_only_a_problem_will_do_is_refused_with_what_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import gdcompare as gdc\nmodel = gdc.from_functions(lambda p, x, y: 0, lambda p, x, y: p)\n")

    with pytest.raises(LookupError, match="is no Problem, but _Functions: verify and laws take a model"):
        load_problem(f"{path}:model")
