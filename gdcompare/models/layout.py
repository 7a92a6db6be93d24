"""What one function of a layout brings to each element of a parameter: sums of elements of the source, and constants.

    own = sum_k source[terms_k] + constant

The function is run twice at most. First on arrays that NumPy can move but not compute with, which is quick; if it
computes, on arrays of symbolic sums, whose only factors are 1 and 0. So one function says both which values to load and
(by the transpose) to which elements of the source the gradients belong; and no factor can hide another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Move: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], Any]

NOTHING = -1
"""Where a term has no element."""

_ELEMENT = np.dtype([("element", np.int64)])  # NumPy moves such elements, and refuses to compute with them
_FIRST = 2**62  # so far up that nothing which a layout fills in is taken for an element
_MAY = "it may move elements, add them up and fill in constants, and nothing else"


class Brought(NamedTuple):
    """What is loaded into one parameter."""

    terms: tuple[NDArray[np.int64], ...]
    """Positions in the source's parameters, laid one behind the other; NOTHING where there is none."""
    constant: NDArray[np.float64] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is brought."""
        return self.terms[0].shape

    @property
    def positions(self) -> NDArray[np.int64]:
        """All elements that it takes, flat."""
        flat = np.concatenate([np.ravel(each) for each in self.terms])
        return np.asarray(flat[flat != NOTHING])

    @property
    def only_moves(self) -> bool:
        """Whether each element comes from one of the source, and no two from the same."""
        one = len(self.terms) == 1 and self.constant is None and self.positions.size == self.terms[0].size
        return bool(one and np.unique(self.positions).size == self.positions.size)


@final
class Elements:
    """The source's elements, by the names of its parameters, as arrays to be moved or computed with."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        sizes = [math.prod(shape) for shape in shapes.values()]
        self._starts = dict(zip(shapes, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True)) if sizes else {}

    def positions(self, name: str) -> NDArray[np.int64]:
        """Return the positions of a parameter's elements."""
        start, shape = self._starts[name], self.shapes[name]
        return np.arange(start, start + math.prod(shape), dtype=np.int64).reshape(shape)

    def to_move(self, name: str) -> NDArray[Any]:
        """Return elements that can be moved alone."""
        return (self.positions(name) + _FIRST).view(_ELEMENT).reshape(self.shapes[name])

    def to_add(self, name: str) -> NDArray[Any]:
        """Return elements that can be added up, too."""
        sums = [_Sum((int(position),), 0.0, self) for position in np.ravel(self.positions(name))]
        found = np.empty(len(sums), dtype=object)
        found[:] = sums
        return found.reshape(self.shapes[name])

    def named(self, position: int) -> str:
        """Return `p["w"][0, 1]`."""
        name = next(name for name, start in reversed(self._starts.items()) if start <= position)
        index = np.unravel_index(position - self._starts[name], self.shapes[name])
        return f'p["{name}"]' + (f"[{', '.join(map(str, index))}]" if index else "")


def brought(own: str, how: Move, elements: Elements, see: Callable[[Callable[[str], NDArray[Any]]], Any]) -> Brought:
    """Return what a function of a layout brings to one parameter; `see` makes a source of what gives its arrays.

    Raises ValueError, which names the element, for a function that does more than move, add and fill in.
    """
    try:
        moved = np.asarray(how(see(elements.to_move)))
    except (TypeError, AttributeError):
        moved = np.asarray(None)
    if moved.dtype == _ELEMENT and (moved["element"] >= _FIRST).all():
        return Brought((np.asarray(moved["element"] - _FIRST),))
    try:
        return _of_sums(np.asarray(how(see(elements.to_add))))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"the layout of {own!r} computes: {_MAY}; {error}") from error


def _of_sums(array: NDArray[Any]) -> Brought:
    """Return an array of sums and numbers as terms and constants."""
    if array.dtype.kind not in "biufO":
        raise TypeError(f"it returns {array.dtype}")
    sums = [each if isinstance(each, _Sum) else _Sum((), float(each), None) for each in array.ravel().tolist()]
    depth = max([1, *(len(each.positions) for each in sums)])
    filled = [(*each.positions, *[NOTHING] * (depth - len(each.positions))) for each in sums]
    terms = np.array(filled, dtype=np.int64).reshape(len(sums), depth).T
    constant = np.array([each.constant for each in sums], dtype=np.float64).reshape(array.shape)
    if not np.isfinite(constant).all():
        raise TypeError("it fills in numbers that are not finite")
    return Brought(tuple(each.reshape(array.shape) for each in terms), constant if constant.any() else None)


@final
class _Sum:
    """A sum of elements of the source, and a constant. What else a number can do is a TypeError that says where."""

    __slots__ = ("constant", "elements", "positions")
    __array_ufunc__ = None  # a NumPy number beside it leaves the sum to it

    def __init__(self, positions: tuple[int, ...], constant: float, elements: Elements | None) -> None:
        self.positions, self.constant, self.elements = positions, constant, elements

    def __add__(self, other: Any) -> Any:
        if isinstance(other, _Sum):
            if twice := set(self.positions) & set(other.positions):
                raise TypeError(f"it takes {self._named(min(twice))} times 2")
            both = self.positions + other.positions
            return _Sum(both, self.constant + other.constant, self.elements or other.elements)
        return _Sum(self.positions, self.constant + float(other), self.elements)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return other + -self

    def __neg__(self) -> Any:
        return self * -1

    def __pos__(self) -> Any:
        return self

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, _Sum):
            raise TypeError(f"it multiplies {self} by another element")
        if other == 1:
            return self
        if other == 0 or not self.positions:
            return _Sum((), self.constant * float(other), self.elements)
        raise TypeError(f"it multiplies {self} by {float(other):g}")

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, _Sum) or other != 1:
            raise TypeError(f"it divides {self} by {other if isinstance(other, _Sum) else format(float(other), 'g')}")
        return self

    def __float__(self) -> float:
        raise TypeError(f"it makes a number of {self}")

    def __repr__(self) -> str:
        constant = [f"{self.constant:g}"] if self.constant or not self.positions else []
        return " + ".join([*map(self._named, self.positions), *constant])

    def _named(self, position: int) -> str:
        return str(position) if self.elements is None else self.elements.named(position)
