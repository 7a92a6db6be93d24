"""Rows of what can be gone through again and again: blocks of anybody's own, of any sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, final

import numpy as np

from gdcompare.data.blocks import Arrays
from gdcompare.data.parts import InParts
from gdcompare.progress import said_if_long


@final
class Iterated(InParts):
    """Pieces `(features, targets)` or `(features, targets, weights)`, of any sizes.

    They come from an iterable that begins anew each time, or from a function that returns an iterator. They are counted
    in a first pass; later ones must give the same pieces, of which sizes, first and last rows are compared.

    >>> def pieces():
    ...     for size in (2, 3):
    ...         yield np.full((size, 1), size), np.zeros(size)
    >>> rows = Iterated(pieces, "mine")
    >>> rows.rows, rows.read(1, 4)[0].ravel().tolist()
    (5, [2, 3, 3])
    >>> Iterated(pieces(), "mine")
    Traceback (most recent call last):
    ...
    ValueError: 'mine' can be gone through only once: give the function that makes it, uncalled, or an object whose \
__iter__ begins anew, such as a list of blocks
    """

    def __init__(self, blocks: Iterable[Any] | Callable[[], Iterable[Any]], name: str) -> None:
        if hasattr(blocks, "__next__"):
            raise ValueError(
                f"{name!r} can be gone through only once: give the function that makes it, uncalled, or an object "
                "whose __iter__ begins anew, such as a list of blocks"
            )
        self._blocks, self._name = blocks, name
        self._marks: list[bytes] = []
        count = 0
        with said_if_long(f"counting the rows of {name}"):
            for piece in self._all():
                count += len(piece[1])
                self._marks.append(_mark(piece))
        super().__init__([count], f"the blocks of {name!r}")

    def _all(self) -> Iterator[Arrays]:
        form = None
        blocks = self._blocks() if callable(self._blocks) else self._blocks
        for index, block in enumerate(blocks):
            of = f"block {index} of {self._name!r}"
            if not isinstance(block, tuple | list) or len(block) not in (2, 3):
                raise ValueError(
                    f"{of} is {type(block).__name__}, not (features, targets) or (features, targets, weights)"
                )
            try:
                features, targets, *weights = (_array(each) for each in block)
                lengths = [len(each) for each in (features, targets, *weights)]
            except (TypeError, ValueError):
                raise ValueError(f"{of} holds what is no array of numbers, a row for each sample") from None
            if len(set(lengths)) > 1:
                raise ValueError(f"the arrays of {of} differ in their number of rows: {lengths}")
            shapes = [each.shape[1:] for each in (features, targets, *weights)]
            if shapes != (form := form or shapes):
                raise ValueError(f"{of} has rows of another form, {shapes}, than before, {form}")
            if lengths[0]:
                yield features, targets, weights[0] if weights else None

    def pieces(self, part: int, rows: int) -> Iterator[Arrays]:  # noqa: ARG002 - there is one, and its pieces are given
        """Yield them all, if they are those of the first time."""
        again = self._all()
        piece = next(again, None)
        for number, mark in enumerate(self._marks):
            if piece is None or _mark(piece) != mark:
                raise self._other(number)
            following = next(again, None)
            if number + 1 == len(self._marks) and following is not None:
                raise self._other(number + 1)
            yield piece
            piece = following

    def _other(self, number: int) -> ValueError:
        return ValueError(
            f"block {number} of {self._name!r} is not that of the first pass, which gave {len(self._marks)}: each pass "
            "must give the same blocks in the same order, so shuffle nothing, and draw nothing anew"
        )

    def identity(self) -> str:
        """Return a digest of the sizes, and first and last rows, of the blocks."""
        return hashlib.sha256(b"".join(self._marks)).hexdigest()


def _array(values: Any) -> Any:
    return np.asarray(getattr(values, "detach", lambda: values)())  # of what records its operations


def _mark(piece: Arrays) -> bytes:
    """Return what tells a piece from others, of a few of its numbers."""
    digest = hashlib.blake2b(digest_size=8)
    for each in piece:
        if each is not None:
            digest.update(f"{each.dtype}{each.shape}".encode())
            digest.update(np.ascontiguousarray(each[[0, -1]]).tobytes())
    return digest.digest()
