"""Files written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

SURROGATES = "backslashreplace"
"""What becomes of characters that UTF-8 has not: names of files may hold them."""


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write the text beside the file, in UTF-8, and put it in its place: whenever this ends, the file is old or new.

    A link stays a link, and a file keeps its permissions. What is no plain file, such as /dev/stdout, is written to.

    Raises an OSError, as `open` does, and leaves what was there.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_text(Path(folder) / "a.txt", "a")
    ...     [each.name for each in Path(folder).iterdir()], (Path(folder) / "a.txt").read_text()
    (['a.txt'], 'a')
    """
    write_bytes(path, text.encode(errors=SURROGATES))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Do the same with bytes."""
    place = Path(os.path.realpath(path))
    mode = stat.S_IMODE(place.stat().st_mode) if place.exists() else None
    if mode is not None and not (place.is_file() and os.access(place, os.W_OK)):
        place.write_bytes(content)  # or raises, as it should
        return
    beside = place.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            beside.chmod(mode)
        beside.replace(place)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
