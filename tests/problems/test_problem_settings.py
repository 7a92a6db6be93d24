"""A problem refuses settings that make no sense, by name, before any work."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from gdcompare import Dataset, load_problem

WORDS: dict[tuple[str, str], tuple[str, list[Any]]] = {
    ("ridge-regression", "strength"): ("a finite number, 0 or above", [-0.1, np.inf, np.nan, "x"]),
    ("negative-binomial-regression", "dispersion"): ("a finite number above 0", [0, -1.0, np.nan, None]),
    ("huber-regression", "delta"): ("a finite number above 0", [0, np.inf, "x"]),
    ("quantile-regression", "level"): ("a number between 0 and 1", [0, 1, 75, "x"]),
    ("polynomial-regression", "degree"): ("a whole number, 0 or above", [-1, 2.5, "x"]),
    ("gaussian-peaks", "peaks"): ("a whole number, 1 or above", [0, 1.5, None]),
}
CASES = [(*key, words, value) for key, (words, values) in WORDS.items() for value in values]


@pytest.mark.parametrize(("name", "setting", "words", "value"), CASES)
def test_a_setting_that_makes_no_sense_is_refused(name: str, setting: str, words: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'{setting} must be {words}, not {value!r}')}$"):
        load_problem(name, **{setting: value})


def test_settings_may_be_numpys_numbers() -> None:
    assert load_problem("polynomial-regression", degree=np.int64(2)) == load_problem("polynomial-regression", degree=2)
    assert load_problem("huber-regression", delta=np.float32(0.5)) == load_problem("huber-regression", delta=0.5)


@pytest.mark.parametrize(
    "name", ["exponential-decay", "gaussian-peaks", "logistic-growth", "michaelis-menten", "polynomial-regression"]
)
def test_a_curve_takes_one_feature(name: str) -> None:
    with pytest.raises(ValueError, match=r"takes one feature, but 'plane' has 2; keep one column of it$"):
        load_problem(name).parameter_shapes(Dataset(np.ones((3, 2)), np.ones(3), name="plane"))


@pytest.mark.parametrize("name", ["exponential-decay", "gaussian-peaks", "logistic-growth", "michaelis-menten"])
def test_a_curve_has_a_finite_start_on_data_that_say_nothing(name: str) -> None:
    start = load_problem(name).start(Dataset(np.zeros(3), np.zeros(3)))

    assert all(np.isfinite(value).all() for value in start.values())
