"""Models as they stand, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gdcompare.cli import commands

pytest.importorskip("torch", reason="reads a program of torch")

MODEL = """
import numpy, torch
from gdcompare_torch import from_module
torch.manual_seed(0)
layers = torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.Linear(4, 2)
MODEL = from_module(torch.nn.Sequential(*layers), torch.nn.functional.cross_entropy, name="model")
DATA = numpy.random.default_rng(0).normal(size=(6, 3)), numpy.arange(6) % 2
def wrong(params, features, targets):
    loss, gradient = MODEL.value_and_grad(params, features, targets)
    return loss, {name: 2 * each for name, each in gradient.items()}
"""


@pytest.mark.thorough
def test_the_command_line_takes_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(MODEL)
    results = tmp_path / "results.json"
    words = [f"{file}:MODEL", "--data", f"{file}:DATA", "--json", str(results)]

    right = CliRunner().invoke(commands, ["verify", *words], prog_name="gdcompare")
    wrong = CliRunner().invoke(
        commands, ["verify", *words, "--implementation", f"twice={file}:wrong"], prog_name="gdcompare"
    )
    found = json.loads(results.read_text())
    laws = CliRunner().invoke(commands, ["laws", *words], prog_name="gdcompare")
    bare = CliRunner().invoke(commands, ["verify", f"{file}:MODEL"], prog_name="gdcompare")

    assert (right.exit_code, wrong.exit_code, laws.exit_code, bare.exit_code) == (0, 1, 0, 2)
    assert {each["implementation"] for each in found["entries"] if each["verdict"] == "wrong"} == {"twice"}
    assert "needs data" in bare.output
