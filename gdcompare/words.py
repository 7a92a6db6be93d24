"""Words that messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the known one nearest to it, or nothing if none is near.

    >>> did_you_mean("linear_regresion", ["hinge", "linear-regression"])
    "; did you mean 'linear-regression'?"
    >>> did_you_mean("cubic", ["hinge", "linear-regression"])
    ''
    """
    near = difflib.get_close_matches(name.lower(), known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_line(words: object) -> str:
    r"""Return the words in one line, all of it visible: a line's end would end a comment, and begin another message.

    >>> one_line("a.py:3: it fails" + chr(10) + "    1 / 0" + chr(7))
    'a.py:3: it fails | 1 / 0\\x07'
    """
    line = " | ".join(filter(None, (line.strip() for line in str(words).splitlines())))
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)
