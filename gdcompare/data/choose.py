"""Which data: a built-in set by its name, a file by its path, or what a problem runs on when none are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from gdcompare.data.builtin import BUILT_IN, noisy_line
from gdcompare.data.files import READERS, read
from gdcompare.data.prepare import suited
from gdcompare.problem import Dataset, Problem
from gdcompare.words import did_you_mean


def example(problem: Problem) -> Dataset:
    """Return data that the problem can run on when none are named: its own example, or else the seed's noisy line.

    If the problem wants labels, the line's targets become its largest value above their median, its smallest below.

    >>> from gdcompare.problems.logistic_regression import LogisticRegression
    >>> example(LogisticRegression())
    Dataset('noisy-line, above the median or not', 40 rows, 1 feature)
    """
    if (own := problem.example()) is not None:
        return own
    line = noisy_line()
    if problem.target_values is None:
        return suited(problem, line)
    above = line.targets > np.median(line.targets)
    labels = np.where(above, max(problem.target_values), min(problem.target_values))
    return suited(problem, Dataset(line.features, labels, name=f"{line.name}, above the median or not"))


def names() -> list[str]:
    """Return the names of the built-in data sets, in alphabetical order; imports nothing.

    >>> names()
    ['breast-cancer', 'diabetes', 'digits', 'integer-lattice', 'noisy-line', 'wine']
    """
    return sorted(BUILT_IN)


def load(name_or_path: str | os.PathLike[str], target: str | None = None, weights: str | None = None) -> Dataset:
    """Return a built-in data set by its name, or the data in a file (see `read`).

    Raises LookupError for what is neither, ValueError for `target` or `weights` beside a built-in name, and what `read`
    raises.

    >>> load("noisy-line")
    Dataset('noisy-line', 40 rows, 1 feature)
    >>> load("noisy-lime")
    Traceback (most recent call last):
    ...
    LookupError: unknown data 'noisy-lime'; known: breast-cancer, diabetes, digits, integer-lattice, noisy-line, wine; \
or a .csv, .npz or .parquet file; did you mean 'noisy-line'?
    """
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        if target is not None:
            raise ValueError(f"{name!r} is built in and has its own targets; target={target!r} is for files")
        if weights is not None:
            raise ValueError(f"{name!r} is built in and has no weights; weights={weights!r} is for files")
        return BUILT_IN[name]()
    path = Path(name)
    if path.suffix.lower() in READERS or path.is_file():
        return read(path, target, weights)
    *endings, last = READERS
    known = f"{', '.join(names())}; or a {', '.join(endings)} or {last} file{did_you_mean(name, names())}"
    raise LookupError(f"unknown data {name!r}; known: {known}")
