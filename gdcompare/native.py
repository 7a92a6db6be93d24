"""Native models: what somebody wrote in a framework, or in NumPy, as it is, seen from NumPy.

Requirements that shaped it:

* Nobody rewrites a model to have it checked, and the model itself is never changed.
* A model has parameters of its own names and layouts. How they correspond to those of a problem, or of another model,
  is said once, as a `Layout`; from it follow both the values to load and the gradients to hand back.
* Nothing is transposed, or matched by its position, silently.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Move: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], Any]
Layout: TypeAlias = Mapping[str, str | Move]
"""`{own name: source name}`, or a function of `{source name: array}` that moves elements: transposes, fuses, splits."""

_ELEMENT = np.dtype([("element", np.int64)])  # NumPy moves such elements, and refuses to compute with them


WHOLE = "(output)"
"""The name of a whole model's output among its layers."""


class Layer(NamedTuple):
    """What one layer of a model gives out for one sample, and what comes back to it from the loss."""

    name: str
    """The second call of a layer is `name#2`; several arrays given out by one call are `name[0]`, `name[1]`."""
    value: NDArray[Any]
    cotangent: NDArray[Any]
    """The gradient of the loss by the value; of its shape."""


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


@final
@dataclass(frozen=True, eq=False)
class Matching:
    """Which element of the source each element of a model's parameters is loaded from.

    >>> matching = match({"kernel": (2, 3)}, {"weight": (3, 2)}, {"weight": lambda p: p["kernel"].T})
    >>> matching.load({"kernel": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])})["weight"].tolist()
    [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
    >>> matching.in_source({"weight": np.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])})["kernel"].tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """

    source_shapes: Shapes
    places: Mapping[str, NDArray[np.int64]]
    """`{own name: array of its shape}`, positions in the source's parameters, laid one behind the other."""

    def load(self, source: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """Return the model's parameters, with the source's values."""
        flat = np.concatenate([np.ravel(source[name]) for name in self.source_shapes])
        return {name: flat[places] for name, places in self.places.items()}

    def in_source(self, gradient: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """Return a gradient by the model's parameters as one by the source's.

        Where an element of the source is used twice, as in tied weights, its gradients add up. Axes in front, as those
        of per-sample gradients (n, *shape), stay in front. Raises ValueError for another name or shape.
        """
        arrays = {name: np.asarray(value) for name, value in gradient.items()}
        if set(arrays) != set(self.places):
            raise ValueError(f"the gradient has {_listed(arrays)}; the model's parameters are {_listed(self.places)}")
        for name, places in self.places.items():
            if arrays[name].shape[arrays[name].ndim - places.ndim :] != places.shape:
                raise ValueError(f"the gradient of {name!r} has shape {arrays[name].shape}, not {places.shape}")
        starts = np.cumsum([0, *map(math.prod, self.source_shapes.values())])
        parts: dict[str, list[tuple[NDArray[Any], NDArray[np.int64]]]] = {name: [] for name in self.source_shapes}
        for name, places in self.places.items():
            owners = np.searchsorted(starts, places, side="right") - 1
            for owner in np.unique(owners).tolist():
                inside = owners == owner
                parts[list(parts)[owner]].append((arrays[name][..., inside], places[inside] - starts[owner]))
        return {name: _added_up(parts[name], shape) for name, shape in self.source_shapes.items()}


def match(
    source_shapes: Shapes, target_shapes: Shapes | None, layout: Layout | None = None, *, name: str = "the model"
) -> Matching:
    """Return from which element of the source each element of the target's parameters is loaded.

    A parameter that `layout` does not name comes from that of the same name and shape. A function in the layout is
    run on arrays that can be moved but not computed with. Every element of the source must be used.
    `target_shapes=None` takes what the layout makes, and from the source what it does not use.

    Raises ValueError, which lists both sides with the nearest names, and the lines to write where the shapes tell.

    >>> match({"kernel": (2, 3), "bias": (3,)}, {"weight": (3, 2), "bias": (3,)})
    Traceback (most recent call last):
    ...
    ValueError: the parameters of the model do not match those of its source:
      'weight' (3, 2) has no source; nearest there: 'kernel' (2, 3)
      'kernel' (2, 3) of the source is not used; nearest here: 'weight' (3, 2)
    if these belong together, write
      layout={"weight": lambda p: p["kernel"].T}
    >>> match({"w": (3,)}, {"w": (3,)}, {"w": lambda p: 2 * p["w"]})
    Traceback (most recent call last):
    ...
    ValueError: the layout of 'w' computes: it may only move elements (transpose, reshape, slice, concatenate, ...)
    """
    layout = dict(layout or {})
    elements = _Source(_numbered(source_shapes))
    if target_shapes is None:
        places = {own: _moved(own, how, elements) for own, how in layout.items()}
        used = np.concatenate([np.ravel(each) for each in places.values()]) if places else np.array([], dtype=np.int64)
        rest = {key: value["element"] - 1 for key, value in elements.items()}
        places |= {key: value for key, value in rest.items() if key not in places and not np.isin(value, used).any()}
        target_shapes = {own: each.shape for own, each in places.items()}
    else:
        if unknown := set(layout) - set(target_shapes):
            own = min(unknown)
            raise ValueError(
                f"the layout names {own!r}, which is no parameter of {name}{_nearest(own, (), target_shapes)}"
            )
        places = {own: _moved(own, layout.get(own, own), elements) for own in target_shapes if own in elements | layout}
    problems = _Mismatch(source_shapes, target_shapes, places)
    if problems.lines:
        raise ValueError(f"the parameters of {name} do not match those of its source:\n{problems}")
    return Matching(dict(source_shapes), {own: places[own] for own in target_shapes})


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
        return f"<{type(self).__name__} {self.name!r}>"

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


@final
class _Source(dict[str, NDArray[Any]]):
    """The source's parameters, as a layout sees them."""

    def __missing__(self, name: str) -> NDArray[Any]:
        raise ValueError(f"the layout asks for {name!r}, which the source does not have{_nearest(name, (), self)}")


def _added_up(parts: Iterable[tuple[NDArray[Any], NDArray[np.int64]]], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the sum of arrays (..., k), each at k positions of an array of that shape."""
    values = [each for each, _ in parts]
    lead = values[0].shape[:-1] if values else ()
    total = np.zeros((*lead, math.prod(shape)), dtype=np.result_type(*values) if values else np.float64)
    for each, places in parts:
        np.add.at(total, (..., places), each)  # type: ignore[arg-type]  # the stubs do not know `...`
    return total.reshape((*lead, *shape))


def _numbered(shapes: Shapes) -> dict[str, NDArray[Any]]:
    """Return arrays of elements numbered from 1: 0 is left for what somebody makes up."""
    found, start = {}, 1
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        found[name] = np.arange(start, stop, dtype=np.int64).view(_ELEMENT).reshape(shape)
        start = stop
    return found


def _moved(own: str, how: str | Move, elements: _Source) -> NDArray[np.int64]:
    """Return the positions that a layout brings to one parameter."""
    if isinstance(how, str):
        return np.asarray(elements[how]["element"] - 1)
    if not callable(how):
        raise ValueError(f"the layout of {own!r} must be a name or a function, not {how!r}")
    only = "it may only move elements (transpose, reshape, slice, concatenate, ...)"
    try:
        found = np.asarray(how(elements))
    except TypeError as error:
        raise ValueError(f"the layout of {own!r} computes: {only}") from error
    if found.dtype != _ELEMENT:
        raise ValueError(f"the layout of {own!r} computes: {only}")
    if (found["element"] == 0).any():
        raise ValueError(f"the layout of {own!r} fills in elements that no parameter of the source has: {only}")
    return np.asarray(found["element"] - 1)


@final
class _Mismatch:
    """What does not fit, in lines, and what to write if the shapes tell."""

    def __init__(self, source: Shapes, target: Shapes, places: Mapping[str, NDArray[np.int64]]) -> None:
        used = np.zeros(sum(map(math.prod, source.values())), dtype=bool)
        fitting = {own for own, each in places.items() if each.shape == tuple(target[own])}
        for own in fitting:
            used[places[own]] = True
        ends = np.cumsum([0, *map(math.prod, source.values())]).tolist()
        left = {
            name: int(np.sum(~used[start:end]))
            for name, start, end in zip(source, ends, ends[1:], strict=False)
            if not used[start:end].all()
        }
        unmatched = {own: target[own] for own in target if own not in fitting}
        self.lines = []
        for own, shape in unmatched.items():
            if own in places:
                self.lines.append(f"{own!r} {shape} would be loaded from an array of shape {places[own].shape}")
            else:
                near = _nearest(own, shape, {name: source[name] for name in left} or source, "nearest there")
                self.lines.append(f"{own!r} {shape} has no source{near}")
        for name, count in left.items():
            if name not in unmatched:
                size = math.prod(source[name])
                what = "is not used" if count == size else f"has {count} of {size} elements that are not used"
                near = _nearest(name, source[name], unmatched, "nearest here")
                self.lines.append(f"{name!r} {source[name]} of the source {what}{near}")
        self.advice = _advice(unmatched, {name: source[name] for name in left})

    def __str__(self) -> str:
        lines = [f"  {line}" for line in self.lines]
        if self.advice:
            written = ",\n          ".join(f'"{own}": {how}' for own, how in self.advice.items())
            lines += ["if these belong together, write", f"  layout={{{written}}}"]
        return "\n".join(lines)


def _advice(unmatched: Shapes, left: Shapes) -> dict[str, str]:
    """Return, for each parameter without a source, the source of a like shape and nearest name; each is used once."""
    pairs = [
        (rank, -_likeness(own, name), own, name, how)
        for own, shape in unmatched.items()
        for name, given in left.items()
        for rank, how in _ways(name, tuple(given), tuple(shape))
    ]
    advice: dict[str, str] = {}
    taken: set[str] = set()
    for _, _, own, name, how in sorted(pairs):
        if own not in advice and name not in taken:
            advice[own] = how
            taken.add(name)
    return {own: advice[own] for own in unmatched if own in advice}


def _ways(name: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> Iterable[tuple[int, str]]:
    """Yield how an array could be brought to a shape; axes of one length stay in order."""
    if given == wanted:
        yield 0, f'"{name}"'
    elif len(given) == 2 and given[::-1] == wanted:
        yield 1, f'lambda p: p["{name}"].T'
    elif sorted(given) == sorted(wanted):
        left = list(range(len(given)))
        axes = [left.pop(next(i for i, axis in enumerate(left) if given[axis] == length)) for length in wanted]
        yield 1, f'lambda p: p["{name}"].transpose({", ".join(map(str, axes))})'
    elif math.prod(given) == math.prod(wanted):
        yield 2, f'lambda p: p["{name}"].reshape({wanted})'


def _nearest(name: str, shape: tuple[int, ...], others: Mapping[str, Any], words: str = "nearest") -> str:
    """Name the two most like it, those of a like shape first."""
    shapes = {other: tuple(getattr(each, "shape", each)) for other, each in others.items()}
    ranks = {other: min((rank for rank, _ in _ways(other, shapes[other], shape)), default=9) for other in others}
    near = sorted(others, key=lambda other: (ranks[other], -_likeness(name, other)))[:2]
    return f"; {words}: {', '.join(f'{other!r} {shapes[other]}' for other in near)}" if near else ""


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one.lower(), other.lower()).ratio()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"
