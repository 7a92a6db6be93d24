"""What a problem stands on: the digest is another one where the formula is, and the same where nothing changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gdcompare as gdc
from gdcompare.descent.source import source_of
from gdcompare.problems.linear_regression import LinearRegression

FILE = """
import numpy as np
import beside
from gdcompare.problems.linear_regression import LinearRegression

SCALE = 2.0
TABLE = np.array([1.0, 2.0])

def unused(x):
    return x

def shift(x):
    return x + TABLE[0]

class Mine(LinearRegression):
    def per_sample_losses(self, xp, params, features, targets):
        losses = super().per_sample_losses(xp, params, features, targets)
        return beside.doubled(SCALE * shift(losses))

    def __repr__(self):
        return "Mine()"
"""
BESIDE = """
FACTOR = 2.0

def doubled(x):
    return FACTOR * x
"""


def digest(folder: Path, file: str = FILE, beside: str = BESIDE) -> str:
    """Return the digest of the problem in another process, as after an interruption."""
    (folder / "mine.py").write_text(file)
    (folder / "beside.py").write_text(beside)
    found = "import gdcompare.registry as r; from gdcompare.descent.source import source_of"
    text = f"{found}; print(source_of(r.load_problem({str(folder / 'mine.py:Mine')!r})))"
    done = subprocess.run([sys.executable, "-B", "-c", text], capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout


@pytest.mark.thorough
def test_an_edit_of_what_a_problem_uses_is_seen_and_no_other(tmp_path: Path) -> None:
    first = digest(tmp_path)

    assert digest(tmp_path) == first
    assert digest(tmp_path, f"# a comment\n{FILE}") == first
    assert digest(tmp_path, FILE.replace("    return x\n", "    return 5 * x\n")) == first  # in what is unused
    for was, now in {
        "return beside.doubled(SCALE": "return beside.doubled(-SCALE",
        "SCALE = 2.0": "SCALE = 2.5",
        "[1.0, 2.0]": "[1.5, 2.0]",
        "x + TABLE": "x - TABLE",
    }.items():
        assert digest(tmp_path, FILE.replace(was, now)) != first
    assert digest(tmp_path, beside=BESIDE.replace("FACTOR * x", "x / FACTOR")) != first
    assert digest(tmp_path, beside=BESIDE.replace("2.0", "3.0")) != first


def test_what_a_formula_closes_over_counts() -> None:
    def scaled(factor: float) -> gdc.Operation:
        return gdc.Operation(lambda xp, x: xp.sin(factor * x), x=(2,))

    assert source_of(scaled(2.0)) == source_of(scaled(2.0)) != source_of(scaled(3.0))


def test_use_changes_nothing() -> None:
    problem = LinearRegression()
    before = source_of(problem)

    gdc.verify(problem, gdc.datasets.noisy_line(), backends=["numpy"])

    assert source_of(problem) == before == source_of(LinearRegression())


def test_an_edited_formula_of_the_same_name_is_another_descent(tmp_path: Path) -> None:
    """Two classes of one name and one repr, as before and after an edit."""

    def made(factor: float) -> LinearRegression:
        def per_sample_losses(self: object, xp: object, params: object, features: object, targets: object) -> object:
            return factor * LinearRegression.per_sample_losses(problem, xp, params, features, targets)  # type: ignore[arg-type]

        problem: LinearRegression = type("Mine", (LinearRegression,), {"per_sample_losses": per_sample_losses})()
        return problem

    seen = iter([False, True])
    data, how = gdc.datasets.noisy_line(), {"epochs": 20, "chunk": 5}
    gdc.descend(made(1.0), data, "numpy", checkpoint=tmp_path, callback=lambda _: next(seen), **how)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"is of another descent: code was [0-9a-f]{16}, and is [0-9a-f]{16}"):
        gdc.descend(made(2.0), data, "numpy", checkpoint=tmp_path, resume=True, **how)  # type: ignore[arg-type]
    assert gdc.descend(made(1.0), data, "numpy", checkpoint=tmp_path, resume=True, **how).steps == 20  # type: ignore[arg-type]
