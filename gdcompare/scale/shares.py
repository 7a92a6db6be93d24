"""Who works out which blocks: as many for each as for all others, with as few as possible changing hands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Blocks by number, each pair from the first to before the second; in order, with gaps between them."""


def shared_out(blocks: int, workers: Sequence[str], before: Mapping[str, Ranges], unit: int = 1) -> dict[str, Ranges]:
    """Return whose blocks are which, of those numbered from 0: each has as many units as any other, or one more.

    A unit is that many blocks side by side, from a multiple of it on. Who had blocks before keeps what is not too many.

    >>> first = shared_out(10, ["a", "b"], {})
    >>> first
    {'a': ((0, 5),), 'b': ((5, 10),)}
    >>> shared_out(10, ["a", "c"], first)
    {'a': ((0, 5),), 'c': ((5, 10),)}
    >>> shared_out(10, ["a", "b", "c"], first)
    {'a': ((0, 4),), 'b': ((5, 8),), 'c': ((4, 5), (8, 10))}
    """
    units = -(-blocks // unit)
    least, more = divmod(units, len(workers))
    had = {name: _in_units(before.get(name, ()), unit) for name in workers}
    # Who has most already is who gets one more, where they are not all alike.
    order = sorted(workers, key=lambda name: -_size(had[name]))
    due = {name: least + (place < more) for place, name in enumerate(order)}
    kept = {name: _first(had[name], due[name]) for name in workers}
    free = list(_gaps(units, kept.values()))
    shares = {}
    for name in workers:
        taken, free = _cut(free, due[name] - _size(kept[name]))
        whole = joined([*kept[name], *taken])
        shares[name] = tuple((begin * unit, min(end * unit, blocks)) for begin, end in whole)
    return shares


def unit_for(blocks: int, workers: int) -> int:
    """Return how many blocks side by side stay together: a power of 2, so that they are one node of the tree.

    Larger units make for fewer nodes, which are sent; with 32 for each worker, shares differ by a thirtieth at most.

    >>> unit_for(2442, 2), unit_for(20, 7)
    (32, 1)
    """
    return 1 << max(0, (blocks // (32 * workers)).bit_length() - 1)


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the same numbers in order, with what touches made one.

    >>> joined([(5, 7), (0, 2), (2, 5), (8, 9)])
    ((0, 7), (8, 9))
    """
    whole: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if whole and whole[-1][1] == begin:
            begin = whole.pop()[0]
        whole.append((begin, end))
    return tuple(whole)


def numbers(ranges: Ranges) -> Iterator[int]:
    """Yield the blocks.

    >>> list(numbers(((0, 2), (5, 6))))
    [0, 1, 5]
    """
    for begin, end in ranges:
        yield from range(begin, end)


def has(ranges: Ranges, block: int) -> bool:
    """Whether a block is among them."""
    return any(begin <= block < end for begin, end in ranges)


def _size(ranges: Iterable[tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in ranges)


def _in_units(ranges: Ranges, unit: int) -> Ranges:
    return tuple((begin // unit, -(-end // unit)) for begin, end in ranges)


def _cut(ranges: Iterable[tuple[int, int]], size: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the first so many numbers, and the others."""
    taken, left = [], []
    for begin, end in ranges:
        middle = begin + min(size, end - begin)
        size -= middle - begin
        if begin < middle:
            taken.append((begin, middle))
        if middle < end:
            left.append((middle, end))
    return taken, left


def _first(ranges: Ranges, size: int) -> list[tuple[int, int]]:
    return _cut(ranges, size)[0]


def _gaps(units: int, taken: Iterable[Iterable[tuple[int, int]]]) -> Iterator[tuple[int, int]]:
    """Yield what nobody has."""
    end = 0
    for begin, following in sorted(each for ranges in taken for each in ranges):
        if end < begin:
            yield end, begin
        end = following
    if end < units:
        yield end, units
