"""Files that a command line should refuse, and a few that it should take."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import gdcompare as gdc
from gdcompare.referee.certificate import certify, digest

PROBLEM = """\
from dataclasses import dataclass
from gdcompare import Problem

@dataclass(frozen=True)
class Line(Problem):
    slope: float = 1.0
    {settings}
    def parameter_shapes(self, data):
        {shapes}
    def per_sample_losses(self, xp, params, features, targets):
        {losses}
    def per_sample_gradients(self, xp, params, features, targets):
        return {{'w': 2 * (features @ params['w'] - targets)[:, None] * features}}
"""
WHOLE = {
    "settings": "",
    "shapes": "return {'w': data.features.shape[1:]}",
    "losses": "return (features @ params['w'] - targets) ** 2",
}

SOURCES = {
    "fine": PROBLEM.format(**WHOLE),
    "underived": PROBLEM.format(**WHOLE).partition("    def per_sample_gradients")[0],
    "whole": PROBLEM.format(**WHOLE | {"losses": "z = features @ params['w']; return xp.astype(z, xp.int64) * z"}),
    "flat": PROBLEM.format(**WHOLE).replace("[:, None] * features", ""),
    "no_syntax": "def f(:\n",
    "raises": "1 / 0\n",
    "exits": "import sys\nsys.exit(0)\n",
    "leaves": "raise SystemExit('bye')\n",
    "asks": "name = input()\n",
    "recurs": "def f():\n    return f()\nf()\n",
    "overflows": "10.0 ** 400\n",
    "too_large": "x = bytearray(1 << 60)\n",
    "no_file": "open('missing.txt')\n",
    "no_module": "import a_module_that_nobody_has\n",
    "two": PROBLEM.format(**WHOLE) + "class Other(Line):\n    pass\n",
    "none": "x = 1\n",
    "abstract": "from gdcompare import Problem\nclass Half(Problem):\n    pass\n",
    "unhashable": PROBLEM.format(**WHOLE).replace("(frozen=True)", ""),
    "setting_raises": PROBLEM.format(
        **WHOLE | {"settings": "def __post_init__(self): raise ValueError('two\\nlines [/x]')"}
    ),
    "setting_exits": PROBLEM.format(**WHOLE | {"settings": "def __post_init__(self): exit()"}),
    "shapes_raise": PROBLEM.format(**WHOLE | {"shapes": "return {'w': data.columns}"}),
    "shapes_exit": PROBLEM.format(**WHOLE | {"shapes": "import sys; sys.exit()"}),
    "no_shapes": PROBLEM.format(**WHOLE | {"shapes": "return 3"}),
    "losses_raise": PROBLEM.format(**WHOLE | {"losses": "return undefined"}),
    "losses_exit": PROBLEM.format(**WHOLE | {"losses": "import sys; sys.exit(0)"}),
    "losses_recur": PROBLEM.format(**WHOLE | {"losses": "return self.per_sample_losses(xp, params, features, 1)"}),
    "losses_read": PROBLEM.format(**WHOLE | {"losses": "return open('missing.txt')"}),
    "losses_mean": PROBLEM.format(**WHOLE | {"losses": "return xp.mean(targets * params['w'])"}),
    "losses_none": PROBLEM.format(**WHOLE | {"losses": "pass"}),
    "losses_misspelt": PROBLEM.format(**WHOLE | {"losses": "return features @ params['W']"}),
    "functions": (
        "import sys\nimport numpy as np\nVALUE = 3\nDATA = np.zeros(3)\n"
        "def exits(*given): sys.exit(0)\n"
        "def raises(): raise RuntimeError('no model today')\n"
        "def recurs(): return recurs()\n"
        "def nothing(): return None\n"
        "def refuses(implementation): return False\n"
        "def layers(*given): return 1\n"
    ),
    "backends": (
        "from gdcompare import Backend\n"
        "class Bare: pass\n"
        "class Half(Backend): name = 'half'\n"
        "class Raises:\n    def __init__(self, **options): raise RuntimeError('no device')\n"
        "class Exits:\n    def __init__(self, **options): raise SystemExit\n"
        "def none(**options): return None\n"
    ),
}  # fmt: skip

TABLES = {
    "fine.csv": "x,y\n1,2\n3,4\n5,7\n",
    "empty.csv": "",
    "header.csv": "x,y\n",
    "blank.csv": "\n\n\n",
    "ragged.csv": "x,y\n1,2\n3\n",
    "words.csv": "x,y\n1,2\n3,four\n",
    "nan.csv": "x,y\n1,2\nnan,4\n",
    "infinite.csv": "x,y\n1,2\n3,1e999\n",
    "gap.csv": "x,y\n1,2\n,4\n",
    "twice.csv": "x,x,y\n1,2,3\n",
    "unnamed.csv": "x,,y\n1,2,3\n",
    "quoted.csv": 'x,y\n"1,2\n3,4\n',
    "zeros.csv": "x,y\0\n1,2\n",
    "only.csv": "y\n1\n2\n",
    "weights.csv": "x,y,negative,zero,word\n1,2,-1,0,a\n3,4,1,0,b\n",
    "weights_minus.csv": "x,y,w\n1,2,-1\n3,4,1\n",
    "weights_zero.csv": "x,y,w\n1,2,0\n3,4,0\n",
    "large.csv": "x,y\n1e300,2\n3,4\n",
    "counts.csv": "x,y\n1,-2\n3,4\n",
    "classes.csv": "x,y\n1,0\n3,2\n",
    "notes.txt": "x,y\n1,2\n",
    "pretends.npz": "no archive",
    "pretends.parquet": "no table",
    "words.json": "no certificate",
    "list.json": "[]",
    "number.json": "1e999",
    "deep.json": "[" * 100_000,
    "other.json": '{"format": "another"}',
    "future.json": '{"format": "gdcompare certificate", "version": 2}',
    "lacking.json": '{"format": "gdcompare certificate", "version": 1}',
}


def write_all(folder: Path) -> None:
    """Write them all to a folder."""
    for name, source in SOURCES.items():
        (folder / f"{name}.py").write_text(source)
    for name, text in TABLES.items():
        (folder / name).write_text(text)
    (folder / "latin.csv").write_bytes("x,größe\n1,2\n".encode("latin-1"))
    (folder / "latin.py").write_bytes("x = 'größe'\n".encode("latin-1"))
    (folder / "utf16.csv").write_text("x,y\n1,2\n", encoding="utf-16")
    (folder / "latin.json").write_bytes("{'größe': 1}".encode("latin-1"))
    (folder / "folder.csv").mkdir()
    (folder / "folder.py").mkdir()
    (folder / "folder.json").mkdir()
    (folder / "nowhere.csv").symlink_to("missing.csv")
    (folder / "loop.csv").symlink_to("loop.csv")
    _write_archives(folder)
    _write_certificates(folder)


def _write_archives(folder: Path) -> None:
    np.savez(folder / "fine.npz", X=np.ones((3, 2)), y=np.ones(3))
    np.savez(folder / "three.npz", X=np.ones((3, 2, 2)), y=np.ones(3))
    np.savez(folder / "rows.npz", X=np.ones((3, 2)), y=np.ones(4))
    np.savez(folder / "complex.npz", X=np.ones((3, 2)) * 1j, y=np.ones(3))
    np.savez(folder / "objects.npz", X=np.array([{}, {}, {}]), y=np.ones(3))
    np.savez(folder / "dates.npz", X=np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), y=np.ones(3))
    np.savez(folder / "hollow.npz", X=np.ones((0, 2)), y=np.ones(0))
    np.savez(folder / "narrow.npz", X=np.ones((3, 0)), y=np.ones(3))
    np.savez(folder / "empty.npz")
    np.savez(folder / "nan.npz", X=np.array([[1.0], [np.nan]]), y=np.ones(2))
    headers = {
        "huge": "(70000000000000,)", "negative": "(-3,)", "beyond": f"({10**30},)", "odd": "(", "deep": "(" * 300,
    }  # fmt: skip
    for name, shape in headers.items():
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
        header = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        with zipfile.ZipFile(folder / f"{name}.npz", "w") as archive:
            archive.writestr("X.npy", header)
            archive.writestr("y.npy", header)
    whole = (folder / "fine.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    spoilt = bytearray(whole)
    spoilt[60:90] = bytes(30)
    (folder / "spoilt.npz").write_bytes(spoilt)
    (folder / "shifted.npz").write_bytes(b"x" + whole)


def _write_certificates(folder: Path) -> None:
    def write(name: str, **changes: Any) -> None:
        section = json.loads(json.dumps(fine["sections"]["float64"])) | changes.pop("section", {})
        changed = fine | {"sections": {"float64": section}} | changes
        (folder / f"certificate_{name}.json").write_text(json.dumps(changed | {"digest": digest(changed)}))

    fine = certify("linear-regression", gdc.Dataset([[1.0], [3.0]], [2.0, 4.0]))
    write("fine")
    write("overflow", section={"targets": ["0x1p99999", "0x0p0"]})
    write("wide_ball", section={"truth": {name: {"balls": f"0x1p{10**30} +/- 0x0p0", "mid": "0x0p0", "kinks": False}
                                          for name in ("loss", "theta_0", "theta_1")}})  # fmt: skip
    write("no_ball", section={"truth": {"loss": {"balls": "1 +- 2", "mid": "0x0p0", "kinks": False}}})
    write("no_params", section={"params": []})
    write("misfit", section={"params": {"theta_0": "0x0p0"}})
    write("no_budgets", section={"budgets": 3})
    write("ragged", section={"features": [["0x1p0"], ["0x1p0", "0x1p0"]]})
    write("rows", section={"targets": ["0x1p0"]})
    write("weights", section={"weights": ["0x1p0"]})
    write("decimals", section={"targets": [0.1, 0.2]})
    write("words", section={"targets": ["one", "two"]})
    write("kinks", section={"kinks": 1})
    write("no_sections", sections=[])
    write("no_section", sections={})
    write("words_for_a_section", sections={"float64": "too large"})
    write("number_for_a_section", sections={"float64": 3})
    write("problem", problem="linear-regression")
    write("nameless", problem={})
    write("elsewhere", problem={"name": "theirs", "is": "Theirs()", "registered": False})
    write("another", problem={"name": "linear-regression", "is": "Theirs()", "registered": True})
    write("data", data=3)
    write("environment", environment=None)
    damaged = fine | {"data": "other"}
    (folder / "certificate_damaged.json").write_text(json.dumps(damaged))
    (folder / "certificate_cut.json").write_text(json.dumps(fine)[:-100])
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    write("deep", section={"features": deep})
