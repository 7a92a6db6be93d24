"""A descent on disk: where it stands after whole chunks, so that it goes on from there, to the same last bit.

One file, `descent.npz`, holds the parameters, the rule's memory, the history, what the stopping rules remember, and
what the descent is of. It is written beside the old one and put in its place: a kill leaves one or the other.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gdcompare.problem import Dataset
from gdcompare.writing import write_bytes

FILE = "descent.npz"
EVERY = 10.0
"""Seconds between two writings, or more: writing takes a twentieth of the time at most."""
_SHARE = 20
_ABOUT = "about"

Arrays = dict[str, NDArray[Any]]


class CheckpointWarning(UserWarning):
    """The descent goes on, and cannot be resumed from where it is now."""


@final
class Checkpoint:
    """The file of one descent, which is told apart from others by what it is `of`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Checkpoint(folder, {"seed": 0}).write({"w": np.ones(2)}, {"steps": 3})
    ...     arrays, numbers = Checkpoint(folder, {"seed": 0}).read()
    ...     Checkpoint(folder, {"seed": 1}).read()
    Traceback (most recent call last):
    ...
    ValueError: the checkpoint in '...' is of another descent: seed was 0, and is 1
    >>> arrays["w"].tolist(), numbers
    ([1.0, 1.0], {'steps': 3})
    """

    def __init__(self, folder: str | os.PathLike[str], of: Mapping[str, Any]) -> None:
        self.folder, self.of = Path(folder), dict(of)
        self._written, self._took = time.monotonic(), 0.0
        self._said = False

    @property
    def exists(self) -> bool:
        """Whether a descent stands there."""
        return (self.folder / FILE).exists()

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written >= max(EVERY, _SHARE * self._took)

    def prepare(self, resume: bool) -> None:
        """Make the folder; a ValueError if nothing can be written there, or if what is there is not to be resumed."""
        where = str(self.folder)
        if self.exists and not resume:
            raise ValueError(
                f"a descent stands in {where!r}: resume it (resume=True, --resume), or name another folder"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self.folder / ".writable", b"")
            (self.folder / ".writable").unlink()
        except OSError as error:
            raise ValueError(f"no checkpoint can be written to {where!r}: {error.strerror}") from None

    def write(self, arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]) -> None:
        """Write all of it; where that fails, as on a full disk, say so once, and leave what was there."""
        begun = time.monotonic()
        about = np.frombuffer(json.dumps({"of": self.of, "numbers": numbers}, default=str).encode(), dtype=np.uint8)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **{_ABOUT: about}, **{f"a {name}": each for name, each in arrays.items()})
        try:
            write_bytes(self.folder / FILE, file.getvalue())
        except OSError as error:
            if not self._said:
                self._said = True
                kept = "that of before stays" if self.exists else "there is none yet"
                warnings.warn(
                    f"the checkpoint in {str(self.folder)!r} cannot be written: {error.strerror}; {kept}, and the "
                    "descent goes on",
                    CheckpointWarning,
                    stacklevel=3,
                )
        self._written = time.monotonic()
        self._took = self._written - begun

    def read(self) -> tuple[Arrays, dict[str, Any]]:
        """Return what was written; a ValueError if it is damaged, or of another descent."""
        where = str(self.folder)
        try:
            whole = io.BytesIO((self.folder / FILE).read_bytes())
            with np.load(whole, allow_pickle=False) as kept:
                about = json.loads(bytes(kept[_ABOUT]))
                arrays = {name[2:]: kept[name] for name in kept.files if name != _ABOUT}
                was, numbers = about["of"], about["numbers"]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"the checkpoint in {where!r} cannot be read, or is damaged: {error}") from None
        now = json.loads(json.dumps(self.of, default=str))
        differs = [
            f"{key} was {was.get(key)}, and is {now.get(key)}" for key in now | was if was.get(key) != now.get(key)
        ]
        if differs:
            raise ValueError(f"the checkpoint in {where!r} is of another descent: {'; '.join(differs)}")
        return arrays, numbers


def name_of(value: Any) -> str:
    """Return its repr, without the places in memory that are others in the next process.

    >>> name_of(print), name_of(object())
    ('<built-in function print>', '<object object>')
    """
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def digest_of(data: Dataset | Mapping[str, Any]) -> str:
    """Return the sha256 of data, or of arrays by name, in short.

    >>> digest_of({"w": np.zeros(2)}) == digest_of({"w": np.zeros(2)}) != digest_of({"w": np.ones(2)})
    True
    """
    if isinstance(data, Dataset):
        data = {"features": data.features, "targets": data.targets, "weights": data.weights}
    made = hashlib.sha256()
    for name, value in data.items():
        array = np.asarray(value)
        made.update(f"{name} {array.dtype} {array.shape} ".encode())
        if value is not None:
            made.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return made.hexdigest()[:16]
