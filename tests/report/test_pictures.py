"""Each picture shows what it claims: what its artists hold are the results, and other results would be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.models.comparison import Training
from gdcompare.report import look, paths, posters
from gdcompare.report.losses import epoch_means
from gdcompare.report.planes import plane_of
from tests.report.seen import arrows, line, words

pytest.importorskip("matplotlib", reason="no picture without Matplotlib: pip install 'gdcompare[plot]'")

pictures: Any = gdc.pictures  # what the artists of its figures hold has any type

LINE = "linear-regression"
POINT: Mapping[str, Any] = {"theta_0": 1.0, "theta_1": [0.0]}


def path_of(fit: gdc.Descent) -> Any:
    return np.column_stack([fit.history.parameters["theta_0"], fit.history.parameters["theta_1"]])


# The surface, and paths on it


def test_the_paths_on_the_surface_are_the_histories(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    (axes,) = pictures.surface(LINE, data, fits).axes

    for name, fit in fits.items():
        np.testing.assert_array_equal(line(axes, name), path_of(fit))
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(line(axes, "stochastic"), path_of(fits["full batch"])[:81])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("theta_0", "theta_1[0]")
    for end in map(path_of, fits.values()):
        assert axes.get_xlim()[0] < end[-1, 0] < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < end[-1, 1] < axes.get_ylim()[1]


def test_the_contours_are_those_of_the_mean_loss(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    (axes,) = pictures.surface(LINE, data, fits).axes
    lines = axes.collections[1]

    for level, outline in zip(lines.levels, lines.get_paths(), strict=True):
        for theta_0, theta_1 in outline.vertices[::40]:
            loss, _ = gdc.value_and_grad(LINE, data, {"theta_0": theta_0, "theta_1": [theta_1]}, "numpy")
            assert loss == pytest.approx(level, rel=0.02, abs=0.02)


def test_the_surface_of_weighted_data_is_the_weighted_mean(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    weighted = gdc.Dataset(data.features, data.targets, weights=np.arange(1.0, 41.0))
    view = paths.view_of(fits)

    (found,) = paths.losses_at(gdc.load_problem(LINE), weighted, view.plane, np.array([[1.0, 0.0]]))

    assert found == pytest.approx(gdc.value_and_grad(LINE, weighted, POINT, "numpy")[0], rel=1e-14)
    assert found != pytest.approx(gdc.value_and_grad(LINE, data, POINT, "numpy")[0], rel=1e-3)


def test_a_single_parameter_is_seen_as_a_curve() -> None:
    mean = gdc.load_problem("polynomial-regression", degree=0)
    fit = gdc.descend(mean, None, "numpy", gdc.rules.sgd(0.1), epochs=30)

    (axes,) = pictures.surface(mean, None, fit).axes

    drawn = line(axes, "full batch")
    np.testing.assert_array_equal(drawn[:, 0], fit.history.parameters["theta"][:, 0])
    np.testing.assert_allclose(drawn[:-1, 1], fit.history.losses, rtol=1e-13)


def test_more_parameters_are_seen_along_the_principal_two_and_the_picture_says_so() -> None:
    fit = gdc.descend("softmax-regression", None, "numpy", gdc.rules.sgd(0.1), epochs=30)

    figure = pictures.surface("softmax-regression", None, fit)

    points = np.concatenate([each.reshape(31, -1) for each in fit.history.parameters.values()], axis=1)
    drawn = line(figure.axes[0], "full batch")
    assert f"{points.shape[1]} parameters, seen along the two principal directions" in words(figure)
    shadows = np.linalg.norm(drawn - drawn[0], axis=1)
    assert (shadows <= np.linalg.norm(points - points[0], axis=1) * (1 + 1e-12)).all()
    assert shadows[-1] > 0.9 * np.linalg.norm(points[-1] - points[0])
    np.testing.assert_allclose(drawn[-1], 0, atol=1e-12)


def test_the_axes_that_are_asked_for_are_seen_the_others_held_and_the_picture_says_so() -> None:
    problem = gdc.load_problem("polynomial-regression", degree=3)
    fit = gdc.descend(problem, None, "numpy", gdc.rules.sgd(0.1), epochs=30)

    figure = pictures.surface(problem, None, fit, "theta[3],theta[1]")

    np.testing.assert_array_equal(line(figure.axes[0], "full batch"), fit.history.parameters["theta"][:, [3, 1]])
    assert figure.axes[0].get_xlabel() == "theta[3]"
    assert "The other 2 parameters are as they are where the path of 'full batch' ends." in words(figure)
    held = paths.view_of({"a": fit}, "theta[3],theta[1]").plane.parameters(np.array([[5.0, 7.0]]))
    end = fit.parameters["theta"]
    assert [each["theta"].tolist() for each in held] == [[end[0], 7.0, end[2], 5.0]]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("theta[1]", "axes are two different numbers, such as 'theta"),
        ("theta[1],theta[1]", "two different numbers"),
        ("theta[1],theta[ 1]", "is 'theta"),
        ("theta[1],tehta[2]", "there is no parameter 'tehta' to draw; known: theta; did you mean 'theta'"),
        ("theta[1],theta[9]", r"there is no 'theta\[9\]': it has shape \(4,\)"),
        ("theta[1],theta", r"'theta' is no single number: it has shape \(4,\); name one, as 'theta\[0\]'"),
        ("", "axes are two different numbers"),
        (("theta[0]", "theta[1]", "theta[2]"), "axes are two different numbers"),
    ],
)
def test_axes_that_there_are_not_are_refused(axes: Any, message: str) -> None:
    problem = gdc.load_problem("polynomial-regression", degree=3)
    fit = gdc.descend(problem, None, "numpy", epochs=2)

    with pytest.raises(ValueError, match=message):
        pictures.surface(problem, None, fit, axes)


def test_a_diverging_path_leaves_the_picture_as_it_is_and_is_said(
    data: gdc.Dataset, fits: dict[str, gdc.Descent], diverging: gdc.Descent
) -> None:
    assert diverging.stop_reason == "diverged"
    alone = pictures.surface(LINE, data, {"full batch": fits["full batch"]})

    figure = pictures.surface(LINE, data, {"full batch": fits["full batch"], "rate 3": diverging})

    assert figure.axes[0].get_xlim() == alone.axes[0].get_xlim()
    assert "'rate 3' leaves the picture after step 0 (diverged)." in words(figure)
    assert np.isfinite(line(figure.axes[0], "rate 3")).all()
    assert "leaves" not in words(alone)


def test_a_path_that_only_diverges_is_still_seen(data: gdc.Dataset, diverging: gdc.Descent, tmp_path: Path) -> None:
    figure = pictures.surface(LINE, data, diverging)

    assert len(line(figure.axes[0], "full batch")) >= 3
    assert np.ptp(figure.axes[0].get_xlim()) < 1e5
    pictures.write(figure, tmp_path / "a.png")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_history_that_is_not_finite_is_drawn_as_far_as_it_is(data: gdc.Dataset, value: float) -> None:
    fit = gdc.descend(LINE, data, "numpy", gdc.rules.sgd(0.1), epochs=20)
    fit.history.parameters["theta_0"][10:] = value
    fit.history.losses[10:] = value

    figure = pictures.surface(LINE, data, fit)

    assert len(line(figure.axes[0], "full batch")) == 10
    assert "leaves the picture after step 9" in words(figure)
    assert "rises out of the picture" in words(pictures.losses(fit))
    pictures.distances(LINE, data, fit)
    fit.history.parameters["theta_0"][:] = value
    with pytest.raises(ValueError, match="the path of 'full batch' has no finite point to draw"):
        pictures.surface(LINE, data, fit)


def test_a_path_that_does_not_move_is_a_point(data: gdc.Dataset) -> None:
    still = gdc.descend("softmax-regression", None, "numpy", gdc.rules.sgd(0.0), epochs=3)

    figure = pictures.surface("softmax-regression", None, still)

    assert np.ptp(line(figure.axes[0], "full batch"), axis=0).tolist() == [0, 0]


def test_nothing_to_draw_is_said(data: gdc.Dataset, report: gdc.Report, fits: dict[str, gdc.Descent]) -> None:
    empty = gdc.Report(())
    none: dict[str, gdc.Descent] = {}
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: pictures.surface(LINE, data, none), "no path to draw"),
        (lambda: pictures.coinciding(LINE, data, none), "no path to draw"),
        (lambda: pictures.losses(none), "no path to draw"),
        (lambda: pictures.distances(LINE, data, none), "no path to draw"),
        (lambda: pictures.animate(LINE, data, none, "a.gif"), "no path to draw"),
        (lambda: pictures.of_descents(LINE, data, none), "no path to draw"),
        (lambda: pictures.fan({}, {}), "no per-sample gradients to draw"),
        (lambda: pictures.fan({"a": np.zeros((0, 2))}, {"a": np.zeros(2)}), "no per-sample gradients to draw"),
        (lambda: pictures.cloud({"a": np.zeros((2, 2))}), "at least 3 samples, not 2"),
        (lambda: pictures.heat_map(empty), "the report is empty"),
        (lambda: pictures.budget_shares(empty), "the report is empty"),
        (lambda: pictures.digits(empty), "the report is empty"),
        (lambda: pictures.of_report(empty), "the report is empty"),
        (lambda: pictures.training(Training(())), "took no step"),
    ]
    for draw, message in refused:
        with pytest.raises(ValueError, match=message):
            draw()


def test_descents_of_different_parameters_are_refused(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    other = gdc.descend("polynomial-regression", None, "numpy", epochs=2)

    with pytest.raises(ValueError, match="'b' has other parameters than 'a'"):
        pictures.surface(LINE, data, {"a": fits["full batch"], "b": other})


# Backends


def moved(fit: gdc.Descent, step: int, ulps: int) -> gdc.Descent:
    """Return the descent with one of its values some ulps off."""
    parameters = {name: each.copy() for name, each in fit.history.parameters.items()}
    value = parameters["theta_0"][step]
    parameters["theta_0"][step] = value + ulps * np.spacing(value)
    return replace(fit, history=replace(fit.history, parameters=parameters))


def test_the_distance_of_backends_is_in_ulps_at_its_step(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    fit = fits["full batch"]

    _, below = pictures.coinciding(LINE, data, {"one": fit, "other": moved(fit, 7, 3)}).axes

    (drawn,) = (each.get_xydata() for each in below.lines)
    assert drawn[:, 0].tolist() == list(range(61))
    assert drawn[drawn[:, 1] > 0].tolist() == [[7.0, 3.0]]
    assert below.get_ylabel() == "ulps from one"


def test_equal_bits_are_said_and_others_are_not(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    fit = fits["full batch"]

    assert "The same bits at every step, on all 2 of them." in words(
        pictures.coinciding(LINE, data, {"one": fit, "other": fit})
    )
    assert "The same bits" not in words(pictures.coinciding(LINE, data, {"one": fit, "other": moved(fit, 7, 1)}))


def test_far_apart_paths_have_a_logarithmic_distance(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    fit = fits["full batch"]

    _, below = pictures.coinciding(LINE, data, {"one": fit, "other": moved(fit, 7, 10**6)}).axes

    assert below.get_yscale() == "symlog"
    assert below.get_ylim()[1] >= 10**6


def test_float32_paths_are_measured_in_ulps_of_float32(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    single = gdc.descend(LINE, data, gdc.load_backend("numpy", "float32"), gdc.rules.sgd(0.1), epochs=60)

    _, ulps = paths.ulps_apart(fits["full batch"], single)

    assert 0 < ulps.max() < 100


def test_descents_that_kept_other_steps_are_not_compared(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    thinner = gdc.descend(LINE, data, "numpy", gdc.rules.sgd(0.1), epochs=60, history_every=3)

    with pytest.raises(ValueError, match="give all of them the same history_every"):
        pictures.coinciding(LINE, data, {"one": fits["full batch"], "other": thinner})


# Samples


def test_the_fan_is_the_per_sample_gradients_and_its_mean_is_the_gradient(data: gdc.Dataset) -> None:
    rows = gdc.per_sample_grad(LINE, data, POINT, "numpy")
    _, gradient = gdc.value_and_grad(LINE, data, POINT, "numpy")

    (axes,) = pictures.fan(rows, gradient).axes

    expected = np.column_stack([rows["theta_0"], rows["theta_1"]])
    np.testing.assert_array_equal(arrows(axes, "40 per-sample gradients"), expected)
    np.testing.assert_array_equal(arrows(axes, "mean of all samples")[0], expected.mean(axis=0))
    np.testing.assert_array_equal(arrows(axes, "the gradient")[0], [gradient["theta_0"], *gradient["theta_1"]])
    assert axes.get_title("left").endswith("is the gradient, to 8.9e-16")


def test_a_mean_that_is_not_the_gradient_is_seen_and_said(data: gdc.Dataset) -> None:
    rows = gdc.per_sample_grad(LINE, data, POINT, "numpy")
    _, gradient = gdc.value_and_grad(LINE, data, POINT, "numpy", reduction="sum")

    (axes,) = pictures.fan(rows, gradient).axes

    assert np.abs(arrows(axes, "the gradient") - arrows(axes, "mean of all samples")).max() > 200
    assert float(axes.get_title("left").rpartition(" ")[2]) > 200


def test_many_samples_of_many_parameters_are_thinned_and_said() -> None:
    generator = np.random.default_rng(0)
    rows = {"w": generator.standard_normal((1000, 5)) * [1.0, 9.0, 1.0, 5.0, 1.0]}

    figure = pictures.fan(rows, {"w": rows["w"].mean(axis=0)})

    assert len(arrows(figure.axes[0], "334 per-sample gradients")) == 334
    assert "One in 3 of 1000 is drawn." in words(figure)
    assert "Of 5 elements, the two that vary most are seen." in words(figure)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("by w[1]", "by w[3]")


@pytest.mark.parametrize(
    ("rows", "gradient", "message"),
    [
        ({"w": np.zeros((3, 2))}, {"w": np.zeros(3)}, "of other parameters than the gradient"),
        ({"w": np.zeros((3, 2))}, {"v": np.zeros(2)}, "of other parameters than the gradient"),
        ({"w": np.zeros((3, 2)), "v": np.zeros(4)}, {"w": np.zeros(2), "v": np.zeros(())}, "n the same for all"),
        ({"w": np.array([[0.0], [np.nan]])}, {"w": np.zeros(1)}, "the gradient of sample 1 is not finite"),
        ({"w": np.zeros(())}, {"w": np.zeros(())}, "no per-sample gradients to draw"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(rows: Any, gradient: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pictures.fan(rows, gradient)


def measured_and_law(rows: Any, **how: Any) -> tuple[Any, Any, Any, Any]:
    """Return the sizes, the measured variances, two standard errors of them, and the law at these sizes."""
    axes = pictures.cloud(rows, **how).axes[1]
    (bars,) = axes.containers
    sizes, measured = (np.asarray(each, dtype=np.float64) for each in bars.lines[0].get_data())
    ends = np.array([each[:, 1] for each in bars.lines[2][0].get_segments()])
    x, y = line(axes, "predicted").T
    law = np.exp(np.interp(np.log(sizes), np.log(x), np.log(y)))
    return sizes, measured, ends[:, 1] - measured, law


def test_the_variance_of_batches_shrinks_as_the_law_says(data: gdc.Dataset) -> None:
    rows = gdc.per_sample_grad(LINE, data, POINT, "numpy")
    flat = np.column_stack([rows["theta_0"], rows["theta_1"]])
    spread = np.mean(np.sum((flat - flat.mean(axis=0)) ** 2, axis=1))

    sizes, measured, errors, law = measured_and_law(rows)

    assert sizes.tolist() == [1, 2, 4, 8, 16, 32]
    np.testing.assert_allclose(law, spread * (40 - sizes) / (39 * sizes), rtol=1e-2)
    assert (np.abs(measured - law) <= 2 * errors).all()


def test_another_law_would_be_seen_to_fail(data: gdc.Dataset) -> None:
    rows = gdc.per_sample_grad(LINE, data, POINT, "numpy")

    sizes, measured, errors, law = measured_and_law(rows)

    with_replacement = law * 39 / (40 - sizes)
    assert abs(measured - with_replacement)[-1] > 2 * errors[-1]


@pytest.mark.parametrize("sizes", [[0], [40], [1, 41]])
def test_batch_sizes_that_there_are_not_are_refused(data: gdc.Dataset, sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="batch sizes must be whole numbers from 1 to 39"):
        pictures.cloud(gdc.per_sample_grad(LINE, data, POINT, "numpy"), sizes)


@pytest.mark.thorough
def test_equal_samples_make_a_cloud_without_extent(tmp_path: Path) -> None:
    figure = pictures.cloud({"w": np.ones((5, 2))})

    pictures.write(figure, tmp_path / "a.png")


# Losses and distances


def test_losses_stand_against_steps_samples_and_seconds(fits: dict[str, gdc.Descent]) -> None:
    steps, samples, seconds = pictures.losses(fits).axes

    full, mini = fits["full batch"], fits["mini-batches of 2"]
    np.testing.assert_array_equal(line(steps, "full batch"), np.column_stack([np.arange(1, 61), full.history.losses]))
    np.testing.assert_array_equal(line(samples, "full batch")[:, 0], 40 * np.arange(1, 61))
    np.testing.assert_array_equal(line(seconds, "full batch")[:, 0], full.history.seconds[1:])
    thick = line(samples, "mini-batches of 2")
    np.testing.assert_array_equal(thick[:, 0], 2 * np.arange(20, 61))
    np.testing.assert_allclose(thick[0, 1], mini.history.losses[:20].mean())
    assert not np.isfinite(epoch_means(mini)[:19]).any()


def test_without_a_clock_there_are_no_seconds(fits: dict[str, gdc.Descent]) -> None:
    fit = fits["full batch"]

    figure = pictures.losses(replace(fit, history=replace(fit.history, seconds=np.empty(0))))

    assert [axes.get_xlabel() for axes in figure.axes] == ["steps", "samples read"]
    assert "Seconds" not in words(figure)


def test_a_diverging_loss_leaves_the_others_to_be_seen(fits: dict[str, gdc.Descent], diverging: gdc.Descent) -> None:
    figure = pictures.losses({"full batch": fits["full batch"], "rate 3": diverging})

    assert figure.axes[0].get_ylim()[1] < 1e6
    assert "'rate 3' rises out of the picture, to 2.41e+305." in words(figure)


def test_the_distance_of_full_batch_descent_is_as_predicted(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    figure = pictures.distances(LINE, data, fits)

    (axes,) = figure.axes
    design = np.column_stack([np.ones(40), data.features])
    optimum = np.linalg.lstsq(design, data.targets)[0]
    expected = np.linalg.norm(path_of(fits["full batch"]) - optimum, axis=1)
    np.testing.assert_allclose(line(axes, "full batch")[:, 1], expected, rtol=1e-9)
    factor = np.abs(1 - 0.1 * np.linalg.eigvalsh(2 * design.T @ design / 40)).max()
    predicted = line(axes, f"predicted: {factor:.4g} a step")
    np.testing.assert_allclose(predicted[:, 1], expected, rtol=1e-9)
    assert "No rate is predicted for 'mini-batches of 2', 'stochastic': batches, or another rule." in words(figure)


def test_another_rule_goes_otherwise_than_predicted_and_has_no_prediction(data: gdc.Dataset) -> None:
    fit = gdc.descend(LINE, data, "numpy", gdc.rules.momentum(0.1), epochs=60)
    claimed = replace(fit, rule=gdc.rules.sgd(0.1))

    assert "No rate is predicted for 'full batch'" in words(pictures.distances(LINE, data, fit))
    (axes,) = pictures.distances(LINE, data, claimed).axes
    (found, predicted) = (each.get_ydata() for each in axes.lines)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, predicted, rtol=1e-2)


@pytest.mark.parametrize("problem", ["logistic-growth", "huber-regression", "tanh-network", "rosenbrock"])
def test_where_the_optimum_is_not_known_there_is_no_distance(problem: str) -> None:
    fit = gdc.descend(problem, None, "numpy", epochs=2)

    with pytest.raises(ValueError, match="its loss is no quadratic"):
        pictures.distances(problem, None, fit)


@pytest.mark.thorough
@pytest.mark.parametrize("problem", ["logistic-growth", "tanh-network"])
def test_a_sheet_without_distances_says_so(problem: str) -> None:
    fit = gdc.descend(problem, None, "numpy", epochs=2)

    assert "No distance to the optimum" in words(pictures.of_descents(problem, None, fit))


def test_a_bowl_with_a_flat_direction_has_a_nearest_optimum() -> None:
    same = np.linspace(-1, 1, 9)
    data = gdc.Dataset(np.column_stack([same, same]), 3 * same)
    fit = gdc.descend(LINE, data, "numpy", gdc.rules.sgd(0.3), epochs=400)

    (axes,) = pictures.distances(LINE, data, fit).axes

    assert line(axes, "full batch")[-1, 1] < 1e-12


# The line among the data


def test_the_line_among_the_data_is_the_fit_at_the_marked_steps(
    data: gdc.Dataset, fits: dict[str, gdc.Descent]
) -> None:
    fit = fits["full batch"]

    left, right = pictures.moving_line(LINE, data, fit).axes

    marked = np.array([each.get_xydata()[0] for each in right.lines if each.get_markersize() == 7])
    assert len(left.lines) == len(marked) == 6
    for drawn, (theta_0, theta_1) in zip(left.lines, marked, strict=True):
        step = int(str(drawn.get_label()).removeprefix("step "))
        assert (theta_0, theta_1) == tuple(path_of(fit)[step])
        x, y = drawn.get_data()
        np.testing.assert_allclose(y, theta_0 + theta_1 * x)
    np.testing.assert_array_equal(left.collections[0].get_offsets(), np.column_stack([data.features, data.targets]))


def test_where_no_line_can_be_drawn_it_is_said(data: gdc.Dataset) -> None:
    wide = gdc.Dataset(np.ones((4, 2)) * np.arange(4)[:, None], np.arange(4.0))
    for problem, given, message in (
        ("logistic-regression", None, "does not say what it predicts"),
        (LINE, wide, "over one feature, but 'data' has 2"),
    ):
        fit = gdc.descend(problem, given, "numpy", epochs=2)
        with pytest.raises(ValueError, match=message):
            pictures.moving_line(problem, given, fit)


@pytest.mark.parametrize("name", sorted(gdc.problem_names()))
def test_what_a_problem_predicts_is_what_its_loss_is_least_at(name: str) -> None:
    problem = gdc.load_problem(name)
    if not problem.predicts:
        with pytest.raises(NotImplementedError, match="has no predictions; write predictions"):
            problem.predictions(np, {}, np.ones((1, 1)))
        return
    data = gdc.datasets.example(problem)
    params = problem.start(data)
    there = np.asarray(problem.predictions(np, params, data.features))

    at, above, below = (
        np.asarray(problem.per_sample_losses(np, params, data.features, there + move)) for move in (0, 0.1, -0.1)
    )

    assert there.shape == (len(data),)
    assert (at < above).all()
    assert (at < below).all()


# Planes


def test_the_principal_plane_holds_paths_that_lie_in_it() -> None:
    generator = np.random.default_rng(3)
    corner, directions = generator.standard_normal(7), generator.standard_normal((2, 7))
    path = corner + generator.standard_normal((50, 2)) @ directions

    plane = plane_of({"w": (7,)}, {"a": path})

    places = plane.coordinates(path)
    again = np.stack([each["w"] for each in plane.parameters(places)])
    np.testing.assert_allclose(again, path, atol=1e-12)
    np.testing.assert_allclose(plane.directions @ plane.directions.T, np.eye(2), atol=1e-12)
    assert "which hold 100 % of their spread" in plane.remark
    off = plane.coordinates(path + generator.standard_normal(7))
    assert np.abs(off - places).max() > 0.1


def test_a_part_of_ones_own_figure_can_be_drawn_on(data: gdc.Dataset, fits: dict[str, gdc.Descent]) -> None:
    from matplotlib.figure import Figure

    own: Any = Figure(figsize=(12, 5), layout="constrained")
    left, right = own.subfigures(1, 2)

    assert pictures.surface(LINE, data, fits, on=left) is own
    assert pictures.losses(fits, on=right) is own
    assert len(own.axes) == 4
    assert look.whole(own) is own


@pytest.mark.thorough
def test_the_demonstrations_sheet_has_every_picture(fits: dict[str, gdc.Descent], data: gdc.Dataset) -> None:
    from gdcompare.report.demonstration import Demonstration

    rows = gdc.per_sample_grad(LINE, data, POINT, "numpy")
    _, gradient = gdc.value_and_grad(LINE, data, POINT, "numpy")
    kinds = dict(zip(("full_batch", "mini_batch", "stochastic"), ({"a": each} for each in fits.values()), strict=True))
    shown = Demonstration(
        (gdc.load_problem(LINE), data), gdc.verify(LINE, data, backends=["numpy"]), {}, gradient, rows, kinds
    )

    figure = posters.of_demonstration(shown)

    assert len(figure.axes) == 1 + 2 + 1 + 2 + 3 + 1
