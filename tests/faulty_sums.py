"""Workers that add up blocks of rows, and make a mistake: what the referee is to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.scale.sums import Sums

Leaves = list[NDArray[np.float64]]
Fault = Callable[[Leaves, Sums, Mapping[str, Any]], NDArray[np.float64]]


class Faulty:
    """Workers that make a mistake."""

    def __init__(self, fault: Fault, sums: Sums) -> None:
        self._fault, self._sums = fault, sums

    def total(self, params: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        leaves = [self._sums.leaf(params, index) for index in range(self._sums.blocks.count)]
        return self._fault(leaves, self._sums, params)


def without_blocks(*which: int, divisor: bool = True) -> Fault:
    def fault(leaves: Leaves, *_: Any) -> Any:
        total = sum(each for index, each in enumerate(leaves) if index not in which)
        return total if divisor else kept(total, leaves)

    return fault


def kept(total: Any, leaves: Leaves) -> Any:
    total[1] = sum(each[1] for each in leaves)
    return total


def twice(leaves: Leaves, *_: Any) -> Any:
    return sum(leaves) + leaves[3]


def means_of_means(leaves: Leaves, *_: Any) -> Any:
    total = np.sum([each / each[1] for each in leaves], axis=0)
    total[1] = len(leaves)
    return total


def full_blocks(leaves: Leaves, sums: Sums, _: Any) -> Any:
    total = np.sum(leaves, axis=0)
    total[1] = len(leaves) * sums.blocks.rows
    return total


def undivided(leaves: Leaves, *_: Any) -> Any:
    total = np.sum(leaves, axis=0)
    total[1] = 1.0
    return total


def in_float32(leaves: Leaves, sums: Sums, params: Mapping[str, Any]) -> Any:
    total = np.zeros(len(leaves[0]), np.float32)
    for index in range(sums.blocks.count):
        rows = sums.blocks.block(index)
        for i in range(len(rows)):
            loss, gradient = gdc.value_and_grad(sums.problem, rows.rows([i]), params, sums.backend, reduction="sum")
            weight = 1.0 if rows.weights is None else rows.weights[i]
            total += np.concatenate([[loss, weight], *map(np.ravel, gradient.values())]).astype(np.float32)
    return kept(total.astype(np.float64), leaves)


def without_a_row(leaves: Leaves, sums: Sums, params: Mapping[str, Any]) -> Any:
    rows, chosen = sums.blocks.block(2), np.arange(sums.blocks.rows) != 3
    loss, gradient = gdc.value_and_grad(sums.problem, rows.rows(chosen), params, sums.backend, reduction="sum")
    weight = float(np.sum(chosen if rows.weights is None else rows.weights[chosen]))
    leaf = np.concatenate([[loss, weight], *map(np.ravel, gradient.values())])
    return sum(each for index, each in enumerate(leaves) if index != 2) + leaf
