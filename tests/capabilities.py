"""Write docs/capabilities.md from the table of lacks: `python -m tests.capabilities`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .lacks import FEATURES, LACKS, Lack
from .marking import HOUSE

PAGE = Path(__file__).parents[1] / "docs" / "capabilities.md"
BEGIN, END = "<!-- made by `python -m tests.capabilities` -->", "<!-- end of what was made -->"
WORDS = {"notyet": "not yet", "never": "never"}


def table(lacks: Sequence[Lack] = LACKS) -> str:
    """Return the features, one a row, beside what each backend has of them; a number leads to the reason below."""
    backends = sorted(HOUSE)
    notes = list(dict.fromkeys(map(reason, lacks)))
    lines = [f"| feature | {' | '.join(f'`{name}`' for name in backends)} |", "|---" * (len(backends) + 1) + "|"]
    for feature, words in FEATURES.items():
        cells = [f"**{feature}**: {words}"]
        for backend in backends:
            rows = [lack for lack in lacks if (lack.backend, lack.feature) == (backend, feature)]
            found = ("in part" if lack.problems else WORDS[lack.kind] for lack in rows)
            numbers = (notes.index(reason(lack)) + 1 for lack in rows)
            cells.append(", ".join(f"{word} ({i})" for word, i in zip(found, numbers, strict=True)) or "yes")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{i}. {note}" for i, note in enumerate(notes, start=1))]).strip()


def reason(lack: Lack) -> str:
    """Return why, as a sentence."""
    words = f"{lack.reason[0].upper()}{lack.reason[1:]}"
    return f"{words}, for {', '.join(f'`{problem}`' for problem in lack.problems)}." if lack.problems else f"{words}."


def rewritten(page: str) -> str:
    """Return the page with the table as it is now between its two comments."""
    return with_made(page, BEGIN, table())


def with_made(page: str, begin: str, made: str) -> str:
    """Return a page with what was made between two comments."""
    before, found, rest = page.partition(begin)
    _, end, after = rest.partition(END)
    if not (found and end):
        raise ValueError(f"the page has no {begin} ... {END}")
    return f"{before}{begin}\n\n{made}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
