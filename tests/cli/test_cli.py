"""The command line, as a user runs it: in a process of its own where that matters, and here where it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gdcompare.cli import commands
from gdcompare.registry import backend_names


def run(*arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments, prog_name="gdcompare")


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gdcompare", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603 - our own


@pytest.mark.thorough
def test_the_demonstration_shows_the_seeds_figures_from_every_backend(tmp_path: Path) -> None:
    path = tmp_path / "demonstration.json"

    done = process("--json", str(path))

    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())
    assert set(results["seed"]) == set(backend_names())
    for figures in results["seed"].values():
        assert figures["whole data"] == {"theta_0": -5.447053909301758, "theta_1": -1.1946825981140137}
        assert figures["mean of 40"] == {"theta_0": -5.447053959220648, "theta_1": -1.194682613387704}
        assert figures["difference"] == {"theta_0": 4.9918890354661016e-08, "theta_1": 1.527369031251169e-08}
    assert "-5.447053959220648" in done.stdout
    assert "4.9918890354661016e-08" in done.stdout
    for kind, steps in (("mini_batch", 300), ("stochastic", 600)):
        assert {each["steps"] for each in results[kind]["backends"].values()} == {steps}
    assert {each["stop_reason"] for each in results["full_batch"]["backends"].values()} == {"gradient norm"}
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.thorough
def test_list_names_everything_that_is_registered() -> None:
    done = process("list")

    assert done.returncode == 0
    for name in ("numpy", "linear-regression", "noisy-line", "nesterov", "cosine"):
        assert f" {name} " in done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_verify_agrees_on_the_noisy_line(dtype: str) -> None:
    done = run("verify", "linear-regression", "--dtype", dtype)

    assert done.exit_code == 0, done.stderr
    assert "comparisons agree" in done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize("derivative", ["jvp", "hvp", "hessian"])
def test_verify_judges_other_derivatives(derivative: str) -> None:
    done = run("verify", "linear-regression", "--backend", "numpy", "--derivative", derivative)

    assert done.exit_code == 0, done.stderr
    assert f"float64, {derivative}" in done.stdout


def test_verify_shows_digits_after_the_report_and_keeps_the_verdict(tmp_path: Path) -> None:
    written = tmp_path / "digits.json"

    done = process("verify", "linear-regression", "--backend", "numpy", "--digits", "--json", str(written))

    assert done.returncode == 0, done.stderr
    assert done.stdout.index("detectable") < done.stdout.index("attainable")
    found = json.loads(written.read_text())
    assert found["verdict"] == "agree"
    assert [(each["parameter"], each["lost"]) for each in found["digits"]] == [("theta_0", ""), ("theta_1", "")]


@pytest.mark.covering
@pytest.mark.thorough
@pytest.mark.parametrize("proven_only", [False, True])
@pytest.mark.parametrize("command", ["verify", "laws"])
def test_proven_only_leaves_a_deep_network_undecided(command: str, proven_only: bool) -> None:
    network = ["tanh-network", "--set", "widths=(3,3,3,3,3,3,3,3,3,3,3,3)", "--dtype", "float32", "--backend", "numpy"]

    done = run(command, *network, *["--proven-only"] * proven_only)

    assert done.exit_code == (3 if proven_only else 0), done.stdout
    assert ("depth: at worst" in " ".join(done.stdout.split())) == proven_only
    assert max(len(line) for line in done.stdout.splitlines() if line.startswith(" ")) <= 80  # the table


@pytest.mark.thorough
def test_certificates_are_about_gradients(tmp_path: Path) -> None:
    certificate = str(tmp_path / "certificate.json")

    done = run("verify", "linear-regression", "--derivative", "hvp", "--certificate", certificate)

    assert done.exit_code == 2
    assert "are about gradients: they go without --derivative" in done.stderr


@pytest.mark.thorough
def test_verify_writes_json_to_stdout_and_the_table_beside_it() -> None:
    done = process("verify", "linear-regression", "--backend", "numpy", "--json", "-")

    assert json.loads(done.stdout)["verdict"] == "agree"
    assert "agree" in done.stderr


@pytest.mark.thorough
def test_a_wrong_derivation_is_called_wrong_with_its_cause_and_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "halved.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from gdcompare import Problem\n"
        "@dataclass(frozen=True)\n"
        "class Halved(Problem):\n"
        "    def parameter_shapes(self, data):\n"
        "        return {'w': data.features.shape[1:]}\n"
        "    def per_sample_losses(self, xp, params, features, targets):\n"
        "        r = features @ params['w'] - targets\n"
        "        return r * r\n"
        "    def per_sample_gradients(self, xp, params, features, targets):\n"
        "        return {'w': (features @ params['w'] - targets)[:, None] * features}\n"
        "    def value_and_gradient(self, xp, params, features, targets):\n"
        "        r = features @ params['w'] - targets\n"
        "        return r @ r / features.shape[0], {'w': r @ features / features.shape[0]}\n"
    )

    done = run("verify", f"{path}:Halved", "--backend", "numpy")
    laws = run("laws", f"{path}:Halved", "--backend", "numpy")

    assert done.exit_code == 1
    assert "factor 1/2" in done.stdout
    assert laws.exit_code == 1
    assert "wrong in 40 of 40 samples" in laws.stdout


@pytest.mark.thorough
def test_laws_hold_on_an_integer_lattice_with_nothing_left_to_rounding() -> None:
    at = ("--at", "theta_0=1", "--at", "theta_1=2,-1,3")
    done = run("laws", "linear-regression", "--data", "integer-lattice", "--backend", "numpy", *at, "--json", "-")

    assert done.exit_code == 0
    exact = {"mean of per-sample gradients", "permutation", "duplication", "partition 16 + 8 + 8"}
    fractions = [e["budget_fraction"] for e in json.loads(done.stdout)["entries"] if e["law"] in exact]
    assert fractions == [0.0] * 8


@pytest.mark.thorough
def test_descend_shows_where_it_ended_and_why() -> None:
    done = run(
        "descend", "linear-regression", "--backend", "numpy", "--rule", "momentum", "--epochs", "5000",
        "--gradient-norm", "1e-8", "--json", "-",
    )  # fmt: skip

    found = json.loads(done.stdout)["backends"]["numpy"]
    assert done.exit_code == 0
    assert found["stop_reason"] == "gradient norm"
    assert found["parameters"]["theta_0"] == pytest.approx(3.9507, abs=1e-4)


@pytest.mark.thorough
def test_mutate_kills_every_planted_fault() -> None:
    done = run("mutate", "linear-regression", "--data", "integer-lattice")

    assert done.exit_code == 0, done.stdout
    assert "mutation score 100%" in done.stdout


@pytest.mark.thorough
def test_mutate_reports_the_survivors_of_a_careless_check(tmp_path: Path) -> None:
    path = tmp_path / "careless.py"
    path.write_text(
        "import numpy as np\n"
        "def check(implementation):\n"
        "    x, y = np.array([[1.0], [3.0]]), np.array([0.0, 1.0])\n"
        "    _, g = implementation({'theta_0': np.array(1.0), 'theta_1': np.array([2.0])}, x, y)\n"
        "    return np.allclose(g['theta_1'], 21.0, rtol=1e-3)\n"
    )

    done = run("mutate", "linear-regression", "--check", f"{path}:check")

    assert done.exit_code == 1
    assert "one component times 1 + 1e-9" in done.stdout
    assert "survived" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "cubic"], "unknown problem 'cubic'; registered: "),
        (["verify", "linear-regression", "--backend", "tf"], "unknown backend 'tf'; registered: "),
        (["verify", "linear-regression", "--dtype", "float16"], "unknown dtype 'float16'; known: float32, float64"),
        (["verify", "linear-regression", "--data", "iris"], "unknown data 'iris'; known: "),
        (["verify", "linear-regression", "--data", "none.csv", "--target", "y"], "there is no file 'none.csv'"),
        (["verify", "linear-regression", "--target", "y"], "--target goes with --data FILE"),
        (["verify", "linear-regression", "--at", "theta_0"], "'theta_0' is not of the form NAME=V"),
        (["verify", "linear-regression", "--at", "theta_0=1"], "has the parameters theta_0, theta_1; got theta_0"),
        (["verify", "none.py:Problem"], "there is no file 'none.py'"),
        (["descend", "linear-regression", "--backend", "numpy", "--batch-size", "0"], "batch size must be"),
        (["descend", "linear-regression", "--backend", "numpy", "--batch-size", "41"], "batch size must be"),
        (["descend", "linear-regression", "--backend", "numpy", "--learning-rate", "-1"], "learning rate must be"),
        (["descend", "linear-regression", "--backend", "numpy", "--learning-rate", "nan"], "learning rate must be"),
        (["descend", "linear-regression", "--backend", "numpy", "--rule", "newton"], "unknown rule 'newton'; known: "),
        (["descend", "linear-regression", "--backend", "numpy", "--epochs", "0"], "epochs must be a whole number"),
        (["mutate", "linear-regression", "--backend", "numpy"], "No such option"),
        (["mutate", "linear-regression", "--check", "check"], "--check takes FILE.py:FUNCTION"),
        (["verify", "linear-regression", "--backend", "numpy", "--fault", "typo"], "unknown fault 'typo'; known: "),
        (
            ["verify", "linear-regression", "--json", "nowhere/x.json"],
            "there is no folder 'nowhere' to write 'x.json' to",
        ),
        (["verify", "linear-regression", "--certificate", "nowhere/x"], "there is no folder 'nowhere' to write 'x' to"),
        (["verify", "linear-regression", "--counterexample", "nowhere/x.py"], "there is no folder 'nowhere'"),
        (["explain", "life"], "unknown problem 'life'"),
        (["explain", "kinks", "--html", "x.html"], "--html goes with a PROBLEM, not with 'kinks'"),
        (["celebrate"], "No such command 'celebrate'"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = run(*arguments)

    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_labels_outside_the_problem_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("x,label\n1,0\n2,2\n")

    done = run("verify", "logistic-regression", "--data", str(path), "--target", "label")

    assert done.exit_code == 2
    assert "takes targets 0 or 1, but row 1 of 'labels.csv' has 2" in done.stderr


@pytest.mark.thorough
def test_a_bug_in_a_formula_is_shown_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "buggy.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from gdcompare import Problem\n"
        "@dataclass(frozen=True)\n"
        "class Buggy(Problem):\n"
        "    def parameter_shapes(self, data): return {'w': ()}\n"
        "    def per_sample_losses(self, xp, params, features, targets): raise ValueError('my own bug')\n"
        "    per_sample_gradients = value_and_gradient = per_sample_losses\n"
    )

    done = run("verify", f"{path}:Buggy", "--backend", "numpy")

    assert done.exit_code == 2
    assert "buggy.py:6: per_sample_losses raises ValueError: my own bug" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
def test_the_classical_checks_stand_side_by_side_and_the_one_at_fault_is_named() -> None:
    fault = "one component times 1 + 1e-4"
    done = run("verify", "logistic-regression", "--backend", "numpy", "--fault", fault)

    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert any("central differences" in line and "agree" in line and "AT FAULT" in line for line in lines)
    assert any(line.split()[:2] == ["enclosure", "wrong"] for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.thorough
def test_explain_shows_every_method_and_every_convention() -> None:
    methods, kinks = run("explain", "methods"), run("explain", "kinks", "--backend", "numpy", "--json", "-")

    assert "Taylor remainder" in methods.stdout
    assert {each["operation"] for each in json.loads(kinks.stdout)["conventions"]} >= {"abs(x) at 0", "sign(x) at 0"}


@pytest.mark.thorough
def test_help_loads_no_framework() -> None:
    probe = (
        "import sys, gdcompare.cli as cli\n"
        "from click.testing import CliRunner\n"
        "assert CliRunner().invoke(cli.commands, ['--help']).exit_code == 0\n"
        "print([name for name in ('torch', 'jax', 'sklearn', 'pyarrow', 'rich') if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)  # noqa: S603

    assert done.stdout.strip() == "[]"


WRONG = """\
import numpy as np


def summed(params, features, targets):
    residuals = params["theta_0"] + features @ params["theta_1"] - targets
    return None, {"theta_0": 2 * np.sum(residuals), "theta_1": 2 * residuals @ features}
"""


@pytest.mark.thorough
def test_a_users_wrong_function_is_judged_and_its_counterexample_fails_by_itself(tmp_path: Path) -> None:
    pytest.importorskip("hypothesis", reason="counterexamples are shrunk by hypothesis")
    mine, script = tmp_path / "mine.py", tmp_path / "script.py"
    mine.write_text(WRONG)

    done = run(
        "verify", "linear-regression", "--backend", "numpy",
        "--implementation", f"mine={mine}:summed", "--counterexample", str(script),
    )  # fmt: skip
    shown = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)  # noqa: S603

    assert done.exit_code == 1
    assert "mine: theta_0: a factor n = 40: a sum where a mean belongs" in done.stdout
    assert (shown.returncode, shown.stderr) == (1, "mine is wrong: theta_0\n")


@pytest.mark.thorough
def test_a_certificate_is_written_and_checked_with_the_verdicts_exit_codes(tmp_path: Path) -> None:
    mine, path = tmp_path / "mine.py", tmp_path / "certificate.json"
    mine.write_text(WRONG)

    written = run("verify", "linear-regression", "--backend", "numpy", "--certificate", str(path))
    agrees = run("check-certificate", str(path), "--backend", "numpy", "--recompute", "--json", "-")
    wrong = run("check-certificate", str(path), "--implementation", f"mine={mine}:summed", "--dtype", "float32")
    path.write_text(path.read_text().replace("noisy-line", "noisy-lime"))
    damaged = run("check-certificate", str(path))

    assert [done.exit_code for done in (written, agrees, wrong, damaged)] == [0, 0, 1, 2]
    assert json.loads(agrees.stdout)["verdict"] == "agree"
    assert "error: the certificate was changed or damaged" in damaged.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("setting", ["mine=mine", "=mine.py:f", "mine.py:f"])
def test_an_implementation_is_given_by_name_and_place(setting: str) -> None:
    done = run("verify", "linear-regression", "--backend", "numpy", "--implementation", setting)

    assert done.exit_code == 2
    assert "Traceback" not in done.stderr
