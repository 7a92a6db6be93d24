"""The starting point that `gdcompare new` writes: a small real problem that runs as it is."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from gdcompare.own_files import can_be_imported
from gdcompare.problem import Problem
from gdcompare.writing import write_text

TEMPLATE = '''\
"""Poisson regression, a problem to make your own. Look at it with: gdcompare verify {file}"""

from dataclasses import dataclass

from gdcompare import Problem


@dataclass(frozen=True)
class {name}(Problem):
    """Counts y_i whose expected value is exp(z_i), z_i = offset + x_i . slopes; l_i = exp(z_i) - y_i z_i."""

    least_target = 0  # your targets may be no smaller; delete the line if they may be any number

    def parameter_shapes(self, data):
        # A name and a shape for each parameter, () for a single number; from the data's width, not from its rows.
        return {{"offset": (), "slopes": (data.features.shape[1],)}}

    def per_sample_losses(self, xp, params, features, targets):
        # The truth: a loss for each of the n rows, and no mean. xp is NumPy, or a framework, or the referee: write
        # xp.exp for np.exp, xp.where for if, z = z + 1 for z += 1.
        z = params["offset"] + features @ params["slopes"]  # (n,)
        return xp.exp(z) - targets * z  # (n,)

    # What you derived, for each row; `verify` says whether it is right. Delete it to compare the frameworks alone.
    def per_sample_gradients(self, xp, params, features, targets):
        z = params["offset"] + features @ params["slopes"]  # (n,)
        residuals = xp.exp(z) - targets  # dl_i/dz_i, (n,)
        return {{"offset": residuals, "slopes": residuals[:, None] * features}}  # (n,), (n, d)
'''


def class_name(path: str | Path) -> str:
    """Return the name of the problem in a file of that name.

    >>> class_name("models/my_problem.py")
    'MyProblem'
    """
    name = "".join(word[:1].upper() + word[1:] for word in Path(path).stem.split("_"))
    return "MyProblem" if name == Problem.__name__ else name


def write_problem(path: str | Path, force: bool = False) -> str:
    """Write the starting point to a file, and return the name of its class.

    Raises ValueError for a name that no module can have, FileExistsError for a file that is there, unless `force`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_problem(Path(folder) / "counts.py")
    'Counts'
    >>> write_problem("my-problem.py")
    Traceback (most recent call last):
    ...
    ValueError: 'my-problem.py' is no name for a Python module; call it 'my_problem.py'
    """
    file = Path(path)
    stem = file.stem if file.suffix == ".py" else file.name
    if file.suffix != ".py" or not _can_be_imported(stem):
        words = re.sub(r"\W+", "_", stem).strip("_")
        better = words if _can_be_imported(words) else f"problem_{words}".rstrip("_")
        raise ValueError(f"{file.name!r} is no name for a Python module; call it {f'{better}.py'!r}")
    if file.exists() and not force:
        raise FileExistsError(f"{str(file)!r} is there already; choose another name, or overwrite it with --force")
    if not file.exists() and can_be_imported(stem):
        raise ValueError(f"{file.name!r} would hide the module {stem!r}; choose another name, such as 'my_{file.name}'")
    name = class_name(file)
    write_text(file, TEMPLATE.format(file=file.name, name=name))
    return name


def _can_be_imported(stem: str) -> bool:
    """Whether a module may be called so, and its class after it."""
    return stem.isidentifier() and not keyword.iskeyword(stem) and class_name(stem).isidentifier()
