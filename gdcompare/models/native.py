"""Native models: what somebody wrote in a framework, or in NumPy, as it is, seen from NumPy.

Nobody rewrites a model to have it checked, and the model itself is never changed. Its parameters keep the names and
layouts that they have; how they correspond to others is the matter of `matching`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.models.matching import Layout, Matching, match

WHOLE = "(output)"
"""The name of a whole model's output among its layers."""


class Layer(NamedTuple):
    """What one layer of a model gives out for one sample, and what comes back to it from the loss."""

    name: str
    """The second call of a layer is `name#2`; several arrays given out by one call are `name[0]`, `name[1]`."""
    value: NDArray[Any]
    cotangent: NDArray[Any]
    """The gradient of the loss by the value; of its shape."""

    def __repr__(self) -> str:
        return f"Layer({self.name!r}, {np.shape(self.value)})"


def layer_names(name: str, call: int, arrays: int) -> list[str]:
    """Return the names of the arrays that one call of a layer gives out.

    >>> layer_names("relu", 1, 1), layer_names("lstm", 2, 2)
    (['relu'], ['lstm#2[0]', 'lstm#2[1]'])
    """
    called = name if call == 1 else f"{name}#{call}"
    return [called] if arrays == 1 else [f"{called}[{i}]" for i in range(arrays)]


def without_row(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array of a single row without its axis of length 1 in front; as it is if it has none."""
    return array[0] if array.shape[:1] == (1,) else array


class Native(ABC):
    """A model that somebody wrote, seen from NumPy; as a function, an implementation for `gdcompare.verify`.

    What it computes is in the dtype of the features that it is given.
    """

    name: str
    layout: Layout | None
    """Where its parameters are loaded from: see `match`."""

    @property
    @abstractmethod
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """Its own names and current values; empty if it is a function without values of its own."""

    @abstractmethod
    def value_and_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """Return the loss and `{own name: gradient}`, means over the rows, at parameters of its own names."""

    def per_sample_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        """Return `{own name: (n, *shape)}`, one gradient per row, computed a row at a time."""
        rows = [self.value_and_grad(params, features[i : i + 1], targets[i : i + 1])[1] for i in range(len(features))]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def layers(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[Layer]:
        """Return what its layers compute for a single row, in order of execution, without the axis of the rows."""
        del params, features, targets
        return []

    def matching(self, source: Mapping[str, ArrayLike]) -> Matching:
        """Return how its parameters are loaded from those of a problem or of another model."""
        own = {name: value.shape for name, value in self.parameters.items()}
        return match(
            {name: np.shape(value) for name, value in source.items()}, own or None, self.layout, name=self.name
        )

    @property
    def __name__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__.lstrip('_')} {self.name!r}>"

    def __call__(
        self,
        params: Mapping[str, NDArray[Any]],
        features: NDArray[Any],
        targets: NDArray[Any],
        weights: NDArray[Any] | None = None,
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """Return the loss and its gradient by the parameters of the source, which it is loaded from.

        With weights the weighted means, of its losses and gradients a row at a time.
        """
        matching = self.matching(params)
        own = matching.load(params)
        if weights is None:
            loss, gradient = self.value_and_grad(own, features, targets)
        else:
            shares = weights / np.sum(weights)  # w_i / sum w
            losses = [self.value_and_grad(own, features[i : i + 1], targets[i : i + 1])[0] for i in range(len(shares))]
            rows = self.per_sample_grad(own, features, targets)
            loss = shares @ np.stack(losses)
            gradient = {name: np.tensordot(shares, each, axes=1) for name, each in rows.items()}
        return loss, matching.in_source(gradient)


def mean_of(loss: Any, n: int) -> Any:
    """Return the mean of a framework's array of n losses, or the array itself if it is one number, the mean already.

    >>> float(mean_of(np.array([1.0, 3.0]), 2)), float(mean_of(np.array(2.0), 2))
    (2.0, 2.0)
    >>> mean_of(np.zeros((3, 1)), 3)
    Traceback (most recent call last):
    ...
    ValueError: the loss has shape (3, 1); it must be one number, the mean, or (3,), a number for each row
    """
    shape = tuple(loss.shape)
    if shape not in ((), (n,)):
        hint = ". Did outputs (n, 1) meet targets (n,)?" if shape == (n, n) else ""
        raise ValueError(
            f"the loss has shape {shape}; it must be one number, the mean, or ({n},), a number for each row{hint}"
        )
    return loss.mean() if shape else loss


def check_independence(name: str, random: Sequence[str], coupling: Sequence[str]) -> None:
    """Raise a ValueError for a model whose parts of these names draw random numbers, or mix the rows of a batch.

    >>> check_independence("net", ["1: Dropout"], [])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: 'net' is in training mode with dropout (1: Dropout): its gradient depends on chance; call .eval() ...
    """
    if random:
        raise ValueError(
            f"{name!r} is in training mode with dropout ({', '.join(random)}): its gradient depends on chance; "
            "call .eval() on it first"
        )
    if coupling:
        raise ValueError(
            f"{name!r} normalises by the statistics of the batch ({', '.join(coupling)}): the loss of a row then "
            "depends on the other rows, so that the mean of the per-sample gradients is not the gradient, and no batch "
            "law holds; call .eval() on it first, or use a group or layer norm"
        )


def check_outputs(name: str, shape: tuple[int, ...], m: int) -> None:
    """Raise a ValueError unless an operation's output has as many numbers as its cotangents.

    >>> check_outputs("softplus", (2, 3), 4)
    Traceback (most recent call last):
    ...
    ValueError: 'softplus' returns an array of shape (2, 3), 6 numbers, where the formula returns 4
    """
    if math.prod(shape) != m:
        size = math.prod(shape)
        raise ValueError(f"{name!r} returns an array of shape {shape}, {size} numbers, where the formula returns {m}")


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


@final
class _Functions(Native):
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
        return self.loss(params, features, targets), {name: np.asarray(value) for name, value in gradient.items()}
