"""Three ways to differentiate, one gradient: by whatever backend, dtype, shape and scale, with weights or without."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gdcompare import (
    Backend,
    Dataset,
    Problem,
    datasets,
    load_backend,
    load_problem,
    per_sample_grad,
    value_and_grad,
    verify,
)
from gdcompare.backend import borrowed, unit_roundoff
from gdcompare.registry import backend_class, registered_backends
from tests.refusal import refusal

from .agreement import ROUNDINGS, assert_agree, assert_loss_agrees, mean_over_rows, rounded, sizes_of_rows
from .marking import on_variants
from .planes import Planes, three_planes
from .strategies import data_sets, lattices, parameters, partitions, shapes, weights

Array = NDArray[np.float64]

# Each law runs over every backend, dtype and problem: ten examples here are more than a hundred.
quick = settings(deadline=None, max_examples=10)


@pytest.fixture(scope="session")
def problem(linear_model: Problem) -> Problem:
    """Here the data come at any scale, which a formula of its own has to follow."""
    return linear_model


def by_hand(problem: Problem, data: Dataset, params: dict[str, Any], dtype: str) -> tuple[Array, dict[str, Array]]:
    """Return each row's loss and gradients, derived by hand, in float64, on the data as `dtype` has them."""
    seen = rounded(data, dtype)
    losses = problem.per_sample_losses(np, params, seen.features, seen.targets)
    return losses, problem.per_sample_gradients(np, params, seen.features, seen.targets)


# Agreement


@on_variants
@given(draw=st.data())
@quick
def test_gradient_is_the_mean_of_the_gradients_derived_by_hand(
    backend: Backend[Any], dtype: str, problem: Problem, draw: st.DataObject
) -> None:
    data = draw.draw(data_sets(problem, shapes(backend)))
    params = draw.draw(parameters(problem, data, dtype))
    losses, gradients = by_hand(problem, data, params, dtype)
    loss_sizes, sizes = sizes_of_rows(problem, params, rounded(data, dtype), dtype)

    loss, gradient = value_and_grad(problem, data, params, backend)

    assert_agree(gradient, mean_over_rows(gradients), mean_over_rows(sizes), dtype)
    assert_loss_agrees(np.array(loss, dtype=dtype), np.mean(losses), np.mean(loss_sizes), dtype)


@on_variants
@given(draw=st.data())
@quick
def test_per_sample_gradients_are_those_derived_by_hand(
    backend: Backend[Any], dtype: str, problem: Problem, draw: st.DataObject
) -> None:
    data = draw.draw(data_sets(problem, shapes(backend)))
    params = draw.draw(parameters(problem, data, dtype))
    _, expected = by_hand(problem, data, params, dtype)
    _, sizes = sizes_of_rows(problem, params, rounded(data, dtype), dtype)

    gradients = per_sample_grad(problem, data, params, backend)

    assert_agree(gradients, expected, sizes, dtype)


@on_variants
@given(draw=st.data())
@quick
def test_mean_of_per_sample_gradients_is_the_gradient(
    backend: Backend[Any], dtype: str, problem: Problem, draw: st.DataObject
) -> None:
    data = draw.draw(data_sets(problem, shapes(backend)))
    params = draw.draw(parameters(problem, data, dtype))
    _, sizes = sizes_of_rows(problem, params, rounded(data, dtype), dtype)

    gradients = per_sample_grad(problem, data, params, backend)

    _, gradient = value_and_grad(problem, data, params, backend)
    assert_agree(gradient, mean_over_rows(gradients), mean_over_rows(sizes), dtype)


@on_variants
@given(draw=st.data())
@quick
def test_weighted_gradient_is_the_weighted_mean(
    backend: Backend[Any], dtype: str, problem: Problem, draw: st.DataObject
) -> None:
    data = draw.draw(data_sets(problem, shapes(backend)))
    params = draw.draw(parameters(problem, data, dtype))
    w = draw.draw(weights(len(data)))
    losses, gradients = by_hand(problem, data, params, dtype)
    loss_sizes, sizes = sizes_of_rows(problem, params, rounded(data, dtype), dtype)

    loss, gradient = value_and_grad(problem, data, params, backend, w)

    assert_agree(gradient, mean_over_rows(gradients, w), mean_over_rows(sizes, w), dtype)
    loss_size = np.average(loss_sizes, weights=w)
    assert_loss_agrees(np.array(loss, dtype=dtype), np.average(losses, weights=w), loss_size, dtype)


@on_variants
@given(draw=st.data())
@quick
def test_mean_of_weighted_per_sample_gradients_is_the_weighted_gradient(
    backend: Backend[Any], dtype: str, problem: Problem, draw: st.DataObject
) -> None:
    data = draw.draw(data_sets(problem, shapes(backend)))
    params = draw.draw(parameters(problem, data, dtype))
    w = draw.draw(weights(len(data)))
    _, sizes = sizes_of_rows(problem, params, rounded(data, dtype), dtype)

    gradients = per_sample_grad(problem, data, params, backend, w)

    _, gradient = value_and_grad(problem, data, params, backend, w)
    assert_agree(gradient, mean_over_rows(gradients), mean_over_rows(sizes, w), dtype)
    assert all(not each[w == 0].any() for each in gradients.values())


@pytest.mark.thorough
@given(draw=st.data(), weight=st.sampled_from([0.125, 1.0, 3.0]))
@quick
def test_equal_weights_are_no_weights(
    backend: Backend[Any], dtype: str, problem: Problem, draw: st.DataObject, weight: float
) -> None:
    data = draw.draw(data_sets(problem, shapes(backend)))
    params = draw.draw(parameters(problem, data, dtype))
    equal = np.full(len(data), weight)
    _, sizes = sizes_of_rows(problem, params, rounded(data, dtype), dtype)

    loss, gradient = value_and_grad(problem, data, params, backend, equal)
    gradients = per_sample_grad(problem, data, params, backend, equal)

    plain_loss, plain = value_and_grad(problem, data, params, backend)
    assert loss == pytest.approx(plain_loss, rel=ROUNDINGS * unit_roundoff(dtype), abs=0)
    assert_agree(gradient, plain, mean_over_rows(sizes), dtype)
    assert_agree(gradients, per_sample_grad(problem, data, params, backend), sizes, dtype)


@given(draw=st.data())
@quick
def test_gradient_is_the_mean_over_any_partition_weighted_by_size(
    dtype: str, problem: Problem, draw: st.DataObject
) -> None:
    backend = load_backend("numpy", dtype)
    data = draw.draw(data_sets(problem, shapes(backend)))
    params = draw.draw(parameters(problem, data, dtype))
    parts = draw.draw(partitions(len(data)))
    _, sizes = sizes_of_rows(problem, params, rounded(data, dtype), dtype)

    gradients = [
        value_and_grad(problem, Dataset(data.features[rows], data.targets[rows]), params, backend)[1] for rows in parts
    ]

    stacked = {name: np.stack([each[name] for each in gradients]) for name in params}
    _, gradient = value_and_grad(problem, data, params, backend)
    assert_agree(
        gradient, mean_over_rows(stacked, np.array([len(rows) for rows in parts])), mean_over_rows(sizes), dtype
    )


@given(draw=st.data())
@quick
def test_on_whole_numbers_least_squares_is_exact_to_the_last_bit(
    backend: Backend[Any], dtype: str, draw: st.DataObject
) -> None:
    data, params = draw.draw(lattices(8, 3))
    problem = load_problem("linear-regression")
    residuals = params["theta_0"] + data.features @ params["theta_1"] - data.targets
    expected = {"theta_0": 2 * residuals, "theta_1": 2 * residuals[:, None] * data.features}

    loss, gradient = value_and_grad(problem, data, params, backend)
    gradients = per_sample_grad(problem, data, params, backend)

    assert loss == residuals @ residuals / 8
    for name, rows in expected.items():
        np.testing.assert_array_equal(gradients[name], rows.astype(dtype), strict=True)
        np.testing.assert_array_equal(gradient[name], np.asarray(np.sum(rows, axis=0) / 8, dtype), strict=True)


@on_variants
def test_matrices_of_parameters_and_targets_go_through_every_backend(backend: Backend[Any], dtype: str) -> None:
    problem = Planes()
    data, params = three_planes()
    w = np.array([0.0, 1, 2, 1, 0, 2, 1, 1])  # adds up to 8, so that every quotient is exact
    _, rows = by_hand(problem, data, {name: np.array(value) for name, value in params.items()}, "float64")

    _, gradient = value_and_grad(problem, data, params, backend)
    _, weighted = value_and_grad(problem, data, params, backend, w)
    gradients = per_sample_grad(problem, data, params, backend)
    scaled = per_sample_grad(problem, data, params, backend, w)

    for name, each in rows.items():
        np.testing.assert_array_equal(gradients[name], each.astype(dtype), strict=True)
        np.testing.assert_array_equal(gradient[name], np.mean(each, axis=0).astype(dtype), strict=True)
        np.testing.assert_array_equal(scaled[name], (each.T * w).T.astype(dtype), strict=True)
        np.testing.assert_array_equal(weighted[name], np.average(each, axis=0, weights=w).astype(dtype), strict=True)


SPOILERS: dict[str, Callable[[Any], Any]] = {
    "flipped sign": lambda g: -g,
    "sum for mean": lambda g: 40 * g,
    "n - 1 for n": lambda g: g * 40 / 39,
    "a thousandth too large": lambda g: g * 1.001,
    "one element wrong": lambda g: g + np.array([1e-3, 0]),
    "zero": np.zeros_like,
    "nan": lambda g: g * np.nan,
    "infinite": lambda g: g / 0.0,
    "the other precision": lambda g: g.astype(np.float32 if g.dtype == np.float64 else np.float64),
    "an extra axis": lambda g: g[None],
    "a broadcast scalar": lambda g: g[0],
}


@pytest.mark.parametrize("spoil", SPOILERS)
def test_the_comparison_refuses(dtype: str, problem: Problem, spoil: str) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 40).astype(float)
    data = rounded(Dataset(generator.uniform(1, 2, (40, 2)), labels), dtype)
    params = {"theta_0": np.array(0.5), "theta_1": np.array([-1.0, 0.25])}
    _, sizes = sizes_of_rows(problem, params, data, dtype)
    _, gradient = value_and_grad(problem, data, params, load_backend("numpy"))
    right = {name: value.astype(dtype) for name, value in gradient.items()}
    assert_agree(right, gradient, mean_over_rows(sizes), dtype)

    with np.errstate(divide="ignore"), pytest.raises(AssertionError, match=r"^theta_1 "):
        assert_agree({**right, "theta_1": SPOILERS[spoil](right["theta_1"])}, gradient, mean_over_rows(sizes), dtype)


def test_the_comparison_refuses_a_missing_parameter() -> None:
    zero = {"theta_0": np.zeros(()), "theta_1": np.zeros(2)}

    with pytest.raises(AssertionError):
        assert_agree({"theta_0": np.zeros(())}, zero, zero, "float64")


# An independent fourth: slopes of the loss itself


@pytest.mark.thorough
@given(draw=st.data())
@settings(deadline=None)
def test_gradient_derived_by_hand_is_the_slope_of_the_loss(problem: Problem, draw: st.DataObject) -> None:
    data = draw.draw(data_sets(problem, st.tuples(st.integers(1, 8), st.integers(1, 3)), scales=st.just(2.0)))
    params = draw.draw(parameters(problem, data, scales=st.just(2.0)))
    step = 2.0**-17  # near the cube root of u, where truncation and rounding are alike: about step^2

    gradients = problem.per_sample_gradients(np, params, data.features, data.targets)

    for name, value in params.items():
        for index in np.ndindex(value.shape):
            ahead, behind = ({**params, name: value.copy()} for _ in range(2))
            ahead[name][index] += step
            behind[name][index] -= step
            losses = [problem.per_sample_losses(np, at, data.features, data.targets) for at in (ahead, behind)]
            slopes = (losses[0] - losses[1]) / (2 * step)
            np.testing.assert_allclose(gradients[name][:, *index], slopes, rtol=0, atol=1e-7)


# The seed

SEED_GRADIENT = {"theta_0": -5.447053909301758, "theta_1": -1.1946825981140137}
SEED_MEAN = {"theta_0": -5.447053959220648, "theta_1": -1.194682613387704}
SEED_DIFFERENCE = {"theta_0": 4.9918890354661016e-08, "theta_1": 1.527369031251169e-08}
AT = {"theta_0": 1.0, "theta_1": [0.0]}


@on_variants
def test_the_seeds_six_figures_come_from_every_backend(backend_name: str) -> None:
    line = datasets.noisy_line()

    _, gradient = value_and_grad("linear-regression", line, AT, backend_name)
    gradients = per_sample_grad("linear-regression", line, AT, backend_name)

    whole = {name: float(np.float32(value.item())) for name, value in gradient.items()}
    mean = {name: float(np.mean(each.astype(np.float32), dtype=np.float64)) for name, each in gradients.items()}
    assert whole == SEED_GRADIENT
    assert mean == SEED_MEAN
    assert {name: whole[name] - mean[name] for name in whole} == SEED_DIFFERENCE


def test_the_seeds_gradient_is_the_exact_rational_one_to_the_rounding(backend_name: str) -> None:
    line = datasets.noisy_line()
    exact = np.vectorize(Fraction, otypes=[object])
    inputs, residuals = exact(np.column_stack([np.ones(40), line.features])), 1 - exact(line.targets)

    report = verify("linear-regression", line, AT, backends=[backend_name])

    theta_0, theta_1 = report.entries[1:]
    assert report
    assert [theta_0.expected, theta_1.expected] == [float(value) for value in 2 * residuals @ inputs / 40]
    assert (theta_0.expected, theta_1.expected) == (-5.447053920097925, -1.1946826098562093)


# Logistic scores so large that exp overflows


@pytest.mark.parametrize("score", [-1e3, -100.0, -20.0, 0.0, 20.0, 100.0, 1e3])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_extreme_scores_have_finite_losses_and_true_gradients(
    backend: Backend[Any], dtype: str, score: float, label: float
) -> None:
    data = Dataset([[1.0, -2.0]], [label])
    params = {"theta_0": 0.0, "theta_1": [score, 0.0]}
    wrong_side = score if label == 0 else -score
    slope = math.exp(-np.logaddexp(0, -wrong_side)) * (1 if label == 0 else -1)  # t sigma(z)

    loss, gradient = value_and_grad("logistic-regression", data, params, backend)
    gradients = per_sample_grad("logistic-regression", data, params, backend)

    close = functools.partial(pytest.approx, rel=ROUNDINGS * unit_roundoff(dtype), abs=float(np.finfo(dtype).tiny))
    assert loss == close(np.logaddexp(0, wrong_side))
    for name, value in {"theta_0": slope, "theta_1": [slope, -2 * slope]}.items():
        assert gradient[name] == close(np.array(value))
        assert gradients[name][0] == close(np.array(value))


# The seam


def border(backend: Backend[Any], n: int = 5) -> tuple[Any, ...]:
    """Return parameters, features, targets and weights as the backend's arrays."""
    generator = np.random.default_rng(1)
    params = {"theta_0": backend.asarray(0.5), "theta_1": backend.asarray([1.0, -1.0])}
    columns = generator.uniform(-1, 1, (n, 2)), generator.integers(0, 2, n).astype(float), np.arange(float(n))
    return params, *map(backend.asarray, columns)


@on_variants
@pytest.mark.parametrize("weighted", [False, True])
def test_outputs_have_the_dtype_and_shapes_that_the_seam_promises(
    backend: Backend[Any], dtype: str, problem: Problem, weighted: bool
) -> None:
    arguments = border(backend)[: 4 if weighted else 3]

    loss, gradient = backend.value_and_grad(problem)(*arguments)
    gradients = backend.per_sample_grad(problem)(*arguments)

    loss, *arrays = map(backend.to_numpy, (loss, *gradient.values(), *gradients.values()))
    assert [*gradient, *gradients] == ["theta_0", "theta_1"] * 2
    assert loss.shape == ()
    assert [array.shape for array in arrays] == [(), (2,), (5,), (5, 2)]
    assert {array.dtype.name for array in (loss, *arrays)} == {dtype}


@on_variants
@pytest.mark.parametrize("weighted", [False, True])
def test_inputs_are_left_intact(backend: Backend[Any], problem: Problem, weighted: bool) -> None:
    arguments = params, *columns = border(backend)[: 4 if weighted else 3]
    before = [backend.to_numpy(each).copy() for each in (*params.values(), *columns)]

    backend.value_and_grad(problem)(*arguments)
    backend.per_sample_grad(problem)(*arguments)

    for array, was in zip((*params.values(), *columns), before, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(array), was, strict=True)
        assert not getattr(array, "requires_grad", False)


def test_arrays_cross_the_border_as_copies_in_the_backends_dtype(backend: Backend[Any], dtype: str) -> None:
    for source in (np.array([1.5, 2.5], dtype=np.float32), np.array([1.5, 2.5]), [1.5, 2.5]):
        array = backend.asarray(source)
        source[0] = 9.0

        back = backend.to_numpy(array)

        np.testing.assert_array_equal(back, np.array([1.5, 2.5], dtype=dtype), strict=True)


@pytest.mark.parametrize("rows", [3, 70_000])
@pytest.mark.parametrize("source", ["float32", "float64", "int32", "read-only", "transposed"])
def test_what_is_borrowed_is_what_would_be_copied(backend: Backend[Any], source: str, rows: int) -> None:
    values = (
        np.arange(2.0 * rows).reshape(2, rows).T if source == "transposed" else np.arange(2.0 * rows).reshape(-1, 2)
    )
    values = values.astype(source) if source[-1].isdigit() else values
    values.flags.writeable = source != "read-only"

    array = borrowed(backend, values)

    np.testing.assert_array_equal(backend.to_numpy(array), backend.to_numpy(backend.asarray(values)), strict=True)


@pytest.mark.parametrize("start", [0, 16])
def test_jax_takes_large_arrays_from_wherever_they_begin(start: int) -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    backend = load_backend("jax")
    memory = np.zeros(1_600_128, np.uint8)
    begin = -memory.ctypes.data % 64 + start
    values = memory[begin : begin + 1_600_000].view(np.float64).reshape(-1, 2)
    values[:] = 1.5

    array, copy = borrowed(backend, values), backend.asarray(values)
    pointers = [each.unsafe_buffer_pointer() for each in (array, copy)]

    assert [pointer == values.ctypes.data for pointer in pointers] == [start == 0, False]
    np.testing.assert_array_equal(backend.to_numpy(array), values, strict=True)
    np.testing.assert_array_equal(backend.to_numpy(copy), values, strict=True)


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (None, "{ours}"),
        ("--xla_force_host_platform_device_count=2", "--xla_force_host_platform_device_count=2 {ours}"),
        (
            "--xla_backend_extra_options=xla_cpu_use_xnnpack=true",
            "--xla_backend_extra_options=xla_cpu_use_xnnpack=true",
        ),
    ],
)
def test_jax_prepares_a_process_without_touching_its_users_flags(
    users: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    monkeypatch.setenv("XLA_FLAGS", users or "")

    backend_class("jax").prepare_process()

    ours = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=100000"
    assert os.environ["XLA_FLAGS"] == expected.format(ours=ours)


MANY = 20_001  # more than a block, and no multiple of one


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_of_many_rows_is_that_of_their_blocks(dtype: str, reduction: str, weighted: bool) -> None:
    problem, generator = load_problem("linear-regression"), np.random.default_rng(0)
    columns = generator.uniform(-1, 1, (MANY, 2)), generator.uniform(-1, 1, MANY)
    data = rounded(Dataset(*columns), dtype)
    params = {"theta_0": np.array(0.5), "theta_1": np.array([-1.0, 0.25])}
    w = generator.integers(0, 3, MANY).astype(float) if weighted else None
    losses, gradients = by_hand(problem, data, params, dtype)
    loss_sizes, sizes = sizes_of_rows(problem, params, data, dtype)
    count = 1.0 if reduction == "mean" else float(MANY if w is None else np.sum(w))
    scale = math.sqrt(MANY)  # as sums in any order are off (Higham and Mary 2019)

    loss, gradient = value_and_grad(problem, data, params, load_backend("numpy", dtype), w, reduction)

    expected = {name: count * each for name, each in mean_over_rows(gradients, w).items()}
    assert_agree(
        gradient, expected, {name: scale * count * each for name, each in mean_over_rows(sizes, w).items()}, dtype
    )
    size = scale * count * np.average(loss_sizes, weights=w)
    assert_loss_agrees(np.array(loss, dtype=dtype), count * np.average(losses, weights=w), size, dtype)


@pytest.mark.parametrize(("name", "most"), [("numpy", 0.2), ("autograd", 0.5)])
def test_the_gradient_of_many_rows_takes_no_copy_of_them(name: str, most: float) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    features = np.random.default_rng(0).uniform(-1, 1, (MANY, 40))
    data, params = Dataset(features, features[:, 0]), {"theta_0": 0.5, "theta_1": np.ones(40)}
    value_and_grad("linear-regression", data, params, name)

    tracemalloc.start()
    value_and_grad("linear-regression", data, params, name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < most * features.nbytes


@pytest.mark.thorough
def test_torchs_per_sample_gradients_do_not_load_its_compiler() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    program = (
        "import sys, gdcompare as gdc; gdc.per_sample_grad('linear-regression', None, None, 'torch'); "
        "print('torch._dynamo' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603 - the program is above

    assert done.stdout == "False\n"


@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_whole_numbers_stay_whole(backend: Backend[Any], kind: str) -> None:
    back = backend.to_numpy(backend.asarray(np.array([1, 2, 3], dtype=kind)))

    assert back.dtype.kind == "i"
    assert back.tolist() == [1, 2, 3]


@on_variants
def test_scan_takes_a_step_for_each_row_and_stacks_the_records(backend: Backend[Any], dtype: str) -> None:
    def step(state: Any, row: tuple[Any, ...], constants: Any) -> tuple[Any, tuple[Any, ...]]:
        (total,), (value, which), table = state, row, constants["table"]
        return (total + value * table[which],), (total, value * table)

    state, constants = (backend.asarray(0.0),), {"table": backend.asarray([10.0, 100.0])}

    (total,), (totals, tables) = backend.scan(step)(state, (np.array([1.0, 2.0, 3.0]), np.array([0, 1, 0])), constants)

    assert backend.to_numpy(total) == 240
    assert backend.to_numpy(totals).tolist() == [0, 10, 210]
    assert backend.to_numpy(tables).tolist() == [[10, 100], [20, 200], [30, 300]]
    assert {backend.to_numpy(each).dtype.name for each in (total, totals, tables)} == {dtype}


@on_variants
def test_backends_with_the_same_settings_are_equal(backend_name: str, dtype: str) -> None:
    one, again = (load_backend(backend_name, dtype) for _ in range(2))

    assert one == again
    assert hash(one) == hash(again)
    assert one != load_backend(backend_name, {"float32": "float64", "float64": "float32"}[dtype])
    assert (one.name, one.dtype) == (backend_name, dtype)


@on_variants
def test_backends_know_their_environment(backend: Backend[Any]) -> None:
    environment = backend.environment()  # type: ignore[attr-defined]  # a capability beside the seam

    assert environment[type(backend).name]
    assert all(isinstance(value, str) and value for value in environment.values())


@on_variants
def test_exactly_numpy_and_derived_variants_evaluate_the_hand_derived_formulas(
    backend: Backend[Any],
) -> None:
    assert backend.by_hand == (backend.name == "numpy" or backend.name.endswith("[derived]"))


def test_torch_differentiates_inside_no_grad() -> None:
    torch = pytest.importorskip("torch", reason="no_grad is torch's")
    outside = value_and_grad("linear-regression", datasets.noisy_line(), AT, "torch")

    with torch.no_grad():
        inside = value_and_grad("linear-regression", datasets.noisy_line(), AT, "torch")
        gradients = per_sample_grad("linear-regression", datasets.noisy_line(), AT, "torch")
        assert not torch.is_grad_enabled()

    assert inside == outside
    assert float(gradients["theta_0"].mean()) == pytest.approx(float(outside[1]["theta_0"]))


# Nothing global changes

GLOBALS = """
import random, sys
import numpy as np
random.seed(1); np.random.seed(1)

def look():
    state = [random.getstate(), str(np.random.get_state(legacy=False)), np.geterr(), np.get_printoptions()]
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        state += [torch.get_default_dtype(), torch.get_num_threads(), torch.get_num_interop_threads()]
        state += [torch.is_grad_enabled(), torch.initial_seed(), torch.get_float32_matmul_precision()]
        state += [torch.are_deterministic_algorithms_enabled(), str(torch.get_default_device())]
    if "jax" in sys.modules:
        jax = sys.modules["jax"]
        state += [jax.config.values, jax.numpy.ones(1).dtype]
    return str(state)

{framework}
before = look()
import gdcompare
from gdcompare import datasets
for dtype in ("float64", "float32"):
    backend = gdcompare.load_backend({name!r}, dtype)
    at = {{"theta_0": 1.0, "theta_1": [0.0]}}
    gdcompare.value_and_grad("linear-regression", datasets.noisy_line(), at, backend)
    gdcompare.per_sample_grad("linear-regression", datasets.noisy_line(), at, backend)
    gdcompare.descend("linear-regression", datasets.noisy_line(), backend, batch_size=7, epochs=2)
{spoil}
assert look() == before, "a global changed"
"""


def look_for_changed_globals(name: str, spoil: str = "") -> subprocess.CompletedProcess[str]:
    program = GLOBALS.format(name=name, framework=f"import {name}", spoil=spoil)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603 - the program is above


@pytest.mark.thorough
def test_importing_and_using_a_backend_changes_nothing_global(backend_name: str) -> None:
    answer = look_for_changed_globals(backend_name)

    assert answer.returncode == 0, answer.stderr


def test_the_look_at_globals_sees_a_change() -> None:
    answer = look_for_changed_globals("numpy", spoil="np.random.rand()")

    assert "AssertionError: a global changed" in answer.stderr


# Refusals


@pytest.mark.parametrize("device", ["nonsense", "cpu:nonsense"])
def test_an_unknown_device_is_refused(backend_name: str, device: str) -> None:
    with pytest.raises(ValueError, match=f"^backend {backend_name!r} has no device {device!r}"):
        load_backend(backend_name, device=device)


def test_the_cpu_is_a_device_of_every_backend(backend_name: str) -> None:
    loss, _ = value_and_grad("linear-regression", datasets.noisy_line(), AT, load_backend(backend_name, device="cpu"))

    assert loss == value_and_grad("linear-regression", datasets.noisy_line(), AT, backend_name)[0]


@pytest.mark.parametrize("name", registered_backends())
@pytest.mark.parametrize("wrong", ["float16", "double", ""])
def test_an_unknown_dtype_is_refused_before_anything_is_imported(name: str, wrong: str) -> None:
    with refusal(ValueError, f"unknown dtype {wrong!r}; known: float32, float64"):
        load_backend(name, dtype=wrong)


def test_a_backend_made_by_hand_refuses_an_unknown_dtype(backend_name: str) -> None:
    with refusal(ValueError, "unknown dtype 'float16'; known: float32, float64"):
        type(load_backend(backend_name))(dtype="float16")  # type: ignore[call-arg]  # the protocol has no constructor


@pytest.mark.parametrize("function", [value_and_grad, per_sample_grad])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([1.0, 2.0], "weights must have shape (3,), one for each row, not (2,)"),
        ([[1.0], [1.0], [1.0]], "weights must have shape (3,), one for each row, not (3, 1)"),
        ([1.0, -1.0, 1.0], "weights must be finite, none negative, and not all zero"),
        ([0.0, 0.0, 0.0], "weights must be finite, none negative, and not all zero"),
        ([1.0, math.nan, 1.0], "weights must be finite, none negative, and not all zero"),
        ([1.0, math.inf, 1.0], "weights must be finite, none negative, and not all zero"),
    ],
)
def test_weights_that_make_no_sense_are_refused(backend: Backend[Any], function: Any, wrong: Any, message: str) -> None:
    data = Dataset([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0])

    with refusal(ValueError, message):
        function("linear-regression", data, AT, backend, wrong)


def test_results_are_the_callers_own(backend: Backend[Any]) -> None:
    data = Dataset([[1.0], [3.0]], [2.0, 4.0])
    _, gradient = value_and_grad("linear-regression", data, AT, backend)
    gradients = per_sample_grad("linear-regression", data, AT, backend)

    for array in (*gradient.values(), *gradients.values()):
        array[...] = 0

    assert per_sample_grad("linear-regression", data, AT, backend)["theta_1"].tolist() == [[-2.0], [-18.0]]
