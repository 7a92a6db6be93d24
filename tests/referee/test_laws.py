"""The batch laws hold for right backends and functions, and name the culprit for wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

import gdcompare as gdc
from gdcompare.backend import Backend, PerSampleGrad, Precision, Reduction, Run, Step, ValueAndGrad
from tests.marking import on_variants

LAWS = {
    "mean of per-sample gradients",
    "partition 20 + 10 + 10",
    "permutation",
    "duplication",
    "sum = n x mean",
    "accumulated sums 20 + 20",
    "linearity in the loss",
    "copies for weights",
    "padding with weight 0",
    "unbiased: all 20 batches of 3 in 6",
    "variance of these batches",
}


@pytest.mark.covering
@on_variants
def test_every_law_holds_for_every_backend(backend: Backend[Any], linear_model: gdc.Problem) -> None:
    data = gdc.datasets.example(linear_model)

    report = gdc.check_batch_laws(linear_model, data, None, backend)

    report.assert_agree()
    assert {entry.law for entry in report.entries} == LAWS


@pytest.mark.thorough_on("jax")
def test_laws_hold_to_the_last_bit_on_integer_lattices(backend: Backend[Any]) -> None:
    lattice = gdc.datasets.integer_lattice(samples=16)

    report = gdc.check_batch_laws("linear-regression", lattice, {"theta_0": 1, "theta_1": [2, -1, 3]}, backend)

    report.assert_agree()
    adding_and_halving = ("mean", "partition", "permutation", "duplication")
    exact = [entry for entry in report.entries if entry.law.startswith(adding_and_halving)]
    assert len(exact) == 8
    assert all(entry.error_ulps == 0 and entry.detectable < 1e-300 for entry in exact)


def weighted(data: gdc.Dataset, weights: ArrayLike) -> gdc.Dataset:
    return gdc.Dataset(data.features, data.targets, data.name, weights)


@pytest.mark.covering
@pytest.mark.thorough_on("jax")
@pytest.mark.parametrize("zeros", [0, 2])
def test_every_law_holds_for_weighted_data(backend: Backend[Any], linear_model: gdc.Problem, zeros: int) -> None:
    weights = np.arange(40) % 5 + 0.25
    weights[7 : 7 + zeros] = weights[:zeros] = 0.0
    data = weighted(gdc.datasets.example(linear_model), weights)

    report = gdc.check_batch_laws(linear_model, data, None, backend)

    report.assert_agree()
    about_equal_rows = {"variance of these batches"} | ({"unbiased: all 20 batches of 3 in 6"} if zeros else set())
    assert {entry.law for entry in report.entries} == LAWS - about_equal_rows


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_laws_hold_for_few_rows(n: int) -> None:
    generator = np.random.default_rng(n)
    data = gdc.Dataset(generator.normal(size=(n, 2)), generator.normal(size=n))

    gdc.check_batch_laws("linear-regression", data, None, "numpy").assert_agree()


@final
@dataclass(frozen=True)
class Spoiled(Backend[NDArray[Any]]):
    """The NumPy backend with its results put through `spoil(gradient, features, weights)`: the mean, or the rows."""

    mean: Callable[..., Any] | None = None
    rows: Callable[..., Any] | None = None
    dtype: Precision = "float64"
    name: ClassVar[str] = "spoiled"
    xp: ClassVar[Any] = np
    by_hand: ClassVar[bool] = True

    def _right(self) -> Backend[Any]:
        return gdc.load_backend("numpy", self.dtype)

    def asarray(self, values: ArrayLike) -> NDArray[Any]:
        return np.asarray(self._right().asarray(values))

    def to_numpy(self, array: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(array)

    def value_and_grad(self, problem: gdc.Problem, reduction: Reduction = "mean") -> ValueAndGrad[NDArray[Any]]:
        right = self._right().value_and_grad(problem, reduction)

        def spoiled(params: Any, features: Any, targets: Any, weights: Any = None) -> Any:
            loss, gradient = right(params, features, targets, weights)
            spoil = self.mean or (lambda g, *_: g)
            return loss, {name: np.asarray(spoil(g, features, weights)) for name, g in gradient.items()}

        return spoiled

    def per_sample_grad(self, problem: gdc.Problem, reduction: Reduction = "mean") -> PerSampleGrad[NDArray[Any]]:
        right = self._right().per_sample_grad(problem, reduction)

        def spoiled(params: Any, features: Any, targets: Any, weights: Any = None) -> Any:
            spoil = self.rows or (lambda g, *_: g)
            gradients = right(params, features, targets, weights)
            return {name: np.asarray(spoil(g, features, weights)) for name, g in gradients.items()}

        return spoiled

    def scan(self, step: Step[NDArray[Any]]) -> Run[NDArray[Any]]:
        return self._right().scan(step)


def first_sample_doubled(gradient: Any, *_: Any) -> Any:
    return np.concatenate([2 * gradient[:1], gradient[1:]])


def ten_rows_divided_by_nine(gradient: Any, features: Any, _: Any) -> Any:
    return gradient * (10 / 9) if len(features) == 10 else gradient


def order_matters(gradient: Any, features: Any, _: Any) -> Any:
    return gradient if features[0, 0] == gdc.datasets.noisy_line().features[0, 0] else gradient * (1 + 1e-9)


def unequal_weights_matter(gradient: Any, _: Any, weights: Any) -> Any:
    return gradient if weights is None else gradient * (1 + 1e-8)


def padding_counts(gradient: Any, features: Any, weights: Any) -> Any:
    """Divide by the number of rows where the sum of the weights belongs."""
    return gradient if weights is None else gradient * (np.sum(weights) / len(features))


def twice_for(rows: int) -> Callable[..., Any]:
    return lambda gradient, features, _: 2 * gradient if len(features) == rows else gradient


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("spoiled", "law", "cause"),
    [
        (Spoiled(rows=first_sample_doubled), "mean of per-sample gradients", "wrong in 1 of 40 samples: 0"),
        (
            Spoiled(rows=lambda g, *_: g / 40),
            "mean of per-sample gradients",
            "wrong in 40 of 40 samples: 0, 1, 2, ... (a constant factor 1/n = 0.025 in each of them)",
        ),
        (
            Spoiled(rows=lambda g, *_: 2 * g),
            "mean of per-sample gradients",
            "wrong in 40 of 40 samples: 0, 1, 2, ... (a constant factor 2 in each of them)",
        ),
        (
            Spoiled(rows=lambda g, *_: g * (1 + 1e-11)),
            "mean of per-sample gradients",
            "(a constant factor 1 + 1e-11 in each of them)",
        ),
        (
            Spoiled(mean=ten_rows_divided_by_nine),
            "partition 20 + 10 + 10",
            "wrong in 2 of 3 batches: rows 20 to 29 (1.111111111 times the truth)",
        ),
        (Spoiled(mean=order_matters), "permutation", "wrong in 1 of 1 batches: all rows"),
        (Spoiled(mean=twice_for(80)), "duplication", "all rows, twice (2 times the truth)"),
        (
            Spoiled(mean=unequal_weights_matter),
            "linearity in the loss",
            "wrong in 2 of 2 batches: weights w (1.00000001 times the truth)",
        ),
        (
            Spoiled(mean=padding_counts),
            "padding with weight 0",
            "wrong in 1 of 1 batches: padded (0.975 times the truth)",
        ),
        (Spoiled(mean=twice_for(80)), "copies for weights", "copies (2 times the truth)"),
        (Spoiled(mean=lambda g, *_: g / 40), "sum = n x mean", "all rows (0.025 times the truth)"),
        (
            Spoiled(mean=lambda g, features, _: 2 * g if len(features) == 20 else g),
            "accumulated sums 20 + 20",
            "wrong in 2 of 2 batches: rows 0 to 19 (2 times the truth), rows 20 to 39 (2 times the truth)",
        ),
        (Spoiled(mean=twice_for(3)), "unbiased: all 20 batches of 3 in 6", "wrong in 20 of 20 batches"),
        (Spoiled(mean=twice_for(3)), "variance of these batches", "(2 times the truth)"),
    ],
)
def test_a_broken_law_names_the_culprit(spoiled: Spoiled, law: str, cause: str) -> None:
    report = gdc.check_batch_laws("linear-regression", gdc.datasets.noisy_line(), None, spoiled)

    found = [entry for entry in report.entries if entry.law == law]
    assert {entry.verdict for entry in found} == {"wrong"}
    assert all(cause in entry.cause for entry in found), [entry.cause for entry in found]


@pytest.mark.thorough
def test_samples_off_by_different_factors_are_given_none() -> None:
    spoiled = Spoiled(rows=lambda g, *_: g * np.linspace(1.5, 2, len(g)).reshape(-1, *[1] * (g.ndim - 1)))

    report = gdc.check_batch_laws("linear-regression", gdc.datasets.noisy_line(), None, spoiled)

    assert {entry.cause for entry in report.entries if entry.law == "mean of per-sample gradients"} == {
        "wrong in 40 of 40 samples: 0, 1, 2, ..."
    }


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "agree"), (1.001, "wrong")])
def test_gradients_whose_squares_vanish_are_judged_like_others(factor: float, verdict: str) -> None:
    rows = gdc.Dataset(np.array([[68.75], [68.5]]), np.zeros(2))
    params = {"theta_0": np.array(0.0), "theta_1": np.array([-10.0])}  # exp(-687.5) = 2.6e-299

    def tail_rows(params: Any, features: Any, targets: Any) -> Any:
        odds = np.exp(params["theta_0"] + features @ params["theta_1"])
        return {"theta_0": factor * odds, "theta_1": factor * odds[:, None] * features}

    def tail(params: Any, features: Any, targets: Any) -> Any:
        gradient = {name: each.mean(axis=0) for name, each in tail_rows(params, features, targets).items()}
        return gradient["theta_0"] / factor, gradient

    judged = gdc.verify("logistic-regression", rows, params=params, backends=[], implementations={"tail": tail})
    report = gdc.check_batch_laws("logistic-regression", rows, params, tail, per_sample=tail_rows)

    assert (judged.verdict, report.verdict) == (verdict, verdict)
    causes = [str(entry.cause) for entry in report.entries if entry.verdict == "wrong"]
    assert (verdict == "agree") or any("a constant factor 1.001 in each of them" in each for each in causes), causes


def test_labels_are_checked_before_any_work() -> None:
    with pytest.raises(ValueError, match="LogisticRegression takes targets 0 or 1"):
        gdc.check_batch_laws("logistic-regression", gdc.datasets.noisy_line(), None, "numpy")


# Somebody's own functions

DATA, PARAMS = gdc.datasets.noisy_line(), {"theta_0": 1.0, "theta_1": [0.5]}
OF_MEANS = {
    "partition 20 + 10 + 10",
    "permutation",
    "duplication",
    "copies for weights",
    "unbiased: all 20 batches of 3 in 6",
    "variance of these batches",
}
OF_ROWS = {"mean of per-sample gradients", "each per-sample gradient"}
OF_WEIGHTS = {"linearity in the loss", "padding with weight 0"}


def own_rows(params: Any, features: Any, targets: Any) -> dict[str, Any]:
    residuals = params["theta_0"] + features @ params["theta_1"] - targets
    return {"theta_0": 2 * residuals, "theta_1": 2 * residuals[:, None] * features}


def own(params: Any, features: Any, targets: Any) -> Any:
    return None, {name: each.mean(axis=0) for name, each in own_rows(params, features, targets).items()}


def own_weighted(params: Any, features: Any, targets: Any, weights: Any = None) -> Any:
    rows = own_rows(params, features, targets)
    return None, {name: np.average(each, axis=0, weights=weights) for name, each in rows.items()}


def own_weighted_rows(params: Any, features: Any, targets: Any, weights: Any) -> Any:
    shares = len(weights) * weights / weights.sum()
    return {name: (shares * each.T).T for name, each in own_rows(params, features, targets).items()}


def check(function: Any, per_sample: Any = None, data: gdc.Dataset = DATA, **others: Any) -> gdc.Report:
    return gdc.check_batch_laws("linear-regression", data, PARAMS, function, per_sample=per_sample, **others)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_laws_hold_for_a_right_function_and_its_rows(dtype: str) -> None:
    report = check(own, own_rows, dtype=dtype, name="mine")

    report.assert_agree()
    assert {entry.law for entry in report.entries} == OF_MEANS | OF_ROWS
    assert {entry.implementation for entry in report.entries} == {"mine"}
    assert report.entries[0].cause == "laws left out: of sums, as it returns means, of weights, as it takes none"


@pytest.mark.parametrize(("function", "more"), [(own, set[str]()), (own_weighted, OF_WEIGHTS)])
def test_what_a_function_does_not_offer_is_left_out_and_said(function: Any, more: set[str]) -> None:
    report = check(function)

    report.assert_agree()
    assert {entry.law for entry in report.entries} == OF_MEANS | more
    assert "of per-sample gradients, as none were given" in report.entries[0].cause
    assert ("of weights" in report.entries[0].cause) == (not more)


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [own_rows, own_weighted_rows])
def test_rows_of_weighted_data_may_be_weighted_or_not(rows: Any) -> None:
    report = check(own_weighted, rows, weighted(DATA, np.arange(40) % 5 + 0.25))

    report.assert_agree()
    assert {entry.law for entry in report.entries} > OF_ROWS


@pytest.mark.thorough
def test_a_native_model_brings_its_rows() -> None:
    def gradient(params: Any, features: Any, targets: Any) -> Any:
        found = own({"theta_0": params["b"], "theta_1": params["w"]}, features, targets)[1]
        return {"b": found["theta_0"], "w": found["theta_1"]}

    right, halved = (
        gdc.from_functions(
            lambda *_: 0.0,
            lambda *point, factor=factor: {name: factor * each for name, each in gradient(*point).items()},
            layout={"w": "theta_1", "b": "theta_0"},
        )
        for factor in (1.0, 0.5)
    )

    agrees, wrong = check(right), check(halved)

    agrees.assert_agree()
    assert {entry.law for entry in agrees.entries} == OF_MEANS | OF_ROWS | OF_WEIGHTS
    assert "wrong in 40 of 40 samples: 0, 1, 2, ... (a constant factor 0.5 in each of them)" in wrong.entries[0].cause


def of_rows(spoil: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *point: {name: spoil(each) for name, each in own_rows(*point).items()}


def of_mean(spoil: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda p, x, y: (None, {name: spoil(each, x) for name, each in own(p, x, y)[1].items()})


def changing(params: Any, features: Any, targets: Any) -> Any:
    targets -= params["theta_0"] + features @ params["theta_1"]
    return None, {"theta_0": -2 * targets.mean(), "theta_1": -2 * targets @ features / len(targets)}


def last_batch_dropped(params: Any, features: Any, targets: Any) -> Any:
    """The mean over batches of 8, without the one that is not full."""
    full = max(8, len(features) // 8 * 8)
    return own(params, features[:full], targets[:full])


ONCE_DOUBLED = "wrong in 1 of 40 samples: 0 (a constant factor 2 in each of them)"


@pytest.mark.parametrize(
    ("function", "rows", "law", "cause"),
    [
        (own, of_rows(first_sample_doubled), "mean of per-sample gradients", ONCE_DOUBLED),
        (own, of_rows(first_sample_doubled), "each per-sample gradient", ONCE_DOUBLED),
        (own, of_rows(lambda g: 2 * g), "mean of per-sample gradients", "(a constant factor 2 in each of them)"),
        (own, of_rows(lambda g: g / 40), "each per-sample gradient", "(a constant factor 1/n = 0.025 in each of them)"),
        (own, of_rows(lambda g: g[::-1]), "each per-sample gradient", "wrong in 40 of 40 samples"),
        (own, of_rows(lambda g: g[:-1]), "rows", "shape (39"),
        (own, of_rows(lambda g: g.astype(np.float32)), "rows", "dtype float32 where float64 belongs"),
        (own, lambda *_: [], "rows", "it returned an empty list, where {name: (n, *shape)} is due"),
        (own, lambda *_: 1 / 0, "rows", "it raised ZeroDivisionError: division by zero"),
        (of_mean(lambda g, _: 2 * g), None, "duplication", "all rows, twice (2 times the truth)"),
        (
            of_mean(lambda g, x: g / len(x)),
            None,
            "unbiased: all 20 batches of 3 in 6",
            "(0.3333333333 times the truth)",
        ),
        (of_mean(lambda g, x: order_matters(g, x, None)), None, "permutation", "wrong in 1 of 1 batches: all rows"),
        (of_mean(lambda g, x: g[()] if len(x) != 10 else g[None]), None, "gradient", "rows 20 to 29: shape (1"),
        (last_batch_dropped, None, "partition 20 + 10 + 10", "wrong in 3 of 3 batches: rows 0 to 19"),
        (
            of_mean(lambda g, _: g * np.inf),
            None,
            "duplication",
            "wrong in 1 of 1 batches: all rows, twice (not finite)",
        ),
        (of_mean(lambda g, _: g * np.nan), None, "permutation", "wrong in 1 of 1 batches: all rows (not finite)"),
        (changing, None, "gradient", "it changed its inputs: targets"),
        (lambda *_: 1 / 0, None, "gradient", "it raised ZeroDivisionError: division by zero"),
        (lambda *_: {}, None, "gradient", "it returned a dict of 0, where (loss, {name: gradient}) is due"),
        (lambda *_: (None, {"theta_0": 1.0}), None, "gradient", "missing"),
    ],
)
def test_a_wrong_function_is_refused_by_the_law_that_it_breaks(function: Any, rows: Any, law: str, cause: str) -> None:
    report = check(function, rows, name="mine")

    found = [entry for entry in report.entries if entry.law == law]
    assert report.verdict == "wrong"
    assert any(entry.verdict == "wrong" and cause in entry.cause for entry in found), report.entries


def test_weights_that_a_function_takes_and_neglects_are_noticed_in_the_padding() -> None:
    report = check(lambda p, x, y, weights=None: own(p, x, y))

    assert {entry.law for entry in report.entries if entry.verdict == "wrong"} == {"padding with weight 0"}


@pytest.mark.parametrize(
    ("function", "others", "kind", "words"),
    [
        (3.0, {}, TypeError, "laws are checked on a backend, its name, or a function"),
        (Spoiled, {}, TypeError, "laws are checked on a backend, its name, or a function"),
        (own, {"per_sample": {"theta_0": 1.0}}, TypeError, "per_sample is a function f"),
        ("numpy", {"per_sample": own_rows}, ValueError, "per_sample and name go with an implementation"),
        (own, {"dtype": "float16"}, ValueError, "float16"),
        (gdc.load_backend("numpy"), {"dtype": "float32"}, ValueError, "computes in float64"),
    ],
)
def test_what_is_no_function_is_refused_before_any_work(
    function: Any, others: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        check(function, **others)
