"""The chapter's scripts print what the chapter says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.chapter import CHAPTER, filled, printed, scripts

TEXT = CHAPTER.read_text(encoding="utf-8")
PRINTING = [name for name, (_, output) in scripts(TEXT).items() if output is not None]


@pytest.mark.thorough
@pytest.mark.parametrize("name", PRINTING)
def test_a_script_prints_what_the_chapter_says(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jax")

    assert printed(name, tmp_path, TEXT) == scripts(TEXT)[name][1]


def test_every_script_fits_on_a_page() -> None:
    assert {name: len(code.splitlines()) for name, (code, _) in scripts(TEXT).items() if code.count("\n") > 60} == {}
    assert len(PRINTING) > 12


def test_another_output_would_be_seen() -> None:
    text = "```python\n# a.py\nprint(1)\n```\n\n```text\n2\n```\n"

    assert scripts(text) == {"a.py": ("print(1)\n", "2\n")}
    assert scripts(filled(text, "a.py", "1\n"))["a.py"] == ("print(1)\n", "1\n")


def test_a_script_that_fails_is_an_error(tmp_path: Path) -> None:
    text = "```python\n# a.py\nprint(1)\n1 / 0\n```\n\n```text\n1\n```\n"

    with pytest.raises(RuntimeError, match=r"a.py fails:(.|\n)*ZeroDivisionError"):
        printed("a.py", tmp_path, text)
