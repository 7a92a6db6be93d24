"""What the README and the pages on problems and backends tell a newcomer to write works as it stands there."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.authoring.conformance import check_backend

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROBLEMS = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
ADD_A_BACKEND = (ROOT / "docs" / "add-a-backend.md").read_text(encoding="utf-8")


def block_with(text: str, page: str) -> str:
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if text in block]
    return str(found)


@pytest.mark.thorough
def test_the_new_backend_conforms(tmp_path: Path) -> None:
    pytest.importorskip("autograd", reason="the new backend differentiates with autograd")
    code = block_with("class AutogradBackend", ADD_A_BACKEND)
    path = tmp_path / "my_backend.py"
    path.write_text(code)

    found = check_backend(f"{path}:AutogradBackend", problems=["softmax-regression"])

    assert found, str(found)
    assert len(code.splitlines()) < 60


@pytest.mark.thorough
def test_the_new_problem_agrees_everywhere(tmp_path: Path) -> None:
    code = block_with("class PoissonRegression", PROBLEMS)
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


def test_every_problem_of_the_library_is_named() -> None:
    own = {each.name for each in entry_points(group="gdcompare.problems") if each.module.startswith("gdcompare.")}
    named = set(re.findall(r"`([a-z-]+)`", PROBLEMS[: PROBLEMS.index("## Add a problem")]))

    assert len(own) > 20
    assert own == named
