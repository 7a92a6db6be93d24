"""Models as people write them: recurrent ones, tokens and labels, batch norm, contrastive losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.arithmetic.balls import BallNumbers
from gdcompare.arithmetic.tape import Tape

torch: Any = pytest.importorskip("torch", reason="these models are written in torch")
jax: Any = pytest.importorskip("jax", reason="and ported to JAX")

import gdcompare_jax  # noqa: E402 - needs JAX
import gdcompare_torch  # noqa: E402 - needs torch

jnp, nn = jax.numpy, torch.nn
Module: Any = nn.Module
GENERATOR = np.random.default_rng(0)


def drawn(module: Any) -> Any:
    """The module with parameters from a seed of its own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
    return module


# Rows that part


def routed(factor: float = 1.0) -> Any:
    """Two experts, of which each row goes to one; the gate's gradient is so many times what it should be."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        gates, chosen = (x @ p["gate"]).softmax(-1).topk(1, -1)
        gates = factor * gates + (1 - factor) * gates.detach()
        found = torch.zeros(len(x), dtype=x.dtype)
        for k, expert in enumerate(p["experts"]):
            rows, place = torch.where(chosen == k)
            found.index_add_(0, rows, gates[rows, place] * torch.tanh(x[rows] @ expert))
        return (found - y) ** 2

    return gdcompare_torch.from_function(loss, {"gate": SPREAD[:3], "experts": SPREAD[3:, :].reshape(2, 3)})


SPREAD = np.random.default_rng(5).normal(size=(6, 2))


def test_each_row_may_go_to_an_expert_of_its_own(dtype: str) -> None:
    data = GENERATOR.normal(size=(6, 3)), GENERATOR.normal(size=6)
    called = routed(1.001).value_and_grad

    report = gdc.verify(routed(), data, dtype=dtype, implementations={"planted": called})

    wrong = [(entry.implementation, entry.parameter) for entry in report.entries if entry.verdict == "wrong"]
    assert wrong == [("planted", "gate")]
    with pytest.raises(ValueError, match="no program of one row serves all"):
        gdc.check_batch_laws(routed(), data)


# Rows that are compared with themselves


def process(distances: Any) -> Any:
    """The likelihood of a Gaussian process, its kernel of distances in units that are learned."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        kernel = torch.exp(-distances(x / p["scale"].exp(), x / p["scale"].exp())) + 0.1 * torch.eye(len(x)).to(x)
        lower = torch.linalg.cholesky(kernel)
        return y @ torch.cholesky_solve(y[:, None], lower)[:, 0] / 2 + lower.diagonal().log().sum()

    return gdcompare_torch.from_function(loss, {"scale": SPREAD[:3, 0]})


def test_the_distance_of_a_row_from_itself_is_0_and_has_no_slope(dtype: str) -> None:
    data = GENERATOR.normal(size=(5, 3)), GENERATOR.normal(size=5)

    assert gdc.verify(process(torch.cdist), data, dtype=dtype).verdict == "agree"
    assert gdc.verify(process(lambda x, z: torch.cdist(x, z.detach())), data, dtype=dtype).verdict == "inconclusive"


def test_a_number_less_itself_is_0_and_an_undecided_condition_less_itself_is_not() -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        z = x / jnp.exp(p["scale"])
        squares = ((z[:, None] - z[None]) ** 2).sum(-1)
        apart = squares > 0
        return jnp.exp(-jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)).sum() + 0 * y.sum()

    data = GENERATOR.normal(size=(5, 3)), GENERATOR.normal(size=5)
    report = gdc.verify(gdcompare_jax.from_function(loss, {"scale": SPREAD[:3, 0]}), data)

    tape = Tape(BallNumbers())
    third = tape.leaf([1.0]) / 3.0
    more, less = tape.greater(3 * third, 1.0), tape.less(3 * third, 1.0)
    assert report.verdict == "agree"
    assert tape.subtract(third, third).value[0, 0] == 0
    assert tape.subtract(more, less).value[0, 0].rad() >= 1


# Layouts that add


class Recurrent(Module):  # type: ignore[misc]  # torch comes without types here
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(2, 3, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.gru(x)[1][0].sum(dim=1)


def summed_biases(p: Any) -> Any:
    """Reset and update gates have one bias; the candidate has two, of which one is scaled by the reset gate."""
    return np.concatenate([p["gru.bias_ih_l0"][:6] + p["gru.bias_hh_l0"][:6], p["gru.bias_ih_l0"][6:]])


LAYOUT: dict[str, Any] = {
    "weight_ih": "gru.weight_ih_l0",
    "weight_hh": "gru.weight_hh_l0",
    "bias": summed_biases,
    "bias_n": lambda p: p["gru.bias_hh_l0"][6:],
}


def gru_of_equinox(layout: dict[str, Any]) -> gdc.Native:
    equinox = pytest.importorskip("equinox", reason="the port is to Equinox")
    cell = equinox.nn.GRUCell(2, 3, key=jax.random.key(0))

    def loss(model: Any, features: Any, targets: Any) -> Any:
        def one(x: Any) -> Any:
            state = jnp.zeros(3)
            for i in range(2):
                state = model(x[i], state)
            return jnp.sum(state)

        return (jax.vmap(one)(features) - targets) ** 2

    return gdcompare_jax.from_function(loss, cell, layout=layout, name="equinox")


@pytest.mark.thorough
def test_a_gru_is_ported_with_the_sum_of_two_biases_and_its_gradient_goes_back_to_both() -> None:
    source = gdcompare_torch.from_module(drawn(Recurrent()), lambda o, t: (o - t) ** 2, name="torch")
    data = GENERATOR.normal(size=(3, 2, 2)), np.ones(3)

    gdc.compare([source, gru_of_equinox(LAYOUT)], data, rows=0).assert_agree()
    forgotten = LAYOUT | {"bias": lambda p: np.concatenate([p["gru.bias_ih_l0"][:6], summed_biases(p)[6:]])}
    with pytest.raises(ValueError, match=r"'gru.bias_hh_l0'.* of the source has 6 of 9 elements that are not used"):
        gdc.compare([source, gru_of_equinox(forgotten)], data, rows=0)


# Whole numbers


class Tokens(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 3), nn.Linear(3, 4)

    def forward(self, tokens: Any) -> Any:
        return self.head(self.embedding(tokens).mean(dim=1))


def token_loss(p: Any, tokens: Any, labels: Any) -> Any:
    scores = p["embedding"]["weight"][tokens].mean(axis=1) @ p["head"]["weight"].T + p["head"]["bias"]
    return -jax.nn.log_softmax(scores)[jnp.arange(len(labels)), labels]


TOKENS = np.array([[0, 2, 2], [6, 1, 5], [3, 4, 0]]), np.array([3, 0, 1])


@pytest.mark.thorough
@pytest.mark.parametrize("as_dataset", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tokens_and_labels_are_integers_for_the_models_that_take_them(as_dataset: bool, dtype: str) -> None:
    source = gdcompare_torch.from_module(drawn(Tokens()), nn.functional.cross_entropy, name="torch")
    start = {"embedding": {"weight": np.zeros((7, 3))}, "head": {"weight": np.zeros((4, 3)), "bias": np.zeros(4)}}
    port = gdcompare_jax.from_function(token_loss, start, name="jax")

    report = gdc.compare([source, port], gdc.Dataset(*TOKENS) if as_dataset else TOKENS, dtype=dtype)

    report.assert_agree()
    assert [entry.parameter for entry in report.entries][:2] == ["loss", "embedding.weight"]  # "embedding/weight" is it


def test_integers_are_handed_over_as_integers_and_floats_of_a_dataset_as_floats() -> None:
    seen: list[Any] = []

    def loss(p: Any, features: Any, targets: Any) -> Any:
        seen.append((str(features.dtype), str(targets.dtype)))
        return ((features * p["w"]).sum(axis=1) - targets) ** 2

    for adapter, kind in ((gdcompare_torch, torch.float64), (gdcompare_jax, None)):
        start = {"w": torch.ones(3, dtype=kind) if kind else np.ones(3)}
        for features in (TOKENS[0], TOKENS[0].astype(float)):
            native = adapter.from_function(loss, start)
            native(native.parameters, features, np.array([1.5, 2.0, 3.0]))
            assert seen[-1][0].endswith(str(features.dtype))
            assert seen[-1][1].endswith("float64")


def test_a_model_that_wants_floats_gets_floats_for_integers() -> None:
    source = gdcompare_torch.from_module(drawn(nn.Linear(3, 1)), lambda o, t: (o[:, 0] - t) ** 2, name="torch")
    port = gdcompare_torch.from_function(
        lambda p, x, y: ((x @ p["weight"].T + p["bias"])[:, 0] - y) ** 2, source.parameters, name="function"
    )

    gdc.compare([source, port], TOKENS).assert_agree()


# Losses that couple their rows


def in_torch(training: bool = True) -> gdc.Native:
    module = drawn(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0)))
    return gdcompare_torch.from_module(module.train(training), nn.functional.mse_loss, name="torch")


def in_linen(epsilon: float = 1e-5) -> gdc.Native:
    linen = pytest.importorskip("flax.linen", reason="the port is to Flax")
    model = linen.Sequential(
        [linen.Dense(4), linen.BatchNorm(use_running_average=False, epsilon=epsilon), linen.Dense(1)]
    )
    variables = model.init(jax.random.key(0), jnp.zeros((2, 3)))

    def loss(p: Any, features: Any, targets: Any) -> Any:
        statistics = {"batch_stats": variables["batch_stats"]}
        outputs, _ = model.apply({"params": p} | statistics, features, mutable=["batch_stats"])
        return (outputs[:, 0] - targets) ** 2

    layout: dict[str, Any] = {
        "layers_0/kernel": lambda p: p["0.weight"].T,
        "layers_0/bias": "0.bias",
        "layers_1/scale": "1.weight",
        "layers_1/bias": "1.bias",
        "layers_2/kernel": lambda p: p["2.weight"].T,
        "layers_2/bias": "2.bias",
    }
    return gdcompare_jax.from_function(loss, variables["params"], layout=layout, name="linen")


POINTS = GENERATOR.normal(size=(6, 3)), GENERATOR.normal(size=6)
LAYERS = {"0": "layers_0", "1": "layers_1", "2": "layers_2"}


@pytest.mark.thorough
def test_batch_norm_in_training_mode_is_compared_by_the_gradient_of_the_batch() -> None:
    report = gdc.compare([in_torch(), in_linen()], POINTS, layers=LAYERS)

    report.assert_agree()
    assert {entry.law for entry in report.entries} == {"function", "own truth"}  # and none of single samples
    assert {(entry.parameter, entry.verdict) for entry in report.layers} == {
        (name, "agree") for name in [*LAYERS, "(output)"]
    }
    said = report.explanation()
    assert "the loss of 'torch' couples its rows: it normalises by the statistics of the batch (1: BatchNorm1d)" in said
    assert "the loss of 'linen' couples its rows: of 6 rows it is" in said
    assert "layers without a counterpart: 1 of 'torch' (3); say which correspond" in said


@pytest.mark.thorough
def test_a_module_of_nnx_in_training_mode_needs_no_running_statistics() -> None:
    nnx = pytest.importorskip("flax.nnx", reason="the port is to Flax")
    random = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=random), nnx.BatchNorm(4, rngs=random), nnx.Linear(4, 1, rngs=random))
    layout: dict[str, Any] = {
        "layers/0/kernel": lambda p: p["0.weight"].T,
        "layers/0/bias": "0.bias",
        "layers/1/scale": "1.weight",
        "layers/1/bias": "1.bias",
        "layers/2/kernel": lambda p: p["2.weight"].T,
        "layers/2/bias": "2.bias",
    }

    port = gdcompare_jax.from_function(lambda m, x, y: (m(x)[:, 0] - y) ** 2, model, layout=layout, name="nnx")

    assert set(port.parameters) == set(layout)
    gdc.compare([in_torch(), port], POINTS, rows=0).assert_agree()


@pytest.mark.thorough
def test_the_layer_at_fault_in_a_batch_is_named_first() -> None:
    report = gdc.compare([in_torch(), in_linen(epsilon=1e-3)], POINTS, layers=LAYERS, rows=0)

    assert report.verdict == "wrong"
    said = report.explanation()
    assert said.startswith("'torch' and 'linen' are different functions, first at 1: another epsilon inside the root")
    assert "first layer to differ: 1[" in said


def test_of_a_model_in_training_and_one_in_evaluation_the_report_says_which_couples_its_rows() -> None:
    module = drawn(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0))).eval()
    evaluating = gdcompare_torch.from_module(module, nn.functional.mse_loss, name="evaluating")

    report = gdc.compare([in_torch(), evaluating], POINTS)

    assert report.verdict == "wrong"
    assert "that of 'evaluating' does not" in report.explanation()


def contrastive(xp: Any, p: Any, features: Any) -> Any:
    """The two views of a row belong together, and those of other rows apart."""
    one, other = features[:, 0] @ p["w"], features[:, 1] @ p["w"]
    scores = one @ other.T
    return xp.log(xp.exp(scores).sum(1)) - xp.diagonal(scores, 0, 0, 1)


@pytest.mark.thorough
def test_a_contrastive_loss_is_noticed_to_couple_its_rows() -> None:
    start = {"w": GENERATOR.normal(size=(3, 2))}
    source = gdcompare_torch.from_function(lambda p, x, y: contrastive(torch, p, x), start, name="torch")
    port = gdcompare_jax.from_function(lambda p, x, y: contrastive(jnp, p, x), start, name="jax")

    report = gdc.compare([source, port], (GENERATOR.normal(size=(5, 2, 3)), np.zeros(5)))

    report.assert_agree()
    assert "per sample" not in {entry.law for entry in report.entries}
    assert [remark.partition(": of")[0] for remark in report.remarks][:2] == [
        "the loss of 'torch' couples its rows",
        "the loss of 'jax' couples its rows",
    ]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_mean_and_a_sum_couple_no_rows(reduction: str) -> None:
    def loss(p: Any, features: Any, targets: Any) -> Any:
        return getattr((features @ p["w"] - targets) ** 2, reduction)()

    models = [gdcompare_torch.from_function(loss, {"w": np.ones(3)}, name=name) for name in ("one", "other")]

    report = gdc.compare(models, POINTS)

    assert "per sample" in {entry.law for entry in report.entries}
    assert not any("couples" in remark for remark in report.remarks)


# What is seen of a model


@pytest.mark.thorough
def test_layers_of_an_nnx_model_that_was_split_are_seen() -> None:
    nnx = pytest.importorskip("flax.nnx", reason="checks a model of Flax")
    random = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(3, 2, rngs=random), jnp.tanh, nnx.Linear(2, 1, rngs=random))
    graph, state = nnx.split(model)
    native = gdcompare_jax.from_function(lambda p, x, y: (nnx.merge(graph, p)(x)[:, 0] - y) ** 2, state)
    call = nnx.Linear.__call__

    layers = native.layers(native.parameters, POINTS[0][:1], POINTS[1][:1])

    assert [layer.name for layer in layers] == ["layers/0", "layers/2", "(output)"]
    assert nnx.Linear.__call__ is call


@pytest.mark.thorough
def test_what_shows_no_layer_is_said() -> None:
    def loss(p: Any, features: Any, targets: Any) -> Any:
        return ((features @ p["weight"].T + p["bias"])[:, 0] - targets) ** 2

    source = gdcompare_torch.from_module(drawn(nn.Linear(3, 1)), lambda o, t: (o[:, 0] - t) ** 2, name="torch")
    port = gdcompare_jax.from_function(loss, source.parameters, name="jax")

    report = gdc.compare([source, port], POINTS)

    assert report.verdict == "agree"
    assert report.remarks == (f"no layer was seen in 'jax': {port.unseen}",)
    assert report.remarks[0] in report.explanation()


@pytest.mark.thorough
@pytest.mark.parametrize("adapter", [gdcompare_torch, gdcompare_jax], ids=["torch", "jax"])
def test_a_float32_constant_inside_float64_is_said_where_it_makes_a_difference(adapter: Any) -> None:
    asarray = torch.tensor if adapter is gdcompare_torch else jnp.asarray

    def model(constant: Any, name: str) -> gdc.Native:
        return adapter.from_function(lambda p, x, y: (x @ p["w"] * constant - y) ** 2, {"w": np.ones(3)}, name=name)  # type: ignore[no-any-return]

    half, tenth = (asarray(np.float32(value)) for value in (0.5, 0.1))

    report = gdc.compare([model(0.1, "right"), model(tenth, "rounded")], POINTS, rows=0)
    exact = gdc.compare([model(0.25, "right"), model(half, "other")], POINTS, rows=0)

    assert report.verdict == exact.verdict == "wrong"
    assert any(each.startswith("of 'rounded': it holds float32 inside float64: ") for each in report.remarks)
    assert not any("float32" in each for each in exact.remarks)


def test_parameters_and_buffers_in_float32_are_no_float32_inside() -> None:
    module = drawn(nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1), nn.Flatten(0))).eval()
    module[1].running_mean.fill_(0.1)
    native = gdcompare_torch.from_module(module, nn.BCEWithLogitsLoss(pos_weight=torch.tensor([0.1])))

    assert native.narrowed(native.parameters, POINTS[0], np.ones(6)) == []


def test_a_float32_constant_is_said_of_a_model_that_a_formula_judges() -> None:
    tenth = torch.tensor(0.1)
    native = gdcompare_torch.from_function(
        lambda p, x, y: (x @ p["theta_1"] + p["theta_0"] * tenth * 10 - y) ** 2,
        {"theta_0": np.zeros(()), "theta_1": np.zeros(3)},
    )

    report = gdc.verify("linear-regression", gdc.Dataset(*POINTS), backends=[], implementations={"mine": native})

    first = next(entry for entry in report.entries if entry.verdict == "wrong")
    assert "it holds float32 inside float64: an array () of float32, in aten." in first.cause


# Parameters in any order


def test_parameters_are_taken_by_name_in_whatever_order_they_are_given() -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        return (x @ p["slope"] + x @ p["other"] ** 2 - y) ** 2

    data, at = (
        (GENERATOR.normal(size=(4, 2)), GENERATOR.normal(size=4)),
        {"slope": np.ones(2), "other": np.array([2.0, -1])},
    )
    model = gdcompare_jax.from_function(loss, at)  # whose leaves JAX sorts by name

    assert list(model.parameters) == ["other", "slope"]
    assert gdc.verify(model, data, at).verdict == "agree"
