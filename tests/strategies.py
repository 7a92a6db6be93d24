"""What hypothesis draws: data that suit a problem, parameters, weights, partitions, integer lattices."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gdcompare import Backend, Dataset, Problem

Array = NDArray[np.float64]
Shapes = st.SearchStrategy[tuple[int, int]]

SCALES = st.integers(-6, 6).map(lambda exponent: 10.0**exponent)
# Zero, or large enough that scaled to float32 it is no subnormal number, which JAX takes for zero.
UP_TO_ONE = st.floats(-1, 1).map(lambda value: value if abs(value) > 1e-30 else 0.0)


def shapes(backend: Backend[Any]) -> Shapes:
    """Rows and features; only a few pairs of them where every new shape is a compilation."""
    if backend.name == "jax":
        return st.sampled_from([(1, 1), (24, 3)])
    return st.tuples(st.integers(1, 40), st.integers(1, 6))


@st.composite
def data_sets(draw: st.DrawFn, problem: Problem, shapes: Shapes, scales: st.SearchStrategy[float] = SCALES) -> Dataset:
    n, d = draw(shapes)
    features = draw(arrays(np.float64, (n, d), elements=UP_TO_ONE)) * draw(scales)
    if problem.target_dimensions == 2:
        return Dataset(features, np.eye(3)[draw(arrays(np.intp, n, elements=st.integers(0, 2)))])
    if problem.target_values is not None:
        return Dataset(features, draw(arrays(np.float64, n, elements=st.sampled_from(problem.target_values))))
    targets = draw(arrays(np.float64, n, elements=UP_TO_ONE)) * draw(scales)
    return Dataset(features, np.abs(targets) if problem.least_target == 0 else targets)


@st.composite
def parameters(
    draw: st.DrawFn, problem: Problem, data: Dataset, dtype: str = "float64", scales: st.SearchStrategy[float] = SCALES
) -> dict[str, Array]:
    """Parameters that are numbers of that dtype."""
    values = {
        name: np.array(draw(arrays(np.float64, shape, elements=UP_TO_ONE)) * draw(scales))
        for name, shape in problem.parameter_shapes(data).items()
    }
    return {name: value.astype(dtype).astype(np.float64) for name, value in values.items()}


def weights(n: int) -> st.SearchStrategy[Array]:
    """Weights of n rows, some of them 0, not all."""
    some = st.one_of(st.just(0.0), st.floats(0.125, 8, width=32))
    return arrays(np.float64, n, elements=some).filter(lambda drawn: bool(drawn.any()))


@st.composite
def partitions(draw: st.DrawFn, n: int) -> list[NDArray[np.intp]]:
    """The rows 0 to n - 1, shuffled and cut into parts, none of them empty."""
    rows = np.array(draw(st.permutations(range(n))), dtype=np.intp)
    cuts = sorted(draw(st.sets(st.integers(1, n - 1)))) if n > 1 else []
    return np.split(rows, cuts)


@st.composite
def lattices(draw: st.DrawFn, n: int, d: int, largest: int = 4) -> tuple[Dataset, dict[str, Array]]:
    """Small whole numbers for features, targets, and the parameters of a line: with n a power of 2, sums are exact."""
    whole = st.integers(-largest, largest).map(float)
    data = Dataset(draw(arrays(np.float64, (n, d), elements=whole)), draw(arrays(np.float64, n, elements=whole)))
    return data, {
        "theta_0": draw(arrays(np.float64, (), elements=whole)),
        "theta_1": draw(arrays(np.float64, d, elements=whole)),
    }
