"""The scripts of the chapter on scale: they are Python, and ask for what there is."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

CHAPTER = Path(__file__).parents[2] / "docs" / "scale.md"
SCRIPTS = [
    each
    for each in re.findall(r"^```python\n(.*?)^```", CHAPTER.read_text(), re.DOTALL | re.MULTILINE)
    if "Cluster" in each
]


@pytest.mark.parametrize("script", SCRIPTS, ids=["SLURM", "Kubernetes"])
def test_a_script_gives_its_cluster_arguments_that_it_takes(script: str) -> None:
    tree = ast.parse(script)
    [made] = [each for each in ast.walk(tree) if isinstance(each, ast.Call) and _name(each).endswith("Cluster")]
    [home] = [each.module for each in ast.walk(tree) if isinstance(each, ast.ImportFrom) and each.module]
    given = {each.arg for each in made.keywords}

    kind: Any = getattr(pytest.importorskip(home.partition(".")[0]) and import_module(home), _name(made))
    named = set(inspect.signature(kind).parameters)
    documented = set(re.findall(r"^\s*(\w+) ?:", inspect.getdoc(kind) or "", re.MULTILINE))
    assert given <= named | documented
    for method in ("wait_for_workers", "scheduler_address"):
        assert hasattr(kind, method)


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""
