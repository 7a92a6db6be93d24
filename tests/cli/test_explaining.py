"""`explain` and `prove`, as a user runs them."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gdcompare.cli import commands

WRONG = """
from gdcompare import Problem
class Line(Problem):
    def parameter_shapes(self, data):
        return {"w": data.features.shape[1:]}
    def per_sample_losses(self, xp, params, features, targets):
        return (features @ params["w"] - targets) ** 2
    def per_sample_gradients(self, xp, params, features, targets):
        return {"w": (features @ params["w"] - targets)[:, None] * features}
"""
UNDECIDED = """
from gdcompare import Problem
import numpy as np
class Logarithms(Problem):
    def parameter_shapes(self, data):
        return {"a": (), "b": ()}
    def start(self, data):
        return {"a": np.array(2.0), "b": np.array(3.0)}
    def per_sample_losses(self, xp, params, features, targets):
        return (xp.log(params["a"]) + xp.log(params["b"])) * targets
    def value_and_gradient(self, xp, params, features, targets):
        total = xp.mean(targets)
        return xp.log(params["a"] * params["b"]) * total, {"a": total / params["a"], "b": total / params["b"]}
"""


symbolic = pytest.mark.skipif(find_spec("sympy") is None, reason="the extra symbolic")


def run(*arguments: str, width: int = 100) -> Result:
    return CliRunner(env={"COLUMNS": str(width)}).invoke(commands, list(arguments), prog_name="gdcompare")


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@symbolic
def test_a_proof_ends_with_0_and_says_what_was_proved() -> None:
    done = run("prove", "linear-regression", "--json", "proof.json", "--latex")

    assert done.exit_code == 0, done.output
    assert "Proved for n = 3, d = 2: all of this" in done.stdout
    assert "Not proved: other sizes and settings" in done.stdout
    assert r"\begin{align*}" in done.stdout
    assert json.loads(Path("proof.json").read_text())["verdict"] == "proved"


@symbolic
def test_a_wrong_derivation_ends_with_1_and_its_difference() -> None:
    Path("line.py").write_text(WRONG)

    done = run("prove", "line.py", "--samples", "1", "--features", "1", "--json", "-")

    assert done.exit_code == 1
    assert "Wrong: gradient: w[0]: by hand minus the derivative is" in " ".join(done.stderr.split())
    found = json.loads(done.stdout)
    assert found["verdict"] == "wrong"
    assert found["entries"][1]["difference"] in ("-x[0,0]*(w[0]*x[0,0] - y[0])", "x[0,0]*(-w[0]*x[0,0] + y[0])")


@symbolic
def test_what_is_undecided_ends_with_3() -> None:
    Path("logarithms.py").write_text(UNDECIDED)

    done = run("prove", "logarithms.py")

    assert done.exit_code == 3
    assert "Undecided: loss: it is 0 at every point tried" in " ".join(done.stdout.split())


@symbolic
def test_settings_and_sizes_are_heeded() -> None:
    done = run("prove", "polynomial-regression", "--set", "degree=1", "--samples", "2", "--features", "1")

    assert done.exit_code == 0
    assert "PolynomialRegression with degree = 1: n = 2, d = 1" in done.stdout


def test_without_sympy_it_ends_with_2_and_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sympy", None)

    done = run("prove", "linear-regression")

    assert (done.exit_code, done.stderr) == (2, "error: a proof needs 'sympy': pip install 'gdcompare[symbolic]'\n")


@pytest.mark.parametrize("width", [100, 80])
def test_an_explanation_stands_in_the_terminal_and_on_a_page(width: int) -> None:
    done = run(
        "explain", "linear-regression", "--backend", "numpy", "--html", "x.html", "--json", "x.json", width=width
    )

    assert done.exit_code == 0, done.output
    tables = done.stdout.partition("The samples")[2].splitlines()
    assert max(map(len, tables)) <= width
    assert "[A] -4, " in done.stdout
    assert "[3 A] -12, " in done.stdout
    assert Path("x.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads(Path("x.json").read_text())["marks"][0]["of"] == "residuals"


def test_an_explanation_is_about_the_point_and_the_data_that_are_given() -> None:
    Path("data.csv").write_text("x,y\n1,2\n2,3\n4,9\n5,100\n")
    point = ["--at", "theta_0=1", "--at", "theta_1=1"]

    done = run(
        "explain",
        "linear-regression",
        "--backend",
        "numpy",
        "--data",
        "data.csv",
        "--target",
        "y",
        *point,
        "--json",
        "-",
    )

    found = json.loads(done.stdout)
    assert found["features"] == [[1], [2], [4]]
    assert found["gradients"][0]["gradient"]["theta_0"] == pytest.approx(-8 / 3)


@pytest.mark.parametrize("topic", ["methods", "kinks"])
def test_topics_are_no_problems(topic: str) -> None:
    done = run("explain", topic, "--backend", "numpy", "--json", "-")

    assert done.exit_code == 0, done.output
    assert ("Taylor remainder" if topic == "methods" else "abs(x) at 0") in done.stdout
