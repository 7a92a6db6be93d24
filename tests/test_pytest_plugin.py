"""The pytest plugin fails a test whose gradient is wrong, says why, sums up, and costs nothing when unused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

# Pytester forgets whatever is first imported inside its runs: these are better imported once.
import hypothesis.strategies  # noqa: F401
import pytest

import gdcompare.testing  # noqa: F401
from gdcompare.registry import backend_names, load_backend, registered_backends

pytest_plugins = ["pytester"]

DIFFERENTIATE = [name for name in backend_names() if not load_backend(name).by_hand]  # and all frameworks are imported

MINE = """
import gdcompare as gdc
import pytest

DATA = gdc.datasets.noisy_line()
AT = {"theta_0": 1.0, "theta_1": [0.0]}

def mine(params, features, targets):
    residuals = params["theta_0"] + features @ params["theta_1"] - targets
    return (residuals**2).mean(), {"theta_0": 2 * residuals.mean(), "theta_1": 2 * residuals @ features / len(targets)}

def half(params, features, targets):
    loss, gradient = mine(params, features, targets)
    return loss, gradient | {"theta_0": gradient["theta_0"] / 2}
"""

RIGHT = """
def test_mine_is_the_gradient(gradients):
    report = gradients.agree(mine, "linear-regression", DATA, AT)

    assert report.verdict == "agree"
"""

WRONG = """
def test_half_is_the_gradient(gradients):
    gradients.agree(half, "linear-regression", DATA, AT)
"""


def summary(result: pytest.RunResult) -> str:
    """The one line of the run that sums up the gradients."""
    (line,) = [line for line in result.outlines if line.startswith("gradients: ")]
    return line


def test_pytest_finds_the_plugin() -> None:
    (plugin,) = [each for each in entry_points(group="pytest11") if each.name == "gdcompare"]

    assert plugin.value == "gdcompare.pytest_plugin"


def test_a_right_gradient_passes_and_the_last_lines_say_what_would_have_been_caught(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MINE + RIGHT)

    result = pytester.runpytest("-W", "error", "--strict-markers")

    result.assert_outcomes(passed=1)
    assert re.fullmatch(
        r"gradients: 1 problem, 1 implementation, 3 comparisons: 3 agree; at most 0\.\d+ of a budget used; "
        r"a relative fault of \d\.\de-1[34] \(float64\) would have been caught; "
        r"1[34] digits \(float64\) checked",
        summary(result),
    )


def test_a_wrong_gradient_fails_and_says_which_element_both_values_and_the_cause(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MINE + RIGHT + WRONG)

    result = pytester.runpytest()

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            '>       gradients.agree(half, "linear-regression", DATA, AT)',
            "E       gdcompare.testing.GradientError: 1 of 3 comparisons do not agree for LinearRegression on *:",
            "E         half: theta_0 is wrong: actual -2.7235269600489*, expected -5.44705392009*, * times the budget; "
            "a constant factor 1/2 in the value",
        ]
    )
    assert "testing.py:" not in result.stdout.str(), "the traceback ends at the test, not inside the suite"
    assert ", 2 implementations, 6 comparisons: 5 agree, 1 wrong; " in summary(result)


def test_an_error_inside_the_function_is_shown_where_it_happened(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        MINE
        + """
def broken(params, features, targets):
    return params["no such name"]

def test_broken(gradients):
    gradients.agree(broken, "linear-regression", DATA, AT)
"""
    )

    result = pytester.runpytest()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['>       return params["no such name"]', "E       KeyError: 'no such name'"])


def test_the_weakest_power_of_each_dtype_is_stated(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        MINE
        + """
def test_both(gradients):
    gradients.agree(mine, "linear-regression", DATA, AT)
    gradients.agree(mine, "linear-regression", DATA, AT, "float32")
    gradients.agree(mine, "linear-regression", DATA, AT, rtol=1e-3)
"""
    )

    line = summary(pytester.runpytest())

    assert re.search(r"a relative fault of \d\.\de-0[56] \(float32\), 2\.0e-03 \(float64\) would have been", line)


def test_nothing_is_said_where_nothing_was_judged(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it():\n    pass\n\ndef test_unused(gradients):\n    pass\n")

    result = pytester.runpytest()

    result.assert_outcomes(passed=2)
    assert "gradients:" not in result.stdout.str()


def test_every_report_is_written_as_json_with_the_test_that_made_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_them=MINE + RIGHT + WRONG)

    pytester.runpytest("--gradients-json", "made/reports.json")

    first, second = json.loads((pytester.path / "made" / "reports.json").read_text())["reports"]
    assert first["test"] == "test_them.py::test_mine_is_the_gradient"
    assert (first["verdict"], second["verdict"]) == ("agree", "wrong")
    assert first["context"]["problem"] == "LinearRegression"
    assert [entry["cause"] for entry in second["entries"] if entry["verdict"] == "wrong"] == [
        "a constant factor 1/2 in the value"
    ]


def test_the_json_is_written_where_nothing_was_judged_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it():\n    pass\n")

    pytester.runpytest("--gradients-json", "reports.json")

    assert json.loads((pytester.path / "reports.json").read_text()) == {"reports": []}


def test_what_a_fixture_judged_is_counted(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        MINE
        + """
@pytest.fixture(scope="module")
def judged(gradients):
    gradients.agree(mine, "linear-regression", DATA, AT)
    yield
    gradients.agree(mine, "linear-regression", DATA, AT)

def test_it(judged):
    pass
"""
    )

    assert " 6 comparisons: 6 agree; " in summary(pytester.runpytest())


@pytest.mark.thorough
def test_hypothesis_accepts_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        MINE
        + """
from hypothesis import given, settings, strategies as st

@given(slope=st.floats(-10, 10))
@settings(max_examples=5, deadline=None, database=None)
@pytest.mark.each_gradient_backend
def test_it(gradients, gradient_backend, slope):
    gradients.agree(gradient_backend, "linear-regression", DATA, {"theta_0": 1.0, "theta_1": [slope]})
"""
    )

    pytester.runpytest("-k", "numpy").assert_outcomes(passed=1, deselected=len(registered_backends()) - 1)


ON_EACH = """
@pytest.mark.each_gradient_backend("float32", "float64")
def test_it(gradients, gradient_backend):
    gradients.agree(gradient_backend, "linear-regression", DATA, AT)
"""


def test_a_marked_test_runs_on_each_registered_backend_and_dtype(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(MINE + ON_EACH)

    result = pytester.runpytest("--collect-only", "-q", "--strict-markers")

    cases = [f"{name}-{dtype}" for name in registered_backends() for dtype in ("float32", "float64")]
    result.stdout.fnmatch_lines([f"{path.name}::test_it[[]{case}]" for case in cases])


def test_a_missing_framework_is_a_skip_that_says_how_to_install_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = pytester.mkdir("phantom-1.0.dist-info")
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: phantom\nVersion: 1.0\nProvides-Extra: more\n"
        'Requires-Dist: framework-of-dreams; extra == "more"\n'
    )
    (about / "entry_points.txt").write_text("[gdcompare.backends]\nphantom = phantom:PhantomBackend [more]\n")
    pytester.makepyfile(phantom="import framework_of_dreams\n", test_it=MINE + ON_EACH)
    monkeypatch.syspath_prepend(pytester.path)

    result = pytester.runpytest("-rs", "-k", "float64 and (numpy or phantom)")

    result.assert_outcomes(passed=1, skipped=1, deselected=2 * len(registered_backends()) - 2)
    result.stdout.fnmatch_lines(
        ["SKIPPED * backend 'phantom' needs 'framework_of_dreams': pip install 'phantom[[]more]'"]
    )


UNDERIVED = """
class Underived(gdc.Problem):
    def parameter_shapes(self, data):
        return {"x": (1,)}

    def per_sample_losses(self, xp, params, features, targets):
        return (params["x"][0] * features[:, 0] - targets) ** 2

@pytest.mark.each_gradient_backend
def test_it(gradients, gradient_backend):
    {body}
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "body",
    [
        'gradients.agree(gradient_backend, Underived(), DATA, {"x": [1.0]})',
        'gdc.verify(Underived(), DATA, {"x": [1.0]}, backends=[gradient_backend]).assert_agree()',
        'gdc.value_and_grad(Underived(), DATA, {"x": [1.0]}, gradient_backend)',
    ],
    ids=["agree", "verify", "value_and_grad"],
)
def test_where_nobody_derived_a_gradient_the_backend_that_needs_one_is_skipped_and_no_other(
    pytester: pytest.Pytester, body: str
) -> None:
    pytester.makepyfile(MINE + UNDERIVED.replace("{body}", body))

    result = pytester.runpytest("-rs", "-k", " or ".join(["numpy", *DIFFERENTIATE]))

    result.assert_outcomes(
        passed=len(DIFFERENTIATE), skipped=1, deselected=len(registered_backends()) - len(DIFFERENTIATE) - 1
    )
    result.stdout.fnmatch_lines(["SKIPPED *Underived has no*"])


@pytest.mark.parametrize(
    "body",
    ["raise TypeError('of another kind')", "backend = gdc.load_backend('numpi')"],
    ids=["TypeError", "LookupError"],
)
def test_no_other_error_is_a_skip(pytester: pytest.Pytester, body: str) -> None:
    pytester.makepyfile(MINE + UNDERIVED.replace("{body}", body))

    pytester.runpytest("-k", "numpy").assert_outcomes(failed=1, deselected=len(registered_backends()) - 1)


@pytest.mark.thorough
def test_where_one_backend_alone_is_asked_for_a_missing_derivation_is_an_error(pytester: pytest.Pytester) -> None:
    code = UNDERIVED.replace("{body}", 'gradients.agree("numpy", Underived(), DATA, {"x": [1.0]})')
    code = code.replace("@pytest.mark.each_gradient_backend\n", "").replace("gradients, gradient_backend", "gradients")
    pytester.makepyfile(MINE + code)

    result = pytester.runpytest()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * backend 'numpy' evaluates gradients derived by hand, and Underived has none*"])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def test_it(gradient_backend):\n    pass\n",
            "*'gradient_backend' is one backend after another: mark the test @pytest.mark.each_gradient_backend",
        ),
        (
            "@pytest.mark.each_gradient_backend('float16')\ndef test_it(gradient_backend):\n    pass\n",
            "*unknown dtype 'float16'; known: float32, float64",
        ),
        (
            "@pytest.mark.each_gradient_backend\ndef test_it():\n    pass\n",
            "*function uses no fixture 'gradient_backend'",
        ),
    ],
)
def test_a_marker_that_makes_no_sense_is_refused(pytester: pytest.Pytester, code: str, message: str) -> None:
    pytester.makepyfile("import pytest\n" + code)

    result = pytester.runpytest()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])


@pytest.mark.thorough
def test_reports_come_home_from_worker_processes(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="needs pytest-xdist")
    pytester.makepyfile(MINE + RIGHT + WRONG)

    result = pytester.runpytest_subprocess("-n", "2", "--gradients-json", "reports.json")

    assert ", 2 implementations, 6 comparisons: 5 agree, 1 wrong; " in summary(result)
    assert len(json.loads((pytester.path / "reports.json").read_text())["reports"]) == 2


HEAVY = {"numpy", "flint", "array_api_compat", "click", "rich", "hypothesis"}


def loaded_by_pytest(folder: Path, code: str) -> set[str]:
    """What a fresh pytest with no other plugin has imported after running a file, of the suite and of what it needs."""
    (folder / "test_it.py").write_text(code)
    arguments = ["-q", "-p", "gdcompare.pytest_plugin", "test_it.py"]
    program = f"import pytest, sys; pytest.main({arguments}); print(*sys.modules)"
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    names = set(done.stdout.splitlines()[-1].split())
    return {name for name in names if name.partition(".")[0] == "gdcompare"} | (names & HEAVY)


@pytest.mark.thorough
def test_a_run_that_judges_nothing_loads_nothing(tmp_path: Path) -> None:
    doors = {f"gdcompare.{old}" for old in ("conformance", "datasets", "formula_check", "rules")}  # names, nothing else

    found = loaded_by_pytest(tmp_path, "def test_it():\n    pass\n")

    assert found - doors == {"gdcompare", "gdcompare.pytest_plugin"}


@pytest.mark.thorough
def test_a_run_that_judges_loads_the_referee(tmp_path: Path) -> None:
    code = "def test_it(gradients):\n    gradients.agree('numpy', 'linear-regression', 'noisy-line')\n"

    assert {"numpy", "flint", "gdcompare.referee.verify"} <= loaded_by_pytest(tmp_path, code)


def chapter_block(text: str) -> str:
    chapter = (Path(__file__).parent.parent / "docs" / "check-your-gradient.md").read_text(encoding="utf-8")
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", chapter, flags=re.DOTALL) if text in block]
    return str(found)


@pytest.mark.thorough
def test_the_files_of_the_chapter_work_as_printed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(decay=chapter_block("class Decay"), test_decay=chapter_block("def test_my_gradient"))

    tested = pytester.runpytest("-W", "error", "-k", "my_gradient or numpy")
    verified = pytester.run(sys.executable, "-m", "gdcompare", "verify", "decay.py:Decay", "--backend", "numpy")

    tested.assert_outcomes(passed=3, deselected=2 * len(registered_backends()) - 2)
    assert summary(tested).startswith("gradients: 1 problem, 2 implementations, 8 comparisons: 8 agree; ")
    assert verified.ret == 0
