"""Native models: their parameters are matched by what a layout says, and nothing happens silently."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.models.matching import Layout, match
from gdcompare.referee.counterexample import counterexample
from gdcompare.testing import GradientError, assert_gradients_agree

LINEAR = gdc.load_problem("linear-regression")
PLANE = gdc.Dataset(
    np.random.default_rng(0).normal(size=(8, 3)).round(2), np.random.default_rng(1).normal(size=8).round(2)
)

# A source's shapes, a model's, and a layout between them.
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any], Layout]] = {
    "same names": ({"w": (2, 3), "b": ()}, {"b": (), "w": (2, 3)}, {}),
    "renamed": ({"w": (2, 3)}, {"weight": (2, 3)}, {"weight": "w"}),
    "transposed": ({"w": (2, 3)}, {"w": (3, 2)}, {"w": lambda p: p["w"].T}),
    "convolution": ({"k": (2, 2, 3, 4)}, {"w": (4, 3, 2, 2)}, {"w": lambda p: p["k"].transpose(3, 2, 0, 1)}),
    "fused": (
        {"q": (2, 3), "k": (2, 3), "v": (4, 3)},
        {"in": (8, 3)},
        {"in": lambda p: np.concatenate([p["q"], p["k"], p["v"]])},
    ),
    "split": ({"in": (5, 3)}, {"q": (2, 3), "k": (3, 3)}, {"q": lambda p: p["in"][:2], "k": lambda p: p["in"][2:]}),
    "interleaved": ({"in": (6,)}, {"a": (3,), "b": (3,)}, {"a": lambda p: p["in"][::2], "b": lambda p: p["in"][1::2]}),
    "tied": ({"E": (2, 3)}, {"in": (2, 3), "out": (3, 2)}, {"in": "E", "out": lambda p: p["E"].T}),
    "repeated": ({"g": (2,)}, {"g": (2, 3)}, {"g": lambda p: np.repeat(p["g"][:, None], 3, axis=1)}),
    "scalars": ({"a": (), "b": ()}, {"ab": (2,)}, {"ab": lambda p: np.stack([p["a"], p["b"]])}),
    "paths": ({"layers/0/w": (2, 3), "b": ()}, {"layers.0.w": (2, 3), "x.b": ()}, {"x/b": "b"}),
    "summed": ({"ih": (2,), "hh": (2,)}, {"bias": (2,)}, {"bias": lambda p: p["ih"] + p["hh"]}),
    "summed in part": (
        {"ih": (6,), "hh": (6,)},
        {"bias": (6,), "bias_n": (2,)},
        {
            "bias": lambda p: np.concatenate([p["ih"][:4] + p["hh"][:4], p["ih"][4:]]),
            "bias_n": lambda p: p["hh"][4:],
        },
    ),
    "summed along an axis": ({"b": (4, 3)}, {"b": (3,)}, {"b": lambda p: np.sum(p["b"], axis=0)}),
    "with zeros": (
        {"w": (2, 2)},
        {"w": (3, 2), "b": (2,)},
        {"w": lambda p: np.pad(p["w"], [(0, 1), (0, 0)]), "b": lambda p: np.zeros(2)},
    ),
    "masked": ({"w": (3,)}, {"w": (3, 3)}, {"w": lambda p: p["w"] * np.eye(3)}),
    "permuted": ({"w": (3,)}, {"w": (3,)}, {"w": lambda p: np.eye(3)[[2, 0, 1]] @ p["w"]}),
    "with a constant": ({"scale": (3,)}, {"scale": (3,)}, {"scale": lambda p: p["scale"] - 1}),
    "filled up": ({"w": (2,)}, {"w": (4,)}, {"w": lambda p: np.pad(p["w"], (0, 2), constant_values=1.0)}),
}
EACH_LAYOUT = pytest.mark.parametrize(("source", "target", "layout"), LAYOUTS.values(), ids=LAYOUTS)


def drawn(shapes: dict[str, tuple[int, ...]], lead: tuple[int, ...] = (), seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {name: generator.integers(-9, 10, (*lead, *shape)).astype(np.float64) for name, shape in shapes.items()}


def dot(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(sum(np.sum(one[name] * other[name]) for name in one))


@EACH_LAYOUT
def test_a_layout_loads_what_its_functions_give_on_the_values(source: Any, target: Any, layout: Any) -> None:
    values = drawn(source)

    loaded = match(source, target, layout).load(values)

    by_path = {name.replace("/", "."): how for name, how in layout.items()}
    values |= {name.replace("/", "."): value for name, value in values.items()}
    for name in target:
        how = by_path.get(name, name)
        np.testing.assert_array_equal(loaded[name], values[how] if isinstance(how, str) else how(values), strict=True)


@EACH_LAYOUT
def test_gradients_are_handed_back_by_the_adjoint_of_loading(source: Any, target: Any, layout: Any) -> None:
    matching, values, gradient = match(source, target, layout), drawn(source), drawn(target, seed=1)

    handed_back = matching.in_source(gradient)

    assert {name: value.shape for name, value in handed_back.items()} == source
    assert dot(matching.load_direction(values), gradient) == dot(values, handed_back)


@EACH_LAYOUT
def test_per_sample_gradients_are_handed_back_row_by_row(source: Any, target: Any, layout: Any) -> None:
    matching, rows = match(source, target, layout), drawn(target, lead=(4,))

    handed_back = matching.in_source(rows)

    for i in range(4):
        row = matching.in_source({name: value[i] for name, value in rows.items()})
        for name, value in handed_back.items():
            np.testing.assert_array_equal(value[i], row[name])


def test_handing_back_keeps_the_dtype() -> None:
    matching = match({"w": (2, 3)}, {"w": (3, 2)}, {"w": lambda p: p["w"].T})

    assert matching.in_source({"w": np.ones((3, 2), np.float32)})["w"].dtype == np.float32
    assert matching.load({"w": np.ones((2, 3), np.float32)})["w"].dtype == np.float32


# What a layout may not do


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (lambda p: 2 * p["w"], 'it multiplies p["w"][0, 0] by 2'),
        (lambda p: np.float32(0.5) * p["w"], 'it multiplies p["w"][0, 0] by 0.5'),
        (lambda p: -p["w"], 'it multiplies p["w"][0, 0] by -1'),
        (lambda p: p["w"] - p["v"], 'it multiplies p["v"][0, 0] by -1'),
        (lambda p: 1 - p["w"], 'it multiplies p["w"][0, 0] by -1'),
        (lambda p: p["w"] + p["w"], 'it takes p["w"][0, 0] times 2'),
        (lambda p: (p["w"] + p["v"]) / 2, 'it divides p["w"][0, 0] + p["v"][0, 0] by 2'),
        (lambda p: p["w"].mean(axis=0) + np.zeros((2, 3)), 'it divides p["w"][0, 0] + p["w"][1, 0] by 2'),
        (lambda p: p["w"] * p["v"], 'it multiplies p["w"][0, 0] by another element'),
        (lambda p: np.tanh(p["w"]), "tanh"),
        (lambda p: p["w"].astype(float), 'it makes a number of p["w"][0, 0]'),
        (lambda p: p["w"] + np.inf, "numbers that are not finite"),
        (lambda p: "w", "it returns <U1"),
    ],
)
def test_a_layout_that_computes_more_than_sums_is_refused_and_says_where(move: Any, said: str) -> None:
    with pytest.raises(ValueError, match="the layout of 'w' computes: it may move elements, add them") as caught:
        match({"w": (2, 3), "v": (2, 3)}, {"w": (2, 3)}, {"w": move})

    assert said in str(caught.value)


@pytest.mark.parametrize(
    "move",
    [lambda p: np.tril(p["w"]), lambda p: np.zeros((2, 3)), lambda p: np.pad(p["w"][:1], [(0, 1), (0, 0)])],
)
def test_a_layout_that_leaves_out_elements_is_refused(move: Any) -> None:
    with pytest.raises(ValueError, match=r"'w' \(2, 3\) of the source (is|has 3 of 6 elements that are) not used"):
        match({"w": (2, 3)}, {"w": (2, 3)}, {"w": move})


def test_constants_are_loaded_in_the_dtype_of_the_values() -> None:
    matching = match({"s": (2,)}, {"s": (2,), "b": (1,)}, {"s": lambda p: p["s"] - 1, "b": lambda p: np.full(1, 0.1)})

    loaded = matching.load({"s": np.array([1.5, 2.0], np.float32)})

    np.testing.assert_array_equal(loaded["s"], np.array([0.5, 1.0], np.float32), strict=True)
    np.testing.assert_array_equal(loaded["b"], np.array([0.1], np.float32), strict=True)


# What does not match is said, on both sides


def message(source: Any, target: Any, layout: Layout | None = None) -> str:
    with pytest.raises(ValueError, match=r"the (parameters|layout)") as caught:
        match(source, target, layout)
    return str(caught.value)


def test_unmatched_parameters_are_listed_on_both_sides_with_the_nearest_names_and_what_to_write() -> None:
    source = {"layers/0/kernel": (2, 3), "layers/0/bias": (3,), "layers/1/kernel": (3, 1), "layers/1/bias": (1,)}
    target = {"0.weight": (3, 2), "0.bias": (3,), "1.weight": (1, 3), "1.bias": (1,)}

    said = message(source, target)

    assert said.splitlines() == [
        "the parameters of the model do not match those of its source:",
        "  '0.weight' (3, 2) has no source; nearest there: 'layers/0/kernel' (2, 3), 'layers/0/bias' (3,)",
        "  '0.bias' (3,) has no source; nearest there: 'layers/0/bias' (3,), 'layers/1/kernel' (3, 1)",
        "  '1.weight' (1, 3) has no source; nearest there: 'layers/1/kernel' (3, 1), 'layers/0/bias' (3,)",
        "  '1.bias' (1,) has no source; nearest there: 'layers/1/bias' (1,), 'layers/0/bias' (3,)",
        "  'layers/0/kernel' (2, 3) of the source is not used; nearest here: '0.weight' (3, 2), '0.bias' (3,)",
        "  'layers/0/bias' (3,) of the source is not used; nearest here: '0.bias' (3,), '1.weight' (1, 3)",
        "  'layers/1/kernel' (3, 1) of the source is not used; nearest here: '1.weight' (1, 3), '0.bias' (3,)",
        "  'layers/1/bias' (1,) of the source is not used; nearest here: '1.bias' (1,), '0.bias' (3,)",
        "if these belong together, write",
        '  layout={"0.weight": lambda p: p["layers/0/kernel"].T,',
        '          "0.bias": "layers/0/bias",',
        '          "1.weight": lambda p: p["layers/1/kernel"].T,',
        '          "1.bias": "layers/1/bias"}',
    ]


def test_the_advice_is_a_layout_that_matches() -> None:
    source, target = {"kernel": (5, 5, 3, 8), "bias": (8,)}, {"weight": (8, 3, 5, 5), "offset": (8,)}

    advice = message(source, target).rpartition("layout=")[2]

    match(source, target, eval(advice))  # noqa: S307 - the advice is a line to write
    assert '"weight": lambda p: p["kernel"].transpose(3, 2, 0, 1)' in advice


def test_kernels_are_proposed_transposed_where_their_shape_does_not_tell() -> None:
    said = message({"kernel": (3, 3), "conv/kernel": (3, 3, 3, 3)}, {"weight": (3, 3), "conv.weight": (3, 3, 3, 3)})

    assert '"weight": lambda p: p["kernel"].T' in said
    assert '"conv.weight": lambda p: p["conv/kernel"].transpose(3, 2, 0, 1)' in said


def test_a_running_statistic_is_never_proposed_for_a_weight() -> None:
    source = {"scale": (4,), "bias": (4,)}

    said = message(source, {"norm.mean": (4,), "norm.var": (4,), "norm.weight": (4,), "norm.bias": (4,)})

    assert said.rpartition("layout=")[2] == '{"norm.weight": "scale",\n          "norm.bias": "bias"}'
    assert "'norm.mean' (4,) has no source; a running statistic is no parameter: leave it out" in said


@pytest.mark.parametrize(
    ("source", "target", "layout", "said"),
    [
        (
            {"w": (2, 3)},
            {"w": (3, 2)},
            {},
            "  'w' (3, 2) would be loaded from an array of shape (2, 3)\n"
            'if these belong together, write\n  layout={"w": lambda p: p["w"].T}',
        ),
        ({"w": (6,)}, {"w": (3, 2)}, {}, 'write\n  layout={"w": lambda p: p["w"].reshape((3, 2))}'),
        ({"w": (2, 3), "b": (3,)}, {"w": (2, 3)}, {}, "'b' (3,) of the source is not used"),
        ({"w": (2, 3)}, {"w": (2, 3), "b": (3,)}, {}, "'b' (3,) has no source; nearest there: 'w' (2, 3)"),
        (
            {"w": (4, 3)},
            {"w": (2, 3)},
            {"w": lambda p: p["w"][:2]},
            "'w' (4, 3) of the source has 6 of 12 elements that are not used",
        ),
        ({"w": ()}, {"w": ()}, {"v": "w"}, "the layout names 'v', which is no parameter of the model; nearest: 'w' ()"),
        (
            {"weight": ()},
            {"w": ()},
            {"w": "wieght"},
            "the layout asks for 'wieght', which the source does not have; nearest: 'weight' ()",
        ),
        ({"weight": ()}, {"w": ()}, {"w": lambda p: p["wieght"]}, "the layout asks for 'wieght'"),
        ({"w": ()}, {"w": ()}, {"w": ("w", 0)}, "the layout of 'w' must be a name or a function, not ('w', 0)"),
    ],
)
def test_what_does_not_match_is_named(source: Any, target: Any, layout: Any, said: str) -> None:
    assert said in message(source, target, layout)


# A pair of NumPy functions


def loss(p: Any, features: Any, targets: Any) -> Any:
    return ((features @ p["w"] + p["b"] - targets) ** 2).mean()


def gradient(p: Any, features: Any, targets: Any) -> Any:
    residuals = features @ p["w"] + p["b"] - targets
    return {"w": 2 * residuals @ features / len(targets), "b": 2 * residuals.mean()}


def halved(p: Any, features: Any, targets: Any) -> Any:
    found = gradient(p, features, targets)
    return found | {"w": found["w"] / 2}


NAMES: Layout = {"w": "theta_1", "b": "theta_0"}
RIGHT = gdc.from_functions(loss, gradient, layout=NAMES)
HALVED = gdc.from_functions(loss, halved, layout=NAMES)


def judged(native: gdc.Native, data: gdc.Dataset = PLANE, dtype: str = "float64") -> gdc.Report:
    return gdc.verify(LINEAR, data, backends=[], implementations={"mine": native}, dtype=dtype)


def test_a_right_pair_agrees_on_plain_and_weighted_data(dtype: str) -> None:
    judged(RIGHT, dtype=dtype).assert_agree()
    judged(RIGHT, gdc.Dataset(PLANE.features, PLANE.targets, weights=np.arange(8.0)), dtype).assert_agree()


def test_a_wrong_pair_is_refused_by_the_sources_name() -> None:
    wrong = [(each.parameter, each.cause) for each in judged(HALVED).entries if each.verdict == "wrong"]

    assert wrong == [("theta_1", "a constant factor 1/2 in all 3 elements")]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda g: {"w": g["w"]}, "the gradient has 'w'; the model's parameters are 'b', 'w'"),
        (lambda g: g | {"w": g["w"][:, None]}, "the gradient of 'w' has shape (3, 1), not (3,)"),
        (lambda g: g | {"w": g["w"].astype(np.float32)}, "float32"),
        (lambda g: g | {"b": g["b"].astype(np.float32)}, "float32"),
    ],
)
def test_a_gradient_of_another_form_is_wrong(spoil: Any, said: str) -> None:
    native = gdc.from_functions(loss, lambda *point: spoil(gradient(*point)), layout=NAMES)

    report = judged(native)

    assert report.verdict == "wrong"
    assert any(said in entry.cause for entry in report.entries)


def test_a_pair_with_values_is_a_source_for_others() -> None:
    source = gdc.from_functions(loss, gradient, {"w": [1.0, 2.0, 3.0], "b": 4.0})
    other = gdc.from_functions(loss, gradient, {"w": np.zeros(3), "b": 0.0})

    found = other(source.parameters, PLANE.features, PLANE.targets)
    expected = source.value_and_grad(source.parameters, PLANE.features, PLANE.targets)

    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1]["w"], expected[1]["w"])


def test_the_parameters_of_a_pair_with_values_are_matched_by_their_shapes() -> None:
    native = gdc.from_functions(loss, gradient, {"w": np.zeros(2), "b": 0.0}, layout=NAMES, name="narrow")

    with pytest.raises(ValueError, match=r"narrow do not match.*\n  'w' \(2,\) would be loaded from .* \(3,\)"):
        judged(native)


def test_assertions_and_counterexamples_take_a_pair() -> None:
    assert_gradients_agree(RIGHT, LINEAR, PLANE)
    with pytest.raises(GradientError, match=r"halved: theta_1\[\d\] is wrong.*a constant factor 1/2"):
        assert_gradients_agree(HALVED, LINEAR, PLANE)


@pytest.mark.thorough
def test_a_counterexample_is_found_for_a_pair() -> None:
    pytest.importorskip("hypothesis", reason="counterexamples are shrunk by hypothesis")

    found = counterexample(LINEAR, HALVED, PLANE, seconds=1.0)

    assert found is not None
    assert found.features.shape == (1, 1)


# On the command line

FILE = """
import numpy as np
import gdcompare as gdc

def loss(p, features, targets):
    return ((features @ p["w"] + p["b"] - targets) ** 2).mean()

def gradient(p, features, targets):
    residuals = features @ p["w"] + p["b"] - targets
    return {"w": 2 * residuals @ features / len(targets), "b": 2 * residuals.mean()}

def halved(p, features, targets):
    return gradient(p, features, targets) | {"w": gradient(p, features, targets)["w"] / 2}

names = {"w": "theta_1", "b": "theta_0"}
RIGHT = gdc.from_functions(loss, gradient, layout=names)
WRONG = gdc.from_functions(loss, halved, layout=names)
UNMATCHED = gdc.from_functions(loss, gradient, {"w": np.zeros(1), "b": 0.0})
CUBE = gdc.Operation(lambda xp, x: x**3, x=(2,))
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603 - our own


@pytest.mark.thorough
def test_the_command_line_takes_a_native_model_from_a_file(tmp_path: Path) -> None:
    path, script = tmp_path / "mine.py", tmp_path / "smallest.py"
    path.write_text(FILE)
    verify = ("-m", "gdcompare", "verify", "linear-regression", "--backend", "numpy", "--implementation")

    right = run(*verify, f"mine={path}:RIGHT")
    wrong = run(*verify, f"mine={path}:WRONG", "--counterexample", script)
    unmatched = run(*verify, f"mine={path}:UNMATCHED")
    repeated = run(script)

    assert (right.returncode, wrong.returncode, unmatched.returncode) == (0, 1, 2)
    assert "a constant factor 1/2" in wrong.stdout
    assert "error: the parameters of gradient do not match those of its source" in unmatched.stderr
    assert "Traceback" not in unmatched.stderr
    assert repeated.returncode == 1
    assert "mine is wrong: theta_1[0]" in repeated.stderr


# Operations


@pytest.mark.feature("gradient of what nobody derived")
def test_every_backend_differentiates_an_operation(backend: gdc.Backend[Any]) -> None:
    operation = gdc.Operation(lambda xp, x, w: xp.tanh(w @ x)[:, None] * x, x=(3,), w=(2, 3))

    report = gdc.verify(operation, operation.example(), backends=[backend], dtype=backend.dtype)

    report.assert_agree()
    assert {entry.parameter for entry in report.entries} == {"loss", "x", "w"}


def cube(xp: Any, x: Any) -> Any:
    return x**3


def test_the_rows_of_an_operation_are_vector_jacobian_products() -> None:
    operation = gdc.Operation(cube, x=(2,))
    data, x = operation.example(samples=5), np.array([2.0, -1.0])
    mine = gdc.from_functions(
        lambda p, c, _: (c @ p["x"] ** 3).mean(), lambda p, c, _: {"x": (c * 3 * p["x"] ** 2).mean(axis=0)}
    )

    rows = mine.per_sample_grad({"x": x}, data.features, data.targets)

    np.testing.assert_allclose(rows["x"], data.features * [12.0, 3.0], rtol=1e-15)
    gdc.verify(operation, data, backends=[], implementations={"mine": mine}).assert_agree()


def test_cotangents_repeat_and_no_two_are_equal() -> None:
    first, again = (gdc.Operation(cube, x=(3,)).example(seed=0).features for _ in range(2))

    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first, axis=0)) == len(first)


def test_operations_of_one_formula_and_shapes_are_equal() -> None:
    assert gdc.Operation(cube, x=(3,)) == gdc.Operation(cube, x=(3,))
    assert hash(gdc.Operation(cube, x=(3,))) == hash(gdc.Operation(cube, x=(3,)))
    assert gdc.Operation(cube, x=(3,)) != gdc.Operation(cube, x=(4,))
    assert not gdc.Operation(cube, x=(3,)).derived


def test_an_operation_is_taken_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "operations.py"
    path.write_text(FILE)

    assert gdc.load_problem(f"{path}:CUBE").parameter_shapes(gdc.Dataset([[1.0, 2.0]], [0.0])) == {"x": (2,)}


def test_operations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the shape of 'x' must be a tuple such as \(3,\) or \(\), not 3"):
        gdc.Operation(cube, x=3)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(ValueError, match="name the parameters of the operation and their shapes"):
        gdc.Operation(cube)
    with pytest.raises(ValueError, match=r"Operation\('cube', x=\(3,\)\) has 3 outputs: .* need 3 columns, not 2"):
        gdc.Operation(cube, x=(3,)).parameter_shapes(gdc.Dataset([[1.0, 2.0]], [0.0]))
