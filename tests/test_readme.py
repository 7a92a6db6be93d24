"""What the README tells a newcomer to write works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import gdcompare as gdc

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block_with(text: str) -> str:
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if text in block]
    return str(found)


def test_the_fourth_backend_agrees_everywhere(tmp_path: Path, problem: gdc.Problem) -> None:
    pytest.importorskip("autograd", reason="the README's fourth backend needs autograd")
    code = block_with("class AutogradBackend")
    path = tmp_path / "fourth.py"
    path.write_text(code)
    fourth = gdc.load_backend(f"{path}:AutogradBackend")
    data = gdc.datasets.example(problem)

    gdc.verify(problem, data, backends=[fourth]).assert_agree()
    gdc.check_batch_laws(problem, data, None, fourth).assert_agree()
    path_of_it = gdc.descend(problem, data, fourth, batch_size=7, epochs=2).parameters
    path_by_hand = gdc.descend(problem, data, "numpy", batch_size=7, epochs=2).parameters

    assert len(code.splitlines()) < 60
    for name, value in path_by_hand.items():
        np.testing.assert_allclose(path_of_it[name], value, rtol=1e-12)


def test_the_new_problem_agrees_everywhere(tmp_path: Path) -> None:
    code = block_with("class PoissonRegression")
    path = tmp_path / "poisson.py"
    path.write_text(code)
    generator = np.random.default_rng(0)
    data = gdc.Dataset(generator.normal(size=(30, 2)), generator.poisson(2.0, 30))

    gdc.verify(f"{path}:PoissonRegression", data).assert_agree()
    for name in gdc.backend_names():
        gdc.check_batch_laws(f"{path}:PoissonRegression", data, None, name).assert_agree()

    assert len(code.splitlines()) < 60


@pytest.mark.parametrize("ending", ["gdcompare", "pytest"])
def test_there_is_one_command_that_sets_up_and_ends_with(ending: str) -> None:
    commands = re.findall(rf"^python3 -m venv .*&& \.venv/bin/{ending}$", README, flags=re.MULTILINE)

    assert len(commands) == 1
