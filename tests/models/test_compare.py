"""Models that judge each other: what agrees, what differs, where first, and at which step."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.models.native import Native

START = {"w": np.array([0.3, -1.2, 0.7]), "b": np.array(0.1)}


def data(seed: int = 0, samples: int = 9, scale: float = 1.0) -> gdc.Dataset:
    generator = np.random.default_rng(seed)
    return gdc.Dataset(scale * generator.normal(size=(samples, 3)), generator.normal(size=samples), "drawn")


def tanh_loss(p: Any, features: Any, targets: Any) -> Any:
    return ((np.tanh(features @ p["w"] + p["b"]) - targets) ** 2).mean()


def tanh_slopes(p: Any, features: Any, targets: Any) -> dict[str, Any]:
    outputs = np.tanh(features @ p["w"] + p["b"])
    slopes = 2 * (outputs - targets) * (1 - outputs**2) / len(targets)
    return {"w": slopes @ features, "b": slopes.sum()}


def one_by_one(p: Any, features: Any, targets: Any) -> dict[str, Any]:
    """The same gradient in another order: rows backwards, one at a time, divided at the end."""
    total = {name: np.zeros_like(value) for name, value in p.items()}
    for x, y in zip(features[::-1], targets[::-1], strict=True):
        output = np.tanh(p["b"] + x[::-1] @ p["w"][::-1])
        slope = 2 * (output - y) * (1 - output) * (1 + output)
        total = {"w": total["w"] + slope * x, "b": total["b"] + slope}
    return {name: value / features.dtype.type(len(targets)) for name, value in total.items()}


def model(gradient: Callable[..., Any] = tanh_slopes, name: str = "one", loss: Any = tanh_loss) -> Native:
    return gdc.from_functions(loss, gradient, START, name=name)


def spoiled(change: Callable[[NDArray[Any]], Any], parameter: str = "w") -> Callable[..., Any]:
    def gradient(*point: Any) -> dict[str, Any]:
        right = tanh_slopes(*point)
        return right | {parameter: change(right[parameter])}

    return gradient


# What agrees


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_models_that_differ_by_rounding_alone_are_never_called_wrong(dtype: str) -> None:
    for seed in range(100):
        points = data(seed, samples=3 + seed % 13, scale=10.0 ** (seed % 4 - 3))

        report = gdc.compare([model(), model(one_by_one, "other")], points, dtype=dtype)

        assert report, (seed, report.explanation())


def test_a_gradient_that_is_off_by_a_billionth_is_noticed_because_the_report_says_that_it_would_be() -> None:
    right = gdc.compare([model(), model(one_by_one, "other")], data())
    wrong = gdc.compare([model(), model(spoiled(lambda w: w * (1 + 1e-9 * (np.arange(3) == 2))), "other")], data())

    assert max(entry.detectable for entry in right.entries) < 1e-9
    assert {entry.parameter for entry in wrong.entries if entry.verdict == "wrong"} == {"w"}
    assert wrong.entries[1].worst_index == (2,)
    assert "estimated" in right.context["budget"]
    assert "estimated, not proven" in right.explanation()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fault_of_the_size_that_the_report_states_is_caught(dtype: str) -> None:
    entries = {
        entry.parameter: entry for entry in gdc.compare([model(), model(name="same")], data(), dtype=dtype).entries
    }
    fault = entries["w"].detectable

    report = gdc.compare(
        [model(), model(spoiled(lambda w: w * w.dtype.type(1 + 1.1 * fault)), "other")], data(), dtype=dtype
    )

    assert report.verdict == "wrong"


# What differs


SPOILERS: dict[str, tuple[Callable[[NDArray[Any]], Any], str]] = {
    "the sign": (lambda w: -w, "the sign is flipped"),
    "the sum": (lambda w: 9 * w, "a factor n = 9: a sum where a mean belongs"),
    "single precision": (lambda w: w.astype(np.float32).astype(np.float64), "float32 inside float64"),
    "one element": (lambda w: w * (1 + (np.arange(3) == 1)), "off in 1 of 3 elements (1)"),
    "nan": (lambda w: w * np.nan, "other has nan there"),
    "infinity": (lambda w: w / 0.0, "other has -inf there"),
}


@pytest.mark.parametrize("spoiler", SPOILERS)
@pytest.mark.filterwarnings("ignore:divide by zero")  # planted
def test_a_difference_is_reported_with_its_cause(spoiler: str) -> None:
    change, words = SPOILERS[spoiler]

    report = gdc.compare([model(), model(spoiled(change), "other")], data())

    (entry,) = [entry for entry in report.entries if entry.law == "" and entry.verdict != "agree"]
    assert (entry.implementation, entry.parameter, entry.verdict) == ("other", "w", "wrong")
    assert words in entry.cause
    with pytest.raises(AssertionError, match="comparisons do not agree"):
        report.assert_agree()


def test_of_two_that_differ_either_may_be_at_fault() -> None:
    report = gdc.compare([model(), model(spoiled(lambda w: 2 * w), "other")], data())

    assert report.entries[1].cause.endswith("of two that differ, either may be at fault")


@pytest.mark.parametrize("odd", [0, 1, 2])
@pytest.mark.parametrize("factor", [1 + 1e-9, -1.0, np.nan])
def test_the_odd_one_of_three_is_named_wherever_it_stands(odd: int, factor: float) -> None:
    gradients = [tanh_slopes, one_by_one, tanh_slopes]
    gradients[odd] = spoiled(lambda w: w * factor)
    models = [model(gradient, f"model {i}") for i, gradient in enumerate(gradients)]

    report = gdc.compare(models, data())

    wrong = [entry for entry in report.entries if entry.verdict == "wrong"]
    others = " and ".join(f"model {i}" for i in range(3) if i != odd)
    assert {(entry.implementation, entry.parameter) for entry in wrong} == {(f"model {odd}", "w")}
    assert all(f"the odd one out: {others} agree" in entry.cause or "has nan" in entry.cause for entry in wrong)


def test_three_that_all_differ_have_no_majority() -> None:
    changes: dict[str, Any] = {"times 2": lambda w: 2 * w, "times 3": lambda w: 3 * w}
    models = [model(), *(model(spoiled(change), name) for name, change in changes.items())]

    report = gdc.compare(models, data())

    assert {entry.implementation for entry in report.entries if entry.verdict == "wrong"} == {"times 2", "times 3"}
    assert "no majority agrees" in report.explanation()


def test_per_sample_gradients_name_the_samples() -> None:
    def negative_rows_ignored(p: Any, features: Any, targets: Any) -> Any:
        return {
            name: value * (targets[0] > 0 or len(targets) > 1)
            for name, value in tanh_slopes(p, features, targets).items()
        }

    points = data()
    report = gdc.compare([model(), model(negative_rows_ignored, "other")], points)

    entry = next(entry for entry in report.entries if entry.law == "per sample" and entry.parameter == "w")
    assert f"in {np.sum(points.targets <= 0)} of 9 samples" in entry.cause
    assert all(entry.verdict == "agree" for entry in report.entries if entry.law == "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: ([model()], data()), "takes two models or more, not 1"),
        (lambda: ([model(), model()], data()), "several models are named 'one'; give them names of their own"),
        (lambda: ([model(), tanh_slopes], data()), "is no native model; make one with from_module"),
        (
            lambda: ([gdc.from_functions(tanh_loss, tanh_slopes, name="bare"), model()], data()),
            "the first model is the source of values, and 'bare' has none",
        ),
        (
            lambda: ([model(), gdc.from_functions(tanh_loss, tanh_slopes, {"w": np.ones((0, 3))}, name="two")], data()),
            "parameter 'w' of 'two' has the shape (0, 3), and so no gradient",
        ),
        (lambda: ([model(), model(name="two")], (np.ones((3, 3)), np.ones(2))), "must have a row for each sample"),
        (
            lambda: ([model(), model(name="two")], (np.full((1, 3), np.nan), np.ones(1))),
            "'features' holds numbers that",
        ),
        (
            lambda: ([model(), model(name="two", loss=lambda p, x, y: x[:, 0])], data()),
            "the loss of 'two' has shape (9,); it must be one number",
        ),
        (
            lambda: ([model(), model(name="two")], (np.ones((2, 4)), np.ones(2))),
            "'one' fails on these data, features (2, 4), targets (2,): ValueError: matmul",
        ),
        (
            lambda: ([model(), model(spoiled(lambda w: w[:2]), "two")], data()),
            "'two' fails on these data, features (9, 3), targets (9,): ValueError: the gradient of 'w' has shape (2,)",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments: Any, message: str) -> None:
    models, points = arguments()

    with pytest.raises(ValueError, match=re.escape(message)):
        gdc.compare(models, points)


def test_arrays_of_any_shape_are_data() -> None:
    generator = np.random.default_rng(0)
    images, labels = generator.normal(size=(4, 2, 3)), np.arange(4)

    def flat(f: Any) -> Any:
        return lambda p, x, y: f(p, x.reshape(len(x), -1)[:, :3], y)

    models = [model(flat(tanh_slopes), name, flat(tanh_loss)) for name in ("one", "other")]

    assert gdc.compare(models, (images, labels))


# Training


def clipped(p: Any, features: Any, targets: Any) -> Any:
    """Bends where a parameter has grown: agrees until then."""
    return {name: value * (1 + 1e-6 * (p["w"][0] > 0.5)) for name, value in tanh_slopes(p, features, targets).items()}


@pytest.mark.parametrize("resync", [True, False])
@pytest.mark.parametrize("rule", [gdc.rules.sgd(0.1), gdc.rules.adam(0.01)], ids=["sgd", "adam"])
def test_models_that_differ_by_rounding_go_the_same_way(resync: bool, rule: Any) -> None:
    report = gdc.compare_training([model(), model(one_by_one, "other")], data(), 40, rule, 4, resync)

    assert report, report.explanation()
    assert report.first_bad_step is None
    assert report.apart["other"].shape == (40,)
    assert 0 < report.apart["other"].max() < 1e-12
    assert not report.apart["one"].any()


@pytest.mark.parametrize("resync", [True, False])
def test_the_first_bad_step_is_the_one_at_which_a_branch_is_taken(resync: bool) -> None:
    steps, rule = 30, gdc.rules.sgd(0.05)
    path = [START["w"][0]]
    point = {name: value.copy() for name, value in START.items()}
    for _ in range(steps):
        point = {
            name: point[name] - 0.05 * g for name, g in tanh_slopes(point, data().features, data().targets).items()
        }
        path.append(point["w"][0])
    expected = next(step for step, value in enumerate(path) if value > 0.5)

    report = gdc.compare_training([model(), model(clipped, "other")], data(), steps, rule, resync=resync)

    assert 0 < expected < steps
    assert report.verdict == "wrong"
    assert report.first_bad_step == expected
    assert f"first bad step: {expected} of {steps}" in report.explanation()


@pytest.mark.thorough
def test_resync_keeps_the_gradients_together_and_drift_adds_up() -> None:
    other = model(spoiled(lambda w: w * (1 + 1e-7)), "other")
    together, apart = (
        gdc.compare_training([model(), other], data(), 50, gdc.rules.sgd(0.1), resync=resync)
        for resync in (True, False)
    )

    np.testing.assert_allclose(together.apart["other"], 1e-7, rtol=1e-3)
    assert apart.apart["other"][-1] > 5 * apart.apart["other"][0]
    assert json.loads(together.to_json())["first_bad_step"] == 0


def test_a_training_needs_a_step() -> None:
    with pytest.raises(ValueError, match="steps must be a whole number, 1 or above, not 0"):
        gdc.compare_training([model(), model(name="two")], data(), 0)


# The command line


MODELS = """\
import numpy as np
from gdcompare import from_functions
def loss(p, x, y): return ((x @ p["w"] - y) ** 2).mean()
def slope(p, x, y): return {"w": 2 * (x @ p["w"] - y) @ x / len(y)}
ONE = from_functions(loss, slope, {"w": [0.5]}, name="one")
def other(): return from_functions(loss, lambda p, x, y: {"w": -slope(p, x, y)["w"]}, {"w": [0.0]}, name="other")
SAME = from_functions(loss, slope, {"w": [0.0]}, name="same")
DATA = np.ones((3, 1)), np.zeros(3)
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("names", "code", "words"),
    [
        (["ONE", "SAME", "--steps", "5"], 0, "comparisons agree"),
        (["ONE", "other", "--steps", "5"], 1, "first bad step: 0 of 5, in loss, w"),
        (["ONE", "SAME", "other"], 1, "the odd one out: one and same agree"),
        (["ONE"], 2, "takes two models or more, not 1"),
        (["ONE", "loss"], 2, ""),
        (["ONE", "Lost"], 2, "has no 'Lost'"),
    ],
)
def test_the_command_compares_models_with_the_verdicts_exit_codes(
    tmp_path: Path, names: list[str], code: int, words: str
) -> None:
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    arguments = [each if each.startswith("-") or each.isdigit() else f"{path}:{each}" for each in names]
    command = [sys.executable, "-m", "gdcompare", "compare", *arguments, "--data", f"{path}:DATA"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603 - our own

    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr


def test_an_interrupted_training_keeps_the_steps_so_far() -> None:
    calls = 0

    def interrupted(*point: Any) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise KeyboardInterrupt
        return tanh_slopes(*point)

    training = gdc.compare_training([model(), model(interrupted, "other")], data(), steps=1000, progress=False)

    done = training.context["steps_done"]
    assert 0 < done < 20
    assert {name: len(losses) for name, losses in training.losses.items()} == {"one": done, "other": done}
    assert training.verdict == "agree"
    assert f"interrupted after {done} of 1000 steps" in training.explanation()


def test_a_training_interrupted_before_its_first_step_has_nothing_to_keep() -> None:
    def interrupted(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gdc.compare_training([model(), model(interrupted, "other")], data(), steps=3, progress=False)


# What rounds inside


def numpy_model(name: str, loss: Any, slopes: Any) -> Native:
    return gdc.from_functions(loss, slopes, {"w": np.array([0.3, -1.2, 0.7])}, name=name)


def shifted(shift: float, top: bool) -> Native:
    """The mean of log sum_j exp(shift + x_j w_j), its largest exponent subtracted beforehand, or not the largest."""

    def shares(p: Any, features: Any) -> tuple[Any, Any]:
        z = features * p["w"] + np.asarray(shift, features.dtype)
        m = z.max(axis=1, keepdims=True) if top else z[:, :1]
        powers = np.exp(z - m)
        total = powers.sum(axis=1, keepdims=True)
        return (m + np.log(total))[:, 0], np.exp(z - (m + np.log(total))) if top else powers / total

    return numpy_model(
        "top" if top else "first",
        lambda p, x, y: shares(p, x)[0].mean(),
        lambda p, x, y: {"w": (shares(p, x)[1] * x).mean(axis=0)},
    )


def variance(two_pass: bool) -> Native:
    """The mean variance of x_j w_j + 100 over j, by the deviations, or as E z^2 - (E z)^2."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        z = x * p["w"] + np.asarray(100, x.dtype)
        return z.var(axis=1).mean() if two_pass else (z**2).mean() - (z.mean(axis=1) ** 2).mean()

    def slopes(p: Any, x: Any, y: Any) -> Any:
        z = x * p["w"] + np.asarray(100, x.dtype)
        by_z = 2 * (z - z.mean(axis=1, keepdims=True)) / z.dtype.type(3)
        return {"w": (by_z * x).mean(axis=0)}

    return numpy_model("two passes" if two_pass else "one pass", loss, slopes)


@pytest.mark.parametrize("models", [(shifted(-1e4, True), shifted(-1e4, False)), (variance(True), variance(False))])
def test_what_rounds_inside_is_no_difference(models: tuple[Native, Native], dtype: str) -> None:
    assert gdc.compare(models, data(), dtype=dtype).verdict == "agree"


def test_a_difference_that_is_no_rounding_inside_remains(dtype: str) -> None:
    off = 1 + 1e3 * float(np.finfo(dtype).eps)
    right = shifted(-10.0, True)
    wrong = numpy_model(
        "off",
        lambda *point: right.value_and_grad(*point)[0],
        lambda *point: {"w": right.value_and_grad(*point)[1]["w"] * np.asarray(off, dtype)},
    )

    assert gdc.compare((right, wrong), data(), dtype=dtype).verdict == "wrong"


def test_equal_infinities_are_equal_and_nan_in_both_is_said_of_both() -> None:
    def infinite(name: str, slope: float) -> Native:
        return numpy_model(name, lambda p, x, y: np.float64(-np.inf), lambda p, x, y: {"w": np.full(3, slope)})

    alike, lost = (gdc.compare((infinite("a", s), infinite("b", s)), data()) for s in (-np.inf, np.nan))

    assert alike.verdict == "agree"
    assert next(entry.cause for entry in lost.entries if entry.verdict == "wrong") == "both a and b have nan there"


def test_large_numbers_that_cancel_do_not_couple_the_rows() -> None:
    report = gdc.compare((variance(True), variance(False)), data(scale=0.1), dtype="float32")

    assert not any("couples" in remark for remark in report.remarks)
