"""The scripts of docs/distributed.md and what they print; `python -m tests.distributed.chapter` writes that anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CHAPTER = Path(__file__).parents[2] / "docs" / "distributed.md"

_SCRIPT = re.compile(r"```python\n# (\w+\.py)\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def scripts(text: str) -> dict[str, tuple[str, str | None]]:
    """Return the scripts by their names, each with what it prints, if the chapter says."""
    return {found[1]: (found[2], found[3]) for found in _SCRIPT.finditer(text)}


def printed(name: str, folder: Path, text: str) -> str:
    """Return what a script prints, once all are in the folder."""
    for each, (code, _) in scripts(text).items():
        (folder / each).write_text(code, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", name]
    ended = subprocess.run(  # noqa: S603 - a script of ours
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    if ended.returncode:
        raise RuntimeError(f"{name} fails:\n{ended.stderr[-3000:]}")
    return ended.stdout


def filled(text: str, name: str, output: str) -> str:
    """Return the chapter with this as what the script prints."""

    def anew(found: re.Match[str]) -> str:
        return f"```python\n# {name}\n{found[2]}```\n\n```text\n{output}```\n" if found[1] == name else found[0]

    return _SCRIPT.sub(anew, text)


def write(names: list[str]) -> None:
    """Write what these scripts print, or all that print something."""
    for name, (_, output) in scripts(CHAPTER.read_text(encoding="utf-8")).items():
        if output is not None and (not names or name in names):
            text = CHAPTER.read_text(encoding="utf-8")
            with tempfile.TemporaryDirectory() as folder:
                CHAPTER.write_text(filled(text, name, printed(name, Path(folder), text)), encoding="utf-8")


if __name__ == "__main__":
    write(sys.argv[1:])
