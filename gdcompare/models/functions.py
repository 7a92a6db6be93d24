"""NumPy functions as native models: a loss and its gradient, or an operation and its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.models.matching import Layout
from gdcompare.models.native import Native, check_outputs
from gdcompare.referee.due import said


def from_functions(
    loss: Callable[..., Any],
    gradient: Callable[..., Mapping[str, ArrayLike]],
    parameters: Mapping[str, ArrayLike] | None = None,
    *,
    layout: Layout | None = None,
    name: str | None = None,
) -> Native:
    """Return two NumPy functions of `(params, features, targets)`, a mean loss and its gradient, as a native model.

    `gradient` returns `{name: array}`. `parameters` are values of its own, for other models to be loaded from.

    >>> import gdcompare as gdc
    >>> def loss(p, features, targets):
    ...     return ((features @ p["w"] + p["b"] - targets) ** 2).mean()
    >>> def gradient(p, features, targets):
    ...     residuals = features @ p["w"] + p["b"] - targets
    ...     return {"w": 2 * residuals @ features / len(targets), "b": 2 * residuals.mean()}
    >>> mine = from_functions(loss, gradient, layout={"w": "theta_1", "b": "theta_0"})
    >>> gdc.verify("linear-regression", gdc.datasets.noisy_line(), implementations={"mine": mine}).verdict
    'agree'
    """
    return _Functions(loss, gradient, parameters, layout, name)


def from_backward(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *,
    cache: bool = False,
    layout: Layout | None = None,
    name: str | None = None,
) -> Native:
    """Return an operation in NumPy and its backward pass as an implementation of a `gdc.Operation`.

    `forward(*arrays)` takes an array for each parameter of the operation, in that order, and returns its output.
    `backward(cotangent, *arrays)` returns the gradient by each, in that order; or alone, if there is one. With
    `cache=True`, `forward` returns `(output, cache)`, and `backward` takes `(cotangent, cache)`. An output of several
    arrays is a tuple, and so is its cotangent.

    >>> import gdcompare as gdc
    >>> square = gdc.Operation(lambda xp, x: x * x, x=(3,))
    >>> mine = from_backward(lambda x: x * x, lambda cotangent, x: cotangent * x)  # half of it
    >>> report = gdc.verify(square, square.example(), backends=[], implementations={"mine": mine})
    >>> report.verdict, report.entries[1].cause
    ('wrong', 'a constant factor 1/2 in all 3 elements')
    """
    return _Backward(forward, backward, cache, layout, name)


@final
class _Functions(Native):
    unseen = "functions in NumPy show none"

    def __init__(
        self,
        loss: Callable[..., Any],
        gradient: Callable[..., Mapping[str, ArrayLike]],
        parameters: Mapping[str, ArrayLike] | None,
        layout: Layout | None,
        name: str | None,
    ) -> None:
        self.loss, self.gradient, self.layout = loss, gradient, layout
        self.name = name or str(getattr(gradient, "__name__", "functions"))
        self._parameters = dict(parameters or {})

    @property
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """The values that it was given."""
        return {name: np.array(value, dtype=np.float64) for name, value in self._parameters.items()}

    def value_and_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """One call of each."""
        gradient = self.gradient(params, features, targets)
        if not isinstance(gradient, Mapping):
            raise TypeError(f"the gradient of {self.name!r} is due as {{name: array}}, not {said(gradient)}")
        return self.loss(params, features, targets), {name: np.asarray(value) for name, value in gradient.items()}


@final
class _Backward(Native):
    unseen = "functions in NumPy show none"

    def __init__(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        cache: bool,
        layout: Layout | None,
        name: str | None,
    ) -> None:
        self.forward, self.backward, self.cache, self.layout = forward, backward, cache, layout
        self.name = name or str(getattr(backward, "__name__", "backward"))

    @property
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """It has no values of its own."""
        return {}

    def value_and_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """l_i = x_i . vec(f(params)): the gradient of the mean is the backward pass of the mean cotangent."""
        del targets
        inputs = [value.copy() for value in params.values()]
        output, kept = self.forward(*inputs), inputs
        if self.cache:
            if not (isinstance(output, tuple) and len(output) == 2):
                raise TypeError(f"with cache=True {self.name!r} is due to return (output, cache), not {said(output)}")
            output, kept = output[0], [output[1]]
        elif isinstance(output, tuple) and len(output) == 2 and np.size(output[0]) == features.shape[1]:
            raise TypeError(f"{self.name!r} returns {said(output)}, of which the first is the output: say cache=True")
        outputs = [np.asarray(each) for each in (output if isinstance(output, tuple) else (output,))]
        check_outputs(self.name, [each.shape for each in outputs], features.shape[1])
        mean = np.mean(features, axis=0)
        parts = np.split(mean, np.cumsum([each.size for each in outputs])[:-1])
        cotangents = tuple(part.reshape(each.shape) for part, each in zip(parts, outputs, strict=True))
        found = self.backward(cotangents if isinstance(output, tuple) else cotangents[0], *kept)
        gradients = found if isinstance(found, tuple | list) else (found,)
        if len(gradients) != len(params):
            raise TypeError(
                f"the backward pass of {self.name!r} is due to return a gradient by each of {', '.join(params)}, "
                f"not {said(found)}"
            )
        loss = np.mean(features @ np.concatenate([np.ravel(each) for each in outputs]))
        return loss, {name: np.asarray(each) for name, each in zip(params, gradients, strict=True)}
