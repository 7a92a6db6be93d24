"""Data made ready: features to one scale, classes one-hot, targets in the shape that a problem takes."""

from __future__ import annotations

import numpy as np

from gdcompare.data.blocks import Blocks
from gdcompare.data.classes import InColumn, OneHot, counted_classes
from gdcompare.problem import Dataset, Problem


def standardise(data: Dataset) -> Dataset:
    """Shift and scale each feature to mean 0 and standard deviation 1; a constant feature becomes 0.

        z_ij = (x_ij - mean_j) / deviation_j,   deviation_j^2 = 1/n sum_i (x_ij - mean_j)^2        n, not n - 1

    Targets and name stay; the given data are not changed.

    >>> standardise(Dataset([[1.0, 7.0], [3.0, 7.0]], [0.0, 1.0])).features.tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    _, exponents = np.frexp(np.abs(data.features).max(axis=0))
    centred = np.ldexp(data.features, -exponents)  # a power of two rounds nothing; squares stay in range
    for _ in range(2):  # a mean far from 0 is itself rounded; what is left of it goes in the second pass
        centred = centred - centred.mean(axis=0)
    varies = (data.features != data.features[0]).any(axis=0)
    deviations = np.where(varies, centred.std(axis=0), 1.0)
    return Dataset(np.where(varies, centred / deviations, 0.0), data.targets, data.name, data.weights)


def one_hot(data: Dataset) -> Dataset:
    """Turn targets that number k classes, 0 to k - 1, into (n, k): 1 in the column of the class, 0 elsewhere.

    Raises ValueError, naming the row, unless the targets are (n,), whole, and leave out no class.

    >>> one_hot(Dataset([[5.0], [6.0], [7.0]], [0, 2, 1])).targets.tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    >>> one_hot(Dataset([[5.0], [6.0]], [0, 2], name="gap"))
    Traceback (most recent call last):
    ...
    ValueError: classes must be numbered 0, 1, 2, ..., none left out, but in row 1 of 'gap' 2 stands for class 1
    """
    if data.targets.ndim != 1:
        raise ValueError(f"classes to make one-hot must have shape (n,), but {data.name!r} has {data.targets.shape}")
    found, classes = np.unique(data.targets, return_inverse=True)
    wrong = np.flatnonzero(found != np.arange(len(found)))
    if len(wrong):
        row = int(np.argmax(classes == wrong[0]))
        raise ValueError(
            f"classes must be numbered 0, 1, 2, ..., none left out, but in row {row} of {data.name!r} "
            f"{found[wrong[0]]:g} stands for class {wrong[0]}"
        )
    return Dataset(data.features, np.eye(len(found))[classes], data.name, data.weights)


def suited(problem: Problem, data: Dataset) -> Dataset:
    """Return the data as the problem takes them: with targets (n, k) where it wants those and the data have (n,).

    If it restricts the values of targets, they number its classes, and become one-hot; else they are one column.

    >>> from gdcompare.problems.softmax_regression import SoftmaxRegression
    >>> suited(SoftmaxRegression(), Dataset([[5.0], [6.0]], [0, 1])).targets.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if problem.target_dimensions == 1 or data.targets.ndim == 2:
        return data
    if problem.target_values is not None:
        return one_hot(data)
    return Dataset(data.features, data.targets[:, None], data.name, data.weights)


def suited_blocks(problem: Problem, data: Blocks, classes: int | None = None) -> Blocks:
    """Return data in blocks as `suited` has them; to number the classes, all targets are read once.

    No block need hold every class. With `classes`, how many there are, nothing is read for it; a target that is none of
    them is found when its block is read.

    >>> from gdcompare.data.blocks import InMemory
    >>> from gdcompare.problems.softmax_regression import SoftmaxRegression
    >>> suited_blocks(SoftmaxRegression(), Blocks(InMemory([[5.0], [6.0]], [1, 0]), rows=1)).block(0).targets.tolist()
    [[0.0, 1.0]]
    """
    if problem.target_dimensions == 1 or data.first.targets.ndim == 2:
        return data
    if problem.target_values is None:
        return Blocks(InColumn(data.source), data.name, data.rows)
    return Blocks(OneHot(data.source, counted_classes(data) if classes is None else classes), data.name, data.rows)
