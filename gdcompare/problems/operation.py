"""Check the backward pass of an operation: its vector-Jacobian products, against a formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any, final

import numpy as np

from gdcompare.problem import Dataset, Problem


@final
@dataclass(frozen=True, init=False, repr=False)
class Operation(Problem):
    """An operation f of named arrays, written as a formula; its samples are cotangents.

        l_i = c_i . vec(f(params)),   dl_i/dparameter = c_i^T J        the vector-Jacobian product with cotangent c_i

    The features (n, m) are n cotangents of an output of m numbers; targets are not used. Cotangents are random:
    a sum, whose cotangents are all 1, would not see an output that takes the cotangent of its neighbour.

    `formula(xp, **params)` returns an array of any shape, or a tuple of several, whose numbers follow one another;
    the parameters are given by name and shape.

    >>> softplus = Operation(lambda xp, x: xp.logaddexp(x, xp.zeros_like(x)), x=(3,))
    >>> softplus, softplus.example()
    (Operation('<lambda>', x=(3,)), Dataset('cotangents', 40 rows, 3 features))
    """

    formula: Callable[..., Any]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    def __init__(self, formula: Callable[..., Any], /, **shapes: tuple[int, ...]) -> None:
        """Keep the formula and the shapes of its parameters."""
        for name, shape in shapes.items():
            if not isinstance(shape, tuple):
                raise ValueError(f"the shape of {name!r} must be a tuple such as (3,) or (), not {shape!r}")
        if not shapes:
            raise ValueError("name the parameters of the operation and their shapes: Operation(formula, x=(3,))")
        object.__setattr__(self, "formula", formula)
        object.__setattr__(self, "shapes", tuple(shapes.items()))

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}={shape}" for name, shape in self.shapes)
        return f"Operation({getattr(self.formula, '__name__', 'formula')!r}, {shapes})"

    def parameter_shapes(self, data: Dataset) -> dict[str, tuple[int, ...]]:
        """The shapes given."""
        m, width = self._outputs(), data.features.shape[1]
        if width != m:
            raise ValueError(f"{self} has {m} outputs: its features, the cotangents, need {m} columns, not {width}")
        return dict(self.shapes)

    def per_sample_losses(self, xp: Any, params: Mapping[str, Any], features: Any, targets: Any) -> Any:
        """l_i = c_i . vec(f(params))."""
        del targets
        outputs = [xp.reshape(each, (-1,)) for each in _each(self.formula(xp, **params))]
        return features @ (outputs[0] if len(outputs) == 1 else xp.concat(outputs))

    def example(self, samples: int = 40, seed: int = 0) -> Dataset:
        """Draw cotangents from a standard normal, rounded to three decimals."""
        cotangents = np.random.default_rng(seed).standard_normal((samples, self._outputs()))
        return Dataset(np.round(cotangents, 3), np.zeros(samples), name="cotangents")

    def _outputs(self) -> int:
        """Return m; the values do not matter, so that they may lie outside the formula's domain.

        Square arrays are unit matrices, which can be inverted and factored.
        """
        values = {name: _plain(shape) for name, shape in self.shapes}
        try:
            with np.errstate(all="ignore"):
                outputs = _each(self.formula(np, **values))
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"{self}: its outputs are counted at ones, and at unit matrices where arrays are square, and there its "
                f"formula raises {type(error).__name__}: {error}; write it on what it can take"
            ) from error
        except (AttributeError, NameError, TypeError) as error:
            place = "".join(
                f"{Path(each.filename).name}:{each.lineno}: " for each in extract_tb(error.__traceback__)[1:2]
            )
            takes = ", ".join(["xp", *values])
            raise ValueError(
                f"{place}{self}: its formula raises {type(error).__name__}: {error}; it is called as formula({takes}), "
                "all but xp by name, and xp has the functions of the array API standard"
            ) from error
        return sum(math.prod(np.shape(each)) for each in outputs)


def _plain(shape: tuple[int, ...]) -> Any:
    """Return ones, or unit matrices in the last two axes if these are equally long."""
    square = len(shape) >= 2 and shape[-1] == shape[-2]
    return np.broadcast_to(np.eye(shape[-1]), shape).copy() if square else np.ones(shape)


def _each(outputs: Any) -> tuple[Any, ...]:
    """Return one or more outputs as a tuple."""
    return outputs if isinstance(outputs, tuple) else (outputs,)
