"""The signs of eigenvectors, singular vectors and columns of Q, which any library chooses for itself.

A v = lambda v  says the same of -v;   U S V^T = (U D) S (V D)^T  and  Q R = (Q D) (D R)  for any D of signs
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdcompare.arithmetic.program import Place

ALONG: dict[str, tuple[int | None, ...]] = {
    "_linalg_eigh": (None, -2),
    "_linalg_svd": (-2, None, -1),
    "linalg_qr": (-2, -1),
}
"""Of each operation's outputs, the axis along which a vector lies whose sign is free; None if there is none."""


def as_theirs(xp: Any, name: str, found: Any, theirs: list[NDArray[Any]]) -> Any:
    """Return what an operation gives, `found`, each vector with the sign that it has in what torch gave out."""
    if name not in ALONG:
        return found
    return [
        xp.multiply(mine, _sides(mine, own, axis)) if isinstance(mine, Place) and axis is not None else mine
        for mine, own, axis in zip(found, theirs, ALONG[name], strict=True)
    ]


def _sides(mine: Place, theirs: NDArray[Any], axis: int) -> NDArray[np.float64]:
    return np.where(np.sum(np.asarray(mine.value) * theirs, axis=axis, keepdims=True) < 0, -1.0, 1.0)
