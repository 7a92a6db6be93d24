"""Every registered backend does what a backend has to do; one that is broken in one way fails at its own check."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner

from gdcompare import Backend, load_backend
from gdcompare.authoring.conformance import Conformance, check_backend
from gdcompare.authoring.conformance_checks import CHECKS, MEMBERS
from gdcompare.backend import Precision
from gdcompare.cli import commands
from gdcompare.registry import approximation_names
from tests.marking import on_variants

REFEREE = "the referee agrees on every problem"
LAWS = "the batch laws hold"


@pytest.fixture(scope="session")
def conformance(backend_name: str) -> Conformance:
    return check_backend(backend_name, problems=["logistic-regression"])


@pytest.mark.thorough
@on_variants
def test_every_registered_backend_conforms(conformance: Conformance) -> None:
    assert conformance, str(conformance)
    assert conformance.refused == {}


def test_a_backend_conforms_by_name_by_class_and_by_instance() -> None:
    backend = load_backend("numpy", "float32", device="cpu")

    found = [check_backend(each, problems=[]) for each in ("numpy", type(backend), backend)]

    assert [each.backend for each in found] == ["numpy", "NumpyBackend", "numpy"]
    assert all(found)


@pytest.mark.thorough
@pytest.mark.parametrize("name", approximation_names())
def test_an_approximation_fails_before_the_referee_or_nowhere(name: str) -> None:
    found = check_backend(name, problems=["logistic-regression"])

    assert found.failing == ([REFEREE] if name == "finite-differences" else [])


# One way to be broken each

Whole = tuple[Any, dict[str, Any]]


@dataclass(frozen=True)
class Right:
    """A backend that conforms: the one by hand."""

    dtype: Precision = "float64"
    device: str | None = None
    name: ClassVar[str] = "right"
    xp: ClassVar[Any] = np
    by_hand: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.by_numpy  # noqa: B018 - it refuses what it has not

    @property
    def by_numpy(self) -> Backend[Any]:
        return load_backend("numpy", self.dtype, self.device)

    def asarray(self, values: Any) -> Any:
        return self.by_numpy.asarray(values)

    def to_numpy(self, array: Any) -> Any:
        return np.asarray(array)

    def value_and_grad(self, problem: Any, reduction: Any = "mean") -> Any:
        return self.by_numpy.value_and_grad(problem, reduction)

    def per_sample_grad(self, problem: Any, reduction: Any = "mean") -> Any:
        return self.by_numpy.per_sample_grad(problem, reduction)

    def scan(self, step: Any) -> Any:
        return self.by_numpy.scan(step)


@pytest.mark.thorough
def test_the_backend_that_the_broken_ones_are_made_from_conforms() -> None:
    assert check_backend(Right, problems=["linear-regression"])


def whole(change: Callable[[Any, Any, dict[str, Any]], Whole]) -> Any:
    """A `value_and_grad` whose result is changed: change(features, loss, gradient)."""

    def value_and_grad(self: Right, problem: Any, reduction: Any = "mean") -> Any:
        function = self.by_numpy.value_and_grad(problem, reduction)

        def changed(params: Any, features: Any, targets: Any, weights: Any = None) -> Whole:
            return change(features, *function(params, features, targets, weights))

        return changed

    return value_and_grad


def gradient(change: Callable[[Any], Any]) -> Any:
    return whole(lambda features, loss, gradient: (loss, {name: change(each) for name, each in gradient.items()}))


def rows(change: Callable[[Any], Any]) -> Any:
    """A `per_sample_grad` whose arrays are changed."""

    def per_sample_grad(self: Right, problem: Any, reduction: Any = "mean") -> Any:
        function = self.by_numpy.per_sample_grad(problem, reduction)

        def changed(params: Any, features: Any, targets: Any, weights: Any = None) -> Any:
            return {name: change(each) for name, each in function(params, features, targets, weights).items()}

        return changed

    return per_sample_grad


def called(before: Callable[..., tuple[Any, ...]]) -> Any:
    """A `value_and_grad` whose arguments are changed."""

    def value_and_grad(self: Right, problem: Any, reduction: Any = "mean") -> Any:
        function = self.by_numpy.value_and_grad(problem, reduction)

        def changed(params: Any, features: Any, targets: Any, weights: Any = None) -> Any:
            return function(*before(params, features, targets, weights))

        return changed

    return value_and_grad


def without_weights(self: Right, problem: Any, reduction: Any = "mean") -> Any:
    function = self.by_numpy.value_and_grad(problem, reduction)
    return lambda params, features, targets: function(params, features, targets)


def scanned(change: Callable[[Any, Any], Any], inputs: slice = slice(None)) -> Any:
    def scan(self: Right, step: Any) -> Any:
        run = self.by_numpy.scan(step)
        return lambda state, given, constants: change(*run(state, tuple(each[inputs] for each in given), constants))

    return scan


def quarters(value: Any) -> Any:
    """The numbers that most checks are about: sums of whole numbers over 4 rows."""
    return 4 * value == np.round(4 * value)


def noisy(value: Any, calls: Iterable[int] = itertools.count()) -> Any:
    """Another last bit at every call."""
    up = np.inf if next(iter(calls)) % 3 else -np.inf
    return np.where(quarters(value), value, np.nextafter(value, np.asarray(up, np.asarray(value).dtype)))


def forget(params: Any, *others: Any) -> tuple[Any, ...]:
    kept = dict(params)
    params.clear()
    return kept, *others


def spoil(params: Any, features: Any, *others: Any) -> tuple[Any, ...]:
    kept = features.copy()
    features[...] = 0
    return params, kept, *others


def shaken(*arguments: Any) -> tuple[Any, ...]:
    np.random.rand()  # noqa: NPY002 - that is the fault
    return arguments


def deafened(*arguments: Any) -> tuple[Any, ...]:
    random.random()  # noqa: S311 - no cryptography
    return arguments


def failing(*arguments: Any) -> tuple[Any, ...]:
    raise RuntimeError("no such operation\nat all")


def in_memory_order(self: Right, array: Any) -> Any:
    return np.asarray(array).ravel(order="K").reshape(np.shape(array))


VALUE = "a value: equal, hashable, frozen"
RESULTS = "shapes and dtype"
BROKEN: dict[str, tuple[Mapping[str, Any], str]] = {
    "has no scan": ({"scan": property()}, "members"),
    "has no name and no dtype": ({"name": property(), "dtype": property()}, "members"),
    "knows one reduction": (
        {"value_and_grad": lambda self, problem: self.by_numpy.value_and_grad(problem)},
        "signatures",
    ),
    "knows no weights": (
        {"value_and_grad": without_weights},
        "signatures",
    ),
    "cannot be hashed": ({"__hash__": None}, VALUE),
    "is never equal": ({"__eq__": lambda self, other: self is other, "__hash__": lambda self: 0}, VALUE),
    "is equal in all dtypes": ({"__eq__": lambda self, other: True, "__hash__": lambda self: 0}, VALUE),
    "can be overwritten": ({"__setattr__": object.__setattr__}, VALUE),
    "takes any dtype": ({"__post_init__": lambda self: None}, "refusals"),
    "loses float32": ({"asarray": lambda self, values: load_backend("numpy").asarray(values)}, "asarray"),
    "makes integers floats": ({"asarray": lambda self, values: np.array(values, self.dtype)}, "asarray"),
    "has no 0-d arrays": ({"asarray": lambda self, values: np.atleast_1d(self.by_numpy.asarray(values))}, "asarray"),
    "shares memory": (
        {"asarray": lambda s, v: np.asarray(v, None if np.asarray(v).dtype.kind == "i" else s.dtype)},
        "asarray",
    ),
    "reads memory in another order": ({"to_numpy": in_memory_order}, "to_numpy"),
    "sorts the names": (
        {"value_and_grad": whole(lambda features, loss, gradient: (loss, dict(sorted(gradient.items()))))},
        "names in order",
    ),
    "drops a name": (
        {"value_and_grad": whole(lambda features, loss, gradient: (loss, dict(list(gradient.items())[1:])))},
        "names in order",
    ),
    "raises": ({"value_and_grad": called(failing)}, "names in order"),
    "has a loss of shape (1,)": ({"value_and_grad": whole(lambda _, loss, gradient: (loss[None], gradient))}, RESULTS),
    "computes rows in float64": ({"per_sample_grad": rows(lambda each: each.astype(np.float64))}, RESULTS),
    "sums where it should average": (
        {"value_and_grad": whole(lambda x, loss, g: (loss * len(x), {k: v * len(x) for k, v in g.items()}))},
        "mean and not sum",
    ),
    "has 1/n in the rows": ({"per_sample_grad": rows(lambda each: each / len(each))}, "per-sample gradients"),
    "turns the rows round": ({"per_sample_grad": rows(lambda each: each[::-1])}, "per-sample gradients"),
    "has None for what is not used": (
        {"value_and_grad": gradient(lambda each: each if each.any() else None)},
        "an unused parameter has gradient 0",
    ),
    "drops the weights": ({"value_and_grad": called(lambda *arguments: arguments[:3])}, "weights"),
    "takes weight 0 for none": (
        {"value_and_grad": called(lambda *a: (*a[:3], None if a[3] is None else np.where(a[3] == 0, 1, a[3])))},
        "a row of weight 0 does not count",
    ),
    "does not sum": (
        {"value_and_grad": lambda self, problem, reduction="mean": self.by_numpy.value_and_grad(problem)},
        'reduction "sum"',
    ),
    "writes into its inputs": ({"value_and_grad": called(spoil)}, "inputs are left intact"),
    "empties the dict of parameters": ({"value_and_grad": called(forget)}, "inputs are left intact"),
    "differs from call to call": ({"value_and_grad": gradient(noisy)}, "calls repeat"),
    "loses the last step": ({"scan": scanned(lambda state, records: (state, records), slice(-1))}, "scan"),
    "loses the last record": ({"scan": scanned(lambda state, records: (state, [r[:-1] for r in records]))}, "scan"),
    "turns the records round": ({"scan": scanned(lambda state, records: (state, [r[::-1] for r in records]))}, "scan"),
    "records floats": ({"scan": scanned(lambda state, records: (state, [r * 1.0 for r in records]))}, "scan"),
    "draws from NumPy's global generator": ({"value_and_grad": called(shaken)}, "nothing global changes"),
    "draws from Python's global generator": ({"value_and_grad": called(deafened)}, "nothing global changes"),
    "is off by a thousandth": (
        {"value_and_grad": gradient(lambda g: np.where(quarters(g), g, g * 1.001))},
        REFEREE,
    ),
    "is wrong in batches of three": (
        {"value_and_grad": whole(lambda x, loss, g: (loss, {k: v * (3 if len(x) == 3 else 1) for k, v in g.items()}))},
        LAWS,
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("fault", BROKEN)
def test_a_backend_that_is_broken_in_one_way_fails_at_that_check_alone(fault: str) -> None:
    members, check = BROKEN[fault]
    broken = type("Broken", (Right,), dict(members))

    found = check_backend(broken, problems=["linear-regression"] if check in (REFEREE, LAWS) else [])

    assert found.failing == [check]
    assert not found
    (outcome,) = [each for each in found.outcomes if each.says == "fails"]
    assert outcome.finding
    assert outcome.mend


def test_every_check_has_a_backend_that_fails_at_it() -> None:
    assert {check for _, check in BROKEN.values()} == {check.name for check in CHECKS}


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("has no scan", "it lacks scan"),
        ("loses float32", "of array([ 1.5, -2. ], dtype=float32) has dtype float64, not float32 (float32)"),
        ("sums where it should average", "value_and_grad: loss is 200.0, not 50.0, 4 times it"),
        ("drops a name", "value_and_grad returns offset, not slopes, offset"),
        ("raises", "it raised RuntimeError: no such operation"),
        ("draws from NumPy's global generator", "a call changes NumPy's global random state"),
    ],
)
def test_a_finding_says_what_was_seen(fault: str, finding: str) -> None:
    members, check = BROKEN[fault]

    found = check_backend(type("Broken", (Right,), dict(members)), problems=[])

    assert [each.finding for each in found.outcomes if each.check == check] == [finding]


def test_an_abstract_member_that_is_not_written_is_named() -> None:
    class Unfinished(Right, Backend[Any]):
        scan = Backend.scan  # abstract

    found = check_backend(Unfinished, problems=[])

    assert found.failing == ["members"]
    assert "'scan'" in found.outcomes[0].finding or "method scan" in found.outcomes[0].finding
    assert {each.says for each in found.outcomes[1:]} == {"not run"}


def test_a_dtype_that_is_refused_is_no_failure() -> None:
    class Single(Right):
        def __post_init__(self) -> None:
            super().__post_init__()
            if self.dtype == "float64":
                raise ValueError("Single has no float64: its framework computes exp in float32")

    found = check_backend(Single, problems=[])

    assert found, str(found)
    assert found.refused == {"float64": "Single has no float64: its framework computes exp in float32"}


def test_all_members_are_those_of_the_seam() -> None:
    own = {name for name in vars(Backend) if not name.startswith("_")} - {"by_hand", "variants"}

    assert set(MEMBERS) == own | {"name", "xp"}


# On the command line

FILE = """
from gdcompare_numpy import NumpyBackend as Whole

class Odd:
    def __init__(self, dtype="float64", device=None):
        self.dtype = dtype
"""


@pytest.fixture
def backend_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_check_backend_names_what_is_missing_and_how_to_mend_it(backend_file: Path) -> None:
    answer = CliRunner().invoke(commands, ["check-backend", f"{backend_file}:Odd", "--json", "-"])

    said = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert not said["conforms"]
    assert (
        said["outcomes"][0]["finding"] == "it lacks name, xp, asarray, to_numpy, value_and_grad, per_sample_grad, scan"
    )
    assert "inherit gdcompare.backend.Backend" in answer.stderr


def test_an_unknown_backend_is_no_finding() -> None:
    with pytest.raises(LookupError, match=r"^unknown backend 'tensor'"):
        check_backend("tensor")
