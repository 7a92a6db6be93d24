"""Built-in data are what they say, files come back as they were written, and bad ones are refused by name."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

import gdcompare
from gdcompare import Dataset, Problem, datasets, load_problem, problem_names
from gdcompare.problem import check_targets
from tests.refusal import refusal

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TABLES = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6), elements=FINITE)
FILES = settings(max_examples=50, deadline=None)  # a disk may be slow
WAY_OUT = "every cell must be a finite number: encode it, fill it, or drop its row or column"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


# The noisy line


def test_noisy_line_is_the_seeds_data_bit_for_bit() -> None:
    state = np.random.get_state()  # noqa: NPY002 - the seed draws from the global generator
    np.random.seed(45)  # noqa: NPY002
    x = np.random.uniform(-1, 1, 40)  # noqa: NPY002
    y = 3 * x + 4 + np.random.randn(40)  # noqa: NPY002
    np.random.set_state(state)  # noqa: NPY002

    data = datasets.noisy_line()

    np.testing.assert_array_equal(data.features, x[:, None], strict=True)
    np.testing.assert_array_equal(data.targets, y, strict=True)


def test_the_exact_gradient_on_the_noisy_line_is_the_seeds() -> None:
    data = datasets.noisy_line()
    x = [Fraction(value) for value in data.features[:, 0].tolist()]
    residuals = [1 - Fraction(value) for value in data.targets.tolist()]  # theta_0 = 1, theta_1 = 0

    by_theta_0 = sum(2 * r for r in residuals) / 40
    by_theta_1 = sum(2 * r * x_i for r, x_i in zip(residuals, x, strict=True)) / 40

    assert (float(by_theta_0), float(by_theta_1)) == (-5.447053920097925, -1.1946826098562093)


def test_noisy_line_follows_its_slope_and_intercept() -> None:
    steep = datasets.noisy_line(samples=7, seed=1, slope=-10.0, intercept=2.0)
    noise = datasets.noisy_line(samples=7, seed=1, slope=0.0, intercept=0.0)

    np.testing.assert_array_equal(steep.features, noise.features)
    np.testing.assert_allclose(steep.targets, -10 * noise.features[:, 0] + 2 + noise.targets, rtol=1e-14)
    assert repr(steep) == "Dataset('noisy-line', 7 rows, 1 feature)"


def test_noisy_line_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is what is watched

    datasets.noisy_line()

    np.testing.assert_equal(np.random.get_state(legacy=False), before)  # noqa: NPY002


@pytest.mark.parametrize("samples", [0, -1, 2.5])
def test_noisy_line_needs_a_sample(samples: Any) -> None:
    with refusal(ValueError, f"samples must be a whole number, 1 or more; not {samples}"):
        datasets.noisy_line(samples)


# Whole numbers


def test_integer_lattice_holds_whole_numbers_up_to_the_largest() -> None:
    data = datasets.integer_lattice(samples=64, features=5, seed=2, largest=3)

    assert data.features.shape == (64, 5)
    assert data.targets.shape == (64,)
    assert set(np.unique(data.features)) == set(np.unique(data.targets)) == set(range(-3, 4))


def test_integer_lattice_with_labels_has_both_labels() -> None:
    data = datasets.integer_lattice(labels=True)

    assert set(data.targets) == {0.0, 1.0}


def test_integer_lattice_is_decided_by_its_seed() -> None:
    one, again, other = (datasets.integer_lattice(seed=seed) for seed in (0, 0, 1))

    assert np.array_equal(one.features, again.features)
    assert np.array_equal(one.targets, again.targets)
    assert not np.array_equal(one.features, other.features)


@pytest.mark.thorough
@given(seed=st.integers(0, 1000), order=st.permutations(range(1024)), data=st.data())
@settings(max_examples=25)
def test_least_squares_on_the_integer_lattice_is_exact_in_float32_in_any_order(
    seed: int, order: list[int], data: st.DataObject
) -> None:
    lattice = datasets.integer_lattice(samples=1024, features=3, seed=seed)
    whole = data.draw(st.lists(st.integers(-4, 4), min_size=4, max_size=4))
    x, y = lattice.features.astype(np.int64), lattice.targets.astype(np.int64)
    residuals = whole[0] + x @ np.array(whole[1:]) - y  # in integers, so exact
    params = {"theta_0": np.float32(whole[0]), "theta_1": np.array(whole[1:], np.float32)}

    loss, gradient = load_problem("linear-regression").value_and_gradient(
        np, params, lattice.features[order].astype(np.float32), lattice.targets[order].astype(np.float32)
    )

    assert loss.dtype == np.float32
    assert Fraction(float(loss)) == Fraction(int(residuals @ residuals), 1024)
    assert Fraction(float(gradient["theta_0"])) == Fraction(int(2 * residuals.sum()), 1024)
    assert [Fraction(slope) for slope in gradient["theta_1"].tolist()] == [
        Fraction(int(total), 1024) for total in 2 * residuals @ x
    ]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"samples": 40},
            "samples must be a power of two, so that dividing by it is exact; not 40: take 32 or 64",
        ),
        ({"samples": 0}, "samples must be a whole number, 1 or more; not 0"),
        ({"features": 0}, "features must be a whole number, 1 or more; not 0"),
        ({"largest": 0.5}, "largest must be a whole number, 1 or more; not 0.5"),
        (
            {"samples": 8192},
            "sums may reach 25690112, and float32 is exact only up to 16777216; "
            "take fewer samples or features, or a smaller largest",
        ),
    ],
)
def test_integer_lattice_refuses_sizes_that_are_not_exact(sizes: dict[str, Any], message: str) -> None:
    with refusal(ValueError, message):
        datasets.integer_lattice(**sizes)


# Real data


@pytest.mark.thorough
def test_diabetes_is_standardised_unless_asked_as_measured() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn bundles the data")

    data, measured = datasets.diabetes(), datasets.diabetes(standardised=False)

    assert measured.features[0].tolist() == [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]
    assert measured.targets[0] == 151
    np.testing.assert_array_equal(data.features, datasets.standardise(measured).features)
    np.testing.assert_array_equal(data.targets, measured.targets)
    assert (data.features.shape, data.name) == ((442, 10), "diabetes")


def test_breast_cancer_is_labelled_one_where_benign() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn bundles the data")

    data, measured = datasets.breast_cancer(), datasets.breast_cancer(standardised=False)

    assert measured.features[0, :4].tolist() == [17.99, 10.38, 122.8, 1001]
    np.testing.assert_array_equal(data.features, datasets.standardise(measured).features)
    assert np.unique_counts(data.targets).counts.tolist() == [212, 357]
    assert (data.features.shape, data.name) == ((569, 30), "breast-cancer")


def test_digits_are_pixels_from_0_to_1_in_sixteenths() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn bundles the data")

    data = datasets.digits()

    assert (16 * data.features[0, :8]).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert set(np.unique(16 * data.features)) == set(range(17))
    assert np.unique_counts(data.targets).counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (data.features.shape, data.name) == ((1797, 64), "digits")


def test_wine_is_of_three_growers() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn bundles the data")

    data, measured = datasets.wine(), datasets.wine(standardised=False)

    assert measured.features[0, :4].tolist() == [14.23, 1.71, 2.43, 15.6]
    np.testing.assert_array_equal(data.features, datasets.standardise(measured).features)
    assert np.unique_counts(data.targets).counts.tolist() == [59, 71, 48]
    assert (data.features.shape, data.name) == ((178, 13), "wine")


@pytest.mark.parametrize("name", ["breast-cancer", "diabetes", "digits", "wine"])
def test_bundled_data_without_scikit_learn_say_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)

    with refusal(ImportError, f"data set '{name}' needs 'scikit-learn': pip install 'gdcompare[data]'"):
        datasets.load(name)


def test_a_broken_scikit_learn_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr(importlib, "import_module", import_module)

    with refusal(ModuleNotFoundError, "No module named 'scipy'"):
        datasets.diabetes()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("program", "loaded"),
    [("import gdcompare.data.builtin", "[]"), ("import gdcompare.data.builtin, colorsys", "['colorsys']")],
    ids=["datasets alone", "the test can fail"],
)
def test_importing_datasets_loads_no_reader(program: str, loaded: str) -> None:
    look = "; import sys; print(sorted({'colorsys', 'pyarrow', 'sklearn'} & set(sys.modules)))"

    answer = subprocess.run(  # noqa: S603 - the program is written above
        [sys.executable, "-c", program + look], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == loaded


# Standardising


@given(features=TABLES)
def test_standardised_features_have_mean_0_and_deviation_1(features: NDArray[np.float64]) -> None:
    data = Dataset(features, features[:, 0], name="any")
    given_bytes = features.tobytes()
    constant = (features == features[0]).all(axis=0)

    result = datasets.standardise(data)

    np.testing.assert_allclose(result.features.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(result.features.std(axis=0), np.where(constant, 0, 1), rtol=1e-14)
    assert not result.features[:, constant].any()
    assert features.tobytes() == given_bytes
    assert (result.targets is data.targets, result.name) == (True, "any")


def test_standardise_agrees_with_paper() -> None:
    data = Dataset([[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]], [0.0, 0.0, 0.0])

    result = datasets.standardise(data)

    np.testing.assert_allclose(result.features, [[-np.sqrt(1.5), 0], [0, 0], [np.sqrt(1.5), 0]], rtol=1e-15)


# Targets as a problem takes them


@given(st.permutations(range(5)))
def test_one_hot_rows_name_the_class_of_each_sample(classes: list[int]) -> None:
    data = Dataset(np.arange(5.0), classes, name="five", weights=np.arange(5.0))

    hot = datasets.one_hot(data)

    assert hot.targets.argmax(axis=1).tolist() == classes
    assert hot.targets.sum(axis=1).tolist() == [1] * 5
    assert hot.features is data.features
    assert (hot.name, hot.weights.tolist() if hot.weights is not None else None) == ("five", [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("classes", "row", "value", "missing"),
    [([1, 2], 0, "1", 0), ([0, 2, 1.5], 2, "1.5", 1), ([0, -1], 1, "-1", 0), ([0, 1, 5], 2, "5", 2)],
)
def test_one_hot_refuses_what_numbers_no_classes(classes: list[float], row: int, value: str, missing: int) -> None:
    where = f"in row {row} of 'data' {value} stands for class {missing}"

    with refusal(ValueError, f"classes must be numbered 0, 1, 2, ..., none left out, but {where}"):
        datasets.one_hot(Dataset(np.zeros(len(classes)), classes))


def test_one_hot_refuses_targets_that_already_are() -> None:
    with refusal(ValueError, "classes to make one-hot must have shape (n,), but 'data' has (2, 2)"):
        datasets.one_hot(Dataset([1.0, 2.0], np.eye(2)))


@final
@dataclass(frozen=True)
class Several(Problem):
    """Several targets for each sample."""

    target_dimensions = 2

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        return {"means": data.targets.shape[1:]}

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        return xp.sum((targets - params["means"]) ** 2, axis=1)


def test_suited_data_have_the_targets_that_the_problem_takes() -> None:
    line, labels = Dataset([1.0, 2.0], [3.0, 4.0]), Dataset([1.0, 2.0], [0.0, 1.0])
    softmax = load_problem("softmax-regression")

    assert datasets.suited(load_problem("linear-regression"), line) is line
    assert datasets.suited(Several(), line).targets.tolist() == [[3], [4]]
    assert datasets.suited(softmax, labels).targets.tolist() == [[1, 0], [0, 1]]
    assert datasets.suited(softmax, datasets.one_hot(labels)).targets.tolist() == [[1, 0], [0, 1]]


def test_an_example_suits_its_problem() -> None:
    for problem in [Several(), *map(load_problem, problem_names())]:
        check_targets(problem, datasets.example(problem))


# Names


def test_every_name_loads_data_of_that_name() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn bundles two of the data sets")

    loaded = [datasets.load(name).name for name in datasets.names()]

    assert (
        loaded == datasets.names() == ["breast-cancer", "diabetes", "digits", "integer-lattice", "noisy-line", "wine"]
    )


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rent.csv"
    path.write_text("area,rent\n30,500\n60,900\n")

    by_path, by_text = datasets.load(path, target="rent"), datasets.load(str(path), target="rent")

    assert by_path.features.tolist() == by_text.features.tolist() == [[30], [60]]
    assert by_path.name == "rent.csv"


def test_load_refuses_what_is_neither_a_name_nor_a_file() -> None:
    message = (
        "unknown data 'noisy'; known: breast-cancer, diabetes, digits, integer-lattice, noisy-line, wine; "
        "or a .csv, .npz or .parquet file; did you mean 'noisy-line'?"
    )

    with refusal(LookupError, message):
        datasets.load("noisy")


def test_load_refuses_a_target_for_built_in_data() -> None:
    with refusal(ValueError, "'noisy-line' is built in and has its own targets; target='y' is for files"):
        datasets.load("noisy-line", target="y")


@pytest.mark.parametrize("load", [datasets.load, datasets.read])
def test_a_missing_file_is_named(load: Any) -> None:
    with refusal(LookupError, "there is no file 'nowhere.parquet'"):
        load("nowhere.parquet")


@pytest.mark.parametrize("load", [datasets.load, datasets.read])
def test_an_unknown_ending_is_named(load: Any, tmp_path: Path) -> None:
    path = tmp_path / "table.xls"
    path.touch()

    with refusal(ValueError, f"unknown file ending '.xls' in '{path}'; known: .csv, .npz, .parquet"):
        load(path)


def test_code_without_a_name_in_it_is_told_how_to_name_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.touch()

    with refusal(ValueError, f"'{path}' is code: say which of its names is meant, {path}:NAME"):
        gdcompare.verify("linear-regression", path)


# Weights


@pytest.mark.parametrize("ending", [".csv", ".npz", ".parquet"])
def test_a_column_of_weights_is_no_feature(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"weighted{ending}"
    columns = {"x": [1.0, 2.0], "count": [3.0, 1.0], "target": [5.0, 6.0]}
    if ending == ".csv":
        path.write_text("x,count,target\n1,3,5\n2,1,6\n")
    elif ending == ".npz":
        np.savez(path, **columns)  # type: ignore[arg-type]
    else:
        arrow = pytest.importorskip("pyarrow", reason="reading .parquet needs pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.table(columns), path)

    data = datasets.load(path, "target", "count")

    assert data.features.tolist() == [[1.0], [2.0]]
    assert data.targets.tolist() == [5.0, 6.0]
    assert data.weights is not None
    assert data.weights.tolist() == [3.0, 1.0]


def test_unknown_weights_and_weights_for_built_in_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("x,target\n1,3\n")

    with pytest.raises(LookupError, match=r"'d\.csv' has no column 'w' for the weights; it has: x, target"):
        datasets.load(path, weights="w")
    with pytest.raises(ValueError, match="'noisy-line' is built in and has no weights; weights='w' is for files"):
        datasets.load("noisy-line", weights="w")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"weights must have shape \(2,\), one for each row, not \(1,\)"),
        ([1.0, -1.0], "weights must be finite, none negative, and not all zero"),
        ([0.0, 0.0], "weights must be finite, none negative, and not all zero"),
        ([1.0, float("nan")], "weights must be finite, none negative, and not all zero"),
        (["a", "b"], "weights must be real numbers in a rectangular array"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dataset([[1.0], [2.0]], [1.0, 2.0], weights=weights)
