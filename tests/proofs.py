"""Write the table of proofs in docs/see-the-derivative.md: `python -m tests.proofs`, which proves the whole library."""

from __future__ import annotations

import time
from pathlib import Path

import gdcompare as gdc

PAGE = Path(__file__).parents[1] / "docs" / "see-the-derivative.md"
BEGIN, END = "<!-- made by `python -m tests.proofs` -->", "<!-- end of what was made -->"
COLUMNS = ["problem", "size", "formulas", "Hessian-vector product", "verdict", "seconds"]


def row(name: str) -> list[str]:
    """Return what is found of one problem."""
    begun = time.perf_counter()
    proof = gdc.prove(name, seconds=60)
    return row_of(name, proof, time.perf_counter() - begun)


def row_of(name: str, proof: gdc.Proof, seconds: float) -> list[str]:
    """Return what is said of a proof; the last cell is a time, which is another on another machine."""
    second = [entry for entry in proof.entries if entry.claim == "Hessian-vector product"]
    size = ", ".join(f"{letter} = {proof.context[letter]}" for letter in "ndk" if letter in proof.context)
    components = sum(entry.components for entry in proof.entries)
    return [f"`{name}`", size, str(components), "yes" if second else "not derived", proof.verdict, f"{seconds:.1f}"]


def table(rows: list[list[str]]) -> str:
    """Return the rows below their heads."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(page: str) -> list[list[str]]:
    """Return the rows that stand on the page."""
    inside = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in inside]


def rewritten(page: str, rows: list[list[str]]) -> str:
    """Return the page with these rows between its two comments."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), list(map(row, gdc.problem_names()))), encoding="utf-8")
