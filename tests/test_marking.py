"""The marks of tests: what is lacking must fail as is said, no name is made up, and the quick loop omits no value."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .lacks import FEATURES, Lack
from .marking import check_names, each_choice, share, shuffled

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest
from gdcompare.problem import NotDerivedError
from tests import marking
from tests.lacks import Lack

LACKS = [Lack("notyet", "numpy", "jvp", "nobody has time", NotDerivedError)]

def pytest_configure(config):
    for marker in [*marking.MARKERS, "thorough", "soundness"]:
        config.addinivalue_line("markers", marker)

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    marking.mark(items, LACKS)
"""
TEST = """
import pytest
from gdcompare.problem import NotDerivedError

@pytest.mark.feature("jvp")
@pytest.mark.parametrize("backend_name", ["numpy"])
def test_it(backend_name):
    {body}
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite whose table says that NumPy has no jvp, and must raise NotDerivedError."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    pytester.makeconftest(CONFTEST)
    return pytester


# What is lacking


def test_what_raises_as_the_table_says_is_an_expected_failure_with_the_reason(inner: pytest.Pytester) -> None:
    inner.makepyfile(TEST.format(body="raise NotDerivedError"))

    result = inner.runpytest("-rx", "--strict-markers", "-m", "notyet and not never")

    result.assert_outcomes(xfailed=1)
    result.stdout.fnmatch_lines(["XFAIL *notyet: numpy has no jvp: nobody has time"])


@pytest.mark.parametrize("body", ["pass", "raise TypeError", "assert False"])
def test_what_passes_or_raises_anything_else_fails(inner: pytest.Pytester, body: str) -> None:
    inner.makepyfile(TEST.format(body=body))

    inner.runpytest().assert_outcomes(failed=1)


def test_what_is_not_lacking_is_a_test_as_any_other(inner: pytest.Pytester) -> None:
    inner.makepyfile(TEST.format(body="pass").replace('"jvp"', '"hvp"'))

    inner.runpytest().assert_outcomes(passed=1)


def test_a_backend_of_somebody_else_may_lack_what_the_table_cannot_know(inner: pytest.Pytester) -> None:
    inner.makepyfile(TEST.format(body="raise NotDerivedError").replace('["numpy"]', '["theirs"]'))

    inner.runpytest().assert_outcomes(xfailed=1)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"jvp"', '"jpv"', "unknown feature 'jpv'; known: gradient, *"),
        ("backend_name", "name", "*::test_it[[]numpy]: marked with a feature, and runs on no backend in turn"),
        ('feature("jvp")', 'one_in(2, "jaxx")', "unknown backend 'jaxx'; known: autograd, *"),
        ('feature("jvp")', 'thorough_on("jaxx")', "unknown backend 'jaxx'; known: autograd, *"),
        ("mark.feature", "mark.features", "*'features' not found in `markers` configuration option*"),
    ],
)
def test_an_unknown_name_in_a_marker_fails_the_collection(
    inner: pytest.Pytester, old: str, new: str, message: str
) -> None:
    inner.makepyfile(TEST.format(body="pass").replace(old, new))

    result = inner.runpytest("--strict-markers")

    assert result.ret != 0
    assert "passed" not in result.stdout.str()
    assert any(pattern_matches(line, message) for line in [*result.outlines, *result.errlines])


def pattern_matches(line: str, pattern: str) -> bool:
    matcher = pytest.LineMatcher([line.removeprefix("ERROR: ")])
    try:
        matcher.fnmatch_lines([pattern])
    except pytest.fail.Exception:
        return False
    return True


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        (Lack("never", "numpi", "jvp", "", TypeError), "unknown backend 'numpi'; known: autograd, "),
        (Lack("never", "numpy", "jpv", "", TypeError), "unknown feature 'jpv'; known: gradient, "),
        (Lack("never", "numpy", "jvp", "", TypeError, ("line",)), "unknown problem 'line'; known: convolution-network"),
    ],
)
def test_an_unknown_name_in_the_table_fails_the_collection(lack: Lack, message: str) -> None:
    with pytest.raises(pytest.UsageError, match=message):
        check_names([lack])


# The quick loop


MATRIX = """
import pytest

@pytest.fixture(params=["a", "b"])
def dtype(request):
    return request.param

@pytest.mark.parametrize(("x", "y"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_it(dtype, x, y):
    pass

def test_alone():
    pass

@pytest.mark.thorough
def test_long():
    pass
"""


def test_the_quick_loop_keeps_each_value_of_a_fixture_and_each_row_of_a_table(inner: pytest.Pytester) -> None:
    inner.makepyfile(MATRIX)

    quick = inner.runpytest("-v", "-m", "not thorough")
    rest = inner.runpytest("-m", "thorough")

    quick.assert_outcomes(passed=5, deselected=5)
    rest.assert_outcomes(passed=5, deselected=5)
    for row in ("0-0", "0-1", "1-0", "1-1"):
        quick.stdout.fnmatch_lines([f"*test_it[[]?-{row}] PASSED*"])
    for dtype in "ab":
        quick.stdout.fnmatch_lines([f"*test_it[[]{dtype}-*] PASSED*"])


def test_a_test_is_thorough_on_the_backends_that_it_says(inner: pytest.Pytester) -> None:
    inner.makepyfile("""
import pytest

@pytest.mark.thorough_on("torch")
@pytest.mark.parametrize("backend_name", ["numpy", "torch"])
def test_it(backend_name):
    pass
""")

    result = inner.runpytest("-v", "-m", "not thorough")

    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*test_it[[]numpy] PASSED*"])


def test_one_in_so_many_runs_on_the_backend_that_it_says(inner: pytest.Pytester) -> None:
    inner.makepyfile("""
import pytest

@pytest.mark.one_in(4, "jax")
@pytest.mark.parametrize("backend_name", ["jax", "numpy"])
@pytest.mark.parametrize("case", range(40))
def test_it(backend_name, case):
    pass
""")

    on_jax = inner.runpytest("-m", "not soundness", "-k", "jax").parseoutcomes()["passed"]
    on_numpy = inner.runpytest("-m", "not soundness", "-k", "numpy").parseoutcomes()["passed"]

    assert 2 < on_jax < 20
    assert on_numpy == 40


def test_what_covers_meets_every_value_before_the_soundness_run_and_few_combinations(inner: pytest.Pytester) -> None:
    inner.makepyfile("""
import pytest

@pytest.mark.thorough
@pytest.mark.covering
@pytest.mark.parametrize("a", range(3))
@pytest.mark.parametrize("b", range(4))
def test_it(a, b):
    pass
""")

    before = inner.runpytest("-v", "-m", "thorough and not soundness")
    rest = inner.runpytest("-m", "soundness")

    before.assert_outcomes(passed=4, deselected=8)
    rest.assert_outcomes(passed=8, deselected=4)
    before.stdout.fnmatch_lines_random(
        [*(f"*[[]{b}-?] PASSED*" for b in range(4)), *(f"*-{a}] PASSED*" for a in range(3))]
    )


def cases(*sizes: int) -> dict[str, dict[str, int]]:
    return {str(row): {str(i): value for i, value in enumerate(row)} for row in product(*map(range, sizes))}


@pytest.mark.parametrize("sizes", [(1,), (5,), (2, 2), (4, 2, 21), (3, 3, 3, 3), ()])
def test_each_choice_has_every_value_and_few_cases(sizes: Sequence[int]) -> None:
    whole = cases(*sizes)
    values = {value for case in whole.values() for value in case.items()}

    kept = each_choice(whole)

    assert {value for name in kept for value in whole[name].items()} == values
    assert len(kept) <= max(sizes, default=1) + 2


def test_each_choice_meets_other_combinations_under_other_names() -> None:
    met = {
        tuple(sorted(whole[name].items()))
        for i in range(30)
        for whole in [{f"test {i} {name}": case for name, case in cases(4, 5).items()}]
        for name in each_choice(whole)
    }

    assert len(met) == 20


def test_each_choice_does_not_count_on_what_cannot_pass() -> None:
    whole = cases(2, 5)
    last = {name for name, case in whole.items() if case["0"] == 1}

    kept = each_choice(whole, last)

    assert {whole[name]["1"] for name in kept - last} == set(range(5))
    assert len(kept & last) == 1


@pytest.mark.parametrize(
    ("source", "options", "processes"),
    [
        ("TESTPATHS", {"usepdb": False, "numprocesses": None, "dist": "no"}, min(os.cpu_count() or 1, 4)),
        ("TESTPATHS", {"usepdb": False, "numprocesses": 0, "dist": "no"}, 0),
        ("TESTPATHS", {"usepdb": True, "numprocesses": None, "dist": "no"}, None),
        ("TESTPATHS", {"usepdb": False}, "no such option"),
        ("ARGS", {"usepdb": False, "numprocesses": None, "dist": "no"}, None),
    ],
    ids=["bare", "-n 0", "--pdb", "without xdist", "a file"],
)
def test_the_whole_suite_alone_is_shared_among_processes(
    source: str, options: dict[str, Any], processes: object
) -> None:
    config: Any = SimpleNamespace(args_source=pytest.Config.ArgsSource[source], option=SimpleNamespace(**options))

    share(config)

    assert getattr(config.option, "numprocesses", "no such option") == processes


@pytest.mark.parametrize(
    ("processes", "asked", "dist"), [(2, "no", "worksteal"), (2, "loadfile", "loadfile"), (0, "no", "no")]
)
def test_each_process_takes_a_stretch_of_the_tests_unless_told_otherwise(processes: int, asked: str, dist: str) -> None:
    config: Any = SimpleNamespace(
        args_source=pytest.Config.ArgsSource.ARGS,
        option=SimpleNamespace(usepdb=False, numprocesses=processes, dist=asked),
    )

    share(config)

    assert config.option.dist == dist


def test_what_chooses_is_the_same_in_every_process() -> None:
    assert shuffled("one") == 0x7A6C86F1


def test_every_feature_has_a_line_that_says_what_it_is() -> None:
    assert all(FEATURES.values())
