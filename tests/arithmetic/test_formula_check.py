"""A problem in a file of one's own: from nothing to a verdict, and what is said where the file cannot work."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.arithmetic import formula_check
from gdcompare.arithmetic.formula_check import FormulaError, check_formula
from gdcompare.arithmetic.tape import Tape
from gdcompare.authoring import scaffold
from gdcompare.cli import main
from gdcompare.own_files import FileError
from gdcompare.problem import NotDerivedError
from gdcompare.registry import backend_names, backends_for

BY_HAND = "numpy"
DATA = gdc.Dataset([[0.5, 1.0], [1.0, -1.0], [-0.5, 2.0], [0.0, 0.5], [1.5, 0.0]], [1.0, 0.0, 2.0, 1.0, 3.0])


class Done(NamedTuple):
    code: Any
    out: str
    err: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["gdcompare", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            signal.set_wakeup_fd(-1)  # so that no Ctrl-C of a later test ends this process
        return Done(code, *capsys.readouterr())

    return command


def number_of(path: Path, text: str) -> int:
    """Return the number of the line that holds the text."""
    return next(i for i, line in enumerate(path.read_text().splitlines(), start=1) if text in line)


# A starting point


@pytest.mark.thorough
def test_new_verify_laws_and_descend_work_one_after_another(run: Any) -> None:
    written = run("new", "my_counts.py")
    done = [run(command, "my_counts.py", "--backend", BY_HAND) for command in ("verify", "laws", "descend")]

    assert written.code == 0
    for command in ("verify", "laws", "descend"):
        assert f"gdcompare {command} my_counts.py" in written.out
    assert [each.code for each in done] == [0, 0, 0], done
    assert all("MyCounts on" in each.out for each in done)


def test_a_mistake_edited_into_the_derivation_is_called_wrong(run: Any) -> None:
    run("new", "my_counts.py")
    file = Path("my_counts.py")
    file.write_text(file.read_text().replace("residuals[:, None] * features", "-residuals[:, None] * features"))

    done = run("verify", "my_counts.py", "--backend", BY_HAND)

    assert done.code == 1
    assert "slopes[0]: the sign is flipped" in done.out


def test_the_starting_point_stands_on_every_backend_without_its_derivation_or_with_it(
    backend_name: str, tmp_path: Path
) -> None:
    file = tmp_path / "my_counts.py"
    scaffold.write_problem(file)
    (tmp_path / "underived.py").write_text(file.read_text().partition("    # What you derived")[0])
    derived, underived = (gdc.load_problem(str(tmp_path / name)) for name in ("my_counts.py", "underived.py"))

    reports = [gdc.verify(derived, DATA, backends=[backend_name])]
    if backend_name != BY_HAND:
        reports.append(gdc.verify(underived, DATA, backends=[backend_name]))

    assert all(reports)
    assert not underived.derived


def test_a_file_is_never_given_a_class_that_hides_its_base() -> None:
    assert [scaffold.class_name(name) for name in ("problem.py", "my_problem.py", "a/gamma_2.py")] == [
        "MyProblem",
        "MyProblem",
        "Gamma2",
    ]


def test_new_overwrites_only_by_force(run: Any) -> None:
    Path("mine.py").write_text("precious\n")

    refused = run("new", "mine.py")
    kept = Path("mine.py").read_text()
    forced = run("new", "mine.py", "--force")

    assert (refused.code, forced.code) == (2, 0)
    assert "'mine.py' is there already; choose another name, or overwrite it with --force" in refused.err
    assert kept == "precious\n"
    assert "class Mine(Problem)" in Path("mine.py").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-problem.py", "'my-problem.py' is no name for a Python module; call it 'my_problem.py'"),
        ("1st.py", "'1st.py' is no name for a Python module; call it 'problem_1st.py'"),
        ("class.py", "'class.py' is no name for a Python module; call it 'problem_class.py'"),
        ("counts", "'counts' is no name for a Python module; call it 'counts.py'"),
        ("_.py", "'_.py' is no name for a Python module; call it 'problem.py'"),
        ("numpy.py", "'numpy.py' would hide the module 'numpy'; choose another name, such as 'my_numpy.py'"),
        ("nowhere/counts.py", "there is no folder 'nowhere' to write 'counts.py' to"),
    ],
)
def test_new_refuses_a_name_that_could_not_be_imported(run: Any, name: str, message: str) -> None:
    done = run("new", name)

    assert done.code == 2
    assert message in done.err
    assert not Path(name).exists()


# Which problem, which backends


def test_a_csv_of_counts_is_judged_with_its_target_given_or_found(run: Any) -> None:
    run("new", "my_counts.py")
    Path("given.csv").write_text("age,visits\n1,2\n2,0\n3,5\n")
    Path("found.csv").write_text("age,target\n1,2\n2,0\n3,5\n")

    given = run("verify", "my_counts.py:MyCounts", "--data", "given.csv", "--target", "visits", "--backend", BY_HAND)
    found = run("verify", "my_counts.py", "--data", "found.csv", "--backend", BY_HAND)
    lost = run("verify", "my_counts.py", "--data", "given.csv", "--backend", BY_HAND)

    assert (given.code, found.code, lost.code) == (0, 0, 2)
    assert "no target was named in 'given.csv'; --target may be: age, visits" in lost.err


@pytest.mark.thorough
def test_a_file_alone_is_enough_for_one_problem_and_no_more(run: Any) -> None:
    scaffold.write_problem("one.py")
    text = Path("one.py").read_text()
    Path("two.py").write_text(text + text.replace("class One", "class Another"))
    Path("none.py").write_text("from gdcompare import Problem\n")
    Path("both.py").write_text(text + "\n\nHERE = One()\n")

    done = {name: run("verify", f"{name}.py", "--backend", BY_HAND) for name in ("one", "two", "none", "both")}

    assert {name: each.code for name, each in done.items()} == {"one": 0, "two": 2, "none": 2, "both": 2}
    assert "'two.py' has 2 problems; write 'two.py:One' or 'two.py:Another'" in done["two"].err
    assert "'none.py' has no problem: write class MyProblem(gdcompare.Problem) in it" in done["none"].err
    assert "write 'both.py:One' or 'both.py:HERE'" in done["both"].err


UNDERIVED = """
from dataclasses import dataclass

from gdcompare import Problem


@dataclass(frozen=True)
class Mine(Problem):
    def parameter_shapes(self, data):
        return {"slopes": (data.features.shape[1],), "offset": ()}

    def per_sample_losses(self, xp, params, features, targets):
        z = features @ params["slopes"] + params["offset"]
        return xp.exp(z) - targets * z
"""


@pytest.fixture
def underived(tmp_path: Path) -> gdc.Problem:
    path = tmp_path / "underived.py"
    path.write_text(UNDERIVED)
    return gdc.load_problem(str(path))


def test_without_a_derivation_the_backends_that_need_one_are_left_out(underived: gdc.Problem) -> None:
    able = [name for name in backend_names() if name != BY_HAND]
    if not able:
        pytest.skip("no backend is installed that differentiates the loss")

    assert [backend.name for backend in backends_for(underived)] == able
    assert [backend.name for backend in backends_for(gdc.load_problem("linear-regression"))] == backend_names()


def test_a_backend_that_needs_a_derivation_says_what_to_write(underived: gdc.Problem, run: Any) -> None:
    message = "backend 'numpy' evaluates gradients derived by hand, and Mine has none: write its per_sample_gradients"
    params = {"slopes": np.zeros(2), "offset": 0.0}

    with pytest.raises(NotDerivedError, match=message):
        gdc.verify(underived, DATA, backends=[BY_HAND])
    with pytest.raises(NotDerivedError, match=message):
        gdc.check_batch_laws(underived, DATA, params, BY_HAND)
    with pytest.raises(NotDerivedError, match=message):
        gdc.value_and_grad(underived, DATA, params, BY_HAND)
    with pytest.raises(NotDerivedError, match=message):
        gdc.descend(underived, DATA, BY_HAND, epochs=1)
    for command in ("verify", "laws", "descend", "mutate"):
        done = run(command, "underived.py", *(["--backend", BY_HAND] if command != "mutate" else []))
        assert done.code == 2
        assert "per_sample_gradients" in done.err


def test_without_a_derivation_and_without_a_framework_nothing_can_be_compared(
    underived: gdc.Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gdcompare.registry.backend_names", lambda: [BY_HAND])

    with pytest.raises(NotDerivedError, match="no backend that differentiates the loss is installed: write its per_"):
        gdc.verify(underived, DATA)


def test_ones_own_function_may_be_all_that_is_judged(underived: gdc.Problem) -> None:
    def mine(params: Any, features: Any, targets: Any) -> Any:
        residuals = np.exp(features @ params["slopes"] + params["offset"]) - targets
        return None, {"slopes": residuals @ features / len(targets), "offset": np.mean(residuals)}

    report = gdc.verify(underived, DATA, backends=[], implementations={"mine": mine})

    assert report.verdict == "agree"
    assert {entry.implementation for entry in report.entries} == {"mine"}


# Files that do not load


@pytest.mark.parametrize(
    ("spoil", "marker", "message"),
    [
        (lambda text: text.replace("targets * z", "targets * z)"), "* z)", "SyntaxError: unmatched ')'"),
        (lambda text: "import no_such_module\n" + text, "import no", "ModuleNotFoundError: No module named 'no_such"),
        (lambda text: text + "\nhalf = 1 / 0\n", "1 / 0", "ZeroDivisionError: division by zero"),
        (lambda text: text.replace("@dataclass(", "@dataclas("), "@dataclas(", "NameError: name 'dataclas' is not"),
    ],
    ids=["syntax", "import", "any error", "a name"],
)
def test_a_file_that_does_not_load_is_said_with_its_line(run: Any, spoil: Any, marker: str, message: str) -> None:
    path = Path("mine.py")
    path.write_text(spoil(UNDERIVED))

    done = run("verify", "mine.py")
    with pytest.raises(FileError) as error:
        gdc.load_problem("mine.py")

    line = number_of(path, marker)
    assert done.code == 2
    assert f"error: mine.py:{line}: {message}" in done.err
    assert path.read_text().splitlines()[line - 1].strip() in done.err
    assert len(done.err.splitlines()) == 1
    assert error.value.__cause__ is not None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def parameter_shapes", "def parameter_shape", "is no Problem yet: it lacks parameter_shapes"),
        ("def per_sample_losses", "def losses", "is no Problem yet: it lacks per_sample_losses"),
        ("class Mine(Problem)", "class Mine", "has no problem: write class MyProblem(gdcompare.Problem)"),
        ("(frozen=True)", "", "problem Mine cannot be hashed; make it a @dataclass(frozen=True)"),
        ("Problem):", "Problem):\n    degree: int\n", "needs the setting 'degree': --set degree=..., or a default"),
    ],
)
def test_a_class_that_is_no_problem_is_told_what_it_lacks(run: Any, old: str, new: str, message: str) -> None:
    Path("mine.py").write_text(UNDERIVED.replace(old, new))

    done = run("verify", "mine.py")

    assert done.code == 2
    assert message in done.err


# Formulas that cannot work

HEAD = """\
import math
from dataclasses import dataclass

import numpy as np

from gdcompare import Problem


@dataclass(frozen=True)
class Mine(Problem):
    def parameter_shapes(self, data):
        return {"slopes": (data.features.shape[1],), "offset": ()}

    def per_sample_losses(self, xp, params, features, targets):
        slopes, offset = params["slopes"], params["offset"]
        z = features @ slopes + offset
"""
DERIVATION = """
    def per_sample_gradients(self, xp, params, features, targets):
        z = features @ params["slopes"] + params["offset"]
"""
NOTHING = "        return {}\n"

USES = "which takes no other library's arrays: write "
LOSSES = {  # what is wrong, the lines, what is said of the first of them (or of the function: None), and the good twin
    "np.exp": ("return np.exp(z)", f"uses np.exp, {USES}xp.exp", "return xp.exp(z)"),
    "np.sum": ("return z + np.sum(slopes)", f"uses np.sum, {USES}xp.sum", "return z + xp.sum(slopes)"),
    "np.where": ("return np.where(z > 0, z, -z)", f"uses np.where, {USES}xp.where", "return xp.where(z > 0, z, -z)"),
    "np.power": ("return np.power(z, 2)", f"uses np.power, {USES}xp.pow", "return xp.pow(z, 2.0)"),
    "np.linalg.norm": ("return z + np.linalg.norm(slopes)", "uses np.linalg.norm, which", "return z + slopes @ slopes"),
    "math.exp": ("return z + math.exp(offset)", f"uses math.exp, {USES}xp.exp", "return z + math.exp(1.0)"),
    "float": ("return z * float(offset)", "uses float(...), which wants a known number", "return z * float(2)"),
    "max": ("return z + max(offset, 0)", "uses max, which branches on values: write xp.maxi", "return z * max(1, 2)"),
    "a branch": (
        "if offset > 0:\n            z = -z\n        return z",
        "branches on a value, `offset > 0`, which is not known while a framework traces the formula: write xp.where",
        "if features.shape[1] > 1:\n            z = -z\n        return z",
    ),
    "z += 1": ("z += 1\n        return z", "changes an array in place", "z = z + 1\n        return z"),
    "z[0] = 1": ("z[0] = 1\n        return z", "changes an array in place", "one = z[0]\n        return z"),
    "a method": ("return z + slopes.sum()", "uses the method or attribute .sum", "return z + xp.sum(slopes)"),
    "an unknown function": ("return xp.unwrap(z)", "the referee has no xp.unwrap; it knows: abs", "return xp.sin(z)"),
    "NumPy's name": ("return xp.power(z, 2)", "the referee has no xp.power: write xp.pow", "return xp.pow(z, 2.0)"),
    "no function at all": ("return xp.erf(z)", "xp.erf is no function of the array API", "return xp.exp(z)"),
    "no axis name": ("return xp.sum(z[:, None], 1)", "give the axis by name", "return xp.sum(z[:, None], axis=1)"),
    "no parameter": (
        'return z * params["slope"]',
        "there is no parameter 'slope'; parameter_shapes has: slopes, offset; did you mean 'slopes'?",
        'return z * params["offset"]',
    ),
    "no import": ("return numpy.exp(z)", "name 'numpy' is not defined; write xp for numpy", "return xp.exp(z)"),
    "nothing written yet": ("raise NotImplementedError", "per_sample_losses raises NotImplementedError", "return z"),
    "an error": ('raise ValueError("my own")', "per_sample_losses raises ValueError: my own", "return z"),
    "and": ("return xp.where((z > 0) and (z < 1), z, z)", "write & and | for `and` and `or`", "return z"),
    "widths": ("return features @ features", "per_sample_losses raises ValueError: matmul", "return features @ slopes"),
}  # fmt: skip
RESULTS = {
    "a scalar": ("return xp.mean(z)", "returns one number where (n,) is due, a loss for each row: drop the mean"),
    "a column": ("return z[:, None]", "returns shape (4, 1) for 4 rows where (4,) is due, a loss for each row: take"),
    "a square": ("return features[:, :1] * offset - targets", "arrays (n, 1) and (n,) make (n, n) together; take"),
    "a matrix": ("return z[:, None] * xp.ones((1, 3))", "sum over all axes but the first"),
    "None": ("z * z", "returns None where (n,) is due, a loss for each row: is its return missing?"),
    "a list": ("return [z[i] for i in range(len(targets))]", "returns a list where an array (n,) is due"),
    "no parameter": ("return targets**2", "uses no parameter, so that there is nothing to differentiate by"),
    "a centred batch": ("return (z - xp.mean(z)) ** 2", "couples samples: the loss of row 0 is"),
    "a coupled loss": ("return z - xp.max(z)", "or judge the one number as gdcompare.Operation(formula, w=(3,))"),
    "draws": ("import random; return z * random.random()", "gives another loss at each call: of row 0"),
    "a share": ("return z / features.shape[0]", "no batch law can hold. Compute what depends on all rows"),
}  # fmt: skip


def problem_of(tmp_path: Path, text: str) -> gdc.Problem:
    path = tmp_path / "mine.py"
    path.write_text(text)
    return gdc.load_problem(str(path))


@pytest.mark.thorough
@pytest.mark.parametrize(("lines", "message", "good"), LOSSES.values(), ids=LOSSES)
def test_a_loss_that_not_every_array_library_can_is_said_with_its_line(
    lines: str, message: str, good: str, run: Any, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(HEAD + f"        {lines}\n" + DERIVATION + NOTHING)
    (tmp_path / "good.py").write_text(HEAD + f"        {good}\n")

    done = run("laws", "mine.py", "--backend", BY_HAND)
    check_formula(gdc.load_problem("good.py"), DATA, by_hand=False, refereed=True)

    assert done.code == 2
    first = lines.splitlines()[0]
    assert f"error: mine.py:{number_of(tmp_path / 'mine.py', first)}: " in done.err
    assert message in done.err
    assert done.err.endswith(f" | {first}\n")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("lines", "message"), RESULTS.values(), ids=RESULTS)
def test_a_loss_that_is_none_for_each_row_is_refused(lines: str, message: str, run: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HEAD + f"        {lines}\n" + DERIVATION + NOTHING)

    done = run("verify", "mine.py", "--backend", BY_HAND)

    assert done.code == 2
    line = number_of(tmp_path / "mine.py", "def per_sample_losses")
    assert f"error: mine.py:{line}: Mine.per_sample_losses " in done.err
    assert message in done.err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("return {'slopes': z[:, None] * feature, 'offset': z}", "raises NameError: name 'feature' is not defined"),
        ("return {'slopes': np.exp(z)[:, None] * features, 'offset': z}", f"uses np.exp, {USES}xp.exp"),
        (
            "features *= z[:, None]\n        return {'slopes': features, 'offset': z}",
            "changes what it was given: write z",
        ),
        ("return z", "Mine.per_sample_gradients returns a ndarray, not {name: (n, *shape)}"),
        ("return {'slopes': z[:, None] * features, 'offset': 0.0}", "gives 'offset' the shape () for 4 rows"),
    ],
)
def test_a_derivation_that_cannot_be_judged_is_said_with_its_line(
    lines: str, message: str, run: Any, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(HEAD + "        return z * z / 2\n" + DERIVATION + f"        {lines}\n")

    done = run("verify", "mine.py", "--backend", BY_HAND)

    assert done.code == 2
    assert "error: mine.py:" in done.err
    assert message in done.err


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ("return {'slopes': z[:, None] * features}", "offset: missing"),
        ("return {'slopes': z[:, None], 'offset': z}", "slopes: shape"),
        ("return {'slopes': z[:, None] * features, 'offset': z, 'slope': z}", "slope: no such parameter"),
        ("return {'slopes': z[:, None] * features, 'offset': 2 * z}", "factor 2"),
    ],
)
def test_a_derivation_that_is_wrong_is_judged_and_not_refused(lines: str, cause: str, run: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HEAD + "        return z * z / 2\n" + DERIVATION + f"        {lines}\n")
    (tmp_path / "data.csv").write_text("a,b,target\n1,2,3\n0,1,2\n-1,0.5,1\n")

    verified = run("verify", "mine.py", "--backend", BY_HAND, "--data", "data.csv")
    checked = run("laws", "mine.py", "--backend", BY_HAND, "--data", "data.csv")

    assert verified.code == 1
    assert cause in verified.out
    assert checked.code == 1


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ("{'slopes': 2, 'offset': ()}", "gives 'slopes' the shape 2; a shape is a tuple of whole numbers"),
        ("{'slopes': (len(data),), 'offset': ()}", "depends on the number of rows: {'slopes': (40,), "),
        ("{}", "returns a dict where {name: shape} is due"),
        ("{'slopes': (2,), 'offset': (0,)}", "gives 'offset' the shape (0,), of no elements: leave it out"),
        ("{1: (2,), 'offset': ()}", "has a parameter 1, which is no name: give text"),
        ("{'slopes': (data.width,), 'offset': ()}", "parameter_shapes raises AttributeError: 'Dataset' object has no"),
    ],
)  # fmt: skip
def test_shapes_that_are_none_are_refused(shapes: str, message: str, run: Any, tmp_path: Path) -> None:
    text = HEAD + "        return z * z\n" + DERIVATION + NOTHING
    (tmp_path / "mine.py").write_text(text.replace('{"slopes": (data.features.shape[1],), "offset": ()}', shapes))

    for command in ("verify", "descend"):
        done = run(command, "mine.py", "--backend", BY_HAND)

        assert done.code == 2
        assert "error: mine.py:" in done.err
        assert message in done.err


def test_a_mistake_in_a_helper_is_said_with_the_helpers_line(run: Any, tmp_path: Path) -> None:
    """It may stand in another file, and is no function of a library, to be written otherwise."""
    (tmp_path / "helping.py").write_text("def helped(xp, z):\n    return float(z[0]) * z\n")
    text = "from helping import helped\n" + HEAD + "        return helped(xp, z)\n"
    (tmp_path / "mine.py").write_text(text)

    done = run("verify", "mine.py")

    assert done.code == 2
    assert "error: helping.py:2: per_sample_losses uses float(...), which wants a known number" in done.err


def test_what_only_a_framework_refuses_is_said_of_an_operation_too() -> None:
    pytest.importorskip("torch", reason="it does not slice backwards")

    with pytest.raises(FormulaError, match=r"test_formula_check.py:\d+: .*not every array library slices backwards"):
        gdc.verify(gdc.Operation(lambda xp, x: x[::-1], x=(3,)), backends=["torch"])


def test_targets_of_two_dimensions_are_told_how_to_be_allowed() -> None:
    with pytest.raises(ValueError, match="a problem with several targets in a row says target_dimensions = 2"):
        gdc.verify("linear-regression", ([[1.0], [2.0]], [[1.0, 2.0], [3.0, 4.0]]), backends=[])


def test_every_entrance_refuses_a_bad_formula(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, HEAD + "        return np.exp(z)\n" + DERIVATION + NOTHING)
    point = {"slopes": np.zeros(2), "offset": 0.0}

    for enter in (
        lambda: gdc.verify(problem, DATA, backends=[BY_HAND]),
        lambda: gdc.check_batch_laws(problem, DATA, point, BY_HAND),
        lambda: gdc.value_and_grad(problem, DATA, point, BY_HAND),
        lambda: gdc.per_sample_grad(problem, DATA, point, BY_HAND),
        lambda: gdc.descend(problem, DATA, BY_HAND, epochs=1),
    ):
        with pytest.raises(FormulaError, match=r"uses np\.exp") as error:
            enter()
        assert isinstance(error.value, ValueError)
        assert isinstance(error.value.__cause__, TypeError)


def test_only_the_referee_minds_a_function_that_it_does_not_know(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, HEAD + "        return xp.unwrap(z)\n")

    check_formula(problem, DATA, by_hand=False, refereed=False)
    with pytest.raises(FormulaError, match=r"no xp\.unwrap"):
        check_formula(problem, DATA, by_hand=False, refereed=True)


def test_a_formula_that_passed_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = problem_of(tmp_path, UNDERIVED)
    check_formula(good, DATA, by_hand=False, refereed=True)
    monkeypatch.setattr(formula_check, "_Trial", lambda *_: 1 / 0)

    check_formula(good, DATA, by_hand=False, refereed=True)
    with pytest.raises(ZeroDivisionError):
        check_formula(good, gdc.datasets.noisy_line(), by_hand=False, refereed=True)


def test_losses_that_differ_by_rounding_alone_are_not_coupled(tmp_path: Path) -> None:
    """Shuffled sums: a large term that cancels leaves the rounding of either order, and no sample knows another."""
    problem = problem_of(tmp_path, HEAD + "        return (1e12 + z) - 1e12 + xp.sum(features * slopes / 3, axis=1)\n")
    rows = np.random.default_rng(0).normal(size=(64, 7))

    check_formula(problem, gdc.Dataset(rows, rows[:, 0]), by_hand=False, refereed=True)


@pytest.mark.parametrize("name", gdc.problem_names())
def test_every_registered_problem_passes(name: str) -> None:
    problem = gdc.load_problem(name)

    check_formula(problem, gdc.datasets.example(problem), by_hand=problem.derived, refereed=True)


def test_a_bug_of_the_suite_itself_still_shows_its_traceback(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A formula is right, and what stands behind it is not."""
    run("new", "my_counts.py")
    monkeypatch.setattr(Tape, "multiply", lambda *_: 1 / 0)

    done = run("verify", "my_counts.py", "--backend", BY_HAND)

    assert done.code == 4
    assert "ZeroDivisionError" in done.err
    assert "error: a bug " in done.err


def test_targets_that_the_problem_has_not_are_refused_with_their_row(run: Any) -> None:
    run("new", "my_counts.py")
    Path("negative.csv").write_text("x,target\n1,2\n0,-3\n")

    done = run("verify", "my_counts.py", "--data", "negative.csv")

    assert done.code == 2
    assert "MyCounts takes targets from 0 on, but row 1 of 'negative.csv' has -3" in done.err


def test_the_template_stays_short() -> None:
    assert len(scaffold.TEMPLATE.splitlines()) <= 35


# What NumPy's arrays can, and those of a framework cannot

CONSTANT = "give constants as arrays of xp, in the dtype of the data: xp.asarray(W, dtype=features.dtype)"
BEYOND_TORCH = {
    "a constant in a product": ("z = features @ (W @ params['slopes'])", "float64", CONSTANT),
    "a constant in a sum": ("z = features @ (params['slopes'] + W[0])", "float64", CONSTANT),
    "a constant in another dtype": ("z = features @ (xp.asarray(W) @ params['slopes'])", "float32", CONSTANT),
    "backwards": ("z = features[:, ::-1] @ params['slopes']", "float64", "not every array library slices backwards"),
}


@pytest.mark.parametrize(("line", "dtype", "remedy"), BEYOND_TORCH.values(), ids=BEYOND_TORCH)
def test_what_a_framework_cannot_is_said_with_its_line_and_the_way_out(
    line: str, dtype: str, remedy: str, run: Any, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    text = UNDERIVED.replace(
        "from gdcompare import Problem", "import numpy as np\n\nfrom gdcompare import Problem\n\nW = np.eye(1)"
    )
    text = text.replace('z = features @ params["slopes"] + params["offset"]', line)
    (tmp_path / "mine.py").write_text(text)

    done = {
        command: run(command, "mine.py", "--backend", "torch", "--dtype", dtype)
        for command in ("verify", "laws", "descend")
    }

    for each in done.values():
        assert each.code == 2, each
        assert f"error: mine.py:{number_of(tmp_path / 'mine.py', line)}: per_sample_losses runs on NumPy's" in each.err
        assert remedy in each.err
        assert len(each.err.splitlines()) == 1


def test_what_a_framework_does_not_differentiate_is_said_with_the_way_out(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("autograd")
    line = 'z = features @ xp.flip(params["slopes"], axis=0)'
    (tmp_path / "mine.py").write_text(UNDERIVED.replace('z = features @ params["slopes"] + params["offset"]', line))

    done = run("verify", "mine.py", "--backend", "autograd")

    assert done.code == 2
    assert "name the backends that have it: --backend" in done.err


def test_an_operation_that_needs_more_than_ones_is_counted_at_unit_matrices() -> None:
    inverse = gdc.Operation(lambda xp, m: np.linalg.inv(m) if xp is np else m, m=(2, 2))

    assert inverse.example().features.shape == (40, 4)
    with pytest.raises(ValueError, match="its formula raises LinAlgError: Singular matrix"):
        gdc.Operation(lambda xp, m: np.linalg.inv(0 * m), m=(2, 2)).example()
