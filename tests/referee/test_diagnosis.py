"""Causes: each hypothesis is named on its fault, all that fit are named, and none where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.authoring.faults import FAULTS, Implementation, by_hand
from gdcompare.backend import unit_roundoff
from gdcompare.problem import drawn_parameters
from gdcompare.referee.diagnosis import cause_of, cause_of_all
from gdcompare.referee.evidence import Evidence
from gdcompare.referee.hypotheses import number
from gdcompare.referee.selection import families
from gdcompare.referee.structure import structure_of
from gdcompare.referee.verdict import Report

LINEAR = gdc.load_problem("linear-regression")
N = 40
Rows = NDArray[np.float64]


def plane(n: int = N, d: int = 3, seed: int = 0) -> gdc.Dataset:
    generator = np.random.default_rng(seed)
    return gdc.Dataset(generator.normal(size=(n, d)), generator.normal(size=n), name="plane")


POINT = {"theta_0": 3.0, "theta_1": [2.0, -1.3, 0.7]}


def causes(implementation: Any, data: gdc.Dataset | None = None, params: Any = None, **settings: Any) -> set[str]:
    """Return the causes of what is wrong with the gradient."""
    point = POINT if params is None else params
    report = gdc.verify(
        LINEAR, plane() if data is None else data, point, backends=[], implementations={"": implementation}, **settings
    )
    return {e.cause for e in report.entries if e.verdict == "wrong" and e.parameter != "loss"}


def only_gradient(change: Callable[[str, Any, Any], Any]) -> Implementation:
    """Return the right implementation with `change(name, gradient, value of the parameter)`, without a loss."""

    def implementation(params: Any, features: Any, targets: Any) -> Any:
        _, gradient = by_hand(LINEAR)(params, features, targets)
        return None, {name: np.asarray(change(name, each, params[name])) for name, each in gradient.items()}

    return implementation


# Factors: all that fit, the most specific first.


def test_every_factor_that_fits_is_named_the_most_specific_first() -> None:
    weights = np.linspace(1, 3, N)
    weights[0] += 2 * N - weights.sum()
    data = gdc.Dataset(plane().features, plane().targets, weights=weights)

    def divided_by_n(params: Any, features: Any, targets: Any, w: Any) -> Any:
        rows = LINEAR.per_sample_gradients(np, params, features, targets)
        return None, {name: np.tensordot(w, each, axes=(0, 0)) / N for name, each in rows.items()}

    weighted = causes(divided_by_n, data)
    of_two = causes(only_gradient(lambda _, gradient, __: 2 * gradient), plane(2))

    assert weighted == {
        "a factor sum w / n = 80/40: divided by n where the sum of the weights belongs; or a constant factor 2 in "
        + where
        for where in ("the value", "all 3 elements")
    }
    assert {cause.split("; or ")[0] for cause in of_two} == {"a factor n = 2: a sum where a mean belongs"}
    assert all("; or a constant factor 2 in" in cause for cause in of_two)


@pytest.mark.parametrize("scalar", [2.0, 3.0])
def test_a_derivative_by_the_logarithm_of_a_parameter_is_named(scalar: float) -> None:
    found = causes(only_gradient(lambda _, gradient, value: gradient * value), params=POINT | {"theta_0": scalar})

    words = "the gradient times the parameter: a derivative by its logarithm?"
    assert found == {words} | ({f"{words}; or a constant factor 2 in the value"} if scalar == 2 else set())


def test_a_factor_never_prints_as_one() -> None:
    truth = np.array([1.0, -2.0, 3.0])
    far = [
        cause_of(Evidence(actual, true, 1e-16 * np.abs(true), "float64", n=7))
        for actual, true in (
            (truth * (1 + 1e-9), truth),
            (truth[0] * (1 + 1e-9), truth[0]),
            (truth * [1, 1 + 1e-9, 1 - 2e-9], truth),
        )
    ]

    assert far == [
        "a constant factor 1 + 1e-09 in all 3 elements",
        "off by 1e-09 of itself",
        "off in 2 of 3 elements (1, 2), by 2e-09 of themselves at most; the others agree",
    ]
    assert all(number(1 + off) not in ("1", "1.0") for off in (1e-15, 1e-9, 4e-6, 1e-5, -1e-7))


# Number formats.


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("small", ["bfloat16", "float16", "float32"])
def test_values_of_a_smaller_format_are_named(small: str, dtype: str) -> None:
    if small == dtype:
        pytest.skip("no smaller format")
    rounded = FAULTS["bfloat16 values"](by_hand(LINEAR)) if small == "bfloat16" else None
    found = causes(rounded or only_gradient(lambda _, g, __: g.astype(small).astype(g.dtype)), dtype=dtype)

    assert found == {f"{small} inside {dtype}: every value is a {small} and is as far off as {small} may be"}


def test_whole_numbers_are_no_evidence_of_a_smaller_format() -> None:
    truth = np.array([1.0, 2.0, 3.0])

    found = cause_of(Evidence(truth * [2, 1, 2], truth, 1e-13 * truth, "float64", n=7))

    assert "float" not in found


def test_subnormal_numbers_flushed_to_zero_are_named() -> None:
    truth, budget = np.array([3e-310, 1e-300, -2e-312]), np.full(3, 5e-324)

    flushed = cause_of(Evidence(np.where(np.abs(truth) < 2.3e-308, 0, truth), truth, budget, "float64", n=7))
    zeroed = cause_of(Evidence(truth * [1, 0, 1], truth, budget, "float64", n=7))

    assert flushed == "flushed to zero: the true values are subnormal, below 2.2e-308"
    assert zeroed == "zero in 1 of 3 elements (1): a missing term?"


# Which samples count, and how much.


def mean_over(rows: Rows, *batches: slice) -> Any:
    return np.mean([rows[batch].mean(axis=0) for batch in batches], axis=0)


SELECTIONS: dict[str, tuple[Callable[[Rows], Any], str]] = {
    "micro-batch means, ragged": (
        lambda g: mean_over(g, slice(0, 16), slice(16, 32), slice(32, 40)),
        "the mean of micro-batch means, unweighted: 2 of 16 rows and one of 8",
    ),
    "their sum": (
        lambda g: 3 * mean_over(g, slice(0, 16), slice(16, 32), slice(32, 40)),
        "the sum of micro-batch means: 2 of 16 rows and one of 8",
    ),
    "seven shards": (
        lambda g: np.mean([each.mean(axis=0) for each in np.array_split(g, 7)], axis=0),
        "the mean of the means of 7 shards of unequal size, unweighted",
    ),
    "two shards": (
        lambda g: mean_over(g, slice(0, 12), slice(12, 40)),
        "the mean of two shards' means, unweighted: the first 12 and the last 28 rows",
    ),
    "one shard": (lambda g: g[10:20].mean(axis=0), "only rows 10 to 19 of 40 count: one of 4 shards?"),
    "a window over n": (lambda g: g[3:20].sum(axis=0) / N, "only rows 3 to 19 of 40 count"),
    "the first dropped": (lambda g: g[7:].mean(axis=0), "the first 7 samples are dropped"),
    "the last dropped": (lambda g: g[:32].mean(axis=0), "the last 8 samples are dropped: a ragged last batch?"),
    "one sample": (lambda g: g[4], "only sample 4 counts"),
    "never zeroed": (
        lambda g: (g[:16].sum(axis=0) + g[:32].sum(axis=0) + g.sum(axis=0)) / N,
        "stale accumulation: micro-batches are counted again with each later one, 2 of 16 rows and one of 8",
    ),
}


@pytest.mark.parametrize(("chosen", "words"), SELECTIONS.values(), ids=SELECTIONS)
def test_which_samples_count_is_named(chosen: Callable[[Rows], Any], words: str) -> None:
    def implementation(params: Any, features: Any, targets: Any) -> Any:
        rows = LINEAR.per_sample_gradients(np, params, features, targets)
        return None, {name: np.asarray(chosen(each)) for name, each in rows.items()}

    assert causes(implementation) == {words}


def test_rows_that_are_multiples_of_one_another_tell_little() -> None:
    """Some of them add up to anything, to the digits of float32."""
    rows = np.random.default_rng(0).normal(size=(N, 1)) * np.random.default_rng(1).normal(size=5)
    truth = rows.mean(axis=0)

    said = cause_of(Evidence(0.8 * truth, truth, 2e-6 * np.abs(truth), "float32", N, per_sample=rows))

    assert said == "a constant factor 0.8 in all 5 elements"


def test_equal_micro_batches_are_no_mistake() -> None:
    rows = np.random.default_rng(0).normal(size=(12, 2))

    said = {words(i): values[i] for values, words in families(rows, np.ones(12), True) for i in range(len(values))}
    means = {words: value for words, value in said.items() if "mean of micro-batch means" in words}

    assert all("and one of" in words for words in means)
    assert not any(np.allclose(value, rows.mean(axis=0), rtol=1e-12) for value in means.values())


def test_weighted_micro_batches_are_weighed() -> None:
    generator = np.random.default_rng(0)
    rows, weights = generator.normal(size=(12, 2)), generator.uniform(1, 2, 12)
    counts = weights * (12 / weights.sum())
    halves = [np.average(rows[half], axis=0, weights=weights[half]) for half in (slice(0, 6), slice(6, 12))]

    scaled = rows * counts[:, None]
    found = [
        words(i)
        for values, words in families(scaled, counts, True)
        for i in range(len(values))
        if np.allclose(values[i], np.mean(halves, axis=0), rtol=1e-12)
    ]

    assert "the mean of micro-batch means, unweighted: 2 of 6 rows" in found


# Finite differences.


@pytest.mark.parametrize("h", [2.0**-26, 1e-8, 1.5e-8, 1e-6])
@pytest.mark.parametrize("relative", [False, True])
def test_forward_differences_are_named_with_their_step(h: float, relative: bool) -> None:
    def differences(params: Any, features: Any, targets: Any) -> Any:
        here, gradient = by_hand(LINEAR)(params, features, targets)
        for name, each in gradient.items():
            for place in np.ndindex(each.shape):
                x = params[name][place]
                there = {key: value.copy() for key, value in params.items()}
                there[name][place] += h * max(1.0, abs(x)) if relative else h
                step = there[name][place] - x if relative else h
                each[place] = (by_hand(LINEAR)(there, features, targets)[0] - here) / step
        return None, gradient

    found = causes(differences, params={"theta_0": 0.3, "theta_1": [0.2, -0.3, 0.7]})

    assert all(cause.startswith("forward differences with h near ") for cause in found)
    assert all(f"{h:.2g}" in cause for cause in found)  # of a single number another step may explain it as well


@pytest.mark.parametrize(("dtype", "h"), [("float64", "1.5e-08"), ("float32", "0.00035")])
def test_the_planted_forward_differences_are_named(dtype: str, h: str) -> None:
    near = {
        "theta_0": 0.3,
        "theta_1": [0.2, -0.3, 0.7],
    }  # of a larger loss differences are multiples of a float32's unit

    found = causes(FAULTS["forward differences"](by_hand(LINEAR)), params=near, dtype=dtype)

    assert found == {f"forward differences with h near {h}"}


@pytest.mark.parametrize("h", [3e-6, 2.0 ** (-52 / 3), 1e-5, 1e-4])
@pytest.mark.parametrize("relative", [False, True])
def test_central_differences_are_named_with_their_step(h: float, relative: bool) -> None:
    def differences(params: Any, features: Any, targets: Any) -> Any:
        gradient = {name: np.zeros_like(value) for name, value in params.items()}

        def loss(name: str, place: tuple[int, ...], step: float) -> Any:
            there = {key: value.copy() for key, value in params.items()}
            there[name][place] += step
            return by_hand(LINEAR)(there, features, targets)[0]

        for name, each in gradient.items():
            for place in np.ndindex(each.shape):
                step = h * max(1.0, abs(params[name][place])) if relative else h
                each[place] = (loss(name, place, step) - loss(name, place, -step)) / (2 * step)
        return None, gradient

    found = causes(differences, params={"theta_0": 1.3, "theta_1": [0.2, -0.3, 0.7]})

    assert found
    assert all(cause.startswith("central differences with h near ") for cause in found)


def test_what_is_whole_but_for_an_ulp_is_not_taken_for_differences() -> None:
    """Of whole numbers the right gradient is whole in every unit, and so is nearly what is next to it."""
    data = gdc.Dataset([[1.0, 2.0, -1.0], [3.0, 0.0, 2.0]], [4.0, -2.0])
    beside = only_gradient(lambda _, g, __: np.nextafter(g, np.inf))

    found = causes(beside, data, {"theta_0": 1.0, "theta_1": [2.0, -1.0, 3.0]})

    assert found
    assert not any("differences with" in cause for cause in found)


def test_an_error_of_the_size_of_differences_is_not_taken_for_them() -> None:
    generator = np.random.default_rng(0)

    found = causes(only_gradient(lambda _, g, __: g * (1 + 1e-8 * generator.normal(size=g.shape))))

    assert not any("differences with" in cause for cause in found)


# The whole gradient.


def clipped(gradient: dict[str, Any], most: float = 1.0) -> dict[str, Any]:
    """As torch.nn.utils.clip_grad_norm_ does it."""
    norm = np.sqrt(sum(np.sum(each**2) for each in gradient.values()))
    return {name: each * min(1.0, most / (norm + 1e-6)) for name, each in gradient.items()}


def test_clipping_is_named_with_its_norm() -> None:
    def once(params: Any, features: Any, targets: Any) -> Any:
        return None, clipped(by_hand(LINEAR)(params, features, targets)[1], 2.5)

    def per_micro_batch(params: Any, features: Any, targets: Any) -> Any:
        total = {name: np.zeros_like(value) for name, value in params.items()}
        for rows in (slice(0, 20), slice(20, 40)):
            _, gradient = by_hand(LINEAR)(params, features[rows], targets[rows])
            total = clipped({name: total[name] + gradient[name] / 2 for name in total})
        return None, total

    (of_once,), planted = causes(once), causes(FAULTS["clipped to norm 1"](by_hand(LINEAR)))

    assert of_once.startswith("one factor 0.")
    assert of_once.endswith("over all parameters; the norm is 2.5: clipped?")
    assert {cause.partition("; ")[2] for cause in planted} == {"the norm is 1: clipped?"}
    assert causes(per_micro_batch) == {"the norm of all parameters together is 1: clipped, perhaps in parts?"}


@pytest.mark.parametrize("most", [0.1, 0.25, 1.5])
def test_clipping_is_named_however_small_the_norm(most: float) -> None:
    """Where 1e-6 is added to it, that is more of a small norm."""
    generator = np.random.default_rng(3)
    truth = {"a": 0.2 * generator.normal(size=3), "b": 2 * most + np.abs(generator.normal(size=2))}
    said = clipped(truth, most)

    cause = cause_of_all({k: Evidence(said[k], g, 1e-15 * np.abs(g), "float64", n=7) for k, g in truth.items()})

    assert cause.endswith(f"over all parameters; the norm is {most:g}: clipped?")


LAYERS = {"w": np.random.default_rng(5).normal(size=(6, 4)), "b": np.random.default_rng(6).normal(size=3)}
LAYERS["w"][:3] = 0.0  # units without a slope
VALUES = {"w": np.random.default_rng(7).normal(size=(6, 4)), "b": np.random.default_rng(8).normal(size=3)}


def layers(spoiled: dict[str, Any]) -> dict[str, Evidence]:
    return {
        name: Evidence(spoiled[name], truth, 1e-15 * np.abs(truth), "float64", N, parameter=VALUES[name])
        for name, truth in LAYERS.items()
    }


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda name, g: np.clip(g, -0.5, 0.5), "no value is beyond 0.5, and those that were are there: clipped value"),
        (
            lambda name, g: g * 0.25 / np.linalg.norm(g),
            "the norm of each parameter's gradient is 0.25 at most: clipped",
        ),
        (lambda name, g: np.sign(g), "each value is the sign of the true one"),
        (lambda name, g: g + 0.01 * VALUES[name], "an extra term 0.01 times each parameter: weight decay?"),
        (lambda name, g: g / 7, "one factor 0.142857 over all parameters"),
        (lambda name, g: np.where(g > 1, 0.9 * g, g), ""),
    ],
    ids=["by value", "one by one", "signs", "decay", "a factor", "no such thing"],
)
def test_what_was_done_to_all_parameters_is_named(spoil: Callable[[str, Rows], Any], words: str) -> None:
    said = cause_of_all(layers({name: spoil(name, truth) for name, truth in LAYERS.items()}))

    assert said.startswith(words)
    assert bool(said) == bool(words)


def test_decay_is_named_where_some_slopes_are_0() -> None:
    decayed = layers({name: truth + 0.01 * VALUES[name] for name, truth in LAYERS.items()})

    assert cause_of(decayed["w"]) == "an extra term 0.01 times the parameter: weight decay?"


def test_zeros_are_no_smaller_format() -> None:
    assert cause_of(Evidence(np.zeros(2), np.array([1e-18, 2e-18]), np.full(2, 1e-33), "float64", 1)) == (
        "zero in every element"
    )


def test_a_factor_over_all_parameters_is_no_clipping_unless_the_norm_is_round() -> None:
    assert causes(only_gradient(lambda _, gradient, __: 0.37 * gradient)) == {"one factor 0.37 over all parameters"}


@pytest.mark.thorough
def test_a_norm_that_is_round_by_chance_is_no_clipping() -> None:
    generator = np.random.default_rng(0)
    whole = Evidence(np.array([3.0, 4.0]), np.array([6.0, 8.5]), np.full(2, 1e-15), "float64", n=7)
    drawn = [
        Evidence(generator.normal(size=3), 9 * generator.normal(size=3), np.full(3, 1e-15), "float64", n=7)
        for _ in range(300)
    ]

    assert {cause_of_all({"": each}) for each in (whole, *drawn)} == {""}


def test_a_known_factor_keeps_its_name() -> None:
    truth = {"a": np.array([3.0, 4.0]), "b": np.array(12.0)}

    assert cause_of_all({k: Evidence(g / 7, g, 1e-15 * g, "float64", n=7) for k, g in truth.items()}) == ""


def test_float32_inside_float64_is_no_finite_difference() -> None:
    """Any float32 is a whole number of units in the last place of the loss, over 2^-26."""
    problem, data = (
        gdc.load_problem("logistic-regression"),
        gdc.datasets.example(gdc.load_problem("logistic-regression")),
    )
    params = drawn_parameters(problem, data)

    def narrow(params: Any, features: Any, targets: Any) -> Any:
        single = ({k: v.astype(np.float32) for k, v in params.items()}, features.astype("f4"), targets.astype("f4"))
        return None, {k: v.astype(float) for k, v in by_hand(problem)(*single)[1].items()}

    report = gdc.verify(problem, data, params, backends=[], implementations={"": narrow})

    assert all("float32 inside float64" in entry.cause for entry in report.entries)
    assert "differences" not in report.entries[1].cause


# The structure of an error.


def shape_of_errors() -> dict[str, tuple[Callable[[Rows, Rows], Any], str]]:
    a, b = np.array([0.3, -0.7, 1.1, 0.2, 0.9, -0.4]), np.array([0.5, 1.5, -0.25, 0.75])
    return {
        "a sum over axis 0": (lambda g, x: g + b, "the error is the same along axis 0"),
        "a sum over axis 1": (lambda g, x: g + a[:, None], "the error is the same along axis 1"),
        "a factor for each row": (lambda g, x: g * a[:, None], "off by a factor that is the same along axis 1"),
        "batch norm": (lambda g, x: g + b + x * b[::-1], "a constant plus a multiple of the parameter along axis 0"),
        "layer norm": (
            lambda g, x: g + a[:, None] * (x + 2),
            "a constant plus a multiple of the parameter along axis 1",
        ),
        "rank one": (lambda g, x: g + np.outer(a, b), "the error is of rank one"),
        "rms norm": (lambda g, x: g + x * (a[:, None] - a[::-1, None] * b), "divided by the parameter is of rank two"),
        "row for column": (lambda g, x: g + a[:, None] - a[::-1, None] * b, "the error is of rank two"),
    }


@pytest.mark.parametrize(("spoil", "words"), shape_of_errors().values(), ids=shape_of_errors())
def test_the_structure_of_an_error_is_named(spoil: Callable[[Rows, Rows], Any], words: str) -> None:
    generator = np.random.default_rng(1)
    truth, parameter = generator.normal(size=(2, 6, 4))
    actual = spoil(truth, parameter)

    found = cause_of(Evidence(actual, truth, 1e-15 * np.abs(truth), "float64", n=7, parameter=parameter))
    disturbed = cause_of(
        Evidence(
            actual * (1 + 0.1 * generator.random(actual.shape)),
            truth,
            1e-15 * np.abs(truth),
            "float64",
            n=7,
            parameter=parameter,
        )
    )

    assert words in found
    assert disturbed == "no common mistake explains it; all 24 elements are off"


def softmax(z: Rows) -> Any:
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def test_a_focal_loss_wrong_for_the_other_classes_is_told_so() -> None:
    one_hot = np.eye(4)[[0, 3, 1, 1, 2, 0]]

    def losses(xp: Any, z: Any) -> Any:
        power = xp.exp(z)
        p = xp.sum(power * one_hot, axis=1) / xp.sum(power, axis=1)
        return -((1 - p) ** 2) * xp.log(p)

    focal = gdc.Operation(losses, z=(6, 4))

    def without_the_slope_of_the_weight(params: Any, cotangents: Any, _: Any) -> Any:
        p = softmax(params["z"])
        own = (p * one_hot).sum(axis=1, keepdims=True)
        slope, wrong = 2 * (1 - own) * np.log(own) - (1 - own) ** 2 / own, -((1 - own) ** 2) / own
        gradient = np.where(one_hot == 1, slope, wrong) * own * (one_hot - p)
        return None, {"z": np.mean(cotangents, axis=0)[:, None] * gradient}

    report = gdc.verify(focal, focal.example(1), backends=[], implementations={"": without_the_slope_of_the_weight})

    assert [entry.cause for entry in report.entries] == [
        "off by a factor that is the same along axis 1, in 18 of 24 elements: all but one along that axis"
    ]


def test_few_numbers_have_no_structure() -> None:
    truth = np.array([[1.0, 2.0], [3.0, 4.5]])

    assert structure_of(truth * [[1.5, 1], [1, 2]], truth, 1e-15 * truth, truth) == ""


# Hessians: the diagonal, and some of the blocks.


def hessian_of_softmax(change: Callable[[Rows], Any]) -> Report:
    loss = gdc.Operation(lambda xp, z: xp.reshape(xp.log(xp.sum(xp.exp(z))) - z[1], (1,)), z=(5,))
    point = {"z": np.array([0.3, -0.2, 0.9, 0.1, -0.5])}
    one = gdc.Dataset([[1.0]], [0.0])

    def implementation(params: Any, _: Any, __: Any) -> Any:
        return {"z": change(softmax(params["z"]))}

    return gdc.verify(loss, one, point, backends=[], implementations={"": implementation}, derivative="hessian")


def test_the_diagonal_of_a_hessian_may_be_judged_alone() -> None:
    right, twice = hessian_of_softmax(lambda p: p * (1 - p)), hessian_of_softmax(lambda p: 2 * p * (1 - p))

    partly = "of 1 block, only what is given is judged: z, z: diagonal"
    assert [(entry.parameter, entry.verdict, entry.cause) for entry in right.entries] == [
        ("z, z: diagonal", "agree", partly)
    ]
    assert [entry.cause for entry in twice.entries] == [
        f"twice the diagonal; or a constant factor 2 in all 5 elements; {partly}"
    ]


def test_a_wrong_diagonal_of_a_block_is_named() -> None:
    def block(scale: float) -> Callable[[Rows], Any]:
        return lambda p: {"z": scale * np.diag(p * (1 - p)) + (np.diag(p * p) - np.outer(p, p)) * (scale != 1)}

    assert [e.cause for e in hessian_of_softmax(block(2.0)).entries] == ["twice the diagonal"]
    assert [e.cause for e in hessian_of_softmax(block(1.0)).entries] == ["only the diagonal is there"]


def test_some_blocks_of_a_hessian_may_be_judged_alone_and_the_report_says_which() -> None:
    def blocks(params: Any, features: Any, targets: Any) -> Any:
        return {"theta_0": {"theta_0": np.asarray(2.0)}, "theta_1": {"theta_0": 2 * features.mean(axis=0)}}

    report = gdc.verify(LINEAR, plane(), POINT, backends=[], implementations={"": blocks}, derivative="hessian")

    assert report
    assert [entry.parameter for entry in report.entries] == ["theta_0, theta_0", "theta_1, theta_0"]
    assert report.entries[0].cause == ("of 4 blocks, only what is given is judged: theta_0, theta_0, theta_1, theta_0")


def test_a_hessian_without_any_block_is_missing() -> None:
    nothing: Any = {"": lambda *_: {}}

    report = gdc.verify(LINEAR, plane(), POINT, backends=[], implementations=nothing, derivative="hessian")

    assert {(entry.verdict, entry.cause) for entry in report.entries} == {("wrong", "missing")}


# Rounding.


def gram(params: Any, features: Any, targets: Any) -> Any:
    """2/n (X^T X w - X^T y): near a good fit a small difference of large numbers."""
    x = np.column_stack([np.ones_like(targets), features])
    w = np.concatenate([params["theta_0"][None], params["theta_1"]])
    gradient = 2 * ((x.T @ x) @ w - x.T @ targets) / targets.dtype.type(len(targets))
    return None, {"theta_0": np.asarray(gradient[0]), "theta_1": gradient[1:]}


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_rounding_of_another_formula_is_told_from_a_mistake(dtype: str) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(20_000, 3))
    targets = 1 + features @ [1.0, 2.0, 3.0] + 1e-8 * generator.normal(size=20_000)
    fit = np.linalg.lstsq(np.column_stack([np.ones(20_000), features]), targets, rcond=None)[0]
    data, point = gdc.Dataset(features, targets), {"theta_0": fit[0], "theta_1": fit[1:]}

    found = causes(gram, data, point, dtype=dtype)

    assert found
    assert all(cause.startswith("rounding-sized: another algorithm? the error is at most ") for cause in found)


@pytest.mark.parametrize("scalars", [False, True])
def test_a_determinant_by_elimination_is_told_from_a_mistake(scalars: bool) -> None:
    """Right to 9e-16 where the truth is 0, by whatever names the four numbers go."""
    if scalars:
        det = gdc.Operation(lambda xp, a, b, c, d: xp.reshape(a * d - b * c, (1,)), a=(), b=(), c=(), d=())
        point: Any = dict(zip("abcd", (0.3, -0.7, 1.1, 0.9), strict=True))
        signs = {"ad": 1.0, "da": 1.0, "bc": -1.0, "cb": -1.0, "aa": 9e-16}
        hessian: Any = {a: {b: np.asarray(signs.get(a + b, 0.0)) for b in "abcd"} for a in "abcd"}
    else:
        det = gdc.Operation(lambda xp, m: xp.reshape(m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0], (1,)), m=(2, 2))
        point = {"m": [[0.3, -0.7], [1.1, 0.9]]}
        block = np.zeros((2, 2, 2, 2))
        block[0, 0, 1, 1] = block[1, 1, 0, 0] = 1.0
        block[0, 1, 1, 0] = block[1, 0, 0, 1] = -1.0
        block[0, 0, 0, 0] = 9e-16
        hessian = {"m": {"m": block}}
    one = gdc.Dataset([[1.0]], [0.0])

    report = gdc.verify(det, one, point, backends=[], implementations={"": lambda *_: hessian}, derivative="hessian")

    (wrong,) = [entry for entry in report.entries if entry.verdict == "wrong"]
    assert wrong.cause.startswith("rounding-sized: another algorithm?")


SHAPES = [(), (3,), (2, 2), (6, 4), (5, 5)]


def some_evidence(generator: np.random.Generator, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    n = int(generator.integers(2, 60))
    rows = generator.normal(size=(n, *shape))
    truth = np.asarray(rows.mean(axis=0))
    return {
        "truth": truth,
        "budget": 4 * unit_roundoff(dtype) * np.mean(np.abs(rows), axis=0),
        "dtype": dtype,
        "n": n,
        "parameter": np.asarray(generator.normal(size=shape)),
        "per_sample": rows,
        "weights": generator.uniform(0.5, 2, n),
        "loss": float(generator.random()),
    }


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_cause_is_named_for_a_random_wrong_gradient(shape: tuple[int, ...], dtype: str) -> None:
    generator = np.random.default_rng(0)
    nothing = ("no common mistake explains it", "off by a factor ", "off in ", "off by ")

    for _ in range(30):
        given = some_evidence(generator, shape, dtype)
        wrong = np.asarray(generator.normal(size=shape).astype(dtype), dtype=np.float64)
        if dtype == "float64":
            wrong = np.asarray(generator.normal(size=shape))

        assert cause_of(Evidence(wrong, **given)).startswith(nothing)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_mistake_is_named_where_there_is_only_rounding(shape: tuple[int, ...], dtype: str) -> None:
    generator = np.random.default_rng(0)

    for size in np.linspace(1, 10, 30):
        given = some_evidence(generator, shape, dtype)
        signs = np.where(generator.random(shape) < 0.5, -1.0, 1.0)
        off = given["truth"] + (size + generator.random(shape)) * given["budget"] * signs

        assert cause_of(Evidence(np.asarray(off), **given)).startswith("rounding-sized: another algorithm?")


def test_a_mistake_beyond_rounding_is_not_excused_as_rounding() -> None:
    generator = np.random.default_rng(0)

    for _ in range(20):
        given = some_evidence(generator, (6,), "float64")
        off = given["truth"] * (1 + 1e-10 * generator.normal(size=6))

        assert "rounding" not in cause_of(Evidence(off, **given))


def test_a_flipped_sign_is_named_however_small_the_gradient_is() -> None:
    truth = np.array([1e-12, -3e-13, 2e-12])
    rows = np.stack([truth + 1, truth - 1])

    found = cause_of(Evidence(-truth, truth, 1e-19 * np.ones(3), "float64", n=2, per_sample=rows))

    assert found.startswith("the sign is flipped")
