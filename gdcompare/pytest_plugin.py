"""The pytest plugin: judge gradients in tests, run a test on each backend, and sum up in a line.

pytest loads this file in every run of an environment where the suite is installed. So it imports nothing but pytest and
the standard library until a test asks for a fixture or a marker of it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gdcompare import Backend, Problem, Report
    from gdcompare.case import DataLike
    from gdcompare.testing import Candidate

MARKER = "each_gradient_backend"
Judged = dict[str, Any]
"""A report as plain values, with the test that made it."""


class Gradients:
    """What the fixture `gradients` gives."""

    def __init__(self) -> None:
        self.noted: list[Judged] = []
        """What the running test has judged."""

    def agree(
        self,
        implementation: Candidate,
        problem: str | Problem,
        data: DataLike = None,
        params: Mapping[str, ArrayLike] | None = None,
        dtype: str | None = None,
        *,
        reduction: str = "mean",
        atol: float | None = None,
        rtol: float | None = None,
        proven_only: bool = False,
    ) -> Report:
        """Do what `gdcompare.testing.assert_gradients_agree` does, and note the report for the end of the run."""
        __tracebackhide__ = True
        from gdcompare.testing import GradientError, assert_gradients_agree

        try:
            how: dict[str, Any] = {"reduction": reduction, "atol": atol, "rtol": rtol, "proven_only": proven_only}
            report = assert_gradients_agree(implementation, problem, data, params, dtype, **how)
        except GradientError as error:
            self._note(error.report)
            raise
        self._note(report)
        return report

    def _note(self, report: Report) -> None:
        self.noted.append(json.loads(report.to_json()))  # plain to the bone: worker processes send nothing else


_GRADIENTS = pytest.StashKey[Gradients]()


# Session scope, so that hypothesis accepts them.
@pytest.fixture(scope="session")
def gradients(request: pytest.FixtureRequest) -> Gradients:
    """`gradients.agree(implementation, problem, data, params)` fails unless the gradient is the true one."""
    return request.config.stash[_GRADIENTS]


@pytest.fixture(scope="session")
def gradient_backend(request: pytest.FixtureRequest) -> Backend[Any]:
    """One registered backend after another, in tests marked `each_gradient_backend`; skipped if not installed.

    So is a test in which a backend that evaluates derivations by hand meets a problem without one.
    """
    if not hasattr(request, "param"):
        pytest.fail(f"'gradient_backend' is one backend after another: mark the test @pytest.mark.{MARKER}", False)
    from gdcompare.backend import BackendUnavailableError
    from gdcompare.registry import load_backend

    name, dtype = request.param
    try:
        return load_backend(name, dtype)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each backend and dtype."""
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None:
        return
    from gdcompare.backend import checked_dtype
    from gdcompare.registry import registered_backends

    dtypes = [checked_dtype(dtype) for dtype in marker.args or ["float64"]]
    cases = [(name, dtype) for name in registered_backends() for dtype in dtypes]
    metafunc.parametrize("gradient_backend", cases, indirect=True, ids=["-".join(case) for case in cases])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Skip a test of each backend where its backend evaluates derivations by hand, and there is none."""
    try:
        return (yield)
    except TypeError as error:
        backend = getattr(item, "funcargs", {}).get("gradient_backend")
        if item.get_closest_marker(MARKER) is None or not getattr(backend, "by_hand", False):
            raise
        from gdcompare.problem import NotDerivedError

        if not isinstance(error, NotDerivedError):
            raise
        pytest.skip(str(error))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--gradients-json`."""
    group = parser.getgroup("gdcompare", "gradients judged without a tolerance")
    group.addoption("--gradients-json", type=Path, metavar="PATH", help="write every report of the run as JSON there")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the summary."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(*dtypes): run the test on each registered backend, as 'gradient_backend'; in float64 if not told",
    )
    config.stash[_GRADIENTS] = Gradients()
    config.pluginmanager.register(_Summary(config), "gdcompare-summary")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send what the test has judged with pytest's own report of it, which also travels from worker processes."""
    result = yield
    noted = item.config.stash[_GRADIENTS].noted
    if call.when == "teardown" and noted:
        result.judged_gradients = [{"test": item.nodeid, **each} for each in noted]  # type: ignore[attr-defined]
        noted.clear()
    return result


class _Summary:
    """Collects the reports of all tests; one line in the terminal, and JSON where it is wanted."""

    def __init__(self, config: pytest.Config) -> None:
        path: Path | None = config.getoption("--gradients-json")
        self.path = None if path is None or hasattr(config, "workerinput") else path.absolute()
        self.reports: list[Judged] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports += getattr(report, "judged_gradients", [])

    def pytest_sessionfinish(self) -> None:
        if self.path is not None:
            from gdcompare.writing import write_text

            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps({"reports": self.reports}, indent=2) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.reports:
            terminalreporter.write_line(summary(self.reports))


def summary(reports: Sequence[Judged]) -> str:
    """Return in a line what was judged, how near the nearest came to its budget, and what could not have hidden.

    A run is as strong as its weakest comparison: the fault that it states is the largest of those that the comparisons
    state, at each dtype, and the digits are the fewest.

    >>> entry = {"implementation": "mine", "verdict": "agree", "budget_fraction": 0.1, "detectable": 2e-14}
    >>> entries = [entry | {"digits": 13, "grade": "proven"}, entry | {"digits": 14, "grade": "sampled"}]
    >>> summary([{"context": {"problem": "Line", "dtype": "float64"}, "entries": entries}])
    'gradients: 1 problem, 1 implementation, 2 comparisons: 2 agree; at most 0.1 of a budget used; a relative fault of \
2.0e-14 (float64) would have been caught; 13 digits (float64) checked, 1 comparison by sampled rounding'
    """
    entries = [(each["context"]["dtype"], entry) for each in reports for entry in each["entries"]]
    verdicts = Counter(entry["verdict"] for _, entry in entries)
    counts = [
        _count(len({each["context"]["problem"] for each in reports}), "problem"),
        _count(len({entry["implementation"] for _, entry in entries}), "implementation"),
        _count(len(entries), "comparison"),
    ]
    found = [f"{verdicts[verdict]} {verdict}" for verdict in ("agree", "wrong", "inconclusive") if verdicts[verdict]]
    parts = [f"gradients: {', '.join(counts)}: {', '.join(found)}"]
    decided = [(dtype, entry) for dtype, entry in entries if entry["verdict"] != "inconclusive"]
    if used := _numbers(entry["budget_fraction"] for _, entry in decided):
        parts.append(f"at most {max(used):.2g} of a budget used")
    powers = {}
    for dtype in sorted({dtype for dtype, _ in decided}):
        if faults := _numbers(entry["detectable"] for other, entry in decided if other == dtype):
            powers[dtype] = max(faults)
    if powers:
        stated = ", ".join(f"{power:.1e} ({dtype})" for dtype, power in powers.items())
        parts.append(f"a relative fault of {stated} would have been caught")
    checked = {dtype: min(entry["digits"] for other, entry in decided if other == dtype) for dtype in powers}
    if checked:
        sampled = sum(entry["grade"] == "sampled" for _, entry in decided)
        stated = ", ".join(f"{digits} digits ({dtype})" for dtype, digits in checked.items())
        how = f", {_count(sampled, 'comparison')} by sampled rounding" if sampled else ""
        parts.append(f"{stated} checked{how}")
    return "; ".join(parts)


def _numbers(values: Iterable[float | str]) -> list[float]:
    """Return the values that are numbers: in a report as plain values, NaN and infinity are words."""
    return [number for number in map(float, values) if not math.isnan(number)]


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
