"""Write docs/functions.md from what the referee knows: `python -m tests.functions_page`."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

from gdcompare.arithmetic.functions import FUNCTIONS as TABLE
from gdcompare.arithmetic.functions import SLOPES
from gdcompare.arithmetic.rounded import ULPS
from gdcompare.arithmetic.tape import Tape, known_functions
from gdcompare.arithmetic.vocabulary import RELATIONS, ROOMS

from .capabilities import with_made

PAGE = Path(__file__).parents[1] / "docs" / "functions.md"
BEGIN = "<!-- made by `python -m tests.functions_page` -->"


def is_in_numpy(name: str) -> bool:
    """Say whether NumPy has a function, so that formulas may use it."""
    return name in vars(np) or name in vars(np.linalg)


def sections() -> dict[str, dict[str, str]]:
    """Return each known function with what it is, by room."""
    known, found = set(known_functions()), dict[str, dict[str, str]]()
    for title, room in {"Operations": Tape, **ROOMS}.items():
        words = {name: inspect.getdoc(value) or "" for name, value in vars(room).items() if name in known}
        found[title] = {name: text.splitlines()[0].removeprefix(f"xp.{name}: ") for name, text in words.items()}
    found["Comparisons"] = dict.fromkeys(RELATIONS, "1 where it holds, else 0")
    found["Functions of one variable"] = {
        name: f"{TABLE[name].symbol if name in TABLE else name + '(x)'}, to {ULPS[name]:g} ulps"
        if name in ULPS
        else "-1, 0 or 1"
        for name in SLOPES
        if name in known
    }
    return found


def table() -> str:
    """Return the sections as Markdown; a star marks what formulas cannot use, because NumPy has it not."""
    parts, bar = list[str](), "\\|"
    for title, functions in sections().items():
        lines = [
            f"| `{name}`{'' if is_in_numpy(name) else ' *'} | {words.replace('|', bar)} |"
            for name, words in sorted(functions.items())
        ]
        parts.append("\n".join([f"## {title}", "", "| function | what it is |", "|---|---|", *lines]))
    return "\n\n".join(parts)


def rewritten(page: str) -> str:
    """Return the page with the tables as they are now between its two comments."""
    return with_made(page, BEGIN, table())


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
