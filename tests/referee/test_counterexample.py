"""Counterexamples are as small as can be, and their scripts fail as long as something is wrong, and no longer."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.authoring.faults import FAULTS, by_hand
from gdcompare.own_files import from_file
from gdcompare.referee.counterexample import counterexample
from gdcompare.referee.reproduction import Counterexample
from tests.planes import Planes, three_planes

pytest.importorskip("hypothesis", reason="counterexamples are shrunk by hypothesis")

LINEAR = gdc.load_problem("linear-regression")
LOGISTIC = gdc.load_problem("logistic-regression")


def plane(n: int = 24, d: int = 3, labels: bool = False) -> gdc.Dataset:
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(n, d)), generator.normal(size=n)
    return gdc.Dataset(features, targets > 0 if labels else targets)


def found(
    implementation: Any, problem: gdc.Problem = LINEAR, data: gdc.Dataset | None = None, **options: Any
) -> Counterexample:
    """Return the counterexample, which there must be."""
    example = counterexample(problem, implementation, data or plane(), **options)
    assert example is not None
    return example


def run(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    path.write_text(script)
    command = [sys.executable, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=path.parent)  # noqa: S603


def outcome(script: str) -> object:
    """Run the script here; return with what it exits or what it raises, or None if it ends well."""
    try:
        exec(compile(script, "script.py", "exec"), {})  # noqa: S102 - that is what it is for
    except (SystemExit, RuntimeError) as error:
        return error.args[0]
    return None


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("fault", "shape", "targets"),
    [
        ("flipped sign", (1, 1), [1.0]),
        ("one component times 1 + 1e-9", (1, 1), [1.0]),
        ("sum for mean", (2, 1), [0.0, 1.0]),
        ("dropped last sample", (2, 1), [0.0, 1.0]),
        ("wrong axis, shifted by one", (1, 2), [1.0]),
        ("NaN in one component", (1, 1), [0.0]),
        ("an extra axis", (1, 1), [0.0]),
    ],
)
def test_a_planted_fault_shrinks_to_the_fewest_samples_and_features(
    fault: str, shape: tuple[int, int], targets: list[float]
) -> None:
    example = found(FAULTS[fault](by_hand(LINEAR)))

    assert example.features.shape == shape
    assert example.targets.tolist() == targets
    assert not any(value.any() for value in example.params.values())
    assert example.report.verdict == "wrong"


@pytest.mark.thorough
def test_values_are_simple_even_where_float32_inside_float64_needs_fractions() -> None:
    example = found(FAULTS["float32 inside float64"](by_hand(LINEAR)))

    numbers = [*example.params["theta_1"], float(example.params["theta_0"]), *example.features[0], *example.targets]
    assert example.features.shape == (1, 1)
    assert max(len(repr(float(number))) for number in numbers) == 3  # such as 0.1


@pytest.mark.thorough
def test_in_float32_the_point_is_one_of_float32() -> None:
    example = found(FAULTS["extra term (weight decay)"](by_hand(LINEAR)), dtype="float32")

    arrays = [*example.params.values(), example.features, example.targets]
    assert {array.dtype for array in arrays} == {np.dtype("float32")}
    assert example.features.shape == (1, 1)


@pytest.mark.thorough
def test_labels_stay_labels() -> None:
    example = found(FAULTS["sum for mean"](by_hand(LOGISTIC)), LOGISTIC, plane(labels=True))

    assert example.features.shape == (2, 1)
    assert set(example.targets) <= {0.0, 1.0}


@pytest.mark.thorough
def test_matrices_of_parameters_and_targets_shrink_with_the_data() -> None:
    data, params = three_planes()

    example = found(FAULTS["flipped sign"](by_hand(Planes())), Planes(), data, params=params)

    assert (example.features.shape, example.targets.shape) == ((1, 1), (1, 1))
    assert {name: value.shape for name, value in example.params.items()} == {"slopes": (1, 1), "intercepts": (1,)}


@pytest.mark.thorough
def test_a_fault_of_one_row_and_one_column_is_cut_out_of_many() -> None:
    features = plane(100, 5).features.copy()
    features[77, 3] = 1e6

    def overflowing(params: Any, features: Any, targets: Any) -> Any:
        loss, gradient = by_hand(LINEAR)(params, features, targets)
        return loss, gradient if features.max() < 1e5 else gradient | {"theta_0": gradient["theta_0"] * (1 + 1e-3)}

    example = found(overflowing, data=gdc.Dataset(features, np.ones(100)))

    assert example.features.tolist() == [[1e6]]


@pytest.mark.thorough
def test_one_failure_does_not_shrink_into_another() -> None:
    def fragile(params: Any, features: Any, targets: Any) -> Any:
        if len(features) < 3:
            raise ValueError("too few rows")
        return FAULTS["flipped sign"](by_hand(LINEAR))(params, features, targets)

    example = found(fragile)

    assert len(example.features) == 3
    assert {entry.parameter for entry in example.report.entries if entry.verdict == "wrong"} <= {"theta_0", "theta_1"}


def test_what_is_right_has_no_counterexample() -> None:
    assert counterexample(LINEAR, by_hand(LINEAR), plane()) is None
    assert counterexample("logistic-regression", "numpy", plane(labels=True)) is None


@pytest.mark.thorough
def test_the_same_search_finds_the_same_point() -> None:
    one, other = (found(FAULTS["factor 2"](by_hand(LOGISTIC)), LOGISTIC, plane(labels=True)) for _ in range(2))

    np.testing.assert_equal((one.params, one.features, one.targets), (other.params, other.features, other.targets))


@pytest.mark.thorough
def test_the_time_is_kept_and_what_was_found_by_then_is_returned() -> None:
    def slow(params: Any, features: Any, targets: Any) -> Any:
        time.sleep(0.05)
        return FAULTS["flipped sign"](by_hand(LINEAR))(params, features, targets)

    begun = time.monotonic()
    unshrunk, shrunk_a_little = found(slow, seconds=0), found(slow, seconds=0.5)

    assert time.monotonic() - begun < 3
    assert len(unshrunk.features) == 24
    assert len(shrunk_a_little.features) < 24


def test_without_hypothesis_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)

    with pytest.raises(ImportError, match=r"a counterexample needs 'hypothesis': pip install 'gdcompare\[test\]'"):
        counterexample(LINEAR, by_hand(LINEAR), plane())


# Scripts.

USERS_FILE = """\
from __future__ import annotations

import numpy as np
from numpy.linalg import norm

from gdcompare import load_problem
from gdcompare.authoring.faults import FAULTS, by_hand

HALF = 0.5
correct = by_hand(load_problem("linear-regression"))


def residuals(params, features, targets):
    return params["theta_0"] + features @ params["theta_1"] - targets


def summed(params: dict[str, np.ndarray], features, targets, scale=4 * HALF):
    r = residuals(params, features, targets)
    return norm(r) ** 2 / len(r), {"theta_0": np.sum(r) * scale, "theta_1": r @ features * scale}


def raising(params, features, targets):
    if len(features) > 1:
        raise RuntimeError("out of luck")
    return correct(params, features, targets)


def greedy(params, features, targets):
    answer = correct(params, features, targets)
    features += 1
    return answer


def vector_loss(params, features, targets):
    _, gradient = correct(params, features, targets)
    return residuals(params, features, targets) ** 2, gradient


def off_in_the_loss(params, features, targets):
    loss, gradient = correct(params, features, targets)
    return loss * (1 + 1e-9), gradient


stale = FAULTS["stale accumulation"](correct)
not_a_number = FAULTS["NaN in one component"](correct)
half_precision = FAULTS["lower dtype"](correct)
missing = FAULTS["a parameter missing"](correct)
"""


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    path = tmp_path / "users.py"
    path.write_text(USERS_FILE)
    return path


def script_of(path: Path, name: str, seconds: float = 0.3) -> str:
    origin = f"{path}:{name}"
    mine = from_file(origin)
    return found(mine, data=gdc.datasets.noisy_line(), seconds=seconds, name="mine", origin=origin).script()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("stale", "mine is wrong: theta_0"),
        ("not_a_number", "mine is wrong: theta_0"),
        ("half_precision", "mine is wrong: theta_0"),
        ("missing", "mine is wrong: theta_0"),
        ("raising", "out of luck"),
        ("greedy", "mine is wrong: loss"),
        ("vector_loss", "mine is wrong: loss"),
        ("off_in_the_loss", "mine is wrong: loss"),
        ("summed", "mine is wrong: theta_0"),
    ],
)
def test_the_script_of_a_wrong_function_fails_until_it_is_mended(users_file: Path, name: str, error: str) -> None:
    script = script_of(users_file, name)

    mended = users_file.with_name("mended.py")
    mended.write_text(f"{USERS_FILE}\n{name} = correct\n")
    mended_script = script.replace("users.py", "mended.py")
    if f"def {name}(" in script:
        mended_script = script.replace("* scale", "* scale / len(r)")

    assert outcome(script) == error
    assert outcome(mended_script) is None


@pytest.mark.thorough
def test_a_functions_own_source_stands_in_the_script_and_needs_numpy_alone(users_file: Path, tmp_path: Path) -> None:
    script = script_of(users_file, "summed", seconds=10)
    users_file.unlink()

    wrong = run(script, tmp_path / "script.py")
    mended = run(script.replace("* scale", "* scale / len(r)"), tmp_path / "script.py")

    assert "from gdcompare" not in script
    assert "import gdcompare" not in script
    assert (wrong.returncode, wrong.stderr) == (1, "mine is wrong: theta_0\n")
    assert "is -2.0, truly -1.0" in wrong.stdout
    assert (mended.returncode, mended.stderr) == (0, "")


@pytest.mark.thorough
def test_a_script_is_short(users_file: Path) -> None:
    body = script_of(users_file, "stale").partition("def reproduce")[2]

    assert len(body.splitlines()) <= 20


HALVED = """\
from dataclasses import dataclass

from gdcompare import Problem


@dataclass(frozen=True)
class Halved(Problem):
    half: float = 0.5

    def parameter_shapes(self, data):
        return {"w": data.features.shape[1:]}

    def per_sample_losses(self, xp, params, features, targets):
        residuals = features @ params["w"] - targets
        return residuals * residuals

    def per_sample_gradients(self, xp, params, features, targets):
        return {"w": 2 * self.half * (features @ params["w"] - targets)[:, None] * features}

    def value_and_gradient(self, xp, params, features, targets):
        residuals, n = features @ params["w"] - targets, features.shape[0]
        return residuals @ residuals / n, {"w": residuals @ features * (2 * self.half / n)}
"""


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_script_of_a_wrong_backend_fails_until_its_formula_is_mended(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "halved.py"
    path.write_text(HALVED)

    script = found("numpy", gdc.load_problem(f"{path}:Halved"), dtype=dtype).script()
    mended = script.replace("Halved(half=0.5)", "Halved(half=1.0)")

    assert outcome(script) == "numpy is wrong: w[0]"
    assert outcome(mended) is None
    assert f"NumpyBackend(dtype='{dtype}', device=None)" in script


@pytest.mark.thorough
def test_a_backend_may_write_its_part_of_the_script_itself(tmp_path: Path) -> None:
    class Terse:
        name, dtype, by_hand = "terse", "float64", True
        asarray = to_numpy = staticmethod(np.asarray)

        def value_and_grad(self, problem: gdc.Problem, reduction: str = "mean") -> Any:
            return FAULTS["flipped sign"](by_hand(problem))

        def script(self, problem: gdc.Problem) -> str:
            return "def implementation(params, features, targets):\n    return 1, {'theta_0': 2.0, 'theta_1': [0.0]}\n"

    script = found(Terse()).script()

    assert "gdcompare " in script  # in the heading, and nowhere else
    assert "import gdcompare" not in script
    assert outcome(script) == "terse is wrong: theta_0"


def test_a_function_made_inside_another_needs_a_place_where_it_is_found() -> None:
    with pytest.raises(ValueError, match=r"a script cannot reach '.*faulty': define it at the top level of a file"):
        found(FAULTS["flipped sign"](by_hand(LINEAR)), seconds=0).script()


@pytest.mark.thorough
def test_weights_that_are_ignored_shrink_to_two_rows_that_differ_in_weight() -> None:
    data = gdc.Dataset(np.linspace(-1, 2, 24).reshape(12, 2), np.arange(12.0), weights=np.arange(12.0))

    found = counterexample("linear-regression", ignores_weights, data)

    assert found is not None
    assert found.features.shape == (2, 1)
    assert found.weights is not None
    assert found.weights[0] != found.weights[1]
    assert str(outcome(found.script())).startswith("ignores_weights is wrong: theta_")


def ignores_weights(params: Any, features: Any, targets: Any, weights: Any) -> Any:
    residuals = params["theta_0"] + features @ params["theta_1"] - targets
    return None, {"theta_0": 2 * residuals.mean(), "theta_1": 2 * residuals @ features / len(targets)}
