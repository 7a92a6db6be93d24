"""How tests are marked: which must fail, as the table of lacks says, and which the quick loop leaves to the gate."""

from __future__ import annotations

import os
import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points

import pytest

from gdcompare import problem_names
from gdcompare.registry import how_to_install, registered_backends

from .lacks import FEATURES, LACKS, Lack

MARKERS = [
    "feature(*names): it tries these features, of tests/lacks.py, on each backend",
    "notyet: by tests/lacks.py the backend does not have it yet; the test must fail as is said there",
    "never: by tests/lacks.py the backend cannot have it; the test must fail as is said there",
    "thorough_on(*backends): on these backends it is thorough: others try the theorem in the quick loop",
    "one_in(n, backend): on this backend one of n runs before the soundness run: it is slow there",
    "covering: before the soundness run, only so many of its cases as have every value of every parameter",
]
VARIANTS = {
    "jax": ["jitted", "unjitted", "derived"],
    "torch": ["func", "compiled", "loop", "derived"],
}
"""The variants beside the default one, which nobody has to import a framework to know."""
ALL_VARIANTS = [f"{name}[{variant}]" for name, of_it in VARIANTS.items() for variant in of_it]
DUE = {"jax": 12, "torch": 6}
"""Of so many theorems on a variant, the gate tries one: what compiles, fewer."""
SLOW_VARIANTS = {"torch[compiled]"}
"""Those that compile for seconds."""
on_variants = pytest.mark.parametrize(
    "backend_name", [*registered_backends(), *ALL_VARIANTS], indirect=True, scope="session"
)
"""Let a theorem run on every variant, too: in the soundness run; those that `DUE` says, in the gate."""
HOUSE = {
    each.name
    for each in entry_points(group="gdcompare.backends")
    if each.dist is not None and each.dist.name == "gdcompare"
}
"""The backends that the table knows."""


def mark(items: Sequence[pytest.Item], lacks: Sequence[Lack] = LACKS) -> None:
    """Mark all tests that were collected; unknown names in the table or in a marker are a usage error."""
    check_names(lacks)
    for item in items:
        mark_features(item, lacks)
        leave_out(item)
    theorems = defaultdict(list)
    for item in items:
        theorems[re.sub(r"\[.*", "", item.nodeid, flags=re.DOTALL)].append(item)
    for cases in theorems.values():
        due = [item for item in cases if item.get_closest_marker("soundness") is None]
        if any(item.get_closest_marker("covering") for item in due):
            due = leave(due, "soundness")
        leave([item for item in due if item.get_closest_marker("thorough") is None], "thorough")


def leave(items: Sequence[pytest.Item], marker: str) -> list[pytest.Item]:
    """Mark all of a theorem's cases but few in which every value of every parameter occurs, and return these."""
    kept = each_choice(
        {item.nodeid: choices(item) for item in items},
        last={item.nodeid for item in items if not can_pass(item)},
    )
    for item in items:
        if item.nodeid not in kept:
            item.add_marker(marker)
    return [item for item in items if item.nodeid in kept]


# Features


def check_names(lacks: Iterable[Lack]) -> None:
    """Raise UsageError unless every row names a backend, a feature and problems that exist."""
    for lack in lacks:
        known("backend", lack.backend, registered_backends())
        known("feature", lack.feature, FEATURES)
        for problem in lack.problems:
            known("problem", problem, problem_names())


def known(kind: str, name: object, names: Collection[str]) -> None:
    if name not in names:
        raise pytest.UsageError(f"unknown {kind} {name!r}; known: {', '.join(names)}")


def mark_features(item: pytest.Item, lacks: Iterable[Lack]) -> None:
    """Expect the failure that the table tells, if the test's backend lacks one of the features that it tries."""
    names = [name for marker in item.iter_markers("feature") for name in marker.args]
    for name in names:
        known("feature", name, FEATURES)
    backend = parameter(item, "backend_name")
    if names and backend is None:
        raise pytest.UsageError(f"{item.nodeid}: marked with a feature, and runs on no backend in turn")
    if names and backend not in HOUSE:
        item.add_marker(pytest.mark.xfail(strict=False, reason=f"the table of lacks does not know {backend}"))
        return
    for lack in lacks:
        concerned = not lack.problems or parameter(item, "problem") in lack.problems
        if lack.backend == backend and lack.feature in names and concerned:
            item.add_marker(lack.kind)
            reason = f"{lack.kind}: {lack.backend} has no {lack.feature}: {lack.reason}"
            item.add_marker(pytest.mark.xfail(strict=True, raises=lack.raises, reason=reason))


def parameter(item: pytest.Item, name: str) -> object:
    """Return the value that a test has for a parameter of its own or of a fixture, None if it has none."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(name)


# The quick loop


def leave_out(item: pytest.Item) -> None:
    """Leave to the soundness run what `one_in` says, and to the gate what `thorough_on` and, of variants, `DUE` say."""
    if (name := parameter(item, "backend_name")) in ALL_VARIANTS:
        due = name not in SLOW_VARIANTS and shuffled(item.nodeid) % DUE[str(name).partition("[")[0]] == 0
        item.add_marker("thorough" if due else "soundness")
    for marker in item.iter_markers("thorough_on"):
        for backend in marker.args:
            known("backend", backend, registered_backends())
        if parameter(item, "backend_name") in marker.args:
            item.add_marker("thorough")
    for marker in item.iter_markers("one_in"):
        n, backend = marker.args
        known("backend", backend, registered_backends())
        if parameter(item, "backend_name") == backend and shuffled(item.nodeid) % n:
            item.add_marker("soundness")


def choices(item: pytest.Item) -> dict[str, Hashable]:
    """Return which values a test has, by identity: each parameter of a fixture, and each row of a table of cases."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return {}
    which = {name: id(value) for name, value in callspec.params.items()}
    tables = [
        re.split(r"\s*,\s*", args) if isinstance(args := marker.args[0], str) else args
        for marker in item.iter_markers("parametrize")
    ]
    rows = {",".join(names): tuple(which.pop(name) for name in names) for names in tables}
    return {**which, **rows}


def can_pass(item: pytest.Item) -> bool:
    """Whether it is neither skipped, for want of a framework, nor expected to fail."""
    backend = parameter(item, "backend_name")
    return not (isinstance(backend, str) and missing(backend)) and item.get_closest_marker("xfail") is None


@cache
def missing(backend: str) -> bool:
    """Whether the framework of a backend is not installed; a name that nobody registered is another matter."""
    return backend in registered_backends() and how_to_install(backend) is not None


def each_choice(cases: Mapping[str, Mapping[str, Hashable]], last: Iterable[str] = ()) -> set[str]:
    """Return few of the cases in which every value of every parameter still occurs.

    Of those that bring as many new values, chance decides, by the case's name, so that another theorem meets another
    combination. Those in `last` are taken where nothing else has a value.

    >>> cases = {f"{a}{b}{c}": {"a": a, "b": b, "c": c} for a in "xyz" for b in "01" for c in "01"}
    >>> len(cases), len(each_choice(cases))
    (12, 3)
    """
    kept: set[str] = set()
    seen: set[tuple[str, Hashable]] = set()
    for rank in (sorted(set(cases) - set(last), key=shuffled), sorted(set(last), key=shuffled)):
        left = {name: {*cases[name].items()} - seen for name in rank}
        while left := {name: new - seen for name, new in left.items() if new - seen}:
            name = max(left, key=lambda name: len(left[name]))
            kept.add(name)
            seen |= left[name]
    return kept | {name for name, case in cases.items() if not case}


def share(config: pytest.Config) -> None:
    """Run the whole suite in a process for each CPU, up to four, if pytest-xdist is there and `-n` does not say.

    Each process takes a stretch of the tests, so that what a file shares among its tests is mostly made once; one that
    is done takes some of another's.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not hasattr(config, "workerinput")
    options = config.option
    if whole and not options.usepdb and getattr(options, "numprocesses", 0) is None:
        options.numprocesses = min(os.cpu_count() or 1, 4)
    if getattr(options, "numprocesses", None) and options.dist == "no":
        options.dist = "worksteal"


def shuffled(name: str) -> int:
    """Return a number that is the same in every process, and without any order."""
    return zlib.crc32(name.encode())
