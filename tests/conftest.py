"""Fixtures over all that is registered: whoever installs a backend or a problem gets every test here."""

from __future__ import annotations

import gc
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gdcompare import Backend, BackendUnavailableError, Problem, load_backend, load_problem, problem_names
from gdcompare.registry import registered_backends

from . import marking

# What JAX has compiled once it loads in the next run: in the quick loop, that is most of the work. From the environment
# it reaches JAX however late it is imported, and worker processes as well.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# A process for each CPU is enough: threads of several that wait for one another on the same CPUs burn most of the time.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

# Collecting makes objects by the hundred thousand and frees few: looking for garbage among them, again and again, takes
# longer than the rest.
gc.disable()

if find_spec("hypothesis"):
    from hypothesis import settings

    settings.register_profile("quick", settings(), max_examples=10)

if not registered_backends():
    raise pytest.UsageError("no backend is registered, so nothing would be tested: pip install -e '.[test]'")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-backends",
        default="",
        metavar="NAMES",
        help="backends, separated by commas, whose missing framework is a failure here, not a skip",
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in marking.MARKERS:
        config.addinivalue_line("markers", marker)
    if unknown := _required(config) - set(registered_backends()):
        raise pytest.UsageError(
            f"--require-backends: unknown {', '.join(sorted(unknown))}; registered: {', '.join(registered_backends())}"
        )


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads it
def pytest_cmdline_main(config: pytest.Config) -> None:
    marking.share(config)
    if "not thorough" in config.option.markexpr and getattr(config.option, "hypothesis_profile", "") is None:
        config.option.hypothesis_profile = "quick"  # the gate gives it another


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marking.mark(items)


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported stays: no test's garbage is there
    gc.set_threshold(20_000, 10, 50)  # what frameworks and pytest keep grows, and looking through it all is slow
    gc.enable()


@pytest.fixture(scope="session", params=registered_backends())
def backend_name(request: pytest.FixtureRequest) -> str:
    """Each registered backend; one whose framework is not installed is skipped, or fails if it is required."""
    name: str = request.param
    try:
        load_backend(name)
    except BackendUnavailableError as error:
        if name.partition("[")[0] in _required(request.config):
            pytest.fail(f"{error} (required by --require-backends)", pytrace=False)
        pytest.skip(str(error))
    except ValueError as error:
        if name not in marking.ALL_VARIANTS:
            raise
        pytest.skip(str(error))  # no compiler
    return name


@pytest.fixture(scope="session", params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def backend(backend_name: str, dtype: str) -> Backend[Any]:
    return load_backend(backend_name, dtype)


@pytest.fixture(scope="session", params=["linear-regression", "logistic-regression"])
def linear_model(request: pytest.FixtureRequest) -> Problem:
    """The two whose rounding `agreement` knows by formula."""
    return load_problem(request.param)


@pytest.fixture(scope="session", params=problem_names())
def problem(request: pytest.FixtureRequest) -> Problem:
    return load_problem(request.param)


def _required(config: pytest.Config) -> set[str]:
    return set(filter(None, config.getoption("--require-backends").split(",")))
