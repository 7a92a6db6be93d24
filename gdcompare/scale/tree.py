"""Sums in one order: a fixed binary tree over numbered leaves, whoever works out which of them, and when.

Node (level, i) is the sum of leaves i 2^level to (i + 1) 2^level - 1, as far as there are any:

    s(0, i) = leaf i,    s(l, i) = s(l - 1, 2 i) + s(l - 1, 2 i + 1)

Each sum is rounded once, in float64, so that a leaf goes through ceil(log2 n) roundings at most on its way to the root:
|error| <= gamma_depth sum_i |leaf_i|, element by element (N. J. Higham, *Accuracy and Stability of Numerical
Algorithms*, 2nd edition, section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Node: TypeAlias = tuple[int, int]
Nodes: TypeAlias = dict[Node, NDArray[np.float64]]
"""Sums by (level, index)."""


def depth(leaves: int) -> int:
    """Return how many additions lie between a leaf and the root, at most: ceil(log2 n).

    >>> [depth(n) for n in (1, 2, 3, 4, 5)]
    [0, 1, 2, 2, 3]
    """
    return (leaves - 1).bit_length()


@final
class Tree:
    """The sum of n leaves, as they come.

    Leaves that come in their order leave log2(n) sums waiting; a sum is the same in any.

    >>> whole, left, right = Tree(3), Tree(3), Tree(3)
    >>> for i, value in enumerate((1.0, 2.0**-53, 2.0**-53)):
    ...     whole.add(i, np.array([value]))
    ...     (right if i else left).add(i, np.array([value]))
    >>> left.join(right.nodes)
    >>> whole.total.tolist() == left.total.tolist()
    True
    """

    def __init__(self, leaves: int) -> None:
        self.leaves = leaves
        self.nodes: Nodes = {}

    def add(self, index: int, leaf: NDArray[np.float64]) -> None:
        """Take up a leaf."""
        self._put((0, index), leaf)

    def join(self, nodes: Mapping[Node, NDArray[np.float64]]) -> None:
        """Take up what another tree over the same leaves has of others."""
        for node, value in sorted(nodes.items(), key=lambda each: each[0][1] << each[0][0]):
            self._put(node, value)

    @property
    def total(self) -> NDArray[np.float64]:
        """The sum of all leaves, once all are there."""
        root = depth(self.leaves), 0
        if root not in self.nodes:
            raise ValueError(f"of {self.leaves} leaves, not all are there yet")
        return self.nodes[root]

    def _put(self, node: Node, value: NDArray[np.float64]) -> None:
        level, index = node
        while level < depth(self.leaves):
            sibling = level, index ^ 1
            if sibling in self.nodes:
                other = self.nodes.pop(sibling)
                value = other + value if index & 1 else value + other
            elif index & 1 or ((index + 1) << level) < self.leaves:  # the other side is still to come
                break
            level, index = level + 1, index >> 1
        self.nodes[level, index] = value
