"""Whatever the command line is given: what it cannot use is refused in one line, with exit code 2, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.files import write_all
from tests.cli.running import run
from tests.marking import shuffled

LINE = "linear-regression --backend numpy"
LONG = "x" * 300

CASES = [
    # Commands and options
    "celebrate", "--celebrate", "verify", f"verify {LINE} --celebrate", f"verify {LINE} extra", "explain",
    "explain life", "explain fine.py:Other", f"explain {LINE} --html ''", f"explain {LINE} --html nowhere/x.html",
    f"explain {LINE} --html folder.json", f"explain {LINE} --html -", f"explain {LINE} --html x --json x",
    f"explain {LINE} --html /dev/full", f"explain {LINE} --at theta_0", f"explain {LINE} --at theta_0=1",
    f"explain {LINE} --data fine.csv --target z", f"explain {LINE} --data fine.csv --target y --html fine.csv",
    f"explain {LINE} --data weights.csv --target y --weights w", f"explain {LINE} --dtype float8",
    "explain linear-regression --backend tf", "explain losses_raise.py", "explain linear-regression --set degree=3",
    "explain methods --html x.html", "explain kinks --at a=1", "explain kinks --data noisy-line",
    # Proofs
    "prove", "prove life", "prove linear-regression --backend numpy", "prove linear-regression --set degree=3",
    *(f"prove linear-regression {rest}" for rest in (
        "--samples 0", "--samples -1", "--samples two", "--features 0", "--outputs 3", "--limit 0", "--limit nan",
        "--limit -1", "--json ''", "--json nowhere/x.json",
    )),
    "prove exponential-decay --features 2", "prove underived.py", "prove losses_raise.py", "prove shapes_exit.py",
    "prove fine.py --json fine.py", "prove whole.py", "prove flat.py",
    "new", "check-certificate", "compare", "check-backend", "list numpy", "--json x.json list", "--json",
    # Problems
    "verify cubic", "verify linear_regression", "verify ''", "verify /", "verify [/x]", "verify missing.py:Line",
    "verify missing.py",
    "verify fine.py:Other", "verify fine.py:", "verify :Line", "verify folder.py", "verify folder.py:Line",
    f"verify {LONG}.py:Line",
    f"verify {LONG}",
    *(f"verify {name}.py --backend numpy" for name in (
        "no_syntax", "raises", "exits", "leaves", "asks", "recurs", "overflows", "too_large", "no_file", "no_module",
        "two", "none",
        "abstract", "setting_raises", "setting_exits", "shapes_raise", "shapes_exit", "no_shapes", "losses_raise",
        "losses_exit", "losses_recur", "named_loss", "losses_read", "losses_mean", "losses_none", "losses_misspelt",
        "latin", "unhashable",
    )),
    "laws shapes_exit.py --backend numpy", "descend shapes_exit.py --backend numpy", "mutate shapes_exit.py",
    "laws losses_raise.py --backend numpy", "descend losses_raise.py --backend numpy", "mutate underived.py",
    "verify underived.py --backend numpy", "verify functions.py:VALUE",
    "verify functions.py:nothing",
    # Settings
    *(f"verify {name} --set {setting}" for name, setting in (
        ("linear-regression", "degree=3"), ("polynomial-regression", "degre=3"), ("polynomial-regression", "degree"),
        ("polynomial-regression", "degree=-1"), ("polynomial-regression", "degree=2.5"),
         ("polynomial-regression", "degree=three"),
        ("polynomial-regression", "=3"), ("polynomial-regression", "degree=True"),
         ("polynomial-regression", "degree=[1"),
        ("matrix-factorisation", "rank=0"), ("matrix-factorisation", "rows=0"),
        ("gaussian-mixture", "components=0"), ("gaussian-mixture", "components=two"), ("gaussian-peaks", "peaks=0"),
        ("recurrent-cell", "width=0"), ("convolution-network", "width=0"), ("convolution-network", "channels=-1"),
        ("convolution-network", "width=99"), ("tanh-network", "widths=3"), ("tanh-network", "widths=()"),
        ("tanh-network", "widths=(2.5,)"), ("tanh-network", "widths=abc"), ("relu-network", "activation=cube"),
        ("ridge-regression", "strength=-1"), ("huber-regression", "delta=0"), ("quantile-regression", "level=75"),
        ("negative-binomial-regression", "dispersion=None"), ("fine.py", "slop=2"),
    )),
    "verify polynomial-regression --set degree=2 --set degree=3",
    f"verify polynomial-regression --set degree={'(' * 300}",
    # Data
    f"verify {LINE} --data iris", f"verify {LINE} --data ''", f"verify {LINE} --data missing.csv --target y",
    f"verify {LINE} --data {LONG}.csv", f"verify {LINE} --data notes.txt", f"verify {LINE} --data .",
    f"verify {LINE} --data noisy-lime",
    f"verify {LINE} --data noisy-line --target y", f"verify {LINE} --data noisy-line --weights y",
    f"verify {LINE} --target y",
    f"verify {LINE} --weights y", f"verify {LINE} --data fine.csv", f"verify {LINE} --data fine.csv --target z",
    f"verify {LINE} --data fine.csv --target ''", f"verify {LINE} --data fine.csv --target y --weights z",
    f"verify {LINE} --data fine.csv --target y --weights y", f"verify {LINE} --data fine.csv --target y --weights x",
    *(f"verify {LINE} --data {name}.csv --target y" for name in (
        "empty", "header", "blank", "ragged", "words", "nan", "infinite", "gap", "twice", "unnamed", "quoted",
        "zeros", "only", "latin",
        "utf16", "folder", "nowhere", "loop",
    )),
    *(f"verify {LINE} --data {name}.csv --target y --weights w" for name in ("weights_minus", "weights_zero")),
    f"verify {LINE} --data weights.csv --target y --weights word",
    f"verify {LINE} --data large.csv --target y --dtype float32",
    "verify poisson-regression --data counts.csv --target y",
    "verify logistic-regression --data classes.csv --target y",
    "verify softmax-regression --data classes.csv --target y", "verify gaussian-peaks --data fine.npz",
    *(f"verify {LINE} --data {name}.npz" for name in (
        "three", "rows", "complex", "objects", "dates", "hollow", "narrow", "empty", "nan", "huge", "negative",
        "beyond", "odd", "deep",
        "cut", "spoilt", "pretends", "shifted",
    )),
    f"verify {LINE} --data fine.npz --target z", f"verify {LINE} --data fine.npz --target y --weights X",
    f"verify {LINE} --data pretends.parquet --target y",
    # Where, and how
    *(f"verify {LINE} {rest}" for rest in (
        "--at theta_0", "--at theta_0=", "--at theta_0=one --at theta_1=0", "--at theta_0=1",
        "--at theta_0=1 --at theta_1=1,2",
        "--at theta_0=1 --at theta_0=2 --at theta_1=0", "--at theta_0=nan --at theta_1=0",
        "--at theta_0=1e999 --at theta_1=0",
        "--at =1", "--at theta_0=1e300 --at theta_1=0 --dtype float32", "--dtype float16", "--dtype ''",
        "--device moon",
        "--reduction product", "--derivative third", "--derivative hvp --all-methods", "--atol -1", "--rtol nan",
        "--atol one",
        "--fault typo", "--fault sum", "--all-methods --reduction sum", "--derivative hvp --certificate x.json",
        "--counterexample x.py --reduction sum", "--derivative hvp --digits", "--all-methods --digits",
    )),
    f"verify {LINE} --backend numpy", "explain kinks --backend numpy --backend numpy",
    "verify linear-regression --backend tf", "verify linear-regression --backend ''",
    "verify linear-regression --backend backends.py:Bare",
    "verify linear-regression --backend backends.py:Half", "verify linear-regression --backend backends.py:Raises",
    "verify linear-regression --backend backends.py:Exits", "verify linear-regression --backend backends.py:none",
    "verify linear-regression --backend functions.py:VALUE", "verify linear-regression --backend exits.py:Mine",
    "verify linear-regression --backend missing.py", "check-backend tf", "check-backend backends.py",
    "check-backend exits.py:Mine",
    "explain kinks --backend tf", "explain kinks --dtype float8",
    # Implementations and checks
    *(f"verify {LINE} --implementation {rest}" for rest in (
        "mine=mine", "=functions.py:exits", "functions.py:exits", "mine=functions.py:VALUE",
        "mine=functions.py:missing",
        "mine=missing.py:f", "mine=functions.py:exits", "mine=exits.py:f", "mine=", "''", "mine=functions.py",
        "mine=functions.py:nothing --implementation mine=functions.py:nothing",
    )),
    *(f"laws {LINE} --implementation mine=functions.py:{rest}" for rest in (
        "VALUE", "missing", "exits", "nothing --per-sample mine=functions.py:VALUE",
        "nothing --per-sample mine=functions.py:missing", "nothing --per-sample mien=functions.py:nothing",
        "nothing --per-sample mine=functions.py:exits",
        "nothing --per-sample mine=functions.py:nothing --per-sample mine=functions.py:nothing",
        "nothing --json functions.py", "bare", "mapping", "masked",
    )),
    *(f"verify {LINE} --implementation mine=functions.py:{rest}" for rest in ("bare", "mapping", "masked")),
    f"laws {LINE} --per-sample mine=functions.py:nothing",
    *(f"mutate linear-regression --check {check}" for check in (
        "check", "functions.py:VALUE", "functions.py:exits", "functions.py:refuses", "exits.py:f", "''",
    )),
    "mutate linear-regression --backend numpy", "mutate linear-regression --device cpu",
    # Descents
    *(f"descend {LINE} {rest}" for rest in (
        "--batch-size 0", "--batch-size 41", "--batch-size one", "--epochs 0", "--epochs -1", "--epochs 1e3",
        "--learning-rate -1",
        "--learning-rate nan", "--learning-rate fast", "--rule newton", "--rule adm", "--schedule cosin",
        "--seed -1 --batch-size 2", "--patience 0",
        "--history-every 0", "--gradient-norm -1", "--gradient-norm nan", "--target-loss inf",
        "--start theta_0",
        "--start theta_0=1", "--start theta_0=1 --start theta_0=1 --start theta_1=0",
    )),
    f"descend {LINE} --seed {'9' * 30} --batch-size 2 --epochs x",
    # Files to be written
    *(f"verify {LINE} {option} {path}" for option in ("--json", "--certificate", "--counterexample") for path in (
        "''", "nowhere/x", "folder.json", f"{LONG}.json", "fine.csv/x",
    )),
    f"verify {LINE} --certificate -", f"verify {LINE} --counterexample -", "new -",
    f"verify {LINE} --json x --certificate x", f"verify {LINE} --json x --certificate ./x",
    f"verify {LINE} --json x --counterexample x",
    f"verify {LINE} --data fine.csv --target y --json fine.csv", "verify fine.py --json fine.py",
    f"verify {LINE} --implementation mine=functions.py:nothing --json functions.py",
    "check-certificate certificate_fine.json --json certificate_fine.json", "list --json /dev/full",
    f"verify {LINE} --json /dev/full",
    f"verify {LINE} --certificate /dev/full",
    "new fine.py", "new my-problem.py", "new nowhere/x.py", "new class.py", "new numpy.py", "new x.txt",
    f"new {LONG}.py", "new ''",
    "new folder.py",
    # Pictures
    *(f"verify {LINE} --plot {path}" for path in (
        "''", "-", "x", "x.bmp", "x.gif", "x.mp4", ".svg", "nowhere/x.svg", "folder.json", "fine.csv/x.svg",
        f"{LONG}.svg", "x.svg --json x.svg", "x.svg --all-methods",
    )),
    f"laws {LINE} --plot x.gif", f"laws {LINE} --plot nowhere/x.svg", "compare fine.py fine.py --plot x.gif",
    "compare functions.py:nothing functions.py:nothing --plot x.jpg",
    "--plot x.svg list", "--plot x.jpg", "--plot nowhere/x.svg",
    *(f"descend {LINE} {rest}" for rest in (
        "--plot x.jpg", "--plot nowhere/x.gif", "--axes theta_0,theta_1", "--plot x.svg --axes theta_0",
        "--plot x.svg --axes theta_0,theta_0", "--plot x.svg --axes theta_0,theta_2", "--plot x.svg --axes ''",
        "--plot x.svg --axes theta_0,theta_1[1]", "--plot x.svg --axes theta_0,theta_1[0],theta_1[0]",
        "--plot x.svg --axes theta_0,theta_1[", "--plot x.svg --epochs 0",
    )),
    # The page
    "report", "report life", "report linear-regression --backend tf", "report losses_raise.py --backend numpy",
    "report life -o x.html", f"report {LINE} --json report.html", "report fine.py --backend numpy -o fine.py",
    *(f"report {LINE} --no-timing {rest}" for rest in (
        "-o ''", "-o -", "-o nowhere/x.html", "-o folder.json", f"-o {LONG}.html", "-o x --json x",
        "-o fine.csv/x.html", "--steps 0", "--steps 1.5", "--batch-size 0",
        "--batch-size 41", "--learning-rate nan", "--learning-rate -1", "--seed -1", "--time 0", "--time nan",
        "--axes theta_0", "--axes theta_0,theta_2", "--at theta_0", "--at theta_0=1", "--dtype float8",
        "--implementation mine", "--target y",
        *(f"--from {name}" for name in (
            "''", "missing.json", "folder.json", "fine.csv", "words.json", "list.json", "number.json", "deep.json",
            "other.json", "latin.json", "certificate_fine.json",
        )),
    )),
    # Certificates
    *(f"check-certificate {name}" for name in (
        "missing.json", "''", "folder.json", f"{LONG}.json", "fine.csv", "words.json", "list.json", "number.json",
        "deep.json",
        "other.json", "future.json", "lacking.json", "latin.json",
    )),
    *(f"check-certificate certificate_{name}.json" for name in (
        "overflow", "misfit", "wide_ball", "no_ball", "no_params", "no_budgets", "ragged", "rows", "weights",
        "decimals",
        "words", "kinks",
        "no_sections", "no_section", "words_for_a_section", "number_for_a_section", "problem", "nameless",
        "elsewhere", "another",
        "data", "environment", "damaged", "cut", "deep",
    )),
    "check-certificate certificate_fine.json --dtype float32",
    "check-certificate certificate_fine.json --dtype float16",
    "check-certificate certificate_fine.json --backend tf", "check-certificate certificate_fine.json --problem hinge",
    "check-certificate certificate_fine.json --problem exits.py",
    "check-certificate certificate_fine.json --implementation m=mine",
    # Benchmarks
    "bench", "bench cubic", "bench linear-regression extra", f"bench {LINE} --resume",
    f"bench {LINE} --resume --json -",
    *(f"bench {LINE} {rest}" for rest in (
        "--sizes x", "--sizes 0", "--sizes 2.5", "--sizes 40,,80", "--sizes nan", "--sizes 1e400", "--sizes 1e15",
        "--features 0", "--what speed", "--what gradient,", "--what ''", "--dtype float16", "--device moon",
        "--variant fast", "--variant numpy[fast]", "--variant ''", "--variant a --variant a", "--time 0",
        "--time nan", "--time -1", "--limit 0", "--precision 0", "--precision x", "--precision 2%%", "--precision -2%",
        "--at-least 0", "--processes 0", "--threads 0", "--threads 10000", "--learning-rate 0 --what descent",
        "--batch-size 41 --what descent", "--batch-size 0", "--data iris", "--data weights.csv", "--target y",
        "--set degree=2", "--against numpy", "--implementation mine=functions.py:missing",
        "--implementation numpy=functions.py:nothing", "--model mine=functions.py:VALUE",
        "--model functions.py:nothing", "--model mine=", "--model mine=functions.py:missing",
        "--implementation m=functions.py:nothing --model m=functions.py:nothing",
        "--plot x.gif", "--plot x", "--plot nowhere/x.svg", "--markdown ''", "--latex nowhere/x",
        "--json x --markdown x", "--json fine.csv --data fine.csv --target y",
        *(f"--resume --json {name}" for name in (
            "words.json", "list.json", "number.json", "deep.json", "other.json", "latin.json", "fine.csv",
            "certificate_fine.json", "folder.json",
        )),
    )),
    "bench tanh-network --backend numpy --what hvp", "bench losses_raise.py --backend numpy",
    "bench linear-regression --backend tf", "bench linear-regression --backend 'numpy[fast]'",
    "bench linear-regression --backend numpy --backend numpy",
    "bench --compare", "bench --compare missing.json", "bench --compare missing.json missing.json",
    "bench linear-regression --compare fine.csv fine.csv",
    *(f"bench --compare {name} {name}" for name in (
        "words.json", "list.json", "deep.json", "other.json", "latin.json", "folder.json", "certificate_fine.json",
    )),
    # Models
    "compare one two", "compare functions.py:VALUE functions.py:VALUE",
    "compare functions.py:raises functions.py:raises",
    "compare functions.py:exits functions.py:exits", "compare functions.py:recurs functions.py:recurs",
    "compare fine.py:Line fine.py:Line",
    "compare functions.py:nothing functions.py:nothing", "compare missing.py:m missing.py:m",
    "compare exits.py:m exits.py:m",
    "compare functions.py:nothing functions.py:nothing --target y", "compare functions.py:VALUE",
    "compare fine.py fine.py",
    "compare functions.py:nothing functions.py:nothing --data functions.py:DATA",
    "compare functions.py:nothing functions.py:nothing --layers functions.py:missing",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad input")
    write_all(path)
    return path


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


SLOW = [f"report {LINE} --no-timing -o /dev/full --steps 1"]
"""Seen only when the work is done."""
QUICK = [line for line in CASES if shuffled(line) % 8 == 0]
LATER = [pytest.param(line, marks=pytest.mark.thorough) for line in [*CASES, *SLOW] if line not in QUICK]


@pytest.mark.parametrize("line", [*QUICK, *LATER])
def test_bad_input_is_one_line_and_exit_code_2(line: str) -> None:
    before = set(Path().iterdir())

    done = run(line)

    said = [each for each in done.stderr.splitlines() if not each.startswith(("Usage: ", "Try '", "       ")) and each]
    assert done.exit_code == 2, done.output
    assert len(said) == 1, done.stderr
    assert said[0].lower().startswith("error: ")
    assert "Traceback" not in done.output
    assert set(Path().iterdir()) - before == set()
