"""What readers of tables share: which columns are meant, and what they say of a cell that is no number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Parted = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]
"""Features, targets, and weights if there are any."""


def parted(matrix: NDArray[np.float64], chosen: list[int]) -> Parted:
    """Return the features, the target and, if a second column is chosen, the weights."""
    target, *weights = (matrix[:, index].copy() for index in chosen)
    return np.delete(matrix, chosen, axis=1), target, weights[0] if weights else None


def chosen_columns(path: Path, columns: list[str], target: str | None, weights: str | None) -> list[int]:
    """Return which column of a table is the target, and which the weights, once every column has a name of its own."""
    for index, column in enumerate(columns):
        if not column or column.startswith(("__index_level_", "__null_dask_index__")):
            who = "write_index=False, if Dask" if column.startswith("__null") else "index=False, if pandas"
            raise ValueError(f"column {index} of {path.name!r} has no name; name it, or drop it ({who} wrote it)")
        if columns.index(column) < index:
            raise ValueError(f"{path.name!r} has two columns {column!r}; rename or drop one")
    wanted = ("target", "targets") if target is None else (target,)
    found = [index for index, column in enumerate(columns) if column in wanted]
    if len(found) != 1:
        raise no_target(path, "column", columns, target)
    if weights is not None:
        found.append(columns.index(known_weights(path, "column", columns, target, weights)))
    if len(columns) == len(found):
        raise no_features(path, columns[found[0]])
    return found


def known_weights(path: Path, kind: str, known: list[str], target: str | None, weights: str) -> str:
    """Return the name of the weights, if it is there and not the target's."""
    if weights not in known or weights == target:
        raise LookupError(f"{path.name!r} has no {kind} {weights!r} for the weights; it has: {', '.join(known)}")
    return weights


def refuse_non_finite(path: Path, column: str, values: NDArray[np.float64], first: int = 0) -> None:
    """Raise a ValueError that names the cell unless all values are finite."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise bad_cell(path, str(values[bad[0]]), f"row {first + bad[0]}", column)


def bad_cell(path: Path, what: str, row: str, column: str) -> ValueError:
    """Return the error of a cell that is no finite number."""
    return ValueError(
        f"{path.name!r} holds {what} in {row}, column {column!r}; every cell must be a finite number: "
        "encode it, fill it, or drop its row or column"
    )


def not_really(path: Path, why: str) -> ValueError:
    """Return the error of a file that is not what its ending says."""
    return ValueError(f"{path.name!r} is not a {path.suffix.lower()} file: {why}")


def no_features(path: Path, target: str) -> ValueError:
    """Return the error of a table that is nothing but a target."""
    return ValueError(f"{path.name!r} holds nothing but the target {target!r}; features are needed too")


def no_target(path: Path, kind: str, known: list[str], target: str | None) -> LookupError:
    """Return the error of a table without that target."""
    problem = "no target was named" if target is None else f"there is no {kind} {target!r}"
    return LookupError(f"{problem} in {path.name!r}; --target may be: {', '.join(known) or 'nothing, it is empty'}")
