"""Native models: what somebody wrote in a framework, or in NumPy, as it is, seen from NumPy.

Nobody rewrites a model to have it checked, and the model itself is never changed. Its parameters keep the names and
layouts that they have; how they correspond to others is the matter of `matching`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gdcompare.arithmetic.program import Program, ProgramError
from gdcompare.gradients import hessian_blocks, unit_directions
from gdcompare.models.matching import Layout, Matching, match
from gdcompare.models.posed import Posed, posed
from gdcompare.models.rules import Rule, faulty
from gdcompare.referee.due import no_exit
from gdcompare.words import one_line

COTANGENTS = 40
"""How many are drawn for an operation."""
MOST_SAID = 240
"""So many letters of an error are repeated: a framework's may fill pages."""

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

    What it computes is in the dtype of the features that it is given, or of the parameters where those are integers.
    """

    name: str
    layout: Layout | None
    """Where its parameters are loaded from: see `match`."""
    derivatives: frozenset[str] = frozenset()
    """Which of "jvp", "hvp" and "hessian" it has beside the gradient."""
    unseen: str = "it has no layers that could be seen"
    """Why `layers` may be empty, and what to do about it."""
    _taken: dict[str, tuple[str, ...]] | None = None

    @property
    @abstractmethod
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """Its own names and current values; empty if it is a function without values of its own."""

    @abstractmethod
    def value_and_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        """Return the loss and `{own name: gradient}`, means over the rows, at parameters of its own names."""

    def value(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> Any:
        """Return the loss alone, by whichever way is ready soonest; up to rounding it is that of `value_and_grad`."""
        return self.value_and_grad(params, features, targets)[0]

    def prepared(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[Callable[[], Any], Callable[[Any], tuple[Any, dict[str, NDArray[Any]]]]]:
        """Return a call that computes loss and gradient from its framework's arrays, and what reads its answer.

        For a timer: inputs are converted before, and the answer after.
        """
        return partial(self.value_and_grad, params, features, targets), lambda answer: answer

    def per_sample_grad(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        """Return `{own name: (n, *shape)}`, one gradient per row, computed a row at a time."""
        rows = [self.value_and_grad(params, features[i : i + 1], targets[i : i + 1])[1] for i in range(len(features))]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def jvp(
        self,
        params: Mapping[str, NDArray[Any]],
        features: NDArray[Any],
        targets: NDArray[Any],
        direction: Mapping[str, NDArray[Any]],
    ) -> tuple[Any, Any]:
        """Return the loss and its derivative along a direction of its own names."""
        raise NotImplementedError(self._lacks("jvp"))

    def hvp(
        self,
        params: Mapping[str, NDArray[Any]],
        features: NDArray[Any],
        targets: NDArray[Any],
        direction: Mapping[str, NDArray[Any]],
    ) -> dict[str, NDArray[Any]]:
        """Return `{own name: product}`, the Hessian times a direction of its own names."""
        raise NotImplementedError(self._lacks("hvp"))

    def layers(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[Layer]:
        """Return what its layers compute, in order of execution; for a single row, without the axis of the rows."""
        del params, features, targets
        return []

    def program(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> Program:
        """Return what it computes, read from its framework's graph; called with its parameters, then with the data.

        Raises ProgramError if it cannot be read.
        """
        del params, features, targets
        raise ProgramError(
            f"{self.name!r} has no graph that could be read: judge it by a problem's formula, "
            "gdcompare.verify(problem, ..., implementations={...}), or compare it with another model, gdcompare.compare"
        )

    def posed(self, data: Any, params: Mapping[str, Any] | None = None, dtype: str = "float64") -> Posed:
        """Return the problem that it poses on these data: what `verify` judges it by, where no other is given."""
        return posed(self, data, params, dtype)

    def example(self, params: Mapping[str, ArrayLike]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return data of its own making, where it has some: an operation draws cotangents."""
        del params
        raise ValueError(f"{self.name!r} needs data: a Dataset, or a pair (features, targets)")

    def held(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """Return parameters and features as the model holds them: rounded, where it holds some in half precision."""
        return dict(params), features

    def coupling(self) -> list[str]:
        """Name the parts that are known to mix the rows of a batch, such as batch normalisation in training mode."""
        return []

    def narrowed(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[str]:
        """Say where it computes with numbers that were rounded to less than the dtype: constants of its own."""
        del params, features, targets
        return []

    def rules(self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]) -> list[Rule]:
        """Return the operations in it that bring a derivative of their own, as they are used there."""
        del params, features, targets
        return []

    def hints(
        self,
        params: Mapping[str, NDArray[Any]],
        features: NDArray[Any],
        targets: NDArray[Any],
        matching: Matching | None = None,
    ) -> str:
        """Say what may be the cause where it differs, at parameters of the source; "" if there is nothing to say.

        A model that fails here, where it is run in other ways than to be judged, is told so: what was judged stands.
        """
        own = (matching or self.matching(params)).load(params)

        def narrow() -> str:
            places = self.narrowed(own, *self.as_taken(own, features, targets))
            more = f", and {len(places) - 3} more" if len(places) > 3 else ""
            return f"it holds float32 inside float64: {'; '.join(places[:3])}{more}" if places else ""

        def wrong() -> str:
            return faulty(self.rules(own, *self.as_taken(own, features, targets)), working_dtype(own, features))

        looked = {"float32 inside float64": narrow, "a derivative that is wrong by itself": wrong}
        return "; ".join(filter(None, [_looked_for(what, look) for what, look in looked.items()]))

    def as_itself(self) -> Native:
        """Return the same model, loaded from parameters of its own names, whatever its layout."""
        own = copy(self)
        own.layout = None
        return own

    def matching(self, source: Mapping[str, ArrayLike]) -> Matching:
        """Return how its parameters are loaded from those of a problem or of another model."""
        own = {name: value.shape for name, value in self.parameters.items()}
        return match(
            {name: np.shape(value) for name, value in source.items()}, own or None, self.layout, name=self.name
        )

    def fits(self, source: Mapping[str, ArrayLike]) -> Matching:
        """Return the matching; a ValueError if there is none, or if the model's rows are not independent."""
        check_independence(self.name, random=[], coupling=self.coupling())
        return self.matching(source)

    def as_taken(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the data as the model takes them: as they are, or whole numbers as integers for floats, or as floats.

        Tokens and labels are integers for some models, and floats in a `Dataset`. What was found to work is kept.
        """
        given = features, targets
        kinds = "".join(each.dtype.kind for each in given)
        if self._taken is None:
            self._taken = {}
        if kinds in self._taken:
            return _turned(given, self._taken[kinds], params)
        ways = list(product(*(_kinds(each) for each in given)))
        failed: Exception | None = None
        for way in ways if len(ways) > 1 else []:
            try:
                turned = _turned(given, way, params)
                self.value_and_grad(params, *turned)
            except Exception as error:  # whatever a model does with the wrong kind of number
                failed = failed or error
            else:
                self._taken[kinds] = way
                return turned
        if failed is not None:
            raise failed
        return given

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
        loss, gradient = _weighted(partial(self.value_and_grad, own), *self.as_taken(own, features, targets), weights)
        return loss, matching.in_source(gradient)

    def per_sample(
        self, params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        """Return `{name: (n, *shape)}`, one gradient per row, by the parameters of the source."""
        matching = self.matching(params)
        own = matching.load(params)
        return matching.in_source(self.per_sample_grad(own, *self.as_taken(own, features, targets)))

    def along(self, derivative: str) -> Callable[..., Any]:
        """Return its "jvp", "hvp" or "hessian" by the parameters of the source, as `gdcompare.verify` judges them.

        Raises ValueError if it has no such derivative.
        """
        if derivative not in self.derivatives:
            raise ValueError(self._lacks(derivative))

        def judged(
            params: Mapping[str, NDArray[Any]], features: NDArray[Any], targets: NDArray[Any], *others: Any
        ) -> Any:
            matching = self.matching(params)
            own = matching.load(params)
            given = self.as_taken(own, features, targets)

            def product_along(direction: Mapping[str, NDArray[Any]], weights: Any = None) -> dict[str, NDArray[Any]]:
                tangent = matching.load_direction(direction)
                rows = partial(_none_and, partial(self.hvp, own, direction=tangent))
                return matching.in_source(_weighted(rows, *given, weights)[1])

            if derivative == "hvp":
                return product_along(*others)
            if derivative == "jvp":
                direction, *weights = others
                tangent = matching.load_direction(direction)
                return _weighted(partial(self.jvp, own, direction=tangent), *given, *weights)
            shapes = {name: value.shape for name, value in params.items()}
            units = unit_directions(shapes)
            dtype = next(iter(params.values())).dtype
            columns = [
                product_along({name: each[i].astype(dtype) for name, each in units.items()}, *others)
                for i in range(len(next(iter(units.values()))))
            ]
            return hessian_blocks({name: np.stack([column[name] for column in columns]) for name in shapes}, shapes)

        return judged

    def _lacks(self, derivative: str) -> str:
        has = ", ".join(["gradient", *sorted(self.derivatives)])
        return f"{self.name!r} has no {derivative}; what can be judged of it: {has}"


def _looked_for(what: str, look: Callable[[], str]) -> str:
    """Return what was found, or that it could not be looked for, and why: somebody's code fails in its own ways."""
    try:
        with no_exit():
            return look()
    except Exception as error:
        return f"{what} could not be looked for: {one_line(f'{type(error).__name__}: {error}')[:MOST_SAID]}"


def _none_and(function: Callable[..., Any], *rows: NDArray[Any]) -> tuple[None, Any]:
    return None, function(*rows)


def _weighted(
    function: Callable[..., tuple[Any, Any]], features: NDArray[Any], targets: NDArray[Any], weights: Any = None
) -> tuple[Any, Any]:
    """Return a loss and its derivatives, or sum w_i (those of row i) / sum w_i with weights."""
    if weights is None:
        return function(features, targets)
    shares = weights / np.sum(weights)
    rows = [function(features[i : i + 1], targets[i : i + 1]) for i in range(len(shares))]
    losses, found = zip(*rows, strict=True)
    loss = None if losses[0] is None else shares @ np.stack(losses)
    if not isinstance(found[0], Mapping):
        return loss, shares @ np.stack(found)
    return loss, {name: np.tensordot(shares, np.stack([row[name] for row in found]), axes=1) for name in found[0]}


# Whole numbers


def _kinds(values: NDArray[Any]) -> str:
    """Return the kinds of number that values can be without a change, their own first: integers "i", floats "f"."""
    if values.dtype.kind in "iu":
        return "if"
    return "fi" if values.dtype.kind == "f" and (values == np.rint(values)).all() else values.dtype.kind


def _turned(
    given: tuple[NDArray[Any], NDArray[Any]], kinds: Sequence[str], params: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the data in the kinds asked for, where that changes no number."""
    dtypes = {"i": np.dtype(np.int64), "f": np.dtype(working_dtype(params, given[0]))}
    features, targets = (
        each.astype(dtypes[kind]) if kind in _kinds(each)[1:] else each for each, kind in zip(given, kinds, strict=True)
    )
    return features, targets


def working_dtype(params: Mapping[str, NDArray[Any]], features: NDArray[Any]) -> str:
    """Return the dtype in which a model computes: that of the features, or of the parameters if those are integers.

    >>> working_dtype({"w": np.zeros(2, np.float32)}, np.arange(3))
    'float32'
    """
    if features.dtype.kind == "f" or not params:
        return str(features.dtype)
    return str(np.result_type(*params.values()))


def is_rounded(values: NDArray[Any]) -> bool:
    """Whether numbers of less than float64 stand for others, as 0.1 in float32 does; 0.5 and 1e9 are exact.

    >>> is_rounded(np.float32([0.5, 1e9])), is_rounded(np.float32([0.5, 0.1]))
    (False, True)
    """
    some = np.ravel(values)[:64]
    return any(np.isfinite(each) and float(str(each)) != float(each) for each in some)


# What a model may be

NO_SLOPE = "no slope of the loss reaches a parameter: it is detached, under no_grad, or made of numbers"
PLAIN_NUMBERS = "and so there is nothing to compare; numbers of Python are constants, np.array(1.5) is a parameter"


def mean_of(loss: Any, n: int) -> Any:
    """Return the mean of a framework's array of n losses, or the array itself if it is one number, the mean already.

    >>> float(mean_of(np.array([1.0, 3.0]), 2)), float(mean_of(np.array(2.0), 2))
    (2.0, 2.0)
    >>> mean_of(np.zeros((3, 1)), 3)
    Traceback (most recent call last):
    ...
    ValueError: the loss has shape (3, 1); it must be one number, the mean, or (3,), a number for each row
    >>> mean_of(2.0, 3)
    Traceback (most recent call last):
    ...
    TypeError: the loss is a float, which has no gradient; return the framework's array: no .item() or float() of it
    """
    if not hasattr(loss, "shape") or not hasattr(loss, "dtype"):
        of_numbers = isinstance(loss, bool | int | float)
        how = "the framework's array: no .item() or float() of it" if of_numbers else "the loss alone, as one array"
        raise TypeError(f"the loss is a {type(loss).__name__}, which has no gradient; return {how}")
    if any(kind in str(loss.dtype) for kind in ("int", "bool")):
        raise TypeError(f"the loss holds {loss.dtype}, and whole numbers have no gradient: argmax, a count, a cast?")
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
            "law holds; call .eval() on it first, use a group or layer norm, or compare it with another model"
        )


def cotangents(m: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw cotangents (n, m) of an operation's m outputs, for features, and targets that are not used."""
    drawn = np.random.default_rng(0).standard_normal((COTANGENTS, m))
    return np.round(drawn, 3), np.zeros(COTANGENTS)


def check_outputs(name: str, shapes: Sequence[tuple[int, ...]], m: int) -> None:
    """Raise a ValueError unless an operation's outputs have as many numbers as its cotangents.

    >>> check_outputs("softplus", [(2, 3)], 4)
    Traceback (most recent call last):
    ...
    ValueError: 'softplus' returns an array of shape (2, 3), 6 numbers, where the formula returns 4
    """
    size = sum(map(math.prod, shapes))
    if size != m:
        what = (
            f"an array of shape {shapes[0]}" if len(shapes) == 1 else f"arrays of shapes {', '.join(map(str, shapes))}"
        )
        raise ValueError(f"{name!r} returns {what}, {size} numbers, where the formula returns {m}")
