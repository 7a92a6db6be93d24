"""Commands on rows that are read in blocks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.running import run

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((100, 2))
TARGETS = FEATURES @ [1.0, 2.0] + 0.1 * RNG.standard_normal(100)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", FEATURES)
    np.save("y.npy", TARGETS)
    np.save("short.npy", TARGETS[:-1])
    np.savez("xy.npz", X=FEATURES, y=TARGETS)
    lines = [f"{a!r},{b!r},{c!r}" for (a, b), c in zip(FEATURES.tolist(), TARGETS.tolist(), strict=True)]
    Path("xy.csv").write_text("\n".join(["a,b,target", *lines]))
    Path("folder").mkdir()
    Path("own.py").write_text(
        "import numpy as np\n"
        "X, y = np.load('x.npy'), np.load('y.npy')\n"
        "halves = [(X[:37], y[:37]), (X[37:], y[37:])]\n"
        "once = iter(halves)\n"
        "def made(): return X, y\n"
        "bad = [(X, y), (X[:, :1], y)]\n"
    )


def found(line: str) -> dict[str, Any]:
    done = run(f"{line} --json out.json")
    assert done.exit_code == 0, done.output
    return json.loads(Path("out.json").read_text())  # type: ignore[no-any-return]


def test_the_same_rows_give_the_same_bits_wherever_they_come_from() -> None:
    sources = [
        "x.npy --target y.npy",
        "xy.npz --block-rows 16",
        "xy.csv --block-rows 16",
        "own.py:halves --block-rows 16",
    ]
    sources[0] += " --block-rows 16"
    paths = [
        found(f"descend linear-regression --backend numpy --epochs 5 --data {each}")["backends"]["numpy"]["history"]
        for each in [*sources, "own.py:made --block-rows 16"]
    ]

    assert all(each == paths[0] for each in paths)


def test_a_verdict_is_on_all_rows() -> None:
    done = found("verify linear-regression --backend numpy --data x.npy --target y.npy --block-rows 16")

    assert done["verdict"] == "agree"
    assert done["context"]["n"] == 100


def test_laws_are_checked_between_all_rows_and_their_blocks() -> None:
    done = found("laws linear-regression --backend numpy --data x.npy --target y.npy --block-rows 16")

    assert {each["law"] for each in done["entries"]} >= {"weighted mean of the blocks", "sum = n x mean"}


def test_batches_come_from_blocks() -> None:
    line = "descend linear-regression --backend numpy --epochs 50 --batch-size 10 --learning-rate 0.1 --data x.npy"
    done = found(f"{line} --target y.npy --block-rows 16")

    np.testing.assert_allclose(done["backends"]["numpy"]["parameters"]["theta_1"], [1, 2], atol=0.1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("descend linear-regression --data x.npy", "name the targets of 'x.npy' (target, --target)"),
        ("descend linear-regression --data x.npy --target short.npy", "100 in 'x.npy', 99 in 'short.npy'"),
        ("descend linear-regression --data x.npy --target nowhere.npy", "there is no file 'nowhere.npy'"),
        ("descend linear-regression --data xy.npz --block-rows 0", "whole number, 1 or above, not 0"),
        ("descend linear-regression --data folder", "there is no .parquet file in the folder 'folder'"),
        ("descend linear-regression --data own.py:once --block-rows 9", "can be gone through only once"),
        (
            "descend linear-regression --data own.py:bad --block-rows 60",
            "block 1 of 'own.py:bad' has rows of another form",
        ),
        (
            "descend linear-regression --data xy.npz --block-rows 9 --standardise",
            "--standardise goes with rows that fit",
        ),
        ("descend linear-regression --data xy.npz --block-rows 9 --plot p.svg", "--plot draws rows that fit"),
        ("laws linear-regression --block-rows 9 --plot p.svg", "--plot draws rows that fit"),
        ("descend linear-regression --workers 2 --batch-size 3", "go without batch_size"),
        ("descend linear-regression --workers 0", "workers must be a whole number, 1 or above"),
        ("verify linear-regression --block-rows 9 --digits", "--digits go with rows that fit the memory"),
        ("verify linear-regression --block-rows 9 --derivative hvp", "hvp"),
        ("mutate linear-regression --data x.npy --target y.npy", "is read in blocks of rows"),
    ],
)
def test_bad_input_is_one_line_with_the_way_out(line: str, said: str) -> None:
    if "--plot" in line:
        pytest.importorskip("matplotlib", reason="draws")
    done = run(f"{line}{'' if line.startswith('mutate') else ' --backend numpy'}")

    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert "Traceback" not in done.output
